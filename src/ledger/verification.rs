//! The result of a check of a whole ledger.

use alloy::primitives::B256;

use super::{Ledger, LedgerError};

/// The result of [`Ledger::verify`].
///
/// Every change of a purchase is an event. The hash of an event covers the event, the purchase, and
/// the hash of the event before it. A change of the database by another program therefore breaks the
/// chain of hashes.
///
/// The chain alone does not protect against someone who can write the database and compute the
/// hashes again. To detect that, store the [`head`](Self::head) in another place and pass it to the
/// next check. The chain does not show whether a recorded value is true, or who read the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verification {
    /// The number of events.
    pub events: u64,
    /// The number of purchases.
    pub purchases: u64,
    /// The hash of the newest event, or zero if there are no events.
    pub head: B256,
    /// The faults, in the order of the events and then of the purchases. At most 1000 are listed.
    pub faults: Vec<LedgerFault>,
    /// The number of faults, including those that are not listed.
    pub fault_count: u64,
}

impl Verification {
    /// Returns whether the check found no fault.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.fault_count == 0
    }
}

/// A fault in a ledger's database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerFault {
    /// Events are missing.
    #[error("events, rows {from} to {to}, are missing")]
    EventsMissing {
        /// The `seq` of the first missing event.
        from: i64,
        /// The `seq` of the last missing event.
        to: i64,
    },
    /// An event was changed, or it does not follow from the event before it.
    #[error("events, row {row}, does not follow from the rows before it")]
    EventChanged {
        /// The `seq` of the event.
        row: i64,
    },
    /// The purchase of an event is missing.
    #[error("events, row {event}, is of a purchase that is missing")]
    PurchaseMissing {
        /// The `seq` of the event.
        event: i64,
    },
    /// A purchase differs from its last event, or has no event.
    #[error("purchases, row {row}, is not as its last event left it")]
    PurchaseChanged {
        /// The `seq` of the purchase.
        row: i64,
    },
    /// A running total of a SQLite ledger differs from the sum of its purchases.
    #[error("the total of {total} is not the sum of its purchases")]
    TotalChanged {
        /// Scope, kind of limit and unit of the total.
        total: String,
    },
    /// No event has the noted hash.
    #[error("no event has the noted hash {0}")]
    HeadMissing(B256),
    /// The stored head of a PostgreSQL ledger is not the hash of the newest event.
    #[error("the head is not that of the newest event")]
    HeadChanged,
}

impl Ledger {
    /// Reads the whole ledger and reports changes that bursar did not make.
    ///
    /// Pass the [`head`](Verification::head) of an earlier check as `noted`. The event with that hash
    /// must still exist. Clients can pay meanwhile. Memory use does not grow with the ledger.
    ///
    /// A ledger in memory has no events and no faults.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read. Faults are not errors: see
    /// [`Verification::is_sound`].
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// let first = ledger.verify(None).await?;
    /// assert!(first.is_sound(), "{:?}", first.faults);
    /// // Store first.head in another place. Later:
    /// let next = ledger.verify(Some(first.head)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn verify(&self, noted: Option<B256>) -> Result<Verification, LedgerError> {
        self.verify_with_progress(noted, |_| {}).await
    }

    /// Checks the ledger as [`verify`](Self::verify) does. Calls `read` with the number of events and purchases that each step
    /// read, for ledgers that take long to read.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    ///
    /// let mut total = 0_usize;
    /// let ledger = Ledger::memory();
    /// let verification = ledger
    ///     .verify_with_progress(None, |rows| total = total.saturating_add(rows))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn verify_with_progress(
        &self,
        noted: Option<B256>,
        mut read: impl FnMut(usize) + Send,
    ) -> Result<Verification, LedgerError> {
        self.record_pending().await?;
        self.backend.verify(noted, &mut read).await
    }
}
