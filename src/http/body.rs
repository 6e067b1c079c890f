//! Reading the beginning of a body without losing it, and noticing that a body broke.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use alloy::primitives::keccak256;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt};
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::ledger::BodyDigest;

/// A response whose body was read in part.
pub(super) struct PartlyRead {
    url: Url,
    head: http::response::Parts,
    body: Body,
    read: VecDeque<Frame<Bytes>>,
    length: usize,
    ended: bool,
    fault: Option<reqwest::Error>,
}

impl PartlyRead {
    pub(super) fn new(response: Response) -> Self {
        let url = response.url().clone();
        let (head, body) = http::Response::<Body>::from(response).into_parts();
        Self {
            url,
            head,
            body,
            read: VecDeque::new(),
            length: 0,
            ended: false,
            fault: None,
        }
    }

    /// Reads until the given number of bytes is there, or the body ends or breaks. May be dropped at any time.
    pub(super) async fn read(&mut self, enough: usize) {
        while !self.ended && self.fault.is_none() && self.length < enough {
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(frame)) => {
                    self.length = self
                        .length
                        .saturating_add(frame.data_ref().map_or(0, Bytes::len));
                    self.read.push_back(frame);
                }
                Some(Err(error)) => self.fault = Some(error),
                None => self.ended = true,
            }
        }
    }

    /// Takes the fault that ended the reading, if there was one.
    pub(super) fn take_fault(&mut self) -> Option<reqwest::Error> {
        self.fault.take()
    }

    pub(super) const fn length(&self) -> usize {
        self.length
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.read
            .iter()
            .filter_map(Frame::data_ref)
            .flatten()
            .copied()
            .collect()
    }

    pub(super) fn digest(&self) -> BodyDigest {
        let bytes = self.bytes();
        BodyDigest::new(
            keccak256(&bytes),
            u64::try_from(bytes.len()).unwrap_or(u64::MAX),
            self.ended,
        )
    }

    /// Replaces the URL.
    pub(super) fn at(mut self, url: Url) -> Self {
        self.url = url;
        self
    }

    /// Returns the response with its whole body. A fault that was read comes after the bytes before it, so a body that
    /// broke never looks complete.
    pub(super) fn into_response(self) -> Result<Response, Error> {
        let body = Body::wrap(Prefixed {
            read: self.read,
            fault: self.fault,
            rest: self.body,
        });
        rebuilt(self.url, self.head, body)
    }
}

/// Returns a response with another body.
fn rebuilt(url: Url, old: http::response::Parts, body: Body) -> Result<Response, Error> {
    let mut response = http::Response::builder()
        .url(url)
        .body(body)
        .map_err(rebuild)?;
    let extensions = std::mem::take(response.extensions_mut());
    let (mut head, body) = response.into_parts();
    (head.status, head.version, head.headers) = (old.status, old.version, old.headers);
    head.extensions = old.extensions;
    head.extensions.extend(extensions);
    Ok(http::Response::from_parts(head, body).into())
}

/// Returns the response with a body that awaits `on_fault` before it reports that it broke.
pub(super) fn watched(
    response: Response,
    on_fault: impl Future<Output = ()> + Send + 'static,
) -> Result<Response, Error> {
    let url = response.url().clone();
    let (head, body) = http::Response::<Body>::from(response).into_parts();
    let body = Body::wrap(Watched {
        body,
        fault: None,
        on_fault: Some(Mutex::new(Box::pin(on_fault))),
    });
    rebuilt(url, head, body)
}

/// A body whose fault is recorded before the caller sees it.
struct Watched {
    body: Body,
    fault: Option<reqwest::Error>,
    /// The mutex makes the body `Sync`, as reqwest demands. It is never locked.
    on_fault: Option<Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        if self.fault.is_none() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Err(fault))) => self.fault = Some(fault),
                other => return other,
            }
        }
        if let Some(on_fault) = &mut self.on_fault {
            let on_fault = on_fault.get_mut().unwrap_or_else(PoisonError::into_inner);
            if on_fault.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.on_fault = None;
        }
        Poll::Ready(self.fault.take().map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.fault.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

fn rebuild(error: http::Error) -> Error {
    Error::new(
        ErrorKind::Transport,
        "the response cannot be put together again",
    )
    .because(error)
}

/// A body whose beginning was read.
struct Prefixed {
    read: VecDeque<Frame<Bytes>>,
    fault: Option<reqwest::Error>,
    rest: Body,
}

impl HttpBody for Prefixed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        if let Some(frame) = self.read.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        match self.fault.take() {
            Some(fault) => Poll::Ready(Some(Err(fault))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.fault.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}
