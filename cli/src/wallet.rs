//! The key and the ledger.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use bursar::approval::TerminalApprover;
use bursar::payment::PayerBuilder;
use bursar::secrecy::ExposeSecret;
use bursar::{Ledger, LocalSigner, Payer, Policy};

use crate::args::{LedgerArgs, WalletArgs};
use crate::exit::Failure;
use crate::password;
use crate::secrets::{self, KEY, LEDGER};

/// Opens a payer that can sign.
pub(crate) async fn paying(args: &WalletArgs, policy: Policy) -> Result<Payer, Failure> {
    paying_as(args, policy, |payer| {
        if can_ask_person() {
            payer.approver(TerminalApprover::default())
        } else {
            payer
        }
    })
    .await
}

/// Opens a payer that can sign. `customize` can set an approver.
pub(crate) async fn paying_as(
    args: &WalletArgs,
    policy: Policy,
    customize: impl FnOnce(PayerBuilder) -> PayerBuilder,
) -> Result<Payer, Failure> {
    let signer = signer(args)?.ok_or_else(|| {
        Failure::usage(format!(
            "no key is set; set {KEY}, or add --key-fd N or --keystore FILE"
        ))
    })?;
    let mut payer = Payer::builder()
        .signer(signer)
        .policy(policy)
        .ledger(open(&args.ledger)?);
    if let Some(agent) = &args.agent {
        payer = payer.agent(agent);
    }
    Ok(customize(payer).build()?)
}

/// Opens a payer that only evaluates the policy. It uses the address of the key if one is set, and the ledger if it
/// exists. It creates no file.
pub(crate) fn judging(args: &WalletArgs, policy: Policy) -> Result<Payer, Failure> {
    let mut payer = Payer::builder().policy(policy);
    if let Some(signer) = signer(args)? {
        payer = payer.signer(signer);
    }
    if let Some(agent) = &args.agent {
        payer = payer.agent(agent);
    }
    if let Some(ledger) = existing(&args.ledger)? {
        payer = payer.ledger(ledger);
    }
    Ok(payer.build_read_only()?)
}

/// Returns true if a terminal is available to ask a person for an approval.
pub(crate) fn can_ask_person() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn signer(args: &WalletArgs) -> Result<Option<LocalSigner>, Failure> {
    if let Some(file) = &args.keystore {
        // A missing file is told before the password is asked for.
        if let Err(error) = std::fs::File::open(file) {
            let message = format!("--keystore {}: cannot be read: {error}", file.display());
            return Err(Failure::usage(message));
        }
        return Ok(Some(LocalSigner::from_keystore(file, &password::ask()?)?));
    }
    if let Some(fd) = args.key_fd {
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
fn open(args: &LedgerArgs) -> Result<Ledger, Failure> {
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
    Ok(Ledger::open(&path)?)
}

/// Opens the ledger if it exists. In a database, it creates missing tables.
pub(crate) fn existing(args: &LedgerArgs) -> Result<Option<Ledger>, Failure> {
    let path = match place(args)? {
        Place::Server(url) => return Ok(Some(Ledger::open(url)?)),
        Place::File(path) => path,
    };
    let exists = path.try_exists().map_err(|error| {
        Failure::failed(format!(
            "the ledger {} cannot be read: {error}",
            path.display()
        ))
    })?;
    if exists {
        Ok(Some(Ledger::open(&path)?))
    } else {
        Ok(None)
    }
}

/// Opens the ledger to read it. The default ledger that does not exist yet is empty. Another one must exist.
pub(crate) fn readable(args: &LedgerArgs) -> Result<Ledger, Failure> {
    let named = args.ledger.is_some() || ledger_variable().is_some();
    let in_memory = args
        .ledger
        .as_deref()
        .is_some_and(|path| path.as_os_str() == ":memory:");
    if named && !in_memory {
        return required(args);
    }
    Ok(existing(args)?.unwrap_or_else(Ledger::memory))
}

/// Opens the ledger, or fails if it does not exist.
pub(crate) fn required(args: &LedgerArgs) -> Result<Ledger, Failure> {
    match existing(args)? {
        Some(ledger) => Ok(ledger),
        None => Err(Failure::failed(format!(
            "there is no ledger at {}",
            place(args)?
        ))),
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
            Self::File(path) => path.display().fmt(f),
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
            return Ok(Place::Server(url.to_owned()));
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
