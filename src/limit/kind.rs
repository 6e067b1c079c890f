//! The kinds of limits and their amounts.

use std::fmt;
use std::time::Duration;

use alloy::primitives::U256;

use super::window::Length;
use super::{
    Amount, BEGINNING, Calendar, Moment, PaymentView, Quantity, Rule, Scope, Selector,
    ShortDuration, Window,
};
use crate::clock::Timestamp;

/// One limit. A policy has `Limit<Selector>`; the limit as it applies to one payment is a `Limit<Scope>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit<S = Scope> {
    pub(crate) scope: S,
    pub(crate) kind: LimitKind,
}

impl Limit<Selector> {
    /// Returns the limit as it applies to `payment`, or `None` if it does not.
    pub(crate) fn for_payment(&self, payment: &PaymentView<'_>) -> Option<Limit> {
        self.scope.select(payment).map(|scope| Limit {
            scope,
            kind: self.kind.clone(),
        })
    }
}

/// Writes a limit for people, such as `global rolling 1d`.
impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.scope, self.kind)
    }
}

/// The kind of a limit, and its maximum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    /// The amount of one payment.
    PerPayment(Amount),
    /// The amount within a rolling window.
    Rolling(Duration, Amount),
    /// The amount within a calendar period.
    Calendar(Calendar, Amount),
    /// The amount over the life of the ledger.
    Lifetime(Amount),
    /// The amount that is signed, unresolved and not yet expired.
    Exposure(Amount),
    /// The number of payments within a rolling window.
    Payments(Duration, u32),
    /// The number of payments for the same request within a rolling window.
    LoopGuard(Duration, u32),
    /// The number of payments within a rolling window that the seller took without delivering.
    CircuitBreaker(Duration, u32),
}

impl LimitKind {
    /// Whether this limit replaces `default`: it is of the same kind, and in dollars if it has an amount. A limit in
    /// units of a token leaves other tokens to the default.
    pub(crate) fn replaces(&self, default: &Self) -> bool {
        let measures_dollars = !matches!(self.amount(), Some(Amount::Token(_)));
        std::mem::discriminant(self) == std::mem::discriminant(default) && measures_dollars
    }

    /// Whether this limits a sum over time.
    pub(crate) const fn is_total(&self) -> bool {
        matches!(
            self,
            Self::Rolling(..) | Self::Calendar(..) | Self::Lifetime(_)
        )
    }

    /// Returns the maximum, if it is an amount.
    pub(crate) const fn amount(&self) -> Option<&Amount> {
        match self {
            Self::PerPayment(max)
            | Self::Rolling(_, max)
            | Self::Calendar(_, max)
            | Self::Lifetime(max)
            | Self::Exposure(max) => Some(max),
            Self::Payments(..) | Self::LoopGuard(..) | Self::CircuitBreaker(..) => None,
        }
    }

    /// Returns the maximum, if it is a number of payments.
    pub(crate) const fn payments(&self) -> Option<u32> {
        match self {
            Self::Payments(_, max) | Self::LoopGuard(_, max) | Self::CircuitBreaker(_, max) => {
                Some(*max)
            }
            _ => None,
        }
    }

    /// Returns the maximum in the smallest unit of the limit.
    pub(crate) fn max(&self) -> U256 {
        let payments = || U256::from(self.payments().unwrap_or_default());
        self.amount().map_or_else(payments, Amount::units)
    }

    /// Returns `units` as a quantity of this limit.
    pub(crate) fn quantity(&self, units: U256) -> Quantity {
        match self.amount() {
            Some(max) => Quantity::Amount(max.with_units(units)),
            None => Quantity::Payments(units.try_into().unwrap_or(u64::MAX)),
        }
    }

    /// Returns the window of the charges that this limit adds up, or `None` if it looks at one payment only.
    pub(crate) fn window(&self) -> Option<Window> {
        let (moment, length) = match self {
            Self::PerPayment(_) => return None,
            Self::Rolling(window, _) => (Moment::CountsAt, Length::of(*window)),
            Self::Calendar(calendar, _) => (Moment::CountsAt, calendar.length()),
            Self::Lifetime(_) => (Moment::CountsAt, Length::Ever),
            Self::Exposure(_) => (Moment::ExpiresAt, Length::of(Duration::ZERO)),
            Self::Payments(window, _)
            | Self::LoopGuard(window, _)
            | Self::CircuitBreaker(window, _) => (Moment::ReservedAt, Length::of(*window)),
        };
        Some(Window { moment, length })
    }

    /// Returns the start of the window at `now`. Charges at the start itself are outside.
    pub(crate) fn window_start(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::PerPayment(_) | Self::Lifetime(_) => BEGINNING,
            Self::Exposure(_) => now,
            Self::Calendar(calendar, _) => calendar.start(now).before(Duration::from_millis(1)),
            Self::Rolling(window, _)
            | Self::Payments(window, _)
            | Self::LoopGuard(window, _)
            | Self::CircuitBreaker(window, _) => now.before(*window),
        }
    }

    /// Returns the time at which a charge with this moment leaves the window, or `None` if it never does.
    pub(crate) fn leaves_at(&self, moment: Timestamp, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::PerPayment(_) | Self::Lifetime(_) => None,
            _ if moment == Timestamp::MAX => None,
            Self::Exposure(_) => Some(moment),
            Self::Calendar(calendar, _) => Some(calendar.end(moment.max(now))),
            Self::Rolling(window, _)
            | Self::Payments(window, _)
            | Self::LoopGuard(window, _)
            | Self::CircuitBreaker(window, _) => Some(moment.after(*window)),
        }
    }

    /// Whether a policy can warn before this limit has no room: it limits a sum or a number of payments, and is no
    /// brake against loops and failing sellers.
    pub(crate) const fn warns(&self) -> bool {
        !matches!(
            self,
            Self::PerPayment(_) | Self::LoopGuard(..) | Self::CircuitBreaker(..)
        )
    }

    /// Returns the time before which a warning about this limit should not be given again, unless the limit had plenty
    /// of room meanwhile: the end of the window, but at least an hour.
    pub(crate) fn quiet_until(&self, now: Timestamp) -> Timestamp {
        const SHORTEST: Duration = Duration::from_secs(3600);
        let window = match self {
            Self::Lifetime(_) => None,
            Self::Calendar(calendar, _) => Some(calendar.end(now)),
            Self::Rolling(window, _) | Self::Payments(window, _) => Some(now.after(*window)),
            _ => Some(now),
        };
        window.map_or(Timestamp::MAX, |end| end.max(now.after(SHORTEST)))
    }

    /// Returns the rule that a denial by this limit names.
    pub(crate) const fn rule(&self) -> Rule {
        match self {
            Self::PerPayment(_) => Rule::PerPayment,
            Self::Rolling(..) => Rule::Rolling,
            Self::Calendar(..) => Rule::Calendar,
            Self::Lifetime(_) => Rule::Lifetime,
            Self::Exposure(_) => Rule::Exposure,
            Self::Payments(..) => Rule::Payments,
            Self::LoopGuard(..) => Rule::LoopGuard,
            Self::CircuitBreaker(..) => Rule::CircuitBreaker,
        }
    }
}

/// Writes the kind for people, without the maximum.
impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerPayment(_) => f.write_str("per payment"),
            Self::Rolling(window, _) => write!(f, "rolling {}", ShortDuration(*window)),
            Self::Calendar(calendar, _) => write!(f, "calendar {calendar}"),
            Self::Lifetime(_) => f.write_str("lifetime"),
            Self::Exposure(_) => f.write_str("exposure"),
            Self::Payments(window, _) => write!(f, "payments per {}", ShortDuration(*window)),
            Self::LoopGuard(window, _) => write!(f, "repeats per {}", ShortDuration(*window)),
            Self::CircuitBreaker(window, _) => {
                write!(f, "failures per {}", ShortDuration(*window))
            }
        }
    }
}
