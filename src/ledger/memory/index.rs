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
use crate::limit::{
    Charge, Chargeable, LimitQuery, Moment, PaymentView, Scope, ScopeKind, Total, Totals,
};

#[derive(Debug, Default)]
pub(super) struct Index {
    tracked: Vec<Tracked>,
    /// For each purchase, its position in [`Tracked::scopes`] of each tracked kind. A purchase is changed several times,
    /// and its scopes stay the same.
    scopes_of: Vec<Vec<Option<usize>>>,
}

/// The purchases by the scopes of one kind, in the order of one moment.
#[derive(Debug)]
struct Tracked {
    kind: ScopeKind,
    moment: Moment,
    scopes: Vec<Scoped>,
    /// The positions in `scopes`. It is empty if the kind has a single scope.
    positions: HashMap<Scope, usize>,
}

/// The purchases of one scope.
#[derive(Debug, Default)]
pub(super) struct Scoped {
    /// The moment and the position of each purchase whose moment is known.
    places: BTreeSet<(Timestamp, usize)>,
    /// The positions of the others: of the holds, which are few.
    untimed: Vec<usize>,
    totals: RefCell<Totals>,
}

/// The charges of a purchase, in the order of [`Moment::ALL`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct Charges([Option<Charge>; 3]);

impl Charges {
    pub(super) fn of(purchase: &Purchase) -> Self {
        Self(Moment::ALL.map(|moment| purchase.charge(moment)))
    }
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
            scopes: Vec::new(),
            positions: HashMap::new(),
        };
        for ((place, purchase), scopes) in purchases.enumerate().zip(&mut self.scopes_of) {
            let position = tracked.position_of(&purchase.payment());
            scopes.push(position);
            let charge = purchase.charge(tracked.moment);
            tracked.change(position, place, None, charge.as_ref());
        }
        self.tracked.push(tracked);
    }

    /// Finds the scopes of the purchase at `place`, which has no charges in the index yet.
    pub(super) fn place(&mut self, place: usize, payment: &PaymentView<'_>) {
        let tracked = self.tracked.iter_mut();
        let positions = tracked
            .map(|tracked| tracked.position_of(payment))
            .collect();
        match self.scopes_of.get_mut(place) {
            Some(known) => *known = positions,
            None => self.scopes_of.push(positions),
        }
    }

    /// Replaces the charges of the purchase at `place`.
    pub(super) fn change(&mut self, place: usize, was: &Charges, is: &Charges) {
        let Some(scopes) = self.scopes_of.get(place) else {
            return;
        };
        for (moment, (was, is)) in Moment::ALL.into_iter().zip(was.0.iter().zip(&is.0)) {
            if was == is {
                continue;
            }
            for (tracked, position) in self.tracked.iter_mut().zip(scopes) {
                if tracked.moment == moment {
                    tracked.change(*position, place, was.as_ref(), is.as_ref());
                }
            }
        }
    }

    /// Returns the purchases of the query's scope, if it has any.
    pub(super) fn find(&self, query: &LimitQuery<'_>) -> Option<&Scoped> {
        self.tracked(query)?.find(query.scope())
    }

    fn tracked(&self, query: &LimitQuery<'_>) -> Option<&Tracked> {
        let (scope, moment) = (query.scope(), query.since.moment);
        let same = |tracked: &&Tracked| tracked.moment == moment && tracked.kind.is_kind_of(scope);
        self.tracked.iter().find(same)
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
        let untimed = (after < until && until == Timestamp::MAX).then_some(&self.untimed);
        let untimed = untimed.into_iter().flatten();
        let timed = self.places.range(range).copied();
        timed.chain(untimed.map(|place| (Timestamp::MAX, *place)))
    }

    fn insert(&mut self, at: Timestamp, place: usize) {
        if at == Timestamp::MAX {
            self.untimed.push(place);
        } else {
            self.places.insert((at, place));
        }
    }

    fn remove(&mut self, at: Timestamp, place: usize) {
        if at != Timestamp::MAX {
            self.places.remove(&(at, place));
        } else if let Some(index) = self.untimed.iter().rposition(|known| *known == place) {
            self.untimed.swap_remove(index);
        }
    }
}

impl Tracked {
    /// Returns the position of the scope of this kind that the payment belongs to. Adds the scope if it is new.
    fn position_of(&mut self, payment: &PaymentView<'_>) -> Option<usize> {
        let scope = self.kind.scope_of(payment)?;
        let next = self.scopes.len();
        let position = if self.kind.is_one_scope() {
            0
        } else {
            *self.positions.entry(scope).or_insert(next)
        };
        if position == next {
            self.scopes.push(Scoped::default());
        }
        Some(position)
    }

    fn find(&self, scope: &Scope) -> Option<&Scoped> {
        if self.kind.is_one_scope() {
            self.scopes.first()
        } else {
            self.scopes.get(*self.positions.get(scope)?)
        }
    }

    /// Replaces the charge of the purchase at `place`.
    fn change(
        &mut self,
        position: Option<usize>,
        place: usize,
        was: Option<&Charge>,
        is: Option<&Charge>,
    ) {
        let Some(scoped) = position.and_then(|position| self.scopes.get_mut(position)) else {
            return;
        };
        let (was_at, is_at) = (was.map(|charge| charge.at), is.map(|charge| charge.at));
        if was_at != is_at {
            if let Some(at) = was_at {
                scoped.remove(at, place);
            }
            if let Some(at) = is_at {
                scoped.insert(at, place);
            }
        }
        scoped.totals.get_mut().change_charge(was, is);
    }
}
