//! The approval that Permit2 needs before it can move a token.

use std::fmt;

use alloy::primitives::Address;
use serde::{Serialize, Serializer};
use serde_json::json;

use super::PERMIT2;
use crate::money::{Asset, Network, TokenAmount};

/// An approval that the wallet has not given: Permit2 may not move enough of a token.
///
/// ```no_run
/// # async fn example(client: bursar::Client) {
/// if let Err(error) = client.get("https://api.example.com/report").send().await
///     && let Some(missing) = error.missing_allowance()
/// {
///     println!("{} must approve {} for {}", missing.owner, missing.amount, missing.spender);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingAllowance {
    /// The token.
    pub token: Asset,
    /// The wallet that must approve.
    pub owner: Address,
    /// The contract that must be approved: Permit2.
    pub spender: Address,
    /// The amount that the payment needs.
    pub amount: TokenAmount,
}

fn name(network: Network) -> String {
    let name = network.name();
    name.map_or_else(|| network.to_string(), ToOwned::to_owned)
}

impl MissingAllowance {
    pub(crate) fn of(owner: Address, amount: &TokenAmount) -> Self {
        Self {
            token: amount.asset().clone(),
            owner,
            spender: PERMIT2,
            amount: amount.clone(),
        }
    }
}

/// Names the contract and the amount to approve, and the command.
impl fmt::Display for MissingAllowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token,
            owner,
            spender,
            amount,
        } = self;
        write!(
            f,
            "the wallet {owner} has not approved Permit2 ({spender}) to move {amount} ({} units of the token {} on {}); \
             approve that amount with `bursar wallet approve --network {} --token {} --amount {} --send`",
            amount.units(),
            token.address(),
            token.network(),
            name(token.network()),
            token.symbol(),
            token.format_units(amount.units()),
        )
    }
}

/// Writes the wallet, the network, the contracts, and the amount.
impl Serialize for MissingAllowance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = json!({
            "owner": self.owner.to_string(),
            "network": self.token.network(),
            "asset": self.token.address().to_string(),
            "spender": self.spender.to_string(),
            "amount": self.amount.to_string(),
            "units": self.amount.units().to_string(),
        });
        value.serialize(serializer)
    }
}
