//! Whether something that is advertised would be bought: asked of the policy and the books, changing neither.

use std::fmt;

use http::Method;

use super::Wish;
use super::listing::Listing;
use super::price::{Asked, Price};
use super::service::Kind;
use crate::asset::AssetRegistry;
use crate::policy::{AskingPrice, Denial, Explanation, PriceCheck, PricedOffer, Rule};
use crate::quote::{Quote, Unpayable};
use crate::{Client, Error, Network, Payer, PaymentRequired, PurchaseRequest, Usd};

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
    Unjudged,
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
            Self::Unjudged => "unjudged",
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
            Self::Unjudged => "there is no policy to ask".to_owned(),
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
            Self::Unjudged => 2,
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
pub(super) struct Judgement {
    pub(super) standing: Standing,
    pub(super) price: Price,
    pub(super) quote: Option<Quote>,
}

impl Judgement {
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
pub(super) async fn judge(
    client: &Client,
    wish: &Wish,
    listing: &Listing,
    stopped: Option<&Denial>,
) -> Result<Judgement, Error> {
    let mut judgement = priced(client, wish, listing).await?;
    if let Err(error) = client.may_go(&listing.url) {
        judgement.standing = Standing::Unreachable(error.message().to_owned());
    } else if let Some(denial) =
        stopped.filter(|_| judgement.standing.rank() <= Standing::Unpriced.rank())
    {
        judgement.standing = Standing::Denied(Box::new(denial.clone()));
    } else if let Some(lacks) = listing
        .lacks
        .clone()
        .filter(|_| judgement.standing.rank() <= Standing::Unpriced.rank())
    {
        judgement.standing = Standing::Incomplete(lacks);
    }
    Ok(judgement)
}

/// What the policy says to the price.
async fn priced(client: &Client, wish: &Wish, listing: &Listing) -> Result<Judgement, Error> {
    Ok(match &listing.asked {
        Asked::Nothing => Judgement::priced(
            asked_anything(client, wish, listing, LEAST, Standing::Unpriced).await?,
            Price::Unknown,
        ),
        Asked::Dollars { least, most } => {
            let good = if client.payer().is_some() {
                Standing::Payable
            } else {
                Standing::Unjudged
            };
            let standing = match too_dear(*most, wish) {
                Some(denial) => Standing::Denied(denial),
                None => asked_anything(client, wish, listing, (*most).max(LEAST), good).await?,
            };
            Judgement::priced(
                standing,
                Price::Dollars {
                    least: *least,
                    most: *most,
                },
            )
        }
        Asked::Offers(required) => offered(client, wish, listing, required).await?,
        Asked::Otherwise(names) => {
            Judgement::priced(Standing::OtherProtocol(names.clone()), Price::Unknown)
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
    wish: &Wish,
    listing: &Listing,
    required: &PaymentRequired,
) -> Result<Judgement, Error> {
    let mut request = PurchaseRequest::from_parts(method(listing), listing.url.clone(), None)?;
    if let Some(max) = wish.max_price {
        request = request.max_price(max);
    }
    let price_check = match client.payer() {
        Some(payer) => payer.quote(required.clone(), &request).await?,
        None => PriceCheck::without_policy(required.clone(), AssetRegistry::stablecoins()),
    };
    let here = |quote: &Quote| {
        wish.network
            .is_none_or(|network| quote.network() == network)
    };
    let elsewhere = price_check
        .offers
        .iter()
        .any(|offer| offer.quote.as_ref().is_ok_and(|quote| !here(quote)));
    let mut offers: Vec<(&Quote, Standing)> = price_check
        .offers
        .iter()
        .filter_map(|offer| Some((offer.quote.as_ref().ok()?, standing(offer, wish))))
        .collect();
    offers.retain(|(quote, _)| here(quote));
    // Nobody would take a denied offer while there is another.
    offers.sort_by_cached_key(|(quote, standing)| {
        (matches!(standing, Standing::Denied(_)), quote.preference())
    });
    Ok(match offers.into_iter().next() {
        Some((quote, standing)) => Judgement {
            standing,
            price: Price::Token(quote.amount()),
            quote: Some(quote.clone()),
        },
        None if elsewhere => Judgement::priced(Standing::OtherNetwork, Price::Unknown),
        None => {
            let reasons = price_check
                .offers
                .into_iter()
                .filter_map(|offer| offer.quote.err())
                .collect();
            Judgement::priced(Standing::Unpayable(reasons), Price::Unknown)
        }
    })
}

fn standing(offer: &PricedOffer, wish: &Wish) -> Standing {
    let dollars = offer.quote.as_ref().ok().and_then(Quote::dollars);
    match &offer.explanation {
        Some(said) => said_of(said, Standing::Payable),
        None => match dollars.and_then(|dollars| too_dear(dollars, wish)) {
            Some(denial) => Standing::Denied(denial),
            None => Standing::Unjudged,
        },
    }
}

fn said_of(said: &Explanation, good: Standing) -> Standing {
    match (said.denial(), &said.ask) {
        (Some(denial), _) => Standing::Denied(Box::new(denial.clone())),
        (None, Some(why)) => Standing::NeedsApproval(why.clone()),
        (None, None) => good,
    }
}

fn too_dear(price: Usd, wish: &Wish) -> Option<Box<Denial>> {
    let max = wish.max_price.filter(|max| price > *max)?;
    Some(Box::new(Denial::new(
        Rule::MaxPrice,
        format!("${price} is above the query's max_price of ${max}"),
    )))
}

/// What the policy says to a payment of which only a price in dollars is known: on the query's network, or on
/// the first of its own that it does not deny.
async fn asked_anything(
    client: &Client,
    wish: &Wish,
    listing: &Listing,
    price: Usd,
    good: Standing,
) -> Result<Standing, Error> {
    let Some(payer) = client.payer() else {
        return Ok(good);
    };
    let networks: Vec<Network> = match wish.network {
        Some(network) => vec![network],
        None => payer.policy().networks().to_vec(),
    };
    let mut worst = None;
    for network in networks {
        match imagined(payer, listing, price, network, &good).await? {
            None => {}
            Some(Standing::Denied(denial)) => drop(worst.get_or_insert(Standing::Denied(denial))),
            Some(standing) => return Ok(standing),
        }
    }
    Ok(worst.unwrap_or(Standing::OtherNetwork))
}

/// On one network; `None` where no dollar token is known. The payee is invented, so what the policy says to
/// payees is left aside.
async fn imagined(
    payer: &Payer,
    listing: &Listing,
    price: Usd,
    network: Network,
    good: &Standing,
) -> Result<Option<Standing>, Error> {
    let price = AskingPrice::new(price).network(network);
    if payer.policy().asking_quote(&price).is_none() {
        return Ok(None);
    }
    let request = PurchaseRequest::from_parts(method(listing), listing.url.clone(), Some(&[]))?;
    let mut said = payer.explain(&request, price).await?;
    said.answers.retain(|answer| {
        !matches!(
            answer.rule,
            Rule::Payee | Rule::PayeeChanged | Rule::PayeeImpossible
        )
    });
    let standing = said_of(&said, good.clone());
    // Of an unknown price only what does not hang on it is known.
    let about_price =
        matches!(standing, Standing::NeedsApproval(_)) && matches!(good, Standing::Unpriced);
    Ok(Some(if about_price { good.clone() } else { standing }))
}
