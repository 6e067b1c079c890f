//! One purchase over HTTP, from the first request to the answer that is handed back.
//!
//! Effects happen here, in order, one function per phase; everything they decide with is pure.

mod body;
mod challenge;
mod keyed;
mod presentation;
mod replay;
mod response;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use http::header::{AGE, CACHE_CONTROL};
use http::{HeaderValue, StatusCode};
use reqwest::{Request, Response};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;
use url::Url;

use presentation::Basis;
#[cfg(feature = "mcp")]
pub(crate) use presentation::{Refusal, while_held};
pub(crate) use replay::{BodyFn, Replay};
pub use response::{ApiCall, ResponseExt};

use crate::asset::AssetRegistry;
use crate::client::guard::Guard;
use crate::credential::Credentials;
use crate::ledger::PurchaseId;
use crate::payer::{Intent, Payer, PriceCheck, RetryPolicy};
use crate::policy::Amount;
use crate::x402::PaymentRequired;
use crate::{Error, ErrorKind, Origin};
use challenge::Challenge;

/// Redirects followed before a payment, as many as reqwest follows.
const MAX_HOPS: usize = 10;

const FOLLOWED_REDIRECT: &str = "the HTTP client beneath bursar followed a redirect to another origin; \
    build it with bursar::middleware::http_client";

/// What sends a request and brings its head: reqwest itself, or a stack of middleware.
///
/// It must not follow redirects: a payment header would go with them.
pub(crate) trait Transport: Send + Sync {
    fn send(&mut self, request: Request) -> impl Future<Output = Result<Response, Error>> + Send;
}

/// How one request is to be bought.
#[derive(Clone, Default)]
pub(crate) struct Options {
    pub(crate) max_price: Option<Amount>,
    pub(crate) purchase_id: Option<PurchaseId>,
    pub(crate) tag: Option<String>,
    pub(crate) no_payment: bool,
    pub(crate) accept_new_terms: bool,
    pub(crate) allow_duplicate: bool,
    pub(crate) body_fn: Option<BodyFn>,
}

/// What came of asking a price.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a price or an answer")]
pub enum PriceOutcome {
    /// Payment is required.
    Priced(Box<PriceCheck>),
    /// Nothing is asked for, or not by x402; the request was executed, and this is its response.
    Unpriced(Response),
}

impl PriceOutcome {
    /// The price, if one is asked for.
    #[must_use]
    pub fn priced(self) -> Option<PriceCheck> {
        match self {
            Self::Priced(price_check) => Some(*price_check),
            Self::Unpriced(_) => None,
        }
    }
}

/// What an answer asks for.
enum Priced {
    /// The answer, if nothing is asked for, or nothing that is to be paid.
    Free(Response),
    /// Terms, and the URL that they came from.
    At(Box<PaymentRequired>, Url),
}

/// The way of a request.
pub(crate) struct Exchange<'a, W> {
    wire: &'a mut W,
    payer: Option<&'a Payer>,
    guard: &'a Guard,
    keys: Option<&'a Credentials>,
    options: Options,
    deadline: Deadline,
    retry: RetryPolicy,
    /// Of the caller's request, where a redirect has led on from it.
    fingerprint: Option<B256>,
}

/// The time a call may take: the caller's, for everything, and a bound for each answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    whole: Option<Instant>,
    answer: Duration,
}

impl Deadline {
    pub(crate) fn new(whole: Option<Duration>, answer: Duration) -> Self {
        Self {
            whole: whole.and_then(|limit| Instant::now().checked_add(limit)),
            answer,
        }
    }

    fn remaining(&self) -> Option<Duration> {
        self.whole
            .map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Awaits `work` for at most an answer's time and `extra`, and not beyond the whole.
    async fn bound<T>(
        &self,
        extra: Duration,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let answer = self.answer.saturating_add(extra);
        let limit = self.remaining().map_or(answer, |left| left.min(answer));
        let late = || {
            Error::new(
                ErrorKind::Timeout,
                format!("no answer within {} s", limit.as_secs_f32()),
            )
        };
        tokio::time::timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(late()))
    }
}

impl<'a, W: Transport> Exchange<'a, W> {
    pub(crate) const fn new(
        wire: &'a mut W,
        payer: Option<&'a Payer>,
        guard: &'a Guard,
        options: Options,
        (deadline, retry): (Deadline, RetryPolicy),
    ) -> Self {
        Self {
            wire,
            payer,
            guard,
            keys: None,
            options,
            deadline,
            retry,
            fingerprint: None,
        }
    }

    /// With API keys beside the wallet.
    pub(crate) const fn with_keys(mut self, keys: &'a Credentials) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Sends the request, pays if it must be and may be, and brings the answer.
    pub(crate) async fn run(self, request: Request) -> Result<Response, Error> {
        let span = tracing::debug_span!(
            "bursar.request",
            method = request.method().as_str(),
            origin = Origin::of(request.url()).map(tracing::field::display),
            tag = self.options.tag.as_deref(),
            status = Empty,
            spend = Empty,
            error = Empty,
        );
        // In a place of its own: what callers hold is small, and cheap to move.
        let answer = Box::pin(self.fetch(request)).instrument(span.clone()).await;
        match &answer {
            Ok(response) => {
                span.record("status", response.status().as_u16())
                    .record("spend", response.payment_status().name());
            }
            Err(error) => {
                span.record("error", error.kind().name())
                    .record("spend", error.payment_status().name());
            }
        }
        answer
    }

    async fn fetch(mut self, request: Request) -> Result<Response, Error> {
        let (mut replay, first) =
            Replay::new(request, self.options.body_fn.take()).map_err(Error::http)?;
        self.admit(&first)?;
        let payer = self.payer.filter(|_| !self.options.no_payment);
        if let Some(payer) = payer.filter(|_| self.options.purchase_id.is_some()) {
            let intent = self.intent(&first)?;
            if let Some(payment) = Box::pin(payer.resume_here(&intent)).await? {
                return Box::pin(self.present(payment, &replay, intent, None)).await;
            }
        }
        match self.credential(&first) {
            Some(credential) => Box::pin(self.by_key_or_payment(&credential, first, replay)).await,
            None => self.by_payment(first, &mut replay).await,
        }
    }

    /// The request without a key, paid if it must be and may be.
    async fn by_payment(&mut self, first: Request, replay: &mut Replay) -> Result<Response, Error> {
        if let Some((intent, terms)) = self.known_terms(&first, replay)?
            && let Some(answer) = Box::pin(self.at_known_terms(terms, replay, intent)).await?
        {
            return Ok(answer);
        }
        let response = self.ask_anew(first, replay).await?;
        match self.priced(response).await? {
            Priced::Free(response) => Ok(response),
            Priced::At(required, url) => Box::pin(self.buy(required, replay, &url)).await,
        }
    }

    /// What the request would be paid at without asking, where the policy remembers its seller's terms.
    fn known_terms(
        &self,
        first: &Request,
        replay: &Replay,
    ) -> Result<Option<(Intent, Arc<PaymentRequired>)>, Error> {
        let Some(payer) = self.payer.filter(|_| !self.options.no_payment) else {
            return Ok(None);
        };
        if !payer.remembers_terms(first.url()) {
            return Ok(None);
        }
        let intent = self.intent(first)?;
        let terms = payer
            .known_terms(&intent)
            .filter(|_| replay.make().is_some());
        Ok(terms.map(|terms| (intent, terms)))
    }

    /// The request with its payment at once; `None` where the seller has to be asked first.
    async fn at_known_terms(
        &mut self,
        terms: Arc<PaymentRequired>,
        replay: &Replay,
        intent: Intent,
    ) -> Result<Option<Response>, Error> {
        let Some(payer) = self.payer else {
            return Ok(None);
        };
        let Some(payment) = payer.authorize_known(&terms, &intent).await? else {
            payer.forget(&intent);
            return Ok(None);
        };
        self.present(payment, replay, intent, Some(Basis::known(terms)))
            .await
            .map(Some)
    }

    /// Phase 2: whether the answer asks for a payment, and is to be paid at all.
    async fn priced(&self, response: Response) -> Result<Priced, Error> {
        if self.options.no_payment || response.status() != StatusCode::PAYMENT_REQUIRED {
            return Ok(Priced::Free(response));
        }
        let url = response.url().clone();
        Ok(
            match Box::pin(self.read(response))
                .await
                .map_err(|error| error.at(&url))?
            {
                Challenge::NotX402(response) => Priced::Free(response),
                Challenge::Required(required) => Priced::At(required, url),
            },
        )
    }

    /// Phases 3 to 5: terms, body, policy, books and signer, and the payment's way to the seller.
    async fn buy(
        &mut self,
        required: Box<PaymentRequired>,
        replay: &Replay,
        url: &Url,
    ) -> Result<Response, Error> {
        let required = *required;
        let Some(payer) = self.payer else {
            let price_check = PriceCheck::unjudged(required, AssetRegistry::stablecoins());
            return Err(Error::with_price_check(
                ErrorKind::NoWallet,
                "payment is required, and the client has no wallet",
                price_check,
            )
            .at(url));
        };
        let named = payer.now();
        let intent = self.replayable(payer, replay, &required).await?;
        let payment = payer.authorize(&required, &intent).await?;
        self.present(payment, replay, intent, Some(Basis::named(required, named)))
            .await
    }

    /// What the request would cost. A request that is free is executed.
    pub(crate) async fn quote(mut self, request: Request) -> Result<PriceOutcome, Error> {
        let (mut replay, first) =
            Replay::new(request, self.options.body_fn.take()).map_err(Error::http)?;
        self.admit(&first)?;
        let response = self.ask(first, &mut replay).await?;
        if response.status() != StatusCode::PAYMENT_REQUIRED {
            return Ok(PriceOutcome::Unpriced(response));
        }
        let required = match self.read(response).await? {
            Challenge::NotX402(response) => return Ok(PriceOutcome::Unpriced(response)),
            Challenge::Required(required) => *required,
        };
        let price_check = match self.payer {
            Some(payer) => payer.quote(required, &self.intent(replay.head())?).await?,
            None => PriceCheck::unjudged(required, AssetRegistry::stablecoins()),
        };
        Ok(PriceOutcome::Priced(Box::new(price_check)))
    }

    /// Where requests may go at all, and which of them the policy permits.
    fn admit(&self, request: &Request) -> Result<(), Error> {
        self.guard.check(request.url())?;
        match self.payer.filter(|payer| payer.restricts()) {
            Some(payer) => payer.permit(&self.intent(request)?),
            None => Ok(()),
        }
    }

    /// Phase 1: the request without payment, which was admitted, through redirects within its origin. `replay`
    /// follows them.
    async fn ask(&mut self, first: Request, replay: &mut Replay) -> Result<Response, Error> {
        let mut request = first;
        for _ in 0..MAX_HOPS {
            let response = self.send(request, Duration::ZERO).await?;
            match replay.redirected(&response) {
                None => return Ok(response),
                Some((next, following)) => {
                    self.admit(&next)?;
                    self.fingerprint = self.fingerprint.or(Some(self.intent(replay.head())?.id()));
                    (request, *replay) = (next, following);
                }
            }
        }
        Err(Error::new(
            ErrorKind::Transport,
            format!("more than {MAX_HOPS} redirects"),
        ))
    }

    /// Phase 1, once more if the answer is a 402 that a cache kept: its terms may be anybody's and of
    /// any time.
    async fn ask_anew(&mut self, first: Request, replay: &mut Replay) -> Result<Response, Error> {
        let response = self.ask(first, replay).await?;
        if !is_kept(&response) {
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
        let mut again = replay.make().ok_or_else(old)?;
        again
            .headers_mut()
            .insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let response = Box::pin(self.ask(again, replay)).await?;
        if is_kept(&response) {
            Err(old())
        } else {
            Ok(response)
        }
    }

    /// Phase 2: the terms of a 402.
    async fn read(&self, response: Response) -> Result<Challenge, Error> {
        self.deadline
            .bound(Duration::ZERO, challenge::read(response))
            .await
    }

    /// Phase 3, before any money: that the request can be made a second time.
    async fn replayable(
        &self,
        payer: &Payer,
        replay: &Replay,
        required: &PaymentRequired,
    ) -> Result<Intent, Error> {
        let again = replay.make();
        let intent = match &again {
            Some(request) => self.intent(request)?,
            None => self.intent(replay.head())?,
        };
        if again.is_some() {
            return Ok(intent);
        }
        let price_check = payer.quote(required.clone(), &intent).await?;
        let message = "payment is required, and the body cannot be sent a second time; give it as bytes or by body_fn";
        Err(
            Error::with_price_check(ErrorKind::NotReplayable, message, price_check)
                .at(replay.head().url()),
        )
    }

    async fn send(&mut self, mut request: Request, extra: Duration) -> Result<Response, Error> {
        if let Some(left) = self.deadline.remaining() {
            *request.timeout_mut() = Some(left);
        }
        let url = request.url().clone();
        let deadline = self.deadline;
        let response = deadline
            .bound(extra, self.wire.send(request))
            .await
            .map_err(|error| error.at(&url))?;
        // Of a payment, the other origin has the signature by now; what it answers is not believed.
        if *response.url() != url && Origin::of(response.url()) != Origin::of(&url) {
            return Err(Error::new(ErrorKind::Insecure, FOLLOWED_REDIRECT).at(response.url()));
        }
        Ok(response)
    }

    fn intent(&self, request: &Request) -> Result<Intent, Error> {
        let body = request
            .body()
            .map_or(Some(&[][..]), reqwest::Body::as_bytes);
        let mut intent = Intent::of(request.method().clone(), request.url().clone(), body)?
            .until(self.deadline.whole);
        if let Some(fingerprint) = self.fingerprint {
            intent = intent.fingerprint(fingerprint);
        }
        if let Some(id) = &self.options.purchase_id {
            intent = intent.purchase_id(id.clone());
        }
        if self.options.allow_duplicate {
            intent = intent.allow_duplicate();
        }
        if let Some(tag) = &self.options.tag {
            intent = intent.tag(tag.clone());
        }
        if let Some(max) = &self.options.max_price {
            intent = intent.max_price(max.clone());
        }
        Ok(intent)
    }
}

/// Whether a 402 comes from a cache, by its `Age` in seconds (RFC 9111, 5.1).
fn is_kept(response: &Response) -> bool {
    let age = response
        .headers()
        .get(AGE)
        .and_then(|age| age.to_str().ok());
    response.status() == StatusCode::PAYMENT_REQUIRED && age.is_some_and(|age| age.trim() != "0")
}
