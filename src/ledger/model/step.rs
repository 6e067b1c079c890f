//! The steps that change a world, and the faults of ledgers.

use proptest::prelude::*;

use super::LITTLE;
use crate::clock::CLOCK_BOUND;

/// A step, which changes one of a few purchases.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// By a process whose clock is `ahead` seconds ahead, unless the limit is on a window: a window is
    /// measured by the clock of the process.
    Reserve {
        id: u8,
        value: u64,
        changed: bool,
        ahead: u64,
        /// The place of the method in [`PaymentMethod::ALL`].
        by: usize,
    },
    /// Two reservations at the same time.
    ReserveBoth {
        ids: (u8, u8),
        value: u64,
    },
    /// Holds, signs and records in one step. If the commit is lost, the ledger is as it was, and no signature leaves.
    Buy {
        id: u8,
        value: u64,
        changed: bool,
        validity: u64,
        by: usize,
        commit_is_lost: bool,
    },
    /// The outcome was not on disk.
    LoseOutcome {
        id: u8,
    },
    /// By a process whose clock is `behind` seconds behind, at most [`LITTLE`] if the limit is on a window.
    Sign {
        id: u8,
        validity: u64,
        behind: u64,
    },
    /// The signer does not answer in time. Its signature exists all the same, and the chain gets it. The clock of the process
    /// is behind as in [`Step::Sign`].
    Doubt {
        id: u8,
        validity: u64,
        behind: u64,
    },
    Lose {
        id: u8,
    },
    Reject {
        id: u8,
    },
    /// A receipt for a payment that the chain has settled or not, with a claim of percents of the ceiling.
    Settle {
        id: u8,
        settled_on_chain: bool,
        claim: u64,
    },
    Free {
        id: u8,
    },
    Resume,
    /// The chain settles the n-th authorization, if it is valid: of an `upto` payment, percents of the ceiling.
    Cash {
        number: usize,
        percent: u64,
    },
    /// With the proof of the settlement, if there is one. If it `tells` the charge, its reading is the charge or more: percents
    /// of the rest of the ceiling.
    Prove {
        id: u8,
        tells: bool,
        more: u64,
    },
    /// With a proof of the chain, if there is one.
    Release {
        id: u8,
    },
    /// Asks whether the seller knows the wallet, so that a sign-in may replace a purchase.
    Enter,
    Wait {
        seconds: u64,
    },
}

/// All of it, or less.
fn percent() -> impl Strategy<Value = u64> {
    prop_oneof![Just(100), 0..100_u64]
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let id = 0..6_u8;
    let behind = || prop_oneof![0..LITTLE, 0..CLOCK_BOUND.as_secs()];
    prop_oneof![
        5 => (id.clone(), 10..60_u64, prop::bool::weighted(0.3), prop_oneof![Just(0), 0..CLOCK_BOUND.as_secs()], 0..3_usize)
            .prop_map(|(id, value, changed, ahead, by)| Step::Reserve { id, value, changed, ahead, by }),
        1 => ((id.clone(), id.clone()), 30..90_u64).prop_map(|(ids, value)| Step::ReserveBoth { ids, value }),
        4 => (id.clone(), 10..60_u64, prop::bool::weighted(0.3), 60..300_u64, 0..3_usize, prop::bool::weighted(0.2))
            .prop_map(|(id, value, changed, validity, by, commit_is_lost)| Step::Buy { id, value, changed, validity, by, commit_is_lost }),
        2 => id.clone().prop_map(|id| Step::LoseOutcome { id }),
        6 => (id.clone(), 60..300_u64, behind()).prop_map(|(id, validity, behind)| Step::Sign { id, validity, behind }),
        1 => (id.clone(), 60..300_u64, behind()).prop_map(|(id, validity, behind)| Step::Doubt { id, validity, behind }),
        2 => id.clone().prop_map(|id| Step::Lose { id }),
        2 => id.clone().prop_map(|id| Step::Reject { id }),
        3 => (id.clone(), any::<bool>(), percent()).prop_map(|(id, settled_on_chain, claim)| Step::Settle { id, settled_on_chain, claim }),
        1 => id.clone().prop_map(|id| Step::Free { id }),
        1 => Just(Step::Resume),
        4 => (0..20_usize, percent()).prop_map(|(number, percent)| Step::Cash { number, percent }),
        2 => (id.clone(), prop::bool::weighted(0.8), prop_oneof![Just(0), percent()])
            .prop_map(|(id, tells, more)| Step::Prove { id, tells, more }),
        2 => id.prop_map(|id| Step::Release { id }),
        1 => Just(Step::Enter),
        3 => (1..200_u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// Faults in a ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// Voids a purchase when the answer is lost.
    ReleaseOnTimeout,
    /// Checks the limits first and holds the amount later.
    CheckThenAct,
    /// Signs each attempt of a purchase with a new nonce.
    FreshNonce,
    /// Counts a payment only after the seller acknowledges it.
    CountAcknowledged,
    /// Voids a purchase when the seller refuses the payment.
    ForgetRejected,
    /// Signs a hold that lapsed and did not count.
    LapseUnfenced,
    /// Counts a payment at the time of its receipt.
    CountAtReceipt,
    /// Counts the latest amount of a purchase and not the largest one.
    HoldLatest,
    /// Releases a purchase when it expires, without a proof.
    ReleaseByClock,
    /// Counts the charge that the seller claims, and not the ceiling.
    ClaimFreesRoom,
    /// Counts less than the chain says that the seller charged.
    ProofFreesTooMuch,
    /// Believes the claimed charge when the chain proves the settlement, and not the charge.
    ProofBelievesClaim,
    /// Signs one purchase by EIP-3009 and by Permit2.
    BothKinds,
    /// The same, where the signer did not answer for the first one.
    HangForgetsKind,
    /// Asks the signer after the hold has ended.
    AsksLate,
    /// Takes a seller for one that knows the wallet, because an amount is held for it.
    KnownByHold,
    /// Lets a signature leave before its transaction is committed.
    LeavesBeforeCommit,
    /// Signs a purchase that a limit denies.
    SignsDenied,
    /// Has no trace of a payment whose outcome was not on disk.
    LostOutcomeReleases,
    /// Believes every clock: a payment is no exposure a minute after its expiry.
    BelieveClock,
}
