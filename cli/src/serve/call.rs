//! A purchase that is running for one call of the tool `pay`.

use std::sync::Arc;

use bursar::approval::{ChannelApprover, PendingApproval};
use rmcp::RoleServer;
use rmcp::service::RequestContext;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Server;
use super::approval::{APPROVER, AskMethod};
use super::kept::Running;
use super::params::ToolRequest;
use super::result::PayResult;

/// A running purchase. Dropping it abandons the purchase, unless the seller has begun a paid answer.
pub(super) struct RunningCall {
    task: JoinHandle<PayResult>,
    questions: mpsc::Receiver<PendingApproval>,
    running: Arc<Running>,
}

/// The next event of a running purchase.
pub(super) enum Step {
    Ended(Box<PayResult>),
    Asks(Box<PendingApproval>),
}

impl Drop for RunningCall {
    fn drop(&mut self) {
        if !self.running.detach() {
            self.task.abort();
        }
    }
}

impl RunningCall {
    /// Starts the purchase in a task of its own, so that its time limit runs while a person is asked.
    pub(super) fn start(
        server: &Arc<Server>,
        request: ToolRequest,
        context: &RequestContext<RoleServer>,
    ) -> Self {
        let (method, cancellation) = (AskMethod::of(context), context.ct.clone());
        let (approver, questions) = ChannelApprover::new(1);
        let approver = (method != AskMethod::None).then_some(approver);
        let running = server
            .kept
            .begin(request.identity(), move || cancellation.is_cancelled());
        let (server, id) = (Arc::clone(server), context.id.clone());
        // An abandoned purchase ends when its task is dropped, after the purchase was noted.
        let lasting = Arc::clone(&running);
        let task = tokio::spawn(async move {
            // The task holds its permit until the purchase has ended or is abandoned. The semaphore is never closed.
            let _permit = server.calls.acquire().await;
            let bought = server.buy(request, method, &lasting);
            let result = APPROVER.scope(approver, bought).await;
            lasting.finish(id, result)
        });
        Self {
            task,
            questions,
            running,
        }
    }

    pub(super) fn running(&self) -> &Running {
        &self.running
    }

    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the purchase ends or needs an approval.
    pub(super) async fn step(&mut self) -> Step {
        tokio::select! {
            ended = &mut self.task => {
                Step::Ended(Box::new(ended.unwrap_or_else(|_| PayResult::broken())))
            }
            Some(question) = self.questions.recv() => Step::Asks(Box::new(question)),
        }
    }
}
