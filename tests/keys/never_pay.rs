//! `NeverPay` is a rule of the host: nothing in a request switches it off.

use std::time::Duration;

use bursar::credential::Preference;
use bursar::policy::Rule;
use bursar::{Credential, Credentials, ErrorKind, PaymentStatus, PriceOutcome};
use bursar_tests::paywall::{client, open, payment_status, policy, purchases, report};

use crate::{bearer, key, keys, ways};

#[tokio::test]
async fn no_header_of_a_request_makes_a_host_payable_that_is_never_paid() {
    let seller = open(report()).await;
    let keys = keys(bearer("right").prefer(Preference::NeverPay));
    let client = client().credentials(keys).build().unwrap();
    for (name, value) in [
        ("authorization", "Bearer nonsense"),
        ("authorization", ""),
        ("Authorization", "Basic eA=="),
        ("AUTHORIZATION", "x"),
    ] {
        for id in [None, Some("order-1")] {
            let request = client.get(seller.url("/report")).header(name, value);
            let request = match id {
                Some(id) => request.purchase_id(id).accept_new_terms(),
                None => request.allow_duplicate(),
            };
            let error = request.send().await.unwrap_err();
            assert_eq!(error.payment_status(), PaymentStatus::NotPaid, "{error}");
            let denial = error.denial().unwrap();
            assert_eq!(denial.rule, Rule::Host);
            assert!(denial.message.contains("never pay"), "{denial}");
        }
    }
    let mut with_password = seller.url("/report");
    with_password.set_username("me").unwrap();
    let answer = client.get(with_password).send().await;
    assert_eq!(payment_status(answer), PaymentStatus::NotPaid);
    assert_eq!(seller.settlements().len(), 0);
    assert!(!ways(&seller).contains(&"payment"));
    assert!(purchases(&client).await.is_empty());
}

#[tokio::test]
async fn a_price_check_says_that_a_host_is_never_paid() {
    let seller = open(report()).await;
    let keys = keys(bearer("right").prefer(Preference::NeverPay));
    let client = client().credentials(keys).build().unwrap();
    let checked = client.get(seller.url("/report")).quote().await.unwrap();
    let PriceOutcome::Priced(check) = checked else {
        panic!("no price")
    };
    let denial = check.offers.first().unwrap().explanation.as_ref();
    assert_eq!(denial.unwrap().denial().unwrap().rule, Rule::Host);
}

#[tokio::test]
async fn neither_remembered_terms_nor_a_signed_payment_reach_a_host_that_is_never_paid() {
    let seller = open(report().idempotent()).await;
    let remembering = policy().host_limits("127.0.0.1", |host| {
        host.remember_terms(Duration::from_secs(600))
    });
    let paying = client().policy(remembering).build().unwrap();
    let url = seller.url("/report");
    let bought = paying.get(url.clone()).purchase_id("order-1").send().await;
    assert_eq!(payment_status(bought), PaymentStatus::Paid);
    let before = seller.requests().len();
    // The same wallet, ledger and remembered terms.
    let never = bursar::Client::builder()
        .payer(paying.payer().unwrap().clone())
        .allow_http_loopback(true)
        .credentials(keys(bearer("wrong").prefer(Preference::NeverPay)))
        .build()
        .unwrap();
    for id in ["order-1", "order-2"] {
        let by_key = never.get(url.clone()).purchase_id(id).send().await;
        assert_eq!(by_key.unwrap().status(), 402);
        let own = never
            .get(url.clone())
            .header("authorization", "x")
            .purchase_id(id);
        let error = own.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    let later = seller.requests().split_off(before);
    assert!(later.iter().all(|request| request.payment.is_none()));
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_client_with_the_payer_of_another_keeps_its_rule_never_to_pay() {
    let seller = open(report()).await;
    let keys = keys(bearer("right").prefer(Preference::NeverPay));
    let never = client().credentials(keys).build().unwrap();
    let other = Credentials::new().host("b.example", bearer("right"));
    for keys in [Credentials::new(), other] {
        let second = bursar::Client::builder()
            .payer(never.payer().unwrap().clone())
            .allow_http_loopback(true)
            .credentials(keys)
            .build()
            .unwrap();
        let error = second.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Host);
    }
    assert_eq!(seller.settlements().len(), 0);
}

#[tokio::test]
async fn a_request_that_brings_a_payment_header_is_not_sent() {
    let seller = open(report()).await;
    let client = client().build().unwrap();
    for name in [
        "PAYMENT-SIGNATURE",
        "payment-signature",
        "X-Payment",
        "PAYMENT_SIGNATURE",
        "X_payment",
        "x-PAYMENT",
    ] {
        let request = client.get(seller.url("/report")).header(name, "e30=");
        let error = request.send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Builder);
        assert!(error.to_string().contains(&name.to_lowercase()), "{error}");
        let request = client.get(seller.url("/report")).header(name, "");
        assert!(request.quote().await.is_err());
    }
    assert!(seller.requests().is_empty());
}

#[test]
fn the_place_of_a_key_that_a_request_fills_is_named() {
    let keys = || Credentials::new();
    let header = |name| Credential::header("example", name, key("right"));
    let query = Credential::query("example", "api_key", key("right"));
    let basic = Credential::basic("example", "me", key("right"));
    for (keys, url, name, place) in [
        (
            keys().host("a.example", bearer("right")),
            "https://a.example/",
            "AUTHORIZATION",
            Some("the header `authorization`"),
        ),
        (
            keys().host("a.example", bearer("right")),
            "https://me@A.example./",
            "accept",
            Some("the header `authorization`"),
        ),
        (
            keys().host("a.example", bearer("right")),
            "https://a.example/",
            "x-api-key",
            None,
        ),
        (
            keys().host("a.example", bearer("right")),
            "https://b.example/",
            "authorization",
            None,
        ),
        (
            keys().host("*.example", basic),
            "https://a.example/",
            "Authorization",
            Some("the header `authorization`"),
        ),
        (
            keys().host("a.example", header("x-api-key")),
            "https://a.example/",
            "X-Api-Key",
            Some("the header `x-api-key`"),
        ),
        (
            keys().host(
                "a.example",
                header("x-api-key").prefer(Preference::NeverKey),
            ),
            "https://a.example/",
            "X-API-KEY",
            Some("the header `x-api-key`"),
        ),
        (
            keys().host("a.example", query.clone()),
            "https://a.example/?api%5Fkey=",
            "accept",
            Some("the query parameter `api_key`"),
        ),
        (
            keys().host("a.example", query),
            "https://a.example/?key=1",
            "accept",
            None,
        ),
    ] {
        let mut request = reqwest::Request::new(reqwest::Method::GET, url.parse().unwrap());
        let name: reqwest::header::HeaderName = name.parse().unwrap();
        request.headers_mut().insert(name, "".parse().unwrap());
        assert_eq!(keys.taken_place(&request).as_deref(), place, "{url}");
    }
}
