//! A purchase reads as few purchases of a large ledger as of a small one.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

use super::*;
use crate::ledger::conformance::resumed::wanted;
use crate::ledger::conformance::{HOUR, NOW, at, meter, order, scopes, settled, signed, wish};
use crate::ledger::{NewPurchase, Reservation, State};
use crate::limit::{Amount, LimitKind};
use crate::money::Usd;

fn purchase(number: u64) -> NewPurchase {
    NewPurchase {
        fingerprint: U256::from(number).into(),
        tag: Some("t".to_owned()),
        agent: Some("a".to_owned()),
        ..order(&format!("order-{number}"), 10)
    }
}

/// A ledger with `count` purchases in this state, one a second, the last one now.
fn filled(count: u64, state: State) -> Memory {
    let memory = Memory::default();
    let mut store = memory.lock();
    for number in 1..=count {
        let now = at(NOW - count + number);
        let lease = at(NOW + 60);
        let mut stored = purchase(number).open(0, now, lease);
        stored.seq = number;
        let mut apply = |transition: &Transition| stored.apply(transition, now).unwrap();
        match state {
            State::Reserved => {}
            State::Settled => {
                apply(&signed(NOW - count + number + 300));
                apply(&settled());
            }
            _ => apply(&signed(NOW + 86_400)),
        }
        store.put(Box::new(stored));
    }
    drop(store);
    memory
}

fn reservation(number: u64, net: bool) -> Reservation {
    let purchase = purchase(number);
    let held = purchase.open(0, at(NOW), at(NOW));
    let scopes = scopes().into_iter().map(|(scope, _)| scope);
    let max = || Amount::from(Usd::MAX);
    let kinds = || {
        [
            LimitKind::Rolling(HOUR / 60, max()),
            LimitKind::Lifetime(max()),
            LimitKind::Exposure(max()),
            LimitKind::Payments(HOUR, 64_000),
            LimitKind::CircuitBreaker(HOUR, 9),
        ]
    };
    let limits = scopes
        .filter(|scope| scope.covers(&held.payment()))
        .flat_map(|scope| kinds().map(|kind| meter(scope.clone(), kind)));
    let mut wish = wish(purchase, at(NOW + number), limits.collect());
    wish.checks.refunds_make_room = net;
    wish
}

/// Returns the purchases that the third purchase read. The first one begins the totals.
fn reads(count: u64, state: State, net: bool) -> u64 {
    let memory = filled(count, state);
    let mut last = 0;
    for number in 1..=3 {
        let mut wish = reservation(count + number, net);
        wish.checks.now = at(NOW + number);
        memory.lock().reads.set(0);
        let held = memory.reserve(&wish).unwrap();
        assert!(matches!(held, Reserved::Held(_)), "{held:?}");
        last = memory.lock().reads.get();
    }
    last
}

#[test]
fn a_purchase_reads_as_few_purchases_of_a_large_ledger_in_memory_as_of_a_small_one() {
    for state in [State::Settled, State::Signed, State::Reserved] {
        for net in [false, true] {
            let (small, large) = (reads(500, state, net), reads(2000, state, net));
            assert!(large <= small, "{state}: {large} reads, {small} of few");
        }
    }
}

#[test]
fn an_id_and_an_open_payment_are_found_in_memory_without_a_search() {
    let reads = |count| {
        let memory = filled(count, State::Signed);
        let id = Filter {
            id: Some("order-7".parse().unwrap()),
            ..Filter::all()
        };
        memory.lock().reads.set(0);
        assert_eq!(memory.page(&id).unwrap().len(), 1);
        let open = wanted(&purchase(9), NOW);
        assert!(matches!(memory.resume(&open).unwrap(), Resumed::Again(_)));
        let store = memory.lock();
        store.reads.get()
    };
    assert_eq!(reads(10), reads(2000));
}
