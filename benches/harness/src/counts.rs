//! Counts the system calls of purchases with a SQLite ledger, by strace.

use std::process::{Command, Stdio};

use crate::drive::Failure;
use crate::mode::Mode;
use crate::rounds::{Cores, Server};
use crate::table::Line;

/// A page of the log and its header.
const FRAME: f64 = 4096.0 + 24.0;

/// The system calls of some purchases.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    bytes_to_log: f64,
    bytes_to_file: f64,
    syncs: f64,
    locks: f64,
}

/// The system calls of one purchase.
#[derive(Clone, Copy, Debug)]
pub struct Counts(Calls);

impl Counts {
    /// Returns `None` if there is no strace, or if it may not trace.
    pub fn measure(mode: Mode) -> Result<Option<Self>, Failure> {
        let possible = Command::new("strace")
            .args(["-o", "/dev/null", "true"])
            .stderr(Stdio::null())
            .status();
        if !possible.is_ok_and(|status| status.success()) {
            eprintln!("there is no strace, so the writes to the disk are not counted");
            return Ok(None);
        }
        let few = 100;
        let many = few + mode.choose(1000, 400, 100);
        // The difference of two runs leaves opening out. Each run warms up with a tenth more purchases.
        let (before, after) = (count(few)?, count(many)?);
        let purchases = (many - few) as f64 * 1.1;
        let each = |of: fn(&Calls) -> f64| (of(&after) - of(&before)).max(0.0) / purchases;
        Ok(Some(Self(Calls {
            bytes_to_log: each(|calls| calls.bytes_to_log),
            bytes_to_file: each(|calls| calls.bytes_to_file),
            syncs: each(|calls| calls.syncs),
            locks: each(|calls| calls.locks),
        })))
    }

    pub fn line(&self) -> Line {
        let (pages, copied) = (self.0.bytes_to_log / FRAME, self.0.bytes_to_file / 4096.0);
        let (syncs, locks) = (self.0.syncs, self.0.locks);
        let text = format!(
            "{pages:.1} pages to the log, {syncs:.2} fsyncs, {locks:.1} file locks; checkpoints copy {copied:.1} pages to the file"
        );
        // The rest of a sync is that of checkpoints.
        Line::fact(
            "bursar, SQLite ledger: disk work of one purchase, by strace",
            text,
        )
        .goal("≤ 14 pages and one fsync", pages < 14.05 && syncs < 1.1)
    }
}

fn count(purchases: usize) -> Result<Calls, Failure> {
    let server = Server::start(Cores::Same)?;
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let trace = directory.path().join("trace");
    let calls = "pwrite64,pwritev,write,fsync,fdatasync,sync_file_range,fcntl,flock";
    let output = Command::new("strace")
        .args(["-f", "-y", "-e", &format!("trace={calls}"), "-o"])
        .arg(&trace)
        .arg(std::env::current_exe()?)
        .args(["client", "bursar-sqlite", &server.base])
        .args([&purchases.to_string(), "1"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the purchases under strace failed".into());
    }
    let trace = String::from_utf8_lossy(&std::fs::read(trace)?).into_owned();
    let mut calls = Calls::default();
    trace.lines().for_each(|line| calls.add(line));
    Ok(calls)
}

impl Calls {
    /// Adds a line such as `7 pwrite64(9</tmp/a.db-wal>, "…"..., 4096, 32) = 4096`, of which a part can be on a line of
    /// its own: `7 <... fdatasync resumed>) = 0`.
    fn add(&mut self, line: &str) {
        let Some((_, call)) = line.split_once(' ') else {
            return;
        };
        let call = call.trim_start();
        let (Some((name, rest)), false) = (call.split_once('('), call.starts_with("<...")) else {
            return;
        };
        let path = rest
            .split_once('<')
            .and_then(|(_, rest)| Some(rest.split_once('>')?.0))
            .unwrap_or_default();
        if !path.contains(".db") {
            return;
        }
        let asked = || {
            let before = rest.rsplit_once(") = ").map_or(rest, |(before, _)| before);
            let before = before.split(" <unfinished").next().unwrap_or(before);
            let mut last = before.trim_end_matches([')', ' ']).rsplit(", ");
            // `pwrite64` ends with the length and the place.
            if name == "pwrite64" {
                last.next();
            }
            last.next()
                .and_then(|length| length.parse::<f64>().ok())
                .unwrap_or_default()
        };
        match name {
            "pwrite64" | "write" if path.ends_with("-wal") => self.bytes_to_log += asked(),
            "pwrite64" | "write" if path.ends_with(".db") => self.bytes_to_file += asked(),
            "fsync" | "fdatasync" => self.syncs += 1.0,
            "flock" => self.locks += 1.0,
            "fcntl" if rest.contains("SETLK") => self.locks += 1.0,
            _ => {}
        }
    }
}
