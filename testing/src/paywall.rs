//! The paywall that a test starts, and its builder.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use alloy::primitives::{Address, B256, U256, address};
use bursar::clock::{Clock, SystemClock};
use bursar::money::AssetRegistry;
use bursar::signer::SignedCancellation;
use bursar::x402::{PaymentMethod, Version};
use bursar::{Asset, Network};
use tokio::task::JoinSet;
use url::Url;

use crate::chain::{Approval, CancelError, Cancellation, Chain, Settlement};
use crate::fault::Faults;
use crate::node::Node;
use crate::payment::ReceivedRequest;
use crate::permit::FACILITATOR;
use crate::route::Route;
use crate::seller::{self, Seller, State};
use crate::server::Listener;
use crate::sign_in::SignIn;
use crate::terms::{Charge, Conditions, Price};
use crate::tools::{Dialect, ToolServer};
use crate::typed_data::Domain;

/// The payee of a paywall that sets none.
const PAYEE: Address = address!("209693Bc6afc0C5328bA36FaF03C514EF312287C");
const BASE_SEPOLIA: Network = Network::from_chain_id(84_532);

/// An x402 seller on `127.0.0.1`, on a port that the operating system chooses unless you set one.
///
/// The seller stops when the paywall is dropped.
///
/// ```
/// use bursar::usd;
/// use bursar_testing::{Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let seller = Paywall::builder()
///     .route(Route::get("/weather").price(usd!("0.01")).body("sunny"))
///     .route(Route::get("/about").body("We sell forecasts."))
///     .start()
///     .await?;
///
/// let url = seller.url("/weather?day=1");
/// assert_eq!(url.host_str(), Some("127.0.0.1"));
/// assert!(seller.requests().is_empty());
/// # Ok(())
/// # }
/// ```
///
/// The [crate documentation](crate) shows a purchase.
#[derive(Debug)]
pub struct Paywall {
    seller: Arc<Seller>,
    base: Url,
    /// Aborts the server and its connections when dropped.
    _server: JoinSet<()>,
}

impl Paywall {
    /// Returns a builder without routes.
    pub fn builder() -> PaywallBuilder {
        PaywallBuilder::default()
    }

    /// Returns the URL of a path. The path may have a query: `/report?day=1`.
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

    /// Returns every request that reached the paywall, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<ReceivedRequest> {
        self.seller.state().received.clone()
    }

    /// Returns the transfers that the simulated chain has made, oldest first.
    ///
    /// This list is the truth about the money. A receipt can differ from it.
    #[must_use]
    pub fn settlements(&self) -> Vec<Settlement> {
        self.seller.state().chain.settlements.clone()
    }

    /// Returns every sign-in that reached the paywall, oldest first. Routes that offer none do not look for one.
    #[must_use]
    pub fn sign_ins(&self) -> Vec<SignIn> {
        self.seller.state().sign_ins.received.clone()
    }

    /// Returns the sum of an account's settled payments, in atomic units. Different tokens are added together.
    #[must_use]
    pub fn paid_by(&self, payer: Address) -> U256 {
        let settlements = self.settlements();
        let paid = settlements
            .iter()
            .filter(|settlement| settlement.authorization.from == payer);
        paid.map(|settlement| settlement.authorization.value)
            .fold(U256::ZERO, U256::saturating_add)
    }

    /// Returns the balance of an account in atomic units, or `None` for an account with unlimited funds.
    ///
    /// Set a balance with [`PaywallBuilder::balance`].
    #[must_use]
    pub fn balance_of(&self, account: Address) -> Option<U256> {
        self.seller.state().chain.balances.get(&account).copied()
    }

    /// Sets the balance of an account in atomic units, from now on: a wallet that is topped up, or emptied by another
    /// program.
    pub fn set_balance(&self, account: Address, units: u64) {
        let mut state = self.seller.state();
        state.chain.balances.insert(account, U256::from(units));
    }

    /// Returns whether the token has accepted this nonce of the payer. EIP-3009 calls this `authorizationState`.
    #[must_use]
    pub fn is_nonce_used(&self, asset: &Asset, payer: Address, nonce: B256) -> bool {
        let state = self.seller.state();
        state.chain.is_used(asset.into(), payer, nonce)
    }

    /// Returns the allowance of Permit2 over a token of an account, in atomic units.
    ///
    /// An account that has approved Permit2 without limit has [`U256::MAX`](bursar::primitives::U256::MAX).
    #[must_use]
    pub fn allowance_of(&self, asset: &Asset, account: Address) -> U256 {
        self.seller.state().chain.allowance(asset.into(), account)
    }

    /// Sets the allowance of Permit2 over a token of an account, in atomic units, from now on: an approval on the chain.
    pub fn set_allowance(&self, asset: &Asset, account: Address, units: U256) {
        let mut state = self.seller.state();
        let allowances = &mut state.chain.token_allowances;
        allowances.insert((asset.into(), account), units);
    }

    /// Returns whether Permit2 has accepted this nonce of the payer. All tokens, and `exact` and `upto`, share its nonces.
    #[must_use]
    pub fn is_permit_used(&self, network: Network, payer: Address, nonce: U256) -> bool {
        let state = self.seller.state();
        state.chain.is_permit_used(network, payer, nonce)
    }

    /// Returns the approvals of Permit2 that came with payments or through a node, oldest first.
    #[must_use]
    pub fn approvals(&self) -> Vec<Approval> {
        self.seller.state().chain.approvals.clone()
    }

    /// Invalidates a nonce of Permit2, as its owner does with a transaction.
    pub fn invalidate_permit(&self, network: Network, owner: Address, nonce: U256) {
        let now = self.seller.now();
        let mut state = self.seller.state();
        state.chain.invalidate(network, owner, nonce, now);
    }

    /// Settles every payment that was presented and was valid when it came, if the chain still accepts it. It settles the
    /// ceiling of an `upto` payment.
    ///
    /// Returns the number of transfers that this made. Call it at the end of a test to learn how much a seller that
    /// kept all payments could still take.
    ///
    /// ```
    /// use bursar::{Client, LocalSigner, Ledger, Policy, usd};
    /// use bursar_testing::{Fault, Paywall, Route};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let route = Route::get("/report").price(usd!("0.01")).fault(Fault::StatusBeforeSettle(500));
    /// let seller = Paywall::builder().route(route).start().await?;
    /// let client = Client::builder()
    ///     .signer(LocalSigner::random()?)
    ///     .policy(Policy::new().allow_network("base-sepolia"))
    ///     .ledger(Ledger::memory())
    ///     .allow_http_loopback(true)
    ///     .build()?;
    /// client.get(seller.url("/report")).send().await?;
    ///
    /// assert_eq!(seller.settlements().len(), 0);
    /// assert_eq!(seller.settle_presented(), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn settle_presented(&self) -> usize {
        self.seller.settle_presented()
    }

    /// Returns the number of bytes that the paywall has sent on all connections.
    ///
    /// The buyer may not have read all of them: some can wait in buffers of the operating system.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.seller.sent.load(Ordering::Relaxed)
    }

    /// Opens a JSON-RPC node of the simulated chain, on a port of its own.
    ///
    /// Open several nodes to test endpoints that disagree.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no port.
    pub async fn node(&self, network: Network) -> io::Result<Node> {
        Node::start(Arc::clone(&self.seller), network).await
    }

    /// Opens an MCP server over streamable HTTP that sells the routes as tools: the route `/square` is the tool `square`.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no port.
    pub async fn tools(&self, dialect: Dialect) -> io::Result<ToolServer> {
        ToolServer::start(Arc::clone(&self.seller), dialect).await
    }

    /// Sends a cancellation to the simulated chain, which checks its signature.
    ///
    /// # Errors
    /// Returns an error if the payer did not sign the cancellation with a signature of 65 bytes, or if the nonce is
    /// already used or canceled.
    pub fn cancel(
        &self,
        asset: &Asset,
        cancellation: &SignedCancellation,
    ) -> Result<Cancellation, CancelError> {
        let domain = Domain {
            name: asset.eip712_name(),
            version: asset.eip712_version(),
            chain_id: cancellation.network().chain_id(),
            contract: cancellation.contract(),
        };
        let signature = cancellation.signature().as_bytes();
        let signature = signature
            .try_into()
            .map_err(|_| CancelError::InvalidSignature)?;
        let authorization = (cancellation.authorizer(), cancellation.nonce());
        let now = self.seller.now();
        let mut state = self.seller.state();
        state.chain.cancel(&domain, authorization, signature, now)
    }

    /// Returns the cancellations that the simulated chain has accepted, oldest first.
    #[must_use]
    pub fn cancellations(&self) -> Vec<Cancellation> {
        self.seller.state().chain.cancellations.clone()
    }

    /// Removes every fault of every route. The seller is honest from now on.
    ///
    /// A price that [`Fault::DoublePrice`](crate::Fault::DoublePrice) has raised stays raised.
    pub fn clear_faults(&self) {
        let mut state = self.seller.state();
        state
            .faults
            .iter_mut()
            .for_each(|faults| *faults = Faults::default());
    }

    /// Removes the first route that matches the path. The next route that matches it answers from now on.
    ///
    /// Use it to change a price: add two routes with the same path, and remove the first during the test.
    pub fn remove_route(&self, path: &str) {
        self.seller.remove_route(path);
    }

    /// Returns a listing of a route for a [`Bazaar`](crate::Bazaar), with the offers of an honest seller.
    ///
    /// Returns `null` if no route matches the path.
    #[must_use]
    pub fn advertisement(&self, path: &str, description: &str) -> serde_json::Value {
        let mut routes = self.seller.routes.iter();
        let found = routes.find(|(route, _)| route.matches(path));
        found
            .map(|(route, conditions)| {
                route.advertisement(conditions, &self.url(path), description)
            })
            .unwrap_or_default()
    }

    /// Waits until the paywall has answered this many requests.
    pub async fn wait_for_requests(&self, count: usize) {
        self.wait_until(|state| state.received.len() >= count).await;
    }

    /// Waits until this many payments are settled.
    pub async fn wait_for_settlements(&self, count: usize) {
        self.wait_until(|state| state.chain.settlements.len() >= count)
            .await;
    }

    async fn wait_until(&self, done: impl Fn(&State) -> bool) {
        let mut changed = self.seller.changed.subscribe();
        while !done(&self.seller.state()) {
            // The paywall owns the seller, and the seller owns the sender, so this does not fail.
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Builds a [`Paywall`].
///
/// ```
/// use bursar::{LocalSigner, Timestamp, usd};
/// use bursar_testing::{Paywall, Route};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let buyer = LocalSigner::random()?.address();
/// let seller = Paywall::builder()
///     .route(Route::get("/report").price(usd!("0.01")))
///     .balance(buyer, 15_000)
///     .clock(|| Timestamp::from_secs(1_800_000_000))
///     .start()
///     .await?;
/// assert_eq!(seller.balance_of(buyer).unwrap().to_string(), "15000");
/// # Ok(())
/// # }
/// ```
#[must_use = "a paywall sells nothing until you start it"]
pub struct PaywallBuilder {
    routes: Vec<Route>,
    asset: Option<Asset>,
    pay_to: Address,
    facilitator: Address,
    clock: Arc<dyn Clock>,
    chain: Chain,
    port: u16,
    status_page: Option<String>,
}

impl Default for PaywallBuilder {
    fn default() -> Self {
        Self {
            routes: Vec::new(),
            asset: None,
            pay_to: PAYEE,
            facilitator: FACILITATOR,
            clock: Arc::new(SystemClock),
            chain: Chain::default(),
            port: 0,
            status_page: None,
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
    /// Adds a route. The first route that matches a request answers it.
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Adds several routes, such as those of an [`OpenAi`](crate::OpenAi) seller.
    pub fn routes(mut self, routes: impl IntoIterator<Item = Route>) -> Self {
        self.routes.extend(routes);
        self
    }

    /// Sets the port. With 0, the default, the operating system chooses a free one.
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Shows the requests and the settlements as JSON at this path, for tests in other languages.
    ///
    /// The page is free, and asking for it is not one of the [requests](Paywall::requests).
    ///
    /// ```
    /// use bursar_testing::Paywall;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let seller = Paywall::builder().status_page("/_seller").start().await?;
    /// let http = bursar::Client::builder().allow_http_loopback(true).build()?;
    /// let page = http.get(seller.url("/_seller")).send().await?.text().await?;
    /// assert_eq!(page, r#"{"requests":[],"settlements":[]}"#);
    /// # Ok(())
    /// # }
    /// ```
    pub fn status_page(mut self, path: impl Into<String>) -> Self {
        self.status_page = Some(path.into());
        self
    }

    /// Sets the token that routes are paid in. The default is USDC on Base Sepolia.
    pub fn asset(mut self, asset: Asset) -> Self {
        self.asset = Some(asset);
        self
    }

    /// Sets the address that is paid.
    pub fn pay_to(mut self, payee: Address) -> Self {
        self.pay_to = payee;
        self
    }

    /// Sets the balance of an account, in atomic units. An account without a balance has unlimited funds.
    pub fn balance(mut self, account: Address, units: u64) -> Self {
        self.chain.balances.insert(account, U256::from(units));
        self
    }

    /// Sets the facilitator that settles `upto` payments. The default is Anvil's account 1.
    pub fn facilitator(mut self, facilitator: Address) -> Self {
        self.facilitator = facilitator;
        self
    }

    /// Sets the allowance of Permit2 over each token of an account, in atomic units. An account without an allowance has
    /// approved Permit2 without limit.
    ///
    /// Payments through Permit2 use it up. Change it with [`Paywall::set_allowance`].
    pub fn allowance(mut self, account: Address, units: u64) -> Self {
        self.chain.allowances.insert(account, U256::from(units));
        self
    }

    /// Sets the clock of the seller and of the simulated chain. The default is the system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Starts the paywall.
    ///
    /// # Errors
    /// Returns an error if the operating system does not provide the port. Returns
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if a route has a mistake, such as an invalid header.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with I/O.
    pub async fn start(self) -> io::Result<Paywall> {
        let routes = self.complete_routes()?;
        let listener = Listener::bind_port(self.port).await?;
        let base = listener.url().clone();
        let seller = Seller::new(routes, self.clock, self.chain, self.status_page);
        let seller = Arc::new(seller);
        let shared = Arc::clone(&seller);
        let server = listener.serve(move |stream| seller::serve(stream, Arc::clone(&shared)));
        Ok(Paywall {
            seller,
            base,
            _server: server,
        })
    }

    /// Returns the routes, with the defaults of the paywall where a route sets nothing.
    fn complete_routes(&self) -> io::Result<Vec<(Route, Conditions)>> {
        let usdc = AssetRegistry::stablecoins().find_symbol(BASE_SEPOLIA, "USDC");
        let default = self.asset.as_ref().or(usdc);
        let complete = |route: &Route| {
            self.conditions(route, default)
                .map(|conditions| (route.clone(), conditions))
                .map_err(|mistake| {
                    let message = format!("route {}: {mistake}", route.path);
                    io::Error::new(io::ErrorKind::InvalidInput, message)
                })
        };
        self.routes.iter().map(complete).collect()
    }

    fn conditions(&self, route: &Route, default: Option<&Asset>) -> Result<Conditions, String> {
        if let Some(mistake) = &route.mistake {
            return Err(mistake.clone());
        }
        let asset = route.asset.as_ref().or(default);
        let asset = asset.ok_or("no token is set")?.clone();
        if let Price::Dollars(price) = route.price
            && asset.parse_units(&price.to_string()).is_none()
        {
            return Err("the price has more decimals than the token".to_owned());
        }
        if let Some(Charge::Fixed(charge)) = route.charge
            && asset.parse_units(&charge.to_string()).is_none()
        {
            return Err("the charge has more decimals than the token".to_owned());
        }
        if !route.supports(Version::V2) && !route.payment_methods.contains(&PaymentMethod::Eip3009)
        {
            return Err("version 1 has no payments through Permit2".to_owned());
        }
        Ok(Conditions {
            methods: route.payment_methods.clone(),
            facilitator: self.facilitator,
            asset,
            pay_to: route.pay_to.unwrap_or(self.pay_to),
            max_timeout_seconds: route.max_timeout_seconds,
            flow: route.flow,
        })
    }
}
