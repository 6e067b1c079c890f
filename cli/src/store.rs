//! The books of the command line: a file, or a schema of a PostgreSQL server.

#[cfg(feature = "postgres")]
use bursar::PostgresLedger;
use bursar::{
    B256, Checks, Entry, Filter, Finding, Ledger, LedgerError, PurchaseKey, Reservation, Reserved,
    Resumption, SqliteLedger, StopOrder, Timestamp, Transition, Verification,
};

/// The books, wherever they are kept.
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

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Entry>, LedgerError> {
        each!(self, ledger => ledger.resume(wanted).await)
    }

    async fn stop(&self, order: Option<&StopOrder>) -> Result<(), LedgerError> {
        each!(self, ledger => ledger.stop(order).await)
    }

    async fn stopped(&self) -> Result<Option<StopOrder>, LedgerError> {
        each!(self, ledger => ledger.stopped().await)
    }

    async fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        each!(self, ledger => ledger.examine(checks).await)
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Entry>, LedgerError> {
        each!(self, ledger => ledger.purchase(purchase).await)
    }

    async fn entries(&self, filter: &Filter) -> Result<Vec<Entry>, LedgerError> {
        each!(self, ledger => ledger.entries(filter).await)
    }
}
