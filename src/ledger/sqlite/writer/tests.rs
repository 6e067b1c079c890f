//! Tests of the writer thread.

use std::sync::mpsc::{Sender, channel};

use super::*;

type Answer = (&'static str, Result<(), LedgerError>);

/// Returns a writer of a file that refuses the commit of a thing without an owner.
fn new_writer() -> (tempfile::TempDir, Writer) {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("ledger.db")).unwrap();
    let schema = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
        CREATE TABLE owners (id INTEGER PRIMARY KEY);
        CREATE TABLE things (name TEXT PRIMARY KEY,
            owner INTEGER REFERENCES owners (id) DEFERRABLE INITIALLY DEFERRED);";
    connection
        .execute_batch(&format!("{schema} {}", totals::TABLE))
        .unwrap();
    (directory, Writer::new(connection, None))
}

fn write(sync: Sync, name: &'static str, sql: &'static str, answers: &Sender<Answer>) -> Write {
    let answers = answers.clone();
    let work = move |file: File<'_>| file.database.execute_batch(sql).map_err(failed);
    Write::new(sync, work, move |result| {
        answers.send((name, result)).unwrap()
    })
}

fn done(
    writer: &mut Writer,
    writes: &[(Sync, &'static str, &'static str)],
) -> Vec<(&'static str, bool)> {
    let (answers, received) = channel();
    let writes = writes
        .iter()
        .map(|(sync, name, sql)| write(*sync, name, sql, &answers))
        .collect();
    writer.write_all(writes);
    assert_eq!(writer.synced, level(&writer.connection));
    drop(answers);
    received
        .iter()
        .map(|(name, result)| (name, result.is_ok()))
        .collect()
}

fn level(connection: &Connection) -> Sync {
    let level: i64 = connection
        .query_row("PRAGMA synchronous", [], |row| row.get(0))
        .unwrap();
    if level == 2 {
        Sync::Now
    } else {
        Sync::WithTheNext
    }
}

fn things(connection: &Connection) -> Vec<String> {
    let mut statement = connection
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
/// SQLite itself ends a transaction in this way when the disk fails.
const UNDOES_ALL: &str = "INSERT OR ROLLBACK INTO things VALUES ('a', NULL)";

#[test]
fn a_failed_write_leaves_nothing_and_the_others_everything() {
    let (_directory, mut writer) = new_writer();
    let answers = done(
        &mut writer,
        &[
            (Sync::Now, "a", A),
            (Sync::Now, "half", HALF),
            (Sync::Now, "b", B),
        ],
    );
    assert_eq!(answers, [("a", true), ("half", false), ("b", true)]);
    assert_eq!(things(&writer.connection), ["a", "b"]);
}

#[test]
fn no_write_succeeds_when_the_commit_fails() {
    let (_directory, mut writer) = new_writer();
    let answers = done(
        &mut writer,
        &[
            (Sync::Now, "a", A),
            (Sync::Now, "orphan", ORPHAN),
            (Sync::Now, "b", B),
        ],
    );
    assert_eq!(answers, [("a", false), ("orphan", false), ("b", false)]);
    assert!(things(&writer.connection).is_empty());
    assert_eq!(
        done(&mut writer, &[(Sync::Now, "a", A)]),
        [("a", true)],
        "the next write succeeds"
    );
}

#[test]
fn writes_are_made_alone_when_their_transaction_ends() {
    let (_directory, mut writer) = new_writer();
    let answers = done(
        &mut writer,
        &[
            (Sync::Now, "a", A),
            (Sync::Now, "undo", UNDOES_ALL),
            (Sync::Now, "b", B),
        ],
    );
    assert_eq!(answers, [("a", true), ("undo", false), ("b", true)]);
    assert_eq!(
        things(&writer.connection),
        ["a", "b"],
        "neither lost nor written twice"
    );
    assert_eq!(
        done(&mut writer, &[(Sync::Now, "undo", UNDOES_ALL)]),
        [("undo", false)]
    );
}

#[test]
fn a_write_that_hides_the_end_of_its_transaction_fails() {
    let (_directory, mut writer) = new_writer();
    let (answers, received) = channel();
    let hidden = move |file: File<'_>| {
        file.database.execute_batch(A).map_err(failed)?;
        file.database.execute_batch(UNDOES_ALL).unwrap_err();
        Ok(())
    };
    let answer = answers.clone();
    let hidden = Write::new(Sync::Now, hidden, move |result| {
        answer.send(("hidden", result)).unwrap()
    });
    writer.write_all(vec![hidden, write(Sync::Now, "b", B, &answers)]);
    drop(answers);
    assert!(received.iter().all(|(_, result)| result.is_err()));
    assert!(
        things(&writer.connection).is_empty(),
        "b is not written outside of a transaction"
    );
}

#[test]
fn every_write_fails_while_another_process_writes() {
    let (directory, mut writer) = new_writer();
    writer.connection.busy_timeout(Duration::ZERO).unwrap();
    let other = Connection::open(directory.path().join("ledger.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(
        done(&mut writer, &[(Sync::Now, "a", A), (Sync::Now, "b", B)]),
        [("a", false), ("b", false)]
    );
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(done(&mut writer, &[(Sync::Now, "b", B)]), [("b", true)]);
    assert_eq!(things(&writer.connection), ["b"]);
}

#[test]
fn one_write_that_must_be_on_disk_syncs_all() {
    let (_directory, mut writer) = new_writer();
    done(&mut writer, &[(Sync::WithTheNext, "a", A)]);
    assert_eq!(level(&writer.connection), Sync::WithTheNext);
    done(
        &mut writer,
        &[
            (Sync::WithTheNext, "half", HALF),
            (Sync::Now, "b", B),
            (Sync::WithTheNext, "half", HALF),
        ],
    );
    assert_eq!(
        level(&writer.connection),
        Sync::Now,
        "its transaction was synced"
    );
}

#[test]
fn waiting_jobs_are_done_together_and_none_is_left() {
    let (_directory, writer) = new_writer();
    let (jobs, queue) = channel();
    let (answers, received) = channel();
    let read = |name, things_there: usize| {
        let answers = answers.clone();
        Job::Read(Box::new(move |connection: &mut Connection| {
            assert_eq!(things(connection).len(), things_there, "{name}");
            answers.send((name, Ok(()))).unwrap();
        }))
    };
    for _ in 0..BATCH {
        jobs.send(Job::Write(write(
            Sync::WithTheNext,
            "write",
            "UPDATE things SET owner = NULL",
            &answers,
        )))
        .unwrap();
    }
    jobs.send(Job::Write(write(Sync::WithTheNext, "a", A, &answers)))
        .unwrap();
    jobs.send(read("between", 2)).unwrap();
    jobs.send(Job::Write(write(Sync::Now, "b", B, &answers)))
        .unwrap();
    jobs.send(read("last", 2)).unwrap();
    drop(jobs);
    serve(writer, &queue);
    let received: Vec<_> = received
        .try_iter()
        .map(|(name, result)| (name, result.is_ok()))
        .collect();
    assert_eq!(received[..BATCH], [("write", true); BATCH]);
    assert_eq!(
        received[BATCH..],
        [("a", true), ("b", true), ("between", true), ("last", true)]
    );
}
