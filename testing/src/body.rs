//! Response bodies: whole, in chunks, endless, too large, or broken off.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use http_body::{Body as HttpBody, Frame, SizeHint};

const PADDING: &[u8] = &[b' '; 16 * 1024];

/// A response body, sent chunk by chunk.
#[derive(Clone, Debug)]
pub(crate) struct Body {
    chunks: VecDeque<Bytes>,
    end: End,
    /// Whether the response announces the length.
    sized: bool,
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
            chunks: VecDeque::from([bytes.into()]),
            end: End::Complete,
            sized: true,
        }
    }

    pub(crate) fn chunked(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            chunks: chunks.into_iter().collect(),
            end: End::Complete,
            sized: false,
        }
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
            chunks: VecDeque::from([first.slice(..half)]),
            end: End::FlushAndBreak,
            sized: false,
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
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(chunk) = self.chunks.pop_front() {
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
