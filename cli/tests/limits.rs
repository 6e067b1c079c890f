//! Limits on the command line: options, policy files, budgets and denials.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use bursar_testing::{Fault, Route};
use serde_json::json;
use support::{CliHarness, report};

fn priced(price: bursar::Usd) -> Route {
    Route::get("/report").price(price).body("the report")
}

#[tokio::test]
async fn a_denied_request_exits_with_3_and_sends_no_payment() {
    let harness = CliHarness::new(report()).await;
    let ended = harness.buy(&["--max-per-payment", "0.009", "--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["payment"], &line["error"]["kind"]),
        (3, &json!("not_paid"), &json!("denied"))
    );
    assert!(
        line["authorization"].is_null() && line["receipt"].is_null(),
        "{line}"
    );
    let ended = harness.buy(&["--max-per-payment", "0.009"]).await;
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
        &harness.url(),
        "--json",
    ];
    let elsewhere = harness.run(&args).await;
    assert_eq!(
        (elsewhere.code, &elsewhere.json()["error"]["kind"]),
        (3, &json!("denied"))
    );
    assert_eq!((harness.payments(), harness.settled()), (0, 0));
}

#[tokio::test]
async fn a_budget_ends_a_run_and_holds_in_the_next_process() {
    let harness = CliHarness::new(report()).await;
    let budget = ["--budget", "0.035", "--repeat", "10", "--json"];
    let ended = harness.buy(&budget).await;
    let payments: Vec<_> = ended
        .lines()
        .iter()
        .map(|line| line["payment"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!((ended.code, harness.settled()), (3, 3), "{ended:?}");
    assert_eq!(payments, ["paid", "paid", "paid", "not_paid"]);
    assert_eq!(ended.lines()[3]["error"]["kind"], "denied");

    assert_eq!(
        (harness.buy(&budget).await.code, harness.settled()),
        (3, 3),
        "a second process"
    );
    assert_eq!(
        (
            harness.buy(&["--budget", "0.045"]).await.code,
            harness.settled()
        ),
        (0, 4)
    );
    assert_eq!(
        (
            harness.buy(&["--budget", "0.045"]).await.code,
            harness.settled()
        ),
        (3, 4)
    );
    assert_eq!(harness.payments(), 4, "a denial sends no payment");
}

#[tokio::test]
async fn a_run_within_its_budget_exits_with_0() {
    let harness = CliHarness::new(report()).await;
    let ended = harness.buy(&["--budget", "0.05", "--repeat", "5"]).await;
    assert_eq!(
        (ended.code, ended.text(), harness.settled()),
        (0, "the report".repeat(5).as_str(), 5)
    );
    assert_eq!(ended.stderr.lines().count(), 6, "one for each, and the sum");
}

#[tokio::test]
async fn an_unresolved_payment_counts_against_the_budget() {
    let harness = CliHarness::new(report().fault(Fault::NoReceipt)).await;
    let ended = harness
        .buy(&["--budget", "0.02", "--repeat", "5", "--json"])
        .await;
    assert_eq!(
        (ended.code, ended.lines().len(), harness.settled()),
        (3, 3, 2),
        "{ended:?}"
    );
    let harness = CliHarness::new(report().fault(Fault::NoReceipt)).await;
    assert_eq!(
        harness
            .buy(&["--budget", "0.02", "--repeat", "2"])
            .await
            .code,
        4,
        "some are unknown"
    );
}

#[tokio::test]
async fn a_run_stops_at_the_first_failure() {
    let harness = CliHarness::new(report().fault_once(Fault::DropAfterSettle)).await;
    let ended = harness.buy(&["--repeat", "5", "--json"]).await;
    assert_eq!((ended.code, ended.lines().len()), (4, 1));
    let harness = CliHarness::new(Route::get("/report").status(503)).await;
    assert_eq!(
        (
            harness.buy(&["--repeat", "5"]).await.code,
            harness.paywall.requests().len()
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn options_replace_the_default_limits_as_help_states() {
    for (price, flags, code) in [
        (usd!("0.10"), &[][..], 0),
        (usd!("0.11"), &[][..], 3),
        (usd!("0.11"), &["--max-per-payment", "0.11"], 0),
        (usd!("0.11"), &["--budget", "1"], 3),
        (usd!("2"), &["--max-per-payment", "2"], 3),
        // The limit for unresolved payments.
        (usd!("2"), &["--max-per-payment", "2", "--budget", "2"], 3),
        (usd!("9"), &["--no-default-limits", "--budget", "20"], 0),
        (usd!("21"), &["--no-default-limits", "--budget", "20"], 3),
        (
            usd!("9"),
            &[
                "--no-default-limits",
                "--budget",
                "20",
                "--max-per-payment",
                "8",
            ],
            3,
        ),
        // Nothing would limit the sum.
        (
            usd!("9"),
            &["--no-default-limits", "--max-per-payment", "9"],
            2,
        ),
        (usd!("0.01"), &["--no-default-limits"], 2),
        (usd!("9"), &["--unlimited"], 0),
        (usd!("9"), &["--unlimited", "--no-default-limits"], 0),
        (usd!("9"), &["--unlimited", "--max-per-payment", "8"], 3),
        (usd!("9"), &["--unlimited", "--budget", "8"], 3),
    ] {
        let harness = CliHarness::new(priced(price)).await;
        let ended = harness.buy(flags).await;
        assert_eq!(
            (ended.code, harness.settled()),
            (code, usize::from(code == 0)),
            "{price} {flags:?}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_budget_keeps_the_default_limits_and_an_option_of_its_own_removes_them() {
    for (price, flags, code) in [
        (
            usd!("0.11"),
            &["--budget", "1", "--no-default-limits"][..],
            0,
        ),
        (usd!("0.11"), &["--budget", "1"], 3),
        (usd!("0.11"), &[], 3),
    ] {
        let harness = CliHarness::new(priced(price)).await;
        let ended = harness.buy(flags).await;
        assert_eq!(
            (ended.code, harness.settled()),
            (code, usize::from(code == 0)),
            "{flags:?}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn no_option_removes_the_brake_against_loops() {
    for flags in [
        &[][..],
        &["--budget", "100"],
        &["--budget", "100", "--no-default-limits"],
        &["--unlimited"],
    ] {
        let harness = CliHarness::new(priced(usd!("0.0001"))).await;
        let ended = harness
            .buy(&[flags, &["--repeat", "80", "--json"]].concat())
            .await;
        let last = ended.lines().pop().unwrap();
        assert_eq!(
            (
                ended.code,
                harness.settled(),
                &last["error"]["denial"]["rule"]
            ),
            (3, 30, &json!("loop_guard")),
            "{flags:?}: {}",
            ended.stderr
        );
    }
}

#[tokio::test]
async fn no_option_removes_the_brake_against_failing_sellers() {
    for flags in [
        &[][..],
        &["--budget", "100"],
        &["--budget", "100", "--no-default-limits"],
        &["--unlimited"],
    ] {
        let harness = CliHarness::new(report().fault(Fault::StatusAfterSettle(500))).await;
        for number in 0..6 {
            let url = format!("{}?{number}", harness.url());
            harness.pay(&[flags, &[&url]].concat()).await;
        }
        assert_eq!(harness.settled(), 3, "{flags:?}");
    }
}

#[tokio::test]
async fn a_policy_file_without_limits_must_state_that_it_is_unlimited() {
    let harness = CliHarness::new(priced(usd!("9"))).await;
    for (keys, checks, pays) in [
        ("default_limits = false", 2, 2),
        (
            "default_limits = false\n[global]\nlifetime = \"20 USD\"",
            2,
            2,
        ),
        (
            "default_limits = false\n[global]\npayments = { window = \"1m\", max = 1 }",
            2,
            2,
        ),
        (
            "default_limits = false\n[global]\nper_payment = \"9 USD\"\nlifetime = \"20 USD\"",
            0,
            0,
        ),
        ("unlimited = true", 0, 0),
        ("unlimited = true\ndefault_limits = true", 2, 2),
        (
            "default_limits = false\n[each.tag]\nper_payment = \"9 USD\"\nlifetime = \"20 USD\"",
            0,
            3,
        ),
    ] {
        let text = format!("version = 1\nnetworks = [\"base-sepolia\"]\n{keys}\n");
        let policy = harness.file("policy.toml", text);
        let ended = harness.run(&["policy", "check", &policy]).await;
        assert_eq!(ended.code, checks, "{keys}: {ended:?}");
        assert_eq!(
            ended.stderr.contains("unlimited"),
            keys.contains("unlimited") || checks == 2,
            "{ended:?}"
        );
        let before = harness.settled();
        let args = [
            "pay",
            "--policy",
            &policy,
            "--allow-http-loopback",
            "--ledger",
            ":memory:",
        ];
        let ended = harness.run(&[&args[..], &[&harness.url()]].concat()).await;
        assert_eq!(
            (ended.code, harness.settled().saturating_sub(before)),
            (pays, usize::from(pays == 0)),
            "{keys}: {ended:?}"
        );
    }
}

const POLICY: &str =
    "version = 1\nnetworks = [\"base-sepolia\"]\n[global]\nper_payment = \"0.05 USD\"\n";

#[tokio::test]
async fn options_make_a_policy_file_stricter_but_never_weaker() {
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
        let harness = CliHarness::new(priced(price)).await;
        let policy = harness.file("policy.toml", POLICY);
        let args = [
            "pay",
            "--policy",
            &policy,
            "--allow-http-loopback",
            "--ledger",
            "ledger.db",
            &harness.url(),
        ];
        let ended = harness.run(&[&args[..], flags].concat()).await;
        assert_eq!(
            (ended.code, harness.settled()),
            (code, usize::from(code == 0)),
            "{price} {flags:?}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_network_option_selects_a_network_of_the_file_or_adds_the_first_one() {
    let harness = CliHarness::new(report()).await;
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
        let policy = harness.file("policy.toml", format!("version = 1\n{networks}\n"));
        let args = [
            "pay",
            "--policy",
            &policy,
            "--allow-http-loopback",
            "--ledger",
            ":memory:",
            &harness.url(),
        ];
        let ended = harness.run(&[&args[..], flags].concat()).await;
        assert_eq!(ended.code, code, "{networks} {flags:?}: {ended:?}");
    }
}

#[tokio::test]
async fn a_payment_that_needs_approval_is_denied_without_a_terminal() {
    let harness = CliHarness::new(report()).await;
    let policy = harness.file(
        "policy.toml",
        format!("{POLICY}ask_above = \"0.005 USD\"\n"),
    );
    let args = [
        "pay",
        "--policy",
        &policy,
        "--allow-http-loopback",
        &harness.url(),
        "--json",
    ];
    for more in [&[][..], &["--dry-run"]] {
        let ended = harness.run(&[&args[..], more].concat()).await;
        assert_eq!((ended.code, harness.payments()), (3, 0), "{ended:?}");
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
    let harness = CliHarness::new(report()).await;
    let would = harness.buy(&["--dry-run"]).await;
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
    let denied = harness
        .buy(&["--dry-run", "--max-per-payment", "0.001", "--json"])
        .await;
    let line = denied.json();
    assert_eq!(
        (denied.code, &line["status"], &line["payment"]),
        (3, &json!(402), &json!("not_paid"))
    );
    assert_eq!(
        (
            &line["error"]["kind"],
            &line["quote"]["offers"][0]["verdict"]
        ),
        (&json!("denied"), &json!("denied"))
    );
    let mut keyless = harness.command(&[
        "pay",
        "--dry-run",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        &harness.url(),
    ]);
    keyless.env_remove("BURSAR_PRIVATE_KEY");
    assert_eq!(harness.end(keyless, b"").await.code, 0);
    assert_eq!(
        (
            harness.payments(),
            harness.path("ledger.db").exists(),
            harness.path("state").exists()
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
    assert_eq!(harness.run(&args).await.code, 1);
}

#[tokio::test]
async fn a_dry_run_counts_earlier_payments() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&["--budget", "0.015"]).await.code, 0);
    assert_eq!(
        harness.buy(&["--budget", "0.015", "--dry-run"]).await.code,
        3
    );
    assert_eq!(
        harness.buy(&["--budget", "0.02", "--dry-run"]).await.code,
        0
    );
}

#[tokio::test]
async fn a_damaged_ledger_stops_payments() {
    let harness = CliHarness::new(report()).await;
    harness.file(
        "ledger.db",
        "this is no database, and longer than a header of one would be".repeat(10),
    );
    let ended = harness.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["status"], &line["error"]["kind"]),
        (1, &json!(null), &json!("ledger")),
        "{ended:?}"
    );
    assert!(harness.paywall.requests().is_empty());
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
async fn api_keys_and_permissions_of_a_policy_file_are_used() {
    let route = report()
        .accepts_key("authorization", "Bearer k-123")
        .key_quota(1, 429);
    let harness = CliHarness::new(route).await;
    let policy = harness.file("policy.toml", KEYED);
    harness.file("the.key", "k-123\n");
    let (url, ledger) = (
        harness.url(),
        harness.path("ledger.db").to_str().unwrap().to_owned(),
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
        harness
            .run(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .await
    };
    let api_call = run(pay(&[&url, "--agent", "scout"])).await;
    assert_eq!(
        (api_call.code, api_call.json()["payment"].as_str()),
        (0, Some("not_paid"))
    );
    assert_eq!(
        api_call.json()["api_call"],
        json!({ "credential": "reports", "usd": "0.002" })
    );
    assert!(api_call.stderr.is_empty() || !api_call.stderr.contains("k-123"));
    let paid = run(pay(&[&url, "--agent", "scout"])).await;
    assert_eq!(
        (paid.code, paid.json()["payment"].as_str()),
        (0, Some("paid"))
    );
    let sent = harness.paywall.requests().len();
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
    assert_eq!(harness.paywall.requests().len(), sent, "nothing was sent");
    let compared = harness
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
    let compared = harness
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
        harness
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
