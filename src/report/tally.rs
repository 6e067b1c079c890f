//! Sums of purchases, by what became of them.

use std::collections::BTreeMap;

use alloy::primitives::{Address, U256};
use serde::{Serialize, Serializer};

use crate::json_text;
use crate::ledger::{Purchase, State};
use crate::money::format_units;
use crate::{Network, Timestamp, Usd};

/// Purchases, by what became of them: see [the module](super) for what each part means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the module's table says what each is")]
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

/// So many purchases, and their money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sum {
    /// How many.
    pub count: u64,
    /// Those with a dollar value, in micro-dollars rounded up for each; as text, in dollars.
    pub usd: Usd,
    /// How many have no dollar value, and are in `tokens` alone.
    pub unpriced: u64,
    /// Whether nothing was too large to be added.
    pub exact: bool,
    /// Atomic units by token, in the order of chain and address.
    #[serde(serialize_with = "values")]
    pub tokens: BTreeMap<(Network, Address), TokenSum>,
}

/// So much of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TokenSum {
    /// The chain; `off-chain` for the declared dollars of calls by a key.
    pub network: Network,
    /// The token.
    #[serde(serialize_with = "json_text::hash::serialize")]
    pub asset: Address,
    /// Its symbol, as the books have it.
    pub symbol: String,
    /// Its decimals.
    pub decimals: u8,
    /// Atomic units.
    #[serde(serialize_with = "json_text::hash::serialize")]
    pub units: U256,
}

/// `0.05 USDC on eip155:8453`.
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
    fn add(&mut self, entry: &Purchase, units: U256, usd: Option<Usd>) {
        self.count = self.count.saturating_add(1);
        match usd.map(|usd| self.usd.checked_add(usd)) {
            Some(Some(sum)) => self.usd = sum,
            Some(None) => (self.usd, self.exact) = (Usd::MAX, false),
            None => self.unpriced = self.unpriced.saturating_add(1),
        }
        let token = self
            .tokens
            .entry((entry.network, entry.asset))
            .or_insert_with(|| TokenSum {
                network: entry.network,
                asset: entry.asset,
                symbol: entry.symbol.clone(),
                decimals: entry.decimals,
                units: U256::ZERO,
            });
        match token.units.checked_add(units) {
            Some(sum) => token.units = sum,
            None => (token.units, self.exact) = (U256::MAX, false),
        }
    }
}

impl Tally {
    pub(super) fn of<'a>(purchases: impl Iterator<Item = &'a Purchase>, now: Timestamp) -> Self {
        let mut tally = Self::default();
        purchases.for_each(|entry| tally.add(entry, now));
        tally
    }

    pub(super) fn add(&mut self, entry: &Purchase, now: Timestamp) {
        let (value, usd) = (entry.value, entry.usd);
        let (part, is_spent) = match entry.state {
            State::Settled => (&mut self.paid, true),
            State::ApiCall => (&mut self.called, true),
            State::Signed | State::Rejected | State::Unresolved if entry.is_outstanding(now) => {
                (&mut self.outstanding, true)
            }
            State::Signed | State::Rejected | State::Unresolved => (&mut self.expired, true),
            State::Reserved if entry.counts(now) => (&mut self.held, false),
            // A hold that lapsed does not count, whether or not somebody has written so.
            State::Reserved | State::Voided => (&mut self.freed, false),
            State::ReleasedByProof => (&mut self.released, false),
        };
        part.add(entry, value, usd);
        if is_spent {
            self.spent.add(entry, value, usd);
        }
        if entry.state == State::Rejected {
            self.refused.add(entry, value, usd);
        }
        if entry.failed() {
            self.failed.add(entry, value, usd);
        }
        let back = entry.refunded();
        if !back.is_zero() {
            self.refunded
                .add(entry, back, usd.map(|usd| share(usd, back, value)));
        }
    }
}

/// The part of the dollars that came back; rounded down, as all that is not spent.
fn share(usd: Usd, back: U256, value: U256) -> Usd {
    let product = U256::from(usd.micros()).checked_mul(back);
    // Where the product is too large for 256 bits, the value is larger than any dollar amount is fine.
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
