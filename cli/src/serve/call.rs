//! A purchase that is running for one call.

use std::future::Future;
use std::sync::Arc;

use bursar::approval::{ChannelApprover, PendingApproval};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::approval::{APPROVER, AskMethod};
use super::calls::{Caller, Calls};
use super::kept::{Answer, Identity, Running};

/// A running purchase. Dropping it abandons the purchase, unless the seller has begun a paid answer.
pub(super) struct RunningCall<I: Identity, A: Answer> {
    task: JoinHandle<A>,
    questions: mpsc::Receiver<PendingApproval>,
    running: Arc<Running<I, A>>,
}

/// The next event of a running purchase.
pub(super) enum Step<A> {
    Ended(Box<A>),
    Asks(Box<PendingApproval>),
}

/// The parts of a call that its purchase needs.
pub(crate) struct Purchasing<I: Identity, A: Answer> {
    pub(crate) running: Arc<Running<I, A>>,
    /// Asks the user of the client, if the client can ask.
    pub(crate) approver: Option<ChannelApprover>,
}

impl<I: Identity, A: Answer> Drop for RunningCall<I, A> {
    fn drop(&mut self) {
        if !self.running.detach() {
            self.task.abort();
        }
    }
}

impl<I: Identity, A: Answer> RunningCall<I, A> {
    /// Starts the purchase in a task of its own, so that its time limit runs while a person is asked.
    pub(super) fn start<F, B>(
        calls: &Arc<Calls<I, A>>,
        identity: I,
        buy: F,
        caller: Caller<'_>,
    ) -> Self
    where
        F: FnOnce(Purchasing<I, A>) -> B + Send + 'static,
        B: Future<Output = A> + Send,
    {
        let context = caller.context;
        let (method, cancellation) = (AskMethod::of(context), context.ct.clone());
        let (approver, questions) = ChannelApprover::new(1);
        let approver = (method != AskMethod::None).then_some(approver);
        let running = calls
            .kept
            .begin(identity, move || cancellation.is_cancelled());
        let (calls, id) = (Arc::clone(calls), caller.key());
        // An abandoned purchase ends when its task is dropped, after the purchase was noted.
        let lasting = Arc::clone(&running);
        let task = tokio::spawn(async move {
            // The task holds its permit until the purchase has ended or is abandoned. The semaphore is never closed.
            let _permit = calls.permits.acquire().await;
            let bought = buy(Purchasing {
                running: Arc::clone(&lasting),
                approver: approver.clone(),
            });
            let result = APPROVER.scope(approver, bought).await;
            lasting.finish(id, result)
        });
        Self {
            task,
            questions,
            running,
        }
    }

    pub(super) fn running(&self) -> &Running<I, A> {
        &self.running
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the purchase ends or needs an approval.
    pub(super) async fn step(&mut self) -> Step<A> {
        tokio::select! {
            ended = &mut self.task => {
                Step::Ended(Box::new(ended.unwrap_or_else(|_| A::broken())))
            }
            Some(question) = self.questions.recv() => Step::Asks(Box::new(question)),
        }
    }
}
