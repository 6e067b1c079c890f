//! Each fault, as it looks on the wire and to bursar's client.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use alloy::primitives::{Address, B256, U256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::ledger::{Filter, State};
use bursar::{Client, ErrorKind, PaymentStatus, ResponseExt};
use bursar_testing::{Fault, Forgery, Route};
use bursar_tests::paywall::{open, report};
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};

use crate::{Payment, client, decode, get, open_at_now, pay, pay_report, terms, try_pay};

/// What a hand-made payment gets from a seller with this fault, and how much was settled.
async fn answer(fault: Fault) -> (Response, usize) {
    let (paywall, response) = pay_report(report().fault(fault)).await;
    (response.unwrap(), paywall.settlements().len())
}

/// What the client makes of it, and how much was settled.
async fn outcome(fault: Fault) -> (Result<PaymentStatus, (ErrorKind, PaymentStatus)>, usize) {
    let paywall = open(report().fault(fault)).await;
    let outcome = client().get(paywall.url("/report")).send().await;
    let outcome = outcome
        .map(|response| response.payment_status())
        .map_err(|error| (error.kind(), error.payment_status()));
    (outcome, paywall.settlements().len())
}

#[tokio::test]
async fn drop_after_settle() {
    let (paywall, response) = pay_report(report().fault(Fault::DropAfterSettle)).await;
    assert!(response.is_err());
    assert_eq!(paywall.settlements().len(), 1);
    assert_eq!(
        outcome(Fault::DropAfterSettle).await,
        (Err((ErrorKind::Transport, PaymentStatus::MaybePaid)), 1)
    );
}

#[tokio::test]
async fn a_lost_answer_is_fetched_without_paying_again() {
    let paywall = open(report().idempotent().fault_once(Fault::DropAfterSettle)).await;
    let client = client();
    let send = || client.get(paywall.url("/report")).purchase_id("one").send();
    assert_eq!(send().await.unwrap().text().await.unwrap(), "the report");
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn hang_after_settle() {
    let paywall = open(report().fault(Fault::HangAfterSettle)).await;
    let client = client();
    tokio::select! {
        answer = client.get(paywall.url("/report")).send() => panic!("{answer:?}"),
        () = paywall.wait_for_settlements(1) => {}
    }
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!(
        purchases[0].state,
        State::Unresolved,
        "the caller went away after the payment had left"
    );
}

#[tokio::test]
async fn server_error_after_settle() {
    let (response, settled) = answer(Fault::ServerErrorAfterSettle).await;
    assert_eq!((response.status(), settled), (StatusCode::BAD_GATEWAY, 1));
    assert!(!response.headers().contains_key("payment-response"));
    assert_eq!(
        outcome(Fault::ServerErrorAfterSettle).await,
        (Ok(PaymentStatus::MaybePaid), 1)
    );
}

#[tokio::test]
async fn broken_body_after_settle() {
    let (mut response, settled) = answer(Fault::BrokenBodyAfterSettle).await;
    assert_eq!((response.status(), settled), (StatusCode::OK, 1));
    assert_eq!(decode(&response, "payment-response")["success"], true);
    assert_eq!(response.chunk().await.unwrap().unwrap(), "the r");
    assert!(response.chunk().await.is_err());
}

#[tokio::test]
async fn no_receipt_or_one_that_proves_nothing() {
    let (response, settled) = answer(Fault::NoReceipt).await;
    assert_eq!((response.status(), settled), (StatusCode::OK, 1));
    assert!(!response.headers().contains_key("payment-response"));

    let (response, settled) = answer(Fault::MalformedReceipt).await;
    assert_eq!((response.status(), settled), (StatusCode::OK, 1));
    assert!(
        STANDARD
            .decode(&response.headers()["payment-response"])
            .is_err()
    );

    for (forgery, field, value) in [
        (
            Forgery::Payer,
            "payer",
            json!(Address::repeat_byte(0xde).to_checksum(None)),
        ),
        (Forgery::Network, "network", json!("eip155:1")),
        (Forgery::NoTransaction, "transaction", json!("")),
    ] {
        let (response, settled) = answer(Fault::ForgedReceipt(forgery)).await;
        assert_eq!((response.status(), settled), (StatusCode::OK, 1));
        let receipt = decode(&response, "payment-response");
        assert_eq!(
            (&receipt["success"], &receipt[field]),
            (&json!(true), &value)
        );
        assert_eq!(
            outcome(Fault::ForgedReceipt(forgery)).await,
            (Ok(PaymentStatus::MaybePaid), 1)
        );
    }
    assert_eq!(
        outcome(Fault::NoReceipt).await,
        (Ok(PaymentStatus::MaybePaid), 1)
    );
    assert_eq!(
        outcome(Fault::MalformedReceipt).await,
        (Ok(PaymentStatus::MaybePaid), 1)
    );
}

#[tokio::test]
async fn settlement_fails_truly_or_by_the_sellers_word() {
    for (fault, moved) in [
        (Fault::SettlementFailure, 0),
        (Fault::ForgedReceipt(Forgery::Failure), 1),
    ] {
        let (response, settled) = answer(fault.clone()).await;
        assert_eq!(
            (response.status(), settled),
            (StatusCode::PAYMENT_REQUIRED, moved)
        );
        assert!(!response.headers().contains_key("payment-required"));
        let receipt = decode(&response, "payment-response");
        assert_eq!(
            (&receipt["success"], &receipt["transaction"]),
            (&json!(false), &json!(""))
        );
        assert_eq!(
            outcome(fault).await,
            (
                Err((ErrorKind::SettlementFailed, PaymentStatus::MaybePaid)),
                moved
            )
        );
    }
    let paywall = open_at_now(report().v1().fault(Fault::SettlementFailure)).await;
    let response = pay(&paywall, "/report", &Payment::new().v1()).await;
    let reason = decode(&response, "x-payment-response")["errorReason"].clone();
    assert_eq!(
        response.json::<Value>().await.unwrap()["error"],
        reason,
        "version 1 states its terms again"
    );
}

#[tokio::test]
async fn settlement_pending() {
    let (paywall, response) = pay_report(report().fault(Fault::SettlementPending)).await;
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    let receipt = decode(&response, "payment-response");
    assert_eq!(receipt["errorReason"], "settlement_pending");
    assert_eq!(
        receipt["transaction"],
        paywall.settlements()[0].transaction.to_string()
    );
    let pending = Err((ErrorKind::SettlementPending, PaymentStatus::MaybePaid));
    assert_eq!(outcome(Fault::SettlementPending).await, (pending, 1));
}

#[tokio::test]
async fn reject_again() {
    let (response, settled) = answer(Fault::DoublePrice).await;
    assert_eq!(
        (response.status(), settled),
        (StatusCode::PAYMENT_REQUIRED, 0)
    );
    assert_eq!(
        decode(&response, "payment-required")["accepts"][0]["amount"],
        "20000"
    );
    assert_eq!(
        outcome(Fault::DoublePrice).await,
        (Err((ErrorKind::Rejected, PaymentStatus::MaybePaid)), 0)
    );

    let paywall = open(report().fault_once(Fault::DoublePrice)).await;
    let response = client()
        .get(paywall.url("/report"))
        .accept_new_terms()
        .send()
        .await
        .unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    assert_eq!(
        paywall.settlements()[0].authorization.value,
        U256::from(20_000)
    );
    let nonces: Vec<B256> = paywall
        .requests()
        .iter()
        .filter_map(|request| Some(request.payment.as_ref()?.authorization?.nonce))
        .collect();
    assert_eq!(nonces.len(), 2);
    assert_eq!(nonces[0], nonces[1], "one purchase has one nonce");
}

#[tokio::test]
async fn redirect_after_payment() {
    let other = open(Route::any("/*").body("caught")).await;
    let fault = Fault::RedirectAfterPayment(other.url("/catch"));
    let (response, settled) = answer(fault.clone()).await;
    assert_eq!(
        (response.status(), settled),
        (StatusCode::TEMPORARY_REDIRECT, 0)
    );
    assert_eq!(response.headers()["location"], other.url("/catch").as_str());
    assert_eq!(outcome(fault).await, (Ok(PaymentStatus::MaybePaid), 0));
    assert!(other.requests().is_empty(), "the payment must not go along");
}

#[tokio::test]
async fn huge_body() {
    const SIZE: usize = 3 << 20;
    let paywall = open(report().v1().fault(Fault::HugeBody402(SIZE))).await;
    let body = get(&paywall, "/report").await.bytes().await.unwrap();
    assert_eq!(body.len(), SIZE);
    assert_eq!(
        serde_json::from_slice::<Value>(&body).unwrap()["x402Version"],
        1
    );
    let error = client()
        .get(paywall.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid)
    );
    assert_eq!(
        outcome(Fault::HugeBody402(SIZE)).await,
        (Ok(PaymentStatus::Paid), 1),
        "version 2 needs no body"
    );
}

#[tokio::test]
async fn hanging_body() {
    let paywall = open(report().v1().fault(Fault::HangingBody402)).await;
    let mut response = get(&paywall, "/report").await;
    assert!(response.chunk().await.unwrap().unwrap().starts_with(b"{"));
    let mut next = pin!(response.chunk());
    assert!(poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx).is_pending())).await);

    let limit = Duration::from_millis(50);
    let hasty = Client::builder()
        .answer_timeout(limit)
        .allow_http_loopback(true)
        .build()
        .unwrap();
    let error = hasty.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::NotPaid)
    );
    assert_eq!(
        outcome(Fault::HangingBody402).await,
        (Ok(PaymentStatus::Paid), 1),
        "version 2 needs no body"
    );
}

#[tokio::test]
async fn huge_header() {
    const SIZE: usize = 100_000;
    let paywall = open(report().fault(Fault::HugeHeader(SIZE))).await;
    let response = get(&paywall, "/report").await;
    assert_eq!(response.headers()["payment-required"].len(), SIZE);
    assert_eq!(decode(&response, "payment-required")["x402Version"], 2);
    assert_eq!(
        outcome(Fault::HugeHeader(SIZE)).await,
        (Err((ErrorKind::Malformed, PaymentStatus::NotPaid)), 0)
    );
    let old = open(report().v1().fault(Fault::HugeHeader(SIZE))).await;
    assert_eq!(
        get(&old, "/report").await.headers()["x-padding"].len(),
        SIZE
    );
}

#[tokio::test]
async fn faults_come_one_after_the_other_and_end() {
    let route = report()
        .fault_once(Fault::NoReceipt)
        .fault_once(Fault::ServerErrorAfterSettle);
    let paywall = open(route.fault(Fault::DropAfterSettle)).await;
    let client = client();
    let send = || client.get(paywall.url("/report")).allow_duplicate().send();
    assert_eq!(send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(send().await.unwrap().status(), StatusCode::BAD_GATEWAY);
    assert!(send().await.is_err());
    assert!(send().await.is_err());
    paywall.clear_faults();
    assert_eq!(send().await.unwrap().payment_status(), PaymentStatus::Paid);
    assert_eq!(paywall.settlements().len(), 5);
}

#[tokio::test]
async fn only_valid_payments_are_betrayed() {
    let paywall = open_at_now(report().fault_once(Fault::DropAfterSettle)).await;
    let wrong =
        Payment::with(|payment| payment.to = Address::ZERO).v2(&terms(&paywall, "/report").await);
    assert_eq!(
        pay(&paywall, "/report", &wrong).await.status(),
        StatusCode::PAYMENT_REQUIRED
    );
    let right = Payment::new().v2(&terms(&paywall, "/report").await);
    assert!(try_pay(&paywall, "/report", &right).await.is_err());
}
