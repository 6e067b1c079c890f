//! A ledger in the memory of this process.

mod store;
mod totals;

use std::sync::PoisonError;
#[cfg(not(bursar_shuttle))]
use std::sync::{Mutex, MutexGuard};

#[cfg(bursar_shuttle)]
use shuttle::sync::{Mutex, MutexGuard};

use alloy::primitives::{Address, B256, U256};

use self::store::Store;
use self::totals::Totals;
use super::purchase::{holds, within};
use super::{
    Books, Charge, Checks, Filter, Finding, Freeze, LedgerError, LedgerFault, Plan, Purchase,
    PurchaseKey, Reservation, Reserved, Resumption, Tally, Transition, Verification,
};
use crate::policy::limit::{Scope, Span};
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
        store.keep_totals(&reservation.checks);
        if let Some(denial) = reservation.checks.deny(&View {
            books: &store,
            now,
            except: stored.as_ref(),
        })? {
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

    pub(super) fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        let mut store = self.lock();
        store.keep_totals(checks);
        checks.assess(&View {
            books: &store,
            now: checks.now(),
            except: None,
        })
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

struct View<'a> {
    books: &'a Store,
    now: Timestamp,
    /// The purchase that is being reserved, as it is known.
    except: Option<&'a Purchase>,
}

impl View<'_> {
    fn counts(&self, entry: &Purchase) -> bool {
        entry.counts(self.now) && self.except.is_none_or(|except| except.seq != entry.seq)
    }

    /// What the running total has of the purchase that is being reserved: it must not stand in its own way.
    fn own(&self, tally: Tally<'_>) -> Option<Charge> {
        let own = self.except.filter(|entry| Totals::adds(entry));
        self.charges_in(own.into_iter(), tally.scope(), tally.span())
            .next()
    }

    /// Of these entries, what counts for others than the purchase that is being reserved.
    fn charges_of<'a>(
        &'a self,
        purchases: impl Iterator<Item = &'a Purchase> + 'a,
        scope: &'a Scope,
        span: Span,
    ) -> impl Iterator<Item = Charge> + 'a {
        self.charges_in(purchases.filter(|entry| self.counts(entry)), scope, span)
    }

    fn charges_in<'a>(
        &'a self,
        purchases: impl Iterator<Item = &'a Purchase> + 'a,
        scope: &'a Scope,
        span: Span,
    ) -> impl Iterator<Item = Charge> + 'a {
        purchases
            .filter(move |entry| holds(scope, entry) && within(span, entry, self.now))
            .map(move |entry| Charge::of(entry, span))
    }
}

impl Books for View<'_> {
    fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        Ok(self.books.freeze.clone())
    }

    fn charges(
        &self,
        scope: &Scope,
        span: Span,
        visit: &mut dyn FnMut(Charge),
    ) -> Result<(), LedgerError> {
        match span {
            Span::Outstanding => {
                let open = self
                    .books
                    .unresolved_after(self.now)
                    .chain(self.books.held());
                self.charges_of(open, scope, span).for_each(visit);
            }
            _ => self
                .charges_of(self.books.purchases().iter(), scope, span)
                .for_each(visit),
        }
        Ok(())
    }

    fn total(&self, tally: Tally<'_>) -> Result<U256, LedgerError> {
        let (scope, span) = (tally.scope(), tally.span());
        let Some(kept) = self.books.total(tally) else {
            return super::checks::sum(self, tally);
        };
        let weight = |charge| tally.weigh(charge).unwrap_or_default();
        let held = self
            .charges_of(self.books.held(), scope, span)
            .map(weight)
            .fold(U256::ZERO, U256::saturating_add);
        let total = kept
            .minus(self.own(tally).map_or(U256::ZERO, weight))
            .plus(held)
            .amount();
        debug_assert_eq!(total, super::checks::sum(self, tally)?, "{tally:?}");
        Ok(total)
    }

    fn leaves(&self, tally: Tally<'_>, part: U256) -> Result<Option<Timestamp>, LedgerError> {
        let Some(signed) = self.books.by_time(tally) else {
            return super::checks::leaves(self, tally, part);
        };
        let weighed = |charge: Charge| Some((charge.at, tally.weigh(charge)?));
        let (scope, span) = (tally.scope(), tally.span());
        let mut held: Vec<_> = self
            .charges_of(self.books.held(), scope, span)
            .filter_map(weighed)
            .collect();
        held.sort_unstable_by_key(|(at, _)| *at);
        let own = self.own(tally).and_then(weighed);
        let signed = signed.map(|(at, amount)| match own {
            Some((own_at, own)) if own_at == at => (at, amount.saturating_sub(own)),
            _ => (at, amount),
        });
        let (mut held, mut signed) = (held.into_iter().peekable(), signed.peekable());
        let oldest_first = std::iter::from_fn(|| match (held.peek(), signed.peek()) {
            (Some((held_at, _)), Some((signed_at, _))) if held_at <= signed_at => held.next(),
            (_, Some(_)) => signed.next(),
            (_, None) => held.next(),
        });
        let mut gone = U256::ZERO;
        let mut charges = oldest_first.skip_while(|(_, amount)| {
            gone = gone.saturating_add(*amount);
            gone < part
        });
        let at = charges.next().map(|(at, _)| at);
        debug_assert_eq!(at, super::checks::leaves(self, tally, part)?, "{tally:?}");
        Ok(at)
    }

    fn first_payee(
        &self,
        origin: &Origin,
        network: Network,
        asset: Address,
    ) -> Result<Option<Address>, LedgerError> {
        let mut bought = self.books.bought(origin, (network, asset));
        Ok(bought
            .find(|entry| self.counts(entry))
            .map(|entry| entry.payee))
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
            .find(|entry| self.counts(entry))
            .map(|entry| entry.value))
    }
}
