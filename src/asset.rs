//! Tokens that may be paid with: chain, address, decimals and EIP-712 domain.
//!
//! What is known here is never taken from the wire. A seller's `extra.name` and `extra.version`
//! are only compared with it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use alloy::primitives::{Address, B256, U256, address, b256, keccak256};

use crate::{Network, Usd};

/// `keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")`.
const DOMAIN_TYPEHASH: B256 =
    b256!("8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f");

/// A token on a chain, with all that signing for it needs. Cheap to clone.
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
enum Peg {
    Dollar,
    None,
}

/// How a token can be moved by signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransferMethod {
    /// The token's own `transferWithAuthorization` (EIP-3009).
    Eip3009,
    /// Uniswap's Permit2 contract. Known, not yet payable.
    Permit2,
}

impl Asset {
    /// A token with EIP-3009 that the registry does not know.
    ///
    /// `name` and `version` are those of its EIP-712 domain, as `name()` and `version()` (or
    /// `eip712Domain()`) of the contract answer. It has no dollar value unless
    /// [`pegged_to_dollar`](Self::pegged_to_dollar) says so; without one, a policy must limit it
    /// in its own units.
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

    /// Dollars that no chain moves: what a call by a key is declared to cost.
    pub(crate) fn declared_dollars() -> &'static Self {
        static DOLLARS: OnceLock<Asset> = OnceLock::new();
        DOLLARS.get_or_init(|| {
            Self::new(Network::OFF_CHAIN, Address::ZERO, "USD", 6, "", "").pegged_to_dollar()
        })
    }

    /// The same token, one whole unit of it counted as one dollar by every limit.
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

    fn build(
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

    /// The chain the token lives on.
    #[must_use]
    pub fn network(&self) -> Network {
        self.0.network
    }

    /// The token's contract.
    #[must_use]
    pub fn address(&self) -> Address {
        self.0.address
    }

    /// The ticker, such as `USDC`.
    #[must_use]
    pub fn symbol(&self) -> &str {
        &self.0.symbol
    }

    /// Decimal places of one whole token.
    #[must_use]
    pub fn decimals(&self) -> u8 {
        self.0.decimals
    }

    /// `name` of the token's EIP-712 domain.
    #[must_use]
    pub fn eip712_name(&self) -> &str {
        &self.0.name
    }

    /// `version` of the token's EIP-712 domain.
    #[must_use]
    pub fn eip712_version(&self) -> &str {
        &self.0.version
    }

    /// How the token is moved by signature.
    #[must_use]
    pub fn transfer_method(&self) -> TransferMethod {
        self.0.transfer
    }

    /// The EIP-712 domain separator, as the contract's `DOMAIN_SEPARATOR()` answers.
    #[must_use]
    pub fn domain_separator(&self) -> B256 {
        self.0.domain_separator
    }

    /// What `units` are worth in dollars, rounded up to the micro-dollar; `None` for a token
    /// without a dollar peg, and above [`Usd::MAX`].
    #[must_use]
    pub fn dollars(&self, units: U256) -> Option<Usd> {
        if self.0.peg == Peg::None {
            return None;
        }
        let micros = match self.0.decimals {
            6 => units,
            fine @ 7.. => units
                .checked_add(ten_to(fine.checked_sub(6)?)?.checked_sub(U256::from(1))?)?
                .checked_div(ten_to(fine.checked_sub(6)?)?)?,
            coarse => units.checked_mul(ten_to(6_u8.checked_sub(coarse)?)?)?,
        };
        let micros: u64 = micros.try_into().ok()?;
        (micros <= Usd::MAX.micros()).then(|| Usd::from_micros(micros))
    }

    /// An exact decimal such as `0.01`, from atomic units.
    #[must_use]
    pub fn format_units(&self, units: U256) -> String {
        format_units(units, self.0.decimals)
    }

    /// Atomic units from an exact decimal such as `0.01`; `None` when it is not one, or is finer
    /// than the token.
    #[must_use]
    pub fn parse_units(&self, decimal: &str) -> Option<U256> {
        let (whole, fraction) = decimal.split_once('.').unwrap_or((decimal, "0"));
        let decimals = usize::from(self.0.decimals);
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
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

fn ten_to(exponent: u8) -> Option<U256> {
    U256::from(10).checked_pow(U256::from(exponent))
}

/// `USDC@eip155:8453`.
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

/// Hash of an EIP-712 domain with name, version, chain id and verifying contract.
pub(crate) fn domain_separator(
    network: Network,
    contract: Address,
    name: &str,
    version: &str,
) -> B256 {
    let words = [
        DOMAIN_TYPEHASH,
        keccak256(name),
        keccak256(version),
        U256::from(network.chain_id()).into(),
        contract.into_word(),
    ];
    keccak256(words.as_flattened_bytes())
}

/// The bytes of consecutive 32-byte words, as `abi.encode` lays out static values.
pub(crate) trait Words {
    fn as_flattened_bytes(&self) -> Vec<u8>;
}

impl<const N: usize> Words for [B256; N] {
    fn as_flattened_bytes(&self) -> Vec<u8> {
        self.iter().flat_map(|word| word.0).collect()
    }
}

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

/// The tokens a client may sign for.
#[derive(Clone, Debug)]
pub struct AssetRegistry(HashMap<(Network, Address), Asset>);

impl AssetRegistry {
    /// The stablecoins that the official x402 SDKs ship (`DEFAULT_ASSETS` of `@x402/evm` 2.27.0,
    /// the additions of the Python SDK 2.25.0 and the USDC table of x402 v1 1.2.0).
    #[must_use]
    pub fn stablecoins() -> &'static Self {
        static BUILT_IN: OnceLock<AssetRegistry> = OnceLock::new();
        BUILT_IN.get_or_init(|| {
            Self(
                STABLECOINS
                    .iter()
                    .map(Row::asset)
                    .map(|asset| ((asset.network(), asset.address()), asset))
                    .collect(),
            )
        })
    }

    /// Adds a token, or replaces what is known of it.
    #[must_use]
    pub fn with(mut self, asset: Asset) -> Self {
        self.0.insert((asset.network(), asset.address()), asset);
        self
    }

    /// The token at this address of this chain.
    #[must_use]
    pub fn find(&self, network: Network, address: Address) -> Option<&Asset> {
        self.0.get(&(network, address))
    }

    /// The token with this symbol on this chain, in any case; `None` also when several share it.
    #[must_use]
    pub fn find_symbol(&self, network: Network, symbol: &str) -> Option<&Asset> {
        let mut found = self.0.values().filter(|asset| {
            asset.network() == network && asset.symbol().eq_ignore_ascii_case(symbol)
        });
        found.next().filter(|_| found.next().is_none())
    }

    /// All tokens, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Asset> {
        self.0.values()
    }
}

struct Row(
    u64,
    Address,
    &'static str,
    u8,
    &'static str,
    &'static str,
    TransferMethod,
);

impl Row {
    fn asset(&self) -> Asset {
        let domain = (self.4.to_owned(), self.5.to_owned());
        Asset::build(
            Network::from_chain_id(self.0),
            self.1,
            self.2.to_owned(),
            self.3,
            domain,
            Peg::Dollar,
            self.6,
        )
    }
}

#[rustfmt::skip]
const STABLECOINS: &[Row] = &[
    Row(8453, address!("833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(84_532, address!("036CbD53842c5426634e7929541eC2318f3dCF7e"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(1, address!("A0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(43_114, address!("B97EF9Ef8734C71904D8002F8b6Bc66Dd9c48a6E"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(4326, address!("FAfDdbb3FC7688494971a79cc65DCa3EF82079E7"), "MegaUSD", 18, "MegaUSD", "1", TransferMethod::Permit2),
    Row(143, address!("754704Bc059F8C67012fEd69BC8A327a5aafb603"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(988, address!("779Ded0c9e1022225f8E0630b35a9b54bE713736"), "USDT0", 6, "USDT0", "1", TransferMethod::Eip3009),
    Row(2201, address!("78Cf24370174180738C5B8E352B6D14c83a6c9A9"), "USDT0", 6, "USDT0", "1", TransferMethod::Eip3009),
    Row(137, address!("3c499c542cEF5E3811e1192ce70d8cC03d5c3359"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(42_161, address!("af88d065e77c8cC2239327C5EDb3A432268e5831"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(421_614, address!("75faf114eafb1BDbe2F0316DF893fd58CE46AA4d"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(31_612, address!("dD468A1DDc392dcdbEf6db6e34E89AA338F9F186"), "mUSD", 18, "Mezo USD", "1", TransferMethod::Permit2),
    Row(31_611, address!("118917a40FAF1CD7a13dB0Ef56C86De7973Ac503"), "mUSD", 18, "Mezo USD", "1", TransferMethod::Permit2),
    Row(723_487, address!("33ad9e4BD16B69B5BFdED37D8B5D9fF9aba014Fb"), "SBC", 6, "Stable Coin", "1", TransferMethod::Permit2),
    Row(72_344, address!("33ad9e4BD16B69B5BFdED37D8B5D9fF9aba014Fb"), "SBC", 6, "Stable Coin", "1", TransferMethod::Permit2),
    Row(36_900, address!("9cb8142aEBBcdc60AF7c97Af897A67A8f3CA71C2"), "USDC.e", 6, "USDC.e", "2", TransferMethod::Eip3009),
    Row(190_415, address!("401eCb1D350407f13ba348573E5630B83638E30D"), "USDC.e", 6, "Bridged USDC", "2", TransferMethod::Eip3009),
    Row(181_228, address!("401eCb1D350407f13ba348573E5630B83638E30D"), "USDC.e", 6, "Bridged USDC", "2", TransferMethod::Eip3009),
    Row(50, address!("fA2958CB79b0491CC627c1557F441eF849Ca8eb1"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(51, address!("b5AB69F7bBada22B28e79C8FFAECe55eF1c771D4"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(38_833, address!("A5b8BF902b2844dA17d4506cc827F7F1681735E7"), "USDC", 6, "USDC", "1", TransferMethod::Permit2),
    Row(14, address!("e7cd86e13AC4309349F30B3435a9d337750fC82D"), "USDT0", 6, "USD₮0", "1", TransferMethod::Eip3009),
    Row(42_220, address!("cebA9300f2b948710d2653dD7B07f33A8B32118C"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(42_220, address!("48065fbBE25f71C9282ddf5e1cD6D6A887483D5e"), "USDT", 6, "Tether USD", "1", TransferMethod::Eip3009),
    Row(42_220, address!("D2ab3C9A02DBBAB236BfEC45D1d755DF4267F771"), "USAT", 6, "Tether America USD", "1", TransferMethod::Eip3009),
    Row(11_142_220, address!("01C5C0122039549AD1493B8220cABEdD739BC44E"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(1329, address!("e15fC38F6D8c56aF07bbCBe3BAf5708A2Bf42392"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(1328, address!("4fCF1784B31630811181f670Aea7A7bEF803eaED"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(10_143, address!("534b2f3A21130d7a60830c2Df862319e593943A3"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(5042, address!("3600000000000000000000000000000000000000"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(5_042_002, address!("3600000000000000000000000000000000000000"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(43_113, address!("5425890298aed601595a70AB815c96711a31Bc65"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(80_002, address!("41E94Eb019C0762f9Bfcf9Fb1E58725BfB0e7582"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(4689, address!("cdf79194c6c285077a58da47641d4dbe51f63542"), "USDC", 6, "Bridged USDC", "2", TransferMethod::Eip3009),
    Row(3338, address!("bbA60da06c2c5424f03f7434542280FCAd453d10"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(2741, address!("84a71ccd554cc1b02749b35d22f684cc8ec987e1"), "USDC", 6, "Bridged USDC", "2", TransferMethod::Eip3009),
    Row(11_124, address!("e4C7fBB0a626ed208021ccabA6Be1566905E2dFc"), "USDC", 6, "Bridged USDC", "2", TransferMethod::Eip3009),
    Row(1514, address!("F1815bd50389c46847f0Bda824eC8da914045D14"), "USDC", 6, "Bridged USDC", "2", TransferMethod::Eip3009),
    Row(41_923, address!("12a272A581feE5577A5dFa371afEB4b2F3a8C2F8"), "USDC", 6, "Bridged USDC (Stargate)", "2", TransferMethod::Eip3009),
    Row(324_705_682, address!("2e08028E3C4c2356572E096d8EF835cD5C6030bD"), "USDC", 6, "Bridged USDC (SKALE Bridge)", "2", TransferMethod::Eip3009),
];

#[cfg(test)]
mod tests {
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
