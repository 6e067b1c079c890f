//! Purchases by Permit2: two kinds of nonces, and charges below the ceiling.

use super::*;

fn by(method: PaymentMethod, id: &str, micros: u64) -> NewPurchase {
    NewPurchase {
        payment_method: Some(method),
        ..order(id, micros)
    }
}

fn charged(claim: Option<u64>) -> Transition {
    Transition::Settled {
        transaction: B256::repeat_byte(7),
        charged: claim.map(U256::from),
        answer: SellerAnswer::of(200),
    }
}

async fn proved(ledger: &Ledger, key: &PurchaseKey, charge: Option<u64>) -> Transition {
    Transition::Confirmed {
        nonce: state(ledger, key).await.nonce,
        transaction: Some(B256::repeat_byte(9)),
        charged: charge.map(U256::from),
        proof: "{}".to_owned(),
    }
}

async fn answer(ledger: &Ledger, purchase: NewPurchase, terms: Terms, now: u64) -> Reserved {
    let mut wish = wish(purchase, at(now), Vec::new());
    wish.terms = terms;
    ledger.reserve(&wish).await.unwrap()
}

pub(super) async fn a_purchase_that_signed_one_kind_never_signs_the_other(ledgers: &Ledgers) {
    use PaymentMethod::{Eip3009, Permit2, Upto};
    let timed_out = |method| Transition::SignerTimedOut {
        method,
        valid_before: NOW + 300,
        reason: "the signer hung".to_owned(),
    };
    for (first, second, excludes) in [
        (Eip3009, Permit2, false),
        (Eip3009, Upto, false),
        (Permit2, Eip3009, false),
        (Upto, Eip3009, false),
        (Permit2, Upto, true),
        (Upto, Permit2, true),
        (Upto, Upto, true),
    ] {
        let ledger = ledgers.open().await;
        let histories = [
            vec![signed(NOW + 300)],
            vec![signed(NOW + 300), rejected()],
            vec![signed(NOW + 300), unknown()],
            vec![timed_out(first)],
        ];
        for (number, history) in histories.into_iter().enumerate() {
            let id = format!("order-{number}");
            let key = hold(&ledger, by(first, &id, 10), NOW).await;
            for transition in &history {
                ledger.record(&key, transition, at(NOW)).await.unwrap();
            }
            let nonce = state(&ledger, &key).await.nonce;
            let again = by(second, &id, 30);
            if history.len() > 1 || matches!(history[0], Transition::Signed { .. }) {
                let known = answer(&ledger, again.clone(), Terms::First, NOW + 70).await;
                let Reserved::Known(known) = known else {
                    panic!("{known:?}")
                };
                assert_eq!(known.payment_method, Some(first), "the stored payment");
            }
            let changed = answer(&ledger, again, Terms::Changed, NOW + 70).await;
            match changed {
                Reserved::Held(held) if excludes => {
                    assert_eq!((held.nonce, held.value), (nonce, U256::from(30)));
                    assert_eq!(held.payment_method, Some(second));
                }
                Reserved::OtherMethod(known) if !excludes => {
                    assert_eq!(known.payment_method, Some(first));
                    let stored = state(&ledger, &key).await;
                    assert_eq!(stored.value, U256::from(10));
                    assert_eq!(stored.payment_method, Some(first));
                }
                other => panic!("{first} {second} {history:?}: {other:?}"),
            }
        }
        // Where nothing was signed, or nothing can settle any more, another kind is signed.
        let key = hold(&ledger, by(first, "lapsed", 10), NOW).await;
        let later = answer(&ledger, by(second, "lapsed", 10), Terms::First, NOW + 61).await;
        assert!(matches!(later, Reserved::Held(_)), "{later:?}");
        assert_eq!(
            state(&ledger, &key).await.payment_method,
            Some(second),
            "nothing was signed"
        );
        let key = hold(&ledger, by(first, "expired", 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        let release = Transition::ReleasedByProof {
            nonce: state(&ledger, &key).await.nonce,
            valid_before: Some(NOW + 300),
            cancelled: false,
            proof: r#"{"not_settled":{"kind":"expired"}}"#.to_owned(),
        };
        ledger.record(&key, &release, at(NOW + 360)).await.unwrap();
        let bought = answer(&ledger, by(second, "expired", 10), Terms::First, NOW + 361).await;
        assert!(matches!(bought, Reserved::Held(_)), "{bought:?}");
    }
}

pub(super) async fn a_signer_that_hung_by_one_kind_ends_a_hold_by_the_other(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    // The hold lapsed while its signer was asked, and another call took it over.
    let taken = by(PaymentMethod::Upto, "order", 10);
    hold(&ledger, taken, NOW + 61).await;
    let timed_out = Transition::SignerTimedOut {
        method: PaymentMethod::Eip3009,
        valid_before: NOW + 300,
        reason: "the signer hung".to_owned(),
    };
    ledger.record(&key, &timed_out, at(NOW + 62)).await.unwrap();
    let lease = at(NOW + 61).after(LEASE);
    let late = ledger
        .record(&key, &signed_under(lease, NOW + 400), at(NOW + 63))
        .await;
    assert!(late.is_err(), "the other signature does not leave");
    let stored = state(&ledger, &key).await;
    assert_eq!(stored.payment_method, Some(PaymentMethod::Eip3009));
}

pub(super) async fn a_claimed_charge_frees_no_room_and_a_proved_one_does(ledgers: &Ledgers) {
    let token = |max: u64| {
        let amount = TokenAmount::from_units(usdc(BASE), U256::from(max));
        meter(Scope::Global, LimitKind::Lifetime(amount.into()))
    };
    let fits = |ledger: Ledger, id: &'static str, micros: u64, now: u64| async move {
        let limits = [lifetime(100), rolling(100), vec![token(100)]];
        let mut wish = wish(order(id, micros), at(now), limits.concat());
        wish.lease = Duration::ZERO;
        matches!(ledger.reserve(&wish).await.unwrap(), Reserved::Held(_))
    };
    let ledger = ledgers.open().await;
    let key = hold(&ledger, by(PaymentMethod::Upto, "upto", 100), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    // The limits read their sums, so that running totals exist before the proof.
    assert!(!fits(ledger.clone(), "a", 1, NOW + 1).await);
    ledger
        .record(&key, &charged(Some(30)), at(NOW + 2))
        .await
        .unwrap();
    let claimed = state(&ledger, &key).await;
    assert_eq!(
        (claimed.claimed_charge, claimed.verified_charge),
        (Some(U256::from(30)), None)
    );
    assert_eq!(claimed.counted(), U256::from(100));
    for meters in [lifetime(100), rolling(100)] {
        assert_eq!(used(&ledger, NOW + 3, meters[0].clone()).await, 100);
    }
    assert_eq!(
        used(&ledger, NOW + 3, exposure(100)[0].clone()).await,
        0,
        "as after every claim"
    );
    assert!(!fits(ledger.clone(), "b", 1, NOW + 3).await);
    let proof = proved(&ledger, &key, Some(30)).await;
    ledger.record(&key, &proof, at(NOW + 4)).await.unwrap();
    let stored = state(&ledger, &key).await;
    assert_eq!(
        (stored.value, stored.counted(), stored.counted_usd()),
        (U256::from(100), U256::from(30), Some(Usd::from_micros(30)))
    );
    for meters in [lifetime(100), rolling(100)] {
        assert_eq!(used(&ledger, NOW + 5, meters[0].clone()).await, 30);
    }
    assert!(!fits(ledger.clone(), "c", 71, NOW + 5).await);
    assert!(fits(ledger.clone(), "d", 70, NOW + 5).await);
    let receipt = charged(Some(5));
    ledger.record(&key, &receipt, at(NOW + 6)).await.unwrap();
    assert_eq!(
        used(&ledger, NOW + 7, lifetime(100)[0].clone()).await,
        30,
        "a later claim changes nothing"
    );
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

pub(super) async fn a_proof_never_counts_more_than_was_signed(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, by(PaymentMethod::Upto, "upto", 100), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    for (charge, counts) in [(None, 100), (Some(500), 100), (Some(0), 0), (None, 0)] {
        let proof = proved(&ledger, &key, charge).await;
        ledger.record(&key, &proof, at(NOW + 1)).await.unwrap();
        let stored = state(&ledger, &key).await;
        assert_eq!(stored.counted(), U256::from(counts), "{charge:?}");
        let total = used(&ledger, NOW + 2, lifetime(1)[0].clone()).await;
        assert_eq!(total, counts, "{charge:?}");
    }
    // A rise of the price is a rise of the ceiling, whatever was charged.
    let mut next = wish(
        by(PaymentMethod::Upto, "next", 110),
        at(NOW + 3),
        Vec::new(),
    );
    next.checks.price = Some(PriceCeiling {
        origin: next.purchase.origin.clone(),
        method: "GET".to_owned(),
        path: "/report".to_owned(),
        max_rise_percent: 10,
    });
    let held = ledger.reserve(&next).await.unwrap();
    assert!(matches!(held, Reserved::Held(_)), "{held:?}");
}

pub(super) async fn a_refund_is_at_most_the_proved_charge(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, by(PaymentMethod::Upto, "upto", 100), NOW).await;
    let refund = Refund::new(B256::repeat_byte(1), U256::from(60), at(NOW), true);
    let history = [
        signed(NOW + 300),
        Transition::Refunded(refund),
        proved(&ledger, &key, Some(40)).await,
    ];
    for transition in history {
        ledger.record(&key, &transition, at(NOW)).await.unwrap();
    }
    assert_eq!(state(&ledger, &key).await.refunded(), U256::from(40));
    assert!(ledger.verify(None).await.unwrap().is_sound());
}
