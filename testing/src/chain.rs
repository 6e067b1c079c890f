//! The simulated chain: transfers, balances and used nonces.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::payment::Authorization;
use crate::typed_data::{Domain, recover};
use bursar::{Asset, Network, Timestamp};

/// A transfer that the simulated chain has made.
///
/// Compare receipts with it: [`Paywall::settlements`](crate::Paywall::settlements) is the truth about the money.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// The hash of the transaction.
    pub transaction: B256,
    /// The network.
    pub network: Network,
    /// The contract of the token.
    pub asset: Address,
    /// The authorization that was settled.
    pub authorization: Authorization,
    /// The time, by the paywall's clock.
    pub at: Timestamp,
}

/// A cancellation that the simulated chain has accepted. The nonce can no longer be used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancellation {
    /// The hash of the transaction.
    pub transaction: B256,
    /// The network.
    pub network: Network,
    /// The contract of the token.
    pub asset: Address,
    /// The payer, who signed the cancellation.
    pub authorizer: Address,
    /// The nonce that is canceled.
    pub nonce: B256,
    /// The time, by the paywall's clock.
    pub at: Timestamp,
}

/// The reason why the simulated token refuses a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// The authorizer did not sign this cancellation.
    #[error("invalid signature")]
    InvalidSignature,
    /// The nonce is already used or canceled.
    #[error("authorization is used or canceled")]
    UsedOrCanceled,
}

/// The contract of a token on a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Token {
    pub(crate) network: Network,
    pub(crate) contract: Address,
}

impl From<&Asset> for Token {
    fn from(asset: &Asset) -> Self {
        Self {
            network: asset.network(),
            contract: asset.address(),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Chain {
    /// The balances. An account without an element has unlimited funds.
    pub(crate) balances: HashMap<Address, U256>,
    pub(crate) settlements: Vec<Settlement>,
    pub(crate) cancellations: Vec<Cancellation>,
    used: HashSet<(Token, Address, B256)>,
}

impl Chain {
    /// Checks whether the token would make the transfer. The error is a code of the official facilitator.
    pub(crate) fn simulate(
        &self,
        token: Token,
        transfer: &Authorization,
    ) -> Result<(), &'static str> {
        if self.is_used(token, transfer.from, transfer.nonce) {
            return Err("invalid_exact_evm_nonce_already_used");
        }
        if self
            .balances
            .get(&transfer.from)
            .is_some_and(|balance| *balance < transfer.value)
        {
            return Err("invalid_exact_evm_insufficient_balance");
        }
        Ok(())
    }

    /// Makes the transfer.
    pub(crate) fn settle(
        &mut self,
        token: Token,
        transfer: Authorization,
        at: Timestamp,
    ) -> Result<Settlement, &'static str> {
        self.simulate(token, &transfer)?;
        self.used.insert((token, transfer.from, transfer.nonce));
        if let Some(balance) = self.balances.get_mut(&transfer.from) {
            *balance = balance.saturating_sub(transfer.value);
        }
        if let Some(balance) = self.balances.get_mut(&transfer.to) {
            *balance = balance.saturating_add(transfer.value);
        }
        let settlement = Settlement {
            transaction: transaction(token, transfer.from, transfer.nonce),
            network: token.network,
            asset: token.contract,
            authorization: transfer,
            at,
        };
        self.settlements.push(settlement.clone());
        Ok(settlement)
    }

    /// Cancels a nonce, if its owner signed the cancellation.
    pub(crate) fn cancel(
        &mut self,
        domain: &Domain<'_>,
        (authorizer, nonce): (Address, B256),
        signature: &[u8; 65],
        at: Timestamp,
    ) -> Result<Cancellation, CancelError> {
        if recover(domain.cancellation(authorizer, nonce), signature) != Some(authorizer) {
            return Err(CancelError::InvalidSignature);
        }
        let token = Token {
            network: Network::from_chain_id(domain.chain_id),
            contract: domain.contract,
        };
        if !self.used.insert((token, authorizer, nonce)) {
            return Err(CancelError::UsedOrCanceled);
        }
        let transaction = transaction(token, authorizer, nonce);
        let cancellation = Cancellation {
            transaction,
            network: token.network,
            asset: token.contract,
            authorizer,
            nonce,
            at,
        };
        self.cancellations.push(cancellation.clone());
        Ok(cancellation)
    }

    pub(crate) fn is_used(&self, token: Token, from: Address, nonce: B256) -> bool {
        self.used.contains(&(token, from, nonce))
    }
}

/// Returns the hash of the transaction that uses a nonce. A nonce is used once, so the hash is unique.
fn transaction(token: Token, from: Address, nonce: B256) -> B256 {
    keccak256([token.contract.as_slice(), from.as_slice(), nonce.as_slice()].concat())
}
