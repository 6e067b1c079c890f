//! The check of one payment against its limits.

use alloy::primitives::{Address, U256};
use serde::Serialize;

use super::{Denial, InFlight, Limit, LimitKind, LimitQuery, Quantity, Rule, Usage, Watch};
use crate::clock::Timestamp;
use crate::money::Asset;
use crate::origin::Origin;

/// The limits that one payment must pass, and the other rules that need the ledger.
///
/// The policy makes the check, and the ledger runs it in the same atomic step that reserves the money.
#[derive(Clone, Debug)]
pub struct LimitCheck {
    pub(crate) now: Timestamp,
    /// The payment. `None` only asks how much of each limit is used.
    pub(crate) payment: Option<(Asset, U256)>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) payee: Option<PayeePin>,
    pub(crate) price: Option<PriceCeiling>,
    /// Whether refunds make room in the limits.
    pub(crate) refunds_make_room: bool,
    /// The payments that calls of this process have in flight. The ledger sets it.
    pub(crate) in_flight: InFlight,
    /// The limits that warn when a payment passes a share of them.
    pub(crate) watch: Watch,
}

/// The rule that the payee must be the first payee of the origin.
#[derive(Clone, Debug)]
pub(crate) struct PayeePin {
    pub(crate) origin: Origin,
    pub(crate) payee: Address,
}

/// The rule that the price must not rise by more than a percentage since the last purchase.
#[derive(Clone, Debug)]
pub(crate) struct PriceCeiling {
    pub(crate) origin: Origin,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) max_rise_percent: u32,
}

/// The result of one rule: how much of a limit is used, and whether it refuses the payment.
///
/// ```
/// use bursar::policy::LimitStatus;
///
/// fn describe(status: &LimitStatus) -> String {
///     match (&status.left, &status.limit) {
///         (Some(left), Some(limit)) => format!("{}: {left} of {limit} left", status.name),
///         _ => status.name.clone(),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LimitStatus {
    /// The name of the limit, such as `global rolling 1d`, or of the rule.
    pub name: String,
    /// The rule.
    pub rule: Rule,
    /// The maximum. `None` if the rule is not a limit.
    pub limit: Option<Quantity>,
    /// The part that is used. Payments with an unknown outcome count as used.
    pub used: Option<Quantity>,
    /// The part that is left.
    pub left: Option<Quantity>,
    /// The refusal, if the rule refuses the payment.
    pub denial: Option<Denial>,
}

impl LimitCheck {
    /// Returns the time of the check, by the client's clock.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Returns the sums that the limits need.
    pub(crate) fn queries(&self) -> impl Iterator<Item = LimitQuery<'_>> {
        self.limits.iter().filter_map(|limit| self.query(limit))
    }

    fn query<'a>(&self, limit: &'a Limit) -> Option<LimitQuery<'a>> {
        LimitQuery::new(limit, self.now, self.refunds_make_room)
    }

    /// Returns the status of every rule.
    pub(crate) fn evaluate<U: Usage>(&self, usage: &U) -> Result<Vec<LimitStatus>, U::Error> {
        let mut statuses = Vec::with_capacity(self.limits.len());
        if let Some(denial) = usage.frozen()? {
            statuses.push(LimitStatus::of_rule(Rule::Frozen, Some(denial)));
        }
        for limit in &self.limits {
            if let Some(part) = self.measure(limit, usage)? {
                let denial = part.denial(self, usage)?;
                statuses.push(part.status(denial));
            }
        }
        if let Some((asset, value)) = &self.payment {
            if let Some(pin) = &self.payee {
                let denial = pin.denial(asset, usage)?;
                statuses.push(LimitStatus::of_rule(Rule::PayeeChanged, denial));
            }
            if let Some(ceiling) = &self.price {
                let denial = ceiling.denial(asset, *value, usage)?;
                statuses.push(LimitStatus::of_rule(Rule::PriceRise, denial));
            }
        }
        Ok(statuses)
    }

    /// Returns the first refusal. If there is none, notes the limits that the payment takes past a share.
    pub(crate) fn deny<U: Usage>(&self, usage: &U) -> Result<Option<Denial>, U::Error> {
        let denial = self.refusal(usage)?;
        if denial.is_none() {
            self.watch.look(self, usage)?;
        }
        Ok(denial)
    }

    fn refusal<U: Usage>(&self, usage: &U) -> Result<Option<Denial>, U::Error> {
        if let Some(denial) = usage.frozen()? {
            return Ok(Some(denial));
        }
        for limit in &self.limits {
            if let Some(part) = self.measure(limit, usage)?
                && let Some(denial) = part.denial(self, usage)?
            {
                return Ok(Some(denial));
            }
        }
        let Some((asset, value)) = &self.payment else {
            return Ok(None);
        };
        if let Some(pin) = &self.payee
            && let Some(denial) = pin.denial(asset, usage)?
        {
            return Ok(Some(denial));
        }
        match &self.price {
            Some(ceiling) => ceiling.denial(asset, *value, usage),
            None => Ok(None),
        }
    }

    /// Measures how much of a limit is used. Returns `None` if the limit does not measure the payment's token.
    pub(super) fn measure<'a, U: Usage>(
        &self,
        limit: &'a Limit,
        usage: &U,
    ) -> Result<Option<Measured<'a>>, U::Error> {
        let asked = match (&self.payment, limit.kind.amount()) {
            (None, _) => Some(U256::ZERO),
            (Some((asset, value)), Some(max)) => max.measure(asset, *value),
            (Some(_), None) => Some(U256::ONE),
        };
        let Some(asked) = asked else { return Ok(None) };
        let query = self.query(limit);
        let used = match &query {
            Some(query) => usage.total(query)?,
            None => U256::ZERO,
        };
        Ok(Some(Measured {
            limit,
            query,
            used,
            asked,
        }))
    }
}

/// A limit with the part that is used, and the part that the payment asks for.
pub(super) struct Measured<'a> {
    limit: &'a Limit,
    query: Option<LimitQuery<'a>>,
    pub(super) used: U256,
    pub(super) asked: U256,
}

impl Measured<'_> {
    fn denial<U: Usage>(&self, check: &LimitCheck, usage: &U) -> Result<Option<Denial>, U::Error> {
        let total = self.used.checked_add(self.asked);
        if total.is_some_and(|total| total <= self.limit.kind.max()) {
            return Ok(None);
        }
        let in_flight = match (&self.limit.kind, &self.query) {
            (LimitKind::Exposure(_), Some(query)) => {
                Some(check.in_flight.units(query).min(self.used))
            }
            _ => None,
        };
        let room_returns = self.room_returns(check.now, in_flight, usage)?;
        let denial = Denial::by_limit(self.limit, self.used, self.asked, room_returns, in_flight);
        Ok(Some(denial))
    }

    /// Returns the time at which enough charges will have left the window, if no charges are added.
    ///
    /// Payments in flight can leave at any moment, so they are taken for gone: the time is never later than the truth.
    fn room_returns<U: Usage>(
        &self,
        now: Timestamp,
        in_flight: Option<U256>,
        usage: &U,
    ) -> Result<Option<Timestamp>, U::Error> {
        let kind = &self.limit.kind;
        let allowed = kind.max().checked_sub(self.asked);
        let (Some(query), Some(allowed)) = (&self.query, allowed) else {
            return Ok(None);
        };
        if !query.window.ends() {
            return Ok(None);
        }
        let missing = self.used.saturating_sub(allowed);
        let missing = missing.saturating_sub(in_flight.unwrap_or_default());
        if missing.is_zero() {
            return Ok(Some(now));
        }
        let last = usage.leaves_at(query, missing)?;
        Ok(last.and_then(|at| kind.leaves_at(at, now)))
    }

    /// Returns the status of the limit after the payment.
    pub(super) fn after(&self) -> LimitStatus {
        let used = self.used.saturating_add(self.asked);
        self.status_of(used, None)
    }

    fn status(&self, denial: Option<Denial>) -> LimitStatus {
        self.status_of(self.used, denial)
    }

    fn status_of(&self, used: U256, denial: Option<Denial>) -> LimitStatus {
        let kind = &self.limit.kind;
        let left = kind.max().saturating_sub(used);
        LimitStatus {
            name: self.limit.to_string(),
            rule: kind.rule(),
            limit: Some(kind.quantity(kind.max())),
            used: Some(kind.quantity(used)),
            left: Some(kind.quantity(left)),
            denial,
        }
    }
}

impl PayeePin {
    fn denial<U: Usage>(&self, asset: &Asset, usage: &U) -> Result<Option<Denial>, U::Error> {
        let first = usage.first_payee(&self.origin, (asset.network(), asset.address()))?;
        let other = first.filter(|first| *first != self.payee);
        Ok(other.map(|first| Denial::payee_changed(&self.origin, first, self.payee)))
    }
}

impl PriceCeiling {
    fn denial<U: Usage>(
        &self,
        asset: &Asset,
        value: U256,
        usage: &U,
    ) -> Result<Option<Denial>, U::Error> {
        let key = (asset.network(), asset.address());
        let last = usage.last_price(&self.origin, &self.method, &self.path, key)?;
        let percent = U256::from(self.max_rise_percent).saturating_add(U256::from(100));
        let hundredfold = value.checked_mul(U256::from(100));
        let rose =
            |last: &U256| hundredfold.is_none_or(|value| value > last.saturating_mul(percent));
        let risen_from = last.filter(rose);
        Ok(risen_from.map(|last| Denial::price_rise(asset, last, value, self.max_rise_percent)))
    }
}

impl LimitStatus {
    /// Returns the used part of the limit in thousandths, rounded down and at most 1000, or `None` if the rule is not a
    /// limit.
    ///
    /// ```
    /// use bursar::policy::LimitStatus;
    ///
    /// /// Returns the limits of which more than four fifths are used.
    /// fn nearly_used(limits: &[LimitStatus]) -> Vec<&LimitStatus> {
    ///     let is_near = |limit: &&LimitStatus| limit.used_per_mille().is_some_and(|part| part > 800);
    ///     limits.iter().filter(is_near).collect()
    /// }
    /// ```
    #[must_use]
    pub fn used_per_mille(&self) -> Option<u32> {
        const WHOLE: u32 = 1000;
        let (limit, used) = (self.limit.as_ref()?.units(), self.used.as_ref()?.units());
        if used >= limit {
            return Some(WHOLE);
        }
        // The product overflows only above 2^246 units, and no chain has that much of a token.
        let part = used.saturating_mul(U256::from(WHOLE)).checked_div(limit)?;
        part.try_into().ok()
    }

    /// Returns the status of a rule that is not a limit.
    fn of_rule(rule: Rule, denial: Option<Denial>) -> Self {
        Self {
            name: rule.name().to_owned(),
            rule,
            limit: None,
            used: None,
            left: None,
            denial,
        }
    }
}
