//! What may be bought: limits, rules, approvals.

pub mod approval;
mod builder;
mod explain;
mod permission;
mod price_check;
mod rules;

use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::primitives::Address;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use crate::limit::{Limit, LimitKind, Selector};
use crate::money::{Asset, AssetRegistry};
use crate::money::{Network, ParseNetworkError};
pub(crate) use crate::origin::HostMatch;
use crate::origin::{HostPattern, Origin, ParseHostError, ParseHostMatchError, ParseOriginError};

pub use crate::limit::{Amount, Denial, LimitCheck, LimitStatus, Period, Quantity, Rule, Scope};
pub(crate) use approval::AnyApprover;
pub use approval::{
    ApprovalRequest, Approver, ApproverFn, ChannelApprover, PendingApproval, TerminalApprover,
    Untrusted, Verdict, approve_fn,
};
pub use builder::{HostRules, Limits};
pub use explain::{Answer, AskingPrice, Explanation};
pub use permission::Permission;
pub use price_check::{PriceCheck, PriceOutcome, PricedOffer};
pub(crate) use rules::Facts;

/// The longest that an authorization is valid unless the policy says otherwise.
const MAX_VALIDITY: Duration = Duration::from_secs(300);
/// The shortest validity that official facilitators settle.
pub(crate) const SHORTEST_VALIDITY: Duration = Duration::from_secs(6);
/// How long an approver may take unless the policy says otherwise.
const APPROVAL_TIME: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
/// Thirty days: a rolling window has a fixed length.
const MONTH: Duration = Duration::from_secs(30 * 86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// What a client may buy: built in code or read from a file, fixed once the client is built.
///
/// Every limit is checked for every payment; a limit on a host does not replace the one on
/// everything. Limits that are not set stand at safe defaults: $0.10 a payment, $5 over a rolling
/// day, $1 of unresolved payments, 60 payments a minute, the same request 30 times a minute, and no
/// more to an origin that took 3 payments within 10 minutes and did not deliver. Setting a limit of the same kind on
/// everything, in dollars, replaces its default; [`without_default_limits`](Self::without_default_limits) drops
/// all of them.
/// No network may be paid on until it is named.
///
/// ```
/// use bursar::{Policy, usd};
///
/// let policy = Policy::new()
///     .allow_network("base")
///     .per_payment(usd!("0.05"))
///     .per_day(usd!("5"))
///     .host_limits("api.example.com", |host| host.per_day(usd!("1")))
///     .tag_limits("research", |tag| tag.lifetime(usd!("20")));
/// policy.check()?;
/// # Ok::<(), bursar::policy::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    networks: Vec<Network>,
    mixed: bool,
    assets: Vec<Asset>,
    lists: Lists,
    limits: Vec<Limit<Selector>>,
    asks: Vec<(Selector, Amount)>,
    permissions: Vec<Permission>,
    hosts: Vec<(HostMatch, HostSettings)>,
    everywhere: HostSettings,
    defaults: bool,
    queries_stored: bool,
    approval_time: Duration,
    freeze_switch: Option<PathBuf>,
    refunds_make_room: bool,
    errors: Vec<PolicyError>,
}

/// Allow lists admit nothing else once they have an entry; deny lists always win.
#[derive(Clone, Debug, Default)]
struct Lists {
    allowed_hosts: Vec<HostPattern>,
    denied_hosts: Vec<HostPattern>,
    allowed_payees: Vec<Address>,
    denied_payees: Vec<Address>,
    allowed_assets: Vec<(Network, Address)>,
    denied_assets: Vec<(Network, Address)>,
    denied_networks: Vec<Network>,
}

/// Settings that the most specific match decides, unlike limits.
#[derive(Clone, Debug, Default)]
struct HostSettings {
    payee: Option<PayeeRule>,
    max_validity: Option<Duration>,
    max_price_rise: Option<u32>,
    resource: Option<ResourceRule>,
    repeats: Option<(Duration, u32)>,
    breaker: Option<(Duration, u32)>,
    remember_terms: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PayeeRule {
    Free,
    Pinned,
    Listed(Vec<Address>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ResourceRule {
    Record,
    Refuse,
}

impl HostMatch {
    fn scope(&self) -> Scope {
        match self {
            Self::Origin(origin) => Scope::Origin(origin.clone()),
            Self::Host(pattern) => Scope::Host(pattern.clone()),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::new()
    }
}

impl Policy {
    /// The default limits, and no network to pay on.
    #[must_use]
    pub fn new() -> Self {
        Self {
            networks: Vec::new(),
            mixed: false,
            assets: Vec::new(),
            lists: Lists::default(),
            limits: Vec::new(),
            asks: Vec::new(),
            permissions: Vec::new(),
            hosts: Vec::new(),
            everywhere: HostSettings::default(),
            defaults: true,
            queries_stored: false,
            approval_time: APPROVAL_TIME,
            freeze_switch: None,
            refunds_make_room: false,
            errors: Vec::new(),
        }
    }

    /// Whether the policy can be used; [`ClientBuilder::build`](crate::ClientBuilder::build) asks
    /// this too.
    ///
    /// # Errors
    /// The first mistake made in building it; no network named; networks with real money beside
    /// test networks without [`mix_testnets`](Self::mix_testnets); a validity too short to settle; an
    /// amount of a token that is not registered.
    pub fn check(&self) -> Result<(), PolicyError> {
        if let Some(error) = self.errors.first() {
            return Err(error.clone());
        }
        if self.networks.is_empty() {
            return Err(PolicyError::NoNetwork);
        }
        let settings = self
            .hosts
            .iter()
            .map(|(_, settings)| settings)
            .chain([&self.everywhere]);
        if settings
            .filter_map(|settings| settings.max_validity)
            .any(|validity| validity < SHORTEST_VALIDITY)
        {
            return Err(PolicyError::Validity);
        }
        self.mixture()
            .or_else(|| self.stranger())
            .map_or(Ok(()), Err)
    }

    /// An amount of a token that is not the registry's, and would therefore measure no payment.
    fn stranger(&self) -> Option<PolicyError> {
        let registry = self.asset_registry();
        let limits = self.limits.iter().filter_map(|limit| limit.kind.amount());
        let amounts = limits.chain(self.asks.iter().map(|(_, threshold)| threshold));
        let mut tokens = amounts.filter_map(|amount| match amount {
            Amount::Token(amount) => Some(amount.asset()),
            Amount::Usd(_) => None,
        });
        let strange =
            |asset: &&Asset| registry.find(asset.network(), asset.address()) != Some(*asset);
        tokens.find(strange).map(|asset| PolicyError::Asset {
            asset: asset.clone(),
        })
    }

    /// Real and play money in one policy that does not say so.
    fn mixture(&self) -> Option<PolicyError> {
        let find = |testnet| {
            self.networks
                .iter()
                .find(|network| network.is_testnet() == testnet)
                .copied()
        };
        let (real, test) = find(false).zip(find(true)).filter(|_| !self.mixed)?;
        Some(PolicyError::Mixed { real, test })
    }

    /// The networks that were named, those denied included.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// The networks that may be paid on: those that were named and are not denied.
    pub fn payable_networks(&self) -> impl Iterator<Item = Network> {
        self.networks
            .iter()
            .copied()
            .filter(|network| !self.lists.denied_networks.contains(network))
    }

    /// The zone of the first limit that follows a calendar, as it was named; `UTC` if none does.
    #[must_use]
    pub fn time_zone(&self) -> &str {
        let mut zones = self.limits.iter().filter_map(|limit| match &limit.kind {
            LimitKind::Calendar(calendar, _) => Some(calendar.zone_name()),
            _ => None,
        });
        zones.next().unwrap_or("UTC")
    }

    /// The tokens that may be signed for: the stablecoin registry and those added.
    #[must_use]
    pub fn asset_registry(&self) -> AssetRegistry {
        let registry = AssetRegistry::stablecoins().clone();
        self.assets
            .iter()
            .cloned()
            .fold(registry, AssetRegistry::with)
    }

    /// The path of a URL as the books store it: without the query unless the policy stores
    /// queries.
    pub(crate) fn stored_path(&self, url: &Url) -> String {
        match url.query() {
            Some(query) if self.queries_stored => format!("{}?{query}", url.path()),
            _ => url.path().to_owned(),
        }
    }

    /// The file whose existence stops all paying.
    pub(crate) fn freeze_switch(&self) -> Option<&Path> {
        self.freeze_switch.as_deref()
    }

    /// How long an approver has to answer.
    #[must_use]
    pub const fn time_to_approve(&self) -> Duration {
        self.approval_time
    }

    /// How long an authorization for this origin may be valid at most.
    pub(crate) fn validity_ceiling(&self, origin: &Origin) -> Duration {
        self.setting(origin, |settings| settings.max_validity)
            .unwrap_or(MAX_VALIDITY)
    }

    /// Whether terms of any origin are remembered.
    pub(crate) fn remembers_terms(&self) -> bool {
        let mut all = self
            .hosts
            .iter()
            .map(|(_, settings)| settings)
            .chain([&self.everywhere]);
        all.any(|settings| settings.remember_terms.is_some())
    }

    /// How long terms that this origin settled at are paid with the first request; `None` if never.
    pub(crate) fn terms_lifetime(&self, origin: &Origin) -> Option<Duration> {
        self.setting(origin, |settings| settings.remember_terms)
            .filter(|lifetime| !lifetime.is_zero())
    }

    fn setting<T>(&self, origin: &Origin, read: impl Fn(&HostSettings) -> Option<T>) -> Option<T> {
        let matching = self
            .hosts
            .iter()
            .filter(|(matcher, _)| matcher.matches(origin));
        let set = matching
            .filter_map(|(matcher, settings)| Some((matcher.specificity(), read(settings)?)));
        set.max_by_key(|(specificity, _)| *specificity)
            .map(|(_, value)| value)
            .or_else(|| read(&self.everywhere))
    }
}

/// A resource by its URL, without query and fragment.
fn resource(text: &str) -> Result<Scope, PolicyError> {
    let origin: Origin = text.parse()?;
    let url: Option<Url> = text.parse().ok();
    let bare = url.filter(|url| url.query().is_none() && url.fragment().is_none());
    let path = bare.map(|url| url.path().to_owned());
    let path = path.ok_or_else(|| PolicyError::Resource {
        text: crate::text::excerpt(text),
    })?;
    Ok(Scope::Resource(origin, path))
}

/// A tool of an MCP server.
fn tool(origin: &str, name: &str) -> Result<Scope, PolicyError> {
    Ok(Scope::Resource(origin.parse()?, tool_path(name)))
}

/// `/mcp://tool/NAME`: a tool as a path under its server's origin.
pub(crate) fn tool_path(name: &str) -> String {
    const OTHER: &AsciiSet = &CONTROLS
        .add(b' ')
        .add(b'"')
        .add(b'#')
        .add(b'<')
        .add(b'>')
        .add(b'?')
        .add(b'`')
        .add(b'{')
        .add(b'}')
        .add(b'/')
        .add(b'%')
        .add(b'\\');
    format!("/mcp://tool/{}", utf8_percent_encode(name, OTHER))
}

/// A registrable domain, in the form that origins are compared by.
///
/// A name below it would never be matched by what is kept for its domain, and so limit nothing.
fn domain(text: &str) -> Result<String, PolicyError> {
    let name: HostPattern = text.parse()?;
    let origin: Origin = format!("https://{}", name.host()).parse()?;
    let registrable = origin.registrable_domain();
    if name.covers_subdomains() || registrable != name.host() {
        return Err(PolicyError::Domain {
            name: name.to_string(),
            registrable: registrable.to_owned(),
        });
    }
    Ok(registrable.to_owned())
}

/// A policy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No network may be paid on.
    #[error("the policy names no network; add one, such as `base` or `base-sepolia`")]
    NoNetwork,
    /// Real and play money in one policy.
    #[error(
        "the policy names {real} with real money and the test network {test}; if that is meant, say mix_testnets"
    )]
    Mixed {
        /// A network with real money.
        real: Network,
        /// A test network.
        test: Network,
    },
    /// Not a network.
    #[error(transparent)]
    Network(#[from] ParseNetworkError),
    /// Not a host pattern.
    #[error(transparent)]
    Host(#[from] ParseHostError),
    /// Not an origin.
    #[error(transparent)]
    Origin(#[from] ParseOriginError),
    /// A time zone that this machine does not know.
    #[error("{0}")]
    TimeZone(String),
    /// A window of no length.
    #[error("a window must be longer than zero")]
    EmptyWindow,
    /// An amount of a token that the policy's registry does not hold, or not so.
    #[error("the policy has an amount of {asset} ({}), which its registry does not hold so; register the token with it", asset.address())]
    Asset {
        /// The token.
        asset: Asset,
    },
    /// Not a registrable domain.
    #[error(
        "`{name}` is not a registrable domain; write `{registrable}`, or limit the name as a host"
    )]
    Domain {
        /// The name given.
        name: String,
        /// The domain that it belongs to.
        registrable: String,
    },
    /// An authorization that no facilitator would settle.
    #[error("max_validity must be at least 6 s, the shortest that facilitators settle")]
    Validity,
    /// Not a method, or not in capitals.
    #[error("`{text}` is not a method such as `GET`")]
    Method {
        /// The text given.
        text: String,
    },
    /// Not a resource.
    #[error(
        "`{text}` is not a resource such as `https://api.example.com/report`, without query and fragment"
    )]
    Resource {
        /// The text given.
        text: String,
    },
    /// Not a pattern of paths.
    #[error(
        "`{text}` is not a path such as `/search` or `/v1/**`: it begins with a slash, and is ASCII without `?` and `#`"
    )]
    Path {
        /// The text given.
        text: String,
    },
}

impl From<ParseHostMatchError> for PolicyError {
    fn from(error: ParseHostMatchError) -> Self {
        match error {
            ParseHostMatchError::Origin(error) => error.into(),
            ParseHostMatchError::Host(error) => error.into(),
        }
    }
}

/// A [`Network`] cannot be mistaken; this lets one be given where a name may be.
impl From<std::convert::Infallible> for PolicyError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
