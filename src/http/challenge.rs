//! Reading a 402: the terms of x402, or a response for the caller.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use reqwest::Response;
use serde::Deserialize;

use super::body::PartlyRead;
use crate::error::Error;
use crate::x402::{MAX_BODY, PAYMENT_REQUIRED, PaymentRequired, WireError};

/// A 402 that was read.
pub(super) enum Challenge {
    Required(Box<PaymentRequired>),
    /// The 402 belongs to another protocol, or to none. It is unchanged.
    NotX402(Response),
}

/// Reads the terms of a 402, within the bounds of header and body.
pub(super) async fn read(response: Response) -> Result<Challenge, Error> {
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

/// Terms in a body are JSON. bursar does not read a page for people.
fn may_hold_terms(response: &Response) -> bool {
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    content_type.is_none_or(|kind| kind.contains("json") || kind.starts_with("text/plain"))
}

/// Reads an unused body to its end in the background, so that its connection can be used again. It takes at most a second
/// and 64 KiB.
fn dispose(mut response: Response) {
    const ENOUGH: usize = 64 * 1024;
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

async fn read_body(response: Response) -> Result<Challenge, Error> {
    let mut response = PartlyRead::new(response);
    response.read(MAX_BODY.saturating_add(1)).await;
    if let Some(fault) = response.take_fault() {
        return Err(Error::http(fault));
    }
    if response.length() > MAX_BODY {
        return Err(WireError::BodyTooLong.into());
    }
    match terms(&response.bytes()) {
        Terms::Read(required) => Ok(Challenge::Required(required)),
        Terms::Malformed(error) => Err(error.into()),
        Terms::None => Ok(Challenge::NotX402(response.into_response()?)),
    }
}

enum Terms {
    Read(Box<PaymentRequired>),
    /// The body claims to be x402 and cannot be read.
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
