//! The payer as a [`reqwest_middleware::Middleware`], for clients that are a stack of them.
//!
//! Put it outside any retry middleware: then one payment is one purchase however often the retry
//! sends its request. The HTTP client at the bottom must not follow redirects, which would carry a
//! payment header to other origins; [`http_client`] builds one that does not.
//!
//! ```
//! use bursar::middleware::{PaymentMiddleware, PaymentOptions, http_client};
//! use bursar::{LocalSigner, MemoryLedger, Payer, Policy};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let payer = Payer::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().network("base"))
//!     .ledger(MemoryLedger::new())
//!     .build()?;
//! let client = reqwest_middleware::ClientBuilder::new(http_client(reqwest::Client::builder())?)
//!     .with(PaymentMiddleware::new(payer))
//!     .build();
//! let request = client.get("https://api.example.com/report").with_extension(PaymentOptions::new().tag("research"));
//! # Ok(())
//! # }
//! ```

use std::fmt;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use crate::client::ANSWER_TIMEOUT;
use crate::client::guard::Guard;
use crate::exchange::{Deadline, Exchange, Options, Transport};
use crate::payer::{Payer, RetryPolicy};
use crate::policy::Amount;
use crate::{Error, ErrorKind, PurchaseIdError};

/// Pays 402 answers of the stack beneath it, under the payer's policy and books.
///
/// The same rules as [`Client`](crate::Client) apply: https only, one payment a request, a second
/// 402 is an error. Errors come back as [`reqwest_middleware::Error::Middleware`]; [`error`] finds
/// bursar's own in them.
#[derive(Clone, Debug)]
pub struct PaymentMiddleware {
    payer: Payer,
    guard: Guard,
    retry: RetryPolicy,
}

impl PaymentMiddleware {
    /// Pays with this payer.
    #[must_use]
    pub fn new(payer: Payer) -> Self {
        Self {
            payer,
            guard: Guard::default(),
            retry: RetryPolicy::default(),
        }
    }

    /// Allows plain http to this machine's loopback.
    #[must_use]
    pub const fn allow_http_loopback(mut self, allow: bool) -> Self {
        self.guard.http_loopback = allow;
        self
    }

    /// Sets how often a call sends a payment whose outcome is uncertain.
    ///
    /// See [`ClientBuilder::retry_policy`](crate::ClientBuilder::retry_policy).
    #[must_use]
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }
}

/// How one request is to be bought: an extension of the request, see
/// [`reqwest_middleware::RequestBuilder::with_extension`].
#[derive(Clone, Default)]
pub struct PaymentOptions(Options);

impl fmt::Debug for PaymentOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaymentOptions").finish_non_exhaustive()
    }
}

impl PaymentOptions {
    /// As the policy says, and no more.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// See [`RequestBuilder::max_price`](crate::RequestBuilder::max_price).
    #[must_use]
    pub fn max_price(mut self, max: impl Into<Amount>) -> Self {
        self.0.max_price = Some(max.into());
        self
    }

    /// See [`RequestBuilder::purchase_id`](crate::RequestBuilder::purchase_id).
    ///
    /// # Errors
    /// When the text is not a purchase id.
    pub fn purchase_id(mut self, id: &str) -> Result<Self, PurchaseIdError> {
        self.0.purchase_id = Some(id.parse()?);
        Ok(self)
    }

    /// See [`RequestBuilder::tag`](crate::RequestBuilder::tag).
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.0.tag = Some(tag.into());
        self
    }

    /// See [`RequestBuilder::no_payment`](crate::RequestBuilder::no_payment).
    #[must_use]
    pub const fn no_payment(mut self) -> Self {
        self.0.no_payment = true;
        self
    }

    /// See [`RequestBuilder::allow_duplicate`](crate::RequestBuilder::allow_duplicate).
    #[must_use]
    pub const fn allow_duplicate(mut self) -> Self {
        self.0.allow_duplicate = true;
        self
    }

    /// See [`RequestBuilder::accept_new_terms`](crate::RequestBuilder::accept_new_terms).
    #[must_use]
    pub const fn accept_new_terms(mut self) -> Self {
        self.0.accept_new_terms = true;
        self
    }
}

/// reqwest's client with redirects and referers off, for the bottom of the stack.
///
/// # Errors
/// When reqwest cannot start.
pub fn http_client(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    crate::client::safe(builder).build().map_err(Error::http)
}

/// bursar's error in a stack's, if it is one.
#[must_use]
pub fn error(error: &reqwest_middleware::Error) -> Option<&Error> {
    match error {
        reqwest_middleware::Error::Middleware(inner) => inner.downcast_ref(),
        reqwest_middleware::Error::Reqwest(_) => None,
    }
}

#[async_trait::async_trait]
impl Middleware for PaymentMiddleware {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        let options = extensions
            .get::<PaymentOptions>()
            .cloned()
            .unwrap_or_default();
        let deadline = Deadline::new(request.timeout().copied(), ANSWER_TIMEOUT);
        let mut stack = MiddlewareTransport { next, extensions };
        let time = (deadline, self.retry);
        let exchange = Exchange::new(&mut stack, Some(&self.payer), &self.guard, options.0, time);
        exchange
            .run(request)
            .await
            .map_err(reqwest_middleware::Error::middleware)
    }
}

/// The middleware beneath, and reqwest at the bottom.
struct MiddlewareTransport<'a> {
    next: Next<'a>,
    extensions: &'a mut Extensions,
}

impl Transport for MiddlewareTransport<'_> {
    async fn send(&mut self, request: Request) -> Result<Response, Error> {
        self.next
            .clone()
            .run(request, &mut *self.extensions)
            .await
            .map_err(|failure| match failure {
                reqwest_middleware::Error::Reqwest(failure) => Error::http(failure),
                reqwest_middleware::Error::Middleware(failure) => {
                    Error::new(ErrorKind::Transport, "a middleware beneath failed").because(failure)
                }
            })
    }
}
