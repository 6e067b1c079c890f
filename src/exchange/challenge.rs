//! Reading a 402: x402 or not, bounded, and without losing a response that is not ours.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body::{Body as HttpBody, Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt};
use serde::Deserialize;

use crate::x402::{MAX_BODY, PAYMENT_REQUIRED, PaymentRequired, WireError};
use crate::{Error, ErrorKind};

/// What a 402 turned out to be.
pub(crate) enum Challenge {
    Required(Box<PaymentRequired>),
    /// Another protocol's, or nobody's: as it came.
    NotX402(Response),
}

pub(crate) async fn read(response: Response) -> Result<Challenge, Error> {
    if let Some(header) = response.headers().get(PAYMENT_REQUIRED) {
        let required = PaymentRequired::from_header(header.as_bytes())?;
        dispose(response);
        return Ok(Challenge::Required(Box::new(required)));
    }
    if !may_hold_terms(&response) {
        return Ok(Challenge::NotX402(response));
    }
    read_body(response).await
}

/// Terms in a body are JSON. A page for people, however large, is not read.
fn may_hold_terms(response: &Response) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_none_or(|kind| kind.contains("json") || kind.starts_with("text/plain"))
}

/// Lets a body that nobody needs run out, so that its connection can be used again: on the side,
/// for a second and at most 64 KiB.
fn dispose(mut response: Response) {
    const ENOUGH: usize = 64 * 1024;
    let small =
        response.content_length().is_none_or(|length| usize::try_from(length).is_ok_and(|length| length <= ENOUGH));
    if !small {
        return;
    }
    tokio::spawn(async move {
        let drain = async {
            let mut read = 0_usize;
            while let Ok(Some(chunk)) = response.chunk().await {
                read = read.saturating_add(chunk.len());
                if read > ENOUGH {
                    break;
                }
            }
        };
        drop(tokio::time::timeout(Duration::from_secs(1), drain).await);
    });
}

async fn read_body(response: Response) -> Result<Challenge, Error> {
    let url = response.url().clone();
    let response: http::Response<Body> = response.into();
    let (parts, mut body) = response.into_parts();
    let mut read = Read::default();
    while read.length <= MAX_BODY {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(frame)) => read.push(frame),
            Some(Err(error)) => return Err(Error::http(error)),
            None => break,
        }
    }
    if read.length > MAX_BODY {
        return Err(WireError::BodyTooLong.into());
    }
    match terms(&read.bytes()) {
        Terms::Read(required) => Ok(Challenge::Required(required)),
        Terms::Malformed(error) => Err(error.into()),
        Terms::None => {
            let mut response = http::Response::builder()
                .url(url)
                .body(Body::wrap(Prefixed { read: read.frames, rest: body }))
                .map_err(rebuild)?;
            let extensions = std::mem::take(response.extensions_mut());
            let (mut head, body) = response.into_parts();
            (head.status, head.version, head.headers) = (parts.status, parts.version, parts.headers);
            head.extensions = parts.extensions;
            head.extensions.extend(extensions);
            Ok(Challenge::NotX402(http::Response::from_parts(head, body).into()))
        }
    }
}

fn rebuild(error: http::Error) -> Error {
    Error::new(ErrorKind::Transport, "the response cannot be put together again").because(error)
}

enum Terms {
    Read(Box<PaymentRequired>),
    /// It says that it is x402, and cannot be read.
    Malformed(WireError),
    None,
}

fn terms(body: &[u8]) -> Terms {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Marked {
        #[serde(rename = "x402Version")]
        _version: serde::de::IgnoredAny,
    }
    match PaymentRequired::from_json(body) {
        Ok(required) => Terms::Read(Box::new(required)),
        Err(error) if serde_json::from_slice::<Marked>(body).is_ok() => Terms::Malformed(error),
        Err(_) => Terms::None,
    }
}

/// The part of a body that was read.
#[derive(Default)]
struct Read {
    frames: VecDeque<Frame<Bytes>>,
    length: usize,
}

impl Read {
    fn push(&mut self, frame: Frame<Bytes>) {
        self.length = self.length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        self.frames.push_back(frame);
    }

    fn bytes(&self) -> Vec<u8> {
        self.frames.iter().filter_map(Frame::data_ref).flatten().copied().collect()
    }
}

/// A body of which some was read already.
struct Prefixed {
    read: VecDeque<Frame<Bytes>>,
    rest: Body,
}

impl HttpBody for Prefixed {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        match self.read.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(frame))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}
