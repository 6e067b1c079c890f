//! The result of the tool `purchase`.

use bursar::ledger::State;
use bursar::{PaymentStatus, Purchase, PurchaseId, Timestamp};
use serde::Serialize;

use super::result::Advice;
use super::untrusted::NOTICE;
use crate::payment::{Authorization, Receipt, described_amount, status_name};

/// One purchase of the ledger.
#[derive(Debug, Serialize)]
pub(crate) struct PurchaseResult {
    #[serde(serialize_with = "status_name")]
    payment: PaymentStatus,
    state: State,
    purchase_id: PurchaseId,
    authorization: Option<Authorization>,
    receipt: Option<Receipt>,
    price: String,
    method: String,
    origin: String,
    tag: Option<String>,
    agent: Option<String>,
    /// The HTTP status of the last answer.
    status: Option<u16>,
    reserved_at: Timestamp,
    updated_at: Timestamp,
    /// The time at which the signed payment expires.
    expires_at: Timestamp,
    next: &'static str,
    untrusted: SellerText,
}

/// Text of the seller that the ledger stores with a purchase.
#[derive(Debug, Serialize)]
struct SellerText {
    notice: &'static str,
    /// A redirect of the seller can choose the path.
    path: String,
    reason: Option<String>,
}

impl PurchaseResult {
    pub(crate) fn new(purchase: &Purchase, advice: &Advice) -> Self {
        let (payment, next) = next_step(purchase.state, advice);
        Self {
            payment,
            state: purchase.state,
            purchase_id: purchase.id.clone(),
            authorization: (payment != PaymentStatus::NotPaid)
                .then(|| Authorization::from(purchase)),
            receipt: Receipt::of_purchase(purchase),
            price: described_amount(purchase),
            method: purchase.method.clone(),
            origin: purchase.origin.to_string(),
            tag: purchase.tag.clone(),
            agent: purchase.agent.clone(),
            status: purchase.status,
            reserved_at: purchase.reserved_at,
            updated_at: purchase.updated_at,
            expires_at: purchase.expires_at,
            next,
            untrusted: SellerText {
                notice: NOTICE,
                path: purchase.path.clone(),
                reason: purchase.reason.clone(),
            },
        }
    }
}

/// Returns the payment status of a state, and the recommended next step.
const fn next_step(state: State, advice: &Advice) -> (PaymentStatus, &'static str) {
    match state {
        State::Reserved => (
            PaymentStatus::NotPaid,
            "The money is reserved, and nothing is signed yet.",
        ),
        State::Settled => (PaymentStatus::Paid, advice.ask_again),
        State::Voided => (PaymentStatus::NotPaid, advice.buy),
        State::ReleasedByProof => (PaymentStatus::NotPaid, advice.buy_again),
        _ => (PaymentStatus::MaybePaid, advice.resume),
    }
}
