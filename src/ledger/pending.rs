//! Outcomes that the ledger could not record when they happened.
//!
//! A call that is dropped cannot wait for the ledger, and a full disk cannot take a write. The
//! outcome is then kept here, in the memory that all clones of a [`Ledger`] share, and recorded
//! before anything else is read or decided.

#[cfg(feature = "sqlite")]
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};

#[cfg(feature = "sqlite")]
use super::backend::Backend;
use super::{Ledger, LedgerError, PurchaseKey, Transition};

const NOT_RECORDED: &str =
    "the ledger did not record an outcome; until it does, the purchase counts as before";

#[derive(Default)]
pub(super) struct Pending {
    outcomes: Mutex<Vec<(PurchaseKey, Transition)>>,
    /// Held by the call that records, so that other calls wait for it.
    recording: tokio::sync::Mutex<()>,
}

impl Pending {
    fn outcomes(&self) -> MutexGuard<'_, Vec<(PurchaseKey, Transition)>> {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<(PurchaseKey, Transition)> {
        self.outcomes().first().cloned()
    }

    fn remove_first(&self) {
        let mut outcomes = self.outcomes();
        if !outcomes.is_empty() {
            outcomes.remove(0);
        }
    }
}

impl Ledger {
    /// Keeps an outcome until it can be recorded.
    pub(crate) fn add_pending(&self, purchase: PurchaseKey, outcome: Transition) {
        self.pending.outcomes().push((purchase, outcome));
    }

    /// Records an outcome. Keeps it if that fails, and records it before the next purchase.
    ///
    /// A ledger in a SQLite file does not wait for the disk: a later call sees the outcome, and a crash can lose it. The
    /// payment then counts as spent, as it does without an outcome.
    pub(crate) async fn record_or_keep(&self, purchase: &PurchaseKey, outcome: Transition) {
        #[cfg(feature = "sqlite")]
        if self.record_later(purchase, &outcome) {
            return;
        }
        if let Err(error) = self.record(purchase, &outcome, self.now()).await {
            tracing::error!(%error, purchase = %purchase.id, outcome = outcome.name(), "{NOT_RECORDED}");
            self.add_pending(purchase.clone(), outcome);
        }
    }

    /// Hands an outcome to the thread of a SQLite file. Returns whether it did.
    #[cfg(feature = "sqlite")]
    fn record_later(&self, purchase: &PurchaseKey, outcome: &Transition) -> bool {
        let Backend::Sqlite(sqlite) = &self.backend else {
            return false;
        };
        if !outcome.is_outcome() {
            return false;
        }
        let (pending, key, kept) = (Arc::clone(&self.pending), purchase.clone(), outcome.clone());
        let refused = move |error: LedgerError| {
            tracing::error!(%error, purchase = %key.id, outcome = kept.name(), "{NOT_RECORDED}");
            pending.outcomes().push((key, kept));
        };
        let sent = sqlite.record_later(purchase, outcome, self.now(), refused);
        if sent.is_ok() {
            self.room.wake();
        }
        sent.is_ok()
    }

    /// Records the outcomes that are pending.
    ///
    /// While this fails, nothing may be bought: the ledger does not know of a payment that may
    /// settle, and would allow the same request to be paid again.
    pub(crate) async fn record_pending(&self) -> Result<(), LedgerError> {
        let pending = &self.pending;
        if pending.outcomes().is_empty() && pending.recording.try_lock().is_ok() {
            return Ok(());
        }
        let _recording = pending.recording.lock().await;
        while let Some((purchase, outcome)) = pending.first() {
            match self.record(&purchase, &outcome, self.now()).await {
                // The ledger already has a later state.
                Ok(()) | Err(LedgerError::Transition { .. } | LedgerError::UnknownPurchase(_)) => {
                    pending.remove_first();
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
