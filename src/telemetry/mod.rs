//! What a client says while it pays: events for metrics, and `tracing` spans and events for logs.
//!
//! An [`Observer`] is told of every step of a purchase as it happens; the same steps are `tracing`
//! events. Names and fields are stable: they change only as the API does.
//!
//! ```
//! use bursar::telemetry::{Counts, Event, EventKind};
//! use bursar::{Ledger, LocalSigner, Payer, Policy};
//!
//! let counts = Counts::new();
//! let payer = Payer::builder()
//!     .signer(LocalSigner::random()?)
//!     .policy(Policy::new().network("base-sepolia"))
//!     .ledger(Ledger::memory())
//!     .observer(counts.clone())
//!     .build()?;
//! // Or any function: |event: &Event<'_>| histogram(event.name(), event.elapsed)
//! assert_eq!(counts.of("settled"), 0);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Events
//!
//! | name | when | purchase, amount | `elapsed` |
//! |---|---|---|---|
//! | `challenged` | terms came, in a 402 or otherwise | no | |
//! | `denied` | the policy, an approver or an order to stop refused; with the rule | no | |
//! | `reserved` | the money is held, and nothing signed | yes | |
//! | `signed` | an authorization is signed and recorded, and has not left | yes | the signer's |
//! | `unsigned` | the signer failed, or its caller left before; nothing was signed | yes | |
//! | `resumed` | what was signed earlier is to be presented again | yes | |
//! | `presented` | the payment leaves, each time; other transports than HTTP do not say so | yes | |
//! | `settled` | a receipt that matches came | yes | since signed or resumed |
//! | `rejected` | the seller asked again | yes | since signed or resumed |
//! | `unknown` | the answer was lost, says nothing certain, or nobody waited for it | yes | since signed or resumed |
//! | `called` | a call by an API key is counted, and not yet sent; the amount is its declared cost | amount | |
//! | `turned_away` | a call by key was refused, and counts no more | amount | |
//!
//! A purchase has `signed` or `resumed` once for each time that it is taken up, and then exactly one
//! of `settled`, `rejected` and `unknown`: the money may be out in all three. A
//! [`Payment`](crate::Payment) that a caller concludes twice has two.
//!
//! # Spans and log events
//!
//! | span | level | fields |
//! |---|---|---|
//! | `bursar.request` | DEBUG | `method`, `origin`, `tag`; at its end `status`, `spend`, and `error` (the kind) |
//! | `bursar.payment` | INFO | `method`, `origin`, `tag`, `agent`; once known `purchase`, `amount`, `payee` |
//! | `bursar.presentation` | DEBUG | `purchase`, `origin`, `number`; at its end `status` |
//!
//! The events of the first table are `tracing` events of target `bursar::payment`, with the fields
//! `event` (the name), `origin`, `purchase`, `amount`, `usd`, `tag`, `agent`, `rule` and `elapsed_ms`
//! as far as they apply; `challenged`, `reserved` and `presented` at DEBUG, all else at INFO. What
//! the books could not take is told at WARN and ERROR, with `error` and `purchase`.
//!
//! # What is left out
//!
//! Keys, signatures and payment headers; paths, queries and bodies; and every text that a seller
//! wrote. Of a URL there is its origin. Tags, agents and purchase ids are the caller's own words.
//!
//! # What an observer can break
//!
//! No payment: it returns nothing, and a panic in it is caught and logged (in programs that unwind).
//! It is called from within the purchase, between one step and the next: it must not block, and what
//! it sends elsewhere belongs in a channel.

mod counts;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub use counts::Counts;

use crate::asset::TokenAmount;
use crate::ledger::{Purchase, PurchaseId};
use crate::policy::Rule;
use crate::{Origin, Timestamp};

/// Is told what happens to payments, as it happens.
///
/// Any function of an [`Event`] is one.
pub trait Observer: Send + Sync + 'static {
    /// Takes note. ApiCall within a purchase: it must not block.
    fn observe(&self, event: &Event<'_>);
}

impl<F: Fn(&Event<'_>) + Send + Sync + 'static> Observer for F {
    fn observe(&self, event: &Event<'_>) {
        self(event);
    }
}

/// One step of a purchase, or of a call by key.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The seller.
    pub origin: &'a Origin,
    /// The purchase, from when there is one.
    pub purchase: Option<&'a PurchaseId>,
    /// Token and amount, from when they are chosen.
    pub amount: Option<&'a TokenAmount>,
    /// The request's tag.
    pub tag: Option<&'a str>,
    /// The agent that buys.
    pub agent: Option<&'a str>,
    /// By the client's clock; see [the module](self) for what it measures.
    pub elapsed: Option<Duration>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[expect(missing_docs, reason = "the module's table says when each is")]
pub enum EventKind {
    Challenged,
    Denied {
        /// The rule that refused.
        rule: Rule,
    },
    Reserved,
    Signed,
    Unsigned,
    Resumed,
    Presented,
    Settled,
    Rejected,
    Unresolved,
    ApiCall,
    TurnedAway,
}

impl EventKind {
    /// The stable name, such as `settled`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Challenged => "challenged",
            Self::Denied { .. } => "denied",
            Self::Reserved => "reserved",
            Self::Signed => "signed",
            Self::Unsigned => "unsigned",
            Self::Resumed => "resumed",
            Self::Presented => "presented",
            Self::Settled => "settled",
            Self::Rejected => "rejected",
            Self::Unresolved => "unresolved",
            Self::ApiCall => "api_call",
            Self::TurnedAway => "turned_away",
        }
    }

    /// The rule, of a denial.
    #[must_use]
    pub const fn rule(self) -> Option<Rule> {
        match self {
            Self::Denied { rule } => Some(rule),
            _ => None,
        }
    }

    const fn is_step(self) -> bool {
        matches!(self, Self::Challenged | Self::Reserved | Self::Presented)
    }
}

impl<'a> Event<'a> {
    /// The stable name of what happened, such as `settled`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub(crate) const fn new(kind: EventKind, origin: &'a Origin, tag: Option<&'a str>) -> Self {
        Self {
            kind,
            origin,
            purchase: None,
            amount: None,
            tag,
            agent: None,
            elapsed: None,
        }
    }

    /// Writes it to the log.
    fn trace(&self) {
        // Levels are part of a callsite.
        macro_rules! write_at {
            ($level:expr) => {
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
                    elapsed_ms = self.elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
                )
            };
        }
        if self.kind.is_step() {
            write_at!(tracing::Level::DEBUG);
        } else {
            write_at!(tracing::Level::INFO);
        }
    }
}

/// Any observer, or none.
#[derive(Clone, Default)]
pub(crate) struct AnyObserver(Option<Arc<dyn Observer>>);

impl AnyObserver {
    pub(crate) fn new(observer: impl Observer) -> Self {
        Self(Some(Arc::new(observer)))
    }

    /// Logs the event, and tells the observer. Nothing that it does comes back.
    pub(crate) fn emit(&self, event: &Event<'_>) {
        event.trace();
        let Some(observer) = &self.0 else { return };
        // What it was in the midst of is its own.
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

/// A purchase as its events tell of it.
#[derive(Clone, Debug)]
pub(crate) struct PurchaseEvents {
    origin: Origin,
    purchase: PurchaseId,
    tag: Option<String>,
    amount: TokenAmount,
    since: Timestamp,
}

impl PurchaseEvents {
    pub(crate) fn new(entry: &Purchase, amount: TokenAmount, since: Timestamp) -> Self {
        Self {
            origin: entry.origin.clone(),
            purchase: entry.id.clone(),
            tag: entry.tag.clone(),
            amount,
            since,
        }
    }

    pub(crate) const fn origin(&self) -> &Origin {
        &self.origin
    }

    pub(crate) fn event(&self, kind: EventKind) -> Event<'_> {
        let event = Event::new(kind, &self.origin, self.tag.as_deref());
        Event {
            purchase: Some(&self.purchase),
            amount: Some(&self.amount),
            ..event
        }
    }

    /// With the time since the payment was taken in hand.
    pub(crate) fn timed(&self, kind: EventKind, now: Timestamp) -> Event<'_> {
        Event {
            elapsed: Some(self.since.until(now)),
            ..self.event(kind)
        }
    }
}
