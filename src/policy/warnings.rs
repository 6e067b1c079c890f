//! Warnings before a limit has no room.

use super::limits::Limits;
use super::rules::Facts;
use super::{HostRules, Policy, PolicyError};
use crate::limit::{Limit, Selector, Share, Watch};

impl Policy {
    /// Warns when a payment takes a limit past this share of its maximum, such as `0.8` or `"80%"`.
    ///
    /// bursar then emits an event of the kind [`LimitWarning`](crate::telemetry::EventKind::LimitWarning) with the state
    /// of the limit, and logs a warning. The payment goes on. Call it several times for several shares.
    ///
    /// It holds for every limit on a sum or on a number of payments, and for each scope of a limit separately. Limits on
    /// one payment, the loop guard and the circuit breaker do not warn. A scope with a share of its own, such as
    /// `host_limits("api.example.com", |host| host.per_day(usd!("1")).warn_at(0.5))`, warns at that one instead.
    ///
    /// Of all clients and processes that use the ledger, the one whose payment passes the share warns. It does not warn
    /// again while the same window lasts, and for at least an hour, unless the used part falls below half of the share
    /// meanwhile.
    ///
    /// ```
    /// use bursar::telemetry::{Event, EventKind};
    /// use bursar::{Client, Policy, usd};
    ///
    /// let policy = Policy::new().allow_network("base").per_day(usd!("5")).warn_at(0.8);
    /// let builder = Client::builder().policy(policy).observer(|event: &Event<'_>| {
    ///     if let (EventKind::LimitWarning { share }, Some(limit)) = (event.kind, event.limit) {
    ///         eprintln!("{share} of {} are used: {:?} left", limit.name, limit.left);
    ///     }
    /// });
    /// ```
    ///
    /// A number that is not above 0 and at most 1 is a mistake, which [`check`](Self::check) reports.
    #[must_use]
    pub fn warn_at<S>(mut self, share: S) -> Self
    where
        S: TryInto<Share>,
        S::Error: Into<PolicyError>,
    {
        match share.try_into() {
            Ok(share) => self.warnings.push((None, share)),
            Err(error) => return self.mistake(error),
        }
        self
    }

    pub(super) fn warn_for(&mut self, selector: &Selector, shares: Vec<Share>) {
        let shares = shares
            .into_iter()
            .map(|share| (Some(selector.clone()), share));
        self.warnings.extend(shares);
    }

    /// Returns the limits on a payment that warn, with their shares.
    pub(super) fn watch(&self, facts: &Facts<'_>) -> Watch {
        let mut watched = Vec::new();
        if self.warnings.is_empty() {
            return Watch::default();
        }
        let payment = facts.payment();
        for limit in self.effective_limits().filter(|limit| limit.kind.warns()) {
            let Some(applied) = limit.for_payment(&payment) else {
                continue;
            };
            let shares = self.shares(limit);
            watched.extend(shares.map(|share| (applied.clone(), share)));
        }
        Watch::new(watched)
    }

    /// Returns the shares of the limit's own scope, or else those of the policy.
    pub(super) fn shares(&self, limit: &Limit<Selector>) -> impl Iterator<Item = Share> {
        let of = |scope: Option<&Selector>| {
            let warnings = self.warnings.iter();
            let mut shares: Vec<Share> = warnings
                .filter(|(selector, _)| selector.as_ref() == scope)
                .map(|(_, share)| *share)
                .collect();
            shares.sort_unstable();
            shares.dedup();
            shares
        };
        let own = of(Some(&limit.scope));
        if own.is_empty() { of(None) } else { own }.into_iter()
    }
}

impl Limits {
    /// Warns when a payment takes one of these limits past this share of its maximum, instead of the shares of the
    /// policy. See [`Policy::warn_at`].
    #[must_use]
    pub fn warn_at<S>(mut self, share: S) -> Self
    where
        S: TryInto<Share>,
        S::Error: Into<PolicyError>,
    {
        match share.try_into() {
            Ok(share) => self.shares.push(share),
            Err(error) => self.kinds.push(Err(error.into())),
        }
        self
    }
}

impl HostRules {
    /// Warns when a payment takes one of these limits past this share of its maximum, instead of the shares of the
    /// policy. See [`Policy::warn_at`].
    #[must_use]
    pub fn warn_at<S>(mut self, share: S) -> Self
    where
        S: TryInto<Share>,
        S::Error: Into<PolicyError>,
    {
        self.limits = self.limits.warn_at(share);
        self
    }
}
