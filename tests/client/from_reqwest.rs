//! Code that was written for reqwest: a client without a wallet, its builder, and bodies that break.

use std::collections::BTreeSet;
use std::time::Duration;

use bursar::ledger::State;
use bursar::reqwest::header::{HeaderMap, HeaderValue};
use bursar::{Client, Error, ErrorKind, PaymentStatus, PurchaseOptions, ResponseExt, reqwest, usd};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{
    client, client_without_wallet, http, open, open_all, purchases, report,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn a_client_without_a_wallet_states_the_price_and_how_to_pay() {
    let paywall = open(report()).await;
    let client = client_without_wallet().build().unwrap();
    let error = client.get(paywall.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NoWallet, PaymentStatus::NotPaid)
    );
    let text = error.to_string();
    for part in ["0.01 USDC", "a signer, a policy and a ledger", "no_payment"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(error.price_check().unwrap().offers.len(), 1);

    // As with reqwest, if the caller wants the 402 itself.
    let plain = client.with_options(PurchaseOptions::new().no_payment());
    let response = plain.get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(response.status().as_u16(), 402);
    assert!(response.error_for_status().is_err());
}

#[tokio::test]
async fn a_new_client_sends_requests_over_https_and_has_no_wallet() {
    let client = Client::new();
    assert!(client.payer().is_none());
    assert_eq!(
        format!("{client:?}"),
        format!("{:?}", Client::builder().build().unwrap())
    );
    let insecure = client.get("http://127.0.0.1:9/").send().await.unwrap_err();
    assert_eq!(insecure.kind(), ErrorKind::Insecure);
    let relative = Client::default().get("/report").send().await.unwrap_err();
    assert_eq!(relative.kind(), ErrorKind::Builder);
}

#[tokio::test]
async fn settings_of_the_builder_reach_the_wire() {
    let paywall = open(report()).await;
    let headers = HeaderMap::from_iter([(
        "x-team".parse().unwrap(),
        HeaderValue::from_static("research"),
    )]);
    let client = client()
        .user_agent("my-agent/1.0")
        .default_headers(headers)
        .connect_timeout(Duration::from_secs(5))
        .read_timeout(Duration::from_secs(5))
        .pool_idle_timeout(Duration::from_secs(5))
        .pool_max_idle_per_host(2)
        .tcp_keepalive(None)
        .tcp_nodelay(true)
        .no_proxy()
        .http1_only()
        .build()
        .unwrap();
    client.get(paywall.url("/report")).send().await.unwrap();
    let requests = paywall.requests();
    assert_eq!(requests.len(), 2);
    for request in requests {
        assert_eq!(request.headers["user-agent"], "my-agent/1.0");
        assert_eq!(request.headers["x-team"], "research");
    }
}

#[test]
fn a_payment_among_the_default_headers_is_an_error_of_the_builder() {
    for name in ["payment-signature", "x-payment", "X_PAYMENT"] {
        let headers = HeaderMap::from_iter([(
            name.parse().unwrap(),
            HeaderValue::from_static("made elsewhere"),
        )]);
        let error = Client::builder().default_headers(headers).build();
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Builder);
        assert!(error.to_string().contains("only bursar sets"), "{error}");
    }
}

async fn broken() -> Paywall {
    open(report().idempotent().fault(Fault::BrokenBodyAfterSettle)).await
}

#[tokio::test]
async fn an_error_of_a_paid_body_says_that_it_is_paid() {
    let paywall = broken().await;
    let client = client().build().unwrap();
    let get = || client.get(paywall.url("/report")).send();
    let response = get().await.unwrap();
    let error = response.read_text().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Body, PaymentStatus::Paid),
        "{error}"
    );
    assert!(error.receipt().is_some() && error.purchase_id().is_some());
    assert!(
        error
            .to_string()
            .starts_with("paid: the body of the answer broke"),
        "{error}"
    );
    // The same request presents the payment again.

    let error = get().await.unwrap().read_bytes().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    let error = get().await.unwrap().read_json::<Value>().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    let mut response = get().await.unwrap();
    let error = loop {
        match response.read_chunk().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the body is complete"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    assert_eq!(purchases(&client).await.len(), 1);
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn reqwests_error_of_a_paid_body_carries_the_payment() {
    let paywall = broken().await;
    let client = client().build().unwrap();
    let response = client.get(paywall.url("/report")).send().await.unwrap();
    let purchase = response.payment().unwrap().purchase.clone();
    let error: reqwest::Error = response.text().await.unwrap_err();
    let error = Error::find_in(&error).unwrap();
    assert_eq!(
        (error.payment_status(), error.purchase_id()),
        (PaymentStatus::Paid, Some(&purchase))
    );
    assert_eq!(purchases(&client).await[0].state, State::Settled);
}

#[tokio::test]
async fn a_body_that_is_not_the_expected_json_keeps_the_payment_and_hides_the_query() {
    let paywall = open_json(r#"{"temperature":"sk-secret-1234 degrees"}"#).await;
    let client = client().build().unwrap();
    let url = paywall.url("/report?key=sk-secret-1234");
    let response = client.get(url).send().await.unwrap();
    let error = response.read_json::<Vec<u8>>().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Body, PaymentStatus::Paid)
    );
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("not the expected JSON"), "{shown}");
    assert!(!shown.contains("sk-secret"), "{shown}");

    #[derive(serde::Deserialize, Debug)]
    struct Weather {
        #[expect(dead_code, reason = "the type does not fit")]
        temperature: u64,
    }
    let url = paywall.url("/report?key=sk-secret-1234");
    let response = client.get(url).send().await.unwrap();
    let error = response.read_json::<Weather>().await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(shown.contains("invalid type"), "{shown}");
    assert!(!shown.contains("sk-secret"), "{shown}");
}

async fn open_json(body: &'static str) -> Paywall {
    open(Route::get("/report").price(usd!("0.01")).body(body)).await
}

#[tokio::test]
async fn whole_bodies_are_read_as_reqwest_reads_them() {
    let paywall = open_json(r#"{"temperature":21}"#).await;
    let client = client().build().unwrap();
    let get = || client.get(paywall.url("/report")).send();
    let text = get().await.unwrap().read_text().await.unwrap();
    assert_eq!(text, r#"{"temperature":21}"#);
    let bytes = get().await.unwrap().read_bytes().await.unwrap();
    assert_eq!(bytes, text.as_bytes());
    let json: Value = get().await.unwrap().read_json().await.unwrap();
    assert_eq!(json, json!({"temperature": 21}));
    let mut response = get().await.unwrap();
    let mut read = Vec::new();
    while let Some(chunk) = response.read_chunk().await.unwrap() {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, text.as_bytes());
}

/// The answers of an error to the questions of `reqwest::Error`.
macro_rules! answers {
    ($error:expr) => {{
        let error = $error;
        (
            error.is_timeout(),
            error.is_connect(),
            error.is_request(),
            error.is_decode(),
            error.is_status(),
            error.is_builder(),
            error.status(),
        )
    }};
}

/// Starts a server that answers each connection with these bytes, and then closes it or leaves it open.
async fn raw_server(answer: &'static str, stays_open: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut connection, _)) = listener.accept().await {
            drop(connection.read(&mut [0; 4096]).await);
            drop(connection.write_all(answer.as_bytes()).await);
            if stays_open {
                open.push(connection);
            }
        }
    });
    address.to_string()
}

#[tokio::test]
async fn an_error_answers_the_questions_of_reqwests_error_as_reqwest_does() {
    let ok = |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n{body}").leak();
    let missing = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
    let refused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let refused = refused.local_addr().unwrap();
    let cases = [
        ("no server", format!("http://{refused}/")),
        (
            "no TLS",
            format!("https://{}/", raw_server("no TLS", false).await),
        ),
        (
            "no answer",
            format!("http://{}/", raw_server("", false).await),
        ),
        (
            "a late answer",
            format!("http://{}/", raw_server("", true).await),
        ),
        (
            "a late body",
            format!("http://{}/", raw_server(ok("[1,"), true).await),
        ),
        (
            "a broken body",
            format!("http://{}/", raw_server(ok("[1,"), false).await),
        ),
        (
            "other JSON",
            format!("http://{}/", raw_server(ok("{\"a\":1}"), false).await),
        ),
        (
            "an error status",
            format!("http://{}/", raw_server(missing, false).await),
        ),
        ("a bad URL", "/relative".to_owned()),
    ];
    let limit = Duration::from_millis(500);
    let plain = http().timeout(limit).build().unwrap();
    let client = client_without_wallet().timeout(limit).build().unwrap();
    for (case, url) in &cases {
        let expected = async {
            let answer = plain.get(url).send().await?.error_for_status()?;
            answer.json::<Vec<u8>>().await
        };
        let found = async {
            let answer = client.get(url).send().await?.error_for_payment()?;
            answer.read_json::<Vec<u8>>().await
        };
        let (expected, found) = tokio::join!(expected, found);
        let (expected, found) = (expected.unwrap_err(), found.unwrap_err());
        assert_eq!(answers!(&found), answers!(&expected), "{case}: {found}");
    }
}

/// A module as it was written for reqwest.
#[path = "../../examples/from_reqwest/before.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is code of a user")]
mod before;

/// The same module with bursar.
#[path = "../../examples/from_reqwest/after.rs"]
#[expect(unreachable_pub, reason = "it is code of a user")]
mod after;

async fn weather_seller(price: Option<bursar::Usd>) -> Paywall {
    let priced = |route: Route| match price {
        Some(price) => route.price(price),
        None => route,
    };
    let forecast = r#"{"city":"Paris","degrees":[21,23]}"#;
    open_all([
        priced(Route::get("/forecast").body(forecast)),
        priced(Route::post("/describe").body("warm")),
    ])
    .await
}

#[tokio::test]
async fn a_module_for_reqwest_works_the_same_and_pays_after_it_has_moved() {
    let free = weather_seller(None).await;
    let base = |paywall: &Paywall| paywall.url("").as_str().trim_end_matches('/').to_owned();
    let old = before::Weather::with_client(reqwest::Client::new(), &base(&free));
    let expected = old.forecast("Paris").await.unwrap();
    assert_eq!(old.describe(&expected).await.unwrap(), "warm");

    let plain = client_without_wallet().build().unwrap();
    let new = after::Weather::with_client(plain, &base(&free));
    let forecast = new.forecast("Paris").await.unwrap();
    assert_eq!(
        (&forecast.city, &forecast.degrees),
        (&expected.city, &expected.degrees)
    );
    assert_eq!(new.describe(&forecast).await.unwrap(), "warm");
    assert!(after::Weather::new("https://api.example.com").is_ok());

    let paid = weather_seller(Some(usd!("0.01"))).await;
    let wallet = client().build().unwrap();
    let new = after::Weather::with_client(wallet, &base(&paid));
    let forecast = new.forecast("Paris").await.unwrap();
    assert_eq!(new.describe(&forecast).await.unwrap(), "warm");
    assert_eq!(paid.settlements().len(), 2);

    let without = client_without_wallet().build().unwrap();
    let without = after::Weather::with_client(without, &base(&paid));
    match without.forecast("Paris").await.unwrap_err() {
        after::WeatherError::Payment(error) => assert_eq!(error.kind(), ErrorKind::NoWallet),
        other => panic!("{other}"),
    }
}

#[test]
fn moving_a_module_changes_its_imports_and_adds_one_variant_of_its_error() {
    let before = include_str!("../../examples/from_reqwest/before.rs");
    let after = include_str!("../../examples/from_reqwest/after.rs");
    assert!((60..80).contains(&before.lines().count()));
    let lines = |text: &'static str| text.lines().collect::<BTreeSet<&str>>();
    let (old, new) = (lines(before), lines(after));
    let removed: Vec<_> = old.difference(&new).collect();
    let added: Vec<_> = new.difference(&old).collect();
    assert!(
        removed.iter().all(|line| line.starts_with("use ")),
        "{removed:?}"
    );
    let (imports, variants): (Vec<&&str>, Vec<&&str>) =
        added.into_iter().partition(|line| line.starts_with("use "));
    assert_eq!(imports.len(), 3);
    assert_eq!(variants, [&"    Payment(#[from] bursar::Error),"]);
}
