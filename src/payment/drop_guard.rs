//! Recording a purchase whose caller stopped waiting.
//!
//! A caller can drop the future of a call at any await. A drop cannot wait for the ledger, so it notes the transition.
//! The next call records it first, and an identical request then sees an unresolved purchase instead of one in flight.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Payer;
use crate::clock::Timestamp;
use crate::ledger::{Flight, Purchase, PurchaseKey, State, Transition};
use crate::telemetry::{EventKind, PurchaseEvents};
use crate::x402::PaymentMethod;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The amount is reserved under a lease, and nothing is signed.
    Held { lease: Timestamp },
    /// The signer was asked. It may have signed, and the ledger may be about to hold the signature.
    /// `valid_before` is in Unix seconds.
    Asked {
        method: PaymentMethod,
        valid_before: u64,
    },
    /// A signature may have left.
    Signed,
}

impl Stage {
    /// The stage of a purchase that the ledger has reserved.
    pub(super) const fn of(purchase: &Purchase) -> Self {
        match purchase.state {
            State::Reserved => Self::Held {
                lease: purchase.lease_until,
            },
            _ => Self::Signed,
        }
    }

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
            Self::Asked {
                method,
                valid_before,
            } => Transition::SignerTimedOut {
                method,
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

/// Guards one purchase: dropped while armed, it notes that the caller stopped waiting.
pub(super) struct DropGuard {
    payer: Payer,
    key: PurchaseKey,
    pub(super) stage: Stage,
    events: PurchaseEvents,
    /// The call, whose payment is in flight until it lands or the last guard of it is dropped.
    pub(super) flight: Arc<Flight>,
    armed: AtomicBool,
}

impl DropGuard {
    pub(super) fn new(
        payer: &Payer,
        key: PurchaseKey,
        stage: Stage,
        events: PurchaseEvents,
        flight: Arc<Flight>,
    ) -> Self {
        Self {
            payer: payer.clone(),
            key,
            stage,
            events,
            flight,
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

    /// The ledger holds the signature since `now`.
    pub(super) fn sign(&mut self, now: Timestamp) {
        self.stage = Stage::Signed;
        self.events.set_since(now);
        self.flight.sign();
    }

    /// The call goes on after an outcome: a dropped call must give up its lease.
    pub(super) fn arm(&self) {
        self.armed.store(true, Ordering::Relaxed);
    }

    /// The ledger holds the outcome.
    pub(super) fn disarm(&self) {
        self.armed.store(false, Ordering::Relaxed);
    }
}

impl Drop for DropGuard {
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
        match self.stage {
            Stage::Held { .. } => {}
            Stage::Asked { valid_before, .. } => self.payer.note_unresolved(valid_before),
            // The first round reads the time of expiry from the ledger.
            Stage::Signed => self.payer.note_unresolved(self.payer.now().secs()),
        }
        // Without a runtime the note waits for the next call, or the lease lapses.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let ledger = self.payer.inner.ledger.clone();
        runtime.spawn(async move {
            if let Err(error) = ledger.record_pending().await {
                tracing::warn!(%error, "the ledger did not record a dropped call yet; nothing is bought until it does");
            }
        });
    }
}
