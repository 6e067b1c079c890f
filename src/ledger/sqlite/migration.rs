//! The migration of a file from an earlier schema version.

use rusqlite::Connection;

use super::failed;
use super::schema::{TRIGGERS, VERSION, tables};
use crate::ledger::LedgerError;
use crate::ledger::sql::tables::{NEW_COLUMNS, OLDEST, TABLES};

/// The version with the columns of this one, and more indices.
pub(super) const MORE_INDICES: i64 = 11;
/// The versions that bursar migrates when it opens a file.
pub(super) const FROM: [i64; 2] = [OLDEST, MORE_INDICES];

/// Writes the purchases of an earlier version to a table of this one, in the transaction of the caller.
///
/// SQLite would append new columns to the text of the old table, and the text of each table is compared when a ledger is
/// opened. No row of the events changes: the hash of a purchase leaves new columns out while they are as they are here. A program
/// of the earlier version that still has the file open finds its indices no more, and can write nothing.
pub(super) fn migrate(file: &Connection, from: i64) -> Result<(), LedgerError> {
    let table = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'purchases'";
    let (expected, new) = match from {
        OLDEST => (without_new_columns(), NEW_COLUMNS.as_slice()),
        _ => (table_of(TABLES).to_owned(), [].as_slice()),
    };
    if names(file, table)?.as_slice() != [expected] {
        return Err(LedgerError::Damaged(format!(
            "`purchases` is not as schema version {from} has it"
        )));
    }
    let old = names(file, "SELECT name FROM pragma_table_info('purchases')")?;
    let indices = names(
        file,
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'purchases' AND sql IS NOT NULL",
    )?;
    let drop_indices: String = indices
        .iter()
        .map(|name| format!("DROP INDEX \"{}\";\n", name.replace('"', "\"\"")))
        .collect();
    let tables = tables();
    let create = table_of(&tables);
    let (names, values): (Vec<_>, Vec<_>) = old
        .iter()
        .map(|name| (name.as_str(), name.as_str()))
        .chain(new.iter().copied())
        .unzip();
    let (columns, values) = (names.join(", "), values.join(", "));
    let drop_triggers: String = TRIGGERS
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE TRIGGER "))
        .filter_map(|line| line.split(' ').next())
        .map(|name| format!("DROP TRIGGER IF EXISTS {name};\n"))
        .collect();
    let create_indices: String = tables
        .lines()
        .filter(|line| line.starts_with("CREATE INDEX "))
        .map(|line| format!("{line}\n"))
        .collect();
    file.execute_batch(&format!(
        "{drop_triggers}{drop_indices}
         ALTER TABLE purchases RENAME TO purchases_{from};
         {create};
         INSERT INTO purchases ({columns}) SELECT {values} FROM purchases_{from};
         DROP TABLE purchases_{from};
         {create_indices}
         {TRIGGERS}
         PRAGMA user_version = {VERSION};"
    ))
    .map_err(failed)?;
    tracing::warn!("the ledger was migrated from schema version {from} to {VERSION}");
    Ok(())
}

/// Returns the SQL of the table of purchases: the first statement.
fn table_of(tables: &str) -> &str {
    tables.split(";\n").next().unwrap_or_default().trim()
}

/// Returns the SQL of the table of purchases of version 10.
fn without_new_columns() -> String {
    let (begin, rest) = table_of(TABLES)
        .split_once("    payment_method")
        .unwrap_or_default();
    let (_, end) = rest.split_once("    last_event").unwrap_or_default();
    format!("{begin}    last_event{end}")
}

fn names(file: &Connection, sql: &str) -> Result<Vec<String>, LedgerError> {
    let mut statement = file.prepare(sql).map_err(failed)?;
    let names = statement.query_map([], |row| row.get(0)).map_err(failed)?;
    names.collect::<Result<_, _>>().map_err(failed)
}
