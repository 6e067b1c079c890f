//! Payments that are settled, refused or left open, as the command reports them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar_testing::Fault;
use serde_json::json;
use support::{CliHarness, PAYER, report};

#[tokio::test]
async fn a_payment_whose_goods_did_not_come_is_presented_by_the_next_run() {
    let route = report().idempotent().fault(Fault::StatusWithReceipt(503));
    let harness = CliHarness::new(route).await;
    let ended = harness.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["status"], &line["payment"]),
        (5, &json!(503), &json!("paid")),
        "{ended:?}"
    );
    let message = line["error"]["message"].as_str().unwrap();
    for part in ["the upstream failed", "allow_duplicate"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let nonce = line["authorization"]["nonce"].clone();

    harness.paywall.clear_faults();
    let ended = harness.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["status"], &line["payment"]),
        (0, &json!(200), &json!("paid"))
    );
    assert_eq!(line["authorization"]["nonce"], nonce);
    assert_eq!((harness.distinct_payments(), harness.settled()), (1, 1));
}

#[tokio::test]
async fn a_body_that_broke_is_bought_once_by_two_runs() {
    let route = report().idempotent().fault(Fault::BrokenBodyAfterSettle);
    let harness = CliHarness::new(route).await;
    let ended = harness.buy(&[]).await;
    assert_eq!(ended.code, 5, "{ended:?}");
    harness.paywall.clear_faults();
    let ended = harness.buy(&[]).await;
    assert_eq!((ended.code, ended.text()), (0, "the report"));
    assert_eq!((harness.distinct_payments(), harness.settled()), (1, 1));
}

#[tokio::test]
async fn an_uncertain_settlement_is_not_called_a_failure() {
    for reason in [
        "settlement_pending",
        "settle_exact_evm_transaction_confirmation_timed_out",
        "settle_exact_node_failure",
    ] {
        let harness =
            CliHarness::new(report().fault(Fault::FailureReason(reason.to_owned()))).await;
        let ended = harness.buy(&["--json"]).await;
        let line = ended.json();
        assert_eq!(
            (ended.code, &line["payment"], &line["error"]["kind"]),
            (4, &json!("maybe_paid"), &json!("settlement_pending")),
            "{ended:?}"
        );
        let message = line["error"]["message"].as_str().unwrap();
        assert!(message.contains(reason), "{message}");
        assert!(!message.contains("could not settle"), "{message}");
        assert_eq!(harness.distinct_payments(), 1);
    }
}

#[tokio::test]
async fn a_402_of_a_supplier_shows_its_words() {
    let body = r#"{"error":{"message":"Insufficient Balance","type":"unknown_error"}}"#;
    let harness = CliHarness::new(report().fault(Fault::Foreign402(body.to_owned()))).await;
    let ended = harness.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["payment"], &line["error"]["kind"]),
        (4, &json!("maybe_paid"), &json!("rejected"))
    );
    let message = line["error"]["message"].as_str().unwrap();
    assert!(message.contains("Insufficient Balance"), "{message}");

    let harness = CliHarness::new(report().fault(Fault::StatusWithReceipt(402))).await;
    let ended = harness.buy(&["--json"]).await;
    assert_eq!((ended.code, &ended.json()["payment"]), (5, &json!("paid")));
    let ended = harness.buy(&[]).await;
    assert!(ended.stderr.starts_with("paid: "), "{}", ended.stderr);
}

#[tokio::test]
async fn an_empty_wallet_is_named_and_then_left_alone() {
    let fault = Fault::FailureReason("insufficient_funds".to_owned());
    let harness = CliHarness::new(report().fault(fault)).await;
    for run in 0..4 {
        let url = harness.paywall.url(&format!("/report?n={run}"));
        let ended = harness.pay(&["--json", url.as_str()]).await;
        let line = ended.json();
        let message = line["error"]["message"].as_str().unwrap();
        for part in [PAYER, "USDC", "insufficient_funds"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        if run == 3 {
            assert_eq!((ended.code, &line["payment"]), (3, &json!("not_paid")));
            assert_eq!(line["error"]["denial"]["rule"], "wallet_empty");
        } else {
            assert_eq!((ended.code, &line["payment"]), (4, &json!("maybe_paid")));
        }
    }
    assert_eq!(harness.distinct_payments(), 3);
}

#[tokio::test]
async fn honest_errors_do_not_stop_further_calls() {
    let harness = CliHarness::new(report().fault(Fault::StatusBeforeSettle(422))).await;
    for run in 0..5 {
        let url = harness.paywall.url(&format!("/report?n={run}"));
        let ended = harness.pay(&["--json", url.as_str()]).await;
        assert_eq!((ended.code, &ended.json()["status"]), (4, &json!(422)));
    }
}
