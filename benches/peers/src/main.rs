//! The peers as they come: `bursar-speed-peers NAME BASE COUNT IN_FLIGHT IDLE_MICROS`.

#[path = "../../harness/src/drive.rs"]
mod drive;

use std::sync::Arc;

use alloy_signer_local::PrivateKeySigner;
use drive::{Failure, Plan, drive};
use x402_chain_eip155::V2Eip155ExactClient;
use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, base, plan @ ..] = arguments.as_slice() else { return Err("NAME BASE PLAN, please".into()) };
    let plan = Plan::read(plan)?;
    let (path, name) = match name.strip_prefix("slow-") {
        Some(name) => ("slow", name),
        None => ("paid", name.as_str()),
    };
    if name != "x402-reqwest" {
        return Err(format!("no peer is called {name}").into());
    }
    let url = format!("{base}/{path}/one");
    let measured = plan.runtime()?.block_on(async move {
        let signer: Arc<PrivateKeySigner> = Arc::new(KEY.parse()?);
        let payer = X402Client::new().register(V2Eip155ExactClient::new(signer));
        let http = reqwest::Client::builder().tcp_nodelay(true).no_proxy().build()?;
        let client = http.with_payments(payer).build();
        drive(plan, move |_| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let response = client.get(url.as_str()).send().await?;
                if !response.status().is_success() || !response.headers().contains_key("payment-response") {
                    return Err(format!("not settled: {}", response.status()).into());
                }
                response.bytes().await?;
                Ok(())
            }
        })
        .await
    })?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}
