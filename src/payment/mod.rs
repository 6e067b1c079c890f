//! Payments: a signer, a policy and a ledger, and the loop that presents a signed payment over any transport.

mod allowance;
mod api_call;
mod authorize;
mod balance;
mod builder;
mod cancel;
mod contract_check;
mod deadline;
mod drop_guard;
mod freeze_switch;
mod kept_terms;
mod one_step;
mod other_calls;
// The file is named after the type that it holds.
#[expect(clippy::module_inception, reason = "the file holds the type Payment")]
mod payment;
mod present;
mod refusals;
mod reply;
mod resume;
mod retry;
mod sign_in;
mod signing;
mod sponsor;
mod terms_cache;
mod transport;
mod upkeep;
mod waiting;
mod warning;

use std::fmt;
use std::sync::Arc;

use alloy::primitives::Address;

pub use crate::permit2::MissingAllowance;
pub use builder::PayerBuilder;
pub(crate) use deadline::Deadline;
pub use freeze_switch::FreezeSwitch;
pub use payment::{Outcome, Payment};
pub(crate) use present::{PaidCall, SignedTerms, present, same_request};
pub(crate) use reply::ReplyHead;
#[cfg(feature = "mcp")]
pub(crate) use reply::retry_after;
pub use retry::RetryPolicy;
pub(crate) use sign_in::Entry;
pub(crate) use transport::{AfterSigning, PaymentRecord, Reply, ReplyBody, Transport};

use refusals::Refusals;
use terms_cache::TermsCache;
use upkeep::ChainWatch;

use crate::clock::Timestamp;
use crate::credential::{Credential, Credentials, Preference};
use crate::error::{Error, ErrorKind};
use crate::ledger::{Ledger, LedgerError};
use crate::limit::LimitStatus;
use crate::money::{Asset, AssetRegistry, TokenAmount};
use crate::origin::Origin;
use crate::policy::{
    AnyApprover, AskingPrice, Denial, Explanation, Facts, Policy, PriceCheck, PricedOffer, Rule,
};
use crate::request::PurchaseRequest;
use crate::signer::{AnySigner, Signer};
use crate::telemetry::{AnyObserver, Event, EventKind};
use crate::x402::PaymentRequired;
use crate::x402::Quote;

/// A signer that pays under a policy and records every payment in a ledger.
///
/// A [`Client`](crate::Client) has one for HTTP. Use a payer directly when terms arrive in another way. Clones are cheap
/// and share everything.
///
/// ```
/// # use bursar::{Error, Ledger, LocalSigner, Payer, Policy, PurchaseRequest};
/// # use bursar::x402::PaymentRequired;
/// # async fn example(terms: &[u8]) -> Result<(), Error> {
/// let payer = Payer::builder()
///     .signer(LocalSigner::random()?)
///     .policy(Policy::new().allow_network("base-sepolia"))
///     .ledger(Ledger::memory())
///     .build()?;
/// let required = PaymentRequired::from_json(terms)?;
/// let request = PurchaseRequest::new("POST", "https://tools.example/call", b"the body")?;
/// let payment = payer.authorize(&required, &request).await?;
/// // Send payment.json() or payment.header() to the seller, and then record the outcome:
/// payment.lost("the connection was reset").await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Payer {
    inner: Arc<Inner>,
    /// The API keys of the clients that use this payer. Some of them say that their host is never paid.
    keys: Arc<[Credentials]>,
}

#[derive(Clone)]
struct Inner {
    /// `None` for a payer that only answers questions.
    signer: Option<AnySigner>,
    /// The address of a payer without a signer.
    address: Address,
    policy: Policy,
    assets: AssetRegistry,
    ledger: Ledger,
    approver: Option<AnyApprover>,
    agent: Option<String>,
    switch: FreezeSwitch,
    observer: AnyObserver,
    /// Shared with the payers that this one was made from, under other policies and keys.
    terms: Arc<TermsCache>,
    /// Of this key.
    refusals: Arc<Refusals>,
    /// `None` if no chain reader is set. Shared as `terms` is.
    chain: Option<Arc<ChainWatch>>,
}

impl fmt::Debug for Payer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payer")
            .field("address", &self.address())
            .field("agent", &self.inner.agent)
            .finish_non_exhaustive()
    }
}

impl Payer {
    /// Returns a builder.
    #[must_use]
    pub fn builder() -> PayerBuilder {
        PayerBuilder::default()
    }

    /// Returns the address that pays, or the zero address for a payer that was
    /// [built](PayerBuilder::build_read_only) without a signer.
    #[must_use]
    pub fn address(&self) -> Address {
        let signer = self.inner.signer.as_ref();
        signer.map_or(self.inner.address, AnySigner::address)
    }

    fn signer(&self) -> Result<&AnySigner, Error> {
        self.inner.signer.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::NoWallet,
                "payment is required, and this payer has no signer; it only answers questions",
            )
        })
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// Returns the ledger, to read it, to reconcile it with the chain or to freeze it.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// Returns a payer under another policy. It shares the signer, the ledger and everything else with this payer.
    ///
    /// Calls of the new payer follow the new policy: limits count the purchases that the ledger holds already, remembered
    /// terms must pass the new policy and are no older than it allows, and a payment that was signed earlier is presented
    /// again only if the new policy allows it. Calls of this payer, and those that have begun, follow the old one.
    ///
    /// ```
    /// use bursar::{Ledger, LocalSigner, Payer, Policy, usd};
    ///
    /// let policy = || Policy::new().allow_network("base-sepolia");
    /// let payer = Payer::builder()
    ///     .signer(LocalSigner::random()?)
    ///     .policy(policy())
    ///     .ledger(Ledger::memory())
    ///     .build()?;
    /// let payer = payer.with_policy(policy().per_day(usd!("20")))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// When the policy is not valid.
    pub fn with_policy(&self, policy: Policy) -> Result<Self, Error> {
        policy.check()?;
        let assets = policy.asset_registry();
        let inner = Inner {
            policy,
            assets,
            ..Inner::clone(&self.inner)
        };
        Ok(Self {
            inner: Arc::new(inner),
            keys: Arc::clone(&self.keys),
        })
    }

    /// Returns a payer that signs with another key. It shares the policy, the ledger and everything else with this payer.
    ///
    /// The limits go on, because they belong to the ledger. A payment of the old key that may still settle excludes a payment of
    /// the new key for the same request. A pause after refusals belongs to a key, so a wallet that was empty does not stop
    /// the next one.
    ///
    /// ```
    /// use bursar::{LocalSigner, Payer};
    ///
    /// fn rotate(payer: &mut Payer, key: LocalSigner) {
    ///     *payer = payer.with_signer(key);
    /// }
    /// ```
    #[must_use]
    pub fn with_signer(&self, signer: impl Signer) -> Self {
        let signer = AnySigner::new(signer);
        let address = signer.address();
        let refusals = match address == self.address() {
            true => Arc::clone(&self.inner.refusals),
            false => Arc::default(),
        };
        let inner = Inner {
            signer: Some(signer),
            address,
            refusals,
            ..Inner::clone(&self.inner)
        };
        Self {
            inner: Arc::new(inner),
            keys: Arc::clone(&self.keys),
        }
    }

    /// Returns the agent that buys: that of the request, or that of the payer.
    fn agent_of<'a>(&'a self, request: &'a PurchaseRequest) -> Option<&'a str> {
        request.agent_name().or(self.inner.agent.as_deref())
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.inner.ledger.now()
    }

    /// Returns the same payer, which also pays no host whose API key says [`Preference::NeverPay`].
    pub(crate) fn with_keys(mut self, keys: &Credentials) -> Self {
        if !keys.is_empty() {
            self.keys = self.keys.iter().chain([keys]).cloned().collect();
        }
        self
    }

    /// Returns the name of the API key that says that this origin is never paid. Nothing in a request changes that.
    pub(crate) fn never_pays(&self, origin: &Origin) -> Option<&str> {
        let mut keys = self.keys.iter().filter_map(|keys| keys.find(origin));
        let key = keys.find(|key| key.preference() == Preference::NeverPay);
        key.map(Credential::name)
    }

    fn emit(&self, event: &Event<'_>) {
        self.inner.observer.emit(event);
    }

    /// Returns an event of a request, before there is a purchase.
    fn event<'a>(&'a self, kind: EventKind, request: &'a PurchaseRequest) -> Event<'a> {
        let agent = self.agent_of(request);
        Event::new(kind, request.origin(), (request.tag_name(), agent))
    }

    /// Returns the error, after an event for the denial in it. The ledger counts the denial.
    fn report_denial(&self, request: &PurchaseRequest, error: Error) -> Error {
        if let Some(denial) = error.denial() {
            let kind = EventKind::Denied { rule: denial.rule };
            self.emit(&Event {
                denial: Some(denial),
                ..self.event(kind, request)
            });
            let host = request.origin().host();
            self.inner.ledger.note_denial(denial, host);
        }
        error
    }

    /// Returns the denial of the program's switch or of the policy's file. The ledger checks its own freeze together
    /// with the limits.
    fn frozen_here(&self) -> Option<Denial> {
        let stopped = |message: String| Denial::new(Rule::Frozen, message);
        if let Some(reason) = self.inner.switch.reason() {
            return Some(stopped(format!(
                "payments are frozen by the program: {reason}"
            )));
        }
        let file = self.inner.policy.freeze_switch()?;
        match file.try_exists() {
            Ok(false) => None,
            Ok(true) => Some(stopped(format!(
                "payments are frozen: {} exists",
                file.display()
            ))),
            Err(error) => Some(stopped(format!(
                "{} cannot be looked for: {error}",
                file.display()
            ))),
        }
    }

    /// Returns the denial of any freeze, the ledger's included.
    pub(crate) async fn stopped(&self) -> Result<Option<Denial>, Error> {
        if let Some(denial) = self.frozen_here() {
            return Ok(Some(denial));
        }
        Ok(self
            .inner
            .ledger
            .frozen()
            .await?
            .map(|freeze| freeze.denial()))
    }

    /// Returns the price of the terms, and the answer of each rule. Signs and reserves nothing.
    ///
    /// # Errors
    /// When the ledger cannot be read.
    pub async fn quote(
        &self,
        required: PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<PriceCheck, Error> {
        let priced = Box::pin(self.price(required, request));
        crate::text::guarding(request.url(), priced).await
    }

    async fn price(
        &self,
        required: PaymentRequired,
        request: &PurchaseRequest,
    ) -> Result<PriceCheck, Error> {
        let mut offers = Vec::with_capacity(required.offers().len());
        let path = self.inner.policy.stored_path(request);
        for mut quote in Quote::read_all(&required, &self.inner.assets) {
            let explanation = match &mut quote {
                Ok(quote) => {
                    quote.check_signature(request.url(), self.now());
                    let facts = self.facts(&required, request, quote, &path);
                    Some(self.explain_facts(&facts).await?)
                }
                Err(_) => None,
            };
            offers.push(PricedOffer { quote, explanation });
        }
        Ok(PriceCheck { required, offers })
    }

    /// Reads the amount of a token that the wallet has, now, from the [chain reader](PayerBuilder::chain).
    ///
    /// # Errors
    /// Returns an error of the kind [`Builder`](ErrorKind::Builder) if no chain reader is set, and of the kind
    /// [`Transport`](ErrorKind::Transport) if no endpoint of the network gives a usable answer.
    ///
    /// ```no_run
    /// use bursar::money::AssetRegistry;
    /// use bursar::{Error, Network, Payer};
    ///
    /// # async fn example(payer: &Payer, network: Network) -> Result<(), Error> {
    /// if let Some(usdc) = AssetRegistry::stablecoins().find_symbol(network, "USDC") {
    ///     println!("{} has {}", payer.address(), payer.balance(usdc).await?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn balance(&self, asset: &Asset) -> Result<TokenAmount, Error> {
        let watch = self.inner.chain.as_ref().ok_or_else(|| {
            Error::builder("the balance is read by a chain reader; add .chain(ChainReader::new()…)")
        })?;
        let balance = watch.chain.balance(asset, self.address()).await;
        balance.map_err(|reason| {
            let message = format!("the balance of {} cannot be read: {reason}", self.address());
            Error::new(ErrorKind::Transport, message).because(reason)
        })
    }

    async fn explain_facts(&self, facts: &Facts<'_>) -> Result<Explanation, Error> {
        let check = self.inner.policy.limit_check(facts);
        let statuses = self.inner.ledger.examine(&check).await?;
        let balance = self.balance_answer(facts).await;
        let policy = &self.inner.policy;
        Ok(Explanation::new(policy, facts, balance, statuses))
    }

    /// Returns the answer of each rule to a payment that nobody makes, with the ledger as it is.
    ///
    /// ```
    /// # use bursar::{Error, Payer, PurchaseRequest, usd};
    /// # async fn example(payer: &Payer) -> Result<(), Error> {
    /// let request = PurchaseRequest::new("GET", "https://api.example.com/report", b"")?;
    /// let explanation = payer.explain(&request, usd!("0.05")).await?;
    /// println!("{explanation}");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no registered token fits the price, or the ledger cannot be read.
    pub async fn explain(
        &self,
        request: &PurchaseRequest,
        price: impl Into<AskingPrice>,
    ) -> Result<Explanation, Error> {
        let quote = self.inner.policy.asking_quote(&price.into());
        let quote =
            quote.ok_or_else(|| Error::builder("no dollar token is known on the network"))?;
        let path = self.inner.policy.stored_path(request);
        let facts = self.facts_of(request, &quote, &path);
        self.explain_facts(&facts).await
    }

    /// How much of each limit is used and left. Limits that hold for each origin, payee and so on
    /// are left out: [`explain`](Self::explain) shows them for one request.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    pub async fn budget(&self) -> Result<Vec<LimitStatus>, Error> {
        self.tend();
        Ok(self.inner.policy.budget(&self.inner.ledger).await?)
    }

    fn facts<'a>(
        &'a self,
        required: &'a PaymentRequired,
        request: &'a PurchaseRequest,
        quote: &'a Quote,
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            resource_url: required.resource_url(),
            signature: Some(quote.signature()),
            ..self.facts_of(request, quote, path)
        }
    }

    fn facts_of<'a>(
        &'a self,
        request: &'a PurchaseRequest,
        quote: &'a Quote,
        path: &'a str,
    ) -> Facts<'a> {
        Facts {
            request,
            path,
            agent: self.agent_of(request),
            never_pay: self.never_pays(request.origin()),
            payer: self.address(),
            quote,
            resource_url: None,
            signature: None,
            now: self.now(),
        }
    }
}

impl Policy {
    /// Returns how much of each limit the purchases in `ledger` use, and how much is left. Needs no
    /// key.
    ///
    /// Limits that hold for each origin, each payee and so on are not included.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    pub async fn budget(&self, ledger: &Ledger) -> Result<Vec<LimitStatus>, LedgerError> {
        ledger.record_pending().await?;
        ledger.examine(&self.budget_check(ledger.now())).await
    }
}
