//! Files of the schema version before this one.

use sha2::{Digest, Sha256};

use super::*;
use crate::ledger::conformance::windows::by_key;
use crate::ledger::hash_chain::purchase_hash;
use crate::ledger::sql::Value;
use crate::ledger::sql::row::columns;
use crate::ledger::sql::tables::{NEW_COLUMNS, OLDEST, TABLES};
use crate::ledger::{Filter, Reserved};
use crate::x402::PaymentMethod;

/// Makes the file one of version 10: the table of purchases without the new columns.
fn downgrade(path: &Path) {
    let file = Connection::open(path).unwrap();
    let (begin, rest) = TABLES.split_once("    payment_method").unwrap();
    let (_, end) = rest.split_once("    last_event").unwrap();
    let old = format!("{begin}    last_event{end}");
    assert!(NEW_COLUMNS.iter().all(|(name, _)| !old.contains(name)));
    let (table, _) = old.split_once("CREATE TABLE frozen").unwrap();
    let indices = schema::by_state();
    let names: Vec<String> = file
        .prepare("SELECT name FROM sqlite_schema WHERE tbl_name = 'purchases' AND type = 'index' AND sql IS NOT NULL")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for name in names {
        file.execute(&format!("DROP INDEX {name}"), []).unwrap();
    }
    let kept: Vec<String> = file
        .prepare("SELECT name FROM pragma_table_info('purchases')")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .map(Result::unwrap)
        .filter(|name: &String| NEW_COLUMNS.iter().all(|(new, _)| new != name))
        .collect();
    let kept = kept.join(", ");
    file.execute_batch(&format!(
        "BEGIN; DROP TRIGGER keep_purchases; ALTER TABLE purchases RENAME TO newer; {table}
         INSERT INTO purchases ({kept}) SELECT {kept} FROM newer; DROP TABLE newer; {indices}
         CREATE TRIGGER keep_purchases BEFORE DELETE ON purchases BEGIN SELECT RAISE(ABORT, 'purchases are never deleted'); END;
         PRAGMA user_version = {OLDEST}; COMMIT;"
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
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    fill(&ledger).await;
    let before = ledger.purchases(&Filter::all()).await.unwrap();
    let head = ledger.verify(None).await.unwrap().head;
    drop(ledger);
    downgrade(&path);

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
    downgrade(&backup);
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
