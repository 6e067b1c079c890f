//! The hostile sellers that clients are compared on: `comparison/run.py` starts them anew for each client.
//!
//! Prints its cases as a line of JSON; for each line of standard input, the name of a case, it prints
//! what reached the wire there. What a client says of itself is not asked.

#![expect(clippy::indexing_slicing, reason = "a measurement, not a library")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Write};

use bursar::primitives::address;
use bursar::usd;
use bursar_testing::{FalseTerms, Fault, Paywall, Route};
use serde_json::{Value, json};

/// Of the wallet that all clients pay with: Anvil's account 0.
const BUYER: bursar::Address = address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266");

struct Case {
    path: &'static str,
    seller: Paywall,
    elsewhere: Paywall,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut cases = BTreeMap::new();
    for name in NAMES {
        let case = open(name).await?;
        cases.insert(name, case);
    }
    let list: Vec<Value> = NAMES
        .iter()
        .map(|name| json!({ "name": name, "url": cases[name].seller.url(cases[name].path).as_str() }))
        .collect();
    say(&json!(list))?;
    for line in std::io::stdin().lock().lines() {
        let case = cases.get(line?.trim()).ok_or("there is no such case")?;
        say(
            &json!({ "here": payments(&case.seller), "elsewhere": payments(&case.elsewhere), "settled": case.seller.settlements().len() }),
        )?;
    }
    Ok(())
}

const NAMES: [&str; 18] = [
    "honest",
    "redirect of the payment",
    "redirect before the price",
    "validity of 50 years",
    "unknown token",
    "payee zero",
    "payee is the payer",
    "dear offer first",
    "amount 2^256-1",
    "testnet id, mainnet token",
    "foreign EIP-712 domain",
    "amount with a leading zero",
    "foreign resource",
    "502 after payment, 3 tries",
    "lost answer, 3 tries",
    "402 again",
    "402 of 64 MiB",
    "hangs after payment",
];

async fn open(name: &'static str) -> Result<Case, Box<dyn Error>> {
    let report = || {
        Route::get("/report")
            .price(usd!("0.001"))
            .body("the report")
    };
    let elsewhere = Paywall::builder().route(report()).start().await?;
    let place = elsewhere.url("/report");
    let terms = |lie: FalseTerms| Some(Fault::Terms(lie));
    let fault = match name {
        "redirect of the payment" => Some(Fault::RedirectAfterPayment(place)),
        "redirect before the price" => Some(Fault::RedirectBeforeTerms {
            to: place,
            status: 307,
        }),
        "validity of 50 years" => terms(FalseTerms::MaxTimeout("1576800000".to_owned())),
        "unknown token" => terms(FalseTerms::Token(address!(
            "1111111111111111111111111111111111111111"
        ))),
        "payee zero" => terms(FalseTerms::PayTo(bursar::Address::ZERO)),
        "payee is the payer" => terms(FalseTerms::PayTo(BUYER)),
        "dear offer first" => terms(FalseTerms::ExpensiveFirst(5_000)),
        "amount 2^256-1" => terms(FalseTerms::Amount(format!(
            "\"{}\"",
            bursar::primitives::U256::MAX
        ))),
        "testnet id, mainnet token" => terms(FalseTerms::Token(address!(
            "833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
        ))),
        "foreign EIP-712 domain" => terms(FalseTerms::Domain {
            name: "Evil".to_owned(),
            version: "9".to_owned(),
        }),
        "amount with a leading zero" => terms(FalseTerms::Amount("\"01000\"".to_owned())),
        "foreign resource" => terms(FalseTerms::Resource("https://other.example/".parse()?)),
        "502 after payment, 3 tries" => Some(Fault::ServerErrorAfterSettle),
        "lost answer, 3 tries" => Some(Fault::DropAfterSettle),
        "402 again" => Some(Fault::DoublePrice),
        "402 of 64 MiB" => Some(Fault::HugeBody402(64 * 1024 * 1024)),
        "hangs after payment" => Some(Fault::HangAfterSettle),
        _ => None,
    };
    let route = fault.into_iter().fold(report(), Route::fault);
    // Version 1 states its terms in the body.
    let route = if name == "402 of 64 MiB" {
        route.v1_and_v2()
    } else {
        route
    };
    let seller = Paywall::builder().route(route).start().await?;
    Ok(Case {
        path: "/report",
        seller,
        elsewhere,
    })
}

/// Every payment that came, as it was signed.
fn payments(seller: &Paywall) -> Vec<Value> {
    let payments = seller
        .requests()
        .into_iter()
        .filter_map(|request| request.payment?.json);
    payments
        .map(|payment| payment["payload"]["authorization"].clone())
        .collect()
}

fn say(value: &Value) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    out.flush()
}
