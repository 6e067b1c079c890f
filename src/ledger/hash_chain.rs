//! The chain of hashes over the events, which shows changes that bursar did not make.
//!
//! The hash of an event covers the hash of the event before it, the whole event, and the hash of its
//! purchase. Every hashed value begins with its type and length, so two different rows never hash
//! the same bytes.

use alloy::primitives::B256;
use sha2::{Digest, Sha256};

use super::sql::row::{self, Cells, columns};
use super::sql::tables::NEW_COLUMNS;
use super::sql::{Row, Value};
use super::{LedgerError, LedgerFault, Verification};
use crate::x402::PaymentMethod;

/// The hash before the first event.
const START: B256 = B256::ZERO;
/// The number of faults that a verification lists. The others are only counted.
const LISTED: usize = 1000;

/// The columns of an event that its hash covers.
pub(super) const HASHED_COLUMNS: [&str; 8] = [
    "seq",
    "at",
    "payer",
    "purchase",
    "from_state",
    "to_state",
    "detail",
    "purchase_hash",
];

/// Returns the hash of the row of a purchase.
///
/// Columns that version 11 added are left out while they have the value that the migration gave them, so that the hashes of
/// version 10 hold.
pub(super) fn purchase_hash(columns: &[(&str, Value)]) -> B256 {
    let mut hasher = Sha256::new();
    hasher.update(b"bursar purchase row v1");
    let is_migrated = |(name, value): &&(&str, Value)| match (*name, value) {
        ("payment_method", Value::Text(method)) => method == PaymentMethod::Eip3009.name(),
        (name, Value::Null) => NEW_COLUMNS.iter().any(|(new, _)| *new == name),
        _ => false,
    };
    for (name, value) in columns.iter().filter(|column| !is_migrated(column)) {
        absorb_text(&mut hasher, name);
        absorb(&mut hasher, value);
    }
    B256::new(hasher.finalize().into())
}

/// Returns the hash of the event with these values of [`HASHED_COLUMNS`]. `previous` is the hash of
/// the event before it.
pub(super) fn event_hash(previous: B256, values: &[Value; HASHED_COLUMNS.len()]) -> B256 {
    let mut hasher = Sha256::new();
    hasher.update(b"bursar event v1");
    hasher.update(previous);
    for value in values {
        absorb(&mut hasher, value);
    }
    B256::new(hasher.finalize().into())
}

/// Hashes one byte for the type, then the value. A text comes after its length.
fn absorb(hasher: &mut Sha256, value: &Value) {
    match value {
        Value::Null => hasher.update([0]),
        Value::Integer(number) => {
            hasher.update([1]);
            hasher.update(number.to_be_bytes());
        }
        Value::Text(text) => {
            hasher.update([2]);
            absorb_text(hasher, text);
        }
    }
}

fn absorb_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_be_bytes());
    hasher.update(text);
}

/// A check of a whole ledger: first every event in order, then every purchase.
#[derive(Debug)]
pub(super) struct Audit {
    /// The hash that an event must have.
    noted: Option<B256>,
    /// The number of the last event.
    event: i64,
    report: Verification,
}

impl Audit {
    pub(super) fn new(noted: Option<B256>) -> Self {
        let report = Verification {
            events: 0,
            purchases: 0,
            head: START,
            faults: Vec::new(),
            fault_count: 0,
        };
        Self {
            noted: noted.filter(|head| *head != START),
            event: 0,
            report,
        }
    }

    /// LimitCheck a row of `events` with the columns `purchase_seq` and `last_event` of its purchase.
    ///
    /// The next event is checked against the stored hash of this one, so one change is one fault of
    /// the chain.
    pub(super) fn event(&mut self, row: &impl Row) -> Result<i64, LedgerError> {
        let cells = Cells::of_event(row)?;
        let seq = cells.seq();
        let next = self.event.saturating_add(1);
        if seq > next {
            self.fault(LedgerFault::EventsMissing {
                from: next,
                to: seq.saturating_sub(1),
            });
        }
        let found = cells.text::<B256>("hash").ok();
        let hashed = HASHED_COLUMNS.map(|column| row.cell(column).map(Value::from));
        let expected = all(hashed).map(|values| event_hash(self.report.head, &values));
        if found.is_none() || found != expected {
            self.fault(LedgerFault::EventChanged { row: seq });
        }
        match cells.optional_integer("purchase_seq")? {
            None => self.fault(LedgerFault::PurchaseMissing { event: seq }),
            Some(row)
                if cells
                    .optional_integer::<i64>("last_event")
                    .ok()
                    .flatten()
                    .is_none_or(|last| last < seq) =>
            {
                self.fault(LedgerFault::PurchaseChanged { row });
            }
            Some(_) => {}
        }
        self.report.head = found.or(expected).unwrap_or(START);
        self.noted = self.noted.filter(|head| *head != self.report.head);
        self.report.events = self.report.events.saturating_add(1);
        self.event = seq;
        Ok(seq)
    }

    /// LimitCheck a row of `purchases` with the `purchase_hash` of its last event. Whether a later event
    /// exists was checked with the events.
    ///
    /// Reading is strict: a purchase has only one row that can be read as this purchase.
    pub(super) fn purchase(&mut self, row: &impl Row) -> Result<i64, LedgerError> {
        let cells = Cells::of(row)?;
        let now = row::purchase(row)
            .and_then(|purchase| columns(&purchase))
            .map(|columns| purchase_hash(&columns));
        match cells.optional_text::<B256>("purchase_hash") {
            Ok(Some(left)) if now.is_ok_and(|now| now == left) => {}
            _ => self.fault(LedgerFault::PurchaseChanged { row: cells.seq() }),
        }
        self.report.purchases = self.report.purchases.saturating_add(1);
        Ok(cells.seq())
    }

    pub(super) fn fault(&mut self, fault: LedgerFault) {
        // A purchase in an earlier state differs from each event since then.
        if self.report.faults.contains(&fault) {
            return;
        }
        self.report.fault_count = self.report.fault_count.saturating_add(1);
        if self.report.faults.len() < LISTED {
            self.report.faults.push(fault);
        }
    }

    pub(super) fn close(mut self) -> Verification {
        if let Some(head) = self.noted {
            self.fault(LedgerFault::HeadMissing(head));
        }
        self.report
    }
}

fn all<T, const N: usize>(values: [Option<T>; N]) -> Option<[T; N]> {
    let values: Option<Vec<T>> = values.into_iter().collect();
    values?.try_into().ok()
}

/// The end of the chain: the number of events and the hash of the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) events: u64,
    pub(super) hash: B256,
}

impl Head {
    pub(super) const EMPTY: Self = Self {
        events: 0,
        hash: START,
    };

    /// Reads the head from the newest row of `events`, or from the row of `chain_head`.
    pub(super) fn read(row: &impl Row) -> Result<Self, LedgerError> {
        let cells = Cells::of_event(row)?;
        Ok(Self {
            events: cells.integer("seq")?,
            hash: cells.text("hash")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[test]
    fn two_different_rows_have_different_hashes() {
        let rows = [
            vec![("a", text("b")), ("c", text("d"))],
            vec![("a", text("bc")), ("", text("d"))],
            vec![("a", text("b"))],
            vec![("a", text("")), ("b", text("c")), ("d", Value::Null)],
            vec![("a", Value::Null)],
            vec![("a", text(""))],
            vec![("a", Value::Integer(0))],
            vec![("a", Value::Integer(98))],
            vec![],
        ];
        for (number, row) in rows.iter().enumerate() {
            assert!(
                rows.iter()
                    .skip(number + 1)
                    .all(|other| purchase_hash(row) != purchase_hash(other)),
                "{row:?}"
            );
        }
    }
}
