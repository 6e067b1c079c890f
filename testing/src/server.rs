//! HTTP/1.1 servers on loopback.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use crate::body::Body;

/// A listening socket on `127.0.0.1`.
pub(crate) struct Listener {
    socket: TcpListener,
    url: Url,
}

impl Listener {
    /// Binds a port that the operating system chooses.
    pub(crate) async fn bind() -> io::Result<Self> {
        Self::bind_port(0).await
    }

    /// Binds this port, or one that the operating system chooses if it is 0.
    pub(crate) async fn bind_port(port: u16) -> io::Result<Self> {
        let socket = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        let url = format!("http://{}", socket.local_addr()?);
        let url = Url::parse(&url).map_err(io::Error::other)?;
        Ok(Self { socket, url })
    }

    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// Runs `connection` for every connection until the returned set is dropped. Dropping it aborts all connections.
    pub(crate) fn serve<F>(
        self,
        connection: impl Fn(TcpStream) -> F + Send + 'static,
    ) -> JoinSet<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut server = JoinSet::new();
        drop(server.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = self.socket.accept() => match accepted {
                        Ok((stream, _)) => drop(connections.spawn(connection(stream))),
                        // No file descriptor is left, or the client has disconnected already.
                        Err(_) => tokio::task::yield_now().await,
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        }));
        server
    }
}

/// Answers the requests of one connection until either side closes it.
pub(crate) async fn answer_requests<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: impl Fn(Request<Incoming>) -> F,
) where
    F: Future<Output = io::Result<Response<Body>>>,
{
    let connection =
        http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    // An error means that the client disconnected or that a fault broke the connection. Both are expected.
    drop(connection.await);
}

/// Reads a request body of at most `limit` bytes.
pub(crate) async fn read_body(body: Incoming, limit: usize) -> io::Result<Bytes> {
    let read = Limited::new(body, limit).collect().await;
    Ok(read.map_err(io::Error::other)?.to_bytes())
}
