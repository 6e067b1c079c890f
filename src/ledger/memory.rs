//! Books in memory, gone with the process.

use std::sync::PoisonError;
#[cfg(not(bursar_shuttle))]
use std::sync::{Mutex, MutexGuard};

#[cfg(bursar_shuttle)]
use shuttle::sync::{Mutex, MutexGuard};

use alloy::primitives::{Address, U256};

use super::{
    Books, Charge, Checks, Entry, Filter, Finding, Ledger, LedgerError, Plan, PurchaseKey, Reservation, Reserved,
    Resumption, StopOrder, Transition,
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

#[derive(Debug, Default)]
struct Kept {
    entries: Vec<Entry>,
    stopped: Option<StopOrder>,
}

impl MemoryLedger {
    /// Empty books.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A panic elsewhere cannot leave an entry half-written: every change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl MemoryLedger {
    /// Changes entries in ways that no transition does: books that are built wrongly, for tests.
    pub(super) fn meddle(&self, change: impl Fn(&mut Entry)) {
        self.lock().entries.iter_mut().for_each(change);
    }
}

impl Ledger for MemoryLedger {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let mut books = self.lock();
        let key = reservation.key();
        let position = position(&books.entries, &key);
        let known = position.and_then(|at| books.entries.get(at)).cloned();
        let mut entry = match reservation.plan(known) {
            Plan::Hold(entry) => entry,
            Plan::Answer(answer) => return Ok(answer),
        };
        let view = View { books: &books, now: reservation.checks.now(), except: Some(&key) };
        if let Some(denial) = reservation.checks.deny(&view)? {
            return Ok(Reserved::Denied(Box::new(denial)));
        }
        let entries = &mut books.entries;
        let now = reservation.checks.now();
        for lapsed in entries.iter_mut().filter(|entry| entry.has_lapsed(now) && entry.key() != key) {
            lapsed.lapse(now)?;
        }
        match position.and_then(|at| entries.get_mut(at)) {
            Some(place) => {
                entry.seq = place.seq;
                place.clone_from(&entry);
            }
            None => {
                entry.seq = u64::try_from(entries.len()).unwrap_or(u64::MAX).saturating_add(1);
                entries.push((*entry).clone());
            }
        }
        Ok(Reserved::Held(entry))
    }

    async fn record(&self, purchase: &PurchaseKey, transition: &Transition, now: Timestamp) -> Result<(), LedgerError> {
        let entries = &mut self.lock().entries;
        let place = position(entries, purchase).and_then(|at| entries.get_mut(at));
        let place = place.ok_or_else(|| LedgerError::UnknownPurchase(purchase.id.clone()))?;
        let mut next = place.clone();
        next.apply(transition, now)?;
        *place = next;
        Ok(())
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Entry>, LedgerError> {
        let entries = &mut self.lock().entries;
        let found = entries.iter_mut().find_map(|entry| wanted.take_up(entry).map(|taken| (entry, taken)));
        Ok(found.map(|(place, taken)| {
            place.clone_from(&taken);
            taken
        }))
    }

    async fn stop(&self, order: Option<&StopOrder>) -> Result<(), LedgerError> {
        self.lock().stopped = order.cloned();
        Ok(())
    }

    async fn stopped(&self) -> Result<Option<StopOrder>, LedgerError> {
        Ok(self.lock().stopped.clone())
    }

    async fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        checks.assess(&View { books: &self.lock(), now: checks.now(), except: None })
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Entry>, LedgerError> {
        let entries = &self.lock().entries;
        Ok(position(entries, purchase).and_then(|at| entries.get(at)).cloned())
    }

    async fn entries(&self, filter: &Filter) -> Result<Vec<Entry>, LedgerError> {
        let mut found: Vec<Entry> = self.lock().entries.iter().filter(|entry| filter.passes(entry)).cloned().collect();
        if let Some(last) = filter.last {
            found.drain(..found.len().saturating_sub(last));
        }
        Ok(found)
    }
}

/// Newest first: what is looked up is what was just written.
fn position(entries: &[Entry], key: &PurchaseKey) -> Option<usize> {
    entries.iter().rposition(|entry| entry.payer == key.payer && entry.purchase == key.id)
}

struct View<'a> {
    books: &'a Kept,
    now: Timestamp,
    except: Option<&'a PurchaseKey>,
}

impl View<'_> {
    fn counting(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        let other = |entry: &&Entry| self.except.is_none_or(|key| entry.payer != key.payer || entry.purchase != key.id);
        self.books.entries.iter().filter(|entry| entry.counts(self.now)).filter(other)
    }
}

impl Books for View<'_> {
    fn stopped(&self) -> Result<Option<StopOrder>, LedgerError> {
        Ok(self.books.stopped.clone())
    }

    fn charges(&self, scope: &Scope, span: Span, visit: &mut dyn FnMut(Charge)) -> Result<(), LedgerError> {
        let within = |entry: &&Entry| match span {
            Span::Ever => true,
            Span::SpentAfter(start) => entry.counts_at > start,
            Span::ReservedAfter(start) => entry.reserved_at > start,
            Span::Outstanding => entry.is_outstanding(self.now),
        };
        self.counting()
            .filter(|entry| holds(scope, entry))
            .filter(within)
            .for_each(|entry| visit(Charge::of(entry, span)));
        Ok(())
    }

    fn first_payee(&self, origin: &Origin, network: Network, asset: Address) -> Result<Option<Address>, LedgerError> {
        let same = |entry: &&Entry| entry.origin == *origin && entry.network == network && entry.asset == asset;
        Ok(self.counting().find(same).map(|entry| entry.payee))
    }

    fn last_price(
        &self,
        origin: &Origin,
        method: &str,
        path: &str,
        (network, asset): (Network, Address),
    ) -> Result<Option<U256>, LedgerError> {
        let same = |entry: &&Entry| {
            entry.origin == *origin
                && entry.method == method
                && entry.path == path
                && (entry.network, entry.asset) == (network, asset)
        };
        Ok(self.counting().rfind(same).map(|entry| entry.value))
    }
}

fn holds(scope: &Scope, entry: &Entry) -> bool {
    match scope {
        Scope::Global => true,
        Scope::Origin(origin) => entry.origin == *origin,
        Scope::Resource(origin, path) => entry.origin == *origin && entry.path.split('?').next() == Some(path),
        Scope::Host(pattern) => pattern.matches(entry.origin.host()),
        Scope::Domain(domain) => entry.origin.registrable_domain() == domain,
        Scope::Payee(payee) => entry.payee == *payee,
        Scope::Asset(network, address) => (entry.network, entry.asset) == (*network, *address),
        Scope::Network(network) => entry.network == *network,
        Scope::Tag(tag) => entry.tag.as_ref() == Some(tag),
        Scope::Request(fingerprint) => entry.fingerprint == *fingerprint,
        Scope::Agent(agent) => entry.agent.as_ref() == Some(agent),
    }
}
