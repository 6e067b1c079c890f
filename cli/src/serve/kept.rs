//! Paid answers that nobody took. Hosts give up after a time, often without a word, and the model then asks again.
//!
//! An identical call returns such an answer, and pays nothing. While the first call still runs, it waits for its answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{CallToolResult, RequestId};
use tokio::sync::watch;
use tokio::time::Instant;

/// How long an answer is kept.
const KEPT: Duration = Duration::from_secs(300);
/// The largest number of kept answers, and their largest size in bytes.
const MOST: usize = 32;
const MOST_BYTES: usize = 16 * 1024 * 1024;

/// The result of a call that can pay.
pub(crate) trait Answer: Send + 'static {
    /// The result of a call that the server did not make, because of its arguments or of the state of the server.
    fn refused(kind: &'static str, message: &str) -> Self;

    /// The result of a call that ended with a fault of bursar.
    fn broken() -> Self;

    /// Returns whether it is the answer to a paid call, and an identical call would pay again.
    fn is_paid_answer(&self) -> bool;

    /// Marks it as the answer of an earlier call.
    fn mark_replayed(&mut self);

    /// Returns the approximate number of bytes that it keeps in memory.
    fn bytes(&self) -> usize;

    /// Returns the result in the form of the protocol.
    fn to_protocol(&self) -> Result<CallToolResult, ErrorData>;
}

/// The identity of a call. Two calls with the same one are the same request.
pub(crate) trait Identity: Clone + PartialEq + Send + Sync + 'static {}

impl<T: Clone + PartialEq + Send + Sync + 'static> Identity for T {}

/// A request of a host. Requests of two sessions can have the same id.
pub(crate) type RequestKey = (u64, RequestId);

/// The kept answers, and the calls that are running.
pub(crate) struct Kept<I, A> {
    /// A host has given up on a call that takes this long, or is about to.
    late: Duration,
    state: Mutex<State<I, A>>,
    /// Changes when a running call has ended.
    ended: watch::Sender<()>,
}

struct State<I, A> {
    answers: VecDeque<KeptAnswer<I, A>>,
    running: Vec<Entry<I>>,
    /// The number of the next call.
    next: u64,
}

/// A call that is running.
struct Entry<I> {
    number: u64,
    identity: I,
    began: Instant,
    is_cancelled: Box<dyn Fn() -> bool + Send>,
}

struct KeptAnswer<I, A> {
    identity: I,
    /// The request that it was written for.
    request: RequestKey,
    /// Whether the client has taken it, as far as the server knows.
    taken: bool,
    result: Box<A>,
    bytes: usize,
    until: Instant,
}

/// An identical earlier call.
pub(crate) enum Earlier<A> {
    None,
    /// An answer that nobody took.
    Answer(Box<A>),
    /// A call that the host has given up on is still running, or is about to end. Look again after a change.
    Running(watch::Receiver<()>),
}

/// A running call. It ends when the last clone is dropped.
pub(crate) struct Running<I, A> {
    kept: Arc<Kept<I, A>>,
    number: u64,
    identity: I,
    /// Whether the seller has begun a paid answer. The call then runs to its end, because the answer cannot be had again.
    answered: AtomicBool,
    /// Whether nobody waits for the call any more.
    detached: AtomicBool,
}

impl<I: Identity, A: Answer> Kept<I, A> {
    /// `host` is the time that a host waits for an answer.
    pub(super) fn new(host: Duration) -> Self {
        Self {
            // Five sixths of it: an answer needs some time on its way.
            late: host.saturating_mul(5).checked_div(6).unwrap_or(host),
            state: Mutex::new(State {
                answers: VecDeque::new(),
                running: Vec::new(),
                next: 0,
            }),
            ended: watch::Sender::new(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State<I, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether a host has given up on a call that arrived at this time, or is about to.
    pub(super) fn is_late(&self, arrived: Instant) -> bool {
        arrived.elapsed() >= self.late
    }

    /// Looks for an identical call. An answer is given away.
    pub(super) fn find(&self, identity: &I) -> Earlier<A> {
        let ended = self.ended.subscribe();
        let mut state = self.state();
        let now = Instant::now();
        state.answers.retain(|answer| answer.until > now);
        let mut answers = state.answers.iter();
        if let Some(at) = answers.position(|answer| !answer.taken && answer.identity == *identity)
            && let Some(answer) = state.answers.remove(at)
        {
            return Earlier::Answer(answer.result);
        }
        let mut running = state.running.iter();
        let given_up = |call: &Entry<I>| self.is_late(call.began) || (call.is_cancelled)();
        if running.any(|call| call.identity == *identity && given_up(call)) {
            return Earlier::Running(ended);
        }
        Earlier::None
    }

    /// Begins a call. `is_cancelled` tells whether the host has cancelled it.
    pub(super) fn begin(
        self: &Arc<Self>,
        identity: I,
        is_cancelled: impl Fn() -> bool + Send + 'static,
    ) -> Arc<Running<I, A>> {
        let mut state = self.state();
        let number = state.next;
        state.next = number.wrapping_add(1);
        state.running.push(Entry {
            number,
            identity: identity.clone(),
            began: Instant::now(),
            is_cancelled: Box::new(is_cancelled),
        });
        Arc::new(Running {
            kept: Arc::clone(self),
            number,
            identity,
            answered: AtomicBool::new(false),
            detached: AtomicBool::new(false),
        })
    }

    /// Keeps a paid answer, also one that was taken: its cancellation may be on its way.
    pub(super) fn keep(&self, identity: I, request: RequestKey, taken: bool, mut result: Box<A>) {
        let bytes = result.bytes();
        result.mark_replayed();
        let until = Instant::now().checked_add(KEPT);
        let Some(until) = until.filter(|_| bytes <= MOST_BYTES) else {
            return;
        };
        let mut state = self.state();
        state.answers.push_back(KeptAnswer {
            identity,
            request,
            taken,
            result,
            bytes,
            until,
        });
        let sum = |answers: &VecDeque<KeptAnswer<I, A>>| {
            answers.iter().map(|answer| answer.bytes).sum::<usize>()
        };
        while state.answers.len() > MOST || sum(&state.answers) > MOST_BYTES {
            let mut answers = state.answers.iter();
            let oldest = answers.position(|answer| answer.taken).unwrap_or(0);
            state.answers.remove(oldest);
        }
    }

    /// Notes that the client has cancelled a request. It does not take the answer, even if that is written already.
    pub(super) fn cancelled(&self, request: &RequestKey) {
        let mut state = self.state();
        let answers = state.answers.iter_mut();
        for answer in answers.filter(|answer| answer.request == *request) {
            answer.taken = false;
        }
    }
}

impl<I: Identity, A: Answer> Running<I, A> {
    pub(super) const fn identity(&self) -> &I {
        &self.identity
    }

    /// Notes that the seller has begun a paid answer.
    pub(crate) fn set_answered(&self) {
        self.answered.store(true, Ordering::SeqCst);
    }

    /// Notes that nobody waits any more. Returns whether the call runs to its end all the same.
    pub(super) fn detach(&self) -> bool {
        self.detached.store(true, Ordering::SeqCst);
        self.answered.load(Ordering::SeqCst)
    }

    /// Returns the result for the caller. Keeps a paid answer that nobody waits for.
    pub(super) fn finish(&self, request: RequestKey, result: A) -> A {
        if !self.detached.load(Ordering::SeqCst) || !result.is_paid_answer() {
            return result;
        }
        let result = Box::new(result);
        self.kept
            .keep(self.identity.clone(), request, false, result);
        A::broken()
    }
}

impl<I, A> Drop for Running<I, A> {
    fn drop(&mut self) {
        let state = self.kept.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        state.running.retain(|entry| entry.number != self.number);
        drop(state);
        self.kept.ended.send_replace(());
    }
}
