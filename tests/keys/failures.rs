//! Key sources and sellers that fail in the middle of a purchase.

use std::time::Duration;

use bursar::credential::{KeySource, KeySourceError, Preference};
use bursar::secrecy::SecretString;
use bursar::{Credential, ErrorKind, PaymentStatus, ResponseExt};
use bursar_testing::Fault;
use bursar_tests::paywall::open;

use crate::{bearer, client_with, keyed_report, requests_with_key};

/// A payment that was taken and answered 403 is told, and no call by key covers it up.
#[tokio::test]
async fn an_answer_that_was_paid_for_is_not_replaced_by_a_call() {
    for status in [401, 403] {
        let seller = open(keyed_report().fault(Fault::StatusAfterSettle(status))).await;
        let client = client_with(bearer("right").prefer(Preference::PayFirst))
            .build()
            .unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(seller.settlements().len(), 1);
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (status, PaymentStatus::MaybePaid)
        );
        assert!(response.payment().is_some());
        assert_eq!(
            requests_with_key(&seller),
            0,
            "no key was sent after the payment"
        );
    }
}

/// A vault that does not answer holds no call beyond the caller's time.
#[tokio::test]
async fn a_key_that_does_not_come_ends_with_the_callers_time() {
    struct Hangs;
    impl KeySource for Hangs {
        async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
            std::future::pending().await
        }
    }
    let seller = open(keyed_report()).await;
    for preference in [Preference::KeyFirst, Preference::NeverPay] {
        let client = client_with(Credential::bearer("vault", Hangs).prefer(preference))
            .build()
            .unwrap();
        let sent = client
            .get(seller.url("/report"))
            .timeout(Duration::from_millis(50))
            .send();
        let error = tokio::time::timeout(Duration::from_secs(20), sent)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Timeout, PaymentStatus::NotPaid)
        );
        assert!(error.to_string().contains("vault"), "{error}");
    }
    assert!(seller.requests().is_empty());
}

/// A purchase whose answer was lost is taken up under its id, though the key would do by now.
#[tokio::test]
async fn a_key_does_not_come_between_a_purchase_and_its_answer() {
    let seller = open(
        keyed_report()
            .key_quota(0, 429)
            .idempotent()
            .fault_once(Fault::DropAfterSettle),
    )
    .await;
    let client = client_with(bearer("right")).build().unwrap();
    let call = || {
        client
            .get(seller.url("/report"))
            .purchase_id("order-1")
            .send()
    };
    assert_eq!(
        call().await.unwrap_err().payment_status(),
        PaymentStatus::MaybePaid
    );
    let response = call().await.unwrap();
    assert_eq!(
        (response.payment_status(), seller.settlements().len()),
        (PaymentStatus::Paid, 1)
    );
    assert_eq!(
        requests_with_key(&seller),
        1,
        "the second time the purchase comes before the key"
    );
}
