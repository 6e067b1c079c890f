//! Books in memory, gone with the process.

mod index;
mod kept;

use std::sync::PoisonError;
#[cfg(not(bursar_shuttle))]
use std::sync::{Mutex, MutexGuard};

#[cfg(bursar_shuttle)]
use shuttle::sync::{Mutex, MutexGuard};

use alloy::primitives::{Address, U256};

use self::index::{Index, Scoped};
use self::kept::Kept;
use super::{
    Filter, Freeze, Ledger, LedgerError, Plan, Purchase, PurchaseKey, Reservation, Reserved,
    Resumption, Transition,
};
use crate::limit::{
    Charge, Chargeable, Denial, LimitCheck, LimitQuery, LimitStatus, Scope, Since, Sum, Total,
    TotalStore, Usage, leaves_at, running_total,
};
use crate::{Network, Origin, Timestamp};

/// Books in this process's memory.
///
/// Limits start anew with every process, and a crash forgets what was signed: for tests and for
/// wallets whose balance is the limit.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    books: Mutex<Kept>,
}

impl MemoryLedger {
    /// Empty books.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A panic elsewhere cannot leave an entry half-written: nothing in [`Kept::put`] panics.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl MemoryLedger {
    /// Changes entries in ways that no transition does: books that are built wrongly, for tests.
    pub(super) fn meddle(&self, change: impl Fn(&mut Purchase)) {
        let mut books = self.lock();
        for mut entry in books.purchases().to_vec() {
            change(&mut entry);
            books.put(entry);
        }
    }
}

impl Ledger for MemoryLedger {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let mut books = self.lock();
        let known = books.find(&reservation.key()).cloned();
        let mut entry = match reservation.plan(known.clone()) {
            Plan::Hold(entry) => entry,
            Plan::Answer(answer) => return Ok(answer),
        };
        let now = reservation.checks.now();
        books.track(&reservation.checks);
        let denial = reservation
            .checks
            .deny(&View::new(&books, now, known.as_ref()))?;
        if let Some(denial) = denial {
            return Ok(Reserved::Denied(Box::new(denial)));
        }
        let lapsed: Vec<Purchase> = books
            .held()
            .filter_map(|held| reservation.lapse(held))
            .collect();
        for freed in lapsed {
            books.put(freed);
        }
        entry.seq = known.map_or_else(|| books.next_seq(), |known| known.seq);
        books.put((*entry).clone());
        Ok(Reserved::Held(entry))
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut books = self.lock();
        let known = books
            .find(purchase)
            .ok_or_else(|| LedgerError::UnknownPurchase(purchase.id.clone()))?;
        let mut next = known.clone();
        next.apply(transition, now)?;
        books.put(next);
        Ok(())
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        let mut books = self.lock();
        let taken = books
            .unresolved_of(wanted.fingerprint)
            .find_map(|entry| wanted.take_up(entry));
        if let Some(taken) = &taken {
            books.put(taken.clone());
        }
        Ok(taken)
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        self.lock().stopped = order.cloned();
        Ok(())
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        Ok(self.lock().stopped.clone())
    }

    async fn examine(&self, check: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        let mut books = self.lock();
        books.track(check);
        check.evaluate(&View::new(&books, check.now(), None))
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        Ok(self.lock().find(purchase).cloned())
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let books = self.lock();
        let mut found: Vec<Purchase> = books
            .purchases()
            .iter()
            .filter(|entry| filter.passes(entry))
            .cloned()
            .collect();
        if let Some(last) = filter.last {
            found.drain(..found.len().saturating_sub(last));
        }
        Ok(found)
    }
}

/// The ledger during one check.
struct View<'a> {
    books: &'a Kept,
    now: Timestamp,
    /// The purchase that is being reserved, as it is stored.
    except: Option<&'a Purchase>,
    /// The reservations of other purchases that count.
    held: Vec<&'a Purchase>,
}

impl<'a> View<'a> {
    fn new(books: &'a Kept, now: Timestamp, except: Option<&'a Purchase>) -> Self {
        let mut view = Self {
            books,
            now,
            except,
            held: Vec::new(),
        };
        let held = books.held().filter(|held| view.counts(held));
        view.held = held.collect();
        view
    }

    fn totals_of(&self, query: &LimitQuery<'_>) -> TotalsOf<'_> {
        TotalsOf {
            view: self,
            scoped: self.books.index().find(query),
        }
    }

    /// Whether the purchase counts, and is not the one that is being reserved.
    fn counts(&self, purchase: &Purchase) -> bool {
        purchase.counts(self.now) && self.except.is_none_or(|except| except.seq != purchase.seq)
    }
}

impl Usage for View<'_> {
    type Error = LedgerError;

    fn frozen(&self) -> Result<Option<Denial>, LedgerError> {
        Ok(self.books.stopped.as_ref().map(Freeze::denial))
    }

    /// Reads all purchases. Only debug assertions need this.
    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        let purchases = self.books.purchases().iter();
        purchases
            .filter(|purchase| self.counts(purchase) && scope.covers(&purchase.payment()))
            .filter_map(|purchase| purchase.charge(since.moment))
            .filter(|charge| charge.at > since.after)
            .for_each(visit);
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        running_total(self, &self.totals_of(query), query, self.now)
    }

    fn leaves_at(
        &self,
        query: &LimitQuery<'_>,
        units: U256,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let totals = self.totals_of(query);
        let places = totals.places(query.since.after, Timestamp::MAX);
        let signed = places.filter_map(|(_, place)| {
            let purchase = self.books.get(place).filter(|known| self.counts(known))?;
            query.part(purchase)
        });
        let held = self.held.iter().filter_map(|held| query.part(*held));
        let mut held: Vec<_> = held.collect();
        held.sort_unstable_by_key(|(at, _)| *at);
        let (mut signed, mut held) = (signed.peekable(), held.into_iter().peekable());
        let mut oldest_first = std::iter::from_fn(|| match (held.peek(), signed.peek()) {
            (Some((held_at, _)), Some((signed_at, _))) if held_at <= signed_at => held.next(),
            (_, Some(_)) => signed.next(),
            (_, None) => held.next(),
        });
        let mut gone = U256::ZERO;
        let last = oldest_first.find_map(|(at, part)| {
            gone = gone.saturating_add(part);
            (gone >= units).then_some(at)
        });
        debug_assert_eq!(last, leaves_at(self, query, units)?, "{query:?}");
        Ok(last)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        asset: (Network, Address),
    ) -> Result<Option<Address>, LedgerError> {
        let mut bought = self.books.bought(origin, asset);
        Ok(bought
            .find(|purchase| self.counts(purchase))
            .map(|purchase| purchase.payee))
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        asset: (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        let mut bought = self.books.bought_at(origin, asset, method, path).rev();
        Ok(bought
            .find(|purchase| self.counts(purchase))
            .map(|purchase| purchase.value))
    }
}

/// The totals of one scope during one check. A scope without signed purchases has none.
struct TotalsOf<'a> {
    view: &'a View<'a>,
    scoped: Option<&'a Scoped>,
}

impl TotalsOf<'_> {
    /// Returns the positions of the purchases that are later than `after`, and not later than `until`, oldest first.
    fn places(
        &self,
        after: Timestamp,
        until: Timestamp,
    ) -> impl Iterator<Item = (Timestamp, usize)> {
        let scoped = self.scoped.into_iter();
        scoped.flat_map(move |scoped| scoped.places(after, until))
    }
}

impl TotalStore for TotalsOf<'_> {
    type Error = LedgerError;
    type Purchase = Purchase;

    fn keeps(&self, _: &LimitQuery<'_>) -> bool {
        self.scoped.is_some()
    }

    fn find(&self, query: &LimitQuery<'_>) -> Result<Option<Total>, LedgerError> {
        Ok(self.scoped.and_then(|scoped| scoped.total(query)))
    }

    fn put(&self, _: &LimitQuery<'_>, total: Total) -> Result<(), LedgerError> {
        if let Some(scoped) = self.scoped {
            scoped.put(total);
        }
        Ok(())
    }

    fn between(
        &self,
        query: &LimitQuery<'_>,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Sum, LedgerError> {
        let parts = self.places(after, until).filter_map(|(_, place)| {
            let charge = self.view.books.get(place)?.charge(query.since.moment)?;
            query.unit.measure(&charge)
        });
        Ok(parts.fold(Sum::default(), Sum::plus))
    }

    fn next(&self, _: &LimitQuery<'_>, after: Timestamp) -> Result<Timestamp, LedgerError> {
        let first = self.places(after, Timestamp::MAX).next();
        Ok(first.map_or(Timestamp::MAX, |(at, _)| at))
    }

    fn not_counted(&self) -> impl Iterator<Item = &Purchase> {
        let known = self.view.except.into_iter();
        known.filter(|known| Index::has(known))
    }

    fn left_out(&self) -> impl Iterator<Item = &Purchase> {
        self.view.held.iter().copied()
    }
}
