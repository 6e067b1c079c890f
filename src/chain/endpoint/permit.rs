//! The use of a nonce of Permit2, and the amount that it can have moved.
//!
//! Permit2 logs nothing about a nonce. So an endpoint shows the use of a nonce by its bit, and the charge by the block in
//! which the bit was set: all that the payer transferred in that block is at least the charge. A seller that names the
//! transaction of another purchase gains nothing: the bit was set in another block, or the block has both transfers.

use alloy::primitives::{B256, U256};
use serde_json::json;

use super::{Head, Node, Question, Reason, RpcError, TRANSFER};
use crate::chain::wire::{Log, Receipt};

/// The charge of a permit, as one endpoint shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::chain) enum Charge {
    /// The claimed transaction is in the block in which the nonce was used, and the payer moved these units in that block.
    AtMost { transaction: B256, units: U256 },
    /// The endpoint does not show it, and will not show it later.
    Unknown,
    /// The endpoint gave no answer. It can have one later.
    Later(Reason),
}

impl Node<'_> {
    /// Returns the block by which the nonce was used, and the charge.
    pub(super) async fn charge(&self, head: &Head) -> (u64, Charge) {
        match self.charge_at(head).await {
            Ok(Some((block, charge))) => (block, charge),
            Ok(None) => (head.number, Charge::Unknown),
            Err(
                error @ (RpcError::Unreachable
                | RpcError::Timeout
                | RpcError::Status(_)
                | RpcError::RateLimited(_)),
            ) => (head.number, Charge::Later(error.into())),
            // For example, the node has no states of old blocks.
            Err(RpcError::Node { .. } | RpcError::Malformed(_) | RpcError::TooLong) => {
                (head.number, Charge::Unknown)
            }
        }
    }

    async fn charge_at(&self, head: &Head) -> Result<Option<(u64, Charge)>, RpcError> {
        let Some(transaction) = self.question.claimed else {
            return Ok(None);
        };
        let Some(receipt) = self.succeeded(transaction).await? else {
            return Ok(None);
        };
        let (number, hash) = (receipt.block_number.0, receipt.block_hash);
        if !self.is_final(number, hash, head).await? {
            return Ok(None);
        }
        let Some(parent) = number.checked_sub(1) else {
            return Ok(None);
        };
        let Some(parent) = self.block_at(parent).await? else {
            return Ok(None);
        };
        let nonce = self.question.nonce;
        if self.is_used(nonce, parent.hash).await? || !self.is_used(nonce, hash).await? {
            return Ok(None);
        }
        let units = self.moved(&receipt).await?;
        Ok(units.map(|units| (number, Charge::AtMost { transaction, units })))
    }

    pub(super) async fn succeeded(&self, transaction: B256) -> Result<Option<Receipt>, RpcError> {
        let receipt: Option<Receipt> = self
            .call(
                "eth_getTransactionReceipt",
                json!([transaction.to_string()]),
            )
            .await?;
        Ok(receipt
            .filter(|receipt| receipt.status.0 == 1 && receipt.transaction_hash == transaction))
    }

    /// Returns all that the payer transferred of the token in the block of a transaction, or `None` if the payee is not among
    /// the receivers, or if the logs are not whole.
    async fn moved(&self, receipt: &Receipt) -> Result<Option<U256>, RpcError> {
        let Question { token, payer, .. } = self.question;
        let number = format!("{:#x}", receipt.block_number.0);
        let filter = json!({
            "address": token.to_string(),
            "fromBlock": number,
            "toBlock": number,
            "topics": [TRANSFER.to_string(), payer.into_word().to_string()],
        });
        let logs: Vec<Log> = self.call("eth_getLogs", json!([filter])).await?;
        if logs.iter().any(|log| log.block_hash != receipt.block_hash) {
            return Ok(None);
        }
        let in_block = self.sum(&logs);
        let in_transaction = self.sum(&receipt.logs);
        let paid = logs.iter().any(|log| {
            self.is_outgoing(log) && log.topics.get(2) == Some(&self.question.payee.into_word())
        });
        // An endpoint that hides logs of the block does not show the charge.
        Ok(in_block.filter(|sum| paid && in_transaction.is_some_and(|part| part <= *sum)))
    }

    fn is_outgoing(&self, log: &Log) -> bool {
        let Question { token, payer, .. } = self.question;
        log.address == *token && log.topics.starts_with(&[TRANSFER, payer.into_word()])
    }

    /// Returns the sum of the payer's transfers, or `None` if one of them cannot be read.
    fn sum(&self, logs: &[Log]) -> Option<U256> {
        let outgoing = logs.iter().filter(|log| self.is_outgoing(log));
        outgoing
            .map(value)
            .try_fold(U256::ZERO, |sum, value| Some(sum.saturating_add(value?)))
    }
}

/// Returns the value of a transfer.
pub(super) fn value(log: &Log) -> Option<U256> {
    let word = <[u8; 32]>::try_from(log.data.0.as_slice()).ok()?;
    Some(U256::from_be_bytes(word))
}
