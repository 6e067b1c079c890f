//! Policies as TOML files.
//!
//! The file is read key by key into the same values that the builder takes. Every value knows where
//! it stands, so that every mistake, of grammar or of meaning, is told with its line.

use std::fmt::Display;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use alloy::primitives::Address;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod credentials;
mod discovery;

use super::builder::{HostRules, Limits};
use super::{
    HostMatch, HostSettings, PayeeRule, Permission, Policy, PolicyError, ResourceRule,
    SHORTEST_VALIDITY, domain, resource as one_resource,
};
use crate::credential::Credentials;
use crate::discovery::Sources;
use crate::limit::{Amount, Calendar, LimitKind, Period, Scope, ScopeKind, Selector};
use crate::money::{Asset, AssetRegistry, TokenAmount, parse_address};
use crate::{Network, ParseNetworkError, Usd, text};

/// The version of the file's format.
const VERSION: &str = "1";

impl Policy {
    /// Reads a policy from TOML.
    ///
    /// A file can say all that the builder can, and what it says may be built upon in code. An
    /// unknown key is an error. Amounts are texts in dollars (`"0.10 USD"`, `"$0.10"`) or in units
    /// of a token (`"2.5 EURC@base"`), times are texts such as `"90s"`, `"5m"`, `"24h"` or `"7d"`.
    /// Wherever a limit, a host or an address may stand, a list of them may stand too.
    ///
    /// ```
    /// use bursar::Policy;
    ///
    /// let policy = Policy::from_toml(r#"
    ///     version = 1
    ///     networks = ["base"]
    ///
    ///     [global]
    ///     per_payment = "0.05 USD"
    ///     rolling = [{ window = "1h", max = "1 USD" }, { window = "24h", max = "5 USD" }]
    ///
    ///     [[host]]
    ///     match = "*.example.com"
    ///     calendar = { period = "month", zone = "Europe/Berlin", max = "50 USD" }
    ///     payee = "pinned"
    /// "#)?;
    /// policy.check()?;
    ///
    /// let mistake = Policy::from_toml("version = 1\n[global]\nper_payment = 0.05").unwrap_err();
    /// assert!(mistake.to_string().starts_with("line 3, column 15: `per_payment` is a number;"));
    /// # Ok::<(), bursar::PolicyError>(())
    /// ```
    ///
    /// Every key, as `examples/policy.toml` shows them:
    ///
    /// ```toml
    #[doc = include_str!("../../examples/policy.toml")]
    /// ```
    ///
    /// # Errors
    /// [`PolicyError::File`], with the line, when the text is not TOML, has a key that is not
    /// known, or says something that makes no sense. A file that names no network is read; the
    /// client that is to be built with it asks for one.
    pub fn from_toml(text: &str) -> Result<Self, PolicyError> {
        document(text)
            .map(|file| file.policy)
            .map_err(|fault| fault.locate(text))
    }

    /// Reads a policy from a TOML file; see [`from_toml`](Self::from_toml).
    ///
    /// # Errors
    /// When the file cannot be read, or says what [`from_toml`](Self::from_toml) refuses.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, PolicyError> {
        read_file(path.as_ref(), Self::from_toml)
    }
}

fn read_file<T>(
    path: &Path,
    read: impl FnOnce(&str) -> Result<T, PolicyError>,
) -> Result<T, PolicyError> {
    let text = std::fs::read_to_string(path).map_err(|error| PolicyError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    read(&text).map_err(|error| match error {
        PolicyError::File {
            line,
            column,
            message,
            ..
        } => PolicyError::File {
            path: Some(path.to_owned()),
            line,
            column,
            message,
        },
        other => other,
    })
}

/// A mistake, and the byte where it stands.
struct Fault {
    at: usize,
    message: String,
}

impl Fault {
    fn locate(self, text: &str) -> PolicyError {
        let before = text.get(..self.at).unwrap_or(text);
        let line_start = before
            .rfind('\n')
            .map_or(0, |newline| newline.saturating_add(1));
        let line = before.matches('\n').count().saturating_add(1);
        let column = before
            .get(line_start..)
            .map_or(0, |front| front.chars().count())
            .saturating_add(1);
        PolicyError::File {
            path: None,
            line,
            column,
            message: self.message,
        }
    }
}

type Read<T> = Result<T, Fault>;

/// The policy, and what is kept beside it.
struct Document {
    policy: Policy,
    keys: Credentials,
    sources: Sources,
}

fn document(text: &str) -> Read<Document> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Fault {
            at,
            message: error.message().to_owned(),
        }
    })?;
    let mut root = Section::new(
        "the file".to_owned(),
        document.span(),
        document.into_inner(),
    );
    let version = root.need("version")?;
    if !matches!(&version.value, DeValue::Integer(number) if number.as_str() == VERSION) {
        return Err(version.fault(format!(
            "`version` must be {VERSION}, the only one that this bursar knows"
        )));
    }
    let policy = general(Policy::new(), &mut root)?;
    let policy = networks(policy, &mut root)?;
    let policy = tokens(policy, &mut root)?;
    let assets = policy.asset_registry();
    let policy = lists(policy, &mut root, &assets)?;
    let policy = scopes(policy, &mut root, &assets)?;
    let policy = permissions(policy, &mut root)?;
    let keys = credentials::credentials(&mut root)?;
    let sources = discovery::sources(&mut root)?;
    root.finish()?;
    Ok(Document {
        policy,
        keys,
        sources,
    })
}

fn general(mut policy: Policy, root: &mut Section<'_>) -> Read<Policy> {
    if let Some(item) = root.take("defaults") {
        policy.defaults = item.flag()?;
    }
    if let Some(item) = root.take("store_queries") {
        policy.queries_stored = item.flag()?;
    }
    if let Some(item) = root.take("approval_timeout") {
        policy.approval_time = item.duration()?;
    }
    if let Some(item) = root.take("refunds_make_room") {
        policy.refunds_make_room = item.flag()?;
    }
    if let Some(item) = root.take("freeze_switch") {
        let mut table = item.section("[freeze_switch]")?;
        policy.freeze_switch = Some(table.need("file")?.text()?.into());
        table.finish()?;
    }
    Ok(policy)
}

fn networks(mut policy: Policy, root: &mut Section<'_>) -> Read<Policy> {
    if let Some(item) = root.take("mix_testnets") {
        policy.mixed = item.flag()?;
    }
    for item in root.each("networks")? {
        let at = item.span.start;
        policy.networks.push(item.network()?);
        if let Some(error) = policy.mixture() {
            return Err(Fault {
                at,
                message: error.to_string(),
            });
        }
    }
    Ok(policy)
}

/// The file's own tokens, beside those of the registry.
fn tokens(mut policy: Policy, root: &mut Section<'_>) -> Read<Policy> {
    for item in root.each("token")? {
        let mut table = item.section("[[token]]")?;
        let network = table.need("network")?.network()?;
        let address = table.need("address")?.address()?;
        let symbol = table.need("symbol")?.text()?;
        let decimals = table.need("decimals")?.number("a whole number such as 6")?;
        let name = table.need("name")?.text()?;
        let version = table.need("version")?.text()?;
        let asset = Asset::new(network, address, symbol, decimals, name, version);
        let pegged = table
            .take("peg")
            .map(|item| item.choice(&[("USD", ())]))
            .transpose()?;
        policy = policy.register_asset(if pegged.is_some() {
            asset.pegged_to_dollar()
        } else {
            asset
        });
        table.finish()?;
    }
    Ok(policy)
}

fn lists(mut policy: Policy, root: &mut Section<'_>, assets: &AssetRegistry) -> Read<Policy> {
    let mut allow = root.table("allow", "[allow]")?;
    let mut deny = root.table("deny", "[deny]")?;
    let lists = &mut policy.lists;
    for (table, hosts, payees, tokens) in [
        (
            &mut allow,
            &mut lists.allowed_hosts,
            &mut lists.allowed_payees,
            &mut lists.allowed_assets,
        ),
        (
            &mut deny,
            &mut lists.denied_hosts,
            &mut lists.denied_payees,
            &mut lists.denied_assets,
        ),
    ] {
        *hosts = table
            .each("hosts")?
            .into_iter()
            .map(Item::parse)
            .collect::<Read<_>>()?;
        *payees = table
            .each("payees")?
            .into_iter()
            .map(Item::address)
            .collect::<Read<_>>()?;
        for item in table.each("assets")? {
            let asset = item.asset(assets)?;
            tokens.push((asset.network(), asset.address()));
        }
    }
    lists.denied_networks = deny
        .each("networks")?
        .into_iter()
        .map(Item::network)
        .collect::<Read<_>>()?;
    allow.finish()?;
    deny.finish()?;
    Ok(policy)
}

fn permissions(mut policy: Policy, root: &mut Section<'_>) -> Read<Policy> {
    for item in root.each("permit")? {
        let mut table = item.section("[[permit]]")?;
        let mut permission = Permission::new();
        for (key, with) in PERMISSION {
            for item in table.each(key)? {
                let (at, text) = (item.span.start, item.text()?);
                permission = with(permission, &text);
                if let Some(error) = permission.mistakes().first() {
                    return Err(Fault {
                        at,
                        message: error.to_string(),
                    });
                }
            }
        }
        table.finish()?;
        policy = policy.permit(permission);
    }
    Ok(policy)
}

type With = fn(Permission, &str) -> Permission;

/// The keys of `[[permit]]`, each for one value or a list.
const PERMISSION: [(&str, With); 5] = [
    ("agent", |permission, agent| permission.agent(agent)),
    ("tag", |permission, tag| permission.tag(tag)),
    ("host", Permission::host),
    ("method", Permission::method),
    ("path", Permission::path),
];

fn scopes(mut policy: Policy, root: &mut Section<'_>, assets: &AssetRegistry) -> Read<Policy> {
    let mut global = root.table("global", "[global]")?;
    policy.everywhere = settings(&mut global)?;
    policy = policy.scope(&Selector::Only(Scope::Global), limits(&mut global, assets)?);
    global.finish()?;

    let mut each = root.table("each", "[each]")?;
    for (key, title, selector) in EACH {
        let mut table = each.table(key, title)?;
        policy = policy.scope(&selector, limits(&mut table, assets)?);
        table.finish()?;
    }
    each.finish()?;

    let mut seen = Seen::default();
    for (key, title, read) in MATCHES {
        for item in root.each(key)? {
            let mut table = item.section(title)?;
            let name = table.need("match")?;
            let at = name.span.start;
            let matched = read(name, assets)?;
            let limits = limits(&mut table, assets)?;
            policy = match matched {
                Match::Hosts(hosts) => {
                    seen.first(hosts.scope(), at)?;
                    policy.host_rules(
                        hosts,
                        HostRules {
                            limits,
                            settings: settings(&mut table)?,
                        },
                    )
                }
                Match::Scope(scope) => {
                    seen.first(scope.clone(), at)?;
                    policy.scope(&Selector::Only(scope), limits)
                }
            };
            table.finish()?;
        }
    }
    Ok(policy)
}

const EACH: [(&str, &str, Selector); 7] = [
    ("origin", "[each.origin]", Selector::Each(ScopeKind::Origin)),
    ("domain", "[each.domain]", Selector::Each(ScopeKind::Domain)),
    ("payee", "[each.payee]", Selector::Each(ScopeKind::Payee)),
    ("asset", "[each.asset]", Selector::Each(ScopeKind::Asset)),
    (
        "network",
        "[each.network]",
        Selector::Each(ScopeKind::Network),
    ),
    ("tag", "[each.tag]", Selector::Each(ScopeKind::Tag)),
    ("agent", "[each.agent]", Selector::Each(ScopeKind::Agent)),
];

/// What `match` of a table names: hosts, which also have settings, or another scope.
enum Match {
    Hosts(HostMatch),
    Scope(Scope),
}

type ReadMatch = fn(Item<'_>, &AssetRegistry) -> Read<Match>;

const MATCHES: [(&str, &str, ReadMatch); 9] = [
    ("origin", "[[origin]]", |item, _| {
        item.parse().map(HostMatch::Origin).map(Match::Hosts)
    }),
    ("host", "[[host]]", |item, _| {
        item.parse().map(HostMatch::Host).map(Match::Hosts)
    }),
    ("resource", "[[resource]]", |item, _| {
        item.read(RESOURCE, one_resource).map(Match::Scope)
    }),
    ("domain", "[[domain]]", |item, _| {
        item.read(DOMAIN, domain)
            .map(Scope::Domain)
            .map(Match::Scope)
    }),
    ("payee", "[[payee]]", |item, _| {
        item.address().map(Scope::Payee).map(Match::Scope)
    }),
    ("asset", "[[asset]]", |item, assets| {
        item.asset(assets)
            .map(|asset| Match::Scope(Scope::of_asset(&asset)))
    }),
    ("network", "[[network]]", |item, _| {
        item.network().map(Scope::Network).map(Match::Scope)
    }),
    ("tag", "[[tag]]", |item, _| {
        item.text().map(Scope::Tag).map(Match::Scope)
    }),
    ("agent", "[[agent]]", |item, _| {
        item.text().map(Scope::Agent).map(Match::Scope)
    }),
];

/// The scopes that have had their table.
#[derive(Default)]
struct Seen(Vec<Scope>);

impl Seen {
    fn first(&mut self, scope: Scope, at: usize) -> Read<()> {
        if self.0.contains(&scope) {
            return Err(Fault {
                at,
                message: format!("there is a table for {scope} already; write all of it into one"),
            });
        }
        self.0.push(scope);
        Ok(())
    }
}

/// The limits of a table: each key takes one limit or a list.
fn limits(table: &mut Section<'_>, assets: &AssetRegistry) -> Read<Limits> {
    let mut limits = Limits::default();
    for item in table.each("per_payment")? {
        limits = limits.per_payment(item.amount(assets)?);
    }
    for item in table.each("rolling")? {
        let mut limit = item.section("`rolling`")?;
        limits = limits.rolling(
            limit.need("window")?.duration()?,
            limit.need("max")?.amount(assets)?,
        );
        limit.finish()?;
    }
    for item in table.each("calendar")? {
        let mut limit = item.section("`calendar`")?;
        let period = limit.need("period")?.choice(&PERIODS)?;
        let calendar = limit
            .need("zone")?
            .read(ZONE, |zone| Calendar::new(period, zone))?;
        limits = limits.limit(Ok(LimitKind::Calendar(
            calendar,
            limit.need("max")?.amount(assets)?,
        )));
        limit.finish()?;
    }
    for item in table.each("lifetime")? {
        limits = limits.lifetime(item.amount(assets)?);
    }
    for item in table.each("exposure")? {
        limits = limits.exposure(item.amount(assets)?);
    }
    for item in table.each("payments")? {
        let (window, max) = item.count("`payments`", "max")?;
        limits = limits.payments(window, max);
    }
    for item in table.each("ask_above")? {
        limits = limits.ask_above(item.amount(assets)?);
    }
    Ok(limits)
}

fn settings(table: &mut Section<'_>) -> Read<HostSettings> {
    let payee = table.take("payee").map(Item::payees).transpose()?;
    let max_validity = table.take("max_validity").map(|item| {
        let at = item.span.start;
        let validity = item.duration()?;
        let long_enough = validity >= SHORTEST_VALIDITY;
        long_enough.then_some(validity).ok_or_else(|| Fault {
            at,
            message: PolicyError::Validity.to_string(),
        })
    });
    let max_price_rise = table
        .take("max_price_rise")
        .map(|item| item.read(PERCENT, percent));
    let resource = table
        .take("foreign_resource")
        .map(|item| item.choice(&RESOURCES));
    Ok(HostSettings {
        payee,
        max_validity: max_validity.transpose()?,
        max_price_rise: max_price_rise.transpose()?,
        resource: resource.transpose()?,
        repeats: table
            .take("repeats")
            .map(|item| item.count("`repeats`", "max"))
            .transpose()?,
        remember_terms: table
            .take("remember_terms")
            .map(Item::duration)
            .transpose()?,
        breaker: table
            .take("breaker")
            .map(|item| item.count("`breaker`", "failures"))
            .transpose()?,
    })
}

const AMOUNT: &str = "a text such as \"0.10 USD\" or \"2.5 EURC@base\"";
const TIME: &str = "a text such as \"90s\", \"5m\", \"24h\" or \"7d\"";
const ZONE: &str = "a text such as \"Europe/Berlin\" or \"UTC\"";
const PERCENT: &str = "a text such as \"20%\"";
const TEXT: &str = "a text";
const RESOURCE: &str = "a text such as \"https://api.example.com/report\"";
const DOMAIN: &str = "a text such as \"example.com\"";
const ADDRESS: &str = "an address such as \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"";
const ASSET: &str = "a token such as \"USDC@base\" or \"0x…@base\"";
const PERIODS: [(&str, Period); 4] = [
    ("day", Period::Day),
    ("week", Period::Week),
    ("month", Period::Month),
    ("year", Period::Year),
];
const RESOURCES: [(&str, ResourceRule); 2] = [
    ("record", ResourceRule::Record),
    ("refuse", ResourceRule::Refuse),
];

/// A table of the file, emptied key by key: what is left in the end is not known.
struct Section<'f> {
    /// As the file writes it.
    title: String,
    span: Range<usize>,
    left: DeTable<'f>,
    known: Vec<&'static str>,
}

impl<'f> Section<'f> {
    const fn new(title: String, span: Range<usize>, left: DeTable<'f>) -> Self {
        Self {
            title,
            span,
            left,
            known: Vec::new(),
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Item<'f>> {
        self.known.push(key);
        let value = self.left.remove(key)?;
        Some(Item {
            key,
            span: value.span(),
            value: value.into_inner(),
        })
    }

    fn need(&mut self, key: &'static str) -> Read<Item<'f>> {
        self.take(key).ok_or_else(|| Fault {
            at: self.span.start,
            message: format!("{} needs a key `{key}`", self.title),
        })
    }

    /// The values of a key that takes one or a list.
    fn each(&mut self, key: &'static str) -> Read<Vec<Item<'f>>> {
        self.take(key).map_or_else(|| Ok(Vec::new()), Item::each)
    }

    /// A table that may be missing, which is an empty one.
    fn table(&mut self, key: &'static str, title: &str) -> Read<Self> {
        match self.take(key) {
            Some(item) => item.section(title),
            None => Ok(Self::new(
                title.to_owned(),
                self.span.clone(),
                DeTable::new(),
            )),
        }
    }

    fn finish(self) -> Read<()> {
        let Some(unknown) = self.left.keys().min_by_key(|key| key.span().start) else {
            return Ok(());
        };
        let known: Vec<String> = self.known.iter().map(|key| format!("`{key}`")).collect();
        let name = text::excerpt(unknown.get_ref());
        let message = format!(
            "unknown key `{name}` in {}; known are {}",
            self.title,
            known.join(", ")
        );
        Err(Fault {
            at: unknown.span().start,
            message,
        })
    }
}

/// A value of the file.
struct Item<'f> {
    key: &'static str,
    span: Range<usize>,
    value: DeValue<'f>,
}

impl<'f> Item<'f> {
    const fn fault(&self, message: String) -> Fault {
        Fault {
            at: self.span.start,
            message,
        }
    }

    fn expected(&self, what: &str) -> Fault {
        let found = match &self.value {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.fault(format!("`{}` is {found}; write {what}", self.key))
    }

    fn each(self) -> Read<Vec<Self>> {
        match self.value {
            DeValue::Array(items) if items.is_empty() => Err(Fault {
                at: self.span.start,
                message: format!(
                    "`{}` is an empty list, which says nothing: leave the key out",
                    self.key
                ),
            }),
            DeValue::Array(items) => Ok(items
                .into_iter()
                .map(|item: Spanned<_>| Item {
                    key: self.key,
                    span: item.span(),
                    value: item.into_inner(),
                })
                .collect()),
            value => Ok(vec![Item { value, ..self }]),
        }
    }

    fn section(self, title: &str) -> Read<Section<'f>> {
        match self.value {
            DeValue::Table(table) => Ok(Section::new(title.to_owned(), self.span, table)),
            _ => Err(self.expected("a table")),
        }
    }

    /// A number of payments in a window.
    fn count(self, title: &str, key: &'static str) -> Read<(Duration, u32)> {
        let mut table = self.section(title)?;
        let window = table.need("window")?.duration()?;
        let count = table.need(key)?.number("a number of payments such as 60")?;
        table.finish()?;
        Ok((window, count))
    }

    fn flag(self) -> Read<bool> {
        self.value
            .as_bool()
            .ok_or_else(|| self.expected("true or false"))
    }

    fn number<T: FromStr>(self, what: &str) -> Read<T> {
        let number = self
            .value
            .as_integer()
            .filter(|number| number.radix() == 10);
        number
            .and_then(|number| number.as_str().parse().ok())
            .ok_or_else(|| self.fault(format!("`{}` must be {what}", self.key)))
    }

    /// A text that `parse` understands.
    fn read<T, E: Display>(self, what: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Read<T> {
        let text = self.value.as_str().ok_or_else(|| self.expected(what))?;
        parse(text).map_err(|error| self.fault(format!("`{}`: {error}", self.key)))
    }

    fn parse<T: FromStr<Err: Display>>(self) -> Read<T> {
        self.read(TEXT, str::parse)
    }

    fn text(self) -> Read<String> {
        self.read(TEXT, |text| {
            if text.is_empty() {
                Err("the text is empty")
            } else {
                Ok(text.to_owned())
            }
        })
    }

    fn choice<T: Copy>(self, choices: &[(&str, T)]) -> Read<T> {
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("\"{name}\""))
            .collect();
        let names = names.join(" or ");
        let chosen = self
            .value
            .as_str()
            .map(|text| choices.iter().find(|(name, _)| *name == text));
        let (_, value) = chosen
            .flatten()
            .ok_or_else(|| self.fault(format!("`{}` must be {names}", self.key)))?;
        Ok(*value)
    }

    fn network(self) -> Read<Network> {
        self.parse()
    }

    fn address(self) -> Read<Address> {
        self.read(ADDRESS, |text| {
            parse_address(text).ok_or_else(|| {
                format!(
                    "`{}` is not an address, or its checksum is wrong",
                    text::excerpt(text)
                )
            })
        })
    }

    fn asset(self, assets: &AssetRegistry) -> Read<Asset> {
        self.read(ASSET, |text| asset(text, assets))
    }

    fn amount(self, assets: &AssetRegistry) -> Read<Amount> {
        self.read(AMOUNT, |text| amount(text, assets))
    }

    fn duration(self) -> Read<Duration> {
        self.read(TIME, duration)
    }

    fn payees(self) -> Read<PayeeRule> {
        match self.value.as_str() {
            Some("free") => Ok(PayeeRule::Free),
            Some("pinned") => Ok(PayeeRule::Pinned),
            Some(text) if !text.starts_with("0x") => Err(self
                .fault("`payee` must be \"free\", \"pinned\" or a list of addresses".to_owned())),
            _ => self
                .each()?
                .into_iter()
                .map(Item::address)
                .collect::<Read<_>>()
                .map(PayeeRule::Listed),
        }
    }
}

/// `USDC@base` or `0x…@base`.
fn asset(text: &str, assets: &AssetRegistry) -> Result<Asset, String> {
    let shown = text::excerpt(text);
    let Some((token, network)) = text.rsplit_once('@') else {
        return Err(format!(
            "`{shown}` is not a token; expected a form like `USDC@base` or `0x…@base`"
        ));
    };
    let network: Network = network
        .parse()
        .map_err(|error: ParseNetworkError| error.to_string())?;
    let found = match parse_address(token) {
        Some(address) => assets.find(network, address),
        None => assets.find_symbol(network, token),
    };
    found.cloned().ok_or_else(|| {
        format!("`{shown}` is not one token of the registry; to add it, write a [[token]] table")
    })
}

/// `0.10 USD`, `$0.10` or `2.5 EURC@base`.
fn amount(text: &str, assets: &AssetRegistry) -> Result<Amount, String> {
    let shown = text::excerpt(text);
    if text.starts_with('$') || text.ends_with(" USD") {
        return text
            .parse::<Usd>()
            .map(Amount::Usd)
            .map_err(|error| format!("`{shown}` is {error}"));
    }
    let Some((decimal, token)) = text.split_once(' ') else {
        return Err(format!(
            "`{shown}` does not say of what; write it like `0.10 USD` or `2.5 EURC@base`"
        ));
    };
    let asset = asset(token, assets)?;
    let decimals = asset.decimals();
    let amount = TokenAmount::parse(decimal, asset);
    amount
        .map(Amount::Token)
        .ok_or_else(|| format!("`{shown}` is not an amount of a token with {decimals} decimals"))
}

/// `90s`, `5m`, `24h` or `7d`: whole, and longer than zero.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [('s', 1_u64), ('m', 60), ('h', 3600), ('d', 86_400)];
    let read = |(unit, seconds): (char, u64)| {
        let count: u64 = text
            .strip_suffix(unit)
            .filter(|count| is_digits(count))?
            .parse()
            .ok()?;
        count
            .checked_mul(seconds)
            .filter(|seconds| *seconds > 0)
            .map(Duration::from_secs)
    };
    let malformed = || {
        format!(
            "`{}` is not a length of time; expected a form like `90s`, `5m`, `24h` or `7d`",
            text::excerpt(text)
        )
    };
    units.into_iter().find_map(read).ok_or_else(malformed)
}

/// `20%`.
fn percent(text: &str) -> Result<u32, String> {
    let malformed = || {
        format!(
            "`{}` is not a percentage; expected a form like `20%`",
            text::excerpt(text)
        )
    };
    text.strip_suffix('%')
        .filter(|count| is_digits(count))
        .and_then(|count| count.parse().ok())
        .ok_or_else(malformed)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}
