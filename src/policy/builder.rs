//! Building a policy in code.

use std::path::PathBuf;
use std::time::Duration;

use alloy::primitives::Address;

use super::{
    DAY, HOUR, HostMatch, HostSettings, MONTH, PayeeRule, Policy, PolicyError, ResourceRule,
};
use crate::limit::{Amount, Calendar, Limit, LimitKind, Period, Scope, ScopeKind, Selector};
use crate::money::Asset;
use crate::money::Network;
use crate::origin::Origin;

/// The methods that set limits, on everything or on a scope.
macro_rules! limit_methods {
    () => {
        /// At most this much in one payment.
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

        /// At most this much in any stretch of time this long. What is uncertain counts.
        #[must_use]
        pub fn rolling(self, window: Duration, max: impl Into<Amount>) -> Self {
            self.limit(not_empty(window).map(|window| LimitKind::Rolling(window, max.into())))
        }

        /// At most this much in a day, week, month or year of a time zone: an IANA name such as
        /// `Europe/Berlin`, or `UTC`.
        #[must_use]
        pub fn calendar(self, period: Period, zone: &str, max: impl Into<Amount>) -> Self {
            let calendar = Calendar::new(period, zone).map_err(PolicyError::TimeZone);
            self.limit(calendar.map(|calendar| LimitKind::Calendar(calendar, max.into())))
        }

        /// At most this much over the life of the ledger.
        #[must_use]
        pub fn lifetime(self, max: impl Into<Amount>) -> Self {
            self.limit(Ok(LimitKind::Lifetime(max.into())))
        }

        /// At most this much signed, unresolved and not yet expired.
        #[must_use]
        pub fn exposure(self, max: impl Into<Amount>) -> Self {
            self.limit(Ok(LimitKind::Exposure(max.into())))
        }

        /// At most so many payments in any stretch of time this long.
        #[must_use]
        pub fn payments(self, window: Duration, max: u32) -> Self {
            self.limit(not_empty(window).map(|window| LimitKind::Payments(window, max)))
        }

        /// Payments above this amount need the [`Approver`](crate::approval::Approver)'s word.
        #[must_use]
        pub fn ask_above(self, threshold: impl Into<Amount>) -> Self {
            self.asked(threshold.into())
        }
    };
}

const fn not_empty(window: Duration) -> Result<Duration, PolicyError> {
    if window.is_zero() {
        Err(PolicyError::EmptyWindow)
    } else {
        Ok(window)
    }
}

/// Limits of one scope; see [`Policy::tag_limits`] and its like.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    kinds: Vec<Result<LimitKind, PolicyError>>,
    asks: Vec<Amount>,
}

impl Limits {
    limit_methods!();

    fn limit(mut self, kind: Result<LimitKind, PolicyError>) -> Self {
        self.kinds.push(kind);
        self
    }

    fn asked(mut self, threshold: Amount) -> Self {
        self.asks.push(threshold);
        self
    }
}

/// Limits and settings of a host; see [`Policy::host_limits`].
///
/// Limits of every matching entry apply. Settings are decided by the most specific match: origin,
/// then host, then the longest pattern, then what the policy says for everywhere.
#[derive(Clone, Debug, Default)]
pub struct HostRules {
    pub(crate) limits: Limits,
    settings: HostSettings,
}

/// The methods of settings that can be made everywhere or for a host.
macro_rules! setting_methods {
    () => {
        /// Any payee may be paid: the default, for sellers that use a fresh address per order.
        #[must_use]
        pub fn payee_free(mut self) -> Self {
            self.settings_mut().payee = Some(PayeeRule::Free);
            self
        }

        /// The payee of the first purchase in a token is the only one that the origin may name in
        /// that token from then on.
        #[must_use]
        pub fn payee_pinned(mut self) -> Self {
            self.settings_mut().payee = Some(PayeeRule::Pinned);
            self
        }

        /// Only these payees.
        #[must_use]
        pub fn payees(mut self, payees: impl IntoIterator<Item = Address>) -> Self {
            self.settings_mut().payee = Some(PayeeRule::Listed(payees.into_iter().collect()));
            self
        }

        /// The longest that an authorization is valid; the default is 300 seconds. A seller that
        /// asks for longer is given this much; one that works long before it settles needs more.
        #[must_use]
        pub fn max_validity(mut self, ceiling: Duration) -> Self {
            self.settings_mut().max_validity = Some(ceiling);
            self
        }

        /// Refuses a price that is more than so many percent above the last purchase of the same
        /// method and path.
        #[must_use]
        pub fn max_price_rise(mut self, percent: u32) -> Self {
            self.settings_mut().max_price_rise = Some(percent);
            self
        }

        /// Refuses terms whose `resource.url` names another origin. By default that is recorded
        /// only: sellers behind proxies name themselves wrongly.
        #[must_use]
        pub fn refuse_foreign_resource(mut self) -> Self {
            self.settings_mut().resource = Some(ResourceRule::Refuse);
            self
        }

        /// Buys the same request (method, URL and body) at most so many times in any stretch of time
        /// this long: more looks like a loop. The default is 30 a minute.
        #[must_use]
        pub fn loop_guard(mut self, window: Duration, max: u32) -> Self {
            self.settings_mut().repeats = Some((window, max));
            self
        }

        /// Pays an origin no more once so many payments that it took in this stretch of time were
        /// not delivered for: an error status or no answer, settled or unknown. The default is 3 in
        /// 10 minutes.
        #[must_use]
        pub fn circuit_breaker(mut self, window: Duration, failures: u32) -> Self {
            self.settings_mut().breaker = Some((window, failures));
            self
        }

        /// Pays with the first request where the seller has settled before at terms that it named no longer
        /// ago than this: one round trip in place of two. Off unless set; zero switches it off for a host.
        ///
        /// Terms are kept in memory by origin, method and path; requests that differ in query or body share
        /// them. The whole policy, the limits and the books hold as for any purchase. A seller whose terms have changed
        /// answers 402, and the same purchase goes on at the new terms, if the policy allows them and the payee is
        /// the same; its path is then asked first for as long. A seller that has become free, or is down, has
        /// a signed payment all the same, which counts until it is resolved.
        ///
        /// Not for sellers that name a new payee for every order, or take more than they ask for.
        #[must_use]
        pub fn remember_terms(mut self, lifetime: Duration) -> Self {
            self.settings_mut().remember_terms = Some(lifetime);
            self
        }

        /// Records a `resource.url` of another origin and pays: the default.
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

    /// Allows paying on a network: a [`Network`], a name such as `base`, or CAIP-2.
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

    /// Allows test networks beside networks with real money.
    #[must_use]
    pub const fn mix_testnets(mut self) -> Self {
        self.mixed = true;
        self
    }

    /// Adds a token to the registry, or replaces what the registry says of it.
    #[must_use]
    pub fn register_asset(mut self, asset: Asset) -> Self {
        self.assets.push(asset);
        self
    }

    /// Drops the default limits that are not replaced: nothing but what is set remains.
    #[must_use]
    pub const fn without_default_limits(mut self) -> Self {
        self.defaults = false;
        self
    }

    /// Limits and settings for a host such as `api.example.com` or a pattern such as
    /// `*.example.com`, on any scheme and port. A limit on a pattern adds up all its hosts.
    #[must_use]
    pub fn host_limits(self, pattern: &str, rules: impl FnOnce(HostRules) -> HostRules) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.host_rules(HostMatch::Host(pattern), rules(HostRules::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Limits and settings for one origin such as `https://api.example.com:8443`.
    #[must_use]
    pub fn origin_limits(self, origin: &str, rules: impl FnOnce(HostRules) -> HostRules) -> Self {
        match origin.parse::<Origin>() {
            Ok(origin) => self.host_rules(HostMatch::Origin(origin), rules(HostRules::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Limits on one resource such as `https://api.example.com/report`, whatever the query.
    #[must_use]
    pub fn resource_limits(self, url: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        match super::resource(url) {
            Ok(scope) => self.scope(&Selector::Only(scope), limits(Limits::default())),
            Err(error) => self.mistake(error),
        }
    }

    /// Limits on one tool of the MCP server at `origin`: the resource `mcp://tool/NAME` under it.
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

    /// Limits on a registrable domain such as `example.com`: all its hosts added up.
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

    /// Limits on one payee, whatever host names it.
    #[must_use]
    pub fn payee_limits(self, payee: Address, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::Payee(payee)),
            limits(Limits::default()),
        )
    }

    /// Limits on payments in one token.
    #[must_use]
    pub fn asset_limits(self, asset: &Asset, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::of_asset(asset)),
            limits(Limits::default()),
        )
    }

    /// Limits on payments on one network. Does not allow the network.
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

    /// Limits on requests with a tag.
    #[must_use]
    pub fn tag_limits(self, tag: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::Tag(tag.to_owned())),
            limits(Limits::default()),
        )
    }

    /// Limits on one agent, across all clients that name it.
    #[must_use]
    pub fn agent_limits(self, agent: &str, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Only(Scope::Agent(agent.to_owned())),
            limits(Limits::default()),
        )
    }

    /// The same limits for each origin on its own.
    #[must_use]
    pub fn each_origin(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Each(ScopeKind::Origin),
            limits(Limits::default()),
        )
    }

    /// The same limits for each registrable domain on its own.
    #[must_use]
    pub fn each_domain(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Each(ScopeKind::Domain),
            limits(Limits::default()),
        )
    }

    /// The same limits for each payee on its own.
    #[must_use]
    pub fn each_payee(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Payee), limits(Limits::default()))
    }

    /// The same limits for each token on its own.
    #[must_use]
    pub fn each_asset(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Asset), limits(Limits::default()))
    }

    /// The same limits for each network on its own.
    #[must_use]
    pub fn each_network(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(
            &Selector::Each(ScopeKind::Network),
            limits(Limits::default()),
        )
    }

    /// The same limits for each tag on its own.
    #[must_use]
    pub fn each_tag(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Tag), limits(Limits::default()))
    }

    /// The same limits for each agent on its own.
    #[must_use]
    pub fn each_agent(self, limits: impl FnOnce(Limits) -> Limits) -> Self {
        self.scope(&Selector::Each(ScopeKind::Agent), limits(Limits::default()))
    }

    /// Once used, hosts outside all such patterns are not paid.
    #[must_use]
    pub fn allow_host(mut self, pattern: &str) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.lists.allowed_hosts.push(pattern),
            Err(error) => return self.mistake(error),
        }
        self
    }

    /// Hosts of this pattern are never paid.
    #[must_use]
    pub fn deny_host(mut self, pattern: &str) -> Self {
        match pattern.parse() {
            Ok(pattern) => self.lists.denied_hosts.push(pattern),
            Err(error) => return self.mistake(error),
        }
        self
    }

    /// Once used, other payees are not paid.
    #[must_use]
    pub fn allow_payee(mut self, payee: Address) -> Self {
        self.lists.allowed_payees.push(payee);
        self
    }

    /// This payee is never paid.
    #[must_use]
    pub fn deny_payee(mut self, payee: Address) -> Self {
        self.lists.denied_payees.push(payee);
        self
    }

    /// Once used, other tokens are not paid with.
    #[must_use]
    pub fn allow_asset(mut self, network: Network, address: Address) -> Self {
        self.lists.allowed_assets.push((network, address));
        self
    }

    /// This token is never paid with.
    #[must_use]
    pub fn deny_asset(mut self, network: Network, address: Address) -> Self {
        self.lists.denied_assets.push((network, address));
        self
    }

    /// This network is never paid on, even if it is also allowed.
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

    /// Stores URLs with their query in the books. By default the query, which may hold personal
    /// data, is left out.
    #[must_use]
    pub const fn store_queries(mut self) -> Self {
        self.queries_stored = true;
        self
    }

    /// Pays nothing while this file exists, or while it cannot be told whether it does.
    #[must_use]
    pub fn freeze_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.freeze_switch = Some(path.into());
        self
    }

    /// Lets refunds that are booked make room in the limits again. By default they do not: who
    /// refunds could otherwise make a limit say nothing.
    #[must_use]
    pub const fn refunds_make_room(mut self) -> Self {
        self.refunds_make_room = true;
        self
    }

    /// How long an approver may take before its silence denies; the default is two minutes.
    #[must_use]
    pub const fn approval_timeout(mut self, limit: Duration) -> Self {
        self.approval_time = limit;
        self
    }

    fn scope(mut self, selector: &Selector, limits: Limits) -> Self {
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

    fn mistake(mut self, error: impl Into<PolicyError>) -> Self {
        self.errors.push(error.into());
        self
    }
}
