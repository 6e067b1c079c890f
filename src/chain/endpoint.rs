//! The questions to one endpoint, and the state that it reports.

use std::ops::ControlFlow;
use std::time::Duration;

use alloy::primitives::{B256, U256};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::abi::{
    AUTHORIZATION_CANCELED, AUTHORIZATION_USED, TRANSFER, authorization_state, control,
};
use super::answer::{Head, Reason};
use super::rpc::{RpcClient, RpcError};
use super::wire::{Block, Bytes, Log, Quantity, Receipt};
use super::{Question, Rules};

/// The largest number of blocks in one request for logs.
const MAX_RANGE: u64 = 10_000;
/// The largest number of requests for logs.
const MAX_SEARCHES: usize = 64;
/// The time before the signature at which the search begins, in seconds. Clocks differ.
const SEARCH_MARGIN: u64 = 3600;

/// The report of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct EndpointReport {
    pub(super) host: String,
    pub(super) observation: Result<Observation, Reason>,
}

/// The state of an authorization at a final block, as one endpoint reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) head: Head,
    pub(super) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Unused,
    Canceled {
        block: u64,
    },
    Settled {
        transaction: B256,
        block: u64,
        value: U256,
    },
    /// The nonce is used, and the endpoint does not show by which event.
    Used(Gap),
}

/// The reason why a used nonce is not explained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    NoLog,
    OtherTransfer,
    Reorged,
}

/// Asks an endpoint. `limit` is the time limit of each call.
pub(super) async fn observe(
    endpoint: &RpcClient,
    question: &Question,
    rules: Rules,
    limit: Duration,
) -> Result<Observation, Reason> {
    let node = Node {
        endpoint,
        question,
        limit,
    };
    node.check_chain().await?;
    let head = node.final_block(rules.confirmations).await?;
    node.check_controls(&head).await?;
    let used = node.is_used(question.nonce, &head).await?;
    let state = if used {
        node.explain(&head).await?
    } else {
        State::Unused
    };
    Ok(Observation { head, state })
}

struct Node<'a> {
    endpoint: &'a RpcClient,
    question: &'a Question,
    limit: Duration,
}

impl Node<'_> {
    async fn call<T: DeserializeOwned>(
        &self,
        method: &'static str,
        params: Value,
    ) -> Result<T, RpcError> {
        self.endpoint.call(method, params, self.limit).await
    }

    async fn check_chain(&self) -> Result<(), Reason> {
        let Quantity(id) = self.call("eth_chainId", json!([])).await?;
        if id == self.question.network.chain_id() {
            Ok(())
        } else {
            Err(Reason::WrongChain(id))
        }
    }

    /// Returns the latest final block: `finalized`, else `safe`, else the configured depth.
    async fn final_block(&self, confirmations: Option<u64>) -> Result<Head, Reason> {
        for tag in ["finalized", "safe"] {
            match self.block(tag).await {
                Ok(Some(block)) => return Ok(block),
                // A node that does not know the tag answers with an error or with `null`.
                Ok(None) | Err(RpcError::Node { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let depth = confirmations.ok_or(Reason::NoFinality)?;
        let latest = self.block("latest").await?.ok_or(Reason::NoFinality)?;
        let number = latest.number.checked_sub(depth).ok_or(Reason::NoFinality)?;
        self.block_at(number).await?.ok_or(Reason::NoFinality)
    }

    async fn block(&self, tag: &str) -> Result<Option<Head>, RpcError> {
        let block: Option<Block> = self
            .call("eth_getBlockByNumber", json!([tag, false]))
            .await?;
        Ok(block.map(|block| Head {
            number: block.number.0,
            hash: block.hash,
            timestamp: block.timestamp.0,
        }))
    }

    async fn block_at(&self, number: u64) -> Result<Option<Head>, RpcError> {
        let block = self.block(&format!("{number:#x}")).await?;
        match block {
            Some(block) if block.number != number => {
                Err(RpcError::Malformed("eth_getBlockByNumber"))
            }
            block => Ok(block),
        }
    }

    /// Checks that the token has a contract, and that the endpoint does not report every nonce as used.
    async fn check_controls(&self, head: &Head) -> Result<(), Reason> {
        let at = json!({ "blockHash": head.hash.to_string() });
        let Bytes(code) = self
            .call("eth_getCode", json!([self.question.token.to_string(), at]))
            .await?;
        if code.is_empty() {
            return Err(Reason::NoCode);
        }
        if self.is_used(control(self.question.nonce), head).await? {
            return Err(Reason::ControlFailed);
        }
        Ok(())
    }

    async fn is_used(&self, nonce: B256, head: &Head) -> Result<bool, RpcError> {
        let data = authorization_state(self.question.payer, nonce);
        let call = json!({ "to": self.question.token.to_string(), "data": data });
        let at = json!({ "blockHash": head.hash.to_string(), "requireCanonical": true });
        let word: Bytes = self.call("eth_call", json!([call, at])).await?;
        word.as_bool().ok_or(RpcError::Malformed("eth_call"))
    }

    /// Finds the transaction that used the nonce: the claimed transaction, or else the one in the logs.
    ///
    /// A claim can be false, and another account can have sent the authorization first.
    async fn explain(&self, head: &Head) -> Result<State, Reason> {
        if let Some(claimed) = self.question.claimed {
            let state = self.settled_by(claimed, head).await?;
            if matches!(state, State::Settled { .. }) {
                return Ok(state);
            }
        }
        match self.find(head).await? {
            None => Ok(State::Used(Gap::NoLog)),
            Some(log) if log.topics.first() == Some(&AUTHORIZATION_CANCELED) => {
                let block = log.block_number.0;
                let canonical = self.is_final(block, log.block_hash, head).await?;
                Ok(if canonical {
                    State::Canceled { block }
                } else {
                    State::Used(Gap::Reorged)
                })
            }
            Some(log) => self.settled_by(log.transaction_hash, head).await,
        }
    }

    /// Checks whether this transaction is the settlement.
    async fn settled_by(&self, transaction: B256, head: &Head) -> Result<State, Reason> {
        let hash = transaction.to_string();
        let receipt: Option<Receipt> = self
            .call("eth_getTransactionReceipt", json!([hash]))
            .await?;
        let receipt = receipt
            .filter(|receipt| receipt.status.0 == 1 && receipt.transaction_hash == transaction);
        let Some(receipt) = receipt else {
            return Ok(State::Used(Gap::NoLog));
        };
        let Some(value) = transferred(&receipt.logs, self.question) else {
            return Ok(State::Used(Gap::OtherTransfer));
        };
        let block = receipt.block_number.0;
        if self.is_final(block, receipt.block_hash, head).await? {
            Ok(State::Settled {
                transaction,
                block,
                value,
            })
        } else {
            Ok(State::Used(Gap::Reorged))
        }
    }

    async fn is_final(&self, number: u64, hash: B256, head: &Head) -> Result<bool, RpcError> {
        if number > head.number {
            return Ok(false);
        }
        Ok(self
            .block_at(number)
            .await?
            .is_some_and(|block| block.hash == hash))
    }

    /// Searches the logs for the event that used or canceled the nonce.
    async fn find(&self, head: &Head) -> Result<Option<Log>, Reason> {
        let mut search = Search {
            from: self.first_block(head).await?,
            last: head.number,
            span: MAX_RANGE,
        };
        for _ in 0..MAX_SEARCHES {
            let Some((from, to)) = search.range() else {
                return Ok(None);
            };
            let found = self.logs(from, to).await;
            if let ControlFlow::Break(outcome) = search.step(found, to) {
                return outcome.map_err(Reason::from);
            }
        }
        Ok(None)
    }

    async fn logs(&self, from: u64, to: u64) -> Result<Option<Log>, RpcError> {
        let Question {
            token,
            payer,
            nonce,
            ..
        } = self.question;
        let either = [
            AUTHORIZATION_USED.to_string(),
            AUTHORIZATION_CANCELED.to_string(),
        ];
        let filter = json!({
            "address": token.to_string(),
            "fromBlock": format!("{from:#x}"),
            "toBlock": format!("{to:#x}"),
            "topics": [either, payer.into_word().to_string(), nonce.to_string()],
        });
        let logs: Vec<Log> = self.call("eth_getLogs", json!([filter])).await?;
        // Do not trust the node's filter either.
        Ok(logs.into_iter().find(|log| {
            is_about(log, AUTHORIZATION_USED, self.question)
                || is_about(log, AUTHORIZATION_CANCELED, self.question)
        }))
    }

    /// Finds the first block that can hold the transaction, by bisection over the blocks' times.
    async fn first_block(&self, head: &Head) -> Result<u64, Reason> {
        let since = self.question.signed_at.secs().saturating_sub(SEARCH_MARGIN);
        let (mut low, mut high) = (0, head.number);
        while low < high {
            let middle = low.midpoint(high);
            let block = self
                .block_at(middle)
                .await?
                .ok_or(RpcError::Malformed("eth_getBlockByNumber"))?;
            if block.timestamp < since {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }
}

/// A search over blocks, in ranges that the node accepts.
struct Search {
    from: u64,
    last: u64,
    span: u64,
}

impl Search {
    /// Returns the first and the last block of the next range.
    fn range(&self) -> Option<(u64, u64)> {
        let to = self
            .from
            .saturating_add(self.span.saturating_sub(1))
            .min(self.last);
        (self.from <= self.last).then_some((self.from, to))
    }

    /// Moves on, or halves the range. Providers limit ranges and report that in different ways, so each
    /// refusal halves the range.
    fn step(
        &mut self,
        found: Result<Option<Log>, RpcError>,
        to: u64,
    ) -> ControlFlow<Result<Option<Log>, RpcError>> {
        match found {
            Ok(Some(log)) => ControlFlow::Break(Ok(Some(log))),
            Ok(None) => {
                self.from = to.saturating_add(1);
                ControlFlow::Continue(())
            }
            Err(RpcError::Node { .. } | RpcError::Status(400 | 413)) if self.span > 1 => {
                self.span = self.span.div_ceil(2);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }
}

fn is_about(log: &Log, event: B256, question: &Question) -> bool {
    log.address == question.token
        && log.topics == [event, question.payer.into_word(), question.nonce]
}

/// Returns the value that the authorization moved, from the logs of one transaction.
///
/// A transaction can carry several authorizations of one payer. A token logs the use of a nonce and
/// then its transfer.
fn transferred(logs: &[Log], question: &Question) -> Option<U256> {
    let used = logs
        .iter()
        .position(|log| is_about(log, AUTHORIZATION_USED, question))?;
    let ours = |log: &&Log| log.address == question.token && log.topics.first() == Some(&TRANSFER);
    let transfer = logs.iter().skip(used).find(ours)?;
    let parties = [
        TRANSFER,
        question.payer.into_word(),
        question.payee.into_word(),
    ];
    let value = U256::from_be_bytes(<[u8; 32]>::try_from(transfer.data.0.as_slice()).ok()?);
    (transfer.topics == parties && value <= question.value).then_some(value)
}
