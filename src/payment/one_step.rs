//! Signing by a key in this process, in the step of the ledger that holds the amount.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::{B256, U256};
use secrecy::SecretString;

use super::authorize::{Attempt, Order};
use super::balance::Hold;
use super::drop_guard::{DropGuard, Stage};
use super::payment::PRESENTER_LEASE;
use super::signing::{Draft, Signing, encode};
use super::sponsor::token_permit;
use super::transport::AfterSigning;
use super::{Payer, Payment};
use crate::clock::{Clock, Timestamp};
use crate::error::{Error, ErrorKind};
use crate::ledger::{
    Flight, InStep, Obtained, Purchase, PurchaseId, PurchaseKey, Reservation, Signature,
    SignedPurchase, SignsInStep,
};
use crate::money::TokenAmount;
use crate::signer::{Authorization, LocalSigner, SignerError};
use crate::telemetry::{Event, EventKind, PurchaseEvents};
use crate::x402::{PaymentRequired, Quote, SignedPayment, Sponsored, Version, WireError};

impl Payer {
    /// Has the ledger hold, sign and record the purchase in one step.
    ///
    /// The signature leaves the ledger only after it is durable. If the ledger fails, or answers after the caller stopped
    /// waiting, the signature is dropped, and the purchase counts as spent if the ledger has it.
    pub(super) async fn buy_in_one_step(
        &self,
        order: Order<'_>,
        quote: &Quote,
        reservation: Arc<Reservation>,
        key: Arc<LocalSigner>,
        (hold, sponsored): (Option<Hold>, Option<U256>),
    ) -> Result<Attempt, Error> {
        let signer = Arc::new(StepSigner {
            key,
            clock: self.inner.ledger.clock(),
            draft: self.draft(quote, &reservation.purchase.origin),
            required: order.required.of_offer(quote.offer()),
            sponsored,
            amount: quote.amount(),
            agent: self.agent_of(order.request).map(ToOwned::to_owned),
            progress: Mutex::new(Progress::Waits),
        });
        let flight = reservation.flight.clone();
        let mut call = Call {
            payer: self,
            key: Some(reservation.key()),
            flight: flight.unwrap_or_else(|| self.inner.ledger.flight()),
            signer: Arc::clone(&signer),
            hold,
        };
        let signer = signer as Arc<dyn SignsInStep>;
        let obtained = self.inner.ledger.buy(&reservation, &signer).await;
        if let Ok(Obtained::Signed(_) | Obtained::Unsigned(_)) = &obtained {
            self.warn_of_limits(order.request, &reservation, &quote.amount());
        }
        drop(reservation);
        match obtained {
            Ok(Obtained::Signed(signed)) => {
                let version = order.required.version();
                let payment = call.signed(*signed, version);
                Ok(Attempt::Signed(Box::new(payment)))
            }
            Ok(Obtained::Unsigned(purchase)) => Err(call.unsigned(purchase).await),
            Ok(Obtained::NotHeld(reserved)) => {
                call.disarm();
                drop(call);
                self.not_reserved(order, reserved).await
            }
            Ok(Obtained::Abandoned) => {
                Err(Error::new(ErrorKind::Purchase, "the call was dropped").naming(order.purchase))
            }
            // The ledger may hold the signature all the same, so the amount counts as spent.
            Err(error) => Err(match call.signed_payment(order.purchase) {
                Some(signed) => AfterSigning::from(error).of_payment(&signed, None),
                None => error.into(),
            }),
        }
    }
}

/// A call that waits for the ledger to buy. Dropped while it waits, it notes that the caller stopped waiting.
struct Call<'a> {
    payer: &'a Payer,
    /// `None` once the outcome is known.
    key: Option<PurchaseKey>,
    flight: Arc<Flight>,
    signer: Arc<StepSigner>,
    hold: Option<Hold>,
}

impl Call<'_> {
    /// The ledger holds the signed purchase.
    fn signed(&mut self, signed: SignedPurchase, version: Version) -> Payment {
        let SignedPurchase {
            purchase,
            signature,
        } = signed;
        self.disarm();
        let begun = self.signer.stop();
        let asked = begun.as_ref().map_or(signature.at, |asked| asked.at);
        let mut events = begun.map_or_else(
            || self.signer.events(&purchase, asked),
            |asked| asked.events,
        );
        self.payer.emit(&events.event(EventKind::Reserved));
        events.set_since(signature.at);
        self.payer.emit(&Event {
            elapsed: Some(asked.until(signature.at)),
            ..events.event(EventKind::Signed)
        });
        let hold = self.hold.take();
        hold.iter().for_each(Hold::sign);
        self.flight.sign();
        let draft = &self.signer.draft;
        let facts = draft.payment(&purchase.id, purchase.nonce, signature.valid_before);
        let flight = Arc::clone(&self.flight);
        let guard = DropGuard::new(self.payer, purchase.key(), Stage::Signed, events, flight);
        Payment::signed(guard, facts, version, (signature.payload, hold))
    }

    /// The ledger holds the purchase, and the key did not sign. Records the failure.
    async fn unsigned(&mut self, purchase: Box<Purchase>) -> Error {
        self.disarm();
        let begun = self.signer.stop();
        let failure = begun.as_ref().and_then(|asked| asked.failure.clone());
        let asked = begun.as_ref().map_or(purchase.updated_at, |asked| asked.at);
        let events = begun.map_or_else(
            || self.signer.events(&purchase, asked),
            |asked| asked.events,
        );
        self.payer.emit(&events.event(EventKind::Reserved));
        let draft = &self.signer.draft;
        let authorization = draft.authorization(asked, purchase.nonce);
        let (stage, flight) = (Stage::of(&purchase), Arc::clone(&self.flight));
        let signing = Signing {
            asked,
            method: draft.method(),
            guard: DropGuard::new(self.payer, purchase.key(), stage, events, flight),
            purchase,
            authorization,
        };
        let failure = failure.unwrap_or_else(|| "the key did not sign".to_owned());
        self.payer
            .unsigned(SignerError::unavailable(failure), signing)
            .await
    }

    /// Returns the payment if the key signed it.
    fn signed_payment(&self, purchase: &PurchaseId) -> Option<SignedPayment> {
        match &*self.signer.progress() {
            Progress::Asked(asked) if asked.failure.is_none() => {
                let draft = &self.signer.draft;
                Some(draft.payment(purchase, asked.nonce, asked.valid_before))
            }
            _ => None,
        }
    }

    fn disarm(&mut self) {
        self.key = None;
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Some(key) = self.key.take() else {
            return;
        };
        // Nothing is signed from here on, unless the key was asked already.
        let Some(asked) = self.signer.stop() else {
            return;
        };
        if asked.failure.is_some() {
            // The hold lapses, if the ledger has it.
            return;
        }
        self.hold.iter().for_each(Hold::sign);
        self.payer.emit(&asked.events.event(EventKind::Reserved));
        let stage = Stage::Asked {
            method: self.signer.draft.method(),
            valid_before: asked.valid_before,
        };
        let flight = Arc::clone(&self.flight);
        drop(DropGuard::new(self.payer, key, stage, asked.events, flight));
    }
}

/// A key with everything that it needs to sign one purchase.
struct StepSigner {
    key: Arc<LocalSigner>,
    clock: Arc<dyn Clock>,
    draft: Draft,
    /// The terms of the offer.
    required: PaymentRequired,
    /// The nonce of the permit that lets the facilitator approve Permit2.
    sponsored: Option<U256>,
    amount: TokenAmount,
    agent: Option<String>,
    progress: Mutex<Progress>,
}

/// The progress of one purchase, which the caller and the ledger share.
enum Progress {
    /// The ledger has not asked for a signature.
    Waits,
    /// The caller no longer waits. Nothing may be signed.
    Stopped,
    /// The ledger asked for a signature.
    Asked(Box<Asked>),
}

struct Asked {
    at: Timestamp,
    nonce: B256,
    valid_before: u64,
    events: PurchaseEvents,
    /// Why there is no signature.
    failure: Option<String>,
}

impl StepSigner {
    /// Every change is one step, so a panic elsewhere leaves the progress whole.
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets nothing be signed from here on. Returns the signature that was begun, if there is one.
    fn stop(&self) -> Option<Asked> {
        match mem::replace(&mut *self.progress(), Progress::Stopped) {
            Progress::Asked(asked) => Some(*asked),
            Progress::Waits | Progress::Stopped => None,
        }
    }

    fn events(&self, purchase: &Purchase, since: Timestamp) -> PurchaseEvents {
        PurchaseEvents::new(purchase, self.amount.clone(), self.agent.as_deref(), since)
    }

    /// Signs the payment, and the permit that lets the facilitator approve Permit2. Neither is used without the other.
    fn payload(
        &self,
        authorization: &Authorization,
        identifier: &str,
    ) -> Result<SecretString, WireError> {
        let sponsored = match (self.sponsored, authorization) {
            (Some(nonce), Authorization::Permit(permit)) => {
                let token = token_permit(permit, nonce);
                let signature = self.key.sign_token_permit_now(&token);
                Some(Sponsored::permit(&token, &signature))
            }
            _ => None,
        };
        let signature = self.key.sign_payment(authorization);
        encode(
            (&self.required, 0),
            identifier,
            authorization,
            (&signature, sponsored.as_ref()),
        )
    }
}

impl SignsInStep for StepSigner {
    fn sign(&self, held: &Purchase) -> InStep {
        let at = self.clock.now();
        let authorization = self.draft.authorization(at, held.nonce);
        let valid_before = authorization.valid_before();
        {
            let mut progress = self.progress();
            if matches!(*progress, Progress::Stopped) {
                return InStep::Abandoned;
            }
            *progress = Progress::Asked(Box::new(Asked {
                at,
                nonce: held.nonce,
                valid_before,
                events: self.events(held, at),
                failure: None,
            }));
        }
        match self.payload(&authorization, &held.identifier) {
            Ok(payload) => {
                let at = self.clock.now();
                InStep::Signed(Signature {
                    at,
                    valid_before,
                    payload,
                    presenter_lease_until: at.after(PRESENTER_LEASE),
                })
            }
            Err(error) => {
                if let Progress::Asked(asked) = &mut *self.progress() {
                    asked.failure = Some(format!("the payment cannot be encoded: {error}"));
                }
                InStep::Failed
            }
        }
    }
}
