//! Events for metrics, and `tracing` spans and events for logs.
//!
//! An [`Observer`] receives every step of a purchase when it happens. bursar also writes each step as a
//! `tracing` event. The names and fields are stable: they change only with the API.
//!
//! ```
//! use bursar::telemetry::{Counts, Event, EventKind};
//! use bursar::{Ledger, LocalSigner, Payer, Policy};
//!
//! let counts = Counts::new();
//! let payer = Payer::builder()
//!     .signer(LocalSigner::random()?)
//!     .policy(Policy::new().allow_network("base-sepolia"))
//!     .ledger(Ledger::memory())
//!     .observer(counts.clone())
//!     .build()?;
//! // Any function is an observer, too: |event: &Event<'_>| histogram(event.name(), event.elapsed)
//! assert_eq!(counts.of("settled"), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Events
//!
//! | name | when | purchase, amount | `elapsed` |
//! |---|---|---|---|
//! | `challenged` | the seller's terms arrived | no | |
//! | `denied` | the policy, an approver or a freeze refused; has the whole denial | no | |
//! | `limit_warning` | the payment takes a limit past a share that [`Policy::warn_at`](crate::Policy::warn_at) names; has the limit's state | yes | |
//! | `reserved` | the money is reserved; nothing is signed | yes | |
//! | `signed` | an authorization is signed and recorded; it has not been sent | yes | time of the signer |
//! | `unsigned` | the signer failed, or the caller left before; nothing is signed | yes | |
//! | `resumed` | an earlier signed payment will be presented again | yes | |
//! | `waiting` | a call of another process is presenting a payment for the same request; this call waits until that one shows that it lives, or its lease ends | id of that purchase | |
//! | `presented` | the payment is sent, each time; over HTTP only | yes | |
//! | `settled` | a matching receipt arrived | yes | time since `signed` or `resumed` |
//! | `rejected` | the seller asked for payment again | yes | time since `signed` or `resumed` |
//! | `unresolved` | the answer was lost or proves nothing, or the caller left | yes | time since `signed` or `resumed` |
//! | `api_call` | a call with an API key is recorded; it has not been sent | declared cost | |
//! | `turned_away` | the seller refused the API key; the call counts no more | declared cost | |
//! | `signed_in` | a sign-in is sent instead of a payment; `challenged` follows if the seller still asks for money | no | |
//! | `balance_unknown` | the balance of the wallet could not be read; bursar pays without it | no | |
//! | `signature_unchecked` | no endpoint could ask a contract wallet about its signature, which is used all the same | yes | |
//! | `wrong_signature` | the seller's signature on the offer or the receipt is wrong; has the reason | on the receipt | |
//! | `confirmed` | in the background: the chain shows the settlement of an earlier payment | yes | |
//! | `released` | in the background: the chain proves that an earlier payment cannot settle any more | yes | |
//!
//! Each attempt at a purchase has one `signed` or `resumed`. After it comes exactly one of `settled`,
//! `rejected` and `unresolved`. The seller can use the money in all three cases. A
//! [`Payment`](crate::payment::Payment) that you conclude twice has two such events.
//!
//! # Spans and log events
//!
//! | span | level | fields |
//! |---|---|---|
//! | `bursar.request` | DEBUG | `method`, `origin`, `tag`; at its end `status`, `payment_status`, and `error` (the kind) |
//! | `bursar.payment` | INFO | `method`, `origin`, `tag`, `agent`; once known `purchase`, `amount`, `payee` |
//! | `bursar.presentation` | DEBUG | `purchase`, `origin`, `number`; at its end `status` |
//!
//! The events of the first table are `tracing` events with the target `bursar::payment`. Their fields
//! are `event` (the name), `origin`, `purchase`, `amount`, `usd`, `tag`, `agent`, `rule` and
//! `elapsed_ms`, if they apply. `challenged`, `reserved` and `presented` have the level DEBUG, the
//! others INFO, and `limit_warning` WARN. `denied` also has `scope`, `limit`, `used`, `asked` and `room_returns`, and
//! `limit_warning` has `share`, `limit_name`, `limit`, `used` and `left`. If the ledger fails to record a step, bursar writes a WARN or ERROR event with `error`
//! and `purchase`.
//!
//! # Secrets
//!
//! No event has a key, a signature, a payment header or a body. A URL is reduced to its origin. Tags, agents and
//! purchase ids are your own text. The only text that a stranger can have written is in the `message` of a
//! [`Denial`]: it can quote a seller or an approver, shortened and masked by [`text::excerpt`](crate::text::excerpt).
//! The log leaves the message out.
//!
//! # Rules for an observer
//!
//! An observer cannot stop a payment. It returns nothing, and bursar catches and logs its panics (if
//! the program unwinds). bursar calls it between two steps of a purchase, so it must not block. To send
//! an event elsewhere, put it into a channel.

mod counts;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use counts::Counts;

use crate::clock::Timestamp;
use crate::ledger::{Purchase, PurchaseId};
use crate::money::TokenAmount;
use crate::origin::Origin;
use crate::policy::{Denial, LimitStatus, Rule, Share};
use crate::x402::Verification;

/// A receiver of the events of purchases.
///
/// A function of an [`Event`] is an observer.
///
/// ```
/// use bursar::telemetry::{Event, EventKind};
///
/// let observer = |event: &Event<'_>| {
///     if event.kind == EventKind::Unresolved {
///         eprintln!("the outcome at {} is unknown", event.origin);
///     }
/// };
/// let builder = bursar::Client::builder().observer(observer);
/// ```
pub trait Observer: Send + Sync + 'static {
    /// Receives an event. bursar calls it during a purchase, so it must not block.
    fn observe(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

/// One step of a purchase, or of a call with an API key.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The kind of step.
    pub kind: EventKind,
    /// The origin of the seller.
    pub origin: &'a Origin,
    /// The id of the purchase, if there is one.
    pub purchase: Option<&'a PurchaseId>,
    /// The amount and its token, after bursar has chosen an offer.
    pub amount: Option<&'a TokenAmount>,
    /// The tag of the request.
    pub tag: Option<&'a str>,
    /// The agent that buys.
    pub agent: Option<&'a str>,
    /// A duration by the client's clock. The [table](self#events) names its meaning.
    pub elapsed: Option<Duration>,
    /// The refusal with its limit and the time at which room returns, for [`EventKind::Denied`].
    pub denial: Option<&'a Denial>,
    /// The state of the limit with this payment, for [`EventKind::LimitWarning`].
    pub limit: Option<&'a LimitStatus>,
    /// The reason, for [`EventKind::WrongSignature`]. It can quote the seller, shortened and masked.
    pub signature: Option<&'a Verification>,
}

/// The kind of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The seller's terms arrived.
    Challenged,
    /// The policy, an approver or a freeze refused the payment.
    Denied {
        /// The rule that refused.
        rule: Rule,
    },
    /// A payment takes a limit past a share of its maximum.
    LimitWarning {
        /// The share.
        share: Share,
    },
    /// The ledger has reserved the money.
    Reserved,
    /// An authorization is signed and recorded.
    Signed,
    /// The signer failed, or the caller left before a signature existed.
    Unsigned,
    /// An earlier signed payment will be presented again.
    Resumed,
    /// A call of another process is presenting a payment for the same request. This call waits until it is known whether
    /// that process lives, at most until the lease ends.
    Waiting,
    /// The payment is sent.
    Presented,
    /// A matching receipt arrived.
    Settled,
    /// The seller asked for payment again.
    Rejected,
    /// The outcome of the payment is not known.
    Unresolved,
    /// A call with an API key is recorded.
    ApiCall,
    /// The seller refused an API key.
    TurnedAway,
    /// A sign-in is sent instead of a payment.
    SignedIn,
    /// The balance of the wallet could not be read in time. bursar pays without it.
    BalanceUnknown,
    /// No endpoint could ask a contract wallet about its signature. The signature is used all the same.
    SignatureUnchecked,
    /// The seller's signature on its offer or its receipt is wrong. The payment goes on, unless the policy requires
    /// [signed offers](crate::Policy::require_signed_offers).
    WrongSignature,
    /// The chain shows that the payment settled.
    Confirmed,
    /// The chain proves that the payment did not settle and cannot. It counts against the limits no more.
    Released,
}

impl EventKind {
    /// The names of all kinds.
    const NAMES: [&'static str; 14] = [
        "challenged",
        "denied",
        "limit_warning",
        "reserved",
        "signed",
        "unsigned",
        "resumed",
        "presented",
        "settled",
        "rejected",
        "unresolved",
        "api_call",
        "turned_away",
        "signed_in",
    ];

    /// Returns the stable name, such as `settled`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Challenged => "challenged",
            Self::Denied { .. } => "denied",
            Self::LimitWarning { .. } => "limit_warning",
            Self::Reserved => "reserved",
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Resumed => "resumed",
            Self::Waiting => "waiting",
            Self::Presented => "presented",
            Self::Settled => "settled",
            Self::Rejected => "rejected",
            Self::Unresolved => "unresolved",
            Self::ApiCall => "api_call",
            Self::TurnedAway => "turned_away",
            Self::SignedIn => "signed_in",
            Self::BalanceUnknown => "balance_unknown",
            Self::SignatureUnchecked => "signature_unchecked",
            Self::WrongSignature => "wrong_signature",
            Self::Confirmed => "confirmed",
            Self::Released => "released",
        }
    }

    /// Returns the rule of a denial.
    #[must_use]
    pub const fn rule(self) -> Option<Rule> {
        match self {
            Self::Denied { rule } => Some(rule),
            _ => None,
        }
    }

    /// Returns the share of a warning about a limit.
    #[must_use]
    pub const fn share(self) -> Option<Share> {
        match self {
            Self::LimitWarning { share } => Some(share),
            _ => None,
        }
    }

    const fn is_step(self) -> bool {
        matches!(self, Self::Challenged | Self::Reserved | Self::Presented)
    }
}

impl<'a> Event<'a> {
    /// Returns the stable name of the step, such as `settled`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// Returns an event of a request with its tag and its agent.
    pub(crate) const fn new(
        kind: EventKind,
        origin: &'a Origin,
        (tag, agent): (Option<&'a str>, Option<&'a str>),
    ) -> Self {
        Self {
            kind,
            origin,
            purchase: None,
            amount: None,
            tag,
            agent,
            elapsed: None,
            denial: None,
            limit: None,
            signature: None,
        }
    }

    /// Writes the event to the log.
    fn trace(&self) {
        let (limit, used) = match (self.denial, self.limit) {
            (Some(denial), _) => (denial.limit.as_ref(), denial.used.as_ref()),
            (None, Some(status)) => (status.limit.as_ref(), status.used.as_ref()),
            (None, None) => (None, None),
        };
        // The level is part of a callsite, so it must be a constant.
        macro_rules! write_at {
            ($level:expr $(, $message:literal)?) => {
                tracing::event!(
                    target: "bursar::payment",
                    $level,
                    event = self.name(),
                    origin = %self.origin,
                    purchase = self.purchase.map(tracing::field::display),
                    amount = self.amount.map(tracing::field::display),
                    usd = self.amount.and_then(TokenAmount::dollars).map(tracing::field::display),
                    tag = self.tag,
                    agent = self.agent,
                    rule = self.kind.rule().map(Rule::name),
                    scope = self.denial.and_then(|denial| denial.scope.as_ref()).map(tracing::field::display),
                    share = self.kind.share().map(tracing::field::display),
                    limit_name = self.limit.map(|limit| limit.name.as_str()),
                    limit = limit.map(tracing::field::display),
                    used = used.map(tracing::field::display),
                    asked = self.denial.and_then(|denial| denial.asked.as_ref()).map(tracing::field::display),
                    left = self.limit.and_then(|limit| limit.left.as_ref()).map(tracing::field::display),
                    room_returns = self.denial.and_then(|denial| denial.room_returns).map(tracing::field::display),
                    elapsed_ms = self.elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
                    $($message)?
                )
            };
        }
        if self.kind.is_step() {
            write_at!(tracing::Level::DEBUG);
        } else if let (
            Some(share),
            Some(LimitStatus {
                name,
                limit: Some(limit),
                left: Some(left),
                ..
            }),
        ) = (self.kind.share(), self.limit)
        {
            write_at!(
                tracing::Level::WARN,
                "{share} of the limit {name} are used: {left} of {limit} are left"
            );
        } else if self.kind == EventKind::WrongSignature {
            write_at!(tracing::Level::WARN, "the signature of the seller is wrong");
        } else {
            write_at!(tracing::Level::INFO);
        }
    }
}

/// An observer of any type, or none.
#[derive(Clone, Default)]
pub(crate) struct AnyObserver(Option<Arc<dyn Observer>>);

impl AnyObserver {
    pub(crate) fn new(observer: impl Observer) -> Self {
        Self(Some(Arc::new(observer)))
    }

    /// Writes the event to the log and passes it to the observer. Catches a panic of the observer.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        event.trace();
        let Some(observer) = &self.0 else { return };
        // A panic can leave only the observer's own state half changed.
        if catch_unwind(AssertUnwindSafe(|| observer.observe(event))).is_err() {
            tracing::error!(
                event = event.name(),
                "the observer panicked; the payment goes on"
            );
        }
    }
}

impl fmt::Debug for AnyObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}

/// The facts of a purchase that its events contain.
#[derive(Clone, Debug)]
pub(crate) struct PurchaseEvents {
    origin: Origin,
    purchase: PurchaseId,
    tag: Option<String>,
    agent: Option<String>,
    amount: TokenAmount,
    since: Timestamp,
}

impl PurchaseEvents {
    /// Returns the facts of a purchase. `agent` buys it now, and may have begun it or not.
    pub(crate) fn new(
        purchase: &Purchase,
        amount: TokenAmount,
        agent: Option<&str>,
        since: Timestamp,
    ) -> Self {
        Self {
            agent: agent.map(ToOwned::to_owned),
            origin: purchase.origin.clone(),
            purchase: purchase.id.clone(),
            tag: purchase.tag.clone(),
            amount,
            since,
        }
    }

    /// Sets the time from which [`timed`](Self::timed) counts.
    pub(crate) const fn set_since(&mut self, since: Timestamp) {
        self.since = since;
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn event(&self, kind: EventKind) -> Event<'_> {
        let by = (self.tag.as_deref(), self.agent.as_deref());
        let event = Event::new(kind, &self.origin, by);
        Event {
            purchase: Some(&self.purchase),
            amount: Some(&self.amount),
            ..event
        }
    }

    /// Returns an event with the time since the payment was signed or resumed.
    pub(crate) fn timed(&self, kind: EventKind, now: Timestamp) -> Event<'_> {
        Event {
            elapsed: Some(self.since.until(now)),
            ..self.event(kind)
        }
    }
}
