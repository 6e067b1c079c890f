//! Gas sponsoring: the seller's facilitator approves Permit2 in the name of the wallet, by a permit of EIP-2612 or by a
//! transaction that the wallet signed.

use std::future::Future;
use std::time::Duration;

use alloy::primitives::U256;

use super::Payer;
use super::allowance;
use super::authorize::Order;
use crate::clock::Timestamp;
use crate::ledger::Terms;
use crate::money::format_coins;
use crate::permit2::{Approval, MissingAllowance, PermitTransfer};
use crate::policy::{Denial, Facts};
use crate::signer::{AnySigner, Authorization, Signature, SignerError, TokenPermit};
use crate::telemetry::PurchaseEvents;
use crate::x402::{Sponsor, Sponsored, offers_gas};

/// How long a payment waits for the nonce, and for the fees of a transaction.
const LONGEST_READ: Duration = Duration::from_secs(3);

/// How long the ledger may take to record that the signer did not answer. Half of the margin of a lease is left for the wait
/// for the ledger before.
const RECORDING: Duration = Duration::from_secs(15);

/// An approval of Permit2 that is signed together with a payment.
#[derive(Debug)]
pub(super) enum Sponsorship {
    /// A permit of the token with this nonce.
    Permit(U256),
    Transaction(Box<Approval>),
}

impl Sponsorship {
    /// Returns the nonce of the permit, or `None` if it is a transaction.
    pub(super) const fn permit(&self) -> Option<U256> {
        match self {
            Self::Permit(nonce) => Some(*nonce),
            Self::Transaction(_) => None,
        }
    }
}

impl Payer {
    /// Returns the approval that bursar may sign together with the payment.
    ///
    /// # Errors
    /// Returns a denial if the policy, the seller, the wallet or the token does not allow one. It says how to change that,
    /// if the seller offers to pay the gas.
    pub(super) async fn sponsored(
        &self,
        order: Order<'_>,
        facts: &Facts<'_>,
        missing: MissingAllowance,
    ) -> Result<Sponsorship, Box<Denial>> {
        let offers = |by| offers_gas(order.required, facts.quote.offer(), by);
        let by_permit = match offers(Sponsor::Permit) {
            true => self.by_permit(facts).await,
            false => Err(None),
        };
        let by_transaction = match by_permit {
            Err(_) if offers(Sponsor::Transaction) => self.by_transaction(order, facts).await,
            _ => Err(None),
        };
        let reason = match (by_permit, by_transaction) {
            (Ok(sponsorship), _) | (_, Ok(sponsorship)) => return Ok(sponsorship),
            (Err(first), Err(second)) => second.or(first),
        };
        Err(allowance::denial(missing, reason))
    }

    /// Returns a permit of the token, or the reason why there is none.
    async fn by_permit(&self, facts: &Facts<'_>) -> Result<Sponsorship, Option<String>> {
        let (origin, asset) = (facts.request.origin(), facts.quote.asset());
        if !self.inner.policy.sponsors_gas(origin) {
            return Err(Some(advice(
                "a permit (EIP-2612)",
                "gas_sponsoring = true",
                origin.host(),
            )));
        }
        if self.pays_by_contract() {
            return Err(Some(CONTRACT.to_owned()));
        }
        if asset.eip712_name().is_empty() {
            return Err(Some(format!(
                "bursar knows no signing domain of {}, and cannot sign a permit of it",
                asset.symbol()
            )));
        }
        let Some(watch) = &self.inner.chain else {
            return Err(None);
        };
        let read = watch.chain.permit_nonce(asset, facts.payer);
        match in_time(facts, read).await? {
            Ok(nonce) => Ok(Sponsorship::Permit(nonce)),
            Err(reason) => Err(Some(format!(
                "the nonce of a permit cannot be read: {reason}"
            ))),
        }
    }

    /// Returns a transaction for exactly the amount, or the reason why there is none.
    async fn by_transaction(
        &self,
        order: Order<'_>,
        facts: &Facts<'_>,
    ) -> Result<Sponsorship, Option<String>> {
        let origin = facts.request.origin();
        let most = self.inner.policy.sponsored_cost(origin);
        if most == 0 {
            let setting = "sponsored_transactions = \"COST\"";
            let mut advice = advice("a transaction", setting, origin.host());
            advice.push_str("; COST is the highest cost in coins of the network");
            return Err(Some(advice));
        }
        if self.pays_by_contract() {
            return Err(Some(CONTRACT.to_owned()));
        }
        let signer = self.inner.signer.as_ref();
        if !signer.is_some_and(AnySigner::signs_approvals) {
            return Err(Some(
                "the seller sends an approval that the wallet signed, but this signer cannot sign transactions"
                    .to_owned(),
            ));
        }
        // The purchase may have signed one before. It has no end, so there is never a second one.
        if order.terms == Terms::Changed {
            return Err(Some(
                "bursar signs at most one approval for a purchase, and the terms of this one changed"
                    .to_owned(),
            ));
        }
        let Some(watch) = &self.inner.chain else {
            return Err(None);
        };
        let (asset, amount) = (facts.quote.asset(), facts.quote.value());
        let read = watch.chain.prepare_approval(asset, facts.payer, amount);
        let approval = match in_time(facts, read).await? {
            Ok(approval) => approval,
            Err(reason) => {
                return Err(Some(format!(
                    "the transaction that approves Permit2 cannot be prepared: {reason}"
                )));
            }
        };
        let cost = approval.terms().cost();
        if cost > most {
            return Err(Some(format!(
                "the transaction that approves Permit2 could cost {} coins of the network, and `sponsored_transactions` \
                 allows {}",
                format_coins(cost),
                format_coins(most),
            )));
        }
        Ok(Sponsorship::Transaction(Box::new(approval)))
    }

    fn pays_by_contract(&self) -> bool {
        (self.inner.signer.as_ref()).is_some_and(AnySigner::is_contract)
    }

    /// Asks for the signatures of a payment: that of the approval, if there is one, and that of the authorization. Neither
    /// leaves the process if the other one is missing. The signer is asked for nothing if the hold would end before it must have
    /// answered.
    pub(super) async fn signatures(
        &self,
        authorization: &Authorization,
        lease_until: Timestamp,
        sponsorship: Option<Sponsorship>,
        events: &PurchaseEvents,
    ) -> Result<(Signature, Option<Sponsored>), SignerError> {
        let signer = self.inner.signer.as_ref();
        let signer = signer.ok_or_else(|| SignerError::unavailable("the payer has no signer"))?;
        let longest = signer.time_limit();
        let first = sponsorship.as_ref().map_or(Duration::ZERO, |_| longest);
        self.is_held_for(longest.saturating_add(first), lease_until)?;
        let sponsored = match (sponsorship, authorization) {
            (Some(Sponsorship::Permit(nonce)), Authorization::Permit(permit)) => {
                let token = token_permit(permit, nonce);
                let signature = signer.sign_token_permit(&token).await?;
                Some(Sponsored::permit(&token, &signature))
            }
            (Some(Sponsorship::Transaction(approval)), Authorization::Permit(permit)) => {
                let owner = permit.from();
                let signature = signer.sign_approval(&approval, owner).await?;
                let signed = Sponsored::transaction(owner, &approval, &signature);
                let nonce = approval.terms().nonce;
                tracing::info!(wallet = %owner, nonce, amount = %approval.amount(), "signed a transaction that approves Permit2, for the seller to send");
                Some(signed.ok_or_else(|| {
                    SignerError::rejected("the signature of the approval is not one of a key pair")
                })?)
            }
            _ => None,
        };
        self.is_held_for(longest, lease_until)?;
        let signature = signer.sign(authorization).await?;
        let signature = self.accepted(authorization, signature, events).await?;
        Ok((signature, sponsored))
    }

    /// Checks that the hold does not end before the signer must have answered, and the ledger knows whether it did. Another
    /// payment can have the room of a hold that ended, and a signer that does not answer may have signed.
    fn is_held_for(&self, signing: Duration, lease_until: Timestamp) -> Result<(), SignerError> {
        let now = self.now();
        // A signer without a time limit has a hold without an end.
        if lease_until == Timestamp::MAX || lease_until > now.after(signing).after(RECORDING) {
            return Ok(());
        }
        Err(SignerError::unavailable(format!(
            "the ledger holds the amount until {lease_until}, and it is {now}: too late for the signer, which was not asked; \
             send the request again"
        )))
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

/// Adds to the reason of a question that an approval would be signed, too.
pub(super) fn noted(why: String, sponsorship: Option<&Sponsorship>) -> String {
    let by = match sponsorship {
        None => return why,
        Some(Sponsorship::Permit(_)) => "a permit",
        Some(Sponsorship::Transaction(_)) => "a transaction without a deadline",
    };
    format!("{why}; the wallet also signs an approval of Permit2 for this amount, by {by}")
}

const CONTRACT: &str =
    "the seller pays the gas of an approval, but a contract wallet cannot sign one for it";

/// Returns how to allow an approval.
fn advice(by: &str, setting: &str, host: &str) -> String {
    format!(
        "the seller pays the gas of an approval by {by}; to allow it, write `{setting}` in a table `[[host]]` with \
         `match = \"{host}\"`, or in `[global]` for all hosts"
    )
}

/// Waits for an answer of the chain, as long as the call has time.
async fn in_time<T>(facts: &Facts<'_>, read: impl Future<Output = T>) -> Result<T, Option<String>> {
    let limit = facts.request.time_left();
    let limit = limit.map_or(LONGEST_READ, |left| left.min(LONGEST_READ));
    tokio::time::timeout(limit, read)
        .await
        .map_err(|_| Some("the chain did not answer in time".to_owned()))
}
