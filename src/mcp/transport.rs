//! MCP over streamable HTTP, sent by bursar's client, which pays an endpoint that answers 402.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use alloy::primitives::B256;
use bytes::Bytes;
use futures_core::Stream;
use futures_core::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use reqwest::Response;
use rmcp::model::{ClientJsonRpcMessage, JsonRpcMessage, ServerJsonRpcMessage};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::http_header::{
    EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE,
};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, SseError, StreamableHttpClient, StreamableHttpClientTransportConfig,
    StreamableHttpError, StreamableHttpPostResponse,
};
use sse_stream::{Sse, SseStream};
use tokio::time::Instant;

use super::beneath::Beneath;
use crate::error::{Error, ErrorKind};
use crate::http::{Client, RequestBuilder};
use crate::ledger::PurchaseId;
use crate::payment::{PaymentRecord, retry_after};
use crate::policy::{Denial, PriceOutcome, Rule};
use crate::request::{PurchaseOptions, PurchaseRequest, TOOL_CALL};

/// The longest message, as a body or as an event.
const LONGEST: usize = 4 * 1024 * 1024;
/// The most bytes of all events in the answer to one message.
const LONGEST_ANSWER: usize = 16 * 1024 * 1024;
/// The longest excerpt of an error body that is not a message.
const EXCERPT: usize = 1024;
/// The largest number of purchases that wait for their call in a new session.
const MOST_LOST: usize = 64;
/// How long such a purchase waits: no longer than a payment is valid.
const KEPT_LOST: Duration = Duration::from_secs(600);
const BOTH: &str = "application/json, text/event-stream";

/// Returns an `rmcp` transport to the endpoint, whose requests `client` sends and pays for.
///
/// # Errors
/// When the text is not an `http` or `https` URL.
pub fn connect(
    client: &Client,
    endpoint: &str,
) -> Result<StreamableHttpClientTransport<HttpClient>, Error> {
    super::Server::at(endpoint)?;
    let config = StreamableHttpClientTransportConfig::with_uri(endpoint);
    let client = HttpClient::from(client.clone());
    Ok(StreamableHttpClientTransport::with_client(client, config))
}

/// bursar's client as `rmcp`'s HTTP client, for a transport with your own settings.
///
/// ```
/// use bursar::mcp::HttpClient;
///
/// let client = HttpClient::from(bursar::Client::builder().build()?);
/// # Ok::<(), bursar::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client,
    /// The purchases whose session was lost at the paid request, by the fingerprint of the call.
    lost: Arc<Mutex<VecDeque<(B256, PurchaseId, Instant)>>>,
}

impl From<Client> for HttpClient {
    fn from(client: Client) -> Self {
        Self {
            client,
            lost: Arc::default(),
        }
    }
}

/// bursar's error, as `rmcp` passes it on.
#[derive(Debug)]
pub struct TransportError(Arc<Error>);

impl TransportError {
    /// Returns the same error for the caller of the tool.
    pub(super) fn again(&self) -> Error {
        self.0.twin()
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for TransportError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

type Failure = StreamableHttpError<TransportError>;

fn client(error: Error) -> Failure {
    StreamableHttpError::Client(TransportError(Arc::new(error)))
}

impl HttpClient {
    fn request(
        &self,
        method: Method,
        uri: &str,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> RequestBuilder {
        let mut request = self.client.request(method, uri);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if let Some(session) = session {
            request = request.header(HEADER_SESSION_ID, session.as_ref());
        }
        match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }
}

impl HttpClient {
    fn lost(&self) -> MutexGuard<'_, VecDeque<(B256, PurchaseId, Instant)>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The options of a message. A call whose session was lost continues its purchase.
    fn options(
        &self,
        beneath: Option<&Beneath>,
        call: impl FnOnce() -> Option<B256>,
        pays: bool,
    ) -> PurchaseOptions {
        if !pays {
            return PurchaseOptions::new().no_payment();
        }
        let options = beneath.map_or_else(PurchaseOptions::new, |call| call.options.clone());
        let mut lost = self.lost();
        lost.retain(|(.., since)| since.elapsed() < KEPT_LOST);
        let call = if lost.is_empty() { None } else { call() };
        let at = lost.iter().position(|(known, ..)| Some(*known) == call);
        match at.and_then(|at| lost.remove(at)) {
            Some((_, purchase, _)) if matches!(options.id(), Ok(None)) => {
                options.purchase_id(purchase.as_str())
            }
            Some(_) => options,
            // A server that asks for money with every message gets it once for a call.
            None if beneath.is_some_and(|call| !call.payments().is_empty()) => options.no_payment(),
            None => options,
        }
    }

    /// Notes that the session was lost at a paid request. `rmcp` sends the message again in a new session.
    fn lose(&self, call: B256, purchase: &PurchaseId) {
        let mut lost = self.lost();
        lost.push_back((call, purchase.clone(), Instant::now()));
        if lost.len() > MOST_LOST {
            lost.pop_front();
        }
    }
}

/// The error of a 402 to a message that bursar does not pay for.
fn not_paid(method: &str) -> Error {
    let message = format!(
        "the MCP server asks for a payment for `{method}`; bursar pays for `{TOOL_CALL}` only, unless the policy names \
         the method with `mcp_methods` or `Policy::pay_mcp_method`"
    );
    Error::denied(Box::new(Denial::new(Rule::Permission, message)))
        .with_status(StatusCode::PAYMENT_REQUIRED)
}

impl StreamableHttpClient for HttpClient {
    type Error = TransportError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let attached = session.is_some();
        let (waits, method) = match &message {
            ClientJsonRpcMessage::Request(request) => (true, request.request.method().to_owned()),
            ClientJsonRpcMessage::Notification(_) => (false, "a notification".to_owned()),
            _ => (false, "an answer of the client".to_owned()),
        };
        let pays = match self.client.payer() {
            Some(payer) => payer.policy().pays_mcp_method(&method),
            None => method == TOOL_CALL,
        };
        let beneath = Beneath::of(&message);
        let body = Bytes::from(serde_json::to_vec(&message)?);
        // Only a call whose session was lost needs it.
        let call = || {
            PurchaseRequest::new("POST", &uri, &body)
                .ok()
                .map(|request| request.fingerprint())
        };
        let request = self.request(Method::POST, &uri, session, token, headers);
        let request = request
            .header(ACCEPT, BOTH)
            .header(CONTENT_TYPE, JSON_MIME_TYPE)
            .body(body.clone())
            .options(self.options(beneath.as_ref(), call, pays));
        let request = match beneath.as_ref().and_then(|beneath| beneath.end) {
            Some(end) => request.timeout(end.saturating_duration_since(Instant::now())),
            None => request,
        };
        let response = match &beneath {
            Some(beneath) if beneath.quotes => match request.quote().await.map_err(client)? {
                PriceOutcome::Unpriced(response) => response,
                PriceOutcome::Priced(price) => {
                    beneath.set_price(price);
                    return Err(client(not_paid(&method)));
                }
            },
            _ => request.send().await.map_err(client)?,
        };
        if !pays && response.status() == StatusCode::PAYMENT_REQUIRED {
            return Err(client(not_paid(&method).at(response.url())));
        }
        let record = crate::http::record(&response).cloned();
        if let (Some(beneath), Some(record)) = (&beneath, &record) {
            beneath.add(record.clone());
        }
        let own = response.extensions().get().cloned();
        // The answer to a call of `PaidTools` ends with that call.
        let limit = match &beneath {
            Some(_) => Duration::MAX,
            None => super::ANSWER_TIMEOUT,
        };
        let reading = read_post(response, waits, attached);
        let reading = Box::pin(tokio::time::timeout(limit, reading));
        let read = crate::text::guarding_again(own, reading).await;
        let read = read.unwrap_or_else(|_| {
            let message = format!("the answer is not complete after {} s", limit.as_secs());
            Err(client(Error::new(ErrorKind::Timeout, message)))
        });
        if let (Err(StreamableHttpError::SessionExpired), Some(record)) = (&read, &record)
            && let Some(call) = call()
        {
            self.lose(call, &record.payment().purchase);
        }
        read.map_err(|failure| attribute(record.as_ref(), failure))
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<(), Failure> {
        let request = self.request(Method::DELETE, &uri, Some(session), token, headers);
        // Ending a session is not worth a payment.
        let response = request.no_payment().send().await.map_err(client)?;
        let status = response.status();
        if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED {
            return Ok(());
        }
        Err(unexpected(status, ""))
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let mut request = self
            .request(Method::GET, &uri, session, token, headers)
            .header(ACCEPT, BOTH);
        if let Some(last) = last_event {
            request = request.header(HEADER_LAST_EVENT_ID, last);
        }
        // The stream of notifications is not worth a payment.
        let response = request.no_payment().send().await.map_err(client)?;
        let status = response.status();
        if matches!(
            status,
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::PAYMENT_REQUIRED
        ) {
            return Err(StreamableHttpError::ServerDoesNotSupportSse);
        }
        if !status.is_success() {
            return Err(denied(&response).unwrap_or_else(|| unexpected(status, "")));
        }
        if !is_type(&response, EVENT_STREAM_MIME_TYPE) {
            return Err(StreamableHttpError::UnexpectedContentType(content_type(
                &response,
            )));
        }
        // Notifications may come as long as the session lasts.
        Ok(events(response, usize::MAX))
    }
}

/// Reads the answer to a message.
async fn read_post(
    response: Response,
    waits: bool,
    attached: bool,
) -> Result<StreamableHttpPostResponse, Failure> {
    let status = response.status();
    if matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT)
        || (!waits && status.is_success())
    {
        return Ok(StreamableHttpPostResponse::Accepted);
    }
    if status == StatusCode::NOT_FOUND && attached {
        return Err(StreamableHttpError::SessionExpired);
    }
    let session = response
        .headers()
        .get(HEADER_SESSION_ID)
        .and_then(|id| id.to_str().ok())
        .map(ToOwned::to_owned);
    if status.is_success() && is_type(&response, EVENT_STREAM_MIME_TYPE) {
        return Ok(StreamableHttpPostResponse::Sse(
            events(response, LONGEST_ANSWER),
            session,
        ));
    }
    let json = is_type(&response, JSON_MIME_TYPE);
    if !status.is_success() {
        return refused(response, json, session, attached).await;
    }
    if !json {
        return Err(StreamableHttpError::UnexpectedContentType(content_type(
            &response,
        )));
    }
    let body = read(response, LONGEST).await?;
    Ok(StreamableHttpPostResponse::Json(
        serde_json::from_slice(&body)?,
        session,
    ))
}

/// Attributes a failure to the payment of the endpoint's response, if there is one.
fn attribute(record: Option<&PaymentRecord>, failure: Failure) -> Failure {
    let Some(record) = record else {
        return failure;
    };
    match failure {
        // `rmcp` begins a new session.
        StreamableHttpError::SessionExpired => failure,
        StreamableHttpError::Client(error) => client(record.fail(error.again())),
        other => {
            let message = crate::text::excerpt(&other.to_string());
            client(record.fail(Error::new(ErrorKind::Transport, message)))
        }
    }
}

/// Reads an error status, with a message in its body or with words.
async fn refused(
    response: Response,
    json: bool,
    session: Option<String>,
    attached: bool,
) -> Result<StreamableHttpPostResponse, Failure> {
    if let Some(denied) = denied(&response) {
        return Err(denied);
    }
    let (status, wait) = (response.status(), retry_after(response.headers()));
    if let Some(advice) = crate::http::redirect_advice(&response) {
        let message = format!("the answer is {status}, {advice}");
        return Err(client(
            Error::new(ErrorKind::Transport, message).with_status(status),
        ));
    }
    let body = read(response, if json { LONGEST } else { EXCERPT })
        .await
        .unwrap_or_default();
    let words = String::from_utf8_lossy(&body);
    // The official server examples answer 400 when they do not know the session.
    if status == StatusCode::BAD_REQUEST && attached && names_session(&words) {
        return Err(StreamableHttpError::SessionExpired);
    }
    if let Ok(message @ JsonRpcMessage::Error(_)) =
        serde_json::from_slice::<ServerJsonRpcMessage>(&body)
    {
        return Ok(StreamableHttpPostResponse::Json(message, session));
    }
    match wait {
        None => Err(unexpected(status, &words)),
        // `rmcp`'s own error has no place for the time to wait.
        Some(_) => {
            let message = format!("HTTP {status} {}", crate::text::excerpt(&words));
            let error = Error::new(ErrorKind::Transport, message).with_status(status);
            Err(client(error.with_retry_after(wait)))
        }
    }
}

/// Whether the words of an error say that the server does not know the session.
fn names_session(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    words.contains("session")
        && [
            "not found",
            "unknown",
            "expired",
            "invalid",
            "no valid",
            "does not exist",
        ]
        .iter()
        .any(|known| words.contains(known))
}

fn denied(response: &Response) -> Option<Failure> {
    let challenge = response
        .headers()
        .get(WWW_AUTHENTICATE)?
        .to_str()
        .ok()?
        .to_owned();
    (response.status() == StatusCode::UNAUTHORIZED)
        .then(|| StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge)))
}

fn unexpected(status: StatusCode, body: &str) -> Failure {
    let body = crate::text::excerpt(body);
    StreamableHttpError::UnexpectedServerResponse(Cow::Owned(format!("HTTP {status} {body}")))
}

fn content_type(response: &Response) -> Option<String> {
    response
        .headers()
        .get(CONTENT_TYPE)?
        .to_str()
        .ok()
        .map(crate::text::excerpt)
}

fn is_type(response: &Response, wanted: &str) -> bool {
    let found = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    found
        .split(';')
        .next()
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case(wanted))
}

/// Reads a body of at most `most` bytes.
async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    let broken = |error| client(Error::http(error));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if body.len().saturating_add(chunk.len()) > most {
            return Err(StreamableHttpError::ResponseBodyTooLarge { max_size: most });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn events(response: Response, left: usize) -> BoxStream<'static, Result<Sse, SseError>> {
    let record = crate::http::record(&response).cloned();
    let bounded = Bounded {
        record,
        bytes: Box::pin(response.bytes_stream()),
        left,
        event: 0,
        last: 0,
    };
    Box::pin(SseStream::from_bytes_stream(bounded))
}

/// A stream of events whose length is bounded.
struct Bounded<S> {
    /// The payment of the response, for the errors of the stream.
    record: Option<PaymentRecord>,
    bytes: Pin<Box<S>>,
    /// The bytes that may still come.
    left: usize,
    /// The bytes of the present event.
    event: usize,
    /// The byte before. An empty line ends an event.
    last: u8,
}

impl<S: Stream<Item = reqwest::Result<Bytes>>> Stream for Bounded<S> {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.bytes.as_mut().poll_next(cx) else {
            return Poll::Pending;
        };
        let attributed = |error: Error, record: &Option<PaymentRecord>| match record {
            Some(record) => record.fail(error),
            None => error,
        };
        Poll::Ready(match next {
            None => None,
            Some(Err(error)) => Some(Err(attributed(Error::http(error), &self.record))),
            Some(Ok(chunk)) => {
                for byte in chunk.iter().filter(|byte| **byte != b'\r') {
                    let ends = *byte == b'\n' && self.last == b'\n';
                    self.event = if ends {
                        0
                    } else {
                        self.event.saturating_add(1)
                    };
                    self.last = *byte;
                }
                let left = self.left.checked_sub(chunk.len());
                self.left = left.unwrap_or(0);
                let message = match left {
                    _ if self.event > LONGEST => format!("an event is longer than {LONGEST} bytes"),
                    None => {
                        format!("the events of an answer are longer than {LONGEST_ANSWER} bytes")
                    }
                    Some(_) => return Poll::Ready(Some(Ok(chunk))),
                };
                let long = Error::new(ErrorKind::Malformed, message);
                Some(Err(attributed(long, &self.record)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16, headers: &[(&str, &str)], body: &'static str) -> Response {
        let mut response = http::Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        response.body(body).unwrap().into()
    }

    #[tokio::test]
    async fn the_time_to_wait_reaches_the_caller_of_the_tool() {
        let busy = response(503, &[("retry-after", "7")], "busy");
        let Err(StreamableHttpError::Client(error)) = read_post(busy, true, false).await else {
            panic!("no error of bursar's client")
        };
        let error = error.again();
        assert_eq!(
            (error.kind(), error.retry_after(), error.status()),
            (
                ErrorKind::Transport,
                Some(Duration::from_secs(7)),
                Some(StatusCode::SERVICE_UNAVAILABLE)
            )
        );
        let plain = read_post(response(503, &[], "busy"), true, false).await;
        assert!(matches!(
            plain,
            Err(StreamableHttpError::UnexpectedServerResponse(_))
        ));
    }
}
