//! Limits: how much, over what, for whom.

use std::fmt;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use serde::{Serialize, Serializer};

use super::calendar::Calendar;
use crate::money::{Asset, TokenAmount};
use crate::origin::{HostPattern, Origin};
use crate::x402::Quote;
use crate::{Network, Timestamp, Usd};

/// An amount that a limit is set in: dollars, or units of one token.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Amount {
    /// Dollars; measures every token with a dollar peg.
    Usd(Usd),
    /// Units of a token; measures payments in that token alone.
    Token(TokenAmount),
}

impl Amount {
    /// What `value` atomic units of `asset` weigh on this scale; `None` when it does not measure
    /// them.
    pub(crate) fn weigh(&self, asset: &Asset, value: U256) -> Option<Weight> {
        match self {
            Self::Usd(_) => asset.dollars(value).map(|usd| Weight::from(usd.micros())),
            Self::Token(limit) => (limit.asset() == asset).then_some(value),
        }
    }

    pub(crate) fn weight(&self) -> Weight {
        match self {
            Self::Usd(usd) => Weight::from(usd.micros()),
            Self::Token(amount) => amount.units(),
        }
    }

    /// An amount on the same scale.
    pub(crate) fn of_weight(&self, weight: Weight) -> Self {
        match self {
            Self::Usd(_) => Self::Usd(Usd::from_micros(weight.try_into().unwrap_or(u64::MAX))),
            Self::Token(amount) => {
                Self::Token(TokenAmount::from_units(amount.asset().clone(), weight))
            }
        }
    }
}

/// A position on an [`Amount`]'s scale: micro-dollars or atomic units.
pub(crate) type Weight = U256;

impl From<Usd> for Amount {
    fn from(usd: Usd) -> Self {
        Self::Usd(usd)
    }
}

impl From<TokenAmount> for Amount {
    fn from(amount: TokenAmount) -> Self {
        Self::Token(amount)
    }
}

/// `0.05 USD`, `2.5 EURC`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usd(usd) => f.pad(&format!("{usd} USD")),
            Self::Token(amount) => amount.fmt(f),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The payments that a limit adds up.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Scope {
    /// All of them.
    Global,
    /// To one origin.
    Origin(Origin),
    /// For one path of an origin, whatever the query: a resource, or an MCP server's tool.
    Resource(Origin, String),
    /// To hosts of a pattern.
    Host(HostPattern),
    /// To hosts of one registrable domain.
    Domain(String),
    /// To one payee.
    Payee(Address),
    /// In one token.
    Asset(Network, Address),
    /// On one network.
    Network(Network),
    /// For one request, by the hash of its method, URL and body.
    Request(B256),
    /// With one tag.
    Tag(String),
    /// By one agent.
    Agent(String),
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Origin(origin) => write!(f, "origin {origin}"),
            Self::Resource(origin, path) => write!(f, "resource {origin}{path}"),
            Self::Host(pattern) => write!(f, "host {pattern}"),
            Self::Domain(domain) => write!(f, "domain {domain}"),
            Self::Payee(payee) => write!(f, "payee {payee}"),
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

/// What a limit is kept for: one scope, or each of a kind on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Selector {
    Only(Scope),
    EachOrigin,
    EachDomain,
    EachPayee,
    EachAsset,
    EachNetwork,
    EachTag,
    EachAgent,
}

/// Who and what a payment is, as far as scopes go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) origin: &'a Origin,
    /// Without the query.
    pub(crate) path: &'a str,
    pub(crate) quote: &'a Quote,
    pub(crate) request: B256,
    pub(crate) tag: Option<&'a str>,
    pub(crate) agent: Option<&'a str>,
}

impl Selector {
    /// The scope that the payment falls into, if any.
    pub(crate) fn select(&self, subject: Subject<'_>) -> Option<Scope> {
        let Subject {
            origin,
            path: _,
            quote,
            request: _,
            tag,
            agent,
        } = subject;
        Some(match self {
            Self::Only(scope) => return scope.covers(subject).then(|| scope.clone()),
            Self::EachOrigin => Scope::Origin(origin.clone()),
            Self::EachDomain => Scope::Domain(origin.registrable_domain().to_owned()),
            Self::EachPayee => Scope::Payee(quote.pay_to()),
            Self::EachAsset => Scope::Asset(quote.network(), quote.asset().address()),
            Self::EachNetwork => Scope::Network(quote.network()),
            Self::EachTag => Scope::Tag(tag?.to_owned()),
            Self::EachAgent => Scope::Agent(agent?.to_owned()),
        })
    }
}

impl Scope {
    pub(crate) fn of_asset(asset: &Asset) -> Self {
        Self::Asset(asset.network(), asset.address())
    }

    fn covers(
        &self,
        Subject {
            origin,
            path,
            quote,
            request,
            tag,
            agent,
        }: Subject<'_>,
    ) -> bool {
        match self {
            Self::Global => true,
            Self::Origin(only) => only == origin,
            Self::Resource(only, at) => only == origin && at == path,
            Self::Host(pattern) => pattern.matches(origin.host()),
            Self::Domain(domain) => domain == origin.registrable_domain(),
            Self::Payee(payee) => *payee == quote.pay_to(),
            Self::Asset(network, address) => {
                *network == quote.network() && *address == quote.asset().address()
            }
            Self::Network(network) => *network == quote.network(),
            Self::Request(only) => *only == request,
            Self::Tag(only) => tag == Some(only),
            Self::Agent(only) => agent == Some(only),
        }
    }
}

/// What a limit bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LimitKind {
    PerPayment(Amount),
    Rolling(Duration, Amount),
    Calendar(Calendar, Amount),
    Lifetime(Amount),
    Exposure(Amount),
    Payments(Duration, u32),
    /// How often the same request may be bought.
    Repeats(Duration, u32),
    /// How many payments may be taken and not delivered for.
    Failures(Duration, u32),
}

impl LimitKind {
    /// Whether this takes the place of a default: a limit of its kind, in dollars where it has an
    /// amount. One in units of a token leaves other tokens to the default.
    pub(crate) fn replaces(&self, default: &Self) -> bool {
        let measures = !matches!(self.max(), Max::Amount(Amount::Token(_)));
        std::mem::discriminant(self) == std::mem::discriminant(default) && measures
    }

    pub(crate) const fn max(&self) -> Max<'_> {
        match self {
            Self::PerPayment(max)
            | Self::Rolling(_, max)
            | Self::Calendar(_, max)
            | Self::Lifetime(max)
            | Self::Exposure(max) => Max::Amount(max),
            Self::Payments(_, max) | Self::Repeats(_, max) | Self::Failures(_, max) => {
                Max::Payments(*max)
            }
        }
    }
}

impl fmt::Display for LimitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerPayment(_) => f.write_str("per payment"),
            Self::Rolling(window, _) => write!(f, "rolling {}", ShortDuration(*window)),
            Self::Calendar(calendar, _) => write!(f, "calendar {calendar}"),
            Self::Lifetime(_) => f.write_str("lifetime"),
            Self::Exposure(_) => f.write_str("exposure"),
            Self::Payments(window, _) => write!(f, "payments per {}", ShortDuration(*window)),
            Self::Repeats(window, _) => write!(f, "repeats per {}", ShortDuration(*window)),
            Self::Failures(window, _) => write!(f, "failures per {}", ShortDuration(*window)),
        }
    }
}

/// One limit of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    pub(crate) selector: Selector,
    pub(crate) kind: LimitKind,
}

/// The charges in the books that a limit adds up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Span {
    /// Everything that counts.
    Ever,
    /// What may have left the wallet after this moment.
    SpentAfter(Timestamp),
    /// What was reserved after this moment.
    ReservedAfter(Timestamp),
    /// What is signed, unresolved and could still be cashed.
    Outstanding,
}

/// A limit as it applies to one payment: what the books must be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Meter {
    pub(crate) scope: Scope,
    pub(crate) kind: LimitKind,
}

impl Meter {
    /// The charges to add up; `None` when the payment alone decides.
    pub(crate) fn span(&self, now: Timestamp) -> Option<Span> {
        Some(match &self.kind {
            LimitKind::PerPayment(_) => return None,
            LimitKind::Rolling(window, _) => Span::SpentAfter(now.before(*window)),
            LimitKind::Calendar(calendar, _) => {
                Span::SpentAfter(calendar.start(now).before(Duration::from_millis(1)))
            }
            LimitKind::Lifetime(_) => Span::Ever,
            LimitKind::Exposure(_) => Span::Outstanding,
            LimitKind::Payments(window, _)
            | LimitKind::Repeats(window, _)
            | LimitKind::Failures(window, _) => Span::ReservedAfter(now.before(*window)),
        })
    }

    pub(crate) const fn max(&self) -> Max<'_> {
        self.kind.max()
    }
}

impl fmt::Display for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.scope, self.kind)
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Max<'a> {
    Amount(&'a Amount),
    Payments(u32),
}

/// A quantity on a limit's scale.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Quantity {
    /// Money.
    Amount(Amount),
    /// A number of payments.
    Payments(u64),
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Amount(amount) => amount.fmt(f),
            Self::Payments(1) => f.pad("1 payment"),
            Self::Payments(count) => f.pad(&format!("{count} payments")),
        }
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// `500ms`, `90s`, `5m`, `24h`, `7d`: the largest unit that divides evenly.
pub(crate) struct ShortDuration(pub(crate) Duration);

impl fmt::Display for ShortDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        let (unit, name) = [
            (86_400_000_u128, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1000, "s"),
        ]
        .into_iter()
        .find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit))
        .unwrap_or((1, "ms"));
        write!(f, "{}{name}", millis.checked_div(unit).unwrap_or(millis))
    }
}
