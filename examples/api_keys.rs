//! An API key beside payments: the key while it lasts, then payment, in one set of books; and whether
//! the key's plan would have been cheaper. On loopback, with a throw-away wallet.
//!
//! ```sh
//! cargo run --example api_keys
//! ```

#![expect(clippy::print_stdout, reason = "an example")]

use std::error::Error;

use bursar::credential::CallPlan;
use bursar::secrecy::SecretString;
use bursar::{Client, Credential, Credentials, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // A seller who takes a key three times, and money always.
    let report = Route::get("/report").price(usd!("0.01")).body("the report");
    let report = report
        .accepts_key("authorization", "Bearer k-123")
        .key_quota(3, 429);
    let seller = Paywall::builder().route(report).start().await?;

    // `EnvKey` and `FileKey` take the key from where your secrets are; policy files can say so too.
    let key = SecretString::from("k-123");
    let keys = Credentials::new().host(
        "127.0.0.1",
        Credential::bearer("reports", key).plan(CallPlan::per_call(usd!("0.002"))),
    );
    let ledger = Ledger::memory();
    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("0.05")),
        )
        .ledger(ledger.clone())
        .credentials(keys)
        .allow_http_loopback(true)
        .build()?;

    for call in 1..=5 {
        let response = client.get(seller.url("/report")).send().await?;
        let how = match (response.api_call(), response.receipt()) {
            (_, Some(receipt)) => format!("paid {}", receipt.amount()),
            (Some(called), None) => format!(
                "by the key `{}`, {} USD declared",
                called.credential(),
                called.cost()
            ),
            (None, None) => "free".to_owned(),
        };
        println!("call {call}: {} {how}", response.status());
    }

    let plan: CallPlan = "monthly=5,included=1000,per-call=0.001".parse()?;
    print!("\n{}", ledger.compare("127.0.0.1", &plan).await?);
    Ok(())
}
