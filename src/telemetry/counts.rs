//! An observer that counts events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Event, EventKind, Observer};
use crate::policy::Rule;

/// An observer that counts events and, by rule, denials.
///
/// Clones share their counts. The counts are lost when the process ends. The ledger also counts denials, for all
/// processes; see [`Ledger::denials`](crate::Ledger::denials).
///
/// ```
/// use bursar::telemetry::Counts;
///
/// let counts = Counts::new();
/// let builder = bursar::Client::builder().observer(counts.clone());
/// assert_eq!(counts.of("denied"), 0);
/// for (rule, count) in counts.denials() {
///     println!("{} refused {count} payments", rule.name());
/// }
/// ```
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<HashMap<EventKind, u64>>>);

impl Counts {
    /// Creates an observer with all counts at zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of events with this name, such as `settled`.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        let counts = self.counts();
        counts
            .iter()
            .filter(|(kind, _)| kind.name() == name)
            .map(|(_, count)| *count)
            .sum()
    }

    /// Returns the number of denials of each rule, sorted by the rule's name.
    #[must_use]
    pub fn denials(&self) -> Vec<(Rule, u64)> {
        let counts = self.counts();
        let mut denials: Vec<(Rule, u64)> = counts
            .iter()
            .filter_map(|(kind, count)| Some((kind.rule()?, *count)))
            .collect();
        denials.sort_by_key(|(rule, _)| rule.name());
        denials
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<EventKind, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Counts {
    fn observe(&self, event: &Event<'_>) {
        let mut counts = self.counts();
        let count = counts.entry(event.kind).or_default();
        *count = count.saturating_add(1);
    }
}
