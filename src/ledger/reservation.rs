//! Reserving the amount of a purchase, and resuming a purchase that was not delivered.

use std::time::Duration;

use alloy::primitives::{Address, B256};

use super::{NewPurchase, Purchase, PurchaseKey, State};
use crate::clock::Timestamp;
use crate::limit::{Amount, Chargeable, Denial, LimitCheck, Moment, Unit};
use crate::origin::Origin;

/// A request to reserve the amount of a purchase.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) purchase: NewPurchase,
    pub(crate) checks: LimitCheck,
    /// The time for which the hold lasts without a signature.
    pub(crate) lease: Duration,
    pub(crate) terms: Terms,
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

    /// Decides the next step from the stored purchase, if there is one.
    pub(super) fn plan(&self, stored: Option<Purchase>) -> Plan {
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
            // The chain proved that the nonce is used up, and would refuse it.
            ReleasedByProof => first(stored.generation.saturating_add(1)),
            State::Reserved if stored.lease_until <= now => first(stored.generation),
            State::Reserved => Plan::Answer(Reserved::InFlight),
            ApiCall => Plan::Answer(Reserved::Mismatch),
            Settled => Plan::Answer(Reserved::Known(Box::new(stored))),
            Signed | Rejected | Unresolved if !sign_again => {
                Plan::Answer(Reserved::Known(Box::new(stored)))
            }
            Signed | Rejected | Unresolved if stored.presenter_lease_until > now => {
                Plan::Answer(Reserved::InFlight)
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
    pub(crate) tag: Option<String>,
    pub(crate) agent: Option<String>,
    /// The most that the caller pays.
    pub(crate) max: Option<Amount>,
    pub(crate) now: Timestamp,
    pub(crate) until: Timestamp,
}

impl Resumption {
    /// Returns the purchase with a new presenter lease, if it can be resumed.
    ///
    /// It can be resumed if it was signed for the same request, was not delivered, has not expired, and
    /// no other call is presenting it.
    pub(super) fn resume(&self, stored: &Purchase) -> Option<Purchase> {
        let is_same = stored.payer == self.payer
            && stored.fingerprint == self.fingerprint
            && stored.origin == self.origin
            && stored.tag == self.tag
            && stored.agent == self.agent;
        let can_be_presented =
            stored.is_undelivered() && stored.payload.is_some() && stored.expires_at > self.now;
        let is_within = |max: &Amount| {
            let unit = Unit::of_amount(max, false);
            let charge = stored.charge(Moment::CountsAt);
            charge
                .and_then(|charge| unit.measure(&charge))
                .is_some_and(|units| units <= max.units())
        };
        (is_same
            && can_be_presented
            && self.max.as_ref().is_none_or(is_within)
            && stored.presenter_lease_until <= self.now)
            .then(|| Purchase {
                presenter_lease_until: self.until,
                updated_at: self.now,
                ..stored.clone()
            })
    }
}
