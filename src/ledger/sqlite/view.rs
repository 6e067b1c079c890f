//! What the checks ask, as SQL.

use alloy::primitives::{Address, U256};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::failed;
use super::row::{Cells, Stored, integer, reversed};
use crate::ledger::{Books, Charge, LedgerError};
use crate::policy::limit::{Scope, Span};
use crate::{Network, Origin, Timestamp};

/// What counts at a moment, without one purchase.
const COUNTS: &str = "state <> 'freed' AND (state <> 'reserved' OR lease_until > ?) AND seq <> ?";
/// No purchase: the first is 1.
const NOTHING: i64 = 0;

/// The books inside a transaction, as [`Books`].
pub(super) struct View<'a> {
    books: &'a Connection,
    now: Timestamp,
    except: i64,
}

/// A condition with the values of its placeholders, in order.
type Clause = (&'static str, Vec<Value>);

impl<'a> View<'a> {
    pub(super) fn new(books: &'a Connection, now: Timestamp, except: Option<u64>) -> Result<Self, LedgerError> {
        let except = except.map_or(Ok(NOTHING), |seq| integer(seq, "seq"))?;
        Ok(Self { books, now, except })
    }

    /// The query for [`Books::charges`], and its values.
    pub(super) fn query(&self, scope: &Scope, span: Span) -> (String, Vec<Value>) {
        let index = index(scope, span);
        let (at, (within, edges)) = self.within(span);
        let (held_by, keys) = held_by(scope);
        let sql = format!(
            "SELECT seq, origin, network, asset, value, usd_micros, {at} AS at FROM purchases INDEXED BY {index} \
             WHERE {COUNTS} AND {within} AND {held_by}"
        );
        (sql, [self.counting(), edges, keys].concat())
    }

    fn counting(&self) -> Vec<Value> {
        vec![self.now.millis().into(), self.except.into()]
    }

    /// The column that decides, and the condition. A hold has its `counts_at` and `expires_at` at
    /// the end of time, and so lies in every window.
    fn within(&self, span: Span) -> (&'static str, Clause) {
        match span {
            Span::Ever => ("counts_at", ("true", Vec::new())),
            Span::SpentAfter(start) => ("counts_at", ("counts_at > ?", vec![start.millis().into()])),
            Span::ReservedAfter(start) => ("reserved_at", ("reserved_at > ?", vec![start.millis().into()])),
            Span::Outstanding => {
                ("expires_at", ("state <> 'settled' AND expires_at > ?", vec![self.now.millis().into()]))
            }
        }
    }

    /// The first answer of a query that starts with what counts.
    fn first<T: Stored>(&self, (column, rest): (&str, &str), values: Vec<Value>) -> Result<Option<T>, LedgerError> {
        let sql = format!("SELECT seq, {column} FROM purchases INDEXED BY by_seller WHERE {COUNTS} AND {rest}");
        let mut statement = self.books.prepare_cached(&sql).map_err(failed)?;
        let mut rows = statement.query(params_from_iter([self.counting(), values].concat())).map_err(failed)?;
        rows.next().map_err(failed)?.map(|row| Cells::of(row)?.text(column)).transpose()
    }
}

impl Books for View<'_> {
    fn charges(&self, scope: &Scope, span: Span, visit: &mut dyn FnMut(Charge)) -> Result<(), LedgerError> {
        let (sql, values) = self.query(scope, span);
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
        let values = vec![origin.written().into(), network.written().into(), asset.written().into()];
        self.first(("payee", "origin = ? AND network = ? AND asset = ? ORDER BY seq LIMIT 1"), values)
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        (network, asset): (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        let seller = [origin.written(), network.written(), asset.written()];
        let values = seller.into_iter().chain([method.to_owned(), path.to_owned()]).map(Value::from).collect();
        self.first(
            ("value", "origin = ? AND network = ? AND asset = ? AND method = ? AND path = ? ORDER BY seq DESC LIMIT 1"),
            values,
        )
    }
}

/// `None` for what lies in the range of a scope but not in the scope.
fn charge(row: &Row<'_>, scope: &Scope) -> Result<Option<Charge>, LedgerError> {
    let cells = Cells::of(row)?;
    if let Scope::Domain(domain) = scope {
        let origin: Origin = cells.text("origin")?;
        if origin.registrable_domain() != domain {
            return Ok(None);
        }
    }
    let (network, asset, value) = (cells.text("network")?, cells.text("asset")?, cells.text("value")?);
    Ok(Some(Charge { network, asset, value, usd: cells.usd()?, at: cells.time("at")? }))
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
        (Span::Ever | Span::SpentAfter(_), Scope::Origin(_)) => "by_origin",
        (Span::Ever | Span::SpentAfter(_), Scope::Host(_) | Scope::Domain(_)) => "by_host",
        (Span::Ever | Span::SpentAfter(_), Scope::Payee(_)) => "by_payee",
        (Span::Ever | Span::SpentAfter(_), Scope::Asset(..)) => "by_asset",
        (Span::Ever | Span::SpentAfter(_), Scope::Network(_)) => "by_network",
        (Span::Ever | Span::SpentAfter(_), Scope::Tag(_)) => "by_tag",
        (Span::Ever | Span::SpentAfter(_), Scope::Agent(_)) => "by_agent",
    }
}

fn held_by(scope: &Scope) -> Clause {
    match scope {
        Scope::Global => ("true", Vec::new()),
        Scope::Origin(origin) => ("origin = ?", vec![origin.written().into()]),
        Scope::Host(pattern) if pattern.covers_subdomains() => {
            let host = reversed(pattern.host());
            ("host_reversed > ? AND host_reversed < ?", vec![format!("{host}.").into(), end_of(&host).into()])
        }
        Scope::Host(pattern) => ("host_reversed = ?", vec![reversed(pattern.host()).into()]),
        // What a registrable domain is changes with the public suffix list, so it is not stored:
        // every host that could belong to it is read, and asked.
        Scope::Domain(domain) => {
            let host = reversed(domain);
            ("host_reversed >= ? AND host_reversed < ?", vec![host.clone().into(), end_of(&host).into()])
        }
        Scope::Payee(payee) => ("payee = ?", vec![payee.written().into()]),
        Scope::Asset(network, asset) => {
            ("network = ? AND asset = ?", vec![network.written().into(), asset.written().into()])
        }
        Scope::Network(network) => ("network = ?", vec![network.written().into()]),
        Scope::Tag(tag) => ("tag = ?", vec![tag.clone().into()]),
        Scope::Agent(agent) => ("agent = ?", vec![agent.clone().into()]),
    }
}

/// After `com.example.` and all that begins with it: `/` is the byte after the dot.
fn end_of(reversed_host: &str) -> String {
    format!("{reversed_host}/")
}
