//! The result of the tools `pay` and `quote`: the payment status first, and all text of the seller under `untrusted`.

use bursar::reqwest::Response;
use bursar::{Error, ErrorKind, PaymentStatus, PriceCheck, Purchase, PurchaseId, ResponseExt};
use rmcp::ErrorData;
use rmcp::model::{CallToolResult, ContentBlock};
use serde::Serialize;

use super::kept::Answer;
use super::untrusted::{Untrusted, visible_json};
use crate::outcome;
use crate::payment::{Authorization, Receipt, prefix, status_name};
use crate::prices::Prices;
use crate::problem::{self, Problem, Refusal};

/// The next steps that results recommend, in the words for one server.
#[derive(Debug)]
pub(crate) struct Advice {
    pub(crate) resume: &'static str,
    pub(crate) ask_again: &'static str,
    pub(crate) timed_out: &'static str,
    pub(crate) buy: &'static str,
    pub(crate) buy_again: &'static str,
}

/// The next steps of `bursar mcp serve`.
pub(crate) const PAY: Advice = Advice {
    resume: "The payment may have happened. To learn the result without paying again, \
        call pay with the same arguments and this purchase_id.",
    ask_again: "The purchase is paid. To ask for the content again without paying again, \
        call pay with the same arguments and this purchase_id.",
    timed_out: "The payment may have happened. Make the same call again, with or without this \
        purchase_id: it sends the same payment, and pays nothing new. The operator sets the time limit with --timeout.",
    buy: "Nothing was signed. To buy, call pay with the same arguments.",
    buy_again: "The seller never took the money and cannot take it any more. To buy again, call pay with the same \
        arguments.",
};

const DENIED: &str = "Nothing was signed. The operator sets the limits, and you cannot change them. \
    If room_returns is set, wait until then. Otherwise choose something cheaper, or tell the user.";
const REPLAYED: &str = "This is the answer of an earlier identical call, which was not received in time. Nothing was \
    paid for it now. To buy again, call pay with allow_duplicate.";
const CALL_AGAIN: &str = "The payment may have happened. Make the same call again: it sends the same payment, \
    and pays nothing new.";

const REDIRECTED: &str = "bursar did not follow the redirect. untrusted.headers.location names its target. \
    To fetch it, call pay with that URL if you trust it.";

/// Describes a redirect to another origin. The target is text of the seller.
fn redirected(response: &Response) -> Option<Problem> {
    response.redirect_target()?;
    let (status, payment) = (response.status(), response.payment_status());
    let message = format!(
        "{}: the answer is {status}, a redirect to another origin",
        prefix(payment)
    );
    Some(Problem {
        next: Some(REDIRECTED),
        ..Problem::new(ErrorKind::Status.name(), message)
    })
}

/// The result of `pay` and `quote`.
#[derive(Debug, Serialize)]
pub(crate) struct PayResult {
    #[serde(serialize_with = "status_name")]
    payment: PaymentStatus,
    /// Whether this is the answer of an earlier call, which nobody took.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    replayed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    status: Option<u16>,
    authorization: Option<Authorization>,
    receipt: Option<Receipt>,
    purchase_id: Option<PurchaseId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quote: Option<Prices>,
    /// The reason of a failure, without text of the seller.
    error: Option<Problem>,
    untrusted: Option<Untrusted>,
}

impl PayResult {
    fn empty(payment: PaymentStatus) -> Self {
        Self {
            payment,
            replayed: false,
            note: None,
            status: None,
            authorization: None,
            receipt: None,
            purchase_id: None,
            quote: None,
            error: None,
            untrusted: None,
        }
    }

    /// The result of an answer. Reads its body up to `limit` bytes.
    pub(super) async fn of_response(response: Response, limit: usize) -> Self {
        let (status, payment) = (response.status(), response.payment_status());
        let signed = response.payment();
        let mut result = Self {
            status: Some(status.as_u16()),
            purchase_id: signed.map(|signed| signed.purchase.clone()),
            authorization: signed.map(Authorization::from),
            receipt: response.receipt().map(Receipt::from),
            error: redirected(&response).or_else(|| {
                let error = response.status_error()?;
                Some(safe_problem(&error, &PAY))
            }),
            ..Self::empty(payment)
        };
        let (untrusted, broken) = Untrusted::read(response, limit).await;
        if let Some(error) = &broken {
            let kind = if error.is_timeout() {
                ErrorKind::Timeout
            } else {
                ErrorKind::Transport
            };
            let message = format!("{}: the body broke off", prefix(payment));
            let problem = Problem::new(kind.name(), message);
            result.error = Some(with_next(problem, payment, &PAY));
        }
        let details = broken.map(|error| problem::root_cause(&error.without_url()));
        result.untrusted = Some(untrusted.with_details(details));
        result
    }

    /// The result of a request that failed. `purchase` is its purchase in the ledger.
    pub(super) fn of_error(error: &Error, purchase: Option<&Purchase>) -> Self {
        Self::of_error_with(error, purchase, &PAY)
    }

    /// The result of a request that failed, with these next steps.
    pub(crate) fn of_error_with(
        error: &Error,
        purchase: Option<&Purchase>,
        advice: &Advice,
    ) -> Self {
        let payment = error.payment_status();
        let (authorization, receipt) = outcome::signed(error, purchase);
        Self {
            status: error.status().map(|status| status.as_u16()),
            authorization,
            receipt,
            purchase_id: error
                .purchase_id()
                .filter(|_| payment != PaymentStatus::NotPaid)
                .cloned(),
            error: Some(safe_problem(error, advice)),
            untrusted: Some(Untrusted::details(problem::message(error))),
            ..Self::empty(payment)
        }
    }

    /// The result of a request whose answer has a price.
    pub(super) fn of_price_check(price_check: &PriceCheck) -> Self {
        let mut prices = Prices::of(price_check);
        let reasons = prices.take_seller_text();
        Self {
            status: Some(402),
            quote: Some(prices),
            untrusted: (!reasons.is_empty()).then(|| Untrusted::details(reasons.join("; "))),
            ..Self::empty(PaymentStatus::NotPaid)
        }
    }
}

impl Answer for PayResult {
    fn refused(kind: &'static str, message: &str) -> Self {
        let message = format!("{}: {message}", prefix(PaymentStatus::NotPaid));
        Self {
            error: Some(Problem::new(kind, message)),
            ..Self::empty(PaymentStatus::NotPaid)
        }
    }

    fn broken() -> Self {
        let payment = PaymentStatus::MaybePaid;
        let message = format!("{}: the call broke off inside bursar", prefix(payment));
        Self {
            error: Some(Problem {
                next: Some(CALL_AGAIN),
                ..Problem::new("internal", message)
            }),
            ..Self::empty(payment)
        }
    }

    fn is_paid_answer(&self) -> bool {
        let refused = self.status.is_some_and(|status| {
            (400..500).contains(&status) && !matches!(status, 402 | 408 | 409 | 425 | 429)
        });
        match self.payment {
            PaymentStatus::NotPaid => false,
            PaymentStatus::MaybePaid => self.error.is_none(),
            PaymentStatus::Paid => self.error.is_none() || refused,
        }
    }

    fn mark_replayed(&mut self) {
        self.replayed = true;
        self.note = Some(REPLAYED);
    }

    fn bytes(&self) -> usize {
        serde_json::to_vec(self).map_or(usize::MAX, |json| json.len())
    }

    fn to_protocol(&self) -> Result<CallToolResult, ErrorData> {
        to_protocol(self, self.error.is_some())
    }
}

/// Returns a value as structured content, and as text for clients that read only text.
pub(crate) fn to_protocol(
    value: &impl Serialize,
    failed: bool,
) -> Result<CallToolResult, ErrorData> {
    let unserializable =
        |_| ErrorData::internal_error("the result cannot be written as JSON", None);
    // The text keeps the order of the members: the payment status comes first.
    let text = visible_json(value).map_err(unserializable)?;
    let structure = serde_json::from_str(&text).map_err(unserializable)?;
    let mut result = if failed {
        CallToolResult::structured_error(structure)
    } else {
        CallToolResult::structured(structure)
    };
    result.content = vec![ContentBlock::text(text)];
    Ok(result)
}

/// Adds the recommended next step.
fn with_next(problem: Problem, payment: PaymentStatus, advice: &Advice) -> Problem {
    let next = match payment {
        PaymentStatus::NotPaid => None,
        PaymentStatus::MaybePaid => Some(advice.resume),
        PaymentStatus::Paid => Some(advice.ask_again),
    };
    Problem { next, ..problem }
}

/// Describes an error without text of the seller.
fn safe_problem(error: &Error, advice: &Advice) -> Problem {
    let (kind, payment) = (error.kind(), error.payment_status());
    let denial = error
        .denial()
        .map(|denial| Refusal::from(denial).without_seller_text());
    let reason = denial.as_ref().map_or(reason(kind), Refusal::message);
    let message = format!("{}: {reason}", prefix(payment));
    let mut problem = with_next(Problem::new(kind.name(), message), payment, advice);
    if let Some(denial) = denial {
        problem.next = problem.next.or(Some(DENIED));
        problem.denial = Some(Box::new(denial));
    }
    if kind == ErrorKind::Timeout && payment == PaymentStatus::MaybePaid {
        problem.next = Some(advice.timed_out);
    }
    problem
}

/// Returns the reason of an error in words that no seller can choose.
const fn reason(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Builder => "the request cannot be built",
        ErrorKind::Insecure => "the address is refused, because it is plain http or not public",
        ErrorKind::Transport => "the network failed",
        ErrorKind::Timeout => "the time limit passed (--timeout)",
        ErrorKind::Malformed => "the seller asks for a payment in a form that bursar cannot read",
        ErrorKind::NotPayable => "bursar can sign no offer of the seller",
        ErrorKind::Signer => "the signer returned no usable signature",
        ErrorKind::Ledger => "the ledger cannot be used, and bursar does not pay without it",
        ErrorKind::Purchase => {
            "the purchase id belongs to another request, or another call is buying it now"
        }
        ErrorKind::Rejected => "the seller refused the payment",
        ErrorKind::SettlementFailed => "the seller claims that the settlement failed",
        ErrorKind::SettlementPending => {
            "the seller sent the transaction, and has not seen it included yet"
        }
        ErrorKind::Status => "the answer has an error status",
        _ => "the request failed",
    }
}
