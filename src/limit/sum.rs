//! Sums of amounts that cannot overflow.

use std::fmt;

use alloy::primitives::{U256, Uint};

/// A sum of amounts. Fewer than 2^64 amounts of 256 bits always fit into 320 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sum(Uint<320, 5>);

impl Sum {
    /// Returns the sum with `other` added.
    pub(crate) fn plus(self, other: impl Into<Self>) -> Self {
        Self(self.0.saturating_add(other.into().0))
    }

    /// Returns the sum without `other`, which was added before.
    pub(crate) fn minus(self, other: impl Into<Self>) -> Self {
        Self(self.0.saturating_sub(other.into().0))
    }

    /// Returns the sum as an amount, at most [`U256::MAX`].
    pub(crate) fn amount(self) -> U256 {
        U256::saturating_from(self.0)
    }

    /// Reads a sum as `Display` writes it. Other spellings of the same number are refused.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let sum = Uint::from_str_radix(text, 10).ok().map(Self);
        sum.filter(|sum| sum.to_string() == text)
    }
}

impl From<U256> for Sum {
    fn from(amount: U256) -> Self {
        Self(Uint::from(amount))
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
