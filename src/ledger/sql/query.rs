//! Queries, in SQL that every database reads.

mod filtered;

use std::borrow::Cow;
#[cfg(feature = "sqlite")]
use std::sync::OnceLock;

use alloy::primitives::Address;

pub(in crate::ledger) use self::filtered::{before_last, page};
use super::row::{Cells, Stored, integer};
#[cfg(feature = "sqlite")]
use super::row::{Columns, Event};
use super::scope::condition;
use super::{Row, Value};
use crate::clock::Timestamp;
#[cfg(feature = "sqlite")]
use crate::ledger::PurchaseId;
use crate::ledger::purchase::failed;
use crate::ledger::{Bought, Calls, Freeze, LedgerError, PurchaseKey, Resumption, State};
#[cfg(feature = "postgres")]
use crate::limit::Unit;
use crate::limit::{Charge, Moment, Scope, Since};
use crate::money::Network;
use crate::origin::Origin;

/// A statement with one `?` for each of its values, in order.
#[derive(Clone, Debug)]
pub(in crate::ledger) struct Query {
    pub(in crate::ledger) sql: Cow<'static, str>,
    pub(in crate::ledger) values: Vec<Value>,
}

/// The columns that [`charge`] reads, in this order, before `at`.
const CHARGE: &str = "seq, origin, state, network, asset, coalesce(verified_charge, value) AS value, \
    coalesce(verified_usd_micros, usd_micros) AS usd_micros, refunded, status";
/// Selects purchases that count at a time, except one purchase.
const COUNTS: &str = "live = 1 AND (state <> 'reserved' OR lease_until > ?) AND seq <> ?";
/// The sum of micro-dollars without refunds. As in [`Charge`], the part that a refund pays back is rounded down.
#[cfg(feature = "postgres")]
const NET_MICROS: &str = "sum(greatest(coalesce(verified_usd_micros, usd_micros) \
    - coalesce(div(coalesce(verified_usd_micros, usd_micros) * CAST(refunded AS NUMERIC), \
        nullif(CAST(coalesce(verified_charge, value) AS NUMERIC), 0)), 0), 0))";
/// The condition of [`Purchase::failed`](crate::ledger::Purchase::failed).
#[cfg(feature = "postgres")]
pub(in crate::ledger) const FAILED: &str = "((state = 'unresolved' AND (status IS NULL OR (status >= 300 AND NOT (status >= 400 AND status < 500 \
    AND status <> 402 AND status <> 408 AND status <> 409 AND status <> 425 AND status <> 429)))) \
    OR (state = 'settled' AND status >= 400))";
/// The purchases among which [`Purchase::is_undelivered`](crate::ledger::Purchase::is_undelivered)
/// selects. The condition of the index `undelivered` is the same.
const UNDELIVERED: &str = "(state = 'signed' OR state = 'rejected' OR state = 'unresolved' OR (state = 'settled' AND (status IS NULL OR status < 200 OR status >= 400)))";
/// The column that is not covered by the hash of the event.
pub(in crate::ledger) const LAST_EVENT: &str = "last_event";
/// The number of no purchase. The first purchase has 1.
const NOTHING: i64 = 0;

/// The part of the purchases that a query reads. SQLite has separate indices for two parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ledger) enum Part {
    /// All purchases.
    All,
    /// Holds without a signature, which are few. They count at the end of time.
    #[cfg(feature = "sqlite")]
    Held,
    /// All other purchases.
    #[cfg(feature = "sqlite")]
    Timed,
}

impl Part {
    /// Returns the SQL condition. SQLite uses an index only if the query repeats its condition.
    pub(in crate::ledger) const fn condition(self) -> &'static str {
        match self {
            Self::All => "true",
            #[cfg(feature = "sqlite")]
            Self::Held => "state = 'reserved'",
            #[cfg(feature = "sqlite")]
            Self::Timed => "counts_at < 9223372036854775807",
        }
    }
}

/// Selects one purchase.
pub(in crate::ledger) fn purchase(key: &PurchaseKey) -> Query {
    let sql = "SELECT * FROM purchases WHERE payer = ? AND purchase = ?";
    Query {
        sql: sql.into(),
        values: vec![key.payer.written().into(), key.id.written().into()],
    }
}

/// Selects the purchases with this id, of every payer. The index begins with the id.
#[cfg(feature = "sqlite")]
pub(in crate::ledger) fn with_id(id: &PurchaseId) -> Query {
    Query {
        sql: "SELECT * FROM purchases WHERE purchase = ?".into(),
        values: vec![id.written().into()],
    }
}

/// Selects the number of calls with an API key since a time and before a purchase, as `seq`. Counts at most `most`.
/// `table` may name an index.
///
/// The index has all of these columns. A call that the seller turned away is not live.
pub(in crate::ledger) fn calls(table: &str, calls: &Calls<'_>) -> Query {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX).into();
    let sql = format!(
        "SELECT count(*) AS seq FROM (SELECT 1 FROM {table} WHERE credential = ? AND live = 1 \
         AND reserved_at >= ? AND seq < ? LIMIT ?) AS calls"
    );
    let values = vec![
        calls.credential.to_owned().into(),
        calls.since.millis().into(),
        number(calls.before),
        number(calls.most),
    ];
    Query {
        sql: sql.into(),
        values,
    }
}

/// Selects a purchase that [`Bought::includes`], if there is one. `table` may name an index.
pub(in crate::ledger) fn bought(table: &str, bought: &Bought<'_>) -> Query {
    let mut values = vec![
        bought.origin.written().into(),
        bought.payer.written().into(),
    ];
    let of_path = match bought.resource() {
        None => "true",
        Some(path) => {
            let query = format!("{path}?");
            values.extend([path.to_owned().into(), query.clone().into(), query.into()]);
            "(path = ? OR substr(path, 1, length(CAST(? AS TEXT))) = ?)"
        }
    };
    let sql = format!(
        "SELECT seq FROM {table} WHERE live = 1 AND origin = ? AND payer = ? AND {of_path} AND (state = 'settled' \
         OR ((state = 'signed' OR state = 'rejected' OR state = 'unresolved') AND status >= 200 AND status < 300)) LIMIT 1"
    );
    Query {
        sql: sql.into(),
        values,
    }
}

/// Selects purchases of the same request that [`Resumption::choose`] chooses from, the first to expire first.
/// `table` can name an index.
pub(in crate::ledger) fn undelivered(table: &str, wanted: &Resumption) -> Query {
    let sql = format!(
        "SELECT * FROM {table} WHERE {UNDELIVERED} AND fingerprint = ? AND expires_at > ? \
         ORDER BY expires_at, seq"
    );
    Query {
        sql: sql.into(),
        values: vec![
            wanted.fingerprint.written().into(),
            wanted.now.millis().into(),
        ],
    }
}

/// Selects the freeze.
pub(in crate::ledger) fn frozen() -> Query {
    Query {
        sql: "SELECT id AS seq, reason, since FROM frozen".into(),
        values: Vec::new(),
    }
}

/// Writes the freeze, or removes it.
pub(in crate::ledger) fn set_freeze(freeze: Option<&Freeze>) -> Query {
    let Some(freeze) = freeze else {
        return Query {
            sql: "DELETE FROM frozen".into(),
            values: Vec::new(),
        };
    };
    let sql = "INSERT INTO frozen (id, reason, since) VALUES (1, ?, ?) \
               ON CONFLICT (id) DO UPDATE SET reason = excluded.reason, since = excluded.since";
    Query {
        sql: sql.into(),
        values: vec![freeze.reason.clone().into(), freeze.since.millis().into()],
    }
}

/// Writes a purchase over the stored one, with the number of the event that changed it.
#[cfg(feature = "sqlite")]
pub(in crate::ledger) fn write(columns: Columns, event: &Event) -> Query {
    static SQL: OnceLock<String> = OnceLock::new();
    let (names, values): (Vec<_>, Vec<_>) = columns
        .into_iter()
        .chain([(LAST_EVENT, event.seq.into())])
        .unzip();
    let sql = SQL.get_or_init(|| {
        let updates: Vec<_> = names
            .iter()
            .map(|name| format!("{name} = excluded.{name}"))
            .collect();
        format!(
            "{} ON CONFLICT (payer, purchase) DO UPDATE SET {}",
            insert("purchases", &names),
            updates.join(", ")
        )
    });
    Query {
        sql: sql.into(),
        values,
    }
}

/// Writes the columns that changed. SQLite updates an index only if one of its columns is written.
#[cfg(feature = "sqlite")]
pub(in crate::ledger) fn rewrite(before: &Columns, columns: &Columns, event: &Event) -> Query {
    let [(_, seq), ..] = columns;
    let changed = columns
        .iter()
        .zip(before)
        .filter(|(now, before)| now != before)
        .map(|(now, _)| now.clone());
    let (names, mut values): (Vec<_>, Vec<_>) =
        changed.chain([(LAST_EVENT, event.seq.into())]).unzip();
    let sets: Vec<_> = names
        .iter()
        .map(|name: &&str| format!("{name} = ?"))
        .collect();
    values.push(seq.clone());
    Query {
        sql: format!("UPDATE purchases SET {} WHERE seq = ?", sets.join(", ")).into(),
        values,
    }
}

/// Appends an event.
#[cfg(feature = "sqlite")]
pub(in crate::ledger) fn append(event: Event) -> Query {
    static SQL: OnceLock<String> = OnceLock::new();
    let (names, values): (Vec<_>, Vec<_>) = event.columns.into_iter().unzip();
    Query {
        sql: SQL.get_or_init(|| insert("events", &names)).into(),
        values,
    }
}

#[cfg(feature = "sqlite")]
fn insert(table: &str, names: &[&str]) -> String {
    format!(
        "INSERT INTO {table} ({}) VALUES ({})",
        names.join(", "),
        vec!["?"; names.len()].join(", ")
    )
}

/// The number of rows that one step of a verification reads. Clients can pay between the steps.
pub(in crate::ledger) const STEP: usize = 1000;

/// Selects the events after this number, for [`Audit::event`].
///
/// [`Audit::event`]: crate::ledger::hash_chain::Audit::event
pub(in crate::ledger) fn events_after(seq: i64) -> Query {
    let sql = format!(
        "SELECT e.*, p.seq AS purchase_seq, p.last_event FROM events e \
         LEFT JOIN purchases p ON p.payer = e.payer AND p.purchase = e.purchase \
         WHERE e.seq > ? ORDER BY e.seq LIMIT {STEP}"
    );
    Query {
        sql: sql.into(),
        values: vec![seq.into()],
    }
}

/// Selects the purchases after this number, for [`Audit::purchase`].
///
/// [`Audit::purchase`]: crate::ledger::hash_chain::Audit::purchase
pub(in crate::ledger) fn purchases_after(seq: i64) -> Query {
    let sql = format!(
        "SELECT p.*, e.purchase_hash FROM purchases p \
         LEFT JOIN events e ON e.seq = p.last_event AND e.payer = p.payer AND e.purchase = p.purchase \
         WHERE p.seq > ? ORDER BY p.seq LIMIT {STEP}"
    );
    Query {
        sql: sql.into(),
        values: vec![seq.into()],
    }
}

/// The time of a check, and the purchase that must not be among the results.
#[derive(Clone, Copy)]
pub(in crate::ledger) struct Present {
    now: Timestamp,
    except: i64,
}

impl Present {
    pub(in crate::ledger) fn new(now: Timestamp, except: Option<u64>) -> Result<Self, LedgerError> {
        let except = except.map_or(Ok(NOTHING), |seq| integer(seq, "seq"))?;
        Ok(Self { now, except })
    }

    fn counting(&self) -> Vec<Value> {
        vec![self.now.millis().into(), self.except.into()]
    }

    /// Returns the query of the reservations that lapsed. `table` may name an index.
    pub(in crate::ledger) fn lapsed(&self, table: &str) -> Query {
        let sql = format!(
            "SELECT * FROM {table} WHERE state = 'reserved' AND lease_until <= ? AND seq <> ?"
        );
        Query {
            sql: sql.into(),
            values: self.counting(),
        }
    }

    /// Returns the query of [`Usage::charges`]. Read each row by [`charge`]. `table` may name an index.
    ///
    /// [`Usage::charges`]: crate::limit::Usage::charges
    pub(in crate::ledger) fn charges(
        &self,
        table: &str,
        part: Part,
        scope: &Scope,
        since: Since,
    ) -> Query {
        let (at, counted) = counted(since.moment);
        let (in_scope, keys) = condition(scope);
        let part = part.condition();
        let sql = format!(
            "SELECT {CHARGE}, {at} AS at FROM {table} \
             WHERE {part} AND {COUNTS} AND {counted} AND {at} > ? AND {in_scope}"
        );
        let after = vec![since.after.millis().into()];
        Query {
            sql: sql.into(),
            values: [self.counting(), after, keys].concat(),
        }
    }

    /// Returns the query of the [`charges`](Self::charges) that are not later than `until`.
    #[cfg(feature = "postgres")]
    pub(in crate::ledger) fn charges_until(
        &self,
        scope: &Scope,
        since: Since,
        until: Timestamp,
    ) -> Query {
        let (at, _) = counted(since.moment);
        let Query { sql, mut values } = self.charges("purchases", Part::All, scope, since);
        values.push(until.millis().into());
        Query {
            sql: format!("{sql} AND {at} <= ?").into(),
            values,
        }
    }

    /// Returns the query of [`Usage::total`], except for a registrable domain. One row has `total`.
    ///
    /// [`Usage::total`]: crate::limit::Usage::total
    #[cfg(feature = "postgres")]
    pub(in crate::ledger) fn total(&self, scope: &Scope, since: Since, unit: Unit) -> Query {
        let (at, counted) = counted(since.moment);
        let (in_scope, keys) = condition(scope);
        let (total, (measured, units)) = match unit {
            Unit::Usd { net: false } => (
                "sum(coalesce(verified_usd_micros, usd_micros))",
                ("true", Vec::new()),
            ),
            Unit::Usd { net: true } => (NET_MICROS, ("true", Vec::new())),
            Unit::Token {
                network,
                asset,
                net,
            } => {
                let token = vec![network.written().into(), asset.written().into()];
                let total = if net {
                    "sum(greatest(CAST(coalesce(verified_charge, value) AS NUMERIC) - CAST(refunded AS NUMERIC), 0))"
                } else {
                    "sum(CAST(coalesce(verified_charge, value) AS NUMERIC))"
                };
                (total, ("network = ? AND asset = ?", token))
            }
            Unit::Payments => ("count(*)", ("state <> 'api_call'", Vec::new())),
            Unit::Failures => ("count(*)", (FAILED, Vec::new())),
        };
        let sql = format!(
            "SELECT CAST(0 AS BIGINT) AS seq, CAST(coalesce({total}, 0) AS TEXT) AS total FROM purchases \
             WHERE {COUNTS} AND {counted} AND {at} > ? AND {in_scope} AND {measured}"
        );
        let after = vec![since.after.millis().into()];
        Query {
            sql: sql.into(),
            values: [self.counting(), after, keys, units].concat(),
        }
    }

    /// Returns the query of all charges in `scope` later than one time and not later than another, lapsed
    /// reservations included. Read each row by [`charge`]. `table` may name an index.
    #[cfg(feature = "sqlite")]
    pub(in crate::ledger) fn charges_between(
        table: &str,
        part: Part,
        scope: &Scope,
        moment: Moment,
        (after, until): (Timestamp, Timestamp),
    ) -> Query {
        let (at, counted) = counted(moment);
        let (in_scope, keys) = condition(scope);
        let part = part.condition();
        let sql = format!(
            "SELECT {CHARGE}, {at} AS at FROM {table} WHERE {part} AND live = 1 AND {counted} AND {at} > ? \
             AND {at} <= ? AND {in_scope}"
        );
        Query {
            sql: sql.into(),
            values: [vec![after.millis().into(), until.millis().into()], keys].concat(),
        }
    }

    /// Returns the query of the first of [`charges_between`](Self::charges_between). One row has `at`.
    #[cfg(feature = "sqlite")]
    pub(in crate::ledger) fn first_after(
        table: &str,
        part: Part,
        scope: &Scope,
        moment: Moment,
        after: Timestamp,
    ) -> Query {
        let (at, counted) = counted(moment);
        let (in_scope, keys) = condition(scope);
        let part = part.condition();
        let sql = format!(
            "SELECT seq, {at} AS at FROM {table} WHERE {part} AND live = 1 AND {counted} AND {at} > ? AND {in_scope} \
             ORDER BY {at} LIMIT 1"
        );
        Query {
            sql: sql.into(),
            values: [vec![after.millis().into()], keys].concat(),
        }
    }

    /// Returns the query of [`Usage::first_payee`]. One row has `payee`.
    ///
    /// [`Usage::first_payee`]: crate::limit::Usage::first_payee
    pub(in crate::ledger) fn first_payee(
        &self,
        table: &str,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Query {
        let sql = format!(
            "SELECT seq, payee FROM {table} WHERE {COUNTS} AND origin = ? AND network = ? AND asset = ? \
             ORDER BY seq LIMIT 1"
        );
        Query {
            sql: sql.into(),
            values: [self.counting(), seller(origin, asset)].concat(),
        }
    }

    /// Returns the query of [`Usage::last_price`]. One row has `value`.
    ///
    /// [`Usage::last_price`]: crate::limit::Usage::last_price
    pub(in crate::ledger) fn last_price(
        &self,
        table: &str,
        origin: &Origin,
        (method, path): (&str, &str),
        asset: (Network, Address),
    ) -> Query {
        let sql = format!(
            "SELECT seq, value FROM {table} WHERE {COUNTS} AND origin = ? AND network = ? AND asset = ? \
             AND method = ? AND lower(path) = ? ORDER BY seq DESC LIMIT 1"
        );
        let request = vec![method.to_owned().into(), path.to_ascii_lowercase().into()];
        Query {
            sql: sql.into(),
            values: [self.counting(), seller(origin, asset), request].concat(),
        }
    }
}

/// Returns the column of a moment, and the condition of a purchase that limits on this moment count, in addition to
/// `live = 1`. A reservation has its `counts_at` and `expires_at` at the end of time, so it lies in every window.
pub(in crate::ledger) const fn counted(moment: Moment) -> (&'static str, &'static str) {
    match moment {
        Moment::CountsAt => ("counts_at", "true"),
        Moment::ReservedAt => ("reserved_at", "true"),
        Moment::ExpiresAt => ("expires_at", "state <> 'settled' AND state <> 'api_call'"),
    }
}

fn seller(origin: &Origin, (network, asset): (Network, Address)) -> Vec<Value> {
    vec![
        origin.written().into(),
        network.written().into(),
        asset.written().into(),
    ]
}

/// Reads a charge. Returns `None` for a purchase that passed the SQL condition of the scope but is not in it.
pub(in crate::ledger) fn charge(
    row: &impl Row,
    scope: &Scope,
) -> Result<Option<Charge>, LedgerError> {
    let cells = Cells::of(row)?;
    if let Scope::Domain(domain) = scope {
        let origin: Origin = cells.text("origin")?;
        if origin.registrable_domain() != domain {
            return Ok(None);
        }
    }
    let state = cells.text("state")?;
    let (network, asset, value) = (
        cells.text("network")?,
        cells.text("asset")?,
        cells.text("value")?,
    );
    Ok(Some(Charge {
        network,
        asset,
        value,
        usd: cells.usd()?,
        refunded: cells.text("refunded")?,
        failed: failed(state, cells.optional_integer("status")?),
        is_api_call: state == State::ApiCall,
        at: cells.time("at")?,
    }))
}
