//! A wallet, a policy, a client and a paywall with one report to sell.

use bursar::ledger::Filter;
use bursar::reqwest;
use bursar::{Client, ClientBuilder, Ledger, LocalSigner, Policy, Purchase, usd};
use bursar_testing::{Paywall, Route};

/// The key of Anvil's account 0, which is published with it.
pub const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

/// The wallet of [`KEY`].
pub fn wallet() -> LocalSigner {
    LocalSigner::from_hex(&KEY.into()).unwrap()
}

/// Permits at most five cents per payment on Base Sepolia.
pub fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
}

/// An HTTP client without root certificates, which take long to load.
pub fn http() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .tls_backend_rustls()
        .tls_certs_only([])
}

/// A client with a new wallet, [`policy`] and a ledger in memory, for sellers on loopback.
pub fn client() -> ClientBuilder {
    Client::builder()
        .http(http())
        .signer(LocalSigner::random().unwrap())
        .policy(policy())
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
}

/// A report for a cent.
pub fn report() -> Route {
    Route::get("/report").price(usd!("0.01")).body("the report")
}

/// Opens a paywall with these routes.
pub async fn open(routes: impl IntoIterator<Item = Route>) -> Paywall {
    routes
        .into_iter()
        .fold(Paywall::builder(), |builder, route| builder.route(route))
        .start()
        .await
        .unwrap()
}

/// Buys [`report`], and returns the purchase as the ledger has it. Call it outside of a runtime.
pub fn bought() -> Purchase {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let seller = open([report()]).await;
        let client = client().agent("forecaster").build().unwrap();
        client.get(seller.url("/report")).send().await.unwrap();
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .remove(0)
    })
}
