//! A signer of one's own: a vault that keeps the key in a task and has the last word.
//!
//! bursar asks its policy first. The vault keeps a ceiling besides, so that a mistake in the policy
//! costs no more than that.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::signer::{Signature, SignerError, TransferAuthorization};
use bursar::{Address, Client, Ledger, LocalSigner, Policy, ResponseExt, Signer, Usd, usd};
use bursar_testing::{Paywall, Route};
use tokio::sync::{mpsc, oneshot};

/// What agents hold: a way to ask, and no key.
struct Vault {
    address: Address,
    desk: mpsc::Sender<Job>,
}

type Job = (
    TransferAuthorization,
    oneshot::Sender<Result<Signature, SignerError>>,
);

impl Vault {
    /// Starts the task that owns the key and signs for at most `ceiling` in its life.
    fn open(key: LocalSigner, ceiling: Usd) -> Self {
        let address = key.address();
        let (desk, mut jobs) = mpsc::channel::<Job>(1);
        tokio::spawn(async move {
            let mut signed_for = Usd::ZERO;
            while let Some((authorization, answer)) = jobs.recv().await {
                // What has no dollar value, or is too much to count, is above every ceiling.
                let total = authorization
                    .amount()
                    .dollars()
                    .and_then(|price| signed_for.checked_add(price));
                let verdict = match total.filter(|total| *total <= ceiling) {
                    None => Err(SignerError::rejected(format!(
                        "the vault signs for {ceiling} in all"
                    ))),
                    Some(total) => {
                        signed_for = total;
                        key.sign(&authorization).await
                    }
                };
                if answer.send(verdict).is_err() {
                    println!("  the vault's answer came too late");
                }
            }
        });
        Self { address, desk }
    }
}

impl Signer for Vault {
    fn address(&self) -> Address {
        self.address
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        let (answer, verdict) = oneshot::channel();
        let job = (authorization.clone(), answer);
        // Nothing can have been signed before the vault has the job...
        self.desk
            .send(job)
            .await
            .map_err(|_| SignerError::unavailable("the vault is closed"))?;
        // ...and from then on something may have been: the money counts until that has expired.
        verdict
            .await
            .map_err(|_| SignerError::timeout("the vault closed over the job"))?
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paywall = Paywall::builder()
        .route(Route::get("/page").price(usd!("0.02")).body("a page"))
        .start()
        .await?;
    let client = Client::builder()
        .signer(Vault::open(LocalSigner::random()?, usd!("0.05")))
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .per_payment(usd!("1")),
        ) // far too generous
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()?;

    for attempt in 1..=3 {
        match client.get(paywall.url("/page")).send().await {
            Ok(response) => println!(
                "{attempt}: {}, money {}",
                response.status(),
                response.payment_status()
            ),
            Err(error) => println!("{attempt}: {error}"),
        }
    }
    Ok(())
}
