//! What the user holds: the client and its requests.

mod builder;
pub(crate) mod guard;
mod request;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT;
use reqwest::{IntoUrl, Method, Response};
use url::Url;

pub use builder::ClientBuilder;
#[cfg(feature = "middleware")]
pub(crate) use builder::{ANSWER_TIMEOUT, safe};
pub use request::{Request, RequestBuilder};

use crate::Error;
use crate::credential::{CallPlan, Comparison, Credentials};
use crate::discovery::Discovery;
use crate::exchange::{Deadline, Exchange, Options, PriceOutcome, Transport};
use crate::ledger::{Filter, Finding, Purchase, PurchaseId};
use crate::payer::{Evidence, Payer, Reconciled, RetryPolicy};
use crate::policy::{Explanation, Hypothetical};
use crate::report::{Report, Selection};
use crate::signer::SignedCancellation;
use guard::Guard;

/// An HTTP client that pays when a seller asks it to and its policy allows it.
///
/// It mirrors [`reqwest::Client`] and returns plain [`reqwest::Response`]s; what was paid is asked
/// with [`ResponseExt`](crate::ResponseExt). Clones are cheap and share everything.
///
/// It is safe by default: https only, redirects within the origin before a payment and none after,
/// every answer bounded in time.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    payer: Option<Payer>,
    keys: Credentials,
    guard: Guard,
    answer_timeout: Duration,
    timeout: Option<Duration>,
    retry: RetryPolicy,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("payer", &self.inner.payer)
            .field("guard", &self.inner.guard)
            .finish_non_exhaustive()
    }
}

macro_rules! verbs {
    ($($name:ident => $method:ident),+ $(,)?) => {$(
        #[doc = concat!("A `", stringify!($method), "` request, as [`request`](Self::request) makes it.")]
        pub fn $name<U: IntoUrl>(&self, url: U) -> RequestBuilder {
            self.request(Method::$method, url)
        }
    )+};
}

impl Client {
    /// Builds a client.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    verbs! { get => GET, post => POST, put => PUT, patch => PATCH, delete => DELETE, head => HEAD }

    /// Begins a request. Mistakes in it are reported when it is sent.
    pub fn request<U: IntoUrl>(&self, method: Method, url: U) -> RequestBuilder {
        RequestBuilder::new(self.clone(), self.inner.http.request(method, url))
    }

    /// Sends a request that was built, paying if it must be and may be.
    ///
    /// # Errors
    /// Any [`Error`]; ask its [`spend`](Error::payment_status) first.
    pub async fn execute(&self, request: impl Into<Request>) -> Result<Response, Error> {
        let Request { request, options } = request.into();
        let mut wire = ReqwestTransport(&self.inner.http);
        let timeout = request.timeout().copied().or(self.inner.timeout);
        self.exchange(&mut wire, options, timeout)
            .run(request)
            .await
    }

    /// What the request would cost and what the policy and the books say to it. Nothing is signed
    /// and nothing is held.
    ///
    /// The request is sent without payment. Where it needs none it is executed, and its response
    /// is returned instead.
    ///
    /// # Errors
    /// The seller cannot be reached, its terms cannot be read, or the books cannot be used.
    pub async fn quote(&self, request: impl Into<Request>) -> Result<PriceOutcome, Error> {
        let Request { request, options } = request.into();
        let mut wire = ReqwestTransport(&self.inner.http);
        let timeout = request.timeout().copied().or(self.inner.timeout);
        self.exchange(&mut wire, options, timeout)
            .quote(request)
            .await
    }

    /// Looks for services that can be paid; see [`Discovery`].
    pub fn discover(&self) -> Discovery {
        Discovery::new(self)
    }

    /// A `GET` of what is free or not to be had, where the policy permits it: it carries neither payment nor
    /// key, and takes at most this long.
    pub(crate) async fn look(&self, url: Url, limit: Duration) -> Result<Response, Error> {
        let mut request = reqwest::Request::new(Method::GET, url);
        drop(
            request
                .headers_mut()
                .insert(ACCEPT, HeaderValue::from_static("application/json")),
        );
        let mut wire = ReqwestTransport(&self.inner.http);
        let options = Options {
            no_payment: true,
            ..Options::default()
        };
        let time = (
            Deadline::new(Some(limit), self.inner.answer_timeout),
            self.inner.retry,
        );
        Exchange::new(&mut wire, self.payer(), &self.inner.guard, options, time)
            .run(request)
            .await
    }

    /// Whether the transport's own rules allow a request there.
    pub(crate) fn may_go(&self, url: &Url) -> Result<(), Error> {
        self.inner.guard.check(url)
    }

    fn exchange<'a>(
        &'a self,
        wire: &'a mut ReqwestTransport<'a>,
        options: Options,
        timeout: Option<Duration>,
    ) -> Exchange<'a, ReqwestTransport<'a>> {
        let deadline = Deadline::new(timeout, self.inner.answer_timeout);
        let time = (deadline, self.inner.retry);
        Exchange::new(
            wire,
            self.inner.payer.as_ref(),
            &self.inner.guard,
            options,
            time,
        )
        .with_keys(&self.inner.keys)
    }

    /// The wallet with its policy and books, if the client has one.
    #[must_use]
    pub fn payer(&self) -> Option<&Payer> {
        self.inner.payer.as_ref()
    }

    /// How much of each limit is used and left.
    ///
    /// # Errors
    /// When the client has no wallet or the books cannot be read.
    pub async fn budget(&self) -> Result<Vec<Finding>, Error> {
        self.wallet()?.budget().await
    }

    /// Purchases in the books, oldest first.
    ///
    /// # Errors
    /// When the client has no wallet or the books cannot be read.
    pub async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, Error> {
        self.wallet()?.purchases(filter).await
    }

    /// Where the money went; see [`Payer::report`].
    ///
    /// # Errors
    /// When the client has no wallet or the books cannot be read.
    pub async fn report(&self, selection: &Selection) -> Result<Report, Error> {
        self.wallet()?.report(selection).await
    }

    /// What each rule says to a payment that nobody asked for, with the books as they are.
    ///
    /// # Errors
    /// When the client has no wallet, the URL no origin, or the books cannot be read.
    pub async fn explain(&self, payment: &Hypothetical) -> Result<Explanation, Error> {
        self.wallet()?.explain(payment).await
    }

    /// Compares the books with the chain; see [`Payer::reconcile`].
    ///
    /// # Errors
    /// When the client has no wallet or no chain to read, or the books cannot be used.
    pub async fn reconcile(&self) -> Result<Vec<Reconciled>, Error> {
        self.wallet()?.reconcile().await
    }

    /// Signs a cancellation of what was signed for a purchase; see [`Payer::cancel`].
    ///
    /// # Errors
    /// When the client has no wallet, and as [`Payer::cancel`].
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        self.wallet()?.cancel(purchase).await
    }

    /// Everything that the books know of one purchase, for a dispute.
    ///
    /// # Errors
    /// When the client has no wallet, or the books hold no such purchase or cannot be read.
    pub async fn evidence(&self, purchase: &PurchaseId) -> Result<Evidence, Error> {
        self.wallet()?.evidence(purchase).await
    }

    /// What calls to a host cost, and what a plan would have; see [`Payer::compare`].
    ///
    /// # Errors
    /// When the client has no wallet, the host is none, or the books cannot be read.
    pub async fn compare(&self, host: &str, plan: &CallPlan) -> Result<Comparison, Error> {
        self.wallet()?.compare(host, plan).await
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

/// reqwest, without anything between.
struct ReqwestTransport<'a>(&'a reqwest::Client);

impl Transport for ReqwestTransport<'_> {
    async fn send(&mut self, request: reqwest::Request) -> Result<Response, Error> {
        self.0.execute(request).await.map_err(Error::http)
    }
}
