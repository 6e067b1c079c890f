//! What the policy asks the books, and how the answer is reckoned.

use alloy::primitives::{Address, U256};
use serde::Serialize;

use super::{Freeze, LedgerError, State};
use crate::money::{Asset, TokenAmount};
use crate::policy::limit::{
    Amount, LimitKind, Max, Meter, Quantity, Scope, ShortDuration, Span, Weight,
};
use crate::policy::{Denial, Rule};
use crate::{Network, Origin, Timestamp, Usd};

/// What a ledger can tell about the purchases it holds.
///
/// A backend implements this over its store, inside the transaction that will write the hold, and
/// leaves the reckoning to [`Checks::assess`]. The purchase being reserved must not be among the
/// answers.
pub trait Books {
    /// The order to stop, if one stands.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn stopped(&self) -> Result<Option<Freeze>, LedgerError>;

    /// Gives every charge in `scope` and `span` to `visit`, in no order.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn charges(
        &self,
        scope: &Scope,
        span: Span,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError>;

    /// What a tally comes to, at most [`U256::MAX`].
    ///
    /// As it stands it visits all [`charges`](Self::charges). A store that keeps running totals answers
    /// from them, at a cost that does not grow with the books.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn total(&self, tally: Tally<'_>) -> Result<U256, LedgerError> {
        sum(self, tally)
    }

    /// The [`Charge::at`] with which, oldest charge first, at least `part` of a tally has left it; `None`
    /// if all of it is less.
    ///
    /// As it stands it sorts all [`charges`](Self::charges). Asked only when a payment is refused.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn leaves(&self, tally: Tally<'_>, part: U256) -> Result<Option<Timestamp>, LedgerError> {
        leaves(self, tally, part)
    }

    /// The payee of the first purchase from `origin` in this token that counts.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn first_payee(
        &self,
        origin: &Origin,
        network: Network,
        asset: Address,
    ) -> Result<Option<Address>, LedgerError>;

    /// The amount of the last purchase of the same method and path from `origin` in this token
    /// that counts.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError>;
}

/// [`Books::total`] by all charges.
pub(super) fn sum<B: Books + ?Sized>(books: &B, tally: Tally<'_>) -> Result<U256, LedgerError> {
    let mut total = U256::ZERO;
    books.charges(tally.scope(), tally.span(), &mut |charge| {
        total = total.saturating_add(tally.weigh(charge).unwrap_or_default());
    })?;
    Ok(total)
}

/// [`Books::leaves`] by all charges.
pub(super) fn leaves<B: Books + ?Sized>(
    books: &B,
    tally: Tally<'_>,
    part: U256,
) -> Result<Option<Timestamp>, LedgerError> {
    let mut charges: Vec<(Timestamp, Weight)> = Vec::new();
    books.charges(tally.scope(), tally.span(), &mut |charge| {
        charges.extend(tally.weigh(charge).map(|weight| (charge.at, weight)));
    })?;
    charges.sort_unstable_by_key(|(at, _)| *at);
    let mut gone = Weight::ZERO;
    Ok(charges.into_iter().find_map(|(at, weight)| {
        gone = gone.saturating_add(weight);
        (gone >= part).then_some(at)
    }))
}

/// What one limit adds up.
#[derive(Clone, Copy, Debug)]
pub struct Tally<'a> {
    meter: &'a Meter,
    span: Span,
    net: bool,
}

impl<'a> Tally<'a> {
    /// The purchases that it adds up.
    #[must_use]
    pub const fn scope(&self) -> &'a Scope {
        &self.meter.scope
    }

    /// Since when.
    #[must_use]
    pub const fn span(&self) -> Span {
        self.span
    }

    /// What a charge adds, in the limit's unit: micro-dollars, atomic units, or one for a payment. `None`
    /// for what the limit does not measure.
    #[must_use]
    pub fn weigh(&self, charge: Charge) -> Option<U256> {
        self.measure().weigh(&charge)
    }

    #[cfg(feature = "sqlite")]
    pub(super) const fn kind(&self) -> &'a LimitKind {
        &self.meter.kind
    }

    pub(super) fn measure(&self) -> Measure {
        let unit = match &self.meter.kind {
            LimitKind::Failures(..) => Unit::Failures,
            kind => match kind.max() {
                Max::Payments(_) => Unit::Payments,
                Max::Amount(Amount::Usd(_)) => Unit::Usd,
                Max::Amount(Amount::Token(amount)) => {
                    Unit::Token(amount.asset().network(), amount.asset().address())
                }
            },
        };
        Measure {
            unit,
            net: self.net,
        }
    }
}

/// The moment that puts a charge into a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Time {
    Spent,
    Reserved,
    Expiring,
}

impl Time {
    #[cfg(feature = "sqlite")]
    pub(super) const ALL: [Self; 3] = [Self::Spent, Self::Reserved, Self::Expiring];

    /// And after which moment at `now`; `None` for all of it.
    pub(super) const fn of(span: Span, now: Timestamp) -> (Self, Option<Timestamp>) {
        match span {
            Span::Ever => (Self::Spent, None),
            Span::SpentAfter(start) => (Self::Spent, Some(start)),
            Span::ReservedAfter(start) => (Self::Reserved, Some(start)),
            Span::Outstanding => (Self::Expiring, Some(now)),
        }
    }

    /// Whether the entry is added up, as long as its moment is within; a hold is, even when it lapsed.
    #[cfg(feature = "sqlite")]
    pub(super) const fn adds(self, entry: &super::Purchase) -> bool {
        match entry.state {
            State::Voided | State::ReleasedByProof => false,
            State::Settled | State::ApiCall => !matches!(self, Self::Expiring),
            State::Reserved | State::Signed | State::Rejected | State::Unresolved => true,
        }
    }

    pub(super) const fn moment(self, entry: &super::Purchase) -> Timestamp {
        match self {
            Self::Spent => entry.counts_at,
            Self::Reserved => entry.reserved_at,
            Self::Expiring => entry.expires_at,
        }
    }
}

/// How charges are weighed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Measure {
    pub(super) unit: Unit,
    /// Without what came back.
    pub(super) net: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    Usd,
    Token(Network, Address),
    Payments,
    Failures,
}

impl Measure {
    pub(super) fn weigh(self, charge: &Charge) -> Option<Weight> {
        let charge = if self.net { charge.net() } else { *charge };
        match self.unit {
            Unit::Usd => charge.usd.map(|usd| Weight::from(usd.micros())),
            Unit::Token(network, asset) => {
                ((network, asset) == (charge.network, charge.asset)).then_some(charge.value)
            }
            Unit::Payments => (!charge.called).then_some(Weight::ONE),
            Unit::Failures => (!charge.called && charge.failed).then_some(Weight::ONE),
        }
    }
}

/// One purchase as a limit sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Charge {
    /// The chain.
    pub network: Network,
    /// The token.
    pub asset: Address,
    /// Atomic units.
    pub value: U256,
    /// Dollars, rounded up.
    pub usd: Option<Usd>,
    /// Atomic units that came back.
    pub refunded: U256,
    /// Whether the seller took it and did not deliver: [`Purchase::failed`](super::Purchase::failed).
    pub failed: bool,
    /// Whether nothing was paid, and a key was used.
    pub called: bool,
    /// When it leaves the span that was asked for: the moment spent, reserved or expired.
    pub at: Timestamp,
}

impl Charge {
    /// What `entry` charges within `span`.
    #[must_use]
    pub fn of(entry: &super::Purchase, span: Span) -> Self {
        let at = match span {
            Span::Ever | Span::SpentAfter(_) => entry.counts_at,
            Span::ReservedAfter(_) => entry.reserved_at,
            Span::Outstanding => entry.expires_at,
        };
        Self {
            network: entry.network,
            asset: entry.asset,
            value: entry.value,
            usd: entry.usd,
            refunded: entry.refunded(),
            failed: entry.failed(),
            called: entry.state == State::ApiCall,
            at,
        }
    }

    pub(super) fn weigh(&self, scale: &Amount) -> Option<Weight> {
        match scale {
            Amount::Usd(_) => self.usd.map(|usd| Weight::from(usd.micros())),
            Amount::Token(amount) => {
                let asset = amount.asset();
                ((asset.network(), asset.address()) == (self.network, self.asset))
                    .then_some(self.value)
            }
        }
    }

    /// The same without what came back; rounded up, as all that is spent.
    fn net(self) -> Self {
        let value = self.value.saturating_sub(self.refunded);
        let share = |usd: Usd| {
            let whole = U256::from(usd.micros());
            let back = whole
                .checked_mul(self.refunded)
                .and_then(|product| product.checked_div(self.value));
            let left = whole.saturating_sub(back.unwrap_or_default());
            Usd::from_micros(left.try_into().unwrap_or(u64::MAX))
        };
        Self {
            value,
            usd: self.usd.map(share),
            ..self
        }
    }
}

/// The questions that a policy puts to the books about one payment.
#[derive(Clone, Debug)]
pub struct Checks {
    pub(crate) now: Timestamp,
    /// The payment; `None` asks only how much is used.
    pub(crate) payment: Option<(Asset, U256)>,
    pub(crate) meters: Vec<Meter>,
    pub(crate) payee: Option<PayeePin>,
    pub(crate) price: Option<PriceCeiling>,
    /// Whether what came back makes room again.
    pub(crate) refunds_make_room: bool,
}

/// The payee must be the one that the origin was first paid at.
#[derive(Clone, Debug)]
pub(crate) struct PayeePin {
    pub(crate) origin: Origin,
    pub(crate) payee: Address,
}

/// The price must not rise by more than so many percent since the last purchase.
#[derive(Clone, Debug)]
pub(crate) struct PriceCeiling {
    pub(crate) origin: Origin,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) max_rise_percent: u32,
}

/// The books' answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was asked, such as `global rolling 1d`.
    pub name: String,
    /// The rule behind it.
    pub rule: Rule,
    /// The limit, for limits.
    pub limit: Option<Quantity>,
    /// How much of it is used, what is uncertain included.
    pub used: Option<Quantity>,
    /// How much is left.
    pub left: Option<Quantity>,
    /// The refusal, if this refuses the payment.
    pub denial: Option<Denial>,
}

impl Checks {
    /// The present, as the client sees it.
    #[must_use]
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// What the limits add up.
    pub(super) fn tallies(&self) -> impl Iterator<Item = Tally<'_>> {
        self.meters.iter().filter_map(|meter| self.tally(meter))
    }

    /// `None` when the payment alone decides.
    fn tally<'a>(&self, meter: &'a Meter) -> Option<Tally<'a>> {
        meter.span(self.now).map(|span| Tally {
            meter,
            span,
            net: self.refunds_make_room,
        })
    }

    /// Puts every question to the books.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub fn assess(&self, books: &impl Books) -> Result<Vec<Finding>, LedgerError> {
        let mut findings = Vec::with_capacity(self.meters.len());
        findings.extend(
            books
                .stopped()?
                .map(|order| Finding::plain(Rule::Stopped, Some(order.denial()))),
        );
        for meter in &self.meters {
            if let Some(reading) = self.read(meter, books)? {
                let denial = if reading.is_over() {
                    Some(self.refuse(&reading, books)?)
                } else {
                    None
                };
                findings.push(reading.finding(denial));
            }
        }
        if let Some((asset, value)) = &self.payment {
            findings.extend(self.check_payee(asset, books)?);
            findings.extend(self.check_price(asset, *value, books)?);
        }
        Ok(findings)
    }

    /// The first refusal.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub fn deny(&self, books: &impl Books) -> Result<Option<Denial>, LedgerError> {
        if let Some(order) = books.stopped()? {
            return Ok(Some(order.denial()));
        }
        for meter in &self.meters {
            if let Some(reading) = self.read(meter, books)?.filter(Reading::is_over) {
                return self.refuse(&reading, books).map(Some);
            }
        }
        let Some((asset, value)) = &self.payment else {
            return Ok(None);
        };
        let payee = self
            .check_payee(asset, books)?
            .and_then(|finding| finding.denial);
        if payee.is_some() {
            return Ok(payee);
        }
        Ok(self
            .check_price(asset, *value, books)?
            .and_then(|finding| finding.denial))
    }

    /// `None` when the limit does not measure this payment's token.
    fn read<'a>(
        &self,
        meter: &'a Meter,
        books: &impl Books,
    ) -> Result<Option<Reading<'a>>, LedgerError> {
        let asked = match (meter.max(), &self.payment) {
            (Max::Amount(max), Some((asset, value))) => max.weigh(asset, *value),
            (Max::Payments(_), Some(_)) => Some(Weight::ONE),
            (_, None) => Some(Weight::ZERO),
        };
        let Some(asked) = asked else { return Ok(None) };
        let tally = self.tally(meter);
        let used = tally.map_or(Ok(Weight::ZERO), |tally| books.total(tally))?;
        let max = match meter.max() {
            Max::Amount(max) => max.weight(),
            Max::Payments(max) => Weight::from(max),
        };
        Ok(Some(Reading {
            meter,
            tally,
            max,
            asked,
            used,
        }))
    }

    fn refuse(&self, reading: &Reading<'_>, books: &impl Books) -> Result<Denial, LedgerError> {
        let room_returns = reading
            .tally
            .map_or(Ok(None), |tally| self.room_returns(tally, reading, books))?;
        Ok(reading.denial(room_returns))
    }

    /// When enough charges will have left the window, if nothing is added to it.
    fn room_returns(
        &self,
        tally: Tally<'_>,
        reading: &Reading<'_>,
        books: &impl Books,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let kind = &tally.meter.kind;
        let Some(allowed) = reading.max.checked_sub(reading.asked) else {
            return Ok(None);
        };
        if matches!(kind, LimitKind::PerPayment(_) | LimitKind::Lifetime(_)) {
            return Ok(None);
        }
        let leaves = |at: Timestamp| match kind {
            LimitKind::Rolling(window, _)
            | LimitKind::Payments(window, _)
            | LimitKind::Repeats(window, _)
            | LimitKind::Failures(window, _) => at.after(*window),
            LimitKind::Calendar(calendar, _) => calendar.end(at.max(self.now)),
            _ => at,
        };
        let last = books.leaves(tally, reading.used.saturating_sub(allowed))?;
        Ok(last.filter(|at| *at != Timestamp::MAX).map(leaves))
    }

    fn check_payee(
        &self,
        asset: &Asset,
        books: &impl Books,
    ) -> Result<Option<Finding>, LedgerError> {
        let Some(pin) = &self.payee else {
            return Ok(None);
        };
        let first = books.first_payee(&pin.origin, asset.network(), asset.address())?;
        let denial = first.filter(|first| *first != pin.payee).map(|first| {
            let message = format!(
                "{} was first paid at {first} and now names {}",
                pin.origin, pin.payee
            );
            Denial::new(Rule::PayeeChanged, message)
        });
        Ok(Some(Finding::plain(Rule::PayeeChanged, denial)))
    }

    fn check_price(
        &self,
        asset: &Asset,
        value: U256,
        books: &impl Books,
    ) -> Result<Option<Finding>, LedgerError> {
        let Some(ceiling) = &self.price else {
            return Ok(None);
        };
        let key = (asset.network(), asset.address());
        let last = books.last_price(&ceiling.origin, &ceiling.method, &ceiling.path, key)?;
        let percent = U256::from(ceiling.max_rise_percent).saturating_add(U256::from(100));
        let hundredfold = value.checked_mul(U256::from(100));
        let rose =
            |last: &U256| hundredfold.is_none_or(|value| value > last.saturating_mul(percent));
        let denial = last.filter(rose).map(|last| {
            let message = format!(
                "the price rose from {} to {} {}; at most {} % more is allowed",
                asset.format_units(last),
                asset.format_units(value),
                asset.symbol(),
                ceiling.max_rise_percent
            );
            let units = |units| {
                Some(Quantity::Amount(
                    TokenAmount::from_units(asset.clone(), units).into(),
                ))
            };
            let limit = units(
                last.saturating_mul(percent)
                    .checked_div(U256::from(100))
                    .unwrap_or_default(),
            );
            Denial {
                limit,
                asked: units(value),
                ..Denial::new(Rule::PriceRise, message)
            }
        });
        Ok(Some(Finding::plain(Rule::PriceRise, denial)))
    }
}

/// What a limit and the books say.
struct Reading<'a> {
    meter: &'a Meter,
    tally: Option<Tally<'a>>,
    max: Weight,
    asked: Weight,
    used: Weight,
}

impl Reading<'_> {
    fn is_over(&self) -> bool {
        self.used
            .checked_add(self.asked)
            .is_none_or(|total| total > self.max)
    }

    fn quantity(&self, weight: Weight) -> Quantity {
        match self.meter.max() {
            Max::Amount(scale) => Quantity::Amount(scale.of_weight(weight)),
            Max::Payments(_) => Quantity::Payments(weight.try_into().unwrap_or(u64::MAX)),
        }
    }

    fn denial(&self, room_returns: Option<Timestamp>) -> Denial {
        let meter = self.meter;
        let [limit, used, asked] =
            [self.max, self.used, self.asked].map(|weight| self.quantity(weight));
        let returns = room_returns
            .map(|at| format!("; room returns at {at}"))
            .unwrap_or_default();
        let message = match &meter.kind {
            LimitKind::Repeats(window, _) => format!(
                "the same request was bought {used_times} within {}; this looks like a loop{returns}",
                ShortDuration(*window),
                used_times = times(&used),
            ),
            LimitKind::Failures(window, _) => format!(
                "{used} to {} within {} were taken and not delivered for{returns}",
                meter.scope,
                ShortDuration(*window),
            ),
            _ if self.asked > self.max => {
                format!("{asked} is above the limit of {limit} ({meter})")
            }
            _ => format!("{asked} does not fit: {used} of {limit} used ({meter}){returns}"),
        };
        Denial {
            rule: rule_of(&meter.kind),
            scope: Some(meter.scope.clone()),
            limit: Some(limit),
            used: Some(used),
            asked: Some(asked),
            room_returns,
            message,
        }
    }

    fn finding(&self, denial: Option<Denial>) -> Finding {
        Finding {
            name: self.meter.to_string(),
            rule: rule_of(&self.meter.kind),
            limit: Some(self.quantity(self.max)),
            used: Some(self.quantity(self.used)),
            left: Some(self.quantity(self.max.saturating_sub(self.used))),
            denial,
        }
    }
}

impl Finding {
    pub(crate) fn plain(rule: Rule, denial: Option<Denial>) -> Self {
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

const fn rule_of(kind: &LimitKind) -> Rule {
    match kind {
        LimitKind::PerPayment(_) => Rule::PerPayment,
        LimitKind::Rolling(..) => Rule::Rolling,
        LimitKind::Calendar(..) => Rule::Calendar,
        LimitKind::Lifetime(_) => Rule::Lifetime,
        LimitKind::Exposure(_) => Rule::Exposure,
        LimitKind::Payments(..) => Rule::Payments,
        LimitKind::Repeats(..) => Rule::Repeats,
        LimitKind::Failures(..) => Rule::Breaker,
    }
}

fn times(count: &Quantity) -> String {
    match count {
        Quantity::Payments(1) => "once".to_owned(),
        Quantity::Payments(count) => format!("{count} times"),
        Quantity::Amount(amount) => amount.to_string(),
    }
}

impl Freeze {
    pub(crate) fn denial(&self) -> Denial {
        Denial::new(
            Rule::Stopped,
            format!(
                "paying is stopped in the ledger since {}: {}",
                self.since, self.reason
            ),
        )
    }
}
