//! The one thread that reads and writes the file. Writes that wait at the same time share a transaction,
//! and the disk's time: each is whole or not there, in the order they came.

use std::sync::mpsc::{Receiver, TryRecvError};

use rusqlite::{Connection, TransactionBehavior};

use super::failed;
use crate::ledger::LedgerError;

/// Writes that share a transaction at most, so that none waits long for the others.
const TOGETHER: usize = 128;

pub(super) enum Job {
    Read(Read),
    Write(Write),
}

/// Its own transaction, if it wants one.
pub(super) type Read = Box<dyn FnOnce(&mut Connection) + Send>;

/// Whether a write must be on disk before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    Now,
    /// With the next that must be: the file is written in order, so that what follows it is never there
    /// without it.
    WithTheNext,
}

/// A change, and who waits for its answer.
pub(super) struct Write {
    sync: Sync,
    change: Box<dyn Change>,
}

trait Change: Send {
    /// Makes it, and says whether it is to be kept.
    fn make(&mut self, books: &Connection) -> bool;
    /// Answers, once it is known what became of the transaction.
    fn tell(self: Box<Self>, kept: Result<(), LedgerError>);
}

struct Pending<T, W, A> {
    work: Option<W>,
    result: Option<Result<T, LedgerError>>,
    answer: A,
}

impl<T, W, A> Change for Pending<T, W, A>
where
    T: Send,
    W: FnOnce(&Connection) -> Result<T, LedgerError> + Send,
    A: FnOnce(Result<T, LedgerError>) + Send,
{
    fn make(&mut self, books: &Connection) -> bool {
        self.result = self.work.take().map(|work| work(books));
        matches!(self.result, Some(Ok(_)))
    }

    fn tell(self: Box<Self>, kept: Result<(), LedgerError>) {
        let Self { result, answer, .. } = *self;
        let untried = || Err(LedgerError::store("the change was not tried"));
        // What was read in a transaction that failed is not to be believed either.
        answer(kept.and_then(|()| result.unwrap_or_else(untried)));
    }
}

impl Write {
    pub(super) fn new<T: Send + 'static>(
        sync: Sync,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError> + Send + 'static,
        answer: impl FnOnce(Result<T, LedgerError>) + Send + 'static,
    ) -> Self {
        Self { sync, change: Box::new(Pending { work: Some(work), result: None, answer }) }
    }
}

/// Works until nobody can ask any more.
pub(super) fn serve(mut connection: Connection, queue: &Receiver<Job>) {
    let mut synced = Sync::Now;
    let mut next = queue.recv().ok();
    while let Some(job) = next.take() {
        match job {
            Job::Read(read) => read(&mut connection),
            Job::Write(write) => {
                let mut writes = vec![write];
                while writes.len() < TOGETHER {
                    match queue.try_recv() {
                        Ok(Job::Write(write)) => writes.push(write),
                        Ok(read) => {
                            next = Some(read);
                            break;
                        }
                        Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
                    }
                }
                write_all(&mut connection, writes, &mut synced);
            }
        }
        if next.is_none() {
            next = queue.recv().ok();
        }
    }
}

fn write_all(connection: &mut Connection, mut writes: Vec<Write>, synced: &mut Sync) {
    let kept = set(connection, together(&writes), synced).and_then(|()| transact(connection, &mut writes));
    for Write { change, .. } in writes {
        change.tell(kept.as_ref().map_or_else(|error| Err(again(error)), |()| Ok(())));
    }
}

fn together(writes: &[Write]) -> Sync {
    if writes.iter().any(|write| write.sync == Sync::Now) { Sync::Now } else { Sync::WithTheNext }
}

/// The write lock is taken before anything is read: what the checks see is what a hold adds to.
fn transact(connection: &mut Connection, writes: &mut [Write]) -> Result<(), LedgerError> {
    let mut books = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    for Write { change, .. } in writes {
        let place = books.savepoint().map_err(failed)?;
        if change.make(&place) {
            place.commit().map_err(failed)?;
        } else {
            place.finish().map_err(failed)?;
        }
    }
    books.commit().map_err(failed)
}

/// Outside of a transaction, where alone SQLite changes it.
fn set(connection: &Connection, sync: Sync, synced: &mut Sync) -> Result<(), LedgerError> {
    if sync != *synced {
        // NORMAL leaves the log to the next sync; the database itself is synced in both.
        let level = if sync == Sync::Now { "FULL" } else { "NORMAL" };
        connection.pragma_update(None, "synchronous", level).map_err(failed)?;
        *synced = sync;
    }
    Ok(())
}

/// The same error for another caller.
fn again(error: &LedgerError) -> LedgerError {
    match error {
        LedgerError::Damaged(what) => LedgerError::Damaged(what.clone()),
        LedgerError::Store(source) => LedgerError::store(source.to_string()),
        other => LedgerError::store(other.to_string()),
    }
}
