//! Purchases by one process with a ledger in PostgreSQL, which other processes use at the same time. There is no seller.

use std::io::{BufRead, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bursar::payment::Outcome;
use bursar::x402::PaymentRequired;
use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseRequest, usd};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::clients::KEY;
use crate::drive::Failure;
use crate::pieces::{paid, terms};

/// The purchases of one process.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Bought {
    pub count: u64,
    /// In nanoseconds.
    pub p50: u64,
    /// The purchases that the ledger could not record in time.
    pub failed: u64,
}

struct Buyer {
    payer: Payer,
    required: PaymentRequired,
    answer: HeaderMap,
}

impl Buyer {
    async fn new(url: &str, schema: &str) -> Result<Self, Failure> {
        let policy = Policy::new()
            .unlimited()
            .loop_guard(Duration::from_secs(3600), u32::MAX)
            .allow_network("base-sepolia")
            .rolling(Duration::from_secs(3600), usd!("1000000"));
        let payer = Payer::builder()
            .signer(LocalSigner::from_hex(&KEY.to_owned().into())?)
            .policy(policy)
            .ledger(Ledger::postgres_in(url, schema).await?);
        Ok(Self {
            payer: payer.build()?,
            required: PaymentRequired::from_json(terms(1).as_bytes())?,
            answer: paid()?,
        })
    }

    /// Holds the amount, signs, and records the outcome, under one limit that all processes share.
    async fn buy(&self) -> Result<(), Failure> {
        let request =
            PurchaseRequest::new("GET", "https://api.example.com/report", b"")?.allow_duplicate();
        let payment = self.payer.authorize(&self.required, &request).await?;
        match payment.conclude(StatusCode::OK, &self.answer, None).await {
            Outcome::Settled(_) => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }

    /// Buys with `in_flight` calls at once, for as long as `goes_on` says so. Returns the times, and how many failed.
    async fn run(
        self: &Arc<Self>,
        in_flight: usize,
        goes_on: impl Fn() -> bool + Clone + Send + 'static,
    ) -> Result<(Vec<u64>, u64), Failure> {
        let mut tasks = JoinSet::new();
        for _ in 0..in_flight {
            let (buyer, goes_on) = (Arc::clone(self), goes_on.clone());
            tasks.spawn(async move {
                let (mut times, mut failed) = (Vec::new(), 0);
                while goes_on() {
                    let began = Instant::now();
                    match buyer.buy().await {
                        Ok(()) => times.push(began.elapsed().as_nanos() as u64),
                        Err(error) => {
                            eprintln!("a purchase failed: {error}");
                            failed += 1;
                        }
                    }
                }
                (times, failed)
            });
        }
        let (mut times, mut failed) = (Vec::new(), 0);
        while let Some(done) = tasks.join_next().await {
            let (some, failures) = done?;
            times.extend(some);
            failed += failures;
        }
        times.sort_unstable();
        Ok((times, failed))
    }
}

/// `URL SCHEMA MILLIS IN_FLIGHT`: opens its connections, prints `ready`, waits for a line, buys for `MILLIS`, and prints
/// the numbers.
pub fn run(arguments: &[String]) -> Result<(), Failure> {
    let [url, schema, millis, in_flight] = arguments else {
        return Err("postgres URL SCHEMA MILLIS IN_FLIGHT".into());
    };
    let duration = Duration::from_millis(millis.parse()?);
    let in_flight: usize = in_flight.parse()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let buyer = Arc::new(runtime.block_on(Buyer::new(url, schema))?);
    // Prepares the statements.
    let left = Arc::new(AtomicU64::new(10));
    let some = move || {
        let less = |left: u64| left.checked_sub(1);
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        taken.is_ok()
    };
    if runtime.block_on(buyer.run(in_flight.min(10), some))?.1 > 0 {
        return Err("the first purchases failed".into());
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().lock().read_line(&mut String::new())?;
    let until = Instant::now() + duration;
    let (times, failed) = runtime.block_on(buyer.run(in_flight, move || Instant::now() < until))?;
    let bought = Bought {
        count: times.len() as u64,
        p50: times.get(times.len() / 2).copied().unwrap_or_default(),
        failed,
    };
    println!("{}", serde_json::to_string(&bought)?);
    Ok(())
}
