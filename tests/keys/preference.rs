//! The choice between the key and a payment.

use bursar::credential::{CallPlan, KeySource, KeySourceError, Preference};
use bursar::ledger::State;
use bursar::secrecy::SecretString;
use bursar::{Credential, ErrorKind, PaymentStatus, ResponseExt, usd};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall::{client, open, purchases};

use crate::{bearer, client_with, keyed_report, keys, recorded, requests_with_key, ways};

#[tokio::test]
async fn a_key_that_is_taken_costs_its_plan_and_no_payment() {
    let seller = open(keyed_report()).await;
    let plan = CallPlan::per_call(usd!("0.002"));
    let client = client()
        .agent("scout")
        .credentials(keys(bearer("right").plan(plan)))
        .build()
        .unwrap();
    let response = client
        .get(seller.url("/report"))
        .tag("research")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::NotPaid, "the report")
    );
    assert_eq!(
        (ways(&seller), seller.settlements().len()),
        (vec!["key"], 0)
    );
    let purchases = purchases(&client).await;
    let [call] = purchases.as_slice() else {
        panic!("{purchases:?}")
    };
    assert_eq!(
        (call.state, call.usd, call.credential.as_deref()),
        (State::ApiCall, Some(usd!("0.002")), Some("example"))
    );
    assert_eq!(
        (call.tag.as_deref(), call.agent.as_deref()),
        (Some("research"), Some("scout"))
    );
    assert!(!format!("{purchases:?}").contains("right"));
}

#[tokio::test]
async fn a_key_that_is_turned_away_is_paid_for_and_not_counted() {
    for status in [401, 402, 403, 429] {
        let seller = open(keyed_report().key_quota(1, status)).await;
        let client = client()
            .credentials(keys(
                bearer("right").plan(CallPlan::per_call(usd!("0.002"))),
            ))
            .build()
            .unwrap();
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::NotPaid
        );
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::Paid,
            "{status}"
        );
        assert_eq!(
            ways(&seller),
            ["key", "key", "neither", "payment"],
            "{status}"
        );
        let expected = [
            (State::ApiCall, usd!("0.002")),
            (State::Voided, usd!("0.002")),
            (State::Settled, usd!("0.01")),
        ];
        assert_eq!(recorded(&client).await, expected, "{status}");
    }
}

#[tokio::test]
async fn which_answers_are_worth_a_payment_is_the_callers_choice() {
    let seller = open(keyed_report().key_quota(0, 429)).await;
    let patient = client()
        .credentials(keys(bearer("right").pay_when([401, 402])))
        .build()
        .unwrap();
    let response = patient.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.payment_status(),
            ways(&seller)
        ),
        (429, PaymentStatus::NotPaid, vec!["key"])
    );
    let never = client()
        .credentials(keys(bearer("right").prefer(Preference::NeverPay)))
        .build()
        .unwrap();
    let response = never.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), seller.settlements().len()),
        (429, 0)
    );
    let paying = client().credentials(keys(bearer("right"))).build().unwrap();
    let response = paying
        .get(seller.url("/report"))
        .no_payment()
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), seller.settlements().len()),
        (429, 0)
    );
}

#[tokio::test]
async fn a_key_that_is_missing_is_paid_for_unless_that_is_forbidden() {
    struct Nothing;
    impl KeySource for Nothing {
        async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
            Ok(None)
        }
    }
    let seller = open(keyed_report()).await;
    let lacking = || Credential::bearer("example", Nothing);
    let paying = client().credentials(keys(lacking())).build().unwrap();
    assert_eq!(
        paying
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let sent = seller.requests().len();
    for credential in [
        lacking().pay_when_missing(false),
        lacking().prefer(Preference::NeverPay),
    ] {
        let client = client().credentials(keys(credential)).build().unwrap();
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Credential, PaymentStatus::NotPaid)
        );
    }
    assert_eq!(seller.requests().len(), sent, "nothing was sent");
}

#[tokio::test]
async fn paying_first_leaves_the_key_for_what_may_not_be_paid() {
    let seller = Paywall::builder()
        .route(keyed_report())
        .route(
            Route::get("/dear")
                .price(usd!("0.50"))
                .body("dear")
                .accepts_key("authorization", "Bearer right"),
        )
        .route(
            Route::get("/closed")
                .body("closed")
                .accepts_key("authorization", "Bearer right"),
        )
        .start()
        .await
        .unwrap();
    let client = client()
        .credentials(keys(bearer("right").prefer(Preference::PayFirst)))
        .build()
        .unwrap();
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let dear = client.get(seller.url("/dear")).send().await.unwrap();
    assert_eq!(
        (dear.payment_status(), dear.text().await.unwrap().as_str()),
        (PaymentStatus::NotPaid, "dear")
    );
    let closed = client.get(seller.url("/closed")).send().await.unwrap();
    assert_eq!(
        (
            closed.payment_status(),
            closed.text().await.unwrap().as_str()
        ),
        (PaymentStatus::NotPaid, "closed")
    );
    assert_eq!(
        ways(&seller),
        ["neither", "payment", "neither", "key", "neither", "key"]
    );
}

#[tokio::test]
async fn never_by_key_is_as_without_one() {
    let seller = open(keyed_report()).await;
    let client = client()
        .credentials(keys(bearer("right").prefer(Preference::NeverKey)))
        .build()
        .unwrap();
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(ways(&seller), ["neither", "payment"]);
}

#[tokio::test]
async fn the_cheaper_way_is_taken_by_the_plan_and_the_price() {
    let cheapest = |plan: CallPlan| {
        let credential = bearer("right").prefer(Preference::Cheapest).plan(plan);
        client().credentials(keys(credential)).build().unwrap()
    };
    let seller = open(keyed_report()).await;
    // Dearer by key.
    let client = cheapest(CallPlan::per_call(usd!("0.02")));
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(ways(&seller), ["neither", "payment"]);
    // Cheaper by key, and as dear: the key is had already.
    for price in [usd!("0.005"), usd!("0.01")] {
        let seller = open(keyed_report()).await;
        let client = cheapest(CallPlan::per_call(price));
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::NotPaid
        );
        assert_eq!(ways(&seller), ["neither", "key"]);
    }
    // Two calls are included, and asked for without asking the price; the third costs more than it.
    let seller = open(keyed_report()).await;
    let client = cheapest(
        CallPlan::per_call(usd!("0.02"))
            .monthly(usd!("9"))
            .included(2),
    );
    for expected in [
        PaymentStatus::NotPaid,
        PaymentStatus::NotPaid,
        PaymentStatus::Paid,
    ] {
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            expected
        );
    }
    assert_eq!(ways(&seller), ["key", "key", "neither", "payment"]);
}

/// Whoever may not pay has the key alone, whichever way is preferred.
#[tokio::test]
async fn a_request_that_may_not_pay_goes_by_key() {
    for preference in [
        Preference::KeyFirst,
        Preference::PayFirst,
        Preference::NeverPay,
        Preference::Cheapest,
    ] {
        let seller = open(keyed_report()).await;
        let plan = CallPlan::per_call(usd!("0.04"));
        let client = client_with(bearer("right").prefer(preference).plan(plan))
            .build()
            .unwrap();
        let response = client
            .get(seller.url("/report"))
            .no_payment()
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (200, PaymentStatus::NotPaid),
            "{preference:?}"
        );
        assert_eq!(
            (requests_with_key(&seller), seller.settlements().len()),
            (1, 0)
        );
    }
}
