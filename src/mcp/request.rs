//! Sending one call of a tool through `rmcp`.

use rmcp::RoleClient;
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, CancelledNotificationParam,
    ClientRequest, ProgressToken, RequestId, ServerResult,
};
use rmcp::service::{Peer, PeerRequestOptions, ServiceError};

use super::beneath::Beneath;

/// Calls a tool. The transport finds `beneath` in the extensions of the message.
///
/// As `Peer::call_tool` does, it tells the server to stop if the caller stops waiting.
pub(super) async fn call_tool(
    peer: &Peer<RoleClient>,
    mut params: CallToolRequestParams,
    beneath: Beneath,
    watch: Option<&(dyn Fn(&ProgressToken) + Send + Sync)>,
) -> Result<CallToolResult, ServiceError> {
    let meta = params.meta.take();
    let mut request = CallToolRequest::new(params);
    // `rmcp` logs parameters, and a payment is among them. It sends the metadata of the extensions, and does not log it.
    if let Some(meta) = meta {
        request.extensions.insert(meta);
    }
    request.extensions.insert(beneath);
    let request = ClientRequest::CallToolRequest(request);
    let sent = peer.send_request_with_option(request, PeerRequestOptions::no_options());
    let handle = sent.await?;
    if let Some(watch) = watch {
        watch(&handle.progress_token);
    }
    let mut guard = Abandoned {
        peer,
        id: Some(handle.id.clone()),
    };
    let answer = handle.await_response().await;
    guard.id = None;
    match answer? {
        ServerResult::CallToolResult(result) => Ok(result),
        ServerResult::EmptyResult(_) => Ok(CallToolResult::default()),
        ServerResult::CustomResult(result) => {
            serde_json::from_value(result.0).map_err(|_| ServiceError::UnexpectedResponse)
        }
        _ => Err(ServiceError::UnexpectedResponse),
    }
}

/// Sends `notifications/cancelled` when the caller drops the call.
struct Abandoned<'a> {
    peer: &'a Peer<RoleClient>,
    id: Option<RequestId>,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        let (Some(id), Ok(runtime)) = (self.id.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let peer = self.peer.clone();
        runtime.spawn(async move {
            let params = CancelledNotificationParam::new(Some(id), None);
            drop(peer.notify_cancelled(params).await);
        });
    }
}
