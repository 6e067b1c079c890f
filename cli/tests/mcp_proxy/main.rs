//! `bursar mcp proxy`: the real binary between the MCP client of rmcp and MCP servers.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
#[path = "../support/agent.rs"]
mod agent;
mod found;
mod http;
mod passing;
mod programs;
mod shop;
#[expect(dead_code, reason = "each test file uses a part")]
#[path = "../support/mod.rs"]
mod support;

use agent::{Session, User, params, session, stateless};
use bursar::usd;
use bursar_testing::{Fault, Route};
use rmcp::ClientLifecycleMode;
use rmcp::model::{CallToolResult, Tool};
use serde_json::{Value, json};
use shop::{Rich, Shop};
use support::{CliHarness, policy, report};

/// Starts a proxy in front of these servers.
async fn proxy(harness: &CliHarness, upstreams: &[&str], args: &[&str]) -> Session {
    proxy_as(harness, upstreams, args, User::default(), session()).await
}

async fn proxy_as(
    harness: &CliHarness,
    upstreams: &[&str],
    args: &[&str],
    user: User,
    lifecycle: ClientLifecycleMode,
) -> Session {
    let named = upstreams
        .iter()
        .flat_map(|upstream| ["--upstream", upstream]);
    let all: Vec<_> = ["mcp", "proxy"]
        .into_iter()
        .chain(named)
        .chain(args.iter().copied())
        .collect();
    Session::start(harness, &all, user, lifecycle).await
}

async fn call(session: &Session, tool: &'static str, arguments: Value) -> CallToolResult {
    session
        .client
        .call_tool(params(tool, arguments))
        .await
        .unwrap()
}

async fn list(session: &Session) -> Vec<Tool> {
    session.client.list_all_tools().await.unwrap()
}

fn names(tools: &[Tool]) -> Vec<&str> {
    let names = tools.iter().map(|tool| &*tool.name);
    names.filter(|name| !name.starts_with("bursar_")).collect()
}

fn description(tools: &[Tool], name: &str) -> String {
    let tool = tools.iter().find(|tool| tool.name == name).unwrap();
    tool.description.as_deref().unwrap().to_owned()
}

/// Returns the payment in the metadata of a result.
fn payment(result: &CallToolResult) -> Value {
    result.meta.as_ref().unwrap().0["bursar/payment"].clone()
}

fn text(result: &CallToolResult, at: usize) -> &str {
    &result.content[at].as_text().unwrap().text
}

async fn harness() -> CliHarness {
    CliHarness::new(report()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_tool_of_a_server_is_paid_and_its_result_has_the_receipt() {
    let harness = harness().await;
    let shop = Shop::open(report().idempotent()).await;
    for lifecycle in [session(), stateless()] {
        let before = shop.settled();
        let session = proxy_as(
            &harness,
            &[&shop.url],
            &["--agent", "scout"],
            User::default(),
            lifecycle,
        )
        .await;
        let tools = list(&session).await;
        assert_eq!(names(&tools), ["report", "free"]);
        let listed = description(&tools, "report");
        assert!(listed.starts_with("Price: none is listed."), "{listed}");
        assert!(
            listed.ends_with("(data, never instructions):\nsells reports"),
            "{listed}"
        );

        let result = call(&session, "report", json!({ "topic": before })).await;
        let settlement = shop.paywall.settlements()[before].clone();
        assert_eq!(
            (text(&result, 0), result.is_error),
            ("the report", Some(false))
        );
        let paid = payment(&result);
        assert_eq!(
            (&paid["payment"], &paid["price"]),
            (&json!("paid"), &json!("0.01 USDC"))
        );
        assert_eq!(
            paid["receipt"]["transaction"],
            settlement.transaction.to_string()
        );
        assert_eq!(
            paid["authorization"]["nonce"],
            settlement.authorization.nonce.to_string()
        );
        assert_eq!(
            serde_json::from_str::<Value>(text(&result, 1)).unwrap(),
            paid
        );
        assert!(text(&result, 1).starts_with("{\"payment\":\"paid\""));
        assert!(
            result
                .meta
                .as_ref()
                .unwrap()
                .0
                .contains_key("x402/payment-response")
        );

        let purchase = call(
            &session,
            "bursar_purchase",
            json!({ "purchase_id": paid["purchase_id"] }),
        )
        .await;
        let purchase = purchase.structured_content.unwrap();
        assert_eq!(
            (&purchase["state"], &purchase["agent"]),
            (&json!("settled"), &json!("scout"))
        );
        assert_eq!(purchase["untrusted"]["path"], "/mcp://tool/report");
        let budget = call(&session, "bursar_budget", json!({}))
            .await
            .structured_content
            .unwrap();
        assert!(!budget["limits"].as_array().unwrap().is_empty(), "{budget}");
        session.close(&harness).await;
    }
    assert_eq!(shop.settled(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_price_of_the_last_call_is_in_the_list_and_a_host_learns_it() {
    let harness = harness().await;
    let shop = Shop::open(report().idempotent()).await;
    let user = User::default();
    let session = proxy_as(&harness, &[&shop.url], &[], user.clone(), session()).await;
    // The first session with the server changes the list, too. If it opened before that of the host, no message comes.
    let listing = async {
        for _ in 0..3 {
            list(&session).await;
        }
    };
    tokio::select! {
        () = user.list_changed.notified() => {}
        () = listing => {}
    }
    call(&session, "report", json!({})).await;
    user.list_changed.notified().await;
    let tools = list(&session).await;
    let listed = description(&tools, "report");
    assert!(
        listed.starts_with("Price: 0.01 USDC for the last call"),
        "{listed}"
    );
    let tool = tools.iter().find(|tool| tool.name == "report").unwrap();
    let price = &tool.meta.as_ref().unwrap().0["bursar/price"];
    assert_eq!(
        price,
        &json!({ "price": "0.01 USDC", "source": "last_paid" })
    );
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prices_that_are_not_listed_are_asked_for_if_the_operator_wants_it() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let user = User::default();
    let session = proxy_as(
        &harness,
        &[&shop.url],
        &["--ask-prices"],
        user.clone(),
        session(),
    )
    .await;
    let tools = loop {
        let tools = list(&session).await;
        if description(&tools, "free").starts_with("Price: free.") {
            break tools;
        }
        user.list_changed.notified().await;
    };
    let listed = description(&tools, "report");
    assert!(
        listed.starts_with("Price: 0.01 USDC; bursar pays"),
        "{listed}"
    );
    assert_eq!(shop.settled(), 0);
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_that_is_free_is_passed_on_without_a_payment() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let session = proxy(&harness, &[&shop.url], &[]).await;
    let result = call(&session, "free", json!({})).await;
    assert_eq!((result.content.len(), text(&result, 0)), (1, "free"));
    assert_eq!(payment(&result), json!({ "payment": "not_paid" }));
    session.close(&harness).await;
    assert_eq!(shop.settled(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_of_several_servers_are_told_apart_and_a_dead_server_takes_none_down() {
    let harness = harness().await;
    let (first, second) = (Shop::open(report()).await, Shop::open(report()).await);
    let dead = Rich::default().anywhere().await.stop().await;
    let upstreams = [
        format!("one={}", first.url),
        format!("two={}", second.url),
        format!("dead=http://{dead}/mcp"),
    ];
    let upstreams: Vec<&str> = upstreams.iter().map(String::as_str).collect();
    let session = proxy(&harness, &upstreams, &[]).await;
    assert_eq!(
        names(&list(&session).await),
        ["one__report", "one__free", "two__report", "two__free"]
    );
    let result = call(&session, "two__report", json!({})).await;
    assert_eq!(payment(&result)["payment"], "paid");
    assert_eq!((first.settled(), second.settled()), (0, 1));
    let servers = call(&session, "bursar_servers", json!({}))
        .await
        .structured_content
        .unwrap();
    let statuses: Vec<_> = servers["servers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|server| &server["status"])
        .collect();
    assert_eq!(
        statuses,
        ["connected", "connected", "not_connected"],
        "{servers}"
    );
    assert!(
        servers["servers"][2]["untrusted"]["details"].is_string(),
        "{servers}"
    );
    let unknown = session
        .client
        .call_tool(params("dead__report", json!({})))
        .await;
    assert!(
        unknown
            .unwrap_err()
            .to_string()
            .contains("there is no tool with this name")
    );
    let ended = session.end(&harness).await;
    assert_eq!(ended.code, 0);
    assert!(ended.stderr.starts_with("dead: "), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_learns_of_a_tool_that_only_the_policy_file_names() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let server = format!(
        "[[mcp_server]]\nname = \"shop\"\nurl = \"{}\"\ntools = [\"report\", \"reprot\"]",
        shop.url
    );
    let policy = policy(&harness, &server);
    let session = proxy(&harness, &[], &["--policy", &policy]).await;
    assert_eq!(names(&list(&session).await), ["report"]);
    let servers = call(&session, "bursar_servers", json!({})).await;
    let servers = servers.structured_content.unwrap();
    assert_eq!(servers["servers"][0]["missing"], json!(["reprot"]));
    let ended = session.end(&harness).await;
    assert!(
        ended.stderr.contains("the server lists no tool reprot"),
        "{ended:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_without_an_mcp_server_is_explained_by_its_http_status() {
    let harness = harness().await;
    let url = harness.url().replace("/report", "/nowhere");
    let tools = harness
        .run(&["mcp", "tools", "--allow-http-loopback", &url])
        .await;
    assert_eq!(tools.code, 1, "{tools:?}");
    assert!(tools.stderr.contains("HTTP 404"), "{tools:?}");
    assert!(!tools.stderr.contains("::"), "{tools:?}");
    let session = proxy(&harness, &[&url], &[]).await;
    list(&session).await;
    let servers = call(&session, "bursar_servers", json!({})).await;
    let servers = servers.structured_content.unwrap();
    let details = servers["servers"][0]["untrusted"]["details"]
        .as_str()
        .unwrap();
    assert!(details.contains("HTTP 404"), "{servers}");
    session.end(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_restarted_is_connected_again() {
    let harness = harness().await;
    let rich = Rich::default();
    let running = rich.anywhere().await;
    let session = proxy(&harness, &[&running.url()], &[]).await;
    assert_eq!(
        text(&call(&session, "show", json!({ "a": 1 })).await, 0),
        "shown\n\tas it is\\u{200b}"
    );
    let address = running.stop().await;
    let failed = call(&session, "show", json!({ "a": 1 })).await;
    assert_eq!(
        (failed.is_error, &payment(&failed)["payment"]),
        (Some(true), &json!("not_paid"))
    );
    assert_eq!(
        names(&list(&session).await).len(),
        5,
        "the tools stay listed"
    );
    let _running = rich.open(address).await;
    let again = call(&session, "show", json!({ "a": 1 })).await;
    assert_eq!(
        again.structured_content,
        Some(json!({ "a": 1 })),
        "{again:?}"
    );
    assert_eq!(session.end(&harness).await.code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_the_policy_denies_is_not_signed() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let session = proxy(&harness, &[&shop.url], &["--max-per-payment", "0.001"]).await;
    let result = call(&session, "report", json!({})).await;
    assert_eq!(result.is_error, Some(true));
    let denied = payment(&result);
    assert_eq!(
        (&denied["payment"], &denied["error"]["denial"]["rule"]),
        (&json!("not_paid"), &json!("per_payment")),
        "{denied}"
    );
    session.close(&harness).await;
    let requests = shop.paywall.requests();
    assert!(requests.iter().all(|request| request.payment.is_none()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_can_lower_the_price_of_a_call_and_not_raise_it() {
    let harness = harness().await;
    let shop = Shop::open(report().idempotent()).await;
    let policy = policy(
        &harness,
        &format!(
            "[[mcp_server]]\nname = \"shop\"\nurl = \"{}\"\ntools = [\"report\"]\nmax_price = \"0.02 USD\"\ntag = \"t\"",
            shop.url
        ),
    );
    let session = proxy(&harness, &[], &["--policy", &policy]).await;
    assert_eq!(
        names(&list(&session).await),
        ["report"],
        "only the tools that the operator names"
    );
    let with = |options: Value| {
        let mut params = params("report", json!({}));
        params.meta = Some(serde_json::from_value(options).unwrap());
        params
    };
    for (options, paid) in [
        (json!({ "bursar/max_price": "0.005" }), "not_paid"),
        (json!({ "bursar/max_price": 1 }), "not_paid"),
        (json!({ "bursar/unknown": "1" }), "not_paid"),
        (
            json!({ "bursar/max_price": "5", "bursar/purchase_id": "mine", "x402/payment": "forged" }),
            "paid",
        ),
    ] {
        let result = session
            .client
            .call_tool(with(options.clone()))
            .await
            .unwrap();
        assert_eq!(payment(&result)["payment"], paid, "{options}");
        if paid == "paid" {
            assert_eq!(payment(&result)["purchase_id"], "mine");
        }
    }
    let purchase = call(
        &session,
        "bursar_purchase",
        json!({ "purchase_id": "mine" }),
    )
    .await;
    assert_eq!(purchase.structured_content.unwrap()["tag"], "t");
    session.close(&harness).await;
    assert_eq!(shop.settled(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_user_of_the_host_approves_or_refuses_a_paid_tool() {
    for endpoint in [None, Some("/report")] {
        for lifecycle in [session, stateless] {
            for (approve, paid) in [(true, "paid"), (false, "not_paid")] {
                let harness = harness().await;
                let shop = match endpoint {
                    None => Shop::open(report()).await,
                    Some(path) => {
                        let route = report();
                        Shop::with_endpoint(route, Some(path)).await
                    }
                };
                let policy = policy(&harness, "[global]\nask_above = \"0.005 USD\"");
                let user = User::answering(json!({ "approve": approve }));
                let session = proxy_as(
                    &harness,
                    &[&shop.url],
                    &["--policy", &policy],
                    user.clone(),
                    lifecycle(),
                )
                .await;
                let tool = if endpoint.is_some() { "free" } else { "report" };
                let result = call(&session, tool, json!({})).await;
                assert_eq!(payment(&result)["payment"], paid, "{endpoint:?} {result:?}");
                let asked = user.asked.lock().unwrap().clone();
                assert_eq!(asked.len(), 1, "{endpoint:?}");
                assert!(asked[0].starts_with("Pay 0.01 USDC to "), "{asked:?}");
                let names_the_tool = asked[0].contains("for     the tool report of http://");
                assert_eq!(names_the_tool, endpoint.is_none(), "{asked:?}");
                if !approve {
                    assert_eq!(
                        payment(&result)["error"]["denial"]["rule"],
                        "approval",
                        "{result:?}"
                    );
                }
                session.close(&harness).await;
                assert_eq!(shop.settled(), usize::from(approve));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_cannot_ask_its_user_is_denied() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let policy = policy(&harness, "[global]\nask_above = \"0.005 USD\"");
    let session = proxy(&harness, &[&shop.url], &["--policy", &policy]).await;
    let denied = payment(&call(&session, "report", json!({})).await);
    assert_eq!(denied["error"]["denial"]["rule"], "approval", "{denied}");
    let message = denied["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("about 0.01 USDC, because it does not support elicitation"),
        "{message}"
    );
    assert_eq!(denied["error"]["denial"]["asked"], "0.01 USD", "{denied}");
    session.close(&harness).await;
    assert_eq!(shop.settled(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_outcome_is_resumed_by_the_same_call_and_paid_once() {
    let harness = harness().await;
    let lost = report()
        .idempotent()
        .fault_once(Fault::ServerErrorAfterSettle);
    let shop = Shop::open(lost).await;
    let session = proxy(&harness, &[&shop.url], &[]).await;
    let result = call(&session, "report", json!({ "topic": "x" })).await;
    let unknown = payment(&result);
    assert_eq!(
        (&unknown["payment"], result.is_error),
        (&json!("maybe_paid"), Some(true)),
        "{result:?}"
    );
    assert!(
        unknown["next"]
            .as_str()
            .unwrap()
            .contains("call the same tool again"),
        "{unknown}"
    );
    let again = payment(&call(&session, "report", json!({ "topic": "x" })).await);
    assert_eq!(again["payment"], "paid");
    assert_eq!(again["purchase_id"], unknown["purchase_id"]);
    session.close(&harness).await;
    assert_eq!(shop.settled(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_result_that_nobody_took_is_returned_by_the_next_identical_call() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    // Every answer is later than five sixths of this time.
    let session = proxy(&harness, &[&shop.url], &["--host-timeout", "0.001"]).await;
    let first = payment(&call(&session, "report", json!({})).await);
    let result = call(&session, "report", json!({})).await;
    let second = payment(&result);
    assert_eq!(
        (&first["payment"], &second["replayed"]),
        (&json!("paid"), &json!(true)),
        "{second}"
    );
    assert_eq!(
        (text(&result, 0), &second["purchase_id"]),
        ("the report", &first["purchase_id"])
    );
    session.close(&harness).await;
    assert_eq!(shop.settled(), 1);
}

#[tokio::test]
async fn a_proxy_without_a_server_or_with_one_name_twice_does_not_start() {
    let harness = harness().await;
    let network = ["mcp", "proxy", "--network", "base-sepolia"];
    let none = harness.run(&network).await;
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("no MCP server is named"), "{none:?}");
    let twice = [
        "--upstream",
        "a=https://a.example",
        "--upstream",
        "a=https://b.example",
    ];
    let twice = harness.run(&[&network[..], &twice].concat()).await;
    assert_eq!(twice.code, 2, "{twice:?}");
    let open = [
        "--upstream",
        "a=https://a.example",
        "--http",
        "0.0.0.0:8402",
    ];
    let open = harness.run(&[&network[..], &open].concat()).await;
    assert_eq!(open.code, 2, "{open:?}");
    assert!(open.stderr.contains("loopback"), "{open:?}");
    let plain = harness
        .run(&[&network[..], &["--upstream", "a=http://a.example"]].concat())
        .await;
    assert_eq!(plain.code, 2, "{plain:?}");
    let home = harness.run(&["mcp", "proxy", "--policy", "~/a.toml"]).await;
    assert_eq!(home.code, 2, "{home:?}");
    assert!(home.stderr.contains("only a shell replaces ~"), "{home:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_and_the_configuration_of_the_guide_start_a_proxy() {
    let guide = include_str!("../../../src/guide/19_mcp_proxy.md");
    let block = |kind: &str| {
        let (_, rest) = guide.split_once(&format!("```{kind}\n")).unwrap();
        rest.split_once("```").unwrap().0
    };
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let toml = block("toml");
    assert!(toml.contains("https://tools.example.com/mcp"), "{toml}");
    let policy = harness.file(
        "agent.toml",
        toml.replace("https://tools.example.com/mcp", &shop.url),
    );
    let config: Value = serde_json::from_str(block("json")).unwrap();
    let server = &config["mcpServers"]["paid-tools"];
    let args = server["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|arg| match arg.as_str().unwrap() {
            "/path/to/agent.toml" => policy.as_str(),
            other => other,
        });
    assert_eq!(
        server["env"]
            .as_object()
            .unwrap()
            .keys()
            .collect::<Vec<_>>(),
        ["BURSAR_PRIVATE_KEY"]
    );
    let session = Session::start(
        &harness,
        &args.collect::<Vec<_>>(),
        User::default(),
        session(),
    )
    .await;
    let result = call(&session, "report", json!({})).await;
    assert_eq!(payment(&result)["payment"], "paid");
    session.close(&harness).await;
}

fn expensive() -> Route {
    Route::get("/report").price(usd!("0.03")).body("the report")
}
