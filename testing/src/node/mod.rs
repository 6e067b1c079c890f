//! JSON-RPC nodes of the simulated chain.

mod view;

use std::fmt;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use alloy::primitives::hex;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Url;

use crate::body::Body;
use crate::chain::Chain;
use crate::seller::Seller;
use crate::server::{Listener, answer_requests, read_body};
use crate::sponsorship::SignedApproval;
use crate::transaction::Transaction;
use bursar::Network;
use view::View;

/// The longest request body that a node reads, in bytes.
const MAX_BODY: usize = 64 * 1024;

/// A way in which a [`Node`] misbehaves. Set it with [`Node::fault`].
///
/// ```
/// use bursar::Network;
/// use bursar_testing::{NodeFault, Paywall};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let seller = Paywall::builder().start().await?;
/// let node = seller.node(Network::from_chain_id(84_532)).await?;
/// node.fault(NodeFault::SaysUnused);
/// // Test that your agent does not release the money of a settled payment. Then:
/// node.clear_faults();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeFault {
    /// Answers 503.
    Unavailable,
    /// Answers 200 with a JSON-RPC error.
    SoftError,
    /// Cuts its answers in the middle.
    Truncated,
    /// Answers with 4 MiB.
    Huge,
    /// Never answers.
    Hangs,
    /// Redirects to another host.
    Redirects,
    /// Names another chain.
    WrongChain,
    /// Says that every nonce is unused.
    SaysUnused,
    /// Says that every nonce is used.
    SaysUsed,
    /// Says that no account has approved Permit2.
    SaysNotApproved,
    /// Says that every account has approved Permit2 without limit.
    SaysApproved,
    /// Takes transactions, and loses them.
    LosesTransactions,
    /// Answers `eth_call` with an empty word.
    EmptyWord,
    /// Its latest block is a month old.
    StaleBlock,
    /// Its latest block is a month in the future.
    FutureBlock,
    /// Its blocks have no timestamp.
    NoTimestamp,
    /// Does not support the block tags `finalized` and `safe`.
    NoFinality,
    /// Says that no address has code.
    NoCode,
    /// Its receipts and logs name blocks that are no longer on the chain.
    Reorged,
    /// Has receipts, but no logs.
    NoLogs,
    /// Has no receipts.
    NoReceipts,
    /// Has no states of blocks before the latest one, as a node that is not an archive.
    NoHistory,
    /// Its logs say that every transfer moved one unit.
    SmallTransfers,
    /// Refuses to search this many blocks or more for logs.
    NarrowLogs(u64),
    /// Searches at most this many blocks for logs, as the free plan of a provider: it refuses more with status 400, and
    /// names a range that it accepts.
    FreePlan(u64),
    /// As [`NarrowLogs`](Self::NarrowLogs), with status 413 and no word.
    ShortAnswers(u64),
    /// Refuses every second call because of its rate, with status 429 and `Retry-After: 0`.
    Throttled,
    /// Refuses every second call because of its rate, with a JSON-RPC error.
    SoftThrottled,
}

/// A JSON-RPC node of the simulated chain, on `127.0.0.1`. Open it with [`Paywall::node`](crate::Paywall::node).
///
/// It takes transactions that approve Permit2. Every account has one ether for gas, which is never spent.
///
/// The chain has one block for each second. The number of a block is its Unix time, and every block is final at once.
/// The node stops when it is dropped.
///
/// ```
/// use bursar::chain::ChainReader;
/// use bursar::{Client, LocalSigner, Ledger, Network, Policy, usd};
/// use bursar_testing::{Fault, Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let base_sepolia = Network::from_chain_id(84_532);
/// let route = Route::get("/report").price(usd!("0.01")).fault(Fault::NoReceipt);
/// let seller = Paywall::builder().route(route).start().await?;
/// let node = seller.node(base_sepolia).await?;
///
/// let client = Client::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia"))
///     .ledger(Ledger::memory())
///     .allow_http_loopback(true)
///     .build()?;
/// client.get(seller.url("/report")).send().await?;
/// // The seller sent no receipt. The chain shows that it took the payment.
/// let chain = ChainReader::new().endpoint(base_sepolia, node.url().as_str())?;
/// let reconciled = client.ledger().unwrap().reconcile(&chain).await?;
/// assert_eq!(reconciled[0].after, bursar::ledger::State::Settled);
/// assert!(node.calls() > 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    url: Url,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

impl Node {
    pub(crate) async fn start(seller: Arc<Seller>, network: Network) -> io::Result<Self> {
        let listener = Listener::bind().await?;
        let url = listener.url().clone();
        let shared = Arc::new(Shared {
            seller,
            network,
            progress: Mutex::default(),
        });
        let connection = Arc::clone(&shared);
        let server = listener.serve(move |stream| serve(stream, Arc::clone(&connection)));
        Ok(Self {
            shared,
            url,
            _server: server,
        })
    }

    /// Returns the URL of the node.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Sets the fault, from now on. It replaces an earlier fault.
    pub fn fault(&self, fault: NodeFault) {
        self.shared.progress().fault = Some(fault);
    }

    /// Removes the fault. The node is honest from now on.
    pub fn clear_faults(&self) {
        self.shared.progress().fault = None;
    }

    /// Returns the number of calls that reached the node.
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

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    answer_requests(stream, async |request| shared.answer(request).await).await;
}

impl Shared {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let body = read_body(request.into_body(), MAX_BODY).await?;
        let (fault, calls) = {
            let mut progress = self.progress();
            progress.calls = progress.calls.saturating_add(1);
            (progress.fault, progress.calls)
        };
        if fault == Some(NodeFault::Hangs) {
            return pending().await;
        }
        let request: Value = serde_json::from_slice(&body).unwrap_or_default();
        if calls % 2 == 0 && fault == Some(NodeFault::Throttled) {
            let mut refusal = Response::new(Body::whole("slow down"));
            *refusal.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            refusal
                .headers_mut()
                .insert(http::header::RETRY_AFTER, http::HeaderValue::from(0));
            return Ok(refusal);
        }
        let reply = if calls % 2 == 0 && fault == Some(NodeFault::SoftThrottled) {
            Err((
                -32005,
                "Your app has exceeded its compute units per second capacity".into(),
            ))
        } else {
            self.reply(&request, fault)
        };
        let refused = reply.is_err()
            && request
                .get("method")
                .is_some_and(|name| name == "eth_getLogs");
        let id = request.get("id").cloned().unwrap_or_default();
        let reply = match reply {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err((code, message)) => {
                json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
            }
        };
        let mut response = response(reply.to_string(), fault);
        match fault {
            Some(NodeFault::FreePlan(_)) if refused => {
                *response.status_mut() = StatusCode::BAD_REQUEST;
            }
            Some(NodeFault::ShortAnswers(_)) if refused => {
                response = Response::new(Body::whole(""));
                *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            }
            _ => {}
        }
        Ok(response)
    }

    fn reply(&self, request: &Value, fault: Option<NodeFault>) -> Result<Value, view::Refusal> {
        let method = request
            .get("method")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let params = request.get("params").unwrap_or(&Value::Null);
        let mut state = self.seller.state();
        if method == "eth_sendRawTransaction" {
            return self.send(&mut state.chain, params, fault);
        }
        let view = View {
            chain: &state.chain,
            network: self.network,
            now: self.seller.now(),
            fault,
        };
        view.call(method, params)
    }
}

impl Shared {
    /// Takes a signed transaction that approves Permit2. Returns its hash.
    fn send(
        &self,
        chain: &mut Chain,
        params: &Value,
        fault: Option<NodeFault>,
    ) -> Result<Value, view::Refusal> {
        if matches!(fault, Some(NodeFault::SoftError | NodeFault::Unavailable)) {
            return Err((-32603, "upstream is gone".into()));
        }
        let bytes = params.get(0).and_then(Value::as_str).ok_or(view::INVALID)?;
        let bytes = hex::decode(bytes).map_err(|_| view::INVALID)?;
        let refused = |message: &'static str| (-32000, message.into());
        let transaction = Transaction::read(&bytes)
            .ok_or_else(|| refused("the simulated chain takes transactions of EIP-1559"))?;
        let approval = SignedApproval::of(&transaction)
            .ok_or_else(|| refused("the simulated chain takes approvals of Permit2"))?;
        if fault != Some(NodeFault::LosesTransactions) {
            let now = self.seller.now();
            chain.send(self.network, &approval, now).map_err(refused)?;
        }
        Ok(json!(transaction.hash.to_string()))
    }
}

/// Returns the HTTP response with this JSON, changed by faults of the transport.
fn response(mut json: String, fault: Option<NodeFault>) -> Response<Body> {
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
