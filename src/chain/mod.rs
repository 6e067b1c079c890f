//! Reads from the chain whether an authorization was used, and whether it still can be.
//!
//! A receipt is a claim of the seller, and a missing receipt proves nothing. [`ChainReader`] asks the
//! JSON-RPC endpoints that you configure and returns one of three answers:
//!
//! * [`Answer::Settled`]: the token accepted the authorization in a final block.
//! * [`Answer::NotSettled`]: it did not and never will. The answer has a proof.
//! * [`Answer::CannotTell`]: the data is missing, broken or contradictory. The money stays counted.
//!
//! # Why an unused nonce after its expiry is proof
//!
//! The token accepts an authorization only in a block whose timestamp is before `validBefore`.
//! If the nonce is unused at a final block with a later timestamp, then no later block can use it.
//! bursar reads the state and the timestamp from the same block, by its hash (EIP-1898).
//!
//! # Why one endpoint can confirm a settlement but not release money
//!
//! A wrong `Settled` only takes room under a limit. A wrong `NotSettled` can break a limit.
//!
//! * `Settled` needs the transaction and the logs of one endpoint.
//! * `NotSettled` needs the [required number](ChainReader::required_endpoints) of endpoints of different
//!   parties, two by default. No endpoint may contradict them.
//!
//! One endpoint can show a settlement while another one reports the nonce as unused. The answer is
//! `Settled` if the final block of the other one is older than the settlement. Otherwise it is
//! `CannotTell`.
//!
//! # Permit2
//!
//! Permit2 keeps the nonces of a payment by Permit2, one bit for each. An unset bit at a final block after the deadline is
//! proof, as above. A set bit is a settlement at the full amount, because Permit2 logs nothing about a nonce.
//!
//! A seller can charge less than the ceiling of an `upto` payment. The [required
//! number](ChainReader::required_endpoints) of endpoints can show that:
//!
//! * The transaction that the seller claims succeeded.
//! * The bit was unset in the block before it, and is set in its block.
//! * The charge is then at most the sum of all transfers of the token by the payer in that block.
//!
//! The highest of their sums counts, and never more than the ceiling. A set bit without a transfer to the payee counts
//! as the ceiling. So does a bit that the owner set to invalidate the permit.

mod abi;
mod answer;
mod balance;
mod contract;
mod endpoint;
mod evaluate;
mod rpc;
mod send;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use tokio::task::JoinSet;
use url::Url;

pub use crate::permit2::TransactionTerms;
pub use answer::{Answer, Endpoint, Head, Proof, ProofKind, Reason, Settlement};
pub use contract::ContractSignature;
pub use rpc::{EndpointError, RpcError};

use crate::clock::Timestamp;
use crate::money::{Network, TransferMethod};
use endpoint::{EndpointReport, observe};
use evaluate::evaluate;
use rpc::RpcClient;

/// The total time limit of an endpoint, as a multiple of the time limit of one call.
const CALLS_PER_ENDPOINT: u32 = 16;

/// The authorization that a [`ChainReader`] looks for.
///
/// The ledger fills it in when you reconcile. Create one yourself to ask about another authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a caller fills in every field")]
pub struct Question {
    /// The chain.
    pub network: Network,
    /// The kind of the authorization. It tells which contract keeps the nonce: the token or Permit2.
    pub method: TransferMethod,
    /// The address of the token's contract.
    pub token: Address,
    /// The address that signed.
    pub payer: Address,
    /// The nonce of the purchase. The nonce of a permit is the same number, in big-endian bytes.
    pub nonce: B256,
    /// The address to be paid.
    pub payee: Address,
    /// The largest signed value, in atomic units.
    pub value: U256,
    /// The latest signed `validBefore`, in Unix seconds. For a permit it is the second after its deadline.
    pub valid_before: u64,
    /// The transaction that the seller claims, if any.
    pub claimed: Option<B256>,
    /// The time of the first signature. The search for the transaction begins a minute
    /// earlier, and then an hour earlier, because clocks differ.
    pub signed_at: Timestamp,
}

/// A reader of authorizations, with JSON-RPC endpoints.
///
/// `Debug` shows only schemes and hosts, because the paths and queries of RPC URLs hold API keys.
///
/// ```
/// use bursar::chain::ChainReader;
/// use bursar::Network;
///
/// let base: Network = "base".parse()?;
/// let reader = ChainReader::new()
///     .endpoint(base, "https://mainnet.base.org")?
///     .endpoint(base, "https://base.example.com/v2/secret")?;
/// assert!(!format!("{reader:?}").contains("secret"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use = "a reader reads nothing until it is asked"]
pub struct ChainReader {
    endpoints: Vec<(Network, Arc<RpcClient>)>,
    rules: Rules,
    timeout: Duration,
}

/// The requirements for an answer.
#[derive(Clone, Copy, Debug)]
struct Rules {
    required_endpoints: usize,
    /// The time by which a block must be later than `validBefore`, in seconds.
    margin: u64,
    /// The depth of a final block on a chain without the tags `finalized` and `safe`.
    confirmations: Option<u64>,
}

impl Default for ChainReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ChainReader {
    /// Creates a reader without endpoints. It always answers [`Answer::CannotTell`].
    pub const fn new() -> Self {
        let rules = Rules {
            required_endpoints: 2,
            margin: 60,
            confirmations: None,
        };
        Self {
            endpoints: Vec::new(),
            rules,
            timeout: Duration::from_secs(10),
        }
    }

    /// Adds an endpoint over https, or over plain http on this machine's loopback.
    ///
    /// Two endpoints count as two only if they belong to two parties, because one party can answer falsely at both. These are
    /// one party: all hosts below one registrable domain, such as `base.provider.com` and `eth.provider.com`; all addresses in
    /// one network (a /24 of IPv4, a /48 of IPv6); all endpoints on loopback. Scheme, port and path make no difference.
    ///
    /// An endpoint on loopback is asked without a proxy, and its name must resolve to loopback addresses only.
    ///
    /// # Errors
    /// Returns an error if the URL is not http or https, if it has plain http and another host than loopback, or if the HTTP
    /// client cannot be built. The error does not repeat the URL.
    pub fn endpoint(self, network: Network, url: &str) -> Result<Self, EndpointError> {
        self.with_endpoint(network, url, None)
    }

    /// Adds an endpoint whose operator you know better than bursar: a node of your own, or a tunnel on loopback that leads
    /// to a provider. Endpoints with the same `operator` count as one.
    ///
    /// Name two operators only if no single party can make both endpoints answer falsely.
    ///
    /// # Errors
    /// Returns the errors of [`endpoint`](Self::endpoint).
    ///
    /// ```
    /// use bursar::Network;
    /// use bursar::chain::ChainReader;
    ///
    /// let base: Network = "base".parse()?;
    /// let reader = ChainReader::new()
    ///     .endpoint_operated_by(base, "http://localhost:8545", "our node")?
    ///     .endpoint_operated_by(base, "http://localhost:9545", "tunnel to provider.example")?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn endpoint_operated_by(
        self,
        network: Network,
        url: &str,
        operator: &str,
    ) -> Result<Self, EndpointError> {
        self.with_endpoint(network, url, Some(operator))
    }

    fn with_endpoint(
        mut self,
        network: Network,
        url: &str,
        operator: Option<&str>,
    ) -> Result<Self, EndpointError> {
        let url = Url::parse(url).map_err(|_| EndpointError::NotHttp)?;
        let client = RpcClient::new(url, operator)?;
        self.endpoints.push((network, Arc::new(client)));
        Ok(self)
    }

    /// Sets the number of parties that must agree before money is released. The default is 2, the
    /// minimum is 1.
    pub const fn required_endpoints(mut self, count: usize) -> Self {
        self.rules.required_endpoints = if count == 0 { 1 } else { count };
        self
    }

    /// Releases money if one endpoint confirms the proof. Use it only with a node of your own, because
    /// a false answer can break a limit.
    ///
    /// ```
    /// use bursar::Network;
    /// use bursar::chain::ChainReader;
    ///
    /// let base: Network = "base".parse()?;
    /// let reader = ChainReader::new()
    ///     .endpoint(base, "http://localhost:8545")?
    ///     .trust_single_endpoint();
    /// assert!(reader.reads(base));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn trust_single_endpoint(self) -> Self {
        self.required_endpoints(1)
    }

    /// Sets the depth of a final block for a node without the tags `finalized` and `safe`.
    ///
    /// Such a node can answer nothing if no depth is set.
    pub const fn confirmations(mut self, blocks: u64) -> Self {
        self.rules.confirmations = Some(blocks);
        self
    }

    /// Sets the time limit of one call. The default is 10 seconds. An endpoint has sixteen times as long in
    /// total, with all waits that its rate limit asks for.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Returns whether an endpoint is configured for the chain.
    #[must_use]
    pub fn reads(&self, network: Network) -> bool {
        self.endpoints.iter().any(|(of, _)| *of == network)
    }

    /// Returns the chains with an endpoint, in the order of their ids.
    ///
    /// ```
    /// use bursar::{ChainReader, Network};
    ///
    /// let base: Network = "base".parse()?;
    /// let reader = ChainReader::new().endpoint(base, "https://mainnet.base.org")?;
    /// assert_eq!(reader.networks(), [base]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn networks(&self) -> Vec<Network> {
        let mut networks: Vec<Network> = self.endpoints.iter().map(|(of, _)| *of).collect();
        networks.sort_by_key(|network| network.chain_id());
        networks.dedup();
        networks
    }

    /// Returns the endpoints of the chain.
    fn of(&self, network: Network) -> impl Iterator<Item = Arc<RpcClient>> {
        let here = self.endpoints.iter().filter(move |(of, _)| *of == network);
        here.map(|(_, endpoint)| Arc::clone(endpoint))
    }

    /// Asks all endpoints of the chain at the same time.
    ///
    /// `now` is the local time. It tells an expired authorization from a node that lags behind. Failures
    /// of endpoints are part of the answer.
    ///
    /// ```no_run
    /// use bursar::chain::{Answer, ChainReader, Question};
    ///
    /// # async fn example(reader: ChainReader, question: Question, now: bursar::Timestamp) {
    /// match reader.ask(&question, now).await {
    ///     Answer::Settled(settled) => println!("{} units, in {:?}", settled.value, settled.transaction),
    ///     Answer::NotSettled(proof) => println!("not settled: {:?}", proof.kind),
    ///     other => println!("{other}"), // ask again later
    /// }
    /// # }
    /// ```
    #[must_use = "the answer tells whether the money moved"]
    pub async fn ask(&self, question: &Question, now: Timestamp) -> Answer {
        evaluate(question, &self.reports(question).await, self.rules, now)
    }

    async fn reports(&self, question: &Question) -> Vec<EndpointReport> {
        let mut asked = JoinSet::new();
        for (order, endpoint) in self.of(question.network).enumerate() {
            let (question, rules, limit) = (*question, self.rules, self.timeout);
            asked.spawn(async move {
                let whole = limit.saturating_mul(CALLS_PER_ENDPOINT);
                let observation =
                    tokio::time::timeout(whole, observe(&endpoint, &question, rules, limit)).await;
                let observation = observation.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout)));
                (
                    order,
                    EndpointReport {
                        host: endpoint.host().to_owned(),
                        party: endpoint.party().to_owned(),
                        observation,
                    },
                )
            });
        }
        // The tasks do not panic, so no contradiction is lost.
        let mut reports = asked.join_all().await;
        reports.sort_by_key(|(order, _)| *order);
        reports.into_iter().map(|(_, report)| report).collect()
    }
}

impl fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChainReader")
            .field("endpoints", &self.endpoints)
            .field("rules", &self.rules)
            .field("timeout", &self.timeout)
            .finish()
    }
}
