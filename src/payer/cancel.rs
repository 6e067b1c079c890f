//! Cancelling an authorization before it expires.

use super::Payer;
use crate::ledger::{PurchaseId, PurchaseKey};
use crate::signer::{CancelAuthorization, SignedCancellation};
use crate::{Error, ErrorKind, PaymentStatus};

impl Payer {
    /// Signs a cancellation of the authorization for a purchase.
    ///
    /// Send [`calldata`](SignedCancellation::calldata) to
    /// [`contract`](SignedCancellation::contract) in a transaction of any account that pays the gas.
    /// The seller can still settle before the cancellation is on the chain. The ledger does not
    /// change: call [`Ledger::reconcile`](crate::Ledger::reconcile) once the chain has the
    /// cancellation.
    ///
    /// # Errors
    /// Returns an error if the ledger has no such purchase of this payer, if the purchase is not
    /// unresolved, if its token is no longer registered, or if the signer cannot cancel.
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        let wrong =
            |message: String| Error::new(ErrorKind::Purchase, message).of_purchase(purchase);
        let key = PurchaseKey::new(self.address(), purchase.clone());
        let stored = self.inner.ledger.purchase(&key).await?;
        let stored = stored.ok_or_else(|| wrong("the ledger has no such purchase".to_owned()))?;
        if !stored.is_unresolved() {
            return Err(wrong(format!(
                "the purchase is {}; only an unresolved payment can be cancelled",
                stored.state
            )));
        }
        let asset = self
            .inner
            .assets
            .find(stored.network, stored.asset)
            .cloned();
        let asset = asset
            .ok_or_else(|| wrong("the purchase's token is no longer in the registry".to_owned()))?;
        let cancellation = CancelAuthorization::new(asset, stored.payer, stored.nonce);
        let signature = self.inner.signer.cancel(&cancellation).await;
        let signature = signature.map_err(|error| {
            Error::from(error)
                .spent(PaymentStatus::MaybePaid)
                .of_purchase(purchase)
        })?;
        Ok(SignedCancellation::new(cancellation, signature))
    }
}
