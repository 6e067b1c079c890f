//! The thread that reads and writes the file.
//!
//! Writes that wait at the same time share one transaction and one sync of the disk. Each of them
//! takes effect completely or not at all, in the order of their arrival. Reads come after them.

use std::cell::RefCell;
use std::iter::once;
use std::slice::from_mut;
use std::sync::mpsc::Receiver;

use rusqlite::{Connection, TransactionBehavior};

use super::failed;
use super::file::File;
use super::known::Known;
use super::totals;
use crate::ledger::LedgerError;

/// The most jobs that are done together, so that none of them waits long.
const BATCH: usize = 128;

pub(super) enum Job {
    Read(Read),
    Write(Write),
}

/// A read. It begins a transaction of its own if it needs one.
pub(super) type Read = Box<dyn FnOnce(&mut Connection) + Send>;

/// Whether a write must be on disk before its caller gets the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sync {
    Now,
    /// The write reaches the disk with the next write that must. The log is written in order, so a
    /// later write is never on disk without this one.
    WithTheNext,
}

/// A change and its caller.
pub(super) struct Write {
    sync: Sync,
    change: Box<dyn Change>,
}

trait Change: Send {
    /// Makes the change and returns whether to keep it. The change can be made again after a rollback.
    fn make(&mut self, file: File<'_>) -> bool;
    /// Answers the caller after the transaction ended.
    fn answer(self: Box<Self>, committed: Result<(), LedgerError>);
}

struct Pending<T, W, A> {
    work: W,
    result: Option<Result<T, LedgerError>>,
    answer: A,
}

impl<T, W, A> Change for Pending<T, W, A>
where
    T: Send,
    W: Fn(File<'_>) -> Result<T, LedgerError> + Send,
    A: FnOnce(Result<T, LedgerError>) + Send,
{
    fn make(&mut self, file: File<'_>) -> bool {
        self.result.insert((self.work)(file)).is_ok()
    }

    fn answer(self: Box<Self>, committed: Result<(), LedgerError>) {
        let Self { result, answer, .. } = *self;
        let untried = || Err(LedgerError::store("the change was not tried"));
        // A value that was read in a failed transaction is not valid either.
        answer(committed.and_then(|()| result.unwrap_or_else(untried)));
    }
}

impl Write {
    pub(super) fn new<T: Send + 'static>(
        sync: Sync,
        work: impl Fn(File<'_>) -> Result<T, LedgerError> + Send + 'static,
        answer: impl FnOnce(Result<T, LedgerError>) + Send + 'static,
    ) -> Self {
        Self {
            sync,
            change: Box::new(Pending {
                work,
                result: None,
                answer,
            }),
        }
    }
}

/// Serves the queue until the last handle of the ledger is dropped.
pub(super) fn serve(connection: Connection, queue: &Receiver<Job>) {
    let mut writer = Writer::new(connection);
    while let Ok(job) = queue.recv() {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for job in once(job).chain(queue.try_iter()).take(BATCH) {
            match job {
                Job::Read(read) => reads.push(read),
                Job::Write(write) => writes.push(write),
            }
        }
        if !writes.is_empty() {
            writer.write_all(writes);
        }
        reads
            .into_iter()
            .for_each(|read| read(&mut writer.connection));
    }
}

struct Writer {
    connection: Connection,
    known: RefCell<Known>,
    /// The setting of the connection.
    synced: Sync,
}

impl Writer {
    /// The connection must have the setting [`Sync::Now`].
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            known: RefCell::default(),
            synced: Sync::Now,
        }
    }

    fn write_all(&mut self, mut writes: Vec<Write>) {
        let done = self
            .set_sync(strictest(&writes))
            .and_then(|()| self.transact(&mut writes));
        // A failed change rolls the other ones back with it. Each is then made alone.
        let again = matches!(done, Ok(Made::RolledBack)) && writes.len() > 1;
        for mut write in writes {
            let done = if again {
                self.transact(from_mut(&mut write))
            } else {
                same(&done)
            };
            write.change.answer(done.map(drop));
        }
    }

    /// Makes all changes in one transaction, which takes the write lock before it reads.
    ///
    /// There is no savepoint for each change: SQLite would copy every page that the change touches,
    /// and almost no change is rolled back.
    fn transact(&mut self, writes: &mut [Write]) -> Result<Made, LedgerError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let version = self.known.borrow_mut().begin(&transaction)?;
        let file = File {
            database: &transaction,
            known: &self.known,
        };
        for Write { change, .. } in writes {
            if !change.make(file) {
                // The transaction rolls back when it is dropped, unless SQLite has ended it already.
                return Ok(Made::RolledBack);
            }
            if transaction.is_autocommit() {
                return Err(LedgerError::store("SQLite ended the transaction"));
            }
        }
        totals::write(file)?;
        transaction.commit().map_err(failed)?;
        self.known.borrow_mut().keep(version);
        Ok(Made::Committed)
    }

    /// Changes the setting of the connection. SQLite allows this only outside of a transaction.
    fn set_sync(&mut self, sync: Sync) -> Result<(), LedgerError> {
        if sync != self.synced {
            // With NORMAL, the log reaches the disk with the next sync. Both sync the database itself.
            let level = if sync == Sync::Now { "FULL" } else { "NORMAL" };
            self.connection
                .pragma_update(None, "synchronous", level)
                .map_err(failed)?;
            self.synced = sync;
        }
        Ok(())
    }
}

/// The end of a transaction.
#[derive(Clone, Copy)]
enum Made {
    Committed,
    RolledBack,
}

/// Returns the setting that all of these writes need.
fn strictest(writes: &[Write]) -> Sync {
    if writes.iter().any(|write| write.sync == Sync::Now) {
        Sync::Now
    } else {
        Sync::WithTheNext
    }
}

/// Copies the result for another caller.
fn same(done: &Result<Made, LedgerError>) -> Result<Made, LedgerError> {
    done.as_ref().copied().map_err(|error| match error {
        LedgerError::Damaged(message) => LedgerError::Damaged(message.clone()),
        LedgerError::Store(source) => LedgerError::store(source.to_string()),
        other => LedgerError::store(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
