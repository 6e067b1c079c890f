//! Outcomes that the ledger could not record when they happened.
//!
//! A call that is dropped cannot wait for the ledger, and a full disk cannot take a write. The
//! outcome is then kept here, in the memory that all clones of a [`Ledger`] share, and recorded
//! before anything else is read or decided.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Ledger, LedgerError, PurchaseKey, Transition};

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
    pub(crate) async fn record_or_keep(&self, purchase: &PurchaseKey, outcome: Transition) {
        if let Err(error) = self.record(purchase, &outcome, self.now()).await {
            tracing::error!(%error, purchase = %purchase.id, outcome = outcome.name(), "the ledger did not record an outcome; until it does, the purchase counts as before");
            self.add_pending(purchase.clone(), outcome);
        }
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
