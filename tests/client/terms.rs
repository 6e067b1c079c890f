//! The 402 answer: terms, prices and offers.

use bursar::money::AssetRegistry;
use bursar::policy::Rule;
use bursar::primitives::U256;
use bursar::{Client, ErrorKind, Network, PaymentStatus, PriceOutcome, ResponseExt, usd};
use bursar_testing::{Fault, Route};
use bursar_tests::paywall::{open, open_all, payments_sent, policy, purchases, report};

use crate::{builder, client};

#[tokio::test]
async fn a_402_that_is_not_x402_comes_back_untouched() {
    let page = "x".repeat(3 * 1024 * 1024);
    for (kind, body) in [
        (
            "application/problem+json",
            r#"{"type":"payment","detail":"buy credits"}"#,
        ),
        ("application/json", "not even JSON"),
        ("text/html", page.as_str()),
        ("application/json", r#"{"accepts":[]}"#),
    ] {
        let route = Route::get("/mpp")
            .status(402)
            .header("content-type", kind)
            .header("www-authenticate", "Payment id=1")
            .body(body.to_owned());
        let seller = open(route).await;
        let response = client().get(seller.url("/mpp")).send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (402, PaymentStatus::NotPaid)
        );
        assert_eq!(response.headers()["www-authenticate"], "Payment id=1");
        assert_eq!(response.url(), &seller.url("/mpp"));
        assert_eq!(response.text().await.unwrap(), body);
        assert_eq!(seller.requests().len(), 1);
    }
}

#[tokio::test]
async fn terms_that_cannot_be_read_are_an_error_and_cost_nothing() {
    for (header, body) in [
        ("!!", "{}"),
        ("e30=", "{}"),
        ("", r#"{"x402Version":1,"accepts":7}"#),
        ("", r#"{"x402Version":3,"accepts":[]}"#),
    ] {
        let mut route = Route::get("/bad")
            .status(402)
            .header("content-type", "application/json")
            .body(body);
        if !header.is_empty() {
            route = route.header("payment-required", header);
        }
        let seller = open(route).await;
        let error = client().get(seller.url("/bad")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Malformed, PaymentStatus::NotPaid),
            "{header} {body}"
        );
    }
}

#[tokio::test]
async fn no_payment_hands_the_402_back() {
    let seller = open(report()).await;
    let response = client()
        .get(seller.url("/report"))
        .no_payment()
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (402, PaymentStatus::NotPaid)
    );
    assert_eq!(seller.requests().len(), 1);
}

#[tokio::test]
async fn a_client_without_a_wallet_tells_the_price() {
    let seller = open(report()).await;
    let client = Client::builder().allow_http_loopback(true).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NoWallet, PaymentStatus::NotPaid)
    );
    assert_eq!(
        error.price_check().unwrap().preferred().unwrap().dollars(),
        Some(usd!("0.01"))
    );
}

#[tokio::test]
async fn quoting_signs_and_holds_nothing() {
    let seller = open_all([
        report(),
        Route::get("/dear").price(usd!("2")),
        Route::get("/free").body("free"),
    ])
    .await;
    let client = client();
    let price_check = client
        .get(seller.url("/report"))
        .quote()
        .await
        .unwrap()
        .priced()
        .unwrap();
    assert_eq!(price_check.best().unwrap().dollars(), Some(usd!("0.01")));
    let price_check = client
        .get(seller.url("/dear"))
        .quote()
        .await
        .unwrap()
        .priced()
        .unwrap();
    assert!(price_check.best().is_none());
    assert_eq!(
        price_check.offers[0]
            .explanation
            .as_ref()
            .unwrap()
            .denial()
            .unwrap()
            .rule,
        Rule::PerPayment
    );
    let PriceOutcome::Unpriced(free) = client.get(seller.url("/free")).quote().await.unwrap()
    else {
        panic!("it is free")
    };
    assert_eq!(free.text().await.unwrap(), "free");
    assert_eq!(payments_sent(&seller), 0);
    assert!(purchases(&client).await.is_empty());
}

/// Returns a report whose price doubles once, when the first payment has come.
fn doubling_report() -> Route {
    report().fault_once(Fault::DoublePrice)
}

#[tokio::test]
async fn accepted_new_terms_are_paid_with_the_same_nonce() {
    let seller = open(doubling_report()).await;
    let client = client();
    let response = client
        .get(seller.url("/report"))
        .accept_new_terms()
        .send()
        .await
        .unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let settled = seller.settlements();
    assert_eq!(
        (settled.len(), settled[0].authorization.value),
        (1, U256::from(20_000))
    );
    let purchases = purchases(&client).await;
    assert_eq!(
        (purchases.len(), purchases[0].value, purchases[0].nonce),
        (1, U256::from(20_000), settled[0].authorization.nonce)
    );
    assert_eq!(payments_sent(&seller), 2);
}

#[tokio::test]
async fn accepted_new_terms_must_pass_the_policy() {
    let seller = open(doubling_report()).await;
    let client = builder()
        .policy(policy().per_payment(usd!("0.015")))
        .build()
        .unwrap();
    let error = client
        .get(seller.url("/report"))
        .accept_new_terms()
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::MaybePaid, Rule::PerPayment)
    );
    assert_eq!(payments_sent(&seller), 1);
    assert_eq!(purchases(&client).await[0].value, U256::from(10_000));
}

#[tokio::test]
async fn the_cheapest_payable_offer_is_paid_and_what_is_signed_is_what_was_offered() {
    let usdc = AssetRegistry::stablecoins()
        .find_symbol(Network::from_chain_id(84_532), "USDC")
        .unwrap()
        .address();
    let offer = |scheme: &str, amount: &str, extra: &str| {
        format!(
            r#"{{"scheme":"{scheme}","network":"eip155:84532","amount":"{amount}","asset":"{usdc}","payTo":"0x209693Bc6afc0C5328bA36FaF03C514EF312287C","maxTimeoutSeconds":3600,"extra":{extra},"unknown":[1.50]}}"#
        )
    };
    let domain = r#"{"name":"USDC","version":"2"}"#;
    let offers = [
        offer("exact", "50000", domain),
        offer("upto", "1", domain),
        offer(
            "exact",
            "1",
            r#"{"name":"USDC","version":"2","assetTransferMethod":"permit2"}"#,
        ),
        offer("exact", "2", r#"{"name":"USD Coin","version":"2"}"#),
        offer("exact", "20000", domain),
    ];
    let seller = open(Route::get("/several").offers(offers.clone()).body("x")).await;
    let client = client();
    let response = client.get(seller.url("/several")).send().await.unwrap();
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.amount().to_string(), "0.02 USDC");
    let settled = &seller.settlements()[0];
    assert_eq!(settled.authorization.value, U256::from(20_000));
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(
        receipt.payment().valid_before <= now.saturating_add(300),
        "an hour was asked, the ceiling is 300 s"
    );
}

#[tokio::test]
async fn when_nothing_is_payable_every_reason_is_given() {
    let seller = open(Route::get("/x").offers([
        r#"{"scheme":"upto"}"#,
        r#"{"scheme":"exact","network":"solana:x","amount":"1","asset":"a","payTo":"b","maxTimeoutSeconds":60}"#,
    ]))
    .await;
    let error = client().get(seller.url("/x")).send().await.unwrap_err();
    assert_eq!(
        (
            error.kind(),
            error.payment_status(),
            error.unpayable().len()
        ),
        (ErrorKind::NotPayable, PaymentStatus::NotPaid, 2)
    );
}
