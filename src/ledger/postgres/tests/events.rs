//! Events, the chain of hashes and damaged rows.

use super::*;

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn every_tampering_is_found() {
    use LedgerFault::{EventChanged, EventsMissing, PurchaseChanged, PurchaseMissing};

    let cases = [
        ("", vec![]),
        (
            "UPDATE events SET at = at + 1 WHERE seq = 2",
            vec![EventChanged { row: 2 }],
        ),
        (
            "DELETE FROM events WHERE seq IN (3, 4)",
            vec![EventsMissing { from: 3, to: 4 }, EventChanged { row: 5 }],
        ),
        (
            "DELETE FROM events WHERE seq = 5",
            vec![PurchaseChanged { row: 2 }, LedgerFault::HeadChanged],
        ),
        (
            "INSERT INTO events SELECT 6, at, payer, purchase, from_state, to_state, detail, purchase_hash, hash \
             FROM events WHERE seq = 5",
            vec![
                EventChanged { row: 6 },
                PurchaseChanged { row: 2 },
                LedgerFault::HeadChanged,
            ],
        ),
        (
            "UPDATE chain_head SET hash = (SELECT hash FROM events WHERE seq = 1)",
            vec![LedgerFault::HeadChanged],
        ),
        (
            "UPDATE chain_head SET seq = 4",
            vec![LedgerFault::HeadChanged],
        ),
        ("DELETE FROM chain_head", vec![LedgerFault::HeadChanged]),
        (
            "UPDATE purchases SET value = '9' WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET payload = NULL WHERE seq = 1",
            vec![PurchaseChanged { row: 1 }],
        ),
        (
            "DELETE FROM purchases WHERE seq = 1",
            vec![PurchaseMissing { event: 1 }, PurchaseMissing { event: 2 }],
        ),
        (
            "UPDATE purchases SET purchase = 'four' WHERE seq = 1",
            vec![
                PurchaseMissing { event: 1 },
                PurchaseMissing { event: 2 },
                PurchaseChanged { row: 1 },
            ],
        ),
    ];
    for (sql, faults) in cases {
        let (schema, ledger) = new_schema().await;
        for id in ["one", "two"] {
            let key = hold(&ledger, order(id, 10), NOW).await;
            ledger
                .record(&key, &signed(NOW + 300), at(NOW))
                .await
                .unwrap();
        }
        ledger
            .record(&order("two", 10).key(), &settled(), at(NOW + 1))
            .await
            .unwrap();
        let noted = ledger.verify(None).await.unwrap();
        meddle(&schema, sql).await;
        let report = ledger.verify(None).await.unwrap();
        assert_eq!(report.faults, faults, "{sql}");
        assert_eq!(
            ledger
                .verify(Some(B256::repeat_byte(1)))
                .await
                .unwrap()
                .fault_count,
            report.fault_count + 1,
            "{sql}"
        );
        if report.head == noted.head {
            assert_eq!(
                ledger.verify(Some(noted.head)).await.unwrap(),
                report,
                "{sql}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_ledger_is_verified_while_it_is_written() {
    let ledger = new_ledger().await;
    let writer = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            for number in 0..100 {
                let key = hold(&ledger, order(&format!("order-{number}"), 10), NOW).await;
                ledger
                    .record(&key, &signed(NOW + 300), at(NOW))
                    .await
                    .unwrap();
            }
        }
    });
    let mut head = None;
    while !writer.is_finished() {
        let report = ledger.verify(head).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        head = Some(report.head);
    }
    writer.await.unwrap();
    assert_eq!(ledger.verify(head).await.unwrap().events, 200);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn damage_is_named_and_stops_the_ledger() {
    for (column, value) in [
        ("value", "'1e3'"),
        ("payee", "upper(payee)"),
        ("status", "-1"),
        ("host_reversed", "'x'"),
    ] {
        let (schema, ledger) = new_schema().await;
        let key = hold(&ledger, order("order", 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        meddle(&schema, &format!("UPDATE purchases SET {column} = {value}")).await;
        let expected = format!("the ledger is damaged: purchases, row 1, column {column}");
        assert_eq!(
            ledger
                .purchases(&Filter::all())
                .await
                .unwrap_err()
                .to_string(),
            expected
        );
    }
    let (schema, ledger) = new_schema().await;
    meddle(&schema, "DELETE FROM chain_head").await;
    let answer = ledger
        .reserve(&wish(order("order", 10), at(NOW), Vec::new()))
        .await;
    assert!(matches!(answer, Err(LedgerError::Damaged(_))), "{answer:?}");
}
