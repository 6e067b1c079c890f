//! The client and a seller on loopback: what reached the wire, the simulated chain and the ledger.
#![expect(clippy::unwrap_used, reason = "tests")]

mod from_reqwest;
mod handles;
mod outcomes;
mod protection;
mod requests;
mod signed_offers;
mod signing;
mod terms;
mod waiting;
mod wire;

use bursar::{Client, ClientBuilder};
use bursar_tests::paywall;
use bursar_tests::signatures::wallet;

/// Returns a client of the wallet whose key the tests know.
fn builder() -> ClientBuilder {
    paywall::client().signer(wallet())
}

fn client() -> Client {
    builder().build().unwrap()
}
