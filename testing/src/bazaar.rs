//! A place where services are listed, on loopback: honest or not.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use super::answer::{plain, redirect};
use super::body::Body;
use super::payment::Received;
use bursar::clock::{Clock, SystemClock};
use bursar::money::AssetRegistry;
use bursar::x402::{PaymentRequired, Quote};

/// A list of services on `127.0.0.1`, on a port that the system chose. It stops when dropped.
///
/// It answers as a facilitator's bazaar (`/discovery/resources`, `/discovery/search`), as an origin's
/// `/.well-known/x402` and `/openapi.json`, and as an MCP registry (`/v0.1/servers`, `/v0/servers`).
///
/// ```
/// use bursar_testing::{Bazaar, Paywall, Route};
/// use bursar::{Client, Ledger, LocalSigner, Policy, usd};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let seller = Paywall::builder().route(Route::get("/weather").price(usd!("0.01")).body("sunny")).start().await?;
/// let bazaar = Bazaar::builder().item(seller.advertisement("/weather", "tomorrow's weather")).start().await?;
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
    shelf: Arc<Shelf>,
    base: Url,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

/// How a list misbehaves, in everything that it answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BazaarFault {
    /// Every page has something new and names another.
    Endless,
    /// Every page is the first, and names another.
    Repeats,
    /// Every answer has so many bytes, most of them spaces.
    Huge(usize),
    /// Answers begin and never end.
    Hangs,
    /// Every request is redirected with 307.
    Redirects(Url),
    /// Every request is answered with this status.
    Status(u16),
}

impl Bazaar {
    /// Builds a list.
    pub fn builder() -> BazaarBuilder {
        BazaarBuilder::default()
    }

    /// The URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(path);
        url
    }

    /// Every request that came, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.shelf
            .received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Builds a [`Bazaar`].
#[derive(Clone, Debug)]
#[must_use = "a bazaar lists nothing until it is started"]
pub struct BazaarBuilder {
    items: Vec<Value>,
    servers: Vec<Value>,
    page: usize,
    search: bool,
    fault: Option<BazaarFault>,
}

impl Default for BazaarBuilder {
    fn default() -> Self {
        Self {
            items: Vec::new(),
            servers: Vec::new(),
            page: 100,
            search: true,
            fault: None,
        }
    }
}

impl BazaarBuilder {
    /// Adds an item, such as [`Paywall::advertisement`](super::Paywall::advertisement) makes. It may be
    /// anything that is JSON: junk is listed as it is.
    pub fn item(mut self, item: Value) -> Self {
        self.items.push(item);
        self
    }

    /// Adds an MCP server with this endpoint.
    pub fn mcp_server(self, name: &str, description: &str, url: &str) -> Self {
        let remote = json!({ "type": "streamable-http", "url": url });
        let server = json!({ "name": name, "description": description, "version": "1.0.0", "remotes": [remote] });
        let official = json!({ "status": "active", "isLatest": true });
        self.server(json!({ "server": server, "_meta": { "io.modelcontextprotocol.registry/official": official } }))
    }

    /// Adds an element of the registry's `servers`; it may be anything that is JSON.
    pub fn server(mut self, server: Value) -> Self {
        self.servers.push(server);
        self
    }

    /// How many items a page has at most; 100 unless set.
    pub fn page_size(mut self, items: usize) -> Self {
        self.page = items;
        self
    }

    /// Has no `/discovery/search`, as many facilitators.
    pub fn without_search(mut self) -> Self {
        self.search = false;
        self
    }

    /// Misbehaves so.
    pub fn fault(mut self, fault: BazaarFault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Opens the list.
    ///
    /// # Errors
    /// When no port can be had.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub async fn start(self) -> io::Result<Bazaar> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let base =
            Url::parse(&format!("http://{}", listener.local_addr()?)).map_err(io::Error::other)?;
        let shelf = Arc::new(Shelf {
            listed: self,
            base: base.clone(),
            received: Mutex::default(),
        });
        let mut server = JoinSet::new();
        drop(server.spawn(serve(listener, Arc::clone(&shelf))));
        Ok(Bazaar {
            shelf,
            base,
            _server: server,
        })
    }
}

/// What is listed, and who asked.
#[derive(Debug)]
struct Shelf {
    listed: BazaarBuilder,
    base: Url,
    received: Mutex<Vec<Received>>,
}

async fn serve(listener: TcpListener, shelf: Arc<Shelf>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&shelf)))),
                // Out of file descriptors, or the visitor has gone again.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shelf: Arc<Shelf>) {
    let service = service_fn(|request| {
        let shelf = Arc::clone(&shelf);
        async move { Ok::<_, io::Error>(shelf.answer(request)) }
    });
    // It ends with an error when the visitor goes away, which is no news here.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

/// What a request asks for.
struct Asked {
    path: String,
    query: BTreeMap<String, String>,
    /// Of the first item.
    start: usize,
}

impl Shelf {
    fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, _) = request.into_parts();
        let received = Received::new(head, Bytes::new(), SystemClock.now());
        let asked = self.asked(&received);
        self.received
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(received);
        match &self.listed.fault {
            Some(BazaarFault::Status(status)) => plain(
                StatusCode::from_u16(*status).unwrap_or(StatusCode::BAD_GATEWAY),
                "there is no list today",
            ),
            Some(BazaarFault::Redirects(to)) => redirect(307, to),
            fault => self.page(&asked, fault.as_ref()),
        }
    }

    fn asked(&self, received: &Received) -> Asked {
        let url = self
            .base
            .join(&received.target)
            .unwrap_or_else(|_| self.base.clone());
        let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
        let number = |name: &str| query.get(name).and_then(|text| text.parse().ok());
        let start = number("offset")
            .or_else(|| number("cursor"))
            .unwrap_or_default();
        Asked {
            path: url.path().to_owned(),
            start,
            query,
        }
    }

    fn page(&self, asked: &Asked, fault: Option<&BazaarFault>) -> Response<Body> {
        let found = match asked.path.as_str() {
            "/discovery/resources" => self.resources(asked),
            "/discovery/search" if self.listed.search => self.search(asked),
            "/.well-known/x402" => self.well_known(),
            "/openapi.json" => self.openapi(),
            "/v0.1/servers" | "/v0/servers" => self.servers(asked),
            _ => return plain(StatusCode::NOT_FOUND, "the bazaar has no such list"),
        };
        let body = Body::whole(found.to_string());
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

    /// The items of a page, and where the next begins if there is one.
    fn cut(&self, items: &[Value], asked: &Asked) -> (Vec<Value>, Option<usize>) {
        match &self.listed.fault {
            Some(BazaarFault::Endless) => {
                let url = self
                    .base
                    .join(&format!("/endless/{}", asked.start))
                    .unwrap_or_else(|_| self.base.clone());
                let item = json!({ "resource": url.as_str(), "type": "http", "accepts": [], "description": "endless",
                    "name": "endless", "remotes": [{ "type": "streamable-http", "url": url.as_str() }] });
                (vec![item], Some(asked.start.saturating_add(1)))
            }
            Some(BazaarFault::Repeats) => (
                items.iter().take(self.listed.page).cloned().collect(),
                Some(asked.start.saturating_add(1)),
            ),
            _ => {
                let limit = asked
                    .query
                    .get("limit")
                    .and_then(|limit| limit.parse().ok())
                    .unwrap_or(20);
                let page: Vec<Value> = items
                    .iter()
                    .skip(asked.start)
                    .take(self.listed.page.min(limit))
                    .cloned()
                    .collect();
                let next = asked.start.saturating_add(page.len());
                (page, (next < items.len()).then_some(next))
            }
        }
    }

    fn resources(&self, asked: &Asked) -> Value {
        let wanted = |item: &&Value| {
            let of = |name: &str, pointer: &str| match asked.query.get(name) {
                Some(wanted) => item.pointer(pointer).and_then(Value::as_str) == Some(wanted),
                None => true,
            };
            of("type", "/type") && of("network", "/accepts/0/network")
        };
        let items: Vec<Value> = self.listed.items.iter().filter(wanted).cloned().collect();
        let (page, _) = self.cut(&items, asked);
        let endless = matches!(
            self.listed.fault,
            Some(BazaarFault::Endless | BazaarFault::Repeats)
        );
        let total = if endless { usize::MAX } else { items.len() };
        let pagination = json!({ "limit": page.len(), "offset": asked.start, "total": total });
        json!({ "x402Version": 2, "items": page, "pagination": pagination })
    }

    /// The items in which any of the words stands.
    fn search(&self, asked: &Asked) -> Value {
        let words = asked
            .query
            .get("query")
            .map(|query| query.to_lowercase())
            .unwrap_or_default();
        let fits = |item: &&Value| {
            let text = item.to_string().to_lowercase();
            words.split_whitespace().any(|word| text.contains(word))
        };
        let found: Vec<Value> = self.listed.items.iter().filter(fits).cloned().collect();
        let (page, next) = self.cut(&found, asked);
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
            let entry = paths.entry(path).or_insert_with(|| json!({}));
            if let Some(entry) = entry.as_object_mut() {
                entry.insert(method, operation);
            }
        }
        json!({ "openapi": "3.1.0", "info": { "title": "Listed", "version": "1" }, "paths": paths })
    }

    /// By a text in the name, as the official registry.
    fn servers(&self, asked: &Asked) -> Value {
        let search = asked
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
        let (page, next) = self.cut(&found, asked);
        let mut metadata = json!({ "count": page.len() });
        if let (Some(metadata), Some(next)) = (metadata.as_object_mut(), next) {
            metadata.insert("nextCursor".to_owned(), next.to_string().into());
        }
        json!({ "servers": page, "metadata": metadata })
    }
}

/// An item as an operation of an OpenAPI document: its path, its method, and what it costs in dollars.
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
