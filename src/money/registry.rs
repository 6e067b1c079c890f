//! The tokens that a client may sign for.

use std::collections::HashMap;
use std::sync::OnceLock;

use alloy::primitives::{Address, address};

use super::asset::Peg;
use super::{Asset, Network, TransferMethod};

/// The tokens that a client may sign for.
///
/// A policy begins with [`stablecoins`](Self::stablecoins).
///
/// ```
/// use bursar::Network;
/// use bursar::money::AssetRegistry;
///
/// let base: Network = "base".parse()?;
/// let usdc = AssetRegistry::stablecoins().find_symbol(base, "USDC").unwrap();
/// assert_eq!((usdc.decimals(), usdc.eip712_name()), (6, "USD Coin"));
/// # Ok::<(), bursar::money::ParseNetworkError>(())
/// ```
#[derive(Clone, Debug)]
pub struct AssetRegistry(HashMap<(Network, Address), Asset>);

impl AssetRegistry {
    /// Returns the stablecoins of the official x402 SDKs.
    ///
    /// The list joins `DEFAULT_ASSETS` of `@x402/evm` 2.27.0, the additions of the Python SDK 2.25.0
    /// and the USDC table of x402 version 1 (1.2.0). It adds Circle's native USDC on further chains.
    /// Each token has a dollar peg.
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

    /// Adds a token. It replaces a token with the same chain and address.
    #[must_use]
    pub fn with(mut self, asset: Asset) -> Self {
        self.0.insert((asset.network(), asset.address()), asset);
        self
    }

    /// Returns the token at this address of this chain.
    #[must_use]
    pub fn find(&self, network: Network, address: Address) -> Option<&Asset> {
        self.0.get(&(network, address))
    }

    /// Returns the token with this symbol on this chain, in upper or lower case.
    ///
    /// Returns `None` if there is no such token, or more than one.
    #[must_use]
    pub fn find_symbol(&self, network: Network, symbol: &str) -> Option<&Asset> {
        let mut found = self.0.values().filter(|asset| {
            asset.network() == network && asset.symbol().eq_ignore_ascii_case(symbol)
        });
        found.next().filter(|_| found.next().is_none())
    }

    /// Returns all tokens in no particular order.
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
    // Circle's native USDC. The addresses are those of Circle's list of USDC contracts and of its Bridge Kit. At least
    // two tables that were read from the chains agree on each domain.
    Row(480, address!("79A02482A880bCE3F13e09Da970dC34db4CD24d1"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(4801, address!("66145f38cBAC35Ca6F1Dfb4914dF98F1614aeA88"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(10, address!("0b2C639c533813f4Aa9D7837CAf62653d097Ff85"), "USDC", 6, "USD Coin", "2", TransferMethod::Eip3009),
    Row(11_155_420, address!("5fd84259d66Cd46123540766Be93DFE6D43130D7"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(130, address!("078D782b760474a361dDA0AF3839290b0EF57AD6"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(1301, address!("31d0220469e10c4E71834a79b1f276d740d3768F"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(59_144, address!("176211869cA2b568f2A7D4EE941E073a821EE1ff"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(146, address!("29219dd400f2Bf60E5a23d13Be72B486D4038894"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(57_073, address!("2D270e6886d130D724215A266106e6832161EAEd"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(999, address!("b88339CB7199b77E23DB6E890353E22632Ba630f"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
    Row(11_155_111, address!("1c7D4B196Cb0C7B01d743Fbc6116a902379C7238"), "USDC", 6, "USDC", "2", TransferMethod::Eip3009),
];

#[cfg(test)]
mod tests {
    use alloy::primitives::{B256, b256};

    use super::*;

    /// `DOMAIN_SEPARATOR()` as the contracts return it.
    const SEPARATORS: &[(u64, B256)] = &[
        (
            480,
            b256!("936533d5f85622a8261854e20bb87f4e849dde486f429bc1fb66202b7cde09ec"),
        ),
        (
            10,
            b256!("26d9c34bb1a1c312f69c53b2d93b8be20faafba63af2438c6811713c9b1f933f"),
        ),
        (
            130,
            b256!("565b4c4095d739dada6adeb9a89bc6dc4d102500ebd4a88bef1ec1d0f69d83b8"),
        ),
        (
            146,
            b256!("47ff53f4cb866f027068ac56dedd98f6818c3ea4f1f60a1850d746944543ac12"),
        ),
        (
            999,
            b256!("70a72998ad787d1a9152a8f88ccfe0766b1cb293b6b4011b34523035da10b0a3"),
        ),
        (
            1,
            b256!("06c37168a7db5138defc7866392bb87a741f9b3d104deb5094588ce041cae335"),
        ),
        (
            137,
            b256!("caa2ce1a5703ccbe253a34eb3166df60a705c561b44b192061e28f2a985be2ca"),
        ),
        (
            42_161,
            b256!("08d11903f8419e68b1b8721bcbe2e9fc68569122a77ef18c216f10b3b5112c78"),
        ),
        (
            43_114,
            b256!("bbea200329a938bc3438984a49cb0732e66d66d7bd59c127abacc1710e77f7b3"),
        ),
        (
            143,
            b256!("fe22123edc0dd4aeb912eb7948c5f0e531592c2053b3067612f427db342c93c6"),
        ),
        (
            42_220,
            b256!("b2ce31d2838445fa765a491f550e7c78ac7280ab0f3bc9d6063a86df9c3fb578"),
        ),
        (
            1329,
            b256!("0a19136106ae98d2c245cbbd451f3cb2bbbb1670e1ee191abacb5a5e255c0255"),
        ),
        (
            84_532,
            b256!("71f17a3b2ff373b803d70a5a07c046c1a2bc8e89c09ef722fcb047abe94c9818"),
        ),
        (
            80_002,
            b256!("5cddc98319864e897e4469bd1d13c2288c677047b54b8cca12bd342adb6be9eb"),
        ),
        (
            10_143,
            b256!("f1090f5a61ddee19528cecc447be0f91c7205fc2b34dd271fc0de87809a0a48d"),
        ),
    ];

    #[test]
    fn domains_are_those_of_the_contracts() {
        for (chain, separator) in SEPARATORS {
            let network = Network::from_chain_id(*chain);
            let usdc = AssetRegistry::stablecoins()
                .find_symbol(network, "USDC")
                .unwrap();
            assert_eq!(usdc.domain_separator(), *separator, "{network}");
        }
    }

    #[test]
    fn each_token_is_listed_once_on_a_known_network() {
        let mut seen = std::collections::HashSet::new();
        for row in STABLECOINS {
            assert!(seen.insert((row.0, row.1)), "{} {}", row.0, row.1);
            assert!(Network::from_chain_id(row.0).name().is_some(), "{}", row.0);
        }
    }
}
