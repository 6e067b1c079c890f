//! The JSON-RPC client of one endpoint, with limits on time and length.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
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
    party: String,
    http: reqwest::Client,
    /// The chain that the endpoint belongs to, once it said so.
    pub(super) chain_id: OnceLock<u64>,
}

/// The error of an endpoint that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The URL is not an http or https URL.
    #[error("a JSON-RPC endpoint is an http or https URL")]
    NotHttp,
    /// The URL has plain http, and its host is not this machine's loopback. Anybody on the way could forge the answers.
    #[error("plain http is for a JSON-RPC endpoint on this machine's loopback only; use https")]
    Insecure,
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
    /// `operator` names the party that answers. The default is the party of the host.
    pub(super) fn new(url: Url, operator: Option<&str>) -> Result<Self, EndpointError> {
        let origin = Origin::of(&url).ok_or(EndpointError::NotHttp)?;
        let mut http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        if origin.is_loopback() {
            // A proxy of the environment may be on another host, and a resolver may send the name to one.
            http = http.no_proxy().dns_resolver(Arc::new(LoopbackOnly));
        } else if origin.scheme() != "https" {
            return Err(EndpointError::Insecure);
        }
        Ok(Self {
            url,
            host: format!("{}:{}", origin.host(), origin.port()),
            party: operator.map_or_else(|| party(&origin), named),
            origin,
            http: http.build().map_err(|_| EndpointError::Client)?,
            chain_id: OnceLock::new(),
        })
    }

    /// Returns the host and port.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the name of the party that answers. Endpoints of one party are one witness.
    pub(super) fn party(&self) -> &str {
        &self.party
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

/// Returns the party that answers for a host: its registrable domain, the network of its address, or this machine.
fn party(origin: &Origin) -> String {
    if origin.is_loopback() {
        return "loopback".to_owned();
    }
    match origin.address() {
        // The smallest networks that are routed, and therefore assigned to one party.
        Some(IpAddr::V4(address)) => {
            let [first, second, third, _] = address.octets();
            format!("{first}.{second}.{third}.0/24")
        }
        Some(IpAddr::V6(address)) => {
            let [first, second, third, ..] = address.segments();
            format!("{first:x}:{second:x}:{third:x}::/48")
        }
        None => origin.registrable_domain().to_owned(),
    }
}

fn named(operator: &str) -> String {
    format!("operator {}", operator.trim().to_lowercase())
}

/// A resolver for names of this machine's loopback. It refuses a name that has any other address.
struct LoopbackOnly;

impl Resolve for LoopbackOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if !is_loopback(&found) {
                return Err(
                    "the name has an address that is not of this machine's loopback".into(),
                );
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

fn is_loopback(found: &[SocketAddr]) -> bool {
    let mut addresses = found.iter().map(|address| address.ip().to_canonical());
    addresses.all(|address| address.is_loopback())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str) -> Result<RpcClient, EndpointError> {
        RpcClient::new(url.parse().unwrap(), None)
    }

    #[test]
    fn endpoints_of_one_operator_are_one_party() {
        for (one, other, same) in [
            ("https://a.example", "https://a.example:8545/other", true),
            ("https://a.example", "https://A.EXAMPLE./", true),
            (
                "https://base.provider.com/v2/key",
                "https://eth.eu.provider.com/",
                true,
            ),
            ("https://a.provider.co.uk", "https://b.provider.co.uk", true),
            (
                "https://www.食狮.公司.cn",
                "https://xn--85x722f.xn--55qx5d.cn",
                true,
            ),
            ("https://a.provider.co.uk", "https://a.other.co.uk", false),
            ("https://provider.com", "https://provider.org", false),
            ("https://a.example", "https://b.example", false),
            ("https://192.0.2.1", "https://192.0.2.9:1", true),
            ("https://192.0.2.1", "https://[::ffff:192.0.2.9]", true),
            ("https://192.0.2.1", "https://198.51.100.1", false),
            ("https://[2001:db8:1::1]", "https://[2001:db8:1:2::2]", true),
            ("https://[2001:db8:1::1]", "https://[2001:db8:2::1]", false),
            ("http://127.0.0.1:1", "http://127.0.0.1:2", true),
            ("http://127.0.0.1:1", "http://127.9.9.9:1", true),
            ("http://127.0.0.1:1", "http://[::1]:1", true),
            ("http://127.0.0.1:1", "http://[::ffff:127.0.0.1]:1", true),
            ("http://127.0.0.1:1", "http://localhost:1", true),
            ("http://127.0.0.1:1", "https://node.localhost:1", true),
            ("http://127.0.0.1:1", "https://a.example", false),
        ] {
            let [one, other] = [one, other].map(|url| client(url).unwrap());
            assert_eq!(one.party == other.party, same, "{one:?} {other:?}");
        }
        let named =
            |name| RpcClient::new("http://127.0.0.1:1".parse().unwrap(), Some(name)).unwrap();
        assert_ne!(named("a").party, named("b").party);
        assert_eq!(named("Node A").party, named(" node a").party);
        assert_ne!(
            named("loopback").party,
            client("http://127.0.0.1:1").unwrap().party
        );
    }

    #[test]
    fn plain_http_is_for_loopback_only() {
        for url in [
            "http://a.example",
            "http://10.0.0.1:8545",
            "http://192.168.1.1",
            "http://[fe80::1]",
            "http://0.0.0.0:8545",
            "http://[::]:8545",
            "http://localhost.example",
            "http://notlocalhost",
            "http://127.0.0.1.example",
            "http://node:8545",
        ] {
            assert_eq!(client(url).unwrap_err(), EndpointError::Insecure, "{url}");
        }
        for url in [
            "http://localhost",
            "http://node.localhost",
            "http://127.1:8545",
            "http://0x7f.1",
            "http://[::1]:8545",
            "https://a.example",
        ] {
            assert!(client(url).is_ok(), "{url}");
        }
        for url in ["ftp://127.0.0.1", "ws://127.0.0.1", "file:///node.ipc"] {
            assert_eq!(client(url).unwrap_err(), EndpointError::NotHttp, "{url}");
        }
    }

    #[test]
    fn a_node_whose_loopback_name_has_another_address_is_refused() {
        let found = |addresses: &[&str]| -> Vec<SocketAddr> {
            addresses.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert!(is_loopback(&found(&[
            "127.0.0.1:0",
            "[::1]:0",
            "[::ffff:127.0.0.2]:0"
        ])));
        for others in [
            &["192.0.2.2:0"][..],
            &["127.0.0.1:0", "192.0.2.2:0"],
            &["[::ffff:192.0.2.2]:0"],
            &["0.0.0.0:0"],
        ] {
            assert!(!is_loopback(&found(others)), "{others:?}");
        }
    }
}
