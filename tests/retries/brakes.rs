//! Freezes, the loop guard, the circuit breaker, and holds that end before the signer is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bursar::policy::Rule;
use bursar::telemetry::{Event, EventKind};
use bursar::{FreezeSwitch, Ledger, PaymentStatus, ResponseExt, RetryPolicy, Signer, signer_fn};
use bursar_testing::{Fault, Paywall};
use bursar_tests::clock::{HOUR, TestClock};
use bursar_tests::paywall::{open, payments_sent};
use bursar_tests::signatures::{SignatureLog, wallet};

use crate::{client, idempotent_report, policy};

#[tokio::test]
async fn a_stop_ends_the_presentations_of_a_call() {
    let seller = open(idempotent_report().fault(Fault::ServerErrorAfterSettle)).await;
    let (switch, wallet) = (FreezeSwitch::new(), Arc::new(wallet()));
    let pulled = switch.clone();
    let signer = signer_fn(wallet.address(), move |authorization| {
        pulled.freeze("while it was signed");
        let wallet = Arc::clone(&wallet);
        async move { wallet.sign(&authorization).await }
    });
    let client = client(&SignatureLog::default())
        .signer(signer)
        .freeze_switch(switch);
    let response = client
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (502, PaymentStatus::MaybePaid)
    );
    assert_eq!(payments_sent(&seller), 1);
}

#[tokio::test]
async fn every_switch_stops_paying_and_what_was_signed_before() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ledger) = (
        directory.path().join("STOP"),
        directory.path().join("ledger.db"),
    );
    let (signatures, switch) = (SignatureLog::default(), FreezeSwitch::new());
    let build = || {
        let client = client(&signatures)
            .ledger(Ledger::sqlite(&ledger).unwrap())
            .retry_policy(RetryPolicy::once());
        client
            .policy(policy().freeze_file(&file))
            .freeze_switch(switch.clone())
            .build()
            .unwrap()
    };
    let (client, another) = (build(), build());
    let seller = open(idempotent_report().fault_once(Fault::DropAfterSettle)).await;
    let (url, other) = (seller.url("/report"), seller.url("/report?other"));
    let lost = client.get(url.clone()).send().await.unwrap_err();
    let id = lost.purchase_id().unwrap().clone();
    for stop in ["file", "program", "ledger"] {
        match stop {
            "file" => std::fs::write(&file, "").unwrap(),
            "program" => switch.freeze("it goes in circles"),
            _ => another
                .ledger()
                .unwrap()
                .freeze("it goes in circles")
                .await
                .unwrap(),
        }
        let new = client.get(other.clone()).send().await.unwrap_err();
        assert_eq!(
            (new.denial().unwrap().rule, new.payment_status()),
            (Rule::Frozen, PaymentStatus::NotPaid),
            "{stop}"
        );
        for again in [
            client.get(url.clone()),
            client.get(url.clone()).purchase_id(id.as_str()),
        ] {
            let again = again.send().await.unwrap_err();
            assert_eq!(
                (again.denial().unwrap().rule, again.payment_status()),
                (Rule::Frozen, PaymentStatus::MaybePaid),
                "{stop}"
            );
        }
        assert_eq!(
            (signatures.count(), seller.settlements().len()),
            (1, 1),
            "{stop}"
        );
        match stop {
            "file" => std::fs::remove_file(&file).unwrap(),
            "program" => switch.unfreeze(),
            _ => client.ledger().unwrap().unfreeze().await.unwrap(),
        }
    }
    assert_eq!(
        client.get(url).send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!((signatures.count(), seller.settlements().len()), (1, 1));
    assert_eq!(
        client.get(other).send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
}

#[tokio::test]
async fn a_loop_of_the_agent_is_stopped_and_so_is_a_seller_that_takes_and_fails() {
    let signatures = SignatureLog::default();
    let seller = open(idempotent_report()).await;
    let limited = policy().loop_guard(Duration::from_secs(60), 3);
    let looping = client(&signatures).policy(limited).build().unwrap();
    for _ in 0..3 {
        looping.get(seller.url("/report")).send().await.unwrap();
    }
    let error = looping.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::LoopGuard, PaymentStatus::NotPaid)
    );
    assert_eq!((seller.settlements().len(), signatures.count()), (3, 3));
    looping
        .get(seller.url("/report?page=2"))
        .send()
        .await
        .unwrap();

    let paid_and_failed = open(idempotent_report().upfront().status(500)).await;
    let broken = policy().circuit_breaker(Duration::from_secs(600), 2);
    let client = client(&signatures).policy(broken).build().unwrap();
    for page in 0..2 {
        let response = client
            .get(paid_and_failed.url(&format!("/report?page={page}")))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (500, PaymentStatus::Paid)
        );
    }
    let error = client
        .get(paid_and_failed.url("/report?page=3"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::CircuitBreaker, PaymentStatus::NotPaid)
    );
    assert_eq!(paid_and_failed.settlements().len(), 2);
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid,
        "others are paid"
    );
}

#[tokio::test]
async fn a_signer_is_not_asked_after_the_hold_ended() {
    let (signatures, clock) = (SignatureLog::default(), TestClock::default());
    let seller = Paywall::builder().route(idempotent_report());
    let seller = seller.clock(clock.clone()).start().await.unwrap();
    let (sleeping, is_first) = (clock.clone(), AtomicBool::new(true));
    let client = client(&signatures)
        .clock(clock)
        .observer(move |event: &Event<'_>| {
            if event.kind == EventKind::Reserved && is_first.swap(false, Ordering::SeqCst) {
                // The machine sleeps.
                sleeping.advance(HOUR);
            }
        })
        .build()
        .unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), signatures.count()),
        (PaymentStatus::NotPaid, 0),
        "{error}"
    );
    assert!(error.to_string().contains("which was not asked"), "{error}");
    let paid = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (paid.payment_status(), signatures.count()),
        (PaymentStatus::Paid, 1)
    );
}
