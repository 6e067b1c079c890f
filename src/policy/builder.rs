//! Building a policy in code.

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::Address;

use super::limits::Limits;
use super::schemes::scheme_methods;
use super::{
    DAY, HOUR, HostMatch, HostSettings, MONTH, PayeeRule, Policy, PolicyError, ResourceRule,
};
use crate::limit::{Amount, Calendar, Limit, LimitKind, Period, Scope, ScopeKind, Selector};
use crate::money::Asset;
use crate::money::Network;
use crate::origin::Origin;

/// The methods that set limits, on all payments or on one scope.
macro_rules! limit_methods {
    () => {
        /// Limits the amount of one payment.
        #[must_use]
        pub fn per_payment(self, max: impl Into<Amount>) -> Self {
            self.limit(Ok(LimitKind::PerPayment(max.into())))
        }

        /// Limits the sum of payments in any hour: the last 60 minutes.
        #[must_use]
        pub fn per_hour(self, max: impl Into<Amount>) -> Self {
            self.rolling(HOUR, max)
        }

        /// Limits the sum of payments in any day: the last 24 hours.
        #[must_use]
        pub fn per_day(self, max: impl Into<Amount>) -> Self {
            self.rolling(DAY, max)
        }

        /// Limits the sum of payments in any month: the last 30 days.
        #[must_use]
        pub fn per_month(self, max: impl Into<Amount>) -> Self {
            self.rolling(MONTH, max)
        }

        /// Limits the sum of payments in a rolling window of this length. Unresolved payments count.
        #[must_use]
        pub fn rolling(self, window: Duration, max: impl Into<Amount>) -> Self {
            self.limit(not_empty(window).map(|window| LimitKind::Rolling(window, max.into())))
        }

        /// Limits the sum of payments in a calendar day, week, month or year.
        ///
        /// `zone` is an IANA name such as `Europe/Berlin`, or `UTC`.
        #[must_use]
        pub fn calendar(self, period: Period, zone: &str, max: impl Into<Amount>) -> Self {
            let calendar = Calendar::new(period, zone).map_err(PolicyError::TimeZone);
            self.limit(calendar.map(|calendar| LimitKind::Calendar(calendar, max.into())))
        }

        /// Limits the sum of all payments in the ledger.
        #[must_use]
        pub fn lifetime(self, max: impl Into<Amount>) -> Self {
            self.limit(Ok(LimitKind::Lifetime(max.into())))
        }

        /// Limits the sum of payments that are signed, unresolved and not yet expired.
        #[must_use]
        pub fn exposure(self, max: impl Into<Amount>) -> Self {
            self.limit(Ok(LimitKind::Exposure(max.into())))
        }

        /// Limits the number of payments in a rolling window of this length.
        #[must_use]
        pub fn payments(self, window: Duration, max: u32) -> Self {
            self.limit(not_empty(window).map(|window| LimitKind::Payments(window, max)))
        }

        /// Asks the [`Approver`](crate::approval::Approver) before a payment above this amount.
        #[must_use]
        pub fn ask_above(self, threshold: impl Into<Amount>) -> Self {
            self.asked(threshold.into())
        }
    };
}
pub(super) use limit_methods;

pub(super) const fn not_empty(window: Duration) -> Result<Duration, PolicyError> {
    if window.is_zero() {
        Err(PolicyError::EmptyWindow)
    } else {
        Ok(window)
    }
}

/// The limits and settings of a host; see [`Policy::host_limits`].
///
/// All limits that match a payment apply. Of the settings, the most specific one applies: first the
/// origin, then the host, then the longest pattern, then the setting for all hosts.
///
/// ```
/// use bursar::{Policy, usd};
///
/// let policy = Policy::new()
///     .host_limits("*.example.com", |host| host.per_day(usd!("1")))
///     .host_limits("api.example.com", |host| host.per_payment(usd!("0.02")).payee_pinned());
/// ```
#[derive(Clone, Debug, Default)]
pub struct HostRules {
    pub(crate) limits: Limits,
    pub(super) settings: HostSettings,
}

/// The methods that set settings, for all hosts or for one host.
macro_rules! setting_methods {
    () => {
        /// Allows any payee. This is the default, because some sellers use a new address for every order.
        #[must_use]
        pub fn payee_free(mut self) -> Self {
            self.settings_mut().payee = Some(PayeeRule::Free);
            self
        }

        /// Allows only the payee of the first purchase from an origin in a token.
        #[must_use]
        pub fn payee_pinned(mut self) -> Self {
            self.settings_mut().payee = Some(PayeeRule::Pinned);
            self
        }

        /// Allows only these payees.
        #[must_use]
        pub fn payees(mut self, payees: impl IntoIterator<Item = Address>) -> Self {
            self.settings_mut().payee = Some(PayeeRule::Listed(payees.into_iter().collect()));
            self
        }

        /// Sets the longest validity of an authorization. The default is 300 seconds.
        ///
        /// If a seller asks for more time, bursar signs for this time. Set a longer time for a seller that
        /// works for minutes before it settles.
        #[must_use]
        pub fn max_validity(mut self, ceiling: Duration) -> Self {
            self.settings_mut().max_validity = Some(ceiling);
            self
        }

        /// Refuses a price that is more than `percent` percent above the last price of the same method and
        /// path.
        #[must_use]
        pub fn max_price_rise(mut self, percent: u32) -> Self {
            self.settings_mut().max_price_rise = Some(percent);
            self
        }

        /// Refuses terms whose `resource.url` names another origin.
        ///
        /// By default, bursar only records that URL: sellers behind proxies often name a wrong one.
        #[must_use]
        pub fn refuse_foreign_resource(mut self) -> Self {
            self.settings_mut().resource = Some(ResourceRule::Refuse);
            self
        }

        /// Limits how often the same request (method, URL and body) is bought in a rolling window.
        ///
        /// More purchases look like a loop in the program. The default is 30 per minute. Only this method changes it.
        #[must_use]
        pub fn loop_guard(mut self, window: Duration, max: u32) -> Self {
            self.settings_mut().repeats = Some((window, max));
            self
        }

        /// Stops paying an origin after this number of failures in a rolling window.
        ///
        /// A failure is a payment that is settled or unresolved and was answered by an error status or not
        /// at all. The default is 3 failures in 10 minutes. Only this method changes it.
        #[must_use]
        pub fn circuit_breaker(mut self, window: Duration, failures: u32) -> Self {
            self.settings_mut().breaker = Some((window, failures));
            self
        }

        /// Pays with the first request, if the seller settled at terms that are not older than `lifetime`.
        ///
        /// A purchase then takes one round trip instead of two. It is off by default. Zero switches it off
        /// for a host.
        ///
        /// bursar keeps terms in memory by origin, method and path. Requests that differ only in query or body
        /// share them. The policy and the ledger check the purchase like any other. If the terms have changed,
        /// the seller answers 402. bursar then continues the same purchase at the new terms, if the policy
        /// allows them and the payee is the same, and asks for the price first for `lifetime`.
        ///
        /// A seller that has become free, or is down, also receives a signed payment. The payment counts
        /// against the limits until it is resolved.
        ///
        /// Do not use this for a seller that names a new payee for every order.
        #[must_use]
        pub fn remember_terms(mut self, lifetime: Duration) -> Self {
            self.settings_mut().remember_terms = Some(lifetime);
            self
        }

        /// Records a `resource.url` of another origin, and pays. This is the default.
        #[must_use]
        pub fn record_foreign_resource(mut self) -> Self {
            self.settings_mut().resource = Some(ResourceRule::Record);
            self
        }
    };
}

impl HostRules {
    /// Returns these limits, without settings.
    #[cfg(feature = "toml")]
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            settings: HostSettings::default(),
        }
    }

    limit_methods!();
    setting_methods!();
    scheme_methods!();

    const fn settings_mut(&mut self) -> &mut HostSettings {
        &mut self.settings
    }

    fn limit(mut self, kind: Result<LimitKind, PolicyError>) -> Self {
        self.limits = self.limits.limit(kind);
        self
    }

    fn asked(mut self, threshold: Amount) -> Self {
        self.limits = self.limits.asked(threshold);
        self
    }
}

impl Policy {
    limit_methods!();
    setting_methods!();
    scheme_methods!();

    const fn settings_mut(&mut self) -> &mut HostSettings {
        &mut self.everywhere
    }

    fn limit(self, kind: Result<LimitKind, PolicyError>) -> Self {
        let limits = Limits::default().limit(kind);
        self.scope(&Selector::Only(Scope::Global), limits)
    }

    fn asked(mut self, threshold: Amount) -> Self {
        self.asks.push((Selector::Only(Scope::Global), threshold));
        self
    }

    /// Allows payments on a network.
    ///
    /// `network` is a [`Network`], a name such as `base`, or a CAIP-2 id such as `eip155:8453`. Without an
    /// allowed network, bursar pays nothing.
    ///
    /// ```
    /// use bursar::Policy;
    ///
    /// let policy = Policy::new().allow_network("base").allow_network("eip155:137");
    /// assert_eq!(policy.networks().len(), 2);
    /// ```
    #[must_use]
    pub fn allow_network<N>(mut self, network: N) -> Self
    where
        N: TryInto<Network>,
        N::Error: Into<PolicyError>,
    {
        match network.try_into() {
            Ok(network) => self.networks.push(network),
            Err(error) => return self.mistake(error),
        }
        self
    }

    /// Allows test networks and networks with real money in one policy.
    #[must_use]
    pub const fn mix_testnets(mut self) -> Self {
        self.mixed = true;
        self
    }

    /// Adds a token to the registry of this policy, or replaces its data there.
    #[must_use]
    pub fn register_asset(mut self, asset: Asset) -> Self {
        self.assets.push(asset);
        self
    }

    /// Removes the default limits on amounts and on the number of payments. Set a limit for one payment and one
    /// over time in their place.
    ///
    /// Without these two, [`check`](Self::check) returns [`PolicyError::Unlimited`]. If they are set for some
    /// scopes only, such as one tag, bursar denies the payments of other scopes. The
    /// [loop guard](Self::loop_guard) and the [circuit breaker](Self::circuit_breaker) remain; they have settings
    /// of their own.
    ///
    /// ```
    /// use bursar::policy::PolicyError;
    /// use bursar::{Policy, usd};
    ///
    /// let policy = Policy::new().allow_network("base").without_default_limits();
    /// assert_eq!(policy.check(), Err(PolicyError::Unlimited));
    /// policy.per_payment(usd!("1")).per_month(usd!("200")).check()?;
    /// # Ok::<(), PolicyError>(())
    /// ```
    #[must_use]
    pub const fn without_default_limits(mut self) -> Self {
        self.defaults = false;
        self
    }

    /// Removes the default limits, and allows payments in dollars that no limit holds.
    ///
    /// The loop guard and the circuit breaker remain. A token without a dollar value still needs limits in its own
    /// units.
    #[must_use]
    pub const fn unlimited(mut self) -> Self {
        self.defaults = false;
        self.unlimited = true;
        self
    }

    /// Sets limits and settings for a host such as `api.example.com`, or for a pattern such as
    /// `*.example.com`, on any scheme and port.
    ///
    /// A limit on a pattern applies to the sum of all its hosts.
    #[must_use]
    pub fn host_limits(self, pattern: &str, rules: impl FnOnce(HostRules) -> HostRules) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.host_rules(HostMatch::Host(pattern), rules(HostRules::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Sets limits and settings for one origin such as `https://api.example.com:8443`.
    #[must_use]
    pub fn origin_limits(self, origin: &str, rules: impl FnOnce(HostRules) -> HostRules) -> Self {
        match origin.parse::<Origin>() {
            Ok(origin) => self.host_rules(HostMatch::Origin(origin), rules(HostRules::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Sets limits on one resource such as `https://api.example.com/report`, with any query.
    ///
    /// The limits also hold for everything below the path, such as `/report/2026`, and for other spellings that a server may
    /// take for the same path: escapes, capitals, `;parameters` and repeated slashes. bursar pays for no path that hides
    /// `..` or a control character.
    #[must_use]
    pub fn resource_limits(self, url: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        match super::resource(url) {
            Ok(scope) => self.scope(&Selector::Only(scope), limits(Limits::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Sets limits on one tool of the MCP server at `origin`, which is the resource `mcp://tool/NAME`.
    #[must_use]
    pub fn tool_limits(
        self,
        origin: &str,
        name: &str,
        limits: impl FnOnce(Limits) -> Limits,
    ) -> Self {
        match super::tool(origin, name) {
            Ok(scope) => self.scope(&Selector::Only(scope), limits(Limits::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Sets limits on the sum of all hosts of a registrable domain such as `example.com`.
    #[must_use]
    pub fn domain_limits(self, domain: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        match super::domain(domain) {
            Ok(domain) => self.scope(
                &Selector::Only(Scope::Domain(domain)),
                limits(Limits::default()),
            ),
            Err(error) => self.mistake(error),
        }
    }

    /// Sets limits on one payee, for all hosts that name it.
    #[must_use]
    pub fn payee_limits(self, payee: Address, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::Payee(payee)),
            limits(Limits::default()),
        )
    }

    /// Sets limits on payments in one token.
    #[must_use]
    pub fn asset_limits(self, asset: &Asset, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::of_asset(asset)),
            limits(Limits::default()),
        )
    }

    /// Sets limits on payments on one network. This does not allow the network.
    #[must_use]
    pub fn network_limits<N>(self, network: N, limits: impl FnOnce(Limits) -> Limits) -> Self
    where
        N: TryInto<Network>,
        N::Error: Into<PolicyError>,
    {
        match network.try_into() {
            Ok(network) => self.scope(
                &Selector::Only(Scope::Network(network)),
                limits(Limits::default()),
            ),
            Err(error) => self.mistake(error),
        }
    }

    /// Sets limits on requests with a tag.
    #[must_use]
    pub fn tag_limits(self, tag: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::Tag(tag.to_owned())),
            limits(Limits::default()),
        )
    }

    /// Sets limits on one agent, for all clients with that name.
    #[must_use]
    pub fn agent_limits(self, agent: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::Agent(agent.to_owned())),
            limits(Limits::default()),
        )
    }

    /// Sets the same limits for each origin.
    #[must_use]
    pub fn each_origin(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Each(ScopeKind::Origin),
            limits(Limits::default()),
        )
    }

    /// Sets the same limits for each registrable domain.
    #[must_use]
    pub fn each_domain(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Each(ScopeKind::Domain),
            limits(Limits::default()),
        )
    }

    /// Sets the same limits for each payee.
    #[must_use]
    pub fn each_payee(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Payee), limits(Limits::default()))
    }

    /// Sets the same limits for each token.
    #[must_use]
    pub fn each_asset(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Asset), limits(Limits::default()))
    }

    /// Sets the same limits for each network.
    #[must_use]
    pub fn each_network(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Each(ScopeKind::Network),
            limits(Limits::default()),
        )
    }

    /// Sets the same limits for each tag. They do not hold payments without a tag; set limits on all payments too.
    #[must_use]
    pub fn each_tag(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Tag), limits(Limits::default()))
    }

    /// Sets the same limits for each agent. They do not hold clients without an agent.
    #[must_use]
    pub fn each_agent(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Agent), limits(Limits::default()))
    }

    /// Stores URLs with their query in the ledger.
    ///
    /// By default, bursar leaves the query out, because it can hold personal data.
    #[must_use]
    pub const fn store_queries(mut self) -> Self {
        self.queries_stored = true;
        self
    }

    /// Freezes all payments while this file exists, or while bursar cannot check whether it exists.
    ///
    /// A relative path is meant in the present working directory, also if the program changes it later.
    #[must_use]
    pub fn freeze_file(mut self, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        match std::path::absolute(&path) {
            Ok(path) => self.freeze_switch = Some(path),
            Err(_) => return self.mistake(PolicyError::FreezeFile { path }),
        }
        self
    }

    /// Lets recorded refunds free room under the limits.
    ///
    /// By default they do not: a seller that refunds could otherwise make a limit useless.
    #[must_use]
    pub const fn refunds_make_room(mut self) -> Self {
        self.refunds_make_room = true;
        self
    }

    /// Sets how long an approver can take before bursar denies the payment. The default is two minutes.
    #[must_use]
    pub const fn approval_timeout(mut self, limit: Duration) -> Self {
        self.approval_time = limit;
        self
    }

    /// Sets how long bursar signs nothing after three refusals in a row that another signature cannot change. The
    /// default is 20 minutes; zero switches the pause off.
    ///
    /// The refusals are those of an empty wallet, for its network and token, those of a wallet that has not approved Permit2,
    /// for payments by Permit2, and those of a seller that refuses every such payment. Each further refusal doubles the time, up to six hours. A settled payment ends the pause.
    ///
    /// ```
    /// use std::time::Duration;
    /// use bursar::Policy;
    ///
    /// let policy = Policy::new().refusal_pause(Duration::from_secs(5 * 60));
    /// ```
    #[must_use]
    pub const fn refusal_pause(mut self, pause: Duration) -> Self {
        self.refusal_pause = pause;
        self
    }

    fn scope(mut self, selector: &Selector, limits: Limits) -> Self {
        self.warn_for(selector, limits.shares);
        for kind in limits.kinds {
            match kind {
                Ok(kind) => self.limits.push(Limit {
                    scope: selector.clone(),
                    kind,
                }),
                Err(error) => self.errors.push(error),
            }
        }
        self.asks.extend(
            limits
                .asks
                .into_iter()
                .map(|threshold| (selector.clone(), threshold)),
        );
        self
    }

    /// Adds limits on all payments, and replaces the settings of all hosts.
    #[cfg(feature = "toml")]
    pub(crate) fn everywhere(mut self, rules: HostRules) -> Self {
        self.everywhere = rules.settings;
        self.scope(&Selector::Only(Scope::Global), rules.limits)
    }

    /// Removes and returns the errors that were made in building the policy.
    #[cfg(feature = "toml")]
    pub(crate) fn take_mistakes(&mut self) -> Vec<PolicyError> {
        std::mem::take(&mut self.errors)
    }

    fn host_rules(mut self, hosts: HostMatch, rules: HostRules) -> Self {
        let scope = hosts.scope();
        self.hosts.push((hosts, rules.settings));
        self.scope(&Selector::Only(scope), rules.limits)
    }

    pub(super) fn mistake(mut self, error: impl Into<PolicyError>) -> Self {
        self.errors.push(error.into());
        self
    }
}
