//! Limits of a host beside limits of everything: both hold, for every payment.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::{Client, Denial, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paywall = Paywall::builder()
        .route(Route::get("/page").price(usd!("0.02")).body("a page"))
        .start()
        .await?;
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_day(usd!("1"))
                .each_origin(|origin| origin.per_day(usd!("0.50")))
                .host_limits("127.0.0.1", |host| {
                    host.per_payment(usd!("0.02")).per_day(usd!("0.05"))
                }),
        )
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;

    for attempt in 1..=3 {
        match client.get(paywall.url("/page")).send().await {
            Ok(response) => println!(
                "{attempt}: {} paid ({})",
                response.status(),
                response.payment_status()
            ),
            Err(error) => {
                println!("{attempt}: {error}");
                if let Some(Denial {
                    rule,
                    used: Some(used),
                    limit: Some(limit),
                    room_returns: Some(at),
                    ..
                }) = error.denial()
                {
                    println!(
                        "   as data: rule {rule}, used {used} of {limit}, room returns at {at}"
                    );
                }
            }
        }
    }
    Ok(())
}
