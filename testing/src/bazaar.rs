//! Lists of services on loopback, honest or hostile.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use crate::answer::{plain, redirect};
use crate::body::Body;
use crate::payment::ReceivedRequest;
use crate::server::{Listener, answer_requests};
use bursar::clock::{Clock, SystemClock};
use bursar::money::AssetRegistry;
use bursar::x402::{PaymentRequired, Quote};

/// The parameters of CDP's search and of its list.
const CDP_SEARCH: &[&str] = &[
    "query",
    "network",
    "asset",
    "scheme",
    "payTo",
    "urlSubstring",
    "maxUsdPrice",
    "extensions",
    "tags",
    "bundleSlugs",
    "curatedOnly",
    "limit",
];
const CDP_LIST: &[&str] = &["type", "limit", "offset"];

/// A server of lists of services on `127.0.0.1`, on a port that the operating system chooses.
///
/// It answers like these lists:
///
/// | List | Paths |
/// |---|---|
/// | the bazaar of a facilitator | `/discovery/resources`, `/discovery/search` |
/// | the list of an origin | `/.well-known/x402`, `/openapi.json` |
/// | an MCP registry | `/v0.1/servers`, `/v0/servers` |
///
/// The server stops when the bazaar is dropped.
///
/// ```
/// use bursar::{Client, LocalSigner, Ledger, Policy, usd};
/// use bursar_testing::{Bazaar, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let weather = Route::get("/weather").price(usd!("0.01")).body("sunny");
/// let seller = Paywall::builder().route(weather).start().await?;
/// let listing = seller.advertisement("/weather", "tomorrow's weather");
/// let bazaar = Bazaar::builder().item(listing).start().await?;
///
/// let client = Client::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia"))
///     .ledger(Ledger::memory())
///     .allow_http_loopback(true)
///     .build()?;
/// let findings = client.discover().bazaar(bazaar.url("/")).find("weather").run().await?;
/// let response = findings.best().unwrap().request(&client).send().await?;
/// assert_eq!(response.text().await?, "sunny");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Bazaar {
    shared: Arc<Shared>,
    base: Url,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

/// A way in which a [`Bazaar`] misbehaves in all its answers. Set it with [`BazaarBuilder::fault`].
///
/// ```
/// use bursar::Client;
/// use bursar_testing::{Bazaar, BazaarFault};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bazaar = Bazaar::builder().fault(BazaarFault::Status(500)).start().await?;
/// let client = Client::builder().allow_http_loopback(true).build()?;
/// let findings = client.discover().bazaar(bazaar.url("/")).find("weather").run().await?;
/// assert!(findings.sources[0].error.is_some());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BazaarFault {
    /// Every page has a new item and names a next page.
    Endless,
    /// Every page has the items of the first page and names a next page.
    Repeats,
    /// Every answer is padded with spaces to this many bytes.
    Huge(usize),
    /// Every answer begins and never ends.
    Hangs,
    /// Every request is redirected to this URL with 307.
    Redirects(Url),
    /// Every request is answered with this status.
    Status(u16),
}

impl Bazaar {
    /// Returns a builder of an empty bazaar.
    pub fn builder() -> BazaarBuilder {
        BazaarBuilder::default()
    }

    /// Returns the URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// Returns every request that reached the bazaar, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.shared
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Builds a [`Bazaar`].
///
/// ```
/// use bursar_testing::Bazaar;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let registry = Bazaar::builder()
///     .mcp_server("io.example/weather", "Forecasts", "https://mcp.example.com/mcp")
///     .page_size(1)
///     .start()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a bazaar lists nothing until you start it"]
pub struct BazaarBuilder {
    items: Vec<Value>,
    servers: Vec<Value>,
    page: usize,
    search: bool,
    search_limit: Option<usize>,
    like_cdp: bool,
    fault: Option<BazaarFault>,
}

impl Default for BazaarBuilder {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            servers: Vec::new(),
            page: 100,
            search: true,
            search_limit: None,
            like_cdp: false,
            fault: None,
        }
    }
}

impl BazaarBuilder {
    /// Adds an item, such as an [advertisement](crate::Paywall::advertisement) of a paywall.
    ///
    /// Any JSON is possible. The bazaar lists it unchanged.
    pub fn item(mut self, item: Value) -> Self {
        self.items.push(item);
        self
    }

    /// Adds an MCP server with this name, description and endpoint to the registry.
    pub fn mcp_server(self, name: &str, description: &str, url: &str) -> Self {
        let remote = json!({ "type": "streamable-http", "url": url });
        let server = json!({ "name": name, "description": description, "version": "1.0.0", "remotes": [remote] });
        let official = json!({ "status": "active", "isLatest": true });
        self.server(json!({ "server": server, "_meta": { "io.modelcontextprotocol.registry/official": official } }))
    }

    /// Adds an element to `servers` of the registry. Any JSON is possible.
    pub fn server(mut self, server: Value) -> Self {
        self.servers.push(server);
        self
    }

    /// Sets the largest number of items on a page. The default is 100.
    pub fn page_size(mut self, items: usize) -> Self {
        self.page = items;
        self
    }

    /// Removes `/discovery/search`, which many facilitators do not have.
    pub fn without_search(mut self) -> Self {
        self.search = false;
        self
    }

    /// Refuses a search that asks for more items on a page, with 400.
    pub fn search_limit(mut self, items: usize) -> Self {
        self.search_limit = Some(items);
        self
    }

    /// Refuses all that the bazaar of CDP refuses, the largest one, with 400.
    ///
    /// A search returns at most 20 items and takes a text of at most 400 characters. Neither list takes a parameter that
    /// it does not know. For the search, these are `query`, `network`, `asset`, `scheme`, `payTo`, `urlSubstring`,
    /// `maxUsdPrice`, `extensions`, `tags`, `bundleSlugs`, `curatedOnly` and `limit`. For the list, these are `type`,
    /// `limit` and `offset`.
    pub fn like_cdp(mut self) -> Self {
        self.like_cdp = true;
        self.search_limit(20)
    }

    /// Sets the fault. A second fault replaces the first.
    pub fn fault(mut self, fault: BazaarFault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Starts the bazaar.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no port.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with I/O.
    pub async fn start(self) -> io::Result<Bazaar> {
        let listener = Listener::bind().await?;
        let base = listener.url().clone();
        let shared = Arc::new(Shared {
            listed: self,
            base: base.clone(),
            received: Mutex::default(),
        });
        let connection = Arc::clone(&shared);
        let server = listener.serve(move |stream| serve(stream, Arc::clone(&connection)));
        Ok(Bazaar {
            shared,
            base,
            _server: server,
        })
    }
}

/// The lists, and the requests for them.
#[derive(Debug)]
struct Shared {
    listed: BazaarBuilder,
    base: Url,
    received: Mutex<Vec<ReceivedRequest>>,
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    answer_requests(stream, async |request| Ok(shared.answer(request))).await;
}

/// The page that a request asks for.
struct PageRequest {
    path: String,
    query: BTreeMap<String, String>,
    /// The index of the first item.
    start: usize,
}

impl Shared {
    fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, _) = request.into_parts();
        let received = ReceivedRequest::new(head, Bytes::new(), SystemClock.now());
        let wanted = self.parse(&received);
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(received);
        match &self.listed.fault {
            Some(BazaarFault::Status(status)) => plain(
                StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
                "the list is not available",
            ),
            Some(BazaarFault::Redirects(to)) => redirect(307, to),
            fault => self.page(&wanted, fault.as_ref()),
        }
    }

    fn parse(&self, received: &ReceivedRequest) -> PageRequest {
        let url = self
            .base
            .join(&received.target)
            .unwrap_or_else(|_| self.base.clone());
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let number = |name: &str| query.get(name).and_then(|text| text.parse().ok());
        let start = number("offset")
            .or_else(|| number("cursor"))
            .unwrap_or_default();
        PageRequest {
            path: url.path().to_owned(),
            start,
            query,
        }
    }

    /// Returns the reason to refuse a request.
    fn refusal(&self, wanted: &PageRequest) -> Option<String> {
        let (search, known) = match wanted.path.as_str() {
            "/discovery/search" => (true, CDP_SEARCH),
            "/discovery/resources" => (false, CDP_LIST),
            _ => return None,
        };
        let limit = wanted
            .query
            .get("limit")
            .and_then(|limit| limit.parse().ok());
        let asked: usize = limit.unwrap_or_default();
        if let Some(most) = self
            .listed
            .search_limit
            .filter(|most| search && asked > *most)
        {
            return Some(format!("limit must be at most {most}"));
        }
        if !self.listed.like_cdp {
            return None;
        }
        let text = wanted.query.get("query").map_or("", String::as_str);
        if text.chars().count() > 400 {
            return Some("query must have at most 400 characters".to_owned());
        }
        let mut names = wanted.query.keys();
        let unknown = names.find(|name| !known.contains(&name.as_str()))?;
        Some(format!("unknown parameter {unknown}"))
    }

    fn page(&self, wanted: &PageRequest, fault: Option<&BazaarFault>) -> Response<Body> {
        if let Some(reason) = self.refusal(wanted) {
            let body = json!({ "errorType": "invalid_request", "errorMessage": reason });
            let mut response = Response::new(Body::whole(body.to_string()));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        }
        let list = match wanted.path.as_str() {
            "/discovery/resources" => self.resources(wanted),
            "/discovery/search" if self.listed.search => self.search(wanted),
            "/.well-known/x402" => self.well_known(),
            "/openapi.json" => self.openapi(),
            "/v0.1/servers" | "/v0/servers" => self.servers(wanted),
            _ => return plain(StatusCode::NOT_FOUND, "the bazaar has no such list"),
        };
        let body = Body::whole(list.to_string());
        let body = match fault {
            Some(BazaarFault::Huge(length)) => body.padded(*length),
            Some(BazaarFault::Hangs) => body.hanging(),
            _ => body,
        };
        let mut response = Response::new(body);
        response
            .headers_mut()
            .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        response
    }

    /// Returns the items of a page, and the index of the next page's first item if there is a next page.
    fn paginate(&self, items: &[Value], wanted: &PageRequest) -> (Vec<Value>, Option<usize>) {
        match &self.listed.fault {
            Some(BazaarFault::Endless) => {
                let url = self
                    .base
                    .join(&format!("/endless/{}", wanted.start))
                    .unwrap_or_else(|_| self.base.clone());
                let item = json!({ "resource": url.as_str(), "type": "http", "accepts": [], "description": "endless",
                    "name": "endless", "remotes": [{ "type": "streamable-http", "url": url.as_str() }] });
                (vec![item], Some(wanted.start.saturating_add(1)))
            }
            Some(BazaarFault::Repeats) => (
                items.iter().take(self.listed.page).cloned().collect(),
                Some(wanted.start.saturating_add(1)),
            ),
            _ => {
                let limit = wanted
                    .query
                    .get("limit")
                    .and_then(|limit| limit.parse().ok())
                    .unwrap_or(20);
                let page: Vec<Value> = items
                    .iter()
                    .skip(wanted.start)
                    .take(self.listed.page.min(limit))
                    .cloned()
                    .collect();
                let next = wanted.start.saturating_add(page.len());
                (page, (next < items.len()).then_some(next))
            }
        }
    }

    fn resources(&self, wanted: &PageRequest) -> Value {
        let selected = |item: &&Value| {
            let equal = |name: &str, pointer: &str| match wanted.query.get(name) {
                Some(value) => item.pointer(pointer).and_then(Value::as_str) == Some(value),
                None => true,
            };
            equal("type", "/type") && equal("network", "/accepts/0/network")
        };
        let items: Vec<Value> = self.listed.items.iter().filter(selected).cloned().collect();
        let (page, _) = self.paginate(&items, wanted);
        let endless = matches!(
            self.listed.fault,
            Some(BazaarFault::Endless | BazaarFault::Repeats)
        );
        let total = if endless { usize::MAX } else { items.len() };
        let pagination = json!({ "limit": page.len(), "offset": wanted.start, "total": total });
        json!({ "x402Version": 2, "items": page, "pagination": pagination })
    }

    /// Returns the items that contain one of the words.
    fn search(&self, wanted: &PageRequest) -> Value {
        let words = wanted
            .query
            .get("query")
            .map(|query| query.to_lowercase())
            .unwrap_or_default();
        let fits = |item: &&Value| {
            let text = item.to_string().to_lowercase();
            words.split_whitespace().any(|word| text.contains(word))
        };
        let found: Vec<Value> = self.listed.items.iter().filter(fits).cloned().collect();
        let (page, next) = self.paginate(&found, wanted);
        let cursor = next.map(|next| next.to_string());
        json!({ "x402Version": 2, "resources": page, "pagination": { "limit": page.len(), "cursor": cursor } })
    }

    fn well_known(&self) -> Value {
        let urls: Vec<&Value> = self
            .listed
            .items
            .iter()
            .filter_map(|item| item.get("resource"))
            .collect();
        json!({ "version": 1, "resources": urls })
    }

    fn openapi(&self) -> Value {
        let mut paths: Map<String, Value> = Map::new();
        for (path, method, operation) in self.listed.items.iter().filter_map(operation) {
            let operations = paths.entry(path).or_insert_with(|| json!({}));
            if let Some(operations) = operations.as_object_mut() {
                operations.insert(method, operation);
            }
        }
        json!({ "openapi": "3.1.0", "info": { "title": "Listed", "version": "1" }, "paths": paths })
    }

    /// Returns the servers with the text in their name, as the official registry does.
    fn servers(&self, wanted: &PageRequest) -> Value {
        let search = wanted
            .query
            .get("search")
            .map(|text| text.to_lowercase())
            .unwrap_or_default();
        let name = |item: &Value| {
            item.pointer("/server/name")
                .or_else(|| item.get("name"))
                .cloned()
                .unwrap_or_default()
        };
        let fits = |item: &&Value| {
            search.is_empty() || name(item).to_string().to_lowercase().contains(&search)
        };
        let found: Vec<Value> = self.listed.servers.iter().filter(fits).cloned().collect();
        let (page, next) = self.paginate(&found, wanted);
        let mut metadata = json!({ "count": page.len() });
        if let (Some(metadata), Some(next)) = (metadata.as_object_mut(), next) {
            metadata.insert("nextCursor".to_owned(), next.to_string().into());
        }
        json!({ "servers": page, "metadata": metadata })
    }
}

/// Returns path, method and OpenAPI operation of an item. The operation has a price in dollars.
fn operation(item: &Value) -> Option<(String, String, Value)> {
    let url = Url::parse(item.get("resource")?.as_str()?).ok()?;
    let input = [
        "/extensions/bazaar/info/input/method",
        "/accepts/0/outputSchema/input/method",
    ];
    let method = input
        .iter()
        .find_map(|pointer| item.pointer(pointer)?.as_str())
        .unwrap_or("GET")
        .to_lowercase();
    let required =
        json!({ "x402Version": item.get("x402Version")?, "accepts": item.get("accepts")? });
    let required = PaymentRequired::from_json(required.to_string().as_bytes()).ok()?;
    let price = Quote::read(&required, 0, AssetRegistry::stablecoins())
        .ok()?
        .dollars()?;
    let price = json!({ "mode": "fixed", "currency": "USD", "amount": price.to_string() });
    let operation = json!({
        "summary": item.get("description"),
        "servers": [{ "url": url.origin().ascii_serialization() }],
        "x-payment-info": { "price": price, "protocols": [{ "x402": {} }] },
        "responses": { "402": { "description": "Payment Required" } },
    });
    Some((url.path().to_owned(), method, operation))
}
