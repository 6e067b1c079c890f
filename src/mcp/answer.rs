//! The answer of a tool, and its payment.

use rmcp::model::CallToolResult;

use crate::error::PaymentStatus;
use crate::payment::PaymentRecord;
use crate::x402::{Receipt, SignedPayment};

/// The result of a tool, and the payment for it. The result is untrusted text of the seller.
///
/// ```
/// use bursar::mcp::ToolAnswer;
///
/// fn log(answer: &ToolAnswer) {
///     println!("{:?}: {}", answer.result().content, answer.payment_status());
///     if let Some(receipt) = answer.receipt() {
///         println!("paid {} in {}", receipt.amount(), receipt.transaction());
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ToolAnswer {
    result: CallToolResult,
    record: Option<Box<PaymentRecord>>,
}

impl ToolAnswer {
    pub(super) fn new(result: CallToolResult, record: Option<PaymentRecord>) -> Self {
        Self {
            result,
            record: record.map(Box::new),
        }
    }

    /// Returns the result. If its `is_error` is true the tool failed, paid or not.
    #[must_use]
    pub const fn result(&self) -> &CallToolResult {
        &self.result
    }

    /// Returns the result.
    #[must_use]
    pub fn into_result(self) -> CallToolResult {
        self.result
    }

    /// Returns whether money moved for this answer.
    #[must_use]
    pub fn payment_status(&self) -> PaymentStatus {
        let record = self.record.as_ref();
        record.map_or(PaymentStatus::NotPaid, |record| record.status())
    }

    /// Returns the payment that bursar signed for this answer, with or without a receipt.
    #[must_use]
    pub fn payment(&self) -> Option<&SignedPayment> {
        self.record.as_ref().map(|record| record.payment())
    }

    /// Returns the receipt, if the seller gave one that matches the signed payment.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.record.as_ref()?.receipt()
    }
}
