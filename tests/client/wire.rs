//! The way of plain http: to loopback addresses only, and through no proxy.

use bursar::credential::Preference;
use bursar::policy::Rule;
use bursar::secrecy::SecretString;
use bursar::{
    ClientBuilder, Credential, Credentials, ErrorKind, PaymentStatus, PriceOutcome, ResponseExt,
    RetryPolicy, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{
    distinct_payments, http, open, payment_status, payments_sent, policy, purchases, report,
};
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
async fn prices_and_lists_on_loopback_are_read_through_no_proxy() {
    let proxy = Recorder::start().await;
    for client in behind(&proxy) {
        let (seller, list) = (open(report()).await, Recorder::start().await);
        let client = client.build().unwrap();
        let price = client.get(seller.url("/report")).quote().await.unwrap();
        assert!(matches!(price, PriceOutcome::Priced(_)));
        let list_url = list.url();
        let found = client.discover().bazaar(&*list_url).find("").run().await;
        drop(found);
        assert!(!list.heads().is_empty());
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

/// Returns the target of each request, as it was sent.
async fn targets(paths: &[&str]) -> Vec<String> {
    let server = Recorder::start().await;
    let client = builder().build().unwrap();
    for path in paths {
        let url = format!("{}{path}", server.url());
        drop(client.get(url).send().await);
    }
    let target = |head: String| head.split(' ').nth(1).unwrap().to_owned();
    server.heads().into_iter().map(target).collect()
}

#[tokio::test]
async fn a_path_is_sent_as_the_caller_wrote_it() {
    let paths = [
        "/%72eport;v=1",
        "//report/",
        "/caf%c3%a9?q=%72",
        "/a%2Fb",
        "/REPORT",
    ];
    assert_eq!(targets(&paths).await, paths);
}

#[tokio::test]
async fn a_limit_on_a_resource_holds_on_the_wire_and_the_ledger_has_one_path() {
    let seller = open(Route::get("/*").price(usd!("0.01")).body("the report")).await;
    let limited = policy().resource_limits(seller.url("/report").as_str(), |report| {
        report.lifetime(usd!("0.01"))
    });
    let client = builder().policy(limited).build().unwrap();
    let base = seller.url("/").to_string();
    let get = |path: &str| client.get(format!("{base}{path}")).send();
    assert_eq!(
        payment_status(get("%72eport;v=1").await),
        PaymentStatus::Paid
    );
    for path in [
        "report",
        "repor%74",
        "report/",
        "report;v=1",
        "%2Freport",
        "REPORT",
        "/report",
    ] {
        let error = get(path).await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Lifetime, "{path}");
    }
    let bought = purchases(&client).await;
    assert_eq!((bought.len(), payments_sent(&seller)), (1, 1));
    assert_eq!(bought.first().unwrap().path, "/report");
}

#[tokio::test]
async fn a_request_in_another_spelling_presents_the_same_payment() {
    let seller = open(
        Route::get("/*")
            .price(usd!("0.01"))
            .fault(Fault::DropAfterSettle),
    )
    .await;
    let client = builder().retry_policy(RetryPolicy::once()).build().unwrap();
    let port = seller.url("/").port().unwrap();
    for url in [
        format!("http://127.0.0.1:{port}/%72eport?a=%62"),
        format!("http://127.0.0.1:{port}/report?a=b"),
        format!("http://127.1:{port}/repor%74?a=b#part"),
        format!("http://2130706433:{port}/r%65port?a=b"),
    ] {
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid, "{error}");
    }
    assert_eq!(distinct_payments(&seller), 1);
}
