//! Making an authorization void before it expires.

use super::Payer;
use crate::ledger::PurchaseId;
use crate::signer::{CancelAuthorization, SignedCancellation};
use crate::{Error, ErrorKind, PaymentStatus};

impl Payer {
    /// Signs a cancellation of what was signed for a purchase, for whoever pays the gas: send
    /// [`calldata`](SignedCancellation::calldata) to [`contract`](SignedCancellation::contract).
    ///
    /// The seller may still be faster. Nothing is booked: once the chain has it,
    /// [`reconcile`](Self::reconcile) releases the money.
    ///
    /// # Errors
    /// When the books hold no such purchase of this payer, it is not unresolved, its token is no
    /// longer registered, or the signer cannot cancel.
    pub async fn cancel(&self, purchase: &PurchaseId) -> Result<SignedCancellation, Error> {
        let entry = self.known(purchase).await?;
        let wrong =
            |message: String| Error::new(ErrorKind::Purchase, message).of_purchase(purchase);
        if !entry.is_unresolved() {
            return Err(wrong(format!(
                "the purchase is {}; only what is signed and unresolved can be cancelled",
                entry.state
            )));
        }
        let asset = self.inner.assets.find(entry.network, entry.asset).cloned();
        let asset = asset
            .ok_or_else(|| wrong("the purchase's token is no longer in the registry".to_owned()))?;
        let cancellation = CancelAuthorization::new(asset, entry.payer, entry.nonce);
        let signature = self.inner.signer.cancel(&cancellation).await;
        let signature = signature.map_err(|error| {
            Error::from(error)
                .spent(PaymentStatus::MaybePaid)
                .of_purchase(purchase)
        })?;
        Ok(SignedCancellation::new(cancellation, signature))
    }
}
