//! The files of a ledger, and the check that an open ledger still has them.
//!
//! SQLite names the log after the path of the database. One file under two names therefore has two logs, and two
//! programs that share no lock. A file that was replaced or unlocked while it is open is another file for the next
//! program.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use super::mounts;
use crate::ledger::LedgerError;

/// The canonical paths of the files of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) database: PathBuf,
    pub(super) log: PathBuf,
    /// The index of the log, in shared memory.
    index: PathBuf,
    pub(super) witness: PathBuf,
}

impl Files {
    /// Returns the files of the ledger at `path`, which may be missing or a symbolic link.
    pub(super) fn at(path: &Path) -> Result<Self, LedgerError> {
        let database = canonical(path)
            .map_err(|error| LedgerError::store(format!("{}: {error}", path.display())))?;
        Ok(Self {
            log: with_suffix(&database, "-wal"),
            index: with_suffix(&database, "-shm"),
            witness: with_suffix(&database, "-head"),
            database,
        })
    }

    /// Returns the files of a ledger whose directory exists.
    pub(super) fn existing(path: &Path) -> Result<Self, LedgerError> {
        match path.parent() {
            Some(parent) if parent != Path::new("") && parent.try_exists().is_ok_and(|is| !is) => {
                Err(LedgerError::Missing(path.to_owned()))
            }
            _ => Self::at(path),
        }
    }

    pub(super) fn all(&self) -> [&Path; 4] {
        [&self.database, &self.log, &self.index, &self.witness]
    }

    /// Refuses files that have a second name: hard links, and mounts of a single file.
    pub(super) fn check_names(&self) -> Result<(), LedgerError> {
        let mounts = mounts::mounts();
        for path in self.all() {
            let Some(seen) = Seen::at(path)? else {
                continue;
            };
            if !seen.is_file {
                return Err(LedgerError::store(format!(
                    "{} is not a file",
                    path.display()
                )));
            }
            seen.check_links(path)?;
            if mounts.iter().any(|mount| mount.point == path) || is_on_another_device(path, &seen) {
                return Err(LedgerError::SecondName {
                    path: path.to_owned(),
                    how: "a mount point",
                });
            }
        }
        Ok(())
    }

    /// Refuses a file system that other machines can write.
    pub(super) fn check_file_system(&self) -> Result<(), LedgerError> {
        let mounts = mounts::mounts();
        match mounts::kind_of(&mounts, &self.database) {
            Some(kind) if mounts::is_shared(kind) => Err(LedgerError::SharedFileSystem {
                path: self.database.clone(),
                kind: kind.to_owned(),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the mark of the database, or `None` where a file has no lasting one.
    pub(super) fn mark(&self) -> Result<Option<Mark>, LedgerError> {
        let mounts = mounts::mounts();
        let is_lasting = mounts::kind_of(&mounts, &self.database).is_none_or(mounts::keeps_numbers);
        if !cfg!(unix) || !is_lasting {
            return Ok(None);
        }
        Ok(Seen::at(&self.database)?.map(|seen| seen.mark))
    }

    /// Refuses files that other users can read or write.
    pub(super) fn check_modes(&self) -> Result<(), LedgerError> {
        for path in self.all() {
            if let Some(seen) = Seen::at(path)?
                && seen.mode & 0o077 != 0
            {
                return Err(LedgerError::Exposed {
                    path: path.to_owned(),
                    mode: seen.mode,
                });
            }
        }
        Ok(())
    }
}

/// Resolves symbolic links, also for a file that is missing. SQLite does the same.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    if !cfg!(unix) {
        return std::path::absolute(path);
    }
    match path.canonicalize() {
        Err(error) if error.kind() == ErrorKind::NotFound && !path.is_symlink() => {
            let name = path.file_name().ok_or(error)?;
            let directory = match path.parent() {
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            Ok(directory.canonicalize()?.join(name))
        }
        found => found,
    }
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns the length of a file, or `None` if it is missing.
pub(super) fn length(path: &Path) -> Result<Option<u64>, LedgerError> {
    Ok(Seen::at(path)?.map(|seen| seen.length))
}

/// Distinguishes a file from its copies: its number in the file system, and the time of its creation. Both stay if the
/// file is renamed, written or mounted elsewhere. The number of the device does not: it can change when the machine starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) number: u64,
    /// In nanoseconds. 0 if the system does not tell it.
    pub(super) created: u64,
}

impl Mark {
    /// The mark of a backup, which no file has.
    pub(super) const BACKUP: Self = Self {
        number: 0,
        created: 0,
    };

    #[cfg(unix)]
    fn of(number: u64, file: &fs::Metadata) -> Self {
        let created = file.created().ok();
        let created = created.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        Self {
            number,
            created: created
                .and_then(|since| u64::try_from(since.as_nanos()).ok())
                .unwrap_or_default(),
        }
    }

    pub(super) fn is_same_file(self, other: Self) -> bool {
        let created_together =
            self.created == other.created || self.created == 0 || other.created == 0;
        self.number == other.number && created_together
    }
}

/// The properties of a file that tell whether it is still the same one.
struct Seen {
    identity: (u64, u64),
    mark: Mark,
    links: u64,
    length: u64,
    modified: Option<SystemTime>,
    mode: u32,
    is_file: bool,
}

impl Seen {
    fn at(path: &Path) -> Result<Option<Self>, LedgerError> {
        match fs::symlink_metadata(path) {
            Ok(file) => Ok(Some(Self::of(&file))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LedgerError::store(format!("{}: {error}", path.display()))),
        }
    }

    #[cfg(unix)]
    fn of(file: &fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;

        Self {
            identity: (file.dev(), file.ino()),
            mark: Mark::of(file.ino(), file),
            links: file.nlink(),
            length: file.len(),
            modified: file.modified().ok(),
            mode: file.mode() & 0o777,
            is_file: file.is_file(),
        }
    }

    #[cfg(not(unix))]
    fn of(file: &fs::Metadata) -> Self {
        Self {
            identity: (0, 0),
            mark: Mark::BACKUP,
            links: 1,
            length: file.len(),
            modified: file.modified().ok(),
            mode: 0o600,
            is_file: file.is_file(),
        }
    }

    fn check_links(&self, path: &Path) -> Result<(), LedgerError> {
        if self.links > 1 {
            return Err(LedgerError::SecondName {
                path: path.to_owned(),
                how: "one of several hard links",
            });
        }
        Ok(())
    }
}

/// Where the mount points cannot be listed, a mounted file is on another device than its directory.
#[cfg(not(target_os = "linux"))]
fn is_on_another_device(path: &Path, seen: &Seen) -> bool {
    let directory = path
        .parent()
        .and_then(|parent| Seen::at(parent).ok().flatten());
    directory.is_some_and(|directory| directory.identity.0 != seen.identity.0)
}

#[cfg(target_os = "linux")]
const fn is_on_another_device(_: &Path, _: &Seen) -> bool {
    false
}

/// The properties of the files that change while the ledger is open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// The length of the log.
    pub(super) log: u64,
    /// The time at which the database was last written.
    pub(super) modified: Option<SystemTime>,
}

/// The files of an open ledger. Three calls of `stat` tell whether they are still the same.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) files: Files,
    identities: [(u64, u64); 3],
    /// The largest length of the database so far. It never shrinks.
    length: AtomicU64,
    /// Why the ledger cannot be used until it is opened again.
    lost: OnceLock<String>,
    #[cfg(test)]
    pub(super) costs: Costs,
}

/// Counts for tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub(super) struct Costs {
    pub(super) transactions: AtomicU64,
    pub(super) syncs: AtomicU64,
    /// Looks at the files, one for each read and two for each transaction.
    pub(super) looks: AtomicU64,
}

#[cfg(test)]
impl Costs {
    pub(super) fn count(&self, sync: super::writer::Sync) {
        self.transactions.fetch_add(1, Ordering::Relaxed);
        let is_synced = u64::from(sync == super::writer::Sync::Now);
        self.syncs.fetch_add(is_synced, Ordering::Relaxed);
    }

    /// Returns transactions, syncs and looks so far.
    pub(super) fn all(&self) -> [u64; 3] {
        [&self.transactions, &self.syncs, &self.looks].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Guard {
    /// Remembers the files. The caller has the database open, so that no other program removes the log.
    pub(super) fn new(files: Files) -> Result<Self, LedgerError> {
        let [database, log, witness] = [&files.database, &files.log, &files.witness]
            .map(|path| Seen::at(path)?.ok_or_else(|| LedgerError::Damaged(gone(path))));
        let (database, log, witness) = (database?, log?, witness?);
        Ok(Self {
            identities: [database.identity, log.identity, witness.identity],
            length: AtomicU64::new(database.length),
            lost: OnceLock::new(),
            #[cfg(test)]
            costs: Costs::default(),
            files,
        })
    }

    /// Looks at the files, and refuses them unless all are still the same.
    pub(super) fn check(&self) -> Result<Look, LedgerError> {
        #[cfg(test)]
        self.costs.looks.fetch_add(1, Ordering::Relaxed);
        if let Some(reason) = self.lost.get() {
            return Err(LedgerError::Damaged(reason.clone()));
        }
        self.look().map_err(|error| self.lose(error))
    }

    /// Refuses every later use if this is damage.
    pub(super) fn lose(&self, error: LedgerError) -> LedgerError {
        if let LedgerError::Damaged(reason) = &error {
            drop(self.lost.set(reason.clone()));
        }
        error
    }

    fn look(&self) -> Result<Look, LedgerError> {
        let Files {
            database,
            log,
            witness,
            ..
        } = &self.files;
        let files = [database, log, witness].into_iter().zip(self.identities);
        let mut seen = files.map(|(path, identity)| {
            let seen = Seen::at(path)?.ok_or_else(|| LedgerError::Damaged(gone(path)))?;
            if seen.identity != identity {
                return Err(LedgerError::Damaged(format!(
                    "{} was replaced while the ledger was open; open it again",
                    path.display()
                )));
            }
            seen.check_links(path)?;
            Ok((seen.length, seen.modified))
        });
        let mut next = || seen.next().unwrap_or(Ok((0, None)));
        let ((length, modified), (log, _), _) = (next()?, next()?, next()?);
        if self.length.fetch_max(length, Ordering::Relaxed) > length {
            return Err(LedgerError::Damaged(format!(
                "{} was cut off while the ledger was open",
                database.display()
            )));
        }
        Ok(Look { log, modified })
    }
}

fn gone(path: &Path) -> String {
    format!(
        "{} was deleted or renamed while the ledger was open; open it again",
        path.display()
    )
}
