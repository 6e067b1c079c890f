//! The books inside a transaction, as [`Books`].

use alloy::primitives::{Address, U256};
use rusqlite::{Connection, params_from_iter};

use super::failed;
use crate::ledger::sql::query::{Present, Query, charge};
use crate::ledger::sql::row::{Cells, Stored};
use crate::ledger::{Books, Charge, LedgerError, StopOrder};
use crate::policy::limit::{Scope, Span};
use crate::{Network, Origin, Timestamp};

const BY_SELLER: &str = "purchases INDEXED BY by_seller";

pub(super) struct View<'a> {
    books: &'a Connection,
    present: Present,
}

impl<'a> View<'a> {
    pub(super) fn new(books: &'a Connection, now: Timestamp, except: Option<u64>) -> Result<Self, LedgerError> {
        Ok(Self { books, present: Present::new(now, except)? })
    }

    pub(super) fn query(&self, scope: &Scope, span: Span) -> Query {
        self.present.charges(&format!("purchases INDEXED BY {}", index(scope, span)), scope, span)
    }

    fn first<T: Stored>(&self, query: Query, column: &str) -> Result<Option<T>, LedgerError> {
        let mut statement = self.books.prepare_cached(&query.sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(query.values)).map_err(failed)?;
        rows.next().map_err(failed)?.map(|row| Cells::of(row)?.text(column)).transpose()
    }
}

impl Books for View<'_> {
    fn stopped(&self) -> Result<Option<StopOrder>, LedgerError> {
        super::stopped(self.books)
    }

    fn charges(&self, scope: &Scope, span: Span, visit: &mut dyn FnMut(Charge)) -> Result<(), LedgerError> {
        let Query { sql, values } = self.query(scope, span);
        let mut statement = self.books.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if let Some(charge) = charge(row, scope)? {
                visit(charge);
            }
        }
        Ok(())
    }

    fn first_payee(&self, origin: &Origin, network: Network, asset: Address) -> Result<Option<Address>, LedgerError> {
        self.first(self.present.first_payee(BY_SELLER, origin, (network, asset)), "payee")
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        self.first(self.present.last_price(BY_SELLER, origin, (method, path), asset), "value")
    }
}

/// The index whose range holds the fewest others: windows of reservations are short and what is
/// outstanding is little, all else is read by its scope.
///
/// It is named to SQLite, whose own guess would be blind: without the index the query fails rather
/// than reads the whole table.
const fn index(scope: &Scope, span: Span) -> &'static str {
    match (span, scope) {
        (Span::Outstanding, _) => "by_expires_at",
        (Span::ReservedAfter(_), _) => "by_reserved_at",
        (Span::Ever | Span::SpentAfter(_), Scope::Global) => "by_counts_at",
        (Span::Ever | Span::SpentAfter(_), Scope::Origin(_) | Scope::Resource(..)) => "by_origin",
        (Span::Ever | Span::SpentAfter(_), Scope::Host(_) | Scope::Domain(_)) => "by_host",
        (Span::Ever | Span::SpentAfter(_), Scope::Payee(_)) => "by_payee",
        (Span::Ever | Span::SpentAfter(_), Scope::Asset(..)) => "by_asset",
        (Span::Ever | Span::SpentAfter(_), Scope::Network(_)) => "by_network",
        (Span::Ever | Span::SpentAfter(_), Scope::Request(_)) => "by_request",
        (Span::Ever | Span::SpentAfter(_), Scope::Tag(_)) => "by_tag",
        (Span::Ever | Span::SpentAfter(_), Scope::Agent(_)) => "by_agent",
    }
}
