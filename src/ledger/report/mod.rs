//! Reports: the purchases of a period, added up.
//!
//! [`Ledger::report`](crate::Ledger::report) makes a [`Report`] of the purchases that a
//! [`Selection`] selects. It needs neither a key nor a policy.
//!
//! ```no_run
//! use bursar::Ledger;
//! use bursar::report::Selection;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let ledger = Ledger::open("agent.db")?;
//! let report = ledger.report(&Selection::new().tag("research")).await?;
//! println!("{} USD spent in {} calls", report.total.spent.usd, report.total.spent.count);
//! std::fs::write("spending.csv", report.to_csv())?;
//! # Ok(())
//! # }
//! ```
//!
//! # The parts of a sum
//!
//! Every purchase and every call with an API key is in exactly one of the first seven parts of a
//! [`Tally`]. `spent` is the sum of the first four.
//!
//! | part | purchases |
//! |---|---|
//! | `paid` | settled: by the seller's matching receipt or by the chain |
//! | `called` | made with an API key, at the declared cost |
//! | `outstanding` | signed and unresolved; the seller can still settle them |
//! | `expired` | signed, unresolved and expired; only the chain knows whether they settled |
//! | `held` | reserved now; nothing is signed |
//! | `released` | signed; the chain proves that they were never paid |
//! | `freed` | given up before a signature, or a call that the seller refused |
//! | `refused` | signed, and the seller answered 402 again (also in a part above) |
//! | `failed` | perhaps paid and not delivered (also in a part above) |
//! | `refunded` | the money that came back; it is not subtracted from `spent` |
//!
//! A payment that the policy denied is no purchase. [`Report::denials`] counts denials by rule and host. They are kept
//! without a tag and an agent, and with the times of the first and the last one only: a report has those of its hosts
//! whose first and last time overlap its period, and none if it selects a tag or an agent.
//!
//! # Money
//!
//! Sums are integers. Dollars are in micro-dollars, rounded up for each purchase. Tokens are in
//! atomic units. A token without a dollar value is only in `tokens`, and `unpriced` counts it. If a
//! sum is too large, it stays at the largest amount and `exact` is false.
//!
//! # Large ledgers
//!
//! A report reads the ledger page by page, and payments do not wait for it. It has at most 2,000 groups of each
//! dimension: those whose first purchases are the oldest. The purchases of all other groups are together in
//! [`Section::others`]. It lists the 1,000 oldest unresolved purchases, and counts the others.

mod csv;
mod selection;
mod tally;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

pub use selection::{Selection, UnknownZone, Zone};
pub use tally::{Sum, Tally, TokenSum};

use super::{DenialCount, Ledger, LedgerError, Purchase, PurchaseId, State};
use crate::clock::Timestamp;
use crate::limit::LimitStatus;
use crate::money::format_units;
use crate::money::{Network, Usd};
use crate::origin::Origin;

/// The most groups of a dimension.
const GROUPS: usize = 2000;
/// The most unresolved purchases that are listed.
const UNRESOLVED: usize = 1000;

/// The purchases of a period, added up.
///
/// Serialized as JSON, amounts are decimal strings: dollars, and atomic units of tokens.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The time of the report. A payment is outstanding or expired at this time.
    pub at: Timestamp,
    /// The selection.
    pub selection: Selection,
    /// The sums of all selected purchases.
    pub total: Tally,
    /// The sums by each dimension.
    pub sections: Vec<Section>,
    /// The unresolved purchases, oldest first; at most 1,000.
    pub unresolved: Vec<Unresolved>,
    /// The number of unresolved purchases that are not listed.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_unresolved: u64,
    /// The denials by rule and host, the latest first. Empty if the report was not made by [`Ledger::report`].
    pub denials: Vec<DenialCount>,
    /// The limits and their use by the whole ledger. Empty unless set by
    /// [`with_budget`](Self::with_budget).
    pub budget: Vec<LimitStatus>,
}

/// The property that groups purchases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Dimension {
    /// The calendar day of the reservation in the selection's zone, such as `2026-11-23`.
    Day,
    /// The seller's host.
    Host,
    /// The address that is paid. A call with an API key has none.
    Payee,
    /// The tag of the request.
    Tag,
    /// The agent that bought.
    Agent,
    /// The means of payment.
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

    /// Returns the stable name, such as `host`.
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

    /// Returns the group of a purchase, or `None` if it has no tag, no agent and so on.
    fn group(self, purchase: &Purchase, zone: &Zone) -> Option<String> {
        match self {
            Self::Day => zone.day(purchase.reserved_at),
            Self::Host => Some(purchase.origin.host().to_owned()),
            Self::Payee => {
                (Means::of(purchase) == Means::Payment).then(|| purchase.payee.to_string())
            }
            Self::Tag => purchase.tag.clone(),
            Self::Agent => purchase.agent.clone(),
            Self::Means => Some(Means::of(purchase).to_string()),
        }
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The means of payment of a call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Means {
    /// A signed authorization.
    Payment,
    /// The API key of this name, at a declared cost.
    Key(String),
}

impl Means {
    /// Returns the means of payment of a purchase.
    #[must_use]
    pub fn of(purchase: &Purchase) -> Self {
        purchase.credential.clone().map_or(Self::Payment, Self::Key)
    }
}

/// Writes `payment` or `key NAME`.
impl fmt::Display for Means {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Payment => f.pad("payment"),
            Self::Key(name) => f.pad(&format!("key {name}")),
        }
    }
}

/// The selected purchases, grouped by one dimension.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Section {
    /// The dimension.
    pub by: Dimension,
    /// The groups. Days are in order of time. Others are in order of dollars spent, largest first, and
    /// then of names. At most 2,000.
    pub groups: Vec<Group>,
    /// The sums of all purchases in no group, if there are more groups than that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub others: Option<Tally>,
}

/// The purchases of one group.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Group {
    /// The name of the group, or `None` for purchases without a tag, agent or payee.
    pub name: Option<String>,
    /// Their sums.
    pub tally: Tally,
}

/// An unresolved purchase.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Unresolved {
    /// The purchase.
    pub purchase: PurchaseId,
    /// The state: `signed`, `rejected` or `unresolved`.
    pub state: State,
    /// The time of the reservation.
    pub reserved_at: Timestamp,
    /// The time after which the payment can no longer settle.
    pub expires_at: Timestamp,
    /// Whether the payment can still settle.
    pub outstanding: bool,
    /// The seller.
    pub origin: Origin,
    /// The chain.
    pub network: Network,
    /// The amount in units of the token, such as `0.01 USDC`.
    pub amount: String,
    /// The value in dollars, rounded up to the micro-dollar.
    pub usd: Option<Usd>,
}

impl Unresolved {
    fn of(purchase: &Purchase, now: Timestamp) -> Self {
        Self {
            purchase: purchase.id.clone(),
            state: purchase.state,
            reserved_at: purchase.reserved_at,
            expires_at: purchase.expires_at,
            outstanding: purchase.is_outstanding(now),
            origin: purchase.origin.clone(),
            network: purchase.network,
            amount: format!(
                "{} {}",
                format_units(purchase.value, purchase.decimals),
                purchase.symbol
            ),
            usd: purchase.usd,
        }
    }
}

impl Ledger {
    /// Returns a report of the purchases that `selection` selects.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    /// use bursar::report::Selection;
    ///
    /// let ledger = Ledger::memory();
    /// let report = ledger.report(&Selection::new()).await?;
    /// assert_eq!(report.total.spent.count, 0);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn report(&self, selection: &Selection) -> Result<Report, LedgerError> {
        self.report_with_progress(selection, |_| {}).await
    }

    /// Returns a report as [`report`](Self::report) does. Calls `read` with the number of purchases that each step read,
    /// for ledgers that take long to read.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    /// use bursar::report::Selection;
    ///
    /// let mut total = 0_usize;
    /// let ledger = Ledger::memory();
    /// let report = ledger
    ///     .report_with_progress(&Selection::new(), |purchases| total = total.saturating_add(purchases))
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn report_with_progress(
        &self,
        selection: &Selection,
        mut read: impl FnMut(usize) + Send,
    ) -> Result<Report, LedgerError> {
        let mut adding = Adding::new(selection, self.now());
        adding.report.denials = self.denials().await?;
        let denials = &mut adding.report.denials;
        denials.retain(|denials| selection.selects_denials(denials));
        let mut pages = self.pages(&selection.filter());
        while let Some(purchases) = pages.next().await? {
            purchases.iter().for_each(|purchase| adding.add(purchase));
            read(purchases.len());
        }
        Ok(adding.report())
    }
}

impl Report {
    /// Returns the report of the selected ones of these purchases, at the time `now`.
    #[must_use]
    pub fn of<'a>(
        purchases: impl IntoIterator<Item = &'a Purchase>,
        selection: &Selection,
        now: Timestamp,
    ) -> Self {
        let mut selected: Vec<&Purchase> = purchases
            .into_iter()
            .filter(|purchase| selection.selects(purchase))
            .collect();
        selected.sort_by_key(|purchase| purchase.seq);
        let mut adding = Adding::new(selection, now);
        selected
            .into_iter()
            .for_each(|purchase| adding.add(purchase));
        adding.report()
    }

    /// Adds the limits of a policy and their use, from [`Payer::budget`](crate::Payer::budget).
    #[must_use]
    pub fn with_budget(mut self, budget: Vec<LimitStatus>) -> Self {
        self.budget = budget;
        self
    }

    /// Returns the groups of one dimension.
    #[must_use]
    pub fn by(&self, dimension: Dimension) -> &[Group] {
        self.sections
            .iter()
            .find(|section| section.by == dimension)
            .map_or(&[], |section| &section.groups)
    }

    /// Returns the sums as CSV (RFC 4180) with a header line. The line `total` is for all purchases,
    /// and each group has a line of its own. The line `others` with the name of a dimension is for all groups
    /// beyond 2,000. Amounts are in dollars. `tokens` has the amount of each token.
    ///
    /// Denials are not in it. A field that a spreadsheet would read as a formula begins with an apostrophe.
    #[must_use]
    pub fn to_csv(&self) -> String {
        csv::write(self)
    }
}

/// A report while purchases are added, oldest first.
struct Adding {
    report: Report,
    sections: [Groups; Dimension::ALL.len()],
}

/// The groups of a dimension, and the sums of the purchases in no group.
type Groups = (BTreeMap<Option<String>, Tally>, Option<Tally>);

impl Adding {
    fn new(selection: &Selection, now: Timestamp) -> Self {
        let report = Report {
            at: now,
            selection: selection.clone(),
            total: Tally::default(),
            sections: Vec::new(),
            unresolved: Vec::new(),
            more_unresolved: 0,
            denials: Vec::new(),
            budget: Vec::new(),
        };
        Self {
            report,
            sections: Default::default(),
        }
    }

    fn add(&mut self, purchase: &Purchase) {
        let report = &mut self.report;
        report.total.add(purchase, report.at);
        for (by, (groups, others)) in Dimension::ALL.into_iter().zip(&mut self.sections) {
            let name = by.group(purchase, report.selection.zone_of_days());
            let tally = if groups.len() < GROUPS || groups.contains_key(&name) {
                groups.entry(name).or_default()
            } else {
                others.get_or_insert_default()
            };
            tally.add(purchase, report.at);
        }
        if purchase.is_unresolved() && report.unresolved.len() < UNRESOLVED {
            report.unresolved.push(Unresolved::of(purchase, report.at));
        } else if purchase.is_unresolved() {
            report.more_unresolved = report.more_unresolved.saturating_add(1);
        }
    }

    fn report(self) -> Report {
        let sections = Dimension::ALL.into_iter().zip(self.sections);
        let sections = sections.map(|(by, (tallies, others))| {
            let groups = tallies.into_iter();
            let mut groups: Vec<Group> =
                groups.map(|(name, tally)| Group { name, tally }).collect();
            if by != Dimension::Day {
                // The sort is stable: groups with the same amount stay in the order of their names.
                groups.sort_by_key(|group| Reverse(group.tally.spent.usd));
            }
            Section { by, groups, others }
        });
        Report {
            sections: sections.collect(),
            ..self.report
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}
