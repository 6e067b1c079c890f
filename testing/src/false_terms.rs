//! Terms that are false in one way.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256, keccak256};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use crate::fault::names;
use crate::permit::FACILITATOR;
use bursar::x402::{PaymentMethod, Version};

/// The false part of a seller's terms. It changes every offer, unless its documentation says otherwise.
///
/// Use it in [`Fault::Terms`](crate::Fault::Terms), [`Fault::Requote`](crate::Fault::Requote) and
/// [`Fault::RequoteAfterSettle`](crate::Fault::RequoteAfterSettle).
///
/// The seller verifies payments against the false terms that it stated last. It settles a payment that matches them, if
/// the simulated chain accepts it. [`Paywall::settlements`](crate::Paywall::settlements) shows how much the buyer paid.
///
/// ```
/// use bursar::{Client, ErrorKind, LocalSigner, Ledger, Policy, usd};
/// use bursar_testing::{FalseTerms, Fault, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // The seller asks for a thousand times the price.
/// let overcharge = Fault::Terms(FalseTerms::Price(1_000));
/// let route = Route::get("/report").price(usd!("0.01")).fault(overcharge);
/// let seller = Paywall::builder().route(route).start().await?;
///
/// let client = Client::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia").per_payment(usd!("0.05")))
///     .ledger(Ledger::memory())
///     .allow_http_loopback(true)
///     .build()?;
/// let error = client.get(seller.url("/report")).send().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Denied);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FalseTerms {
    // Price.
    /// Multiplies the price by this number.
    Price(u32),
    /// Puts an offer before the honest one, with the price multiplied by this number.
    ExpensiveFirst(u32),
    /// Raises the price by this percentage of the first price, with every statement after the first.
    RisingPrice(u32),
    /// Replaces the amount by this JSON, such as `"01000"` with its quotation marks, or `1e3`.
    Amount(String),
    /// Names the price twice, as `amount` and as `maxAmountRequired`.
    TwoAmounts,
    /// Names the amount twice under the same key: first 1, then the price.
    DuplicateAmount,
    /// Multiplies the price by this number in the body (version 1), but not in the header (version 2).
    ExpensiveBody(u32),

    // Payee.
    /// Names another payee.
    PayTo(Address),
    /// Names a payee by a text that may be no address.
    PayToText(String),
    /// Names a new payee with every statement.
    ChangingPayTo,

    // Token, chain and scheme.
    /// Names the contract of another token. Keeps the name and version of the honest token.
    Token(Address),
    /// Names another network. Keeps the address of the token. Write the network as the x402 version does.
    Network(String),
    /// Names another EIP-712 domain of the token.
    Domain {
        /// The name.
        name: String,
        /// The version.
        version: String,
    },
    /// Names another scheme instead of `exact`.
    Scheme(String),
    /// Names a transfer method, such as `permit2`, in `exact` offers.
    TransferMethod(String),
    /// Asks for another method of payment: changes scheme, transfer method and facilitator.
    Method(PaymentMethod),
    /// Names this facilitator, by a text that may be no address. Offers of `exact` name none.
    Facilitator(String),
    /// Names no facilitator.
    NoFacilitator,
    /// Names a payment flow, such as `upfront`.
    PaymentFlow(String),

    // Time.
    /// Replaces `maxTimeoutSeconds` by this JSON.
    MaxTimeout(String),

    // Everything around the offers.
    /// Names this URL as the resource for sale.
    Resource(Url),
    /// Sends this text as error and as description.
    Text(String),
    /// Puts this many offers with unknown schemes before the honest ones.
    ManyOffers(usize),
    /// States an empty list of offers.
    NoOffers,
    /// Nests this many lists in `extra`.
    DeepNesting(usize),
    /// Requires an extension that no buyer knows.
    UnknownExtension,
    /// Requires a payment identifier, and has set it already to this text.
    PresetIdentifier(String),
    /// Replaces `x402Version` by this JSON.
    ProtocolVersion(String),
}

names!(FalseTerms:
    Price, ExpensiveFirst, RisingPrice, Amount, TwoAmounts, DuplicateAmount, ExpensiveBody, PayTo, PayToText,
    ChangingPayTo, Token, Network, Domain, Scheme, TransferMethod, Method, Facilitator, NoFacilitator,
    PaymentFlow, MaxTimeout, Resource, Text, ManyOffers,
    NoOffers, DeepNesting, UnknownExtension, PresetIdentifier, ProtocolVersion,
);

const METHOD_FIELD: &str = "assetTransferMethod";
const FACILITATOR_FIELD: &str = "facilitatorAddress";

type Offer = Box<RawValue>;
type Fields = BTreeMap<String, Offer>;

impl FalseTerms {
    /// Returns the false offers of a statement. Statements are numbered from 0. An offer that this cannot change stays
    /// as it is.
    pub(crate) fn apply(&self, offers: Vec<Offer>, version: Version, statement: u32) -> Vec<Offer> {
        match self {
            Self::ExpensiveBody(times) if version == Version::V1 => offers
                .iter()
                .filter_map(|offer| multiply(offer, *times, 1))
                .collect(),
            Self::NoOffers => Vec::new(),
            Self::ExpensiveFirst(times) => offers
                .iter()
                .filter_map(|offer| multiply(offer, *times, 1))
                .chain(offers.clone())
                .collect(),
            Self::ManyOffers(count) => {
                let junk = (0..*count).filter_map(|number| {
                    to_raw_value(&json!({ "scheme": format!("junk-{number}") })).ok()
                });
                junk.chain(offers).collect()
            }
            _ => offers
                .into_iter()
                .map(|offer| self.falsify(&offer, statement).unwrap_or(offer))
                .collect(),
        }
    }

    /// Returns the false version of one offer, or `None` if this does not change it.
    fn falsify(&self, offer: &RawValue, statement: u32) -> Option<Offer> {
        match self {
            Self::Price(times) => multiply(offer, *times, 1),
            Self::RisingPrice(percent) => multiply(
                offer,
                percent.saturating_mul(statement).saturating_add(100),
                100,
            ),
            Self::Amount(json) => with(offer, amount_field(offer)?, json),
            Self::TwoAmounts => {
                let amount = fields(offer)?.remove(amount_field(offer)?)?;
                with(
                    &with(offer, "amount", amount.get())?,
                    "maxAmountRequired",
                    amount.get(),
                )
            }
            Self::DuplicateAmount => duplicate(offer, amount_field(offer)?),
            Self::PayTo(payee) => with_text(offer, "payTo", &payee.to_checksum(None)),
            Self::PayToText(payee) => with_text(offer, "payTo", payee),
            Self::ChangingPayTo => with_text(offer, "payTo", &payee(statement).to_checksum(None)),
            Self::Token(contract) => with_text(offer, "asset", &contract.to_checksum(None)),
            Self::Network(network) => with_text(offer, "network", network),
            Self::Domain { name, version } => {
                with_extra(&with_extra(offer, "name", name)?, "version", version)
            }
            Self::Scheme(scheme) => with_text(offer, "scheme", scheme),
            Self::TransferMethod(method) => with_extra(offer, METHOD_FIELD, method),
            Self::Method(method) => with_method(offer, *method),
            Self::Facilitator(facilitator) => with_extra(offer, FACILITATOR_FIELD, facilitator),
            Self::NoFacilitator => without_extra(offer, FACILITATOR_FIELD),
            Self::PaymentFlow(flow) => with_extra(offer, "paymentFlow", flow),
            Self::MaxTimeout(json) => with(offer, "maxTimeoutSeconds", json),
            Self::DeepNesting(depth) => {
                let nest = ["[".repeat(*depth), "]".repeat(*depth)].concat();
                let extra = with(&fields(offer)?.remove("extra")?, "nest", &nest)?;
                with(offer, "extra", extra.get())
            }
            // Version 1 describes the resource in its offers.
            Self::Resource(url) if is_described(offer) => {
                with_text(offer, "resource", url.as_str())
            }
            Self::Text(text) if is_described(offer) => with_text(offer, "description", text),
            _ => None,
        }
    }
}

/// Returns the payee of a statement. Every statement has another.
fn payee(statement: u32) -> Address {
    Address::from_word(keccak256(statement.to_be_bytes()))
}

fn fields(offer: &RawValue) -> Option<Fields> {
    serde_json::from_str(offer.get()).ok()
}

fn is_described(offer: &RawValue) -> bool {
    fields(offer).is_some_and(|fields| fields.contains_key("description"))
}

/// Returns the name of the offer's amount field, which depends on the x402 version.
fn amount_field(offer: &RawValue) -> Option<&'static str> {
    let fields = fields(offer)?;
    ["amount", "maxAmountRequired"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
}

/// Returns the offer with a field set to this JSON.
fn with(offer: &RawValue, field: &str, json: &str) -> Option<Offer> {
    let mut fields = fields(offer)?;
    fields.insert(
        field.to_owned(),
        RawValue::from_string(json.to_owned()).ok()?,
    );
    to_raw_value(&fields).ok()
}

fn with_text(offer: &RawValue, field: &str, text: &str) -> Option<Offer> {
    with(offer, field, &serde_json::to_string(text).ok()?)
}

fn with_extra(offer: &RawValue, field: &str, text: &str) -> Option<Offer> {
    let extra = with_text(&fields(offer)?.remove("extra")?, field, text)?;
    with(offer, "extra", extra.get())
}

fn without_extra(offer: &RawValue, field: &str) -> Option<Offer> {
    let mut extra = fields(&fields(offer)?.remove("extra")?)?;
    extra.remove(field);
    let extra = to_raw_value(&extra).ok()?;
    with(offer, "extra", extra.get())
}

/// Returns the offer for another method of payment.
fn with_method(offer: &RawValue, method: PaymentMethod) -> Option<Offer> {
    let offer = with_text(offer, "scheme", method.scheme().name())?;
    let offer = without_extra(&offer, FACILITATOR_FIELD)?;
    match method {
        PaymentMethod::Permit2 => with_extra(&offer, METHOD_FIELD, "permit2"),
        PaymentMethod::Upto => {
            let offer = with_extra(&offer, METHOD_FIELD, "permit2")?;
            with_extra(&offer, FACILITATOR_FIELD, &FACILITATOR.to_checksum(None))
        }
        _ => without_extra(&offer, METHOD_FIELD),
    }
}

/// Returns the offer with a duplicate field: first `"1"`, then its value.
fn duplicate(offer: &RawValue, field: &str) -> Option<Offer> {
    let rest = offer.get().strip_prefix('{')?;
    RawValue::from_string(format!(r#"{{"{field}":"1",{rest}"#)).ok()
}

/// Returns the offer with its price multiplied by `times / by`, or `None` if its price cannot be read.
pub(crate) fn multiply(offer: &RawValue, times: u32, by: u32) -> Option<Offer> {
    let field = amount_field(offer)?;
    let amount: String = serde_json::from_str(fields(offer)?.get(field)?.get()).ok()?;
    let units = U256::from_str_radix(&amount, 10)
        .ok()?
        .checked_mul(U256::from(times))?
        .checked_div(U256::from(by))?;
    with_text(offer, field, &units.to_string())
}
