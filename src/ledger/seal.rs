//! The chain over the events, by which the books show that they were changed.
//!
//! The hash of an event covers the hash before it, the whole event, and a digest of its purchase as
//! the event left it. What is hashed delimits itself, so no two rows read alike.

use alloy::primitives::B256;
use sha2::{Digest, Sha256};

use super::LedgerError;
use super::sql::row::{Cells, columns, entry};
use super::sql::{Row, Value};

/// What the first event follows.
pub(super) const START: B256 = B256::ZERO;
/// Faults that a report lists; the rest are counted.
const LISTED: usize = 1000;

/// The columns of an event that its hash covers.
pub(super) const SEALED: [&str; 8] = [
    "seq",
    "at",
    "payer",
    "purchase",
    "from_state",
    "to_state",
    "detail",
    "purchase_hash",
];

/// The digest of a purchase's row.
pub(super) fn digest(columns: &[(&str, Value)]) -> B256 {
    let mut hasher = Sha256::new();
    hasher.update(b"bursar purchase row v1");
    for (name, value) in columns {
        absorb_text(&mut hasher, name);
        absorb(&mut hasher, value);
    }
    B256::new(hasher.finalize().into())
}

/// The hash of an event with these values of [`SEALED`] after the one with the hash `previous`.
pub(super) fn link(previous: B256, values: &[Value; SEALED.len()]) -> B256 {
    let mut hasher = Sha256::new();
    hasher.update(b"bursar event v1");
    hasher.update(previous);
    for value in values {
        absorb(&mut hasher, value);
    }
    B256::new(hasher.finalize().into())
}

/// One byte for the type, and what has no fixed length after its length.
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

/// What a walk through the books found.
///
/// A chain alone tells that someone changed rows without making the chain anew. Someone who can
/// write the books and knows this crate can make it anew from any event on, or drop the newest
/// events and set their purchases back: neither shows unless a [`head`](Self::head) that was noted
/// elsewhere is asked for. Nor does the chain say that what was written was true, or who read it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// How many events there are.
    pub events: u64,
    /// How many purchases there are.
    pub purchases: u64,
    /// The hash of the newest event, zero for empty books. Noted somewhere else, it proves later
    /// that everything up to it is still as it was.
    pub head: B256,
    /// What is wrong, each once, in the order in which a walk through all events and then all purchases found it; at
    /// most 1000.
    pub faults: Vec<Fault>,
    /// How many faults were found, listed or not.
    pub found: u64,
}

impl Verification {
    /// Whether nothing is wrong.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.found == 0
    }
}

/// Something wrong in the books, by row.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// Events are gone.
    #[error("events, rows {from} to {to}, are missing")]
    EventsMissing {
        /// The first of them.
        from: i64,
        /// The last of them.
        to: i64,
    },
    /// An event is not what was written there, or does not follow the one before it.
    #[error("events, row {row}, does not follow from the rows before it")]
    EventChanged {
        /// The event's `seq`.
        row: i64,
    },
    /// An event is of a purchase that is gone.
    #[error("events, row {event}, is of a purchase that is missing")]
    PurchaseMissing {
        /// The event's `seq`.
        event: i64,
    },
    /// A purchase is not as its last event left it, or has none.
    #[error("purchases, row {row}, is not as its last event left it")]
    PurchaseChanged {
        /// The purchase's `seq`.
        row: i64,
    },
    /// A running total (SQLite) is not the sum of its purchases.
    #[error("the total of {total} is not the sum of its purchases")]
    TotalChanged {
        /// Scope, kind of limit and unit.
        total: String,
    },
    /// The head that was noted is not the hash of any event.
    #[error("no event has the noted hash {0}")]
    HeadMissing(B256),
    /// The stored head (PostgreSQL) is not that of the newest event.
    #[error("the head is not that of the newest event")]
    HeadChanged,
}

/// A walk through the books: every event in order, then every purchase.
#[derive(Debug)]
pub(super) struct Audit {
    /// A hash that must still be met.
    noted: Option<B256>,
    /// The last event that was seen.
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
            found: 0,
        };
        Self {
            noted: noted.filter(|head| *head != START),
            event: 0,
            report,
        }
    }

    /// Takes a row of `events`, with `seq` and `last_event` of its purchase, the first as `purchase_seq`.
    ///
    /// The chain goes on from the hash that is found: one change is one fault of the chain.
    pub(super) fn event(&mut self, row: &impl Row) -> Result<i64, LedgerError> {
        let cells = Cells::of_event(row)?;
        let seq = cells.seq();
        let next = self.event.saturating_add(1);
        if seq > next {
            self.fault(Fault::EventsMissing {
                from: next,
                to: seq.saturating_sub(1),
            });
        }
        let found = cells.text::<B256>("hash").ok();
        let sealed = SEALED.map(|column| row.cell(column).map(Value::from));
        let expected = all(sealed).map(|values| link(self.report.head, &values));
        if found.is_none() || found != expected {
            self.fault(Fault::EventChanged { row: seq });
        }
        match cells.optional_integer("purchase_seq")? {
            None => self.fault(Fault::PurchaseMissing { event: seq }),
            Some(row)
                if cells
                    .optional_integer::<i64>("last_event")
                    .ok()
                    .flatten()
                    .is_none_or(|last| last < seq) =>
            {
                self.fault(Fault::PurchaseChanged { row });
            }
            Some(_) => {}
        }
        self.report.head = found.or(expected).unwrap_or(START);
        self.noted = self.noted.filter(|head| *head != self.report.head);
        self.report.events = self.report.events.saturating_add(1);
        self.event = seq;
        Ok(seq)
    }

    /// Takes a row of `purchases`, with the `purchase_hash` of the event that it names as its last. That there is none
    /// after it is seen when that one is taken.
    ///
    /// Reading is strict: a row that is read as an entry is the only one that is written for it.
    pub(super) fn purchase(&mut self, row: &impl Row) -> Result<i64, LedgerError> {
        let cells = Cells::of(row)?;
        let now = entry(row)
            .and_then(|entry| columns(&entry))
            .map(|columns| digest(&columns));
        match cells.optional_text::<B256>("purchase_hash") {
            Ok(Some(left)) if now.is_ok_and(|now| now == left) => {}
            _ => self.fault(Fault::PurchaseChanged { row: cells.seq() }),
        }
        self.report.purchases = self.report.purchases.saturating_add(1);
        Ok(cells.seq())
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        // A purchase that was set back differs from each event since.
        if self.report.faults.contains(&fault) {
            return;
        }
        self.report.found = self.report.found.saturating_add(1);
        if self.report.faults.len() < LISTED {
            self.report.faults.push(fault);
        }
    }

    pub(super) fn close(mut self) -> Verification {
        if let Some(head) = self.noted {
            self.fault(Fault::HeadMissing(head));
        }
        self.report
    }
}

fn all<T, const N: usize>(values: [Option<T>; N]) -> Option<[T; N]> {
    let values: Option<Vec<T>> = values.into_iter().collect();
    values?.try_into().ok()
}

/// The end of the chain: how many events there are, and the hash of the last.
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

    /// The head by the newest row of `events`.
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
    fn no_two_rows_are_hashed_alike() {
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
                    .all(|other| digest(row) != digest(other)),
                "{row:?}"
            );
        }
    }
}
