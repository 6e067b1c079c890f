//! The payer as a [`reqwest_middleware::Middleware`].
//!
//! [`client`] begins a stack with it. Add your own middleware after it, such as a retry. One payment is then one purchase,
//! however often the retry sends its request.
//!
//! ```
//! use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseOptions, middleware};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let payer = Payer::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().allow_network("base"))
//!     .ledger(Ledger::memory())
//!     .build()?;
//! let client = middleware::client(reqwest::Client::builder(), payer)?.build();
//! let request = client
//!     .get("https://api.example.com/report")
//!     .with_extension(PurchaseOptions::new().tag("research"));
//! # Ok(())
//! # }
//! ```
//!
//! In a stack that you have already, the HTTP client at the bottom must not follow redirects, because a redirect carries a
//! payment header to another origin. Build it with [`http_client`]. A retry outside the payment works too: a request that
//! fails before anything is signed fails with reqwest's own error, which the retry knows. bursar's own errors are final for
//! it, and after a payment bursar itself sends again; see [`RetryPolicy`](crate::RetryPolicy).

use std::error::Error as StdError;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Middleware, Next};

use crate::error::{Error, ErrorKind, PaymentStatus};
use crate::http::{
    CallSettings, EgressRules, Exchange, HttpTransport, call_setters, without_redirects,
};
use crate::payment::Payer;
use crate::request::PurchaseOptions;
use crate::text::{excerpt, root_cause};

/// Pays 402 answers of the middleware beneath it.
///
/// The rules are those of [`Client`](crate::Client): https only, one payment for a request, and a second 402 is an error.
/// Give a request [`PurchaseOptions`] with [`with_extension`](reqwest_middleware::RequestBuilder::with_extension), or all
/// requests with [`default_options`](Self::default_options); the two are merged. bursar's errors come back as
/// [`reqwest_middleware::Error::Middleware`]; call [`error`] to get them. A failed connection before a payment comes back as
/// [`reqwest_middleware::Error::Reqwest`].
///
/// ```
/// use bursar::middleware::{self, PaymentMiddleware};
/// use bursar::{Payer, PurchaseOptions, usd};
///
/// # fn example(payer: Payer) -> Result<(), bursar::Error> {
/// // A framework that makes its own requests offers no place for options.
/// let options = PurchaseOptions::new().tag("research").max_price(usd!("0.02"));
/// let payments = PaymentMiddleware::new(payer).default_options(options);
/// let client = middleware::client(reqwest::Client::builder(), payments)?.build();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PaymentMiddleware {
    payer: Payer,
    settings: CallSettings,
}

impl From<Payer> for PaymentMiddleware {
    fn from(payer: Payer) -> Self {
        Self::new(payer)
    }
}

impl PaymentMiddleware {
    /// Returns a middleware that pays with this payer.
    ///
    /// Give it to [`client`], which builds the HTTP client too. In a stack of your own, build the HTTP client at the bottom
    /// with [`http_client`].
    #[must_use]
    pub fn new(payer: Payer) -> Self {
        Self {
            payer,
            settings: CallSettings::default(),
        }
    }

    call_setters!();
}

/// Returns a builder of a stack that pays, with reqwest's client at the bottom. The client is built without redirects and
/// referers. Give it a [`Payer`], or a [`PaymentMiddleware`] with its settings.
///
/// # Errors
/// When reqwest cannot start, or an API key is not valid.
pub fn client(
    http: reqwest::ClientBuilder,
    payments: impl Into<PaymentMiddleware>,
) -> Result<reqwest_middleware::ClientBuilder, Error> {
    let mut payments = payments.into();
    payments.settings.keys.check()?;
    let http = payments.settings.egress.apply(without_redirects(http))?;
    let http = http.build().map_err(Error::http)?;
    Ok(reqwest_middleware::ClientBuilder::new(http).with(payments))
}

/// Returns reqwest's client without redirects and referers, for the bottom of a stack. It sends plain http to loopback
/// addresses only, and through no proxy.
///
/// # Errors
/// When reqwest cannot start.
pub fn http_client(builder: reqwest::ClientBuilder) -> Result<reqwest::Client, Error> {
    let mut egress = EgressRules {
        http_loopback: true,
        ..EgressRules::default()
    };
    let http = egress.apply(without_redirects(builder))?;
    http.build().map_err(Error::http)
}

/// Returns bursar's error inside an error of the stack, or of a framework above it, if there is one. Retry and tracing
/// middleware may lie between.
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
pub fn error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        let inner = match cause.downcast_ref() {
            // Its source leaves out the error that it holds.
            Some(reqwest_middleware::Error::Middleware(held)) => held.downcast_ref(),
            _ => cause.downcast_ref(),
        };
        if inner.is_some() {
            return inner;
        }
        next = cause.source();
    }
    None
}

/// Makes an error of the stack. A failed connection stays an error of reqwest if nothing was signed, so that a retry above
/// knows it.
fn raise(mut error: Error) -> reqwest_middleware::Error {
    let unreached = matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout);
    if error.payment_status() != PaymentStatus::NotPaid || !unreached {
        return held(error);
    }
    match error
        .take_source()
        .map(|source| source.downcast::<reqwest::Error>())
    {
        Some(Ok(failure)) => reqwest_middleware::Error::Reqwest(match error.url() {
            Some(url) => failure.with_url(url.clone()),
            None => *failure,
        }),
        Some(Err(source)) => held(error.because(source)),
        None => held(error),
    }
}

/// Middleware above may show only the source of its error, so the error is its own source.
fn held(error: Error) -> reqwest_middleware::Error {
    let text = error.to_string();
    match reqwest_middleware::Error::middleware(error) {
        reqwest_middleware::Error::Middleware(error) => {
            reqwest_middleware::Error::Middleware(error.context(text))
        }
        error @ reqwest_middleware::Error::Reqwest(_) => error,
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
        let Self { payer, settings } = self;
        settings.keys.check().map_err(held)?;
        let options = extensions.get::<PurchaseOptions>().cloned();
        let call = settings.call(options, request.timeout().copied());
        let mut transport = MiddlewareTransport { next, extensions };
        Exchange::new(&mut transport, Some(payer), &settings.egress, call)
            .with_keys(&settings.keys)
            .run(request)
            .await
            .map_err(raise)
    }
}

/// The middleware beneath, with reqwest at the bottom.
struct MiddlewareTransport<'a> {
    next: Next<'a>,
    extensions: &'a mut Extensions,
}

impl HttpTransport for MiddlewareTransport<'_> {
    async fn send(&mut self, request: Request) -> Result<Response, Error> {
        let sent = self.next.clone().run(request, &mut *self.extensions).await;
        sent.map_err(|failure| match failure {
            reqwest_middleware::Error::Reqwest(failure) => Error::http(failure),
            reqwest_middleware::Error::Middleware(failure) => {
                let timed_out = |cause: &(dyn StdError + 'static)| match cause.downcast_ref() {
                    Some(reqwest_middleware::Error::Reqwest(failure)) => failure.is_timeout(),
                    _ => cause.downcast_ref().is_some_and(reqwest::Error::is_timeout),
                };
                let kind = match failure.chain().any(timed_out) {
                    true => ErrorKind::Timeout,
                    false => ErrorKind::Transport,
                };
                // reqwest ends its text with the URL, whose query may be secret.
                let text = failure.to_string();
                let text = excerpt(text.split(" for url (").next().unwrap_or_default());
                let root = root_cause(failure.as_ref());
                let mut message = format!("the middleware beneath bursar failed: {text}");
                if !message.contains(&root) {
                    message = format!("{message}: {root}");
                }
                Error::new(kind, message).because(failure)
            }
        })
    }
}
