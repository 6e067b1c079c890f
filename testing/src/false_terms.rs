//! What terms lie about.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256, keccak256};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};
use url::Url;

use super::fault::names;
use bursar::x402::Version;

/// What a seller's terms lie about: told of every offer, unless it says otherwise.
///
/// The seller stands by its terms as it stated them last. A payment that takes up a lie is verified
/// like any other, and settled if the chain would: what the buyer lost shows in
/// [`Paywall::settlements`](super::Paywall::settlements).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lie {
    // Price.
    /// Asks so many times the price.
    Price(u32),
    /// Puts an offer at so many times the price before the honest one.
    DearFirst(u32),
    /// Asks so many percent of the price more with every statement after the first.
    CreepingPrice(u32),
    /// The amount, as JSON: `"01000"` or `1e3`, with the quotation marks if it is to have any.
    Amount(String),
    /// Names the price both as `amount` and as `maxAmountRequired`.
    TwoAmounts,
    /// Names the amount twice under one key: first 1, then the price.
    AmountTwice,
    /// States version 1's terms in the body at so many times the price that version 2's header has.
    DearBody(u32),

    // Payee.
    /// Has another paid.
    PayTo(Address),
    /// Has another paid, in text that need not be an address.
    PayToText(String),
    /// Has a new payee with every statement.
    PayToChanges,

    // Token, chain and scheme.
    /// Names another token's contract, and keeps the honest token's name and version.
    Token(Address),
    /// Names another network, in its version's spelling, and keeps the token's address.
    Network(String),
    /// Names another EIP-712 domain for the token.
    Domain {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
    /// Names another scheme than `exact`.
    Scheme(String),
    /// Names a transfer method, such as `permit2`, which needs an unlimited approval.
    TransferMethod(String),
    /// Names a payment flow.
    Flow(String),

    // Time.
    /// `maxTimeoutSeconds`, as JSON.
    MaxTimeout(String),

    // Everything around the offers.
    /// Says that it sells this URL.
    Resource(Url),
    /// Says this as error and description.
    Words(String),
    /// Puts so many offers that nobody can pay before the honest ones.
    ManyOffers(usize),
    /// Offers nothing.
    NoOffers,
    /// Nests lists so deep in `extra`.
    Nested(usize),
    /// Requires an extension that nobody knows.
    Extension,
    /// Asks for a payment identifier, and fills it in beforehand.
    Identifier(String),
    /// Speaks another version: `x402Version` as JSON.
    Protocol(String),
}

names!(Lie:
    Price, DearFirst, CreepingPrice, Amount, TwoAmounts, AmountTwice, DearBody, PayTo, PayToText, PayToChanges, Token,
    Network, Domain, Scheme, TransferMethod, Flow, MaxTimeout, Resource, Words, ManyOffers, NoOffers, Nested,
    Extension, Identifier, Protocol,
);

type Offer = Box<RawValue>;
type Fields = BTreeMap<String, Offer>;

impl Lie {
    /// The offers as they are told, in the statement of this number, from 0. One that cannot be
    /// changed so stays as it is.
    pub(super) fn emit(&self, offers: Vec<Offer>, version: Version, statement: u32) -> Vec<Offer> {
        match self {
            Self::DearBody(times) if version == Version::V1 => offers
                .iter()
                .filter_map(|offer| multiply(offer, *times, 1))
                .collect(),
            Self::NoOffers => Vec::new(),
            Self::DearFirst(times) => offers
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
                .map(|offer| self.retell(&offer, statement).unwrap_or(offer))
                .collect(),
        }
    }

    fn retell(&self, offer: &RawValue, statement: u32) -> Option<Offer> {
        match self {
            Self::Price(times) => multiply(offer, *times, 1),
            Self::CreepingPrice(percent) => multiply(
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
            Self::AmountTwice => twice(offer, amount_field(offer)?),
            Self::PayTo(payee) => with_text(offer, "payTo", &payee.to_checksum(None)),
            Self::PayToText(payee) => with_text(offer, "payTo", payee),
            Self::PayToChanges => with_text(offer, "payTo", &payee(statement).to_checksum(None)),
            Self::Token(contract) => with_text(offer, "asset", &contract.to_checksum(None)),
            Self::Network(network) => with_text(offer, "network", network),
            Self::Domain { name, version } => {
                with_extra(&with_extra(offer, "name", name)?, "version", version)
            }
            Self::Scheme(scheme) => with_text(offer, "scheme", scheme),
            Self::TransferMethod(method) => with_extra(offer, "assetTransferMethod", method),
            Self::Flow(flow) => with_extra(offer, "paymentFlow", flow),
            Self::MaxTimeout(json) => with(offer, "maxTimeoutSeconds", json),
            Self::Nested(depth) => {
                let nest = ["[".repeat(*depth), "]".repeat(*depth)].concat();
                let extra = with(&fields(offer)?.remove("extra")?, "nest", &nest)?;
                with(offer, "extra", extra.get())
            }
            // Version 1 describes the resource in its offers.
            Self::Resource(url) if is_described(offer) => {
                with_text(offer, "resource", url.as_str())
            }
            Self::Words(words) if is_described(offer) => with_text(offer, "description", words),
            _ => None,
        }
    }
}

/// The payee of a statement, like nobody else.
fn payee(statement: u32) -> Address {
    Address::from_word(keccak256(statement.to_be_bytes()))
}

fn fields(offer: &RawValue) -> Option<Fields> {
    serde_json::from_str(offer.get()).ok()
}

fn is_described(offer: &RawValue) -> bool {
    fields(offer).is_some_and(|fields| fields.contains_key("description"))
}

/// What the offer's version calls the price.
fn amount_field(offer: &RawValue) -> Option<&'static str> {
    let fields = fields(offer)?;
    ["amount", "maxAmountRequired"]
        .into_iter()
        .find(|name| fields.contains_key(*name))
}

/// The offer with a field that says this JSON.
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

/// The offer with a field under one key twice: first `"1"`, then as it was.
fn twice(offer: &RawValue, field: &str) -> Option<Offer> {
    let rest = offer.get().strip_prefix('{')?;
    RawValue::from_string(format!(r#"{{"{field}":"1",{rest}"#)).ok()
}

/// The offer at another price; `None` where its price cannot be read.
pub(super) fn multiply(offer: &RawValue, times: u32, by: u32) -> Option<Offer> {
    let field = amount_field(offer)?;
    let amount: String = serde_json::from_str(fields(offer)?.get(field)?.get()).ok()?;
    let units = U256::from_str_radix(&amount, 10)
        .ok()?
        .checked_mul(U256::from(times))?
        .checked_div(U256::from(by))?;
    with_text(offer, field, &units.to_string())
}
