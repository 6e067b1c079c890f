//! A running `bursar proxy`, and a program that uses it.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use reqwest::Response;
use serde_json::Value;

use crate::support::CliHarness;

/// A running proxy. It is killed when it is dropped.
pub(crate) struct RunningProxy {
    child: Child,
    _stdout: BufReader<ChildStdout>,
    /// The lines of standard error.
    log: Mutex<Receiver<String>>,
    pub(crate) seen: Vec<Value>,
    /// The URL of the proxy, without a slash at its end.
    pub(crate) url: String,
    pub(crate) token: String,
}

/// Returns the arguments of a proxy on Base Sepolia and loopback, with the ledger of the harness and a free port.
pub(crate) fn args<'a>(more: &[&'a str]) -> Vec<&'a str> {
    let usual = [
        "proxy",
        "--allow-http-loopback",
        "--ledger",
        "ledger.db",
        "--listen",
        "127.0.0.1:0",
        "--tokens",
        "tokens",
    ];
    [&usual[..], more].concat()
}

/// Makes a token and returns it.
pub(crate) async fn token(harness: &CliHarness, name: &str) -> String {
    let ended = harness
        .run(&["proxy", "token", name, "--tokens", "tokens"])
        .await;
    assert_eq!(ended.code, 0, "{ended:?}");
    ended.text().trim().to_owned()
}

impl RunningProxy {
    /// Starts a proxy with a policy file, and makes the token `writer`.
    pub(crate) async fn start(harness: &CliHarness, more: &[&str]) -> Self {
        let token = token(harness, "writer").await;
        Self::start_command(harness.command(&args(more)), token).await
    }

    pub(crate) async fn start_command(mut command: Command, token: String) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (sender, log) = channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (stdout, url) = tokio::task::spawn_blocking(move || {
            let mut url = String::new();
            stdout.read_line(&mut url).unwrap();
            (stdout, url)
        })
        .await
        .unwrap();
        let url = url.trim().to_owned();
        if url.is_empty() {
            let mut lines = String::new();
            for line in log.iter() {
                lines.push_str(&line);
            }
            panic!("the proxy did not start: {lines}");
        }
        Self {
            child,
            _stdout: stdout,
            log: Mutex::new(log),
            seen: Vec::new(),
            url,
            token,
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// Returns the path that names a URL of the paywall.
    pub(crate) fn to(&self, url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap();
        format!("{}/to/{scheme}/{rest}", self.url)
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    }

    /// Waits for a line of the log with this event, and returns it.
    pub(crate) fn wait_for(&mut self, event: &str) -> Value {
        for line in self.log.get_mut().unwrap().iter() {
            let line: Value = serde_json::from_str(&line)
                .unwrap_or_else(|_| panic!("a line of the log is no JSON: {line}"));
            self.seen.push(line.clone());
            if line["event"] == event {
                return line;
            }
        }
        panic!("the log ended without `{event}`: {:?}", self.seen);
    }

    /// Stops the proxy, and returns its exit code and all lines of its log.
    pub(crate) fn stop(mut self) -> (i32, Vec<Value>) {
        self.signal("TERM");
        self.ended()
    }

    /// Waits for the end of the proxy.
    pub(crate) fn ended(&mut self) -> (i32, Vec<Value>) {
        let code = self.child.wait().unwrap().code().unwrap();
        for line in self.log.get_mut().unwrap().iter() {
            self.seen.push(serde_json::from_str(&line).unwrap());
        }
        (code, std::mem::take(&mut self.seen))
    }
}

impl Drop for RunningProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The client of a program: without the proxies of the environment, and without redirects.
pub(crate) fn program() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap()
}

/// Returns a header of an answer, or an empty text.
pub(crate) fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().unwrap())
}

/// Requests a path of the proxy, with its token.
pub(crate) async fn get(proxy: &RunningProxy, path: &str) -> Response {
    let url = format!("{}{path}", proxy.url);
    let request = program().get(url).bearer_auth(&proxy.token);
    request.send().await.unwrap()
}

/// Sends bytes to the proxy, and returns everything that it answers until it closes the connection.
pub(crate) fn raw(port: u16, bytes: &[u8]) -> String {
    use std::io::Write;

    let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}
