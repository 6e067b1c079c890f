//! Amounts of money, and the quantities that limits are measured in.

use std::fmt;

use alloy::primitives::U256;
use serde::{Serialize, Serializer};

use crate::money::Usd;
use crate::money::{Asset, TokenAmount};

/// The amount of a limit or of a price: US dollars, or units of one token.
///
/// An amount in dollars measures every token that is pegged to the dollar. An amount in a token measures payments in
/// that token only.
///
/// ```
/// use bursar::usd;
/// use bursar::policy::Amount;
///
/// let limit = Amount::from(usd!("0.05"));
/// assert_eq!(limit.to_string(), "0.05 USD");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Amount {
    /// US dollars.
    Usd(Usd),
    /// Units of a token.
    Token(TokenAmount),
}

impl Amount {
    /// Returns `value` atomic units of `asset` in the unit of this amount, or `None` if this amount does not measure
    /// `asset`.
    pub(crate) fn measure(&self, asset: &Asset, value: U256) -> Option<U256> {
        match self {
            Self::Usd(_) => asset.dollars(value).map(|usd| U256::from(usd.micros())),
            Self::Token(limit) => (limit.asset() == asset).then_some(value),
        }
    }

    /// Returns the amount in its smallest unit: micro-dollars, or atomic units of the token.
    pub(crate) fn units(&self) -> U256 {
        match self {
            Self::Usd(usd) => U256::from(usd.micros()),
            Self::Token(amount) => amount.units(),
        }
    }

    /// Whether both amounts are in dollars, or in the same token.
    pub(crate) fn is_in_unit_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Usd(_), Self::Usd(_)) => true,
            (Self::Token(one), Self::Token(other)) => one.asset() == other.asset(),
            _ => false,
        }
    }

    /// Returns another amount of the same dollars or token.
    pub(crate) fn with_units(&self, units: U256) -> Self {
        match self {
            Self::Usd(_) => Self::Usd(Usd::from_micros(units.try_into().unwrap_or(u64::MAX))),
            Self::Token(amount) => {
                Self::Token(TokenAmount::from_units(amount.asset().clone(), units))
            }
        }
    }
}

impl From<Usd> for Amount {
    fn from(usd: Usd) -> Self {
        Self::Usd(usd)
    }
}

impl From<TokenAmount> for Amount {
    fn from(amount: TokenAmount) -> Self {
        Self::Token(amount)
    }
}

/// Writes `0.05 USD` or `2.5 EURC`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usd(usd) if f.width().is_none() && f.precision().is_none() => {
                write!(f, "{usd} USD")
            }
            Self::Usd(usd) => f.pad(&format!("{usd} USD")),
            Self::Token(amount) => amount.fmt(f),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A quantity that a limit counts: money, or a number of payments.
///
/// ```
/// use bursar::usd;
/// use bursar::policy::Quantity;
///
/// assert_eq!(Quantity::Amount(usd!("1.50").into()).to_string(), "1.50 USD");
/// assert_eq!(Quantity::Payments(3).to_string(), "3 payments");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantity {
    /// Money.
    Amount(Amount),
    /// A number of payments.
    Payments(u64),
}

impl Quantity {
    /// Returns the quantity in its smallest unit.
    pub(super) fn units(&self) -> U256 {
        match self {
            Self::Amount(amount) => amount.units(),
            Self::Payments(count) => U256::from(*count),
        }
    }
}

/// Writes `0.05 USD`, `1 payment` or `3 payments`.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(amount) => amount.fmt(f),
            Self::Payments(1) => f.pad("1 payment"),
            Self::Payments(count) => f.pad(&format!("{count} payments")),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
