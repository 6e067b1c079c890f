//! Quotes: offers that bursar has verified and can compare.

use std::fmt;
use std::time::Duration;

use alloy::primitives::{Address, U256};

use super::payload::{MAX_PAYMENT, repeated};
use super::unpayable::{read_amount, read_window};
use super::{Carrier, PaymentMethod, PaymentRequired, Scheme, Terms, Unpayable, Version};
use crate::money::{
    Asset, AssetRegistry, Network, TokenAmount, TransferMethod, Usd, parse_address,
};
use crate::text;

/// The validity period of an offer that names none, in seconds. It is the default of official sellers of version 1.
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
/// The name with which Circle's Gateway marks offers of its batched scheme.
pub(super) const CIRCLE_GATEWAY: &str = "GatewayWalletBatched";

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
    by: By,
}

/// The message that a payment consists of, with the field that only one of them has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Eip3009,
    Permit2,
    /// The account that settles.
    Upto {
        facilitator: Address,
    },
}

impl By {
    pub(crate) const fn method(self) -> PaymentMethod {
        match self {
            Self::Eip3009 => PaymentMethod::Eip3009,
            Self::Permit2 => PaymentMethod::Permit2,
            Self::Upto { .. } => PaymentMethod::Upto,
        }
    }
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
        Self::each(required, assets)
            .nth(offer)
            .unwrap_or_else(missing)
    }

    /// Verifies every offer, in the seller's order.
    #[must_use]
    pub fn read_all(
        required: &PaymentRequired,
        assets: &AssetRegistry,
    ) -> Vec<Result<Self, Unpayable>> {
        Self::each(required, assets).collect()
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
        let by = read_method(version, &asset, &terms)?;
        let domain = match by {
            By::Eip3009 => check_domain(&asset, terms.name.as_deref(), terms.version.as_deref())?,
            // The domain is that of Permit2, which is known.
            By::Permit2 | By::Upto { .. } => Domain::Named,
        };
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
            by,
            asset,
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
            by: By::Eip3009,
        }
    }

    /// Returns the quote with another way to pay.
    pub(crate) const fn paid_by(mut self, by: By) -> Self {
        self.by = by;
        self
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

    /// Returns the scheme. The amount of [`Scheme::Upto`] is a ceiling.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.by.method().scheme()
    }

    /// Returns the way in which the payment moves the token.
    #[must_use]
    pub const fn method(&self) -> TransferMethod {
        self.by.method().transfer_method()
    }

    /// Returns the scheme and the transfer method, as the ledger keeps them.
    #[must_use]
    pub const fn payment_method(&self) -> PaymentMethod {
        self.by.method()
    }

    /// Returns the only account that can settle a payment of the scheme `upto`, or `None` for `exact`.
    #[must_use]
    pub const fn facilitator(&self) -> Option<Address> {
        match self.by {
            By::Eip3009 | By::Permit2 => None,
            By::Upto { facilitator } => Some(facilitator),
        }
    }

    pub(crate) const fn by(&self) -> By {
        self.by
    }

    /// Returns the price in atomic units of the token: for `upto` the ceiling.
    #[must_use]
    pub const fn value(&self) -> U256 {
        self.value
    }

    /// Returns the price with its token, for display: for `upto` the ceiling.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.value)
    }

    /// Returns the price in dollars, for `upto` the ceiling, or `None` for a token without a dollar peg.
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
    /// `exact` by EIP-3009 comes first, then `exact` by Permit2, then `upto`: a known price before a ceiling, and a
    /// token's own transfer before one that needs an approval. Among offers of one method, a seller that settles after its
    /// work comes first. Then an offer that names its token's domain, then the lower price in dollars, then the seller's
    /// order. A token without a dollar value comes last among equals.
    pub(crate) fn preference(&self) -> impl Ord + use<> {
        (
            self.payment_method(),
            self.flow != Flow::Authorization,
            self.domain,
            self.dollars().unwrap_or(Usd::MAX),
            self.offer,
        )
    }
}

/// Writes the price: `0.01 USDC`, or `up to 0.01 USDC` for the scheme `upto`.
impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme() == Scheme::Upto {
            f.write_str("up to ")?;
        }
        self.amount().fmt(f)
    }
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

/// Reads the scheme and `assetTransferMethod`. An `exact` offer without it is for EIP-3009, as the official client reads it.
/// Permit2 moves every token.
fn read_method(version: Version, asset: &Asset, terms: &Terms<'_>) -> Result<By, Unpayable> {
    let method = terms.asset_transfer_method.as_deref();
    let unsupported = |method: &str| Err(Unpayable::TransferMethod(text::excerpt(method)));
    match (&*terms.scheme, method) {
        ("exact", None | Some("eip3009")) => match asset.transfer_method() {
            TransferMethod::Eip3009 => Ok(By::Eip3009),
            TransferMethod::Permit2 => unsupported("eip3009"),
        },
        // Clients of version 1 know EIP-3009 alone.
        ("exact", Some("permit2")) if version != Version::V1 => Ok(By::Permit2),
        ("upto", None | Some("permit2")) if version != Version::V1 => {
            let facilitator = read_facilitator(terms.facilitator_address.as_deref())?;
            Ok(By::Upto { facilitator })
        }
        ("exact", Some(method)) => unsupported(method),
        ("upto", Some(method)) if version != Version::V1 => unsupported(method),
        (scheme, _) => Err(Unpayable::Scheme(text::excerpt(scheme))),
    }
}

/// Reads `extra.facilitatorAddress`. Permit2 would let nobody settle a permit for the zero address.
fn read_facilitator(written: Option<&str>) -> Result<Address, Unpayable> {
    let written = written.unwrap_or_default();
    parse_address(written)
        .filter(|address| *address != Address::ZERO)
        .ok_or_else(|| Unpayable::Facilitator(text::excerpt(written)))
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
        for method in ["erc7710", "EIP3009", "Permit2"] {
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
            read("exact", "uptO"),
            Err(Unpayable::Scheme("uptO".to_owned()))
        );
        assert!(matches!(
            read("eip155:84532", "solana:x"),
            Err(Unpayable::Network(_))
        ));
    }

    #[test]
    fn an_offer_is_for_permit2_if_it_says_so() {
        let permit2 = |extra: &str| read("\"name\":\"USDC\",\"version\":\"2\"", extra);
        let method = "\"assetTransferMethod\":\"permit2\"";
        // The domain is that of Permit2, whatever the offer says about the token's.
        for extra in [method, &format!("{method},\"name\":\"another\"")] {
            let quote = permit2(extra).unwrap();
            assert_eq!(quote.payment_method(), PaymentMethod::Permit2, "{extra}");
            assert_eq!(quote.facilitator(), None);
            assert_eq!(quote.to_string(), "0.01 USDC");
        }
        let version_1 = |json: &str| {
            let v1 = json.replace("\"x402Version\":2", "\"x402Version\":1");
            let v1 = v1.replace("eip155:84532", "base-sepolia");
            let required = PaymentRequired::from_json(v1.as_bytes()).unwrap();
            Quote::read(&required, 0, AssetRegistry::stablecoins())
        };
        let json = |scheme: &str, extra: &str| {
            format!(
                "{{\"x402Version\":2,\"accepts\":[{{\"scheme\":\"{scheme}\",\"network\":\"eip155:84532\",\"amount\":\"1\",\
                 \"asset\":\"0x036CbD53842c5426634e7929541eC2318f3dCF7e\",\
                 \"payTo\":\"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\",\"extra\":{{{extra}}}}}]}}"
            )
        };
        assert_eq!(
            version_1(&json("exact", method)),
            Err(Unpayable::TransferMethod("permit2".to_owned()))
        );
        assert_eq!(
            version_1(&json("upto", "")),
            Err(Unpayable::Scheme("upto".to_owned()))
        );
        // A token that only Permit2 can move is not paid by an offer that does not say so.
        let igra = json("exact", "")
            .replace("eip155:84532", "eip155:38833")
            .replace(
                "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
                "0xA5b8BF902b2844dA17d4506cc827F7f1681735E7",
            );
        let required = PaymentRequired::from_json(
            igra.to_lowercase()
                .replace("x402version", "x402Version")
                .as_bytes(),
        )
        .unwrap();
        assert_eq!(
            Quote::read(&required, 0, AssetRegistry::stablecoins()),
            Err(Unpayable::TransferMethod("eip3009".to_owned()))
        );
    }

    #[test]
    fn an_upto_offer_needs_its_facilitator() {
        let upto = |extra: &str| {
            let terms = terms(("\"scheme\":\"exact\"", "\"scheme\":\"upto\""));
            let json = terms.offers()[0]
                .json()
                .replace("\"name\":\"USDC\",\"version\":\"2\"", extra);
            let json = format!("{{\"x402Version\":2,\"accepts\":[{json}]}}");
            let required = PaymentRequired::from_json(json.as_bytes()).unwrap();
            Quote::read(&required, 0, AssetRegistry::stablecoins())
        };
        let facilitator = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
        for extra in [
            format!("\"facilitatorAddress\":\"{facilitator}\""),
            format!("\"assetTransferMethod\":\"permit2\",\"facilitatorAddress\":\"{facilitator}\""),
            format!("\"facilitator_address\":\"{}\"", facilitator.to_lowercase()),
        ] {
            let quote = upto(&extra).unwrap();
            assert_eq!(quote.payment_method(), PaymentMethod::Upto, "{extra}");
            assert_eq!(quote.facilitator(), facilitator.parse().ok(), "{extra}");
            assert_eq!(quote.to_string(), "up to 0.01 USDC");
            assert_eq!(quote.amount().to_string(), "0.01 USDC");
        }
        for (wrong, shown) in [
            ("", ""),
            (
                "\"facilitatorAddress\":\"0x70997970c51812dc3A010C7d01b50e0d17dc79C8\"",
                "0x70997970c51812dc3A010C7d01b50e0d17dc79C8",
            ),
            (
                "\"facilitatorAddress\":\"0x0000000000000000000000000000000000000000\"",
                "0x0000000000000000000000000000000000000000",
            ),
            ("\"facilitatorAddress\":\"bob\"", "bob"),
        ] {
            assert_eq!(
                upto(wrong),
                Err(Unpayable::Facilitator(shown.to_owned())),
                "{wrong}"
            );
        }
        assert_eq!(
            upto(&format!(
                "\"assetTransferMethod\":\"eip3009\",\"facilitatorAddress\":\"{facilitator}\""
            )),
            Err(Unpayable::TransferMethod("eip3009".to_owned()))
        );
    }

    #[test]
    fn exact_by_eip3009_is_preferred_to_permit2_and_both_to_a_ceiling() {
        let eip3009 = read("\"10000\"", "\"20000\"").unwrap();
        let permit2 = read("\"name\"", "\"assetTransferMethod\":\"permit2\",\"name\"").unwrap();
        let facilitator = Address::repeat_byte(7);
        let upto = read("\"10000\"", "\"1\"")
            .unwrap()
            .paid_by(By::Upto { facilitator });
        assert!(eip3009.preference() < permit2.preference());
        assert!(permit2.preference() < upto.preference());
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
        assert!(
            read(
                "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
                "0x209693bc6afc0c5328ba36faf03c514ef312287c"
            )
            .is_ok()
        );
    }
}
