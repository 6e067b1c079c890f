//! `bursar mcp tools` and `bursar mcp call`, against a seller over streamable HTTP.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::sync::Arc;

use bursar::usd;
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::tool_server::{self, Style, ToolServer};
use serde_json::json;
use support::CliHarness;

async fn open_seller(route: Route) -> (Arc<Paywall>, String, tokio::task::JoinHandle<()>) {
    let paywall = Paywall::builder()
        .route(route)
        .route(Route::get("/free").body("free"))
        .start()
        .await
        .unwrap();
    let paywall = Arc::new(paywall);
    let (address, server) = tool_server::open(
        ToolServer::new(Arc::clone(&paywall), Style::Structured),
        None,
    )
    .await;
    (paywall, format!("http://{address}/mcp"), server)
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .idempotent()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_listed_priced_and_called() {
    let (paywall, url, server) = open_seller(report()).await;
    let harness = CliHarness::new(support::report()).await;
    let ledger = harness.path("ledger.db").to_str().unwrap().to_owned();
    let listed = harness
        .run(&["mcp", "tools", &url, "--allow-http-loopback", "--json"])
        .await;
    assert_eq!(listed.code, 0, "{listed:?}");
    assert_eq!(
        (&listed.lines()[0]["name"], &listed.lines()[0]["price"]),
        (&json!("report"), &json!(null))
    );
    assert!(paywall.requests().is_empty(), "listing called a tool");
    let asked = harness
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
    let dry = harness.run(&[&usual[..], &["--dry-run"]].concat()).await;
    assert_eq!(
        (dry.code, dry.stderr.as_str()),
        (0, "would be paid\n"),
        "{dry:?}"
    );
    assert_eq!(paywall.settlements().len(), 0);
    let called = harness
        .run(
            &[
                &usual[..],
                &["--args", "{\"topic\":\"x\"}", "--json", "--agent", "scout"],
            ]
            .concat(),
        )
        .await;
    assert_eq!(
        (called.code, &called.json()["payment"]),
        (0, &json!("paid")),
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
    let denied = harness
        .run(&[&usual[..], &["--max-per-payment", "0.001"]].concat())
        .await;
    assert_eq!(denied.code, 3, "{denied:?}");
    let wrong = harness
        .run(&[&usual[..], &["--args", "[1]"]].concat())
        .await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert_eq!(paywall.settlements().len(), 1);
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_result_exits_with_4_and_the_same_call_gets_the_result() {
    let (paywall, url, server) =
        open_seller(report().fault_once(Fault::ServerErrorAfterSettle)).await;
    let harness = CliHarness::new(support::report()).await;
    let ledger = harness.path("ledger.db").to_str().unwrap().to_owned();
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
    let lost = harness.run(&[&usual[..], &["--json"]].concat()).await;
    assert_eq!(
        (
            lost.code,
            &lost.json()["payment"],
            &lost.json()["error"]["kind"]
        ),
        (4, &json!("maybe_paid"), &json!("tool"))
    );
    let again = harness.run(&[&usual[..], &["--json"]].concat()).await;
    assert_eq!(
        (again.code, &again.json()["payment"]),
        (0, &json!("paid")),
        "{again:?}"
    );
    assert_eq!(paywall.settlements().len(), 1);
    server.abort();
}
