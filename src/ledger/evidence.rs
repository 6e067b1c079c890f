//! The evidence of one purchase, for a dispute. It contains no secret.

use alloy::primitives::{Address, B256, U256};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::{Ledger, LedgerError, Purchase, PurchaseId, PurchaseKey, Refund, SellerAnswer, State};
use crate::clock::Timestamp;
use crate::json_text::{hash, optional_hash, optional_number};
use crate::money::{Network, Usd};
use crate::x402::{PaymentMethod, Verification};

/// All facts about one purchase, to show to the seller, a facilitator or a court.
///
/// Serialize it as JSON. It contains no signature of the payer. It contains those of the seller that bursar verified.
#[derive(Debug, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are clear; the rest is documented")]
pub struct Evidence {
    pub purchase: PurchaseId,
    pub state: State,
    pub request: EvidenceRequest,
    /// The seller's offer and resource, as it sent them. Of terms beyond 4 KiB: `omitted`, with their
    /// length and their keccak256 hash.
    pub terms: Option<Box<RawValue>>,
    /// The result of checking the seller's signature on the offer. The signed offer is in `terms`.
    pub offer_signature: Verification,
    pub authorization: EvidenceAuthorization,
    /// The seller's last answer, which is its claim.
    pub answer: Option<SellerAnswer>,
    /// The result of checking the seller's signature on the receipt. The signed receipt is in `answer`.
    pub receipt_signature: Verification,
    /// The transaction that the seller claims.
    #[serde(with = "optional_hash")]
    pub claimed_transaction: Option<B256>,
    /// The transaction that the chain confirmed.
    #[serde(with = "optional_hash")]
    pub verified_transaction: Option<B256>,
    /// The charge of an `upto` payment that the seller claims, in atomic units.
    #[serde(serialize_with = "optional_number::serialize")]
    pub claimed_charge: Option<U256>,
    /// The charge that the chain confirmed, in atomic units.
    #[serde(serialize_with = "optional_number::serialize")]
    pub verified_charge: Option<U256>,
    /// The proof from the chain that the purchase was paid, or that it was not.
    pub chain_proof: Option<Value>,
    pub refunds: Vec<Refund>,
    /// The seller's URL for refund requests.
    pub refund_request: Option<String>,
}

/// The paid request, as part of [`Evidence`].
#[derive(Debug, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are clear; the rest is documented")]
pub struct EvidenceRequest {
    pub method: String,
    pub origin: String,
    /// The path, without the query unless the policy stores queries.
    pub path: String,
    /// The keccak256 hash of the method, a zero byte, the URL without its fragment, a zero byte, and
    /// the keccak256 hash of the body. Anyone who has the request can compute it.
    #[serde(with = "hash")]
    pub hash: B256,
    pub at: Timestamp,
}

/// The signed authorization without its signature, as part of [`Evidence`].
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of EIP-3009")]
pub struct EvidenceAuthorization {
    pub network: Network,
    #[serde(with = "hash")]
    pub asset: Address,
    #[serde(with = "hash")]
    pub from: Address,
    #[serde(with = "hash")]
    pub to: Address,
    /// The scheme and the transfer method. `None` for a request with an API key.
    pub method: Option<PaymentMethod>,
    /// The largest amount that was signed for the purchase, in atomic units. For `upto` it is the ceiling of the charge.
    pub value: String,
    pub usd: Option<Usd>,
    /// The latest expiry that was signed for the purchase, in Unix seconds.
    pub valid_before: Option<u64>,
    #[serde(with = "hash")]
    pub nonce: B256,
}

impl From<Purchase> for Evidence {
    fn from(purchase: Purchase) -> Self {
        Self {
            offer_signature: purchase.offer_signature(),
            receipt_signature: purchase.receipt_signature(),
            state: purchase.state,
            request: EvidenceRequest {
                method: purchase.method,
                origin: purchase.origin.to_string(),
                path: purchase.path,
                hash: purchase.fingerprint,
                at: purchase.reserved_at,
            },
            terms: purchase
                .terms
                .and_then(|terms| RawValue::from_string(terms).ok()),
            authorization: EvidenceAuthorization {
                network: purchase.network,
                asset: purchase.asset,
                from: purchase.payer,
                to: purchase.payee,
                method: purchase.payment_method,
                value: purchase.value.to_string(),
                usd: purchase.usd,
                valid_before: purchase.valid_before,
                nonce: purchase.nonce,
            },
            refund_request: purchase
                .answer
                .as_ref()
                .and_then(|answer| answer.refund_request.clone()),
            answer: purchase.answer,
            claimed_transaction: purchase.transaction,
            verified_transaction: purchase.verified_transaction,
            claimed_charge: purchase.claimed_charge,
            verified_charge: purchase.verified_charge,
            chain_proof: purchase
                .proof
                .and_then(|proof| serde_json::from_str(&proof).ok()),
            refunds: purchase.refunds,
            purchase: purchase.id,
        }
    }
}

impl Ledger {
    /// Returns the evidence of one purchase.
    ///
    /// # Errors
    /// Returns [`LedgerError::UnknownPurchase`] if the ledger does not have the purchase, and another
    /// error if the ledger cannot be read.
    ///
    /// ```no_run
    /// # async fn example(payment: &bursar::SignedPayment) -> Result<(), Box<dyn std::error::Error>> {
    /// use bursar::Ledger;
    /// use bursar::ledger::PurchaseKey;
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// let key = PurchaseKey::new(payment.payer, payment.purchase.clone());
    /// let evidence = ledger.evidence(&key).await?;
    /// println!("{}", serde_json::to_string_pretty(&evidence)?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn evidence(&self, purchase: &PurchaseKey) -> Result<Evidence, LedgerError> {
        let found = self.purchase(purchase).await?;
        let found = found.ok_or_else(|| LedgerError::UnknownPurchase(purchase.id.clone()))?;
        Ok(found.into())
    }
}
