//! Books in a SQLite file that all processes of a host share.

mod desk;
mod file;
mod known;
mod schema;
#[cfg(test)]
mod tests;
mod totals;
mod view;

use std::cell::RefCell;
use std::fmt;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use alloy::primitives::B256;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use self::desk::{Job, Read, Sync, Write};
use self::file::{File, Line};
use self::view::View;
use super::seal::{Audit, Fault, Verification};
use super::sql::query::{self, Query};
use super::sql::row;
use super::{
    Filter, Freeze, Ledger, LedgerError, Plan, Purchase, PurchaseKey, Reservation, Reserved,
    Resumption, Transition,
};
use crate::Timestamp;
use crate::limit::{LimitCheck, LimitStatus};

/// Books in a SQLite file: durable, and shared by all clients and processes that open it.
///
/// Clones are handles on the same books. One thread of its own does all the reading and writing,
/// so that no task waits on a disk; it ends, and closes the file, when the last handle is dropped.
/// What was begun is finished: dropping the future of a call does not undo it.
///
/// What was signed or paid is on disk before the call returns, and all that came before it; a hold alone
/// would be lost with the machine's power, with nothing signed. Writes that wait for each other share one
/// transaction. A file that cannot be read or written, is
/// damaged, belongs to another program or was written by a newer bursar is an error, and is left
/// as it is. The file must be on a local disk; network file systems do not lock reliably.
#[derive(Clone)]
pub struct SqliteLedger {
    jobs: Sender<Job>,
}

impl SqliteLedger {
    /// Opens the books at `path`, or starts new ones if there is no file.
    ///
    /// A new file can be read by its owner alone (mode 0600), an existing one keeps its mode. The
    /// directory must exist: a mistyped path is an error rather than a place for empty books.
    /// `:memory:` gives private books that end with the last handle.
    ///
    /// Blocks on the disk, and up to 10 seconds on another process that is writing.
    ///
    /// # Errors
    /// When the file cannot be read and written, is no SQLite database, belongs to another program,
    /// was written by a newer bursar, was cut off, or has other tables or indices than bursar made.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        let connection = schema::open(path.as_ref())?;
        let (jobs, queue) = channel();
        let worker = thread::Builder::new().name("bursar-ledger".to_owned());
        worker
            .spawn(move || desk::serve(connection, &queue))
            .map_err(LedgerError::store)?;
        Ok(Self { jobs })
    }

    /// Walks through all events and purchases, and finds what was changed by other means than this
    /// crate. `noted` is a [`Verification::head`] of earlier, which must still be in the chain.
    ///
    /// Paying goes on meanwhile, but for the last step, which adds up all totals again. Memory does not grow
    /// with the books.
    ///
    /// # Errors
    /// When the books cannot be read.
    pub async fn verify(&self, noted: Option<B256>) -> Result<Verification, LedgerError> {
        let mut audit = Audit::new(noted);
        let mut last = Some(i64::MIN);
        while let Some(seq) = last {
            (audit, last) = self
                .run(move |books| {
                    let last = inspect(books, query::events_after(seq), |row| audit.event(row))?;
                    Ok((audit, last))
                })
                .await?;
        }
        last = Some(i64::MIN);
        while let Some(seq) = last {
            (audit, last) = self
                .run(move |books| {
                    let last = inspect(books, query::purchases_after(seq), |row| {
                        audit.purchase(row)
                    })?;
                    Ok((audit, last))
                })
                .await?;
        }
        for total in self.run(recount).await? {
            audit.fault(Fault::TotalChanged { total });
        }
        Ok(audit.close())
    }

    /// Reads. The caller may have gone; the work is done all the same.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let job: Read = Box::new(move |connection| drop(answer.send(work(connection))));
        self.jobs
            .send(Job::Read(job))
            .map_err(|_| thread_stopped())?;
        answered.await.map_err(|_| thread_stopped())?
    }

    /// Writes: all of the work, or none of it.
    async fn write<T: Send + 'static>(
        &self,
        sync: Sync,
        work: impl Fn(File<'_>) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let (answer, answered) = oneshot::channel();
        let job = Write::new(sync, work, move |result| drop(answer.send(result)));
        self.jobs
            .send(Job::Write(job))
            .map_err(|_| thread_stopped())?;
        answered.await.map_err(|_| thread_stopped())?
    }
}

fn thread_stopped() -> LedgerError {
    LedgerError::store("the ledger's thread has stopped")
}

impl fmt::Debug for SqliteLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteLedger").finish_non_exhaustive()
    }
}

impl Ledger for SqliteLedger {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        let reservation = reservation.clone();
        // A call by key leaves at once; for a payment, what is signed is on disk first, and this with it.
        let sync = if reservation.entry.credential.is_some() {
            Sync::Now
        } else {
            Sync::WithTheNext
        };
        self.write(sync, move |file| reserve(file, &reservation))
            .await
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let (purchase, transition) = (purchase.clone(), transition.clone());
        let sync = match &transition {
            Transition::Presented { .. } | Transition::Voided { .. } => Sync::WithTheNext,
            _ => Sync::Now,
        };
        self.write(sync, move |file| record(file, &purchase, &transition, now))
            .await
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        let wanted = wanted.clone();
        let looked_for = wanted.clone();
        // Nearly always there is nothing to take up: the write lock is taken only if there seems to be.
        if self
            .run(move |books| unresolved(books, &looked_for))
            .await?
            .is_none()
        {
            return Ok(None);
        }
        self.write(Sync::WithTheNext, move |file| resume(file, &wanted))
            .await
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        let order = order.cloned();
        self.write(Sync::Now, move |file| {
            file::execute(file.books, query::stop(order.as_ref()))
        })
        .await
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        self.run(|connection| stopped(connection)).await
    }

    async fn examine(&self, checks: &LimitCheck) -> Result<Vec<LimitStatus>, LedgerError> {
        let checks = checks.clone();
        self.run(move |connection| examine(connection, &checks))
            .await
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        let purchase = purchase.clone();
        self.run(move |connection| file::find(connection, &purchase))
            .await
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        let filter = filter.clone();
        self.run(move |connection| select(connection, &filter))
            .await
    }
}

/// The write lock is taken before anything is read: what the checks see is what the hold adds to.
fn reserve(file: File<'_>, reservation: &Reservation) -> Result<Reserved, LedgerError> {
    let known = file.find(&reservation.key())?;
    let mut entry = match reservation.plan(known.clone()) {
        Plan::Hold(entry) => entry,
        Plan::Answer(answer) => return Ok(answer),
    };
    let view = View::new(file, reservation.checks.now(), known.as_ref())?;
    let denial = reservation.checks.deny(&view)?;
    if let Some(denial) = denial {
        return Ok(Reserved::Denied(Box::new(denial)));
    }
    for lapsed in view.lapsed() {
        if let Some(freed) = reservation.lapse(lapsed) {
            file.write(&freed, Some(lapsed))?;
        }
    }
    entry.seq = match &known {
        Some(known) => known.seq,
        None => file.next_seq()?,
    };
    file.write(&entry, known.as_ref())?;
    Ok(Reserved::Held(entry))
}

fn record(
    file: File<'_>,
    purchase: &PurchaseKey,
    transition: &Transition,
    now: Timestamp,
) -> Result<(), LedgerError> {
    let known = file
        .find(purchase)?
        .ok_or_else(|| LedgerError::UnknownPurchase(purchase.id.clone()))?;
    let mut entry = known.clone();
    entry.apply(transition, now)?;
    file.write(&entry, Some(&known))
}

fn resume(file: File<'_>, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
    let Some((known, taken)) = unresolved(file.books, wanted)? else {
        return Ok(None);
    };
    file.write(&taken, Some(&known))?;
    Ok(Some(taken))
}

/// The oldest purchase to take up, and as it is to be written.
fn unresolved(
    books: &Connection,
    wanted: &Resumption,
) -> Result<Option<(Purchase, Purchase)>, LedgerError> {
    let candidates = file::read(
        books,
        query::unresolved("purchases INDEXED BY unresolved", wanted),
    )?;
    Ok(candidates
        .into_iter()
        .find_map(|entry| wanted.take_up(&entry).map(|taken| (entry, taken))))
}

fn stopped(books: &Connection) -> Result<Option<Freeze>, LedgerError> {
    file::first(books, query::stopped(), |line| row::freeze_order(line))
}

/// One read transaction, so that all answers are of the same moment.
fn examine(
    connection: &mut Connection,
    checks: &LimitCheck,
) -> Result<Vec<LimitStatus>, LedgerError> {
    let books = connection.transaction().map_err(failed)?;
    let known = RefCell::default();
    checks.evaluate(&View::new(
        File {
            books: &books,
            known: &known,
        },
        checks.now(),
        None,
    )?)
}

fn select(books: &Connection, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
    let mut purchases = file::read(books, query::purchases(filter))?;
    purchases.reverse();
    Ok(purchases)
}

/// Totals that are not what the purchases say, by name: one read transaction, so that both are of one moment.
fn recount(connection: &mut Connection) -> Result<Vec<String>, LedgerError> {
    let books = connection.transaction().map_err(failed)?;
    let mut recount = totals::Recount::begin(&books)?;
    let purchases = Query {
        sql: "SELECT * FROM purchases".into(),
        values: Vec::new(),
    };
    file::each(&books, purchases, |line| {
        // What cannot be read was found before.
        if let Ok(entry) = row::entry(line) {
            recount.add(&entry);
        }
        Ok(())
    })?;
    Ok(recount.wrong())
}

/// The next rows of a verification; `None` after the last.
fn inspect(
    books: &Connection,
    query: Query,
    mut take: impl FnMut(&Line<'_>) -> Result<i64, LedgerError>,
) -> Result<Option<i64>, LedgerError> {
    let mut last = None;
    file::each(books, query, |line| {
        last = Some(take(line)?);
        Ok(())
    })?;
    Ok(last)
}

/// What SQLite finds broken is damage; all else may pass.
fn failed(error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            LedgerError::Damaged(error.to_string())
        }
        _ => LedgerError::store(error),
    }
}
