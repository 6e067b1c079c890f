//! The command over months: a policy to start with, the policy that holds, filters, warnings, progress and colours.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use support::{CliHarness, Ended, policy, report};

async fn with_ledger(harness: &CliHarness, args: &[&str]) -> Ended {
    let ledger = harness.path("ledger.db");
    harness
        .run(&[args, &["--ledger", ledger.to_str().unwrap()]].concat())
        .await
}

#[tokio::test]
async fn a_new_policy_can_be_paid_under_and_overwrites_nothing() {
    let harness = CliHarness::new(report()).await;
    let file = harness.path("agent.toml");
    let file = file.to_str().unwrap();
    let written = harness.run(&["policy", "init", file]).await;
    assert_eq!(written.code, 0, "{written:?}");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("networks = [\"base-sepolia\"]"), "{text}");
    let checked = harness.run(&["policy", "check", file]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let url = harness.url();
    let args = ["pay", "--policy", file, "--allow-http-loopback", &url];
    assert_eq!(with_ledger(&harness, &args).await.code, 0);
    assert_eq!(harness.settled(), 1);

    std::fs::write(file, "# mine").unwrap();
    let again = harness.run(&["policy", "init", file]).await;
    assert_eq!(again.code, 2, "{again:?}");
    assert!(again.stderr.contains("exists already"), "{again:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "# mine");
}

#[tokio::test]
async fn a_new_policy_has_the_networks_that_are_named() {
    let harness = CliHarness::new(report()).await;
    let init = async |name: &str, networks: &[&str]| {
        let file = harness.path(name).to_str().unwrap().to_owned();
        let args = networks.iter().flat_map(|network| ["--network", network]);
        let args: Vec<&str> = ["policy", "init", &file].into_iter().chain(args).collect();
        (harness.run(&args).await, harness.path(name))
    };
    let (ended, file) = init("real.toml", &["base", "eip155:137"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(
        text.contains("networks = [\"base\", \"polygon\"]"),
        "{text}"
    );
    let (ended, file) = init("mixed.toml", &["base", "base-sepolia"]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(!file.exists());
    let (ended, _) = init("no/such/directory.toml", &[]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
    let (ended, _) = init("wrong.toml", &["bass"]).await;
    assert_eq!(ended.code, 2, "{ended:?}");
}

#[tokio::test]
async fn the_effective_policy_has_every_default_and_is_a_policy_itself() {
    let harness = CliHarness::new(report()).await;
    let file = policy(
        &harness,
        "[global]\nper_day = \"2 USD\"\n[[host]]\nmatch = \"a.example\"\npayee = \"pinned\"",
    );
    let ended = harness.run(&["policy", "effective", &file]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    for line in [
        "networks = [\"base-sepolia\"]",
        "approval_timeout = \"2m\"",
        "per_payment = \"0.10 USD\"",
        "per_day = \"2.00 USD\"",
        "exposure = \"1.00 USD\"",
        "payments = { window = \"1m\", max = 60 }",
        "loop_guard = { window = \"1m\", max = 30 }",
        "circuit_breaker = { window = \"10m\", failures = 3 }",
        "max_validity = \"5m\"",
        "payee = \"free\"",
        "payee = \"pinned\"",
    ] {
        assert!(
            ended.text().lines().any(|found| found == line),
            "{line} in {}",
            ended.text()
        );
    }
    let again = harness.file("effective.toml", ended.text());
    let checked = harness.run(&["policy", "check", &again]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let same = harness.run(&["policy", "effective", &again]).await;
    assert_eq!(same.text(), ended.text());

    let json = harness
        .run(&["policy", "effective", "--json", &file])
        .await
        .json();
    assert_eq!(json["global"]["per_day"], "2.00 USD");
    assert_eq!(json["global"]["circuit_breaker"]["failures"], 3);
    assert_eq!(json["host"][0]["match"], "a.example");
    let wrong = harness.file(
        "wrong.toml",
        "version = 1\nnetworks = [\"base\"]\nper_dy = 1",
    );
    assert_eq!(harness.run(&["policy", "effective", &wrong]).await.code, 2);
}

#[tokio::test]
async fn each_shell_gets_completions() {
    let harness = CliHarness::new(report()).await;
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = harness.run(&["completions", shell]).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        for word in ["reconcile", "effective", "max-per-payment"] {
            assert!(ended.text().contains(word), "{shell} lacks {word}");
        }
    }
    assert_eq!(harness.run(&["completions", "cmd"]).await.code, 2);
}

#[tokio::test]
async fn the_ledger_shows_only_the_purchases_that_are_asked_for() {
    let harness = CliHarness::new(report()).await;
    for args in [
        &["--tag", "daily"][..],
        &["--agent", "scout"],
        &["--tag", "daily", "--agent", "scout"],
    ] {
        let bought = harness.buy(&[args, &["--allow-duplicate"]].concat()).await;
        assert_eq!(bought.code, 0, "{bought:?}");
    }
    let count = async |args: &[&str]| {
        let args = [&["ledger", "--format", "jsonl"], args].concat();
        let ended = with_ledger(&harness, &args).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.lines().len()
    };
    for (args, expected) in [
        (&[][..], 3),
        (&["--tag", "daily"], 2),
        (&["--tag", "dail"], 0),
        (&["--agent", "scout"], 2),
        (&["--agent", "scout", "--tag", "daily"], 1),
        (&["--until", "2020-01-01"], 0),
        (
            &["--since", "2020-01-01", "--until", "2120-01-01T00:00:00Z"],
            3,
        ),
        (
            &["--host", "127.0.0.1", "--state", "settled", "--limit", "2"],
            2,
        ),
        (&["--last", "1"], 1),
    ] {
        assert_eq!(count(args).await, expected, "{args:?}");
    }
    let wrong = with_ledger(&harness, &["ledger", "--until", "tomorrow"]).await;
    assert_eq!(wrong.code, 2, "{wrong:?}");
}

#[tokio::test]
async fn a_denial_is_kept_in_the_ledger_and_in_the_report() {
    let harness = CliHarness::new(report()).await;
    for _ in 0..2 {
        let denied = harness.buy(&["--max-per-payment", "0.001"]).await;
        assert_eq!(denied.code, 3, "{denied:?}");
    }
    let json = with_ledger(&harness, &["report", "--format", "json"])
        .await
        .json();
    let denials = json["denials"].as_array().unwrap();
    assert_eq!(denials.len(), 1, "{json}");
    assert_eq!(denials[0]["rule"], "per_payment");
    assert_eq!(denials[0]["host"], "127.0.0.1");
    assert_eq!(denials[0]["count"], 2);
    assert!(
        denials[0]["message"]
            .as_str()
            .unwrap()
            .contains("0.001 USD"),
        "{json}"
    );
    let table = with_ledger(&harness, &["report"]).await;
    assert!(table.text().contains("DENIED"), "{table:?}");
    for (args, expected) in [
        (["--host", "127.0.0.1"], 1),
        (["--host", "other.example"], 0),
        (["--tag", "daily"], 0),
        (["--until", "2020-01-01"], 0),
    ] {
        let args = [&["report", "--format", "json"][..], &args].concat();
        let json = with_ledger(&harness, &args).await.json();
        assert_eq!(
            json["denials"].as_array().unwrap().len(),
            expected,
            "{args:?}"
        );
    }
}

#[tokio::test]
async fn a_limit_that_is_nearly_used_is_told_on_standard_error_once() {
    let harness = CliHarness::new(report()).await;
    let file = policy(
        &harness,
        "warn_at = \"50%\"\n[global]\nlifetime = \"0.04 USD\"",
    );
    let ledger = harness.path("ledger.db");
    let url = harness.url();
    let pay = async || {
        let ledger = ledger.to_str().unwrap();
        let args = [
            "pay",
            "--policy",
            &file,
            "--allow-http-loopback",
            "--allow-duplicate",
            "--ledger",
            ledger,
            &url,
        ];
        let ended = harness.run(&args).await;
        assert_eq!(ended.code, 0, "{ended:?}");
        ended.stderr
    };
    let warning =
        "warning: 50% of the limit global lifetime are used: 0.02 USD of 0.04 USD are left\n";
    assert!(!pay().await.contains("warning"));
    let second = pay().await;
    assert!(second.starts_with(warning), "{second}");
    assert!(!pay().await.contains("warning"));
}

#[tokio::test]
async fn colours_come_with_a_terminal_or_on_demand_and_leave_with_no_color() {
    let harness = CliHarness::new(report()).await;
    let run = async |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = harness.command(args);
        command.envs(variables.iter().copied());
        harness.end(command, b"").await
    };
    let ledger = harness.path("ledger.db").to_str().unwrap().to_owned();
    let url = harness.url();
    let pay = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--allow-duplicate",
        "--ledger",
        &ledger,
        &url,
    ];
    let force = ("CLICOLOR_FORCE", "1");
    let plain = run(&pay, &[]).await;
    assert!(
        plain.stderr.starts_with("paid 0.01 USDC") && !plain.stderr.contains('\u{1b}'),
        "{plain:?}"
    );
    let coloured = run(&pay, &[force]).await;
    assert!(coloured.stderr.starts_with("\u{1b}["), "{coloured:?}");
    assert!(
        coloured.stderr.contains("paid\u{1b}[0m 0.01 USDC"),
        "{coloured:?}"
    );
    let without = run(&pay, &[force, ("NO_COLOR", "1")]).await;
    assert!(!without.stderr.contains('\u{1b}'), "{without:?}");

    for command in ["ledger", "budget", "report"] {
        let args = [command, "--ledger", &ledger];
        let plain = run(&args, &[]).await;
        assert!(!plain.text().contains('\u{1b}'), "{plain:?}");
        let coloured = run(&args, &[force]).await;
        let stripped = anstream::adapter::strip_str(coloured.text()).to_string();
        // The first line of a report has its time.
        let rest = |text: &str| text.split_once('\n').unwrap().1.to_owned();
        assert_eq!(rest(&stripped), rest(plain.text()), "{command}");
    }
    let coloured = run(&["ledger", "--ledger", &ledger], &[force]).await;
    assert!(coloured.text().contains("settled\u{1b}[0m"), "{coloured:?}");
    let coloured = run(&["report", "--ledger", &ledger], &[force]).await;
    assert!(coloured.text().contains("paid\u{1b}[0m"), "{coloured:?}");
    // A file has no colours.
    let file = harness.path("report.txt").to_str().unwrap().to_owned();
    run(&["report", "--ledger", &ledger, "--out", &file], &[force]).await;
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(
        !written.contains('\u{1b}') && written.contains("spent"),
        "{written}"
    );
    let json = run(
        &["ledger", "--format", "jsonl", "--ledger", &ledger],
        &[force],
    )
    .await;
    assert_eq!(json.lines().len(), 3);
}

#[cfg(unix)]
#[tokio::test]
async fn a_run_of_requests_shows_its_progress_on_a_terminal_only() {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::process::Stdio;

    let harness = CliHarness::new(report()).await;
    let ledger = harness.path("ledger.db").to_str().unwrap().to_owned();
    let url = harness.url();
    let pay = [
        "pay",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--allow-duplicate",
        "--repeat",
        "3",
        "--json",
        "--ledger",
        &ledger,
        &url,
    ];
    let piped = harness.run(&pay).await;
    assert_eq!((piped.lines().len(), piped.code), (3, 0));
    assert!(
        !piped.stderr.contains("1 of 3") && !piped.stderr.contains('\u{1b}'),
        "{piped:?}"
    );

    let terminal = nix::pty::openpty(None, None).unwrap();
    let mut command = harness.command(&pay);
    let screen = Stdio::from(terminal.slave.as_fd().try_clone_to_owned().unwrap());
    command.stdout(Stdio::null()).stderr(screen);
    let mut child = command.spawn().unwrap();
    drop((command, terminal.slave));
    let master = std::fs::File::from(terminal.master);
    let shown = tokio::task::spawn_blocking(move || {
        let (mut master, mut shown) = (master, Vec::new());
        // Linux reports an error when the other end is closed.
        drop(master.read_to_end(&mut shown));
        String::from_utf8_lossy(&shown).into_owned()
    });
    let shown = shown.await.unwrap();
    assert!(child.wait().unwrap().success());
    for line in [
        "0 of 3 requests done; paid nothing",
        "1 of 3 requests done; paid 0.01 USDC",
    ] {
        assert!(shown.contains(line), "{shown:?}");
    }
    assert!(
        shown.contains("3 of 3 requests done; paid 0.03 USDC\r\n"),
        "{shown:?}"
    );
    assert_eq!(harness.settled(), 6);
}
