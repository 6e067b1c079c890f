//! Tests of the ledger in memory under many schedules of threads: `.ci/run shuttle`.

use std::time::Duration;

use shuttle::future::block_on;
use shuttle::thread;

use super::conformance::{NOW, at, lifetime, order, signed_under, wish};
use super::{Ledger, Reserved, Resumed, Resumption, Terms};

const LEASE: Duration = Duration::from_secs(60);
const ROUNDS: usize = 2000;

/// Runs the test under random schedules, and under schedules with few preemptions.
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
fn a_lapsed_hold_is_either_replaced_or_signed() {
    everywhere(|| {
        let ledger = Ledger::memory();
        let late = order("late", 10);
        block_on(ledger.reserve(&wish(late.clone(), at(NOW), lifetime(10)))).unwrap();
        // One thread takes the room of the lapsed hold while the other signs that hold.
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
fn an_unresolved_purchase_is_resumed_by_one() {
    everywhere(|| {
        let ledger = Ledger::memory();
        let purchase = order("open", 10);
        block_on(ledger.reserve(&wish(purchase.clone(), at(NOW), lifetime(10)))).unwrap();
        block_on(ledger.record(
            &purchase.key(),
            &signed_under(at(NOW).after(LEASE), NOW + 300),
            at(NOW),
        ))
        .unwrap();
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (ledger, purchase) = (ledger.clone(), purchase.clone());
                thread::spawn(move || {
                    let (payer, fingerprint, origin) =
                        (purchase.payer, purchase.fingerprint, purchase.origin);
                    let (now, until) = (at(NOW + 1), at(NOW + 21));
                    let wanted = Resumption {
                        payer,
                        fingerprint,
                        origin,
                        now,
                        until,
                        ended: Vec::new(),
                    };
                    matches!(block_on(ledger.resume(&wanted)).unwrap(), Resumed::Again(_))
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
        let purchase = order("order", 10);
        block_on(ledger.reserve(&wish(purchase.clone(), at(NOW), lifetime(100)))).unwrap();
        block_on(ledger.record(
            &purchase.key(),
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
