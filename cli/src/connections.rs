//! The connections of a server on loopback. A program that has no token must not keep those out that have one.

use std::collections::VecDeque;
#[cfg(any(feature = "mcp-proxy", feature = "proxy"))]
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(any(feature = "mcp-proxy", feature = "proxy"))]
use hyper::body::{Body, Incoming};
#[cfg(any(feature = "mcp-proxy", feature = "proxy"))]
use hyper::{server::conn::http1, service::HttpService};
#[cfg(any(feature = "mcp-proxy", feature = "proxy"))]
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
#[cfg(any(feature = "mcp-proxy", feature = "proxy"))]
use tokio::{net::TcpStream, sync::watch};

/// The connections that are open, in the order in which they came.
pub(crate) struct Connections {
    most: usize,
    open: VecDeque<(Guest, AbortHandle)>,
}

/// A connection without a token so far.
#[derive(Clone, Default)]
pub(crate) struct Guest(Arc<AtomicBool>);

impl Guest {
    /// Notes that a request on the connection had the token.
    pub(crate) fn admit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_admitted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Connections {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            most,
            open: VecDeque::new(),
        }
    }

    /// Spawns the task of a connection if there is a place for it. Without a place, `spawn` is dropped with its stream, which
    /// closes the connection.
    pub(crate) fn open(&mut self, spawn: impl FnOnce(Guest) -> AbortHandle) {
        if self.has_place() {
            let guest = Guest::default();
            let task = spawn(guest.clone());
            self.open.push_back((guest, task));
        }
    }

    /// Returns whether there is a place for one more connection. The oldest one without a token gives its place up.
    fn has_place(&mut self) -> bool {
        self.open.retain(|(_, task)| !task.is_finished());
        if self.open.len() < self.most {
            return true;
        }
        let guest = self.open.iter().position(|(guest, _)| !guest.is_admitted());
        let Some((_, task)) = guest.and_then(|at| self.open.remove(at)) else {
            return false;
        };
        task.abort();
        true
    }
}

/// Serves one connection until it ends. After the stop it ends with the answer that it is writing.
#[cfg(any(feature = "mcp-proxy", feature = "proxy"))]
pub(crate) async fn serve_until_stop<S>(
    connection: http1::Connection<TokioIo<TcpStream>, S>,
    mut stopping: watch::Receiver<bool>,
) where
    S: HttpService<Incoming>,
    S::Error: Into<Box<dyn Error + Send + Sync>>,
    S::ResBody: Body + 'static,
    <S::ResBody as Body>::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // A client that left, or no HTTP: there is nobody to tell.
        ended = connection.as_mut() => drop(ended),
        _ = async { stopping.wait_for(|stopping| *stopping).await.is_ok() } => {
            connection.as_mut().graceful_shutdown();
            drop(connection.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_connection_without_a_token_gives_its_place_up() {
        let mut connections = Connections::new(2);
        let mut tasks = Vec::new();
        let mut open = |connections: &mut Connections, admitted: bool| {
            connections.open(|guest| {
                if admitted {
                    guest.admit();
                }
                let task = tokio::spawn(std::future::pending::<()>());
                let handle = task.abort_handle();
                tasks.push(task);
                handle
            });
        };
        for admitted in [true, false, true] {
            assert!(connections.has_place());
            open(&mut connections, admitted);
        }
        assert!(!connections.has_place());
        let ended = tasks.remove(1).await.unwrap_err();
        assert!(ended.is_cancelled());
        tasks.remove(0).abort();
        while !connections.has_place() {
            tokio::task::yield_now().await;
        }
    }
}
