//! Quotes: offers that bursar has verified and can compare.

use std::fmt;
use std::time::Duration;

use alloy::primitives::{Address, U256};

use super::payload::{MAX_PAYMENT, repeated};
use super::signed::{self, SignedOffer};
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
    pub(super) signed: Option<Box<SignedOffer>>,
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
            by: By::Eip3009,
            signed: None,
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
mod tests;
