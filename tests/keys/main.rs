//! API keys and payments: which of them reached the seller, and what the ledger has recorded.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod failures;
mod limits;
mod never_pay;
mod preference;
mod secrecy;

use bursar::ledger::State;
use bursar::secrecy::SecretString;
use bursar::{Client, ClientBuilder, Credential, Credentials, RetryPolicy, Usd};
use bursar_testing::{Paywall, ReceivedRequest, Route};
use bursar_tests::paywall::{client, purchases, report};

/// Returns a client that presents a payment once, with this credential for the seller.
fn client_with(credential: Credential) -> ClientBuilder {
    client()
        .retry_policy(RetryPolicy::once())
        .credentials(keys(credential))
}

/// Returns a route that sells a report for a cent or for the key `right`.
fn keyed_report() -> Route {
    report().accepts_key("authorization", "Bearer right")
}

fn key(text: &str) -> SecretString {
    SecretString::from(text.to_owned())
}

fn bearer(text: &str) -> Credential {
    Credential::bearer("example", key(text))
}

fn keys(credential: Credential) -> Credentials {
    Credentials::new().host("127.0.0.1", credential)
}

/// Returns for each request whether it came with a key, with a payment or with neither.
fn ways(seller: &Paywall) -> Vec<&'static str> {
    let way = |request: ReceivedRequest| match (request.header("authorization"), &request.payment) {
        (Some(_), Some(_)) => panic!("a payment was sent together with a key"),
        (Some(_), None) => "key",
        (None, Some(_)) => "payment",
        (None, None) => "neither",
    };
    seller.requests().into_iter().map(way).collect()
}

/// Returns the number of requests with a key.
fn requests_with_key(seller: &Paywall) -> usize {
    let mut requests = seller.requests();
    requests.retain(|request| request.header("authorization").is_some());
    requests.len()
}

/// Returns state and dollar value of every purchase in the ledger.
async fn recorded(client: &Client) -> Vec<(State, Usd)> {
    let purchases = purchases(client).await;
    purchases
        .iter()
        .map(|purchase| (purchase.state, purchase.usd.unwrap()))
        .collect()
}
