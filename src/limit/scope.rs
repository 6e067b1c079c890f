//! Scopes: the payments that a limit adds up.

use std::fmt;

use alloy::primitives::{Address, B256};
use serde::{Serialize, Serializer};

use crate::money::{Asset, Network, checksummed};
use crate::origin::{HostPattern, Origin};
use crate::path;

/// The payments that a limit adds up.
///
/// ```
/// use bursar::policy::Scope;
///
/// let scope = Scope::Origin("https://api.example.com".parse()?);
/// assert_eq!(scope.to_string(), "origin https://api.example.com");
/// # Ok::<(), bursar::origin::ParseOriginError>(())
/// ```
// To add a scope, change three places. The compiler and the tests find every spot in the first two:
// 1. this file: the variants of `Scope` and `ScopeKind`, their `match`es, and `ScopeKind::SIMPLE`;
// 2. `ledger/sql/scope.rs`: the SQL condition of the scope, and the index that SQLite reads it by;
// 3. `policy/builder.rs`: the method that sets limits for the scope; and `config/schema.rs` with `config/policy.rs`: its
//    table in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All payments.
    Global,
    /// Payments to one origin.
    Origin(Origin),
    /// Payments for one path of an origin and everything below it, in any spelling and with any query. The path has small
    /// letters. The path of an MCP tool is its URL, `/mcp://tool/NAME`, as it is.
    Resource(Origin, String),
    /// Payments to the hosts that match a pattern.
    Host(HostPattern),
    /// Payments to the hosts of one registrable domain.
    Domain(String),
    /// Payments to one payee.
    Payee(Address),
    /// Payments in one token.
    Asset(Network, Address),
    /// Payments on one network.
    Network(Network),
    /// Payments for one request, identified by the hash of its method, URL and body.
    Request(B256),
    /// Payments with one tag.
    Tag(String),
    /// Payments by one agent.
    Agent(String),
}

/// The parts of a payment, or of a stored purchase, that scopes compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PaymentView<'a> {
    pub(crate) origin: &'a Origin,
    /// The path of the URL in the spelling of [`path::resource`], without the query.
    pub(crate) path: &'a str,
    pub(crate) network: Network,
    pub(crate) asset: Address,
    pub(crate) payee: Address,
    /// The hash of method, URL and body.
    pub(crate) request: B256,
    pub(crate) tag: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
}

impl Scope {
    /// Returns the scope of all payments in `asset`.
    pub(crate) fn of_asset(asset: &Asset) -> Self {
        Self::Asset(asset.network(), asset.address())
    }

    /// Returns every scope that the payment belongs to, except those that are not [stable](Self::is_stable).
    #[cfg(feature = "sqlite")]
    pub(crate) fn all_of(payment: &PaymentView<'_>) -> Vec<Self> {
        let simple = ScopeKind::SIMPLE
            .iter()
            .filter_map(|kind| kind.scope_of(payment));
        let hosts = HostPattern::all_matching(payment.origin.host()).map(Self::Host);
        let resources = path::all_around(payment.path)
            .into_iter()
            .map(|path| Self::Resource(payment.origin.clone(), path));
        simple
            .chain(hosts)
            .chain(resources)
            .filter(Self::is_stable)
            .collect()
    }

    /// Whether the payment belongs to the scope.
    pub(crate) fn covers(&self, payment: &PaymentView<'_>) -> bool {
        match self {
            Self::Global => true,
            Self::Origin(origin) => origin == payment.origin,
            Self::Resource(origin, path) => {
                origin == payment.origin && path::is_within(path, payment.path)
            }
            Self::Host(pattern) => pattern.matches(payment.origin.host()),
            Self::Domain(domain) => domain == payment.origin.registrable_domain(),
            Self::Payee(payee) => *payee == payment.payee,
            Self::Asset(network, asset) => (*network, *asset) == (payment.network, payment.asset),
            Self::Network(network) => *network == payment.network,
            Self::Request(request) => *request == payment.request,
            Self::Tag(tag) => payment.tag == Some(tag),
            Self::Agent(agent) => payment.agent == Some(agent),
        }
    }

    /// Whether a purchase that belongs to the scope always will. A registrable domain depends on the public suffix
    /// list, which changes with each release, so a database must not store totals by domain.
    #[cfg(feature = "sqlite")]
    pub(crate) const fn is_stable(&self) -> bool {
        !matches!(self, Self::Domain(_))
    }

    /// Whether the scope can hold API calls, which have no payee, token and network.
    pub(crate) const fn holds_api_calls(&self) -> bool {
        !matches!(self, Self::Payee(_) | Self::Asset(..) | Self::Network(_))
    }

    /// Whether the scope usually holds few payments within a short window: those for one request.
    pub(crate) const fn is_narrow(&self) -> bool {
        matches!(self, Self::Request(_))
    }

    /// Returns the name of the scope in databases.
    ///
    /// This is a storage format. Change the text of an existing scope only together with the schema version. It is
    /// not the `Display` text, which people read and which may be reworded.
    #[cfg(any(feature = "postgres", feature = "sqlite"))]
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Global => "global".to_owned(),
            Self::Origin(origin) => format!("origin {origin}"),
            Self::Resource(origin, path) => format!("resource {origin} {path}"),
            Self::Host(pattern) => format!("host {pattern}"),
            Self::Domain(domain) => format!("domain {domain}"),
            Self::Payee(payee) => format!("payee {payee:#x}"),
            Self::Asset(network, asset) => format!("asset {network} {asset:#x}"),
            Self::Network(network) => format!("network {network}"),
            Self::Request(request) => format!("request {request:#x}"),
            Self::Tag(tag) => format!("tag {tag}"),
            Self::Agent(agent) => format!("agent {agent}"),
        }
    }
}

/// Writes the scope for people, such as `host *.example.com`.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Origin(origin) => write!(f, "origin {origin}"),
            Self::Resource(origin, path) => write!(f, "resource {origin}{path}"),
            Self::Host(pattern) => write!(f, "host {pattern}"),
            Self::Domain(domain) => write!(f, "domain {domain}"),
            Self::Payee(payee) => write!(f, "payee {}", checksummed(*payee)),
            Self::Asset(network, address) => write!(f, "asset {address} on {network}"),
            Self::Network(network) => write!(f, "network {network}"),
            Self::Request(_) => f.write_str("same request"),
            Self::Tag(tag) => write!(f, "tag {tag}"),
            Self::Agent(agent) => write!(f, "agent {agent}"),
        }
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A kind of scope, such as "origin" without saying which one. A payment belongs to at most one scope of a kind.
///
/// Host patterns and resources overlap, so each of them is a kind of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ScopeKind {
    Global,
    Origin,
    Resource(Origin, String),
    Host(HostPattern),
    Domain,
    Payee,
    Asset,
    Network,
    Request,
    Tag,
    Agent,
}

impl ScopeKind {
    /// All kinds except hosts and resources.
    #[cfg(feature = "sqlite")]
    const SIMPLE: [Self; 9] = [
        Self::Global,
        Self::Origin,
        Self::Domain,
        Self::Payee,
        Self::Asset,
        Self::Network,
        Self::Request,
        Self::Tag,
        Self::Agent,
    ];

    /// Returns the kind of `scope`.
    pub(crate) fn of(scope: &Scope) -> Self {
        match scope {
            Scope::Global => Self::Global,
            Scope::Origin(_) => Self::Origin,
            Scope::Resource(origin, path) => Self::Resource(origin.clone(), path.clone()),
            Scope::Host(pattern) => Self::Host(pattern.clone()),
            Scope::Domain(_) => Self::Domain,
            Scope::Payee(_) => Self::Payee,
            Scope::Asset(..) => Self::Asset,
            Scope::Network(_) => Self::Network,
            Scope::Request(_) => Self::Request,
            Scope::Tag(_) => Self::Tag,
            Scope::Agent(_) => Self::Agent,
        }
    }

    /// Whether `scope` is of this kind.
    pub(crate) fn is_kind_of(&self, scope: &Scope) -> bool {
        match self {
            Self::Global => matches!(scope, Scope::Global),
            Self::Origin => matches!(scope, Scope::Origin(_)),
            Self::Resource(origin, path) => {
                matches!(scope, Scope::Resource(other, below) if (other, below) == (origin, path))
            }
            Self::Host(pattern) => matches!(scope, Scope::Host(other) if other == pattern),
            Self::Domain => matches!(scope, Scope::Domain(_)),
            Self::Payee => matches!(scope, Scope::Payee(_)),
            Self::Asset => matches!(scope, Scope::Asset(..)),
            Self::Network => matches!(scope, Scope::Network(_)),
            Self::Request => matches!(scope, Scope::Request(_)),
            Self::Tag => matches!(scope, Scope::Tag(_)),
            Self::Agent => matches!(scope, Scope::Agent(_)),
        }
    }

    /// Whether all scopes of this kind are the same one.
    pub(crate) const fn is_one_scope(&self) -> bool {
        matches!(self, Self::Global | Self::Resource(..) | Self::Host(_))
    }

    /// Returns the scope of this kind that the payment belongs to, if there is one.
    pub(crate) fn scope_of(&self, payment: &PaymentView<'_>) -> Option<Scope> {
        let origin = payment.origin;
        Some(match self {
            Self::Global => Scope::Global,
            Self::Origin => Scope::Origin(origin.clone()),
            Self::Resource(seller, path) => Some(Scope::Resource(seller.clone(), path.clone()))
                .filter(|scope| scope.covers(payment))?,
            Self::Host(pattern) if pattern.matches(origin.host()) => Scope::Host(pattern.clone()),
            Self::Host(_) => return None,
            Self::Domain => Scope::Domain(origin.registrable_domain().to_owned()),
            Self::Payee => Scope::Payee(payment.payee),
            Self::Asset => Scope::Asset(payment.network, payment.asset),
            Self::Network => Scope::Network(payment.network),
            Self::Request => Scope::Request(payment.request),
            Self::Tag => Scope::Tag(payment.tag?.to_owned()),
            Self::Agent => Scope::Agent(payment.agent?.to_owned()),
        })
    }
}

/// The scopes that a limit of a policy applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    /// One scope.
    Only(Scope),
    /// Each scope of a kind, with a limit of its own.
    Each(ScopeKind),
}

impl Selector {
    /// Returns the scope that the payment is counted in, if the selector applies to the payment.
    pub(crate) fn select(&self, payment: &PaymentView<'_>) -> Option<Scope> {
        match self {
            Self::Only(scope) => scope.covers(payment).then(|| scope.clone()),
            Self::Each(kind) => kind.scope_of(payment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> [(Scope, &'static str); 12] {
        let origin = || "https://api.example.com:8443".parse().unwrap();
        let base = Network::from_chain_id(8453);
        let address = Address::repeat_byte(0xAB);
        [
            (Scope::Global, "global"),
            (
                Scope::Origin(origin()),
                "origin https://api.example.com:8443",
            ),
            (
                Scope::Resource(origin(), "/a b".to_owned()),
                "resource https://api.example.com:8443 /a b",
            ),
            (
                Scope::Host("api.example.com".parse().unwrap()),
                "host api.example.com",
            ),
            (
                Scope::Host("*.example.com".parse().unwrap()),
                "host *.example.com",
            ),
            (
                Scope::Domain("example.com".to_owned()),
                "domain example.com",
            ),
            (
                Scope::Payee(address),
                "payee 0xabababababababababababababababababababab",
            ),
            (
                Scope::Asset(base, address),
                "asset eip155:8453 0xabababababababababababababababababababab",
            ),
            (Scope::Network(base), "network eip155:8453"),
            (
                Scope::Request(B256::repeat_byte(1)),
                "request 0x0101010101010101010101010101010101010101010101010101010101010101",
            ),
            (Scope::Tag("Research".to_owned()), "tag Research"),
            (Scope::Agent("ada".to_owned()), "agent ada"),
        ]
    }

    #[cfg(feature = "sqlite")]
    #[test]
    fn keys_of_scopes_are_a_storage_format_and_do_not_change() {
        for (scope, key) in all() {
            assert_eq!(scope.key(), key);
        }
    }

    #[test]
    fn a_payment_belongs_to_the_scopes_that_cover_it() {
        let origin: Origin = "https://api.example.com:8443".parse().unwrap();
        let payment = PaymentView {
            origin: &origin,
            path: "/a b",
            network: Network::from_chain_id(8453),
            asset: Address::repeat_byte(0xAB),
            payee: Address::repeat_byte(0xAB),
            request: B256::repeat_byte(1),
            tag: Some("Research"),
            agent: Some("ada"),
        };
        let other_origin: Origin = "http://example.org".parse().unwrap();
        let other = PaymentView {
            origin: &other_origin,
            path: "/",
            network: Network::from_chain_id(1),
            asset: Address::ZERO,
            payee: Address::ZERO,
            request: B256::ZERO,
            tag: None,
            agent: None,
        };
        for (scope, _) in all() {
            let kind = ScopeKind::of(&scope);
            let kinds_of_it = all()
                .into_iter()
                .filter(|(other, _)| kind.is_kind_of(other));
            assert_eq!(kinds_of_it.count(), 1, "{scope}");
            assert!(scope.covers(&payment), "{scope}");
            assert_eq!(kind.scope_of(&payment).as_ref(), Some(&scope));
            assert_eq!(scope.covers(&other), scope == Scope::Global, "{scope}");
            let selected = kind.scope_of(&other);
            assert_eq!(selected == Some(scope.clone()), scope == Scope::Global);
            #[cfg(feature = "sqlite")]
            assert_eq!(
                Scope::all_of(&payment).contains(&scope),
                scope.is_stable(),
                "{scope}"
            );
        }
    }
}
