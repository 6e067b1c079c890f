//! The cost of a purchase in a small and in a large ledger.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bursar::ledger::Filter;
use bursar::payment::Outcome;
use bursar::primitives::{B256, U256};
use bursar::x402::PaymentRequired;
use bursar::{Ledger, LocalSigner, Payer, Policy, PurchaseRequest, Timestamp, usd};
use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::clients::KEY;
use crate::drive::Failure;
use crate::mode::Mode;
use crate::pieces::{paid, policy, terms};
use crate::reading;
use crate::table::Line;

const DAY: Duration = Duration::from_secs(86_400);
const MONTH: i64 = 30 * 86_400_000;
/// A large ledger may cost this much more.
const GOAL: f64 = 1.15;

/// Where the ledgers are, and how many purchases are in the large ones.
struct Backend {
    name: &'static str,
    large: u64,
    /// Calls in flight while a ledger is filled.
    in_flight: u64,
    open: Box<dyn Fn(&str) -> Opening>,
}

type Opening = std::pin::Pin<Box<dyn Future<Output = Result<Ledger, Failure>>>>;

/// The purchases that a ledger is filled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filling {
    /// Settled in the last thirty days, some of them refunded.
    Settled,
    /// Signed, and the seller's answers prove nothing.
    Outstanding,
}

/// A clock that each purchase moves.
#[derive(Clone)]
struct Clock(Arc<AtomicI64>);

impl Clock {
    fn starting_at(millis: i64) -> Self {
        Self(Arc::new(AtomicI64::new(millis)))
    }

    fn advance(&self, millis: i64) {
        self.0.fetch_add(millis, Ordering::Relaxed);
    }
}

impl bursar::clock::Clock for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// The policies that are measured, by name.
pub fn policies() -> [(&'static str, Policy); 3] {
    // Ten limits stay ten limits: sellers that do not settle are not avoided. Each purchase is another request here, so a usual
    // loop guard denies none.
    let ten = || {
        policy()
            .circuit_breaker(DAY, u32::MAX)
            .loop_guard(Duration::from_secs(60), 20)
    };
    let much = usd!("1000000");
    [
        ("ten limits", ten()),
        (
            "and one for each domain",
            ten().each_domain(|limits| limits.rolling(DAY, much).lifetime(much)),
        ),
        ("net of refunds", ten().refunds_make_room()),
    ]
}

/// A ledger and its payers, one for each policy.
struct Ledgered {
    clock: Clock,
    ledger: Ledger,
    payers: Vec<Payer>,
    required: PaymentRequired,
    count: AtomicU64,
}

impl Ledgered {
    fn new(ledger: Ledger, clock: Clock) -> Result<Self, Failure> {
        let ledger = ledger.with_clock(Arc::new(clock.clone()));
        let payers = policies().into_iter().map(|(_, policy)| {
            let payer = Payer::builder()
                .signer(LocalSigner::from_hex(&KEY.to_owned().into())?)
                .policy(policy)
                .clock(clock.clone())
                .ledger(ledger.clone());
            Ok::<_, Failure>(payer.build()?)
        });
        Ok(Self {
            payers: payers.collect::<Result<_, _>>()?,
            clock,
            ledger,
            required: PaymentRequired::from_json(terms(1).as_bytes())?,
            count: AtomicU64::new(0),
        })
    }

    /// Makes `purchases`, with the payers in turn, and moves the clock by `pause` for each. The clock stands while
    /// purchases are open, because it would end their holds.
    async fn fill(
        &self,
        filling: Filling,
        purchases: u64,
        in_flight: u64,
        pause: i64,
    ) -> Result<(), Failure> {
        let mut left = purchases;
        while left > 0 {
            let mut tasks = JoinSet::new();
            for payer in self
                .payers
                .iter()
                .cycle()
                .take(left.min(in_flight) as usize)
            {
                let (payer, required) = (payer.clone(), self.required.clone());
                let number = self.count.fetch_add(1, Ordering::Relaxed);
                tasks.spawn(async move { buy(&payer, &required, number, filling).await });
                left -= 1;
            }
            let batch = i64::try_from(tasks.len())?;
            while let Some(done) = tasks.join_next().await {
                done??;
            }
            self.clock.advance(pause * batch);
        }
        Ok(())
    }

    /// Records that the sellers refunded the last purchases.
    async fn refund(&self) -> Result<(), Failure> {
        let mut last = Filter::all();
        last.last = Some(20);
        for (number, purchase) in self.ledger.purchases(&last).await?.iter().enumerate() {
            let transaction = B256::with_last_byte(u8::try_from(number)?.saturating_add(1));
            let value = U256::from(500);
            self.ledger
                .record_refund(&purchase.key(), transaction, value)
                .await?;
        }
        Ok(())
    }

    /// Returns the median time of `count` settled purchases with one policy.
    async fn measure(&self, policy: usize, count: u64) -> Result<Duration, Failure> {
        let payer = self.payers.get(policy).ok_or("no payer")?;
        let mut times = Vec::new();
        for _ in 0..count {
            let number = self.count.fetch_add(1, Ordering::Relaxed);
            self.clock.advance(1);
            let began = Instant::now();
            buy(payer, &self.required, number, Filling::Settled).await?;
            times.push(began.elapsed());
        }
        Ok(median(times))
    }
}

/// One purchase of many sellers in ten domains.
async fn buy(
    payer: &Payer,
    required: &PaymentRequired,
    number: u64,
    filling: Filling,
) -> Result<(), Failure> {
    let url = format!(
        "https://api{}.example{}.com/report?{number}",
        number % 100,
        number % 10
    );
    let request = PurchaseRequest::new("GET", &url, b"")?.allow_duplicate();
    let payment = payer.authorize(required, &request).await?;
    let answer = match filling {
        Filling::Settled => paid()?,
        Filling::Outstanding => HeaderMap::new(),
    };
    match (
        payment.conclude(StatusCode::OK, &answer, None).await,
        filling,
    ) {
        (Outcome::Settled(_), Filling::Settled)
        | (Outcome::Unresolved { .. }, Filling::Outstanding) => Ok(()),
        (other, _) => Err(format!("a purchase ended otherwise: {other:?}").into()),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Prints the rows of all backends. The server of `BURSAR_TEST_POSTGRES` is one of them, if this program is built with the
/// feature `postgres`.
pub async fn measure(mode: Mode) -> Result<(), Failure> {
    // In memory, because waiting for a disk hides how the work grows.
    let directory = Arc::new(match tempfile::tempdir_in("/dev/shm") {
        Ok(directory) => directory,
        Err(_) => tempfile::tempdir_in(std::env::current_dir()?)?,
    });
    let mut backends = vec![
        Backend {
            name: "memory",
            large: mode.choose(1_000_000, 100_000, 2000),
            in_flight: 2,
            open: Box::new(|_| Box::pin(async { Ok(Ledger::memory()) })),
        },
        Backend {
            name: "SQLite",
            large: mode.choose(1_000_000, 100_000, 2000),
            in_flight: 64,
            open: in_files(&directory),
        },
    ];
    if let Some(postgres) = postgres(mode) {
        backends.push(postgres);
    }
    for backend in &backends {
        let (small, large) = mode.choose((10, 10_000), (10, 10_000), (10, 200));
        compare(mode, backend, Filling::Outstanding, small, large).await?;
        let small = mode.choose(1000, 1000, 100);
        compare(mode, backend, Filling::Settled, small, backend.large).await?;
        if backend.name == "SQLite" {
            opening(&directory, mode)?;
            let path = path(&directory, &format!("settled_{}", backend.large));
            reading::line(&path, &grouped(backend.large))?.print();
        }
    }
    Ok(())
}

fn path(directory: &TempDir, name: &str) -> PathBuf {
    directory.path().join(format!("{name}.db"))
}

fn in_files(directory: &Arc<TempDir>) -> Box<dyn Fn(&str) -> Opening> {
    let directory = Arc::clone(directory);
    Box::new(move |name| {
        let ledger = Ledger::sqlite(path(&directory, name));
        Box::pin(async { Ok(ledger?) })
    })
}

#[cfg(feature = "postgres")]
fn postgres(mode: Mode) -> Option<Backend> {
    let url = std::env::var("BURSAR_TEST_POSTGRES").ok()?;
    Some(Backend {
        name: "PostgreSQL",
        large: mode.choose(100_000, 10_000, 200),
        in_flight: 32,
        open: Box::new(move |name| {
            let (url, name) = (url.clone(), format!("growth_{name}"));
            Box::pin(async move { Ok(Ledger::postgres_in(&url, &name).await?) })
        }),
    })
}

#[cfg(not(feature = "postgres"))]
fn postgres(_mode: Mode) -> Option<Backend> {
    None
}

/// Prints a row: the time of a purchase in a ledger with `small` and in one with `large` purchases of this kind.
async fn compare(
    mode: Mode,
    backend: &Backend,
    filling: Filling,
    small: u64,
    large: u64,
) -> Result<(), Failure> {
    let now = bursar::clock::SystemClock;
    let now = bursar::clock::Clock::now(&now).millis();
    let mut ledgers = Vec::new();
    for size in [small, large] {
        // Outstanding payments are younger than their validity.
        let pause = match filling {
            Filling::Settled => MONTH / i64::try_from(size)?,
            Filling::Outstanding => 1,
        };
        let clock = Clock::starting_at(now - pause * i64::try_from(size)?);
        let name = format!("{filling:?}_{size}").to_lowercase();
        let ledger = Ledgered::new((backend.open)(&name).await?, clock)?;
        let began = Instant::now();
        ledger.fill(filling, size, backend.in_flight, pause).await?;
        if filling == Filling::Settled {
            ledger.refund().await?;
        }
        eprintln!(
            "{} ledger with {size} purchases ({filling:?}) after {:.1} s",
            backend.name,
            began.elapsed().as_secs_f64()
        );
        ledgers.push(ledger);
    }
    let count = mode.choose(200, 100, 20);
    let mut best = vec![[Duration::MAX; 2]; policies().len()];
    for _ in 0..mode.rounds() {
        for (policy, times) in best.iter_mut().enumerate() {
            for (ledger, time) in ledgers.iter().zip(times) {
                *time = (*time).min(ledger.measure(policy, count).await?);
            }
        }
    }
    let mut largest: f64 = 0.0;
    let text = best.iter().zip(policies()).map(|([few, many], (name, _))| {
        let (few, many) = (few.as_secs_f64() * 1e6, many.as_secs_f64() * 1e6);
        let ratio = many / few;
        largest = largest.max(ratio);
        format!("{name} {ratio:.2} ({few:.0} and {many:.0} µs)")
    });
    let text = text.collect::<Vec<_>>().join("; ");
    let kind = match filling {
        Filling::Settled => "in the ledger",
        Filling::Outstanding => "outstanding",
    };
    let case = format!(
        "{} ledger: a purchase with {} instead of {} {kind}",
        backend.name,
        grouped(large),
        grouped(small)
    );
    Line::fact(case, text)
        .goal(&format!("≤ {GOAL}"), largest <= GOAL)
        .print();
    Ok(())
}

/// Prints a row: the time until a SQLite ledger gives its first answer.
fn opening(directory: &TempDir, mode: Mode) -> Result<(), Failure> {
    let sizes = [
        mode.choose(1000, 1000, 100),
        mode.choose(1_000_000, 100_000, 2000),
    ];
    let mut times = Vec::new();
    for size in sizes {
        let path = path(directory, &format!("settled_{size}"));
        // By a thread without this runtime, so that each opening waits for the disk alone.
        let time = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let mut times = Vec::new();
            for _ in 0..9 {
                let began = Instant::now();
                runtime.block_on(Ledger::sqlite(&path)?.frozen())?;
                times.push(began.elapsed());
            }
            Ok::<_, Failure>(median(times).as_secs_f64() * 1e3)
        });
        times.push(time.join().map_err(|_| "the opening panicked")??);
    }
    let [few, many] = times[..] else {
        return Err("two sizes".into());
    };
    let case = format!(
        "SQLite ledger: opening it with {} instead of {} purchases",
        grouped(sizes[1]),
        grouped(sizes[0])
    );
    Line::fact(case, format!("{many:.1} ms instead of {few:.1} ms"))
        .goal("≤ 100 ms more", many - few <= 100.0)
        .print();
    Ok(())
}

/// Returns `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
