//! Presenting a payment until the answer is certain: the one loop for every transport.
//!
//! The payment counts as spent from here on, until there is proof that it was not used.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tracing::Instrument;

use super::deadline::TIMER;
use super::reply::{Refusal, ReplyHead, Source};
use super::transport::{AfterSigning, PaymentRecord, Reply, ReplyBody, Transport};
use super::{Deadline, Outcome, Payer, Payment, RetryPolicy};
use crate::clock::{CLOCK_BOUND, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::money::TransferMethod;
use crate::permit2::MissingAllowance;
use crate::request::PurchaseRequest;
use crate::text;
use crate::x402::{Failure, PaymentRequired, SignedPayment};

/// The longest `Retry-After` that bursar waits for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a call that waits for a slow answer renews its lease: well within the length of the lease, and often enough
/// that an identical call of another process soon knows that this one lives.
const HEARTBEAT: Duration = TIMER;

/// One call that presents a payment.
pub(crate) struct PaidCall {
    pub(crate) request: PurchaseRequest,
    pub(crate) deadline: Deadline,
    pub(crate) retry: RetryPolicy,
    /// The terms of the payment, if this call signed it.
    pub(crate) terms: Option<SignedTerms>,
}

/// The terms that a payment was signed for.
pub(crate) struct SignedTerms {
    terms: Arc<PaymentRequired>,
    /// When a 402 named the terms; `None` for terms from the cache.
    named: Option<Timestamp>,
}

impl SignedTerms {
    pub(crate) fn named(terms: PaymentRequired, at: Timestamp) -> Self {
        Self {
            terms: Arc::new(terms),
            named: Some(at),
        }
    }

    pub(crate) const fn cached(terms: Arc<PaymentRequired>) -> Self {
        Self { terms, named: None }
    }

    /// Whether the terms came from the cache and the seller has other terms by now.
    fn are_stale(&self, terms: &PaymentRequired) -> bool {
        self.named.is_none() && !self.terms.offers_alike(terms)
    }

    /// Updates the cache: with terms that the seller named and settled, without terms that it did not settle.
    fn update_cache(self, payer: &Payer, request: &PurchaseRequest, settled: bool) {
        match self.named {
            Some(named) if settled => payer.cache_terms(request, self.terms, named),
            None if !settled => payer.remove_cached_terms(request),
            _ => {}
        }
    }
}

impl PaidCall {
    fn update_cache(&mut self, payment: &Payment, settled: bool) {
        if let Some(terms) = self.terms.take() {
            terms.update_cache(payment.payer(), &self.request, settled);
        }
    }
}

/// Presents a payment until the goods are there or the retry policy ends, and records the outcome.
///
/// Every error that this returns comes from the payment, so it knows whether money may have moved.
pub(crate) async fn present<T: Transport>(
    transport: &mut T,
    mut payment: Box<Payment>,
    mut call: PaidCall,
) -> Result<(T::Answer, PaymentRecord), Error> {
    let mut new_terms = u8::from(call.request.accepts_new_terms());
    loop {
        let (head, refusal, body) = match answered(transport, &mut payment, &call).await {
            Ok(answered) => answered,
            Err(error) => {
                payment.lost(error.message()).await;
                call.update_cache(&payment, false);
                let error = error.and(&again_hint(&payment));
                return Err(payment.fail(error).at(call.request.url()));
            }
        };
        let status = head.status;
        let clocks = head.clock_error(payment.payer().now());
        let outcome = payment
            .conclude_with(head, refusal.as_ref(), body.digest)
            .await;
        if let Some(refusal) = refusal {
            if let Some(terms) = body.terms.filter(|terms| {
                !matches!(refusal.failure, Failure::Uncertain | Failure::NoAllowance)
                    && (new_terms > 0 || call.has_stale_terms(terms))
            }) {
                if call.has_stale_terms(&terms) {
                    payment.payer().block_cached_terms(&call.request);
                } else {
                    new_terms = new_terms.saturating_sub(1);
                }
                payment = Box::pin(sign_new_terms(&payment, &terms, &call.request)).await?;
                call.terms = Some(SignedTerms::named(terms, payment.payer().now()));
                continue;
            }
            call.update_cache(&payment, false);
            let error = refused(&payment, refusal, clocks).with_status(status);
            return Err(payment.fail(error).at(call.request.url()));
        }
        let receipt = match outcome {
            Outcome::Settled(receipt) => Some(receipt),
            _ => None,
        };
        let settled = receipt.is_some() && status.is_success() && !payment.is_again();
        call.update_cache(&payment, settled);
        let record = PaymentRecord::new(&payment, receipt, body.words.as_deref());
        return match body.answer {
            Some(answer) => Ok((answer, record)),
            None => {
                let error = asks_again(status, body.words.as_deref()).and(&again_hint(&payment));
                Err(record.fail(error).at(call.request.url()))
            }
        };
    }
}

impl PaidCall {
    fn has_stale_terms(&self, terms: &PaymentRequired) -> bool {
        let signed = self.terms.as_ref();
        signed.is_some_and(|signed| signed.are_stale(terms))
    }
}

/// Signs changed terms under the nonce of the payment.
async fn sign_new_terms(
    payment: &Payment,
    terms: &PaymentRequired,
    request: &PurchaseRequest,
) -> Result<Box<Payment>, Error> {
    let request = request.continuing(&payment.payment().purchase);
    let signed = payment.payer().authorize_new_terms(terms, &request).await;
    signed.map_err(|error| payment.fail(error))
}

/// An answer whose body is read if it is a 402: the reason can be there alone.
struct Received<A> {
    head: ReplyHead,
    refusal: Option<Refusal>,
    body: Body<A>,
}

enum Body<A> {
    Unread(A),
    Read(Box<ReplyBody<A>>),
}

impl<A> Received<A> {
    fn is_temporary(&self) -> bool {
        self.head.is_temporary()
            || self
                .refusal
                .as_ref()
                .is_some_and(|refusal| refusal.failure == Failure::Uncertain)
    }

    fn is_refusal(&self) -> bool {
        self.refusal.is_some() && !self.is_temporary()
    }
}

/// The final answer, with its body.
async fn answered<T: Transport>(
    transport: &mut T,
    payment: &mut Payment,
    call: &PaidCall,
) -> Result<(ReplyHead, Option<Refusal>, ReplyBody<T::Answer>), AfterSigning> {
    let Received {
        head,
        refusal,
        body,
    } = deliver(transport, payment, call).await?;
    let body = match body {
        Body::Read(body) => *body,
        Body::Unread(unread) => transport.read_body(head.status, unread).await?,
    };
    let refusal = refusal.or_else(|| head.refusal(None, body.words.as_deref()));
    Ok((head, refusal, body))
}

/// Sends the payment once.
async fn attempt<T: Transport>(
    transport: &mut T,
    payment: &Payment,
) -> Result<Received<T::Answer>, AfterSigning> {
    let Reply { head, answer } = transport.send_payment(payment).await?;
    if head.status != StatusCode::PAYMENT_REQUIRED {
        let refusal = head.refusal(None, None);
        return Ok(Received {
            head,
            refusal,
            body: Body::Unread(answer),
        });
    }
    let body = transport.read_body(head.status, answer).await?;
    let refusal = head.refusal(body.terms.as_ref(), body.words.as_deref());
    Ok(Received {
        head,
        refusal,
        body: Body::Read(Box::new(body)),
    })
}

/// Sends the payment, and sends it again while the goods may still come and the retry policy allows it.
///
/// Most sellers refuse a payment that they have settled. A refusal after such an answer therefore says nothing new, and
/// the earlier answer is the final one.
async fn deliver<T: Transport>(
    transport: &mut T,
    payment: &mut Payment,
    call: &PaidCall,
) -> Result<Received<T::Answer>, AfterSigning> {
    let mut earlier: Option<Result<Received<T::Answer>, AfterSigning>> = None;
    let mut attempts = 0_u32;
    loop {
        attempts = attempts.saturating_add(1);
        let span = payment.attempt_span(attempts);
        let mut reply = {
            // Pinned here: a future that is passed on by value is in the memory of this one twice.
            let sent = pin!(attempt(transport, payment));
            while_leased(payment, sent).instrument(span.clone()).await
        };
        if let Ok(reply) = &reply {
            span.record("status", reply.head.status.as_u16());
        }
        if let Some(earlier) = earlier.take()
            && reply.as_ref().is_ok_and(Received::is_refusal)
        {
            return earlier;
        }
        let closed = transport.is_closed();
        let (is_temporary, retry_after) = match &reply {
            Err(error) => (
                matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout),
                error.retry_after(),
            ),
            Ok(reply) => (reply.is_temporary(), reply.head.retry_after),
        };
        if closed || !is_temporary {
            return reply;
        }
        let wait = Box::pin(wait_before_retry(retry_after, payment, call, attempts));
        let Some(wait) = wait.await else {
            return reply;
        };
        if let Ok(reply) = &mut reply {
            Box::pin(payment.settle_early(&mut reply.head)).await;
        }
        if payment.renew_lease().await.is_err() {
            return reply;
        }
        earlier = Some(reply);
        let pause = pin!(async {
            tokio::time::sleep(wait).await;
            Ok(())
        });
        while_leased(payment, pause).await?;
    }
}

/// The time to wait before the payment is sent again, if it is to be sent again.
async fn wait_before_retry(
    retry_after: Option<Duration>,
    payment: &Payment,
    call: &PaidCall,
    attempts: u32,
) -> Option<Duration> {
    let backoff = call.retry.backoff(attempts)?;
    let wait = match retry_after {
        Some(wait) if wait > LONGEST_WAIT => return None,
        Some(wait) => backoff.max(wait),
        None => backoff,
    };
    let time_left = call.deadline.remaining().is_none_or(|left| left > wait);
    let valid = payment.time_to_settle() > wait;
    let frozen = !matches!(payment.payer().stopped().await, Ok(None));
    (time_left && valid && !frozen).then_some(wait)
}

/// Awaits a slow answer, and renews the lease on the purchase meanwhile.
async fn while_leased<T>(
    payment: &Payment,
    mut answer: Pin<&mut impl Future<Output = Result<T, AfterSigning>>>,
) -> Result<T, AfterSigning> {
    loop {
        match tokio::time::timeout(HEARTBEAT, answer.as_mut()).await {
            Ok(answer) => return answer,
            Err(_) => {
                if let Err(error) = payment.renew_lease().await {
                    tracing::warn!(error = error.message(), purchase = %payment.payment().purchase, "an identical request may resume this purchase");
                }
            }
        }
    }
}

/// The error of a payment that the seller refused.
fn refused(payment: &Payment, refusal: Refusal, clocks: Option<String>) -> Error {
    let words = refusal.reason.as_deref();
    let words = words.map_or_else(|| "no reason given".to_owned(), text::quoted);
    let kind = if refusal.tried_to_settle() {
        ErrorKind::SettlementFailed
    } else {
        ErrorKind::Rejected
    };
    if refusal.failure == Failure::NoAllowance
        && payment.payment().method.transfer_method() == TransferMethod::Permit2
    {
        let SignedPayment { payer, amount, .. } = payment.payment();
        let missing = MissingAllowance::of(*payer, amount);
        return Error::new(ErrorKind::Rejected, missing.to_string())
            .and(&again_hint(payment))
            .with_missing_allowance(missing, refusal.reason);
    }
    let (kind, message) = match (refusal.failure, refusal.source) {
        (Failure::Uncertain, _) => (
            ErrorKind::SettlementPending,
            format!("the seller does not know yet whether the payment settled: {words}"),
        ),
        (Failure::WalletEmpty, _) => {
            let SignedPayment { payer, amount, .. } = payment.payment();
            let (symbol, network) = (amount.asset().symbol(), amount.asset().network());
            let message = format!(
                "the seller says that the wallet {payer} has too little {symbol} on {network}: {words}; send {symbol} to it, and try again"
            );
            (kind, message)
        }
        (Failure::Permanent, _) => (
            kind,
            format!(
                "the seller refused the payment: {words}; it will refuse every payment like this one"
            ),
        ),
        (Failure::Refused | Failure::NoAllowance, Source::Other) => (
            kind,
            format!("the seller answered the payment with 402 and no terms: {words}"),
        ),
        (Failure::Refused | Failure::NoAllowance, _) if kind == ErrorKind::SettlementFailed => (
            kind,
            format!("the seller says that it could not settle: {words}"),
        ),
        (Failure::Refused | Failure::NoAllowance, _) => {
            (kind, format!("the seller refused the payment: {words}"))
        }
    };
    let message = match clocks {
        Some(clocks) => format!("{message}; {clocks}"),
        None => message,
    };
    Error::new(kind, message)
        .and(&again_hint(payment))
        .with_reason(refusal.reason)
}

/// The way to the goods, and the way to buy again.
pub(crate) fn same_request(payment: &SignedPayment) -> String {
    let until = Timestamp::from_secs(payment.valid_before).after(CLOCK_BOUND);
    format!(
        "the same request presents this payment again until {until}, or until `Ledger::reconcile` proves that it did not settle; \
         to buy again on purpose, use `allow_duplicate`"
    )
}

/// The rest of an error's message: whether the payment was taken, and the way to buy again on purpose.
fn again_hint(payment: &Payment) -> String {
    let taken = match (&payment.settled, payment.is_again()) {
        (Some(receipt), _) if payment.delivered => format!(
            "the seller took this payment in {} and delivered before; ",
            receipt.transaction()
        ),
        (Some(receipt), _) => format!(
            "the seller took this payment in {} and did not deliver; ",
            receipt.transaction()
        ),
        // A seller may refuse a payment that it took before.
        (None, true) => "the payment was signed earlier, and may have been taken; ".to_owned(),
        (None, false) => String::new(),
    };
    format!("{taken}{}", same_request(payment.payment()))
}

/// A 402 with a receipt that proves the payment. The caller does not receive it, because a client could pay its terms
/// again.
fn asks_again(status: StatusCode, words: Option<&str>) -> Error {
    let words = words.map(text::excerpt);
    let message = match &words {
        Some(words) => {
            let words = text::quoted(words);
            format!("the seller took the payment and answered {status}: {words}")
        }
        None => format!("the seller took the payment and answered {status} without a reason"),
    };
    Error::new(ErrorKind::Rejected, message)
        .with_status(status)
        .with_reason(words)
}
