//! The payer as a [`reqwest_middleware::Middleware`].
//!
//! Add it outside any retry middleware. One payment is then one purchase, however often the retry middleware sends its
//! request. The HTTP client at the bottom must not follow redirects, because a redirect carries a payment header to
//! another origin. Build it with [`http_client`].
//!
//! ```
//! use bursar::middleware::{PaymentMiddleware, http_client};
//! use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseOptions};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let payer = Payer::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().allow_network("base"))
//!     .ledger(Ledger::memory())
//!     .build()?;
//! let client = reqwest_middleware::ClientBuilder::new(http_client(reqwest::Client::builder())?)
//!     .with(PaymentMiddleware::new(payer))
//!     .build();
//! let request = client
//!     .get("https://api.example.com/report")
//!     .with_extension(PurchaseOptions::new().tag("research"));
//! # Ok(())
//! # }
//! ```

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use crate::error::{Error, ErrorKind};
use crate::http::{ANSWER_TIMEOUT, Call, EgressRules, Exchange, HttpTransport, without_redirects};
use crate::payment::{Deadline, Payer, RetryPolicy};
use crate::request::PurchaseOptions;

/// Pays 402 answers of the middleware beneath it.
///
/// The rules are those of [`Client`](crate::Client): https only, one payment for a request, and a second 402 is an error.
/// Give a request [`PurchaseOptions`] with [`with_extension`](reqwest_middleware::RequestBuilder::with_extension). bursar's
/// errors come back as [`reqwest_middleware::Error::Middleware`]; call [`error`] to get them.
#[derive(Clone, Debug)]
pub struct PaymentMiddleware {
    payer: Payer,
    egress: EgressRules,
    retry: RetryPolicy,
}

impl PaymentMiddleware {
    /// Returns a middleware that pays with this payer.
    #[must_use]
    pub fn new(payer: Payer) -> Self {
        Self {
            payer,
            egress: EgressRules::default(),
            retry: RetryPolicy::default(),
        }
    }

    /// Allows plain http to the loopback of this machine.
    #[must_use]
    pub const fn allow_http_loopback(mut self, allow: bool) -> Self {
        self.egress.http_loopback = allow;
        self
    }

    /// Sets how often a call sends a payment whose outcome is uncertain; see [`RetryPolicy`].
    #[must_use]
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }
}

/// Returns reqwest's client without redirects and referers, for the bottom of the stack.
///
/// # Errors
/// When reqwest cannot start.
pub fn http_client(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    without_redirects(builder).build().map_err(Error::http)
}

/// Returns bursar's error inside an error of the stack, if it is one.
///
/// ```
/// use bursar::middleware;
///
/// fn may_be_paid(error: &reqwest_middleware::Error) -> bool {
///     let error = middleware::error(error);
///     error.is_some_and(|error| error.payment_status() != bursar::PaymentStatus::NotPaid)
/// }
/// ```
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
            .get::<PurchaseOptions>()
            .cloned()
            .unwrap_or_default();
        let call = Call {
            options,
            body_fn: None,
            deadline: Deadline::new(request.timeout().copied(), ANSWER_TIMEOUT),
            retry: self.retry,
        };
        let mut transport = MiddlewareTransport { next, extensions };
        Exchange::new(&mut transport, Some(&self.payer), &self.egress, call)
            .run(request)
            .await
            .map_err(reqwest_middleware::Error::middleware)
    }
}

/// The middleware beneath, with reqwest at the bottom.
struct MiddlewareTransport<'a> {
    next: Next<'a>,
    extensions: &'a mut Extensions,
}

impl HttpTransport for MiddlewareTransport<'_> {
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
