//! Signing a purchase that the ledger holds, by a signer that may wait.

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use secrecy::SecretString;

use super::authorize::Order;
use super::balance::Hold;
use super::drop_guard::{DropGuard, Stage};
use super::payment::PRESENTER_LEASE;
use super::sponsor::Sponsorship;
use super::transport::AfterSigning;
use super::{Payer, Payment};
use crate::clock::Timestamp;
use crate::error::Error;
use crate::ledger::{Flight, Purchase, PurchaseId, State, Transition};
use crate::money::{Asset, TokenAmount};
use crate::origin::Origin;
use crate::permit2::PermitTransfer;
use crate::signer::{Authorization, Signature, SignerError, TransferAuthorization};
use crate::telemetry::{Event, EventKind, PurchaseEvents};
use crate::text;
use crate::x402::{self, Additions, By, PaymentProof, PaymentRequired, Version, WireError};
use crate::x402::{PaymentMethod, Quote, SignedPayment, Sponsored};

/// Version 1 clients date authorizations back, for chains whose clock is late.
const V1_BACKDATE: u64 = 600;

impl Payer {
    /// Signs for a reserved purchase.
    ///
    /// From the moment that the signer is asked, every error carries the payment, unless the signer says that it did
    /// not sign.
    pub(super) async fn sign(
        &self,
        order: Order<'_>,
        quote: &Quote,
        purchase: Box<Purchase>,
        flight: Arc<Flight>,
        (hold, sponsored): (Option<Hold>, Option<Sponsorship>),
    ) -> Result<Payment, Error> {
        let events = PurchaseEvents::new(
            &purchase,
            quote.amount(),
            self.agent_of(order.request),
            self.now(),
        );
        self.emit(&events.event(EventKind::Reserved));
        let mut guard = DropGuard::new(self, purchase.key(), Stage::of(&purchase), events, flight);
        let draft = self.draft(quote, &purchase.origin);
        let authorization = draft.authorization(self.now(), purchase.nonce);
        guard.stage = Stage::Asked {
            method: quote.payment_method(),
            valid_before: authorization.valid_before(),
        };
        let mut signing = Signing {
            asked: self.now(),
            method: quote.payment_method(),
            purchase,
            authorization,
            guard,
        };
        let events = signing.guard.events();
        let lease = signing.purchase.lease_until;
        let signatures = self.signatures(&signing.authorization, lease, sponsored, events);
        let signatures = match signatures.await {
            Ok(signatures) => signatures,
            Err(error) => return Err(Box::pin(self.unsigned(error, signing)).await),
        };
        hold.iter().for_each(Hold::sign);
        let signed = signing.payment();
        match self
            .record_signature(order, quote, &mut signing, &signatures)
            .await
        {
            Ok(payload) => Ok(Payment::signed(
                signing.guard,
                signed,
                order.required.version(),
                (payload, hold),
            )),
            // The ledger may hold the signature all the same, so the amount counts as spent.
            Err(error) => Err(error.of_payment(&signed, None)),
        }
    }

    /// Records the signature. It does not leave the process before the ledger holds it.
    async fn record_signature(
        &self,
        order: Order<'_>,
        quote: &Quote,
        signing: &mut Signing,
        (signature, sponsored): &(Signature, Option<Sponsored>),
    ) -> Result<SecretString, AfterSigning> {
        let Signing {
            purchase,
            authorization,
            guard,
            asked,
            ..
        } = signing;
        let payload = encode(
            (order.required, quote.offer()),
            &purchase.identifier,
            authorization,
            (signature, sponsored.as_ref()),
        )?;
        let now = self.now();
        let transition = Transition::Signed {
            lease: purchase.lease_until,
            valid_before: authorization.valid_before(),
            payload: payload.clone(),
            presenter_lease_until: now.after(PRESENTER_LEASE),
        };
        let ledger = &self.inner.ledger;
        ledger.record(guard.key(), &transition, now).await?;
        guard.sign(now);
        self.emit(&Event {
            elapsed: Some(asked.until(now)),
            ..guard.events().event(EventKind::Signed)
        });
        Ok(payload)
    }

    /// Returns everything of an authorization that is known before the ledger holds the purchase.
    pub(super) fn draft(&self, quote: &Quote, origin: &Origin) -> Draft {
        Draft {
            version: quote.version(),
            validity: self.validity(origin, quote),
            asset: quote.asset().clone(),
            from: self.address(),
            to: quote.pay_to(),
            value: quote.value(),
            by: quote.by(),
            facilitator: quote.facilitator(),
        }
    }

    /// Records the failure of a signer, and returns its error.
    pub(super) async fn unsigned(&self, error: SignerError, mut signing: Signing) -> Error {
        let timed_out = error.is_timeout();
        if !timed_out {
            // The signer says that there is no signature.
            signing.guard.stage = Stage::of(&signing.purchase);
        }
        let Signing {
            purchase, guard, ..
        } = &signing;
        let reason = text::excerpt(&error.to_string());
        let transition = if timed_out {
            Transition::SignerTimedOut {
                method: signing.method,
                valid_before: signing.authorization.valid_before(),
                reason,
            }
        } else if purchase.state == State::Reserved {
            Transition::Voided {
                lease: purchase.lease_until,
            }
        } else {
            Transition::Unresolved {
                reason,
                answer: None,
            }
        };
        let recorded = self
            .inner
            .ledger
            .record(guard.key(), &transition, self.now())
            .await;
        match recorded {
            Ok(()) => {
                guard.disarm();
                if timed_out {
                    self.note_unresolved(signing.authorization.valid_before());
                }
                let unresolved = timed_out || purchase.state != State::Reserved;
                self.emit(&guard.events().event(if unresolved {
                    EventKind::Unresolved
                } else {
                    EventKind::Unsigned
                }));
            }
            // The guard emits the event, and has the failure recorded later.
            Err(error) => {
                tracing::error!(%error, purchase = %purchase.id, "the ledger did not record a signer's failure");
            }
        }
        if timed_out {
            Error::from(error).of_payment(&signing.payment(), None)
        } else {
            Error::from(error).of_purchase(purchase)
        }
    }
}

/// A reserved purchase while the signer is asked.
pub(super) struct Signing {
    pub(super) purchase: Box<Purchase>,
    pub(super) method: PaymentMethod,
    pub(super) authorization: Authorization,
    pub(super) guard: DropGuard,
    pub(super) asked: Timestamp,
}

impl Signing {
    fn payment(&self) -> SignedPayment {
        SignedPayment {
            purchase: self.purchase.id.clone(),
            amount: self.authorization.amount(),
            method: self.method,
            payer: self.authorization.from(),
            pay_to: self.authorization.to(),
            nonce: self.authorization.nonce(),
            valid_before: self.authorization.valid_before(),
        }
    }
}

/// Returns the header that carries the payment.
pub(super) fn encode(
    (required, offer): (&PaymentRequired, usize),
    identifier: &str,
    authorization: &Authorization,
    (signature, sponsored): (&Signature, Option<&Sponsored>),
) -> Result<SecretString, WireError> {
    let proof = match authorization {
        Authorization::Transfer(transfer) => PaymentProof::transfer(transfer, signature),
        Authorization::Permit(permit) => PaymentProof::permit(permit, signature),
    };
    let added = Additions {
        identifier,
        sponsored,
    };
    let json = x402::encode_payment(required, offer, &proof, added)?;
    Ok(SecretString::from(x402::encode_header(&json)))
}

/// An authorization without its nonce and its time.
pub(super) struct Draft {
    version: Version,
    validity: Duration,
    asset: Asset,
    from: Address,
    to: Address,
    value: U256,
    by: By,
    facilitator: Option<Address>,
}

impl Draft {
    /// Returns the authorization of a purchase with this nonce.
    pub(super) fn authorization(&self, now: Timestamp, nonce: B256) -> Authorization {
        let now = now.secs();
        let valid_after = match self.version {
            Version::V1 => now.saturating_sub(V1_BACKDATE),
            Version::V2 => 0,
        };
        let valid = (valid_after, now.saturating_add(self.validity.as_secs()));
        let (asset, parties, value) = (self.asset.clone(), (self.from, self.to), self.value);
        match self.by {
            By::Eip3009 => TransferAuthorization::new(asset, parties, value, valid, nonce).into(),
            By::Permit2 | By::Upto { .. } => {
                let nonce = U256::from_be_bytes(nonce.0);
                PermitTransfer::new(asset, parties, value, self.facilitator, valid, nonce).into()
            }
        }
    }

    pub(super) const fn method(&self) -> PaymentMethod {
        self.by.method()
    }

    /// Returns the facts of a payment that was signed with this nonce. `valid_before` is in Unix seconds.
    pub(super) fn payment(
        &self,
        purchase: &PurchaseId,
        nonce: B256,
        valid_before: u64,
    ) -> SignedPayment {
        SignedPayment {
            purchase: purchase.clone(),
            amount: TokenAmount::from_units(self.asset.clone(), self.value),
            method: self.method(),
            payer: self.from,
            pay_to: self.to,
            nonce,
            valid_before,
        }
    }
}
