//! A model of the ledger and of the worst possible chain. The chain settles every signed authorization
//! at any time at which it is valid, once for each nonce, and ignores the seller's answers.
//!
//! At every time, the payments that the chain settled and those that it can still settle must be
//! within the limit, and each purchase has one authorization that settled or can settle: never one by EIP-3009 beside one by
//! Permit2. A sign-in tells nothing to a seller that has no signature yet.
//!
//! A claim of a seller below the ceiling ends exposure, as each claim does, because exposure counts payments without a receipt. It
//! frees nothing else: the chain settles as much as it likes, up to the ceiling. The same tests must fail for ledgers that are broken on purpose: otherwise they
//! would prove nothing.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

mod found;
mod step;
mod world;

use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::step::{Bug, Step, step};
use self::world::World;
use super::{Filter, Ledger};
use crate::limit::LimitKind;
use crate::money::Usd;

/// The limit in micro-dollars.
const LIMIT: u64 = 100;
const WINDOW: u64 = 120;
/// A difference of clocks that is smaller than the window.
const LITTLE: u64 = 90;

fn live_through(bug: Bug, kind: &LimitKind, steps: &[Step]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(bug, kind.clone());
        for step in steps {
            world.take(*step).await?;
            let doubled = world.doubled();
            prop_assert!(
                doubled.is_empty(),
                "{doubled:?} can settle twice after {step:?}: {:?}",
                world.signed
            );
            let spent = world.spent().await;
            prop_assert!(
                spent <= LIMIT,
                "{spent} of {LIMIT} after {step:?}: {:?}",
                world.signed
            );
        }
        let purchases = world.ledger.purchases(&Filter::all()).await.unwrap();
        prop_assert!(purchases.len() <= 6);
        Ok(())
    })
}

fn kinds() -> [LimitKind; 3] {
    let limit = Usd::from_micros(LIMIT);
    [
        LimitKind::Lifetime(limit.into()),
        LimitKind::Rolling(Duration::from_secs(WINDOW), limit.into()),
        LimitKind::Exposure(limit.into()),
    ]
}

/// Some hundred thousand steps; a million and more by `BURSAR_MODEL_CASES=20000`.
fn cases() -> u32 {
    std::env::var("BURSAR_MODEL_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(2000)
}

/// Random steps for the correct ledger, and the same steps in every run for the broken ones.
fn hunt(bug: Bug, kind: &LimitKind, cases: u32) -> Result<(), TestError<Vec<Step>>> {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let mut runner = match bug {
        Bug::None => TestRunner::new(config),
        _ => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    runner.run(&prop::collection::vec(step(), 1..80), |steps| {
        live_through(bug, kind, &steps)
    })
}

#[test]
fn no_chain_and_no_seller_exceeds_a_limit() {
    for kind in kinds() {
        hunt(Bug::None, &kind, cases()).unwrap();
    }
}

macro_rules! bugs {
    ($($name:ident: $bug:ident;)*) => {$(
        #[test]
        fn $name() {
            let caught = kinds().iter().any(|kind| hunt(Bug::$bug, kind, 20_000).is_err());
            assert!(caught, "a ledger with the bug {:?} passed", Bug::$bug);
        }
    )*};
}

bugs! {
    the_suite_catches_release_on_timeout: ReleaseOnTimeout;
    the_suite_catches_check_then_act: CheckThenAct;
    the_suite_catches_a_fresh_nonce: FreshNonce;
    the_suite_catches_counting_the_acknowledged_alone: CountAcknowledged;
    the_suite_catches_forgetting_the_rejected: ForgetRejected;
    the_suite_catches_an_unfenced_lapse: LapseUnfenced;
    the_suite_catches_counting_at_the_receipt: CountAtReceipt;
    the_suite_catches_holding_the_latest: HoldLatest;
    the_suite_catches_release_by_the_clock: ReleaseByClock;
    the_suite_catches_a_claim_that_frees_room: ClaimFreesRoom;
    the_suite_catches_a_proof_that_frees_too_much: ProofFreesTooMuch;
    the_suite_catches_a_proof_that_believes_the_claim: ProofBelievesClaim;
    the_suite_catches_both_kinds_of_signatures: BothKinds;
    the_suite_catches_a_hung_signer_whose_kind_is_forgotten: HangForgetsKind;
    the_suite_catches_a_sign_in_at_a_seller_that_sold_nothing: KnownByHold;
    the_suite_catches_belief_in_every_clock: BelieveClock;
    the_suite_catches_a_signature_that_leaves_before_the_commit: LeavesBeforeCommit;
    the_suite_catches_a_signature_for_a_denied_purchase: SignsDenied;
    the_suite_catches_a_lost_outcome_that_releases_room: LostOutcomeReleases;
}
