//! Purchases by one process on books in PostgreSQL that others write at the same time: no seller, no network but the
//! database's.

use std::time::Duration;

use bursar::payment::Outcome;
use bursar::x402::PaymentRequired;
use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseRequest, usd};
use reqwest::StatusCode;

use crate::clients::KEY;
use crate::drive::{Failure, Measured, Plan, drive};
use crate::pieces::{paid, terms};

/// Reserved, signed and settled, `plan.count` times, under one limit that all processes share.
pub async fn buy(url: &str, schema: &str, plan: Plan) -> Result<Measured, Failure> {
    let ledger = Ledger::postgres_in(url, schema).await?;
    let policy = Policy::new()
        .unlimited()
        .loop_guard(Duration::from_secs(3600), u32::MAX)
        .allow_network("base-sepolia");
    let policy = policy.rolling(Duration::from_secs(3600), usd!("1000000"));
    let signer = LocalSigner::from_hex(&KEY.to_owned().into())?;
    let payer = Payer::builder()
        .signer(signer)
        .policy(policy)
        .ledger(ledger)
        .build()?;
    let required = PaymentRequired::from_json(terms(1).as_bytes())?;
    let answer = paid()?;
    drive(plan, move |_| {
        let (payer, required, answer) = (payer.clone(), required.clone(), answer.clone());
        async move {
            let intent = PurchaseRequest::new("GET", "https://api.example.com/report", b"")?
                .allow_duplicate();
            let payment = payer.authorize(&required, &intent).await?;
            match payment.conclude(StatusCode::OK, &answer, None).await {
                Outcome::Settled(_) => Ok(()),
                other => Err(format!("{other:?}").into()),
            }
        }
    })
    .await
}
