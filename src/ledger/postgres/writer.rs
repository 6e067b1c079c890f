//! The queue of changes. All changes of this process that wait share one transaction.
//!
//! Each change takes effect completely or not at all, in the order of their arrival. If the server refuses a batch, each
//! of its changes is made alone.
//!
//! A caller whose change is in the batch leads it: the batch runs as a task of that caller's runtime. When it ends, the
//! first caller that waits leads the next one. If it does not begin, another caller takes over. So no batch depends on a
//! runtime that nobody waits in.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::Database;
use super::change::{Answer, Change, Done, NotMade};
use super::pool::Lease;
use crate::ledger::LedgerError;

/// The most changes that share a transaction.
const BATCH: usize = 128;
/// How many times the time limit of the ledger a caller waits for a batch that has begun. The runtime that makes it may be
/// one that nobody runs any more.
const LONGEST: u32 = 10;
/// A lead that its caller did not begin in this time can be taken over. Perhaps nobody runs the runtime of that caller.
const HAND_OVER: Duration = Duration::from_millis(250);

#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    numbers: AtomicU64,
}

/// A begin that took this much longer than twice the fastest one has waited for another process.
const WAIT: Duration = Duration::from_millis(2);

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    /// The current [`Lead`].
    lead: Option<Handed>,
    /// The number of the newest lead.
    leads: u64,
    /// The time that the last begin took, and the fastest one.
    begins: Option<(Duration, Duration)>,
    /// The number of changes in the last batch.
    last_batch: usize,
}

/// The place of the current [`Lead`].
struct Handed {
    number: u64,
    since: Instant,
    /// Whether its caller has begun to make a batch.
    began: bool,
}

impl State {
    /// Makes a new lead the current one. Returns its number.
    fn hand_over(&mut self) -> u64 {
        self.leads = self.leads.wrapping_add(1);
        self.lead = Some(Handed {
            number: self.leads,
            since: Instant::now(),
            began: false,
        });
        self.leads
    }
}

/// A change and its caller.
struct Job {
    number: u64,
    change: Change,
    is_alone: bool,
    answer: oneshot::Sender<Result<Answer, LedgerError>>,
    /// Makes the caller the leader.
    lead: Option<oneshot::Sender<Lead>>,
}

/// The right to make the next batch, with its number. Only the current one is valid. Dropping it passes it on.
struct Lead(Arc<Database>, u64);

enum Event {
    Answered(Result<Answer, LedgerError>),
    Leads(Option<Lead>),
    Waited,
    WaitedTooLong,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of changes whose batch has not begun.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Adds a job. Returns the number of a lead that the caller must take.
    fn push(&self, job: Job) -> Option<u64> {
        let mut state = self.state();
        state.waiting.push_back(job);
        state.lead.is_none().then(|| state.hand_over())
    }

    /// Begins to make batches. Returns whether the lead is still the current one.
    fn begin(&self, lead: u64) -> bool {
        let mut state = self.state();
        let current = state.lead.as_mut().filter(|current| current.number == lead);
        current.is_some_and(|current| {
            current.began = true;
            true
        })
    }

    /// Takes over a lead that was not begun in time, for a caller that waits. Returns the number of the new one.
    fn take_over(&self, job: u64) -> Option<u64> {
        let mut state = self.state();
        let lead = state.lead.as_ref();
        // Without a lead, the one who took it over went before it began.
        let is_late = lead.is_none_or(|lead| !lead.began && lead.since.elapsed() >= HAND_OVER);
        let waits = is_late && state.waiting.iter().any(|waiting| waiting.number == job);
        waits.then(|| state.hand_over())
    }

    /// Takes a job back. Returns whether its batch had not begun.
    fn withdraw(&self, number: u64) -> bool {
        let mut state = self.state();
        let before = state.waiting.len();
        state.waiting.retain(|job| job.number != number);
        state.waiting.len() != before
    }

    /// Takes the jobs of the next batch. Their callers still wait.
    fn take(&self) -> Vec<Job> {
        let mut state = self.state();
        state.waiting.retain(|job| !job.answer.is_closed());
        let waiting = &state.waiting;
        let alone = waiting.iter().position(|job| job.is_alone);
        let count = match alone {
            Some(0) => 1,
            Some(others) => others.min(BATCH),
            None => waiting.len().min(BATCH),
        };
        state.last_batch = count;
        state.waiting.drain(..count).collect()
    }

    /// Notes the time that a begin took.
    pub(super) fn waited(&self, last: Duration) {
        let mut state = self.state();
        let fastest = state.begins.map_or(last, |(_, fastest)| fastest.min(last));
        state.begins = Some((last, fastest));
    }

    /// Whether several callers wait or will soon, and the last transaction had to wait for another process.
    ///
    /// The callers of a batch often come back together, and the first of them leads.
    fn is_contended(&self) -> bool {
        let state = self.state();
        let waited = state
            .begins
            .is_some_and(|(last, fastest)| last > fastest.saturating_mul(2).saturating_add(WAIT));
        waited && state.waiting.len().max(state.last_batch) > 1
    }

    /// Whether a job waits whose caller cannot lead again.
    fn has_followers(&self) -> bool {
        self.state().waiting.iter().any(|job| job.lead.is_none())
    }

    /// Puts jobs back at the front, in their order.
    fn put_back(&self, jobs: Vec<Job>) {
        let mut state = self.state();
        for job in jobs.into_iter().rev() {
            state.waiting.push_front(job);
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let mut state = self.0.queue.state();
        if state.lead.as_ref().map(|lead| lead.number) != Some(self.1) {
            return;
        }
        let mut waiting = state.waiting.iter_mut();
        // A channel whose caller is gone gives the sender back.
        let next = waiting.find_map(|job| {
            let lead = job.lead.take()?;
            (!lead.is_closed()).then_some(lead)
        });
        let number = next.is_some().then(|| state.hand_over());
        if number.is_none() {
            state.lead = None;
        }
        drop(state);
        if let Some((next, number)) = next.zip(number) {
            // If the caller left meanwhile, the lead is dropped again, and passed on.
            drop(next.send(Self(Arc::clone(&self.0), number)));
        }
    }
}

impl Lead {
    /// Makes batches as a task of this runtime, until no job waits whose caller had the lead before.
    fn follow(self) {
        tokio::spawn(async move {
            // The callers of the last batch that come back at once share the next one.
            yield_now().await;
            if !self.0.queue.begin(self.1) {
                return;
            }
            loop {
                // Other processes hold the lock for long. The calls that come while this one waits for it share its
                // transaction, for one round trip more.
                let locked = if self.0.queue.is_contended() {
                    self.0.lock().await
                } else {
                    None
                };
                let jobs = self.0.queue.take();
                self.0.make(jobs, locked).await;
                if !self.0.queue.has_followers() {
                    break;
                }
            }
            drop(self);
        });
    }
}

impl Database {
    /// Makes a change in the next batch.
    pub(super) async fn change(self: &Arc<Self>, change: Change) -> Result<Answer, LedgerError> {
        self.write_settings().await?;
        self.index(&change).await;
        let number = self.queue.numbers.fetch_add(1, Ordering::Relaxed);
        let (answer, mut answered) = oneshot::channel();
        let (lead, mut leads) = oneshot::channel();
        let job = Job {
            number,
            change,
            is_alone: false,
            answer,
            lead: Some(lead),
        };
        if let Some(lead) = self.queue.push(job) {
            Lead(Arc::clone(self), lead).follow();
        }
        let began = Instant::now();
        let mut patience = pin!(sleep(HAND_OVER.min(self.timeout)));
        let mut most = pin!(sleep(self.timeout.saturating_mul(LONGEST)));
        let (mut may_lead, mut is_patient) = (true, true);
        loop {
            let event = poll_fn(|context| {
                if let Poll::Ready(answer) = Pin::new(&mut answered).poll(context) {
                    return Poll::Ready(Event::Answered(answer.unwrap_or_else(|_| Err(stopped()))));
                }
                if may_lead && let Poll::Ready(lead) = Pin::new(&mut leads).poll(context) {
                    return Poll::Ready(Event::Leads(lead.ok()));
                }
                if is_patient && patience.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::Waited);
                }
                if most.as_mut().poll(context).is_ready() {
                    return Poll::Ready(Event::WaitedTooLong);
                }
                Poll::Pending
            });
            match event.await {
                Event::Answered(answer) => return answer,
                Event::Leads(lead) => {
                    may_lead = false;
                    if let Some(lead) = lead {
                        lead.follow();
                    }
                }
                Event::Waited if began.elapsed() < self.timeout => {
                    let rest = self.timeout.saturating_sub(began.elapsed());
                    patience.set(sleep(HAND_OVER.min(rest)));
                    if let Some(lead) = self.queue.take_over(number) {
                        Lead(Arc::clone(self), lead).follow();
                    }
                }
                Event::Waited => {
                    is_patient = false;
                    if self.queue.withdraw(number) {
                        return Err(too_many_writers());
                    }
                }
                // The batch may take effect all the same, as one whose commit is not answered.
                Event::WaitedTooLong => {
                    self.queue.withdraw(number);
                    return Err(stopped());
                }
            }
        }
    }

    /// Makes the changes of a batch and answers their callers.
    async fn make(&self, jobs: Vec<Job>, mut locked: Option<Lease<'_>>) {
        let mut later = Vec::new();
        let changes: Vec<&Change> = jobs.iter().map(|job| &job.change).collect();
        if changes.is_empty() {
            if let Some(Ok(link)) = locked.as_mut().map(Lease::link) {
                self.end(link, false).await;
            }
            return;
        }
        match self.change_all(&changes, locked).await {
            Ok(done) => answer(jobs, done, &mut later),
            Err(NotMade {
                is_refused: true, ..
            }) if jobs.len() > 1 => {
                // A runtime may stop once its own caller has the answer, so all callers are answered at the end.
                let mut made = Vec::with_capacity(changes.len());
                for change in &changes {
                    made.push(self.change_all(slice::from_ref(change), None).await);
                    if let Some(Err(NotMade {
                        is_refused: false, ..
                    })) = made.last()
                    {
                        // The server is gone. The callers must not wait until each change has found that out.
                        break;
                    }
                }
                let (mut jobs, mut error) = (jobs.into_iter(), None);
                for (made, job) in made.into_iter().zip(jobs.by_ref()) {
                    match made {
                        Ok(done) => answer(vec![job], done, &mut later),
                        Err(not_made) => fail(vec![job], error.insert(not_made.error)),
                    }
                }
                if let Some(error) = error {
                    fail(jobs.collect(), &error);
                }
            }
            Err(not_made) => fail(jobs, &not_made.error),
        }
        self.queue.put_back(later);
    }
}

fn answer(jobs: Vec<Job>, done: Vec<Done>, later: &mut Vec<Job>) {
    for (job, done) in jobs.into_iter().zip(done) {
        match done {
            Done::Answer(answer) => {
                // The caller may have stopped waiting.
                drop(job.answer.send(answer));
            }
            Done::Later { alone } => later.push(Job {
                is_alone: alone,
                ..job
            }),
        }
    }
}

fn fail(jobs: Vec<Job>, error: &LedgerError) {
    for job in jobs {
        let error = match error {
            LedgerError::Damaged(text) => LedgerError::Damaged(text.clone()),
            other => LedgerError::store(other.to_string()),
        };
        drop(job.answer.send(Err(error)));
    }
}

fn too_many_writers() -> LedgerError {
    LedgerError::store("the ledger could not be written in time: too many other writes are waiting")
}

fn stopped() -> LedgerError {
    LedgerError::store("the runtime that wrote to the ledger has stopped")
}
