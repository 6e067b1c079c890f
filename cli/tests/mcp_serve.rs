//! `bursar mcp serve`: the real binary with the MCP client of rmcp, against a paywall.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
#[path = "support/agent.rs"]
mod agent;
#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use agent::params;
use agent::{Session, User, session, stateless};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::usd;
use bursar_testing::{Bazaar, Fault, Paywall, Route};
use rmcp::model::ProtocolVersion;
use serde_json::{Value, json};
use support::{CliHarness, KEY, PAYEE, PAYER, USDC, policy, report};
use tokio::task::JoinSet;

const ASK: &str = "[global]\nask_above = \"0.005 USD\"";

#[tokio::test]
async fn five_tools_are_listed_with_their_arguments() {
    let harness = CliHarness::new(report()).await;
    for lifecycle in [session(), stateless()] {
        let session = Session::open_as(&harness, &[], User::default(), lifecycle).await;
        let tools = session.client.list_all_tools().await.unwrap();
        let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
        assert_eq!(names, ["pay", "quote", "budget", "purchase", "discover"]);
        for tool in &tools {
            assert_eq!(
                tool.input_schema["additionalProperties"],
                json!(false),
                "{tool:?}"
            );
            let properties = tool
                .input_schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten();
            assert!(
                properties
                    .clone()
                    .all(|(_, property)| property["description"].is_string()),
                "{tool:?}"
            );
        }
        assert_eq!(tools[0].input_schema["required"], json!(["url"]));
        session.close(&harness).await;
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn denials_are_kept_in_postgres_when_the_agent_leaves() {
    let server = std::env::var("BURSAR_TEST_POSTGRES").expect("run by tests/postgres/run");
    let options: Vec<&str> = server.split_whitespace().collect();
    let url = format!("postgres:///?{}", options.join("&"));
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &["--ledger", &url]).await;
    // More than the ledger writes at once.
    for _ in 0..40 {
        let arguments = json!({ "url": harness.url(), "max_price": "0.001" });
        let result = session.call("pay", arguments).await;
        assert_eq!(result["error"]["denial"]["rule"], "max_price", "{result}");
    }
    // It says on standard error that it begins a ledger.
    assert_eq!(session.end(&harness).await.code, 0);
    let report = harness
        .run(&["report", "--ledger", &url, "--format", "json"])
        .await;
    let denials = report.json()["denials"].clone();
    assert_eq!(
        (&denials[0]["rule"], &denials[0]["count"]),
        (&json!("max_price"), &json!(40))
    );
}

#[tokio::test]
async fn a_request_with_a_price_is_paid() {
    let harness = CliHarness::new(report().header("content-type", "text/plain")).await;
    for lifecycle in [session(), stateless()] {
        let before = harness.settled();
        let session = Session::open_as(
            &harness,
            &["--agent", "researcher"],
            User::default(),
            lifecycle,
        )
        .await;
        let result = session
            .call("pay", json!({ "url": harness.url(), "tag": "reports" }))
            .await;
        let settlement = &harness.paywall.settlements()[before];
        let authorization = settlement.authorization;
        let expected = json!({
            "payment": "paid",
            "status": 200,
            "authorization": {
                "amount": "10000", "asset": USDC, "network": "eip155:84532", "payTo": PAYEE,
                "nonce": authorization.nonce.to_string(), "validBefore": authorization.valid_before,
            },
            "receipt": {
                "success": true, "transaction": settlement.transaction.to_string(), "network": "eip155:84532",
                "payer": PAYER,
            },
            "error": null,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&result[key], value, "{key}");
        }
        assert_eq!(
            (
                &result["untrusted"]["body"],
                &result["untrusted"]["encoding"]
            ),
            (&json!("the report"), &json!("utf-8"))
        );
        assert_eq!(result["untrusted"]["truncated"], false);
        assert_eq!(result["untrusted"]["headers"]["content-type"], "text/plain");
        assert!(
            result["untrusted"]["headers"]
                .get("payment-response")
                .is_none()
        );

        let looked_up = session
            .call("purchase", json!({ "purchase_id": result["purchase_id"] }))
            .await;
        for (key, value) in [
            ("payment", json!("paid")),
            ("state", json!("settled")),
            ("price", json!("0.01 USDC")),
            ("receipt", result["receipt"].clone()),
            ("tag", json!("reports")),
            ("agent", json!("researcher")),
        ] {
            assert_eq!(looked_up[key], value, "{key}");
        }
        session.close(&harness).await;
    }
    assert_eq!(harness.settled(), 2);
}

#[tokio::test]
async fn a_free_request_is_not_paid_and_an_error_status_is_an_error() {
    let routes = [
        Route::get("/report").body("free"),
        Route::get("/missing").status(404).body("nothing here"),
    ];
    let harness = CliHarness::with_routes(routes).await;
    let session = Session::open(&harness, &[]).await;
    let result = session.call("pay", json!({ "url": harness.url() })).await;
    let nothing = [
        &result["authorization"],
        &result["receipt"],
        &result["purchase_id"],
        &result["error"],
    ];
    assert!(nothing.iter().all(|value| value.is_null()), "{result}");
    assert_eq!(
        (&result["payment"], &result["untrusted"]["body"]),
        (&json!("not_paid"), &json!("free"))
    );

    let result = session
        .call(
            "pay",
            json!({ "url": harness.paywall.url("/missing").as_str() }),
        )
        .await;
    assert_eq!(
        (
            &result["payment"],
            &result["status"],
            &result["error"]["kind"]
        ),
        (&json!("not_paid"), &json!(404), &json!("status"))
    );
    assert_eq!(result["untrusted"]["body"], "nothing here");
    assert_eq!(harness.payments(), 0);
    session.close(&harness).await;
}

#[tokio::test]
async fn an_unknown_result_is_resumed_by_its_purchase_id_and_paid_once() {
    let harness = CliHarness::new(report().idempotent().fault_once(Fault::HangAfterSettle)).await;
    let session = Session::open(&harness, &["--timeout", "1"]).await;
    let result = session.call("pay", json!({ "url": harness.url() })).await;
    assert_eq!(
        (&result["payment"], &result["error"]["kind"]),
        (&json!("maybe_paid"), &json!("timeout")),
        "{result}"
    );
    assert!(
        result["error"]["next"]
            .as_str()
            .unwrap()
            .contains("purchase_id")
    );
    assert_eq!(
        result["authorization"]["nonce"],
        harness.paywall.settlements()[0]
            .authorization
            .nonce
            .to_string()
    );
    let id = &result["purchase_id"];
    let looked_up = session.call("purchase", json!({ "purchase_id": id })).await;
    assert_eq!(
        (&looked_up["payment"], &looked_up["state"]),
        (&json!("maybe_paid"), &json!("unresolved"))
    );
    session.close(&harness).await;

    // A new process, as after a restart of the agent.
    let session = Session::open(&harness, &[]).await;
    let result = session
        .call("pay", json!({ "url": harness.url(), "purchase_id": id }))
        .await;
    assert_eq!(
        (&result["payment"], &result["untrusted"]["body"]),
        (&json!("paid"), &json!("the report")),
        "{result}"
    );
    assert_eq!(&result["purchase_id"], id);
    let other = session
        .call(
            "pay",
            json!({ "url": harness.url(), "method": "POST", "purchase_id": id }),
        )
        .await;
    assert_eq!(
        (&other["payment"], &other["error"]["kind"]),
        (&json!("not_paid"), &json!("purchase")),
        "{other}"
    );
    assert_eq!(
        session.call("purchase", json!({ "purchase_id": id })).await["payment"],
        "paid"
    );
    let missing = session
        .call("purchase", json!({ "purchase_id": "never-made" }))
        .await;
    assert_eq!(missing["error"]["kind"], "purchase");
    session.close(&harness).await;
    assert_eq!((harness.settled(), harness.distinct_payments()), (1, 1));
}

#[tokio::test]
async fn a_quote_pays_nothing() {
    let routes = [
        report(),
        Route::get("/free").body("free"),
        Route::get("/expensive").price(usd!("9")),
    ];
    let harness = CliHarness::with_routes(routes).await;
    let session = Session::open(&harness, &[]).await;
    let result = session.call("quote", json!({ "url": harness.url() })).await;
    let offer = &result["quote"]["offers"][0];
    assert_eq!(
        (&result["quote"]["best"], &offer["verdict"]),
        (&json!(0), &json!("allowed")),
        "{result}"
    );
    assert_eq!(
        (&offer["price"], &offer["payTo"]),
        (&json!("0.01 USDC"), &json!(PAYEE))
    );
    let result = session
        .call(
            "quote",
            json!({ "url": harness.paywall.url("/expensive").as_str() }),
        )
        .await;
    let offer = &result["quote"]["offers"][0];
    assert_eq!(
        (&result["quote"]["best"], &offer["denial"]["rule"]),
        (&json!(null), &json!("per_payment")),
        "{result}"
    );
    let result = session
        .call(
            "quote",
            json!({ "url": harness.paywall.url("/free").as_str() }),
        )
        .await;
    assert_eq!(
        (&result["payment"], &result["untrusted"]["body"]),
        (&json!("not_paid"), &json!("free"))
    );
    session.close(&harness).await;
    assert_eq!(harness.payments(), 0);
}

#[tokio::test]
async fn calls_above_the_limit_wait_for_their_turn() {
    let harness = CliHarness::new(Route::get("/report").body("free")).await;
    let session = Session::open(&harness, &[]).await;
    let mut calls = JoinSet::new();
    for _ in 0..40 {
        let (peer, arguments) = (
            session.client.peer().clone(),
            json!({ "url": harness.url() }),
        );
        calls.spawn(async move { peer.call_tool(params("pay", arguments)).await });
    }
    let result = calls.join_all().await;
    let bodies = result.iter().map(|result| {
        &result
            .as_ref()
            .unwrap()
            .structured_content
            .as_ref()
            .unwrap()["untrusted"]["body"]
    });
    assert_eq!(bodies.filter(|body| **body == "free").count(), 40);
    session.close(&harness).await;
    assert_eq!(harness.paywall.requests().len(), 40);
}

#[tokio::test]
async fn a_body_is_cut_at_the_limit_and_binary_data_is_base64() {
    let bytes = [0xff_u8, 0, 1, 2];
    let harness = CliHarness::with_routes([
        report(),
        Route::get("/bytes").body(bytes.to_vec()),
        Route::post("/echo").echo(),
    ])
    .await;
    let session = Session::open(&harness, &["--body-limit", "4"]).await;
    let result = session.call("pay", json!({ "url": harness.url() })).await;
    let untrusted = &result["untrusted"];
    assert_eq!(
        (
            &result["payment"],
            &untrusted["body"],
            &untrusted["truncated"]
        ),
        (&json!("paid"), &json!("the "), &json!(true))
    );
    let result = session
        .call(
            "pay",
            json!({ "url": harness.paywall.url("/bytes").as_str() }),
        )
        .await;
    let untrusted = &result["untrusted"];
    assert_eq!(
        (&untrusted["body"], &untrusted["encoding"]),
        (&json!(STANDARD.encode(bytes)), &json!("base64"))
    );
    assert_eq!(untrusted["truncated"], false);
    let result = session
        .call(
            "pay",
            json!({ "url": harness.paywall.url("/echo").as_str(), "body": "{\"a\":1}" }),
        )
        .await;
    assert_eq!(
        (
            &result["untrusted"]["body"],
            &result["untrusted"]["truncated"]
        ),
        (&json!("{\"a\""), &json!(true))
    );
    assert_eq!(
        harness
            .paywall
            .requests()
            .last()
            .unwrap()
            .header("content-type"),
        Some("application/json")
    );
    session.close(&harness).await;
}

#[tokio::test]
async fn a_server_that_cannot_pay_does_not_start() {
    let harness = CliHarness::new(report()).await;
    let ended = harness.run(&["mcp", "serve"]).await;
    assert_eq!((ended.code, ended.text()), (2, ""), "no network: {ended:?}");
    let mut command = harness.command(&["mcp", "serve", "--network", "base-sepolia"]);
    command.env_remove("BURSAR_PRIVATE_KEY");
    let ended = harness.end(command, b"").await;
    assert_eq!((ended.code, ended.text()), (2, ""), "no key: {ended:?}");
    // No client connects.
    let ended = harness
        .run(&["mcp", "serve", "--network", "base-sepolia"])
        .await;
    assert_eq!(
        (ended.code, ended.text(), ended.stderr.as_str()),
        (0, "", "")
    );
}

#[tokio::test]
async fn invalid_messages_on_standard_input_are_refused() {
    let harness = CliHarness::new(report()).await;
    let session = Session::open(&harness, &[]).await;
    assert_eq!(
        session.client.peer_info().unwrap().protocol_version,
        ProtocolVersion::V_2025_11_25
    );
    session.close(&harness).await;
    let noise = b"not json\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"pay\"}}\n";
    let ended = harness
        .end(
            harness.command(&["mcp", "serve", "--network", "base-sepolia"]),
            noise,
        )
        .await;
    assert!(
        ended.lines().iter().all(|line| line["error"].is_object()),
        "{ended:?}"
    );
    assert!(harness.paywall.requests().is_empty());
}

/// `tests/interop/run` installs the packages and runs this test.
#[tokio::test]
#[ignore = "needs the Python packages of tests/interop"]
async fn the_official_python_client_pays() {
    let harness =
        CliHarness::with_routes([report(), Route::get("/dear").price(usd!("0.02"))]).await;
    let interop = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/interop");
    let python = std::env::var("BURSAR_INTEROP_PYTHON")
        .unwrap_or_else(|_| format!("{interop}/.venv/bin/python"));
    let mut command = std::process::Command::new(python);
    command
        .arg(format!("{interop}/mcp_serve.py"))
        .env("BURSAR", env!("CARGO_BIN_EXE_bursar"));
    command
        .env("POLICY", policy(&harness, ASK))
        .env("URL", harness.paywall.url("/").as_str())
        .env("BURSAR_PRIVATE_KEY", KEY);
    let ended = harness.end(command, b"").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let result = ended.json();
    assert_eq!(
        result["tools"],
        json!(["pay", "quote", "budget", "purchase", "discover"])
    );
    assert_eq!(
        (&result["cheap"]["payment"], &result["cheap"]["isError"]),
        (&json!("paid"), &json!(false))
    );
    assert_eq!(result["cheap"]["untrusted"]["body"], "the report");
    assert_eq!(
        (&result["dear"]["payment"], &result["dear"]["isError"]),
        (&json!("not_paid"), &json!(true))
    );
    assert_eq!(result["dear"]["error"]["denial"]["rule"], "approval");
    assert!(result["budget"]["limits"].is_array());
    assert_eq!(harness.settled(), 1);
}

#[tokio::test]
async fn only_services_in_the_lists_of_the_operator_are_found() {
    let paywall = Paywall::builder().route(report()).start().await.unwrap();
    let advertised = paywall.advertisement("/report", "a report");
    let bazaar = Bazaar::builder().item(advertised).start().await.unwrap();
    let harness = CliHarness::new(report()).await;
    let file = policy(
        &harness,
        &format!("[discovery]\nbazaar = \"{}\"", bazaar.url("/")),
    );
    let session = Session::open(&harness, &["--policy", &file]).await;
    let found = session.call("discover", json!({ "query": "report" })).await;
    let service = &found["services"][0];
    assert_eq!(
        (&service["standing"], &service["untrusted"]["url"]),
        (&json!("payable"), &json!(paywall.url("/report").as_str())),
        "{found}"
    );
    let bought = session
        .call(
            "pay",
            json!({ "url": service["untrusted"]["url"], "max_price": service["usd"] }),
        )
        .await;
    assert_eq!(bought["payment"], "paid", "{bought}");
    assert_eq!(paywall.settlements().len(), 1);
    session.close(&harness).await;
    let without = Session::open(&harness, &[]).await;
    let looked = bazaar.requests().len();
    for arguments in [
        json!({ "query": "report" }),
        json!({ "query": "report", "bazaar": bazaar.url("/").as_str() }),
    ] {
        let refused = without.call("discover", arguments).await;
        assert_eq!(
            (&refused["payment"], &refused["error"]["kind"]),
            (&json!("not_paid"), &json!("usage")),
            "{refused}"
        );
    }
    assert_eq!(
        bazaar.requests().len(),
        looked,
        "an agent could name a list of its own"
    );
    without.close(&harness).await;
}
