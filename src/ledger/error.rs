//! Errors of the ledger.

use std::error::Error as StdError;
use std::path::PathBuf;

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
    /// The database holds a value that bursar did not write, lacks purchases that it had, or is no
    /// longer the file that was opened. Open the ledger again, or restore a backup.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// There is no ledger at this path, and bursar was told not to begin one.
    #[error("there is no ledger at {}", .0.display())]
    Missing(PathBuf),
    /// A file of the ledger has a second name: it is mounted as a single file, or has hard links. Each name would have
    /// a log and a limit of its own. Share the directory of the ledger instead.
    #[error("{} is {how}, so programs that use another name of it would not share its limits; \
        share the directory, never the file", path.display())]
    SecondName {
        /// The file.
        path: PathBuf,
        /// The kind of the second name.
        how: &'static str,
    },
    /// The file is on a file system that other machines can use, such as NFS, or that gives the same files other names.
    /// SQLite cannot share a log there, so each machine would have a limit of its own. Use a local disk or PostgreSQL.
    ///
    /// Allow it with [`OpenOptions::allow_shared_file_system`](super::OpenOptions::allow_shared_file_system) if only one
    /// machine uses the ledger.
    #[error("{} is on a file system that other machines can use ({kind}), and each machine would have limits of its own; \
        put the ledger on a local disk, or use PostgreSQL; if only one machine uses it, add --allow-shared-file-system \
        or `OpenOptions::allow_shared_file_system`", path.display())]
    SharedFileSystem {
        /// The file.
        path: PathBuf,
        /// The kind of the file system, such as `nfs4`.
        kind: String,
    },
    /// The file is a backup, or a copy that was made without bursar. It can be read. bursar does not pay from it, because
    /// each copy would allow the whole budget. [`Ledger::restore`](super::Ledger::restore) accepts it.
    #[error("{0} is a copy of a ledger, and each copy would allow the whole budget; if no other copy is used any more, \
        accept it with `bursar ledger restore {0} --ledger {0}` or `Ledger::restore`", path.display())]
    Copied {
        /// The file.
        path: PathBuf,
    },
    /// Other users can read or write a file of the ledger, which holds signed payments. Run `chmod 600` on it.
    #[error("other users can read or write {0} (mode {mode:o}); run `chmod 600 {0}`", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// The permissions of the file.
        mode: u32,
    },
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
    /// The archive of [`Ledger::prune`](super::Ledger::prune) exists, or cannot be written.
    #[error("the archive {} cannot be written: {reason}", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
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
