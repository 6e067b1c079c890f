//! EVM chains, as CAIP-2 identifiers and as the names of x402 version 1.

use std::fmt;
use std::str::FromStr;

use crate::text::{closest, excerpt};

/// An EVM chain, identified by its chain id.
///
/// Parse it from CAIP-2 (`eip155:8453`) or from a name of x402 version 1 (`base`). `Display` writes
/// CAIP-2.
///
/// ```
/// use bursar::Network;
///
/// let base: Network = "base".parse()?;
/// assert_eq!(base.to_string(), "eip155:8453");
/// assert_eq!(base, "eip155:8453".parse()?);
/// assert!("eip155:0x2105".parse::<Network>().is_err());
/// # Ok::<(), bursar::money::ParseNetworkError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Network(u64);

/// Chain id, name, and whether the chain's money is real.
///
/// The names are those of x402 version 1 (`EVM_NETWORK_CHAIN_ID_MAP` of `@x402/evm` 2.27.0), and of
/// facilitators for chains that have no name there. bursar never sends its own name to a seller.
const KNOWN: &[(u64, &str, Money)] = &[
    (1, "ethereum", Money::Real),
    (11_155_111, "sepolia", Money::Test),
    (2741, "abstract", Money::Real),
    (11_124, "abstract-testnet", Money::Test),
    (8453, "base", Money::Real),
    (84_532, "base-sepolia", Money::Test),
    (43_114, "avalanche", Money::Real),
    (43_113, "avalanche-fuji", Money::Test),
    (4689, "iotex", Money::Real),
    (1329, "sei", Money::Real),
    (1328, "sei-testnet", Money::Test),
    (137, "polygon", Money::Real),
    (80_002, "polygon-amoy", Money::Test),
    (3338, "peaq", Money::Real),
    (1514, "story", Money::Real),
    (41_923, "educhain", Money::Real),
    (324_705_682, "skale-base-sepolia", Money::Test),
    (4326, "megaeth", Money::Real),
    (143, "monad", Money::Real),
    (10_143, "monad-testnet", Money::Test),
    (988, "stable", Money::Real),
    (2201, "stable-testnet", Money::Test),
    (42_220, "celo", Money::Real),
    (11_142_220, "celo-sepolia", Money::Test),
    (14, "flare", Money::Real),
    (42_161, "arbitrum", Money::Real),
    (421_614, "arbitrum-sepolia", Money::Test),
    (31_612, "mezo", Money::Real),
    (31_611, "mezo-testnet", Money::Test),
    (723_487, "radius", Money::Real),
    (72_344, "radius-testnet", Money::Test),
    (36_900, "adi", Money::Real),
    (190_415, "hpp", Money::Real),
    (181_228, "hpp-sepolia", Money::Test),
    (50, "xdc", Money::Real),
    (51, "xdc-apothem", Money::Test),
    (38_833, "igra", Money::Real),
    (5042, "arc", Money::Real),
    (5_042_002, "arc-testnet", Money::Test),
    (480, "world", Money::Real),
    (4801, "world-sepolia", Money::Test),
    (10, "optimism", Money::Real),
    (11_155_420, "optimism-sepolia", Money::Test),
    (130, "unichain", Money::Real),
    (1301, "unichain-sepolia", Money::Test),
    (59_144, "linea", Money::Real),
    (59_141, "linea-sepolia", Money::Test),
    (146, "sonic", Money::Real),
    (57_073, "ink", Money::Real),
    (763_373, "ink-sepolia", Money::Test),
    (999, "hyperevm", Money::Real),
    (998, "hyperevm-testnet", Money::Test),
];

/// Other names in use for the same chains. bursar reads them and writes none of them.
const ALIASES: &[(&str, u64)] = &[
    ("world-chain", 480),
    ("worldchain", 480),
    ("world-chain-sepolia", 4801),
    ("worldchain-sepolia", 4801),
    ("op", 10),
    ("op-mainnet", 10),
    ("optimism-mainnet", 10),
    ("op-sepolia", 11_155_420),
    ("ethereum-mainnet", 1),
    ("ethereum-sepolia", 11_155_111),
    ("base-mainnet", 8453),
    ("polygon-mainnet", 137),
    ("arbitrum-one", 42_161),
    ("avalanche-mainnet", 43_114),
    ("unichain-mainnet", 130),
    ("linea-mainnet", 59_144),
];

const NO_CHAIN: &str = "off-chain";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Money {
    Real,
    Test,
}

impl Network {
    /// The network of a purchase that no chain settled. It occurs in the ledger only.
    pub(crate) const OFF_CHAIN: Self = Self(0);

    /// Reads a network from the ledger, including [`OFF_CHAIN`](Self::OFF_CHAIN).
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn from_ledger(text: &str) -> Option<Self> {
        if text == NO_CHAIN {
            Some(Self::OFF_CHAIN)
        } else {
            text.parse().ok()
        }
    }

    /// Returns the chain with this EIP-155 id.
    #[must_use]
    pub const fn from_chain_id(id: u64) -> Self {
        Self(id)
    }

    /// Returns the EIP-155 chain id.
    #[must_use]
    pub const fn chain_id(self) -> u64 {
        self.0
    }

    /// Returns the short name, such as `base`, if the chain has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        KNOWN
            .iter()
            .find(|known| known.0 == self.0)
            .map(|known| known.1)
    }

    /// Returns the chains that have a short name. `bursar networks` prints them with their tokens.
    ///
    /// ```
    /// use bursar::Network;
    ///
    /// assert!(Network::known().any(|network| network.name() == Some("base")));
    /// ```
    pub fn known() -> impl Iterator<Item = Self> {
        KNOWN.iter().map(|known| Self(known.0))
    }

    /// Returns the chain with this name in lower case.
    fn from_name(name: &str) -> Option<Self> {
        let known = KNOWN.iter().map(|known| (known.1, known.0));
        let mut names = known.chain(ALIASES.iter().copied());
        names
            .find(|known| known.0 == name)
            .map(|known| Self(known.1))
    }

    /// Returns whether the chain is a known test network.
    ///
    /// bursar treats an unknown chain as one with real money.
    #[must_use]
    pub fn is_testnet(self) -> bool {
        KNOWN
            .iter()
            .any(|known| known.0 == self.0 && known.2 == Money::Test)
    }

    /// Parses a canonical CAIP-2 identifier: `eip155:` and a decimal without leading zeros.
    fn from_caip2(text: &str) -> Option<Self> {
        let reference = text.strip_prefix("eip155:")?;
        let canonical = reference.bytes().all(|byte| byte.is_ascii_digit())
            && !reference.starts_with('0')
            && !reference.is_empty();
        canonical
            .then(|| reference.parse().ok().map(Self))
            .flatten()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::OFF_CHAIN {
            f.pad(NO_CHAIN)
        } else {
            f.pad(&format!("eip155:{}", self.0))
        }
    }
}

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, ParseNetworkError> {
        Self::from_caip2(text)
            .or_else(|| Self::from_name(text))
            .ok_or_else(|| ParseNetworkError::new(text))
    }
}

impl TryFrom<&str> for Network {
    type Error = ParseNetworkError;

    fn try_from(text: &str) -> Result<Self, ParseNetworkError> {
        text.parse()
    }
}

impl serde::Serialize for Network {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The error of parsing a [`Network`]. It suggests the closest name, if one is close.
///
/// ```
/// use bursar::Network;
///
/// let error = "bsae".parse::<Network>().unwrap_err();
/// assert!(error.to_string().ends_with("did you mean `base`?"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an EVM network; expected CAIP-2 like `eip155:8453` or a name like `base`{}",
    self.advice()
)]
pub struct ParseNetworkError {
    text: String,
}

impl ParseNetworkError {
    fn new(text: &str) -> Self {
        Self {
            text: excerpt(text),
        }
    }

    /// Suggests a name. Only a text that is shown needs it.
    fn advice(&self) -> String {
        let written = self.text.trim().to_lowercase().replace(['_', ' '], "-");
        let id = written.strip_prefix("eip155:").unwrap_or(&written);
        let near = Network::from_caip2(&format!("eip155:{id}"))
            .map(|network| network.to_string())
            .or_else(|| {
                let names = KNOWN.iter().map(|known| known.1);
                let names = names.chain(ALIASES.iter().map(|alias| alias.0));
                closest(&written, names).map(ToOwned::to_owned)
            });
        near.map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_id_occurs_once_and_parses() {
        for (name, id) in ALIASES {
            assert_eq!(name.parse::<Network>().unwrap().chain_id(), *id);
            assert!(KNOWN.iter().any(|known| known.0 == *id && known.1 != *name));
        }
        for (index, (id, name, _)) in KNOWN.iter().enumerate() {
            let network: Network = name.parse().unwrap();
            assert_eq!(network.chain_id(), *id);
            assert_eq!(network.to_string().parse::<Network>().unwrap(), network);
            assert!(
                KNOWN[..index]
                    .iter()
                    .all(|other| other.0 != *id && other.1 != *name)
            );
        }
    }

    #[test]
    fn a_mistyped_network_gets_a_suggestion() {
        for (written, near) in [
            ("bse", Some("base")),
            ("Base", Some("base")),
            ("base_sepolia", Some("base-sepolia")),
            ("wrold", Some("world")),
            ("optimsm", Some("optimism")),
            ("polygn-amoy", Some("polygon-amoy")),
            ("8453", Some("eip155:8453")),
            ("EIP155:8453", Some("eip155:8453")),
            ("solana", None),
            ("*", None),
        ] {
            let error = written.parse::<Network>().unwrap_err().to_string();
            match near {
                Some(near) => assert!(
                    error.ends_with(&format!("did you mean `{near}`?")),
                    "{error}"
                ),
                None => assert!(!error.contains("did you mean"), "{error}"),
            }
        }
    }

    #[test]
    fn only_canonical_identifiers_parse() {
        for text in [
            "eip155:0x2105",
            "eip155:08453",
            "eip155:",
            "eip155:0",
            "off-chain",
            "eip155:+1",
            "solana:x",
            "Base",
            "*",
        ] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }
}
