//! What a seller's answer says, as the books keep it.

use http::header::{CONTENT_TYPE, DATE, HeaderName, LINK};
use http::{HeaderMap, StatusCode};

use crate::ledger::{BodyDigest, ClaimedReceipt, SellerAnswer};
use crate::text;
use crate::x402::SettlementResponse;

/// Longest link that is kept.
const LONGEST_LINK: usize = 2048;

pub(super) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: Option<BodyDigest>,
) -> SellerAnswer {
    let header = |name: HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(text::excerpt)
    };
    SellerAnswer {
        status: status.as_u16(),
        date: header(DATE),
        content_type: header(CONTENT_TYPE),
        refund_request: refund_request(headers),
        receipt: SettlementResponse::from_headers(headers)
            .and_then(Result::ok)
            .map(|claim| receipt(&claim)),
        body,
    }
}

fn receipt(claim: &SettlementResponse) -> ClaimedReceipt {
    ClaimedReceipt {
        success: claim.success,
        transaction: claim
            .transaction
            .strip_prefix("0x")
            .and_then(|hash| hash.parse().ok()),
        network: text::excerpt(&claim.network),
        payer: claim.payer.as_deref().map(text::excerpt),
        error_reason: claim.error_reason.as_deref().map(text::excerpt),
    }
}

/// The target of `Link: <…>; rel="refund-request"` (RFC 8288).
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
    (target.len() <= LONGEST_LINK).then(|| text::without_long_hex(target.to_owned()))
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

/// Target and parameters of each link of a header: a target may hold commas, and ends with `>`.
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
}
