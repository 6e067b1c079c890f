//! `upto` and Permit2 at the command line.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use serde_json::json;
use support::{CliHarness, Ended, policy, report};

async fn pay(harness: &CliHarness, policy: &str) -> Ended {
    let (ledger, url) = (harness.path("ledger.db"), harness.url());
    let ledger = ledger.to_str().unwrap();
    let args = ["pay", "--allow-http-loopback", "--ledger", ledger];
    let more = ["--policy", policy, &url, "--json"];
    harness.run(&[&args[..], &more].concat()).await
}

const ALLOWED: &str =
    "[global]\nschemes = [\"exact\", \"upto\"]\ntransfer_methods = [\"eip3009\", \"permit2\"]\n";

#[tokio::test]
async fn an_upto_price_is_shown_as_a_ceiling_and_its_charge_beside_it() {
    let harness = CliHarness::new(report().upto().charge(usd!("0.004"))).await;
    let url = harness.url();
    let denied = harness
        .run(&[
            "quote",
            "--allow-http-loopback",
            "--network",
            "base-sepolia",
            &url,
        ])
        .await;
    assert!(
        denied.text().contains("offer 1: up to 0.01 USDC to "),
        "{denied:?}"
    );
    assert!(
        denied
            .text()
            .contains("=> denied: the policy does not allow scheme `upto`"),
        "{denied:?}"
    );
    let policy = policy(&harness, ALLOWED);
    let quote = harness
        .run(&[
            "quote",
            "--allow-http-loopback",
            "--policy",
            &policy,
            &url,
            "--json",
        ])
        .await;
    let offer = &quote.json()["offers"][0];
    assert_eq!(
        (&offer["method"], &offer["price"], &offer["verdict"]),
        (&json!("upto"), &json!("up to 0.01 USDC"), &json!("allowed"))
    );
    let paid = pay(&harness, &policy).await;
    let outcome = paid.json();
    assert_eq!(paid.code, 0, "{paid:?}");
    assert_eq!(outcome["authorization"]["method"], "upto");
    assert_eq!(outcome["authorization"]["amount"], "10000");
    assert_eq!(outcome["receipt"]["charged"], "4000");
    let ledger = harness.path("ledger.db");
    let ledger = ["ledger", "--ledger", ledger.to_str().unwrap()];
    let listed = harness.run(&ledger).await;
    assert!(
        listed
            .text()
            .contains("up to 0.01 USDC, said to charge 0.004 USDC"),
        "{listed:?}"
    );
    let exported = harness
        .run(&[&ledger[..], &["--format", "jsonl"]].concat())
        .await;
    let purchase = exported.lines().remove(0);
    assert_eq!(
        (
            &purchase["payment_method"],
            &purchase["value"],
            &purchase["claimed_charge"],
            &purchase["verified_charge"]
        ),
        (
            &json!("upto"),
            &json!("10000"),
            &json!("4000"),
            &json!(null)
        )
    );
}

#[tokio::test]
async fn a_denied_method_tells_the_command_which_keys_to_write() {
    let harness = CliHarness::new(report().permit2()).await;
    let policy = policy(&harness, "");
    let ended = pay(&harness, &policy).await;
    let error = &ended.json()["error"];
    assert_eq!(error["denial"]["rule"], "scheme");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("`transfer_methods = [\"eip3009\", \"permit2\"]`"),
        "{message}"
    );
    assert_eq!(harness.payments(), 0);
}
