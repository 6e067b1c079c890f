//! Building a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::client::{Client, Inner};
use super::settings::CallSettings;
use crate::chain::ChainReader;
use crate::clock::Clock;
use crate::credential::Credentials;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::payment::{FreezeSwitch, Payer, PayerBuilder, RetryPolicy};
use crate::policy::{Approver, Policy};
use crate::request::PurchaseOptions;
use crate::signer::Signer;
use crate::telemetry::Observer;

/// Builds a [`Client`].
///
/// To pay, a client needs a signer, a policy and a ledger. If you set one of them, you must set all three. Without them
/// the client cannot pay, and a 402 becomes an error that carries the price.
///
/// ```no_run
/// use std::time::Duration;
/// use bursar::{Client, LocalSigner, Ledger, Policy, usd};
///
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::builder()
///     .signer(LocalSigner::from_env("BURSAR_PRIVATE_KEY")?)
///     .policy(Policy::new().allow_network("base").per_payment(usd!("0.05")))
///     .ledger(Ledger::memory())
///     .agent("researcher")
///     .timeout(Duration::from_secs(120))
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub struct ClientBuilder {
    pub(super) http: reqwest::ClientBuilder,
    wallet: PayerBuilder,
    payer: Option<Payer>,
    settings: CallSettings,
    /// A header for all requests that only bursar may set.
    pub(super) payment_header: Option<HeaderName>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            http: reqwest::Client::builder(),
            wallet: PayerBuilder::default(),
            payer: None,
            settings: CallSettings::default(),
            payment_header: None,
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("wallet", &self.wallet)
            .field("egress", &self.settings.egress)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Sets the signer: the key that pays.
    #[must_use]
    pub fn signer(mut self, signer: impl Signer) -> Self {
        self.wallet = self.wallet.signer(signer);
        self
    }

    /// Sets the policy that every payment must pass.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.wallet = self.wallet.policy(policy);
        self
    }

    /// Sets the ledger, which records every purchase. Keep a clone to read it, or use
    /// [`Client::ledger`].
    #[must_use]
    pub fn ledger(mut self, ledger: Ledger) -> Self {
        self.wallet = self.wallet.ledger(ledger);
        self
    }

    /// Sets the approver of payments that the policy wants approved. Without one, bursar denies such payments.
    #[must_use]
    pub fn approver(mut self, approver: impl Approver) -> Self {
        self.wallet = self.wallet.approver(approver);
        self
    }

    /// Sets API keys, each for its hosts. With a wallet, bursar records a call by key at its declared cost and checks it
    /// against the dollar limits of the policy.
    #[must_use]
    pub fn credentials(mut self, keys: Credentials) -> Self {
        self.settings.keys = keys;
        self
    }

    /// Sets the observer of payment events; see [`telemetry`](crate::telemetry).
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.wallet = self.wallet.observer(observer);
        self
    }

    /// Sets the switch that freezes all payments at once.
    #[must_use]
    pub fn freeze_switch(mut self, switch: FreezeSwitch) -> Self {
        self.wallet = self.wallet.freeze_switch(switch);
        self
    }

    /// Sets the name of the agent that the ledger records with each payment.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.wallet = self.wallet.agent(name);
        self
    }

    /// Sets the clock. The default is the clock of the machine.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.wallet = self.wallet.clock(clock);
        self
    }

    /// Sets the reader of the chain: bursar then reads the balance before it signs, reconciles unresolved payments in the
    /// background, and has a contract wallet check its signatures; see [`PayerBuilder::chain`].
    ///
    /// ```
    /// use bursar::{ChainReader, Client, Network};
    ///
    /// let base: Network = "base".parse()?;
    /// let chain = ChainReader::new().endpoint(base, "https://mainnet.base.org")?;
    /// let builder = Client::builder().chain(chain);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn chain(mut self, reader: ChainReader) -> Self {
        self.wallet = self.wallet.chain(reader);
        self
    }

    /// Sets the time between two rounds of reconciliation in the background; see [`PayerBuilder::reconcile_every`].
    #[must_use]
    pub fn reconcile_every(mut self, time: Duration) -> Self {
        self.wallet = self.wallet.reconcile_every(time);
        self
    }

    /// Sets whether these rounds also confirm receipts; see [`PayerBuilder::confirm_receipts`].
    #[must_use]
    pub fn confirm_receipts(mut self, confirm: bool) -> Self {
        self.wallet = self.wallet.confirm_receipts(confirm);
        self
    }

    /// Sets a payer that you built before, in place of signer, policy and ledger.
    #[must_use]
    pub fn payer(mut self, payer: Payer) -> Self {
        self.payer = Some(payer);
        self
    }

    /// Sets reqwest's own settings, for those that this builder does not have. It replaces all settings of the HTTP client that
    /// were made before, such as [`user_agent`](Self::user_agent).
    ///
    /// bursar takes a builder instead of a finished client because it must set the redirect policy: reqwest would send a
    /// payment header to any origin. With [`deny_private_networks`](Self::deny_private_networks), bursar also replaces the
    /// DNS resolver. An https request goes through your proxies, which see the host and not the request. Plain http goes
    /// through no proxy; see [`allow_http_loopback`](Self::allow_http_loopback).
    #[must_use]
    pub fn http(mut self, http: reqwest::ClientBuilder) -> Self {
        self.http = http;
        self.payment_header = None;
        self
    }

    /// Allows plain http to the loopback of this machine: 127.0.0.0/8, `[::1]`, and `localhost` and the names below it
    /// if their address is one of these.
    ///
    /// Such a request goes through no proxy, neither of the environment nor of [`http`](Self::http). If there may be a proxy,
    /// bursar asks the resolver of the system for the name, and connects without the connector settings of `http`.
    #[must_use]
    pub const fn allow_http_loopback(mut self, allow: bool) -> Self {
        self.settings.egress.http_loopback = allow;
        self
    }

    /// Refuses private addresses, also behind names, so that a prompt cannot send the agent into your network.
    ///
    /// bursar then uses no proxy, because a proxy resolves names itself. An allowed loopback stays allowed.
    #[must_use]
    pub const fn deny_private_networks(mut self) -> Self {
        self.settings.egress.deny_private = true;
        self
    }

    /// Sets how long the head of an answer may take. A paid answer may take longer by the validity of its authorization,
    /// because the seller settles in that time.
    ///
    /// Without any time limit the default is 600 seconds: enough for a model that answers in one piece. A
    /// [`timeout`](Self::timeout) replaces this default. The [timeout of a request](crate::RequestBuilder::timeout) replaces
    /// all bounds of the client, longer or shorter.
    #[must_use]
    pub const fn answer_timeout(mut self, limit: Duration) -> Self {
        self.settings.answer_timeout = Some(limit);
        self
    }

    /// Sets the options of all requests, for example a tag or the highest price of one request. The options of a request
    /// win, member by member; see [`PurchaseOptions::with_defaults`].
    ///
    /// [`Client::with_options`] returns further handles with other options.
    #[must_use]
    pub fn default_options(mut self, options: PurchaseOptions) -> Self {
        self.settings.options = options;
        self
    }

    /// Sets how often a call sends a payment whose outcome is uncertain; see [`RetryPolicy`].
    #[must_use]
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.settings.retry = policy;
        self
    }

    /// Sets how long a whole call may take, with approval, payment and body. There is no limit by default. bursar signs
    /// nothing after it. A request can have a [timeout](crate::RequestBuilder::timeout) of its own.
    #[must_use]
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.settings.timeout = Some(limit);
        self
    }

    /// Returns the client.
    ///
    /// # Errors
    /// When one of signer, policy and ledger is missing, the policy is not valid, or reqwest cannot start.
    pub fn build(mut self) -> Result<Client, Error> {
        if let Some(name) = self.payment_header {
            let message = format!("the default headers have `{name}`, which only bursar sets");
            return Err(Error::builder(message));
        }
        let payer = match (self.payer, self.wallet) {
            (Some(_), wallet) if !wallet.is_empty() => {
                return Err(Error::builder(
                    "a payer replaces signer, policy and ledger; give one or the other",
                ));
            }
            (Some(payer), _) => Some(payer),
            (None, wallet) if wallet.is_empty() => None,
            (None, wallet) => Some(wallet.build()?),
        };
        self.settings.keys.check()?;
        let payer = payer.map(|payer| payer.with_keys(&self.settings.keys));
        let http = self.settings.egress.apply(without_redirects(self.http))?;
        let inner = Inner {
            http: Ok(http.build().map_err(Error::http)?),
            payer,
            settings: self.settings,
        };
        Ok(Client {
            inner: Arc::new(inner),
        })
    }
}

/// The length of the headers that bursar takes over HTTP/2, in bytes: terms of 64 KiB, and other headers.
#[cfg(feature = "http2")]
const HTTP2_HEADERS: u32 = 128 * 1024;

/// Makes reqwest's settings safe for payments: a redirect would carry a payment header to another origin. Makes room for
/// long terms: reqwest takes 16 KiB of headers over HTTP/2.
pub(crate) fn without_redirects(http: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    #[cfg(feature = "http2")]
    let http = http.http2_max_header_list_size(HTTP2_HEADERS);
    http.redirect(reqwest::redirect::Policy::none())
        .referer(false)
}
