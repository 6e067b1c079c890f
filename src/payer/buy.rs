//! Buying: one quote through policy, approval, books and signer, in this order.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use alloy::primitives::B256;
use secrecy::SecretString;
use serde_json::Value;
use serde_json::value::RawValue;
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};

use super::guard::{Guard, Stage};
use super::payment::PRESENTER_LEASE;
use super::{Intent, Payer, Payment};
use crate::ledger::{
    self, Checks, NewPurchase, Purchase, PurchaseId, Reservation, Reserved, State, Terms,
    Transition,
};
use crate::policy::{ApprovalRequest, Denial, Facts, Rule, Verdict};
use crate::quote::{Quote, Unpayable};
use crate::receipt::SignedPayment;
use crate::signer::{Signature, TransferAuthorization};
use crate::telemetry::{Event, EventKind, PurchaseEvents};
use crate::x402::{self, Offer, PaymentRequired, Proof, Version};
use crate::{Error, ErrorKind, Origin, PaymentStatus, text};

/// How long a hold outlives the signer's own time, before it lapses unsigned.
const LEASE_MARGIN: Duration = Duration::from_secs(30);
/// Longest terms that are kept in the books.
const LONGEST_TERMS: usize = 16 * 1024;
/// Version 1 clients date authorizations back, for chains whose clock is behind.
const V1_BACKDATE: u64 = 600;

/// How the attempt to buy at one quote ended, short of an error.
enum Attempt {
    Signed(Box<Payment>),
    Denied(Box<Denial>),
}

impl Payer {
    /// Buys: chooses the cheapest offer that the policy allows, holds its money, signs, and records
    /// the signature before it is returned.
    ///
    /// A purchase that was signed before comes back with the same bytes: by its id, or, unless
    /// [`allow_duplicate`](Intent::allow_duplicate) is said, an identical request whose outcome is
    /// unresolved and which nobody is at.
    ///
    /// # Errors
    /// Nothing can be signed for, the policy or an approver refuses, the books cannot be used, the
    /// purchase id belongs to another request or is being bought now, or the signer fails. In all
    /// these cases nothing was signed, but for a signer that did not answer in time.
    pub async fn authorize(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
    ) -> Result<Payment, Error> {
        self.emit(&Event::new(
            EventKind::Challenged,
            &intent.origin,
            intent.tag.as_deref(),
        ));
        self.spanned(intent, Box::pin(self.obtain(required, intent)))
            .await
    }

    /// [`authorize`](Self::authorize), at terms that no 402 has just named; `None` where what the seller asks
    /// today may be allowed all the same.
    pub(crate) async fn authorize_known(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
    ) -> Result<Option<Payment>, Error> {
        let allowed_otherwise = |error: &Error| match error.kind() {
            ErrorKind::NotPayable => true,
            ErrorKind::Denied => error
                .denial()
                .is_some_and(|denial| denial.rule != Rule::Approval),
            _ => false,
        };
        match self
            .in_span(intent, Box::pin(self.obtain(required, intent)))
            .await
        {
            Ok(payment) => Ok(Some(payment)),
            Err(error)
                if error.payment_status() == PaymentStatus::NotPaid
                    && allowed_otherwise(&error) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.denied(intent, error).at(&intent.url)),
        }
    }

    /// Buying in its span, and its denial told.
    async fn spanned(
        &self,
        intent: &Intent,
        buying: impl Future<Output = Result<Payment, Error>>,
    ) -> Result<Payment, Error> {
        self.in_span(intent, buying)
            .await
            .map_err(|error| self.denied(intent, error).at(&intent.url))
    }

    async fn in_span(
        &self,
        intent: &Intent,
        buying: impl Future<Output = Result<Payment, Error>>,
    ) -> Result<Payment, Error> {
        let span = self.span(intent);
        let bought = buying.instrument(span.clone()).await;
        if let Ok(payment) = &bought {
            let paid = payment.payment();
            span.record("purchase", display(&paid.purchase));
            span.record("amount", display(&paid.amount))
                .record("payee", display(paid.pay_to));
        }
        bought
    }

    fn span(&self, intent: &Intent) -> Span {
        tracing::info_span!(
            "bursar.payment",
            method = intent.method.as_str(),
            origin = %intent.origin,
            tag = intent.tag.as_deref(),
            agent = self.inner.agent.as_deref(),
            purchase = Empty,
            amount = Empty,
            payee = Empty,
        )
    }

    async fn obtain(&self, required: &PaymentRequired, intent: &Intent) -> Result<Payment, Error> {
        self.record_left().await?;
        if let Some(payment) = self.resume(intent).await? {
            return Ok(payment);
        }
        if let Some(payment) = self.take_up(intent).await? {
            return Ok(payment);
        }
        self.buy(required, intent, Terms::First).await
    }

    /// Signs changed terms for a purchase that was signed before: the whole policy again, the same
    /// nonce, the larger of the amounts held.
    pub(crate) async fn requote(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
    ) -> Result<Payment, Error> {
        self.spanned(intent, Box::pin(self.buy(required, intent, Terms::Changed)))
            .await
    }

    async fn buy(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
        terms: Terms,
    ) -> Result<Payment, Error> {
        if let Some(denial) = self.switched_off() {
            return Err(Error::denied(Box::new(denial)));
        }
        let (quotes, reasons) = self.quotes(required);
        let purchase = match &intent.purchase_id {
            Some(id) => id.clone(),
            None => PurchaseId::random().map_err(no_randomness)?,
        };
        let mut denial = None;
        for quote in &quotes {
            match self
                .attempt(required, intent, quote, (&purchase, terms))
                .await?
            {
                Attempt::Signed(payment) => return Ok(*payment),
                Attempt::Denied(refusal) if refusal.rule == Rule::Approval => {
                    return Err(Error::denied(refusal));
                }
                Attempt::Denied(refusal) => denial = denial.or(Some(refusal)),
            }
        }
        Err(denial.map_or_else(|| Error::not_payable(reasons), Error::denied))
    }

    /// What can be signed for, the preferred first, and why the rest cannot.
    fn quotes(&self, required: &PaymentRequired) -> (Vec<Quote>, Vec<Unpayable>) {
        let (mut quotes, mut reasons) = (Vec::new(), Vec::new());
        for quote in Quote::read_all(required, &self.inner.assets) {
            match quote {
                Ok(quote) => quotes.push(quote),
                Err(reason) => reasons.push(reason),
            }
        }
        quotes.sort_by_key(Quote::preference);
        (quotes, reasons)
    }

    /// One quote through policy, approval, books and signer, in this order.
    async fn attempt(
        &self,
        required: &PaymentRequired,
        intent: &Intent,
        quote: &Quote,
        (purchase, terms): (&PurchaseId, Terms),
    ) -> Result<Attempt, Error> {
        let path = self.inner.policy.stored_path(&intent.url);
        let facts = self.facts(required, intent, quote, &path);
        if let Some(denial) = self.inner.policy.deny(&facts) {
            return Ok(Attempt::Denied(Box::new(denial)));
        }
        let checks = self.inner.policy.checks(&facts);
        let entry = self.new_entry(required, &facts, intent, purchase)?;
        if let Some(why) = self.inner.policy.ask(&facts) {
            // Nobody is asked for what the limits refuse. Changed terms are not measured here: the
            // books would add them to what they replace.
            let findings = if terms == Terms::First {
                self.inner.ledger.examine(&checks).await?
            } else {
                Vec::new()
            };
            let refusal = findings.into_iter().find_map(|finding| finding.denial);
            let refusal = match refusal {
                None => self.ask(required, &facts, &entry, intent, why).await,
                refusal => refusal,
            };
            if let Some(denial) = refusal {
                return Ok(Attempt::Denied(Box::new(denial)));
            }
        }
        if intent.time_left().is_some_and(|left| left.is_zero()) {
            return Err(Error::new(
                ErrorKind::Timeout,
                "the call's time was up before anything was signed",
            ));
        }
        let lease = self.inner.signer.time_limit().saturating_add(LEASE_MARGIN);
        let checks = Checks {
            now: self.now(),
            ..checks
        };
        let key = entry.key();
        let wrong =
            |message: &str| Err(Error::new(ErrorKind::Purchase, message).of_purchase(purchase));
        match self
            .inner
            .ledger
            .reserve(&Reservation {
                entry,
                checks,
                lease,
                terms,
            })
            .await?
        {
            Reserved::Denied(denial) => Ok(Attempt::Denied(denial)),
            Reserved::Known(entry) => Ok(Attempt::Signed(Box::new(self.present_again(*entry)?))),
            Reserved::InFlight => wrong("the purchase is being bought at this moment"),
            Reserved::Mismatch if terms == Terms::Changed => {
                let message =
                    "the new terms are in another token, and could be paid beside the old ones";
                Ok(Attempt::Denied(Box::new(Denial::new(Rule::Asset, message))))
            }
            Reserved::Mismatch => wrong("the purchase id belongs to another request"),
            Reserved::Held(entry) => {
                let stage = match entry.state {
                    State::Reserved => Stage::Held {
                        lease: entry.lease_until,
                    },
                    _ => Stage::Signed,
                };
                let events = PurchaseEvents::new(&entry, quote.amount(), self.now());
                self.emit(&events.event(EventKind::Reserved));
                let guard = Guard::new(self, key, stage, events);
                self.sign(required, quote, *entry, guard)
                    .await
                    .map(Box::new)
                    .map(Attempt::Signed)
            }
        }
    }

    /// The refusal of whoever is asked, if any.
    async fn ask(
        &self,
        required: &PaymentRequired,
        facts: &Facts<'_>,
        entry: &NewPurchase,
        intent: &Intent,
        why: String,
    ) -> Option<Denial> {
        let Some(approver) = &self.inner.approver else {
            return Some(Denial::new(
                Rule::Approval,
                format!("needs approval ({why}), and the client has no approver"),
            ));
        };
        let request = ApprovalRequest {
            why,
            origin: facts.origin.clone(),
            method: facts.method.to_owned(),
            path: facts.path.to_owned(),
            amount: facts.quote.amount(),
            usd: facts.quote.dollars(),
            network: facts.quote.network(),
            payer: facts.payer,
            payee: facts.quote.pay_to(),
            validity: self.validity(facts.origin, facts.quote),
            nonce: ledger::nonce(facts.payer, facts.quote.asset(), &entry.purchase, 0),
            untrusted: crate::policy::Untrusted {
                description: required.description().map(text::excerpt),
                resource_url: required.resource_url().map(text::excerpt),
            },
        };
        let patience = self.inner.policy.time_to_approve();
        let patience = intent
            .time_left()
            .map_or(patience, |left| left.min(patience));
        match approver.decide(&request, patience).await {
            Verdict::Approve => None,
            Verdict::Deny { reason } => Some(Denial::new(
                Rule::Approval,
                format!("not approved: {reason}"),
            )),
        }
    }

    fn validity(&self, origin: &Origin, quote: &Quote) -> Duration {
        quote
            .window()
            .min(self.inner.policy.validity_ceiling(origin))
    }

    async fn sign(
        &self,
        required: &PaymentRequired,
        quote: &Quote,
        mut entry: Purchase,
        mut guard: Guard,
    ) -> Result<Payment, Error> {
        let key = entry.key();
        let authorization = self.authorization(quote, &entry.origin, entry.nonce);
        let asked = self.now();
        let valid_before = authorization.valid_before();
        guard.stage = Stage::Asked { valid_before };
        let signature = match self.inner.signer.sign(&authorization).await {
            Ok(signature) => signature,
            Err(error) => return Err(self.unsigned(error, &entry, &authorization, &guard).await),
        };
        let payload = encode(required, quote, &authorization, &signature, &entry)?;
        let now = self.now();
        let signed = Transition::Signed {
            lease: entry.lease_until,
            valid_before,
            payload: payload.clone(),
            presenter_lease_until: now.after(PRESENTER_LEASE),
        };
        self.inner
            .ledger
            .record(&key, &signed, now)
            .await
            .map_err(|error| Error::from(error).of_purchase(&key.id))?;
        guard.disarm();
        entry.apply(&signed, now)?;
        let events = PurchaseEvents::new(&entry, authorization.amount(), now);
        self.emit(&Event {
            elapsed: Some(asked.until(now)),
            ..events.event(EventKind::Signed)
        });
        Ok(Payment {
            guard: Guard::new(self, key, Stage::Signed, events),
            paid: paid(&entry, &authorization),
            version: required.version(),
            payload,
            again: false,
            settled: None,
        })
    }

    fn authorization(&self, quote: &Quote, origin: &Origin, nonce: B256) -> TransferAuthorization {
        let now = self.now().secs();
        let valid_after = match quote.version() {
            Version::V1 => now.saturating_sub(V1_BACKDATE),
            Version::V2 => 0,
        };
        let valid_before = now.saturating_add(self.validity(origin, quote).as_secs());
        let parties = (self.address(), quote.pay_to());
        TransferAuthorization::new(
            quote.asset().clone(),
            parties,
            quote.value(),
            (valid_after, valid_before),
            nonce,
        )
    }

    /// The error of a signer, once the books know what it means for the money.
    async fn unsigned(
        &self,
        error: crate::SignerError,
        entry: &Purchase,
        authorization: &TransferAuthorization,
        guard: &Guard,
    ) -> Error {
        let valid_before = authorization.valid_before();
        let doubtful = error.is_timeout();
        let reason = text::excerpt(&error.to_string());
        let transition = if doubtful {
            Transition::SignerTimedOut {
                valid_before,
                reason,
            }
        } else if entry.state == State::Reserved {
            Transition::Voided {
                lease: entry.lease_until,
            }
        } else {
            Transition::Unresolved {
                reason,
                answer: None,
            }
        };
        match self
            .inner
            .ledger
            .record(guard.key(), &transition, self.now())
            .await
        {
            Ok(()) => {
                guard.disarm();
                let lost = doubtful || entry.state != State::Reserved;
                self.emit(&guard.events().event(if lost {
                    EventKind::Unresolved
                } else {
                    EventKind::Unsigned
                }));
            }
            // The guard tells of it, and sees that it is recorded.
            Err(error) => {
                tracing::error!(%error, purchase = %entry.purchase, "the ledger did not record a signer's failure");
            }
        }
        if doubtful {
            return Error::from(error)
                .spent(PaymentStatus::MaybePaid)
                .of_payment(&paid(entry, authorization));
        }
        let spend = if entry.state == State::Reserved {
            PaymentStatus::NotPaid
        } else {
            PaymentStatus::MaybePaid
        };
        Error::from(error).spent(spend).of_purchase(&entry.purchase)
    }

    fn new_entry(
        &self,
        required: &PaymentRequired,
        facts: &Facts<'_>,
        intent: &Intent,
        purchase: &PurchaseId,
    ) -> Result<NewPurchase, Error> {
        Ok(NewPurchase {
            purchase: purchase.clone(),
            payer: facts.payer,
            fingerprint: intent.fingerprint,
            identifier: format!("pay_{}", ledger::random_hex().map_err(no_randomness)?),
            origin: facts.origin.clone(),
            method: facts.method.to_owned(),
            path: facts.path.to_owned(),
            foreign_resource: facts.foreign_resource(),
            version: facts.quote.version().number(),
            asset: facts.quote.asset().clone(),
            payee: facts.quote.pay_to(),
            value: facts.quote.value(),
            tag: intent.tag.clone(),
            agent: self.inner.agent.clone(),
            credential: None,
            terms: kept_terms(required, facts.quote),
        })
    }
}

/// A value that was read is no deeper than serde_json reads.
fn cut_queries(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("://") => {
            if let Some(query) = text.find('?') {
                text.truncate(query);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(cut_queries),
        Value::Object(values) => values.values_mut().for_each(cut_queries),
        _ => {}
    }
}

/// What the seller asked for, in its own words: evidence, if it is not absurdly long or deep. Queries
/// are left out of URLs: books do not keep them, and sellers repeat the request's.
fn kept_terms(required: &PaymentRequired, quote: &Quote) -> Option<String> {
    let offer = required.offers().get(quote.offer()).map(Offer::raw);
    let (offer, resource) = (
        without_queries(offer)?,
        without_queries(required.raw_resource())?,
    );
    let terms = format!(r#"{{"offer":{offer},"resource":{resource}}}"#);
    (terms.len() <= LONGEST_TERMS).then(|| text::without_long_hex(terms))
}

fn without_queries(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = raw.map_or("null", RawValue::get);
    // Also where the question mark is escaped.
    if !json.contains('?') && !json.contains("\\u") {
        return Some(json.into());
    }
    let mut value = serde_json::from_str(json).ok()?;
    cut_queries(&mut value);
    Some(value.to_string().into())
}

pub(super) fn no_randomness(error: getrandom::Error) -> Error {
    Error::builder(format!("the operating system gives no randomness: {error}"))
}

fn paid(entry: &Purchase, authorization: &TransferAuthorization) -> SignedPayment {
    SignedPayment {
        purchase: entry.purchase.clone(),
        amount: authorization.amount(),
        payer: authorization.from(),
        pay_to: authorization.to(),
        nonce: authorization.nonce(),
        valid_before: authorization.valid_before(),
    }
}

fn encode(
    required: &PaymentRequired,
    quote: &Quote,
    authorization: &TransferAuthorization,
    signature: &Signature,
    entry: &Purchase,
) -> Result<SecretString, Error> {
    let proof = Proof::new(authorization, signature);
    let json = x402::encode_payment(required, quote.offer(), &proof, &entry.identifier)
        .map_err(x402::WireError::from)?;
    Ok(SecretString::from(x402::encode_header(&json)))
}
