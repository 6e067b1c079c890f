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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    type Told = (&'static str, Result<(), LedgerError>);

    /// A file in which a thing that belongs to nobody is found out when the transaction is committed.
    fn books() -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let books = Connection::open(directory.path().join("books.db")).unwrap();
        let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
            CREATE TABLE owners (id INTEGER PRIMARY KEY);
            CREATE TABLE things (name TEXT PRIMARY KEY,
                owner INTEGER REFERENCES owners (id) DEFERRABLE INITIALLY DEFERRED)";
        books.execute_batch(schema).unwrap();
        (directory, books)
    }

    fn write(sync: Sync, name: &'static str, sql: &'static str, told: &Sender<Told>) -> Write {
        let told = told.clone();
        let work = move |books: &Connection| books.execute_batch(sql).map_err(failed);
        Write::new(sync, work, move |result| told.send((name, result)).unwrap())
    }

    fn done(books: &mut Connection, writes: &[(Sync, &'static str, &'static str)]) -> Vec<(&'static str, bool)> {
        let (told, heard) = channel();
        let writes = writes.iter().map(|(sync, name, sql)| write(*sync, name, sql, &told)).collect();
        // As the caller of `serve` leaves it.
        let mut synced = level(books);
        write_all(books, writes, &mut synced);
        assert_eq!(synced, level(books));
        drop(told);
        heard.iter().map(|(name, result)| (name, result.is_ok())).collect()
    }

    fn level(books: &Connection) -> Sync {
        let level: i64 = books.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap();
        if level == 2 { Sync::Now } else { Sync::WithTheNext }
    }

    fn things(books: &Connection) -> Vec<String> {
        let mut statement = books.prepare("SELECT name FROM things ORDER BY name").unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }

    const A: &str = "INSERT INTO things VALUES ('a', NULL)";
    const B: &str = "INSERT INTO things VALUES ('b', NULL)";
    const HALF: &str = "INSERT INTO things VALUES ('half', NULL); INSERT INTO things VALUES ('half', NULL)";
    const ORPHAN: &str = "INSERT INTO things VALUES ('orphan', 7)";
    /// As SQLite itself does when the disk fails.
    const UNDOES_ALL: &str = "INSERT OR ROLLBACK INTO things VALUES ('a', NULL)";

    #[test]
    fn what_fails_half_way_leaves_nothing_and_the_others_all() {
        let (_directory, mut books) = books();
        let told = done(&mut books, &[(Sync::Now, "a", A), (Sync::Now, "half", HALF), (Sync::Now, "b", B)]);
        assert_eq!(told, [("a", true), ("half", false), ("b", true)]);
        assert_eq!(things(&books), ["a", "b"]);
    }

    #[test]
    fn nobody_is_told_of_success_when_the_commit_fails() {
        let (_directory, mut books) = books();
        let told = done(&mut books, &[(Sync::Now, "a", A), (Sync::Now, "orphan", ORPHAN), (Sync::Now, "b", B)]);
        assert_eq!(told, [("a", false), ("orphan", false), ("b", false)]);
        assert!(things(&books).is_empty());
        assert_eq!(done(&mut books, &[(Sync::Now, "a", A)]), [("a", true)], "the next begins anew");
    }

    #[test]
    fn nobody_is_told_of_success_when_the_transaction_ends_in_the_middle() {
        let (_directory, mut books) = books();
        let told = done(&mut books, &[(Sync::Now, "a", A), (Sync::Now, "undo", UNDOES_ALL), (Sync::Now, "b", B)]);
        assert_eq!(told, [("a", false), ("undo", false), ("b", false)]);
        assert!(things(&books).is_empty(), "b is not written outside of the transaction");
        assert_eq!(done(&mut books, &[(Sync::Now, "b", B)]), [("b", true)]);
    }

    #[test]
    fn while_another_writes_all_are_told_so_and_nothing_is_written() {
        let (directory, mut books) = books();
        books.busy_timeout(std::time::Duration::ZERO).unwrap();
        let other = Connection::open(directory.path().join("books.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(done(&mut books, &[(Sync::Now, "a", A), (Sync::Now, "b", B)]), [("a", false), ("b", false)]);
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(done(&mut books, &[(Sync::Now, "b", B)]), [("b", true)]);
        assert_eq!(things(&books), ["b"]);
    }

    #[test]
    fn one_that_must_be_on_disk_takes_the_others_with_it() {
        let (_directory, mut books) = books();
        done(&mut books, &[(Sync::WithTheNext, "a", A)]);
        assert_eq!(level(&books), Sync::WithTheNext);
        done(&mut books, &[(Sync::WithTheNext, "half", HALF), (Sync::Now, "b", B), (Sync::WithTheNext, "half", HALF)]);
        assert_eq!(level(&books), Sync::Now, "its transaction was synced");
    }

    #[test]
    fn what_waits_is_answered_in_order_and_none_is_left_when_the_last_asker_goes() {
        let (_directory, books) = books();
        let (jobs, queue) = channel();
        let (told, heard) = channel();
        for _ in 0..TOGETHER + 1 {
            jobs.send(Job::Write(write(Sync::WithTheNext, "write", "UPDATE things SET owner = NULL", &told))).unwrap();
        }
        let read = told.clone();
        jobs.send(Job::Read(Box::new(move |_| read.send(("read", Ok(()))).unwrap()))).unwrap();
        jobs.send(Job::Write(write(Sync::Now, "last", A, &told))).unwrap();
        drop((jobs, told));
        serve(books, &queue);
        let heard: Vec<_> = heard.iter().map(|(name, result)| (name, result.is_ok())).collect();
        assert_eq!(heard.len(), TOGETHER + 3);
        assert!(heard.iter().take(TOGETHER + 1).all(|told| *told == ("write", true)));
        assert_eq!(heard[TOGETHER + 1..], [("read", true), ("last", true)]);
    }
}
