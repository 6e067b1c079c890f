//! The arguments of the tools. The server checks them before it sends anything.

use std::collections::BTreeMap;

use bursar::reqwest::Method;
use bursar::reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use bursar::{Client, Credentials, PurchaseId, RequestBuilder, Url, Usd, reqwest};
use rmcp::schemars;
use serde::Deserialize;

use crate::request::AGENT;

/// Headers about the connection or the framing of the message, headers that bursar sets itself, and headers by which a server
/// takes the request for one with another method, path or client, which the permissions of the policy would not see.
const REFUSED_HEADERS: [&str; 22] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-host",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-original-uri",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-uri",
    "x-rewrite-url",
];
/// The prefixes of headers about payments, sign-ins, proxies and browsers.
const REFUSED_PREFIXES: [&str; 7] = [
    "sign-in-with-x",
    "payment-",
    "x-payment",
    "x402",
    "proxy-",
    "sec-",
    "x-forwarded-",
];
/// The largest number of headers, and the largest size of their names and values in bytes.
const MAX_HEADERS: usize = 64;
const HEADER_BYTES: usize = 16 * 1024;
/// The largest size of a tag in bytes.
const TAG: usize = 128;

/// The arguments of `pay`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Pay {
    /// The URL to fetch, with https.
    pub(super) url: String,
    /// The HTTP method. By default GET, or POST if there is a body.
    #[serde(default)]
    pub(super) method: Option<Verb>,
    /// Request headers by name. Headers about payments or the connection, such as Host, are refused.
    #[serde(default)]
    pub(super) headers: BTreeMap<String, String>,
    /// The body of the request, as text. The content type is application/json unless the header Content-Type sets another.
    #[serde(default)]
    pub(super) body: Option<String>,
    /// The largest price for this request, in dollars as a decimal string such as "0.05". It can lower the limits of
    /// the policy, but not raise them.
    #[serde(default)]
    pub(super) max_price: Option<String>,
    /// Your own id for this purchase, 1 to 128 printable ASCII characters. All calls with the same id are one purchase,
    /// which is paid once. To learn the result of an earlier call, repeat the call with the purchase_id of its result.
    #[serde(default)]
    pub(super) purchase_id: Option<String>,
    /// A label for the payment in the ledger.
    #[serde(default)]
    pub(super) tag: Option<String>,
    /// Set it to true to buy again. Otherwise the server sends the payment of an identical unresolved request again, or
    /// returns an answer that you did not receive, and pays nothing new.
    #[serde(default)]
    pub(super) allow_duplicate: bool,
}

/// The arguments of `quote`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Quote {
    /// The URL whose price to ask for, with https.
    url: String,
    /// The HTTP method. By default GET, or POST if there is a body.
    #[serde(default)]
    method: Option<Verb>,
    /// Request headers by name. Headers about payments or the connection, such as Host, are refused.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body of the request, as text. The content type is application/json unless the header Content-Type sets another.
    #[serde(default)]
    body: Option<String>,
    /// The largest price that you would pay, in dollars as a decimal string such as "0.05".
    #[serde(default)]
    max_price: Option<String>,
    /// The label that the payment would have in the ledger.
    #[serde(default)]
    tag: Option<String>,
}

/// The arguments of `budget`.
#[derive(Clone, Copy, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Budget {}

/// The arguments of `purchase`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Purchase {
    /// The purchase_id in a result of `pay`.
    pub(crate) purchase_id: String,
}

/// The arguments of `discover`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(crate) struct Discover {
    /// A few words that describe the service.
    pub(crate) query: String,
    /// The largest price of one call, in dollars as a decimal string such as "0.05".
    #[serde(default)]
    pub(crate) max_price: Option<String>,
    /// The number of services to return, 1 to 50. By default 10.
    #[serde(default)]
    pub(crate) limit: Option<u8>,
}

/// The methods of requests that can be paid for.
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

/// The identity of a call of `pay`. Two calls with the same one are the same request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
}

/// A request with checked arguments.
#[derive(Debug)]
pub(super) struct ToolRequest {
    method: Method,
    url: Url,
    headers: HeaderMap,
    body: Option<String>,
    max_price: Option<Usd>,
    purchase_id: Option<PurchaseId>,
    tag: Option<String>,
    allow_duplicate: bool,
}

impl ToolRequest {
    /// Checks the arguments. `ceiling` is the limit of the operator, which a call can only lower. `keys` are the API keys of
    /// the operator, whose places a call cannot fill.
    ///
    /// # Errors
    ///
    /// Returns a message that names the wrong argument and the expected form.
    pub(super) fn read(
        arguments: Pay,
        ceiling: Option<Usd>,
        keys: &Credentials,
    ) -> Result<Self, String> {
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
        let max_price = max_price.map(|max| price(&max)).transpose()?;
        let default_method = if body.is_some() {
            Verb::Post
        } else {
            Verb::Get
        };
        if tag.as_ref().is_some_and(|tag| tag.len() > TAG) {
            return Err(format!("tag: expected at most {TAG} bytes"));
        }
        let purchase_id = purchase_id.map(|id| purchase(&id)).transpose()?;
        let method = method.unwrap_or(default_method).into();
        let (url, headers) = (address(&url)?, checked(&headers, body.is_some())?);
        let mut request = reqwest::Request::new(method, url);
        *request.headers_mut() = headers;
        if let Some(place) = keys.taken_place(&request) {
            return Err(format!(
                "{place} cannot be set for this host, because the operator has an API key for it"
            ));
        }
        Ok(Self {
            method: request.method().clone(),
            url: request.url().clone(),
            headers: std::mem::take(request.headers_mut()),
            body,
            max_price: max_price.into_iter().chain(ceiling).min(),
            purchase_id,
            tag,
            allow_duplicate,
        })
    }

    pub(super) const fn allows_duplicate(&self) -> bool {
        self.allow_duplicate
    }

    pub(super) fn identity(&self) -> Identity {
        Identity {
            method: self.method.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            purchase_id: self.purchase_id.clone(),
            tag: self.tag.clone(),
        }
    }

    /// Returns the request for the client.
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

/// Parses the argument `purchase_id`.
pub(crate) fn purchase(id: &str) -> Result<PurchaseId, String> {
    id.parse().map_err(|error| format!("purchase_id: {error}"))
}

/// Parses the argument `max_price`.
pub(crate) fn price(text: &str) -> Result<Usd, String> {
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

/// Checks the headers, and adds the default headers. A value can be a secret, so no message contains one.
fn checked(given: &BTreeMap<String, String>, has_body: bool) -> Result<HeaderMap, String> {
    let bytes = given
        .iter()
        .map(|(name, value)| name.len().saturating_add(value.len()))
        .fold(0, usize::saturating_add);
    if given.len() > MAX_HEADERS || bytes > HEADER_BYTES {
        return Err(format!(
            "headers: expected at most {MAX_HEADERS} headers of {HEADER_BYTES} bytes in total"
        ));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in given {
        let parsed: HeaderName = name
            .parse()
            .map_err(|_| "headers: a name contains a character that is not allowed".to_owned())?;
        if is_refused(&parsed) {
            return Err(format!("headers: `{parsed}` cannot be set by an agent"));
        }
        let value = HeaderValue::from_str(value).map_err(|_| {
            format!("headers: the value of `{parsed}` contains a character that is not allowed")
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

/// Many servers take an underscore for a dash.
fn is_refused(name: &HeaderName) -> bool {
    let name = name.as_str().replace('_', "-");
    REFUSED_HEADERS.contains(&name.as_str())
        || REFUSED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pay(arguments: &str) -> Result<ToolRequest, String> {
        ToolRequest::read(
            serde_json::from_str(arguments).unwrap(),
            Some(bursar::usd!("0.10")),
            &Credentials::new(),
        )
    }

    #[test]
    fn a_call_can_lower_the_limit_of_the_operator_but_not_raise_it() {
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
    fn headers_about_payments_or_the_connection_are_refused() {
        for name in [
            "PAYMENT-SIGNATURE",
            "X-Payment",
            "payment-response",
            "Host",
            "Content-Length",
            "Proxy-Authorization",
            "X-Payment-Response",
            "X-Forwarded-Host",
            "X-HTTP-Method-Override",
            "x-original-url",
            "Transfer-Encoding",
            "PAYMENT_SIGNATURE",
            "x_payment",
            "SIGN-IN-WITH-X",
            "X_Forwarded_For",
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
        let request =
            pay(r#"{"url": "https://a.example", "headers": {"Authorization": "Bearer x"}, "body": "{}"}"#).unwrap();
        assert_eq!(request.headers.get("authorization").unwrap(), "Bearer x");
        assert_eq!(
            (
                request.method,
                request.headers.get(CONTENT_TYPE).unwrap().to_str().unwrap()
            ),
            (Method::POST, "application/json")
        );
    }

    #[test]
    fn a_wrong_argument_is_named_before_anything_is_sent() {
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
