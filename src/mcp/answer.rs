//! The answer of a tool, and its payments.

use rmcp::model::CallToolResult;

use crate::error::PaymentStatus;
use crate::payment::PaymentRecord;
use crate::x402::{Receipt, SignedPayment};

/// The result of a tool, and the payments for it. The result is untrusted text of the seller.
///
/// A call can be paid for in two places: in the call itself, and at an endpoint that answers HTTP 402 and is reached
/// through [`connect`](crate::mcp::connect). The answer has the payments of both.
///
/// ```
/// use bursar::mcp::ToolAnswer;
///
/// fn log(answer: &ToolAnswer) {
///     println!("{:?}: {}", answer.result().content, answer.payment_status());
///     for (payment, receipt) in answer.payments() {
///         println!("signed {}; receipt: {}", payment.amount, receipt.is_some());
///     }
/// }
/// ```
#[derive(Clone, Debug)]
pub struct ToolAnswer {
    result: CallToolResult,
    /// The payments: that of the call itself first, then those of the endpoint.
    records: Vec<PaymentRecord>,
}

impl ToolAnswer {
    pub(super) const fn new(result: CallToolResult, records: Vec<PaymentRecord>) -> Self {
        Self { result, records }
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

    /// Returns whether money moved for this answer: `Paid` if one of its payments has a matching receipt.
    #[must_use]
    pub fn payment_status(&self) -> PaymentStatus {
        self.main()
            .map_or(PaymentStatus::NotPaid, PaymentRecord::status)
    }

    /// Returns a payment that bursar signed for this answer, one with a receipt first.
    #[must_use]
    pub fn payment(&self) -> Option<&SignedPayment> {
        self.main().map(PaymentRecord::payment)
    }

    /// Returns the receipt of [`payment`](Self::payment), if the seller gave one that matches.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.main()?.receipt()
    }

    /// Returns every payment that bursar signed for this answer, with its receipt if the seller gave one that matches.
    pub fn payments(&self) -> impl Iterator<Item = (&SignedPayment, Option<&Receipt>)> {
        let records = self.records.iter();
        records.map(|record| (record.payment(), record.receipt()))
    }

    fn main(&self) -> Option<&PaymentRecord> {
        let mut records = self.records.iter();
        let settled = records.find(|record| record.receipt().is_some());
        settled.or(self.records.first())
    }
}
