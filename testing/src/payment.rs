//! What buyers send: requests, and the payments in them.

use std::fmt;

use alloy::primitives::{Address, B256, U256, hex};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::Value;

use super::headers::{PAYMENT_SIGNATURE, X_PAYMENT};
use bursar::Timestamp;
use bursar::x402::Version;

/// A request that reached the paywall.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The path, with the query.
    pub target: String,
    /// The headers. Payment headers are marked sensitive, so that `Debug` does not show them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The payment, if a payment header came with it.
    pub payment: Option<Presented>,
    /// When it had arrived.
    pub at: Timestamp,
}

impl Received {
    pub(super) fn new(head: http::request::Parts, body: Bytes, at: Timestamp) -> Self {
        let mut headers = head.headers;
        for name in [PAYMENT_SIGNATURE, X_PAYMENT] {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let target = head
            .uri
            .path_and_query()
            .map_or_else(|| head.uri.path().to_owned(), ToString::to_string);
        Self {
            method: head.method,
            target,
            payment: Presented::find(&headers),
            headers,
            body,
            at,
        }
    }

    /// The path, without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&self.target, |(path, _)| path)
    }

    /// A header's value, where it is text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A payment header, taken apart as far as it can be read.
///
/// It holds a signature, which `Debug` does not show.
#[derive(Clone)]
#[non_exhaustive]
pub struct Presented {
    /// Which header it came in: `PAYMENT-SIGNATURE` of version 2 or `X-PAYMENT` of version 1.
    pub version: Version,
    /// The header's value.
    pub header: String,
    /// The JSON in it.
    pub json: Option<Value>,
    /// The authorization in that.
    pub authorization: Option<Authorization>,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented")
            .field("version", &self.version)
            .field("authorization", &self.authorization)
            .finish_non_exhaustive()
    }
}

impl Presented {
    fn find(headers: &HeaderMap) -> Option<Self> {
        let of = |version: Version| Some((version, headers.get(version.payment_header())?));
        let (version, value) = of(Version::V2).or_else(|| of(Version::V1))?;
        let json = decode(value.as_bytes());
        let authorization = json
            .as_ref()
            .and_then(|json| Authorization::read(json.pointer("/payload/authorization")?));
        let header = String::from_utf8_lossy(value.as_bytes()).into_owned();
        Some(Self {
            version,
            header,
            json,
            authorization,
        })
    }

    /// The payment identifier, if the buyer sent that extension.
    #[must_use]
    pub fn identifier(&self) -> Option<&str> {
        self.json
            .as_ref()?
            .pointer("/extensions/payment-identifier/info/id")?
            .as_str()
    }

    pub(super) fn signature(&self) -> Option<[u8; 65]> {
        let text = self
            .json
            .as_ref()?
            .pointer("/payload/signature")?
            .as_str()?;
        hex::decode(text.strip_prefix("0x")?).ok()?.try_into().ok()
    }
}

fn decode(header: &[u8]) -> Option<Value> {
    serde_json::from_slice(&STANDARD.decode(header).ok()?).ok()
}

/// The terms of an EIP-3009 transfer, as a buyer signed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authorization {
    /// Who pays.
    pub from: Address,
    /// Who is paid.
    pub to: Address,
    /// Atomic units of the token.
    pub value: U256,
    /// Unix seconds after which it can be cashed.
    pub valid_after: u64,
    /// Unix seconds before which it can be cashed.
    pub valid_before: u64,
    /// What the token accepts once for each payer.
    pub nonce: B256,
}

/// All six are strings on the wire, numbers in decimal.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transport {
    from: Address,
    to: Address,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: B256,
}

impl Authorization {
    fn read(json: &Value) -> Option<Self> {
        let wire = Transport::deserialize(json).ok()?;
        Some(Self {
            from: wire.from,
            to: wire.to,
            value: U256::from_str_radix(&wire.value, 10).ok()?,
            valid_after: wire.valid_after.parse().ok()?,
            valid_before: wire.valid_before.parse().ok()?,
            nonce: wire.nonce,
        })
    }
}
