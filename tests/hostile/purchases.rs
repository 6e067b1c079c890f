//! More than one purchase, or one that is asked for more than once.

use bursar::ledger::State;
use bursar::policy::Rule;
use bursar::primitives::U256;
use bursar::{
    Client, ClientBuilder, ErrorKind, PaymentStatus, RequestBuilder, ResponseExt, Signer,
    Timestamp, usd,
};
use bursar_testing::{Breakage, FalseTerms, Fault, Forgery, Paywall, Route};
use bursar_tests::clock::{DAY, TestClock};
use bursar_tests::paywall::{open, payment_status, policy, purchases};
use bursar_tests::signatures::{SignatureLog, wallet};
use tokio::task::JoinSet;

use crate::trial::{PRICE, client, idempotent_report};

fn taken(seller: &Paywall) -> U256 {
    seller.paid_by(Signer::address(&wallet()))
}

/// Starts a seller and builds a client that share a clock.
async fn meet(clock: &TestClock, route: Route, client: ClientBuilder) -> (Paywall, Client) {
    let seller = Paywall::builder()
        .route(route)
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    (seller, client.clock(clock.clone()).build().unwrap())
}

/// Sellers that take the money and lose the answer, or deny that they took it.
fn losers() -> Vec<Fault> {
    vec![
        Fault::DropAfterSettle,
        Fault::ServerErrorAfterSettle,
        Fault::StatusAfterSettle(402),
        Fault::StatusAfterSettle(404),
        Fault::StatusAfterSettle(429),
        Fault::BreakAfterSettle(Breakage::Reset),
        Fault::BreakAfterSettle(Breakage::Cut(20)),
        Fault::BreakAfterSettle(Breakage::Garbage),
        Fault::RequoteAfterSettle(FalseTerms::Price(2)),
        Fault::SettlementPending,
        Fault::ForgedReceipt(Forgery::Failure),
        Fault::NoReceipt,
    ]
}

/// Buys the report again and again, the fourth time from a seller that has become honest.
async fn retry(fault: Fault, name: fn(RequestBuilder) -> RequestBuilder) {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let seller = open(idempotent_report().fault(fault.clone())).await;
    let buy = || name(client.get(seller.url("/report"))).send();
    for _ in 0..3 {
        assert_eq!(
            payment_status(buy().await),
            PaymentStatus::MaybePaid,
            "{fault:?}"
        );
    }
    seller.clear_faults();
    let response = buy()
        .await
        .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "the report")
    );
    assert_eq!(
        (
            signed.count(),
            seller.settlements().len(),
            seller.settle_presented()
        ),
        (1, 1, 0),
        "{fault:?}"
    );
    let purchases = purchases(&client).await;
    assert_eq!(
        (purchases.len(), purchases[0].state),
        (1, State::Settled),
        "{fault:?}"
    );
}

#[tokio::test]
async fn a_purchase_that_is_retried_by_its_id_is_paid_once() {
    at_once(
        losers()
            .into_iter()
            .map(|fault| retry(fault, |request| request.purchase_id("order-1"))),
    )
    .await;
}

/// A loop around the client, as agents and retry layers are: it knows nothing of purchases.
#[tokio::test]
async fn a_request_that_is_retried_by_a_caller_who_knows_no_better_is_paid_once() {
    // What was delivered is not asked for again: the next request is another purchase.
    let lost = losers()
        .into_iter()
        .filter(|fault| *fault != Fault::NoReceipt);
    at_once(lost.map(|fault| retry(fault, |request| request))).await;
}

/// The connection breaks at every stage of the answer: in its head, in the receipt, in the body.
#[tokio::test]
async fn wherever_a_paid_answer_is_cut_the_payment_is_known() {
    let stages = (0..=600).step_by(20);
    let cut = |bytes| {
        let before = cut_off(Fault::BreakBeforeSettle(Breakage::Cut(bytes)), 0);
        [
            before,
            cut_off(Fault::BreakAfterSettle(Breakage::Cut(bytes)), 1),
        ]
    };
    let outcomes = Box::pin(at_once(stages.flat_map(cut))).await;
    assert!(
        outcomes.contains(&PaymentStatus::Paid) && outcomes.contains(&PaymentStatus::MaybePaid)
    );
}

async fn cut_off(fault: Fault, settled: usize) -> PaymentStatus {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let seller = open(idempotent_report().fault(fault.clone())).await;
    let status = payment_status(client.get(seller.url("/report")).send().await);
    assert_ne!(status, PaymentStatus::NotPaid, "{fault:?}");
    assert!(
        settled == 1 || status == PaymentStatus::MaybePaid,
        "{fault:?}"
    );
    assert_eq!(
        (signed.count(), seller.settlements().len()),
        (1, settled),
        "{fault:?}"
    );
    let purchases = purchases(&client).await;
    let state = if status == PaymentStatus::Paid {
        State::Settled
    } else {
        State::Unresolved
    };
    assert_eq!(
        (purchases.len(), purchases[0].state),
        (1, state),
        "{fault:?}"
    );
    status
}

/// Runs them all at once, because a client waits before it presents a payment again.
async fn at_once<T: Send + 'static>(
    tasks: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    tasks.into_iter().collect::<JoinSet<T>>().join_all().await
}

fn rising_price() -> Route {
    idempotent_report().fault(Fault::Terms(FalseTerms::RisingPrice(25)))
}

#[tokio::test]
async fn a_price_may_rise_within_the_maximum_rise() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy().max_price_rise(30))
        .build()
        .unwrap();
    let seller = open(rising_price()).await;
    let buy = async || {
        let response = client.get(seller.url("/report")).send().await.unwrap();
        let payment = response.receipt().unwrap().payment();
        payment.amount.to_string()
    };
    assert_eq!(buy().await, "0.01 USDC");
    assert_eq!(buy().await, "0.0125 USDC");
    // Each of the next prices is 20 % higher or less: 0.015, 0.0175, 0.02.
    for _ in 0..3 {
        buy().await;
    }
}

#[tokio::test]
async fn a_rising_price_is_stopped_by_a_limit_on_the_total() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy().rolling(DAY, usd!("0.03")))
        .build()
        .unwrap();
    let seller = open(rising_price()).await;
    let mut denied = None;
    for _ in 0..5 {
        denied = denied.or(client.get(seller.url("/report")).send().await.err());
    }
    assert_eq!(denied.unwrap().denial().unwrap().rule, Rule::Rolling);
    assert!(taken(&seller) <= U256::from(30_000));
}

#[tokio::test]
async fn a_price_that_rises_above_the_maximum_rise_is_denied() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy().max_price_rise(20))
        .build()
        .unwrap();
    let seller = open(rising_price()).await;
    client.get(seller.url("/report")).send().await.unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::PriceRise);
    assert_eq!((signed.count(), taken(&seller)), (1, U256::from(PRICE)));
}

#[tokio::test]
async fn a_pinned_payee_is_the_only_one() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy().payee_pinned()).build().unwrap();
    let seller = open(idempotent_report().fault(Fault::Terms(FalseTerms::ChangingPayTo))).await;
    client.get(seller.url("/report")).send().await.unwrap();
    for _ in 0..3 {
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.payment_status(), error.denial().unwrap().rule),
            (PaymentStatus::NotPaid, Rule::PayeeChanged)
        );
    }
    assert_eq!(
        (
            signed.count(),
            seller.settlements().len(),
            seller.settle_presented()
        ),
        (1, 1, 0)
    );
}

/// Sellers that take signatures, deny service and keep what they hold: all of it counts.
#[tokio::test]
async fn kept_payments_count_until_they_expire() {
    let (clock, signed) = (TestClock::default(), SignatureLog::default());
    let builder = client(&signed, policy().exposure(usd!("0.03")));
    let route = Route::any("/*")
        .price(usd!("0.01"))
        .fault(Fault::StatusBeforeSettle(500));
    let (seller, client) = meet(&clock, route, builder).await;
    let buy = |path: &str| client.get(seller.url(path)).send();
    for path in ["/1", "/2", "/3"] {
        assert_eq!(payment_status(buy(path).await), PaymentStatus::MaybePaid);
    }
    let error = buy("/4").await.unwrap_err();
    assert_eq!(
        (error.payment_status(), error.denial().unwrap().rule),
        (PaymentStatus::NotPaid, Rule::Exposure)
    );
    assert_eq!(signed.count(), 3);

    // At the last moment the seller can still take it all, and no more; a moment later, nothing.
    let valid_before = signed.all()[0].valid_before();
    clock.set(Timestamp::from_secs(valid_before - 1));
    assert_eq!(
        buy("/5").await.unwrap_err().denial().unwrap().rule,
        Rule::Exposure
    );
    assert_eq!(
        (seller.settle_presented(), taken(&seller)),
        (3, U256::from(30_000))
    );
    let counted: U256 = purchases(&client)
        .await
        .iter()
        .map(|purchase| purchase.value)
        .sum();
    assert_eq!(counted, taken(&seller));
}

#[tokio::test]
async fn expired_payments_cannot_be_cashed_and_still_count_over_time() {
    let (clock, signed) = (TestClock::default(), SignatureLog::default());
    let builder = client(
        &signed,
        policy().exposure(usd!("0.01")).rolling(DAY, usd!("0.02")),
    );
    let route = Route::any("/*")
        .price(usd!("0.01"))
        .fault(Fault::StatusBeforeSettle(500));
    let (seller, client) = meet(&clock, route, builder).await;
    let buy = |path: &str| client.get(seller.url(path)).send();
    assert_eq!(payment_status(buy("/1").await), PaymentStatus::MaybePaid);
    clock.set(Timestamp::from_secs(signed.all()[0].valid_before()));
    assert_eq!(seller.settle_presented(), 0);
    assert_eq!(
        buy("/2").await.unwrap_err().denial().unwrap().rule,
        Rule::Exposure,
        "blocks date themselves"
    );
    clock.set(Timestamp::from_secs(signed.all()[0].valid_before() + 599));
    assert_eq!(
        buy("/2").await.unwrap_err().denial().unwrap().rule,
        Rule::Exposure,
        "this clock can be ahead of the chain"
    );
    clock.set(Timestamp::from_secs(signed.all()[0].valid_before() + 600));
    assert_eq!(payment_status(buy("/3").await), PaymentStatus::MaybePaid);
    clock.set(Timestamp::from_secs(signed.all()[1].valid_before() + 600));
    // No proof that the first two were not paid: they count until their day is over.
    assert_eq!(
        buy("/4").await.unwrap_err().denial().unwrap().rule,
        Rule::Rolling
    );
    assert_eq!((signed.count(), seller.settle_presented()), (2, 0));
}

#[tokio::test]
async fn old_and_new_terms_of_one_purchase_exclude_each_other() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let seller = open(idempotent_report().fault(Fault::Requote(FalseTerms::Price(2)))).await;
    let error = client
        .get(seller.url("/report"))
        .accept_new_terms()
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Rejected, PaymentStatus::MaybePaid)
    );
    let values: Vec<U256> = signed
        .all()
        .iter()
        .map(|authorization| authorization.value())
        .collect();
    assert_eq!(values, [U256::from(10_000), U256::from(20_000)]);

    assert_eq!(seller.settle_presented(), 1);
    let purchases = purchases(&client).await;
    assert_eq!(
        (purchases.len(), purchases[0].value),
        (1, U256::from(20_000)),
        "the books hold the larger"
    );
    assert!(taken(&seller) <= purchases[0].value);
}

/// A receipt that names another purchase's transaction is a claim, and releases nothing.
#[tokio::test]
async fn a_transaction_that_is_shown_twice_pays_for_nothing_twice() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let seller = open(
        Route::any("/*")
            .price(usd!("0.01"))
            .fault(Fault::ForgedReceipt(Forgery::OtherPurchase)),
    )
    .await;
    let first = client.get(seller.url("/1")).send().await.unwrap();
    let second = client.get(seller.url("/2")).send().await.unwrap();
    assert_eq!(
        first.receipt().unwrap().transaction(),
        second.receipt().unwrap().transaction()
    );
    let purchases = purchases(&client).await;
    assert!(
        purchases
            .iter()
            .all(|purchase| purchase.verified_transaction.is_none())
    );
    let counted: U256 = purchases.iter().map(|purchase| purchase.value).sum();
    assert_eq!(
        (counted, taken(&seller)),
        (U256::from(20_000), U256::from(20_000))
    );
}

#[tokio::test]
async fn a_402_in_a_circle_is_left_after_ten_turns() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let seller = open(Route::get("/report").redirect("/report?again")).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Transport, PaymentStatus::NotPaid)
    );
    assert!(seller.requests().len() <= 11, "{}", seller.requests().len());
}

/// A seller that answers with terms, forever: one payment for one call.
#[tokio::test]
async fn endless_402s_cost_one_payment() {
    for fault in [
        Fault::Requote(FalseTerms::RisingPrice(10)),
        Fault::RequoteAfterSettle(FalseTerms::ChangingPayTo),
    ] {
        let signed = SignatureLog::default();
        let client = client(&signed, policy()).build().unwrap();
        let seller = open(idempotent_report().fault(fault)).await;
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Rejected, PaymentStatus::MaybePaid)
        );
        assert_eq!(signed.count(), 1);
        assert!(seller.settlements().len() + seller.settle_presented() <= 1);
    }
}

#[tokio::test]
async fn an_identifier_of_the_sellers_choice_is_not_taken() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let chosen = "pay_known_to_others";
    let seller = open(
        idempotent_report().fault(Fault::Terms(FalseTerms::PresetIdentifier(
            chosen.to_owned(),
        ))),
    )
    .await;
    client.get(seller.url("/report")).send().await.unwrap_err();
    let sent = seller
        .requests()
        .into_iter()
        .filter_map(|request| request.payment);
    let sent: Vec<String> = sent
        .filter_map(|payment| payment.identifier().map(ToOwned::to_owned))
        .collect();
    assert!(
        !sent.is_empty() && sent.iter().all(|id| id != chosen && id.len() >= 32),
        "{sent:?}"
    );
}

/// What an earlier answer of a cache, or of nobody, put on the connection is not an answer.
#[tokio::test]
async fn a_smuggled_answer_never_counts_as_paid() {
    for _ in 0..20 {
        let signed = SignatureLog::default();
        let client = client(&signed, policy()).build().unwrap();
        let seller =
            open(idempotent_report().fault(Fault::BreakTerms(Breakage::ExtraResponse))).await;
        // The connection may be used again before the surplus is seen on it.
        let Ok(response) = client.get(seller.url("/report")).send().await else {
            continue;
        };
        assert!(
            response.payment_status() == PaymentStatus::MaybePaid
                || seller.settlements().len() == 1,
            "{response:?}"
        );
    }
}

/// A shared cache keeps a 402 for a day: price and payee may have changed since.
#[tokio::test]
async fn terms_that_a_cache_kept_are_not_paid_as_they_are() {
    let signed = SignatureLog::default();
    let client = client(&signed, policy()).build().unwrap();
    let seller = open(idempotent_report().fault(Fault::StaleTerms(86_400))).await;
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.payment_status(), signed.count()),
        (PaymentStatus::NotPaid, 0)
    );
}
