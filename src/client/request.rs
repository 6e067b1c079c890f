//! Building a request.

use std::fmt;
use std::time::Duration;

use http::Version;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Response};

use super::Client;
use crate::Error;
use crate::exchange::{BodyFn, Options, PriceOutcome};
use crate::ledger::PurchaseId;
use crate::policy::Amount;

/// A request under construction. Mirrors [`reqwest::RequestBuilder`]; what bursar adds comes last.
#[must_use = "RequestBuilder does nothing until you send it"]
pub struct RequestBuilder {
    client: Client,
    request: reqwest::RequestBuilder,
    options: Options,
    mistake: Option<Error>,
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// A request that was built, with how it is to be bought.
///
/// Made by [`RequestBuilder::build`], or from a [`reqwest::Request`].
pub struct Request {
    pub(super) request: reqwest::Request,
    pub(super) options: Options,
}

impl Request {
    /// The request as reqwest sends it.
    #[must_use]
    pub const fn request(&self) -> &reqwest::Request {
        &self.request
    }

    /// The request as reqwest sends it, to be changed.
    pub const fn request_mut(&mut self) -> &mut reqwest::Request {
        &mut self.request
    }

    /// A copy, unless the body is a stream that is not made by
    /// [`body_fn`](RequestBuilder::body_fn). A purchase id is copied too: both are one purchase.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        Some(Self {
            request: self.request.try_clone()?,
            options: self.options.clone(),
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Request").field(&self.request).finish()
    }
}

impl From<reqwest::Request> for Request {
    fn from(request: reqwest::Request) -> Self {
        Self {
            request,
            options: Options::default(),
        }
    }
}

impl RequestBuilder {
    pub(super) fn new(client: Client, request: reqwest::RequestBuilder) -> Self {
        Self {
            client,
            request,
            options: Options::default(),
            mistake: None,
        }
    }

    fn map(
        mut self,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Self {
        self.request = change(self.request);
        self
    }

    /// Adds a header.
    pub fn header<K, V>(self, name: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.map(|request| request.header(name, value))
    }

    /// Adds headers, replacing those already set.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.map(|request| request.headers(headers))
    }

    /// Sets HTTP basic authentication.
    pub fn basic_auth<U: fmt::Display, P: fmt::Display>(
        self,
        username: U,
        password: Option<P>,
    ) -> Self {
        self.map(|request| request.basic_auth(username, password))
    }

    /// Sets HTTP bearer authentication.
    pub fn bearer_auth<T: fmt::Display>(self, token: T) -> Self {
        self.map(|request| request.bearer_auth(token))
    }

    /// Sets the body. A stream can be sent once only; where payment is required, use
    /// [`body_fn`](Self::body_fn) for it.
    pub fn body<T: Into<Body>>(self, body: T) -> Self {
        self.map(|request| request.body(body))
    }

    /// Bounds the whole call, payment and body included. Payment or not, the seller may settle an
    /// authorization whose answer came too late.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|request| request.timeout(timeout))
    }

    /// Sets the HTTP version.
    pub fn version(self, version: Version) -> Self {
        self.map(|request| request.version(version))
    }

    /// Adds to the URL's query.
    #[cfg(feature = "query")]
    pub fn query<T: serde::Serialize + ?Sized>(self, query: &T) -> Self {
        self.map(|request| request.query(query))
    }

    /// Sends a URL-encoded form.
    #[cfg(feature = "form")]
    pub fn form<T: serde::Serialize + ?Sized>(self, form: &T) -> Self {
        self.map(|request| request.form(form))
    }

    /// Sends JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(self, json: &T) -> Self {
        self.map(|request| request.json(json))
    }

    /// Sends a multipart form. It is a stream, which can be sent once only: where payment is
    /// required, use [`multipart_fn`](Self::multipart_fn).
    #[cfg(feature = "multipart")]
    pub fn multipart(self, form: reqwest::multipart::Form) -> Self {
        self.map(|request| request.multipart(form))
    }

    /// Makes the body anew for each sending: for streams, which can be sent once only.
    pub fn body_fn<B: Into<Body>>(mut self, make: impl Fn() -> B + Send + Sync + 'static) -> Self {
        self.options.body_fn = Some(BodyFn::new(move |mut request| {
            *request.body_mut() = Some(make().into());
            Ok(request)
        }));
        self
    }

    /// Makes a multipart form anew for each sending.
    #[cfg(feature = "multipart")]
    pub fn multipart_fn(
        mut self,
        make: impl Fn() -> reqwest::multipart::Form + Send + Sync + 'static,
    ) -> Self {
        let client = self.client.clone();
        self.options.body_fn = Some(BodyFn::new(move |head| {
            let request = reqwest::RequestBuilder::from_parts(client.http().clone(), head);
            request.multipart(make()).build()
        }));
        self
    }

    /// Does not pay more than this for the request, whatever the policy allows.
    pub fn max_price(mut self, max: impl Into<Amount>) -> Self {
        self.options.max_price = Some(max.into());
        self
    }

    /// Buys under your own id, of 1 to 128 printable ASCII characters. A second request with it, in
    /// this process or another on the same books, is the same purchase: it is presented again, and
    /// paid once. The id with another request is an error.
    pub fn purchase_id(mut self, id: &str) -> Self {
        match id.parse::<PurchaseId>() {
            Ok(id) => self.options.purchase_id = Some(id),
            Err(error) => self.mistake = Some(error.into()),
        }
        self
    }

    /// Books the payment under a tag, which the policy may limit.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.options.tag = Some(tag.into());
        self
    }

    /// Never pays: a 402 is returned as it is.
    pub const fn no_payment(mut self) -> Self {
        self.options.no_payment = true;
        self
    }

    /// Buys again even while an identical request is unresolved.
    ///
    /// Without it, a request with the same method, URL and body as one whose payment was signed and
    /// not answered for certain presents that payment again, so that a retry of any kind pays once.
    pub const fn allow_duplicate(mut self) -> Self {
        self.options.allow_duplicate = true;
        self
    }

    /// Accepts changed terms once: when the seller answers the payment with another 402, its new
    /// terms pass the whole policy again and are signed with the purchase's nonce, so that the chain
    /// accepts at most one of the two.
    pub const fn accept_new_terms(mut self) -> Self {
        self.options.accept_new_terms = true;
        self
    }

    /// A copy, unless the body is a stream.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        if self.mistake.is_some() {
            return None;
        }
        let request = self.request.try_clone()?;
        Some(Self {
            client: self.client.clone(),
            request,
            options: self.options.clone(),
            mistake: None,
        })
    }

    /// The request, to be given to [`Client::execute`] or [`Client::quote`].
    ///
    /// # Errors
    /// A mistake made in building it.
    pub fn build(self) -> Result<Request, Error> {
        match self.mistake {
            Some(mistake) => Err(mistake),
            None => Ok(Request {
                request: self.request.build().map_err(Error::http)?,
                options: self.options,
            }),
        }
    }

    /// Sends the request, paying if it must be and may be.
    ///
    /// # Errors
    /// Any [`Error`]; ask its [`spend`](Error::payment_status) first.
    pub async fn send(self) -> Result<Response, Error> {
        let client = self.client.clone();
        client.execute(self.build()?).await
    }

    /// What the request would cost; see [`Client::quote`].
    ///
    /// # Errors
    /// As [`Client::quote`].
    pub async fn quote(self) -> Result<PriceOutcome, Error> {
        let client = self.client.clone();
        client.quote(self.build()?).await
    }
}
