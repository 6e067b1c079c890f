//! Building a client.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::guard::Guard;
use super::{Client, Inner};
use crate::chain::ChainReader;
use crate::credential::Credentials;
use crate::ledger::Ledger;
use crate::payer::{FreezeSwitch, Payer, PayerBuilder, RetryPolicy};
use crate::policy::{Approver, Policy};
use crate::signer::Signer;
use crate::telemetry::Observer;
use crate::{Clock, Error};

/// How long an answer may take unless the client says otherwise.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds a [`Client`].
///
/// Without signer, policy and ledger the client cannot pay: a 402 becomes an error that carries
/// the price. With one of them, all three are required.
pub struct ClientBuilder {
    http: reqwest::ClientBuilder,
    wallet: PayerBuilder,
    payer: Option<Payer>,
    keys: Credentials,
    guard: Guard,
    answer_timeout: Duration,
    timeout: Option<Duration>,
    retry: RetryPolicy,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            http: reqwest::Client::builder(),
            wallet: PayerBuilder::default(),
            payer: None,
            keys: Credentials::new(),
            guard: Guard::default(),
            answer_timeout: ANSWER_TIMEOUT,
            timeout: None,
            retry: RetryPolicy::default(),
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("wallet", &self.wallet)
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl ClientBuilder {
    /// Who signs.
    #[must_use]
    pub fn signer(mut self, signer: impl Signer) -> Self {
        self.wallet = self.wallet.signer(signer);
        self
    }

    /// What may be bought.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.wallet = self.wallet.policy(policy);
        self
    }

    /// Where it is written down: [`SqliteLedger`](crate::SqliteLedger), or
    /// [`MemoryLedger`](crate::MemoryLedger) if limits may start anew with every process.
    #[must_use]
    pub fn ledger(mut self, ledger: impl Ledger) -> Self {
        self.wallet = self.wallet.ledger(ledger);
        self
    }

    /// Who is asked when the policy wants a word. Without one, such payments are denied.
    #[must_use]
    pub fn approver(mut self, approver: impl Approver) -> Self {
        self.wallet = self.wallet.approver(approver);
        self
    }

    /// What the books are [reconciled](Client::reconcile) with.
    #[must_use]
    pub fn chain(mut self, chain: ChainReader) -> Self {
        self.wallet = self.wallet.chain(chain);
        self
    }

    /// API keys, each for its hosts. With a wallet, calls by key are booked with the cost that is
    /// declared for them, under the policy's dollar limits.
    #[must_use]
    pub fn credentials(mut self, keys: Credentials) -> Self {
        self.keys = keys;
        self
    }

    /// Who is told what happens to payments: see [`telemetry`](crate::telemetry).
    #[must_use]
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.wallet = self.wallet.observer(observer);
        self
    }

    /// What stops all paying at once.
    #[must_use]
    pub fn freeze_switch(mut self, switch: FreezeSwitch) -> Self {
        self.wallet = self.wallet.freeze_switch(switch);
        self
    }

    /// The name that this agent's payments are booked under.
    #[must_use]
    pub fn agent(mut self, name: impl Into<String>) -> Self {
        self.wallet = self.wallet.agent(name);
        self
    }

    /// Where the time comes from; the machine's clock unless set.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.wallet = self.wallet.clock(clock);
        self
    }

    /// Pays with a wallet that was built before, in place of signer, policy and ledger.
    #[must_use]
    pub fn payer(mut self, payer: Payer) -> Self {
        self.payer = Some(payer);
        self
    }

    /// reqwest's own settings: TLS, proxies, pools, default headers.
    ///
    /// The builder is taken, not a finished client, because bursar sets the redirect policy: reqwest
    /// would send a payment header along to any origin. It replaces the DNS resolver where
    /// [`deny_private_networks`](Self::deny_private_networks) is set.
    #[must_use]
    pub fn http(mut self, http: reqwest::ClientBuilder) -> Self {
        self.http = http;
        self
    }

    /// Allows plain http to this machine's loopback: 127.0.0.0/8, `[::1]` and `localhost`.
    #[must_use]
    pub const fn allow_http_loopback(mut self, allow: bool) -> Self {
        self.guard.http_loopback = allow;
        self
    }

    /// Refuses addresses that are not meant to be reached from everywhere, also behind names, so
    /// that a prompt cannot send the agent into your network. Proxies are switched off with it: they
    /// resolve names themselves. An allowed loopback stays allowed.
    #[must_use]
    pub const fn deny_private_networks(mut self) -> Self {
        self.guard.deny_private = true;
        self
    }

    /// How long the head of an answer may take; 30 seconds unless set. A paid answer may take the
    /// validity of its authorization longer, because the seller settles in that time.
    #[must_use]
    pub const fn answer_timeout(mut self, limit: Duration) -> Self {
        self.answer_timeout = limit;
        self
    }

    /// Sets how often a call sends a payment whose outcome is uncertain; see [`RetryPolicy`].
    #[must_use]
    pub const fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// How long a whole call may take, approval, payment and body included; not bounded unless set here or
    /// on the request. Nothing is signed once it is over.
    #[must_use]
    pub const fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// The client.
    ///
    /// # Errors
    /// When a wallet lacks signer, policy or ledger, the policy cannot be used, or reqwest cannot
    /// start.
    pub fn build(self) -> Result<Client, Error> {
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
        self.keys.check()?;
        let mut http = safe(self.http);
        if let Some(resolver) = self.guard.resolver() {
            http = http.dns_resolver(resolver).no_proxy();
        }
        let http = http.build().map_err(Error::http)?;
        let inner = Inner {
            http,
            payer,
            keys: self.keys,
            guard: self.guard,
            answer_timeout: self.answer_timeout,
            timeout: self.timeout,
            retry: self.retry,
        };
        Ok(Client {
            inner: Arc::new(inner),
        })
    }
}

/// reqwest's settings made safe for payments: no redirects, which would carry payment headers to
/// other origins.
pub(crate) fn safe(http: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    http.redirect(reqwest::redirect::Policy::none())
        .referer(false)
}
