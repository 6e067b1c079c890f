//! A wallet that has too little for a payment.

use std::fmt;

use alloy::primitives::Address;
use serde::{Serialize, Serializer};
use serde_json::json;

use crate::money::{Network, TokenAmount};

/// A wallet that has too little of a token for a payment, by the chain.
///
/// A client with a [chain reader](crate::ClientBuilder::chain) finds out before it signs. The denial of the payment has the
/// rule [`Rule::InsufficientBalance`](crate::policy::Rule::InsufficientBalance).
///
/// ```
/// use bursar::Error;
///
/// fn top_up(error: &Error) {
///     if let Some(shortfall) = error.denial().and_then(|denial| denial.shortfall.as_deref()) {
///         println!("send {} to {} on {}", shortfall.missing(), shortfall.wallet, shortfall.network());
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortfall {
    /// The address of the wallet.
    pub wallet: Address,
    /// The balance in the latest block.
    pub balance: TokenAmount,
    /// The part of the balance that payments of this process need which have no answer yet.
    pub in_flight: TokenAmount,
    /// The amount of the payment.
    pub needed: TokenAmount,
}

impl Shortfall {
    /// Returns the network of the token.
    #[must_use]
    pub fn network(&self) -> Network {
        self.needed.asset().network()
    }

    /// Returns the amount that the wallet lacks for the payment.
    #[must_use]
    pub fn missing(&self) -> TokenAmount {
        let wanted = self.needed.units().saturating_add(self.in_flight.units());
        let missing = wanted.saturating_sub(self.balance.units());
        TokenAmount::from_units(self.needed.asset().clone(), missing)
    }
}

/// Writes one line for people, with the next step.
impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let network = self.network();
        let name = network
            .name()
            .map_or_else(|| network.to_string(), ToOwned::to_owned);
        write!(
            f,
            "the wallet {} has {} on {name}",
            self.wallet, self.balance
        )?;
        if !self.in_flight.units().is_zero() {
            write!(
                f,
                ", {} of it in payments that are in flight",
                self.in_flight
            )?;
        }
        write!(
            f,
            ", and the payment needs {}; nothing was signed; send {} or more to the wallet on {name}",
            self.needed,
            self.missing(),
        )?;
        if network.is_testnet() && self.needed.asset().symbol() == "USDC" {
            f.write_str(" (https://faucet.circle.com gives test USDC)")?;
        }
        Ok(())
    }
}

/// Writes the wallet, the network, the contract of the token, and the amounts as text such as `0.01 USDC`.
impl Serialize for Shortfall {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = json!({
            "wallet": self.wallet.to_string(),
            "network": self.network(),
            "asset": self.needed.asset().address().to_string(),
            "balance": self.balance.to_string(),
            "in_flight": self.in_flight.to_string(),
            "needed": self.needed.to_string(),
            "missing": self.missing().to_string(),
        });
        value.serialize(serializer)
    }
}
