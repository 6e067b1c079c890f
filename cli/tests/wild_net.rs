//! Redirects, networks and lists of services, as public reports describe them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use bursar_testing::{Bazaar, Paywall, Route};
use serde_json::{Value, json};
use support::{CliHarness, report};

/// A route whose paid answer redirects.
fn moved(to: &str) -> Route {
    let route = Route::any("/report").price(usd!("0.01"));
    route.status(303).header("location", to)
}

async fn storage() -> (Paywall, String) {
    let storage = Paywall::builder().route(Route::any("/obj").body("the goods"));
    let storage = storage.start().await.unwrap();
    let target = format!("{}?sig=abc", storage.url("/obj"));
    (storage, target)
}

#[tokio::test]
async fn proxies_of_the_environment_see_nothing_of_loopback() {
    let proxy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://me:PROXYPASSWORD@{}", proxy.local_addr().unwrap());
    proxy.set_nonblocking(true).unwrap();
    for variable in ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"] {
        let harness = CliHarness::new(report()).await;
        let by_name = harness.url().replace("127.0.0.1", "localhost");
        for url in [harness.url(), by_name] {
            let mut command = harness.command(&[
                "pay",
                "--network",
                "base-sepolia",
                "--allow-http-loopback",
                "--ledger",
                "ledger.db",
                "--allow-duplicate",
                &url,
            ]);
            command.env(variable, &address);
            let ended = harness.end(command, b"").await;
            assert_eq!(ended.code, 0, "{variable} {url}: {ended:?}");
        }
        assert_eq!(harness.settled(), 2);
        for request in harness.paywall.requests() {
            let password = request.header("proxy-authorization").unwrap_or_default();
            assert_eq!(password, "", "{variable}");
        }
    }
    let connection = proxy.accept();
    assert!(connection.is_err(), "the proxy got a connection");
}

#[tokio::test]
async fn bursar_pay_pays_no_host_that_is_never_paid_with_any_header() {
    let harness = CliHarness::new(report()).await;
    harness.file("the.key", "k-123");
    let rules = "[[credential]]\nname = \"reports\"\nhost = \"127.0.0.1\"\n\
                 bearer = { file = \"the.key\" }\nprefer = \"never pay\"";
    let policy = support::policy(&harness, rules);
    for header in [
        "Authorization: Bearer nonsense",
        "authorization;",
        "AUTHORIZATION: x",
    ] {
        let ended = harness
            .run(&[
                "pay",
                "--policy",
                &policy,
                "--allow-http-loopback",
                "--ledger",
                "ledger.db",
                "-H",
                header,
                &harness.url(),
            ])
            .await;
        assert_eq!(ended.code, 3, "{header}: {ended:?}");
    }
    assert_eq!((harness.settled(), harness.payments()), (0, 0));
}

#[tokio::test]
async fn a_paid_download_that_redirects_is_named_and_has_its_own_exit_code() {
    let (storage, target) = storage().await;
    let harness = CliHarness::new(moved(&target)).await;
    let file = harness.file("file", "old");
    let ended = harness.buy(&["-o", &file]).await;
    assert_eq!((ended.code, ended.text()), (6, ""), "{ended:?}");
    let line = format!("paid, delivered elsewhere: GET {target} (add --location to ");
    assert!(
        ended.stderr.starts_with(&line) && ended.stderr.contains("; 0.01 USDC to "),
        "{ended:?}"
    );
    assert_eq!(ended.stderr.lines().count(), 1);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "old");

    let json = harness.buy(&["--json", "--allow-duplicate"]).await;
    let outcome = json.json();
    assert_eq!((json.code, json.stderr.as_str()), (6, ""));
    assert_eq!(
        (
            &outcome["status"],
            &outcome["payment"],
            &outcome["location"]
        ),
        (&json!(303), &json!("paid"), &json!(target))
    );
    assert_eq!(outcome["error"]["kind"], "status");
    assert!(outcome["receipt"].is_object());
    assert!(storage.requests().is_empty());
    assert_eq!(harness.settled(), 2);
    for name in ["ledger.db", "ledger.db-wal"] {
        let bytes = std::fs::read(harness.path(name)).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains("sig=abc"));
    }
}

#[tokio::test]
async fn the_option_location_fetches_the_goods_without_any_header_of_the_request() {
    let (storage, target) = storage().await;
    let hop = Paywall::builder().route(Route::any("/hop").redirect(&target));
    let hop = hop.start().await.unwrap();
    for to in [target.clone(), hop.url("/hop").to_string()] {
        let harness = CliHarness::new(moved(&to)).await;
        let file = harness.file("file", "old");
        let args = [
            "-o",
            &file,
            "--location",
            "-H",
            "X-Secret: s3cret",
            "-d",
            "order",
        ];
        let ended = harness.buy(&args).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.stderr.starts_with("paid 0.01 USDC"), "{ended:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "the goods");
        let json = harness
            .buy(&["--json", "--location", "--allow-duplicate"])
            .await;
        let outcome = json.json();
        assert_eq!(
            (
                json.code,
                &outcome["status"],
                &outcome["body"],
                &outcome["location"]
            ),
            (0, &json!(200), &json!("the goods"), &json!(to))
        );
    }
    for request in storage.requests() {
        assert_eq!((request.method.as_str(), request.body.len()), ("GET", 0));
        for name in [
            "x-secret",
            "payment-signature",
            "x-payment",
            "content-type",
            "cookie",
        ] {
            assert!(!request.headers.contains_key(name), "{name}");
        }
    }
}

#[tokio::test]
async fn a_target_that_fails_or_asks_for_money_is_no_success() {
    let selling = Paywall::builder()
        .route(report())
        .route(Route::any("/gone").status(404));
    let selling = selling.start().await.unwrap();
    for path in ["/report", "/gone"] {
        let harness = CliHarness::new(moved(selling.url(path).as_str())).await;
        let ended = harness.buy(&["--location", "--json"]).await;
        let outcome = ended.json();
        assert_eq!(
            (ended.code, &outcome["payment"]),
            (5, &json!("paid")),
            "{ended:?}"
        );
        assert!(
            outcome["error"]["message"]
                .as_str()
                .unwrap()
                .starts_with("paid")
        );
    }
    let harness = CliHarness::new(moved("http://127.0.0.1:1/obj")).await;
    let ended = harness.buy(&["--location"]).await;
    assert!(
        ended.code == 5 && ended.stderr.starts_with("paid, but the redirect failed: "),
        "{ended:?}"
    );
    assert!(selling.settlements().is_empty());
}

#[tokio::test]
async fn a_redirect_before_a_payment_is_named_and_is_no_success() {
    let (storage, target) = storage().await;
    let harness = CliHarness::new(Route::any("/report").redirect(&target)).await;
    let ended = harness.buy(&["--json"]).await;
    let outcome = ended.json();
    assert_eq!(
        (ended.code, &outcome["payment"], &outcome["location"]),
        (1, &json!("not_paid"), &json!(target))
    );
    let url = harness.url();
    let quote = harness.run(&["quote", "--allow-http-loopback", &url]).await;
    assert!(
        quote.code == 1 && quote.text().contains(&target),
        "{quote:?}"
    );
    assert!(storage.requests().is_empty());
    let followed = harness.buy(&["--location"]).await;
    assert_eq!((followed.code, followed.text()), (0, "the goods"));
}

#[tokio::test]
async fn the_networks_are_a_table() {
    let harness = CliHarness::new(report()).await;
    let ended = harness.run(&["networks"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let row = |name: &str| {
        let mut lines = ended.text().lines();
        let line = lines.find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(row("NETWORK"), "NETWORK CAIP-2 MONEY TOKEN ADDRESS");
    assert_eq!(
        row("world"),
        "world eip155:480 real USDC 0x79A02482A880bCE3F13e09Da970dC34db4CD24d1"
    );
    assert_eq!(
        row("base-sepolia"),
        "base-sepolia eip155:84532 test USDC 0x036CbD53842c5426634e7929541eC2318f3dCF7e"
    );
    let json = harness.run(&["networks", "--json"]).await.json();
    let networks = json["networks"].as_array().unwrap();
    let optimism = networks
        .iter()
        .find(|network| network["name"] == "optimism");
    assert_eq!(
        optimism.unwrap(),
        &json!({ "name": "optimism", "caip2": "eip155:10", "test": false, "tokens": [{ "symbol": "USDC",
            "address": "0x0b2C639c533813f4Aa9D7837CAf62653d097Ff85", "decimals": 6, "payable": true }] })
    );
}

#[tokio::test]
async fn a_mistyped_network_gets_a_suggestion() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
    let ended = harness.run(&["pay", "--network", "bsae", &url]).await;
    assert!(
        ended.code == 2 && ended.stderr.contains("did you mean `base`?"),
        "{ended:?}"
    );
    let file = harness.file("policy.toml", "version = 1\nnetworks = [\"wrold\"]\n");
    let ended = harness.run(&["policy", "check", &file]).await;
    assert!(
        ended.code == 2 && ended.stderr.contains("did you mean `world`?"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_search_of_the_largest_bazaar_shows_use_and_descriptions() {
    let harness = CliHarness::new(report()).await;
    let mut item = harness
        .paywall
        .advertisement("/report", "a daily\u{1b}[31m report");
    item["quality"] = json!({ "l30DaysTotalCalls": 12, "l30DaysUniquePayers": 3,
        "lastCalledAt": "2026-11-01T00:00:00Z" });
    item["curated"] = json!(true);
    let bazaar = Bazaar::builder()
        .like_cdp()
        .item(item)
        .start()
        .await
        .unwrap();
    let url = bazaar.url("/").to_string();
    let usual = ["discover", "--allow-http-loopback", "--bazaar", &url];
    let ended = harness
        .run(&[&usual[..], &["daily", "report"]].concat())
        .await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let told = ended.text().lines().last().unwrap();
    assert!(
        told.contains("a daily")
            && told.ends_with("12 calls in 30 days, 3 payers in 30 days, curated"),
        "{told}"
    );
    assert!(!ended.text().contains('\u{1b}'));
    let json = harness
        .run(&[&usual[..], &["daily", "--json"]].concat())
        .await
        .json();
    assert_eq!(
        json["services"][0]["usage"],
        json!({ "calls": 12, "payers": 3, "lastCalled": "2026-11-01T00:00:00Z", "curated": true })
    );
    assert_eq!(bazaar.requests().len(), 2, "one request for each search");

    let nothing = harness.run(&[&usual[..], &["submarines"]].concat()).await;
    assert_eq!((nothing.code, nothing.text()), (1, ""));
    assert!(
        nothing.stderr.starts_with("no service was found"),
        "{nothing:?}"
    );
    let nothing = harness
        .run(&[&usual[..], &["submarines", "--json"]].concat())
        .await;
    assert_eq!(
        (nothing.code, &nothing.json()["services"]),
        (1, &Value::Array(Vec::new()))
    );
}
