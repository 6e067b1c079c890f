//! MCP servers that sell the routes of a paywall as tools, in the dialects of real servers.

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use crate::answer::Reply;
use crate::body::Body;
use crate::headers::{PAYMENT_REQUIRED, PAYMENT_SIGNATURE, RECEIPTS, X_PAYMENT};
use crate::payment::ReceivedRequest;
use crate::seller::Seller;
use crate::server::{Listener, answer_requests, read_body};

/// The longest message that a tool server reads, in bytes.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
const SESSION: &str = "mcp-session-id";

/// How a [`ToolServer`] asks for a payment, and where it reads one.
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{Dialect, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let seller = Paywall::builder()
///     .route(Route::get("/square").price(usd!("0.01")).body("4"))
///     .start()
///     .await?;
/// let tools = seller.tools(Dialect::Cloudflare).await?;
/// assert_eq!(tools.url().path(), "/mcp");
/// // Connect your agent to `tools.url()`, and let it call the tool `square`.
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dialect {
    /// x402's MCP transport: terms in `structuredContent`, an object under `_meta["x402/payment"]`.
    Standard,
    /// Terms in a text alone, an object under `_meta["x402/payment"]`.
    Text,
    /// Cloudflare's `withX402`: terms in a text and in `_meta["x402/error"]`, base64 text under `_meta["x402/payment"]`.
    Cloudflare,
    /// As `Cloudflare`, with terms in the text alone and an ordinary resource, so that a client cannot tell it apart.
    CloudflareText,
    /// The npm package `x402-mcp`: terms in a text alone, base64 text under `_meta["x402.payment"]`. Its routes have
    /// version 1.
    X402Mcp,
    /// A JSON-RPC error with this code. The terms are its `data`, or the member of `data` with this name.
    Error(i32, Option<&'static str>),
    /// The draft SEP-2007: error -32402, terms in `data.payment[]`. It reads `params.payment`, and no `_meta`.
    Sep2007,
    /// The endpoint answers HTTP 402, and the payment is a header. A route `/initialize` or `/tools/list` makes the server
    /// charge for that method too.
    Http,
}

/// An MCP server over streamable HTTP on `127.0.0.1`. Start it with [`Paywall::tools`](crate::Paywall::tools).
///
/// Each tool is a route of the paywall: the tool `square` is the route `/square`. The paywall verifies and settles, and its
/// faults apply. The server stops when it is dropped.
#[derive(Debug)]
pub struct ToolServer {
    url: Url,
    shared: Arc<Shared>,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

struct Shared {
    seller: Arc<Seller>,
    dialect: Dialect,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    messages: Vec<Value>,
    listed: Vec<Value>,
    session: u32,
    /// The status that reports the loss of the session at the next paid request.
    loses: Option<u16>,
    receipts_are_text: bool,
    /// The result of every call, instead of the paywall's.
    fixed: Option<Value>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("dialect", &self.dialect)
            .finish_non_exhaustive()
    }
}

impl ToolServer {
    pub(crate) async fn start(seller: Arc<Seller>, dialect: Dialect) -> io::Result<Self> {
        let listener = Listener::bind().await?;
        let url = listener.url().join("mcp").map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            seller,
            dialect,
            state: Mutex::default(),
        });
        let server = {
            let shared = Arc::clone(&shared);
            listener.serve(move |stream| serve(stream, Arc::clone(&shared)))
        };
        Ok(Self {
            url,
            shared,
            _server: server,
        })
    }

    /// Returns the URL of the endpoint.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Returns every JSON-RPC message of clients, oldest first. They contain signatures.
    #[must_use]
    pub fn messages(&self) -> Vec<Value> {
        self.shared.state().messages.clone()
    }

    /// Returns the `params` of every call of a tool, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        let calls = self.messages().into_iter();
        calls
            .filter(|message| at(message, "/method") == "tools/call")
            .map(|message| at(&message, "/params").clone())
            .collect()
    }

    /// Adds a tool to the list, as JSON. Without any, the list has the routes of the paywall.
    pub fn list(&self, tool: Value) {
        self.shared.state().listed.push(tool);
    }

    /// Answers every call of a tool with this result, as JSON, and asks the paywall nothing.
    pub fn answer_with(&self, result: Value) {
        self.shared.state().fixed = Some(result);
    }

    /// Loses its session at the next paid request: settles, forgets the session, and answers with this status, 404 or 400,
    /// and with the receipt in a header if the dialect is [`Http`](Dialect::Http).
    pub fn lose_session(&self, status: u16) {
        self.shared.state().loses = Some(status);
    }

    /// Writes the receipts in `_meta` as base64 text.
    pub fn write_receipts_as_text(&self) {
        self.shared.state().receipts_are_text = true;
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    answer_requests(stream, |request| answer(request, Arc::clone(&shared))).await;
}

/// The paywall's answer to a request of a route.
struct Sold {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Sold {
    /// Decodes a header that is base64 of JSON.
    fn header(&self, name: &http::HeaderName) -> Option<Value> {
        let value = self.headers.get(name)?;
        serde_json::from_slice(&STANDARD.decode(value).ok()?).ok()
    }

    fn terms(&self) -> Option<Value> {
        matches!(
            self.status,
            StatusCode::PAYMENT_REQUIRED | StatusCode::PRECONDITION_FAILED
        )
        .then(|| {
            self.header(&PAYMENT_REQUIRED)
                .or_else(|| serde_json::from_slice(&self.body).ok())
        })
        .flatten()
    }

    fn receipt(&self) -> Option<Value> {
        RECEIPTS.iter().find_map(|name| self.header(name))
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    if head.method != Method::POST {
        let allowed = head.method == Method::DELETE;
        return Ok(empty(if allowed { 200 } else { 405 }));
    }
    let body = read_body(body, MAX_MESSAGE).await?;
    let message: Value = serde_json::from_slice(&body)?;
    let method = at(&message, "/method")
        .as_str()
        .unwrap_or_default()
        .to_owned();
    shared.state().messages.push(message.clone());
    let session = head.headers.get(SESSION).cloned();
    if method != "initialize" && session != Some(shared.session()) {
        return Ok(rpc_error(404, &message, -32001, "Session not found"));
    }
    let mut receipt = None;
    if shared.dialect == Dialect::Http {
        let path = match at(&message, "/params/name").as_str() {
            Some(name) if method == "tools/call" => format!("/{name}"),
            _ => format!("/{method}"),
        };
        if shared.sells(&path) {
            let pays = head.headers.contains_key(PAYMENT_SIGNATURE)
                || head.headers.contains_key(X_PAYMENT);
            let sold = shared.sell(&head, &path, None).await?;
            if sold.status != StatusCode::OK {
                let mut refusal = Response::new(Body::whole(sold.body));
                *refusal.status_mut() = sold.status;
                *refusal.headers_mut() = sold.headers;
                return Ok(refusal);
            }
            receipt = RECEIPTS.iter().find_map(|name| {
                let value = sold.headers.get(name)?;
                Some((name.clone(), value.clone()))
            });
            if let Some(status) = shared.lost(pays) {
                let mut lost = rpc_error(status, &message, -32001, "Session not found");
                lost.headers_mut().extend(receipt);
                return Ok(lost);
            }
            if method == "tools/call" {
                let result = json!({ "content": [text(&sold.body)] });
                return Ok(with_headers(rpc(&message, "result", result), receipt));
            }
        }
    }
    if message.get("id").is_none() {
        return Ok(empty(202));
    }
    let mut response = match method.as_str() {
        "initialize" => {
            shared.new_session();
            let result = json!({
                "protocolVersion": at(&message, "/params/protocolVersion"),
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "tools", "version": "1" },
            });
            let mut response = rpc(&message, "result", result);
            response.headers_mut().insert(SESSION, shared.session());
            response
        }
        "tools/list" => rpc(&message, "result", json!({ "tools": shared.tools() })),
        "tools/call" => shared.call(&head, &message).await?,
        "ping" => rpc(&message, "result", json!({})),
        _ => rpc_error(200, &message, -32601, "Method not found"),
    };
    response.headers_mut().extend(receipt);
    Ok(response)
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_session(&self) {
        let mut state = self.state();
        state.session = state.session.wrapping_add(1);
    }

    fn session(&self) -> HeaderValue {
        HeaderValue::from(self.state().session)
    }

    fn sells(&self, path: &str) -> bool {
        self.seller
            .routes
            .iter()
            .any(|(route, _)| route.path == path)
    }

    /// Returns the status of a lost session, if the request was paid and the session is to be lost.
    fn lost(&self, paid: bool) -> Option<u16> {
        let mut state = self.state();
        let status = if paid { state.loses.take() } else { None }?;
        state.session = state.session.wrapping_add(1);
        Some(status)
    }

    fn tools(&self) -> Vec<Value> {
        let listed = self.state().listed.clone();
        if !listed.is_empty() {
            return listed;
        }
        let routes = self.seller.routes.iter();
        let names = routes.map(|(route, _)| route.path.trim_start_matches('/'));
        names
            .map(|name| json!({ "name": name, "inputSchema": { "type": "object" } }))
            .collect()
    }

    /// Asks the paywall for a route, with a payment in base64.
    async fn sell(&self, head: &Parts, path: &str, payment: Option<&str>) -> io::Result<Sold> {
        let mut request = Request::get(path).body(()).map_err(io::Error::other)?;
        *request.headers_mut() = head.headers.clone();
        if let Some(payment) = payment {
            let version = STANDARD.decode(payment).ok();
            let version = version.and_then(|json| serde_json::from_slice::<Value>(&json).ok());
            let first = version.is_some_and(|payment| at(&payment, "/x402Version") == 1);
            let name = if first { X_PAYMENT } else { PAYMENT_SIGNATURE };
            let value = HeaderValue::from_str(payment).map_err(io::Error::other)?;
            request.headers_mut().insert(name, value);
        }
        let received =
            ReceivedRequest::new(request.into_parts().0, Bytes::new(), self.seller.now());
        let Reply::Answer(response) = self.seller.answer(&received) else {
            // The answer is lost.
            return pending().await;
        };
        let (head, body) = response.into_parts();
        Ok(Sold {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.map_err(io::Error::other)?.to_bytes(),
        })
    }

    /// Returns the payment of a call in base64, if it is where this dialect reads it.
    fn payment(&self, params: &Value) -> Option<String> {
        let value = match self.dialect {
            Dialect::X402Mcp => at(params, "/_meta/x402.payment"),
            Dialect::Sep2007 => at(params, "/payment"),
            _ => at(params, "/_meta/x402~1payment"),
        };
        let reads_text = matches!(
            self.dialect,
            Dialect::Cloudflare | Dialect::CloudflareText | Dialect::X402Mcp
        );
        match value {
            Value::String(text) if reads_text => Some(text.clone()),
            Value::Object(_) if !reads_text => Some(STANDARD.encode(value.to_string())),
            _ => None,
        }
    }

    async fn call(&self, head: &Parts, message: &Value) -> io::Result<Response<Body>> {
        let fixed = self.state().fixed.clone();
        if let Some(result) = fixed {
            return Ok(rpc(message, "result", result));
        }
        let params = at(message, "/params");
        let name = at(params, "/name").as_str().unwrap_or_default();
        let payment = self.payment(params);
        let sold = self
            .sell(head, &format!("/{name}"), payment.as_deref())
            .await?;
        if let Some(status) = self.lost(payment.is_some() && sold.status == StatusCode::OK) {
            return Ok(rpc_error(status, message, -32001, "Session not found"));
        }
        let (mut result, mut meta) = (json!({ "content": [text(&sold.body)] }), Map::new());
        if let Some(mut terms) = sold.terms() {
            if payment.is_none() {
                let words = match self.dialect {
                    Dialect::X402Mcp => "_meta.x402.payment is required",
                    Dialect::Cloudflare | Dialect::CloudflareText => "PAYMENT_REQUIRED",
                    _ => "Payment required",
                };
                set(&mut terms, "error", words);
            }
            if self.dialect == Dialect::Cloudflare {
                let resource = json!({
                    "url": format!("x402://{name}"), "description": name, "mimeType": "application/json",
                });
                set(&mut terms, "resource", resource);
                meta.insert("x402/error".to_owned(), terms.clone());
            }
            match self.dialect {
                Dialect::Error(code, None) => return Ok(demand(message, code, terms)),
                Dialect::Error(code, Some(member)) => {
                    return Ok(demand(message, code, json!({ member: terms })));
                }
                Dialect::Sep2007 => {
                    let list =
                        json!({ "payment": [{ "protocol": "x402", "paymentRequired": terms }] });
                    return Ok(demand(message, -32402, list));
                }
                _ => {}
            }
            result = json!({ "isError": true, "content": [text(terms.to_string().as_bytes())] });
            if self.dialect == Dialect::Standard {
                set(&mut result, "structuredContent", terms);
            }
        } else if !sold.status.is_success() {
            set(&mut result, "isError", true);
        }
        if let Some(receipt) = sold.receipt() {
            let name = match self.dialect {
                Dialect::X402Mcp => "x402.payment-response",
                _ => "x402/payment-response",
            };
            let value = if self.state().receipts_are_text {
                STANDARD.encode(receipt.to_string()).into()
            } else {
                receipt
            };
            meta.insert(name.to_owned(), value);
        }
        if !meta.is_empty() {
            set(&mut result, "_meta", meta);
        }
        Ok(rpc(message, "result", result))
    }
}

/// Returns the value at a JSON pointer, or `null`.
fn at<'v>(value: &'v Value, pointer: &str) -> &'v Value {
    value.pointer(pointer).unwrap_or(&Value::Null)
}

/// Sets a member of an object.
fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if let Some(members) = object.as_object_mut() {
        members.insert(key.to_owned(), value.into());
    }
}

fn text(text: &[u8]) -> Value {
    json!({ "type": "text", "text": String::from_utf8_lossy(text) })
}

fn rpc(message: &Value, member: &str, value: Value) -> Response<Body> {
    let answer = json!({ "jsonrpc": "2.0", "id": at(message, "/id"), member: value });
    let mut response = Response::new(Body::whole(answer.to_string()));
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

fn demand(message: &Value, code: i32, data: Value) -> Response<Body> {
    let error = json!({ "code": code, "message": "Payment required", "data": data });
    rpc(message, "error", error)
}

fn rpc_error(status: u16, message: &Value, code: i32, words: &str) -> Response<Body> {
    let mut response = rpc(message, "error", json!({ "code": code, "message": words }));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
    response
}

fn with_headers(
    mut response: Response<Body>,
    headers: Option<(http::HeaderName, HeaderValue)>,
) -> Response<Body> {
    response.headers_mut().extend(headers);
    response
}

fn empty(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::whole(Bytes::new()));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    response
}
