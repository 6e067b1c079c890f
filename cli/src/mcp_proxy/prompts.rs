//! Prompts of servers, which the user of a host chooses. Asking for one is never paid for.

use std::sync::Arc;

use rmcp::ErrorData;
use rmcp::model::{GetPromptRequestParams, GetPromptResult, Prompt};
use rmcp::service::ServiceError;

use super::names::host_names;
use super::resources::{LIST, MOST, listed, visible};
use super::result::passed_on;
use super::upstream::{State, Upstream};
use super::{CONNECT, Proxy};

/// The names of the proxy's own prompts. There are none.
const OWN: [&str; 0] = [];

impl Upstream {
    /// Asks for the list of prompts, if the server has any. A server that does not answer keeps its last list.
    async fn ask_for_prompts(&self) {
        let State::Open(tools) = self.state() else {
            return;
        };
        let peer = tools.peer();
        let has_prompts = peer
            .peer_info()
            .is_some_and(|info| info.capabilities.prompts.is_some());
        if !has_prompts {
            return;
        }
        let asked = async { listed!(peer, list_prompts, prompts) };
        if let Ok(Ok(prompts)) = tokio::time::timeout(LIST, asked).await {
            self.known().prompts = Arc::new(prompts);
        }
    }
}

impl Proxy {
    /// Returns the known prompts of all servers, with the names for hosts.
    fn known_prompts(&self) -> Vec<(String, Arc<Upstream>, Prompt)> {
        let upstreams = self.upstreams();
        let prompts: Vec<_> = upstreams
            .iter()
            .flat_map(|upstream| {
                let prompts = Arc::clone(&upstream.known().prompts);
                (0..prompts.len()).filter_map(move |at| Some((upstream, prompts.get(at)?.clone())))
            })
            .collect();
        let named: Vec<_> = prompts
            .iter()
            .map(|(upstream, prompt)| (upstream.config.name.as_str(), prompt.name.as_str()))
            .collect();
        let names = host_names(&named, self.prefixed, &OWN);
        let named = names.into_iter().zip(&prompts);
        named
            .filter_map(|(name, (upstream, prompt))| {
                Some((name?, Arc::clone(upstream), prompt.clone()))
            })
            .collect()
    }

    /// Returns the prompts as a host sees them.
    pub(super) async fn prompts(&self) -> Vec<Prompt> {
        self.first_attempts().await;
        for upstream in self.upstreams() {
            upstream.ask_for_prompts().await;
        }
        let prompts = self.known_prompts().into_iter();
        prompts
            .filter_map(|(name, upstream, mut prompt)| {
                let words = prompt.description.unwrap_or_default();
                let server = &upstream.config.name;
                prompt.description = Some(format!("A prompt of the MCP server {server}. {words}"));
                (prompt.name, prompt.meta) = (name, None);
                visible(&prompt)
            })
            .collect()
    }

    /// Asks the server of a prompt for its messages.
    pub(super) async fn get_prompt(
        &self,
        params: GetPromptRequestParams,
    ) -> Result<GetPromptResult, ErrorData> {
        let find = || {
            let mut prompts = self.known_prompts().into_iter();
            prompts.find(|(name, _, _)| *name == params.name)
        };
        let mut found = find();
        if found.is_none() {
            // A host may know the name from an earlier run.
            self.prompts().await;
            found = find();
        }
        let Some((_, upstream, prompt)) = found else {
            let message = "there is no prompt with this name; ask for the list of prompts again";
            return Err(ErrorData::invalid_params(message, None));
        };
        let unreachable =
            || ErrorData::internal_error("the server of the prompt does not answer", None);
        let tools = upstream.tools(CONNECT).await.map_err(|_| unreachable())?;
        let mut request = GetPromptRequestParams::new(prompt.name);
        request.arguments = params.arguments;
        let asked = tools.peer().get_prompt(request);
        let answer = tokio::time::timeout(self.settings.timeout, asked).await;
        match answer.map_err(|_| unreachable())? {
            Ok(mut result) => {
                // A server writes no metadata of bursar.
                result.meta = None;
                visible(&result).ok_or_else(unreachable)
            }
            Err(ServiceError::McpError(error)) => Err(passed_on(&error)),
            Err(_) => Err(unreachable()),
        }
    }
}
