//! A route of a paywall: its price, its content and its faults.

use std::borrow::Borrow;
use std::fmt;
use std::time::Duration;

use alloy::primitives::Address;
use bytes::Bytes;
use http::header::LOCATION;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use url::Url;

use crate::encoding::Encoding;
use crate::fault::{Fault, Faults};
use crate::handler::{Answer, Handler};
use crate::payment::ReceivedRequest;
use crate::sign_in::{Entrance, SignInFault};
use crate::signed::OfferSigner;
use crate::sponsorship::{self, BY_PERMIT, BY_TRANSACTION};
use crate::terms::{Charge, Conditions, Price};
use bursar::x402::{Flow, PaymentMethod, Version};
use bursar::{Asset, Usd};

/// A route of a [`Paywall`](crate::Paywall): its path, price, content and faults.
///
/// A new route is free, states its terms in x402 version 2, and answers 200 with an empty body.
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{Fault, Route};
///
/// // A page for a cent.
/// let report = Route::get("/report").price(usd!("0.01")).body("the report");
/// // A server-sent event stream, in x402 version 1.
/// let news = Route::get("/news").price(usd!("0.01")).v1().events(["one", "two"]);
/// // The first answer is lost after the payment. The same payment then gets the same answer again.
/// let order = Route::post("/order")
///     .price(usd!("1"))
///     .echo()
///     .idempotent()
///     .fault_once(Fault::DropAfterSettle);
/// ```
#[derive(Clone, Debug)]
#[must_use = "a route does nothing until a paywall has it"]
pub struct Route {
    pub(crate) methods: Vec<Method>,
    pub(crate) path: String,
    pub(crate) price: Price,
    pub(crate) payment_methods: Vec<PaymentMethod>,
    pub(crate) charge: Option<Charge>,
    pub(crate) versions: Vec<Version>,
    pub(crate) asset: Option<Asset>,
    pub(crate) pay_to: Option<Address>,
    pub(crate) max_timeout_seconds: u64,
    pub(crate) flow: Flow,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
    pub(crate) delay: Option<Duration>,
    pub(crate) challenge_headers: HeaderMap,
    pub(crate) extensions: Map<String, Value>,
    pub(crate) description: String,
    pub(crate) encoding: Option<Encoding>,
    pub(crate) idempotent: bool,
    pub(crate) signer: Option<OfferSigner>,
    pub(crate) key: Option<AcceptedKey>,
    pub(crate) entrance: Option<Entrance>,
    pub(crate) faults: Faults,
    pub(crate) mistake: Option<String>,
}

/// An API key that a route accepts instead of a payment.
#[derive(Clone)]
pub(crate) struct AcceptedKey {
    /// The name of a header, or `?` and the name of a query parameter.
    place: String,
    value: String,
    /// The number of calls that the key is good for, and the status of the calls after them.
    pub(crate) quota: Option<(usize, StatusCode)>,
}

impl fmt::Debug for AcceptedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptedKey")
            .field("place", &self.place)
            .field("quota", &self.quota)
            .finish_non_exhaustive()
    }
}

impl AcceptedKey {
    /// Returns `None` if the request has no key, and otherwise whether it is this key.
    pub(crate) fn is_in(&self, received: &ReceivedRequest) -> Option<bool> {
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

/// The content that a route delivers.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Bytes(Bytes),
    Chunks(Vec<Bytes>),
    Echo,
    ByRequest(Handler<Answer>),
}

/// The extension with which buyers name their purchase.
pub(crate) const PAYMENT_IDENTIFIER: &str = "payment-identifier";

impl Route {
    /// Returns a route for these methods, or for all methods if there are none.
    ///
    /// A path that ends in `*` matches every path with the same beginning.
    pub fn new(methods: impl IntoIterator<Item = Method>, path: impl Into<String>) -> Self {
        Self {
            methods: methods.into_iter().collect(),
            path: path.into(),
            price: Price::Free,
            payment_methods: vec![PaymentMethod::Eip3009],
            charge: None,
            versions: vec![Version::V2],
            asset: None,
            pay_to: None,
            max_timeout_seconds: 60,
            flow: Flow::Authorization,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Bytes(Bytes::new()),
            delay: None,
            challenge_headers: HeaderMap::new(),
            extensions: Map::new(),
            description: String::new(),
            encoding: None,
            idempotent: false,
            signer: None,
            key: None,
            entrance: None,
            faults: Faults::default(),
            mistake: None,
        }
    }

    /// Returns a route for `GET` and `HEAD`.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new([Method::GET, Method::HEAD], path)
    }

    /// Returns a route for `POST`.
    pub fn post(path: impl Into<String>) -> Self {
        Self::new([Method::POST], path)
    }

    /// Returns a route for every method.
    pub fn any(path: impl Into<String>) -> Self {
        Self::new([], path)
    }

    /// Accepts an API key instead of a payment.
    ///
    /// `place` is the name of a header, such as `authorization`, or `?` and the name of a query parameter, such as
    /// `?key`. `value` is the whole value, such as `Bearer secret`. The route answers 401 to another value, and to a
    /// request without a key if the route has no price.
    pub fn accepts_key(mut self, place: &str, value: &str) -> Self {
        self.key = Some(AcceptedKey {
            place: place.to_owned(),
            value: value.to_owned(),
            quota: None,
        });
        self
    }

    /// Limits the key to this many calls. Later calls are answered with this status, such as 429.
    ///
    /// Call it after [`accepts_key`](Self::accepts_key).
    pub fn key_quota(mut self, calls: usize, status: u16) -> Self {
        match (StatusCode::from_u16(status), &mut self.key) {
            (Ok(status), Some(key)) => key.quota = Some((calls, status)),
            _ => {
                self.mistake =
                    Some("call key_quota after accepts_key, with a valid status".to_owned())
            }
        }
        self
    }

    /// Offers a sign-in with `sign-in-with-x`: a buyer who has paid for the path may come again without a payment.
    ///
    /// As official sellers do, the paywall remembers buyers by path and address. Method and query do not matter. It accepts each
    /// challenge once.
    ///
    /// ```
    /// use bursar::policy::SignIn;
    /// use bursar::{Client, Ledger, LocalSigner, Policy, usd};
    /// use bursar_testing::{Paywall, Route};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let route = Route::get("/report").price(usd!("0.01")).sign_in();
    /// let seller = Paywall::builder().route(route).start().await?;
    /// let client = Client::builder()
    ///     .signer(LocalSigner::random()?)
    ///     .policy(Policy::new().allow_network("base-sepolia").sign_in(SignIn::Known))
    ///     .ledger(Ledger::memory())
    ///     .allow_http_loopback(true)
    ///     .build()?;
    /// for _ in 0..3 {
    ///     client.get(seller.url("/report")).send().await?;
    /// }
    /// assert_eq!(seller.settlements().len(), 1);
    /// assert_eq!(seller.sign_ins().len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub fn sign_in(mut self) -> Self {
        self.entrance.get_or_insert_default();
        self
    }

    /// Asks for a sign-in and no payment: the terms have no offer, and every address may come in.
    pub fn sign_in_only(mut self) -> Self {
        self.price = Price::Offers(Vec::new());
        self.entrance.get_or_insert_default().is_only_way = true;
        self
    }

    /// Makes the route misbehave with sign-ins, which it offers as [`sign_in`](Self::sign_in) does.
    pub fn sign_in_fault(mut self, fault: SignInFault) -> Self {
        self.entrance.get_or_insert_default().fault = Some(fault);
        self
    }

    /// Sets the price. It is paid in the route's token.
    pub fn price(mut self, price: Usd) -> Self {
        self.price = Price::Dollars(price);
        self
    }

    /// Sets a price that depends on the request. A request is free if the price is `None` or zero.
    ///
    /// A paid request has its price computed again, so the same request must always have the same price. The paywall is
    /// locked during the call: do not call its methods from here.
    ///
    /// ```
    /// use bursar::Usd;
    /// use bursar_testing::{Answer, Route};
    ///
    /// // A cent for every kilobyte of text. An empty text is refused, and costs nothing.
    /// let translation = Route::post("/translate")
    ///     .price_by(|request| {
    ///         let kilobytes = u64::try_from(request.body.len().div_ceil(1_000)).ok()?;
    ///         Some(Usd::from_micros(kilobytes * 10_000))
    ///     })
    ///     .respond(|request| match request.body.len() {
    ///         0 => Answer::new("no text").status(400),
    ///         length => Answer::new(format!("{length} bytes, translated")),
    ///     });
    /// ```
    pub fn price_by(
        mut self,
        price: impl Fn(&ReceivedRequest) -> Option<Usd> + Send + Sync + 'static,
    ) -> Self {
        self.price = Price::ByRequest(Handler::new(price));
        self
    }

    /// Sets the elements of `accepts`, byte for byte. They replace the offer made from price, token and payee.
    ///
    /// Any JSON is possible. The paywall verifies and settles payments for `exact` and `upto` offers. It states the other
    /// offers and accepts no payment for them.
    pub fn offers<T: Into<String>>(mut self, offers: impl IntoIterator<Item = T>) -> Self {
        let offers: Result<Vec<_>, _> = offers
            .into_iter()
            .map(|offer| RawValue::from_string(offer.into()))
            .collect();
        match offers {
            Ok(offers) => self.price = Price::Offers(offers),
            Err(error) => self.add_mistake(format!("an offer is not JSON: {error}")),
        }
        self
    }

    /// Sets the ways to pay, one offer for each, in this order. The default is [`PaymentMethod::Eip3009`] alone.
    ///
    /// Version 1 has offers for EIP-3009 alone.
    ///
    /// ```
    /// use bursar::usd;
    /// use bursar_testing::{PaymentMethod, Route};
    ///
    /// // The buyer chooses between two offers for the same price.
    /// let methods = [PaymentMethod::Eip3009, PaymentMethod::Permit2];
    /// let report = Route::get("/report").price(usd!("0.01")).paid_by(methods);
    /// ```
    pub fn paid_by(mut self, methods: impl IntoIterator<Item = PaymentMethod>) -> Self {
        self.payment_methods = methods.into_iter().collect();
        self
    }

    /// Sells by `exact` with Permit2 alone.
    ///
    /// A payer whose allowance of Permit2 is too small is answered with 412 and `permit2_allowance_required`. Set an
    /// allowance with [`PaywallBuilder::allowance`](crate::PaywallBuilder::allowance).
    ///
    /// ```
    /// use bursar::usd;
    /// use bursar_testing::{Paywall, Route};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let route = Route::get("/report").price(usd!("0.01")).permit2();
    /// let seller = Paywall::builder().route(route).start().await?;
    /// let offer = &seller.advertisement("/report", "")["accepts"][0];
    /// assert_eq!((&offer["scheme"], &offer["amount"]), (&"exact".into(), &"10000".into()));
    /// assert_eq!(offer["extra"]["assetTransferMethod"], "permit2");
    /// # Ok(())
    /// # }
    /// ```
    pub fn permit2(self) -> Self {
        self.paid_by([PaymentMethod::Permit2])
    }

    /// Sells by `upto` alone. The price is the ceiling that the buyer signs.
    ///
    /// The route charges the ceiling, unless you set a [`charge`](Self::charge). The receipt names the charge.
    ///
    /// ```
    /// use bursar::usd;
    /// use bursar_testing::{Paywall, Route};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let route = Route::get("/answer").price(usd!("0.10")).upto().charge(usd!("0.02"));
    /// let seller = Paywall::builder().route(route).start().await?;
    /// let offer = &seller.advertisement("/answer", "")["accepts"][0];
    /// assert_eq!((&offer["scheme"], &offer["amount"]), (&"upto".into(), &"100000".into()));
    /// assert!(offer["extra"]["facilitatorAddress"].is_string());
    /// # Ok(())
    /// # }
    /// ```
    pub fn upto(self) -> Self {
        self.paid_by([PaymentMethod::Upto])
    }

    /// Sets the amount that the route charges of an `upto` payment.
    ///
    /// A charge of zero settles nothing: the receipt has no transaction. A charge above the ceiling is refused, as by the
    /// official facilitator. Use [`Fault::ChargeCeiling`] and [`Forgery::AboveCeiling`](crate::Forgery::AboveCeiling) for
    /// sellers that charge or claim another amount.
    pub fn charge(mut self, charge: Usd) -> Self {
        self.charge = Some(Charge::Fixed(charge));
        self
    }

    /// Sets a charge of an `upto` payment that depends on the request.
    ///
    /// The paywall is locked during the call: do not call its methods from here. A charge with more decimals than the token
    /// is the ceiling.
    ///
    /// ```
    /// use bursar::{Usd, usd};
    /// use bursar_testing::Route;
    ///
    /// // At most a dollar, and a cent for each kilobyte.
    /// let translation = Route::post("/translate").price(usd!("1")).upto().charge_by(|request| {
    ///     let kilobytes = u64::try_from(request.body.len().div_ceil(1_000)).unwrap_or(u64::MAX);
    ///     Usd::from_micros(kilobytes.saturating_mul(10_000))
    /// });
    /// ```
    pub fn charge_by(
        mut self,
        charge: impl Fn(&ReceivedRequest) -> Usd + Send + Sync + 'static,
    ) -> Self {
        self.charge = Some(Charge::ByRequest(Handler::new(charge)));
        self
    }

    /// Sets the token. The default is the paywall's token.
    pub fn asset(mut self, asset: Asset) -> Self {
        self.asset = Some(asset);
        self
    }

    /// Sets the payee. The default is the paywall's payee.
    pub fn pay_to(mut self, payee: Address) -> Self {
        self.pay_to = Some(payee);
        self
    }

    /// Sets `maxTimeoutSeconds` of the offer. The default is 60.
    pub fn max_timeout_seconds(mut self, seconds: u64) -> Self {
        self.max_timeout_seconds = seconds;
        self
    }

    /// Uses x402 version 1: terms in the body, payment in `X-PAYMENT`.
    pub fn v1(mut self) -> Self {
        self.versions = vec![Version::V1];
        self
    }

    /// Uses both versions at once: version 2's terms in the header, version 1's terms in the body.
    pub fn v1_and_v2(mut self) -> Self {
        self.versions = vec![Version::V2, Version::V1];
        self
    }

    /// Settles before it produces the content, and states this in the offer.
    pub fn upfront(mut self) -> Self {
        self.flow = Flow::Upfront;
        self
    }

    /// Sets the status of the answer.
    ///
    /// An honest seller does not settle a payment if the status is 400 or above, unless it settles
    /// [`upfront`](Self::upfront).
    pub fn status(mut self, status: u16) -> Self {
        match StatusCode::from_u16(status) {
            Ok(status) => self.status = status,
            Err(_) => self.add_mistake(format!("{status} is not an HTTP status")),
        }
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match header(name, value) {
            Ok((name, value)) => drop(self.headers.append(name, value)),
            Err(mistake) => self.add_mistake(mistake),
        }
        self
    }

    /// Adds a header to every 402 of this route.
    pub fn challenge_header(mut self, name: &str, value: &str) -> Self {
        match header(name, value) {
            Ok((name, value)) => drop(self.challenge_headers.append(name, value)),
            Err(mistake) => self.add_mistake(mistake),
        }
        self
    }

    /// Sets the body of the answer.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.content = Content::Bytes(body.into());
        self
    }

    /// Sends the head of the content, free or paid, only after this time. A 402 comes at once, and a payment settles at once.
    ///
    /// So does a model that answers in one piece.
    pub fn delay(mut self, time: Duration) -> Self {
        self.delay = Some(time);
        self
    }

    /// Sets a JSON body and its content type.
    ///
    /// ```
    /// use bursar::usd;
    /// use bursar_testing::Route;
    /// use serde_json::json;
    ///
    /// let weather = Route::get("/weather").price(usd!("0.01")).json(json!({ "city": "Oslo" }));
    /// ```
    pub fn json(self, body: impl Borrow<Value>) -> Self {
        self.header("content-type", "application/json")
            .body(body.borrow().to_string())
    }

    /// Sets a body in chunks, without a `Content-Length`.
    pub fn chunks<T: Into<Bytes>>(mut self, chunks: impl IntoIterator<Item = T>) -> Self {
        self.content = Content::Chunks(chunks.into_iter().map(Into::into).collect());
        self
    }

    /// Sets a body of server-sent events with these data, one event in each chunk.
    pub fn events<T: fmt::Display>(self, data: impl IntoIterator<Item = T>) -> Self {
        let events = data.into_iter().map(|data| format!("data: {data}\n\n"));
        self.header("content-type", "text/event-stream")
            .chunks(events.collect::<Vec<_>>())
    }

    /// Answers with the body and the content type of the request.
    pub fn echo(mut self) -> Self {
        self.content = Content::Echo;
        self
    }

    /// Answers by the request. The answer replaces [`status`](Self::status); headers of the route are added to it.
    ///
    /// The paywall calls the handler when a request is free or its payment is valid, before it settles. It does not settle
    /// if the status is 400 or above, unless the route settles [`upfront`](Self::upfront). The paywall is locked during the
    /// call: do not call its methods from here. [`price_by`](Self::price_by) has an example.
    pub fn respond(
        mut self,
        handler: impl Fn(&ReceivedRequest) -> Answer + Send + Sync + 'static,
    ) -> Self {
        self.content = Content::ByRequest(Handler::new(handler));
        self
    }

    /// Redirects with 307 to a path or a URL. Call [`status`](Self::status) afterwards to set another status.
    pub fn redirect(self, to: &str) -> Self {
        self.status(307).header(LOCATION.as_str(), to)
    }

    /// Sets how terms and receipts are written. The default is standard base64.
    pub fn encoding(mut self, encoding: Encoding) -> Self {
        self.encoding = Some(encoding);
        self
    }

    /// Sets the description of the resource in version 2's terms.
    ///
    /// The paywall refuses a payment that repeats more than 500 characters of it, as Coinbase's facilitator does.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    /// Declares an extension in version 2's terms. A buyer that sends extensions must repeat it.
    pub fn extension(mut self, name: &str, declaration: Value) -> Self {
        self.extensions.insert(name.to_owned(), declaration);
        self
    }

    /// Accepts an approval of Permit2 that the buyer signs by EIP-2612: declares `eip2612GasSponsoring`.
    ///
    /// [`Paywall::approvals`](crate::Paywall::approvals) shows the approvals.
    pub fn sponsors_permits(self) -> Self {
        self.extension(BY_PERMIT, sponsorship::declaration(BY_PERMIT))
    }

    /// Accepts an approval of Permit2 as a signed transaction, which the facilitator sends: declares
    /// `erc20ApprovalGasSponsoring`.
    ///
    /// [`Paywall::approvals`](crate::Paywall::approvals) shows the approvals.
    pub fn sponsors_approvals(self) -> Self {
        self.extension(BY_TRANSACTION, sponsorship::declaration(BY_TRANSACTION))
    }

    /// Asks for a payment identifier. If it is `required`, a payment without one is answered with 400.
    ///
    /// The same payment with the same identifier gets the same answer again. Another payment with that identifier is
    /// answered with 409.
    pub fn payment_identifier(self, required: bool) -> Self {
        let schema = json!({ "type": "object", "properties": { "id": { "type": "string" } } });
        self.extension(
            PAYMENT_IDENTIFIER,
            json!({ "info": { "required": required }, "schema": schema }),
        )
    }

    /// Answers a payment that was settled before with the same answer again.
    ///
    /// Without this setting the route refuses such a payment because its nonce is used, as official sellers do.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// Signs the offers and the receipts of version 2, and makes the signer the payee.
    ///
    /// Call [`pay_to`](Self::pay_to) afterwards for a payee with another key.
    pub fn sign_offers(mut self, signer: OfferSigner) -> Self {
        self.pay_to = Some(signer.address());
        self.signer = Some(signer);
        self
    }

    /// Adds a fault that strikes every time.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.always.push(fault);
        self
    }

    /// Adds a fault that strikes once. Several of them strike one after the other, in this order.
    pub fn fault_once(mut self, fault: Fault) -> Self {
        self.faults.once.push(fault);
        self
    }

    /// Returns the listing of the route, in the first version that it supports.
    pub(crate) fn advertisement(
        &self,
        conditions: &Conditions,
        url: &Url,
        description: &str,
    ) -> Value {
        let version = self.versions.first().copied().unwrap_or(Version::V2);
        let accepts: Vec<Box<RawValue>> = match &self.price {
            Price::Free | Price::ByRequest(_) => Vec::new(),
            Price::Dollars(price) => conditions.offers(*price, version, url.as_str()),
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

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self.path.strip_suffix('*') {
            Some(prefix) => path.starts_with(prefix),
            None => path == self.path,
        }
    }

    pub(crate) fn allows(&self, method: &Method) -> bool {
        self.methods.is_empty() || self.methods.contains(method)
    }

    pub(crate) fn supports(&self, version: Version) -> bool {
        self.versions.contains(&version)
    }

    /// Keeps the first mistake. The paywall reports it when it starts.
    fn add_mistake(&mut self, mistake: String) {
        self.mistake.get_or_insert(mistake);
    }
}

pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        _ => Err(format!("`{name}: {value}` is not a header")),
    }
}
