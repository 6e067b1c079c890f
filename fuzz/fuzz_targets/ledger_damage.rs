//! Books whose file was damaged: never a panic, never a call that does not end; and books that were
//! cut off are an error, or have no more room than before.
//!
//! Changed bytes and cells are not held to the second: rows and indices carry no checksum yet, so
//! that one bit in an index hides a purchase from its limit. The witness is whole.

#![no_main]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use arbitrary::Arbitrary;
use bursar::fuzzing::{self, Answer, Change, PAYER, Wish};
use bursar::ledger::{Filter, LedgerError, PurchaseKey};
use bursar::policy::Scope;
use bursar::x402::PaymentMethod;
use bursar::{Ledger, PurchaseId, Timestamp};
use libfuzzer_sys::fuzz_target;
use rusqlite::Connection;
use rusqlite::types::Value;

const LIMIT: u64 = 100_000;
const PURCHASES: u8 = 10;
/// All that was reserved in the intact books and not freed.
const SPENT: u64 = 45_000;
const NOW: u64 = 1_800_000_000;

#[derive(Arbitrary, Debug)]
enum Damage<'a> {
    Set {
        at: u32,
        byte: u8,
    },
    Flip {
        at: u32,
        bit: u8,
    },
    Copy {
        from: u16,
        to: u16,
    },
    Cut {
        length: u32,
    },
    Cell {
        column: u8,
        row: u8,
        value: Cell<'a>,
    },
}

#[derive(Arbitrary, Debug)]
enum Cell<'a> {
    Null,
    Integer(i64),
    Text(&'a str),
    Blob(&'a [u8]),
}

fuzz_target!(|damages: Vec<Damage<'_>>| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("books.db");
    let (intact, witness) = intact();
    let mut bytes = intact.clone();
    for damage in damages.iter().take(16) {
        hurt(&mut bytes, damage);
    }
    private(&path, intact);
    private(&directory.path().join("books.db-head"), witness);
    // Nothing is paid from a copy that was not accepted.
    Ledger::restore(&path, &path).expect("a copy");
    private(&path, &bytes);
    for damage in damages.iter().take(16) {
        rewrite(&path, damage);
    }
    let only_cut = damages
        .iter()
        .all(|damage| matches!(damage, Damage::Cut { .. }));
    let scopes = [0, 1, 2, 3, 4, 5, 6].map(scope);
    let before = damages.len() % scopes.len();
    runtime.block_on(async {
        let Ok(ledger) = Ledger::sqlite(&path) else {
            return;
        };
        let room = probe(&ledger, scopes[before].clone()).await;
        if let Some(held) = room {
            assert!(
                !held || !only_cut,
                "{damages:?} made room in {}",
                scopes[before]
            );
        }
        drop(ledger.purchases(&Filter::all()).await);
        for id in 0..PURCHASES {
            let key = PurchaseKey::new(PAYER, id_of(id));
            let lease = ledger
                .purchase(&key)
                .await
                .ok()
                .flatten()
                .map_or(now(), |purchase| purchase.lease_until);
            let voided = Change::Voided { lease };
            drop(fuzzing::record(&ledger, &key.id, voided, now()).await);
        }
    });
});

/// Whether one micro-dollar more than the intact books had room for can be held; `None` on an error.
async fn probe(ledger: &Ledger, scope: Scope) -> Option<bool> {
    match fuzzing::reserve(ledger, wish(PURCHASES, LIMIT - SPENT + 1, scope)).await {
        Ok(Answer::Held(_)) => Some(true),
        Ok(_) => Some(false),
        Err(_) => None,
    }
}

fn scope(number: u8) -> Scope {
    let origin = || "https://api.example.com".parse().expect("an origin");
    let usdc = bursar::fuzzing::usdc();
    match number {
        0 => Scope::Global,
        1 => Scope::Origin(origin()),
        2 => Scope::Domain("example.com".to_owned()),
        3 => Scope::Payee(bursar::Address::repeat_byte(0xC1)),
        4 => Scope::Asset(usdc.network(), usdc.address()),
        5 => Scope::Tag("research".to_owned()),
        _ => Scope::Agent("ada".to_owned()),
    }
}

fn now() -> Timestamp {
    Timestamp::from_secs(NOW)
}

fn id_of(id: u8) -> PurchaseId {
    format!("order-{id}").parse().expect("a purchase id")
}

fn wish(id: u8, micros: u64, scope: Scope) -> Wish {
    Wish {
        id: id_of(id),
        micros,
        method: PaymentMethod::ALL[usize::from(id) % PaymentMethod::ALL.len()],
        scope,
        lifetime: LIMIT,
        changed: false,
        now: now(),
    }
}

fn hurt(bytes: &mut Vec<u8>, damage: &Damage<'_>) {
    const BLOCK: usize = 64;
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match *damage {
        Damage::Set { at, byte } => {
            if let Some(place) = bytes.get_mut(at as usize % length) {
                *place = byte;
            }
        }
        Damage::Flip { at, bit } => {
            if let Some(place) = bytes.get_mut(at as usize % length) {
                *place ^= 1 << (bit % 8);
            }
        }
        Damage::Copy { from, to } => {
            let (from, to) = (
                usize::from(from) * BLOCK % length,
                usize::from(to) * BLOCK % length,
            );
            let end = (from + BLOCK).min(length).min(from + length - to);
            bytes.copy_within(from..end, to);
        }
        Damage::Cut { length: kept } => bytes.truncate(kept as usize % length),
        Damage::Cell { .. } => {}
    }
}

/// Replaces a cell, as another program with the file open could.
fn rewrite(path: &Path, damage: &Damage<'_>) -> Option<usize> {
    let Damage::Cell { column, row, value } = damage else {
        return None;
    };
    let value = match *value {
        Cell::Null => Value::Null,
        Cell::Integer(number) => Value::Integer(number),
        Cell::Text(text) => Value::Text(text.to_owned()),
        Cell::Blob(bytes) => Value::Blob(bytes.to_owned()),
    };
    let books = Connection::open(path).ok()?;
    let columns: Vec<String> = books
        .prepare("SELECT name FROM pragma_table_info('purchases')")
        .ok()?
        .query_map([], |row| row.get(0))
        .ok()?
        .collect::<Result<_, _>>()
        .ok()?;
    let column = columns.get(usize::from(*column) % columns.len().max(1))?;
    books
        .execute(
            &format!("UPDATE purchases SET \"{column}\" = ? WHERE seq = ?"),
            (value, row % PURCHASES + 1),
        )
        .ok()
}

/// Writes a file that only its owner can read.
fn private(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a file");
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("a mode");
}

/// The bytes of books with purchases in every state, and those of their witness.
fn intact() -> &'static (Vec<u8>, Vec<u8>) {
    static BOOKS: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    BOOKS.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("books.db");
        runtime.block_on(keep(&path)).expect("books");
        let books = Connection::open(&path).expect("books");
        books
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
            .expect("a checkpoint");
        let bytes = [&path, &directory.path().join("books.db-head")]
            .map(|path| fs::read(path).expect("a file"));
        assert!(runtime.block_on(async {
            let ledger = Ledger::sqlite(&path).expect("books");
            for number in 0..7 {
                assert_eq!(
                    probe(&ledger, scope(number)).await,
                    Some(false),
                    "intact books have their room"
                );
            }
            let fits = wish(PURCHASES, LIMIT - SPENT, Scope::Global);
            matches!(fuzzing::reserve(&ledger, fits).await, Ok(Answer::Held(_)))
        }));
        bytes.into()
    })
}

/// Ten purchases of 5000 each, of which one is freed.
async fn keep(path: &Path) -> Result<(), LedgerError> {
    let ledger = Ledger::sqlite(path)?;
    for id in 0..PURCHASES {
        let Answer::Held(held) = fuzzing::reserve(&ledger, wish(id, 5000, Scope::Global)).await?
        else {
            panic!("there is room")
        };
        let lease = held.lease_until;
        let record = |change| fuzzing::record(&ledger, &held.id, change, now());
        if id == 9 {
            record(Change::Voided { lease }).await?;
            continue;
        }
        if id > 0 {
            let valid_before = NOW + 60;
            record(Change::Signed {
                lease,
                valid_before,
            })
            .await?;
        }
        match id % 4 {
            1 => {
                let (transaction, charged) = ([id; 32], Some(100));
                record(Change::Settled {
                    transaction,
                    charged,
                })
                .await?;
            }
            2 => record(Change::Rejected).await?,
            _ => {}
        }
    }
    Ok(())
}
