//! What a reservation with ten limits costs in SQLite books that hold little, and much.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bursar::signer::SignerError;
use bursar::x402::PaymentRequired;
use bursar::{Ledger, LocalSigner, Payer, PurchaseRequest, signer_fn};
use rusqlite::Connection;

use crate::clients::KEY;
use crate::drive::Failure;
use crate::pieces::{policy, terms};

const PURCHASES: usize = 200;
const ROUNDS: usize = 7;
const MONTH: u64 = 86_400_000 * 30;

/// Books of one size.
struct Size {
    purchases: u64,
    path: PathBuf,
    opened: Vec<Duration>,
    reserved: Vec<Duration>,
    memory: u64,
}

/// Books of 1000 entries and of `largest`, and of each power of ten between them, asked in turn.
pub async fn measure(largest: u64) -> Result<(), Failure> {
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let mut sizes = Vec::new();
    let mut purchases = 1000;
    while purchases <= largest {
        let path = directory.path().join(format!("{purchases}.db"));
        buy(&path, 1).await?;
        // By a process of its own, so that this one's memory is what the books take.
        let filled = Command::new(std::env::current_exe()?)
            .arg("fill")
            .arg(&path)
            .arg(purchases.to_string())
            .status()?;
        if !filled.success() {
            return Err("the books could not be filled".into());
        }
        // The totals of these limits begin: what the books would have kept all along.
        buy(&path, 1).await?;
        sizes.push(Size {
            purchases,
            path,
            opened: Vec::new(),
            reserved: Vec::new(),
            memory: 0,
        });
        purchases *= 10;
    }
    for _ in 0..ROUNDS {
        for size in &mut sizes {
            size.reserved.push(buy(&size.path, PURCHASES).await?);
            size.memory = memory()?;
            size.opened.push(open(&size.path).await?);
        }
    }
    let steps: Vec<_> = sizes
        .into_iter()
        .map(|size| {
            (
                size.purchases,
                median(size.reserved),
                median(size.opened),
                size.memory,
            )
        })
        .collect();
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else {
        return Err("at least 1000 purchases".into());
    };
    let ratio = last.1.as_secs_f64() / first.1.as_secs_f64();
    let met = ratio <= 1.3 && last.2.saturating_sub(first.2) <= Duration::from_millis(100);
    let told = steps.iter().map(|(purchases, reserved, opened, memory)| {
        let (reserved, opened) = (reserved.as_secs_f64() * 1e6, opened.as_secs_f64() * 1e3);
        format!(
            "{purchases} purchases: {reserved:.0} µs, opened in {opened:.1} ms, {} MB",
            memory / 1024
        )
    });
    println!(
        "| SQLite ledger that grows: a reservation with ten limits | ≤ 1.3, opening ≤ 100 ms more | {ratio:.2}; {} | {} |",
        told.collect::<Vec<_>>().join("; "),
        if met { "met" } else { "**missed**" }
    );
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Opening with the first answer, in the median.
async fn open(path: &Path) -> Result<Duration, Failure> {
    let mut times = Vec::new();
    for _ in 0..9 {
        let began = Instant::now();
        Ledger::sqlite(path)?.frozen().await?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

/// A reservation, in the median: from the call to the signer's, which signs nothing, so that the hold is freed again.
async fn buy(path: &Path, count: usize) -> Result<Duration, Failure> {
    let ledger = Ledger::sqlite(path)?;
    let asked = Arc::new(Mutex::new(Instant::now()));
    let notes = Arc::clone(&asked);
    let address = LocalSigner::from_hex(&KEY.to_owned().into())?.address();
    let signer = signer_fn(address, move |_| {
        if let Ok(mut asked) = notes.lock() {
            *asked = Instant::now();
        }
        async { Err(SignerError::unavailable("it only looks at the clock")) }
    });
    let payer = Payer::builder()
        .signer(signer)
        .policy(policy())
        .ledger(ledger)
        .build()?;
    let required = PaymentRequired::from_json(terms(1).as_bytes())?;
    let mut times = Vec::new();
    for number in 0..count {
        let intent = PurchaseRequest::new(
            "GET",
            &format!("https://api.example.com/report?{number}"),
            b"",
        )?;
        let began = Instant::now();
        if payer
            .authorize(&required, &intent.allow_duplicate())
            .await
            .is_ok()
        {
            return Err("something was signed".into());
        }
        let asked = asked.lock().map_err(|_| "the clock is stuck")?;
        times.push(asked.duration_since(began));
    }
    Ok(median(times))
}

/// Copies the first purchase until there are so many, settled, spread over the last thirty days.
pub fn fill(path: &Path, purchases: u64) -> Result<(), Failure> {
    let books = Connection::open(path)?;
    let columns: Vec<String> = {
        let mut columns = books.prepare("SELECT name FROM pragma_table_info('purchases')")?;
        let names = columns.query_map([], |row| row.get(0))?;
        names.collect::<Result<_, _>>()?
    };
    let zeros = "0".repeat(64);
    let at = format!(
        "p.reserved_at - {MONTH} + (n * {}) % {MONTH}",
        MONTH / purchases
    );
    let values = columns.iter().map(|column| match column.as_str() {
        "seq" => "n".to_owned(),
        "purchase" => "'bulk-' || n".to_owned(),
        "nonce" | "fingerprint" => format!("'0x' || substr('{zeros}' || n, -64)"),
        "state" => "'settled'".to_owned(),
        "live" => "1".to_owned(),
        "reserved_at" | "counts_at" | "updated_at" => at.clone(),
        "expires_at" => format!("{at} + 360000"),
        other => other.to_owned(),
    });
    books.execute_batch(&format!(
        "PRAGMA synchronous = OFF; PRAGMA cache_size = -1000000; BEGIN; DELETE FROM totals;
         INSERT INTO purchases ({}) SELECT {} FROM purchases p, (WITH RECURSIVE numbers (n) AS
            (SELECT (SELECT max(seq) + 1 FROM purchases) UNION ALL SELECT n + 1 FROM numbers WHERE n < {purchases})
            SELECT n FROM numbers) WHERE p.seq = 1;
         COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
        columns.join(", "),
        values.collect::<Vec<_>>().join(", "),
    ))?;
    Ok(())
}

/// Resident memory of this process, in KiB.
fn memory() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
