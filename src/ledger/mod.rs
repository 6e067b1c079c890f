//! The books: what was reserved, signed, paid and lost track of.
//!
//! [`Ledger::reserve`] is the only way to hold money, and checks every limit in the same atomic
//! step. From the moment an authorization is recorded as signed it counts as spent.

#[cfg(test)]
mod conformance;
mod entry;
mod export;
mod memory;
#[cfg(test)]
mod model;
#[cfg(feature = "postgres")]
mod postgres;
mod purchase;
#[cfg(all(test, bursar_shuttle))]
mod schedules;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod seal;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
mod transition;
mod usage;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{Address, B256};

use crate::limit::{Amount, Chargeable, Denial, LimitCheck, LimitStatus, Moment, Unit};
use crate::{Origin, Timestamp};

pub(crate) use entry::NewPurchase;
pub use entry::{Purchase, State};
pub(crate) use export::line as csv_line;
pub use export::{write_csv, write_jsonl};
pub use memory::MemoryLedger;
#[cfg(feature = "postgres")]
pub use postgres::PostgresLedger;
pub use purchase::{PurchaseId, PurchaseIdError};
pub(crate) use purchase::{nonce, random_hex};
#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub use seal::{Fault, Verification};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteLedger;
pub use transition::{BodyDigest, ClaimedReceipt, Refund, SellerAnswer, Transition};

/// The books that a client keeps.
///
/// All methods may be called at once, from many tasks and, for shared stores, many processes. An
/// implementation must fail closed: when it cannot tell, it returns an error, and nothing is paid.
///
/// What must be decided is decided here; a backend stores. To reserve, it begins a transaction that
/// excludes other writers, looks up [`Reservation::key`], follows [`Reservation::plan`], puts
/// [`Reservation::checks`] to its store, frees the holds of others that lapsed
/// ([`Reservation::lapse`]) and writes the entry. To record, it applies
/// [`Purchase::apply`] to what it holds and writes the result. To resume, it offers the purchases of the
/// same request to [`Resumption::take_up`] and writes what that returns. Entries hold a payment header that only
/// this crate reads back, so a backend of your own keeps [`Purchase`] values, or wraps one that ships.
pub trait Ledger: Send + Sync + 'static {
    /// Holds money for a purchase: looks the purchase up, checks every limit and writes the hold,
    /// in one atomic and durable step.
    ///
    /// # Errors
    /// When the books cannot be read or written.
    fn reserve(
        &self,
        reservation: &Reservation,
    ) -> impl Future<Output = Result<Reserved, LedgerError>> + Send;

    /// Records what became of a purchase, durably.
    ///
    /// # Errors
    /// When the books cannot be written, hold no such purchase, or it is in a state that does not
    /// allow the transition.
    fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// Takes up the oldest unresolved purchase of the same request that nobody is at, in one atomic
    /// and durable step: of two that ask at once, one gets it.
    ///
    /// # Errors
    /// When the books cannot be read or written.
    fn resume(
        &self,
        wanted: &Resumption,
    ) -> impl Future<Output = Result<Option<Purchase>, LedgerError>> + Send;

    /// Stops all paying from these books, by whomever, until it is lifted with `None`.
    ///
    /// # Errors
    /// When the books cannot be written.
    fn stop(&self, order: Option<&Freeze>) -> impl Future<Output = Result<(), LedgerError>> + Send;

    /// The order to stop, if one stands.
    ///
    /// # Errors
    /// When the books cannot be read.
    fn stopped(&self) -> impl Future<Output = Result<Option<Freeze>, LedgerError>> + Send;

    /// Answers the checks without holding anything.
    ///
    /// # Errors
    /// When the books cannot be read.
    fn examine(
        &self,
        checks: &LimitCheck,
    ) -> impl Future<Output = Result<Vec<LimitStatus>, LedgerError>> + Send;

    /// One purchase.
    ///
    /// # Errors
    /// When the books cannot be read.
    fn purchase(
        &self,
        purchase: &PurchaseKey,
    ) -> impl Future<Output = Result<Option<Purchase>, LedgerError>> + Send;

    /// Purchases that pass the filter, oldest first.
    ///
    /// # Errors
    /// When the books cannot be read.
    fn purchases(
        &self,
        filter: &Filter,
    ) -> impl Future<Output = Result<Vec<Purchase>, LedgerError>> + Send;
}

/// What identifies a purchase in the books: the payer and the purchase's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PurchaseKey {
    /// Who pays.
    pub payer: Address,
    /// Which of the payer's purchases.
    pub id: PurchaseId,
}

impl PurchaseKey {
    /// The purchase `id` of `payer`.
    #[must_use]
    pub const fn new(payer: Address, id: PurchaseId) -> Self {
        Self { payer, id }
    }
}

/// A wish to hold money.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub(crate) entry: NewPurchase,
    pub(crate) checks: LimitCheck,
    /// How long the hold stands without a signature.
    pub(crate) lease: Duration,
    pub(crate) terms: Terms,
}

/// Whether a reservation may change the terms of a purchase that has been signed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terms {
    First,
    Changed,
}

/// What to do with a reservation, given what the books know of its purchase.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "a ledger must handle both")]
pub enum Plan {
    /// Check the limits, then write this entry in place of what is known.
    Hold(Box<Purchase>),
    /// Write nothing, and answer this.
    Answer(Reserved),
}

impl Reservation {
    /// The purchase that money is to be held for.
    #[must_use]
    pub fn key(&self) -> PurchaseKey {
        self.entry.key()
    }

    /// The checks to answer, in the same atomic step, before anything is held.
    #[must_use]
    pub const fn checks(&self) -> &LimitCheck {
        &self.checks
    }

    /// The entry freed, if it is another purchase's hold that lapsed: it did not count in the checks,
    /// and must not be signed any more once this one is written.
    #[must_use]
    pub fn lapse(&self, other: &Purchase) -> Option<Purchase> {
        let now = self.checks.now();
        let mut freed = other.clone();
        (other.has_lapsed(now) && other.key() != self.key() && freed.lapse(now).is_ok())
            .then_some(freed)
    }

    /// Decides by what the books hold of this purchase so far.
    #[must_use]
    pub fn plan(&self, known: Option<Purchase>) -> Plan {
        use State::{ApiCall, Rejected, ReleasedByProof, Settled, Signed, Unresolved, Voided};
        let now = self.checks.now();
        let lease = now.after(self.lease);
        let fresh = |generation| Plan::Hold(Box::new(self.entry.open(generation, now, lease)));
        let Some(known) = known else { return fresh(0) };
        if known.fingerprint != self.entry.fingerprint {
            return Plan::Answer(Reserved::Mismatch);
        }
        // A signer that did not answer left nothing to present: the same nonce is signed once more.
        let again = self.terms == Terms::Changed || known.payload.is_none();
        match known.state {
            Voided => fresh(known.generation),
            // The chain proved the nonce dead, and would refuse it for ever.
            ReleasedByProof => fresh(known.generation.saturating_add(1)),
            State::Reserved if known.lease_until <= now => fresh(known.generation),
            State::Reserved => Plan::Answer(Reserved::InFlight),
            ApiCall => Plan::Answer(Reserved::Mismatch),
            Settled => Plan::Answer(Reserved::Known(Box::new(known))),
            Signed | Rejected | Unresolved if !again => {
                Plan::Answer(Reserved::Known(Box::new(known)))
            }
            Signed | Rejected | Unresolved if known.presenter_lease_until > now => {
                Plan::Answer(Reserved::InFlight)
            }
            Signed | Rejected | Unresolved if !self.entry.excludes(&known) => {
                Plan::Answer(Reserved::Mismatch)
            }
            Signed | Rejected | Unresolved if known.payee != self.entry.payee => {
                Plan::Answer(Reserved::Denied(Box::new(self.entry.payee_changed(&known))))
            }
            Signed | Rejected | Unresolved => {
                Plan::Hold(Box::new(self.entry.requote(known, now, lease)))
            }
        }
    }
}

/// A wish to present again what was signed for the same request before, instead of buying anew.
#[derive(Clone, Debug)]
pub struct Resumption {
    pub(crate) payer: Address,
    pub(crate) fingerprint: B256,
    pub(crate) origin: Origin,
    pub(crate) tag: Option<String>,
    pub(crate) agent: Option<String>,
    /// What the caller pays at most.
    pub(crate) max: Option<Amount>,
    pub(crate) now: Timestamp,
    pub(crate) until: Timestamp,
}

impl Resumption {
    /// Who pays.
    #[must_use]
    pub const fn payer(&self) -> Address {
        self.payer
    }

    /// The request, as [`Purchase::fingerprint`] has it.
    #[must_use]
    pub const fn fingerprint(&self) -> B256 {
        self.fingerprint
    }

    /// The entry as it is to be written, if it is to be taken up: something signed for the same
    /// request that was not delivered, can still be cashed, and that nobody is at.
    #[must_use]
    pub fn take_up(&self, entry: &Purchase) -> Option<Purchase> {
        let same = entry.payer == self.payer
            && entry.fingerprint == self.fingerprint
            && entry.origin == self.origin
            && entry.tag == self.tag
            && entry.agent == self.agent;
        let undelivered = entry.is_unresolved() && !entry.delivered();
        let left = undelivered && entry.payload.is_some() && entry.expires_at > self.now;
        let within = |max: &Amount| {
            let unit = Unit::of_amount(max, false);
            let charge = entry.charge(Moment::CountsAt);
            charge
                .and_then(|charge| unit.measure(&charge))
                .is_some_and(|units| units <= max.units())
        };
        (same
            && left
            && self.max.as_ref().is_none_or(within)
            && entry.presenter_lease_until <= self.now)
            .then(|| Purchase {
                presenter_lease_until: self.until,
                updated_at: self.now,
                ..entry.clone()
            })
    }
}

/// An order, in the books themselves, to stop paying.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freeze {
    /// Why, for people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
}

impl Freeze {
    /// An order from `since` on.
    #[must_use]
    pub fn new(reason: impl Into<String>, since: Timestamp) -> Self {
        Self {
            reason: reason.into(),
            since,
        }
    }
}

/// The books' answer to a reservation.
#[derive(Debug)]
#[non_exhaustive]
pub enum Reserved {
    /// The money is held.
    Held(Box<Purchase>),
    /// A limit has no room; nothing is held.
    Denied(Box<Denial>),
    /// The purchase was signed before: present its authorization again, never sign another.
    Known(Box<Purchase>),
    /// Another task or process is buying it at this moment.
    InFlight,
    /// The id belongs to another request, or the new terms could be paid beside the old ones.
    Mismatch,
}

/// Which purchases [`Ledger::purchases`] returns. All conditions must hold.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Filter {
    /// Reserved at or after this moment.
    pub since: Option<Timestamp>,
    /// Reserved before this moment.
    pub until: Option<Timestamp>,
    /// To this origin.
    pub origin: Option<Origin>,
    /// To this payee.
    pub payee: Option<Address>,
    /// With this tag.
    pub tag: Option<String>,
    /// By this agent.
    pub agent: Option<String>,
    /// Calls made with the key of this name.
    pub credential: Option<String>,
    /// In this state.
    pub state: Option<State>,
    /// Only what the chain has still to be asked about: [`Purchase::is_unproven`].
    pub unproven: bool,
    /// The newest so many.
    pub last: Option<usize>,
}

impl Filter {
    /// Everything.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    pub(crate) fn passes(&self, entry: &Purchase) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none() || wanted == found
        }
        self.since.is_none_or(|since| entry.reserved_at >= since)
            && self.until.is_none_or(|until| entry.reserved_at < until)
            && is(self.origin.as_ref(), Some(&entry.origin))
            && is(self.payee.as_ref(), Some(&entry.payee))
            && is(self.tag.as_ref(), entry.tag.as_ref())
            && is(self.agent.as_ref(), entry.agent.as_ref())
            && is(self.credential.as_ref(), entry.credential.as_ref())
            && is(self.state.as_ref(), Some(&entry.state))
            && (!self.unproven || entry.is_unproven())
    }
}

/// The books cannot be read or written. Paying stops until they can.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The store cannot be reached, is full, read-only, locked or damaged.
    #[error("the ledger cannot be used: {0}")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A value in the store is not what was written there.
    #[error("the ledger is damaged: {0}")]
    Damaged(String),
    /// The store was written by a newer version of bursar.
    #[error("the ledger has schema version {found}; this bursar reads up to {known}")]
    Newer {
        /// Version of the store.
        found: i64,
        /// Version of this crate.
        known: i64,
    },
    /// The books hold no such purchase.
    #[error("the ledger has no purchase `{0}`")]
    UnknownPurchase(PurchaseId),
    /// The purchase is in a state that does not allow this.
    #[error("purchase `{purchase}` is {state} and cannot become {wanted}")]
    Transition {
        /// The purchase.
        purchase: PurchaseId,
        /// Its state.
        state: State,
        /// What it was to become.
        wanted: &'static str,
    },
}

impl LedgerError {
    /// Wraps a store's own error.
    pub fn store(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Store(error.into())
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, LedgerError>> + Send + 'a>>;

/// The object-safe twin of [`Ledger`].
trait DynLedger: Send + Sync {
    fn reserve<'a>(&'a self, reservation: &'a Reservation) -> BoxFuture<'a, Reserved>;
    fn record<'a>(
        &'a self,
        purchase: &'a PurchaseKey,
        transition: &'a Transition,
        now: Timestamp,
    ) -> BoxFuture<'a, ()>;
    fn resume<'a>(&'a self, wanted: &'a Resumption) -> BoxFuture<'a, Option<Purchase>>;
    fn stop<'a>(&'a self, order: Option<&'a Freeze>) -> BoxFuture<'a, ()>;
    fn stopped(&self) -> BoxFuture<'_, Option<Freeze>>;
    fn examine<'a>(&'a self, checks: &'a LimitCheck) -> BoxFuture<'a, Vec<LimitStatus>>;
    fn purchase<'a>(&'a self, purchase: &'a PurchaseKey) -> BoxFuture<'a, Option<Purchase>>;
    fn purchases<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Vec<Purchase>>;
}

impl<L: Ledger> DynLedger for L {
    fn reserve<'a>(&'a self, reservation: &'a Reservation) -> BoxFuture<'a, Reserved> {
        Box::pin(Ledger::reserve(self, reservation))
    }

    fn record<'a>(
        &'a self,
        purchase: &'a PurchaseKey,
        transition: &'a Transition,
        now: Timestamp,
    ) -> BoxFuture<'a, ()> {
        Box::pin(Ledger::record(self, purchase, transition, now))
    }

    fn resume<'a>(&'a self, wanted: &'a Resumption) -> BoxFuture<'a, Option<Purchase>> {
        Box::pin(Ledger::resume(self, wanted))
    }

    fn stop<'a>(&'a self, order: Option<&'a Freeze>) -> BoxFuture<'a, ()> {
        Box::pin(Ledger::stop(self, order))
    }

    fn stopped(&self) -> BoxFuture<'_, Option<Freeze>> {
        Box::pin(Ledger::stopped(self))
    }

    fn examine<'a>(&'a self, checks: &'a LimitCheck) -> BoxFuture<'a, Vec<LimitStatus>> {
        Box::pin(Ledger::examine(self, checks))
    }

    fn purchase<'a>(&'a self, purchase: &'a PurchaseKey) -> BoxFuture<'a, Option<Purchase>> {
        Box::pin(Ledger::purchase(self, purchase))
    }

    fn purchases<'a>(&'a self, filter: &'a Filter) -> BoxFuture<'a, Vec<Purchase>> {
        Box::pin(Ledger::purchases(self, filter))
    }
}

/// Any ledger, shared.
#[derive(Clone)]
pub(crate) struct AnyLedger(Arc<dyn DynLedger>);

impl AnyLedger {
    pub(crate) fn new(ledger: impl Ledger) -> Self {
        Self(Arc::new(ledger))
    }

    pub(crate) async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        self.0.reserve(reservation).await
    }

    pub(crate) async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.0.record(purchase, transition, now).await
    }

    pub(crate) async fn resume(
        &self,
        wanted: &Resumption,
    ) -> Result<Option<Purchase>, LedgerError> {
        self.0.resume(wanted).await
    }

    pub(crate) async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        self.0.stop(order).await
    }

    pub(crate) async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        self.0.stopped().await
    }

    pub(crate) async fn examine(
        &self,
        checks: &LimitCheck,
    ) -> Result<Vec<LimitStatus>, LedgerError> {
        self.0.examine(checks).await
    }

    pub(crate) async fn purchase(
        &self,
        purchase: &PurchaseKey,
    ) -> Result<Option<Purchase>, LedgerError> {
        self.0.purchase(purchase).await
    }

    pub(crate) async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        self.0.purchases(filter).await
    }
}

impl fmt::Debug for AnyLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ledger")
    }
}

impl<L: Ledger> Ledger for Arc<L> {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        L::reserve(self, reservation).await
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        L::record(self, purchase, transition, now).await
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        L::resume(self, wanted).await
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        L::stop(self, order).await
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        L::stopped(self).await
    }

    async fn examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        L::examine(self, checks).await
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        L::purchase(self, purchase).await
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        L::purchases(self, filter).await
    }
}
