//! Building a request.

use std::fmt;
use std::time::Duration;

use http::Version;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Response};

use super::client::Client;
use super::replay::BodyFn;
use crate::error::Error;
use crate::policy::PriceOutcome;
use crate::request::{PurchaseOptions, purchase_setters};

/// A request under construction.
///
/// It mirrors [`reqwest::RequestBuilder`] and adds the setters of [`PurchaseOptions`].
///
/// ```no_run
/// use std::time::Duration;
/// use bursar::{Client, usd};
///
/// # async fn example(client: Client) -> Result<(), bursar::Error> {
/// let response = client
///     .post("https://api.example.com/render")
///     .header("accept", "image/png")
///     .body("a lighthouse")
///     .timeout(Duration::from_secs(60))
///     .max_price(usd!("0.10"))
///     .purchase_id("picture-42")
///     .send()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "RequestBuilder does nothing until you send it"]
pub struct RequestBuilder {
    client: Client,
    request: Result<reqwest::RequestBuilder, Error>,
    options: PurchaseOptions,
    body_fn: Option<BodyFn>,
}

impl fmt::Debug for RequestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBuilder")
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// A finished request and the options for paying it.
///
/// Make it with [`RequestBuilder::build`], from a [`reqwest::Request`], or from an `http::Request`. The extensions of the last
/// can hold [`PurchaseOptions`].
///
/// ```no_run
/// use bursar::{Client, Request, usd};
///
/// # async fn example(client: Client, request: bursar::reqwest::Request) -> Result<(), bursar::Error> {
/// let request = Request::from(request).tag("research").max_price(usd!("0.02"));
/// let response = client.execute(request).await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a request does nothing until you execute it"]
pub struct Request {
    pub(super) request: reqwest::Request,
    pub(super) options: PurchaseOptions,
    pub(super) body_fn: Option<BodyFn>,
}

impl Request {
    /// Returns the request as reqwest sends it.
    #[must_use]
    pub const fn request(&self) -> &reqwest::Request {
        &self.request
    }

    /// Returns the request as reqwest sends it, to change it.
    pub const fn request_mut(&mut self) -> &mut reqwest::Request {
        &mut self.request
    }

    purchase_setters!();

    /// Replaces all purchase options of this request. The options of the client stay its defaults.
    pub fn options(mut self, options: PurchaseOptions) -> Self {
        self.options = options;
        self
    }

    const fn options_mut(&mut self) -> &mut PurchaseOptions {
        &mut self.options
    }

    /// Returns a copy, or `None` if the body is a stream that [`body_fn`](RequestBuilder::body_fn) does not make. The copy
    /// has the same purchase id, so both requests are one purchase.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        Some(Self {
            request: self.request.try_clone()?,
            options: self.options.clone(),
            body_fn: self.body_fn.clone(),
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
            options: PurchaseOptions::default(),
            body_fn: None,
        }
    }
}

/// Takes [`PurchaseOptions`] from the extensions of the request.
impl<B: Into<Body>> TryFrom<http::Request<B>> for Request {
    type Error = Error;

    fn try_from(mut request: http::Request<B>) -> Result<Self, Error> {
        let options = request.extensions_mut().remove::<PurchaseOptions>();
        let request = reqwest::Request::try_from(request)
            .map_err(|error| Error::builder("the request has no absolute URL").because(error))?;
        Ok(Self::from(request).options(options.unwrap_or_default()))
    }
}

impl RequestBuilder {
    pub(super) fn new(client: Client, request: Result<reqwest::RequestBuilder, Error>) -> Self {
        Self {
            client,
            request,
            options: PurchaseOptions::default(),
            body_fn: None,
        }
    }

    fn map(
        mut self,
        change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Self {
        self.request = self.request.map(change);
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

    /// Adds headers, and replaces those of the same name.
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

    /// Sets the body.
    ///
    /// A stream can be sent only once. Use [`body_fn`](Self::body_fn) for a stream that may have to be paid for.
    pub fn body<T: Into<Body>>(self, body: T) -> Self {
        self.map(|request| request.body(body))
    }

    /// Sets how long the whole call may take, with payment and body. It replaces all bounds of the client, longer or
    /// shorter.
    ///
    /// The seller may still settle a payment whose answer came too late. The error then says `MaybePaid`.
    pub fn timeout(self, timeout: Duration) -> Self {
        self.map(|request| request.timeout(timeout))
    }

    /// Sets the HTTP version.
    pub fn version(self, version: Version) -> Self {
        self.map(|request| request.version(version))
    }

    /// Adds parameters to the query of the URL.
    #[cfg(feature = "query")]
    pub fn query<T: serde::Serialize + ?Sized>(self, query: &T) -> Self {
        self.map(|request| request.query(query))
    }

    /// Sets a URL-encoded form as the body.
    #[cfg(feature = "form")]
    pub fn form<T: serde::Serialize + ?Sized>(self, form: &T) -> Self {
        self.map(|request| request.form(form))
    }

    /// Sets JSON as the body.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(self, json: &T) -> Self {
        self.map(|request| request.json(json))
    }

    /// Sets a multipart form as the body.
    ///
    /// The form is a stream, which can be sent only once. Use [`multipart_fn`](Self::multipart_fn) for a form that may have
    /// to be paid for.
    #[cfg(feature = "multipart")]
    pub fn multipart(self, form: reqwest::multipart::Form) -> Self {
        self.map(|request| request.multipart(form))
    }

    /// Sets a function that makes a new body each time the request is sent.
    ///
    /// Use it for streams. bursar sends a request twice when the seller demands a payment.
    ///
    /// ```no_run
    /// # async fn example(client: bursar::Client) -> Result<(), bursar::Error> {
    /// let response = client
    ///     .post("https://api.example.com/upload")
    ///     .body_fn(|| "a body, or a stream")
    ///     .send()
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn body_fn<B: Into<Body>>(mut self, make: impl Fn() -> B + Send + Sync + 'static) -> Self {
        self.body_fn = Some(BodyFn::new(move |mut request| {
            *request.body_mut() = Some(make().into());
            Ok(request)
        }));
        self
    }

    /// Sets a function that makes a new multipart form each time the request is sent.
    #[cfg(feature = "multipart")]
    pub fn multipart_fn(
        mut self,
        make: impl Fn() -> reqwest::multipart::Form + Send + Sync + 'static,
    ) -> Self {
        match self.client.http() {
            Ok(http) => {
                self.body_fn = Some(BodyFn::new(move |head| {
                    let request = reqwest::RequestBuilder::from_parts(http.clone(), head);
                    request.multipart(make()).build()
                }));
            }
            Err(error) => self.request = Err(error),
        }
        self
    }

    purchase_setters!();

    /// Replaces all purchase options of this request. The options of the client stay its defaults; see
    /// [`Client::with_options`].
    pub fn options(mut self, options: PurchaseOptions) -> Self {
        self.options = options;
        self
    }

    const fn options_mut(&mut self) -> &mut PurchaseOptions {
        &mut self.options
    }

    /// Returns a copy, or `None` if the body is a stream.
    #[must_use]
    pub fn try_clone(&self) -> Option<Self> {
        Some(Self {
            client: self.client.clone(),
            request: Ok(self.request.as_ref().ok()?.try_clone()?),
            options: self.options.clone(),
            body_fn: self.body_fn.clone(),
        })
    }

    /// Returns the request, for [`Client::execute`] or [`Client::quote`].
    ///
    /// # Errors
    /// When a part of the request or the purchase id is not valid.
    pub fn build(self) -> Result<Request, Error> {
        self.options.id()?;
        Ok(Request {
            request: self.request?.build().map_err(Error::http)?,
            options: self.options,
            body_fn: self.body_fn,
        })
    }

    /// Sends the request, and pays if the seller demands it and the policy allows it.
    ///
    /// # Errors
    /// Any [`Error`]. Look at its [`payment_status`](Error::payment_status) first.
    pub async fn send(self) -> Result<Response, Error> {
        let client = self.client.clone();
        client.execute(self.build()?).await
    }

    /// Returns the price of the request; see [`Client::quote`].
    ///
    /// # Errors
    /// As [`Client::quote`].
    pub async fn quote(self) -> Result<PriceOutcome<Response>, Error> {
        let client = self.client.clone();
        client.quote(self.build()?).await
    }
}
