//! Events and the chain of hashes.

use super::*;

#[tokio::test]
async fn every_transition_is_an_event_and_stays() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    for (number, transition) in [signed(NOW + 300), settled()].iter().enumerate() {
        ledger
            .record(
                &key,
                transition,
                at(NOW + 1 + u64::try_from(number).unwrap()),
            )
            .await
            .unwrap();
    }
    assert!(ledger.record(&key, &given_up(), at(NOW + 9)).await.is_err());
    let database = Connection::open(&path).unwrap();
    let events = "SELECT group_concat(concat_ws(' ', seq, at - 1000 * ?, payer, purchase, from_state, to_state, detail ->> 'value'), '; ') FROM events";
    let events: String = database
        .query_row(events, [NOW.cast_signed()], |row| row.get(0))
        .unwrap();
    let who = "0xabababababababababababababababababababab order";
    assert_eq!(
        events,
        format!(
            "1 0 {who} reserved 10; 2 1000 {who} reserved signed 10; 3 2000 {who} signed settled 10"
        )
    );
    for sql in [
        "UPDATE events SET at = 0",
        "DELETE FROM events",
        "DELETE FROM purchases",
    ] {
        assert!(database.execute_batch(sql).is_err(), "{sql}");
    }
}

#[tokio::test]
async fn the_payload_is_in_its_column_alone() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let shown = format!("{ledger:?} {:?}", ledger.purchase(&key).await.unwrap());
    assert!(!shown.contains(PAYLOAD), "{shown}");
    let database = Connection::open(&path).unwrap();
    let count = |sql: &str| {
        database
            .query_row(sql, [PAYLOAD], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count("SELECT count(*) FROM purchases WHERE payload = ?"), 1);
    assert_eq!(
        count("SELECT count(*) FROM events WHERE instr(detail, ?)"),
        0
    );
    // Not even in the error of a write that fails because of it.
    database
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE UPDATE ON purchases BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    let again = signed(NOW + 300);
    let error = ledger.record(&key, &again, at(NOW)).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(PAYLOAD), "{error:?}");
}

/// Three purchases with seven events.
async fn write_seven_events(ledger: &Ledger) {
    for id in ["one", "two", "three"] {
        let key = hold(ledger, order(id, 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
    }
    ledger
        .record(&order("two", 10).key(), &settled(), at(NOW + 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn every_tampering_is_found() {
    use LedgerFault::{EventChanged, EventsMissing, PurchaseChanged, PurchaseMissing};

    let copy = "INSERT INTO events SELECT 8, at, payer, purchase, from_state, to_state, detail, purchase_hash, hash FROM events";
    let swap = "UPDATE events SET seq = -1 WHERE seq = 3; UPDATE events SET seq = 3 WHERE seq = 5; \
                UPDATE events SET seq = 5 WHERE seq = -1";
    let cases = [
        ("", vec![]),
        (
            "UPDATE events SET at = at + 1 WHERE seq = 2",
            vec![EventChanged { row: 2 }],
        ),
        (
            "UPDATE events SET from_state = NULL WHERE seq = 2",
            vec![EventChanged { row: 2 }],
        ),
        (
            "UPDATE events SET to_state = 'settled' WHERE seq = 6",
            vec![EventChanged { row: 6 }],
        ),
        (
            "UPDATE events SET detail = replace(detail, '10', '11') WHERE seq = 3",
            vec![EventChanged { row: 3 }],
        ),
        (
            "UPDATE events SET hash = purchase_hash WHERE seq = 3",
            vec![EventChanged { row: 3 }, EventChanged { row: 4 }],
        ),
        (
            "UPDATE events SET hash = upper(hash) WHERE seq = 7",
            vec![EventChanged { row: 7 }],
        ),
        (
            "DELETE FROM events WHERE seq = 1",
            vec![EventsMissing { from: 1, to: 1 }, EventChanged { row: 2 }],
        ),
        (
            "DELETE FROM events WHERE seq IN (3, 4)",
            vec![EventsMissing { from: 3, to: 4 }, EventChanged { row: 5 }],
        ),
        (
            "DELETE FROM events WHERE seq = 7",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "DELETE FROM events WHERE seq = 3; UPDATE events SET seq = seq - 1 WHERE seq > 3",
            (3..=6)
                .map(|row| EventChanged { row })
                .chain([2, 3].map(|row| PurchaseChanged { row }))
                .collect(),
        ),
        (
            swap,
            vec![3, 4, 5, 6]
                .into_iter()
                .map(|row| EventChanged { row })
                .collect(),
        ),
        (
            &format!("{copy} WHERE seq = 7"),
            vec![EventChanged { row: 8 }, PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET value = '9' WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET state = 'voided', live = 0 WHERE seq = 1",
            vec![PurchaseChanged { row: 1 }],
        ),
        (
            "UPDATE purchases SET value = 'x' WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET last_event = 3 WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET last_event = 6 WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET last_event = 9 WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET seq = 9 WHERE seq = 2",
            vec![PurchaseChanged { row: 9 }],
        ),
        (
            "DELETE FROM purchases WHERE seq = 2",
            [3, 4, 7].map(|event| PurchaseMissing { event }).to_vec(),
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
        let (_directory, path) = new_path();
        let ledger = Ledger::sqlite(&path).unwrap();
        write_seven_events(&ledger).await;
        meddle(
            &path,
            "DROP TRIGGER keep_purchases; DROP TRIGGER keep_events; DROP TRIGGER fix_events;",
        );
        meddle(&path, sql);
        let report = ledger.verify(None).await.unwrap();
        assert_eq!(report.faults, faults, "{sql}");
        assert_eq!(report.is_sound(), sql.is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn a_purchase_that_was_set_back_is_found() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let key = hold(&ledger, order("one", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    meddle(
        &path,
        "CREATE TABLE earlier AS SELECT * FROM purchases; DROP TRIGGER keep_purchases;",
    );
    ledger.record(&key, &unknown(), at(NOW)).await.unwrap();
    ledger.record(&key, &settled(), at(NOW + 1)).await.unwrap();
    meddle(
        &path,
        "DELETE FROM purchases; INSERT INTO purchases SELECT * FROM earlier;",
    );
    let report = ledger.verify(None).await.unwrap();
    let purchase: Vec<_> = report
        .faults
        .iter()
        .filter(|fault| !matches!(fault, LedgerFault::TotalChanged { .. }))
        .collect();
    assert_eq!(
        purchase,
        [&LedgerFault::PurchaseChanged { row: 1 }],
        "once, though two events came after"
    );
}

#[tokio::test]
async fn every_column_of_a_purchase_is_sealed() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    write_seven_events(&ledger).await;
    let database = Connection::open(&path).unwrap();
    let mut names = database
        .prepare("SELECT name, type FROM pragma_table_info('purchases')")
        .unwrap();
    let names: Vec<(String, String)> = names
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(names.len() >= 34);
    for (name, kind) in names {
        let other = if kind == "TEXT" {
            format!("coalesce({name}, '') || 'x'")
        } else {
            format!("coalesce({name}, 0) + 1")
        };
        let change = format!(
            "BEGIN; PRAGMA ignore_check_constraints = ON; UPDATE purchases SET {name} = {other} WHERE seq = 3; COMMIT"
        );
        database
            .execute_batch(&format!(
                "CREATE TEMP TABLE kept AS SELECT * FROM purchases WHERE seq = 3; {change}"
            ))
            .unwrap();
        let report = ledger.verify(None).await.unwrap();
        assert!(!report.is_sound(), "{name}");
        database.execute_batch("DROP TRIGGER IF EXISTS keep_purchases; DELETE FROM purchases WHERE seq IN (3, 4); INSERT INTO purchases SELECT * FROM kept; DROP TABLE kept;").unwrap();
        assert!(ledger.verify(None).await.unwrap().is_sound(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_is_verified_while_it_is_written() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
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
async fn a_noted_head_shows_what_the_chain_alone_does_not() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let empty = ledger.verify(Some(B256::ZERO)).await.unwrap();
    assert_eq!(
        (empty.events, empty.purchases, empty.head, empty.is_sound()),
        (0, 0, B256::ZERO, true)
    );
    write_seven_events(&ledger).await;
    let noted = ledger.verify(Some(empty.head)).await.unwrap();
    assert_eq!(
        (noted.events, noted.purchases, noted.is_sound()),
        (7, 3, true)
    );
    hold(&ledger, order("four", 10), NOW).await;
    let later = ledger.verify(Some(noted.head)).await.unwrap();
    assert!(later.is_sound() && later.head != noted.head, "{later:?}");
    // The newest purchase vanishes with its event, and the rest is whole.
    meddle(
        &path,
        "DROP TRIGGER keep_purchases; DROP TRIGGER keep_events;",
    );
    meddle(
        &path,
        "DELETE FROM events WHERE seq = 8; DELETE FROM purchases WHERE seq = 4;",
    );
    assert!(ledger.verify(Some(noted.head)).await.unwrap().is_sound());
    let report = ledger.verify(Some(later.head)).await.unwrap();
    assert_eq!(report.faults, [LedgerFault::HeadMissing(later.head)]);
}
