//! Refunds of purchases.

use alloy::primitives::{B256, U256};
use serde::{Deserialize, Serialize};

use super::{Filter, Ledger, LedgerError, PurchaseKey, Transition};
use crate::clock::Timestamp;
use crate::json_text;

/// Money that came back for a purchase. A refund does not change the state of the purchase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refund {
    /// The transaction that brought the money. One transaction is one refund.
    #[serde(with = "json_text::hash")]
    pub transaction: B256,
    /// The amount, in atomic units of the purchase's token.
    #[serde(with = "json_text::units")]
    pub value: U256,
    /// The time at which the refund was recorded, in milliseconds since 1970.
    pub at_millis: i64,
    /// Whether the chain confirmed the transfer to the payer.
    pub verified: bool,
}

impl Refund {
    /// Returns a refund of `value` atomic units by this transaction.
    #[must_use]
    pub const fn new(transaction: B256, value: U256, at: Timestamp, verified: bool) -> Self {
        Self {
            transaction,
            value,
            at_millis: at.millis(),
            verified,
        }
    }

    /// Returns the time at which the refund was recorded.
    #[must_use]
    pub const fn at(&self) -> Timestamp {
        Timestamp::from_millis(self.at_millis)
    }
}

impl Ledger {
    /// Records money that came back for a purchase. `value` is in atomic units of its token.
    ///
    /// bursar does not check the transaction: look at it on the chain first. Recording the same
    /// transaction again changes nothing. A refund makes room under the limits only if the policy
    /// [says so](crate::Policy::refunds_make_room).
    ///
    /// # Errors
    /// Returns an error if the ledger has no such purchase, if nothing was signed for it, if the
    /// transaction is recorded with another value or for another purchase, or if the ledger cannot
    /// be written.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bursar::Ledger;
    /// use bursar::primitives::{B256, U256};
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// let transaction: B256 =
    ///     "0x9f0c1d2e3f405162738495a6b7c8d9eafb0c1d2e3f405162738495a6b7c8d9ea".parse()?;
    /// if let Some(purchase) = ledger.purchase_by_id(&"order-1".parse()?).await? {
    ///     ledger.record_refund(&purchase.key(), transaction, U256::from(10_000)).await?;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn record_refund(
        &self,
        purchase: &PurchaseKey,
        transaction: B256,
        value: U256,
    ) -> Result<(), LedgerError> {
        let mut refunded = Filter::all();
        refunded.refunded = true;
        let mut pages = self.pages(&refunded);
        while let Some(purchases) = pages.next().await? {
            let mut others = purchases
                .into_iter()
                .filter(|other| other.key() != *purchase);
            if let Some(other) = others.find(|other| other.was_refunded_by(transaction)) {
                return Err(LedgerError::RefundedElsewhere {
                    transaction,
                    purchase: other.id,
                });
            }
        }
        let now = self.now();
        let refund = Refund::new(transaction, value, now, false);
        self.record(purchase, &Transition::Refunded(refund), now)
            .await
    }
}
