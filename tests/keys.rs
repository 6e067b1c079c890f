//! API keys beside payments: which of the two reached the seller, and what the books hold of it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use bursar::credential::{CallPlan, FileKey, KeySource, KeySourceError, Preference};
use bursar::ledger::{Filter, LedgerError, State};
use bursar::policy::{Permission, Rule};
use bursar::secrecy::SecretString;
use bursar::{
    Client, ClientBuilder, Credential, Credentials, ErrorKind, Ledger, LocalSigner, PaymentStatus,
    Policy, Purchase, ResponseExt, RetryPolicy, Timestamp, Usd, usd,
};
use bursar_testing::{Paywall, Route};

const DAY: Duration = Duration::from_secs(86_400);

fn bare() -> ClientBuilder {
    Client::builder()
        .http(
            reqwest::Client::builder()
                .tls_backend_rustls()
                .tls_certs_only([]),
        )
        .allow_http_loopback(true)
        .retry_policy(RetryPolicy {
            initial_backoff: Duration::ZERO,
            ..RetryPolicy::default()
        })
}

fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
}

fn client() -> ClientBuilder {
    bare()
        .signer(LocalSigner::random().unwrap())
        .policy(policy())
        .ledger(Ledger::memory())
}

async fn open(route: Route) -> Paywall {
    Paywall::builder().route(route).start().await.unwrap()
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .accepts_key("authorization", "Bearer right")
}

fn key(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn bearer(text: &str) -> Credential {
    Credential::bearer("example", key(text))
}

fn keys(credential: Credential) -> Credentials {
    Credentials::new().host("127.0.0.1", credential)
}

/// How each request came: by key, by payment or with neither.
fn ways(seller: &Paywall) -> Vec<&'static str> {
    let way = |request: bursar_testing::Received| match (
        request.header("authorization"),
        &request.payment,
    ) {
        (Some(_), Some(_)) => panic!("a payment went out with a key"),
        (Some(_), None) => "key",
        (None, Some(_)) => "payment",
        (None, None) => "neither",
    };
    seller.requests().into_iter().map(way).collect()
}

async fn booked(client: &Client) -> Vec<(State, Usd)> {
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    purchases
        .iter()
        .map(|entry: &Purchase| (entry.state, entry.usd.unwrap()))
        .collect()
}

#[tokio::test]
async fn a_key_that_is_taken_costs_its_plan_and_no_payment() {
    let seller = open(report()).await;
    let plan = CallPlan::per_call(usd!("0.002"));
    let client = client()
        .agent("scout")
        .credentials(keys(bearer("right").plan(plan)))
        .build()
        .unwrap();
    let response = client
        .get(seller.url("/report"))
        .tag("research")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::NotPaid, "the report")
    );
    assert_eq!(
        (ways(&seller), seller.settlements().len()),
        (vec!["key"], 0)
    );
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    let [call] = purchases.as_slice() else {
        panic!("{purchases:?}")
    };
    assert_eq!(
        (call.state, call.usd, call.credential.as_deref()),
        (State::ApiCall, Some(usd!("0.002")), Some("example"))
    );
    assert_eq!(
        (call.tag.as_deref(), call.agent.as_deref()),
        (Some("research"), Some("scout"))
    );
    assert!(!format!("{purchases:?}").contains("right"));
}

#[tokio::test]
async fn a_key_that_is_turned_away_is_paid_for_and_not_counted() {
    for status in [401, 402, 403, 429] {
        let seller = open(report().key_spent_after(1, status)).await;
        let client = client()
            .credentials(keys(
                bearer("right").plan(CallPlan::per_call(usd!("0.002"))),
            ))
            .build()
            .unwrap();
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::NotPaid
        );
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::Paid,
            "{status}"
        );
        assert_eq!(
            ways(&seller),
            ["key", "key", "neither", "payment"],
            "{status}"
        );
        let expected = [
            (State::ApiCall, usd!("0.002")),
            (State::Voided, usd!("0.002")),
            (State::Settled, usd!("0.01")),
        ];
        assert_eq!(booked(&client).await, expected, "{status}");
    }
}

#[tokio::test]
async fn which_answers_are_worth_a_payment_is_the_callers_choice() {
    let seller = open(report().key_spent_after(0, 429)).await;
    let patient = client()
        .credentials(keys(bearer("right").pay_when([401, 402])))
        .build()
        .unwrap();
    let response = patient.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (
            response.status().as_u16(),
            response.payment_status(),
            ways(&seller)
        ),
        (429, PaymentStatus::NotPaid, vec!["key"])
    );
    let never = client()
        .credentials(keys(bearer("right").prefer(Preference::NeverPay)))
        .build()
        .unwrap();
    let response = never.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), seller.settlements().len()),
        (429, 0)
    );
    let paying = client().credentials(keys(bearer("right"))).build().unwrap();
    let response = paying
        .get(seller.url("/report"))
        .no_payment()
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), seller.settlements().len()),
        (429, 0)
    );
}

#[tokio::test]
async fn a_key_that_is_missing_is_paid_for_unless_that_is_forbidden() {
    struct Nothing;
    impl KeySource for Nothing {
        async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
            Ok(None)
        }
    }
    let seller = open(report()).await;
    let lacking = || Credential::bearer("example", Nothing);
    let paying = client().credentials(keys(lacking())).build().unwrap();
    assert_eq!(
        paying
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let sent = seller.requests().len();
    for credential in [
        lacking().pay_when_missing(false),
        lacking().prefer(Preference::NeverPay),
    ] {
        let client = client().credentials(keys(credential)).build().unwrap();
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Credential, PaymentStatus::NotPaid)
        );
    }
    assert_eq!(seller.requests().len(), sent, "nothing was sent");
}

#[tokio::test]
async fn paying_first_leaves_the_key_for_what_may_not_be_paid() {
    let seller = Paywall::builder()
        .route(report())
        .route(
            Route::get("/dear")
                .price(usd!("0.50"))
                .body("dear")
                .accepts_key("authorization", "Bearer right"),
        )
        .route(
            Route::get("/closed")
                .body("closed")
                .accepts_key("authorization", "Bearer right"),
        )
        .start()
        .await
        .unwrap();
    let client = client()
        .credentials(keys(bearer("right").prefer(Preference::PayFirst)))
        .build()
        .unwrap();
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let dear = client.get(seller.url("/dear")).send().await.unwrap();
    assert_eq!(
        (dear.payment_status(), dear.text().await.unwrap().as_str()),
        (PaymentStatus::NotPaid, "dear")
    );
    let closed = client.get(seller.url("/closed")).send().await.unwrap();
    assert_eq!(
        (
            closed.payment_status(),
            closed.text().await.unwrap().as_str()
        ),
        (PaymentStatus::NotPaid, "closed")
    );
    assert_eq!(
        ways(&seller),
        ["neither", "payment", "neither", "key", "neither", "key"]
    );
}

#[tokio::test]
async fn never_by_key_is_as_without_one() {
    let seller = open(report()).await;
    let client = client()
        .credentials(keys(bearer("right").prefer(Preference::NeverKey)))
        .build()
        .unwrap();
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(ways(&seller), ["neither", "payment"]);
}

#[tokio::test]
async fn the_cheaper_way_is_taken_by_the_plan_and_the_price() {
    let cheapest = |plan: CallPlan| {
        let credential = bearer("right").prefer(Preference::Cheapest).plan(plan);
        client().credentials(keys(credential)).build().unwrap()
    };
    let seller = open(report()).await;
    // Dearer by key.
    let client = cheapest(CallPlan::per_call(usd!("0.02")));
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(ways(&seller), ["neither", "payment"]);
    // Cheaper by key, and as dear: the key is had already.
    for price in [usd!("0.005"), usd!("0.01")] {
        let seller = open(report()).await;
        let client = cheapest(CallPlan::per_call(price));
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::NotPaid
        );
        assert_eq!(ways(&seller), ["neither", "key"]);
    }
    // Two calls are included, and asked for without asking the price; the third costs more than it.
    let seller = open(report()).await;
    let client = cheapest(
        CallPlan::per_call(usd!("0.02"))
            .monthly(usd!("9"))
            .included(2),
    );
    for expected in [
        PaymentStatus::NotPaid,
        PaymentStatus::NotPaid,
        PaymentStatus::Paid,
    ] {
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            expected
        );
    }
    assert_eq!(ways(&seller), ["key", "key", "neither", "payment"]);
}

#[tokio::test]
async fn a_limit_in_dollars_holds_for_calls_and_payments_together() {
    let directory = tempfile::tempdir().unwrap();
    let seller = open(report()).await;
    let limited = policy().rolling(DAY, usd!("0.03"));
    let books = Ledger::sqlite(directory.path().join("books.db")).unwrap();
    let credential = bearer("right").plan(CallPlan::per_call(usd!("0.01")));
    let caller = client()
        .policy(limited.clone())
        .ledger(books.clone())
        .credentials(keys(credential))
        .build()
        .unwrap();
    let payer = client().policy(limited).ledger(books).build().unwrap();
    caller.get(seller.url("/report")).send().await.unwrap();
    payer.get(seller.url("/report")).send().await.unwrap();
    caller.get(seller.url("/report")).send().await.unwrap();
    let sent = seller.requests().len();
    let error = caller.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::Rolling, PaymentStatus::NotPaid)
    );
    assert_eq!(
        seller.requests().len(),
        sent,
        "a call that is refused is not made"
    );
    let error = payer.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, seller.settlements().len()),
        (Rule::Rolling, 1)
    );
    let calls = Filter::all();
    let called = caller
        .ledger()
        .unwrap()
        .purchases(&calls)
        .await
        .unwrap()
        .iter()
        .filter(|entry| entry.state == State::ApiCall)
        .count();
    assert_eq!(called, 2);
}

#[tokio::test]
async fn calls_are_no_payments_to_the_limits_that_count_them() {
    let seller = open(report()).await;
    let once = policy().payments(DAY, 1).loop_guard(DAY, 1);
    let client = client()
        .policy(once)
        .credentials(keys(bearer("right")))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::NotPaid
        );
    }
    let other = seller.url("/report?paid");
    assert_eq!(
        client
            .get(other)
            .header("authorization", "my own")
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        401
    );
    assert_eq!(ways(&seller), ["key", "key", "key", "key"]);
    assert_eq!(
        booked(&client).await.len(),
        3,
        "the caller's own header is the caller's own affair"
    );
}

#[tokio::test]
async fn a_key_reaches_its_host_alone_and_follows_no_redirect_away() {
    let other = open(Route::get("/loot").body("loot")).await;
    let elsewhere = other.url("/loot");
    let seller = Paywall::builder()
        .route(Route::get("/away").redirect(elsewhere.as_ref()))
        .route(Route::get("/here").redirect("/report"))
        .route(report())
        .start()
        .await
        .unwrap();
    let origin = seller.url("/").origin().ascii_serialization();
    let client = client()
        .credentials(Credentials::new().host(&origin, bearer("right")))
        .build()
        .unwrap();
    let away = client.get(seller.url("/away")).send().await.unwrap();
    assert!(away.status().is_redirection());
    assert!(other.requests().is_empty());
    client.get(elsewhere).send().await.unwrap();
    assert_eq!(ways(&other), ["neither"], "another port is another origin");
    let here = client.get(seller.url("/here")).send().await.unwrap();
    assert_eq!(
        (here.status().as_u16(), here.url().path()),
        (200, "/report")
    );
    assert_eq!(ways(&seller), ["key", "key", "key"]);
}

#[tokio::test]
async fn a_key_in_the_query_stays_out_of_urls_errors_and_books() {
    let route = Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .accepts_key("?key", "s3cret");
    let seller = open(route).await;
    let credential = Credential::query("example", "key", key("s3cret"));
    let client = client()
        .policy(policy().store_queries())
        .credentials(keys(credential.clone()))
        .build()
        .unwrap();
    let response = client.get(seller.url("/report?a=1")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().query()),
        (200, Some("a=1"))
    );
    assert_eq!(
        seller.requests().first().unwrap().target,
        "/report?a=1&key=s3cret"
    );
    let books = format!(
        "{:?} {client:?} {response:?}",
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
    );
    assert!(!books.contains("s3cret"), "{books}");
    drop(seller);
    let closed = Paywall::builder()
        .route(Route::get("/").body(""))
        .start()
        .await
        .unwrap()
        .url("/report?a=1");
    let error = client.get(closed).send().await.unwrap_err();
    assert_eq!(error.url().unwrap().query(), Some("a=1"));
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_key_is_changed_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let seller = open(report()).await;
    let credential =
        Credential::bearer("example", FileKey::new(&file)).prefer(Preference::NeverPay);
    let client = bare().credentials(keys(credential)).build().unwrap();
    let call = || async { client.get(seller.url("/report")).send().await };
    assert_eq!(call().await.unwrap_err().kind(), ErrorKind::Credential);
    std::fs::write(&file, "wrong\n").unwrap();
    assert_eq!(call().await.unwrap().status().as_u16(), 401);
    std::fs::write(&file, "right\n").unwrap();
    assert_eq!(call().await.unwrap().status().as_u16(), 200);
    std::fs::write(&file, vec![b'x'; 100_000]).unwrap();
    assert!(
        call()
            .await
            .unwrap_err()
            .to_string()
            .contains("longer than any key")
    );
}

#[tokio::test]
async fn a_call_and_a_payment_that_are_both_refused_tell_both() {
    let seller = open(report().key_spent_after(0, 429)).await;
    let poor = policy().per_payment(usd!("0.001"));
    let client = client()
        .policy(poor)
        .credentials(keys(bearer("right")))
        .build()
        .unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (
            error.denial().unwrap().rule,
            error.status().unwrap().as_u16()
        ),
        (Rule::PerPayment, 429)
    );
    assert!(
        error
            .to_string()
            .contains("before that, the key `example` was answered 429"),
        "{error}"
    );
    let closed = open(
        Route::get("/report")
            .body("closed")
            .accepts_key("authorization", "Bearer other"),
    )
    .await;
    let response = client.get(closed.url("/report")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), ways(&closed)),
        (401, vec!["key", "neither"])
    );
}

#[tokio::test]
async fn what_is_not_permitted_is_not_sent_paid_or_not() {
    let seller = Paywall::builder()
        .route(report())
        .route(Route::any("/v1/*").body("free"))
        .route(Route::get("/start").redirect("/admin"))
        .route(Route::get("/admin").body("admin"))
        .start()
        .await
        .unwrap();
    let permitted = policy()
        .permit(
            Permission::new()
                .agent("scout")
                .host("127.0.0.1")
                .method("GET")
                .path("/v1/*")
                .path("/start"),
        )
        .permit(
            Permission::new()
                .agent("scout")
                .tag("buyer")
                .path("/report"),
        );
    let client = client()
        .policy(permitted)
        .agent("scout")
        .credentials(keys(bearer("wrong")))
        .build()
        .unwrap();
    assert_eq!(
        client
            .get(seller.url("/v1/x"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        200
    );
    assert_eq!(
        client
            .get(seller.url("/report"))
            .tag("buyer")
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let sent = seller.requests().len();
    for request in [
        client.get(seller.url("/report")),
        client.get(seller.url("/report")).tag("other"),
        client.get(seller.url("/report")).no_payment(),
        client.post(seller.url("/v1/x")),
        client.get(seller.url("/v1/x/y")),
        client.get("https://elsewhere.example/v1/x"),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(
            (error.denial().unwrap().rule, error.payment_status()),
            (Rule::Permission, PaymentStatus::NotPaid),
            "{error}"
        );
    }
    let asked = client.get(seller.url("/report")).quote().await.unwrap_err();
    assert_eq!(asked.denial().unwrap().rule, Rule::Permission);
    assert_eq!(seller.requests().len(), sent, "nothing was sent");
    let redirected = client.get(seller.url("/start")).send().await.unwrap_err();
    assert_eq!(redirected.denial().unwrap().rule, Rule::Permission);
    assert!(
        !seller
            .requests()
            .iter()
            .any(|request| request.path() == "/admin")
    );
}

#[tokio::test]
async fn a_comparison_reckons_with_what_was_really_called() {
    let days = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = {
        let days = std::sync::Arc::clone(&days);
        let start = bursar::clock::Clock::now(&bursar::clock::SystemClock).secs();
        move || {
            Timestamp::from_secs(start + 86_400 * days.load(std::sync::atomic::Ordering::SeqCst))
        }
    };
    let seller = Paywall::builder()
        .route(report().key_spent_after(3, 429))
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    let credential = bearer("right").plan(CallPlan::per_call(usd!("0.004")));
    let client = client()
        .clock(clock)
        .credentials(keys(credential))
        .build()
        .unwrap();
    for call in 0..5 {
        client.get(seller.url("/report")).send().await.unwrap();
        if call == 1 {
            // Two months on.
            days.store(62, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let plan: CallPlan = "monthly=0.05,included=1,per-call=0.001".parse().unwrap();
    let compared = client
        .ledger()
        .unwrap()
        .compare("127.0.0.1", &plan)
        .await
        .unwrap();
    assert_eq!((compared.payments, compared.paid), (2, usd!("0.02")));
    assert_eq!((compared.calls, compared.declared), (3, usd!("0.012")));
    let calls: Vec<_> = compared
        .months
        .iter()
        .map(|month| (month.calls, month.planned.unwrap()))
        .collect();
    assert_eq!(calls.first(), Some(&(2, usd!("0.051"))));
    assert_eq!(calls.last(), Some(&(3, usd!("0.052"))));
    assert!(
        calls
            .iter()
            .rev()
            .skip(1)
            .skip_while(|month| month.0 > 0)
            .all(|month| month.0 > 0 || month.1 == usd!("0.05"))
    );
    // 0.05 + (n - 1) 0.001 < 0.01 n from n = 6 on.
    assert_eq!(compared.wins_from, Some(6));
    assert!(
        client
            .ledger()
            .unwrap()
            .compare("elsewhere.example", &plan)
            .await
            .unwrap()
            .months
            .is_empty()
    );
    let refused = client
        .ledger()
        .unwrap()
        .compare("not a host", &plan)
        .await
        .unwrap_err();
    assert!(matches!(refused, LedgerError::Host(_)), "{refused}");
}
