//! The settings of calls: those of a client, and of a payer in a stack of another crate.

use std::time::Duration;

use super::egress::EgressRules;
use super::exchange::Call;
use super::replay::BodyFn;
use crate::credential::Credentials;
use crate::payment::{Deadline, RetryPolicy};
use crate::request::PurchaseOptions;

/// The settings that a client, a middleware and a layer have in common.
#[derive(Clone, Debug, Default)]
pub(crate) struct CallSettings {
    pub(crate) keys: Credentials,
    pub(crate) egress: EgressRules,
    pub(crate) retry: RetryPolicy,
    pub(crate) options: PurchaseOptions,
    pub(crate) answer_timeout: Option<Duration>,
    pub(crate) timeout: Option<Duration>,
}

impl CallSettings {
    /// Returns the settings of one call. `own` and `timeout` are those of its request.
    pub(crate) fn call(&self, own: Option<PurchaseOptions>, timeout: Option<Duration>) -> Call {
        Call {
            options: own.unwrap_or_default().with_defaults(&self.options),
            body_fn: None,
            deadline: Deadline::of(timeout, self.timeout, self.answer_timeout),
            retry: self.retry,
        }
    }

    /// Returns the settings of one call with a function that makes its body.
    pub(super) fn call_with_body(
        &self,
        own: PurchaseOptions,
        timeout: Option<Duration>,
        body_fn: Option<BodyFn>,
    ) -> Call {
        Call {
            body_fn,
            ..self.call(Some(own), timeout)
        }
    }

    /// Returns the settings with other default options, which win over the present ones.
    pub(crate) fn with_options(&self, options: PurchaseOptions) -> Self {
        Self {
            options: options.with_defaults(&self.options),
            ..self.clone()
        }
    }
}

/// Writes the setters of [`CallSettings`] for a type with the fields `payer` and `settings`.
#[cfg(any(feature = "middleware", feature = "tower"))]
macro_rules! call_setters {
    () => {
        /// Sets the options of all requests. The options of a request win, member by member; see
        /// [`PurchaseOptions::with_defaults`](crate::PurchaseOptions::with_defaults).
        #[must_use]
        pub fn default_options(mut self, options: crate::PurchaseOptions) -> Self {
            self.settings.options = options;
            self
        }

        /// Returns a handle with these options for all of its requests, for example for one agent. It shares the payer, and
        /// so the ledger and the remembered terms.
        ///
        /// The options win over those of this handle, member by member; see
        /// [`PurchaseOptions::with_defaults`](crate::PurchaseOptions::with_defaults).
        #[must_use]
        pub fn with_options(&self, options: crate::PurchaseOptions) -> Self {
            Self {
                payer: self.payer.clone(),
                settings: self.settings.with_options(options),
            }
        }

        /// Returns a handle under another policy; see [`Payer::with_policy`](crate::Payer::with_policy).
        ///
        /// # Errors
        /// When the policy is not valid.
        pub fn with_policy(&self, policy: crate::Policy) -> Result<Self, crate::Error> {
            Ok(Self {
                payer: self.payer.with_policy(policy)?,
                settings: self.settings.clone(),
            })
        }

        /// Returns a handle that pays with another key; see [`Payer::with_signer`](crate::Payer::with_signer).
        #[must_use]
        pub fn with_signer(&self, signer: impl crate::Signer) -> Self {
            Self {
                payer: self.payer.with_signer(signer),
                settings: self.settings.clone(),
            }
        }

        /// Returns the payer, to read its ledger or to ask its policy.
        #[must_use]
        pub const fn payer(&self) -> &crate::Payer {
            &self.payer
        }

        /// Sets API keys; see [`ClientBuilder::credentials`](crate::ClientBuilder::credentials).
        #[must_use]
        pub fn credentials(mut self, keys: crate::Credentials) -> Self {
            self.payer = self.payer.with_keys(&keys);
            self.settings.keys = keys;
            self
        }

        /// Allows plain http to the loopback of this machine; see
        /// [`ClientBuilder::allow_http_loopback`](crate::ClientBuilder::allow_http_loopback).
        ///
        /// bursar does not see the proxies of an HTTP client that it did not build. It refuses the answer of another
        /// machine, but the first request has left by then.
        #[must_use]
        pub const fn allow_http_loopback(mut self, allow: bool) -> Self {
            self.settings.egress.http_loopback = allow;
            self
        }

        /// Refuses private addresses; see
        /// [`ClientBuilder::deny_private_networks`](crate::ClientBuilder::deny_private_networks).
        ///
        /// bursar checks the addresses in URLs. The addresses behind names are checked only by an HTTP client that
        /// [`Client`](crate::Client) or `bursar::middleware::client` builds.
        #[must_use]
        pub const fn deny_private_networks(mut self) -> Self {
            self.settings.egress.deny_private = true;
            self
        }

        /// Sets how long the head of an answer may take; see
        /// [`ClientBuilder::answer_timeout`](crate::ClientBuilder::answer_timeout).
        #[must_use]
        pub const fn answer_timeout(mut self, limit: std::time::Duration) -> Self {
            self.settings.answer_timeout = Some(limit);
            self
        }

        /// Sets how long a whole call may take, with payment and body. The timeout of a request replaces it.
        #[must_use]
        pub const fn timeout(mut self, limit: std::time::Duration) -> Self {
            self.settings.timeout = Some(limit);
            self
        }

        /// Sets how often a call sends a payment whose outcome is uncertain; see
        /// [`RetryPolicy`](crate::RetryPolicy).
        #[must_use]
        pub const fn retry_policy(mut self, policy: crate::RetryPolicy) -> Self {
            self.settings.retry = policy;
            self
        }
    };
}
#[cfg(any(feature = "middleware", feature = "tower"))]
pub(crate) use call_setters;
