//! A ledger in a PostgreSQL database, which many hosts can share.

mod book;
mod change;
mod indices;
mod link;
mod pool;
mod rows;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod totals;
mod view;
mod witness;
mod write;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use tokio::sync::OnceCell;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;

use self::book::Book;
use self::change::{Answer, Change, head_query, witnessed};
use self::indices::Indices;
use self::link::{Ask, Link};
use self::pool::{Failure, Lease, Pool};
use self::view::{Answers, View};
use self::witness::Witness;
use self::writer::Queue;
use super::denials::DenialCount;
use super::hash_chain::{Audit, Head};
use super::sql::denials as counts;
use super::sql::query::{self, Query};
use super::sql::row::{self, Cells};
use super::{
    Bought, Calls, Filter, Freeze, LedgerError, LedgerFault, Obtained, Purchase, PurchaseKey,
    Reservation, Reserved, Resumed, Resumption, SignsInStep, Transition, Verification,
};
use crate::clock::Timestamp;
use crate::limit::{LimitCheck, LimitStatus};

/// The schema that [`Ledger::postgres`](super::Ledger::postgres) uses.
pub(super) const SCHEMA: &str = "bursar";
/// The time that a step waits for the server, and a write for other writers.
const TIMEOUT: Duration = Duration::from_secs(10);
/// A transaction that writes.
const SERIALIZABLE: &str = "ISOLATION LEVEL SERIALIZABLE READ WRITE";
/// A transaction that reads.
const READ_ONLY: &str = "ISOLATION LEVEL REPEATABLE READ READ ONLY";
/// Without these settings, the server keeps a plan that reads a whole table, from the time when the table was small, or plans
/// a statement at each use. Versions before 12 do not have all of them.
const TUNING: &str = "; SET LOCAL enable_seqscan = off; SET LOCAL jit = off; SET LOCAL plan_cache_mode = force_generic_plan";
/// Waits for other writers.
const LOCK: &str = "; LOCK TABLE chain_head IN EXCLUSIVE MODE";
/// The most attempts of a write.
const ATTEMPTS: u32 = 200;

/// A handle on a ledger in a schema of a PostgreSQL database.
#[derive(Clone)]
pub(super) struct Postgres {
    database: Arc<Database>,
}

struct Database {
    pool: Pool,
    schema: String,
    timeout: Duration,
    /// The statements at the begin of each transaction, after that of `BEGIN`.
    settings: String,
    /// The statements that begin a transaction that writes the chain. Set when the schema was checked.
    write_settings: OnceCell<String>,
    /// The changes that wait for their transaction.
    queue: Queue,
    indices: Indices,
    /// The event that the database must contain.
    witness: Witness,
    /// Whether an empty schema becomes a new ledger.
    may_begin: bool,
}

impl Postgres {
    /// Returns a handle that connects when it is first used.
    pub(super) fn new(url: &str, schema: &str) -> Result<Self, LedgerError> {
        Self::with_settings(url, schema, TIMEOUT, true)
    }

    /// Returns a handle that does not begin a ledger in an empty schema.
    pub(super) fn open_existing(url: &str, schema: &str) -> Result<Self, LedgerError> {
        Self::with_settings(url, schema, TIMEOUT, false)
    }

    fn with_settings(
        url: &str,
        schema: &str,
        timeout: Duration,
        may_begin: bool,
    ) -> Result<Self, LedgerError> {
        let (url, witness) = witness::split(url);
        let millis = timeout.as_millis();
        // Temporary tables come last, so that none of them hides a table of the ledger.
        let settings = format!(
            "SET LOCAL search_path = {}, pg_temp; SET LOCAL synchronous_commit = on; \
             SET LOCAL statement_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis}",
            schema::quoted(schema)?
        );
        let database = Database {
            pool: Pool::new(&url, timeout)?,
            schema: schema.to_owned(),
            timeout,
            settings,
            write_settings: OnceCell::new(),
            queue: Queue::default(),
            indices: Indices::default(),
            witness: Witness::open(witness)?,
            may_begin,
        };
        Ok(Self {
            database: Arc::new(database),
        })
    }

    /// Connects and checks the schema, unless that was done before.
    pub(super) async fn connect(&self) -> Result<(), LedgerError> {
        self.database.write_settings().await.map(drop)
    }

    pub(super) async fn verify(
        &self,
        noted: Option<B256>,
        read: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Verification, LedgerError> {
        let mut audit = Audit::new(noted);
        let mut last = Some(i64::MIN);
        while let Some(seq) = last.take() {
            let rows = self.database.rows(query::events_after(seq)).await?;
            for row in &rows {
                last = Some(audit.event(row)?);
            }
            read(rows.len());
        }
        last = Some(i64::MIN);
        while let Some(seq) = last.take() {
            let rows = self.database.rows(query::purchases_after(seq)).await?;
            for row in &rows {
                last = Some(audit.purchase(row)?);
            }
            read(rows.len());
        }
        for row in &self.database.rows(totals::wrong()).await? {
            let total = Cells::of(row)?.string("total")?;
            audit.fault(LedgerFault::TotalChanged { total });
        }
        if !self.database.is_head_newest().await? {
            audit.fault(LedgerFault::HeadChanged);
        }
        let mut report = audit.close();
        // Other faults already show that events are missing.
        if report.is_sound()
            && let Some(lost) = self.database.lost_event().await?
        {
            report.faults.push(LedgerFault::HeadMissing(lost.hash));
            report.fault_count = 1;
        }
        Ok(report)
    }

    pub(super) async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let change = Change::Reserve(Arc::new(reservation.clone()));
        match self.database.change(change).await? {
            Answer::Reserved(answer) => Ok(answer),
            _ => Err(other_answer()),
        }
    }

    pub(super) async fn buy(
        &self,
        reservation: &Arc<Reservation>,
        signer: &Arc<dyn SignsInStep>,
    ) -> Result<Obtained, LedgerError> {
        let change = Change::Buy(Arc::clone(reservation), Arc::clone(signer));
        match self.database.change(change).await? {
            Answer::Obtained(answer) => Ok(answer),
            _ => Err(other_answer()),
        }
    }

    pub(super) async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let change = Change::Record(purchase.clone(), Box::new(transition.clone()), now);
        self.database.change(change).await.map(drop)
    }

    pub(super) async fn resume(&self, wanted: &Resumption) -> Result<Resumed, LedgerError> {
        let candidates = query::undelivered("purchases", wanted);
        let rows = self.database.rows(candidates).await?;
        // There is nearly always nothing to resume, so the head is locked only if there is.
        let stored = rows.iter().map(row::purchase);
        let found = wanted.choose(stored.collect::<Result<Vec<_>, _>>()?);
        if !matches!(found, Resumed::Again(_)) {
            return Ok(found);
        }
        match self.database.change(Change::Resume(wanted.clone())).await? {
            Answer::Resumed(answer) => Ok(answer),
            _ => Err(other_answer()),
        }
    }

    pub(super) async fn set_freeze(&self, freeze: Option<&Freeze>) -> Result<(), LedgerError> {
        self.database.overwrite(&query::set_freeze(freeze)).await
    }

    pub(super) async fn frozen(&self) -> Result<Option<Freeze>, LedgerError> {
        let rows = self.database.rows(query::frozen()).await?;
        rows.first().map(row::freeze).transpose()
    }

    pub(super) async fn add_denials(&self, denials: &[DenialCount]) -> Result<(), LedgerError> {
        self.database.write_settings().await?;
        self.database
            .count(denials)
            .await
            .map_err(Failure::into_error)
    }

    pub(super) async fn denials(&self) -> Result<Vec<DenialCount>, LedgerError> {
        let rows = self.database.rows(counts::all()).await?;
        let read = rows.iter().filter_map(|row| counts::read(row).transpose());
        read.collect()
    }

    pub(super) async fn examine(
        &self,
        checks: &LimitCheck,
    ) -> Result<Vec<LimitStatus>, LedgerError> {
        self.database.examine(checks).await
    }

    pub(super) async fn purchase(
        &self,
        purchase: &PurchaseKey,
    ) -> Result<Option<Purchase>, LedgerError> {
        let rows = self.database.rows(query::purchase(purchase)).await?;
        rows.first().map(row::purchase).transpose()
    }

    pub(super) async fn page(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let rows = self.database.rows(query::page(filter)).await?;
        rows.iter().map(row::purchase).collect()
    }

    pub(super) async fn before_last(
        &self,
        filter: &Filter,
        last: usize,
    ) -> Result<Option<u64>, LedgerError> {
        self.number(query::before_last(filter, last)).await
    }

    pub(super) async fn has_bought(&self, bought: &Bought<'_>) -> Result<bool, LedgerError> {
        self.connect().await?;
        self.database.index_sellers().await;
        let found = self.number(query::bought("purchases", bought)).await?;
        Ok(found.is_some())
    }

    pub(super) async fn calls(&self, calls: &Calls<'_>) -> Result<u64, LedgerError> {
        let counted = self.number(query::calls("purchases", calls)).await?;
        Ok(counted.unwrap_or(0))
    }

    /// Returns the `seq` of the first row of a query.
    async fn number(&self, query: Query) -> Result<Option<u64>, LedgerError> {
        let rows = self.database.rows(query).await?;
        let first = rows.first();
        first.map(|row| Cells::of(row)?.integer("seq")).transpose()
    }
}

impl Database {
    /// Checks the schema the first time, and returns the statements that a writer begins with.
    async fn write_settings(&self) -> Result<&String, LedgerError> {
        let check = || async {
            self.claim().await?;
            if let Some(lost) = self.lost_event().await? {
                return Err(self.witness.lost(lost));
            }
            let can_queue = self.can_queue().await.map_err(Failure::into_error)?;
            let tuning = if self.can(TUNING).await? { TUNING } else { "" };
            let lock = if can_queue { LOCK } else { "" };
            Ok(format!("{}{tuning}{lock}", self.begin(SERIALIZABLE)))
        };
        self.write_settings.get_or_try_init(check).await
    }

    /// Checks the schema, or creates it. If two clients create it at the same time, the server
    /// reports a conflict or a duplicate to one of them.
    async fn claim(&self) -> Result<(), LedgerError> {
        const LAST: u32 = 10;
        for attempt in 0..LAST {
            match self.try_claim().await {
                Ok(()) => return Ok(()),
                Err(failure @ Failure::Lost(_)) => return Err(failure.into_error()),
                Err(Failure::Final(
                    error @ (LedgerError::Damaged(_)
                    | LedgerError::Missing(_)
                    | LedgerError::Newer { .. }),
                )) => {
                    return Err(error);
                }
                Err(failure) if attempt.saturating_add(1) == LAST => {
                    return Err(failure.into_error());
                }
                Err(_) => pause(attempt).await,
            }
        }
        Err(LedgerError::store(
            "PostgreSQL: the schema cannot be created",
        ))
    }

    async fn try_claim(&self) -> Result<(), Failure> {
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let claimed = self.claim_by(link).await;
        self.end(link, Failure::is_lost(&claimed)).await;
        if claimed? {
            tracing::warn!(schema = self.schema, "begins a new ledger in PostgreSQL");
        }
        Ok(())
    }

    async fn claim_by(&self, link: &mut Link) -> Result<bool, Failure> {
        let begin = self.begin(SERIALIZABLE);
        self.timed(link.begin(&begin)).await?;
        let expected = self.witness.expected(self.timeout).await?;
        let refusal = if expected != Head::EMPTY {
            Some(self.witness.lost(expected))
        } else if self.may_begin {
            None
        } else {
            let place = format!("the schema `{}` of the PostgreSQL database", self.schema);
            Some(LedgerError::Missing(place.into()))
        };
        let begins = self
            .timed(schema::claim(link.client(), &self.schema, refusal))
            .await?;
        self.timed(link.commit_now()).await?;
        Ok(begins)
    }

    /// Returns the event that the database must contain, if it does not contain it. Remembers the newest event else.
    async fn lost_event(&self) -> Result<Option<Head>, LedgerError> {
        let expected = self.witness.expected(self.timeout).await?;
        let query = head_query(expected, false)?;
        let rows = match self.try_rows(&query).await {
            Err(Failure::Conflict(_) | Failure::Lost(_)) => self.try_rows(&query).await,
            answer => answer,
        }
        .map_err(Failure::into_error)?;
        // `verify` reports a wrong number of rows, and a write is refused.
        let [row] = rows.as_slice() else {
            return Ok(None);
        };
        if self.witness.check(expected, witnessed(row)?).is_err() {
            return Ok(Some(expected));
        }
        if let Ok(head) = Head::read(row) {
            self.witness.committed(head, self.timeout).await;
        }
        Ok(None)
    }

    /// Returns whether the server accepts these settings at the begin of a transaction.
    async fn can(&self, settings: &str) -> Result<bool, LedgerError> {
        let attempt = async {
            let mut lease = self.pool.get().await?;
            let link = lease.link()?;
            let begin = self.begin(READ_ONLY);
            let begun = self.timed(link.begin(&format!("{begin}{settings}"))).await;
            self.end(link, Failure::is_lost(&begun)).await;
            begun
        };
        match attempt.await {
            Ok(()) => Ok(true),
            Err(Failure::Final(LedgerError::Store(_))) => Ok(false),
            Err(failure) => Err(failure.into_error()),
        }
    }

    /// Returns whether writers can wait for each other before they read.
    ///
    /// On PostgreSQL, a transaction sees the ledger as it is when it gets the lock of the table. Other
    /// servers that speak its protocol may have no such lock. There, all writers but one see an old
    /// state of the row in `chain_head` and try again.
    async fn can_queue(&self) -> Result<bool, Failure> {
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let begin = self.begin(SERIALIZABLE);
        self.timed(link.begin(&begin)).await?;
        let lock = "LOCK TABLE chain_head IN EXCLUSIVE MODE NOWAIT";
        let locked = timeout(self.timeout, link.client().batch_execute(lock))
            .await
            .map_err(|_| Failure::late())?;
        timeout(self.timeout, link.roll_back())
            .await
            .map_err(|_| Failure::late())?;
        Ok(match locked {
            Ok(()) => true,
            Err(error) => error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
        })
    }

    /// Ends the transaction, unless it was committed. A connection that did not answer is not used again.
    async fn end(&self, link: &mut Link, is_lost: bool) {
        if is_lost || timeout(self.timeout, link.roll_back()).await.is_err() {
            link.discard();
        }
    }

    /// Returns the statements that begin a transaction.
    fn begin(&self, kind: &str) -> String {
        format!("BEGIN {kind}; {}", self.settings)
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout(self.timeout, work)
            .await
            .unwrap_or_else(|_| Err(Failure::late()))
    }

    /// Returns the rows of a query. Replaces a lost connection once.
    async fn rows(&self, query: Query) -> Result<Vec<Row>, LedgerError> {
        self.write_settings().await?;
        match self.try_rows(&query).await {
            Err(Failure::Conflict(_) | Failure::Lost(_)) => self.try_rows(&query).await,
            answer => answer,
        }
        .map_err(Failure::into_error)
    }

    async fn try_rows(&self, query: &Query) -> Result<Vec<Row>, Failure> {
        let mut lease = self.pool.get().await?;
        let mut rows = Vec::new();
        let asks = vec![Ask::rows(query.clone(), &mut rows)];
        self.read(&mut lease, asks).await?;
        Ok(rows)
    }

    /// Asks in a transaction of its own.
    async fn read(&self, lease: &mut Lease<'_>, asks: Vec<Ask<'_>>) -> Result<(), Failure> {
        let link = lease.link()?;
        let begin = self.begin(READ_ONLY);
        let answered = self.timed(link.read(&begin, asks)).await;
        self.end(link, Failure::is_lost(&answered)).await;
        answered
    }

    /// Answers all checks in one transaction, so that all answers are of the same moment.
    async fn examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        self.write_settings().await?;
        match self.try_examine(checks).await {
            Err(Failure::Conflict(_) | Failure::Lost(_)) => self.try_examine(checks).await,
            answer => answer,
        }
        .map_err(Failure::into_error)
    }

    async fn try_examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, Failure> {
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let examined = self.timed(self.examine_by(link, checks)).await;
        self.end(link, Failure::is_lost(&examined)).await;
        examined
    }

    async fn examine_by(
        &self,
        link: &mut Link,
        checks: &LimitCheck,
    ) -> Result<Vec<LimitStatus>, Failure> {
        let book = Book::default();
        let mut answers = Answers::new([checks], checks.now(), None, false)?;
        let begin = self.begin(READ_ONLY);
        link.begin_and_ask(&begin, answers.asks()?).await?;
        loop {
            let view = View::new(&answers, &book, checks.now());
            let error = match checks.evaluate(&view) {
                Ok(statuses) => return Ok(statuses),
                Err(error) => error,
            };
            let missing = view.missing().ok_or(error)?;
            link.ask(answers.also(missing)?).await?;
        }
    }

    /// Adds denials to their counts. This locks their rows only, so no payment waits. It is not repeated: if its commit is
    /// not answered, the caller may add them twice.
    async fn count(&self, denials: &[DenialCount]) -> Result<(), Failure> {
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let counted = async {
            let begin = self.begin("ISOLATION LEVEL READ COMMITTED READ WRITE");
            self.timed(link.begin(&begin)).await?;
            for more in denials {
                let add = vec![Ask::none(counts::add(more)?)];
                self.timed(link.ask(add)).await?;
            }
            self.timed(link.commit_now()).await
        }
        .await;
        self.end(link, Failure::is_lost(&counted)).await;
        counted
    }

    /// Executes a statement that has the same effect if it is executed twice. Repeats it after a
    /// conflict or a lost connection.
    async fn overwrite(&self, query: &Query) -> Result<(), LedgerError> {
        self.write_settings().await?;
        for attempt in 0..ATTEMPTS {
            match self.try_overwrite(query).await {
                Ok(()) => return Ok(()),
                Err(failure @ Failure::Final(_)) => return Err(failure.into_error()),
                Err(_) => pause(attempt).await,
            }
        }
        self.try_overwrite(query).await.map_err(Failure::into_error)
    }

    async fn try_overwrite(&self, query: &Query) -> Result<(), Failure> {
        let mut lease = self.pool.get().await?;
        let link = lease.link()?;
        let done = self.overwrite_by(link, query).await;
        self.end(link, Failure::is_lost(&done)).await;
        done
    }

    async fn overwrite_by(&self, link: &mut Link, query: &Query) -> Result<(), Failure> {
        let expected = self.witness.expected(self.timeout).await?;
        let mut rows = Vec::new();
        let asks = vec![
            Ask::rows(head_query(expected, false)?, &mut rows),
            Ask::none(query.clone()),
        ];
        let begin = self.begin(SERIALIZABLE);
        self.timed(link.begin_and_ask(&begin, asks)).await?;
        // A freeze of another database than that of the programs would stop nothing.
        let found = rows.first().map(witnessed).transpose()?.flatten();
        self.witness.check(expected, found)?;
        self.timed(link.commit_now()).await
    }

    /// Returns whether the stored head is the hash of the newest event. Reads both in one statement.
    async fn is_head_newest(&self) -> Result<bool, LedgerError> {
        let query = Query {
            sql: "SELECT h.seq, h.hash, e.hash AS newest, (SELECT max(seq) FROM events) AS last \
                  FROM chain_head h LEFT JOIN events e ON e.seq = h.seq"
                .into(),
            values: Vec::new(),
        };
        let rows = self.rows(query).await?;
        let [row] = rows.as_slice() else {
            return Ok(false);
        };
        let cells = Cells::of_event(row)?;
        let Ok(head) = Head::read(row) else {
            return Ok(false);
        };
        let newest = cells.optional_text("newest").ok().flatten();
        let last = cells.optional_integer("last")?;
        Ok(if head.events == 0 {
            head == Head::EMPTY && last.is_none()
        } else {
            (last, newest) == (Some(head.events), Some(head.hash))
        })
    }
}

fn other_answer() -> LedgerError {
    LedgerError::store("the answer is not of this change")
}

/// Waits longer with every attempt, for a random time, so that two writers do not meet again.
async fn pause(attempt: u32) {
    // Without randomness the pause is the longest one.
    let random = getrandom::u32().map_or(255, |random| u64::from(random & 255));
    let step = 2_u64.saturating_pow(attempt.min(6)).saturating_mul(4);
    tokio::time::sleep(Duration::from_micros(step.saturating_mul(random))).await;
}
