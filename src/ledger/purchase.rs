//! A purchase and its states.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LedgerError, PurchaseId, PurchaseKey, Refund, SellerAnswer, nonce};
use crate::clock::{CLOCK_BOUND, Timestamp};
use crate::json_text::{hash, optional_hash, optional_number};
use crate::limit::{Denial, Rule};
use crate::money::{Asset, Network, Usd, pegged_dollars};
use crate::origin::Origin;
use crate::x402::{PaymentMethod, SellerSignature, Verification};

/// The difference between two clocks under which one believes the leases of the other.
const LEASE_SKEW: Duration = Duration::from_secs(20);

/// The state of a purchase.
///
/// A purchase counts against the limits in every state except `Voided` and `ReleasedByProof`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// The ledger holds the amount. Nothing is signed. The hold lapses when its lease ends.
    Reserved,
    /// bursar signed an authorization, which may have left this process. No answer is known.
    Signed,
    /// The seller named a transaction that matches the authorization, or the chain confirmed one.
    Settled,
    /// The seller refused the payment. The seller could still settle it until it expires.
    Rejected,
    /// The answer was lost, or it does not show whether the payment settled.
    Unresolved,
    /// Nothing was signed: the request was made with an API key, at a declared cost.
    ApiCall,
    /// Nothing was signed and nothing will be, or the seller refused the API key.
    Voided,
    /// The chain proves that the authorization was not settled and cannot settle any more.
    ReleasedByProof,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Reserved,
        Self::Signed,
        Self::Settled,
        Self::Rejected,
        Self::Unresolved,
        Self::ApiCall,
        Self::Voided,
        Self::ReleasedByProof,
    ];

    /// Returns the stable name, such as `settled`.
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
                    "`{}` is not a state of a purchase",
                    crate::text::excerpt(text)
                ))
            })
    }
}

/// A purchase in the ledger, or a request that was made with an API key.
///
/// A request with an API key has a [`credential`](Self::credential), the state
/// [`ApiCall`](State::ApiCall) or [`Voided`](State::Voided), and its declared cost as `value`. Its
/// network is `off-chain`, and its addresses are zero.
///
/// `transaction` is the seller's claim. `verified_transaction` was confirmed on the chain.
///
/// ```
/// # async fn example(ledger: bursar::Ledger) -> Result<(), bursar::ledger::LedgerError> {
/// use bursar::ledger::Filter;
///
/// for purchase in ledger.purchases(&Filter::all()).await? {
///     println!("{} {} {} {}", purchase.reserved_at, purchase.state, purchase.origin, purchase.id);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the names are those of the columns; the rest is documented"
)]
pub struct Purchase {
    /// The position in the ledger. The first purchase has 1.
    pub seq: u64,
    /// The id. Exports call it `purchase`.
    #[serde(rename = "purchase")]
    pub id: PurchaseId,
    /// How often the purchase was cancelled on the chain and then bought again, which needs another
    /// nonce. A purchase that was released because it expired is bought again under its nonce.
    pub generation: u32,
    #[serde(serialize_with = "hash::serialize")]
    pub payer: Address,
    pub state: State,
    /// The hash of method, URL and body. Two requests with the same hash are the same request.
    #[serde(serialize_with = "hash::serialize")]
    pub fingerprint: B256,
    /// The `payment-identifier` for sellers that ask for one.
    pub identifier: String,
    pub origin: Origin,
    pub method: String,
    /// The path, without the query unless the policy stores queries.
    pub path: String,
    /// The seller's `resource.url`, if it names another origin.
    pub foreign_resource: Option<String>,
    /// The `x402Version`.
    pub version: u8,
    pub network: Network,
    #[serde(serialize_with = "hash::serialize")]
    pub asset: Address,
    pub symbol: String,
    pub decimals: u8,
    #[serde(serialize_with = "hash::serialize")]
    pub payee: Address,
    /// The scheme and the transfer method of the latest authorization. `None` for a request with an API key.
    pub payment_method: Option<PaymentMethod>,
    /// The largest amount that was signed for this purchase, in atomic units. For `upto` it is the ceiling of the charge.
    #[serde(serialize_with = "hash::serialize")]
    pub value: U256,
    /// The value in dollars, rounded up to the micro-dollar.
    pub usd: Option<Usd>,
    /// The charge of an `upto` payment that the seller claims, in atomic units. Limits do not believe it.
    #[serde(serialize_with = "optional_number::serialize")]
    pub claimed_charge: Option<U256>,
    /// The charge that the chain confirmed, in atomic units, at most `value`. Limits count it in place of `value`.
    #[serde(serialize_with = "optional_number::serialize")]
    pub verified_charge: Option<U256>,
    #[serde(serialize_with = "hash::serialize")]
    pub nonce: B256,
    pub tag: Option<String>,
    pub agent: Option<String>,
    /// The name of the API key that the request used.
    pub credential: Option<String>,
    pub reserved_at: Timestamp,
    /// The time until which the purchase can be signed. An unsigned hold lapses at this time. The Unix epoch, if the
    /// purchase was signed under its latest hold.
    pub lease_until: Timestamp,
    /// The time until which one call presents the payment. After it, an identical request can
    /// resume an unresolved purchase.
    pub presenter_lease_until: Timestamp,
    /// The latest time at which the money can move or moved. Limits of spending over time use it.
    pub counts_at: Timestamp,
    /// The time until which an unresolved payment counts as exposure, and an identical request
    /// presents it again: [`CLOCK_BOUND`] after `valid_before`.
    pub expires_at: Timestamp,
    pub updated_at: Timestamp,
    /// The `validBefore` of the latest authorization, in Unix seconds.
    pub valid_before: Option<u64>,
    /// The HTTP status of the seller's last answer.
    pub status: Option<u16>,
    /// The reason why the purchase is rejected or unresolved.
    pub reason: Option<String>,
    /// The hash of the transaction that the seller claims.
    #[serde(
        rename = "claimed_transaction",
        serialize_with = "optional_hash::serialize"
    )]
    pub transaction: Option<B256>,
    /// The hash of the transaction that the chain confirmed.
    #[serde(serialize_with = "optional_hash::serialize")]
    pub verified_transaction: Option<B256>,
    /// The proof from the chain, as JSON.
    pub proof: Option<String>,
    /// The seller's last answer.
    pub answer: Option<SellerAnswer>,
    /// The seller's offer and resource for the signed payment, as JSON of at most 4 KiB. Of longer
    /// ones, their length and their keccak256 hash.
    pub terms: Option<String>,
    /// The refunds, oldest first.
    pub refunds: Vec<Refund>,
    /// The payment header, which bursar presents again after a lost answer. Never exported.
    #[serde(skip)]
    pub(crate) payload: Option<SecretString>,
}

impl Purchase {
    /// Returns the key of the purchase.
    #[must_use]
    pub fn key(&self) -> PurchaseKey {
        PurchaseKey::new(self.payer, self.id.clone())
    }

    /// Returns the result of checking the seller's signature on the offer, when bursar paid for it.
    ///
    /// The signed offer itself is in [`terms`](Self::terms), in the member `signedOffer`.
    #[must_use]
    pub fn offer_signature(&self) -> Verification {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Kept {
            signed_offer: Option<SellerSignature>,
        }
        let kept = self
            .terms
            .as_deref()
            .filter(|terms| terms.contains("signedOffer"));
        let kept = kept.and_then(|terms| serde_json::from_str::<Kept>(terms).ok());
        let signature = kept.and_then(|kept| kept.signed_offer);
        signature.map_or(Verification::Absent, |signature| signature.verification)
    }

    /// Returns the result of checking the seller's signature on the receipt in its last answer.
    #[must_use]
    pub fn receipt_signature(&self) -> Verification {
        let signed = self
            .answer
            .as_ref()
            .and_then(|answer| answer.signed_receipt.as_ref());
        signed.map_or(Verification::Absent, |signed| signed.verification.clone())
    }

    /// Returns whether bursar signed a payment that neither the seller nor the chain confirmed.
    #[must_use]
    pub const fn is_unresolved(&self) -> bool {
        matches!(
            self.state,
            State::Signed | State::Rejected | State::Unresolved
        )
    }

    /// Returns whether the purchase never counts again: it was voided or released.
    pub(crate) const fn is_void(&self) -> bool {
        matches!(self.state, State::Voided | State::ReleasedByProof)
    }

    /// Returns whether the chain must still confirm the outcome: the purchase is unresolved, or
    /// only the seller claims that it settled.
    #[must_use]
    pub fn is_unproven(&self) -> bool {
        self.is_unresolved() || (self.state == State::Settled && self.proof.is_none())
    }

    /// Returns whether the seller may have been paid and did not deliver: it gave no answer, or an
    /// error.
    ///
    /// A refused payment is not a failure. Neither is an error about the request itself, such as 404 or
    /// 422, while nothing shows that the payment settled: official sellers do not settle such a request.
    #[must_use]
    pub fn failed(&self) -> bool {
        failed(self.state, self.status)
    }

    /// Returns whether the seller's last answer had a status of 200 to 299.
    #[must_use]
    pub fn delivered(&self) -> bool {
        self.status
            .is_some_and(|status| (200..300).contains(&status))
    }

    /// Returns whether bursar presents the payment again when the same request comes again: it was
    /// signed, and the goods did not come. A redirect of a settled payment counts as delivered,
    /// because the caller received its target.
    #[must_use]
    pub(crate) fn is_undelivered(&self) -> bool {
        match self.state {
            State::Signed | State::Rejected | State::Unresolved => !self.delivered(),
            State::Settled => self
                .status
                .is_none_or(|status| !(200..400).contains(&status)),
            State::Reserved | State::Voided | State::ReleasedByProof | State::ApiCall => false,
        }
    }

    /// Returns whether the seller knows the payer as a buyer: the payment settled, or the goods came for it.
    pub(crate) fn was_bought(&self) -> bool {
        self.state == State::Settled || (self.is_unresolved() && self.delivered())
    }

    /// Returns whether another call is presenting or signing the payment.
    ///
    /// A lease that was written by a clock ahead of `now` does not show how long it still holds. It
    /// is ignored, so that it cannot block the purchase for long. Two calls may then present one
    /// payment, which settles once.
    #[must_use]
    pub(crate) fn is_leased(&self, now: Timestamp) -> bool {
        self.presenter_lease_until > now && self.updated_at <= now.after(LEASE_SKEW)
    }

    /// Returns whether the chain may have used up the nonce of a purchase that was released. A
    /// proof of expiry shows that it did not.
    pub(crate) fn is_nonce_used(&self) -> bool {
        let proof = self.proof.as_deref();
        let proof: Option<Value> = proof.and_then(|proof| serde_json::from_str(proof).ok());
        let kind = proof
            .as_ref()
            .and_then(|proof| proof.pointer("/not_settled/kind"));
        kind.and_then(Value::as_str) != Some("expired")
    }

    /// Returns whether this transaction is recorded as a refund of the purchase.
    #[must_use]
    pub fn was_refunded_by(&self, transaction: B256) -> bool {
        self.refunds
            .iter()
            .any(|refund| refund.transaction == transaction)
    }

    /// Returns the amount that counts against the limits, in atomic units: the charge that the chain confirmed, or else
    /// all that was signed.
    #[must_use]
    pub fn counted(&self) -> U256 {
        self.verified_charge
            .map_or(self.value, |charge| charge.min(self.value))
    }

    /// Returns the amount that counts against the limits, in dollars, rounded up to the micro-dollar.
    #[must_use]
    pub fn counted_usd(&self) -> Option<Usd> {
        let usd = self.usd?;
        let charged = self.verified_charge.map(|_| self.counted());
        let charged = charged.and_then(|units| pegged_dollars(units, self.decimals));
        Some(charged.map_or(usd, |charged| charged.min(usd)))
    }

    /// Returns the sum of the refunds in atomic units, at most the amount that counts.
    #[must_use]
    pub fn refunded(&self) -> U256 {
        let all = self
            .refunds
            .iter()
            .map(|refund| refund.value)
            .fold(U256::ZERO, U256::saturating_add);
        all.min(self.counted())
    }

    /// Returns whether the purchase counts against the limits at `now`. An unsigned hold counts
    /// until its lease ends.
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

    /// Returns whether the payment is held or unresolved at `now` and can still settle.
    #[must_use]
    pub fn is_outstanding(&self, now: Timestamp) -> bool {
        match self.state {
            State::Voided | State::ReleasedByProof | State::Settled | State::ApiCall => false,
            State::Reserved => self.lease_until > now,
            State::Signed | State::Rejected | State::Unresolved => self.expires_at > now,
        }
    }
}

/// Returns whether a purchase in this state failed; see [`Purchase::failed`].
pub(crate) const fn failed(state: State, status: Option<u16>) -> bool {
    match (state, status) {
        (State::Unresolved, None) => true,
        (State::Unresolved, Some(status)) => status >= 300 && !is_about_the_request(status),
        (State::Settled, Some(status)) => status >= 400,
        _ => false,
    }
}

/// Returns whether the status is an error about the request that the same request would meet again.
const fn is_about_the_request(status: u16) -> bool {
    matches!(status, 400..=499) && !matches!(status, 402 | 408 | 409 | 425 | 429)
}

/// A purchase that is not in the ledger yet.
#[derive(Clone, Debug)]
pub(crate) struct NewPurchase {
    pub(crate) id: PurchaseId,
    pub(crate) payer: Address,
    pub(crate) fingerprint: B256,
    pub(crate) identifier: String,
    pub(crate) origin: Origin,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) foreign_resource: Option<String>,
    pub(crate) version: u8,
    pub(crate) asset: Asset,
    /// `None` for a request with an API key.
    pub(crate) payment_method: Option<PaymentMethod>,
    pub(crate) payee: Address,
    pub(crate) value: U256,
    pub(crate) tag: Option<String>,
    pub(crate) agent: Option<String>,
    /// The name of the API key, for a request with one. Nothing will be signed.
    pub(crate) credential: Option<String>,
    pub(crate) terms: Option<String>,
}

impl NewPurchase {
    pub(crate) fn key(&self) -> PurchaseKey {
        PurchaseKey::new(self.payer, self.id.clone())
    }

    /// Returns whether an authorization for this purchase and one for `known` share a nonce, so
    /// that at most one of them can settle. The token and Permit2 keep different nonces.
    pub(crate) fn excludes(&self, known: &Purchase) -> bool {
        known.network == self.asset.network()
            && known.asset == self.asset.address()
            && !self.is_of_other_kind(known)
    }

    /// Returns whether the purchase was signed by a method whose nonces are not those of this one.
    pub(crate) fn is_of_other_kind(&self, known: &Purchase) -> bool {
        let methods = known.payment_method.zip(self.payment_method);
        methods.is_none_or(|(known, new)| !known.shares_nonces(new))
    }

    /// Returns the denial of changed terms that name another payee. A hijacked seller would do so.
    pub(crate) fn payee_changed(&self, known: &Purchase) -> Denial {
        let message = format!(
            "the purchase was signed for {}, and the new terms name {}",
            known.payee, self.payee
        );
        Denial::new(Rule::PayeeChanged, message)
    }

    /// Returns the purchase as it is first written: a hold, or a request with an API key.
    pub(crate) fn open(&self, generation: u32, now: Timestamp, lease_until: Timestamp) -> Purchase {
        let (state, counts_at, lease_until) = match self.credential {
            None => (State::Reserved, Timestamp::MAX, lease_until),
            Some(_) => (State::ApiCall, now, now),
        };
        Purchase {
            seq: 0,
            id: self.id.clone(),
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
            payment_method: self.payment_method,
            value: self.value,
            usd: self.asset.dollars(self.value),
            claimed_charge: None,
            verified_charge: None,
            nonce: nonce(self.payer, &self.asset, &self.id, generation),
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

    /// Returns the hold for a signed purchase whose seller changed its terms.
    ///
    /// At most one of its authorizations can settle, so the largest amount counts. The purchase may
    /// have left every window, so it counts again at least until the new lease ends, by any clock: the process that
    /// checks a limit may be ahead by [`CLOCK_BOUND`], and the process that signs under the lease may be behind by it.
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
            payment_method: self.payment_method,
            payee: self.payee,
            version: self.version,
            foreign_resource: self.foreign_resource.clone(),
            terms: self.terms.clone(),
            lease_until,
            presenter_lease_until: lease_until,
            counts_at: known.counts_at.max(lease_until),
            expires_at: known
                .expires_at
                .max(lease_until.after(CLOCK_BOUND).after(CLOCK_BOUND)),
            updated_at: now,
            ..known
        }
    }
}
