//! x402 version 1 and version 2: terms, quotes, payments and receipts. Nothing here sends anything.
//!
//! bursar accepts terms with missing, `null` and unknown fields. It skips an offer that it cannot
//! read and keeps the others.

mod codec;
mod extensions;
mod failure;
mod payload;
mod quote;
mod receipt;
mod required;
mod settlement;
mod words;

pub(crate) use codec::{MAX_BODY, decode_header, encode_header};
pub(crate) use extensions::Extensions;
pub(crate) use failure::Failure;
pub(crate) use payload::{ExactPayload, decode_authorization, encode_payment};
pub use quote::{Flow, Quote, Unpayable};
pub(crate) use receipt::Claim;
pub use receipt::{Receipt, SignedPayment};
pub(crate) use required::Terms;
pub use required::{Offer, PaymentRequired};
pub use settlement::SettlementResponse;
pub(crate) use words::words;

use http::HeaderName;

/// A version of the x402 protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// Version 1: terms in the body, payment in `X-PAYMENT`, networks by name.
    V1,
    /// Version 2: terms in `PAYMENT-REQUIRED`, payment in `PAYMENT-SIGNATURE`, networks in CAIP-2.
    V2,
}

impl Version {
    /// Returns the value of `x402Version`.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// Returns the name of the request header that carries the payment.
    #[must_use]
    pub const fn payment_header(self) -> HeaderName {
        match self {
            Self::V1 => X_PAYMENT,
            Self::V2 => PAYMENT_SIGNATURE,
        }
    }
}

/// The response header with the terms of version 2.
pub(crate) const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
pub(crate) const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
pub(crate) const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// The response headers that can hold a receipt. bursar reads both in either version, because
/// `x402-axum` answers a version 1 payment with the header of version 2.
pub(crate) const RECEIPTS: [HeaderName; 2] = [
    HeaderName::from_static("payment-response"),
    HeaderName::from_static("x-payment-response"),
];

/// The error of reading an x402 header or body.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The header is longer than 64 KiB.
    #[error("the header has {length} bytes; at most {limit} are read", limit = codec::MAX_HEADER)]
    HeaderTooLong {
        /// The length of the header in bytes.
        length: usize,
    },
    /// The body of the 402 is longer than 1 MiB.
    #[error("the body is longer than {limit} bytes", limit = codec::MAX_BODY)]
    BodyTooLong,
    /// The header is not standard base64 (RFC 4648, with `+` and `/`).
    #[error("the header is not base64: {0}")]
    Base64(String),
    /// The JSON is not an x402 message.
    #[error("the JSON is not an x402 message: {}", crate::text::excerpt(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// The response has several receipts with different outcomes or transactions.
    #[error("the response has receipts that contradict each other")]
    Contradiction,
    /// The version is neither 1 nor 2.
    #[error("x402Version {0} is not supported; expected 1 or 2")]
    Version(u64),
}
