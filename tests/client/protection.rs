//! Protection of money and secrets: redirects, networks, oversized answers and log output.

use bursar::{Client, ErrorKind, Ledger, PaymentStatus, ResponseExt, usd};
use bursar_testing::{Fault, Route};
use bursar_tests::paywall::{open, open_all, policy, purchases, report};
use bursar_tests::signatures::{KEY, wallet};

use crate::client;

#[tokio::test]
async fn redirects_are_followed_within_the_origin_before_payment_and_never_after() {
    let elsewhere = open(report()).await;
    let here = open_all([
        report(),
        Route::any("/moved").redirect("/report"),
        Route::get("/away").redirect(elsewhere.url("/report").as_str()),
        Route::get("/trap")
            .price(usd!("0.01"))
            .fault(Fault::RedirectAfterPayment(elsewhere.url("/report"))),
    ])
    .await;
    let client = client();

    let response = client.get(here.url("/moved")).send().await.unwrap();
    assert_eq!(
        (response.url().path(), response.payment_status()),
        ("/report", PaymentStatus::Paid)
    );

    let response = client.get(here.url("/away")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (307, PaymentStatus::NotPaid)
    );

    let response = client.get(here.url("/trap")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (307, PaymentStatus::MaybePaid)
    );
    assert!(
        elsewhere.requests().is_empty(),
        "nothing reached the other origin"
    );
}

#[tokio::test]
async fn a_redirected_post_repeats_or_drops_its_body_as_the_status_says() {
    let seller = open_all([
        Route::any("/echo").price(usd!("0.01")).echo(),
        Route::post("/see-other").redirect("/echo").status(303),
        Route::post("/temporary").redirect("/echo").status(307),
    ])
    .await;
    let client = client();
    let kept = client
        .post(seller.url("/temporary"))
        .body("content")
        .send()
        .await
        .unwrap();
    assert_eq!(kept.text().await.unwrap(), "content");
    client
        .post(seller.url("/see-other"))
        .body("content")
        .send()
        .await
        .unwrap();
    let last = seller.requests().pop().unwrap();
    assert_eq!((last.method.as_str(), last.body.len()), ("GET", 0));
}

#[tokio::test]
async fn plain_http_is_refused_unless_loopback_is_allowed() {
    let seller = open(report()).await;
    let strict = Client::builder()
        .signer(wallet())
        .policy(policy())
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let error = strict.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Insecure, PaymentStatus::NotPaid)
    );
    let error = client()
        .get("http://example.invalid/")
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Insecure);
    assert!(seller.requests().is_empty());
}

#[tokio::test]
async fn private_networks_are_refused_on_request_behind_names_too() {
    let client = Client::builder().deny_private_networks().build().unwrap();
    for url in [
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://[::ffff:192.168.0.1]/",
    ] {
        assert_eq!(
            client.get(url).send().await.unwrap_err().kind(),
            ErrorKind::Insecure,
            "{url}"
        );
    }
    // The name resolves; the resolver inside the connector gives out none of its addresses.
    let error = client.get("https://localhost/").send().await.unwrap_err();
    let chain = format!("{error:?}");
    assert!(chain.contains("denies private networks"), "{chain}");
}

#[tokio::test]
async fn bombs_are_not_read() {
    let seller = open(report().fault(Fault::HangingBody402)).await;
    let response = client().get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        response.payment_status(),
        PaymentStatus::Paid,
        "a body that the header makes unnecessary is not waited for"
    );

    let seller = open(report().fault(Fault::HugeBody402(64 * 1024 * 1024))).await;
    assert_eq!(
        client()
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );

    let seller = open(report().v1().fault(Fault::HugeBody402(2 * 1024 * 1024))).await;
    let error = client()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid)
    );

    let seller = open(report().fault(Fault::HugeHeader(100 * 1024))).await;
    let error = client()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid)
    );
}

#[cfg(feature = "gzip")]
#[tokio::test]
async fn a_compressed_bomb_is_measured_as_it_unpacks() {
    use std::io::Write;
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed
        .write_all(br#"{"x402Version":1,"accepts":[],"error":""#)
        .unwrap();
    packed.write_all(&vec![b' '; 64 * 1024 * 1024]).unwrap();
    packed.write_all(br#""}"#).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 128 * 1024);
    let bomb = Route::get("/bomb")
        .status(402)
        .header("content-type", "application/json");
    let seller = open(bomb.header("content-encoding", "gzip").body(packed)).await;
    let error = client().get(seller.url("/bomb")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Malformed, PaymentStatus::NotPaid),
        "{error}"
    );
}

#[tokio::test]
async fn the_payment_header_is_marked_sensitive() {
    let seller = open(report()).await;
    let client = client();
    let url = seller.url("/report");
    let price_check = client
        .get(url.clone())
        .quote()
        .await
        .unwrap()
        .priced()
        .unwrap();
    let request = bursar::PurchaseRequest::new("GET", url.as_str(), b"").unwrap();
    let payment = client
        .payer()
        .unwrap()
        .authorize(&price_check.required, &request)
        .await
        .unwrap();
    let (name, value) = payment.header().unwrap();
    assert_eq!(
        (name.as_str(), value.is_sensitive()),
        ("payment-signature", true)
    );
}

#[tokio::test]
async fn neither_key_nor_signature_nor_query_is_in_what_the_client_says() {
    let seller = open(report().fault(Fault::DropAfterSettle)).await;
    let client = client();
    let mut url = seller.url("/report");
    url.set_query(Some("email=secret@example.com"));
    let error = client.get(url).send().await.unwrap_err();
    let purchases = purchases(&client).await;
    let mut exported = Vec::new();
    bursar::ledger::write_csv(&purchases, &mut exported).unwrap();
    bursar::ledger::write_jsonl(&purchases, &mut exported).unwrap();
    let said = format!(
        "{client:?} {error} {error:?} {purchases:?} {}",
        String::from_utf8(exported).unwrap()
    );

    let header = seller.requests().pop().unwrap().headers["payment-signature"]
        .to_str()
        .unwrap()
        .to_owned();
    let payment = seller
        .requests()
        .pop()
        .unwrap()
        .payment
        .unwrap()
        .json
        .unwrap();
    let signature = payment["payload"]["signature"].as_str().unwrap();
    for secret in [
        KEY.trim_start_matches("0x"),
        &header,
        signature,
        "secret@example",
    ] {
        assert!(!said.contains(secret), "{secret} in {said}");
    }
}
