//! The seller's terms, as the ledger keeps them for a dispute.

use std::borrow::Cow;

use alloy::primitives::keccak256;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::text;
use crate::x402::Quote;
use crate::x402::{Offer, PaymentRequired};

/// Longest terms that the ledger keeps, so that a seller cannot fill the disk.
const LONGEST: usize = 4 * 1024;

/// Returns the offer and the resource in the seller's own words, unless they are too deep. Of longer ones, it returns
/// length and hash.
///
/// Queries are cut off URLs: the ledger keeps none, and sellers repeat the query of the request. It is struck from all
/// other texts, except from the members that bursar checked.
pub(super) fn kept_terms(required: &PaymentRequired, quote: &Quote) -> Option<String> {
    let offer = required.offers().get(quote.offer()).map(Offer::raw);
    let (offer, resource) = (
        without_queries(offer)?,
        without_queries(required.raw_resource())?,
    );
    let terms = [r#"{"offer":"#, &*offer, r#","resource":"#, &*resource, "}"].concat();
    let terms = if terms.len() > LONGEST {
        let (bytes, hash) = (terms.len(), keccak256(terms));
        format!(r#"{{"omitted":{{"bytes":{bytes},"keccak256":"{hash}"}}}}"#)
    } else {
        text::without_long_hex(terms)
    };
    // The signature has a bound of its own, and is not masked: bursar verified it, or left it out.
    let signed = quote.seller_signature();
    let signed = signed.and_then(|signed| serde_json::to_string(signed).ok());
    Some(match (signed, terms.strip_suffix('}')) {
        (Some(signed), Some(terms)) => format!(r#"{terms},"signedOffer":{signed}}}"#),
        _ => terms,
    })
}

/// The members of an offer that bursar checked.
const CHECKED: [&str; 7] = [
    "scheme",
    "network",
    "amount",
    "maxAmountRequired",
    "asset",
    "payTo",
    "maxTimeoutSeconds",
];

fn without_queries(raw: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let json = raw.map_or("null", RawValue::get);
    // A question mark can also be escaped.
    if !json.contains('?') && !json.contains('\\') && text::current().is_none() {
        return Some(json.into());
    }
    let mut value = serde_json::from_str(json).ok()?;
    cut_queries(&mut value);
    text::strike_json(&mut value, &CHECKED);
    Some(value.to_string().into())
}

/// Recursion is bounded: serde_json reads no value that is deeper than its limit.
fn cut_queries(value: &mut Value) {
    match value {
        Value::String(text) if text.contains("://") || !text.contains(' ') => {
            if let Some(query) = text.find('?') {
                text.truncate(query);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(cut_queries),
        Value::Object(values) => values.values_mut().for_each(cut_queries),
        _ => {}
    }
}
