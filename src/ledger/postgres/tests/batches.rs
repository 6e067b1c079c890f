//! Changes that share a transaction.

use futures_util::FutureExt;
use futures_util::future::{join, join_all};

use super::*;
use crate::ledger::conformance::{HOUR, meter};
use crate::ledger::{InStep, Signature};
use crate::limit::{Amount, Limit, LimitKind, PayeePin, Rule, Scope};
use crate::money::Usd;

fn rolling(max: u64) -> Vec<Limit> {
    let max: Amount = Usd::from_micros(max).into();
    vec![meter(Scope::Global, LimitKind::Rolling(HOUR, max))]
}

/// Reserves from callers that wait at the same time, so that all of them share a transaction.
async fn together(
    ledger: &Ledger,
    reservations: impl IntoIterator<Item = Reservation>,
) -> Vec<Result<Reserved, LedgerError>> {
    let reservations: Vec<_> = reservations.into_iter().collect();
    join_all(reservations.iter().map(|one| ledger.reserve(one))).await
}

fn wishes(count: usize, limits: &[Limit]) -> Vec<Reservation> {
    (0..count)
        .map(|number| {
            let order = order(&format!("order-{number}"), 10);
            wish(order, at(NOW), limits.to_vec())
        })
        .collect()
}

async fn transactions(schema: &str) -> i64 {
    let sql = "SELECT count(DISTINCT xmin::text) FROM events";
    number(schema, sql).await
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn the_changes_of_a_batch_share_a_transaction_and_count_for_each_other() {
    let (schema, ledger) = indexed_schema().await;
    let answers = together(&ledger, wishes(10, &lifetime(50))).await;
    for (number, answer) in answers.iter().enumerate() {
        match answer {
            Ok(Reserved::Held(purchase)) => assert_eq!(purchase.seq, number as u64 + 1),
            Ok(Reserved::Denied(_)) => assert!(number >= 5, "{number}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(events(&schema).await, 5);
    assert_eq!(transactions(&schema).await, 1);
    let keys: Vec<_> = (0..5)
        .map(|number| order(&format!("order-{number}"), 10).key())
        .collect();
    let signed = signed(NOW + 300);
    let records = keys.iter().map(|key| ledger.record(key, &signed, at(NOW)));
    for recorded in join_all(records).await {
        recorded.unwrap();
    }
    assert_eq!(events(&schema).await, 10);
    assert_eq!(transactions(&schema).await, 2);
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn one_purchase_that_many_callers_reserve_at_once_is_held_once() {
    let (schema, ledger) = indexed_schema().await;
    let wished = (0..5).map(|_| wish(order("order", 10), at(NOW), lifetime(100)));
    let answers = together(&ledger, wished).await;
    let held = |answer: &&Result<Reserved, LedgerError>| matches!(answer, Ok(Reserved::Held(_)));
    assert_eq!(answers.iter().filter(held).count(), 1);
    let waits = |answer: &&Result<_, _>| matches!(answer, Ok(Reserved::InFlight));
    assert_eq!(answers.iter().filter(waits).count(), 4);
    assert_eq!(events(&schema).await, 1);
}

/// The callers of a batch have clocks that differ. Each counts the charges of its own window.
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn each_change_of_a_batch_is_checked_at_its_own_time() {
    for is_late_first in [false, true] {
        let (_, ledger) = indexed_schema().await;
        let old = hold(&ledger, order("old", 10), NOW).await;
        let signed = signed(NOW + 300);
        ledger.record(&old, &signed, at(NOW)).await.unwrap();
        let kept = NOW + 3599;
        let gone = NOW + 3601 + 360;
        let mut wished = vec![
            wish(order("early", 10), at(kept), rolling(10)),
            wish(order("late", 10), at(gone), rolling(10)),
        ];
        if is_late_first {
            wished.reverse();
        }
        let mut answers = together(&ledger, wished).await;
        if is_late_first {
            answers.reverse();
        }
        let early = answers.remove(0).unwrap();
        let Reserved::Denied(denial) = &early else {
            panic!("{early:?}")
        };
        assert_eq!(denial.rule, Rule::Rolling);
        let late = answers.remove(0).unwrap();
        assert!(matches!(late, Reserved::Held(_)), "{late:?}");
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn the_first_payee_of_a_seller_can_be_in_the_same_batch() {
    let (_, ledger) = indexed_schema().await;
    let wished = [0xC1, 0xC2].map(|payee| {
        let mut order = order(&payee.to_string(), 10);
        order.payee = alloy::primitives::Address::repeat_byte(payee);
        let mut wish = wish(order.clone(), at(NOW), lifetime(100));
        wish.checks.payee = Some(PayeePin {
            origin: order.origin,
            payee: order.payee,
        });
        wish
    });
    let answers = together(&ledger, wished).await;
    assert!(matches!(&answers[0], Ok(Reserved::Held(_))), "{answers:?}");
    assert!(
        matches!(&answers[1], Ok(Reserved::Denied(denial)) if denial.rule == Rule::PayeeChanged),
        "{answers:?}"
    );
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_change_that_the_server_refuses_leaves_the_others_of_its_batch() {
    let (schema, ledger) = indexed_schema().await;
    let mut wished = wishes(5, &lifetime(1000));
    wished[2].purchase.tag = Some("a\0b".to_owned());
    let answers = together(&ledger, wished).await;
    for (number, answer) in answers.iter().enumerate() {
        let is_expected = match answer {
            Ok(Reserved::Held(_)) => number != 2,
            Err(LedgerError::Store(_)) => number == 2,
            _ => false,
        };
        assert!(is_expected, "{number}: {answer:?}");
    }
    assert_eq!(events(&schema).await, 4);
    // A change that is wrong by itself rolls nothing back.
    let unknown = order("unknown", 10).key();
    let (signed, key) = (signed(NOW + 300), order("order-0", 10).key());
    let records = [&unknown, &key].map(|key| ledger.record(key, &signed, at(NOW)));
    let recorded = join_all(records).await;
    assert!(
        matches!(recorded[0], Err(LedgerError::UnknownPurchase(_))),
        "{recorded:?}"
    );
    assert!(recorded[1].is_ok(), "{recorded:?}");
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_lost_commit_of_a_batch_neither_holds_twice_nor_loses() {
    for mishap in [Mishap::CutBefore, Mishap::CutAfter, Mishap::Overtaken] {
        let schema = schema();
        let proxy = Proxy::new(&url()).await;
        let ledger = Ledger::postgres_in(&proxy.url(), &schema).await.unwrap();
        index(&schema, &ledger).await;
        proxy.arm(mishap);
        let answers = together(&ledger, wishes(8, &lifetime(50))).await;
        let held = answers
            .iter()
            .filter(|answer| matches!(answer, Ok(Reserved::Held(_))));
        assert_eq!(held.count(), 5, "{mishap:?}: {answers:?}");
        assert_eq!(proxy.mishaps(), 1);
        assert_eq!(events(&schema).await, 5, "{mishap:?}");
        assert!(ledger.verify(None).await.unwrap().is_sound());
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn every_caller_of_a_batch_with_an_uncertain_commit_gets_an_error() {
    for mishap in [Mishap::Down, Mishap::Silence] {
        let schema = schema();
        let proxy = Proxy::new(&url()).await;
        let ledger = short_of_time(&proxy.url(), &schema).await;
        index(&schema, &ledger).await;
        proxy.arm(mishap);
        for answer in together(&ledger, wishes(5, &lifetime(1000))).await {
            assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
        }
        proxy.arm(Mishap::None);
        assert_eq!(events(&schema).await, 5, "{mishap:?}");
        for answer in together(&ledger, wishes(5, &lifetime(1000))).await {
            assert!(matches!(answer, Ok(Reserved::InFlight)), "{answer:?}");
        }
    }
}

struct Key;

impl SignsInStep for Key {
    fn sign(&self, _: &Purchase) -> InStep {
        InStep::Signed(Signature {
            at: at(NOW),
            valid_before: NOW + 300,
            payload: PAYLOAD.to_owned().into(),
            presenter_lease_until: at(NOW + 20),
        })
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_purchase_takes_four_round_trips() {
    let schema = schema();
    let proxy = Proxy::new(&url()).await;
    let ledger = Ledger::postgres_in(&proxy.url(), &schema).await.unwrap();
    let signer: Arc<dyn SignsInStep> = Arc::new(Key);
    let limits = [lifetime(100), rolling(50)].concat();
    let mut counted = Vec::new();
    // The first purchase prepares the statements.
    for id in ["one", "two", "three"] {
        let wished = Arc::new(wish(order(id, 10), at(NOW), limits.clone()));
        let before = proxy.round_trips();
        let answer = ledger.buy(&wished, &signer).await.unwrap();
        assert!(matches!(answer, Obtained::Signed(_)), "{answer:?}");
        let bought = proxy.round_trips();
        ledger
            .record(&wished.key(), &settled(), at(NOW))
            .await
            .unwrap();
        counted.push((bought - before, proxy.round_trips() - bought));
    }
    assert_eq!(counted[1..], [(2, 2), (2, 2)]);
    // A denial reads the single charges, once.
    let wished = wish(order("four", 30), at(NOW), limits.clone());
    let mut trips = Vec::new();
    for _ in 0..2 {
        let before = proxy.round_trips();
        let denied = ledger.reserve(&wished).await.unwrap();
        assert!(matches!(denied, Reserved::Denied(_)), "{denied:?}");
        trips.push(proxy.round_trips() - before);
    }
    // The transaction is rolled back without waiting for the answer.
    assert!(trips[1] <= 3, "{trips:?}");
    // Looking for a payment to present again is one more.
    let wanted = Resumption {
        payer: wished.purchase.payer,
        fingerprint: B256::repeat_byte(9),
        origin: wished.purchase.origin.clone(),
        now: at(NOW),
        until: at(NOW + 20),
        ended: Vec::new(),
    };
    ledger.resume(&wanted).await.unwrap();
    let before = proxy.round_trips();
    ledger.resume(&wanted).await.unwrap();
    assert_eq!(proxy.round_trips() - before, 1);
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

/// A pooler in transaction mode gives a connection another session of the server.
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_connection_whose_session_was_exchanged_prepares_nothing_and_goes_on() {
    let (schema, ledger) = indexed_schema().await;
    hold(&ledger, order("one", 10), NOW).await;
    let swap = async || {
        let mut lease = database_of(&ledger).pool.get().await.unwrap();
        let client = lease.link().unwrap().client();
        let other = "SET bursar.session = 'other'; DEALLOCATE ALL";
        client.batch_execute(other).await.unwrap();
    };
    swap().await;
    let key = hold(&ledger, order("two", 10), NOW).await;
    for transition in [signed(NOW + 300), settled()] {
        swap().await;
        ledger.record(&key, &transition, at(NOW)).await.unwrap();
    }
    swap().await;
    let found = ledger.purchase(&key).await.unwrap().unwrap();
    assert_eq!(found.state, crate::ledger::State::Settled);
    ledger.freeze("stop").await.unwrap();
    swap().await;
    ledger.unfreeze().await.unwrap();
    assert_eq!(events(&schema).await, 4);
    let prepared = "SELECT count(*) FROM pg_prepared_statements";
    let mut lease = database_of(&ledger).pool.get().await.unwrap();
    let client = lease.link().unwrap().client();
    assert_eq!(client.query_typed(prepared, &[]).await.unwrap().len(), 1);
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_caller_that_leaves_keeps_no_other_caller_waiting() {
    let (schema, ledger) = indexed_schema().await;
    for leaves in 0..6 {
        let wished: Vec<_> = (0..4)
            .map(|number| {
                wish(
                    order(&format!("{leaves}-{number}"), 1),
                    at(NOW),
                    lifetime(1000),
                )
            })
            .collect();
        let mut first = Box::pin(ledger.reserve(&wished[0]));
        let mut second = Box::pin(ledger.reserve(&wished[1]));
        drop((&mut first).now_or_never());
        for _ in 0..leaves {
            tokio::task::yield_now().await;
        }
        drop((&mut second).now_or_never());
        drop(first);
        let third = ledger.reserve(&wished[2]);
        let fourth = ledger.reserve(&wished[3]);
        drop(second);
        let (third, fourth) = join(third, fourth).await;
        assert!(matches!(third, Ok(Reserved::Held(_))), "{third:?}");
        assert!(matches!(fourth, Ok(Reserved::Held(_))), "{fourth:?}");
    }
    assert!(events(&schema).await >= 12);
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_runtime_that_ends_keeps_no_caller_waiting() {
    let (schema, ledger) = indexed_schema().await;
    for round in 0..10 {
        let (other, id) = (ledger.clone(), format!("other-{round}"));
        let runtime = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let wish = wish(order(&id, 1), at(NOW), lifetime(1000));
                let mut call = Box::pin(other.reserve(&wish));
                drop((&mut call).now_or_never());
                tokio::task::yield_now().await;
            });
        });
        let wish = wish(order(&format!("own-{round}"), 1), at(NOW), lifetime(1000));
        // A caller in a batch of the other runtime gets an error, and nobody waits for ever.
        let answer = ledger.reserve(&wish).await;
        let is_honest = matches!(answer, Ok(Reserved::Held(_)) | Err(LedgerError::Store(_)));
        assert!(is_honest, "{answer:?}");
        runtime.join().unwrap();
    }
    hold(&ledger, order("last", 1), NOW).await;
    let report = ledger.verify(None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.events as i64, events(&schema).await);
}

/// A caller that waits for room is told about the calls in flight, and those of its own batch are among them.
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_denial_knows_the_payments_in_flight_of_its_own_batch() {
    let (_, ledger) = indexed_schema().await;
    let limits = vec![meter(
        Scope::Global,
        LimitKind::Exposure(Usd::from_micros(10).into()),
    )];
    let wished = wishes(2, &limits).into_iter().map(|mut wish| {
        wish.checks.in_flight = ledger.in_flight();
        wish.flight = Some(ledger.flight());
        wish
    });
    let wished: Vec<_> = wished.collect();
    let answers = together(&ledger, wished.clone()).await;
    assert!(matches!(&answers[0], Ok(Reserved::Held(_))), "{answers:?}");
    let Ok(Reserved::Denied(denial)) = &answers[1] else {
        panic!("{answers:?}");
    };
    assert_eq!(denial.in_flight, denial.used, "{denial:?}");
    assert!(denial.message.contains("wait_for_room"), "{denial:?}");
}

/// Returns a runtime that runs only while something waits in it.
fn still() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Waits until so many changes are in the queue.
async fn queued(ledger: &Ledger, count: usize) {
    while database_of(ledger).queue.waiting() < count {
        tokio::task::yield_now().await;
    }
}

#[test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
fn a_runtime_that_rests_after_its_own_answer_keeps_no_caller_of_its_batch_waiting() {
    let (schema, runtime, rests) = (schema(), still(), still());
    let ledger = rests
        .block_on(Ledger::postgres_in(&url(), &schema))
        .unwrap();
    rests.block_on(index(&schema, &ledger));
    let own = wish(order("own", 10), at(NOW), lifetime(1000));
    let mut refused = wish(order("refused", 10), at(NOW), lifetime(1000));
    refused.purchase.tag = Some("a\0b".to_owned());
    let good = wish(order("good", 10), at(NOW), lifetime(1000));
    let mut call = Box::pin(ledger.reserve(&own));
    rests.block_on(async { drop((&mut call).now_or_never()) });
    let others = runtime.block_on(async {
        let others = [refused, good].map(|wish| {
            let ledger = ledger.clone();
            tokio::spawn(async move { ledger.reserve(&wish).await })
        });
        queued(&ledger, 3).await;
        others
    });
    let answer = rests.block_on(call);
    assert!(matches!(answer, Ok(Reserved::Held(_))), "{answer:?}");
    // Nobody runs the first runtime from here on.
    let answers =
        runtime.block_on(async { timeout(Duration::from_secs(30), join_all(others)).await });
    let answers = answers.expect("no caller waits for ever");
    let [refused, good] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert!(
        matches!(refused, Ok(Err(LedgerError::Store(_)))),
        "{refused:?}"
    );
    assert!(matches!(good, Ok(Ok(Reserved::Held(_)))), "{good:?}");
}

#[test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
fn a_batch_in_a_runtime_that_nobody_runs_ends_with_an_error_for_the_callers_of_others() {
    let (schema, runtime, rests) = (schema(), still(), still());
    let ledger = rests.block_on(short_of_time(&url(), &schema));
    rests.block_on(index(&schema, &ledger));
    let own = wish(order("own", 10), at(NOW), lifetime(1000));
    let other = wish(order("other", 10), at(NOW), lifetime(1000));
    let mut call = Box::pin(ledger.reserve(&own));
    rests.block_on(async { drop((&mut call).now_or_never()) });
    let other = {
        let ledger = ledger.clone();
        runtime.spawn(async move { ledger.reserve(&other).await })
    };
    runtime.block_on(queued(&ledger, 2));
    // The batch begins, and its runtime rests.
    rests.block_on(async {
        while database_of(&ledger).queue.waiting() > 0 {
            tokio::task::yield_now().await;
        }
    });
    let answer = runtime.block_on(async { timeout(Duration::from_secs(30), other).await });
    let answer = answer.expect("no caller waits for ever").unwrap();
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    drop(call);
    drop(rests);
}

#[test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
fn a_lead_that_its_caller_does_not_begin_is_taken_over_by_another_caller() {
    let (schema, runtime, rests) = (schema(), still(), still());
    let ledger = runtime
        .block_on(Ledger::postgres_in(&url(), &schema))
        .unwrap();
    runtime.block_on(index(&schema, &ledger));
    let reserve = |id: &str| {
        let (ledger, wish) = (ledger.clone(), wish(order(id, 10), at(NOW), lifetime(1000)));
        async move { ledger.reserve(&wish).await }
    };
    // Another program has the lock, so the first batch waits.
    let (first, program) = runtime.block_on(async {
        let program = locked(&schema).await;
        let first = tokio::spawn(reserve("first"));
        someone_waits(&schema).await;
        (first, program)
    });
    // The caller that will have the next lead rests.
    let mut call = Box::pin(reserve("second"));
    rests.block_on(async { drop((&mut call).now_or_never()) });
    let third = runtime.spawn(reserve("third"));
    runtime.block_on(async {
        queued(&ledger, 2).await;
        program.batch_execute("COMMIT").await.unwrap();
    });
    for call in [first, third] {
        let answer = runtime.block_on(async { timeout(Duration::from_secs(30), call).await });
        let answer = answer.expect("no caller waits for ever").unwrap();
        assert!(matches!(answer, Ok(Reserved::Held(_))), "{answer:?}");
    }
    let answer = rests.block_on(call);
    assert!(matches!(answer, Ok(Reserved::Held(_))), "{answer:?}");
    assert!(runtime.block_on(ledger.verify(None)).unwrap().is_sound());
}

const FLEET: &str = "BURSAR_TEST_FLEET";

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn many_processes_with_many_calls_sign_exactly_as_many_as_fit() {
    let (schema, ledger) = indexed_schema().await;
    let name = "ledger::postgres::tests::batches::one_process_of_the_fleet";
    in_four_processes(name, FLEET, &schema);
    let signed = "SELECT count(*) FROM purchases WHERE state = 'signed' OR state = 'settled'";
    assert_eq!(number(&schema, signed).await, 100);
    let report = ledger.verify(None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.events, report.purchases), (200, 100));
    // Changes of a process share transactions.
    assert!(transactions(&schema).await < 200);
}

#[tokio::test]
#[ignore = "a part of many_processes_with_many_calls_sign_exactly_as_many_as_fit"]
async fn one_process_of_the_fleet() {
    let Ok(schema) = std::env::var(FLEET) else {
        return;
    };
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    let signer: Arc<dyn SignsInStep> = Arc::new(Key);
    let calls = (0..64).map(|number| {
        let (ledger, signer) = (ledger.clone(), Arc::clone(&signer));
        async move {
            let id = format!("{}-{number}", std::process::id());
            let wished = Arc::new(wish(order(&id, 10), at(NOW), lifetime(1000)));
            if let Obtained::Signed(_) = ledger.buy(&wished, &signer).await.unwrap() {
                let key = wished.key();
                ledger.record(&key, &settled(), at(NOW)).await.unwrap();
            }
        }
    });
    join_all(calls).await;
}
