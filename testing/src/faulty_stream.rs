//! A connection that the seller can make misbehave, below HTTP.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// What becomes of the bytes that are written to a line.
#[derive(Clone, Debug, Default)]
pub(super) enum Habit {
    #[default]
    Honest,
    /// Resets the connection.
    Reset,
    /// Closes the connection after so many bytes.
    Cut(usize),
    /// Sends a byte after each pause.
    Slow(Duration),
    /// Sends these instead, and closes the connection.
    Instead(Bytes),
    /// Sends these instead, the second without end.
    Endless { begin: Bytes, again: Bytes },
    /// Sends these behind what is written.
    Surplus(Bytes),
}

/// The habit of a line, to be changed by who answers on it.
#[derive(Clone, Debug, Default)]
pub(super) struct Reins(Arc<Mutex<Habit>>);

impl Reins {
    pub(super) fn set(&self, habit: Habit) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = habit;
    }

    fn get(&self) -> Habit {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

pub(super) struct Line {
    stream: TcpStream,
    reins: Reins,
    /// Bytes sent on all lines of the seller.
    sent: Arc<AtomicU64>,
    pause: Option<Pin<Box<Sleep>>>,
    written: bool,
}

impl Line {
    pub(super) const fn new(stream: TcpStream, reins: Reins, sent: Arc<AtomicU64>) -> Self {
        Self {
            stream,
            reins,
            sent,
            pause: None,
            written: false,
        }
    }

    fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.sent
            .fetch_add(u64::try_from(sent).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.written = true;
        Poll::Ready(Ok(sent))
    }

    /// Sends all of these, in as many steps as it takes.
    fn send_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
        keep: impl Fn(Bytes) -> Habit,
    ) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let sent = ready!(self.send(cx, bytes))?;
            bytes.advance(sent);
            self.reins.set(keep(bytes.clone()));
        }
        Poll::Ready(Ok(()))
    }

    fn slowly(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        pause: Duration,
    ) -> Poll<io::Result<usize>> {
        let sleep = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(pause)));
        ready!(sleep.as_mut().poll(cx));
        self.pause = None;
        self.send(cx, bytes.get(..1).unwrap_or(bytes))
    }
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionAborted)))
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.reins.get() {
            Habit::Honest | Habit::Surplus(_) => self.send(cx, bytes),
            Habit::Reset => {
                self.stream.set_zero_linger()?;
                closed()
            }
            Habit::Cut(0) => closed(),
            Habit::Cut(left) => {
                let sent = ready!(self.send(cx, bytes.get(..left).unwrap_or(bytes)))?;
                self.reins.set(Habit::Cut(left.saturating_sub(sent)));
                Poll::Ready(Ok(sent))
            }
            Habit::Slow(pause) => self.slowly(cx, bytes, pause),
            Habit::Instead(mut instead) => {
                ready!(self.send_all(cx, &mut instead, Habit::Instead))?;
                closed()
            }
            Habit::Endless { mut begin, again } => {
                let keep = |begin| Habit::Endless {
                    begin,
                    again: again.clone(),
                };
                ready!(self.send_all(cx, &mut begin, keep))?;
                self.reins.set(Habit::Endless {
                    begin: again.clone(),
                    again,
                });
                // The other side reads or goes, and either wakes this.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.reins.get() {
            Habit::Surplus(mut more) if self.written => {
                ready!(self.send_all(cx, &mut more, Habit::Surplus))?;
                self.reins.set(Habit::Honest);
            }
            _ => {}
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
