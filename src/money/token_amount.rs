//! Exact amounts of a token.

use std::fmt;

use alloy::primitives::U256;

use super::{Asset, Usd};

/// An exact amount of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAmount {
    asset: Asset,
    units: U256,
}

impl TokenAmount {
    /// `units` atomic units of `asset`.
    #[must_use]
    pub const fn from_units(asset: Asset, units: U256) -> Self {
        Self { asset, units }
    }

    /// Whole tokens from a decimal such as `2.5`; `None` when it is not one or is finer than the
    /// token.
    #[must_use]
    pub fn parse(decimal: &str, asset: Asset) -> Option<Self> {
        asset
            .parse_units(decimal)
            .map(|units| Self { asset, units })
    }

    /// The token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Atomic units.
    #[must_use]
    pub const fn units(&self) -> U256 {
        self.units
    }

    /// The worth in dollars, see [`Asset::dollars`].
    #[must_use]
    pub fn dollars(&self) -> Option<Usd> {
        self.asset.dollars(self.units)
    }
}

/// Exact: `0.01 USDC`.
impl fmt::Display for TokenAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{} {}",
            self.asset.format_units(self.units),
            self.asset.symbol()
        ))
    }
}

/// An exact decimal, from atomic units of a token with so many decimals.
pub(crate) fn format_units(units: U256, decimals: u8) -> String {
    let digits = units.to_string();
    let decimals = usize::from(decimals);
    let padded = format!("{digits:0>width$}", width = decimals.saturating_add(1));
    let (whole, fraction) = padded.split_at(padded.len().saturating_sub(decimals));
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}
