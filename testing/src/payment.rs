//! Requests of buyers, and the payments in them.

use std::fmt;

use alloy::primitives::{Address, B256, U256, hex};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_json::Value;

use crate::headers::{PAYMENT_SIGNATURE, X_PAYMENT};
use crate::permit::Permit;
use crate::sponsorship::Sponsorship;
use bursar::Timestamp;
use bursar::x402::Version;

/// A request that reached a paywall or a bazaar.
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let route = Route::get("/report").price(usd!("0.01"));
/// let seller = Paywall::builder().route(route).start().await?;
/// let http = bursar::Client::builder().allow_http_loopback(true).build()?;
/// http.get(seller.url("/report?day=1")).header("x-trace", "7").no_payment().send().await?;
///
/// let request = &seller.requests()[0];
/// assert_eq!((request.path(), request.target.as_str()), ("/report", "/report?day=1"));
/// assert_eq!(request.header("x-trace"), Some("7"));
/// assert!(request.payment.is_none());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReceivedRequest {
    /// The method.
    pub method: Method,
    /// The path, with the query.
    pub target: String,
    /// The headers. Payment headers are marked sensitive, so that `Debug` does not show them.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The payment, if the request had a payment header. Of two payments, this is the one of version 2.
    pub payment: Option<PresentedPayment>,
    /// The payment of version 1, if the request has payments of both versions.
    pub(crate) version_1: Option<PresentedPayment>,
    /// The time at which the request had arrived.
    pub at: Timestamp,
}

impl ReceivedRequest {
    pub(crate) fn new(head: http::request::Parts, body: Bytes, at: Timestamp) -> Self {
        let mut headers = head.headers;
        let sign_in = http::HeaderName::from_static(crate::sign_in::SIGN_IN_WITH_X);
        for name in [PAYMENT_SIGNATURE, X_PAYMENT, sign_in] {
            if let Some(value) = headers.get_mut(name) {
                value.set_sensitive(true);
            }
        }
        let version_1 = PresentedPayment::read(&headers, Version::V1);
        let (payment, version_1) = match PresentedPayment::read(&headers, Version::V2) {
            Some(payment) => (Some(payment), version_1),
            None => (version_1, None),
        };
        let target = head
            .uri
            .path_and_query()
            .map_or_else(|| head.uri.path().to_owned(), ToString::to_string);
        Self {
            method: head.method,
            target,
            payment,
            version_1,
            headers,
            body,
            at,
        }
    }

    /// Returns the payments of both versions.
    pub(crate) fn payments(&self) -> impl Iterator<Item = &PresentedPayment> {
        self.payment.iter().chain(&self.version_1)
    }

    /// Returns the path without the query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target
            .split_once('?')
            .map_or(&self.target, |(path, _)| path)
    }

    /// Returns the body as JSON, or `None` if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    /// Returns the value of a header, or `None` if it is absent or not text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// A payment header and the parts of it that can be parsed.
///
/// It contains a signature. `Debug` does not show the signature.
#[derive(Clone)]
#[non_exhaustive]
pub struct PresentedPayment {
    /// The version of the header: `PAYMENT-SIGNATURE` is version 2, `X-PAYMENT` is version 1.
    pub version: Version,
    /// The value of the header.
    pub header: String,
    /// The JSON in the header, if it is base64 of JSON.
    pub json: Option<Value>,
    /// The authorization of EIP-3009 in the JSON, if it is complete.
    pub authorization: Option<Authorization>,
    /// The permit of Permit2 in the JSON, if it is complete.
    pub permit: Option<Permit>,
}

impl fmt::Debug for PresentedPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PresentedPayment")
            .field("version", &self.version)
            .field("authorization", &self.authorization)
            .field("permit", &self.permit)
            .finish_non_exhaustive()
    }
}

impl PresentedPayment {
    fn read(headers: &HeaderMap, version: Version) -> Option<Self> {
        let value = headers.get(version.payment_header())?;
        let json = decode(value.as_bytes());
        let authorization = json
            .as_ref()
            .and_then(|json| Authorization::read(json.pointer("/payload/authorization")?));
        let permit = json
            .as_ref()
            .and_then(|json| Permit::read(json.pointer("/payload/permit2Authorization")?));
        let header = String::from_utf8_lossy(value.as_bytes()).into_owned();
        Some(Self {
            version,
            header,
            json,
            authorization,
            permit,
        })
    }

    /// Returns the payment identifier, if the buyer sent that extension.
    #[must_use]
    pub fn identifier(&self) -> Option<&str> {
        self.json
            .as_ref()?
            .pointer("/extensions/payment-identifier/info/id")?
            .as_str()
    }

    pub(crate) fn signature(&self) -> Option<[u8; 65]> {
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

/// An EIP-3009 transfer authorization, as the buyer signed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Authorization {
    /// The payer.
    pub from: Address,
    /// The payee.
    pub to: Address,
    /// The amount, in atomic units of the token.
    pub value: U256,
    /// The time after which it can be settled, in Unix seconds.
    pub valid_after: u64,
    /// The time before which it can be settled, in Unix seconds.
    pub valid_before: u64,
    /// The nonce. The token accepts each nonce of a payer once.
    pub nonce: B256,
}

/// The authorization as JSON. All fields are strings; numbers are decimal.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    from: Address,
    to: Address,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: B256,
}

impl Authorization {
    fn read(json: &Value) -> Option<Self> {
        let wire = Wire::deserialize(json).ok()?;
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

/// A payment that the buyer signed, by either method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signed {
    Transfer(Authorization),
    Permit(Box<SignedPermit>),
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SignedPermit {
    pub(crate) permit: Permit,
    /// The calldata of the settlement contains it.
    pub(crate) signature: [u8; 65],
    /// The approval that comes with the payment.
    pub(crate) sponsorship: Option<Sponsorship>,
}

impl fmt::Debug for SignedPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedPermit").field(&self.permit).finish()
    }
}

impl Signed {
    pub(crate) fn payer(&self) -> Address {
        match self {
            Self::Transfer(transfer) => transfer.from,
            Self::Permit(signed) => signed.permit.from,
        }
    }

    pub(crate) fn nonce(&self) -> B256 {
        match self {
            Self::Transfer(transfer) => transfer.nonce,
            Self::Permit(signed) => B256::from(signed.permit.nonce),
        }
    }

    /// Returns the largest amount that can be settled.
    pub(crate) fn ceiling(&self) -> U256 {
        match self {
            Self::Transfer(transfer) => transfer.value,
            Self::Permit(signed) => signed.permit.amount,
        }
    }

    /// Returns whether the buyer left the amount to the seller.
    pub(crate) fn is_upto(&self) -> bool {
        matches!(self, Self::Permit(signed) if signed.permit.facilitator.is_some())
    }

    /// Returns whether a contract accepts it at this time. EIP-3009 excludes the last second, and Permit2 includes it.
    pub(crate) fn is_valid_at(&self, now: u64) -> bool {
        match self {
            Self::Transfer(transfer) => now < transfer.valid_before,
            Self::Permit(signed) => now <= signed.permit.deadline,
        }
    }
}
