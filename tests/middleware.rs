//! The payer under reqwest-middleware: the client's rules hold in a stack too.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bursar::credential::Preference;
use bursar::ledger::Filter;
use bursar::middleware::{self, PaymentMiddleware, http_client};
use bursar::policy::{Rule, SignIn};
use bursar::secrecy::SecretString;
use bursar::{
    Credential, Credentials, ErrorKind, Ledger, LocalSigner, Payer, PaymentStatus, Policy,
    PurchaseOptions, ResponseExt, usd,
};
use bursar_testing::{Fault, Route};
use bursar_tests::paywall::{open, payments_sent, report};
use bursar_tests::recorder::Recorder;
use reqwest::{Request, Response};
use reqwest_middleware::{ClientWithMiddleware, Middleware, Next};

fn payer() -> Payer {
    let builder = Payer::builder()
        .signer(LocalSigner::random().unwrap())
        .ledger(Ledger::memory());
    builder
        .policy(Policy::new().allow_network("base-sepolia"))
        .build()
        .unwrap()
}

fn stack(payer: &Payer, http: reqwest::Client) -> ClientWithMiddleware {
    let payments = PaymentMiddleware::new(payer.clone()).allow_http_loopback(true);
    reqwest_middleware::ClientBuilder::new(http)
        .with(payments)
        .build()
}

fn safe() -> reqwest::Client {
    http_client(reqwest::Client::builder()).unwrap()
}

#[tokio::test]
async fn a_stack_enters_again_what_it_bought_by_a_sign_in() {
    let seller = open(report().sign_in()).await;
    let known = Policy::new()
        .allow_network("base-sepolia")
        .sign_in(SignIn::Known);
    let payer = payer().with_policy(known).unwrap();
    let client = stack(&payer, safe());
    for status in [PaymentStatus::Paid, PaymentStatus::NotPaid] {
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), status);
        assert_eq!(response.text().await.unwrap(), "the report");
    }
    let unsigned = PurchaseOptions::new().no_sign_in();
    let request = client.get(seller.url("/report")).with_extension(unsigned);
    let response = request.send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    assert_eq!(
        (seller.sign_ins().len(), seller.settlements().len()),
        (1, 2)
    );
}

#[tokio::test]
async fn pays_with_the_options_of_the_request() {
    let paywall = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let payer = payer();
    let client = stack(&payer, safe());
    let tagged = PurchaseOptions::new()
        .tag("research")
        .purchase_id("order-1");
    let response = client
        .post(paywall.url("/echo"))
        .body("text")
        .with_extension(tagged)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "text")
    );
    let purchases = payer.ledger().purchases(&Filter::all()).await.unwrap();
    assert_eq!(
        (purchases.len(), purchases.first().unwrap().tag.as_deref()),
        (1, Some("research"))
    );

    let unpaid = PurchaseOptions::new().no_payment();
    let response = client
        .post(paywall.url("/echo"))
        .with_extension(unpaid)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (402, PaymentStatus::NotPaid)
    );

    let tight = PurchaseOptions::new().max_price(usd!("0.001"));
    let failure = client
        .post(paywall.url("/echo"))
        .with_extension(tight)
        .send()
        .await
        .unwrap_err();
    let error = middleware::error(&failure).unwrap();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::MaxPrice)
    );
    assert_eq!(paywall.settlements().len(), 1);
}

#[tokio::test]
async fn a_stack_sends_plain_http_through_no_proxy() {
    let proxy = Recorder::start().await;
    let paywall = open(report()).await;
    let behind = || reqwest::Client::builder().proxy(reqwest::Proxy::all(proxy.url()).unwrap());
    let payments = || PaymentMiddleware::new(payer()).allow_http_loopback(true);
    let built = middleware::client(behind(), payments()).unwrap().build();
    let safe = stack(&payer(), http_client(behind()).unwrap());
    for client in [built, safe] {
        let response = client.get(paywall.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
    }
    assert_eq!(proxy.heads(), [""; 0]);

    // bursar did not build this client, and sees the proxy only in the answer.
    let strange = stack(&payer(), behind().build().unwrap());
    let failure = strange.get(paywall.url("/report")).send().await;
    let failure = failure.unwrap_err();
    let error = middleware::error(&failure).unwrap();
    assert_eq!(error.kind(), ErrorKind::Insecure, "{error}");
    assert_eq!(proxy.heads().len(), 1, "only the request without a payment");
}

#[tokio::test]
async fn a_stack_pays_no_host_whose_key_says_never_pay() {
    let paywall = open(report()).await;
    let key = SecretString::from("wrong".to_owned());
    let key = Credential::bearer("example", key).prefer(Preference::NeverPay);
    let payments = PaymentMiddleware::new(payer())
        .allow_http_loopback(true)
        .credentials(Credentials::new().host("127.0.0.1", key));
    let client = middleware::client(reqwest::Client::builder(), payments);
    let client = client.unwrap().build();
    let own = client
        .get(paywall.url("/report"))
        .header("authorization", "Bearer own");
    let failure = own.send().await.unwrap_err();
    let error = middleware::error(&failure).unwrap();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Denied, PaymentStatus::NotPaid)
    );
    assert_eq!(payments_sent(&paywall), 0);
}

#[tokio::test]
async fn a_second_402_is_an_error_and_no_second_payment() {
    let paywall = open(report().fault(Fault::DoublePrice)).await;
    let failure = stack(&payer(), safe())
        .get(paywall.url("/report"))
        .send()
        .await
        .unwrap_err();
    let error = middleware::error(&failure).unwrap();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Rejected, PaymentStatus::MaybePaid)
    );
    assert_eq!(payments_sent(&paywall), 1);
}

#[tokio::test]
async fn a_402_behind_a_redirect_that_the_stack_followed_is_not_paid() {
    let elsewhere = open(report()).await;
    let paywall = open(Route::get("/away").redirect(elsewhere.url("/report").as_str())).await;
    let failure = stack(&payer(), reqwest::Client::new())
        .get(paywall.url("/away"))
        .send()
        .await
        .unwrap_err();
    let error = middleware::error(&failure).unwrap();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Insecure, PaymentStatus::NotPaid)
    );
    assert_eq!((payments_sent(&paywall), payments_sent(&elsewhere)), (0, 0));
}

/// Sends every request twice, as a retry does.
struct Twice(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for Twice {
    async fn handle(
        &self,
        request: Request,
        extensions: &mut http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<Response> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let again = request.try_clone().unwrap();
        drop(next.clone().run(request, extensions).await?);
        next.run(again, extensions).await
    }
}

#[tokio::test]
async fn a_retry_beneath_repeats_one_payment() {
    let paywall = open(report().idempotent()).await;
    let payments = PaymentMiddleware::new(payer()).allow_http_loopback(true);
    let sent = Arc::new(AtomicUsize::new(0));
    let client = reqwest_middleware::ClientBuilder::new(safe())
        .with(payments)
        .with(Twice(Arc::clone(&sent)))
        .build();
    let response = client.get(paywall.url("/report")).send().await.unwrap();
    assert_eq!(
        (response.payment_status(), sent.load(Ordering::SeqCst)),
        (PaymentStatus::Paid, 2)
    );
    assert_eq!(
        (payments_sent(&paywall), paywall.settlements().len()),
        (2, 1)
    );
}

#[tokio::test]
async fn handles_of_the_middleware_have_options_and_a_policy_of_their_own() {
    let paywall = open(report()).await;
    let payer = payer();
    let payments = PaymentMiddleware::new(payer.clone())
        .allow_http_loopback(true)
        .default_options(PurchaseOptions::new().max_price(usd!("0.05")).tag("llm"));
    let researcher = payments.with_options(PurchaseOptions::new().agent("researcher"));
    let built = |payments: &PaymentMiddleware| {
        let client = middleware::client(reqwest::Client::builder(), payments.clone());
        client.unwrap().build()
    };
    let get = |client: &ClientWithMiddleware| client.get(paywall.url("/report"));
    let stack = built(&researcher);
    get(&stack).send().await.unwrap();
    let own = PurchaseOptions::new().tag("news").max_price(usd!("9"));
    get(&stack).with_extension(own).send().await.unwrap();
    let purchases = payer.ledger().purchases(&Filter::all()).await.unwrap();
    let names: Vec<_> = purchases
        .iter()
        .map(|purchase| (purchase.agent.as_deref(), purchase.tag.as_deref()))
        .collect();
    let agent = Some("researcher");
    assert_eq!(names, [(agent, Some("llm")), (agent, Some("news"))]);

    let tight = Policy::new()
        .allow_network("base-sepolia")
        .per_day(usd!("0.02"));
    let tight = researcher.with_policy(tight).unwrap();
    let failure = get(&built(&tight)).send().await.unwrap_err();
    let error = middleware::error(&failure).unwrap();
    assert_eq!(error.denial().unwrap().rule, Rule::Rolling);

    let key = LocalSigner::random().unwrap();
    let address = key.address();
    let response = get(&built(&researcher.with_signer(key))).send().await;
    assert_eq!(response.unwrap().payment().unwrap().payer, address);
    assert_eq!(paywall.settlements().len(), 3);
}
