//! Plain http, which goes to the loopback addresses of this machine only, and through no proxy.
//!
//! A proxy of the environment, or one that the caller set, would see a payment header in clear. A name such as
//! `shop.localhost` can have any address. So the connection decides, and not the name in the URL.

use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::client::legacy::connect::{Connected, Connection, HttpInfo};
use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tower_layer::Layer;
use tower_service::Service;

use crate::error::{Error, InsecureConnection};

/// How long a connection to this machine may take. A name with an address elsewhere could wait for minutes.
const CONNECT: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Whether the address belongs to the loopback of this machine.
pub(super) fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Returns the builder with the rule for plain http, and whether the client may have a proxy.
///
/// https is not changed. Without a proxy, the client's own connector and resolver make the connection. With a proxy, the
/// connector of another client makes it, which has no proxy.
///
/// # Errors
/// When reqwest cannot start.
pub(super) fn guarded(http: ClientBuilder) -> Result<(ClientBuilder, bool), Error> {
    if !may_have_proxy(&http) {
        return Ok((http.connector_layer(Guard { direct: None }), false));
    }
    let taken = Taken::default();
    let other = ClientBuilder::new()
        .no_proxy()
        .dns_resolver(LoopbackOnly)
        .connector_layer(taken.clone());
    // It never uses TLS, and does not load the roots of the system.
    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    let other = other.tls_certs_only([]);
    other.build().map_err(Error::http)?;
    let direct = taken
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if direct.is_none() {
        return Err(Error::builder("reqwest made no connector for plain http"));
    }
    Ok((http.connector_layer(Guard { direct }), true))
}

/// Whether the builder, or the environment, may name a proxy. reqwest shows the proxies of a builder in its `Debug` text
/// only. Where this misses one, [`check`] refuses the connection.
fn may_have_proxy(http: &ClientBuilder) -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
        .into_iter()
        .any(set)
        || format!("{http:?}").contains("proxies:")
}

/// Keeps a copy of the connector of a client.
#[derive(Clone)]
struct Taken<S>(Arc<Mutex<Option<S>>>);

impl<S> Default for Taken<S> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<S: Clone> Layer<S> for Taken<S> {
    type Service = S;

    fn layer(&self, connector: S) -> S {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *taken = Some(connector.clone());
        connector
    }
}

/// Adds a [`Guarded`] connector to a client.
#[derive(Clone)]
struct Guard<S> {
    direct: Option<S>,
}

impl<S: Clone> Layer<S> for Guard<S> {
    type Service = Guarded<S>;

    fn layer(&self, connector: S) -> Guarded<S> {
        Guarded(Arc::new(Connectors {
            direct: self.direct.clone().unwrap_or_else(|| connector.clone()),
            connector,
        }))
    }
}

/// Connects plain http by `direct`, and checks the connection before anything is sent on it.
///
/// reqwest clones it for each request, and most requests open no connection.
struct Guarded<S>(Arc<Connectors<S>>);

struct Connectors<S> {
    connector: S,
    direct: S,
}

impl<S> Clone for Guarded<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, To> Service<To> for Guarded<S>
where
    To: fmt::Debug + Send + 'static,
    S: Service<To, Error = BoxError> + Clone + Send + 'static,
    S::Response: Connection + Send,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, to: To) -> Self::Future {
        // reqwest hides the type of the destination, but not its text. Anything that is not clearly https is checked.
        if format!("{to:?}").contains("https://") {
            return Box::pin(connect(self.0.connector.clone(), to));
        }
        let connecting = connect(self.0.direct.clone(), to);
        Box::pin(async move {
            let Ok(connection) = tokio::time::timeout(CONNECT, connecting).await else {
                let message = format!("this machine accepted no connection in {CONNECT:?}");
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message).into());
            };
            let connection = connection?;
            check(&connection.connected())?;
            Ok(connection)
        })
    }
}

async fn connect<S: Service<To>, To>(mut connector: S, to: To) -> Result<S::Response, S::Error> {
    poll_fn(|cx| connector.poll_ready(cx)).await?;
    connector.call(to).await
}

/// Checks the other end of a connection for plain http.
fn check(connected: &Connected) -> Result<(), InsecureConnection> {
    if connected.is_proxied() {
        return Err(InsecureConnection::new(
            "plain http would go through a proxy, which sees everything",
        ));
    }
    let mut extras = http::Extensions::new();
    connected.get_extras(&mut extras);
    // A socket of the file system has no address. It is on this machine.
    match extras.get::<HttpInfo>().map(HttpInfo::remote_addr) {
        Some(peer) if !is_loopback(peer.ip()) => Err(elsewhere()),
        _ => Ok(()),
    }
}

fn elsewhere() -> InsecureConnection {
    InsecureConnection::new(
        "the name has an address that is no loopback address of this machine, and plain http goes nowhere else",
    )
}

/// Resolves names that have loopback addresses only.
struct LoopbackOnly;

impl Resolve for LoopbackOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let found: Vec<SocketAddr> = found.collect();
            if found.iter().all(|address| is_loopback(address.ip())) {
                Ok(Box::new(found.into_iter()) as Addrs)
            } else {
                Err(elsewhere().into())
            }
        })
    }
}
