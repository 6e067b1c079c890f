//! Many calls at once over HTTP that wait for room.

use std::time::Duration;

use bursar::policy::Rule;
use bursar::{Client, ErrorKind, Ledger, PaymentStatus, Policy, PurchaseOptions, ResponseExt, usd};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::clock::{DAY, MINUTE};
use bursar_tests::paywall::{client, open, policy, purchases};
use tokio::task::JoinSet;

async fn seller() -> Paywall {
    open(Route::get("/page/*").price(usd!("0.01")).body("a page")).await
}

/// Sends this many requests at once. Returns the number of those that paid, and the rules that denied the others.
async fn crowd(client: &Client, paywall: &Paywall, calls: usize) -> (usize, Vec<Rule>) {
    let mut tasks = JoinSet::new();
    for number in 0..calls {
        let request = client.get(paywall.url(&format!("/page/{number}")));
        tasks.spawn(request.send());
    }
    let (mut paid, mut rules) = (0_usize, Vec::new());
    while let Some(call) = tasks.join_next().await {
        match call.unwrap() {
            Ok(response) => {
                assert_eq!(response.payment_status(), PaymentStatus::Paid);
                paid = paid.saturating_add(1);
            }
            Err(error) => rules.push(error.denial().unwrap().rule),
        }
    }
    (paid, rules)
}

fn crowded() -> Policy {
    policy().exposure(usd!("0.05")).payments(MINUTE, 1000)
}

fn waiting() -> PurchaseOptions {
    PurchaseOptions::new().wait_for_room(Duration::from_secs(60))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_of_calls_that_wait_is_paid_whole_in_memory() {
    let paywall = seller().await;
    let client = client().policy(crowded()).default_options(waiting());
    let client = client.build().unwrap();
    assert_eq!(crowd(&client, &paywall, 120).await, (120, Vec::new()));
    assert_eq!(paywall.settlements().len(), 120);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_of_calls_that_wait_is_paid_whole_in_a_file_that_two_clients_share() {
    let paywall = seller().await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("agent.db");
    // Two ledgers of one file are two processes, as far as they know.
    let open_client = || {
        let ledger = Ledger::open(&path).unwrap();
        let client = client().policy(crowded()).ledger(ledger);
        client.default_options(waiting()).build().unwrap()
    };
    let (one, other) = (open_client(), open_client());
    let (first, second) = tokio::join!(crowd(&one, &paywall, 40), crowd(&other, &paywall, 40));
    assert_eq!((first, second), ((40, Vec::new()), (40, Vec::new())));
    assert_eq!(
        (paywall.settlements().len(), purchases(&one).await.len()),
        (80, 80)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_crowd_that_waits_never_exceeds_the_limit_of_the_day() {
    let paywall = seller().await;
    let policy = crowded().rolling(DAY, usd!("0.30"));
    let client = client().policy(policy).default_options(waiting());
    let client = client.build().unwrap();
    let (paid, rules) = crowd(&client, &paywall, 60).await;
    assert_eq!((paid, rules.len()), (30, 30));
    assert!(rules.iter().all(|rule| *rule == Rule::Rolling), "{rules:?}");
    assert_eq!(paywall.settlements().len(), 30);
}

#[tokio::test]
async fn the_time_limit_of_a_call_ends_its_wait_and_nothing_is_signed() {
    let hanging = Route::get("/page/*").price(usd!("0.01"));
    let paywall = open(hanging.fault(Fault::HangAfterSettle)).await;
    let client = client().policy(policy().exposure(usd!("0.01")));
    let client = client.default_options(waiting()).build().unwrap();
    let first = tokio::spawn(client.get(paywall.url("/page/1")).send());
    paywall.wait_for_settlements(1).await;
    let second = client.get(paywall.url("/page/2"));
    let second = second.timeout(Duration::from_millis(300)).send().await;
    let error = second.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Timeout, PaymentStatus::NotPaid),
        "{error}"
    );
    assert!(error.to_string().contains("waited for room"), "{error}");
    first.abort();
    assert_eq!(paywall.settlements().len(), 1);
}
