//! The example on async-openai, against sellers that behave and that do not.
#![expect(dead_code, reason = "the example has a main of its own")]

#[path = "../examples/async_openai.rs"]
mod example;

use std::time::Duration;

use async_openai::error::OpenAIError;
use async_openai::middleware::HttpRequestFactory;
use async_openai::middleware::retry::OpenAIRetryLayer;
use bursar::{ErrorKind, PaymentStatus, Policy, PurchaseOptions, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{ChatReply, Fault, Gate, OpenAi, Paywall};
use example::{ask, paying, payment_error, stream};
use futures::{FutureExt, StreamExt};
use tower::{Service, ServiceBuilder, service_fn};

async fn open(model: OpenAi) -> Paywall {
    Paywall::builder().routes(model).start().await.unwrap()
}

/// Returns a service that pays and boxes the errors of bursar, without the retries of async-openai.
fn boxing(
    client: &bursar::Client,
) -> impl Service<HttpRequestFactory, Response = reqwest::Response, Error = OpenAIError, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    let paid = client.clone();
    service_fn(move |request: HttpRequestFactory| {
        let client = paid.clone();
        async move {
            let answer = client.execute(request.build().await?).await;
            answer.map_err(|error| OpenAIError::Boxed(error.into()))
        }
    })
}

/// Returns a client with a new wallet and this policy.
fn limited(policy: Policy) -> bursar::Client {
    bursar::Client::builder()
        .signer(bursar::LocalSigner::random().unwrap())
        .policy(policy)
        .ledger(bursar::Ledger::memory())
        .allow_http_loopback(true)
        .build()
        .unwrap()
}

#[tokio::test]
async fn async_openai_pays_for_an_answer_in_one_piece() {
    let seller = open(OpenAi::new().price(usd!("0.002"))).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());
    assert_eq!(ask(&openai, "hello").await.unwrap(), "You said: hello");

    let settled = seller.settlements();
    let purchases = frameworks::purchases(&client).await.unwrap();
    assert_eq!((settled.len(), purchases.len()), (1, 1));
    assert_eq!(settled[0].authorization.value, 2_000);
    assert_eq!(purchases[0].value, settled[0].authorization.value);
}

#[tokio::test]
async fn async_openai_receives_a_paid_stream_piece_by_piece() {
    let gate = Gate::closed();
    let seller = open(OpenAi::new().gate(&gate)).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());

    // The role and two words come through. The rest waits until the client has read them.
    gate.open(3);
    let (sender, mut pieces) = futures::channel::mpsc::unbounded();
    let reading = stream(&openai, "hello there", move |piece| {
        sender.unbounded_send(piece.to_owned()).unwrap();
    });
    let reader = async {
        let mut text = String::new();
        while text != "You said: " {
            text.push_str(&pieces.next().await.unwrap());
        }
        assert!(pieces.next().now_or_never().is_none());
        gate.open_all();
        text + &pieces.collect::<String>().await
    };
    let (read, text) = futures::join!(reading, reader);
    read.unwrap();
    assert_eq!(text, "You said: hello there");
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_denial_reaches_the_caller_of_async_openai_as_bursars_own_error() {
    let seller = open(OpenAi::new().price(usd!("0.06"))).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());
    let error = ask(&openai, "hello").await.unwrap_err();
    let error = payment_error(&error).unwrap();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Denied, PaymentStatus::NotPaid)
    );
    let error = stream(&openai, "hello", |_| {}).await.unwrap_err();
    assert_eq!(payment_error(&error).unwrap().kind(), ErrorKind::Denied);
    assert_eq!(seller.settlements().len(), 0);
}

#[tokio::test]
async fn a_lost_answer_of_async_openai_is_paid_once() {
    let model =
        OpenAi::new().paid_route(|route| route.idempotent().fault_once(Fault::DropAfterSettle));
    let seller = open(model).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());
    assert_eq!(ask(&openai, "hello").await.unwrap(), "You said: hello");
    assert_eq!(seller.settlements().len(), 1);
}

/// The retries that async-openai makes on its own are outside of bursar here.
#[tokio::test]
async fn the_retry_layer_of_async_openai_pays_once() {
    let model = OpenAi::new()
        .paid_route(|route| route.idempotent().fault_once(Fault::StatusAfterSettle(500)));
    let seller = open(model).await;
    let client = frameworks::client().unwrap();
    let service = ServiceBuilder::new()
        .layer(OpenAIRetryLayer::default())
        .service(boxing(&client));
    let openai = paying(&client, seller.url("/v1").as_str()).with_http_service(service);
    assert_eq!(ask(&openai, "hello").await.unwrap(), "You said: hello");
    assert_eq!(seller.settlements().len(), 1);
    assert_eq!(frameworks::purchases(&client).await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_error_of_the_model_is_not_paid() {
    let seller =
        open(OpenAi::new().reply(|_| ChatReply::error(400, "invalid_request_error", "no"))).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());
    let error = ask(&openai, "hello").await.unwrap_err();
    assert!(matches!(error, OpenAIError::ApiError(_)), "{error:?}");
    assert!(error.to_string().contains("invalid_request_error"));
    assert_eq!(seller.settlements().len(), 0);
}

#[tokio::test]
async fn many_calls_of_async_openai_share_one_limit() {
    let seller = open(OpenAi::new().price(usd!("0.01"))).await;
    let policy = Policy::new()
        .allow_network("base-sepolia")
        .per_day(usd!("0.05"));
    let client = limited(policy);
    let openai = paying(&client, seller.url("/v1").as_str());
    let prompts: Vec<_> = (0..12).map(|number| format!("question {number}")).collect();
    let calls = prompts.iter().map(|prompt| ask(&openai, prompt));
    let answers = futures::future::join_all(calls).await;
    let (answered, denied): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((answered.len(), denied.len()), (5, 7));
    assert_eq!(seller.settlements().len(), 5);
}

#[tokio::test]
async fn a_server_error_of_async_openai_after_a_payment_keeps_the_payment_status() {
    for (fault, status) in [
        (Fault::StatusAfterSettle(500), PaymentStatus::MaybePaid),
        (Fault::StatusWithReceipt(503), PaymentStatus::Paid),
    ] {
        let seller = open(OpenAi::new().paid_route(move |route| route.fault(fault.clone()))).await;
        let client = frameworks::client().unwrap();
        let openai = paying(&client, seller.url("/v1").as_str());
        let error = ask(&openai, "hello").await.unwrap_err();
        let error = payment_error(&error).unwrap();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Status, status)
        );
        let error = stream(&openai, "and now", |_| {}).await.unwrap_err();
        assert_eq!(payment_error(&error).unwrap().payment_status(), status);
        assert_eq!(seller.settlements().len(), 2);
    }
}

#[tokio::test]
async fn a_broken_answer_of_async_openai_keeps_the_payment_status() {
    let model = OpenAi::new().paid_route(|route| route.fault(Fault::BrokenBodyAfterSettle));
    let seller = open(model).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());
    let error = ask(&openai, "hello").await.unwrap_err();
    let error = payment_error(&error).unwrap();
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    assert!(error.purchase_id().is_some());
}

#[tokio::test]
async fn a_stream_of_async_openai_that_breaks_is_paid_once_when_it_is_asked_for_again() {
    let model = OpenAi::new()
        .paid_route(|route| route.idempotent().fault_once(Fault::BrokenBodyAfterSettle));
    let seller = open(model).await;
    let client = frameworks::client().unwrap();
    let openai = paying(&client, seller.url("/v1").as_str());
    assert!(stream(&openai, "hello there", |_| {}).await.is_err());
    let mut text = String::new();
    let again = stream(&openai, "hello there", |piece| text.push_str(piece)).await;
    again.unwrap();
    assert_eq!(text, "You said: hello there");
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn bursars_error_is_found_behind_a_layer_that_boxes_the_errors_of_async_openai() {
    let seller = open(OpenAi::new().price(usd!("0.06"))).await;
    let client = frameworks::client().unwrap();
    let service = ServiceBuilder::new()
        .map_err(tower::BoxError::from)
        .service(boxing(&client));
    let openai = paying(&client, seller.url("/v1").as_str()).with_http_service(service);
    let error = ask(&openai, "hello").await.unwrap_err();
    assert_eq!(payment_error(&error).unwrap().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn agents_of_async_openai_have_a_limit_each_and_wait_for_room() {
    let seller = open(OpenAi::new().price(usd!("0.002"))).await;
    let policy = Policy::new()
        .allow_network("base-sepolia")
        .exposure(usd!("0.006"))
        .each_agent(|agent| agent.per_day(usd!("0.02")));
    let client = limited(policy);
    let base_url = seller.url("/v1");
    let agents = ["reader", "writer"].map(|name| {
        let options = PurchaseOptions::new()
            .agent(name)
            .tag("research")
            .max_price(usd!("0.002"))
            .wait_for_room(Duration::from_secs(60));
        paying(&client.with_options(options), base_url.as_str())
    });
    let prompts: Vec<_> = (0..12).map(|number| format!("question {number}")).collect();
    let calls = prompts
        .iter()
        .flat_map(|prompt| agents.iter().map(move |agent| ask(agent, prompt)));
    let answers = futures::future::join_all(calls).await;
    // Ten questions of each agent fit into its two cents. The exposure held none of them back for good.
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 20);
    let purchases = frameworks::purchases(&client).await.unwrap();
    for name in ["reader", "writer"] {
        let of_agent = |purchase: &&bursar::Purchase| {
            purchase.agent.as_deref() == Some(name) && purchase.tag.as_deref() == Some("research")
        };
        assert_eq!(purchases.iter().filter(of_agent).count(), 10);
    }
    assert_eq!(seller.settlements().len(), 20);
}
