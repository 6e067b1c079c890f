//! The time and the memory of reading a whole SQLite ledger, as the command does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use bursar::Ledger;
use bursar::ledger::Filter;
use bursar::report::Selection;

use crate::drive::Failure;
use crate::growth::policies;
use crate::table::Line;

const READINGS: [&str; 4] = ["report", "verify", "budget", "ledger --last 20"];

/// `PATH READING`: prints the milliseconds that a reading takes, and this process's peak of memory in KiB.
pub async fn run(arguments: &[String]) -> Result<(), Failure> {
    let [path, reading] = arguments else {
        return Err("read PATH READING".into());
    };
    let ledger = Ledger::open_existing(path)?;
    let began = Instant::now();
    match reading.as_str() {
        "report" => drop(ledger.report(&Selection::new()).await?),
        "verify" => drop(ledger.verify(None).await?),
        "budget" => {
            for (_, policy) in policies() {
                drop(policy.budget(&ledger).await?);
            }
        }
        "ledger --last 20" => {
            let mut last = Filter::all();
            last.last = Some(20);
            drop(ledger.purchases(&last).await?);
        }
        _ => return Err("no such reading".into()),
    }
    let taken = began.elapsed().as_millis();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.ok_or("no VmHWM")?.trim().trim_end_matches(" kB");
    println!("{taken} {peak}");
    Ok(())
}

/// Returns a row: each reading in a process of its own.
pub fn line(path: &Path, purchases: &str) -> Result<Line, Failure> {
    let (mut texts, mut largest) = (Vec::new(), 0);
    for reading in READINGS {
        let output = Command::new(std::env::current_exe()?)
            .arg("read")
            .arg(path)
            .arg(reading)
            .stderr(Stdio::inherit())
            .output()?;
        let numbers = String::from_utf8(output.stdout)?;
        let (taken, peak) = numbers.trim().split_once(' ').ok_or("a reading failed")?;
        let (taken, peak): (f64, u64) = (taken.parse()?, peak.parse()?);
        largest = largest.max(peak / 1024);
        texts.push(format!(
            "`{reading}` {:.2} s, {} MB",
            taken / 1000.0,
            peak / 1024
        ));
    }
    let case = format!("SQLite ledger: reading {purchases} purchases, time and peak of memory");
    Ok(Line::fact(case, texts.join("; ")).goal("≤ 100 MB", largest <= 100))
}
