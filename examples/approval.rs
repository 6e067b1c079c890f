//! A payment above a threshold waits for somebody's word.
//!
//! Here another task answers through a channel; `TerminalApprover` asks a person.
#![expect(clippy::print_stdout, reason = "it is there to be read")]

use std::error::Error;

use bursar::approval::{ChannelApprover, TerminalApprover, Verdict};
use bursar::{Client, Ledger, LocalSigner, Policy, ResponseExt, usd};
use bursar_testing::{Paywall, Route};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let paywall = Paywall::builder()
        .route(Route::get("/cheap").price(usd!("0.01")).body("small"))
        .route(Route::get("/dear").price(usd!("0.08")).body("large"))
        .route(Route::get("/dearest").price(usd!("0.10")).body("largest"))
        .start()
        .await?;

    let (approver, mut pending) = ChannelApprover::new(8);
    tokio::spawn(async move {
        while let Some(question) = pending.recv().await {
            println!("{}", TerminalApprover::question(&question.request));
            let small = question.request.usd.is_some_and(|usd| usd < usd!("0.10"));
            println!(
                "{}  (says the other task)",
                if small { "yes" } else { "no" }
            );
            question.answer(if small {
                Verdict::Approve
            } else {
                Verdict::deny("ten cents is a lot")
            });
        }
    });

    let client = Client::builder()
        .signer(LocalSigner::random()?)
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .ask_above(usd!("0.05")),
        )
        .ledger(Ledger::memory())
        .approver(approver)
        .allow_http_loopback(true)
        .build()?;

    for page in ["/cheap", "/dear", "/dearest"] {
        match client.get(paywall.url(page)).send().await {
            Ok(response) => println!(
                "{page}: {} ({})",
                response.status(),
                response.payment_status()
            ),
            Err(error) => println!("{page}: {error}"),
        }
    }
    Ok(())
}
