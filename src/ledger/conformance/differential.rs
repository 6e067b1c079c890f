//! The ledger in memory is simple. The others must give the same answers.

use proptest::prelude::*;

use super::*;
use crate::ledger::Calls;
use crate::limit::{Calendar, InFlight, Period};

#[derive(Clone, Debug)]
enum Step {
    Reserve {
        id: u8,
        place: usize,
        value: u64,
        scope: usize,
        kind: u8,
        changed: bool,
    },
    Call {
        id: u8,
        place: usize,
        value: u64,
        scope: usize,
        kind: u8,
    },
    Record {
        id: u8,
        transition: Box<Transition>,
    },
    Wait(u64),
    /// By a process whose clock is behind, or that was set back.
    TurnBack(u64),
}

const KINDS: u8 = 9;

fn transition() -> impl Strategy<Value = Transition> {
    let fixed = prop_oneof![
        Just(settled()),
        Just(rejected()),
        Just(unknown()),
        Just(given_up()),
        Just(Transition::BodyLost {
            reason: "broke".to_owned()
        })
    ];
    let answers = prop::sample::select(vec![200, 299, 300, 404, 500]).prop_map(SellerAnswer::of);
    let answered = answers.prop_flat_map(|answer| {
        let unknown = Transition::Unresolved {
            reason: "broken off".to_owned(),
            answer: Some(answer.clone()),
        };
        prop_oneof![
            Just(Transition::Settled {
                transaction: B256::ZERO,
                charged: Some(U256::from(5)),
                answer
            }),
            Just(unknown)
        ]
    });
    let refund = (1..3_u8, 1..60_u64).prop_map(|(number, value)| {
        Transition::Refunded(Refund::new(
            B256::repeat_byte(number),
            U256::from(value),
            at(NOW),
            true,
        ))
    });
    let released = any::<bool>().prop_map(|cancelled| Transition::ReleasedByProof {
        nonce: B256::ZERO,
        valid_before: None,
        cancelled,
        proof: "{}".to_owned(),
    });
    let charge = prop::option::of(0..120_u64).prop_map(|charge| charge.map(U256::from));
    let confirmed = charge.prop_map(|charged| Transition::Confirmed {
        nonce: B256::ZERO,
        transaction: None,
        charged,
        proof: "{}".to_owned(),
    });
    prop_oneof![
        1 => confirmed,
        4 => fixed,
        2 => answered,
        5 => (NOW..NOW + 9000).prop_map(signed),
        2 => refund,
        1 => released,
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let reserve = (
        0..12_u8,
        0..PLACES.len(),
        1..100_u64,
        0..scopes().len(),
        0..KINDS,
        any::<bool>(),
    )
        .prop_map(|(id, place, value, scope, kind, changed)| Step::Reserve {
            id,
            place,
            value,
            scope,
            kind,
            changed,
        });
    let call = (
        0..12_u8,
        0..PLACES.len(),
        0..100_u64,
        0..scopes().len(),
        0..KINDS,
    )
        .prop_map(|(id, place, value, scope, kind)| Step::Call {
            id,
            place,
            value,
            scope,
            kind,
        });
    let record = (0..12_u8, transition()).prop_map(|(id, transition)| Step::Record {
        id,
        transition: Box::new(transition),
    });
    prop_oneof![3 => reserve, 1 => call, 4 => record, 1 => (1..4000_u64).prop_map(Step::Wait), 1 => (1..100_000_u64).prop_map(Step::Wait), 1 => (1..4000_u64).prop_map(Step::TurnBack)]
}

fn kind(number: u8) -> LimitKind {
    match number {
        0 => LimitKind::Lifetime(micros(200)),
        1 => LimitKind::Rolling(HOUR, micros(150)),
        2 => LimitKind::Exposure(micros(100)),
        3 => LimitKind::Payments(HOUR, 3),
        4 => LimitKind::Rolling(Duration::from_secs(90), micros(150)),
        5 => LimitKind::CircuitBreaker(HOUR, 2),
        6 => LimitKind::LoopGuard(Duration::from_secs(90), 2),
        7 => LimitKind::Calendar(Calendar::new(Period::Day, "UTC").unwrap(), micros(150)),
        _ => LimitKind::Lifetime(TokenAmount::from_units(usdc(BASE), U256::from(200)).into()),
    }
}

async fn take(ledger: &Ledger, step: &Step, now: u64) -> String {
    match step {
        Step::Reserve {
            id,
            place,
            value,
            scope,
            kind: number,
            changed,
        } => {
            let mut purchase = at_place(*place, order(&id.to_string(), *value));
            let methods = PaymentMethod::ALL;
            purchase.payment_method = methods
                .get(usize::from(*number))
                .copied()
                .or(purchase.payment_method);
            let mut wish = wish(
                purchase,
                at(now),
                vec![meter(scopes()[*scope].0.clone(), kind(*number))],
            );
            wish.terms = if *changed {
                Terms::Changed
            } else {
                Terms::First
            };
            wish.checks.payee = Some(PayeePin {
                origin: wish.purchase.origin.clone(),
                payee: Address::repeat_byte(1),
            })
            .filter(|_| *value > 95);
            let (origin, method, path) = (
                wish.purchase.origin.clone(),
                "GET".to_owned(),
                "/report".to_owned(),
            );
            wish.checks.price = Some(PriceCeiling {
                origin,
                method,
                path,
                max_rise_percent: 400,
            });
            format!("{:?}", ledger.reserve(&wish).await.unwrap())
        }
        Step::Call {
            id,
            place,
            value,
            scope,
            kind: number,
        } => {
            let purchase = by_key(at_place(*place, order(&id.to_string(), *value)), "key");
            let wish = wish(
                purchase,
                at(now),
                vec![meter(scopes()[*scope].0.clone(), kind(*number))],
            );
            format!("{:?}", ledger.reserve(&wish).await.unwrap())
        }
        Step::Record { id, transition } => {
            let key = order(&id.to_string(), 0).key();
            let known = ledger.purchase(&key).await.unwrap();
            let lease = known.as_ref().map(|purchase| purchase.lease_until);
            let transition = match (transition.as_ref(), lease) {
                (
                    Transition::Confirmed {
                        transaction,
                        charged,
                        proof,
                        ..
                    },
                    _,
                ) => Transition::Confirmed {
                    nonce: known
                        .as_ref()
                        .map(|purchase| purchase.nonce)
                        .unwrap_or_default(),
                    transaction: *transaction,
                    charged: *charged,
                    proof: proof.clone(),
                },
                (
                    Transition::ReleasedByProof {
                        cancelled, proof, ..
                    },
                    _,
                ) => Transition::ReleasedByProof {
                    nonce: known
                        .as_ref()
                        .map(|purchase| purchase.nonce)
                        .unwrap_or_default(),
                    valid_before: known.and_then(|purchase| purchase.valid_before),
                    cancelled: *cancelled,
                    proof: proof.clone(),
                },
                (Transition::Signed { valid_before, .. }, Some(lease)) => {
                    signed_under(lease, *valid_before)
                }
                (Transition::Voided { .. }, Some(lease)) if lease <= at(now) => {
                    Transition::Voided { lease }
                }
                (transition, _) => transition.clone(),
            };
            format!("{:?}", ledger.record(&key, &transition, at(now)).await)
        }
        Step::Wait(_) | Step::TurnBack(_) => String::new(),
    }
}

async fn survey(ledger: &Ledger, now: u64) -> String {
    let meters = scopes()
        .into_iter()
        .flat_map(|(scope, _)| (0..KINDS).map(move |number| meter(scope.clone(), kind(number))))
        .collect();
    let mut checks = LimitCheck {
        now: at(now),
        payment: Some((usdc(BASE), U256::from(50))),
        limits: meters,
        payee: None,
        price: None,
        refunds_make_room: false,
        in_flight: InFlight::default(),
        watch: crate::limit::Watch::default(),
    };
    let called = Filter {
        credential: Some("key".to_owned()),
        since: Some(at(NOW + 20)),
        ..Filter::all()
    };
    let (all, called) = (
        ledger.purchases(&Filter::all()).await.unwrap(),
        ledger.purchases(&called).await.unwrap(),
    );
    let mut counted = Vec::new();
    for (before, most) in [(u64::MAX, u64::MAX), (4, u64::MAX), (u64::MAX, 2)] {
        let calls = Calls {
            credential: "key",
            since: at(NOW + 20),
            before,
            most,
        };
        let count = ledger.calls(&calls).await.unwrap();
        let live = called
            .iter()
            .filter(|call| call.state == State::ApiCall && call.seq < before);
        let live = u64::try_from(live.count()).unwrap();
        assert_eq!(count, live.min(most));
        counted.push(count);
    }
    let gross = ledger.examine(&checks).await.unwrap();
    checks.refunds_make_room = true;
    format!(
        "{gross:?} {:?} {all:?} {called:?} {counted:?}",
        ledger.examine(&checks).await.unwrap()
    )
}

async fn compare(other: &Ledger, steps: &[Step]) {
    let memory = Ledger::memory();
    let mut now = NOW;
    for step in steps {
        now = match step {
            Step::Wait(secs) => now + secs,
            Step::TurnBack(secs) => now - secs,
            _ => now + 1,
        };
        assert_eq!(
            take(&memory, step, now).await,
            take(other, step, now).await,
            "{step:?}"
        );
        if matches!(step, Step::Wait(_) | Step::TurnBack(_)) {
            assert_eq!(survey(&memory, now).await, survey(other, now).await);
        }
    }
    assert_eq!(survey(&memory, now).await, survey(other, now).await);
}

#[cfg(feature = "sqlite")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sqlite_answers_as_memory_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let sqlite = Ledger::sqlite(":memory:").unwrap();
            compare(&sqlite, &steps).await;
            assert!(sqlite.verify(None).await.unwrap().is_sound());
        });
    }
}

#[cfg(feature = "postgres")]
proptest! {
    #![proptest_config(ProptestConfig { cases: 50, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "needs a PostgreSQL: tests/postgres/run"]
    fn postgres_answers_as_memory_does(steps in prop::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let postgres = crate::ledger::postgres::tests::new_ledger().await;
            compare(&postgres, &steps).await;
            assert!(postgres.verify(None).await.unwrap().is_sound());
        });
    }
}
