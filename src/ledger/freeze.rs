//! Freezing a ledger: nothing is paid from it until it is unfrozen.

use super::{Ledger, LedgerError};
use crate::clock::Timestamp;

/// The freeze of a ledger: nothing is paid from it until it is unfrozen.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freeze {
    /// The reason, for people.
    pub reason: String,
    /// The time of the freeze.
    pub since: Timestamp,
}

impl Freeze {
    pub(crate) fn new(reason: impl Into<String>, since: Timestamp) -> Self {
        Self {
            reason: reason.into(),
            since,
        }
    }
}

impl Ledger {
    /// Freezes the ledger. Every client and every process that uses it stops paying.
    ///
    /// A client asks the ledger before it signs a payment and before it presents one again, so a
    /// freeze takes effect with the next payment. Payments that left before stay valid until they
    /// expire.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be written. It is not frozen then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::memory();
    /// ledger.freeze("the agent repeats itself").await?;
    /// assert_eq!(ledger.frozen().await?.unwrap().reason, "the agent repeats itself");
    /// ledger.unfreeze().await?;
    /// assert!(ledger.frozen().await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn freeze(&self, reason: impl Into<String> + Send) -> Result<(), LedgerError> {
        let freeze = Freeze::new(reason, self.now());
        self.backend.set_freeze(Some(&freeze)).await
    }

    /// Unfreezes the ledger: clients may pay again. Does nothing if it is not frozen.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be written. It stays frozen then.
    pub async fn unfreeze(&self) -> Result<(), LedgerError> {
        self.backend.set_freeze(None).await
    }

    /// Returns the freeze, or `None` if the ledger is not frozen.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    pub async fn frozen(&self) -> Result<Option<Freeze>, LedgerError> {
        self.backend.frozen().await
    }
}
