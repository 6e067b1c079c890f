//! Exact amounts of a token.

use std::fmt;

use alloy::primitives::U256;

use super::{Asset, Usd};

/// An exact amount of a token.
///
/// ```
/// use bursar::{Network, TokenAmount, usd};
/// use bursar::money::AssetRegistry;
/// use bursar::primitives::U256;
///
/// let base: Network = "base".parse()?;
/// let usdc = AssetRegistry::stablecoins().find_symbol(base, "USDC").unwrap();
/// let amount = TokenAmount::parse("0.01", usdc.clone()).unwrap();
/// assert_eq!(amount.units(), U256::from(10_000));
/// assert_eq!(amount.dollars(), Some(usd!("0.01")));
/// assert_eq!(amount.to_string(), "0.01 USDC");
/// # Ok::<(), bursar::money::ParseNetworkError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenAmount {
    asset: Asset,
    units: U256,
}

impl TokenAmount {
    /// Creates an amount of `units` atomic units of `asset`.
    #[must_use]
    pub const fn from_units(asset: Asset, units: U256) -> Self {
        Self { asset, units }
    }

    /// Parses a decimal number of whole tokens, such as `2.5`.
    ///
    /// Returns `None` if the text is not a decimal or has more decimals than the token.
    #[must_use]
    pub fn parse(decimal: &str, asset: Asset) -> Option<Self> {
        asset
            .parse_units(decimal)
            .map(|units| Self { asset, units })
    }

    /// Returns the token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Returns the number of atomic units.
    #[must_use]
    pub const fn units(&self) -> U256 {
        self.units
    }

    /// Returns the value in dollars; see [`Asset::dollars`].
    #[must_use]
    pub fn dollars(&self) -> Option<Usd> {
        self.asset.dollars(self.units)
    }
}

/// Writes the exact amount and the symbol: `0.01 USDC`.
impl fmt::Display for TokenAmount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!(
            "{} {}",
            self.asset.format_units(self.units),
            self.asset.symbol()
        ))
    }
}

/// The decimal places of the coin of every EVM network.
const COIN_DECIMALS: u8 = 18;

/// Formats wei as an exact number of whole coins.
pub(crate) fn format_coins(wei: u128) -> String {
    format_units(U256::from(wei), COIN_DECIMALS)
}

/// Parses an exact decimal of whole coins into wei.
#[cfg(feature = "toml")]
pub(crate) fn parse_coins(decimal: &str) -> Option<u128> {
    parse_units(decimal, COIN_DECIMALS)?.try_into().ok()
}

/// Parses an exact decimal with at most `decimals` decimal places into atomic units.
pub(super) fn parse_units(decimal: &str, decimals: u8) -> Option<U256> {
    let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, "0"));
    let decimals = usize::from(decimals);
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let fraction = fraction.trim_end_matches('0');
    if !digits(whole)
        || fraction.len() > decimals
        || !(fraction.is_empty() || digits(fraction))
        || decimal.ends_with('.')
    {
        return None;
    }
    U256::from_str_radix(&format!("{whole}{fraction:0<decimals$}"), 10).ok()
}

/// Formats atomic units as an exact decimal with at most `decimals` decimal places.
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
