//! Quotes: offers that bursar has verified and can compare.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde_json::value::RawValue;

use super::payload::{MAX_PAYMENT, repeated};
use super::signed::{self, SignedOffer};
use super::{Carrier, PaymentRequired, Terms, Version};
use crate::money::{
    Asset, AssetRegistry, Network, TokenAmount, TransferMethod, Usd, parse_address,
};
use crate::text;

/// The shortest validity period that official facilitators accept, in seconds.
const SHORTEST_WINDOW: u64 = 6;
/// The validity period of an offer that names none, in seconds. It is the default of official sellers of version 1.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
/// The name with which Circle's Gateway marks offers of its batched scheme.
const CIRCLE_GATEWAY: &str = "GatewayWalletBatched";

/// An offer that bursar can sign for.
///
/// bursar has verified every field against its [`AssetRegistry`].
///
/// ```
/// use bursar::money::AssetRegistry;
/// use bursar::x402::{PaymentRequired, Quote};
///
/// let terms = br#"{"x402Version":2,"accepts":[{"scheme":"exact","network":"eip155:84532",
///     "amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e",
///     "payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":60,
///     "extra":{"name":"USDC","version":"2"}}]}"#;
/// let required = PaymentRequired::from_json(terms)?;
/// let quote = Quote::read(&required, 0, AssetRegistry::stablecoins())?;
/// assert_eq!(quote.amount().to_string(), "0.01 USDC");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    offer: usize,
    version: Version,
    asset: Asset,
    pay_to: Address,
    value: U256,
    window: Duration,
    flow: Flow,
    domain: Domain,
    pub(super) signed: Option<Box<SignedOffer>>,
}

/// Whether the offer names the token's EIP-712 domain.
///
/// Official facilitators refuse the payment of an offer without a domain. bursar pays such an offer
/// only if there is no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Domain {
    Named,
    Missing,
}

/// The order in which the seller settles and works (`extra.paymentFlow`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flow {
    /// The seller verifies, works and then settles. Failed work costs nothing if the seller is honest.
    Authorization,
    /// The seller settles before it works.
    Upfront,
    /// The seller settles before and after it works.
    Escrow,
}

impl Quote {
    /// Verifies one offer of a seller's terms. `offer` is its position, counted from zero.
    ///
    /// # Errors
    /// Returns the reason why bursar cannot sign for the offer. Choose another offer, or add the token
    /// to the registry for [`Unpayable::Asset`].
    pub fn read(
        required: &PaymentRequired,
        offer: usize,
        assets: &AssetRegistry,
    ) -> Result<Self, Unpayable> {
        let missing = || Err(Unpayable::Malformed("there is no such offer".to_owned()));
        let mut quotes = Self::read_all(required, assets).into_iter();
        quotes.nth(offer).unwrap_or_else(missing)
    }

    /// Verifies every offer, in the seller's order.
    #[must_use]
    pub fn read_all(
        required: &PaymentRequired,
        assets: &AssetRegistry,
    ) -> Vec<Result<Self, Unpayable>> {
        let mut quotes: Vec<_> = Self::each(required, assets).collect();
        signed::attach(required, &mut quotes);
        quotes
    }

    fn each(
        required: &PaymentRequired,
        assets: &AssetRegistry,
    ) -> impl Iterator<Item = Result<Self, Unpayable>> {
        let mut earlier = Vec::new();
        let left_out = Some(required.left_out).filter(|count| *count > 0);
        let offers = required.offers().iter().enumerate();
        let quotes = offers.map(move |(offer, written)| {
            let terms = written.terms()?;
            if required.two_lists {
                let message = "`accepts` and `paymentRequirements` differ";
                return Err(Unpayable::Contradiction(message.to_owned()));
            }
            let mut is_first = true;
            if required.version() == Version::V1 || required.carrier == Carrier::Body {
                let route = (terms.scheme.clone(), terms.network.clone());
                is_first = !earlier.contains(&route);
                earlier.push(route);
            }
            let quote = Self::check(required.version(), offer, terms, is_first, assets)?;
            match repeated(required, written).length {
                length if length > MAX_PAYMENT => Err(Unpayable::HeaderTooLong { length }),
                _ => Ok(quote),
            }
        });
        quotes.chain(left_out.map(|count| Err(Unpayable::LeftOut(count))))
    }

    /// Verifies the terms of an offer.
    ///
    /// A version 1 payment names only its scheme and network, and sellers match it with their first
    /// offer that has both. A payment for a later offer would be refused after it was signed.
    fn check(
        version: Version,
        offer: usize,
        terms: Terms<'_>,
        is_first: bool,
        assets: &AssetRegistry,
    ) -> Result<Self, Unpayable> {
        if !is_first {
            return Err(Unpayable::NotFirst);
        }
        if terms.name.as_deref() == Some(CIRCLE_GATEWAY) {
            return Err(Unpayable::CircleGateway);
        }
        let asset = find_asset(assets, terms.chain, &terms.asset)?;
        check_method(&asset, terms.asset_transfer_method.as_deref())?;
        let domain = check_domain(&asset, terms.name.as_deref(), terms.version.as_deref())?;
        Ok(Self {
            offer,
            version,
            pay_to: parse_address(&terms.pay_to)
                .ok_or_else(|| Unpayable::Payee(text::excerpt(&terms.pay_to)))?,
            value: read_amount(&terms.amount)?,
            window: terms
                .max_timeout_seconds
                .map_or(Ok(DEFAULT_WINDOW), read_window)?,
            flow: read_flow(terms.payment_flow.as_deref())?,
            domain,
            asset,
            signed: None,
        })
    }

    /// Creates a quote that no seller made, to ask the policy about it.
    pub(crate) const fn imagined(
        asset: Asset,
        pay_to: Address,
        value: U256,
        window: Duration,
    ) -> Self {
        Self {
            offer: 0,
            version: Version::V2,
            asset,
            pay_to,
            value,
            window,
            flow: Flow::Authorization,
            domain: Domain::Named,
            signed: None,
        }
    }

    /// Returns the position of the offer, counted from zero.
    #[must_use]
    pub const fn offer(&self) -> usize {
        self.offer
    }

    /// Returns the protocol version of the terms.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Returns the token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Returns the chain.
    #[must_use]
    pub fn network(&self) -> Network {
        self.asset.network()
    }

    /// Returns the address that would be paid.
    #[must_use]
    pub const fn pay_to(&self) -> Address {
        self.pay_to
    }

    /// Returns the price in atomic units of the token.
    #[must_use]
    pub const fn value(&self) -> U256 {
        self.value
    }

    /// Returns the price with its token, for display.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.value)
    }

    /// Returns the price in dollars, or `None` for a token without a dollar peg.
    #[must_use]
    pub fn dollars(&self) -> Option<Usd> {
        self.asset.dollars(self.value)
    }

    /// Returns the time for which the authorization must be valid (`maxTimeoutSeconds`). It is 60 seconds if the offer
    /// names none.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// Returns the order in which the seller settles and works.
    #[must_use]
    pub const fn flow(&self) -> Flow {
        self.flow
    }

    /// Returns a key that sorts quotes by preference.
    ///
    /// A seller that settles after its work comes first. Then an offer that names its token's domain,
    /// then the lower price in dollars, then the seller's order. A token without a dollar value comes
    /// last among equals.
    pub(crate) fn preference(&self) -> impl Ord + use<> {
        (
            self.flow != Flow::Authorization,
            self.domain,
            self.dollars().unwrap_or(Usd::MAX),
            self.offer,
        )
    }
}

/// The reason why bursar cannot sign for an offer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unpayable {
    /// A field is missing or has the wrong type.
    #[error("the offer cannot be read: {0}")]
    Malformed(String),
    /// The scheme is not `exact`.
    #[error("scheme `{0}` is not supported; expected `exact`")]
    Scheme(String),
    /// The network is not an EVM chain.
    #[error("network `{0}` is not a known EVM network")]
    Network(String),
    /// `amount` is not a decimal integer without leading zeros, or exceeds 2²⁵⁶−1.
    #[error("amount `{0}` is not a canonical unsigned 256-bit integer")]
    Amount(String),
    /// The offer has no amount.
    #[error("the offer names no amount")]
    NoAmount,
    /// The offer has a member twice, with different values, such as `amount` and `maxAmountRequired`.
    #[error("the offer contradicts itself: {0}")]
    Contradiction(String),
    /// The offer belongs to the batched scheme of Circle's Gateway.
    #[error(
        "the offer is for Circle Gateway's batched scheme (`{CIRCLE_GATEWAY}`), which bursar does not sign"
    )]
    CircleGateway,
    /// The header of the payment would be longer than most servers take. The seller must shorten its terms.
    #[error(
        "the payment header would have about {length} bytes; many servers take 16 KiB of headers"
    )]
    HeaderTooLong {
        /// The length of the shortest possible header, in bytes.
        length: usize,
    },
    /// The list has more offers than bursar reads.
    #[error("{0} further offers were not read")]
    LeftOut(usize),
    /// The token is not in the registry.
    #[error("token `{asset}` on {network} is not in the asset registry")]
    Asset {
        /// The chain.
        network: Network,
        /// The address as the seller wrote it.
        asset: String,
    },
    /// `payTo` is not an address, or its checksum is wrong.
    #[error("payTo `{0}` is not an address")]
    Payee(String),
    /// bursar cannot sign `extra.assetTransferMethod` for this token.
    #[error("transfer method `{0}` is not supported for this token; expected `eip3009`")]
    TransferMethod(String),
    /// `extra.paymentFlow` is unknown.
    #[error("payment flow `{0}` is unknown")]
    Flow(String),
    /// The seller names another EIP-712 domain than the token has. The chain would refuse the signature.
    #[error("the offer has the EIP-712 domain `{found}` for {asset}; the token has `{expected}`")]
    Domain {
        /// The token.
        asset: Asset,
        /// The name or version in the registry.
        expected: String,
        /// The name or version in the offer.
        found: String,
    },
    /// A version 1 offer has the scheme and network of an earlier one. The seller would match its
    /// payment with the earlier offer.
    #[error(
        "an earlier offer has the same scheme and network, and version 1 cannot tell them apart"
    )]
    NotFirst,
    /// `maxTimeoutSeconds` is not a positive number.
    #[error("maxTimeoutSeconds `{0}` is not a positive number")]
    Window(String),
    /// `maxTimeoutSeconds` is shorter than facilitators accept.
    #[error("maxTimeoutSeconds {0} is less than the {SHORTEST_WINDOW} s that facilitators need")]
    WindowTooShort(u64),
}

fn find_asset(assets: &AssetRegistry, network: Network, written: &str) -> Result<Asset, Unpayable> {
    parse_address(written)
        .and_then(|address| assets.find(network, address))
        .cloned()
        .ok_or_else(|| Unpayable::Asset {
            network,
            asset: text::excerpt(written),
        })
}

fn check_method(asset: &Asset, method: Option<&str>) -> Result<(), Unpayable> {
    match (asset.transfer_method(), method) {
        (TransferMethod::Eip3009, None | Some("eip3009")) => Ok(()),
        (_, Some(method)) => Err(Unpayable::TransferMethod(text::excerpt(method))),
        (_, None) => Err(Unpayable::TransferMethod("permit2".to_owned())),
    }
}

/// Compares the domain in the offer with the token's. An offer may leave it out.
fn check_domain(
    asset: &Asset,
    name: Option<&str>,
    version: Option<&str>,
) -> Result<Domain, Unpayable> {
    for (expected, found) in [
        (asset.eip712_name(), name),
        (asset.eip712_version(), version),
    ] {
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(Unpayable::Domain {
                asset: asset.clone(),
                expected: expected.to_owned(),
                found: text::excerpt(found),
            });
        }
    }
    Ok(if name.is_some() && version.is_some() {
        Domain::Named
    } else {
        Domain::Missing
    })
}

pub(super) fn read_amount(written: &str) -> Result<U256, Unpayable> {
    parse_canonical(written).ok_or_else(|| Unpayable::Amount(text::excerpt(written)))
}

/// Parses `0|[1-9][0-9]*`, at most 2²⁵⁶−1.
fn parse_canonical(written: &str) -> Option<U256> {
    let digits =
        (1..=78).contains(&written.len()) && written.bytes().all(|byte| byte.is_ascii_digit());
    let leading_zero = written.len() > 1 && written.starts_with('0');
    (digits && !leading_zero)
        .then(|| U256::from_str_radix(written, 10).ok())
        .flatten()
}

/// Reads whole seconds, also in quotes, and drops a fraction.
fn read_window(written: &RawValue) -> Result<Duration, Unpayable> {
    let malformed = || Unpayable::Window(text::excerpt(written.get()));
    let unquoted = written.get().trim_matches('"');
    let number: serde_json::Number = serde_json::from_str(unquoted).map_err(|_| malformed())?;
    let seconds = match number.as_u64() {
        Some(whole) => whole,
        None => number
            .as_f64()
            .filter(|seconds| *seconds > 0.0)
            .map(truncate)
            .ok_or_else(malformed)?,
    };
    match seconds {
        0 if number.as_u64() == Some(0) => Err(malformed()),
        0..SHORTEST_WINDOW => Err(Unpayable::WindowTooShort(seconds)),
        _ => Ok(Duration::from_secs(seconds)),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and only positive numbers come here"
)]
const fn truncate(seconds: f64) -> u64 {
    seconds as u64
}

fn read_flow(flow: Option<&str>) -> Result<Flow, Unpayable> {
    match flow {
        None | Some("authorization") => Ok(Flow::Authorization),
        Some("upfront") => Ok(Flow::Upfront),
        Some("escrow") => Ok(Flow::Escrow),
        Some(unknown) => Err(Unpayable::Flow(text::excerpt(unknown))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms(change: (&str, &str)) -> PaymentRequired {
        let json = r#"{"x402Version":2,"accepts":[{"scheme":"exact","network":"eip155:84532","amount":"10000",
            "asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
            "maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}]}"#;
        assert!(json.contains(change.0), "{}", change.0);
        PaymentRequired::from_json(json.replace(change.0, change.1).as_bytes()).unwrap()
    }

    fn read(from: &str, to: &str) -> Result<Quote, Unpayable> {
        Quote::read(&terms((from, to)), 0, AssetRegistry::stablecoins())
    }

    #[test]
    fn an_amount_that_is_not_canonical_is_refused() {
        assert_eq!(read("\"10000\"", "\"0\"").unwrap().value(), U256::ZERO);
        let max = U256::MAX.to_string();
        assert_eq!(
            read("\"10000\"", &format!("\"{max}\"")).unwrap().value(),
            U256::MAX
        );
        let over = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        for bad in [
            "01000", "+1000", " 1000", "1e3", "-1", "1_000", "0x10", "1000.0", "", "１０", over,
        ] {
            assert_eq!(
                read("\"10000\"", &format!("\"{bad}\"")),
                Err(Unpayable::Amount(text::excerpt(bad))),
                "{bad}"
            );
        }
        for integer in ["1e4", "10000.0", "-1", "true", "{}"] {
            assert!(read("\"10000\"", integer).is_err(), "{integer}");
        }
        let twice = |second: &str| read("\"amount\":", &format!("\"{second},\"amount\":"));
        assert!(matches!(
            twice("maxAmountRequired\":\"1\""),
            Err(Unpayable::Contradiction(words)) if words == "`maxAmountRequired` and `amount` have different values"
        ));
        assert!(twice("max_amount_required\":10000").is_ok());
        assert_eq!(read("\"amount\":\"10000\",", ""), Err(Unpayable::NoAmount));
    }

    #[test]
    fn the_window_is_a_positive_number_of_at_least_six_seconds() {
        for (written, seconds) in [
            ("6", 6),
            ("60.9", 60),
            ("6e1", 60),
            ("1e300", u64::MAX),
            ("1576800000", 1_576_800_000),
        ] {
            assert_eq!(
                read("60", written).unwrap().window().as_secs(),
                seconds,
                "{written}"
            );
        }
        for (lenient, seconds) in [("\"90\"", 90), ("null", 60)] {
            assert_eq!(read("60", lenient).unwrap().window().as_secs(), seconds);
        }
        for bad in ["0", "-1", "\"-60\"", "\"\"", "[]", "-0.0"] {
            assert!(
                matches!(
                    read("60", bad),
                    Err(Unpayable::Window(_) | Unpayable::Malformed(_))
                ),
                "{bad}"
            );
        }
        assert_eq!(read("60", "5"), Err(Unpayable::WindowTooShort(5)));
        assert_eq!(read("60", "0.5"), Err(Unpayable::WindowTooShort(0)));
    }

    #[test]
    fn the_token_and_its_domain_come_from_the_registry() {
        assert!(matches!(
            read("\"USDC\"", "\"USD Coin\""),
            Err(Unpayable::Domain { .. })
        ));
        assert!(matches!(
            read("\"version\":\"2\"", "\"version\":\"9\""),
            Err(Unpayable::Domain { .. })
        ));
        assert!(read("{\"name\":\"USDC\",\"version\":\"2\"}", "{}").is_ok());
        assert!(matches!(
            read("84532", "8453"),
            Err(Unpayable::Asset { .. })
        ));
        assert!(matches!(
            read(
                "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                "0x1111111111111111111111111111111111111111"
            ),
            Err(Unpayable::Asset { .. })
        ));
    }

    #[test]
    fn an_unknown_way_to_pay_is_not_payable() {
        let extra = |field: &str| read("\"name\"", &format!("{field},\"name\""));
        assert!(extra("\"assetTransferMethod\":\"eip3009\"").is_ok());
        for method in ["permit2", "erc7710", "EIP3009"] {
            assert_eq!(
                extra(&format!("\"assetTransferMethod\":\"{method}\"")),
                Err(Unpayable::TransferMethod(method.to_owned()))
            );
        }
        assert_eq!(
            extra("\"paymentFlow\":\"upfront\"").unwrap().flow(),
            Flow::Upfront
        );
        assert_eq!(
            extra("\"paymentFlow\":\"mystery\""),
            Err(Unpayable::Flow("mystery".to_owned()))
        );
        assert_eq!(
            read("exact", "upto"),
            Err(Unpayable::Scheme("upto".to_owned()))
        );
        assert!(matches!(
            read("eip155:84532", "solana:x"),
            Err(Unpayable::Network(_))
        ));
    }

    #[test]
    fn an_offer_that_names_its_domain_is_preferred() {
        let cheap = read("{\"name\":\"USDC\",\"version\":\"2\"}", "{}").unwrap();
        let expensive = read("\"10000\"", "\"20000\"").unwrap();
        assert!(expensive.preference() < cheap.preference());
    }

    #[test]
    fn version_1_can_pay_only_the_first_offer_of_a_network() {
        let offer = |network: &str, asset: &str| {
            format!(
                r#"{{"scheme":"exact","network":"{network}","maxAmountRequired":"1","asset":"{asset}","maxTimeoutSeconds":60,
                "payTo":"0x209693bc6afc0c5328ba36faf03c514ef312287c","resource":"https://a.example/"}}"#
            )
        };
        let sepolia = offer("base-sepolia", "0x036CbD53842c5426634e7929541eC2318f3dCF7e");
        let base = offer("base", "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
        let json = format!(r#"{{"x402Version":1,"accepts":[{sepolia},{sepolia},{base}]}}"#);
        let required = PaymentRequired::from_json(json.as_bytes()).unwrap();
        let quotes = Quote::read_all(&required, AssetRegistry::stablecoins());
        assert!(quotes[0].is_ok() && quotes[2].is_ok());
        assert_eq!(quotes[1], Err(Unpayable::NotFirst));
    }

    #[test]
    fn a_payee_with_a_wrong_checksum_is_refused() {
        assert!(matches!(
            read("0x209693Bc", "0x209693bc"),
            Err(Unpayable::Payee(_))
        ));
        let mixed = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
        assert!(read(mixed, &mixed.to_lowercase()).is_ok());
    }
}
