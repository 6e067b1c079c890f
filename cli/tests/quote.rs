//! `bursar quote`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use bursar_testing::{OfferSigner, Route, SigningFault};
use serde_json::json;
use support::{CliHarness, PAYEE, USDC, report};

#[tokio::test]
async fn a_quote_shows_every_offer() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
    let plain = harness.run(&["quote", "--allow-http-loopback", &url]).await;
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(
        plain.text().contains(&format!(
            "offer 1: 0.01 USDC to {PAYEE} on base-sepolia; not judged"
        )),
        "{}",
        plain.text()
    );

    let judged = harness
        .run(&[
            "quote",
            "--allow-http-loopback",
            "--network",
            "base-sepolia",
            &url,
            "--json",
        ])
        .await;
    let expected = json!({ "status": 402, "best": 0, "offers": [{
        "verdict": "allowed", "amount": "10000", "price": "0.01 USDC", "usd": "0.01", "asset": USDC,
        "network": "eip155:84532", "payTo": PAYEE, "reason": null, "denial": null,
    }] });
    assert_eq!((judged.code, judged.json()), (0, expected));

    let denied = harness
        .run(&["quote", "--allow-http-loopback", "--network", "base", &url])
        .await;
    assert_eq!(denied.code, 0);
    assert!(
        denied
            .text()
            .contains("=> denied: network eip155:84532 (base-sepolia) is not allowed"),
        "{}",
        denied.text()
    );
    assert_eq!(
        (harness.payments(), harness.path("state").exists()),
        (0, false)
    );
}

#[tokio::test]
async fn a_quote_explains_why_an_offer_cannot_be_paid() {
    let harness = CliHarness::new(
        Route::get("/report").offers([r#"{"scheme":"upto","network":"eip155:84532"}"#]),
    )
    .await;
    let quote = harness
        .run(&["quote", "--allow-http-loopback", &harness.url()])
        .await;
    assert!(
        quote.code == 0 && quote.text().contains("offer 1: not payable: "),
        "{quote:?}"
    );
    let ended = harness.buy(&["--dry-run", "--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("not_payable")),
        "{ended:?}"
    );
    let ended = harness.buy(&["--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("not_payable"))
    );
}

#[tokio::test]
async fn a_quote_of_a_free_request_has_no_offers() {
    let harness = CliHarness::new(Route::get("/report").body("free")).await;
    let quote = harness
        .run(&["quote", "--allow-http-loopback", &harness.url()])
        .await;
    assert_eq!(
        (quote.code, quote.text()),
        (0, "the server asks for no payment; the answer is 200\n")
    );
    let missing = harness
        .run(&[
            "quote",
            "--allow-http-loopback",
            harness.paywall.url("/missing").as_str(),
            "--json",
        ])
        .await;
    assert_eq!(
        (missing.code, missing.json()),
        (1, json!({ "status": 404, "best": null, "offers": [] }))
    );
}

#[tokio::test]
async fn a_signed_offer_is_shown_paid_and_kept_as_evidence() {
    let signer = OfferSigner::eip712([7; 32]);
    let report = |signer| {
        let route = Route::get("/report").price(usd!("0.01")).body("the report");
        route.sign_offers(signer)
    };
    let harness = CliHarness::new(report(signer.clone())).await;
    let url = harness.url();
    let quote = ["quote", "--allow-http-loopback", &url];
    let shown = harness.run(&quote).await;
    let by = format!("signed by {}", signer.address());
    assert!(shown.text().contains(&by), "{}", shown.text());
    let listed = harness
        .run(&[&quote[..], &["--json"]].concat())
        .await
        .json();
    assert_eq!(listed["offers"][0]["signature"], "verified");
    let bought = harness.buy(&["--json"]).await.json();
    assert_eq!(bought["receipt"]["signature"], "verified");

    let wrong = signer.fault(SigningFault::OtherKey);
    let harness = CliHarness::new(report(wrong)).await;
    let url = harness.url();
    let quote = ["quote", "--allow-http-loopback", &url, "--json"];
    let listed = harness.run(&quote).await.json();
    assert_eq!(listed["offers"][0]["signature"], "wrong");
    let reason = listed["offers"][0]["signatureReason"].as_str().unwrap();
    assert!(reason.contains("not by the payee"), "{reason}");
    let bought = harness.buy(&[]).await;
    assert_eq!(bought.code, 0);
    assert!(bought.text().contains("the report"), "{}", bought.text());
    assert!(
        bought.stderr.contains("with a wrong signature"),
        "{bought:?}"
    );
}
