//! Callers that try again, in every way that callers do: on the chain there is one transfer.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::clock::{Clock, SystemClock};
use bursar::ledger::{Filter, State};
use bursar::policy::Rule;
use bursar::{
    Client, ClientBuilder, ErrorKind, FreezeSwitch, Ledger, LocalSigner, PaymentStatus, Policy,
    ResponseExt, RetryPolicy, Signer, Timestamp, signer_fn, usd,
};
use bursar_testing::{Fault, Forgery, Paywall, Route};

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const SOON: Duration = Duration::from_millis(600);

fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
        .circuit_breaker(Duration::from_secs(600), 100)
}

/// A client that counts its signatures and waits for nothing.
fn client(signatures: &Arc<AtomicUsize>) -> ClientBuilder {
    let wallet = Arc::new(LocalSigner::from_hex(&KEY.to_owned().into()).unwrap());
    let count = Arc::clone(signatures);
    let signer = signer_fn(wallet.address(), move |authorization| {
        count.fetch_add(1, Ordering::SeqCst);
        let wallet = Arc::clone(&wallet);
        async move { wallet.sign(&authorization).await }
    });
    Client::builder()
        .signer(signer)
        .policy(policy())
        .http(
            reqwest::Client::builder()
                .tls_backend_rustls()
                .tls_certs_only([]),
        )
        .allow_http_loopback(true)
        .answer_timeout(Duration::from_secs(20))
        .retry_policy(RetryPolicy {
            initial_backoff: Duration::ZERO,
            ..RetryPolicy::default()
        })
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .idempotent()
}

async fn open(route: Route) -> Paywall {
    Paywall::builder().route(route).start().await.unwrap()
}

/// The payments that reached the seller, however often each.
fn payments(seller: &Paywall) -> BTreeSet<String> {
    seller
        .requests()
        .into_iter()
        .filter_map(|request| Some(request.payment?.header))
        .collect()
}

/// Sellers that settle and lose, deny or delay the answer.
fn losers() -> [Fault; 6] {
    [
        Fault::DropAfterSettle,
        Fault::HangAfterSettle,
        Fault::ServerErrorAfterSettle,
        Fault::ForgedReceipt(Forgery::Failure),
        Fault::SettlementPending,
        Fault::RejectAgain,
    ]
}

#[tokio::test]
async fn a_loop_pays_once_and_gets_what_it_paid_for() {
    for fault in losers() {
        let signatures = Arc::default();
        let client = client(&signatures)
            .ledger(Ledger::memory())
            .build()
            .unwrap();
        let seller = open(report().fault(fault.clone())).await;
        let buy = || client.get(seller.url("/report")).timeout(SOON);
        for _ in 0..4 {
            let spend = buy().send().await.map_or_else(
                |error| error.payment_status(),
                |response| response.payment_status(),
            );
            assert_eq!(spend, PaymentStatus::MaybePaid, "{fault:?}");
        }
        assert_eq!(
            (signatures.load(Ordering::SeqCst), payments(&seller).len()),
            (1, 1),
            "{fault:?}"
        );
        assert!(seller.settlements().len() <= 1, "{fault:?}");
        seller.reform();
        if fault != Fault::RejectAgain {
            let response = client.get(seller.url("/report")).send().await.unwrap();
            assert_eq!(
                (
                    response.payment_status(),
                    response.text().await.unwrap().as_str()
                ),
                (PaymentStatus::Paid, "the report")
            );
        }
        let purchases = client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap();
        assert_eq!(
            (purchases.len(), signatures.load(Ordering::SeqCst)),
            (1, 1),
            "{fault:?}"
        );
    }
}

#[tokio::test]
async fn a_duplicate_is_bought_by_name_only() {
    let signatures = Arc::default();
    let client = client(&signatures)
        .ledger(Ledger::memory())
        .retry_policy(RetryPolicy::once())
        .build()
        .unwrap();
    let seller = open(report().fault_once(Fault::DropAfterSettle)).await;
    let url = seller.url("/report");
    assert_eq!(
        client
            .get(url.clone())
            .send()
            .await
            .unwrap_err()
            .payment_status(),
        PaymentStatus::MaybePaid
    );
    assert_eq!(
        client
            .get(url.clone())
            .allow_duplicate()
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (seller.settlements().len(), payments(&seller).len()),
        (2, 2)
    );
    assert_eq!(
        client
            .get(url.clone())
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (seller.settlements().len(), payments(&seller).len()),
        (2, 2),
        "the first was presented again"
    );
    assert_eq!(
        client.get(url).send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(seller.settlements().len(), 3, "nothing was open any more");
}

#[tokio::test]
async fn ten_identical_calls_at_once_are_ten_purchases() {
    let directory = tempfile::tempdir().unwrap();
    let books = Ledger::sqlite(directory.path().join("books.db")).unwrap();
    let (in_memory, in_a_file) = (Arc::default(), Arc::default());
    let clients = [
        client(&in_memory).ledger(Ledger::memory()).build().unwrap(),
        client(&in_a_file).ledger(books).build().unwrap(),
    ];
    for client in clients {
        let seller = open(report()).await;
        let calls: Vec<_> = (0..10)
            .map(|_| tokio::spawn(client.get(seller.url("/report")).send()))
            .collect();
        for call in calls {
            assert_eq!(
                call.await.unwrap().unwrap().payment_status(),
                PaymentStatus::Paid
            );
        }
        assert_eq!(
            (seller.settlements().len(), payments(&seller).len()),
            (10, 10)
        );
    }
}

#[tokio::test]
async fn a_call_that_was_dropped_is_taken_up() {
    let signatures = Arc::default();
    let client = client(&signatures)
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let seller = open(report().fault_once(Fault::HangAfterSettle)).await;
    tokio::select! {
        answer = client.get(seller.url("/report")).send() => panic!("{answer:?}"),
        () = seller.wait_for_settlements(1) => {}
    }
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "the report")
    );
    assert_eq!(
        (
            seller.settlements().len(),
            signatures.load(Ordering::SeqCst)
        ),
        (1, 1)
    );
}

#[tokio::test]
async fn another_client_takes_up_what_was_lost_and_not_what_is_in_flight() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("books.db");
    let signatures = Arc::default();
    let build = || {
        client(&signatures)
            .ledger(Ledger::sqlite(&path).unwrap())
            .build()
            .unwrap()
    };
    let (first, second) = (build(), build());
    let seller = open(report().fault_once(Fault::HangAfterSettle)).await;
    let call = tokio::spawn(first.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    assert_eq!(
        second
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (
            seller.settlements().len(),
            signatures.load(Ordering::SeqCst)
        ),
        (2, 2),
        "the first is in flight"
    );
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The first says that it left; the second finds it.
    assert_eq!(
        first
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .first()
            .unwrap()
            .state,
        State::Unresolved
    );
    assert_eq!(
        second
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (
            seller.settlements().len(),
            signatures.load(Ordering::SeqCst)
        ),
        (2, 2)
    );
}

#[tokio::test]
async fn what_is_presented_again_is_kept_from_an_identical_call() {
    let faults = report()
        .fault_once(Fault::ServerErrorAfterSettle)
        .fault_once(Fault::HangAfterSettle);
    let seller = Arc::new(open(faults).await);
    let sent = |seller: &Paywall| {
        seller
            .requests()
            .iter()
            .filter(|request| request.payment.is_some())
            .count()
    };
    // Every payment that arrives makes it 15 seconds later: the purchase is kept for 20.
    let (start, clock) = (SystemClock.now().secs(), Arc::clone(&seller));
    let clock = move || {
        let payments = clock
            .requests()
            .iter()
            .filter(|request| request.payment.is_some())
            .count();
        Timestamp::from_secs(start + 15 * payments as u64)
    };
    let signatures = Arc::default();
    let client = client(&signatures)
        .ledger(Ledger::memory())
        .clock(clock)
        .build()
        .unwrap();
    let call = tokio::spawn(client.get(seller.url("/report")).send());
    while sent(&seller) < 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(payments(&seller).len(), 1);
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
        (payments(&seller).len(), signatures.load(Ordering::SeqCst)),
        (2, 2),
        "it was in flight"
    );
    call.abort();
}

#[tokio::test]
async fn a_stop_ends_the_presentations_of_a_call() {
    let seller = open(report().fault(Fault::ServerErrorAfterSettle)).await;
    let (switch, wallet) = (
        FreezeSwitch::new(),
        Arc::new(LocalSigner::from_hex(&KEY.to_owned().into()).unwrap()),
    );
    let pulled = switch.clone();
    let signer = signer_fn(wallet.address(), move |authorization| {
        pulled.freeze("while it was signed");
        let wallet = Arc::clone(&wallet);
        async move { wallet.sign(&authorization).await }
    });
    let client = client(&Arc::default())
        .signer(signer)
        .ledger(Ledger::memory())
        .freeze_switch(switch);
    let response = client
        .build()
        .unwrap()
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (502, PaymentStatus::MaybePaid)
    );
    assert_eq!(
        seller
            .requests()
            .iter()
            .filter(|request| request.payment.is_some())
            .count(),
        1
    );
}

#[tokio::test]
async fn presentations_end_with_patience_time_and_validity() {
    let sent = |seller: &Paywall| {
        seller
            .requests()
            .iter()
            .filter(|request| request.payment.is_some())
            .count()
    };
    for (most, expected) in [(1, 1), (2, 2), (5, 5)] {
        let seller = open(report().fault(Fault::ServerErrorAfterSettle)).await;
        let client = client(&Arc::default())
            .ledger(Ledger::memory())
            .retry_policy(RetryPolicy {
                attempts: most,
                initial_backoff: Duration::ZERO,
            })
            .build()
            .unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(
            (
                response.status().as_u16(),
                response.payment_status(),
                sent(&seller)
            ),
            (502, PaymentStatus::MaybePaid, expected)
        );
        assert_eq!(
            (payments(&seller).len(), seller.settlements().len()),
            (1, 1)
        );
    }
    // There is no time for the pause.
    let seller = open(report().fault(Fault::ServerErrorAfterSettle)).await;
    let slow = client(&Arc::default())
        .ledger(Ledger::memory())
        .retry_policy(RetryPolicy {
            initial_backoff: Duration::from_secs(60),
            ..RetryPolicy::default()
        });
    let slow = slow.timeout(Duration::from_secs(5)).build().unwrap();
    assert_eq!(
        slow.get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        502
    );
    assert_eq!(sent(&seller), 1);
    // A refusal is certain, as far as that goes, and not asked about again.
    let seller = open(report().fault(Fault::SettlementFailure)).await;
    let client = client(&Arc::default())
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), sent(&seller)),
        (ErrorKind::SettlementFailed, 1)
    );
}

#[tokio::test]
async fn every_switch_stops_paying_and_what_was_signed_before() {
    let directory = tempfile::tempdir().unwrap();
    let (file, books) = (
        directory.path().join("STOP"),
        directory.path().join("books.db"),
    );
    let (signatures, switch) = (Arc::default(), FreezeSwitch::new());
    let build = || {
        let client = client(&signatures)
            .ledger(Ledger::sqlite(&books).unwrap())
            .retry_policy(RetryPolicy::once());
        client
            .policy(policy().freeze_file(&file))
            .freeze_switch(switch.clone())
            .build()
            .unwrap()
    };
    let (client, another) = (build(), build());
    let seller = open(report().fault_once(Fault::DropAfterSettle)).await;
    let (url, other) = (seller.url("/report"), seller.url("/report?other"));
    let lost = client.get(url.clone()).send().await.unwrap_err();
    let id = lost.purchase_id().unwrap().clone();
    for stop in ["file", "program", "ledger"] {
        match stop {
            "file" => std::fs::write(&file, "").unwrap(),
            "program" => switch.freeze("it goes in circles"),
            _ => another
                .ledger()
                .unwrap()
                .freeze("it goes in circles")
                .await
                .unwrap(),
        }
        let new = client.get(other.clone()).send().await.unwrap_err();
        assert_eq!(
            (new.denial().unwrap().rule, new.payment_status()),
            (Rule::Frozen, PaymentStatus::NotPaid),
            "{stop}"
        );
        for again in [
            client.get(url.clone()),
            client.get(url.clone()).purchase_id(id.as_str()),
        ] {
            let again = again.send().await.unwrap_err();
            assert_eq!(
                (again.denial().unwrap().rule, again.payment_status()),
                (Rule::Frozen, PaymentStatus::MaybePaid),
                "{stop}"
            );
        }
        assert_eq!(
            (
                signatures.load(Ordering::SeqCst),
                seller.settlements().len()
            ),
            (1, 1),
            "{stop}"
        );
        match stop {
            "file" => std::fs::remove_file(&file).unwrap(),
            "program" => switch.unfreeze(),
            _ => client.ledger().unwrap().unfreeze().await.unwrap(),
        }
    }
    assert_eq!(
        client.get(url).send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
    assert_eq!(
        (
            signatures.load(Ordering::SeqCst),
            seller.settlements().len()
        ),
        (1, 1)
    );
    assert_eq!(
        client.get(other).send().await.unwrap().payment_status(),
        PaymentStatus::Paid
    );
}

#[tokio::test]
async fn a_loop_of_the_agent_is_stopped_and_so_is_a_seller_that_takes_and_fails() {
    let signatures = Arc::default();
    let seller = open(report()).await;
    let limited = policy().loop_guard(Duration::from_secs(60), 3);
    let looping = client(&signatures)
        .policy(limited)
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    for _ in 0..3 {
        looping.get(seller.url("/report")).send().await.unwrap();
    }
    let error = looping.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::LoopGuard, PaymentStatus::NotPaid)
    );
    assert_eq!(
        (
            seller.settlements().len(),
            signatures.load(Ordering::SeqCst)
        ),
        (3, 3)
    );
    looping
        .get(seller.url("/report?page=2"))
        .send()
        .await
        .unwrap();

    let paid_and_failed = open(report().upfront().status(500)).await;
    let broken = policy().circuit_breaker(Duration::from_secs(600), 2);
    let client = client(&signatures)
        .policy(broken)
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    for page in 0..2 {
        let response = client
            .get(paid_and_failed.url(&format!("/report?page={page}")))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (500, PaymentStatus::Paid)
        );
    }
    let error = client
        .get(paid_and_failed.url("/report?page=3"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::CircuitBreaker, PaymentStatus::NotPaid)
    );
    assert_eq!(paid_and_failed.settlements().len(), 2);
    assert_eq!(
        client
            .get(seller.url("/report"))
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid,
        "others are paid"
    );
}

/// What a retry layer retries, taken together: each loses an answer of what was settled.
fn retried() -> [Fault; 4] {
    [
        Fault::DropAfterSettle,
        Fault::HangAfterSettle,
        Fault::ServerErrorAfterSettle,
        Fault::RejectAgain,
    ]
}

#[tokio::test]
async fn tower_retries_and_pays_once() {
    use tower::{Service, ServiceBuilder, ServiceExt};

    #[derive(Clone)]
    struct Always(u32);
    impl<R: Clone, A, E> tower::retry::Policy<R, A, E> for Always {
        type Future = std::future::Ready<()>;
        fn retry(&mut self, _: &mut R, _: &mut Result<A, E>) -> Option<Self::Future> {
            self.0 = self.0.checked_sub(1)?;
            Some(std::future::ready(()))
        }
        fn clone_request(&mut self, request: &R) -> Option<R> {
            Some(request.clone())
        }
    }
    for fault in retried() {
        let signatures = Arc::default();
        let client = client(&signatures)
            .ledger(Ledger::memory())
            .timeout(SOON)
            .build()
            .unwrap();
        let seller = open(report().fault(fault.clone())).await;
        let send = tower::service_fn(move |url: bursar::Url| {
            let call = client.get(url).send();
            async move { call.await.map_err(Box::new) }
        });
        let mut service = ServiceBuilder::new().retry(Always(3)).service(send);
        drop(Box::pin(service.ready().await.unwrap().call(seller.url("/report"))).await);
        let settled = usize::from(fault != Fault::RejectAgain);
        assert_eq!(
            (seller.settlements().len(), payments(&seller).len()),
            (settled, 1),
            "{fault:?}"
        );
        assert_eq!(signatures.load(Ordering::SeqCst), 1, "{fault:?}");
    }
}

#[cfg(feature = "middleware")]
#[tokio::test]
async fn reqwest_retry_pays_once_above_and_below() {
    use bursar::Payer;
    use bursar::middleware::{PaymentMiddleware, http_client};
    use reqwest_retry::RetryTransientMiddleware;
    use reqwest_retry::policies::ExponentialBackoff;

    for fault in retried() {
        for above in [true, false] {
            let payer = Payer::builder()
                .signer(LocalSigner::from_hex(&KEY.to_owned().into()).unwrap())
                .policy(policy())
                .ledger(Ledger::memory())
                .build()
                .unwrap();
            let pay = PaymentMiddleware::new(payer)
                .allow_http_loopback(true)
                .retry_policy(RetryPolicy {
                    initial_backoff: Duration::ZERO,
                    ..RetryPolicy::default()
                });
            let bounds = (Duration::from_millis(1), Duration::from_millis(2));
            let backoff = ExponentialBackoff::builder()
                .retry_bounds(bounds.0, bounds.1)
                .build_with_max_retries(3);
            let retry = RetryTransientMiddleware::new_with_policy(backoff);
            let http = http_client(
                reqwest::Client::builder()
                    .tls_backend_rustls()
                    .tls_certs_only([]),
            )
            .unwrap();
            let stack = reqwest_middleware::ClientBuilder::new(http);
            let stack = if above {
                stack.with(retry).with(pay)
            } else {
                stack.with(pay).with(retry)
            }
            .build();
            let seller = open(report().fault(fault.clone())).await;
            drop(stack.get(seller.url("/report")).timeout(SOON).send().await);
            let settled = usize::from(fault != Fault::RejectAgain);
            assert_eq!(
                (seller.settlements().len(), payments(&seller).len()),
                (settled, 1),
                "{fault:?}, above {above}"
            );
        }
    }
}
