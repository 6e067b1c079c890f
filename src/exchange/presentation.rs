//! Phase 5: the request with its payment, to its origin alone, until the answer is certain or
//! patience ends. Whatever happens from here on, the money counts as spent until there is proof.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Request, Response};
use tracing::Instrument;

use super::body::Opened;
use super::challenge::Challenge;
use super::response::Settlement;
use super::{Exchange, Replay, Transport};
use crate::ledger::BodyDigest;
use crate::payer::{Intent, Outcome, Payer, Payment};
use crate::receipt::{Claim, Receipt};
use crate::x402::{PaymentRequired, SettlementResponse};
use crate::{Error, ErrorKind, PaymentStatus, Timestamp};

/// The longest `Retry-After` that is waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a slow answer's purchase is kept from others: well within [`Payment::hold_on`]'s time.
const HEARTBEAT: Duration = Duration::from_secs(8);
/// How much of the body of a failed paid call is read for its hash, and for how long.
const EVIDENCE: (usize, Duration) = (64 * 1024, Duration::from_secs(2));

/// The terms that a payment was signed for.
pub(super) struct Basis {
    terms: Arc<PaymentRequired>,
    /// When a 402 named them; `None` for those remembered.
    named: Option<Timestamp>,
}

impl Basis {
    pub(super) fn named(terms: PaymentRequired, at: Timestamp) -> Self {
        Self {
            terms: Arc::new(terms),
            named: Some(at),
        }
    }

    pub(super) const fn known(terms: Arc<PaymentRequired>) -> Self {
        Self { terms, named: None }
    }

    /// Whether the seller has other terms by now than those remembered.
    fn is_stale(&self, terms: &PaymentRequired) -> bool {
        self.named.is_none() && !self.terms.offers_alike(terms)
    }

    /// Whether the seller settled at them, for the next purchase.
    fn prove(self, payer: &Payer, intent: &Intent, settled: bool) {
        match self.named {
            Some(named) if settled => payer.remember(intent, self.terms, named),
            None if !settled => payer.forget(intent),
            _ => {}
        }
    }
}

impl<W: Transport> Exchange<'_, W> {
    pub(super) async fn present(
        &mut self,
        payment: Payment,
        replay: &Replay,
        intent: Intent,
        basis: Option<Basis>,
    ) -> Result<Response, Error> {
        let (mut payment, mut basis) = (payment, basis);
        let mut requotes = u8::from(self.options.accept_new_terms);
        loop {
            let response = match self.deliver(&payment, replay).await {
                Ok(response) => response,
                Err(error) => {
                    payment.lost(&error.to_string()).await;
                    self.prove(basis, &intent, false);
                    return Err(error
                        .spent(payment.payment_status())
                        .of_payment(payment.payment()));
                }
            };
            let (status, headers) = (response.status(), response.headers().clone());
            let (terms, response) = match status {
                StatusCode::PAYMENT_REQUIRED => self.second_terms(response).await,
                _ => (None, Some(response)),
            };
            let (response, evidence) = match response {
                Some(response) if is_failure(status) => self.open(response).await?,
                response => (response, None),
            };
            let outcome = payment
                .conclude_with(status, &headers, terms.as_ref(), evidence)
                .await;
            let stale = basis
                .as_ref()
                .zip(terms.as_ref())
                .is_some_and(|(basis, terms)| basis.is_stale(terms));
            match (outcome, terms, self.payer) {
                (Outcome::Refused { pending: false, .. }, Some(terms), Some(payer))
                    if stale || requotes > 0 =>
                {
                    if stale {
                        payer.distrust(&intent);
                    } else {
                        requotes = requotes.saturating_sub(1);
                    }
                    let intent = intent
                        .clone()
                        .purchase_id(payment.payment().purchase.clone());
                    let (earlier, spend) = (payment.payment().clone(), payment.payment_status());
                    let changed = payer.requote(&terms, &intent).await;
                    payment = changed.map_err(|error| error.spent(spend).of_payment(&earlier))?;
                    basis = Some(Basis::named(terms, payer.now()));
                }
                (Outcome::Refused { reason, pending }, terms, _) => {
                    self.prove(basis, &intent, false);
                    let refusal = Refusal {
                        status,
                        reason,
                        pending,
                        new_terms: terms.is_some(),
                    };
                    return Err(refusal.of(&payment).at(replay.head().url()));
                }
                (outcome, ..) => {
                    let settled = matches!(outcome, Outcome::Settled(_)) && status.is_success();
                    self.prove(basis, &intent, settled && !payment.is_again());
                    let url = replay.head().url();
                    let response =
                        response.ok_or_else(|| withheld(&payment, status, &outcome).at(url))?;
                    return Ok(Settlement::attach(response, &payment, outcome));
                }
            }
        }
    }

    fn prove(&self, basis: Option<Basis>, intent: &Intent, settled: bool) {
        if let (Some(basis), Some(payer)) = (basis, self.payer) {
            basis.prove(payer, intent, settled);
        }
    }

    /// Presents the payment, and again while the answer is uncertain and patience lasts.
    ///
    /// A refusal that follows an uncertain answer tells nothing new, because most sellers refuse what
    /// they have already settled: the uncertain answer stands.
    async fn deliver(&mut self, payment: &Payment, replay: &Replay) -> Result<Response, Error> {
        let mut earlier = None;
        let mut presented = 0_u32;
        loop {
            presented = presented.saturating_add(1);
            let span = payment.presenting(presented);
            let answer = self.attempt(payment, replay).instrument(span.clone()).await;
            if let Ok(response) = &answer {
                span.record("status", response.status().as_u16());
            }
            if let Some(earlier) = earlier.take()
                && is_refusal(&answer, payment)
            {
                return earlier;
            }
            let Some(pause) = self.pause(&answer, payment, presented).await else {
                return answer;
            };
            if payment.hold_on().await.is_err() {
                return answer;
            }
            earlier = Some(answer);
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&mut self, payment: &Payment, replay: &Replay) -> Result<Response, Error> {
        let request = paid_request(payment, replay)?;
        let answer = self.send(request, Duration::from_secs(payment.window()));
        while_held(payment, answer).await
    }

    /// How long to wait before the payment is presented again, if it is to be.
    async fn pause(
        &self,
        answer: &Result<Response, Error>,
        payment: &Payment,
        presented: u32,
    ) -> Option<Duration> {
        if !is_uncertain(answer, payment) {
            return None;
        }
        let pause = self.retry.backoff(presented)?;
        let pause = match answer
            .as_ref()
            .ok()
            .and_then(|response| retry_after(response.headers()))
        {
            Some(wait) if wait > LONGEST_WAIT => return None,
            Some(wait) => pause.max(wait),
            None => pause,
        };
        let time_left = self.deadline.remaining().is_none_or(|left| left > pause);
        let still_valid = Duration::from_secs(payment.window()) > pause;
        let stopped = match self.payer {
            Some(payer) => !matches!(payer.stopped().await, Ok(None)),
            None => true,
        };
        (time_left && still_valid && !stopped).then_some(pause)
    }

    /// The terms of a 402 that answers a payment; the response is kept when there are none.
    async fn second_terms(
        &self,
        response: Response,
    ) -> (Option<PaymentRequired>, Option<Response>) {
        match self.read(response).await {
            Ok(Challenge::Required(terms)) => (Some(*terms), None),
            Ok(Challenge::NotX402(response)) => (None, Some(response)),
            Err(_) => (None, None),
        }
    }

    /// The hash of a failure's body, as far as it comes soon.
    async fn open(
        &self,
        response: Response,
    ) -> Result<(Option<Response>, Option<BodyDigest>), Error> {
        let (enough, soon) = EVIDENCE;
        let soon = self
            .deadline
            .remaining()
            .map_or(soon, |left| left.min(soon));
        let mut opened = Opened::new(response);
        // Late or broken, what was read is handed on, and the reader of the rest meets the fault.
        drop(tokio::time::timeout(soon, opened.read(enough)).await);
        let digest = opened.digest();
        Ok((Some(opened.close()?), Some(digest)))
    }
}

/// Awaits a slow answer, and keeps the purchase from others meanwhile.
pub(crate) async fn while_held<T>(
    payment: &Payment,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let mut answer = std::pin::pin!(answer);
    loop {
        match tokio::time::timeout(HEARTBEAT, answer.as_mut()).await {
            Ok(answer) => return answer,
            Err(_) => {
                if let Err(error) = payment.hold_on().await {
                    tracing::warn!(%error, purchase = %payment.payment().purchase, "an identical request may take this purchase up");
                }
            }
        }
    }
}

fn paid_request(payment: &Payment, replay: &Replay) -> Result<Request, Error> {
    let unmade = || Error::new(ErrorKind::NotReplayable, "the body could not be made again");
    let mut request = replay.make().ok_or_else(unmade)?;
    let (name, value) = payment.header()?;
    request.headers_mut().insert(name, value);
    // A shared cache must not hand what was paid for to others.
    request
        .headers_mut()
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    Ok(request)
}

/// Whether the payment may or may not have been settled, and the same bytes may yet bring what they
/// were signed for. An answer with a receipt that matches is certain, whatever its status.
fn is_uncertain(answer: &Result<Response, Error>, payment: &Payment) -> bool {
    match answer {
        Err(error) => matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout),
        Ok(response) => {
            let open = match response.status() {
                StatusCode::PAYMENT_REQUIRED => is_pending(response.headers()),
                StatusCode::REQUEST_TIMEOUT
                | StatusCode::TOO_EARLY
                | StatusCode::TOO_MANY_REQUESTS => true,
                status => status.is_server_error(),
            };
            open && !matches!(
                Claim::read(payment.payment(), response.headers()),
                Claim::Matching(_)
            )
        }
    }
}

fn is_refusal(answer: &Result<Response, Error>, payment: &Payment) -> bool {
    let refused = |response: &Response| {
        response.status() == StatusCode::PAYMENT_REQUIRED
            && !is_pending(response.headers())
            && !matches!(
                Claim::read(payment.payment(), response.headers()),
                Claim::Matching(_)
            )
    };
    answer.as_ref().is_ok_and(refused)
}

fn is_pending(headers: &HeaderMap) -> bool {
    matches!(SettlementResponse::from_headers(headers), Some(Ok(claim)) if claim.is_pending())
}

fn is_failure(status: StatusCode) -> bool {
    status.is_client_error() || status.is_server_error()
}

/// `Retry-After` in seconds; its form as a date is not waited for.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

/// A 402 that is no refusal, because its receipt proves the payment; not handed up, because its terms
/// would be paid again.
fn withheld(payment: &Payment, status: StatusCode, outcome: &Outcome) -> Error {
    let message = "the seller asks again for what its own receipt says is paid";
    let error = Error::new(ErrorKind::Rejected, message)
        .with_status(status)
        .of_payment(payment.payment());
    match outcome {
        Outcome::Settled(receipt) => error
            .spent(PaymentStatus::Paid)
            .with_receipt(Receipt::clone(receipt)),
        Outcome::Refused { .. } | Outcome::Unresolved { .. } => {
            error.spent(payment.payment_status())
        }
    }
}

/// A 402 that answered a payment.
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) reason: Option<String>,
    pub(crate) pending: bool,
    pub(crate) new_terms: bool,
}

impl Refusal {
    pub(crate) fn of(self, payment: &Payment) -> Error {
        let words = self
            .reason
            .clone()
            .unwrap_or_else(|| "no reason given".to_owned());
        let (kind, what) = if self.pending {
            (
                ErrorKind::SettlementPending,
                "the seller sent the transaction and has not seen it included",
            )
        } else if self.new_terms {
            (ErrorKind::Rejected, "the seller refused the payment")
        } else {
            (
                ErrorKind::SettlementFailed,
                "the seller says that it could not settle",
            )
        };
        // A refusal of what was presented before may well be of what was taken.
        let earlier = if payment.is_again() {
            "; the payment was signed earlier, and may have been taken"
        } else {
            ""
        };
        let error = Error::refused(kind, format!("{what}: {words}{earlier}"), self.reason)
            .with_status(self.status);
        error
            .spent(payment.payment_status())
            .of_payment(payment.payment())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_seconds_to_wait_are_understood() {
        let headers =
            |value| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(retry_after(&headers("-1")), None);
    }
}
