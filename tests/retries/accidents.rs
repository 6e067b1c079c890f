//! Clocks that jump, keys that change, options that are added, and policies that were tightened meanwhile.

#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bursar::clock::{CLOCK_BOUND, Clock};
use bursar::ledger::{Filter, State};
use bursar::payment::FreezeSwitch;
use bursar::policy::{Permission, Rule, Verdict, approve_fn};
use bursar::{
    ChainReader, Client, ClientBuilder, Error, ErrorKind, Ledger, LocalSigner, Network,
    PaymentStatus, Policy, RequestBuilder, ResponseExt, Signer, Timestamp, signer_fn, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::clock::TestClock;
use bursar_tests::paywall::{distinct_payments, open, payment_status, payments_sent, report};
use bursar_tests::signatures::{SignatureLog, wallet};

use crate::{client, idempotent_report, policy};

/// The longest validity of an authorization, in seconds.
const VALIDITY: u64 = 300;

/// The clock of a machine, which is wrong.
#[derive(Clone)]
struct WrongClock {
    truth: TestClock,
    error: Arc<AtomicI64>,
}

impl WrongClock {
    fn new(truth: &TestClock, error: i64) -> Self {
        Self {
            truth: truth.clone(),
            error: Arc::new(AtomicI64::new(error)),
        }
    }

    fn jump(&self, error: i64) {
        self.error.store(error, Ordering::SeqCst);
    }
}

impl Clock for WrongClock {
    fn now(&self) -> Timestamp {
        let error = self.error.load(Ordering::SeqCst);
        Timestamp::from_millis(
            self.truth
                .now()
                .millis()
                .saturating_add(error.saturating_mul(1000)),
        )
    }
}

/// A seller and a chain whose clock is right.
async fn seller_at(truth: &TestClock, route: Route) -> Paywall {
    let seller = Paywall::builder().route(route).clock(truth.clone());
    seller.start().await.unwrap()
}

async fn lost(client: &Client, seller: &Paywall) -> Result<reqwest::Response, Error> {
    client.get(seller.url("/report")).send().await
}

/// The errors of clocks in seconds, up to the bound.
const ERRORS: [i64; 7] = [-599, -365, -30, 0, 30, 365, 599];

#[tokio::test]
async fn a_clock_that_jumps_signs_no_second_payment_while_the_first_can_settle() {
    for first in ERRORS {
        for second in ERRORS {
            let truth = TestClock::default();
            let seller = seller_at(&truth, report().fault(Fault::StatusBeforeSettle(500))).await;
            let (signed, clock) = (SignatureLog::default(), WrongClock::new(&truth, first));
            let ledger = Ledger::memory();
            let on_host = |clock: &WrongClock| {
                let client = client(&signed).clock(clock.clone());
                client.ledger(ledger.clone()).build().unwrap()
            };
            // The same host after a jump, and another host of the fleet.
            let hosts = [on_host(&clock), on_host(&WrongClock::new(&truth, second))];
            drop(lost(&hosts[0], &seller).await);
            clock.jump(second);
            let expires = signed.all()[0].valid_before();
            while truth.now().secs() < expires {
                for host in &hosts {
                    let status = payment_status(lost(host, &seller).await);
                    assert_ne!(status, PaymentStatus::NotPaid, "{first} {second}");
                    assert_eq!(signed.count(), 1, "{first} {second}");
                }
                let left = expires - truth.now().secs();
                truth.advance(Duration::from_secs(left.min(97)));
            }
            assert_eq!(seller.settlements().len(), 0);
            // After the bound, by every clock, the request is bought again.
            truth.advance(CLOCK_BOUND * 2);
            seller.clear_faults();
            clock.jump(0);
            let paid = lost(&hosts[0], &seller).await;
            assert_eq!(
                payment_status(paid),
                PaymentStatus::Paid,
                "{first} {second}"
            );
            assert_eq!((signed.count(), seller.settlements().len()), (2, 1));
        }
    }
}

#[tokio::test]
async fn the_exposure_of_a_payment_lasts_as_long_as_a_wrong_clock_can_take_it_for_valid() {
    for error in [59, 61, 365, 599] {
        let truth = TestClock::default();
        let route = Route::any("/*")
            .price(usd!("0.01"))
            .fault(Fault::StatusBeforeSettle(500));
        let seller = seller_at(&truth, route).await;
        let (signed, clock) = (SignatureLog::default(), WrongClock::new(&truth, 0));
        let client = client(&signed)
            .policy(policy().exposure(usd!("0.01")))
            .clock(clock.clone())
            .build()
            .unwrap();
        drop(client.get(seller.url("/1")).send().await);
        truth.set(Timestamp::from_secs(signed.all()[0].valid_before() - 1));
        clock.jump(error);
        let denied = client.get(seller.url("/2")).send().await.unwrap_err();
        assert_eq!(denied.denial().unwrap().rule, Rule::Exposure, "{error}");
        assert_eq!((signed.count(), seller.settle_presented()), (1, 1));
    }
}

#[tokio::test]
async fn a_crash_of_a_host_that_was_ahead_does_not_make_the_next_request_pay_twice() {
    let truth = TestClock::default();
    let seller = seller_at(
        &truth,
        idempotent_report().fault_once(Fault::HangAfterSettle),
    )
    .await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let signed = SignatureLog::default();
    let on_host = |error| {
        let client = client(&signed).clock(WrongClock::new(&truth, error));
        client
            .ledger(Ledger::sqlite(&path).unwrap())
            .build()
            .unwrap()
    };
    let (ahead, right) = (on_host(365), on_host(0));
    // The call is never polled again, as after a crash.
    let call = tokio::spawn(ahead.get(seller.url("/report")).send());
    seller.wait_for_settlements(1).await;
    let paid = lost(&right, &seller).await.unwrap();
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    assert_eq!((signed.count(), seller.settlements().len()), (1, 1));
    call.abort();
}

#[tokio::test]
async fn a_refusal_for_a_wrong_clock_says_so_and_signs_nothing_more() {
    // The Date of the seller's answers is the time of this machine.
    for (minutes, side) in [(-15, "behind"), (15, "ahead of")] {
        let signed = SignatureLog::default();
        let now = bursar::clock::SystemClock.now().millis() + minutes * 60_000;
        let clock = move || Timestamp::from_millis(now);
        let client = client(&signed).clock(clock).build().unwrap();
        let seller =
            open(report().fault(Fault::RefusalInTerms("authorization expired".to_owned()))).await;
        for _ in 0..3 {
            let error = lost(&client, &seller).await.unwrap_err().to_string();
            let text = format!(" s {side} the seller's");
            assert!(
                error.contains("clock of this machine is") && error.contains(&text),
                "{error}"
            );
        }
        assert_eq!(signed.count(), 1);
    }
    let seller = open(report().fault(Fault::SettlementFailure)).await;
    let client = client(&SignatureLog::default()).build().unwrap();
    let error = lost(&client, &seller).await.unwrap_err().to_string();
    assert!(!error.contains("clock of this machine"), "{error}");
    assert!(
        error.contains("presents this payment again until 2")
            && error.contains("Ledger::reconcile"),
        "{error}"
    );
}

/// A client with a new key on this ledger.
fn with_new_key(ledger: &Ledger) -> ClientBuilder {
    client(&SignatureLog::default())
        .signer(LocalSigner::random().unwrap())
        .ledger(ledger.clone())
}

fn ledgers(directory: &tempfile::TempDir) -> [Ledger; 2] {
    let path = directory.path().join("ledger.db");
    [Ledger::memory(), Ledger::sqlite(path).unwrap()]
}

#[tokio::test]
async fn an_id_that_was_lost_under_one_key_is_not_paid_with_another() {
    let directory = tempfile::tempdir().unwrap();
    for ledger in ledgers(&directory) {
        for fault in [
            Fault::DropAfterSettle,
            Fault::StatusBeforeSettle(500),
            Fault::SettlementFailure,
        ] {
            let id = format!("{:?}-{fault:?}", ledger).replace(' ', "");
            let seller = open(idempotent_report().fault(fault.clone())).await;
            let signed = SignatureLog::default();
            let old = client(&signed).ledger(ledger.clone()).build().unwrap();
            let order = |client: &Client| {
                let request = client.get(seller.url("/report")).purchase_id(&id);
                request.send()
            };
            drop(order(&old).await);
            // Other wallets, one of which pays on other networks only.
            let elsewhere = Policy::new().allow_network("base");
            for new in [
                with_new_key(&ledger).build().unwrap(),
                with_new_key(&ledger).build().unwrap(),
            ] {
                drop(order(&new).await);
                assert_eq!(
                    (signed.count(), distinct_payments(&seller)),
                    (1, 1),
                    "{fault:?}"
                );
                let error = new.get(seller.url("/other")).purchase_id(&id).send().await;
                assert_eq!(payment_status(error), PaymentStatus::NotPaid);
            }
            let abroad = with_new_key(&ledger).policy(elsewhere).build().unwrap();
            let error = order(&abroad).await.unwrap_err();
            assert_eq!(error.denial().unwrap().rule, Rule::Network, "{error}");
            seller.clear_faults();
            let paid = order(&with_new_key(&ledger).build().unwrap())
                .await
                .unwrap();
            assert_eq!(
                paid.payment().unwrap().payer,
                Signer::address(&wallet()),
                "the payment of the first key"
            );
            assert_eq!(distinct_payments(&seller), 1);
            assert_eq!(seller.settlements().len(), 1);
            let purchases = ledger.purchases(&Filter::all()).await.unwrap();
            let with_id = purchases.iter().filter(|known| known.id.as_str() == id);
            assert_eq!(with_id.count(), 1);
        }
    }
}

#[tokio::test]
async fn an_identical_request_with_another_key_is_refused_while_the_first_payment_is_open() {
    let directory = tempfile::tempdir().unwrap();
    for ledger in ledgers(&directory) {
        let seller = open(idempotent_report().fault(Fault::DropAfterSettle)).await;
        let signed = SignatureLog::default();
        let old = client(&signed).ledger(ledger.clone()).build().unwrap();
        drop(lost(&old, &seller).await);
        let new = with_new_key(&ledger).build().unwrap();
        let before = payments_sent(&seller);
        let error = lost(&new, &seller).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Purchase, PaymentStatus::MaybePaid)
        );
        let text = error.to_string();
        assert!(
            text.contains(&Signer::address(&wallet()).to_string()),
            "{text}"
        );
        assert!(
            text.contains("Ledger::reconcile") && text.contains("allow_duplicate"),
            "{text}"
        );
        assert_eq!(payments_sent(&seller), before);
        // The first key receives its goods, and then the other key buys.
        seller.clear_faults();
        assert_eq!(
            payment_status(lost(&old, &seller).await),
            PaymentStatus::Paid
        );
        assert_eq!(distinct_payments(&seller), 1);
        assert_eq!(
            payment_status(lost(&new, &seller).await),
            PaymentStatus::Paid
        );
        assert_eq!(distinct_payments(&seller), 2);
    }
}

type Change = fn(RequestBuilder) -> RequestBuilder;

#[tokio::test]
async fn no_option_of_a_call_makes_an_identical_request_a_second_payment() {
    let options: [(&str, Change); 7] = [
        ("tag", |request| request.tag("second-try")),
        ("max_price", |request| request.max_price(usd!("0.02"))),
        ("timeout", |request| request.timeout(Duration::from_secs(9))),
        ("header", |request| request.header("x-try", "2")),
        ("accept", |request| {
            request.header("accept", "application/json")
        }),
        ("accept_new_terms", RequestBuilder::accept_new_terms),
        ("options", |request| {
            request.options(
                bursar::PurchaseOptions::new()
                    .tag("third")
                    .max_price(usd!("0.03")),
            )
        }),
    ];
    let directory = tempfile::tempdir().unwrap();
    for ledger in ledgers(&directory) {
        let signed = SignatureLog::default();
        let client = |ledger: &Ledger| client(&signed).ledger(ledger.clone());
        for (name, option) in options {
            for is_first in [true, false] {
                let seller = open(idempotent_report().fault(Fault::DropAfterSettle)).await;
                let before = signed.count();
                let buyer = client(&ledger).build().unwrap();
                let plain = || buyer.get(seller.url("/report"));
                let (first, second) = if is_first {
                    (option(plain()), plain())
                } else {
                    (plain(), option(plain()))
                };
                drop(first.send().await);
                drop(second.send().await);
                assert_eq!(
                    (signed.count() - before, distinct_payments(&seller)),
                    (1, 1),
                    "{name}"
                );
            }
        }
        // Options of the client: another agent, remembered terms, another process.
        let configured: [fn(ClientBuilder) -> ClientBuilder; 6] = [
            |client| client.answer_timeout(Duration::from_secs(9)),
            |client| client.retry_policy(bursar::RetryPolicy::once()),
            |client| client.agent("other"),
            |client| client.policy(policy().remember_terms(Duration::from_secs(600))),
            |client| client.timeout(Duration::from_secs(9)),
            |client| client.policy(policy().allow_network("avalanche-fuji")),
        ];
        for configure in configured {
            let seller = open(idempotent_report().fault(Fault::DropAfterSettle)).await;
            let before = signed.count();
            for buyer in [client(&ledger), configure(client(&ledger)), client(&ledger)] {
                drop(lost(&buyer.build().unwrap(), &seller).await);
            }
            assert_eq!(
                (signed.count() - before, distinct_payments(&seller)),
                (1, 1)
            );
        }
    }
}

#[tokio::test]
async fn a_lower_max_price_neither_presents_nor_signs() {
    let seller = open(idempotent_report().fault(Fault::DropAfterSettle)).await;
    let signed = SignatureLog::default();
    let client = client(&signed).build().unwrap();
    for id in [None, Some("order")] {
        let request = || {
            let request = client.get(seller.url("/report"));
            match id {
                Some(id) => request.purchase_id(id),
                None => request,
            }
        };
        drop(request().send().await);
        let (before, count) = (payments_sent(&seller), signed.count());
        let error = request().max_price(usd!("0.009")).send().await.unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::MaxPrice, "{error}");
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
        assert_eq!((payments_sent(&seller), signed.count()), (before, count));
        // It is free for a call that pays the price.
        drop(request().send().await);
        assert_eq!(signed.count(), count);
        assert!(payments_sent(&seller) > before);
    }
}

#[tokio::test]
async fn a_payment_that_todays_policy_denies_is_not_presented_again() {
    let payee = bursar_tests::tokens::payee(0x5e);
    let loopback = "127.0.0.1";
    let network = Network::from_chain_id(84_532);
    let switch = FreezeSwitch::new();
    switch.freeze("the operator stops it");
    let policies: [(Rule, Policy); 9] = [
        (Rule::Host, policy().deny_host(loopback)),
        (Rule::Host, policy().allow_host("other.example")),
        (
            Rule::Network,
            policy()
                .allow_network("base")
                .mix_testnets()
                .deny_network(network),
        ),
        (Rule::Payee, policy().deny_payee(payee)),
        (
            Rule::Payee,
            policy().allow_payee(Signer::address(&LocalSigner::random().unwrap())),
        ),
        (Rule::PerPayment, policy().per_payment(usd!("0.009"))),
        (
            Rule::PerPayment,
            policy().host_limits(loopback, |host| host.per_payment(usd!("0.001"))),
        ),
        (Rule::Approval, policy().ask_above(usd!("0.001"))),
        (
            Rule::Permission,
            policy().permit(Permission::new().host("other.example")),
        ),
    ];
    let directory = tempfile::tempdir().unwrap();
    for ledger in ledgers(&directory) {
        for id in [None, Some("order")] {
            let route = idempotent_report().fault(Fault::DropAfterSettle);
            let seller = open(route.pay_to(payee)).await;
            let signed = SignatureLog::default();
            let on = |policy: Policy| client(&signed).policy(policy).ledger(ledger.clone());
            let order = |client: Client| {
                let request = client.get(seller.url("/report"));
                match id {
                    Some(id) => request.purchase_id(format!("{id}-{ledger:?}")),
                    None => request,
                }
                .send()
            };
            drop(order(on(policy()).build().unwrap()).await);
            let presented = payments_sent(&seller);
            let deny = async |client: ClientBuilder, rule: Rule| {
                let error = order(client.build().unwrap()).await.unwrap_err();
                assert_eq!(
                    error.denial().map(|denial| denial.rule),
                    Some(rule),
                    "{error}"
                );
                assert_eq!(
                    (payments_sent(&seller), signed.count()),
                    (presented, 1),
                    "{error}"
                );
                error
            };
            for (rule, policy) in &policies {
                let error = deny(on(policy.clone()), *rule).await;
                if *rule != Rule::Permission {
                    assert_eq!(error.payment_status(), PaymentStatus::MaybePaid, "{error}");
                    let text = error.to_string();
                    assert!(text.contains("can settle until 2"), "{text}");
                }
            }
            deny(on(policy()).freeze_switch(switch.clone()), Rule::Frozen).await;
            let asking = || on(policy().ask_above(usd!("0.001")));
            let refuses = approve_fn(|_| async { Verdict::deny("not today") });
            deny(asking().approver(refuses), Rule::Approval).await;
            // No denial keeps the payment from a call that may present it.
            let approves = approve_fn(|request| {
                let is_told = request.why.contains("signed earlier");
                async move {
                    if is_told {
                        Verdict::Approve
                    } else {
                        Verdict::deny("?")
                    }
                }
            });
            drop(order(asking().approver(approves).build().unwrap()).await);
            assert!(payments_sent(&seller) > presented);
            seller.clear_faults();
            let paid = order(on(policy()).build().unwrap()).await;
            assert_eq!(payment_status(paid), PaymentStatus::Paid);
            assert_eq!((signed.count(), distinct_payments(&seller)), (1, 1));
        }
    }
}

#[tokio::test]
async fn a_purchase_that_was_released_and_bought_again_excludes_an_older_ledger() {
    let truth = TestClock::default();
    let seller = seller_at(
        &truth,
        idempotent_report().fault(Fault::StatusBeforeSettle(500)),
    )
    .await;
    let network = Network::from_chain_id(84_532);
    let nodes = [
        seller.node(network).await.unwrap(),
        seller.node(network).await.unwrap(),
    ];
    // Both nodes are on loopback, which is one party unless the program says more.
    let operators = ["one", "other"];
    let chain = nodes
        .iter()
        .zip(operators)
        .fold(ChainReader::new(), |chain, (node, operator)| {
            let url = node.url();
            chain
                .endpoint_operated_by(network, url.as_str(), operator)
                .unwrap()
        });
    let signed = SignatureLog::default();
    let on = |ledger: Ledger| {
        let client = client(&signed).clock(truth.clone()).ledger(ledger);
        client.build().unwrap()
    };
    let newest = on(Ledger::memory());
    let order = |client: &Client| {
        client
            .get(seller.url("/report"))
            .purchase_id("order")
            .send()
    };
    drop(order(&newest).await);
    truth.advance(Duration::from_secs(VALIDITY + 120));
    let released = newest.ledger().unwrap().reconcile(&chain).await.unwrap();
    assert_eq!(
        released[0].after,
        State::ReleasedByProof,
        "{}",
        released[0].answer
    );
    seller.clear_faults();
    assert_eq!(payment_status(order(&newest).await), PaymentStatus::Paid);
    // A ledger from before the first purchase knows of none, and signs.
    let restored = on(Ledger::memory());
    assert_ne!(
        payment_status(order(&restored).await),
        PaymentStatus::NotPaid
    );
    let nonces: std::collections::BTreeSet<_> =
        signed.all().iter().map(|signed| signed.nonce()).collect();
    assert_eq!((signed.count(), nonces.len()), (3, 1));
    assert_eq!(seller.settle_presented(), 0);
    assert_eq!(
        seller.paid_by(Signer::address(&wallet())),
        bursar::primitives::U256::from(10_000)
    );
}

#[tokio::test]
async fn a_signer_that_hung_is_asked_for_the_same_nonce_by_an_identical_request() {
    let seller = open(idempotent_report()).await;
    let signed = SignatureLog::default();
    let (log, wallet) = (signed.clone(), Arc::new(wallet()));
    let inner = Arc::new(log.signer());
    let hangs = signer_fn(Signer::address(&wallet), move |authorization| {
        let (inner, is_first) = (Arc::clone(&inner), log.count() == 0);
        async move {
            let signature = Signer::sign(&inner, &authorization).await;
            if is_first {
                std::future::pending::<()>().await;
            }
            signature
        }
    });
    let client = client(&signed).signer(hangs).build().unwrap();
    tokio::select! {
        answer = client.get(seller.url("/report")).send() => panic!("{answer:?}"),
        () = async { while signed.count() == 0 { tokio::task::yield_now().await } } => {}
    }
    let paid = lost(&client, &seller).await.unwrap();
    assert_eq!(paid.payment_status(), PaymentStatus::Paid);
    let all = signed.all();
    assert_eq!((all.len(), all[0].nonce() == all[1].nonce()), (2, true));
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert_eq!(purchases.len(), 1, "its amount counts once");
}

#[tokio::test]
async fn a_duplicate_that_was_lost_too_leaves_nothing_for_a_third_signature() {
    let seller = open(idempotent_report().fault(Fault::DropAfterSettle)).await;
    let signed = SignatureLog::default();
    let client = client(&signed).build().unwrap();
    drop(lost(&client, &seller).await);
    drop(
        client
            .get(seller.url("/report"))
            .allow_duplicate()
            .send()
            .await,
    );
    for _ in 0..3 {
        drop(lost(&client, &seller).await);
    }
    assert_eq!((signed.count(), distinct_payments(&seller)), (2, 2));
    seller.clear_faults();
    for _ in 0..2 {
        let paid = lost(&client, &seller).await;
        assert_eq!(payment_status(paid), PaymentStatus::Paid);
    }
    assert_eq!((signed.count(), seller.settlements().len()), (2, 2));
}
