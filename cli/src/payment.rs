//! The signed payment and the receipt in JSON, and amounts as text.

use bursar::ledger::State;
use bursar::{Network, PaymentStatus, Purchase, SignedPayment};
use serde::{Serialize, Serializer};

/// The signed payment of a request: `authorization` in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Authorization {
    amount: String,
    asset: String,
    network: String,
    pay_to: String,
    nonce: String,
    valid_before: u64,
    /// The payment as text, such as `0.01 USDC to 0x… on base`.
    #[serde(skip)]
    text: String,
}

/// A receipt that matches the signed payment: `receipt` in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    success: bool,
    transaction: String,
    network: String,
    payer: String,
}

impl Authorization {
    /// Returns the payment as text, such as `0.01 USDC to 0x… on base`.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl Receipt {
    /// Returns the hash of the transaction.
    pub(crate) fn transaction(&self) -> &str {
        &self.transaction
    }

    /// Returns the receipt of a settled purchase in the ledger.
    pub(crate) fn of_purchase(purchase: &Purchase) -> Option<Self> {
        let transaction = purchase
            .transaction
            .filter(|_| purchase.state == State::Settled)?;
        Some(Self {
            success: true,
            transaction: transaction.to_string(),
            network: purchase.network.to_string(),
            payer: purchase.payer.to_string(),
        })
    }
}

impl From<&SignedPayment> for Authorization {
    fn from(payment: &SignedPayment) -> Self {
        let pay_to = payment.pay_to.to_string();
        Self {
            text: text(&payment.amount.to_string(), &pay_to, payment.network()),
            amount: payment.amount.units().to_string(),
            asset: payment.amount.asset().address().to_string(),
            network: payment.network().to_string(),
            pay_to,
            nonce: payment.nonce.to_string(),
            valid_before: payment.valid_before,
        }
    }
}

impl From<&Purchase> for Authorization {
    fn from(purchase: &Purchase) -> Self {
        let pay_to = purchase.payee.to_string();
        Self {
            text: text(&amount(purchase), &pay_to, purchase.network),
            amount: purchase.value.to_string(),
            asset: purchase.asset.to_string(),
            network: purchase.network.to_string(),
            pay_to,
            nonce: purchase.nonce.to_string(),
            valid_before: purchase.valid_before.unwrap_or(0),
        }
    }
}

impl From<&bursar::Receipt> for Receipt {
    fn from(receipt: &bursar::Receipt) -> Self {
        Self {
            success: true,
            transaction: receipt.transaction().to_string(),
            network: receipt.network().to_string(),
            payer: receipt.payment().payer.to_string(),
        }
    }
}

/// Serializes a payment status as its stable name.
pub(crate) fn status_name<S: Serializer>(
    status: &PaymentStatus,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.name())
}

/// Returns the first words of a message: a person reads the payment status first.
pub(crate) const fn prefix(payment: PaymentStatus) -> &'static str {
    match payment {
        PaymentStatus::NotPaid => "not paid",
        PaymentStatus::MaybePaid => "may be paid",
        PaymentStatus::Paid => "paid",
    }
}

fn text(amount: &str, pay_to: &str, network: Network) -> String {
    format!("{amount} to {pay_to} on {}", network_name(network))
}

/// Returns the name of a network such as `base`, or its CAIP-2 identifier if it has no name.
pub(crate) fn network_name(network: Network) -> String {
    network
        .name()
        .map_or_else(|| network.to_string(), ToOwned::to_owned)
}

/// Returns the amount of a purchase with the symbol of its token, such as `0.01 USDC`.
pub(crate) fn amount(purchase: &Purchase) -> String {
    let decimals = usize::from(purchase.decimals);
    let digits = format!(
        "{:0>width$}",
        purchase.value.to_string(),
        width = decimals.saturating_add(1)
    );
    let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
    match fraction.trim_end_matches('0') {
        "" => format!("{whole} {}", purchase.symbol),
        fraction => format!("{whole}.{fraction} {}", purchase.symbol),
    }
}
