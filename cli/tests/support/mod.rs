//! A paywall on loopback, and the binary `bursar` that pays at it.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use bursar::usd;
use bursar_testing::{Fault, Paywall, Route};
use serde_json::Value;
use tempfile::TempDir;

/// The published key of account 0 of Anvil.
pub(crate) const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
pub(crate) const PAYER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
pub(crate) const PAYEE: &str = "0x209693Bc6afc0C5328bA36FaF03C514EF312287C";
pub(crate) const USDC: &str = "0x036CbD53842c5426634e7929541eC2318f3dCF7e";

/// Returns a route that sells a report for one cent.
pub(crate) fn report() -> Route {
    Route::get("/report").price(usd!("0.01")).body("the report")
}

/// A paywall, and a directory for files.
pub(crate) struct CliHarness {
    pub(crate) paywall: Paywall,
    pub(crate) files: TempDir,
}

/// The end of one run of the binary.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Returns the JSON value of each line of standard output.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    /// Returns the JSON value of the only line of standard output.
    pub(crate) fn json(&self) -> Value {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines[0].clone()
    }
}

impl CliHarness {
    pub(crate) async fn new(route: Route) -> Self {
        Self::with_routes([route]).await
    }

    pub(crate) async fn with_routes(routes: impl IntoIterator<Item = Route>) -> Self {
        let paywall = routes
            .into_iter()
            .fold(Paywall::builder(), |paywall, route| paywall.route(route));
        Self {
            paywall: paywall.start().await.unwrap(),
            files: TempDir::new().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn url(&self) -> String {
        self.paywall.url("/report").to_string()
    }

    /// Returns the binary with only the key in its environment, and with its state in the directory of the harness.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bursar"));
        command
            .args(args)
            .env_clear()
            .env("BURSAR_PRIVATE_KEY", KEY)
            .env("XDG_STATE_HOME", self.path("state"));
        command.current_dir(self.files.path()).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, and checks that its output contains no secret.
    pub(crate) async fn end(&self, mut command: Command, input: &'static [u8]) -> Ended {
        let ended = tokio::task::spawn_blocking(move || {
            let piped = command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let mut child = piped.spawn().unwrap();
            child.stdin.take().unwrap().write_all(input).unwrap();
            child.wait_with_output().unwrap()
        });
        let output = ended.await.unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        let ended = Ended {
            code: output.status.code().unwrap(),
            stdout: output.stdout,
            stderr,
        };
        self.assert_no_secret_in(&ended);
        ended
    }

    pub(crate) async fn run(&self, args: &[&str]) -> Ended {
        self.end(self.command(args), b"").await
    }

    /// Runs `bursar pay` on Base Sepolia and loopback, with the ledger of the harness.
    pub(crate) async fn pay(&self, args: &[&str]) -> Ended {
        let ledger = self.path("ledger.db");
        let usual = [
            "pay",
            "--network",
            "base-sepolia",
            "--allow-http-loopback",
            "--ledger",
            ledger.to_str().unwrap(),
        ];
        self.run(&[&usual[..], args].concat()).await
    }

    /// Runs `bursar pay` for the report.
    pub(crate) async fn buy(&self, args: &[&str]) -> Ended {
        self.pay(&[&[self.url().as_str()], args].concat()).await
    }

    /// Returns the number of settlements.
    pub(crate) fn settled(&self) -> usize {
        self.paywall.settlements().len()
    }

    /// Returns the number of requests with a payment header.
    pub(crate) fn payments(&self) -> usize {
        let names = ["payment-signature", "x-payment"];
        let requests = self.paywall.requests();
        requests
            .iter()
            .filter(|request| names.iter().any(|name| request.headers.contains_key(*name)))
            .count()
    }

    /// Returns the number of different payments.
    pub(crate) fn distinct_payments(&self) -> usize {
        let headers = self
            .paywall
            .requests()
            .into_iter()
            .filter_map(|request| Some(request.payment?.header));
        headers.collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Checks that the output contains no key, no signature and no payment header.
    pub(crate) fn assert_no_secret_in(&self, ended: &Ended) {
        let output =
            format!("{}{}", String::from_utf8_lossy(&ended.stdout), ended.stderr).to_lowercase();
        let mut secrets = vec![KEY.trim_start_matches("0x").to_owned()];
        for payment in self
            .paywall
            .requests()
            .into_iter()
            .filter_map(|request| request.payment)
        {
            let signature = payment.json.as_ref().and_then(|json| {
                json.pointer("/payload/signature")?
                    .as_str()
                    .map(ToOwned::to_owned)
            });
            let signature = signature.unwrap();
            // The whole signature, and its first half, which is no hash that the output may contain.
            secrets.push(signature[2..].to_lowercase());
            secrets.push(signature[2..66].to_lowercase());
            secrets.push(payment.header.to_lowercase());
        }
        let sign_ins = self.paywall.sign_ins().into_iter();
        secrets.extend(sign_ins.map(|sign_in| sign_in.header.to_lowercase()));
        for secret in secrets {
            assert!(
                !output.contains(&secret),
                "the output contains a secret: {ended:?}"
            );
        }
    }
}

/// Returns a harness with three purchases: one unresolved and two settled.
pub(crate) async fn with_purchases() -> CliHarness {
    let harness = CliHarness::new(report().fault_once(Fault::DropAfterSettle)).await;
    assert_eq!(harness.buy(&[]).await.code, 4);
    assert_eq!(
        harness
            .buy(&["--repeat", "2", "--allow-duplicate"])
            .await
            .code,
        0
    );
    harness
}
/// Writes a policy file for Base Sepolia with more rules.
pub(crate) fn policy(harness: &CliHarness, rules: &str) -> String {
    harness.file(
        "policy.toml",
        format!("version = 1\nnetworks = [\"base-sepolia\"]\n{rules}\n"),
    )
}
