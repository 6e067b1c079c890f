//! The example of a stack of reqwest-middleware with retries and tracing.
#![expect(dead_code, reason = "the example has a main of its own")]

#[path = "../examples/reqwest_middleware.rs"]
mod example;

use std::time::Duration;

use bursar::middleware::{self, PaymentMiddleware};
use bursar::{ErrorKind, PaymentStatus, PurchaseOptions, ResponseExt, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{Fault, Paywall, Route};
use example::stack;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::policies::ExponentialBackoff;

fn quick(client: &bursar::Client) -> ClientWithMiddleware {
    let payer = client.payer().unwrap().clone();
    let payments = PaymentMiddleware::new(payer).allow_http_loopback(true);
    let retries = ExponentialBackoff::builder()
        .retry_bounds(Duration::ZERO, Duration::from_millis(1))
        .build_with_max_retries(3);
    stack(payments, retries).unwrap()
}

async fn open(fault: Fault) -> Paywall {
    let route = Route::get("/report").price(usd!("0.01")).body("the report");
    let route = route.idempotent().fault_once(fault);
    Paywall::builder().route(route).start().await.unwrap()
}

#[tokio::test]
async fn retries_beneath_the_payment_pay_once() {
    for fault in [
        Fault::TermsWithStatus(503),
        Fault::StatusBeforeSettle(500),
        Fault::StatusAfterSettle(500),
        Fault::DropAfterSettle,
    ] {
        let seller = open(fault.clone()).await;
        let client = frameworks::client().unwrap();
        let request = quick(&client).get(seller.url("/report"));
        let request = request.with_extension(PurchaseOptions::new().tag("research"));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.payment_status(), PaymentStatus::Paid, "{fault:?}");
        assert_eq!(answer.text().await.unwrap(), "the report");
        let purchases = frameworks::purchases(&client).await.unwrap();
        assert_eq!(
            (purchases.len(), seller.settlements().len()),
            (1, 1),
            "{fault:?}"
        );
        assert_eq!(purchases[0].tag.as_deref(), Some("research"));
    }
}

#[tokio::test]
async fn bursars_error_is_found_in_the_error_of_the_stack() {
    let route = Route::get("/report").price(usd!("0.06"));
    let seller = Paywall::builder().route(route).start().await.unwrap();
    let client = frameworks::client().unwrap();
    let error = quick(&client)
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(middleware::error(&error).unwrap().kind(), ErrorKind::Denied);
    assert_eq!(seller.settlements().len(), 0);
}
