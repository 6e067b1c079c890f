//! The result of a tool of a server, with the payment.

use std::error::Error as _;

use bursar::mcp::ToolAnswer;
use bursar::text::visible_lines;
use bursar::{Error, ErrorKind, PaymentStatus, Purchase, PurchaseId};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock, MetaObject, ResultType};
use serde::Serialize;
use serde_json::Value;

use super::listing::{OWN_META, shortened};
use crate::mcp;
use crate::outcome::OtherPayment;
use crate::payment::{Authorization, Receipt, signed_amount, status_name};
use crate::serve::kept::Answer;
use crate::serve::result::{Advice, PayResult};
use crate::serve::untrusted::visible_json;

/// The next steps of the proxy.
pub(super) const TOOL: Advice = Advice {
    resume: "The payment may have happened. To learn the result without paying again, \
        call the same tool again with the same arguments: that sends the same payment.",
    ask_again: "The purchase is paid. To ask for the content again without paying again, call the same tool with the \
        same arguments and this purchase_id in _meta, under bursar/purchase_id.",
    timed_out: "The payment may have happened. Make the same call again: it sends the same payment, and pays nothing \
        new. The operator sets the time limit with --timeout.",
    buy: "Nothing was signed. To buy, call the tool with the same arguments.",
    buy_again: "The seller never took the money and cannot take it any more. To buy again, call the tool with the \
        same arguments.",
};
const REPLAYED: &str = "This is the answer of an earlier identical call, which was not received in time. Nothing was \
    paid for it now.";
/// The keys of receipts in the metadata of a result.
const RECEIPTS: [&str; 3] = [
    "x402/payment-response",
    "x402.payment-response",
    "x402.org/payment-response",
];
/// The longest `data` of an error of a server, in bytes.
const ERROR_DATA: usize = 64 * 1024;
/// The longest message of an error of a server, in characters.
const ERROR_MESSAGE: usize = 2000;

/// The result of a call.
pub(super) struct ToolResult {
    paid: Paid,
    outcome: Outcome,
}

enum Outcome {
    Answered(Box<CallToolResult>),
    Failed(Box<PayResult>),
    /// The server's own error, without a payment.
    Refused(ErrorData),
}

/// The payment of a call, as a host sees it under `bursar/payment`.
#[derive(Debug, Serialize)]
struct Paid {
    #[serde(serialize_with = "status_name")]
    payment: PaymentStatus,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purchase_id: Option<PurchaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorization: Option<Authorization>,
    #[serde(skip_serializing_if = "Option::is_none")]
    receipt: Option<Receipt>,
    /// The payments besides the main one. An endpoint and its tool can each ask for one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    others: Vec<OtherPayment>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'static str>,
}

impl Paid {
    const fn of(payment: PaymentStatus) -> Self {
        Self {
            payment,
            replayed: false,
            note: None,
            price: None,
            purchase_id: None,
            authorization: None,
            receipt: None,
            others: Vec::new(),
            next: None,
        }
    }
}

impl ToolResult {
    /// The result of an answer.
    pub(super) fn of_answer(answer: ToolAnswer) -> Self {
        let payment = answer.payment_status();
        let signed = answer.payment();
        let failed = answer.result().is_error == Some(true);
        let paid = Paid {
            price: signed.map(signed_amount),
            purchase_id: signed.map(|signed| signed.purchase.clone()),
            authorization: signed.map(Authorization::from),
            receipt: answer.receipt().map(Receipt::from),
            others: mcp::others(&answer),
            next: match payment {
                PaymentStatus::MaybePaid if failed => Some(TOOL.resume),
                _ => None,
            },
            ..Paid::of(payment)
        };
        Self {
            paid,
            outcome: Outcome::Answered(Box::new(answer.into_result())),
        }
    }

    /// The result of a call that failed. `purchase` is its purchase in the ledger.
    pub(super) fn of_error(error: &Error, purchase: Option<&Purchase>) -> Self {
        let payment = error.payment_status();
        let own = error
            .source()
            .and_then(|source| source.downcast_ref::<ErrorData>());
        let outcome = match own {
            Some(own) if error.kind() == ErrorKind::Rpc && payment == PaymentStatus::NotPaid => {
                Outcome::Refused(passed_on(own))
            }
            _ => Outcome::Failed(Box::new(PayResult::of_error_with(error, purchase, &TOOL))),
        };
        Self {
            paid: Paid::of(payment),
            outcome,
        }
    }
}

/// Removes the keys of bursar from all metadata inside.
pub(super) fn remove_own_meta(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(remove_own_meta),
        Value::Object(members) => {
            if let Some(Value::Object(meta)) = members.get_mut("_meta") {
                meta.retain(|key, _| !key.starts_with(OWN_META));
            }
            members.values_mut().for_each(remove_own_meta);
        }
        _ => {}
    }
}

/// Returns the error of a server for a host: bounded, and without hidden characters.
pub(super) fn passed_on(error: &ErrorData) -> ErrorData {
    let data = error.data.as_ref().and_then(|data| {
        let json = visible_json(data).ok();
        let json = json.filter(|json| json.len() <= ERROR_DATA)?;
        serde_json::from_str(&json).ok()
    });
    let message = visible_lines(&shortened(&error.message, ERROR_MESSAGE)).into_owned();
    ErrorData::new(error.code, message, data)
}

impl Answer for ToolResult {
    fn refused(kind: &'static str, message: &str) -> Self {
        Self {
            paid: Paid::of(PaymentStatus::NotPaid),
            outcome: Outcome::Failed(Box::new(PayResult::refused(kind, message))),
        }
    }

    fn broken() -> Self {
        Self {
            paid: Paid::of(PaymentStatus::MaybePaid),
            outcome: Outcome::Failed(Box::new(PayResult::broken())),
        }
    }

    fn is_paid_answer(&self) -> bool {
        let Outcome::Answered(result) = &self.outcome else {
            return false;
        };
        match self.paid.payment {
            PaymentStatus::NotPaid => false,
            PaymentStatus::MaybePaid => result.is_error != Some(true),
            PaymentStatus::Paid => true,
        }
    }

    fn mark_replayed(&mut self) {
        self.paid.replayed = true;
        self.paid.note = Some(REPLAYED);
    }

    fn bytes(&self) -> usize {
        match &self.outcome {
            Outcome::Answered(result) => {
                serde_json::to_vec(result).map_or(usize::MAX, |json| json.len())
            }
            Outcome::Failed(result) => result.bytes(),
            Outcome::Refused(_) => 0,
        }
    }

    fn to_protocol(&self) -> Result<CallToolResult, ErrorData> {
        let broken = |_| ErrorData::internal_error("the result cannot be written as JSON", None);
        let note = visible_json(&self.paid).map_err(broken)?;
        let mut payment: Value = serde_json::from_str(&note).map_err(broken)?;
        let mut result = match &self.outcome {
            Outcome::Refused(error) => return Err(error.clone()),
            Outcome::Failed(failed) => {
                let mut result = failed.to_protocol()?;
                // A tool with a schema for its result promises no other structure.
                payment = result.structured_content.take().unwrap_or(payment);
                result
            }
            Outcome::Answered(result) => {
                let json = visible_json(result).map_err(broken)?;
                let mut json: Value = serde_json::from_str(&json).map_err(broken)?;
                // The structured content is the answer itself, and has no metadata.
                if let Some(content) = json.get_mut("content") {
                    remove_own_meta(content);
                }
                let mut result: CallToolResult = serde_json::from_value(json).map_err(broken)?;
                if payment.get("authorization").is_some() {
                    result.content.push(ContentBlock::text(note));
                }
                result
            }
        };
        let MetaObject(meta) = result.meta.get_or_insert_default();
        meta.retain(|key, _| !key.starts_with(OWN_META));
        if self.paid.payment != PaymentStatus::Paid {
            // A receipt that does not match the payment proves nothing.
            meta.retain(|key, _| !RECEIPTS.contains(&key.as_str()));
        }
        meta.insert(format!("{OWN_META}payment"), payment);
        // The session with the server can have an older version, whose results have no type. A host of version
        // 2026-07-28 refuses a result without one; rmcp removes it for older hosts.
        result.result_type = Some(ResultType::COMPLETE);
        Ok(result)
    }
}
