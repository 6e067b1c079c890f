//! Prices in a server's list of tools.

use std::fmt;

use rmcp::model::Tool;
use serde_json::{Value, json};

use super::unpaid;
use crate::money::{AssetRegistry, Usd};
use crate::policy::PriceCheck;
use crate::x402::PaymentRequired;

/// The price of a tool in the server's list. It is advertising: the server names the real price when you call the tool.
///
/// ```
/// use bursar::mcp::listed_price;
/// use rmcp::model::Tool;
/// use serde_json::json;
///
/// let tool: Tool = serde_json::from_value(json!({
///     "name": "square",
///     "inputSchema": { "type": "object" },
///     "_meta": { "agents-x402/paymentRequired": true, "agents-x402/priceUSD": 0.01 },
/// }))?;
/// assert_eq!(listed_price(&tool).to_string(), "0.01 USD");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ListedPrice {
    /// The terms of the tool. [`Quote::read`](crate::x402::Quote::read) verifies an offer.
    Terms(Box<PaymentRequired>),
    /// A price in dollars.
    Usd(Usd),
    /// The tool costs money, and the list does not say how much.
    Paid,
    /// The list says that the tool costs nothing.
    Free,
    /// The list says nothing. The tool may cost money all the same.
    Unknown,
}

impl fmt::Display for ListedPrice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terms(terms) => {
                let terms = PaymentRequired::clone(terms);
                let check = PriceCheck::without_policy(terms, AssetRegistry::stablecoins());
                match check.preferred() {
                    Some(quote) => write!(f, "{}", quote.amount()),
                    None => f.write_str("not payable"),
                }
            }
            Self::Usd(price) => write!(f, "{price} USD"),
            Self::Free => f.write_str("free"),
            Self::Paid | Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// Returns the price that a server lists for a tool, in the tool's `_meta`. It calls nothing.
#[must_use]
pub fn listed_price(tool: &Tool) -> ListedPrice {
    let members = tool.meta.iter().flat_map(|meta| &meta.0);
    // A member such as `agents-x402/priceUSD`, or one inside the member `x402`.
    let mut named = Vec::new();
    for (key, value) in members {
        let inner = value.as_object().filter(|_| key.contains("x402"));
        named.extend(
            inner
                .into_iter()
                .flatten()
                .map(|(key, value)| (name(key), value)),
        );
        named.push((name(key), value));
        if key.contains("x402")
            && let Some(terms) = unpaid::offered(&json!({ "x402": value, "accepts": value }))
            && let Ok(terms) = unpaid::read(&terms)
        {
            return ListedPrice::Terms(Box::new(terms));
        }
    }
    let find = |names: &[&str]| {
        let mut found = named
            .iter()
            .filter(|(name, _)| names.contains(&name.as_str()));
        found.find_map(|(_, value)| dollars(value))
    };
    let required = named.iter().find_map(|(name, value)| {
        (name == "paymentrequired")
            .then(|| value.as_bool())
            .flatten()
    });
    match (find(&["priceusd", "usd", "price"]), required) {
        (Some(Usd::ZERO), _) | (None, Some(false)) => ListedPrice::Free,
        (Some(price), _) => ListedPrice::Usd(price),
        (None, Some(true)) => ListedPrice::Paid,
        (None, None) => ListedPrice::Unknown,
    }
}

/// Returns the last part of a key, in lower case and without punctuation.
fn name(key: &str) -> String {
    let last = key.rsplit(['/', '.']).next().unwrap_or(key);
    last.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|character| character.to_ascii_lowercase())
        .collect()
}

/// Reads dollars from a number, from a text such as `$0.01`, or from an object around one.
fn dollars(value: &Value) -> Option<Usd> {
    match value {
        Value::Number(number) => match number.to_string().parse() {
            Ok(price) => Some(price),
            // A small number such as `1e-5`.
            Err(_) => format!("{:.6}", number.as_f64()?).parse().ok(),
        },
        Value::String(text) => text
            .trim()
            .trim_start_matches('$')
            .trim_end_matches("USD")
            .trim()
            .parse()
            .ok(),
        Value::Object(members) => {
            // The amount of an offer is in units of its token, and has no currency.
            let in_usd = members.get("currency").and_then(Value::as_str) == Some("USD");
            let names = if in_usd {
                ["amount", "value", "price"]
            } else {
                ["usd", "priceUSD", "priceUsd"]
            };
            let price = names.iter().find_map(|name| members.get(*name));
            price.filter(|price| !price.is_object()).and_then(dollars)
        }
        _ => None,
    }
}
