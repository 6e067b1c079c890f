//! Tokens: their chain, address, decimals and EIP-712 domain.
//!
//! These facts never come from a seller. bursar only compares a seller's `extra.name` and
//! `extra.version` with them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use alloy::primitives::{Address, B256, U256, b256, keccak256};

use super::token_amount::{format_units, parse_units};
use super::{Network, Usd};

/// `keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")`.
const DOMAIN_TYPEHASH: B256 =
    b256!("8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f");

/// A token on a chain, with the facts that a signature for it needs.
///
/// An `Asset` is cheap to clone.
///
/// ```
/// use bursar::{Asset, Network};
/// use bursar::primitives::{U256, address};
///
/// let base: Network = "base".parse()?;
/// let token = address!("60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42");
/// let eurc = Asset::new(base, token, "EURC", 6, "EURC", "2");
/// assert_eq!(eurc.to_string(), "EURC@eip155:8453");
/// assert_eq!(eurc.format_units(U256::from(1_500_000)), "1.5");
/// assert_eq!(eurc.dollars(U256::from(1_500_000)), None); // it has no dollar value
/// # Ok::<(), bursar::money::ParseNetworkError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Asset(Arc<Token>);

#[derive(PartialEq, Eq, Hash)]
struct Token {
    network: Network,
    address: Address,
    symbol: String,
    decimals: u8,
    name: String,
    version: String,
    peg: Peg,
    transfer: TransferMethod,
    domain_separator: B256,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Peg {
    Dollar,
    None,
}

/// The way in which a signature moves a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TransferMethod {
    /// The token's own `transferWithAuthorization` (EIP-3009).
    Eip3009,
    /// Uniswap's Permit2 contract, which the payer must approve once for each token. A policy must allow it.
    Permit2,
}

impl TransferMethod {
    /// Every method.
    pub const ALL: [Self; 2] = [Self::Eip3009, Self::Permit2];

    /// Returns the name, as sellers and policies write it: `eip3009` or `permit2`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Eip3009 => "eip3009",
            Self::Permit2 => "permit2",
        }
    }
}

impl fmt::Display for TransferMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Asset {
    /// Creates a token that supports EIP-3009.
    ///
    /// `name` and `version` are those of the token's EIP-712 domain. The contract returns them from
    /// `name()` and `version()`, or from `eip712Domain()`. Wrong values make every signature invalid.
    ///
    /// The token has no value in dollars, so a policy must limit it in its own units. Call
    /// [`pegged_to_dollar`](Self::pegged_to_dollar) for a stablecoin in dollars. Register the token
    /// with [`AssetRegistry::with`](crate::money::AssetRegistry::with) or with the policy.
    #[must_use]
    pub fn new(
        network: Network,
        address: Address,
        symbol: impl Into<String>,
        decimals: u8,
        name: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self::build(
            network,
            address,
            symbol.into(),
            decimals,
            (name.into(), version.into()),
            Peg::None,
            TransferMethod::Eip3009,
        )
    }

    /// Returns the unit in which the ledger counts calls with an API key: dollars on no chain.
    pub(crate) fn declared_dollars() -> &'static Self {
        static DOLLARS: OnceLock<Asset> = OnceLock::new();
        DOLLARS.get_or_init(|| {
            Self::new(Network::OFF_CHAIN, Address::ZERO, "USD", 6, "", "").pegged_to_dollar()
        })
    }

    /// Returns the same token with a dollar peg: every limit counts one whole token as one dollar.
    ///
    /// ```
    /// use bursar::{Asset, Network, usd};
    /// use bursar::primitives::{U256, address};
    ///
    /// let token = address!("60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42");
    /// let asset = Asset::new(Network::from_chain_id(1), token, "XUSD", 18, "X Dollar", "1")
    ///     .pegged_to_dollar();
    /// let units = asset.parse_units("2.5").unwrap();
    /// assert_eq!(asset.dollars(units), Some(usd!("2.5")));
    /// ```
    #[must_use]
    pub fn pegged_to_dollar(self) -> Self {
        let token = &*self.0;
        let domain = (token.name.clone(), token.version.clone());
        Self::build(
            token.network,
            token.address,
            token.symbol.clone(),
            token.decimals,
            domain,
            Peg::Dollar,
            token.transfer,
        )
    }

    pub(super) fn build(
        network: Network,
        address: Address,
        symbol: String,
        decimals: u8,
        (name, version): (String, String),
        peg: Peg,
        transfer: TransferMethod,
    ) -> Self {
        let domain_separator = domain_separator(network, address, &name, &version);
        Self(Arc::new(Token {
            network,
            address,
            symbol,
            decimals,
            name,
            version,
            peg,
            transfer,
            domain_separator,
        }))
    }

    /// Returns the chain of the token's contract.
    #[must_use]
    pub fn network(&self) -> Network {
        self.0.network
    }

    /// Returns the address of the token's contract.
    #[must_use]
    pub fn address(&self) -> Address {
        self.0.address
    }

    /// Returns the symbol, such as `USDC`.
    #[must_use]
    pub fn symbol(&self) -> &str {
        &self.0.symbol
    }

    /// Returns the number of decimal places of one whole token.
    #[must_use]
    pub fn decimals(&self) -> u8 {
        self.0.decimals
    }

    /// Returns `name` of the token's EIP-712 domain.
    #[must_use]
    pub fn eip712_name(&self) -> &str {
        &self.0.name
    }

    /// Returns `version` of the token's EIP-712 domain.
    #[must_use]
    pub fn eip712_version(&self) -> &str {
        &self.0.version
    }

    /// Returns the way in which a signature moves the token.
    #[must_use]
    pub fn transfer_method(&self) -> TransferMethod {
        self.0.transfer
    }

    /// Returns the EIP-712 domain separator: the value of the contract's `DOMAIN_SEPARATOR()`.
    #[must_use]
    pub fn domain_separator(&self) -> B256 {
        self.0.domain_separator
    }

    /// Returns the value of `units` atomic units in dollars, rounded up to the next micro-dollar.
    ///
    /// Returns `None` for a token without a dollar peg and for a value above [`Usd::MAX`].
    #[must_use]
    pub fn dollars(&self, units: U256) -> Option<Usd> {
        if self.0.peg == Peg::None {
            return None;
        }
        pegged_dollars(units, self.0.decimals)
    }

    /// Formats atomic units as an exact decimal such as `0.01`.
    #[must_use]
    pub fn format_units(&self, units: U256) -> String {
        format_units(units, self.0.decimals)
    }

    /// Parses an exact decimal such as `0.01` into atomic units.
    ///
    /// Returns `None` if the text is not a decimal or has more decimals than the token.
    #[must_use]
    pub fn parse_units(&self, decimal: &str) -> Option<U256> {
        parse_units(decimal, self.0.decimals)
    }
}

/// Returns the value of atomic units of a token with a dollar peg, as [`Asset::dollars`].
pub(crate) fn pegged_dollars(units: U256, decimals: u8) -> Option<Usd> {
    let micros = match decimals {
        6 => units,
        fine @ 7.. => units
            .checked_add(ten_to(fine.checked_sub(6)?)?.checked_sub(U256::from(1))?)?
            .checked_div(ten_to(fine.checked_sub(6)?)?)?,
        coarse => units.checked_mul(ten_to(6_u8.checked_sub(coarse)?)?)?,
    };
    let micros: u64 = micros.try_into().ok()?;
    (micros <= Usd::MAX.micros()).then(|| Usd::from_micros(micros))
}

fn ten_to(exponent: u8) -> Option<U256> {
    U256::from(10).checked_pow(U256::from(exponent))
}

/// Writes the symbol and the chain: `USDC@eip155:8453`.
impl fmt::Display for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.0.symbol, self.0.network)
    }
}

impl fmt::Debug for Asset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asset({self}, {})", self.0.address)
    }
}

/// Returns the hash of an EIP-712 domain with name, version, chain id and verifying contract.
fn domain_separator(network: Network, contract: Address, name: &str, version: &str) -> B256 {
    let words = [
        DOMAIN_TYPEHASH,
        keccak256(name),
        keccak256(version),
        U256::from(network.chain_id()).into(),
        contract.into_word(),
    ];
    keccak256(concat_words(words))
}

/// Returns the bytes of consecutive 32-byte words, as `abi.encode` lays out static values.
pub(crate) fn concat_words<const N: usize>(words: [B256; N]) -> Vec<u8> {
    words.iter().flat_map(|word| word.0).collect()
}

#[cfg(test)]
mod tests {
    use super::super::AssetRegistry;
    use super::*;

    fn token(decimals: u8) -> Asset {
        Asset::new(
            Network::from_chain_id(1),
            Address::ZERO,
            "T",
            decimals,
            "T",
            "1",
        )
        .pegged_to_dollar()
    }

    #[test]
    fn base_usdc_has_the_domain_separator_of_the_chain() {
        let base = Network::from_chain_id(8453);
        let usdc = AssetRegistry::stablecoins()
            .find_symbol(base, "usdc")
            .unwrap();
        assert_eq!(
            usdc.domain_separator(),
            b256!("02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f")
        );
    }

    #[test]
    fn units_and_decimals_are_exact() {
        let six = token(6);
        for (decimal, units) in [
            ("0.01", 10_000_u64),
            ("1", 1_000_000),
            ("0.000001", 1),
            ("1.50", 1_500_000),
        ] {
            assert_eq!(
                six.parse_units(decimal),
                Some(U256::from(units)),
                "{decimal}"
            );
        }
        for bad in ["", ".5", "1.", "0.0000001", "-1", "1e3", "1.2.3", " 1"] {
            assert_eq!(six.parse_units(bad), None, "{bad}");
        }
        assert_eq!(six.format_units(U256::from(10_000)), "0.01");
        assert_eq!(token(0).format_units(U256::from(7)), "7");
        assert_eq!(
            token(18).format_units(U256::from(1)),
            "0.000000000000000001"
        );
    }

    #[test]
    fn dollars_round_up_and_never_wrap() {
        assert_eq!(token(18).dollars(U256::from(1)), Some(Usd::from_micros(1)));
        assert_eq!(
            token(2).dollars(U256::from(150)),
            Some(Usd::from_micros(1_500_000))
        );
        assert_eq!(token(6).dollars(U256::MAX), None);
        assert_eq!(token(0).dollars(U256::MAX), None);
        let euro = Asset::new(
            Network::from_chain_id(1),
            Address::ZERO,
            "EURC",
            6,
            "EURC",
            "2",
        );
        assert_eq!(euro.dollars(U256::from(1)), None);
    }
}
