//! Cancelling an authorization before it expires.

use super::Payer;
use crate::ledger::PurchaseId;
use crate::signer::{CancelAuthorization, SignedCancellation};
use crate::{Error, ErrorKind};

impl Payer {
    /// Signs a cancellation of the authorization of a purchase.
    ///
    /// Send [`calldata`](SignedCancellation::calldata) to [`contract`](SignedCancellation::contract) from any account
    /// that pays the gas. The seller may still settle first. The ledger does not change until the chain holds the
    /// cancellation and [`reconcile`](Self::reconcile) finds it.
    ///
    /// # Errors
    /// When the ledger holds no such purchase of this payer, the purchase is not unresolved, its token is no longer
    /// registered, or the signer cannot cancel.
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        let purchase = self.known(purchase).await?;
        let wrong =
            |message: String| Error::new(ErrorKind::Purchase, message).of_purchase(&purchase);
        if !purchase.is_unresolved() {
            return Err(wrong(format!(
                "the purchase is {}; only what is signed and unresolved can be cancelled",
                purchase.state
            )));
        }
        let asset = self.inner.assets.find(purchase.network, purchase.asset);
        let asset = asset
            .cloned()
            .ok_or_else(|| wrong("the purchase's token is no longer in the registry".to_owned()))?;
        let cancellation = CancelAuthorization::new(asset, purchase.payer, purchase.nonce);
        let signature = self.inner.signer.cancel(&cancellation).await;
        let signature = signature.map_err(|error| Error::from(error).of_purchase(&purchase))?;
        Ok(SignedCancellation::new(cancellation, signature))
    }
}
