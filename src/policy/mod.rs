//! What may be bought: limits, rules, approvals.

mod approval;
mod builder;
mod calendar;
mod denial;
mod explain;
#[cfg(feature = "toml")]
mod file;
pub(crate) mod limit;
mod rules;

use std::time::Duration;

use alloy::primitives::Address;

use crate::asset::{Asset, AssetRegistry};
use crate::origin::{HostPattern, Origin, ParseHostError, ParseOriginError};
use crate::{Network, ParseNetworkError, usd};

pub(crate) use approval::AnyApprover;
pub use approval::{
    ApprovalRequest, Approver, ApproverFn, ChannelApprover, PendingApproval, TerminalApprover, Untrusted, Verdict,
    approve_fn,
};
pub use builder::{HostRules, Limits};
pub use calendar::Period;
pub use denial::{Denial, Rule};
pub use explain::{Answer, Explanation, Hypothetical};
pub use limit::{Amount, Quantity, Scope, Span};
pub(crate) use rules::Facts;

use limit::{Limit, LimitKind, Meter, Selector};

/// The longest that an authorization is valid unless the policy says otherwise.
const MAX_VALIDITY: Duration = Duration::from_secs(300);
/// How long an approver may take unless the policy says otherwise.
const APPROVAL_TIME: Duration = Duration::from_secs(120);
const DAY: Duration = Duration::from_secs(86_400);
const MINUTE: Duration = Duration::from_secs(60);

/// What a client may buy: built in code or read from a file, fixed once the client is built.
///
/// Every limit is checked for every payment; a limit on a host does not replace the one on
/// everything. Limits that are not set stand at safe defaults: $0.10 a payment, $5 over a rolling
/// day, $1 of unresolved payments, 60 payments a minute. Setting a limit of the same kind on
/// everything replaces its default; [`without_defaults`](Self::without_defaults) drops all four.
/// No network may be paid on until it is named.
///
/// ```
/// use std::time::Duration;
/// use bursar::{Policy, usd};
///
/// let policy = Policy::new()
///     .network("base")
///     .per_payment(usd!("0.05"))
///     .rolling(Duration::from_secs(86_400), usd!("5"))
///     .host("api.example.com", |host| host.rolling(Duration::from_secs(86_400), usd!("1")))
///     .tag("research", |tag| tag.lifetime(usd!("20")));
/// policy.check()?;
/// # Ok::<(), bursar::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Policy {
    networks: Vec<Network>,
    mixed: bool,
    assets: Vec<Asset>,
    lists: Lists,
    limits: Vec<Limit>,
    asks: Vec<(Selector, Amount)>,
    hosts: Vec<(HostMatch, HostSettings)>,
    everywhere: HostSettings,
    defaults: bool,
    queries_stored: bool,
    approval_time: Duration,
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

#[derive(Clone, Debug, PartialEq, Eq)]
enum HostMatch {
    Origin(Origin),
    Host(HostPattern),
}

impl HostMatch {
    fn matches(&self, origin: &Origin) -> bool {
        match self {
            Self::Origin(only) => only == origin,
            Self::Host(pattern) => pattern.matches(origin.host()),
        }
    }

    /// An origin before a host before a pattern, a longer pattern before a shorter.
    fn specificity(&self) -> (u8, usize) {
        match self {
            Self::Origin(_) => (2, 0),
            Self::Host(pattern) if !pattern.covers_subdomains() => (1, 0),
            Self::Host(pattern) => (0, pattern.host().len()),
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
            hosts: Vec::new(),
            everywhere: HostSettings::default(),
            defaults: true,
            queries_stored: false,
            approval_time: APPROVAL_TIME,
            errors: Vec::new(),
        }
    }

    /// Whether the policy can be used; [`ClientBuilder::build`](crate::ClientBuilder::build) asks
    /// this too.
    ///
    /// # Errors
    /// The first mistake made in building it; no network named; networks with real money beside
    /// test networks without [`mix_testnets`](Self::mix_testnets).
    pub fn check(&self) -> Result<(), PolicyError> {
        if let Some(error) = self.errors.first() {
            return Err(error.clone());
        }
        let real = self.networks.iter().find(|network| !network.is_testnet());
        let test = self.networks.iter().find(|network| network.is_testnet());
        match (real, test) {
            (None, None) => Err(PolicyError::NoNetwork),
            (Some(real), Some(test)) if !self.mixed => Err(PolicyError::Mixed { real: *real, test: *test }),
            _ => Ok(()),
        }
    }

    /// The tokens that may be signed for: the stablecoin registry and those added.
    #[must_use]
    pub fn asset_registry(&self) -> AssetRegistry {
        let registry = AssetRegistry::stablecoins().clone();
        self.assets.iter().cloned().fold(registry, AssetRegistry::with)
    }

    pub(crate) const fn stores_queries(&self) -> bool {
        self.queries_stored
    }

    pub(crate) const fn time_to_approve(&self) -> Duration {
        self.approval_time
    }

    /// How long an authorization for this origin may be valid at most.
    pub(crate) fn validity_ceiling(&self, origin: &Origin) -> Duration {
        self.setting(origin, |settings| settings.max_validity).unwrap_or(MAX_VALIDITY)
    }

    /// The limits set, and the defaults for kinds that are not set on everything.
    fn effective_limits(&self) -> Vec<Limit> {
        let set = |like: &LimitKind| {
            let alike = |limit: &Limit| std::mem::discriminant(&limit.kind) == std::mem::discriminant(like);
            self.limits.iter().any(|limit| limit.selector == Selector::Only(Scope::Global) && alike(limit))
        };
        let defaults = [
            LimitKind::PerPayment(usd!("0.10").into()),
            LimitKind::Rolling(DAY, usd!("5").into()),
            LimitKind::Exposure(usd!("1").into()),
            LimitKind::Payments(MINUTE, 60),
        ];
        let missing = defaults.into_iter().filter(|kind| self.defaults && !set(kind));
        let missing = missing.map(|kind| Limit { selector: Selector::Only(Scope::Global), kind });
        missing.chain(self.limits.iter().cloned()).collect()
    }

    /// The limits of one fixed scope each, as the books measure them.
    pub(crate) fn standing_meters(&self) -> Vec<Meter> {
        let fixed = self.effective_limits().into_iter().filter_map(|limit| match limit.selector {
            Selector::Only(scope) => Some(Meter { scope, kind: limit.kind }),
            _ => None,
        });
        fixed.collect()
    }

    fn setting<T>(&self, origin: &Origin, read: impl Fn(&HostSettings) -> Option<T>) -> Option<T> {
        let matching = self.hosts.iter().filter(|(matcher, _)| matcher.matches(origin));
        let set = matching.filter_map(|(matcher, settings)| Some((matcher.specificity(), read(settings)?)));
        set.max_by_key(|(specificity, _)| *specificity).map(|(_, value)| value).or_else(|| read(&self.everywhere))
    }
}

/// A policy that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// No network may be paid on.
    #[error("the policy names no network; add one, such as `base` or `base-sepolia`")]
    NoNetwork,
    /// Real and play money in one policy.
    #[error("the policy names {real} with real money and the test network {test}; if that is meant, say mix_testnets")]
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
    /// A policy file that cannot be read or understood; with the line where there is one.
    #[error("{0}")]
    File(String),
}

/// A [`Network`] cannot be mistaken; this lets one be given where a name may be.
impl From<std::convert::Infallible> for PolicyError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}
