//! What was paid, for what, and what the seller says became of it.

use alloy::primitives::{Address, B256};
use http::HeaderMap;

use super::SettlementResponse;
use crate::eip3009::PurchaseId;
use crate::money::{Network, TokenAmount};

/// The authorization that was signed for a purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedPayment {
    /// The purchase.
    pub purchase: PurchaseId,
    /// Token and amount.
    pub amount: TokenAmount,
    /// Who pays.
    pub payer: Address,
    /// Who is paid.
    pub pay_to: Address,
    /// The nonce that the token accepts once.
    pub nonce: B256,
    /// Unix seconds before which it can be cashed.
    pub valid_before: u64,
}

impl SignedPayment {
    /// The chain.
    #[must_use]
    pub fn network(&self) -> Network {
        self.amount.asset().network()
    }
}

/// A seller's receipt that names a transaction and matches what was signed.
///
/// It is the seller's claim: nothing authenticates the header, and only the chain can confirm the
/// transaction.
#[derive(Clone, Debug)]
pub struct Receipt {
    paid: SignedPayment,
    transaction: B256,
    claim: SettlementResponse,
}

impl Receipt {
    /// What was paid.
    #[must_use]
    pub const fn amount(&self) -> &TokenAmount {
        &self.paid.amount
    }

    /// Hash of the transaction that the seller names.
    #[must_use]
    pub const fn transaction(&self) -> B256 {
        self.transaction
    }

    /// The chain of the transaction.
    #[must_use]
    pub fn network(&self) -> Network {
        self.paid.network()
    }

    /// The authorization that was signed.
    #[must_use]
    pub const fn payment(&self) -> &SignedPayment {
        &self.paid
    }

    /// The decoded header.
    #[must_use]
    pub const fn claim(&self) -> &SettlementResponse {
        &self.claim
    }

    /// The receipt of a purchase that was settled before, as the books hold it.
    pub(crate) fn from_books(paid: &SignedPayment, transaction: B256) -> Self {
        let claim = SettlementResponse::success(transaction, paid.network(), paid.payer);
        Self {
            paid: paid.clone(),
            transaction,
            claim,
        }
    }

    /// The receipt, if the claim is a success that names a transaction, our network and our payer.
    pub(crate) fn matching(paid: &SignedPayment, claim: &SettlementResponse) -> Option<Self> {
        let network: Network = claim.network.parse().ok()?;
        let payer: Address = claim.payer.as_deref()?.parse().ok()?;
        let transaction: B256 = claim.transaction.strip_prefix("0x")?.parse().ok()?;
        let ours = claim.success && network == paid.network() && payer == paid.payer;
        ours.then(|| Self {
            paid: paid.clone(),
            transaction,
            claim: claim.clone(),
        })
    }
}

/// What a response's headers say about a payment.
#[derive(Debug)]
pub(crate) enum Claim {
    Matching(Box<Receipt>),
    /// A receipt that proves nothing: a failure, or not about our payment.
    Other(SettlementResponse),
    Malformed(String),
    Absent,
}

impl Claim {
    pub(crate) fn read(paid: &SignedPayment, headers: &HeaderMap) -> Self {
        match SettlementResponse::from_headers(headers) {
            None => Self::Absent,
            Some(Err(error)) => Self::Malformed(error.to_string()),
            Some(Ok(claim)) => match Receipt::matching(paid, &claim) {
                Some(receipt) => Self::Matching(Box::new(receipt)),
                None => Self::Other(claim),
            },
        }
    }
}
