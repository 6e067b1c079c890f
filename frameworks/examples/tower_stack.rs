//! A tower stack that limits, pays and traces, with hyper's client at the bottom.
//!
//! ```sh
//! cargo run --example tower_stack
//! ```

use bursar::{ResponseExt, usd};
use bursar_frameworks as frameworks;
use bursar_testing::{Paywall, Route};

// guide: tower
use bursar::reqwest::Body;
use bursar::tower::PaymentLayer;
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::rt::TokioExecutor;
use tower::{Service, ServiceBuilder};
use tower_http::trace::TraceLayer;

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

// guide: tower-call
use std::error::Error;

use bursar::PurchaseOptions;
use bursar::reqwest::Response;
use tower::ServiceExt;

/// Returns the layer for this client's wallet, with options for each request.
pub fn payments(client: &bursar::Client) -> Result<PaymentLayer, Box<dyn Error>> {
    let payer = client.payer().ok_or("the client has no wallet")?.clone();
    Ok(PaymentLayer::new(payer)
        .default_options(
            PurchaseOptions::new()
                .agent("translator")
                .tag("translation"),
        )
        .allow_http_loopback(true)) // for tests
}

/// Sends a request through the stack.
pub async fn translate(
    payments: PaymentLayer,
    url: &str,
    text: &'static str,
) -> Result<Response, Box<dyn Error>> {
    let request = http::Request::post(url).body(Body::from(text))?;
    // A response of reqwest, so that `ResponseExt` tells its payment status.
    Ok(Response::from(stack(payments)?.oneshot(request).await?))
}
// guide: end

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let route = Route::post("/translate").price(usd!("0.01")).echo();
    let seller = Paywall::builder().route(route).start().await?;
    let client = frameworks::client()?;
    let url = seller.url("/translate");
    let answer = translate(payments(&client)?, url.as_str(), "hello").await?;
    println!("{} ({})", answer.status(), answer.payment_status());
    println!("{}", answer.text().await?);
    Ok(())
}
