//! The wire: x402 version 2 and version 1, as bytes to values and back.
//!
//! Reading is tolerant: optional fields may be missing or `null`, unknown ones are kept, and an
//! offer that cannot be understood does not spoil its neighbours. Nothing here decides anything.

mod codec;
mod extensions;
mod payload;
mod required;
mod settlement;

pub(crate) use codec::{MAX_BODY, decode_header, encode_header};
pub(crate) use extensions::Extensions;
pub(crate) use payload::{Proof, decode_authorization, encode_payment};
pub(crate) use required::Terms;
pub use required::{Offer, PaymentRequired};
pub use settlement::SettlementResponse;

use http::HeaderName;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// Terms in the body, `X-PAYMENT`, networks by name.
    V1,
    /// Terms in `PAYMENT-REQUIRED`, `PAYMENT-SIGNATURE`, networks by CAIP-2.
    V2,
}

impl Version {
    /// `x402Version` on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// The request header that carries the payment.
    #[must_use]
    pub const fn payment_header(self) -> HeaderName {
        match self {
            Self::V1 => X_PAYMENT,
            Self::V2 => PAYMENT_SIGNATURE,
        }
    }
}

/// Response header with version 2's terms.
pub(crate) const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");
pub(crate) const PAYMENT_SIGNATURE: HeaderName = HeaderName::from_static("payment-signature");
pub(crate) const X_PAYMENT: HeaderName = HeaderName::from_static("x-payment");
/// Response headers with a receipt. Both are read whatever the version: `x402-axum` answers
/// version 1 under version 2's name.
pub(crate) const RECEIPTS: [HeaderName; 2] = [
    HeaderName::from_static("payment-response"),
    HeaderName::from_static("x-payment-response"),
];

/// The bytes are not what x402 says they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// A header is longer than 64 KiB.
    #[error("the header has {length} bytes; at most {limit} are read", limit = codec::MAX_HEADER)]
    HeaderTooLong {
        /// Its length in bytes.
        length: usize,
    },
    /// The body of a 402 is longer than 1 MiB.
    #[error("the body is longer than {limit} bytes", limit = codec::MAX_BODY)]
    BodyTooLong,
    /// Not standard base64 (RFC 4648, `+` and `/`).
    #[error("the header is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Not the JSON that x402 describes.
    #[error("the JSON is not an x402 message: {}", crate::text::excerpt(&.0.to_string()))]
    Json(#[from] serde_json::Error),
    /// Several receipts that say different things of the money.
    #[error("the response has receipts that contradict each other")]
    Contradiction,
    /// A version other than 1 and 2.
    #[error("x402Version {0} is not supported; expected 1 or 2")]
    Version(u64),
}
