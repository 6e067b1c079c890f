//! The way of a payment to its seller, and the seller's answer.

use std::future::Future;
use std::sync::Arc;

use http::StatusCode;

use super::Payment;
use super::reply::ReplyHead;
use crate::error::{Error, ErrorKind, PaymentStatus};
use crate::ledger::BodyDigest;
use crate::text;
use crate::x402::PaymentRequired;
use crate::x402::{Receipt, SignedPayment};

/// Sends one request with its payment: over HTTP, through a stack of middleware, or as a call of an MCP tool.
///
/// A transport sends bytes and reads an answer. [`present`](super::present::present) decides everything else:
/// when to send again, how to record the answer, and which error the caller receives.
pub(crate) trait Transport: Send {
    /// The seller's answer, as the caller receives it.
    type Answer: Send;

    /// Sends the request with the payment, once, and waits for the answer.
    fn send_payment(
        &mut self,
        payment: &Payment,
    ) -> impl Future<Output = Result<Reply<Self::Answer>, AfterSigning>> + Send;

    /// Reads the rest of a final answer: the terms of a 402, and the hash of a failure's body.
    fn read_body(
        &mut self,
        status: StatusCode,
        answer: Self::Answer,
    ) -> impl Future<Output = Result<ReplyBody<Self::Answer>, AfterSigning>> + Send;

    /// Whether another attempt cannot reach the seller.
    fn is_closed(&self) -> bool {
        false
    }
}

/// An answer to a payment.
pub(crate) struct Reply<A> {
    pub(crate) head: ReplyHead,
    pub(crate) answer: A,
}

/// The rest of an answer to a payment.
pub(crate) struct ReplyBody<A> {
    /// The terms of a 402.
    pub(crate) terms: Option<PaymentRequired>,
    /// The hash of the body of a failure.
    pub(crate) digest: Option<BodyDigest>,
    /// The words of the seller in the body of a failure: untrusted, and maybe long.
    pub(crate) words: Option<String>,
    /// The answer for the caller. `None` for a 402 whose terms were read or cannot be read.
    pub(crate) answer: Option<A>,
}

impl<A> ReplyBody<A> {
    /// The body of an answer that is not a failure: the caller reads it.
    pub(crate) const fn unread(answer: A) -> Self {
        Self {
            terms: None,
            digest: None,
            words: None,
            answer: Some(answer),
        }
    }
}

/// An error that happened after a payment was signed.
///
/// It knows the cause and not the money. Only the payment makes an [`Error`] of it, so no error after a signature
/// can claim that nothing was paid.
#[derive(Debug)]
pub(crate) struct AfterSigning(Error);

impl<E: Into<Error>> From<E> for AfterSigning {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl AfterSigning {
    pub(crate) fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// The cause, for the ledger.
    pub(crate) fn message(&self) -> &str {
        self.0.message()
    }

    pub(crate) fn retry_after(&self) -> Option<std::time::Duration> {
        self.0.retry_after()
    }

    pub(super) fn and(self, rest: &str) -> Self {
        Self(self.0.and(rest))
    }

    pub(super) fn of_payment(self, payment: &SignedPayment, receipt: Option<&Receipt>) -> Error {
        self.0.of_payment(payment, receipt)
    }
}

/// The payment that belongs to an answer, and its receipt if the seller gave one that matches.
#[derive(Clone, Debug)]
pub(crate) struct PaymentRecord {
    payment: SignedPayment,
    receipt: Option<Arc<Receipt>>,
    /// The words of the seller in the body of a failure, cut and tamed.
    words: Option<String>,
}

impl PaymentRecord {
    pub(super) fn new(
        payment: &Payment,
        receipt: Option<Box<Receipt>>,
        words: Option<&str>,
    ) -> Self {
        Self {
            payment: payment.payment().clone(),
            receipt: receipt.map(Arc::from),
            words: words.map(text::excerpt),
        }
    }

    pub(crate) fn words(&self) -> Option<&str> {
        self.words.as_deref()
    }

    pub(crate) const fn payment(&self) -> &SignedPayment {
        &self.payment
    }

    pub(crate) fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_deref()
    }

    pub(crate) const fn status(&self) -> PaymentStatus {
        match self.receipt {
            Some(_) => PaymentStatus::Paid,
            None => PaymentStatus::MaybePaid,
        }
    }

    /// Attributes an error to the payment.
    pub(crate) fn fail(&self, error: Error) -> Error {
        error.of_payment(&self.payment, self.receipt())
    }
}
