//! Waiting for a sign of life of calls of other processes that present a payment for the same request.
//!
//! A process that was killed leaves a presenter lease. The same request must then present that payment, and not buy a
//! second one. A process that lives renews its lease every few seconds or records an outcome. The request is then a purchase
//! of its own.

use std::time::Duration;

use tokio::time::Instant;

use super::Payer;
use crate::clock::Timestamp;
use crate::error::{Error, ErrorKind};
use crate::ledger::{Ledger, Purchase, PurchaseKey};
use crate::request::PurchaseRequest;
use crate::telemetry::{Event, EventKind};

/// The pause before the second look at the ledger. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The pause that each watched purchase adds, so that large fleets do not read the ledger all the time.
const PAUSE_PER_PURCHASE: Duration = Duration::from_millis(1);

/// Whether a call must still decide about the calls of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Others {
    /// It watches those that it finds.
    Watched,
    /// It decided earlier, and takes those that present a payment for alive.
    Decided,
}

/// The payments that calls of other processes were presenting when this call looked first.
#[derive(Debug, Default)]
pub(super) struct Watch {
    watched: Vec<Watched>,
    pause: Duration,
}

#[derive(Debug)]
struct Watched {
    purchase: PurchaseKey,
    /// The presenter lease. A call that lives changes it.
    lease: Timestamp,
    /// The time by which the lease has ended, by a clock that cannot jump.
    end: Instant,
}

impl Watched {
    fn new(purchase: &Purchase, now: Timestamp) -> Self {
        let lease = purchase.presenter_lease_until;
        // A lease is as long as its process made it, though the clock of that process may be ahead.
        let left = now.until(lease).min(purchase.updated_at.until(lease));
        let start = Instant::now();
        Self {
            purchase: purchase.key(),
            lease,
            end: start.checked_add(left).unwrap_or(start),
        }
    }

    fn is_unchanged_in(&self, leased: &[Purchase]) -> bool {
        leased.iter().any(|purchase| {
            purchase.presenter_lease_until == self.lease && purchase.key() == self.purchase
        })
    }
}

impl Watch {
    /// Forgets the calls that showed that they live. Returns whether none is left.
    ///
    /// `leased` are the purchases that other calls are presenting now.
    pub(super) fn is_over(&mut self, ledger: &Ledger, leased: &[Purchase]) -> bool {
        self.watched.retain(|watched| {
            watched.is_unchanged_in(leased) && !ledger.is_presented_here(&watched.purchase)
        });
        self.watched.is_empty()
    }

    /// Returns the leases that ended unrenewed.
    pub(super) fn ended(&self) -> Vec<(PurchaseKey, Timestamp)> {
        let now = Instant::now();
        let ended = self.watched.iter().filter(|watched| watched.end <= now);
        ended
            .map(|watched| (watched.purchase.clone(), watched.lease))
            .collect()
    }

    /// The time until the next look at the ledger: not beyond the end of a lease.
    fn next_pause(&mut self, now: Timestamp) -> Duration {
        let many = u32::try_from(self.watched.len()).unwrap_or(u32::MAX);
        let most = LONGEST_PAUSE.max(PAUSE_PER_PURCHASE.saturating_mul(many));
        self.pause = self.pause.saturating_mul(2).clamp(FIRST_PAUSE, most);
        let start = Instant::now();
        let ends = self.watched.iter().map(|watched| {
            let left = watched.end.saturating_duration_since(start);
            left.min(now.until(watched.lease))
        });
        ends.fold(self.pause, Duration::min)
    }
}

impl Payer {
    /// Begins to watch the purchases that calls of other processes are presenting.
    pub(super) fn watch(&self, request: &PurchaseRequest, leased: &[Purchase]) -> Watch {
        let (ledger, now) = (&self.inner.ledger, self.now());
        let of_others = leased
            .iter()
            .filter(|purchase| !ledger.is_presented_here(&purchase.key()));
        let watched: Vec<_> = of_others
            .map(|purchase| Watched::new(purchase, now))
            .collect();
        if let Some(first) = watched.first() {
            self.emit(&Event {
                purchase: Some(&first.purchase.id),
                ..self.event(EventKind::Waiting, request)
            });
        }
        Watch {
            watched,
            pause: Duration::ZERO,
        }
    }

    /// Waits until another look at the ledger makes sense.
    ///
    /// # Errors
    /// The call's time is up.
    pub(super) async fn await_others(
        &self,
        request: &PurchaseRequest,
        watch: &mut Watch,
    ) -> Result<(), Error> {
        let left = request.time_left();
        if let Some(first) = watch.watched.first()
            && left.is_some_and(|left| left.is_zero())
        {
            let message = format!(
                "the call's time was up while it waited for another process, which may have been killed while it presented a \
                 payment for the same request; nothing was signed; if that process is dead, the same request presents its \
                 payment from {}",
                first.lease
            );
            return Err(Error::new(ErrorKind::Timeout, message).naming(&first.purchase.id));
        }
        let pause = watch.next_pause(self.now());
        tokio::time::sleep(left.map_or(pause, |left| left.min(pause))).await;
        Ok(())
    }
}
