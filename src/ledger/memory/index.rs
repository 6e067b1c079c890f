//! An index of purchases by scope and time, with a running total for each limit.
//!
//! The index begins to track a kind of scope when a limit first needs it. From then on every change of a purchase
//! changes the index, so that no limit has to read all purchases.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::Timestamp;
use crate::ledger::Purchase;
use crate::limit::{
    Chargeable, LimitQuery, Moment, Scope, ScopeKind, Since, Total, Totals, same_usage,
};

#[derive(Debug, Default)]
pub(super) struct Index(Vec<Tracked>);

/// The purchases by the scopes of one kind, in the order of one moment.
#[derive(Debug)]
struct Tracked {
    kind: ScopeKind,
    moment: Moment,
    scopes: HashMap<Scope, Scoped>,
}

/// The purchases of one scope.
#[derive(Debug, Default)]
struct Scoped {
    /// The moment and the position of each purchase.
    places: BTreeSet<(Timestamp, usize)>,
    totals: RefCell<Totals>,
}

impl Index {
    /// Begins to track the scopes that a query needs.
    pub(super) fn track(&mut self, query: &LimitQuery<'_>, purchases: &[Purchase]) {
        let (kind, moment) = (ScopeKind::of(query.scope()), query.since.moment);
        let same = |tracked: &Tracked| tracked.moment == moment && tracked.kind == kind;
        if self.0.iter().any(same) {
            return;
        }
        let mut tracked = Tracked {
            kind,
            moment,
            scopes: HashMap::new(),
        };
        for (place, purchase) in purchases.iter().enumerate() {
            tracked.change(place, None, Some(purchase));
        }
        self.0.push(tracked);
    }

    /// Replaces the purchase at `place`.
    pub(super) fn change(&mut self, place: usize, before: Option<&Purchase>, next: &Purchase) {
        if before.is_some_and(|before| same_usage(before, next)) {
            return;
        }
        for tracked in &mut self.0 {
            match before {
                Some(before) if before.payment() != next.payment() => {
                    tracked.change(place, Some(before), None);
                    tracked.change(place, None, Some(next));
                }
                _ => tracked.change(place, before, Some(next)),
            }
        }
    }

    /// Returns the total that a query asks for, if it is kept.
    pub(super) fn total(&self, query: &LimitQuery<'_>) -> Option<Total> {
        self.find(query)?.totals.borrow().find(query).cloned()
    }

    /// Keeps a total. A scope without purchases needs none.
    pub(super) fn put(&self, query: &LimitQuery<'_>, total: Total) {
        if let Some(scoped) = self.find(query) {
            scoped.totals.borrow_mut().put(total);
        }
    }

    /// Returns the positions of the purchases that are later than `since` and not later than `until`, oldest first.
    pub(super) fn places(
        &self,
        query: &LimitQuery<'_>,
        since: Since,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, usize)> {
        let range = (
            Bound::Excluded((since.after, usize::MAX)),
            Bound::Included((until.max(since.after), usize::MAX)),
        );
        let scoped = self.find(query).into_iter();
        scoped.flat_map(move |scoped| scoped.places.range(range).copied())
    }

    fn find(&self, query: &LimitQuery<'_>) -> Option<&Scoped> {
        let mut tracked = self
            .0
            .iter()
            .filter(|tracked| tracked.moment == query.since.moment);
        tracked.find_map(|tracked| tracked.scopes.get(query.scope()))
    }
}

impl Tracked {
    /// Replaces a purchase whose scope is the same before and after.
    fn change(&mut self, place: usize, before: Option<&Purchase>, next: Option<&Purchase>) {
        let Some(either) = next.or(before) else {
            return;
        };
        let at = |purchase: Option<&Purchase>| Some(purchase?.charge(self.moment)?.at);
        let (was_at, is_at) = (at(before), at(next));
        if was_at.is_none() && is_at.is_none() {
            return;
        }
        let Some(scope) = self.kind.scope_of(&either.payment()) else {
            return;
        };
        let scoped = self.scopes.entry(scope).or_default();
        if was_at != is_at {
            if let Some(at) = was_at {
                scoped.places.remove(&(at, place));
            }
            if let Some(at) = is_at {
                scoped.places.insert((at, place));
            }
        }
        scoped.totals.get_mut().change(before, next);
    }
}
