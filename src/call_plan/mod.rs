//! The prices of calls with an API key, and a comparison of them with payments.

mod comparison;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::money::Usd;

pub(crate) use comparison::{CallCost, Calls, RecordedCall};
pub use comparison::{Comparison, Month};

/// The prices of an API key's provider for one calendar month (UTC).
///
/// A plan has a monthly fee, a number of included calls, and a price for each further call. The price
/// may change from a certain call of the month on.
///
/// A plan parses from text, with amounts in dollars:
/// `monthly=10,included=1000,per-call=0.002,from-10001=0.001`.
///
/// ```
/// use bursar::usd;
/// use bursar::credential::CallPlan;
///
/// let plan: CallPlan = "monthly=10,included=1000,per-call=0.002,from-2001=0.001".parse()?;
/// assert_eq!(plan, CallPlan::per_call(usd!("0.002")).monthly(usd!("10")).included(1000).from_call(2001, usd!("0.001")));
/// assert_eq!(plan.cost(1000), Some(usd!("10")));
/// assert_eq!(plan.cost(2002), Some(usd!("12.002"))); // 10 + 1000 x 0.002 + 2 x 0.001
/// # Ok::<(), bursar::credential::ParsePlanError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallPlan {
    monthly: Usd,
    included: u64,
    per_call: Usd,
    /// The number of the first call with a price, and that price; ascending.
    tiers: BTreeMap<u64, Usd>,
}

/// Consecutive calls with one price: the number of calls before them, and the price of each.
#[derive(Clone, Copy)]
struct Stretch {
    after: u64,
    price: Usd,
}

impl CallPlan {
    /// Creates a plan with this price for each call.
    #[must_use]
    pub const fn per_call(price: Usd) -> Self {
        Self {
            monthly: Usd::ZERO,
            included: 0,
            per_call: price,
            tiers: BTreeMap::new(),
        }
    }

    /// Sets the monthly fee. The provider bills it in a month without calls too.
    #[must_use]
    pub const fn monthly(mut self, fee: Usd) -> Self {
        self.monthly = fee;
        self
    }

    /// Sets the number of calls a month that the fee includes.
    #[must_use]
    pub const fn included(mut self, calls: u64) -> Self {
        self.included = calls;
        self
    }

    /// Sets another price for each call of a month from call `number` on, counted from one.
    ///
    /// Included calls stay included.
    #[must_use]
    pub fn from_call(mut self, number: u64, price: Usd) -> Self {
        self.tiers.insert(number, price);
        self
    }

    /// Returns whether every call has the same price.
    pub(crate) fn is_flat(&self) -> bool {
        self.included == 0 && self.tiers.is_empty()
    }

    /// Returns the number of calls in a month after which the price does not change any more.
    pub(crate) fn last_change(&self) -> u64 {
        self.stretches()
            .next_back()
            .map_or(0, |stretch| stretch.after)
    }

    /// Returns the price of the next call after `calls` calls in a month, without the fee.
    #[must_use]
    pub fn next_call(&self, calls: u64) -> Usd {
        self.stretches()
            .rfind(|stretch| stretch.after <= calls)
            .map_or(self.per_call, |stretch| stretch.price)
    }

    /// Returns the cost of a month with `calls` calls and the fee, or `None` above [`Usd::MAX`].
    #[must_use]
    pub fn cost(&self, calls: u64) -> Option<Usd> {
        let mut cost = self.monthly;
        let stretches: Vec<Stretch> = self.stretches().collect();
        for (position, stretch) in stretches.iter().enumerate() {
            let end = stretches
                .get(position.saturating_add(1))
                .map_or(u64::MAX, |next| next.after);
            let within = calls.min(end).saturating_sub(stretch.after);
            let stretch = stretch
                .price
                .micros()
                .checked_mul(within)
                .filter(|micros| *micros <= Usd::MAX.micros())?;
            cost = cost.checked_add(Usd::from_micros(stretch))?;
        }
        Some(cost)
    }

    /// Returns the number of calls a month from which the plan costs less than paying.
    ///
    /// `paid` is the sum of `payments` payments. Returns `None` if the plan never costs less.
    #[must_use]
    pub fn wins_from(&self, paid: Usd, payments: u64) -> Option<u64> {
        let (paid, payments) = (i128::from(paid.micros()), i128::from(payments));
        if payments == 0 {
            return None;
        }
        let stretches: Vec<Stretch> = self.stretches().collect();
        for (position, stretch) in stretches.iter().enumerate() {
            let end = stretches
                .get(position.saturating_add(1))
                .map_or(u64::MAX, |next| next.after);
            let before = i128::from(self.cost(stretch.after)?.micros());
            // After k calls of the stretch the plan is cheaper if
            // (before + k price) payments < (after + k) paid, which is k gain > lag.
            let gain =
                paid.checked_sub(i128::from(stretch.price.micros()).checked_mul(payments)?)?;
            let lag = before
                .checked_mul(payments)?
                .checked_sub(i128::from(stretch.after).checked_mul(paid)?)?;
            let first = match lag {
                lag if gain > lag => 1,
                _ if gain <= 0 => continue,
                lag => lag.checked_div(gain)?.checked_add(1)?,
            };
            if first <= i128::from(end.saturating_sub(stretch.after)) {
                return stretch.after.checked_add(u64::try_from(first).ok()?);
            }
        }
        None
    }

    /// Returns the stretches in ascending order. The first begins with the first call.
    fn stretches(&self) -> impl DoubleEndedIterator<Item = Stretch> {
        let first = if self.included > 0 {
            Usd::ZERO
        } else {
            self.price_of(1)
        };
        let mut stretches = vec![Stretch {
            after: 0,
            price: first,
        }];
        if self.included > 0 {
            stretches.push(Stretch {
                after: self.included,
                price: self.price_of(self.included.saturating_add(1)),
            });
        }
        let later = self.tiers.iter().map(|(number, price)| Stretch {
            after: number.saturating_sub(1),
            price: *price,
        });
        stretches.extend(later.filter(|stretch| stretch.after > self.included));
        stretches.into_iter()
    }

    /// Returns the price of a call that is not included, by its number.
    fn price_of(&self, number: u64) -> Usd {
        self.tiers
            .range(..=number)
            .next_back()
            .map_or(self.per_call, |(_, price)| *price)
    }
}

impl fmt::Display for CallPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.monthly > Usd::ZERO {
            write!(f, "{} USD a month, ", self.monthly)?;
        }
        if self.included > 0 {
            write!(f, "{} calls included, ", self.included)?;
        }
        write!(f, "{} USD a call", self.per_call)?;
        for (number, price) in &self.tiers {
            write!(f, ", {price} USD from call {number} on")?;
        }
        Ok(())
    }
}

impl FromStr for CallPlan {
    type Err = ParsePlanError;

    fn from_str(text: &str) -> Result<Self, ParsePlanError> {
        let mut plan = Self::default();
        let mut seen = Vec::new();
        for part in text.split(',') {
            let wrong = || ParsePlanError {
                part: crate::text::excerpt(part),
            };
            let (key, value) = part.trim().split_once('=').ok_or_else(wrong)?;
            if seen.contains(&key) {
                return Err(wrong());
            }
            seen.push(key);
            let dollars = || Usd::parse(value).map_err(|_| wrong());
            plan = match key {
                "monthly" => plan.monthly(dollars()?),
                "included" => plan.included(value.parse().map_err(|_| wrong())?),
                "per-call" => Self {
                    per_call: dollars()?,
                    ..plan
                },
                key => {
                    let number = key
                        .strip_prefix("from-")
                        .and_then(|number| number.parse::<u64>().ok());
                    let number = number.filter(|number| *number > 0).ok_or_else(wrong)?;
                    plan.from_call(number, dollars()?)
                }
            };
        }
        Ok(plan)
    }
}

/// The error of parsing a [`CallPlan`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{part}` is not part of a plan; expected a form like `monthly=10,included=1000,per-call=0.002,from-10001=0.001`, each once"
)]
pub struct ParsePlanError {
    part: String,
}

#[cfg(test)]
#[expect(clippy::arithmetic_side_effects, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::usd;

    fn plans() -> impl Strategy<Value = CallPlan> {
        let tiers = prop::collection::btree_map(1_u64..30, 0_u64..20, 0..3);
        (0_u64..100, 0_u64..20, 0_u64..20, tiers).prop_map(
            |(monthly, included, per_call, tiers)| {
                let plan = CallPlan::per_call(Usd::from_micros(per_call))
                    .monthly(Usd::from_micros(monthly))
                    .included(included);
                tiers.into_iter().fold(plan, |plan, (number, price)| {
                    plan.from_call(number, Usd::from_micros(price))
                })
            },
        )
    }

    /// Adds up a bill call by call.
    fn bill(plan: &CallPlan, calls: u64) -> u64 {
        let price = |number: u64| match number {
            number if number <= plan.included => 0,
            number => plan
                .tiers
                .iter()
                .rev()
                .find(|tier| *tier.0 <= number)
                .map_or(plan.per_call, |tier| *tier.1)
                .micros(),
        };
        plan.monthly.micros() + (1..=calls).map(price).sum::<u64>()
    }

    proptest! {
        #[test]
        fn the_cost_of_a_month_is_the_sum_of_its_calls(plan in plans(), calls in 0_u64..60) {
            prop_assert_eq!(plan.cost(calls).unwrap().micros(), bill(&plan, calls));
            prop_assert_eq!(plan.next_call(calls).micros(), bill(&plan, calls + 1) - bill(&plan, calls));
        }

        #[test]
        fn no_price_changes_after_the_last_change(plan in plans(), calls in 0_u64..60) {
            prop_assert_eq!(plan.next_call(calls.min(plan.last_change())), plan.next_call(calls));
        }

        #[test]
        fn the_plan_wins_from_the_first_smaller_bill(plan in plans(), paid in 0_u64..400, payments in 1_u64..20) {
            let cheaper = |calls: u64| bill(&plan, calls) * payments < calls * paid;
            let naive = (1..300).find(|calls| cheaper(*calls));
            let found = plan.wins_from(Usd::from_micros(paid), payments);
            prop_assert_eq!(found.filter(|calls| *calls < 300), naive);
        }

        #[test]
        fn any_text_parses_or_fails_without_a_panic(text in "[a-z0-9=.,-]{0,30}") {
            drop(text.parse::<CallPlan>());
        }
    }

    #[test]
    fn overflowing_plans_have_no_cost() {
        let plan = CallPlan::per_call(Usd::from_micros(u64::MAX)).monthly(usd!("1"));
        assert_eq!(plan.cost(u64::MAX), None);
        assert_eq!(plan.wins_from(usd!("1"), u64::MAX), None);
        assert_eq!(CallPlan::default().wins_from(usd!("1"), 1), Some(1));
        for mistake in [
            "",
            "monthly",
            "monthly=-1",
            "monthly=1,monthly=2",
            "from-0=1",
            "from-x=1",
            "free=1",
            "included=1.5",
        ] {
            assert!(mistake.parse::<CallPlan>().is_err(), "{mistake}");
        }
    }
}
