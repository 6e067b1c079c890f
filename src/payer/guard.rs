//! What becomes of a purchase when its caller stops waiting: the future is dropped, at any await.
//!
//! A drop cannot wait for the books. It notes what is to be recorded, and whoever buys next records
//! it first: an identical request that follows sees an unresolved purchase, not one in flight.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Payer;
use crate::Timestamp;
use crate::ledger::{PurchaseKey, Transition};
use crate::telemetry::{EventKind, PurchaseEvents};

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

impl Stage {
    const fn kind(self) -> EventKind {
        match self {
            Self::Held { .. } => EventKind::Unsigned,
            Self::Asked { .. } | Self::Signed => EventKind::Unresolved,
        }
    }

    fn left(self) -> Transition {
        let reason = "the caller stopped waiting".to_owned();
        match self {
            Self::Held { lease } => Transition::Voided { lease },
            Self::Asked { valid_before } => Transition::SignerTimedOut {
                valid_before,
                reason,
            },
            Self::Signed => Transition::Unresolved {
                reason,
                answer: None,
            },
        }
    }
}

/// Watches over one purchase. Dropped while armed, it notes that the purchase was left.
pub(super) struct Guard {
    payer: Payer,
    key: PurchaseKey,
    pub(super) stage: Stage,
    events: PurchaseEvents,
    armed: AtomicBool,
}

impl Guard {
    pub(super) fn new(
        payer: &Payer,
        key: PurchaseKey,
        stage: Stage,
        events: PurchaseEvents,
    ) -> Self {
        Self {
            payer: payer.clone(),
            key,
            stage,
            events,
            armed: AtomicBool::new(true),
        }
    }

    pub(super) const fn events(&self) -> &PurchaseEvents {
        &self.events
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
        self.payer
            .inner
            .ledger
            .add_pending(self.key.clone(), self.stage.left());
        self.payer
            .emit(&self.events.timed(self.stage.kind(), self.payer.now()));
        // Without a runtime it waits for the next purchase, or for the lease to lapse.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let ledger = self.payer.inner.ledger.clone();
        runtime.spawn(async move {
            if let Err(error) = ledger.record_pending().await {
                tracing::warn!(%error, "what became of a purchase is not recorded yet; nothing is bought until it is");
            }
        });
    }
}
