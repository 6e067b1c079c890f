//! `bursar proxy` against local attackers, pages in a browser, and malicious sellers.
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

use std::os::unix::fs::PermissionsExt;

use bursar::usd;
use bursar_testing::{Fault, Paywall, Route};
use proxied::{RunningProxy, args, get, header, program, raw, token};
use serde_json::Value;
use support::{CliHarness, KEY, report};

/// Writes a policy file with a route `/seller` to the paywall.
fn policy(harness: &CliHarness, rules: &str) -> String {
    let target = harness.paywall.url("/").to_string();
    harness.file(
        "policy.toml",
        format!(
            "version = 1\nnetworks = [\"base-sepolia\"]\n{rules}\n\
             [[proxy.route]]\npath = \"/seller\"\ntarget = \"{target}\"\n"
        ),
    )
}

async fn started(harness: &CliHarness, rules: &str) -> RunningProxy {
    let policy = policy(harness, rules);
    RunningProxy::start(harness, &["--policy", &policy]).await
}

/// Returns the status of a request in bytes. `HOST` stands for the host of the proxy, and `TOKEN` for the token.
fn status_of(proxy: &RunningProxy, request: &str) -> u16 {
    let answer = answer_of(proxy, request);
    let status = answer.split(' ').nth(1).unwrap_or_default();
    status.parse().unwrap_or_else(|_| panic!("{answer:?}"))
}

fn answer_of(proxy: &RunningProxy, request: &str) -> String {
    let host = proxy.url.trim_start_matches("http://");
    let request = request.replace("HOST", host).replace("TOKEN", &proxy.token);
    raw(
        proxy.port(),
        format!("{request}connection: close\r\n\r\n").as_bytes(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_program_without_a_token_reaches_no_seller() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "").await;
    for credentials in [
        "",
        "authorization: Bearer \r\n",
        "authorization: Bearer bursar_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\r\n",
        "authorization: Bearer sk-a-key-of-the-seller\r\n",
        "authorization: TOKEN\r\n",
        "authorization: Basic TOKEN\r\n",
        "x-api-key: bursar_\r\n",
        "x-token: TOKEN\r\n",
        "cookie: token=TOKEN\r\n",
    ] {
        for path in [
            "/seller/report",
            "/metrics",
            "/to/http/127.0.0.1:1/x",
            "/elsewhere",
        ] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: HOST\r\n{credentials}");
            assert_eq!(status_of(&proxy, &request), 401, "{request}");
        }
    }
    let by_query = "GET /seller/report?token=TOKEN HTTP/1.1\r\nhost: HOST\r\n";
    assert_eq!(status_of(&proxy, by_query), 401);
    assert!(harness.paywall.requests().is_empty());
    let (_, log) = proxy.stop();
    let refused = log.iter().filter(|line| line["reason"] == "token").count();
    assert_eq!(refused, 37, "{log:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_comes_where_sdks_put_their_key_and_goes_to_no_seller() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "").await;
    for name in ["authorization", "x-api-key", "api-key", "x-goog-api-key"] {
        let value = match name {
            "authorization" => format!("bearer {}", proxy.token),
            _ => proxy.token.clone(),
        };
        let request = program().get(format!("{}/seller/report", proxy.url));
        let answer = request.header(name, value).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{name}");
    }
    // Another header keeps the key of the seller.
    let both = program()
        .get(format!("{}/seller/report", proxy.url))
        .header("x-api-key", &proxy.token)
        .header("authorization", "Bearer mine")
        .send();
    assert_eq!(both.await.unwrap().status(), 200);
    let requests = harness.paywall.requests();
    assert!(!requests.is_empty());
    for request in &requests {
        let text = format!("{:?}", request.headers);
        assert!(!text.contains("bursar_"), "{text}");
    }
    let last = requests.last().unwrap();
    assert_eq!(last.headers["authorization"], "Bearer mine");

    let sent = requests.len();
    for request in [
        "GET /seller/report HTTP/1.1\r\nhost: HOST\r\nx-api-key: TOKEN\r\nx-other: a TOKEN\r\n",
        "GET /seller/report?key=TOKEN HTTP/1.1\r\nhost: HOST\r\nx-api-key: TOKEN\r\n",
        "GET /seller/TOKEN HTTP/1.1\r\nhost: HOST\r\nx-api-key: TOKEN\r\n",
    ] {
        assert_eq!(status_of(&proxy, request), 400, "{request}");
    }
    assert_eq!(harness.paywall.requests().len(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_stored_as_a_hash_and_ends_at_once() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "").await;
    let path = harness.path("tokens");
    let stored = std::fs::read_to_string(&path).unwrap();
    assert!(
        !stored.contains(&proxy.token) && stored.contains("writer sha256:"),
        "{stored}"
    );
    let secret = proxy.token.trim_start_matches("bursar_");
    assert!(secret.len() >= 43 && !stored.contains(secret));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let status = |token: String| {
        let url = format!("{}/seller/report", proxy.url);
        async move {
            let request = program().get(url).bearer_auth(token);
            request.send().await.unwrap().status().as_u16()
        }
    };
    let reader = token(&harness, "reader").await;
    assert_eq!(status(reader.clone()).await, 200);
    let twice = harness
        .run(&["proxy", "token", "reader", "--tokens", "tokens"])
        .await;
    assert_eq!(twice.code, 2, "{twice:?}");
    let replaced = [
        "proxy",
        "token",
        "reader",
        "--replace",
        "--tokens",
        "tokens",
    ];
    let replaced = harness.run(&replaced).await;
    let replaced = replaced.text().trim().to_owned();
    assert_eq!(status(reader).await, 401);
    assert_eq!(status(replaced.clone()).await, 200);
    let listed = harness
        .run(&["proxy", "tokens", "--tokens", "tokens"])
        .await;
    assert!(
        listed.text().contains("reader") && listed.text().contains("writer"),
        "{listed:?}"
    );
    assert!(!listed.text().contains("bursar_"), "{listed:?}");
    let ended = harness
        .run(&["proxy", "revoke", "reader", "--tokens", "tokens"])
        .await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(status(replaced).await, 401);
    assert_eq!(status(proxy.token.clone()).await, 200);

    // A file that others can write has no tokens that count.
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o622)).unwrap();
    assert_eq!(status(proxy.token.clone()).await, 403);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&path, "writer sha256:short 2026\n").unwrap();
    assert_eq!(status(proxy.token.clone()).await, 403);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(status(proxy.token.clone()).await, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_of_a_site_that_leads_to_loopback_reaches_no_seller() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "").await;
    let request = |host: &str| format!("GET /seller/report HTTP/1.1\r\n{host}x-api-key: TOKEN\r\n");
    for host in [
        "host: evil.example\r\n",
        &format!("host: evil.example:{}\r\n", proxy.port()),
        "host: 127.0.0.1\r\n",
        "host: HOST\r\nhost: evil.example\r\n",
        "",
    ] {
        let status = status_of(&proxy, &request(host));
        assert!([400, 403].contains(&status), "{host}: {status}");
    }
    for path in ["/health", "/metrics"] {
        let foreign = format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nx-api-key: TOKEN\r\n");
        assert_eq!(status_of(&proxy, &foreign), 403);
    }
    assert!(harness.paywall.requests().is_empty());
    let localhost = format!("host: LocalHost:{}\r\n", proxy.port());
    assert_eq!(status_of(&proxy, &request(&localhost)), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_in_a_browser_reaches_no_seller_even_with_a_token() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "").await;
    for extra in [
        "origin: https://evil.example\r\n",
        "origin: null\r\n",
        "origin: http://HOST\r\n",
        "sec-fetch-site: cross-site\r\n",
        "sec-fetch-site: same-origin\r\n",
        "origin: https://evil.example\r\naccess-control-request-method: POST\r\n\
         access-control-request-headers: authorization\r\naccess-control-request-private-network: true\r\n",
    ] {
        for method in ["GET", "POST", "OPTIONS"] {
            let request = format!(
                "{method} /seller/report HTTP/1.1\r\nhost: HOST\r\nx-api-key: TOKEN\r\n{extra}"
            );
            let answer = answer_of(&proxy, &request).to_lowercase();
            assert!(answer.starts_with("http/1.1 403"), "{request}\n{answer}");
            assert!(!answer.contains("access-control-allow"), "{answer}");
        }
    }
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_is_no_relay() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "[allow]\nhosts = \"api.example.com\"").await;
    let seller = harness.url();
    let authority = seller
        .trim_start_matches("http://")
        .split('/')
        .next()
        .unwrap();
    let key = "host: HOST\r\nx-api-key: TOKEN\r\n";
    for (line, status) in [
        (format!("CONNECT {authority} HTTP/1.1"), 405),
        (format!("GET {seller} HTTP/1.1"), 400),
        ("OPTIONS * HTTP/1.1".to_owned(), 400),
        ("TRACE /seller/report HTTP/1.1".to_owned(), 405),
        (format!("GET /to/http/{authority}/report HTTP/1.1"), 403),
        ("GET /to/https/evil.example/report HTTP/1.1".to_owned(), 403),
        (
            "GET /to/https/api.example.com@evil.example/x HTTP/1.1".to_owned(),
            404,
        ),
        ("GET /to/file/etc/passwd HTTP/1.1".to_owned(), 404),
        ("GET /seller/../report HTTP/1.1".to_owned(), 400),
        ("GET /seller/%2e%2e/report HTTP/1.1".to_owned(), 400),
        ("GET /report HTTP/1.1".to_owned(), 404),
        ("GET /seller/report HTTP/1.0".to_owned(), 505),
    ] {
        let request = format!("{line}\r\n{key}");
        assert_eq!(status_of(&proxy, &request), status, "{line}");
    }
    let upgrade = format!("GET /seller/report HTTP/1.1\r\n{key}upgrade: websocket\r\n");
    assert_eq!(status_of(&proxy, &upgrade), 400);
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_does_not_call_itself() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "[allow]\nhosts = [\"127.0.0.1\", \"localhost\"]").await;
    for host in ["127.0.0.1", "localhost", "127.1"] {
        let path = format!("/to/http/{host}:{}/seller/report", proxy.port());
        assert_eq!(get(&proxy, &path).await.status(), 403, "{host}");
    }
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn private_targets_are_refused_without_an_option() {
    let harness = CliHarness::new(report()).await;
    let hosts =
        "[allow]\nhosts = [\"10.0.0.1\", \"169.254.169.254\", \"localhost\", \"127.0.0.1\"]";
    let policy = policy(&harness, hosts);
    let token = token(&harness, "writer").await;
    let closed = [
        "proxy",
        "--ledger",
        "ledger.db",
        "--listen",
        "127.0.0.1:0",
        "--tokens",
        "tokens",
        "--policy",
        &policy,
    ];
    let proxy = RunningProxy::start_command(harness.command(&closed), token).await;
    for path in [
        "/seller/report",
        "/to/https/10.0.0.1/x",
        "/to/https/169.254.169.254/latest/meta-data",
        "/to/https/localhost/x",
        "/to/http/127.0.0.1/x",
    ] {
        let answer = get(&proxy, path).await;
        assert_eq!(answer.status(), 403, "{path}");
        assert_eq!(header(&answer, "bursar-error"), "insecure", "{path}");
        let text = answer.text().await.unwrap();
        assert!(text.contains("--allow-"), "{path}: {text}");
    }
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_listens_on_loopback_only() {
    let harness = CliHarness::new(report()).await;
    let network = ["--network", "base-sepolia"];
    for address in [
        "0.0.0.0:0",
        "[::]:0",
        "192.0.2.1:0",
        "8402",
        "example.com:80",
    ] {
        let more = ["--listen", address];
        let ended = harness
            .run(&[&["proxy"][..], &network, &more].concat())
            .await;
        assert_eq!(ended.code, 2, "{address}: {ended:?}");
    }
    let open = harness.file(
        "open.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[proxy]\nlisten = \"0.0.0.0:8402\"\n",
    );
    let ended = harness.run(&["proxy", "--policy", &open]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("loopback only"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_cannot_send_a_program_elsewhere() {
    let elsewhere = Paywall::builder()
        .route(Route::any("/grab").body("x"))
        .start()
        .await
        .unwrap();
    let grab = elsewhere.url("/grab");
    let harness = CliHarness::with_routes([
        Route::any("/free").redirect(grab.as_str()),
        Route::any("/temporary")
            .status(307)
            .header("location", grab.as_str())
            .body(""),
        Route::get("/paid")
            .price(usd!("0.01"))
            .redirect(grab.as_str()),
        Route::get("/cookie")
            .header("set-cookie", "a=b")
            .header("alt-svc", "h2=\"evil.example:443\"")
            .header("refresh", "0; url=http://evil.example")
            .header("access-control-allow-origin", "*")
            .header("bursar-payment-status", "paid")
            .header("bursar-transaction", "0x01")
            .header("payment-required", "e30=")
            .header("x-payment-response", "e30=")
            .header("x-kept", "yes")
            .body("free"),
    ])
    .await;
    let proxy = started(&harness, "").await;
    for (path, status, payment) in [
        ("/seller/free", 502, "not_paid"),
        ("/seller/temporary", 502, "not_paid"),
        ("/seller/paid", 424, "paid"),
    ] {
        let answer = get(&proxy, path).await;
        assert_eq!(answer.status(), status, "{path}");
        assert!(!answer.headers().contains_key("location"), "{path}");
        assert_eq!(header(&answer, "bursar-payment-status"), payment, "{path}");
        assert_eq!(header(&answer, "x-should-retry"), "false", "{path}");
        let body: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        assert_eq!(body["location"], grab.as_str(), "{body}");
    }
    assert!(elsewhere.requests().is_empty());
    let answer = get(&proxy, "/seller/cookie").await;
    for name in [
        "set-cookie",
        "alt-svc",
        "refresh",
        "access-control-allow-origin",
        "bursar-transaction",
        "payment-required",
        "x-payment-response",
    ] {
        assert!(!answer.headers().contains_key(name), "{name}");
    }
    assert_eq!(header(&answer, "bursar-payment-status"), "not_paid");
    assert_eq!(header(&answer, "x-kept"), "yes");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_cannot_bring_a_payment_or_a_header_behind_the_policy() {
    let harness = CliHarness::new(report()).await;
    let proxy = started(&harness, "").await;
    let with = |name: &'static str, value: &'static str| {
        let request = program().get(format!("{}/seller/report", proxy.url));
        let request = request.bearer_auth(&proxy.token).header(name, value);
        async move { request.send().await.unwrap().status().as_u16() }
    };
    for name in [
        "x-http-method-override",
        "x-original-url",
        "x_rewrite_url",
        "bursar-max-prize",
    ] {
        assert_eq!(with(name, "1").await, 400, "{name}");
    }
    assert!(harness.paywall.requests().is_empty());
    for name in [
        "payment-signature",
        "x-payment",
        "x-forwarded-for",
        "cookie",
        "proxy-authorization",
        "x-hop",
    ] {
        let request = program().get(format!("{}/seller/report", proxy.url));
        let request = request
            .bearer_auth(&proxy.token)
            .header(name, "mine")
            .header("connection", "x-hop");
        assert_eq!(request.send().await.unwrap().status(), 200, "{name}");
        for received in harness.paywall.requests() {
            let value = received
                .headers
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned());
            assert_ne!(value.as_deref(), Some("mine"), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_the_proxy_has_no_token_no_query_and_no_signature() {
    let keyed = Route::get("/keyed")
        .body("x")
        .accepts_key("authorization", "Bearer the-api-key");
    let lost = Route::get("/lost")
        .price(usd!("0.01"))
        .fault(Fault::QuotePayment);
    let harness = CliHarness::with_routes([report(), keyed.price(usd!("0.01")), lost]).await;
    let mut proxy = started(&harness, "").await;
    for path in [
        "/seller/report?secret=the-query",
        "/seller/lost?secret=the-query",
        "/seller/keyed",
        "/nowhere?the-query",
    ] {
        let url = format!("{}{path}", proxy.url);
        let request = program()
            .get(url)
            .bearer_auth(&proxy.token)
            .header("x-secret", "the-header");
        drop(request.send().await.unwrap().bytes().await);
    }
    let bad = program()
        .get(&proxy.url)
        .bearer_auth("bursar_the-bad-token")
        .send()
        .await;
    assert_eq!(bad.unwrap().status(), 401);
    proxy.signal("TERM");
    let (code, log) = proxy.ended();
    let text = serde_json::to_string(&log).unwrap();
    assert_eq!(code, 0, "{text}");
    for secret in [
        &proxy.token,
        KEY.trim_start_matches("0x"),
        "the-query",
        "the-header",
        "the-bad-token",
    ] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
    for payment in harness
        .paywall
        .requests()
        .into_iter()
        .filter_map(|request| request.payment)
    {
        let signature = payment.json.unwrap()["payload"]["signature"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(
            !text.contains(&signature[2..66]) && !text.contains(&payment.header),
            "{text}"
        );
    }
    let started = log
        .iter()
        .find(|line| line["event"] == "listening")
        .unwrap();
    assert_eq!(started["tokens"], 1);
    assert!(log.iter().all(|line| line["time"].is_string()), "{log:?}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_running_proxy_has_no_secret_in_its_environment() {
    let keyed = Route::get("/keyed")
        .body("x")
        .accepts_key("authorization", "Bearer the-api-key");
    let harness = CliHarness::with_routes([report(), keyed.price(usd!("0.02"))]).await;
    let key = "[[credential]]\nname = \"k\"\nhost = \"127.0.0.1\"\nbearer = { env = \"EXAMPLE_API_KEY\" }";
    let policy = policy(&harness, key);
    let token = token(&harness, "writer").await;
    let mut command = harness.command(&args(&["--policy", &policy]));
    command
        .env("EXAMPLE_API_KEY", "the-api-key")
        .env("HARMLESS", "a-setting");
    let mut proxy = RunningProxy::start_command(command, token).await;
    let look = |proxy: &RunningProxy| {
        let environment = std::fs::read(format!("/proc/{}/environ", proxy.id())).unwrap();
        String::from_utf8_lossy(&environment).into_owned()
    };
    let environment = look(&proxy);
    assert!(environment.contains("HARMLESS=a-setting"), "{environment}");
    for secret in [
        KEY.trim_start_matches("0x"),
        "the-api-key",
        "BURSAR_PRIVATE_KEY",
    ] {
        assert!(!environment.contains(secret), "{environment}");
    }
    // The proxy has both keys, also after a reload.
    for _ in 0..2 {
        let keyed = get(&proxy, "/seller/keyed").await;
        assert_eq!(header(&keyed, "bursar-api-key"), "k");
        proxy.signal("HUP");
        proxy.wait_for("reloaded");
    }
    assert_eq!(get(&proxy, "/seller/report").await.status(), 200);
    assert_eq!(harness.settled(), 1);
}
