//! The limits of one scope.

use std::time::Duration;

use super::builder::{limit_methods, not_empty};
use super::{DAY, HOUR, MONTH, PolicyError};
use crate::limit::{Amount, Calendar, LimitKind, Period, Share};

/// The limits of one scope; see [`Policy::tag_limits`](crate::Policy::tag_limits).
///
/// ```
/// use bursar::{Policy, usd};
///
/// let policy = Policy::new().tag_limits("research", |tag| tag.per_day(usd!("1")).lifetime(usd!("20")));
/// ```
#[derive(Clone, Debug, Default)]
pub struct Limits {
    pub(super) kinds: Vec<Result<LimitKind, PolicyError>>,
    pub(super) asks: Vec<Amount>,
    pub(super) shares: Vec<Share>,
}

impl Limits {
    limit_methods!();

    pub(super) fn limit(mut self, kind: Result<LimitKind, PolicyError>) -> Self {
        self.kinds.push(kind);
        self
    }

    pub(super) fn asked(mut self, threshold: Amount) -> Self {
        self.asks.push(threshold);
        self
    }
}
