//! The calls of a host that can pay: kept answers, approvals by elicitation, and abandoned calls.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bursar::approval::PendingApproval;
use rmcp::model::{CallToolRequestParams, CallToolResponse, InputResponses, JsonObject, RequestId};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::approval::{self, AskMethod, Waiting, WaitingCall};
use super::call::{Purchasing, RunningCall, Step};
use super::disconnect::Disconnect;
use super::kept::{Answer, Earlier, Identity, Kept, RequestKey};

/// The largest number of calls at once, including the calls that wait for an approval.
const MAX_CALLS: u32 = 32;

/// The calls of one server.
pub(crate) struct Calls<I: Identity, A: Answer> {
    pub(crate) permits: Semaphore,
    waiting: Waiting<I, A>,
    pub(super) kept: Arc<Kept<I, A>>,
    disconnect: Disconnect,
}

/// The request of a host that a call belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Caller<'a> {
    /// The number of the session.
    pub(crate) session: u64,
    pub(crate) context: &'a RequestContext<RoleServer>,
}

/// A call with checked arguments.
pub(crate) struct Order<I, F> {
    pub(crate) identity: I,
    /// Whether the call buys, even if there is an answer of an identical call.
    pub(crate) allow_duplicate: bool,
    pub(crate) buy: F,
}

impl Caller<'_> {
    pub(super) fn key(&self) -> RequestKey {
        (self.session, self.context.id.clone())
    }
}

impl<I: Identity, A: Answer> Calls<I, A> {
    /// `host` is the time that a host waits for an answer.
    pub(crate) fn new(host: Duration, disconnect: Disconnect) -> Self {
        Self {
            permits: Semaphore::new(usize::try_from(MAX_CALLS).unwrap_or(1)),
            waiting: Waiting::default(),
            kept: Arc::new(Kept::new(host)),
            disconnect,
        }
    }

    /// Waits until every call has ended or is abandoned.
    pub(crate) async fn close(&self) {
        self.waiting.clear();
        // The semaphore is never closed.
        drop(self.permits.acquire_many(MAX_CALLS).await);
    }

    /// Notes that the client has cancelled a request.
    pub(crate) fn cancelled(&self, session: u64, request: &RequestId) {
        self.kept.cancelled(&(session, request.clone()));
    }

    /// Conducts one call. `order` checks the arguments of a new one.
    pub(crate) async fn conduct<F, B>(
        self: &Arc<Self>,
        request: CallToolRequestParams,
        caller: Caller<'_>,
        order: impl FnOnce(Option<JsonObject>) -> Result<Order<I, F>, Box<A>>,
    ) -> Result<CallToolResponse, ErrorData>
    where
        F: FnOnce(Purchasing<I, A>) -> B + Send + 'static,
        B: Future<Output = A> + Send,
    {
        let arrived = Instant::now();
        let named = (request.name.to_string(), request.arguments.clone());
        let call = match &request.request_state {
            Some(handle) => match self.resume(handle, &named, request.input_responses.as_ref()) {
                Ok(call) => call,
                Err(refused) => return refused.to_protocol().map(Into::into),
            },
            None => match order(request.arguments) {
                Ok(order) => {
                    if !order.allow_duplicate
                        && let Some(answer) = self.earlier(&order.identity, arrived, caller).await
                    {
                        return answer;
                    }
                    RunningCall::start(self, order.identity, order.buy, caller)
                }
                Err(refused) => return refused.to_protocol().map(Into::into),
            },
        };
        self.conclude(call, named, arrived, caller).await
    }

    /// Returns the answer of an identical call that nobody took. Waits for it while that call runs and the host has given
    /// up on it.
    async fn earlier(
        &self,
        identity: &I,
        arrived: Instant,
        caller: Caller<'_>,
    ) -> Option<Result<CallToolResponse, ErrorData>> {
        loop {
            match self.kept.find(identity) {
                Earlier::None => return None,
                Earlier::Answer(result) => {
                    return Some(self.deliver(identity, result, arrived, caller));
                }
                Earlier::Running(mut ended) => tokio::select! {
                    // The sender lives as long as the server.
                    _ = ended.changed() => {}
                    () = self.abandoned(caller.context) => return Some(Err(abandoned_purchase())),
                },
            }
        }
    }

    /// Returns the result of a call. Keeps a paid answer if the client does not take it any more.
    fn deliver(
        &self,
        identity: &I,
        result: Box<A>,
        arrived: Instant,
        caller: Caller<'_>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = result.to_protocol()?;
        let lost = caller.context.ct.is_cancelled() || self.disconnect.has_ended();
        if result.is_paid_answer() {
            let taken = !lost && !self.kept.is_late(arrived);
            self.kept
                .keep(identity.clone(), caller.key(), taken, result);
        }
        Ok(answer.into())
    }

    /// Returns the running purchase of a repeated call, and passes the answer to it.
    fn resume(
        &self,
        handle: &str,
        request: &(String, Option<JsonObject>),
        responses: Option<&InputResponses>,
    ) -> Result<RunningCall<I, A>, Box<A>> {
        let refused = |message| Err(Box::new(A::refused("approval", message)));
        let Some(waiting) = self.waiting.take(handle) else {
            return refused(
                "no payment waits for this answer; its time limit passed, or it has an answer already",
            );
        };
        if waiting.request != *request {
            return refused("the answer belongs to another call");
        }
        waiting.pending.answer(approval::answer_in(responses));
        Ok(waiting.call)
    }

    /// Waits until the purchase ends, and asks the user for approvals. Abandons the purchase of a cancelled call.
    async fn conclude(
        &self,
        mut call: RunningCall<I, A>,
        request: (String, Option<JsonObject>),
        arrived: Instant,
        caller: Caller<'_>,
    ) -> Result<CallToolResponse, ErrorData> {
        let context = caller.context;
        let ended = |call: &RunningCall<I, A>, result| {
            self.deliver(call.running().identity(), result, arrived, caller)
        };
        loop {
            let step = tokio::select! {
                step = call.step() => step,
                () = self.abandoned(context) => return Err(abandoned_purchase()),
            };
            let pending = match step {
                Step::Ended(result) => return ended(&call, result),
                Step::Asks(pending) => *pending,
            };
            if AskMethod::of(context) == AskMethod::Repeat {
                return Ok(self.ask_by_answer(call, pending, request));
            }
            let question = pending.request.clone();
            tokio::select! {
                verdict = approval::ask(&context.peer, &question) => pending.answer(verdict),
                // The purchase no longer waits for the answer.
                step = call.step() => {
                    if let Step::Ended(result) = step {
                        return ended(&call, result);
                    }
                }
                () = self.abandoned(context) => return Err(abandoned_purchase()),
            }
        }
    }

    /// Waits until the client has cancelled the call or has disconnected.
    pub(crate) async fn abandoned(&self, context: &RequestContext<RoleServer>) {
        tokio::select! {
            () = context.ct.cancelled() => {}
            () = self.disconnect.passed() => {}
        }
    }

    /// Answers the call with the question. The purchase waits until the client repeats the call.
    fn ask_by_answer(
        &self,
        call: RunningCall<I, A>,
        pending: PendingApproval,
        request: (String, Option<JsonObject>),
    ) -> CallToolResponse {
        let question = pending.request.clone();
        match self.waiting.insert(WaitingCall {
            call,
            pending,
            request,
        }) {
            Ok(handle) => approval::question_as_answer(&question, handle).into(),
            Err(waiting) => {
                drop(waiting);
                let refused = A::refused("approval", "too many payments wait for an approval");
                refused.to_protocol().unwrap_or_default().into()
            }
        }
    }
}

/// The error of a call that ends before its purchase. A client reads it if the server ends.
fn abandoned_purchase() -> ErrorData {
    ErrorData::internal_error(
        "may be paid: the server ends, or the call was cancelled. To learn the result without paying again, make the \
         same call again: it sends the same payment.",
        None,
    )
}

/// The error of a cancelled call that buys nothing. The client no longer reads it.
pub(crate) fn cancelled() -> ErrorData {
    ErrorData::internal_error("the call was cancelled", None)
}
