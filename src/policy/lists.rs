//! Allowing and denying hosts, payees, tokens and networks.

use alloy::primitives::Address;

use super::{Policy, PolicyError};
use crate::money::Network;
use crate::origin::HostPattern;

impl Policy {
    /// Allows payments to hosts of this pattern.
    ///
    /// After the first call, bursar pays no host outside the allowed patterns.
    #[must_use]
    pub fn allow_host(mut self, pattern: &str) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.lists.allowed_hosts.push(pattern),
            Err(error) => return self.mistake(error),
        }
        self
    }

    /// Returns whether an [`allow_host`](Self::allow_host) covers this host, and no [`deny_host`](Self::deny_host) does.
    ///
    /// Without any allowed host, the answer is false, although the policy then allows payments to every host.
    ///
    /// ```
    /// use bursar::Policy;
    ///
    /// let policy = Policy::new().allow_host("*.example.com").deny_host("bad.example.com");
    /// assert!(policy.names_host("api.example.com"));
    /// assert!(!policy.names_host("bad.example.com"));
    /// assert!(!Policy::new().names_host("api.example.com"));
    /// ```
    #[must_use]
    pub fn names_host(&self, host: &str) -> bool {
        let covers =
            |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.matches(host));
        covers(&self.lists.allowed_hosts) && !covers(&self.lists.denied_hosts)
    }

    /// Denies payments to hosts of this pattern.
    #[must_use]
    pub fn deny_host(mut self, pattern: &str) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.lists.denied_hosts.push(pattern),
            Err(error) => return self.mistake(error),
        }
        self
    }

    /// Allows payments to this payee. After the first call, bursar pays no other payee.
    #[must_use]
    pub fn allow_payee(mut self, payee: Address) -> Self {
        self.lists.allowed_payees.push(payee);
        self
    }

    /// Denies payments to this payee.
    #[must_use]
    pub fn deny_payee(mut self, payee: Address) -> Self {
        self.lists.denied_payees.push(payee);
        self
    }

    /// Allows payments in this token. After the first call, bursar pays in no other token.
    #[must_use]
    pub fn allow_asset(mut self, network: Network, address: Address) -> Self {
        self.lists.allowed_assets.push((network, address));
        self
    }

    /// Denies payments in this token.
    #[must_use]
    pub fn deny_asset(mut self, network: Network, address: Address) -> Self {
        self.lists.denied_assets.push((network, address));
        self
    }

    /// Denies payments on this network, even if it is also allowed.
    #[must_use]
    pub fn deny_network<N>(mut self, network: N) -> Self
    where
        N: TryInto<Network>,
        N::Error: Into<PolicyError>,
    {
        match network.try_into() {
            Ok(network) => self.lists.denied_networks.push(network),
            Err(error) => return self.mistake(error),
        }
        self
    }
}
