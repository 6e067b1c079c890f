//! Tests of ledgers in a file.

mod damage;
mod events;
mod opening;
mod reading;
mod sharing;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
    path.with_file_name(format!(
        "{}-wal",
        path.file_name().unwrap().to_str().unwrap()
    ))
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
