//! Buys from a paywall on loopback with a throw-away key, and shows what happened.
//!
//! `cargo run --example quickstart [LEDGER]`; run it again, and the ledger remembers.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use bursar::ledger::Filter;
use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A seller: three pages at a price, on this machine, with a make-believe chain.
    let paywall = Paywall::builder()
        .route(
            Route::get("/weather")
                .price(usd!("0.01"))
                .body("sunny, 21 degrees"),
        )
        .route(
            Route::get("/map")
                .price(usd!("0.03"))
                .body("a map of the coast"),
        )
        .route(
            Route::get("/archive")
                .price(usd!("2"))
                .body("all the weather there ever was"),
        )
        .start()
        .await?;

    // The agent: a key that is gone when the program ends, limits, and books in a file.
    let path = std::env::args_os().nth(1).map_or_else(
        || std::env::temp_dir().join("bursar-quickstart.db"),
        PathBuf::from,
    );
    let signer = LocalSigner::random()?;
    println!(
        "wallet   {} (throw-away, play money on Base Sepolia)",
        signer.address()
    );
    println!("ledger   {}", path.display());
    let ledger = Ledger::open(&path)?;
    let client = Client::builder()
        .signer(signer)
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("0.05"))
                .per_day(usd!("0.20"))
                .host_limits("127.0.0.1", |host| {
                    host.payments(Duration::from_secs(60), 30)
                }),
        )
        .ledger(ledger.clone())
        .allow_http_loopback(true)
        .build()?;

    let before = ledger.purchases(&Filter::all()).await?.len();
    match before {
        0 => println!("         new: nothing was ever bought"),
        n => println!("         remembers {n} purchases of earlier runs, and counts them"),
    }

    for page in ["/weather", "/map", "/weather", "/archive"] {
        buy(&client, paywall.url(page)).await?;
    }

    println!("\nroom left");
    for finding in client.budget().await? {
        if let (Some(left), Some(limit)) = (finding.left, finding.limit) {
            println!("  {:<34} {left} of {limit}", finding.name);
        }
    }
    println!(
        "\ntimes the seller was paid: {}; the ledger holds {} purchases",
        paywall.settlements().len(),
        ledger.purchases(&Filter::all()).await?.len()
    );
    println!(
        "run it again: the ledger remembers, and once the day's 0.20 USD are used, nothing more is bought"
    );
    println!("to start anew, delete {}", path.display());
    Ok(())
}

async fn buy(client: &Client, url: bursar::Url) -> Result<(), Box<dyn Error>> {
    println!("\nGET {}", url.path());
    let request = client.get(url).build()?;

    // Ask first: nothing is signed. The purchase below asks again by itself.
    if let Some(copy) = request.try_clone()
        && let Some(price_check) = client.quote(copy).await?.priced()
        && let Some(quote) = price_check.preferred()
    {
        println!(
            "  price    {} to {} on {}",
            quote.amount(),
            quote.pay_to(),
            quote.network()
        );
        let denial = price_check
            .offers
            .iter()
            .find_map(|offer| offer.explanation.as_ref()?.denial());
        match denial {
            None => println!("  policy   allowed"),
            Some(denial) => println!("  policy   denied by {}: {denial}", denial.rule),
        }
    }

    match client.execute(request).await {
        Ok(response) => {
            if let Some(paid) = response.payment() {
                println!(
                    "  signed   {} valid until {}, nonce {}",
                    paid.amount,
                    bursar::Timestamp::from_secs(paid.valid_before),
                    paid.nonce
                );
            }
            if let Some(receipt) = response.receipt() {
                println!("  receipt  transaction {}", receipt.transaction());
            }
            println!(
                "  answer   {}: {}",
                response.status(),
                response.text().await?
            );
        }
        Err(error) => println!("  refused  {error}"),
    }
    Ok(())
}
