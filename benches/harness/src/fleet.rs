//! Rows for processes that share a ledger in PostgreSQL.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::away::Away;
use crate::drive::Failure;
use crate::mode::Mode;
use crate::postgres::Bought;
use crate::table::Line;

/// Where the processes connect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Place {
    Server,
    Pooler,
    /// A server whose answers come 1 ms later.
    Away,
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Case {
    Bursar {
        place: Place,
        processes: usize,
        in_flight: usize,
    },
    /// The same purchases as plain SQL by `pgbench`, with this many clients.
    Pgbench(usize),
}

const fn bursar(place: Place, processes: usize, in_flight: usize) -> Case {
    Case::Bursar {
        place,
        processes,
        in_flight,
    }
}

const CASES: [Case; 8] = [
    bursar(Place::Server, 1, 1),
    Case::Pgbench(1),
    bursar(Place::Server, 1, 32),
    bursar(Place::Server, 8, 32),
    Case::Pgbench(8),
    bursar(Place::Pooler, 8, 32),
    bursar(Place::Away, 1, 1),
    bursar(Place::Away, 8, 32),
];

/// The numbers of one measurement.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    rate: f64,
    /// In milliseconds.
    p50: f64,
    /// Of one purchase.
    round_trips: f64,
    /// The purchases that the ledger could not record in time.
    failed: u64,
}

/// The server of `BURSAR_TEST_POSTGRES`, which listens on a socket in a directory.
struct Postgres {
    directory: PathBuf,
    port: u16,
}

impl Postgres {
    fn find() -> Result<Self, Failure> {
        let url = std::env::var("BURSAR_TEST_POSTGRES").map_err(|_| "start tests/postgres/run")?;
        let part = |name: &str| {
            let mut parts = url.split_whitespace();
            let part = parts.find_map(|part| part.strip_prefix(name));
            part.ok_or_else(|| format!("no {name} in BURSAR_TEST_POSTGRES"))
        };
        Ok(Self {
            directory: part("host=")?.into(),
            port: part("port=")?.parse()?,
        })
    }

    fn url(&self) -> String {
        let (directory, port) = (self.directory.display(), self.port);
        format!("host={directory} port={port} user=bursar dbname=postgres")
    }

    fn socket(&self) -> PathBuf {
        self.directory.join(format!(".s.PGSQL.{}", self.port))
    }

    /// Returns a program of the PostgreSQL packages.
    fn pgbench(&self) -> Command {
        let mut places: Vec<_> = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .flatten()
            .map(|version| version.path().join("bin/pgbench"))
            .filter(|program| program.exists())
            .collect();
        places.sort();
        let mut command = Command::new(places.pop().unwrap_or_else(|| "pgbench".into()));
        command
            .arg("-h")
            .arg(&self.directory)
            .args(["-p", &self.port.to_string(), "-U", "bursar", "-n"])
            .arg("postgres");
        command
    }
}

/// PgBouncer in front of the server.
struct Pooler {
    process: Child,
    port: u16,
    version: String,
    is_by_transaction: bool,
}

impl Pooler {
    /// Returns `None` if it is not installed.
    fn start(postgres: &Postgres, directory: &Path) -> Result<Option<Self>, Failure> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let Some(program) = program.iter().find(|program| Path::new(program).exists()) else {
            eprintln!("there is no pgbouncer");
            return Ok(None);
        };
        let version = Command::new(program).arg("--version").output()?.stdout;
        let version = String::from_utf8_lossy(&version).into_owned();
        let version = version
            .split_whitespace()
            .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))
            .ok_or("no version of pgbouncer")?
            .to_owned();
        let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
        // Later ones keep prepared statements in transaction mode.
        let number: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let is_by_transaction = number >= (1, 21);
        let (mode, pool) = if is_by_transaction {
            ("transaction\nmax_prepared_statements = 200", 16)
        } else {
            ("session", 100)
        };
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=bursar\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\nserver_tls_sslmode = disable\npool_mode = {mode}\nmax_client_conn = 500\n\
             default_pool_size = {pool}\nignore_startup_parameters = extra_float_digits,options\n",
            postgres.port,
        );
        let path = directory.join("pgbouncer.ini");
        std::fs::write(&path, settings)?;
        let log = std::fs::File::create(directory.join("pgbouncer.log"))?;
        let mut command = Command::new(program);
        command.arg(&path).stdout(log.try_clone()?).stderr(log);
        // It does not run as root.
        if nix::unistd::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let process = command.spawn()?;
        let pooler = Self {
            process,
            port,
            version,
            is_by_transaction,
        };
        let began = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            if began.elapsed() > Duration::from_secs(10) {
                let log = std::fs::read_to_string(directory.join("pgbouncer.log"))?;
                return Err(format!("pgbouncer does not start: {log}").into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(pooler))
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn over_tcp(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=bursar dbname=postgres sslmode=disable")
}

/// What the cases need.
struct Fleet {
    mode: Mode,
    postgres: Postgres,
    pooler: Option<Pooler>,
    away: Away,
}

impl Fleet {
    /// Starts the processes, lets them begin at once when all have connected, and adds their purchases.
    fn buy(
        &self,
        url: &str,
        schema: &str,
        processes: usize,
        in_flight: usize,
    ) -> Result<Numbers, Failure> {
        let millis = self.mode.choose(6000, 3000, 500).to_string();
        let itself = std::env::current_exe()?;
        let mut started = Vec::new();
        for number in 0..processes {
            let mut process = Command::new(&itself)
                .args(["postgres", url, schema, &millis, &in_flight.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()?;
            let input = process.stdin.take().ok_or("no input")?;
            let output = BufReader::new(process.stdout.take().ok_or("no output")?);
            started.push((process, input, output));
            // The first one creates the tables.
            if number == 0 {
                is_ready(&mut started[0].2)?;
            }
        }
        for (_, _, output) in started.iter_mut().skip(1) {
            is_ready(output)?;
        }
        let (began, turns) = (Instant::now(), self.away.turns());
        for (_, input, _) in &mut started {
            input.write_all(b"begin\n")?;
        }
        let (mut count, mut failed) = (0, 0);
        let mut p50 = Vec::new();
        for (mut process, _input, mut output) in started {
            let mut line = String::new();
            output.read_line(&mut line)?;
            if !process.wait()?.success() {
                return Err(format!("a process failed on {url}").into());
            }
            let bought: Bought = serde_json::from_str(&line)?;
            count += bought.count;
            failed += bought.failed;
            p50.push(bought.p50);
        }
        p50.sort_unstable();
        Ok(Numbers {
            rate: count as f64 / began.elapsed().as_secs_f64(),
            p50: p50.get(p50.len() / 2).copied().unwrap_or_default() as f64 / 1e6,
            round_trips: (self.away.turns() - turns) as f64 / count.max(1) as f64,
            failed,
        })
    }

    /// Runs the transactions of a purchase as plain SQL.
    fn pgbench(&self, schema: &str, clients: usize, directory: &Path) -> Result<Numbers, Failure> {
        let run = |script: &str, arguments: &[&str]| -> Result<String, Failure> {
            let path = directory.join("pgbench.sql");
            std::fs::write(&path, script)?;
            let output = self
                .postgres
                .pgbench()
                .env("PGOPTIONS", format!("-c search_path={schema}"))
                .args(arguments)
                .arg("-f")
                .arg(path)
                .output()?;
            if !output.status.success() {
                return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
            }
            Ok(String::from_utf8(output.stdout)?)
        };
        let tables = include_str!("../../pgbench/tables.sql").replace("by_hand", schema);
        run(&tables, &["-t", "1"])?;
        let seconds = self.mode.choose("6", "3", "1");
        let clients = clients.to_string();
        let told = run(
            include_str!("../../pgbench/purchase.sql"),
            &["-M", "prepared", "-j", "2", "-c", &clients, "-T", seconds],
        )?;
        let number = |before: &str| {
            let line = told.lines().find_map(|line| line.strip_prefix(before))?;
            line.split_whitespace().next()?.parse::<f64>().ok()
        };
        Ok(Numbers {
            rate: number("tps = ").ok_or("pgbench prints no rate")?,
            p50: number("latency average = ").unwrap_or_default(),
            round_trips: 0.0,
            failed: 0,
        })
    }
}

fn is_ready(output: &mut impl BufRead) -> Result<(), Failure> {
    let mut line = String::new();
    output.read_line(&mut line)?;
    match line.trim() {
        "ready" => Ok(()),
        other => Err(format!("a process does not begin: {other}").into()),
    }
}

/// Measures all cases in turn, round after round, and prints their rows.
pub fn measure(mode: Mode) -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    // PgBouncer's user reads its settings.
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open)?;
    let postgres = Postgres::find()?;
    let fleet = Fleet {
        mode,
        pooler: Pooler::start(&postgres, directory.path())?,
        away: Away::start(postgres.socket(), Duration::from_millis(1))?,
        postgres,
    };
    let mut measured: HashMap<Case, Vec<Numbers>> = HashMap::new();
    for round in 0..mode.choose(5, 3, 1) {
        eprintln!("PostgreSQL: round {}", round + 1);
        for (number, case) in CASES.into_iter().enumerate() {
            let schema = format!("case_{round}_{number}");
            let numbers = match case {
                Case::Pgbench(clients) => fleet.pgbench(&schema, clients, directory.path())?,
                Case::Bursar {
                    place,
                    processes,
                    in_flight,
                } => {
                    let url = match (place, &fleet.pooler) {
                        (Place::Server, _) => fleet.postgres.url(),
                        (Place::Away, _) => over_tcp(fleet.away.port()),
                        (Place::Pooler, Some(pooler)) => over_tcp(pooler.port),
                        (Place::Pooler, None) => continue,
                    };
                    fleet.buy(&url, &schema, processes, in_flight)?
                }
            };
            eprintln!("  {case:?}: {numbers:.1?}");
            measured.entry(case).or_default().push(numbers);
        }
    }
    lines(&measured, fleet.pooler.as_ref())
        .iter()
        .for_each(Line::print);
    Ok(())
}

/// Returns the median round by the rate: nothing can make a disk look faster than it is, but a lucky round can.
fn median(measured: &HashMap<Case, Vec<Numbers>>, case: Case) -> Option<Numbers> {
    let mut rounds = measured.get(&case)?.clone();
    rounds.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    rounds.get(rounds.len() / 2).copied()
}

fn lines(measured: &HashMap<Case, Vec<Numbers>>, pooler: Option<&Pooler>) -> Vec<Line> {
    let of = |case| median(measured, case);
    let mut lines = Vec::new();
    let text = |numbers: Numbers| {
        let failed = match numbers.failed {
            0 => String::new(),
            failed => format!(", {failed} purchases failed because others waited"),
        };
        format!("{:.0}/s, p50 {:.1} ms{failed}", numbers.rate, numbers.p50)
    };
    let one = of(bursar(Place::Server, 1, 1));
    let away = of(bursar(Place::Away, 1, 1));
    let beside = |numbers: Numbers, clients| {
        let hand = of(Case::Pgbench(clients))?.rate;
        let share = numbers.rate / hand;
        let clients = match clients {
            1 => "one client".to_owned(),
            clients => format!("{clients} clients"),
        };
        Some(format!(
            "{}; {share:.1} of `pgbench` with {clients} ({hand:.0}/s)",
            text(numbers)
        ))
    };
    lines.extend(one.and_then(|one| {
        let text = beside(one, 1)?;
        let line = Line::fact("PostgreSQL ledger, one process, one call", text);
        let Some(away) = away else {
            return Some(line);
        };
        let trips = format!(
            "{}; {:.1} round trips a purchase",
            line.measured, away.round_trips
        );
        // The rest of a round trip belongs to the beginning of the process.
        Some(Line::fact(line.case, trips).goal("≤ 4 round trips", away.round_trips < 4.1))
    }));
    let several = of(bursar(Place::Server, 1, 32));
    lines.extend(several.and_then(|several| {
        let text = beside(several, 8)?;
        Some(Line::fact(
            "PostgreSQL ledger, one process, 32 calls in flight",
            text,
        ))
    }));
    lines.extend(of(bursar(Place::Server, 8, 32)).and_then(|fleet| {
        let text = beside(fleet, 8)?;
        let least = one.iter().chain(&several).map(|other| other.rate);
        let is_least = least.fold(0.0, f64::max) > fleet.rate;
        Some(
            Line::fact(
                "PostgreSQL ledger, eight processes, 32 calls in flight each",
                text,
            )
            .goal(
                "≥ 1,000/s, and no less than one process",
                fleet.rate >= 1000.0 && !is_least && fleet.failed == 0,
            ),
        )
    }));
    lines.extend(of(bursar(Place::Pooler, 8, 32)).zip(pooler).map(|(numbers, pooler)| {
        let mode = if pooler.is_by_transaction {
            "transaction"
        } else {
            "session"
        };
        let case = format!(
            "PostgreSQL ledger, eight processes, 32 calls in flight each, through PgBouncer {} in {mode} mode",
            pooler.version
        );
        Line::fact(case, text(numbers))
    }));
    let case = "PostgreSQL ledger 1 ms away, one process, one call";
    lines.extend(away.map(|numbers| Line::fact(case, text(numbers))));
    let case = "PostgreSQL ledger 1 ms away, eight processes, 32 calls in flight each";
    let far = of(bursar(Place::Away, 8, 32));
    lines.extend(far.map(|numbers| Line::fact(case, text(numbers))));
    lines
}
