//! What the seller sells, and how.

use std::fmt;

use alloy::primitives::Address;
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use super::fault::{Fault, Faults};
use super::payment::Received;
use super::terms::{Conditions, Price};
use bursar::x402::Flow;
use bursar::x402::Version;
use bursar::{Asset, Usd};

/// Something the paywall sells: where it is, what it costs, what it answers, and how it misbehaves.
///
/// Free unless it has a [`price`](Self::price) or [`offers`](Self::offers); in x402 version 2
/// unless it says otherwise; answering `200` with an empty body unless it is told to.
///
/// ```
/// use bursar_testing::{Fault, Route};
/// use bursar::usd;
///
/// let report = Route::get("/report").price(usd!("0.01")).body("the report");
/// let fragile = Route::post("/order").price(usd!("1")).echo().fault_once(Fault::DropAfterSettle);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a route does nothing until a paywall has it"]
pub struct Route {
    pub(super) methods: Vec<Method>,
    pub(super) path: String,
    pub(super) price: Price,
    pub(super) versions: Vec<Version>,
    pub(super) asset: Option<Asset>,
    pub(super) pay_to: Option<Address>,
    pub(super) max_timeout_seconds: u64,
    pub(super) flow: Flow,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) content: Content,
    pub(super) challenge_headers: HeaderMap,
    pub(super) extensions: Map<String, Value>,
    pub(super) idempotent: bool,
    pub(super) key: Option<AcceptedKey>,
    pub(super) faults: Faults,
    pub(super) mistake: Option<String>,
}

/// An API key that a route takes in place of a payment.
#[derive(Clone)]
pub(super) struct AcceptedKey {
    /// A header's name, or `?` and a parameter's.
    place: String,
    value: String,
    /// After how many calls it is turned away, and how.
    pub(super) spent: Option<(usize, StatusCode)>,
}

impl fmt::Debug for AcceptedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedKey")
            .field("place", &self.place)
            .field("spent", &self.spent)
            .finish_non_exhaustive()
    }
}

impl AcceptedKey {
    /// Whether the request has a key, and whether it is this one.
    pub(super) fn is_in(&self, received: &Received) -> Option<bool> {
        let Some(parameter) = self.place.strip_prefix('?') else {
            return received
                .headers
                .get(self.place.as_str())
                .map(|value| value.as_bytes() == self.value.as_bytes());
        };
        let query = received
            .target
            .split_once('?')
            .map_or("", |(_, query)| query);
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs
            .find(|(name, _)| name == parameter)
            .map(|(_, value)| value == self.value.as_str())
    }
}

/// What a route delivers.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Bytes(Bytes),
    Chunks(Vec<Bytes>),
    Echo,
}

/// The extension that buyers are to name their purchase in.
pub(super) const PAYMENT_IDENTIFIER: &str = "payment-identifier";

impl Route {
    /// A route for these methods; for all when there are none. A path that ends in `*` stands for
    /// all that begin like it.
    pub fn new(methods: impl IntoIterator<Item = Method>, path: impl Into<String>) -> Self {
        Self {
            methods: methods.into_iter().collect(),
            path: path.into(),
            price: Price::Free,
            versions: vec![Version::V2],
            asset: None,
            pay_to: None,
            max_timeout_seconds: 60,
            flow: Flow::Authorization,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Bytes(Bytes::new()),
            challenge_headers: HeaderMap::new(),
            extensions: Map::new(),
            idempotent: false,
            key: None,
            faults: Faults::default(),
            mistake: None,
        }
    }

    /// A route for `GET` and `HEAD`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new([Method::GET, Method::HEAD], path)
    }

    /// A route for `POST`.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new([Method::POST], path)
    }

    /// A route for every method.
    pub fn any(path: impl Into<String>) -> Self {
        Self::new([], path)
    }

    /// An API key that is taken in place of a payment: where it stands (a header's name such as
    /// `authorization`, or `?key` for a parameter of the query), and the whole value there. Another
    /// value is answered 401; so is a request without one, where the route has no price.
    pub fn accepts_key(mut self, place: &str, value: &str) -> Self {
        self.key = Some(AcceptedKey {
            place: place.to_owned(),
            value: value.to_owned(),
            spent: None,
        });
        self
    }

    /// The key is good for so many calls, and then turned away with this status, such as 429.
    pub fn key_spent_after(mut self, calls: usize, status: u16) -> Self {
        match (StatusCode::from_u16(status), &mut self.key) {
            (Ok(status), Some(key)) => key.spent = Some((calls, status)),
            _ => {
                self.mistake =
                    Some("key_spent_after takes a status, and follows accepts_key".to_owned())
            }
        }
        self
    }

    /// What it costs, in the route's token.
    pub fn price(mut self, price: Usd) -> Self {
        self.price = Price::Dollars(price);
        self
    }

    /// Exactly these elements of `accepts`, byte for byte, in place of an offer made from price,
    /// token and payee. They may say anything that is JSON; what can be paid by an `exact` payment
    /// is verified and settled, the rest is only offered.
    pub fn offers<T: Into<String>>(mut self, offers: impl IntoIterator<Item = T>) -> Self {
        let offers: Result<Vec<_>, _> = offers
            .into_iter()
            .map(|offer| RawValue::from_string(offer.into()))
            .collect();
        match offers {
            Ok(offers) => self.price = Price::Offers(offers),
            Err(error) => self.blunder(format!("an offer is not JSON: {error}")),
        }
        self
    }

    /// The token to be paid in; the paywall's unless set, which is USDC on Base Sepolia.
    pub fn asset(mut self, asset: Asset) -> Self {
        self.asset = Some(asset);
        self
    }

    /// Who is to be paid; the paywall's payee unless set.
    pub fn pay_to(mut self, payee: Address) -> Self {
        self.pay_to = Some(payee);
        self
    }

    /// `maxTimeoutSeconds` of the offer; 60 unless set.
    pub fn max_timeout_seconds(mut self, seconds: u64) -> Self {
        self.max_timeout_seconds = seconds;
        self
    }

    /// Speaks x402 version 1: terms in the body, `X-PAYMENT`.
    pub fn v1(mut self) -> Self {
        self.versions = vec![Version::V1];
        self
    }

    /// Speaks both versions at once: version 2's terms in the header, version 1's in the body.
    pub fn v1_and_v2(mut self) -> Self {
        self.versions = vec![Version::V2, Version::V1];
        self
    }

    /// Settles before it does its work, and says so in the offer.
    pub fn upfront(mut self) -> Self {
        self.flow = Flow::Upfront;
        self
    }

    /// The status of the answer. One of 400 and above is a failed work, which an honest seller does
    /// not settle unless it settled [`upfront`](Self::upfront).
    pub fn status(mut self, status: u16) -> Self {
        match StatusCode::from_u16(status) {
            Ok(status) => self.status = status,
            Err(_) => self.blunder(format!("{status} is not a status")),
        }
        self
    }

    /// A header of the answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match header(name, value) {
            Ok((name, value)) => drop(self.headers.append(name, value)),
            Err(mistake) => self.blunder(mistake),
        }
        self
    }

    /// A header of every 402 of this route.
    pub fn challenge_header(mut self, name: &str, value: &str) -> Self {
        match header(name, value) {
            Ok((name, value)) => drop(self.challenge_headers.append(name, value)),
            Err(mistake) => self.blunder(mistake),
        }
        self
    }

    /// The body of the answer.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.content = Content::Bytes(body.into());
        self
    }

    /// A body of JSON.
    pub fn json(self, body: &Value) -> Self {
        self.header("content-type", "application/json")
            .body(body.to_string())
    }

    /// A body in chunks, of unstated length.
    pub fn chunks<T: Into<Bytes>>(mut self, chunks: impl IntoIterator<Item = T>) -> Self {
        self.content = Content::Chunks(chunks.into_iter().map(Into::into).collect());
        self
    }

    /// Server-sent events with these data, in chunks.
    pub fn events<T: fmt::Display>(self, data: impl IntoIterator<Item = T>) -> Self {
        let events = data.into_iter().map(|data| format!("data: {data}\n\n"));
        self.header("content-type", "text/event-stream")
            .chunks(events.collect::<Vec<_>>())
    }

    /// Answers with the body and content type of the request.
    pub fn echo(mut self) -> Self {
        self.content = Content::Echo;
        self
    }

    /// Redirects with 307, to a path or a URL; set another [`status`](Self::status) after it.
    pub fn redirect(self, to: &str) -> Self {
        self.status(307).header(LOCATION.as_str(), to)
    }

    /// Declares an extension in version 2's terms, which a buyer that sends extensions must echo.
    pub fn extension(mut self, name: &str, declaration: Value) -> Self {
        self.extensions.insert(name.to_owned(), declaration);
        self
    }

    /// Asks for a payment identifier, and answers 400 to a payment without one if it is required.
    /// The same payment under the same identifier gets the same answer again; another payment under
    /// it gets 409.
    pub fn payment_identifier(self, required: bool) -> Self {
        let schema = json!({ "type": "object", "properties": { "id": { "type": "string" } } });
        self.extension(
            PAYMENT_IDENTIFIER,
            json!({ "info": { "required": required }, "schema": schema }),
        )
    }

    /// Answers a payment that was settled before, byte for byte the same, with what it answered
    /// then. Otherwise it is refused, as official sellers do, because its nonce is used.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Misbehaves so, every time.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.always.push(fault);
        self
    }

    /// Misbehaves so once, on the fault's first occasion. Several strike one after the other.
    pub fn fault_once(mut self, fault: Fault) -> Self {
        self.faults.once.push(fault);
        self
    }

    /// As a bazaar lists it: in the first version that it speaks.
    pub(super) fn advertised(
        &self,
        conditions: &Conditions,
        url: &Url,
        description: &str,
    ) -> Value {
        let version = self.versions.first().copied().unwrap_or(Version::V2);
        let accepts: Vec<Box<RawValue>> = match &self.price {
            Price::Free => Vec::new(),
            Price::Dollars(price) => conditions
                .offer(*price, version, url.as_str())
                .into_iter()
                .collect(),
            Price::Offers(offers) => offers.clone(),
        };
        let mut accepts = json!(accepts);
        let input = json!({ "type": "http", "method": self.methods.first().unwrap_or(&Method::GET).as_str() });
        let mut item = json!({
            "resource": url.as_str(),
            "type": "http",
            "x402Version": version.number(),
            "lastUpdated": "2026-01-01T00:00:00.000Z",
            "description": description,
        });
        if version == Version::V1 {
            let offers = accepts
                .as_array_mut()
                .into_iter()
                .flatten()
                .filter_map(Value::as_object_mut);
            offers.for_each(|offer| {
                drop(offer.insert("outputSchema".to_owned(), json!({ "input": &input })))
            });
        } else if let Some(item) = item.as_object_mut() {
            item.insert(
                "extensions".to_owned(),
                json!({ "bazaar": { "info": { "input": input } } }),
            );
        }
        if let Some(item) = item.as_object_mut() {
            item.insert("accepts".to_owned(), accepts);
        }
        item
    }

    pub(super) fn covers(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path,
        }
    }

    pub(super) fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    pub(super) fn speaks(&self, version: Version) -> bool {
        self.versions.contains(&version)
    }

    fn blunder(&mut self, mistake: String) {
        self.mistake.get_or_insert(mistake);
    }
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(format!("`{name}: {value}` is not a header")),
    }
}
