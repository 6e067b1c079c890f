//! Payments that are presented again.

use alloy::primitives::B256;
use bursar::{PaymentStatus, ResponseExt};
use bursar_tests::paywall::{open, report};
use reqwest::StatusCode;

use crate::{Payment, client, decode, open_at_now, pay, terms};

#[tokio::test]
async fn a_used_nonce_is_refused() {
    let paywall = open_at_now(report()).await;
    let payment = Payment::new().v2(&terms(&paywall, "/report").await);
    assert_eq!(
        pay(&paywall, "/report", &payment).await.status(),
        StatusCode::OK
    );
    let refused = pay(&paywall, "/report", &payment).await;
    assert_eq!(
        decode(&refused, "payment-required")["error"],
        "invalid_exact_evm_nonce_already_used"
    );
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn an_idempotent_seller_answers_again() {
    let paywall = open_at_now(report().idempotent()).await;
    let terms = terms(&paywall, "/report").await;
    let payment = Payment::new().v2(&terms);
    let first = pay(&paywall, "/report", &payment).await;
    let again = pay(&paywall, "/report", &payment).await;
    assert_eq!(
        first.headers()["payment-response"],
        again.headers()["payment-response"]
    );
    assert_eq!(again.text().await.unwrap(), "the report");
    let later = Payment::with(|payment| payment.valid_before += 1);
    assert_eq!(
        pay(&paywall, "/report", &later.v2(&terms)).await.status(),
        StatusCode::PAYMENT_REQUIRED
    );
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn a_payment_identifier_stands_for_one_payment() {
    let paywall = open_at_now(report().payment_identifier(true)).await;
    let terms = terms(&paywall, "/report").await;
    let under = |payment: &Payment, id: &str| {
        let mut payment = payment.v2(&terms);
        payment["extensions"] = terms["extensions"].clone();
        payment["extensions"]["payment-identifier"]["info"]["id"] = id.into();
        payment
    };
    let (first, second) = (
        Payment::new(),
        Payment::with(|payment| payment.nonce = B256::repeat_byte(2)),
    );
    for (payment, status) in [
        (first.v2(&terms), StatusCode::BAD_REQUEST),
        (under(&first, "short"), StatusCode::BAD_REQUEST),
        (under(&first, "pay_0123456789abcdef"), StatusCode::OK),
        (under(&first, "pay_0123456789abcdef"), StatusCode::OK),
        (under(&second, "pay_0123456789abcdef"), StatusCode::CONFLICT),
        (under(&second, "pay_fedcba9876543210"), StatusCode::OK),
    ] {
        assert_eq!(
            pay(&paywall, "/report", &payment).await.status(),
            status,
            "{payment}"
        );
    }
    assert_eq!(paywall.settlements().len(), 2);
}

#[tokio::test]
async fn the_client_names_its_purchase() {
    let paywall = open(report().payment_identifier(true)).await;
    assert_eq!(
        client()
            .get(paywall.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let id = paywall.requests()[1]
        .payment
        .as_ref()
        .unwrap()
        .identifier()
        .unwrap()
        .to_owned();
    assert!(id.starts_with("pay_"), "{id}");
}
