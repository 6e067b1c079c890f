//! Reading the beginning of a body without losing it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
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
        let mut response = http::Response::builder()
            .url(self.url)
            .body(body)
            .map_err(rebuild)?;
        let extensions = std::mem::take(response.extensions_mut());
        let (mut head, body) = response.into_parts();
        (head.status, head.version, head.headers) =
            (self.head.status, self.head.version, self.head.headers);
        head.extensions = self.head.extensions;
        head.extensions.extend(extensions);
        Ok(http::Response::from_parts(head, body).into())
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
