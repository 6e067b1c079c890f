//! The policy and the ledger decide which services are asked and payable.

use bursar::discovery::Standing;
use bursar::policy::{Permission, Rule};
use bursar::reqwest::Method;
use bursar::secrecy::SecretString;
use bursar::{
    Client, Credential, Credentials, ErrorKind, FreezeSwitch, PaymentStatus, Policy, ResponseExt,
    usd,
};
use bursar_testing::Bazaar;
use bursar_tests::paywall;
use serde_json::json;

use crate::{client_with, denied_by, find, listed, paths, seller, sepolia};

#[tokio::test]
async fn lists_are_asked_without_payment_and_without_the_callers_secrets() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let client = sepolia();
    let everywhere = client
        .discover()
        .bazaar(bazaar.url("/"))
        .well_known(bazaar.url("/"))
        .openapi(bazaar.url("/"))
        .registry(bazaar.url("/"));
    drop(everywhere.find("weather").run().await.unwrap());
    let requests = bazaar.requests();
    assert!(requests.len() >= 4);
    for request in requests {
        assert_eq!(
            (&request.method, request.payment.is_none()),
            (&Method::GET, true)
        );
        for secret in ["authorization", "cookie", "payment-signature", "x-payment"] {
            assert!(
                request.header(secret).is_none(),
                "{secret}: {}",
                request.target
            );
        }
    }
    // Nor a key that the client has for that very host.
    let keyed = Client::builder()
        .credentials(Credentials::new().host(
            "127.0.0.1",
            Credential::bearer("example", SecretString::from("secret")),
        ))
        .allow_http_loopback(true)
        .build()
        .unwrap();
    drop(find(&bazaar, &keyed, "").await);
    assert!(
        bazaar
            .requests()
            .iter()
            .all(|request| request.header("authorization").is_none())
    );
    let error = client
        .discover()
        .bazaar("https://me:secret@example.com/")
        .find("")
        .run()
        .await
        .unwrap_err();
    assert!(
        error.kind() == ErrorKind::Builder && !error.to_string().contains("secret"),
        "{error}"
    );
}

#[tokio::test]
async fn what_the_policy_does_not_permit_is_neither_asked_nor_payable() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let reader = Permission::new()
        .host("127.0.0.1")
        .path("/discovery/**")
        .path("/news");
    let client = client_with(Policy::new().allow_network("base-sepolia").permit(reader));
    let look = client
        .discover()
        .bazaar(bazaar.url("/"))
        .registry(bazaar.url("/"));
    let findings = look.find("").run().await.unwrap();
    let refused = findings.sources[1].error.as_ref().unwrap();
    assert_eq!(
        (refused.kind(), refused.denial().unwrap().rule),
        (ErrorKind::Denied, Rule::Permission)
    );
    assert!(
        bazaar
            .requests()
            .iter()
            .all(|request| request.path().starts_with("/discovery/"))
    );
    assert_eq!(
        (paths(&findings)[0], findings.payable().count()),
        ("/news", 1)
    );
    assert!(
        findings.services[1..]
            .iter()
            .all(|service| denied_by(service) == Rule::Permission)
    );

    // The rule also holds for services without a price.
    let bare = json!({ "resource": seller.url("/weather/fine").as_str() });
    let unpriced = Bazaar::builder().item(bare).start().await.unwrap();
    assert_eq!(
        denied_by(&find(&unpriced, &client, "").await.services[0]),
        Rule::Permission
    );
}

#[tokio::test]
async fn the_books_as_they_are_decide_what_is_payable() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let client = client_with(
        Policy::new()
            .allow_network("base-sepolia")
            .lifetime(usd!("0.055")),
    );
    assert_eq!(find(&bazaar, &client, "weather").await.payable().count(), 2);
    let bought = client
        .get(seller.url("/weather/cheap"))
        .send()
        .await
        .unwrap();
    assert_eq!(bought.payment_status(), PaymentStatus::Paid);
    let findings = find(&bazaar, &client, "weather").await;
    assert_eq!(
        (findings.payable().count(), denied_by(&findings.services[1])),
        (1, Rule::Lifetime)
    );
    client.ledger().unwrap().freeze("enough").await.unwrap();
    let findings = find(&bazaar, &client, "weather").await;
    assert_eq!(denied_by(&findings.services[0]), Rule::Frozen);
}

#[tokio::test]
async fn while_paying_is_stopped_nothing_is_payable() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let switch = FreezeSwitch::new();
    let client = paywall::client()
        .policy(Policy::new().allow_network("base-sepolia"))
        .freeze_switch(switch.clone())
        .build()
        .unwrap();
    assert_eq!(find(&bazaar, &client, "").await.payable().count(), 3);
    switch.freeze("enough");
    let look = client
        .discover()
        .bazaar(bazaar.url("/"))
        .well_known(bazaar.url("/"));
    let findings = look.find("").run().await.unwrap();
    assert_eq!(findings.payable().count(), 0);
    assert_eq!(denied_by(&findings.services[0]), Rule::Frozen);
}

#[tokio::test]
async fn who_has_to_be_asked_comes_after_who_has_not() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let client = client_with(
        Policy::new()
            .allow_network("base-sepolia")
            .ask_above(usd!("0.02")),
    );
    let findings = find(&bazaar, &client, "weather").await;
    assert_eq!(findings.services[0].standing, Standing::Payable);
    assert!(
        matches!(&findings.services[1].standing, Standing::NeedsApproval(why) if why.contains("0.02"))
    );
    assert_eq!(findings.payable().count(), 2);
}

#[tokio::test]
async fn without_a_wallet_prices_are_shown_and_not_judged() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let client = Client::builder().allow_http_loopback(true).build().unwrap();
    let look = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("weather")
        .max_price(usd!("0.10"));
    let findings = look.run().await.unwrap();
    assert_eq!(
        paths(&findings),
        ["/weather/cheap", "/weather/fine", "/weather/dear"]
    );
    assert_eq!(findings.services[0].standing, Standing::NoWallet);
    assert_eq!(denied_by(&findings.services[2]), Rule::MaxPrice);
}
