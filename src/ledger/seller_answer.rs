//! A seller's answer to a payment, as far as a dispute needs it.

use alloy::primitives::B256;
use serde::{Deserialize, Serialize};

use crate::json_text;
use crate::x402::SellerSignature;

/// A seller's answer to a payment. Everything in it is the seller's claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SellerAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The `Date` header, at most 160 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub date: Option<String>,
    /// The `Content-Type` header, at most 160 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// The URL for refund requests: the `Link` header with `rel="refund-request"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refund_request: Option<String>,
    /// The decoded receipt header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<ClaimedReceipt>,
    /// The signed receipt, and the result of checking its signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed_receipt: Option<SellerSignature>,
    /// The hash of the body, if the call failed after a payment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<BodyDigest>,
}

impl SellerAnswer {
    /// Returns an answer with a status and nothing else.
    #[must_use]
    pub const fn of(status: u16) -> Self {
        Self {
            status,
            date: None,
            content_type: None,
            refund_request: None,
            receipt: None,
            signed_receipt: None,
            body: None,
        }
    }
}

/// The content of a receipt header. Texts have at most 160 characters and no long hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the names are those of x402")]
pub struct ClaimedReceipt {
    pub success: bool,
    #[serde(with = "json_text::optional_hash")]
    pub transaction: Option<B256>,
    pub network: String,
    pub payer: Option<String>,
    /// The charged amount as the seller wrote it, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
}

/// The hash of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BodyDigest {
    /// The keccak256 hash of the bytes that bursar read.
    #[serde(with = "json_text::hash")]
    pub keccak256: B256,
    /// The number of bytes that bursar read.
    pub bytes: u64,
    /// Whether bursar read the whole body.
    pub complete: bool,
}

impl BodyDigest {
    pub(crate) const fn new(keccak256: B256, bytes: u64, complete: bool) -> Self {
        Self {
            keccak256,
            bytes,
            complete,
        }
    }
}
