//! Tests of ledgers in a file.

mod accidents;
mod copies;
mod damage;
mod events;
mod opening;
mod reading;
mod sharing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, params_from_iter};

use super::*;
use crate::ledger::backend::Backend;
use crate::ledger::conformance::{
    HOUR, NOW, PAYLOAD, at, given_up, hold, lifetime, meter, order, settled, signed, unknown, wish,
};
use crate::ledger::sql::tables::VERSION;
use crate::ledger::{Ledger, State};
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
