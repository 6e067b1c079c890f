//! Resources of servers, which results of tools can link to. Reading one is never paid for.

use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{
    CallToolResult, ContentBlock, ReadResourceRequestParams, ReadResourceResult, Resource,
};
use rmcp::service::ServiceError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::result::{passed_on, remove_own_meta};
use super::upstream::{State, Upstream};
use super::{CONNECT, Proxy};
use crate::serve::untrusted::visible_json;

/// How long a server may take to list its resources.
const LIST: Duration = Duration::from_secs(10);
/// The most resources of one server in the list, and the most links that are remembered.
const MOST: usize = 256;
const MOST_LINKS: usize = 2000;

impl Upstream {
    /// Remembers the resources that a result links to, so that a host can read them.
    pub(super) fn note_links(&self, result: &CallToolResult) {
        let links = result.content.iter().filter_map(|content| match content {
            ContentBlock::ResourceLink(link) => Some(link.uri.clone()),
            _ => None,
        });
        self.remember(links);
    }

    fn remember(&self, uris: impl Iterator<Item = String>) {
        let mut known = self.known();
        for uri in uris {
            if known.resources.len() >= MOST_LINKS {
                known.resources.clear();
            }
            known.resources.insert(uri);
        }
    }

    /// Returns the first page of resources, if the server has any.
    async fn resources(&self) -> Vec<Resource> {
        let State::Open(tools) = self.state() else {
            return Vec::new();
        };
        let peer = tools.peer();
        let has_resources = peer
            .peer_info()
            .is_some_and(|info| info.capabilities.resources.is_some());
        if !has_resources {
            return Vec::new();
        }
        let Ok(Ok(page)) = tokio::time::timeout(LIST, peer.list_resources(None)).await else {
            return Vec::new();
        };
        let mut resources = page.resources;
        resources.truncate(MOST);
        self.remember(resources.iter().map(|resource| resource.uri.clone()));
        resources.iter().filter_map(visible).collect()
    }
}

impl Proxy {
    /// Returns the resources of all servers.
    pub(super) async fn resources(&self) -> Vec<Resource> {
        self.first_attempts().await;
        let mut all = Vec::new();
        for upstream in self.upstreams() {
            all.extend(upstream.resources().await);
        }
        all
    }

    /// Reads a resource of the server that named it.
    pub(super) async fn read_resource(
        &self,
        params: ReadResourceRequestParams,
    ) -> Result<ReadResourceResult, ErrorData> {
        let upstreams = self.upstreams();
        let knows =
            |upstream: &&std::sync::Arc<Upstream>| upstream.known().resources.contains(&params.uri);
        let upstream = match (upstreams.iter().find(knows), upstreams.as_slice()) {
            (Some(upstream), _) | (None, [upstream]) => upstream,
            _ => {
                let message = "no result of a tool and no list has named a resource with this URI";
                return Err(ErrorData::resource_not_found(message, None));
            }
        };
        let unreachable =
            || ErrorData::internal_error("the server of the resource does not answer", None);
        let tools = upstream.tools(CONNECT).await.map_err(|_| unreachable())?;
        let reading = tools
            .peer()
            .read_resource(ReadResourceRequestParams::new(params.uri));
        let read = tokio::time::timeout(self.settings.timeout, reading).await;
        match read.map_err(|_| unreachable())? {
            Ok(result) => visible(&result).ok_or_else(unreachable),
            Err(ServiceError::McpError(error)) => Err(passed_on(&error)),
            Err(_) => Err(unreachable()),
        }
    }
}

/// Returns a value without hidden characters and metadata of bursar.
fn visible<T: Serialize + DeserializeOwned>(value: &T) -> Option<T> {
    let mut json = serde_json::from_str(&visible_json(value).ok()?).ok()?;
    remove_own_meta(&mut json);
    serde_json::from_value(json).ok()
}
