//! Attacks on the promises of the money path, found by reading it as an attacker; each was broken once.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bursar::{
    B256, Checks, ClientBuilder, Filter, Finding, Freeze, Ledger, LedgerError, MemoryLedger,
    PaymentStatus, Policy, Purchase, PurchaseKey, Reservation, Reserved, ResponseExt, Resumption,
    Rule, Timestamp, Transition, U256, usd,
};
use bursar_testing::Fault;
use bursar_tests::paywall::{self, open, payment_status, payments_sent, purchases, report};

/// Returns a client that presents a payment once.
fn client() -> ClientBuilder {
    paywall::client().presentations(1)
}

/// Books whose disk is full for one write: the next outcome is not recorded.
#[derive(Default)]
struct Hiccup {
    ledger: MemoryLedger,
    full: AtomicBool,
}

impl Ledger for Hiccup {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        self.ledger.reserve(reservation).await
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        if matches!(transition, Transition::Unresolved { .. })
            && self.full.swap(false, Ordering::SeqCst)
        {
            return Err(LedgerError::store("database or disk is full"));
        }
        self.ledger.record(purchase, transition, now).await
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        self.ledger.resume(wanted).await
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        self.ledger.stop(order).await
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        self.ledger.stopped().await
    }

    async fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        self.ledger.examine(checks).await
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        self.ledger.purchase(purchase).await
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        self.ledger.purchases(filter).await
    }
}

#[tokio::test]
async fn an_outcome_that_the_books_missed_is_not_bought_again() {
    let ledger = Arc::new(Hiccup::default());
    ledger.full.store(true, Ordering::SeqCst);
    let client = client().ledger(Arc::clone(&ledger)).build().unwrap();
    let seller = open(report().idempotent().fault_once(Fault::DropAfterSettle)).await;
    let lost = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (lost.payment_status(), ledger.full.load(Ordering::SeqCst)),
        (PaymentStatus::MaybePaid, false)
    );
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
    let client = client().build().unwrap();
    let seller = open(report().idempotent().fault(Fault::SettlementFailure)).await;
    let pages = ["/report?a", "/report?b", "/report?c"];
    for page in pages {
        client.get(seller.url(page)).send().await.unwrap_err();
    }
    client
        .payer()
        .unwrap()
        .stop("a look at the books")
        .await
        .unwrap();
    for page in pages {
        let error = client.get(seller.url(page)).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Stopped);
    }
    client.payer().unwrap().unfreeze().await.unwrap();
    seller.clear_faults();
    let failed = purchases(&client)
        .await
        .iter()
        .filter(|purchase| purchase.failed())
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
    let client = client().policy(limited).build().unwrap();
    let seller = open(report().idempotent()).await;
    let mut bought = Vec::new();
    for page in ["/report?a", "/report?b"] {
        let response = client.get(seller.url(page)).send().await.unwrap();
        bought.push(response.payment().unwrap().purchase.clone());
    }
    let back = B256::repeat_byte(7);
    for purchase in &bought {
        // Whether the second is refused or makes no room is for the books to say.
        drop(
            client
                .payer()
                .unwrap()
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
    let client = client().build().unwrap();
    let seller = open(report().idempotent().fault_once(Fault::SettlementFailure)).await;
    client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(seller.settlements().len(), 0);
    let answer = client
        .get(seller.url("/report"))
        .max_price(usd!("0.001"))
        .send()
        .await;
    let status = payment_status(answer);
    assert_eq!(
        (payments_sent(&seller), seller.settlements().len()),
        (1, 0),
        "0.01 USD moved where 0.001 USD is allowed: {status:?}"
    );
}
