//! The newest event that bursar saw in the database, which the database must contain before the next write.
//!
//! A database that does not contain it has lost committed events: an older backup was restored, a failover lost
//! commits, or the URL leads to another database. Limits would then count too little. The chain of hashes identifies
//! the ledger, so number and hash of one event are enough.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use alloy::primitives::B256;
use percent_encoding::percent_decode_str;
use tokio::time::{Instant, sleep};

use crate::ledger::LedgerError;
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::row::Stored;

/// The option of a connection string that names the file.
const OPTION: &str = "bursar_witness";
/// The begin of the line in the file. The number of the event and its hash follow.
const MARK: &str = "bursar-ledger-head-1";
/// The length of the line. It is overwritten in place, and never grows.
const LINE: usize = MARK.len() + 1 + 20 + 1 + 66 + 1;

/// The newest event that bursar saw: in memory, and in a file that outlives the process.
pub(super) struct Witness {
    seen: Mutex<Head>,
    file: Option<Shared>,
}

/// The file, which several processes on one machine can share.
struct Shared {
    path: PathBuf,
    /// The file system excludes other processes, and this excludes the tasks of this process.
    file: tokio::sync::Mutex<File>,
}

impl Witness {
    /// Opens the file, or begins it if it is missing.
    pub(super) fn open(path: Option<PathBuf>) -> Result<Self, LedgerError> {
        let file = path.map(Shared::open).transpose()?;
        Ok(Self {
            seen: Mutex::new(Head::EMPTY),
            file,
        })
    }

    /// Returns the event that the database must contain: the newest one that any process saw which uses this file.
    pub(super) async fn expected(&self, limit: Duration) -> Result<Head, LedgerError> {
        let seen = self.note(Head::EMPTY);
        match &self.file {
            None => Ok(seen),
            Some(shared) => shared
                .exchange(seen, limit)
                .await
                .map(|newest| self.note(newest)),
        }
    }

    /// Remembers a committed event in memory. Returns the newest one.
    pub(super) fn note(&self, head: Head) -> Head {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if head.events > seen.events {
            *seen = head;
        }
        *seen
    }

    /// Remembers a committed event in memory and in the file. If the file cannot be written, the next write to the
    /// ledger tries again, and fails if it cannot be written then.
    pub(super) async fn committed(&self, head: Head, limit: Duration) {
        self.note(head);
        if let Err(error) = self.expected(limit).await {
            tracing::warn!(%error, "the newest event of the ledger was not noted in the witness file");
        }
    }

    /// Checks the hash that the database has for the expected event.
    ///
    /// # Errors
    /// Returns [`LedgerError::Damaged`] if it has another one or none.
    pub(super) fn check(&self, expected: Head, found: Option<B256>) -> Result<(), LedgerError> {
        if expected == Head::EMPTY || found == Some(expected.hash) {
            return Ok(());
        }
        Err(self.lost(expected))
    }

    /// Returns the error for a database that does not contain this event.
    pub(super) fn lost(&self, expected: Head) -> LedgerError {
        let accept = self.file.as_ref().map_or_else(
            || "to accept this database as it is, start the program again".to_owned(),
            |shared| {
                format!(
                    "to accept this database as it is, stop all programs that use it and delete {}",
                    shared.path.display()
                )
            },
        );
        LedgerError::Damaged(format!(
            "the database does not contain event {} ({:#x}), which was committed: an older backup was restored, a \
             failover lost commits, or this is another database; {accept}",
            expected.events, expected.hash
        ))
    }
}

impl Shared {
    fn open(path: PathBuf) -> Result<Self, LedgerError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options
            .open(&path)
            .map_err(|error| unusable(&path, &error))?;
        Ok(Self {
            path,
            file: tokio::sync::Mutex::new(file),
        })
    }

    /// Returns the newer one of `seen` and the event in the file, and leaves it in the file.
    ///
    /// The file is not synced with each event: after a power cut it can be older, and is never newer than the database.
    async fn exchange(&self, seen: Head, limit: Duration) -> Result<Head, LedgerError> {
        let mut file = self.file.lock().await;
        // Another process holds the lock for microseconds, unless it was stopped.
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if start.elapsed() < limit => {
                    sleep(Duration::from_millis(1)).await;
                }
                Err(error) => return Err(unusable(&self.path, &error.into())),
            }
        }
        let newest = self.locked(&mut file, seen);
        let unlocked = file.unlock();
        let newest = newest?;
        unlocked.map_err(|error| unusable(&self.path, &error))?;
        Ok(newest)
    }

    fn locked(&self, file: &mut File, seen: Head) -> Result<Head, LedgerError> {
        let failed = |error: io::Error| unusable(&self.path, &error);
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        // One byte more than a line shows a file that is not a witness.
        let most = LINE.saturating_add(1) as u64;
        Read::take(&*file, most)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let noted = match parse(&text) {
            Some(head) => head,
            None if text.is_empty() => Head::EMPTY,
            None => {
                return Err(LedgerError::Damaged(format!(
                    "{} is not a witness of bursar",
                    self.path.display()
                )));
            }
        };
        if !text.is_empty() && noted.events >= seen.events {
            return Ok(noted);
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(line(seen).as_bytes()).map_err(failed)?;
        if text.is_empty() {
            file.sync_all().map_err(failed)?;
        }
        Ok(seen)
    }
}

fn unusable(path: &Path, error: &io::Error) -> LedgerError {
    LedgerError::store(format!(
        "the witness file {} cannot be used: {error}",
        path.display()
    ))
}

fn line(head: Head) -> String {
    format!("{MARK} {:020} {:#x}\n", head.events, head.hash)
}

fn parse(text: &str) -> Option<Head> {
    let (events, hash) = text
        .strip_prefix(MARK)?
        .strip_prefix(' ')?
        .strip_suffix('\n')?
        .split_once(' ')?;
    let head = Head {
        events: events.parse().ok()?,
        hash: B256::read(hash)?,
    };
    (line(head) == text).then_some(head)
}

/// Takes the option [`OPTION`] out of a connection string, which the server does not know. Returns the rest and the file.
pub(super) fn split(url: &str) -> (String, Option<PathBuf>) {
    let (before, separator, options) = match url.split_once('?') {
        Some((before, options)) if url.contains("://") => (before, '&', options),
        _ if url.contains("://") => return (url.to_owned(), None),
        _ => ("", ' ', url),
    };
    let mut path = None;
    let mut rest = Vec::new();
    for option in options.split(separator) {
        match option.split_once('=') {
            Some((OPTION, value)) if separator == '&' => {
                path = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
            }
            Some((OPTION, value)) => path = Some(value.to_owned()),
            _ => rest.push(option),
        }
    }
    let rest = rest.join(separator.encode_utf8(&mut [0; 4]));
    let url = match separator {
        '&' if rest.is_empty() => before.to_owned(),
        '&' => format!("{before}?{rest}"),
        _ => rest,
    };
    (url, path.filter(|path| !path.is_empty()).map(PathBuf::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_witness_file_is_named_in_either_form_of_a_connection_string() {
        for (url, rest, path) in [
            ("postgresql://h/db", "postgresql://h/db", None),
            (
                "postgresql://h/db?sslmode=require&bursar_witness=/a%20b&port=1",
                "postgresql://h/db?sslmode=require&port=1",
                Some("/a b"),
            ),
            (
                "postgresql://h/db?bursar_witness=",
                "postgresql://h/db",
                None,
            ),
            (
                "postgres://a,b/db?bursar_witness=head",
                "postgres://a,b/db",
                Some("head"),
            ),
            (
                "host=/run dbname=db options='-c a -c b' bursar_witness=/h user=u",
                "host=/run dbname=db options='-c a -c b' user=u",
                Some("/h"),
            ),
        ] {
            assert_eq!(split(url), (rest.to_owned(), path.map(PathBuf::from)));
        }
    }

    #[test]
    fn a_line_of_a_witness_has_one_length_and_one_reading() {
        for events in [0, 1, u64::MAX] {
            let head = Head {
                events,
                hash: B256::repeat_byte(7),
            };
            let text = line(head);
            assert_eq!((text.len(), parse(&text)), (LINE, Some(head)));
            for damaged in [
                text.replace("07", "7"),
                text.to_uppercase(),
                format!("{text}\n"),
                text.trim_end().to_owned(),
            ] {
                assert_eq!(parse(&damaged), None, "{damaged}");
            }
        }
    }
}
