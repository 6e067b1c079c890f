//! Purchases in one round trip: terms that were settled at before are paid with the first request.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bursar::approval::{Verdict, approve_fn};
use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::primitives::address;
use bursar::{Client, ClientBuilder, ErrorKind, PaymentStatus, Policy, ResponseExt, usd};
use bursar_testing::{Fault, Paywall, ReceivedRequest, Route};
use bursar_tests::clock::{MINUTE, SECOND, TestClock};
use bursar_tests::paywall::{self, open, open_all, payment_status, purchases, report};
use bursar_tests::signatures::wallet;

fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .host_limits("127.0.0.1", |host| host.remember_terms(MINUTE))
}

fn client(policy: Policy) -> ClientBuilder {
    paywall::client().signer(wallet()).policy(policy)
}

/// Which requests came with a payment, and under how many nonces.
fn paid(seller: &Paywall) -> (Vec<bool>, usize) {
    let received = seller.requests();
    let nonce =
        |request: &ReceivedRequest| Some(request.payment.as_ref()?.authorization.as_ref()?.nonce);
    let nonces: std::collections::BTreeSet<_> = received.iter().filter_map(nonce).collect();
    (
        received
            .iter()
            .map(|request| request.payment.is_some())
            .collect(),
        nonces.len(),
    )
}

async fn buy(client: &Client, seller: &Paywall, path: &str) -> PaymentStatus {
    payment_status(client.get(seller.url(path)).send().await)
}

#[tokio::test]
async fn the_second_purchase_takes_one_round_trip() {
    let seller = open(report()).await;
    let client = client(policy()).build().unwrap();
    for _ in 0..3 {
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(
            response.receipt().unwrap().amount().to_string(),
            "0.01 USDC"
        );
        assert_eq!(response.text().await.unwrap(), "the report");
    }
    assert_eq!(paid(&seller), (vec![false, true, true, true], 3));
    assert_eq!(seller.settlements().len(), 3);
    assert!(
        purchases(&client)
            .await
            .iter()
            .all(|purchase| purchase.state == State::Settled)
    );
}

#[tokio::test]
async fn without_the_setting_every_purchase_asks() {
    let seller = open(report()).await;
    let client = client(Policy::new().allow_network("base-sepolia"))
        .build()
        .unwrap();
    for _ in 0..2 {
        assert_eq!(buy(&client, &seller, "/report").await, PaymentStatus::Paid);
    }
    assert_eq!(paid(&seller).0, [false, true, false, true]);
}

#[tokio::test]
async fn a_file_says_it_for_a_host() {
    let seller = open(report()).await;
    for (host, round_trips) in [("127.0.0.1", 3), ("localhost", 4)] {
        let file = format!(
            "version = 1\nnetworks = [\"base-sepolia\"]\n[[host]]\nmatch = \"{host}\"\nremember_terms = \"1m\"\n"
        );
        let client = client(Policy::from_toml(&file).unwrap()).build().unwrap();
        let before = seller.requests().len();
        for _ in 0..2 {
            assert_eq!(buy(&client, &seller, "/report").await, PaymentStatus::Paid);
        }
        assert_eq!(seller.requests().len() - before, round_trips, "{host}");
    }
}

#[tokio::test]
async fn one_paths_terms_pay_no_other() {
    let other = Route::get("/other").price(usd!("0.002"));
    let posted = Route::post("/report").price(usd!("0.003"));
    let seller = open_all([report(), other, posted]).await;
    let client = client(policy()).build().unwrap();
    buy(&client, &seller, "/report").await;
    buy(&client, &seller, "/other").await;
    client.post(seller.url("/report")).send().await.unwrap();
    assert_eq!(paid(&seller).0, [false, true, false, true, false, true]);
    let amounts: Vec<_> = purchases(&client)
        .await
        .iter()
        .map(|purchase| purchase.value.to_string())
        .collect();
    assert_eq!(amounts, ["10000", "2000", "3000"]);
    // The query is part of no price here.
    assert_eq!(
        buy(&client, &seller, "/report?page=2").await,
        PaymentStatus::Paid
    );
    assert_eq!(paid(&seller).0.len(), 7);
}

#[tokio::test]
async fn a_price_that_rose_is_paid_under_the_same_nonce_if_the_policy_allows() {
    let seller = open_all([
        report(),
        Route::get("/report").price(usd!("0.02")).body("dearer"),
    ])
    .await;
    let client = client(policy()).build().unwrap();
    buy(&client, &seller, "/report").await;
    seller.remove_route("/report");
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "dearer")
    );
    // The second purchase was presented twice: at the old terms and at the new.
    assert_eq!(paid(&seller), (vec![false, true, true, true], 2));
    assert_eq!(seller.settlements().len(), 2);
    assert_eq!(purchases(&client).await[1].value.to_string(), "20000");
    // It changes its terms: for a while it is asked.
    buy(&client, &seller, "/report").await;
    assert_eq!(paid(&seller).0[4..], [false, true]);
}

#[tokio::test]
async fn new_terms_pass_the_whole_policy() {
    let dear = Route::get("/report").price(usd!("0.2"));
    let stranger = report().pay_to(address!("1111111111111111111111111111111111111111"));
    for (changed, rule) in [(dear, Rule::PerPayment), (stranger, Rule::PayeeChanged)] {
        let seller = open_all([report(), changed]).await;
        let client = client(policy()).build().unwrap();
        buy(&client, &seller, "/report").await;
        seller.remove_route("/report");
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.denial().unwrap().rule),
            (ErrorKind::Denied, rule)
        );
        assert_eq!(
            error.payment_status(),
            PaymentStatus::MaybePaid,
            "what was signed at the old terms may yet be cashed"
        );
        assert_eq!(
            (seller.settlements().len(), paid(&seller)),
            (1, (vec![false, true, true], 2))
        );
        assert_eq!(
            purchases(&client).await[1].value.to_string(),
            "10000",
            "no more than was signed"
        );
        assert!(seller.settle_presented() <= 1);
        assert!(seller.settlements().len() <= 2);
    }
}

#[tokio::test]
async fn a_refusal_at_the_same_terms_is_an_error_and_the_next_request_asks() {
    let seller = open_all([report(), report().fault(Fault::SettlementFailure), report()]).await;
    let client = client(policy()).build().unwrap();
    buy(&client, &seller, "/report").await;
    seller.remove_route("/report");
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::SettlementFailed, PaymentStatus::MaybePaid)
    );
    assert_eq!(paid(&seller), (vec![false, true, true], 2));
    seller.remove_route("/report");
    let other = client
        .get(seller.url("/report"))
        .allow_duplicate()
        .send()
        .await
        .unwrap();
    assert_eq!(other.payment_status(), PaymentStatus::Paid);
    assert_eq!(paid(&seller).0[3..], [false, true]);
}

#[tokio::test]
async fn a_seller_that_became_free_leaves_an_unknown_and_is_asked_next() {
    let seller = open_all([report(), Route::get("/report").body("free")]).await;
    let client = client(policy()).build().unwrap();
    buy(&client, &seller, "/report").await;
    seller.remove_route("/report");
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::MaybePaid, "free")
    );
    let held = &purchases(&client).await[1];
    assert_eq!(
        (held.state, held.value.to_string().as_str()),
        (State::Unresolved, "10000")
    );
    assert_eq!(
        buy(&client, &seller, "/report").await,
        PaymentStatus::NotPaid
    );
    assert_eq!(paid(&seller).0, [false, true, true, false]);
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_presented_again_and_paid_once() {
    let seller = open_all([
        report(),
        report().idempotent().fault_once(Fault::DropAfterSettle),
    ])
    .await;
    let client = client(policy()).build().unwrap();
    buy(&client, &seller, "/report").await;
    seller.remove_route("/report");
    assert_eq!(buy(&client, &seller, "/report").await, PaymentStatus::Paid);
    assert_eq!(paid(&seller), (vec![false, true, true, true], 2));
    assert_eq!(seller.settlements().len(), 2);
}

#[tokio::test]
async fn limits_hold_and_what_they_refuse_is_asked_for() {
    let seller = open_all([report(), Route::get("/report").price(usd!("0.001"))]).await;
    let client = client(policy().lifetime(usd!("0.025"))).build().unwrap();
    for _ in 0..2 {
        assert_eq!(buy(&client, &seller, "/report").await, PaymentStatus::Paid);
    }
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::Lifetime)
    );
    assert_eq!(paid(&seller), (vec![false, true, true, false], 2));
    seller.remove_route("/report");
    assert_eq!(
        buy(&client, &seller, "/report").await,
        PaymentStatus::Paid,
        "it became cheaper"
    );
    let most = client
        .get(seller.url("/report"))
        .max_price(usd!("0.0001"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(most.denial().unwrap().rule, Rule::MaxPrice);
}

#[tokio::test]
async fn an_approvers_no_is_final_and_no_payment_is_no_payment() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let approver = approve_fn(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                Verdict::Approve
            } else {
                Verdict::deny("enough")
            }
        }
    });
    let seller = open(report()).await;
    let client = client(policy().ask_above(usd!("0")))
        .approver(approver)
        .build()
        .unwrap();
    buy(&client, &seller, "/report").await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::Approval)
    );
    assert_eq!(
        (asked.load(Ordering::SeqCst), paid(&seller).0),
        (2, vec![false, true])
    );
    let free = client
        .get(seller.url("/report"))
        .no_payment()
        .send()
        .await
        .unwrap();
    assert_eq!(
        (free.status().as_u16(), paid(&seller).0),
        (402, vec![false, true, false])
    );
}

#[tokio::test]
async fn terms_are_paid_for_their_lifetime_and_success_does_not_renew_them() {
    let clock = TestClock::default();
    let seller = Paywall::builder()
        .route(report())
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    let client = client(policy()).clock(clock.clone()).build().unwrap();
    for _ in 0..3 {
        buy(&client, &seller, "/report").await;
        clock.advance(25 * SECOND);
    }
    assert_eq!(paid(&seller).0, [false, true, true, true]);
    buy(&client, &seller, "/report").await;
    assert_eq!(paid(&seller).0[4..], [false, true]);
}

#[tokio::test]
async fn calls_at_once_are_as_many_purchases() {
    let seller = open(report()).await;
    let client = client(policy()).build().unwrap();
    buy(&client, &seller, "/report").await;
    let answers = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (client, url, answers) = (client.clone(), seller.url("/report"), Arc::clone(&answers));
        tasks.spawn(async move {
            let status = client.get(url).send().await.unwrap().payment_status();
            answers.lock().unwrap().push(status);
        });
    }
    tasks.join_all().await;
    assert_eq!(*answers.lock().unwrap(), [PaymentStatus::Paid; 8]);
    assert_eq!(
        (
            paid(&seller).1,
            seller.settlements().len(),
            paid(&seller).0.len()
        ),
        (9, 9, 10)
    );
}
