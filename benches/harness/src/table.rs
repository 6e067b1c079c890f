//! Prints the table of all clients and its introduction.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::Command;
use std::time::Instant;

use crate::counts::Counts;
use crate::drive::{Failure, Measured};
use crate::mode::Mode;
use crate::rounds::{Cores, PEERS, Programs, Rounds, Trial};

/// A row of the table.
pub struct Line {
    pub case: String,
    pub goal: String,
    pub measured: String,
    pub met: Option<bool>,
}

impl Line {
    /// A row without a goal.
    pub fn fact(case: impl Into<String>, measured: impl Into<String>) -> Self {
        Self {
            case: case.into(),
            goal: String::new(),
            measured: measured.into(),
            met: None,
        }
    }

    pub fn goal(self, goal: &str, met: bool) -> Self {
        Self {
            goal: goal.to_owned(),
            met: Some(met),
            ..self
        }
    }

    pub fn print(&self) {
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        println!(
            "| {} | {} | {} | {met} |",
            self.case, self.goal, self.measured
        );
    }
}

fn p50(measured: &Measured) -> u64 {
    measured.p50
}

fn cpu(measured: &Measured) -> u64 {
    measured.cpu
}

const PASSTHROUGH: [(&str, [&str; 2], usize, usize, bool); 4] = [
    (
        "small body, one call",
        ["reqwest-free", "bursar-free"],
        1,
        6000,
        true,
    ),
    (
        "small body, 32 in flight",
        ["reqwest-free", "bursar-free"],
        32,
        40_000,
        true,
    ),
    (
        "1 MiB, one call",
        ["reqwest-big", "bursar-big"],
        1,
        400,
        false,
    ),
    (
        "1 MiB, 32 in flight",
        ["reqwest-big", "bursar-big"],
        32,
        1000,
        false,
    ),
];

/// One call after the other, both processes on one core.
const fn one(client: &'static str) -> Trial {
    Trial::new(client, Cores::Same)
}

/// The writes to the disk take most of the time.
const fn one_sqlite() -> Trial {
    one("bursar-sqlite").count(1000)
}

const fn slow(client: &'static str) -> Trial {
    one(client).count(100)
}

const fn many(client: &'static str) -> Trial {
    Trial::new(client, Cores::Any).in_flight(32).count(20_000)
}

const fn many_writers(client: &'static str) -> Trial {
    Trial::new(client, Cores::Any).in_flight(64).count(6000)
}

const fn passthrough(client: &'static str, in_flight: usize, count: usize) -> Trial {
    let cores = if in_flight == 1 {
        Cores::Same
    } else {
        Cores::Any
    };
    Trial::new(client, cores).in_flight(in_flight).count(count)
}

/// Returns the name of another client that is offered eight ways to pay.
fn eight(peer: &str) -> &'static str {
    match peer {
        "x402-reqwest" => "x402-reqwest-eight",
        "r402" => "r402-eight",
        _ => "x402-signer-eight",
    }
}

/// Returns all measurements. Those that are compared with each other are next to each other.
fn trials(mode: Mode) -> Vec<Trial> {
    let peers = PEERS.map(|(peer, _)| peer);
    let bursar = ["bursar", "secp:bursar", "bursar-known", "secp:bursar-known"];
    let mut trials = vec![one("floor"), one("hand"), one("hand-k256")];
    trials.extend(peers.map(one));
    trials.extend(bursar.map(one));
    trials.push(one_sqlite());
    trials.extend(peers.map(|peer| one(eight(peer))));
    trials.push(one("bursar-eight"));
    trials.extend(["slow-floor", "slow-bursar-known"].map(slow));
    for (_, clients, in_flight, count, _) in PASSTHROUGH {
        trials.extend(clients.map(|client| passthrough(client, in_flight, count)));
    }
    trials.extend(["floor", "hand", "hand-k256"].map(many));
    trials.extend(peers.map(many));
    trials.extend(bursar.map(many));
    trials.push(many("bursar-sqlite").count(4000));
    trials.extend(["bursar", "bursar-sqlite"].map(many_writers));
    if mode == Mode::Full {
        let apart = |client| Trial::new(client, Cores::Apart);
        trials.extend(["floor", "hand", "bursar", "bursar-known"].map(apart));
        trials.extend(peers.map(apart));
    }
    trials
}

/// Ratios of one client's numbers to another's.
struct Ratios {
    p50: f64,
    median: f64,
    cpu: f64,
}

impl Ratios {
    fn new(rounds: &Rounds, ours: Trial, theirs: Trial) -> Option<Self> {
        Some(Self {
            p50: rounds.best(ours, p50)? / rounds.best(theirs, p50)?,
            median: rounds.median(ours, p50)? / rounds.median(theirs, p50)?,
            cpu: rounds.best(ours, cpu)? / rounds.best(theirs, cpu)?,
        })
    }

    /// Returns the ratios to the best of some clients: p50 and CPU time each to the client that needs least.
    fn to_best(rounds: &Rounds, ours: Trial, others: &[Trial]) -> Option<(Self, String)> {
        let best = |of: fn(&Measured) -> u64| {
            let named = others
                .iter()
                .filter_map(|other| Some((*other, rounds.best(*other, of)?)));
            named.min_by(|a, b| a.1.total_cmp(&b.1))
        };
        let ((fast, _), (cheap, _)) = (best(p50)?, best(cpu)?);
        let ratios = Self {
            cpu: Self::new(rounds, ours, cheap)?.cpu,
            ..Self::new(rounds, ours, fast)?
        };
        let name = |trial: Trial| {
            trial
                .client
                .trim_end_matches("-eight")
                .trim_end_matches("-known")
        };
        let names = if fast == cheap {
            name(fast).to_owned()
        } else {
            format!("{} and {}", name(fast), name(cheap))
        };
        Some((ratios, names))
    }

    fn text(&self) -> String {
        format!(
            "p50 {:.2} (median {:.2}), CPU {:.2}",
            self.p50, self.median, self.cpu
        )
    }
}

fn micros(nanos: f64) -> String {
    format!("{:.1} µs", nanos / 1000.0)
}

/// Returns the p50 and the CPU time of one client.
fn times(rounds: &Rounds, trial: Trial) -> Option<String> {
    let (best, median) = (rounds.best(trial, p50)?, rounds.median(trial, p50)?);
    Some(format!(
        "p50 {} (median {}), CPU {}",
        micros(best),
        micros(median),
        micros(rounds.best(trial, cpu)?)
    ))
}

fn lines(rounds: &Rounds, counts: Option<&Counts>) -> Vec<Line> {
    let mut lines = Vec::new();
    one_after_the_other(rounds, &mut lines);
    sqlite(rounds, counts, &mut lines);
    passed_through(rounds, &mut lines);
    in_flight(rounds, &mut lines);
    apart(rounds, &mut lines);
    lines
}

/// The cases with an offer that each client pays, one call after the other on one core.
fn one_after_the_other(rounds: &Rounds, lines: &mut Vec<Line>) {
    let fact = |case: &str, trial| Some(Line::fact(case, times(rounds, trial)?));
    lines.extend(fact("floor: two plain reqwest requests", one("floor")));
    lines.extend(fact("by hand, libsecp256k1", one("hand")));
    lines.extend(fact("by hand, k256", one("hand-k256")));
    for (peer, version) in PEERS {
        lines.extend(fact(&format!("{peer} {version}"), one(peer)));
    }
    for (case, ours, theirs) in [
        (
            "bursar, memory ledger",
            one("bursar"),
            PEERS.map(|(peer, _)| one(peer)),
        ),
        (
            "bursar, memory ledger, eight offers",
            one("bursar-eight"),
            PEERS.map(|(peer, _)| one(eight(peer))),
        ),
    ] {
        lines.extend(times(rounds, ours).map(|text| {
            let Some((ratios, names)) = Ratios::to_best(rounds, ours, &theirs) else {
                return Line::fact(case, text);
            };
            let met = ratios.p50 <= 0.85 && ratios.cpu <= 0.85;
            let text = format!("{text}; of {names}: {}", ratios.text());
            Line::fact(case, text).goal("p50 and CPU ≤ 0.85 of the best other client", met)
        }));
    }
    let compared = |case: &str,
                    ours: Trial,
                    theirs: &[(&str, Trial)],
                    goal: &str,
                    met: fn(&Ratios) -> bool| {
        let mut text = times(rounds, ours)?;
        let mut first = None;
        for (name, theirs) in theirs {
            let ratios = Ratios::new(rounds, ours, *theirs)?;
            write!(text, "; of {name}: {}", ratios.text()).ok()?;
            first.get_or_insert(ratios);
        }
        let line = Line::fact(case, text);
        Some(match first {
            Some(ratios) if !goal.is_empty() => line.goal(goal, met(&ratios)),
            _ => line,
        })
    };
    lines.extend(compared(
        "bursar with `secp256k1`, memory ledger",
        one("secp:bursar"),
        &[("by hand with libsecp256k1", one("hand"))],
        "p50 and CPU ≤ 1.35 of by hand",
        |ratios| ratios.p50 <= 1.35 && ratios.cpu <= 1.35,
    ));
    lines.extend(compared(
        "bursar, memory ledger, known terms",
        one("bursar-known"),
        &[
            ("by hand with libsecp256k1", one("hand")),
            ("by hand with k256", one("hand-k256")),
        ],
        "p50 ≤ 1.2 of by hand",
        |ratios| ratios.p50 <= 1.2,
    ));
    lines.extend(compared(
        "bursar with `secp256k1`, memory ledger, known terms",
        one("secp:bursar-known"),
        &[("by hand with libsecp256k1", one("hand"))],
        "",
        |_| true,
    ));
    lines.extend(compared(
        "bursar, known terms, 20 ms added to each answer",
        slow("slow-bursar-known"),
        &[("the floor", slow("slow-floor"))],
        "",
        |_| true,
    ));
}

fn sqlite(rounds: &Rounds, counts: Option<&Counts>, lines: &mut Vec<Line>) {
    let (ours, memory) = (one_sqlite(), one("bursar"));
    let row = || {
        let ratios = Ratios::new(rounds, ours, memory)?;
        let text = format!(
            "{}; of the memory ledger: {}",
            times(rounds, ours)?,
            ratios.text()
        );
        let met = ratios.p50 <= 2.5 && ratios.cpu <= 2.0;
        Some(
            Line::fact("bursar, SQLite ledger", text)
                .goal("p50 ≤ 2.5 and CPU ≤ 2 of the memory ledger", met),
        )
    };
    lines.extend(row());
    lines.extend(counts.map(Counts::line));
    let row = || {
        let memory = rounds.rate(many_writers("bursar"))?;
        let sqlite = rounds.rate(many_writers("bursar-sqlite"))?;
        let share = sqlite / memory;
        let text = format!("{share:.2} ({sqlite:.0}/s of {memory:.0}/s)");
        let case = "bursar, SQLite ledger, 64 in flight: share of the memory ledger's rate";
        Some(Line::fact(case, text).goal("≥ 0.6", share >= 0.6))
    };
    lines.extend(row());
}

/// Requests that the seller answers without payment, compared with reqwest.
fn passed_through(rounds: &Rounds, lines: &mut Vec<Line>) {
    for (case, [bare, ours], in_flight, count, has_goal) in PASSTHROUGH {
        let at = |client| passthrough(client, in_flight, count);
        lines.extend(Ratios::new(rounds, at(ours), at(bare)).map(|ratios| {
            let case = format!("free request, {case}: bursar's time divided by reqwest's");
            let text = format!(
                "p50 {:.3} (median {:.3}), CPU {:.3}",
                ratios.p50, ratios.median, ratios.cpu
            );
            let line = Line::fact(case, text);
            let met = ratios.p50 <= 1.08 && ratios.cpu <= 1.08;
            if has_goal {
                line.goal("p50 and CPU ≤ 1.08", met)
            } else {
                line
            }
        }));
    }
}

/// Purchases per second with 32 calls in flight, on all cores.
fn in_flight(rounds: &Rounds, lines: &mut Vec<Line>) {
    let rate = |client| rounds.rate(many(client));
    let fact = |name: &str, client| {
        let text = format!("{:.0}/s", rate(client)?);
        Some(Line::fact(format!("32 in flight: {name}"), text))
    };
    lines.extend(fact("floor", "floor"));
    lines.extend(fact("by hand, libsecp256k1", "hand"));
    lines.extend(fact("by hand, k256", "hand-k256"));
    for (peer, version) in PEERS {
        lines.extend(fact(&format!("{peer} {version}"), peer));
    }
    let others = PEERS.map(|(peer, _)| rate(peer).map(|rate| (peer, rate)));
    let best = others
        .into_iter()
        .flatten()
        .max_by(|a, b| a.1.total_cmp(&b.1));
    lines.extend(rate("bursar").map(|ours| {
        let (case, text) = (
            "32 in flight: bursar, memory ledger",
            format!("{ours:.0}/s"),
        );
        let Some((peer, theirs)) = best else {
            return Line::fact(case, text);
        };
        let share = ours / theirs;
        Line::fact(case, format!("{text}; {share:.2} of {peer}'s"))
            .goal("≥ 1.2 of the best other client", share >= 1.2)
    }));
    lines.extend(fact(
        "bursar with `secp256k1`, memory ledger",
        "secp:bursar",
    ));
    lines.extend(fact("bursar, memory ledger, known terms", "bursar-known"));
    lines.extend(fact(
        "bursar with `secp256k1`, memory ledger, known terms",
        "secp:bursar-known",
    ));
    lines.extend(rounds.rate(many("bursar-sqlite").count(4000)).map(|rate| {
        Line::fact(
            "32 in flight: bursar, SQLite ledger",
            format!("{rate:.0}/s"),
        )
    }));
}

/// The client on one core and the seller on another.
fn apart(rounds: &Rounds, lines: &mut Vec<Line>) {
    let fact = |name: &str, client| {
        let text = times(rounds, Trial::new(client, Cores::Apart))?;
        Some(Line::fact(format!("one core each: {name}"), text))
    };
    lines.extend(fact("floor", "floor"));
    lines.extend(fact("by hand, libsecp256k1", "hand"));
    for (peer, version) in PEERS {
        lines.extend(fact(&format!("{peer} {version}"), peer));
    }
    lines.extend(fact("bursar, memory ledger", "bursar"));
    lines.extend(fact("bursar, memory ledger, known terms", "bursar-known"));
}

/// Returns the median time, in microseconds, of a 4 KiB write with its fsync on the disk of the ledger.
fn fsync() -> Result<f64, Failure> {
    let directory = tempfile::tempdir_in(std::env::current_dir()?)?;
    let mut file = std::fs::File::create(directory.path().join("fsync"))?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed().as_nanos() as f64 / 1000.0);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// Describes the machine, the versions and the method.
fn introduction(mode: Mode) -> Result<String, Failure> {
    let output = |program: &str, arguments: &[&str]| -> Result<String, Failure> {
        let output = Command::new(program).args(arguments).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name);
    let length = match mode {
        Mode::Full => "a full run (`benches/run`), seven rounds",
        Mode::Quick => {
            "a quick run (`benches/run --quick`), five rounds of half the purchases, on a machine that other programs used too"
        }
        Mode::Short => "a trial of a few purchases, whose numbers mean nothing",
    };
    Ok(format!(
        "Measured on {}: {}, {} cores, {}; {}; reqwest 0.13; release builds; {length}.\n\n\
         Each number is the best of interleaved rounds, with the median in brackets where it is given. Unless the row says \
         otherwise, one call follows the other, client and seller are two processes on one core, and bursar signs with \
         k256 0.14. CPU time is the client's, by getrusage. A ratio divides two numbers of this run.",
        output("date", &["+%Y-%m-%d"])?,
        model.unwrap_or("unknown processor"),
        std::thread::available_parallelism()?,
        output("uname", &["-sr"])?,
        output("rustc", &["--version"])?
            .split(" (")
            .next()
            .unwrap_or_default(),
    ))
}

/// Runs all trials in turn, round after round, and prints the table.
pub fn print(arguments: &[String]) -> Result<(), Failure> {
    let mode = Mode::read(arguments);
    let after = |flag| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let programs = Programs {
        peers: after("--peers"),
        secp256k1: after("--secp256k1"),
    };
    let rounds = Rounds::run(&trials(mode), mode, programs)?;
    let counts = Counts::measure(mode)?;
    println!("{}\n", introduction(mode)?);
    println!("| client and case | goal | measured | |");
    println!("|---|---|---|---|");
    lines(&rounds, counts.as_ref()).iter().for_each(Line::print);
    if let Some(more) = after("--more") {
        print!("{}", std::fs::read_to_string(more)?);
    }
    println!(
        "\nOn the disk of the ledger, a 4 KiB write with its fsync takes {:.0} µs.",
        fsync()?
    );
    Ok(())
}
