//! An index of purchases by scope and time, with a running total for each limit.
//!
//! The index begins to track a kind of scope when a limit first needs it. From then on every change of a purchase
//! changes the index, so that no limit has to read all purchases. Reservations are in the index until the ledger voids
//! them, also those that lapsed.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;

use crate::clock::Timestamp;
use crate::ledger::Purchase;
use crate::limit::{Charge, Chargeable, LimitQuery, Moment, Scope, ScopeKind, Total, Totals};

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
pub(super) struct Scoped {
    /// The moment and the position of each purchase.
    places: BTreeSet<(Timestamp, usize)>,
    totals: RefCell<Totals>,
}

impl Index {
    /// Begins to track the scopes that a query needs.
    pub(super) fn track<'a>(
        &mut self,
        query: &LimitQuery<'_>,
        purchases: impl Iterator<Item = &'a Purchase>,
    ) {
        if self.tracked(query).is_some() {
            return;
        }
        let mut tracked = Tracked {
            kind: ScopeKind::of(query.scope()),
            moment: query.since.moment,
            scopes: HashMap::new(),
        };
        for (place, purchase) in purchases.enumerate() {
            let charges = Charges::of(tracked.moment, None, Some(purchase));
            if charges.is.is_some() {
                tracked.change(place, None, Some(purchase), &charges);
            }
        }
        self.0.push(tracked);
    }

    /// Replaces the purchase at `place`.
    pub(super) fn change(&mut self, place: usize, before: Option<&Purchase>, next: &Purchase) {
        if before.is_some_and(|before| before.payment() != next.payment()) {
            self.replace(place, before, None);
            self.replace(place, None, Some(next));
        } else {
            self.replace(place, before, Some(next));
        }
    }

    /// Replaces a purchase whose scope is the same before and after. Many kinds of scope share a moment.
    fn replace(&mut self, place: usize, before: Option<&Purchase>, next: Option<&Purchase>) {
        for moment in Moment::ALL {
            let charges = Charges::of(moment, before, next);
            if charges.was == charges.is {
                continue;
            }
            for tracked in self.0.iter_mut().filter(|tracked| tracked.moment == moment) {
                tracked.change(place, before, next, &charges);
            }
        }
    }

    /// Returns the purchases of the query's scope, if it has any.
    pub(super) fn find(&self, query: &LimitQuery<'_>) -> Option<&Scoped> {
        self.tracked(query)?.scopes.get(query.scope())
    }

    fn tracked(&self, query: &LimitQuery<'_>) -> Option<&Tracked> {
        let (scope, moment) = (query.scope(), query.since.moment);
        let same = |tracked: &&Tracked| tracked.moment == moment && tracked.kind.is_kind_of(scope);
        self.0.iter().find(same)
    }
}

impl Scoped {
    /// Returns the total that a query asks for, if it is kept.
    pub(super) fn total(&self, query: &LimitQuery<'_>) -> Option<Total> {
        self.totals.borrow().find(query).cloned()
    }

    /// Keeps a total.
    pub(super) fn put(&self, total: Total) {
        self.totals.borrow_mut().put(total);
    }

    /// Returns the positions of the purchases that are later than `after` and not later than `until`, oldest first.
    pub(super) fn places(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, usize)> {
        let range = (
            Bound::Excluded((after, usize::MAX)),
            Bound::Included((until.max(after), usize::MAX)),
        );
        self.places.range(range).copied()
    }
}

/// The charges of a purchase before and after a change.
struct Charges {
    was: Option<Charge>,
    is: Option<Charge>,
}

impl Charges {
    fn of(moment: Moment, before: Option<&Purchase>, next: Option<&Purchase>) -> Self {
        let charge = |purchase: Option<&Purchase>| purchase?.charge(moment);
        Self {
            was: charge(before),
            is: charge(next),
        }
    }
}

impl Tracked {
    /// Replaces a purchase whose scope is the same before and after.
    fn change(
        &mut self,
        place: usize,
        before: Option<&Purchase>,
        next: Option<&Purchase>,
        charges: &Charges,
    ) {
        let Some(either) = next.or(before) else {
            return;
        };
        let at = |charge: Option<Charge>| charge.map(|charge| charge.at);
        let (was_at, is_at) = (at(charges.was), at(charges.is));
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
