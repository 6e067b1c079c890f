//! The payments that a seller refuses.

use alloy::primitives::{Address, U256};
use bursar::{Client, Ledger, LocalSigner, PaymentStatus, Policy, ResponseExt, Timestamp, usd};
use bursar_testing::Route;
use bursar_tests::paywall::{open, report};
use bursar_tests::tokens::usdc;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{NOW, PAYEE, Payment, decode, get, http, open_at_now, pay, terms};

type Change = Box<dyn FnOnce(&mut Value)>;

/// What an honest payment becomes by `change`, and why it is refused.
async fn refusal(route: Route, change: impl FnOnce(&mut Value), payment: Payment) -> String {
    let v1 = get(&open_at_now(route.clone()).await, "/report")
        .await
        .headers()
        .get("payment-required")
        .is_none();
    let paywall = open_at_now(route).await;
    let mut payment = if v1 {
        payment.v1()
    } else {
        payment.v2(&terms(&paywall, "/report").await)
    };
    change(&mut payment);
    let response = pay(&paywall, "/report", &payment).await;
    assert_eq!(response.status(), StatusCode::PAYMENT_REQUIRED);
    assert!(paywall.settlements().is_empty());
    let terms = if v1 {
        response.json().await.unwrap()
    } else {
        decode(&response, "payment-required")
    };
    assert!(
        terms["accepts"][0].is_object(),
        "a refusal states the terms again"
    );
    terms["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_the_cheque_says_is_checked() {
    let value = "invalid_exact_evm_payload_authorization_value_mismatch";
    let before = "invalid_exact_evm_payload_authorization_valid_before";
    let after = "invalid_exact_evm_payload_authorization_valid_after";
    for (payment, reason) in [
        (
            Payment::with(|payment| payment.to = Address::ZERO),
            "invalid_exact_evm_recipient_mismatch",
        ),
        (
            Payment::with(|payment| payment.value = U256::from(9_999)),
            value,
        ),
        (
            Payment::with(|payment| payment.value = U256::from(10_001)),
            value,
        ),
        (
            Payment::with(|payment| payment.valid_before = NOW + 5),
            before,
        ),
        (
            Payment::with(|payment| payment.valid_after = NOW + 1),
            after,
        ),
        (
            Payment::with(|payment| payment.from = PAYEE),
            "invalid_exact_evm_signature",
        ),
    ] {
        assert_eq!(refusal(report(), |_| {}, payment.clone()).await, reason);
        let v1 = if reason == value {
            "invalid_exact_evm_authorization_value"
        } else {
            reason
        };
        assert_eq!(refusal(report().v1(), |_| {}, payment).await, v1);
    }
    for payment in [
        Payment::with(|payment| payment.valid_before = NOW + 6),
        Payment::with(|payment| payment.valid_after = NOW),
    ] {
        let paywall = open_at_now(report()).await;
        let payment = payment.v2(&terms(&paywall, "/report").await);
        assert_eq!(
            pay(&paywall, "/report", &payment).await.status(),
            StatusCode::OK
        );
    }
}

#[tokio::test]
async fn what_is_around_the_cheque_is_checked() {
    let unmatched = "No matching payment requirements";
    let signature = "/payload/signature";
    let set = |pointer: &'static str, value: Value| {
        move |payment: &mut Value| *payment.pointer_mut(pointer).unwrap() = value
    };
    let cases: [(Change, &str); 8] = [
        (
            Box::new(set("/x402Version", json!(3))),
            "invalid_x402_version",
        ),
        (Box::new(set("/accepted/amount", json!("1"))), unmatched),
        (
            Box::new(set("/accepted/maxTimeoutSeconds", json!(61))),
            unmatched,
        ),
        (
            Box::new(set("/accepted/extra/name", json!("Evil"))),
            unmatched,
        ),
        (
            Box::new(|payment| payment["accepted"]["more"] = json!(1)),
            unmatched,
        ),
        (
            Box::new(set("/payload/authorization/nonce", json!("0x01"))),
            "invalid_payload",
        ),
        (
            Box::new(set("/payload/authorization/value", json!(10_000))),
            "invalid_payload",
        ),
        (
            Box::new(set(signature, json!("0x00"))),
            "invalid_exact_evm_failed_to_parse_signature",
        ),
    ];
    for (change, reason) in cases {
        assert_eq!(refusal(report(), change, Payment::new()).await, reason);
    }
    let network = set("/network", json!("base"));
    assert_eq!(
        refusal(report().v1(), network, Payment::new()).await,
        unmatched
    );
    let paywall = open_at_now(report()).await;
    let mut added = Payment::new().v2(&terms(&paywall, "/report").await);
    added["accepted"]["extra"]["more"] = json!(1);
    assert_eq!(
        pay(&paywall, "/report", &added).await.status(),
        StatusCode::OK,
        "extra may be added to"
    );
}

#[tokio::test]
async fn a_header_that_cannot_be_read_is_refused() {
    let paywall = open(report()).await;
    for header in ["%%%", "bm8=", ""] {
        let request = http()
            .get(paywall.url("/report"))
            .header("payment-signature", header);
        let response = request.send().await.unwrap();
        assert_eq!(
            decode(&response, "payment-required")["error"],
            "invalid_payload"
        );
    }
}

#[tokio::test]
async fn a_wrong_domain_is_the_sellers_mistake() {
    let offer = |extra: &str| {
        Route::get("/report").offers([format!(
            r#"{{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"{}","payTo":"{PAYEE}",
                "maxTimeoutSeconds":60{extra}}}"#,
            usdc("base-sepolia").address()
        )])
    };
    let missing = refusal(offer(""), |_| {}, Payment::new()).await;
    assert_eq!(missing, "invalid_exact_evm_missing_eip712_domain");
    let other = offer(r#","extra":{"name":"USD Coin","version":"2"}"#);
    assert_eq!(
        refusal(other, |_| {}, Payment::new()).await,
        "invalid_exact_evm_signature"
    );
}

#[tokio::test]
async fn extensions_are_echoed_or_left_out() {
    let route = report().extension("note", json!({ "info": { "text": "keep" } }));
    let paywall = open_at_now(route.clone()).await;
    assert_eq!(
        client_at_now()
            .get(paywall.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let changed = |payment: &mut Value| {
        payment["extensions"] = json!({ "note": { "info": { "text": "lose" } } })
    };
    assert_eq!(
        refusal(route, changed, Payment::new()).await,
        "extension_echo_mismatch"
    );
}

fn client_at_now() -> Client {
    Client::builder()
        .signer(LocalSigner::random().unwrap())
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("0.05")),
        )
        .ledger(Ledger::memory())
        .clock(|| Timestamp::from_secs(NOW))
        .allow_http_loopback(true)
        .build()
        .unwrap()
}

/// Every payment of the official clients, for every token they know.
#[tokio::test]
async fn official_payments_are_accepted() {
    let v2: Vec<Value> =
        serde_json::from_str(include_str!("../vectors/exact_v2_default_assets.json")).unwrap();
    let v1: Vec<Value> = serde_json::from_str(include_str!("../vectors/exact_v1.json")).unwrap();
    let mut accepted = 0;
    for vector in v2
        .iter()
        .filter(|vector| vector["method"] == "eip3009")
        .chain(&v1)
    {
        let required = vector
            .get("paymentRequired")
            .unwrap_or(&vector["paymentRequiredBody"]);
        let offers = required["accepts"]
            .as_array()
            .unwrap()
            .iter()
            .map(Value::to_string);
        let route = Route::get("/report").offers(offers);
        let route = if required["x402Version"] == 1 {
            route.v1()
        } else {
            route
        };
        let paywall = open_at_now(route).await;
        let header = vector["headerName"].as_str().unwrap();
        let value = vector["headerValue"].as_str().unwrap();
        let request = http().get(paywall.url("/report")).header(header, value);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{}", required["accepts"]);
        assert_eq!(
            paywall.settlements()[0].authorization.valid_before,
            NOW + 60
        );
        accepted += 1;
    }
    assert!(accepted > 30, "{accepted}");
}
