//! The migration of a file from the schema version before this one.

use rusqlite::Connection;

use super::failed;
use super::schema::{TRIGGERS, by_state};
use crate::ledger::LedgerError;
use crate::ledger::sql::tables::{NEW_COLUMNS, OLDEST, TABLES, VERSION};

/// Writes the purchases of version 10 to a table of version 11, in the transaction of the caller.
///
/// SQLite would append new columns to the text of the old table, and the text of each table is compared when a ledger is
/// opened. No row of the events changes: the hash of a purchase leaves new columns out while they are as they are here.
pub(super) fn migrate(file: &Connection) -> Result<(), LedgerError> {
    let table = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = 'purchases'";
    if names(file, table)?.as_slice() != [old_table()] {
        return Err(LedgerError::Damaged(format!(
            "`purchases` is not as schema version {OLDEST} has it"
        )));
    }
    let old = names(file, "SELECT name FROM pragma_table_info('purchases')")?.join(", ");
    let indices = names(
        file,
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'purchases' AND sql IS NOT NULL",
    )?;
    let drop_indices: String = indices
        .iter()
        .map(|name| format!("DROP INDEX \"{}\";\n", name.replace('"', "\"\"")))
        .collect();
    let create: String = TABLES
        .split_inclusive(";\n")
        .filter(|statement| statement.contains(" purchases ("))
        .collect();
    let (new, values): (Vec<_>, Vec<_>) = NEW_COLUMNS.into_iter().unzip();
    let (new, values) = (new.join(", "), values.join(", "));
    let drop_triggers: String = TRIGGERS
        .lines()
        .filter_map(|line| line.strip_prefix("CREATE TRIGGER "))
        .filter_map(|line| line.split(' ').next())
        .map(|name| format!("DROP TRIGGER IF EXISTS {name};\n"))
        .collect();
    let by_state = by_state();
    file.execute_batch(&format!(
        "{drop_triggers}{drop_indices}
         ALTER TABLE purchases RENAME TO purchases_{OLDEST};
         {create}
         INSERT INTO purchases ({old}, {new}) SELECT {old}, {values} FROM purchases_{OLDEST};
         DROP TABLE purchases_{OLDEST};
         {by_state}
         {TRIGGERS}
         PRAGMA user_version = {VERSION};"
    ))
    .map_err(failed)?;
    tracing::warn!("the ledger was migrated from schema version {OLDEST} to {VERSION}");
    Ok(())
}

/// Returns the SQL of the table of purchases of version 10: without the new columns.
fn old_table() -> String {
    let table = TABLES.split(";\n").next().unwrap_or_default().trim();
    let (begin, rest) = table.split_once("    payment_method").unwrap_or_default();
    let (_, end) = rest.split_once("    last_event").unwrap_or_default();
    format!("{begin}    last_event{end}")
}

fn names(file: &Connection, sql: &str) -> Result<Vec<String>, LedgerError> {
    let mut statement = file.prepare(sql).map_err(failed)?;
    let names = statement.query_map([], |row| row.get(0)).map_err(failed)?;
    names.collect::<Result<_, _>>().map_err(failed)
}
