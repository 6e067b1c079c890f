//! Runs the rounds and prints their table.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::drive::{Failure, Measured};

/// The other clients and their versions. Each is a program of its own.
const PEERS: [(&str, &str); 2] = [("x402-reqwest", "2.0.2"), ("r402", "0.21.0")];

/// The server's process. It ends when its standard input is closed.
struct Server {
    process: Child,
    base: String,
}

/// The processor cores that the two processes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Cores {
    /// Both on the first core.
    Same,
    /// The client on the first, the server on the second.
    Apart,
    /// The system chooses.
    Any,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Trial {
    client: &'static str,
    cores: Cores,
    in_flight: usize,
    count: usize,
}

impl Trial {
    const fn new(client: &'static str, cores: Cores) -> Self {
        Self {
            client,
            cores,
            in_flight: 1,
            count: 3000,
        }
    }

    const fn in_flight(self, in_flight: usize) -> Self {
        Self { in_flight, ..self }
    }

    const fn count(self, count: usize) -> Self {
        Self { count, ..self }
    }
}

/// Starts a program on the given cores, with `taskset`.
fn on(cores: Cores, core: &str, program: &str) -> Command {
    if cores == Cores::Any {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", core, program]);
    command
}

impl Server {
    fn start(cores: Cores) -> Result<Self, Failure> {
        let itself = std::env::current_exe()?;
        let core = if cores == Cores::Apart { "1" } else { "0" };
        let mut command = on(cores, core, &itself.to_string_lossy());
        let mut process = command
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut port = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut port)?;
        Ok(Self {
            process,
            base: format!("http://127.0.0.1:{}", port.trim()),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        drop(self.process.wait());
    }
}

fn measure(trial: Trial, base: &str, peers: Option<&str>) -> Result<Measured, Failure> {
    let itself = std::env::current_exe()?;
    let program = if PEERS.iter().any(|(peer, _)| *peer == trial.client) {
        vec![format!(
            "{}/{}/release/bursar-speed-peers",
            peers.ok_or("no peers")?,
            trial.client
        )]
    } else {
        vec![itself.to_string_lossy().into_owned(), "client".to_owned()]
    };
    let mut command = on(trial.cores, "0", &program[0]);
    command.args(&program[1..]).args([trial.client, base]);
    command.args([trial.count.to_string(), trial.in_flight.to_string()]);
    let output = command.stderr(Stdio::inherit()).output()?;
    serde_json::from_slice(&output.stdout).map_err(|_| format!("{trial:?} failed").into())
}

/// The measurements of all rounds, by trial.
struct Rounds(HashMap<Trial, Vec<Measured>>);

impl Rounds {
    fn best(&self, trial: Trial, of: impl Fn(&Measured) -> u64) -> f64 {
        self.sorted(trial, of).first().copied().unwrap_or_default() as f64
    }

    fn median(&self, trial: Trial, of: impl Fn(&Measured) -> u64) -> f64 {
        let all = self.sorted(trial, of);
        all.get(all.len() / 2).copied().unwrap_or_default() as f64
    }

    fn sorted(&self, trial: Trial, of: impl Fn(&Measured) -> u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.0.get(&trial).into_iter().flatten().map(of).collect();
        all.sort_unstable();
        all
    }
}

/// A row of the table. The best round shows the machine at rest; the row gives the median too.
struct Line {
    what: String,
    goal: String,
    measured: String,
    met: Option<bool>,
}

fn p50(measured: &Measured) -> u64 {
    measured.p50
}

fn cpu(measured: &Measured) -> u64 {
    measured.cpu
}

/// Returns the nanoseconds between the ends of two purchases.
fn pace(measured: &Measured) -> u64 {
    (1e9 / measured.rate) as u64
}

fn lines(rounds: &Rounds, with_peers: bool) -> Vec<Line> {
    use Cores::{Any, Apart, Same};
    let mut lines = Vec::new();
    let mut line = |what: &str, goal: String, measured: String, met: Option<bool>| {
        lines.push(Line {
            what: what.to_owned(),
            goal,
            measured,
            met,
        });
    };
    let micros = |nanos: f64| format!("{:.1} µs", nanos / 1000.0);
    for (cores, place) in [(Same, "one shared core"), (Apart, "one core each")] {
        let floor = Trial::new("floor", cores);
        let text = format!(
            "p50 {}, {} CPU",
            micros(rounds.best(floor, p50)),
            micros(rounds.best(floor, cpu))
        );
        line(
            &format!("floor: two plain reqwest requests, {place}"),
            String::new(),
            text,
            None,
        );
    }
    let ratio = |trial: Trial, floor: Trial| {
        (
            rounds.best(trial, p50) / rounds.best(floor, p50),
            rounds.median(trial, p50) / rounds.median(floor, p50),
        )
    };
    let mut against = |what: &str, trial: Trial, floor: Trial, goal: Option<f64>| {
        let (best, median) = ratio(trial, floor);
        let added = (rounds.best(trial, cpu) - rounds.best(floor, cpu)) / 1000.0;
        let text = format!("{best:.2} (median {median:.2}), {added:+.1} µs CPU");
        line(
            what,
            goal.map(|goal| format!("p50 ≤ {goal}")).unwrap_or_default(),
            text,
            goal.map(|goal| best <= goal),
        );
    };
    for (cores, place) in [(Same, "one shared core"), (Apart, "one core each")] {
        let floor = Trial::new("floor", cores);
        let first = if cfg!(feature = "secp256k1") {
            1.6
        } else {
            1.8
        };
        against(
            &format!("bursar, first purchase, {place}"),
            Trial::new("bursar", cores),
            floor,
            Some(first),
        );
        against(
            &format!("bursar, known seller, {place}"),
            Trial::new("bursar-known", cores),
            floor,
            Some(1.1),
        );
        against(
            &format!("minimal client (libsecp256k1, no policy, no ledger), {place}"),
            Trial::new("hand", cores),
            floor,
            None,
        );
        for (peer, version) in PEERS.iter().filter(|_| with_peers) {
            against(
                &format!("{peer} {version}, {place}"),
                Trial::new(peer, cores),
                floor,
                None,
            );
        }
    }
    let slow = |client| Trial::new(client, Same).count(100);
    against(
        "bursar, known seller, 20 ms added to each answer, one shared core",
        slow("slow-bursar-known"),
        slow("slow-floor"),
        Some(0.52),
    );
    against(
        "bursar, SQLite ledger, one shared core",
        Trial::new("bursar-sqlite", Same).count(500),
        Trial::new("floor", Same),
        None,
    );

    let floor = Trial::new("floor", Same);
    let bursar = Trial::new("bursar", Same);
    let added = (rounds.best(bursar, cpu) - rounds.best(floor, cpu)) / 1000.0;
    line(
        "bursar, first purchase: CPU time added",
        "≤ 30 µs".into(),
        format!("{added:.1} µs"),
        Some(added <= 30.0),
    );
    let eight =
        (rounds.best(Trial::new("bursar-eight", Same), cpu) - rounds.best(bursar, cpu)) / 1000.0;
    line(
        "bursar, eight offers, the payable one last: CPU time added",
        "≤ 5 µs".into(),
        format!("{eight:.1} µs"),
        Some(eight <= 5.0),
    );
    let mut share = |what: &str, client: &'static str, goal: Option<f64>| {
        let many = |client| Trial::new(client, Any).in_flight(32).count(20_000);
        let share = rounds.best(many("floor"), pace) / rounds.best(many(client), pace);
        let rate = 1e9 / rounds.best(many(client), pace);
        line(
            what,
            goal.map(|goal| format!("≥ {goal}")).unwrap_or_default(),
            format!("{share:.2} ({rate:.0}/s)"),
            goal.map(|goal| share >= goal),
        );
    };
    share(
        "bursar, 32 calls in flight: share of the floor's rate",
        "bursar",
        Some(0.5),
    );
    share(
        "bursar, known seller, 32 calls in flight",
        "bursar-known",
        None,
    );
    share("minimal client, 32 calls in flight", "hand", None);
    for (peer, version) in PEERS.iter().filter(|_| with_peers) {
        share(&format!("{peer} {version}, 32 calls in flight"), peer, None);
    }
    for (what, bare, ours, in_flight, count) in [
        (
            "bursar, free request, small body",
            "reqwest-free",
            "bursar-free",
            1,
            6000,
        ),
        (
            "bursar, free request, small body, 32 calls in flight",
            "reqwest-free",
            "bursar-free",
            32,
            40_000,
        ),
        (
            "bursar, free request, 1 MiB",
            "reqwest-big",
            "bursar-big",
            1,
            400,
        ),
        (
            "bursar, free request, 1 MiB, 32 calls in flight",
            "reqwest-big",
            "bursar-big",
            32,
            1000,
        ),
    ] {
        let cores = if in_flight == 1 { Same } else { Any };
        let at = |client| Trial::new(client, cores).in_flight(in_flight).count(count);
        let (time, work) = (
            rounds.best(at(ours), p50) / rounds.best(at(bare), p50),
            rounds.best(at(ours), cpu) / rounds.best(at(bare), cpu),
        );
        line(
            what,
            "≤ 1.03".into(),
            format!("p50 {time:.3}, CPU {work:.3}"),
            Some(time <= 1.03 && work <= 1.03),
        );
    }
    let ledger = |client, in_flight| Trial::new(client, Any).in_flight(in_flight).count(3000);
    let memory = 1e9 / rounds.best(ledger("bursar", 64), pace);
    let sqlite = 1e9 / rounds.best(ledger("bursar-sqlite", 64), pace);
    let text = format!("{:.2} ({sqlite:.0}/s of {memory:.0}/s)", sqlite / memory);
    line(
        "SQLite ledger, 64 calls in flight: share of the memory ledger's rate",
        "≥ 0.5".into(),
        text,
        Some(sqlite >= memory / 2.0),
    );
    lines
}

fn trials(with_peers: bool) -> Vec<Trial> {
    use Cores::{Any, Apart, Same};
    let peers = if with_peers { &PEERS[..] } else { &[] };
    let mut trials = Vec::new();
    for cores in [Same, Apart] {
        trials.extend(
            ["floor", "bursar", "bursar-known", "hand"].map(|client| Trial::new(client, cores)),
        );
        trials.extend(peers.iter().map(|(peer, _)| Trial::new(peer, cores)));
    }
    trials.push(Trial::new("bursar-eight", Same));
    trials.push(Trial::new("bursar-sqlite", Same).count(500));
    trials.extend(
        ["slow-floor", "slow-bursar-known"].map(|client| Trial::new(client, Same).count(100)),
    );
    let many = ["floor", "bursar", "bursar-known", "hand"]
        .map(|client| Trial::new(client, Any).in_flight(32).count(20_000));
    trials.extend(many);
    trials.extend(
        peers
            .iter()
            .map(|(peer, _)| Trial::new(peer, Any).in_flight(32).count(20_000)),
    );
    for client in ["reqwest-free", "bursar-free"] {
        trials.push(Trial::new(client, Same).count(6000));
        trials.push(Trial::new(client, Any).in_flight(32).count(40_000));
    }
    for client in ["reqwest-big", "bursar-big"] {
        trials.push(Trial::new(client, Same).count(400));
        trials.push(Trial::new(client, Any).in_flight(32).count(1000));
    }
    trials.extend(
        ["bursar", "bursar-sqlite"].map(|client| Trial::new(client, Any).in_flight(64).count(3000)),
    );
    trials
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

/// How the numbers of the table come about.
const METHOD: &str = "Each number is the best of seven interleaved rounds, with the median in brackets where it is given. Client and \
    server are two processes. A ratio divides a client's p50 by the floor's p50 on the same cores. CPU time is the \
    client's, by getrusage, beyond the floor's.";

/// Describes the machine, the versions and the method.
fn machine() -> Result<String, Failure> {
    let output = |program: &str, arguments: &[&str]| -> Result<String, Failure> {
        let output = Command::new(program).args(arguments).output()?;
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let model = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = model
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name);
    let signer = if cfg!(feature = "secp256k1") {
        "libsecp256k1 0.31"
    } else {
        "k256 0.14"
    };
    Ok(format!(
        "Measured on {}: {}, {} cores, {}; {}; reqwest 0.13; signatures by {signer}; release builds. {METHOD}",
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

/// Runs all trials one after the other, seven times, and prints the table.
pub fn print(arguments: &[String]) -> Result<(), Failure> {
    let short = arguments.iter().any(|argument| argument == "--short");
    let after = |flag| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        arguments.get(at + 1).map(String::as_str)
    };
    let (peers, only, more) = (after("--peers"), after("--only"), after("--more"));
    let mut trials = trials(peers.is_some());
    if let Some(only) = only {
        trials.retain(|trial| trial.client == only || trial.client == "floor");
    }
    let mut rounds = Rounds(HashMap::new());
    for round in 0..if short { 1 } else { 7 } {
        eprintln!("round {}", round + 1);
        for trial in &trials {
            let server = Server::start(trial.cores)?;
            let count = if short {
                (trial.count / 50).max(20)
            } else {
                trial.count
            };
            let measured = measure(Trial { count, ..*trial }, &server.base, peers)?;
            rounds.0.entry(*trial).or_default().push(measured);
        }
    }
    println!("{}\n", machine()?);
    println!("| client and case | goal | measured | |");
    println!("|---|---|---|---|");
    for Line {
        what,
        goal,
        measured,
        met,
    } in lines(&rounds, peers.is_some())
    {
        if measured.contains("NaN") || measured.contains("inf") {
            continue;
        }
        let met = match met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        println!("| {what} | {goal} | {measured} | {met} |");
    }
    if let Some(more) = more {
        print!("{}", std::fs::read_to_string(more)?);
    }
    println!(
        "\nOn the disk of the ledger, a 4 KiB write with its fsync takes {:.0} µs.",
        fsync()?
    );
    Ok(())
}
