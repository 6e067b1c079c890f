//! The paywall's chain as a JSON-RPC node shows it.
//!
//! A block a second: its number is its time, so that blocks stay what they are while the paywall
//! sells. The present is final at once.

use std::fmt;
use std::future::pending;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use url::Url;

use super::body::Body;
use super::chain::Chain;
use super::seller::Seller;
use bursar::{Network, Timestamp};

const MAX_REQUEST: usize = 64 * 1024;
/// How far a stale node lags, in seconds: longer than any authorization is valid.
const LAG: u64 = 30 * 86_400;

/// A way in which a [`Node`] misleads its readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeFault {
    /// Answers 503.
    Unavailable,
    /// Answers 200 with a JSON-RPC error.
    SoftError,
    /// Cuts its answers off in the middle.
    Truncated,
    /// Answers with megabytes.
    Huge,
    /// Never answers.
    Hangs,
    /// Redirects to another host.
    Redirects,
    /// Is of another chain.
    WrongChain,
    /// Calls every nonce unused.
    SaysUnused,
    /// Calls every nonce used.
    SaysUsed,
    /// Answers calls with an empty word.
    EmptyWord,
    /// Its latest block is a month old.
    StaleBlock,
    /// Its latest block is a month ahead.
    FutureBlock,
    /// Its blocks have no timestamp.
    NoTimestamp,
    /// Knows neither `finalized` nor `safe`.
    NoFinality,
    /// Knows no contract.
    NoCode,
    /// Its receipts and logs are of blocks that are not on the chain any more.
    Reorged,
    /// Has no logs, though it has receipts.
    NoLogs,
    /// Has no receipts.
    NoReceipts,
    /// Refuses to search more than this many blocks for logs.
    NarrowLogs(u64),
}

/// A JSON-RPC node of the paywall's chain, on `127.0.0.1`; see
/// [`Paywall::node`](super::Paywall::node). It stops when dropped.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    url: Url,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

impl Node {
    pub(super) async fn start(seller: Arc<Seller>, network: Network) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let url =
            Url::parse(&format!("http://{}", listener.local_addr()?)).map_err(io::Error::other)?;
        let shared = Arc::new(Shared {
            seller,
            network,
            progress: Mutex::default(),
        });
        let mut server = JoinSet::new();
        drop(server.spawn(serve(listener, Arc::clone(&shared))));
        Ok(Self {
            shared,
            url,
            _server: server,
        })
    }

    /// Where it answers.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Misbehaves so from now on, in place of what it did before.
    pub fn fault(&self, fault: NodeFault) {
        self.shared.progress().fault = Some(fault);
    }

    /// Tells the truth from now on.
    pub fn reform(&self) {
        self.shared.progress().fault = None;
    }

    /// How often it was called.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.shared.progress().calls
    }
}

struct Shared {
    seller: Arc<Seller>,
    network: Network,
    progress: Mutex<Progress>,
}

#[derive(Debug, Default)]
struct Progress {
    fault: Option<NodeFault>,
    calls: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("network", &self.network)
            .field("progress", &self.progress)
            .finish_non_exhaustive()
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&shared)))),
                Err(_) => tokio::task::yield_now().await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let service = service_fn(|request| shared.answer(request));
    // It ends with an error when the reader goes away, which is no news here.
    drop(
        http1::Builder::new()
            .serve_connection(TokioIo::new(stream), service)
            .await,
    );
}

/// A JSON-RPC error: code and message.
type Refusal = (i64, &'static str);

const INVALID: Refusal = (-32602, "invalid params");
const UNKNOWN_BLOCK: Refusal = (-39001, "Unknown block");

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let body = Limited::new(request.into_body(), MAX_REQUEST)
            .collect()
            .await
            .map_err(io::Error::other)?;
        let fault = {
            let mut progress = self.progress();
            progress.calls = progress.calls.saturating_add(1);
            progress.fault
        };
        if fault == Some(NodeFault::Hangs) {
            return pending().await;
        }
        let request: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
        Ok(broken(self.reply(&request, fault).to_string(), fault))
    }

    fn reply(&self, request: &Value, fault: Option<NodeFault>) -> Value {
        let id = request.get("id").cloned().unwrap_or_default();
        let method = request
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let params = request.get("params").unwrap_or(&Value::Null);
        let state = self.seller.state();
        let view = View {
            chain: &state.chain,
            network: self.network,
            now: self.seller.now(),
            fault,
        };
        match view.call(method, params) {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
            }
        }
    }
}

/// The answer as it goes out, spoiled by faults of the transport.
fn broken(mut json: String, fault: Option<NodeFault>) -> Response<Body> {
    let mut status = StatusCode::OK;
    match fault {
        Some(NodeFault::Unavailable) => status = StatusCode::SERVICE_UNAVAILABLE,
        Some(NodeFault::Redirects) => status = StatusCode::TEMPORARY_REDIRECT,
        Some(NodeFault::Truncated) => json.truncate(json.len() / 2),
        Some(NodeFault::Huge) => json.push_str(&" ".repeat(4 << 20)),
        _ => {}
    }
    let mut response = Response::new(Body::whole(json));
    *response.status_mut() = status;
    if status.is_redirection() {
        let elsewhere = http::HeaderValue::from_static("http://127.0.0.1:9/");
        response
            .headers_mut()
            .insert(http::header::LOCATION, elsewhere);
    }
    response
}

/// Something that used a nonce.
struct Event {
    transaction: B256,
    token: Address,
    authorizer: Address,
    nonce: B256,
    /// Payee and value, if it was a transfer.
    transfer: Option<(Address, U256)>,
    block: u64,
}

/// The chain at this moment.
struct View<'a> {
    chain: &'a Chain,
    network: Network,
    now: Timestamp,
    fault: Option<NodeFault>,
}

impl View<'_> {
    fn call(&self, method: &str, params: &Value) -> Result<Value, Refusal> {
        if self.fault == Some(NodeFault::SoftError) {
            return Err((-32603, "upstream is gone"));
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
            _ => Err((-32601, "the method does not exist")),
        }
    }

    fn chain_id(&self) -> u64 {
        let wrong = u64::from(self.fault == Some(NodeFault::WrongChain));
        self.network.chain_id().saturating_add(wrong)
    }

    /// The number of the latest block.
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

    /// The block that a parameter means: a number, a tag, or EIP-1898's object.
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

    /// It ends in the number, so that a block is found by its hash.
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
                // Accounts without a balance have as much as they like.
                self.chain
                    .balances
                    .get(&account)
                    .copied()
                    .unwrap_or(U256::MAX)
            }
            _ => return Err((3, "execution reverted")),
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

    /// The hash of an event's block, or of one that was there before.
    fn shown(&self, block: u64) -> B256 {
        let hash = self.hash(block);
        if self.fault == Some(NodeFault::Reorged) {
            keccak256(hash)
        } else {
            hash
        }
    }

    /// As `FiatTokenV2_2` writes them.
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
            Some(NodeFault::NarrowLogs(limit)) if to.saturating_sub(from) >= limit => {
                return Err((-32005, "query exceeds max block range"));
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

/// Whether a log has the topics that a filter asks for: any, one, or one of several in each place.
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
