//! Steps that exceeded a limit once. The random tests of the model found them.

use super::*;

/// Found by chance.
#[test]
fn what_is_signed_twice_under_one_lease_counts_as_long_as_that() {
    let steps = [
        Step::Reserve {
            id: 4,
            value: 23,
            changed: false,
            ahead: 0,
            by: 0,
        },
        Step::Sign {
            id: 4,
            validity: 74,
            behind: 52,
        },
        Step::Wait { seconds: 145 },
        Step::Reserve {
            id: 2,
            value: 87,
            changed: false,
            ahead: 0,
            by: 0,
        },
        Step::Sign {
            id: 2,
            validity: 247,
            behind: 14,
        },
        Step::Sign {
            id: 4,
            validity: 200,
            behind: 89,
        },
    ];
    for kind in kinds() {
        live_through(Bug::None, &kind, &steps).unwrap();
    }
}

/// Found by chance: a process that is ahead takes the new hold of a signed purchase for ended, and the
/// process that has the hold signs.
#[test]
fn the_hold_of_a_signed_purchase_counts_until_no_clock_can_sign_under_it() {
    let steps = [
        Step::Reserve {
            id: 3,
            value: 38,
            changed: false,
            ahead: 0,
            by: 0,
        },
        Step::Sign {
            id: 3,
            validity: 173,
            behind: 27,
        },
        Step::Reject { id: 3 },
        Step::Reserve {
            id: 3,
            value: 56,
            changed: true,
            ahead: 590,
            by: 0,
        },
        Step::Wait { seconds: 396 },
        Step::Reserve {
            id: 2,
            value: 53,
            changed: false,
            ahead: 489,
            by: 0,
        },
        Step::Wait { seconds: 145 },
        Step::Sign {
            id: 3,
            validity: 242,
            behind: 12,
        },
        Step::Sign {
            id: 2,
            validity: 172,
            behind: 0,
        },
    ];
    for kind in kinds() {
        live_through(Bug::None, &kind, &steps).unwrap();
    }
}

/// Found by chance: a purchase is held for its second signature. Another payment takes its room after that hold has ended, and
/// the signer is asked for the second signature only then.
#[test]
fn no_signer_is_asked_after_its_hold_ended() {
    let hold = Step::Reserve {
        id: 5,
        value: 31,
        changed: false,
        ahead: 0,
        by: 0,
    };
    let hang = Step::Doubt {
        id: 5,
        validity: 80,
        behind: 0,
    };
    let steps = [
        hold,
        hang,
        hold,
        Step::Wait { seconds: 400 },
        Step::Reserve {
            id: 1,
            value: 80,
            changed: false,
            ahead: 0,
            by: 0,
        },
        Step::Sign {
            id: 1,
            validity: 169,
            behind: 0,
        },
        hang,
    ];
    for kind in kinds() {
        live_through(Bug::None, &kind, &steps).unwrap();
    }
    assert!(
        kinds()
            .iter()
            .any(|kind| live_through(Bug::AsksLate, kind, &steps).is_err())
    );
}

/// Found by chance: a purchase is signed at the moment at which an earlier hold ends, and the process with that hold, whose clock
/// is behind, signs by another method.
#[test]
fn an_ended_hold_is_not_the_lease_of_a_signed_purchase() {
    let steps = [
        Step::Reserve {
            id: 5,
            value: 35,
            changed: false,
            ahead: 0,
            by: 2,
        },
        Step::Wait { seconds: 60 },
        Step::Buy {
            id: 5,
            value: 44,
            changed: false,
            validity: 242,
            by: 0,
            commit_is_lost: false,
        },
        Step::Sign {
            id: 5,
            validity: 259,
            behind: 44,
        },
    ];
    for kind in kinds() {
        live_through(Bug::None, &kind, &steps).unwrap();
    }
}
