//! Buys from a seller on loopback, and writes the purchases of each host and tag as CSV and as JSON.
//!
//! `cargo run --example report [DIRECTORY]`. For a page with charts, run
//! `bursar report --ledger DIRECTORY/ledger.db --format html --out spending.html`.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use bursar::report::{Dimension, Selection};
use bursar::telemetry::Counts;
use bursar::{Client, Ledger, LocalSigner, Policy, RetryPolicy, usd};
use bursar_testing::{Fault, Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os()
        .nth(1)
        .map_or_else(|| std::env::temp_dir().join("bursar-report"), PathBuf::from);
    std::fs::create_dir_all(&directory)?;

    // A seller whose map never comes, and who takes the money for it.
    let seller = Paywall::builder()
        .route(
            Route::get("/weather")
                .price(usd!("0.01"))
                .body("sunny, 21 degrees"),
        )
        .route(
            Route::get("/map")
                .price(usd!("0.03"))
                .fault(Fault::DropAfterSettle),
        )
        .route(
            Route::get("/archive")
                .price(usd!("2"))
                .body("all the weather there ever was"),
        )
        .start()
        .await?;

    // A denied payment is not in the ledger. An observer counts denials.
    let counts = Counts::new();
    let ledger = Ledger::open(directory.join("ledger.db"))?;
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("0.05")),
        )
        .ledger(ledger.clone())
        .observer(counts.clone())
        .agent("forecaster")
        .retry_policy(RetryPolicy {
            initial_backoff: Duration::ZERO,
            ..RetryPolicy::default()
        })
        .allow_http_loopback(true)
        .build()?;

    for (page, tag) in [
        ("/weather", "daily"),
        ("/weather", "daily"),
        ("/map", "maps"),
        ("/archive", "research"),
    ] {
        match client.get(seller.url(page)).tag(tag).send().await {
            Ok(response) => println!("{page}: {}", response.status()),
            Err(error) => println!("{page}: {error}"),
        }
    }

    let report = ledger
        .report(&Selection::new())
        .await?
        .with_budget(client.budget().await?);
    let total = &report.total;
    println!("\n{} USD in {} calls", total.spent.usd, total.spent.count);
    println!("{} USD may still be taken", total.outstanding.usd);
    for group in report.by(Dimension::Tag) {
        let tag = group.name.as_deref().unwrap_or("no tag");
        println!("{tag}: {} USD", group.tally.spent.usd);
    }
    for (rule, times) in counts.denials() {
        println!("denied by {rule}: {times}");
    }
    std::fs::write(directory.join("spending.csv"), report.to_csv())?;
    let json = serde_json::to_string(&report)?;
    std::fs::write(directory.join("spending.json"), json)?;
    println!("written to {}", directory.display());
    Ok(())
}
