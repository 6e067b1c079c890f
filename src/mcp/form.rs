//! The places and forms of payments and receipts, in the dialects that servers read and write.

use rmcp::model::{CallToolResult, ErrorData};
use secrecy::ExposeSecret;
use serde_json::{Map, Value};

use crate::payment::{AfterSigning, Payment};
use crate::x402::{Failure, PaymentRequired, SettlementResponse, WireError};

/// The place of a payment in `params._meta`, in x402's MCP transport.
const PAYMENT: &str = "x402/payment";
/// Its place in the npm package `x402-mcp`.
const OLD_PAYMENT: &str = "x402.payment";
/// Its place in an early proposal.
const OTHER_PAYMENT: &str = "x402.org/payment";
/// The places of a receipt in `result._meta` or in the `data` of an error.
const RECEIPTS: [&str; 3] = [
    "x402/payment-response",
    "x402.payment-response",
    "x402.org/payment-response",
];

/// A form of a payment. One authorization can be shown in several: it has one nonce, so it settles at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A JSON object under `x402/payment`.
    Object,
    /// Base64 of the JSON under `x402/payment`, as Cloudflare's servers read it.
    Text,
    /// Base64 of the JSON under `x402.payment`.
    Old,
    /// A JSON object under `x402/payment` and `x402.org/payment`.
    Objects,
}

/// The forms to show, the likeliest first.
pub(super) const STANDARD: [Form; 2] = [Form::Object, Form::Text];
pub(super) const V1: [Form; 3] = [Form::Object, Form::Text, Form::Old];
pub(super) const TEXT: [Form; 2] = [Form::Text, Form::Object];
pub(super) const OLD: [Form; 1] = [Form::Old];
pub(super) const ELSEWHERE: [Form; 2] = [Form::Objects, Form::Text];

impl Form {
    /// Puts the payment into the `_meta` of a call.
    pub(super) fn insert(
        self,
        payment: &Payment,
        meta: &mut Map<String, Value>,
    ) -> Result<(), AfterSigning> {
        let value = match self {
            Self::Object | Self::Objects => {
                let json = payment.json()?;
                serde_json::from_str(json.expose_secret()).map_err(|_| payment.damaged())?
            }
            Self::Text | Self::Old => {
                let (_, header) = payment.header()?;
                let text = header.to_str().map_err(|_| payment.damaged())?;
                Value::from(text)
            }
        };
        if self == Self::Objects {
            meta.insert(OTHER_PAYMENT.to_owned(), value.clone());
        }
        let place = if self == Self::Old {
            OLD_PAYMENT
        } else {
            PAYMENT
        };
        meta.insert(place.to_owned(), value);
        Ok(())
    }
}

/// Removes payments that the caller put into the `_meta` of a call.
pub(super) fn remove_payments(meta: &mut Map<String, Value>) {
    for place in [PAYMENT, OLD_PAYMENT, OTHER_PAYMENT] {
        meta.remove(place);
    }
}

/// Returns whether terms only say that there was no payment, and give no other reason.
pub(super) fn saw_no_payment(terms: &PaymentRequired) -> bool {
    let words = terms.error().unwrap_or_default().to_ascii_lowercase();
    // `permit2_allowance_required` refuses a payment that was read.
    if Failure::of(&words) == Failure::NoAllowance {
        return false;
    }
    words.is_empty()
        || ["required", "missing", "no payment", "not provided"]
            .iter()
            .any(|known| words.contains(known))
}

/// Returns the receipt of a result: an object, or base64 of it.
pub(super) fn receipt(
    answer: Result<&CallToolResult, &ErrorData>,
) -> Option<Result<SettlementResponse, WireError>> {
    let place = |place: &str| match answer {
        Ok(result) => result.meta.as_ref()?.0.get(place),
        Err(error) => error.data.as_ref()?.get(place),
    };
    let receipt = RECEIPTS.iter().find_map(|name| place(name))?;
    Some(match receipt {
        Value::Null => return None,
        Value::String(text) if text.trim_start().starts_with('{') => {
            SettlementResponse::from_json(text.as_bytes())
        }
        Value::String(text) => SettlementResponse::from_header(text.as_bytes()),
        receipt => SettlementResponse::from_json(receipt.to_string().as_bytes()),
    })
}
