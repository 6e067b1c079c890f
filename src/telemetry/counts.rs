//! An observer that counts.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Event, EventKind, Observer};
use crate::policy::Rule;

/// Counts what happens, denials by rule among it: they are not in the books, because nothing was
/// bought. Clones share their counts, which last as long as the process.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<HashMap<EventKind, u64>>>);

impl Counts {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How often something of this name happened, such as `settled`.
    #[must_use]
    pub fn of(&self, name: &str) -> u64 {
        let counts = self.counts();
        counts
            .iter()
            .filter(|(kind, _)| kind.name() == name)
            .map(|(_, count)| *count)
            .sum()
    }

    /// How often each rule refused, by the rule's name.
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
