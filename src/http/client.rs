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
use super::settings::CallSettings;
use super::transport::ReqwestTransport;
use crate::credential::Credentials;
use crate::error::Error;
use crate::ledger::{Ledger, PurchaseId};
use crate::limit::LimitStatus;
use crate::payment::{Deadline, Payer};
use crate::policy::{AskingPrice, Explanation, Policy, PriceOutcome};
use crate::request::{PurchaseOptions, PurchaseRequest};
use crate::signer::{SignedCancellation, Signer};

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
    pub(super) http: Http,
    pub(super) payer: Option<Payer>,
    pub(super) settings: CallSettings,
}

/// reqwest's client, or the reason why it did not start.
pub(super) type Http = Result<reqwest::Client, String>;

impl Inner {
    pub(super) fn http(&self) -> Result<&reqwest::Client, Error> {
        self.http
            .as_ref()
            .map_err(|reason| Error::builder(reason.clone()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("payer", &self.inner.payer)
            .field("egress", &self.inner.settings.egress)
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

/// The client of [`Client::new`].
impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// Returns a client without a wallet, with all defaults. It sends requests as any client does, and cannot pay.
    ///
    /// A 402 with terms becomes an error of the kind [`NoWallet`](crate::ErrorKind::NoWallet) that has the price. To receive
    /// the 402 itself, use [`no_payment`](RequestBuilder::no_payment). To pay, use [`builder`](Self::builder).
    ///
    /// This function does not panic. If reqwest cannot start, for example without a TLS library, each request fails with
    /// an error of the kind [`Builder`](crate::ErrorKind::Builder).
    ///
    /// ```no_run
    /// use bursar::{Client, ErrorKind};
    ///
    /// # async fn example() -> Result<(), bursar::Error> {
    /// let client = Client::new();
    /// match client.get("https://api.example.com/report").send().await {
    ///     Err(error) if error.kind() == ErrorKind::NoWallet => println!("{:?}", error.price_check()),
    ///     answer => println!("{}", answer?.status()),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let built = Self::builder().build();
        built.unwrap_or_else(|error| Self {
            inner: Arc::new(Inner {
                http: Err(error.message().to_owned()),
                payer: None,
                settings: CallSettings::default(),
            }),
        })
    }

    /// Returns a builder.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    verbs! { get => GET, post => POST, put => PUT, patch => PATCH, delete => DELETE, head => HEAD }

    /// Begins a request. An error in its parts is reported when you send it.
    pub fn request<U: IntoUrl>(&self, method: Method, url: U) -> RequestBuilder {
        let http = self.inner.http();
        RequestBuilder::new(self.clone(), http.map(|http| http.request(method, url)))
    }

    /// Sends a request, and pays if the seller demands it and the policy allows it.
    ///
    /// # Errors
    /// Any [`Error`]. Look at its [`payment_status`](Error::payment_status) first.
    pub async fn execute(&self, request: impl Into<Request>) -> Result<Response, Error> {
        let request = request.into();
        let mut transport = ReqwestTransport(self.inner.http()?);
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
        let mut transport = ReqwestTransport(self.inner.http()?);
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
        let mut transport = ReqwestTransport(self.inner.http()?);
        let call = Call {
            options: PurchaseOptions::new().no_payment(),
            body_fn: None,
            deadline: Deadline::of(Some(limit), None, None),
            retry: self.inner.settings.retry,
        };
        Exchange::new(&mut transport, self.payer(), self.egress(), call)
            .run(request)
            .await
    }

    /// Checks the client's own rules for destinations.
    pub(crate) fn may_go(&self, url: &Url) -> Result<(), Error> {
        self.egress().check(url)
    }

    /// Splits a request from the settings of its call.
    fn call(&self, request: Request) -> (reqwest::Request, Call) {
        let Request {
            request,
            options,
            body_fn,
        } = request;
        let own = request.timeout().copied();
        let call = self.inner.settings.call_with_body(options, own, body_fn);
        (request, call)
    }

    fn exchange<'a>(
        &'a self,
        transport: &'a mut ReqwestTransport<'a>,
        call: Call,
    ) -> Exchange<'a, ReqwestTransport<'a>> {
        let keys = &self.inner.settings.keys;
        Exchange::new(transport, self.payer(), self.egress(), call).with_keys(keys)
    }

    fn egress(&self) -> &EgressRules {
        &self.inner.settings.egress
    }

    fn with(&self, payer: Option<Payer>, settings: CallSettings) -> Self {
        Self {
            inner: Arc::new(Inner {
                http: self.inner.http.clone(),
                payer,
                settings,
            }),
        }
    }

    /// Returns a handle with these options for all of its requests, for example for one agent.
    ///
    /// The handle shares everything else: connections, ledger and remembered terms. It is cheap. Its options win over those
    /// of this client, and the options of a request win over both, member by member; see
    /// [`PurchaseOptions::with_defaults`].
    ///
    /// ```
    /// use bursar::{Client, PurchaseOptions, usd};
    ///
    /// fn agents(client: &Client) -> (Client, Client) {
    ///     let options = PurchaseOptions::new().max_price(usd!("0.02"));
    ///     let careful = client.with_options(options);
    ///     (
    ///         careful.with_options(PurchaseOptions::new().agent("researcher")),
    ///         careful.with_options(PurchaseOptions::new().agent("writer").tag("draft")),
    ///     )
    /// }
    /// # agents(&Client::new());
    /// ```
    #[must_use]
    pub fn with_options(&self, options: PurchaseOptions) -> Self {
        let settings = self.inner.settings.with_options(options);
        self.with(self.inner.payer.clone(), settings)
    }

    /// Returns a client under another policy. It shares everything else: connections, ledger and remembered terms.
    ///
    /// Calls of the new client follow the new policy. Calls of this client and of its clones keep the old one; see
    /// [`Payer::with_policy`].
    ///
    /// ```no_run
    /// use bursar::{Client, Policy, usd};
    ///
    /// # fn example(client: &mut Client) -> Result<(), bursar::Error> {
    /// *client = client.with_policy(Policy::new().allow_network("base").per_day(usd!("10")))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the client has no wallet, or the policy is not valid.
    pub fn with_policy(&self, policy: Policy) -> Result<Self, Error> {
        let payer = self.wallet()?.with_policy(policy)?;
        Ok(self.with(Some(payer), self.inner.settings.clone()))
    }

    /// Returns a client that pays with another key. It shares everything else: connections, ledger, policy and remembered
    /// terms; see [`Payer::with_signer`].
    ///
    /// # Errors
    /// When the client has no wallet.
    pub fn with_signer(&self, signer: impl Signer) -> Result<Self, Error> {
        let payer = self.wallet()?.with_signer(signer);
        Ok(self.with(Some(payer), self.inner.settings.clone()))
    }

    /// Returns a client with these API keys in place of its own, for example after they changed. It shares everything else:
    /// connections, ledger, policy and remembered terms.
    ///
    /// A host that an API key of this client [never pays](crate::credential::Preference::NeverPay) is not paid by the new
    /// client either. Thus a client with some of the keys can be made from a client with all of them.
    ///
    /// ```
    /// use bursar::{Client, Credentials};
    ///
    /// # fn example(client: &Client, keys: &Credentials) -> Result<(), bursar::Error> {
    /// let all = client.with_credentials(keys.clone())?;
    /// let some = all.with_credentials(keys.only("weather"))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When two of the keys contradict each other, as in [`ClientBuilder::build`].
    pub fn with_credentials(&self, keys: Credentials) -> Result<Self, Error> {
        keys.check()?;
        let payer = self.inner.payer.clone();
        let payer = payer.map(|payer| payer.with_keys(&keys));
        let settings = CallSettings {
            keys,
            ..self.inner.settings.clone()
        };
        Ok(self.with(payer, settings))
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

    /// How much of each limit is used and left; see [`Payer::budget`]. Limits of `each_agent` and the like are left out.
    /// [`explain`](Self::explain) shows the one of this handle.
    ///
    /// # Errors
    /// Returns an error if the client has no wallet, or if the ledger cannot be read.
    pub async fn budget(&self) -> Result<Vec<LimitStatus>, Error> {
        self.wallet()?.budget().await
    }

    /// Returns the answer of each rule to a payment that nobody makes; see [`Payer::explain`].
    ///
    /// The options of this client hold, as for its requests. So a handle with a tag or an agent explains the limits of it:
    ///
    /// ```
    /// use bursar::{Client, PurchaseOptions, PurchaseRequest, usd};
    ///
    /// # async fn example(client: Client) -> Result<(), bursar::Error> {
    /// let reader = client.with_options(PurchaseOptions::new().agent("reader"));
    /// let request = PurchaseRequest::new("GET", "https://api.example.com/report", b"")?;
    /// println!("{}", reader.explain(&request, usd!("0.05")).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When the client has no wallet, and as [`Payer::explain`].
    pub async fn explain(
        &self,
        request: &PurchaseRequest,
        price: impl Into<AskingPrice>,
    ) -> Result<Explanation, Error> {
        let request = request.with_default_options(&self.inner.settings.options);
        self.wallet()?.explain(&request, price).await
    }

    /// Signs a cancellation of the authorization of a purchase; see [`Payer::cancel`].
    ///
    /// # Errors
    /// When the client has no wallet, and as [`Payer::cancel`].
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        self.wallet()?.cancel(purchase).await
    }

    #[cfg(feature = "multipart")]
    pub(super) fn http(&self) -> Result<reqwest::Client, Error> {
        self.inner.http().cloned()
    }

    fn wallet(&self) -> Result<&Payer, Error> {
        self.payer().ok_or_else(|| {
            Error::builder(
                "the client has no wallet; build it with a signer, a policy and a ledger",
            )
        })
    }
}
