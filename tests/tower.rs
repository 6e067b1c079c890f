//! The client as a service, and the payer as a layer around any HTTP service.
#![expect(clippy::unwrap_used, reason = "tests")]

use bursar::credential::Preference;
use bursar::ledger::Filter;
use bursar::policy::{Rule, SignIn};
use bursar::secrecy::SecretString;
use bursar::tower::{PaymentLayer, PaymentService};
use bursar::{
    Client, Credential, Credentials, ErrorKind, Ledger, LocalSigner, Payer, PaymentStatus, Policy,
    PurchaseOptions, Request, ResponseExt, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{open, payments_sent, report};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use reqwest::{Body, Response};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};

type Hyper = hyper_util::client::legacy::Client<HttpConnector, Body>;

fn payer() -> Payer {
    Payer::builder()
        .signer(LocalSigner::random().unwrap())
        .ledger(Ledger::memory())
        .policy(Policy::new().allow_network("base-sepolia"))
        .build()
        .unwrap()
}

fn over_hyper(layer: PaymentLayer) -> PaymentService<Hyper> {
    layer.layer(hyper())
}

fn layer() -> PaymentLayer {
    PaymentLayer::new(payer()).allow_http_loopback(true)
}

/// hyper's own client, which knows nothing of reqwest.
fn hyper() -> Hyper {
    hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http()
}

fn get(paywall: &Paywall, path: &str) -> http::Request<Body> {
    http::Request::get(paywall.url(path).as_str())
        .body(Body::default())
        .unwrap()
}

#[tokio::test]
async fn the_layer_enters_again_what_it_bought_by_a_sign_in() {
    let seller = open(report().sign_in()).await;
    let known = Policy::new()
        .allow_network("base-sepolia")
        .sign_in(SignIn::Known);
    let payer = payer().with_policy(known).unwrap();
    let layer = PaymentLayer::new(payer).allow_http_loopback(true);
    let service = over_hyper(layer);
    for status in [PaymentStatus::Paid, PaymentStatus::NotPaid] {
        let answer = service.clone().oneshot(get(&seller, "/report")).await;
        let answer = answer.unwrap();
        let answer = Response::from(answer);
        assert_eq!(answer.payment_status(), status);
        assert_eq!(answer.text().await.unwrap(), "the report");
    }
    assert_eq!(
        (seller.sign_ins().len(), seller.settlements().len()),
        (1, 1)
    );
}

#[tokio::test]
async fn the_layer_pays_over_the_client_of_hyper() {
    let paywall = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let payer = payer();
    let layer = PaymentLayer::new(payer.clone()).allow_http_loopback(true);
    let service = ServiceBuilder::new().layer(layer).service(hyper());
    let mut request = http::Request::post(paywall.url("/echo").as_str())
        .body("text")
        .unwrap();
    request
        .extensions_mut()
        .insert(PurchaseOptions::new().tag("research"));

    let answer = service.oneshot(request).await.unwrap();
    let answer = Response::from(answer);
    assert_eq!(
        (answer.payment_status(), answer.url().as_str()),
        (PaymentStatus::Paid, paywall.url("/echo").as_str())
    );
    assert_eq!(answer.text().await.unwrap(), "text");
    let purchases = payer.ledger().purchases(&Filter::all()).await.unwrap();
    let tags: Vec<_> = purchases
        .iter()
        .map(|purchase| purchase.tag.as_deref())
        .collect();
    assert_eq!(
        (tags, paywall.settlements().len()),
        (vec![Some("research")], 1)
    );
}

#[tokio::test]
async fn the_layer_presents_the_same_payment_again_after_a_lost_answer() {
    let paywall = open(report().idempotent().fault_once(Fault::DropAfterSettle)).await;
    let service = over_hyper(layer());
    let answer = service.oneshot(get(&paywall, "/report")).await.unwrap();
    assert_eq!(Response::from(answer).payment_status(), PaymentStatus::Paid);
    assert_eq!(
        (payments_sent(&paywall), paywall.settlements().len()),
        (2, 1)
    );
}

#[tokio::test]
async fn the_options_of_a_request_are_merged_with_those_of_the_layer() {
    let paywall = open(report()).await;
    let payer = payer();
    let layer = PaymentLayer::new(payer.clone()).allow_http_loopback(true);
    let cheap = PurchaseOptions::new().max_price(usd!("0.001")).tag("cheap");
    let service = over_hyper(layer.clone().default_options(cheap));
    let send = |service: PaymentService<Hyper>, options: Option<PurchaseOptions>| {
        let mut request = get(&paywall, "/report");
        request.extensions_mut().extend(
            options
                .map(|options| {
                    let mut extensions = http::Extensions::new();
                    extensions.insert(options);
                    extensions
                })
                .unwrap_or_default(),
        );
        service.oneshot(request)
    };
    // Neither without options, nor with a maximum of its own, does a request exceed the maximum of the layer.
    let generous = PurchaseOptions::new().max_price(usd!("5"));
    for options in [None, Some(PurchaseOptions::new()), Some(generous)] {
        let error = send(service.clone(), options).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.denial().unwrap().rule),
            (ErrorKind::Denied, Rule::MaxPrice)
        );
    }

    let handle = over_hyper(layer.default_options(PurchaseOptions::new().tag("cheap")))
        .with_options(PurchaseOptions::new().agent("researcher"));
    let own = PurchaseOptions::new().tag("news");
    for options in [None, Some(own)] {
        let answer = send(handle.clone(), options).await.unwrap();
        assert_eq!(Response::from(answer).payment_status(), PaymentStatus::Paid);
    }
    let purchases = payer.ledger().purchases(&Filter::all()).await.unwrap();
    let names: Vec<_> = purchases
        .iter()
        .map(|purchase| (purchase.agent.as_deref(), purchase.tag.as_deref()))
        .collect();
    let researcher = Some("researcher");
    assert_eq!(
        names,
        [(researcher, Some("cheap")), (researcher, Some("news"))]
    );
    assert_eq!(paywall.settlements().len(), 2);
}

#[tokio::test]
async fn the_layer_pays_no_host_whose_key_says_never_pay() {
    let paywall = open(report()).await;
    let key = SecretString::from("wrong".to_owned());
    let key = Credential::bearer("example", key).prefer(Preference::NeverPay);
    let keys = Credentials::new().host("127.0.0.1", key);
    let service = over_hyper(layer().credentials(keys));
    let mut request = get(&paywall, "/report");
    let own = "Bearer own".parse().unwrap();
    request.headers_mut().insert("authorization", own);
    let error = service.oneshot(request).await.unwrap_err();
    assert_eq!(
        (
            error.kind(),
            error.payment_status(),
            payments_sent(&paywall)
        ),
        (ErrorKind::Denied, PaymentStatus::NotPaid, 0)
    );
}

#[tokio::test]
async fn the_layer_refuses_private_addresses_if_it_is_told_so() {
    let service = over_hyper(PaymentLayer::new(payer()).deny_private_networks());
    let request = http::Request::get("https://10.0.0.1/report");
    let error = service
        .oneshot(request.body(Body::default()).unwrap())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Insecure, "{error}");
}

#[tokio::test]
async fn the_layer_pays_nothing_over_plain_http_and_without_an_absolute_url() {
    let paywall = open(report()).await;
    let service = over_hyper(PaymentLayer::new(payer()));
    let error = service
        .clone()
        .oneshot(get(&paywall, "/report"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), paywall.requests().len()),
        (ErrorKind::Insecure, 0)
    );

    let relative = http::Request::get("/report").body(Body::default()).unwrap();
    let error = service.oneshot(relative).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);
}

#[tokio::test]
async fn a_failure_of_the_service_beneath_is_an_error_that_says_whether_money_moved() {
    let failing = tower::service_fn(|_: http::Request<Body>| async {
        Err::<http::Response<Body>, _>(std::io::Error::other(
            "no way to https://a.example/?key=SECRET",
        ))
    });
    let service = ServiceBuilder::new().layer(layer()).service(failing);
    let request = http::Request::get("https://api.example.com/report");
    let error = service
        .oneshot(request.body(Body::default()).unwrap())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Transport, PaymentStatus::NotPaid)
    );
}

#[tokio::test]
async fn a_request_that_cannot_be_repeated_is_not_paid_by_the_layer() {
    let paywall = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let body = Body::wrap(Body::from("text"));
    let request = http::Request::post(paywall.url("/echo").as_str())
        .body(body)
        .unwrap();
    let error = layer().layer(hyper()).oneshot(request).await.unwrap_err();
    assert_eq!(
        (
            error.kind(),
            error.payment_status(),
            payments_sent(&paywall)
        ),
        (ErrorKind::NotReplayable, PaymentStatus::NotPaid, 0)
    );
}

#[tokio::test]
async fn the_client_is_a_service_by_value_and_by_reference() {
    let paywall = open(report()).await;
    let client = Client::builder()
        .payer(payer())
        .allow_http_loopback(true)
        .build()
        .unwrap();
    let url = paywall.url("/report");
    let request = reqwest::Request::new(reqwest::Method::GET, url.clone());
    let answer = client.clone().oneshot(request).await.unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);

    let request: Request = client.get(url).tag("research").build().unwrap();
    let mut service = &client;
    let answer = Service::<Request>::call(&mut service, request)
        .await
        .unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert_eq!(paywall.settlements().len(), 2);
}
