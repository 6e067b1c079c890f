//! Response bodies: whole, in chunks, paced, endless, too large, or broken off.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

const PADDING: &[u8] = &[b' '; 16 * 1024];

/// A response body, sent chunk by chunk.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    chunks: VecDeque<Bytes>,
    end: End,
    /// Whether the response announces the length.
    sized: bool,
    pace: Pace,
    /// The number of chunks that have been sent.
    sent: usize,
    wait: Wait,
}

/// The time at which each chunk is sent.
#[derive(Clone, Debug, Default)]
pub(crate) enum Pace {
    #[default]
    AtOnce,
    /// Waits before each chunk but the first.
    Every(Duration),
    /// Sends as many chunks as the gate has let through.
    Gated(watch::Receiver<usize>),
}

/// The wait for the next chunk. A clone starts its own wait.
#[derive(Default)]
struct Wait(Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>);

impl Clone for Wait {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Wait").field(&self.0.is_some()).finish()
    }
}

/// The part of a body after its chunks.
#[derive(Clone, Copy, Debug)]
enum End {
    Complete,
    Hang,
    /// Breaks the connection when the chunks are sent.
    FlushAndBreak,
    Break,
    Padding(usize),
}

impl Body {
    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            sized: true,
            ..Self::chunked([bytes.into()])
        }
    }

    pub(crate) fn chunked(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            chunks: chunks.into_iter().collect(),
            end: End::Complete,
            sized: false,
            pace: Pace::AtOnce,
            sent: 0,
            wait: Wait::default(),
        }
    }

    /// Sends the chunks at this pace.
    pub(crate) fn paced(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    /// Never ends after the chunks.
    pub(crate) fn hanging(self) -> Self {
        Self {
            end: End::Hang,
            sized: false,
            ..self
        }
    }

    /// Sends the first half of the first chunk, and then breaks the connection.
    pub(crate) fn broken(mut self) -> Self {
        let first = self.chunks.pop_front().unwrap_or_default();
        let half = first.len().checked_div(2).unwrap_or_default();
        Self {
            end: End::FlushAndBreak,
            ..Self::chunked([first.slice(..half)])
        }
    }

    /// Pads the body with spaces to `length` bytes.
    pub(crate) fn padded(self, length: usize) -> Self {
        let missing = length.saturating_sub(self.length());
        Self {
            end: End::Padding(missing),
            sized: false,
            ..self
        }
    }

    /// Does not announce the length.
    pub(crate) fn without_length(self) -> Self {
        Self {
            sized: false,
            ..self
        }
    }

    /// Pads the body like [`padded`](Self::padded), and compresses it with gzip.
    pub(crate) fn compressed(self, length: usize) -> Self {
        let missing = length.saturating_sub(self.length());
        let padding = io::repeat(b' ').take(u64::try_from(missing).unwrap_or(u64::MAX));
        let whole: Vec<u8> = self.chunks.into_iter().flatten().collect();
        let mut packed = Vec::new();
        match GzEncoder::new(whole.as_slice().chain(padding), Compression::fast())
            .read_to_end(&mut packed)
        {
            Ok(_) => Self::whole(packed),
            // Reading from memory does not fail.
            Err(_) => Self::whole(Bytes::new()),
        }
    }

    /// Returns the length of the chunks, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.chunks
            .iter()
            .map(Bytes::len)
            .fold(0, usize::saturating_add)
    }

    /// Waits until the next chunk may be sent.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sent = self.sent;
        let wait = self.wait.0.get_or_insert_with(|| match &self.pace {
            Pace::Every(time) if sent > 0 => Box::pin(tokio::time::sleep(*time)),
            Pace::AtOnce | Pace::Every(_) => Box::pin(std::future::ready(())),
            Pace::Gated(open) => {
                let mut open = open.clone();
                // A gate that is gone is open.
                Box::pin(async move { drop(open.wait_for(|open| *open > sent).await) })
            }
        });
        let turn = wait.as_mut().poll(cx);
        if turn.is_ready() {
            self.wait = Wait::default();
        }
        turn
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.chunks.is_empty() && self.poll_turn(cx).is_pending() {
            return Poll::Pending;
        }
        if let Some(chunk) = self.chunks.pop_front() {
            self.sent = self.sent.saturating_add(1);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match self.end {
            End::Complete | End::Padding(0) => Poll::Ready(None),
            // The task of the connection ends when the client disconnects, and drops the body.
            End::Hang => Poll::Pending,
            End::FlushAndBreak => {
                self.end = End::Break;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            End::Break => Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted)))),
            End::Padding(left) => {
                let chunk = PADDING.get(..left).unwrap_or(PADDING);
                self.end = End::Padding(left.saturating_sub(chunk.len()));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(chunk)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && matches!(self.end, End::Complete | End::Padding(0))
    }

    fn size_hint(&self) -> SizeHint {
        match u64::try_from(self.length()) {
            Ok(length) if self.sized => SizeHint::with_exact(length),
            _ => SizeHint::new(),
        }
    }
}
