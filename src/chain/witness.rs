//! One endpoint, asked about one authorization.

use std::time::Duration;

use alloy::primitives::B256;
use serde_json::{Value, json};

use super::Question;
use super::abi::{self, AUTHORIZATION_CANCELED, AUTHORIZATION_USED, Log};
use super::rpc::{Endpoint, Silence};
use super::verdict::{Payment, Witness, Word};
use crate::{Network, Timestamp};

/// Blocks asked for logs at once; providers allow between 500 and 10,000.
const LOG_RANGE: u64 = 500;
/// Ranges of logs that are asked for at most.
const MOST_RANGES: u32 = 40;
/// How far a clock of ours may be ahead of the chain's, when an authorization was signed.
const CLOCK_MARGIN: u64 = 600;

/// An endpoint and the final block that it is asked at.
#[derive(Clone, Debug)]
pub(super) struct Post {
    endpoint: Endpoint,
    limit: Duration,
    last: Result<Block, Silence>,
}

#[derive(Clone, Copy, Debug)]
struct Block {
    number: u64,
    hash: B256,
    timestamp: u64,
}

impl Post {
    pub(super) async fn open(
        endpoint: Endpoint,
        network: Network,
        confirmations: Option<u64>,
        limit: Duration,
    ) -> Self {
        let mut post = Self { endpoint, limit, last: Err(Silence("not asked".to_owned())) };
        post.last = post.find_last(network, confirmations).await;
        post
    }

    async fn find_last(&self, network: Network, confirmations: Option<u64>) -> Result<Block, Silence> {
        let chain = self.call("eth_chainId", json!([])).await?;
        if abi::quantity(&chain) != Some(network.chain_id()) {
            return Err(Silence(format!("is not an endpoint of {network}")));
        }
        if let Some(confirmations) = confirmations {
            let latest = self.block(json!("latest")).await?;
            return self.block(number(latest.number.saturating_sub(confirmations))).await;
        }
        match self.block(json!("finalized")).await {
            Ok(block) => Ok(block),
            Err(_) => self.block(json!("safe")).await,
        }
    }

    /// What this endpoint can say.
    pub(super) async fn word(&self, question: &Question) -> Word {
        match self.look(question).await {
            Ok(word) => word,
            Err(Silence(why)) => Word::Silent(self.endpoint.name().to_owned(), why),
        }
    }

    async fn look(&self, question: &Question) -> Result<Word, Silence> {
        let last = self.last.clone()?;
        let witness = Witness {
            endpoint: self.endpoint.name().to_owned(),
            block: last.number,
            hash: last.hash,
            timestamp: last.timestamp,
        };
        // State and time are of one block, by its hash: a block that was replaced has no answer.
        let at = json!({ "blockHash": last.hash });
        let code = self.call("eth_getCode", json!([question.asset, at])).await?;
        if code.as_str().is_none_or(|code| code.len() <= 2) {
            return Err(Silence("has no contract at the token's address".to_owned()));
        }
        let call = json!({ "to": question.asset, "data": abi::authorization_state(question.payer, question.nonce) });
        let state = self.call("eth_call", json!([call, at])).await?;
        match abi::flag(&state) {
            None => Err(Silence("the token does not answer authorizationState".to_owned())),
            Some(false) if last.timestamp >= question.valid_before => Ok(Word::Unused(witness)),
            Some(false) => Err(Silence(format!(
                "unused so far, and cashable until {}; its final block is of {}",
                Timestamp::from_secs(question.valid_before),
                Timestamp::from_secs(last.timestamp)
            ))),
            Some(true) => self.find_use(question, last, witness).await,
        }
    }

    /// What used the nonce: the transaction that the seller claims, or another that is looked for.
    async fn find_use(&self, question: &Question, last: Block, witness: Witness) -> Result<Word, Silence> {
        if let Some(claimed) = question.claimed
            && let Ok(Some(payment)) = self.payment(question, claimed, last).await
        {
            return Ok(Word::Paid(payment, witness));
        }
        for log in self.logs(question, last).await? {
            if log.is_cancellation(question.asset, question.payer, question.nonce) {
                return Ok(Word::Cancelled(witness));
            }
            let used = log.is_use(question.asset, question.payer, question.nonce);
            let Some(transaction) = log.transaction.filter(|_| used) else { continue };
            return match self.payment(question, transaction, last).await? {
                Some(payment) => Ok(Word::Paid(payment, witness)),
                None => Err(Silence("the transaction that used the nonce does not show the transfer".to_owned())),
            };
        }
        Err(Silence("the nonce is used, and no log tells by what".to_owned()))
    }

    /// The payment in a transaction, if it succeeded, is final, used the nonce and moved the money.
    async fn payment(&self, question: &Question, transaction: B256, last: Block) -> Result<Option<Payment>, Silence> {
        let receipt = self.call("eth_getTransactionReceipt", json!([transaction])).await?;
        let succeeded = receipt.get("status").and_then(abi::quantity) == Some(1);
        let itself = receipt.get("transactionHash").and_then(abi::hash) == Some(transaction);
        let block = receipt.get("blockNumber").and_then(abi::quantity).filter(|number| *number <= last.number);
        let (Some(number), true) = (block, succeeded && itself) else { return Ok(None) };
        let logs: Vec<Log> =
            receipt.get("logs").and_then(Value::as_array).into_iter().flatten().filter_map(Log::read).collect();
        if !logs.iter().any(|log| log.is_use(question.asset, question.payer, question.nonce)) {
            return Ok(None);
        }
        let moved = logs.iter().filter_map(|log| log.transfer(question.asset, question.payer, question.payee));
        let Some(value) = moved.into_iter().find(|value| *value <= question.value) else { return Ok(None) };
        let at = self.block(self::number(number)).await?.timestamp;
        let within = question.since.secs().saturating_sub(CLOCK_MARGIN)..question.valid_before;
        let at = within.contains(&at).then(|| Timestamp::from_secs(at));
        Ok(at.map(|at| Payment { transaction, block: number, at, value }))
    }

    /// The logs about the nonce, from when it was signed until it expired.
    async fn logs(&self, question: &Question, last: Block) -> Result<Vec<Log>, Silence> {
        let since = question.since.secs().saturating_sub(CLOCK_MARGIN);
        let mut from = self.first_block_after(since, last).await?;
        let mut range = LOG_RANGE;
        for _ in 0..MOST_RANGES {
            let to = from.saturating_add(range.saturating_sub(1)).min(last.number);
            let topics =
                json!([[AUTHORIZATION_USED, AUTHORIZATION_CANCELED], question.payer.into_word(), question.nonce]);
            let filter = json!([{
                "address": question.asset, "topics": topics, "fromBlock": number(from), "toBlock": number(to),
            }]);
            match self.call("eth_getLogs", filter).await {
                Ok(answer) => {
                    let logs: Vec<Log> = answer.as_array().into_iter().flatten().filter_map(Log::read).collect();
                    let logs: Vec<Log> =
                        logs.into_iter().filter(|log| log.block.is_some_and(|block| block <= last.number)).collect();
                    if !logs.is_empty() || to >= last.number {
                        return Ok(logs);
                    }
                    from = to.saturating_add(1);
                }
                Err(refusal) if range == 1 => return Err(refusal),
                Err(_) => range = range.div_ceil(4),
            }
        }
        Err(Silence("the logs of the nonce's time are too many to ask for".to_owned()))
    }

    /// By halves: the first block that is not older.
    async fn first_block_after(&self, time: u64, last: Block) -> Result<u64, Silence> {
        let (mut low, mut high) = (0_u64, last.number);
        while low < high {
            let middle = low.midpoint(high);
            if self.block(number(middle)).await?.timestamp < time {
                low = middle.saturating_add(1);
            } else {
                high = middle;
            }
        }
        Ok(low)
    }

    async fn block(&self, which: Value) -> Result<Block, Silence> {
        let answer = self.call("eth_getBlockByNumber", json!([which, false])).await?;
        let number = answer.get("number").and_then(abi::quantity);
        let hash = answer.get("hash").and_then(abi::hash);
        let timestamp = answer.get("timestamp").and_then(abi::quantity);
        match (number, hash, timestamp) {
            (Some(number), Some(hash), Some(timestamp)) => Ok(Block { number, hash, timestamp }),
            _ => Err(Silence("a block without number, hash or time".to_owned())),
        }
    }

    async fn call(&self, method: &str, params: Value) -> Result<Value, Silence> {
        self.endpoint.call(method, params, self.limit).await
    }
}

fn number(block: u64) -> Value {
    json!(format!("{block:#x}"))
}
