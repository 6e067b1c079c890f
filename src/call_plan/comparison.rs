//! A comparison of the payments to a host with a call plan.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::CallPlan;
use crate::clock::Timestamp;
use crate::money::Usd;

/// One call to a host, as the ledger recorded it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordedCall {
    /// The time at which the call was made.
    pub(crate) at: Timestamp,
    pub(crate) cost: CallCost,
}

/// The cost of a recorded call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallCost {
    /// The call was paid for with a settled payment.
    Paid(Usd),
    /// The call was made with an API key, which was declared to cost this much.
    ApiKey(Usd),
    /// The outcome or the value in dollars is not known.
    Unknown,
}

/// The cost of calls to a host, by payment and by API key, compared with the cost of a plan.
///
/// `Display` shows the calculation.
///
/// ```no_run
/// # async fn example(ledger: bursar::Ledger) -> Result<(), Box<dyn std::error::Error>> {
/// let plan = "monthly=10,included=1000,per-call=0.002".parse()?;
/// let comparison = ledger.compare("api.example.com", &plan).await?;
/// println!("{comparison}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The host, pattern or origin of the comparison.
    pub host: String,
    /// The plan as text.
    pub plan: String,
    /// The number of calls that were paid for.
    pub payments: u64,
    /// The sum of the payments.
    pub paid: Usd,
    /// The number of calls with an API key.
    pub calls: u64,
    /// The declared cost of the calls with an API key.
    pub declared: Usd,
    /// The number of purchases without a known outcome or a value in dollars. No sum includes them.
    pub left_out: u64,
    /// Every month from the first call to the last.
    pub months: Vec<Month>,
    /// The cost of the plan in these months, or `None` above [`Usd::MAX`].
    pub planned: Option<Usd>,
    /// The number of calls a month from which the plan costs less than the average payment.
    pub wins_from: Option<u64>,
}

/// The calls to a host in one calendar month (UTC).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Month {
    /// The month, such as `2026-11`.
    pub name: String,
    /// The number of calls, by payment and by API key.
    pub calls: u64,
    /// The cost of these calls.
    pub cost: Usd,
    /// The cost of the plan in this month, or `None` above [`Usd::MAX`].
    pub planned: Option<Usd>,
}

/// The calls to one host, added up.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    payments: u64,
    paid: Usd,
    calls: u64,
    declared: Usd,
    left_out: u64,
    /// The number of calls and their cost, by year and month.
    months: BTreeMap<(i16, i8), (u64, Usd)>,
}

impl Extend<RecordedCall> for Calls {
    fn extend<T: IntoIterator<Item = RecordedCall>>(&mut self, recorded: T) {
        for call in recorded {
            let (count, sum, cost) = match call.cost {
                CallCost::Paid(usd) => (&mut self.payments, &mut self.paid, usd),
                CallCost::ApiKey(usd) => (&mut self.calls, &mut self.declared, usd),
                CallCost::Unknown => {
                    self.left_out = self.left_out.saturating_add(1);
                    continue;
                }
            };
            let month = self.months.entry(month_of(call.at)).or_default();
            for (count, sum) in [(count, sum), (&mut month.0, &mut month.1)] {
                *count = count.saturating_add(1);
                *sum = sum.saturating_add(cost);
            }
        }
    }
}

impl Calls {
    /// Compares the calls with the cost of the same calls with `plan`.
    pub(crate) fn compare(self, host: &str, plan: &CallPlan) -> Comparison {
        let months: Vec<Month> = with_gaps(&self.months)
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
        Comparison {
            host: host.to_owned(),
            plan: plan.to_string(),
            payments: self.payments,
            paid: self.paid,
            calls: self.calls,
            declared: self.declared,
            left_out: self.left_out,
            months,
            planned,
            wins_from: plan.wins_from(self.paid, self.payments),
        }
    }
}

impl Comparison {
    /// Returns the total cost, by payment and by API key.
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

/// Returns all months from the first to the last. A month without calls still costs its fee.
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
