//! Signed payments and the receipts of sellers.

use alloy::primitives::{Address, B256, U256};

use super::unpayable::read_amount;
use super::{PaymentMethod, Scheme, SettlementResponse, Verification, WireError};
use crate::eip3009::PurchaseId;
use crate::money::{Network, TokenAmount};

/// The authorization that bursar signed for a purchase.
///
/// Get it from [`ResponseExt::payment`](crate::ResponseExt::payment) or
/// [`Error::payment`](crate::Error::payment).
///
/// ```no_run
/// # async fn example(client: bursar::Client) -> Result<(), bursar::Error> {
/// if let Err(error) = client.get("https://api.example.com/report").send().await {
///     if let Some(payment) = error.payment() {
///         println!("signed {} to {}", payment.amount, payment.pay_to);
///         println!("the seller can use it before {}", payment.valid_before);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SignedPayment {
    /// The id of the purchase.
    pub purchase: PurchaseId,
    /// The amount and its token. For `upto` it is the ceiling of the charge.
    pub amount: TokenAmount,
    /// The scheme and the transfer method.
    pub method: PaymentMethod,
    /// The address that pays.
    pub payer: Address,
    /// The address that is paid.
    pub pay_to: Address,
    /// The nonce. The token, or Permit2, accepts it once. Permit2 writes it as an unsigned integer.
    pub nonce: B256,
    /// The time before which the seller can use the authorization, in Unix seconds.
    pub valid_before: u64,
}

impl SignedPayment {
    /// Returns the chain.
    #[must_use]
    pub fn network(&self) -> Network {
        self.amount.asset().network()
    }

    /// Returns whether the amount is the ceiling of a charge that the seller chooses (`upto`).
    #[must_use]
    pub fn is_ceiling(&self) -> bool {
        self.method.scheme() == Scheme::Upto
    }
}

/// A seller's receipt that names a transaction and matches the signed payment.
///
/// The receipt is a claim of the seller. Nothing authenticates it. Call `reconcile` to compare it
/// with the chain.
///
/// ```no_run
/// use bursar::ResponseExt;
///
/// # async fn example(client: bursar::Client) -> Result<(), bursar::Error> {
/// let response = client.get("https://api.example.com/report").send().await?;
/// if let Some(receipt) = response.receipt() {
///     println!("paid {} in {} on {}", receipt.amount(), receipt.transaction(), receipt.network());
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Receipt {
    paid: SignedPayment,
    transaction: B256,
    charged: Option<U256>,
    claim: SettlementResponse,
    signature: Verification,
}

impl Receipt {
    /// Returns the amount that was signed: for `exact` the amount that was paid, for `upto` the ceiling of the
    /// [charge](Self::charged).
    #[must_use]
    pub const fn amount(&self) -> &TokenAmount {
        &self.paid.amount
    }

    /// Returns the amount that the seller says it charged. It is never above [`amount`](Self::amount).
    ///
    /// For `exact` it is the signed amount. For `upto` it is `None` if the receipt names no amount. The limits of the
    /// policy count the whole ceiling until the chain proves the charge.
    #[must_use]
    pub fn charged(&self) -> Option<TokenAmount> {
        let units = match self.paid.method.scheme() {
            Scheme::Exact => self.paid.amount.units(),
            Scheme::Upto => self.charged?,
        };
        Some(TokenAmount::from_units(
            self.paid.amount.asset().clone(),
            units,
        ))
    }

    /// Returns the charge of an `upto` payment in atomic units, as the ledger keeps it.
    pub(crate) const fn claimed_charge(&self) -> Option<U256> {
        self.charged
    }

    /// Returns the hash of the transaction that the seller names.
    #[must_use]
    pub const fn transaction(&self) -> B256 {
        self.transaction
    }

    /// Returns the chain of the transaction.
    #[must_use]
    pub fn network(&self) -> Network {
        self.paid.network()
    }

    /// Returns the signed payment.
    #[must_use]
    pub const fn payment(&self) -> &SignedPayment {
        &self.paid
    }

    /// Returns the decoded header.
    #[must_use]
    pub const fn claim(&self) -> &SettlementResponse {
        &self.claim
    }

    /// Returns the result of checking the seller's signature on the receipt.
    ///
    /// A receipt with a wrong signature, or without one, is as much a claim of the seller as every other. A verified one
    /// proves to others that the payee confirmed the sale.
    #[must_use]
    pub const fn signature(&self) -> &Verification {
        &self.signature
    }

    pub(crate) fn set_signature(&mut self, signature: Verification) {
        self.signature = signature;
    }

    /// Recreates the receipt of a purchase that the ledger records as settled.
    pub(crate) fn from_ledger(
        paid: &SignedPayment,
        transaction: B256,
        charged: Option<U256>,
        signature: Verification,
    ) -> Self {
        let claim = SettlementResponse {
            amount: charged.map(|units| units.to_string()),
            ..SettlementResponse::success(transaction, paid.network(), paid.payer)
        };
        Self {
            paid: paid.clone(),
            transaction,
            charged: charged.filter(|_| paid.is_ceiling()),
            claim,
            signature,
        }
    }

    /// Returns the transaction, if the claim is a success that names one.
    ///
    /// Sellers leave out the network and the payer, or write empty strings. A wrong network or payer is the receipt of
    /// another payment.
    fn matching_transaction(payment: &SignedPayment, claim: &SettlementResponse) -> Option<B256> {
        let is_network = |name: &str| name.parse() == Ok(payment.network());
        let is_payer = |payer: &str| payer.parse() == Ok(payment.payer);
        let payer = claim.payer.as_deref().unwrap_or_default();
        let ours = claim.success
            && (claim.network.is_empty() || is_network(&claim.network))
            && (payer.is_empty() || is_payer(payer));
        let hash = &claim.transaction;
        let transaction = hash.strip_prefix("0x").unwrap_or(hash).parse().ok()?;
        ours.then_some(transaction)
    }
}

/// A charge that the payment does not permit, or that is no integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WrongCharge;

/// Returns the charge that a receipt names for an `upto` payment. Sellers may leave it out.
pub(crate) fn charge(
    payment: &SignedPayment,
    claim: &SettlementResponse,
) -> Result<Option<U256>, WrongCharge> {
    let named = claim.amount.as_deref().filter(|_| payment.is_ceiling());
    let Some(named) = named else {
        return Ok(None);
    };
    read_amount(named)
        .ok()
        .filter(|units| *units <= payment.amount.units())
        .map(Some)
        .ok_or(WrongCharge)
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
            Some(Ok(claim)) => {
                let transaction = Receipt::matching_transaction(payment, &claim);
                match transaction.zip(charge(payment, &claim).ok()) {
                    Some((transaction, charged)) => Self::Matching(Box::new(Receipt {
                        paid: payment.clone(),
                        transaction,
                        charged,
                        claim,
                        signature: Verification::Absent,
                    })),
                    None => Self::Other(Box::new(claim)),
                }
            }
        }
    }

    /// Returns the decoded receipt, whether it matches the payment or not.
    pub(crate) fn settlement(&self) -> Option<&SettlementResponse> {
        match self {
            Self::Matching(receipt) => Some(receipt.claim()),
            Self::Other(claim) => Some(claim),
            Self::Malformed(_) | Self::Absent => None,
        }
    }

    pub(crate) const fn is_matching(&self) -> bool {
        matches!(self, Self::Matching(_))
    }

    /// Returns the receipt of a failure.
    pub(crate) fn failed(&self) -> Option<&SettlementResponse> {
        match self {
            Self::Other(claim) if !claim.success => Some(claim),
            _ => None,
        }
    }

    /// Whether the receipt leaves open that the payment settles.
    pub(crate) fn is_pending(&self) -> bool {
        self.failed().is_some_and(SettlementResponse::is_pending)
    }
}
