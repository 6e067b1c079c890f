//! Conversion between purchases and rows.

use alloy::primitives::{Address, B256, U256};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Cell, Row, Value};
use crate::clock::Timestamp;
use crate::ledger::hash_chain::{self, Head};
use crate::ledger::{
    Freeze, LedgerError, Purchase, PurchaseId, Refund, SellerAnswer, State, random_hex,
};
#[cfg(feature = "postgres")]
use crate::limit::Sum;
use crate::money::{Network, Usd};
use crate::origin::Origin;
use crate::x402::PaymentMethod;

/// A value with exactly one text form in the database, so that SQL can compare it.
pub(in crate::ledger) trait Stored: Sized {
    /// Returns the text form.
    fn written(&self) -> String;
    /// Parses a text that may have another form.
    fn parsed(text: &str) -> Option<Self>;
    /// Parses a text in the form of [`written`](Self::written).
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

/// Returns the host with its labels reversed: `com.example.api`.
pub(in crate::ledger) fn reversed(host: &str) -> String {
    host.rsplit('.').collect::<Vec<_>>().join(".")
}

/// The columns of a purchase with their names. `seq` is the first.
pub(in crate::ledger) type Columns = [(&'static str, Value); 46];

/// Returns every column of a purchase. [`purchase`] reads them.
pub(in crate::ledger) fn columns(purchase: &Purchase) -> Result<Columns, LedgerError> {
    Ok([
        ("seq", integer(purchase.seq, "seq")?.into()),
        ("purchase", purchase.id.written().into()),
        ("generation", purchase.generation.into()),
        ("payer", purchase.payer.written().into()),
        ("state", purchase.state.written().into()),
        ("live", live(purchase).into()),
        ("fingerprint", purchase.fingerprint.written().into()),
        ("identifier", purchase.identifier.clone().into()),
        ("origin", purchase.origin.written().into()),
        ("host_reversed", reversed(purchase.origin.host()).into()),
        ("method", purchase.method.clone().into()),
        ("path", purchase.path.clone().into()),
        ("foreign_resource", purchase.foreign_resource.clone().into()),
        ("version", purchase.version.into()),
        ("network", purchase.network.written().into()),
        ("asset", purchase.asset.written().into()),
        ("symbol", purchase.symbol.clone().into()),
        ("decimals", purchase.decimals.into()),
        ("payee", purchase.payee.written().into()),
        ("value", purchase.value.written().into()),
        (
            "usd_micros",
            purchase
                .usd
                .map(|usd| integer(usd.micros(), "usd_micros"))
                .transpose()?
                .into(),
        ),
        ("nonce", purchase.nonce.written().into()),
        ("tag", purchase.tag.clone().into()),
        ("agent", purchase.agent.clone().into()),
        ("credential", purchase.credential.clone().into()),
        ("reserved_at", purchase.reserved_at.millis().into()),
        ("lease_until", purchase.lease_until.millis().into()),
        (
            "presenter_lease_until",
            purchase.presenter_lease_until.millis().into(),
        ),
        ("counts_at", purchase.counts_at.millis().into()),
        ("expires_at", purchase.expires_at.millis().into()),
        ("updated_at", purchase.updated_at.millis().into()),
        (
            "valid_before",
            purchase
                .valid_before
                .map(|at| integer(at, "valid_before"))
                .transpose()?
                .into(),
        ),
        ("status", purchase.status.into()),
        ("reason", purchase.reason.clone().into()),
        (
            "claimed_transaction",
            purchase.transaction.map(|hash| hash.written()).into(),
        ),
        (
            "verified_transaction",
            purchase
                .verified_transaction
                .map(|hash| hash.written())
                .into(),
        ),
        ("proof", purchase.proof.clone().into()),
        (
            "answer",
            purchase.answer.as_ref().map(json_text).transpose()?.into(),
        ),
        ("terms", purchase.terms.clone().into()),
        ("refunds", json_text(&purchase.refunds)?.into()),
        ("refunded", purchase.refunded().written().into()),
        (
            "payload",
            purchase
                .payload
                .as_ref()
                .map(|payload| payload.expose_secret().to_owned())
                .into(),
        ),
        ("payment_method", method(purchase).to_owned().into()),
        ("claimed_charge", units(purchase.claimed_charge)),
        ("verified_charge", units(purchase.verified_charge)),
        ("verified_usd_micros", verified_usd(purchase)?.into()),
    ])
}

/// Returns the stored method. A request with an API key has that of the migration.
fn method(purchase: &Purchase) -> &'static str {
    let method = purchase.payment_method.unwrap_or(PaymentMethod::Eip3009);
    method.name()
}

fn units(units: Option<U256>) -> Value {
    units.map(|units| units.written()).into()
}

/// Returns the dollars that the limits count in place of `usd_micros`.
fn verified_usd(purchase: &Purchase) -> Result<Option<i64>, LedgerError> {
    let counted = purchase.counted_usd();
    counted
        .filter(|_| purchase.verified_charge.is_some())
        .map(|usd| integer(usd.micros(), "verified_usd_micros"))
        .transpose()
}

/// Returns 0 for a purchase that never counts again. The indices leave it out.
fn live(purchase: &Purchase) -> u8 {
    u8::from(!matches!(
        purchase.state,
        State::Voided | State::ReleasedByProof
    ))
}

fn json_text(value: &impl Serialize) -> Result<String, LedgerError> {
    serde_json::to_string(value).map_err(LedgerError::store)
}

/// Converts a number to the signed integers of SQL.
pub(in crate::ledger) fn integer(value: u64, column: &str) -> Result<i64, LedgerError> {
    i64::try_from(value)
        .map_err(|_| LedgerError::store(format!("{column} {value} does not fit the ledger")))
}

/// Reads a whole row of `purchases`.
pub(in crate::ledger) fn purchase(row: &impl Row) -> Result<Purchase, LedgerError> {
    let cells = Cells::of(row)?;
    let read = Purchase {
        seq: cells.integer("seq")?,
        id: cells.text("purchase")?,
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
        payment_method: cells.method()?,
        claimed_charge: cells.optional_text("claimed_charge")?,
        verified_charge: cells.optional_text("verified_charge")?,
    };
    if cells.integer::<u8>("live")? != live(&read) {
        return Err(cells.damaged("live"));
    }
    if cells.raw_text("host_reversed")? != Some(reversed(read.origin.host()).as_str()) {
        return Err(cells.damaged("host_reversed"));
    }
    // The limits read this column too.
    if cells.optional_integer("verified_usd_micros")? != verified_usd(&read)? {
        return Err(cells.damaged("verified_usd_micros"));
    }
    // The limits read this column and not the single refunds.
    if cells.text::<U256>("refunded")? != read.refunded() {
        return Err(cells.damaged("refunded"));
    }
    Ok(read)
}

/// One row. A value that cannot be read is damage. The error names table, row and column but not
/// the value, because one of the columns is a payment header.
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

    /// A row of `denials`.
    pub(in crate::ledger) fn of_denials(row: &'a R) -> Result<Self, LedgerError> {
        Self::of_table("denials", row)
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

    fn method(&self) -> Result<Option<PaymentMethod>, LedgerError> {
        let text = self.raw_text("payment_method")?.unwrap_or_default();
        let method = text.parse().map_err(|_| self.damaged("payment_method"))?;
        match (self.raw_text("credential")?, method) {
            (None, method) => Ok(Some(method)),
            (Some(_), PaymentMethod::Eip3009) => Ok(None),
            (Some(_), _) => Err(self.damaged("payment_method")),
        }
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

    pub(in crate::ledger) fn string(&self, column: &str) -> Result<String, LedgerError> {
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

/// Reads a row of `frozen`.
pub(in crate::ledger) fn freeze(row: &impl Row) -> Result<Freeze, LedgerError> {
    let cells = Cells::of(row)?;
    Ok(Freeze::new(cells.string("reason")?, cells.time("since")?))
}

/// A row of `events`: the change of a purchase, and its place in the chain of hashes.
pub(in crate::ledger) struct Event {
    pub(in crate::ledger) seq: i64,
    pub(in crate::ledger) columns: Vec<(&'static str, Value)>,
    /// The end of the chain after this event.
    pub(in crate::ledger) head: Head,
}

/// Returns the event after `head` that changed the purchase. `columns` are its new columns.
pub(in crate::ledger) fn event(
    head: Head,
    purchase: &Purchase,
    columns: &Columns,
    before: Option<State>,
) -> Result<Event, LedgerError> {
    let events = head.events.saturating_add(1);
    let seq = integer(events, "seq")?;
    let values = [
        seq.into(),
        purchase.updated_at.millis().into(),
        purchase.payer.written().into(),
        purchase.id.written().into(),
        before.map(|state| state.written()).into(),
        purchase.state.written().into(),
        detail(purchase)?.into(),
        hash_chain::purchase_hash(columns).written().into(),
    ];
    let hash = hash_chain::event_hash(head.hash, &values);
    let columns = hash_chain::HASHED_COLUMNS
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
    /// A random number that distinguishes two writes of the same content. It shows which of two
    /// commits took effect.
    write: String,
    generation: u32,
    network: Network,
    asset: String,
    payee: String,
    payment_method: Option<PaymentMethod>,
    value: String,
    usd: Option<Usd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claimed_charge: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_charge: Option<String>,
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

fn detail(purchase: &Purchase) -> Result<String, LedgerError> {
    json_text(&Detail {
        write: random_hex().map_err(LedgerError::store)?,
        generation: purchase.generation,
        network: purchase.network,
        asset: purchase.asset.written(),
        payee: purchase.payee.written(),
        payment_method: purchase.payment_method,
        value: purchase.value.written(),
        usd: purchase.usd,
        claimed_charge: purchase.claimed_charge.map(|units| units.written()),
        verified_charge: purchase.verified_charge.map(|units| units.written()),
        lease_until: purchase.lease_until.millis(),
        presenter_lease_until: purchase.presenter_lease_until.millis(),
        counts_at: purchase.counts_at.millis(),
        expires_at: purchase.expires_at.millis(),
        valid_before: purchase.valid_before,
        status: purchase.status,
        reason: purchase.reason.as_deref(),
        claimed_transaction: purchase.transaction.map(|hash| hash.written()),
        verified_transaction: purchase.verified_transaction.map(|hash| hash.written()),
        proof: purchase.proof.as_deref(),
        answer: purchase.answer.as_ref(),
        refunds: &purchase.refunds,
    })
}
