//! Detects that the client has disconnected: standard input has ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

/// The time that calls have after the client has disconnected. Clients usually kill a server after 2 seconds.
const GRACE: Duration = Duration::from_secs(1);

/// A reader that reports its end.
pub(crate) struct Watched<R> {
    reader: R,
    ended: watch::Sender<bool>,
}

/// The end of a [`Watched`] reader.
pub(crate) struct Disconnect(watch::Receiver<bool>);

impl<R> Watched<R> {
    pub(crate) fn new(reader: R) -> (Self, Disconnect) {
        let (ended, disconnect) = watch::channel(false);
        (Self { reader, ended }, Disconnect(disconnect))
    }
}

impl<R: AsyncRead + Unpin> AsyncRead for Watched<R> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let watched = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut watched.reader).poll_read(context, buffer);
        let ended = match &polled {
            Poll::Ready(Ok(())) => buffer.filled().len() == before && buffer.remaining() > 0,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if ended {
            watched.ended.send_replace(true);
        }
        polled
    }
}

impl Disconnect {
    /// Returns a disconnect that the sender reports.
    #[cfg(feature = "mcp-proxy")]
    pub(crate) fn signal() -> (watch::Sender<bool>, Self) {
        let (ended, disconnect) = watch::channel(false);
        (ended, Self(disconnect))
    }

    /// Returns whether the client has disconnected.
    pub(super) fn has_ended(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the client has disconnected and the time for its calls has passed.
    pub(super) async fn passed(&self) {
        let mut ended = self.0.clone();
        // A dropped reader has ended, too.
        drop(ended.wait_for(|ended| *ended).await);
        tokio::time::sleep(GRACE).await;
    }
}
