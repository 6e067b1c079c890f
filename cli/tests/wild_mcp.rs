//! MCP servers in the dialects of public reports, through the command; and hosts that give up.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
#[path = "support/agent.rs"]
mod agent;
#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::sync::Arc;

use agent::Session;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::usd;
use bursar_testing::{Dialect, Fault, Route, ToolServer};
use rmcp::model::{CallToolRequest, CancelledNotificationParam, ClientRequest};
use rmcp::service::PeerRequestOptions;
use serde_json::{Value, json};
use support::{CliHarness, Ended, report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, watch};

struct Shop {
    harness: CliHarness,
    server: ToolServer,
}

impl Shop {
    async fn open(route: Route, dialect: Dialect) -> Self {
        let free = Route::get("/free").body("free");
        let harness = CliHarness::with_routes([route, free]).await;
        let server = harness.paywall.tools(dialect).await.unwrap();
        Self { harness, server }
    }

    async fn run(&self, command: &[&str], args: &[&str]) -> Ended {
        let ledger = self.harness.path("ledger.db");
        let url = self.server.url().as_str();
        let usual = [
            "--allow-http-loopback",
            "--network",
            "base-sepolia",
            "--ledger",
            ledger.to_str().unwrap(),
        ];
        self.harness
            .run(&[&["mcp"], command, &[url], args, &usual].concat())
            .await
    }

    async fn call(&self, args: &[&str]) -> Ended {
        self.run(&["call"], args).await
    }

    async fn tools(&self, args: &[&str]) -> Ended {
        let url = self.server.url().as_str();
        let usual = ["mcp", "tools", url, "--allow-http-loopback"];
        self.harness.run(&[&usual, args].concat()).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_dialect_is_paid_once() {
    for (dialect, route) in [
        (Dialect::Cloudflare, report()),
        (Dialect::CloudflareText, report()),
        (Dialect::X402Mcp, report().v1()),
        (Dialect::Error(-32402, None), report()),
        (Dialect::Error(-402, Some("paymentRequirement")), report()),
        (Dialect::Http, report()),
    ] {
        let shop = Shop::open(route, dialect).await;
        let called = shop.call(&["report", "--json"]).await;
        let settled = shop.harness.paywall.settlements();
        assert_eq!(
            (called.code, settled.len(), &called.json()["payment"]),
            (0, 1, &json!("paid")),
            "{dialect:?} {called:?}"
        );
        assert_eq!(
            called.json()["receipt"]["transaction"],
            json!(settled[0].transaction.to_string())
        );
        let body: Value = serde_json::from_str(called.json()["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["content"][0]["text"], json!("the report"));
        let again = shop.call(&["report"]).await;
        assert!(
            again.stderr.starts_with("paid 0.01 USDC to 0x"),
            "{again:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dialect_that_cannot_be_paid_is_named_and_nothing_is_signed() {
    let shop = Shop::open(report(), Dialect::Sep2007).await;
    let called = shop.call(&["report", "--json"]).await;
    let error = &called.json()["error"];
    assert_eq!(
        (called.code, &error["kind"], &called.json()["authorization"]),
        (1, &json!("not_payable"), &Value::Null),
        "{called:?}"
    );
    assert!(error["message"].as_str().unwrap().contains("SEP-2007"));
    assert_eq!(shop.server.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_pays_nothing_at_an_endpoint_that_asks_for_money() {
    let shop = Shop::open(report(), Dialect::Http).await;
    let dry = shop.call(&["report", "--dry-run"]).await;
    assert_eq!(
        (dry.code, dry.stderr.as_str()),
        (0, "would be paid\n"),
        "{dry:?}"
    );
    let dear = shop.call(&["report", "--max-per-payment", "0.001"]).await;
    assert_eq!(dear.code, 3, "{dear:?}");
    assert_eq!(shop.harness.payments(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_lost_at_the_paid_request_is_one_payment() {
    let shop = Shop::open(report().idempotent(), Dialect::Http).await;
    shop.server.lose_session(404);
    let called = shop.call(&["report", "--json"]).await;
    assert_eq!(
        (
            called.code,
            &called.json()["payment"],
            shop.harness.settled()
        ),
        (0, &json!("paid"), 1),
        "{called:?}"
    );
    assert_eq!(
        (shop.harness.payments(), shop.harness.distinct_payments()),
        (2, 1)
    );
    assert_eq!(called.json().get("other_payments"), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_charge_for_the_session_is_denied_unless_the_policy_names_the_method() {
    let route = Route::get("/initialize").price(usd!("0.01"));
    let shop = Shop::open(route, Dialect::Http).await;
    let denied = shop.call(&["free", "--json"]).await;
    assert_eq!(
        (
            denied.code,
            &denied.json()["payment"],
            &denied.json()["error"]["kind"]
        ),
        (3, &json!("not_paid"), &json!("denied")),
        "{denied:?}"
    );
    assert!(denied.stderr.contains("`initialize`") && denied.stderr.contains("mcp_methods"));
    assert_eq!(shop.harness.payments(), 0);
    let file = support::policy(&shop.harness, "mcp_methods = [\"initialize\"]");
    let url = shop.server.url().as_str();
    let named = [
        "mcp",
        "call",
        url,
        "free",
        "--allow-http-loopback",
        "--policy",
        &file,
        "--json",
    ];
    let paid = shop.harness.run(&named).await;
    assert_eq!((paid.code, shop.harness.settled()), (0, 1), "{paid:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_prices_are_shown_without_a_call_and_a_destructive_tool_is_not_called() {
    let shop = Shop::open(report(), Dialect::Standard).await;
    let offer = json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": support::USDC,
        "payTo": support::PAYEE, "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
    });
    for (name, more) in [
        (
            "scrape",
            json!({ "_meta": { "x402": { "accepts": [offer], "scheme": "exact", "amount": "10000" } } }),
        ),
        (
            "square",
            json!({ "_meta": { "agents-x402/paymentRequired": true, "agents-x402/priceUSD": 0.01 } }),
        ),
        ("report", json!({})),
        ("free", json!({ "annotations": { "readOnlyHint": true } })),
        (
            "erase",
            json!({ "annotations": { "destructiveHint": true } }),
        ),
        ("write", json!({ "annotations": { "readOnlyHint": false } })),
    ] {
        let mut tool = json!({ "name": name, "inputSchema": { "type": "object" } });
        let members = tool.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        shop.server.list(tool);
    }
    let prices = |ended: &Ended| -> Vec<Value> {
        ended
            .lines()
            .iter()
            .map(|line| line["price"].clone())
            .collect()
    };
    let listed = shop.tools(&["--json"]).await;
    assert_eq!(
        prices(&listed),
        [
            json!("0.01 USDC (listed)"),
            json!("0.01 USD (listed)"),
            json!(null),
            json!(null),
            json!(null),
            json!(null)
        ]
    );
    assert!(shop.server.calls().is_empty());
    let table = shop.tools(&[]).await;
    assert!(
        table.text().contains("unknown") && !table.text().contains(" free "),
        "{table:?}"
    );
    let asked = shop.tools(&["--json", "--ask"]).await;
    let asked = prices(&asked);
    assert_eq!(asked[2..4], [json!("0.01 USDC"), json!("free")]);
    for unknown in &asked[4..] {
        assert!(
            unknown
                .as_str()
                .unwrap()
                .starts_with("unknown: the tool says that it destroys")
        );
    }
    let called: Vec<_> = shop
        .server
        .calls()
        .iter()
        .map(|call| call["name"].clone())
        .collect();
    assert_eq!(called, ["report", "free"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_limit_names_its_option() {
    let shop = Shop::open(report().fault(Fault::HangingBody402), Dialect::Standard).await;
    let late = shop.call(&["report", "--json", "--timeout", "1"]).await;
    let error = &late.json()["error"];
    assert_eq!(
        (late.code, &error["kind"]),
        (1, &json!("timeout")),
        "{late:?}"
    );
    assert!(
        error["message"].as_str().unwrap().contains("--timeout"),
        "{late:?}"
    );
}

/// A seller that answers a paid request when the test says so.
struct SlowSeller {
    url: String,
    /// The payment header of each request, or nothing.
    requests: watch::Sender<Vec<Option<String>>>,
    answers: Arc<Semaphore>,
    /// The body of each paid answer takes a permit.
    bodies: Arc<Semaphore>,
    /// The head of a paid answer was sent.
    begun: Arc<Notify>,
    /// A buyer disconnected from a paid request.
    abandoned: Arc<Notify>,
}

impl SlowSeller {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
            .await
            .unwrap();
        let url = format!("http://{}/report", listener.local_addr().unwrap());
        let (requests, answers) = (watch::Sender::new(Vec::new()), Arc::new(Semaphore::new(0)));
        let seller = Self {
            url,
            requests: requests.clone(),
            answers: Arc::clone(&answers),
            bodies: Arc::new(Semaphore::new(99)),
            begun: Arc::default(),
            abandoned: Arc::default(),
        };
        let (bodies, begun) = (Arc::clone(&seller.bodies), Arc::clone(&seller.begun));
        let abandoned = Arc::clone(&seller.abandoned);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (requests, answers) = (requests.clone(), Arc::clone(&answers));
                let abandoned = Arc::clone(&abandoned);
                let (bodies, begun) = (Arc::clone(&bodies), Arc::clone(&begun));
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await.unwrap());
                    }
                    let head = String::from_utf8(head).unwrap();
                    let payment = head.lines().find_map(|line| {
                        let (name, value) = line.split_once(": ")?;
                        name.eq_ignore_ascii_case("payment-signature")
                            .then(|| value.to_owned())
                    });
                    requests.send_modify(|all| all.push(payment.clone()));
                    let is_paid = payment.is_some();
                    let (status, header) = match payment {
                        None => (
                            "402 Payment Required",
                            format!("payment-required: {}", encoded(&terms())),
                        ),
                        Some(payment) => {
                            tokio::select! {
                                permit = answers.acquire() => permit.unwrap().forget(),
                                _ = stream.read_u8() => return abandoned.notify_one(),
                            }
                            let payment: Value =
                                serde_json::from_slice(&STANDARD.decode(payment).unwrap()).unwrap();
                            let receipt = json!({
                                "success": true, "transaction": format!("0x{}", "ab".repeat(32)),
                                "network": "eip155:84532",
                                "payer": payment["payload"]["authorization"]["from"],
                            });
                            ("200 OK", format!("payment-response: {}", encoded(&receipt)))
                        }
                    };
                    let answer = format!(
                        "HTTP/1.1 {status}\r\n{header}\r\nconnection: close\r\ncontent-length: 4\r\n\r\n"
                    );
                    drop(stream.write_all(answer.as_bytes()).await);
                    if is_paid {
                        begun.notify_one();
                        bodies.acquire().await.unwrap().forget();
                    }
                    drop(stream.write_all(b"good").await);
                });
            }
        });
        seller
    }

    async fn wait_for(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        requests.wait_for(|all| all.len() >= count).await.unwrap();
    }

    /// The number of requests without a payment, with one, and of different payments.
    fn counts(&self) -> (usize, usize, usize) {
        let requests = self.requests.borrow();
        let paid: Vec<_> = requests.iter().flatten().collect();
        let different: std::collections::BTreeSet<_> = paid.iter().collect();
        let unpaid = requests.iter().filter(|payment| payment.is_none());
        (unpaid.count(), paid.len(), different.len())
    }
}

fn encoded(json: &Value) -> String {
    STANDARD.encode(json.to_string())
}

fn terms() -> Value {
    json!({ "x402Version": 2, "resource": { "url": "http://127.0.0.1/report" }, "accepts": [{
        "scheme": "exact", "network": "eip155:84532", "amount": "10000", "asset": support::USDC,
        "payTo": support::PAYEE, "maxTimeoutSeconds": 60, "extra": { "name": "USDC", "version": "2" },
    }] })
}

/// Arguments for a host that waits for no answer, so that each answer is late.
const IMPATIENT: [&str; 2] = ["--host-timeout", "0.001"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_the_host_did_not_wait_for_is_returned_to_an_identical_call() {
    let seller = SlowSeller::open().await;
    seller.answers.add_permits(9);
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &IMPATIENT).await;
    let pay = json!({ "url": seller.url });
    let first = session.call("pay", pay.clone()).await;
    assert_eq!(
        (&first["payment"], first.get("replayed")),
        (&json!("paid"), None),
        "{first}"
    );
    // The order of the arguments and the form of the URL do not matter.
    let again = session
        .call("pay", json!({ "method": "GET", "url": seller.url }))
        .await;
    assert_eq!(
        (
            &again["payment"],
            &again["replayed"],
            &again["purchase_id"],
            &again["untrusted"]["body"]
        ),
        (
            &json!("paid"),
            &json!(true),
            &first["purchase_id"],
            &json!("good")
        ),
        "{again}"
    );
    assert!(again["note"].as_str().unwrap().contains("allow_duplicate"));
    assert_eq!(seller.counts(), (1, 1, 1));
    for (other, paid) in [
        (json!({ "url": format!("{}?x=1", seller.url) }), 2),
        (json!({ "url": seller.url, "tag": "t" }), 3),
        (json!({ "url": seller.url, "allow_duplicate": true }), 4),
    ] {
        let bought = session.call("pay", other).await;
        assert_eq!(bought.get("replayed"), None, "{bought}");
        assert_eq!(seller.counts().2, paid);
    }
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_time_is_not_kept() {
    let seller = SlowSeller::open().await;
    seller.answers.add_permits(9);
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &[]).await;
    for bought in 1..=2 {
        let answer = session.call("pay", json!({ "url": seller.url })).await;
        assert_eq!(
            (&answer["payment"], answer.get("replayed")),
            (&json!("paid"), None)
        );
        assert_eq!(seller.counts().2, bought);
    }
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_repeats_a_running_one_waits_for_its_answer_and_pays_nothing() {
    let seller = SlowSeller::open().await;
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &IMPATIENT).await;
    let pay = json!({ "url": seller.url });
    let release = async {
        seller.wait_for(2).await;
        // The second call is on its way or waits. Whichever it is, it must not pay.
        session.call("budget", json!({})).await;
        seller.answers.add_permits(9);
    };
    let second = async {
        seller.wait_for(2).await;
        session.call("pay", pay.clone()).await
    };
    let (first, second, ()) = tokio::join!(session.call("pay", pay.clone()), second, release);
    assert_eq!(first["payment"], "paid", "{first}");
    assert_eq!(
        (&second["replayed"], &second["purchase_id"]),
        (&json!(true), &first["purchase_id"]),
        "{second}"
    );
    assert_eq!(seller.counts(), (1, 1, 1));
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_ends_by_the_time_limit_names_it_and_the_same_call_shows_the_same_payment() {
    let seller = SlowSeller::open().await;
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &["--timeout", "1"]).await;
    let pay = json!({ "url": seller.url });
    let late = session.call("pay", pay.clone()).await;
    assert_eq!(
        (&late["payment"], &late["error"]["kind"]),
        (&json!("maybe_paid"), &json!("timeout")),
        "{late}"
    );
    assert!(
        late["error"]["message"]
            .as_str()
            .unwrap()
            .contains("--timeout"),
        "{late}"
    );
    assert!(
        late["error"]["next"]
            .as_str()
            .unwrap()
            .contains("same call again"),
        "{late}"
    );
    seller.answers.add_permits(9);
    let again = session.call("pay", pay).await;
    assert_eq!(
        (&again["payment"], &again["purchase_id"]),
        (&json!("paid"), &late["purchase_id"]),
        "{again}"
    );
    assert_eq!(seller.counts().2, 1);
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_host_cancels_is_continued_by_the_same_call() {
    let seller = SlowSeller::open().await;
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &[]).await;
    let pay = json!({ "url": seller.url });
    {
        let call = session.call("pay", pay.clone());
        tokio::select! {
            answer = call => panic!("{answer}"),
            () = seller.wait_for(2) => {}
        }
    }
    // The dropped call sent `notifications/cancelled`, and the server abandons the purchase.
    seller.abandoned.notified().await;
    seller.answers.add_permits(9);
    let again = session.call("pay", pay).await;
    assert_eq!(again["payment"], "paid", "{again}");
    assert_eq!(seller.counts().2, 1);
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_cancelled_while_its_paid_body_comes_is_paid_once() {
    let seller = SlowSeller::open().await;
    seller.answers.add_permits(9);
    seller.bodies.forget_permits(99);
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &[]).await;
    let pay = json!({ "url": seller.url });
    {
        let call = session.call("pay", pay.clone());
        tokio::select! {
            answer = call => panic!("{answer}"),
            () = async {
                seller.begun.notified().await;
                // The server reads the head meanwhile.
                for _ in 0..5 {
                    session.call("budget", json!({})).await;
                }
            } => {}
        }
    }
    // The dropped call sent `notifications/cancelled`. The seller has begun its answer, so the server reads it.
    session.call("budget", json!({})).await;
    seller.bodies.add_permits(9);
    let again = session.call("pay", pay).await;
    assert_eq!(again["payment"], "paid", "{again}");
    assert_eq!(seller.counts(), (1, 1, 1));
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_crosses_its_cancellation_is_returned_to_an_identical_call() {
    let seller = SlowSeller::open().await;
    seller.answers.add_permits(9);
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &[]).await;
    let pay = json!({ "url": seller.url });
    let call = CallToolRequest::new(agent::params("pay", pay.clone()));
    let sent = session.client.send_cancellable_request(
        ClientRequest::CallToolRequest(call),
        PeerRequestOptions::no_options(),
    );
    let handle = sent.await.unwrap();
    let id = handle.id.clone();
    handle.await_response().await.unwrap();
    let cancelled = CancelledNotificationParam::new(Some(id), None);
    session.client.notify_cancelled(cancelled).await.unwrap();
    session.call("budget", json!({})).await;
    let again = session.call("pay", pay).await;
    assert_eq!(again["replayed"], json!(true), "{again}");
    assert_eq!(seller.counts(), (1, 1, 1));
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_time_limit_is_below_the_time_that_hosts_wait() {
    let harness = CliHarness::new(report()).await;
    let help = harness.run(&["mcp", "serve", "--help"]).await;
    let defaults: Vec<&str> = help.text().split("[default: ").skip(1).collect();
    assert!(
        defaults.iter().any(|text| text.starts_with("50]")),
        "{help:?}"
    );
    assert!(
        defaults.iter().any(|text| text.starts_with("60]")),
        "{help:?}"
    );
}
