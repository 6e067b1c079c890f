//! The check of a signature by the contract of its wallet, before it leaves.

use std::time::Duration;

use super::Payer;
use crate::chain::{ContractSignature, Reason, RpcError};
use crate::signer::{AnySigner, Authorization, Signature, SignerError};
use crate::telemetry::{EventKind, PurchaseEvents};

/// How long a contract wallet may take to check a signature. It is less than the margin of the lease.
const LONGEST_CHECK: Duration = Duration::from_secs(5);

impl Payer {
    /// Returns the signature, unless it is of a contract wallet whose contract refuses it.
    pub(super) async fn accepted(
        &self,
        authorization: &Authorization,
        signature: Signature,
        events: &PurchaseEvents,
    ) -> Result<Signature, SignerError> {
        let Some(watch) = &self.inner.chain else {
            return Ok(signature);
        };
        let asset = authorization.asset();
        let (wallet, network, token) = (authorization.from(), asset.network(), asset.address());
        let signer = self.inner.signer.as_ref();
        if !signer.is_some_and(AnySigner::is_contract) || !watch.chain.reads(network) {
            return Ok(signature);
        }
        let (digest, bytes) = (authorization.digest(), signature.as_bytes());
        let asked = (watch.chain).check_signature(network, wallet, token, digest, bytes);
        let asked = tokio::time::timeout(LONGEST_CHECK, asked).await;
        let wrong = |reason: &str| {
            Err(SignerError::wrong(format!(
                "the contract wallet {wallet} on {network} {reason}; the signature was not sent"
            )))
        };
        match asked.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout))) {
            Ok(ContractSignature::Accepted) => Ok(signature),
            Ok(ContractSignature::Refused) => wrong("refuses the signature of its signer"),
            Ok(ContractSignature::NotDeployed) => wrong(
                "is not deployed, and the signature does not describe its deployment (ERC-6492)",
            ),
            Err(reason) => {
                tracing::warn!(%reason, %wallet, %network, "a contract wallet could not check its signature, which is used all the same");
                self.emit(&events.event(EventKind::SignatureUnchecked));
                Ok(signature)
            }
        }
    }
}
