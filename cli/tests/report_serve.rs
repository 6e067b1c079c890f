//! `bursar report --serve`: who sees the page, and that it shows the ledger of the moment.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::process::Stdio;

use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use support::{CliHarness, report};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A server of a report. It is killed with its test.
struct Served {
    child: Child,
    origin: String,
    token: String,
}

impl Served {
    async fn start(harness: &CliHarness, args: &[&str]) -> Self {
        let ledger = harness.path("ledger.db");
        let usual = ["report", "--serve", "--ledger", ledger.to_str().unwrap()];
        let command = harness.command(&[&usual[..], args].concat());
        let mut command = Command::from(command);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let url = lines.next_line().await.unwrap().unwrap();
        let (origin, token) = url.split_once("/?token=").unwrap();
        assert!(origin.starts_with("http://127.0.0.1:"), "{url}");
        assert!(token.len() >= 32, "{url}");
        let (origin, token) = (origin.to_owned(), token.to_owned());
        Self {
            child,
            origin,
            token,
        }
    }

    fn ask(&self, path: &str) -> RequestBuilder {
        client().get(format!("{}{path}", self.origin))
    }

    fn port(&self) -> &str {
        self.origin.rsplit(':').next().unwrap()
    }

    /// Returns the cookie that the URL with the token gives.
    async fn cookie(&self) -> String {
        let answer = self.ask(&format!("/?token={}", self.token)).send();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        assert_eq!(answer.headers()["location"], "/");
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"),
            "{cookie}"
        );
        cookie.split(';').next().unwrap().to_owned()
    }
}

fn client() -> Client {
    let client = Client::builder().redirect(Policy::none()).no_proxy();
    client
        .tls_backend_rustls()
        .tls_certs_only([])
        .build()
        .unwrap()
}

async fn page(request: RequestBuilder) -> String {
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.text().await.unwrap()
}

async fn status(request: RequestBuilder) -> u16 {
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.text().await.unwrap();
    assert!(!text.contains("Spending"), "{text}");
    status
}

#[tokio::test]
async fn a_served_report_shows_purchases_and_denials_as_they_come() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    let served = Served::start(&harness, &["--refresh", "7"]).await;
    let cookie = served.cookie().await;
    let look = || page(served.ask("/").header("cookie", &cookie));
    let first = look().await;
    assert!(
        first.contains("data-figure=\"card.spent.usd\">0.01<"),
        "{first}"
    );
    assert!(
        first.contains("http-equiv=\"refresh\" content=\"7;url=/\""),
        "{first}"
    );
    assert!(!first.contains("Denied payments") && !first.contains(&served.token));

    assert_eq!(harness.buy(&["--allow-duplicate"]).await.code, 0);
    assert_eq!(
        harness
            .buy(&["--allow-duplicate", "--max-per-payment", "0.001"])
            .await
            .code,
        3
    );
    // The page is kept for two seconds.
    let begin = std::time::Instant::now();
    let later = loop {
        let page = look().await;
        if page.contains("data-figure=\"card.spent.usd\">0.02<") {
            break page;
        }
        assert!(begin.elapsed().as_secs() < 60, "{page}");
        tokio::task::yield_now().await;
    };
    assert!(
        later.contains("data-figure=\"denied/per_payment/127.0.0.1\">1<"),
        "{later}"
    );

    let still = page(served.ask("/?refresh=off").header("cookie", &cookie)).await;
    assert!(!still.contains("http-equiv=\"refresh\""), "{still}");
}

#[tokio::test]
async fn a_served_report_needs_its_token() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    let served = Served::start(&harness, &[]).await;
    let cookie = served.cookie().await;
    let name = cookie.split('=').next().unwrap();
    assert_eq!(status(served.ask("/")).await, 401);
    let wrong = "0".repeat(served.token.len());
    let half = &served.token[..served.token.len() / 2];
    for token in ["", "x", &wrong, half, &format!("{}0", served.token)] {
        assert_eq!(status(served.ask(&format!("/?token={token}"))).await, 401);
        let cookie = format!("{name}={token}");
        assert_eq!(status(served.ask("/").header("cookie", cookie)).await, 401);
    }
    let other = format!("bursar_report_1={}", served.token);
    assert_eq!(status(served.ask("/").header("cookie", other)).await, 401);
    let bearer = served.ask("/").bearer_auth(&served.token);
    assert_eq!(status(bearer).await, 401);
    for path in ["/favicon.ico", "/index.html", "//"] {
        let known = served.ask(path).header("cookie", &cookie);
        assert_eq!(status(known).await, 404, "{path}");
    }
}

#[tokio::test]
async fn another_page_or_another_name_does_not_reach_a_served_report() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    let served = Served::start(&harness, &[]).await;
    let cookie = served.cookie().await;
    let port = served.port();
    let known = || served.ask("/").header("cookie", &cookie);
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("127.0.0.2:{port}"),
        "127.0.0.1".to_owned(),
        "127.0.0.1:1".to_owned(),
        String::new(),
    ] {
        assert_eq!(status(known().header("host", &host)).await, 421, "{host}");
        let with_token = served.ask(&format!("/?token={}", served.token));
        assert_eq!(
            status(with_token.header("host", &host)).await,
            421,
            "{host}"
        );
    }
    for (name, value, expected) in [
        ("origin", "https://evil.example", 403),
        ("origin", "null", 403),
        ("origin", "http://127.0.0.1:1", 403),
        ("sec-fetch-site", "cross-site", 403),
        ("sec-fetch-site", "same-site", 403),
    ] {
        assert_eq!(
            status(known().header(name, value)).await,
            expected,
            "{name}: {value}"
        );
    }
    for method in [Method::POST, Method::OPTIONS, Method::PUT] {
        let request = client().request(method, &served.origin);
        assert_eq!(status(request.header("cookie", &cookie)).await, 405);
    }
    for (name, value) in [
        ("host", format!("localhost:{port}")),
        ("origin", served.origin.clone()),
        ("sec-fetch-site", "same-origin".to_owned()),
        ("sec-fetch-site", "none".to_owned()),
    ] {
        let answer = known().header(name, &value).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{name}: {value}");
        let headers = answer.headers();
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'") && policy.contains("frame-ancestors 'none'")
        );
        assert_eq!(headers["cache-control"], "no-store");
        assert_eq!(headers["referrer-policy"], "no-referrer");
        assert!(!headers.contains_key("access-control-allow-origin"));
    }
}

/// Only a program on another address of this machine could reach it then.
#[tokio::test]
async fn a_report_is_served_on_loopback_only() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    let served = Served::start(&harness, &[]).await;
    if let Some(outer) = bursar_tests::recorder::outer_address() {
        let port: u16 = served.port().parse().unwrap();
        assert!(tokio::net::TcpStream::connect((outer, port)).await.is_err());
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_server_of_a_report_ends_when_it_is_asked_to() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    for signal in ["-TERM", "-INT"] {
        let mut served = Served::start(&harness, &[]).await;
        // It also ends while a connection is open.
        let address = served.origin.trim_start_matches("http://").to_owned();
        let _open = tokio::net::TcpStream::connect(address).await.unwrap();
        let process = served.child.id().unwrap().to_string();
        let sent = std::process::Command::new("kill")
            .args([signal, &process])
            .status();
        assert!(sent.unwrap().success());
        assert!(served.child.wait().await.unwrap().success(), "{signal}");
    }
}

#[tokio::test]
async fn a_wrong_option_of_a_served_report_is_told_before_it_serves() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    let ledger = harness.path("ledger.db");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (args, code) in [
        (&["--serve", "--format", "json"][..], 2),
        (&["--serve", "--out", "page.html"], 2),
        (&["--port", "8080"], 2),
        (&["--refresh", "5"], 2),
        (&["--serve", "--refresh", "0"], 2),
        (&["--serve", "--since", "yesterday"], 2),
        (&["--serve", "--port", &port], 1),
    ] {
        let usual = ["report", "--ledger", ledger.to_str().unwrap()];
        let ended = harness.run(&[&usual[..], args].concat()).await;
        assert_eq!(ended.code, code, "{args:?}: {ended:?}");
        assert!(
            ended.stdout.is_empty() && !ended.stderr.is_empty(),
            "{ended:?}"
        );
    }
}

/// Writes the ledger whose served page `cli/tests/page-live` checks in a browser.
#[tokio::test]
async fn a_ledger_is_written_for_the_browser() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("live");
    drop(std::fs::remove_dir_all(&directory));
    std::fs::create_dir_all(&directory).unwrap();
    let harness = CliHarness::new(report()).await;
    for tag in ["daily", "daily", "<script>alert(1)</script>"] {
        assert_eq!(
            harness.buy(&["--allow-duplicate", "--tag", tag]).await.code,
            0
        );
    }
    for max in ["0.001", "0.002"] {
        assert_eq!(
            harness
                .buy(&["--allow-duplicate", "--max-per-payment", max])
                .await
                .code,
            3
        );
    }
    let (ledger, copy) = (harness.path("ledger.db"), directory.join("ledger.db"));
    let (ledger, copy) = (ledger.to_str().unwrap(), copy.to_str().unwrap());
    let copied = harness
        .run(&["ledger", "backup", copy, "--ledger", ledger])
        .await;
    assert_eq!(copied.code, 0, "{copied:?}");
}

#[tokio::test]
async fn connections_without_a_token_do_not_keep_a_reader_out() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    let served = Served::start(&harness, &[]).await;
    let cookie = served.cookie().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        let address = served.origin.trim_start_matches("http://");
        idle.push(tokio::net::TcpStream::connect(address).await.unwrap());
    }
    // Idle connections end by themselves after 10 seconds.
    let shown = page(served.ask("/").header("cookie", cookie));
    let shown = tokio::time::timeout(std::time::Duration::from_secs(8), shown);
    assert!(shown.await.unwrap().contains("Spending"));
    assert_eq!(idle.len(), 100);
}
