//! The ledger of the command: a SQLite file or a PostgreSQL database.

#[cfg(feature = "postgres")]
use bursar::PostgresLedger;
use bursar::{
    B256, Checks, Filter, Finding, Freeze, Ledger, LedgerError, Purchase, PurchaseKey, Reservation,
    Reserved, Resumption, SqliteLedger, Timestamp, Transition, Verification,
};

/// A ledger in one of its stores.
#[derive(Clone, Debug)]
pub(crate) enum Store {
    Sqlite(SqliteLedger),
    #[cfg(feature = "postgres")]
    Postgres(PostgresLedger),
}

macro_rules! each {
    ($store:expr, $ledger:ident => $call:expr) => {
        match $store {
            Store::Sqlite($ledger) => $call,
            #[cfg(feature = "postgres")]
            Store::Postgres($ledger) => $call,
        }
    };
}

impl Store {
    pub(crate) async fn verify(&self, noted: Option<B256>) -> Result<Verification, LedgerError> {
        each!(self, ledger => ledger.verify(noted).await)
    }
}

impl Ledger for Store {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        each!(self, ledger => ledger.reserve(reservation).await)
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        each!(self, ledger => ledger.record(purchase, transition, now).await)
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        each!(self, ledger => ledger.resume(wanted).await)
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        each!(self, ledger => ledger.stop(order).await)
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        each!(self, ledger => ledger.stopped().await)
    }

    async fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        each!(self, ledger => ledger.examine(checks).await)
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        each!(self, ledger => ledger.purchase(purchase).await)
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        each!(self, ledger => ledger.purchases(filter).await)
    }
}
