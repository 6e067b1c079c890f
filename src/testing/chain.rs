//! A chain of make-believe: who was paid what, and which nonces are used.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{Address, B256, U256, keccak256};

use super::payment::Authorization;
use crate::{Asset, Network, Timestamp};

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

/// A token's contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Token {
    pub(super) network: Network,
    pub(super) contract: Address,
}

impl From<&Asset> for Token {
    fn from(asset: &Asset) -> Self {
        Self { network: asset.network(), contract: asset.address() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Chain {
    /// Accounts that are not here have as much as they like to spend.
    pub(super) balances: HashMap<Address, U256>,
    pub(super) settlements: Vec<Settlement>,
    used: HashSet<(Token, Address, B256)>,
}

impl Chain {
    /// Whether the token would make the transfer; why not, in the official facilitator's words.
    pub(super) fn simulate(&self, token: Token, transfer: &Authorization) -> Result<(), &'static str> {
        if self.is_used(token, transfer.from, transfer.nonce) {
            return Err("invalid_exact_evm_nonce_already_used");
        }
        if self.balances.get(&transfer.from).is_some_and(|balance| *balance < transfer.value) {
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
            transaction: transaction(token, &transfer),
            network: token.network,
            asset: token.contract,
            authorization: transfer,
            at,
        };
        self.settlements.push(settlement.clone());
        Ok(settlement)
    }

    pub(super) fn is_used(&self, token: Token, from: Address, nonce: B256) -> bool {
        self.used.contains(&(token, from, nonce))
    }
}

/// A transfer happens once, so that what identifies it can name its transaction.
fn transaction(token: Token, transfer: &Authorization) -> B256 {
    keccak256([token.contract.as_slice(), transfer.from.as_slice(), transfer.nonce.as_slice()].concat())
}
