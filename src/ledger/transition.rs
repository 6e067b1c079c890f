//! The states that a purchase goes through: what can become of it, and what then stands in the books.

use std::time::Duration;

use alloy::primitives::{B256, U256};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{LedgerError, Purchase, State};
use crate::{Timestamp, json_text};

/// How long after `validBefore` an authorization is still taken to be cashable: chains date their
/// blocks themselves.
const CHAIN_CLOCK_MARGIN: Duration = Duration::from_secs(60);

/// What became of a purchase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Transition {
    /// An authorization is signed and about to leave.
    Signed {
        /// The lease of the hold that it was signed for, [`Purchase::lease_until`]. A hold that lapsed
        /// may have been taken over at another price.
        lease: Timestamp,
        /// When it expires, in Unix seconds.
        valid_before: u64,
        /// The payment header, to be presented again.
        payload: SecretString,
        /// Until when whoever signed is at presenting it.
        presenter_lease_until: Timestamp,
    },
    /// A signer did not answer; it may have signed.
    SignerTimedOut {
        /// When the authorization expires, in Unix seconds.
        valid_before: u64,
        /// What happened.
        reason: String,
    },
    /// Somebody is at presenting the payment, at least until then.
    Presented {
        /// Until when nobody else takes the purchase up.
        until: Timestamp,
    },
    /// The seller named a transaction that matches what was signed.
    Settled {
        /// Its hash.
        transaction: B256,
        /// What the seller answered.
        answer: SellerAnswer,
    },
    /// The seller refused.
    Rejected {
        /// The seller's reason.
        reason: String,
        /// What the seller answered.
        answer: SellerAnswer,
    },
    /// The answer was lost, or says nothing certain.
    Unresolved {
        /// What happened.
        reason: String,
        /// What the seller answered, if it did.
        answer: Option<SellerAnswer>,
    },
    /// The chain shows that the nonce was used to pay.
    Confirmed {
        /// The nonce.
        nonce: B256,
        /// The transaction that used it.
        transaction: Option<B256>,
        /// How that is known, as JSON.
        proof: String,
    },
    /// The chain proves that nothing signed for this purchase was or can be cashed.
    ReleasedByProof {
        /// The nonce that the proof is about: a purchase that was released and bought anew has
        /// another, and may have the same expiry.
        nonce: B256,
        /// The `validBefore` that the proof is about, in Unix seconds: what is signed later is not
        /// covered by it.
        valid_before: Option<u64>,
        /// Whether the nonce was cancelled, so that expiry need not be waited for.
        cancelled: bool,
        /// How that is known, as JSON.
        proof: String,
    },
    /// Money came back.
    Refunded(Refund),
    /// Nothing was signed, and nothing will be; or the seller turned the key away.
    Voided {
        /// The lease of the hold, [`Purchase::lease_until`]: a hold that lapsed may have been taken over.
        lease: Timestamp,
    },
}

impl Transition {
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Signed { .. } => "signed",
            Self::Presented { .. } => "presented",
            Self::Settled { .. } | Self::Confirmed { .. } => "settled",
            Self::Rejected { .. } => "rejected",
            Self::SignerTimedOut { .. } | Self::Unresolved { .. } => "unresolved",
            Self::ReleasedByProof { .. } => "released_by_proof",
            Self::Refunded(_) => "refunded",
            Self::Voided { .. } => "voided",
        }
    }
}

/// What a seller answered to a payment, as far as a dispute needs it. All of it is the seller's
/// claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SellerAnswer {
    /// HTTP status.
    pub status: u16,
    /// The `Date` header, at most 160 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The `Content-Type` header, at most 160 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Where the seller takes requests for a refund: its `Link` with `rel="refund-request"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_request: Option<String>,
    /// The receipt header, decoded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ClaimedReceipt>,
    /// The body, where the call failed after a payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyDigest>,
}

impl SellerAnswer {
    /// An answer of which only the status is known.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        Self {
            status,
            date: None,
            content_type: None,
            refund_request: None,
            receipt: None,
            body: None,
        }
    }
}

/// What a receipt header said. Texts are at most 160 characters, without long hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are x402's")]
pub struct ClaimedReceipt {
    pub success: bool,
    #[serde(with = "json_text::optional_hash")]
    pub transaction: Option<B256>,
    pub network: String,
    pub payer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
}

/// A body by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BodyDigest {
    /// keccak256 of the bytes that were read.
    #[serde(with = "json_text::hash")]
    pub keccak256: B256,
    /// How many were read.
    pub bytes: u64,
    /// Whether that was all.
    pub complete: bool,
}

impl BodyDigest {
    pub(crate) const fn new(keccak256: B256, bytes: u64, complete: bool) -> Self {
        Self {
            keccak256,
            bytes,
            complete,
        }
    }
}

/// Money that came back for a purchase: an entry of its own, that leaves the purchase as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refund {
    /// The transaction that brought it. One transaction is one refund.
    #[serde(with = "json_text::hash")]
    pub transaction: B256,
    /// Atomic units of the purchase's token.
    #[serde(with = "json_text::units")]
    pub value: U256,
    /// When it was booked, in milliseconds since 1970.
    pub at_millis: i64,
    /// Whether the chain showed the transfer to the payer.
    pub verified: bool,
}

impl Refund {
    /// A refund of so many atomic units by this transaction; verified, if the chain showed it.
    #[must_use]
    pub const fn new(transaction: B256, value: U256, at: Timestamp, verified: bool) -> Self {
        Self {
            transaction,
            value,
            at_millis: at.millis(),
            verified,
        }
    }

    /// When it was booked.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at_millis)
    }
}

impl Purchase {
    /// Moves the purchase to its next state.
    ///
    /// # Errors
    /// When its state does not allow the transition: nothing can be signed after its lease or under
    /// the lease of an earlier hold, only an unsigned hold can be freed, only what has expired is
    /// released, and only by a proof of the latest authorization, and a settled purchase stays
    /// settled until the chain says otherwise.
    pub fn apply(&mut self, transition: &Transition, now: Timestamp) -> Result<(), LedgerError> {
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
                    valid_before,
                    reason,
                },
                Reserved | Signed | Rejected | Unresolved,
            ) => {
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
                    answer,
                },
                Signed | Rejected | Unresolved | Settled | ReleasedByProof,
            ) => {
                if self.state == ReleasedByProof {
                    // A claim against a proof: the chain is to be asked again.
                    self.proof = None;
                }
                self.state = Settled;
                self.transaction = Some(*transaction);
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
            (
                Transition::Confirmed {
                    nonce,
                    transaction,
                    proof,
                },
                Signed | Rejected | Unresolved | Settled | ReleasedByProof,
            ) if self.nonce == *nonce => {
                self.state = Settled;
                self.verified_transaction = transaction.or(self.verified_transaction);
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
                && (*cancelled || self.expires_at <= now) =>
            {
                self.state = ReleasedByProof;
                self.proof = Some(proof.clone());
                self.presenter_lease_until = now;
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

    /// Whether this is a hold that lapsed.
    pub(crate) fn has_lapsed(&self, now: Timestamp) -> bool {
        self.state == State::Reserved && self.lease_until <= now
    }

    /// Frees a hold that lapsed. Whoever reserves does so before writing: a hold that no longer
    /// counted must not be signed any more, whatever its own process takes the time to be.
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
            purchase: self.purchase.clone(),
            state: self.state,
            wanted: transition.name(),
        }
    }

    /// The last answer; one that says something is not lost to one that was not given.
    fn answered(&mut self, reason: Option<&String>, answer: Option<&SellerAnswer>, now: Timestamp) {
        self.reason = reason.cloned();
        self.status = answer.map(|answer| answer.status);
        if let Some(answer) = answer {
            self.answer = Some(answer.clone());
        }
        self.presenter_lease_until = now;
    }

    /// Books a refund once, however often it is told.
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

    /// Counts until the latest of all authorizations has expired, and until its lease has: so long may the
    /// same be signed once more, by a process whose clock is behind.
    fn outlive(&mut self, valid_before: u64) {
        let valid_before = self
            .valid_before
            .map_or(valid_before, |earlier| earlier.max(valid_before));
        self.valid_before = Some(valid_before);
        self.counts_at = Timestamp::from_secs(valid_before).max(self.lease_until);
        self.expires_at = self.counts_at.after(CHAIN_CLOCK_MARGIN);
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::Address;

    use super::*;
    use crate::Network;
    use crate::ledger::entry::NewPurchase;
    use crate::money::AssetRegistry;

    fn entry() -> Purchase {
        let base = Network::from_chain_id(8453);
        let asset = AssetRegistry::stablecoins()
            .find_symbol(base, "USDC")
            .unwrap()
            .clone();
        NewPurchase {
            purchase: "order-1".parse().unwrap(),
            payer: Address::repeat_byte(1),
            fingerprint: B256::ZERO,
            identifier: String::new(),
            origin: "https://a.example".parse().unwrap(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            foreign_resource: None,
            version: 2,
            asset,
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
        let mut entry = entry();
        assert!(entry.counts(Timestamp::from_secs(1059)));
        assert!(!entry.counts(Timestamp::from_secs(1060)));
        assert!(
            entry
                .apply(&signed(2000), Timestamp::from_secs(1060))
                .is_err()
        );
        assert!(
            entry
                .apply(&signed(2000), Timestamp::from_secs(1059))
                .is_ok()
        );
    }

    #[test]
    fn what_is_signed_counts_and_cannot_be_freed() {
        let mut entry = entry();
        entry
            .apply(&signed(1100), Timestamp::from_secs(1000))
            .unwrap();
        assert!(
            entry
                .apply(
                    &Transition::Voided {
                        lease: Timestamp::from_secs(1060)
                    },
                    Timestamp::from_secs(1001)
                )
                .is_err()
        );
        entry
            .apply(
                &Transition::Rejected {
                    reason: "no".into(),
                    answer: SellerAnswer::of(402),
                },
                Timestamp::from_secs(1001),
            )
            .unwrap();
        assert!(entry.counts(Timestamp::MAX));
        assert!(entry.is_outstanding(Timestamp::from_secs(1159)));
        assert!(!entry.is_outstanding(Timestamp::from_secs(1160)));
    }

    #[test]
    fn a_shorter_second_authorization_does_not_shorten_the_first() {
        let mut entry = entry();
        entry
            .apply(&signed(1300), Timestamp::from_secs(1000))
            .unwrap();
        entry
            .apply(&signed(1100), Timestamp::from_secs(1000))
            .unwrap();
        assert_eq!(entry.valid_before, Some(1300));
        assert_eq!(entry.counts_at, Timestamp::from_secs(1300));
    }

    #[test]
    fn a_proof_is_of_one_nonce_and_of_what_was_signed_under_it() {
        let released = |nonce, valid_before| Transition::ReleasedByProof {
            nonce,
            valid_before: Some(valid_before),
            cancelled: true,
            proof: "{}".to_owned(),
        };
        let now = Timestamp::from_secs(1010);
        let mut entry = entry();
        entry
            .apply(&signed(1300), Timestamp::from_secs(1000))
            .unwrap();
        // Bought anew after it was released: the same expiry, by chance or by the seller's wish.
        let other = B256::repeat_byte(9);
        assert!(entry.apply(&released(other, 1300), now).is_err());
        assert!(entry.apply(&released(entry.nonce, 1299), now).is_err());
        let confirmed = Transition::Confirmed {
            nonce: other,
            transaction: None,
            proof: "{}".to_owned(),
        };
        assert!(entry.apply(&confirmed, now).is_err());
        entry.apply(&released(entry.nonce, 1300), now).unwrap();
        assert_eq!(entry.state, State::ReleasedByProof);
    }

    #[test]
    fn settled_stays_settled() {
        let mut entry = entry();
        entry
            .apply(&signed(1300), Timestamp::from_secs(1000))
            .unwrap();
        entry
            .apply(
                &Transition::Settled {
                    transaction: B256::ZERO,
                    answer: SellerAnswer::of(200),
                },
                Timestamp::from_secs(1001),
            )
            .unwrap();
        entry
            .apply(
                &Transition::Unresolved {
                    reason: "lost".into(),
                    answer: None,
                },
                Timestamp::from_secs(1002),
            )
            .unwrap();
        assert_eq!(entry.state, State::Settled);
        // The receipt is a claim: the money may leave as late as its authorization expires.
        assert_eq!(entry.counts_at, Timestamp::from_secs(1300));
        assert!(
            entry
                .apply(&signed(1400), Timestamp::from_secs(1003))
                .is_err()
        );
    }
}
