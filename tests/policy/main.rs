//! The policy seen from outside: terms go in, and a payment or a denial comes out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

mod approvals;
mod brakes;
mod builder;
mod explanations;
mod limits;
mod properties;
mod rules;
mod scopes;
mod several_limits;
mod spellings;
mod waiting;

use bursar::policy::{Quantity, Rule};
use bursar::{Denial, Policy, Timestamp};
use bursar_tests::clock::DAY;

/// Returns a policy that permits Base, has no limits and brakes at nothing.
fn bare() -> Policy {
    Policy::new()
        .allow_network("base")
        .unlimited()
        .loop_guard(DAY, u32::MAX)
        .circuit_breaker(DAY, u32::MAX)
}

/// Checks every field of a denial by a limit. `amounts` are the limit, the used part of it and the asked amount.
#[track_caller]
fn refused(
    denial: &Denial,
    rule: Rule,
    scope: &str,
    amounts: [&str; 3],
    room_returns: Option<Timestamp>,
) {
    let text = |value: &Option<Quantity>| value.as_ref().map(ToString::to_string);
    let shown = [&denial.limit, &denial.used, &denial.asked].map(text);
    let scope_shown = denial.scope.as_ref().map(ToString::to_string);
    assert_eq!(
        (denial.rule, scope_shown.unwrap_or_default().as_str()),
        (rule, scope),
        "{denial}"
    );
    assert_eq!(
        (shown.map(Option::unwrap_or_default), denial.room_returns),
        (amounts.map(ToOwned::to_owned), room_returns),
        "{denial}"
    );
}
