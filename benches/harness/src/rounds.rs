//! Measures clients in turn, round after round.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::drive::{Failure, Measured};
use crate::mode::Mode;

/// The other clients and their versions. Each is a program of its own.
pub const PEERS: [(&str, &str); 3] = [
    ("x402-reqwest", "2.0.2"),
    ("r402", "0.21.0"),
    ("x402-signer", "2.5.0"),
];

/// The processor cores that the two processes run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cores {
    /// Both on the first core.
    Same,
    /// The client on the first, the server on the second.
    Apart,
    /// The system chooses.
    Any,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Trial {
    /// `secp:NAME` is a client of the harness that is built with bursar's feature `secp256k1`.
    pub client: &'static str,
    pub cores: Cores,
    pub in_flight: usize,
    /// The purchases in a full run.
    pub count: usize,
}

impl Trial {
    pub const fn new(client: &'static str, cores: Cores) -> Self {
        Self {
            client,
            cores,
            in_flight: 1,
            count: 3000,
        }
    }

    pub const fn in_flight(self, in_flight: usize) -> Self {
        Self { in_flight, ..self }
    }

    pub const fn count(self, count: usize) -> Self {
        Self { count, ..self }
    }
}

/// Programs besides this one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Programs<'a> {
    /// The directory of the other clients.
    pub peers: Option<&'a str>,
    /// This program, built with bursar's feature `secp256k1`.
    pub secp256k1: Option<&'a str>,
}

impl Programs<'_> {
    /// Returns the program of a trial and its arguments.
    fn command(self, client: &str) -> Result<Option<Vec<String>>, Failure> {
        let peer = client.strip_suffix("-eight").unwrap_or(client);
        if PEERS.iter().any(|(name, _)| *name == peer) {
            let program = |peers| vec![format!("{peers}/{peer}"), client.to_owned()];
            return Ok(self.peers.map(program));
        }
        let words = |program: String, client: &str| vec![program, "client".into(), client.into()];
        if let Some(client) = client.strip_prefix("secp:") {
            return Ok(self.secp256k1.map(|program| words(program.into(), client)));
        }
        let itself = std::env::current_exe()?;
        Ok(Some(words(itself.to_string_lossy().into_owned(), client)))
    }
}

/// The server's process. It ends when its standard input is closed.
pub struct Server {
    process: Child,
    pub base: String,
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
    pub fn start(cores: Cores) -> Result<Self, Failure> {
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

fn measure(trial: Trial, command: &[String], base: &str) -> Result<Measured, Failure> {
    let (program, arguments) = command.split_first().ok_or("no program")?;
    let output = on(trial.cores, "0", program)
        .args(arguments)
        .arg(base)
        .args([trial.count.to_string(), trial.in_flight.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    serde_json::from_slice(&output.stdout).map_err(|_| format!("{trial:?} failed").into())
}

/// The measurements of all rounds, by trial.
pub struct Rounds(HashMap<Trial, Vec<Measured>>);

impl Rounds {
    /// Measures each trial once in each round. Leaves out the clients whose programs are not there.
    pub fn run(trials: &[Trial], mode: Mode, programs: Programs<'_>) -> Result<Self, Failure> {
        let mut measured: HashMap<_, Vec<_>> = HashMap::new();
        for round in 0..mode.rounds() {
            eprintln!("round {} of {}", round + 1, mode.rounds());
            for trial in trials {
                let Some(command) = programs.command(trial.client)? else {
                    continue;
                };
                let server = Server::start(trial.cores)?;
                let shorter = trial.count(mode.count(trial.count).max(2 * trial.in_flight));
                let times = measure(shorter, &command, &server.base)?;
                measured.entry(*trial).or_default().push(times);
            }
        }
        Ok(Self(measured))
    }

    /// Returns the smallest number of all rounds, which shows the machine at rest.
    pub fn best(&self, trial: Trial, of: impl Fn(&Measured) -> u64) -> Option<f64> {
        self.sorted(trial, of).first().map(|best| *best as f64)
    }

    /// Returns the median of all rounds.
    pub fn median(&self, trial: Trial, of: impl Fn(&Measured) -> u64) -> Option<f64> {
        let all = self.sorted(trial, of);
        all.get(all.len() / 2).map(|median| *median as f64)
    }

    /// Returns the purchases per second of the best round.
    pub fn rate(&self, trial: Trial) -> Option<f64> {
        let rates = self.0.get(&trial)?.iter().map(|measured| measured.rate);
        rates.max_by(f64::total_cmp)
    }

    fn sorted(&self, trial: Trial, of: impl Fn(&Measured) -> u64) -> Vec<u64> {
        let mut all: Vec<u64> = self.0.get(&trial).into_iter().flatten().map(of).collect();
        all.sort_unstable();
        all
    }
}
