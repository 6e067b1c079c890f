//! Room under limits: the calls of this process that have a payment in flight, and those that wait for room.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::{Ledger, Purchase, PurchaseKey};
use crate::limit::{Denial, InFlight, Limit};

/// The calls of this process that use one ledger. All clones of a [`Ledger`] share it.
#[derive(Debug, Default)]
pub(crate) struct Room {
    in_flight: InFlight,
    /// The purchase that each call holds or presents.
    presented: Mutex<BTreeMap<u64, PurchaseKey>>,
    calls: AtomicU64,
    /// In the order in which the calls came.
    queue: Mutex<Vec<Waiter>>,
}

#[derive(Debug)]
struct Waiter {
    call: u64,
    /// The denial by the limit that the call waits for. `None` before the first denial.
    denial: Option<Box<Denial>>,
    wake: Arc<Notify>,
}

impl Room {
    fn number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// Every change is one step, so a panic elsewhere leaves the queue whole.
    fn queue(&self) -> MutexGuard<'_, Vec<Waiter>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn presented(&self) -> MutexGuard<'_, BTreeMap<u64, PurchaseKey>> {
        self.presented
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the first waiting call of each limit, because a purchase changed.
    pub(super) fn wake(&self) {
        let mut seen: Vec<&Denial> = Vec::new();
        for waiter in self.queue().iter() {
            match &waiter.denial {
                Some(denial) if seen.iter().any(|seen| seen.is_by_limit_of(denial)) => continue,
                Some(denial) => seen.push(denial),
                None => {}
            }
            waiter.wake.notify_one();
        }
    }
}

/// A call that has or asks for a payment. Its payment is in flight until it lands or the call ends.
#[derive(Debug)]
pub(crate) struct Flight {
    room: Arc<Room>,
    call: u64,
}

impl Flight {
    /// Notes the payment that the ledger holds for the call. The ledger notes it in the step that reserves the amount.
    pub(crate) fn hold(&self, purchase: &Purchase) {
        self.present(purchase.key());
        self.room.in_flight.insert(self.call, purchase);
    }

    /// Notes that the call presents the purchase: a presenter lease on it is one of this process.
    pub(crate) fn present(&self, purchase: PurchaseKey) {
        self.room.presented().insert(self.call, purchase);
    }

    /// Notes that the payment is signed.
    pub(crate) fn sign(&self) {
        self.room.in_flight.sign(self.call);
    }

    /// Notes that the ledger has the outcome.
    pub(crate) fn land(&self) {
        self.room.presented().remove(&self.call);
        if self.room.in_flight.remove(self.call) {
            self.room.wake();
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.land();
    }
}

/// The place of a call among those that wait for room.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<Room>,
    call: u64,
    wake: Arc<Notify>,
}

impl Place {
    /// Returns the denial of a call that came earlier and waits for one of these limits.
    pub(crate) fn ahead(&self, limits: &[Limit]) -> Option<Denial> {
        let queue = self.room.queue();
        let earlier = queue.iter().take_while(|waiter| waiter.call != self.call);
        let mut denials = earlier.filter_map(|waiter| waiter.denial.as_deref());
        let shares = |denial: &&Denial| limits.iter().any(|limit| denial.is_by(limit));
        denials.find(shares).cloned()
    }

    /// Notes the limit that the call waits for.
    pub(crate) fn wait_for(&self, denial: &Denial) {
        let mut queue = self.room.queue();
        if let Some(own) = queue.iter_mut().find(|waiter| waiter.call == self.call) {
            own.denial = Some(Box::new(denial.clone()));
        }
    }

    /// Waits until a purchase changed since the last wait.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.room.queue().retain(|waiter| waiter.call != self.call);
        self.room.wake();
    }
}

impl Ledger {
    /// Begins a call that may have a payment in flight.
    pub(crate) fn flight(&self) -> Arc<Flight> {
        Arc::new(Flight {
            room: Arc::clone(&self.room),
            call: self.room.number(),
        })
    }

    /// Joins the end of the queue of calls that wait for room.
    pub(crate) fn join_queue(&self) -> Place {
        let (call, wake) = (self.room.number(), Arc::new(Notify::new()));
        self.room.queue().push(Waiter {
            call,
            denial: None,
            wake: Arc::clone(&wake),
        });
        Place {
            room: Arc::clone(&self.room),
            call,
            wake,
        }
    }

    /// Returns whether a call of this process holds or presents the purchase.
    pub(crate) fn is_presented_here(&self, purchase: &PurchaseKey) -> bool {
        self.room
            .presented()
            .values()
            .any(|presented| presented == purchase)
    }

    /// Returns the payments that calls of this process have in flight.
    pub(crate) fn in_flight(&self) -> InFlight {
        self.room.in_flight.clone()
    }
}
