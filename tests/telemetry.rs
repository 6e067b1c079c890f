//! What observers and logs are told, and what they are not.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::secrecy::SecretString;
use bursar::signer::SignerError;
use bursar::telemetry::{Counts, Event};
use bursar::{
    ClientBuilder, Credential, Credentials, Ledger, LocalSigner, PaymentStatus, ResponseExt,
    RetryPolicy, signer_fn, usd,
};
use bursar_testing::{Fault, Route};
use bursar_tests::clock::{DAY, HOUR, MINUTE, TestClock};
use bursar_tests::paywall::{self, open, open_all, purchases, report};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

const QUERY: &str = "token=do-not-log-me";

fn client() -> ClientBuilder {
    paywall::client().agent("forecaster")
}

/// An event in words, for comparison.
type Told = Arc<Mutex<Vec<String>>>;

fn told() -> (Told, impl Fn(&Event<'_>) + Send + Sync + 'static) {
    let told = Told::default();
    let list = Arc::clone(&told);
    let observer = move |event: &Event<'_>| {
        let amount = event.amount.map(ToString::to_string).unwrap_or_default();
        let rule = event.kind.rule().map(Rule::name).unwrap_or_default();
        assert_eq!(event.agent, Some("forecaster"));
        list.lock()
            .unwrap()
            .push([event.name(), &amount, rule].join(" ").trim().to_owned());
    };
    (told, observer)
}

fn taken(told: &Told) -> Vec<String> {
    std::mem::take(&mut told.lock().unwrap())
}

#[tokio::test]
async fn a_purchase_is_told_step_by_step() {
    let seller = open(report()).await;
    let (told, observer) = told();
    client()
        .observer(observer)
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        taken(&told),
        [
            "challenged",
            "reserved 0.01 USDC",
            "signed 0.01 USDC",
            "presented 0.01 USDC",
            "settled 0.01 USDC"
        ]
    );
}

#[tokio::test]
async fn a_denial_is_told_with_its_rule_and_counted() {
    let seller = open(report().price(usd!("2"))).await;
    let (told, observer) = told();
    let error = client()
        .observer(observer)
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_denied());
    assert_eq!(taken(&told), ["challenged", "denied  per_payment"]);

    let counts = Counts::new();
    let client = client().observer(counts.clone()).build().unwrap();
    for _ in 0..3 {
        client.get(seller.url("/report")).send().await.unwrap_err();
    }
    client.ledger().unwrap().freeze("enough").await.unwrap();
    client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(counts.denials(), [(Rule::Frozen, 1), (Rule::PerPayment, 3)]);
    assert_eq!(
        (
            counts.of("challenged"),
            counts.of("signed"),
            counts.of("denied")
        ),
        (4, 0, 4)
    );
}

#[tokio::test]
async fn a_page_for_prometheus_has_events_denials_dollars_and_limits() {
    let seller = open_all([report(), Route::get("/costly").price(usd!("2"))]).await;
    let counts = Counts::new();
    let policy = paywall::policy().tag_limits("a \"b\\\n", |tag| tag.lifetime(usd!("0.04")));
    let builder = client().policy(policy.lifetime(usd!("0.08")));
    let client = builder.observer(counts.clone()).build().unwrap();
    for path in ["/report", "/report", "/costly"] {
        let sent = client.get(seller.url(path)).allow_duplicate().send().await;
        assert_eq!(sent.is_ok(), path == "/report");
    }
    let page = counts.prometheus(&client.budget().await.unwrap());
    for line in [
        "# TYPE bursar_events_total counter",
        "bursar_events_total{event=\"settled\"} 2",
        "bursar_events_total{event=\"denied\"} 1",
        "bursar_events_total{event=\"unresolved\"} 0",
        "bursar_denials_total{rule=\"per_payment\"} 1",
        "bursar_settled_usd_total 0.02",
        "bursar_settling_seconds_count 2",
        "bursar_limit_used_ratio{limit=\"global lifetime\",rule=\"lifetime\"} 0.25",
        "bursar_limit_used_ratio{limit=\"tag a \\\"b\\\\\\n lifetime\",rule=\"lifetime\"} 0.00",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} in {page}");
    }
    let names = page.lines().filter(|line| !line.starts_with('#'));
    assert!(
        names.clone().count() > 20 && names.into_iter().all(|line| line.starts_with("bursar_"))
    );
}

#[tokio::test]
async fn a_denial_is_told_whole_and_counted_in_the_ledger() {
    let seller = open(report().price(usd!("2"))).await;
    let denials = Arc::<Mutex<Vec<bursar::Denial>>>::default();
    let list = Arc::clone(&denials);
    let observer = move |event: &Event<'_>| list.lock().unwrap().extend(event.denial.cloned());
    let client = client().observer(observer).build().unwrap();
    for _ in 0..2 {
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        let denial = error.denial().unwrap().clone();
        assert_eq!(denials.lock().unwrap().last(), Some(&denial));
        assert_eq!(denial.limit.unwrap().to_string(), "0.05 USD");
    }
    let counted = client.ledger().unwrap().denials().await.unwrap();
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_eq!((counted[0].rule, counted[0].count), (Rule::PerPayment, 2));
    assert_eq!(counted[0].host.as_deref(), Some("127.0.0.1"));
    assert!(
        counted[0].message.contains("above the limit of 0.05 USD"),
        "{counted:?}"
    );
    assert!(purchases(&client).await.is_empty());
}

/// The warnings about limits, in words.
fn warned() -> (Told, impl Fn(&Event<'_>) + Send + Sync + 'static) {
    let told = Told::default();
    let list = Arc::clone(&told);
    let observer = move |event: &Event<'_>| {
        if let (Some(share), Some(limit)) = (event.kind.share(), event.limit) {
            assert!(event.purchase.is_some() && event.amount.is_some());
            let used = limit.used.as_ref().unwrap();
            list.lock()
                .unwrap()
                .push(format!("{share} {}: {used}", limit.name));
        }
    };
    (told, observer)
}

/// Starts a seller whose clock is the test's.
async fn open_at(clock: &TestClock) -> bursar_testing::Paywall {
    let seller = bursar_testing::Paywall::builder().route(report());
    seller.clock(clock.clone()).start().await.unwrap()
}

#[tokio::test]
async fn a_limit_warns_once_at_each_share_and_again_in_the_next_window() {
    let clock = TestClock::default();
    let seller = open_at(&clock).await;
    let (list, observer) = warned();
    let policy = paywall::policy()
        .per_day(usd!("0.10"))
        .exposure(usd!("1"))
        .warn_at(0.8)
        .warn_at("50%");
    let client = client()
        .policy(policy)
        .clock(clock.clone())
        .observer(observer)
        .build()
        .unwrap();
    let buy = || client.get(seller.url("/report")).allow_duplicate().send();
    for _ in 0..10 {
        buy().await.unwrap();
    }
    assert!(buy().await.unwrap_err().is_denied());
    assert_eq!(
        taken(&list),
        [
            "50% global rolling 1d: 0.05 USD",
            "80% global rolling 1d: 0.08 USD"
        ]
    );
    // In the next window, new payments pass the shares again.
    clock.advance(DAY + HOUR);
    for _ in 0..8 {
        buy().await.unwrap();
    }
    assert_eq!(taken(&list).len(), 2);
    assert_eq!(seller.settlements().len(), 18);
}

#[tokio::test]
async fn a_limit_that_hovers_at_a_share_does_not_warn_with_every_payment() {
    let clock = TestClock::default();
    let seller = open_at(&clock).await;
    let (list, observer) = warned();
    let policy = paywall::policy()
        .per_hour(usd!("0.04"))
        .without_default_limits()
        .per_payment(usd!("0.05"));
    let client = client()
        .policy(policy.warn_at(0.75))
        .clock(clock.clone())
        .observer(observer)
        .build()
        .unwrap();
    // A payment counts until it has expired, so the hour begins five minutes later.
    for _ in 0..12 {
        let bought = client.get(seller.url("/report")).allow_duplicate().send();
        bought.await.unwrap();
        clock.advance(MINUTE * 20);
    }
    let warnings = taken(&list);
    assert!((1..=4).contains(&warnings.len()), "{warnings:?}");
}

#[tokio::test]
async fn each_scope_warns_at_its_own_share_and_brakes_do_not() {
    let seller = open(report()).await;
    let (list, observer) = warned();
    let policy = paywall::policy()
        .per_day(usd!("0.04"))
        .warn_at(1.0)
        .loop_guard(MINUTE, 3)
        .tag_limits("daily", |tag| tag.lifetime(usd!("0.04")).warn_at(0.5))
        .each_origin(|origin| origin.payments(MINUTE, 3).warn_at("66%"));
    let client = client().policy(policy).observer(observer).build().unwrap();
    for _ in 0..3 {
        let bought = client
            .get(seller.url("/report"))
            .tag("daily")
            .allow_duplicate();
        bought.send().await.unwrap();
    }
    let origin = seller.url("/").origin().ascii_serialization();
    assert_eq!(
        taken(&list),
        [
            "50% tag daily lifetime: 0.02 USD".to_owned(),
            format!("66% origin {origin} payments per 1m: 2 payments"),
        ]
    );
}

#[tokio::test]
async fn a_call_with_an_api_key_warns_too_and_a_wrong_share_is_a_mistake_of_the_policy() {
    let seller = open(report().accepts_key("authorization", "Bearer right")).await;
    let credential = Credential::bearer("example", SecretString::from("right"));
    let plan = bursar::credential::CallPlan::per_call(usd!("0.02"));
    let keys = Credentials::new().host("127.0.0.1", credential.plan(plan));
    let (list, observer) = warned();
    let policy = paywall::policy().lifetime(usd!("0.05")).warn_at(0.8);
    let builder = client().policy(policy).credentials(keys);
    let client = builder.observer(observer).build().unwrap();
    for _ in 0..2 {
        client.get(seller.url("/report")).send().await.unwrap();
    }
    assert_eq!(taken(&list), ["80% global lifetime: 0.04 USD"]);
    for share in [0.0, -1.0, 1.5, 80.0, f64::NAN] {
        let error = paywall::policy().warn_at(share).check().unwrap_err();
        assert!(
            error.to_string().contains("is not a share of a limit"),
            "{error}"
        );
        let tagged = paywall::policy().tag_limits("a", |tag| tag.warn_at(share));
        assert!(tagged.check().is_err());
    }
}

#[tokio::test]
async fn a_refusal_and_a_lost_answer_are_told_apart_and_resumed() {
    let seller = open(report().fault(Fault::DoublePrice)).await;
    let (list, observer) = told();
    client()
        .observer(observer)
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(taken(&list).last().unwrap(), "rejected 0.01 USDC");

    let seller = open(report().idempotent().fault_once(Fault::DropAfterSettle)).await;
    let (list, observer) = told();
    let client = client()
        .observer(observer)
        .retry_policy(RetryPolicy::once())
        .build()
        .unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
    assert_eq!(taken(&list).last().unwrap(), "unresolved 0.01 USDC");
    client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        taken(&list),
        [
            "challenged",
            "resumed 0.01 USDC",
            "presented 0.01 USDC",
            "settled 0.01 USDC"
        ]
    );
}

#[tokio::test]
async fn a_signer_that_fails_and_a_caller_who_leaves_are_told() {
    let seller = open(report()).await;
    let (list, observer) = told();
    let broken = signer_fn(bursar::Address::repeat_byte(7), |_| async {
        Err(SignerError::rejected("no"))
    });
    let failing = client().signer(broken).observer(observer).build().unwrap();
    failing.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        taken(&list),
        ["challenged", "reserved 0.01 USDC", "unsigned 0.01 USDC"]
    );

    let seller = open(report().fault(Fault::HangAfterSettle)).await;
    let (list, observer) = told();
    let left = client().observer(observer).build().unwrap();
    let request = left.get(seller.url("/report")).send();
    tokio::select! {
        _ = request => panic!("the seller hangs"),
        () = seller.wait_for_settlements(1) => {}
    }
    assert_eq!(taken(&list).last().unwrap(), "unresolved 0.01 USDC");
}

#[tokio::test]
async fn calls_by_key_are_told_with_their_declared_cost() {
    let seller = open(report().accepts_key("authorization", "Bearer right")).await;
    let key = |text: &str| {
        let credential = Credential::bearer("example", SecretString::from(text.to_owned()));
        Credentials::new().host(
            "127.0.0.1",
            credential.plan(bursar::credential::CallPlan::per_call(usd!("0.002"))),
        )
    };
    let (list, observer) = told();
    client()
        .credentials(key("right"))
        .observer(observer)
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap();
    assert_eq!(taken(&list), ["api_call 0.002 USD"]);
    let (list, observer) = told();
    client()
        .credentials(key("wrong"))
        .observer(observer)
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        taken(&list)[..2],
        ["api_call 0.002 USD", "turned_away 0.002 USD"]
    );
}

#[tokio::test]
async fn an_observer_that_panics_breaks_no_payment() {
    let seller = open(report()).await;
    let client = client()
        .observer(|_: &Event<'_>| panic!("an observer's own trouble"))
        .build()
        .unwrap();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "the report");
    let purchases = purchases(&client).await;
    assert_eq!(
        purchases
            .iter()
            .map(|purchase| purchase.state)
            .collect::<Vec<_>>(),
        [State::Settled]
    );
    assert_eq!(seller.settlements().len(), 1);
}

/// Everything that reaches `tracing`, of this crate.
#[derive(Clone, Default)]
struct Log {
    next: Arc<AtomicU64>,
    lines: Arc<Mutex<Vec<(String, Fields)>>>,
    spans: Arc<Mutex<BTreeMap<u64, (String, Fields)>>>,
}

#[derive(Clone, Debug, Default)]
struct Fields(BTreeMap<&'static str, String>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(
            field.name(),
            format!("{value:?}").trim_matches('"').to_owned(),
        );
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("bursar")
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = Fields::default();
        span.record(&mut fields);
        self.spans
            .lock()
            .unwrap()
            .insert(id, (span.metadata().name().to_owned(), fields));
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        values.record(
            &mut self
                .spans
                .lock()
                .unwrap()
                .get_mut(&span.into_u64())
                .unwrap()
                .1,
        );
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.lines
            .lock()
            .unwrap()
            .push((event.metadata().target().to_owned(), fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn the_query_of_the_target_of_a_redirect_is_not_logged() {
    let log = Log::default();
    let _installed = tracing::subscriber::set_default(log.clone());
    let paid = Route::get("/report").price(usd!("0.01")).status(303);
    let seller = open_all([
        paid.header("location", "https://bucket.example/obj?sig=s3cret"),
        Route::get("/away").redirect("https://bucket.example/obj?sig=s3cret"),
    ])
    .await;
    let client = client().build().unwrap();
    for path in ["/report", "/away"] {
        let response = client.get(seller.url(path)).send().await.unwrap();
        assert!(response.redirect_target().is_some());
        let error = format!("{:?}", response.error_for_payment().unwrap_err());
        assert!(!error.contains("s3cret"), "{error}");
    }
    let logged = format!("{:?} {:?}", log.lines.lock(), log.spans.lock());
    assert!(
        logged.contains("303") && !logged.contains("s3cret"),
        "{logged}"
    );
}

#[tokio::test]
async fn spans_and_events_have_their_names_and_fields_and_no_secret() {
    let log = Log::default();
    let _installed = tracing::subscriber::set_default(log.clone());
    // Terms, refusals and answers that repeat the payment, signature and all.
    let quoting = Route::get("/quoting").price(usd!("0.01"));
    let seller = open_all([report(), quoting.fault(Fault::QuotePayment)]).await;
    let client = client().build().unwrap();
    let url = |path: &str| format!("{}?{QUERY}", seller.url(path));
    client
        .get(url("/report"))
        .tag("daily")
        .send()
        .await
        .unwrap();
    client.get(url("/quoting")).send().await.unwrap_err();

    let spans: Vec<(String, Fields)> = log.spans.lock().unwrap().values().cloned().collect();
    let span = |name: &str| &spans.iter().find(|span| span.0 == name).unwrap().1.0;
    let keys = |name: &str| span(name).keys().copied().collect::<Vec<_>>();
    let origin = seller.url("/").origin().ascii_serialization();
    assert_eq!(
        keys("bursar.request"),
        ["method", "origin", "payment_status", "status", "tag"]
    );
    assert_eq!(
        keys("bursar.payment"),
        [
            "agent", "amount", "method", "origin", "payee", "purchase", "tag"
        ]
    );
    assert_eq!(
        keys("bursar.presentation"),
        ["number", "origin", "purchase", "status"]
    );
    let request = span("bursar.request");
    assert_eq!(
        (
            &*request["status"],
            &*request["payment_status"],
            &*request["tag"]
        ),
        ("200", "paid", "daily")
    );
    assert_eq!(
        (&*request["origin"], &*span("bursar.payment")["amount"]),
        (&*origin, "0.01 USDC")
    );

    let lines = log.lines.lock().unwrap().clone();
    let payments: Vec<&Fields> = lines
        .iter()
        .filter(|line| line.0 == "bursar::payment")
        .map(|(_, fields)| fields)
        .collect();
    let names: Vec<&str> = payments.iter().map(|fields| &*fields.0["event"]).collect();
    let once = ["challenged", "reserved", "signed", "presented"];
    assert_eq!(
        names,
        [&once[..], &["settled"], &once[..], &["rejected"]].concat()
    );
    let settled = &payments[4].0;
    let fields: Vec<&str> = settled.keys().copied().collect();
    assert_eq!(
        fields,
        [
            "agent",
            "amount",
            "elapsed_ms",
            "event",
            "origin",
            "purchase",
            "tag",
            "usd"
        ]
    );
    assert_eq!(settled["usd"], "0.01");

    // What left: the query, and each payment's header and signature.
    let everything = format!("{lines:?}{spans:?}");
    assert!(
        !everything.contains(QUERY) && !everything.contains("/report"),
        "{everything}"
    );
    let mut signatures = 0;
    for request in seller.requests() {
        for name in ["payment-signature", "x-payment"] {
            if let Some(header) = request.header(name) {
                signatures += 1;
                assert!(
                    !everything.contains(&header[..40]),
                    "a payment header is in the log"
                );
            }
        }
    }
    assert_eq!(signatures, 2);
    assert!(
        !everything.to_lowercase().contains("signature"),
        "{everything}"
    );
    let long_hex = |word: &str| {
        word.len() > 66
            && word
                .trim_start_matches("0x")
                .bytes()
                .all(|b| b.is_ascii_hexdigit())
    };
    assert!(
        !everything
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(long_hex),
        "{everything}"
    );
}

impl Log {
    /// Returns the number of messages that contain these words.
    fn count(&self, words: &str) -> usize {
        let lines = self.lines.lock().unwrap();
        let messages = lines
            .iter()
            .filter_map(|(_, fields)| fields.0.get("message"));
        messages.filter(|message| message.contains(words)).count()
    }
}

#[tokio::test]
async fn an_identical_request_in_flight_is_warned_of() {
    let log = Log::default();
    let _installed = tracing::subscriber::set_default(log.clone());
    let seller = open(report().fault_once(Fault::HangAfterSettle)).await;
    let client = client().build().unwrap();
    let first = tokio::spawn(client.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    let warned = "an identical request is in flight";
    assert_eq!(log.count(warned), 0);
    client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(log.count(warned), 1);
    // It pays on purpose.
    let again = client.get(seller.url("/report")).allow_duplicate();
    again.send().await.unwrap();
    assert_eq!(log.count(warned), 1);
    first.abort();
}

#[test]
fn a_second_ledger_in_memory_for_one_wallet_is_warned_of_once() {
    let log = Log::default();
    let _installed = tracing::subscriber::set_default(log.clone());
    let warned = "a second ledger in memory";
    let key = |digit: char| SecretString::from(digit.to_string().repeat(64));
    let build = |digit, ledger: &Ledger| {
        let signer = LocalSigner::from_hex(&key(digit)).unwrap();
        let client = paywall::client().signer(signer).ledger(ledger.clone());
        client.build().unwrap()
    };
    let shared = Ledger::memory();
    for _ in 0..3 {
        build('7', &shared);
        build('8', &shared);
    }
    assert_eq!(log.count(warned), 0);
    // The first one is gone: a client for each request has no limits.
    for expected in [1, 1, 1] {
        build('7', &Ledger::memory());
        assert_eq!(log.count(warned), expected);
    }
    build('8', &Ledger::memory());
    assert_eq!(log.count(warned), 2);
}
