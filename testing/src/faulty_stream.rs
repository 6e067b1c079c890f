//! A TCP stream that misbehaves below HTTP.

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

/// The way in which a stream changes the bytes that are written to it.
#[derive(Clone, Debug, Default)]
pub(crate) enum StreamFault {
    #[default]
    None,
    /// Resets the connection.
    Reset,
    /// Closes the connection after this many bytes.
    Cut(usize),
    /// Sends one byte after each pause.
    Slow(Duration),
    /// Sends these bytes instead, and closes the connection.
    Replace(Bytes),
    /// Sends the first bytes instead, and then the repeated bytes without end.
    Endless { first: Bytes, repeated: Bytes },
    /// Sends these bytes after the written bytes.
    Append(Bytes),
}

/// Sets the fault of a stream from the code that answers requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct StreamControl(Arc<Mutex<StreamFault>>);

impl StreamControl {
    pub(crate) fn set(&self, fault: StreamFault) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    fn get(&self) -> StreamFault {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A TCP stream with a fault.
pub(crate) struct FaultyStream {
    stream: TcpStream,
    control: StreamControl,
    /// The number of bytes sent on all streams of the seller.
    sent: Arc<AtomicU64>,
    pause: Option<Pin<Box<Sleep>>>,
    written: bool,
}

impl FaultyStream {
    pub(crate) const fn new(
        stream: TcpStream,
        control: StreamControl,
        sent: Arc<AtomicU64>,
    ) -> Self {
        Self {
            stream,
            control,
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

    /// Sends all bytes. Stores the rest in the fault when the socket is not ready.
    fn send_all(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &mut Bytes,
        rest: impl Fn(Bytes) -> StreamFault,
    ) -> Poll<io::Result<()>> {
        while !bytes.is_empty() {
            let sent = ready!(self.send(cx, bytes))?;
            bytes.advance(sent);
            self.control.set(rest(bytes.clone()));
        }
        Poll::Ready(Ok(()))
    }

    fn send_slowly(
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

impl AsyncWrite for FaultyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.control.get() {
            StreamFault::None | StreamFault::Append(_) => self.send(cx, bytes),
            StreamFault::Reset => {
                self.stream.set_zero_linger()?;
                closed()
            }
            StreamFault::Cut(0) => closed(),
            StreamFault::Cut(left) => {
                let sent = ready!(self.send(cx, bytes.get(..left).unwrap_or(bytes)))?;
                self.control
                    .set(StreamFault::Cut(left.saturating_sub(sent)));
                Poll::Ready(Ok(sent))
            }
            StreamFault::Slow(pause) => self.send_slowly(cx, bytes, pause),
            StreamFault::Replace(mut bytes) => {
                ready!(self.send_all(cx, &mut bytes, StreamFault::Replace))?;
                closed()
            }
            StreamFault::Endless {
                mut first,
                repeated,
            } => {
                let rest = |first| StreamFault::Endless {
                    first,
                    repeated: repeated.clone(),
                };
                ready!(self.send_all(cx, &mut first, rest))?;
                self.control.set(StreamFault::Endless {
                    first: repeated.clone(),
                    repeated,
                });
                // Run again soon: the client reads, or it disconnects and the next write fails.
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.control.get() {
            StreamFault::Append(mut more) if self.written => {
                ready!(self.send_all(cx, &mut more, StreamFault::Append))?;
                self.control.set(StreamFault::None);
            }
            _ => {}
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}
