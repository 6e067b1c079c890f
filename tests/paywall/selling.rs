//! Terms, receipts and content of an honest seller.

use alloy::primitives::{Address, B256, U256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::{Asset, ErrorKind, Network, PaymentStatus, ResponseExt, Timestamp, usd};
use bursar_testing::{Authorization, Paywall, Route};
use bursar_tests::paywall::{open, report};
use bursar_tests::tokens::usdc;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{NOW, PAYEE, Payment, client, decode, get, http, open_at_now, pay, pay_report, terms};

#[tokio::test]
async fn version_2_has_its_terms_and_receipt_in_headers() {
    let paywall = open(report()).await;
    let challenge = get(&paywall, "/report?day=1").await;
    assert_eq!(challenge.status(), StatusCode::PAYMENT_REQUIRED);
    assert_eq!(challenge.headers()["cache-control"], "no-store");
    let terms = decode(&challenge, "payment-required");
    assert_eq!(
        terms["resource"]["url"],
        paywall.url("/report?day=1").as_str()
    );
    assert_eq!(
        terms["accepts"],
        json!([{
            "scheme": "exact", "network": "eip155:84532", "amount": "10000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "payTo": PAYEE.to_checksum(None),
            "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
        }])
    );
    assert_eq!(challenge.text().await.unwrap(), "{}");

    let client = client();
    let response = client.get(paywall.url("/report")).send().await.unwrap();
    let (paid, settled) = (
        response.payment().unwrap().clone(),
        paywall.settlements().remove(0),
    );
    assert_eq!(
        response.receipt().unwrap().transaction(),
        settled.transaction
    );
    assert_eq!(response.headers()["cache-control"], "private");
    assert_eq!(
        decode(&response, "payment-response")["network"],
        "eip155:84532"
    );
    let Authorization {
        from,
        to,
        value,
        valid_before,
        nonce,
        ..
    } = settled.authorization;
    assert_eq!(
        (from, to, value, valid_before, nonce),
        (
            paid.payer,
            PAYEE,
            U256::from(10_000),
            paid.valid_before,
            paid.nonce
        )
    );
    assert!(paywall.is_nonce_used(&usdc("base-sepolia"), paid.payer, paid.nonce));
    assert_eq!(paywall.paid_by(paid.payer), U256::from(10_000));
    assert_eq!(response.text().await.unwrap(), "the report");
}

#[tokio::test]
async fn version_1_has_its_terms_in_the_body() {
    let paywall = open(report().v1()).await;
    let challenge = get(&paywall, "/report").await;
    assert_eq!(challenge.status(), StatusCode::PAYMENT_REQUIRED);
    assert!(!challenge.headers().contains_key("payment-required"));
    let terms: Value = challenge.json().await.unwrap();
    assert_eq!(terms["x402Version"], 1);
    assert_eq!(terms["accepts"][0]["maxAmountRequired"], "10000");
    assert_eq!(terms["accepts"][0]["network"], "base-sepolia");

    let response = client().get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    assert_eq!(
        decode(&response, "x-payment-response")["network"],
        "base-sepolia"
    );
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn both_versions_can_be_spoken_at_once() {
    let paywall = open_at_now(report().v1_and_v2()).await;
    let challenge = get(&paywall, "/report").await;
    assert_eq!(decode(&challenge, "payment-required")["x402Version"], 2);
    assert_eq!(challenge.json::<Value>().await.unwrap()["x402Version"], 1);

    let old = pay(&paywall, "/report", &Payment::new().v1()).await;
    assert_eq!(decode(&old, "x-payment-response")["success"], true);
    let second = Payment::with(|payment| payment.nonce = B256::repeat_byte(2));
    let new = pay(
        &paywall,
        "/report",
        &second.v2(&terms(&paywall, "/report").await),
    )
    .await;
    assert_eq!(decode(&new, "payment-response")["success"], true);
    assert_eq!(paywall.settlements().len(), 2);
}

#[tokio::test]
async fn a_version_that_is_not_spoken_is_not_heard() {
    let paywall = open_at_now(report()).await;
    let response = pay(&paywall, "/report", &Payment::new().v1()).await;
    assert_eq!(
        decode(&response, "payment-required")["error"],
        "Payment required"
    );
}

#[tokio::test]
async fn a_post_is_echoed() {
    let paywall = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let body = json!({ "question": "what?" });
    let response = client()
        .post(paywall.url("/echo"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(response.json::<Value>().await.unwrap(), body);

    let received = paywall.requests();
    assert_eq!(received.len(), 2);
    assert!(
        received
            .iter()
            .all(|request| request.method == "POST" && request.body == body.to_string())
    );
    assert!(received[0].payment.is_none());
    let payment = received[1].payment.as_ref().unwrap();
    assert_eq!(
        payment.authorization,
        Some(paywall.settlements()[0].authorization)
    );
}

#[tokio::test]
async fn events_come_in_chunks() {
    let paywall = open(
        Route::get("/stream")
            .price(usd!("0.01"))
            .events(["one", "two"]),
    )
    .await;
    let mut response = client().get(paywall.url("/stream")).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.content_length(), None);
    let mut read = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, b"data: one\n\ndata: two\n\n");
}

#[tokio::test]
async fn some_things_are_free_and_some_are_not_there() {
    let paywall = Paywall::builder()
        .route(Route::get("/free").body("free").header("x-kind", "free"))
        .route(Route::get("/old").redirect("/free"))
        .route(Route::any("/all/*").status(204))
        .start()
        .await
        .unwrap();
    let response = client().get(paywall.url("/old")).send().await.unwrap();
    assert_eq!(
        (response.payment_status(), response.url().path()),
        (PaymentStatus::NotPaid, "/free")
    );
    assert_eq!(response.headers()["x-kind"], "free");
    assert_eq!(
        get(&paywall, "/all/of/it").await.status(),
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        get(&paywall, "/nothing").await.status(),
        StatusCode::NOT_FOUND
    );
    let posted = client().post(paywall.url("/free")).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn offers_go_out_byte_for_byte() {
    let offers = [
        r#"{"scheme":"exact","amount":"1","amount":"2"}"#,
        r#"{"scheme": "upto"}"#,
        "7",
    ];
    let paywall = open(
        Route::get("/odd")
            .offers(offers)
            .challenge_header("x-server", "odd"),
    )
    .await;
    let response = get(&paywall, "/odd").await;
    assert_eq!(response.headers()["x-server"], "odd");
    let json = STANDARD
        .decode(&response.headers()["payment-required"])
        .unwrap();
    assert!(
        String::from_utf8(json)
            .unwrap()
            .contains(&format!(r#""accepts":[{}]"#, offers.join(",")))
    );
    let error = client().get(paywall.url("/odd")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NotPayable, PaymentStatus::NotPaid)
    );
}

#[tokio::test]
async fn failed_work_is_not_charged_unless_it_was_paid_upfront() {
    let (paywall, response) = pay_report(report().status(500)).await;
    assert_eq!(
        response.unwrap().status(),
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert!(paywall.settlements().is_empty());

    let (paywall, response) = pay_report(report().status(500).upfront()).await;
    let response = response.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(decode(&response, "payment-response")["success"], true);
    assert_eq!(paywall.settlements().len(), 1);
    let terms = terms(&paywall, "/report").await;
    assert_eq!(terms["accepts"][0]["extra"]["paymentFlow"], "upfront");
}

#[tokio::test]
async fn a_balance_runs_out() {
    let payment = Payment::new();
    let paywall = Paywall::builder()
        .route(report())
        .balance(payment.from, 15_000)
        .balance(PAYEE, 0)
        .clock(|| Timestamp::from_secs(NOW))
        .start()
        .await
        .unwrap();
    let terms = terms(&paywall, "/report").await;
    assert_eq!(
        pay(&paywall, "/report", &payment.v2(&terms)).await.status(),
        StatusCode::OK
    );
    assert_eq!(paywall.balance_of(payment.from), Some(U256::from(5_000)));
    assert_eq!(paywall.balance_of(PAYEE), Some(U256::from(10_000)));
    assert_eq!(paywall.balance_of(Address::ZERO), None);
    let second = Payment {
        nonce: B256::repeat_byte(2),
        ..payment
    };
    let refused = pay(&paywall, "/report", &second.v2(&terms)).await;
    assert_eq!(
        decode(&refused, "payment-required")["error"],
        "invalid_exact_evm_insufficient_balance"
    );
}

#[tokio::test]
async fn mistakes_are_told_at_the_start() {
    let coarse = Asset::new(
        Network::from_chain_id(84_532),
        PAYEE,
        "COARSE",
        2,
        "Coarse",
        "1",
    );
    for route in [
        report().header("not a name", "x"),
        report().status(7),
        report().offers(["{"]),
        report().asset(coarse).price(usd!("0.001")),
    ] {
        let error = Paywall::builder().route(route).start().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("/report"), "{error}");
    }
}

#[tokio::test]
async fn it_stops_when_dropped() {
    let paywall = open(Route::get("/free")).await;
    let url = paywall.url("/free");
    let kept_alive = reqwest::Client::new();
    kept_alive.get(url.clone()).send().await.unwrap();
    drop(paywall);
    // The tasks end when the runtime next looks at them; this test shares its only thread with them.
    tokio::task::yield_now().await;
    assert!(kept_alive.get(url.clone()).send().await.is_err());
    assert!(http().get(url).send().await.is_err());
}

#[tokio::test]
async fn debug_shows_no_signature() {
    let (paywall, response) = pay_report(report()).await;
    response.unwrap();
    let payment = paywall.requests().remove(1).payment.unwrap();
    let signature = payment.json.as_ref().unwrap()["payload"]["signature"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = format!("{paywall:?} {:?}", paywall.requests());
    assert!(shown.contains("Authorization"), "{shown}");
    assert!(
        !shown.contains(&signature) && !shown.contains(&payment.header),
        "{shown}"
    );
}
