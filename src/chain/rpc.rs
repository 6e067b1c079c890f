//! One JSON-RPC endpoint: a question, and a bounded answer.

use std::fmt;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use url::Url;

use crate::Origin;
use crate::text::excerpt;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
const JSON: &str = "application/json";

/// Where a chain can be asked. URLs hold API keys, so that only the origin is shown.
pub(super) struct RpcClient {
    url: Url,
    origin: Origin,
    host: String,
    http: reqwest::Client,
}

/// An endpoint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// Not an http or https URL.
    #[error("a JSON-RPC endpoint is an http or https URL")]
    NotHttp,
    /// The HTTP client cannot be built, for instance for want of trusted roots.
    #[error("the HTTP client cannot be built")]
    Client,
}

/// An endpoint gave no usable answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// No connection, or it broke.
    #[error("the endpoint cannot be reached")]
    Unreachable,
    /// No answer in time.
    #[error("the endpoint did not answer in time")]
    Timeout,
    /// An HTTP status other than 200. Redirects are not followed.
    #[error("the endpoint answered with status {0}")]
    Status(u16),
    /// An answer of more than 1 MiB.
    #[error("the endpoint's answer is too long")]
    TooLong,
    /// The node answered with an error.
    #[error("the endpoint answered with error {code}: {message}")]
    Node {
        /// JSON-RPC's code.
        code: i64,
        /// The node's words; untrusted text of at most 160 characters.
        message: String,
    },
    /// Not the JSON that the method answers with.
    #[error("the endpoint's answer to {0} cannot be read")]
    Malformed(&'static str),
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
struct Reply<T> {
    id: Value,
    // An absent result is no result; one of `null` is "not found" where the method allows it.
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

    /// Host and port, which make an endpoint another.
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
        let body = tokio::time::timeout(limit, self.post(request))
            .await
            .map_err(|_| RpcError::Timeout)??;
        let reply: Reply<T> = serde_json::from_slice(&body).map_err(|_| failure(&body, method))?;
        match (reply.error, reply.result) {
            (Some(error), _) => Err(error.into()),
            (None, Some(result)) if reply.id == 1 => Ok(result),
            _ => Err(RpcError::Malformed(method)),
        }
    }

    async fn post(&self, request: String) -> Result<Vec<u8>, RpcError> {
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, JSON)
            .header(ACCEPT, JSON)
            .body(request);
        let mut response = request.send().await.map_err(|_| RpcError::Unreachable)?;
        if response.status() != 200 {
            return Err(RpcError::Status(response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|_| RpcError::Unreachable)? {
            if chunk.len() > MAX_ANSWER.saturating_sub(body.len()) {
                return Err(RpcError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}

/// What an answer without a readable result says: an error, beside a `null` result perhaps, or
/// nothing that can be read.
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
