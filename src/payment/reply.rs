//! The head of a seller's answer to a payment.

use std::time::Duration;

use http::header::{CONTENT_TYPE, DATE, HeaderName, LINK, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use crate::clock::Timestamp;
use crate::ledger::{BodyDigest, ClaimedReceipt, SellerAnswer};
use crate::money::TransferMethod;
use crate::origin::Origin;
use crate::text;
use crate::x402::{
    Claim, Failure, PAYMENT_REQUIRED, PaymentRequired, SettlementResponse, SignedPayment,
    Verification, WireError, signed_receipt,
};

/// The difference to the seller's clock that is no reason for a refusal.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);
/// The reason with which official sellers ask for an approval.
const NO_ALLOWANCE: &str = "permit2_allowance_required";
/// Longest link that the ledger keeps.
const LONGEST_LINK: usize = 2048;

/// A 402 that answers a payment and has no matching receipt.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) source: Source,
    pub(super) failure: Failure,
    /// The seller's words, cut and tamed.
    pub(super) reason: Option<String>,
}

/// The part of a 402 that holds the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A receipt of a failure: somebody tried to settle, or refused to.
    Receipt,
    /// New terms: the seller refuses the payment before it settles.
    Terms,
    /// Neither. The 402 can come from a gateway, or from the seller's own supplier.
    Other,
}

impl Refusal {
    /// Whether somebody tried to settle and failed, by the receipt's own words.
    pub(super) fn tried_to_settle(&self) -> bool {
        let reason = self.reason.as_deref().unwrap_or_default();
        self.source == Source::Receipt
            && (!reason.starts_with("invalid_") || reason.contains("transaction"))
    }

    /// Whether the seller may have taken the payment all the same.
    pub(super) fn is_unresolved(&self) -> bool {
        self.failure == Failure::Uncertain || self.source == Source::Other
    }
}

/// Whether the words only say that a payment is required, as every 402 does.
fn is_generic(error: &str) -> bool {
    let words = error.to_ascii_lowercase().replace(['_', '-'], " ");
    words == "payment required" || words.ends_with("header is required")
}

/// The head of a seller's answer, over any transport. The receipt in it is decoded once.
#[derive(Debug)]
pub(crate) struct ReplyHead {
    /// The HTTP status, or the one that stands for an answer of MCP.
    pub(crate) status: StatusCode,
    pub(crate) claim: Claim,
    /// The time after which the seller wants the request again.
    pub(crate) retry_after: Option<Duration>,
    /// Whether the transport calls the answer temporary: the same bytes may bring another one.
    temporary: bool,
    /// Whether this is a 412 that answers a payment by Permit2.
    may_lack_allowance: bool,
    /// Whether the terms of that 412 say that Permit2 may not move the tokens of the payer.
    lacks_allowance: bool,
    record: SellerAnswer,
}

impl ReplyHead {
    /// Reads the head of an HTTP response.
    pub(crate) fn http(payment: &SignedPayment, status: StatusCode, headers: &HeaderMap) -> Self {
        let header = |name: HeaderName| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(text::excerpt)
        };
        let receipt = SettlementResponse::from_headers(headers);
        let record = SellerAnswer {
            status: status.as_u16(),
            date: header(DATE),
            content_type: header(CONTENT_TYPE),
            refund_request: refund_request(headers),
            receipt: claimed(receipt.as_ref()),
            signed_receipt: None,
            body: None,
        };
        let may_lack_allowance = may_lack_allowance(payment, status);
        let lacks_allowance = may_lack_allowance
            && headers.get(PAYMENT_REQUIRED).is_some_and(|terms| {
                let terms = PaymentRequired::from_header(terms.as_bytes()).ok();
                terms.is_some_and(|terms| terms.error().is_some_and(says_no_allowance))
            });
        let temporary = match status {
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS => true,
            status => status.is_server_error(),
        };
        Self {
            status,
            claim: Claim::of(payment, receipt),
            retry_after: retry_after(headers),
            temporary,
            may_lack_allowance,
            lacks_allowance,
            record,
        }
    }

    /// Takes the parts of an answer that has no headers.
    #[cfg(feature = "mcp")]
    pub(crate) fn of_call(
        payment: &SignedPayment,
        status: StatusCode,
        receipt: Option<Result<SettlementResponse, WireError>>,
    ) -> Self {
        let record = SellerAnswer {
            receipt: claimed(receipt.as_ref()),
            ..SellerAnswer::of(status.as_u16())
        };
        let claim = Claim::of(payment, receipt);
        Self {
            status,
            // A failure without a receipt may have executed the tool. With one, the seller owes the goods.
            temporary: claim.is_matching() && status.is_server_error(),
            claim,
            retry_after: None,
            may_lack_allowance: false,
            lacks_allowance: false,
            record,
        }
    }

    /// Checks the signed receipt, if the answer has one and it was not checked before.
    pub(super) fn check_receipt(
        &mut self,
        payment: &SignedPayment,
        origin: &Origin,
        now: Timestamp,
    ) {
        if self.record.signed_receipt.is_some() {
            return;
        }
        let settlement = self.claim.settlement();
        self.record.signed_receipt =
            settlement.and_then(|settlement| signed_receipt(settlement, payment, origin, now));
        if let (Claim::Matching(receipt), Some(signed)) =
            (&mut self.claim, &self.record.signed_receipt)
        {
            receipt.set_signature(signed.verification.clone());
        }
    }

    /// Returns the result of checking the signed receipt.
    pub(super) fn receipt_signature(&self) -> Option<&Verification> {
        let signed = self.record.signed_receipt.as_ref();
        signed.map(|signed| &signed.verification)
    }

    /// Whether the same bytes may bring the goods: the answer is temporary, or it leaves open that the payment
    /// settles. A seller that settled the payment may deliver at the next attempt.
    pub(crate) fn is_temporary(&self) -> bool {
        self.temporary || self.claim.is_pending()
    }

    /// Returns why the seller refuses the payment, if the answer is a 402 without a matching receipt, or the 412 with which
    /// official sellers ask for an approval of Permit2.
    pub(super) fn refusal(
        &self,
        terms: Option<&PaymentRequired>,
        words: Option<&str>,
    ) -> Option<Refusal> {
        if self.claim.is_matching() {
            return None;
        }
        let says_so = self.may_lack_allowance && words.is_some_and(says_no_allowance);
        if self.lacks_allowance || says_so {
            return Some(Refusal {
                source: Source::Terms,
                failure: Failure::NoAllowance,
                reason: Some(NO_ALLOWANCE.to_owned()),
            });
        }
        if self.status != StatusCode::PAYMENT_REQUIRED {
            return None;
        }
        let failed = self.claim.failed();
        let (source, reason) = match (failed.and_then(SettlementResponse::reason), terms) {
            (Some(reason), _) => (Source::Receipt, Some(reason)),
            (None, Some(terms)) => {
                let named = terms.error().filter(|error| !is_generic(error));
                (Source::Terms, named.or(words).or_else(|| terms.error()))
            }
            (None, None) if failed.is_some() => (Source::Receipt, words),
            (None, None) => (Source::Other, words),
        };
        let failure = match (source, reason) {
            (_, None) => Failure::Refused,
            (Source::Other, Some(text)) => Failure::of_foreign(text),
            (_, Some(text)) => Failure::of(text),
        };
        Some(Refusal {
            source,
            failure,
            reason: reason.map(text::excerpt),
        })
    }

    /// Describes the difference between the seller's clock and this one, if it can be the reason of a refusal.
    pub(super) fn clock_error(&self, now: Timestamp) -> Option<String> {
        let date =
            jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(self.record.date.as_deref()?);
        let seller = Timestamp::from_millis(date.ok()?.as_millisecond());
        let (behind, ahead) = (now.until(seller), seller.until(now));
        if behind.max(ahead) <= CLOCK_TOLERANCE {
            return None;
        }
        let side = if ahead.is_zero() {
            "behind"
        } else {
            "ahead of"
        };
        Some(format!(
            "the clock of this machine is {} s {side} the seller's, which can be the reason: correct it",
            behind.max(ahead).as_secs()
        ))
    }

    /// Returns the answer as the ledger keeps it, without its body.
    pub(super) fn record(&self) -> SellerAnswer {
        self.record.clone()
    }

    /// Returns the receipt, and the answer as the ledger keeps it.
    pub(super) fn into_parts(self, body: Option<BodyDigest>) -> (Claim, SellerAnswer) {
        (
            self.claim,
            SellerAnswer {
                body,
                ..self.record
            },
        )
    }
}

/// Whether this status can ask for an approval of Permit2.
fn may_lack_allowance(payment: &SignedPayment, status: StatusCode) -> bool {
    let by_permit = payment.method.transfer_method() == TransferMethod::Permit2;
    by_permit && status == StatusCode::PRECONDITION_FAILED
}

fn says_no_allowance(error: &str) -> bool {
    Failure::of(error) == Failure::NoAllowance
}

/// Reads `Retry-After` in seconds. bursar does not wait for a date.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get(RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

fn claimed(receipt: Option<&Result<SettlementResponse, WireError>>) -> Option<ClaimedReceipt> {
    let claim = receipt?.as_ref().ok()?;
    Some(ClaimedReceipt {
        success: claim.success,
        transaction: claim
            .transaction
            .strip_prefix("0x")
            .unwrap_or(&claim.transaction)
            .parse()
            .ok(),
        network: text::excerpt(&claim.network),
        payer: claim.payer.as_deref().map(text::excerpt),
        amount: claim.amount.as_deref().map(text::excerpt),
        error_reason: claim.error_reason.as_deref().map(text::excerpt),
    })
}

/// Reads the target of `Link: <…>; rel="refund-request"` (RFC 8288).
fn refund_request(headers: &HeaderMap) -> Option<String> {
    let links = headers
        .get_all(LINK)
        .into_iter()
        .filter_map(|value| value.to_str().ok());
    let target = links
        .flat_map(split_links)
        .find_map(|(target, parameters)| {
            parameters
                .split(';')
                .any(is_refund_request)
                .then_some(target)
        })?;
    (target.len() <= LONGEST_LINK)
        .then(|| text::without_long_hex(text::struck(target).into_owned()))
}

fn is_refund_request(parameter: &str) -> bool {
    let Some((name, relations)) = parameter.split_once('=') else {
        return false;
    };
    let relations = relations.trim().trim_matches('"');
    name.trim().eq_ignore_ascii_case("rel")
        && relations
            .split_ascii_whitespace()
            .any(|relation| relation.eq_ignore_ascii_case("refund-request"))
}

/// Splits a header into target and parameters of each link. A target may contain commas and ends with `>`.
fn split_links(header: &str) -> Vec<(&str, &str)> {
    let starts = header.split('<').skip(1);
    starts.filter_map(|link| link.split_once('>')).collect()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn link(value: &'static str) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(LINK, HeaderValue::from_static(value));
        refund_request(&headers)
    }

    #[test]
    fn the_refund_link_is_found_among_others() {
        let found = link(
            "</next>; rel=next, <https://a.example/refund?a=1,2>; title=x; rel=\"help refund-request\"",
        );
        assert_eq!(found.as_deref(), Some("https://a.example/refund?a=1,2"));
        assert_eq!(link("<https://a.example/>; rel=\"refund-policy\""), None);
        assert_eq!(link("rel=refund-request"), None);
    }
    #[test]
    fn only_seconds_are_read_as_retry_after() {
        let headers =
            |value| HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))]);
        assert_eq!(retry_after(&headers("7")), Some(Duration::from_secs(7)));
        assert_eq!(retry_after(&headers("Wed, 21 Oct 2026 07:28:00 GMT")), None);
        assert_eq!(retry_after(&headers("-1")), None);
    }
}
