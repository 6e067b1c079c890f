//! Where the money went: the books added up, for people and for programs.
//!
//! A [`Report`] is reckoned from [`Purchase`]s and a moment alone: it reads no clock and writes no
//! books. [`Client::report`](crate::Client::report) and [`Payer::report`](crate::Payer::report)
//! bring both, and what is left of each limit.
//!
//! ```
//! # use bursar::Client;
//! use bursar::report::Selection;
//!
//! # async fn example(client: &Client) -> Result<(), Box<dyn std::error::Error>> {
//! let report = client.report(&Selection::new().tag("research")).await?;
//! println!("{} USD spent in {} calls", report.total.spent.usd, report.total.spent.count);
//! std::fs::write("spending.csv", report.to_csv())?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is counted
//!
//! Every purchase and every call by a key is in exactly one of these parts of a [`Tally`]; `spent`
//! is the sum of the first four, and what every limit counts but holds:
//!
//! | part | what |
//! |---|---|
//! | `paid` | settled: the seller named a transaction that matches, or the chain showed it |
//! | `called` | made with an API key, at the cost declared for it |
//! | `outstanding` | signed and unresolved, and the seller can still cash it |
//! | `expired` | signed and unresolved, and too late to be cashed: it was, or it was not, and only the chain knows |
//! | `held` | reserved for a purchase under way; nothing is signed |
//! | `released` | signed, and proved by the chain never to have been paid |
//! | `freed` | given up before anything was signed, or a call that the key was turned away from |
//!
//! Three more say how it went, and are counted beside: `refused` (signed, and the seller answered
//! 402 again), `failed` (taken, or perhaps, and not delivered) and `refunded` (what came back; it is
//! not taken off `spent`).
//!
//! What the *policy* refused is not in the books, because nothing was bought. A
//! [`Counts`](crate::telemetry::Counts) beside the client counts that, by rule.
//!
//! # Money
//!
//! Sums are integers: micro-dollars, rounded up for each purchase as its limits count it, and atomic
//! units for each token. A token without a dollar value is in its own units alone, and counted by
//! `unpriced`. A sum too large to be written is held at the largest amount, and `exact` is false.

mod csv;
mod selection;
mod tally;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub use selection::{Selection, Zone};
pub use tally::{Sum, Tally, TokenSum};

use crate::ledger::{Purchase, PurchaseId, State};
use crate::limit::LimitStatus;
use crate::money::format_units;
use crate::{Network, Origin, Timestamp, Usd};

/// The books of a period, added up.
///
/// As JSON, by [`Serialize`], money is in decimal strings: dollars, and atomic units.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// When it was made: what is outstanding is so at this moment.
    pub at: Timestamp,
    /// What was asked for.
    pub selection: Selection,
    /// Everything that was selected.
    pub total: Tally,
    /// The same, by each dimension.
    pub sections: Vec<Section>,
    /// What is signed and unresolved, oldest first.
    pub unresolved: Vec<Unresolved>,
    /// What is left of each limit, over all of the books and not the selection alone.
    pub budget: Vec<LimitStatus>,
}

/// What purchases are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dimension {
    /// The calendar day it was reserved on, in the selection's zone: `2026-11-23`.
    Day,
    /// The seller's host.
    Host,
    /// The address that is paid; none for calls by a key.
    Payee,
    /// The request's tag.
    Tag,
    /// The agent that bought.
    Agent,
    /// How it was paid for.
    Means,
}

impl Dimension {
    const ALL: [Self; 6] = [
        Self::Day,
        Self::Host,
        Self::Payee,
        Self::Tag,
        Self::Agent,
        Self::Means,
    ];

    /// The stable name, such as `host`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Host => "host",
            Self::Payee => "payee",
            Self::Tag => "tag",
            Self::Agent => "agent",
            Self::Means => "means",
        }
    }

    /// The group that an entry belongs to; `None` for those without a tag, an agent and so on.
    fn group(self, entry: &Purchase, zone: &Zone) -> Option<String> {
        match self {
            Self::Day => zone.day(entry.reserved_at),
            Self::Host => Some(entry.origin.host().to_owned()),
            Self::Payee => (Means::of(entry) == Means::Payment).then(|| entry.payee.to_string()),
            Self::Tag => entry.tag.clone(),
            Self::Agent => entry.agent.clone(),
            Self::Means => Some(Means::of(entry).to_string()),
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a call is paid for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Means {
    /// An authorization that was signed for it.
    Payment,
    /// An API key, by its name in the policy, at a declared cost.
    Key(String),
}

impl Means {
    /// How this entry was paid for.
    #[must_use]
    pub fn of(entry: &Purchase) -> Self {
        entry.credential.clone().map_or(Self::Payment, Self::Key)
    }
}

/// `payment`, `key NAME`.
impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payment => f.pad("payment"),
            Self::Key(name) => f.pad(&format!("key {name}")),
        }
    }
}

/// The selected purchases by one dimension.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Section {
    /// What they are grouped by.
    pub by: Dimension,
    /// Days in their order; all else by what was spent in dollars, most first, then by name.
    pub groups: Vec<Group>,
}

/// The purchases that have something in common.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// What they have in common; `None` if it is that they have no tag, no agent or no payee.
    pub name: Option<String>,
    /// Their sums.
    pub tally: Tally,
}

/// A purchase that is signed and unresolved.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Unresolved {
    /// The purchase.
    pub purchase: PurchaseId,
    /// `signed`, `rejected` or `unknown`.
    pub state: State,
    /// When it was reserved.
    pub reserved_at: Timestamp,
    /// From when on it can no longer be cashed.
    pub expires_at: Timestamp,
    /// Whether that is still to come.
    pub outstanding: bool,
    /// The seller.
    pub origin: Origin,
    /// The chain.
    pub network: Network,
    /// In the token's own units: `0.01 USDC`.
    pub amount: String,
    /// Rounded up to the micro-dollar.
    pub usd: Option<Usd>,
}

impl Unresolved {
    fn of(entry: &Purchase, now: Timestamp) -> Self {
        Self {
            purchase: entry.purchase.clone(),
            state: entry.state,
            reserved_at: entry.reserved_at,
            expires_at: entry.expires_at,
            outstanding: entry.is_outstanding(now),
            origin: entry.origin.clone(),
            network: entry.network,
            amount: format!(
                "{} {}",
                format_units(entry.value, entry.decimals),
                entry.symbol
            ),
            usd: entry.usd,
        }
    }
}

impl Report {
    /// Adds up those of `entries` that are selected, as they stand at `now`; `budget` is what
    /// [`Payer::budget`](crate::Payer::budget) says, or nothing.
    #[must_use]
    pub fn of<'a>(
        purchases: impl IntoIterator<Item = &'a Purchase>,
        budget: Vec<LimitStatus>,
        selection: &Selection,
        now: Timestamp,
    ) -> Self {
        let mut selected: Vec<&Purchase> = purchases
            .into_iter()
            .filter(|entry| selection.selects(entry))
            .collect();
        selected.sort_by_key(|entry| entry.seq);
        let section = |by| Section {
            by,
            groups: grouped(&selected, by, selection.zone_of_days(), now),
        };
        Self {
            at: now,
            total: Tally::of(selected.iter().copied(), now),
            sections: Dimension::ALL.map(section).into(),
            unresolved: selected
                .iter()
                .filter(|entry| entry.is_unresolved())
                .map(|entry| Unresolved::of(entry, now))
                .collect(),
            budget,
            selection: selection.clone(),
        }
    }

    /// The groups of one dimension.
    #[must_use]
    pub fn by(&self, dimension: Dimension) -> &[Group] {
        self.sections
            .iter()
            .find(|section| section.by == dimension)
            .map_or(&[], |section| &section.groups)
    }

    /// The sums as CSV (RFC 4180) with a header line: one line for all, named `total`, and one for
    /// each group. Money is in dollars; `tokens` says what was spent of each token.
    ///
    /// A text field that a spreadsheet would take for a formula is written with a leading apostrophe.
    #[must_use]
    pub fn to_csv(&self) -> String {
        csv::write(self)
    }
}

fn grouped(purchases: &[&Purchase], by: Dimension, zone: &Zone, now: Timestamp) -> Vec<Group> {
    let mut tallies: BTreeMap<Option<String>, Tally> = BTreeMap::new();
    for entry in purchases {
        tallies
            .entry(by.group(entry, zone))
            .or_default()
            .add(entry, now);
    }
    let mut groups: Vec<Group> = tallies
        .into_iter()
        .map(|(name, tally)| Group { name, tally })
        .collect();
    if by != Dimension::Day {
        // Stable: those that cost the same stay in the order of their names.
        groups.sort_by_key(|group| Reverse(group.tally.spent.usd));
    }
    groups
}
