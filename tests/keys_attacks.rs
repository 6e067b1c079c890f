//! Attacks on calls by key: keys that leak, money that is lost from sight, limits that are passed by.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bursar::credential::{CallPlan, KeySource, KeySourceError, Preference};
use bursar::ledger::{Filter, State};
use bursar::policy::{Permission, Rule};
use bursar::secrecy::SecretString;
use bursar::{
    Client, ClientBuilder, Credential, Credentials, ErrorKind, Ledger, LocalSigner, PaymentStatus,
    Policy, ResponseExt, RetryPolicy, Usd, usd,
};
use bursar_testing::{Fault, Paywall, Route};

fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
}

fn client(credential: Credential) -> ClientBuilder {
    Client::builder()
        .http(
            reqwest::Client::builder()
                .tls_backend_rustls()
                .tls_certs_only([]),
        )
        .allow_http_loopback(true)
        .retry_policy(RetryPolicy::once())
        .signer(LocalSigner::random().unwrap())
        .policy(policy())
        .ledger(Ledger::memory())
        .credentials(Credentials::new().host("127.0.0.1", credential))
}

fn key(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn bearer() -> Credential {
    Credential::bearer("example", key("right"))
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .accepts_key("authorization", "Bearer right")
}

async fn open(route: Route) -> Paywall {
    Paywall::builder().route(route).start().await.unwrap()
}

fn keyed(seller: &Paywall) -> usize {
    seller
        .requests()
        .iter()
        .filter(|request| request.header("authorization").is_some())
        .count()
}

async fn costs(client: &Client) -> Vec<(State, Usd)> {
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    purchases
        .iter()
        .map(|entry| (entry.state, entry.usd.unwrap()))
        .collect()
}

/// A payment that was taken and answered 403 is told, and no call by key covers it up.
#[tokio::test]
async fn an_answer_that_was_paid_for_is_not_replaced_by_a_call() {
    for status in [401, 403] {
        let seller = open(report().fault(Fault::StatusAfterSettle(status))).await;
        let client = client(bearer().prefer(Preference::PayFirst))
            .build()
            .unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(seller.settlements().len(), 1);
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (status, PaymentStatus::MaybePaid)
        );
        assert!(response.payment().is_some());
        assert_eq!(keyed(&seller), 0, "no key was sent after the payment");
    }
}

/// Sellers that add a slash keep the query, and with it the key.
#[tokio::test]
async fn a_redirect_that_repeats_the_key_does_not_show_it() {
    let seller = Paywall::builder()
        .route(Route::get("/report").redirect("/report/?a=1&key=s3cret&key=s3cret"))
        .route(Route::get("/report/").body("the report"))
        .route(Route::get("/only").redirect("/report/?key=s3cret"))
        .route(Route::get("/closed").redirect("/admin?key=s3cret"))
        .start()
        .await
        .unwrap();
    let credential = Credential::query("example", "key", key("s3cret"));
    let permitted = policy().permit(
        Permission::new()
            .path("/report*")
            .path("/report/")
            .path("/only")
            .path("/closed"),
    );
    let client = client(credential).policy(permitted).build().unwrap();
    let response = client.get(seller.url("/report?a=1")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().query()),
        (200, Some("a=1"))
    );
    assert_eq!(
        seller.requests().last().unwrap().target,
        "/report/?a=1&key=s3cret"
    );
    let response = client.get(seller.url("/only")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().query()),
        (200, None)
    );
    let error = client.get(seller.url("/closed")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Permission);
    assert!(
        !format!("{error} {error:?} {:?}", error.url()).contains("s3cret"),
        "{error:?}"
    );
}

/// A vault that does not answer holds no call beyond the caller's time.
#[tokio::test]
async fn a_key_that_does_not_come_ends_with_the_callers_time() {
    struct Hangs;
    impl KeySource for Hangs {
        async fn key(&self) -> Result<Option<SecretString>, KeySourceError> {
            std::future::pending().await
        }
    }
    let seller = open(report()).await;
    for preference in [Preference::KeyFirst, Preference::NeverPay] {
        let client = client(Credential::bearer("vault", Hangs).prefer(preference))
            .build()
            .unwrap();
        let sent = client
            .get(seller.url("/report"))
            .timeout(Duration::from_millis(50))
            .send();
        let error = tokio::time::timeout(Duration::from_secs(20), sent)
            .await
            .unwrap()
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Timeout, PaymentStatus::NotPaid)
        );
        assert!(error.to_string().contains("vault"), "{error}");
    }
    assert!(seller.requests().is_empty());
}

/// One call is included; of several at once only one may be had for nothing, and the limit holds.
#[tokio::test]
async fn calls_at_the_same_time_do_not_share_what_the_plan_includes_once() {
    let directory = tempfile::tempdir().unwrap();
    let books = Ledger::sqlite(directory.path().join("books.db")).unwrap();
    let seller = open(report()).await;
    let plan = CallPlan::per_call(usd!("0.01")).included(1);
    let limited = policy().rolling(Duration::from_secs(86_400), usd!("0.02"));
    let client = client(bearer().plan(plan))
        .policy(limited)
        .ledger(books)
        .build()
        .unwrap();
    let call = || async {
        client
            .get(seller.url("/report"))
            .send()
            .await
            .map(|response| response.status().as_u16())
    };
    let (one, two, three, four, five) = tokio::join!(call(), call(), call(), call(), call());
    let answers = [one, two, three, four, five];
    let made = answers
        .iter()
        .filter(|answer| matches!(answer, Ok(200)))
        .count();
    let refused = |answer: &&Result<u16, bursar::Error>| {
        answer.as_ref().is_err_and(|error| {
            error
                .denial()
                .is_some_and(|denial| denial.rule == Rule::Rolling)
        })
    };
    assert_eq!((made, answers.iter().filter(refused).count()), (3, 2));
    assert_eq!(keyed(&seller), 3);
    let counted = costs(&client)
        .await
        .into_iter()
        .filter(|(state, _)| *state == State::ApiCall);
    let mut counted: Vec<Usd> = counted.map(|(_, cost)| cost).collect();
    counted.sort_unstable();
    assert_eq!(counted, [Usd::ZERO, usd!("0.01"), usd!("0.01")]);
}

/// A key with a line break never leaves; what never left does not count.
#[tokio::test]
async fn a_key_that_cannot_be_sent_costs_nothing_and_is_not_shown() {
    let seller = open(report()).await;
    let broken =
        Credential::bearer("example", key("s3c\nret")).plan(CallPlan::per_call(usd!("0.002")));
    let client = client(broken).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Credential, PaymentStatus::NotPaid)
    );
    assert!(!format!("{error} {error:?}").contains("s3c"));
    assert_eq!(costs(&client).await, [(State::Voided, usd!("0.002"))]);
    assert!(seller.requests().is_empty());
}

/// Whoever may not pay has the key alone, whichever way is preferred.
#[tokio::test]
async fn a_request_that_may_not_pay_goes_by_key() {
    for preference in [
        Preference::KeyFirst,
        Preference::PayFirst,
        Preference::NeverPay,
        Preference::Cheapest,
    ] {
        let seller = open(report()).await;
        let plan = CallPlan::per_call(usd!("0.04"));
        let client = client(bearer().prefer(preference).plan(plan))
            .build()
            .unwrap();
        let response = client
            .get(seller.url("/report"))
            .no_payment()
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (200, PaymentStatus::NotPaid),
            "{preference:?}"
        );
        assert_eq!((keyed(&seller), seller.settlements().len()), (1, 0));
    }
}

/// An order to stop holds for calls by key, and so does the price that the caller allows.
#[tokio::test]
async fn an_order_to_stop_and_a_price_hold_for_calls() {
    let seller = open(report()).await;
    let client = client(bearer().plan(CallPlan::per_call(usd!("0.002"))))
        .build()
        .unwrap();
    let dear = client
        .get(seller.url("/report"))
        .max_price(usd!("0.001"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(dear.denial().unwrap().rule, Rule::MaxPrice);
    client.ledger().unwrap().freeze("enough").await.unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Frozen);
    assert!(seller.requests().is_empty());
}

/// A purchase whose answer was lost is taken up under its id, though the key would do by now.
#[tokio::test]
async fn a_key_does_not_come_between_a_purchase_and_its_answer() {
    let seller = open(
        report()
            .key_spent_after(0, 429)
            .idempotent()
            .fault_once(Fault::DropAfterSettle),
    )
    .await;
    let client = client(bearer()).build().unwrap();
    let call = || {
        client
            .get(seller.url("/report"))
            .purchase_id("order-1")
            .send()
    };
    assert_eq!(
        call().await.unwrap_err().payment_status(),
        PaymentStatus::MaybePaid
    );
    let response = call().await.unwrap();
    assert_eq!(
        (response.payment_status(), seller.settlements().len()),
        (PaymentStatus::Paid, 1)
    );
    assert_eq!(
        keyed(&seller),
        1,
        "the second time the purchase comes before the key"
    );
}
