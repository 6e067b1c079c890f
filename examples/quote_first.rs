//! Asks what something costs, decides, and pays no more than that.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::policy::Amount;
use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paywall = Paywall::builder()
        .route(Route::get("/report").price(usd!("0.04")).body("the report"))
        .start()
        .await?;
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;

    let Some(price_check) = client.get(paywall.url("/report")).quote().await?.priced() else {
        println!("it is free");
        return Ok(());
    };
    for offer in &price_check.offers {
        match (&offer.quote, &offer.explanation) {
            (Ok(quote), Some(explanation)) => {
                print!("{} to {}\n{explanation}", quote.amount(), quote.pay_to())
            }
            (Ok(quote), None) => println!("{}", quote.amount()),
            (Err(reason), _) => println!("not payable: {reason}"),
        }
    }
    let Some(best) = price_check.best() else {
        return Ok(());
    };

    let quoted = Amount::from(best.amount());
    let response = client
        .get(paywall.url("/report"))
        .max_price(quoted)
        .send()
        .await?;
    println!(
        "{} ({}): {}",
        response.status(),
        response.payment_status(),
        response.text().await?
    );
    Ok(())
}
