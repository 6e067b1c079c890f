//! A ledger in a SQLite file, which all processes of a host can share.

mod change;
mod copy;
mod domains;
mod file;
mod guard;
mod indices;
mod known;
mod migration;
mod mounts;
mod reader;
mod schema;
mod siblings;
#[cfg(test)]
mod tests;
mod totals;
mod view;
mod witness;
mod writer;

use std::cell::RefCell;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::{self, JoinHandle};

use alloy::primitives::B256;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use self::change::{buy, count, prepare, record, reserve, resumable, resume};
use self::file::{File, Line};
use self::guard::{Files, Guard};
use self::reader::Reader;
use self::siblings::Siblings;
use self::view::View;
use self::writer::{Job, Read, Sync, Write, Writer};
use super::denials::DenialCount;
use super::hash_chain::Audit;
use super::sql::denials as counts;
use super::sql::query::{self, Query};
use super::sql::row::{self, Cells};
use super::sql::scope::{BY_SELLER, of_check};
use super::{
    Bought, Calls, Filter, Freeze, LedgerError, LedgerFault, Obtained, OpenOptions, Purchase,
    PurchaseKey, Reservation, Reserved, Restored, Resumed, Resumption, SignsInStep, Transition,
    Verification,
};
use crate::clock::Timestamp;
use crate::limit::{LimitCheck, LimitStatus};

/// The path of a private database.
const IN_MEMORY: &str = ":memory:";

/// Makes a copy the ledger at `to`, though its witness is missing or has seen more.
pub(super) fn restore(copy: &Path, to: &Path) -> Result<Restored, LedgerError> {
    copy::restore(copy, to)
}

/// A handle on the thread that reads and writes the file.
#[derive(Clone)]
pub(super) struct Sqlite {
    // Dropped first, so that the thread below closes the last connection, and SQLite writes the log back.
    /// The thread for long reads. `None` for a database in memory.
    reader: Option<Arc<Reader>>,
    thread: Arc<Thread>,
    /// The handles of this process on the file. `None` for a database in memory.
    siblings: Option<Arc<Siblings>>,
}

/// The thread that has the file open. The last handle waits until it has closed the file.
struct Thread {
    jobs: Option<Sender<Job>>,
    /// The number of writes that no caller waits for, and that are not made yet.
    later: Arc<AtomicUsize>,
    handle: Option<JoinHandle<()>>,
    /// The process that the thread runs in. A fork of it has no such thread.
    process: u32,
    /// `None` for a database in memory.
    guard: Option<Arc<Guard>>,
}

impl Thread {
    fn check_process(&self) -> Result<(), LedgerError> {
        if self.process == process::id() {
            return Ok(());
        }
        Err(LedgerError::store(
            "the process was forked after it had opened the ledger; open it in the new process",
        ))
    }

    fn send(&self, job: Job) -> Result<(), LedgerError> {
        self.check_process()?;
        let sent = self.jobs.as_ref().and_then(|jobs| jobs.send(job).ok());
        sent.ok_or_else(thread_stopped)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.jobs.take());
        let Some(handle) = self.handle.take() else {
            return;
        };
        let is_own = handle.thread().id() == thread::current().id();
        if self.process == process::id() && !is_own {
            // The thread ends also after a panic.
            drop(handle.join());
        }
    }
}

impl Sqlite {
    /// Opens the file.
    pub(super) fn open(path: &Path, options: &OpenOptions) -> Result<Self, LedgerError> {
        let (connection, watch, guard) = if path == Path::new(IN_MEMORY) {
            (schema::in_memory()?, None, None)
        } else {
            let files = if options.must_exist {
                Files::existing(path)?
            } else {
                Files::at(path)?
            };
            let (connection, watch) = schema::open(files, options)?;
            let guard = watch.guard();
            (connection, Some(watch), Some(guard))
        };
        let (jobs, queue) = channel();
        let worker = thread::Builder::new().name("bursar-ledger".to_owned());
        let handle = worker
            .spawn(move || writer::serve(Writer::new(connection, watch), &queue))
            .map_err(LedgerError::store)?;
        let reader = guard.clone().map(|guard| Arc::new(Reader::new(guard)));
        let siblings = guard
            .as_ref()
            .map(|guard| Siblings::of(&guard.files.database));
        let thread = Arc::new(Thread {
            jobs: Some(jobs),
            later: Arc::default(),
            handle: Some(handle),
            process: process::id(),
            guard,
        });
        if let Some(siblings) = &siblings {
            siblings.add(&thread);
        }
        Ok(Self {
            reader,
            thread,
            siblings,
        })
    }

    /// Copies the ledger to a new file, on a thread of its own, so that clients can pay meanwhile.
    pub(super) async fn backup(&self, to: &Path) -> Result<(), LedgerError> {
        let guard = self
            .thread
            .guard
            .clone()
            .ok_or_else(|| LedgerError::store("a ledger in memory has no backup"))?;
        self.write_all_now().await?;
        let (answer, answered) = oneshot::channel();
        let to = to.to_owned();
        let backup = move || {
            guard.check()?;
            copy::backup(&guard.files, &to)?;
            guard.check().map(drop)
        };
        thread::Builder::new()
            .name("bursar-backup".to_owned())
            .spawn(move || drop(answer.send(backup())))
            .map_err(LedgerError::store)?;
        answered.await.map_err(|_| thread_stopped())?
    }

    /// Has the other handles of this process on the file make their writes that no caller waits for.
    async fn settle_others(&self) {
        if let Some(siblings) = &self.siblings {
            siblings.settle(&self.thread).await;
        }
    }

    /// Clients can pay meanwhile.
    pub(super) async fn verify(
        &self,
        noted: Option<B256>,
        read: &mut (dyn FnMut(usize) + Send),
    ) -> Result<Verification, LedgerError> {
        let mut audit = Audit::new(noted);
        let mut last = Some(i64::MIN);
        while let Some(seq) = last {
            let rows;
            (audit, last, rows) = self
                .read_long(move |connection| {
                    let events = query::events_after(seq);
                    let (last, rows) = inspect(connection, events, |row| audit.event(row))?;
                    Ok((audit, last, rows))
                })
                .await?;
            read(rows);
        }
        last = Some(i64::MIN);
        while let Some(seq) = last {
            let rows;
            (audit, last, rows) = self
                .read_long(move |connection| {
                    let purchases = query::purchases_after(seq);
                    let (last, rows) = inspect(connection, purchases, |row| audit.purchase(row))?;
                    Ok((audit, last, rows))
                })
                .await?;
            read(rows);
        }
        for total in self.read_long(recount).await? {
            audit.fault(LedgerFault::TotalChanged { total });
        }
        Ok(audit.close())
    }

    /// Runs `work` on the thread. The work is also done if the caller stops waiting.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let guard = self.thread.guard.clone();
        let job: Read = Box::new(move |connection| {
            let intact = guard.map_or(Ok(()), |guard| guard.check().map(drop));
            drop(answer.send(intact.and_then(|()| work(connection))));
        });
        self.settle_others().await;
        self.thread.send(Job::Read(job))?;
        answered.await.map_err(|_| thread_stopped())?
    }

    /// Runs `work` on the thread for long reads, so that no payment waits for it.
    async fn read_long<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let Some(reader) = &self.reader else {
            return self.read(work).await;
        };
        self.thread.check_process()?;
        self.settle_others().await;
        self.write_all_now().await?;
        let (answer, answered) = oneshot::channel();
        reader.send(Box::new(move |connection| {
            if !answer.is_closed() {
                drop(answer.send(connection.and_then(work)));
            }
        }))?;
        answered.await.map_err(|_| thread_stopped())?
    }

    /// Makes the writes that no caller waits for, so that another connection sees them.
    async fn write_all_now(&self) -> Result<(), LedgerError> {
        if self.thread.later.load(Ordering::Acquire) > 0 {
            self.read(|_| Ok(())).await?;
        }
        Ok(())
    }

    /// Runs `work` in a transaction: all of its changes take effect, or none.
    async fn write<T: Send + 'static>(
        &self,
        sync: Sync,
        work: impl Fn(File<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let job = Write::new(sync, work, move |result| drop(answer.send(result)));
        self.settle_others().await;
        self.thread.send(Job::Write(job))?;
        answered.await.map_err(|_| thread_stopped())?
    }

    pub(super) async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let reservation = reservation.clone();
        // A request with an API key leaves at once. A payment leaves after its signature is on disk,
        // and this hold is then on disk too.
        let sync = if reservation.purchase.credential.is_some() {
            Sync::Now
        } else {
            Sync::WithTheNext
        };
        self.write(sync, move |file| reserve(file, &reservation))
            .await
    }

    pub(super) async fn buy(
        &self,
        reservation: &Arc<Reservation>,
        signer: &Arc<dyn SignsInStep>,
    ) -> Result<Obtained, LedgerError> {
        let (reservation, signer) = (Arc::clone(reservation), Arc::clone(signer));
        self.write(Sync::Now, move |file| buy(file, &reservation, &*signer))
            .await
    }

    pub(super) async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let (purchase, transition) = (purchase.clone(), transition.clone());
        let sync = match &transition {
            Transition::Presented { .. } | Transition::Voided { .. } => Sync::WithTheNext,
            // Without it, the purchase stays signed, and counts as it did.
            transition if transition.is_outcome() => Sync::WithTheNext,
            _ => Sync::Now,
        };
        self.write(sync, move |file| record(file, &purchase, &transition, now))
            .await
    }

    /// As [`record`](Self::record), without waiting. Calls `refused` if the change cannot be recorded.
    ///
    /// Every later call sees the change. It is in the file some milliseconds later, and on disk within a second.
    pub(super) fn record_later(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
        refused: impl FnOnce(LedgerError) + Send + 'static,
    ) -> Result<(), LedgerError> {
        let (purchase, transition) = (purchase.clone(), transition.clone());
        let work = move |file: File<'_>| record(file, &purchase, &transition, now);
        self.send_later(work, |recorded| {
            if let Err(error) = recorded {
                refused(error);
            }
        })
    }

    /// Sends a write that no caller waits for.
    fn send_later(
        &self,
        work: impl Fn(File<'_>) -> Result<(), LedgerError> + Send + 'static,
        answer: impl FnOnce(Result<(), LedgerError>) + Send + 'static,
    ) -> Result<(), LedgerError> {
        let later = Arc::clone(&self.thread.later);
        later.fetch_add(1, Ordering::AcqRel);
        let job = Write::later(work, move |made| {
            answer(made);
            later.fetch_sub(1, Ordering::AcqRel);
        });
        self.thread.send(Job::Write(job)).inspect_err(|_| {
            self.thread.later.fetch_sub(1, Ordering::AcqRel);
        })
    }

    pub(super) async fn resume(&self, wanted: &Resumption) -> Result<Resumed, LedgerError> {
        let wanted = wanted.clone();
        let looked_for = wanted.clone();
        // There is nearly always nothing to resume, so the write lock is taken only if there is.
        let found = self
            .read(move |connection| resumable(connection, &looked_for))
            .await?;
        if !matches!(found, Resumed::Again(_)) {
            return Ok(found);
        }
        self.write(Sync::WithTheNext, move |file| resume(file, &wanted))
            .await
    }

    pub(super) async fn set_freeze(&self, freeze: Option<&Freeze>) -> Result<(), LedgerError> {
        let freeze = freeze.cloned();
        self.write(Sync::Now, move |file| {
            file::execute(file.database, query::set_freeze(freeze.as_ref()))
        })
        .await
    }

    pub(super) async fn frozen(&self) -> Result<Option<Freeze>, LedgerError> {
        self.read(|connection| stopped(connection)).await
    }

    pub(super) async fn add_denials(&self, denials: &[DenialCount]) -> Result<(), LedgerError> {
        let denials = denials.to_vec();
        self.write(Sync::WithTheNext, move |file| count(file, &denials))
            .await
    }

    /// Does not wait for the thread.
    pub(super) fn add_denials_later(&self, denials: Vec<DenialCount>) -> Result<(), LedgerError> {
        let work = move |file: File<'_>| count(file, &denials);
        self.send_later(work, |counted| {
            if let Err(error) = counted {
                tracing::debug!(%error, "the ledger did not count denials");
            }
        })
    }

    pub(super) async fn denials(&self) -> Result<Vec<DenialCount>, LedgerError> {
        self.read(|connection| {
            let mut denials = Vec::new();
            file::each(connection, counts::all(), |line| {
                denials.extend(counts::read(line)?);
                Ok(())
            })?;
            Ok(denials)
        })
        .await
    }

    pub(super) async fn examine(
        &self,
        checks: &LimitCheck,
    ) -> Result<Vec<LimitStatus>, LedgerError> {
        let asked = checks.clone();
        if let Some(answer) = self
            .read(move |connection| examine(connection, &asked))
            .await?
        {
            return Ok(answer);
        }
        // An index of these limits is missing. To create it needs the write lock.
        let checks = checks.clone();
        self.write(Sync::WithTheNext, move |file| {
            prepare(file, &checks)?;
            checks.evaluate(&View::new(file, checks.now(), None)?)
        })
        .await
    }

    pub(super) async fn purchase(
        &self,
        purchase: &PurchaseKey,
    ) -> Result<Option<Purchase>, LedgerError> {
        let purchase = purchase.clone();
        self.read(move |connection| file::find(connection, &purchase))
            .await
    }

    pub(super) async fn page(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let page = query::page(filter);
        let work = move |connection: &mut Connection| file::read(connection, page);
        if filter.is_short() {
            self.read(work).await
        } else {
            self.read_long(work).await
        }
    }

    pub(super) async fn before_last(
        &self,
        filter: &Filter,
        last: usize,
    ) -> Result<Option<u64>, LedgerError> {
        let before_last = query::before_last(filter, last);
        let work = move |connection: &mut Connection| number(connection, before_last);
        if filter.is_short() {
            self.read(work).await
        } else {
            self.read_long(work).await
        }
    }

    pub(super) async fn has_bought(&self, bought: &Bought<'_>) -> Result<bool, LedgerError> {
        let bought = query::bought("purchases INDEXED BY by_seller", bought);
        let asked = bought.clone();
        let found = self
            .read(
                move |connection| match indices::exists(connection, BY_SELLER)? {
                    true => number(connection, asked).map(Some),
                    false => Ok(None),
                },
            )
            .await?;
        let found = match found {
            Some(found) => found,
            None => {
                self.write(Sync::WithTheNext, move |file| {
                    file.ensure_index(BY_SELLER)?;
                    number(file.database, bought.clone())
                })
                .await?
            }
        };
        Ok(found.is_some())
    }

    pub(super) async fn calls(&self, calls: &Calls<'_>) -> Result<u64, LedgerError> {
        let calls = query::calls("purchases INDEXED BY by_credential", calls);
        let counted = self
            .read(move |connection| number(connection, calls))
            .await?;
        Ok(counted.unwrap_or(0))
    }
}

fn thread_stopped() -> LedgerError {
    LedgerError::store("the ledger's thread has stopped")
}

fn stopped(connection: &Connection) -> Result<Option<Freeze>, LedgerError> {
    file::first(connection, query::frozen(), |line| row::freeze(line))
}

/// Answers all checks in one read transaction, so that all answers are of the same moment. Returns `None` if an index is
/// missing.
fn examine(
    connection: &mut Connection,
    checks: &LimitCheck,
) -> Result<Option<Vec<LimitStatus>>, LedgerError> {
    let transaction = connection.transaction().map_err(failed)?;
    for name in of_check(checks) {
        if !indices::exists(&transaction, name)? {
            return Ok(None);
        }
    }
    let known = RefCell::default();
    let answer = checks.evaluate(&View::new(
        File {
            database: &transaction,
            known: &known,
        },
        checks.now(),
        None,
    )?);
    answer.map(Some)
}

/// Returns the `seq` of the first row of a query.
fn number(connection: &Connection, query: Query) -> Result<Option<u64>, LedgerError> {
    file::first(connection, query, |line| Cells::of(line)?.integer("seq"))
}

/// Returns the names of the totals that differ from the sums of their purchases. Reads all of them
/// in one transaction.
fn recount(connection: &mut Connection) -> Result<Vec<String>, LedgerError> {
    let transaction = connection.transaction().map_err(failed)?;
    let mut recount = totals::Recount::begin(&transaction)?;
    let purchases = Query {
        sql: "SELECT * FROM purchases".into(),
        values: Vec::new(),
    };
    file::each(&transaction, purchases, |line| {
        // A row that cannot be read was reported before.
        if let Ok(purchase) = row::purchase(line) {
            recount.add(&purchase);
        }
        Ok(())
    })?;
    Ok(recount.wrong())
}

/// Passes the rows of one step of a verification to `take`. Returns the number of the last row, or
/// `None` if there was none, and the number of rows.
fn inspect(
    connection: &Connection,
    query: Query,
    mut take: impl FnMut(&Line<'_>) -> Result<i64, LedgerError>,
) -> Result<(Option<i64>, usize), LedgerError> {
    let (mut last, mut rows) = (None, 0_usize);
    file::each(connection, query, |line| {
        last = Some(take(line)?);
        rows = rows.saturating_add(1);
        Ok(())
    })?;
    Ok((last, rows))
}

/// Converts an error of SQLite. A broken database is damage; other errors may be temporary.
fn failed(error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            LedgerError::Damaged(error.to_string())
        }
        _ => LedgerError::store(error),
    }
}
