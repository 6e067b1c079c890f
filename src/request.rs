//! The request to be paid for, and the options for paying it.

use std::borrow::Cow;
use std::time::Duration;

use alloy::primitives::{B256, KECCAK256_EMPTY, keccak256};
use http::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;
use url::{Position, Url};

use crate::eip3009::{PurchaseId, PurchaseIdError};
use crate::json_text::canonical;
use crate::limit::Amount;
use crate::origin::Origin;
use crate::path;

/// Writes the setters of [`PurchaseOptions`] for a type with a method `options_mut`.
macro_rules! purchase_setters {
    () => {
        /// Pays at most this price for the request, whatever the policy allows.
        ///
        /// bursar denies a higher price with [`Rule::MaxPrice`](crate::policy::Rule::MaxPrice) and signs nothing. If the
        /// client has a maximum too, the lower one holds.
        pub fn max_price(mut self, max: impl Into<crate::limit::Amount>) -> Self {
            self.options_mut().set_max_price(max.into());
            self
        }

        /// Names the purchase with an id of your own: 1 to 128 printable ASCII characters without spaces.
        ///
        /// A second request with the same id is the same purchase, also in another process on the same
        /// ledger, later, and with another key: bursar presents the same payment again, and you pay once.
        /// The id with a different request is an error of the kind
        /// [`Purchase`](crate::ErrorKind::Purchase). Identical requests with different ids are different
        /// purchases. bursar reports an invalid id when the request is sent.
        pub fn purchase_id(mut self, id: impl Into<String>) -> Self {
            self.options_mut().set_purchase_id(&id.into());
            self
        }

        /// Records the payment under a tag. The policy can set limits for it.
        pub fn tag(mut self, tag: impl Into<String>) -> Self {
            self.options_mut().set_tag(tag.into());
            self
        }

        /// Names the agent that buys. The ledger records it, and the policy can set limits and permissions for it.
        ///
        /// It replaces the agent of the wallet; see [`ClientBuilder::agent`](crate::ClientBuilder::agent).
        pub fn agent(mut self, name: impl Into<String>) -> Self {
            self.options_mut().set_agent(name.into());
            self
        }

        /// Buys again even while an identical purchase is unresolved.
        ///
        /// Without it, a request with the same method, URL and body as an unresolved purchase presents the
        /// payment of that purchase again, whatever its other options, headers, tag and agent are. A retry
        /// therefore pays once. This ends [`CLOCK_BOUND`](crate::clock::CLOCK_BOUND) after the payment has
        /// expired, or when [`Ledger::reconcile`](crate::Ledger::reconcile) proves that it did not settle.
        /// If another wallet on the same ledger signed the payment, the request fails meanwhile.
        pub const fn allow_duplicate(mut self) -> Self {
            self.options_mut().set_allow_duplicate();
            self
        }

        /// Waits at most this long for room under a limit, before the payment is denied.
        ///
        /// The call waits while other calls can give room back: those of this process and of other processes on the
        /// ledger, or because a window moves on. Calls of this process that wait for the same limit take turns in the
        /// order in which they came. No limit is exceeded. The default is not to wait; `Duration::ZERO` restores it.
        ///
        /// bursar does not wait where it knows of no room that can return in time, for `loop_guard` and `circuit_breaker`,
        /// and for API keys. The time limits of the call hold meanwhile. A call without this option does not queue, and can
        /// take the room first.
        pub const fn wait_for_room(mut self, limit: std::time::Duration) -> Self {
            self.options_mut().set_wait_for_room(limit);
            self
        }

        /// Accepts changed terms once.
        ///
        /// When the seller answers the payment with another 402, bursar checks the new terms against the
        /// whole policy and signs them under the nonce of the purchase. At most one of the two payments
        /// can settle.
        pub const fn accept_new_terms(mut self) -> Self {
            self.options_mut().set_accept_new_terms();
            self
        }

        /// Never signs in, also where the [policy](crate::Policy::sign_in) allows it. The seller does not learn who comes
        /// back, and bursar buys a second time.
        pub const fn no_sign_in(mut self) -> Self {
            self.options_mut().set_no_sign_in();
            self
        }

        /// Never pays and never signs in. You receive a 402 as the seller sent it.
        pub const fn no_payment(mut self) -> Self {
            self.options_mut().set_no_payment();
            self
        }
    };
}
pub(crate) use purchase_setters;

/// How one request is to be paid.
///
/// [`RequestBuilder`](crate::RequestBuilder), [`Request`](crate::Request), [`PurchaseRequest`] and `mcp::ToolCall` have the same
/// setters, and take a whole set of options with `options`. The middleware and the layer take the options as an extension of
/// a request. Clients, middleware and layers have options for all of their requests; see [`with_defaults`](Self::with_defaults).
///
/// ```
/// use bursar::{Client, PurchaseOptions, usd};
///
/// # fn example(client: &Client) {
/// let research = PurchaseOptions::new().tag("research").max_price(usd!("0.02"));
/// let request = client.get("https://api.example.com/report").options(research.clone());
/// let other = client.get("https://api.example.com/news").options(research).purchase_id("news-1");
/// # drop((request, other));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until a request has them"]
pub struct PurchaseOptions {
    /// Each in another unit. All of them hold.
    max_prices: Vec<Amount>,
    purchase_id: Option<Result<PurchaseId, PurchaseIdError>>,
    tag: Option<String>,
    agent: Option<String>,
    allow_duplicate: bool,
    accept_new_terms: bool,
    no_payment: bool,
    no_sign_in: bool,
    wait_for_room: Option<Duration>,
}

impl PurchaseOptions {
    /// Returns the options of a plain request: the policy alone decides.
    pub fn new() -> Self {
        Self::default()
    }

    purchase_setters!();

    /// Returns these options, with the members of `defaults` where these have none.
    ///
    /// bursar merges the options of a request with those of its client, middleware or layer in this way:
    ///
    /// | Option | Result |
    /// |---|---|
    /// | `tag`, `agent`, `purchase_id`, `wait_for_room` | the request's own, or the default |
    /// | `max_price` | the lower of the two; maxima in different tokens hold both |
    /// | `no_payment`, `no_sign_in`, `allow_duplicate`, `accept_new_terms` | set if one of the two sets it |
    ///
    /// So a request cannot exceed the maximum of its client, and cannot pay where the client says `no_payment`.
    ///
    /// ```
    /// use bursar::{PurchaseOptions, PurchaseRequest, usd};
    ///
    /// let of_client = PurchaseOptions::new().max_price(usd!("0.02")).tag("research");
    /// let of_request = PurchaseOptions::new().max_price(usd!("5")).tag("news");
    /// // Pays at most 0.02 USD, under the tag "news".
    /// let options = of_request.with_defaults(&of_client);
    /// # drop(PurchaseRequest::new("GET", "https://api.example.com", b"").unwrap().options(options));
    /// ```
    pub fn with_defaults(mut self, defaults: &Self) -> Self {
        for default in &defaults.max_prices {
            let is_same_unit = |own: &&mut Amount| own.is_in_unit_of(default);
            match self.max_prices.iter_mut().find(is_same_unit) {
                Some(own) if own.units() > default.units() => *own = default.clone(),
                Some(_) => {}
                None => self.max_prices.push(default.clone()),
            }
        }
        self.purchase_id = self.purchase_id.or_else(|| defaults.purchase_id.clone());
        self.tag = self.tag.or_else(|| defaults.tag.clone());
        self.agent = self.agent.or_else(|| defaults.agent.clone());
        self.wait_for_room = self.wait_for_room.or(defaults.wait_for_room);
        self.allow_duplicate |= defaults.allow_duplicate;
        self.accept_new_terms |= defaults.accept_new_terms;
        self.no_payment |= defaults.no_payment;
        self.no_sign_in |= defaults.no_sign_in;
        self
    }

    const fn options_mut(&mut self) -> &mut Self {
        self
    }

    pub(crate) fn set_max_price(&mut self, max: Amount) {
        self.max_prices = vec![max];
    }

    pub(crate) fn set_purchase_id(&mut self, id: &str) {
        self.purchase_id = Some(id.parse());
    }

    pub(crate) fn set_tag(&mut self, tag: String) {
        self.tag = Some(tag);
    }

    pub(crate) fn set_agent(&mut self, agent: String) {
        self.agent = Some(agent);
    }

    pub(crate) const fn set_allow_duplicate(&mut self) {
        self.allow_duplicate = true;
    }

    pub(crate) const fn set_accept_new_terms(&mut self) {
        self.accept_new_terms = true;
    }

    pub(crate) const fn set_wait_for_room(&mut self, limit: Duration) {
        self.wait_for_room = Some(limit);
    }

    pub(crate) const fn set_no_payment(&mut self) {
        self.no_payment = true;
    }

    pub(crate) const fn set_no_sign_in(&mut self) {
        self.no_sign_in = true;
    }

    /// The caller's id for the purchase. Every use of the id reports an invalid one.
    pub(crate) fn id(&self) -> Result<Option<&PurchaseId>, PurchaseIdError> {
        match &self.purchase_id {
            None => Ok(None),
            Some(Ok(id)) => Ok(Some(id)),
            Some(Err(error)) => Err(*error),
        }
    }

    pub(crate) fn tag_name(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub(crate) fn agent_name(&self) -> Option<&str> {
        self.agent.as_deref()
    }

    pub(crate) const fn forbid_payment(&self) -> bool {
        self.no_payment
    }
}

/// The request to be paid for: method, URL and body, and the options for paying it.
///
/// [`Client`](crate::Client) makes one for each HTTP request. Make one yourself to call
/// [`Payer`](crate::Payer) directly, or to ask which rules a payment would meet:
///
/// ```
/// use bursar::{PurchaseRequest, usd};
///
/// let request = PurchaseRequest::new("POST", "https://tools.example/call", b"{\"city\":\"Paris\"}")?
///     .tag("research")
///     .max_price(usd!("0.02"));
/// assert_eq!(request.origin().to_string(), "https://tools.example");
/// # Ok::<(), bursar::request::PurchaseRequestError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is authorized"]
pub struct PurchaseRequest {
    method: Method,
    url: Url,
    origin: Origin,
    identity: RequestIdentity,
    options: PurchaseOptions,
    deadline: Option<Instant>,
}

/// The identity of a request. bursar computes it once for each call, also through redirects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestIdentity {
    fingerprint: B256,
    /// Whether the body is known. Without it, two different requests can have one fingerprint.
    complete: bool,
}

impl RequestIdentity {
    /// Hashes method, URL without fragment, and body. `None` is a body that cannot be read, such as a stream.
    ///
    /// Of the body of an MCP tool call, only tool and arguments count. Its id, its `_meta` and the order of its keys
    /// differ between two attempts at the same call.
    /// The URL counts in one spelling: its origin, and its escapes as [`path::normalized`] writes them.
    pub(crate) fn of(method: &Method, url: &Url, body: Option<&[u8]>) -> Self {
        let origin = Origin::of(url).map(|origin| origin.to_string());
        let origin = origin.as_deref().unwrap_or_default();
        let rest = &url[Position::BeforePath..Position::AfterQuery];
        let rest = path::normalized(rest.strip_suffix('?').unwrap_or(rest));
        let hash = match body {
            None => B256::ZERO,
            Some([]) => KECCAK256_EMPTY,
            Some(body) => tool_call(body).map_or_else(|| keccak256(body), keccak256),
        };
        let length = origin.len().saturating_add(rest.len());
        let mut preimage = Vec::with_capacity(length.saturating_add(48));
        preimage.extend_from_slice(method.as_str().as_bytes());
        preimage.push(0);
        preimage.extend_from_slice(origin.as_bytes());
        preimage.extend_from_slice(rest.as_bytes());
        preimage.push(0);
        preimage.extend_from_slice(hash.as_slice());
        Self {
            fingerprint: keccak256(preimage),
            complete: body.is_some(),
        }
    }
}

/// The method of an MCP tool call.
pub(crate) const TOOL_CALL: &str = "tools/call";

/// Returns the tool and the arguments of a JSON-RPC message that calls an MCP tool, as one text.
fn tool_call(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Message {
        #[serde(rename = "jsonrpc")]
        _jsonrpc: serde::de::IgnoredAny,
        method: String,
        params: Params,
    }
    #[derive(Deserialize)]
    struct Params {
        name: String,
        #[serde(default)]
        arguments: Option<serde_json::Map<String, Value>>,
    }
    // Most bodies are no JSON-RPC, and are not parsed.
    let marked = |marker: &[u8]| body.windows(marker.len()).any(|part| part == marker);
    if body.trim_ascii_start().first() != Some(&b'{') || !marked(b"\"jsonrpc\"") {
        return None;
    }
    let Message { method, params, .. } = serde_json::from_slice(body).ok()?;
    let Params { name, arguments } = params;
    let arguments = Value::from(arguments.unwrap_or_default());
    (method == TOOL_CALL).then(|| canonical(&serde_json::json!([method, name, arguments])))
}

impl PurchaseRequest {
    /// Returns the request with this method, URL and body. bursar hashes the body and does not keep it.
    ///
    /// # Errors
    /// When the method or the URL cannot be parsed, or the URL is not `http` or `https` with a host.
    pub fn new(method: &str, url: &str, body: &[u8]) -> Result<Self, PurchaseRequestError> {
        let method = method.parse().map_err(|_| PurchaseRequestError::Method)?;
        Self::from_parts(method, url.parse()?, Some(body))
    }

    /// As [`new`](Self::new), with `None` for a body that cannot be read.
    pub(crate) fn from_parts(
        method: Method,
        url: Url,
        body: Option<&[u8]>,
    ) -> Result<Self, PurchaseRequestError> {
        let identity = RequestIdentity::of(&method, &url, body);
        Self::with_identity(method, url, identity)
    }

    /// A request whose identity was computed before, perhaps for the URL that redirected here.
    pub(crate) fn with_identity(
        method: Method,
        url: Url,
        identity: RequestIdentity,
    ) -> Result<Self, PurchaseRequestError> {
        let origin = Origin::of(&url).ok_or(PurchaseRequestError::NotHttp)?;
        Ok(Self {
            method,
            url,
            origin,
            identity,
            options: PurchaseOptions::default(),
            deadline: None,
        })
    }

    purchase_setters!();

    /// Replaces all options.
    pub fn options(mut self, options: PurchaseOptions) -> Self {
        self.options = options;
        self
    }

    /// Returns the method.
    #[must_use]
    pub const fn method(&self) -> &Method {
        &self.method
    }

    /// Returns the URL. It may hold secrets in its query.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Returns the origin of the URL: the seller that rules and limits are about.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whether this is the call of an MCP tool by its URL.
    pub(crate) fn is_tool_call(&self) -> bool {
        self.method.as_str() == "CALL" && self.url.path().starts_with(path::TOOL)
    }

    /// Returns the path in the spelling of limits and of the ledger. A tool has one spelling.
    pub(crate) fn path(&self) -> Cow<'_, str> {
        if self.is_tool_call() {
            self.normalized_path()
        } else {
            path::resource(self.url.path())
        }
    }

    /// Returns the path with its escapes in one spelling, and everything else as it is sent.
    pub(crate) fn normalized_path(&self) -> Cow<'_, str> {
        path::normalized(self.url.path())
    }

    const fn options_mut(&mut self) -> &mut PurchaseOptions {
        &mut self.options
    }

    /// Bounds the call: bursar signs nothing after the deadline.
    pub(crate) const fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The time that the call has left, if it is bounded.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        self.deadline
            .map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// The hash that tells this request from others.
    pub(crate) const fn fingerprint(&self) -> B256 {
        self.identity.fingerprint
    }

    /// Whether an unresolved purchase with the same fingerprint is a purchase of this request, to be resumed.
    pub(crate) const fn resumes_identical(&self) -> bool {
        self.identity.complete && !self.options.allow_duplicate
    }

    /// See [`PurchaseOptions::id`].
    pub(crate) fn id(&self) -> Result<Option<&PurchaseId>, PurchaseIdError> {
        self.options.id()
    }

    pub(crate) fn tag_name(&self) -> Option<&str> {
        self.options.tag_name()
    }

    pub(crate) fn agent_name(&self) -> Option<&str> {
        self.options.agent_name()
    }

    /// The maxima of the request. A price must be below each of them.
    pub(crate) fn price_ceilings(&self) -> &[Amount] {
        &self.options.max_prices
    }

    pub(crate) const fn accepts_new_terms(&self) -> bool {
        self.options.accept_new_terms
    }

    pub(crate) const fn longest_wait(&self) -> Option<Duration> {
        self.options.wait_for_room
    }

    pub(crate) const fn forbids_sign_in(&self) -> bool {
        self.options.no_sign_in
    }

    pub(crate) const fn forbids_payment(&self) -> bool {
        self.options.forbid_payment()
    }

    /// The same request with the options of its client where it has none of its own.
    pub(crate) fn with_default_options(&self, defaults: &PurchaseOptions) -> Self {
        let mut request = self.clone();
        request.options = request.options.with_defaults(defaults);
        request
    }

    /// The same request for the purchase that it has begun: new terms keep its nonce.
    pub(crate) fn continuing(&self, purchase: &PurchaseId) -> Self {
        let mut request = self.clone();
        request.options.purchase_id = Some(Ok(purchase.clone()));
        request
    }
}

/// Why [`PurchaseRequest::new`] refused its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PurchaseRequestError {
    /// The method is not a token such as `GET`.
    #[error("the method is not an HTTP method")]
    Method,
    /// The text is not a URL.
    #[error("the text is not a URL: {0}")]
    Url(#[from] url::ParseError),
    /// The URL has another scheme, or no host.
    #[error("the URL is not http or https with a host")]
    NotHttp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(method: &str, url: &str, body: &[u8]) -> B256 {
        PurchaseRequest::new(method, url, body)
            .unwrap()
            .fingerprint()
    }

    #[test]
    fn method_url_and_body_tell_requests_apart_and_a_fragment_does_not() {
        let one = identity("POST", "https://a.example/x?y=1", b"body");
        assert_eq!(
            one,
            identity("POST", "https://a.example/x?y=1#part", b"body")
        );
        for other in [
            identity("PUT", "https://a.example/x?y=1", b"body"),
            identity("POST", "https://a.example/x?y=2", b"body"),
            identity("POST", "https://a.example/x?y=1", b"other"),
            identity("POST", "https://a.example/x?y=1", b""),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn a_tool_call_is_the_same_request_in_any_json_rpc_envelope() {
        let call = |body: &str| identity("POST", "https://a.example/mcp", body.as_bytes());
        let one = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"x":1,"y":[2]}}}"#;
        for same in [
            r#"{"jsonrpc":"2.0","id":"z","method":"tools/call","params":{"name":"a","arguments":{"x":1,"y":[2]}}}"#,
            r#" { "params": { "arguments": { "y": [2], "x": 1 }, "_meta": { "progressToken": 7 }, "name": "a" },
                 "method": "tools/call", "id": 9, "jsonrpc": "2.0" }"#,
        ] {
            assert_eq!(call(one), call(same), "{same}");
        }
        for other in [
            one.replace("\"a\"", "\"b\""),
            one.replace("\"x\":1", "\"x\":2"),
            one.replace("tools/call", "prompts/get"),
            one.replace("\"jsonrpc\":\"2.0\",", ""),
        ] {
            assert_ne!(call(one), call(&other), "{other}");
        }
        let empty = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
        let none = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a","arguments":{}}}"#;
        assert_eq!(call(empty), call(none));
        let ids = [1, 2].map(|id| {
            call(&format!(
                r#"{{"jsonrpc":"2.0","id":{id},"method":"eth_call","params":[]}}"#
            ))
        });
        assert_ne!(ids[0], ids[1], "another JSON-RPC request is its bytes");
    }

    #[test]
    fn a_request_with_an_unreadable_body_resumes_no_purchase() {
        let url: Url = "https://a.example/x".parse().unwrap();
        let stream = PurchaseRequest::from_parts(Method::POST, url, None).unwrap();
        assert!(!stream.resumes_identical());
        let known = PurchaseRequest::new("POST", "https://a.example/x", b"").unwrap();
        assert!(known.resumes_identical());
        assert!(!known.allow_duplicate().resumes_identical());
    }

    #[test]
    fn an_invalid_purchase_id_is_reported_wherever_the_id_is_used() {
        let request = PurchaseRequest::new("GET", "https://a.example", b"").unwrap();
        assert_eq!(request.id(), Ok(None));
        assert_eq!(request.purchase_id("a b").id(), Err(PurchaseIdError));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |method: &str, url: &str| PurchaseRequest::new(method, url, b"").unwrap_err();
        assert_eq!(error("", "https://a.example"), PurchaseRequestError::Method);
        assert_eq!(error("GET", "data:x"), PurchaseRequestError::NotHttp);
        assert!(matches!(error("GET", "a"), PurchaseRequestError::Url(_)));
    }
}
