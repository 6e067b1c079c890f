//! Running totals: sums that are kept as purchases change, so that no limit has to read all charges.
//!
//! A total belongs to one scope, one window and one unit. It is the sum of all charges after a start. Every change of
//! a purchase changes the sums that it is in. A window moves on when a limit asks for it, by the charges that left it
//! since. So a charge is added once and leaves each window once, and the cost does not grow with the ledger.
//!
//! A store puts reservations into the sums, lapsed ones included. [`running_total`] corrects the sum for reservations
//! that must not count.

use alloy::primitives::U256;

use super::{Charge, Chargeable, LimitQuery, Moment, Sum, Unit, Usage, Window};
use crate::clock::Timestamp;

/// How exactly it is known when a total was last used, in milliseconds: one day.
const USE_PRECISION: i64 = 86_400_000;

/// The part of a purchase in a sum, with its moment. `None` if it has none.
type Part = Option<(Timestamp, U256)>;

/// The sum of the charges of one scope after a start, in one unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) unit: Unit,
    pub(crate) window: Window,
    /// The start. The sum has all charges that are later.
    pub(crate) after: Timestamp,
    /// No charge in the sum is earlier than this.
    pub(crate) next: Timestamp,
    pub(crate) sum: Sum,
    /// When a limit last asked for the total, to the day.
    pub(crate) used_at: Timestamp,
}

impl Total {
    /// Returns the moment of `purchase` and its part of the sum. The purchase must be in the scope.
    #[cfg(feature = "sqlite")]
    pub(crate) fn part(&self, purchase: &impl Chargeable) -> Part {
        self.part_of(&purchase.charge(self.window.moment)?)
    }

    /// Returns the moment of `charge` and its part of the sum. The charge must be in the scope, and at the moment of the window.
    fn part_of(&self, charge: &Charge) -> Part {
        if charge.at <= self.after {
            return None;
        }
        let part = self.unit.measure(charge)?;
        (!part.is_zero()).then_some((charge.at, part))
    }

    /// Replaces a part of the sum by another one. Returns whether the total changed.
    fn replace(&mut self, removed: Part, added: Part) -> bool {
        if removed == added {
            return false;
        }
        let before = (self.sum, self.next);
        if let Some((_, part)) = removed {
            self.sum = self.sum.minus(part);
        }
        if let Some((at, part)) = added {
            self.sum = self.sum.plus(part);
            self.next = self.next.min(at);
        }
        (self.sum, self.next) != before
    }
}

/// The totals of one scope.
#[derive(Debug, Default)]
pub(crate) struct Totals(Vec<Kept>);

#[derive(Debug)]
struct Kept {
    total: Total,
    /// Whether the store has the total as it is here.
    is_stored: bool,
}

impl Totals {
    /// Returns the total that a query asks for.
    pub(crate) fn find(&self, query: &LimitQuery<'_>) -> Option<&Total> {
        let mut totals = self.0.iter().map(|kept| &kept.total);
        totals.find(|total| total.unit == query.unit && total.window == query.window)
    }

    /// Adds a total, or replaces the total of the same unit and window. Returns whether it was added.
    pub(crate) fn put(&mut self, total: Total) -> bool {
        let same =
            |kept: &&mut Kept| kept.total.unit == total.unit && kept.total.window == total.window;
        let known = self.0.iter_mut().find(same);
        let is_new = known.is_none();
        let kept = Kept {
            total,
            is_stored: false,
        };
        match known {
            Some(known) => *known = kept,
            None => self.0.push(kept),
        }
        is_new
    }

    /// Replaces the charge of `old` by the charge of `new` in every total. Both are in the scope, if they are given.
    /// Returns whether any total changed.
    #[cfg(feature = "sqlite")]
    pub(crate) fn change(
        &mut self,
        old: Option<&impl Chargeable>,
        new: Option<&impl Chargeable>,
    ) -> bool {
        self.replace(|total| {
            let removed = old.and_then(|purchase| total.part(purchase));
            (removed, new.and_then(|purchase| total.part(purchase)))
        })
    }

    /// Replaces a charge by another one in every total, whose windows all have the moment of these charges. Both are in the
    /// scope, if they are given. Returns whether any total changed.
    pub(crate) fn change_charge(&mut self, old: Option<&Charge>, new: Option<&Charge>) -> bool {
        self.replace(|total| {
            let part = |charge| total.part_of(charge);
            (old.and_then(part), new.and_then(part))
        })
    }

    fn replace(&mut self, parts: impl Fn(&Total) -> (Part, Part)) -> bool {
        let mut is_changed = false;
        for kept in &mut self.0 {
            let (removed, added) = parts(&kept.total);
            if kept.total.replace(removed, added) {
                kept.is_stored = false;
                is_changed = true;
            }
        }
        is_changed
    }
}

#[cfg(feature = "sqlite")]
impl Totals {
    /// Returns totals as they were read from the store.
    pub(crate) fn stored(totals: Vec<Total>) -> Self {
        let kept = totals.into_iter().map(|total| Kept {
            total,
            is_stored: true,
        });
        Self(kept.collect())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Total> {
        self.0.iter().map(|kept| &kept.total)
    }

    /// Calls `store` with every total that the store does not have as it is here.
    pub(crate) fn store<E>(
        &mut self,
        mut store: impl FnMut(&Total) -> Result<(), E>,
    ) -> Result<(), E> {
        for kept in self.0.iter_mut().filter(|kept| !kept.is_stored) {
            store(&kept.total)?;
            kept.is_stored = true;
        }
        Ok(())
    }
}

/// Whether no limit can tell the two purchases apart.
#[cfg(feature = "sqlite")]
pub(crate) fn same_usage(one: &impl Chargeable, other: &impl Chargeable) -> bool {
    let same = |moment| one.charge(moment) == other.charge(moment);
    Moment::ALL.into_iter().all(same) && one.payment() == other.payment()
}

/// A store that keeps running totals, and finds charges by their moment.
pub(crate) trait TotalStore {
    type Error;
    type Purchase: Chargeable;

    /// Whether the store keeps totals of the query's scope.
    fn keeps(&self, query: &LimitQuery<'_>) -> bool;

    /// Returns the total that a query asks for, if it is kept.
    fn find(&self, query: &LimitQuery<'_>) -> Result<Option<Total>, Self::Error>;

    /// Keeps a total that is new or has moved on.
    fn put(&self, query: &LimitQuery<'_>, total: Total) -> Result<(), Self::Error>;

    /// Adds all charges of the query's scope that are later than `after` and not later than `until`, as the totals
    /// have them.
    fn between(
        &self,
        query: &LimitQuery<'_>,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Sum, Self::Error>;

    /// Returns a time later than `after` before which the scope has no charge. It need not be the latest such time.
    fn next(&self, query: &LimitQuery<'_>, after: Timestamp) -> Result<Timestamp, Self::Error>;

    /// Returns the purchases that are in the totals and must not count.
    fn not_counted(&self) -> impl Iterator<Item = &Self::Purchase>;
}

/// Implements [`Usage::total`] by running totals.
pub(crate) fn running_total<U: Usage, S: TotalStore<Error = U::Error>>(
    usage: &U,
    store: &S,
    query: &LimitQuery<'_>,
    now: Timestamp,
) -> Result<U256, S::Error> {
    let total = running_sum(store, query, now)?.amount();
    // In tests of this crate only: another program can change the rows of a ledger, and that must not end a program.
    if cfg!(test) {
        assert_eq!(total, super::sum(usage, query)?, "{query:?}");
    }
    Ok(total)
}

/// Returns the sum of a query by running totals.
pub(super) fn running_sum<S: TotalStore>(
    store: &S,
    query: &LimitQuery<'_>,
    now: Timestamp,
) -> Result<Sum, S::Error> {
    let sum = if query.is_few() || !store.keeps(query) {
        store.between(query, query.since.after, Timestamp::MAX)?
    } else {
        current(store, query, now)?
    };
    let part = |purchase| query.part(purchase).map(|(_, part)| part);
    let not_counted = store.not_counted().filter_map(part);
    Ok(sum.minus(not_counted.fold(Sum::default(), Sum::plus)))
}

/// Brings the total to the query's start.
fn current<S: TotalStore>(
    store: &S,
    query: &LimitQuery<'_>,
    now: Timestamp,
) -> Result<Sum, S::Error> {
    let start = query.since.after;
    let known = store.find(query)?;
    let moved = match known {
        // By a clock that is behind. The charges that only this clock still sees are not kept.
        Some(total) if start < total.after => {
            return Ok(total.sum.plus(store.between(query, start, total.after)?));
        }
        Some(total) if start == total.after || start < total.next => {
            if now.millis().saturating_sub(total.used_at.millis()) <= USE_PRECISION {
                return Ok(total.sum);
            }
            Total {
                used_at: now,
                ..total
            }
        }
        // Nothing can leave a sum that is zero. Most sums of failures are.
        Some(total) if total.sum == Sum::default() => Total {
            after: start,
            next: Timestamp::MAX,
            used_at: now,
            ..total
        },
        Some(total) if is_near(&total, start, now) => Total {
            after: start,
            next: store.next(query, start)?,
            sum: total.sum.minus(store.between(query, total.after, start)?),
            used_at: now,
            ..total
        },
        _ => Total {
            unit: query.unit,
            window: query.window.clone(),
            after: start,
            next: store.next(query, start)?,
            sum: store.between(query, start, Timestamp::MAX)?,
            used_at: now,
        },
    };
    let sum = moved.sum;
    store.put(query, moved)?;
    Ok(sum)
}

/// Whether it costs less to move the total than to begin again. A window that moved by more than its length shares
/// nothing with its old place. The window of unresolved payments has no length, but holds few charges.
fn is_near(total: &Total, start: Timestamp, now: Timestamp) -> bool {
    let length = now.millis().saturating_sub(start.millis());
    let moved = start.millis().saturating_sub(total.after.millis());
    total.window.moment == Moment::ExpiresAt || moved <= length
}
