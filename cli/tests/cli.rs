//! The command line: help, mistakes, keys and keystores.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use support::{CliHarness, KEY, report};

#[tokio::test]
async fn a_wrong_command_line_exits_with_2_and_sends_nothing() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
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
        let ended = harness.run(mistake).await;
        assert_eq!(
            (ended.code, ended.text()),
            (2, ""),
            "{mistake:?}: {ended:?}"
        );
        assert!(!ended.stderr.is_empty(), "{mistake:?}");
    }
    let unknown = harness
        .run(&["pay", "--network", "base-seplia", &url])
        .await;
    assert!(
        unknown
            .stderr
            .contains("`base-seplia` is not an EVM network"),
        "{}",
        unknown.stderr
    );
    let none = harness.run(&["pay", "--allow-http-loopback", &url]).await;
    assert!(
        none.stderr.contains("--network base-sepolia"),
        "{}",
        none.stderr
    );
    assert!(harness.paywall.requests().is_empty());
}

#[tokio::test]
async fn without_a_usable_key_nothing_is_sent() {
    let harness = CliHarness::new(report()).await;
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        &harness.url(),
    ];
    let mut none = harness.command(&args);
    none.env_remove("BURSAR_PRIVATE_KEY");
    let mut bad = harness.command(&args);
    bad.env("BURSAR_PRIVATE_KEY", &KEY[..60]);
    for (command, expected) in [(none, "BURSAR_PRIVATE_KEY"), (bad, "64 hexadecimal digits")] {
        let ended = harness.end(command, b"").await;
        assert!(
            ended.code == 2 && ended.stderr.contains(expected),
            "{ended:?}"
        );
        assert!(!ended.stderr.contains(&KEY[2..60]));
    }
    assert!(harness.paywall.requests().is_empty());
}

#[cfg(unix)]
#[tokio::test]
async fn a_keystore_pays() {
    let harness = CliHarness::new(report()).await;
    let file = harness.file("wallet.json", include_str!("support/keystore.json"));
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--keystore",
        &file,
        &harness.url(),
        "--json",
    ];
    let with = |password: Option<&str>| {
        let mut command = harness.command(&args);
        command.envs(password.map(|password| ("BURSAR_KEYSTORE_PASSWORD", password)));
        command
    };
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let open = harness.end(with(Some("testpassword")), b"").await;
    assert!(
        open.code == 2 && open.stderr.contains("readable by other users"),
        "{open:?}"
    );
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(harness.end(with(Some("wrong")), b"").await.code, 2);
    let unasked = harness.end(with(None), b"testpassword\n").await;
    assert!(
        unasked.code == 2 && unasked.stderr.contains("BURSAR_KEYSTORE_PASSWORD"),
        "{unasked:?}"
    );
    assert_eq!(harness.settled(), 0);
    let ended = harness.end(with(Some("testpassword")), b"").await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(
        ended.json()["receipt"]["payer"],
        "0x008AeEda4D805471dF9b2A5B0f38A0C3bCBA786b"
    );
}

#[tokio::test]
async fn help_is_printed_and_exits_with_0() {
    let harness = CliHarness::new(report()).await;
    for args in [
        &["--help"][..],
        &["--version"],
        &["pay", "--help"],
        &["policy", "explain", "--help"],
    ] {
        let ended = harness.run(args).await;
        assert!(
            ended.code == 0 && ended.stderr.is_empty() && !ended.stdout.is_empty(),
            "{args:?}: {ended:?}"
        );
    }
    let help = harness.run(&["pay", "--help"]).await;
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

#[tokio::test]
async fn a_mistake_on_the_command_line_repeats_no_secret() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
    let word = "s3cret".repeat(8);
    for (about, args) in [
        (
            "a query",
            vec!["pay", "htps://api.example.com/a?key=s3cret"],
        ),
        ("a path", vec!["quote", "ftp://api.example.com/v3/s3cret"]),
        (
            "a password",
            vec!["pay", "htps://me:s3cret@api.example.com"],
        ),
        (
            "a password with marks",
            vec!["pay", "htps://me:s3cret?/s3cret@api.example.com"],
        ),
        ("no host", vec!["pay", "https://:s3cret@/a"]),
        (
            "a port",
            vec!["pay", "https://api.example.com:99999/?token=s3cret"],
        ),
        (
            "an endpoint",
            vec![
                "ledger",
                "reconcile",
                "--rpc",
                "base:https://node.example/v3/s3cret",
            ],
        ),
        (
            "an endpoint without network",
            vec![
                "ledger",
                "reconcile",
                "--rpc",
                "https://node.example/s3cret?x=1",
            ],
        ),
        ("a key in the wrong place", vec!["pay", &url, &word]),
        ("a key for a network", vec!["pay", &url, "--network", &word]),
        ("a key as a command", vec![&word]),
        ("a key for a number", vec!["pay", &url, "--key-fd", &word]),
    ] {
        let ended = harness.run(&args).await;
        assert!(
            ended.code == 2 && !ended.stderr.contains("s3cret"),
            "{about}: {ended:?}"
        );
    }
    // The harness looks for its key in the output.
    let key = KEY.trim_start_matches("0x");
    let keystore = ["pay", "--network", "base", "--keystore", key, &url];
    assert_eq!(harness.run(&keystore).await.code, 2);
    assert_eq!(harness.buy(&["--budget", "1"]).await.code, 0);
    let ledger = harness.path("ledger.db").to_str().unwrap().to_owned();
    for host in ["https://me:s3cret@h/x?k=s3cret", "h?k=s3cret"] {
        let args = ["compare", host, "--plan", "monthly=1", "--ledger", &ledger];
        let ended = harness.run(&args).await;
        assert!(
            ended.code != 0 && !ended.stderr.contains("s3cret"),
            "{ended:?}"
        );
        let ended = harness.run(&["ledger", "--host", host]).await;
        assert!(
            ended.code == 2 && !ended.stderr.contains("s3cret"),
            "{ended:?}"
        );
    }
    let ended = harness.run(&["pay", "htps://api.example.com/a"]).await;
    assert!(
        ended.stderr.contains("htps://api.example.com/…"),
        "{ended:?}"
    );
    let ended = harness.run(&["ledger", "--format", "xml"]).await;
    assert!(ended.stderr.contains("'xml'"), "{ended:?}");
}
