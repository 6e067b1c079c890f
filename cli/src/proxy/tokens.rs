//! The tokens of the programs that may use the proxy. The file has the hash of each token, never the token.
//!
//! A token is 32 random bytes, so one SHA-256 protects it: nobody can guess it, and a slow hash would protect no more.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::args::{ProxyCommand, TokenFile};
use crate::exit::{Exit, Failure};
use crate::{output, wallet};

/// The beginning of every token.
pub(super) const PREFIX: &str = "bursar_";
/// The longest name of a token, in bytes.
const LONGEST_NAME: usize = 32;
/// The largest file of tokens, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// A token in the file.
#[derive(Clone, Debug)]
struct Entry {
    name: String,
    hash: [u8; 32],
    created: String,
}

/// `bursar proxy token`, `bursar proxy tokens` and `bursar proxy revoke`.
pub(super) fn run(command: ProxyCommand) -> Result<Exit, Failure> {
    match command {
        ProxyCommand::Token {
            name,
            replace,
            file,
        } => make(&path(&file)?, &name, replace),
        ProxyCommand::Tokens { file } => list(&path(&file)?),
        ProxyCommand::Revoke { name, file } => revoke(&path(&file)?, &name),
    }
}

/// Returns the path of the file of tokens.
pub(super) fn path(file: &TokenFile) -> Result<PathBuf, Failure> {
    match &file.tokens {
        Some(path) => Ok(path.clone()),
        None => wallet::state_file("proxy-tokens", "--tokens"),
    }
}

fn make(path: &Path, name: &str, replace: bool) -> Result<Exit, Failure> {
    if !is_name(name) {
        return Err(Failure::usage(format!(
            "a name has 1 to {LONGEST_NAME} letters, digits and `-._`, and begins with a letter or a digit"
        )));
    }
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)
        .map_err(|error| Failure::failed(format!("there are no random numbers: {error}")))?;
    let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    change(path, |entries| {
        if entries.iter().any(|entry| entry.name == name) {
            if !replace {
                return Err(Failure::usage(format!(
                    "there is a token `{name}` already; add --replace to end it and make a new one"
                )));
            }
            entries.retain(|entry| entry.name != name);
        }
        entries.push(Entry {
            name: name.to_owned(),
            hash: hash(&token),
            created: format!("{:.0}", jiff::Timestamp::now()),
        });
        Ok(())
    })?;
    output::note(format_args!(
        "bursar: this is the token of `{name}`; it is shown only now. Set it as the API key of the program's SDK."
    ));
    output::finish(output::print(format_args!("{token}\n")), Exit::Done)
}

fn list(path: &Path) -> Result<Exit, Failure> {
    let entries = read(path).map_err(|error| unreadable(path, &error))?;
    let head = ["NAME", "CREATED"].map(ToOwned::to_owned);
    let rows = entries.into_iter().map(|entry| [entry.name, entry.created]);
    let table = crate::ledger::table(head, rows);
    output::finish(output::print(table), Exit::Done)
}

fn revoke(path: &Path, name: &str) -> Result<Exit, Failure> {
    change(path, |entries| {
        let before = entries.len();
        entries.retain(|entry| entry.name != name);
        if entries.len() == before {
            return Err(Failure::usage(format!("there is no token `{name}`")));
        }
        Ok(())
    })?;
    output::note(format_args!("bursar: the token `{name}` ends now"));
    Ok(Exit::Done)
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=LONGEST_NAME).contains(&name.len())
        && name.bytes().all(plain)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

/// Changes the file in one step. Two commands at once change it one after the other.
fn change(
    path: &Path,
    change: impl FnOnce(&mut Vec<Entry>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let failed = |error: io::Error| unreadable(path, &error);
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    let lock = private(&beside(".lock")).map_err(failed)?;
    lock.lock().map_err(failed)?;
    let mut entries = read(path).map_err(failed)?;
    change(&mut entries)?;
    let mut text = "# The tokens of `bursar proxy`: name, hash of the token, time.\n".to_owned();
    for Entry {
        name,
        hash,
        created,
    } in &entries
    {
        let hash = URL_SAFE_NO_PAD.encode(hash);
        text.push_str(&format!("{name} sha256:{hash} {created}\n"));
    }
    let new = beside(".new");
    let mut file = private(&new).map_err(failed)?;
    file.set_len(0)
        .and_then(|()| file.write_all(text.as_bytes()))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&new, path))
        .map_err(failed)
}

/// Opens a file that only its owner can read and write.
fn private(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Reads the file. A file that does not exist has no tokens.
fn read(path: &Path) -> io::Result<Vec<Entry>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        opened => opened?,
    };
    let found = file.metadata()?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;

        let own = nix::unistd::geteuid().as_raw();
        if !is_private(found.mode(), found.uid(), own) {
            return Err(io::Error::other(
                "other users can write it, and add tokens; run chown and chmod 600 on it",
            ));
        }
    }
    if found.len() > LARGEST_FILE {
        return Err(io::Error::other("it is longer than 1 MiB"));
    }
    let text = io::read_to_string(file)?;
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|(index, line)| {
            entry(line).ok_or_else(|| {
                let line = index.saturating_add(1);
                io::Error::other(format!("line {line} is no token"))
            })
        })
        .collect()
}

/// Whether only this user and root can write a file, and let others write it.
#[cfg(unix)]
const fn is_private(mode: u32, owner: u32, own: u32) -> bool {
    mode & 0o022 == 0 && (owner == own || owner == 0)
}

fn entry(line: &str) -> Option<Entry> {
    let mut parts = line.split_whitespace();
    let (name, hash, created) = (parts.next()?, parts.next()?, parts.next()?);
    let hash = URL_SAFE_NO_PAD.decode(hash.strip_prefix("sha256:")?).ok()?;
    (is_name(name) && parts.next().is_none()).then_some(())?;
    Some(Entry {
        name: name.to_owned(),
        hash: hash.try_into().ok()?,
        created: created.to_owned(),
    })
}

/// The content of a file: it changes when the file does.
type Stamp = (Option<SystemTime>, u64, u64, (i64, i64));

/// The tokens that a running proxy takes. It sees a change of the file with the next request.
pub(super) struct Tokens {
    path: PathBuf,
    known: Mutex<Option<(Stamp, Vec<Entry>)>>,
}

impl Tokens {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            known: Mutex::new(None),
        }
    }

    /// Returns the names of the tokens.
    pub(super) fn names(&self) -> io::Result<Vec<String>> {
        self.with(|entries| entries.iter().map(|entry| entry.name.clone()).collect())
    }

    /// Returns the name of a token. The time of the search does not depend on the token.
    pub(super) fn name_of(&self, token: &str) -> io::Result<Option<String>> {
        let hash = hash(token);
        self.with(|entries| {
            let mut found = None;
            for entry in entries {
                if bool::from(entry.hash.ct_eq(&hash)) {
                    found = Some(entry.name.clone());
                }
            }
            found
        })
    }

    fn with<T>(&self, ask: impl FnOnce(&[Entry]) -> T) -> io::Result<T> {
        let stamp = stamp(&self.path)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((old, entries)) = known.as_ref()
            && Some(*old) == stamp
        {
            return Ok(ask(entries));
        }
        *known = None;
        let entries = read(&self.path)?;
        let answer = ask(&entries);
        *known = stamp.map(|stamp| (stamp, entries));
        Ok(answer)
    }
}

/// Returns the stamp of a file, or `None` if it does not exist.
fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    let found = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        found => found?,
    };
    #[cfg(unix)]
    let (inode, changed) = {
        use std::os::unix::fs::MetadataExt;

        // The time of the last change of the file's owner, mode or content. No program can set it.
        (found.ino(), (found.ctime(), found.ctime_nsec()))
    };
    #[cfg(not(unix))]
    let (inode, changed) = (0_u64, (0_i64, 0_i64));
    Ok(Some((found.modified().ok(), found.len(), inode, changed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_file_of_tokens_is_read_as_it_is_written_or_not_at_all() {
        let hash = URL_SAFE_NO_PAD.encode([7; 32]);
        let good = format!("writer sha256:{hash} 2026-11-26T08:00:00Z");
        assert_eq!(entry(&good).unwrap().hash, [7; 32]);
        for bad in [
            "writer",
            "writer sha256: 2026",
            &format!("writer sha1:{hash} 2026"),
            &format!("a/b sha256:{hash} 2026"),
            &format!("writer sha256:{}x 2026", hash.trim_end_matches('=')),
            &format!("{good} more"),
        ] {
            assert!(entry(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_name_of_a_token_is_short_and_plain() {
        for good in ["writer", "a", "team-1.b_c", "7"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", ".a", "a b", "a/b", "ä", "a:b", &"a".repeat(33)] {
            assert!(!is_name(bad), "{bad}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_of_tokens_belongs_to_the_user_of_the_proxy_or_to_root() {
        for (mode, owner, private) in [
            (0o600, 1000, true),
            (0o644, 1000, true),
            (0o440, 0, true),
            (0o620, 1000, false),
            (0o602, 0, false),
            (0o600, 1001, false),
            (0o400, 1001, false),
        ] {
            assert_eq!(is_private(mode, owner, 1000), private, "{mode:o} {owner}");
        }
    }
}
