//! Answers that break, stop or never end.

use std::time::Duration;

use bursar::ErrorKind;
use bursar_testing::{Breakage, Fault};

use crate::trial::{PRICE, Trial, elsewhere, lost, paid, run, trial, uncertain};

// Several threads: a client that reads without end must not keep the others waiting.

/// What the system's buffers on both sides of a connection may hold, of a seller that sends on and on.
const BUFFERS: u64 = 24 << 20;
const BOMB: usize = 64 << 20;
/// Compressing blocks, so that this one is no larger than it must be.
const GZIP_BOMB: usize = 4 << 20;

fn slow() -> Breakage {
    Breakage::Slow(Duration::from_millis(50))
}

/// Answers of which no head arrives, and what the client says of them.
fn headless() -> [(Breakage, ErrorKind); 9] {
    [
        (Breakage::Close, ErrorKind::Transport),
        (Breakage::Reset, ErrorKind::Transport),
        (Breakage::Silence, ErrorKind::Timeout),
        (Breakage::Cut(1), ErrorKind::Transport),
        (Breakage::Cut(60), ErrorKind::Transport),
        (slow(), ErrorKind::Timeout),
        (Breakage::Garbage, ErrorKind::Transport),
        (Breakage::EndlessHeaders, ErrorKind::Transport),
        (Breakage::ManyHeaders(1_000), ErrorKind::Transport),
    ]
}

/// Terms that break, of which nothing is signed.
pub(crate) fn before_payment() -> Vec<Trial> {
    let terms = Fault::BreakTerms;
    let mut trials: Vec<Trial> = headless()
        .into_iter()
        .map(|(breakage, kind)| {
            trial(terms(breakage), kind)
                .in_all_versions()
                .bytes(BUFFERS)
        })
        .collect();
    trials.push(trial(terms(Breakage::EndlessHints), ErrorKind::Timeout).bytes(u64::MAX));
    trials.extend([
        paid(terms(Breakage::ManyHeaders(20)), PRICE).in_all_versions(),
        trial(terms(Breakage::Cut(300)), ErrorKind::Transport).v1(),
        trial(terms(Breakage::ShortBody), ErrorKind::Transport).v1(),
        trial(terms(Breakage::HangingBody), ErrorKind::Timeout).v1(),
        trial(terms(Breakage::HugeBody(BOMB)), ErrorKind::Malformed)
            .v1()
            .bytes(BUFFERS),
        trial(Fault::HugeBody402(BOMB), ErrorKind::Malformed)
            .v1()
            .bytes(BUFFERS),
        trial(Fault::HangingBody402, ErrorKind::Timeout).v1(),
        trial(Fault::HugeHeader(100_000), ErrorKind::Malformed),
        trial(Fault::HugeHeader(1 << 20), ErrorKind::Transport)
            .in_all_versions()
            .bytes(BUFFERS),
        // The header of version 2 is all there; nothing waits for the body, or reads it.
        paid(terms(Breakage::ShortBody), PRICE),
        paid(terms(Breakage::HangingBody), PRICE),
        paid(terms(Breakage::HugeBody(BOMB)), PRICE).bytes(BUFFERS),
        paid(terms(Breakage::GzipBomb(GZIP_BOMB)), PRICE),
        paid(Fault::HugeBody402(BOMB), PRICE).bytes(BUFFERS),
        paid(Fault::HangingBody402, PRICE),
        paid(terms(Breakage::ExtraResponse), PRICE).in_all_versions(),
    ]);
    #[cfg(feature = "gzip")]
    trials.push(trial(terms(Breakage::GzipBomb(GZIP_BOMB)), ErrorKind::Malformed).v1());
    trials
}

/// Answers to a payment that was not settled.
pub(crate) fn before_settling() -> Vec<Trial> {
    let fault = Fault::BreakBeforeSettle;
    let mut trials: Vec<Trial> = headless()
        .into_iter()
        .map(|(breakage, kind)| lost(fault(breakage), kind).bytes(BUFFERS))
        .collect();
    trials.push(lost(fault(Breakage::EndlessHints), ErrorKind::Timeout).bytes(u64::MAX));
    trials.push(
        uncertain(fault(Breakage::ExtraResponse), 200)
            .delivered()
            .in_all_versions(),
    );
    for breakage in bodies() {
        trials.push(uncertain(fault(breakage), 200).impatient());
    }
    trials.push(
        lost(Fault::SettleAfterDisconnect, ErrorKind::Timeout)
            .settled(1)
            .in_all_versions(),
    );
    trials
}

/// Answers to a payment that was settled.
pub(crate) fn after_settling() -> Vec<Trial> {
    let fault = Fault::BreakAfterSettle;
    let mut trials: Vec<Trial> = headless()
        .into_iter()
        .map(|(breakage, kind)| {
            lost(fault(breakage), kind)
                .settled(1)
                .in_all_versions()
                .bytes(BUFFERS)
        })
        .collect();
    trials.push(
        lost(fault(Breakage::EndlessHints), ErrorKind::Timeout)
            .settled(1)
            .bytes(u64::MAX),
    );
    trials.push(paid(fault(Breakage::ExtraResponse), PRICE));
    for breakage in bodies() {
        // The receipt is in the head: the money is accounted for, whatever becomes of the body.
        trials.push(paid(fault(breakage), PRICE).undelivered().impatient());
    }
    trials.push(
        lost(Fault::DropAfterSettle, ErrorKind::Transport)
            .settled(1)
            .in_all_versions(),
    );
    trials.push(
        lost(Fault::HangAfterSettle, ErrorKind::Timeout)
            .settled(1)
            .in_all_versions(),
    );
    trials.push(
        paid(Fault::BrokenBodyAfterSettle, PRICE)
            .undelivered()
            .in_all_versions(),
    );
    trials
}

/// Goods of which the head arrives and the rest does not, or is too much.
fn bodies() -> [Breakage; 4] {
    [
        Breakage::ShortBody,
        Breakage::HangingBody,
        Breakage::HugeBody(100_000),
        Breakage::GzipBomb(100_000),
    ]
}

pub(crate) fn all() -> Vec<Trial> {
    [before_payment(), before_settling(), after_settling()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_terms_cost_nothing() {
    run(before_payment(), &elsewhere().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn before_settling_leave_the_outcome_unknown() {
    run(before_settling(), &elsewhere().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_settling_are_booked_and_never_paid_again() {
    run(after_settling(), &elsewhere().await).await;
}
