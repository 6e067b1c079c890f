//! Reports of people who used the command: limits, ledgers, time and words.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::time::Duration;

use bursar::usd;
use bursar_testing::{Fault, NodeFault, Route};
use serde_json::json;
use support::{CliHarness, report, with_purchases};

#[tokio::test]
async fn a_run_says_at_its_end_how_much_was_done_paid_and_why_it_stopped() {
    let harness = CliHarness::new(report()).await;
    let all = harness.buy(&["--repeat", "3"]).await;
    let last = all.stderr.lines().last().unwrap();
    assert_eq!(
        (all.code, last),
        (0, "3 of 3 requests done; paid 0.03 USDC")
    );
    let ended = harness
        .buy(&["--repeat", "10", "--budget", "0.055", "--json"])
        .await;
    let last = ended.stderr.lines().last().unwrap();
    assert!(
        last.starts_with(
            "2 of 10 requests done; paid 0.02 USDC; stopped by: denied: 0.01 USD does not fit"
        ),
        "{last}"
    );
    assert_eq!((ended.code, ended.lines().len()), (3, 3));
    let lost = CliHarness::new(report().fault(Fault::ServerErrorAfterSettle)).await;
    let ended = lost.buy(&["--repeat", "5"]).await;
    let last = ended.stderr.lines().last().unwrap();
    assert!(
        last.starts_with("0 of 5 requests done; paid nothing, may be paid 0.01 USDC; stopped by: "),
        "{last}"
    );
    assert_eq!(
        harness.buy(&[]).await.stderr.lines().count(),
        1,
        "one request needs no sum"
    );
}

#[tokio::test]
async fn the_budget_names_its_policy_and_refuses_a_missing_ledger() {
    let harness = with_purchases().await;
    let policy = harness.file("agent.toml", "version = 1\nnetworks = [\"base-sepolia\"]\n");
    for (flags, place) in [
        (&[][..], "the defaults (no --policy)"),
        (
            &["--budget", "1"],
            "the defaults and the options (no --policy)",
        ),
        (&["--policy", &policy], policy.as_str()),
    ] {
        let run = async |more: &[&str]| {
            harness
                .run(&[&["budget", "--ledger", "ledger.db"], flags, more].concat())
                .await
        };
        let text = run(&[]).await;
        assert_eq!(
            text.text().lines().next(),
            Some(format!("limits: {place}").as_str())
        );
        for limit in run(&["--json"]).await.lines() {
            assert_eq!(limit["policy"], json!(place), "{limit}");
        }
    }
    for command in [
        &["budget"][..],
        &["report"],
        &["ledger"],
        &["ledger", "verify"],
        &["ledger", "evidence", "order"],
        &["ledger", "reconcile", "--rpc", "base=http://127.0.0.1:9"],
        &["compare", "api.example.com", "--plan", "monthly=5"],
    ] {
        let named = harness
            .run(&[command, &["--ledger", "nope.db"]].concat())
            .await;
        let mut by_variable = harness.command(command);
        by_variable.env("BURSAR_LEDGER", harness.path("nope.db"));
        for ended in [named, harness.end(by_variable, b"").await] {
            assert_eq!(
                (ended.code, ended.text()),
                (1, ""),
                "{command:?}: {ended:?}"
            );
            assert!(ended.stderr.contains("nope.db"), "{command:?}: {ended:?}");
        }
    }
    assert!(!harness.path("nope.db").exists());
}

#[tokio::test]
async fn the_ledger_is_filtered_and_shows_purchase_ids() {
    let harness = with_purchases().await;
    let run = async |more: &[&str]| {
        let args = [
            &["ledger", "--ledger", "ledger.db", "--format", "jsonl"],
            more,
        ]
        .concat();
        harness.run(&args).await
    };
    for (filter, found) in [
        (&["--state", "unresolved"][..], 1),
        (&["--state", "settled"], 2),
        (&["--last", "2"], 2),
        (&["--host", "127.0.0.1"], 3),
        (&["--host", "api.example.com"], 0),
        (&["--since", "2020-01-01"], 3),
        (&["--since", "2100-01-01"], 0),
    ] {
        assert_eq!(run(filter).await.lines().len(), found, "{filter:?}");
    }
    for wrong in [["--state", "lost"], ["--since", "yesterday"]] {
        assert_eq!(run(&wrong).await.code, 2, "{wrong:?}");
    }
    let id = run(&["--state", "unresolved"]).await.json();
    let id = id["purchase"]
        .as_str()
        .or(id["id"].as_str())
        .unwrap()
        .to_owned();
    let table = harness.run(&["ledger", "--ledger", "ledger.db"]).await;
    assert!(table.text().contains(&id), "{}", table.text());
}

#[tokio::test]
async fn the_time_limit_of_the_command_is_the_only_one_and_its_error_names_it() {
    let slow = Route::get("/report")
        .body("late")
        .delay(Duration::from_millis(300));
    let silent = Fault::BreakTerms(bursar_testing::Breakage::Silence);
    let harness = CliHarness::with_routes([
        slow,
        Route::get("/silent").price(usd!("0.01")).fault(silent),
    ])
    .await;
    let patient = harness.buy(&["--timeout", "300"]).await;
    assert_eq!((patient.code, patient.text()), (0, "late"));
    let silent = harness.paywall.url("/silent").to_string();
    let ended = harness.pay(&[&silent, "--timeout", "0.1", "--json"]).await;
    let line = ended.json();
    assert_eq!((ended.code, &line["error"]["kind"]), (1, &json!("timeout")));
    assert!(
        ended.stderr.contains("set --timeout")
            || line["error"]["message"]
                .as_str()
                .unwrap()
                .contains("set --timeout"),
        "{line}"
    );
}

#[tokio::test]
async fn words_name_options_causes_and_missing_files() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
    let args = ["pay", "--network", "base-sepolia", "--ledger", ":memory:"];
    let plain = harness.run(&[&args[..], &[&url]].concat()).await;
    assert!(
        plain.stderr.contains("add --allow-http-loopback"),
        "{}",
        plain.stderr
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let refused = harness.pay(&[&closed]).await;
    assert_eq!(
        refused.stderr.matches("onnection refused").count(),
        1,
        "{}",
        refused.stderr
    );
    let mixed = [&args[..], &["--network", "base", &url]].concat();
    let mixed = harness.run(&mixed).await;
    assert!(
        mixed
            .stderr
            .contains("names base with real money and the test network base-sepolia"),
        "{}",
        mixed.stderr
    );
    let keystore = [&args[..], &["--keystore", "nowhere.json", &url]].concat();
    let keystore = harness.run(&keystore).await;
    assert!(
        keystore.code == 2 && keystore.stderr.contains("nowhere.json"),
        "{keystore:?}"
    );
    assert!(!keystore.stderr.contains("PASSWORD"), "{}", keystore.stderr);
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test]
async fn a_policy_check_names_missing_keys_and_the_limits() {
    let harness = CliHarness::new(report()).await;
    let file = harness.file(
        "agent.toml",
        "version = 1\nnetworks = [\"base\"]\n[[credential]]\nname = \"weather\"\nhost = \"api.example.com\"\nbearer = { env = \"WEATHER_KEY\" }\n",
    );
    let ended = harness.run(&["policy", "check", &file]).await;
    assert_eq!(
        (ended.code, ended.text()),
        (0, format!("{file}: ok\n").as_str()),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("WEATHER_KEY"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("limit: global per payment 0.10 USD"),
        "{}",
        ended.stderr
    );
    let mut set = harness.command(&["policy", "check", &file]);
    set.env("WEATHER_KEY", "sunny");
    let set = harness.end(set, b"").await;
    assert!(!set.stderr.contains("warning"), "{}", set.stderr);
}

#[tokio::test]
async fn a_free_plan_reconciles() {
    let network = bursar::Network::from_chain_id(84_532);
    let harness = CliHarness::new(report().fault(Fault::NoReceipt)).await;
    assert_eq!(harness.buy(&[]).await.code, 4);
    let node = harness.paywall.node(network).await.unwrap();
    node.fault(NodeFault::FreePlan(10));
    let rpc = format!("base-sepolia={}", node.url());
    let args = [
        "ledger",
        "reconcile",
        "--ledger",
        "ledger.db",
        "--rpc",
        &rpc,
        "--json",
    ];
    let ended = harness.run(&args).await;
    assert_eq!(
        (ended.code, &ended.json()["after"]),
        (0, &json!("settled")),
        "{ended:?}"
    );
}
