//! The spans of the layers beneath the payment. They are alone in this program: `tracing` notes for all threads at once
//! whether a subscriber wants a span.
#![expect(dead_code, reason = "the examples have mains of their own")]

#[path = "../examples/reqwest_middleware.rs"]
mod reqwest_middleware;
#[path = "../examples/tower_stack.rs"]
mod tower_stack;

use std::time::Duration;

use bursar::middleware::PaymentMiddleware;
use bursar::reqwest::Body;
use bursar::tower::PaymentLayer;
use bursar::usd;
use bursar_frameworks as frameworks;
use bursar_testing::{Fault, Paywall, Route};
use reqwest_retry::policies::ExponentialBackoff;
use tower::ServiceExt;

#[tokio::test]
async fn each_request_on_the_wire_has_a_span_of_the_layer_beneath() {
    let spans = frameworks::Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());
    let client = frameworks::client().unwrap();
    let payer = client.payer().unwrap().clone();
    let route = Route::get("/report").price(usd!("0.01")).idempotent();
    let route = route.fault_once(Fault::DropAfterSettle);
    let seller = Paywall::builder().route(route).start().await.unwrap();

    let retries = ExponentialBackoff::builder()
        .retry_bounds(Duration::ZERO, Duration::from_millis(1))
        .build_with_max_retries(3);
    let payments = PaymentMiddleware::new(payer.clone()).allow_http_loopback(true);
    let stack = reqwest_middleware::stack(payments, retries).unwrap();
    let answer = stack.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    // Without a payment, with the payment, and the retry.
    assert_eq!(
        (spans.count("HTTP request"), seller.requests().len()),
        (3, 3)
    );

    let payments = PaymentLayer::new(payer).allow_http_loopback(true);
    let stack = tower_stack::stack(payments).unwrap();
    let request = http::Request::get(seller.url("/report?day=2").as_str()).body(Body::default());
    let answer = stack.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!((spans.count("request"), seller.requests().len()), (2, 5));
}
