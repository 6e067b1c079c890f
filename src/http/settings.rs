//! The settings of a payer in a stack of another crate.

use std::time::Duration;

use super::egress::EgressRules;
use super::exchange::Call;
use crate::credential::Credentials;
use crate::payment::{Deadline, RetryPolicy};
use crate::request::PurchaseOptions;

/// The settings that [`ClientBuilder`](crate::ClientBuilder) also has.
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
    /// Returns the settings of one call. `options` and `timeout` are those of its request.
    pub(crate) fn call(
        &self,
        options: Option<&PurchaseOptions>,
        timeout: Option<Duration>,
    ) -> Call {
        Call {
            options: options.unwrap_or(&self.options).clone(),
            body_fn: None,
            deadline: Deadline::of(timeout, self.timeout, self.answer_timeout),
            retry: self.retry,
        }
    }
}

/// Writes the setters of [`CallSettings`] for a type with the fields `payer` and `settings`.
macro_rules! call_setters {
    () => {
        /// Sets the options of requests without options of their own.
        #[must_use]
        pub fn default_options(mut self, options: crate::PurchaseOptions) -> Self {
            self.settings.options = options;
            self
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
pub(crate) use call_setters;
