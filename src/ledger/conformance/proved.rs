//! Outcomes that the chain proves, refunds, freezes and counts of failures.

use std::sync::Arc;

use super::*;
use crate::ledger::Freeze;

pub(in crate::ledger) async fn released(
    ledger: &Ledger,
    key: &PurchaseKey,
    valid_before: u64,
    cancelled: bool,
) -> Transition {
    let nonce = state(ledger, key).await.nonce;
    Transition::ReleasedByProof {
        nonce,
        valid_before: Some(valid_before),
        cancelled,
        proof: "{}".to_owned(),
    }
}

pub(super) async fn confirmed(ledger: &Ledger, key: &PurchaseKey, proof: &str) -> Transition {
    let (nonce, transaction) = (state(ledger, key).await.nonce, Some(B256::repeat_byte(9)));
    Transition::Confirmed {
        nonce,
        transaction,
        charged: None,
        proof: proof.to_owned(),
    }
}

pub(super) async fn what_is_released_does_not_count_and_is_bought_anew(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    let nonce = state(&ledger, &key).await.nonce;
    ledger
        .record(
            &key,
            &released(&ledger, &key, NOW + 300, false).await,
            at(NOW + 360),
        )
        .await
        .unwrap();
    for meters in [lifetime(10), rolling(10), exposure(10)] {
        assert_eq!(used(&ledger, NOW + 360, meters[0].clone()).await, 0);
    }
    let found = taken_up(&ledger, &wanted(&order("x", 10), NOW + 360)).await;
    assert!(found.is_none());
    let released = state(&ledger, &key).await;
    assert!(released.payload.is_none(), "it is never presented again");
    let answer = ledger
        .reserve(&wish(order("first", 10), at(NOW + 361), lifetime(10)))
        .await
        .unwrap();
    let Reserved::Held(purchase) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!((purchase.generation, purchase.state), (1, State::Reserved));
    assert_ne!(purchase.nonce, nonce, "the chain holds the first for dead");
    assert_eq!((purchase.proof, purchase.payload.is_none()), (None, true));
    // Freed and held again, it keeps the generation: nothing was signed with that nonce.
    let lease = at(NOW + 361).after(LEASE);
    ledger
        .record(&key, &Transition::Voided { lease }, at(NOW + 362))
        .await
        .unwrap();
    let answer = ledger
        .reserve(&wish(order("first", 10), at(NOW + 363), lifetime(10)))
        .await
        .unwrap();
    assert!(
        matches!(&answer, Reserved::Held(again) if again.nonce == purchase.nonce),
        "{answer:?}"
    );
}

pub(super) async fn what_expired_is_bought_again_under_its_nonce(ledgers: &Ledgers) {
    let proof = |kind: &str| format!(r#"{{"not_settled":{{"kind":"{kind}"}}}}"#);
    for (kind, is_same) in [
        ("expired", true),
        ("canceled", false),
        ("unheard_of", false),
    ] {
        let ledger = ledgers.open().await;
        let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
        let nonce = state(&ledger, &key).await.nonce;
        let release = Transition::ReleasedByProof {
            nonce,
            valid_before: Some(NOW + 300),
            cancelled: kind == "canceled",
            proof: proof(kind),
        };
        ledger.record(&key, &release, at(NOW + 360)).await.unwrap();
        let again = hold(&ledger, order("first", 10), NOW + 361).await;
        let again = state(&ledger, &again).await;
        assert_eq!(again.nonce == nonce, is_same, "{kind}");
        assert_eq!(again.generation, u32::from(!is_same), "{kind}");
        // A copy of the ledger from before the release signs the same nonce at most.
        let copy = ledgers.open().await;
        let copied = hold(&copy, order("first", 10), NOW + 361).await;
        assert_eq!(state(&copy, &copied).await.nonce, nonce);
        // The proof of the first authorization does not release the second one.
        let lease = at(NOW + 361).after(LEASE);
        ledger
            .record(&key, &signed_under(lease, NOW + 700), at(NOW + 361))
            .await
            .unwrap();
        let late = ledger.record(&key, &release, at(NOW + 2000)).await;
        assert!(
            matches!(late, Err(LedgerError::Transition { .. })),
            "{late:?}"
        );
    }
}

pub(super) async fn only_proof_of_the_latest_authorization_releases(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let refuses = |key: &PurchaseKey, transition: Transition, now: u64| {
        let (key, ledger) = (key.clone(), &ledger);
        async move {
            let answer = ledger.record(&key, &transition, at(now)).await;
            assert!(
                matches!(answer, Err(LedgerError::Transition { .. })),
                "{transition:?}: {answer:?}"
            );
        }
    };
    let key = sign(&ledger, order("early", 10), NOW, NOW + 300).await;
    refuses(
        &key,
        released(&ledger, &key, NOW + 300, false).await,
        NOW + 359,
    )
    .await;
    ledger
        .record(
            &key,
            &released(&ledger, &key, NOW + 300, true).await,
            at(NOW + 1),
        )
        .await
        .unwrap();
    let key = sign(&ledger, order("again", 10), NOW, NOW + 300).await;
    // Nothing is signed twice under one hold.
    refuses(&key, signed(NOW + 400), NOW).await;
    let again = Reservation {
        terms: Terms::Changed,
        ..wish(order("again", 10), at(NOW), Vec::new())
    };
    let answer = ledger.reserve(&again).await.unwrap();
    assert!(matches!(answer, Reserved::Held(_)), "{answer:?}");
    ledger
        .record(&key, &signed(NOW + 400), at(NOW))
        .await
        .unwrap();
    refuses(
        &key,
        released(&ledger, &key, NOW + 300, false).await,
        NOW + 900,
    )
    .await;
    ledger
        .record(&key, &confirmed(&ledger, &key, "{}").await, at(NOW + 900))
        .await
        .unwrap();
    refuses(
        &key,
        released(&ledger, &key, NOW + 400, true).await,
        NOW + 900,
    )
    .await;
    let held = hold(&ledger, order("held", 10), NOW).await;
    refuses(
        &held,
        released(&ledger, &held, NOW + 300, true).await,
        NOW + 900,
    )
    .await;
    // A receipt is a claim, and proof is stronger.
    let claimed = sign(&ledger, order("claimed", 10), NOW, NOW + 300).await;
    ledger.record(&claimed, &settled(), at(NOW)).await.unwrap();
    ledger
        .record(
            &claimed,
            &released(&ledger, &claimed, NOW + 300, false).await,
            at(NOW + 360),
        )
        .await
        .unwrap();
    assert_eq!(state(&ledger, &claimed).await.state, State::ReleasedByProof);
    // A receipt that arrives after the proof makes the purchase count again.
    ledger
        .record(&claimed, &settled(), at(NOW + 361))
        .await
        .unwrap();
    assert!(state(&ledger, &claimed).await.counts(at(NOW + 362)));
}

pub(super) async fn what_the_chain_confirms_is_kept_beside_the_claim(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for claim in [Some(settled()), None] {
        let key = sign(
            &ledger,
            order(if claim.is_some() { "claimed" } else { "lost" }, 10),
            NOW,
            NOW + 300,
        )
        .await;
        if let Some(claim) = &claim {
            ledger.record(&key, claim, at(NOW + 5)).await.unwrap();
        }
        let proof = "{\"settled\":1}".to_owned();
        ledger
            .record(&key, &confirmed(&ledger, &key, &proof).await, at(NOW + 600))
            .await
            .unwrap();
        let purchase = state(&ledger, &key).await;
        assert_eq!(
            (purchase.state, purchase.counts_at),
            (State::Settled, at(NOW + 300))
        );
        assert_eq!(purchase.transaction, claim.map(|_| B256::repeat_byte(7)));
        assert_eq!(
            (purchase.verified_transaction, purchase.proof),
            (Some(B256::repeat_byte(9)), Some(proof))
        );
    }
}

pub(super) async fn a_freeze_stays_until_it_is_removed(ledgers: &Ledgers) {
    let ledger = ledgers.open().await.with_clock(Arc::new(|| at(NOW)));
    assert_eq!(ledger.frozen().await.unwrap(), None);
    for reason in ["the agent repeats itself", "still"] {
        ledger.freeze(reason).await.unwrap();
        let freeze = Some(Freeze::new(reason, at(NOW)));
        assert_eq!(ledger.frozen().await.unwrap(), freeze);
        let denial = denied(&ledger, order("first", 1), NOW + 1, Vec::new())
            .await
            .unwrap();
        assert_eq!(denial.rule, Rule::Frozen);
        assert!(denial.message.contains(reason), "{denial}");
    }
    assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    ledger.unfreeze().await.unwrap();
    ledger.unfreeze().await.unwrap();
    assert_eq!(ledger.frozen().await.unwrap(), None);
    assert!(
        denied(&ledger, order("first", 1), NOW + 1, Vec::new())
            .await
            .is_none()
    );
}

pub(super) async fn refunds_are_booked_once_and_make_room_if_they_may(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 100), NOW, NOW + 300).await;
    ledger.record(&key, &settled(), at(NOW)).await.unwrap();
    let refund = |transaction: u8, value: u64| {
        Transition::Refunded(Refund::new(
            B256::repeat_byte(transaction),
            U256::from(value),
            at(NOW + 9),
            false,
        ))
    };
    for _ in 0..2 {
        ledger
            .record(&key, &refund(1, 30), at(NOW + 9))
            .await
            .unwrap();
    }
    assert!(
        ledger
            .record(&key, &refund(1, 31), at(NOW + 9))
            .await
            .is_err(),
        "one transaction is one refund"
    );
    ledger
        .record(&key, &refund(2, 20), at(NOW + 10))
        .await
        .unwrap();
    let purchase = state(&ledger, &key).await;
    assert_eq!(
        (purchase.value, purchase.refunded(), purchase.refunds.len()),
        (U256::from(100), U256::from(50), 2)
    );
    assert_eq!(used(&ledger, NOW + 11, lifetime(100)[0].clone()).await, 100);
    let mut generous = wish(order("second", 50), at(NOW + 11), lifetime(100));
    generous.checks.refunds_make_room = true;
    let dear = Reservation {
        purchase: order("third", 51),
        ..generous.clone()
    };
    let dear = Reservation {
        checks: LimitCheck {
            payment: Some((usdc(BASE), U256::from(51))),
            ..dear.checks.clone()
        },
        ..dear
    };
    assert!(matches!(
        ledger.reserve(&dear).await.unwrap(),
        Reserved::Denied(_)
    ));
    assert!(matches!(
        ledger.reserve(&generous).await.unwrap(),
        Reserved::Held(_)
    ));
    // More than was paid makes no more room than was paid.
    ledger
        .record(&key, &refund(3, 10_000), at(NOW + 12))
        .await
        .unwrap();
    assert_eq!(state(&ledger, &key).await.refunded(), U256::from(100));
    let held = hold(&ledger, order("held", 1), NOW).await;
    assert!(
        ledger.record(&held, &refund(4, 1), at(NOW)).await.is_err(),
        "nothing was paid"
    );
}

pub(super) async fn repeats_and_failures_are_counted(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let server_error = || SellerAnswer::of(503);
    let lost = Transition::Unresolved {
        reason: "lost".to_owned(),
        answer: None,
    };
    let silent = Transition::Unresolved {
        reason: "no receipt".to_owned(),
        answer: Some(SellerAnswer::of(200)),
    };
    let broken = Transition::Unresolved {
        reason: "503".to_owned(),
        answer: Some(server_error()),
    };
    let paid_for_nothing = Transition::Settled {
        transaction: B256::repeat_byte(7),
        charged: None,
        answer: server_error(),
    };
    let histories = [
        lost,
        silent,
        broken,
        paid_for_nothing,
        settled(),
        rejected(),
    ];
    for (number, outcome) in histories.into_iter().enumerate() {
        let key = sign(&ledger, order(&number.to_string(), 1), NOW, NOW + 300).await;
        ledger.record(&key, &outcome, at(NOW)).await.unwrap();
    }
    let origin = Scope::Origin("https://api.example.com".parse().unwrap());
    assert_eq!(
        used(
            &ledger,
            NOW + 1,
            meter(origin.clone(), LimitKind::CircuitBreaker(HOUR, 3))
        )
        .await,
        3
    );
    let same = Scope::Request(B256::repeat_byte(1));
    assert_eq!(
        used(
            &ledger,
            NOW + 1,
            meter(same.clone(), LimitKind::LoopGuard(HOUR, 6))
        )
        .await,
        6
    );
    assert_eq!(
        used(
            &ledger,
            NOW + 1,
            meter(Scope::Request(B256::ZERO), LimitKind::LoopGuard(HOUR, 6))
        )
        .await,
        0
    );
    let breaker = denied(
        &ledger,
        order("x", 1),
        NOW + 1,
        vec![meter(origin.clone(), LimitKind::CircuitBreaker(HOUR, 3))],
    )
    .await;
    let breaker = breaker.unwrap();
    assert_eq!(
        (breaker.rule, breaker.room_returns),
        (Rule::CircuitBreaker, Some(at(NOW + 3600)))
    );
    let repeats = denied(
        &ledger,
        order("x", 1),
        NOW + 1,
        vec![meter(same.clone(), LimitKind::LoopGuard(HOUR, 6))],
    )
    .await;
    let repeats = repeats.unwrap();
    assert_eq!(
        (repeats.rule, repeats.room_returns),
        (Rule::LoopGuard, Some(at(NOW + 3600)))
    );
    let wide = vec![
        meter(origin, LimitKind::CircuitBreaker(HOUR, 4)),
        meter(same, LimitKind::LoopGuard(HOUR, 7)),
    ];
    assert!(
        denied(&ledger, order("x", 1), NOW + 1, wide)
            .await
            .is_none()
    );
}

pub(super) async fn what_the_chain_must_be_asked_about_is_found(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let histories = [
        ("signed", vec![]),
        ("unknown", vec![unknown()]),
        ("rejected", vec![rejected()]),
        ("claimed", vec![settled()]),
        ("confirmed", vec![settled()]),
        ("released", vec![]),
    ];
    for (id, history) in histories {
        let key = sign(&ledger, order(id, 1), NOW, NOW + 300).await;
        let proof = match id {
            "confirmed" => Some(confirmed(&ledger, &key, "{}").await),
            "released" => Some(released(&ledger, &key, NOW + 300, true).await),
            _ => None,
        };
        for transition in history.into_iter().chain(proof) {
            ledger.record(&key, &transition, at(NOW + 1)).await.unwrap();
        }
    }
    hold(&ledger, order("held", 1), NOW).await;
    let unproven = Filter {
        unproven: true,
        ..Filter::all()
    };
    let found = ledger.purchases(&unproven).await.unwrap();
    let found: Vec<_> = found.iter().map(|purchase| purchase.id.as_str()).collect();
    assert_eq!(found, ["signed", "unknown", "rejected", "claimed"]);
}
