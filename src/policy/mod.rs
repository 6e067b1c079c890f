//! The policy: limits, rules, permissions and approvals.

pub mod approval;
mod builder;
#[cfg(feature = "toml")]
mod effective;
mod explain;
mod limits;
mod lists;
mod permission;
mod price_check;
mod rules;
mod schemes;
mod sign_in;
mod signed_offers;
mod warnings;

use std::path::{Path, PathBuf};
use std::time::Duration;

use alloy::primitives::Address;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use url::Url;

use crate::limit::{Limit, LimitKind, Selector};
use crate::money::{Asset, AssetRegistry, TransferMethod};
use crate::money::{Network, ParseNetworkError};
pub(crate) use crate::origin::HostMatch;
use crate::origin::{HostPattern, Origin, ParseHostError, ParseHostMatchError, ParseOriginError};
use crate::path;
use crate::request::PurchaseRequest;
use crate::x402::Scheme;

pub use crate::limit::{
    Amount, Denial, LimitCheck, LimitStatus, Period, Quantity, Rule, Scope, Share, ShareError,
    Shortfall,
};
pub(crate) use approval::AnyApprover;
pub use approval::{
    ApprovalRequest, Approver, ApproverFn, ChannelApprover, PendingApproval, TerminalApprover,
    Untrusted, Verdict, approve_fn,
};
pub use builder::HostRules;
#[cfg(feature = "toml")]
pub use effective::EffectivePolicy;
pub use explain::{Answer, AskingPrice, Explanation};
pub use limits::Limits;
pub use permission::Permission;
pub use price_check::{PriceCheck, PriceOutcome, PricedOffer};
pub(crate) use rules::{Facts, never_paid};
pub use sign_in::SignIn;
pub(crate) use sign_in::unknown_there;

/// The default of the longest validity of an authorization.
const MAX_VALIDITY: Duration = Duration::from_secs(300);
/// The shortest validity that official facilitators settle.
pub(crate) const SHORTEST_VALIDITY: Duration = Duration::from_secs(6);
/// The default of the time that an approver can take.
const APPROVAL_TIME: Duration = Duration::from_secs(120);
/// The default of the pause after refusals that another signature cannot change.
const REFUSAL_PAUSE: Duration = Duration::from_secs(20 * 60);
const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3600);
/// Thirty days: a rolling window has a fixed length.
const MONTH: Duration = Duration::from_secs(30 * 86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// The rules for payments. You build a policy in code, or read it from a file.
///
/// bursar checks every limit for every payment. A limit on a host does not replace a limit on all
/// payments. The defaults are $0.10 per payment, $5 per rolling day, $1 of unresolved payments, 60
/// payments per minute, 30 identical requests per minute, and no more payments to an origin after 3
/// undelivered payments within 10 minutes. A limit of the same kind on all payments, in dollars,
/// replaces its default. [`without_default_limits`](Self::without_default_limits) removes the default limits
/// on amounts and on the number of payments.
/// bursar pays on no network until you allow one, and only by the scheme `exact` with EIP-3009 until you
/// allow [others](Self::schemes).
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
    /// The shares at which limits warn: of one scope, or of all limits.
    warnings: Vec<(Option<Selector>, Share)>,
    permissions: Vec<Permission>,
    hosts: Vec<(HostMatch, HostSettings)>,
    everywhere: HostSettings,
    defaults: bool,
    unlimited: bool,
    queries_stored: bool,
    approval_time: Duration,
    refusal_pause: Duration,
    freeze_switch: Option<PathBuf>,
    refunds_make_room: bool,
    mcp_methods: Vec<String>,
    errors: Vec<PolicyError>,
}

/// Lists of allowed and denied hosts, payees, tokens and networks. A denial always wins.
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

/// Settings. Of several that match, the most specific one applies.
#[derive(Clone, Debug, Default)]
struct HostSettings {
    payee: Option<PayeeRule>,
    max_validity: Option<Duration>,
    max_price_rise: Option<u32>,
    resource: Option<ResourceRule>,
    repeats: Option<(Duration, u32)>,
    breaker: Option<(Duration, u32)>,
    remember_terms: Option<Duration>,
    sign_in: Option<SignIn>,
    schemes: Option<Vec<Scheme>>,
    transfer_methods: Option<Vec<TransferMethod>>,
    gas_sponsoring: Option<bool>,
    /// The highest cost in wei.
    sponsored_transactions: Option<u128>,
    signed_offers: Option<bool>,
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
    /// Creates a policy with the default limits and without an allowed network.
    #[must_use]
    pub fn new() -> Self {
        Self {
            networks: Vec::new(),
            mixed: false,
            assets: Vec::new(),
            lists: Lists::default(),
            limits: Vec::new(),
            asks: Vec::new(),
            warnings: Vec::new(),
            permissions: Vec::new(),
            hosts: Vec::new(),
            everywhere: HostSettings::default(),
            defaults: true,
            unlimited: false,
            queries_stored: false,
            approval_time: APPROVAL_TIME,
            refusal_pause: REFUSAL_PAUSE,
            freeze_switch: None,
            refunds_make_room: false,
            mcp_methods: Vec::new(),
            errors: Vec::new(),
        }
    }

    /// Checks whether the policy can be used. [`ClientBuilder::build`](crate::ClientBuilder::build) also
    /// calls this.
    ///
    /// # Errors
    /// Returns the first mistake of the builder. Also returns an error if no network is allowed, if test
    /// networks and networks with real money are mixed without [`mix_testnets`](Self::mix_testnets), if a
    /// validity is too short to settle, if a token of a limit is not registered, if the loop guard or the circuit
    /// breaker has a window of no length, or if there are no default limits, no limit per payment and over time, and
    /// no [`unlimited`](Self::unlimited).
    pub fn check(&self) -> Result<(), PolicyError> {
        if let Some(error) = self.errors.first() {
            return Err(error.clone());
        }
        if self.networks.is_empty() {
            return Err(PolicyError::NoNetwork);
        }
        for settings in self.all_settings() {
            if settings
                .max_validity
                .is_some_and(|validity| validity < SHORTEST_VALIDITY)
            {
                return Err(PolicyError::Validity);
            }
            let mut brakes = [settings.repeats, settings.breaker].into_iter().flatten();
            if brakes.any(|(window, _)| window.is_zero()) {
                return Err(PolicyError::EmptyWindow);
            }
        }
        if !self.defaults && !self.unlimited && !rules::limits_both(self.limits.iter()) {
            return Err(PolicyError::Unlimited);
        }
        self.mixture()
            .or_else(|| self.stranger())
            .map_or(Ok(()), Err)
    }

    /// Returns an error for an amount in a token that is not in the registry: it would limit no payment.
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

    /// Returns an error for test networks and real networks in one policy that does not allow it.
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

    /// Returns the networks that were allowed, including denied ones.
    #[must_use]
    pub fn networks(&self) -> &[Network] {
        &self.networks
    }

    /// Returns the networks on which bursar can pay: allowed and not denied.
    pub fn payable_networks(&self) -> impl Iterator<Item = Network> {
        self.networks
            .iter()
            .copied()
            .filter(|network| !self.lists.denied_networks.contains(network))
    }

    /// Returns the time zone of the first calendar limit, or `UTC` if there is none.
    #[must_use]
    pub fn time_zone(&self) -> &str {
        let mut zones = self.limits.iter().filter_map(|limit| match &limit.kind {
            LimitKind::Calendar(calendar, _) => Some(calendar.zone_name()),
            _ => None,
        });
        zones.next().unwrap_or("UTC")
    }

    /// Returns the tokens for which bursar can sign: the built-in stablecoins and the registered tokens.
    #[must_use]
    pub fn asset_registry(&self) -> AssetRegistry {
        let registry = AssetRegistry::stablecoins().clone();
        self.assets
            .iter()
            .cloned()
            .fold(registry, AssetRegistry::with)
    }

    /// Returns the path of a request as the ledger stores it, without the query unless the policy stores
    /// queries.
    pub(crate) fn stored_path(&self, request: &PurchaseRequest) -> String {
        match request.url().query() {
            Some(query) if self.queries_stored => format!("{}?{query}", request.path()),
            _ => request.path().into_owned(),
        }
    }

    /// Returns the file that freezes all payments while it exists.
    pub(crate) fn freeze_switch(&self) -> Option<&Path> {
        self.freeze_switch.as_deref()
    }

    /// Returns the directory of the [freeze file](Self::freeze_file).
    #[must_use]
    pub fn freeze_directory(&self) -> Option<&Path> {
        self.freeze_switch()?.parent()
    }

    /// Returns the time that an approver can take.
    #[must_use]
    pub const fn time_to_approve(&self) -> Duration {
        self.approval_time
    }

    /// Returns whether payments need no limit; see [`unlimited`](Self::unlimited).
    #[must_use]
    pub const fn is_unlimited(&self) -> bool {
        self.unlimited
    }

    /// Returns how long bursar signs nothing after refusals that another signature cannot change.
    pub(crate) const fn time_after_refusals(&self) -> Duration {
        self.refusal_pause
    }

    /// Returns the longest validity of an authorization for this origin.
    pub(crate) fn validity_ceiling(&self, origin: &Origin) -> Duration {
        self.setting(origin, |settings| settings.max_validity)
            .unwrap_or(MAX_VALIDITY)
    }

    /// Returns whether the terms of any origin are remembered.
    pub(crate) fn remembers_terms(&self) -> bool {
        self.all_settings()
            .any(|settings| settings.remember_terms.is_some())
    }

    fn all_settings(&self) -> impl Iterator<Item = &HostSettings> {
        let hosts = self.hosts.iter().map(|(_, settings)| settings);
        hosts.chain([&self.everywhere])
    }

    /// Returns how long the terms of this origin are used for a first request, or `None` if never.
    pub(crate) fn terms_lifetime(&self, origin: &Origin) -> Option<Duration> {
        self.setting(origin, |settings| settings.remember_terms)
            .filter(|lifetime| !lifetime.is_zero())
    }

    fn setting<'a, T>(
        &'a self,
        origin: &Origin,
        read: impl Fn(&'a HostSettings) -> Option<T>,
    ) -> Option<T> {
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

/// Returns the scope of a resource by its URL, without query and fragment.
fn resource(text: &str) -> Result<Scope, PolicyError> {
    let origin: Origin = text.parse()?;
    let url: Option<Url> = text.parse().ok();
    let bare = url.filter(|url| {
        let is_plain = url.query().is_none() && url.fragment().is_none();
        is_plain && !path::hides_a_step(url.path())
    });
    let path = bare.map(|url| path::limited(url.path()));
    let path = path.ok_or_else(|| PolicyError::Resource {
        text: crate::text::excerpt(text),
    })?;
    Ok(Scope::Resource(origin, path))
}

/// A tool of an MCP server.
fn tool(origin: &str, name: &str) -> Result<Scope, PolicyError> {
    Ok(Scope::Resource(origin.parse()?, tool_path(name)))
}

/// Returns the path `/mcp://tool/NAME` of a tool under the origin of its server.
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
    format!("{}{}", path::TOOL, utf8_percent_encode(name, OTHER))
}

/// Returns the scope of a registrable domain, in canonical form.
///
/// A name below a registrable domain is an error: no payment would match it, so it would limit nothing.
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

/// Returns the name of a network, as people write it.
fn named(network: &Network) -> String {
    let name = network.name().map(ToOwned::to_owned);
    name.unwrap_or_else(|| network.to_string())
}

/// An error in a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No network is allowed.
    #[error("the policy names no network; add one, such as `base` or `base-sepolia`")]
    NoNetwork,
    /// Test networks and networks with real money are mixed.
    #[error(
        "the policy names {} with real money and the test network {}; only a policy with mix_testnets allows both",
        named(real),
        named(test)
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
    /// Not a share of a limit.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A window of no length.
    #[error("a window must be longer than zero")]
    EmptyWindow,
    /// The policy has no default limits and limits nothing in their place.
    #[error(
        "without the default limits, a policy needs a limit for one payment (`per_payment`) and one over time \
         (such as `per_day` or `lifetime`), or `unlimited`"
    )]
    Unlimited,
    /// The path of a freeze file is empty, or relative to a working directory that cannot be read.
    #[error("`{}` is not the path of a freeze file; write an absolute path", path.display())]
    FreezeFile {
        /// The path given.
        path: PathBuf,
    },
    /// An amount in a token that is not in the policy's registry.
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

/// Lets functions accept a [`Network`] where they also accept a name.
impl From<std::convert::Infallible> for PolicyError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
