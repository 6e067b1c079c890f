//! The steps of a purchase, each to be run alone: all that is computed, and nothing that is sent.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bursar::payment::Outcome;
use bursar::signer::{SignerError, TransferAuthorization};
use bursar::x402::{PaymentRequired, SettlementResponse};
use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseRequest, Signer, signer_fn, usd};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const DAY: Duration = Duration::from_secs(86_400);

pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What can be run, by name.
pub(crate) const NAMES: [&str; 8] = [
    "decode",
    "decode-eight",
    "receipt",
    "quote",
    "hash",
    "sign",
    "purchase",
    "purchase-eight",
];

/// One step, ready to be run any number of times.
pub(crate) struct Piece(Box<dyn FnMut() -> Result<(), Failure>>);

impl Piece {
    /// # Errors
    /// When there is no piece of this name.
    pub(crate) fn new(name: &str) -> Result<Self, Failure> {
        let runtime = Builder::new_current_thread().enable_time().build()?;
        let offers = if name.ends_with("eight") { 8 } else { 1 };
        let header = BASE64_STANDARD.encode(terms(offers));
        let required = PaymentRequired::from_header(header.as_bytes())?;
        let intent =
            PurchaseRequest::new("GET", "https://api.example.com/report", b"")?.allow_duplicate();
        let piece: Box<dyn FnMut() -> Result<(), Failure>> = match name {
            "decode" | "decode-eight" => Box::new(move || {
                PaymentRequired::from_header(header.as_bytes())?;
                Ok(())
            }),
            "receipt" => {
                let receipt = BASE64_STANDARD.encode(receipt());
                Box::new(move || {
                    SettlementResponse::from_header(receipt.as_bytes())?;
                    Ok(())
                })
            }
            "quote" => {
                let payer = payer(LocalSigner::from_hex(&KEY.to_owned().into())?)?;
                Box::new(move || {
                    runtime.block_on(payer.quote(required.clone(), &intent))?;
                    Ok(())
                })
            }
            "hash" => {
                let authorization = authorization(&runtime, &required, &intent)?;
                Box::new(move || {
                    std::hint::black_box(authorization.digest());
                    Ok(())
                })
            }
            "sign" => {
                let authorization = authorization(&runtime, &required, &intent)?;
                let signer = LocalSigner::from_hex(&KEY.to_owned().into())?;
                Box::new(move || {
                    runtime.block_on(signer.sign(&authorization))?;
                    Ok(())
                })
            }
            // All of it, from the terms' header to the receipt in the books.
            "purchase" | "purchase-eight" => {
                let payer = payer(LocalSigner::from_hex(&KEY.to_owned().into())?)?;
                let answer = paid()?;
                Box::new(move || {
                    let required = PaymentRequired::from_header(header.as_bytes())?;
                    runtime.block_on(async {
                        let payment = payer.authorize(&required, &intent).await?;
                        payment.header()?;
                        match payment.conclude(StatusCode::OK, &answer, None).await {
                            Outcome::Settled(_) => Ok(()),
                            other => Err(format!("{other:?}").into()),
                        }
                    })
                })
            }
            _ => {
                return Err(
                    format!("no piece is called {name}; there are {}", NAMES.join(", ")).into(),
                );
            }
        };
        Ok(Self(piece))
    }

    /// # Errors
    /// When the step fails, which it should not.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        (self.0)()
    }
}

pub(crate) fn terms(offers: usize) -> String {
    let offer = |network: String| {
        json!({ "scheme": "exact", "network": network, "amount": "1000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
            "maxTimeoutSeconds": 300, "extra": { "name": "USDC", "version": "2" } })
    };
    let others = (1..offers).map(|number| offer(format!("eip155:40000{number:02}")));
    let accepts: Vec<_> = others.chain([offer("eip155:84532".to_owned())]).collect();
    let resource = json!({ "url": "https://api.example.com/report", "description": "a report", "mimeType": "text/plain" });
    json!({ "x402Version": 2, "error": "payment required", "resource": resource, "accepts": accepts }).to_string()
}

/// The headers of an answer that was paid for.
pub(crate) fn paid() -> Result<HeaderMap, Failure> {
    let receipt = HeaderValue::from_str(&BASE64_STANDARD.encode(receipt()))?;
    Ok(HeaderMap::from_iter([(
        HeaderName::from_static("payment-response"),
        receipt,
    )]))
}

fn receipt() -> String {
    json!({ "success": true, "transaction": format!("0x{}", "ab".repeat(32)), "network": "eip155:84532",
        "payer": "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266" })
    .to_string()
}

fn payer(signer: impl Signer) -> Result<Payer, Failure> {
    Ok(Payer::builder()
        .signer(signer)
        .policy(policy())
        .ledger(Ledger::memory())
        .build()?)
}

/// Ten limits, none of which is ever reached, and the brakes as wide.
pub(crate) fn policy() -> Policy {
    let much = usd!("1000000");
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("1"))
        .rolling(Duration::from_secs(3600), much)
        .rolling(DAY, much)
        .lifetime(much)
        .exposure(much)
        .payments(Duration::from_secs(60), u32::MAX)
        .loop_guard(Duration::from_secs(60), u32::MAX)
        .each_origin(|limits| limits.rolling(DAY, much))
        .each_payee(|limits| limits.rolling(DAY, much))
        .each_network(|limits| limits.rolling(DAY.saturating_mul(7), much))
        .host_limits("127.0.0.1", |host| host.rolling(DAY, much))
}

/// What a payer would have signed.
fn authorization(
    runtime: &Runtime,
    required: &PaymentRequired,
    intent: &PurchaseRequest,
) -> Result<TransferAuthorization, Failure> {
    let asked = Arc::new(Mutex::new(None));
    let notes = Arc::clone(&asked);
    let address = LocalSigner::from_hex(&KEY.to_owned().into())?.address();
    let signer = signer_fn(address, move |authorization| {
        if let Ok(mut asked) = notes.lock() {
            *asked = Some(authorization);
        }
        async { Err(SignerError::unavailable("it only looks")) }
    });
    drop(runtime.block_on(payer(signer)?.authorize(required, intent)));
    let asked = asked.lock().ok().and_then(|mut asked| asked.take());
    asked.ok_or_else(|| "nothing was to be signed".into())
}
