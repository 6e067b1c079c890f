//! `bursar mcp tools` and `bursar mcp call`, against a shop over streamable HTTP.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "support/cli.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod bench;

use std::sync::Arc;

use bench::CliHarness;
use bursar::usd;
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::tool_server::{self, Style, ToolServer};
use serde_json::json;

async fn shop(route: Route) -> (Arc<Paywall>, String, tokio::task::JoinHandle<()>) {
    let paywall = Paywall::builder()
        .route(route)
        .route(Route::get("/free").body("free"))
        .start()
        .await
        .unwrap();
    let paywall = Arc::new(paywall);
    let (address, door) = tool_server::open(
        ToolServer::new(Arc::clone(&paywall), Style::Structured),
        None,
    )
    .await;
    (paywall, format!("http://{address}/mcp"), door)
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .idempotent()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_listed_asked_and_called() {
    let (paywall, url, door) = shop(report()).await;
    let bench = CliHarness::new(bench::report()).await;
    let ledger = bench.path("ledger.db").to_str().unwrap().to_owned();
    let listed = bench
        .run(&["mcp", "tools", &url, "--allow-http-loopback", "--json"])
        .await;
    assert_eq!(listed.code, 0, "{listed:?}");
    assert_eq!(
        (&listed.lines()[0]["name"], &listed.lines()[0]["price"]),
        (&json!("report"), &json!(null))
    );
    assert!(paywall.requests().is_empty(), "a tool was called");
    let asked = bench
        .run(&["mcp", "tools", &url, "--allow-http-loopback", "--ask"])
        .await;
    assert!(
        asked.text().contains("0.01 USDC") && asked.text().contains("free"),
        "{asked:?}"
    );

    let usual = [
        "mcp",
        "call",
        &url,
        "report",
        "--allow-http-loopback",
        "--network",
        "base-sepolia",
        "--ledger",
        &ledger,
    ];
    let dry = bench.run(&[&usual[..], &["--dry-run"]].concat()).await;
    assert_eq!(
        (dry.code, dry.stderr.as_str()),
        (0, "would be paid\n"),
        "{dry:?}"
    );
    assert_eq!(paywall.settlements().len(), 0);
    let called = bench
        .run(
            &[
                &usual[..],
                &["--args", "{\"topic\":\"x\"}", "--json", "--agent", "scout"],
            ]
            .concat(),
        )
        .await;
    assert_eq!(
        (called.code, &called.json()["spend"]),
        (0, &json!("settled")),
        "{called:?}"
    );
    let body: serde_json::Value =
        serde_json::from_str(called.json()["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["content"][0]["text"], json!("the report"));
    let settled = paywall.settlements();
    assert_eq!(
        called.json()["receipt"]["transaction"],
        json!(settled[0].transaction.to_string())
    );
    let denied = bench
        .run(&[&usual[..], &["--max-per-payment", "0.001"]].concat())
        .await;
    assert_eq!(denied.code, 3, "{denied:?}");
    let wrong = bench.run(&[&usual[..], &["--args", "[1]"]].concat()).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert_eq!(paywall.settlements().len(), 1);
    door.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_exits_4_and_the_same_call_ends_well() {
    let (paywall, url, door) = shop(report().fault_once(Fault::ServerErrorAfterSettle)).await;
    let bench = CliHarness::new(bench::report()).await;
    let ledger = bench.path("ledger.db").to_str().unwrap().to_owned();
    let usual = [
        "mcp",
        "call",
        &url,
        "report",
        "--allow-http-loopback",
        "--network",
        "base-sepolia",
        "--ledger",
        &ledger,
    ];
    let lost = bench.run(&[&usual[..], &["--json"]].concat()).await;
    assert_eq!(
        (
            lost.code,
            &lost.json()["spend"],
            &lost.json()["error"]["kind"]
        ),
        (4, &json!("unknown"), &json!("tool"))
    );
    let again = bench.run(&[&usual[..], &["--json"]].concat()).await;
    assert_eq!(
        (again.code, &again.json()["spend"]),
        (0, &json!("settled")),
        "{again:?}"
    );
    assert_eq!(paywall.settlements().len(), 1);
    door.abort();
}
