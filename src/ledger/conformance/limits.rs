//! Limits: counted purchases and the room that is left.

use super::*;

/// Histories and whether they lie in the spans ever, spent within an hour, reserved within an
/// hour, outstanding.
pub(super) const HISTORIES: [(&str, [bool; 4]); 8] = [
    ("settled long ago", [true, false, false, false]),
    ("settled just now", [true, true, false, false]),
    ("signed", [true, true, true, true]),
    ("rejected and expired", [true, false, false, false]),
    ("unknown and live", [true, true, false, true]),
    ("held", [true, true, true, true]),
    ("lapsed", [false; 4]),
    ("freed", [false; 4]),
];

pub(super) async fn live_through(ledger: &Ledger, history: &str, purchase: NewPurchase) {
    let (long_ago, lately) = (NOW - 7200, NOW - 600);
    match history {
        "settled long ago" | "settled just now" => {
            let expiry = if history == "settled just now" {
                lately
            } else {
                long_ago + 300
            };
            let key = sign(ledger, purchase, long_ago, expiry).await;
            ledger.record(&key, &settled(), at(long_ago)).await.unwrap();
        }
        "signed" => drop(sign(ledger, purchase, lately, NOW + 300).await),
        "rejected and expired" => {
            let key = sign(ledger, purchase, long_ago, long_ago + 300).await;
            ledger.record(&key, &rejected(), at(lately)).await.unwrap();
        }
        "unknown and live" => {
            let key = sign(ledger, purchase, long_ago, NOW + 1).await;
            ledger.record(&key, &unknown(), at(lately)).await.unwrap();
        }
        "held" => drop(hold(ledger, purchase, NOW - 10).await),
        "lapsed" => drop(hold(ledger, purchase, NOW - 60).await),
        _ => {
            let key = hold(ledger, purchase, NOW - 10).await;
            let lease = at(NOW - 10).after(LEASE);
            ledger
                .record(&key, &Transition::Voided { lease }, at(NOW))
                .await
                .unwrap();
        }
    }
}

/// Every purchase costs another power of two, so that a sum tells which it is made of.
pub(super) async fn each_scope_and_span_counts_what_it_should(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let price = |place: usize, history: usize| 1_u64 << (place * HISTORIES.len() + history);
    for place in 0..PLACES.len() {
        for (number, (history, _)) in HISTORIES.iter().enumerate() {
            let purchase = order(&format!("{place}-{number}"), price(place, number));
            live_through(&ledger, history, at_place(place, purchase)).await;
        }
    }
    for (scope, places) in scopes() {
        let expected = |span: usize, weigh: &dyn Fn(usize, usize) -> u64| -> u64 {
            let within = (0..HISTORIES.len()).filter(|history| HISTORIES[*history].1[span]);
            within
                .map(|history| {
                    places
                        .iter()
                        .map(|place| weigh(*place, history))
                        .sum::<u64>()
                })
                .sum()
        };
        let max = || Amount::Usd(Usd::MAX);
        for (span, kind) in [
            LimitKind::Lifetime(max()),
            LimitKind::Rolling(HOUR, max()),
            LimitKind::Payments(HOUR, 1),
            LimitKind::Exposure(max()),
        ]
        .into_iter()
        .enumerate()
        {
            let expected = if span == 2 {
                expected(span, &|_, _| 1)
            } else {
                expected(span, &price)
            };
            let meter = meter(scope.clone(), kind);
            assert_eq!(used(&ledger, NOW, meter.clone()).await, expected, "{meter}");
        }
    }
}

pub(super) async fn exactly_as_many_as_fit_are_held(ledgers: &Ledgers) {
    for (scope, places) in scopes()
        .into_iter()
        .filter(|(_, places)| !places.is_empty())
    {
        let kinds = [
            LimitKind::Lifetime(micros(39)),
            LimitKind::Rolling(HOUR, micros(30)),
            LimitKind::Exposure(micros(30)),
            LimitKind::Payments(HOUR, 3),
        ];
        for kind in kinds {
            let ledger = ledgers.open().await;
            let meters = vec![meter(scope.clone(), kind)];
            let mut held = 0;
            for number in 0..6 {
                let purchase = at_place(
                    places[number % places.len()],
                    order(&format!("order-{number}"), 10),
                );
                held += usize::from(
                    denied(&ledger, purchase, NOW, meters.clone())
                        .await
                        .is_none(),
                );
            }
            assert_eq!(held, 3, "{}", meters[0]);
        }
    }
}

pub(super) async fn tasks_at_once_hold_exactly_as_many_as_fit(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let ledger = ledger.clone();
            tokio::spawn(async move {
                denied(
                    &ledger,
                    order(&format!("order-{number}"), 10),
                    NOW,
                    lifetime(370),
                )
                .await
                .is_none()
            })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        held += usize::from(task.await.unwrap());
    }
    assert_eq!(
        (held, ledger.purchases(&Filter::all()).await.unwrap().len()),
        (37, 37)
    );
}

pub(super) async fn a_denial_holds_nothing_and_says_what_is_used(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    hold(&ledger, order("first", 70), NOW).await;
    let meters = [rolling(1000), lifetime(100)].concat();
    let denial = denied(&ledger, order("second", 31), NOW, meters)
        .await
        .unwrap();
    assert_eq!(
        (denial.rule, denial.scope, denial.room_returns),
        (Rule::Lifetime, Some(Scope::Global), None)
    );
    let amounts = [denial.limit, denial.used, denial.asked].map(Option::unwrap);
    assert_eq!(
        amounts,
        [100, 70, 31].map(|amount| Quantity::Amount(micros(amount)))
    );
    assert!(
        ledger
            .purchase(&order("second", 31).key())
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        denied(&ledger, order("second", 30), NOW, lifetime(100))
            .await
            .is_none()
    );
}

pub(super) async fn a_lapsed_hold_frees_its_room(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    for meters in [lifetime(10), rolling(10), exposure(10)] {
        assert!(
            denied(&ledger, order("second", 10), NOW + 59, meters)
                .await
                .is_some()
        );
    }
    assert!(
        denied(&ledger, order("second", 10), NOW + 60, lifetime(10))
            .await
            .is_none()
    );
    let late = ledger.record(&key, &signed(NOW + 300), at(NOW + 60)).await;
    assert!(
        matches!(
            late,
            Err(LedgerError::Transition {
                state: State::Voided,
                ..
            })
        ),
        "{late:?}"
    );
    // Whatever time the late one takes it to be: its room is taken.
    let late = ledger.record(&key, &signed(NOW + 300), at(NOW + 59)).await;
    assert!(
        matches!(
            late,
            Err(LedgerError::Transition {
                state: State::Voided,
                ..
            })
        ),
        "{late:?}"
    );
}

pub(super) async fn a_clock_ahead_ends_a_hold_which_can_then_not_be_signed(ledgers: &Ledgers) {
    // The other process is ahead by minutes, and takes the live hold for lapsed.
    for ahead in [60, 365, 600] {
        let ledger = ledgers.open().await;
        let key = hold(&ledger, order("first", 10), NOW).await;
        hold(&ledger, order("second", 10), NOW + ahead).await;
        let signed = signed(NOW + 300);
        let late = ledger.record(&key, &signed, at(NOW + 1)).await;
        assert!(
            matches!(
                late,
                Err(LedgerError::Transition {
                    state: State::Voided,
                    ..
                })
            ),
            "{late:?}"
        );
        assert_eq!(used(&ledger, NOW + 1, lifetime(10)[0].clone()).await, 10);
    }
}

pub(super) async fn what_is_signed_counts_until_proof(ledgers: &Ledgers) {
    let expiry = NOW + 300;
    let doubtful = Transition::SignerTimedOut {
        method: PaymentMethod::Eip3009,
        valid_before: expiry,
        reason: "the signer hung".to_owned(),
    };
    for history in [
        vec![signed(expiry)],
        vec![signed(expiry), unknown()],
        vec![signed(expiry), rejected()],
        vec![doubtful],
    ] {
        let ledger = ledgers.open().await;
        let key = hold(&ledger, order("first", 10), NOW).await;
        for transition in &history {
            ledger.record(&key, transition, at(NOW)).await.unwrap();
        }
        let years_later = NOW + 100_000_000;
        assert!(
            denied(&ledger, order("second", 1), years_later, lifetime(10))
                .await
                .is_some(),
            "{history:?}"
        );
        // The rolling window starts when the money may move last; exposure ends ten minutes after.
        assert!(
            denied(&ledger, order("second", 1), expiry + 3599, rolling(10))
                .await
                .is_some(),
            "{history:?}"
        );
        assert!(
            denied(&ledger, order("second", 1), expiry + 599, exposure(10))
                .await
                .is_some(),
            "{history:?}"
        );
        assert!(
            denied(&ledger, order("second", 1), expiry + 600, exposure(10))
                .await
                .is_none(),
            "{history:?}"
        );
        assert!(
            denied(&ledger, order("third", 9), expiry + 3600, rolling(10))
                .await
                .is_none(),
            "{history:?}"
        );
    }
}

pub(super) async fn what_is_settled_counts_until_it_has_expired(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    ledger.record(&key, &settled(), at(NOW + 5)).await.unwrap();
    ledger.record(&key, &unknown(), at(NOW + 6)).await.unwrap();
    ledger.record(&key, &settled(), at(NOW + 7)).await.unwrap();
    // The receipt is the seller's claim: the money may leave as late as the authorization expires.
    assert_eq!(state(&ledger, &key).await.counts_at, at(NOW + 300));
    let denial = denied(&ledger, order("second", 1), NOW + 3899, rolling(10))
        .await
        .unwrap();
    assert_eq!(denial.room_returns, Some(at(NOW + 3900)));
    assert!(
        denied(&ledger, order("second", 1), NOW + 8, exposure(1))
            .await
            .is_none()
    );
    assert!(
        denied(&ledger, order("third", 9), NOW + 3900, rolling(10))
            .await
            .is_none()
    );
}

pub(super) async fn what_is_freed_does_not_count(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let key = hold(&ledger, order("first", 10), NOW).await;
    ledger.record(&key, &given_up(), at(NOW)).await.unwrap();
    ledger.record(&key, &given_up(), at(NOW)).await.unwrap();
    for limit in [lifetime(0), rolling(0), exposure(0)] {
        assert_eq!(used(&ledger, NOW, limit[0].clone()).await, 0);
    }
    assert_eq!(
        used(
            &ledger,
            NOW,
            meter(Scope::Global, LimitKind::Payments(HOUR, 1))
        )
        .await,
        0
    );
    assert!(
        denied(&ledger, order("second", 10), NOW, lifetime(10))
            .await
            .is_none()
    );
    let signing = ledger.record(&key, &signed(NOW + 300), at(NOW)).await;
    assert!(
        matches!(
            signing,
            Err(LedgerError::Transition {
                state: State::Voided,
                ..
            })
        ),
        "{signing:?}"
    );
}
