//! Comparing the cost of payments with the plan of an API key.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{Filter, Ledger, LedgerError, Purchase, State};
use crate::credential::CallPlan;
use crate::{HostPattern, Origin, Timestamp, Usd};

impl Ledger {
    /// Compares the cost of calls to a host with the cost of a plan for the same calls.
    ///
    /// `host` is a host such as `api.example.com`, a pattern such as `*.example.com`, or an origin
    /// such as `https://api.example.com`. Calls by payment and calls with an API key are counted, each
    /// at the cost that the ledger has for it.
    ///
    /// # Errors
    /// Returns [`LedgerError::Host`] if `host` has another form, and another error if the ledger
    /// cannot be read.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bursar::{CallPlan, Ledger};
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// let plan: CallPlan = "monthly=10,included=1000,per-call=0.002".parse()?;
    /// print!("{}", ledger.compare("api.example.com", &plan).await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compare(&self, host: &str, plan: &CallPlan) -> Result<Comparison, LedgerError> {
        let hosts =
            Hosts::parse(host).ok_or_else(|| LedgerError::Host(crate::text::excerpt(host)))?;
        let purchases = self.purchases(&Filter::all()).await?;
        Ok(Comparison::of((host, &hosts), plan, &purchases))
    }
}

/// The sellers that a comparison includes.
enum Hosts {
    Pattern(HostPattern),
    Origin(Origin),
}

impl Hosts {
    fn parse(text: &str) -> Option<Self> {
        if text.contains("://") {
            text.parse().ok().map(Self::Origin)
        } else {
            text.parse().ok().map(Self::Pattern)
        }
    }

    fn contain(&self, origin: &Origin) -> bool {
        match self {
            Self::Pattern(pattern) => pattern.matches(origin.host()),
            Self::Origin(only) => only == origin,
        }
    }
}

/// The cost of calls to a host, by payment and by API key, next to the cost of a plan for all of them.
///
/// `Display` shows the calculation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The host, pattern or origin.
    pub host: String,
    /// The plan, for people.
    pub plan: String,
    /// The number of paid calls.
    pub payments: u64,
    /// The cost of the paid calls.
    pub paid: Usd,
    /// The number of calls with an API key.
    pub calls: u64,
    /// The declared cost of the calls with an API key.
    pub declared: Usd,
    /// The number of purchases without a known outcome or dollar value. They are in no sum.
    pub left_out: u64,
    /// Every month from the first call to the last one.
    pub months: Vec<Month>,
    /// The cost of the plan in these months, or `None` if it is too large for [`Usd`].
    pub planned: Option<Usd>,
    /// The number of calls in a month from which the plan is cheaper than the average payment.
    pub wins_from: Option<u64>,
}

/// The calls of one calendar month (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Month {
    /// The month, such as `2026-11`.
    pub name: String,
    /// The number of calls, by payment or by API key.
    pub calls: u64,
    /// Their cost.
    pub cost: Usd,
    /// The cost of the plan, or `None` if it is too large for [`Usd`].
    pub planned: Option<Usd>,
}

impl Comparison {
    /// Adds up the purchases from these hosts.
    fn of<'a>(
        (host, hosts): (&str, &Hosts),
        plan: &CallPlan,
        purchases: impl IntoIterator<Item = &'a Purchase>,
    ) -> Self {
        let (mut payments, mut paid, mut calls, mut declared, mut left_out) =
            (0_u64, Usd::ZERO, 0_u64, Usd::ZERO, 0_u64);
        let mut months: BTreeMap<(i16, i8), (u64, Usd)> = BTreeMap::new();
        for purchase in purchases
            .into_iter()
            .filter(|purchase| hosts.contain(&purchase.origin))
        {
            let cost = match (purchase.state, purchase.usd) {
                (State::Settled, Some(usd)) => {
                    (payments, paid) = (payments.saturating_add(1), paid.saturating_add(usd));
                    usd
                }
                (State::ApiCall, Some(usd)) => {
                    (calls, declared) = (calls.saturating_add(1), declared.saturating_add(usd));
                    usd
                }
                (State::Voided | State::ReleasedByProof | State::Reserved, _) => continue,
                _ => {
                    left_out = left_out.saturating_add(1);
                    continue;
                }
            };
            let month = months.entry(month_of(purchase.reserved_at)).or_default();
            *month = (month.0.saturating_add(1), month.1.saturating_add(cost));
        }
        let months: Vec<Month> = with_gaps(&months)
            .map(|((year, month), (calls, cost))| Month {
                name: format!("{year:04}-{month:02}"),
                calls,
                cost,
                planned: plan.cost(calls),
            })
            .collect();
        let planned = months
            .iter()
            .try_fold(Usd::ZERO, |sum, month| sum.checked_add(month.planned?));
        let wins_from = plan.wins_from(paid, payments);
        Self {
            host: host.to_owned(),
            plan: plan.to_string(),
            payments,
            paid,
            calls,
            declared,
            left_out,
            months,
            planned,
            wins_from,
        }
    }

    /// Returns the sum of the paid and the declared costs.
    #[must_use]
    pub const fn spent(&self) -> Usd {
        self.paid.saturating_add(self.declared)
    }
}

fn month_of(at: Timestamp) -> (i16, i8) {
    let at = jiff::Timestamp::from_millisecond(at.millis())
        .unwrap_or_default()
        .to_zoned(jiff::tz::TimeZone::UTC);
    (at.year(), at.month())
}

/// Returns all months from the first to the last one. A month without calls also costs the fee.
fn with_gaps(
    months: &BTreeMap<(i16, i8), (u64, Usd)>,
) -> impl Iterator<Item = ((i16, i8), (u64, Usd))> {
    let last = months.keys().next_back().copied();
    let following = |(year, month): (i16, i8)| {
        if month >= 12 {
            (year.saturating_add(1), 1)
        } else {
            (year, month.saturating_add(1))
        }
    };
    let mut next = months.keys().next().copied();
    std::iter::from_fn(move || {
        let month = next?;
        next = (Some(month) < last).then(|| following(month));
        Some((month, months.get(&month).copied().unwrap_or_default()))
    })
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.host)?;
        let average = self
            .paid
            .micros()
            .checked_div(self.payments)
            .map(Usd::from_micros);
        let average = average
            .map(|each| format!("  ({each} USD each on average)"))
            .unwrap_or_default();
        writeln!(
            f,
            "  by payment  {:>8} calls  {:>14} USD{average}",
            self.payments,
            self.paid.to_string()
        )?;
        writeln!(
            f,
            "  by key      {:>8} calls  {:>14} USD  (as declared)",
            self.calls,
            self.declared.to_string()
        )?;
        if self.left_out > 0 {
            writeln!(
                f,
                "  left out    {:>8} purchases without a known outcome or dollar value",
                self.left_out
            )?;
        }
        writeln!(f, "the plan: {}", self.plan)?;
        for Month {
            name,
            calls,
            cost,
            planned,
        } in &self.months
        {
            let planned = planned.map_or_else(
                || "beyond counting".to_owned(),
                |planned| planned.to_string(),
            );
            writeln!(
                f,
                "  {name}     {calls:>8} calls  {planned:>14} USD  (spent: {cost} USD)"
            )?;
        }
        let spent = self.spent();
        match self.planned {
            _ if self.months.is_empty() => writeln!(f, "=> nothing was called")?,
            None => writeln!(
                f,
                "=> the plan costs more than dollars can count; {spent} USD was spent"
            )?,
            Some(planned) if planned < spent => {
                writeln!(
                    f,
                    "=> the plan would have cost {planned} USD, {} USD less than the {spent} USD spent",
                    spent.saturating_sub(planned)
                )?;
            }
            Some(planned) => {
                writeln!(
                    f,
                    "=> the plan would have cost {planned} USD, {} USD more than the {spent} USD spent",
                    planned.saturating_sub(spent)
                )?;
            }
        }
        match self.wins_from {
            Some(calls) => writeln!(
                f,
                "=> it is cheaper than paying from {calls} calls a month on"
            ),
            None if self.payments == 0 => writeln!(
                f,
                "=> nothing was paid, so there is no price to compare it with"
            ),
            None => writeln!(f, "=> it is never cheaper than paying"),
        }
    }
}
