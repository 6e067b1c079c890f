//! The signed payment and the receipt in JSON, and amounts as text.

use std::fmt;

use bursar::ledger::State;
use bursar::primitives::U256;
use bursar::x402::{PaymentMethod, Verification};
use bursar::{Network, PaymentStatus, Purchase, SignedPayment};
use serde::{Serialize, Serializer};

/// The signed payment of a request: `authorization` in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Authorization {
    /// The ceiling of an `upto` payment.
    amount: String,
    /// `permit2` or `upto`. Absent for EIP-3009.
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    asset: String,
    network: String,
    pay_to: String,
    nonce: String,
    valid_before: u64,
    /// The payment as text, such as `0.01 USDC to 0x… on base`.
    #[serde(skip)]
    text: String,
    #[serde(skip)]
    tokens: Tokens,
}

/// An amount of a token.
#[derive(Clone, Debug)]
struct Tokens {
    units: U256,
    decimals: u8,
    symbol: String,
}

/// Sums of payments, one for each token.
#[derive(Debug, Default)]
pub(crate) struct Sums(Vec<Tokens>);

impl Sums {
    pub(crate) fn add(&mut self, payment: &Authorization) {
        let tokens = &payment.tokens;
        let same =
            |sum: &&mut Tokens| (&sum.symbol, sum.decimals) == (&tokens.symbol, tokens.decimals);
        match self.0.iter_mut().find(same) {
            Some(sum) => sum.units = sum.units.saturating_add(tokens.units),
            None => self.0.push(tokens.clone()),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("nothing");
        }
        let sums: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&sums.join(" and "))
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = usize::from(self.decimals);
        let digits = format!(
            "{:0>width$}",
            self.units.to_string(),
            width = decimals.saturating_add(1)
        );
        let (whole, fraction) = digits.split_at(digits.len().saturating_sub(decimals));
        match fraction.trim_end_matches('0') {
            "" => write!(f, "{whole} {}", self.symbol),
            fraction => write!(f, "{whole}.{fraction} {}", self.symbol),
        }
    }
}

impl From<&Purchase> for Tokens {
    fn from(purchase: &Purchase) -> Self {
        Self {
            units: purchase.value,
            decimals: purchase.decimals,
            symbol: purchase.symbol.clone(),
        }
    }
}

/// A receipt that matches the signed payment: `receipt` in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Receipt {
    success: bool,
    transaction: String,
    network: String,
    payer: String,
    /// The charge of an `upto` payment that the seller claims, in atomic units.
    #[serde(skip_serializing_if = "Option::is_none")]
    charged: Option<String>,
    /// The same for people.
    #[serde(skip)]
    charge: Option<String>,
    /// `verified`, `unverified` or `wrong`, if the seller signed the receipt.
    #[serde(skip_serializing_if = "Option::is_none")]
    signature: Option<&'static str>,
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

    /// Returns the claimed charge of an `upto` payment as text, such as `0.004 USDC`.
    pub(crate) fn charge(&self) -> Option<&str> {
        self.charge.as_deref()
    }

    /// Returns a remark about the seller's signature.
    pub(crate) fn remark(&self) -> &'static str {
        match self.signature {
            Some("verified") => ", signed by the payee",
            Some("wrong") => ", with a wrong signature",
            _ => "",
        }
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
            charged: purchase.claimed_charge.map(|units| units.to_string()),
            charge: charge(purchase),
            signature: signature_name(&purchase.receipt_signature()),
        })
    }
}

impl From<&SignedPayment> for Authorization {
    fn from(payment: &SignedPayment) -> Self {
        let pay_to = payment.pay_to.to_string();
        Self {
            text: text(&signed_amount(payment), &pay_to, payment.network()),
            method: method(Some(payment.method)),
            tokens: Tokens {
                units: payment.amount.units(),
                decimals: payment.amount.asset().decimals(),
                symbol: payment.amount.asset().symbol().to_owned(),
            },
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
            text: text(
                &up_to(amount(purchase), purchase.payment_method),
                &pay_to,
                purchase.network,
            ),
            method: method(purchase.payment_method),
            tokens: purchase.into(),
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
        let charge = receipt.charged().filter(|_| receipt.payment().is_ceiling());
        Self {
            success: true,
            transaction: receipt.transaction().to_string(),
            network: receipt.network().to_string(),
            payer: receipt.payment().payer.to_string(),
            charged: charge.as_ref().map(|amount| amount.units().to_string()),
            charge: charge.map(|amount| amount.to_string()),
            signature: signature_name(receipt.signature()),
        }
    }
}

/// Returns the name of the result of checking a seller's signature, if there is one.
pub(crate) fn signature_name(signature: &Verification) -> Option<&'static str> {
    Some(signature.name()).filter(|_| *signature != Verification::Absent)
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

/// Returns the amount that was signed for a purchase with the symbol of its token, such as `0.01 USDC`.
pub(crate) fn amount(purchase: &Purchase) -> String {
    Tokens::from(purchase).to_string()
}

/// Returns the amount of a purchase. Of an `upto` payment it is the ceiling, and the charge that the chain confirmed or the
/// seller claims.
pub(crate) fn described_amount(purchase: &Purchase) -> String {
    let amount = up_to(amount(purchase), purchase.payment_method);
    let charged = |units, verb: &str| {
        let tokens = Tokens {
            units,
            ..purchase.into()
        };
        format!("{amount}, {verb} {tokens}")
    };
    match (purchase.verified_charge, purchase.claimed_charge) {
        (Some(units), _) => charged(units, "charged"),
        (None, Some(units)) => charged(units, "said to charge"),
        (None, None) => amount,
    }
}

fn charge(purchase: &Purchase) -> Option<String> {
    let units = purchase.claimed_charge?;
    let tokens = Tokens {
        units,
        ..purchase.into()
    };
    Some(tokens.to_string())
}

/// Returns the name of a method other than the ordinary one.
pub(crate) fn method(method: Option<PaymentMethod>) -> Option<&'static str> {
    method
        .filter(|method| *method != PaymentMethod::Eip3009)
        .map(PaymentMethod::name)
}

/// Returns the amount of a signed payment, and says if it is a ceiling.
pub(crate) fn signed_amount(payment: &SignedPayment) -> String {
    up_to(payment.amount.to_string(), Some(payment.method))
}

/// Says that the amount of an `upto` payment is a ceiling.
pub(crate) fn up_to(amount: String, method: Option<PaymentMethod>) -> String {
    match method {
        Some(PaymentMethod::Upto) => format!("up to {amount}"),
        _ => amount,
    }
}
