//! The databases that a ledger can use.

use std::sync::Arc;

use alloy::primitives::B256;

use super::denials::DenialCount;
use super::memory::Memory;
#[cfg(feature = "postgres")]
use super::postgres::Postgres;
#[cfg(feature = "sqlite")]
use super::sqlite::Sqlite;
use super::{
    Bought, Calls, Filter, Freeze, LedgerError, Purchase, PurchaseKey, Reservation, Reserved,
    Resumed, Resumption, Transition, Verification,
};
use crate::clock::Timestamp;
use crate::limit::{LimitCheck, LimitStatus};

/// A database. Clones use the same one.
///
/// [`Reservation`], [`Resumption`] and [`Purchase::apply`] decide; a database only stores. Each
/// method is atomic, and a change is durable before the method returns, except for outcomes in SQLite, which reach the
/// disk soon after. A database that cannot be read or written returns an error, and nothing is paid.
#[derive(Clone)]
pub(super) enum Backend {
    Memory(Arc<Memory>),
    #[cfg(feature = "sqlite")]
    Sqlite(Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(Postgres),
}

/// Calls the same method of each database. Memory does not wait. The other futures are large, so they
/// are boxed.
macro_rules! dispatch {
    ($backend:expr, $database:ident => $call:expr) => {
        match $backend {
            Backend::Memory($database) => $call,
            #[cfg(feature = "sqlite")]
            Backend::Sqlite($database) => Box::pin($call).await,
            #[cfg(feature = "postgres")]
            Backend::Postgres($database) => Box::pin($call).await,
        }
    };
}

impl Backend {
    /// Looks the purchase up, checks every limit and writes the hold.
    pub(super) async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        dispatch!(self, database => database.reserve(reservation))
    }

    /// Records a change of a purchase.
    pub(super) async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        dispatch!(self, database => database.record(purchase, transition, now))
    }

    /// Gives the oldest purchase that can be resumed to one of the callers that ask for it.
    pub(super) async fn resume(&self, wanted: &Resumption) -> Result<Resumed, LedgerError> {
        dispatch!(self, database => database.resume(wanted))
    }

    /// Stores the freeze, or removes it.
    pub(super) async fn set_freeze(&self, freeze: Option<&Freeze>) -> Result<(), LedgerError> {
        dispatch!(self, database => database.set_freeze(freeze))
    }

    /// Returns the freeze.
    pub(super) async fn frozen(&self) -> Result<Option<Freeze>, LedgerError> {
        dispatch!(self, database => database.frozen())
    }

    /// Answers the checks without holding anything.
    pub(super) async fn examine(
        &self,
        checks: &LimitCheck,
    ) -> Result<Vec<LimitStatus>, LedgerError> {
        dispatch!(self, database => database.examine(checks))
    }

    /// Returns one purchase.
    pub(super) async fn purchase(
        &self,
        purchase: &PurchaseKey,
    ) -> Result<Option<Purchase>, LedgerError> {
        dispatch!(self, database => database.purchase(purchase))
    }

    /// Returns the oldest purchases that pass the filter, at most [`PAGE`](super::filter::PAGE).
    pub(super) async fn page(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        dispatch!(self, database => database.page(filter))
    }

    /// Returns the number of the purchase before the `last` newest ones that pass the filter.
    pub(super) async fn before_last(
        &self,
        filter: &Filter,
        last: usize,
    ) -> Result<Option<u64>, LedgerError> {
        dispatch!(self, database => database.before_last(filter, last))
    }

    /// Counts the calls with an API key.
    pub(super) async fn calls(&self, calls: &Calls<'_>) -> Result<u64, LedgerError> {
        dispatch!(self, database => database.calls(calls))
    }

    /// Returns whether there is such a purchase.
    pub(super) async fn has_bought(&self, bought: &Bought<'_>) -> Result<bool, LedgerError> {
        dispatch!(self, database => database.has_bought(bought))
    }

    /// Adds denials to the counts.
    pub(super) async fn add_denials(&self, denials: &[DenialCount]) -> Result<(), LedgerError> {
        dispatch!(self, database => database.add_denials(denials))
    }

    /// Returns whether denials can be added without waiting.
    pub(super) const fn writes_later(&self) -> bool {
        match self {
            Self::Memory(_) => true,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => true,
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => false,
        }
    }

    /// Adds denials to the counts, without waiting for the database. Logs a failure.
    pub(super) fn add_denials_later(&self, denials: Vec<DenialCount>) {
        let sent = match self {
            Self::Memory(memory) => memory.add_denials(&denials),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(sqlite) => sqlite.add_denials_later(denials),
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => Err(LedgerError::store("the program has ended")),
        };
        if let Err(error) = sent {
            tracing::debug!(%error, "the ledger did not count denials");
        }
    }

    /// Returns the counts of denials.
    pub(super) async fn denials(&self) -> Result<Vec<DenialCount>, LedgerError> {
        dispatch!(self, database => database.denials())
    }

    /// Checks every event and every purchase. Calls `read` with the number of rows of each step.
    pub(super) async fn verify(
        &self,
        noted: Option<B256>,
        read: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Verification, LedgerError> {
        dispatch!(self, database => database.verify(noted, read))
    }

    /// The name of the kind of database, for `Debug`.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Memory(_) => "memory",
            #[cfg(feature = "sqlite")]
            Self::Sqlite(_) => "sqlite",
            #[cfg(feature = "postgres")]
            Self::Postgres(_) => "postgres",
        }
    }
}
