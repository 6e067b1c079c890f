//! From a question to a paid answer: finds who sells it, takes the cheapest that the policy allows, and buys.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Bazaar, Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Two sellers, and a place that lists them; elsewhere these are a facilitator's URL and the open web.
    let cheap = Paywall::builder()
        .route(
            Route::get("/forecast")
                .price(usd!("0.01"))
                .body("sunny, says the cheap one"),
        )
        .start()
        .await?;
    let dear = Paywall::builder()
        .route(Route::get("/forecast").price(usd!("2")).body("sunny"))
        .start()
        .await?;
    let bazaar = Bazaar::builder()
        .item(dear.advertisement("/forecast", "weather forecast, luxury edition"))
        .item(cheap.advertisement("/forecast", "weather forecast"))
        .start()
        .await?;

    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("0.05")),
        )
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;

    let findings = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("weather forecast")
        .max_price(usd!("1"))
        .network("base-sepolia")
        .run()
        .await?;
    for service in &findings.services {
        println!(
            "{:10} {} {}: {}",
            service.price.to_string(),
            service.method,
            service.url,
            service.standing
        );
    }

    // What it pays at most is what was advertised; the policy holds beside it.
    let Some(best) = findings.best() else {
        return Ok(());
    };
    let response = best.request(&client).send().await?;
    println!(
        "{} ({}): {}",
        response.status(),
        response.payment_status(),
        response.text().await?
    );
    Ok(())
}
