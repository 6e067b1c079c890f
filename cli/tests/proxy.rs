//! `bursar proxy`: calls of programs, from their request to the answer, the ledger and the settlements of the seller.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

#[path = "support/proxy.rs"]
#[expect(dead_code, reason = "each test file uses a part")]
mod proxied;
#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use bursar_testing::{Breakage, Fault, Gate, OpenAi, Route};
use proxied::{RunningProxy, get, header, program, token};
use reqwest::Method;
use serde_json::{Value, json};
use support::{CliHarness, PAYER, report};

/// Writes a policy file with the host of the paywall, a route `/seller` to it, and more rules.
fn policy(harness: &CliHarness, route: &str, rules: &str) -> String {
    let target = harness.paywall.url("/").to_string();
    harness.file(
        "policy.toml",
        format!(
            "version = 1\nnetworks = [\"base-sepolia\"]\n{rules}\n[allow]\nhosts = \"127.0.0.1\"\n\
             [[proxy.route]]\npath = \"/seller\"\ntarget = \"{target}\"\n{route}\n"
        ),
    )
}

async fn started(harness: &CliHarness, route: &str, rules: &str) -> RunningProxy {
    let policy = policy(harness, route, rules);
    RunningProxy::start(harness, &["--policy", &policy]).await
}

/// Returns the purchases in the ledger of the harness.
async fn purchases(harness: &CliHarness) -> Vec<Value> {
    let ended = harness
        .run(&["ledger", "--ledger", "ledger.db", "--format", "jsonl"])
        .await;
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.lines()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_gets_the_goods_and_the_payment_in_headers() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "tag = \"chat\"", "").await;
    for url in [
        format!("{}/seller/report", proxy.url),
        proxy.to(&harness.url()),
    ] {
        let answer = program().get(url).bearer_auth(&proxy.token).send().await;
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        let settled = harness.paywall.settlements();
        let last = settled.last().unwrap();
        for (name, value) in [
            ("bursar-payment-status", "paid"),
            ("bursar-amount", "0.01 USDC"),
            ("bursar-amount-usd", "0.01"),
            ("bursar-network", "eip155:84532"),
            ("bursar-transaction", &last.transaction.to_string()),
        ] {
            assert_eq!(header(&answer, name), value, "{name}");
        }
        let id = header(&answer, "bursar-purchase-id").to_owned();
        assert_eq!(answer.text().await.unwrap(), "the report");
        let purchases = purchases(&harness).await;
        let purchase = purchases.last().unwrap();
        assert_eq!(purchase["purchase"], id.as_str(), "{purchase}");
        assert_eq!(purchase["agent"], "writer", "{purchase}");
    }
    assert_eq!(harness.settled(), 2);
    let purchases = purchases(&harness).await;
    // A path that names the target has the tag of its route, too.
    assert_eq!(purchases[0]["tag"], "chat");
    assert_eq!(purchases[1]["tag"], "chat");

    let (code, log) = proxy.stop();
    assert_eq!(code, 0, "{log:?}");
    let calls: Vec<_> = log.iter().filter(|line| line["event"] == "call").collect();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[0]["payment"], "paid", "{log:?}");
    assert_eq!(calls[0]["client"], "writer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_is_told_that_an_amount_is_a_ceiling_and_its_charge() {
    let harness = CliHarness::new(report().upto().charge(usd!("0.004"))).await;
    let rules = "[global]\nschemes = [\"exact\", \"upto\"]\ntransfer_methods = [\"permit2\"]\n";
    let proxy = started(&harness, "", rules).await;
    let answer = get(&proxy, "/seller/report").await;
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "bursar-amount"), "up to 0.01 USDC");
    assert_eq!(header(&answer, "bursar-amount-usd"), "0.01");
    assert_eq!(header(&answer, "bursar-charged"), "0.004 USDC");
    let ordinary = CliHarness::new(report()).await;
    let proxy = started(&ordinary, "", "").await;
    let answer = get(&proxy, "/seller/report").await;
    assert!(!answer.headers().contains_key("bursar-charged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_free_answer_passes_with_its_status_and_body_and_pays_nothing() {
    let free = Route::any("/free").header("x-seller", "yes").echo();
    let missing = Route::get("/missing")
        .status(404)
        .body("{\"error\":{\"message\":\"no\"}}");
    let harness = CliHarness::with_routes([free, missing]).await;
    let proxy = started(&harness, "", "").await;
    let body = "x".repeat(200_000);
    let sent = program()
        .post(format!("{}/seller/free?a=b%2Fc&d", proxy.url))
        .bearer_auth(&proxy.token)
        .header("content-type", "text/plain")
        .body(body.clone())
        .send();
    let answer = sent.await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "bursar-payment-status"), "not_paid");
    assert_eq!(header(&answer, "x-seller"), "yes");
    assert_eq!(answer.text().await.unwrap(), body);
    let answer = get(&proxy, "/seller/missing").await;
    assert_eq!(answer.status(), 404);
    assert!(!answer.headers().contains_key("bursar-error"));
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["error"]["message"], "no");
    assert_eq!(harness.payments(), 0);
    assert!(purchases(&harness).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_of_the_proxy_is_402_with_the_error_of_the_command() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "max_price = \"0.005 USD\"", "").await;
    let answer = get(&proxy, "/seller/report").await;
    assert_eq!(answer.status(), 402);
    assert_eq!(header(&answer, "bursar-payment-status"), "not_paid");
    assert_eq!(header(&answer, "bursar-error"), "denied");
    assert_eq!(header(&answer, "x-should-retry"), "false");
    assert!(!answer.headers().contains_key("payment-required"));
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["payment"], "not_paid", "{body}");
    assert_eq!(body["error"]["kind"], "denied");
    assert_eq!(body["error"]["code"], "denied");
    assert_eq!(body["error"]["denial"]["rule"], "max_price");
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("not paid: "), "{message}");
    assert_eq!((harness.payments(), harness.settled()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_outcome_is_424_and_a_repetition_pays_nothing_new() {
    for fault in [
        Fault::StatusAfterSettle(500),
        Fault::StatusAfterSettle(429),
        Fault::DropAfterSettle,
        Fault::ServerErrorAfterSettle,
    ] {
        let harness = CliHarness::new(report().fault(fault.clone())).await;
        let proxy = started(&harness, "", "").await;
        let answer = get(&proxy, "/seller/report").await;
        assert_eq!(answer.status(), 424, "{fault:?}");
        assert_eq!(header(&answer, "bursar-payment-status"), "maybe_paid");
        assert_eq!(header(&answer, "x-should-retry"), "false");
        assert_eq!(header(&answer, "bursar-amount"), "0.01 USDC");
        let id = header(&answer, "bursar-purchase-id").to_owned();
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(body["payment"], "maybe_paid", "{body}");
        assert_eq!(body["purchase_id"], id.as_str(), "{body}");
        assert_eq!(body["authorization"]["amount"], "10000", "{body}");

        harness.paywall.clear_faults();
        let again = get(&proxy, "/seller/report").await;
        assert_eq!(harness.settled(), 1, "{fault:?}");
        assert_eq!(harness.distinct_payments(), 1, "{fault:?}");
        assert_eq!(header(&again, "bursar-purchase-id"), id, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_proxy_names_its_own_headers_options_and_commands() {
    let paid = [
        "the header `bursar-allow-duplicate: true`",
        "`bursar ledger reconcile`",
    ];
    let late = ["--answer-timeout", "the `timeout` of the route"];
    for (fault, route, parts) in [
        (Fault::DropAfterSettle, "", paid),
        (Fault::HangAfterSettle, "timeout = \"1s\"", late),
    ] {
        let harness = CliHarness::new(report().fault(fault)).await;
        let mut proxy = started(&harness, route, "").await;
        let answer = get(&proxy, "/seller/report").await;
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let message = body["error"]["message"].as_str().unwrap();
        for part in parts {
            assert!(message.contains(part), "{part}: {message}");
        }
        for name in ["Ledger::", "`allow_duplicate`", "`answer_timeout`"] {
            assert!(!message.contains(name), "{name}: {message}");
        }
        assert_eq!(proxy.wait_for("call")["message"], message);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_seller_that_took_the_payment_says_so_in_headers() {
    let fault = Fault::StatusWithReceipt(400);
    let harness = CliHarness::new(report().fault(fault)).await;
    let proxy = started(&harness, "", "").await;
    let answer = get(&proxy, "/seller/report").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(header(&answer, "bursar-payment-status"), "paid");
    assert_eq!(harness.settled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_request_that_may_be_paid_repeats_the_words_of_the_seller() {
    let harness = CliHarness::new(report().fault(Fault::StatusBeforeSettle(400))).await;
    let proxy = started(&harness, "", "").await;
    let answer = get(&proxy, "/seller/report").await;
    assert_eq!(answer.status(), 424);
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(
        (&body["status"], &body["payment"]),
        (&json!(400), &json!("maybe_paid"))
    );
    assert!(!body["body"].as_str().unwrap().is_empty(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_cannot_be_reached_is_a_gateway_error_that_may_be_repeated() {
    let harness = CliHarness::new(report()).await;
    let closed = {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        port.local_addr().unwrap()
    };
    let proxy = started(&harness, "", "").await;
    let answer = get(&proxy, &format!("/to/http/{closed}/x")).await;
    assert_eq!(answer.status(), 502);
    assert_eq!(header(&answer, "bursar-error"), "transport");
    assert!(!answer.headers().contains_key("x-should-retry"));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_pass_when_they_come_and_not_at_the_end() {
    let gate = Gate::closed();
    let model = OpenAi::new().price(usd!("0.01")).gate(&gate);
    let harness = CliHarness::with_routes(model.into_routes()).await;
    let proxy = started(&harness, "", "").await;
    let sent = program()
        .post(format!("{}/seller/v1/chat/completions", proxy.url))
        .bearer_auth(&proxy.token)
        .json(&json!({
            "model": "gpt-test", "stream": true,
            "messages": [{ "role": "user", "content": "Say hello to all of us." }],
        }))
        .send();
    let mut answer = sent.await.unwrap();
    assert_eq!((answer.status().as_u16(), harness.settled()), (200, 1));
    assert_eq!(header(&answer, "bursar-payment-status"), "paid");
    assert!(header(&answer, "content-type").starts_with("text/event-stream"));
    gate.open(1);
    let first = answer.chunk().await.unwrap().unwrap();
    let first = std::str::from_utf8(&first).unwrap().to_owned();
    assert_eq!(first.matches("data:").count(), 1, "{first}");
    gate.open_all();
    let rest = answer.text().await.unwrap();
    assert!(rest.ends_with("[DONE]\n\n"), "{rest}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_at_the_seller_breaks_at_the_program_and_is_presented_again() {
    for fault in [
        Fault::BrokenBodyAfterSettle,
        Fault::BreakAfterSettle(Breakage::ShortBody),
    ] {
        let harness = CliHarness::new(report().fault_once(fault.clone())).await;
        let proxy = started(&harness, "", "").await;
        let answer = get(&proxy, "/seller/report").await;
        assert_eq!(answer.status(), 200, "{fault:?}");
        answer.bytes().await.unwrap_err();
        let again = get(&proxy, "/seller/report").await;
        drop(again.bytes().await);
        assert_eq!(
            (harness.settled(), harness.distinct_payments()),
            (1, 1),
            "{fault:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_above_the_limit_is_refused_before_anything_is_sent() {
    let harness = CliHarness::new(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let target = harness.paywall.url("/").to_string();
    let policy = harness.file(
        "policy.toml",
        format!(
            "version = 1\nnetworks = [\"base-sepolia\"]\n[proxy]\nbody_limit = \"64 KiB\"\n\
             [[proxy.route]]\npath = \"/seller\"\ntarget = \"{target}\"\n"
        ),
    );
    let proxy = RunningProxy::start(&harness, &["--policy", &policy]).await;
    let url = format!("{}/seller/echo", proxy.url);
    let post = |body: reqwest::Body| {
        let request = program().post(&url).bearer_auth(&proxy.token);
        async move { request.body(body).send().await.unwrap() }
    };
    for body in [vec![b'x'; 65_537], vec![b'x'; 20_000_000]] {
        let answer = post(body.into()).await;
        assert_eq!(answer.status(), 413);
        assert_eq!(header(&answer, "bursar-error"), "too_large");
    }
    let chunked = "POST /seller/echo HTTP/1.1\r\nhost: 127.0.0.1:PORT\r\nconnection: close\r\nx-api-key: TOKEN\r\n\
                   transfer-encoding: chunked\r\n\r\n";
    let mut bytes = chunked
        .replace("PORT", &proxy.port().to_string())
        .replace("TOKEN", &proxy.token)
        .into_bytes();
    for _ in 0..9 {
        bytes.extend_from_slice(b"2000\r\n");
        bytes.extend_from_slice(&[b'x'; 8192]);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    let answer = proxied::raw(proxy.port(), &bytes);
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(harness.paywall.requests().is_empty());

    let whole = vec![b'x'; 65_536];
    let answer = post(whole.clone().into()).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.bytes().await.unwrap(), whole);
    assert_eq!(harness.settled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_sdk_names_one_purchase() {
    let harness = CliHarness::new(
        Route::post("/chat")
            .price(usd!("0.01"))
            .idempotent()
            .body("hi"),
    )
    .await;
    let proxy = started(&harness, "", "").await;
    let post = |key: &str| {
        let request = program()
            .post(format!("{}/seller/chat", proxy.url))
            .bearer_auth(&proxy.token)
            .header("idempotency-key", key)
            .body("{}");
        async move { request.send().await.unwrap() }
    };
    let first = post("order-1").await;
    assert_eq!(header(&first, "bursar-purchase-id"), "writer:order-1");
    let again = post("order-1").await;
    assert_eq!(header(&again, "bursar-purchase-id"), "writer:order-1");
    assert_eq!((harness.settled(), harness.distinct_payments()), (1, 1));
    assert_eq!(post("order-2").await.status(), 200);
    assert_eq!(harness.settled(), 2);
    let other = program()
        .post(format!("{}/seller/chat", proxy.url))
        .bearer_auth(&proxy.token)
        .header("idempotency-key", "order-1")
        .body("{\"other\":1}");
    let other = other.send().await.unwrap();
    let status = other.status().as_u16();
    assert!([422, 424].contains(&status), "{status}");
    assert_eq!(harness.settled(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_can_lower_its_price_and_not_raise_it() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "max_price = \"0.02 USD\"", "").await;
    let ask = |price: &'static str| {
        let request = program()
            .get(format!("{}/seller/report", proxy.url))
            .bearer_auth(&proxy.token)
            .header("bursar-max-price", price);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    assert_eq!(ask("0.001").await, 402);
    assert_eq!(ask("cheap").await, 400);
    assert_eq!(harness.settled(), 0);
    assert_eq!(ask("0.01").await, 200);
    let dear = CliHarness::new(Route::get("/report").price(usd!("0.03")).body("x")).await;
    let proxy = started(&dear, "max_price = \"0.02 USD\"", "").await;
    let raised = program()
        .get(format!("{}/seller/report", proxy.url))
        .bearer_auth(&proxy.token)
        .header("bursar-max-price", "5")
        .send();
    assert_eq!(raised.await.unwrap().status(), 402);
    assert_eq!(dear.settled(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_an_agent_hold_for_the_token_of_its_name() {
    let harness = CliHarness::new(report()).await;
    let rules = "[[agent]]\nmatch = \"writer\"\nper_day = \"0.015 USD\"";
    let proxy = started(&harness, "", rules).await;
    let reader = token(&harness, "reader").await;
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    let denied = get(&proxy, "/seller/report").await;
    assert_eq!(denied.status(), 402);
    let other = program()
        .get(format!("{}/seller/report", proxy.url))
        .bearer_auth(&reader)
        .send();
    assert_eq!(other.await.unwrap().status(), 200);
    assert_eq!(harness.settled(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_signs_nothing_that_the_wallet_cannot_cover() {
    let harness = CliHarness::new(report()).await;
    let wallet = PAYER.parse().unwrap();
    harness.paywall.set_balance(wallet, 4000);
    let network = bursar::Network::from_chain_id(84_532);
    let node = harness.paywall.node(network).await.unwrap();
    let rpc = format!("base-sepolia={}", node.url());
    let policy = policy(&harness, "", "");
    let more = ["--policy", &policy, "--rpc", &rpc];
    let proxy = RunningProxy::start(&harness, &more).await;

    let answer = get(&proxy, "/seller/report").await;
    assert_eq!(answer.status(), 402);
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let denial = &body["error"]["denial"];
    assert_eq!(denial["rule"], "insufficient_balance", "{body}");
    assert_eq!(denial["shortfall"]["missing"], "0.006 USDC", "{body}");
    assert_eq!(harness.payments(), 0);

    harness.paywall.set_balance(wallet, 10_000);
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    assert_eq!((harness.payments(), harness.settled()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_uses_its_api_key_and_the_other_routes_use_none_of_it() {
    let keyed = |path: &str, key: &str| {
        let keyed = Route::get(path).price(usd!("0.01")).body("for the key");
        keyed.accepts_key("authorization", &format!("Bearer {key}"))
    };
    let harness =
        CliHarness::with_routes([keyed("/team", "team-key"), keyed("/batch", "batch-key")]).await;
    let target = harness.paywall.url("/").to_string();
    let team = harness.file("team.key", "team-key");
    let batch = harness.file("batch.key", "batch-key");
    let policy = harness.file(
        "policy.toml",
        format!(
            "version = 1\nnetworks = [\"base-sepolia\"]\n\
             [[credential]]\nname = \"team\"\nhost = \"127.0.0.1\"\nbearer = {{ file = \"{team}\" }}\n\
             [[credential]]\nname = \"batch\"\nhost = \"127.0.0.1\"\nbearer = {{ file = \"{batch}\" }}\n\
             [[proxy.route]]\npath = \"/a\"\ntarget = \"{target}\"\n\
             [[proxy.route]]\npath = \"/b\"\ntarget = \"{target}\"\ncredential = \"batch\"\n"
        ),
    );
    let proxy = RunningProxy::start(&harness, &["--policy", &policy]).await;
    for (path, name) in [("/a/team", "team"), ("/b/batch", "batch")] {
        let answer = get(&proxy, path).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header(&answer, "bursar-api-key"), name);
        assert_eq!(header(&answer, "bursar-payment-status"), "not_paid");
    }
    assert_eq!(harness.payments(), 0);
    // The program's own key for this place is not sent in place of the operator's.
    let taken = program()
        .get(format!("{}/a/team", proxy.url))
        .header("x-api-key", &proxy.token)
        .header("authorization", "Bearer mine")
        .send();
    assert_eq!(taken.await.unwrap().status(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_request_and_other_methods_pass() {
    let harness = CliHarness::new(Route::any("/any").price(usd!("0.01")).body("content")).await;
    let proxy = started(&harness, "", "").await;
    for method in [
        Method::HEAD,
        Method::PUT,
        Method::DELETE,
        Method::PATCH,
        Method::OPTIONS,
    ] {
        let answer = program()
            .request(method.clone(), format!("{}/seller/any", proxy.url))
            .bearer_auth(&proxy.token)
            .send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), 200, "{method}");
        assert_eq!(header(&answer, "bursar-payment-status"), "paid", "{method}");
    }
    assert_eq!(harness.settled(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_answer_passes_byte_for_byte() {
    let bytes: Vec<u8> = (0..=255).collect();
    let encoded = Route::get("/encoded")
        .price(usd!("0.01"))
        .header("content-encoding", "gzip")
        .header("content-type", "application/octet-stream")
        .body(bytes.clone());
    let harness = CliHarness::new(encoded).await;
    let proxy = started(&harness, "", "").await;
    let program = reqwest::Client::builder().no_proxy().no_gzip().build();
    let answer = program
        .unwrap()
        .get(format!("{}/seller/encoded", proxy.url))
        .header("accept-encoding", "gzip")
        .bearer_auth(&proxy.token)
        .send()
        .await
        .unwrap();
    assert_eq!(header(&answer, "content-encoding"), "gzip");
    assert_eq!(answer.bytes().await.unwrap(), bytes);
    let asked = &harness.paywall.requests()[0];
    assert_eq!(asked.headers["accept-encoding"], "gzip");
    assert_eq!(harness.settled(), 1);
}
