//! bursar as it comes, for the comparison: `compare_bursar URL TRIES [--plain-http]`.

#![expect(clippy::print_stderr, reason = "a program")]

use std::error::Error;

use bursar::{Client, Ledger, LocalSigner, Policy};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, tries, rest @ ..] = arguments.as_slice() else {
        return Err("URL and TRIES, please".into());
    };
    let client = Client::builder()
        .signer(LocalSigner::from_env("BUYER_KEY")?)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .allow_http_loopback(rest.iter().any(|argument| argument == "--plain-http"))
        .build()?;
    for _ in 0..tries.parse::<u32>()? {
        match client.get(url).send().await {
            Ok(response) if response.status().is_success() => break,
            Ok(response) => eprintln!("status {}", response.status()),
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}
