//! A tower stack that limits, pays and traces, with hyper's client at the bottom.
//!
//! ```sh
//! cargo run --example tower_stack
//! ```

use std::error::Error;

use bursar::reqwest::{Body, Response};
use bursar::tower::PaymentLayer;
use bursar::{PurchaseOptions, ResponseExt, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{Paywall, Route};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_http::trace::TraceLayer;

// guide: tower
/// Returns a service that sends a request, pays for it, and traces each request on the wire.
pub fn stack(
    payments: PaymentLayer,
) -> std::io::Result<
    impl Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = bursar::Error,
        Future: Send,
    > + Clone,
> {
    let connector = HttpsConnectorBuilder::new()
        .try_with_platform_verifier()
        .map_err(std::io::Error::other)?
        .https_or_http()
        .enable_http1()
        .build();
    let hyper = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build(connector);
    Ok(ServiceBuilder::new()
        .concurrency_limit(16) // calls
        .layer(payments)
        .layer(TraceLayer::new_for_http()) // requests, with and without a payment
        .service(hyper))
}
// guide: end

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let route = Route::post("/translate").price(usd!("0.01")).echo();
    let seller = Paywall::builder().route(route).start().await?;
    let client = frameworks::client()?;
    let payer = client.payer().ok_or("the client has no wallet")?.clone();
    let payments = PaymentLayer::new(payer)
        .allow_http_loopback(true)
        .default_options(PurchaseOptions::new().tag("translation"));

    let request =
        http::Request::post(seller.url("/translate").as_str()).body(Body::from("hello"))?;
    let answer = Response::from(stack(payments)?.oneshot(request).await?);
    println!("{} ({})", answer.status(), answer.payment_status());
    println!("{}", answer.text().await?);
    Ok(())
}
