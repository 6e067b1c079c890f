//! The simulated chain: transfers, balances and used nonces.

use std::collections::{HashMap, HashSet};

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::payment::{Authorization, Signed};
use crate::permit::{PERMIT2, Permit};
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
    /// The transfer that was made. By EIP-3009, this is the authorization as the buyer signed it.
    ///
    /// Through Permit2, `value` is the amount that moved, which can be less than the ceiling of an `upto` payment.
    /// `valid_before` is the deadline, and `nonce` is the nonce of the permit in big-endian bytes.
    pub authorization: Authorization,
    /// The permit as the buyer signed it, if the payment was settled through Permit2. Its `amount` is the ceiling.
    pub permit: Option<Permit>,
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

/// A nonce of Permit2 that its owner has invalidated without a payment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Invalidation {
    pub(crate) network: Network,
    pub(crate) owner: Address,
    pub(crate) nonce: U256,
    pub(crate) at: Timestamp,
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

/// The code of the official facilitator for an allowance of Permit2 that is too small. Sellers answer it with 412.
pub(crate) const ALLOWANCE_REQUIRED: &str = "permit2_allowance_required";

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
    pub(crate) invalidations: Vec<Invalidation>,
    /// The calldata of settlements through Permit2, by transaction.
    pub(crate) calldata: HashMap<B256, Vec<u8>>,
    used: HashSet<(Token, Address, B256)>,
    /// The used nonces of Permit2. All tokens and spenders share them.
    used_permits: HashSet<(Network, Address, U256)>,
    /// The allowances of Permit2 over every token of an account.
    pub(crate) allowances: HashMap<Address, U256>,
    /// The allowances of Permit2 over one token of an account. They replace those over every token.
    pub(crate) token_allowances: HashMap<(Token, Address), U256>,
    /// The approvals that accounts sent through a node, by transaction.
    pub(crate) approvals: HashMap<B256, Network>,
    /// The number of permits of EIP-2612 that accounts used.
    pub(crate) token_permits: HashMap<(Token, Address), u64>,
    /// The number of transactions that accounts sent through a node.
    pub(crate) sent: HashMap<(Network, Address), u64>,
}

impl Chain {
    /// Checks whether the chain would transfer this amount. The error is a code of the official facilitator.
    pub(crate) fn simulate(
        &self,
        token: Token,
        signed: &Signed,
        amount: U256,
    ) -> Result<(), &'static str> {
        let balance = self.balances.get(&signed.payer());
        let poor = balance.is_some_and(|balance| *balance < amount);
        match signed {
            Signed::Transfer(transfer) if self.is_used(token, transfer.from, transfer.nonce) => {
                Err("invalid_exact_evm_nonce_already_used")
            }
            Signed::Transfer(_) if poor => Err("invalid_exact_evm_insufficient_balance"),
            Signed::Transfer(_) => Ok(()),
            // The facilitator looks for a reason only after the simulation failed, in this order.
            Signed::Permit(..) if poor => Err("permit2_insufficient_balance"),
            Signed::Permit(permit, _) if self.allowance(token, permit.from) < amount => {
                Err(ALLOWANCE_REQUIRED)
            }
            Signed::Permit(permit, _)
                if self.is_permit_used(token.network, permit.from, permit.nonce)
                    || permit.amount < amount =>
            {
                Err("permit2_simulation_failed")
            }
            Signed::Permit(..) => Ok(()),
        }
    }

    /// Transfers this amount. EIP-3009 always transfers the signed amount.
    pub(crate) fn settle(
        &mut self,
        token: Token,
        signed: &Signed,
        amount: U256,
        at: Timestamp,
    ) -> Result<Settlement, &'static str> {
        self.simulate(token, signed, amount)?;
        let (transfer, permit, transaction) = match signed {
            Signed::Transfer(transfer) => {
                self.used.insert((token, transfer.from, transfer.nonce));
                let transaction = transaction(token.contract, transfer.from, transfer.nonce);
                (*transfer, None, transaction)
            }
            Signed::Permit(permit, signature) => {
                let allowance = self.allowance(token, permit.from);
                // As many tokens do, this one does not count down an allowance without limit.
                if allowance < U256::MAX {
                    let left = allowance.saturating_sub(amount);
                    self.token_allowances.insert((token, permit.from), left);
                }
                let nonce = (token.network, permit.from, permit.nonce);
                self.used_permits.insert(nonce);
                let transfer = permit.transfer(amount);
                let transaction = transaction(PERMIT2, permit.from, transfer.nonce);
                let calldata = permit.calldata(amount, signature);
                self.calldata.insert(transaction, calldata);
                (transfer, Some(*permit), transaction)
            }
        };
        if let Some(balance) = self.balances.get_mut(&transfer.from) {
            *balance = balance.saturating_sub(transfer.value);
        }
        if let Some(balance) = self.balances.get_mut(&transfer.to) {
            *balance = balance.saturating_add(transfer.value);
        }
        let settlement = Settlement {
            transaction,
            network: token.network,
            asset: token.contract,
            authorization: transfer,
            permit,
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
        let transaction = transaction(token.contract, authorizer, nonce);
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

    pub(crate) fn is_permit_used(&self, network: Network, owner: Address, nonce: U256) -> bool {
        self.used_permits.contains(&(network, owner, nonce))
    }

    /// Uses a nonce of Permit2 without a payment.
    pub(crate) fn invalidate(
        &mut self,
        network: Network,
        owner: Address,
        nonce: U256,
        at: Timestamp,
    ) {
        if self.used_permits.insert((network, owner, nonce)) {
            self.invalidations.push(Invalidation {
                network,
                owner,
                nonce,
                at,
            });
        }
    }

    /// Returns the allowance of Permit2 over a token of an account.
    pub(crate) fn allowance(&self, token: Token, owner: Address) -> U256 {
        let of_token = self.token_allowances.get(&(token, owner));
        let of_all = || self.allowances.get(&owner);
        of_token.or_else(of_all).copied().unwrap_or(U256::MAX)
    }
}

/// Returns the hash of the transaction that uses a nonce. A nonce is used once, so the hash is unique.
pub(crate) fn transaction(contract: Address, from: Address, nonce: B256) -> B256 {
    keccak256([contract.as_slice(), from.as_slice(), nonce.as_slice()].concat())
}
