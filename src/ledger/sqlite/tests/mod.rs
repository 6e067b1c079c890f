//! Tests of ledgers in a file.

mod accidents;
mod copies;
mod cost;
mod damage;
mod events;
mod growth;
mod migration;
mod one_step;
mod open_files;
mod opening;
mod reading;
mod sharing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, params_from_iter};

use super::schema::VERSION;
use super::*;
use crate::ledger::backend::Backend;
use crate::ledger::conformance::{
    HOUR, NOW, PAYLOAD, at, given_up, hold, lifetime, meter, order, settled, signed, unknown, wish,
};
use crate::ledger::{Ledger, OpenOptions, State};
use crate::limit::{BEGINNING, LimitKind, Moment, Scope, Since};
use crate::money::Usd;

fn new_path() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    (directory, path)
}

fn refused(path: &Path) -> LedgerError {
    Ledger::sqlite(path).expect_err("the file is refused")
}

/// Returns the handle on the thread of a SQLite ledger.
pub(super) fn thread_of(ledger: &Ledger) -> &Sqlite {
    match &ledger.backend {
        Backend::Sqlite(sqlite) => sqlite,
        _ => panic!("not in a file"),
    }
}

/// Returns the path of the write-ahead log.
fn log_of(path: &Path) -> PathBuf {
    guard::with_suffix(path, "-wal")
}

fn witness_of(path: &Path) -> PathBuf {
    guard::with_suffix(path, "-head")
}

/// Returns the sorted names of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Writes a file that only its owner can read.
fn put(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap();
    set_mode(path, 0o600);
}

fn set_mode(path: &Path, mode: u32) {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    #[cfg(not(unix))]
    let _ = (path, mode);
}

/// Runs an ignored test of this module in another process. `BURSAR_TEST_PATH` is the path.
fn in_another_process(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            &format!("ledger::sqlite::tests::{test}"),
            "--ignored",
        ])
        .env("BURSAR_TEST_PATH", path)
        .stdout(process::Stdio::null());
    command
}

/// Holds `count` purchases.
async fn hold_many(ledger: &Ledger, count: usize) {
    for number in 0..count {
        hold(ledger, order(&format!("order-{number}"), 10), NOW).await;
    }
}

/// Writes a ledger with `purchases` at `path`, closes it and returns its bytes.
async fn closed(path: &Path, purchases: usize) -> Vec<u8> {
    let ledger = Ledger::sqlite(path).unwrap();
    hold_many(&ledger, purchases).await;
    drop(ledger);
    meddle(path, "PRAGMA wal_checkpoint(TRUNCATE)");
    fs::read(path).unwrap()
}

/// Executes SQL on the file as another program.
fn meddle(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

/// The limit of the tests, in micro-dollars. [`spend`] uses all of it.
const LIMIT: u64 = 30;

/// Signs three purchases of 10 micro-dollars each, and settles the first.
async fn spend(ledger: &Ledger) {
    sign(ledger, "one").await.unwrap();
    let first = order("one", 10).key();
    ledger.record(&first, &settled(), at(NOW)).await.unwrap();
    // An outcome is on disk with the next signature.
    for id in ["two", "three"] {
        sign(ledger, id).await.unwrap();
    }
}

/// Holds and signs a purchase under the limit.
async fn sign(ledger: &Ledger, id: &str) -> Result<(), LedgerError> {
    let wish = wish(order(id, 10), at(NOW), lifetime(LIMIT));
    match ledger.reserve(&wish).await? {
        Reserved::Held(held) => {
            let signed = signed(NOW + 300);
            ledger.record(&held.key(), &signed, at(NOW)).await
        }
        denied => panic!("{denied:?}"),
    }
}

/// Whether one more purchase is denied, as the limit demands.
async fn is_denied(ledger: &Ledger) -> bool {
    let wish = wish(order("more", 1), at(NOW), lifetime(LIMIT));
    matches!(ledger.reserve(&wish).await.unwrap(), Reserved::Denied(_))
}

/// Asserts that the ledger refuses to pay, to record and to report.
async fn is_stopped(ledger: &Ledger, about: &str) {
    let damaged = |error: LedgerError| {
        assert!(
            matches!(
                error,
                LedgerError::Damaged(_) | LedgerError::SecondName { .. }
            ),
            "{about}: {error:?}"
        );
    };
    damaged(sign(ledger, "more").await.unwrap_err());
    let key = order("two", 10).key();
    damaged(ledger.record(&key, &settled(), at(NOW)).await.unwrap_err());
    damaged(ledger.purchases(&Filter::all()).await.unwrap_err());
    damaged(ledger.verify(None).await.unwrap_err());
}

/// Writes a full ledger and closes it.
async fn full(path: &Path) {
    spend(&Ledger::sqlite(path).unwrap()).await;
}

/// Makes the witness at `path` that of the file there, as if the file was no copy.
fn adopt(path: &Path) {
    if let Ok(Some(note)) = witness::Note::read(&witness_of(path)) {
        let mark = Files::at(path).unwrap().mark().unwrap();
        let note = witness::Note { mark, ..note };
        note.create(&witness_of(path)).unwrap();
    }
}

/// Copies the files that a crash at this moment would leave. The ledger takes the copy for the original.
fn crash(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let (directory, copy) = new_path();
    for of in [Path::to_owned, log_of, witness_of] {
        if let Ok(bytes) = fs::read(of(path)) {
            put(&of(&copy), &bytes);
        }
    }
    adopt(&copy);
    (directory, copy)
}

fn cut(path: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}
