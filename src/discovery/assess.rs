//! The assessment of a listed service by the policy and the ledger. It changes neither.

use std::fmt;

use http::Method;

use super::Criteria;
use super::listing::Listing;
use super::price::{AdvertisedPrice, Price};
use crate::error::Error;
use crate::http::Client;
use crate::money::AssetRegistry;
use crate::money::{Network, Usd};
use crate::payment::Payer;
use crate::policy::{AskingPrice, Denial, Explanation, PriceCheck, PricedOffer, Rule};
use crate::request::PurchaseRequest;
use crate::x402::PaymentRequired;
use crate::x402::{Quote, Unpayable};

/// The smallest price. bursar asks the policy about it if a service has no known price.
const LEAST: Usd = Usd::from_micros(1);

/// Whether bursar would pay a service at the advertised price, and the reason if not.
///
/// The service's own 402 decides when you call it.
///
/// ```no_run
/// use bursar::discovery::Standing;
///
/// # async fn example(client: bursar::Client) -> Result<(), bursar::Error> {
/// let findings = client.discover().well_known("https://api.example.com").find("").run().await?;
/// for service in &findings.services {
///     match &service.standing {
///         Standing::Payable => println!("{} costs {}", service.url, service.price),
///         Standing::Denied(denial) => println!("{}: {}", service.url, denial.message),
///         other => println!("{}: {other}", service.url),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// The policy allows the payment, and the ledger has room for it.
    Payable,
    /// An approver would be asked first, for this reason.
    NeedsApproval(String),
    /// bursar can sign for it, but the client has no wallet and so no policy.
    NoWallet,
    /// No price is advertised, and the policy denies nothing that is known. Call [`Client::quote`] to
    /// ask for the price.
    Unpriced,
    /// The request needs something first, such as a value in its URL.
    Incomplete(String),
    /// The policy or the query denies it.
    Denied(Box<Denial>),
    /// No offer is on the network of the query.
    OtherNetwork,
    /// The service accepts other payment protocols only.
    OtherProtocol(String),
    /// bursar cannot sign for any offer. Each offer has its reason.
    Unpayable(Vec<Unpayable>),
    /// The client refuses to connect, for instance because of plain http or a private address.
    Unreachable(String),
}

impl Standing {
    /// Returns whether bursar would pay, after an approval if one is needed.
    #[must_use]
    pub const fn is_payable(&self) -> bool {
        matches!(self, Self::Payable | Self::NeedsApproval(_))
    }

    /// Returns the stable name, such as `payable` or `denied`.
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

    /// Returns the reason against a payment without approval, or `None` if there is none.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        Some(match self {
            Self::Payable => return None,
            Self::NeedsApproval(why) | Self::Incomplete(why) | Self::Unreachable(why) => {
                why.clone()
            }
            Self::NoWallet => "the client has no wallet, so there is no policy to ask".to_owned(),
            Self::Unpriced => "no price is advertised".to_owned(),
            Self::Denied(denial) => denial.to_string(),
            Self::OtherNetwork => "no offer is on this network".to_owned(),
            Self::OtherProtocol(names) => format!("it accepts {names} only"),
            Self::Unpayable(reasons) => reasons
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("; "),
        })
    }

    /// Returns the position in the order of usefulness.
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

/// Writes `payable`, or the name and the reason: `denied: host …`.
impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            None => f.pad(self.name()),
            Some(reason) => write!(f, "{}: {reason}", self.name().replace('_', " ")),
        }
    }
}

/// The assessment of a listing.
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

/// Assesses a listing. Sends, signs and reserves nothing. `stopped` is the denial of a freeze, if
/// there is one.
///
/// # Errors
/// Returns an error if the ledger cannot be read.
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
    } else if let Some(needs) = listing
        .needs
        .clone()
        .filter(|_| assessment.standing.rank() <= Standing::Unpriced.rank())
    {
        assessment.standing = Standing::Incomplete(needs);
    }
    Ok(assessment)
}

/// Asks the policy about the advertised price.
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
        AdvertisedPrice::OtherProtocols(names) => {
            Assessment::priced(Standing::OtherProtocol(names.clone()), Price::Unknown)
        }
    })
}

fn method(listing: &Listing) -> Method {
    let default = listing.kind.default_method();
    listing.method.clone().unwrap_or(default)
}

/// Asks the policy about advertised offers, as about those of a 402.
async fn offered(
    client: &Client,
    criteria: &Criteria,
    listing: &Listing,
    required: &PaymentRequired,
) -> Result<Assessment, Error> {
    let mut request = PurchaseRequest::from_parts(method(listing), listing.url.clone(), None)?;
    if let Some(max) = criteria.max_price {
        request = request.max_price(max);
    }
    let price_check = match client.payer() {
        Some(payer) => payer.quote(required.clone(), &request).await?,
        None => PriceCheck::without_policy(required.clone(), AssetRegistry::stablecoins(), None),
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
    // Prefer any other offer to a denied one.
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
        Some(explanation) => standing_of(explanation, Standing::Payable),
        None => match dollars.and_then(|dollars| above_max_price(dollars, criteria)) {
            Some(denial) => Standing::Denied(denial),
            None => Standing::NoWallet,
        },
    }
}

fn standing_of(explanation: &Explanation, good: Standing) -> Standing {
    match (explanation.denial(), &explanation.ask) {
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

/// Asks the policy about a price in dollars, without a known payee.
///
/// Uses the query's network, or else the first network of the policy without a denial.
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

/// Asks about one network. Returns `None` if it has no known dollar token.
///
/// The payee is a placeholder, so this ignores the policy's answers about payees.
async fn on_network(
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
    let mut explanation = payer.explain(&request, price).await?;
    explanation.answers.retain(|answer| {
        !matches!(
            answer.rule,
            Rule::Payee | Rule::PayeeChanged | Rule::PayeeImpossible
        )
    });
    let standing = standing_of(&explanation, good.clone());
    // An approval that depends on the price means nothing if the price is unknown.
    let about_price =
        matches!(standing, Standing::NeedsApproval(_)) && matches!(good, Standing::Unpriced);
    Ok(Some(if about_price { good.clone() } else { standing }))
}
