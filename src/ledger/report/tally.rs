//! Sums of purchases by their outcome.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};
use serde::{Serialize, Serializer};

use crate::clock::Timestamp;
use crate::json_text;
use crate::ledger::{Purchase, State};
use crate::money::format_units;
use crate::money::{Network, Usd};

/// Sums of purchases by their outcome. [The module](super) explains the parts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the table of the module explains them")]
pub struct Tally {
    /// `paid`, `called`, `outstanding` and `expired` together.
    pub spent: Sum,
    pub paid: Sum,
    pub called: Sum,
    pub outstanding: Sum,
    pub expired: Sum,
    pub held: Sum,
    pub released: Sum,
    pub freed: Sum,
    pub refused: Sum,
    pub failed: Sum,
    pub refunded: Sum,
}

/// A number of purchases and their amount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sum {
    /// The number of purchases.
    pub count: u64,
    /// The amount of the purchases with a dollar value. Each is rounded up to the micro-dollar.
    pub usd: Usd,
    /// The number of purchases without a dollar value. They are only in `tokens`.
    pub unpriced: u64,
    /// Whether no sum was too large.
    pub exact: bool,
    /// The amount of each token, in the order of chain and address.
    #[serde(serialize_with = "values")]
    pub tokens: BTreeMap<(Network, Address), TokenSum>,
}

/// An amount of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenSum {
    /// The chain, or `off-chain` for the declared cost of calls with an API key.
    pub network: Network,
    /// The token.
    #[serde(serialize_with = "json_text::hash::serialize")]
    pub asset: Address,
    /// The symbol of the token.
    pub symbol: String,
    /// The decimals of the token.
    pub decimals: u8,
    /// The amount in atomic units.
    #[serde(serialize_with = "json_text::hash::serialize")]
    pub units: U256,
}

/// Writes `0.05 USDC on base`, for example.
impl std::fmt::Display for TokenSum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let network = self
            .network
            .name()
            .map_or_else(|| self.network.to_string(), ToOwned::to_owned);
        write!(
            f,
            "{} {} on {network}",
            format_units(self.units, self.decimals),
            self.symbol
        )
    }
}

fn values<S: Serializer>(
    tokens: &BTreeMap<(Network, Address), TokenSum>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(tokens.values())
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            count: 0,
            usd: Usd::ZERO,
            unpriced: 0,
            exact: true,
            tokens: BTreeMap::new(),
        }
    }
}

impl Sum {
    fn add(&mut self, purchase: &Purchase, units: U256, usd: Option<Usd>) {
        self.count = self.count.saturating_add(1);
        match usd.map(|usd| self.usd.checked_add(usd)) {
            Some(Some(sum)) => self.usd = sum,
            Some(None) => (self.usd, self.exact) = (Usd::MAX, false),
            None => self.unpriced = self.unpriced.saturating_add(1),
        }
        let token = self
            .tokens
            .entry((purchase.network, purchase.asset))
            .or_insert_with(|| TokenSum {
                network: purchase.network,
                asset: purchase.asset,
                symbol: purchase.symbol.clone(),
                decimals: purchase.decimals,
                units: U256::ZERO,
            });
        match token.units.checked_add(units) {
            Some(sum) => token.units = sum,
            None => (token.units, self.exact) = (U256::MAX, false),
        }
    }
}

impl Tally {
    pub(super) fn add(&mut self, purchase: &Purchase, now: Timestamp) {
        let (value, usd) = (purchase.counted(), purchase.counted_usd());
        let (part, is_spent) = match purchase.state {
            State::Settled => (&mut self.paid, true),
            State::ApiCall => (&mut self.called, true),
            State::Signed | State::Rejected | State::Unresolved if purchase.is_outstanding(now) => {
                (&mut self.outstanding, true)
            }
            State::Signed | State::Rejected | State::Unresolved => (&mut self.expired, true),
            State::Reserved if purchase.counts(now) => (&mut self.held, false),
            // A hold that lapsed does not count, even if it is not voided yet.
            State::Reserved | State::Voided => (&mut self.freed, false),
            State::ReleasedByProof => (&mut self.released, false),
        };
        part.add(purchase, value, usd);
        if is_spent {
            self.spent.add(purchase, value, usd);
        }
        if purchase.state == State::Rejected {
            self.refused.add(purchase, value, usd);
        }
        if purchase.failed() {
            self.failed.add(purchase, value, usd);
        }
        let back = purchase.refunded();
        if !back.is_zero() {
            self.refunded
                .add(purchase, back, usd.map(|usd| share(usd, back, value)));
        }
    }
}

/// Returns the part of the dollars that came back, rounded down.
fn share(usd: Usd, back: U256, value: U256) -> Usd {
    let product = U256::from(usd.micros()).checked_mul(back);
    // If the product does not fit 256 bits, the value is much larger than the dollars, so that dividing
    // first loses nothing.
    let micros = match product {
        Some(product) => product.checked_div(value),
        None => value
            .checked_div(U256::from(usd.micros()))
            .and_then(|unit| back.checked_div(unit)),
    };
    micros.map_or(Usd::ZERO, |micros| {
        Usd::from_micros(micros.try_into().unwrap_or(u64::MAX)).min(usd)
    })
}
