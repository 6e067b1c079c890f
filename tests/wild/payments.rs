//! Payments that were settled, refused or lost, and are presented again.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use bursar::ledger::{Filter, State};
use bursar::policy::Rule;
use bursar::{
    Client, ClientBuilder, Error, ErrorKind, Ledger, PaymentStatus, ResponseExt, RetryPolicy,
};
use bursar_testing::{Breakage, Fault, Paywall, Route};
use bursar_tests::clock::{MONDAY_NOON, TestClock};
use bursar_tests::paywall::{client, distinct_payments, open, payments_sent, policy, report};
use bursar_tests::signatures::SignatureLog;

/// The statuses with which the same request may succeed a moment later.
const TEMPORARY: [u16; 8] = [408, 409, 425, 429, 500, 502, 503, 504];
/// Errors about the request itself.
const HONEST: [u16; 7] = [400, 401, 403, 404, 410, 415, 422];

fn logged(signatures: &SignatureLog) -> ClientBuilder {
    client().signer(signatures.signer())
}

async fn get(client: &Client, seller: &Paywall) -> Result<reqwest::Response, Error> {
    client.get(seller.url("/report")).send().await
}

async fn states(client: &Client) -> Vec<State> {
    let ledger = client.ledger().unwrap();
    let purchases = ledger.purchases(&Filter::all()).await.unwrap();
    purchases.iter().map(|purchase| purchase.state).collect()
}

/// Starts a paywall that shows the time of this clock.
async fn open_at(clock: &TestClock, route: Route) -> Paywall {
    let builder = Paywall::builder().route(route).clock(clock.clone());
    builder.start().await.unwrap()
}

/// Returns a report of a seller that delivers for a payment that it settled before.
fn patient(route: Route) -> Route {
    route.idempotent()
}

#[tokio::test]
async fn a_settled_payment_is_presented_until_the_goods_come() {
    for status in TEMPORARY {
        let route = patient(report()).fault_once(Fault::StatusWithReceipt(status));
        let seller = open(route).await;
        let signatures = SignatureLog::default();
        let client = logged(&signatures).build().unwrap();
        let response = get(&client, &seller).await.unwrap();
        assert_eq!(response.status(), 200, "{status}");
        assert_eq!(response.payment_status(), PaymentStatus::Paid);
        assert_eq!(response.text().await.unwrap(), "the report");
        assert_eq!(signatures.count(), 1);
        assert_eq!((payments_sent(&seller), distinct_payments(&seller)), (2, 1));
        assert_eq!(seller.settlements().len(), 1);
        assert_eq!(states(&client).await, [State::Settled]);
    }
}

#[tokio::test]
async fn an_identical_request_presents_a_settled_payment_whose_goods_did_not_come() {
    for status in TEMPORARY.into_iter().chain(HONEST) {
        let seller = open(patient(report()).fault(Fault::StatusWithReceipt(status))).await;
        let signatures = SignatureLog::default();
        let client = logged(&signatures).build().unwrap();
        let first = get(&client, &seller).await.unwrap();
        assert_eq!(first.status(), status);
        assert_eq!(first.payment_status(), PaymentStatus::Paid);
        let purchase = first.payment().unwrap().purchase.clone();

        seller.clear_faults();
        let second = get(&client, &seller).await.unwrap();
        assert_eq!(second.status(), 200);
        assert_eq!(second.payment().unwrap().purchase, purchase);
        assert_eq!(second.payment_status(), PaymentStatus::Paid);
        assert_eq!(signatures.count(), 1, "{status}: paid twice");
        assert_eq!(seller.settlements().len(), 1);

        // The goods are there: the next request buys again.
        get(&client, &seller).await.unwrap();
        assert_eq!(signatures.count(), 2);
    }
}

#[tokio::test]
async fn a_refusal_of_a_settled_payment_names_the_purchase_and_the_way_to_buy_again() {
    // An official seller refuses a nonce that is used.
    let seller = open(report().fault(Fault::StatusWithReceipt(500))).await;
    let signatures = SignatureLog::default();
    let client = logged(&signatures).build().unwrap();
    let first = get(&client, &seller).await.unwrap();
    assert_eq!(first.status(), 500);
    let purchase = first.payment().unwrap().purchase.clone();

    seller.clear_faults();
    for _ in 0..2 {
        let error = get(&client, &seller).await.unwrap_err();
        assert_eq!(error.payment_status(), PaymentStatus::Paid);
        assert_eq!(error.purchase_id(), Some(&purchase));
        assert!(error.to_string().contains("allow_duplicate"), "{error}");
        assert!(error.to_string().contains(purchase.as_str()), "{error}");
    }
    assert_eq!(signatures.count(), 1);

    let again = client.get(seller.url("/report")).allow_duplicate();
    assert_eq!(again.send().await.unwrap().status(), 200);
    assert_eq!(signatures.count(), 2);
}

#[tokio::test]
async fn a_settled_payment_that_is_too_old_is_not_presented() {
    let clock = TestClock::starting_at(MONDAY_NOON);
    let seller = open_at(
        &clock,
        patient(report()).fault(Fault::StatusWithReceipt(500)),
    )
    .await;
    let signatures = SignatureLog::default();
    let client = logged(&signatures).clock(clock.clone()).build().unwrap();
    get(&client, &seller).await.unwrap();
    clock.advance(Duration::from_secs(3600));
    seller.clear_faults();
    get(&client, &seller).await.unwrap();
    assert_eq!(signatures.count(), 2);
}

#[tokio::test]
async fn a_body_that_breaks_is_presented_again_by_the_next_request() {
    let broken = [
        Fault::BrokenBodyAfterSettle,
        Fault::BreakAfterSettle(Breakage::ShortBody),
    ];
    for fault in broken {
        let seller = open(patient(report()).fault_once(fault)).await;
        let signatures = SignatureLog::default();
        let client = logged(&signatures).build().unwrap();
        let first = get(&client, &seller).await.unwrap();
        assert_eq!(first.payment_status(), PaymentStatus::Paid);
        first.text().await.unwrap_err();

        let second = get(&client, &seller).await.unwrap();
        assert_eq!(second.text().await.unwrap(), "the report");
        assert_eq!(signatures.count(), 1);
        assert_eq!(seller.settlements().len(), 1);
        get(&client, &seller).await.unwrap();
        assert_eq!(signatures.count(), 2);
    }
}

/// Answers that leave open whether the payment settles.
#[tokio::test]
async fn an_uncertain_reason_presents_the_same_payment_again() {
    let reasons = [
        "settlement_pending",
        "settle_exact_evm_transaction_confirmation_timed_out",
        "settle_exact_node_failure",
        "invalid_exact_evm_failed_to_get_receipt",
        "unexpected_settle_error",
    ];
    for reason in reasons {
        for route in [report(), report().v1()] {
            let fault = Fault::FailureReason(reason.to_owned());
            let seller = open(route.fault_once(fault)).await;
            let signatures = SignatureLog::default();
            let client = logged(&signatures).build().unwrap();
            let response = get(&client, &seller).await.unwrap();
            assert_eq!(response.status(), 200, "{reason}");
            assert_eq!(signatures.count(), 1);
            assert_eq!(distinct_payments(&seller), 1);
            assert_eq!(seller.settlements().len(), 1);
        }
    }
}

#[tokio::test]
async fn an_uncertain_reason_that_stays_is_no_failure_to_settle() {
    let body = r#"{"error":"Settlement failed","details":"{\"errorReason\":\"settle_exact_node_failure\"}"}"#;
    let faults = [
        Fault::FailureReason("settle_exact_node_failure".to_owned()),
        Fault::RefusalInTerms("settlement_pending".to_owned()),
        Fault::Foreign402(body.to_owned()),
    ];
    for fault in faults {
        let seller = open(report().fault(fault)).await;
        let client = client().build().unwrap();
        let error = get(&client, &seller).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SettlementPending, "{error}");
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
        assert!(!error.to_string().contains("could not settle"), "{error}");
        assert!(payments_sent(&seller) > 1, "presented once only");
        assert_eq!(distinct_payments(&seller), 1);
        assert_eq!(states(&client).await, [State::Unresolved]);
    }
}

#[tokio::test]
async fn a_refusal_shows_the_words_of_the_seller() {
    let cases = [
        (
            Fault::FailureReason("invalid_exact_evm_insufficient_balance".to_owned()),
            "invalid_exact_evm_insufficient_balance",
        ),
        (
            Fault::RefusalInTerms("No matching payment requirements".to_owned()),
            "No matching payment requirements",
        ),
        (
            Fault::Foreign402(
                r#"{"error":{"message":"Insufficient Balance","code":"invalid_request_error"}}"#
                    .to_owned(),
            ),
            "Insufficient Balance",
        ),
        (
            Fault::Foreign402(r#"{"detail":"try another plan"}"#.to_owned()),
            "try another plan",
        ),
        (
            Fault::Foreign402("a gateway without JSON".to_owned()),
            "a gateway without JSON",
        ),
    ];
    for (fault, words) in cases {
        let seller = open(report().fault(fault)).await;
        let client = client().build().unwrap();
        let error = get(&client, &seller).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("could not settle"), "{error}");
        assert!(error.reason().unwrap().contains(words));
        assert_eq!(payments_sent(&seller), 1);
    }
}

/// A gateway's own supplier answers 402, and the seller took the payment.
#[tokio::test]
async fn a_402_with_a_receipt_is_paid_and_counts_as_undelivered() {
    let seller = open(report().fault(Fault::StatusWithReceipt(402))).await;
    let client = client().build().unwrap();
    let error = get(&client, &seller).await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    assert!(error.to_string().contains("the upstream failed"), "{error}");
    let ledger = client.ledger().unwrap();
    let purchases = ledger.purchases(&Filter::all()).await.unwrap();
    assert!(purchases[0].failed());
    assert_eq!(purchases[0].state, State::Settled);
}

#[tokio::test]
async fn a_402_without_terms_and_receipt_stays_unresolved_and_counts_as_undelivered() {
    let seller = open(report().fault(Fault::Foreign402("{}".to_owned()))).await;
    let client = client().build().unwrap();
    for number in 0..4 {
        let url = seller.url(&format!("/report?n={number}"));
        let error = client.get(url).send().await.unwrap_err();
        match number {
            3 => assert_eq!(
                error.denial().map(|denial| denial.rule),
                Some(Rule::CircuitBreaker)
            ),
            _ => assert_eq!(error.kind(), ErrorKind::Rejected),
        }
    }
}

/// Each request comes 30 seconds after the last, for an hour.
async fn an_hour_of_refusals(fault: Fault) -> (usize, Error, Client) {
    let clock = TestClock::starting_at(MONDAY_NOON);
    let seller = open_at(&clock, report().price(bursar::usd!("0.05")).fault(fault)).await;
    let signatures = SignatureLog::default();
    let client = logged(&signatures).clock(clock.clone()).build().unwrap();
    let mut last = None;
    for _ in 0..120 {
        last = Some(get(&client, &seller).await.unwrap_err());
        clock.advance(Duration::from_secs(30));
    }
    (signatures.count(), last.unwrap(), client)
}

#[tokio::test]
async fn an_empty_wallet_stops_signing() {
    for reason in [
        "insufficient_funds",
        "invalid_exact_evm_insufficient_balance",
    ] {
        let fault = Fault::FailureReason(reason.to_owned());
        let (signatures, error, client) = an_hour_of_refusals(fault).await;
        assert!((3..=5).contains(&signatures), "{signatures} signatures");
        let denial = error.denial().unwrap();
        assert_eq!(denial.rule, Rule::WalletEmpty);
        let wallet = client.payer().unwrap().address().to_string();
        for part in [wallet.as_str(), "USDC", "eip155:84532", reason] {
            assert!(denial.message.contains(part), "{part}: {denial}");
        }
        assert!(denial.room_returns.is_some());
        // The day's budget is not used up: 5 USD, of which at most five payments count.
        let budget = client.payer().unwrap().budget().await.unwrap();
        assert!(budget.iter().all(|status| status.denial.is_none()));
    }
}

#[tokio::test]
async fn a_seller_that_refuses_every_payment_is_left_alone() {
    let fault = Fault::RefusalInTerms("unsupported_scheme".to_owned());
    let (signatures, error, _) = an_hour_of_refusals(fault).await;
    assert!((3..=5).contains(&signatures), "{signatures} signatures");
    assert_eq!(error.denial().unwrap().rule, Rule::RefusedBefore);
}

#[tokio::test]
async fn the_next_process_knows_of_the_empty_wallet() {
    let ledger = Ledger::memory();
    let fault = Fault::FailureReason("insufficient_funds".to_owned());
    let seller = open(report().fault(fault)).await;
    for number in 0..4 {
        let client = client()
            .signer(SignatureLog::default().signer())
            .ledger(ledger.clone())
            .build()
            .unwrap();
        let url = seller.url(&format!("/report?n={number}"));
        let error = client.get(url).send().await.unwrap_err();
        assert_eq!(error.denial().is_some(), number == 3, "{number}: {error}");
    }
}

#[tokio::test]
async fn one_seller_alone_cannot_stop_the_payments_to_others() {
    let fault = || Fault::FailureReason("insufficient_funds".to_owned());
    let (liar, other) = (open(report().fault(fault())).await, open(report()).await);
    let second = open(report().fault(fault())).await;
    let signatures = SignatureLog::default();
    let client = logged(&signatures).build().unwrap();
    let buy = async |seller: &Paywall, number: usize| {
        let url = seller.url(&format!("/report?n={number}"));
        let answer = client.get(url).send().await;
        answer
            .err()
            .and_then(|error| error.denial().map(|denial| denial.rule))
    };
    for number in 0..3 {
        assert_eq!(buy(&liar, number).await, None);
    }
    assert_eq!(buy(&liar, 3).await, Some(Rule::WalletEmpty));
    // A second seller agrees: now the pause is for all of them.
    assert_eq!(buy(&second, 0).await, None);
    assert_eq!(buy(&other, 0).await, Some(Rule::WalletEmpty));
    assert_eq!(signatures.count(), 4);

    let client = logged(&signatures).build().unwrap();
    for number in 0..4 {
        drop(
            client
                .get(liar.url(&format!("/report?n={number}")))
                .send()
                .await,
        );
    }
    get(&client, &other).await.unwrap();
}

#[tokio::test]
async fn a_settled_payment_ends_the_pause() {
    let fault = || Fault::FailureReason("insufficient_funds".to_owned());
    let route = report().fault_once(fault()).fault_once(fault());
    let seller = open(route).await;
    let signatures = SignatureLog::default();
    let client = logged(&signatures).build().unwrap();
    for number in 0..3 {
        let url = seller.url(&format!("/report?n={number}"));
        assert_eq!(client.get(url).send().await.is_ok(), number == 2);
    }
    assert_eq!(signatures.count(), 3);
}

#[tokio::test]
async fn honest_errors_do_not_open_the_circuit_breaker() {
    for status in HONEST {
        let seller = open(report().fault(Fault::StatusBeforeSettle(status))).await;
        let client = client().build().unwrap();
        for number in 0..6 {
            let url = seller.url(&format!("/report?n={number}"));
            let response = client.get(url).send().await.unwrap();
            assert_eq!(response.status(), status);
        }
    }
}

#[tokio::test]
async fn the_circuit_breaker_names_its_setting_and_accuses_nobody() {
    let seller = open(report().fault(Fault::StatusBeforeSettle(500))).await;
    let client = client().policy(policy()).build().unwrap();
    let mut denial = None;
    for number in 0..4 {
        let url = seller.url(&format!("/report?n={number}"));
        denial = match client.get(url).send().await {
            Ok(response) => {
                assert_eq!(response.status(), 500);
                None
            }
            Err(error) => error.denial().cloned(),
        };
    }
    let denial = denial.unwrap();
    assert!(denial.message.contains("circuit_breaker"), "{denial}");
    assert!(!denial.message.contains("took"), "{denial}");
}

#[tokio::test]
async fn a_receipt_may_leave_out_network_and_payer() {
    for empty in [true, false] {
        for route in [report(), report().v1()] {
            let seller = open(route.fault(Fault::ShortReceipt { empty })).await;
            let client = client().build().unwrap();
            let response = get(&client, &seller).await.unwrap();
            assert_eq!(response.payment_status(), PaymentStatus::Paid);
        }
    }
}

#[tokio::test]
async fn a_connection_lost_after_a_receipt_is_paid_and_presented_again() {
    let route = patient(report())
        .fault_once(Fault::StatusWithReceipt(502))
        .fault(Fault::DropAfterSettle);
    let seller = open(route).await;
    let signatures = SignatureLog::default();
    let client = logged(&signatures).build().unwrap();
    let error = get(&client, &seller).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    assert!(error.to_string().contains("allow_duplicate"), "{error}");

    seller.clear_faults();
    let second = get(&client, &seller).await.unwrap();
    assert_eq!(second.status(), 200);
    assert_eq!((signatures.count(), seller.settlements().len()), (1, 1));
}

#[tokio::test]
async fn a_delivered_purchase_that_is_asked_for_again_accuses_nobody() {
    let seller = open(report()).await;
    let client = client().build().unwrap();
    let order = || client.get(seller.url("/report")).purchase_id("order-7");
    order().send().await.unwrap();
    let error = order().send().await.unwrap_err();
    assert_eq!(error.payment_status(), PaymentStatus::Paid);
    let text = error.to_string();
    assert!(text.contains("delivered before"), "{text}");
    assert!(!text.contains("did not deliver"), "{text}");
}

#[tokio::test]
async fn a_call_that_is_dropped_between_two_presentations_is_resumed() {
    let route = patient(report()).fault_once(Fault::StatusWithReceipt(500));
    let seller = open(route).await;
    let signatures = SignatureLog::default();
    let slow = RetryPolicy {
        initial_backoff: Duration::from_secs(20),
        ..RetryPolicy::default()
    };
    let client = logged(&signatures).retry_policy(slow).build().unwrap();
    {
        let call = get(&client, &seller);
        let settled = async {
            while states(&client).await != [State::Settled] {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = call => panic!("{answer:?}"),
            () = settled => {}
        }
    }
    let second = get(&client, &seller).await.unwrap();
    assert_eq!(second.status(), 200);
    assert_eq!((signatures.count(), seller.settlements().len()), (1, 1));
}
