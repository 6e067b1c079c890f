//! Entries as rows, and rows as entries.

use alloy::primitives::{Address, B256, U256};
use rusqlite::Row;
use rusqlite::types::{FromSql, Value};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;

use super::failed;
use crate::ledger::{Entry, Filter, LedgerError, PurchaseId, State};
use crate::{Network, Origin, Timestamp, Usd};

/// A value with one spelling in the file, so that SQL can compare it.
pub(super) trait Stored: Sized {
    fn written(&self) -> String;
    /// The value of a text that need not be canonical.
    fn parsed(text: &str) -> Option<Self>;
    fn read(text: &str) -> Option<Self> {
        Self::parsed(text).filter(|value| value.written() == text)
    }
}

macro_rules! stored {
    ($($kind:ty: $format:literal, $parse:expr;)*) => {$(
        impl Stored for $kind {
            fn written(&self) -> String {
                format!($format, self)
            }

            fn parsed(text: &str) -> Option<Self> {
                $parse(text)
            }
        }
    )*};
}

stored! {
    Address: "{:#x}", |text: &str| text.parse().ok();
    B256: "{:#x}", |text: &str| text.parse().ok();
    U256: "{}", |text: &str| Self::from_str_radix(text, 10).ok();
    Network: "{}", |text: &str| text.parse().ok();
    Origin: "{}", |text: &str| text.parse().ok();
    State: "{}", |text: &str| text.parse().ok();
    PurchaseId: "{}", |text: &str| text.parse().ok();
}

/// `com.example.api`.
pub(super) fn reversed(host: &str) -> String {
    host.rsplit('.').collect::<Vec<_>>().join(".")
}

/// Every column but `seq`, which SQLite gives.
pub(super) fn columns(entry: &Entry) -> Result<[(&'static str, Value); 33], LedgerError> {
    Ok([
        ("purchase", entry.purchase.written().into()),
        ("generation", entry.generation.into()),
        ("payer", entry.payer.written().into()),
        ("state", entry.state.written().into()),
        ("fingerprint", entry.fingerprint.written().into()),
        ("identifier", entry.identifier.clone().into()),
        ("origin", entry.origin.written().into()),
        ("host_reversed", reversed(entry.origin.host()).into()),
        ("method", entry.method.clone().into()),
        ("path", entry.path.clone().into()),
        ("foreign_resource", entry.foreign_resource.clone().into()),
        ("version", entry.version.into()),
        ("network", entry.network.written().into()),
        ("asset", entry.asset.written().into()),
        ("symbol", entry.symbol.clone().into()),
        ("decimals", entry.decimals.into()),
        ("payee", entry.payee.written().into()),
        ("value", entry.value.written().into()),
        ("usd_micros", entry.usd.map(|usd| integer(usd.micros(), "usd_micros")).transpose()?.into()),
        ("nonce", entry.nonce.written().into()),
        ("tag", entry.tag.clone().into()),
        ("agent", entry.agent.clone().into()),
        ("reserved_at", entry.reserved_at.millis().into()),
        ("lease_until", entry.lease_until.millis().into()),
        ("counts_at", entry.counts_at.millis().into()),
        ("expires_at", entry.expires_at.millis().into()),
        ("updated_at", entry.updated_at.millis().into()),
        ("valid_before", entry.valid_before.map(|at| integer(at, "valid_before")).transpose()?.into()),
        ("status", entry.status.into()),
        ("reason", entry.reason.clone().into()),
        ("claimed_transaction", entry.transaction.map(|hash| hash.written()).into()),
        ("verified_transaction", entry.verified_transaction.map(|hash| hash.written()).into()),
        ("payload", entry.payload.as_ref().map(|payload| payload.expose_secret().to_owned()).into()),
    ])
}

/// SQLite's integers are signed.
pub(super) fn integer(value: u64, column: &str) -> Result<i64, LedgerError> {
    i64::try_from(value).map_err(|_| LedgerError::store(format!("{column} {value} does not fit the ledger")))
}

/// Reads a whole row of `purchases`.
pub(super) fn entry(row: &Row<'_>) -> Result<Entry, LedgerError> {
    let cells = Cells::of(row)?;
    let origin: Origin = cells.text("origin")?;
    if cells.get::<String>("host_reversed")? != reversed(origin.host()) {
        return Err(damaged(cells.seq, "host_reversed"));
    }
    Ok(Entry {
        seq: cells.integer("seq")?,
        purchase: cells.text("purchase")?,
        generation: cells.get("generation")?,
        payer: cells.text("payer")?,
        state: cells.text("state")?,
        fingerprint: cells.text("fingerprint")?,
        identifier: cells.get("identifier")?,
        origin,
        method: cells.get("method")?,
        path: cells.get("path")?,
        foreign_resource: cells.get("foreign_resource")?,
        version: cells.get("version")?,
        network: cells.text("network")?,
        asset: cells.text("asset")?,
        symbol: cells.get("symbol")?,
        decimals: cells.get("decimals")?,
        payee: cells.text("payee")?,
        value: cells.text("value")?,
        usd: cells.usd()?,
        nonce: cells.text("nonce")?,
        tag: cells.get("tag")?,
        agent: cells.get("agent")?,
        reserved_at: cells.time("reserved_at")?,
        lease_until: cells.time("lease_until")?,
        counts_at: cells.time("counts_at")?,
        expires_at: cells.time("expires_at")?,
        updated_at: cells.time("updated_at")?,
        valid_before: cells.optional_integer("valid_before")?,
        status: cells.get("status")?,
        reason: cells.get("reason")?,
        transaction: cells.optional_text("claimed_transaction")?,
        verified_transaction: cells.optional_text("verified_transaction")?,
        payload: cells.get::<Option<String>>("payload")?.map(SecretString::from),
    })
}

/// One row of `purchases`. What cannot be read is damage, named by row and column and never by
/// value: one of the columns is a payment header.
pub(super) struct Cells<'a> {
    row: &'a Row<'a>,
    seq: i64,
}

impl<'a> Cells<'a> {
    pub(super) fn of(row: &'a Row<'a>) -> Result<Self, LedgerError> {
        Ok(Self { row, seq: row.get("seq").map_err(failed)? })
    }

    pub(super) fn get<T: FromSql>(&self, column: &str) -> Result<T, LedgerError> {
        self.row.get(column).map_err(|_| damaged(self.seq, column))
    }

    pub(super) fn text<T: Stored>(&self, column: &str) -> Result<T, LedgerError> {
        self.optional_text(column)?.ok_or_else(|| damaged(self.seq, column))
    }

    fn optional_text<T: Stored>(&self, column: &str) -> Result<Option<T>, LedgerError> {
        let damage = || damaged(self.seq, column);
        let text = self.row.get_ref(column).map_err(|_| damage())?.as_str_or_null().map_err(|_| damage())?;
        text.map(|text| T::read(text).ok_or_else(damage)).transpose()
    }

    fn integer(&self, column: &str) -> Result<u64, LedgerError> {
        self.optional_integer(column)?.ok_or_else(|| damaged(self.seq, column))
    }

    fn optional_integer(&self, column: &str) -> Result<Option<u64>, LedgerError> {
        let number: Option<i64> = self.get(column)?;
        number.map(|number| u64::try_from(number).map_err(|_| damaged(self.seq, column))).transpose()
    }

    pub(super) fn usd(&self) -> Result<Option<Usd>, LedgerError> {
        Ok(self.optional_integer("usd_micros")?.map(Usd::from_micros))
    }

    pub(super) fn time(&self, column: &str) -> Result<Timestamp, LedgerError> {
        self.get(column).map(Timestamp::from_millis)
    }
}

pub(super) fn damaged(seq: i64, column: &str) -> LedgerError {
    LedgerError::Damaged(format!("purchases, row {seq}, column {column}"))
}

/// A row of `events`: the transition, and what it left in the books.
pub(super) fn event(entry: &Entry, before: Option<State>) -> [Value; 6] {
    let detail = json!({
        "generation": entry.generation,
        "network": entry.network,
        "asset": entry.asset.written(),
        "payee": entry.payee.written(),
        "value": entry.value.written(),
        "usd": entry.usd,
        "lease_until": entry.lease_until.millis(),
        "counts_at": entry.counts_at.millis(),
        "expires_at": entry.expires_at.millis(),
        "valid_before": entry.valid_before,
        "status": entry.status,
        "reason": entry.reason,
        "claimed_transaction": entry.transaction.map(|hash| hash.written()),
        "verified_transaction": entry.verified_transaction.map(|hash| hash.written()),
    });
    [
        entry.updated_at.millis().into(),
        entry.payer.written().into(),
        entry.purchase.written().into(),
        before.map(|state| state.written()).into(),
        entry.state.written().into(),
        detail.to_string().into(),
    ]
}

/// The filter as SQL, and its values with the number of rows as the last.
pub(super) fn conditions(filter: &Filter) -> (String, Vec<Value>) {
    let conditions: [(&str, Option<Value>); 7] = [
        ("reserved_at >= ?", filter.since.map(|at| at.millis().into())),
        ("reserved_at < ?", filter.until.map(|at| at.millis().into())),
        ("origin = ?", filter.origin.as_ref().map(|origin| origin.written().into())),
        ("payee = ?", filter.payee.map(|payee| payee.written().into())),
        ("tag = ?", filter.tag.clone().map(Value::from)),
        ("agent = ?", filter.agent.clone().map(Value::from)),
        ("state = ?", filter.state.map(|state| state.written().into())),
    ];
    let set = conditions.into_iter().filter_map(|(sql, value)| Some((sql, value?)));
    let (mut terms, mut values): (Vec<_>, Vec<_>) = set.unzip();
    terms.push("true");
    let rows = filter.last.map_or(i64::MAX, |last| i64::try_from(last).unwrap_or(i64::MAX));
    values.push(rows.into());
    (terms.join(" AND "), values)
}
