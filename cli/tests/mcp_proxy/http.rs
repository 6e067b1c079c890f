//! The proxy over streamable HTTP.

use std::process::Stdio;

use bursar::Client;
use bursar::mcp::HttpClient;
use bursar_testing::Fault;
use reqwest::StatusCode;
use rmcp::service::RunningService;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientServiceExt, RoleClient};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr};

use super::{names, params, payment, session, stateless, text};
use crate::agent::User;
use crate::shop::Shop;
use crate::support::{CliHarness, report};

const TOKEN: &str = "a-token-of-at-least-32-characters";

/// A proxy that serves HTTP.
struct Served {
    child: Child,
    url: String,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Served {
    async fn start(
        harness: &CliHarness,
        upstream: &str,
        token: Option<&str>,
        args: &[&str],
    ) -> Self {
        let usual = [
            "mcp",
            "proxy",
            "--http",
            "127.0.0.1:0",
            "--network",
            "base-sepolia",
            "--ledger",
            "ledger.db",
            "--upstream",
            upstream,
        ];
        let mut command = harness.command(&[&usual[..], args].concat());
        if let Some(token) = token {
            command.env("BURSAR_MCP_TOKEN", token);
        }
        let mut command = tokio::process::Command::from(command);
        command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let first = lines.next_line().await.unwrap().unwrap();
        let (_, rest) = first.split_once("serving ").unwrap();
        let (url, _) = rest.split_once(';').unwrap();
        Self {
            child,
            url: url.to_owned(),
            lines,
        }
    }

    async fn connect(
        &self,
        token: &str,
        user: User,
        lifecycle: rmcp::ClientLifecycleMode,
    ) -> RunningService<RoleClient, User> {
        let client = Client::builder().allow_http_loopback(true).build().unwrap();
        let config =
            StreamableHttpClientTransportConfig::with_uri(self.url.as_str()).auth_header(token);
        let transport =
            StreamableHttpClientTransport::with_client(HttpClient::from(client), config);
        user.serve_with_lifecycle(transport, lifecycle)
            .await
            .unwrap()
    }

    /// Ends the proxy with a signal, and returns the rest of its standard error.
    #[cfg(unix)]
    async fn stop(mut self) -> (Option<i32>, String) {
        let id = self.child.id().unwrap().to_string();
        let killed = tokio::process::Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .await;
        assert!(killed.unwrap().success());
        let mut rest = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            rest.push_str(&line);
        }
        (self.child.wait().await.unwrap().code(), rest)
    }
}

fn hello() -> Value {
    json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_with_the_token_share_a_proxy_over_http() {
    let harness = super::harness().await;
    let shop = Shop::open(report().idempotent()).await;
    let served = Served::start(&harness, &shop.url, Some(TOKEN), &[]).await;
    let user = User::answering(json!({ "approve": true }));
    let one = served.connect(TOKEN, user.clone(), session()).await;
    let other = served.connect(TOKEN, User::default(), stateless()).await;
    for (client, topic) in [(&one, "a"), (&other, "b")] {
        let tools = client.list_all_tools().await.unwrap();
        assert_eq!(names(&tools), ["report", "free"]);
        let result = client
            .call_tool(params("report", json!({ "topic": topic })))
            .await
            .unwrap();
        assert_eq!(
            (text(&result, 0), &payment(&result)["payment"]),
            ("the report", &json!("paid"))
        );
    }
    assert_eq!(shop.settled(), 2);
    #[cfg(unix)]
    assert_eq!(served.stop().await, (Some(0), String::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn approvals_go_to_the_session_that_made_the_call() {
    let harness = super::harness().await;
    let shop = Shop::open(report().idempotent()).await;
    let policy = crate::support::policy(&harness, "[global]\nask_above = \"0.005 USD\"");
    let served = Served::start(&harness, &shop.url, Some(TOKEN), &["--policy", &policy]).await;
    let (first, second) = (
        User::answering(json!({ "approve": false })),
        User::answering(json!({ "approve": true })),
    );
    let one = served.connect(TOKEN, first.clone(), session()).await;
    let other = served.connect(TOKEN, second.clone(), session()).await;
    let refused = one.call_tool(params("report", json!({}))).await.unwrap();
    assert_eq!(payment(&refused)["payment"], "not_paid");
    let approved = other.call_tool(params("report", json!({}))).await.unwrap();
    assert_eq!(payment(&approved)["payment"], "paid");
    assert_eq!(
        (
            first.asked.lock().unwrap().len(),
            second.asked.lock().unwrap().len()
        ),
        (1, 1)
    );
    assert_eq!(shop.settled(), 1);
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_the_end_of_the_proxy_interrupts_says_that_it_may_be_paid() {
    let harness = super::harness().await;
    let route = report().idempotent().fault_once(Fault::HangAfterSettle);
    let shop = Shop::open(route).await;
    let served = Served::start(&harness, &shop.url, Some(TOKEN), &[]).await;
    let client = served.connect(TOKEN, User::default(), stateless()).await;
    let buying = client.call_tool(params("report", json!({})));
    let ending = async {
        shop.paywall.wait_for_settlements(1).await;
        served.stop().await
    };
    let (bought, (code, _)) = tokio::join!(buying, ending);
    let error = bought.unwrap_err().to_string();
    assert!(error.contains("may be paid: "), "{error}");
    assert_eq!(code, Some(0));

    let served = Served::start(&harness, &shop.url, Some(TOKEN), &[]).await;
    let client = served.connect(TOKEN, User::default(), stateless()).await;
    let result = client.call_tool(params("report", json!({}))).await.unwrap();
    assert_eq!(payment(&result)["payment"], "paid", "{result:?}");
    assert_eq!(shop.settled(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_without_the_token_or_from_a_web_page_is_refused() {
    let harness = super::harness().await;
    let shop = Shop::open(report()).await;
    let served = Served::start(&harness, &shop.url, Some(TOKEN), &[]).await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let send = |path: &str, headers: &[(&str, &str)]| {
        let url = served.url.replace("/mcp", path);
        let mut request = http
            .post(url)
            .json(&hello())
            .header("accept", "application/json, text/event-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move { request.send().await.unwrap().status() }
    };
    let bearer = format!("Bearer {TOKEN}");
    let longer = format!("{bearer}x");
    let right = ("authorization", bearer.as_str());
    for (path, headers, expected) in [
        ("/mcp", vec![right], StatusCode::OK),
        ("/mcp", vec![], StatusCode::UNAUTHORIZED),
        (
            "/mcp",
            vec![("authorization", "Bearer wrong")],
            StatusCode::UNAUTHORIZED,
        ),
        (
            "/mcp",
            vec![("authorization", &bearer[..20])],
            StatusCode::UNAUTHORIZED,
        ),
        (
            "/mcp",
            vec![("authorization", &longer)],
            StatusCode::UNAUTHORIZED,
        ),
        (
            "/mcp",
            vec![("authorization", TOKEN)],
            StatusCode::UNAUTHORIZED,
        ),
        (
            "/mcp",
            vec![right, ("host", "evil.example")],
            StatusCode::FORBIDDEN,
        ),
        (
            "/mcp",
            vec![right, ("host", "127.0.0.1:1")],
            StatusCode::FORBIDDEN,
        ),
        (
            "/mcp",
            vec![right, ("origin", "https://evil.example")],
            StatusCode::FORBIDDEN,
        ),
        (
            "/mcp",
            vec![right, ("origin", "null")],
            StatusCode::FORBIDDEN,
        ),
        ("/", vec![right], StatusCode::NOT_FOUND),
    ] {
        assert_eq!(send(path, &headers).await, expected, "{path} {headers:?}");
    }
    assert!(shop.paywall.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_token_in_the_environment_a_new_one_is_printed_once() {
    let harness = super::harness().await;
    let shop = Shop::open(report()).await;
    let mut served = Served::start(&harness, &shop.url, None, &[]).await;
    let line = served.lines.next_line().await.unwrap().unwrap();
    let (_, rest) = line.split_once("the token of this run is ").unwrap();
    let (token, _) = rest.split_once(';').unwrap();
    assert_eq!(token.len(), 64);
    let client = served.connect(token, User::default(), session()).await;
    assert_eq!(
        names(&client.list_all_tools().await.unwrap()),
        ["report", "free"]
    );

    let short = harness.command(&[
        "mcp",
        "proxy",
        "--http",
        "127.0.0.1:0",
        "--network",
        "base-sepolia",
        "--upstream",
        &shop.url,
    ]);
    let mut short = short;
    short.env("BURSAR_MCP_TOKEN", "short");
    let ended = harness.end(short, b"").await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("at least 32 characters"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_without_the_token_do_not_keep_a_host_out() {
    let harness = CliHarness::new(report()).await;
    let shop = Shop::open(report()).await;
    let served = Served::start(&harness, &shop.url, Some(TOKEN), &[]).await;
    let address = served.url.trim_start_matches("http://");
    let address = address.trim_end_matches("/mcp");
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    // Idle connections end by themselves after 30 seconds.
    let connected = served.connect(TOKEN, User::default(), session());
    let connected = tokio::time::timeout(std::time::Duration::from_secs(20), connected);
    let client = connected.await.unwrap();
    assert!(!client.list_all_tools().await.unwrap().is_empty());
    assert_eq!(idle.len(), 300);
}
