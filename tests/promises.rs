//! Attacks on the promises of the money path, found by reading it as an attacker; each was broken once.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::ledger::{Filter, PurchaseKey, State};
use bursar::money::AssetRegistry;
use bursar::policy::Rule;
use bursar::primitives::{B256, U256};
use bursar::signer::SignerError;
use bursar::{
    Client, ClientBuilder, ErrorKind, Ledger, LocalSigner, PaymentStatus, Policy, ResponseExt,
    RetryPolicy, Signer, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        .retry_policy(RetryPolicy::once())
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

/// A ledger in a file whose disk is full for events of one state.
struct FullDisk {
    _directory: tempfile::TempDir,
    ledger: Ledger,
    database: rusqlite::Connection,
}

impl FullDisk {
    /// Opens a ledger that cannot record the change to `state`.
    fn at(state: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::sqlite(&path).unwrap();
        let database = rusqlite::Connection::open(&path).unwrap();
        let full = format!(
            "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.to_state = '{state}' \
             BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        );
        database.execute_batch(&full).unwrap();
        Self {
            _directory: directory,
            ledger,
            database,
        }
    }

    fn make_room(&self) {
        self.database.execute_batch("DROP TRIGGER full").unwrap();
    }

    /// Returns the states of all purchases in the file.
    fn states(&self) -> String {
        let states = "SELECT group_concat(state) FROM purchases";
        self.database
            .query_row(states, [], |row| row.get(0))
            .unwrap()
    }
}

#[tokio::test]
async fn an_outcome_that_the_books_missed_is_not_bought_again() {
    let disk = FullDisk::at("unresolved");
    let client = client().ledger(disk.ledger.clone()).build().unwrap();
    let seller = open(report().fault_once(Fault::DropAfterSettle)).await;
    let lost = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(lost.payment_status(), PaymentStatus::MaybePaid);
    assert_eq!(disk.states(), "signed", "the ledger missed the outcome");
    disk.make_room();
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

/// The key is in the process, so the ledger has it sign in the transaction that fails.
#[tokio::test]
async fn a_signature_in_a_transaction_that_fails_does_not_leave_and_holds_nothing() {
    let disk = FullDisk::at("signed");
    let client = client().ledger(disk.ledger.clone()).build().unwrap();
    let seller = open(report()).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    // The error does not tell whether the commit failed or only its answer.
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Ledger, PaymentStatus::MaybePaid),
        "{error}"
    );
    assert!(error.payment().is_some());
    disk.make_room();
    let ledger = client.ledger().unwrap();
    assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let payments = seller.requests().into_iter();
    let payments = payments.filter(|request| request.payment.is_some()).count();
    assert_eq!((payments, seller.settlements().len()), (1, 1));
}

#[tokio::test]
async fn a_signature_that_the_ledger_did_not_record_counts_as_spent_and_does_not_leave() {
    let disk = FullDisk::at("signed");
    let key = Arc::new(LocalSigner::random().unwrap());
    // It may wait, so the ledger holds the amount before and records the signature after it.
    let signer = bursar::signer_fn(key.address(), move |authorization| {
        let (key, authorization) = (Arc::clone(&key), authorization.clone());
        async move { key.sign(&authorization).await }
    });
    let client = client()
        .signer(signer)
        .ledger(disk.ledger.clone())
        .build()
        .unwrap();
    let seller = open(report()).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Ledger, PaymentStatus::MaybePaid),
        "{error}"
    );
    let signed = error.payment().unwrap();
    assert_eq!(signed.amount.to_string(), "0.01 USDC");
    assert!(error.to_string().starts_with("may be paid: "), "{error}");
    // The ledger agrees with the error.
    disk.make_room();
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    let [purchase] = purchases.as_slice() else {
        panic!("{purchases:?}")
    };
    assert_eq!(
        (&purchase.id, purchase.state, purchase.valid_before),
        (
            &signed.purchase,
            State::Unresolved,
            Some(signed.valid_before)
        )
    );
    assert!(purchase.is_unresolved());
    let paid = |seller: &Paywall| {
        let requests = seller.requests();
        requests
            .iter()
            .filter(|request| request.payment.is_some())
            .count()
    };
    assert_eq!(paid(&seller), 0, "the signature left the process");
    // The next request signs again under the same nonce, so that at most one of the two can settle.
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    assert_eq!(response.payment().unwrap().nonce, signed.nonce);
    assert_eq!((paid(&seller), seller.settlements().len()), (1, 1));
}

#[tokio::test]
async fn a_signer_that_refuses_leaves_nothing_spent_even_if_the_ledger_fails_then() {
    let disk = FullDisk::at("voided");
    let refusing = bursar::signer_fn(LocalSigner::random().unwrap().address(), |_| async {
        Err(SignerError::rejected("the device is locked"))
    });
    let client = client()
        .signer(refusing)
        .ledger(disk.ledger.clone())
        .build()
        .unwrap();
    let seller = open(report()).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid)
    );
    disk.make_room();
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!(purchases.len(), 1);
    assert_eq!(purchases[0].state, State::Voided);
}

/// The head of an answer that a raw seller sends, and the part of its body that arrives.
#[derive(Clone, Copy)]
struct BrokenAnswer {
    head: &'static str,
    body: &'static str,
}

/// A seller whose answer to a payment breaks in the middle of its body.
async fn breaking(answer: BrokenAnswer) -> SocketAddr {
    let asset = AssetRegistry::stablecoins()
        .find_symbol("base-sepolia".parse().unwrap(), "USDC")
        .unwrap();
    let terms = serde_json::json!({ "x402Version": 2, "accepts": [{
        "scheme": "exact", "network": "eip155:84532", "asset": asset.address(), "amount": "10000",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "maxTimeoutSeconds": 60,
        "extra": { "name": "USDC", "version": "2" },
    }] });
    let terms = STANDARD.encode(terms.to_string());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0))
        .await
        .unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let paid = String::from_utf8_lossy(&request).contains("payment-signature");
            let reply = if paid {
                format!(
                    "{}\r\ncontent-length: 1000\r\n\r\n{}",
                    answer.head, answer.body
                )
            } else {
                format!(
                    "HTTP/1.1 402 Payment Required\r\npayment-required: {terms}\r\ncontent-length: 0\r\n\
                     connection: close\r\n\r\n"
                )
            };
            stream.write_all(reply.as_bytes()).await.unwrap();
        }
    });
    address
}

#[tokio::test]
async fn a_failure_whose_body_breaks_keeps_its_payment_and_never_looks_complete() {
    let client = client().ledger(Ledger::memory()).build().unwrap();
    let seller = breaking(BrokenAnswer {
        head: "HTTP/1.1 500 Internal Server Error",
        body: "half of",
    });
    let url = format!("http://{}/report", seller.await);
    let response = client.get(&url).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (500, PaymentStatus::MaybePaid)
    );
    let purchase = response.payment().unwrap().purchase.clone();
    assert!(
        response.bytes().await.is_err(),
        "half a body was taken for the whole"
    );
    let held = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!((&held[0].id, held[0].state), (&purchase, State::Unresolved));
    let digest = held[0].answer.as_ref().unwrap().body.unwrap();
    assert_eq!((digest.bytes, digest.complete), (7, false));
}

#[tokio::test]
async fn a_second_402_whose_body_breaks_may_be_paid() {
    let client = client().ledger(Ledger::memory()).build().unwrap();
    let seller = breaking(BrokenAnswer {
        head: "HTTP/1.1 402 Payment Required\r\ncontent-type: application/json",
        body: "{\"x402Version\":",
    });
    let url = format!("http://{}/report", seller.await);
    let error = client.get(&url).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Rejected, PaymentStatus::MaybePaid),
        "{error}"
    );
    let held = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!(
        (error.purchase_id(), held[0].is_unresolved()),
        (Some(&held[0].id), true)
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
    seller.clear_faults();
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
        .unlimited()
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
