//! The policy of a configuration file, built as a program would build it.

use std::path::Path;

use url::Url;

use super::error::Mistakes;
use super::kind::Kind;
use super::reader::{Table, Value};
use super::scalar::{AmountText, AssetText, ForeignResource, Payee, Percent, Text, Zone, address};
use super::schema;
use super::token::{amount, asset, network};
use crate::money::parse_address;
use crate::money::{Asset, AssetRegistry, Network};
use crate::origin::{HostPattern, Origin};
use crate::path::limited;
use crate::policy::{
    Amount, HostRules, Limits, Permission, Policy, PolicyError, SHORTEST_VALIDITY,
};
use crate::text::excerpt;

/// Builds the policy. `Policy` checks each step; the builder gives its errors their places.
pub(super) fn policy(file: &schema::File, mistakes: &Mistakes<'_>) -> Policy {
    let builder = Builder {
        mistakes,
        assets: AssetRegistry::stablecoins().clone(),
        tables: Vec::new(),
    };
    builder.build(file)
}

struct Builder<'m> {
    mistakes: &'m Mistakes<'m>,
    assets: AssetRegistry,
    /// The scopes that have a table already, each with its line.
    tables: Vec<(String, usize)>,
}

impl Builder<'_> {
    fn build(mut self, file: &schema::File) -> Policy {
        let policy = self.general(Policy::new(), file);
        let policy = self.networks(policy, file);
        let policy = self.tokens(policy, &file.token);
        self.assets = policy.asset_registry();
        let policy = self.allowed(policy, file);
        let policy = self.denied(policy, file);
        let policy = self.global(policy, file);
        let policy = self.each(policy, file);
        let policy = self.scopes(policy, file);
        self.permissions(policy, &file.permit)
    }

    /// Takes one step. An error of the policy is recorded for the value that caused it.
    fn step(
        &self,
        at: usize,
        key: &str,
        policy: Policy,
        step: impl FnOnce(Policy) -> Policy,
    ) -> Policy {
        let mut policy = step(policy);
        for error in policy.take_mistakes() {
            self.mistakes.add(at, format!("`{key}`: {error}"));
        }
        policy
    }

    fn general(&self, mut policy: Policy, file: &schema::File) -> Policy {
        if is_set(file.mix_testnets.as_ref()) {
            policy = policy.mix_testnets();
        }
        if content(file.default_limits.as_ref()) == Some(&false) {
            policy = policy.without_default_limits();
        }
        if is_set(file.unlimited.as_ref()) {
            if is_set(file.default_limits.as_ref()) {
                let at = place(file.unlimited.as_ref()).unwrap_or_default();
                self.mistakes.add(
                    at,
                    "`unlimited` removes the default limits; delete `default_limits`",
                );
            }
            policy = policy.unlimited();
        }
        if is_set(file.store_queries.as_ref()) {
            policy = policy.store_queries();
        }
        if is_set(file.refunds_make_room.as_ref()) {
            policy = policy.refunds_make_room();
        }
        for (_, Text(method)) in contents(&file.mcp_methods) {
            policy = policy.pay_mcp_method(method);
        }
        if let Some(limit) = content(file.approval_timeout.as_ref()) {
            policy = policy.approval_timeout(*limit);
        }
        if let Some(pause) = content(file.refusal_pause.as_ref()) {
            policy = policy.refusal_pause(*pause);
        }
        for (_, share) in contents(&file.warn_at) {
            policy = policy.warn_at(*share);
        }
        for (_, freeze) in tables(&file.freeze) {
            if let Some(Text(path)) = &freeze.file.content {
                if !Path::new(path).has_root() {
                    let message = "`file` must be an absolute path: a relative one depends on the directory in which \
                                   the program starts";
                    self.mistakes.add(freeze.file.at, message);
                }
                policy = policy.freeze_file(path);
            }
        }
        policy
    }

    fn networks(&self, mut policy: Policy, file: &schema::File) -> Policy {
        let mixed = is_set(file.mix_testnets.as_ref());
        let mut first: Option<Network> = None;
        for (at, Text(name)) in contents(&file.networks) {
            let Some(network) = self.network(at, "networks", name) else {
                continue;
            };
            let earlier = *first.get_or_insert(network);
            if !mixed && earlier.is_testnet() != network.is_testnet() {
                let (real, test) = if network.is_testnet() {
                    (earlier, network)
                } else {
                    (network, earlier)
                };
                let error = PolicyError::Mixed { real, test };
                self.mistakes.add(at, format!("`networks`: {error}"));
                continue;
            }
            policy = policy.allow_network(network);
        }
        policy
    }

    fn network(&self, at: usize, key: &str, name: &str) -> Option<Network> {
        self.mistakes.check(at, key, network(name))
    }

    /// Registers the file's own tokens.
    fn tokens(&self, mut policy: Policy, tokens: &[Table<schema::Token>]) -> Policy {
        for (_, token) in tables(tokens) {
            let network = token
                .network
                .content
                .as_ref()
                .and_then(|Text(name)| self.network(token.network.at, "network", name));
            let read = (
                network,
                token.address.content,
                &token.symbol.content,
                token.decimals.content,
                &token.name.content,
                &token.version.content,
            );
            let (
                Some(network),
                Some(address),
                Some(Text(symbol)),
                Some(decimals),
                Some(Text(name)),
                Some(Text(version)),
            ) = read
            else {
                continue;
            };
            let asset = Asset::new(network, address, symbol, decimals, name, version);
            policy = policy.register_asset(if content(token.peg.as_ref()).is_some() {
                asset.pegged_to_dollar()
            } else {
                asset
            });
        }
        policy
    }

    fn allowed(&self, mut policy: Policy, file: &schema::File) -> Policy {
        for (_, allow) in tables(&file.allow) {
            for (at, Text(host)) in contents(&allow.hosts) {
                policy = self.step(at, "hosts", policy, |policy| policy.allow_host(host));
            }
            for (_, payee) in contents(&allow.payees) {
                policy = policy.allow_payee(*payee);
            }
            for asset in self.assets(&allow.assets) {
                policy = policy.allow_asset(asset.network(), asset.address());
            }
        }
        policy
    }

    fn denied(&self, mut policy: Policy, file: &schema::File) -> Policy {
        for (_, deny) in tables(&file.deny) {
            for (at, Text(host)) in contents(&deny.hosts) {
                policy = self.step(at, "hosts", policy, |policy| policy.deny_host(host));
            }
            for (_, payee) in contents(&deny.payees) {
                policy = policy.deny_payee(*payee);
            }
            for asset in self.assets(&deny.assets) {
                policy = policy.deny_asset(asset.network(), asset.address());
            }
            for (at, Text(name)) in contents(&deny.networks) {
                if let Some(network) = self.network(at, "networks", name) {
                    policy = policy.deny_network(network);
                }
            }
        }
        policy
    }

    fn assets(&self, assets: &[Value<AssetText>]) -> impl Iterator<Item = Asset> {
        contents(assets).filter_map(|(at, AssetText(text))| self.asset(at, "assets", text))
    }

    fn asset(&self, at: usize, key: &str, text: &str) -> Option<Asset> {
        self.mistakes.check(at, key, asset(text, &self.assets))
    }

    fn global(&self, mut policy: Policy, file: &schema::File) -> Policy {
        for (_, scope) in tables(&file.global) {
            self.refuse_match("[global]", scope);
            policy = policy.everywhere(self.rules(scope));
        }
        policy
    }

    /// Limits each scope of a kind on its own.
    fn each(&self, mut policy: Policy, file: &schema::File) -> Policy {
        for (_, each) in tables(&file.each) {
            for (kind, table) in [
                (Kind::Origin, &each.origin),
                (Kind::Domain, &each.domain),
                (Kind::Payee, &each.payee),
                (Kind::Asset, &each.asset),
                (Kind::Network, &each.network),
                (Kind::Tag, &each.tag),
                (Kind::Agent, &each.agent),
            ] {
                for (_, scope) in tables(table) {
                    policy = self.each_of(kind, policy, scope);
                }
            }
        }
        policy
    }

    fn each_of(&self, kind: Kind, policy: Policy, scope: &schema::Scope) -> Policy {
        let title = format!("[each.{}]", kind.name());
        self.refuse_match(&title, scope);
        self.refuse_settings(&title, scope);
        let limits = self.limits(scope);
        match kind {
            Kind::Origin => policy.each_origin(|_| limits),
            Kind::Domain => policy.each_domain(|_| limits),
            Kind::Payee => policy.each_payee(|_| limits),
            Kind::Asset => policy.each_asset(|_| limits),
            Kind::Network => policy.each_network(|_| limits),
            Kind::Tag => policy.each_tag(|_| limits),
            Kind::Agent => policy.each_agent(|_| limits),
            // The schema has no such tables.
            Kind::Host | Kind::Resource => policy,
        }
    }

    /// Limits the scopes that `match` names.
    fn scopes(&mut self, mut policy: Policy, file: &schema::File) -> Policy {
        let kinds = [
            (Kind::Origin, &file.origin),
            (Kind::Host, &file.host),
            (Kind::Resource, &file.resource),
            (Kind::Domain, &file.domain),
            (Kind::Payee, &file.payee),
            (Kind::Asset, &file.asset),
            (Kind::Network, &file.network),
            (Kind::Tag, &file.tag),
            (Kind::Agent, &file.agent),
        ];
        for (kind, scopes) in kinds {
            for (at, scope) in tables(scopes) {
                policy = self.scope(kind, policy, at, scope);
            }
        }
        policy
    }

    fn scope(&mut self, kind: Kind, policy: Policy, at: usize, scope: &schema::Scope) -> Policy {
        let rules = match kind {
            Kind::Origin | Kind::Host => self.rules(scope),
            _ => {
                self.refuse_settings(&kind.title(), scope);
                HostRules::new(self.limits(scope))
            }
        };
        let Some((at, name)) = self.matched(kind, at, scope) else {
            return policy;
        };
        self.step(at, "match", policy, |policy| match kind {
            Kind::Origin => policy.origin_limits(name, |_| rules),
            Kind::Host => policy.host_limits(name, |_| rules),
            Kind::Resource => policy.resource_limits(name, |_| rules.limits),
            Kind::Domain => policy.domain_limits(name, |_| rules.limits),
            Kind::Payee => match self.mistakes.check(at, "match", address(name)) {
                Some(payee) => policy.payee_limits(payee, |_| rules.limits),
                None => policy,
            },
            Kind::Asset => match self.asset(at, "match", name) {
                Some(asset) => policy.asset_limits(&asset, |_| rules.limits),
                None => policy,
            },
            Kind::Network => match self.network(at, "match", name) {
                Some(network) => policy.network_limits(network, |_| rules.limits),
                None => policy,
            },
            Kind::Tag => policy.tag_limits(name, |_| rules.limits),
            Kind::Agent => policy.agent_limits(name, |_| rules.limits),
        })
    }

    /// Returns the place and the value of `match`, unless it is missing or has a table already.
    fn matched<'s>(
        &mut self,
        kind: Kind,
        at: usize,
        scope: &'s schema::Scope,
    ) -> Option<(usize, &'s str)> {
        let title = kind.title();
        let Some(matched) = &scope.matched else {
            self.mistakes
                .add(at, format!("{title} needs a key `match`"));
            return None;
        };
        let Text(name) = matched.content.as_ref()?;
        let table = format!("{title} {}", self.canonical(kind, name));
        if let Some((_, line)) = self.tables.iter().find(|(other, _)| *other == table) {
            let name = excerpt(name);
            self.mistakes.add(
                matched.at,
                format!("`match`: the table of `{name}` is on line {line}; put all limits there"),
            );
            return None;
        }
        self.tables.push((table, self.mistakes.line(at)));
        Some((matched.at, name))
    }

    /// Returns the same text for all spellings of a scope.
    fn canonical(&self, kind: Kind, name: &str) -> String {
        let canonical = match kind {
            Kind::Host | Kind::Domain => {
                let pattern = name.parse::<HostPattern>().ok();
                pattern.map(|pattern| pattern.to_string())
            }
            Kind::Origin => name.parse().ok().map(|origin: Origin| origin.to_string()),
            Kind::Resource => {
                let url = name.parse::<Url>().ok();
                url.and_then(|url| Some(format!("{}{}", Origin::of(&url)?, limited(url.path()))))
            }
            Kind::Payee => parse_address(name).map(|payee| payee.to_string()),
            Kind::Asset => {
                let asset = asset(name, &self.assets).ok();
                asset.map(|asset| format!("{} {}", asset.network(), asset.address()))
            }
            Kind::Network => network(name).ok().map(|network| network.to_string()),
            Kind::Tag | Kind::Agent => None,
        };
        canonical.unwrap_or_else(|| name.to_owned())
    }

    fn refuse_match(&self, title: &str, scope: &schema::Scope) {
        if let Some(matched) = &scope.matched {
            self.mistakes
                .add(matched.at, format!("{title} has no key `match`"));
        }
    }

    fn refuse_settings(&self, title: &str, scope: &schema::Scope) {
        let settings = [
            ("payee", scope.payee.first().map(|payee| payee.at)),
            ("max_validity", place(scope.max_validity.as_ref())),
            ("max_price_rise", place(scope.max_price_rise.as_ref())),
            ("foreign_resource", place(scope.foreign_resource.as_ref())),
            (
                "loop_guard",
                scope.loop_guard.as_ref().map(|table| table.at),
            ),
            (
                "circuit_breaker",
                scope.circuit_breaker.as_ref().map(|table| table.at),
            ),
            ("remember_terms", place(scope.remember_terms.as_ref())),
            (
                "require_signed_offers",
                place(scope.require_signed_offers.as_ref()),
            ),
        ];
        for (key, at) in settings {
            if let Some(at) = at {
                let message = format!(
                    "`{key}` is a setting of [global], [[host]] and [[origin]]; {title} takes limits only"
                );
                self.mistakes.add(at, message);
            }
        }
    }

    fn rules(&self, scope: &schema::Scope) -> HostRules {
        let mut rules = self.payees(HostRules::new(self.limits(scope)), &scope.payee);
        if let Some(validity) = &scope.max_validity
            && let Some(ceiling) = validity.content
        {
            if ceiling < SHORTEST_VALIDITY {
                let error = PolicyError::Validity;
                self.mistakes
                    .add(validity.at, format!("`max_validity`: {error}"));
            }
            rules = rules.max_validity(ceiling);
        }
        if let Some(Percent(percent)) = content(scope.max_price_rise.as_ref()) {
            rules = rules.max_price_rise(*percent);
        }
        rules = match content(scope.foreign_resource.as_ref()) {
            Some(ForeignResource::Record) => rules.record_foreign_resource(),
            Some(ForeignResource::Refuse) => rules.refuse_foreign_resource(),
            None => rules,
        };
        for (_, guard) in tables(&scope.loop_guard) {
            if let (Some(window), Some(max)) = (guard.window.content, guard.max.content) {
                rules = rules.loop_guard(window, max);
            }
        }
        for (_, breaker) in tables(&scope.circuit_breaker) {
            let read = (breaker.window.content, breaker.failures.content);
            if let (Some(window), Some(failures)) = read {
                rules = rules.circuit_breaker(window, failures);
            }
        }
        if let Some(lifetime) = content(scope.remember_terms.as_ref()) {
            rules = rules.remember_terms(*lifetime);
        }
        rules = match content(scope.require_signed_offers.as_ref()) {
            Some(true) => rules.require_signed_offers(),
            Some(false) => rules.accept_unsigned_offers(),
            None => rules,
        };
        rules
    }

    fn payees(&self, rules: HostRules, payees: &[Value<Payee>]) -> HostRules {
        let mut listed = Vec::new();
        for (at, payee) in contents(payees) {
            match payee {
                Payee::Only(payee) => listed.push(*payee),
                Payee::Free if payees.len() == 1 => return rules.payee_free(),
                Payee::Pinned if payees.len() == 1 => return rules.payee_pinned(),
                Payee::Free | Payee::Pinned => self.mistakes.add(
                    at,
                    "`payee`: \"free\" and \"pinned\" cannot be in an array with other payees",
                ),
            }
        }
        if payees.is_empty() {
            rules
        } else {
            rules.payees(listed)
        }
    }

    fn limits(&self, scope: &schema::Scope) -> Limits {
        let mut limits = Limits::default();
        for max in self.amounts("per_payment", &scope.per_payment) {
            limits = limits.per_payment(max);
        }
        for max in self.amounts("per_hour", &scope.per_hour) {
            limits = limits.per_hour(max);
        }
        for max in self.amounts("per_day", &scope.per_day) {
            limits = limits.per_day(max);
        }
        for max in self.amounts("per_month", &scope.per_month) {
            limits = limits.per_month(max);
        }
        for (_, rolling) in tables(&scope.rolling) {
            let max = self.amount("max", &rolling.max);
            if let (Some(window), Some(max)) = (rolling.window.content, max) {
                limits = limits.rolling(window, max);
            }
        }
        for (_, calendar) in tables(&scope.calendar) {
            let max = self.amount("max", &calendar.max);
            let read = (calendar.period.content, &calendar.zone.content, max);
            if let (Some(period), Some(Zone(zone)), Some(max)) = read {
                limits = limits.calendar(period, zone, max);
            }
        }
        for max in self.amounts("lifetime", &scope.lifetime) {
            limits = limits.lifetime(max);
        }
        for max in self.amounts("exposure", &scope.exposure) {
            limits = limits.exposure(max);
        }
        for (_, payments) in tables(&scope.payments) {
            if let (Some(window), Some(max)) = (payments.window.content, payments.max.content) {
                limits = limits.payments(window, max);
            }
        }
        for threshold in self.amounts("ask_above", &scope.ask_above) {
            limits = limits.ask_above(threshold);
        }
        for (_, share) in contents(&scope.warn_at) {
            limits = limits.warn_at(*share);
        }
        limits
    }

    fn amounts<'a>(
        &'a self,
        key: &'a str,
        values: &'a [Value<AmountText>],
    ) -> impl Iterator<Item = Amount> + 'a {
        values
            .iter()
            .filter_map(move |value| self.amount(key, value))
    }

    fn amount(&self, key: &str, value: &Value<AmountText>) -> Option<Amount> {
        let AmountText(text) = value.content.as_ref()?;
        self.mistakes
            .check(value.at, key, amount(text, &self.assets))
    }

    fn permissions(&self, mut policy: Policy, permits: &[Table<schema::Permit>]) -> Policy {
        type Step = fn(Permission, &str) -> Permission;
        for (_, permit) in tables(permits) {
            let keys: [(&str, &[Value<Text>], Step); 5] = [
                ("agent", &permit.agent, |permission, agent| {
                    permission.agent(agent)
                }),
                ("tag", &permit.tag, |permission, tag| permission.tag(tag)),
                ("host", &permit.host, Permission::host),
                ("method", &permit.method, Permission::method),
                ("path", &permit.path, Permission::path),
            ];
            let mut permission = Permission::new();
            for (key, values, step) in keys {
                for (at, Text(text)) in contents(values) {
                    // A permission of this value alone: its error has a place.
                    self.step(at, key, Policy::new(), |policy| {
                        policy.permit(step(Permission::new(), text))
                    });
                    permission = step(permission, text);
                }
            }
            policy = policy.permit(permission);
        }
        policy
    }
}

/// Returns the values that have no mistake, with their places.
pub(super) fn contents<T>(values: &[Value<T>]) -> impl Iterator<Item = (usize, &T)> {
    values
        .iter()
        .filter_map(|value| Some((value.at, value.content.as_ref()?)))
}

/// Returns the tables that have no mistake, with their places.
pub(super) fn tables<'a, T: 'a>(
    tables: impl IntoIterator<Item = &'a Table<T>>,
) -> impl Iterator<Item = (usize, &'a T)> {
    tables
        .into_iter()
        .filter_map(|table| Some((table.at, table.content.as_ref()?)))
}

/// Returns the value of an optional key.
pub(super) fn content<T>(value: Option<&Value<T>>) -> Option<&T> {
    value.and_then(|value| value.content.as_ref())
}

fn place<T>(value: Option<&Value<T>>) -> Option<usize> {
    value.map(|value| value.at)
}

fn is_set(flag: Option<&Value<bool>>) -> bool {
    content(flag) == Some(&true)
}
