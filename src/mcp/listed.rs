//! Prices in a server's list of tools.

use std::collections::HashSet;
use std::fmt;
use std::io;

use rmcp::model::{PaginatedRequestParams, Tool};
use rmcp::service::ServiceError;
use serde_json::{Value, json};

use super::call::failed;
use super::{ANSWER_TIMEOUT, PaidTools, unpaid};
use crate::error::{Error, ErrorKind};
use crate::money::{AssetRegistry, Usd};
use crate::policy::PriceCheck;
use crate::x402::PaymentRequired;

/// The most pages, tools and bytes of a list of tools.
const PAGES: usize = 100;
const TOOLS: usize = 5000;
const BYTES: usize = 8 * 1024 * 1024;

impl PaidTools {
    /// Returns the tools that the server lists, from all pages of its list.
    ///
    /// A list has at most 100 pages, 5,000 tools and 8 MiB. It must be complete within the time of
    /// [`timeout`](Self::timeout), otherwise of [`answer_timeout`](Self::answer_timeout), otherwise 60 seconds.
    ///
    /// # Errors
    /// Returns [`ErrorKind::Malformed`] if the list is longer or comes to a page again, [`ErrorKind::Timeout`] if it takes
    /// longer, [`ErrorKind::Rpc`] for the server's own error, and the error of the transport.
    pub async fn list_tools(&self) -> Result<Vec<Tool>, Error> {
        let limit = self
            .timeout
            .or(self.answer_timeout)
            .unwrap_or(ANSWER_TIMEOUT);
        let listed = tokio::time::timeout(limit, self.all_pages()).await;
        listed.unwrap_or_else(|_| {
            let message = format!(
                "the list of tools takes longer than {} s",
                limit.as_secs_f32()
            );
            Err(Error::new(ErrorKind::Timeout, message))
        })
    }

    async fn all_pages(&self) -> Result<Vec<Tool>, Error> {
        let too_long = |most: String| {
            let message = format!("the server lists more than {most}");
            Error::new(ErrorKind::Malformed, message)
        };
        let (mut tools, mut size) = (Vec::new(), Size::default());
        let (mut cursor, mut seen) = (None, HashSet::new());
        for _ in 0..PAGES {
            let asked = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.peer.list_tools(Some(asked)).await;
            let page = page.map_err(|error| match error {
                ServiceError::McpError(error) => Error::new(ErrorKind::Rpc, unpaid::words(&error)),
                error => failed(error),
            })?;
            tools.extend(page.tools);
            if tools.len() > TOOLS {
                return Err(too_long(format!("{TOOLS} tools")));
            }
            let new = tools.get(size.tools..).unwrap_or_default();
            if serde_json::to_writer(&mut size, new).is_err() || size.bytes > BYTES {
                return Err(too_long(format!("{BYTES} bytes of tools")));
            }
            size.tools = tools.len();
            let Some(next) = page.next_cursor else {
                return Ok(tools);
            };
            if !seen.insert(next.clone()) {
                let message = "the server's list of tools comes to the same page again";
                return Err(Error::new(ErrorKind::Malformed, message));
            }
            cursor = Some(next);
        }
        Err(too_long(format!("{PAGES} pages of tools")))
    }
}

/// The number of the tools and of their bytes so far.
#[derive(Default)]
struct Size {
    tools: usize,
    bytes: usize,
}

impl io::Write for Size {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes = self.bytes.saturating_add(part.len());
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
                let check = PriceCheck::without_policy(terms, AssetRegistry::stablecoins(), None);
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
