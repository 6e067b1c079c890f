//! Reading terms in results and errors, as the official clients do.

use rmcp::model::{CallToolResult, ErrorData};
use serde_json::Value;

use crate::error::Error;
use crate::text;
use crate::x402::PaymentRequired;

/// The JSON-RPC codes of terms: x402's, and the one of URL elicitation (SEP-1036).
const CODES: [i32; 2] = [402, -32042];
/// The longest text that bursar reads.
const LONGEST: usize = 1024 * 1024;

/// Returns the terms in a tool's result, if it demands a payment.
///
/// # Errors
/// When the terms cannot be read.
pub(super) fn terms(
    result: &CallToolResult,
    prose: bool,
) -> Result<Option<PaymentRequired>, Error> {
    if result.is_error != Some(true) {
        return Ok(None);
    }
    if let Some(structured) = result
        .structured_content
        .as_ref()
        .filter(|value| is_terms(value))
    {
        return read(structured).map(Some);
    }
    let Some(text) = result.content.first().and_then(|content| content.as_text()) else {
        return Ok(None);
    };
    if text.text.len() > LONGEST {
        return Ok(None);
    }
    let whole = serde_json::from_str::<Value>(text.text.trim()).ok();
    let found = whole.or_else(|| if prose { within(&text.text) } else { None });
    found.as_ref().and_then(unwrapped).map(read).transpose()
}

/// Returns the terms in a JSON-RPC error, if it demands a payment.
///
/// # Errors
/// When the terms cannot be read.
pub(super) fn terms_of_error(error: &ErrorData) -> Result<Option<PaymentRequired>, Error> {
    if !CODES.contains(&error.code.0) {
        return Ok(None);
    }
    let terms = error.data.as_ref().and_then(|data| {
        if is_terms(data) {
            Some(data)
        } else {
            data.get("x402")
        }
    });
    terms.filter(|terms| is_terms(terms)).map(read).transpose()
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
    let error = value.get("x402/error")?;
    let data = error
        .get("data")
        .filter(|_| error.get("code").and_then(Value::as_i64) == Some(402))?;
    is_terms(data).then_some(data)
}

/// Returns the outermost JSON object inside a text.
fn within(text: &str) -> Option<Value> {
    let (start, end) = (text.find('{')?, text.rfind('}')?);
    serde_json::from_str(text.get(start..=end)?).ok()
}

fn read(terms: &Value) -> Result<PaymentRequired, Error> {
    Ok(PaymentRequired::from_json(terms.to_string().as_bytes())?)
}

/// Describes a JSON-RPC error.
pub(super) fn words(error: &ErrorData) -> String {
    format!(
        "the MCP server answered with error {}: {}",
        error.code.0,
        text::excerpt(&error.message)
    )
}
