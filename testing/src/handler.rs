//! Answers that depend on the request, and gates that hold back parts of an answer.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::Value;
use tokio::sync::watch;

use crate::answer::Delay;
use crate::body::{Body, Pace};
use crate::payment::ReceivedRequest;
use crate::route::header;

/// A function of the request.
pub(crate) struct Handler<T>(Arc<dyn Fn(&ReceivedRequest) -> T + Send + Sync>);

impl<T> Handler<T> {
    pub(crate) fn new(function: impl Fn(&ReceivedRequest) -> T + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    pub(crate) fn call(&self, request: &ReceivedRequest) -> T {
        (self.0)(request)
    }
}

impl<T> Clone for Handler<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Handler<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handler")
    }
}

/// The answer of a [`Route::respond`](crate::Route::respond) handler. Its status is 200 unless you set one.
///
/// A mistake, such as an invalid header, makes the answer a 500 that names the mistake.
///
/// ```
/// use bursar_testing::Answer;
/// use serde_json::json;
///
/// let found = Answer::json(json!({ "id": 7 })).header("x-version", "2");
/// let missing = Answer::new("no such page").status(404);
/// let stream = Answer::events([r#"{"n":1}"#, r#"{"n":2}"#, "[DONE]"]);
/// ```
#[derive(Clone, Debug)]
#[must_use = "an answer does nothing until a handler returns it"]
pub struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    delay: Option<Duration>,
    mistake: Option<String>,
}

impl Answer {
    /// Returns an answer with this body.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self::of(Body::whole(body))
    }

    /// Returns an answer with a JSON body and its content type.
    pub fn json(body: impl Borrow<Value>) -> Self {
        Self::new(body.borrow().to_string()).header(CONTENT_TYPE.as_str(), "application/json")
    }

    /// Returns an answer with a body in chunks, without a `Content-Length`.
    pub fn chunks<T: Into<Bytes>>(chunks: impl IntoIterator<Item = T>) -> Self {
        Self::of(Body::chunked(chunks.into_iter().map(Into::into)))
    }

    /// Returns an answer of server-sent events with these data, one event in each chunk.
    pub fn events<T: fmt::Display>(data: impl IntoIterator<Item = T>) -> Self {
        let events = data.into_iter().map(|data| format!("data: {data}\n\n"));
        Self::chunks(events).header(CONTENT_TYPE.as_str(), "text/event-stream")
    }

    fn of(body: Body) -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body,
            delay: None,
            mistake: None,
        }
    }

    /// Sets the status. The paywall settles no payment for an answer with status 400 or above.
    pub fn status(mut self, status: u16) -> Self {
        match StatusCode::from_u16(status) {
            Ok(status) => self.status = status,
            Err(_) => self.mistake = Some(format!("{status} is not an HTTP status")),
        }
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match header(name, value) {
            Ok((name, value)) => drop(self.headers.append(name, value)),
            Err(mistake) => self.mistake = Some(mistake),
        }
        self
    }

    /// Sends the head of the answer only after this time.
    pub fn delay(mut self, time: Duration) -> Self {
        self.delay = Some(time);
        self
    }

    /// Waits for this time before each chunk but the first.
    pub fn pause(mut self, time: Duration) -> Self {
        self.body = self.body.paced(Pace::Every(time));
        self
    }

    /// Sends only the chunks that the gate lets through.
    pub fn gate(mut self, gate: &Gate) -> Self {
        self.body = self.body.paced(gate.pace());
        self
    }

    pub(crate) fn into_response(self) -> Response<Body> {
        if let Some(mistake) = self.mistake {
            let mut response = Response::new(Body::whole(mistake));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            let text = HeaderValue::from_static("text/plain");
            response.headers_mut().insert(CONTENT_TYPE, text);
            return response;
        }
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Some(time) = self.delay {
            response.extensions_mut().insert(Delay(time));
        }
        response
    }
}

/// Holds back the chunks of an answer until the test lets them through.
///
/// Use it to show that a client reads a stream before it is complete. A new gate is closed. Every answer behind the gate
/// counts its own chunks. When the last clone of a gate is dropped, its answers flow.
///
/// ```
/// use bursar_testing::{Answer, Gate, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let gate = Gate::closed();
/// let held = gate.clone();
/// let route = Route::get("/news").respond(move |_| Answer::events(["one", "two"]).gate(&held));
/// let seller = Paywall::builder().route(route).start().await?;
/// let http = bursar::Client::builder().allow_http_loopback(true).build()?;
///
/// let mut news = http.get(seller.url("/news")).send().await?;
/// gate.open(1);
/// assert_eq!(news.chunk().await?.unwrap(), "data: one\n\n");
/// gate.open_all();
/// assert_eq!(news.text().await?, "data: two\n\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Gate(watch::Sender<usize>);

impl Gate {
    /// Returns a gate that lets no chunk through.
    #[must_use]
    pub fn closed() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Lets the next `chunks` chunks of each answer through.
    pub fn open(&self, chunks: usize) {
        self.0
            .send_modify(|open| *open = open.saturating_add(chunks));
    }

    /// Lets every chunk through from now on.
    pub fn open_all(&self) {
        self.0.send_replace(usize::MAX);
    }

    pub(crate) fn pace(&self) -> Pace {
        Pace::Gated(self.0.subscribe())
    }
}
