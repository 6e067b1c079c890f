//! Bodies: the request's, which is kept for the second request, and the answer's, which passes piece by piece.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bursar::reqwest::{self, StatusCode};
use bursar::{Payer, SignedPayment};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::answer::Refusal;
use super::log::Line;
use super::metrics::Metrics;

/// The longest time between two pieces of a request's body.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest time, and the most bytes, that the proxy reads of a body that it refuses.
const DRAIN: (Duration, u64) = (Duration::from_secs(5), 256 * 1024 * 1024);

/// Reads the body of a request, up to a number of bytes.
///
/// `whole` loses the body when it is read. A body that is larger stays there.
pub(super) async fn read(whole: &mut Option<Incoming>, limit: u64) -> Result<Bytes, Refusal> {
    let Some(body) = whole.as_mut() else {
        return Ok(Bytes::new());
    };
    let announced = body.size_hint().lower();
    if announced > limit {
        return Err(too_large(limit));
    }
    let mut kept = BytesMut::with_capacity(usize::try_from(announced).unwrap_or_default());
    loop {
        let frame = match timeout(PAUSE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => {
                *whole = None;
                return Ok(kept.freeze());
            }
            Ok(Some(Err(_))) => {
                return Err(Refusal::new(
                    StatusCode::BAD_REQUEST,
                    "body",
                    "the body of the request broke off",
                ));
            }
            Err(_) => {
                return Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "body",
                    format!("no more of the body came within {} s", PAUSE.as_secs()),
                ));
            }
        };
        if let Some(data) = frame.data_ref() {
            let length = kept.len().saturating_add(data.len());
            if u64::try_from(length).unwrap_or(u64::MAX) > limit {
                return Err(too_large(limit));
            }
            kept.extend_from_slice(data);
        }
    }
}

/// Reads the rest of a body that is refused. A program that still writes would not read the answer.
pub(super) async fn drain(mut body: Incoming) {
    let (time, most) = DRAIN;
    let drained = async {
        let mut read = 0_u64;
        while read < most
            && let Some(Ok(frame)) = body.frame().await
        {
            let length = frame.data_ref().map_or(0, Bytes::len);
            read = read.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        }
    };
    // The answer is the same if the time is over.
    drop(timeout(time, drained).await);
}

fn too_large(limit: u64) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        "too_large",
        format!(
            "the body is larger than {limit} bytes, which the proxy keeps for a second request; raise `body_limit` of [proxy]"
        ),
    )
}

/// The body of an answer on its way to the program.
pub(super) struct Passing {
    body: reqwest::Body,
    /// The number of bytes to come, if it is known.
    left: Option<u64>,
    sent: bool,
    ended: bool,
    paid: Option<Paid>,
    /// The place among the calls at once.
    permit: Option<OwnedSemaphorePermit>,
}

/// A paid answer that is recorded as lost if its program leaves before the end.
pub(super) struct Paid {
    pub(super) payer: Payer,
    pub(super) payment: SignedPayment,
    /// A stream of events is delivered with its first piece: programs leave streams on purpose.
    pub(super) is_stream: bool,
    pub(super) metrics: Arc<Metrics>,
}

impl Passing {
    pub(super) fn new(
        body: reqwest::Body,
        paid: Option<Paid>,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self {
            left: body.size_hint().exact(),
            body,
            sent: false,
            ended: false,
            paid,
            permit: Some(permit),
        }
    }
}

impl Body for Passing {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
                    self.left = self.left.map(|left| left.saturating_sub(length));
                    self.sent = true;
                }
            }
            // The library records a body that broke.
            Poll::Ready(Some(Err(_)) | None) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        let ended = self.ended || self.left == Some(0) || self.body.is_end_stream();
        let Some(paid) = self.paid.take() else { return };
        if ended || (paid.is_stream && self.sent) {
            return;
        }
        paid.metrics.add("bursar_proxy_lost_total", &[], 1);
        Line::new("lost")
            .with("purchase_id", paid.payment.purchase.as_str())
            .with(
                "message",
                "the program left before the end of a paid answer; an identical request presents the same payment",
            )
            .write();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let permit = self.permit.take();
            drop(runtime.spawn(async move {
                paid.payer.goods_lost(&paid.payment).await;
                // The proxy stops after the ledger knows.
                drop(permit);
            }));
        }
    }
}
