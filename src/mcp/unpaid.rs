//! Demands for a payment in results and errors, in the dialects that servers write.

use rmcp::model::{CallToolResult, ErrorData};
use serde_json::{Map, Value};

use super::form::{ELSEWHERE, Form, OLD, STANDARD, TEXT, V1};
use crate::error::{Error, ErrorKind};
use crate::text;
use crate::x402::{PaymentRequired, Version};

/// The JSON-RPC codes of official clients: x402's, and the one of URL elicitation (SEP-1036).
const CODES: [i32; 2] = [402, -32042];
/// Other codes that ask for a payment: two drafts of SEP-2007, and an early proposal for x402.
const OTHER_CODES: [i32; 3] = [-32402, -32803, -402];
/// The places of terms in the `data` of an error, and in the `_meta` of a tool in a list.
const PLACES: [&str; 9] = [
    "x402",
    "x402/error",
    "paymentRequired",
    "paymentRequirements",
    "paymentRequirement",
    "payment_required",
    "payment_requirements",
    "data",
    "accepts",
];
/// The place of Cloudflare's terms in `result._meta`.
const CLOUDFLARE: &str = "x402/error";
/// The longest text that bursar reads.
const LONGEST: usize = 1024 * 1024;

/// A demand for a payment.
pub(super) struct Demand {
    pub(super) terms: PaymentRequired,
    /// The forms of a payment that the server may read, the likeliest first.
    pub(super) forms: &'static [Form],
}

/// Returns the demand in a tool's result, if it has one.
///
/// # Errors
/// When the terms cannot be read, or contradict each other.
pub(super) fn demand(result: &CallToolResult, prose: bool) -> Result<Option<Demand>, Error> {
    let meta = result.meta.as_ref().and_then(|meta| meta.0.get(CLOUDFLARE));
    let meta = meta.and_then(unwrapped);
    let failed = result.is_error == Some(true);
    let structured = result.structured_content.as_ref();
    let structured = structured.filter(|value| failed && is_terms(value));
    if let (Some(one), Some(other)) = (structured, meta) {
        let (one, other) = (read(one)?, read(other)?);
        if one.version() == other.version() && !one.offers_alike(&other) {
            return Err(Error::new(
                ErrorKind::Malformed,
                "the terms in `structuredContent` and in `_meta` contradict each other",
            ));
        }
    }
    if let Some(terms) = structured {
        return Ok(Some(Demand::new(read(terms)?, false)));
    }
    if let Some(terms) = meta {
        return Ok(Some(Demand::new(read(terms)?, true)));
    }
    if !failed {
        return Ok(None);
    }
    let texts = result
        .content
        .iter()
        .filter_map(|content| content.as_text())
        .map(|content| content.text.as_str())
        .filter(|text| text.len() <= LONGEST);
    let whole = texts
        .clone()
        .find_map(|text| unwrapped(&serde_json::from_str(text.trim()).ok()?).cloned());
    let found = whole.or_else(|| {
        let mut texts = texts.filter(|_| prose);
        texts.find_map(|text| unwrapped(&within(text)?).cloned())
    });
    let Some(terms) = found else {
        return Ok(None);
    };
    Ok(Some(Demand::new(read(&terms)?, false)))
}

/// Returns the demand in a JSON-RPC error, if it has one.
///
/// # Errors
/// When the terms cannot be read, or the payment belongs into a place that bursar does not write.
pub(super) fn demand_of_error(error: &ErrorData) -> Result<Option<Demand>, Error> {
    let Some(data) = error.data.as_ref() else {
        return Ok(None);
    };
    let listed = match data.get("payment") {
        Some(Value::Array(list)) => list.as_slice(),
        Some(entry) => std::slice::from_ref(entry),
        None => &[],
    };
    let elsewhere = |entry: &Value| entry.get("paymentRequired").is_some();
    if listed.iter().any(elsewhere) {
        return Err(Error::new(
            ErrorKind::NotPayable,
            format!(
                "the MCP server follows the draft SEP-2007 (error {}), which wants the payment in `params.payment`; \
                 bursar pays in `_meta[\"x402/payment\"]` only",
                error.code.0
            ),
        ));
    }
    let Some(terms) = offered(data) else {
        return Ok(None);
    };
    let mut demand = Demand::new(read(&terms)?, false);
    if !CODES.contains(&error.code.0) && demand.forms.first() == Some(&Form::Object) {
        demand.forms = &ELSEWHERE;
    }
    Ok(Some(demand))
}

impl Demand {
    /// Chooses the forms. Version 1 has more dialects than version 2.
    fn new(terms: PaymentRequired, cloudflare: bool) -> Self {
        let words = terms.error().unwrap_or_default().to_ascii_lowercase();
        let is_text = cloudflare
            || terms.resource_url().is_some_and(|url| {
                url.get(..5)
                    .is_some_and(|scheme| scheme.eq_ignore_ascii_case("x402:"))
            });
        let forms: &'static [Form] = match terms.version() {
            _ if words.contains("x402.payment") => &OLD,
            _ if is_text => &TEXT,
            Version::V1 => &V1,
            Version::V2 => &STANDARD,
        };
        Self { terms, forms }
    }
}

fn is_terms(value: &Value) -> bool {
    value.get("x402Version").is_some_and(Value::is_number)
        && value.get("accepts").is_some_and(Value::is_array)
}

/// Returns the terms, also from the wrapping of version 1.
fn unwrapped(value: &Value) -> Option<&Value> {
    if is_terms(value) {
        return Some(value);
    }
    let error = value.get("x402/error").unwrap_or(value);
    let data = error
        .get("data")
        .filter(|_| error.get("code").and_then(Value::as_i64) == Some(402))?;
    is_terms(data).then_some(data)
}

/// Returns the terms in a value: the value itself, or under one of the known names, where they can also be a list of
/// offers or one offer.
pub(super) fn offered(value: &Value) -> Option<Value> {
    if is_terms(value) {
        return Some(value.clone());
    }
    PLACES.iter().find_map(|place| {
        let found = value.get(place)?;
        offered(found).or_else(|| around(value, found))
    })
}

/// Returns the terms of offers without them. The version is that of the members around the offers, or else the one
/// whose name the first offer has for its amount.
fn around(outer: &Value, found: &Value) -> Option<Value> {
    let offers = match found {
        Value::Array(offers) => offers.as_slice(),
        offer => std::slice::from_ref(offer),
    };
    // Before anything is copied: this is tried on every level of a value.
    let first = offers
        .first()
        .filter(|offer| offer.get("scheme").is_some())?;
    let named = outer
        .get("x402Version")
        .filter(|version| version.is_number());
    let number = if first.get("maxAmountRequired").is_some() {
        1
    } else {
        2
    };
    let version = named.cloned().unwrap_or_else(|| number.into());
    let mut terms = Map::from_iter([
        ("x402Version".to_owned(), version),
        ("accepts".to_owned(), offers.to_vec().into()),
    ]);
    for member in ["error", "resource", "extensions"] {
        if let Some(value) = outer.get(member) {
            terms.insert(member.to_owned(), value.clone());
        }
    }
    Some(terms.into())
}

/// Returns the outermost JSON object inside a text.
fn within(text: &str) -> Option<Value> {
    let (start, end) = (text.find('{')?, text.rfind('}')?);
    serde_json::from_str(text.get(start..=end)?).ok()
}

pub(super) fn read(terms: &Value) -> Result<PaymentRequired, Error> {
    Ok(PaymentRequired::from_json(terms.to_string().as_bytes())?)
}

/// Describes a JSON-RPC error.
pub(super) fn words(error: &ErrorData) -> String {
    let code = error.code.0;
    let asks = code == CODES[0] || OTHER_CODES.contains(&code);
    format!(
        "the MCP server answered with error {code}: {}{}",
        text::quoted(&error.message),
        if asks {
            "; it asks for a payment in a form that bursar does not know"
        } else {
            ""
        }
    )
}
