//! `bursar proxy` over time: reloads, its end, programs that leave, health and metrics.
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
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use bursar::usd;
use bursar_testing::{Fault, Route};
use proxied::{RunningProxy, get, header, program, token};
use support::{CliHarness, report};

fn policy(harness: &CliHarness, text: &str) -> String {
    let target = harness.paywall.url("/").to_string();
    let text = text.replace("TARGET", &target);
    harness.file(
        "policy.toml",
        format!("version = 1\nnetworks = [\"base-sepolia\"]\n{text}"),
    )
}

const ROUTE: &str = "[[proxy.route]]\npath = \"/seller\"\ntarget = \"TARGET\"\n";

/// A free target that answers one request when the test says so.
struct Held {
    address: SocketAddr,
    /// Has a message when the request is there.
    asked: Receiver<()>,
    /// Takes the pieces of the answer. The connection ends when it is dropped.
    answer: Sender<&'static str>,
}

impl Held {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let ((asked, is_asked), (answer, answers)) = (channel(), channel::<&'static str>());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            asked.send(()).unwrap();
            for piece in answers {
                stream.write_all(piece.as_bytes()).unwrap();
            }
        });
        Self {
            address,
            asked: is_asked,
            answer,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_the_policy_and_drops_no_call() {
    let harness = CliHarness::new(report()).await;
    let held = Held::start();
    let slow = format!(
        "{ROUTE}[[proxy.route]]\npath = \"/held\"\ntarget = \"http://{}\"\n",
        held.address
    );
    let file = policy(&harness, &slow);
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let url = format!("{}/held/x", proxy.url);
    let request = program().get(url).bearer_auth(&proxy.token);
    let call = tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() });
    tokio::task::block_in_place(|| held.asked.recv().unwrap());
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);

    // The new policy has no route `/held`, and a lower price.
    policy(
        &harness,
        &ROUTE.replace("\"TARGET\"", "\"TARGET\"\nmax_price = \"0.001 USD\""),
    );
    proxy.signal("HUP");
    assert_eq!(proxy.wait_for("reloaded")["routes"], 1);
    assert_eq!(get(&proxy, "/seller/report").await.status(), 402);
    assert_eq!(get(&proxy, "/held/x").await.status(), 404);
    held.answer
        .send("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
        .unwrap();
    held.answer.send("late").unwrap();
    assert_eq!(call.await.unwrap(), "late");
    assert_eq!(harness.settled(), 1);
}

/// A free seller that keeps its connections open, and counts them.
struct Counted {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Counted {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&connections);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    let mut head = Vec::new();
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).is_ok() {
                        head.push(byte[0]);
                        if head.ends_with(b"\r\n\r\n") {
                            head.clear();
                            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nfree";
                            stream.write_all(answer).unwrap();
                        }
                    }
                });
            }
        });
        Self {
            address,
            connections,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_keeps_connections_and_remembered_terms() {
    let harness = CliHarness::new(report()).await;
    let free = Counted::start();
    let text = format!(
        "[global]\nremember_terms = \"10m\"\nper_day = \"LIMIT USD\"\n{ROUTE}\
         [[proxy.route]]\npath = \"/free\"\ntarget = \"http://{}\"\n",
        free.address
    );
    let file = policy(&harness, &text.replace("LIMIT", "1"));
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    assert_eq!(get(&proxy, "/free/x").await.text().await.unwrap(), "free");
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    let reader = token(&harness, "reader").await;
    for limit in ["2", "3"] {
        policy(&harness, &text.replace("LIMIT", limit));
        proxy.signal("HUP");
        proxy.wait_for("reloaded");
        // Another agent uses the connection and the terms too.
        let before = harness.paywall.requests().len();
        for token in [&proxy.token, &reader] {
            for path in ["/free/x", "/seller/report"] {
                let request = program().get(format!("{}{path}", proxy.url));
                let answer = request.bearer_auth(token).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{path}");
                answer.bytes().await.unwrap();
            }
        }
        // One round trip for each of the two payments.
        let asked = harness.paywall.requests().split_off(before);
        assert_eq!(asked.len(), 2, "{asked:?}");
        assert!(
            asked.iter().all(|request| request.payment.is_some()),
            "{asked:?}"
        );
    }
    assert_eq!(free.connections.load(Ordering::SeqCst), 1);
    assert_eq!(harness.settled(), 5);
    // The new limit holds, and counts the payments before it.
    policy(&harness, &text.replace("LIMIT", "0.055"));
    proxy.signal("HUP");
    proxy.wait_for("reloaded");
    assert_eq!(get(&proxy, "/seller/report").await.status(), 402);
    assert_eq!(harness.settled(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_after_refusals_survives_a_reload() {
    let harness =
        CliHarness::new(report().fault(Fault::FailureReason("insufficient_funds".to_owned())))
            .await;
    let text = format!("[global]\nper_day = \"LIMIT USD\"\n{ROUTE}");
    let file = policy(&harness, &text.replace("LIMIT", "1"));
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    for number in 0..5 {
        get(&proxy, &format!("/seller/report?{number}")).await;
    }
    let payments = harness.payments();
    assert_eq!(payments, 3);
    policy(&harness, &text.replace("LIMIT", "2"));
    proxy.signal("HUP");
    proxy.wait_for("reloaded");
    get(&proxy, "/seller/report?6").await;
    assert_eq!(harness.payments(), payments);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_key_that_is_gone_after_a_reload_is_not_used() {
    let harness = CliHarness::new(report()).await;
    let host = harness.paywall.url("/");
    let host = host.host_str().unwrap();
    let key = format!(
        "{ROUTE}[[credential]]\nname = \"shop\"\nhost = \"{host}\"\nbearer = {{ env = \"SHOP_KEY\" }}\nprefer = \"never pay\"\n"
    );
    let file = policy(&harness, &key);
    let token = token(&harness, "writer").await;
    let mut command = harness.command(&proxied::args(&["--policy", &file]));
    command.env("SHOP_KEY", "s3cret-of-the-shop");
    let mut proxy = RunningProxy::start_command(command, token).await;
    let unpaid = get(&proxy, "/seller/report").await;
    assert_ne!(unpaid.status(), 200);
    let sent = harness.paywall.requests();
    assert!(
        sent.iter()
            .any(|request| request.headers.contains_key("authorization")),
        "{sent:?}"
    );
    assert_eq!(harness.payments(), 0);
    policy(&harness, ROUTE);
    proxy.signal("HUP");
    proxy.wait_for("reloaded");
    let before = harness.paywall.requests().len();
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    let sent = harness.paywall.requests().split_off(before);
    assert!(
        sent.iter()
            .all(|request| !request.headers.contains_key("authorization")),
        "{sent:?}"
    );
    assert_eq!(harness.settled(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_of_a_bad_file_keeps_the_old_policy_and_says_so() {
    let harness = CliHarness::new(report()).await;
    let file = policy(
        &harness,
        &ROUTE.replace("\"TARGET\"", "\"TARGET\"\nmax_price = \"0.001 USD\""),
    );
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    for (bad, word) in [
        ("[proxy.route]\npath = 1\n", "line"),
        (
            "[[proxy.route]]\npaht = \"/x\"\ntarget = \"TARGET\"\n",
            "did you mean `path`",
        ),
        ("unlimitd = true\n", "did you mean `unlimited`"),
        ("default_limits = false\n", "limit"),
    ] {
        policy(&harness, bad);
        proxy.signal("HUP");
        let line = proxy.wait_for("reload_failed");
        let message = line["message"].as_str().unwrap();
        assert!(message.contains(word), "{message}");
        assert_eq!(get(&proxy, "/seller/report").await.status(), 402, "{bad}");
    }
    std::fs::remove_file(harness.path("policy.toml")).unwrap();
    proxy.signal("HUP");
    proxy.wait_for("reload_failed");
    assert_eq!(get(&proxy, "/seller/report").await.status(), 402);
    assert_eq!(harness.payments(), 0);
    policy(&harness, ROUTE);
    proxy.signal("HUP");
    proxy.wait_for("reloaded");
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    let metrics = get(&proxy, "/metrics").await.text().await.unwrap();
    assert!(
        metrics.contains("bursar_proxy_reloads_total{result=\"failed\"} 5"),
        "{metrics}"
    );
    assert!(
        metrics.contains("bursar_proxy_reloads_total{result=\"ok\"} 1"),
        "{metrics}"
    );
}

/// Returns the messages of the warnings among the lines of a log.
fn warnings(lines: &[serde_json::Value]) -> Vec<&str> {
    let warnings = lines.iter().filter(|line| line["event"] == "warning");
    warnings
        .map(|line| line["message"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_warns_of_names_that_no_token_has() {
    let harness = CliHarness::new(report()).await;
    let misspelled = format!(
        "[[agent]]\nmatch = \"wirter\"\nper_day = \"1 USD\"\n{ROUTE}clients = [\"writer\", \"raeder\"]\n"
    );
    let file = policy(&harness, &misspelled);
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    proxy.wait_for("warning");
    proxy.wait_for("warning");
    let found = warnings(&proxy.seen);
    assert!(found[0].contains("`raeder`") && found[0].contains("the tokens are writer"));
    assert!(found[1].contains("[[agent]] `wirter`"), "{found:?}");

    // The names of tokens, of routes and of new tokens are known.
    proxy.seen.clear();
    token(&harness, "reader").await;
    let names = ["writer", "reader", "batch"];
    let agents = names.map(|name| format!("[[agent]]\nmatch = \"{name}\"\nper_day = \"1 USD\"\n"));
    policy(
        &harness,
        &format!(
            "{}{ROUTE}agent = \"batch\"\nclients = [\"reader\"]\n",
            agents.concat()
        ),
    );
    proxy.signal("HUP");
    proxy.wait_for("reloaded");
    policy(&harness, &misspelled);
    proxy.signal("HUP");
    proxy.wait_for("reloaded");
    let (code, log) = proxy.stop();
    assert_eq!((code, warnings(&log).len()), (0, 2), "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_warns_of_routes_that_cannot_work() {
    let harness = CliHarness::new(report()).await;
    let token = token(&harness, "writer").await;
    for (text, more, words) in [
        (ROUTE, &[][..], "add --allow-http-loopback"),
        (
            "",
            &["--allow-http-loopback"],
            "there is no route, so every request is refused",
        ),
        (
            "[allow]\nhosts = [\"127.0.0.1\"]\n",
            &[],
            "there is no route, so only paths such as /to/",
        ),
    ] {
        let file = policy(&harness, text);
        let start = [
            &["proxy", "--ledger", "ledger.db", "--listen", "127.0.0.1:0"][..],
            &["--tokens", "tokens", "--policy", &file],
            more,
        ];
        let command = harness.command(&start.concat());
        let mut proxy = RunningProxy::start_command(command, token.clone()).await;
        proxy.wait_for("warning");
        let (code, log) = proxy.stop();
        let found = warnings(&log);
        assert!(
            code == 0 && found.len() == 1 && found[0].contains(words),
            "{log:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_names_the_program_of_a_refused_request_only_with_its_token() {
    let harness = CliHarness::new(report()).await;
    let file = policy(&harness, ROUTE);
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    assert_eq!(
        get(&proxy, "/sellre/report?x=the-query").await.status(),
        404
    );
    let line = proxy.wait_for("refused");
    assert_eq!(
        (&line["client"], &line["method"], &line["path"]),
        (&"writer".into(), &"GET".into(), &"/sellre/report".into())
    );
    let message = line["message"].as_str().unwrap();
    assert!(message.contains("the routes are /seller"), "{message}");

    let request = program().get(format!("{}/sellre", proxy.url));
    assert_eq!(request.send().await.unwrap().status(), 401);
    let line = proxy.wait_for("refused");
    for name in ["client", "method", "path", "message"] {
        assert!(line.get(name).is_none(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_about_a_limit_has_its_facts_as_members() {
    let harness = CliHarness::new(report()).await;
    let limit = "[[agent]]\nmatch = \"writer\"\nper_day = \"0.01 USD\"\nwarn_at = \"50%\"\n";
    let file = policy(&harness, &format!("{limit}{ROUTE}"));
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    let line = proxy.wait_for("warning");
    for (name, value) in [
        ("kind", "limit_warning"),
        ("agent", "writer"),
        ("share", "50%"),
        ("limit_name", "agent writer rolling 1d"),
        ("left", "0.00 USD"),
    ] {
        assert_eq!(line[name], value, "{line}");
    }
    let message = line["message"].as_str().unwrap();
    assert!(
        message.starts_with("50% of the limit") && !message.contains(';'),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_calls_end_and_takes_no_new_ones() {
    let harness = CliHarness::new(report()).await;
    let held = Held::start();
    let slow = format!(
        "[[proxy.route]]\npath = \"/held\"\ntarget = \"http://{}\"\n",
        held.address
    );
    let file = policy(&harness, &slow);
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let url = format!("{}/held/x", proxy.url);
    let request = program().get(url).bearer_auth(&proxy.token);
    let mut call = tokio::spawn(async move { request.send().await.unwrap() });
    tokio::task::block_in_place(|| held.asked.recv().unwrap());
    held.answer
        .send("HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nfour")
        .unwrap();
    let answer = (&mut call).await.unwrap();
    proxy.signal("TERM");
    assert_eq!(proxy.wait_for("stopping")["calls"], 1);
    TcpStream::connect(("127.0.0.1", proxy.port())).unwrap_err();
    held.answer.send("more").unwrap();
    assert_eq!(answer.text().await.unwrap(), "fourmore");
    let (code, log) = proxy.ended();
    assert_eq!(code, 0, "{log:?}");
    assert_eq!(log.last().unwrap()["abandoned"], 0, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_abandons_calls_after_its_time_and_records_their_payments() {
    let harness = CliHarness::new(report().fault(Fault::HangAfterSettle)).await;
    let file = policy(&harness, ROUTE);
    let more = ["--policy", &file, "--stop-timeout", "0.1"];
    let mut proxy = RunningProxy::start(&harness, &more).await;
    let url = format!("{}/seller/report", proxy.url);
    let request = program().get(url).bearer_auth(&proxy.token);
    let call = tokio::spawn(request.send());
    harness.paywall.wait_for_settlements(1).await;
    proxy.signal("INT");
    let (code, log) = proxy.ended();
    assert_eq!(code, 0, "{log:?}");
    assert_eq!(log.last().unwrap()["abandoned"], 1, "{log:?}");
    call.await.unwrap().unwrap_err();
    let listed = harness
        .run(&["ledger", "--ledger", "ledger.db", "--format", "jsonl"])
        .await;
    assert_eq!(listed.json()["state"], "unresolved");

    // The next proxy presents the same payment.
    harness.paywall.clear_faults();
    let proxy = RunningProxy::start_command(
        harness.command(&proxied::args(&["--policy", &file])),
        proxy.token.clone(),
    )
    .await;
    get(&proxy, "/seller/report").await;
    assert_eq!((harness.settled(), harness.distinct_payments()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_left_before_the_answer_pays_once_when_it_asks_again() {
    let harness = CliHarness::new(report().fault(Fault::HangAfterSettle)).await;
    let file = policy(&harness, ROUTE);
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let url = format!("{}/seller/report", proxy.url);
    let request = program().get(url).bearer_auth(&proxy.token);
    let call = tokio::spawn(request.send());
    harness.paywall.wait_for_settlements(1).await;
    call.abort();
    tokio::task::block_in_place(|| proxy.wait_for("abandoned"));
    harness.paywall.clear_faults();
    get(&proxy, "/seller/report").await;
    assert_eq!((harness.settled(), harness.distinct_payments()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_left_within_a_paid_body_pays_once_when_it_asks_again() {
    let large = Route::get("/report")
        .price(usd!("0.01"))
        .body(vec![b'x'; 30_000_000]);
    let harness = CliHarness::new(large).await;
    let file = policy(&harness, ROUTE);
    let mut proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let answer = get(&proxy, "/seller/report").await;
    let id = header(&answer, "bursar-purchase-id").to_owned();
    drop(answer);
    let lost = tokio::task::block_in_place(|| proxy.wait_for("lost"));
    assert_eq!(lost["purchase_id"], id.as_str());
    let again = get(&proxy, "/seller/report").await;
    assert_eq!(header(&again, "bursar-purchase-id"), id);
    assert_eq!((harness.settled(), harness.distinct_payments()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_leaves_a_stream_of_events_has_got_its_goods() {
    let event = "x".repeat(1000);
    let events = vec![event; 30_000];
    let harness = CliHarness::new(Route::get("/chat").price(usd!("0.01")).events(events)).await;
    let file = policy(&harness, ROUTE);
    let proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let mut answer = get(&proxy, "/seller/chat").await;
    assert!(answer.chunk().await.unwrap().is_some());
    drop(answer);
    let again = get(&proxy, "/seller/chat").await;
    assert_eq!(again.status(), 200);
    assert_eq!(again.text().await.unwrap().matches("data:").count(), 30_000);
    assert_eq!((harness.settled(), harness.distinct_payments()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_program_holds_the_seller_back_and_not_the_memory_of_the_proxy() {
    let large = Route::get("/report")
        .price(usd!("0.01"))
        .body(vec![b'x'; 200_000_000]);
    let harness = CliHarness::new(large).await;
    let file = policy(&harness, ROUTE);
    let proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let memory = |proxy: &RunningProxy| -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM:"))
            .unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    drop(get(&proxy, "/health").await);
    let before = if cfg!(target_os = "linux") {
        memory(&proxy)
    } else {
        0
    };
    let mut answer = get(&proxy, "/seller/report").await;
    let mut length = 0_usize;
    while let Some(piece) = answer.chunk().await.unwrap() {
        length = length.checked_add(piece.len()).unwrap();
    }
    assert_eq!(length, 200_000_000);
    if cfg!(target_os = "linux") {
        let grown = memory(&proxy).saturating_sub(before);
        assert!(grown < 40_000, "{grown} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_needs_no_token_and_metrics_do() {
    let harness = CliHarness::new(report()).await;
    let file = policy(&harness, &format!("[global]\nper_day = \"1 USD\"\n{ROUTE}"));
    let proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let health = program()
        .get(format!("{}/health", proxy.url))
        .send()
        .await
        .unwrap();
    assert_eq!(health.status(), 200);
    assert_eq!(health.text().await.unwrap(), "{\"status\":\"ok\"}");
    let metrics = program()
        .get(format!("{}/metrics", proxy.url))
        .send()
        .await
        .unwrap();
    assert_eq!(metrics.status(), 401);
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    let denied = program()
        .get(format!("{}/seller/report", proxy.url))
        .bearer_auth(&proxy.token)
        .header("bursar-max-price", "0.001")
        .send();
    assert_eq!(denied.await.unwrap().status(), 402);
    let metrics = get(&proxy, "/metrics").await;
    assert!(header(&metrics, "content-type").starts_with("text/plain"));
    let metrics = metrics.text().await.unwrap();
    for line in [
        "bursar_proxy_requests_total{client=\"writer\",route=\"/seller\",status=\"200\",payment=\"paid\"} 1",
        "bursar_proxy_requests_total{client=\"writer\",route=\"/seller\",status=\"402\",payment=\"not_paid\"} 1",
        "bursar_proxy_refused_total{reason=\"token\"} 1",
        "bursar_events_total{event=\"settled\"} 1",
        "bursar_denied_total{rule=\"max_price\"} 1",
        "bursar_settled_usd_total 0.01",
        "bursar_agent_settled_usd_total{agent=\"writer\"} 0.01",
        "bursar_proxy_call_seconds_count 2",
        "bursar_proxy_calls_in_flight 0",
        "bursar_limit{limit=\"global rolling 1d\",unit=\"usd\"} 1",
        "bursar_limit_used{limit=\"global rolling 1d\",unit=\"usd\"} 0.01",
    ] {
        assert!(
            metrics.lines().any(|found| found == line),
            "{line}\n{metrics}"
        );
    }
    assert!(!metrics.contains(&proxy.token));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_programs_at_once_stay_within_the_limit() {
    let harness = CliHarness::new(Route::any("/report").price(usd!("0.01")).body("x")).await;
    let file = policy(
        &harness,
        &format!("[global]\nlifetime = \"0.10 USD\"\n{ROUTE}"),
    );
    let proxy = RunningProxy::start(&harness, &["--policy", &file]).await;
    let reader = token(&harness, "reader").await;
    let calls = (0..40).map(|number| {
        let token = if number % 2 == 0 {
            &proxy.token
        } else {
            &reader
        };
        let request = program()
            .post(format!("{}/seller/report", proxy.url))
            .bearer_auth(token)
            .body(format!("request {number}"));
        tokio::spawn(async move { request.send().await.unwrap().status().as_u16() })
    });
    let calls: Vec<_> = calls.collect();
    let mut paid = 0_usize;
    for call in calls {
        match call.await.unwrap() {
            200 => paid = paid.checked_add(1).unwrap(),
            status => assert_eq!(status, 402),
        }
    }
    assert_eq!((paid, harness.settled()), (10, 10));
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_above_the_most_at_once_are_told_to_wait() {
    let harness = CliHarness::new(report()).await;
    let held = Held::start();
    let slow = format!(
        "{ROUTE}[[proxy.route]]\npath = \"/held\"\ntarget = \"http://{}\"\n",
        held.address
    );
    let file = policy(&harness, &slow);
    let more = ["--policy", &file, "--max-calls", "1"];
    let proxy = RunningProxy::start(&harness, &more).await;
    let request = program()
        .get(format!("{}/held/x", proxy.url))
        .bearer_auth(&proxy.token);
    let call = tokio::spawn(async move { request.send().await.unwrap().text().await.unwrap() });
    tokio::task::block_in_place(|| held.asked.recv().unwrap());
    let busy = get(&proxy, "/seller/report").await;
    assert_eq!(
        (busy.status().as_u16(), header(&busy, "retry-after")),
        (503, "1")
    );
    assert_eq!(get(&proxy, "/health").await.status(), 200);
    held.answer
        .send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .unwrap();
    assert_eq!(call.await.unwrap(), "ok");
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_of_the_command_line_needs_no_policy_file() {
    let harness = CliHarness::new(report()).await;
    let route = format!("/seller={}", harness.paywall.url("/"));
    let more = ["--network", "base-sepolia", "--route", &route];
    let proxy = RunningProxy::start(&harness, &more).await;
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    assert_eq!(harness.settled(), 1);
    // Without a list of hosts, no path names its target.
    let url = proxy.to(&harness.url());
    let named = program().get(url).bearer_auth(&proxy.token).send().await;
    assert_eq!(named.unwrap().status(), 403);

    for (args, words) in [
        (&["proxy"][..], "no network is allowed"),
        (
            &[
                "proxy",
                "--network",
                "base",
                "--route",
                "/to=https://a.example",
            ],
            "the proxy answers `/to` itself",
        ),
        (
            &["proxy", "--network", "base", "--route", "https://a.example"],
            "expected a path and a URL",
        ),
        (&["proxy", "token", "a/b"], "a name has 1 to 32 letters"),
        (&["proxy", "revoke", "nobody"], "there is no token `nobody`"),
    ] {
        let ended = harness.run(args).await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}
