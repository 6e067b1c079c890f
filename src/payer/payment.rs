//! A signed payment: to be presented, once or again, and to be concluded.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use tracing::Span;
use tracing::field::Empty;

use super::guard::{Guard, Stage};
use super::{Intent, Payer, answer};
use crate::ledger::{BodyDigest, Purchase, PurchaseKey, Resumption, State, Transition};
use crate::money::TokenAmount;
use crate::telemetry::{EventKind, PurchaseEvents};
use crate::x402::{self, PaymentRequired, Version};
use crate::x402::{Claim, Receipt, SignedPayment};
use crate::{Error, ErrorKind, PaymentStatus, text};

/// How long whoever presents a payment has it for itself before saying so again. An identical
/// request that comes within this time of a crash buys anew; a purchase id excludes that.
pub(super) const PRESENTER_LEASE: Duration = Duration::from_secs(20);

/// A signed payment, recorded in the books and about to leave.
///
/// Say what became of it with [`conclude`](Self::conclude) or [`lost`](Self::lost). Dropped before,
/// it is booked as unknown, and counts as spent.
#[must_use = "a payment that is not presented still counts as spent"]
pub struct Payment {
    pub(super) guard: Guard,
    pub(super) paid: SignedPayment,
    pub(super) version: Version,
    pub(super) payload: SecretString,
    pub(super) again: bool,
    /// From the books: the seller has given its receipt before.
    pub(super) settled: Option<Box<Receipt>>,
}

impl fmt::Debug for Payment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payment")
            .field("paid", &self.paid)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

/// What became of a payment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The seller named a transaction that matches.
    Settled(Box<Receipt>),
    /// The seller answered 402. Its reason, untrusted, where it gave one.
    Refused {
        /// Machine-readable or in words; at most 160 characters.
        reason: Option<String>,
        /// Whether the seller says that the transaction is sent and not yet included.
        pending: bool,
    },
    /// Another answer without a receipt that matches.
    Unresolved {
        /// What is missing.
        reason: String,
    },
}

impl Payment {
    /// What was signed.
    #[must_use]
    pub const fn payment(&self) -> &SignedPayment {
        &self.paid
    }

    /// Whether this was signed earlier and is to be presented again.
    #[must_use]
    pub const fn is_again(&self) -> bool {
        self.again
    }

    pub(super) const fn payer(&self) -> &Payer {
        self.guard.payer()
    }

    /// Keeps others from taking the purchase up while it is being presented: for some seconds, so
    /// that a crash does not keep it for long.
    pub(crate) async fn hold_on(&self) -> Result<(), Error> {
        let until = self.payer().now().after(PRESENTER_LEASE);
        let presented = Transition::Presented { until };
        let recorded = self
            .payer()
            .inner
            .ledger
            .record(self.guard.key(), &presented, self.payer().now())
            .await;
        recorded.map_err(|error| {
            Error::from(error)
                .spent(self.payment_status())
                .of_payment(&self.paid)
        })
    }

    /// What is known of the money before the seller answers.
    pub(crate) const fn payment_status(&self) -> PaymentStatus {
        if self.settled.is_some() {
            PaymentStatus::Paid
        } else {
            PaymentStatus::MaybePaid
        }
    }

    /// Seconds that the seller has, at most, to settle.
    pub(crate) fn window(&self) -> u64 {
        self.paid
            .valid_before
            .saturating_sub(self.payer().now().secs())
    }

    /// The request header that carries the payment, marked sensitive.
    ///
    /// # Errors
    /// Never for payments that bursar signed; the books may hold damaged ones.
    pub fn header(&self) -> Result<(HeaderName, HeaderValue), Error> {
        let value = HeaderValue::from_str(self.payload.expose_secret());
        let mut value = value.map_err(|_| {
            Error::new(ErrorKind::Ledger, "the stored payment header is damaged")
                .spent(PaymentStatus::MaybePaid)
        })?;
        value.set_sensitive(true);
        Ok((self.version.payment_header(), value))
    }

    /// The payment as JSON, for transports without headers such as MCP. As good as the money until
    /// it expires.
    ///
    /// # Errors
    /// Never for payments that bursar signed; the books may hold damaged ones.
    pub fn json(&self) -> Result<SecretString, Error> {
        let bytes = x402::decode_header(self.payload.expose_secret().as_bytes())?;
        let text = String::from_utf8(bytes).map_err(|_| {
            Error::new(ErrorKind::Ledger, "the stored payment header is damaged")
                .spent(PaymentStatus::MaybePaid)
        })?;
        Ok(SecretString::from(text))
    }

    /// Records what the seller answered: status, headers, and the terms of a second 402.
    ///
    /// Books that cannot be written do not lose the answer; the purchase then stays signed in them,
    /// which counts as spent.
    pub async fn conclude(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        terms: Option<&PaymentRequired>,
    ) -> Outcome {
        self.conclude_with(status, headers, terms, None).await
    }

    /// [`conclude`](Self::conclude), with the hash of a body that tells of a failure.
    pub(crate) async fn conclude_with(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        terms: Option<&PaymentRequired>,
        body: Option<BodyDigest>,
    ) -> Outcome {
        let claim = Claim::read(&self.paid, headers);
        let outcome = match claim {
            Claim::Matching(receipt) => Outcome::Settled(receipt),
            claim if status == StatusCode::PAYMENT_REQUIRED => refused(claim, terms),
            claim if self.settled.is_some() => self.settled.clone().map_or_else(
                || Outcome::Unresolved {
                    reason: unproven(claim, status),
                },
                Outcome::Settled,
            ),
            claim => Outcome::Unresolved {
                reason: unproven(claim, status),
            },
        };
        let answer = answer::read(status, headers, body);
        let transition = match &outcome {
            Outcome::Settled(receipt) => Transition::Settled {
                transaction: receipt.transaction(),
                answer,
            },
            Outcome::Refused { pending: true, .. } => Transition::Unresolved {
                reason: "settlement_pending".to_owned(),
                answer: Some(answer),
            },
            Outcome::Refused { reason, .. } => Transition::Rejected {
                reason: reason.clone().unwrap_or_else(|| "402".to_owned()),
                answer,
            },
            Outcome::Unresolved { reason } => Transition::Unresolved {
                reason: reason.clone(),
                answer: Some(answer),
            },
        };
        self.record(&transition).await;
        self.told(&transition);
        outcome
    }

    /// Records that the answer was lost.
    pub async fn lost(&self, reason: &str) {
        let lost = Transition::Unresolved {
            reason: text::excerpt(reason),
            answer: None,
        };
        self.record(&lost).await;
        self.told(&lost);
    }

    /// Tells whoever observes what the books were told.
    fn told(&self, transition: &Transition) {
        let kind = match transition {
            Transition::Settled { .. } => EventKind::Settled,
            Transition::Rejected { .. } => EventKind::Rejected,
            _ => EventKind::Unresolved,
        };
        self.payer()
            .emit(&self.guard.events().timed(kind, self.payer().now()));
    }

    /// The span of presenting it for the `number`th time, and the event.
    pub(crate) fn presenting(&self, number: u32) -> Span {
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

    async fn record(&self, transition: &Transition) {
        let key = self.guard.key();
        let recorded = self
            .payer()
            .inner
            .ledger
            .record(key, transition, self.payer().now())
            .await;
        // Until here a drop would have been a loss of the answer.
        self.guard.disarm();
        if let Err(error) = recorded {
            self.payer()
                .inner
                .ledger
                .add_pending(key.clone(), transition.clone());
            tracing::error!(%error, purchase = %key.id, "the ledger did not record an outcome; the purchase stays signed and counts as spent");
        }
    }
}

fn refused(claim: Claim, terms: Option<&PaymentRequired>) -> Outcome {
    let pending = matches!(&claim, Claim::Other(claim) if claim.is_pending());
    let claimed = match claim {
        Claim::Other(claim) => claim.error_reason.or(claim.error_message),
        _ => None,
    };
    let reason = claimed.or_else(|| {
        terms
            .and_then(PaymentRequired::error)
            .map(ToOwned::to_owned)
    });
    Outcome::Refused {
        reason: reason.as_deref().map(text::excerpt),
        pending,
    }
}

fn unproven(claim: Claim, status: StatusCode) -> String {
    match claim {
        Claim::Malformed(error) => {
            format!("status {status} with a receipt that cannot be read: {error}")
        }
        Claim::Other(claim) if claim.success => {
            format!("status {status} with a receipt that does not match what was signed")
        }
        Claim::Other(claim) => {
            let reason = claim
                .error_reason
                .as_deref()
                .map_or_else(|| "no reason".to_owned(), text::excerpt);
            format!("status {status} with a receipt of failure: {reason}")
        }
        Claim::Absent | Claim::Matching(_) => format!("status {status} without a receipt"),
    }
}

impl Payer {
    /// A purchase that was signed before under the caller's id, if the books hold it for this
    /// request.
    pub(crate) async fn resume(&self, intent: &Intent) -> Result<Option<Payment>, Error> {
        let Some(id) = &intent.purchase_id else {
            return Ok(None);
        };
        self.inner.ledger.record_pending().await?;
        let key = PurchaseKey::new(self.address(), id.clone());
        let Some(entry) = self.inner.ledger.purchase(&key).await? else {
            return Ok(None);
        };
        if entry.fingerprint != intent.fingerprint {
            return Err(Error::new(
                ErrorKind::Purchase,
                "the purchase id belongs to another request",
            )
            .of_purchase(id));
        }
        match entry.state {
            // A caller cannot choose the id that a call by a key is booked under.
            State::Reserved | State::ApiCall | State::Voided | State::ReleasedByProof => Ok(None),
            // A signer that did not answer left nothing to present: it is asked again.
            State::Unresolved if entry.payload.is_none() => Ok(None),
            State::Signed | State::Settled | State::Rejected | State::Unresolved => {
                self.allowed_again(&entry).await?;
                let payment = self.present_again(entry)?;
                payment.hold_on().await?;
                Ok(Some(payment))
            }
        }
    }

    /// [`resume`](Self::resume), unless the books hold the purchase for another path: behind a
    /// redirect, which has to be followed first.
    pub(crate) async fn resume_here(&self, intent: &Intent) -> Result<Option<Payment>, Error> {
        let Some(id) = &intent.purchase_id else {
            return Ok(None);
        };
        self.inner.ledger.record_pending().await?;
        let key = PurchaseKey::new(self.address(), id.clone());
        match self.inner.ledger.purchase(&key).await? {
            Some(entry) if entry.path == self.inner.policy.stored_path(&intent.url) => self
                .resume(intent)
                .await
                .map_err(|error| self.denied(intent, error)),
            _ => Ok(None),
        }
    }

    /// What was signed before for an identical request and is unresolved: it is presented again
    /// rather than bought anew.
    pub(super) async fn take_up(&self, intent: &Intent) -> Result<Option<Payment>, Error> {
        if intent.purchase_id.is_some() || intent.duplicate || !intent.known {
            return Ok(None);
        }
        let now = self.now();
        let wanted = Resumption {
            payer: self.address(),
            fingerprint: intent.fingerprint,
            origin: intent.origin.clone(),
            tag: intent.tag.clone(),
            agent: self.inner.agent.clone(),
            max: intent.max_price.clone(),
            now,
            until: now.after(PRESENTER_LEASE),
        };
        let Some(entry) = self.inner.ledger.resume(&wanted).await? else {
            return Ok(None);
        };
        if let Err(stopped) = self.allowed_again(&entry).await {
            // It stays what it was, and nobody is at it.
            self.inner
                .ledger
                .record(&entry.key(), &Transition::Presented { until: now }, now)
                .await?;
            return Err(stopped);
        }
        self.present_again(entry).map(Some)
    }

    /// An order to stop also holds for what was signed before.
    async fn allowed_again(&self, entry: &Purchase) -> Result<(), Error> {
        match self.stopped().await? {
            None => Ok(()),
            Some(denial) => {
                let spend = if entry.state == State::Settled {
                    PaymentStatus::Paid
                } else {
                    PaymentStatus::MaybePaid
                };
                Err(Error::denied(Box::new(denial))
                    .spent(spend)
                    .of_purchase(&entry.id))
            }
        }
    }

    pub(super) fn present_again(&self, entry: Purchase) -> Result<Payment, Error> {
        let unusable = |what: &str| {
            Error::new(ErrorKind::Purchase, what)
                .spent(PaymentStatus::MaybePaid)
                .of_purchase(&entry.id)
        };
        let payload = entry.payload.clone().ok_or_else(|| {
            unusable(
                "the signer may have signed this purchase, but bursar has no signature to present",
            )
        })?;
        let asset = self.inner.assets.find(entry.network, entry.asset).cloned();
        let asset =
            asset.ok_or_else(|| unusable("the purchase's token is no longer in the registry"))?;
        // The books hold the largest of what was signed; what is presented is the latest.
        let signed = x402::decode_authorization(payload.expose_secret());
        let signed = signed.ok_or_else(|| unusable("the stored payment header is damaged"))?;
        let amount = TokenAmount::from_units(asset, signed.value);
        let events = PurchaseEvents::new(&entry, amount.clone(), self.now());
        let paid = SignedPayment {
            amount,
            payer: entry.payer,
            pay_to: signed.to,
            nonce: entry.nonce,
            valid_before: signed.valid_before,
            purchase: entry.id,
        };
        let version = signed.version;
        let settled = entry.transaction.filter(|_| entry.state == State::Settled);
        let settled = settled.map(|transaction| Box::new(Receipt::from_ledger(&paid, transaction)));
        let key = PurchaseKey::new(paid.payer, paid.purchase.clone());
        self.emit(&events.event(EventKind::Resumed));
        let guard = Guard::new(self, key, Stage::Signed, events);
        Ok(Payment {
            guard,
            paid,
            version,
            payload,
            again: true,
            settled,
        })
    }
}
