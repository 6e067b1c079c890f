//! Payments in a [`tower`] stack.
//!
//! [`Client`] is a `tower::Service` of requests, by value and by reference. Give it to a framework that takes a service.
//! [`PaymentLayer`] pays for any other HTTP service:
//!
//! ```
//! use bursar::tower::PaymentLayer;
//! use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseOptions, usd};
//! use tower_layer::Layer;
//!
//! # fn example<S: Clone>(service: S) -> Result<(), Box<dyn std::error::Error>> {
//! let payer = Payer::builder()
//!     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
//!     .policy(Policy::new().allow_network("base"))
//!     .ledger(Ledger::memory())
//!     .build()?;
//! let options = PurchaseOptions::new().tag("research").max_price(usd!("0.02"));
//! // `service` sends an `http::Request` and must not follow redirects.
//! let service = PaymentLayer::new(payer).default_options(options).layer(service);
//! # Ok(())
//! # }
//! ```
//!
//! [`tower`]: https://docs.rs/tower

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use reqwest::{Body, Response, ResponseBuilderExt};
use tower_layer::Layer;
use tower_service::Service;
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::http::{CallSettings, Client, Exchange, HttpTransport, Request, call_setters};
use crate::payment::Payer;
use crate::request::PurchaseOptions;
use crate::text::root_cause;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The future of a service in this module.
pub type ResponseFuture<T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>;

impl<R: Into<Request>> Service<R> for Client {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture<Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Service::<R>::poll_ready(&mut &*self, cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        Service::<R>::call(&mut &*self, request)
    }
}

impl<R: Into<Request>> Service<R> for &Client {
    type Response = Response;
    type Error = Error;
    type Future = ResponseFuture<Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (client, request) = (Client::clone(self), request.into());
        Box::pin(async move { client.execute(request).await })
    }
}

/// Pays the 402 answers of the service beneath it.
///
/// The rules are those of [`Client`]: https only, one payment for a request, the same payment again while the outcome is
/// uncertain, and bounds on every answer. The service beneath must not follow redirects, because a redirect carries a
/// payment header to another origin.
///
/// Give a request [`PurchaseOptions`] in its extensions, or all requests with [`default_options`](Self::default_options); the
/// two are merged.
/// The request needs an absolute URL. Its body must be bytes: a stream cannot be sent a second time, and bursar refuses to
/// pay for it.
///
/// The answer is an `http::Response`. Turn it into a [`reqwest::Response`] for [`ResponseExt`](crate::ResponseExt):
///
/// ```
/// use bursar::reqwest::{Body, Response};
/// use bursar::ResponseExt;
///
/// fn log(answer: http::Response<Body>) {
///     let answer = Response::from(answer);
///     println!("{} {}", answer.status(), answer.payment_status());
/// }
/// ```
#[derive(Clone, Debug)]
pub struct PaymentLayer {
    payer: Payer,
    settings: CallSettings,
}

impl PaymentLayer {
    /// Returns a layer that pays with this payer.
    #[must_use]
    pub fn new(payer: Payer) -> Self {
        Self {
            payer,
            settings: CallSettings::default(),
        }
    }

    call_setters!();
}

impl<S> Layer<S> for PaymentLayer {
    type Service = PaymentService<S>;

    fn layer(&self, inner: S) -> PaymentService<S> {
        PaymentService {
            inner,
            layer: Arc::new(self.clone()),
        }
    }
}

/// A service that pays; see [`PaymentLayer`].
#[derive(Clone)]
pub struct PaymentService<S> {
    inner: S,
    layer: Arc<PaymentLayer>,
}

impl<S: Clone> PaymentService<S> {
    /// Returns a handle with these options for all of its requests; see [`PaymentLayer::with_options`].
    #[must_use]
    pub fn with_options(&self, options: PurchaseOptions) -> Self {
        self.layer.with_options(options).layer(self.inner.clone())
    }
}

impl<S> fmt::Debug for PaymentService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PaymentService").field(&self.layer).finish()
    }
}

impl<S, B, R> Service<http::Request<B>> for PaymentService<S>
where
    S: Service<http::Request<Body>, Response = http::Response<R>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Into<Body>,
    R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
    R::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = ResponseFuture<http::Response<Body>>;

    /// A purchase sends several requests. Each waits until the service beneath is ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (inner, layer) = (self.inner.clone(), Arc::clone(&self.layer));
        let options = request.extensions().get::<PurchaseOptions>().cloned();
        let request = reqwest::Request::try_from(request)
            .map_err(|error| Error::builder("the request has no absolute URL").because(error));
        Box::pin(async move {
            let PaymentLayer { payer, settings } = &*layer;
            settings.keys.check()?;
            let call = settings.call(options, None);
            let mut transport = ServiceTransport(inner);
            let answer = Exchange::new(&mut transport, Some(payer), &settings.egress, call)
                .with_keys(&settings.keys)
                .run(request?)
                .await?;
            let url = answer.url().clone();
            let (head, body) = http::Response::<Body>::from(answer).into_parts();
            located(head, body, url)
        })
    }
}

/// The service beneath.
struct ServiceTransport<S>(S);

impl<S, R> HttpTransport for ServiceTransport<S>
where
    S: Service<http::Request<Body>, Response = http::Response<R>> + Send + Sync,
    S::Future: Send,
    S::Error: Into<BoxError>,
    R: http_body::Body<Data = Bytes> + Send + Sync + 'static,
    R::Error: Into<BoxError>,
{
    async fn send(&mut self, request: reqwest::Request) -> Result<Response, Error> {
        let url = request.url().clone();
        let request = http::Request::<Body>::try_from(request).map_err(Error::http)?;
        poll_fn(|cx| self.0.poll_ready(cx))
            .await
            .map_err(|error| failed(error.into()))?;
        let sent = self.0.call(request).await;
        let (head, body) = sent.map_err(|error| failed(error.into()))?.into_parts();
        located(head, Body::wrap(body), url).map(Response::from)
    }
}

/// Notes the URL of a response where reqwest looks for it.
fn located(
    mut head: http::response::Parts,
    body: Body,
    url: Url,
) -> Result<http::Response<Body>, Error> {
    let noted = http::Response::builder().url(url).body(());
    let (noted, ()) = noted
        .map_err(|error| Error::builder(error.to_string()))?
        .into_parts();
    head.extensions.extend(noted.extensions);
    Ok(http::Response::from_parts(head, body))
}

/// Makes bursar's error of an error of the service beneath.
fn failed(failure: BoxError) -> Error {
    let failure = match failure.downcast::<reqwest::Error>() {
        Ok(failure) => return Error::http(*failure),
        Err(failure) => failure,
    };
    let mut cause: Option<&(dyn StdError + 'static)> = Some(failure.as_ref());
    let mut kind = ErrorKind::Transport;
    while let Some(error) = cause {
        let late = |error: &reqwest::Error| error.is_timeout();
        if error.is::<tokio::time::error::Elapsed>() || error.downcast_ref().is_some_and(late) {
            kind = ErrorKind::Timeout;
        }
        cause = error.source();
    }
    let root = root_cause(failure.as_ref());
    Error::new(kind, format!("the service beneath bursar failed: {root}")).because(failure)
}
