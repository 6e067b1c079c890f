//! The check of a signature by the contract of its wallet, before it leaves.

use std::time::Duration;

use alloy::primitives::{Address, B256};

use super::Payer;
use crate::chain::{ContractSignature, Reason, RpcError};
use crate::money::Network;
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
        let asset = authorization.asset();
        let (wallet, network) = (authorization.from(), asset.network());
        let place = (network, wallet, asset.address());
        let signer = self.inner.signer.as_ref();
        if signer.is_some_and(AnySigner::is_contract)
            && let Some(reason) = self
                .ask_contract(place, authorization.digest(), &signature)
                .await?
        {
            tracing::warn!(%reason, %wallet, %network, "a contract wallet could not check its signature, which is used all the same");
            self.emit(&events.event(EventKind::SignatureUnchecked));
        }
        Ok(signature)
    }

    /// Has the contract at a wallet check a signature, as `caller` would ask it. Returns the reason if no endpoint could.
    ///
    /// # Errors
    /// The contract refuses the signature, or there is no contract.
    pub(super) async fn ask_contract(
        &self,
        (network, wallet, caller): (Network, Address, Address),
        digest: B256,
        signature: &Signature,
    ) -> Result<Option<Reason>, SignerError> {
        let chain = self.inner.chain.as_ref().map(|watch| &watch.chain);
        let Some(chain) = chain.filter(|chain| chain.reads(network)) else {
            return Ok(None);
        };
        let asked = chain.check_signature(network, wallet, caller, digest, signature.as_bytes());
        let asked = tokio::time::timeout(LONGEST_CHECK, asked).await;
        let wrong = |reason: &str| {
            Err(SignerError::wrong(format!(
                "the contract wallet {wallet} on {network} {reason}; the signature was not sent"
            )))
        };
        match asked.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout))) {
            Ok(ContractSignature::Accepted) => Ok(None),
            Ok(ContractSignature::Refused) => wrong("refuses the signature of its signer"),
            Ok(ContractSignature::NotDeployed) => wrong(
                "is not deployed, and the signature does not describe its deployment (ERC-6492)",
            ),
            Err(reason) => Ok(Some(reason)),
        }
    }
}
