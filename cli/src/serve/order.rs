//! What an agent asks for: checked here, before anything is sent.

use std::collections::BTreeMap;

use bursar::reqwest::Method;
use bursar::reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use bursar::{Client, PurchaseId, RequestBuilder, Url, Usd};
use rmcp::schemars;
use serde::Deserialize;

use crate::request::AGENT;

/// Headers that speak of the connection or of the message's framing, or that bursar sets itself.
const OWN: [&str; 11] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Payments, and what belongs to proxies and browsers.
const FAMILIES: [&str; 5] = ["payment-", "x-payment", "proxy-", "sec-", "x-forwarded-"];
/// The most headers, and the most bytes of their names and values.
const MOST_HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 * 1024;
/// The longest tag, in bytes.
const TAG: usize = 128;

/// The arguments of `pay`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Pay {
    /// The URL to fetch, https.
    pub(super) url: String,
    /// The HTTP method; GET if absent, or POST if there is a body.
    #[serde(default)]
    pub(super) method: Option<Verb>,
    /// Request headers by name. Payment headers and those of the connection, such as Host, are refused.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// The request's body, as text. Sent as application/json unless the header Content-Type says otherwise.
    #[serde(default)]
    pub(super) body: Option<String>,
    /// The most to pay for this request, in dollars as a decimal string such as "0.05". It can lower the policy's
    /// limits, never raise them.
    #[serde(default)]
    pub(super) max_price: Option<String>,
    /// Your own id of this purchase, 1 to 128 printable ASCII characters. All calls with the same id are one purchase,
    /// paid once. Give the id of an earlier result, with the same request, to ask for its outcome again.
    #[serde(default)]
    pub(super) purchase_id: Option<String>,
    /// A label to book the payment under.
    #[serde(default)]
    pub(super) tag: Option<String>,
    /// True to buy again while an identical request is unresolved. Otherwise its payment is presented again and
    /// nothing new is paid.
    #[serde(default)]
    pub(super) allow_duplicate: bool,
}

/// The arguments of `quote`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Quote {
    /// The URL to ask the price of, https.
    url: String,
    /// The HTTP method; GET if absent, or POST if there is a body.
    #[serde(default)]
    method: Option<Verb>,
    /// Request headers by name. Payment headers and those of the connection, such as Host, are refused.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The request's body, as text. Sent as application/json unless the header Content-Type says otherwise.
    #[serde(default)]
    body: Option<String>,
    /// The most that you would pay, in dollars as a decimal string such as "0.05".
    #[serde(default)]
    max_price: Option<String>,
    /// The label that the payment would be booked under.
    #[serde(default)]
    tag: Option<String>,
}

/// The arguments of `budget`.
#[derive(Clone, Copy, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Budget {}

/// The arguments of `purchase`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Purchase {
    /// The purchase's id, as a result of `pay` named it.
    pub(super) purchase_id: String,
}

/// The arguments of `discover`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Discover {
    /// What the service should do, in a few words.
    pub(super) query: String,
    /// The most that one call may cost, in dollars as a decimal string such as "0.05".
    #[serde(default)]
    pub(super) max_price: Option<String>,
    /// How many services to return, 1 to 50; 10 if absent.
    #[serde(default)]
    pub(super) limit: Option<u8>,
}

/// Methods that make sense to pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(crate = "rmcp::schemars", inline)]
pub(super) enum Verb {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl From<Verb> for Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Head => Self::HEAD,
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Patch => Self::PATCH,
            Verb::Delete => Self::DELETE,
            Verb::Options => Self::OPTIONS,
        }
    }
}

impl From<Quote> for Pay {
    fn from(quote: Quote) -> Self {
        let Quote {
            url,
            method,
            headers,
            body,
            max_price,
            tag,
        } = quote;
        Self {
            url,
            method,
            headers,
            body,
            max_price,
            purchase_id: None,
            tag,
            allow_duplicate: false,
        }
    }
}

/// A request that can be sent.
#[derive(Debug)]
pub(super) struct Order {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
    max_price: Option<Usd>,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
    allow_duplicate: bool,
}

impl Order {
    /// Reads the arguments. `ceiling` is the operator's, which a call can only lower.
    ///
    /// # Errors
    /// What was wrong and what is expected.
    pub(super) fn read(arguments: Pay, ceiling: Option<Usd>) -> Result<Self, String> {
        let Pay {
            url,
            method,
            headers,
            body,
            max_price,
            purchase_id,
            tag,
            allow_duplicate,
        } = arguments;
        let wanted = max_price.map(|max| price(&max)).transpose()?;
        let usual = if body.is_some() {
            Verb::Post
        } else {
            Verb::Get
        };
        if tag.as_ref().is_some_and(|tag| tag.len() > TAG) {
            return Err(format!("tag: expected at most {TAG} bytes"));
        }
        let purchase_id = purchase_id.map(|id| purchase(&id)).transpose()?;
        Ok(Self {
            method: method.unwrap_or(usual).into(),
            url: address(&url)?,
            headers: checked(&headers, body.is_some())?,
            body,
            max_price: wanted.into_iter().chain(ceiling).min(),
            purchase_id,
            tag,
            allow_duplicate,
        })
    }

    pub(super) fn on(self, client: &Client) -> RequestBuilder {
        let mut request = client.request(self.method, self.url).headers(self.headers);
        if let Some(body) = self.body {
            request = request.body(body);
        }
        if let Some(max) = self.max_price {
            request = request.max_price(max);
        }
        if let Some(id) = &self.purchase_id {
            request = request.purchase_id(id.as_str());
        }
        if let Some(tag) = self.tag {
            request = request.tag(tag);
        }
        if self.allow_duplicate {
            request.allow_duplicate()
        } else {
            request
        }
    }
}

/// Reads the id of a purchase.
pub(super) fn purchase(id: &str) -> Result<PurchaseId, String> {
    id.parse().map_err(|error| format!("purchase_id: {error}"))
}

pub(super) fn price(text: &str) -> Result<Usd, String> {
    text.parse()
        .map_err(|error| format!("max_price: {error}; expected dollars such as \"0.05\""))
}

fn address(text: &str) -> Result<Url, String> {
    let expected = "expected a URL such as https://api.example.com/report";
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
        Ok(_) => Err(format!("url: {expected}")),
        Err(error) => Err(format!("url: {error}; {expected}")),
    }
}

/// The headers, with bursar's own. A value may be a secret, so no message repeats one.
fn checked(given: &BTreeMap<String, String>, has_body: bool) -> Result<HeaderMap, String> {
    let bytes = given
        .iter()
        .map(|(name, value)| name.len().saturating_add(value.len()))
        .fold(0, usize::saturating_add);
    if given.len() > MOST_HEADERS || bytes > HEADER_BYTES {
        return Err(format!(
            "headers: expected at most {MOST_HEADERS} of {HEADER_BYTES} bytes in all"
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let parsed: HeaderName = name
            .parse()
            .map_err(|_| "headers: a name holds a character that no header name may".to_owned())?;
        if is_refused(&parsed) {
            return Err(format!("headers: `{parsed}` cannot be set by an agent"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            format!("headers: the value of `{parsed}` holds a character that no header may")
        })?;
        if headers.insert(parsed.clone(), value).is_some() {
            return Err(format!("headers: `{parsed}` is given twice"));
        }
    }
    headers
        .entry(USER_AGENT)
        .or_insert(HeaderValue::from_static(AGENT));
    if has_body {
        headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/json"));
    }
    Ok(headers)
}

fn is_refused(name: &HeaderName) -> bool {
    OWN.contains(&name.as_str())
        || FAMILIES
            .iter()
            .any(|family| name.as_str().starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pay(arguments: &str) -> Result<Order, String> {
        Order::read(
            serde_json::from_str(arguments).unwrap(),
            Some(bursar::usd!("0.10")),
        )
    }

    #[test]
    fn a_call_lowers_the_operators_ceiling_and_never_raises_it() {
        let ceiling = |arguments| pay(arguments).unwrap().max_price.unwrap().to_string();
        assert_eq!(ceiling(r#"{"url": "https://a.example"}"#), "0.10");
        assert_eq!(
            ceiling(r#"{"url": "https://a.example", "max_price": "0.05"}"#),
            "0.05"
        );
        assert_eq!(
            ceiling(r#"{"url": "https://a.example", "max_price": "5000"}"#),
            "0.10"
        );
    }

    #[test]
    fn headers_of_payment_and_of_the_connection_are_refused() {
        for name in [
            "PAYMENT-SIGNATURE",
            "X-Payment",
            "payment-response",
            "Host",
            "Content-Length",
            "Proxy-Authorization",
        ] {
            let refused = pay(&format!(
                r#"{{"url": "https://a.example", "headers": {{"{name}": "secret"}}}}"#
            ));
            let message = refused.unwrap_err();
            assert!(
                message.contains("cannot be set") && !message.contains("secret"),
                "{message}"
            );
        }
        let order =
            pay(r#"{"url": "https://a.example", "headers": {"Authorization": "Bearer x"}, "body": "{}"}"#).unwrap();
        assert_eq!(order.headers.get("authorization").unwrap(), "Bearer x");
        assert_eq!(
            (
                order.method,
                order.headers.get(CONTENT_TYPE).unwrap().to_str().unwrap()
            ),
            (Method::POST, "application/json")
        );
    }

    #[test]
    fn what_cannot_be_sent_is_said_before_it_is_sent() {
        for (arguments, wrong) in [
            (r#"{"url": "ftp://a.example"}"#, "url: expected"),
            (r#"{"url": "report"}"#, "url: relative"),
            (
                r#"{"url": "https://a.example", "max_price": "cheap"}"#,
                "max_price: ",
            ),
            (
                r#"{"url": "https://a.example", "purchase_id": ""}"#,
                "purchase_id: ",
            ),
            (
                r#"{"url": "https://a.example", "headers": {"a b": "c"}}"#,
                "headers: a name",
            ),
            (
                r#"{"url": "https://a.example", "headers": {"a": "b\r\nPAYMENT-SIGNATURE: c"}}"#,
                "headers: the value of `a`",
            ),
            (
                r#"{"url": "https://a.example", "headers": {"a": "b", "A": "c"}}"#,
                "headers: `a` is given twice",
            ),
        ] {
            let message = pay(arguments).unwrap_err();
            assert!(message.starts_with(wrong), "{message}");
        }
        let huge = format!(
            r#"{{"url": "https://a.example", "headers": {{"a": "{}"}}}}"#,
            "b".repeat(HEADER_BYTES)
        );
        assert!(pay(&huge).unwrap_err().contains("at most"));
    }
}
