//! The questions to one endpoint, and the state that it reports.

use std::ops::ControlFlow;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::abi::{
    AUTHORIZATION_CANCELED, AUTHORIZATION_USED, TRANSFER, authorization_state, control,
    nonce_bitmap,
};
use super::answer::{Head, Reason};
use super::rpc::{RpcClient, RpcError};
use super::wire::{Block, Bytes, Log, Quantity};
use super::{Question, Rules};
use crate::money::TransferMethod;
use crate::permit2::PERMIT2;

mod permit;

pub(super) use permit::Charge;

/// The largest number of blocks in one request for logs.
const MAX_RANGE: u64 = 10_000;
/// The largest number of requests for logs. Ten minutes of two-second blocks take 30 requests of ten blocks.
const MAX_SEARCHES: u32 = 256;
/// The time before the signature at which the search begins, in seconds, and the most that it goes back. Clocks differ.
const SKEW: u64 = 60;
const MOST_SKEW: u64 = 3600;
/// A place in time is found when it lies between two known blocks with this distance.
const NEAR: u64 = 16;
/// The time limit of the search, as a multiple of the time limit of one call.
const CALLS_TO_EXPLAIN: u32 = 10;
/// How often a call is repeated that the endpoint refused because of its rate, and the longest wait before that.
const RATE_RETRIES: u32 = 6;
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// The report of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct EndpointReport {
    pub(super) host: String,
    pub(super) party: String,
    pub(super) observation: Result<Observation, Reason>,
}

/// The state of an authorization at a final block, as one endpoint reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) head: Head,
    pub(super) state: State,
}

#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The nonce of Permit2 is used in this block or before it.
    Spent {
        block: u64,
        charge: Charge,
    },
    /// The nonce is used, and the endpoint does not show by which event.
    Used(Gap),
}

/// The reason why a used nonce is not explained.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gap {
    NoLog,
    OtherTransfer,
    Reorged,
    /// The endpoint did not let bursar look.
    Unsearched(Box<Reason>),
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
    let used = node.is_used(question.nonce, head.hash).await?;
    let time = limit.saturating_mul(CALLS_TO_EXPLAIN);
    let state = if used && question.method == TransferMethod::Permit2 {
        let charge = tokio::time::timeout(time, node.charge(&head)).await;
        let late = || Charge::Later(Reason::Endpoint(RpcError::Timeout));
        let (block, charge) = charge.unwrap_or_else(|_| (head.number, late()));
        State::Spent { block, charge }
    } else if used {
        // An endpoint that says "used" stays a witness, even if it cannot say by which transaction.
        let explained = tokio::time::timeout(time, node.explain(&head)).await;
        let explained = explained.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout)));
        explained.unwrap_or_else(|reason| State::Used(Gap::Unsearched(Box::new(reason))))
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
        for retry in 0..RATE_RETRIES {
            match self.endpoint.call(method, params.clone(), self.limit).await {
                Err(RpcError::RateLimited(wait)) if wait <= LONGEST_WAIT => {
                    let backoff = Duration::from_millis(100).saturating_mul(1 << retry);
                    tokio::time::sleep(wait.max(backoff)).await;
                }
                answer => return answer,
            }
        }
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

    /// Checks that the contract of the nonces exists, and that the endpoint does not report every nonce as used.
    async fn check_controls(&self, head: &Head) -> Result<(), Reason> {
        let at = json!({ "blockHash": head.hash.to_string() });
        let Bytes(code) = self
            .call("eth_getCode", json!([self.contract().to_string(), at]))
            .await?;
        if code.is_empty() {
            return Err(Reason::NoCode);
        }
        if self
            .is_used(control(self.question.nonce), head.hash)
            .await?
        {
            return Err(Reason::ControlFailed);
        }
        Ok(())
    }

    /// Returns the contract that keeps the nonces.
    const fn contract(&self) -> Address {
        match self.question.method {
            TransferMethod::Eip3009 => self.question.token,
            TransferMethod::Permit2 => PERMIT2,
        }
    }

    /// Returns whether the nonce is used in a block.
    async fn is_used(&self, nonce: B256, block: B256) -> Result<bool, RpcError> {
        let payer = self.question.payer;
        let data = match self.question.method {
            TransferMethod::Eip3009 => authorization_state(payer, nonce),
            TransferMethod::Permit2 => nonce_bitmap(payer, nonce),
        };
        let call = json!({ "to": self.contract().to_string(), "data": data });
        let at = json!({ "blockHash": block.to_string(), "requireCanonical": true });
        let word: Bytes = self.call("eth_call", json!([call, at])).await?;
        let used = match self.question.method {
            TransferMethod::Eip3009 => word.as_bool(),
            TransferMethod::Permit2 => word.as_bit(nonce),
        };
        used.ok_or(RpcError::Malformed("eth_call"))
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
        let Some(receipt) = self.succeeded(transaction).await? else {
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

    /// Searches the logs for the event that used or canceled the nonce. The blocks in which the authorization could settle
    /// come first: from its signature to its expiry. A cancellation can come later.
    async fn find(&self, head: &Head) -> Result<Option<Log>, Reason> {
        let signed = self.question.signed_at.secs();
        let start = self.around(signed.saturating_sub(SKEW), head).await?.0;
        let end = self.around(self.question.valid_before, head).await?.1;
        let mut search = Search {
            from: start,
            last: end,
            span: MAX_RANGE,
        };
        let mut left = MAX_SEARCHES;
        if let Some(log) = self.search(&mut search, &mut left).await? {
            return Ok(Some(log));
        }
        let earlier = self.around(signed.saturating_sub(MOST_SKEW), head).await?.0;
        for (from, last) in [(earlier, start), (end, head.number)] {
            (search.from, search.last) = (from, last);
            if let Some(log) = self.search(&mut search, &mut left).await? {
                return Ok(Some(log));
            }
        }
        Ok(None)
    }

    async fn search(&self, search: &mut Search, left: &mut u32) -> Result<Option<Log>, Reason> {
        while let Some((from, to)) = search.range() {
            *left = left.checked_sub(1).ok_or(Reason::NarrowLogs(search.span))?;
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

    /// Returns the numbers of a block before this time and of one that is not before it. They are near each other.
    ///
    /// It estimates the place by the times of known blocks. Every third step halves the distance, so it always ends.
    async fn around(&self, time: u64, head: &Head) -> Result<(u64, u64), Reason> {
        if head.timestamp < time {
            return Ok((head.number, head.number));
        }
        let (mut low, mut high): (Option<Head>, Head) = (None, *head);
        // The seconds that a number of blocks take. Most chains with stablecoins have a block every two seconds.
        let (mut seconds, mut blocks) = (2, 1);
        let mut step = 0_u32;
        loop {
            let floor = low.map_or(0, |low| low.number);
            if high.number.saturating_sub(floor) <= NEAR {
                return Ok((floor, high.number));
            }
            let distance = |time: u64| {
                time.saturating_mul(blocks)
                    .checked_div(seconds)
                    .unwrap_or(0)
            };
            let aim = NEAR / 4;
            let guess = match low {
                _ if step % 3 == 2 => floor.midpoint(high.number),
                // Aim a little past the place, on the side that is not near yet.
                Some(low) if step % 3 == 1 => low
                    .number
                    .saturating_add(distance(time.saturating_sub(low.timestamp)))
                    .saturating_add(aim),
                _ => high
                    .number
                    .saturating_sub(distance(high.timestamp.saturating_sub(time)))
                    .saturating_sub(aim),
            };
            let last = high.number.saturating_sub(1);
            let guess = guess.clamp(floor.saturating_add(1), last);
            let block = self.block_at(guess).await?;
            let block = block.ok_or(RpcError::Malformed("eth_getBlockByNumber"))?;
            seconds = high.timestamp.saturating_sub(block.timestamp).max(1);
            blocks = high.number.saturating_sub(block.number).max(1);
            if block.timestamp < time {
                low = Some(block);
            } else {
                high = block;
            }
            step = step.saturating_add(1);
        }
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

    /// Moves on, or makes the range smaller. Providers limit ranges and report that in different ways, so each refusal makes
    /// it smaller: to the size that the provider names, or by half.
    fn step(
        &mut self,
        found: Result<Option<Log>, RpcError>,
        to: u64,
    ) -> ControlFlow<Result<Option<Log>, RpcError>> {
        // The last range may be smaller than the others.
        let span = to.saturating_sub(self.from).saturating_add(1);
        match found {
            Ok(Some(log)) => ControlFlow::Break(Ok(Some(log))),
            Ok(None) => {
                self.from = to.saturating_add(1);
                ControlFlow::Continue(())
            }
            Err(RpcError::Node { message, .. }) if span > 1 => {
                self.span = suggested(&message, span).unwrap_or(span.div_ceil(2));
                ControlFlow::Continue(())
            }
            Err(RpcError::Status(400 | 413) | RpcError::TooLong) if span > 1 => {
                self.span = span.div_ceil(2);
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Err(error)),
        }
    }
}

/// Returns the range that a provider names in its refusal, such as `[0x10, 0x19]`, `1,000 blocks` or `2K block range`, if it
/// is smaller than the refused one.
fn suggested(message: &str, refused: u64) -> Option<u64> {
    let hexadecimal = |text: &str| {
        let digits = text.trim().strip_prefix("0x")?;
        u64::from_str_radix(digits, 16).ok()
    };
    let pair = || {
        let (_, rest) = message.split_once('[')?;
        let (from, to) = rest.split_once(']')?.0.split_once(',')?;
        let span = hexadecimal(to)?.checked_sub(hexadecimal(from)?)?;
        span.checked_add(1)
    };
    let number = |word: &str| {
        let word = word.trim_matches(|letter: char| !letter.is_ascii_alphanumeric());
        let (digits, unit) = match word.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1000),
            None => (word, 1),
        };
        let digits: String = digits.chars().filter(|digit| *digit != ',').collect();
        digits.parse::<u64>().ok()?.checked_mul(unit)
    };
    let fits = |span: &u64| (1..refused).contains(span);
    pair().filter(fits).or_else(|| {
        message
            .split_whitespace()
            .filter_map(number)
            .filter(fits)
            .max()
    })
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
    let value = permit::value(transfer)?;
    (transfer.topics == parties && value <= question.value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::suggested;

    #[test]
    fn a_provider_names_the_range_that_it_accepts() {
        for (message, span) in [
            (
                "up to a 10 block range. this block range should work: [0x64, 0x6d]",
                Some(10),
            ),
            ("eth_getLogs is limited to a 1,000 range", Some(1000)),
            (
                "You can make eth_getLogs requests with up to a 2K block range",
                Some(2000),
            ),
            ("exceed maximum block range: 500", Some(500)),
            ("query returned more than 10000 results", None),
            ("block range is too wide", None),
            ("try [0x64, 0x1]", None),
        ] {
            assert_eq!(suggested(message, 5000), span, "{message}");
        }
    }
}
