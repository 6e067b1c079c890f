//! Books in memory, gone with the process.

mod kept;
mod totals;

use std::sync::PoisonError;
#[cfg(not(all(test, bursar_shuttle)))]
use std::sync::{Mutex, MutexGuard};

#[cfg(all(test, bursar_shuttle))]
use shuttle::sync::{Mutex, MutexGuard};

use alloy::primitives::{Address, U256};

use self::kept::Kept;
use self::totals::Totals;
use super::entry::{holds, within};
use super::{
    Books, Charge, Checks, Filter, Finding, Freeze, Ledger, LedgerError, Plan, Purchase,
    PurchaseKey, Reservation, Reserved, Resumption, Tally, Transition,
};
use crate::policy::limit::{Scope, Span};
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
        books.keep_totals(&reservation.checks);
        if let Some(denial) = reservation.checks.deny(&View {
            books: &books,
            now,
            except: known.as_ref(),
        })? {
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

    async fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        let mut books = self.lock();
        books.keep_totals(checks);
        checks.assess(&View {
            books: &books,
            now: checks.now(),
            except: None,
        })
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

struct View<'a> {
    books: &'a Kept,
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
        Ok(self.books.stopped.clone())
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
        #[cfg(test)]
        assert_eq!(total, super::checks::sum(self, tally)?, "{tally:?}");
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
        #[cfg(test)]
        assert_eq!(at, super::checks::leaves(self, tally, part)?, "{tally:?}");
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
