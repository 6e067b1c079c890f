//! The one thread that reads and writes the file. Writes that wait at the same time share a transaction,
//! and the disk's time: each is whole or not there, in the order they came. What would be read meanwhile is read
//! after them.

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

/// Jobs that are done together at most, so that none waits long for the others.
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
    /// Makes it, and says whether it is to be kept. It may be made again, when nothing of it was kept.
    fn make(&mut self, file: File<'_>) -> bool;
    /// Answers, once it is known what became of the transaction.
    fn emit(self: Box<Self>, kept: Result<(), LedgerError>);
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

    fn emit(self: Box<Self>, kept: Result<(), LedgerError>) {
        let Self { result, answer, .. } = *self;
        let untried = || Err(LedgerError::store("the change was not tried"));
        // What was read in a transaction that failed is not to be believed either.
        answer(kept.and_then(|()| result.unwrap_or_else(untried)));
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

/// Works until nobody can ask any more.
pub(super) fn serve(connection: Connection, queue: &Receiver<Job>) {
    let mut desk = Desk::new(connection);
    while let Ok(job) = queue.recv() {
        let (mut writes, mut reads) = (Vec::new(), Vec::new());
        for job in once(job).chain(queue.try_iter()).take(TOGETHER) {
            match job {
                Job::Read(read) => reads.push(read),
                Job::Write(write) => writes.push(write),
            }
        }
        if !writes.is_empty() {
            desk.write_all(writes);
        }
        reads
            .into_iter()
            .for_each(|read| read(&mut desk.connection));
    }
}

struct Desk {
    connection: Connection,
    known: RefCell<Known>,
    /// As the connection is set.
    synced: Sync,
}

impl Desk {
    /// The connection is set to [`Sync::Now`].
    fn new(connection: Connection) -> Self {
        Self {
            connection,
            known: RefCell::default(),
            synced: Sync::Now,
        }
    }

    fn write_all(&mut self, mut writes: Vec<Write>) {
        let done = self
            .set(together(&writes))
            .and_then(|()| self.transact(&mut writes));
        // One that is not to be kept took back the others with it: each is then made alone.
        let again = matches!(done, Ok(Made::TakenBack)) && writes.len() > 1;
        for mut write in writes {
            let done = if again {
                self.transact(from_mut(&mut write))
            } else {
                same(&done)
            };
            write.change.emit(done.map(drop));
        }
    }

    /// The write lock is taken before anything is read: what the checks see is what a hold adds to.
    ///
    /// Without a savepoint for each, of which SQLite would keep every page that it touches: nearly none is taken back.
    fn transact(&mut self, writes: &mut [Write]) -> Result<Made, LedgerError> {
        let books = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(failed)?;
        let version = self.known.borrow_mut().begin(&books)?;
        let file = File {
            books: &books,
            known: &self.known,
        };
        for Write { change, .. } in writes {
            if !change.make(file) {
                // The transaction rolls back when it is dropped, if SQLite has not done so.
                return Ok(Made::TakenBack);
            }
            if books.is_autocommit() {
                return Err(LedgerError::store("SQLite ended the transaction"));
            }
        }
        totals::write(file)?;
        books.commit().map_err(failed)?;
        self.known.borrow_mut().keep(version);
        Ok(Made::Committed)
    }

    /// Outside of a transaction, where alone SQLite changes it.
    fn set(&mut self, sync: Sync) -> Result<(), LedgerError> {
        if sync != self.synced {
            // NORMAL leaves the log to the next sync; the database itself is synced in both.
            let level = if sync == Sync::Now { "FULL" } else { "NORMAL" };
            self.connection
                .pragma_update(None, "synchronous", level)
                .map_err(failed)?;
            self.synced = sync;
        }
        Ok(())
    }
}

/// What became of a transaction.
#[derive(Clone, Copy)]
enum Made {
    Committed,
    TakenBack,
}

fn together(writes: &[Write]) -> Sync {
    if writes.iter().any(|write| write.sync == Sync::Now) {
        Sync::Now
    } else {
        Sync::WithTheNext
    }
}

/// The same for another caller.
fn same(done: &Result<Made, LedgerError>) -> Result<Made, LedgerError> {
    done.as_ref().copied().map_err(|error| match error {
        LedgerError::Damaged(what) => LedgerError::Damaged(what.clone()),
        LedgerError::Store(source) => LedgerError::store(source.to_string()),
        other => LedgerError::store(other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    type Told = (&'static str, Result<(), LedgerError>);

    /// A file in which a thing that belongs to nobody is found out when the transaction is committed.
    fn desk() -> (tempfile::TempDir, Desk) {
        let directory = tempfile::tempdir().unwrap();
        let books = Connection::open(directory.path().join("books.db")).unwrap();
        let schema =
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
            CREATE TABLE owners (id INTEGER PRIMARY KEY);
            CREATE TABLE things (name TEXT PRIMARY KEY,
                owner INTEGER REFERENCES owners (id) DEFERRABLE INITIALLY DEFERRED);";
        books
            .execute_batch(&format!("{schema} {}", totals::TABLE))
            .unwrap();
        (directory, Desk::new(books))
    }

    fn write(sync: Sync, name: &'static str, sql: &'static str, told: &Sender<Told>) -> Write {
        let told = told.clone();
        let work = move |file: File<'_>| file.books.execute_batch(sql).map_err(failed);
        Write::new(sync, work, move |result| told.send((name, result)).unwrap())
    }

    fn done(
        desk: &mut Desk,
        writes: &[(Sync, &'static str, &'static str)],
    ) -> Vec<(&'static str, bool)> {
        let (told, heard) = channel();
        let writes = writes
            .iter()
            .map(|(sync, name, sql)| write(*sync, name, sql, &told))
            .collect();
        desk.write_all(writes);
        assert_eq!(desk.synced, level(&desk.connection));
        drop(told);
        heard
            .iter()
            .map(|(name, result)| (name, result.is_ok()))
            .collect()
    }

    fn level(books: &Connection) -> Sync {
        let level: i64 = books
            .query_row("PRAGMA synchronous", [], |row| row.get(0))
            .unwrap();
        if level == 2 {
            Sync::Now
        } else {
            Sync::WithTheNext
        }
    }

    fn things(books: &Connection) -> Vec<String> {
        let mut statement = books
            .prepare("SELECT name FROM things ORDER BY name")
            .unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    }

    const A: &str = "INSERT INTO things VALUES ('a', NULL)";
    const B: &str = "INSERT INTO things VALUES ('b', NULL)";
    const HALF: &str =
        "INSERT INTO things VALUES ('half', NULL); INSERT INTO things VALUES ('half', NULL)";
    const ORPHAN: &str = "INSERT INTO things VALUES ('orphan', 7)";
    /// As SQLite itself does when the disk fails.
    const UNDOES_ALL: &str = "INSERT OR ROLLBACK INTO things VALUES ('a', NULL)";

    #[test]
    fn what_fails_half_way_leaves_nothing_and_the_others_all() {
        let (_directory, mut desk) = desk();
        let told = done(
            &mut desk,
            &[
                (Sync::Now, "a", A),
                (Sync::Now, "half", HALF),
                (Sync::Now, "b", B),
            ],
        );
        assert_eq!(told, [("a", true), ("half", false), ("b", true)]);
        assert_eq!(things(&desk.connection), ["a", "b"]);
    }

    #[test]
    fn nobody_is_told_of_success_when_the_commit_fails() {
        let (_directory, mut desk) = desk();
        let told = done(
            &mut desk,
            &[
                (Sync::Now, "a", A),
                (Sync::Now, "orphan", ORPHAN),
                (Sync::Now, "b", B),
            ],
        );
        assert_eq!(told, [("a", false), ("orphan", false), ("b", false)]);
        assert!(things(&desk.connection).is_empty());
        assert_eq!(
            done(&mut desk, &[(Sync::Now, "a", A)]),
            [("a", true)],
            "the next begins anew"
        );
    }

    #[test]
    fn when_the_transaction_ends_in_the_middle_each_is_made_in_its_own() {
        let (_directory, mut desk) = desk();
        let told = done(
            &mut desk,
            &[
                (Sync::Now, "a", A),
                (Sync::Now, "undo", UNDOES_ALL),
                (Sync::Now, "b", B),
            ],
        );
        assert_eq!(told, [("a", true), ("undo", false), ("b", true)]);
        assert_eq!(
            things(&desk.connection),
            ["a", "b"],
            "neither lost nor written twice"
        );
        assert_eq!(
            done(&mut desk, &[(Sync::Now, "undo", UNDOES_ALL)]),
            [("undo", false)]
        );
    }

    #[test]
    fn what_hides_that_the_transaction_ended_is_not_believed() {
        let (_directory, mut desk) = desk();
        let (told, heard) = channel();
        let hidden = move |file: File<'_>| {
            file.books.execute_batch(A).map_err(failed)?;
            file.books.execute_batch(UNDOES_ALL).unwrap_err();
            Ok(())
        };
        let answer = told.clone();
        let hidden = Write::new(Sync::Now, hidden, move |result| {
            answer.send(("hidden", result)).unwrap()
        });
        desk.write_all(vec![hidden, write(Sync::Now, "b", B, &told)]);
        drop(told);
        assert!(heard.iter().all(|(_, result)| result.is_err()));
        assert!(
            things(&desk.connection).is_empty(),
            "b is not written outside of a transaction"
        );
    }

    #[test]
    fn while_another_writes_all_are_told_so_and_nothing_is_written() {
        let (directory, mut desk) = desk();
        desk.connection
            .busy_timeout(std::time::Duration::ZERO)
            .unwrap();
        let other = Connection::open(directory.path().join("books.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert_eq!(
            done(&mut desk, &[(Sync::Now, "a", A), (Sync::Now, "b", B)]),
            [("a", false), ("b", false)]
        );
        other.execute_batch("ROLLBACK").unwrap();
        assert_eq!(done(&mut desk, &[(Sync::Now, "b", B)]), [("b", true)]);
        assert_eq!(things(&desk.connection), ["b"]);
    }

    #[test]
    fn one_that_must_be_on_disk_takes_the_others_with_it() {
        let (_directory, mut desk) = desk();
        done(&mut desk, &[(Sync::WithTheNext, "a", A)]);
        assert_eq!(level(&desk.connection), Sync::WithTheNext);
        done(
            &mut desk,
            &[
                (Sync::WithTheNext, "half", HALF),
                (Sync::Now, "b", B),
                (Sync::WithTheNext, "half", HALF),
            ],
        );
        assert_eq!(
            level(&desk.connection),
            Sync::Now,
            "its transaction was synced"
        );
    }

    #[test]
    fn what_waits_is_done_together_and_none_is_left_when_the_last_asker_goes() {
        let (_directory, desk) = desk();
        let (jobs, queue) = channel();
        let (told, heard) = channel();
        let read = |name, things_there: usize| {
            let told = told.clone();
            Job::Read(Box::new(move |books: &mut Connection| {
                assert_eq!(things(books).len(), things_there, "{name}");
                told.send((name, Ok(()))).unwrap();
            }))
        };
        for _ in 0..TOGETHER {
            jobs.send(Job::Write(write(
                Sync::WithTheNext,
                "write",
                "UPDATE things SET owner = NULL",
                &told,
            )))
            .unwrap();
        }
        jobs.send(Job::Write(write(Sync::WithTheNext, "a", A, &told)))
            .unwrap();
        jobs.send(read("between", 2)).unwrap();
        jobs.send(Job::Write(write(Sync::Now, "b", B, &told)))
            .unwrap();
        jobs.send(read("last", 2)).unwrap();
        drop(jobs);
        serve(desk.connection, &queue);
        let heard: Vec<_> = heard
            .try_iter()
            .map(|(name, result)| (name, result.is_ok()))
            .collect();
        assert_eq!(heard[..TOGETHER], [("write", true); TOGETHER]);
        assert_eq!(
            heard[TOGETHER..],
            [("a", true), ("b", true), ("between", true), ("last", true)]
        );
    }
}
