//! Warnings before a limit has no room: which shares of which limits a payment passes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::U256;

use super::{Limit, LimitCheck, LimitStatus, Share, Usage};
use crate::clock::Timestamp;

/// The limits of a check that warn, and the shares that the payment passed in the ledger.
///
/// The ledger finds them in the atomic step that reserves the money, so that of several processes one finds each of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watch {
    limits: Vec<(Limit, Share)>,
    /// `None` if no limit warns, as in most policies; it costs nothing then.
    found: Option<Arc<Mutex<Vec<Found>>>>,
}

/// How the reservation of a payment changed a limit.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) limit: Limit,
    pub(crate) share: Share,
    /// Whether the payment took the limit past the share. If not, the limit has plenty of room.
    pub(crate) is_passed: bool,
    pub(crate) status: LimitStatus,
}

impl Found {
    /// Returns the name of the limit, its maximum and its share, which no other warning has.
    pub(crate) fn key(&self) -> (String, Share) {
        (
            format!("{} {}", self.limit, self.limit.kind.max()),
            self.share,
        )
    }

    /// Returns the time before which the same warning should not be given again.
    pub(crate) fn quiet_until(&self, now: Timestamp) -> Timestamp {
        self.limit.kind.quiet_until(now)
    }
}

impl Watch {
    /// Watches limits, each for a share.
    pub(crate) fn new(limits: Vec<(Limit, Share)>) -> Self {
        let found = (!limits.is_empty()).then(Arc::default);
        Self { limits, found }
    }

    /// Keeps the limits that pass.
    pub(crate) fn retain(&mut self, passes: impl Fn(&Limit) -> bool) {
        self.limits.retain(|(limit, _)| passes(limit));
    }

    fn found(&self) -> Option<MutexGuard<'_, Vec<Found>>> {
        let found = self.found.as_ref()?;
        Some(found.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes the findings of the last check.
    pub(crate) fn take(&self) -> Vec<Found> {
        self.found()
            .map_or_else(Vec::new, |mut found| std::mem::take(&mut *found))
    }

    /// Replaces the findings, for a payment that all limits allow.
    pub(super) fn look<U: Usage>(&self, check: &LimitCheck, usage: &U) -> Result<(), U::Error> {
        if self.found.is_none() {
            return Ok(());
        }
        let mut found = Vec::new();
        for (limit, share) in &self.limits {
            let Some(part) = check.measure(limit, usage)? else {
                continue;
            };
            let threshold = share.of(limit.kind.max());
            let after = part.used.saturating_add(part.asked);
            let is_passed = part.used < threshold && after >= threshold;
            let has_plenty = after < threshold.checked_div(U256::from(2)).unwrap_or_default();
            if is_passed || has_plenty {
                found.push(Found {
                    limit: limit.clone(),
                    share: *share,
                    is_passed,
                    status: part.after(),
                });
            }
        }
        if let Some(mut kept) = self.found() {
            *kept = found;
        }
        Ok(())
    }
}
