//! A chain of make-believe: who was paid what, and which nonces are used.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{Address, B256, U256, keccak256};

use super::payment::Authorization;
use super::typed_data::{Domain, recover};
use bursar::{Asset, Network, Timestamp};

/// A transfer that the paywall's chain has made: the ground truth for tests.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settlement {
    /// Hash of the transaction.
    pub transaction: B256,
    /// The chain it stands for.
    pub network: Network,
    /// The token's contract.
    pub asset: Address,
    /// What was authorized, and has been moved.
    pub authorization: Authorization,
    /// When.
    pub at: Timestamp,
}

/// A nonce that the paywall's chain has made worthless.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Cancellation {
    /// Hash of the transaction.
    pub transaction: B256,
    /// The chain it stands for.
    pub network: Network,
    /// The token's contract.
    pub asset: Address,
    /// Who signed.
    pub authorizer: Address,
    /// What can no more be cashed.
    pub nonce: B256,
    /// When.
    pub at: Timestamp,
}

/// Why the paywall's token refuses a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// Not a signature of the authorizer over this cancellation.
    #[error("invalid signature")]
    InvalidSignature,
    /// The nonce was used, or cancelled before.
    #[error("authorization is used or canceled")]
    UsedOrCanceled,
}

/// A token's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token {
    pub(super) network: Network,
    pub(super) contract: Address,
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
pub(super) struct Chain {
    /// Accounts that are not here have as much as they like to spend.
    pub(super) balances: HashMap<Address, U256>,
    pub(super) settlements: Vec<Settlement>,
    pub(super) cancellations: Vec<Cancellation>,
    used: HashSet<(Token, Address, B256)>,
}

impl Chain {
    /// Whether the token would make the transfer; why not, in the official facilitator's words.
    pub(super) fn simulate(
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
    pub(super) fn settle(
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

    /// Makes a nonce worthless, if its owner signed for that.
    pub(super) fn cancel(
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

    pub(super) fn is_used(&self, token: Token, from: Address, nonce: B256) -> bool {
        self.used.contains(&(token, from, nonce))
    }
}

/// A nonce is used once, so that what identifies it can name its transaction.
fn transaction(token: Token, from: Address, nonce: B256) -> B256 {
    keccak256([token.contract.as_slice(), from.as_slice(), nonce.as_slice()].concat())
}
