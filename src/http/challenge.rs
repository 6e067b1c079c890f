//! Reading a 402: the terms of x402, or a response for the caller.

use std::time::Duration;

use http::header::{AGE, CONTENT_ENCODING};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Response;

use super::body::PartlyRead;
use crate::error::{Error, ErrorKind};
use crate::text;
use crate::x402::{Carrier, MAX_BODY, PAYMENT_REQUIRED, PaymentRequired, WireError, decode_header};

/// The number of bytes that show whether a body can be JSON.
const BEGINNING: usize = 64;

/// A 402 that was read.
pub(super) enum Challenge {
    Required(Box<PaymentRequired>),
    /// The 402 belongs to another protocol, or to none. It is unchanged.
    NotX402(Response),
}

/// Whether a 402 comes from a cache, by its `Age` in seconds (RFC 9111, 5.1).
pub(super) fn is_cached(response: &Response) -> bool {
    let age = response
        .headers()
        .get(AGE)
        .and_then(|age| age.to_str().ok());
    response.status() == StatusCode::PAYMENT_REQUIRED && age.is_some_and(|age| age.trim() != "0")
}

/// Returns the terms of a 402 if its header has readable ones, as that of most sellers. The body is not needed then.
pub(super) fn in_header(response: &Response) -> Option<Box<PaymentRequired>> {
    header_terms(response.headers())?.ok().map(Box::new)
}

/// Reads the terms of a 402, within the bounds of header and body.
///
/// A header that cannot be read does not matter if the body has terms.
pub(super) async fn read(response: Response) -> Result<Challenge, Error> {
    let header = match header_terms(response.headers()) {
        Some(Ok(required)) => {
            dispose(response);
            return Ok(Challenge::Required(Box::new(required)));
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    let mut response = PartlyRead::new(response);
    response.read(BEGINNING).await;
    if header.is_none() && !may_hold_terms(response.bytes()) {
        return Ok(Challenge::NotX402(response.into_response()?));
    }
    response.read(MAX_BODY.saturating_add(1)).await;
    if let Some(fault) = response.take_fault().filter(|_| header.is_none()) {
        return Err(Error::http(fault));
    }
    let body = response.bytes();
    let terms = match &header {
        Some(WireError::Ambiguous(_)) => None,
        _ if body.len() > MAX_BODY => Some(Err(WireError::BodyTooLong)),
        _ => Some(PaymentRequired::from_json(body)),
    };
    let error = match (header, terms) {
        (_, Some(Ok(required))) => {
            let required = required.carried_by(Carrier::Body);
            return Ok(Challenge::Required(Box::new(required)));
        }
        (None, Some(Err(WireError::Json(_) | WireError::NoVersion { .. })) | None) => {
            return Ok(Challenge::NotX402(response.into_response()?));
        }
        (Some(error), _) | (None, Some(Err(error))) => error,
    };
    Err(unreadable(error, body))
}

/// Whether the terms of a 402 can only be in a body that is still encoded.
pub(super) fn is_encoded(response: &Response) -> bool {
    let headers = response.headers();
    response.status() == StatusCode::PAYMENT_REQUIRED
        && headers.contains_key(CONTENT_ENCODING)
        && !headers.contains_key(PAYMENT_REQUIRED)
}

/// Returns the terms in the header. Several headers must be the same.
fn header_terms(headers: &HeaderMap) -> Option<Result<PaymentRequired, WireError>> {
    let mut values = headers.get_all(PAYMENT_REQUIRED).into_iter();
    let first = values.next()?;
    let read = |value: &HeaderValue| decode_header(value.as_bytes()).ok();
    if values
        .any(|other| other != first && read(other).is_none_or(|json| Some(json) != read(first)))
    {
        let message = "two PAYMENT-REQUIRED headers differ";
        return Some(Err(WireError::Ambiguous(message.to_owned())));
    }
    Some(PaymentRequired::from_header(first.as_bytes()))
}

/// The error of a 402 that says x402 and cannot be read. It keeps the beginning of the body for the caller.
fn unreadable(error: WireError, body: &[u8]) -> Error {
    let shown = text::excerpt(String::from_utf8_lossy(body).trim());
    let quoted = text::quoted(&shown);
    let message = format!("the terms of the 402 cannot be read: {error}; its body: {quoted}");
    Error::new(ErrorKind::Malformed, message)
        .because(error)
        .with_status(StatusCode::PAYMENT_REQUIRED)
        .with_reason(Some(shown))
}

/// Terms in a body are JSON, whatever its content type says. bursar does not read a page for people.
fn may_hold_terms(beginning: &[u8]) -> bool {
    let beginning = beginning.trim_ascii_start();
    let beginning = beginning.strip_prefix(b"\xef\xbb\xbf").unwrap_or(beginning);
    let first = beginning.trim_ascii_start().first();
    first.is_none_or(|first| matches!(first, b'{' | b'"'))
}

/// Reads an unused body to its end in the background, so that its connection can be used again. It takes at most a second
/// and 64 KiB.
pub(super) fn dispose(mut response: Response) {
    const ENOUGH: usize = 64 * 1024;
    if response.content_length() == Some(0) {
        return;
    }
    let small = response
        .content_length()
        .is_none_or(|length| usize::try_from(length).is_ok_and(|length| length <= ENOUGH));
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
