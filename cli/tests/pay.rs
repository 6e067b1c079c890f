//! `bursar pay`: the real binary against a paywall.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::time::Duration;

use bursar::clock::{Clock, SystemClock};
use bursar::primitives::U256;
use bursar::{Client, Ledger, LocalSigner, Policy};
use bursar_testing::{Fault, Forgery, Route};
use serde_json::json;
use support::{CliHarness, KEY, PAYEE, PAYER, USDC, policy, report};

#[tokio::test]
async fn a_paid_body_is_printed_on_standard_output() {
    for route in [report(), report().v1(), report().upfront()] {
        let harness = CliHarness::new(route).await;
        let ended = harness.buy(&[]).await;
        assert_eq!((ended.code, ended.text()), (0, "the report"), "{ended:?}");
        let settlement = &harness.paywall.settlements()[0];
        let line = format!(
            "paid 0.01 USDC to {PAYEE} on base-sepolia, transaction {}\n",
            settlement.transaction
        );
        assert_eq!(ended.stderr, line);
        assert_eq!(harness.settled(), 1);
    }
}

#[tokio::test]
async fn a_free_request_is_not_paid() {
    let harness = CliHarness::new(Route::get("/report").body("free")).await;
    let ended = harness.buy(&[]).await;
    assert_eq!(
        (ended.code, ended.text(), ended.stderr.as_str()),
        (0, "free", "not paid: it is free\n")
    );
    let expected = json!({ "status": 200, "payment": "not_paid", "authorization": null, "receipt": null, "body": "free", "error": null });
    assert_eq!(harness.buy(&["--json"]).await.json(), expected);
    assert_eq!(harness.payments(), 0);
}

#[tokio::test]
async fn a_failure_without_a_signature_exits_with_1() {
    let harness = CliHarness::new(Route::get("/report").status(404).body("nothing here")).await;
    let ended = harness.buy(&[]).await;
    assert_eq!((ended.code, ended.text()), (1, "nothing here"));
    assert_eq!(ended.stderr, "not paid: the answer is 404 Not Found\n");
    let line = harness.buy(&["--json"]).await.json();
    assert_eq!(
        (&line["status"], &line["error"]["kind"], &line["body"]),
        (&json!(404), &json!("status"), &json!("nothing here"))
    );

    let unreachable = harness.pay(&["http://127.0.0.1:1/", "--json"]).await;
    let line = unreachable.json();
    assert_eq!(unreachable.code, 1);
    assert_eq!(
        (&line["status"], &line["payment"], &line["error"]["kind"]),
        (&json!(null), &json!("not_paid"), &json!("transport"))
    );
    assert_eq!(line["body"], "");
    assert!(
        line["error"]["message"]
            .as_str()
            .unwrap()
            .contains("refused"),
        "{line}"
    );
}

#[tokio::test]
async fn plain_http_is_refused_except_for_an_allowed_loopback() {
    let harness = CliHarness::new(report()).await;
    let ended = harness
        .run(&["pay", "--network", "base-sepolia", &harness.url(), "--json"])
        .await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("insecure"))
    );
    let ended = harness.pay(&["http://example.com/", "--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("insecure"))
    );
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test]
async fn a_lost_answer_to_a_payment_exits_with_4() {
    for (fault, seconds) in [
        (Fault::DropAfterSettle, "30"),
        (Fault::HangAfterSettle, "1"),
    ] {
        let harness = CliHarness::new(report().fault(fault)).await;
        let ended = harness.buy(&["--json", "--timeout", seconds]).await;
        let line = ended.json();
        assert_eq!(
            (ended.code, &line["payment"], &line["status"]),
            (4, &json!("maybe_paid"), &json!(null)),
            "{ended:?}"
        );
        assert!(line["receipt"].is_null() && line["error"].is_object());
        let signed = harness.paywall.settlements()[0].authorization;
        let expected = json!({
            "amount": "10000", "asset": USDC, "network": "eip155:84532", "payTo": PAYEE,
            "nonce": signed.nonce.to_string(), "validBefore": signed.valid_before,
        });
        assert_eq!(line["authorization"], expected);
    }
}

#[tokio::test]
async fn a_failed_call_after_a_signature_exits_with_4_even_if_the_seller_claims_otherwise() {
    let place = "http://127.0.0.1:1/".parse().unwrap();
    for fault in [
        Fault::ServerErrorAfterSettle,
        Fault::SettlementPending,
        Fault::SettlementFailure,
        Fault::DoublePrice,
        Fault::ForgedReceipt(Forgery::Failure),
    ] {
        let harness = CliHarness::new(report().fault(fault.clone())).await;
        let ended = harness.buy(&["--json"]).await;
        assert_eq!(
            (ended.code, &ended.json()["payment"]),
            (4, &json!("maybe_paid")),
            "{fault:?}: {ended:?}"
        );
        assert!(
            ended.json()["authorization"].is_object() && ended.json()["error"].is_object(),
            "{ended:?}"
        );
        assert_eq!(harness.distinct_payments(), 1);
        let ended = harness.buy(&[]).await;
        assert_eq!(
            harness.distinct_payments(),
            1,
            "{fault:?}: the same is presented again"
        );
        assert!(
            ended.code == 4 && ended.stderr.starts_with("may be paid: "),
            "{ended:?}"
        );
    }
    let harness = CliHarness::new(report().fault(Fault::RedirectAfterPayment(place))).await;
    assert_eq!(harness.buy(&[]).await.code, 4);
}

#[tokio::test]
async fn a_body_without_a_matching_receipt_is_delivered_and_may_be_paid() {
    for fault in [
        Fault::NoReceipt,
        Fault::MalformedReceipt,
        Fault::ForgedReceipt(Forgery::Payer),
        Fault::ForgedReceipt(Forgery::Network),
        Fault::ForgedReceipt(Forgery::NoTransaction),
    ] {
        let harness = CliHarness::new(report().fault(fault.clone())).await;
        let ended = harness.buy(&["--json"]).await;
        let line = ended.json();
        assert_eq!(ended.code, 4, "{fault:?}: {ended:?}");
        assert_eq!(
            (&line["status"], &line["payment"], &line["body"]),
            (&json!(200), &json!("maybe_paid"), &json!("the report"))
        );
        assert!(
            line["authorization"].is_object()
                && line["receipt"].is_null()
                && line["error"].is_null(),
            "{line}"
        );
        let ended = harness.buy(&[]).await;
        assert_eq!((ended.code, ended.text()), (4, "the report"));
        let line = format!(
            "may be paid: 0.01 USDC to {PAYEE} on base-sepolia; the seller sent no matching receipt\n"
        );
        assert_eq!(ended.stderr, line);
    }
}

#[tokio::test]
async fn a_paid_request_that_fails_exits_with_5() {
    let harness = CliHarness::new(report().upfront().status(500)).await;
    let ended = harness.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["status"], &line["payment"]),
        (5, &json!(500), &json!("paid")),
        "{ended:?}"
    );
    assert_eq!(
        (&line["error"]["kind"], &line["body"]),
        (&json!("status"), &json!("the report"))
    );
    assert_eq!(
        line["receipt"]["transaction"],
        harness.paywall.settlements()[0].transaction.to_string()
    );

    let harness = CliHarness::new(
        report()
            .body("x".repeat(100_000))
            .fault(Fault::BrokenBodyAfterSettle),
    )
    .await;
    let ended = harness.buy(&[]).await;
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("paid: the body broke off: "),
        "{}",
        ended.stderr
    );
    assert_eq!(harness.settled(), 1);
}

#[tokio::test]
async fn a_purchase_id_is_paid_once() {
    let harness = CliHarness::new(report().idempotent()).await;
    for _ in 0..3 {
        let ended = harness.buy(&["--purchase-id", "order-7", "--json"]).await;
        assert_eq!((ended.code, &ended.json()["payment"]), (0, &json!("paid")));
    }
    assert_eq!(harness.settled(), 1);
    let other = harness
        .pay(&[
            harness.paywall.url("/report?other").as_str(),
            "--purchase-id",
            "order-7",
            "--json",
        ])
        .await;
    assert_eq!(
        (other.code, &other.json()["error"]["kind"]),
        (1, &json!("purchase"))
    );
    assert_eq!(
        harness.paywall.paid_by(PAYER.parse().unwrap()),
        U256::from(10_000)
    );
}

#[tokio::test]
async fn a_later_command_enters_again_what_was_bought_by_a_sign_in() {
    let me = Route::get("/me").sign_in_only().body("you");
    let harness = CliHarness::with_routes([report().sign_in(), me]).await;
    let known = policy(&harness, "[global]\nsign_in = \"known\"");
    let file = ["--policy", known.as_str()];
    assert_eq!(harness.buy(&file).await.code, 0);
    let ended = harness.buy(&file).await;
    assert_eq!(
        (ended.code, ended.text(), ended.stderr.as_str()),
        (0, "the report", "not paid: bursar signed in\n")
    );
    let line = harness.buy(&[&file[..], &["--json"]].concat()).await.json();
    assert_eq!(
        (&line["payment"], &line["signed_in"], &line["body"]),
        (&json!("not_paid"), &json!(true), &json!("the report"))
    );
    assert_eq!((harness.settled(), harness.payments()), (1, 1));
    assert_eq!(harness.paywall.sign_ins().len(), 2);

    let url = harness.paywall.url("/me").to_string();
    let ended = harness.pay(&[&[url.as_str()], &file[..]].concat()).await;
    assert_eq!((ended.code, ended.text()), (0, "you"));
    let denied = harness.pay(&[&url, "--json"]).await;
    let line = denied.json();
    assert_eq!(
        (
            denied.code,
            &line["error"]["kind"],
            &line["error"]["denial"]["rule"]
        ),
        (3, &json!("denied"), &json!("sign_in")),
        "{line}"
    );
    let message = line["error"]["message"].as_str().unwrap();
    assert!(message.contains("sign_in = \"always\""), "{message}");
}

#[tokio::test]
async fn a_command_right_after_a_killed_one_presents_its_payment() {
    let harness = CliHarness::new(report().idempotent().fault_once(Fault::HangAfterSettle)).await;
    // The clock of the first process is behind, so that its lease ends soon. It hears nothing, as if it had been killed.
    let behind = Duration::from_millis(19_200);
    let first = Client::builder()
        .signer(LocalSigner::from_hex(&KEY.to_owned().into()).unwrap())
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::sqlite(harness.path("ledger.db")).unwrap())
        .clock(move || SystemClock.now().before(behind))
        .allow_http_loopback(true)
        .build()
        .unwrap();
    let call = tokio::spawn(first.get(harness.url()).send());
    harness.paywall.wait_for_settlements(1).await;
    let ended = harness.buy(&[]).await;
    assert_eq!((ended.code, ended.text()), (0, "the report"), "{ended:?}");
    assert_eq!((harness.settled(), harness.payments()), (1, 2));
    call.abort();
}
