//! One other client with its default settings: `bursar-speed-peers NAME BASE COUNT IN_FLIGHT`.

#[path = "../../harness/src/drive.rs"]
mod drive;

#[cfg(not(feature = "x402-signer"))]
use std::sync::Arc;

#[cfg(not(feature = "x402-signer"))]
use alloy_signer_local::PrivateKeySigner;
#[cfg(feature = "x402-signer")]
use alloy_signer_local_1::PrivateKeySigner;
use drive::{Failure, Plan, drive};

#[cfg(feature = "r402")]
const PEER: &str = "r402";
#[cfg(feature = "x402-reqwest")]
const PEER: &str = "x402-reqwest";
#[cfg(feature = "x402-signer")]
const PEER: &str = "x402-signer";

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, base, plan @ ..] = arguments.as_slice() else {
        return Err("NAME BASE PLAN, please".into());
    };
    let plan = Plan::read(plan)?;
    let (offers, name) = match name.strip_suffix("-eight") {
        Some(name) => ("eight", name),
        None => ("one", name.as_str()),
    };
    if name != PEER {
        return Err(format!("this is {PEER} and not {name}").into());
    }
    let url = format!("{base}/paid/{offers}");
    let measured = plan.runtime()?.block_on(async move {
        let signer: PrivateKeySigner = KEY.parse()?;
        // The others share their signer.
        #[cfg(not(feature = "x402-signer"))]
        let signer = Arc::new(signer);
        let http = reqwest::Client::builder()
            .tcp_nodelay(true)
            .no_proxy()
            .build()?;
        #[cfg(feature = "x402-reqwest")]
        let client = {
            use x402_reqwest::{ReqwestWithPayments, ReqwestWithPaymentsBuild, X402Client};
            let payer =
                X402Client::new().register(x402_chain_eip155::V2Eip155ExactClient::new(signer));
            http.with_payments(payer).build()
        };
        #[cfg(feature = "r402")]
        let client = {
            use r402::http::{WithPayments, X402Client};
            http.with_payments(
                X402Client::new().register(r402::evm::Eip155ExactClient::new(signer)),
            )
        };
        #[cfg(feature = "x402-signer")]
        let client = {
            use x402_signer::evm::EvmPaymentSigner;
            use x402_signer::middleware::X402PaymentMiddleware;
            let payer = x402_signer::X402Client::new(EvmPaymentSigner::new(signer));
            reqwest_middleware::ClientBuilder::new(http)
                .with(X402PaymentMiddleware::new(payer))
                .build()
        };
        drive(plan, move |_| {
            let (client, url) = (client.clone(), url.clone());
            async move {
                let response = client.get(url.as_str()).send().await?;
                if !response.status().is_success()
                    || !response.headers().contains_key("payment-response")
                {
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
