//! Limits, permissions and costs of calls with a key.

use bursar::credential::CallPlan;
use bursar::ledger::{LedgerError, State};
use bursar::policy::{Permission, Rule};
use bursar::{Ledger, PaymentStatus, ResponseExt, Timestamp, Usd, usd};
use bursar_testing::{Paywall, Route};
use bursar_tests::clock::DAY;
use bursar_tests::paywall::{client, open, policy, purchases};

use crate::{bearer, client_with, keyed_report, keys, recorded, requests_with_key, ways};

#[tokio::test]
async fn a_limit_in_dollars_holds_for_calls_and_payments_together() {
    let directory = tempfile::tempdir().unwrap();
    let seller = open(keyed_report()).await;
    let limited = policy().rolling(DAY, usd!("0.03"));
    let ledger = Ledger::sqlite(directory.path().join("ledger.db")).unwrap();
    let credential = bearer("right").plan(CallPlan::per_call(usd!("0.01")));
    let caller = client()
        .policy(limited.clone())
        .ledger(ledger.clone())
        .credentials(keys(credential))
        .build()
        .unwrap();
    let payer = client().policy(limited).ledger(ledger).build().unwrap();
    caller.get(seller.url("/report")).send().await.unwrap();
    payer.get(seller.url("/report")).send().await.unwrap();
    caller.get(seller.url("/report")).send().await.unwrap();
    let sent = seller.requests().len();
    let error = caller.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, error.payment_status()),
        (Rule::Rolling, PaymentStatus::NotPaid)
    );
    assert_eq!(
        seller.requests().len(),
        sent,
        "a call that is refused is not made"
    );
    let error = payer.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (error.denial().unwrap().rule, seller.settlements().len()),
        (Rule::Rolling, 1)
    );
    let called = purchases(&caller)
        .await
        .iter()
        .filter(|purchase| purchase.state == State::ApiCall)
        .count();
    assert_eq!(called, 2);
}

#[tokio::test]
async fn calls_are_no_payments_to_the_limits_that_count_them() {
    let seller = open(keyed_report()).await;
    let once = policy().payments(DAY, 1).loop_guard(DAY, 1);
    let client = client()
        .policy(once)
        .credentials(keys(bearer("right")))
        .build()
        .unwrap();
    for _ in 0..3 {
        assert_eq!(
            client
                .get(seller.url("/report"))
                .send()
                .await
                .unwrap()
                .payment_status(),
            PaymentStatus::NotPaid
        );
    }
    let other = seller.url("/report?paid");
    assert_eq!(
        client
            .get(other)
            .header("authorization", "my own")
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        401
    );
    assert_eq!(ways(&seller), ["key", "key", "key", "key"]);
    assert_eq!(
        recorded(&client).await.len(),
        3,
        "the caller's own header is the caller's own affair"
    );
}

#[tokio::test]
async fn a_call_and_a_payment_that_are_both_refused_tell_both() {
    let seller = open(keyed_report().key_quota(0, 429)).await;
    let poor = policy().per_payment(usd!("0.001"));
    let client = client()
        .policy(poor)
        .credentials(keys(bearer("right")))
        .build()
        .unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(
        (
            error.denial().unwrap().rule,
            error.status().unwrap().as_u16()
        ),
        (Rule::PerPayment, 429)
    );
    assert!(
        error
            .to_string()
            .contains("before that, the key `example` was answered 429"),
        "{error}"
    );
    let closed = open(
        Route::get("/report")
            .body("closed")
            .accepts_key("authorization", "Bearer other"),
    )
    .await;
    let response = client.get(closed.url("/report")).send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), ways(&closed)),
        (401, vec!["key", "neither"])
    );
}

#[tokio::test]
async fn what_is_not_permitted_is_not_sent_paid_or_not() {
    let seller = Paywall::builder()
        .route(keyed_report())
        .route(Route::any("/v1/*").body("free"))
        .route(Route::get("/start").redirect("/admin"))
        .route(Route::get("/admin").body("admin"))
        .start()
        .await
        .unwrap();
    let permitted = policy()
        .permit(
            Permission::new()
                .agent("scout")
                .host("127.0.0.1")
                .method("GET")
                .path("/v1/*")
                .path("/start"),
        )
        .permit(
            Permission::new()
                .agent("scout")
                .tag("buyer")
                .path("/report"),
        );
    let client = client()
        .policy(permitted)
        .agent("scout")
        .credentials(keys(bearer("wrong")))
        .build()
        .unwrap();
    assert_eq!(
        client
            .get(seller.url("/v1/x"))
            .send()
            .await
            .unwrap()
            .status()
            .as_u16(),
        200
    );
    assert_eq!(
        client
            .get(seller.url("/report"))
            .tag("buyer")
            .send()
            .await
            .unwrap()
            .payment_status(),
        PaymentStatus::Paid
    );
    let sent = seller.requests().len();
    for request in [
        client.get(seller.url("/report")),
        client.get(seller.url("/report")).tag("other"),
        client.get(seller.url("/report")).no_payment(),
        client.post(seller.url("/v1/x")),
        client.get(seller.url("/v1/x/y")),
        client.get("https://elsewhere.example/v1/x"),
    ] {
        let error = request.send().await.unwrap_err();
        assert_eq!(
            (error.denial().unwrap().rule, error.payment_status()),
            (Rule::Permission, PaymentStatus::NotPaid),
            "{error}"
        );
    }
    let asked = client.get(seller.url("/report")).quote().await.unwrap_err();
    assert_eq!(asked.denial().unwrap().rule, Rule::Permission);
    assert_eq!(seller.requests().len(), sent, "nothing was sent");
    let redirected = client.get(seller.url("/start")).send().await.unwrap_err();
    assert_eq!(redirected.denial().unwrap().rule, Rule::Permission);
    assert!(
        !seller
            .requests()
            .iter()
            .any(|request| request.path() == "/admin")
    );
}

#[tokio::test]
async fn a_comparison_reckons_with_what_was_really_called() {
    let days = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let clock = {
        let days = std::sync::Arc::clone(&days);
        let start = bursar::clock::Clock::now(&bursar::clock::SystemClock).secs();
        move || {
            Timestamp::from_secs(start + 86_400 * days.load(std::sync::atomic::Ordering::SeqCst))
        }
    };
    let seller = Paywall::builder()
        .route(keyed_report().key_quota(3, 429))
        .clock(clock.clone())
        .start()
        .await
        .unwrap();
    let credential = bearer("right").plan(CallPlan::per_call(usd!("0.004")));
    let client = client()
        .clock(clock)
        .credentials(keys(credential))
        .build()
        .unwrap();
    for call in 0..5 {
        client.get(seller.url("/report")).send().await.unwrap();
        if call == 1 {
            // Two months on.
            days.store(62, std::sync::atomic::Ordering::SeqCst);
        }
    }
    let plan: CallPlan = "monthly=0.05,included=1,per-call=0.001".parse().unwrap();
    let compared = client
        .ledger()
        .unwrap()
        .compare("127.0.0.1", &plan)
        .await
        .unwrap();
    assert_eq!((compared.payments, compared.paid), (2, usd!("0.02")));
    assert_eq!((compared.calls, compared.declared), (3, usd!("0.012")));
    let calls: Vec<_> = compared
        .months
        .iter()
        .map(|month| (month.calls, month.planned.unwrap()))
        .collect();
    assert_eq!(calls.first(), Some(&(2, usd!("0.051"))));
    assert_eq!(calls.last(), Some(&(3, usd!("0.052"))));
    assert!(
        calls
            .iter()
            .rev()
            .skip(1)
            .skip_while(|month| month.0 > 0)
            .all(|month| month.0 > 0 || month.1 == usd!("0.05"))
    );
    // 0.05 + (n - 1) 0.001 < 0.01 n from n = 6 on.
    assert_eq!(compared.wins_from, Some(6));
    assert!(
        client
            .ledger()
            .unwrap()
            .compare("elsewhere.example", &plan)
            .await
            .unwrap()
            .months
            .is_empty()
    );
    let refused = client
        .ledger()
        .unwrap()
        .compare("not a host", &plan)
        .await
        .unwrap_err();
    assert!(matches!(refused, LedgerError::Host(_)), "{refused}");
}

/// One call is included; of several at once only one may be had for nothing, and the limit holds.
#[tokio::test]
async fn calls_at_the_same_time_do_not_share_what_the_plan_includes_once() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = Ledger::sqlite(directory.path().join("ledger.db")).unwrap();
    let seller = open(keyed_report()).await;
    let plan = CallPlan::per_call(usd!("0.01")).included(1);
    let limited = policy().rolling(DAY, usd!("0.02"));
    let client = client_with(bearer("right").plan(plan))
        .policy(limited)
        .ledger(ledger)
        .build()
        .unwrap();
    let call = || async {
        client
            .get(seller.url("/report"))
            .send()
            .await
            .map(|response| response.status().as_u16())
    };
    let (one, two, three, four, five) = tokio::join!(call(), call(), call(), call(), call());
    let answers = [one, two, three, four, five];
    let made = answers
        .iter()
        .filter(|answer| matches!(answer, Ok(200)))
        .count();
    let refused = |answer: &&Result<u16, bursar::Error>| {
        answer.as_ref().is_err_and(|error| {
            error
                .denial()
                .is_some_and(|denial| denial.rule == Rule::Rolling)
        })
    };
    assert_eq!((made, answers.iter().filter(refused).count()), (3, 2));
    assert_eq!(requests_with_key(&seller), 3);
    let counted = recorded(&client)
        .await
        .into_iter()
        .filter(|(state, _)| *state == State::ApiCall);
    let mut counted: Vec<Usd> = counted.map(|(_, cost)| cost).collect();
    counted.sort_unstable();
    assert_eq!(counted, [Usd::ZERO, usd!("0.01"), usd!("0.01")]);
}

/// An order to stop holds for calls by key, and so does the price that the caller allows.
#[tokio::test]
async fn an_order_to_stop_and_a_price_hold_for_calls() {
    let seller = open(keyed_report()).await;
    let client = client_with(bearer("right").plan(CallPlan::per_call(usd!("0.002"))))
        .build()
        .unwrap();
    let dear = client
        .get(seller.url("/report"))
        .max_price(usd!("0.001"))
        .send()
        .await
        .unwrap_err();
    assert_eq!(dear.denial().unwrap().rule, Rule::MaxPrice);
    client.ledger().unwrap().freeze("enough").await.unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Frozen);
    assert!(seller.requests().is_empty());
}
