//! Runs one client's purchases and measures them; shared with the peers.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde::{Deserialize, Serialize};

pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The task of a client: `COUNT IN_FLIGHT`.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub count: usize,
    pub in_flight: usize,
}

impl Plan {
    pub fn read(arguments: &[String]) -> Result<Self, Failure> {
        let [count, in_flight, ..] = arguments else {
            return Err("COUNT IN_FLIGHT, please".into());
        };
        Ok(Self {
            count: count.parse()?,
            in_flight: in_flight.parse()?,
        })
    }

    /// One thread for one purchase after the other, else one for each of two cores.
    pub fn runtime(self) -> std::io::Result<tokio::runtime::Runtime> {
        match self.in_flight {
            1 => tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build(),
            _ => tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build(),
        }
    }
}

/// What was measured, in nanoseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Measured {
    pub p50: u64,
    pub p99: u64,
    /// User and system time of the client's process, per purchase.
    pub cpu: u64,
    /// Purchases per second.
    pub rate: f64,
}

fn cpu() -> Result<Duration, Failure> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let time = |time: TimeVal| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000);
    Ok(time(usage.user_time()) + time(usage.system_time()))
}

/// A tenth of the purchases unmeasured, to open connections and fill caches, then all of them.
pub async fn drive<F, P>(plan: Plan, purchase: F) -> Result<Measured, Failure>
where
    F: Fn(usize) -> P + Clone + Send + Sync + 'static,
    P: Future<Output = Result<(), Failure>> + Send,
{
    run(
        Plan {
            count: (plan.count / 10).max(plan.in_flight),
            ..plan
        },
        0,
        purchase.clone(),
    )
    .await?;
    let (before, began) = (cpu()?, Instant::now());
    let mut times = run(plan, plan.count, purchase).await?;
    let (spent, wall) = (cpu()? - before, began.elapsed());
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    Ok(Measured {
        p50: at(50),
        p99: at(99),
        cpu: spent.as_nanos() as u64 / plan.count as u64,
        rate: plan.count as f64 / wall.as_secs_f64(),
    })
}

async fn run<F, P>(plan: Plan, from: usize, purchase: F) -> Result<Vec<u64>, Failure>
where
    F: Fn(usize) -> P + Clone + Send + Sync + 'static,
    P: Future<Output = Result<(), Failure>> + Send,
{
    if plan.in_flight == 1 {
        let mut times = Vec::with_capacity(plan.count);
        for number in 0..plan.count {
            let began = Instant::now();
            purchase(from + number).await?;
            times.push(began.elapsed().as_nanos() as u64);
        }
        return Ok(times);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..plan.in_flight {
        let (next, purchase) = (Arc::clone(&next), purchase.clone());
        tasks.spawn(async move {
            let mut times = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= plan.count {
                    return Ok::<_, Failure>(times);
                }
                let began = Instant::now();
                purchase(from + number).await?;
                times.push(began.elapsed().as_nanos() as u64);
            }
        });
    }
    let mut times = Vec::with_capacity(plan.count);
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    Ok(times)
}
