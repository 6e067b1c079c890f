//! Whether something that is advertised would be bought: asked of the policy and the books, changing neither.

use std::fmt;

use http::Method;

use super::Criteria;
use super::listing::Listing;
use super::price::{AdvertisedPrice, Price};
use super::service::Kind;
use crate::money::AssetRegistry;
use crate::payer::{Intent, Payer, PriceCheck, PricedOffer};
use crate::policy::{Denial, Explanation, Hypothetical, Rule};
use crate::x402::{Quote, Unpayable};
use crate::{Client, Error, Network, PaymentRequired, Usd};

/// The least that anything costs: to ask what the policy says to a service whatever its price.
const LEAST: Usd = Usd::from_micros(1);

/// Whether a service would be paid if it asks for what is advertised, and why not. The live 402 decides.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The policy allows it, with the books as they are.
    Payable,
    /// Somebody would be asked first, for this reason.
    NeedsApproval(String),
    /// It could be signed for; the client has no wallet, so there is no policy to ask.
    NoWallet,
    /// No price is advertised; [`Client::quote`] asks for it. Nothing that is known of it is denied.
    Unpriced,
    /// Something must be filled in or brought along first.
    Incomplete(String),
    /// The policy or the query denies it.
    Denied(Box<Denial>),
    /// It is offered on other networks than the query's.
    OtherNetwork,
    /// It is paid for by other protocols.
    OtherProtocol(String),
    /// No offer can be signed for; each with its reason.
    Unpayable(Vec<Unpayable>),
    /// The client's transport would not go there: plain http, or a private address.
    Unreachable(String),
}

impl Standing {
    /// Whether it would be paid, if somebody agrees where somebody is asked.
    #[must_use]
    pub const fn is_payable(&self) -> bool {
        matches!(self, Self::Payable | Self::NeedsApproval(_))
    }

    /// The stable name, such as `payable` or `denied`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Payable => "payable",
            Self::NeedsApproval(_) => "needs_approval",
            Self::NoWallet => "no_wallet",
            Self::Unpriced => "unpriced",
            Self::Incomplete(_) => "incomplete",
            Self::Denied(_) => "denied",
            Self::OtherNetwork => "other_network",
            Self::OtherProtocol(_) => "other_protocol",
            Self::Unpayable(_) => "unpayable",
            Self::Unreachable(_) => "unreachable",
        }
    }

    /// Why it would not simply be paid; `None` if it would be.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            Self::Payable => return None,
            Self::NeedsApproval(why) | Self::Incomplete(why) | Self::Unreachable(why) => {
                why.clone()
            }
            Self::NoWallet => "there is no policy to ask".to_owned(),
            Self::Unpriced => "no price is advertised".to_owned(),
            Self::Denied(denial) => denial.to_string(),
            Self::OtherNetwork => "it is offered on other networks".to_owned(),
            Self::OtherProtocol(names) => format!("it is paid for by {names}"),
            Self::Unpayable(reasons) => reasons
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        })
    }

    /// The order of usefulness.
    pub(super) const fn rank(&self) -> u8 {
        match self {
            Self::Payable => 0,
            Self::NeedsApproval(_) => 1,
            Self::NoWallet => 2,
            Self::Unpriced => 3,
            Self::Incomplete(_) => 4,
            Self::Denied(_) => 5,
            Self::OtherNetwork => 6,
            Self::OtherProtocol(_) => 7,
            Self::Unpayable(_) => 8,
            Self::Unreachable(_) => 9,
        }
    }
}

/// `payable`, or the name and the reason: `denied: host …`.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            None => f.pad(self.name()),
            Some(reason) => write!(f, "{}: {reason}", self.name().replace('_', " ")),
        }
    }
}

/// What was found out about a listing.
#[derive(Debug)]
pub(super) struct Assessment {
    pub(super) standing: Standing,
    pub(super) price: Price,
    pub(super) quote: Option<Quote>,
}

impl Assessment {
    const fn priced(standing: Standing, price: Price) -> Self {
        Self {
            standing,
            price,
            quote: None,
        }
    }
}

/// Judges one listing; nothing is sent, signed or held. `stopped` is the order to stop paying, if there is one.
///
/// # Errors
/// When the books cannot be read.
pub(super) async fn assess(
    client: &Client,
    criteria: &Criteria,
    listing: &Listing,
    stopped: Option<&Denial>,
) -> Result<Assessment, Error> {
    let mut assessment = priced(client, criteria, listing).await?;
    if let Err(error) = client.may_go(&listing.url) {
        assessment.standing = Standing::Unreachable(error.message().to_owned());
    } else if let Some(denial) =
        stopped.filter(|_| assessment.standing.rank() <= Standing::Unpriced.rank())
    {
        assessment.standing = Standing::Denied(Box::new(denial.clone()));
    } else if let Some(lacks) = listing
        .lacks
        .clone()
        .filter(|_| assessment.standing.rank() <= Standing::Unpriced.rank())
    {
        assessment.standing = Standing::Incomplete(lacks);
    }
    Ok(assessment)
}

/// What the policy says to the price.
async fn priced(
    client: &Client,
    criteria: &Criteria,
    listing: &Listing,
) -> Result<Assessment, Error> {
    Ok(match &listing.asked {
        AdvertisedPrice::Nothing => Assessment::priced(
            at_any_payee(client, criteria, listing, LEAST, Standing::Unpriced).await?,
            Price::Unknown,
        ),
        AdvertisedPrice::Dollars { least, most } => {
            let good = if client.payer().is_some() {
                Standing::Payable
            } else {
                Standing::NoWallet
            };
            let standing = match above_max_price(*most, criteria) {
                Some(denial) => Standing::Denied(denial),
                None => at_any_payee(client, criteria, listing, (*most).max(LEAST), good).await?,
            };
            Assessment::priced(
                standing,
                Price::Dollars {
                    least: *least,
                    most: *most,
                },
            )
        }
        AdvertisedPrice::Offers(required) => offered(client, criteria, listing, required).await?,
        AdvertisedPrice::Otherwise(names) => {
            Assessment::priced(Standing::OtherProtocol(names.clone()), Price::Unknown)
        }
    })
}

fn method(listing: &Listing) -> Method {
    let usual = match listing.kind {
        Kind::Http => Method::GET,
        Kind::Mcp => Method::POST,
    };
    listing.method.clone().unwrap_or(usual)
}

/// What the policy says to offers, as it would to those of a 402.
async fn offered(
    client: &Client,
    criteria: &Criteria,
    listing: &Listing,
    required: &PaymentRequired,
) -> Result<Assessment, Error> {
    let mut intent = Intent::of(method(listing), listing.url.clone(), None)?;
    if let Some(max) = criteria.max_price {
        intent = intent.max_price(max);
    }
    let price_check = match client.payer() {
        Some(payer) => payer.quote(required.clone(), &intent).await?,
        None => PriceCheck::unjudged(required.clone(), AssetRegistry::stablecoins()),
    };
    let here = |quote: &Quote| {
        criteria
            .network
            .is_none_or(|network| quote.network() == network)
    };
    let elsewhere = price_check
        .offers
        .iter()
        .any(|offer| offer.quote.as_ref().is_ok_and(|quote| !here(quote)));
    let mut offers: Vec<(&Quote, Standing)> = price_check
        .offers
        .iter()
        .filter_map(|offer| Some((offer.quote.as_ref().ok()?, standing(offer, criteria))))
        .collect();
    offers.retain(|(quote, _)| here(quote));
    // Nobody would take a denied offer while there is another.
    offers.sort_by_cached_key(|(quote, standing)| {
        (matches!(standing, Standing::Denied(_)), quote.preference())
    });
    Ok(match offers.into_iter().next() {
        Some((quote, standing)) => Assessment {
            standing,
            price: Price::Token(quote.amount()),
            quote: Some(quote.clone()),
        },
        None if elsewhere => Assessment::priced(Standing::OtherNetwork, Price::Unknown),
        None => {
            let reasons = price_check
                .offers
                .into_iter()
                .filter_map(|offer| offer.quote.err())
                .collect();
            Assessment::priced(Standing::Unpayable(reasons), Price::Unknown)
        }
    })
}

fn standing(offer: &PricedOffer, criteria: &Criteria) -> Standing {
    let dollars = offer.quote.as_ref().ok().and_then(Quote::dollars);
    match &offer.explanation {
        Some(said) => standing_of(said, Standing::Payable),
        None => match dollars.and_then(|dollars| above_max_price(dollars, criteria)) {
            Some(denial) => Standing::Denied(denial),
            None => Standing::NoWallet,
        },
    }
}

fn standing_of(said: &Explanation, good: Standing) -> Standing {
    match (said.denial(), &said.ask) {
        (Some(denial), _) => Standing::Denied(Box::new(denial.clone())),
        (None, Some(why)) => Standing::NeedsApproval(why.clone()),
        (None, None) => good,
    }
}

fn above_max_price(price: Usd, criteria: &Criteria) -> Option<Box<Denial>> {
    let max = criteria.max_price.filter(|max| price > *max)?;
    Some(Box::new(Denial::new(
        Rule::MaxPrice,
        format!("${price} is above the query's max_price of ${max}"),
    )))
}

/// What the policy says to a payment of which only a price in dollars is known: on the query's network, or on
/// the first of its own that it does not deny.
async fn at_any_payee(
    client: &Client,
    criteria: &Criteria,
    listing: &Listing,
    price: Usd,
    good: Standing,
) -> Result<Standing, Error> {
    let Some(payer) = client.payer() else {
        return Ok(good);
    };
    let networks: Vec<Network> = match criteria.network {
        Some(network) => vec![network],
        None => payer.policy().networks().to_vec(),
    };
    let mut worst = None;
    for network in networks {
        match on_network(payer, listing, price, network, &good).await? {
            None => {}
            Some(Standing::Denied(denial)) => drop(worst.get_or_insert(Standing::Denied(denial))),
            Some(standing) => return Ok(standing),
        }
    }
    Ok(worst.unwrap_or(Standing::OtherNetwork))
}

/// On one network; `None` where no dollar token is known. The payee is invented, so what the policy says to
/// payees is left aside.
async fn on_network(
    payer: &Payer,
    listing: &Listing,
    price: Usd,
    network: Network,
    good: &Standing,
) -> Result<Option<Standing>, Error> {
    let payment = Hypothetical::new(listing.url.clone(), price)
        .method(method(listing).as_str())
        .network(network);
    if payer.policy().imagine(&payment).is_none() {
        return Ok(None);
    }
    let mut said = payer.explain(&payment).await?;
    said.answers.retain(|answer| {
        !matches!(
            answer.rule,
            Rule::Payee | Rule::PayeeChanged | Rule::PayeeImpossible
        )
    });
    let standing = standing_of(&said, good.clone());
    // Of an unknown price only what does not hang on it is known.
    let about_price =
        matches!(standing, Standing::NeedsApproval(_)) && matches!(good, Standing::Unpriced);
    Ok(Some(if about_price { good.clone() } else { standing }))
}
