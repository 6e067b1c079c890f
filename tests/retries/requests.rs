//! Callers that send the same request again.

use std::sync::Arc;
use std::time::Duration;

use bursar::clock::{Clock, SystemClock};
use bursar::ledger::State;
use bursar::{ErrorKind, Ledger, PaymentStatus, ResponseExt, RetryPolicy, Timestamp};
use bursar_testing::{Fault, Forgery};
use bursar_tests::paywall::{distinct_payments, open, payment_status, payments_sent, purchases};
use bursar_tests::signatures::SignatureLog;

use crate::{SOON, client, idempotent_report};

/// Sellers that settle and lose, deny or delay the answer.
fn losers() -> [Fault; 6] {
    [
        Fault::DropAfterSettle,
        Fault::HangAfterSettle,
        Fault::ServerErrorAfterSettle,
        Fault::ForgedReceipt(Forgery::Failure),
        Fault::SettlementPending,
        Fault::DoublePrice,
    ]
}

#[tokio::test]
async fn a_loop_pays_once_and_gets_what_it_paid_for() {
    for fault in losers() {
        let signatures = SignatureLog::default();
        let client = client(&signatures).build().unwrap();
        let seller = open(idempotent_report().fault(fault.clone())).await;
        let buy = || client.get(seller.url("/report")).timeout(SOON);
        for _ in 0..4 {
            let status = payment_status(buy().send().await);
            assert_eq!(status, PaymentStatus::MaybePaid, "{fault:?}");
        }
        assert_eq!(
            (signatures.count(), distinct_payments(&seller)),
            (1, 1),
            "{fault:?}"
        );
        assert!(seller.settlements().len() <= 1, "{fault:?}");
        seller.clear_faults();
        if fault != Fault::DoublePrice {
            let response = client.get(seller.url("/report")).send().await.unwrap();
            assert_eq!(
                (
                    response.payment_status(),
                    response.text().await.unwrap().as_str()
                ),
                (PaymentStatus::Paid, "the report")
            );
        }
        let purchases = purchases(&client).await;
        assert_eq!((purchases.len(), signatures.count()), (1, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_duplicate_is_bought_by_name_only() {
    let signatures = SignatureLog::default();
    let client = client(&signatures)
        .retry_policy(RetryPolicy::once())
        .build()
        .unwrap();
    let seller = open(idempotent_report().fault_once(Fault::DropAfterSettle)).await;
    let url = seller.url("/report");
    assert_eq!(
        client
            .get(url.clone())
            .send()
            .await
            .unwrap_err()
            .payment_status(),
        PaymentStatus::MaybePaid
    );
    assert_eq!(
        client
            .get(url.clone())
            .allow_duplicate()
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (seller.settlements().len(), distinct_payments(&seller)),
        (2, 2)
    );
    assert_eq!(
        client
            .get(url.clone())
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (seller.settlements().len(), distinct_payments(&seller)),
        (2, 2),
        "the first was presented again"
    );
    assert_eq!(
        client.get(url).send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(seller.settlements().len(), 3, "nothing was open any more");
}

#[tokio::test]
async fn ten_identical_calls_at_once_are_ten_purchases() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::sqlite(directory.path().join("ledger.db")).unwrap();
    let (in_memory, in_a_file) = (SignatureLog::default(), SignatureLog::default());
    let clients = [
        client(&in_memory).build().unwrap(),
        client(&in_a_file).ledger(ledger).build().unwrap(),
    ];
    for client in clients {
        let seller = open(idempotent_report()).await;
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(client.get(seller.url("/report")).send()))
            .collect();
        for call in calls {
            assert_eq!(
                call.await.unwrap().unwrap().payment_status(),
                PaymentStatus::Paid
            );
        }
        assert_eq!(
            (seller.settlements().len(), distinct_payments(&seller)),
            (10, 10)
        );
    }
}

#[tokio::test]
async fn a_call_that_was_dropped_is_taken_up() {
    let signatures = SignatureLog::default();
    let client = client(&signatures).build().unwrap();
    let seller = open(idempotent_report().fault_once(Fault::HangAfterSettle)).await;
    tokio::select! {
        answer = client.get(seller.url("/report")).send() => panic!("{answer:?}"),
        () = seller.wait_for_settlements(1) => {}
    }
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "the report")
    );
    assert_eq!((seller.settlements().len(), signatures.count()), (1, 1));
}

#[tokio::test]
async fn another_client_takes_up_what_was_lost_and_not_what_is_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let signatures = SignatureLog::default();
    let build = || {
        client(&signatures)
            .ledger(Ledger::sqlite(&path).unwrap())
            .build()
            .unwrap()
    };
    let (first, second) = (build(), build());
    let seller = open(idempotent_report().fault_once(Fault::HangAfterSettle)).await;
    let call = tokio::spawn(first.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    assert_eq!(
        second
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (seller.settlements().len(), signatures.count()),
        (2, 2),
        "the first is in flight"
    );
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The first says that it left; the second finds it.
    assert_eq!(
        purchases(&first).await.first().unwrap().state,
        State::Unresolved
    );
    assert_eq!(
        second
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!((seller.settlements().len(), signatures.count()), (2, 2));
}

#[tokio::test]
async fn what_is_presented_again_is_kept_from_an_identical_call() {
    let faults = idempotent_report()
        .fault_once(Fault::ServerErrorAfterSettle)
        .fault_once(Fault::HangAfterSettle);
    let seller = Arc::new(open(faults).await);
    // Every payment that arrives makes it 15 seconds later: the purchase is kept for 20.
    let (start, clock) = (SystemClock.now().secs(), Arc::clone(&seller));
    let clock = move || Timestamp::from_secs(start + 15 * payments_sent(&clock) as u64);
    let signatures = SignatureLog::default();
    let client = client(&signatures).clock(clock).build().unwrap();
    let call = tokio::spawn(client.get(seller.url("/report")).send());
    while payments_sent(&seller) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(distinct_payments(&seller), 1);
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (distinct_payments(&seller), signatures.count()),
        (2, 2),
        "it was in flight"
    );
    call.abort();
}

#[tokio::test]
async fn presentations_end_with_patience_time_and_validity() {
    for (most, expected) in [(1, 1), (2, 2), (5, 5)] {
        let seller = open(idempotent_report().fault(Fault::ServerErrorAfterSettle)).await;
        let client = client(&SignatureLog::default())
            .retry_policy(RetryPolicy {
                attempts: most,
                initial_backoff: Duration::ZERO,
            })
            .build()
            .unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                response.payment_status(),
                payments_sent(&seller)
            ),
            (502, PaymentStatus::MaybePaid, expected)
        );
        assert_eq!(
            (distinct_payments(&seller), seller.settlements().len()),
            (1, 1)
        );
    }
    // There is no time for the pause.
    let seller = open(idempotent_report().fault(Fault::ServerErrorAfterSettle)).await;
    let slow = client(&SignatureLog::default()).retry_policy(RetryPolicy {
        initial_backoff: Duration::from_secs(60),
        ..RetryPolicy::default()
    });
    let slow = slow.timeout(Duration::from_secs(5)).build().unwrap();
    assert_eq!(
        slow.get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        502
    );
    assert_eq!(payments_sent(&seller), 1);
    // A refusal is certain, as far as that goes, and not asked about again.
    let seller = open(idempotent_report().fault(Fault::SettlementFailure)).await;
    let client = client(&SignatureLog::default()).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), payments_sent(&seller)),
        (ErrorKind::SettlementFailed, 1)
    );
}
