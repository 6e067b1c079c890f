//! Windows of time, large values, other tokens and calls with API keys.

use super::*;

/// The same as a call by key.
pub(in crate::ledger) fn by_key(purchase: NewPurchase, name: &str) -> NewPurchase {
    let asset = Asset::declared_dollars().clone();
    NewPurchase {
        asset,
        payee: Address::ZERO,
        payment_method: None,
        credential: Some(name.to_owned()),
        ..purchase
    }
}

pub(super) async fn calls_by_key_count_in_dollars_and_are_no_payments(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let first = by_key(order("first", 10), "one");
    let key = hold(&ledger, first, NOW).await;
    hold(&ledger, by_key(order("second", 20), "two"), NOW + 1).await;
    sign(&ledger, order("paid", 40), NOW + 1, NOW + 300).await;
    let purchase = ledger.purchase(&key).await.unwrap().unwrap();
    assert_eq!(
        (purchase.state, purchase.credential.as_deref()),
        (State::ApiCall, Some("one"))
    );
    assert!(
        !purchase.is_unproven() && !purchase.is_unresolved() && !purchase.is_outstanding(at(NOW))
    );
    let global = |kind: LimitKind| meter(Scope::Global, kind);
    let max = || Amount::Usd(Usd::MAX);
    for (kind, expected) in [
        (LimitKind::Lifetime(max()), 70),
        (LimitKind::Rolling(HOUR, max()), 70),
        (LimitKind::Exposure(max()), 40),
        (LimitKind::Payments(HOUR, 9), 1),
        (LimitKind::LoopGuard(HOUR, 9), 1),
    ] {
        assert_eq!(
            used(&ledger, NOW + 2, global(kind.clone())).await,
            expected,
            "{kind:?}"
        );
    }
    assert_eq!(
        used(
            &ledger,
            NOW + 2 + 3600,
            global(LimitKind::Rolling(HOUR, max()))
        )
        .await,
        40,
        "a call counts when made"
    );
    let limit = vec![global(LimitKind::Lifetime(micros(75)))];
    assert!(
        denied(
            &ledger,
            by_key(order("third", 6), "one"),
            NOW + 2,
            limit.clone()
        )
        .await
        .is_some()
    );
    let called = |name: &str| Filter {
        credential: Some(name.to_owned()),
        ..Filter::all()
    };
    assert_eq!(ledger.purchases(&called("one")).await.unwrap().len(), 1);
    for refused in [
        signed(NOW + 300),
        settled(),
        unknown(),
        rejected(),
        Transition::Presented { until: at(NOW) },
    ] {
        let refusal = ledger.record(&key, &refused, at(NOW)).await.unwrap_err();
        assert!(
            matches!(refusal, LedgerError::Transition { .. }),
            "{refused:?}"
        );
    }
    ledger
        .record(
            &key,
            &Transition::Voided {
                lease: purchase.lease_until,
            },
            at(NOW + 3),
        )
        .await
        .unwrap();
    assert!(
        denied(&ledger, by_key(order("third", 6), "one"), NOW + 4, limit)
            .await
            .is_none()
    );
}

pub(super) async fn a_hold_lies_in_every_window(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    hold(&ledger, order("first", 10), NOW).await;
    let instant = LimitKind::Rolling(Duration::from_millis(1), micros(10));
    let denial = denied(
        &ledger,
        order("second", 1),
        NOW + 30,
        vec![meter(Scope::Global, instant)],
    )
    .await
    .unwrap();
    assert_eq!(
        denial.room_returns, None,
        "nobody knows when a hold will be spent"
    );
    let forever = LimitKind::Rolling(Duration::MAX, micros(10));
    assert!(
        denied(
            &ledger,
            order("second", 1),
            NOW + 30,
            vec![meter(Scope::Global, forever)]
        )
        .await
        .is_some()
    );
}

pub(super) async fn a_charge_at_the_edge_of_a_window_is_outside_whatever_becomes_of_it(
    ledgers: &Ledgers,
) {
    let ledger = ledgers.open().await;
    let first = sign(&ledger, order("first", 10), NOW, NOW + 300).await;
    let edge = at(NOW + 3900);
    let mut net = wish(order("second", 7), edge, rolling(1000));
    net.checks.refunds_make_room = true;
    assert!(matches!(
        ledger.reserve(&net).await.unwrap(),
        Reserved::Held(_)
    ));
    ledger
        .record(
            &net.key(),
            &signed_under(edge.after(LEASE), NOW + 4200),
            edge,
        )
        .await
        .unwrap();
    let refund = Refund::new(B256::repeat_byte(1), U256::from(4), edge, true);
    for secs in [0, 0, 1] {
        let checks = LimitCheck {
            now: edge.after(Duration::from_secs(secs)),
            ..net.checks.clone()
        };
        let used = ledger.examine(&checks).await.unwrap().remove(0).used;
        assert_eq!(used, Some(Quantity::Amount(micros(7))), "{secs}");
        ledger
            .record(&first, &Transition::Refunded(refund.clone()), edge)
            .await
            .unwrap();
    }
}

pub(super) async fn room_returns_when_enough_has_left(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for (number, (value, spent)) in [(10, NOW), (20, NOW + 100), (30, NOW + 200)]
        .into_iter()
        .enumerate()
    {
        let key = sign(
            &ledger,
            order(&format!("order-{number}"), value),
            spent - LEASE.as_secs(),
            spent,
        )
        .await;
        ledger.record(&key, &settled(), at(spent)).await.unwrap();
    }
    let returns = async |value, meters| {
        denied(&ledger, order("next", value), NOW + 300, meters)
            .await
            .unwrap()
            .room_returns
    };
    assert_eq!(returns(10, rolling(60)).await, Some(at(NOW + 3600)));
    assert_eq!(returns(11, rolling(60)).await, Some(at(NOW + 3700)));
    assert_eq!(returns(60, rolling(60)).await, Some(at(NOW + 3800)));
    assert_eq!(returns(61, rolling(60)).await, None);
    let payments = |max| vec![meter(Scope::Global, LimitKind::Payments(HOUR, max))];
    let reserved = NOW + 100 - LEASE.as_secs();
    assert_eq!(returns(1, payments(2)).await, Some(at(reserved + 3600)));
    assert_eq!(returns(1, payments(0)).await, None);
    sign(&ledger, order("live", 10), NOW + 300, NOW + 900).await;
    assert_eq!(returns(10, exposure(10)).await, Some(at(NOW + 1500)));
}

pub(super) async fn the_largest_value_neither_wraps_nor_fits(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let largest = |id: &str| NewPurchase {
        value: U256::MAX,
        ..order(id, 0)
    };
    let limit = |units| {
        vec![meter(
            Scope::Global,
            LimitKind::Lifetime(TokenAmount::from_units(usdc(BASE), units).into()),
        )]
    };
    assert!(
        denied(&ledger, largest("first"), NOW, limit(U256::MAX))
            .await
            .is_none()
    );
    let kept = state(&ledger, &largest("first").key()).await;
    assert_eq!((kept.value, kept.usd), (U256::MAX, None));
    assert!(
        denied(&ledger, largest("second"), NOW, limit(U256::MAX))
            .await
            .is_some()
    );
    assert!(
        denied(&ledger, order("third", 1), NOW, limit(U256::MAX))
            .await
            .is_some()
    );
    let dollars = order("fourth", Usd::MAX.micros());
    assert!(
        denied(&ledger, dollars, NOW, lifetime(Usd::MAX.micros()))
            .await
            .is_none()
    );
    assert!(
        denied(&ledger, order("fifth", 1), NOW, lifetime(Usd::MAX.micros()))
            .await
            .is_some()
    );
}

pub(super) async fn tokens_are_limited_in_their_own_units(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let euro = Asset::new(BASE, Address::repeat_byte(0xE0), "EURC", 6, "EURC", "2");
    let in_euro = |id: &str, units: u64| NewPurchase {
        asset: euro.clone(),
        ..order(id, units)
    };
    let limit = || {
        vec![meter(
            Scope::Global,
            LimitKind::Lifetime(TokenAmount::from_units(euro.clone(), U256::from(10)).into()),
        )]
    };
    assert!(
        denied(&ledger, in_euro("euro", 8), NOW, limit())
            .await
            .is_none()
    );
    assert!(
        denied(&ledger, order("dollars", 100), NOW, limit())
            .await
            .is_none(),
        "dollars are not euros"
    );
    assert!(
        denied(&ledger, in_euro("more", 3), NOW, limit())
            .await
            .is_some()
    );
    assert!(
        denied(&ledger, in_euro("rest", 2), NOW, limit())
            .await
            .is_none()
    );
    assert_eq!(
        used(&ledger, NOW, lifetime(1000)[0].clone()).await,
        100,
        "euros have no dollar value"
    );
    assert_eq!(
        used(
            &ledger,
            NOW,
            meter(Scope::Global, LimitKind::Payments(HOUR, 9))
        )
        .await,
        3
    );
}
