//! Holding, signing and recording a purchase in one step, for a key in this process.
//!
//! A database calls the signer inside the transaction that checked the limits, and before it commits. The signed
//! bytes leave the ledger only after that transaction is durable. A denied purchase is not signed.

use std::sync::Arc;

use secrecy::SecretString;

use super::backend::Backend;
use super::{Ledger, LedgerError, Purchase, Reservation, Reserved, Transition};
use crate::clock::Timestamp;

/// A signer that does not wait, for one purchase.
///
/// A database may call it again after a transaction that was rolled back. Only the signature of the transaction that was
/// committed is returned to the caller.
pub(crate) trait SignsInStep: Send + Sync {
    /// Signs the purchase that the ledger is about to hold.
    fn sign(&self, held: &Purchase) -> InStep;
}

/// The answer of a signer within the step.
pub(crate) enum InStep {
    /// It signed.
    Signed(Signature),
    /// It could not sign, and there is no signature. The ledger holds the purchase, and the caller records the failure.
    Failed,
    /// The caller stopped waiting before anything was signed. The ledger writes nothing.
    Abandoned,
}

/// The signed payment, as the ledger records it.
#[derive(Clone, Debug)]
pub(crate) struct Signature {
    /// The time of the signature.
    pub(crate) at: Timestamp,
    /// The `validBefore` of the authorization, in Unix seconds.
    pub(crate) valid_before: u64,
    /// The payment header.
    pub(crate) payload: SecretString,
    /// The time until which the caller presents the payment.
    pub(crate) presenter_lease_until: Timestamp,
}

/// A purchase that the ledger holds with its signature.
#[derive(Clone, Debug)]
pub(crate) struct SignedPurchase {
    /// The purchase, in the state [`Signed`](super::State::Signed).
    pub(crate) purchase: Purchase,
    /// Its latest signature.
    pub(crate) signature: Signature,
}

/// The answer of a ledger that was asked to hold and sign a purchase.
#[derive(Debug)]
pub(crate) enum Obtained {
    /// The ledger holds the signed purchase. Its payment may leave.
    Signed(Box<SignedPurchase>),
    /// The ledger holds the purchase, and the signer failed.
    Unsigned(Box<Purchase>),
    /// The ledger holds nothing new. This is never [`Reserved::Held`].
    NotHeld(Reserved),
    /// The caller had stopped waiting.
    Abandoned,
}

/// A purchase to write, after the signer answered.
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(super) enum Step {
    /// The purchase with its signature.
    Signed(Box<SignedPurchase>),
    /// The hold alone.
    Held(Box<Purchase>),
    /// Nothing.
    Abandoned,
}

#[cfg(any(feature = "postgres", feature = "sqlite"))]
impl Step {
    /// Signs a purchase whose limits have room. `held` has its final number, or zero if it is not known yet.
    ///
    /// # Errors
    /// Returns [`LedgerError::Transition`] if the lease of the hold ended before the signature. There is nothing to
    /// write then, and the signature is dropped.
    pub(super) fn sign(held: Box<Purchase>, signer: &dyn SignsInStep) -> Result<Self, LedgerError> {
        match signer.sign(&held) {
            InStep::Signed(signature) => {
                SignedPurchase::new(*held, signature).map(|signed| Self::Signed(Box::new(signed)))
            }
            InStep::Failed => Ok(Self::Held(held)),
            InStep::Abandoned => Ok(Self::Abandoned),
        }
    }
}

impl SignedPurchase {
    fn new(mut purchase: Purchase, signature: Signature) -> Result<Self, LedgerError> {
        purchase.apply(&signature.transition(&purchase), signature.at)?;
        Ok(Self {
            purchase,
            signature,
        })
    }
}

impl Signature {
    fn transition(&self, held: &Purchase) -> Transition {
        Transition::Signed {
            lease: held.lease_until,
            valid_before: self.valid_before,
            payload: self.payload.clone(),
            presenter_lease_until: self.presenter_lease_until,
        }
    }
}

impl Backend {
    /// Looks the purchase up, checks every limit, and writes it with its signature.
    pub(super) async fn buy(
        &self,
        reservation: &Arc<Reservation>,
        signer: &Arc<dyn SignsInStep>,
    ) -> Result<Obtained, LedgerError> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(sqlite) => Box::pin(sqlite.buy(reservation, signer)).await,
            #[cfg(feature = "postgres")]
            Self::Postgres(postgres) => Box::pin(postgres.buy(reservation, signer)).await,
            Self::Memory(_) => Box::pin(self.buy_in_turn(reservation, &**signer)).await,
        }
    }

    /// Holds, signs and records one after the other. Each step is durable before the next one begins.
    async fn buy_in_turn(
        &self,
        reservation: &Reservation,
        signer: &dyn SignsInStep,
    ) -> Result<Obtained, LedgerError> {
        let held = match self.reserve(reservation).await? {
            Reserved::Held(held) => held,
            other => return Ok(Obtained::NotHeld(other)),
        };
        match signer.sign(&held) {
            InStep::Failed => Ok(Obtained::Unsigned(held)),
            InStep::Abandoned => Ok(Obtained::Abandoned),
            InStep::Signed(signature) => {
                let (key, at) = (held.key(), signature.at);
                self.record(&key, &signature.transition(&held), at).await?;
                let signed = SignedPurchase::new(*held, signature)?;
                Ok(Obtained::Signed(Box::new(signed)))
            }
        }
    }

    /// Returns whether [`buy`](Self::buy) is one transaction.
    const fn buys_in_one_step(&self) -> bool {
        match self {
            // Nothing is durable, and a signature under the lock would keep other threads waiting.
            Self::Memory(_) => false,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => true,
        }
    }
}

impl Ledger {
    /// Returns whether [`buy`](Self::buy) costs less than to reserve, sign and record.
    pub(crate) const fn buys_in_one_step(&self) -> bool {
        self.backend.buys_in_one_step()
    }

    /// Looks the purchase up, checks every limit, signs, and records the signature, in one atomic step.
    ///
    /// After an error, the ledger may hold the signed purchase all the same: the answer of the commit was lost. The
    /// signature is not returned then.
    pub(crate) async fn buy(
        &self,
        reservation: &Arc<Reservation>,
        signer: &Arc<dyn SignsInStep>,
    ) -> Result<Obtained, LedgerError> {
        self.backend.buy(reservation, signer).await
    }
}
