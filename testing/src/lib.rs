//! A paywall on loopback to run agents against.
//!
//! [`Paywall`] sells over x402, versions 1 and 2, verifies payments as the official facilitator
//! does, and settles them on a chain of make-believe: no network, no money. It hashes and checks
//! signatures with code of its own, so that it does not share the client's mistakes. A [`Route`]
//! can be told to misbehave in the ways of a [`Fault`].
//!
//! ```
//! use bursar_testing::{Paywall, Route};
//! use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let paywall = Paywall::builder()
//!     .route(Route::get("/report").price(usd!("0.01")).body("the report"))
//!     .start()
//!     .await?;
//!
//! let client = Client::builder()
//!     .signer(LocalSigner::random()?)
//!     .policy(Policy::new().allow_network("base-sepolia").per_payment(usd!("0.05")))
//!     .ledger(Ledger::memory())
//!     .allow_http_loopback(true)
//!     .build()?;
//! let response = client.get(paywall.url("/report")).send().await?;
//!
//! let settled = paywall.settlements();
//! assert_eq!(response.receipt().unwrap().transaction(), settled[0].transaction);
//! assert_eq!(response.text().await?, "the report");
//! # Ok(())
//! # }
//! ```
//!
//! # LimitStatus sellers
//!
//! A [`Bazaar`] lists what a paywall [advertises](Paywall::advertisement), and misbehaves in the ways of a
//! [`BazaarFault`].
//!
//! # Hostile sellers
//!
//! Point your own agent at the sellers that you fear: put a [`Fault`] on a route, let the agent buy,
//! and ask the paywall what it cost.
//!
//! | to see what happens when the seller | use |
//! |---|---|
//! | gouges, swaps the payee, fakes a token, asks for years of validity | [`Fault::Terms`] with a [`Lie`] |
//! | sends terms that are huge, slow, cut or never end | [`Fault::BreakTerms`] with a [`Breakage`] |
//! | redirects before or after the payment | [`Fault::RedirectBeforeTerms`], [`Fault::RedirectAfterSettle`] |
//! | takes the money and answers with an error | [`Fault::StatusAfterSettle`] |
//! | takes the money, and the answer is lost | [`Fault::BreakAfterSettle`], [`Fault::SettleWhenGone`] |
//! | lies about what it took | [`Fault::ForgedReceipt`] with a [`Forgery`] |
//! | asks again, at another price or for another payee | [`Fault::Requote`], [`Fault::RequoteAfterSettle`] |
//! | keeps the payment and cashes it later | any of these, then [`Paywall::cash_in`] |
//!
//! ```
//! use bursar_testing::{Fault, Lie, Paywall, Route};
//! use bursar::usd;
//! # async fn my_agent_buys(url: bursar::Url) {
//! #     let signer = bursar::LocalSigner::random().unwrap();
//! #     let policy = bursar::Policy::new().allow_network("base-sepolia");
//! #     let agent = bursar::Client::builder().signer(signer).policy(policy).ledger(bursar::Ledger::memory());
//! #     drop(agent.allow_http_loopback(true).build().unwrap().get(url).send().await);
//! # }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let faults = [
//!     Fault::Terms(Lie::DearFirst(1_000)),
//!     Fault::DropAfterSettle,
//!     Fault::RequoteAfterSettle(Lie::Price(2)),
//! ];
//! for fault in faults {
//!     let route = Route::get("/report").price(usd!("0.01")).fault(fault.clone());
//!     let seller = Paywall::builder().route(route).start().await?;
//!     my_agent_buys(seller.url("/report")).await;
//!     // The worst: it kept every payment, and cashes what it can.
//!     let transfers = seller.settlements().len() + seller.cash_in();
//!     assert!(transfers <= 1, "{fault:?} cost {transfers} payments");
//! }
//! # Ok(())
//! # }
//! ```

mod answer;
mod bazaar;
mod body;
mod breakage;
mod chain;
mod false_terms;
mod fault;
mod faulty_stream;
mod headers;
mod node;
mod payment;
mod route;
mod seller;
mod serve;
mod terms;
mod typed_data;
mod verify;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alloy::primitives::{Address, B256, U256, address};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use url::Url;

pub use bazaar::{Bazaar, BazaarBuilder, BazaarFault};
pub use breakage::Breakage;
pub use chain::{CancelError, Cancellation, Settlement};
pub use false_terms::Lie;
pub use fault::{Fault, Forgery};
pub use node::{Node, NodeFault};
pub use payment::{Authorization, Presented, Received};
pub use route::Route;

use bursar::clock::{Clock, SystemClock};
use bursar::money::AssetRegistry;
use bursar::signer::SignedCancellation;
use bursar::{Asset, Network};
use chain::Chain;
use seller::Seller;
use terms::{Conditions, Price};

/// Who is paid unless a route or the paywall says otherwise.
const PAYEE: Address = address!("209693Bc6afc0C5328bA36FaF03C514EF312287C");
const BASE_SEPOLIA: Network = Network::from_chain_id(84_532);

/// An x402 seller on `127.0.0.1`, on a port that the system chose. It stops when dropped.
///
/// See the [crate](self) for an example.
#[derive(Debug)]
pub struct Paywall {
    seller: Arc<Seller>,
    base: Url,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

impl Paywall {
    /// Builds a paywall.
    pub fn builder() -> PaywallBuilder {
        PaywallBuilder::default()
    }

    /// The URL of a path, which may have a query: `/report?day=1`.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        match path.split_once('?') {
            Some((path, query)) => {
                url.set_path(path);
                url.set_query(Some(query));
            }
            None => url.set_path(path),
        }
        url
    }

    /// Transfers that the chain has made, oldest first: whatever a receipt says, this is what was
    /// paid.
    #[must_use]
    pub fn settlements(&self) -> Vec<Settlement> {
        self.seller.state().chain.settlements.clone()
    }

    /// Every request that came, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<Received> {
        self.seller.state().received.clone()
    }

    /// What an account has, in atomic units of whatever token; `None` for one that was given no
    /// balance, and has as much as it likes.
    #[must_use]
    pub fn balance_of(&self, account: Address) -> Option<U256> {
        self.seller.state().chain.balances.get(&account).copied()
    }

    /// What an account has paid, in atomic units of whatever token.
    #[must_use]
    pub fn spent_by(&self, payer: Address) -> U256 {
        let settlements = self.settlements();
        let paid = settlements
            .iter()
            .filter(|settlement| settlement.authorization.from == payer);
        paid.map(|settlement| settlement.authorization.value)
            .fold(U256::ZERO, U256::saturating_add)
    }

    /// Whether the token has accepted a nonce of this payer: `authorizationState` of EIP-3009.
    #[must_use]
    pub fn is_used(&self, asset: &Asset, payer: Address, nonce: B256) -> bool {
        self.seller
            .state()
            .chain
            .is_used(asset.into(), payer, nonce)
    }

    /// Has the seller cash every payment that was ever presented and valid, as far as the chain
    /// accepts it by now: what a seller can do that kept them. Tells how many transfers that made.
    #[must_use]
    pub fn cash_in(&self) -> usize {
        self.seller.cash_in()
    }

    /// Bytes that were sent to buyers, on all connections: some may wait in the system's buffers.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.seller.sent.load(Ordering::Relaxed)
    }

    /// Opens a JSON-RPC node of a chain that the paywall settles on, on a port of its own. Open several
    /// for endpoints that differ. It stops when dropped.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn node(&self, network: Network) -> io::Result<Node> {
        Node::start(Arc::clone(&self.seller), network).await
    }

    /// Sends a cancellation to the chain, which checks its signature.
    ///
    /// # Errors
    /// When it is not signed by its authorizer with 65 bytes, or the nonce is used already.
    pub fn cancel(
        &self,
        asset: &Asset,
        cancellation: &SignedCancellation,
    ) -> Result<Cancellation, CancelError> {
        let (name, version) = (asset.eip712_name(), asset.eip712_version());
        let (chain_id, contract) = (cancellation.network().chain_id(), cancellation.contract());
        let domain = typed_data::Domain {
            name,
            version,
            chain_id,
            contract,
        };
        let signature = cancellation
            .signature()
            .as_bytes()
            .try_into()
            .map_err(|_| CancelError::InvalidSignature)?;
        let about = (cancellation.authorizer(), cancellation.nonce());
        let now = self.seller.now();
        self.seller
            .state()
            .chain
            .cancel(&domain, about, signature, now)
    }

    /// Cancellations that the chain has accepted, oldest first.
    #[must_use]
    pub fn cancellations(&self) -> Vec<Cancellation> {
        self.seller.state().chain.cancellations.clone()
    }

    /// Ends every fault: from here on the seller is honest. Prices that were raised stay.
    pub fn reform(&self) {
        let mut state = self.seller.state();
        state
            .faults
            .iter_mut()
            .for_each(|faults| *faults = fault::Faults::default());
    }

    /// Ends the first route that covers the path, as a shop does that changes what it asks: the next route for
    /// it answers from here on.
    pub fn close(&self, path: &str) {
        self.seller.close(path);
    }

    /// How a facilitator's bazaar lists a route: an item for [`Bazaar`], with the offers that an honest seller
    /// makes. `null` for a path that no route covers.
    #[must_use]
    pub fn advertisement(&self, path: &str, description: &str) -> serde_json::Value {
        let mut shelves = self.seller.shelves.iter();
        let shelf = shelves.find(|(route, _)| route.covers(path));
        shelf
            .map(|(route, conditions)| route.advertised(conditions, &self.url(path), description))
            .unwrap_or_default()
    }

    /// Waits until so many requests have been dealt with.
    pub async fn wait_for_requests(&self, count: usize) {
        self.wait_until(|state| state.received.len() >= count).await;
    }

    /// Waits until so many payments are settled.
    pub async fn wait_for_settlements(&self, count: usize) {
        self.wait_until(|state| state.chain.settlements.len() >= count)
            .await;
    }

    async fn wait_until(&self, done: impl Fn(&seller::State) -> bool) {
        let mut changed = self.seller.changed.subscribe();
        while !done(&self.seller.state()) {
            // The sender is the seller's, which this paywall keeps.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Builds a [`Paywall`].
#[must_use = "a paywall sells nothing until it is started"]
pub struct PaywallBuilder {
    routes: Vec<Route>,
    asset: Option<Asset>,
    pay_to: Address,
    clock: Arc<dyn Clock>,
    chain: Chain,
}

impl Default for PaywallBuilder {
    fn default() -> Self {
        let (clock, chain) = (Arc::new(SystemClock), Chain::default());
        Self {
            routes: Vec::new(),
            asset: None,
            pay_to: PAYEE,
            clock,
            chain,
        }
    }
}

impl fmt::Debug for PaywallBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PaywallBuilder")
            .field("routes", &self.routes)
            .finish_non_exhaustive()
    }
}

impl PaywallBuilder {
    /// Adds something to sell. The first route that fits a request answers it.
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// The token that routes are paid in; USDC on Base Sepolia unless set.
    pub fn asset(mut self, asset: Asset) -> Self {
        self.asset = Some(asset);
        self
    }

    /// Who is paid.
    pub fn pay_to(mut self, payee: Address) -> Self {
        self.pay_to = payee;
        self
    }

    /// Gives an account a balance, in atomic units. Accounts without one have as much as they like.
    pub fn balance(mut self, account: Address, units: u64) -> Self {
        self.chain.balances.insert(account, U256::from(units));
        self
    }

    /// Where the seller takes the time from; the machine's clock unless set.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the paywall.
    ///
    /// # Errors
    /// When no port can be had, or a route was built wrongly
    /// ([`InvalidInput`](io::ErrorKind::InvalidInput)).
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub async fn start(self) -> io::Result<Paywall> {
        let shelves = self.shelves()?;
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let base = format!("http://{}", listener.local_addr()?);
        let base = Url::parse(&base).map_err(io::Error::other)?;
        let seller = Arc::new(Seller::new(shelves, self.clock, self.chain));
        let mut server = JoinSet::new();
        drop(server.spawn(serve::serve(listener, Arc::clone(&seller))));
        Ok(Paywall {
            seller,
            base,
            _server: server,
        })
    }

    /// The routes with everything they left open filled in.
    fn shelves(&self) -> io::Result<Vec<(Route, Conditions)>> {
        let wrong = |route: &Route, mistake: &str| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("route {}: {mistake}", route.path),
            )
        };
        let usdc = AssetRegistry::stablecoins().find_symbol(BASE_SEPOLIA, "USDC");
        let default = self.asset.as_ref().or(usdc);
        let fill = |route: &Route| {
            if let Some(mistake) = &route.mistake {
                return Err(wrong(route, mistake));
            }
            let asset = route
                .asset
                .as_ref()
                .or(default)
                .ok_or_else(|| wrong(route, "there is no token to pay in"))?;
            let conditions = Conditions {
                asset: asset.clone(),
                pay_to: route.pay_to.unwrap_or(self.pay_to),
                max_timeout_seconds: route.max_timeout_seconds,
                flow: route.flow,
            };
            match route.price {
                Price::Dollars(price)
                    if conditions.asset.parse_units(&price.to_string()).is_none() =>
                {
                    Err(wrong(route, "the price is finer than the token"))
                }
                _ => Ok((route.clone(), conditions)),
            }
        };
        self.routes.iter().map(fill).collect()
    }
}
