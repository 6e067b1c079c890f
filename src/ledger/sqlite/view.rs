//! The books inside a transaction, as [`Books`].

use std::cell::RefCell;

use alloy::primitives::{Address, U256};
use rusqlite::{Connection, params_from_iter};

use super::failed;
use super::totals::{self, Key, Total};
use crate::ledger::checks;
use crate::ledger::entry::{holds, within};
use crate::ledger::sql::query::{Present, Query, charge};
use crate::ledger::sql::row::{Cells, Stored};
use crate::ledger::sum::Sum;
use crate::ledger::{Books, Charge, Entry, LedgerError, StopOrder, Tally};
use crate::policy::limit::{Scope, Span};
use crate::{Network, Origin, Timestamp};

const BY_SELLER: &str = "purchases INDEXED BY by_seller";

pub(super) struct View<'a> {
    books: &'a Connection,
    now: Timestamp,
    present: Present,
    /// The purchase that is being reserved, as it is known, and holds that lapsed: what is in the totals and does
    /// not count.
    known: Option<&'a Entry>,
    lapsed: Vec<Entry>,
    /// Totals that began or moved on since they were written, and whether they began.
    moved: RefCell<Vec<(Key, Total, bool)>>,
}

impl<'a> View<'a> {
    pub(super) fn new(books: &'a Connection, now: Timestamp, known: Option<&'a Entry>) -> Result<Self, LedgerError> {
        let present = Present::new(now, known.map(|entry| entry.seq))?;
        let lapsed = super::read(books, present.lapsed("purchases INDEXED BY held"))?;
        Ok(Self { books, now, present, known, lapsed, moved: RefCell::default() })
    }

    /// Holds of others that do not count any more.
    pub(super) fn lapsed(&self) -> &[Entry] {
        &self.lapsed
    }

    /// Writes the totals that began or moved on.
    pub(super) fn keep_totals(&self) -> Result<(), LedgerError> {
        self.moved.take().iter().try_for_each(|(key, total, is_new)| totals::keep(self.books, key, *total, *is_new))
    }

    /// The total with all that is in it, brought to this moment.
    fn kept(&self, key: &Key, tally: Tally<'_>, start: Timestamp) -> Result<Sum, LedgerError> {
        let between = |after, until| self.between(key, tally, (after, until));
        let known = totals::find(self.books, key)?;
        // Beyond its own length a window shares nothing with where it was.
        let length = self.now.millis().saturating_sub(start.millis());
        let near = |known: &Total| start.millis().saturating_sub(known.start.millis()) <= length;
        let Some(known) = known.filter(near) else {
            let sum = between(start, Timestamp::MAX)?;
            self.moved.borrow_mut().push((key.clone(), Total::new(start, sum, self.now), true));
            return Ok(sum);
        };
        // By a clock that is behind: what it sees more is not kept.
        if start < known.start {
            return Ok(known.sum.plus(between(start, known.start)?));
        }
        let left = between(known.start, start)?;
        let sum = known.sum.minus(left);
        if !left.is_zero() || known.was_used_long_ago(self.now) {
            self.moved.borrow_mut().push((key.clone(), Total::new(start, sum, self.now), false));
        }
        Ok(sum)
    }

    fn between(&self, key: &Key, tally: Tally<'_>, range: (Timestamp, Timestamp)) -> Result<Sum, LedgerError> {
        let scope = tally.scope();
        let table = format!("purchases INDEXED BY {}", index(scope, tally.span()));
        let mut sum = Sum::default();
        self.visit(Present::charges_between(&table, scope, key.time, range), scope, &mut |charge| {
            sum = sum.plus(tally.weigh(charge).unwrap_or_default());
        })?;
        Ok(sum)
    }

    fn visit(&self, query: Query, scope: &Scope, visit: &mut dyn FnMut(Charge)) -> Result<(), LedgerError> {
        let Query { sql, values } = query;
        let mut statement = self.books.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
        while let Some(row) = rows.next().map_err(failed)? {
            if let Some(charge) = charge(row, scope)? {
                visit(charge);
            }
        }
        Ok(())
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
        self.visit(self.query(scope, span), scope, visit)
    }

    fn total(&self, tally: Tally<'_>) -> Result<U256, LedgerError> {
        let Some((key, start)) = Key::of(tally) else { return checks::sum(self, tally) };
        let (scope, span) = (tally.scope(), tally.span());
        let absent = self.lapsed.iter().chain(self.known).filter(|entry| totals::adds(entry));
        let absent = absent.filter(|entry| holds(scope, entry) && within(span, entry, self.now));
        let absent = absent.filter_map(|entry| tally.weigh(Charge::of(entry, span)));
        let absent = absent.fold(Sum::default(), Sum::plus);
        let total = self.kept(&key, tally, start)?.minus(absent).amount();
        #[cfg(test)]
        if std::env::var_os(totals::MEASURED).is_none() {
            assert_eq!(total, checks::sum(self, tally)?, "{key:?}");
        }
        Ok(total)
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
        (Span::ReservedAfter(_), Scope::Request(_)) => "by_request",
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
