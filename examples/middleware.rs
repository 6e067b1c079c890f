//! The payer in a stack of `reqwest_middleware`, beside others.
//!
//! `cargo run --example middleware --features middleware`
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::middleware::{self, PaymentMiddleware};
use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseOptions, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paywall = Paywall::builder()
        .route(Route::get("/report").price(usd!("0.02")).body("the report"))
        .route(Route::get("/dear").price(usd!("3")).body("the book"))
        .start()
        .await?;
    let payer = Payer::builder()
        .signer(LocalSigner::random()?)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .build()?;

    // Payments outermost: a layer beneath, such as a retry, then repeats one purchase.
    let payments = PaymentMiddleware::new(payer).allow_http_loopback(true);
    let client = middleware::client(reqwest::Client::builder(), payments)?.build();

    let tagged = PurchaseOptions::new().tag("research");
    let response = client
        .get(paywall.url("/report"))
        .with_extension(tagged)
        .send()
        .await?;
    println!("{} ({})", response.status(), response.payment_status());

    if let Err(error) = client.get(paywall.url("/dear")).send().await
        && let Some(error) = middleware::error(&error)
    {
        println!("{error}");
    }
    Ok(())
}
