//! The witness: a small file next to the database, with the number and the hash of its newest event.
//!
//! bursar overwrites the line after each commit that reached the disk, without a sync of its own. A crash therefore
//! leaves a witness that is equal to the database or behind it, and never ahead. A database that lacks the event of
//! its witness has lost its end: its log was deleted or cut, or it is an older copy.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::Path;
use std::sync::Arc;
#[cfg(test)]
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use alloy::primitives::B256;
use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

use super::failed;
use super::file;
use super::guard::{Files, Guard, Look, Mark, with_suffix};
use super::writer::Sync;
use crate::ledger::LedgerError;
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::query::Query;
use crate::ledger::sql::row::Stored;

/// How often a line is read again that another process is writing.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(1);
/// More than the length of a line.
const LONGEST: u64 = 512;
/// The random name of a ledger, in the database and in its witness.
const IDENTITY: &str = "CREATE TABLE IF NOT EXISTS identity (id TEXT NOT NULL) STRICT";

/// The line of a witness.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) id: String,
    /// Whether the tables of the ledger are on disk. Until then, the database may be missing.
    pub(super) begun: bool,
    pub(super) head: Head,
    /// The number of purchases.
    pub(super) purchases: u64,
    /// The file that the witness belongs to. A copy of both is another file. `None` if the file system has no marks.
    pub(super) mark: Option<Mark>,
}

impl Note {
    pub(super) fn new(id: String) -> Self {
        Self {
            id,
            begun: false,
            head: Head::EMPTY,
            purchases: 0,
            mark: None,
        }
    }

    /// Returns the note of a database that has this id: its newest event and the number of its purchases.
    pub(super) fn of(
        database: &Connection,
        id: String,
        mark: Option<Mark>,
    ) -> Result<Self, LedgerError> {
        Ok(Self {
            id,
            mark,
            begun: true,
            head: file::head(database)?,
            purchases: file::last_seq(database)?,
        })
    }

    /// Reads the witness at `path`. Returns `None` if it is missing.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, LedgerError> {
        match File::open(path) {
            Ok(mut file) => Self::read_from(&mut file, path).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LedgerError::store(format!("{}: {error}", path.display()))),
        }
    }

    fn read_from(file: &mut File, path: &Path) -> Result<Self, LedgerError> {
        for _ in 0..TRIES {
            let mut text = String::new();
            file.rewind().map_err(LedgerError::store)?;
            let read = file.take(LONGEST).read_to_string(&mut text);
            if read.is_ok()
                && let Some(note) = Self::parse(&text)
            {
                return Ok(note);
            }
            thread::sleep(PAUSE);
        }
        Err(LedgerError::Damaged(format!(
            "{} is not as bursar wrote it; {ACCEPT}",
            path.display()
        )))
    }

    fn line(&self) -> String {
        let begun = if self.begun { "begun" } else { "empty" };
        let Head { events, hash } = self.head;
        let mark = self
            .mark
            .map_or_else(String::new, |Mark { number, created }| {
                format!(" {number}:{created}")
            });
        let text = format!(
            "bursar-head 1 {} {begun} {events:020} {hash:#x} {:020}{mark}",
            self.id, self.purchases
        );
        let check = B256::new(Sha256::digest(&text).into());
        let check = check.to_string();
        format!("{text} {}\n", check.get(2..18).unwrap_or_default())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ').skip(2);
        let mut next = || words.next();
        let note = Self {
            id: next()?.to_owned(),
            begun: next()? == "begun",
            head: Head {
                events: next()?.parse().ok()?,
                hash: B256::read(next()?)?,
            },
            purchases: next()?.parse().ok()?,
            mark: next().and_then(|word| {
                let (number, created) = word.split_once(':')?;
                Some(Mark {
                    number: number.parse().ok()?,
                    created: created.parse().ok()?,
                })
            }),
        };
        (note.line() == text).then_some(note)
    }

    /// Writes a new witness to `path`, in one step and durably.
    pub(super) fn create(&self, path: &Path) -> Result<(), LedgerError> {
        let unfinished = with_suffix(path, ".new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let create = || {
            let mut file = options.open(&unfinished)?;
            file.write_all(self.line().as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            sync_directory(path)
        };
        create().map_err(|error| LedgerError::store(format!("{}: {error}", path.display())))
    }
}

/// Reaches the disk with the names of the files in the directory of `path`.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) if cfg!(unix) => File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

const ACCEPT: &str = "put the newest files back together, or accept this copy on purpose with `Ledger::restore` or \
    `bursar ledger restore`";

/// Returns the note for a database that is about to get its tables. The caller has the write lock.
pub(super) fn begin(files: &Files) -> Result<Note, LedgerError> {
    let mark = files.mark()?;
    let id = match Note::read(&files.witness)? {
        Some(note) if note.begun => return Err(empty(files, &note)),
        // A program ended before it had created the tables.
        Some(note) if note.mark == mark => return Ok(note),
        Some(note) => note.id,
        None => crate::ledger::random_hex().map_err(LedgerError::store)?,
    };
    let note = Note {
        mark,
        ..Note::new(id)
    };
    note.create(&files.witness)?;
    Ok(note)
}

/// Names a database that is empty or missing, though its witness knows of a ledger.
pub(super) fn empty(files: &Files, note: &Note) -> LedgerError {
    LedgerError::Damaged(format!(
        "{} is empty or missing, but its witness {} has seen {} events and {} purchases; {ACCEPT}",
        files.database.display(),
        files.witness.display(),
        note.head.events,
        note.purchases
    ))
}

/// Returns the note of a ledger that has its tables. Refuses a database that is not that of its witness, or older.
pub(super) fn check(database: &Connection, files: &Files) -> Result<Note, LedgerError> {
    let Some(note) = Note::read(&files.witness)? else {
        return Err(LedgerError::Damaged(format!(
            "the witness {} is missing: this may be a copy that lacks purchases; {ACCEPT}",
            files.witness.display()
        )));
    };
    if id(database)?.as_ref() != Some(&note.id) {
        return Err(LedgerError::Damaged(format!(
            "the witness {} belongs to another ledger; {ACCEPT}",
            files.witness.display()
        )));
    }
    contains(database, &note, files)?;
    Ok(note)
}

/// Refuses a database without the event of its witness.
fn contains(database: &Connection, note: &Note, files: &Files) -> Result<(), LedgerError> {
    let Head { events, .. } = note.head;
    if events == 0 || event(database, events)? == Some(note.head) {
        return Ok(());
    }
    let found = file::head(database)?.events;
    Err(LedgerError::Damaged(format!(
        "{} has {found} events, but lacks event {events}, which its witness has seen: it is an older copy, or its log \
         {} was lost or cut; {ACCEPT}",
        files.database.display(),
        files.log.display()
    )))
}

/// Returns the place of the event with this number in the chain of hashes.
pub(super) fn event(database: &Connection, number: u64) -> Result<Option<Head>, LedgerError> {
    let query = Query {
        sql: "SELECT seq, hash FROM events WHERE seq = ?".into(),
        values: vec![crate::ledger::sql::row::integer(number, "seq")?.into()],
    };
    file::first(database, query, |line| Head::read(line))
}

/// Returns the random name of the ledger, if it has one.
fn id(database: &Connection) -> Result<Option<String>, LedgerError> {
    let table = "SELECT count(*) FROM sqlite_schema WHERE name = 'identity'";
    let tables: i64 = database
        .query_row(table, [], |row| row.get(0))
        .map_err(failed)?;
    if tables == 0 {
        return Ok(None);
    }
    let id = database.query_row("SELECT id FROM identity", [], |row| row.get(0));
    id.optional().map_err(failed)
}

/// Returns the random name of the ledger, and gives it `new` if it has none.
pub(super) fn ensure_id(database: &Connection, new: String) -> Result<String, LedgerError> {
    if let Some(id) = id(database)? {
        return Ok(id);
    }
    database.execute_batch(IDENTITY).map_err(failed)?;
    let insert = database.execute("INSERT INTO identity (id) VALUES (?)", [&new]);
    insert.map_err(failed)?;
    Ok(new)
}

/// The guard and the witness of a ledger, as its thread uses them.
#[derive(Debug)]
pub(super) struct Watch {
    guard: Arc<Guard>,
    file: File,
    /// The log of SQLite, to have it reach the disk between two transactions. SQLite has no locks on this file.
    log: File,
    noted: Note,
    /// The files after the last commit.
    last: Look,
    /// The files before this transaction.
    seen: Look,
    /// A head that could not be written.
    behind: Option<(Head, u64)>,
    /// Whether the database and its witness are a backup, or were copied together. They can be read.
    is_copy: bool,
}

impl Watch {
    /// Opens the witness of a ledger whose tables are on disk.
    pub(super) fn new(guard: Arc<Guard>, mut noted: Note) -> Result<Self, LedgerError> {
        let path = &guard.files.witness;
        let mut open = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).write(true).open(path)?;
            if !noted.begun {
                noted.begun = true;
                file.write_all(noted.line().as_bytes())?;
                file.sync_all()?;
            }
            Ok(file)
        };
        let file =
            open().map_err(|error| LedgerError::store(format!("{}: {error}", path.display())))?;
        let path = &guard.files.log;
        let log = OpenOptions::new().write(true).open(path);
        let log =
            log.map_err(|error| LedgerError::store(format!("{}: {error}", path.display())))?;
        let is_copy = match (noted.mark, guard.files.mark()?) {
            (Some(noted), Some(found)) => !noted.is_same_file(found),
            (Some(_), None) => true,
            (None, _) => false,
        };
        Ok(Self {
            file,
            log,
            noted,
            is_copy,
            last: Look::default(),
            seen: Look::default(),
            behind: None,
            guard,
        })
    }

    pub(super) fn guard(&self) -> Arc<Guard> {
        Arc::clone(&self.guard)
    }

    /// Waits until the log is on disk.
    pub(super) fn sync_log(&self) -> Result<(), LedgerError> {
        #[cfg(test)]
        self.guard.costs.syncs.fetch_add(1, Ordering::Relaxed);
        self.log.sync_data().map_err(LedgerError::store)
    }

    pub(super) fn is_intact(&self) -> bool {
        self.guard.check().is_ok()
    }

    /// Checks the files before a transaction. Returns whether the database was written since the last commit, by a
    /// checkpoint or by a program that is not SQLite. SQLite then has to read it again: it notices only its own writes.
    pub(super) fn look(&mut self, database: &Connection) -> Result<bool, LedgerError> {
        self.seen = self.guard.check()?;
        let is_written = self.seen.modified != self.last.modified;
        if is_written {
            database.release_memory().map_err(failed)?;
        }
        Ok(is_written)
    }

    /// Checks the database under the write lock, before a change. `others_wrote` says whether another program may have
    /// changed it since the last commit.
    pub(super) fn before(
        &mut self,
        database: &Connection,
        others_wrote: bool,
    ) -> Result<(), LedgerError> {
        let files = &self.guard.files;
        if self.is_copy {
            return Err(LedgerError::Copied {
                path: files.database.clone(),
            });
        }
        if others_wrote {
            let known = Note::read_from(&mut self.file, &files.witness)
                .and_then(|note| contains(database, &note, files))
                .and_then(|()| contains(database, &self.noted, files));
            known.map_err(|error| self.guard.lose(error))?;
        } else if self.seen.log < self.last.log {
            return Err(self.guard.lose(LedgerError::Damaged(format!(
                "the log {} was cut off while the ledger was open",
                files.log.display()
            ))));
        }
        match self.behind {
            Some((head, purchases)) => self.note(head, purchases).map_err(LedgerError::store),
            None => Ok(()),
        }
    }

    /// Checks the files again after a commit, and notes the head if it is on disk.
    pub(super) fn after(
        &mut self,
        sync: Sync,
        head: Option<(Head, u64)>,
    ) -> Result<(), LedgerError> {
        self.last = self.guard.check()?;
        #[cfg(test)]
        self.guard.costs.count(sync);
        if sync == Sync::Now
            && let Some((head, purchases)) = head
            && self.note(head, purchases).is_err()
        {
            // The change itself is on disk. The next one fails if the witness still cannot be written.
            self.behind = Some((head, purchases));
        }
        Ok(())
    }

    fn note(&mut self, head: Head, purchases: u64) -> io::Result<()> {
        let is_newer = head.events > self.noted.head.events;
        if is_newer && !self.is_noted_by_another(head)? {
            let note = Note {
                head,
                purchases,
                ..self.noted.clone()
            };
            self.file.rewind()?;
            self.file.write_all(note.line().as_bytes())?;
            self.noted = note;
        }
        self.behind = None;
        Ok(())
    }

    fn is_noted_by_another(&mut self, head: Head) -> io::Result<bool> {
        let mut text = String::new();
        self.file.rewind()?;
        let read = (&mut self.file).take(LONGEST).read_to_string(&mut text);
        Ok(read.is_ok() && Note::parse(&text).is_some_and(|note| note.head.events > head.events))
    }

    /// Notes a head that a checkpoint has brought to the disk, and waits until the witness is there too.
    pub(super) fn close(&mut self, head: Head, purchases: u64) -> io::Result<()> {
        self.note(head, purchases)?;
        self.file.sync_data()
    }
}
