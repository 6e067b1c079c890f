//! Reserving the amount of a purchase, and resuming a purchase that was not delivered.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256};

use super::{Flight, NewPurchase, Purchase, PurchaseKey, State};
use crate::clock::Timestamp;
use crate::limit::{Denial, LimitCheck};
use crate::origin::Origin;

/// A request to reserve the amount of a purchase.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) purchase: NewPurchase,
    pub(crate) checks: LimitCheck,
    /// The time for which the hold lasts without a signature.
    pub(crate) lease: Duration,
    pub(crate) terms: Terms,
    /// The call that asks, if its payment will be in flight.
    pub(crate) flight: Option<Arc<Flight>>,
}

/// Whether a reservation may change the terms of a purchase that was signed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    First,
    Changed,
}

/// The answer of a ledger to a reservation.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The ledger holds the amount.
    Held(Box<Purchase>),
    /// A limit has no room. The ledger holds nothing.
    Denied(Box<Denial>),
    /// The purchase was signed before. Present its authorization again; never sign another one.
    Known(Box<Purchase>),
    /// Another task or process is buying the purchase now.
    InFlight,
    /// The id belongs to another request, or the new terms could be paid in addition to the old ones.
    Mismatch,
    /// The purchase was signed by a method whose nonces are not those of the new terms (EIP-3009 and Permit2). Both
    /// authorizations could settle.
    OtherMethod(Box<Purchase>),
    /// Another payer began the purchase, and this payer cannot continue it.
    OtherPayer(Box<Purchase>),
}

/// The next step for a reservation, given the stored state of its purchase.
#[derive(Debug)]
pub(super) enum Plan {
    /// Check the limits, then write this purchase over the stored one.
    Hold(Box<Purchase>),
    /// Write nothing and give this answer.
    Answer(Reserved),
}

impl Reservation {
    /// Notes that the ledger holds the purchase. A database calls it in the step that checks the limits, so that the
    /// next check knows of it.
    pub(super) fn note_held(&self, purchase: &Purchase) {
        if let Some(flight) = &self.flight {
            flight.hold(purchase);
        }
    }

    /// Returns the key of the purchase.
    pub(crate) fn key(&self) -> PurchaseKey {
        self.purchase.key()
    }

    /// Returns another purchase in its voided form, if it is a hold that lapsed.
    ///
    /// A lapsed hold did not count in the checks. It must not be signed any more once this
    /// reservation is written.
    pub(super) fn lapse(&self, other: &Purchase) -> Option<Purchase> {
        let now = self.checks.now();
        let mut voided = other.clone();
        (other.has_lapsed(now) && other.key() != self.key() && voided.lapse(now).is_ok())
            .then_some(voided)
    }

    /// Returns the stored purchase of this payer, and the next step. `known` are the purchases with
    /// this id, of every payer.
    pub(super) fn plan(&self, known: Vec<Purchase>) -> (Option<Purchase>, Plan) {
        let (own, others): (Vec<_>, Vec<_>) = known
            .into_iter()
            .partition(|known| known.payer == self.purchase.payer);
        let stored = own.into_iter().next();
        let now = self.checks.now();
        let plan = match others.into_iter().find(|other| other.counts(now)) {
            Some(other) => Plan::Answer(self.begun_by(other)),
            None => self.plan_own(stored.clone()),
        };
        (stored, plan)
    }

    /// Returns the answer for an id under which another payer bought. Two payers have two nonces, so
    /// this payer must not sign.
    fn begun_by(&self, other: Purchase) -> Reserved {
        match other.state {
            _ if other.fingerprint != self.purchase.fingerprint => Reserved::Mismatch,
            State::ApiCall => Reserved::Mismatch,
            State::Reserved => Reserved::InFlight,
            _ if self.terms == Terms::First && other.payload.is_some() => {
                Reserved::Known(Box::new(other))
            }
            _ => Reserved::OtherPayer(Box::new(other)),
        }
    }

    fn plan_own(&self, stored: Option<Purchase>) -> Plan {
        use State::{ApiCall, Rejected, ReleasedByProof, Settled, Signed, Unresolved, Voided};
        let now = self.checks.now();
        let lease = now.after(self.lease);
        let first = |generation| Plan::Hold(Box::new(self.purchase.open(generation, now, lease)));
        let Some(stored) = stored else {
            return first(0);
        };
        if stored.fingerprint != self.purchase.fingerprint {
            return Plan::Answer(Reserved::Mismatch);
        }
        // If the signer timed out there is no payment to present: the same nonce is signed again.
        let sign_again = self.terms == Terms::Changed || stored.payload.is_none();
        match stored.state {
            Voided => first(stored.generation),
            // The chain refuses a nonce that was cancelled. After an expiry the same nonce is signed: an
            // older copy of this ledger would sign it too, and at most one of both settles. Another method may be
            // signed too: no authorization by the first one can settle any more.
            ReleasedByProof => {
                let used = u32::from(stored.is_nonce_used());
                first(stored.generation.saturating_add(used))
            }
            State::Reserved if stored.lease_until <= now => first(stored.generation),
            State::Reserved => Plan::Answer(Reserved::InFlight),
            ApiCall => Plan::Answer(Reserved::Mismatch),
            Settled => Plan::Answer(Reserved::Known(Box::new(stored))),
            Signed | Rejected | Unresolved if !sign_again => {
                Plan::Answer(Reserved::Known(Box::new(stored)))
            }
            Signed | Rejected | Unresolved if stored.is_leased(now) => {
                Plan::Answer(Reserved::InFlight)
            }
            Signed | Rejected | Unresolved if self.purchase.is_of_other_kind(&stored) => {
                Plan::Answer(Reserved::OtherMethod(Box::new(stored)))
            }
            Signed | Rejected | Unresolved if !self.purchase.excludes(&stored) => {
                Plan::Answer(Reserved::Mismatch)
            }
            Signed | Rejected | Unresolved if stored.payee != self.purchase.payee => Plan::Answer(
                Reserved::Denied(Box::new(self.purchase.payee_changed(&stored))),
            ),
            Signed | Rejected | Unresolved => {
                Plan::Hold(Box::new(self.purchase.requote(stored, now, lease)))
            }
        }
    }
}

/// A request to present a payment again whose goods did not come, instead of buying the same request again.
#[derive(Clone, Debug)]
pub(crate) struct Resumption {
    pub(crate) payer: Address,
    pub(crate) fingerprint: B256,
    pub(crate) origin: Origin,
    pub(crate) now: Timestamp,
    pub(crate) until: Timestamp,
    /// Presenter leases that ended by a clock which cannot jump: the caller watched each for its whole length.
    pub(crate) ended: Vec<(PurchaseKey, Timestamp)>,
}

/// The answer of a ledger to a [`Resumption`].
#[derive(Debug)]
pub(crate) enum Resumed {
    /// Every payment for the same request was delivered, or can no longer settle.
    Nothing,
    /// Other calls are presenting all payments for the same request: these.
    InFlight(Vec<Purchase>),
    /// This payment must be presented again. The caller has the lease on it.
    Again(Box<Purchase>),
    /// The signer did not answer for this purchase. It must be asked again for the same nonce.
    Unsigned(Box<Purchase>),
    /// A payment of another payer for the same request can still settle.
    OtherPayer(Box<Purchase>),
}

impl Resumption {
    /// Chooses among the stored purchases with the same fingerprint, oldest first. A caller that gets
    /// [`Resumed::Again`] must store [`leased`](Self::leased) in the same step.
    ///
    /// A purchase can be resumed if it was signed for the same request, was not delivered, has not expired by
    /// any clock, and no other call is presenting it. Tags, agents and other options do not matter.
    pub(super) fn choose(&self, stored: impl IntoIterator<Item = Purchase>) -> Resumed {
        let (mut unsigned, mut foreign, mut in_flight) = (None, None, Vec::new());
        for stored in stored {
            if !self.is_open(&stored) {
                continue;
            }
            if stored.is_leased(self.now) && !self.has_ended(&stored) {
                in_flight.push(stored);
            } else if stored.payer != self.payer {
                foreign.get_or_insert(stored);
            } else if stored.payload.is_none() {
                unsigned.get_or_insert(stored);
            } else {
                return Resumed::Again(Box::new(stored));
            }
        }
        match (unsigned, foreign) {
            (Some(unsigned), _) => Resumed::Unsigned(Box::new(unsigned)),
            (None, Some(foreign)) => Resumed::OtherPayer(Box::new(foreign)),
            (None, None) if in_flight.is_empty() => Resumed::Nothing,
            (None, None) => Resumed::InFlight(in_flight),
        }
    }

    fn is_open(&self, stored: &Purchase) -> bool {
        stored.fingerprint == self.fingerprint
            && stored.origin == self.origin
            && stored.is_undelivered()
            && stored.expires_at > self.now
    }

    fn has_ended(&self, stored: &Purchase) -> bool {
        self.ended
            .iter()
            .any(|(key, lease)| *lease == stored.presenter_lease_until && *key == stored.key())
    }

    /// Returns the purchase with a new presenter lease.
    pub(super) fn leased(&self, stored: &Purchase) -> Purchase {
        Purchase {
            presenter_lease_until: self.until,
            updated_at: self.now,
            ..stored.clone()
        }
    }
}
