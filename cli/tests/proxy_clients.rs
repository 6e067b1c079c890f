//! Programs with the official SDKs pay through `bursar proxy`. `cli/tests/clients/run` installs the SDKs and runs these tests.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

#[path = "support/proxy.rs"]
#[expect(dead_code, reason = "each test file uses a part")]
mod proxied;
#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::path::PathBuf;
use std::process::Command;

use bursar::usd;
use bursar_testing::{ChatReply, Fault, OpenAi};
use proxied::RunningProxy;
use support::CliHarness;

/// The bodies of requests by curl.
const PLAIN: &str = r#"{"model":"gpt-test","messages":[{"role":"user","content":"Hello"}]}"#;
const STREAM: &str =
    r#"{"model":"gpt-test","stream":true,"messages":[{"role":"user","content":"Hello"}]}"#;

/// A seller in the form of OpenAI's API, and a proxy in front of it.
struct Shop {
    harness: CliHarness,
    proxy: RunningProxy,
}

impl Shop {
    async fn open() -> Self {
        let seller = |prefix: &str| {
            OpenAi::new()
                .prefix(prefix)
                .reply(|_| ChatReply::text("Hello from the seller."))
        };
        let routes = [
            seller("/v1").price(usd!("0.01")),
            seller("/dear/v1").price(usd!("3")),
            seller("/lost/v1").paid_route(|route| route.fault(Fault::StatusAfterSettle(500))),
        ];
        let harness = CliHarness::with_routes(routes.into_iter().flatten()).await;
        let target = harness.paywall.url("/").to_string();
        let policy = harness.file(
            "policy.toml",
            format!(
                "version = 1\nnetworks = [\"base-sepolia\"]\n[allow]\nhosts = \"127.0.0.1\"\n\
                 [[proxy.route]]\npath = \"/openai\"\ntarget = \"{target}\"\nmax_price = \"0.05 USD\"\n"
            ),
        );
        let proxy = RunningProxy::start(&harness, &["--policy", &policy]).await;
        Self { harness, proxy }
    }

    /// Runs a program to its end, with the proxy and its token in the environment.
    async fn run(&self, mut program: Command) -> String {
        program
            .env("BURSAR_PROXY", &self.proxy.url)
            .env("BURSAR_TOKEN", &self.proxy.token)
            .env(
                "BURSAR_SELLER",
                self.harness.paywall.url("/").as_str().trim_end_matches('/'),
            )
            .env("NO_PROXY", "127.0.0.1");
        let ended = tokio::task::spawn_blocking(move || program.output().unwrap())
            .await
            .unwrap();
        let output = [ended.stdout, ended.stderr].concat();
        let output = String::from_utf8(output).unwrap();
        assert!(ended.status.success(), "{output}");
        output
    }

    /// Checks the payments: the completion, the stream, the target in the path, and the lost answer, which was asked for
    /// twice.
    fn check(&self, paid: usize) {
        assert_eq!(self.harness.settled(), paid);
        assert_eq!(self.harness.distinct_payments(), paid);
        for request in self.harness.paywall.requests() {
            let headers = format!("{:?}", request.headers);
            assert!(!headers.contains(&self.proxy.token), "{headers}");
        }
    }

    /// Returns the number of requests without a payment for a path.
    fn asked(&self, path: &str) -> usize {
        let requests = self.harness.paywall.requests();
        let asked = requests.iter().filter(|request| request.target == path);
        asked.filter(|request| request.payment.is_none()).count()
    }
}

fn clients() -> PathBuf {
    let directory = std::env::var_os("BURSAR_CLIENTS");
    directory
        .unwrap_or_else(|| panic!("run cli/tests/clients/run"))
        .into()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by cli/tests/clients/run"]
async fn the_official_python_sdk_of_openai_pays_through_the_proxy() {
    let shop = Shop::open().await;
    let mut python = Command::new(clients().join(".venv/bin/python"));
    python.arg(clients().join("python.py"));
    assert!(shop.run(python).await.contains("python: ok"));
    shop.check(4);
    assert_eq!(
        shop.asked("/dear/v1/chat/completions"),
        1,
        "the SDK repeated a denial"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by cli/tests/clients/run"]
async fn the_official_javascript_sdk_of_openai_pays_through_the_proxy() {
    let shop = Shop::open().await;
    let mut node = Command::new("node");
    node.arg(clients().join("javascript.mjs"));
    assert!(shop.run(node).await.contains("javascript: ok"));
    shop.check(4);
    assert_eq!(
        shop.asked("/dear/v1/chat/completions"),
        1,
        "the SDK repeated a denial"
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by cli/tests/clients/run"]
async fn a_rust_program_with_genai_pays_through_the_proxy() {
    let shop = Shop::open().await;
    let program = clients().join("genai/target/debug/bursar-client-genai");
    assert!(shop.run(Command::new(program)).await.contains("genai: ok"));
    shop.check(2);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by cli/tests/clients/run"]
async fn curl_pays_through_the_proxy_and_streams() {
    let shop = Shop::open().await;
    let curl = |route: &str, more: &[&str]| {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--header"])
            .arg(format!("authorization: Bearer {}", shop.proxy.token))
            .args(["--header", "content-type: application/json", "--data"])
            .args(more)
            .arg(format!("{}{route}/chat/completions", shop.proxy.url));
        curl
    };
    let answer = shop.run(curl("/openai/v1", &[PLAIN, "--include"])).await;
    assert!(answer.contains("bursar-payment-status: paid"), "{answer}");
    assert!(answer.contains("Hello from the seller."), "{answer}");
    let stream = shop.run(curl("/openai/v1", &[STREAM, "--no-buffer"])).await;
    assert!(
        stream.matches("data: ").count() > 2 && stream.contains("[DONE]"),
        "{stream}"
    );
    let format = [
        PLAIN,
        "--output",
        "/dev/null",
        "--write-out",
        "%{http_code}",
    ];
    let denied = shop.run(curl("/openai/dear/v1", &format)).await;
    assert_eq!(denied, "402");
    // As an HTTP proxy, it is of no use.
    let mut tunnel = Command::new("curl");
    tunnel.args(["--silent", "--proxy", &shop.proxy.url]).args([
        "--write-out",
        "%{http_code}",
        "http://seller.example/v1/models",
    ]);
    assert!(shop.run(tunnel).await.ends_with("400"));
    shop.check(2);
}
