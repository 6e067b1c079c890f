//! The ways in which an answer breaks.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Response};

use crate::body::Body;
use crate::fault::names;
use crate::faulty_stream::StreamFault;

/// A way in which an answer breaks on its way to the buyer.
///
/// Use it in [`Fault::BreakTerms`](crate::Fault::BreakTerms),
/// [`Fault::BreakBeforeSettle`](crate::Fault::BreakBeforeSettle) and
/// [`Fault::BreakAfterSettle`](crate::Fault::BreakAfterSettle).
///
/// ```
/// use std::time::Duration;
///
/// use bursar::{Client, ErrorKind, usd};
/// use bursar_testing::{Breakage, Fault, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let silent = Fault::BreakTerms(Breakage::Silence);
/// let route = Route::get("/report").price(usd!("0.01")).fault(silent);
/// let seller = Paywall::builder().route(route).start().await?;
///
/// let client = Client::builder()
///     .answer_timeout(Duration::from_millis(50))
///     .allow_http_loopback(true)
///     .build()?;
/// let error = client.get(seller.url("/report")).send().await.unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Timeout);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breakage {
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection without an answer.
    Reset,
    /// Never answers. The connection ends when the client closes it.
    Silence,
    /// Closes the connection after this many bytes of the answer: in the head or in the body.
    Cut(usize),
    /// Sends one byte of the answer after each pause of this length.
    Slow(Duration),
    /// Answers with bytes that are not HTTP.
    Garbage,
    /// Sends interim responses (103) without end.
    EndlessHints,
    /// Sends headers without end.
    EndlessHeaders,
    /// Adds this many headers.
    ManyHeaders(usize),
    /// Announces a longer body than it sends.
    ShortBody,
    /// Sends a second response after the answer, without a second request.
    ExtraResponse,
    /// Sends the body, and never ends it.
    HangingBody,
    /// Pads the body with spaces to this many bytes.
    HugeBody(usize),
    /// Pads the body with spaces to this many bytes and compresses it with gzip, to about a thousandth.
    GzipBomb(usize),
}

names!(Breakage:
    Close, Reset, Silence, Cut, Slow, Garbage, EndlessHints, EndlessHeaders, ManyHeaders, ShortBody,
    ExtraResponse, HangingBody, HugeBody, GzipBomb,
);

/// A response without a request.
const EXTRA_RESPONSE: &[u8] =
    b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Smuggled: yes\r\n\r\nsmuggled";

/// The number of lines in one write of an endless answer.
const LINES: usize = 500;

impl Breakage {
    /// Applies the part of the breakage that is in the response.
    pub(crate) fn spoil(&self, response: Response<Body>) -> Response<Body> {
        match self {
            Self::ManyHeaders(count) => add_headers(response, *count),
            Self::ShortBody => announce_longer_body(response),
            Self::HangingBody => response.map(Body::hanging),
            Self::HugeBody(length) => response.map(|body| body.padded(*length)),
            Self::GzipBomb(length) => compress(response, *length),
            _ => response,
        }
    }

    /// Returns the part of the breakage that is in the connection.
    pub(crate) fn stream_fault(&self) -> StreamFault {
        match self {
            Self::Reset => StreamFault::Reset,
            Self::Cut(bytes) => StreamFault::Cut(*bytes),
            Self::Slow(pause) => StreamFault::Slow(*pause),
            Self::Garbage => {
                StreamFault::Replace(Bytes::from_static(b"\x16\x03\x01 220 ready\r\n\r\n"))
            }
            Self::EndlessHints => StreamFault::Endless {
                first: Bytes::new(),
                repeated: "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(LINES).into(),
            },
            Self::EndlessHeaders => StreamFault::Endless {
                first: Bytes::from_static(b"HTTP/1.1 200 OK\r\n"),
                repeated: "X-Filler: 0123456789abcdef\r\n".repeat(LINES).into(),
            },
            Self::ExtraResponse => StreamFault::Append(Bytes::from_static(EXTRA_RESPONSE)),
            _ => StreamFault::None,
        }
    }
}

fn add_headers(mut response: Response<Body>, count: usize) -> Response<Body> {
    let names =
        (0..count).filter_map(|number| HeaderName::try_from(format!("x-crowd-{number}")).ok());
    response
        .headers_mut()
        .extend(names.map(|name| (name, HeaderValue::from_static("x"))));
    response
}

fn announce_longer_body(response: Response<Body>) -> Response<Body> {
    let announced = response.body().length().saturating_add(100);
    let mut response = response.map(Body::without_length);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(announced));
    response
}

fn compress(response: Response<Body>, length: usize) -> Response<Body> {
    let mut response = response.map(|body| body.compressed(length));
    response
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}
