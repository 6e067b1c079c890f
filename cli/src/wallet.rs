//! The key and the ledger.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(any(feature = "mcp-serve", feature = "proxy"))]
use bursar::Client;
use bursar::approval::TerminalApprover;
use bursar::config::Config;
use bursar::ledger::{LedgerError, OpenOptions};
use bursar::payment::PayerBuilder;
use bursar::secrecy::ExposeSecret;
use bursar::{ChainReader, Ledger, LocalSigner, Network, Payer, Policy};

use crate::args::{LedgerArgs, WalletArgs};
use crate::exit::Failure;
use crate::secrets::{self, KEY, LEDGER};
use crate::{output, password};

/// Opens a payer that can sign.
pub(crate) async fn paying(
    args: &WalletArgs,
    policy: Policy,
    chain: Option<ChainReader>,
) -> Result<Payer, Failure> {
    let relative = match place(&args.ledger)? {
        Place::File(path) if path.is_relative() && !path.exists() => Some(path),
        _ => None,
    };
    let payer = paying_as(args, policy, chain, |payer| {
        // The command ends too early for rounds in the background. `bursar ledger reconcile` is one.
        let payer = payer.reconcile_every(Duration::ZERO);
        if can_ask_person() {
            payer.approver(TerminalApprover::default())
        } else {
            payer
        }
    })
    .await?;
    // A terminal shows the library's warning. A job often runs in another directory than its author thought.
    if let Some(path) = relative.filter(|path| path.exists())
        && !io::stderr().is_terminal()
    {
        let path = std::path::absolute(&path).unwrap_or(path);
        output::note(format_args!(
            "bursar: begins a new ledger at {}; use an absolute path, or add --no-new-ledger",
            path.display()
        ));
    }
    Ok(payer)
}

/// Opens a payer that can sign. `chain` has the endpoints of the policy file. `customize` can set an approver.
pub(crate) async fn paying_as(
    args: &WalletArgs,
    policy: Policy,
    chain: Option<ChainReader>,
    customize: impl FnOnce(PayerBuilder) -> PayerBuilder,
) -> Result<Payer, Failure> {
    let mut payer = Payer::builder()
        .signer(required_signer(args)?)
        .policy(policy)
        .ledger(open(&args.ledger).await?);
    if let Some(agent) = &args.agent {
        payer = payer.agent(agent);
    }
    if let Some(chain) = with_endpoints(chain, &args.rpc)? {
        payer = payer.chain(chain);
    }
    Ok(customize(payer).build()?)
}

fn required_signer(args: &WalletArgs) -> Result<LocalSigner, Failure> {
    signer(args.keystore.as_deref(), args.key_fd)?.ok_or_else(|| {
        Failure::usage(format!(
            "no key is set; set {KEY}, or add --key-fd N or --keystore FILE"
        ))
    })
}

/// Opens a payer that only evaluates the policy. It uses the address of the key if one is set, and the ledger if it
/// exists. It creates no file.
pub(crate) async fn judging(
    args: &WalletArgs,
    policy: Policy,
    chain: Option<ChainReader>,
) -> Result<Payer, Failure> {
    let mut payer = Payer::builder().policy(policy);
    if let Some(signer) = signer(args.keystore.as_deref(), args.key_fd)? {
        payer = payer.signer(signer);
    }
    if let Some(agent) = &args.agent {
        payer = payer.agent(agent);
    }
    if let Some(ledger) = existing(&args.ledger).await? {
        payer = payer.ledger(ledger);
    }
    if let Some(chain) = with_endpoints(chain, &args.rpc)? {
        payer = payer.chain(chain);
    }
    Ok(payer.build_read_only()?)
}

/// Returns true if a terminal is available to ask a person for an approval.
pub(crate) fn can_ask_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Adds the endpoints of the command line to those of the policy file. Returns `None` if there is none.
pub(crate) fn with_endpoints(
    chain: Option<ChainReader>,
    endpoints: &[(Network, String)],
) -> Result<Option<ChainReader>, Failure> {
    endpoints.iter().try_fold(chain, |chain, (network, url)| {
        let reader = chain.unwrap_or_else(ChainReader::new);
        let added = reader.endpoint(*network, url).map(Some);
        added.map_err(|error| Failure::usage(format!("--rpc: {error}")))
    })
}

/// Returns a reader of the endpoints of a policy file and of the command line.
pub(crate) fn chain_of(
    policy: Option<&Path>,
    endpoints: &[(Network, String)],
) -> Result<ChainReader, Failure> {
    let of_file = match policy {
        Some(file) => Config::from_file(file)?.chain,
        None => None,
    };
    with_endpoints(of_file, endpoints)?.ok_or_else(|| {
        Failure::usage("the policy file has no [[chain]]; add one, or --rpc NETWORK=URL")
    })
}

/// Records everything that the process still has in memory. A server calls it at its end.
#[cfg(any(feature = "mcp-serve", feature = "proxy"))]
pub(crate) async fn close(client: &Client) -> Result<(), Failure> {
    // A query of the ledger first records the abandoned purchases.
    client.budget().await?;
    if let Some(ledger) = client.ledger() {
        // A database on a server is written in the background, which ends with this process. Denials are counted for people
        // only, so the end does not fail without them.
        let recorded = ledger.record_denials();
        drop(tokio::time::timeout(Duration::from_secs(5), recorded).await);
    }
    Ok(())
}

/// Returns the signer of a keystore, a file descriptor or the environment, if one of them is set.
pub(crate) fn signer(
    keystore: Option<&Path>,
    key_fd: Option<u16>,
) -> Result<Option<LocalSigner>, Failure> {
    if let Some(file) = keystore {
        if file
            .to_str()
            .is_some_and(|text| LocalSigner::from_hex(&text.into()).is_ok())
        {
            return Err(Failure::usage(
                "--keystore: expected a file, and this is a key; set it as BURSAR_PRIVATE_KEY",
            ));
        }
        // A missing file is told before the password is asked for.
        if let Err(error) = std::fs::File::open(file) {
            let message = format!("--keystore {}: cannot be read: {error}", file.display());
            return Err(Failure::usage(message));
        }
        return Ok(Some(LocalSigner::from_keystore(file, &password::ask()?)?));
    }
    if let Some(fd) = key_fd {
        return secrets::key_from(fd).map(Some);
    }
    let Some(digits) = secrets::variable(KEY) else {
        return Ok(None);
    };
    LocalSigner::from_hex(&digits)
        .map(Some)
        .map_err(|error| Failure::usage(format!("{KEY}: {error}")))
}

/// Opens the ledger, and creates it if it does not exist.
async fn open(args: &LedgerArgs) -> Result<Ledger, Failure> {
    if args.no_new_ledger {
        return required(args).await;
    }
    let path = match place(args)? {
        Place::Server(url) => return Ok(Ledger::open(url)?),
        Place::File(path) => path,
    };
    if args.ledger.is_none()
        && let Some(directory) = path.parent()
    {
        create_private(directory).map_err(|error| {
            Failure::failed(format!(
                "the directory of the ledger, {}, cannot be created: {error}",
                directory.display()
            ))
        })?;
    }
    Ok(options(args).open(&path)?)
}

fn options(args: &LedgerArgs) -> OpenOptions {
    let options = OpenOptions::new();
    if args.allow_shared_file_system {
        options.allow_shared_file_system()
    } else {
        options
    }
}

/// Opens the ledger if it exists. It creates no file.
pub(crate) async fn existing(args: &LedgerArgs) -> Result<Option<Ledger>, Failure> {
    let opened = match place(args)? {
        Place::Server(url) => {
            let ledger = Ledger::open_existing(url)?;
            // A handle on a database connects when it is first used.
            ledger.frozen().await.map(|_| ledger)
        }
        Place::File(path) => options(args).must_exist().open(path),
    };
    match opened {
        Err(LedgerError::Missing(_)) => Ok(None),
        opened => Ok(Some(opened?)),
    }
}

/// Opens the ledger to read it. The default ledger that does not exist yet is empty. Another one must exist.
pub(crate) async fn readable(args: &LedgerArgs) -> Result<Ledger, Failure> {
    let named = args.ledger.is_some() || ledger_variable().is_some();
    let in_memory = args
        .ledger
        .as_deref()
        .is_some_and(|path| path.as_os_str() == ":memory:");
    if named && !in_memory {
        return required(args).await;
    }
    Ok(existing(args).await?.unwrap_or_else(Ledger::memory))
}

/// Opens the ledger, or fails if it does not exist.
pub(crate) async fn required(args: &LedgerArgs) -> Result<Ledger, Failure> {
    match existing(args).await? {
        Some(ledger) => Ok(ledger),
        None => Err(Failure::failed(format!(
            "there is no ledger at {}",
            place(args)?
        ))),
    }
}

/// Returns the path of the ledger, which must be a file.
pub(crate) fn file(args: &LedgerArgs) -> Result<PathBuf, Failure> {
    match place(args)? {
        Place::File(path) => Ok(path),
        Place::Server(_) => Err(Failure::usage(
            "this command needs a ledger in a file; use the backups of your database",
        )),
    }
}

/// The location of the ledger.
enum Place {
    File(PathBuf),
    /// The URL of a database. It can contain a password.
    Server(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A job may run in another directory than its author thought.
            Self::File(path) => std::path::absolute(path)
                .unwrap_or_else(|_| path.clone())
                .display()
                .fmt(f),
            Self::Server(_) => f.write_str("the PostgreSQL database"),
        }
    }
}

/// Returns the path or the URL in the environment.
fn ledger_variable() -> Option<PathBuf> {
    let moved = secrets::variable(LEDGER).map(|url| PathBuf::from(url.expose_secret()));
    moved.or_else(|| std::env::var_os(LEDGER).map(PathBuf::from))
}

fn place(args: &LedgerArgs) -> Result<Place, Failure> {
    let location = args.ledger.clone().or_else(ledger_variable);
    let location = match location.as_ref().and_then(|location| location.to_str()) {
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            return Ok(Place::Server(witnessed(url)));
        }
        // The library refuses it without repeating it. A message about a path would show a password.
        Some(url) if url.contains("://") => {
            return Err(Failure::usage(
                "--ledger or BURSAR_LEDGER is a URL that does not begin with postgres:// or postgresql://",
            ));
        }
        _ => location,
    };
    if let Some(path) = location {
        // SQLite takes an empty name for a temporary database.
        if path.as_os_str().is_empty() {
            let message = format!("the path of the ledger is empty; check --ledger and {LEDGER}");
            return Err(Failure::usage(message));
        }
        return Ok(Place::File(path));
    }
    let state = state_directory()
        .ok_or_else(|| Failure::usage("no home directory is set; add --ledger PATH"))?;
    Ok(Place::File(state.join("bursar").join("ledger.db")))
}

/// Adds the option that notes the newest event of the database in the user's state directory, unless the URL has it.
///
/// Each command is a process of its own, so only a file can show that the database lost events since the last one.
fn witnessed(url: &str) -> String {
    if url.contains("bursar_witness=") {
        return url.to_owned();
    }
    let directory = state_directory().map(|state| state.join("bursar"));
    let directory = directory.filter(|directory| create_private(directory).is_ok());
    let file = directory.map(|directory| directory.join(witness_name(url)));
    let Some(file) = file.as_deref().and_then(Path::to_str) else {
        output::note(
            "bursar: there is no state directory, so a database that lost events is not noticed; \
             add bursar_witness=FILE to its URL",
        );
        return url.to_owned();
    };
    let file = file.replace('%', "%25").replace('&', "%26");
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}bursar_witness={file}")
}

/// Returns the name of the file for a database: its host, port and name, without user and password.
fn witness_name(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap_or_default();
    let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
    if !place.contains('@') && options.contains('@') {
        // A question mark in the password, which the driver allows. All parts may be parts of it.
        return "postgres.head".to_owned();
    }
    let place = place.rsplit('@').next().unwrap_or_default();
    let names = ["host=", "hostaddr=", "port=", "dbname="];
    let mut name = format!("postgres-{place}");
    for option in options.split('&') {
        if names.iter().any(|name| option.starts_with(name)) {
            name = format!("{name}-{option}");
        }
    }
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-".contains(letter);
    let name = name.chars().take(200);
    let name: String = name
        .map(|letter| if plain(letter) { letter } else { '_' })
        .collect();
    format!("{name}.head")
}

/// Returns the path of a file in the directory of the default ledger, and creates the directory. `option` sets another path.
#[cfg(feature = "proxy")]
pub(crate) fn state_file(name: &str, option: &str) -> Result<PathBuf, Failure> {
    let state = state_directory()
        .ok_or_else(|| Failure::usage(format!("no home directory is set; add {option} FILE")))?;
    let directory = state.join("bursar");
    create_private(&directory).map_err(|error| {
        Failure::failed(format!(
            "{} cannot be created: {error}",
            directory.display()
        ))
    })?;
    Ok(directory.join(name))
}

/// Returns the directory in which programs keep their state.
fn state_directory() -> Option<PathBuf> {
    let directory = |variable: &str| {
        std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    if cfg!(windows) {
        return directory("LOCALAPPDATA");
    }
    if cfg!(target_os = "macos") {
        return Some(directory("HOME")?.join("Library/Application Support"));
    }
    directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))
}

/// Creates a directory that only its owner can open.
fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

#[cfg(test)]
mod tests {
    use super::witness_name;

    #[test]
    fn the_witness_of_a_database_is_named_without_its_password() {
        for (url, name) in [
            ("postgres://h/db", "postgres-h_db.head"),
            (
                "postgresql://me:s3cret@h.example:5432/db?sslmode=require",
                "postgres-h.example_5432_db.head",
            ),
            (
                "postgresql://me:s3@cret@h/db?password=s3cret",
                "postgres-h_db.head",
            ),
            (
                "postgresql://me:s3cr?et@h/db?sslmode=require",
                "postgres.head",
            ),
            (
                "postgres:///db?host=/run/pg&port=1&user=me",
                "postgres-_db-host__run_pg-port_1.head",
            ),
        ] {
            assert_eq!(witness_name(url), name, "{url}");
        }
    }
}
