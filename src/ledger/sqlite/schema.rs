//! Opening the file: its permissions, its owner and its tables.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, TransactionBehavior};

use super::failed;
use super::guard::{self, Files, Guard};
use super::migration::migrate;
use super::totals::TABLE as TOTALS;
use super::witness::{self, Note, Watch};
use crate::ledger::sql::query::Part;
use crate::ledger::sql::scope::create_indices;
use crate::ledger::sql::tables::{OLDEST, TABLES, VERSION};
use crate::ledger::{LedgerError, OpenOptions};

/// The time that a call waits for another process that is writing.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);
/// Identifies a SQLite file as a ledger of bursar: `burs` in ASCII.
pub(super) const APPLICATION_ID: i64 = 0x6275_7273;
/// Every scope with every window has a statement of its own.
const STATEMENTS_KEPT: usize = 128;

/// The database itself refuses to delete rows and to change events.
pub(super) const TRIGGERS: &str = "
CREATE TRIGGER keep_purchases BEFORE DELETE ON purchases BEGIN SELECT RAISE(ABORT, 'purchases are never deleted'); END;
CREATE TRIGGER keep_events BEFORE DELETE ON events BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TRIGGER fix_events BEFORE UPDATE ON events BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
";

/// Opens a private database that ends with its connection.
pub(super) fn in_memory() -> Result<Connection, LedgerError> {
    let mut connection = Connection::open_in_memory().map_err(failed)?;
    configure(&connection)?;
    claim(&mut connection, None)?;
    Ok(connection)
}

/// Opens a connection to a ledger of bursar that is complete and can be written. Creates it if `create` says so.
pub(super) fn open(
    files: Files,
    options: &OpenOptions,
) -> Result<(Connection, Watch), LedgerError> {
    files.check_names()?;
    if !options.may_be_shared {
        files.check_file_system()?;
    }
    let create = !options.must_exist;
    check_presence(&files, create)?;
    let mut connection = connect(&files.database)?;
    // A ledger that is refused stays as it is.
    keep_log_on_close(&connection, true)?;
    let note = claim(&mut connection, Some(&files))?;
    keep_log(&connection)?;
    check_length(&connection, &files.database)?;
    keep_log_on_close(&connection, false)?;
    files.check_modes()?;
    // This opens the log, if the step above has just turned it on.
    number(&connection, "PRAGMA schema_version")?;
    let note = match note {
        Claimed::Found(note) => note,
        Claimed::Created(note) => {
            tracing::warn!(target: crate::ledger::NEW_LEDGER, "begins a new ledger at {}", files.database.display());
            note
        }
    };
    let watch = Watch::new(Arc::new(Guard::new(files)?), note)?;
    Ok((connection, watch))
}

/// Opens a connection to a file that exists, without a check of its content.
pub(super) fn connect(path: &Path) -> Result<Connection, LedgerError> {
    // Without CREATE and URI, SQLite opens the file that was just checked, by its literal name.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(failed)?;
    if connection.is_readonly("main").map_err(failed)? {
        return Err(read_only(path));
    }
    connection.busy_timeout(WRITE_TIMEOUT).map_err(failed)?;
    configure(&connection)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> Result<(), LedgerError> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    // A small cache: SQLite reads all of it at the commit of a transaction that split a page. A long
    // log: SQLite writes a page back once, however often it changed.
    connection
        .execute_batch("PRAGMA temp_store = MEMORY; PRAGMA cache_size = -8192; PRAGMA wal_autocheckpoint = 8000;")
        .map_err(failed)?;
    // These come before the first write: without them it is not durable. `fullfsync` is for macOS,
    // where fsync alone does not reach the disk.
    connection
        .execute_batch(
            "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA cell_size_check = ON;",
        )
        .map_err(failed)
}

/// Refuses a ledger that lost its database. Creates an empty file where no ledger was, if `create` says so.
///
/// Another process may be creating the ledger. It writes the log and the note that the ledger has begun after the
/// database, so this function reads them before the database.
fn check_presence(files: &Files, create: bool) -> Result<(), LedgerError> {
    let log = guard::length(&files.log)?.unwrap_or_default();
    let note = Note::read(&files.witness)?;
    if guard::length(&files.database)?.unwrap_or_default() > 0 {
        return touch(&files.database);
    }
    match note {
        Some(note) if note.begun => Err(witness::empty(files, &note)),
        _ if log > 0 => Err(LedgerError::Damaged(format!(
            "{} is empty or missing, but its log {} is not",
            files.database.display(),
            files.log.display()
        ))),
        _ if create => touch(&files.database),
        _ => Err(LedgerError::Missing(files.database.clone())),
    }
}

/// Creates the file if it is missing, readable by its owner only. SQLite gives its log the same mode.
pub(super) fn touch(path: &Path) -> Result<(), LedgerError> {
    // Closing a file drops the locks that this process has on it. A second thread opens it after that.
    static CREATING: Mutex<()> = Mutex::new(());
    let _creating = CREATING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            let file = path.metadata().map_err(LedgerError::store)?;
            // SQLite treats such a file as an empty one, in which a new ledger would begin.
            if file.len() == 1 {
                return Err(LedgerError::Damaged("the file is one byte long".to_owned()));
            }
            // The operating system would let root write.
            if file.permissions().readonly() {
                Err(read_only(path))
            } else {
                Ok(())
            }
        }
        Err(error) => Err(LedgerError::store(format!("{}: {error}", path.display()))),
    }
}

fn read_only(path: &Path) -> LedgerError {
    LedgerError::store(format!("{} is read-only", path.display()))
}

/// Creates the tables in an empty file. Refuses a file of another program before writing to it.
///
/// The write lock comes first: if two processes find an empty file, one waits for the other.
fn claim(connection: &mut Connection, files: Option<&Files>) -> Result<Claimed, LedgerError> {
    let file = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(failed)?;
    let application = number(&file, "PRAGMA application_id")?;
    let version = number(&file, "PRAGMA user_version")?;
    if (application, version) == (APPLICATION_ID, OLDEST) {
        migrate(&file)?;
    }
    let version = number(&file, "PRAGMA user_version")?;
    let claimed = match (application, version) {
        (APPLICATION_ID, VERSION) => {
            check_layout(&file)?;
            Claimed::Found(match files {
                Some(files) => witness::check(&file, files)?,
                None => Note::new(String::new()),
            })
        }
        (APPLICATION_ID, newer) if newer > VERSION => {
            return Err(LedgerError::Newer {
                found: newer,
                known: VERSION,
            });
        }
        (APPLICATION_ID, never) => {
            return Err(LedgerError::Damaged(format!(
                "schema version {never} was never released"
            )));
        }
        (0, 0) if number(&file, "SELECT count(*) FROM sqlite_schema")? == 0 => {
            let note = match files {
                Some(files) => {
                    files.check_modes()?;
                    witness::begin(files)?
                }
                None => Note::new(String::new()),
            };
            create_tables(&file)?;
            witness::ensure_id(&file, note.id.clone())?;
            Claimed::Created(note)
        }
        _ => {
            return Err(LedgerError::Damaged(
                "the file is a database of another program".to_owned(),
            ));
        }
    };
    file.commit().map_err(failed)?;
    Ok(claimed)
}

/// The note of the witness of a ledger that was there, or of a new one.
enum Claimed {
    Found(Note),
    Created(Note),
}

/// Refuses a copy that is not a complete ledger of this version.
pub(super) fn check_copy(copy: &Connection) -> Result<(), LedgerError> {
    let identity = (
        number(copy, "PRAGMA application_id")?,
        number(copy, "PRAGMA user_version")?,
    );
    if identity == (APPLICATION_ID, OLDEST) {
        // It is migrated, and then checked, when it is opened.
        return Ok(());
    }
    if identity != (APPLICATION_ID, VERSION) {
        return Err(LedgerError::Damaged(format!(
            "the file is not a ledger of schema version {VERSION}"
        )));
    }
    check_layout(copy)
}

fn create_tables(file: &Connection) -> Result<(), LedgerError> {
    let identity =
        format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {VERSION};");
    file.execute_batch(&[TABLES, &by_state(), TOTALS, TRIGGERS, &identity].join("\n"))
        .map_err(failed)
}

/// Returns the SQL that creates the indices of purchases by scope, and of those that are under way.
pub(super) fn by_state() -> String {
    // Held and signed purchases are not in the indices of spent amounts. Each of them would be written
    // to every index three times until it is settled.
    let by_scope = create_indices(&format!(" AND {}", Part::Done.condition()));
    let under_way = format!(
        "CREATE INDEX under_way ON purchases (counts_at, lease_until) WHERE {};",
        Part::UnderWay.condition()
    );
    [by_scope, under_way].join("\n")
}

/// The name and the SQL of a table or an index. An index that SQLite made itself has no SQL. Both are
/// bytes, because damaged text may not be UTF-8.
type Object = (Vec<u8>, Vec<u8>);

/// Refuses tables and indices that differ from those of this version. An index with another condition
/// would hide spent amounts. Additional tables and indices are allowed.
fn check_layout(file: &Connection) -> Result<(), LedgerError> {
    static LAYOUT: OnceLock<Vec<Object>> = OnceLock::new();
    let expected = match LAYOUT.get() {
        Some(known) => known,
        None => {
            let empty = Connection::open_in_memory().map_err(failed)?;
            create_tables(&empty)?;
            let created = layout(&empty)?;
            LAYOUT.get_or_init(|| created)
        }
    };
    let found = layout(file)?;
    expected
        .iter()
        .find(|object| !found.contains(object))
        .map_or(Ok(()), |(name, _)| {
            let name = String::from_utf8_lossy(name);
            Err(LedgerError::Damaged(format!(
                "`{name}` is not as schema version {VERSION} has it"
            )))
        })
}

fn layout(file: &Connection) -> Result<Vec<Object>, LedgerError> {
    let sql = "SELECT CAST(coalesce(name, '') AS BLOB), CAST(coalesce(sql, '') AS BLOB) FROM sqlite_schema \
               WHERE type = 'table' OR type = 'index'";
    let mut statement = file.prepare(sql).map_err(failed)?;
    let objects = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .map_err(failed)?;
    objects.collect::<Result<_, _>>().map_err(failed)
}

/// Turns the write-ahead log on, so that readers and the writer do not wait for each other. The file
/// keeps the setting; a database in memory has no log.
///
/// While another process opens the file, SQLite refuses the change at once and ignores the timeout.
pub(super) fn keep_log(connection: &Connection) -> Result<(), LedgerError> {
    let start = Instant::now();
    let mode: String = loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && start.elapsed() < WRITE_TIMEOUT =>
            {
                thread::sleep(PAUSE)
            }
            answer => break answer.map_err(failed)?,
        }
    };
    match mode.as_str() {
        "wal" | "memory" => Ok(()),
        other => Err(LedgerError::store(format!(
            "the file system allows only journal mode `{other}`"
        ))),
    }
}

/// Sets whether closing the last connection leaves the log, and does not write it back.
pub(super) fn keep_log_on_close(connection: &Connection, keep: bool) -> Result<(), LedgerError> {
    let setting = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
    connection
        .set_db_config(setting, keep)
        .map(drop)
        .map_err(failed)
}

/// Refuses a file that ends inside a page. SQLite would read the missing part as zeros, and the sums
/// would be too small. SQLite itself finds missing whole pages.
///
/// A crash while the log was written back also leaves such a file. The log then completes it.
fn check_length(connection: &Connection, path: &Path) -> Result<(), LedgerError> {
    let page =
        u64::try_from(number(connection, "PRAGMA page_size")?).map_err(LedgerError::store)?;
    let is_whole = || {
        path.metadata()
            .map(|file| file.len().is_multiple_of(page))
            .map_err(LedgerError::store)
    };
    let start = Instant::now();
    let mut is_written_back = false;
    while !is_whole()? {
        if is_written_back || start.elapsed() > WRITE_TIMEOUT {
            return Err(LedgerError::Damaged(
                "the file was cut off inside a page".to_owned(),
            ));
        }
        is_written_back = write_back(connection)?;
        if !is_written_back {
            thread::sleep(PAUSE);
        }
    }
    Ok(())
}

/// Writes the log back to the database as far as no other program uses it. Returns whether this was all of it.
pub(super) fn write_back(connection: &Connection) -> Result<bool, LedgerError> {
    let checkpoint = |row: &Row<'_>| Ok([row.get(0)?, row.get(1)?, row.get(2)?]);
    let [others_write, in_log, written]: [i64; 3] = connection
        .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], checkpoint)
        .map_err(failed)?;
    Ok(others_write == 0 && in_log == written)
}

fn number(file: &Connection, sql: &str) -> Result<i64, LedgerError> {
    file.query_row(sql, [], |row| row.get(0)).map_err(failed)
}
