//! `bursar wallet`, and the balance before a payment.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::process::Command;

use bursar::LocalSigner;
use bursar::secrecy::SecretString;
use serde_json::Value;
use support::{CliHarness, Ended, KEY, PAYER, USDC, report};

const PASSWORD: &str = "correct horse battery";

/// Returns the binary without a key, with the password of keystores in its environment.
fn with_password(harness: &CliHarness, args: &[&str], password: &str) -> Command {
    let mut command = harness.command(args);
    command
        .env_remove("BURSAR_PRIVATE_KEY")
        .env("BURSAR_KEYSTORE_PASSWORD", password);
    command
}

async fn create(harness: &CliHarness, args: &[&str]) -> Ended {
    let args = [&["wallet", "new"], args].concat();
    harness
        .end(with_password(harness, &args, PASSWORD), b"")
        .await
}

/// Returns `NETWORK=URL` of a node of the paywall's chain.
async fn rpc(harness: &CliHarness) -> (bursar_testing::Node, String) {
    let network = bursar::Network::from_chain_id(84_532);
    let node = harness.paywall.node(network).await.unwrap();
    let rpc = format!("base-sepolia={}", node.url());
    (node, rpc)
}

#[tokio::test]
async fn a_new_wallet_is_encrypted_and_pays_after_it_got_money() {
    let harness = CliHarness::new(report()).await;
    let made = create(&harness, &["wallet.json"]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let address = made.text().lines().next().unwrap().to_owned();
    for part in [
        "https://faucet.circle.com",
        "bursar wallet balance --keystore wallet.json",
        "bursar pay URL --keystore wallet.json",
    ] {
        assert!(
            made.text().contains(part),
            "{part} is not in {}",
            made.text()
        );
    }
    let file = harness.path("wallet.json");
    let signer = LocalSigner::from_keystore(&file, &SecretString::from(PASSWORD)).unwrap();
    assert_eq!(signer.address().to_string(), address);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    // The address needs no password, and the balance no key.
    let mut command = harness.command(&["wallet", "address", "--keystore", "wallet.json"]);
    command.env_remove("BURSAR_PRIVATE_KEY");
    let shown = harness.end(command, b"").await;
    assert_eq!(
        (shown.code, shown.text()),
        (0, format!("{address}\n").as_str())
    );
    let (_node, rpc) = rpc(&harness).await;
    harness.paywall.set_balance(signer.address(), 4000);
    let balance = [
        "wallet",
        "balance",
        "--keystore",
        "wallet.json",
        "--rpc",
        &rpc,
    ];
    let mut command = harness.command(&balance);
    command.env_remove("BURSAR_PRIVATE_KEY");
    let shown = harness.end(command, b"").await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(shown.text().contains(&address), "{shown:?}");
    let row: Vec<&str> = shown
        .text()
        .lines()
        .find(|line| line.contains("USDC"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(row, ["base-sepolia", "USDC", "0.004"]);

    // It is too little for the report. After a top-up it is enough.
    let url = harness.url();
    let pay = [
        "pay",
        &url,
        "--keystore",
        "wallet.json",
        "--network",
        "base-sepolia",
        "--allow-http-loopback",
        "--rpc",
        &rpc,
        "--json",
    ];
    let denied = harness
        .end(with_password(&harness, &pay, PASSWORD), b"")
        .await;
    assert_eq!(denied.code, 3, "{denied:?}");
    let denial = &denied.json()["error"]["denial"];
    assert_eq!(denial["rule"], "insufficient_balance");
    assert_eq!(denial["shortfall"]["wallet"], Value::from(address.as_str()));
    assert_eq!(denial["shortfall"]["missing"], "0.006 USDC");
    assert_eq!(harness.payments(), 0);
    harness.paywall.set_balance(signer.address(), 10_000);
    let paid = harness
        .end(with_password(&harness, &pay, PASSWORD), b"")
        .await;
    assert_eq!(paid.code, 0, "{paid:?}");
    assert_eq!(harness.settled(), 1);
}

#[tokio::test]
async fn a_policy_file_names_the_endpoints_that_read_the_balance() {
    let harness = CliHarness::new(report()).await;
    let (node, _) = rpc(&harness).await;
    harness.paywall.set_balance(PAYER.parse().unwrap(), 4000);
    let policy = format!(
        "version = 1\nnetworks = [\"base-sepolia\"]\n[chain]\nnetwork = \"base-sepolia\"\nrpc = \"{}\"\n",
        node.url()
    );
    let file = harness.file("policy.toml", policy);
    let url = harness.url();
    let common = ["--policy", &file, "--allow-http-loopback", "--json", &url];
    let quoted = harness
        .run(&[&["quote"], &common[..]].concat())
        .await
        .json();
    let denial = &quoted["offers"][0]["denial"];
    assert_eq!(denial["rule"], "insufficient_balance", "{quoted}");
    assert_eq!(denial["shortfall"]["missing"], "0.006 USDC", "{quoted}");
    for more in [&["--dry-run"][..], &[]] {
        let denied = harness.run(&[&["pay"], &common[..], more].concat()).await;
        assert_eq!(denied.code, 3, "{denied:?}");
        let rule = &denied.json()["error"]["kind"];
        assert_eq!(rule, "denied", "{denied:?}");
        assert!(denied.text().contains("insufficient_balance"), "{denied:?}");
    }
    assert_eq!(harness.payments(), 0);

    let explain = [
        "policy", "explain", &file, &url, "--price", "0.01", "--payer", PAYER,
    ];
    let explained = harness.run(&explain).await;
    assert_eq!(explained.code, 3, "{explained:?}");
    assert!(explained.text().contains("has 0.004 USDC"), "{explained:?}");
    let shown = harness
        .run(&["wallet", "balance", "--policy", &file, "--json"])
        .await;
    assert_eq!(shown.json()["balances"][0]["network"], "base-sepolia");
    harness.paywall.set_balance(PAYER.parse().unwrap(), 10_000);
    assert_eq!(harness.run(&explain).await.code, 0);
    let paid = harness.run(&[&["pay"], &common[..]].concat()).await;
    assert_eq!((paid.code, harness.settled()), (0, 1), "{paid:?}");

    // A file without endpoints has no balance to read.
    let bare = harness.file("bare.toml", "version = 1\nnetworks = [\"base-sepolia\"]\n");
    for args in [
        &[
            "policy", "explain", &bare, &url, "--price", "0.01", "--payer", PAYER,
        ][..],
        &["wallet", "balance", "--policy", &bare],
        &["ledger", "reconcile", "--policy", &bare],
    ] {
        let refused = harness.run(args).await;
        assert!(
            refused.code == 2 && refused.stderr.contains("[[chain]]"),
            "{refused:?}"
        );
    }
}

#[tokio::test]
async fn a_new_wallet_replaces_no_file_and_needs_a_password() {
    let harness = CliHarness::new(report()).await;
    harness.file("taken.json", "precious");
    let refused = create(&harness, &["taken.json"]).await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("exists already"), "{refused:?}");
    assert_eq!(
        std::fs::read(harness.path("taken.json")).unwrap(),
        b"precious"
    );
    #[cfg(unix)]
    {
        // A link that leads nowhere is not followed.
        std::os::unix::fs::symlink("nowhere.json", harness.path("link.json")).unwrap();
        let refused = create(&harness, &["link.json"]).await;
        assert_eq!(refused.code, 2);
        assert!(!harness.path("nowhere.json").exists());
    }
    let mut command = harness.command(&["wallet", "new", "wallet.json"]);
    command.env_remove("BURSAR_KEYSTORE_PASSWORD");
    let refused = harness.end(command, b"").await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("--password-fd"), "{refused:?}");
    let command = with_password(&harness, &["wallet", "new", "wallet.json"], "");
    let refused = harness.end(command, b"").await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("password is empty"), "{refused:?}");
    assert!(!harness.path("wallet.json").exists());
    let refused = create(&harness, &["none/wallet.json"]).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("cannot write the keystore"),
        "{refused:?}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_password_comes_from_a_file_descriptor() {
    let harness = CliHarness::new(report()).await;
    harness.file("password", format!("{PASSWORD}\n"));
    let program = env!("CARGO_BIN_EXE_bursar");
    let line =
        format!("exec '{program}' wallet new wallet.json --password-fd 3 --json 3< password");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", &line])
        .env_clear()
        .current_dir(harness.files.path());
    let made = harness.end(command, b"").await;
    assert_eq!(made.code, 0, "{made:?}");
    let made = made.json();
    assert_eq!(made["keystore"], "wallet.json");
    let file = harness.path("wallet.json");
    let signer = LocalSigner::from_keystore(file, &SecretString::from(PASSWORD)).unwrap();
    assert_eq!(made["address"], signer.address().to_string());
    let mut command = Command::new("/bin/sh");
    let line = format!("exec '{program}' wallet new other.json --password-fd 7");
    command
        .args(["-c", &line])
        .env_clear()
        .current_dir(harness.files.path());
    let refused = harness.end(command, b"").await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(!harness.path("other.json").exists());
}

#[tokio::test]
async fn the_address_of_each_kind_of_key_is_printed() {
    let harness = CliHarness::new(report()).await;
    let shown = harness.run(&["wallet", "address"]).await;
    assert_eq!(
        (shown.code, shown.text()),
        (0, format!("{PAYER}\n").as_str())
    );
    let shown = harness.run(&["wallet", "address", "--json"]).await;
    assert_eq!(shown.json()["address"], PAYER);
    let mut command = harness.command(&["wallet", "address"]);
    command.env_remove("BURSAR_PRIVATE_KEY");
    let refused = harness.end(command, b"").await;
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("BURSAR_PRIVATE_KEY"), "{refused:?}");
    // A bare key in place of a keystore is not repeated.
    let file = harness.file("key", KEY);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    }
    let refused = harness
        .run(&["wallet", "address", "--keystore", &file])
        .await;
    assert_eq!(refused.code, 2, "{refused:?}");
}

#[tokio::test]
async fn balances_are_read_for_each_network_and_token() {
    let harness = CliHarness::new(report()).await;
    let (node, rpc) = rpc(&harness).await;
    harness
        .paywall
        .set_balance(PAYER.parse().unwrap(), 1_230_000);
    let args = [
        "wallet", "balance", "--rpc", &rpc, "--token", "usdc", "--json",
    ];
    let shown = harness.run(&args).await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let shown = shown.json();
    assert_eq!(shown["address"], PAYER);
    assert_eq!(
        shown["balances"],
        serde_json::json!([{
            "network": "base-sepolia", "caip2": "eip155:84532", "token": "USDC", "asset": USDC,
            "balance": "1.23", "units": "1230000",
        }])
    );
    // Any address can be looked at, without a key.
    let address = "0x00000000000000000000000000000000000000a1";
    harness.paywall.set_balance(address.parse().unwrap(), 0);
    let args = [
        "wallet",
        "balance",
        "--rpc",
        &rpc,
        "--address",
        address,
        "--token",
        "USDC",
        "--json",
    ];
    let mut command = harness.command(&args);
    command.env_remove("BURSAR_PRIVATE_KEY");
    let shown = harness.end(command, b"").await.json();
    assert_eq!(shown["balances"][0]["units"], "0");
    // A node that is gone is an error in its row, and the exit code is 1.
    drop(node);
    let shown = harness
        .run(&["wallet", "balance", "--rpc", &rpc, "--json"])
        .await;
    assert_eq!(shown.code, 1);
    let row = &shown.json()["balances"][0];
    assert_eq!(row["balance"], Value::Null);
    assert!(
        row["error"].as_str().unwrap().contains("cannot be reached"),
        "{row}"
    );
    for args in [
        &["wallet", "balance"][..],
        &[
            "wallet",
            "balance",
            "--rpc",
            "base-sepolia=http://192.0.2.1",
        ],
        &["wallet", "balance", "--rpc", &rpc, "--token", "DOGE"],
        &["wallet", "balance", "--rpc", "nowhere"],
    ] {
        assert_eq!(harness.run(args).await.code, 2, "{args:?}");
    }
}

const APPROVE: [&str; 4] = ["wallet", "approve", "--network", "base-sepolia"];

#[tokio::test]
async fn an_approval_is_printed_for_a_wallet_elsewhere_and_sends_nothing() {
    let harness = CliHarness::new(report()).await;
    let args = [&APPROVE[..], &["--amount", "5"]].concat();
    let mut command = harness.command(&args);
    command.env_remove("BURSAR_PRIVATE_KEY");
    let shown = harness.end(command, b"").await;
    assert_eq!(shown.code, 0, "{shown:?}");
    let permit2 = "0x000000000022D473030F116dDEE9F6B43aC78BA3";
    let data = format!(
        "0x095ea7b3{:0>64}{:0>64x}",
        permit2.trim_start_matches("0x").to_lowercase(),
        5_000_000
    );
    for part in [USDC, permit2, &data, "84532", "5 USDC"] {
        assert!(shown.text().contains(part), "{part}: {}", shown.text());
    }
    let args = [&args[..], &["--json"]].concat();
    let shown = harness.run(&args).await;
    let json: Value = serde_json::from_str(shown.text()).unwrap();
    assert_eq!(json["owner"], PAYER);
    assert_eq!(
        (json["to"].as_str(), json["data"].as_str()),
        (Some(USDC), Some(&*data))
    );
    assert_eq!(
        (&json["units"], &json["chain_id"]),
        (&"5000000".into(), &84_532.into())
    );
    assert_eq!(json["transaction"], Value::Null);
}

#[tokio::test]
async fn an_approval_is_sent_and_replaced_and_revoked() {
    let harness = CliHarness::new(report()).await;
    let (node, rpc) = rpc(&harness).await;
    let network = bursar::Network::from_chain_id(84_532);
    let usdc = bursar::money::AssetRegistry::stablecoins()
        .find_symbol(network, "USDC")
        .unwrap();
    let payer = PAYER.parse().unwrap();
    let url = node.url().to_string();
    let rpc_of_balance = rpc.clone();
    for (amount, rpc, units) in [
        ("5", &rpc, 5_000_000),
        ("0.25", &url, 250_000),
        ("0", &rpc, 0),
    ] {
        let args = ["--amount", amount, "--rpc", rpc, "--send"];
        let sent = harness.run(&[&APPROVE[..], &args].concat()).await;
        assert_eq!(sent.code, 0, "{sent:?}");
        let hash = sent.text().trim().to_owned();
        assert!(hash.starts_with("0x") && hash.len() == 66, "{hash}");
        let allowance = harness.paywall.allowance_of(usdc, payer);
        assert_eq!(allowance.to_string(), units.to_string());
        let balance = [
            "wallet",
            "balance",
            "--allowance",
            "--token",
            "USDC",
            "--json",
            "--rpc",
        ];
        let args = [&balance[..], &[rpc_of_balance.as_str()]].concat();
        let shown = harness.run(&args).await;
        let json: Value = serde_json::from_str(shown.text()).unwrap();
        assert_eq!(json["balances"][0]["permit2_allowance"], amount);
    }
}

#[tokio::test]
async fn an_approval_without_a_limit_and_one_with_high_fees_need_a_word() {
    let harness = CliHarness::new(report()).await;
    let (node, rpc) = rpc(&harness).await;
    let base = [&APPROVE[..], &["--rpc", &rpc, "--send"]].concat();
    for (args, code, text) in [
        (&["--amount", "max"][..], 2, "--unlimited"),
        (&["--amount", "5", "--unlimited"], 2, "--amount max"),
        (&["--amount", "-1"], 2, "amount"),
        (&["--amount", "0.0000001"], 2, "6 decimals"),
        (&["--amount", "5", "--token", "NONE"], 2, "NONE"),
        (&["--amount", "5", "--max-fee", "1"], 1, "nothing was sent"),
    ] {
        let refused = harness.run(&[&base[..], args].concat()).await;
        assert_eq!(refused.code, code, "{refused:?}");
        assert!(refused.stderr.contains(text), "{text}: {refused:?}");
    }
    let network = bursar::Network::from_chain_id(84_532);
    let usdc = bursar::money::AssetRegistry::stablecoins()
        .find_symbol(network, "USDC")
        .unwrap();
    let payer = PAYER.parse().unwrap();
    let before = harness.paywall.allowance_of(usdc, payer);
    node.fault(bursar_testing::NodeFault::Unavailable);
    let args = [&base[..], &["--amount", "5"]].concat();
    let unsent = harness.run(&args).await;
    assert_eq!(unsent.code, 1, "{unsent:?}");
    assert!(unsent.stderr.contains("nothing was sent"), "{unsent:?}");
    assert_eq!(harness.paywall.allowance_of(usdc, payer), before);
    node.clear_faults();
    let args = [&base[..], &["--amount", "max", "--unlimited"]].concat();
    assert_eq!(harness.run(&args).await.code, 0);
    let allowance = harness.paywall.allowance_of(usdc, payer);
    assert_eq!(allowance, bursar::primitives::U256::MAX);
}

/// Starts `bursar wallet approve --send` for 5 USDC.
fn approving(harness: &CliHarness, rpc: &str) -> std::process::Child {
    let args = [&APPROVE[..], &["--amount", "5", "--rpc", rpc, "--send"]].concat();
    let mut command = harness.command(&args);
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped());
    command.spawn().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_approval_that_was_killed_on_its_way_is_sent_again_without_harm() {
    let harness = CliHarness::new(report()).await;
    let (node, rpc) = rpc(&harness).await;
    let five = bursar::primitives::U256::from(5_000_000);

    // Killed before it is sent: the node does not answer.
    node.fault(bursar_testing::NodeFault::Hangs);
    let mut child = approving(&harness, &rpc);
    while node.calls() == 0 {
        tokio::task::yield_now().await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(harness.paywall.approvals().is_empty());

    // Killed while it waits for the receipt.
    node.fault(bursar_testing::NodeFault::NoReceipts);
    let mut child = approving(&harness, &rpc);
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let said = tokio::task::spawn_blocking(move || {
        let mut lines = std::io::BufRead::lines(stderr).map_while(Result::ok);
        lines.find(|line| line.contains("sent 0x"))
    });
    assert!(said.await.unwrap().is_some());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(harness.paywall.approvals().len(), 1);

    // The second one has the next nonce and the same amount, which it sets and does not add.
    node.clear_faults();
    let again = tokio::task::spawn_blocking({
        let child = approving(&harness, &rpc);
        move || child.wait_with_output().unwrap()
    });
    assert_eq!(again.await.unwrap().status.code(), Some(0));
    let approvals = harness.paywall.approvals();
    assert_eq!(approvals.len(), 2);
    assert_ne!(approvals[0].transaction, approvals[1].transaction);
    assert!(approvals.iter().all(|approval| approval.amount == five));
    let network = bursar::Network::from_chain_id(84_532);
    let usdc = bursar::money::AssetRegistry::stablecoins()
        .find_symbol(network, "USDC")
        .unwrap();
    let allowance = harness.paywall.allowance_of(usdc, PAYER.parse().unwrap());
    assert_eq!(allowance, five);
    assert_eq!(harness.settled(), 0);
}
