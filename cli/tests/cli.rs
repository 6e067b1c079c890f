//! `bursar pay`, the real binary against the crate's paywall: exit codes, JSON, limits, secrets.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "support/cli.rs"]
mod bench;
#[path = "support/cli_commands.rs"]
mod commands;
#[path = "support/cli_discover.rs"]
mod discover;
#[path = "support/cli_limits.rs"]
mod limits;
#[path = "support/cli_report.rs"]
mod spending;
#[path = "support/cli_transfer.rs"]
mod transfer;
#[path = "support/cli_upkeep.rs"]
mod upkeep;

use bench::{CliHarness, KEY, PAYEE, PAYER, USDC, report};
use bursar::U256;
use bursar_testing::{Fault, Forgery, Route};
use serde_json::{Value, json};

fn keys(value: &Value) -> Vec<&str> {
    value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

#[tokio::test]
async fn content_is_bought_and_printed() {
    for route in [report(), report().v1(), report().upfront()] {
        let bench = CliHarness::new(route).await;
        let ended = bench.buy(&[]).await;
        assert_eq!((ended.code, ended.text()), (0, "the report"), "{ended:?}");
        let settlement = &bench.paywall.settlements()[0];
        let line = format!(
            "paid 0.01 USDC to {PAYEE} on base-sepolia, transaction {}\n",
            settlement.transaction
        );
        assert_eq!(ended.stderr, line);
        assert_eq!(bench.settled(), 1);
    }
}

#[tokio::test]
async fn the_json_of_a_purchase_has_this_shape() {
    let bench = CliHarness::new(report()).await;
    let ended = bench.buy(&["--json"]).await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
    let line = ended.json();
    assert_eq!(
        keys(&line),
        ["status", "spend", "paid", "receipt", "body", "error"]
    );
    let settlement = &bench.paywall.settlements()[0];
    let authorization = settlement.authorization;
    let expected = json!({
        "status": 200,
        "spend": "settled",
        "paid": {
            "amount": "10000",
            "asset": USDC,
            "network": "eip155:84532",
            "payTo": PAYEE,
            "nonce": authorization.nonce.to_string(),
            "validBefore": authorization.valid_before,
        },
        "receipt": {
            "success": true,
            "transaction": settlement.transaction.to_string(),
            "network": "eip155:84532",
            "payer": PAYER,
        },
        "body": "the report",
        "error": null,
    });
    assert_eq!(line, expected);
    assert_eq!(keys(&line["paid"]), keys(&expected["paid"]));
}

#[tokio::test]
async fn what_is_free_is_not_paid() {
    let bench = CliHarness::new(Route::get("/report").body("free")).await;
    let ended = bench.buy(&[]).await;
    assert_eq!(
        (ended.code, ended.text(), ended.stderr.as_str()),
        (0, "free", "not paid: it is free\n")
    );
    let expected = json!({ "status": 200, "spend": "none", "paid": null, "receipt": null, "body": "free", "error": null });
    assert_eq!(bench.buy(&["--json"]).await.json(), expected);
    assert_eq!(bench.payments(), 0);
}

#[tokio::test]
async fn failures_with_nothing_signed_exit_1() {
    let bench = CliHarness::new(Route::get("/report").status(404).body("nothing here")).await;
    let ended = bench.buy(&[]).await;
    assert_eq!((ended.code, ended.text()), (1, "nothing here"));
    assert_eq!(ended.stderr, "not paid: the answer is 404 Not Found\n");
    let line = bench.buy(&["--json"]).await.json();
    assert_eq!(
        (&line["status"], &line["error"]["kind"], &line["body"]),
        (&json!(404), &json!("status"), &json!("nothing here"))
    );

    let unreachable = bench.pay(&["http://127.0.0.1:1/", "--json"]).await;
    let line = unreachable.json();
    assert_eq!(unreachable.code, 1);
    assert_eq!(
        (&line["status"], &line["spend"], &line["error"]["kind"]),
        (&json!(null), &json!("none"), &json!("transport"))
    );
    assert_eq!(line["body"], "");
    assert!(
        line["error"]["message"]
            .as_str()
            .unwrap()
            .contains("refused"),
        "{line}"
    );
}

#[tokio::test]
async fn plain_http_is_refused_but_for_an_allowed_loopback() {
    let bench = CliHarness::new(report()).await;
    let ended = bench
        .run(&["pay", "--network", "base-sepolia", &bench.url(), "--json"])
        .await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("insecure"))
    );
    let ended = bench.pay(&["http://example.com/", "--json"]).await;
    assert_eq!(
        (ended.code, &ended.json()["error"]["kind"]),
        (1, &json!("insecure"))
    );
    assert!(bench.paywall.requests().is_empty());
}

#[tokio::test]
async fn an_answer_lost_after_the_signature_exits_4() {
    for (fault, seconds) in [
        (Fault::DropAfterSettle, "30"),
        (Fault::HangAfterSettle, "1"),
    ] {
        let bench = CliHarness::new(report().fault(fault)).await;
        let ended = bench.buy(&["--json", "--timeout", seconds]).await;
        let line = ended.json();
        assert_eq!(
            (ended.code, &line["spend"], &line["status"]),
            (4, &json!("unknown"), &json!(null)),
            "{ended:?}"
        );
        assert!(line["receipt"].is_null() && line["error"].is_object());
        let signed = bench.paywall.settlements()[0].authorization;
        let expected = json!({
            "amount": "10000", "asset": USDC, "network": "eip155:84532", "payTo": PAYEE,
            "nonce": signed.nonce.to_string(), "validBefore": signed.valid_before,
        });
        assert_eq!(line["paid"], expected);
    }
}

#[tokio::test]
async fn whatever_the_seller_claims_a_failed_call_after_a_signature_exits_4_or_5() {
    let place = "http://127.0.0.1:1/".parse().unwrap();
    for fault in [
        Fault::ServerErrorAfterSettle,
        Fault::SettlementPending,
        Fault::SettlementFailure,
        Fault::DoublePrice,
        Fault::ForgedReceipt(Forgery::Failure),
    ] {
        let bench = CliHarness::new(report().fault(fault.clone())).await;
        let ended = bench.buy(&["--json"]).await;
        assert_eq!(
            (ended.code, &ended.json()["spend"]),
            (4, &json!("unknown")),
            "{fault:?}: {ended:?}"
        );
        assert!(
            ended.json()["paid"].is_object() && ended.json()["error"].is_object(),
            "{ended:?}"
        );
        assert_eq!(bench.distinct_payments(), 1);
        let ended = bench.buy(&[]).await;
        assert_eq!(
            bench.distinct_payments(),
            1,
            "{fault:?}: the same is presented again"
        );
        assert!(
            ended.code == 4 && ended.stderr.starts_with("may be paid: "),
            "{ended:?}"
        );
    }
    let bench = CliHarness::new(report().fault(Fault::RedirectAfterPayment(place))).await;
    assert_eq!(bench.buy(&[]).await.code, 4);
}

#[tokio::test]
async fn content_without_a_matching_receipt_is_delivered_as_unknown() {
    for fault in [
        Fault::NoReceipt,
        Fault::MalformedReceipt,
        Fault::ForgedReceipt(Forgery::Payer),
        Fault::ForgedReceipt(Forgery::Network),
        Fault::ForgedReceipt(Forgery::NoTransaction),
    ] {
        let bench = CliHarness::new(report().fault(fault.clone())).await;
        let ended = bench.buy(&["--json"]).await;
        let line = ended.json();
        assert_eq!(ended.code, 4, "{fault:?}: {ended:?}");
        assert_eq!(
            (&line["status"], &line["spend"], &line["body"]),
            (&json!(200), &json!("unknown"), &json!("the report"))
        );
        assert!(
            line["paid"].is_object() && line["receipt"].is_null() && line["error"].is_null(),
            "{line}"
        );
        let ended = bench.buy(&[]).await;
        assert_eq!((ended.code, ended.text()), (4, "the report"));
        let line = format!(
            "may be paid: 0.01 USDC to {PAYEE} on base-sepolia; the seller gave no receipt that matches\n"
        );
        assert_eq!(ended.stderr, line);
    }
}

#[tokio::test]
async fn paid_and_failed_exits_5() {
    let bench = CliHarness::new(report().upfront().status(500)).await;
    let ended = bench.buy(&["--json"]).await;
    let line = ended.json();
    assert_eq!(
        (ended.code, &line["status"], &line["spend"]),
        (5, &json!(500), &json!("settled")),
        "{ended:?}"
    );
    assert_eq!(
        (&line["error"]["kind"], &line["body"]),
        (&json!("status"), &json!("the report"))
    );
    assert_eq!(
        line["receipt"]["transaction"],
        bench.paywall.settlements()[0].transaction.to_string()
    );

    let bench = CliHarness::new(
        report()
            .body("x".repeat(100_000))
            .fault(Fault::BrokenBodyAfterSettle),
    )
    .await;
    let ended = bench.buy(&[]).await;
    assert_eq!(ended.code, 5, "{}", ended.stderr);
    assert!(
        ended.stderr.starts_with("paid: the body broke off: "),
        "{}",
        ended.stderr
    );
    assert_eq!(bench.settled(), 1);
}

#[tokio::test]
async fn a_purchase_id_is_paid_once() {
    let bench = CliHarness::new(report().idempotent()).await;
    for _ in 0..3 {
        let ended = bench.buy(&["--purchase-id", "order-7", "--json"]).await;
        assert_eq!((ended.code, &ended.json()["spend"]), (0, &json!("settled")));
    }
    assert_eq!(bench.settled(), 1);
    let other = bench
        .pay(&[
            bench.paywall.url("/report?other").as_str(),
            "--purchase-id",
            "order-7",
            "--json",
        ])
        .await;
    assert_eq!(
        (other.code, &other.json()["error"]["kind"]),
        (1, &json!("purchase"))
    );
    assert_eq!(
        bench.paywall.paid_by(PAYER.parse().unwrap()),
        U256::from(10_000)
    );
}

#[tokio::test]
async fn mistakes_on_the_command_line_exit_2_and_send_nothing() {
    let bench = CliHarness::new(report()).await;
    let url = bench.url();
    let mistakes: &[&[&str]] = &[
        &[],
        &["buy"],
        &["pay"],
        &["pay", "--network", "base-sepolia", "example.com/report"],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "ftp://example.com/report",
        ],
        &["pay", "--network", "nowhere", &url],
        &["pay", "--network", "solana:mainnet", &url],
        &["pay", &url, "--allow-http-loopback"],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "--network",
            "base",
            &url,
        ],
        &["pay", "--network", "base-sepolia", "--budget", "five", &url],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "--max-per-payment",
            "-1",
            &url,
        ],
        &["pay", "--network", "base-sepolia", "--timeout", "0", &url],
        &["pay", "--network", "base-sepolia", "--repeat", "0", &url],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "--repeat",
            "2",
            "--purchase-id",
            "a",
            &url,
        ],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "--repeat",
            "2",
            "--dry-run",
            &url,
        ],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "--purchase-id",
            "two words",
            &url,
        ],
        &["pay", "--network", "base-sepolia", "-H", "no colon", &url],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "-d",
            "@no-such-file",
            &url,
        ],
        &["pay", "--policy", "no-such-file.toml", &url],
        &[
            "pay",
            "--network",
            "base-sepolia",
            "--private-key",
            "0x01",
            &url,
        ],
        &["quote", "--budget", "1", &url],
        &["ledger", "--format", "xml"],
        &["policy", "explain", "policy.toml", &url],
    ];
    for mistake in mistakes {
        let ended = bench.run(mistake).await;
        assert_eq!(
            (ended.code, ended.text()),
            (2, ""),
            "{mistake:?}: {ended:?}"
        );
        assert!(!ended.stderr.is_empty(), "{mistake:?}");
    }
    let unknown = bench.run(&["pay", "--network", "base-seplia", &url]).await;
    assert!(
        unknown
            .stderr
            .contains("`base-seplia` is not an EVM network"),
        "{}",
        unknown.stderr
    );
    let none = bench.run(&["pay", "--allow-http-loopback", &url]).await;
    assert!(
        none.stderr.contains("--network base-sepolia"),
        "{}",
        none.stderr
    );
    assert!(bench.paywall.requests().is_empty());
}

#[tokio::test]
async fn without_a_usable_key_nothing_is_sent() {
    let bench = CliHarness::new(report()).await;
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        &bench.url(),
    ];
    let mut none = bench.command(&args);
    none.env_remove("BURSAR_PRIVATE_KEY");
    let mut bad = bench.command(&args);
    bad.env("BURSAR_PRIVATE_KEY", &KEY[..60]);
    for (command, says) in [(none, "BURSAR_PRIVATE_KEY"), (bad, "64 hexadecimal digits")] {
        let ended = bench.end(command, b"").await;
        assert!(ended.code == 2 && ended.stderr.contains(says), "{ended:?}");
        assert!(!ended.stderr.contains(&KEY[2..60]));
    }
    assert!(bench.paywall.requests().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_keystore_pays() {
    let bench = CliHarness::new(report()).await;
    let file = bench.file("wallet.json", include_str!("support/cli_keystore.json"));
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--keystore",
        &file,
        &bench.url(),
        "--json",
    ];
    let with = |password: Option<&str>| {
        let mut command = bench.command(&args);
        command.envs(password.map(|password| ("BURSAR_KEYSTORE_PASSWORD", password)));
        command
    };
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = bench.end(with(Some("testpassword")), b"").await;
    assert!(
        open.code == 2 && open.stderr.contains("readable by other users"),
        "{open:?}"
    );
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(bench.end(with(Some("wrong")), b"").await.code, 2);
    let unasked = bench.end(with(None), b"testpassword\n").await;
    assert!(
        unasked.code == 2 && unasked.stderr.contains("BURSAR_KEYSTORE_PASSWORD"),
        "{unasked:?}"
    );
    assert_eq!(bench.settled(), 0);
    let ended = bench.end(with(Some("testpassword")), b"").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        ended.json()["receipt"]["payer"],
        "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b"
    );
}

#[tokio::test]
async fn help_tells_and_exits_0() {
    let bench = CliHarness::new(report()).await;
    for args in [
        &["--help"][..],
        &["--version"],
        &["pay", "--help"],
        &["policy", "explain", "--help"],
    ] {
        let ended = bench.run(args).await;
        assert!(
            ended.code == 0 && ended.stderr.is_empty() && !ended.stdout.is_empty(),
            "{args:?}: {ended:?}"
        );
    }
    let help = bench.run(&["pay", "--help"]).await;
    for word in [
        "BURSAR_PRIVATE_KEY",
        "--max-per-payment",
        "Exit codes",
        "validBefore",
        "a signature left",
    ] {
        assert!(help.text().contains(word), "{word}");
    }
}
