//! The outcome of one request: the JSON object of `pay` and `mcp call`, and the line for people.

use bursar::reqwest::Response;
use bursar::{Error, ErrorKind, PaymentStatus, Purchase, ResponseExt};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::payment::{Authorization, Receipt, prefix, status_name};
use crate::problem::{Problem, redirect_target};
use crate::quote::QuoteOutput;

/// One request, as `--json` prints it.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    pub(crate) status: Option<u16>,
    #[serde(serialize_with = "status_name")]
    pub(crate) payment: PaymentStatus,
    pub(crate) authorization: Option<Authorization>,
    pub(crate) receipt: Option<Receipt>,
    /// More payments of the same call.
    #[serde(skip_serializing_if = "Vec::is_empty", rename = "other_payments")]
    pub(crate) others: Vec<OtherPayment>,
    pub(crate) body: String,
    /// Set if the answer redirects elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    pub(crate) error: Option<Problem>,
    /// Set if the request used an API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) api_call: Option<ApiCall>,
    /// Whether a sign-in brought the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) signed_in: bool,
    /// Set by a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quote: Option<QuoteOutput>,
}

/// A further payment of one call.
#[derive(Debug, Serialize)]
pub(crate) struct OtherPayment {
    pub(crate) authorization: Authorization,
    pub(crate) receipt: Option<Receipt>,
}

/// A call with an API key: `api_call` in JSON.
#[derive(Debug, Serialize)]
pub(crate) struct ApiCall {
    /// The name of the key.
    credential: String,
    /// The declared cost of the call in dollars.
    usd: String,
}

impl From<&bursar::ApiCall> for ApiCall {
    fn from(call: &bursar::ApiCall) -> Self {
        Self {
            credential: call.credential().to_owned(),
            usd: call.cost().to_string(),
        }
    }
}

/// How a request ended, apart from its payment status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Failed,
    Usage,
    Denied,
    /// The goods are elsewhere.
    Elsewhere,
}

impl Verdict {
    pub(crate) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Builder => Self::Usage,
            _ => Self::Failed,
        }
    }
}

impl Outcome {
    /// An outcome without a payment, an answer or an error.
    pub(crate) fn empty(payment: PaymentStatus) -> Self {
        Self {
            status: None,
            payment,
            authorization: None,
            receipt: None,
            others: Vec::new(),
            body: String::new(),
            location: None,
            error: None,
            api_call: None,
            signed_in: false,
            quote: None,
        }
    }

    /// The outcome of a request that bursar could not send, for example because the ledger is damaged.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        let payment = match failure.exit {
            Exit::Unknown => PaymentStatus::MaybePaid,
            Exit::PaidAndFailed => PaymentStatus::Paid,
            _ => PaymentStatus::NotPaid,
        };
        let prefix = prefix(payment);
        let reason = failure
            .message
            .strip_prefix(prefix)
            .map(|rest| rest.trim_start_matches(": "));
        let reason = reason.unwrap_or(&failure.message);
        Self {
            error: Some(Problem::new(failure.kind, format!("{prefix}: {reason}"))),
            ..Self::empty(payment)
        }
    }

    /// The outcome of an answer, without its body.
    pub(crate) fn of_response(response: &Response) -> Self {
        Self {
            status: Some(response.status().as_u16()),
            location: redirect_target(response).map(String::from),
            authorization: response.payment().map(Authorization::from),
            receipt: response.receipt().map(Receipt::from),
            api_call: response.api_call().map(ApiCall::from),
            signed_in: response.signed_in(),
            error: Problem::of_response(response),
            ..Self::empty(response.payment_status())
        }
    }

    /// The outcome of a request that ended in an error. `purchase` is its purchase in the ledger.
    pub(crate) fn of_error(error: &Error, purchase: Option<&Purchase>) -> Self {
        let (authorization, receipt) = signed(error, purchase);
        Self {
            status: error.status().map(|status| status.as_u16()),
            authorization,
            receipt,
            error: Some(Problem::of(error)),
            ..Self::empty(error.payment_status())
        }
    }

    /// Returns the status of each payment.
    #[cfg(feature = "mcp")]
    pub(crate) fn statuses(&self) -> Vec<PaymentStatus> {
        let others = self.others.iter().map(|other| match other.receipt {
            Some(_) => PaymentStatus::Paid,
            None => PaymentStatus::MaybePaid,
        });
        others.chain([self.payment]).collect()
    }

    /// Returns the line for people.
    pub(crate) fn line(&self) -> String {
        let payment = self.payment_text();
        match (&self.error, self.payment) {
            (Some(problem), PaymentStatus::NotPaid) if problem.kind == ErrorKind::Denied.name() => {
                problem
                    .message
                    .replacen(prefix(PaymentStatus::NotPaid), "denied", 1)
            }
            (Some(problem), _) if payment.is_empty() => problem.message.clone(),
            (Some(problem), _) => format!("{}; {payment}", problem.message),
            (None, PaymentStatus::NotPaid) => self.unpaid_line(),
            (None, PaymentStatus::MaybePaid) => {
                format!("may be paid: {payment}; the seller sent no matching receipt")
            }
            (None, PaymentStatus::Paid) => format!("paid {payment}"),
        }
    }

    /// The line for an answer that needed no payment.
    fn unpaid_line(&self) -> String {
        match (self.status, &self.api_call) {
            (Some(status @ 300..=399), _) => format!("not paid: the answer is {status}"),
            (_, Some(ApiCall { credential, usd })) => format!(
                "not paid: bursar used the API key `{credential}`; the declared cost is {usd} USD"
            ),
            (_, None) if self.signed_in => "not paid: bursar signed in".to_owned(),
            (_, None) => "not paid: it is free".to_owned(),
        }
    }

    /// The signed payment and its transaction as text, or an empty text if nothing was signed.
    fn payment_text(&self) -> String {
        let mut text = payment_text(self.authorization.as_ref(), self.receipt.as_ref());
        for other in &self.others {
            let status = match other.receipt {
                Some(_) => PaymentStatus::Paid,
                None => PaymentStatus::MaybePaid,
            };
            let more = payment_text(Some(&other.authorization), other.receipt.as_ref());
            text.push_str(&format!("; also {} {more}", prefix(status)));
        }
        text
    }
}

fn payment_text(authorization: Option<&Authorization>, receipt: Option<&Receipt>) -> String {
    let payment = authorization.map(|authorization| authorization.text().to_owned());
    let transaction = receipt.map(|receipt| {
        let (transaction, remark) = (receipt.transaction(), receipt.remark());
        format!("transaction {transaction}{remark}")
    });
    let charge = receipt.and_then(Receipt::charge);
    let charge = charge.map(|charge| format!("said to charge {charge}"));
    let parts: Vec<_> = payment
        .into_iter()
        .chain(charge)
        .chain(transaction)
        .collect();
    parts.join(", ")
}

/// Returns the signed payment and the receipt of a failed request, from the error or else from the ledger.
pub(crate) fn signed(
    error: &Error,
    purchase: Option<&Purchase>,
) -> (Option<Authorization>, Option<Receipt>) {
    let payment = error.payment_status();
    let purchase = purchase.filter(|_| payment != PaymentStatus::NotPaid);
    let authorization = error.payment().map(Authorization::from);
    let receipt = error.receipt().map(Receipt::from);
    (
        authorization.or_else(|| purchase.map(Authorization::from)),
        receipt
            .or_else(|| purchase.and_then(Receipt::of_purchase))
            .filter(|_| payment == PaymentStatus::Paid),
    )
}
