//! The price of a request, without a payment.

use url::Url;

use crate::clock::Timestamp;
use crate::money::AssetRegistry;
use crate::policy::Explanation;
use crate::x402::PaymentRequired;
use crate::x402::{Quote, Unpayable};

/// The price of a request, and the answer of the policy and the ledger to each offer. Nothing is signed.
///
/// ```
/// use bursar::PriceCheck;
///
/// fn show(check: &PriceCheck) {
///     match check.best() {
///         Some(quote) => println!("it would cost {}", quote.amount()),
///         None => println!("the policy allows none of {} offers", check.offers.len()),
///     }
/// }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PriceCheck {
    /// The seller's terms.
    pub required: PaymentRequired,
    /// Every offer, in the seller's order.
    pub offers: Vec<PricedOffer>,
}

/// One offer of a seller, and the answer of the policy to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PricedOffer {
    /// The verified offer, or the reason why bursar cannot sign for it.
    pub quote: Result<Quote, Unpayable>,
    /// The answer of each rule. `None` when bursar cannot sign for the offer, and for a client without a
    /// wallet.
    pub explanation: Option<Explanation>,
}

/// The outcome of asking for a price, over HTTP or MCP. `A` is the transport's answer.
///
/// ```
/// use bursar::{Client, PriceOutcome};
///
/// # async fn example(client: &Client) -> Result<(), bursar::Error> {
/// match client.get("https://api.example.com/report").quote().await? {
///     PriceOutcome::Priced(check) => println!("{:?}", check.best().map(|quote| quote.amount())),
///     PriceOutcome::Unpriced(response) => println!("free: {}", response.status()),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "there is a price or an answer")]
pub enum PriceOutcome<A> {
    /// The seller asks for a payment.
    Priced(Box<PriceCheck>),
    /// The seller asks for no x402 payment. It executed the request, and this is its answer.
    Unpriced(A),
}

impl<A> PriceOutcome<A> {
    /// Returns the price, if the seller asks for one.
    #[must_use]
    pub fn priced(self) -> Option<PriceCheck> {
        match self {
            Self::Priced(price_check) => Some(*price_check),
            Self::Unpriced(_) => None,
        }
    }
}

impl PriceCheck {
    /// The offers of a client without a wallet: no policy answers. `request` is the URL that was asked, and the time.
    pub(crate) fn without_policy(
        required: PaymentRequired,
        assets: &AssetRegistry,
        request: Option<(&Url, Timestamp)>,
    ) -> Self {
        let offers = Quote::read_all(&required, assets)
            .into_iter()
            .map(|mut quote| {
                if let (Ok(quote), Some((url, now))) = (&mut quote, request) {
                    quote.check_signature(url, now);
                }
                PricedOffer {
                    quote,
                    explanation: None,
                }
            });
        Self {
            offers: offers.collect(),
            required,
        }
    }

    /// Returns the offer that bursar would pay: of the offers that the policy allows, the
    /// [preferred](Self::preferred) one. `None` when the policy allows none.
    #[must_use]
    pub fn best(&self) -> Option<&Quote> {
        let allowed = |offer: &&PricedOffer| {
            let explanation = offer.explanation.as_ref();
            explanation.is_some_and(|explanation| explanation.denial().is_none())
        };
        self.offers
            .iter()
            .filter(allowed)
            .filter_map(|offer| offer.quote.as_ref().ok())
            .min_by_key(|quote| quote.preference())
    }

    /// Returns the offer that bursar would pay if the policy allowed all of them.
    ///
    /// bursar prefers `exact` by EIP-3009 to `exact` by Permit2, and both to `upto`, whose price is a ceiling. Among offers of
    /// one kind, it prefers a seller that settles after its work, then an offer that names the EIP-712 domain of its
    /// token, then the lowest price, then the seller's order.
    #[must_use]
    pub fn preferred(&self) -> Option<&Quote> {
        self.offers
            .iter()
            .filter_map(|offer| offer.quote.as_ref().ok())
            .min_by_key(|quote| quote.preference())
    }
}
