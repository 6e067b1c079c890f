//! A signed payment, from its signature until its outcome is recorded.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::U256;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tracing::Span;
use tracing::field::Empty;

use super::Payer;
use super::balance::Hold;
use super::drop_guard::DropGuard;
use super::reply::{Refusal, ReplyHead};
use super::transport::AfterSigning;
use crate::error::{Error, ErrorKind};
use crate::ledger::{BodyDigest, Transition};
use crate::telemetry::{Event, EventKind};
use crate::text;
use crate::x402::{self, PaymentRequired, Version};
use crate::x402::{Claim, Receipt, SignedPayment, Verification};

/// How long a call that presents a payment has it for itself before it must renew the lease.
///
/// An identical request in another process waits so long at most until it takes the call for dead.
pub(super) const PRESENTER_LEASE: Duration = Duration::from_secs(20);

/// A signed payment. The ledger holds it, and it is ready to be sent.
///
/// Send [`header`](Self::header) or [`json`](Self::json) to the seller, and then call [`conclude`](Self::conclude)
/// with the answer, or [`lost`](Self::lost) when there is none. If you drop the payment before, the ledger stores it
/// as unresolved, and its amount counts as spent.
///
/// ```
/// use bursar::reqwest::{StatusCode, header::HeaderMap};
/// use bursar::payment::{Outcome, Payment};
///
/// async fn report(payment: Payment, status: StatusCode, headers: &HeaderMap) {
///     match payment.conclude(status, headers, None).await {
///         Outcome::Settled(receipt) => println!("settled in {}", receipt.transaction()),
///         outcome => println!("{} may be paid: {outcome:?}", payment.payment().amount),
///     }
/// }
/// ```
#[must_use = "a payment that is not presented still counts as spent"]
pub struct Payment {
    pub(super) guard: DropGuard,
    pub(super) signed: SignedPayment,
    pub(super) version: Version,
    pub(super) payload: SecretString,
    pub(super) again: bool,
    /// The receipt that the seller gave earlier: by the ledger, or within this call.
    pub(super) settled: Option<Box<Receipt>>,
    /// Whether the goods came earlier, by the ledger.
    pub(super) delivered: bool,
    /// Whether this call recorded the receipt before the final answer.
    pub(super) settled_early: bool,
    /// The query of the request, which no text of the seller may bring back.
    pub(super) query: Option<Arc<text::OwnQuery>>,
    /// The part of the wallet's balance that the payment needs, if it is known.
    pub(super) hold: Option<Hold>,
}

impl Payment {
    /// Returns a payment that was signed now. The ledger holds it.
    pub(super) fn signed(
        guard: DropGuard,
        signed: SignedPayment,
        version: Version,
        (payload, hold): (SecretString, Option<Hold>),
    ) -> Self {
        Self {
            guard,
            signed,
            version,
            payload,
            again: false,
            settled: None,
            delivered: false,
            settled_early: false,
            query: text::current(),
            hold,
        }
    }
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("signed", &self.signed)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

/// The outcome of a payment, by the seller's answer.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The seller named a transaction that matches the payment.
    Settled(Box<Receipt>),
    /// The seller answered 402, without a matching receipt.
    Refused {
        /// The seller's reason, if it gave one: untrusted text of at most 160 characters.
        reason: Option<String>,
        /// Whether the answer leaves open that the payment settles: the seller has not seen the transaction
        /// included, or the 402 has neither terms nor a receipt of a failure.
        pending: bool,
    },
    /// The seller gave another answer, without a matching receipt.
    Unresolved {
        /// Why the answer proves nothing.
        reason: String,
    },
}

impl Payment {
    /// Returns the authorization that bursar signed.
    #[must_use]
    pub const fn payment(&self) -> &SignedPayment {
        &self.signed
    }

    /// Returns whether an earlier call signed this payment, and this call presents it again.
    #[must_use]
    pub const fn is_again(&self) -> bool {
        self.again
    }

    pub(super) const fn payer(&self) -> &Payer {
        self.guard.payer()
    }

    /// Makes the caller's error of an error that happened after the signature.
    pub(crate) fn fail(&self, error: impl Into<AfterSigning>) -> Error {
        error
            .into()
            .of_payment(&self.signed, self.settled.as_deref())
    }

    /// Keeps identical requests from resuming the purchase while this call presents it. The lease is short, so that a
    /// crash does not keep the purchase for long.
    pub(super) async fn renew_lease(&self) -> Result<(), AfterSigning> {
        let now = self.payer().now();
        let presented = Transition::Presented {
            until: now.after(PRESENTER_LEASE),
        };
        let ledger = &self.payer().inner.ledger;
        ledger.record(self.guard.key(), &presented, now).await?;
        Ok(())
    }

    /// The time that the seller has, at most, to settle.
    pub(crate) fn time_to_settle(&self) -> Duration {
        let now = self.payer().now().secs();
        Duration::from_secs(self.signed.valid_before.saturating_sub(now))
    }

    /// Returns the request header that carries the payment, marked as sensitive.
    ///
    /// # Errors
    /// When the payment that the ledger stored is damaged.
    pub fn header(&self) -> Result<(HeaderName, HeaderValue), Error> {
        let value = HeaderValue::from_str(self.payload.expose_secret());
        let mut value = value.map_err(|_| self.damaged())?;
        value.set_sensitive(true);
        Ok((self.version.payment_header(), value))
    }

    /// Returns the same payment in the form of version 1, for a seller that states terms of version 2 in a body.
    pub(crate) fn version_1_header(&self) -> Option<(HeaderName, HeaderValue)> {
        let header = x402::version_1_header(self.payload.expose_secret())?;
        let mut value = HeaderValue::try_from(header).ok()?;
        value.set_sensitive(true);
        Some((Version::V1.payment_header(), value))
    }

    /// Returns the payment as JSON, for transports without headers such as MCP. Keep it secret: it is as good as the
    /// money until it expires.
    ///
    /// # Errors
    /// When the payment that the ledger stored is damaged.
    pub fn json(&self) -> Result<SecretString, Error> {
        x402::decode_header(self.payload.expose_secret().as_bytes())
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .map(SecretString::from)
            .ok_or_else(|| self.damaged())
    }

    pub(crate) fn damaged(&self) -> Error {
        self.fail(Error::new(
            ErrorKind::Ledger,
            "the stored payment is damaged",
        ))
    }

    /// Records the seller's answer: its status, its headers, and the terms if it is another 402.
    ///
    /// When the ledger cannot be written, the answer is not lost: bursar records it before the next purchase. Until
    /// then the purchase stays signed in the ledger, which counts as spent.
    pub async fn conclude(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        terms: Option<&PaymentRequired>,
    ) -> Outcome {
        let concluding = async {
            let head = ReplyHead::http(&self.signed, status, headers);
            let refusal = head.refusal(terms, None);
            self.conclude_with(head, refusal.as_ref(), None).await
        };
        text::guarding_again(self.query.clone(), Box::pin(concluding)).await
    }

    /// Records an answer over any transport: the refusal that it is, if it is one, and the hash of the body of a
    /// failure.
    pub(super) async fn conclude_with(
        &self,
        mut head: ReplyHead,
        refusal: Option<&Refusal>,
        body: Option<BodyDigest>,
    ) -> Outcome {
        self.check_receipt(&mut head);
        let status = head.status;
        let (claim, answer) = head.into_parts(body);
        let outcome = match (claim, refusal, &self.settled) {
            (Claim::Matching(receipt), ..) => Outcome::Settled(receipt),
            (_, Some(refusal), _) => Outcome::Refused {
                reason: refusal.reason.clone(),
                pending: refusal.is_unresolved(),
            },
            (_, None, Some(receipt)) => Outcome::Settled(receipt.clone()),
            (claim, None, None) => Outcome::Unresolved {
                reason: unproven(claim, status, &self.signed),
            },
        };
        let words = |reason: &Option<String>| reason.clone().unwrap_or_else(|| "402".to_owned());
        let transition = match &outcome {
            Outcome::Settled(receipt) => Transition::Settled {
                transaction: receipt.transaction(),
                charged: receipt.claimed_charge(),
                answer,
            },
            Outcome::Refused {
                reason,
                pending: true,
            } => Transition::Unresolved {
                reason: words(reason),
                answer: Some(answer),
            },
            Outcome::Refused { reason, .. } => Transition::Rejected {
                reason: words(reason),
                answer,
            },
            Outcome::Unresolved { reason } => Transition::Unresolved {
                reason: reason.clone(),
                answer: Some(answer),
            },
        };
        if let Some(refusal) = refusal.filter(|_| !self.again) {
            self.payer()
                .note_refusal(self, refusal.failure, refusal.reason.as_deref());
        } else if matches!(outcome, Outcome::Settled(_)) {
            self.payer().note_settled(self);
        }
        self.record(transition).await;
        outcome
    }

    /// Records a receipt whose goods did not come yet, so that it cannot be lost while bursar presents the payment
    /// again.
    pub(super) async fn settle_early(&mut self, head: &mut ReplyHead) {
        self.check_receipt(head);
        if let Claim::Matching(receipt) = &head.claim
            && self.settled.is_none()
        {
            self.settled = Some(receipt.clone());
            let settled = Transition::Settled {
                transaction: receipt.transaction(),
                charged: receipt.claimed_charge(),
                answer: head.record(),
            };
            self.record(settled).await;
            self.guard.arm();
            // The call goes on, and another one of this process need not wait for a sign of it.
            self.guard.flight.present(self.guard.key().clone());
            self.settled_early = true;
        }
    }

    /// Checks the signed receipt of an answer. It changes nothing about the outcome.
    fn check_receipt(&self, head: &mut ReplyHead) {
        let known = head.receipt_signature().is_some();
        let events = self.guard.events();
        head.check_receipt(&self.signed, events.origin(), self.payer().now());
        if let Some(signature @ Verification::Wrong { .. }) = head.receipt_signature()
            && !known
        {
            self.payer().emit(&Event {
                signature: Some(signature),
                ..events.event(EventKind::WrongSignature)
            });
        }
    }

    /// Records that no answer came.
    pub async fn lost(&self, reason: &str) {
        let recording = async {
            let reason = text::excerpt(reason);
            let answer = None;
            self.record(Transition::Unresolved { reason, answer }).await;
        };
        text::guarding_again(self.query.clone(), Box::pin(recording)).await;
    }

    /// Returns the span of one attempt to present the payment, and emits its event.
    pub(super) fn attempt_span(&self, number: u32) -> Span {
        let events = self.guard.events();
        self.payer().emit(&events.event(EventKind::Presented));
        tracing::debug_span!(
            "bursar.presentation",
            purchase = %self.guard.key().id,
            origin = %events.origin(),
            number,
            status = Empty,
        )
    }

    async fn record(&self, transition: Transition) {
        let payer = self.payer();
        let kind = match &transition {
            Transition::Settled { .. } if self.settled_early => None,
            Transition::Settled { .. } => Some(EventKind::Settled),
            Transition::Rejected { .. } => Some(EventKind::Rejected),
            _ => Some(EventKind::Unresolved),
        };
        let ledger = &payer.inner.ledger;
        ledger.record_or_keep(self.guard.key(), transition).await;
        // Until here, a dropped call would have lost the answer.
        self.guard.disarm();
        self.guard.flight.land();
        self.hold.iter().for_each(Hold::end);
        if matches!(kind, Some(EventKind::Rejected | EventKind::Unresolved)) {
            payer.note_unresolved(self.signed.valid_before);
        }
        if let Some(kind) = kind {
            payer.emit(&self.guard.events().timed(kind, payer.now()));
        }
    }
}

fn unproven(claim: Claim, status: StatusCode, signed: &SignedPayment) -> String {
    match claim {
        Claim::Malformed(error) => {
            format!("status {status} with a receipt that cannot be read: {error}")
        }
        Claim::Other(claim) if claim.success && x402::charge(signed, &claim).is_err() => {
            let charge = text::excerpt(claim.amount.as_deref().unwrap_or_default());
            format!(
                "status {status} with a receipt that charges {} units of at most {}",
                text::quoted(&charge),
                signed.amount.units()
            )
        }
        // Official sellers settle nothing then. The permit stays usable until it expires.
        Claim::Other(claim)
            if claim.success
                && claim.transaction.is_empty()
                && x402::charge(signed, &claim) == Ok(Some(U256::ZERO)) =>
        {
            format!("status {status} with a receipt that charges nothing and names no transaction")
        }
        Claim::Other(claim) if claim.success => {
            format!("status {status} with a receipt that does not match what was signed")
        }
        Claim::Other(claim) => {
            let reason = claim
                .reason()
                .map_or_else(|| "no reason".to_owned(), text::quoted);
            format!("status {status} with a receipt of failure: {reason}")
        }
        Claim::Absent | Claim::Matching(_) => format!("status {status} without a receipt"),
    }
}
