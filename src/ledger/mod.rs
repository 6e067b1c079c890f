//! The ledger: a record of every purchase and of its outcome.
//!
//! [`Ledger`] is the only public type that touches a database. A reservation checks every limit and
//! holds the amount in one atomic step. From the moment at which bursar records a signature, the
//! amount counts as spent.

mod backend;
mod compare;
#[cfg(test)]
mod conformance;
mod denials;
mod error;
mod evidence;
mod export;
mod filter;
mod freeze;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod hash_chain;
mod key;
mod memory;
#[cfg(test)]
mod model;
mod one_step;
mod open;
mod pending;
#[cfg(feature = "postgres")]
mod postgres;
mod prune;
mod purchase;
mod reconcile;
mod refund;
pub mod report;
mod reservation;
mod restore;
mod room;
#[cfg(all(test, bursar_shuttle))]
mod schedules;
mod seller_answer;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod sql;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(test)]
mod tests;
mod transition;
mod usage;
mod verification;
mod warned;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

#[cfg(any(feature = "postgres", feature = "sqlite"))]
pub(crate) use crate::eip3009::random_hex;
pub use crate::eip3009::{PurchaseId, PurchaseIdError};
pub(crate) use crate::eip3009::{nonce, two_random_hex};
pub use denials::DenialCount;
pub use error::LedgerError;
pub use evidence::{Evidence, EvidenceAuthorization, EvidenceRequest};
pub(crate) use export::line as csv_line;
pub use export::{write_csv, write_csv_rows, write_jsonl};
pub use filter::{Filter, Pages};
pub use freeze::Freeze;
pub use key::PurchaseKey;
pub(crate) use one_step::{InStep, Obtained, Signature, SignedPurchase, SignsInStep};
pub use open::OpenOptions;
pub use prune::Pruned;
pub(crate) use purchase::NewPurchase;
pub use purchase::{Purchase, State};
pub(crate) use reconcile::PROVABLE_AFTER;
pub use reconcile::Reconciled;
pub use refund::Refund;
pub(crate) use reservation::{Reservation, Reserved, Resumed, Resumption, Terms};
pub use restore::Restored;
pub(crate) use room::{Flight, Place};
pub use seller_answer::{BodyDigest, ClaimedReceipt, SellerAnswer};
pub(crate) use transition::Transition;
pub(crate) use usage::{Bought, Calls};
pub use verification::{LedgerFault, Verification};

/// The target of the `tracing` warning that a new ledger begins in a file.
///
/// The warning names the absolute path. A program that must not begin a ledger calls
/// [`Ledger::open_existing`].
pub const NEW_LEDGER: &str = "bursar::ledger::new";

use backend::Backend;
use denials::Denials;
use memory::Memory;
use pending::Pending;
use reservation::Plan;
use room::Room;
use warned::Warned;

use crate::clock::{Clock, SystemClock, Timestamp};
use crate::limit::{LimitCheck, LimitStatus};

/// A record of every purchase: in memory, in a SQLite file or in a PostgreSQL database.
///
/// A client writes to its ledger before a payment leaves and after each answer, so that a crash
/// loses no payment and no limit is exceeded. Give the ledger to
/// [`ClientBuilder::ledger`](crate::ClientBuilder::ledger).
///
/// You can also open a ledger without a client. Reading it, reconciling it with the chain and
/// freezing it need neither a key nor a policy.
///
/// Clones are cheap and use the same database. All methods can be called at the same time from many
/// tasks, and, for a file or a server, from many processes. If the database cannot be read or
/// written, the method returns an error and the client does not pay.
///
/// ```no_run
/// # async fn example() -> Result<(), bursar::ledger::LedgerError> {
/// use bursar::report::Selection;
/// use bursar::Ledger;
/// use bursar::ledger::Filter;
///
/// let ledger = Ledger::open("agent.db")?;
/// for purchase in ledger.purchases(&Filter::all()).await? {
///     println!("{} {} {}", purchase.reserved_at, purchase.state, purchase.origin);
/// }
/// let report = ledger.report(&Selection::new().tag("research")).await?;
/// println!("{} USD in {} payments", report.total.spent.usd, report.total.spent.count);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Ledger {
    backend: Backend,
    clock: Arc<dyn Clock>,
    pending: Arc<Pending>,
    room: Arc<Room>,
    denials: Arc<Denials>,
    warned: Arc<Warned>,
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Ledger").field(&self.backend.name()).finish()
    }
}

impl Ledger {
    fn new(backend: Backend) -> Self {
        Self {
            denials: Arc::new(Denials::new(backend.clone())),
            warned: Arc::default(),
            backend,
            clock: Arc::new(SystemClock),
            pending: Arc::default(),
            room: Arc::default(),
        }
    }

    /// Returns an empty ledger in the memory of this process.
    ///
    /// Limits begin again with every process, and a crash forgets signed payments. Use it for tests,
    /// and for wallets that hold no more than you are ready to lose.
    ///
    /// ```
    /// use bursar::{Client, Ledger, LocalSigner, Policy};
    ///
    /// let client = Client::builder()
    ///     .signer(LocalSigner::random()?)
    ///     .policy(Policy::new().allow_network("base-sepolia"))
    ///     .ledger(Ledger::memory())
    ///     .build()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Backend::Memory(Arc::new(Memory::default())))
    }

    /// Opens the ledger in the SQLite file at `path`. Creates the file if it is missing, and logs the
    /// new path as a warning. [`open_existing`](Self::open_existing) creates nothing.
    ///
    /// All clients and processes on this machine can share the file. It must be on a local disk: on Linux, a file system
    /// that other machines can use is [refused](LedgerError::SharedFileSystem). A new file can be read by its owner only
    /// (mode 0600). The directory must exist, so that a mistyped path is an error and not an empty ledger.
    /// The path `:memory:` opens a private database that ends with its last handle.
    ///
    /// A ledger has up to four files: `agent.db`, its log `agent.db-wal` with the index `agent.db-shm`,
    /// and its witness `agent.db-head`. Share their directory with other programs and containers, never
    /// a single file. Copy a ledger with [`backup`](Self::backup). Your program must not open these files
    /// in another way: closing any of them drops the locks of SQLite in the whole process.
    ///
    /// One thread of its own reads and writes the file, so no task waits for the disk. Dropping the
    /// last handle waits until the thread has written the log back and closed the file, for some
    /// milliseconds. A signed purchase is on disk before its payment leaves. Its outcome is in the file some
    /// milliseconds after the call returned, and on disk within a second or when the ledger is closed. If a kill or a power cut
    /// takes it, the payment counts as spent. Dropping the future of a call does not undo its change. A process that was forked must open the ledger again.
    ///
    /// This function blocks on the disk, and up to 10 seconds on another process that is writing.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read and written, is not a SQLite database, belongs to
    /// another program, was written by a newer bursar, is cut off, or has tables or indices that
    /// bursar did not make. The file is not changed then. Returns [`LedgerError::Damaged`] if the file lacks
    /// purchases that its witness has seen or has no witness, [`LedgerError::SecondName`] if one of the
    /// files has a second name, and [`LedgerError::Exposed`] if other users can read one of them.
    ///
    /// Each call on the open ledger returns [`LedgerError::Damaged`] after one of the files was replaced,
    /// deleted, renamed or cut, until you open the ledger again.
    ///
    /// ```no_run
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::sqlite("agent.db")?;
    /// # Ok::<(), bursar::ledger::LedgerError>(())
    /// ```
    #[cfg(feature = "sqlite")]
    pub fn sqlite(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        sqlite::Sqlite::open(path.as_ref(), &OpenOptions::new())
            .map(|sqlite| Self::new(Backend::Sqlite(sqlite)))
    }

    /// Connects to the ledger in the schema `bursar` of the PostgreSQL database at `url`. Creates
    /// the schema if it is missing.
    ///
    /// All clients, processes and hosts that reach the server can share the ledger. The clock of the
    /// client decides about limits, so the clocks of the hosts should agree.
    ///
    /// `url` is a connection string of libpq, such as `postgresql://user:password@host/database`.
    /// The `sslmode` values `disable`, `prefer` and `require` are supported. bursar connects to a
    /// server on another host over TLS, and the operating system must trust its certificate
    /// (`SSL_CERT_FILE` names others), unless the URL has `sslmode=disable`. If the URL names several
    /// hosts, bursar uses the one that accepts writes.
    ///
    /// The changes of a process that wait at the same time share one `SERIALIZABLE` transaction, which is on the
    /// server's disk before their calls return. bursar repeats a transaction that conflicts with another one. If the connection is
    /// lost during a commit, bursar first asks the server whether the change took effect. If it
    /// cannot ask, the call returns an error and nothing is paid. Dropping the future of a call
    /// leaves the whole change in the database, or nothing of it.
    ///
    /// Each process remembers the newest event that it saw committed. A write to a database that does not
    /// contain it returns [`LedgerError::Damaged`]: a backup was restored, a failover lost commits, or the URL
    /// leads to another database. To remember it across restarts, add `bursar_witness=FILE` to `url`. bursar
    /// creates the file, and the processes of one machine can share it. It must be on a local disk, and each
    /// ledger needs one of its own. To accept an older database, stop all programs that use it and delete the file.
    ///
    /// Once the schema exists, a role needs `USAGE` on it, `SELECT` on all its tables, `INSERT` on
    /// `purchases` and `events`, and `UPDATE` on `purchases` and `chain_head`. Counting denials needs `INSERT` and
    /// `UPDATE` on `denials`; without it, bursar pays and does not count them. Freezing needs
    /// `INSERT`, `UPDATE` and `DELETE` on `frozen`. A pooler works in any mode that keeps a
    /// transaction together. A text with a NUL character cannot be stored and is an error.
    ///
    /// # Errors
    /// Returns an error if the server cannot be reached or written, if the schema belongs to
    /// another program or to a newer bursar, or if the witness file cannot be used. Returns
    /// [`LedgerError::Damaged`] if the database does not contain the event in the witness file.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::postgres("postgresql://agent@db.example/agents").await?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "postgres")]
    pub async fn postgres(url: &str) -> Result<Self, LedgerError> {
        Self::postgres_in(url, postgres::SCHEMA).await
    }

    /// Connects to a PostgreSQL ledger in the schema of this name; see
    /// [`postgres`](Self::postgres). A name has 1 to 63 of the characters `a-z`, `0-9` and `_`.
    ///
    /// # Errors
    /// Returns an error if the name is not valid, or as [`postgres`](Self::postgres) does.
    #[cfg(feature = "postgres")]
    pub async fn postgres_in(url: &str, schema: &str) -> Result<Self, LedgerError> {
        let postgres = postgres::Postgres::new(url, schema)?;
        postgres.connect().await?;
        Ok(Self::new(Backend::Postgres(postgres)))
    }

    /// Opens the ledger at a URL or a path, for programs that read its place from their settings.
    ///
    /// | `url_or_path` | ledger |
    /// |---|---|
    /// | `postgres://…` or `postgresql://…` | PostgreSQL, in the schema `bursar` |
    /// | `:memory:` | in memory |
    /// | anything else | a SQLite file |
    ///
    /// A PostgreSQL ledger connects when it is first used, and then checks its schema.
    ///
    /// # Errors
    /// Returns an error if the URL cannot be read or the file cannot be opened, and
    /// [`LedgerError::MissingFeature`] if bursar was built without the database.
    ///
    /// ```
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::open(":memory:")?;
    /// # Ok::<(), bursar::ledger::LedgerError>(())
    /// ```
    pub fn open(url_or_path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        OpenOptions::new().open(url_or_path)
    }

    /// Opens a ledger that exists, at a URL or a path as [`open`](Self::open) takes them. Creates none.
    ///
    /// Use it where a new ledger would be a mistake: a relative path in a job that runs in another
    /// directory, or a mistyped name, would otherwise begin all limits again.
    ///
    /// A PostgreSQL ledger connects when it is first used. If the database has no ledger, each method of this handle
    /// returns [`LedgerError::Missing`], and nothing is created or paid.
    ///
    /// # Errors
    /// Returns [`LedgerError::Missing`] if there is no ledger at the path, or if the path is `:memory:`,
    /// and the errors of [`open`](Self::open).
    ///
    /// ```
    /// use bursar::Ledger;
    /// use bursar::ledger::LedgerError;
    ///
    /// let error = Ledger::open_existing("no-such-agent.db").unwrap_err();
    /// assert!(matches!(error, LedgerError::Missing(_)));
    /// ```
    pub fn open_existing(url_or_path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        OpenOptions::new().must_exist().open(url_or_path)
    }

    /// Returns this ledger with another clock. The default is the machine's clock.
    ///
    /// A client with a [clock](crate::ClientBuilder::clock) of its own sets it on its handle.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use bursar::{Ledger, Timestamp};
    ///
    /// let noon = || Timestamp::from_secs(1_760_011_200);
    /// let ledger = Ledger::memory().with_clock(Arc::new(noon));
    /// ```
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Returns the number of a ledger in memory, which no other ledger of this process has.
    pub(crate) fn memory_number(&self) -> Option<u64> {
        match &self.backend {
            Backend::Memory(memory) => Some(memory.number()),
            #[cfg(any(feature = "postgres", feature = "sqlite"))]
            _ => None,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock)
    }

    /// Returns one purchase, or `None` if the ledger does not have it.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    pub async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        self.record_pending().await?;
        self.backend.purchase(purchase).await
    }

    /// Returns the purchase with this id, or `None` if the ledger does not have it. Of several payers
    /// who used the id, at most one has a purchase that was not voided or released: that one.
    ///
    /// # Errors
    /// Returns [`LedgerError::AmbiguousPurchase`] if several payers used the id and bought nothing, and
    /// another error if the ledger cannot be read.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use bursar::Ledger;
    ///
    /// let ledger = Ledger::open("agent.db")?;
    /// if let Some(purchase) = ledger.purchase_by_id(&"order-1".parse()?).await? {
    ///     println!("{}: {}", purchase.payer, purchase.state);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purchase_by_id(&self, id: &PurchaseId) -> Result<Option<Purchase>, LedgerError> {
        let of_any_payer = Filter {
            id: Some(id.clone()),
            ..Filter::all()
        };
        let mut found = self.purchases(&of_any_payer).await?;
        // At most one payer has a purchase under the id that is not voided or released.
        if found.iter().any(|purchase| !purchase.is_void()) {
            found.retain(|purchase| !purchase.is_void());
        }
        if found.len() > 1 {
            return Err(LedgerError::AmbiguousPurchase(id.clone()));
        }
        Ok(found.pop())
    }

    /// Returns the purchases that pass the filter, oldest first.
    ///
    /// All of them are in memory then. Use [`pages`](Self::pages) if there can be many.
    ///
    /// # Errors
    /// Returns an error if the ledger cannot be read.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), bursar::ledger::LedgerError> {
    /// use bursar::Ledger;
    /// use bursar::ledger::{Filter, State};
    ///
    /// let ledger = Ledger::memory();
    /// let mut settled = Filter::all();
    /// settled.state = Some(State::Settled);
    /// assert!(ledger.purchases(&settled).await?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let mut pages = self.pages(filter);
        let mut purchases = Vec::new();
        while let Some(page) = pages.next().await? {
            purchases.extend(page);
        }
        Ok(purchases)
    }

    /// Counts the calls with an API key that the seller did not turn away.
    pub(crate) async fn calls(&self, calls: &Calls<'_>) -> Result<u64, LedgerError> {
        self.record_pending().await?;
        self.backend.calls(calls).await
    }

    /// Returns whether the ledger has such a purchase that settled or was delivered.
    pub(crate) async fn has_bought(&self, bought: &Bought<'_>) -> Result<bool, LedgerError> {
        self.record_pending().await?;
        self.backend.has_bought(bought).await
    }

    /// Looks the purchase up, checks every limit and holds the amount, in one atomic step.
    pub(crate) async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        self.backend.reserve(reservation).await
    }

    /// Records a change of a purchase.
    pub(crate) async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.backend.record(purchase, transition, now).await?;
        if !matches!(
            transition,
            Transition::Signed { .. } | Transition::Presented { .. }
        ) {
            self.room.wake();
        }
        Ok(())
    }

    /// Looks for the oldest undelivered payment for the same request that no other call presents. Of
    /// two callers, one gets it.
    pub(crate) async fn resume(&self, wanted: &Resumption) -> Result<Resumed, LedgerError> {
        self.backend.resume(wanted).await
    }

    /// Answers the checks without holding anything.
    pub(crate) async fn examine(
        &self,
        checks: &LimitCheck,
    ) -> Result<Vec<LimitStatus>, LedgerError> {
        let checks = LimitCheck {
            in_flight: self.in_flight(),
            ..checks.clone()
        };
        self.backend.examine(&checks).await
    }
}
