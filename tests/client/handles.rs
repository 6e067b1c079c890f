//! Handles of a client: with other options, another policy and another key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::clock::{Clock, SystemClock};
use bursar::policy::Rule;
use bursar::{
    Client, Error, ErrorKind, LocalSigner, PaymentStatus, PurchaseOptions, Request, ResponseExt,
    reqwest, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::clock::{MINUTE, TestClock};
use bursar_tests::paywall::{client, open, payments_sent, policy, purchases, report};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn denied_by(result: Result<reqwest::Response, Error>) -> Rule {
    result.unwrap_err().denial().unwrap().rule
}

/// The agents and tags of the client's purchases, oldest first.
async fn names(client: &Client) -> Vec<(Option<String>, Option<String>)> {
    let purchases = purchases(client).await.into_iter();
    purchases
        .map(|purchase| (purchase.agent, purchase.tag))
        .collect()
}

fn name(agent: &str, tag: &str) -> (Option<String>, Option<String>) {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    (some(agent), some(tag))
}

#[tokio::test]
async fn a_handle_has_options_of_its_own_and_shares_the_rest() {
    let paywall = open(report()).await;
    let client = client().agent("agent").build().unwrap();
    let url = || paywall.url("/report");
    let handle = client.with_options(PurchaseOptions::new().agent("researcher").tag("research"));
    let inner = handle.with_options(PurchaseOptions::new().tag("inner"));

    client.get(url()).send().await.unwrap();
    handle.get(url()).send().await.unwrap();
    handle.get(url()).tag("own").send().await.unwrap();
    inner.get(url()).send().await.unwrap();
    inner.get(url()).agent("guest").send().await.unwrap();
    assert_eq!(
        names(&client).await,
        [
            name("agent", ""),
            name("researcher", "research"),
            name("researcher", "own"),
            name("researcher", "inner"),
            name("guest", "inner"),
        ]
    );
}

/// A server that answers every request with 200, and counts its connections.
async fn counting_server() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut head = Vec::new();
                while let Ok(byte) = stream.read_u8().await {
                    head.push(byte);
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        stream.write_all(answer).await.unwrap();
                    }
                }
            });
        }
    });
    (url, count)
}

#[tokio::test]
async fn all_handles_of_a_client_use_the_same_connections() {
    let (url, connections) = counting_server().await;
    let client = client().build().unwrap();
    let key = LocalSigner::random().unwrap();
    for handle in [
        client.clone(),
        client.with_options(PurchaseOptions::new().tag("x")),
        client.with_policy(policy()).unwrap(),
        client.with_signer(key).unwrap(),
        client,
    ] {
        let response = handle.get(&url).send().await.unwrap();
        assert_eq!(response.text().await.unwrap(), "ok");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn no_request_exceeds_the_maximum_of_its_client() {
    let paywall = open(report()).await;
    let client = client()
        .default_options(PurchaseOptions::new().max_price(usd!("0.02")))
        .build()
        .unwrap();
    let url = || paywall.url("/report");
    client.get(url()).max_price(usd!("5")).send().await.unwrap();
    let careful = client.with_options(PurchaseOptions::new().max_price(usd!("0.005")));
    for request in [
        careful.get(url()),
        careful.get(url()).max_price(usd!("5")),
        careful.get(url()).options(PurchaseOptions::new()),
        client.get(url()).max_price(usd!("0.001")),
    ] {
        assert_eq!(denied_by(request.send().await), Rule::MaxPrice);
    }
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn a_client_that_pays_nothing_returns_the_402_for_every_request() {
    let paywall = open(report()).await;
    let client = client().build().unwrap();
    let silent = client.with_options(PurchaseOptions::new().no_payment());
    for request in [
        silent.get(paywall.url("/report")),
        silent
            .get(paywall.url("/report"))
            .options(PurchaseOptions::new().tag("x")),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (402, PaymentStatus::NotPaid)
        );
    }
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn a_request_that_reqwest_built_takes_every_option() {
    let paywall = open(report()).await;
    let client = client().build().unwrap();
    let request = || {
        let request = reqwest::Request::new(reqwest::Method::GET, paywall.url("/report"));
        Request::from(request)
    };
    let denied = client.execute(request().max_price(usd!("0.001"))).await;
    assert_eq!(denied_by(denied), Rule::MaxPrice);
    let silent = client.execute(request().no_payment()).await.unwrap();
    assert_eq!(silent.status().as_u16(), 402);

    let named = || request().tag("llm").agent("writer").purchase_id("order-1");
    client.execute(named()).await.unwrap();
    assert_eq!(names(&client).await, [name("writer", "llm")]);
    assert_eq!(
        purchases(&client).await.remove(0).id.as_str(),
        "order-1",
        "the id of the request names the purchase"
    );
    let invalid = client.execute(request().purchase_id("a b")).await;
    assert_eq!(invalid.unwrap_err().kind(), ErrorKind::Builder);

    let again = request()
        .allow_duplicate()
        .options(PurchaseOptions::new().tag("second"));
    client.execute(again).await.unwrap();
    assert_eq!(names(&client).await.remove(1), name("", "second"));
    assert_eq!(paywall.settlements().len(), 2);
}

#[tokio::test]
async fn the_extensions_of_an_http_request_hold_its_options() {
    let paywall = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let client = client().build().unwrap();
    let mut request = http::Request::post(paywall.url("/echo").as_str())
        .body("text")
        .unwrap();
    let options = PurchaseOptions::new().tag("llm").agent("writer");
    request.extensions_mut().insert(options);
    let request = Request::try_from(request).unwrap().tag("own");
    let response = client.execute(request).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "text");
    assert_eq!(names(&client).await, [name("writer", "own")]);

    let relative = http::Request::get("/report").body("").unwrap();
    let error = Request::try_from(relative).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);
}

#[tokio::test]
async fn limits_and_permissions_of_an_agent_hold_for_the_agent_of_an_option() {
    let paywall = open(report()).await;
    let limited = policy().agent_limits("researcher", |agent| agent.per_day(usd!("0.01")));
    let client = client().policy(limited).build().unwrap();
    let url = || paywall.url("/report");
    let researcher = client.with_options(PurchaseOptions::new().agent("researcher"));
    researcher.get(url()).send().await.unwrap();
    assert_eq!(denied_by(researcher.get(url()).send().await), Rule::Rolling);
    let named = client.get(url()).agent("researcher");
    assert_eq!(denied_by(named.send().await), Rule::Rolling);
    client.get(url()).send().await.unwrap();
    assert_eq!(paywall.settlements().len(), 2);
}

async fn remembering(paywall: &Paywall, clock: &TestClock) -> Client {
    let client = client()
        .policy(policy().remember_terms(Duration::from_secs(600)))
        .clock(clock.clone())
        .build()
        .unwrap();
    client.get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(paywall.requests().len(), 2);
    client.get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(paywall.requests().len(), 3, "the terms are remembered");
    client
}

#[tokio::test]
async fn a_new_policy_keeps_ledger_and_remembered_terms_and_holds_for_later_calls() {
    let paywall = open(report()).await;
    let clock = TestClock::starting_at(SystemClock.now());
    let client = remembering(&paywall, &clock).await;
    let url = || paywall.url("/report");
    let remember = |policy: bursar::Policy| policy.remember_terms(Duration::from_secs(600));

    let same = client.with_policy(remember(policy())).unwrap();
    same.get(url()).send().await.unwrap();
    assert_eq!(
        paywall.requests().len(),
        4,
        "the terms are still remembered"
    );
    assert_eq!(purchases(&same).await.len(), 3);

    // The three purchases count under the new limit, also at remembered terms.
    let tight = client
        .with_policy(remember(policy().per_day(usd!("0.03"))))
        .unwrap();
    assert_eq!(denied_by(tight.get(url()).send().await), Rule::Rolling);
    let cheap = client.with_policy(remember(policy().per_payment(usd!("0.005"))));
    let denied = cheap.unwrap().get(url()).send().await;
    assert_eq!(denied_by(denied), Rule::PerPayment);
    // The old handle keeps its policy.
    client.get(url()).send().await.unwrap();
    assert_eq!(paywall.settlements().len(), 4);

    let error = client.with_policy(policy().host_limits("https://x.com/", |host| host));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Builder);
    let error = Client::new().with_policy(policy()).unwrap_err();
    assert!(error.to_string().contains("no wallet"), "{error}");
}

#[tokio::test]
async fn terms_are_remembered_no_longer_than_the_policy_of_today_allows() {
    let paywall = open(report()).await;
    let clock = TestClock::starting_at(SystemClock.now());
    let client = remembering(&paywall, &clock).await;
    let asked = || {
        let requests = paywall.requests().into_iter();
        requests.filter(|request| request.payment.is_none()).count()
    };
    assert_eq!(asked(), 1);
    clock.advance(MINUTE);
    let shorter = client
        .with_policy(policy().remember_terms(Duration::from_secs(30)))
        .unwrap();
    shorter.get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(asked(), 2, "terms of a minute ago are too old");
    let none = client.with_policy(policy()).unwrap();
    none.get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(asked(), 3, "the new policy remembers nothing");
}

#[tokio::test]
async fn a_new_key_pays_under_the_same_ledger_and_policy() {
    let paywall = open(report()).await;
    let client = client()
        .policy(policy().per_day(usd!("0.02")))
        .build()
        .unwrap();
    let url = || paywall.url("/report");
    client.get(url()).send().await.unwrap();
    let key = LocalSigner::random().unwrap();
    let address = key.address();
    let rotated = client.with_signer(key).unwrap();
    let response = rotated.get(url()).send().await.unwrap();
    assert_eq!(response.payment().unwrap().payer, address);
    assert_eq!(rotated.payer().unwrap().address(), address);
    assert_eq!(denied_by(rotated.get(url()).send().await), Rule::Rolling);
    let bought = purchases(&client).await;
    assert_ne!(bought[0].payer, bought[1].payer);
}

#[tokio::test]
async fn a_new_key_is_not_stopped_by_the_empty_wallet_of_the_old_one() {
    let empty = Fault::FailureReason("insufficient_funds".to_owned());
    let paywall = open(Route::get("/x/*").price(usd!("0.01")).fault(empty)).await;
    let client = client().build().unwrap();
    for number in 0..3 {
        let request = client.get(paywall.url(&format!("/x/{number}")));
        request.send().await.unwrap_err();
    }
    let denied = client.get(paywall.url("/x/4")).send().await;
    assert_eq!(denied_by(denied), Rule::WalletEmpty);
    let rotated = client.with_signer(LocalSigner::random().unwrap()).unwrap();
    let error = rotated.get(paywall.url("/x/5")).send().await.unwrap_err();
    assert!(error.denial().is_none(), "{error}");
    assert_eq!(payments_sent(&paywall), 4);
}
