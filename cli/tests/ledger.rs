//! `bursar ledger`, its commands, and `bursar budget`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::{Client, Ledger, LocalSigner, Network, Policy, Timestamp};
use bursar_testing::{Fault, Paywall};
use serde_json::json;
use sha2::Digest;
use support::{CliHarness, KEY, PAYER, report, with_purchases};

const NETWORK: Network = Network::from_chain_id(84_532);

/// A purchase that was settled and lost, by its id.
async fn lost() -> CliHarness {
    let harness = CliHarness::new(report().idempotent().fault(Fault::ServerErrorAfterSettle)).await;
    assert_eq!(harness.buy(&["--purchase-id", "order"]).await.code, 4);
    harness
}

impl CliHarness {
    async fn ledger(&self, args: &[&str]) -> support::Ended {
        let ledger = self.path("ledger.db");
        let command = [&["ledger"], args, &["--ledger", ledger.to_str().unwrap()]].concat();
        self.run(&command).await
    }
}

#[tokio::test]
async fn reconciling_settles_a_payment_that_the_chain_shows() {
    let harness = lost().await;
    let (one, two) = (
        harness.paywall.node(NETWORK).await.unwrap(),
        harness.paywall.node(NETWORK).await.unwrap(),
    );
    let rpc = [&one, &two].map(|node| format!("base-sepolia={}", node.url()));
    let none = harness.ledger(&["reconcile"]).await;
    assert!(none.code == 2 && none.stderr.contains("--rpc"), "{none:?}");
    let wrong = harness
        .ledger(&["reconcile", "--rpc", "base-sepolia"])
        .await;
    assert!(
        wrong.code == 2 && wrong.stderr.contains("base=https://mainnet.base.org"),
        "{wrong:?}"
    );

    let done = harness
        .ledger(&["reconcile", "--rpc", &rpc[0], "--rpc", &rpc[1], "--json"])
        .await;
    let transaction = harness.paywall.settlements()[0].transaction;
    let expected = json!({
        "purchase": "order", "before": "unresolved", "after": "settled", "answer": format!("settled in {transaction}"),
    });
    assert_eq!((done.code, done.json()), (0, expected), "{done:?}");
    let shown = harness.ledger(&["--format", "jsonl"]).await;
    assert_eq!(
        shown.json()["verified_transaction"],
        transaction.to_string()
    );

    // A settled purchase is asked for again by its id, and ends well once the seller delivers.
    harness.paywall.clear_faults();
    let again = harness
        .buy(&["--purchase-id", "order", "--budget", "0.01"])
        .await;
    assert_eq!(
        (again.code, again.text(), harness.settled()),
        (0, "the report", 1),
        "{again:?}"
    );
}

#[tokio::test]
async fn verifying_finds_a_ledger_that_lacks_a_noted_head() {
    let harness = lost().await;
    let sound = harness.ledger(&["verify"]).await;
    assert!(
        sound.code == 0 && sound.text().starts_with("sound: "),
        "{sound:?}"
    );
    let head = sound
        .text()
        .trim_end()
        .rsplit(' ')
        .next()
        .unwrap()
        .to_owned();
    assert_eq!(harness.ledger(&["verify", "--head", &head]).await.code, 0);
    let other = format!("0x{}", "11".repeat(32));
    let gone = harness.ledger(&["verify", "--head", &other]).await;
    assert!(
        gone.code == 1 && gone.text().contains("1 faults"),
        "{gone:?}"
    );
}

#[tokio::test]
async fn evidence_refund_and_cancellation_belong_to_one_purchase() {
    let harness = lost().await;
    let evidence = harness.ledger(&["evidence", "order"]).await.json();
    let settled = harness.paywall.settlements()[0].authorization;
    assert_eq!(
        (&evidence["purchase"], &evidence["answer"]["status"]),
        (&json!("order"), &json!(502))
    );
    assert_eq!(
        evidence["authorization"]["nonce"],
        settled.nonce.to_string()
    );
    let missing = harness.ledger(&["evidence", "never"]).await;
    assert!(
        missing.code == 1 && missing.stderr.contains("no purchase `never`"),
        "{missing:?}"
    );

    let transaction = format!("0x{}", "22".repeat(32));
    let refund = [
        "refund",
        "order",
        "--transaction",
        &transaction,
        "--value",
        "10000",
    ];
    assert_eq!(harness.ledger(&refund).await.code, 0);
    let purchase = harness.ledger(&["--format", "jsonl"]).await.json();
    assert_eq!(
        (&purchase["refunds"][0]["value"], &purchase["value"]),
        (&json!("10000"), &json!("10000"))
    );

    let cancel = harness.ledger(&["cancel", "order"]).await;
    let (line, calldata) = (
        cancel.json(),
        cancel.json()["data"].as_str().unwrap().to_owned(),
    );
    assert_eq!(
        (cancel.code, &line["network"]),
        (0, &json!("eip155:84532")),
        "{cancel:?}"
    );
    assert!(
        calldata.starts_with("0x5a049a70") && calldata.contains(&settled.nonce.to_string()[2..]),
        "{calldata}"
    );
}

#[tokio::test]
async fn finished_purchases_are_pruned_into_a_file_and_not_bought_again() {
    let then = || Timestamp::from_secs(1_741_608_000);
    let long = report().description("d".repeat(400));
    let paywall = Paywall::builder()
        .route(long)
        .clock(then)
        .start()
        .await
        .unwrap();
    let harness = CliHarness {
        paywall,
        files: tempfile::TempDir::new().unwrap(),
    };
    let client = Client::builder()
        .signer(LocalSigner::from_hex(&KEY.into()).unwrap())
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::sqlite(harness.path("ledger.db")).unwrap())
        .clock(then)
        .allow_http_loopback(true)
        .build()
        .unwrap();
    let request = client.get(harness.url()).purchase_id("order");
    assert_eq!(request.send().await.unwrap().status(), 200);
    drop(client);
    let evidence = harness.ledger(&["evidence", "order"]).await.json();
    let counted = harness.ledger(&["--format", "csv"]).await;

    let archive = harness.path("archive.jsonl").to_str().unwrap().to_owned();
    for time in ["2025-03-01", "100000d"] {
        let early = harness
            .ledger(&["prune", "--before", time, "--export", &archive])
            .await;
        assert_eq!(
            (early.code, early.text()),
            (0, "there is nothing to prune\n")
        );
    }
    for time in ["soon", "2999-01-01", "-1d", "d", "99999999999999999999d"] {
        let before = format!("--before={time}");
        let wrong = harness
            .ledger(&["prune", &before, "--export", &archive])
            .await;
        assert_eq!(wrong.code, 2, "{wrong:?}");
    }
    assert!(!harness.path("archive.jsonl").exists());

    let args = ["prune", "--before", "30d", "--json", "--export", &archive];
    let pruned = harness.ledger(&args).await.json();
    assert_eq!(
        (&pruned["archived"], &pruned["pruned"]),
        (&json!(1), &json!(1))
    );
    let archived = std::fs::read_to_string(&archive).unwrap();
    let line: serde_json::Value = serde_json::from_str(&archived).unwrap();
    let terms: serde_json::Value = serde_json::from_str(line["terms"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&terms, &line["answer"]),
        (&evidence["terms"], &evidence["answer"])
    );

    // The rest of the ledger is as it was, and names the line of the archive.
    let after = harness.ledger(&["evidence", "order"]).await.json();
    let hash = sha2::Sha256::digest(archived.trim_end());
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(after["terms"]["archived"]["sha256"], format!("0x{hash}"));
    assert_eq!(after["authorization"], evidence["authorization"]);
    assert_eq!(
        after["claimed_transaction"],
        evidence["claimed_transaction"]
    );
    let column = |text: &str| {
        let rows = text.lines().map(|line| line.split(',').collect::<Vec<_>>());
        // Without the time of the last change.
        rows.map(|row| [&row[..2], &row[3..]].concat().join(","))
            .collect::<Vec<_>>()
    };
    let listed = harness.ledger(&["--format", "csv"]).await;
    assert_eq!(column(listed.text()), column(counted.text()));
    assert_eq!(harness.ledger(&["verify"]).await.code, 0);

    let again = harness.buy(&["--purchase-id", "order"]).await;
    assert!(
        again.code != 0 && again.stderr.contains("pruned"),
        "{again:?}"
    );
    assert_eq!((harness.payments(), harness.settled()), (1, 1));
    let exists = harness.ledger(&args).await;
    assert_eq!(
        (exists.code, exists.json()["archived"] == json!(0)),
        (0, true)
    );
}

#[tokio::test]
async fn a_frozen_ledger_pays_nothing_until_it_is_unfrozen() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&[]).await.code, 0);
    assert_eq!(harness.ledger(&["freeze", "audit"]).await.code, 0);
    let denied = harness.buy(&["--json"]).await;
    assert_eq!((denied.code, harness.settled()), (3, 1), "{denied:?}");
    assert!(
        denied.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("audit"),
        "{denied:?}"
    );
    assert_eq!(harness.ledger(&["unfreeze"]).await.code, 0);
    assert_eq!((harness.buy(&[]).await.code, harness.settled()), (0, 2));
}

#[tokio::test]
async fn the_ledger_is_shown_in_three_formats() {
    let harness = with_purchases().await;
    let ledger = harness.path("ledger.db");
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
        let ended = harness.run(&args.each_ref().map(String::as_str)).await;
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
        ended
    };
    let settlements = harness.paywall.settlements();

    let table = run("table").await;
    let rows: Vec<_> = table.text().lines().collect();
    assert_eq!(rows.len(), 4, "{}", table.text());
    assert!(
        rows[0].starts_with("TIME")
            && rows[1].contains("unresolved  0.01 USDC  base-sepolia  GET http://127.0.0.1")
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
        .map(|purchase| purchase["state"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["unresolved", "settled", "settled"]);
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
async fn a_missing_ledger_is_not_created() {
    let harness = CliHarness::new(report()).await;
    let missing = harness.run(&["ledger", "--ledger", "missing.db"]).await;
    assert!(
        missing.code == 1 && missing.stderr.contains("missing.db"),
        "{missing:?}"
    );
    let default = harness.run(&["ledger", "--format", "jsonl"]).await;
    assert_eq!((default.code, default.text()), (0, ""));
    assert_eq!(harness.run(&["budget"]).await.code, 0);
    assert!(!harness.path("missing.db").exists() && !harness.path("state").exists());
}

#[cfg(unix)]
#[tokio::test]
async fn the_default_ledger_is_private_and_in_the_state_directory() {
    use std::os::unix::fs::PermissionsExt;
    let harness = CliHarness::new(report()).await;
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--budget",
        "0.01",
        &harness.url(),
    ];
    assert_eq!(harness.run(&args).await.code, 0);
    assert_eq!(harness.run(&args).await.code, 3);
    let mode = |path: &str| {
        std::fs::metadata(harness.path(path))
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
        harness
            .run(&["ledger", "--format", "jsonl"])
            .await
            .lines()
            .len(),
        1
    );

    let mut at_home = harness.command(&args);
    at_home
        .env_remove("XDG_STATE_HOME")
        .env("HOME", harness.path("home"));
    assert_eq!(harness.end(at_home, b"").await.code, 0);
    assert!(harness.path("home/.local/state/bursar/ledger.db").exists());
    let mut homeless = harness.command(&args);
    homeless.env_remove("XDG_STATE_HOME");
    let ended = harness.end(homeless, b"").await;
    assert!(
        ended.code == 2 && ended.stderr.contains("--ledger"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn the_budget_shows_the_used_and_the_remaining_amount() {
    let harness = with_purchases().await;
    let ledger = harness.path("ledger.db");
    let with = |more: &[&str]| {
        let args = ["budget", "--ledger", ledger.to_str().unwrap()];
        args.iter()
            .chain(more)
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let run = async |more: &[&str]| {
        let args = with(more);
        let ended = harness
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
    let text = lifetime.text().split_whitespace().collect::<Vec<_>>();
    let text = text.join(" ");
    assert!(
        text.starts_with("limits: the defaults and the options (no --policy) LIMIT"),
        "{text}"
    );
    assert!(
        text.contains("global lifetime 0.05 USD 0.03 USD 0.02 USD"),
        "{text}"
    );
    assert!(text.contains("global rolling 1d"), "{text}");
    assert_eq!(harness.distinct_payments(), 3, "asking signs nothing");
}

/// The files of the ledger in the directory of a test.
fn files(harness: &CliHarness) -> Vec<String> {
    let files = std::fs::read_dir(harness.path("")).unwrap();
    let mut names: Vec<_> = files
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("ledger.db"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn nothing_stays_in_the_log_alone_when_the_command_ends() {
    let harness = CliHarness::new(report()).await;
    let first = harness
        .buy(&["--budget", "0.02", "--allow-duplicate"])
        .await;
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(files(&harness), ["ledger.db", "ledger.db-head"]);
    let second = harness
        .buy(&["--budget", "0.02", "--allow-duplicate"])
        .await;
    assert_eq!(second.code, 0, "{second:?}");
    assert_eq!(
        harness
            .buy(&["--budget", "0.02", "--allow-duplicate"])
            .await
            .code,
        3
    );
    assert_eq!(files(&harness), ["ledger.db", "ledger.db-head"]);
}

#[tokio::test]
async fn a_ledger_that_shrank_pays_nothing_and_no_command_begins_a_new_one() {
    let harness = CliHarness::new(report()).await;
    let buy = async || {
        harness
            .buy(&["--budget", "0.03", "--allow-duplicate"])
            .await
    };
    assert_eq!(buy().await.code, 0);
    let (ledger, witness) = (harness.path("ledger.db"), harness.path("ledger.db-head"));
    let older = std::fs::read(&ledger).unwrap();
    assert_eq!(buy().await.code, 0);
    let newest = [&ledger, &witness].map(|path| std::fs::read(path).unwrap());
    let paid = harness.paywall.requests().len();
    for (about, file, head) in [
        ("an older copy", Some(&older), Some(&newest[1])),
        ("no witness", Some(&newest[0]), None),
        ("an empty file", Some(&Vec::new()), Some(&newest[1])),
        ("no file", None, Some(&newest[1])),
    ] {
        for (path, bytes) in [(&ledger, file), (&witness, head)] {
            drop(std::fs::remove_file(path));
            if let Some(bytes) = bytes {
                harness.file(path.file_name().unwrap().to_str().unwrap(), bytes);
                private(path);
            }
        }
        let refused = buy().await;
        assert!(
            refused.code == 1 && refused.stderr.contains("damaged"),
            "{about}: {refused:?}"
        );
        for command in [&["verify"][..], &[], &["freeze", "audit"]] {
            let refused = harness.ledger(command).await;
            assert!(
                refused.code == 1 && refused.stderr.contains("damaged"),
                "{about}: {refused:?}"
            );
        }
        assert_eq!(harness.paywall.requests().len(), paid, "{about}");
    }
    // The default ledger is no exception.
    let state = harness.path("state/bursar");
    std::fs::create_dir_all(&state).unwrap();
    std::fs::write(state.join("ledger.db-head"), &newest[1]).unwrap();
    private(&state.join("ledger.db-head"));
    for command in [&["ledger"][..], &["budget"], &["report"]] {
        let refused = harness.run(command).await;
        assert!(
            refused.code == 1 && refused.stderr.contains("damaged"),
            "{refused:?}"
        );
    }
}

fn private(path: &std::path::Path) {
    #[cfg(unix)]
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    #[cfg(not(unix))]
    let _ = path;
}

#[tokio::test]
async fn a_ledger_is_backed_up_and_restored_by_the_command() {
    let harness = CliHarness::new(report()).await;
    let buy = async || {
        harness
            .buy(&["--budget", "0.03", "--allow-duplicate"])
            .await
    };
    assert_eq!(buy().await.code, 0);
    let copy = harness.path("copy.db").to_str().unwrap().to_owned();
    let backup = harness.ledger(&["backup", &copy]).await;
    assert!(
        backup.code == 0 && backup.text().contains("copy.db"),
        "{backup:?}"
    );
    assert_eq!(
        harness.ledger(&["backup", &copy]).await.code,
        1,
        "it overwrites nothing"
    );
    let verified = harness.run(&["ledger", "verify", "--ledger", &copy]).await;
    assert!(
        verified.code == 0 && verified.text().starts_with("sound: "),
        "{verified:?}"
    );
    assert_eq!(buy().await.code, 0);

    std::fs::copy(&copy, harness.path("ledger.db")).unwrap();
    assert_eq!(
        buy().await.code,
        1,
        "an older copy is not taken by accident"
    );
    let restored = harness.ledger(&["restore", &copy]).await;
    assert!(
        restored.code == 0 && restored.text().contains("that it lacks: 1 (changes: 2)"),
        "{restored:?}"
    );
    assert_eq!(
        harness.ledger(&["--format", "jsonl"]).await.lines().len(),
        1
    );
    assert_eq!(buy().await.code, 0);
    let missing = harness.ledger(&["restore", "missing.db"]).await;
    assert!(
        missing.code == 1 && missing.stderr.contains("missing.db"),
        "{missing:?}"
    );
}

#[tokio::test]
async fn a_payment_that_may_not_begin_a_ledger_needs_one() {
    let harness = CliHarness::new(report()).await;
    let (may, must) = (
        &["--budget", "0.02"],
        &["--budget", "0.02", "--no-new-ledger"],
    );
    let refused = harness.buy(must).await;
    assert!(
        refused.code == 1 && refused.stderr.contains("there is no ledger at /"),
        "{refused:?}"
    );
    assert!(files(&harness).is_empty() && harness.paywall.requests().is_empty());
    assert_eq!(harness.buy(may).await.code, 0);
    assert_eq!(harness.buy(must).await.code, 0);
}

#[tokio::test]
async fn commands_that_read_create_no_ledger() {
    let harness = CliHarness::new(report()).await;
    for command in [
        &["ledger"][..],
        &["ledger", "verify"],
        &["ledger", "evidence", "order"],
        &["ledger", "freeze", "audit"],
        &["ledger", "unfreeze"],
        &["ledger", "backup", "copy.db"],
        &["budget"],
        &["report"],
        &["compare", "api.example.com", "--plan", "monthly=1"],
    ] {
        let args = [command, &["--ledger", "missing.db"]].concat();
        let refused = harness.run(&args).await;
        assert!(
            refused.code == 1
                && refused.stderr.contains("there is no ledger at /")
                && refused.stderr.contains("missing.db"),
            "{command:?}: {refused:?}"
        );
    }
    assert!(!harness.path("missing.db").exists() && !harness.path("copy.db").exists());
}

#[tokio::test]
async fn a_new_ledger_at_a_relative_path_is_told_without_a_terminal() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
    let buy = async |ledger: &str| {
        let usual = [
            "pay",
            &url,
            "--network",
            "base-sepolia",
            "--allow-http-loopback",
        ];
        let more = ["--budget", "1", "--allow-duplicate", "--ledger", ledger];
        harness.run(&[&usual[..], &more].concat()).await
    };
    let first = buy("jobs.db").await;
    let told = format!(
        "bursar: begins a new ledger at {};",
        harness.path("jobs.db").canonicalize().unwrap().display()
    );
    assert!(first.code == 0 && first.stderr.contains(&told), "{first:?}");
    let second = buy("jobs.db").await;
    assert!(
        second.code == 0 && !second.stderr.contains("a new ledger"),
        "{second:?}"
    );
}

#[tokio::test]
async fn the_url_of_another_database_is_refused_and_not_repeated() {
    let harness = CliHarness::new(report()).await;
    for url in [
        "POSTGRES://me:s3cret@h/db",
        "postgresql+psycopg://me:s3cret@h/db",
    ] {
        for command in [&["ledger"][..], &["budget"], &["ledger", "verify"]] {
            let refused = harness.run(&[command, &["--ledger", url]].concat()).await;
            assert!(
                refused.code == 2 && !refused.stderr.contains("s3cret"),
                "{refused:?}"
            );
        }
        let paid = harness.buy(&["--budget", "1"]).await;
        assert_eq!(paid.code, 0, "{paid:?}");
        let mut by_variable = harness.command(&["ledger"]);
        by_variable.env("BURSAR_LEDGER", url);
        let refused = harness.end(by_variable, b"").await;
        assert!(
            refused.code == 2 && !refused.stderr.contains("s3cret"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_copied_ledger_is_read_by_the_command_and_pays_when_it_is_accepted() {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&["--budget", "0.02"]).await.code, 0);
    let copied = harness.path("copied");
    std::fs::create_dir(&copied).unwrap();
    for name in ["ledger.db", "ledger.db-head"] {
        std::fs::copy(harness.path(name), copied.join(name)).unwrap();
    }
    let copy = copied.join("ledger.db").to_str().unwrap().to_owned();
    let sent = harness.payments();
    let url = harness.url();
    let buy = async || {
        let usual = [
            "pay",
            &url,
            "--network",
            "base-sepolia",
            "--allow-http-loopback",
        ];
        let more = ["--budget", "0.02", "--allow-duplicate", "--ledger", &copy];
        harness.run(&[&usual[..], &more].concat()).await
    };
    let refused = buy().await;
    let run = format!("bursar ledger restore {copy} --ledger {copy}");
    assert!(
        refused.code == 1 && refused.stderr.contains(&run),
        "{refused:?}"
    );
    assert_eq!(harness.payments(), sent, "nothing was signed");
    let verified = harness.run(&["ledger", "verify", "--ledger", &copy]).await;
    assert!(verified.text().starts_with("sound: "), "{verified:?}");
    let words: Vec<&str> = run.split(' ').skip(1).collect();
    let accepted = harness.run(&words).await;
    assert_eq!(accepted.code, 0, "{accepted:?}");
    assert_eq!(buy().await.code, 0);
    assert_eq!(
        buy().await.code,
        3,
        "the budget counts the purchases of the copy"
    );
}
