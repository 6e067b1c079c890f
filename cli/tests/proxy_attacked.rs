//! `bursar proxy` against programs that spell paths, stall and take connections, and against targets that never end.
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

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use bursar::usd;
use bursar_testing::Route;
use bursar_tests::scripted::{answer, offer, payment_required, scripted};
use proxied::{RunningProxy, args, get, header, program, token};
use serde_json::{Value, json};
use support::{CliHarness, policy, report};

/// Starts a proxy with these rules. `TARGET` stands for the paywall, without a slash.
async fn started(harness: &CliHarness, rules: &str) -> RunningProxy {
    let target = harness.paywall.url("/").to_string();
    let rules = rules.replace("TARGET", target.trim_end_matches('/'));
    let policy = policy(harness, &rules);
    RunningProxy::start(harness, &["--policy", &policy]).await
}

fn route(path: &str, target: &str) -> String {
    format!("[[proxy.route]]\npath = \"{path}\"\ntarget = \"{target}\"\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_does_not_reach_the_route_of_another_by_a_spelling_of_its_path() {
    let lenient = Route::any("/%72eport").price(usd!("0.01")).body("reached");
    let harness = CliHarness::with_routes([lenient, report()]).await;
    let rules = [
        route("/shop", "TARGET"),
        route("/shop/report", "TARGET/report"),
        "clients = \"boss\"\n".to_owned(),
    ];
    let proxy = started(&harness, &rules.concat()).await;
    assert_eq!(get(&proxy, "/shop/report").await.status(), 403);
    for path in [
        "/shop/%72eport",
        "/shop//report",
        "/shop/REPORT",
        "/shop/report;a",
    ] {
        assert_eq!(get(&proxy, path).await.status(), 400, "{path}");
    }
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_names_a_target_has_the_clients_price_and_agent_of_its_route() {
    for (setting, status, agent) in [
        ("clients = \"boss\"", 403, None),
        ("max_price = \"0.001 USD\"", 402, Some("writer")),
        ("agent = \"scout\"", 200, Some("scout")),
    ] {
        let harness = CliHarness::new(report()).await;
        let shop = route("/shop", "TARGET");
        let rules = format!("[allow]\nhosts = \"127.0.0.1\"\n{shop}{setting}\n");
        let mut proxy = started(&harness, &rules).await;
        let asked = program().get(proxy.to(&harness.url()));
        let asked = asked.bearer_auth(&proxy.token).send().await.unwrap();
        assert_eq!(asked.status(), status, "{setting}");
        if let Some(agent) = agent {
            assert_eq!(proxy.wait_for("call")["agent"], agent);
        }
        assert_eq!(harness.settled(), usize::from(status == 200), "{setting}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_announce_bodies_and_send_none_keep_nobody_waiting() {
    let harness = CliHarness::new(Route::post("/report").price(usd!("0.01")).body("x")).await;
    let proxy = started(&harness, &route("/shop", "TARGET")).await;
    let host = proxy.url.trim_start_matches("http://");
    let stalled: Vec<_> = (0..20)
        .map(|number| {
            let length = match number % 2 {
                0 => "transfer-encoding: chunked\r\n\r\n1\r\nx\r\n",
                _ => "content-length: 33554432\r\n\r\nx",
            };
            let mut stream = TcpStream::connect(("127.0.0.1", proxy.port())).unwrap();
            let token = &proxy.token;
            let head =
                format!("POST /shop/report HTTP/1.1\r\nhost: {host}\r\nx-api-key: {token}\r\n");
            stream
                .write_all(format!("{head}{length}").as_bytes())
                .unwrap();
            stream
        })
        .collect();
    // All of them are calls now.
    let running = "bursar_proxy_calls_in_flight 20";
    while !get(&proxy, "/metrics")
        .await
        .text()
        .await
        .unwrap()
        .contains(running)
    {}
    let url = format!("{}/shop/report", proxy.url);
    let posted = program().post(url).bearer_auth(&proxy.token).body("small");
    assert_eq!(posted.send().await.unwrap().status(), 200);
    assert_eq!((stalled.len(), harness.settled()), (20, 1));
}

/// A target that asks for a payment, and begins an error after it that never ends.
fn endless(terms: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for stream in listener.incoming() {
            let (mut stream, mut head) = (stream.unwrap(), Vec::new());
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let paid = String::from_utf8_lossy(&head).to_ascii_lowercase();
            let answer = match paid.contains("payment-signature") {
                true => "HTTP/1.1 400 X\r\ncontent-length: 1000\r\n\r\nthe beginning",
                false => &terms,
            };
            stream.write_all(answer.as_bytes()).unwrap();
            if paid.contains("payment-signature") {
                open.push(stream);
            }
        }
    });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_learns_of_its_payment_although_the_error_of_the_seller_never_ends() {
    let harness = CliHarness::new(report()).await;
    let terms = json!({ "x402Version": 2, "accepts": [offer("")] });
    let target = endless(payment_required(&terms));
    let proxy = started(&harness, &route("/shop", &target)).await;
    let answer = get(&proxy, "/shop/report").await;
    assert_eq!(answer.status(), 424);
    assert_eq!(header(&answer, "bursar-payment-status"), "maybe_paid");
    let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(body["body"], "the beginning", "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_without_a_token_leave_programs_a_place_and_calls_their_files() {
    let harness = CliHarness::with_routes([report()]).await;
    let target = scripted(|_| answer(200, &[], "free")).await;
    let rules = format!("{}{}", route("/shop", "TARGET"), route("/other", &target));
    let file = policy(
        &harness,
        &rules.replace(
            "TARGET",
            harness.paywall.url("/").as_str().trim_end_matches('/'),
        ),
    );
    let token = token(&harness, "writer").await;
    let arguments = args(&["--policy", &file]);
    let own = harness.command(&[]);
    let mut few = Command::new("sh");
    few.args([
        "-c",
        "ulimit -n 80; exec \"$@\"",
        "sh",
        env!("CARGO_BIN_EXE_bursar"),
    ])
    .args(arguments)
    .env_clear()
    .envs(
        own.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    )
    .current_dir(harness.files.path());
    let proxy = RunningProxy::start_command(few, token).await;
    let client = program();
    let ask = |path: &str| {
        let request = client.get(format!("{}{path}", proxy.url));
        request.bearer_auth(&proxy.token).send()
    };
    // This connection stays open.
    assert_eq!(
        ask("/shop/report").await.unwrap().text().await.unwrap(),
        "the report"
    );
    let idle: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(("127.0.0.1", proxy.port())).unwrap())
        .collect();
    // The oldest one gives its place up.
    let mut first = idle.first().unwrap();
    first
        .set_read_timeout(Some(std::time::Duration::from_secs(20)))
        .unwrap();
    let closed = first.read(&mut [0]);
    let answered = ask("/other/x").await.unwrap();
    assert_eq!(answered.status(), 200, "{closed:?}");
    // Another program gets a connection, too.
    let another = program().get(format!("{}/other/x", proxy.url));
    let another = another.bearer_auth(&proxy.token).send().await.unwrap();
    assert_eq!(another.status(), 200);
    assert!(matches!(closed, Ok(0)), "{closed:?}");
    assert_eq!(harness.settled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoded_402_is_paid_for_a_program_that_takes_encodings() {
    let harness = CliHarness::new(report()).await;
    let target = scripted(|request| {
        let head = request.head.to_ascii_lowercase();
        let terms = json!({ "x402Version": 2, "accepts": [offer("")] }).to_string();
        match (request.is_paid(), head.contains("gzip")) {
            (true, true) => answer(200, &[("content-encoding", "gzip")], "goods"),
            (true, false) => answer(500, &[], "the program asked for another encoding"),
            (false, true) => answer(402, &[("content-encoding", "gzip")], "\u{1f}encoded"),
            (false, false) => answer(402, &[("content-type", "application/json")], &terms),
        }
    })
    .await;
    let proxy = started(&harness, &route("/shop", &target)).await;
    let plain = reqwest::Client::builder()
        .no_proxy()
        .no_gzip()
        .build()
        .unwrap();
    let asked = plain.get(format!("{}/shop/report", proxy.url));
    let asked = asked.header("accept-encoding", "gzip, deflate");
    let answer = asked.bearer_auth(&proxy.token).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, "bursar-payment-status"), "maybe_paid");
    assert_eq!(header(&answer, "content-encoding"), "gzip");
    assert_eq!(answer.bytes().await.unwrap(), "goods");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_does_not_switch_the_protocol_of_a_program() {
    let harness = CliHarness::new(report()).await;
    let target = scripted(|_| {
        "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: other\r\n\r\nother".to_owned()
    })
    .await;
    let proxy = started(&harness, &route("/shop", &target)).await;
    let asked = program().get(format!("{}/shop/x", proxy.url));
    let asked = asked
        .header("connection", "upgrade")
        .header("upgrade", "other");
    let answer = asked.bearer_auth(&proxy.token).send().await.unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.headers().contains_key("upgrade"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_tokens_that_another_user_owns_is_not_used() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, &route("/shop", "TARGET")).await;
    assert_eq!(get(&proxy, "/shop/report").await.status(), 200);
    // Only root can give a file away.
    if std::os::unix::fs::chown(harness.path("tokens"), Some(12_345), None).is_err() {
        return;
    }
    assert_eq!(get(&proxy, "/shop/report").await.status(), 403);
    assert_eq!(harness.settled(), 1);
}
