//! Presenting a payment that an earlier call signed.

use std::future::Future;

use http::StatusCode;
use secrecy::ExposeSecret;

use super::drop_guard::{DropGuard, Stage};
use super::payment::PRESENTER_LEASE;
use super::transport::PaymentRecord;
use super::{Payer, Payment};
use crate::error::{Error, ErrorKind};
use crate::ledger::{Purchase, PurchaseKey, Resumption, SellerAnswer, State, Transition};
use crate::money::TokenAmount;
use crate::request::PurchaseRequest;
use crate::telemetry::{EventKind, PurchaseEvents};
use crate::text;
use crate::x402;
use crate::x402::{Receipt, SignedPayment};

impl Payer {
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
    pub(super) async fn resume_by_id(
        &self,
        request: &PurchaseRequest,
    ) -> Result<Option<Payment>, Error> {
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
    ) -> Result<Option<Payment>, Error> {
        match self.stored(request).await? {
            Some(purchase) if purchase.path == self.inner.policy.stored_path(request) => self
                .resume_stored(request, purchase)
                .await
                .map_err(|error| self.report_denial(request, error)),
            _ => Ok(None),
        }
    }

    /// The purchase that the ledger holds under the caller's id.
    async fn stored(&self, request: &PurchaseRequest) -> Result<Option<Purchase>, Error> {
        let Some(id) = request.id()?.filter(|_| self.inner.signer.is_some()) else {
            return Ok(None);
        };
        self.inner.ledger.record_pending().await?;
        let key = PurchaseKey::new(self.address(), id.clone());
        Ok(self.inner.ledger.purchase(&key).await?)
    }

    async fn resume_stored(
        &self,
        request: &PurchaseRequest,
        purchase: Purchase,
    ) -> Result<Option<Payment>, Error> {
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
                self.not_frozen(&purchase).await?;
                let payment = self.present_again(purchase)?;
                match payment.renew_lease().await {
                    Ok(()) => Ok(Some(payment)),
                    Err(error) => Err(payment.fail(error)),
                }
            }
        }
    }

    /// Returns the payment of an unresolved purchase of an identical request, which is presented again instead of
    /// buying twice.
    pub(super) async fn resume_identical(
        &self,
        request: &PurchaseRequest,
    ) -> Result<Option<Payment>, Error> {
        if request.id()?.is_some() || !request.resumes_identical() {
            return Ok(None);
        }
        let now = self.now();
        let wanted = Resumption {
            payer: self.address(),
            fingerprint: request.fingerprint(),
            origin: request.origin().clone(),
            tag: request.tag_name().map(ToOwned::to_owned),
            agent: self.inner.agent.clone(),
            max: request.price_ceiling().cloned(),
            now,
            until: now.after(PRESENTER_LEASE),
        };
        let Some(purchase) = self.inner.ledger.resume(&wanted).await? else {
            return Ok(None);
        };
        if let Err(frozen) = self.not_frozen(&purchase).await {
            // The purchase keeps its state, and no call is presenting it.
            let released = Transition::Presented { until: now };
            let ledger = &self.inner.ledger;
            ledger
                .record(&purchase.key(), &released, now)
                .await
                .map_err(|error| Error::from(error).of_purchase(&purchase))?;
            return Err(frozen);
        }
        self.present_again(purchase).map(Some)
    }

    /// A freeze also holds for payments that were signed before.
    async fn not_frozen(&self, purchase: &Purchase) -> Result<(), Error> {
        match self.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(denial)) => Err(Error::denied(Box::new(denial)).of_purchase(purchase)),
            Err(error) => Err(error.of_purchase(purchase)),
        }
    }

    pub(super) fn present_again(&self, purchase: Purchase) -> Result<Payment, Error> {
        let unusable =
            |reason: &str| Error::new(ErrorKind::Purchase, reason).of_purchase(&purchase);
        let payload = purchase.payload.clone().ok_or_else(|| {
            unusable(
                "the signer may have signed this purchase, but bursar has no signature to present",
            )
        })?;
        let assets = &self.inner.assets;
        let asset = assets.find(purchase.network, purchase.asset).cloned();
        let asset =
            asset.ok_or_else(|| unusable("the purchase's token is no longer in the registry"))?;
        // The ledger holds the largest of the signed amounts. The payment that is presented is the latest.
        let latest = x402::decode_authorization(payload.expose_secret());
        let latest = latest.ok_or_else(|| unusable("the stored payment is damaged"))?;
        let amount = TokenAmount::from_units(asset, latest.value);
        let events = PurchaseEvents::new(&purchase, amount.clone(), self.now());
        let delivered = !purchase.is_undelivered();
        let key = purchase.key();
        let signed = SignedPayment {
            amount,
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
        let settled =
            settled.map(|transaction| Box::new(Receipt::from_ledger(&signed, transaction)));
        self.emit(&events.event(EventKind::Resumed));
        Ok(Payment {
            guard: DropGuard::new(self, key, Stage::Signed, events),
            signed,
            version: latest.version,
            payload,
            again: true,
            settled,
            delivered,
            settled_early: false,
            query: text::current(),
        })
    }
}
