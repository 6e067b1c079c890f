//! Buys from a seller on loopback, and writes where the money went as a table and as a page.
//!
//! `cargo run --features report --example report [DIRECTORY]`, then open DIRECTORY/spending.html in a browser.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use bursar::report::Selection;
use bursar::telemetry::Counts;
use bursar::testing::{Fault, Paywall, Route};
use bursar::{Client, LocalSigner, Policy, RetryPolicy, SqliteLedger, usd};

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

    // What the policy refuses is not in the books: an observer counts it.
    let counts = Counts::new();
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(
            Policy::new()
                .network("base-sepolia")
                .per_payment(usd!("0.05")),
        )
        .ledger(SqliteLedger::open(directory.join("ledger.db"))?)
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

    let report = client.report(&Selection::new()).await?;
    println!("\n{}", report.to_table(None));
    for (rule, times) in counts.denials() {
        println!("denied by {rule}: {times}");
    }
    std::fs::write(directory.join("spending.txt"), report.to_table(Some(100)))?;
    let page = directory.join("spending.html");
    std::fs::write(&page, report.to_html())?;
    println!("a page for the browser: {}", page.display());
    Ok(())
}
