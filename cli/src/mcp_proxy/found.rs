//! Servers that the lists of the operator name: found and added while the proxy runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bursar::config::{McpServer, McpServerPlace};
use bursar::discovery::{Findings, Kind, Price};
use bursar::policy::Amount;
use bursar::{Origin, PaymentStatus, Url};
use rmcp::model::CallToolResult;
use rmcp::{ErrorData, schemars};
use serde::{Deserialize, Serialize};

use super::Proxy;
use super::result::TOOL;
use super::upstream::{Advertised, Upstream};
use crate::args::name_of_host;
use crate::payment::status_name;
use crate::serve::kept::Answer;
use crate::serve::result::{PayResult, to_protocol};
use crate::serve::{DiscoverResult, params, wrong_arguments};
use crate::spelling::as_servers_read;

/// The default and the largest number of services in a result.
const DEFAULT: u8 = 10;
const MOST: u8 = 50;
/// The most servers that can be added, and the most URLs that are remembered.
const MOST_ADDED: usize = 16;
const MOST_REMEMBERED: usize = 1000;

/// The arguments of `bursar_add_server`.
#[derive(Clone, Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(crate = "rmcp::schemars")]
pub(super) struct Add {
    /// The URL of the server, as bursar_find_servers returned it.
    url: String,
    /// A name for the server: 1 to 32 of a-z, 0-9 and -. By default made of the host of the URL.
    #[serde(default)]
    name: Option<String>,
}

/// The servers in the results of searches, by URL.
#[derive(Default)]
pub(super) struct Found(Mutex<HashMap<Url, Advertised>>);

/// The result of `bursar_add_server`.
#[derive(Serialize)]
struct Added {
    #[serde(serialize_with = "status_name")]
    payment: PaymentStatus,
    server: String,
    /// The names of its tools in the list.
    tools: Vec<String>,
}

impl Found {
    fn note(&self, findings: &Findings) {
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for service in &findings.services {
            if found.len() >= MOST_REMEMBERED && !found.contains_key(&service.url) {
                continue;
            }
            let price = match (service.price.dollars(), &service.price) {
                (Some(dollars), _) => Amount::from(dollars),
                (None, Price::Token(amount)) => Amount::from(amount.clone()),
                (None, _) => {
                    found.entry(service.url.clone()).or_default();
                    continue;
                }
            };
            let known = found.entry(service.url.clone()).or_default();
            match &service.tool {
                Some(tool) => drop(known.by_tool.insert(tool.clone(), price)),
                None => known.others = Some(price),
            }
        }
    }

    fn get(&self, url: &Url) -> Option<Advertised> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        found.get(url).cloned()
    }
}

/// `bursar_find_servers`.
pub(super) async fn find(
    proxy: &Proxy,
    arguments: params::Discover,
) -> Result<CallToolResult, ErrorData> {
    let max_price = match arguments
        .max_price
        .as_deref()
        .map(params::price)
        .transpose()
    {
        Ok(max_price) => max_price,
        Err(message) => return wrong_arguments(&message),
    };
    let limit = arguments.limit.unwrap_or(DEFAULT).clamp(1, MOST);
    let query = proxy
        .found_settings
        .client
        .discover()
        .sources(&proxy.sources)
        .find(&arguments.query)
        .only(Kind::Mcp)
        .limit(usize::from(limit));
    let query = match max_price.into_iter().chain(proxy.max_price).min() {
        Some(max) => query.max_price(max),
        None => query,
    };
    // The semaphore is never closed.
    let _permit = proxy.calls.permits.acquire().await;
    match query.run().await {
        Ok(findings) => {
            proxy.found.note(&findings);
            to_protocol(&DiscoverResult::from(&findings), false)
        }
        Err(error) => PayResult::of_error_with(&error, None, &TOOL).to_protocol(),
    }
}

/// `bursar_add_server`.
pub(super) async fn add(proxy: &Arc<Proxy>, arguments: Add) -> Result<CallToolResult, ErrorData> {
    let refused = |message: &str| PayResult::refused("server", message).to_protocol();
    let Ok(url) = arguments.url.parse::<Url>() else {
        return wrong_arguments("url: expected the URL of a server that bursar_find_servers found");
    };
    let Some(advertised) = proxy.found.get(&url) else {
        return refused(
            "bursar_find_servers has not found a server with this URL, and bursar connects to no other",
        );
    };
    let upstreams = proxy.upstreams();
    let place = McpServerPlace::Url(url.clone());
    let known = |known: &&Arc<Upstream>| {
        known.config.place == place || (known.advertised.is_none() && is_at(known, &url))
    };
    if let Some(known) = upstreams.iter().find(known) {
        return added(proxy, known).await;
    }
    let count = upstreams.iter().filter(|known| known.advertised.is_some());
    if count.count() >= MOST_ADDED {
        return refused("16 servers were added already; restart the proxy to add others");
    }
    let taken = |name: &str| upstreams.iter().any(|known| known.config.name == name);
    let name = match arguments.name {
        Some(name) if taken(&name) => return refused("there is already a server with this name"),
        Some(name) => name,
        None => {
            let name = name_of_host(&url);
            let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
            let mut names = std::iter::once(name.clone()).chain(numbered);
            names.find(|name| !taken(name)).unwrap_or(name)
        }
    };
    let server = match McpServer::new(&name, place) {
        Ok(server) => server,
        Err(message) => return wrong_arguments(&message),
    };
    match Upstream::new(server, Some(advertised), proxy.found_settings.clone()) {
        Ok(upstream) => {
            proxy.start(Arc::clone(&upstream)).await;
            added(proxy, &upstream).await
        }
        Err(error) => PayResult::of_error_with(&error, None, &TOOL).to_protocol(),
    }
}

/// Whether a server of the operator may be the one at a URL. Its settings hold for every spelling of its URL.
fn is_at(known: &Upstream, url: &Url) -> bool {
    let McpServerPlace::Url(own) = &known.config.place else {
        return false;
    };
    Origin::of(own) == Origin::of(url) && as_servers_read(own.path()) == as_servers_read(url.path())
}

/// Waits for the session of an added server, and returns the names of its tools.
async fn added(proxy: &Proxy, upstream: &Arc<Upstream>) -> Result<CallToolResult, ErrorData> {
    if upstream.tools(proxy.settings.timeout).await.is_err() && !upstream.is_open() {
        let message = "bursar cannot open a session with the server; it tries again, and bursar_servers has the reason";
        return PayResult::refused("not_connected", message).to_protocol();
    }
    let entries = proxy.entries().into_iter();
    let its = entries.filter(|entry| Arc::ptr_eq(&entry.upstream, upstream));
    let added = Added {
        payment: PaymentStatus::NotPaid,
        server: upstream.config.name.clone(),
        tools: its.map(|entry| entry.name).collect(),
    };
    to_protocol(&added, false)
}
