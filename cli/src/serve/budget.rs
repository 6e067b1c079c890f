//! The result of the tool `budget`.

use bursar::policy::LimitStatus;
use bursar::{Client, Network, PaymentStatus, Usd};
use serde::Serialize;

use crate::payment::status_name;

/// The limits.
#[derive(Debug, Serialize)]
pub(crate) struct BudgetResult {
    #[serde(serialize_with = "status_name")]
    payment: PaymentStatus,
    payer: Option<String>,
    networks: Vec<Network>,
    /// The limit of --max-per-payment, in addition to `limits`.
    max_per_payment: Option<Usd>,
    limits: Vec<LimitStatus>,
}

impl BudgetResult {
    pub(crate) fn new(client: &Client, max_price: Option<Usd>, limits: Vec<LimitStatus>) -> Self {
        let payer = client.payer();
        Self {
            payment: PaymentStatus::NotPaid,
            payer: payer.map(|payer| payer.address().to_string()),
            networks: payer
                .map(|payer| payer.policy().payable_networks().collect())
                .unwrap_or_default(),
            max_per_payment: max_price,
            limits,
        }
    }
}
