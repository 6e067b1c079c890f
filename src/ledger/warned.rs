//! The warnings about limits that this process gave, so that none is repeated without need.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::{Ledger, Reservation};
use crate::clock::Timestamp;
use crate::limit::{LimitStatus, Share};

/// The most warnings that are remembered.
const MOST: usize = 1024;

/// By the limit and its share, the time before which a warning is not repeated.
#[derive(Default)]
pub(super) struct Warned(Mutex<HashMap<(String, Share), Timestamp>>);

impl Ledger {
    /// Returns the limits that a reservation took past a share, and of which nobody was warned in their present window.
    pub(crate) fn warnings(&self, reservation: &Reservation) -> Vec<(Share, LimitStatus)> {
        let found = reservation.checks.watch.take();
        if found.is_empty() {
            return Vec::new();
        }
        let now = reservation.checks.now();
        let mut warned = self.warned.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut warnings = Vec::new();
        for found in found {
            if !found.is_passed {
                if !warned.is_empty() {
                    warned.remove(&found.key());
                }
                continue;
            }
            let (key, until) = (found.key(), found.quiet_until(now));
            if warned.get(&key).is_some_and(|until| *until > now) {
                continue;
            }
            if warned.len() >= MOST {
                warned.retain(|_, until| *until > now);
            }
            if warned.len() < MOST {
                warned.insert(key, until);
            }
            warnings.push((found.share, found.status));
        }
        warnings
    }
}
