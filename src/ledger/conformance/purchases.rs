//! Buying the same purchase again, changed terms, and reading purchases.

use super::*;

pub(super) async fn a_known_purchase_is_not_bought_again(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let again = |now| wish(order("order", 10), at(now), lifetime(10));
    assert!(
        matches!(ledger.reserve(&again(NOW)).await.unwrap(), Reserved::Held(purchase) if purchase.seq == 1)
    );
    assert!(matches!(
        ledger.reserve(&again(NOW + 59)).await.unwrap(),
        Reserved::InFlight
    ));
    // A lapsed hold is renewed, and its own money does not stand in its way.
    assert!(
        matches!(ledger.reserve(&again(NOW + 60)).await.unwrap(), Reserved::Held(purchase) if purchase.seq == 1 && purchase.reserved_at == at(NOW + 60))
    );
    let mut other = again(NOW + 60);
    other.purchase.fingerprint = B256::repeat_byte(2);
    assert!(matches!(
        ledger.reserve(&other).await.unwrap(),
        Reserved::Mismatch
    ));
    let key = order("order", 10).key();
    let signed = signed_under(at(NOW + 60).after(LEASE), NOW + 300);
    for transition in [signed, rejected(), unknown(), settled()] {
        ledger
            .record(&key, &transition, at(NOW + 60))
            .await
            .unwrap();
        match ledger.reserve(&again(NOW + 60)).await.unwrap() {
            Reserved::Known(purchase) => {
                assert_eq!(purchase.payload.unwrap().expose_secret(), PAYLOAD)
            }
            other => panic!("{transition:?}: {other:?}"),
        }
    }
    assert_eq!(ledger.purchases(&Filter::all()).await.unwrap().len(), 1);
}

pub(super) async fn an_id_is_bought_once_whatever_key_signs(ledgers: &Ledgers) {
    let stranger = NewPurchase {
        payer: Address::repeat_byte(0xEE),
        ..order("order", 10)
    };
    let elsewhere = NewPurchase {
        asset: usdc(SEPOLIA),
        ..stranger.clone()
    };
    let ask = |purchase: &NewPurchase, now| wish(purchase.clone(), at(now), lifetime(100));
    let timed_out = Transition::SignerTimedOut {
        method: PaymentMethod::Eip3009,
        valid_before: NOW + 300,
        reason: "the signer hung".to_owned(),
    };
    for (last, is_known) in [
        (signed(NOW + 300), true),
        (rejected(), true),
        (unknown(), true),
        (settled(), true),
        (timed_out, false),
    ] {
        let ledger = ledgers.open().await;
        let key = hold(&ledger, order("order", 10), NOW).await;
        let in_flight = ledger.reserve(&ask(&stranger, NOW)).await.unwrap();
        assert!(matches!(in_flight, Reserved::InFlight), "{in_flight:?}");
        if is_known && !matches!(last, Transition::Signed { .. }) {
            let signed = signed(NOW + 300);
            ledger.record(&key, &signed, at(NOW)).await.unwrap();
        }
        ledger.record(&key, &last, at(NOW)).await.unwrap();
        // Also years later: an id has no end.
        for (wanted, now) in [
            (&stranger, NOW + 1),
            (&elsewhere, NOW + 1),
            (&stranger, NOW + 100_000_000),
        ] {
            let answer = ledger.reserve(&ask(wanted, now)).await.unwrap();
            let found = match &answer {
                Reserved::Known(found) if is_known => found,
                Reserved::OtherPayer(found) if !is_known => found,
                other => panic!("{last:?}: {other:?}"),
            };
            assert_eq!(found.key(), key);
            let changed = Reservation {
                terms: Terms::Changed,
                ..ask(wanted, now)
            };
            let answer = ledger.reserve(&changed).await.unwrap();
            assert!(matches!(answer, Reserved::OtherPayer(_)), "{answer:?}");
            let other_request = NewPurchase {
                fingerprint: B256::repeat_byte(2),
                ..wanted.clone()
            };
            let answer = ledger.reserve(&ask(&other_request, now)).await.unwrap();
            assert!(matches!(answer, Reserved::Mismatch), "{answer:?}");
        }
        assert_eq!(ledger.purchases(&Filter::all()).await.unwrap().len(), 1);
    }
}

pub(super) async fn an_id_that_was_not_bought_is_free_for_another_key(ledgers: &Ledgers) {
    let stranger = NewPurchase {
        payer: Address::repeat_byte(0xEE),
        ..order("order", 10)
    };
    // Voided, released, and a hold that lapsed, which can then not be signed.
    for released in [false, true] {
        let ledger = ledgers.open().await;
        let key = hold(&ledger, order("order", 10), NOW).await;
        let now = if released {
            let signed = signed(NOW + 300);
            ledger.record(&key, &signed, at(NOW)).await.unwrap();
            let release = super::released(&ledger, &key, NOW + 300, false).await;
            ledger.record(&key, &release, at(NOW + 360)).await.unwrap();
            NOW + 361
        } else {
            ledger.record(&key, &given_up(), at(NOW)).await.unwrap();
            NOW + 1
        };
        hold(&ledger, stranger.clone(), now).await;
        let found = ledger.purchase_by_id(&key.id).await.unwrap().unwrap();
        assert_eq!(found.payer, stranger.payer);
        let again = wish(order("order", 10), at(now), Vec::new());
        let answer = ledger.reserve(&again).await.unwrap();
        assert!(matches!(answer, Reserved::InFlight), "{answer:?}");
    }
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    hold(&ledger, stranger, NOW + 60).await;
    for now in [NOW + 61, NOW + 1] {
        let late = ledger.record(&key, &signed(NOW + 300), at(now)).await;
        assert!(
            matches!(late, Err(LedgerError::Transition { .. })),
            "{late:?}"
        );
    }
}

pub(super) async fn changed_terms_hold_the_largest(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let changed = |value: u64| Reservation {
        terms: Terms::Changed,
        ..wish(order("order", value), at(NOW), lifetime(30))
    };
    let key = sign(&ledger, order("order", 10), NOW, NOW + 300).await;
    ledger.record(&key, &rejected(), at(NOW)).await.unwrap();
    for (value, largest) in [(25, 25), (20, 25), (30, 30)] {
        let answer = ledger.reserve(&changed(value)).await.unwrap();
        assert!(
            matches!(&answer, Reserved::Held(purchase) if purchase.value == U256::from(largest)),
            "{value}: {answer:?}"
        );
        assert_eq!(used(&ledger, NOW, lifetime(30)[0].clone()).await, largest);
        assert!(matches!(
            ledger.reserve(&changed(value)).await.unwrap(),
            Reserved::InFlight
        ));
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        ledger.record(&key, &rejected(), at(NOW)).await.unwrap();
    }
    assert!(matches!(
        ledger.reserve(&changed(31)).await.unwrap(),
        Reserved::Denied(_)
    ));
    let kept = state(&ledger, &key).await;
    assert_eq!(
        (kept.value, kept.state, kept.seq),
        (U256::from(30), State::Rejected, 1)
    );
    let mut elsewhere = changed(10);
    elsewhere.purchase.asset = usdc(SEPOLIA);
    assert!(
        matches!(
            ledger.reserve(&elsewhere).await.unwrap(),
            Reserved::Mismatch
        ),
        "both could be paid"
    );
    ledger.record(&key, &settled(), at(NOW)).await.unwrap();
    assert!(matches!(
        ledger.reserve(&changed(10)).await.unwrap(),
        Reserved::Known(_)
    ));
}

pub(super) async fn changed_terms_are_held_in_windows_that_the_purchase_had_left(
    ledgers: &Ledgers,
) {
    for limit in [rolling(10), exposure(10)] {
        let ledger = ledgers.open().await;
        let key = sign(&ledger, order("old", 10), NOW - 7200, NOW - 6900).await;
        ledger
            .record(&key, &rejected(), at(NOW - 7200))
            .await
            .unwrap();
        let changed = Reservation {
            terms: Terms::Changed,
            ..wish(order("old", 10), at(NOW), limit.clone())
        };
        assert!(matches!(
            ledger.reserve(&changed).await.unwrap(),
            Reserved::Held(_)
        ));
        assert!(
            denied(&ledger, order("new", 1), NOW, limit).await.is_some(),
            "the room is taken before the signature exists"
        );
        let late = ledger.record(&key, &signed(NOW + 300), at(NOW + 60)).await;
        assert!(
            matches!(
                late,
                Err(LedgerError::Transition {
                    state: State::Rejected,
                    ..
                })
            ),
            "{late:?}"
        );
        ledger
            .record(&key, &signed(NOW + 300), at(NOW + 59))
            .await
            .unwrap();
        assert_eq!(state(&ledger, &key).await.counts_at, at(NOW + 300));
    }
}

pub(super) async fn filters_pass_what_they_name(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for place in 0..PLACES.len() {
        let secs = NOW + u64::try_from(place).unwrap();
        let key = hold(
            &ledger,
            at_place(place, order(&place.to_string(), 10)),
            secs,
        )
        .await;
        if place % 2 == 0 {
            ledger
                .record(
                    &key,
                    &signed_under(at(secs).after(LEASE), NOW + 300),
                    at(secs),
                )
                .await
                .unwrap();
        }
    }
    let origin = Filter {
        origin: Some(PLACES[1].0.parse().unwrap()),
        ..Filter::all()
    };
    let cases: [(Filter, &[usize]); 11] = [
        (Filter::all(), &[0, 1, 2, 3, 4, 5, 6]),
        (
            Filter {
                since: Some(at(NOW + 2)),
                until: Some(at(NOW + 4)),
                ..Filter::all()
            },
            &[2, 3],
        ),
        (origin, &[1]),
        (
            Filter {
                payee: Some(Address::repeat_byte(1)),
                ..Filter::all()
            },
            &[0, 2],
        ),
        (
            Filter {
                tag: Some("t".to_owned()),
                ..Filter::all()
            },
            &[0, 3],
        ),
        (
            Filter {
                agent: Some("b".to_owned()),
                ..Filter::all()
            },
            &[2, 3],
        ),
        (
            Filter {
                state: Some(State::Reserved),
                ..Filter::all()
            },
            &[1, 3, 5],
        ),
        (
            Filter {
                last: Some(2),
                ..Filter::all()
            },
            &[5, 6],
        ),
        (
            Filter {
                last: Some(0),
                ..Filter::all()
            },
            &[],
        ),
        (
            Filter {
                last: Some(usize::MAX),
                state: Some(State::Voided),
                ..Filter::all()
            },
            &[],
        ),
        (
            Filter {
                last: Some(1),
                tag: Some("t".to_owned()),
                agent: Some("a".to_owned()),
                state: Some(State::Signed),
                ..Filter::all()
            },
            &[0],
        ),
    ];
    for (filter, expected) in cases {
        let found = ledger.purchases(&filter).await.unwrap();
        let found: Vec<usize> = found
            .iter()
            .map(|purchase| purchase.id.as_str().parse().unwrap())
            .collect();
        assert_eq!(found, expected, "{filter:?}");
    }
}

pub(super) async fn a_purchase_is_read_as_it_was_written(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let wanted = NewPurchase {
        origin: "http://[::1]:8080".parse().unwrap(),
        path: format!("/é'; DROP TABLE purchases; --{}\n", ledgers.odd),
        foreign_resource: Some("https://b.example/x".to_owned()),
        tag: Some(String::new()),
        agent: Some("ä".to_owned()),
        fingerprint: B256::repeat_byte(0xFE),
        version: 1,
        ..order("order", 12)
    };
    let key = hold(&ledger, wanted.clone(), NOW).await;
    let mut expected = wanted.open(0, at(NOW), at(NOW).after(LEASE));
    expected.seq = 1;
    assert_same(&state(&ledger, &key).await, &expected);
    for transition in [signed(NOW + 300), rejected(), unknown(), settled()] {
        ledger.record(&key, &transition, at(NOW + 1)).await.unwrap();
        expected.apply(&transition, at(NOW + 1)).unwrap();
        assert_same(&state(&ledger, &key).await, &expected);
        assert_same(
            &ledger.purchases(&Filter::all()).await.unwrap()[0],
            &expected,
        );
    }
}

pub(super) fn assert_same(found: &Purchase, expected: &Purchase) {
    let payload = |purchase: &Purchase| {
        purchase
            .payload
            .as_ref()
            .map(|payload| payload.expose_secret().to_owned())
    };
    assert_eq!(format!("{found:?}"), format!("{expected:?}"));
    assert_eq!(payload(found), payload(expected));
}

pub(super) async fn what_is_not_allowed_is_not_recorded(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let nobody = order("nobody", 1).key();
    let answer = ledger.record(&nobody, &settled(), at(NOW)).await;
    assert!(
        matches!(&answer, Err(LedgerError::UnknownPurchase(id)) if *id == nobody.id),
        "{answer:?}"
    );
    assert!(ledger.purchase(&nobody).await.unwrap().is_none());
    let key = hold(&ledger, order("order", 1), NOW).await;
    let before = state(&ledger, &key).await;
    for transition in [settled(), rejected(), unknown()] {
        let answer = ledger.record(&key, &transition, at(NOW + 1)).await;
        assert!(
            matches!(
                answer,
                Err(LedgerError::Transition {
                    state: State::Reserved,
                    ..
                })
            ),
            "{answer:?}"
        );
    }
    assert_same(&state(&ledger, &key).await, &before);
    ledger
        .record(&key, &signed(NOW + 300), at(NOW + 1))
        .await
        .unwrap();
    assert!(ledger.record(&key, &given_up(), at(NOW + 1)).await.is_err());
    assert_eq!(state(&ledger, &key).await.state, State::Signed);
}

pub(super) async fn a_hold_that_was_taken_over_cannot_be_signed_by_its_first_holder(
    ledgers: &Ledgers,
) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    let first = signed_under(at(NOW).after(LEASE), NOW + 300);
    hold(&ledger, order("order", 20), NOW + 60).await;
    assert!(ledger.record(&key, &first, at(NOW + 61)).await.is_err());
    assert!(
        ledger.record(&key, &first, at(NOW + 59)).await.is_err(),
        "nor when it asked before its lease ended"
    );
    let second = signed_under(at(NOW + 60).after(LEASE), NOW + 300);
    ledger.record(&key, &second, at(NOW + 61)).await.unwrap();
}

pub(super) async fn new_terms_cannot_name_another_payee(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    sign(&ledger, order("order", 10), NOW, NOW + 300).await;
    let other = NewPurchase {
        payee: Address::repeat_byte(0x77),
        ..order("order", 10)
    };
    let mut wish = wish(other, at(NOW), Vec::new());
    wish.terms = Terms::Changed;
    let answer = ledger.reserve(&wish).await.unwrap();
    assert!(
        matches!(&answer, Reserved::Denied(denial) if denial.rule == Rule::PayeeChanged),
        "{answer:?}"
    );
}
