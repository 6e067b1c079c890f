//! A key reaches its host and appears nowhere else.

use bursar::credential::{CallPlan, FileKey, Preference};
use bursar::ledger::State;
use bursar::policy::{Permission, Rule};
use bursar::{Credential, Credentials, ErrorKind, PaymentStatus, usd};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall::{client, client_without_wallet, open, policy, purchases};
use bursar_tests::scripted::{answer, offer, payment_required, scripted};
use serde_json::json;

use crate::{bearer, client_with, key, keyed_report, keys, recorded, ways};

#[tokio::test]
async fn a_key_reaches_its_host_alone_and_follows_no_redirect_away() {
    let other = open(Route::get("/loot").body("loot")).await;
    let elsewhere = other.url("/loot");
    let seller = Paywall::builder()
        .route(Route::get("/away").redirect(elsewhere.as_ref()))
        .route(Route::get("/here").redirect("/report"))
        .route(keyed_report())
        .start()
        .await
        .unwrap();
    let origin = seller.url("/").origin().ascii_serialization();
    let client = client()
        .credentials(Credentials::new().host(&origin, bearer("right")))
        .build()
        .unwrap();
    let away = client.get(seller.url("/away")).send().await.unwrap();
    assert!(away.status().is_redirection());
    assert!(other.requests().is_empty());
    client.get(elsewhere).send().await.unwrap();
    assert_eq!(ways(&other), ["neither"], "another port is another origin");
    let here = client.get(seller.url("/here")).send().await.unwrap();
    assert_eq!(
        (here.status().as_u16(), here.url().path()),
        (200, "/report")
    );
    assert_eq!(ways(&seller), ["key", "key", "key"]);
}

#[tokio::test]
async fn a_key_in_the_query_stays_out_of_urls_errors_and_books() {
    let route = Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .accepts_key("?key", "s3cret");
    let seller = open(route).await;
    let credential = Credential::query("example", "key", key("s3cret"));
    let client = client()
        .policy(policy().store_queries())
        .credentials(keys(credential.clone()))
        .build()
        .unwrap();
    let response = client.get(seller.url("/report?a=1")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().query()),
        (200, Some("a=1"))
    );
    assert_eq!(
        seller.requests().first().unwrap().target,
        "/report?a=1&key=s3cret"
    );
    let ledger = format!("{:?} {client:?} {response:?}", purchases(&client).await);
    assert!(!ledger.contains("s3cret"), "{ledger}");
    drop(seller);
    let closed = Paywall::builder()
        .route(Route::get("/").body(""))
        .start()
        .await
        .unwrap()
        .url("/report?a=1");
    let error = client.get(closed).send().await.unwrap_err();
    assert_eq!(error.url().unwrap().query(), Some("a=1"));
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

#[tokio::test]
async fn a_key_is_changed_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("key");
    let seller = open(keyed_report()).await;
    let credential =
        Credential::bearer("example", FileKey::new(&file)).prefer(Preference::NeverPay);
    let client = client_without_wallet()
        .credentials(keys(credential))
        .build()
        .unwrap();
    let call = || async { client.get(seller.url("/report")).send().await };
    assert_eq!(call().await.unwrap_err().kind(), ErrorKind::Credential);
    std::fs::write(&file, "wrong\n").unwrap();
    assert_eq!(call().await.unwrap().status().as_u16(), 401);
    std::fs::write(&file, "right\n").unwrap();
    assert_eq!(call().await.unwrap().status().as_u16(), 200);
    std::fs::write(&file, vec![b'x'; 100_000]).unwrap();
    assert!(
        call()
            .await
            .unwrap_err()
            .to_string()
            .contains("longer than any key")
    );
}

/// Sellers that add a slash keep the query, and with it the key.
#[tokio::test]
async fn a_redirect_that_repeats_the_key_does_not_show_it() {
    let seller = Paywall::builder()
        .route(Route::get("/report").redirect("/report/?a=1&key=s3cret&key=s3cret"))
        .route(Route::get("/report/").body("the report"))
        .route(Route::get("/only").redirect("/report/?key=s3cret"))
        .route(Route::get("/closed").redirect("/admin?key=s3cret"))
        .start()
        .await
        .unwrap();
    let credential = Credential::query("example", "key", key("s3cret"));
    let permitted = policy().permit(
        Permission::new()
            .path("/report*")
            .path("/report/")
            .path("/only")
            .path("/closed"),
    );
    let client = client_with(credential).policy(permitted).build().unwrap();
    let response = client.get(seller.url("/report?a=1")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().query()),
        (200, Some("a=1"))
    );
    assert_eq!(
        seller.requests().last().unwrap().target,
        "/report/?a=1&key=s3cret"
    );
    let response = client.get(seller.url("/only")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.url().query()),
        (200, None)
    );
    let error = client.get(seller.url("/closed")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Permission);
    assert!(
        !format!("{error} {error:?} {:?}", error.url()).contains("s3cret"),
        "{error:?}"
    );
}

/// A key with a line break never leaves; what never left does not count.
#[tokio::test]
async fn a_key_that_cannot_be_sent_costs_nothing_and_is_not_shown() {
    let seller = open(keyed_report()).await;
    let broken =
        Credential::bearer("example", key("s3c\nret")).plan(CallPlan::per_call(usd!("0.002")));
    let client = client_with(broken).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Credential, PaymentStatus::NotPaid)
    );
    assert!(!format!("{error} {error:?}").contains("s3c"));
    assert_eq!(recorded(&client).await, [(State::Voided, usd!("0.002"))]);
    assert!(seller.requests().is_empty());
}

/// A seller that refuses a key knows it, and can write it into the terms for a payment in its place.
#[tokio::test]
async fn a_key_that_a_seller_repeats_in_its_terms_is_not_kept() {
    const KEY: &str = "s3cret-KEY-9";
    let origin = scripted(|request| {
        let words = format!("the quota of Bearer {KEY} is used, also s3cret%2DKEY-9");
        let terms = json!({
            "x402Version": 2, "error": words, "accepts": [offer("")],
            "resource": { "url": words, "description": words, "mimeType": "" },
        });
        match request.is_paid() {
            true => answer(402, &[], &json!({ "error": words }).to_string()),
            false => payment_required(&terms),
        }
    })
    .await;
    let credential = bearer(KEY).prefer(Preference::KeyFirst);
    let client = client_with(credential).build().unwrap();
    let error = client
        .get(format!("{origin}/report"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
    let told = format!(
        "{error} {error:?} {:?} {:?}",
        error.reason(),
        purchases(&client).await
    );
    assert!(!told.to_lowercase().contains("key-9"), "{told}");
    assert!(told.contains("[query]"), "{told}");
}
