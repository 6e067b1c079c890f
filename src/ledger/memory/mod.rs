//! A ledger in the memory of this process.

mod index;
mod store;

use std::sync::PoisonError;
#[cfg(not(all(test, bursar_shuttle)))]
use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, bursar_shuttle))]
use shuttle::sync::{Mutex, MutexGuard};

use alloy::primitives::{Address, B256, U256};

use self::store::Store;
use super::{
    Filter, Freeze, LedgerError, LedgerFault, Plan, Purchase, PurchaseKey, Reservation, Reserved,
    Resumption, Transition, Verification,
};
use crate::limit::{
    Charge, Chargeable, Denial, LimitCheck, LimitQuery, LimitStatus, Scope, Since, Sum, Total,
    TotalStore, Usage, leaves_at, running_total,
};
use crate::{Network, Origin, Timestamp};

/// The purchases of this process.
#[derive(Debug, Default)]
pub(super) struct Memory {
    store: Mutex<Store>,
}

impl Memory {
    /// A panic in another thread cannot leave a purchase half written: [`Store::put`] does not panic.
    fn lock(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let mut store = self.lock();
        let stored = store.find(&reservation.key()).cloned();
        let mut purchase = match reservation.plan(stored.clone()) {
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
            .held()
            .filter_map(|held| reservation.lapse(held))
            .collect();
        for voided in lapsed {
            store.put(voided);
        }
        purchase.seq = stored.map_or_else(|| store.next_seq(), |stored| stored.seq);
        store.put((*purchase).clone());
        Ok(Reserved::Held(purchase))
    }

    pub(super) fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut store = self.lock();
        let stored = store
            .find(purchase)
            .ok_or_else(|| LedgerError::UnknownPurchase(purchase.id.clone()))?;
        let mut next = stored.clone();
        next.apply(transition, now)?;
        store.put(next);
        Ok(())
    }

    pub(super) fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        let mut store = self.lock();
        let resumed = store
            .unresolved_of(wanted.fingerprint)
            .find_map(|stored| wanted.resume(stored));
        if let Some(resumed) = &resumed {
            store.put(resumed.clone());
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

    pub(super) fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let store = self.lock();
        let mut found: Vec<Purchase> = store
            .purchases()
            .iter()
            .filter(|purchase| filter.passes(purchase))
            .cloned()
            .collect();
        if let Some(last) = filter.last {
            found.drain(..found.len().saturating_sub(last));
        }
        Ok(found)
    }

    /// There are no events, so the chain of hashes is empty.
    pub(super) fn verify(&self, noted: Option<B256>) -> Result<Verification, LedgerError> {
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
        for mut purchase in store.purchases().to_vec() {
            change(&mut purchase);
            store.put(purchase);
        }
    }
}

/// The ledger during one check.
struct View<'a> {
    store: &'a Store,
    now: Timestamp,
    /// The purchase that is being reserved, as it is stored.
    except: Option<&'a Purchase>,
    /// The reservations of other purchases that lapsed.
    lapsed: Vec<&'a Purchase>,
}

impl<'a> View<'a> {
    fn new(store: &'a Store, now: Timestamp, except: Option<&'a Purchase>) -> Self {
        let is_other =
            |purchase: &&Purchase| except.is_none_or(|except| except.seq != purchase.seq);
        let lapsed = store
            .held()
            .filter(|held| !held.counts(now))
            .filter(is_other);
        Self {
            store,
            now,
            except,
            lapsed: lapsed.collect(),
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
        let purchases = self.store.purchases().iter();
        purchases
            .filter(|purchase| self.counts(purchase) && scope.covers(&purchase.payment()))
            .filter_map(|purchase| purchase.charge(since.moment))
            .filter(|charge| charge.at > since.after)
            .for_each(visit);
        Ok(())
    }

    fn total(&self, query: &LimitQuery<'_>) -> Result<U256, LedgerError> {
        running_total(self, query, self.now)
    }

    fn leaves_at(
        &self,
        query: &LimitQuery<'_>,
        units: U256,
    ) -> Result<Option<Timestamp>, LedgerError> {
        let places = self
            .store
            .index()
            .places(query, query.since, Timestamp::MAX);
        let mut gone = U256::ZERO;
        let mut counted = places.filter_map(|(at, place)| {
            let purchase = self.store.get(place).filter(|known| self.counts(known))?;
            Some((at, query.part(purchase)?))
        });
        let last = counted.find_map(|(at, part)| {
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

impl TotalStore for View<'_> {
    type Purchase = Purchase;

    fn keeps(&self, _: &LimitQuery<'_>) -> bool {
        true
    }

    fn find(&self, query: &LimitQuery<'_>) -> Result<Option<Total>, LedgerError> {
        Ok(self.store.index().total(query))
    }

    fn put(&self, query: &LimitQuery<'_>, total: Total) -> Result<(), LedgerError> {
        self.store.index().put(query, total);
        Ok(())
    }

    fn between(
        &self,
        query: &LimitQuery<'_>,
        after: Timestamp,
        until: Timestamp,
    ) -> Result<Sum, LedgerError> {
        let since = Since {
            after,
            ..query.since
        };
        let charges = self
            .store
            .index()
            .places(query, since, until)
            .filter_map(|(_, place)| self.store.get(place)?.charge(since.moment));
        let parts = charges.filter_map(|charge| query.unit.measure(&charge));
        Ok(parts.fold(Sum::default(), Sum::plus))
    }

    fn next(&self, query: &LimitQuery<'_>, after: Timestamp) -> Result<Timestamp, LedgerError> {
        let since = Since {
            after,
            ..query.since
        };
        let mut places = self.store.index().places(query, since, Timestamp::MAX);
        Ok(places.next().map_or(Timestamp::MAX, |(at, _)| at))
    }

    fn absent(&self) -> impl Iterator<Item = &Purchase> {
        self.lapsed.iter().copied().chain(self.except)
    }
}
