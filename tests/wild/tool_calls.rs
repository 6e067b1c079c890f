//! Tools of MCP servers that follow another dialect.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use bursar::ledger::State;
use bursar::mcp::{self, ListedPrice, PaidTools, Server, ToolAnswer, listed_price};
use bursar::policy::Rule;
use bursar::{Client, ErrorKind, PaymentStatus, PriceOutcome, RetryPolicy, usd};
use bursar_testing::{Dialect, Fault, Paywall, Route, ToolServer};
use bursar_tests::paywall::{
    client, distinct_payments, open_all, payments_sent, policy, purchases, report,
};
use rmcp::model::Tool;
use rmcp::service::RunningService;
use rmcp::{RoleClient, ServiceExt};
use serde_json::{Value, json};

/// A client in a session with a tool server.
struct Session {
    _service: RunningService<RoleClient, ()>,
    tools: PaidTools,
}

impl Session {
    async fn open(client: &Client, server: &ToolServer) -> Self {
        let url = server.url().as_str();
        let service = ().serve(mcp::connect(client, url).unwrap()).await.unwrap();
        let payer = client.payer().unwrap().clone();
        let tools = PaidTools::new(service.peer().clone(), payer, Server::at(url).unwrap())
            .retry_policy(RetryPolicy {
                initial_backoff: Duration::ZERO,
                ..RetryPolicy::default()
            });
        Self {
            _service: service,
            tools,
        }
    }

    async fn report(&self) -> Result<ToolAnswer, bursar::Error> {
        self.tools.call("report").send().await
    }
}

async fn shop(route: Route, dialect: Dialect) -> (Paywall, ToolServer) {
    let paywall = open_all([route, Route::get("/free").body("free")]).await;
    let server = paywall.tools(dialect).await.unwrap();
    (paywall, server)
}

fn text(answer: &ToolAnswer) -> &str {
    let content = answer.result().content.first().unwrap();
    &content.as_text().unwrap().text
}

/// The payments in the calls: the key, and whether the value is a text.
fn forms(server: &ToolServer) -> Vec<Vec<(String, bool)>> {
    let calls = server.calls();
    let forms = calls.iter().map(|params| {
        let meta = params["_meta"].as_object().into_iter().flatten();
        meta.filter(|(key, _)| key.contains("x402"))
            .map(|(key, value)| (key.clone(), value.is_string()))
            .collect()
    });
    forms.collect()
}

/// The nonces of the payments in the calls.
fn nonces(server: &ToolServer) -> std::collections::BTreeSet<String> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let calls = server.calls();
    let payments = calls.iter().flat_map(|params| {
        let meta = params["_meta"].as_object().into_iter().flatten();
        meta.filter(|(key, _)| key.contains("x402"))
            .map(|(_, value)| match value {
                Value::String(text) => {
                    serde_json::from_slice(&STANDARD.decode(text).unwrap()).unwrap()
                }
                object => object.clone(),
            })
    });
    payments
        .map(|payment| payment["payload"]["authorization"]["nonce"].to_string())
        .collect()
}

#[tokio::test]
async fn each_dialect_is_paid_with_one_authorization_in_the_form_that_its_server_reads() {
    let object = |key: &str| (key.to_owned(), false);
    let words = |key: &str| (key.to_owned(), true);
    let own = "x402/payment";
    for (dialect, shown) in [
        (Dialect::Standard, vec![vec![], vec![object(own)]]),
        (Dialect::Text, vec![vec![], vec![object(own)]]),
        (Dialect::Cloudflare, vec![vec![], vec![words(own)]]),
        (
            Dialect::CloudflareText,
            vec![vec![], vec![object(own)], vec![words(own)]],
        ),
        (Dialect::X402Mcp, vec![vec![], vec![words("x402.payment")]]),
        (Dialect::Error(402, None), vec![vec![], vec![object(own)]]),
        (
            Dialect::Error(-32042, Some("x402")),
            vec![vec![], vec![object(own)]],
        ),
        (
            Dialect::Error(-32402, None),
            vec![vec![], vec![object("x402.org/payment"), object(own)]],
        ),
        (
            Dialect::Error(-32402, Some("paymentRequirement")),
            vec![vec![], vec![object("x402.org/payment"), object(own)]],
        ),
        (
            Dialect::Error(-32803, Some("paymentRequirements")),
            vec![vec![], vec![object("x402.org/payment"), object(own)]],
        ),
        (
            Dialect::Error(-402, Some("paymentRequired")),
            vec![vec![], vec![object("x402.org/payment"), object(own)]],
        ),
    ] {
        for as_text in [false, true] {
            let route = match dialect {
                Dialect::X402Mcp => report().v1(),
                _ => report(),
            };
            let (paywall, server) = shop(route, dialect).await;
            if as_text {
                server.write_receipts_as_text();
            }
            let client = client()
                .policy(policy().refuse_foreign_resource())
                .build()
                .unwrap();
            let session = Session::open(&client, &server).await;
            let answer = session.report().await.unwrap();
            assert_eq!(
                (text(&answer), answer.payment_status()),
                ("the report", PaymentStatus::Paid),
                "{dialect:?}"
            );
            let mut seen = forms(&server);
            seen.iter_mut().for_each(|call| call.sort());
            let mut expected = shown.clone();
            expected.iter_mut().for_each(|call| call.sort());
            assert_eq!(seen, expected, "{dialect:?}");
            assert_eq!(nonces(&server).len(), 1, "{dialect:?}");
            let settled = paywall.settlements();
            assert_eq!(settled.len(), 1, "{dialect:?}");
            assert_eq!(
                answer.receipt().unwrap().transaction(),
                settled.first().unwrap().transaction
            );
            let purchases = purchases(&client).await;
            assert_eq!(
                (purchases.len(), purchases[0].state),
                (1, State::Settled),
                "{dialect:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_dialect_with_its_payment_elsewhere_is_refused_before_signing() {
    let (paywall, server) = shop(report(), Dialect::Sep2007).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    let error = session.report().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NotPayable, PaymentStatus::NotPaid)
    );
    assert!(error.to_string().contains("SEP-2007"), "{error}");
    assert!(purchases(&client).await.is_empty());
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn a_purchase_id_shows_its_payment_in_the_form_of_the_server_again() {
    let (paywall, server) = shop(report().idempotent(), Dialect::Cloudflare).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    for _ in 0..2 {
        let call = session.tools.call("report").purchase_id("order-1");
        let answer = call.send().await.unwrap();
        assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!((nonces(&server).len(), paywall.settlements().len()), (1, 1));
}

#[tokio::test]
async fn a_real_refusal_is_not_shown_in_another_form() {
    let (_paywall, server) = shop(report().fault(Fault::SettlementFailure), Dialect::Text).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    let refused = session.report().await;
    let status = refused.map_or_else(
        |error| error.payment_status(),
        |answer| answer.payment_status(),
    );
    assert_eq!(status, PaymentStatus::MaybePaid);
    assert_eq!(
        forms(&server).len(),
        2,
        "one call without and one with a payment"
    );
}

#[tokio::test]
async fn terms_that_contradict_each_other_are_refused_before_signing() {
    let result = |amount: &str| {
        json!({ "x402Version": 2, "resource": { "url": "x402://report" }, "accepts": [{
            "scheme": "exact", "network": "eip155:84532", "amount": amount,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x2222222222222222222222222222222222222222", "maxTimeoutSeconds": 60,
            "extra": { "name": "USDC", "version": "2" } }] })
    };
    let route = Route::get("/report").body("x");
    let (paywall, server) = shop(route, Dialect::Standard).await;
    server.answer_with(json!({
        "isError": true, "content": [],
        "structuredContent": result("10000"), "_meta": { "x402/error": result("20000") },
    }));
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    let error = session.report().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid)
    );
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn a_payment_at_the_endpoint_shows_in_the_answer_of_the_tool() {
    let (paywall, server) = shop(report(), Dialect::Http).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    let answer = session.report().await.unwrap();
    assert_eq!(
        (text(&answer), answer.payment_status()),
        ("the report", PaymentStatus::Paid)
    );
    let settled = paywall.settlements();
    assert_eq!(
        answer.receipt().unwrap().transaction(),
        settled[0].transaction
    );
    assert_eq!(answer.payments().count(), 1);
    let free = session.tools.call("free").send().await.unwrap();
    assert_eq!(free.payment_status(), PaymentStatus::NotPaid);
}

#[tokio::test]
async fn asking_an_endpoint_for_a_price_pays_nothing_and_the_options_of_a_call_hold_there() {
    let (paywall, server) = shop(report().idempotent(), Dialect::Http).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    let PriceOutcome::Priced(check) = session.tools.call("report").quote().await.unwrap() else {
        panic!("it has a price")
    };
    assert_eq!(check.best().unwrap().dollars(), Some(usd!("0.01")));
    let dear = session.tools.call("report").max_price(usd!("0.001"));
    let error = dear.send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::MaxPrice, "{error}");
    let unpaid = session.tools.call("report").no_payment().send().await;
    assert_eq!(unpaid.unwrap_err().payment_status(), PaymentStatus::NotPaid);
    assert!(purchases(&client).await.is_empty());
    let tagged = session.tools.call("report").tag("t").purchase_id("order-1");
    tagged.clone().send().await.unwrap();
    tagged.send().await.unwrap();
    let purchases = purchases(&client).await;
    assert_eq!(
        (
            purchases.len(),
            purchases[0].id.as_str(),
            purchases[0].tag.as_deref()
        ),
        (1, "order-1", Some("t"))
    );
    assert_eq!(distinct_payments(&paywall), 1);
}

#[tokio::test]
async fn a_call_with_another_id_and_in_another_session_shows_the_same_payment() {
    let route = report()
        .idempotent()
        .fault_once(Fault::ServerErrorAfterSettle);
    let (paywall, server) = shop(route, Dialect::Http).await;
    let client = client().retry_policy(RetryPolicy::once()).build().unwrap();
    let session = Session::open(&client, &server).await;
    let call = session.tools.call("report");
    let lost = call.arguments(json!({ "a": 1, "b": { "c": 2, "d": 3 } }));
    let error = lost.send().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::MaybePaid, "{error}");
    drop(session);
    let session = Session::open(&client, &server).await;
    let call = session.tools.call("report");
    let again = call.arguments(json!({ "b": { "d": 3, "c": 2 }, "a": 1 }));
    let answer = again.send().await.unwrap();
    assert_eq!(
        (text(&answer), answer.payment_status()),
        ("the report", PaymentStatus::Paid)
    );
    assert_eq!(
        (
            distinct_payments(&paywall),
            paywall.settlements().len(),
            purchases(&client).await.len()
        ),
        (1, 1, 1)
    );
    let ids: Vec<_> = server
        .messages()
        .into_iter()
        .filter(|m| m["method"] == "tools/call")
        .map(|m| m["id"].clone())
        .collect();
    assert!(ids.len() >= 3, "{ids:?}");
}

#[tokio::test]
async fn a_session_lost_at_the_paid_request_costs_one_payment_and_keeps_its_receipt() {
    for (status, duplicate) in [(404, false), (404, true), (400, false)] {
        let (paywall, server) = shop(report().idempotent(), Dialect::Http).await;
        let client = client().build().unwrap();
        let session = Session::open(&client, &server).await;
        server.lose_session(status);
        let mut call = session.tools.call("report");
        if duplicate {
            call = call.allow_duplicate();
        }
        let answer = call.send().await.unwrap();
        assert_eq!(
            (
                text(&answer),
                answer.payment_status(),
                answer.payments().count()
            ),
            ("the report", PaymentStatus::Paid, 1),
            "{status}"
        );
        assert_eq!(
            (
                distinct_payments(&paywall),
                payments_sent(&paywall),
                paywall.settlements().len()
            ),
            (1, 2, 1),
            "{status}"
        );
        let bought = purchases(&client).await;
        assert_eq!((bought.len(), bought[0].state), (1, State::Settled));
        let sessions = server
            .messages()
            .into_iter()
            .filter(|m| m["method"] == "initialize");
        assert_eq!(sessions.count(), 2);
        // A call on purpose is a new purchase.
        let more = session.tools.call("report").allow_duplicate().send().await;
        assert_eq!(more.unwrap().payment_status(), PaymentStatus::Paid);
        assert_eq!(paywall.settlements().len(), 2);
    }
}

#[tokio::test]
async fn a_session_lost_at_a_payment_in_the_call_shows_the_same_payment() {
    let (paywall, server) = shop(report().idempotent(), Dialect::Standard).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    server.lose_session(404);
    let answer = session.report().await.unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert_eq!((nonces(&server).len(), paywall.settlements().len()), (1, 1));
}

#[tokio::test]
async fn only_tool_calls_are_paid_unless_the_policy_names_the_method() {
    let charged = |path: &str| Route::get(path).price(usd!("0.01"));
    for (method, path) in [
        ("initialize", "/initialize"),
        ("tools/list", "/tools/list"),
        ("ping", "/ping"),
    ] {
        let (paywall, server) = shop(charged(path), Dialect::Http).await;
        let url = server.url().as_str();
        let poor = client().build().unwrap();
        let opened = ().serve(mcp::connect(&poor, url).unwrap()).await;
        let error = match (&opened, method) {
            (Err(error), _) => mcp::error(error),
            (Ok(service), "ping") => {
                let ping = rmcp::model::ClientRequest::PingRequest(Default::default());
                mcp::error(&service.send_request(ping).await.unwrap_err())
            }
            (Ok(service), _) => mcp::error(&service.list_all_tools().await.unwrap_err()),
        };
        let error = error.unwrap();
        assert_eq!(
            (
                error.kind(),
                error.payment_status(),
                payments_sent(&paywall)
            ),
            (ErrorKind::Denied, PaymentStatus::NotPaid, 0)
        );
        let words = error.to_string();
        assert!(
            words.contains(&format!("`{method}`")) && words.contains("mcp_methods"),
            "{words}"
        );
        let rich = client()
            .policy(policy().pay_mcp_method(method))
            .build()
            .unwrap();
        let service = ().serve(mcp::connect(&rich, url).unwrap()).await.unwrap();
        match method {
            "ping" => drop(
                service
                    .send_request(rmcp::model::ClientRequest::PingRequest(Default::default()))
                    .await
                    .unwrap(),
            ),
            _ => drop(service.list_all_tools().await.unwrap()),
        }
        assert_eq!(paywall.settlements().len(), 1, "{method}");
    }
}

#[tokio::test]
async fn the_time_limit_of_the_caller_is_the_longest_and_an_error_by_ours_names_the_setting() {
    let (_paywall, server) = shop(report().fault(Fault::HangingBody402), Dialect::Standard).await;
    let client = client().build().unwrap();
    let session = Session::open(&client, &server).await;
    let hasty = session
        .tools
        .clone()
        .answer_timeout(Duration::from_millis(50));
    let error = hasty.call("report").send().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("answer_timeout"), "{error}");
    // The call's own limit is longer, and wins.
    let patient = hasty.call("free").timeout(Duration::from_secs(30));
    assert_eq!(text(&patient.send().await.unwrap()), "free");
    drop(session);
}

fn tool(members: Value) -> Tool {
    let mut tool = json!({ "name": "t", "inputSchema": { "type": "object" } });
    tool.as_object_mut()
        .unwrap()
        .extend(members.as_object().unwrap().clone());
    serde_json::from_value(tool).unwrap()
}

#[test]
fn prices_in_the_list_are_read_without_a_call_and_an_unknown_price_is_not_free() {
    let offer = json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "10000",
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x2222222222222222222222222222222222222222", "maxTimeoutSeconds": 60,
        "extra": { "name": "USDC", "version": "2" },
    });
    for (meta, shown) in [
        (
            json!({ "x402": { "accepts": [offer], "scheme": "exact", "amount": "10000" } }),
            "0.01 USDC",
        ),
        (
            json!({ "x402": { "x402Version": 2, "accepts": [offer] } }),
            "0.01 USDC",
        ),
        (json!({ "x402/accepts": [offer] }), "0.01 USDC"),
        (json!({ "x402": offer }), "0.01 USDC"),
        (
            json!({ "x402": { "paymentRequirements": [offer] } }),
            "0.01 USDC",
        ),
        (
            json!({ "agents-x402/paymentRequired": true, "agents-x402/priceUSD": 0.01 }),
            "0.01 USD",
        ),
        (json!({ "agents-x402/priceUSD": "$0.01" }), "0.01 USD"),
        (json!({ "x402/price": "$0.25" }), "0.25 USD"),
        (
            json!({ "x402/price": { "amount": "0.02", "currency": "USD" } }),
            "0.02 USD",
        ),
        (json!({ "x402/priceUSD": 0.00001 }), "0.00001 USD"),
        (json!({ "agents-x402/paymentRequired": true }), "unknown"),
        (json!({ "agents-x402/paymentRequired": false }), "free"),
        (json!({ "other": 1 }), "unknown"),
    ] {
        let listed = listed_price(&tool(json!({ "_meta": meta.clone() })));
        assert_eq!(listed.to_string(), shown, "{meta}");
    }
    assert!(matches!(
        listed_price(&tool(json!({}))),
        ListedPrice::Unknown
    ));
}
