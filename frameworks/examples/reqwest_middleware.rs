//! A stack of reqwest-middleware that pays, traces and retries.
//!
//! ```sh
//! cargo run --example reqwest_middleware
//! ```

use std::error::Error;

use bursar::{PurchaseOptions, ResponseExt, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{Fault, Paywall, Route};

// guide: reqwest-middleware
use bursar::middleware::{self, PaymentMiddleware};
use bursar::reqwest;
use reqwest_middleware::ClientWithMiddleware;
use reqwest_retry::RetryTransientMiddleware;
use reqwest_retry::policies::ExponentialBackoff;
use reqwest_tracing::TracingMiddleware;

/// Returns a client that pays each request once, and traces and retries each request on the wire.
pub fn stack(
    payments: PaymentMiddleware,
    retries: ExponentialBackoff,
) -> Result<ClientWithMiddleware, bursar::Error> {
    Ok(
        middleware::client(reqwest::Client::builder(), payments)? // first, so that it is outermost
            .with(RetryTransientMiddleware::new_with_policy(retries))
            .with(TracingMiddleware::default())
            .build(),
    )
}
// guide: end

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The seller takes the money and loses the answer, once.
    let route = Route::get("/report").price(usd!("0.01")).body("the report");
    let route = route.idempotent().fault_once(Fault::DropAfterSettle);
    let seller = Paywall::builder().route(route).start().await?;
    let client = frameworks::client()?;
    let payer = client.payer().ok_or("the client has no wallet")?.clone();
    let payments = PaymentMiddleware::new(payer).allow_http_loopback(true);

    let retries = ExponentialBackoff::builder().build_with_max_retries(3);
    let answer = stack(payments, retries)?
        .get(seller.url("/report"))
        .with_extension(PurchaseOptions::new().tag("research"))
        .send()
        .await?;
    println!("{} ({})", answer.status(), answer.payment_status());
    println!(
        "{}: {} settlement",
        answer.text().await?,
        seller.settlements().len()
    );
    Ok(())
}
