//! One purchase in the books, and the states it goes through.

use std::fmt;
use std::str::FromStr;

use alloy::primitives::{Address, B256, U256};
use secrecy::SecretString;
use serde::Serialize;

use super::{LedgerError, PurchaseId, PurchaseKey, Refund, SellerAnswer, nonce};
use crate::json_text::{hash, optional_hash};
use crate::limit::{Denial, Rule};
use crate::money::Asset;
use crate::{Network, Origin, Timestamp, Usd};

/// The state of a purchase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Money is held, nothing is signed. Stands for the length of its lease.
    Reserved,
    /// An authorization was signed and may have left; no answer is known.
    Signed,
    /// The seller named a transaction that matches what was signed.
    Settled,
    /// The seller refused. Its word is no proof: the money counts until the chain says otherwise.
    Rejected,
    /// The answer was lost or says nothing certain. The money counts.
    Unresolved,
    /// Not bought but called by a key, and counted at the cost that was declared for it.
    ApiCall,
    /// Given back before anything was signed, or a call by a key that was turned away.
    Voided,
    /// Signed, and proved by the chain never to have been cashed, nor to be cashable any more.
    ReleasedByProof,
}

impl State {
    pub(crate) const ALL: [Self; 8] = [
        Self::Reserved,
        Self::Signed,
        Self::Settled,
        Self::Rejected,
        Self::Unresolved,
        Self::ApiCall,
        Self::Voided,
        Self::ReleasedByProof,
    ];

    /// The stable name, such as `settled`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Signed => "signed",
            Self::Settled => "settled",
            Self::Rejected => "rejected",
            Self::Unresolved => "unresolved",
            Self::ApiCall => "api_call",
            Self::Voided => "voided",
            Self::ReleasedByProof => "released_by_proof",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for State {
    type Err = LedgerError;

    fn from_str(text: &str) -> Result<Self, LedgerError> {
        Self::ALL
            .into_iter()
            .find(|state| state.name() == text)
            .ok_or_else(|| {
                LedgerError::Damaged(format!(
                    "`{}` is no state of a purchase",
                    crate::text::excerpt(text)
                ))
            })
    }
}

/// A purchase as the books hold it, or a call by a key.
///
/// A call has a [`credential`](Self::credential), the state [`ApiCall`](State::ApiCall) or
/// [`Voided`](State::Voided), a value in declared dollars, and neither chain, token nor payee: its
/// network reads `off-chain`, and the addresses are zero.
///
/// `transaction` is the seller's claim; `verified_transaction` is what the chain confirmed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the names are the columns; those that need a word have one"
)]
pub struct Purchase {
    /// Position in the books, from 1.
    pub seq: u64,
    pub purchase: PurchaseId,
    /// Counts up when a purchase is bought anew after proof that its nonce is dead.
    pub generation: u32,
    #[serde(serialize_with = "hash::serialize")]
    pub payer: Address,
    pub state: State,
    /// Hash of method, URL and body: what makes a request the same request.
    #[serde(serialize_with = "hash::serialize")]
    pub fingerprint: B256,
    /// Sent as `payment-identifier` to sellers that ask for one.
    pub identifier: String,
    pub origin: Origin,
    pub method: String,
    /// Without the query, unless the policy stores queries.
    pub path: String,
    /// `resource.url` as the seller claims it, where it names another origin.
    pub foreign_resource: Option<String>,
    /// `x402Version`.
    pub version: u8,
    pub network: Network,
    #[serde(serialize_with = "hash::serialize")]
    pub asset: Address,
    pub symbol: String,
    pub decimals: u8,
    #[serde(serialize_with = "hash::serialize")]
    pub payee: Address,
    /// Atomic units: the largest that was signed for this purchase.
    #[serde(serialize_with = "hash::serialize")]
    pub value: U256,
    /// The value in dollars, rounded up to the micro-dollar.
    pub usd: Option<Usd>,
    #[serde(serialize_with = "hash::serialize")]
    pub nonce: B256,
    pub tag: Option<String>,
    pub agent: Option<String>,
    /// The key that a call was made with, by its name.
    pub credential: Option<String>,
    pub reserved_at: Timestamp,
    /// Until when it may be signed; while reserved, when the hold lapses by itself.
    pub lease_until: Timestamp,
    /// Until when somebody is at presenting it; from then on, an unresolved purchase can be taken
    /// up by an identical request.
    pub presenter_lease_until: Timestamp,
    /// The latest moment at which the money may move or moved.
    pub counts_at: Timestamp,
    /// When an unresolved authorization can no longer be cashed.
    pub expires_at: Timestamp,
    pub updated_at: Timestamp,
    /// Unix seconds, of the latest authorization.
    pub valid_before: Option<u64>,
    /// HTTP status of the last answer.
    pub status: Option<u16>,
    /// Why the purchase is rejected or unknown.
    pub reason: Option<String>,
    /// Hash that the seller claims.
    #[serde(
        rename = "claimed_transaction",
        serialize_with = "optional_hash::serialize"
    )]
    pub transaction: Option<B256>,
    /// Hash that the chain confirmed.
    #[serde(serialize_with = "optional_hash::serialize")]
    pub verified_transaction: Option<B256>,
    /// How the chain's word is known, as JSON.
    pub proof: Option<String>,
    /// What the seller last answered.
    pub answer: Option<SellerAnswer>,
    /// What the seller asked for, as it said it: the offer that was signed for, as JSON.
    pub terms: Option<String>,
    /// What came back, oldest first.
    pub refunds: Vec<Refund>,
    /// The payment header, to be presented again. Never exported.
    #[serde(skip)]
    pub(crate) payload: Option<SecretString>,
}

impl Purchase {
    /// The purchase's key.
    #[must_use]
    pub fn key(&self) -> PurchaseKey {
        PurchaseKey::new(self.payer, self.purchase.clone())
    }

    /// Whether something was signed and neither seller nor chain has said that it was paid.
    #[must_use]
    pub const fn is_unresolved(&self) -> bool {
        matches!(
            self.state,
            State::Signed | State::Rejected | State::Unresolved
        )
    }

    /// Whether only the chain can still tell what became of it: unresolved, or settled by the
    /// seller's word alone.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.is_unresolved() || (self.state == State::Settled && self.proof.is_none())
    }

    /// Whether the seller took a payment and did not deliver, as far as its answers tell: no answer,
    /// or an error, to what was or may have been paid. A refusal is not counted: it may be true.
    #[must_use]
    pub fn failed(&self) -> bool {
        failed(self.state, self.status)
    }

    /// Whether the last answer was a success, receipt or not.
    #[must_use]
    pub fn delivered(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// Whether this transaction is booked as a refund of the purchase.
    #[must_use]
    pub fn was_refunded_by(&self, transaction: B256) -> bool {
        self.refunds
            .iter()
            .any(|refund| refund.transaction == transaction)
    }

    /// What came back in all, in atomic units, and at most what was paid.
    #[must_use]
    pub fn refunded(&self) -> U256 {
        let all = self
            .refunds
            .iter()
            .map(|refund| refund.value)
            .fold(U256::ZERO, U256::saturating_add);
        all.min(self.value)
    }

    /// Whether the purchase counts against limits at `now`: not once it is freed, and a hold
    /// without a signature only for its lease.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> bool {
        match self.state {
            State::Voided | State::ReleasedByProof => false,
            State::Reserved => self.lease_until > now,
            State::Signed
            | State::Settled
            | State::Rejected
            | State::Unresolved
            | State::ApiCall => true,
        }
    }

    /// Whether money is out of hand and unresolved at `now`.
    #[must_use]
    pub fn is_outstanding(&self, now: Timestamp) -> bool {
        match self.state {
            State::Voided | State::ReleasedByProof | State::Settled | State::ApiCall => false,
            State::Reserved => self.lease_until > now,
            State::Signed | State::Rejected | State::Unresolved => self.expires_at > now,
        }
    }
}

/// See [`Purchase::failed`].
pub(crate) const fn failed(state: State, status: Option<u16>) -> bool {
    match (state, status) {
        (State::Unresolved, None) => true,
        (State::Unresolved | State::Settled, Some(status)) => status >= 300,
        _ => false,
    }
}

/// A purchase before the books know it.
#[derive(Clone, Debug)]
pub(crate) struct NewPurchase {
    pub(crate) purchase: PurchaseId,
    pub(crate) payer: Address,
    pub(crate) fingerprint: B256,
    pub(crate) identifier: String,
    pub(crate) origin: Origin,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) foreign_resource: Option<String>,
    pub(crate) version: u8,
    pub(crate) asset: Asset,
    pub(crate) payee: Address,
    pub(crate) value: U256,
    pub(crate) tag: Option<String>,
    pub(crate) agent: Option<String>,
    /// For a call by a key: its name. Nothing will be signed.
    pub(crate) credential: Option<String>,
    pub(crate) terms: Option<String>,
}

impl NewPurchase {
    pub(crate) fn key(&self) -> PurchaseKey {
        PurchaseKey::new(self.payer, self.purchase.clone())
    }

    /// Whether an authorization for this would exclude those of `known` on the chain.
    pub(crate) fn excludes(&self, known: &Purchase) -> bool {
        known.network == self.asset.network() && known.asset == self.asset.address()
    }

    /// New terms may change the price, not who is paid: that is how a hijacked seller looks.
    pub(crate) fn payee_changed(&self, known: &Purchase) -> Denial {
        let message = format!(
            "the purchase was signed for {}, and the new terms name {}",
            known.payee, self.payee
        );
        Denial::new(Rule::PayeeChanged, message)
    }

    /// The first hold for the purchase, or for a generation of it; for a call by a key, the call.
    pub(crate) fn open(&self, generation: u32, now: Timestamp, lease_until: Timestamp) -> Purchase {
        let (state, counts_at, lease_until) = match self.credential {
            None => (State::Reserved, Timestamp::MAX, lease_until),
            Some(_) => (State::ApiCall, now, now),
        };
        Purchase {
            seq: 0,
            purchase: self.purchase.clone(),
            generation,
            payer: self.payer,
            state,
            fingerprint: self.fingerprint,
            identifier: self.identifier.clone(),
            origin: self.origin.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            foreign_resource: self.foreign_resource.clone(),
            version: self.version,
            network: self.asset.network(),
            asset: self.asset.address(),
            symbol: self.asset.symbol().to_owned(),
            decimals: self.asset.decimals(),
            payee: self.payee,
            value: self.value,
            usd: self.asset.dollars(self.value),
            nonce: nonce(self.payer, &self.asset, &self.purchase, generation),
            tag: self.tag.clone(),
            agent: self.agent.clone(),
            credential: self.credential.clone(),
            reserved_at: now,
            lease_until,
            presenter_lease_until: lease_until,
            counts_at,
            expires_at: counts_at,
            updated_at: now,
            valid_before: None,
            status: None,
            reason: None,
            transaction: None,
            verified_transaction: None,
            proof: None,
            answer: None,
            terms: self.terms.clone(),
            refunds: Vec::new(),
            payload: None,
        }
    }

    /// The hold of a purchase whose seller changed its terms: of all that was signed at most one
    /// can be paid, so the largest is what counts. It counts at least as long as its lease from
    /// now on: it may have left every window before.
    pub(crate) fn requote(
        &self,
        known: Purchase,
        now: Timestamp,
        lease_until: Timestamp,
    ) -> Purchase {
        let value = known.value.max(self.value);
        Purchase {
            value,
            usd: self.asset.dollars(value),
            payee: self.payee,
            version: self.version,
            foreign_resource: self.foreign_resource.clone(),
            terms: self.terms.clone(),
            lease_until,
            presenter_lease_until: lease_until,
            counts_at: known.counts_at.max(lease_until),
            expires_at: known.expires_at.max(lease_until),
            updated_at: now,
            ..known
        }
    }
}
