//! The key, and the file of the books.

use std::fmt;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use bursar::{
    Address, KeyError, LocalSigner, MemoryLedger, Payer, PayerBuilder, Policy, SignerError,
    SqliteLedger, TerminalApprover, signer_fn,
};

use crate::args::{LedgerArgs, WalletArgs};
use crate::exit::Failure;
use crate::password;
use crate::store::Store;

const KEY: &str = "BURSAR_PRIVATE_KEY";
const LEDGER: &str = "BURSAR_LEDGER";

/// A wallet that pays, and its books.
pub(crate) async fn paying(args: &WalletArgs, policy: Policy) -> Result<(Payer, Store), Failure> {
    paying_as(args, policy, |payer| {
        if someone_to_ask() {
            payer.approver(TerminalApprover::default())
        } else {
            payer
        }
    })
    .await
}

/// The same, with an approver and a name of the caller's choice.
pub(crate) async fn paying_as(
    args: &WalletArgs,
    policy: Policy,
    dress: impl FnOnce(PayerBuilder) -> PayerBuilder,
) -> Result<(Payer, Store), Failure> {
    let signer = signer(args)?.ok_or_else(|| {
        Failure::usage(format!(
            "there is no key to pay with; set {KEY} or give --keystore FILE"
        ))
    })?;
    let ledger = open(&args.ledger).await?;
    let mut payer = Payer::builder()
        .signer(signer)
        .policy(policy)
        .ledger(ledger.clone());
    if let Some(agent) = &args.agent {
        payer = payer.agent(agent);
    }
    let payer = dress(payer);
    Ok((payer.build()?, ledger))
}

/// A wallet that only judges: of the key's address if there is a key, and with the books as they
/// are if there are any. It creates no file.
pub(crate) async fn judging(args: &WalletArgs, policy: Policy) -> Result<Payer, Failure> {
    let payer = match signer(args)? {
        Some(signer) => Payer::builder().signer(signer),
        None => Payer::builder().signer(signer_fn(Address::ZERO, |_| async {
            Err(SignerError::rejected("no key"))
        })),
    };
    let payer = match &args.agent {
        Some(agent) => payer.agent(agent),
        None => payer,
    };
    reading(payer, policy, existing(&args.ledger).await?)
}

/// A wallet without a key, to ask about limits.
pub(crate) fn keyless(policy: Policy, ledger: Option<Store>) -> Result<Payer, Failure> {
    let payer = Payer::builder().signer(signer_fn(Address::ZERO, |_| async {
        Err(SignerError::rejected("no key"))
    }));
    reading(payer, policy, ledger)
}

fn reading(payer: PayerBuilder, policy: Policy, ledger: Option<Store>) -> Result<Payer, Failure> {
    let payer = payer.policy(policy);
    let payer = match ledger {
        Some(ledger) => payer.ledger(ledger),
        None => payer.ledger(MemoryLedger::new()),
    };
    Ok(payer.build()?)
}

/// Whether a person can be asked to approve.
pub(crate) fn someone_to_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

fn signer(args: &WalletArgs) -> Result<Option<LocalSigner>, Failure> {
    if let Some(file) = &args.keystore {
        return Ok(Some(LocalSigner::from_keystore(file, &password::ask()?)?));
    }
    match LocalSigner::from_env(KEY) {
        Ok(signer) => Ok(Some(signer)),
        Err(KeyError::NotSet(_)) => Ok(None),
        Err(error) => Err(Failure::usage(format!("{KEY}: {error}"))),
    }
}

/// The books, new ones if there are none.
async fn open(args: &LedgerArgs) -> Result<Store, Failure> {
    let path = match place(args)? {
        Place::Server(url) => return connect(&url).await,
        Place::File(path) => path,
    };
    if args.ledger.is_none()
        && let Some(directory) = path.parent()
    {
        create_private(directory).map_err(|error| {
            Failure::failed(format!(
                "the directory of the ledger, {}, cannot be made: {error}",
                directory.display()
            ))
        })?;
    }
    Ok(Store::Sqlite(SqliteLedger::open(&path)?))
}

/// The books, if there are any. A server's are laid out if need be.
pub(crate) async fn existing(args: &LedgerArgs) -> Result<Option<Store>, Failure> {
    let path = match place(args)? {
        Place::Server(url) => return connect(&url).await.map(Some),
        Place::File(path) => path,
    };
    let exists = path.try_exists().map_err(|error| {
        Failure::failed(format!(
            "the ledger {} cannot be reached: {error}",
            path.display()
        ))
    })?;
    if exists {
        Ok(Some(Store::Sqlite(SqliteLedger::open(&path)?)))
    } else {
        Ok(None)
    }
}

/// The books; an error if there are none.
pub(crate) async fn kept(args: &LedgerArgs) -> Result<Store, Failure> {
    match existing(args).await? {
        Some(ledger) => Ok(ledger),
        None => Err(Failure::failed(format!(
            "there is no ledger at {}",
            place(args)?
        ))),
    }
}

#[cfg(feature = "postgres")]
async fn connect(url: &str) -> Result<Store, Failure> {
    Ok(Store::Postgres(bursar::PostgresLedger::connect(url).await?))
}

#[cfg(not(feature = "postgres"))]
async fn connect(_: &str) -> Result<Store, Failure> {
    Err(Failure::usage(
        "this bursar was built without the feature `postgres`",
    ))
}

/// Where the books are.
enum Place {
    File(PathBuf),
    /// With its password.
    Server(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(_) => f.write_str("the PostgreSQL server"),
        }
    }
}

fn place(args: &LedgerArgs) -> Result<Place, Failure> {
    let said = args
        .ledger
        .clone()
        .or_else(|| std::env::var_os(LEDGER).map(PathBuf::from));
    let said = match said.as_ref().and_then(|said| said.to_str()) {
        Some(url) if url.starts_with("postgres://") || url.starts_with("postgresql://") => {
            return Ok(Place::Server(url.to_owned()));
        }
        _ => said,
    };
    if let Some(path) = said {
        return Ok(Place::File(path));
    }
    let state = state_directory()
        .ok_or_else(|| Failure::usage("there is no home directory; say --ledger PATH"))?;
    Ok(Place::File(state.join("bursar").join("ledger.db")))
}

/// Where programs keep what must outlive them.
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

/// A directory that its owner alone can enter.
fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}
