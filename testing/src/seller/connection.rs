//! One connection to the paywall.

use std::future::pending;
use std::io;
use std::sync::Arc;

use alloy::primitives::U256;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::Seller;
use crate::answer::{Delay, Reply};
use crate::body::Body;
use crate::breakage::Breakage;
use crate::chain::Token;
use crate::faulty_stream::{FaultyStream, StreamControl};
use crate::payment::{ReceivedRequest, Signed};
use crate::server::{answer_requests, read_body};

/// The longest request body that the paywall reads, in bytes.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// Serves one connection until it ends.
pub(crate) async fn serve(stream: TcpStream, seller: Arc<Seller>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let control = StreamControl::default();
    let stream = FaultyStream::new(stream, control.clone(), Arc::clone(&seller.sent));
    let answer = |request| answer(request, Arc::clone(&seller), control.clone());
    answer_requests(stream, answer).await;
}

async fn answer(
    request: Request<Incoming>,
    seller: Arc<Seller>,
    control: StreamControl,
) -> io::Result<Response<Body>> {
    if let Some(page) = seller.status(request.uri().path()) {
        return Ok(page);
    }
    let (head, body) = request.into_parts();
    let body = read_body(body, MAX_BODY).await?;
    match seller.answer(&ReceivedRequest::new(head, body, seller.now())) {
        Reply::Answer(response) => {
            if let Some(Delay(time)) = response.extensions().get() {
                tokio::time::sleep(*time).await;
            }
            Ok(response)
        }
        Reply::Broken(_, Breakage::Close) => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
        Reply::Broken(_, Breakage::Silence) => pending().await,
        Reply::Broken(response, breakage) => {
            control.set(breakage.stream_fault());
            Ok(breakage.spoil(response))
        }
        Reply::SettleAfterDisconnect(token, signed, amount) => {
            let _settles_when_dropped = LateSettlement {
                seller,
                token,
                signed,
                amount,
            };
            pending().await
        }
    }
}

/// Settles when the buyer disconnects. The server then drops the task that holds this value.
struct LateSettlement {
    seller: Arc<Seller>,
    token: Token,
    signed: Signed,
    amount: U256,
}

impl Drop for LateSettlement {
    fn drop(&mut self) {
        self.seller
            .settle_late(self.token, &self.signed, self.amount);
    }
}
