//! The changes between the states of a purchase.

use std::time::Duration;

use alloy::primitives::{B256, U256};
use secrecy::SecretString;

use super::{LedgerError, Purchase, Refund, SellerAnswer, State};
use crate::clock::{CLOCK_BOUND, Timestamp};
use crate::x402::PaymentMethod;

/// The time after `validBefore` before which bursar believes no proof of expiry. Block times on a
/// chain differ from the clock of this machine.
const CHAIN_CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// A change of a purchase that the ledger records.
#[derive(Clone, Debug)]
pub(crate) enum Transition {
    /// bursar signed an authorization and is about to send it.
    Signed {
        /// The lease of the hold, [`Purchase::lease_until`]. Another call may have taken over a hold
        /// that lapsed, at another price.
        lease: Timestamp,
        /// The `validBefore` of the authorization, in Unix seconds.
        valid_before: u64,
        /// The payment header, to be presented again after a lost answer.
        payload: SecretString,
        /// The time until which this call presents the payment.
        presenter_lease_until: Timestamp,
    },
    /// The signer did not answer in time. It may have signed.
    SignerTimedOut {
        /// The method of the authorization. Another call may have taken over a hold that lapsed, by another method.
        method: PaymentMethod,
        /// The `validBefore` of the authorization, in Unix seconds.
        valid_before: u64,
        /// The reason, for people.
        reason: String,
    },
    /// A call presents the payment, at least until this time.
    Presented {
        /// The time until which no other call resumes the purchase.
        until: Timestamp,
    },
    /// The seller named a transaction that matches the authorization.
    Settled {
        /// The hash of the transaction.
        transaction: B256,
        /// The charge of an `upto` payment, in atomic units, if the receipt names one.
        charged: Option<U256>,
        /// The seller's answer.
        answer: SellerAnswer,
    },
    /// The seller refused the payment.
    Rejected {
        /// The seller's reason.
        reason: String,
        /// The seller's answer.
        answer: SellerAnswer,
    },
    /// The answer was lost, or it does not show whether the payment settled.
    Unresolved {
        /// The reason, for people.
        reason: String,
        /// The seller's answer, if there was one.
        answer: Option<SellerAnswer>,
    },
    /// The answer to the payment began, and its body broke.
    BodyLost {
        /// The reason, for people.
        reason: String,
    },
    /// The chain shows that the nonce was used to pay.
    Confirmed {
        /// The nonce.
        nonce: B256,
        /// The transaction that used the nonce.
        transaction: Option<B256>,
        /// The amount that the transaction moved, in atomic units, if it is known. It never counts as more than was signed.
        charged: Option<U256>,
        /// The proof, as JSON.
        proof: String,
    },
    /// The chain proves that no authorization for this purchase settled or can settle.
    ReleasedByProof {
        /// The nonce of the proof. A purchase that was released and bought again has another nonce,
        /// and can have the same expiry.
        nonce: B256,
        /// The `validBefore` of the proof, in Unix seconds. The proof does not cover authorizations
        /// that were signed later.
        valid_before: Option<u64>,
        /// Whether the nonce was cancelled. A cancelled purchase is released before it expires.
        cancelled: bool,
        /// The proof, as JSON.
        proof: String,
    },
    /// The large parts of the purchase are in an archive.
    Pruned {
        /// [`Purchase::updated_at`] of the purchase that was archived. It may have changed since.
        as_of: Timestamp,
        /// The hash of its line in the archive.
        line: B256,
    },
    /// Money came back.
    Refunded(Refund),
    /// Nothing was signed and nothing will be, or the seller refused the API key.
    Voided {
        /// The lease of the hold, [`Purchase::lease_until`]. Another call may have taken over a hold
        /// that lapsed.
        lease: Timestamp,
    },
}

impl Transition {
    /// Returns the name of the state that the change leads to.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Signed { .. } => "signed",
            Self::Presented { .. } => "presented",
            Self::Settled { .. } | Self::Confirmed { .. } => "settled",
            Self::Rejected { .. } => "rejected",
            Self::SignerTimedOut { .. } | Self::Unresolved { .. } => "unresolved",
            Self::BodyLost { .. } => "body_lost",
            Self::ReleasedByProof { .. } => "released_by_proof",
            Self::Pruned { .. } => "pruned",
            Self::Refunded(_) => "refunded",
            Self::Voided { .. } => "voided",
        }
    }
}

impl Purchase {
    /// Moves the purchase to its next state.
    ///
    /// A purchase can be signed only under the lease of its latest hold and before that lease ends.
    /// Only an unsigned hold can be voided. A proof releases a purchase only if it covers the latest
    /// authorization, which expired or was cancelled. A settled purchase stays settled until the
    /// chain proves the opposite.
    ///
    /// # Errors
    /// Returns [`LedgerError::Transition`] if the state does not allow the change.
    pub(crate) fn apply(
        &mut self,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        use State::{
            ApiCall, Rejected, ReleasedByProof, Reserved, Settled, Signed, Unresolved, Voided,
        };
        match (transition, self.state) {
            (
                Transition::Signed {
                    lease,
                    valid_before,
                    payload,
                    presenter_lease_until,
                },
                Reserved | Signed | Rejected | Unresolved,
            ) if self.lease_until > now && self.lease_until == *lease => {
                self.state = Signed;
                self.payload = Some(payload.clone());
                self.presenter_lease_until = *presenter_lease_until;
                self.outlive(*valid_before);
            }
            (
                Transition::SignerTimedOut {
                    method,
                    valid_before,
                    reason,
                },
                Reserved | Signed | Rejected | Unresolved,
            ) => {
                if self.state == Reserved {
                    self.payment_method = Some(*method);
                }
                self.state = Unresolved;
                self.reason = Some(reason.clone());
                self.presenter_lease_until = now;
                self.outlive(*valid_before);
            }
            (Transition::Presented { until }, Signed | Rejected | Unresolved | Settled) => {
                self.presenter_lease_until = *until
            }
            (
                Transition::Settled {
                    transaction,
                    charged,
                    answer,
                },
                Signed | Rejected | Unresolved | Settled | ReleasedByProof,
            ) => {
                if self.state == ReleasedByProof {
                    // The seller's claim contradicts the proof: bursar must read the chain again.
                    self.proof = None;
                    self.verified_charge = None;
                }
                self.state = Settled;
                self.transaction = Some(*transaction);
                // It frees no room: the seller could charge all that was signed, and say less.
                self.claimed_charge = charged.or(self.claimed_charge);
                self.answered(None, Some(answer), now);
            }
            (Transition::Rejected { reason, answer }, Signed | Rejected | Unresolved) => {
                self.state = Rejected;
                self.answered(Some(reason), Some(answer), now);
            }
            (Transition::Unresolved { reason, answer }, Signed | Rejected | Unresolved) => {
                self.state = Unresolved;
                self.answered(Some(reason), answer.as_ref(), now);
            }
            (
                Transition::Rejected { .. } | Transition::Unresolved { .. },
                Settled | ReleasedByProof,
            ) => self.presenter_lease_until = now,
            (Transition::BodyLost { reason }, Signed | Rejected | Unresolved | Settled) => {
                self.status = None;
                self.reason = Some(reason.clone());
            }
            (
                Transition::Confirmed {
                    nonce,
                    transaction,
                    charged,
                    proof,
                },
                Signed | Rejected | Unresolved | Settled | ReleasedByProof,
            ) if self.nonce == *nonce => {
                self.state = Settled;
                self.verified_transaction = transaction.or(self.verified_transaction);
                let charged = charged.map(|units| units.min(self.value));
                self.verified_charge = charged.or(self.verified_charge);
                self.proof = Some(proof.clone());
            }
            (
                Transition::ReleasedByProof {
                    nonce,
                    valid_before,
                    cancelled,
                    proof,
                },
                Signed | Rejected | Unresolved | Settled,
            ) if self.is_unproven()
                && self.nonce == *nonce
                && self.valid_before == *valid_before
                && (*cancelled || self.counts_at.after(CHAIN_CLOCK_MARGIN) <= now) =>
            {
                self.state = ReleasedByProof;
                self.proof = Some(proof.clone());
                // It is never presented again.
                self.payload = None;
                self.presenter_lease_until = now;
            }
            (Transition::Pruned { as_of, line }, Settled | ApiCall | Voided | ReleasedByProof)
                if self.updated_at == *as_of && self.is_prunable(now) =>
            {
                self.prune(*line)
            }
            (Transition::Refunded(refund), Signed | Rejected | Unresolved | Settled) => {
                self.refund(refund)?
            }
            (Transition::Voided { lease }, Reserved | ApiCall) if self.lease_until == *lease => {
                self.state = Voided
            }
            (Transition::Voided { .. }, Voided) => {}
            (transition, _) => return Err(self.refuses(transition)),
        }
        self.updated_at = now;
        Ok(())
    }

    /// Returns whether this is an unsigned hold whose lease ended.
    pub(crate) fn has_lapsed(&self, now: Timestamp) -> bool {
        self.state == State::Reserved && self.lease_until <= now
    }

    /// Voids a hold that lapsed.
    ///
    /// A lapsed hold does not count against the limits. Every reservation therefore voids the lapsed
    /// holds of others before it is written, so that they cannot be signed any more, even by a
    /// process whose clock is behind.
    pub(crate) fn lapse(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.apply(
            &Transition::Voided {
                lease: self.lease_until,
            },
            now,
        )
    }

    fn refuses(&self, transition: &Transition) -> LedgerError {
        LedgerError::Transition {
            purchase: self.id.clone(),
            state: self.state,
            wanted: transition.name(),
        }
    }

    /// Stores the seller's last answer. A missing answer does not replace an earlier one.
    fn answered(&mut self, reason: Option<&String>, answer: Option<&SellerAnswer>, now: Timestamp) {
        self.reason = reason.cloned();
        self.status = answer.map(|answer| answer.status);
        if let Some(answer) = answer {
            self.answer = Some(answer.clone());
        }
        self.presenter_lease_until = now;
    }

    /// Stores a refund. Storing the same refund again changes nothing.
    fn refund(&mut self, refund: &Refund) -> Result<(), LedgerError> {
        match self
            .refunds
            .iter_mut()
            .find(|known| known.transaction == refund.transaction)
        {
            Some(known) if known.value != refund.value => {
                return Err(self.refuses(&Transition::Refunded(refund.clone())));
            }
            Some(known) => known.verified |= refund.verified,
            None => self.refunds.push(refund.clone()),
        }
        Ok(())
    }

    /// Makes the purchase count until its latest authorization has expired, and ends its lease. Another signature needs
    /// another hold, so a process whose clock is behind cannot sign under a lease that others take for ended. The new end is
    /// the end of no hold: a process that still has an earlier hold, which ended at this very moment, cannot sign either.
    fn outlive(&mut self, valid_before: u64) {
        let valid_before = self
            .valid_before
            .map_or(valid_before, |earlier| earlier.max(valid_before));
        self.valid_before = Some(valid_before);
        self.counts_at = Timestamp::from_secs(valid_before);
        self.expires_at = self.counts_at.after(CLOCK_BOUND);
        self.lease_until = Timestamp::from_millis(0);
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{Address, U256};

    use super::*;
    use crate::ledger::NewPurchase;
    use crate::money::AssetRegistry;
    use crate::money::Network;

    fn held() -> Purchase {
        let base = Network::from_chain_id(8453);
        let asset = AssetRegistry::stablecoins()
            .find_symbol(base, "USDC")
            .unwrap()
            .clone();
        NewPurchase {
            id: "order-1".parse().unwrap(),
            payer: Address::repeat_byte(1),
            fingerprint: B256::ZERO,
            identifier: String::new(),
            origin: "https://a.example".parse().unwrap(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            foreign_resource: None,
            version: 2,
            asset,
            payment_method: Some(PaymentMethod::Eip3009),
            payee: Address::repeat_byte(2),
            value: U256::from(10_000),
            tag: None,
            agent: None,
            credential: None,
            terms: None,
        }
        .open(0, Timestamp::from_secs(1000), Timestamp::from_secs(1060))
    }

    fn signed(valid_before: u64) -> Transition {
        Transition::Signed {
            lease: Timestamp::from_secs(1060),
            valid_before,
            payload: SecretString::from("x"),
            presenter_lease_until: Timestamp::from_secs(1020),
        }
    }

    #[test]
    fn a_hold_lapses_with_its_lease_and_can_then_not_be_signed() {
        let mut purchase = held();
        assert!(purchase.counts(Timestamp::from_secs(1059)));
        assert!(!purchase.counts(Timestamp::from_secs(1060)));
        assert!(
            purchase
                .apply(&signed(2000), Timestamp::from_secs(1060))
                .is_err()
        );
        assert!(
            purchase
                .apply(&signed(2000), Timestamp::from_secs(1059))
                .is_ok()
        );
    }

    #[test]
    fn a_signed_purchase_counts_and_cannot_be_voided() {
        let mut purchase = held();
        purchase
            .apply(&signed(1100), Timestamp::from_secs(1000))
            .unwrap();
        assert!(
            purchase
                .apply(
                    &Transition::Voided {
                        lease: Timestamp::from_secs(1060)
                    },
                    Timestamp::from_secs(1001)
                )
                .is_err()
        );
        purchase
            .apply(
                &Transition::Rejected {
                    reason: "no".into(),
                    answer: SellerAnswer::of(402),
                },
                Timestamp::from_secs(1001),
            )
            .unwrap();
        assert!(purchase.counts(Timestamp::MAX));
        assert!(purchase.is_outstanding(Timestamp::from_secs(1699)));
        assert!(!purchase.is_outstanding(Timestamp::from_secs(1700)));
    }

    #[test]
    fn a_shorter_second_authorization_does_not_shorten_the_first() {
        let mut purchase = held();
        purchase
            .apply(&signed(1300), Timestamp::from_secs(1000))
            .unwrap();
        // A new hold at other terms.
        purchase.lease_until = Timestamp::from_secs(1060);
        purchase
            .apply(&signed(1100), Timestamp::from_secs(1000))
            .unwrap();
        assert_eq!(purchase.valid_before, Some(1300));
        assert_eq!(purchase.counts_at, Timestamp::from_secs(1300));
    }

    #[test]
    fn an_earlier_hold_that_ended_at_the_moment_of_a_signature_cannot_be_signed() {
        let mut purchase = held();
        let earlier = purchase.lease_until;
        purchase.lease_until = Timestamp::from_secs(1120);
        let mut latest = signed(1300);
        if let Transition::Signed { lease, .. } = &mut latest {
            *lease = purchase.lease_until;
        }
        purchase.apply(&latest, earlier).unwrap();
        // The clock of the process with the earlier hold is behind.
        let behind = Timestamp::from_secs(1010);
        assert!(earlier > behind);
        assert!(purchase.apply(&signed(1310), behind).is_err());
    }

    #[test]
    fn a_proof_covers_one_nonce_and_its_latest_authorization() {
        let released = |nonce, valid_before| Transition::ReleasedByProof {
            nonce,
            valid_before: Some(valid_before),
            cancelled: true,
            proof: "{}".to_owned(),
        };
        let now = Timestamp::from_secs(1010);
        let mut purchase = held();
        purchase
            .apply(&signed(1300), Timestamp::from_secs(1000))
            .unwrap();
        // A purchase that was released and bought again can have the same expiry.
        let other = B256::repeat_byte(9);
        assert!(purchase.apply(&released(other, 1300), now).is_err());
        assert!(
            purchase
                .apply(&released(purchase.nonce, 1299), now)
                .is_err()
        );
        let confirmed = Transition::Confirmed {
            nonce: other,
            transaction: None,
            charged: None,
            proof: "{}".to_owned(),
        };
        assert!(purchase.apply(&confirmed, now).is_err());
        purchase
            .apply(&released(purchase.nonce, 1300), now)
            .unwrap();
        assert_eq!(purchase.state, State::ReleasedByProof);
    }

    #[test]
    fn a_settled_purchase_stays_settled() {
        let mut purchase = held();
        purchase
            .apply(&signed(1300), Timestamp::from_secs(1000))
            .unwrap();
        purchase
            .apply(
                &Transition::Settled {
                    transaction: B256::ZERO,
                    charged: None,
                    answer: SellerAnswer::of(200),
                },
                Timestamp::from_secs(1001),
            )
            .unwrap();
        purchase
            .apply(
                &Transition::Unresolved {
                    reason: "lost".into(),
                    answer: None,
                },
                Timestamp::from_secs(1002),
            )
            .unwrap();
        assert_eq!(purchase.state, State::Settled);
        // The receipt is a claim: the payment can settle until the authorization expires.
        assert_eq!(purchase.counts_at, Timestamp::from_secs(1300));
        assert!(
            purchase
                .apply(&signed(1400), Timestamp::from_secs(1003))
                .is_err()
        );
    }
}
