//! A paid download, streamed: the receipt is known before the first byte of the body.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let chunks = (0..16).map(|n| vec![n; 64 * 1024]).collect::<Vec<_>>();
    let paywall = Paywall::builder()
        .route(Route::get("/film").price(usd!("0.05")).chunks(chunks))
        .start()
        .await?;
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;

    let mut response = client
        .get(paywall.url("/film"))
        .send()
        .await?
        .error_for_payment()?;
    if let Some(receipt) = response.receipt() {
        println!("paid {} in {}", receipt.amount(), receipt.transaction());
    }
    let mut received = 0_usize;
    while let Some(chunk) = response.chunk().await? {
        received = received.saturating_add(chunk.len());
    }
    println!("received {received} bytes");
    Ok(())
}
