//! x402-reqwest as it comes, for the comparison: `compare-x402-reqwest URL TRIES [--retry]`.

use std::error::Error;
use std::sync::Arc;

use alloy_signer_local::PrivateKeySigner;
use x402_chain_eip155::{V1Eip155ExactClient, V2Eip155ExactClient};
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, tries, ..] = arguments.as_slice() else {
        return Err("URL and TRIES, please".into());
    };
    let signer: Arc<PrivateKeySigner> = Arc::new(std::env::var("BUYER_KEY")?.parse()?);
    let client = X402Client::new()
        .register(V1Eip155ExactClient::new(signer.clone()))
        .register(V2Eip155ExactClient::new(signer));
    let http = reqwest::Client::new().with_payments(client).build();
    for _ in 0..tries.parse::<u32>()? {
        match http.get(url).send().await {
            Ok(response) if response.status().is_success() => break,
            Ok(response) => eprintln!("status {}", response.status()),
            Err(error) => eprintln!("{error}"),
        }
    }
    Ok(())
}
