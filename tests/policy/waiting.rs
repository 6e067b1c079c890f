//! Waiting for room: in order, never beyond a limit, and not in vain.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar::payment::Payment;
use bursar::policy::{Quantity, Rule};
use bursar::{Denial, Error, Payer, Policy, PurchaseOptions, PurchaseRequest, usd};
use bursar_tests::clock::{DAY, HOUR, MINUTE, SECOND};
use bursar_tests::test_offer::{TestOffer, offer};
use bursar_tests::wallet_harness::{WalletHarness, settle};
use tokio::task::{JoinHandle, yield_now};
use tokio::time::timeout;

use super::bare;

fn exposed(max: bursar::Usd) -> Policy {
    bare().exposure(max)
}

/// Another request for each number.
fn numbered(number: usize) -> TestOffer {
    offer("0.01").url(&format!("https://api.example.com/{number}"))
}

fn waiting(offer: &TestOffer, wait: Duration) -> PurchaseRequest {
    offer.request().wait_for_room(wait)
}

/// Authorizes the offer in another task, which waits for room.
fn spawn(payer: &Payer, offer: TestOffer) -> JoinHandle<Result<Payment, Error>> {
    let payer = payer.clone();
    let request = waiting(&offer, MINUTE);
    tokio::spawn(async move { payer.authorize(&offer.terms(), &request).await })
}

/// Lets all tasks go as far as they can without the test. There is one thread.
async fn let_tasks_run() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn parts(denial: &Denial) -> [Option<String>; 3] {
    let text = |part: &Option<Quantity>| part.as_ref().map(ToString::to_string);
    [&denial.used, &denial.in_flight, &denial.unresolved].map(text)
}

fn usd_parts(parts: [&str; 3]) -> [Option<String>; 3] {
    parts.map(|part| Some(format!("{part} USD")))
}

#[tokio::test]
async fn calls_that_wait_for_exposure_pay_in_order_and_never_more_than_fit() {
    let wallet = WalletHarness::new(exposed(usd!("0.03")));
    let payer = wallet.payer(None);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for number in 0..20 {
        let (payer, offer) = (payer.clone(), numbered(number));
        let (now, most, order) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&order));
        tasks.push(tokio::spawn(async move {
            let request = waiting(&offer, MINUTE);
            let payment = payer.authorize(&offer.terms(), &request).await.unwrap();
            let in_flight = now.fetch_add(1, Ordering::SeqCst) + 1;
            most.fetch_max(in_flight, Ordering::SeqCst);
            order.lock().unwrap().push(number);
            for _ in 0..7 {
                yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            settle(&payment).await;
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert_eq!(
        (wallet.signatures(), wallet.purchases().await.len()),
        (20, 20)
    );
}

#[tokio::test]
async fn exactly_as_many_waiting_calls_pay_as_a_limit_over_time_allows() {
    let policy = exposed(usd!("0.02")).rolling(DAY, usd!("0.05"));
    let wallet = WalletHarness::new(policy);
    let payer = wallet.payer(None);
    let calls: Vec<_> = (0..12)
        .map(|number| spawn(&payer, numbered(number)))
        .collect();
    let mut outcomes = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok(payment) => {
                settle(&payment).await;
                outcomes.push(None);
            }
            Err(error) => outcomes.push(Some(error.denial().unwrap().rule)),
        }
    }
    let paid = outcomes.iter().filter(|outcome| outcome.is_none()).count();
    assert_eq!(paid, 5, "{outcomes:?}");
    assert!(outcomes[..5].iter().all(Option::is_none), "{outcomes:?}");
    assert!(
        outcomes[5..]
            .iter()
            .all(|rule| *rule == Some(Rule::Rolling)),
        "a call waits in vain for tomorrow: {outcomes:?}"
    );
}

#[tokio::test]
async fn a_denial_by_exposure_tells_calls_in_flight_from_unresolved_payments() {
    let wallet = WalletHarness::new(exposed(usd!("0.03")));
    wallet.hold(&numbered(0)).await;
    let in_flight = [
        wallet.authorize(&numbered(1)).await.unwrap(),
        wallet.authorize(&numbered(2)).await.unwrap(),
    ];
    let denial = wallet.deny(&numbered(3)).await;
    assert_eq!(parts(&denial), usd_parts(["0.03", "0.02", "0.01"]));
    // The room can return at any moment.
    assert_eq!(denial.room_returns, Some(wallet.now()));
    for part in ["0.02 USD in flight", "0.01 USD unresolved", "wait_for_room"] {
        assert!(denial.message.contains(part), "{part}: {denial}");
    }
    let json = serde_json::to_value(&denial).unwrap();
    assert_eq!(
        (&json["in_flight"], &json["unresolved"]),
        (&"0.02 USD".into(), &"0.01 USD".into())
    );

    // More than the calls in flight hold: the unresolved payment has to expire.
    let large = wallet.deny(&offer("0.03")).await;
    assert_eq!(parts(&large), usd_parts(["0.03", "0.02", "0.01"]));
    let expires = wallet.now().after(MINUTE);
    let room_returns = large.room_returns.unwrap();
    assert!(
        wallet.now() < room_returns && room_returns <= expires.after(10 * MINUTE),
        "{large}"
    );

    // A price check knows of them, too.
    let check = wallet.quote(&numbered(3)).await;
    let explanation = check.offers[0].explanation.as_ref().unwrap();
    let shown = serde_json::to_string(explanation).unwrap();
    assert!(shown.contains(r#""in_flight":"0.02 USD""#), "{shown}");

    for payment in &in_flight {
        payment.lost("the connection was reset").await;
    }
    let denial = wallet.deny(&numbered(3)).await;
    assert_eq!(parts(&denial), usd_parts(["0.03", "0.00", "0.03"]));
    assert!(denial.room_returns.unwrap() > wallet.now(), "{denial}");
    drop(in_flight);

    let other = wallet
        .deny(&offer("5").url("https://api.example.com/dear"))
        .await;
    assert!(other.room_returns.is_none() && other.message.contains("above the limit"));
}

#[tokio::test]
async fn a_dropped_call_gives_its_room_to_the_next_one() {
    let wallet = WalletHarness::new(exposed(usd!("0.01")));
    let payer = wallet.payer(None);
    let first = wallet.authorize(&numbered(0)).await.unwrap();
    let second = spawn(&payer, numbered(1));
    let_tasks_run().await;
    let third = spawn(&payer, numbered(2));
    let_tasks_run().await;
    assert!(!second.is_finished() && !third.is_finished());
    second.abort();
    let_tasks_run().await;
    settle(&first).await;
    let payment = timeout(10 * SECOND, third).await.unwrap().unwrap().unwrap();
    settle(&payment).await;
    assert_eq!(wallet.signatures(), 2);
}

#[tokio::test]
async fn a_call_that_came_later_does_not_overtake_a_larger_one_that_waits() {
    let wallet = WalletHarness::new(exposed(usd!("0.02")));
    let payer = wallet.payer(None);
    let first = wallet.authorize(&numbered(0)).await.unwrap();
    let large = spawn(&payer, offer("0.02").url("https://api.example.com/large"));
    let_tasks_run().await;
    let small = spawn(&payer, numbered(1));
    let_tasks_run().await;
    // There is a cent of room, and the large call is first.
    assert!(!large.is_finished() && !small.is_finished());
    // A call that does not wait takes it.
    let hasty = wallet.authorize(&numbered(2)).await.unwrap();
    settle(&hasty).await;
    settle(&first).await;
    let large = timeout(10 * SECOND, large).await.unwrap().unwrap().unwrap();
    let_tasks_run().await;
    assert!(!small.is_finished());
    settle(&large).await;
    let small = timeout(10 * SECOND, small).await.unwrap().unwrap().unwrap();
    settle(&small).await;
}

#[tokio::test]
async fn a_call_under_other_limits_does_not_wait_behind_those_that_wait() {
    let policy = bare().tag_limits("a", |tag| tag.exposure(usd!("0.01")));
    let wallet = WalletHarness::new(policy);
    let payer = wallet.payer(None);
    let first = wallet.authorize(&numbered(0).tag("a")).await.unwrap();
    let waits = spawn(&payer, numbered(1).tag("a"));
    let_tasks_run().await;
    let other = spawn(&payer, numbered(2).tag("b"));
    let other = timeout(10 * SECOND, other).await.unwrap().unwrap().unwrap();
    assert!(!waits.is_finished());
    settle(&other).await;
    settle(&first).await;
    let payment = timeout(10 * SECOND, waits).await.unwrap().unwrap().unwrap();
    settle(&payment).await;
}

#[tokio::test]
async fn a_call_does_not_wait_where_no_room_can_return_in_time() {
    let wallet = WalletHarness::new(
        exposed(usd!("0.02"))
            .rolling(HOUR, usd!("0.03"))
            .loop_guard(MINUTE, 2),
    );
    let payer = wallet.payer(None);
    let deny = async |offer: &TestOffer| {
        let request = waiting(offer, 30 * SECOND);
        let terms = offer.terms();
        let denied = timeout(10 * SECOND, payer.authorize(&terms, &request));
        let error = denied.await.unwrap().unwrap_err();
        error.denial().unwrap().rule
    };
    // Unresolved payments stay for a minute and more, and nobody else has this ledger.
    wallet.hold(&numbered(0)).await;
    wallet.hold(&numbered(1)).await;
    assert_eq!(deny(&numbered(2)).await, Rule::Exposure);
    wallet.advance(20 * MINUTE);
    wallet.buy(&numbered(0)).await;
    assert_eq!(deny(&numbered(3)).await, Rule::Rolling);
    assert_eq!(
        deny(&offer("0.04")).await,
        Rule::Exposure,
        "larger than the limit"
    );

    // A loop is stopped, and not slowed down.
    wallet.advance(2 * HOUR);
    wallet.buy(&numbered(0)).await;
    wallet.buy(&numbered(0)).await;
    assert_eq!(deny(&numbered(0)).await, Rule::LoopGuard);
}

#[tokio::test]
async fn a_call_waits_no_longer_than_it_says_and_the_denial_is_that_of_the_limit() {
    let wallet = WalletHarness::new(exposed(usd!("0.01")));
    let payer = wallet.payer(None);
    let first = wallet.authorize(&numbered(0)).await.unwrap();
    let second = numbered(1);
    let request = waiting(&second, Duration::from_millis(30));
    let terms = second.terms();
    let error = timeout(10 * SECOND, payer.authorize(&terms, &request));
    let error = error.await.unwrap().unwrap_err();
    let denial = error.denial().unwrap();
    assert_eq!(denial.rule, Rule::Exposure);
    assert_eq!(parts(denial), usd_parts(["0.01", "0.01", "0.00"]));
    // Its place is free again.
    settle(&first).await;
    let third = wallet.authorize(&numbered(2)).await.unwrap();
    settle(&third).await;
    assert_eq!(wallet.signatures(), 2);
}

#[tokio::test]
async fn a_call_waits_until_a_window_moves_on() {
    let wallet = WalletHarness::new(bare().payments(MINUTE, 1));
    let payer = wallet.payer(None);
    wallet.buy(&numbered(0)).await;
    let request = waiting(&numbered(1), 2 * MINUTE);
    let call = {
        let payer = payer.clone();
        tokio::spawn(async move { payer.authorize(&numbered(1).terms(), &request).await })
    };
    let_tasks_run().await;
    assert!(!call.is_finished());
    wallet.advance(MINUTE);
    let payment = timeout(10 * SECOND, call).await.unwrap().unwrap().unwrap();
    settle(&payment).await;
    assert_eq!(wallet.signatures(), 2);
}

#[tokio::test]
async fn an_identical_call_that_waits_presents_the_payment_of_the_lost_one() {
    let wallet = WalletHarness::new(exposed(usd!("0.02")));
    let payer = wallet.payer(None);
    let report = offer("0.01");
    let identical = PurchaseRequest::new("GET", &report.url, b"").unwrap();
    let first = payer.authorize(&report.terms(), &identical).await.unwrap();
    let other = wallet.authorize(&numbered(0)).await.unwrap();
    let waits = {
        let (payer, report) = (payer.clone(), report.clone());
        let request = identical.wait_for_room(MINUTE);
        tokio::spawn(async move { payer.authorize(&report.terms(), &request).await })
    };
    let_tasks_run().await;
    assert!(!waits.is_finished());
    first.lost("the connection was reset").await;
    let nonce = first.payment().nonce;
    drop(first);
    // The lease of the lost call is over.
    wallet.advance(MINUTE);
    settle(&other).await;
    let again = timeout(10 * SECOND, waits).await.unwrap().unwrap().unwrap();
    assert_eq!((again.is_again(), again.payment().nonce), (true, nonce));
    assert_eq!(wallet.signatures(), 2);
    settle(&again).await;
}

#[test]
fn the_wait_of_a_request_wins_over_that_of_its_client() {
    let of_client = PurchaseOptions::new().wait_for_room(MINUTE);
    let none = PurchaseOptions::new().wait_for_room(Duration::ZERO);
    let shown = |options: PurchaseOptions| format!("{:?}", options.with_defaults(&of_client));
    assert!(shown(none).contains("wait_for_room: Some(0ns)"));
    assert!(shown(PurchaseOptions::new()).contains("wait_for_room: Some(60s)"));
}
