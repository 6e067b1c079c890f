//! What becomes of a purchase when its caller stops waiting: the future is dropped, at any await.
//!
//! A drop cannot wait for the books. It notes what is to be recorded, and whoever buys next records
//! it first: an identical request that follows sees an unresolved purchase, not one in flight.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Payer;
use crate::Timestamp;
use crate::ledger::{LedgerError, PurchaseKey, Transition};

/// Purchases that were left, and not yet recorded so.
#[derive(Default)]
pub(super) struct Left {
    list: Mutex<Vec<(PurchaseKey, Stage)>>,
    /// Held by whoever is recording, so that others wait until it is done.
    recording: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Money is held under a lease, and nothing signed.
    Held { lease: Timestamp },
    /// The signer was asked for an authorization that expires then, in Unix seconds: it may have
    /// signed, and the record of it may be under way.
    Asked { valid_before: u64 },
    /// A signature may have left.
    Signed,
}

impl Left {
    fn list(&self) -> MutexGuard<'_, Vec<(PurchaseKey, Stage)>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<(PurchaseKey, Stage)> {
        self.list().first().cloned()
    }

    fn done(&self) {
        let mut list = self.list();
        if !list.is_empty() {
            list.remove(0);
        }
    }
}

impl Payer {
    /// Records what was left, before anything else is decided.
    pub(super) async fn record_left(&self) {
        let left = &self.inner.left;
        if left.list().is_empty() && left.recording.try_lock().is_ok() {
            return;
        }
        let recording = left.recording.lock().await;
        while let Some((key, stage)) = left.next() {
            if let Err(error) = self.leave(&key, stage).await {
                tracing::warn!(%error, purchase = %key.id, "a purchase that was left is not recorded so; its lease or its expiry ends it");
            }
            left.done();
        }
        drop(recording);
    }

    async fn leave(&self, key: &PurchaseKey, stage: Stage) -> Result<(), LedgerError> {
        let reason = "the caller stopped waiting".to_owned();
        let transition = match stage {
            Stage::Held { lease } => Transition::Freed { lease },
            Stage::Asked { valid_before } => Transition::Doubtful { valid_before, reason },
            Stage::Signed => Transition::Unknown { reason, answer: None },
        };
        self.inner.ledger.record(key, &transition, self.now()).await
    }
}

/// Watches over one purchase. Dropped while armed, it notes that the purchase was left.
pub(super) struct Guard {
    payer: Payer,
    key: PurchaseKey,
    pub(super) stage: Stage,
    armed: AtomicBool,
}

impl Guard {
    pub(super) fn new(payer: &Payer, key: PurchaseKey, stage: Stage) -> Self {
        Self { payer: payer.clone(), key, stage, armed: AtomicBool::new(true) }
    }

    pub(super) const fn payer(&self) -> &Payer {
        &self.payer
    }

    pub(super) const fn key(&self) -> &PurchaseKey {
        &self.key
    }

    /// The books know, or are about to.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !*self.armed.get_mut() {
            return;
        }
        self.payer.inner.left.list().push((self.key.clone(), self.stage));
        // Without a runtime it waits for the next purchase, or for the lease to lapse.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let payer = self.payer.clone();
        runtime.spawn(async move { payer.record_left().await });
    }
}
