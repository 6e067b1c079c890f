//! Presenting a payment until the answer is certain: the one loop for every transport.
//!
//! The payment counts as spent from here on, until there is proof that it was not used.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tracing::Instrument;

use super::reply::ReplyHead;
use super::transport::{AfterSigning, PaymentRecord, Reply, Transport};
use super::{Deadline, Outcome, Payer, Payment, RetryPolicy};
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::request::PurchaseRequest;
use crate::x402::PaymentRequired;

/// The longest `Retry-After` that bursar waits for.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a call that waits for a slow answer renews its lease: well within the length of the lease.
const HEARTBEAT: Duration = Duration::from_secs(8);

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

/// Presents a payment until the answer is certain or the retry policy ends, and records the outcome.
///
/// Every error that this returns comes from the payment, so it knows whether money may have moved.
pub(crate) async fn present<T: Transport>(
    transport: &mut T,
    payment: Payment,
    mut call: PaidCall,
) -> Result<(T::Answer, PaymentRecord), Error> {
    let mut payment = payment;
    let mut new_terms = u8::from(call.request.accepts_new_terms());
    loop {
        let (head, body) = match answered(transport, &payment, &call).await {
            Ok(answered) => answered,
            Err(error) => {
                payment.lost(error.message()).await;
                call.update_cache(&payment, false);
                return Err(payment.fail(error).at(call.request.url()));
            }
        };
        let status = head.status;
        let outcome = payment
            .conclude_with(head, body.terms.as_ref(), body.digest)
            .await;
        match (outcome, body.terms) {
            (Outcome::Refused { pending: false, .. }, Some(terms))
                if new_terms > 0 || call.has_stale_terms(&terms) =>
            {
                if call.has_stale_terms(&terms) {
                    payment.payer().block_cached_terms(&call.request);
                } else {
                    new_terms = new_terms.saturating_sub(1);
                }
                payment = sign_new_terms(&payment, &terms, &call.request).await?;
                call.terms = Some(SignedTerms::named(terms, payment.payer().now()));
            }
            (Outcome::Refused { reason, pending }, terms) => {
                call.update_cache(&payment, false);
                let error = refusal(&payment, reason, pending, terms.is_some());
                return Err(payment
                    .fail(error.with_status(status))
                    .at(call.request.url()));
            }
            (outcome, _) => {
                let receipt = match outcome {
                    Outcome::Settled(receipt) => Some(receipt),
                    _ => None,
                };
                let settled = receipt.is_some() && status.is_success() && !payment.is_again();
                call.update_cache(&payment, settled);
                let record = PaymentRecord::new(&payment, receipt);
                return match body.answer {
                    Some(answer) => Ok((answer, record)),
                    None => Err(record.fail(asks_again(status)).at(call.request.url())),
                };
            }
        }
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
) -> Result<Payment, Error> {
    let request = request.continuing(&payment.payment().purchase);
    let signed = payment.payer().authorize_new_terms(terms, &request).await;
    signed.map_err(|error| payment.fail(error))
}

/// The final answer, with its body.
async fn answered<T: Transport>(
    transport: &mut T,
    payment: &Payment,
    call: &PaidCall,
) -> Result<(ReplyHead, super::transport::ReplyBody<T::Answer>), AfterSigning> {
    let Reply { head, answer } = deliver(transport, payment, call).await?;
    let body = transport.read_body(head.status, answer).await?;
    Ok((head, body))
}

/// Sends the payment, and sends it again while the answer is uncertain and the retry policy allows it.
///
/// Most sellers refuse a payment that they have settled. A refusal after an uncertain answer therefore says nothing
/// new, and the uncertain answer is the final one.
async fn deliver<T: Transport>(
    transport: &mut T,
    payment: &Payment,
    call: &PaidCall,
) -> Result<Reply<T::Answer>, AfterSigning> {
    let mut earlier: Option<Result<Reply<T::Answer>, AfterSigning>> = None;
    let mut attempts = 0_u32;
    loop {
        attempts = attempts.saturating_add(1);
        let span = payment.attempt_span(attempts);
        let reply = while_leased(payment, transport.send_payment(payment))
            .instrument(span.clone())
            .await;
        if let Ok(reply) = &reply {
            span.record("status", reply.head.status.as_u16());
        }
        if let Some(earlier) = earlier.take()
            && reply.as_ref().is_ok_and(|reply| reply.head.is_refusal())
        {
            return earlier;
        }
        let closed = transport.is_closed();
        let head = reply.as_ref().map(|reply| &reply.head);
        let wait = wait_before_retry(head, payment, call, attempts).await;
        let Some(wait) = wait.filter(|_| !closed) else {
            return reply;
        };
        if payment.renew_lease().await.is_err() {
            return reply;
        }
        earlier = Some(reply);
        tokio::time::sleep(wait).await;
    }
}

/// The time to wait before the payment is sent again, if it is to be sent again.
async fn wait_before_retry(
    reply: Result<&ReplyHead, &AfterSigning>,
    payment: &Payment,
    call: &PaidCall,
    attempts: u32,
) -> Option<Duration> {
    let (uncertain, retry_after) = match reply {
        Err(error) => (
            matches!(error.kind(), ErrorKind::Transport | ErrorKind::Timeout),
            error.retry_after(),
        ),
        Ok(head) => (head.is_uncertain(), head.retry_after),
    };
    if !uncertain {
        return None;
    }
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
    answer: impl Future<Output = Result<T, AfterSigning>>,
) -> Result<T, AfterSigning> {
    let mut answer = std::pin::pin!(answer);
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

/// A 402 that answers a payment.
fn refusal(payment: &Payment, reason: Option<String>, pending: bool, new_terms: bool) -> Error {
    let (kind, message) = if pending {
        (
            ErrorKind::SettlementPending,
            "the seller sent the transaction and has not seen it included",
        )
    } else if new_terms {
        (ErrorKind::Rejected, "the seller refused the payment")
    } else {
        (
            ErrorKind::SettlementFailed,
            "the seller says that it could not settle",
        )
    };
    // A seller may refuse a payment that it took before.
    let earlier = if payment.is_again() {
        "; the payment was signed earlier, and may have been taken"
    } else {
        ""
    };
    let words = reason.as_deref().unwrap_or("no reason given");
    Error::new(kind, format!("{message}: {words}{earlier}")).with_reason(reason)
}

/// A 402 with a receipt that proves the payment. The caller does not receive it, because a client could pay its terms
/// again.
fn asks_again(status: StatusCode) -> Error {
    let message = "the seller asks again for what its own receipt says is paid";
    Error::new(ErrorKind::Rejected, message).with_status(status)
}
