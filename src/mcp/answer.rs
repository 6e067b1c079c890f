//! What a tool answered, and what it cost.

use rmcp::model::CallToolResult;

use crate::PaymentStatus;
use crate::payer::PriceCheck;
use crate::x402::{Receipt, SignedPayment};

/// A tool's result, and the payment that brought it. The result is the seller's text: untrusted.
#[derive(Clone, Debug)]
pub struct ToolAnswer {
    pub(super) result: CallToolResult,
    pub(super) paid: Option<Box<SignedPayment>>,
    pub(super) receipt: Option<Box<Receipt>>,
}

impl ToolAnswer {
    /// What the tool answered; `is_error` says that it failed, paid or not.
    #[must_use]
    pub const fn result(&self) -> &CallToolResult {
        &self.result
    }

    /// What the tool answered.
    #[must_use]
    pub fn into_result(self) -> CallToolResult {
        self.result
    }

    /// What became of the money.
    #[must_use]
    pub const fn payment_status(&self) -> PaymentStatus {
        match (&self.paid, &self.receipt) {
            (None, _) => PaymentStatus::NotPaid,
            (Some(_), None) => PaymentStatus::MaybePaid,
            (Some(_), Some(_)) => PaymentStatus::Paid,
        }
    }

    /// What was signed for it, with or without a receipt.
    #[must_use]
    pub fn payment(&self) -> Option<&SignedPayment> {
        self.paid.as_deref()
    }

    /// The receipt, if the seller gave one that matches what was signed.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_deref()
    }
}

/// What came of asking a tool's price.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a price or an answer")]
pub enum Asked {
    /// Payment is required.
    Priced(Box<PriceCheck>),
    /// Nothing is asked for: the tool was executed, and this is its answer.
    Executed(Box<ToolAnswer>),
}
