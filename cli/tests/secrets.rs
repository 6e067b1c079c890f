//! The secrets of the command: other processes of the same user, the environment, file descriptors.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bursar_testing::Route;
use serde_json::{Value, json};
use support::{CliHarness, KEY, report};

/// Secrets of every kind that the command reads from its environment.
const SECRETS: [(&str, &str); 3] = [
    ("BURSAR_PRIVATE_KEY", KEY),
    ("BURSAR_KEYSTORE_PASSWORD", "the-password"),
    ("EXAMPLE_API_KEY", "the-api-key"),
];
const NOBODY: u32 = 65_534;

/// A server on standard input and output.
struct Serve {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Serve {
    /// Starts a server and waits for its first answer.
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut serve = Self { child, answers };
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "test", "version": "1" },
        });
        serve.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params }));
        assert_eq!(serve.answer()["id"], 1);
        serve.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        serve
    }

    fn send(&mut self, message: &Value) {
        let stdin = self.child.stdin.as_mut().unwrap();
        stdin.write_all(format!("{message}\n").as_bytes()).unwrap();
        stdin.flush().unwrap();
    }

    fn answer(&mut self) -> Value {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    fn pay(&mut self, url: &str) -> Value {
        let params = json!({ "name": "pay", "arguments": { "url": url } });
        self.send(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params }));
        self.answer()["result"]["structuredContent"].clone()
    }

    fn proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Returns whether this process may change its user.
fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").unwrap()) == 0
}

/// Lets the command run as a user without rights, if this process may do that.
fn unprivileged(command: &mut Command) -> &mut Command {
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = [
        "mcp",
        "serve",
        "--allow-http-loopback",
        "--ledger",
        "ledger.db",
    ];
    [&usual[..], more].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_has_no_secret_in_its_environment() {
    let keyed = Route::get("/keyed")
        .body("for the key")
        .accepts_key("authorization", "Bearer the-api-key");
    let harness = CliHarness::with_routes([report(), keyed.price(bursar::usd!("0.02"))]).await;
    let policy = harness.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[[credential]]\nname = \"example\"\nhost = \"127.0.0.1\"\n\
         bearer = { env = \"EXAMPLE_API_KEY\" }\n",
    );
    let mut command = harness.command(&args(&["--policy", &policy]));
    command.envs(SECRETS).env("HARMLESS", "a-setting");
    let mut serve = Serve::start(command);

    let environment = std::fs::read(serve.proc("environ")).unwrap();
    let environment = String::from_utf8_lossy(&environment);
    assert!(environment.contains("HARMLESS=a-setting"), "{environment}");
    for (name, value) in SECRETS {
        assert!(
            !environment.contains(name) && !environment.contains(value.trim_start_matches("0x")),
            "{environment}"
        );
    }
    let line = std::fs::read(serve.proc("cmdline")).unwrap();
    assert!(
        !String::from_utf8_lossy(&line).contains("the-"),
        "no secret is an argument"
    );

    // The server still has all of them.
    let keyed = serve.pay(harness.paywall.url("/keyed").as_str());
    assert_eq!(
        (&keyed["status"], harness.settled()),
        (&json!(200), 0),
        "{keyed}"
    );
    let paid = serve.pay(&harness.url());
    assert_eq!(
        (&paid["payment"], harness.settled()),
        (&json!("paid"), 1),
        "the key of the environment refuses the API key: {paid}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_url_leaves_the_environment_of_a_server() {
    let harness = CliHarness::new(report()).await;
    let mut command = harness.command(&args(&["--network", "base-sepolia"]));
    command.env(
        "BURSAR_LEDGER",
        "postgres://user:the-password@db.invalid/ledger",
    );
    let serve = Serve::start(command);
    let environment = std::fs::read(serve.proc("environ")).unwrap();
    assert!(!String::from_utf8_lossy(&environment).contains("the-password"));
}

#[test]
fn another_process_of_the_same_user_cannot_read_a_server() {
    let run = |mut command: Command| {
        command
            .args([
                "mcp",
                "serve",
                "--network",
                "base-sepolia",
                "--ledger",
                ":memory:",
            ])
            .env_clear()
            .env("BURSAR_PRIVATE_KEY", KEY)
            .current_dir("/");
        unprivileged(&mut command);
        Serve::start(command)
    };
    let serve = run(Command::new(env!("CARGO_BIN_EXE_bursar")));
    for file in ["environ", "mem", "maps", "fd/0"] {
        let read = unprivileged(Command::new("head").args(["-c", "1"]).arg(serve.proc(file)))
            .stderr(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(!read.success(), "{file}");
    }
    let limits = std::fs::read_to_string(serve.proc("limits")).unwrap();
    let cores = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"));
    let cores: Vec<_> = cores.unwrap().split_whitespace().collect();
    assert_eq!(cores[4..6], ["0", "0"]);

    // The same check can read an ordinary process of that user.
    let mut ordinary = Command::new("sleep");
    unprivileged(ordinary.arg("60").current_dir("/").env("SEEN", "yes"));
    let mut ordinary = ordinary.spawn().unwrap();
    let path = format!("/proc/{}/environ", ordinary.id());
    let read = unprivileged(Command::new("cat").arg(path))
        .output()
        .unwrap();
    ordinary.kill().unwrap();
    ordinary.wait().unwrap();
    assert!(read.status.success());
}

/// Returns a shell that runs the command with a file as descriptor 3.
fn with_descriptor(harness: &CliHarness, file: &Path, args: &[&str]) -> Command {
    let bursar = harness.command(args);
    let mut shell = Command::new("/bin/sh");
    shell
        .args(["-c", "exec \"$0\" \"$@\" 3<\"$KEY_FILE\""])
        .arg(bursar.get_program())
        .args(bursar.get_args())
        .env_clear()
        .env("KEY_FILE", file)
        .env("XDG_STATE_HOME", harness.path("state"))
        .current_dir(harness.files.path());
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_read_from_a_file_descriptor_and_the_descriptor_is_closed() {
    let harness = CliHarness::new(report()).await;
    harness.file("key", format!("{KEY}\n"));
    let key = harness.path("key");
    let more = ["--network", "base-sepolia", "--key-fd", "3"];
    let mut command = with_descriptor(&harness, &key, &args(&more));
    // The descriptor survives that the server executes itself again.
    command.env("BURSAR_KEYSTORE_PASSWORD", "the-password");
    let mut serve = Serve::start(command);
    let paid = serve.pay(&harness.url());
    assert_eq!(
        (&paid["payment"], harness.settled()),
        (&json!("paid"), 1),
        "{paid}"
    );
    for entry in std::fs::read_dir(serve.proc("fd")).unwrap() {
        let target = std::fs::read_link(entry.unwrap().path());
        assert!(
            target.is_ok_and(|target| target != key),
            "the key file is open"
        );
    }
}

#[tokio::test]
async fn a_descriptor_without_a_key_is_a_usage_error_that_does_not_repeat_it() {
    let harness = CliHarness::new(report()).await;
    let url = harness.url();
    let pay = |fd: &'static str| {
        let network = ["pay", "--network", "base-sepolia", "--allow-http-loopback"];
        [&network[..], &["--ledger", ":memory:", "--key-fd", fd]].concat()
    };
    let almost = &KEY[..65];
    for (content, fd, words) in [
        (
            almost.to_owned(),
            "3",
            "--key-fd 3: a private key is 64 hexadecimal digits",
        ),
        (
            String::new(),
            "3",
            "--key-fd 3: a private key is 64 hexadecimal digits",
        ),
        ("00".repeat(32), "3", "--key-fd 3: "),
        ("0".repeat(1 << 17), "3", "64 KiB"),
        (KEY.to_owned(), "9", "--key-fd 9: cannot be read"),
        (KEY.to_owned(), "0", "0 is not in 3.."),
        (KEY.to_owned(), "-1", "-1"),
    ] {
        harness.file("key", &content);
        let args = [&pay(fd)[..], &[&url]].concat();
        let command = with_descriptor(&harness, &harness.path("key"), &args);
        let ended = harness.end(command, b"").await;
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.stderr.contains(words), "{ended:?}");
        assert!(!ended.stderr.contains(&almost[2..]), "{ended:?}");
    }
    assert!(harness.paywall.requests().is_empty());
    let both = [&pay("3")[..], &["--keystore", "key", &url]].concat();
    let ended = harness
        .end(with_descriptor(&harness, &harness.path("key"), &both), b"")
        .await;
    assert_eq!(ended.code, 2);
}
