//! Response bodies: whole, in chunks, without end, too large, or broken off.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzEncoder;
use http_body::{Body as HttpBody, Frame, SizeHint};

const PADDING: &[u8] = &[b' '; 16 * 1024];

/// What a seller answers with, chunk by chunk.
#[derive(Clone, Debug)]
pub(super) struct Body {
    chunks: VecDeque<Bytes>,
    rest: Rest,
    /// Whether the length is told beforehand.
    sized: bool,
}

#[derive(Clone, Copy, Debug)]
enum Rest {
    End,
    Hang,
    /// Breaks the connection, once what was said is on its way.
    FlushAndBreak,
    Break,
    Padding(usize),
}

impl Body {
    pub(super) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self {
            chunks: VecDeque::from([bytes.into()]),
            rest: Rest::End,
            sized: true,
        }
    }

    pub(super) fn chunked(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        Self {
            chunks: chunks.into_iter().collect(),
            rest: Rest::End,
            sized: false,
        }
    }

    /// The body so far, and then nothing more, nor an end.
    pub(super) fn hanging(self) -> Self {
        Self {
            rest: Rest::Hang,
            sized: false,
            ..self
        }
    }

    /// The first half of the first chunk, and then a broken connection.
    pub(super) fn broken(mut self) -> Self {
        let first = self.chunks.pop_front().unwrap_or_default();
        let half = first.len().checked_div(2).unwrap_or_default();
        Self {
            chunks: VecDeque::from([first.slice(..half)]),
            rest: Rest::FlushAndBreak,
            sized: false,
        }
    }

    /// Spaces after the body, up to `length` bytes.
    pub(super) fn padded(self, length: usize) -> Self {
        let missing = length.saturating_sub(self.length());
        Self {
            rest: Rest::Padding(missing),
            sized: false,
            ..self
        }
    }

    /// As it is, without telling its length.
    pub(super) fn untold(self) -> Self {
        Self {
            sized: false,
            ..self
        }
    }

    /// Padded as [`padded`](Self::padded), and compressed with gzip.
    pub(super) fn compressed(self, length: usize) -> Self {
        let missing = length.saturating_sub(self.length());
        let padding = io::repeat(b' ').take(u64::try_from(missing).unwrap_or(u64::MAX));
        let whole: Vec<u8> = self.chunks.into_iter().flatten().collect();
        let mut packed = Vec::new();
        match GzEncoder::new(whole.as_slice().chain(padding), Compression::fast())
            .read_to_end(&mut packed)
        {
            Ok(_) => Self::whole(packed),
            // Neither memory nor repetition can fail.
            Err(_) => Self::whole(Bytes::new()),
        }
    }

    /// Of what it begins with, in bytes.
    pub(super) fn length(&self) -> usize {
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
        match self.rest {
            Rest::End | Rest::Padding(0) => Poll::Ready(None),
            // The connection's task wakes when the client goes away, and drops the body with itself.
            Rest::Hang => Poll::Pending,
            Rest::FlushAndBreak => {
                self.rest = Rest::Break;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Rest::Break => {
                Poll::Ready(Some(Err(io::Error::from(io::ErrorKind::ConnectionAborted))))
            }
            Rest::Padding(left) => {
                let chunk = PADDING.get(..left).unwrap_or(PADDING);
                self.rest = Rest::Padding(left.saturating_sub(chunk.len()));
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(chunk)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty() && matches!(self.rest, Rest::End | Rest::Padding(0))
    }

    fn size_hint(&self) -> SizeHint {
        match u64::try_from(self.length()) {
            Ok(length) if self.sized => SizeHint::with_exact(length),
            _ => SizeHint::new(),
        }
    }
}
