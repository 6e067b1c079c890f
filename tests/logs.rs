//! No crate logs a secret: every event, span and `log` record of all crates is searched, at every level.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::fmt::Write as _;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bursar::mcp::{self, PaidTools, Server};
use bursar::policy::SignIn;
use bursar::secrecy::SecretString;
use bursar::{
    ClientBuilder, Credential, Credentials, Ledger, LocalSigner, PaymentStatus, ResponseExt,
    RetryPolicy,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{self, http, open_all, payment_status, report};
use bursar_tests::tool_server::{self, Style, ToolServer};
use reqwest::Url;
use rmcp::ServiceExt;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

/// The secrets of one test.
struct Secrets {
    /// The key of the wallet.
    wallet: String,
    api_key: String,
    query: String,
}

impl Secrets {
    fn new() -> Self {
        let random = || {
            let mut bytes = [0_u8; 32];
            getrandom::fill(&mut bytes).unwrap();
            hex(&bytes)
        };
        Self {
            wallet: random(),
            api_key: format!("key-{}", random()),
            query: format!("query-{}", random()),
        }
    }

    fn client(&self, ledger: &Ledger) -> ClientBuilder {
        let wallet = SecretString::from(self.wallet.clone());
        paywall::client()
            .signer(LocalSigner::from_hex(&wallet).unwrap())
            .ledger(ledger.clone())
            .retry_policy(RetryPolicy::once())
    }
}

/// Everything that any crate has logged: a target and a text.
static LOGGED: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

fn logged() -> MutexGuard<'static, Vec<(String, String)>> {
    LOGGED.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Everything {
    next: AtomicU64,
}

struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        write!(self.0, " {field}={value:?} {value:#?}").unwrap();
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        write!(self.0, " {field}={value}").unwrap();
    }
}

/// The sellers run in the same process, in threads of their own. Their logs are their own, too.
const SELLER: &str = "seller";

fn push(target: &str, text: String) {
    if std::thread::current().name() != Some(SELLER) {
        logged().push((target.to_owned(), text));
    }
}

impl Subscriber for Everything {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = Text(span.metadata().name().to_owned());
        span.record(&mut text);
        push(span.metadata().target(), text.0);
        Id::from_u64(self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn record(&self, _: &Id, values: &Record<'_>) {
        let mut text = Text("recorded".to_owned());
        values.record(&mut text);
        push("span", text.0);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        push(event.metadata().target(), text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl log::Log for Everything {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        push(record.target(), record.args().to_string());
    }

    fn flush(&self) {}
}

fn listen() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let everything = || Everything {
            next: AtomicU64::new(1),
        };
        tracing::subscriber::set_global_default(everything()).unwrap();
        log::set_boxed_logger(Box::new(everything())).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// Runs the work of a seller.
async fn as_seller<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> T {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(SELLER)
            .enable_all()
            .build()
            .unwrap()
    });
    runtime.spawn(work).await.unwrap()
}

/// Starts a seller whose routes take a payment, refuse it, lose it, and take an API key.
async fn seller(secrets: &Secrets) -> Arc<Paywall> {
    let at = |path: &str| {
        Route::get(path)
            .price(bursar::usd!("0.01"))
            .body("the report")
    };
    let routes = [
        report().idempotent(),
        at("/refused").fault(Fault::DoublePrice),
        at("/lost").fault(Fault::DropAfterSettle),
        at("/keyed").accepts_key("authorization", &format!("Bearer {}", secrets.api_key)),
        at("/queried").accepts_key("?key", &secrets.api_key),
        Route::get("/free").body("free"),
        Route::get("/me").sign_in_only(),
    ];
    as_seller(async { Arc::new(open_all(routes).await) }).await
}

/// Serves the paywall over HTTP/2 with prior knowledge.
async fn over_http2(paywall: Arc<Paywall>) -> Url {
    as_seller(async move {
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", socket.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                tokio::spawn(forward(stream, Arc::clone(&paywall)));
            }
        });
        url.parse().unwrap()
    })
    .await
}

async fn forward(stream: tokio::net::TcpStream, paywall: Arc<Paywall>) {
    let http = http().build().unwrap();
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let url = paywall.url(request.uri().path_and_query().unwrap().as_str());
        let (http, mut headers) = (http.clone(), request.headers().clone());
        let host = request.uri().authority().unwrap().as_str();
        headers.insert("host", host.parse().unwrap());
        tokio::spawn(async move {
            let Ok(answer) = http.get(url).headers(headers).send().await else {
                respond.send_reset(h2::Reason::INTERNAL_ERROR);
                return;
            };
            let mut head = http::Response::builder().status(answer.status());
            for (name, value) in answer.headers() {
                if !["connection", "content-length", "transfer-encoding"].contains(&name.as_str()) {
                    head = head.header(name, value);
                }
            }
            let mut body = respond
                .send_response(head.body(()).unwrap(), false)
                .unwrap();
            body.send_data(answer.bytes().await.unwrap(), true).unwrap();
        });
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Returns the spellings of a secret in which a log could show it.
fn spellings(secret: &[u8]) -> Vec<String> {
    let mut spellings = vec![hex(secret), hex(secret).to_uppercase()];
    if let Ok(text) = std::str::from_utf8(secret) {
        spellings.push(text.to_owned());
    }
    let list = format!("{secret:?}");
    spellings.push(list.trim_matches(['[', ']']).to_owned());
    for offset in 0..3 {
        let shifted = [&[b' '; 3][..offset], secret].concat();
        for engine in [STANDARD, URL_SAFE] {
            let text = engine.encode(&shifted);
            let text = text.trim_end_matches('=');
            // The letters at the ends depend on the neighbours.
            let first = if offset == 0 { 0 } else { 4 };
            spellings.push(text[first..text.len() - 2].to_owned());
        }
    }
    spellings
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.trim_start_matches("0x");
    (0..digits.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&digits[place..place + 2], 16).unwrap())
        .collect()
}

/// Searches everything that was logged for the wallet's key and for the secrets in the requests that reached the seller.
fn assert_no_secret(context: &str, secrets: &Secrets, seller: &Paywall) {
    let mut secrets = vec![
        secrets.wallet.as_bytes().to_vec(),
        from_hex(&secrets.wallet),
        secrets.api_key.as_bytes().to_vec(),
        secrets.query.as_bytes().to_vec(),
    ];
    let mut payments = 0;
    for request in seller.requests() {
        if let Some(payment) = request.payment {
            let json = payment.json.unwrap();
            let signature = json["payload"]["signature"].as_str().unwrap();
            secrets.push(payment.header.into_bytes());
            secrets.push(signature.trim_start_matches("0x").as_bytes().to_vec());
            secrets.push(from_hex(signature));
            payments += 1;
        }
    }
    for sign_in in seller.sign_ins() {
        assert!(sign_in.accepted, "{context}");
        let json = STANDARD.decode(&sign_in.header).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        let signature = json["signature"].as_str().unwrap();
        secrets.push(signature.trim_start_matches("0x").as_bytes().to_vec());
        secrets.push(from_hex(signature));
        secrets.push(sign_in.header.into_bytes());
    }
    assert!(payments > 0, "{context}");
    assert_not_logged(context, &secrets);
}

fn assert_not_logged(context: &str, secrets: &[Vec<u8>]) {
    let logged = logged();
    let spellings: Vec<String> = secrets
        .iter()
        .flat_map(|secret| spellings(secret))
        .collect();
    let mut leaks = Vec::new();
    for (target, text) in logged.iter() {
        if let Some(spelling) = spellings
            .iter()
            .find(|spelling| text.contains(spelling.as_str()))
        {
            let place = text.find(spelling.as_str()).unwrap_or(0);
            let around: String = text.chars().take(160).collect();
            leaks.push(format!("{target} at {place}: {spelling:.40}: {around}"));
        }
    }
    let lines = logged.len();
    drop(logged);
    leaks.dedup();
    assert!(
        leaks.is_empty(),
        "{context}: {} leaks in {lines} lines:\n{}",
        leaks.len(),
        leaks.join("\n")
    );
}

/// Asserts that the crate was heard, so that its silence means something.
fn assert_heard(target: &str) {
    let logged = logged();
    assert!(
        logged.iter().any(|(known, _)| known.starts_with(target)),
        "nothing was heard of {target}"
    );
}

/// Buys over HTTP in every way that ends differently.
async fn every_ending_over_http(name: &str, ledger: &Ledger) {
    for http2 in [false, true] {
        let secrets = Secrets::new();
        let seller = seller(&secrets).await;
        let http = || {
            if http2 {
                http().http2_prior_knowledge()
            } else {
                http()
            }
        };
        let base = if http2 {
            over_http2(Arc::clone(&seller)).await
        } else {
            seller.url("/")
        };
        let url = |path: &str| {
            let mut url = base.join(path).unwrap();
            url.set_query(Some(&format!("token={}", secrets.query)));
            url
        };
        let client = secrets.client(ledger).http(http()).build().unwrap();
        for (path, status) in [
            ("/report", PaymentStatus::Paid),
            ("/refused", PaymentStatus::MaybePaid),
            ("/lost", PaymentStatus::MaybePaid),
            ("/report", PaymentStatus::Paid),
        ] {
            let answer = client.get(url(path)).send().await;
            assert_eq!(payment_status(answer), status, "{path}");
        }
        let always = paywall::policy().sign_in(SignIn::Always);
        let answer = client
            .with_policy(always)
            .unwrap()
            .get(url("/me"))
            .send()
            .await;
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(seller.sign_ins().len(), 1);
        let api_key = || SecretString::from(secrets.api_key.clone());
        for (path, credential) in [
            ("/keyed", Credential::bearer("example", api_key())),
            ("/queried", Credential::query("example", "key", api_key())),
        ] {
            let with_key = secrets
                .client(ledger)
                .http(http())
                .credentials(Credentials::new().host("127.0.0.1", credential))
                .build()
                .unwrap();
            let answer = with_key.get(url(path)).send().await.unwrap();
            assert_eq!(
                (answer.status().as_u16(), answer.payment_status()),
                (200, PaymentStatus::NotPaid),
                "{path}"
            );
        }
        assert_heard(if http2 { "h2" } else { "hyper_util" });
        assert_heard("bursar");
        assert_no_secret(&format!("{name}, HTTP/2: {http2}"), &secrets, &seller);
    }
}

async fn every_ending_over_mcp(name: &str, ledger: &Ledger) {
    let secrets = Secrets::new();
    let seller = seller(&secrets).await;
    let client = secrets.client(ledger).build().unwrap();
    // Over a pipe, as a server in a child process is reached.
    let (here, there) = tokio::io::duplex(64 * 1024);
    let shop = ToolServer::new(Arc::clone(&seller), Style::Structured);
    as_seller(async move {
        tokio::spawn(async move { shop.serve(there).await.unwrap().waiting().await });
    })
    .await;
    let pipe = ().serve(here).await.unwrap();
    let mut services = vec![(pipe, Server::local("shop").unwrap())];
    // Over HTTP, where the tool or the endpoint asks for money.
    for route in [None, Some("/report")] {
        let shop = ToolServer::new(Arc::clone(&seller), Style::Structured);
        let (address, _) = as_seller(async move { tool_server::open(shop, route).await }).await;
        let url = format!("http://{address}/mcp?token={}", secrets.query);
        let web = ().serve(mcp::connect(&client, &url).unwrap()).await.unwrap();
        services.push((web, Server::at(&url).unwrap()));
    }
    for (number, (service, server)) in services.iter().enumerate() {
        let payer = client.payer().unwrap().clone();
        let tools = PaidTools::new(service.peer().clone(), payer, server.clone())
            .retry_policy(RetryPolicy::once())
            .timeout(Duration::from_secs(5));
        let paid = if number == 2 { "free" } else { "report" };
        for tool in [paid, "refused", "lost", "free"] {
            let call = tools.call(tool).arguments(json!({ "city": "Paris" }));
            let answer = call.send().await;
            if tool == paid {
                assert_eq!(answer.unwrap().payment_status(), PaymentStatus::Paid);
            }
        }
    }
    assert_heard("rmcp");
    assert_no_secret(&format!("{name}, MCP"), &secrets, &seller);
}

#[tokio::test]
async fn no_crate_logs_a_secret_with_a_ledger_in_memory() {
    listen();
    every_ending_over_http("memory", &Ledger::memory()).await;
}

#[tokio::test]
async fn no_crate_logs_a_secret_with_a_ledger_in_sqlite() {
    listen();
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::sqlite(directory.path().join("ledger.db")).unwrap();
    every_ending_over_http("SQLite", &ledger).await;
}

#[tokio::test]
async fn no_crate_logs_a_secret_of_a_tool_call() {
    listen();
    every_ending_over_mcp("memory", &Ledger::memory()).await;
}

#[cfg(feature = "postgres")]
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn no_crate_logs_a_secret_with_a_ledger_in_postgres() {
    listen();
    let var = |name: &str| std::env::var(name).expect("run by tests/postgres/run");
    let tls = format!("{} host=localhost", var("BURSAR_TEST_POSTGRES_TLS"));
    for url in [var("BURSAR_TEST_POSTGRES"), tls] {
        // The server trusts everybody, and the driver holds the password all the same.
        let secrets = Secrets::new();
        let url = format!("{url} password={}", secrets.api_key);
        let ledger = Ledger::postgres_in(&url, "logs").await.unwrap();
        every_ending_over_http("PostgreSQL", &ledger).await;
        every_ending_over_mcp("PostgreSQL", &ledger).await;
        assert_not_logged("PostgreSQL", &[secrets.api_key.into_bytes()]);
    }
    assert_heard("tokio_postgres");
    assert_heard("rustls");
}
