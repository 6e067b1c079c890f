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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::answer::Refusal;
use super::log::Line;
use super::metrics::Metrics;

/// The longest time between two pieces of a request's body.
const PAUSE: Duration = Duration::from_secs(30);
/// The longest time, and the most bytes, that the proxy reads of a body that it refuses.
const DRAIN: (Duration, u64) = (Duration::from_secs(5), 256 * 1024 * 1024);

/// The room for the bodies of all requests at once.
///
/// A body takes room when its bytes are there. Otherwise a program that announces bodies and sends none would keep the
/// others from sending theirs.
pub(super) struct Memory {
    /// One permit for each kilobyte. It is never closed.
    room: Arc<Semaphore>,
    size: u32,
}

/// The room of one body.
type Room = Option<OwnedSemaphorePermit>;

impl Memory {
    pub(super) fn new(bytes: u64) -> Self {
        let size = u32::try_from(bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let permits = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(permits)),
            size,
        }
    }

    /// Takes room for a body of a number of bytes so far. Nobody waits for room: two bodies could wait for each other.
    fn take(&self, room: &mut Room, length: u64) -> Result<(), Refusal> {
        let needed = u32::try_from(length.div_ceil(1024)).unwrap_or(u32::MAX);
        let has = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let has = u32::try_from(has).unwrap_or(u32::MAX);
        let more = needed.min(self.size).saturating_sub(has);
        if more == 0 {
            return Ok(());
        }
        let taken = Arc::clone(&self.room).try_acquire_many_owned(more);
        let taken = taken.map_err(|_| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "the bodies of all requests together are too large at the moment",
            )
        })?;
        match room {
            Some(room) => room.merge(taken),
            None => *room = Some(taken),
        }
        Ok(())
    }
}

/// Reads the body of a request, up to a number of bytes.
///
/// `whole` loses the body when it is read. A body that is refused stays there.
pub(super) async fn read<B: Body<Data = Bytes> + Unpin>(
    whole: &mut Option<B>,
    limit: u64,
    memory: &Memory,
) -> Result<(Bytes, Room), Refusal> {
    let Some(body) = whole.as_mut() else {
        return Ok((Bytes::new(), None));
    };
    if body.size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    let (mut kept, mut room) = (BytesMut::new(), None);
    loop {
        let frame = match timeout(PAUSE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(None) => {
                *whole = None;
                return Ok((kept.freeze(), room));
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
            let length = u64::try_from(length).unwrap_or(u64::MAX);
            if length > limit {
                return Err(too_large(limit));
            }
            memory.take(&mut room, length)?;
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

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    async fn kept(memory: &Memory, length: usize) -> Result<Room, u16> {
        let mut body = Some(Full::new(Bytes::from(vec![b'x'; length])));
        let read = read(&mut body, 4096, memory).await;
        assert_eq!(body.is_none(), read.is_ok());
        read.map(|(bytes, room)| {
            assert_eq!(bytes.len(), length);
            room
        })
        .map_err(|refusal| refusal.status.as_u16())
    }

    #[tokio::test]
    async fn bodies_at_once_have_a_limit_and_nobody_waits_for_room() {
        let memory = Memory::new(8192);
        let first = kept(&memory, 4096).await.unwrap();
        let second = kept(&memory, 3000).await.unwrap();
        let third = kept(&memory, 1024).await.unwrap();
        assert_eq!(kept(&memory, 1).await.unwrap_err(), 503);
        assert!(kept(&memory, 0).await.unwrap().is_none());
        drop(second);
        assert_eq!(kept(&memory, 4096).await.unwrap_err(), 503);
        drop((first, third));
        assert!(kept(&memory, 4096).await.unwrap().is_some());
        assert_eq!(kept(&memory, 4097).await.unwrap_err(), 413);
        // A reload can allow bodies that are larger than all room.
        let small = Memory::new(1024);
        assert!(kept(&small, 4096).await.unwrap().is_some());
    }
}
