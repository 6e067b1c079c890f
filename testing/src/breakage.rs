//! How an answer breaks on its way to the buyer.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::{HeaderName, HeaderValue, Response};

use super::body::Body;
use super::fault::names;
use super::faulty_stream::Habit;

/// How an answer breaks on its way to the buyer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Breakage {
    /// Closes the connection without an answer.
    Close,
    /// Resets the connection without an answer.
    Reset,
    /// Never answers; ends when the client goes away.
    Silence,
    /// Closes the connection after so many bytes of the answer, wherever that is.
    Cut(usize),
    /// Sends one byte of the answer each time this long has passed.
    Slow(Duration),
    /// Answers with bytes that are not HTTP.
    Garbage,
    /// Answers with interim responses (103) without end.
    EndlessHints,
    /// Answers with headers without end.
    EndlessHead,
    /// Adds so many headers.
    ManyHeaders(usize),
    /// Announces a longer body than it sends.
    ShortBody,
    /// Sends, behind the answer, a second one that nobody asked for.
    Surplus,
    /// Begins the body, and never ends it.
    HangingBody,
    /// Puts spaces behind the body, up to so many bytes.
    HugeBody(usize),
    /// As `HugeBody`, and compresses it to a thousandth with gzip.
    GzipBomb(usize),
}

names!(Breakage:
    Close, Reset, Silence, Cut, Slow, Garbage, EndlessHints, EndlessHead, ManyHeaders, ShortBody, Surplus,
    HangingBody, HugeBody, GzipBomb,
);

/// The answer to a question that nobody asked.
const UNASKED: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-Smuggled: yes\r\n\r\nsmuggled";

/// Lines at a time of what has no end.
const MANY: usize = 500;

impl Breakage {
    /// What breaks in the answer itself.
    pub(super) fn spoil(&self, response: Response<Body>) -> Response<Body> {
        match self {
            Self::ManyHeaders(count) => crowd(response, *count),
            Self::ShortBody => announce_more(response),
            Self::HangingBody => response.map(Body::hanging),
            Self::HugeBody(length) => response.map(|body| body.padded(*length)),
            Self::GzipBomb(length) => bomb(response, *length),
            _ => response,
        }
    }

    /// What breaks on the line that carries it.
    pub(super) fn habit(&self) -> Habit {
        match self {
            Self::Reset => Habit::Reset,
            Self::Cut(bytes) => Habit::Cut(*bytes),
            Self::Slow(pause) => Habit::Slow(*pause),
            Self::Garbage => Habit::Instead(Bytes::from_static(b"\x16\x03\x01 220 ready\r\n\r\n")),
            Self::EndlessHints => Habit::Endless {
                begin: Bytes::new(),
                again: "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(MANY).into(),
            },
            Self::EndlessHead => Habit::Endless {
                begin: Bytes::from_static(b"HTTP/1.1 200 OK\r\n"),
                again: "X-Filler: 0123456789abcdef\r\n".repeat(MANY).into(),
            },
            Self::Surplus => Habit::Surplus(Bytes::from_static(UNASKED)),
            _ => Habit::Honest,
        }
    }
}

fn crowd(mut response: Response<Body>, count: usize) -> Response<Body> {
    let names =
        (0..count).filter_map(|number| HeaderName::try_from(format!("x-crowd-{number}")).ok());
    response
        .headers_mut()
        .extend(names.map(|name| (name, HeaderValue::from_static("x"))));
    response
}

fn announce_more(response: Response<Body>) -> Response<Body> {
    let announced = response.body().length().saturating_add(100);
    let mut response = response.map(Body::untold);
    response
        .headers_mut()
        .insert(CONTENT_LENGTH, HeaderValue::from(announced));
    response
}

fn bomb(response: Response<Body>, length: usize) -> Response<Body> {
    let mut response = response.map(|body| body.compressed(length));
    response
        .headers_mut()
        .insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    response
}
