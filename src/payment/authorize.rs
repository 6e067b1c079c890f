//! From terms to a signed payment: policy, approval, ledger and signer, in this order.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use super::kept_terms::kept_terms;
use super::resume::{note_approved, of_other_method, of_other_payer};
use super::sponsor::{self, Sponsorship};
use super::waiting::Patience;
use super::{Payer, Payment};
use crate::error::{Error, ErrorKind, PaymentStatus};
use crate::ledger::{self, NewPurchase, Place, PurchaseId, Reservation, Reserved, Terms};
use crate::limit::LimitCheck;
use crate::origin::Origin;
use crate::policy::{ApprovalRequest, Denial, Facts, Rule, Untrusted, Verdict};
use crate::request::PurchaseRequest;
use crate::telemetry::{Event, EventKind};
use crate::text;
use crate::x402::{PaymentRequired, Quote, Verification};

/// How long a reservation outlives the signer's own time limit, once for each signature, before it lapses.
const LEASE_MARGIN: Duration = Duration::from_secs(30);

/// The outcome of one offer, other than an error.
pub(super) enum Attempt {
    Signed(Box<Payment>),
    Denied(Box<Denial>),
}

/// The terms of one purchase, and the request that they answer.
#[derive(Clone, Copy)]
pub(super) struct Order<'a> {
    pub(super) required: &'a PaymentRequired,
    pub(super) request: &'a PurchaseRequest,
    pub(super) purchase: &'a PurchaseId,
    /// Random digits for the `payment-identifier`.
    pub(super) identifier: &'a str,
    pub(super) terms: Terms,
    /// The place among the calls that wait for room, if this call waits.
    pub(super) place: Option<&'a Place>,
}

impl Payer {
    /// Signs a payment for the request: chooses the best offer that the policy allows, reserves its amount, signs, and
    /// records the signature before it returns. No signature leaves the ledger's step before it is durable.
    ///
    /// bursar returns a payment that was signed before, with the same bytes, in two cases: when the request has a
    /// purchase id that the ledger holds, and when an identical purchase is unresolved and no other call is
    /// presenting it. [`allow_duplicate`](PurchaseRequest::allow_duplicate) switches off the second. A call of another
    /// process that holds such a purchase may be dead: bursar waits until it shows that it lives, or until its lease ends.
    /// The lease of a call that presents a payment ends after 20 seconds. The lease of a call that asks the signer again for a
    /// purchase (at changed terms, or after a signer that did not answer) ends after [`Signer::time_limit`](crate::Signer::time_limit)
    /// and 30 seconds.
    ///
    /// # Errors
    /// bursar can sign for no offer, the policy or an approver refuses, the ledger cannot be used, the purchase id
    /// belongs to another request or another call is buying it, or the signer fails. Look at
    /// [`payment_status`](Error::payment_status): it is `NotPaid` unless a signature may exist.
    pub async fn authorize(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<Payment, Error> {
        self.obtain(required, request).await.map(|payment| *payment)
    }

    /// Signs for terms from the cache. Returns `None` where the seller's present terms may be allowed all the same.
    pub(crate) async fn authorize_cached_terms(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<Option<Box<Payment>>, Error> {
        let allowed_otherwise = |error: &Error| match error.kind() {
            ErrorKind::NotPayable => true,
            ErrorKind::Denied => error
                .denial()
                .is_some_and(|denial| denial.rule != Rule::Approval),
            _ => false,
        };
        // The seller is asked next, and the call waits then.
        let obtained = Box::pin(self.resume_or_buy(required, request, Patience::Queues));
        match self.in_span(request, obtained).await {
            Ok(payment) => Ok(Some(payment)),
            Err(error)
                if error.payment_status() == PaymentStatus::NotPaid
                    && allowed_otherwise(&error) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.report_denial(request, error).at(request.url())),
        }
    }

    /// Signs changed terms for a purchase that was signed before: the whole policy again, the same nonce, and the larger
    /// of the two amounts reserved.
    pub(super) async fn authorize_new_terms(
        &self,
        required: &PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<Box<Payment>, Error> {
        let bought = Box::pin(self.buy(required, request, Terms::Changed, None));
        self.in_span(request, bought)
            .await
            .map_err(|error| self.report_denial(request, error).at(request.url()))
    }

    pub(super) async fn in_span(
        &self,
        request: &PurchaseRequest,
        buying: impl Future<Output = Result<Box<Payment>, Error>>,
    ) -> Result<Box<Payment>, Error> {
        let span = self.span(request);
        let bought = buying.instrument(span.clone()).await;
        if let Ok(payment) = &bought {
            let signed = payment.payment();
            span.record("purchase", display(&signed.purchase));
            span.record("amount", display(&signed.amount))
                .record("payee", display(signed.pay_to));
        }
        bought
    }

    pub(super) fn span(&self, request: &PurchaseRequest) -> Span {
        tracing::info_span!(
            "bursar.payment",
            method = request.method().as_str(),
            origin = %request.origin(),
            tag = request.tag_name(),
            agent = self.agent_of(request),
            purchase = Empty,
            amount = Empty,
            payee = Empty,
        )
    }

    /// Takes one offer through policy, approval, ledger and signer.
    pub(super) async fn attempt(&self, order: Order<'_>, quote: &Quote) -> Result<Attempt, Error> {
        let path = self.inner.policy.stored_path(order.request);
        let facts = self.facts(order.required, order.request, quote, &path);
        if let signature @ Verification::Wrong { .. } = quote.signature() {
            self.emit(&Event {
                signature: Some(signature),
                ..self.event(EventKind::WrongSignature, order.request)
            });
        }
        let denial = self.inner.policy.deny(&facts);
        if let Some(denial) = denial.or_else(|| self.paused(&facts)) {
            return Ok(Attempt::Denied(Box::new(denial)));
        }
        let hold = match self.cover(&facts, order.purchase).await {
            Ok(hold) => hold,
            Err(denial) => return Ok(Attempt::Denied(denial)),
        };
        let sponsored = match self.missing_allowance(&facts).await {
            None => None,
            Some(missing) => match Box::pin(self.sponsored(order, &facts, missing)).await {
                Ok(sponsorship) => Some(sponsorship),
                Err(denial) => return Ok(Attempt::Denied(denial)),
            },
        };
        let checks = self.inner.policy.limit_check(&facts);
        if let Some(denial) = order.place.and_then(|place| place.ahead(&checks.limits)) {
            return Ok(Attempt::Denied(Box::new(denial)));
        }
        let purchase = self.new_purchase(order, &facts);
        let why = self.inner.policy.ask(&facts);
        if let Some(why) = why.map(|why| sponsor::noted(why, sponsored.as_ref()))
            && let Some(denial) = self.approval(order, &facts, &checks, why).await?
        {
            return Ok(Attempt::Denied(Box::new(denial)));
        }
        if order.request.time_left().is_some_and(|left| left.is_zero()) {
            return Err(Error::new(
                ErrorKind::Timeout,
                "the call's time was up before anything was signed",
            ));
        }
        // A sponsored payment has two signatures, one after the other.
        let signatures = if sponsored.is_some() { 2 } else { 1 };
        let lease = self.signer()?.time_limit().saturating_mul(signatures);
        let lease = lease.saturating_add(LEASE_MARGIN);
        let flight = self.inner.ledger.flight();
        let reservation = Reservation {
            purchase,
            checks: LimitCheck {
                now: self.now(),
                in_flight: self.inner.ledger.in_flight(),
                ..checks
            },
            lease,
            terms: order.terms,
            flight: Some(Arc::clone(&flight)),
        };
        let reservation = Arc::new(reservation);
        let permit = sponsored.as_ref().map(Sponsorship::permit);
        if let (Some(key), None | Some(Some(_))) = (self.signer()?.local(), permit)
            && self.inner.ledger.buys_in_one_step()
        {
            let (key, backing) = (Arc::clone(key), (hold, permit.flatten()));
            return Box::pin(self.buy_in_one_step(order, quote, reservation, key, backing)).await;
        }
        let reserved = self.inner.ledger.reserve(&reservation).await;
        if let Ok(Reserved::Held(_)) = &reserved {
            self.warn_of_limits(order.request, &reservation, &quote.amount());
        }
        drop(reservation);
        match reserved? {
            Reserved::Held(purchase) => self
                .sign(order, quote, purchase, flight, (hold, sponsored))
                .await
                .map(Box::new)
                .map(Attempt::Signed),
            other => Box::pin(self.not_reserved(order, other)).await,
        }
    }

    /// A reservation that the ledger did not make.
    pub(super) async fn not_reserved(
        &self,
        order: Order<'_>,
        reserved: Reserved,
    ) -> Result<Attempt, Error> {
        let wrong =
            |message: &str| Err(Error::new(ErrorKind::Purchase, message).naming(order.purchase));
        match reserved {
            Reserved::Denied(denial) => Ok(Attempt::Denied(denial)),
            Reserved::Known(purchase) => {
                let payment = self.present_stored(order.request, *purchase).await?;
                Ok(Attempt::Signed(Box::new(payment)))
            }
            Reserved::OtherPayer(purchase) => Err(of_other_payer(&purchase)),
            Reserved::Mismatch if order.terms == Terms::Changed => {
                let message =
                    "the new terms are in another token, and could be paid beside the old ones";
                Ok(Attempt::Denied(Box::new(Denial::new(Rule::Asset, message))))
            }
            Reserved::OtherMethod(purchase) => {
                Ok(Attempt::Denied(Box::new(of_other_method(&purchase))))
            }
            Reserved::Mismatch => wrong("the purchase id belongs to another request"),
            Reserved::InFlight | Reserved::Held(_) => {
                wrong("the purchase is being bought at this moment")
            }
        }
    }

    /// Returns the denial of the limits or of the approver, if one of them denies.
    async fn approval(
        &self,
        order: Order<'_>,
        facts: &Facts<'_>,
        checks: &LimitCheck,
        why: String,
    ) -> Result<Option<Denial>, Error> {
        // The approver is not asked about a payment that the limits deny. Changed terms are not measured here,
        // because the ledger would add them to the terms that they replace.
        if order.terms == Terms::First {
            let findings = self.inner.ledger.examine(checks).await?;
            if let Some(denial) = findings.into_iter().find_map(|finding| finding.denial) {
                return Ok(Some(denial));
            }
        }
        let nonce = ledger::nonce(facts.payer, facts.quote.asset(), order.purchase, 0);
        let untrusted = Untrusted {
            description: order.required.description().map(text::excerpt),
            resource_url: order.required.resource_url().map(text::excerpt),
        };
        let question = self.question(facts, why, nonce, untrusted);
        Ok(self.ask_approver(order.request, &question).await)
    }

    /// Asks the approver. Returns the denial if it does not approve.
    pub(super) async fn ask_approver(
        &self,
        request: &PurchaseRequest,
        question: &ApprovalRequest,
    ) -> Option<Denial> {
        let Some(approver) = &self.inner.approver else {
            let why = &question.why;
            return Some(question.denial(format!(
                "needs approval ({why}), and the client has no approver"
            )));
        };
        let limit = self.inner.policy.time_to_approve();
        let limit = request.time_left().map_or(limit, |left| left.min(limit));
        match approver.decide(question, limit).await {
            Verdict::Approve => {
                note_approved(question.nonce, question.amount.units());
                None
            }
            Verdict::Deny { reason } => Some(question.denial(format!("not approved: {reason}"))),
        }
    }

    pub(super) fn question(
        &self,
        facts: &Facts<'_>,
        why: String,
        nonce: B256,
        untrusted: Untrusted,
    ) -> ApprovalRequest {
        let quote = facts.quote;
        ApprovalRequest {
            why,
            origin: facts.request.origin().clone(),
            method: facts.request.method().as_str().to_owned(),
            path: facts.path.to_owned(),
            amount: quote.amount(),
            payment_method: quote.payment_method(),
            usd: quote.dollars(),
            network: quote.network(),
            payer: facts.payer,
            payee: quote.pay_to(),
            validity: self.validity(facts.request.origin(), quote),
            nonce,
            untrusted,
        }
    }

    pub(super) fn validity(&self, origin: &Origin, quote: &Quote) -> Duration {
        quote
            .window()
            .min(self.inner.policy.validity_ceiling(origin))
    }

    fn new_purchase(&self, order: Order<'_>, facts: &Facts<'_>) -> NewPurchase {
        NewPurchase {
            id: order.purchase.clone(),
            payer: facts.payer,
            fingerprint: facts.request.fingerprint(),
            identifier: ["pay_", order.identifier].concat(),
            origin: facts.request.origin().clone(),
            method: facts.request.method().as_str().to_owned(),
            path: facts.path.to_owned(),
            foreign_resource: facts.foreign_resource(),
            version: facts.quote.version().number(),
            asset: facts.quote.asset().clone(),
            payment_method: Some(facts.quote.payment_method()),
            payee: facts.quote.pay_to(),
            value: facts.quote.value(),
            tag: facts.request.tag_name().map(ToOwned::to_owned),
            agent: facts.agent.map(ToOwned::to_owned),
            credential: None,
            terms: kept_terms(order.required, facts.quote),
        }
    }
}

pub(super) fn no_randomness(error: getrandom::Error) -> Error {
    Error::builder(format!("the operating system gives no randomness: {error}"))
}
