//! The client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT;
use reqwest::{IntoUrl, Method, Response};
use url::Url;

use super::builder::ClientBuilder;
use super::egress::EgressRules;
use super::exchange::{Call, Exchange};
use super::request_builder::{Request, RequestBuilder};
use super::transport::ReqwestTransport;
use crate::credential::Credentials;
use crate::error::Error;
use crate::ledger::{Ledger, PurchaseId};
use crate::limit::LimitStatus;
use crate::payment::{Deadline, Payer, RetryPolicy};
use crate::policy::{AskingPrice, Explanation, PriceOutcome};
use crate::request::{PurchaseOptions, PurchaseRequest};
use crate::signer::SignedCancellation;

/// An HTTP client that pays when a seller demands it and the policy allows it.
///
/// It mirrors [`reqwest::Client`] and returns plain [`reqwest::Response`]s. Ask [`ResponseExt`](crate::ResponseExt) for
/// the payment of a response. Clones are cheap and share everything.
///
/// The client is safe by default: it sends over https only, it follows redirects only within the origin and only before
/// a payment, and it bounds every answer in time.
///
/// ```no_run
/// use bursar::{Client, LocalSigner, Ledger, Policy, ResponseExt, usd};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder()
///     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
///     .policy(Policy::new().allow_network("base").per_payment(usd!("0.05")))
///     .ledger(Ledger::memory())
///     .build()?;
/// let response = client.get("https://api.example.com/report").max_price(usd!("0.02")).send().await?;
/// println!("{}: {}", response.status(), response.payment_status());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub(super) http: reqwest::Client,
    pub(super) payer: Option<Payer>,
    pub(super) keys: Credentials,
    pub(super) egress: EgressRules,
    pub(super) answer_timeout: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) retry: RetryPolicy,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("payer", &self.inner.payer)
            .field("egress", &self.inner.egress)
            .finish_non_exhaustive()
    }
}

macro_rules! verbs {
    ($($name:ident => $method:ident),+ $(,)?) => {$(
        #[doc = concat!("Begins a `", stringify!($method), "` request; see [`request`](Self::request).")]
        pub fn $name<U: IntoUrl>(&self, url: U) -> RequestBuilder {
            self.request(Method::$method, url)
        }
    )+};
}

impl Client {
    /// Returns a builder.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    verbs! { get => GET, post => POST, put => PUT, patch => PATCH, delete => DELETE, head => HEAD }

    /// Begins a request. An error in its parts is reported when you send it.
    pub fn request<U: IntoUrl>(&self, method: Method, url: U) -> RequestBuilder {
        RequestBuilder::new(self.clone(), self.inner.http.request(method, url))
    }

    /// Sends a request, and pays if the seller demands it and the policy allows it.
    ///
    /// # Errors
    /// Any [`Error`]. Look at its [`payment_status`](Error::payment_status) first.
    pub async fn execute(&self, request: impl Into<Request>) -> Result<Response, Error> {
        let request = request.into();
        let mut transport = ReqwestTransport(&self.inner.http);
        let (request, call) = self.call(request);
        self.exchange(&mut transport, call).run(request).await
    }

    /// Returns the price of a request, and the answer of the policy and the ledger to it. Signs and reserves nothing.
    ///
    /// bursar sends the request without a payment. **The seller executes a request that is free**, and
    /// [`PriceOutcome::Unpriced`] holds its response.
    ///
    /// # Errors
    /// When the seller cannot be reached, its terms cannot be read, or the ledger cannot be read.
    pub async fn quote(
        &self,
        request: impl Into<Request>,
    ) -> Result<PriceOutcome<Response>, Error> {
        let request = request.into();
        let mut transport = ReqwestTransport(&self.inner.http);
        let (request, call) = self.call(request);
        self.exchange(&mut transport, call).quote(request).await
    }

    /// Sends a `GET` without a payment and without an API key, if the policy permits it.
    pub(crate) async fn look(&self, url: Url, limit: Duration) -> Result<Response, Error> {
        let mut request = reqwest::Request::new(Method::GET, url);
        drop(
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static("application/json")),
        );
        let mut transport = ReqwestTransport(&self.inner.http);
        let call = Call {
            options: PurchaseOptions::new().no_payment(),
            body_fn: None,
            deadline: Deadline::of(Some(limit), None, None),
            retry: self.inner.retry,
        };
        Exchange::new(&mut transport, self.payer(), &self.inner.egress, call)
            .run(request)
            .await
    }

    /// Checks the client's own rules for destinations.
    pub(crate) fn may_go(&self, url: &Url) -> Result<(), Error> {
        self.inner.egress.check(url)
    }

    /// Splits a request from the settings of its call.
    fn call(&self, request: Request) -> (reqwest::Request, Call) {
        let Request {
            request,
            options,
            body_fn,
        } = request;
        let (own, inner) = (request.timeout().copied(), &self.inner);
        let call = Call {
            options,
            body_fn,
            deadline: Deadline::of(own, inner.timeout, inner.answer_timeout),
            retry: self.inner.retry,
        };
        (request, call)
    }

    fn exchange<'a>(
        &'a self,
        transport: &'a mut ReqwestTransport<'a>,
        call: Call,
    ) -> Exchange<'a, ReqwestTransport<'a>> {
        Exchange::new(transport, self.payer(), &self.inner.egress, call).with_keys(&self.inner.keys)
    }

    /// Returns the payer, if the client has a wallet.
    #[must_use]
    pub fn payer(&self) -> Option<&Payer> {
        self.inner.payer.as_ref()
    }

    /// Returns the ledger, or `None` if the client has no wallet.
    #[must_use]
    pub fn ledger(&self) -> Option<&Ledger> {
        self.payer().map(Payer::ledger)
    }

    /// How much of each limit is used and left.
    ///
    /// # Errors
    /// Returns an error if the client has no wallet, or if the ledger cannot be read.
    pub async fn budget(&self) -> Result<Vec<LimitStatus>, Error> {
        self.wallet()?.budget().await
    }

    /// Returns the answer of each rule to a payment that nobody makes; see [`Payer::explain`].
    ///
    /// # Errors
    /// When the client has no wallet, and as [`Payer::explain`].
    pub async fn explain(
        &self,
        request: &PurchaseRequest,
        price: impl Into<AskingPrice>,
    ) -> Result<Explanation, Error> {
        self.wallet()?.explain(request, price).await
    }

    /// Signs a cancellation of the authorization of a purchase; see [`Payer::cancel`].
    ///
    /// # Errors
    /// When the client has no wallet, and as [`Payer::cancel`].
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        self.wallet()?.cancel(purchase).await
    }

    #[cfg(feature = "multipart")]
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.inner.http
    }

    fn wallet(&self) -> Result<&Payer, Error> {
        self.payer()
            .ok_or_else(|| Error::builder("the client has no wallet"))
    }
}
