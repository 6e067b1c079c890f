//! What was paid, for what, and what the seller says became of it.

use alloy::primitives::{Address, B256};

use crate::Network;
use crate::asset::TokenAmount;
use crate::ledger::PurchaseId;
use crate::x402::{SettlementResponse, WireError};

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

    /// Returns the transaction, if the claim is a success that names one, and the network and the payer of the payment.
    fn matching_transaction(payment: &SignedPayment, claim: &SettlementResponse) -> Option<B256> {
        let network: Network = claim.network.parse().ok()?;
        let payer: Address = claim.payer.as_deref()?.parse().ok()?;
        let transaction: B256 = claim.transaction.strip_prefix("0x")?.parse().ok()?;
        let ours = claim.success && network == payment.network() && payer == payment.payer;
        ours.then_some(transaction)
    }
}

/// The receipt of an answer, compared with the signed payment.
#[derive(Debug)]
pub(crate) enum Claim {
    Matching(Box<Receipt>),
    /// A receipt that proves nothing: of a failure, or of another payment.
    Other(Box<SettlementResponse>),
    Malformed(WireError),
    Absent,
}

impl Claim {
    /// Compares the receipt that an answer carries, decoded, with the payment.
    pub(crate) fn of(
        payment: &SignedPayment,
        receipt: Option<Result<SettlementResponse, WireError>>,
    ) -> Self {
        match receipt {
            None => Self::Absent,
            Some(Err(error)) => Self::Malformed(error),
            Some(Ok(claim)) => match Receipt::matching_transaction(payment, &claim) {
                Some(transaction) => Self::Matching(Box::new(Receipt {
                    paid: payment.clone(),
                    transaction,
                    claim,
                })),
                None => Self::Other(Box::new(claim)),
            },
        }
    }

    pub(crate) const fn is_matching(&self) -> bool {
        matches!(self, Self::Matching(_))
    }

    /// Whether the seller sent the transaction and has not seen it included.
    pub(crate) fn is_pending(&self) -> bool {
        matches!(self, Self::Other(claim) if claim.is_pending())
    }
}
