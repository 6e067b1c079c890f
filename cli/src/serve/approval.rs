//! Asks the user of the MCP client to approve a payment, by elicitation.
//!
//! With protocol versions up to 2025-11-25, the server sends a request of its own while the call waits. From version
//! 2026-07-28 on, the server answers the call with the question, and the client makes the call again with the answer.
//! Until then, the purchase waits in [`Waiting`] under a random handle. In both cases, the time limit of the policy for
//! approvals runs.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bursar::approval::{ApprovalRequest, Approver, ChannelApprover, PendingApproval, Verdict};
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequiredResult, InputResponses, JsonObject, ProtocolVersion,
};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};

use super::call::RunningCall;
use super::kept::{Answer, Identity};

/// The name of the question and of the field with the answer.
const QUESTION: &str = "approve";
/// The largest number of purchases that wait for an answer. Only a client that never answers reaches it.
const MOST_WAITING: usize = 32;

tokio::task_local! {
    /// The approver for the purchase of this task.
    pub(crate) static APPROVER: Option<ChannelApprover>;
}

/// Asks the client that made the call of a purchase.
pub(crate) struct CallerApprover;

impl Approver for CallerApprover {
    async fn decide(&self, request: &ApprovalRequest) -> Verdict {
        match APPROVER.try_with(Clone::clone) {
            Ok(Some(approver)) => approver.decide(request).await,
            _ => cannot_ask(request),
        }
    }
}

/// Returns the verdict if nobody can be asked.
pub(crate) fn cannot_ask(request: &ApprovalRequest) -> Verdict {
    Verdict::deny(format!(
        "the MCP client cannot ask its user about {}, because it does not support elicitation",
        request.amount
    ))
}

/// The way to ask the user of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskMethod {
    /// The client does not support elicitation.
    None,
    /// The server sends a request while the call waits.
    Request,
    /// The server answers the call with the question, and the client makes the call again.
    Repeat,
}

impl AskMethod {
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Self {
        let capabilities = context.client_capabilities();
        let Some(elicitation) = capabilities.and_then(|capabilities| capabilities.elicitation)
        else {
            return Self::None;
        };
        // A client that names no mode supports forms.
        if elicitation.form.is_none() && elicitation.url.is_some() {
            return Self::None;
        }
        let version = context.protocol_version();
        // Versions are dates, so their order as text is their order in time.
        match version
            .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
        {
            true => Self::Repeat,
            false => Self::Request,
        }
    }
}

fn question(request: &ApprovalRequest) -> ElicitRequestParams {
    let field =
        |schema: rmcp::model::BooleanSchema| schema.title("Pay this once").with_default(false);
    let requested_schema = ElicitationSchema::builder()
        .required_bool_with(QUESTION, field)
        .build_unchecked();
    ElicitRequestParams::FormElicitationParams {
        meta: None,
        message: request.to_string(),
        requested_schema,
    }
}

/// Sends the question in a request, and waits for the answer.
pub(super) async fn ask(peer: &Peer<RoleServer>, request: &ApprovalRequest) -> Verdict {
    match peer.create_elicitation(question(request)).await {
        Ok(answer) => verdict(&answer),
        Err(_) => Verdict::deny("the MCP client could not ask its user"),
    }
}

/// Returns the question as the answer to a call. The client makes the call again with `handle`.
pub(super) fn question_as_answer(request: &ApprovalRequest, handle: String) -> InputRequiredResult {
    let question = InputRequest::Elicitation(ElicitRequest::new(question(request)));
    InputRequiredResult::new(Some([(QUESTION.to_owned(), question)].into()), Some(handle))
}

/// Returns the answer in a repeated call.
pub(super) fn answer_in(responses: Option<&InputResponses>) -> Verdict {
    let answer = responses.and_then(|all| all.get(QUESTION));
    match answer.map(|answer| serde_json::from_value::<ElicitResult>(answer.clone())) {
        Some(Ok(answer)) => verdict(&answer),
        Some(Err(_)) => Verdict::deny("the answer cannot be read"),
        None => Verdict::deny("the question was not answered"),
    }
}

/// Approves only if the field is true. A client that accepts every question without the field has not read it.
fn verdict(answer: &ElicitResult) -> Verdict {
    let approved = answer
        .content
        .as_ref()
        .and_then(|content| content.get(QUESTION)?.as_bool());
    match (&answer.action, approved) {
        (ElicitationAction::Accept, Some(true)) => Verdict::Approve,
        (ElicitationAction::Accept | ElicitationAction::Decline, _) => {
            Verdict::deny("the user of the MCP client did not approve")
        }
        _ => Verdict::deny("the user of the MCP client dismissed the question"),
    }
}

/// A purchase that waits until the client repeats its call.
pub(super) struct WaitingCall<I: Identity, A: Answer> {
    pub(super) call: RunningCall<I, A>,
    pub(super) pending: PendingApproval,
    /// The tool and the arguments of the call.
    pub(super) request: (String, Option<JsonObject>),
}

/// The purchases that wait for an answer.
pub(super) struct Waiting<I: Identity, A: Answer>(Mutex<HashMap<String, WaitingCall<I, A>>>);

impl<I: Identity, A: Answer> Default for Waiting<I, A> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I: Identity, A: Answer> Waiting<I, A> {
    /// Stores a purchase under a new handle. Returns it if too many are stored, or if there is no random number.
    pub(super) fn insert(
        &self,
        waiting: WaitingCall<I, A>,
    ) -> Result<String, Box<WaitingCall<I, A>>> {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return Err(Box::new(waiting));
        }
        let handle = format!("{:032x}", u128::from_be_bytes(random));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A purchase that has ended was denied when its time limit passed.
        all.retain(|_, waiting| !waiting.call.has_ended());
        if all.len() >= MOST_WAITING {
            return Err(Box::new(waiting));
        }
        all.insert(handle.clone(), waiting);
        Ok(handle)
    }

    /// Removes the purchase of a handle.
    pub(super) fn take(&self, handle: &str) -> Option<WaitingCall<I, A>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(handle)
    }

    /// Abandons all purchases. Nothing is signed for any of them.
    pub(super) fn clear(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_field_that_is_true_approves() {
        let answer = |action, content| {
            let answer = ElicitResult::new(action);
            verdict(&match content {
                Some(content) => answer.with_content(content),
                None => answer,
            })
        };
        assert_eq!(
            answer(ElicitationAction::Accept, Some(json!({ "approve": true }))),
            Verdict::Approve
        );
        for (action, content) in [
            (ElicitationAction::Accept, None),
            (ElicitationAction::Accept, Some(json!({}))),
            (ElicitationAction::Accept, Some(json!({ "approve": false }))),
            (
                ElicitationAction::Accept,
                Some(json!({ "approve": "true" })),
            ),
            (ElicitationAction::Accept, Some(json!(true))),
            (ElicitationAction::Decline, Some(json!({ "approve": true }))),
            (ElicitationAction::Cancel, Some(json!({ "approve": true }))),
        ] {
            assert!(matches!(answer(action, content), Verdict::Deny { .. }));
        }
        assert!(matches!(answer_in(None), Verdict::Deny { .. }));
        assert!(matches!(
            answer_in(Some(&[(QUESTION.to_owned(), json!(true))].into())),
            Verdict::Deny { .. }
        ));
    }
}
