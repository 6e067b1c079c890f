//! Requests and responses: methods, bodies and streams.

use bursar::ledger::State;
use bursar::primitives::U256;
use bursar::{ErrorKind, PaymentStatus, ResponseExt, usd};
use bursar_testing::Route;
use bursar_tests::paywall::{open, payments_sent, purchases, report};

use crate::client;

#[tokio::test]
async fn a_free_page_is_free() {
    let seller = open(Route::get("/free").body("hello")).await;
    let client = client();
    let response = client.get(seller.url("/free")).send().await.unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.payment(),
            response.receipt().is_none()
        ),
        (PaymentStatus::NotPaid, None, true)
    );
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!(seller.requests().len(), 1);
    assert!(purchases(&client).await.is_empty());
}

#[tokio::test]
async fn a_paid_page_is_paid_once_and_booked_as_signed() {
    for route in [
        report(),
        report().v1(),
        report().v1_and_v2(),
        report().upfront(),
    ] {
        let seller = open(route).await;
        let client = client();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let receipt = response.receipt().unwrap().clone();
        assert_eq!(response.text().await.unwrap(), "the report");

        let settled = seller.settlements();
        assert_eq!(settled.len(), 1);
        assert_eq!(
            (settled[0].transaction, settled[0].authorization.value),
            (receipt.transaction(), U256::from(10_000))
        );

        let purchases = purchases(&client).await;
        assert_eq!(purchases.len(), 1);
        let purchase = &purchases[0];
        assert_eq!(
            (purchase.state, purchase.transaction),
            (State::Settled, Some(receipt.transaction()))
        );
        assert_eq!(
            (purchase.nonce, purchase.payee, purchase.value),
            (
                settled[0].authorization.nonce,
                settled[0].authorization.to,
                settled[0].authorization.value
            )
        );
        assert_eq!(
            (purchase.usd, purchase.status),
            (Some(usd!("0.01")), Some(200))
        );
    }
}

#[tokio::test]
async fn every_verb_and_builder_method_reaches_the_seller_twice_the_same() {
    let seller = open(Route::any("/echo").price(usd!("0.01")).echo()).await;
    let client = client();
    let url = || seller.url("/echo");
    for request in [
        client
            .get(url())
            .query(&[("q", "a b")])
            .header("x-mine", "1"),
        client
            .post(url())
            .json(&serde_json::json!({ "a": 1 }))
            .bearer_auth("token"),
        client
            .put(url())
            .form(&[("a", "1")])
            .basic_auth("user", Some("password")),
        client.patch(url()).body("text"),
        client.delete(url()).headers(
            [("x-many".parse().unwrap(), "2".parse().unwrap())]
                .into_iter()
                .collect(),
        ),
        client
            .request(reqwest::Method::OPTIONS, url())
            .version(reqwest::Version::HTTP_11),
    ] {
        let before = seller.requests().len();
        assert_eq!(
            request.send().await.unwrap().payment_status(),
            PaymentStatus::Paid
        );
        let requests = seller.requests();
        let [first, second] = &requests[before..] else {
            panic!("{requests:?}")
        };
        assert_eq!(
            (&first.method, &first.target, &first.body),
            (&second.method, &second.target, &second.body)
        );
        for (name, value) in &first.headers {
            assert_eq!(second.headers.get(name), Some(value));
        }
        assert_eq!(second.headers["cache-control"], "no-store");
    }
    let head = client.head(seller.url("/echo")).send().await.unwrap();
    assert_eq!(head.payment_status(), PaymentStatus::Paid);
}

#[tokio::test]
async fn a_request_can_be_cloned_built_and_executed() {
    let seller = open(report()).await;
    let client = client();
    let request = client
        .get(seller.url("/report"))
        .tag("t")
        .purchase_id("order-1");
    let copy = request.try_clone().unwrap().build().unwrap();
    assert_eq!(copy.request().url().path(), "/report");
    client.execute(copy).await.unwrap();
    assert_eq!(purchases(&client).await[0].tag.as_deref(), Some("t"));
    client
        .execute(reqwest::Request::new(
            reqwest::Method::GET,
            seller.url("/report"),
        ))
        .await
        .unwrap();
    assert_eq!(seller.settlements().len(), 2);
    assert_eq!(
        client
            .get(seller.url("/report"))
            .purchase_id("not an id")
            .send()
            .await
            .unwrap_err()
            .kind(),
        ErrorKind::Builder
    );
}

#[tokio::test]
async fn a_stream_is_not_paid_for_unless_it_can_be_made_again() {
    let seller = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let client = client();
    let stream = || reqwest::Body::wrap_stream(tokio_stream(["a", "b"]));

    let error = client
        .post(seller.url("/echo"))
        .body(stream())
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NotReplayable, PaymentStatus::NotPaid)
    );
    assert_eq!(
        error.price_check().unwrap().best().unwrap().dollars(),
        Some(usd!("0.01"))
    );
    assert!(purchases(&client).await.is_empty(), "nothing is held");
    assert_eq!(payments_sent(&seller), 0);

    let response = client
        .post(seller.url("/echo"))
        .body_fn(stream)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "ab")
    );
}

#[tokio::test]
async fn a_multipart_form_is_made_again_with_a_boundary_of_its_own() {
    let seller = open(Route::post("/echo").price(usd!("0.01")).echo()).await;
    let form = || {
        reqwest::multipart::Form::new()
            .text("field", "value")
            .part("file", reqwest::multipart::Part::bytes(vec![0, 159]))
    };
    let response = client()
        .post(seller.url("/echo"))
        .multipart_fn(form)
        .send()
        .await
        .unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let boundary = kind.split("boundary=").nth(1).unwrap();
    let body = response.bytes().await.unwrap();
    assert!(
        body.windows(boundary.len())
            .any(|window| window == boundary.as_bytes()),
        "{kind}"
    );
    let error = client()
        .post(seller.url("/echo"))
        .multipart(form())
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::NotReplayable, PaymentStatus::NotPaid)
    );
}

/// A stream without the futures crate.
fn tokio_stream(
    parts: [&'static str; 2],
) -> impl futures_core::Stream<Item = Result<&'static str, std::io::Error>> {
    struct Parts(std::array::IntoIter<&'static str, 2>);
    impl futures_core::Stream for Parts {
        type Item = Result<&'static str, std::io::Error>;
        fn poll_next(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Self::Item>> {
            std::task::Poll::Ready(self.0.next().map(Ok))
        }
    }
    Parts(parts.into_iter())
}

#[tokio::test]
async fn a_paid_body_streams_before_it_is_complete() {
    let seller = open(
        Route::get("/events")
            .price(usd!("0.01"))
            .events(["1", "2", "3"]),
    )
    .await;
    let mut response = client().get(seller.url("/events")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    assert_eq!(
        String::from_utf8(text).unwrap(),
        "data: 1\n\ndata: 2\n\ndata: 3\n\n"
    );
}
