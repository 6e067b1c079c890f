//! The JSON-RPC client of one endpoint, with limits on time and length.

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::origin::Origin;
use crate::text::excerpt;

/// The length of the longest answer that bursar reads, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
const JSON: &str = "application/json";

/// The JSON-RPC client of one endpoint. Its `Debug` shows only the origin, because the URL can hold
/// an API key.
pub(super) struct RpcClient {
    url: Url,
    origin: Origin,
    host: String,
    http: reqwest::Client,
}

/// The error of an endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The URL is not an http or https URL.
    #[error("a JSON-RPC endpoint is an http or https URL")]
    NotHttp,
    /// The HTTP client cannot be built, for instance because there are no trusted roots.
    #[error("the HTTP client cannot be built")]
    Client,
}

/// The error of an endpoint without a usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// There is no connection, or it broke.
    #[error("the endpoint cannot be reached")]
    Unreachable,
    /// There was no answer in time.
    #[error("the endpoint did not answer in time")]
    Timeout,
    /// The HTTP status is not 200. bursar does not follow redirects.
    #[error("the endpoint answered with status {0}")]
    Status(u16),
    /// The endpoint refuses so many requests in so short a time. bursar waited and asked again. The endpoint wants to wait
    /// for this time.
    #[error(
        "the endpoint limits the rate of requests; ask again later, or ask an endpoint with a higher limit"
    )]
    RateLimited(Duration),
    /// The answer is longer than 1 MiB.
    #[error("the endpoint's answer is too long")]
    TooLong,
    /// The node answered with an error.
    #[error(
        "the endpoint answered with error {code}: {}",
        crate::text::quoted(message)
    )]
    Node {
        /// The JSON-RPC error code.
        code: i64,
        /// The node's message: untrusted text of at most 160 characters.
        message: String,
    },
    /// The answer is not the JSON that the method returns.
    #[error("the endpoint's answer to {0} cannot be read")]
    Malformed(&'static str),
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Reply<T> {
    id: Value,
    // `null` means "not found" for some methods. An absent result is an error.
    #[serde(default = "Option::default", deserialize_with = "present")]
    result: Option<T>,
    error: Option<Failure>,
}

#[derive(Deserialize)]
struct Failure {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    message: String,
}

fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl RpcClient {
    pub(super) fn new(url: Url) -> Result<Self, EndpointError> {
        let origin = Origin::of(&url).ok_or(EndpointError::NotHttp)?;
        let host = format!("{}:{}", origin.host(), origin.port());
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let http = http.build().map_err(|_| EndpointError::Client)?;
        Ok(Self {
            url,
            origin,
            host,
            http,
        })
    }

    /// Returns the host and port. Endpoints that differ in them are different.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
        limit: Duration,
    ) -> Result<T, RpcError> {
        let request =
            json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let (status, body) = tokio::time::timeout(limit, self.post(request))
            .await
            .map_err(|_| RpcError::Timeout)??;
        if status != 200 {
            // Some providers refuse a range of blocks with status 400, and name a smaller one in the body.
            return Err(match failure(&body, method) {
                error @ RpcError::Node { .. } if matches!(status, 400..=499) => error,
                error @ RpcError::RateLimited(_) => error,
                _ => RpcError::Status(status),
            });
        }
        let reply: Reply<T> = serde_json::from_slice(&body).map_err(|_| failure(&body, method))?;
        match (reply.error, reply.result) {
            (Some(error), _) => Err(error.into()),
            (None, Some(result)) if reply.id == 1 => Ok(result),
            _ => Err(RpcError::Malformed(method)),
        }
    }

    async fn post(&self, request: String) -> Result<(u16, Vec<u8>), RpcError> {
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, JSON)
            .header(ACCEPT, JSON)
            .body(request);
        let mut response = request.send().await.map_err(|_| RpcError::Unreachable)?;
        let status = response.status().as_u16();
        if status == 429 {
            let wait = response.headers().get(RETRY_AFTER);
            let seconds = wait.and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
            return Err(RpcError::RateLimited(Duration::from_secs(
                seconds.unwrap_or(0),
            )));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| RpcError::Unreachable)? {
            if chunk.len() > MAX_ANSWER.saturating_sub(body.len()) {
                return Err(RpcError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

/// Returns the error in an answer without a readable result. Some nodes also send a `null` result.
fn failure(body: &[u8], method: &'static str) -> RpcError {
    #[derive(Deserialize)]
    struct Refusal {
        error: Failure,
    }
    serde_json::from_slice::<Refusal>(body)
        .map_or(RpcError::Malformed(method), |refusal| refusal.error.into())
}

impl From<Failure> for RpcError {
    fn from(failure: Failure) -> Self {
        let text = failure.message.to_ascii_lowercase();
        let rate = [
            "rate limit",
            "request rate",
            "too many requests",
            "per second",
            "compute units",
            "throughput",
        ];
        if failure.code == 429 || rate.iter().any(|words| text.contains(words)) {
            return Self::RateLimited(Duration::ZERO);
        }
        Self::Node {
            code: failure.code,
            message: excerpt(&failure.message),
        }
    }
}

impl fmt::Debug for RpcClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.origin)
    }
}
