//! What a dispute needs: everything about one purchase, and no secret.

use alloy::primitives::{Address, B256};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Payer;
use crate::json_text::{hash, optional_hash};
use crate::ledger::{
    Filter, Purchase, PurchaseId, PurchaseKey, Refund, SellerAnswer, State, Transition,
};
use crate::{Error, ErrorKind, Network, Timestamp, Usd};

/// Everything that the books know of one purchase, to be shown to the seller, a facilitator or a
/// court: serialise it. It holds no signature.
#[derive(Debug, Serialize)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the names say it; those that need a word have one"
)]
pub struct Evidence {
    pub purchase: PurchaseId,
    pub state: State,
    pub request: EvidenceRequest,
    /// What the seller asked for, in its own words, and what it named as the resource.
    pub terms: Option<Box<RawValue>>,
    pub authorization: EvidenceAuthorization,
    /// What the seller last answered: its claim.
    pub answer: Option<SellerAnswer>,
    /// The transaction that the seller claims.
    #[serde(with = "optional_hash")]
    pub claimed_transaction: Option<B256>,
    /// The transaction that the chain shows.
    #[serde(with = "optional_hash")]
    pub verified_transaction: Option<B256>,
    /// How that is known, or that nothing was paid.
    pub chain_proof: Option<Value>,
    pub refunds: Vec<Refund>,
    /// Where the seller takes requests for a refund.
    pub refund_request: Option<String>,
}

/// The request that was paid for.
#[derive(Debug, Serialize)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the names say it; those that need a word have one"
)]
pub struct EvidenceRequest {
    pub method: String,
    pub origin: String,
    /// Without the query, unless the policy stores queries.
    pub path: String,
    /// keccak256 over the method, a zero byte, the URL without its fragment, a zero byte, and the
    /// keccak256 of the body: whoever has the request can show that it is this one.
    #[serde(with = "hash")]
    pub hash: B256,
    pub at: Timestamp,
}

/// What was signed, without the signature.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are EIP-3009's")]
pub struct EvidenceAuthorization {
    pub network: Network,
    #[serde(with = "hash")]
    pub asset: Address,
    #[serde(with = "hash")]
    pub from: Address,
    #[serde(with = "hash")]
    pub to: Address,
    /// Atomic units: the largest that was signed for the purchase.
    pub value: String,
    pub usd: Option<Usd>,
    /// Unix seconds: the latest that was signed for the purchase.
    pub valid_before: Option<u64>,
    #[serde(with = "hash")]
    pub nonce: B256,
}

impl From<Purchase> for Evidence {
    fn from(entry: Purchase) -> Self {
        Self {
            state: entry.state,
            request: EvidenceRequest {
                method: entry.method,
                origin: entry.origin.to_string(),
                path: entry.path,
                hash: entry.fingerprint,
                at: entry.reserved_at,
            },
            terms: entry
                .terms
                .and_then(|terms| RawValue::from_string(terms).ok()),
            authorization: EvidenceAuthorization {
                network: entry.network,
                asset: entry.asset,
                from: entry.payer,
                to: entry.payee,
                value: entry.value.to_string(),
                usd: entry.usd,
                valid_before: entry.valid_before,
                nonce: entry.nonce,
            },
            refund_request: entry
                .answer
                .as_ref()
                .and_then(|answer| answer.refund_request.clone()),
            answer: entry.answer,
            claimed_transaction: entry.transaction,
            verified_transaction: entry.verified_transaction,
            chain_proof: entry
                .proof
                .and_then(|proof| serde_json::from_str(&proof).ok()),
            refunds: entry.refunds,
            purchase: entry.purchase,
        }
    }
}

impl Payer {
    /// Everything that the books know of one purchase.
    ///
    /// # Errors
    /// When the books hold no such purchase of this payer, or cannot be read.
    pub async fn evidence(&self, purchase: &PurchaseId) -> Result<Evidence, Error> {
        Ok(self.known(purchase).await?.into())
    }

    /// Books money that came back for a purchase: an entry of its own, once for each transaction,
    /// that makes room only if the [policy](crate::Policy::refunds_make_room) says so. `value` is in
    /// atomic units of the purchase's token.
    ///
    /// It is taken on your word: look at the transaction first.
    ///
    /// # Errors
    /// When the books hold no such purchase of this payer, nothing was signed for it, the transaction
    /// was booked before with another value or for another purchase, or the books cannot be written.
    pub async fn record_refund(
        &self,
        purchase: &PurchaseId,
        transaction: B256,
        value: alloy::primitives::U256,
    ) -> Result<(), Error> {
        let key = PurchaseKey::new(self.address(), purchase.clone());
        let booked = self.inner.ledger.purchases(&Filter::all()).await?;
        let elsewhere = booked
            .iter()
            .find(|entry| entry.key() != key && entry.was_refunded_by(transaction));
        if let Some(entry) = elsewhere {
            let message = format!(
                "the transaction is booked as a refund of purchase {}",
                entry.purchase
            );
            return Err(Error::new(ErrorKind::Purchase, message).naming(purchase));
        }
        let refund = Refund::new(transaction, value, self.now(), false);
        Ok(self
            .inner
            .ledger
            .record(&key, &Transition::Refunded(refund), self.now())
            .await?)
    }

    pub(super) async fn known(&self, purchase: &PurchaseId) -> Result<Purchase, Error> {
        let key = PurchaseKey::new(self.address(), purchase.clone());
        let unknown =
            || Error::new(ErrorKind::Purchase, "the books hold no such purchase").naming(purchase);
        self.inner.ledger.purchase(&key).await?.ok_or_else(unknown)
    }
}
