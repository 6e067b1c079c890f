//! A ledger in the memory of this process.

mod index;
mod store;

use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(all(test, bursar_shuttle)))]
use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, bursar_shuttle))]
use shuttle::sync::{Mutex, MutexGuard};

use alloy::primitives::{Address, B256, U256};

use self::index::Scoped;
use self::store::Store;
use super::denials::{DenialCount, MOST};
use super::filter::PAGE;
use super::{
    Bought, Calls, Filter, Freeze, LedgerError, LedgerFault, Plan, Purchase, PurchaseKey,
    Reservation, Reserved, Resumed, Resumption, Transition, Verification,
};
use crate::clock::Timestamp;
use crate::limit::{
    Charge, Chargeable, Denial, LimitCheck, LimitQuery, LimitStatus, Scope, Since, Sum, Total,
    TotalStore, Usage, leaves_at, running_total,
};
use crate::money::Network;
use crate::origin::Origin;

/// The purchases of this process.
#[derive(Debug)]
pub(super) struct Memory {
    number: u64,
    store: Mutex<Store>,
}

impl Default for Memory {
    fn default() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        Self {
            number: COUNT.fetch_add(1, Ordering::Relaxed),
            store: Mutex::default(),
        }
    }
}

impl Memory {
    /// Returns the number of this ledger among those of the process.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// A panic in another thread cannot leave a purchase half written: [`Store::put`] and [`Store::apply`] do not panic.
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let mut store = self.lock();
        let known = store.with_id(&reservation.purchase.id).cloned().collect();
        let (stored, plan) = reservation.plan(known);
        let mut purchase = match plan {
            Plan::Hold(purchase) => purchase,
            Plan::Answer(answer) => return Ok(answer),
        };
        let now = reservation.checks.now();
        store.track(&reservation.checks);
        let denial = reservation
            .checks
            .deny(&View::new(&store, now, stored.as_ref()))?;
        if let Some(denial) = denial {
            return Ok(Reserved::Denied(Box::new(denial)));
        }
        let lapsed: Vec<Purchase> = store
            .lapsed(now)
            .filter_map(|held| reservation.lapse(held))
            .collect();
        for voided in lapsed {
            store.put(Box::new(voided));
        }
        purchase.seq = stored.map_or_else(|| store.next_seq(), |stored| stored.seq);
        store.put(purchase.clone());
        reservation.note_held(&purchase);
        Ok(Reserved::Held(purchase))
    }

    pub(super) fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.lock().apply(purchase, transition, now)
    }

    pub(super) fn resume(&self, wanted: &Resumption) -> Result<Resumed, LedgerError> {
        let mut store = self.lock();
        let mut resumed = wanted.choose(
            store
                .undelivered_of(wanted.fingerprint, wanted.now)
                .cloned(),
        );
        if let Resumed::Again(purchase) = &mut resumed {
            **purchase = wanted.leased(purchase);
            store.put(purchase.clone());
        }
        Ok(resumed)
    }

    pub(super) fn set_freeze(&self, freeze: Option<&Freeze>) -> Result<(), LedgerError> {
        self.lock().freeze = freeze.cloned();
        Ok(())
    }

    pub(super) fn frozen(&self) -> Result<Option<Freeze>, LedgerError> {
        Ok(self.lock().freeze.clone())
    }

    pub(super) fn examine(&self, check: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        let mut store = self.lock();
        store.track(check);
        check.evaluate(&View::new(&store, check.now(), None))
    }

    pub(super) fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        Ok(self.lock().find(purchase).cloned())
    }

    pub(super) fn page(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let store = self.lock();
        let passes = |purchase: &&Purchase| filter.passes(purchase);
        if let Some(id) = &filter.id {
            let mut found: Vec<Purchase> = store.with_id(id).filter(passes).cloned().collect();
            found.sort_unstable_by_key(|purchase| purchase.seq);
            found.truncate(PAGE);
            return Ok(found);
        }
        let found = store.after(filter.after).filter(passes);
        Ok(found.take(PAGE).cloned().collect())
    }

    pub(super) fn before_last(
        &self,
        filter: &Filter,
        last: usize,
    ) -> Result<Option<u64>, LedgerError> {
        let store = self.lock();
        let mut newest_first = store
            .after(None)
            .rev()
            .filter(|purchase| filter.passes(purchase));
        Ok(newest_first.nth(last).map(|purchase| purchase.seq))
    }

    pub(super) fn has_bought(&self, bought: &Bought<'_>) -> Result<bool, LedgerError> {
        let store = self.lock();
        let mut known = store.bought_from(bought.origin);
        Ok(known.any(|purchase| bought.includes(purchase)))
    }

    pub(super) fn calls(&self, calls: &Calls<'_>) -> Result<u64, LedgerError> {
        let store = self.lock();
        let counted = store
            .calls(calls.credential, calls.since)
            .filter(|call| call.seq < calls.before)
            .take(usize::try_from(calls.most).unwrap_or(usize::MAX));
        Ok(u64::try_from(counted.count()).unwrap_or(u64::MAX))
    }

    pub(super) fn add_denials(&self, denials: &[DenialCount]) -> Result<(), LedgerError> {
        let mut store = self.lock();
        for more in denials {
            store.denials.add(more.clone(), MOST);
        }
        Ok(())
    }

    pub(super) fn denials(&self) -> Result<Vec<DenialCount>, LedgerError> {
        Ok(self.lock().denials.iter().cloned().collect())
    }

    /// There are no events, so the chain of hashes is empty.
    /// Memory has no events, so it calls `_read` never.
    pub(super) fn verify(
        &self,
        noted: Option<B256>,
        _read: &mut dyn FnMut(usize),
    ) -> Result<Verification, LedgerError> {
        let missing = noted.filter(|head| *head != B256::ZERO);
        let faults: Vec<LedgerFault> = missing.map(LedgerFault::HeadMissing).into_iter().collect();
        Ok(Verification {
            events: 0,
            purchases: self.lock().next_seq().saturating_sub(1),
            head: B256::ZERO,
            fault_count: u64::from(!faults.is_empty()),
            faults,
        })
    }
}

#[cfg(test)]
impl Memory {
    /// Changes purchases in ways that no transition allows, to test that wrong ledgers are found out.
    pub(super) fn corrupt(&self, change: impl Fn(&mut Purchase)) {
        let mut store = self.lock();
        let purchases: Vec<Purchase> = store.purchases().cloned().collect();
        for mut purchase in purchases {
            change(&mut purchase);
            store.put(Box::new(purchase));
        }
    }
}

/// The ledger during one check.
struct View<'a> {
    store: &'a Store,
    now: Timestamp,
    /// The purchase that is being reserved, as it is stored.
    except: Option<&'a Purchase>,
    /// The reservations of other purchases that lapsed. They are in the index, and do not count.
    lapsed: Vec<&'a Purchase>,
}

impl<'a> View<'a> {
    fn new(store: &'a Store, now: Timestamp, except: Option<&'a Purchase>) -> Self {
        let is_other =
            |held: &&Purchase| except.is_none_or(|except: &Purchase| except.seq != held.seq);
        Self {
            store,
            now,
            except,
            lapsed: store.lapsed(now).filter(is_other).collect(),
        }
    }

    fn totals_of(&self, query: &LimitQuery<'_>) -> TotalsOf<'_> {
        TotalsOf {
            view: self,
            scoped: self.store.index().find(query),
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
        Ok(self.store.freeze.as_ref().map(Freeze::denial))
    }

    /// Reads all purchases. Only debug assertions need this.
    fn charges(
        &self,
        scope: &Scope,
        since: Since,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        let purchases = self.store.purchases();
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
        let mut oldest_first = places.filter_map(|(_, place)| {
            let purchase = self.store.get(place).filter(|known| self.counts(known))?;
            query.part(purchase)
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
        let mut bought = self.store.bought(origin, asset);
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
        let mut bought = self.store.bought_at(origin, asset, method, path).rev();
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
            let charge = self.view.store.get(place)?.charge(query.since.moment)?;
            query.unit.measure(&charge)
        });
        Ok(parts.fold(Sum::default(), Sum::plus))
    }

    fn next(&self, _: &LimitQuery<'_>, after: Timestamp) -> Result<Timestamp, LedgerError> {
        let first = self.places(after, Timestamp::MAX).next();
        Ok(first.map_or(Timestamp::MAX, |(at, _)| at))
    }

    fn not_counted(&self) -> impl Iterator<Item = &Purchase> {
        self.view.lapsed.iter().copied().chain(self.view.except)
    }
}

#[cfg(test)]
mod tests;
