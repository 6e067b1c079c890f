//! Reading the chain: was this authorization used, and can it still be?
//!
//! A receipt is a seller's claim, and silence is no proof. [`ChainReader`] asks JSON-RPC endpoints
//! that the user configured, and gives one of three answers: [`Answer::Settled`],
//! [`Answer::NotSettled`] with a proof, or [`Answer::CannotTell`]. Whatever is missing, broken or
//! contradictory is the third, which keeps the money counted.
//!
//! # Why an unused nonce past its expiry is proof
//!
//! The token accepts an authorization only in a block whose timestamp is before `validBefore`. At a
//! finalized block with a later timestamp at which `authorizationState` is false, no later block can
//! change that. State and timestamp are read of one block, by its hash (EIP-1898).
//!
//! # Why one endpoint can keep money counted, but not release it
//!
//! To count money that was not spent costs room; to release money that was spent breaks a limit. So
//! one endpoint's transaction and logs are enough for `Settled`, and `NotSettled` needs as many
//! endpoints as are [required](ChainReader::required_endpoints), two unless told otherwise, with no
//! endpoint that contradicts them. Where one shows a settlement and another says that the nonce is
//! unused, `Settled` holds only if the other's block is older than the settlement, which explains
//! it. Else they disagree, and the answer is `CannotTell`.

mod abi;
mod answer;
mod endpoint;
mod evaluate;
mod rpc;
mod wire;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use tokio::task::JoinSet;
use url::Url;

pub use answer::{Answer, Endpoint, Head, Proof, ProofKind, Reason, Settlement};
pub use rpc::{EndpointError, RpcError};

use crate::{Network, Timestamp};
use endpoint::{EndpointReport, observe};
use evaluate::evaluate;
use rpc::RpcClient;

/// How long one endpoint may take in all, in time limits of one call.
const CALLS_PER_ENDPOINT: u32 = 6;

/// One authorization, as the books know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "whoever asks fills in every field"
)]
pub struct Question {
    /// The chain.
    pub network: Network,
    /// The token's contract.
    pub token: Address,
    /// Who signed.
    pub payer: Address,
    /// The nonce of all that was signed for the purchase.
    pub nonce: B256,
    /// Who is to be paid.
    pub payee: Address,
    /// The largest value that was signed, in atomic units.
    pub value: U256,
    /// The latest `validBefore` that was signed, in Unix seconds.
    pub valid_before: u64,
    /// The transaction that the seller claims, if any.
    pub claimed: Option<B256>,
    /// When it was signed first; the search for its transaction begins an hour earlier.
    pub signed_at: Timestamp,
}

/// Reads what became of an authorization from JSON-RPC endpoints.
///
/// `Debug` shows schemes and hosts alone: paths and queries of RPC URLs hold API keys.
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

/// What makes an answer good enough.
#[derive(Clone, Copy, Debug)]
struct Rules {
    required_endpoints: usize,
    /// Seconds that a block must be past `validBefore`.
    margin: u64,
    /// Blocks below the latest that count as final on chains without the `finalized` and `safe` tags.
    confirmations: Option<u64>,
}

impl Default for ChainReader {
    fn default() -> Self {
        Self::new()
    }
}

impl ChainReader {
    /// A reader without endpoints, which cannot tell anything yet.
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

    /// Adds an endpoint, over https or http. Two count as two endpoints only if host or port differ.
    ///
    /// # Errors
    /// When it is not an http or https URL. The error does not repeat it.
    pub fn endpoint(mut self, network: Network, url: &str) -> Result<Self, EndpointError> {
        let url = Url::parse(url).map_err(|_| EndpointError::NotHttp)?;
        self.endpoints
            .push((network, Arc::new(RpcClient::new(url)?)));
        Ok(self)
    }

    /// How many different hosts must agree before money is released; two unless set, at least one.
    pub const fn required_endpoints(mut self, count: usize) -> Self {
        self.rules.required_endpoints = if count == 0 { 1 } else { count };
        self
    }

    /// Releases money on the word of one endpoint: for your own node. It can lie you out of a limit.
    pub const fn trust_single_endpoint(self) -> Self {
        self.required_endpoints(1)
    }

    /// Blocks below the latest that count as final where a node knows neither `finalized` nor `safe`.
    /// Without it such a node cannot tell.
    pub const fn confirmations(mut self, blocks: u64) -> Self {
        self.rules.confirmations = Some(blocks);
        self
    }

    /// How long one call may take; 10 seconds unless set. An endpoint has six times as long in all.
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }

    /// Whether any endpoint is configured for the chain.
    #[must_use]
    pub fn reads(&self, network: Network) -> bool {
        self.endpoints.iter().any(|(of, _)| *of == network)
    }

    /// Asks every endpoint of the chain at once. `now` is the caller's clock, which tells a node that
    /// lags from an authorization that has not expired. All that fails is in the answer.
    #[must_use = "the answer is what became of the money"]
    pub async fn ask(&self, question: &Question, now: Timestamp) -> Answer {
        evaluate(question, &self.reports(question).await, self.rules, now)
    }

    async fn reports(&self, question: &Question) -> Vec<EndpointReport> {
        let mut asked = JoinSet::new();
        let endpoints = self
            .endpoints
            .iter()
            .filter(|(network, _)| *network == question.network);
        for (order, (_, endpoint)) in endpoints.enumerate() {
            let (endpoint, question, rules, limit) =
                (Arc::clone(endpoint), *question, self.rules, self.timeout);
            asked.spawn(async move {
                let whole = limit.saturating_mul(CALLS_PER_ENDPOINT);
                let observation =
                    tokio::time::timeout(whole, observe(&endpoint, &question, rules, limit)).await;
                let observation = observation.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout)));
                (
                    order,
                    EndpointReport {
                        host: endpoint.host().to_owned(),
                        observation,
                    },
                )
            });
        }
        // None of them panics, so that joining all loses no contradiction.
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
