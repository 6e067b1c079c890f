//! Payments by Permit2: what is signed, what reached the seller, what the ledger counts, and sellers that misbehave.
#![expect(clippy::unwrap_used, reason = "tests")]

mod allowance;
mod charges;
mod kinds;
mod policies;
mod proofs;
mod sponsoring;

use bursar::ledger::Ledger;
use bursar::money::TransferMethod;
use bursar::x402::Scheme;
use bursar::{Client, ClientBuilder, Policy, Purchase, usd};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall;
use bursar_tests::signatures::wallet;

/// A policy that allows every scheme and transfer method.
fn policy() -> Policy {
    paywall::policy()
        .schemes(Scheme::ALL)
        .transfer_methods(TransferMethod::ALL)
}

fn builder() -> ClientBuilder {
    paywall::client().signer(wallet()).policy(policy())
}

fn client() -> Client {
    builder().build().unwrap()
}

/// Starts a seller whose chain knows that the wallet approved Permit2 for one dollar.
async fn open(route: Route) -> Paywall {
    Paywall::builder()
        .route(route)
        .allowance(wallet().address(), 1_000_000)
        .start()
        .await
        .unwrap()
}

/// A report for up to a cent.
fn upto() -> Route {
    paywall::report().upto()
}

async fn only_purchase(client: &Client) -> Purchase {
    let mut purchases = paywall::purchases(client).await;
    assert_eq!(purchases.len(), 1);
    purchases.remove(0)
}

/// A client whose limits have room for two ceilings.
fn tight(ledger: &Ledger) -> Client {
    let policy = Policy::new()
        .allow_network("base-sepolia")
        .schemes(Scheme::ALL)
        .transfer_methods(TransferMethod::ALL)
        .per_day(usd!("0.02"))
        .exposure(usd!("1"));
    builder()
        .policy(policy)
        .ledger(ledger.clone())
        .build()
        .unwrap()
}
