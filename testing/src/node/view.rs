//! The simulated chain as a node shows it.
//!
//! There is one block for each second, and its number is its Unix time. So a block does not change while the paywall
//! sells. Every block is final at once.

use std::borrow::Cow;

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use bursar::{Network, Timestamp};
use serde_json::{Value, json};

use super::NodeFault;
use crate::chain::Chain;

/// The age of the latest block of a stale node, in seconds: longer than any authorization is valid.
const LAG: u64 = 30 * 86_400;

/// A JSON-RPC error: code and message.
pub(super) type Refusal = (i64, Cow<'static, str>);

const INVALID: Refusal = (-32602, Cow::Borrowed("invalid params"));
const UNKNOWN_BLOCK: Refusal = (-39001, Cow::Borrowed("Unknown block"));

/// A settlement or a cancellation: it used a nonce.
struct Event {
    transaction: B256,
    token: Address,
    authorizer: Address,
    nonce: B256,
    /// Payee and value of a settlement.
    transfer: Option<(Address, U256)>,
    block: u64,
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
            "eth_call" => self.eth_call(parameter(0)?, self.at(parameter(1)?)?),
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
            "transactions": self.events().filter(|event| event.block == number)
                .map(|event| event.transaction.to_string()).collect::<Vec<_>>(),
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
            token: settlement.asset,
            authorizer: settlement.authorization.from,
            nonce: settlement.authorization.nonce,
            transfer: Some((settlement.authorization.to, settlement.authorization.value)),
            block: settlement.at.secs(),
        });
        let cancellations = self
            .chain
            .cancellations
            .iter()
            .filter(|cancelled| cancelled.network == self.network);
        used.chain(cancellations.map(|cancelled| Event {
            transaction: cancelled.transaction,
            token: cancelled.asset,
            authorizer: cancelled.authorizer,
            nonce: cancelled.nonce,
            transfer: None,
            block: cancelled.at.secs(),
        }))
    }

    fn eth_call(&self, call: &Value, block: u64) -> Result<Value, Refusal> {
        let token: Address = field(call, "to")?.parse().map_err(|_| INVALID)?;
        let input = call
            .get("data")
            .or_else(|| call.get("input"))
            .and_then(Value::as_str)
            .ok_or(INVALID)?;
        let input = hex::decode(input).map_err(|_| INVALID)?;
        let (selector, arguments) = input.split_first_chunk::<4>().ok_or(INVALID)?;
        let (account, rest) = arguments.split_first_chunk::<32>().ok_or(INVALID)?;
        let account = Address::from_word(B256::from(account));
        let word = match *selector {
            selector if selector == signature("authorizationState(address,bytes32)") => {
                let nonce = rest.try_into().map_err(|_| INVALID)?;
                U256::from(u8::from(self.is_used(token, account, nonce, block)))
            }
            selector if selector == signature("balanceOf(address)") => {
                // An account without a balance has unlimited funds.
                self.chain
                    .balances
                    .get(&account)
                    .copied()
                    .unwrap_or(U256::MAX)
            }
            _ => return Err((3, "execution reverted".into())),
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
                (event.token, event.authorizer, event.nonce) == (token, authorizer, nonce)
                    && event.block <= block
            }),
        }
    }

    fn receipt(&self, transaction: B256) -> Result<Value, Refusal> {
        let found = self
            .events()
            .find(|event| event.transaction == transaction && event.block <= self.head());
        let Some(event) = found.filter(|_| self.fault != Some(NodeFault::NoReceipts)) else {
            return Ok(Value::Null);
        };
        Ok(json!({
            "transactionHash": transaction.to_string(),
            "blockHash": self.shown(event.block).to_string(),
            "blockNumber": quantity(event.block),
            "status": "0x1",
            "logs": self.logs_of(&event),
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

    /// Returns the logs of an event, as `FiatTokenV2_2` writes them.
    fn logs_of(&self, event: &Event) -> Vec<Value> {
        let name = match event.transfer {
            Some(_) => "AuthorizationUsed(address,bytes32)",
            None => "AuthorizationCanceled(address,bytes32)",
        };
        let topics = [keccak256(name), event.authorizer.into_word(), event.nonce];
        let mut logs = vec![self.log(event, &topics, "0x".into())];
        if let Some((payee, value)) = event.transfer {
            let transfer = keccak256("Transfer(address,address,uint256)");
            let topics = [transfer, event.authorizer.into_word(), payee.into_word()];
            logs.push(self.log(event, &topics, B256::from(value).to_string()));
        }
        logs
    }

    fn log(&self, event: &Event, topics: &[B256], data: String) -> Value {
        json!({
            "address": event.token.to_string(),
            "topics": topics.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "data": data,
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
            .filter(|event| event.token == address && (from..=to).contains(&event.block));
        let logs = events.flat_map(|event| self.logs_of(&event));
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
