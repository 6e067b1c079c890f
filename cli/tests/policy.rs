//! `bursar policy check` and `bursar policy explain`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use serde_json::{Value, json};
use support::{CliHarness, PAYEE, report, with_purchases};

#[tokio::test]
async fn a_mistake_in_a_policy_file_is_found_with_its_line() {
    let harness = CliHarness::new(report()).await;
    let good = harness.file("good.toml", "version = 1\nnetworks = [\"base\"]\n");
    let ended = harness.run(&["policy", "check", &good]).await;
    assert_eq!(
        (ended.code, ended.text()),
        (0, format!("{good}: ok\n").as_str())
    );
    for (text, expected) in [
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
        let bad = harness.file("bad.toml", text);
        let ended = harness.run(&["policy", "check", &bad]).await;
        assert!(
            ended.code == 2 && ended.stderr.contains(expected),
            "{text}: {ended:?}"
        );
        let ended = harness
            .run(&["pay", "--policy", &bad, &harness.url()])
            .await;
        assert!(
            ended.code == 2 && ended.stderr.contains(expected),
            "{text}: {ended:?}"
        );
    }
}

#[tokio::test]
async fn the_answer_of_each_rule_is_explained() {
    let harness = with_purchases().await;
    let policy = harness.file(
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
        harness.run(&[&args[..], more].concat()).await
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
    let with_ledger = run(&["--price", "0.02", "--ledger", "ledger.db"]).await;
    assert!(
        with_ledger.code == 0 && with_ledger.text().contains("0.02 USD of 0.05 USD left"),
        "{with_ledger:?}"
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
    let listed = harness.file(
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
        let ended = harness.run(&[&args[..], payee].concat()).await;
        assert_eq!(ended.code, code, "{ended:?}");
    }
    assert_eq!(
        run(&["--price", "0.02", "--ledger", "missing.db"])
            .await
            .code,
        2
    );
}

#[tokio::test]
async fn the_answer_of_each_rule_is_explained_for_an_agent_and_a_tag() {
    let harness = with_purchases().await;
    let policy = harness.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[[agent]]\nmatch = \"notebook\"\nper_payment = \"0.01 USD\"\n\
         [[tag]]\nmatch = \"chat\"\nper_payment = \"0.01 USD\"\n",
    );
    for ledger in [&[][..], &["--ledger", "ledger.db"]] {
        for (labels, denying) in [
            (&[][..], None),
            (&["--agent", "batch", "--tag", "mail"], None),
            (&["--agent", "notebook"], Some("agent notebook per payment")),
            (&["--tag", "chat"], Some("tag chat per payment")),
        ] {
            let args = ["policy", "explain", &policy, "https://a.example/x"];
            let price = ["--price", "0.02"];
            let ended = harness
                .run(&[&args[..], &price, labels, ledger].concat())
                .await;
            let code = if denying.is_some() { 3 } else { 0 };
            assert_eq!(ended.code, code, "{labels:?}: {ended:?}");
            if let Some(name) = denying {
                let line = format!("deny  {name}");
                assert!(ended.text().contains(&line), "{}", ended.text());
            }
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_policy_file_that_every_user_can_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let harness = CliHarness::new(report()).await;
    let policy = harness.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n",
    );
    for (mode, code) in [
        (0o600, 0),
        (0o644, 0),
        (0o664, 0),
        (0o646, 2),
        (0o602, 2),
        (0o666, 2),
    ] {
        std::fs::set_permissions(&policy, std::fs::Permissions::from_mode(mode)).unwrap();
        let ended = harness.run(&["policy", "check", &policy]).await;
        assert_eq!(ended.code, code, "{mode:o}: {ended:?}");
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
            (ended.code, harness.settled() - before),
            (code, usize::from(code == 0)),
            "{mode:o}: {ended:?}"
        );
        assert_eq!(ended.stderr.contains("chmod o-w"), code == 2, "{ended:?}");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn an_api_key_file_that_every_user_can_write_is_not_used() {
    use std::os::unix::fs::PermissionsExt;

    let harness = CliHarness::new(report()).await;
    let key = harness.file("api.key", "secret");
    let text = format!(
        "version = 1\nnetworks = [\"base-sepolia\"]\n[[credential]]\nname = \"example\"\nhost = \"127.0.0.1\"\n\
         bearer = {{ file = \"{key}\" }}\n"
    );
    let policy = harness.file("policy.toml", text);
    for (mode, warns) in [(0o600, false), (0o444, false), (0o646, true)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let ended = harness.run(&["policy", "check", &policy]).await;
        assert_eq!(
            ended.stderr.contains("chmod o-w"),
            warns,
            "{mode:o}: {ended:?}"
        );
    }
    let args = [
        "pay",
        "--policy",
        &policy,
        "--allow-http-loopback",
        "--ledger",
        ":memory:",
    ];
    let ended = harness.run(&[&args[..], &[&harness.url()]].concat()).await;
    assert!(
        ended.code == 1 && harness.paywall.requests().is_empty(),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_freeze_file_that_cannot_work_is_found() {
    let harness = CliHarness::new(report()).await;
    for (path, code, words) in [
        ("STOP", 2, "must be an absolute path"),
        ("", 2, "the string is empty"),
        (
            "/nowhere/at/all/STOP",
            0,
            "warning: the directory of the freeze file, /nowhere/at/all,",
        ),
    ] {
        let text = format!("version = 1\nnetworks = [\"base\"]\n[freeze]\nfile = \"{path}\"\n");
        let policy = harness.file("policy.toml", text);
        let ended = harness.run(&["policy", "check", &policy]).await;
        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
    }
}

#[tokio::test]
async fn an_empty_path_of_a_ledger_is_a_usage_error() {
    let harness = CliHarness::new(report()).await;
    let args = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        &harness.url(),
    ];
    let mut command = harness.command(&args);
    command.env("BURSAR_LEDGER", "");
    let by_variable = harness.end(command, b"").await;
    let by_option = harness.run(&[&args[..], &["--ledger", ""]].concat()).await;
    for ended in [by_variable, by_option] {
        assert_eq!(ended.code, 2, "{ended:?}");
    }
    assert!(harness.paywall.requests().is_empty());
}
