//! Presenting a payment that an earlier call signed.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::{B256, U256};
use http::StatusCode;
use secrecy::ExposeSecret;

use super::drop_guard::{DropGuard, Stage};
use super::other_calls::{Others, Watch};
use super::payment::PRESENTER_LEASE;
use super::transport::PaymentRecord;
use super::{Payer, Payment};
use crate::clock::{CLOCK_BOUND, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::ledger::{
    Filter, Flight, Purchase, PurchaseKey, Resumed, Resumption, SellerAnswer, State, Transition,
};
use crate::limit::{Denial, LimitCheck, LimitKind};
use crate::money::TokenAmount;
use crate::policy::{Facts, Rule, Untrusted};
use crate::request::PurchaseRequest;
use crate::telemetry::{EventKind, PurchaseEvents};
use crate::text;
use crate::x402;
use crate::x402::{PaymentMethod, Quote, Receipt, SignedPayment};

/// How many approvals a process remembers.
const MOST_APPROVALS: usize = 256;
/// The nonce and the amount of each authorization that this process had approved. An approval is for one authorization, so
/// the same bytes are presented again without another question.
static APPROVED: Mutex<VecDeque<(B256, U256)>> = Mutex::new(VecDeque::new());

/// An earlier purchase of the same request.
pub(super) enum Earlier {
    /// There is none, so bursar buys.
    Nothing,
    /// This payment is presented again.
    Payment(Box<Payment>),
    /// The signer did not answer. The request continues this purchase, so that the same nonce is signed.
    Unsigned(Box<PurchaseRequest>),
}

impl Payer {
    /// Records that the goods of a paid answer were lost after they arrived here. An identical request then presents the
    /// payment again, and buys nothing new.
    ///
    /// Call it if you pass answers on, and the receiver left before the end of the body. `payment` is the payment of
    /// the [response](crate::ResponseExt::payment).
    ///
    /// ```no_run
    /// use bursar::{Client, ResponseExt};
    ///
    /// # async fn example(client: Client) -> Result<(), Box<dyn std::error::Error>> {
    /// let response = client.get("https://api.example.com/report").send().await?;
    /// let payment = response.payment().cloned();
    /// # async fn pass_on(_: bursar::reqwest::Response) -> bool { true }
    /// if !pass_on(response).await
    ///     && let (Some(payer), Some(payment)) = (client.payer(), payment)
    /// {
    ///     payer.goods_lost(&payment).await;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn goods_lost(&self, payment: &SignedPayment) {
        self.clone().body_lost(payment).await;
    }

    /// Records that the body of the answer to a payment broke. An identical request then presents the payment again.
    pub(crate) fn body_lost(
        self,
        payment: &SignedPayment,
    ) -> impl Future<Output = ()> + Send + 'static {
        let key = PurchaseKey::new(payment.payer, payment.purchase.clone());
        async move {
            let lost = Transition::BodyLost {
                reason: "the body of the answer broke".to_owned(),
            };
            self.inner.ledger.record_or_keep(&key, lost).await;
        }
    }

    /// Records that the goods came from the target of a redirect.
    pub(crate) async fn delivered(&self, record: &PaymentRecord, status: StatusCode) {
        let payment = record.payment();
        let answer = SellerAnswer::of(status.as_u16());
        let delivered = match record.receipt() {
            Some(receipt) => Transition::Settled {
                transaction: receipt.transaction(),
                charged: receipt.claimed_charge(),
                answer,
            },
            None => Transition::Unresolved {
                reason: "the answer redirected, without a receipt".to_owned(),
                answer: Some(answer),
            },
        };
        let key = PurchaseKey::new(payment.payer, payment.purchase.clone());
        self.inner.ledger.record_or_keep(&key, delivered).await;
    }

    /// Returns the payment that was signed under the caller's purchase id, if the ledger holds one for this request.
    /// Another payer may have signed it.
    async fn resume_by_id(&self, request: &PurchaseRequest) -> Result<Option<Box<Payment>>, Error> {
        let Some(purchase) = self.stored(request).await? else {
            return Ok(None);
        };
        self.resume_stored(request, purchase).await
    }

    /// As [`resume_by_id`](Self::resume_by_id), unless the ledger holds the purchase for another path. That path is
    /// behind a redirect, which the call must follow first.
    pub(crate) async fn resume_here(
        &self,
        request: &PurchaseRequest,
    ) -> Result<Option<Box<Payment>>, Error> {
        match self.stored(request).await? {
            Some(purchase) if purchase.path == self.inner.policy.stored_path(request) => self
                .resume_stored(request, purchase)
                .await
                .map_err(|error| self.report_denial(request, error)),
            _ => Ok(None),
        }
    }

    /// The purchase that the ledger holds under the caller's id: the one that counts, or this payer's.
    async fn stored(&self, request: &PurchaseRequest) -> Result<Option<Purchase>, Error> {
        let Some(id) = request.id()?.filter(|_| self.inner.signer.is_some()) else {
            return Ok(None);
        };
        let with_id = Filter {
            id: Some(id.clone()),
            ..Filter::all()
        };
        let found = self.inner.ledger.purchases(&with_id).await?;
        let (now, payer) = (self.now(), self.address());
        let mine = found
            .into_iter()
            .filter(|known| known.counts(now) || known.payer == payer);
        Ok(mine.max_by_key(|known| known.counts(now)))
    }

    async fn resume_stored(
        &self,
        request: &PurchaseRequest,
        purchase: Purchase,
    ) -> Result<Option<Box<Payment>>, Error> {
        if purchase.fingerprint != request.fingerprint() {
            return Err(Error::new(
                ErrorKind::Purchase,
                "the purchase id belongs to another request",
            )
            .naming(&purchase.id));
        }
        match purchase.state {
            // A caller cannot choose the id of a call by an API key.
            State::Reserved | State::ApiCall | State::Voided | State::ReleasedByProof => Ok(None),
            // A signer that did not answer left no payment to present. It is asked again.
            State::Unresolved if purchase.payload.is_none() => Ok(None),
            State::Signed | State::Settled | State::Rejected | State::Unresolved => {
                let presented = Box::pin(self.present_stored(request, purchase));
                presented.await.map(Box::new).map(Some)
            }
        }
    }

    /// Presents a payment that the ledger holds under the caller's id.
    pub(super) async fn present_stored(
        &self,
        request: &PurchaseRequest,
        purchase: Purchase,
    ) -> Result<Payment, Error> {
        let flight = self.inner.ledger.flight();
        let payment = self.present_again(request, purchase, flight).await?;
        match payment.renew_lease().await {
            Ok(()) => Ok(payment),
            Err(error) => Err(payment.fail(error)),
        }
    }

    /// Returns the earlier purchase that this request must continue: the one with its id, or of an identical request.
    ///
    /// # Errors
    /// The payment cannot be presented again, or the call's time was up before it was known whether other processes live.
    pub(super) async fn earlier(
        &self,
        request: &PurchaseRequest,
        others: Others,
    ) -> Result<Earlier, Error> {
        self.inner.ledger.record_pending().await?;
        match self.resume_by_id(request).await? {
            Some(payment) => Ok(Earlier::Payment(payment)),
            None => self.resume_identical(request, others).await,
        }
    }

    /// Returns the earlier purchase of an identical request that must be continued, so that bursar does not buy twice.
    ///
    /// If calls of other processes are presenting such purchases, it first waits until each showed that it lives or its
    /// lease ended.
    ///
    /// # Errors
    /// The policy of today denies its payment, or another payer signed it. Both can still settle. The call's time was up
    /// before it was known whether the other processes live.
    async fn resume_identical(
        &self,
        request: &PurchaseRequest,
        others: Others,
    ) -> Result<Earlier, Error> {
        if request.id()?.is_some() || !request.resumes_identical() {
            return Ok(Earlier::Nothing);
        }
        let ledger = &self.inner.ledger;
        let mut watch: Option<Watch> = None;
        let purchase = loop {
            let now = self.now();
            let wanted = Resumption {
                payer: self.address(),
                fingerprint: request.fingerprint(),
                origin: request.origin().clone(),
                now,
                until: now.after(PRESENTER_LEASE),
                ended: watch.as_ref().map(Watch::ended).unwrap_or_default(),
            };
            let leased = match ledger.resume(&wanted).await? {
                Resumed::Nothing => return Ok(Earlier::Nothing),
                Resumed::InFlight(leased) => leased,
                Resumed::Unsigned(purchase) => {
                    return Ok(Earlier::Unsigned(Box::new(
                        request.continuing(&purchase.id),
                    )));
                }
                Resumed::OtherPayer(purchase) => return Err(of_other_payer(&purchase)),
                Resumed::Again(purchase) => break *purchase,
            };
            let watch = watch.get_or_insert_with(|| match others {
                Others::Watched => self.watch(request, &leased),
                Others::Decided => Watch::default(),
            });
            if watch.is_over(ledger, &leased) {
                tracing::warn!(
                    origin = %request.origin(),
                    "an identical request is in flight, and this one pays too; to pay once, wait for the first, or give both one purchase_id"
                );
                return Ok(Earlier::Nothing);
            }
            self.await_others(request, watch).await?;
        };
        let (key, flight) = (purchase.key(), ledger.flight());
        flight.present(key.clone());
        match Box::pin(self.present_again(request, purchase, flight)).await {
            Ok(payment) => Ok(Earlier::Payment(Box::new(payment))),
            Err(denied) => {
                // The purchase keeps its state, and no call is presenting it.
                let released = Transition::Presented { until: self.now() };
                ledger.record_or_keep(&key, released).await;
                Err(denied)
            }
        }
    }

    /// Checks a stored payment against the policy of today, and makes it ready to be presented.
    async fn present_again(
        &self,
        request: &PurchaseRequest,
        purchase: Purchase,
        flight: Arc<Flight>,
    ) -> Result<Payment, Error> {
        let unusable =
            |reason: &str| Error::new(ErrorKind::Purchase, reason).of_purchase(&purchase);
        let payload = purchase.payload.clone().ok_or_else(|| {
            if purchase.archived().is_some() {
                return unusable("the purchase was settled and pruned, so there is no payment to present; to buy again, use another purchase id");
            }
            unusable("the ledger has no payment to present for this purchase; the signer did not answer, or the chain proved its outcome")
        })?;
        let assets = &self.inner.assets;
        let asset = assets.find(purchase.network, purchase.asset).cloned();
        let asset =
            asset.ok_or_else(|| unusable("the purchase's token is no longer in the registry"))?;
        // The ledger holds the largest of the signed amounts. The payment that is presented is the latest.
        let latest = x402::decode_authorization(payload.expose_secret());
        let latest = latest.ok_or_else(|| unusable("the stored payment is damaged"))?;
        let now = self.now();
        let left = now.until(Timestamp::from_secs(latest.valid_before));
        let quote =
            Quote::imagined(asset.clone(), latest.to, latest.value, left).paid_by(latest.by);
        let signature = purchase.offer_signature();
        let facts = Facts {
            payer: purchase.payer,
            signature: Some(&signature),
            resource_url: purchase.foreign_resource.as_deref(),
            ..self.facts_of(request, &quote, &purchase.path)
        };
        let denial = self.denied_today(&facts, purchase.nonce).await;
        if let Some(denial) = denial.map_err(|error| error.of_purchase(&purchase))? {
            let rest = format!(
                "the payment was signed earlier and is not presented; it can settle until {}",
                Timestamp::from_secs(latest.valid_before)
            );
            return Err(Error::denied(Box::new(denial))
                .of_purchase(&purchase)
                .and(&rest));
        }
        let amount = TokenAmount::from_units(asset, latest.value);
        let events = PurchaseEvents::new(&purchase, amount.clone(), self.agent_of(request), now);
        let delivered = !purchase.is_undelivered();
        let receipt_signature = purchase.receipt_signature();
        let key = purchase.key();
        flight.hold(&purchase);
        flight.sign();
        let signed = SignedPayment {
            amount,
            method: latest.by.method(),
            payer: purchase.payer,
            pay_to: latest.to,
            nonce: purchase.nonce,
            valid_before: latest.valid_before,
            purchase: purchase.id,
        };
        let settled = purchase
            .transaction
            .or(purchase.verified_transaction)
            .filter(|_| purchase.state == State::Settled);
        let charged = purchase.verified_charge.or(purchase.claimed_charge);
        let settled = settled.map(|transaction| {
            let receipt = Receipt::from_ledger(&signed, transaction, charged, receipt_signature);
            Box::new(receipt)
        });
        self.emit(&events.event(EventKind::Resumed));
        Ok(Payment {
            guard: DropGuard::new(self, key, Stage::Signed, events, flight),
            signed,
            version: latest.version,
            payload,
            again: true,
            settled,
            delivered,
            settled_early: false,
            hold: None,
            query: text::current(),
        })
    }

    /// Returns the denial of a payment that was signed earlier, by the rules of today.
    ///
    /// These are the freezes, all rules that do not need the ledger, the limits on one payment, and approvals. The limits
    /// over time count the payment already.
    async fn denied_today(&self, facts: &Facts<'_>, nonce: B256) -> Result<Option<Denial>, Error> {
        if let Some(denial) = self.frozen_here() {
            return Ok(Some(denial));
        }
        let policy = &self.inner.policy;
        let mut limits = policy.limit_check(facts).limits;
        limits.retain(|limit| matches!(limit.kind, LimitKind::PerPayment(_)));
        let check = LimitCheck {
            limits,
            payee: None,
            price: None,
            ..policy.limit_check(facts)
        };
        let statuses = self.inner.ledger.examine(&check).await?;
        let denial = statuses.into_iter().find_map(|status| status.denial);
        if let Some(denial) = denial.or_else(|| policy.deny(facts)) {
            return Ok(Some(denial));
        }
        let is_approved = || approved().contains(&(nonce, facts.quote.value()));
        match policy.ask(facts).filter(|_| !is_approved()) {
            None => Ok(None),
            Some(why) => {
                let why = format!("{why}; it was signed earlier, and is presented again");
                let question = self.question(facts, why, nonce, Untrusted::default());
                Ok(self.ask_approver(facts.request, &question).await)
            }
        }
    }
}

fn approved() -> MutexGuard<'static, VecDeque<(B256, U256)>> {
    APPROVED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Remembers that an authorization was approved.
pub(super) fn note_approved(nonce: B256, value: U256) {
    let mut approved = approved();
    if approved.len() >= MOST_APPROVALS {
        approved.pop_front();
    }
    approved.push_back((nonce, value));
}

/// The denial of an offer whose authorization could settle beside one that was signed for the same purchase.
pub(super) fn of_other_method(purchase: &Purchase) -> Denial {
    let signed = purchase.payment_method.map_or("none", PaymentMethod::name);
    let until = Timestamp::from_secs(purchase.valid_before.unwrap_or(u64::MAX));
    Denial::new(
        Rule::OtherMethod,
        format!(
            "the purchase was signed by `{signed}`, and this offer needs another kind of signature; both could settle, \
             so it is not signed before the chain proves that the first one did not (it can settle until {until})"
        ),
    )
}

/// The error of a purchase that another payer began, and this payer cannot continue.
pub(super) fn of_other_payer(purchase: &Purchase) -> Error {
    let payer = purchase.payer;
    let until = Timestamp::from_secs(purchase.valid_before.unwrap_or(u64::MAX));
    let message = format!(
        "the payer {payer} signed for the same purchase, and its payment can settle until {until}; \
         a payment by this payer would be a second one; use the key of {payer}, or wait until {}, or prove by `Ledger::reconcile` that the first did not settle; \
         to buy twice on purpose, use `allow_duplicate` and another purchase id",
        until.after(CLOCK_BOUND)
    );
    Error::new(ErrorKind::Purchase, message).of_purchase(purchase)
}
