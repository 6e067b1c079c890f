//! Reading the beginning of a body without losing it, and noticing that a body broke.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use alloy::primitives::keccak256;
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use reqwest::{Body, Response, ResponseBuilderExt};
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::ledger::BodyDigest;
use crate::payment::PaymentRecord;
use crate::text::{excerpt, root_cause};

/// A response whose body was read in part. A body in small pieces takes no more memory than one in large pieces.
pub(super) struct PartlyRead {
    url: Url,
    head: http::response::Parts,
    body: Body,
    read: Vec<u8>,
    trailers: Option<HeaderMap>,
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
            read: Vec::new(),
            trailers: None,
            ended: false,
            fault: None,
        }
    }

    /// Reads until the given number of bytes is there, or the body ends or breaks. May be dropped at any time.
    pub(super) async fn read(&mut self, enough: usize) {
        while !self.ended && self.fault.is_none() && self.read.len() < enough {
            match poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Some(Err(error)) => self.fault = Some(error),
                None => self.ended = true,
            }
        }
    }

    /// Takes the fault that ended the reading, if there was one.
    pub(super) fn take_fault(&mut self) -> Option<reqwest::Error> {
        self.fault.take()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.read
    }

    pub(super) fn digest(&self) -> BodyDigest {
        let length = u64::try_from(self.read.len()).unwrap_or(u64::MAX);
        BodyDigest::new(keccak256(&self.read), length, self.ended)
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
            read: self.read.into(),
            trailers: self.trailers,
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

/// Returns the response with a body whose fault carries the payment. Awaits `on_fault` before the fault is reported.
pub(super) fn watched(
    response: Response,
    record: PaymentRecord,
    on_fault: Option<impl Future<Output = ()> + Send + 'static>,
) -> Result<Response, Error> {
    let url = response.url().clone();
    let (head, body) = http::Response::<Body>::from(response).into_parts();
    let on_fault = on_fault.map(|on_fault| Mutex::new(Box::pin(on_fault) as OnFault));
    let body = Body::wrap(Watched {
        body,
        fault: None,
        on_fault,
        record,
        url: url.clone(),
    });
    rebuilt(url, head, body)
}

/// Makes bursar's error of the fault of a body.
pub(super) fn broken(fault: reqwest::Error) -> Error {
    let late = fault.is_timeout();
    let (kind, message) = match late {
        true => (
            ErrorKind::Timeout,
            "the body of the answer did not come in time".to_owned(),
        ),
        false => {
            let cause = excerpt(&root_cause(&fault));
            let message = format!("the body of the answer broke: {cause}");
            (ErrorKind::Body, message)
        }
    };
    Error::new(kind, message).because(fault.without_url())
}

type OnFault = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A body whose fault is recorded before the caller sees it.
struct Watched {
    body: Body,
    fault: Option<reqwest::Error>,
    /// The mutex makes the body `Sync`, as reqwest demands. It is never locked.
    on_fault: Option<Mutex<OnFault>>,
    record: PaymentRecord,
    url: Url,
}

impl HttpBody for Watched {
    type Data = Bytes;
    /// reqwest's error of the body has this one as its source, so the payment is not lost.
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.fault.is_none() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Err(fault))) => self.fault = Some(fault),
                other => return other.map_err(broken),
            }
        }
        if let Some(on_fault) = &mut self.on_fault {
            let on_fault = on_fault.get_mut().unwrap_or_else(PoisonError::into_inner);
            if on_fault.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            self.on_fault = None;
        }
        let fault = self.fault.take().map(broken);
        Poll::Ready(fault.map(|fault| Err(self.record.fail(fault).at(&self.url))))
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
    read: Bytes,
    trailers: Option<HeaderMap>,
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
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read);
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        match self.fault.take() {
            Some(fault) => Poll::Ready(Some(Err(fault))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty()
            && self.trailers.is_none()
            && self.fault.is_none()
            && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body of single bytes, and then of trailers.
    struct Drip(usize);

    impl HttpBody for Drip {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
            let Some(left) = self.0.checked_sub(1) else {
                return Poll::Ready(None);
            };
            self.0 = left;
            Poll::Ready(Some(Ok(match left {
                0 => Frame::trailers(HeaderMap::from_iter([(
                    http::header::ETAG,
                    http::HeaderValue::from_static("end"),
                )])),
                _ => Frame::data(Bytes::from_static(b"x")),
            })))
        }
    }

    #[tokio::test]
    async fn a_body_in_single_bytes_is_kept_as_one_piece() {
        let body = http::Response::builder()
            .url("https://a.example".parse().unwrap())
            .body(Body::wrap(Drip(10_002)))
            .unwrap();
        let mut partly = PartlyRead::new(body.into());
        partly.read(64).await;
        assert_eq!(partly.bytes().len(), 64);
        partly.read(20_000).await;
        assert_eq!(partly.bytes().len(), 10_001);
        let mut rest = http::Response::<Body>::from(partly.into_response().unwrap()).into_body();
        let mut frames = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut rest).poll_frame(cx)).await {
            frames.push(frame.unwrap());
        }
        let [data, trailers] = frames.as_slice() else {
            panic!("{} frames", frames.len())
        };
        assert_eq!(data.data_ref().map(Bytes::len), Some(10_001));
        assert!(trailers.trailers_ref().is_some());
    }
}
