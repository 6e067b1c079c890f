//! `bursar quote`, `ledger`, `budget` and `policy`.

use bursar_testing::{Fault, Route};
use serde_json::{Value, json};

use super::bench::{CliHarness, PAYEE, PAYER, USDC, report};

#[tokio::test]
async fn a_quote_shows_every_offer() {
    let bench = CliHarness::new(report()).await;
    let url = bench.url();
    let plain = bench.run(&["quote", "--allow-http-loopback", &url]).await;
    assert_eq!(plain.code, 0, "{plain:?}");
    assert!(
        plain.text().contains(&format!(
            "offer 1: 0.01 USDC to {PAYEE} on base-sepolia; not judged"
        )),
        "{}",
        plain.text()
    );

    let judged = bench
        .run(&[
            "quote",
            "--allow-http-loopback",
            "--network",
            "base-sepolia",
            &url,
            "--json",
        ])
        .await;
    let expected = json!({ "status": 402, "best": 0, "offers": [{
        "verdict": "allowed", "amount": "10000", "price": "0.01 USDC", "usd": "0.01", "asset": USDC,
        "network": "eip155:84532", "payTo": PAYEE, "reason": null, "denial": null,
    }] });
    assert_eq!((judged.code, judged.json()), (0, expected));

    let denied = bench
        .run(&["quote", "--allow-http-loopback", "--network", "base", &url])
        .await;
    assert_eq!(denied.code, 0);
    assert!(
        denied
            .text()
            .contains("=> denied: network eip155:84532 (base-sepolia) is not allowed"),
        "{}",
        denied.text()
    );
    assert_eq!((bench.payments(), bench.path("state").exists()), (0, false));
}

#[tokio::test]
async fn a_quote_of_what_cannot_be_paid_says_why() {
    let bench = CliHarness::new(
        Route::get("/report").offers([r#"{"scheme":"upto","network":"eip155:84532"}"#]),
    )
    .await;
    let quote = bench
        .run(&["quote", "--allow-http-loopback", &bench.url()])
        .await;
    assert!(
        quote.code == 0 && quote.text().contains("offer 1: not payable: "),
        "{quote:?}"
    );
    let ended = bench.buy(&["--dry-run", "--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("not_payable")),
        "{ended:?}"
    );
    let ended = bench.buy(&["--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("not_payable"))
    );
}

#[tokio::test]
async fn a_quote_of_what_is_free_says_so() {
    let bench = CliHarness::new(Route::get("/report").body("free")).await;
    let quote = bench
        .run(&["quote", "--allow-http-loopback", &bench.url()])
        .await;
    assert_eq!(
        (quote.code, quote.text()),
        (0, "no payment is asked for; the answer is 200\n")
    );
    let missing = bench
        .run(&[
            "quote",
            "--allow-http-loopback",
            bench.paywall.url("/missing").as_str(),
            "--json",
        ])
        .await;
    assert_eq!(
        (missing.code, missing.json()),
        (1, json!({ "status": 404, "best": null, "offers": [] }))
    );
}

/// A bench with three purchases: one settled, one unknown, one settled.
async fn with_purchases() -> CliHarness {
    let bench = CliHarness::new(report().fault_once(Fault::DropAfterSettle)).await;
    assert_eq!(bench.buy(&[]).await.code, 4);
    assert_eq!(
        bench
            .buy(&["--repeat", "2", "--allow-duplicate"])
            .await
            .code,
        0
    );
    bench
}

#[tokio::test]
async fn the_ledger_is_shown_in_three_formats() {
    let bench = with_purchases().await;
    let ledger = bench.path("ledger.db");
    let show = |format: &'static str| {
        [
            "ledger",
            "--ledger",
            ledger.to_str().unwrap(),
            "--format",
            format,
        ]
        .map(ToOwned::to_owned)
    };
    let run = async |format| {
        let args = show(format);
        let ended = bench.run(&args.each_ref().map(String::as_str)).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        ended
    };
    let settlements = bench.paywall.settlements();

    let table = run("table").await;
    let rows: Vec<_> = table.text().lines().collect();
    assert_eq!(rows.len(), 4, "{}", table.text());
    assert!(
        rows[0].starts_with("TIME")
            && rows[1].contains("unknown  0.01 USDC  base-sepolia  GET http://127.0.0.1")
    );
    assert!(
        rows[2].ends_with(&settlements[1].transaction.to_string()),
        "{}",
        rows[2]
    );

    let csv = run("csv").await;
    let rows: Vec<_> = csv.text().split_terminator("\r\n").collect();
    assert!(
        rows.len() == 4 && rows[0].starts_with("seq,reserved_at,") && rows[3].contains(",settled,"),
        "{}",
        csv.text()
    );

    let jsonl = run("jsonl").await.lines();
    let states: Vec<_> = jsonl
        .iter()
        .map(|entry| entry["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["unknown", "settled", "settled"]);
    assert_eq!(
        (&jsonl[0]["payer"], &jsonl[0]["value"]),
        (&json!(PAYER), &json!("10000"))
    );
    assert_eq!(
        jsonl[0]["nonce"],
        settlements[0].authorization.nonce.to_string()
    );
}

#[tokio::test]
async fn a_ledger_that_is_not_there_is_not_made() {
    let bench = CliHarness::new(report()).await;
    let missing = bench.run(&["ledger", "--ledger", "missing.db"]).await;
    assert!(
        missing.code == 1 && missing.stderr.contains("missing.db"),
        "{missing:?}"
    );
    let default = bench.run(&["ledger", "--format", "jsonl"]).await;
    assert_eq!((default.code, default.text()), (0, ""));
    assert_eq!(bench.run(&["budget"]).await.code, 0);
    assert!(!bench.path("missing.db").exists() && !bench.path("state").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn the_default_ledger_is_private_and_in_the_state_directory() {
    use std::os::unix::fs::PermissionsExt;
    let bench = CliHarness::new(report()).await;
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--budget",
        "0.01",
        &bench.url(),
    ];
    assert_eq!(bench.run(&args).await.code, 0);
    assert_eq!(bench.run(&args).await.code, 3);
    let mode = |path: &str| {
        std::fs::metadata(bench.path(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(
        (mode("state/bursar"), mode("state/bursar/ledger.db")),
        (0o700, 0o600)
    );
    assert_eq!(
        bench
            .run(&["ledger", "--format", "jsonl"])
            .await
            .lines()
            .len(),
        1
    );

    let mut at_home = bench.command(&args);
    at_home
        .env_remove("XDG_STATE_HOME")
        .env("HOME", bench.path("home"));
    assert_eq!(bench.end(at_home, b"").await.code, 0);
    assert!(bench.path("home/.local/state/bursar/ledger.db").exists());
    let mut homeless = bench.command(&args);
    homeless.env_remove("XDG_STATE_HOME");
    let ended = bench.end(homeless, b"").await;
    assert!(
        ended.code == 2 && ended.stderr.contains("--ledger"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn the_budget_shows_what_is_used_and_left() {
    let bench = with_purchases().await;
    let ledger = bench.path("ledger.db");
    let with = |more: &[&str]| {
        let args = ["budget", "--ledger", ledger.to_str().unwrap()];
        args.iter()
            .chain(more)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let run = async |more: &[&str]| {
        let args = with(more);
        let ended = bench
            .run(&args.iter().map(String::as_str).collect::<Vec<_>>())
            .await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        ended
    };
    let defaults = run(&["--json"]).await.lines();
    let find = |name: &str| {
        defaults
            .iter()
            .find(|limit| limit["name"] == name)
            .unwrap()
            .clone()
    };
    let rolling = find("global rolling 1d");
    assert_eq!(
        (&rolling["limit"], &rolling["used"], &rolling["left"]),
        (&json!("5.00 USD"), &json!("0.03 USD"), &json!("4.97 USD"))
    );
    assert_eq!(find("global exposure")["used"], "0.01 USD");

    let lifetime = run(&["--budget", "0.05"]).await;
    assert!(
        lifetime
            .text()
            .contains("global lifetime     0.05 USD  0.03 USD  0.02 USD"),
        "{}",
        lifetime.text()
    );
    assert!(!lifetime.text().contains("rolling"));
    assert_eq!(bench.distinct_payments(), 3, "asking signs nothing");
}

#[tokio::test]
async fn a_policy_file_is_checked() {
    let bench = CliHarness::new(report()).await;
    let good = bench.file("good.toml", "version = 1\nnetworks = [\"base\"]\n");
    let ended = bench.run(&["policy", "check", &good]).await;
    assert_eq!(
        (ended.code, ended.text()),
        (0, format!("{good}: ok\n").as_str())
    );
    for (text, says) in [
        (
            "version = 1\nnetworks = [\"base\"]\n[global]\nper_paymnt = \"1 USD\"\n",
            "line 4",
        ),
        (
            "version = 1\nnetworks = [\"base\"]\n[global]\nper_payment = \"one\"\n",
            "line 4",
        ),
        ("version = 1\nnetworks = [\"base\"\n", "line "),
        ("version = 1\n", "names no network"),
    ] {
        let bad = bench.file("bad.toml", text);
        let ended = bench.run(&["policy", "check", &bad]).await;
        assert!(
            ended.code == 2 && ended.stderr.contains(says),
            "{text}: {ended:?}"
        );
        let ended = bench.run(&["pay", "--policy", &bad, &bench.url()]).await;
        assert!(
            ended.code == 2 && ended.stderr.contains(says),
            "{text}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn a_policy_file_explains_itself() {
    let bench = with_purchases().await;
    let policy = bench.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[global]\nper_payment = \"0.05 USD\"\nlifetime = \"0.05 USD\"\n[[host]]\nmatch = \"api.example.com\"\nper_payment = \"0.02 USD\"\n",
    );
    let run = async |more: &[&str]| {
        let args = [
            "policy",
            "explain",
            &policy,
            "https://api.example.com/report",
        ];
        bench.run(&[&args[..], more].concat()).await
    };
    let allowed = run(&["--price", "0.02"]).await;
    assert!(
        allowed.code == 0 && allowed.text().ends_with("=> allowed\n"),
        "{allowed:?}"
    );
    let denied = run(&["--price", "$0.03"]).await;
    assert_eq!(denied.code, 3);
    assert!(
        denied
            .text()
            .contains("deny  host api.example.com per payment"),
        "{}",
        denied.text()
    );
    let books = run(&["--price", "0.02", "--ledger", "ledger.db"]).await;
    assert!(
        books.code == 0 && books.text().contains("0.02 USD of 0.05 USD left"),
        "{books:?}"
    );
    let elsewhere = run(&["--price", "0.01", "--network", "base", "--json"]).await;
    let answers = elsewhere.json()["answers"].as_array().unwrap().clone();
    let denying: Vec<&Value> = answers
        .iter()
        .filter(|answer| !answer["denial"].is_null())
        .collect();
    assert_eq!(
        (elsewhere.code, denying.len(), &denying[0]["rule"]),
        (3, 1, &json!("network"))
    );
    let listed = bench.file(
        "listed.toml",
        format!("version = 1\nnetworks = [\"base\"]\n[allow]\npayees = [\"{PAYEE}\"]\n"),
    );
    for (payee, code) in [(&[][..], 3), (&["--payee", PAYEE], 0)] {
        let args = [
            "policy",
            "explain",
            &listed,
            "https://a.example/",
            "--price",
            "0.01",
        ];
        let ended = bench.run(&[&args[..], payee].concat()).await;
        assert_eq!(ended.code, code, "{ended:?}");
    }
    assert_eq!(
        run(&["--price", "0.02", "--ledger", "missing.db"])
            .await
            .code,
        2
    );
}
