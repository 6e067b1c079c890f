//! An MCP server over HTTP whose list of tools, or whose answers, have no end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// The way in which the server does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endless {
    /// Each page names another one.
    Pages,
    /// The second page names itself.
    SamePage,
    /// Each page has 1,000 tools.
    Tools,
    /// Each page has a tool with a description of 2 MiB.
    Descriptions,
    /// Each page has a tool with a schema of 2 MiB.
    Schemas,
    /// The list is one body of spaces.
    Bytes,
    /// The list is a stream of notifications.
    Notifications,
    /// The list is a body that stops and does not end.
    Silence,
    /// The answer to `initialize` stops and does not end.
    Handshake,
    /// Every session is lost at its first list.
    Sessions,
    /// It lists one tool, in one byte for each chunk, and ends.
    Nothing,
}

/// A server of [`Endless`] lists.
#[derive(Clone)]
pub struct EndlessTools {
    how: Endless,
    lists: Arc<AtomicUsize>,
    sessions: Arc<AtomicUsize>,
}

impl EndlessTools {
    /// Starts a server. Returns its address too.
    pub async fn open(how: Endless) -> (Self, SocketAddr) {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self {
            how,
            lists: Arc::default(),
            sessions: Arc::default(),
        };
        let answering = server.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = answering.clone();
                let answer = service_fn(move |request| server.clone().answer(request));
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
                tokio::spawn(async move { drop(connection.await) });
            }
        });
        (server, address)
    }

    /// Returns the number of requests for a page of the list.
    pub fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }

    /// Returns the number of sessions.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::SeqCst)
    }

    async fn answer(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        if *request.method() != Method::POST {
            let mut refusal = Response::new(whole(""));
            *refusal.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
            return Ok(refusal);
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let message: Value = serde_json::from_slice(&body).unwrap();
        let Some(id) = message.get("id").cloned() else {
            let mut accepted = Response::new(whole(""));
            *accepted.status_mut() = StatusCode::ACCEPTED;
            return Ok(accepted);
        };
        let method = message["method"].as_str();
        if method == Some("initialize") {
            self.sessions.fetch_add(1, Ordering::SeqCst);
        }
        let result = match method {
            Some("initialize") if self.how == Endless::Handshake => {
                return Ok(json_body(Drip::silent()));
            }
            Some("initialize") => json!({
                "protocolVersion": "2025-06-18",
                "capabilities": { "tools": {} },
                "serverInfo": { "name": "endless", "version": "1" },
            }),
            Some("tools/list") => {
                let number = self.lists.fetch_add(1, Ordering::SeqCst);
                match self.how {
                    Endless::Bytes => return Ok(json_body(Drip::endless(" "))),
                    Endless::Silence => return Ok(json_body(Drip::silent())),
                    Endless::Notifications => {
                        let progress = "event: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/tools/list_changed\"}\n\n";
                        return Ok(response(
                            "text/event-stream",
                            Drip::endless(progress).boxed(),
                        ));
                    }
                    Endless::Sessions => {
                        let mut lost = Response::new(whole(""));
                        *lost.status_mut() = StatusCode::NOT_FOUND;
                        return Ok(lost);
                    }
                    how => page(how, number),
                }
            }
            _ => {
                let error = json!({ "code": -32601, "message": "not found" });
                let answer = json!({ "jsonrpc": "2.0", "id": id, "error": error });
                return Ok(json_body(Drip::of(answer.to_string())));
            }
        };
        let answer = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
        let mut response = match self.how {
            Endless::Nothing => json_body(Drip::of(answer)),
            _ => response("application/json", whole(&answer)),
        };
        if self.how == Endless::Sessions {
            let name = format!("session-{}", self.sessions());
            let headers = response.headers_mut();
            headers.insert("mcp-session-id", name.parse().unwrap());
        }
        Ok(response)
    }
}

fn page(how: Endless, number: usize) -> Value {
    let long = || "x".repeat(2 * 1024 * 1024);
    let tool = |name: String| json!({ "name": name, "inputSchema": { "type": "object" } });
    let name = format!("tool-{number}");
    let tools = match how {
        Endless::Tools => (0..1000)
            .map(|each| tool(format!("{name}-{each}")))
            .collect(),
        Endless::Descriptions => {
            vec![
                json!({ "name": name, "description": long(), "inputSchema": { "type": "object" } }),
            ]
        }
        Endless::Schemas => {
            vec![
                json!({ "name": name, "inputSchema": { "type": "object", "description": long() } }),
            ]
        }
        _ => vec![tool(name)],
    };
    let next = match how {
        Endless::Nothing => Value::Null,
        Endless::SamePage => json!("again"),
        _ => json!(format!("page-{number}")),
    };
    let mut page = json!({ "tools": tools });
    if !next.is_null() {
        page["nextCursor"] = next;
    }
    page
}

fn whole(text: &str) -> BoxBody<Bytes, Infallible> {
    Full::new(Bytes::copy_from_slice(text.as_bytes())).boxed()
}

fn json_body(body: Drip) -> Response<BoxBody<Bytes, Infallible>> {
    response("application/json", body.boxed())
}

fn response(
    kind: &'static str,
    body: BoxBody<Bytes, Infallible>,
) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(body);
    let kind = hyper::header::HeaderValue::from_static(kind);
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}

/// A body in small chunks.
struct Drip {
    chunks: Box<dyn Iterator<Item = Bytes> + Send + Sync>,
    /// Whether the body goes on without bytes after the last chunk.
    hangs: bool,
}

impl Drip {
    /// Repeats a text for ever, in chunks of 100 of them.
    fn endless(text: &str) -> Self {
        Self {
            chunks: Box::new(std::iter::repeat(Bytes::from(text.repeat(100)))),
            hangs: false,
        }
    }

    fn silent() -> Self {
        Self {
            chunks: Box::new(std::iter::once(Bytes::from_static(b" "))),
            hangs: true,
        }
    }

    fn of(text: String) -> Self {
        let bytes = Bytes::from(text);
        Self {
            chunks: Box::new(
                bytes
                    .into_iter()
                    .map(|byte| Bytes::copy_from_slice(&[byte])),
            ),
            hangs: false,
        }
    }
}

impl Body for Drip {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.chunks.next() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            // Nothing wakes the connection: the client has to give up.
            None if self.hangs => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}
