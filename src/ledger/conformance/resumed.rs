//! Resuming unresolved purchases.

use super::*;
use crate::clock::CLOCK_BOUND;
use crate::ledger::{Resumed, Resumption};

pub(in crate::ledger) fn wanted(purchase: &NewPurchase, now: u64) -> Resumption {
    Resumption {
        payer: purchase.payer,
        fingerprint: purchase.fingerprint,
        origin: purchase.origin.clone(),
        now: at(now),
        until: at(now + 20),
        ended: Vec::new(),
    }
}

/// Returns the purchase whose payment is presented again.
pub(super) async fn taken_up(ledger: &Ledger, wanted: &Resumption) -> Option<Purchase> {
    match ledger.resume(wanted).await.unwrap() {
        Resumed::Again(purchase) => Some(*purchase),
        _ => None,
    }
}

pub(super) async fn an_unresolved_purchase_is_taken_up_by_one(ledgers: &Ledgers) {
    for last in [None, Some(unknown()), Some(rejected())] {
        let ledger = ledgers.open().await;
        let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
        if let Some(last) = &last {
            ledger.record(&key, last, at(NOW)).await.unwrap();
        }
        let later = sign(&ledger, order("second", 10), NOW, NOW + 300).await;
        let taken = taken_up(&ledger, &wanted(&order("x", 10), NOW + 1))
            .await
            .unwrap();
        assert_eq!(
            (taken.key(), taken.presenter_lease_until),
            (key.clone(), at(NOW + 21)),
            "the oldest first"
        );
        assert_eq!(taken.payload.unwrap().expose_secret(), PAYLOAD);
        let next = taken_up(&ledger, &wanted(&order("x", 10), NOW + 1))
            .await
            .unwrap();
        assert_eq!(next.key(), later, "somebody is at the first");
        assert!(
            taken_up(&ledger, &wanted(&order("x", 10), NOW + 20))
                .await
                .is_none()
        );
        let again = taken_up(&ledger, &wanted(&order("x", 10), NOW + 21))
            .await
            .unwrap();
        assert_eq!(again.key(), key, "its time was up");
        ledger
            .record(
                &key,
                &Transition::Presented {
                    until: at(NOW + 100),
                },
                at(NOW + 22),
            )
            .await
            .unwrap();
        assert!(
            taken_up(&ledger, &wanted(&order("x", 10), NOW + 99))
                .await
                .is_some_and(|other| other.key() == later)
        );
        ledger.record(&key, &unknown(), at(NOW + 30)).await.unwrap();
        let left = taken_up(&ledger, &wanted(&order("x", 10), NOW + 30))
            .await
            .unwrap();
        assert_eq!(
            left.key(),
            key,
            "whoever was at it has said what became of it"
        );
    }
}

pub(super) async fn what_was_delivered_is_not_taken_up(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    let silent = |status| Transition::Unresolved {
        reason: "no receipt".to_owned(),
        answer: Some(SellerAnswer::of(status)),
    };
    for (status, delivered) in [
        (200, true),
        (299, true),
        (300, false),
        (402, false),
        (503, false),
    ] {
        ledger
            .record(&key, &silent(status), at(NOW + 50))
            .await
            .unwrap();
        let taken = taken_up(&ledger, &wanted(&order("x", 10), NOW + 50)).await;
        assert_eq!(taken.is_none(), delivered, "{status}");
    }
}

pub(super) async fn a_settled_purchase_is_resumed_until_it_is_delivered(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    let settled = |status| Transition::Settled {
        transaction: B256::repeat_byte(7),
        charged: None,
        answer: SellerAnswer::of(status),
    };
    let lost = Transition::BodyLost {
        reason: "the body of the answer broke".to_owned(),
    };
    let steps = [
        (settled(500), true),
        (settled(199), true),
        (settled(404), true),
        (settled(200), false),
        (lost, true),
        (settled(303), false),
        (settled(402), true),
        (rejected(), true),
        (settled(299), false),
    ];
    for (number, (step, resumed)) in (50..).step_by(20).zip(steps) {
        let now = NOW + number;
        ledger.record(&key, &step, at(now)).await.unwrap();
        let found = taken_up(&ledger, &wanted(&order("x", 10), now)).await;
        assert_eq!(found.is_some(), resumed, "{step:?}");
        assert_eq!(state(&ledger, &key).await.state, State::Settled);
    }
    ledger
        .record(&key, &settled(500), at(NOW + 300))
        .await
        .unwrap();
    for (now, resumed) in [(NOW + 899, true), (NOW + 900, false)] {
        let found = taken_up(&ledger, &wanted(&order("x", 10), now)).await;
        assert_eq!(found.is_some(), resumed, "{now}");
    }
}

pub(super) async fn only_the_same_request_is_taken_up(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let mine = NewPurchase {
        tag: Some("t".to_owned()),
        agent: Some("a".to_owned()),
        ..order("first", 10)
    };
    let key = sign(&ledger, mine.clone(), NOW, NOW + 300).await;
    let others = [
        NewPurchase {
            fingerprint: B256::repeat_byte(2),
            ..mine.clone()
        },
        NewPurchase {
            origin: "https://other.example.com".parse().unwrap(),
            ..mine.clone()
        },
    ];
    for other in &others {
        let found = ledger.resume(&wanted(other, NOW + 1)).await.unwrap();
        assert!(matches!(found, Resumed::Nothing), "{other:?}: {found:?}");
    }
    // Another payer must neither buy nor present the payment.
    let stranger = NewPurchase {
        payer: Address::repeat_byte(0xEE),
        ..mine.clone()
    };
    let found = ledger.resume(&wanted(&stranger, NOW + 1)).await.unwrap();
    assert!(
        matches!(&found, Resumed::OtherPayer(known) if known.key() == key),
        "{found:?}"
    );
    assert_eq!(
        state(&ledger, &key).await.presenter_lease_until,
        at(0),
        "the stranger took no lease"
    );
    // Tag, agent and price are not part of a request.
    let same = NewPurchase {
        tag: None,
        agent: Some("b".to_owned()),
        value: U256::from(3),
        ..mine.clone()
    };
    let found = taken_up(&ledger, &wanted(&same, NOW + 1)).await.unwrap();
    assert_eq!(found.key(), key);
    for payer in [&mine, &stranger] {
        let found = ledger.resume(&wanted(payer, NOW + 2)).await.unwrap();
        assert!(matches!(found, Resumed::InFlight(_)), "{found:?}");
    }
    assert!(
        taken_up(&ledger, &wanted(&mine, NOW + 900)).await.is_none(),
        "no clock within the bound takes it for valid"
    );
    ledger.record(&key, &settled(), at(NOW + 2)).await.unwrap();
    for payer in [&mine, &stranger] {
        let found = ledger.resume(&wanted(payer, NOW + 3)).await.unwrap();
        assert!(
            matches!(found, Resumed::Nothing),
            "it is delivered: {found:?}"
        );
    }
    let held = NewPurchase {
        id: "held".parse().unwrap(),
        ..mine.clone()
    };
    hold(&ledger, held, NOW).await;
    assert!(
        taken_up(&ledger, &wanted(&mine, NOW + 3)).await.is_none(),
        "nothing is signed"
    );
}

pub(super) async fn a_payment_excludes_an_identical_request_until_no_clock_takes_it_for_valid(
    ledgers: &Ledgers,
) {
    let bound = CLOCK_BOUND.as_secs();
    for last in [None, Some(unknown()), Some(rejected())] {
        let ledger = ledgers.open().await;
        // The clock was wrong by the whole bound while it signed: the expiry is a time of the chain.
        for (id, signed_at) in [("ahead", NOW + bound), ("behind", NOW - bound)] {
            let key = sign(&ledger, order(id, 10), signed_at, signed_at + 300).await;
            if let Some(last) = &last {
                ledger.record(&key, last, at(signed_at)).await.unwrap();
            }
            let expiry = signed_at + 300;
            // By a clock that is ahead by less than the bound, the payment can still settle.
            for ahead in [0, 59, 60, 365, bound - 1] {
                let now = expiry + ahead;
                let found = ledger.resume(&wanted(&order("x", 10), now)).await.unwrap();
                let Resumed::Again(found) = found else {
                    panic!("{ahead}: {found:?}")
                };
                assert_eq!(found.key(), key, "{ahead}");
                ledger.record(&key, &unknown(), at(now)).await.unwrap();
                assert_eq!(used(&ledger, now, exposure(10)[0].clone()).await, 10);
                let second = denied(&ledger, order("second", 1), now, exposure(10)).await;
                assert!(
                    second.is_some(),
                    "the exposure doubled {ahead} s after the expiry"
                );
            }
            let now = expiry + bound;
            let found = ledger.resume(&wanted(&order("x", 10), now)).await.unwrap();
            assert!(matches!(found, Resumed::Nothing), "{found:?}");
            assert_eq!(used(&ledger, now, exposure(10)[0].clone()).await, 0);
            ledger.record(&key, &settled(), at(now)).await.unwrap();
        }
    }
}

pub(super) async fn a_lease_of_a_clock_that_was_ahead_does_not_block_a_payment(ledgers: &Ledgers) {
    let presented = |until: u64| Transition::Presented { until: at(until) };
    for ahead in [40, 365, 7200] {
        let ledger = ledgers.open().await;
        let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
        let wrong = NOW + ahead;
        ledger
            .record(&key, &presented(wrong + 20), at(wrong))
            .await
            .unwrap();
        let found = taken_up(&ledger, &wanted(&order("x", 10), NOW + 1)).await;
        assert_eq!(found.map(|found| found.key()), Some(key), "{ahead}");
    }
    // Clocks that differ by seconds believe each other.
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    ledger
        .record(&key, &presented(NOW + 35), at(NOW + 15))
        .await
        .unwrap();
    let found = ledger.resume(&wanted(&order("x", 10), NOW)).await.unwrap();
    assert!(matches!(found, Resumed::InFlight(_)), "{found:?}");
    // Neither does it block a change of terms.
    ledger
        .record(&key, &presented(NOW + 7220), at(NOW + 7200))
        .await
        .unwrap();
    let changed = Reservation {
        terms: Terms::Changed,
        ..wish(order("first", 12), at(NOW + 1), Vec::new())
    };
    let answer = ledger.reserve(&changed).await.unwrap();
    assert!(matches!(answer, Reserved::Held(_)), "{answer:?}");
}

pub(super) async fn a_signer_that_did_not_answer_is_asked_for_the_same_nonce_by_the_same_request(
    ledgers: &Ledgers,
) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    let timed_out = Transition::SignerTimedOut {
        method: PaymentMethod::Eip3009,
        valid_before: NOW + 300,
        reason: "the signer hung".to_owned(),
    };
    ledger.record(&key, &timed_out, at(NOW + 30)).await.unwrap();
    let found = ledger.resume(&wanted(&order("x", 10), NOW + 31)).await;
    let found = found.unwrap();
    assert!(
        matches!(&found, Resumed::Unsigned(known) if known.key() == key),
        "{found:?}"
    );
}

pub(super) async fn a_signer_that_did_not_answer_is_asked_again(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    let doubtful = Transition::SignerTimedOut {
        method: PaymentMethod::Eip3009,
        valid_before: NOW + 300,
        reason: "the signer hung".to_owned(),
    };
    ledger.record(&key, &doubtful, at(NOW + 30)).await.unwrap();
    let nonce = state(&ledger, &key).await.nonce;
    let answer = ledger
        .reserve(&wish(order("first", 7), at(NOW + 31), lifetime(10)))
        .await
        .unwrap();
    let Reserved::Held(purchase) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (purchase.nonce, purchase.value),
        (nonce, U256::from(10)),
        "one nonce, and the larger amount"
    );
    let payee = NewPurchase {
        payee: Address::repeat_byte(9),
        ..order("first", 7)
    };
    let answer = ledger
        .reserve(&wish(payee, at(NOW + 200), lifetime(10)))
        .await
        .unwrap();
    assert!(matches!(answer, Reserved::Denied(_)), "{answer:?}");
}
