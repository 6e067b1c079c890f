//! Resuming unresolved purchases.

use super::*;
use crate::ledger::Resumption;

pub(super) fn wanted(purchase: &NewPurchase, now: u64) -> Resumption {
    Resumption {
        payer: purchase.payer,
        fingerprint: purchase.fingerprint,
        origin: purchase.origin.clone(),
        tag: purchase.tag.clone(),
        agent: purchase.agent.clone(),
        max: None,
        now: at(now),
        until: at(now + 20),
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
        let taken = ledger
            .resume(&wanted(&order("x", 10), NOW + 1))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (taken.key(), taken.presenter_lease_until),
            (key.clone(), at(NOW + 21)),
            "the oldest first"
        );
        assert_eq!(taken.payload.unwrap().expose_secret(), PAYLOAD);
        let next = ledger
            .resume(&wanted(&order("x", 10), NOW + 1))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(next.key(), later, "somebody is at the first");
        assert!(
            ledger
                .resume(&wanted(&order("x", 10), NOW + 20))
                .await
                .unwrap()
                .is_none()
        );
        let again = ledger
            .resume(&wanted(&order("x", 10), NOW + 21))
            .await
            .unwrap()
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
            ledger
                .resume(&wanted(&order("x", 10), NOW + 99))
                .await
                .unwrap()
                .is_some_and(|other| other.key() == later)
        );
        ledger.record(&key, &unknown(), at(NOW + 30)).await.unwrap();
        let left = ledger
            .resume(&wanted(&order("x", 10), NOW + 30))
            .await
            .unwrap()
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
        let taken = ledger
            .resume(&wanted(&order("x", 10), NOW + 50))
            .await
            .unwrap();
        assert_eq!(taken.is_none(), delivered, "{status}");
    }
}

pub(super) async fn a_settled_purchase_is_resumed_until_it_is_delivered(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    let settled = |status| Transition::Settled {
        transaction: B256::repeat_byte(7),
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
        let found = ledger.resume(&wanted(&order("x", 10), now)).await.unwrap();
        assert_eq!(found.is_some(), resumed, "{step:?}");
        assert_eq!(state(&ledger, &key).await.state, State::Settled);
    }
    ledger
        .record(&key, &settled(500), at(NOW + 300))
        .await
        .unwrap();
    for (now, resumed) in [(NOW + 359, true), (NOW + 400, false)] {
        let found = ledger.resume(&wanted(&order("x", 10), now)).await.unwrap();
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
            payer: Address::repeat_byte(0xEE),
            ..mine.clone()
        },
        NewPurchase {
            fingerprint: B256::repeat_byte(2),
            ..mine.clone()
        },
        NewPurchase {
            origin: "https://other.example.com".parse().unwrap(),
            ..mine.clone()
        },
        NewPurchase {
            tag: None,
            ..mine.clone()
        },
        NewPurchase {
            agent: Some("b".to_owned()),
            ..mine.clone()
        },
    ];
    for other in &others {
        assert!(
            ledger
                .resume(&wanted(other, NOW + 1))
                .await
                .unwrap()
                .is_none(),
            "{other:?}"
        );
    }
    assert!(
        ledger
            .resume(&wanted(&mine, NOW + 360))
            .await
            .unwrap()
            .is_none(),
        "nobody can cash it any more"
    );
    ledger.record(&key, &settled(), at(NOW + 2)).await.unwrap();
    assert!(
        ledger
            .resume(&wanted(&mine, NOW + 3))
            .await
            .unwrap()
            .is_none(),
        "it is settled"
    );
    hold(
        &ledger,
        NewPurchase {
            id: "held".parse().unwrap(),
            ..mine.clone()
        },
        NOW,
    )
    .await;
    assert!(
        ledger
            .resume(&wanted(&mine, NOW + 3))
            .await
            .unwrap()
            .is_none(),
        "nothing is signed"
    );
}

pub(super) async fn a_signer_that_did_not_answer_is_asked_again(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    let doubtful = Transition::SignerTimedOut {
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
