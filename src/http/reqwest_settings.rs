//! The settings of reqwest that most programs use.

use std::net::SocketAddr;
use std::time::Duration;

use http::header::{HeaderMap, HeaderValue};

use super::builder::ClientBuilder;
use super::exchange::payment_header;

/// Settings of the HTTP client, named as reqwest names them. [`http`](ClientBuilder::http) replaces all that were made before
/// it.
impl ClientBuilder {
    fn map(
        mut self,
        change: impl FnOnce(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Self {
        self.http = change(self.http);
        self
    }

    /// Sets the `User-Agent` of all requests.
    #[must_use]
    pub fn user_agent<V>(self, value: V) -> Self
    where
        V: TryInto<HeaderValue>,
        V::Error: Into<http::Error>,
    {
        self.map(|http| http.user_agent(value))
    }

    /// Sets headers of all requests that do not have them. A payment header among them is an error of
    /// [`build`](Self::build).
    ///
    /// They go to every host. Use [`credentials`](Self::credentials) for the API key of one host.
    #[must_use]
    pub fn default_headers(mut self, headers: HeaderMap) -> Self {
        self.payment_header = payment_header(&headers).cloned();
        self.map(|http| http.default_headers(headers))
    }

    /// Sets how long a connection may take.
    #[must_use]
    pub fn connect_timeout(self, limit: Duration) -> Self {
        self.map(|http| http.connect_timeout(limit))
    }

    /// Sets how long each read of an answer may take. A pause between two pieces of a body may be as long.
    #[must_use]
    pub fn read_timeout(self, limit: Duration) -> Self {
        self.map(|http| http.read_timeout(limit))
    }

    /// Sets how long an idle connection stays open; `None` for ever.
    #[must_use]
    pub fn pool_idle_timeout(self, limit: impl Into<Option<Duration>>) -> Self {
        self.map(|http| http.pool_idle_timeout(limit))
    }

    /// Sets the most idle connections for each host.
    #[must_use]
    pub fn pool_max_idle_per_host(self, most: usize) -> Self {
        self.map(|http| http.pool_max_idle_per_host(most))
    }

    /// Sets the time between keepalive packets of TCP; `None` for none.
    #[must_use]
    pub fn tcp_keepalive(self, interval: impl Into<Option<Duration>>) -> Self {
        self.map(|http| http.tcp_keepalive(interval))
    }

    /// Sets `TCP_NODELAY`, which is on by default.
    #[must_use]
    pub fn tcp_nodelay(self, enabled: bool) -> Self {
        self.map(|http| http.tcp_nodelay(enabled))
    }

    /// Adds a proxy. Plain http goes through no proxy; see [`allow_http_loopback`](Self::allow_http_loopback).
    #[must_use]
    pub fn proxy(self, proxy: reqwest::Proxy) -> Self {
        self.map(|http| http.proxy(proxy))
    }

    /// Uses no proxy, also none of the environment.
    #[must_use]
    pub fn no_proxy(self) -> Self {
        self.map(reqwest::ClientBuilder::no_proxy)
    }

    /// Connects to this address for a domain, in place of the addresses of the resolver.
    #[must_use]
    pub fn resolve(self, domain: &str, address: SocketAddr) -> Self {
        self.map(|http| http.resolve(domain, address))
    }

    /// Trusts further root certificates, for example those of your company.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    #[must_use]
    pub fn tls_certs_merge(
        self,
        certificates: impl IntoIterator<Item = reqwest::Certificate>,
    ) -> Self {
        self.map(|http| http.tls_certs_merge(certificates))
    }

    /// Trusts these root certificates only.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    #[must_use]
    pub fn tls_certs_only(
        self,
        certificates: impl IntoIterator<Item = reqwest::Certificate>,
    ) -> Self {
        self.map(|http| http.tls_certs_only(certificates))
    }

    /// Uses HTTP/1 only.
    #[must_use]
    pub fn http1_only(self) -> Self {
        self.map(reqwest::ClientBuilder::http1_only)
    }

    /// Sets whether bodies may come compressed with gzip. They may by default, with the feature `gzip`.
    #[cfg(feature = "gzip")]
    #[must_use]
    pub fn gzip(self, enable: bool) -> Self {
        self.map(|http| http.gzip(enable))
    }
}
