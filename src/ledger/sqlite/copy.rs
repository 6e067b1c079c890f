//! Copies of a ledger: backups that are made while programs pay, and their restoration on purpose.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::guard::{Files, Mark, with_suffix};
use super::witness::{self, Note};
use super::{failed, schema};
use crate::ledger::{LedgerError, Restored};

/// Copies the database of `from` to a new ledger at `to`. One read transaction sees the whole of it.
pub(super) fn backup(from: &Files, to: &Path) -> Result<(), LedgerError> {
    let to = Files::at(to)?;
    copy(&schema::connect(&from.database)?, &to, Purpose::Backup).map(drop)
}

/// The use of a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The copy is read, and nothing is paid from it until it is restored.
    Backup,
    /// The copy is the ledger from now on.
    Ledger,
}

/// Copies to files that do not exist yet. The witness comes last: without it, the copy is not complete.
fn copy(from: &Connection, to: &Files, purpose: Purpose) -> Result<Note, LedgerError> {
    if let Some(path) = to.all().into_iter().find(|path| path.exists()) {
        return Err(LedgerError::store(format!("{} exists", path.display())));
    }
    let name = to
        .database
        .to_str()
        .ok_or_else(|| LedgerError::store(format!("{} is not UTF-8", to.database.display())))?;
    schema::touch(&to.database)?;
    let copied = from
        .execute("VACUUM INTO ?", [name])
        .map_err(failed)
        .and_then(|_| seal(to, purpose));
    if copied.is_err() {
        // It is an incomplete copy. Its absence is no loss.
        drop(fs::remove_file(&to.database));
    }
    copied
}

/// Writes the witness of a database that lacks one, or has one that is wrong.
fn seal(files: &Files, purpose: Purpose) -> Result<Note, LedgerError> {
    let database = schema::connect(&files.database)?;
    let id = crate::ledger::random_hex().map_err(LedgerError::store)?;
    let id = witness::ensure_id(&database, id)?;
    let mark = match purpose {
        Purpose::Backup => Some(Mark::BACKUP),
        Purpose::Ledger => files.mark()?,
    };
    let note = Note::of(&database, id, mark)?;
    schema::write_back(&database)?;
    drop(database);
    let sync = fs::File::open(&files.database).and_then(|file| file.sync_all());
    sync.map_err(LedgerError::store)?;
    note.create(&files.witness)?;
    Ok(note)
}

pub(super) fn restore(copy_path: &Path, to: &Path) -> Result<Restored, LedgerError> {
    let (from, to) = (Files::at(copy_path)?, Files::at(to)?);
    from.check_names()?;
    if !from.database.is_file() {
        return Err(LedgerError::Missing(from.database));
    }
    let lost = [&from, &to]
        .into_iter()
        .filter_map(|files| Note::read(&files.witness).ok().flatten())
        .max_by_key(|note| note.head.events);
    let database = schema::connect(&from.database)?;
    schema::check_copy(&database)?;
    let note = if from == to {
        from.check_modes()?;
        schema::keep_log(&database)?;
        schema::write_back(&database)?;
        drop(database);
        seal(&to, Purpose::Ledger)?
    } else {
        set_aside(&to)?;
        copy(&database, &to, Purpose::Ledger)?
    };
    Ok(Restored {
        purchases: note.purchases,
        events: note.head.events,
        lost_purchases: lost
            .as_ref()
            .map(|lost| lost.purchases.saturating_sub(note.purchases)),
        lost_events: lost.map(|lost| lost.head.events.saturating_sub(note.head.events)),
    })
}

/// Renames the files of the ledger that is replaced.
fn set_aside(files: &Files) -> Result<(), LedgerError> {
    let moves: Vec<_> = files
        .all()
        .into_iter()
        .filter(|path| path.exists())
        .map(|path| (path, with_suffix(path, ".replaced")))
        .collect();
    if let Some((_, path)) = moves.iter().find(|(_, path)| path.exists()) {
        return Err(LedgerError::store(format!(
            "{} exists; move it away first",
            path.display()
        )));
    }
    // The database goes first: programs that have it open then stop.
    for (from, to) in moves {
        fs::rename(from, to).map_err(LedgerError::store)?;
    }
    Ok(())
}
