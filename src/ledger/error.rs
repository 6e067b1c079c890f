//! Errors of the ledger.

use std::error::Error as StdError;

use alloy::primitives::B256;

use super::{PurchaseId, State};

/// An error of the ledger.
///
/// bursar does not pay while its ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The database cannot be reached, is full, is read-only or is locked.
    #[error("the ledger cannot be used: {0}")]
    Store(#[source] Box<dyn StdError + Send + Sync>),
    /// The database holds a value that bursar did not write. Restore a backup.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// A newer version of bursar wrote the database. Update bursar.
    #[error("the ledger has schema version {found}; this bursar reads up to {known}")]
    Newer {
        /// The schema version of the database.
        found: i64,
        /// The newest schema version that this bursar reads.
        known: i64,
    },
    /// This bursar was built without the cargo feature that the ledger needs.
    #[error("this ledger needs bursar's cargo feature `{feature}`")]
    MissingFeature {
        /// The name of the cargo feature.
        feature: &'static str,
    },
    /// The ledger has no such purchase.
    #[error("the ledger has no purchase `{0}`")]
    UnknownPurchase(PurchaseId),
    /// Several payers have a purchase with this id, and none of them counts. Name the payer, with
    /// [`Ledger::purchase`](super::Ledger::purchase).
    #[error("several payers have a purchase `{0}` in this ledger")]
    AmbiguousPurchase(PurchaseId),
    /// The state of the purchase does not allow the change.
    #[error("purchase `{purchase}` is {state} and cannot become {wanted}")]
    Transition {
        /// The purchase.
        purchase: PurchaseId,
        /// The state of the purchase.
        state: State,
        /// The state that it was to have.
        wanted: &'static str,
    },
    /// The transaction is already recorded as a refund of another purchase.
    #[error("transaction {transaction} is already a refund of purchase `{purchase}`")]
    RefundedElsewhere {
        /// The transaction that brought the money back.
        transaction: B256,
        /// The purchase that has the refund.
        purchase: PurchaseId,
    },
    /// The text is not a host, a pattern of hosts or an origin.
    #[error("`{0}` is not a host, a pattern of hosts or an origin")]
    Host(String),
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl LedgerError {
    /// Wraps an error of the database.
    pub(crate) fn store(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }
}
