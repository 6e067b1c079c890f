//! Attacks on the promises of the money path, found by reading it as an attacker; each was broken once.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bursar::{
    B256, Client, ClientBuilder, Filter, Ledger, LocalSigner, PaymentStatus, Policy, PurchaseKey,
    ResponseExt, Rule, U256, usd,
};
use bursar_testing::{Fault, Paywall, Route};

fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
}

fn client() -> ClientBuilder {
    Client::builder()
        .signer(LocalSigner::random().unwrap())
        .policy(policy())
        .http(
            reqwest::Client::builder()
                .tls_backend_rustls()
                .tls_certs_only([]),
        )
        .allow_http_loopback(true)
        .presentation_pause(Duration::ZERO)
        .presentations(1)
}

async fn open(route: Route) -> Paywall {
    Paywall::builder().route(route).start().await.unwrap()
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .idempotent()
}

#[tokio::test]
async fn an_outcome_that_the_books_missed_is_not_bought_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let client = client()
        .ledger(Ledger::sqlite(&path).unwrap())
        .build()
        .unwrap();
    // As on a full disk: the outcome of the first call cannot be written.
    let database = rusqlite::Connection::open(&path).unwrap();
    let full = "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.to_state = 'unresolved' \
                BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END";
    database.execute_batch(full).unwrap();
    let seller = open(report().fault_once(Fault::DropAfterSettle)).await;
    let lost = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(lost.payment_status(), PaymentStatus::MaybePaid);
    let state = "SELECT group_concat(state) FROM purchases";
    let state: String = database.query_row(state, [], |row| row.get(0)).unwrap();
    assert_eq!(state, "signed", "the ledger missed the outcome");
    database.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        seller.settlements().len(),
        1,
        "the caller's retry paid a second time"
    );
}

#[tokio::test]
async fn a_stop_does_not_make_failures_of_refusals() {
    let client = client().ledger(Ledger::memory()).build().unwrap();
    let seller = open(report().fault(Fault::SettlementFailure)).await;
    let pages = ["/report?a", "/report?b", "/report?c"];
    for page in pages {
        client.get(seller.url(page)).send().await.unwrap_err();
    }
    client
        .ledger()
        .unwrap()
        .freeze("a look at the books")
        .await
        .unwrap();
    for page in pages {
        let error = client.get(seller.url(page)).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Frozen);
    }
    client.ledger().unwrap().unfreeze().await.unwrap();
    seller.reform();
    let failed = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap()
        .iter()
        .filter(|entry| entry.failed())
        .count();
    assert_eq!(failed, 0, "a refusal became a failure");
    assert_eq!(
        client
            .get(seller.url("/report?d"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
}

#[tokio::test]
async fn one_transaction_makes_room_once() {
    let limited = Policy::new()
        .allow_network("base-sepolia")
        .without_default_limits()
        .lifetime(usd!("0.02"))
        .refunds_make_room();
    let client = client()
        .policy(limited)
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let seller = open(report()).await;
    let mut bought = Vec::new();
    for page in ["/report?a", "/report?b"] {
        let response = client.get(seller.url(page)).send().await.unwrap();
        let payment = response.payment().unwrap();
        bought.push(PurchaseKey::new(payment.payer, payment.purchase.clone()));
    }
    let back = B256::repeat_byte(7);
    for purchase in &bought {
        // Whether the second is refused or makes no room is for the books to say.
        let ledger = client.ledger().unwrap();
        drop(
            ledger
                .record_refund(purchase, back, U256::from(10_000))
                .await,
        );
    }
    client.get(seller.url("/report?c")).send().await.unwrap();
    let beyond = client.get(seller.url("/report?d")).send().await;
    assert!(
        beyond.is_err(),
        "one transfer back of 0.01 USD made room for 0.02 USD"
    );
}

#[tokio::test]
async fn what_is_taken_up_is_within_the_calls_own_maximum() {
    let client = client().ledger(Ledger::memory()).build().unwrap();
    let seller = open(report().fault_once(Fault::SettlementFailure)).await;
    client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(seller.settlements().len(), 0);
    let answer = client
        .get(seller.url("/report"))
        .max_price(usd!("0.001"))
        .send()
        .await;
    let spend = answer.map_or_else(
        |error| error.payment_status(),
        |response| response.payment_status(),
    );
    let presented = seller
        .requests()
        .iter()
        .filter(|request| request.payment.is_some())
        .count();
    assert_eq!(
        (presented, seller.settlements().len()),
        (1, 0),
        "0.01 USD moved where 0.001 USD is allowed: {spend:?}"
    );
}
