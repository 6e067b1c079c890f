//! A seller on loopback with one report for sale, and a client that buys it.

use std::collections::BTreeSet;
use std::time::Duration;

use bursar::ledger::Filter;
use bursar::{
    Client, ClientBuilder, Error, Ledger, LocalSigner, PaymentStatus, Policy, Purchase,
    ResponseExt, RetryPolicy, reqwest, usd,
};
use bursar_testing::{Paywall, Route};

/// Returns a policy that permits at most five cents per payment on Base Sepolia.
pub fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
}

/// Returns an HTTP client without root certificates, because loading them takes longer than a purchase.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_rustls()
        .tls_certs_only([])
}

/// Returns a client without a wallet, for sellers on loopback. It presents a payment again without a pause.
pub fn client_without_wallet() -> ClientBuilder {
    Client::builder()
        .http(http())
        .allow_http_loopback(true)
        .retry_policy(RetryPolicy {
            initial_backoff: Duration::ZERO,
            ..RetryPolicy::default()
        })
}

/// Returns a client with a new wallet, [`policy`] and a ledger in memory, for sellers on loopback.
pub fn client() -> ClientBuilder {
    client_without_wallet()
        .signer(LocalSigner::random().unwrap())
        .policy(policy())
        .ledger(Ledger::memory())
}

/// Returns a route that sells a report for a cent.
pub fn report() -> Route {
    Route::get("/report").price(usd!("0.01")).body("the report")
}

/// Starts a paywall with one route.
pub async fn open(route: Route) -> Paywall {
    open_all([route]).await
}

/// Starts a paywall with these routes.
pub async fn open_all(routes: impl IntoIterator<Item = Route>) -> Paywall {
    routes
        .into_iter()
        .fold(Paywall::builder(), |builder, route| builder.route(route))
        .start()
        .await
        .unwrap()
}

/// Returns the payment header of every request that had one, oldest first.
fn payment_headers(seller: &Paywall) -> impl Iterator<Item = String> + use<> {
    let requests = seller.requests().into_iter();
    requests.filter_map(|request| Some(request.payment?.header))
}

/// Returns the number of requests with a payment.
pub fn payments_sent(seller: &Paywall) -> usize {
    payment_headers(seller).count()
}

/// Returns the number of different payments in the requests.
pub fn distinct_payments(seller: &Paywall) -> usize {
    payment_headers(seller).collect::<BTreeSet<_>>().len()
}

/// Returns the payment status of a response or of an error.
pub fn payment_status(result: Result<reqwest::Response, Error>) -> PaymentStatus {
    result.map_or_else(
        |error| error.payment_status(),
        |response| response.payment_status(),
    )
}

/// Returns all purchases in the client's ledger, oldest first.
pub async fn purchases(client: &Client) -> Vec<Purchase> {
    client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap()
}

/// Buys [`report`], and returns the purchase from the ledger. Call it outside of a runtime.
pub fn bought() -> Purchase {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let seller = open(report()).await;
        let client = client().agent("forecaster").build().unwrap();
        client.get(seller.url("/report")).send().await.unwrap();
        purchases(&client).await.remove(0)
    })
}
