//! Putting a payment to the person behind the MCP client, who is asked by elicitation.
//!
//! Protocols up to 2025-11-25 ask with a request of their own while the call waits. From 2026-07-28 on the call is
//! answered with the question instead and made again with the answer; until then its purchase waits in [`Waiting`],
//! under a handle that nobody can guess. Either way the policy's time for approvals goes on.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use bursar::{ApprovalRequest, Approver, ChannelApprover, PendingApproval, Verdict};
use rmcp::model::{
    ElicitRequest, ElicitRequestParams, ElicitResult, ElicitationAction, ElicitationSchema,
    InputRequest, InputRequiredResult, InputResponses, ProtocolVersion,
};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};

use super::RunningCall;
use super::order::Pay;

/// The name of the question, and of the field that answers it.
const QUESTION: &str = "approve";
/// The most purchases that wait for an answer. More could only be made by somebody who never answers.
const MOST_WAITING: usize = 32;

tokio::task_local! {
    /// Who is asked about the purchase that the task makes.
    pub(super) static ASKED: Option<ChannelApprover>;
}

/// Asks whoever made the call that a purchase belongs to.
pub(super) struct Caller;

impl Approver for Caller {
    async fn decide(&self, request: &ApprovalRequest) -> Verdict {
        match ASKED.try_with(Clone::clone) {
            Ok(Some(approver)) => approver.decide(request).await,
            _ => Verdict::deny("nobody can be asked: the MCP client does not support elicitation"),
        }
    }
}

/// How the client's user is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Not at all.
    Nobody,
    /// With a request, while the call waits.
    Request,
    /// With the call's own answer, which the client makes again.
    Again,
}

impl Way {
    pub(super) fn of(context: &RequestContext<RoleServer>) -> Self {
        let capabilities = context.client_capabilities();
        let Some(elicitation) = capabilities.and_then(|capabilities| capabilities.elicitation)
        else {
            return Self::Nobody;
        };
        // No mode named means forms.
        if elicitation.form.is_none() && elicitation.url.is_some() {
            return Self::Nobody;
        }
        let version = context.protocol_version();
        // Versions are dates: their order as text is their order in time.
        match version
            .is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str())
        {
            true => Self::Again,
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

/// Asks with a request, and waits for the answer.
pub(super) async fn ask(peer: &Peer<RoleServer>, request: &ApprovalRequest) -> Verdict {
    match peer.create_elicitation(question(request)).await {
        Ok(answer) => verdict(&answer),
        Err(_) => Verdict::deny("the MCP client could not ask"),
    }
}

/// The question as the answer to a call, which is to be made again under `handle`.
pub(super) fn asked_again(request: &ApprovalRequest, handle: String) -> InputRequiredResult {
    let question = InputRequest::Elicitation(ElicitRequest::new(question(request)));
    InputRequiredResult::new(Some([(QUESTION.to_owned(), question)].into()), Some(handle))
}

/// The answer that came with a call made again.
pub(super) fn answer_in(responses: Option<&InputResponses>) -> Verdict {
    let answer = responses.and_then(|all| all.get(QUESTION));
    match answer.map(|answer| serde_json::from_value::<ElicitResult>(answer.clone())) {
        Some(Ok(answer)) => verdict(&answer),
        Some(Err(_)) => Verdict::deny("the answer cannot be read"),
        None => Verdict::deny("the question was not answered"),
    }
}

/// Only the field says yes: a client that accepts whatever it is asked has not read the question.
fn verdict(answer: &ElicitResult) -> Verdict {
    let approved = answer
        .content
        .as_ref()
        .and_then(|content| content.get(QUESTION)?.as_bool());
    match (&answer.action, approved) {
        (ElicitationAction::Accept, Some(true)) => Verdict::Approve,
        (ElicitationAction::Accept | ElicitationAction::Decline, _) => {
            Verdict::deny("not approved by the client's user")
        }
        _ => Verdict::deny("the question was dismissed"),
    }
}

/// A purchase that waits for its call to be made again.
pub(super) struct Parked {
    pub(super) purchase: RunningCall,
    pub(super) pending: PendingApproval,
    pub(super) arguments: Pay,
}

/// Purchases that wait for an answer.
#[derive(Default)]
pub(super) struct Waiting(Mutex<HashMap<String, Parked>>);

impl Waiting {
    /// Keeps a purchase under a new handle; gives it back if there are too many, or no chance to be had.
    pub(super) fn park(&self, parked: Parked) -> Result<String, Box<Parked>> {
        let mut random = [0; 16];
        if getrandom::fill(&mut random).is_err() {
            return Err(Box::new(parked));
        }
        let handle = format!("{:032x}", u128::from_be_bytes(random));
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody will ask for what has ended: it was denied when its time was up.
        all.retain(|_, parked| !parked.purchase.has_ended());
        if all.len() >= MOST_WAITING {
            return Err(Box::new(parked));
        }
        all.insert(handle.clone(), parked);
        Ok(handle)
    }

    pub(super) fn take(&self, handle: &str) -> Option<Parked> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(handle)
    }

    /// Leaves all of them. Nothing is signed for any.
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
    fn only_an_explicit_yes_approves() {
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
