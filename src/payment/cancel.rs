//! Cancelling an authorization before it expires.

use super::Payer;
use crate::error::{Error, ErrorKind};
use crate::ledger::{PurchaseId, PurchaseKey};
use crate::money::TransferMethod;
use crate::signer::{CancelAuthorization, SignedCancellation};

impl Payer {
    /// Signs a cancellation of the authorization of a purchase.
    ///
    /// Send [`calldata`](SignedCancellation::calldata) to [`contract`](SignedCancellation::contract) from any account
    /// that pays the gas. The seller may still settle first. The ledger does not change until the chain holds the
    /// cancellation and [`Ledger::reconcile`](crate::Ledger::reconcile) finds it.
    ///
    /// # Errors
    /// Returns an error if the ledger has no such purchase of this payer, if the purchase is not
    /// unresolved, if it was paid by Permit2, which has no cancellation without gas, if its token is no longer
    /// registered, or if the signer cannot cancel.
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        let key = PurchaseKey::new(self.address(), purchase.clone());
        let stored = self.inner.ledger.purchase(&key).await?;
        let purchase = stored.ok_or_else(|| {
            Error::new(ErrorKind::Purchase, "the ledger has no such purchase").naming(purchase)
        })?;
        let wrong =
            |message: String| Error::new(ErrorKind::Purchase, message).of_purchase(&purchase);
        if !purchase.is_unresolved() {
            return Err(wrong(format!(
                "the purchase is {}; only an unresolved payment can be cancelled",
                purchase.state
            )));
        }
        let by_permit = purchase
            .payment_method
            .is_some_and(|method| method.transfer_method() == TransferMethod::Permit2);
        if by_permit {
            return Err(wrong(
                "a payment by Permit2 cannot be cancelled with a signature: only a transaction of the payer itself, which \
                 costs gas, invalidates its nonce; it ends when it expires"
                    .to_owned(),
            ));
        }
        let asset = self.inner.assets.find(purchase.network, purchase.asset);
        let asset = asset
            .cloned()
            .ok_or_else(|| wrong("the purchase's token is no longer in the registry".to_owned()))?;
        let cancellation = CancelAuthorization::new(asset, purchase.payer, purchase.nonce);
        let signature = self.signer()?.cancel(&cancellation).await;
        let signature = signature.map_err(|error| Error::from(error).of_purchase(&purchase))?;
        Ok(SignedCancellation::new(cancellation, signature))
    }
}
