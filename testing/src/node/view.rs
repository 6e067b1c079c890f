//! The simulated chain as a node shows it.
//!
//! There is one block for each second, and its number is its Unix time. So a block does not change while the paywall
//! sells. Every block is final at once.

use std::borrow::Cow;
use std::collections::BTreeSet;

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use bursar::{Network, Timestamp};
use serde_json::{Value, json};

use super::NodeFault;
use crate::chain::{Chain, Token, transaction};
use crate::permit::{FACILITATOR, PERMIT2, Permit};

/// The age of the latest block of a stale node, in seconds: longer than any authorization is valid.
const LAG: u64 = 30 * 86_400;

/// The gas of every transaction.
const GAS: u64 = 46_000;
/// The price of gas, and the part of it above the base fee, in wei.
const GAS_PRICE: u64 = 1_000_000_000;
const TIP: u64 = 100_000_000;
/// The balance of every account, in wei: one ether.
const WEALTH: u64 = 1_000_000_000_000_000_000;

/// A JSON-RPC error: code and message.
pub(super) type Refusal = (i64, Cow<'static, str>);

pub(super) const INVALID: Refusal = (-32602, Cow::Borrowed("invalid params"));
const REVERTED: Refusal = (3, Cow::Borrowed("execution reverted"));
const PRUNED: Refusal = (-32000, Cow::Borrowed("missing trie node"));
const UNKNOWN_BLOCK: Refusal = (-39001, Cow::Borrowed("Unknown block"));

/// A settlement or a cancellation: it used a nonce.
struct Event {
    transaction: B256,
    /// The token, or Permit2 if a nonce was invalidated there.
    contract: Address,
    authorizer: Address,
    nonce: B256,
    /// Payee and value of a settlement.
    transfer: Option<(Address, U256)>,
    permit: Option<Permit>,
    /// The allowance of Permit2 that it sets. Such an event used no nonce of EIP-3009 or Permit2.
    approval: Option<U256>,
    block: u64,
}

impl Event {
    /// Returns whether it used a nonce of Permit2, and not one of the token.
    fn is_of_permit2(&self) -> bool {
        self.permit.is_some() || self.contract == PERMIT2
    }

    /// Returns whether it used a nonce of EIP-3009.
    fn is_of_token(&self) -> bool {
        self.approval.is_none() && !self.is_of_permit2()
    }
}

/// The chain at one moment, with the fault of the node.
pub(super) struct View<'a> {
    pub(super) chain: &'a Chain,
    pub(super) network: Network,
    pub(super) now: Timestamp,
    pub(super) fault: Option<NodeFault>,
}

impl View<'_> {
    /// Returns the result of a JSON-RPC call.
    pub(super) fn call(&self, method: &str, params: &Value) -> Result<Value, Refusal> {
        if self.fault == Some(NodeFault::SoftError) {
            return Err((-32603, "upstream is gone".into()));
        }
        let parameter = |index: usize| params.get(index).ok_or(INVALID);
        match method {
            "eth_chainId" => Ok(quantity(self.chain_id())),
            "eth_blockNumber" => Ok(quantity(self.head())),
            "eth_getBlockByNumber" => self.numbered(parameter(0)?),
            "eth_getBlockByHash" => Ok(self
                .number_of(word(parameter(0)?)?)
                .map_or(Value::Null, |n| self.block(n))),
            "eth_getCode" => {
                self.at(parameter(1)?)?;
                Ok(json!(if self.fault == Some(NodeFault::NoCode) {
                    "0x"
                } else {
                    "0xfe"
                }))
            }
            "eth_call" => match (self.at(parameter(1)?)?, self.fault) {
                (block, Some(NodeFault::NoHistory)) if block < self.head() => Err(PRUNED),
                (block, _) => self.eth_call(parameter(0)?, block),
            },
            "eth_getTransactionCount" => {
                let account = parameter(0)?.as_str().and_then(|text| text.parse().ok());
                let account = account.ok_or(INVALID)?;
                Ok(quantity(
                    self.chain.transaction_count(self.network, account),
                ))
            }
            "eth_getBalance" => Ok(quantity(WEALTH)),
            "eth_gasPrice" => Ok(quantity(GAS_PRICE)),
            "eth_maxPriorityFeePerGas" => Ok(quantity(TIP)),
            "eth_estimateGas" => Ok(quantity(GAS)),
            "eth_getTransactionByHash" => Ok(self.transaction(word(parameter(0)?)?)),
            "eth_getTransactionReceipt" => self.receipt(word(parameter(0)?)?),
            "eth_getLogs" => self.logs(parameter(0)?),
            _ => Err((-32601, "the method does not exist".into())),
        }
    }

    fn chain_id(&self) -> u64 {
        let wrong = u64::from(self.fault == Some(NodeFault::WrongChain));
        self.network.chain_id().saturating_add(wrong)
    }

    /// Returns the number of the latest block.
    fn head(&self) -> u64 {
        match self.fault {
            Some(NodeFault::StaleBlock) => self.now.secs().saturating_sub(LAG),
            Some(NodeFault::FutureBlock) => self.now.secs().saturating_add(LAG),
            _ => self.now.secs(),
        }
    }

    fn numbered(&self, tag: &Value) -> Result<Value, Refusal> {
        if self.fault == Some(NodeFault::NoFinality)
            && matches!(tag.as_str(), Some("finalized" | "safe"))
        {
            return Err(UNKNOWN_BLOCK);
        }
        let number = self.number(tag)?;
        Ok(if number > self.head() {
            Value::Null
        } else {
            self.block(number)
        })
    }

    fn number(&self, tag: &Value) -> Result<u64, Refusal> {
        match tag.as_str().ok_or(INVALID)? {
            "latest" | "pending" | "safe" | "finalized" => Ok(self.head()),
            "earliest" => Ok(0),
            number => number
                .strip_prefix("0x")
                .and_then(|digits| u64::from_str_radix(digits, 16).ok())
                .ok_or(INVALID),
        }
    }

    /// Returns the number of the block that a parameter names: by a number, a tag, or an object of EIP-1898.
    fn at(&self, block: &Value) -> Result<u64, Refusal> {
        let number = match (block.get("blockHash"), block.get("blockNumber")) {
            (Some(hash), _) => self.number_of(word(hash)?).ok_or(UNKNOWN_BLOCK)?,
            (None, Some(number)) => self.number(number)?,
            (None, None) => self.number(block)?,
        };
        if number > self.head() {
            Err(UNKNOWN_BLOCK)
        } else {
            Ok(number)
        }
    }

    fn block(&self, number: u64) -> Value {
        let mut block = json!({
            "number": quantity(number),
            "hash": self.hash(number).to_string(),
            "parentHash": self.hash(number.saturating_sub(1)).to_string(),
            "timestamp": quantity(number),
            "baseFeePerGas": quantity(GAS_PRICE.saturating_sub(TIP)),
            // A transaction with two events is listed once.
            "transactions": self.events().filter(|event| event.block == number)
                .map(|event| event.transaction.to_string()).collect::<BTreeSet<_>>(),
        });
        if let (Some(NodeFault::NoTimestamp), Some(block)) = (self.fault, block.as_object_mut()) {
            block.remove("timestamp");
        }
        block
    }

    /// Returns the hash of a block. It ends in the number, so that a block can be found by its hash.
    fn hash(&self, number: u64) -> B256 {
        let seed = [self.network.chain_id().to_be_bytes(), number.to_be_bytes()].concat();
        let mut hash = keccak256(seed);
        if let Some(tail) = hash.0.last_chunk_mut() {
            *tail = number.to_be_bytes();
        }
        hash
    }

    fn number_of(&self, hash: B256) -> Option<u64> {
        let number = u64::from_be_bytes(*hash.0.last_chunk()?);
        (number <= self.head() && self.hash(number) == hash).then_some(number)
    }

    fn events(&self) -> impl Iterator<Item = Event> {
        let settlements = self
            .chain
            .settlements
            .iter()
            .filter(|settlement| settlement.network == self.network);
        let used = settlements.map(|settlement| Event {
            transaction: settlement.transaction,
            contract: settlement.asset,
            authorizer: settlement.authorization.from,
            nonce: settlement.authorization.nonce,
            transfer: Some((settlement.authorization.to, settlement.authorization.value)),
            permit: settlement.permit,
            approval: None,
            block: settlement.at.secs(),
        });
        let cancellations = self
            .chain
            .cancellations
            .iter()
            .filter(|cancelled| cancelled.network == self.network);
        let cancelled = cancellations.map(|cancelled| Event {
            transaction: cancelled.transaction,
            contract: cancelled.asset,
            authorizer: cancelled.authorizer,
            nonce: cancelled.nonce,
            transfer: None,
            permit: None,
            approval: None,
            block: cancelled.at.secs(),
        });
        let invalidations = self
            .chain
            .invalidations
            .iter()
            .filter(|invalidation| invalidation.network == self.network);
        let invalidated = invalidations.map(|invalidation| Event {
            transaction: transaction(PERMIT2, invalidation.owner, invalidation.nonce.into()),
            contract: PERMIT2,
            authorizer: invalidation.owner,
            nonce: invalidation.nonce.into(),
            transfer: None,
            permit: None,
            approval: None,
            block: invalidation.at.secs(),
        });
        let approvals = self
            .chain
            .approvals
            .iter()
            .filter(|approval| approval.network == self.network);
        let approved = approvals.map(|approval| Event {
            transaction: approval.transaction,
            contract: approval.asset,
            authorizer: approval.owner,
            nonce: B256::ZERO,
            transfer: None,
            permit: None,
            approval: Some(approval.amount),
            block: approval.at.secs(),
        });
        // An approval by EIP-2612 is the first part of a settlement.
        approved.chain(used).chain(cancelled).chain(invalidated)
    }

    fn eth_call(&self, call: &Value, block: u64) -> Result<Value, Refusal> {
        let contract: Address = field(call, "to")?.parse().map_err(|_| INVALID)?;
        let input = call
            .get("data")
            .or_else(|| call.get("input"))
            .and_then(Value::as_str)
            .ok_or(INVALID)?;
        let input = hex::decode(input).map_err(|_| INVALID)?;
        let (selector, arguments) = input.split_first_chunk::<4>().ok_or(INVALID)?;
        let (account, rest) = arguments.split_first_chunk::<32>().ok_or(INVALID)?;
        let account = Address::from_word(B256::from(account));
        let token = Token {
            network: self.network,
            contract,
        };
        let second = || B256::try_from(rest).map_err(|_| INVALID);
        let word = match *selector {
            selector if selector == signature("nonceBitmap(address,uint256)") => {
                if contract != PERMIT2 {
                    return Err(REVERTED);
                }
                self.bitmap(account, second()?.into(), block)
            }
            _ if contract == PERMIT2 => return Err(REVERTED),
            selector if selector == signature("authorizationState(address,bytes32)") => {
                U256::from(u8::from(self.is_used(contract, account, second()?, block)))
            }
            selector if selector == signature("allowance(address,address)") => {
                // Accounts have approved Permit2 alone.
                match (Address::from_word(second()?), self.fault) {
                    (PERMIT2, Some(NodeFault::SaysNotApproved)) => U256::ZERO,
                    (PERMIT2, Some(NodeFault::SaysApproved)) => U256::MAX,
                    (PERMIT2, _) => self.chain.allowance(token, account),
                    _ => U256::ZERO,
                }
            }
            selector if selector == signature("nonces(address)") => {
                self.chain.permit_nonce(token, account)
            }
            selector if selector == signature("balanceOf(address)") => {
                // An account without a balance has unlimited funds.
                self.chain
                    .balances
                    .get(&account)
                    .copied()
                    .unwrap_or(U256::MAX)
            }
            _ => return Err(REVERTED),
        };
        Ok(json!(if self.fault == Some(NodeFault::EmptyWord) {
            "0x".into()
        } else {
            B256::from(word).to_string()
        }))
    }

    fn is_used(&self, token: Address, authorizer: Address, nonce: B256, block: u64) -> bool {
        match self.fault {
            Some(NodeFault::SaysUnused) => false,
            Some(NodeFault::SaysUsed) => true,
            _ => self.events().any(|event| {
                (event.contract, event.authorizer, event.nonce) == (token, authorizer, nonce)
                    && event.is_of_token()
                    && event.block <= block
            }),
        }
    }

    /// Returns 256 nonces of Permit2, one bit for each, that are set if the nonce is used.
    fn bitmap(&self, owner: Address, word: U256, block: u64) -> U256 {
        match self.fault {
            Some(NodeFault::SaysUnused) => return U256::ZERO,
            Some(NodeFault::SaysUsed) => return U256::MAX,
            _ => {}
        }
        let used = self.events().filter(|event| {
            event.is_of_permit2() && event.authorizer == owner && event.block <= block
        });
        used.map(|event| place(event.nonce))
            .filter(|(index, _)| *index == word)
            .fold(U256::ZERO, |bits, (_, bit)| bits | bit)
    }

    /// Returns the transaction of a settlement through Permit2, or of an approval. The node keeps no other transactions.
    fn transaction(&self, hash: B256) -> Value {
        let events = self.events();
        let mut found =
            events.filter(|event| event.transaction == hash && event.block <= self.head());
        // An approval by EIP-2612 comes before its settlement.
        let Some(event) = found.next().map(|first| found.next().unwrap_or(first)) else {
            return Value::Null;
        };
        let (from, to, input) = match (event.permit, event.approval, self.chain.calldata.get(&hash))
        {
            (Some(permit), _, Some(calldata)) => {
                let sender = permit.facilitator.unwrap_or(FACILITATOR);
                (sender, permit.spender, calldata.clone())
            }
            (None, Some(amount), _) => (event.authorizer, event.contract, approve_permit2(amount)),
            _ => return Value::Null,
        };
        json!({
            "hash": hash.to_string(),
            "from": from.to_string(),
            "to": to.to_string(),
            "input": hex::encode_prefixed(input),
            "value": "0x0",
            "chainId": quantity(self.chain_id()),
            "blockHash": self.shown(event.block).to_string(),
            "blockNumber": quantity(event.block),
        })
    }

    fn receipt(&self, transaction: B256) -> Result<Value, Refusal> {
        let events: Vec<_> = self
            .events()
            .filter(|event| event.transaction == transaction && event.block <= self.head())
            .collect();
        let found = events.first();
        let Some(event) = found.filter(|_| self.fault != Some(NodeFault::NoReceipts)) else {
            return Ok(Value::Null);
        };
        Ok(json!({
            "transactionHash": transaction.to_string(),
            "blockHash": self.shown(event.block).to_string(),
            "blockNumber": quantity(event.block),
            "status": "0x1",
            "gasUsed": quantity(GAS),
            "effectiveGasPrice": quantity(GAS_PRICE),
            "logs": events.iter().flat_map(|event| self.logs_of(event)).collect::<Vec<_>>(),
        }))
    }

    /// Returns the hash of an event's block. A reorganized node returns the hash of a block that no longer exists.
    fn shown(&self, block: u64) -> B256 {
        let hash = self.hash(block);
        if self.fault == Some(NodeFault::Reorged) {
            keccak256(hash)
        } else {
            hash
        }
    }

    /// Returns the logs of an event, as `FiatTokenV2_2`, Permit2 and the proxies of x402 write them.
    fn logs_of(&self, event: &Event) -> Vec<Value> {
        if let Some(amount) = event.approval {
            let name = keccak256("Approval(address,address,uint256)");
            let topics = [name, event.authorizer.into_word(), PERMIT2.into_word()];
            return vec![self.log(event, event.contract, &topics, &[amount])];
        }
        let transfer = event.transfer.map(|(payee, value)| {
            let name = keccak256("Transfer(address,address,uint256)");
            let topics = [name, event.authorizer.into_word(), payee.into_word()];
            let value = match self.fault {
                Some(NodeFault::SmallTransfers) => U256::from(1),
                _ => value,
            };
            self.log(event, event.contract, &topics, &[value])
        });
        if let Some(permit) = &event.permit {
            let sponsored =
                |other: Event| other.approval.is_some() && other.transaction == event.transaction;
            let name = if self.events().any(sponsored) {
                "SettledWithPermit()"
            } else {
                "Settled()"
            };
            let settled = self.log(event, permit.spender, &[keccak256(name)], &[]);
            return transfer.into_iter().chain([settled]).collect();
        }
        if event.contract == PERMIT2 {
            let name = keccak256("UnorderedNonceInvalidation(address,uint256,uint256)");
            let topics = [name, event.authorizer.into_word()];
            let (index, bit) = place(event.nonce);
            return vec![self.log(event, PERMIT2, &topics, &[index, bit])];
        }
        let name = match event.transfer {
            Some(_) => "AuthorizationUsed(address,bytes32)",
            None => "AuthorizationCanceled(address,bytes32)",
        };
        let topics = [keccak256(name), event.authorizer.into_word(), event.nonce];
        let used = self.log(event, event.contract, &topics, &[]);
        [used].into_iter().chain(transfer).collect()
    }

    fn log(&self, event: &Event, address: Address, topics: &[B256], data: &[U256]) -> Value {
        let data: Vec<u8> = data.iter().flat_map(U256::to_be_bytes::<32>).collect();
        json!({
            "address": address.to_string(),
            "topics": topics.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "data": hex::encode_prefixed(data),
            "transactionHash": event.transaction.to_string(),
            "blockHash": self.shown(event.block).to_string(),
            "blockNumber": quantity(event.block),
            "removed": false,
        })
    }

    fn logs(&self, filter: &Value) -> Result<Value, Refusal> {
        let from = self.number(filter.get("fromBlock").ok_or(INVALID)?)?;
        let to = self
            .number(filter.get("toBlock").ok_or(INVALID)?)?
            .min(self.head());
        match self.fault {
            Some(NodeFault::NoLogs) => return Ok(json!([])),
            Some(NodeFault::FreePlan(limit)) if to.saturating_sub(from) >= limit => {
                let last = from.saturating_add(limit.saturating_sub(1));
                let text = format!(
                    "Under the Free tier plan, you can make eth_getLogs requests with up to a {limit} block range. \
                     Based on your parameters, this block range should work: [{from:#x}, {last:#x}]."
                );
                return Err((-32600, text.into()));
            }
            Some(NodeFault::NarrowLogs(limit) | NodeFault::ShortAnswers(limit))
                if to.saturating_sub(from) >= limit =>
            {
                return Err((-32005, "query exceeds max block range".into()));
            }
            _ => {}
        }
        let address: Address = field(filter, "address")?.parse().map_err(|_| INVALID)?;
        let topics = filter
            .get("topics")
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        let events = self
            .events()
            .filter(|event| (from..=to).contains(&event.block));
        let logs = events
            .flat_map(|event| self.logs_of(&event))
            .filter(|log| log.get("address") == Some(&json!(address.to_string())));
        Ok(logs.filter(|log| fits(log, topics)).collect())
    }
}

/// Returns whether a log has the topics of a filter. A filter names any, one, or one of several topics at each place.
fn fits(log: &Value, topics: &[Value]) -> bool {
    topics.iter().enumerate().all(|(index, wanted)| {
        let topic = log.get("topics").and_then(|topics| topics.get(index));
        match wanted {
            Value::Null => true,
            Value::Array(any) => topic.is_some_and(|topic| any.contains(topic)),
            one => topic == Some(one),
        }
    })
}

/// Returns the calldata that approves Permit2.
fn approve_permit2(amount: U256) -> Vec<u8> {
    let selector = signature("approve(address,uint256)");
    [
        &selector[..],
        PERMIT2.into_word().as_slice(),
        &amount.to_be_bytes::<32>(),
    ]
    .concat()
}

/// Returns the place of a nonce in Permit2's bitmap: the index of its word, and its bit.
fn place(nonce: B256) -> (U256, U256) {
    let [index @ .., bit] = nonce.0;
    (
        U256::from_be_slice(&index),
        U256::from(1).wrapping_shl(usize::from(bit)),
    )
}

fn signature(function: &str) -> [u8; 4] {
    let [a, b, c, d, ..] = keccak256(function).0;
    [a, b, c, d]
}

fn quantity(number: u64) -> Value {
    json!(format!("{number:#x}"))
}

fn word(value: &Value) -> Result<B256, Refusal> {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .ok_or(INVALID)
}

fn field<'a>(object: &'a Value, name: &str) -> Result<&'a str, Refusal> {
    object.get(name).and_then(Value::as_str).ok_or(INVALID)
}
