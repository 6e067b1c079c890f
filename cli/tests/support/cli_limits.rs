//! Limits on the command line: flags, files, budgets, and who is denied.

use serde_json::json;

use super::bench::{CliHarness, report};
use bursar::usd;
use bursar_testing::{Fault, Route};

fn priced(price: bursar::Usd) -> Route {
    Route::get("/report").price(price).body("the report")
}

#[tokio::test]
async fn a_denial_exits_3_and_no_payment_leaves() {
    let bench = CliHarness::new(report()).await;
    let ended = bench.buy(&["--max-per-payment", "0.009", "--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["spend"], &line["error"]["kind"]),
        (3, &json!("none"), &json!("denied"))
    );
    assert!(
        line["paid"].is_null() && line["receipt"].is_null(),
        "{line}"
    );
    let ended = bench.buy(&["--max-per-payment", "0.009"]).await;
    assert_eq!((ended.code, ended.text()), (3, ""));
    assert!(
        ended
            .stderr
            .starts_with("denied: 0.01 USD is above the limit of 0.009 USD"),
        "{}",
        ended.stderr
    );

    let args = [
        "pay",
        "--network",
        "base",
        "--allow-http-loopback",
        "--ledger",
        ":memory:",
        &bench.url(),
        "--json",
    ];
    let elsewhere = bench.run(&args).await;
    assert_eq!(
        (elsewhere.code, &elsewhere.json()["error"]["kind"]),
        (3, &json!("denied"))
    );
    assert_eq!((bench.payments(), bench.settled()), (0, 0));
}

#[tokio::test]
async fn a_budget_ends_a_run_and_outlives_the_process() {
    let bench = CliHarness::new(report()).await;
    let budget = ["--budget", "0.035", "--repeat", "10", "--json"];
    let ended = bench.buy(&budget).await;
    let spends: Vec<_> = ended
        .lines()
        .iter()
        .map(|line| line["spend"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ended.code, bench.settled()), (3, 3), "{ended:?}");
    assert_eq!(spends, ["settled", "settled", "settled", "none"]);
    assert_eq!(ended.lines()[3]["error"]["kind"], "denied");

    assert_eq!(
        (bench.buy(&budget).await.code, bench.settled()),
        (3, 3),
        "a second process"
    );
    assert_eq!(
        (
            bench.buy(&["--budget", "0.045"]).await.code,
            bench.settled()
        ),
        (0, 4)
    );
    assert_eq!(
        (
            bench.buy(&["--budget", "0.045"]).await.code,
            bench.settled()
        ),
        (3, 4)
    );
    assert_eq!(bench.payments(), 4, "a denial sends no payment");
}

#[tokio::test]
async fn a_run_within_its_budget_exits_0() {
    let bench = CliHarness::new(report()).await;
    let ended = bench.buy(&["--budget", "0.05", "--repeat", "5"]).await;
    assert_eq!(
        (ended.code, ended.text(), bench.settled()),
        (0, "the report".repeat(5).as_str(), 5)
    );
    assert_eq!(ended.stderr.lines().count(), 5);
}

#[tokio::test]
async fn what_is_uncertain_counts_against_the_budget() {
    let bench = CliHarness::new(report().fault(Fault::NoReceipt)).await;
    let ended = bench
        .buy(&["--budget", "0.02", "--repeat", "5", "--json"])
        .await;
    assert_eq!(
        (ended.code, ended.lines().len(), bench.settled()),
        (3, 3, 2),
        "{ended:?}"
    );
    let bench = CliHarness::new(report().fault(Fault::NoReceipt)).await;
    assert_eq!(
        bench.buy(&["--budget", "0.02", "--repeat", "2"]).await.code,
        4,
        "some are unknown"
    );
}

#[tokio::test]
async fn a_run_stops_at_the_first_failure() {
    let bench = CliHarness::new(report().fault_once(Fault::DropAfterSettle)).await;
    let ended = bench.buy(&["--repeat", "5", "--json"]).await;
    assert_eq!((ended.code, ended.lines().len()), (4, 1));
    let bench = CliHarness::new(Route::get("/report").status(503)).await;
    assert_eq!(
        (
            bench.buy(&["--repeat", "5"]).await.code,
            bench.paywall.requests().len()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn flags_replace_the_defaults_as_help_says() {
    for (price, flags, code) in [
        (usd!("0.10"), &[][..], 0),
        (usd!("0.11"), &[][..], 3),
        (usd!("0.11"), &["--max-per-payment", "0.11"], 0),
        (usd!("0.11"), &["--budget", "1"], 3),
        (usd!("2"), &["--max-per-payment", "2"], 3),
        (usd!("2"), &["--max-per-payment", "2", "--budget", "2"], 0),
        (usd!("9"), &["--max-per-payment", "9", "--budget", "20"], 0),
    ] {
        let bench = CliHarness::new(priced(price)).await;
        let ended = bench.buy(flags).await;
        assert_eq!(
            (ended.code, bench.settled()),
            (code, usize::from(code == 0)),
            "{price} {flags:?}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn with_a_budget_no_rate_limit_holds() {
    let bench = CliHarness::new(priced(usd!("0.0001"))).await;
    assert_eq!(
        (
            bench.buy(&["--budget", "1", "--repeat", "65"]).await.code,
            bench.settled()
        ),
        (0, 65)
    );
    let bench = CliHarness::new(priced(usd!("0.0001"))).await;
    assert_eq!(
        (bench.buy(&["--repeat", "65"]).await.code, bench.settled()),
        (3, 30),
        "the loop detector"
    );
}

const POLICY: &str =
    "version = 1\nnetworks = [\"base-sepolia\"]\n[global]\nper_payment = \"0.05 USD\"\n";

#[tokio::test]
async fn flags_tighten_a_policy_file_and_never_loosen_it() {
    for (price, flags, code) in [
        (usd!("0.05"), &[][..], 0),
        (usd!("0.06"), &[][..], 3),
        (usd!("0.06"), &["--max-per-payment", "1"], 3),
        (usd!("0.05"), &["--max-per-payment", "0.04"], 3),
        (usd!("0.05"), &["--budget", "0.04"], 3),
        (usd!("0.05"), &["--budget", "0.05"], 0),
        (usd!("0.05"), &["--network", "base-sepolia"], 0),
        (usd!("0.05"), &["--network", "base"], 2),
    ] {
        let bench = CliHarness::new(priced(price)).await;
        let policy = bench.file("policy.toml", POLICY);
        let args = [
            "pay",
            "--policy",
            &policy,
            "--allow-http-loopback",
            "--ledger",
            "ledger.db",
            &bench.url(),
        ];
        let ended = bench.run(&[&args[..], flags].concat()).await;
        assert_eq!(
            (ended.code, bench.settled()),
            (code, usize::from(code == 0)),
            "{price} {flags:?}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_network_flag_narrows_a_file_and_completes_one_without_networks() {
    let bench = CliHarness::new(report()).await;
    for (networks, flags, code) in [
        (
            "networks = [\"base-sepolia\", \"avalanche-fuji\"]",
            &["--network", "avalanche-fuji"][..],
            3,
        ),
        (
            "networks = [\"base-sepolia\", \"avalanche-fuji\"]",
            &["--network", "base-sepolia"],
            0,
        ),
        ("", &[], 2),
        ("", &["--network", "base-sepolia"], 0),
    ] {
        let policy = bench.file("policy.toml", format!("version = 1\n{networks}\n"));
        let args = [
            "pay",
            "--policy",
            &policy,
            "--allow-http-loopback",
            "--ledger",
            ":memory:",
            &bench.url(),
        ];
        let ended = bench.run(&[&args[..], flags].concat()).await;
        assert_eq!(ended.code, code, "{networks} {flags:?}: {ended:?}");
    }
}

#[tokio::test]
async fn what_wants_approval_is_denied_where_nobody_can_be_asked() {
    let bench = CliHarness::new(report()).await;
    let policy = bench.file(
        "policy.toml",
        format!("{POLICY}ask_above = \"0.005 USD\"\n"),
    );
    let args = [
        "pay",
        "--policy",
        &policy,
        "--allow-http-loopback",
        &bench.url(),
        "--json",
    ];
    for more in [&[][..], &["--dry-run"]] {
        let ended = bench.run(&[&args[..], more].concat()).await;
        assert_eq!((ended.code, bench.payments()), (3, 0), "{ended:?}");
        assert!(
            ended.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("needs approval"),
            "{ended:?}"
        );
    }
}

#[tokio::test]
async fn a_dry_run_signs_nothing() {
    let bench = CliHarness::new(report()).await;
    let would = bench.buy(&["--dry-run"]).await;
    assert_eq!(
        (would.code, would.stderr.as_str()),
        (0, "would be paid\n"),
        "{would:?}"
    );
    assert!(
        would.text().contains("0.01 USDC") && would.text().contains("=> allowed"),
        "{}",
        would.text()
    );
    let denied = bench
        .buy(&["--dry-run", "--max-per-payment", "0.001", "--json"])
        .await;
    let line = denied.json();
    assert_eq!(
        (denied.code, &line["status"], &line["spend"]),
        (3, &json!(402), &json!("none"))
    );
    assert_eq!(
        (
            &line["error"]["kind"],
            &line["quote"]["offers"][0]["verdict"]
        ),
        (&json!("denied"), &json!("denied"))
    );
    let mut keyless = bench.command(&[
        "pay",
        "--dry-run",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        &bench.url(),
    ]);
    keyless.env_remove("BURSAR_PRIVATE_KEY");
    assert_eq!(bench.end(keyless, b"").await.code, 0);
    assert_eq!(
        (
            bench.payments(),
            bench.path("ledger.db").exists(),
            bench.path("state").exists()
        ),
        (0, false, false)
    );
    let args = [
        "pay",
        "--dry-run",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "http://127.0.0.1:1/",
        "--json",
    ];
    assert_eq!(bench.run(&args).await.code, 1);
}

#[tokio::test]
async fn a_dry_run_knows_what_is_spent() {
    let bench = CliHarness::new(report()).await;
    assert_eq!(bench.buy(&["--budget", "0.015"]).await.code, 0);
    assert_eq!(bench.buy(&["--budget", "0.015", "--dry-run"]).await.code, 3);
    assert_eq!(bench.buy(&["--budget", "0.02", "--dry-run"]).await.code, 0);
}

#[tokio::test]
async fn books_that_cannot_be_used_stop_paying() {
    let bench = CliHarness::new(report()).await;
    bench.file(
        "ledger.db",
        "this is no database, and longer than a header of one would be".repeat(10),
    );
    let ended = bench.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["status"], &line["error"]["kind"]),
        (1, &json!(null), &json!("ledger")),
        "{ended:?}"
    );
    assert!(bench.paywall.requests().is_empty());
}

const KEYED: &str = "version = 1
networks = [\"base-sepolia\"]

[[permit]]
agent = \"scout\"
method = \"GET\"
path = \"/report\"

[[credential]]
name = \"reports\"
host = \"127.0.0.1\"
bearer = { file = \"the.key\" }
plan = { per_call = \"0.002 USD\" }
";

#[tokio::test]
async fn a_policy_files_keys_are_used_and_compared_and_its_permissions_hold() {
    let route = report()
        .accepts_key("authorization", "Bearer k-123")
        .key_quota(1, 429);
    let bench = CliHarness::new(route).await;
    let policy = bench.file("policy.toml", KEYED);
    bench.file("the.key", "k-123\n");
    let (url, ledger) = (
        bench.url(),
        bench.path("ledger.db").to_str().unwrap().to_owned(),
    );
    let pay = |more: &[&str]| {
        let usual = [
            "pay",
            "--policy",
            &policy,
            "--allow-http-loopback",
            "--ledger",
            &ledger,
            "--json",
        ];
        [usual.as_slice(), more]
            .concat()
            .into_iter()
            .map(ToOwned::to_owned)
            .collect::<Vec<_>>()
    };
    let run = async |args: Vec<String>| {
        bench
            .run(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .await
    };
    let called = run(pay(&[&url, "--agent", "scout"])).await;
    assert_eq!(
        (called.code, called.json()["spend"].as_str()),
        (0, Some("none"))
    );
    assert_eq!(
        called.json()["called"],
        json!({ "credential": "reports", "usd": "0.002" })
    );
    assert!(called.stderr.is_empty() || !called.stderr.contains("k-123"));
    let paid = run(pay(&[&url, "--agent", "scout"])).await;
    assert_eq!(
        (paid.code, paid.json()["spend"].as_str()),
        (0, Some("settled"))
    );
    let sent = bench.paywall.requests().len();
    for forbidden in [
        &[url.as_str()][..],
        &[&url, "--agent", "scout", "-X", "POST"],
        &[&url, "--agent", "other"],
    ] {
        let denied = run(pay(forbidden)).await;
        assert_eq!(denied.code, 3, "{denied:?}");
        assert!(
            denied.json()["error"]["message"]
                .as_str()
                .unwrap()
                .contains("no permission of the policy covers")
        );
    }
    assert_eq!(bench.paywall.requests().len(), sent, "nothing was sent");
    let compared = bench
        .run(&[
            "compare",
            "127.0.0.1",
            "--plan",
            "per-call=0.003",
            "--ledger",
            &ledger,
        ])
        .await;
    assert_eq!(compared.code, 0, "{compared:?}");
    let text = compared.text();
    assert!(
        text.contains(
            "the plan would have cost 0.006 USD, 0.006 USD less than the 0.012 USD spent"
        ),
        "{text}"
    );
    let compared = bench
        .run(&[
            "compare",
            "127.0.0.1",
            "--plan",
            "per-call=0.003",
            "--ledger",
            &ledger,
            "--json",
        ])
        .await;
    assert_eq!(
        (&compared.json()["calls"], &compared.json()["wins_from"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        bench
            .run(&[
                "compare",
                "127.0.0.1",
                "--plan",
                "free",
                "--ledger",
                &ledger
            ])
            .await
            .code,
        2
    );
}
