//! The thread that reads and writes the file.
//!
//! Writes that wait at the same time share one transaction and one sync of the disk. Each of them
//! takes effect completely or not at all, in the order of their arrival. Reads come after them.

use std::cell::RefCell;
use std::slice::from_mut;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use rusqlite::{Connection, TransactionBehavior};

use super::file::{self, File};
use super::known::Known;
use super::totals;
use super::witness::Watch;
use super::{failed, schema};
use crate::ledger::LedgerError;

/// The most jobs that are done together, so that none of them waits long.
const BATCH: usize = 128;
/// How long a write without a waiting caller waits for another one, to share its transaction.
const WAIT: Duration = Duration::from_millis(5);
/// How long a write can be in the log before it is on disk.
const SYNC_WITHIN: Duration = Duration::from_millis(500);

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
    /// Whether no caller waits for it.
    can_wait: bool,
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
            can_wait: false,
            change: Box::new(Pending {
                work,
                result: None,
                answer,
            }),
        }
    }

    /// Returns a write that no caller waits for. It is made together with the next one, or after some milliseconds.
    pub(super) fn later<T: Send + 'static>(
        work: impl Fn(File<'_>) -> Result<T, LedgerError> + Send + 'static,
        answer: impl FnOnce(Result<T, LedgerError>) + Send + 'static,
    ) -> Self {
        Self {
            can_wait: true,
            ..Self::new(Sync::WithTheNext, work, answer)
        }
    }
}

/// Serves the queue until the last handle of the ledger is dropped. Then closes the file.
pub(super) fn serve(mut writer: Writer, queue: &Receiver<Job>) {
    let mut waiting = Waiting::default();
    loop {
        let job = match next(queue, writer.is_due(&waiting)) {
            Ok(job) => Some(job),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        let mut reads = Vec::new();
        for job in job.into_iter().chain(queue.try_iter()).take(BATCH) {
            match job {
                Job::Read(read) => reads.push(read),
                Job::Write(write) => waiting.push(write),
            }
        }
        if !reads.is_empty() || waiting.must_be_made() {
            let writes = waiting.take();
            if !writes.is_empty() {
                writer.write_all(writes);
            }
        }
        reads
            .into_iter()
            .for_each(|read| read(&mut writer.connection));
        writer.sync_in_time();
    }
    let writes = waiting.take();
    if !writes.is_empty() {
        writer.write_all(writes);
    }
    writer.close();
}

/// Waits for the next job, until a time at most.
fn next(queue: &Receiver<Job>, until: Option<Instant>) -> Result<Job, RecvTimeoutError> {
    match until {
        None => queue.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(until) => queue.recv_timeout(until.saturating_duration_since(Instant::now())),
    }
}

/// Writes that are not made yet, in the order of their arrival.
#[derive(Default)]
struct Waiting {
    writes: Vec<Write>,
    /// When they must be made. `None` if there are none.
    until: Option<Instant>,
    has_caller: bool,
}

impl Waiting {
    fn push(&mut self, write: Write) {
        self.has_caller |= !write.can_wait;
        if self.until.is_none() {
            self.until = Instant::now().checked_add(WAIT);
        }
        self.writes.push(write);
    }

    fn must_be_made(&self) -> bool {
        let is_late = self.until.is_some_and(|until| until <= Instant::now());
        self.has_caller || is_late || self.writes.len() >= BATCH
    }

    fn take(&mut self) -> Vec<Write> {
        std::mem::take(self).writes
    }
}

pub(super) struct Writer {
    connection: Connection,
    /// `None` for a database in memory.
    watch: Option<Watch>,
    known: RefCell<Known>,
    /// The setting of the connection.
    synced: Sync,
    wrote: bool,
    /// When the log must be on disk, if some of it is not.
    unsynced: Option<Instant>,
}

impl Writer {
    /// The connection must have the setting [`Sync::Now`].
    pub(super) fn new(connection: Connection, watch: Option<Watch>) -> Self {
        Self {
            connection,
            watch,
            known: RefCell::default(),
            synced: Sync::Now,
            wrote: false,
            unsynced: None,
        }
    }

    /// Returns when there is something to do without a new job.
    fn is_due(&self, waiting: &Waiting) -> Option<Instant> {
        let times = waiting.until.into_iter().chain(self.unsynced);
        times.min()
    }

    /// Has the log reach the disk if it was written long ago.
    fn sync_in_time(&mut self) {
        if self.unsynced.is_some_and(|due| due <= Instant::now())
            && let Err(error) = self.sync_log()
        {
            // The purchases in it count as they did before.
            tracing::warn!(%error, "the ledger's log could not be synced");
            self.unsynced = None;
        }
    }

    /// Waits until the log is on disk.
    fn sync_log(&mut self) -> Result<(), LedgerError> {
        if let Some(watch) = &self.watch {
            watch.sync_log()?;
        }
        self.unsynced = None;
        Ok(())
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
        let file_written = match &mut self.watch {
            Some(watch) => watch.look(&self.connection)?,
            None => false,
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let version = self.known.borrow_mut().begin(&transaction, file_written)?;
        if let Some(watch) = &mut self.watch {
            watch.before(&transaction, version.others_wrote)?;
        }
        let changes = transaction.total_changes();
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
        let head = self.known.borrow().head;
        let head = match (&self.watch, head) {
            (Some(_), Some(head)) => Some((head, file.last_seq()?)),
            _ => None,
        };
        let must_sync = self.known.borrow_mut().take_must_sync();
        let has_written = transaction.total_changes() != changes;
        transaction.commit().map_err(failed)?;
        self.wrote = true;
        if has_written {
            self.unsynced = match self.synced {
                Sync::Now => None,
                Sync::WithTheNext => {
                    let due = Instant::now().checked_add(SYNC_WITHIN);
                    self.unsynced.or(due)
                }
            };
        }
        if let Some(watch) = &mut self.watch {
            watch.after(self.synced, head)?;
        }
        self.known.borrow_mut().keep(&version);
        if must_sync && self.unsynced.is_some() {
            self.sync_log()?;
        }
        Ok(Made::Committed)
    }

    /// Writes the log back and notes the head, so that the file alone is the ledger. SQLite then removes the log, unless
    /// another program has the file open.
    fn close(mut self) {
        let Some(watch) = &mut self.watch else {
            return;
        };
        if !watch.is_intact() {
            // The names are those of another file by now. SQLite would write an old log back, or delete a new one.
            drop(schema::keep_log_on_close(&self.connection, true));
            return;
        }
        if self.wrote
            && let Ok(head) = file::head(&self.connection)
            && let Ok(purchases) = file::last_seq(&self.connection)
            && schema::write_back(&self.connection).unwrap_or_default()
        {
            // A witness that is behind is not wrong.
            drop(watch.close(head, purchases));
        }
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
        LedgerError::Copied { path } => LedgerError::Copied { path: path.clone() },
        LedgerError::SecondName { path, how } => LedgerError::SecondName {
            path: path.clone(),
            how,
        },
        LedgerError::Store(source) => LedgerError::store(source.to_string()),
        other => LedgerError::store(other.to_string()),
    })
}

#[cfg(test)]
mod tests;
