//! Gas sponsoring: the facilitator of the seller approves Permit2 in the name of the wallet, by a permit of EIP-2612.

use std::time::Duration;

use alloy::primitives::U256;

use super::Payer;
use super::authorize::Order;
use crate::permit2::PermitTransfer;
use crate::policy::Facts;
use crate::signer::{AnySigner, Authorization, Signature, SignerError, TokenPermit};
use crate::telemetry::PurchaseEvents;
use crate::x402::{Sponsored, offers_eip2612};

/// How long a payment waits for the nonce.
const LONGEST_READ: Duration = Duration::from_secs(3);

impl Payer {
    /// Returns the nonce of the permit with which the seller's facilitator can approve Permit2, or `None` if the policy, the
    /// seller, the wallet or the token does not allow that.
    pub(super) async fn sponsored(&self, order: Order<'_>, facts: &Facts<'_>) -> Option<U256> {
        let (watch, asset) = (self.inner.chain.as_ref()?, facts.quote.asset());
        let is_contract = (self.inner.signer.as_ref()).is_some_and(AnySigner::is_contract);
        if is_contract
            || asset.eip712_name().is_empty()
            || !self.inner.policy.sponsors_gas(facts.request.origin())
            || !offers_eip2612(order.required, facts.quote.offer())
        {
            return None;
        }
        let limit = facts.request.time_left();
        let limit = limit.map_or(LONGEST_READ, |left| left.min(LONGEST_READ));
        let read = watch.chain.permit_nonce(asset, facts.payer);
        tokio::time::timeout(limit, read).await.ok()?.ok()
    }

    /// Asks for the signatures of a payment: that of the permit of the token, if there is one, and that of the authorization.
    /// Neither leaves the process if the other one is missing.
    pub(super) async fn signatures(
        &self,
        authorization: &Authorization,
        nonce: Option<U256>,
        events: &PurchaseEvents,
    ) -> Result<(Signature, Option<Sponsored>), SignerError> {
        let signer = self.inner.signer.as_ref();
        let signer = signer.ok_or_else(|| SignerError::unavailable("the payer has no signer"))?;
        let sponsored = match (nonce, authorization) {
            (Some(nonce), Authorization::Permit(permit)) => {
                let token = token_permit(permit, nonce);
                let signature = signer.sign_token_permit(&token).await?;
                Some(Sponsored::new(&token, &signature))
            }
            _ => None,
        };
        let signature = signer.sign(authorization).await?;
        let signature = self.accepted(authorization, signature, events).await?;
        Ok((signature, sponsored))
    }
}

/// Returns the approval of Permit2 by EIP-2612 for the amount of a payment.
pub(super) fn token_permit(permit: &PermitTransfer, nonce: U256) -> TokenPermit {
    TokenPermit::new(
        permit.asset().clone(),
        permit.from(),
        permit.value(),
        nonce,
        permit.deadline(),
    )
}
