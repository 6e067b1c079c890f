//! Backups of a ledger in a file, and their restoration.

use std::path::Path;

#[cfg(feature = "sqlite")]
use super::backend::Backend;
use super::{Ledger, LedgerError};

/// The result of [`Ledger::restore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The number of purchases in the restored ledger.
    pub purchases: u64,
    /// The number of changes of purchases in the restored ledger.
    pub events: u64,
    /// The number of purchases that the witness of the lost ledger had seen and that are missing now. `None` if no
    /// witness could be read.
    pub lost_purchases: Option<u64>,
    /// The number of missing changes, counted in the same way.
    pub lost_events: Option<u64>,
}

impl Ledger {
    /// Copies this ledger to a new file at `to`, while clients pay. The copy has everything that was recorded
    /// before the call.
    ///
    /// Do not copy the file in another way: a copy without its log lacks purchases, and bursar refuses it. The copy
    /// can be opened, to read it. Nothing is paid from it ([`LedgerError::Copied`]), because each of the two would allow
    /// the whole budget, until you [`restore`](Self::restore) it.
    ///
    /// # Errors
    /// Returns an error if a file at `to` exists, if the copy cannot be written, or if the ledger is not in a
    /// file. Use the backups of your database for PostgreSQL.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::open_existing("agent.db")?;
    /// ledger.backup("backups/2026-11-26.db").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn backup(&self, to: impl AsRef<Path>) -> Result<(), LedgerError> {
        self.record_pending().await?;
        match &self.backend {
            #[cfg(feature = "sqlite")]
            Backend::Sqlite(sqlite) => Box::pin(sqlite.backup(to.as_ref())).await,
            _ => {
                let to = to.as_ref().display();
                Err(LedgerError::Store(
                    format!("{to}: only a ledger in a file has backups").into(),
                ))
            }
        }
    }

    /// Makes the file `copy` the ledger at `path`, although it is a copy, is old, or lacks its witness.
    ///
    /// Stop all programs that use the ledger first. bursar renames the files at `path`: `agent.db` becomes
    /// `agent.db.replaced`. If `copy` and `path` are the same file, bursar accepts the file where it is.
    ///
    /// The restored ledger does not know of the purchases that were made after the copy, so its limits count too
    /// little, and it may sign for a purchase again that it does not know. [Freeze](Self::freeze) it, wait until every
    /// payment has expired (five minutes, unless you raised `max_validity`), and lower the limits by the
    /// amount that may be missing.
    ///
    /// # Errors
    /// Returns an error if `copy` is missing or is not a complete ledger, or if a file cannot be written.
    ///
    /// ```no_run
    /// use bursar::Ledger;
    ///
    /// let restored = Ledger::restore("backups/2026-11-26.db", "agent.db")?;
    /// println!("{:?} purchases are lost", restored.lost_purchases);
    /// # Ok::<(), bursar::ledger::LedgerError>(())
    /// ```
    #[cfg(feature = "sqlite")]
    pub fn restore(
        copy: impl AsRef<Path>,
        path: impl AsRef<Path>,
    ) -> Result<Restored, LedgerError> {
        super::sqlite::restore(copy.as_ref(), path.as_ref())
    }
}
