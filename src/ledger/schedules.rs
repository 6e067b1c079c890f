//! The ledger in memory under every schedule that shuttle finds: `.ci/run shuttle`.

use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use super::conformance::{NOW, at, lifetime, order, signed_under, wish};
use super::{Ledger, Reserved, Resumption, Terms};

const LEASE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 2000;

/// At random, and with few preemptions, which finds other mistakes.
fn everywhere(run: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(run.clone(), ROUNDS);
    shuttle::check_pct(run, ROUNDS, 3);
}

#[test]
fn exactly_as_many_as_fit_are_held() {
    everywhere(|| {
        let ledger = Ledger::memory();
        let threads: Vec<_> = (0..4)
            .map(|number| {
                let ledger = ledger.clone();
                thread::spawn(move || {
                    let wish = wish(order(&number.to_string(), 10), at(NOW), lifetime(20));
                    matches!(block_on(ledger.reserve(&wish)).unwrap(), Reserved::Held(_))
                })
            })
            .collect();
        let held = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .filter(|held| *held)
            .count();
        assert_eq!(held, 2);
    });
}

#[test]
fn one_purchase_is_held_by_one_and_a_lapsed_hold_by_nobody_else() {
    everywhere(|| {
        let ledger = Ledger::memory();
        let late = order("late", 10);
        block_on(ledger.reserve(&wish(late.clone(), at(NOW), lifetime(10)))).unwrap();
        // One holds the room of the lapsed, whose own process signs at the same moment.
        let other = {
            let ledger = ledger.clone();
            thread::spawn(move || {
                let wish = wish(order("other", 10), at(NOW + 60), lifetime(10));
                matches!(block_on(ledger.reserve(&wish)).unwrap(), Reserved::Held(_))
            })
        };
        let signing = {
            let (ledger, key) = (ledger.clone(), late.key());
            let signed = signed_under(at(NOW).after(LEASE), NOW + 300);
            thread::spawn(move || block_on(ledger.record(&key, &signed, at(NOW + 59))).is_ok())
        };
        let (other, signed) = (other.join().unwrap(), signing.join().unwrap());
        assert!(
            other != signed,
            "the room is taken by one of them: {other} {signed}"
        );
    });
}

#[test]
fn what_is_open_is_taken_up_by_one() {
    everywhere(|| {
        let ledger = Ledger::memory();
        let entry = order("open", 10);
        block_on(ledger.reserve(&wish(entry.clone(), at(NOW), lifetime(10)))).unwrap();
        block_on(ledger.record(
            &entry.key(),
            &signed_under(at(NOW).after(LEASE), NOW + 300),
            at(NOW),
        ))
        .unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (ledger, entry) = (ledger.clone(), entry.clone());
                thread::spawn(move || {
                    let (payer, fingerprint, origin) =
                        (entry.payer, entry.fingerprint, entry.origin);
                    let (now, until) = (at(NOW + 1), at(NOW + 21));
                    let wanted = Resumption {
                        payer,
                        fingerprint,
                        origin,
                        tag: None,
                        agent: None,
                        max: None,
                        now,
                        until,
                    };
                    block_on(ledger.resume(&wanted)).unwrap().is_some()
                })
            })
            .collect();
        let taken: Vec<bool> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(taken.iter().filter(|taken| **taken).count(), 1);
    });
}

#[test]
fn new_terms_are_signed_by_one() {
    everywhere(|| {
        let ledger = Ledger::memory();
        let entry = order("order", 10);
        block_on(ledger.reserve(&wish(entry.clone(), at(NOW), lifetime(100)))).unwrap();
        block_on(ledger.record(
            &entry.key(),
            &signed_under(at(NOW).after(LEASE), NOW + 300),
            at(NOW),
        ))
        .unwrap();
        let threads: Vec<_> = [20, 30]
            .into_iter()
            .map(|value| {
                let ledger = ledger.clone();
                thread::spawn(move || {
                    let mut wish = wish(order("order", value), at(NOW + 1), lifetime(100));
                    wish.terms = Terms::Changed;
                    matches!(block_on(ledger.reserve(&wish)).unwrap(), Reserved::Held(_))
                })
            })
            .collect();
        let held: Vec<bool> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        assert_eq!(held.iter().filter(|held| **held).count(), 1);
    });
}
