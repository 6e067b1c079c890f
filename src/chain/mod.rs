//! Reading the chain: was this nonce used, and what did the transaction move.
//!
//! Three answers, never two: settled, not settled, cannot tell. Only proof releases money, and one
//! endpoint is never proof: it may be behind, broken or lying.

mod abi;
mod rpc;
mod verdict;
mod witness;

use std::fmt;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use tokio::task::JoinSet;
use url::Url;

use crate::{Error, Network, Timestamp};
use rpc::Endpoint;
pub use verdict::{Payment as ChainPayment, Reading, Witness};
use witness::Post;

/// How many endpoints must agree that an authorization is dead, unless the reader says otherwise.
const WITNESSES: usize = 2;
/// How long one answer of an endpoint may take, unless the reader says otherwise.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// How many purchases are asked about at once.
const AT_ONCE: usize = 8;

/// JSON-RPC endpoints that the books are compared with: your own nodes or any providers.
///
/// It reads `authorizationState`, transaction receipts and logs, at blocks that the chain holds
/// `finalized`, or `safe` where it knows no other. To release money two endpoints with different
/// hosts must agree; with one, purchases can be confirmed and not released.
///
/// ```
/// use bursar::ChainReader;
///
/// let chain = ChainReader::new()
///     .endpoint("base".parse()?, "https://mainnet.base.org")?
///     .endpoint("base".parse()?, "https://base-rpc.publicnode.com")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ChainReader {
    endpoints: Vec<(Network, Endpoint)>,
    witnesses: usize,
    confirmations: Option<u64>,
    answer_time: Duration,
}

impl Default for ChainReader {
    fn default() -> Self {
        Self::new()
    }
}

/// Without the URLs, which hold the keys of providers.
impl fmt::Debug for ChainReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let endpoints = self.endpoints.iter().map(|(network, endpoint)| (network, endpoint.name()));
        f.debug_map().entries(endpoints).finish()
    }
}

impl ChainReader {
    /// A reader without endpoints, which can tell nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { endpoints: Vec::new(), witnesses: WITNESSES, confirmations: None, answer_time: ANSWER_TIME }
    }

    /// Adds a JSON-RPC endpoint, http or https. Path and query, which may hold a provider's key,
    /// appear in no error and no proof.
    ///
    /// # Errors
    /// When the URL is not http or https with a host, or reqwest cannot start.
    pub fn endpoint(mut self, network: Network, url: &str) -> Result<Self, Error> {
        let url: Url = url.parse().map_err(|_| Error::builder("the URL of a chain endpoint is not a URL"))?;
        self.endpoints.push((network, Endpoint::new(url)?));
        Ok(self)
    }

    /// Takes one endpoint's word for a proof: for your own node. A provider that is behind or
    /// dishonest could then release money that is spent.
    #[must_use]
    pub const fn trust_single_endpoint(mut self) -> Self {
        self.witnesses = 1;
        self
    }

    /// Takes a block for final that has so many after it, for chains that do not say which are.
    #[must_use]
    pub const fn confirmations(mut self, blocks: u64) -> Self {
        self.confirmations = Some(blocks);
        self
    }

    /// How long one answer may take; 10 seconds unless set.
    #[must_use]
    pub const fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_time = limit;
        self
    }

    /// What became of each of the authorizations, in their order.
    pub(crate) async fn read_all(&self, questions: Vec<Question>) -> Vec<Reading> {
        let mut networks: Vec<Network> = questions.iter().map(|question| question.network).collect();
        networks.sort_unstable();
        networks.dedup();
        let mut posts = Vec::new();
        for network in networks {
            for (_, endpoint) in self.endpoints.iter().filter(|(on, _)| *on == network) {
                let post = Post::open(endpoint.clone(), network, self.confirmations, self.answer_time).await;
                posts.push((network, post));
            }
        }
        let mut readings: Vec<(usize, Reading)> = Vec::with_capacity(questions.len());
        let mut asked = JoinSet::new();
        for (number, question) in questions.into_iter().enumerate() {
            if asked.len() >= AT_ONCE {
                readings.extend(asked.join_next().await.and_then(Result::ok));
            }
            let posts: Vec<Post> =
                posts.iter().filter(|(on, _)| *on == question.network).map(|(_, post)| post.clone()).collect();
            let witnesses = self.witnesses;
            asked.spawn(async move {
                let mut words = Vec::with_capacity(posts.len());
                for post in &posts {
                    words.push(post.word(&question).await);
                }
                (number, verdict::reach(&words, witnesses))
            });
        }
        while let Some(reading) = asked.join_next().await {
            readings.extend(reading.ok());
        }
        readings.sort_by_key(|(number, _)| *number);
        readings.into_iter().map(|(_, reading)| reading).collect()
    }
}

/// One authorization that the chain is asked about.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) network: Network,
    pub(crate) asset: Address,
    pub(crate) payer: Address,
    pub(crate) payee: Address,
    pub(crate) nonce: B256,
    /// The largest that was signed, in atomic units.
    pub(crate) value: U256,
    /// The latest `validBefore` that was signed, in Unix seconds.
    pub(crate) valid_before: u64,
    /// The transaction that the seller claims.
    pub(crate) claimed: Option<B256>,
    /// Nothing was signed before.
    pub(crate) since: Timestamp,
}
