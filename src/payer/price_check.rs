//! What something would cost.

use crate::money::AssetRegistry;
use crate::policy::Explanation;
use crate::x402::PaymentRequired;
use crate::x402::{Quote, Unpayable};

/// What something would cost, and what the policy and the books say to it. Nothing is signed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PriceCheck {
    /// The seller's terms.
    pub required: PaymentRequired,
    /// Every offer, in the seller's order.
    pub offers: Vec<PricedOffer>,
}

/// One offer of a seller with what would become of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PricedOffer {
    /// What could be signed, or why not.
    pub quote: Result<Quote, Unpayable>,
    /// What each rule answers; `None` for an offer that cannot be signed for, and for a client
    /// without a wallet.
    pub explanation: Option<Explanation>,
}

impl PriceCheck {
    pub(crate) fn unjudged(required: PaymentRequired, assets: &AssetRegistry) -> Self {
        let offers = Quote::read_all(&required, assets)
            .into_iter()
            .map(|quote| PricedOffer {
                quote,
                explanation: None,
            });
        Self {
            offers: offers.collect(),
            required,
        }
    }

    /// The offer that would be paid: of those that the policy allows, the one that bursar prefers. That
    /// is the cheapest of those whose seller settles after its work and names its token's domain; see
    /// [`preferred`](Self::preferred).
    #[must_use]
    pub fn best(&self) -> Option<&Quote> {
        let allowed = self.offers.iter().filter(|offer| {
            offer
                .explanation
                .as_ref()
                .is_some_and(|said| said.denial().is_none())
        });
        allowed
            .filter_map(|offer| offer.quote.as_ref().ok())
            .min_by_key(|quote| quote.preference())
    }

    /// The offer that bursar would pay if the policy allowed all: a seller that settles after its work
    /// before one that settles first, an offer that names its token's EIP-712 domain before one that
    /// does not, then the cheapest, then the seller's order.
    #[must_use]
    pub fn preferred(&self) -> Option<&Quote> {
        self.offers
            .iter()
            .filter_map(|offer| offer.quote.as_ref().ok())
            .min_by_key(|quote| quote.preference())
    }
}
