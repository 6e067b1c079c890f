//! The chain as a payer uses it: balances before a signature, and unresolved payments after their expiry.
//!
//! A task reconciles in the background. It begins with the first payment inside a runtime, sleeps until a payment can be
//! proved unused, and ends with the last clone of the payer. Each payment wakes it if a round is due by the clock of the
//! ledger, so a clock of a test works too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::Payer;
use super::allowance::Allowances;
use super::balance::Balances;
use crate::chain::ChainReader;
use crate::clock::Timestamp;
use crate::ledger::{self, Ledger, Purchase, State};
use crate::money::{AssetRegistry, TokenAmount};
use crate::telemetry::{AnyObserver, Event, EventKind};

/// The time between two rounds, unless the builder sets another one.
pub(super) const EVERY: Duration = Duration::from_secs(300);
/// How long the task sleeps at most. Other processes leave unresolved payments in the ledger too.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The settings of the builder.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) chain: Option<ChainReader>,
    /// Zero for no rounds.
    pub(super) every: Duration,
    pub(super) receipts: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            chain: None,
            every: EVERY,
            receipts: false,
        }
    }
}

/// The chain reader of a payer, and the state that belongs to it.
pub(super) struct ChainWatch {
    pub(super) chain: ChainReader,
    pub(super) balances: Balances,
    pub(super) allowances: Allowances,
    every: Duration,
    receipts: bool,
    ledger: Ledger,
    assets: AssetRegistry,
    observer: AnyObserver,
    progress: Mutex<Progress>,
    wake: Arc<Notify>,
}

struct Progress {
    /// The time of the next round.
    next: Timestamp,
    /// The time before which no round begins.
    not_before: Timestamp,
    /// The purchase that the last round ended with, if it did not come to the end.
    after: Option<u64>,
    task: Option<AbortHandle>,
}

impl ChainWatch {
    pub(super) fn new(
        settings: Settings,
        ledger: &Ledger,
        assets: &AssetRegistry,
        observer: &AnyObserver,
    ) -> Option<Arc<Self>> {
        let now = ledger.now();
        Some(Arc::new(Self {
            chain: settings.chain?,
            balances: Balances::default(),
            allowances: Allowances::default(),
            every: settings.every,
            receipts: settings.receipts,
            ledger: ledger.clone(),
            assets: assets.clone(),
            observer: observer.clone(),
            progress: Mutex::new(Progress {
                // An earlier process may have left unresolved payments.
                next: now,
                not_before: now,
                after: None,
                task: None,
            }),
            wake: Arc::default(),
        }))
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task if a round is due, and begins it if it does not run.
    pub(super) fn tend(self: &Arc<Self>) {
        if !self.every.is_zero() && self.sleep().is_zero() {
            self.begin();
        }
    }

    /// Notes a payment that is unresolved until then, in Unix seconds.
    pub(super) fn note_unresolved(self: &Arc<Self>, valid_before: u64) {
        if self.every.is_zero() {
            return;
        }
        {
            let mut progress = self.progress();
            let due = Timestamp::from_secs(valid_before).after(ledger::PROVABLE_AFTER);
            let due = due.max(progress.not_before);
            if due >= progress.next {
                return;
            }
            progress.next = due;
        }
        self.begin();
    }

    fn begin(self: &Arc<Self>) {
        // Without a runtime, the next payment inside of one begins the task.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut progress = self.progress();
        if progress.task.as_ref().is_none_or(AbortHandle::is_finished) {
            let task = runtime.spawn(keep_up(Arc::downgrade(self)));
            progress.task = Some(task.abort_handle());
        }
        self.wake.notify_one();
    }

    /// Returns how long to wait for the next round, or zero if it is due.
    fn sleep(&self) -> Duration {
        let (now, progress) = (self.ledger.now(), self.progress());
        let wait = now.until(progress.next);
        // A clock that was set back must not postpone the round for long.
        if wait > LONGEST_SLEEP.max(self.every) {
            Duration::ZERO
        } else {
            wait
        }
    }

    /// Returns the parts of a round. The task holds them in place of the payer, so that the last client ends the task.
    fn round(&self) -> Round {
        Round {
            chain: self.chain.clone(),
            ledger: self.ledger.clone(),
            assets: self.assets.clone(),
            observer: self.observer.clone(),
            receipts: self.receipts,
            after: self.progress().after,
        }
    }

    fn finish(&self, done: Done) {
        let now = self.ledger.now();
        let mut progress = self.progress();
        progress.after = done.after;
        progress.not_before = now.after(self.every);
        let latest = now.after(LONGEST_SLEEP).max(progress.not_before);
        progress.next = done.next.clamp(progress.not_before, latest);
    }
}

impl Drop for ChainWatch {
    fn drop(&mut self) {
        let progress = self.progress.get_mut();
        if let Some(task) = &progress.unwrap_or_else(PoisonError::into_inner).task {
            task.abort();
        }
    }
}

async fn keep_up(watch: Weak<ChainWatch>) {
    loop {
        let Some(present) = watch.upgrade() else {
            return;
        };
        let (sleep, wake) = (present.sleep(), Arc::clone(&present.wake));
        if !sleep.is_zero() {
            drop(present);
            // Woken early, the task looks at the clock again.
            drop(tokio::time::timeout(sleep, wake.notified()).await);
            continue;
        }
        let round = present.round();
        drop(present);
        let done = round.run().await;
        if let Some(present) = watch.upgrade() {
            present.finish(done);
        }
    }
}

/// One round over the unresolved payments that have expired.
struct Round {
    chain: ChainReader,
    ledger: Ledger,
    assets: AssetRegistry,
    observer: AnyObserver,
    receipts: bool,
    after: Option<u64>,
}

/// The end of a round.
struct Done {
    /// The time at which the next payment can be proved unused. The watch makes it later if it is too early.
    next: Timestamp,
    after: Option<u64>,
}

impl Round {
    async fn run(self) -> Done {
        let found = self
            .ledger
            .reconcile_expired(&self.chain, self.receipts, self.after)
            .await;
        match found {
            Ok(round) => {
                for (purchase, after) in &round.changed {
                    self.emit(purchase, *after);
                }
                Done {
                    next: round.next,
                    after: round.after,
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the ledger was not reconciled; bursar tries again later");
                Done {
                    next: self.ledger.now(),
                    after: self.after,
                }
            }
        }
    }

    fn emit(&self, purchase: &Purchase, after: State) {
        let kind = match after {
            State::ReleasedByProof => EventKind::Released,
            _ => EventKind::Confirmed,
        };
        let asset = self.assets.find(purchase.network, purchase.asset);
        let amount = asset.map(|asset| TokenAmount::from_units(asset.clone(), purchase.value));
        self.observer.emit(&Event {
            purchase: Some(&purchase.id),
            amount: amount.as_ref(),
            agent: purchase.agent.as_deref(),
            ..Event::new(
                kind,
                &purchase.origin,
                (purchase.tag.as_deref(), purchase.agent.as_deref()),
            )
        });
    }
}

impl Payer {
    /// Has the background task look for payments that expired, if a round is due.
    pub(super) fn tend(&self) {
        if let Some(watch) = &self.inner.chain {
            watch.tend();
        }
    }

    /// Notes that a payment is unresolved.
    pub(super) fn note_unresolved(&self, valid_before: u64) {
        if let Some(watch) = &self.inner.chain {
            watch.note_unresolved(valid_before);
        }
    }
}
