//! Offers and receipts that the seller signed: the extension `offer-receipt`.
//!
//! A signature is by the payee (`payTo`) or it is not verified: the extension leaves open who else may sign, and bursar
//! fetches no key. A signature that is wrong for the payee and names no other key is wrong.

mod artifact;
mod jws;
mod offer;
mod receipt;

use std::fmt;

use alloy::primitives::Address;
use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::Url;

pub(super) use offer::{SignedOffer, attach, raw_offers};
pub(crate) use receipt::signed_receipt;

use crate::{json_text, text};

/// The result of checking the seller's signature on an offer or a receipt.
///
/// Read it with [`Quote::signature`](super::Quote::signature) and [`Receipt::signature`](super::Receipt::signature).
///
/// ```
/// use bursar::x402::{Quote, Verification};
///
/// fn describe(quote: &Quote) -> String {
///     match quote.signature() {
///         Verification::Verified { by } => format!("the payee {by} signed this price"),
///         Verification::Wrong { reason } => format!("do not trust this price: {reason}"),
///         other => other.to_string(),
///     }
/// }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verification {
    /// The payee signed exactly this.
    Verified {
        /// The address whose key signed: the payee of the offer or of the payment.
        #[serde(with = "json_text::hash")]
        by: Address,
    },
    /// There is a signature, and bursar cannot tell whether it is good: the algorithm or the format is not supported, the
    /// key would have to be fetched, or the key is not the payee's.
    Unverified {
        /// The reason, at most 160 characters.
        reason: String,
    },
    /// The signature is bad, has expired, or belongs to other terms.
    Wrong {
        /// The reason, at most 160 characters.
        reason: String,
    },
    /// The seller signed nothing.
    #[default]
    Absent,
}

impl Verification {
    /// Returns whether the payee signed exactly this.
    #[must_use]
    pub const fn is_verified(&self) -> bool {
        matches!(self, Self::Verified { .. })
    }

    /// Returns the stable name: `verified`, `unverified`, `wrong` or `absent`.
    ///
    /// ```
    /// use bursar::x402::Verification;
    ///
    /// assert_eq!(Verification::default().name(), "absent");
    /// ```
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Verified { .. } => "verified",
            Self::Unverified { .. } => "unverified",
            Self::Wrong { .. } => "wrong",
            Self::Absent => "absent",
        }
    }

    fn wrong(reason: impl AsRef<str>) -> Self {
        let reason = text::excerpt(reason.as_ref());
        Self::Wrong { reason }
    }

    fn unverified(reason: impl AsRef<str>) -> Self {
        let reason = text::excerpt(reason.as_ref());
        Self::Unverified { reason }
    }

    /// Returns the worse of two results. `Absent` counts as the best.
    fn or_worse(self, other: Self) -> Self {
        if other.badness() > self.badness() {
            other
        } else {
            self
        }
    }

    const fn badness(&self) -> u8 {
        match self {
            Self::Absent => 0,
            Self::Verified { .. } => 1,
            Self::Unverified { .. } => 2,
            Self::Wrong { .. } => 3,
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified { by } => write!(f, "signed by {by}"),
            Self::Unverified { reason } => write!(f, "signed, not verified: {reason}"),
            Self::Wrong { reason } => write!(f, "the signature is wrong: {reason}"),
            Self::Absent => f.write_str("not signed"),
        }
    }
}

/// A seller's signature as the ledger keeps it: the result of its check, and the signed offer or receipt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SellerSignature {
    /// The result of the check, at the time of the purchase.
    pub verification: Verification,
    /// The signed offer or receipt, for others to verify, at most 4 KiB.
    ///
    /// It is `{"omitted": {"bytes", "keccak256"}}` if it is longer, if its URL has a query, or if keeping it is not safe
    /// because bursar did not verify it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<Value>,
}

/// Checks that a signed URL is that of the request. `path` is whether the path must be the same too.
///
/// Sellers behind a proxy that ends TLS name `http`, so the scheme does not matter.
fn names(signed: &str, request: &Url, path: bool) -> Result<(), Verification> {
    let shown = text::excerpt(signed.split('?').next().unwrap_or_default());
    let other = || Verification::unverified(format!("it is signed for another resource: {shown}"));
    let Ok(url) = Url::parse(signed) else {
        return Err(Verification::wrong("its resourceUrl is not a URL"));
    };
    if matches!(url.scheme(), "mcp" | "x402") {
        // A tool of MCP has a URL without a host.
        let name = signed.trim_end_matches('/').rsplit('/').next();
        let asked = percent_decode_str(request.path()).decode_utf8_lossy();
        let tool = asked.rsplit_once("/mcp://tool/").map(|(_, tool)| tool);
        let same = name.is_some_and(|name| tool == Some(name));
        return if same || !path { Ok(()) } else { Err(other()) };
    }
    let port = |url: &Url| match (url.scheme(), url.port()) {
        ("http", Some(443)) => None,
        ("https", Some(80)) => None,
        (_, port) => port,
    };
    if !matches!(url.scheme(), "http" | "https")
        || url.host_str() != request.host_str()
        || port(&url) != port(request)
    {
        return Err(Verification::wrong(format!(
            "it is signed for another seller: {shown}"
        )));
    }
    let query = url.query().filter(|query| !query.is_empty());
    let same = url.path().trim_end_matches('/') == request.path().trim_end_matches('/')
        && (query.is_none() || query == request.query());
    if same || !path { Ok(()) } else { Err(other()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_url_must_be_that_of_the_request() {
        let check = |signed: &str, request: &str| {
            names(signed, &request.parse().unwrap(), true)
                .map_or_else(|worse| worse.name(), |()| "same")
        };
        let asked = "https://api.example.com/report?day=1";
        for same in [
            "https://api.example.com/report",
            "http://api.example.com/report/",
            "https://API.example.com:443/report?day=1",
        ] {
            assert_eq!(check(same, asked), "same", "{same}");
        }
        for other in [
            "https://api.example.com/",
            "https://api.example.com/report?day=2",
            "mcp://tool/report",
        ] {
            assert_eq!(check(other, asked), "unverified", "{other}");
        }
        for foreign in [
            "https://evil.example.com/report",
            "https://api.example.com:8443/report",
            "https://api.example.com.evil.example/report",
            "ftp://api.example.com/report",
            "/report",
            "",
        ] {
            assert_eq!(check(foreign, asked), "wrong", "{foreign}");
        }
        let tool = "https://tools.example.com/mcp/mcp://tool/square";
        assert_eq!(check("mcp://tool/square", tool), "same");
        assert_eq!(check("mcp://tool/cube", tool), "unverified");
    }
}
