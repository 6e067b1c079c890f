//! The example of a tower stack.
#![expect(dead_code, reason = "the example has a main of its own")]

#[path = "../examples/tower_stack.rs"]
mod example;

use bursar::reqwest::{Body, Response};
use bursar::tower::PaymentLayer;
use bursar::{PaymentStatus, ResponseExt, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{Fault, OpenAi, Paywall, Route};
use example::{payments, stack, translate};
use tower::ServiceExt;

fn layer(client: &bursar::Client) -> PaymentLayer {
    PaymentLayer::new(client.payer().unwrap().clone()).allow_http_loopback(true)
}

#[tokio::test]
async fn a_tower_stack_pays_with_its_options() {
    let route = Route::post("/translate").price(usd!("0.01")).echo();
    let seller = Paywall::builder().route(route).start().await.unwrap();
    let client = frameworks::client().unwrap();
    let url = seller.url("/translate");
    let answer = translate(payments(&client).unwrap(), url.as_str(), "hello").await;
    let answer = answer.unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert_eq!(answer.text().await.unwrap(), "hello");
    let purchases = frameworks::purchases(&client).await.unwrap();
    assert_eq!(purchases[0].tag.as_deref(), Some("translation"));
    assert_eq!(purchases[0].agent.as_deref(), Some("translator"));
    assert_eq!((purchases.len(), seller.settlements().len()), (1, 1));
}

#[tokio::test]
async fn many_calls_of_a_tower_stack_each_pay_once() {
    let model =
        OpenAi::new().paid_route(|route| route.idempotent().fault_once(Fault::DropAfterSettle));
    let seller = Paywall::builder().routes(model).start().await.unwrap();
    let client = frameworks::client().unwrap();
    let service = stack(layer(&client)).unwrap();
    let calls = (0..20).map(|number| {
        let body = format!(
            r#"{{"model":"gpt-test","messages":[{{"role":"user","content":"{number}"}}]}}"#
        );
        let url = seller.url("/v1/chat/completions");
        let request = http::Request::post(url.as_str())
            .body(Body::from(body))
            .unwrap();
        service.clone().oneshot(request)
    });
    for answer in futures::future::join_all(calls).await {
        assert_eq!(
            Response::from(answer.unwrap()).payment_status(),
            PaymentStatus::Paid
        );
    }
    assert_eq!(seller.settlements().len(), 20);
}
