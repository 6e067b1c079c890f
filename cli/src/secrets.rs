//! Secrets in the environment, and the protection of this process against other processes of the same user.
//!
//! `/proc/PID/environ` shows the memory that the environment had at the start, so a removed variable stays there. A
//! server that runs for long therefore moves its secrets into a pipe, and executes itself again without them.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use bursar::secrecy::SecretString;
use bursar::secrecy::zeroize::Zeroizing;
use bursar::{Credentials, LocalSigner};

use crate::exit::Failure;

pub(crate) const KEY: &str = "BURSAR_PRIVATE_KEY";
pub(crate) const PASSWORD: &str = "BURSAR_KEYSTORE_PASSWORD";
pub(crate) const LEDGER: &str = "BURSAR_LEDGER";
/// The token that the clients of an MCP server over HTTP need.
#[cfg(any(unix, feature = "mcp-proxy"))]
#[cfg(any(feature = "mcp-serve", feature = "proxy"))]
pub(crate) const MCP_TOKEN: &str = "BURSAR_MCP_TOKEN";
/// The descriptor of the pipe with the secrets, in the environment of the second start.
#[cfg(all(unix, any(feature = "mcp-serve", feature = "proxy")))]
const PIPE: &str = "BURSAR_SECRETS_FD";
/// The largest content of the pipe or of `--key-fd`.
#[cfg(unix)]
const LIMIT: usize = 64 * 1024;

static MOVED: OnceLock<BTreeMap<String, SecretString>> = OnceLock::new();

/// Returns a variable of the environment, also if it was moved out of it.
pub(crate) fn variable(name: &str) -> Option<SecretString> {
    let moved = MOVED.get().and_then(|moved| moved.get(name)).cloned();
    moved.or_else(|| std::env::var(name).ok().map(SecretString::from))
}

/// Gives API keys their variables that were moved out of the environment.
pub(crate) fn supply(keys: Credentials) -> Credentials {
    let Some(moved) = MOVED.get() else {
        return keys;
    };
    keys.environment(|name| moved.get(name).cloned())
}

/// Reads a private key from an inherited file descriptor to its end, and closes the descriptor.
pub(crate) fn key_from(fd: u16) -> Result<LocalSigner, Failure> {
    let text = drain(fd)
        .map_err(|error| Failure::usage(format!("--key-fd {fd}: cannot be read: {error}")))?;
    let text = SecretString::from(text.as_str());
    LocalSigner::from_hex(&text).map_err(|error| Failure::usage(format!("--key-fd {fd}: {error}")))
}

/// Reads a password from an inherited file descriptor to its end, and closes the descriptor. One line break at the end is
/// not part of the password.
pub(crate) fn password_from(fd: u16) -> Result<SecretString, Failure> {
    let text = drain(fd)
        .map_err(|error| Failure::usage(format!("--password-fd {fd}: cannot be read: {error}")))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    Ok(SecretString::from(text))
}

/// Makes the process unreadable for other processes of the same user, and prevents core dumps, as far as the system
/// can do this.
pub(crate) fn protect() {
    #[cfg(unix)]
    {
        use nix::sys::resource::{Resource, setrlimit};

        let limited = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let limited = nix::sys::prctl::set_dumpable(false).and(limited);
        if let Err(error) = limited {
            crate::output::note(format_args!(
                "warning: other processes of this user can read this one, or its core dump: {error}"
            ));
        }
    }
}

/// Takes the secrets out of the environment. If they are in it, this executes the program again and does not return.
/// `others` are variables with secrets, in addition to the ones of the command.
#[cfg(all(unix, any(feature = "mcp-serve", feature = "proxy")))]
pub(crate) fn wipe(others: impl FnOnce() -> Vec<String>) {
    use std::os::unix::process::CommandExt;

    if let Some(fd) = std::env::var(PIPE).ok().and_then(|fd| fd.parse().ok()) {
        match drain(fd) {
            Ok(text) => drop(MOVED.set(unpack(&text))),
            Err(error) => warn(&error),
        }
        return;
    }
    let mut names = [KEY, PASSWORD, MCP_TOKEN].map(ToOwned::to_owned).to_vec();
    // A path is no secret, and can be any bytes.
    if std::env::var(LEDGER).is_ok_and(|ledger| ledger.contains("://")) {
        names.push(LEDGER.to_owned());
    }
    names.extend(others());
    names.retain(|name| std::env::var(name).is_ok());
    if names.is_empty() {
        return;
    }
    let error = match pack(&names) {
        Err(error) => error,
        Ok((program, fd)) => {
            let mut args = std::env::args_os();
            let mut again = std::process::Command::new(program);
            if let Some(name) = args.next() {
                again.arg0(name);
            }
            for name in &names {
                again.env_remove(name);
            }
            let (_fd, number) = fd;
            again.args(args).env(PIPE, number.to_string()).exec()
        }
    };
    warn(&error);
}

/// Writes the variables to a pipe that the next program inherits. Returns the program and the pipe.
#[cfg(all(unix, any(feature = "mcp-serve", feature = "proxy")))]
fn pack(
    names: &[String],
) -> io::Result<(
    std::path::PathBuf,
    (std::os::fd::OwnedFd, std::os::fd::RawFd),
)> {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsRawFd;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    let program = std::env::current_exe()?;
    let mut text = Zeroizing::new(String::with_capacity(LIMIT));
    for name in names {
        let value = Zeroizing::new(std::env::var(name).unwrap_or_default());
        for part in [name, "=", value.as_str(), "\0"] {
            text.push_str(part);
        }
    }
    // `pipe` does not set the flag that closes descriptors on `exec`.
    let (reader, writer) = nix::unistd::pipe()?;
    // If the pipe were full, writing to it would wait for ever.
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    File::from(writer).write_all(text.as_bytes())?;
    let number = reader.as_raw_fd();
    Ok((program, (reader, number)))
}

#[cfg(all(unix, any(feature = "mcp-serve", feature = "proxy")))]
fn unpack(text: &str) -> BTreeMap<String, SecretString> {
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), SecretString::from(value)))
        .collect()
}

#[cfg(all(unix, any(feature = "mcp-serve", feature = "proxy")))]
fn warn(error: &io::Error) {
    crate::output::note(format_args!(
        "warning: the secrets stay in the environment of this process: {error}"
    ));
}

/// Reads an inherited descriptor to its end, and closes it.
#[cfg(unix)]
fn drain(fd: u16) -> io::Result<Zeroizing<String>> {
    use std::fs::File;
    use std::io::Read;

    // Allocate the full capacity at once: growing would leave copies that nothing wipes.
    let mut text = Zeroizing::new(String::with_capacity(LIMIT));
    let file = File::open(format!("/dev/fd/{fd}"))?;
    let mut file = file.take(u64::try_from(LIMIT).unwrap_or_default());
    let read = file.read_to_string(&mut text);
    nix::unistd::close(i32::from(fd))?;
    read?;
    if file.limit() == 0 {
        return Err(io::Error::other("it is 64 KiB or longer"));
    }
    Ok(text)
}

#[cfg(not(unix))]
pub(crate) fn wipe(_: impl FnOnce() -> Vec<String>) {}

#[cfg(not(unix))]
fn drain(_: u16) -> io::Result<Zeroizing<String>> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
