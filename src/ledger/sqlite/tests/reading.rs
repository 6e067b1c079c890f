//! Long reads, and reads of one purchase among many.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::*;
use crate::ledger::report::Selection;
use crate::ledger::{Bought, Calls, Filter};

#[tokio::test]
async fn no_payment_waits_for_a_long_read() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold_many(&ledger, 2).await;
    let (begun, has_begun) = channel();
    let (end, ended) = channel::<()>();
    let mut long = pin!(thread_of(&ledger).read_long(move |_| {
        begun.send(()).unwrap();
        assert!(ended.recv().is_err());
        Ok(())
    }));
    assert!(timeout(Duration::ZERO, &mut long).await.is_err());
    has_begun.recv().unwrap();

    let plan = "per-call=0.01".parse().unwrap();
    let selection = Selection::new();
    let tagged = Filter {
        tag: Some("t".to_owned()),
        ..Filter::all()
    };
    let mut report = pin!(ledger.report(&selection));
    let mut compared = pin!(ledger.compare("api.example.com", &plan));
    let mut listed = pin!(ledger.purchases(&tagged));
    let mut verified = pin!(ledger.verify(None));
    assert!(timeout(Duration::ZERO, &mut report).await.is_err());
    assert!(timeout(Duration::ZERO, &mut compared).await.is_err());
    assert!(timeout(Duration::ZERO, &mut listed).await.is_err());
    assert!(timeout(Duration::ZERO, &mut verified).await.is_err());
    // Payments, the reads of payments, and reads by a key go on meanwhile.
    let key = hold(&ledger, order("late", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    assert!(ledger.purchase(&key).await.unwrap().is_some());
    let found = ledger.purchase_by_id(&"late".parse().unwrap()).await;
    assert!(found.unwrap().is_some());
    assert!(timeout(Duration::ZERO, &mut report).await.is_err());
    assert!(timeout(Duration::ZERO, &mut compared).await.is_err());
    assert!(timeout(Duration::ZERO, &mut listed).await.is_err());
    assert!(timeout(Duration::ZERO, &mut verified).await.is_err());

    drop(end);
    long.await.unwrap();
    assert_eq!(report.await.unwrap().total.outstanding.count, 1);
    assert_eq!(compared.await.unwrap().left_out, 1);
    assert!(listed.await.unwrap().is_empty());
    let verified = verified.await.unwrap();
    assert!(
        verified.is_sound() && verified.purchases == 3,
        "{verified:?}"
    );
}

#[tokio::test]
async fn a_ledger_is_dropped_without_waiting_for_its_long_reads() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold_many(&ledger, 2).await;
    {
        // It never ends by itself.
        let (begun, has_begun) = channel();
        let mut endless = pin!(thread_of(&ledger).read_long(move |connection| {
            begun.send(()).unwrap();
            let sql = "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n) SELECT sum(n) FROM n";
            let sum = connection.query_row(sql, [], |row| row.get::<_, i64>(0));
            sum.map_err(failed)
        }));
        assert!(timeout(Duration::ZERO, &mut endless).await.is_err());
        has_begun.recv().unwrap();
    }
    drop(ledger);
    let again = Ledger::sqlite(&path).unwrap();
    assert_eq!(again.purchases(&Filter::all()).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_id_and_the_calls_of_a_key_are_found_by_an_index() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold_many(&ledger, 2).await;
    let database = Connection::open(&path).unwrap();
    let plan = |Query { sql, values }: Query| {
        let sql = format!("EXPLAIN QUERY PLAN {sql}");
        let mut statement = database.prepare(&sql).unwrap();
        let details = statement.query_map(params_from_iter(values), |row| row.get("detail"));
        let details: Result<Vec<String>, _> = details.unwrap().collect();
        details.unwrap().join("\n")
    };
    let calls = Calls {
        credential: "key",
        since: at(NOW),
        before: 7,
        most: 9,
    };
    let counted = plan(query::calls("purchases INDEXED BY by_credential", &calls));
    assert!(
        counted
            .contains("COVERING INDEX by_credential (credential=? AND live=? AND reserved_at>?)"),
        "{counted}"
    );
    let origin = "https://a.example".parse().unwrap();
    indices::create(&database, "by_seller").unwrap();
    let bought = Bought {
        payer: alloy::primitives::Address::ZERO,
        origin: &origin,
        path: Some("/report"),
    };
    let known = plan(query::bought("purchases INDEXED BY by_seller", &bought));
    assert!(known.contains("INDEX by_seller (origin=?)"), "{known}");
    let filter = Filter {
        id: Some("a".parse().unwrap()),
        ..Filter::all()
    };
    let found = plan(query::page(&filter));
    assert!(
        found.contains("SEARCH purchases USING INDEX sqlite_autoindex_purchases_1 (purchase=?)")
            && !found.contains("SCAN"),
        "{found}"
    );
}

#[tokio::test]
async fn denials_stay_in_the_file_also_those_that_waited_when_it_was_closed() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let denial = crate::limit::Denial::new(crate::limit::Rule::Host, "not on the list");
    for _ in 0..500 {
        ledger.note_denial(&denial, "a.example");
    }
    drop(ledger);
    let ledger = Ledger::open_existing(&path).unwrap();
    let denials = ledger.denials().await.unwrap();
    assert_eq!(denials.len(), 1);
    assert_eq!(
        (denials[0].count, denials[0].host.as_deref()),
        (500, Some("a.example"))
    );
}
