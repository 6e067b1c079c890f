//! The same request after its process was killed, and beside a process that lives. Two handles of one file stand for two
//! processes: each knows its own calls alone.
#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::ledger::{Filter, State};
use bursar::payment::Payment;
use bursar::policy::SignIn;
use bursar::telemetry::{Event, EventKind};
use bursar::{
    Client, Error, ErrorKind, Ledger, LocalSigner, Payer, PaymentStatus, Policy, PurchaseRequest,
    ResponseExt,
};
use bursar_testing::{Fault, Paywall};
use bursar_tests::clock::{MONDAY_NOON, SECOND, TestClock};
use bursar_tests::paywall::{distinct_payments, payments_sent, policy};
use bursar_tests::signatures::{SignatureLog, wallet};
use bursar_tests::test_offer::{TestOffer, offer};
use bursar_tests::wallet_harness::settle;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use super::{client, idempotent_report};

/// Longer than a presenter lease.
const LEASE: Duration = Duration::from_secs(21);

/// One host: a ledger file, a clock, and a count of the calls that wait for another process.
struct Host {
    directory: TempDir,
    clock: TestClock,
    signatures: SignatureLog,
    waiting: Arc<AtomicUsize>,
}

impl Host {
    fn new() -> Self {
        Self {
            directory: tempfile::tempdir().unwrap(),
            clock: TestClock::default(),
            signatures: SignatureLog::default(),
            waiting: Arc::default(),
        }
    }

    fn ledger(&self) -> Ledger {
        let path: &Path = self.directory.path();
        Ledger::sqlite(path.join("ledger.db")).unwrap()
    }

    fn observer(&self) -> impl Fn(&Event<'_>) + Send + Sync + 'static + use<> {
        let waiting = Arc::clone(&self.waiting);
        move |event| {
            if event.kind == EventKind::Waiting {
                waiting.fetch_add(1, Ordering::SeqCst);
            }
        }
    }

    /// A process with a client.
    fn client(&self) -> Client {
        let client = client(&self.signatures).clock(self.clock.clone());
        let client = client.ledger(self.ledger()).observer(self.observer());
        client.build().unwrap()
    }

    /// A process without HTTP.
    fn payer(&self) -> Payer {
        self.payer_with(self.ledger())
    }

    fn payer_with(&self, ledger: Ledger) -> Payer {
        let payer = Payer::builder()
            .signer(self.signatures.signer())
            .policy(Policy::new().allow_network("base"))
            .ledger(ledger)
            .clock(self.clock.clone());
        payer.observer(self.observer()).build().unwrap()
    }

    /// A seller that settles the first payment and never answers it.
    async fn hanging_seller(&self) -> Paywall {
        let route = idempotent_report().fault_once(Fault::HangAfterSettle);
        let seller = Paywall::builder().route(route).clock(self.clock.clone());
        seller.start().await.unwrap()
    }

    async fn until_waiting(&self, calls: usize) {
        let all = async {
            while self.waiting.load(Ordering::SeqCst) < calls {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(10 * SECOND, all).await.unwrap();
    }

    async fn states(&self) -> Vec<State> {
        let purchases = self.ledger().purchases(&Filter::all()).await.unwrap();
        purchases.iter().map(|purchase| purchase.state).collect()
    }
}

/// The request of the offer, which does not say `allow_duplicate`.
fn identical(offer: &TestOffer) -> PurchaseRequest {
    PurchaseRequest::new("GET", &offer.url, b"").unwrap()
}

async fn authorize(payer: &Payer, offer: &TestOffer) -> Payment {
    let signed = payer.authorize(&offer.terms(), &identical(offer)).await;
    signed.unwrap()
}

async fn buy_again(payer: &Payer, offer: &TestOffer) -> Payment {
    let request = identical(offer).allow_duplicate();
    payer.authorize(&offer.terms(), &request).await.unwrap()
}

fn spawn(payer: &Payer, offer: &TestOffer) -> JoinHandle<Result<Payment, Error>> {
    let (payer, offer) = (payer.clone(), offer.clone());
    tokio::spawn(async move { payer.authorize(&offer.terms(), &identical(&offer)).await })
}

#[tokio::test]
async fn the_same_request_after_a_kill_presents_the_payment_of_the_dead_process() {
    let host = Host::new();
    let seller = host.hanging_seller().await;
    let (killed, restarted) = (host.client(), host.client());
    // The seller never answers, and the call does not renew its lease within this test.
    let call = tokio::spawn(killed.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    host.clock.advance(SECOND);
    let second = tokio::spawn(restarted.get(seller.url("/report")).send());
    host.until_waiting(1).await;
    assert_eq!(payments_sent(&seller), 1);
    host.clock.advance(LEASE);
    let answer = second.await.unwrap().unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert_eq!(answer.text().await.unwrap(), "the report");
    assert_eq!(
        (seller.settlements().len(), host.signatures.count()),
        (1, 1)
    );
    assert_eq!((payments_sent(&seller), distinct_payments(&seller)), (2, 1));
    assert_eq!(host.states().await, [State::Settled]);
    call.abort();
}

#[tokio::test]
async fn the_payment_of_a_dead_process_is_presented_before_a_sign_in() {
    let host = Host::new();
    let route = idempotent_report().sign_in();
    let route = route.fault_once(Fault::HangAfterSettle);
    let seller = Paywall::builder().route(route).clock(host.clock.clone());
    let seller = seller.start().await.unwrap();
    let process = || {
        let client = client(&host.signatures).policy(policy().sign_in(SignIn::Always));
        let client = client.signer(wallet()).clock(host.clock.clone());
        let client = client.ledger(host.ledger()).observer(host.observer());
        client.build().unwrap()
    };
    let (killed, restarted) = (process(), process());
    let first = killed.get(seller.url("/report")).no_sign_in();
    let call = tokio::spawn(first.send());
    seller.wait_for_settlements(1).await;
    let second = tokio::spawn(restarted.get(seller.url("/report")).send());
    host.until_waiting(1).await;
    host.clock.advance(LEASE);
    let answer = second.await.unwrap().unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert_eq!(seller.sign_ins(), []);
    assert_eq!((payments_sent(&seller), distinct_payments(&seller)), (2, 1));
    call.abort();
}

#[tokio::test]
async fn a_payment_that_was_signed_and_never_sent_is_presented_after_a_restart() {
    let host = Host::new();
    let payment = authorize(&host.payer(), &offer("0.01")).await;
    let nonce = payment.payment().nonce;
    // Neither the call nor a guard of it runs again.
    std::mem::forget(payment);
    let second = spawn(&host.payer(), &offer("0.01"));
    host.until_waiting(1).await;
    host.clock.advance(LEASE);
    let second = second.await.unwrap().unwrap();
    assert!(second.is_again());
    assert_eq!(
        (second.payment().nonce, host.signatures.count()),
        (nonce, 1)
    );
}

#[tokio::test]
async fn a_process_that_lives_and_one_that_asks_at_the_same_time_buy_one_each() {
    let host = Host::new();
    let first = authorize(&host.payer(), &offer("0.01")).await;
    let second = spawn(&host.payer(), &offer("0.01"));
    host.until_waiting(1).await;
    settle(&first).await;
    let second = second.await.unwrap().unwrap();
    assert!(!second.is_again());
    assert_ne!(second.payment().nonce, first.payment().nonce);
    assert_eq!(host.signatures.count(), 2);
}

#[tokio::test]
async fn a_payment_whose_answer_was_lost_meanwhile_is_presented_by_the_call_that_waits() {
    let host = Host::new();
    let first = authorize(&host.payer(), &offer("0.01")).await;
    let second = spawn(&host.payer(), &offer("0.01"));
    host.until_waiting(1).await;
    first.lost("the process was told to stop").await;
    let second = second.await.unwrap().unwrap();
    assert!(second.is_again());
    assert_eq!(host.signatures.count(), 1);
}

#[tokio::test]
async fn a_call_whose_time_ends_before_the_lease_of_a_killed_process_signs_nothing() {
    let host = Host::new();
    let seller = host.hanging_seller().await;
    let (killed, restarted) = (host.client(), host.client());
    let call = tokio::spawn(killed.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    let short = restarted.get(seller.url("/report"));
    let error = short.timeout(Duration::from_millis(150)).send().await;
    let error = error.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::NotPaid)
    );
    let killed = host.ledger().purchases(&Filter::all()).await.unwrap();
    assert_eq!(error.purchase_id(), killed.first().map(|first| &first.id));
    let text = error.to_string();
    for part in ["another process", "nothing was signed", "12:00:20Z"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!((payments_sent(&seller), host.signatures.count()), (1, 1));
    // The next call comes when the lease is over.
    host.clock.advance(LEASE);
    restarted.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (seller.settlements().len(), host.signatures.count()),
        (1, 1)
    );
    call.abort();
}

#[tokio::test]
async fn a_call_waits_only_for_the_payments_that_it_saw_at_its_start() {
    let host = Host::new();
    let (other, offer) = (host.payer(), offer("0.01"));
    let first = authorize(&other, &offer).await;
    let second = buy_again(&other, &offer).await;
    let call = spawn(&host.payer(), &offer);
    host.until_waiting(1).await;
    // This one is never concluded while the call waits.
    let later = buy_again(&other, &offer).await;
    settle(&first).await;
    settle(&second).await;
    let bought = call.await.unwrap().unwrap();
    assert!(!bought.is_again());
    assert_ne!(bought.payment().nonce, later.payment().nonce);
    assert_eq!(host.signatures.count(), 4);
    assert_eq!(host.waiting.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_dead_process_among_live_ones_is_found() {
    let host = Host::new();
    let offer = offer("0.01");
    let dead = authorize(&host.payer(), &offer).await;
    let nonce = dead.payment().nonce;
    std::mem::forget(dead);
    let alive = buy_again(&host.payer(), &offer).await;
    let call = spawn(&host.payer(), &offer);
    host.until_waiting(1).await;
    settle(&alive).await;
    host.clock.advance(LEASE);
    let call = call.await.unwrap().unwrap();
    assert_eq!((call.is_again(), call.payment().nonce), (true, nonce));
    assert_eq!(host.signatures.count(), 2);
}

#[tokio::test]
async fn of_several_calls_that_wait_for_a_killed_process_one_presents_its_payment() {
    let host = Host::new();
    let offer = offer("0.01");
    let dead = authorize(&host.payer(), &offer).await;
    let nonce = dead.payment().nonce;
    std::mem::forget(dead);
    let payer = host.payer();
    let calls: Vec<_> = (0..4).map(|_| spawn(&payer, &offer)).collect();
    host.until_waiting(4).await;
    host.clock.advance(LEASE);
    let mut nonces = Vec::new();
    let mut payments = Vec::new();
    for call in calls {
        let payment = call.await.unwrap().unwrap();
        nonces.push(payment.payment().nonce);
        payments.push(payment);
    }
    nonces.sort();
    nonces.dedup();
    assert_eq!((nonces.len(), nonces.contains(&nonce)), (4, true));
    assert_eq!(host.signatures.count(), 4);
}

#[tokio::test]
async fn identical_calls_of_one_process_and_calls_on_purpose_wait_for_nothing() {
    let host = Host::new();
    let offer = offer("0.01");
    let payer = host.payer();
    let mut payments = Vec::new();
    for _ in 0..3 {
        payments.push(authorize(&payer, &offer).await);
    }
    let other = host.payer();
    payments.push(buy_again(&other, &offer).await);
    let named = identical(&offer).purchase_id("order-1");
    payments.push(other.authorize(&offer.terms(), &named).await.unwrap());
    assert_eq!(host.signatures.count(), 5);
    assert_eq!(host.waiting.load(Ordering::SeqCst), 0);
    // A call of this process that was dropped is resumed at once.
    drop(payments.remove(0));
    let again = authorize(&payer, &offer).await;
    assert!(again.is_again());
    assert_eq!(host.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn another_key_waits_for_a_killed_process_and_then_signs_nothing() {
    let host = Host::new();
    let offer = offer("0.01");
    std::mem::forget(authorize(&host.payer(), &offer).await);
    let other = host.payer().with_signer(LocalSigner::random().unwrap());
    let call = spawn(&other, &offer);
    host.until_waiting(1).await;
    host.clock.advance(LEASE);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Purchase, "{error}");
    assert_eq!(host.states().await, [State::Signed]);
}

#[tokio::test]
async fn a_lease_that_a_clock_ahead_wrote_does_not_prolong_the_wait() {
    let host = Host::new();
    let offer = offer("0.01");
    host.clock.advance(15 * SECOND);
    std::mem::forget(authorize(&host.payer(), &offer).await);
    host.clock.set(MONDAY_NOON);
    let call = spawn(&host.payer(), &offer);
    host.until_waiting(1).await;
    // 35 seconds by this clock. It jumps back further: then the lease says nothing.
    host.clock.set(MONDAY_NOON.before(60 * SECOND));
    let call = call.await.unwrap().unwrap();
    assert!(call.is_again());
    assert_eq!(host.signatures.count(), 1);
}
