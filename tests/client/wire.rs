//! The way of plain http: to loopback addresses only, and through no proxy.

use bursar::{ClientBuilder, Credential, Credentials, ErrorKind, PaymentStatus, ResponseExt};
use bursar::{credential::Preference, secrecy::SecretString};
use bursar_testing::Paywall;
use bursar_tests::paywall::{http, open, payments_sent, purchases, report};
use bursar_tests::recorder::{Recorder, outer_address};
use reqwest::Proxy;

use crate::builder;

/// Returns a client with each kind of proxy that a caller can set. The proxy has a password.
fn behind(proxy: &Recorder) -> Vec<ClientBuilder> {
    let url = proxy.url();
    let all = Proxy::all(&url).unwrap().basic_auth("me", "PROXYPASSWORD");
    let plain = Proxy::http(&url).unwrap();
    let custom = Proxy::custom({
        let url = url.clone();
        move |_| Some(url.clone())
    });
    [all, plain, custom]
        .into_iter()
        .map(|proxy| builder().http(http().proxy(proxy)))
        .collect()
}

fn never_a_password(seller: &Paywall) {
    for request in seller.requests() {
        let header = request.header("proxy-authorization").unwrap_or_default();
        assert_eq!(header, "", "the seller saw the password of the proxy");
    }
}

#[tokio::test]
async fn plain_http_to_loopback_goes_through_no_proxy() {
    let proxy = Recorder::start().await;
    for client in behind(&proxy) {
        let seller = open(report()).await;
        let client = client.build().unwrap();
        let by_name = format!(
            "http://localhost:{}/report",
            seller.url("/").port().unwrap()
        );
        for url in [seller.url("/report").to_string(), by_name] {
            let response = client.get(url).send().await.unwrap();
            assert_eq!(response.payment_status(), PaymentStatus::Paid);
        }
        assert!(payments_sent(&seller) >= 2);
        never_a_password(&seller);
    }
    assert_eq!(proxy.heads(), [""; 0]);
}

#[tokio::test]
async fn an_api_key_for_loopback_goes_through_no_proxy() {
    let proxy = Recorder::start().await;
    for client in behind(&proxy) {
        let seller = open(report().accepts_key("authorization", "Bearer right")).await;
        let key = SecretString::from("right".to_owned());
        let key = Credential::bearer("example", key).prefer(Preference::NeverPay);
        let keys = Credentials::new().host("127.0.0.1", key);
        let client = client.credentials(keys).build().unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        never_a_password(&seller);
    }
    assert_eq!(proxy.heads(), [""; 0]);
}

#[tokio::test]
async fn https_still_goes_through_the_proxy() {
    let proxy = Recorder::start().await;
    for client in behind(&proxy) {
        let client = client.build().unwrap();
        client
            .get("https://seller.invalid/report")
            .send()
            .await
            .unwrap_err();
    }
    let heads = proxy.heads();
    assert_eq!(heads.len(), 2, "{heads:?}");
    for head in heads {
        assert!(head.starts_with("CONNECT seller.invalid:443 "), "{head}");
    }
}

#[tokio::test]
async fn a_loopback_name_with_another_address_gets_no_plain_http() {
    let Some(outer) = outer_address() else {
        return;
    };
    let stranger = Recorder::start_at(outer).await;
    let port = stranger.address().port();
    for name in ["localhost", "shop.localhost", "a.b.localhost"] {
        for deny_private in [false, true] {
            let client = builder().http(http().resolve(name, stranger.address()));
            let client = match deny_private {
                true => client.deny_private_networks(),
                false => client,
            };
            let client = client.build().unwrap();
            let request = client.get(format!("http://{name}:{port}/report"));
            let error = request.send().await.unwrap_err();
            assert_eq!(
                (error.kind(), error.payment_status()),
                (ErrorKind::Insecure, PaymentStatus::NotPaid),
                "{name}: {error}"
            );
            assert!(purchases(&client).await.is_empty());
        }
    }
    assert_eq!(stranger.heads(), [""; 0]);
}

#[tokio::test]
async fn a_loopback_name_with_a_loopback_address_is_paid() {
    let seller = open(report()).await;
    let url = seller.url("/report");
    let here = ([127, 0, 0, 1], url.port().unwrap()).into();
    let client = builder().http(http().resolve("shop.localhost", here));
    let client = client.build().unwrap();
    let there = format!("http://shop.localhost:{}/report", url.port().unwrap());
    let response = client.get(there).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
}

#[tokio::test]
async fn other_spellings_of_this_machine_get_no_plain_http() {
    let client = builder().build().unwrap();
    for url in [
        "http://0.0.0.0:9/x",
        "http://0:9/x",
        "http://[::]:9/x",
        "http://[::ffff:0.0.0.0]:9/x",
        "http://[::127.0.0.1]:9/x",
        "http://localhost.example:9/x",
        "http://127.0.0.1.example:9/x",
    ] {
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Insecure, "{url}: {error}");
    }
}

#[tokio::test]
async fn every_spelling_of_a_loopback_address_is_loopback() {
    let seller = open(report()).await;
    let port = seller.url("/").port().unwrap();
    let client = builder().build().unwrap();
    for host in ["127.1", "0x7f.1", "2130706433", "LOCALHOST"] {
        let url = format!("http://{host}:{port}/report");
        let response = client.get(url).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid, "{host}");
    }
}
