//! Resources of servers, which results of tools can link to. Reading one is never paid for.

use std::collections::HashSet;
use std::time::Duration;

use bursar::mcp::PaidTools;
use rmcp::ErrorData;
use rmcp::model::{
    CallToolResult, ContentBlock, ReadResourceRequestParams, ReadResourceResult, Resource,
    ResourceTemplate, ResultType,
};
use rmcp::service::ServiceError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::result::{passed_on, remove_own_meta};
use super::upstream::{State, Upstream};
use super::{CONNECT, Proxy};
use crate::serve::untrusted::visible_json;

/// How long a server may take to list its resources, or its prompts.
pub(super) const LIST: Duration = Duration::from_secs(10);
/// The most resources, templates and prompts of one server in the list, and the most links that are remembered.
pub(super) const MOST: usize = 256;
const MOST_LINKS: usize = 2000;

/// Asks for all pages of a list, until it has [`MOST`] items.
macro_rules! listed {
    ($peer:expr, $list:ident, $items:ident) => {{
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let params = rmcp::model::PaginatedRequestParams::default().with_cursor(cursor);
            let page = match $peer.$list(Some(params)).await {
                Ok(page) => page,
                Err(error) => break Err(error),
            };
            // An empty page could go on for ever.
            let ends = page.$items.is_empty() || page.next_cursor.is_none();
            all.extend(page.$items);
            if ends || all.len() >= MOST {
                all.truncate(MOST);
                break Ok(all);
            }
            cursor = page.next_cursor;
        }
    }};
}
pub(super) use listed;

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

    /// Returns the open session, if its server has resources.
    fn with_resources(&self) -> Option<Box<PaidTools>> {
        let State::Open(tools) = self.state() else {
            return None;
        };
        let info = tools.peer().peer_info();
        let has_resources = info.is_some_and(|info| info.capabilities.resources.is_some());
        has_resources.then_some(tools)
    }

    /// Returns the resources of the server.
    async fn resources(&self) -> Vec<Resource> {
        let Some(tools) = self.with_resources() else {
            return Vec::new();
        };
        let asked = async { listed!(tools.peer(), list_resources, resources) };
        let Ok(Ok(resources)) = tokio::time::timeout(LIST, asked).await else {
            return Vec::new();
        };
        self.remember(resources.iter().map(|resource| resource.uri.clone()));
        resources.iter().filter_map(visible).collect()
    }

    /// Returns the templates of resources of the server. Remembers the beginnings of their URIs.
    async fn templates(&self) -> Vec<ResourceTemplate> {
        let Some(tools) = self.with_resources() else {
            return Vec::new();
        };
        let asked = async { listed!(tools.peer(), list_resource_templates, resource_templates) };
        let Ok(Ok(templates)) = tokio::time::timeout(LIST, asked).await else {
            return Vec::new();
        };
        let begin = |template: &ResourceTemplate| {
            let beginning = template.uri_template.split('{').next();
            beginning
                .filter(|begin| !begin.is_empty())
                .map(str::to_owned)
        };
        self.known().templates = templates.iter().filter_map(begin).collect();
        templates.iter().filter_map(visible).collect()
    }

    /// Returns how much of the URI the most exact template of the server has, in bytes. A URI that the server has named comes
    /// first.
    fn fit(&self, uri: &str) -> Option<usize> {
        let known = self.known();
        if known.resources.contains(uri) {
            return Some(usize::MAX);
        }
        let fitting = known.templates.iter();
        let fitting = fitting.filter(|begin| uri.starts_with(begin.as_str()));
        fitting.map(String::len).max()
    }
}

impl Proxy {
    /// Returns the resources of all servers. A URI that several servers list is that of the first one, from which
    /// [`read_resource`](Self::read_resource) reads it.
    pub(super) async fn resources(&self) -> Vec<Resource> {
        self.first_attempts().await;
        let mut all = Vec::new();
        for upstream in self.upstreams() {
            all.extend(upstream.resources().await);
        }
        let mut uris = HashSet::new();
        all.retain(|resource| uris.insert(resource.uri.clone()));
        all
    }

    /// Returns the templates of resources of all servers.
    pub(super) async fn templates(&self) -> Vec<ResourceTemplate> {
        self.first_attempts().await;
        let mut all = Vec::new();
        for upstream in self.upstreams() {
            all.extend(upstream.templates().await);
        }
        all
    }

    /// Reads a resource of the server that named it, or whose template fits.
    pub(super) async fn read_resource(
        &self,
        params: ReadResourceRequestParams,
    ) -> Result<ReadResourceResult, ErrorData> {
        let upstreams = self.upstreams();
        let fits = upstreams.iter();
        let fits = fits.filter_map(|upstream| Some((upstream.fit(&params.uri)?, upstream)));
        // Of two servers that fit alike, the first is asked.
        let best = fits.rev().max_by_key(|(fit, _)| *fit);
        let upstream = match (best, upstreams.as_slice()) {
            (Some((_, upstream)), _) | (None, [upstream]) => upstream,
            _ => {
                let message = "no result of a tool, no list and no template has named a resource with this URI";
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
            Ok(mut result) => {
                // The session with the server can have an older version, whose results have no type.
                result.result_type = Some(ResultType::COMPLETE);
                visible(&result).ok_or_else(unreachable)
            }
            Err(ServiceError::McpError(error)) => Err(passed_on(&error)),
            Err(_) => Err(unreachable()),
        }
    }
}

/// Returns a value without hidden characters and metadata of bursar.
pub(super) fn visible<T: Serialize + DeserializeOwned>(value: &T) -> Option<T> {
    let mut json = serde_json::from_str(&visible_json(value).ok()?).ok()?;
    remove_own_meta(&mut json);
    serde_json::from_value(json).ok()
}
