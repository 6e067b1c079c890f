//! Sums of amounts that cannot overflow.

use std::fmt;

use alloy::primitives::{U256, Uint};

/// No 2^64 amounts of 256 bits fill 320.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum(Uint<320, 5>);

impl Sum {
    pub(super) fn plus(self, other: impl Into<Self>) -> Self {
        Self(self.0.saturating_add(other.into().0))
    }

    /// Less what is in it.
    pub(super) fn minus(self, other: impl Into<Self>) -> Self {
        Self(self.0.saturating_sub(other.into().0))
    }

    pub(super) fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// At most [`U256::MAX`].
    pub(super) fn amount(self) -> U256 {
        U256::saturating_from(self.0)
    }

    /// As it is written, and in no other spelling.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(super) fn parse(text: &str) -> Option<Self> {
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
