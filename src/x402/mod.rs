//! x402 version 1 and version 2: terms, quotes, payments and receipts. Nothing here sends anything.
//!
//! bursar accepts terms with missing, `null` and unknown fields, and names in another spelling. It skips an offer that it
//! cannot read and keeps the others. It refuses members that contradict each other.

mod codec;
mod extensions;
mod failure;
mod members;
mod offer;
mod payload;
mod quote;
mod receipt;
mod required;
mod scheme;
mod settlement;
mod signed;
mod unpayable;
mod words;

pub(crate) use codec::{MAX_BODY, decode_header, encode_header};
pub(crate) use extensions::Extensions;
pub(crate) use extensions::{Additions, Sponsor, Sponsored};
pub(crate) use failure::Failure;
pub use offer::Offer;
pub(crate) use offer::Terms;
pub(crate) use payload::{
    PaymentProof, decode_authorization, encode_payment, offers_gas, version_1_header,
};
pub(crate) use quote::By;
pub use quote::{Flow, Quote};
pub(crate) use receipt::{Claim, charge};
pub use receipt::{Receipt, SignedPayment};
pub(crate) use required::Carrier;
pub use required::PaymentRequired;
pub use scheme::{ParsePaymentMethodError, PaymentMethod, Scheme};
pub use settlement::SettlementResponse;
pub(crate) use signed::signed_receipt;
pub use signed::{SellerSignature, Verification};
pub use unpayable::Unpayable;
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

/// The error of `serde_json` can quote the seller, so its text is made safe here and not when it is shown.
impl From<serde_json::Error> for WireError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(crate::text::excerpt(&error.to_string()))
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
    /// The header is neither base64 nor JSON.
    #[error("the header is neither base64 nor JSON: {0}")]
    Base64(String),
    /// The JSON is not an x402 message.
    #[error("the JSON is not an x402 message: {0}")]
    Json(String),
    /// The JSON has no version, so it is not an x402 message.
    #[error("no x402Version{}", if *.single_offer { "; it looks like a single offer" } else { "" })]
    NoVersion {
        /// Whether it has the members of an offer.
        single_offer: bool,
    },
    /// A member of the message has the wrong form.
    #[error("the x402 message cannot be read: {0}")]
    Unreadable(String),
    /// The message contradicts itself, or two messages contradict each other. bursar chooses none of them.
    #[error("the x402 message is ambiguous: {0}")]
    Ambiguous(String),
    /// The response has several receipts with different outcomes or transactions.
    #[error("the response has receipts that contradict each other")]
    Contradiction,
    /// The version is neither 1 nor 2.
    #[error("x402Version {0} is not supported; expected 1 or 2")]
    Version(u64),
}
