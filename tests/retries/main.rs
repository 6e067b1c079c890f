//! Callers that try again in every way: the chain sees one transfer.

mod accidents;
mod brakes;
mod growth;
mod layers;
mod requests;
mod restarts;

use std::time::Duration;

use bursar::{ClientBuilder, Policy};
use bursar_testing::Route;
use bursar_tests::paywall::{self, report};
use bursar_tests::signatures::SignatureLog;

/// The time limit of a caller that gives up before a hanging seller answers.
const SOON: Duration = Duration::from_millis(600);

/// Returns a policy whose circuit breaker does not open in these tests.
fn policy() -> Policy {
    paywall::policy().circuit_breaker(Duration::from_secs(600), 100)
}

/// Returns a client that logs its signatures.
fn client(signatures: &SignatureLog) -> ClientBuilder {
    paywall::client()
        .signer(signatures.signer())
        .policy(policy())
        .answer_timeout(Duration::from_secs(20))
}

/// Returns a report from a seller that answers the same payment with the same answer.
fn idempotent_report() -> Route {
    report().idempotent()
}
