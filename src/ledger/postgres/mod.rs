//! Books in a PostgreSQL database that all hosts share.

mod link;
mod schema;
#[cfg(test)]
pub(super) mod tests;
mod view;

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::B256;
use bytes::BytesMut;
use deadpool_postgres::{Object, Pool, Transaction};
use futures_core::Stream;
use futures_util::future::{try_join, try_join_all, try_join3};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{IsolationLevel, Row};

use self::link::Failure;
use self::view::View;
use super::seal::{Audit, Fault, Head, Verification};
use super::sql::query::{self, Present, Query};
use super::sql::row::{self, Cells, Stored, integer};
use super::sql::{self, Cell, Value};
use super::{
    Filter, Freeze, Ledger, LedgerError, Plan, Purchase, PurchaseKey, Reservation, Reserved,
    Resumption, State, Transition,
};
use crate::Timestamp;
use crate::limit::{LimitCheck, LimitStatus};

/// The schema of books that name none.
const SCHEMA: &str = "bursar";
const PATIENCE: Duration = Duration::from_secs(10);
/// A write is tried so often, and not for longer than the store's patience.
const ATTEMPTS: u32 = 200;

/// Books in a PostgreSQL database: durable, and shared by all clients, processes and hosts that
/// connect to it.
///
/// Clones are handles on the same books. Every change is one `SERIALIZABLE` transaction that is on
/// the server's disk before the call returns, whatever the server's `synchronous_commit` says; one
/// that another writer made impossible is tried again. When the connection is lost while a change
/// is committed, the books are asked whether it took effect before it is tried again; when they
/// cannot be asked, the call is an error and nothing is paid. Dropping the future of a call leaves
/// the books with the whole change or without it.
///
/// What counts in time is the client's clock, so hosts that share books need clocks that agree.
///
/// The tables live in a schema of their own, which is laid out when it is empty or missing. From
/// then on a role needs no more than `USAGE` of the schema, `SELECT` on all tables, `INSERT` on
/// `purchases` and `events`, and `UPDATE` on `purchases` and `head`, and with no more than that it
/// cannot forget. Sessions need no state between
/// transactions, so a pooler in transaction mode that knows prepared statements will do. Texts with
/// a NUL character cannot be kept, and are an error.
///
/// ```no_run
/// # async fn books() -> Result<(), bursar::LedgerError> {
/// let ledger = bursar::PostgresLedger::connect("postgresql://agent@db.example/agents").await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresLedger {
    store: Arc<Store>,
}

struct Store {
    pool: Pool,
    /// How long a step waits for the server, and a write for other writers.
    patience: Duration,
    /// What each transaction begins with.
    settings: String,
    /// And each that writes the chain.
    queue: String,
    /// Writers of one process take turns here rather than in conflicts on the server.
    turn: Mutex<()>,
}

/// A change to the books.
enum Change<'a> {
    Reserve(&'a Reservation),
    Record(&'a PurchaseKey, &'a Transition, Timestamp),
    Resume(&'a Resumption),
}

/// What became of a change.
enum Changed {
    /// This was written.
    Written(Box<Purchase>),
    /// Nothing was written; a reservation has this answer.
    Nothing(Option<Reserved>),
}

/// What a change comes to, given what the books hold.
enum Decision {
    /// The entry, with its state before, after those of the holds that lapsed.
    Write {
        lapsed: Vec<(Purchase, State)>,
        entry: Box<Purchase>,
        before: Option<State>,
    },
    Nothing(Option<Reserved>),
}

/// A change whose commit was not answered, told from all others by the hash of its event.
struct Doubt {
    head: Head,
    entry: Box<Purchase>,
}

/// The row of `head`, locked.
struct Place {
    head: Head,
    purchases: u64,
}

impl PostgresLedger {
    /// Connects to the books in the schema `bursar` of the database at `url`, and lays them out if
    /// there are none.
    ///
    /// `url` is a connection string as libpq reads it, such as
    /// `postgresql://user:password@host/database`; of its `sslmode` values, `disable`, `prefer` and
    /// `require` are known. A server on another host is always spoken to over TLS with a
    /// certificate that the operating system trusts (`SSL_CERT_FILE` names others), unless the URL
    /// says `sslmode=disable`. Of several hosts, the one that can be written to is used.
    ///
    /// # Errors
    /// When the server cannot be reached or written to, or the schema belongs to another program or
    /// to a newer bursar.
    pub async fn connect(url: &str) -> Result<Self, LedgerError> {
        Self::connect_in(url, SCHEMA).await
    }

    /// As [`connect`](Self::connect), in a schema of this name: 1 to 63 of `a-z`, `0-9` and `_`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), or when the name is none.
    pub async fn connect_in(url: &str, schema: &str) -> Result<Self, LedgerError> {
        Self::connect_with(url, schema, PATIENCE).await
    }

    async fn connect_with(
        url: &str,
        schema: &str,
        patience: Duration,
    ) -> Result<Self, LedgerError> {
        let millis = patience.as_millis();
        // Temporary tables come last, so that none stands in for a table of the books.
        let settings = format!(
            "SET LOCAL search_path = {}, pg_temp; SET LOCAL synchronous_commit = on; \
             SET LOCAL statement_timeout = {millis}; SET LOCAL idle_in_transaction_session_timeout = {millis}",
            schema::quoted(schema)?
        );
        let mut store = Store {
            pool: link::pool(url, patience)?,
            patience,
            queue: settings.clone(),
            settings,
            turn: Mutex::new(()),
        };
        store.claim(schema).await?;
        if store.can_queue().await.map_err(Failure::into_error)? {
            store.queue = format!("{}; LOCK TABLE head IN EXCLUSIVE MODE", store.settings);
        }
        Ok(Self {
            store: Arc::new(store),
        })
    }

    /// Walks through all events and purchases, and finds what was changed by other means than this
    /// crate. `noted` is a [`Verification::head`] of earlier, which must still be in the chain.
    ///
    /// Paying goes on meanwhile. Memory does not grow with the books.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn verify(&self, noted: Option<B256>) -> Result<Verification, LedgerError> {
        let mut audit = Audit::new(noted);
        let mut last = Some(i64::MIN);
        while let Some(seq) = last.take() {
            for row in self.store.rows(query::events_after(seq)).await? {
                last = Some(audit.event(&row)?);
            }
        }
        last = Some(i64::MIN);
        while let Some(seq) = last.take() {
            for row in self.store.rows(query::purchases_after(seq)).await? {
                last = Some(audit.purchase(&row)?);
            }
        }
        if !self.store.head_stands().await? {
            audit.fault(Fault::HeadChanged);
        }
        Ok(audit.close())
    }
}

impl fmt::Debug for PostgresLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedger").finish_non_exhaustive()
    }
}

impl Ledger for PostgresLedger {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        match self.store.change(&Change::Reserve(reservation)).await? {
            Changed::Written(entry) => Ok(Reserved::Held(entry)),
            Changed::Nothing(answer) => Ok(answer.unwrap_or(Reserved::InFlight)),
        }
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.store
            .change(&Change::Record(purchase, transition, now))
            .await
            .map(drop)
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        let rows = self
            .store
            .rows(query::unresolved("purchases", wanted))
            .await?;
        // Nearly always there is nothing to take up: the head is locked only if there seems to be.
        if take_up(wanted, &rows)?.is_none() {
            return Ok(None);
        }
        match self.store.change(&Change::Resume(wanted)).await? {
            Changed::Written(entry) => Ok(Some(*entry)),
            Changed::Nothing(_) => Ok(None),
        }
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        self.store.overwrite(&query::stop(order)).await
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        self.store
            .rows(query::stopped())
            .await?
            .first()
            .map(row::freeze_order)
            .transpose()
    }

    async fn examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        self.store.examine(checks).await
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        self.store
            .rows(query::purchase(purchase))
            .await?
            .first()
            .map(row::entry)
            .transpose()
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        self.store
            .rows(query::purchases(filter))
            .await?
            .iter()
            .rev()
            .map(row::entry)
            .collect()
    }
}

impl Store {
    /// Of two that lay out the same schema, one is told of a conflict or of a duplicate.
    async fn claim(&self, schema: &str) -> Result<(), LedgerError> {
        const LAST: u32 = 10;
        for attempt in 0..LAST {
            match self.try_claim(schema).await {
                Ok(()) => return Ok(()),
                Err(failure @ Failure::Lost(_)) => return Err(failure.into_error()),
                Err(Failure::Final(
                    error @ (LedgerError::Damaged(_) | LedgerError::Newer { .. }),
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
            "PostgreSQL: the schema cannot be laid out",
        ))
    }

    async fn try_claim(&self, schema: &str) -> Result<(), Failure> {
        let mut client = self.pool.get().await?;
        let books = self
            .timed(self.begin(&mut client, IsolationLevel::Serializable, false))
            .await?;
        self.timed(schema::claim(&books, schema)).await?;
        self.timed(async { Ok(books.commit().await?) }).await
    }

    /// Whether writers can wait for each other before they see anything: on PostgreSQL a transaction sees the
    /// books as they are when it has the lock. Others that speak its protocol may have no such lock; there, of
    /// writers that lock the row of `head`, all but one see the past and try again.
    async fn can_queue(&self) -> Result<bool, Failure> {
        let mut client = self.pool.get().await?;
        let books = self
            .timed(self.begin(&mut client, IsolationLevel::Serializable, false))
            .await?;
        let locked = books.batch_execute("LOCK TABLE head IN EXCLUSIVE MODE NOWAIT");
        let locked = timeout(self.patience, locked)
            .await
            .map_err(|_| Failure::late())?;
        Ok(match locked {
            Ok(()) => true,
            Err(error) => error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE),
        })
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        timeout(self.patience, work)
            .await
            .unwrap_or_else(|_| Err(Failure::late()))
    }

    async fn begin<'a>(
        &self,
        client: &'a mut Object,
        isolation: IsolationLevel,
        read_only: bool,
    ) -> Result<Transaction<'a>, Failure> {
        let books = client
            .build_transaction()
            .isolation_level(isolation)
            .read_only(read_only)
            .start()
            .await?;
        books.batch_execute(&self.settings).await?;
        Ok(books)
    }

    /// A transaction that will write the chain, when it is its turn among all writers.
    async fn begin_write<'a>(&self, client: &'a mut Object) -> Result<Transaction<'a>, Failure> {
        let books = client
            .build_transaction()
            .isolation_level(IsolationLevel::Serializable)
            .start()
            .await?;
        books.batch_execute(&self.queue).await?;
        Ok(books)
    }

    /// The rows of a query. A connection that was lost while nobody looked is replaced once.
    async fn rows(&self, query: Query) -> Result<Vec<Row>, LedgerError> {
        match self.try_rows(&query).await {
            Err(Failure::Conflict(_) | Failure::Lost(_)) => self.try_rows(&query).await,
            answer => answer,
        }
        .map_err(Failure::into_error)
    }

    async fn try_rows(&self, query: &Query) -> Result<Vec<Row>, Failure> {
        let mut client = self.pool.get().await?;
        let answer = async {
            let books = self
                .timed(self.begin(&mut client, IsolationLevel::RepeatableRead, true))
                .await?;
            self.timed(fetch(&books, query)).await
        }
        .await;
        discard_if_lost(client, &answer);
        answer
    }

    /// All answers are of the same moment.
    async fn examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        match self.try_examine(checks).await {
            Err(Failure::Conflict(_) | Failure::Lost(_)) => self.try_examine(checks).await,
            answer => answer,
        }
        .map_err(Failure::into_error)
    }

    async fn try_examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, Failure> {
        let mut client = self.pool.get().await?;
        let answer = async {
            let books = self
                .timed(self.begin(&mut client, IsolationLevel::RepeatableRead, true))
                .await?;
            self.timed(async {
                ask(&books, view(&books, checks, None).await?, |view| {
                    checks.evaluate(view)
                })
                .await
            })
            .await
        }
        .await;
        discard_if_lost(client, &answer);
        answer
    }

    /// A statement that may be done twice: once more after a conflict or a lost connection.
    async fn overwrite(&self, query: &Query) -> Result<(), LedgerError> {
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
        let mut client = self.pool.get().await?;
        let done = self.overwrite_by(&mut client, query).await;
        discard_if_lost(client, &done);
        done
    }

    async fn overwrite_by(&self, client: &mut Object, query: &Query) -> Result<(), Failure> {
        let books = self
            .timed(self.begin(client, IsolationLevel::Serializable, false))
            .await?;
        self.timed(fetch(&books, query)).await?;
        self.timed(async { Ok(books.commit().await?) }).await
    }

    async fn change(&self, change: &Change<'_>) -> Result<Changed, LedgerError> {
        let start = Instant::now();
        let _turn = timeout(self.patience, self.turn.lock())
            .await
            .map_err(|_| crowded())?;
        let mut doubts = Vec::new();
        let mut attempt: u32 = 0;
        loop {
            let failure = match self.attempt(change, &mut doubts).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let again = match &failure {
                Failure::Conflict(_) => true,
                // Nothing took effect unless there is a doubt. A connection that was lost while
                // nobody looked is replaced once.
                Failure::Lost(_) => attempt == 0 || !doubts.is_empty(),
                Failure::Final(_) => false,
            };
            attempt = attempt.saturating_add(1);
            if !again || attempt == ATTEMPTS || start.elapsed() > self.patience {
                return Err(failure.into_error());
            }
            pause(attempt).await;
        }
    }

    async fn attempt(
        &self,
        change: &Change<'_>,
        doubts: &mut Vec<Doubt>,
    ) -> Result<Changed, Failure> {
        let mut client = self.pool.get().await?;
        let answer = self.attempt_by(&mut client, change, doubts).await;
        discard_if_lost(client, &answer);
        answer
    }

    async fn attempt_by(
        &self,
        client: &mut Object,
        change: &Change<'_>,
        doubts: &mut Vec<Doubt>,
    ) -> Result<Changed, Failure> {
        let books = self.timed(self.begin_write(client)).await?;
        let Seen {
            mut place,
            known,
            checked,
        } = self.timed(look(&books, change)).await?;
        if let Some(entry) = self.timed(committed(&books, doubts)).await? {
            return Ok(Changed::Written(entry));
        }
        let (entry, head) = match self.timed(decide(&books, change, &known, checked)).await? {
            Decision::Nothing(answer) => return Ok(Changed::Nothing(answer)),
            Decision::Write {
                lapsed,
                entry,
                before,
            } => {
                for (entry, before) in lapsed {
                    let (_, head) = self
                        .timed(write(&books, &place, Box::new(entry), Some(before)))
                        .await?;
                    place.head = head;
                }
                self.timed(write(&books, &place, entry, before)).await?
            }
        };
        match timeout(self.patience, books.commit()).await {
            Ok(Ok(())) => Ok(Changed::Written(entry)),
            Ok(Err(error)) if link::rolled_back(&error) => Err(error.into()),
            unanswered => {
                doubts.push(Doubt { head, entry });
                Err(match unanswered {
                    Ok(Err(error)) => Failure::Lost(Failure::from(error).into_error()),
                    _ => Failure::late(),
                })
            }
        }
    }

    /// Whether the head is that of the newest event, asked in one statement.
    async fn head_stands(&self) -> Result<bool, LedgerError> {
        let sql = "SELECT h.seq, h.hash, e.hash AS newest, (SELECT max(seq) FROM events) AS last \
                   FROM head h LEFT JOIN events e ON e.seq = h.seq"
            .into();
        let rows = self
            .rows(Query {
                sql,
                values: Vec::new(),
            })
            .await?;
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

fn crowded() -> LedgerError {
    LedgerError::store("the books could not be written in time: too many other writes are waiting")
}

/// A connection that does not answer is not used again.
fn discard_if_lost<T>(client: Object, answer: &Result<T, Failure>) {
    if matches!(answer, Err(Failure::Lost(_))) {
        drop(Object::take(client));
    }
}

/// Longer with every attempt, and never the same for two writers.
async fn pause(attempt: u32) {
    // Without randomness the pause is the longest.
    let random = getrandom::u32().map_or(255, |random| u64::from(random & 255));
    let step = 2_u64.saturating_pow(attempt.min(6)).saturating_mul(4);
    tokio::time::sleep(Duration::from_micros(step.saturating_mul(random))).await;
}

/// The end of the chain. Excludes other writers until the transaction ends: what the checks see is what the hold adds to.
///
/// Where such locks are only promises (CockroachDB), the write to the same row makes one of two fail.
async fn place(books: &Transaction<'_>) -> Result<Place, Failure> {
    let sql = "SELECT seq, purchases, hash FROM head FOR UPDATE".into();
    let rows = fetch(
        books,
        &Query {
            sql,
            values: Vec::new(),
        },
    )
    .await?;
    let [row] = rows.as_slice() else {
        return Err(LedgerError::Damaged("head has not one row".to_owned()).into());
    };
    Ok(Place {
        head: Head::read(row)?,
        purchases: Cells::of_event(row)?.integer("purchases")?,
    })
}

/// The change that was committed although nobody said so. The one that may still be under way holds
/// the lock on the head that this transaction has by now.
async fn committed(
    books: &Transaction<'_>,
    doubts: &[Doubt],
) -> Result<Option<Box<Purchase>>, Failure> {
    for doubt in doubts {
        let values = vec![integer(doubt.head.events, "seq")?.into()];
        let sql = "SELECT seq, hash FROM events WHERE seq = ?".into();
        if let Some(row) = fetch(books, &Query { sql, values }).await?.first()
            && Head::read(row)? == doubt.head
        {
            return Ok(Some(doubt.entry.clone()));
        }
    }
    Ok(None)
}

/// What a change may have to know, asked at once: the server answers in one round trip.
struct Seen {
    place: Place,
    /// What is known of the purchase, or of those to take up.
    known: Vec<Row>,
    /// For a reservation.
    checked: Option<Checked>,
}

/// What the checks ask, answered, and the holds that lapsed.
struct Checked {
    view: View,
    lapsed: Vec<Row>,
}

async fn look(books: &Transaction<'_>, change: &Change<'_>) -> Result<Seen, Failure> {
    let query = match change {
        Change::Reserve(reservation) => query::purchase(&reservation.key()),
        Change::Record(key, ..) => query::purchase(key),
        Change::Resume(wanted) => query::unresolved("purchases", wanted),
    };
    let checked = async {
        match change {
            // Nearly always the purchase is a new one.
            Change::Reserve(reservation) => {
                check(books, reservation.checks(), None).await.map(Some)
            }
            _ => Ok(None),
        }
    };
    // First the lock, where it is on the row.
    let (place, known, checked) = try_join3(place(books), fetch(books, &query), checked).await?;
    Ok(Seen {
        place,
        known,
        checked,
    })
}

/// `except` is the purchase that is being reserved, as it is known.
async fn check(
    books: &Transaction<'_>,
    checks: &LimitCheck,
    except: Option<u64>,
) -> Result<Checked, Failure> {
    let lapsed = Present::new(checks.now(), except)?.lapsed("purchases");
    let (view, lapsed) = try_join(view(books, checks, except), fetch(books, &lapsed)).await?;
    Ok(Checked { view, lapsed })
}

async fn decide(
    books: &Transaction<'_>,
    change: &Change<'_>,
    known: &[Row],
    checked: Option<Checked>,
) -> Result<Decision, Failure> {
    let first = || known.first().map(row::entry).transpose();
    match change {
        Change::Reserve(reservation) => {
            let known = first()?;
            let before = known.as_ref().map(|entry| (entry.seq, entry.state));
            let mut entry = match reservation.plan(known) {
                Plan::Hold(entry) => entry,
                Plan::Answer(answer) => return Ok(Decision::Nothing(Some(answer))),
            };
            let except = before.map(|(seq, _)| seq);
            let Checked { view, lapsed } = match checked.filter(|_| except.is_none()) {
                Some(checked) => checked,
                None => check(books, reservation.checks(), except).await?,
            };
            if let Some(denial) = ask(books, view, |view| reservation.checks().deny(view)).await? {
                return Ok(Decision::Nothing(Some(Reserved::Denied(Box::new(denial)))));
            }
            entry.seq = before.map_or(0, |(seq, _)| seq);
            let lapsed: Vec<Purchase> = lapsed.iter().map(row::entry).collect::<Result<_, _>>()?;
            let lapsed = lapsed
                .iter()
                .filter_map(|entry| Some((reservation.lapse(entry)?, entry.state)))
                .collect();
            Ok(Decision::Write {
                lapsed,
                entry,
                before: before.map(|(_, state)| state),
            })
        }
        Change::Record(key, transition, now) => {
            let mut entry = first()?.ok_or_else(|| LedgerError::UnknownPurchase(key.id.clone()))?;
            let before = entry.state;
            entry.apply(transition, *now)?;
            Ok(Decision::Write {
                lapsed: Vec::new(),
                entry: Box::new(entry),
                before: Some(before),
            })
        }
        Change::Resume(wanted) => Ok(match take_up(wanted, known)? {
            Some(entry) => {
                let before = Some(entry.state);
                Decision::Write {
                    lapsed: Vec::new(),
                    entry: Box::new(entry),
                    before,
                }
            }
            None => Decision::Nothing(None),
        }),
    }
}

/// The first that is to be taken up, as it is to be written.
fn take_up(wanted: &Resumption, rows: &[Row]) -> Result<Option<Purchase>, LedgerError> {
    for row in rows {
        if let Some(taken) = wanted.take_up(&row::entry(row)?) {
            return Ok(Some(taken));
        }
    }
    Ok(None)
}

/// Writes the entry over what is held of its purchase, the event that led there, and the new head.
async fn write(
    books: &Transaction<'_>,
    place: &Place,
    mut entry: Box<Purchase>,
    before: Option<State>,
) -> Result<(Box<Purchase>, Head), Failure> {
    let mut purchases = place.purchases;
    if before.is_none() {
        purchases = purchases.saturating_add(1);
        entry.seq = purchases;
    }
    let columns = row::columns(&entry)?;
    let event = row::event(place.head, &entry, &columns, before)?;
    let head = event.head;
    let sql = "UPDATE head SET seq = ?, purchases = ?, hash = ?".into();
    let values = vec![
        event.seq.into(),
        integer(purchases, "purchases")?.into(),
        head.hash.written().into(),
    ];
    let queries = [
        query::write(columns, &event),
        query::append(event),
        Query { sql, values },
    ];
    try_join_all(queries.iter().map(|query| fetch(books, query))).await?;
    Ok((entry, head))
}

/// What the checks will ask, answered.
async fn view(
    books: &Transaction<'_>,
    checks: &LimitCheck,
    except: Option<u64>,
) -> Result<View, Failure> {
    let (mut view, queries) = View::of(checks, except)?;
    let answers = view.questions().zip(&queries);
    try_join_all(answers.map(|(question, query)| each(books, query, |row| question.take(&row))))
        .await?;
    Ok(view)
}

/// Asks the view, and reads what it lacks: a denial asks for charges that a sum does not tell apart.
async fn ask<T>(
    books: &Transaction<'_>,
    mut view: View,
    question: impl Fn(&View) -> Result<T, LedgerError> + Send,
) -> Result<T, Failure> {
    loop {
        let error = match question(&view) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some((asked, query)) = view.missing() else {
            return Err(error.into());
        };
        each(books, &query, |row| asked.take(&row)).await?;
    }
}

async fn fetch(books: &Transaction<'_>, query: &Query) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    each(books, query, |row| {
        rows.push(row);
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// Row by row, so that only what is taken from them stays in memory.
async fn each(
    books: &Transaction<'_>,
    query: &Query,
    mut take: impl FnMut(Row) -> Result<(), LedgerError> + Send,
) -> Result<(), Failure> {
    let statement = books.prepare_cached(&numbered(&query.sql)).await?;
    let mut rows = pin!(books.query_raw(&statement, &query.values).await?);
    while let Some(row) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
        take(row?)?;
    }
    Ok(())
}

/// `$1` for the first `?`, and so on. The queries hold no `?` of another meaning.
fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts
        .zip(1_usize..)
        .fold(first, |sql, (part, number)| format!("{sql}${number}{part}"))
}

impl sql::Row for Row {
    fn cell(&self, column: &str) -> Option<Cell<'_>> {
        let found = self
            .columns()
            .iter()
            .position(|known| known.name() == column)?;
        match *self.columns().get(found)?.type_() {
            Type::INT8 => Some(
                self.try_get::<_, Option<i64>>(found)
                    .ok()?
                    .map_or(Cell::Null, Cell::Integer),
            ),
            Type::TEXT => Some(
                self.try_get::<_, Option<&str>>(found)
                    .ok()?
                    .map_or(Cell::Null, Cell::Text),
            ),
            _ => None,
        }
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql_checked(kind, out),
            Self::Text(text) => text.to_sql_checked(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT].contains(kind)
    }

    to_sql_checked!();
}
