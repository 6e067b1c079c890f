//! Terms and receipts as sellers really write them, at the command: exit codes, JSON and words.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar_testing::{Encoding, FalseTerms, Fault, Route};
use serde_json::json;
use support::{CliHarness, Ended, report};

const OFFER: &str = r#"{"scheme":"exact","network":"eip155:84532","amount":"10000","asset":"0x036CbD53842c5426634e7929541eC2318f3dCF7e","payTo":"0x2222222222222222222222222222222222222222","maxTimeoutSeconds":60,"extra":{"name":"USDC","version":"2"}}"#;

async fn quote(harness: &CliHarness, args: &[&str]) -> Ended {
    let url = harness.url();
    let usual = [
        "quote",
        "--allow-http-loopback",
        "--network",
        "base-sepolia",
        &url,
    ];
    harness.run(&[&usual[..], args].concat()).await
}

/// Checks that `pay` and `quote` tell the reason, and that nothing was signed.
async fn refused(route: Route, kind: &str, words: &[&str]) {
    let harness = CliHarness::new(route).await;
    let ended = harness.buy(&["--json"]).await;
    let outcome = ended.json();
    assert_eq!(
        (ended.code, &outcome["payment"], &outcome["error"]["kind"]),
        (1, &json!("not_paid"), &json!(kind)),
        "{ended:?}"
    );
    let message = outcome["error"]["message"].as_str().unwrap();
    let line = harness.buy(&[]).await.stderr;
    let quote = quote(&harness, &[]).await;
    let quote = format!("{}{}", quote.text(), quote.stderr);
    for word in words {
        for text in [message, line.as_str(), quote.as_str()] {
            assert!(text.contains(word), "{word}: {text}");
        }
    }
    assert_eq!(harness.payments(), 0);
}

#[tokio::test]
async fn terms_and_receipts_in_every_encoding_are_paid() {
    for encoding in [
        Encoding::Unpadded,
        Encoding::UrlSafe,
        Encoding::UrlSafeUnpadded,
        Encoding::PercentEncoded,
        Encoding::Quoted,
        Encoding::Json,
        Encoding::Body,
        Encoding::BodyMember("detail".to_owned()),
    ] {
        let harness = CliHarness::new(report().encoding(encoding.clone())).await;
        let ended = harness.buy(&["--json"]).await;
        let outcome = ended.json();
        assert_eq!(
            (ended.code, &outcome["payment"], &outcome["body"]),
            (0, &json!("paid"), &json!("the report")),
            "{encoding:?}: {ended:?}"
        );
        assert!(outcome["receipt"]["transaction"].is_string());
        assert_eq!((harness.payments(), harness.settled()), (1, 1));
    }
}

#[tokio::test]
async fn version_2_terms_in_a_body_are_paid_in_both_shapes() {
    let terms = FalseTerms::ProtocolVersion("2".to_owned());
    let harness = CliHarness::new(report().v1().fault(Fault::Terms(terms))).await;
    let ended = harness.buy(&["--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["payment"]),
        (0, &json!("paid")),
        "{ended:?}"
    );
    let paid = harness.paywall.requests().pop().unwrap();
    assert!(paid.header("x-payment").is_some() && paid.header("payment-signature").is_some());
    assert_eq!((harness.payments(), harness.settled()), (1, 1));
}

#[tokio::test]
async fn a_long_description_is_named_by_a_quote_and_paid() {
    let harness = CliHarness::new(report().description("x".repeat(501))).await;
    let words = "the description has 501 characters";
    let plain = quote(&harness, &[]).await;
    assert!(
        plain.text().contains(&format!("warning: {words}")),
        "{plain:?}"
    );
    let listed = quote(&harness, &["--json"]).await.json();
    assert!(listed["warnings"][0].as_str().unwrap().starts_with(words));
    let ended = harness.buy(&["--json"]).await;
    assert_eq!(
        (ended.code, harness.payments(), harness.settled()),
        (0, 1, 1)
    );
}

#[tokio::test]
async fn unreadable_terms_are_named_with_the_body() {
    let unreadable = |header: &str| {
        Route::get("/report")
            .status(402)
            .header("payment-required", header)
            .body("write to sales@shop.example")
    };
    let body = "write to sales@shop.example";
    refused(
        unreadable("!!"),
        "malformed",
        &["not paid", "neither base64 nor JSON", body],
    )
    .await;
    let single = unreadable(OFFER);
    let words = "no x402Version; it looks like a single offer";
    refused(single, "malformed", &[words, body]).await;
    let two = unreadable(r#"{"x402Version":2,"accepts":[]}"#)
        .header("payment-required", r#"{"x402Version":2,"accepts":[1]}"#);
    refused(
        two,
        "malformed",
        &["two PAYMENT-REQUIRED headers differ", body],
    )
    .await;
}

#[tokio::test]
async fn every_offer_that_cannot_be_paid_has_its_reason() {
    let gateway = OFFER.replace(
        "\"USDC\",\"version\":\"2\"",
        "\"GatewayWalletBatched\",\"version\":\"1\"",
    );
    let twice = OFFER.replacen('{', r#"{"maxAmountRequired":"1","#, 1);
    let dollars = r#"{"network":"eip155:84532","asset":"USDC","amount":"$0.01"}"#.to_owned();
    let upto = OFFER.replace("exact", "upto");
    let padded = OFFER.replace(
        "\"extra\":{",
        &format!("\"extra\":{{\"pad\":\"{}\",", "a".repeat(12_000)),
    );
    let words = [
        "Circle Gateway's batched scheme",
        "`maxAmountRequired` and `amount` have different values",
        "no `scheme`",
        "amount `$0.01` is not",
        "`upto` is not supported",
        "many servers take 16 KiB of headers",
        "a JSON object",
    ];
    let offers = [gateway, twice, dollars, upto, padded, "null".to_owned()];
    refused(
        Route::get("/report").offers(offers.clone()),
        "not_payable",
        &words,
    )
    .await;

    let payable = offers.into_iter().chain([OFFER.to_owned()]);
    let harness = CliHarness::new(Route::get("/report").offers(payable).body("x")).await;
    let listed = quote(&harness, &["--json"]).await.json();
    assert_eq!(
        (&listed["best"], listed["offers"].as_array().unwrap().len()),
        (&json!(6), 7)
    );
    let ended = harness.buy(&["--json"]).await;
    assert_eq!((ended.code, harness.settled()), (0, 1), "{ended:?}");
}

#[tokio::test]
async fn a_page_for_people_is_printed_and_the_command_fails() {
    let page = "<!doctype html><p>Pay here</p>";
    let route = Route::get("/report")
        .status(402)
        .header("content-type", "text/html")
        .body(page);
    let harness = CliHarness::new(route).await;
    let ended = harness.buy(&["--json"]).await;
    let outcome = ended.json();
    assert_eq!(
        (
            ended.code,
            &outcome["status"],
            &outcome["body"],
            &outcome["error"]["kind"]
        ),
        (1, &json!(402), &json!(page), &json!("status"))
    );
    let quote = quote(&harness, &[]).await;
    assert!(
        quote.text().contains("asks for a payment, but not by x402"),
        "{quote:?}"
    );
    assert_eq!((quote.code, harness.payments()), (1, 0));
}
