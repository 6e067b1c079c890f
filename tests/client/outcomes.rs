//! The outcome of a payment: lost answers, receipts and refusals.

use std::time::Duration;

use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::{ErrorKind, PaymentStatus, ResponseExt, RetryPolicy, usd};
use bursar_testing::{Fault, Forgery, Route};
use bursar_tests::paywall::{distinct_payments, open, open_all, purchases, report};
use bursar_tests::signatures::wallet;

use crate::{builder, client};

#[tokio::test]
async fn lost_answers_count_as_spent_and_the_same_purchase_is_presented_again() {
    for fault in [Fault::DropAfterSettle, Fault::ServerErrorAfterSettle] {
        let seller = open(report().idempotent().fault_once(fault)).await;
        let client = builder()
            .signer(wallet())
            .retry_policy(RetryPolicy::once())
            .build()
            .unwrap();
        let first = client
            .get(seller.url("/report"))
            .purchase_id("order-1")
            .send()
            .await;
        match first {
            Err(error) => {
                assert_eq!(
                    (
                        error.payment_status(),
                        error.purchase_id().unwrap().as_str()
                    ),
                    (PaymentStatus::MaybePaid, "order-1")
                )
            }
            Ok(response) => assert_eq!(
                (response.status().as_u16(), response.payment_status()),
                (502, PaymentStatus::MaybePaid)
            ),
        }
        assert_eq!(purchases(&client).await[0].state, State::Unresolved);

        let response = client
            .get(seller.url("/report"))
            .purchase_id("order-1")
            .send()
            .await
            .unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert_eq!(response.text().await.unwrap(), "the report");
        assert_eq!(seller.settlements().len(), 1, "one payment on the chain");
        assert_eq!(purchases(&client).await.len(), 1);
    }
}

#[tokio::test]
async fn a_purchase_id_belongs_to_one_request() {
    let seller = open_all([report(), Route::get("/other").price(usd!("0.01"))]).await;
    let client = client();
    client
        .get(seller.url("/report"))
        .purchase_id("order-1")
        .send()
        .await
        .unwrap();
    let error = client
        .get(seller.url("/other"))
        .purchase_id("order-1")
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Purchase, PaymentStatus::NotPaid)
    );
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn receipts_that_prove_nothing_leave_the_outcome_unknown_and_lose_no_content() {
    for fault in [
        Fault::NoReceipt,
        Fault::MalformedReceipt,
        Fault::ForgedReceipt(Forgery::Payer),
        Fault::ForgedReceipt(Forgery::Network),
        Fault::ForgedReceipt(Forgery::NoTransaction),
    ] {
        let seller = open(report().fault(fault.clone())).await;
        let client = client();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(
            (response.payment_status(), response.receipt().is_none()),
            (PaymentStatus::MaybePaid, true),
            "{fault:?}"
        );
        assert!(response.payment().is_some());
        assert_eq!(response.text().await.unwrap(), "the report");
        assert_eq!(purchases(&client).await[0].state, State::Unresolved);
    }
}

#[tokio::test]
async fn a_402_after_payment_is_an_error_and_never_a_second_payment() {
    for (fault, kind) in [
        (Fault::DoublePrice, ErrorKind::Rejected),
        (Fault::SettlementFailure, ErrorKind::SettlementFailed),
        (
            Fault::ForgedReceipt(Forgery::Failure),
            ErrorKind::SettlementFailed,
        ),
        (Fault::SettlementPending, ErrorKind::SettlementPending),
    ] {
        let seller = open(report().fault(fault.clone())).await;
        let client = client();
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (kind, PaymentStatus::MaybePaid),
            "{fault:?}"
        );
        assert!(error.to_string().starts_with("may be paid: "), "{error}");
        assert_eq!(distinct_payments(&seller), 1, "{fault:?}");
        let booked = if kind == ErrorKind::SettlementPending {
            State::Unresolved
        } else {
            State::Rejected
        };
        assert_eq!(purchases(&client).await[0].state, booked);
    }
}

#[tokio::test]
async fn a_402_with_a_receipt_is_an_error_that_knows_of_the_money() {
    let seller = open(report().fault(Fault::ForgedReceipt(Forgery::WithTerms))).await;
    let client = client();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Rejected, PaymentStatus::Paid),
        "{error}"
    );
    assert_eq!(
        error.receipt().unwrap().transaction(),
        seller.settlements()[0].transaction
    );
    assert_eq!(purchases(&client).await[0].state, State::Settled);
}

#[tokio::test]
async fn answers_are_bounded_in_time_and_the_money_is_not_forgotten() {
    let seller = open(report().fault(Fault::HangAfterSettle)).await;
    let client = client();
    let error = client
        .get(seller.url("/report"))
        .timeout(Duration::from_millis(300))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::MaybePaid)
    );
    assert_eq!(purchases(&client).await[0].state, State::Unresolved);
}

#[tokio::test]
async fn a_dropped_call_is_booked_as_unknown() {
    let seller = open(report().fault(Fault::HangAfterSettle)).await;
    let client = client();
    let call = tokio::spawn(client.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let purchases = purchases(&client).await;
    assert_eq!(
        (purchases.len(), purchases[0].state),
        (1, State::Unresolved)
    );
    let used = client.budget().await.unwrap();
    assert!(
        used.iter().any(|finding| finding.rule == Rule::Rolling
            && finding.used.as_ref().unwrap().to_string() == "0.01 USD"),
        "{used:?}"
    );
}

#[tokio::test]
async fn error_for_spend_knows_what_was_paid() {
    let seller = open_all([
        Route::get("/up")
            .price(usd!("0.01"))
            .upfront()
            .status(500)
            .body("sorry"),
        Route::get("/free").status(404),
    ])
    .await;
    let client = client();
    let error = client
        .get(seller.url("/up"))
        .send()
        .await
        .unwrap()
        .error_for_payment()
        .unwrap_err();
    assert_eq!(
        (error.payment_status(), error.status().unwrap().as_u16()),
        (PaymentStatus::Paid, 500)
    );
    assert_eq!(
        error.receipt().unwrap().transaction(),
        seller.settlements()[0].transaction
    );
    assert!(error.to_string().starts_with("paid: "), "{error}");
    let error = client
        .get(seller.url("/free"))
        .send()
        .await
        .unwrap()
        .error_for_payment()
        .unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
}
