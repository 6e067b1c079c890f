//! A policy with all its defaults, as a configuration file or as JSON.

use std::fmt;
use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};

use super::rules::{CIRCUIT_BREAKER, LOOP_GUARD};
use super::schemes::{SCHEMES, TRANSFER_METHODS};
use super::{
    DAY, HOUR, HostSettings, MAX_VALIDITY, MONTH, PayeeRule, Policy, ResourceRule, SignIn, named,
};
use crate::limit::{Amount, LimitKind, Period, Scope, ScopeKind, Selector, Share, ShortDuration};
use crate::money::{Asset, AssetRegistry, Network, format_coins};

/// A policy with all its defaults, written out.
///
/// [`Policy::effective`] returns it. `Display` writes a configuration file that has the same effect, and `Serialize` the
/// same keys and values. API keys and lists of services are no part of a policy, and are not in it.
///
/// ```
/// use bursar::{Policy, usd};
///
/// let policy = Policy::new().allow_network("base").per_day(usd!("2"));
/// let text = policy.effective().to_string();
/// assert!(text.contains("per_payment = \"0.10 USD\""));
/// assert!(text.contains("per_day = \"2.00 USD\""));
/// let again = Policy::from_toml(&text)?;
/// assert_eq!(again.effective().to_string(), text);
/// # Ok::<(), bursar::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EffectivePolicy(Table);

/// The keys of limits, in the order of a file. The text is then the same for policies whose limits were set in another order.
const LIMITS: [&str; 10] = [
    "per_payment",
    "per_hour",
    "per_day",
    "per_month",
    "rolling",
    "calendar",
    "lifetime",
    "exposure",
    "payments",
    "ask_above",
];

type Table = Vec<(&'static str, Value)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    List(Vec<Self>),
    Table(Table),
}

impl Policy {
    /// Returns this policy with all its defaults written out, to show which rules hold.
    ///
    /// `max_price_rise`, `remember_terms` and `warn_at` have no default, and are there only if they are set. A time of
    /// less than a second, and an empty list of payees, can be set in code only: the text shows them, and a file cannot
    /// have them.
    #[must_use]
    pub fn effective(&self) -> EffectivePolicy {
        let assets = self.asset_registry();
        let writer = Writer {
            policy: self,
            assets: &assets,
        };
        EffectivePolicy(writer.file())
    }
}

struct Writer<'a> {
    policy: &'a Policy,
    assets: &'a AssetRegistry,
}

impl Writer<'_> {
    fn file(&self) -> Table {
        let policy = self.policy;
        let mut file = vec![
            ("version", Value::Number(1)),
            ("networks", texts(policy.networks.iter().map(named))),
            ("mix_testnets", Value::Flag(policy.mixed)),
            // They are written out below.
            ("default_limits", Value::Flag(false)),
            ("unlimited", Value::Flag(policy.unlimited)),
            ("approval_timeout", time(policy.approval_time)),
            ("refusal_pause", time(policy.refusal_pause)),
        ];
        let everywhere = self.shares(None);
        file.extend(everywhere.map(|shares| ("warn_at", shares)));
        file.extend([
            ("mcp_methods", texts(policy.mcp_methods.iter().cloned())),
            ("store_queries", Value::Flag(policy.queries_stored)),
            ("refunds_make_room", Value::Flag(policy.refunds_make_room)),
        ]);
        if let Some(path) = &policy.freeze_switch {
            let path = Value::Text(path.display().to_string());
            file.push(("freeze", Value::Table(vec![("file", path)])));
        }
        let mut global = self.limits(&Selector::Only(Scope::Global));
        global.extend(settings(&with_defaults(&policy.everywhere)));
        file.push(("global", Value::Table(global)));
        file.extend(self.scopes());
        file.extend(self.lists());
        file.extend(tables(
            "permit",
            policy.permissions.iter().map(|permission| {
                let keys = permission.keys().into_iter();
                let keys = keys.filter(|(_, values)| !values.is_empty());
                keys.map(|(key, values)| (key, texts(values))).collect()
            }),
        ));
        file.extend(tables("token", policy.assets.iter().map(token)));
        // A file has no empty arrays.
        file.retain(|(_, value)| !matches!(value, Value::List(values) if values.is_empty()));
        file
    }

    /// Returns the limits of a scope.
    fn limits(&self, selector: &Selector) -> Table {
        let mut keys: Vec<(&'static str, Vec<Value>)> = Vec::new();
        let mut add = |key: &'static str, value: Value| match keys
            .iter_mut()
            .find(|(known, _)| *known == key)
        {
            Some((_, values)) => values.push(value),
            None => keys.push((key, vec![value])),
        };
        let limits = self.policy.effective_limits();
        for limit in limits.filter(|limit| limit.scope == *selector) {
            let (key, value) = self.limit(&limit.kind);
            add(key, value);
        }
        let asks = self.policy.asks.iter();
        for (_, threshold) in asks.filter(|(scope, _)| scope == selector) {
            add("ask_above", self.amount(threshold));
        }
        keys.sort_by_key(|(key, _)| LIMITS.iter().position(|known| known == key));
        let mut table: Table = keys
            .into_iter()
            .map(|(key, values)| (key, one_or_list(values)))
            .collect();
        table.extend(
            self.shares(Some(selector))
                .map(|shares| ("warn_at", shares)),
        );
        table
    }

    fn limit(&self, kind: &LimitKind) -> (&'static str, Value) {
        let count = |window: &Duration, max: u32| {
            let max = Value::Number(max.into());
            Value::Table(vec![("window", time(*window)), ("max", max)])
        };
        match kind {
            LimitKind::PerPayment(max) => ("per_payment", self.amount(max)),
            LimitKind::Rolling(HOUR, max) => ("per_hour", self.amount(max)),
            LimitKind::Rolling(DAY, max) => ("per_day", self.amount(max)),
            LimitKind::Rolling(MONTH, max) => ("per_month", self.amount(max)),
            LimitKind::Rolling(window, max) => {
                let table = vec![("window", time(*window)), ("max", self.amount(max))];
                ("rolling", Value::Table(table))
            }
            LimitKind::Calendar(calendar, max) => {
                let period = match calendar.period() {
                    Period::Day => "day",
                    Period::Week => "week",
                    Period::Month => "month",
                    Period::Year => "year",
                };
                let table = vec![
                    ("period", Value::Text(period.to_owned())),
                    ("zone", Value::Text(calendar.zone_name().to_owned())),
                    ("max", self.amount(max)),
                ];
                ("calendar", Value::Table(table))
            }
            LimitKind::Lifetime(max) => ("lifetime", self.amount(max)),
            LimitKind::Exposure(max) => ("exposure", self.amount(max)),
            LimitKind::Payments(window, max) => ("payments", count(window, *max)),
            // These two are settings. No limit of a policy is one of them.
            LimitKind::LoopGuard(window, max) => ("loop_guard", count(window, *max)),
            LimitKind::CircuitBreaker(window, max) => ("circuit_breaker", count(window, *max)),
        }
    }

    fn amount(&self, amount: &Amount) -> Value {
        Value::Text(match amount {
            Amount::Usd(usd) => format!("{usd} USD"),
            Amount::Token(amount) => {
                let (asset, units) = (amount.asset(), amount.units());
                format!("{} {}", asset.format_units(units), self.asset(asset))
            }
        })
    }

    fn asset(&self, asset: &Asset) -> String {
        let network = named(&asset.network());
        match self.assets.find_symbol(asset.network(), asset.symbol()) {
            Some(found) if found == asset => format!("{}@{network}", asset.symbol()),
            _ => format!("{}@{network}", asset.address()),
        }
    }

    fn asset_at(&self, network: Network, address: Address) -> String {
        match self.assets.find(network, address) {
            Some(asset) => self.asset(asset),
            None => format!("{address}@{}", named(&network)),
        }
    }

    fn shares(&self, selector: Option<&Selector>) -> Option<Value> {
        let warnings = self.policy.warnings.iter();
        let shares = warnings.filter(|(scope, _)| scope.as_ref() == selector);
        let mut shares: Vec<Share> = shares.map(|(_, share)| *share).collect();
        shares.sort_unstable();
        shares.dedup();
        let shares: Vec<Value> = shares
            .into_iter()
            .map(|share| Value::Text(share.to_string()))
            .collect();
        (!shares.is_empty()).then(|| one_or_list(shares))
    }

    /// Returns the tables of all scopes but the global one.
    fn scopes(&self) -> Table {
        let policy = self.policy;
        let of_limits = policy.limits.iter().map(|limit| &limit.scope);
        let of_asks = policy.asks.iter().map(|(scope, _)| scope);
        let of_warnings = policy
            .warnings
            .iter()
            .filter_map(|(scope, _)| scope.as_ref());
        let hosts: Vec<Selector> = policy
            .hosts
            .iter()
            .map(|(hosts, _)| Selector::Only(hosts.scope()))
            .collect();
        let mut selectors: Vec<&Selector> = Vec::new();
        for selector in of_limits.chain(of_asks).chain(of_warnings).chain(&hosts) {
            if !selectors.contains(&selector) {
                selectors.push(selector);
            }
        }
        let each: Table = selectors
            .iter()
            .filter_map(|selector| match selector {
                Selector::Each(kind) => Some((each(kind)?, Value::Table(self.limits(selector)))),
                Selector::Only(_) => None,
            })
            .collect();
        let mut scopes = Table::new();
        if !each.is_empty() {
            scopes.push(("each", Value::Table(each)));
        }
        for key in [
            "origin", "host", "resource", "domain", "payee", "asset", "network", "tag", "agent",
        ] {
            let of_key = selectors.iter().filter_map(|selector| {
                let Selector::Only(scope) = selector else {
                    return None;
                };
                let (kind, matched) = self.matched(scope)?;
                (kind == key).then(|| {
                    let mut table = vec![("match", Value::Text(matched))];
                    table.extend(self.limits(selector));
                    table.extend(settings(&self.settings_of(scope)));
                    table
                })
            });
            scopes.extend(tables(key, of_key));
        }
        scopes
    }

    /// Returns the name of a scope's table, and its key `match`.
    fn matched(&self, scope: &Scope) -> Option<(&'static str, String)> {
        Some(match scope {
            Scope::Global | Scope::Request(_) => return None,
            Scope::Origin(origin) => ("origin", origin.to_string()),
            Scope::Resource(origin, path) => ("resource", format!("{origin}{path}")),
            Scope::Host(pattern) => ("host", pattern.to_string()),
            Scope::Domain(domain) => ("domain", domain.clone()),
            Scope::Payee(payee) => ("payee", payee.to_string()),
            Scope::Asset(network, address) => ("asset", self.asset_at(*network, *address)),
            Scope::Network(network) => ("network", named(network)),
            Scope::Tag(tag) => ("tag", tag.clone()),
            Scope::Agent(agent) => ("agent", agent.clone()),
        })
    }

    fn settings_of(&self, scope: &Scope) -> HostSettings {
        let hosts = self.policy.hosts.iter();
        let of_scope = hosts.filter(|(hosts, _)| hosts.scope() == *scope);
        // Of several, the last one applies.
        of_scope.fold(HostSettings::default(), |known, (_, settings)| {
            HostSettings {
                payee: settings.payee.clone().or(known.payee),
                max_validity: settings.max_validity.or(known.max_validity),
                max_price_rise: settings.max_price_rise.or(known.max_price_rise),
                resource: settings.resource.or(known.resource),
                repeats: settings.repeats.or(known.repeats),
                breaker: settings.breaker.or(known.breaker),
                remember_terms: settings.remember_terms.or(known.remember_terms),
                sign_in: settings.sign_in.or(known.sign_in),
                schemes: settings.schemes.clone().or(known.schemes),
                transfer_methods: settings.transfer_methods.clone().or(known.transfer_methods),
                gas_sponsoring: settings.gas_sponsoring.or(known.gas_sponsoring),
                sponsored_transactions: (settings.sponsored_transactions)
                    .or(known.sponsored_transactions),
                signed_offers: settings.signed_offers.or(known.signed_offers),
            }
        })
    }

    fn lists(&self) -> Table {
        let lists = &self.policy.lists;
        let assets = |assets: &[(Network, Address)]| {
            let names = assets
                .iter()
                .map(|(network, asset)| self.asset_at(*network, *asset));
            names.collect::<Vec<_>>()
        };
        let allow = [
            ("hosts", shown(&lists.allowed_hosts)),
            ("payees", shown(&lists.allowed_payees)),
            ("assets", assets(&lists.allowed_assets)),
        ];
        let networks = lists.denied_networks.iter().map(named).collect();
        let deny = [
            ("hosts", shown(&lists.denied_hosts)),
            ("payees", shown(&lists.denied_payees)),
            ("assets", assets(&lists.denied_assets)),
            ("networks", networks),
        ];
        let table = |keys: Vec<(&'static str, Vec<String>)>| -> Table {
            let set = keys.into_iter().filter(|(_, names)| !names.is_empty());
            set.map(|(key, names)| (key, texts(names))).collect()
        };
        let tables = [("allow", table(allow.into())), ("deny", table(deny.into()))];
        let set = tables.into_iter().filter(|(_, table)| !table.is_empty());
        set.map(|(key, table)| (key, Value::Table(table))).collect()
    }
}

/// Returns the settings with their defaults.
fn with_defaults(settings: &HostSettings) -> HostSettings {
    HostSettings {
        payee: settings.payee.clone().or(Some(PayeeRule::Free)),
        max_validity: settings.max_validity.or(Some(MAX_VALIDITY)),
        max_price_rise: settings.max_price_rise,
        resource: settings.resource.or(Some(ResourceRule::Record)),
        repeats: settings.repeats.or(Some(LOOP_GUARD)),
        breaker: settings.breaker.or(Some(CIRCUIT_BREAKER)),
        remember_terms: settings.remember_terms,
        sign_in: settings.sign_in.or(Some(SignIn::Never)),
        schemes: settings.schemes.clone().or(Some(SCHEMES.to_vec())),
        transfer_methods: (settings.transfer_methods.clone()).or(Some(TRANSFER_METHODS.to_vec())),
        gas_sponsoring: settings.gas_sponsoring,
        sponsored_transactions: settings.sponsored_transactions,
        signed_offers: settings.signed_offers.or(Some(false)),
    }
}

fn settings(settings: &HostSettings) -> Table {
    let text = |text: &str| Value::Text(text.to_owned());
    let payee = settings.payee.as_ref().map(|payee| match payee {
        PayeeRule::Free => text("free"),
        PayeeRule::Pinned => text("pinned"),
        PayeeRule::Listed(payees) => texts(payees.iter().map(ToString::to_string)),
    });
    let resource = settings.resource.map(|resource| match resource {
        ResourceRule::Record => text("record"),
        ResourceRule::Refuse => text("refuse"),
    });
    let count = |key, (window, count): (Duration, u32)| {
        Value::Table(vec![
            ("window", time(window)),
            (key, Value::Number(count.into())),
        ])
    };
    let rise = settings.max_price_rise;
    let keys = [
        ("payee", payee),
        ("max_validity", settings.max_validity.map(time)),
        (
            "max_price_rise",
            rise.map(|percent| Value::Text(format!("{percent}%"))),
        ),
        ("foreign_resource", resource),
        (
            "loop_guard",
            settings.repeats.map(|guard| count("max", guard)),
        ),
        (
            "circuit_breaker",
            settings.breaker.map(|breaker| count("failures", breaker)),
        ),
        ("remember_terms", settings.remember_terms.map(time)),
        (
            "sign_in",
            settings.sign_in.map(|sign_in| text(sign_in.name())),
        ),
        (
            "schemes",
            settings.schemes.as_ref().map(|schemes| shown_list(schemes)),
        ),
        (
            "transfer_methods",
            settings
                .transfer_methods
                .as_ref()
                .map(|methods| shown_list(methods)),
        ),
        ("gas_sponsoring", settings.gas_sponsoring.map(Value::Flag)),
        (
            "sponsored_transactions",
            (settings.sponsored_transactions).map(|wei| Value::Text(format_coins(wei))),
        ),
        (
            "require_signed_offers",
            settings.signed_offers.map(Value::Flag),
        ),
    ];
    let set = keys
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)));
    set.collect()
}

fn token(asset: &Asset) -> Table {
    let text = |text: &str| Value::Text(text.to_owned());
    let mut table = vec![
        ("network", Value::Text(named(&asset.network()))),
        ("address", Value::Text(asset.address().to_string())),
        ("symbol", text(asset.symbol())),
        ("decimals", Value::Number(asset.decimals().into())),
        ("name", text(asset.eip712_name())),
        ("version", text(asset.eip712_version())),
    ];
    if asset.dollars(U256::ZERO).is_some() {
        table.push(("peg", text("USD")));
    }
    table
}

const fn each(kind: &ScopeKind) -> Option<&'static str> {
    match kind {
        ScopeKind::Origin => Some("origin"),
        ScopeKind::Domain => Some("domain"),
        ScopeKind::Payee => Some("payee"),
        ScopeKind::Asset => Some("asset"),
        ScopeKind::Network => Some("network"),
        ScopeKind::Tag => Some("tag"),
        ScopeKind::Agent => Some("agent"),
        // No policy has a limit for each of these.
        ScopeKind::Global | ScopeKind::Resource(..) | ScopeKind::Host(_) | ScopeKind::Request => {
            None
        }
    }
}

fn time(time: Duration) -> Value {
    Value::Text(ShortDuration(time).to_string())
}

fn shown<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn shown_list<T: ToString>(values: &[T]) -> Value {
    texts(shown(values))
}

fn texts(texts: impl IntoIterator<Item = String>) -> Value {
    Value::List(texts.into_iter().map(Value::Text).collect())
}

fn one_or_list(mut values: Vec<Value>) -> Value {
    match values.pop() {
        Some(only) if values.is_empty() => only,
        Some(last) => {
            values.push(last);
            Value::List(values)
        }
        None => Value::List(values),
    }
}

/// Returns the key of a list of tables, unless the list is empty.
fn tables(key: &'static str, tables: impl Iterator<Item = Table>) -> Option<(&'static str, Value)> {
    let tables: Vec<Value> = tables.map(Value::Table).collect();
    (!tables.is_empty()).then_some((key, Value::List(tables)))
}

/// Writes a value on one line, as TOML.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // TOML has the escapes of JSON, and wants one more.
            Self::Text(text) => {
                let quoted = serde_json::to_string(text).map_err(|_| fmt::Error)?;
                f.write_str(&quoted.replace('\u{7f}', "\\u007f"))
            }
            Self::Flag(flag) => flag.fmt(f),
            Self::Number(number) => number.fmt(f),
            Self::List(values) => {
                let values: Vec<String> = values.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", values.join(", "))
            }
            Self::Table(table) => {
                let keys = table.iter().map(|(key, value)| format!("{key} = {value}"));
                let keys: Vec<String> = keys.collect();
                write!(f, "{{ {} }}", keys.join(", "))
            }
        }
    }
}

/// Writes a configuration file.
impl fmt::Display for EffectivePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, title: &str, table: &Table| {
            writeln!(f, "\n{title}")?;
            table
                .iter()
                .try_for_each(|(key, value)| writeln!(f, "{key} = {value}"))
        };
        let is_table = |value: &Value| match value {
            Value::Table(_) => true,
            Value::List(values) => values.iter().any(|value| matches!(value, Value::Table(_))),
            _ => false,
        };
        for (key, value) in self.0.iter().filter(|(_, value)| !is_table(value)) {
            writeln!(f, "{key} = {value}")?;
        }
        for (key, value) in self.0.iter().filter(|(_, value)| is_table(value)) {
            match value {
                Value::Table(table) if *key == "each" => {
                    for (kind, value) in table {
                        if let Value::Table(limits) = value {
                            write(f, &format!("[each.{kind}]"), limits)?;
                        }
                    }
                }
                Value::Table(table) => write(f, &format!("[{key}]"), table)?,
                Value::List(values) => {
                    for value in values {
                        if let Value::Table(table) = value {
                            write(f, &format!("[[{key}]]"), table)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Flag(flag) => serializer.serialize_bool(*flag),
            Self::Number(number) => serializer.serialize_u64(*number),
            Self::List(values) => {
                let mut list = serializer.serialize_seq(Some(values.len()))?;
                values
                    .iter()
                    .try_for_each(|value| list.serialize_element(value))?;
                list.end()
            }
            Self::Table(table) => serialize_table(table, serializer),
        }
    }
}

fn serialize_table<S: Serializer>(table: &Table, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(table.len()))?;
    table
        .iter()
        .try_for_each(|(key, value)| map.serialize_entry(key, value))?;
    map.end()
}

impl Serialize for EffectivePolicy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_table(&self.0, serializer)
    }
}
