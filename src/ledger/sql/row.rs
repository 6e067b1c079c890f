//! Entries as rows, and rows as entries.

use alloy::primitives::{Address, B256, U256};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cell, Row, Value};
use crate::ledger::seal::{self, Head};
use crate::ledger::{
    Freeze, LedgerError, Purchase, PurchaseId, Refund, SellerAnswer, State, random_hex,
};
#[cfg(feature = "postgres")]
use crate::limit::Sum;
use crate::{Network, Origin, Timestamp, Usd};

/// A value with one spelling in the books, so that SQL can compare it.
pub(in crate::ledger) trait Stored: Sized {
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
    Network: "{}", |text: &str| Self::from_ledger(text);
    Origin: "{}", |text: &str| text.parse().ok();
    State: "{}", |text: &str| text.parse().ok();
    PurchaseId: "{}", |text: &str| text.parse().ok();
}

#[cfg(feature = "postgres")]
impl Stored for Sum {
    fn written(&self) -> String {
        self.to_string()
    }

    fn parsed(text: &str) -> Option<Self> {
        Self::parse(text)
    }
}

/// `com.example.api`.
pub(in crate::ledger) fn reversed(host: &str) -> String {
    host.rsplit('.').collect::<Vec<_>>().join(".")
}

/// The columns of an entry, `seq` first, by name.
pub(in crate::ledger) type Columns = [(&'static str, Value); 42];

/// Every column, each named here for writing and in [`entry`] for reading.
pub(in crate::ledger) fn columns(entry: &Purchase) -> Result<Columns, LedgerError> {
    Ok([
        ("seq", integer(entry.seq, "seq")?.into()),
        ("purchase", entry.purchase.written().into()),
        ("generation", entry.generation.into()),
        ("payer", entry.payer.written().into()),
        ("state", entry.state.written().into()),
        ("live", live(entry).into()),
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
        (
            "usd_micros",
            entry
                .usd
                .map(|usd| integer(usd.micros(), "usd_micros"))
                .transpose()?
                .into(),
        ),
        ("nonce", entry.nonce.written().into()),
        ("tag", entry.tag.clone().into()),
        ("agent", entry.agent.clone().into()),
        ("credential", entry.credential.clone().into()),
        ("reserved_at", entry.reserved_at.millis().into()),
        ("lease_until", entry.lease_until.millis().into()),
        (
            "presenter_lease_until",
            entry.presenter_lease_until.millis().into(),
        ),
        ("counts_at", entry.counts_at.millis().into()),
        ("expires_at", entry.expires_at.millis().into()),
        ("updated_at", entry.updated_at.millis().into()),
        (
            "valid_before",
            entry
                .valid_before
                .map(|at| integer(at, "valid_before"))
                .transpose()?
                .into(),
        ),
        ("status", entry.status.into()),
        ("reason", entry.reason.clone().into()),
        (
            "claimed_transaction",
            entry.transaction.map(|hash| hash.written()).into(),
        ),
        (
            "verified_transaction",
            entry.verified_transaction.map(|hash| hash.written()).into(),
        ),
        ("proof", entry.proof.clone().into()),
        (
            "answer",
            entry.answer.as_ref().map(json_text).transpose()?.into(),
        ),
        ("terms", entry.terms.clone().into()),
        ("refunds", json_text(&entry.refunds)?.into()),
        ("refunded", entry.refunded().written().into()),
        (
            "payload",
            entry
                .payload
                .as_ref()
                .map(|payload| payload.expose_secret().to_owned())
                .into(),
        ),
    ])
}

/// What indices leave out is what never counts again.
fn live(entry: &Purchase) -> u8 {
    u8::from(!matches!(
        entry.state,
        State::Voided | State::ReleasedByProof
    ))
}

fn json_text(value: &impl Serialize) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(LedgerError::store)
}

/// SQL's integers are signed.
pub(in crate::ledger) fn integer(value: u64, column: &str) -> Result<i64, LedgerError> {
    i64::try_from(value)
        .map_err(|_| LedgerError::store(format!("{column} {value} does not fit the ledger")))
}

/// Reads a whole row of `purchases`.
pub(in crate::ledger) fn entry(row: &impl Row) -> Result<Purchase, LedgerError> {
    let cells = Cells::of(row)?;
    let read = Purchase {
        seq: cells.integer("seq")?,
        purchase: cells.text("purchase")?,
        generation: cells.integer("generation")?,
        payer: cells.text("payer")?,
        state: cells.text("state")?,
        fingerprint: cells.text("fingerprint")?,
        identifier: cells.string("identifier")?,
        origin: cells.text("origin")?,
        method: cells.string("method")?,
        path: cells.string("path")?,
        foreign_resource: cells.optional_string("foreign_resource")?,
        version: cells.integer("version")?,
        network: cells.text("network")?,
        asset: cells.text("asset")?,
        symbol: cells.string("symbol")?,
        decimals: cells.integer("decimals")?,
        payee: cells.text("payee")?,
        value: cells.text("value")?,
        usd: cells.usd()?,
        nonce: cells.text("nonce")?,
        tag: cells.optional_string("tag")?,
        agent: cells.optional_string("agent")?,
        credential: cells.optional_string("credential")?,
        reserved_at: cells.time("reserved_at")?,
        lease_until: cells.time("lease_until")?,
        presenter_lease_until: cells.time("presenter_lease_until")?,
        counts_at: cells.time("counts_at")?,
        expires_at: cells.time("expires_at")?,
        updated_at: cells.time("updated_at")?,
        valid_before: cells.optional_integer("valid_before")?,
        status: cells.optional_integer("status")?,
        reason: cells.optional_string("reason")?,
        transaction: cells.optional_text("claimed_transaction")?,
        verified_transaction: cells.optional_text("verified_transaction")?,
        proof: cells.optional_string("proof")?,
        answer: cells.optional_json("answer")?,
        terms: cells.optional_string("terms")?,
        refunds: cells
            .optional_json("refunds")?
            .ok_or_else(|| cells.damaged("refunds"))?,
        payload: cells.optional_string("payload")?.map(SecretString::from),
    };
    if cells.integer::<u8>("live")? != live(&read) {
        return Err(cells.damaged("live"));
    }
    if cells.raw_text("host_reversed")? != Some(reversed(read.origin.host()).as_str()) {
        return Err(cells.damaged("host_reversed"));
    }
    // The limits read the sum, not the refunds.
    if cells.text::<U256>("refunded")? != read.refunded() {
        return Err(cells.damaged("refunded"));
    }
    Ok(read)
}

/// One row. What cannot be read is damage, named by table, row and column and never by value: one
/// of the columns is a payment header.
pub(in crate::ledger) struct Cells<'a, R> {
    row: &'a R,
    table: &'static str,
    seq: i64,
}

impl<'a, R: Row> Cells<'a, R> {
    /// A row of `purchases`.
    pub(in crate::ledger) fn of(row: &'a R) -> Result<Self, LedgerError> {
        Self::of_table("purchases", row)
    }

    /// A row of `events`.
    pub(in crate::ledger) fn of_event(row: &'a R) -> Result<Self, LedgerError> {
        Self::of_table("events", row)
    }

    fn of_table(table: &'static str, row: &'a R) -> Result<Self, LedgerError> {
        match row.cell("seq") {
            Some(Cell::Integer(seq)) => Ok(Self { row, table, seq }),
            _ => Err(LedgerError::Damaged(format!("{table}, column seq"))),
        }
    }

    pub(in crate::ledger) const fn seq(&self) -> i64 {
        self.seq
    }

    fn damaged(&self, column: &str) -> LedgerError {
        LedgerError::Damaged(format!("{}, row {}, column {column}", self.table, self.seq))
    }

    fn raw_text(&self, column: &str) -> Result<Option<&'a str>, LedgerError> {
        match self.row.cell(column) {
            Some(Cell::Text(text)) => Ok(Some(text)),
            Some(Cell::Null) => Ok(None),
            Some(Cell::Integer(_)) | None => Err(self.damaged(column)),
        }
    }

    fn optional_string(&self, column: &str) -> Result<Option<String>, LedgerError> {
        Ok(self.raw_text(column)?.map(str::to_owned))
    }

    fn string(&self, column: &str) -> Result<String, LedgerError> {
        self.optional_string(column)?
            .ok_or_else(|| self.damaged(column))
    }

    pub(in crate::ledger) fn optional_text<T: Stored>(
        &self,
        column: &str,
    ) -> Result<Option<T>, LedgerError> {
        self.raw_text(column)?
            .map(|text| T::read(text).ok_or_else(|| self.damaged(column)))
            .transpose()
    }

    pub(in crate::ledger) fn text<T: Stored>(&self, column: &str) -> Result<T, LedgerError> {
        self.optional_text(column)?
            .ok_or_else(|| self.damaged(column))
    }

    fn optional_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, LedgerError> {
        self.raw_text(column)?
            .map(|text| serde_json::from_str(text).map_err(|_| self.damaged(column)))
            .transpose()
    }

    pub(in crate::ledger) fn optional_integer<T: TryFrom<i64>>(
        &self,
        column: &str,
    ) -> Result<Option<T>, LedgerError> {
        match self.row.cell(column) {
            Some(Cell::Integer(number)) => T::try_from(number)
                .map(Some)
                .map_err(|_| self.damaged(column)),
            Some(Cell::Null) => Ok(None),
            Some(Cell::Text(_)) | None => Err(self.damaged(column)),
        }
    }

    pub(in crate::ledger) fn integer<T: TryFrom<i64>>(
        &self,
        column: &str,
    ) -> Result<T, LedgerError> {
        self.optional_integer(column)?
            .ok_or_else(|| self.damaged(column))
    }

    pub(in crate::ledger) fn usd(&self) -> Result<Option<Usd>, LedgerError> {
        Ok(self.optional_integer("usd_micros")?.map(Usd::from_micros))
    }

    pub(in crate::ledger) fn time(&self, column: &str) -> Result<Timestamp, LedgerError> {
        self.integer(column).map(Timestamp::from_millis)
    }
}

/// Reads the order to stop.
pub(in crate::ledger) fn freeze_order(row: &impl Row) -> Result<Freeze, LedgerError> {
    let cells = Cells::of(row)?;
    Ok(Freeze::new(cells.string("reason")?, cells.time("since")?))
}

/// A row of `events`: the transition, what it left in the books, and its place in the chain.
pub(in crate::ledger) struct Event {
    pub(in crate::ledger) seq: i64,
    pub(in crate::ledger) columns: Vec<(&'static str, Value)>,
    /// The end of the chain that it makes.
    pub(in crate::ledger) head: Head,
}

/// The event after `head` that left the entry as it is, in these columns.
pub(in crate::ledger) fn event(
    head: Head,
    entry: &Purchase,
    columns: &Columns,
    before: Option<State>,
) -> Result<Event, LedgerError> {
    let events = head.events.saturating_add(1);
    let seq = integer(events, "seq")?;
    let values = [
        seq.into(),
        entry.updated_at.millis().into(),
        entry.payer.written().into(),
        entry.purchase.written().into(),
        before.map(|state| state.written()).into(),
        entry.state.written().into(),
        detail(entry)?.into(),
        seal::digest(columns).written().into(),
    ];
    let hash = seal::link(head.hash, &values);
    let columns = seal::SEALED
        .into_iter()
        .zip(values)
        .chain([("hash", hash.written().into())])
        .collect();
    Ok(Event {
        seq,
        columns,
        head: Head { events, hash },
    })
}

#[derive(Serialize)]
struct Detail<'a> {
    /// Tells two writes of the same content apart, and so whose commit it was that succeeded.
    write: String,
    generation: u32,
    network: Network,
    asset: String,
    payee: String,
    value: String,
    usd: Option<Usd>,
    lease_until: i64,
    presenter_lease_until: i64,
    counts_at: i64,
    expires_at: i64,
    valid_before: Option<u64>,
    status: Option<u16>,
    reason: Option<&'a str>,
    claimed_transaction: Option<String>,
    verified_transaction: Option<String>,
    proof: Option<&'a str>,
    answer: Option<&'a SellerAnswer>,
    refunds: &'a [Refund],
}

fn detail(entry: &Purchase) -> Result<String, LedgerError> {
    json_text(&Detail {
        write: random_hex().map_err(LedgerError::store)?,
        generation: entry.generation,
        network: entry.network,
        asset: entry.asset.written(),
        payee: entry.payee.written(),
        value: entry.value.written(),
        usd: entry.usd,
        lease_until: entry.lease_until.millis(),
        presenter_lease_until: entry.presenter_lease_until.millis(),
        counts_at: entry.counts_at.millis(),
        expires_at: entry.expires_at.millis(),
        valid_before: entry.valid_before,
        status: entry.status,
        reason: entry.reason.as_deref(),
        claimed_transaction: entry.transaction.map(|hash| hash.written()),
        verified_transaction: entry.verified_transaction.map(|hash| hash.written()),
        proof: entry.proof.as_deref(),
        answer: entry.answer.as_ref(),
        refunds: &entry.refunds,
    })
}
