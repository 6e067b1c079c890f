//! `bursar ledger COMMAND`: the books checked, compared, used and stopped.

use bursar::Network;
use bursar_testing::Fault;
use serde_json::json;

use crate::bench::{CliHarness, report};

const NETWORK: Network = Network::from_chain_id(84_532);

/// A purchase that was settled and lost, by its id.
async fn lost() -> CliHarness {
    let bench = CliHarness::new(report().idempotent().fault(Fault::ServerErrorAfterSettle)).await;
    assert_eq!(bench.buy(&["--purchase-id", "order"]).await.code, 4);
    bench
}

impl CliHarness {
    async fn ledger(&self, args: &[&str]) -> crate::bench::Ended {
        let ledger = self.path("ledger.db");
        let command = [&["ledger"], args, &["--ledger", ledger.to_str().unwrap()]].concat();
        self.run(&command).await
    }
}

#[tokio::test]
async fn the_chain_settles_what_the_seller_left_open() {
    let bench = lost().await;
    let (one, two) = (
        bench.paywall.node(NETWORK).await.unwrap(),
        bench.paywall.node(NETWORK).await.unwrap(),
    );
    let rpc = [&one, &two].map(|node| format!("base-sepolia={}", node.url()));
    let none = bench.ledger(&["reconcile"]).await;
    assert!(none.code == 2 && none.stderr.contains("--rpc"), "{none:?}");
    let wrong = bench.ledger(&["reconcile", "--rpc", "base-sepolia"]).await;
    assert!(
        wrong.code == 2 && wrong.stderr.contains("base=https://mainnet.base.org"),
        "{wrong:?}"
    );

    let done = bench
        .ledger(&["reconcile", "--rpc", &rpc[0], "--rpc", &rpc[1], "--json"])
        .await;
    let transaction = bench.paywall.settlements()[0].transaction;
    let expected = json!({
        "purchase": "order", "before": "unknown", "after": "settled", "answer": format!("settled in {transaction}"),
    });
    assert_eq!((done.code, done.json()), (0, expected), "{done:?}");
    let shown = bench.ledger(&["--format", "jsonl"]).await;
    assert_eq!(
        shown.json()["verified_transaction"],
        transaction.to_string()
    );

    // A settled purchase is asked for again by its id, and ends well once the seller delivers.
    bench.paywall.clear_faults();
    let again = bench
        .buy(&["--purchase-id", "order", "--budget", "0.01"])
        .await;
    assert_eq!(
        (again.code, again.text(), bench.settled()),
        (0, "the report", 1),
        "{again:?}"
    );
}

#[tokio::test]
async fn what_was_changed_by_other_means_is_found() {
    let bench = lost().await;
    let sound = bench.ledger(&["verify"]).await;
    assert!(
        sound.code == 0 && sound.text().starts_with("sound: "),
        "{sound:?}"
    );
    let head = sound
        .text()
        .trim_end()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(bench.ledger(&["verify", "--head", &head]).await.code, 0);
    let other = format!("0x{}", "11".repeat(32));
    let gone = bench.ledger(&["verify", "--head", &other]).await;
    assert!(
        gone.code == 1 && gone.text().contains("1 faults"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn evidence_refunds_and_cancellations_are_by_purchase() {
    let bench = lost().await;
    let evidence = bench.ledger(&["evidence", "order"]).await.json();
    let settled = bench.paywall.settlements()[0].authorization;
    assert_eq!(
        (&evidence["purchase"], &evidence["answer"]["status"]),
        (&json!("order"), &json!(502))
    );
    assert_eq!(
        evidence["authorization"]["nonce"],
        settled.nonce.to_string()
    );
    let missing = bench.ledger(&["evidence", "never"]).await;
    assert!(
        missing.code == 1 && missing.stderr.contains("no purchase `never`"),
        "{missing:?}"
    );

    let transaction = format!("0x{}", "22".repeat(32));
    let refund = [
        "refund",
        "order",
        "--transaction",
        &transaction,
        "--value",
        "10000",
    ];
    assert_eq!(bench.ledger(&refund).await.code, 0);
    let entry = bench.ledger(&["--format", "jsonl"]).await.json();
    assert_eq!(
        (&entry["refunds"][0]["value"], &entry["value"]),
        (&json!("10000"), &json!("10000"))
    );

    let cancel = bench.ledger(&["cancel", "order"]).await;
    let (line, calldata) = (
        cancel.json(),
        cancel.json()["data"].as_str().unwrap().to_owned(),
    );
    assert_eq!(
        (cancel.code, &line["network"]),
        (0, &json!("eip155:84532")),
        "{cancel:?}"
    );
    assert!(
        calldata.starts_with("0x5a049a70") && calldata.contains(&settled.nonce.to_string()[2..]),
        "{calldata}"
    );
}

#[tokio::test]
async fn books_that_are_stopped_pay_nothing() {
    let bench = CliHarness::new(report()).await;
    assert_eq!(bench.buy(&[]).await.code, 0);
    assert_eq!(bench.ledger(&["stop", "audit"]).await.code, 0);
    let denied = bench.buy(&["--json"]).await;
    assert_eq!((denied.code, bench.settled()), (3, 1), "{denied:?}");
    assert!(
        denied.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("audit"),
        "{denied:?}"
    );
    assert_eq!(bench.ledger(&["go"]).await.code, 0);
    assert_eq!((bench.buy(&[]).await.code, bench.settled()), (0, 2));
}
