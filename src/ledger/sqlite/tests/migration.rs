//! Files of the schema version before this one.

use sha2::{Digest, Sha256};

use super::super::migration::MORE_INDICES;
use super::*;
use crate::ledger::conformance::windows::by_key;
use crate::ledger::hash_chain::purchase_hash;
use crate::ledger::sql::Value;
use crate::ledger::sql::row::columns;
use crate::ledger::sql::scope::indices as by_scope;
use crate::ledger::sql::tables::{NEW_COLUMNS, OLDEST, TABLES};
use crate::ledger::{Filter, Reserved};
use crate::x402::PaymentMethod;

/// Makes the file one of an earlier version: with all its indices, and in version 10 without the new columns.
fn downgrade(path: &Path, version: i64) {
    let file = Connection::open(path).unwrap();
    let is_new = |name: &str| NEW_COLUMNS.iter().any(|(new, _)| *new == name);
    let table = if version == OLDEST {
        let (begin, rest) = TABLES.split_once("    payment_method").unwrap();
        let (_, end) = rest.split_once("    last_event").unwrap();
        format!("{begin}    last_event{end}")
    } else {
        TABLES.to_owned()
    };
    let (table, _) = table.split_once("CREATE TABLE frozen").unwrap();
    let by_scope = by_scope(" AND state <> 'reserved' AND state <> 'signed'");
    let by_scope = by_scope.map(|(_, sql)| format!("{sql};")).join("\n");
    let under_way = "CREATE INDEX under_way ON purchases (lease_until) WHERE (state = 'reserved' OR state = 'signed');";
    let names = |sql: &str| -> Vec<String> {
        let mut statement = file.prepare(sql).unwrap();
        let names = statement.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    for name in names(
        "SELECT name FROM sqlite_schema WHERE tbl_name = 'purchases' AND type = 'index' AND sql IS NOT NULL",
    ) {
        file.execute(&format!("DROP INDEX {name}"), []).unwrap();
    }
    let mut kept = names("SELECT name FROM pragma_table_info('purchases')");
    kept.retain(|name| version != OLDEST || !is_new(name));
    let kept = kept.join(", ");
    file.execute_batch(&format!(
        "BEGIN; DROP TRIGGER keep_purchases; ALTER TABLE purchases RENAME TO newer; {table}
         INSERT INTO purchases ({kept}) SELECT {kept} FROM newer; DROP TABLE newer; {by_scope} {under_way}
         CREATE TRIGGER keep_purchases BEFORE DELETE ON purchases BEGIN SELECT RAISE(ABORT, 'purchases are never deleted'); END;
         PRAGMA user_version = {version}; COMMIT;"
    ))
    .unwrap();
}

async fn fill(ledger: &Ledger) {
    for id in ["settled", "open"] {
        let key = hold(ledger, order(id, 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        if id == "settled" {
            ledger.record(&key, &settled(), at(NOW + 1)).await.unwrap();
        }
    }
    hold(ledger, by_key(order("call", 5), "key"), NOW).await;
    hold(ledger, order("held", 7), NOW).await;
    let limits = wish(order("counted", 1), at(NOW), lifetime(100));
    ledger.reserve(&limits).await.unwrap();
}

#[tokio::test]
async fn a_ledger_of_version_10_is_migrated_when_it_is_opened() {
    migrates(OLDEST).await;
}

#[tokio::test]
async fn a_ledger_of_version_11_is_migrated_and_loses_the_indices_that_no_limit_uses() {
    migrates(MORE_INDICES).await;
}

async fn migrates(version: i64) {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    fill(&ledger).await;
    let before = ledger.purchases(&Filter::all()).await.unwrap();
    let head = ledger.verify(None).await.unwrap().head;
    drop(ledger);
    downgrade(&path, version);

    let ledger = Ledger::sqlite(&path).unwrap();
    let after = ledger.purchases(&Filter::all()).await.unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
    let methods: Vec<_> = after.iter().map(|known| known.payment_method).collect();
    let by_transfer = Some(PaymentMethod::Eip3009);
    assert_eq!(
        methods,
        [by_transfer, by_transfer, None, by_transfer, by_transfer]
    );
    let verified = ledger.verify(Some(head)).await.unwrap();
    assert!(verified.is_sound(), "{verified:?}");
    // The limits count what they counted, and new purchases go on.
    let full = wish(order("more", 68), at(NOW), lifetime(100));
    let denied = ledger.reserve(&full).await.unwrap();
    assert!(matches!(denied, Reserved::Denied(_)), "{denied:?}");
    let rest = wish(order("more", 67), at(NOW), lifetime(100));
    let held = ledger.reserve(&rest).await.unwrap();
    assert!(matches!(held, Reserved::Held(_)), "{held:?}");
    drop(ledger);
    let again = Ledger::sqlite(&path).unwrap();
    assert!(again.verify(None).await.unwrap().is_sound());
    let file = Connection::open(&path).unwrap();
    let has = |name| indices::exists(&file, name).unwrap();
    assert!(has("by_counts_at") && !has("under_way") && !has("by_payee"));
}

#[tokio::test]
async fn a_file_that_only_says_version_10_is_damaged_and_stays_as_it_is() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    fill(&ledger).await;
    drop(ledger);
    let file = Connection::open(&path).unwrap();
    file.execute_batch(&format!("PRAGMA user_version = {OLDEST}"))
        .unwrap();
    drop(file);
    let refusal = refused(&path);
    assert!(
        matches!(&refusal, LedgerError::Damaged(text) if text.contains("schema version 10")),
        "{refusal:?}"
    );
}

#[tokio::test]
async fn a_backup_of_version_10_is_restored_and_migrated() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    fill(&ledger).await;
    let backup = path.with_file_name("backup.db");
    ledger.backup(&backup).await.unwrap();
    drop(ledger);
    downgrade(&backup, OLDEST);
    let to = path.with_file_name("restored.db");
    Ledger::restore(&backup, &to).unwrap();
    let restored = Ledger::sqlite(&to).unwrap();
    assert_eq!(restored.purchases(&Filter::all()).await.unwrap().len(), 5);
    assert!(restored.verify(None).await.unwrap().is_sound());
}

/// The hashes that version 10 wrote hold, and the new columns are in the hash where they differ.
#[tokio::test]
async fn the_hash_of_an_old_purchase_leaves_the_new_columns_out() {
    let ledger = Ledger::memory();
    let key = hold(&ledger, order("order", 10), NOW).await;
    let mut purchase = ledger.purchase(&key).await.unwrap().unwrap();
    let all = columns(&purchase).unwrap();
    let mut hasher = Sha256::new();
    hasher.update(b"bursar purchase row v1");
    let absorb = |hasher: &mut Sha256, text: &str| {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text);
    };
    let mut count = 0;
    for (name, value) in &all {
        if NEW_COLUMNS.iter().any(|(new, _)| new == name) {
            continue;
        }
        count += 1;
        absorb(&mut hasher, name);
        match value {
            Value::Null => hasher.update([0]),
            Value::Integer(number) => {
                hasher.update([1]);
                hasher.update(number.to_be_bytes());
            }
            Value::Text(text) => {
                hasher.update([2]);
                absorb(&mut hasher, text);
            }
        }
    }
    assert_eq!(count, 42, "version 10 had 42 columns");
    let old: [u8; 32] = hasher.finalize().into();
    assert_eq!(purchase_hash(&all).0, old);
    for change in [
        |purchase: &mut Purchase| purchase.payment_method = Some(PaymentMethod::Upto),
        |purchase: &mut Purchase| purchase.claimed_charge = Some(alloy::primitives::U256::ZERO),
        |purchase: &mut Purchase| purchase.verified_charge = Some(alloy::primitives::U256::ZERO),
    ] {
        change(&mut purchase);
        let changed = columns(&purchase).unwrap();
        assert_ne!(purchase_hash(&changed).0, old);
    }
}
