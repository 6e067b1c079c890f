//! Discovery of services, with lists and sellers on loopback, honest and hostile.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod hostile_lists;
mod policy;
mod search;
mod sources;

use bursar::discovery::{Findings, Service, Standing};
use bursar::policy::Rule;
use bursar::{Client, Policy, usd};
use bursar_testing::{Bazaar, BazaarBuilder, Paywall, Route};
use bursar_tests::paywall;
use bursar_tests::paywall::open_all;
use serde_json::{Value, json};

fn client_with(policy: Policy) -> Client {
    paywall::client().policy(policy).build().unwrap()
}

fn sepolia() -> Client {
    client_with(Policy::new().allow_network("base-sepolia"))
}

/// A seller of weather at three prices and of one thing else.
async fn seller() -> Paywall {
    let route = |path: &str, price| Route::get(path).price(price).body(path.to_owned());
    open_all([
        route("/weather/fine", usd!("0.05")),
        route("/weather/cheap", usd!("0.01")).v1(),
        route("/weather/dear", usd!("3")),
        route("/news", usd!("0.001")),
    ])
    .await
}

fn listed(seller: &Paywall) -> BazaarBuilder {
    Bazaar::builder()
        .item(seller.advertisement("/weather/fine", "a fine forecast"))
        .item(seller.advertisement("/weather/dear", "the dearest forecast"))
        .item(seller.advertisement("/weather/cheap", "a rough guess"))
        .item(seller.advertisement("/news", "what happened"))
}

fn paths(findings: &Findings) -> Vec<&str> {
    findings
        .services
        .iter()
        .map(|service| service.url.path())
        .collect()
}

fn denied_by(service: &Service) -> Rule {
    match &service.standing {
        Standing::Denied(denial) => denial.rule,
        other => panic!("{other:?}"),
    }
}

/// An offer that could be paid, at any URL.
fn item(url: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut item = json!({
        "resource": url, "type": "http", "x402Version": 2, "description": "a forecast",
        "accepts": [{ "scheme": "exact", "network": "eip155:84532", "amount": "10000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C", "maxTimeoutSeconds": 60,
            "extra": { "name": "USDC", "version": "2" } }],
    });
    change(&mut item);
    item
}

async fn find(bazaar: &Bazaar, client: &Client, words: &str) -> Findings {
    client
        .discover()
        .bazaar(bazaar.url("/"))
        .find(words)
        .run()
        .await
        .unwrap()
}
