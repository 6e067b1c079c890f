//! Noticing that the client has gone: standard input has ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::watch;

/// How long calls may go on without a client. Clients commonly kill a server 2 seconds after they have hung up.
const GRACE: Duration = Duration::from_secs(1);

/// A reader that says when it has ended.
pub(super) struct Watched<R> {
    reader: R,
    ended: watch::Sender<bool>,
}

/// The end of a [`Watched`] reader.
pub(super) struct HangUp(watch::Receiver<bool>);

impl<R> Watched<R> {
    pub(super) fn new(reader: R) -> (Self, HangUp) {
        let (ended, hang_up) = watch::channel(false);
        (Self { reader, ended }, HangUp(hang_up))
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

impl HangUp {
    /// Until the client has gone, and its calls have had their time to end.
    pub(super) async fn over(&self) {
        let mut ended = self.0.clone();
        // A reader that is no more has ended, too.
        drop(ended.wait_for(|ended| *ended).await);
        tokio::time::sleep(GRACE).await;
    }
}
