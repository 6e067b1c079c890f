//! The way of one HTTP request: from the first request to the answer for the caller.
//!
//! Start at `Exchange::fetch`. Every step is one function, and the effects happen in the order of the steps. DESIGN.md
//! follows them through the other modules.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, PROXY_AUTHORIZATION};
use http::{HeaderValue, StatusCode};
use reqwest::{Request, Response};
use tracing::Instrument;
use tracing::field::Empty;
use url::Url;

use super::body::watched;
use super::challenge::{self, Challenge, is_cached};
use super::egress::EgressRules;
use super::redirect::{self, MAX_HOPS};
use super::replay::{BodyFn, Replay};
use super::response::{ResponseExt, attach};
use super::sign_in::Entered;
use super::transport::{HttpTransport, PaidRequest};
use crate::clock::{Clock, SystemClock};
use crate::credential::{Credentials, dashed};
use crate::error::{Error, ErrorKind};
use crate::money::AssetRegistry;
use crate::origin::Origin;
use crate::payment::{
    Deadline, PaidCall, Payer, Payment, PaymentRecord, RetryPolicy, SignedTerms, present,
};
use crate::policy::{PriceCheck, PriceOutcome};
use crate::request::{PurchaseOptions, PurchaseRequest, RequestIdentity};
use crate::text::{current, guarding, struck_path};
use crate::x402::PaymentRequired;

/// The headers that carry a payment. A payment that the caller made would be under no policy and in no ledger.
const PAYMENT_HEADERS: [&str; 2] = ["payment-signature", "x-payment"];

const GIVE_WALLET: &str =
    "build it with a signer, a policy and a ledger, or use `no_payment` to receive the 402";

const FOLLOWED_REDIRECT: &str = "the HTTP client beneath bursar followed a redirect to another origin; \
    build it with bursar::middleware::http_client";

const REPEATS_QUERY: &str = "the seller redirected to a path that repeats the query of the request, and the ledger stores \
    paths; send the request to that path if you trust it";

/// The demand of an answer.
pub(super) enum Demand {
    /// The answer demands no payment, or none that is to be paid. It is for the caller.
    None(Response),
    /// The terms, and the URL that they came from.
    Payment(Box<PaymentRequired>, Url),
}

/// The settings of one call.
pub(crate) struct Call {
    pub(crate) options: PurchaseOptions,
    pub(crate) body_fn: Option<BodyFn>,
    pub(crate) deadline: Deadline,
    pub(crate) retry: RetryPolicy,
}

/// One HTTP request on its way.
pub(crate) struct Exchange<'a, T> {
    transport: &'a mut T,
    pub(super) payer: Option<&'a Payer>,
    egress: &'a EgressRules,
    pub(super) keys: Option<&'a Credentials>,
    call: Call,
    /// The identity of the caller's request, once it is needed. Redirects keep it.
    identity: Option<RequestIdentity>,
    /// Whether the call has signed in, or has decided not to.
    pub(super) signed_in: bool,
}

impl<'a, T: HttpTransport> Exchange<'a, T> {
    pub(crate) const fn new(
        transport: &'a mut T,
        payer: Option<&'a Payer>,
        egress: &'a EgressRules,
        call: Call,
    ) -> Self {
        Self {
            transport,
            payer,
            egress,
            keys: None,
            call,
            identity: None,
            signed_in: false,
        }
    }

    /// Adds API keys.
    pub(crate) const fn with_keys(mut self, keys: &'a Credentials) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Sends the request, pays if the seller demands it and the policy allows it, and returns the answer.
    pub(crate) async fn run(mut self, request: Request) -> Result<Response, Error> {
        let span = tracing::debug_span!(
            "bursar.request",
            method = request.method().as_str(),
            origin = Origin::of(request.url()).map(tracing::field::display),
            tag = self.call.options.tag_name(),
            status = Empty,
            payment_status = Empty,
            error = Empty,
        );
        // The future is boxed: callers hold a small one, which is cheap to move.
        let url = request.url().clone();
        let answer = guarding(&url, Box::pin(self.fetch_marked(request)));
        let answer = answer.instrument(span.clone()).await;
        match &answer {
            Ok(response) => {
                span.record("status", response.status().as_u16())
                    .record("payment_status", response.payment_status().name());
            }
            Err(error) => {
                span.record("error", error.kind().name())
                    .record("payment_status", error.payment_status().name());
            }
        }
        answer
    }

    /// Lets the answer know the query, for the texts that the caller asks it for.
    async fn fetch_marked(&mut self, request: Request) -> Result<Response, Error> {
        let mut answer = self.fetch(request).await?;
        if let Some(own) = current() {
            answer.extensions_mut().insert(own);
        }
        Ok(answer)
    }

    async fn fetch(&mut self, request: Request) -> Result<Response, Error> {
        let (mut replay, first) = self.begin(request)?;
        if let Some(payer) = self.paying()
            && self.call.options.id()?.is_some()
        {
            let request = self.purchase_request(&first)?;
            let paid_for = payer.never_pays(request.origin()).is_none();
            if paid_for && let Some(payment) = Box::pin(payer.resume_here(&request)).await? {
                return Box::pin(self.present(payment, &replay, request, None)).await;
            }
        }
        match self.credential(&first) {
            Some(credential) => Box::pin(self.by_key_or_payment(&credential, first, replay)).await,
            None => self.by_payment(first, &mut replay).await,
        }
    }

    /// Returns the price of the request. A request that is free is executed.
    pub(crate) async fn quote(self, request: Request) -> Result<PriceOutcome<Response>, Error> {
        let url = request.url().clone();
        guarding(&url, Box::pin(self.ask_price(request))).await
    }

    async fn ask_price(mut self, request: Request) -> Result<PriceOutcome<Response>, Error> {
        let (mut replay, first) = self.begin(request)?;
        let response = self.ask(first, &mut replay).await?;
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            return Ok(PriceOutcome::Unpriced(response));
        }
        let required = match self.read_challenge(response).await? {
            Challenge::NotX402(response) => return Ok(PriceOutcome::Unpriced(response)),
            Challenge::Required(required) => *required,
        };
        let price_check = match self.payer {
            Some(payer) => {
                let (request, _) = self.replayed(&replay)?;
                payer.quote(required, &request).await?
            }
            None => {
                let asked = self.replayed(&replay).ok();
                let asked = asked.as_ref().map(|(request, _)| request.url());
                let request = asked.map(|url| (url, SystemClock.now()));
                PriceCheck::without_policy(required, AssetRegistry::stablecoins(), request)
            }
        };
        Ok(PriceOutcome::Priced(Box::new(price_check)))
    }

    /// Checks the options and the destination, and prepares the request to be sent more than once.
    fn begin(&mut self, request: Request) -> Result<(Replay, Request), Error> {
        self.call.options.id()?;
        if let Some(name) = payment_header(request.headers()) {
            let message = format!("the request has the header `{name}`, which only bursar sets");
            return Err(Error::builder(message).at(request.url()));
        }
        let body_fn = self.call.body_fn.take();
        let (replay, first) = Replay::new(request, body_fn).map_err(Error::http)?;
        self.admit(&first)?;
        Ok((replay, first))
    }

    /// The payer, unless the caller says that nothing is to be paid.
    fn paying(&self) -> Option<&'a Payer> {
        self.payer.filter(|_| !self.no_payment())
    }

    pub(super) const fn no_payment(&self) -> bool {
        self.call.options.forbid_payment()
    }

    pub(super) const fn deadline(&self) -> Deadline {
        self.call.deadline
    }

    /// Sends the request without an API key, and pays if the seller demands it and the policy allows it.
    pub(super) async fn by_payment(
        &mut self,
        first: Request,
        replay: &mut Replay,
    ) -> Result<Response, Error> {
        if let Some((request, terms)) = self.cached_terms(&first, replay)?
            && let Some(answer) = Box::pin(self.at_cached_terms(terms, replay, request)).await?
        {
            return Ok(answer);
        }
        let response = self.ask_fresh(first, replay).await?;
        match self.demand(response).await? {
            Demand::None(response) => Ok(response),
            Demand::Payment(required, url) => Box::pin(self.buy(required, replay, url)).await,
        }
    }

    /// Returns cached terms for the request, if the policy caches terms of its seller.
    fn cached_terms(
        &mut self,
        first: &Request,
        replay: &Replay,
    ) -> Result<Option<(PurchaseRequest, Arc<PaymentRequired>)>, Error> {
        let Some(payer) = self
            .paying()
            .filter(|payer| payer.caches_terms(first.url()))
            .filter(|payer| {
                let origin = Origin::of(first.url());
                origin.is_some_and(|origin| payer.never_pays(&origin).is_none())
            })
        else {
            return Ok(None);
        };
        let request = self.purchase_request(first)?;
        let terms = payer
            .cached_terms(&request)
            .filter(|terms| !terms.offers_sign_in() || !payer.may_sign_in(&request))
            .filter(|_| replay.make().is_some());
        Ok(terms.map(|terms| (request, terms)))
    }

    /// Sends the request with a payment at once. Returns `None` where the seller must be asked first.
    async fn at_cached_terms(
        &mut self,
        terms: Arc<PaymentRequired>,
        replay: &Replay,
        request: PurchaseRequest,
    ) -> Result<Option<Response>, Error> {
        let Some(payer) = self.payer else {
            return Ok(None);
        };
        let Some(payment) = payer.authorize_cached_terms(&terms, &request).await? else {
            payer.remove_cached_terms(&request);
            return Ok(None);
        };
        self.present(payment, replay, request, Some(SignedTerms::cached(terms)))
            .await
            .map(Some)
    }

    /// Sends the request, which was admitted, without a payment, and follows redirects within its origin.
    /// `replay` follows them too.
    pub(super) async fn ask(
        &mut self,
        first: Request,
        replay: &mut Replay,
    ) -> Result<Response, Error> {
        let mut request = first;
        for _ in 0..MAX_HOPS {
            let response = self.send(request, Duration::ZERO).await?;
            match replay.redirected(&response) {
                None => return redirect::refuse_downgrade(&response).map(|()| response),
                Some((next, following)) => {
                    // The same request again: its https is a redirect to its own plain http.
                    if next.url() == response.url() && next.method() == replay.head().method() {
                        redirect::refuse_downgrade(&response)?;
                    }
                    if self.identity.is_none() {
                        drop(self.replayed(replay)?);
                    }
                    self.admit(&next)?;
                    (request, *replay) = (next, following);
                }
            }
        }
        Err(redirect::too_many())
    }

    /// As [`ask`](Self::ask), with a second request if the terms of the 402 may be old, because a cache kept it, or cannot be
    /// read, because the caller asked for an encoding that the HTTP client does not decode.
    pub(super) async fn ask_fresh(
        &mut self,
        first: Request,
        replay: &mut Replay,
    ) -> Result<Response, Error> {
        let response = self.ask(first, replay).await?;
        let is_old = is_cached(&response);
        let is_encoded = self.paying().is_some() && challenge::is_encoded(&response);
        if !is_old && !is_encoded {
            return Ok(response);
        }
        let url = response.url().clone();
        let old = || {
            Error::new(
                ErrorKind::Malformed,
                "a cache kept this 402, and its terms may be old",
            )
            .at(&url)
        };
        let mut again = match replay.make() {
            Some(again) => again,
            None if is_old => return Err(old()),
            None => return Ok(response),
        };
        if is_old {
            let fresh = HeaderValue::from_static("no-cache");
            again.headers_mut().insert(CACHE_CONTROL, fresh);
        }
        if is_encoded {
            let plain = HeaderValue::from_static("identity");
            again.headers_mut().insert(ACCEPT_ENCODING, plain);
        }
        let response = Box::pin(self.ask(again, replay)).await?;
        if is_cached(&response) {
            Err(old())
        } else {
            Ok(response)
        }
    }

    /// Returns whether the answer demands a payment, and whether the call pays at all.
    pub(super) async fn demand(&self, response: Response) -> Result<Demand, Error> {
        if self.no_payment() || response.status() != StatusCode::PAYMENT_REQUIRED {
            return Ok(Demand::None(response));
        }
        let url = response.url().clone();
        if let Some(required) = challenge::in_header(&response) {
            challenge::dispose(response);
            return Ok(Demand::Payment(required, url));
        }
        let challenge = Box::pin(self.read_challenge(response)).await;
        Ok(match challenge.map_err(|error| error.at(&url))? {
            Challenge::NotX402(response) => Demand::None(response),
            Challenge::Required(required) => Demand::Payment(required, url),
        })
    }

    /// Reads the terms of a 402.
    pub(super) async fn read_challenge(&self, response: Response) -> Result<Challenge, Error> {
        let read = pin!(challenge::read(response));
        self.deadline().bound(Duration::ZERO, read).await
    }

    /// Checks the body, signs in if that is a way, has the payment authorized, and presents it to the seller.
    pub(super) async fn buy(
        &mut self,
        mut required: Box<PaymentRequired>,
        replay: &mut Replay,
        url: Url,
    ) -> Result<Response, Error> {
        let Some(payer) = self.payer else {
            let assets = AssetRegistry::stablecoins();
            let price_check = PriceCheck::without_policy(*required, assets, None);
            let message = format!(
                "{}, and the client has no wallet; {GIVE_WALLET}",
                demanded(&price_check)
            );
            return Err(
                Error::with_price_check(ErrorKind::NoWallet, &message, price_check).at(&url),
            );
        };
        let mut request = self.replayable(payer, replay, &required).await?;
        let mut earlier = None;
        if self.may_enter(&required, replay) {
            match Box::pin(self.enter(payer, (required, url), request, replay)).await? {
                Entered::Answer(answer) => return Ok(answer),
                Entered::Buy(next) => (required, request, earlier) = *next,
            }
        }
        let required = *required;
        let named = payer.now();
        let payment = match earlier {
            Some(payment) => payment,
            None => payer.obtain(&required, &request).await?,
        };
        let terms = SignedTerms::named(required, named);
        self.present(payment, replay, request, Some(terms)).await
    }

    /// Checks, before any money, that the request can be sent a second time.
    pub(super) async fn replayable(
        &mut self,
        payer: &Payer,
        replay: &Replay,
        required: &PaymentRequired,
    ) -> Result<PurchaseRequest, Error> {
        let (request, again) = self.replayed(replay)?;
        let path = request.url().path();
        if struck_path(path) != path {
            return Err(Error::new(ErrorKind::Insecure, REPEATS_QUERY).at(request.url()));
        }
        if again {
            return Ok(request);
        }
        let price_check = payer.quote(required.clone(), &request).await?;
        let message = "payment is required, and the body cannot be sent a second time; give it as bytes or by body_fn";
        Err(
            Error::with_price_check(ErrorKind::NotReplayable, message, price_check)
                .at(request.url()),
        )
    }

    /// Presents the request with its payment, to its origin alone.
    async fn present(
        &mut self,
        payment: Box<Payment>,
        replay: &Replay,
        request: PurchaseRequest,
        terms: Option<SignedTerms>,
    ) -> Result<Response, Error> {
        let call = PaidCall {
            request,
            deadline: self.deadline(),
            retry: self.call.retry,
            terms,
        };
        let mut paid = PaidRequest {
            exchange: self,
            replay,
        };
        let (response, record) = present(&mut paid, payment, call).await?;
        let response = if response.status().is_redirection() {
            Box::pin(self.follow_paid(response, replay, &record)).await
        } else {
            Ok(response)
        };
        match response.and_then(|response| self.watch(response, &record)) {
            Ok(response) => Ok(attach(response, record)),
            Err(error) => Err(record.fail(error)),
        }
    }

    /// Lets an error of the body carry the payment, and has the ledger note that the body of a success broke: the goods did
    /// not come.
    fn watch(&self, response: Response, record: &PaymentRecord) -> Result<Response, Error> {
        let payer = self.payer.filter(|_| response.status().is_success());
        let on_fault = payer.map(|payer| payer.clone().body_lost(record.payment()));
        watched(response, record.clone(), on_fault)
    }

    /// Follows the redirect of a paid answer within its origin, as a `GET` without the payment. Nothing more is paid:
    /// returns the redirect if it leads elsewhere, or if its target demands a payment or cannot be read.
    async fn follow_paid(
        &mut self,
        response: Response,
        replay: &Replay,
        record: &PaymentRecord,
    ) -> Result<Response, Error> {
        let next = replay.redirected(&response);
        if next.is_none() && redirect::refuse_downgrade(&response).is_ok() {
            return Ok(response);
        }
        // Until the goods come from the target, the purchase is not delivered.
        if let Some(payer) = self.payer {
            payer.clone().body_lost(record.payment()).await;
        }
        let response = match next {
            Some((next, mut following)) if next.method().is_safe() && self.admit(&next).is_ok() => {
                match self.ask(next, &mut following).await {
                    Ok(found) if found.status() != StatusCode::PAYMENT_REQUIRED => found,
                    _ => response,
                }
            }
            _ => response,
        };
        if let Some(payer) = self.payer
            && response.status().is_success()
        {
            payer.delivered(record, response.status()).await;
        }
        redirect::refuse_downgrade(&response).map(|()| response)
    }

    /// Checks that requests may go there at all, and that the policy permits this one.
    pub(super) fn admit(&mut self, request: &Request) -> Result<(), Error> {
        self.egress.check(request.url())?;
        match self.payer.filter(|payer| payer.restricts()) {
            Some(payer) => payer.permit(&self.purchase_request(request)?),
            None => Ok(()),
        }
    }

    pub(super) async fn send(
        &mut self,
        mut request: Request,
        extra: Duration,
    ) -> Result<Response, Error> {
        if let Some(left) = self.deadline().remaining() {
            *request.timeout_mut() = Some(left);
        }
        let url = request.url().clone();
        if self.egress.may_have_proxy && url.scheme() == "http" {
            // reqwest would add the password of the proxy, for a seller that is reached without it.
            let none = HeaderValue::from_static("");
            request
                .headers_mut()
                .entry(PROXY_AUTHORIZATION)
                .or_insert(none);
        }
        // Pinned here: a future that is passed on by value is in the memory of this one twice.
        let response = self
            .deadline()
            .bound(extra, pin!(self.transport.send(request)))
            .await
            .map_err(|error| error.at(&url))?;
        EgressRules::check_answer(&url, response.remote_addr())?;
        // The other origin may have the signature by now. bursar does not believe its answer.
        if *response.url() != url && Origin::of(response.url()) != Origin::of(&url) {
            return Err(Error::new(ErrorKind::Insecure, FOLLOWED_REDIRECT).at(response.url()));
        }
        Ok(response)
    }

    /// The purchase request of a request with its body.
    pub(super) fn purchase_request(&mut self, request: &Request) -> Result<PurchaseRequest, Error> {
        let identity = self.identity.unwrap_or_else(|| identity(request, true));
        self.identified(request, identity)
    }

    /// The purchase request of a replay, and whether the replay can be sent.
    fn replayed(&mut self, replay: &Replay) -> Result<(PurchaseRequest, bool), Error> {
        let made = replay.ready().map_or_else(|| replay.make(), |_| None);
        let again = replay.ready().or(made.as_ref());
        let request = again.unwrap_or(replay.head());
        let identity = self
            .identity
            .unwrap_or_else(|| identity(request, again.is_some()));
        Ok((self.identified(request, identity)?, again.is_some()))
    }

    fn identified(
        &mut self,
        request: &Request,
        identity: RequestIdentity,
    ) -> Result<PurchaseRequest, Error> {
        self.identity = Some(identity);
        let (method, url) = (request.method().clone(), request.url().clone());
        let purchase = PurchaseRequest::with_identity(method, url, identity)
            .map_err(|error| Error::from(error).at(request.url()))?;
        Ok(purchase
            .options(self.call.options.clone())
            .until(self.deadline().end()))
    }
}

/// Returns the first header that carries a payment.
pub(super) fn payment_header(headers: &http::HeaderMap) -> Option<&http::HeaderName> {
    let carries = |name: &&http::HeaderName| PAYMENT_HEADERS.contains(&&*dashed(name));
    headers.keys().find(carries)
}

/// The price, or the fact that there is one.
fn demanded(price_check: &PriceCheck) -> String {
    match price_check.preferred() {
        Some(quote) => format!("payment of {quote} is required"),
        None => "payment is required".to_owned(),
    }
}

/// Hashes the request. A body is unknown if it is a stream, or if the request is `complete` without it.
fn identity(request: &Request, complete: bool) -> RequestIdentity {
    let body = request
        .body()
        .map_or(Some(&[][..]), reqwest::Body::as_bytes)
        .filter(|_| complete);
    RequestIdentity::of(request.method(), request.url(), body)
}
