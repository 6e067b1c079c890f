//! HTTP/1.1 on loopback.

use std::future::pending;
use std::io;
use std::sync::Arc;

use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::answer::Reply;
use super::body::Body;
use super::breakage::Breakage;
use super::chain::Token;
use super::faulty_stream::{Line, Reins};
use super::payment::{Authorization, Received};
use super::seller::Seller;

/// The longest request that is read, in bytes.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// Serves until it is dropped, and every connection with it.
pub(super) async fn serve(listener: TcpListener, seller: Arc<Seller>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&seller)))),
                // Out of file descriptors, or the buyer has gone again.
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, seller: Arc<Seller>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let reins = Reins::default();
    let line = Line::new(stream, reins.clone(), Arc::clone(&seller.sent));
    let service = service_fn(|request| answer(request, Arc::clone(&seller), reins.clone()));
    // It ends with an error when a fault breaks it, which is no news here.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(line), service)
            .await,
    );
}

async fn answer(
    request: Request<Incoming>,
    seller: Arc<Seller>,
    reins: Reins,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_REQUEST)
        .collect()
        .await
        .map_err(io::Error::other)?
        .to_bytes();
    match seller.answer(&Received::new(head, body, seller.now())) {
        Reply::Answer(response) => Ok(response),
        Reply::Broken(_, Breakage::Close) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
        Reply::Broken(_, Breakage::Silence) => pending().await,
        Reply::Broken(response, breakage) => {
            reins.set(breakage.habit());
            Ok(breakage.spoil(response))
        }
        Reply::SettleWhenGone(token, authorization) => {
            let _late = Late {
                seller,
                token,
                authorization,
            };
            pending().await
        }
    }
}

/// Settles when the buyer has gone, which ends the answering of its request.
struct Late {
    seller: Arc<Seller>,
    token: Token,
    authorization: Authorization,
}

impl Drop for Late {
    fn drop(&mut self) {
        self.seller.settle_late(self.token, self.authorization);
    }
}
