//! Limits: the payments that they count, their usage, and the denials.
//!
//! This module is a pure kernel below the policy and the ledger. The policy gives it limits, and a ledger gives it
//! charges and totals through the [`Usage`] trait. It reads no clock, no file and no network.

mod amount;
mod calendar;
mod check;
mod denial;
#[cfg(feature = "sqlite")]
mod domain;
mod in_flight;
mod kind;
mod scope;
mod share;
mod shortfall;
mod sum;
mod totals;
mod usage;
mod watch;
mod window;

pub use amount::{Amount, Quantity};
pub use calendar::Period;
pub(crate) use calendar::{Calendar, time_zone};
pub use check::{LimitCheck, LimitStatus};
pub(crate) use check::{PayeePin, PriceCeiling};
pub use denial::{Denial, Rule};
#[cfg(feature = "sqlite")]
pub(crate) use domain::{DomainsBelow, domain_total};
pub(crate) use in_flight::InFlight;
pub(crate) use kind::{Limit, LimitKind};
pub use scope::Scope;
pub(crate) use scope::{PaymentView, ScopeKind, Selector};
pub use share::{Share, ShareError};
pub use shortfall::Shortfall;
pub(crate) use sum::Sum;
#[cfg(feature = "sqlite")]
pub(crate) use totals::same_usage;
pub(crate) use totals::{Total, TotalStore, Totals, running_total};
pub(crate) use usage::{Charge, Chargeable, LimitQuery, NoUsage, Unit, Usage, leaves_at, sum};
pub(crate) use watch::Watch;
pub(crate) use window::{BEGINNING, Moment, ShortDuration, Since, Window};
