//! Several clients and processes on one server.

use super::*;

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_text_that_cannot_be_kept_holds_nothing() {
    let ledger = new_ledger().await;
    let mut wanted = order("order", 10);
    wanted.tag = Some("a\0b".to_owned());
    let answer = ledger.reserve(&wish(wanted, at(NOW), Vec::new())).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    hold(&ledger, order("order", 10), NOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn clients_on_one_server_hold_exactly_as_many_as_fit() {
    let (schema, one) = new_schema().await;
    let two = Ledger::postgres_in(&url(), &schema).await.unwrap();
    let ledgers = [one, two];
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let ledger = ledgers[number % 2].clone();
            tokio::spawn(async move {
                ledger
                    .reserve(&wish(
                        order(&format!("order-{number}"), 10),
                        at(NOW),
                        lifetime(370),
                    ))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        held += usize::from(matches!(task.await.unwrap(), Reserved::Held(_)));
    }
    assert_eq!(
        (
            held,
            number(&schema, "SELECT count(*) FROM purchases").await
        ),
        (37, 37)
    );
    assert!(ledgers[0].verify(None).await.unwrap().is_sound());
}

const RACE: &str = "BURSAR_TEST_RACE";

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn processes_hold_exactly_as_many_as_fit() {
    let (schema, ledger) = new_schema().await;
    let name = "ledger::postgres::tests::sharing::one_process_of_the_race";
    in_four_processes(name, RACE, &schema);
    assert_eq!(number(&schema, "SELECT count(*) FROM purchases").await, 50);
    assert_eq!(ledger.verify(None).await.unwrap().events, 50);
}

#[tokio::test]
#[ignore = "a part of processes_hold_exactly_as_many_as_fit"]
async fn one_process_of_the_race() {
    let Ok(schema) = std::env::var(RACE) else {
        return;
    };
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    for number in 0..40 {
        let id = format!("{}-{number}", std::process::id());
        ledger
            .reserve(&wish(order(&id, 10), at(NOW), lifetime(500)))
            .await
            .unwrap();
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn the_first_caller_to_come_back_while_another_process_writes_shares_with_those_behind_it() {
    let (schema, ledger) = indexed_schema().await;
    let reserve = |id: String| {
        let ledger = ledger.clone();
        let wish = wish(order(&id, 1), at(NOW), lifetime(1000));
        tokio::spawn(async move { ledger.reserve(&wish).await })
    };
    let held = async |call: tokio::task::JoinHandle<_>| {
        let answer = call.await.unwrap();
        assert!(matches!(answer, Ok(Reserved::Held(_))), "{answer:?}");
    };
    held(reserve("alone".to_owned())).await;
    // A batch of several waits for the lock for long.
    let program = locked(&schema).await;
    let calls: Vec<_> = (0..4)
        .map(|number| reserve(format!("one-{number}")))
        .collect();
    someone_waits(&schema).await;
    program
        .batch_execute("SELECT pg_sleep(0.2); COMMIT")
        .await
        .unwrap();
    for call in calls {
        held(call).await;
    }
    let transactions = "SELECT count(DISTINCT xmin::text) FROM events";
    let before = number(&schema, transactions).await;
    let program = locked(&schema).await;
    let first = reserve("first".to_owned());
    someone_waits(&schema).await;
    let second = reserve("second".to_owned());
    let both = async {
        while database_of(&ledger).queue.waiting() < 2 {
            tokio::task::yield_now().await;
        }
    };
    let both = timeout(Duration::from_secs(30), both).await;
    both.expect("no batch has taken the first one");
    program.batch_execute("COMMIT").await.unwrap();
    held(first).await;
    held(second).await;
    assert_eq!(number(&schema, transactions).await, before + 1);
}

/// `tests/postgres/run cargo nextest run --all-features --run-ignored only --no-capture postgres::tests::measure`
#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    let ledger = new_ledger().await;
    let limits = || [lifetime(1_000_000_000), lifetime(2_000_000_000)].concat();
    for round in 0..5 {
        let start = std::time::Instant::now();
        for number in 0..200 {
            let id = format!("{round}-{number}");
            ledger
                .reserve(&wish(order(&id, 10), at(NOW), limits()))
                .await
                .unwrap();
            ledger
                .record(&order(&id, 10).key(), &signed(NOW + 300), at(NOW))
                .await
                .unwrap();
            ledger
                .record(&order(&id, 10).key(), &settled(), at(NOW))
                .await
                .unwrap();
        }
        println!(
            "{} purchases: {:?} each",
            (round + 1) * 200,
            start.elapsed() / 200
        );
    }
    let start = std::time::Instant::now();
    let report = ledger.verify(None).await.unwrap();
    println!("{} events verified in {:?}", report.events, start.elapsed());
}
