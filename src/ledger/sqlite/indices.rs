//! The indices of purchases: those that every file has, and those that a file has once a limit used them.
//!
//! Each index costs a page with every purchase, and most policies use few of them. An index is created in the transaction
//! that first needs it, and stays.

use rusqlite::Connection;

use super::failed;
use crate::ledger::LedgerError;
use crate::ledger::sql::query::Part;
use crate::ledger::sql::scope::{BY_SELLER, indices};

/// The indices of all files.
///
/// The condition of `unproven` is wider than the purchases that it is used for, and names no column that an outcome changes, so
/// that an outcome does not write to it.
const ALWAYS: [&str; 4] = [
    "CREATE INDEX held ON purchases (lease_until) WHERE state = 'reserved'",
    "CREATE INDEX by_credential ON purchases (credential, live, reserved_at, seq) WHERE credential IS NOT NULL",
    "CREATE INDEX undelivered ON purchases (fingerprint, expires_at, seq) WHERE state = 'signed' OR state = 'rejected' \
     OR state = 'unresolved' OR (state = 'settled' AND (status IS NULL OR status < 200 OR status >= 400))",
    "CREATE INDEX unproven ON purchases (seq) WHERE proof IS NULL AND live = 1 AND credential IS NULL",
];

/// The indices of limits that are not by scope and `counts_at`.
const OTHERS: [(&str, &str); 4] = [
    (
        "by_reserved_at",
        "CREATE INDEX by_reserved_at ON purchases (reserved_at) WHERE live = 1",
    ),
    (
        "by_expires_at",
        "CREATE INDEX by_expires_at ON purchases (expires_at) \
         WHERE live = 1 AND state <> 'settled' AND state <> 'api_call'",
    ),
    (
        BY_SELLER,
        "CREATE INDEX by_seller ON purchases (origin, network, asset, seq) WHERE live = 1",
    ),
    (
        "by_request",
        "CREATE INDEX by_request ON purchases (fingerprint, reserved_at) WHERE live = 1",
    ),
];

/// Returns the SQL of the indices that every file has.
pub(super) const fn always() -> [&'static str; ALWAYS.len()] {
    ALWAYS
}

/// Returns the name and the SQL of each index that a file has once a limit used it.
pub(super) fn on_demand() -> Vec<(&'static str, String)> {
    // Holds count at the end of time. Without them, a purchase is written to these indices when it is signed.
    let by_scope = indices(&format!(" AND {}", Part::Timed.condition()));
    let others = OTHERS.map(|(name, sql)| (name, sql.to_owned()));
    by_scope.into_iter().chain(others).collect()
}

/// Whether the file has the index.
pub(super) fn exists(database: &Connection, name: &str) -> Result<bool, LedgerError> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'index' AND name = ?";
    let mut statement = database.prepare_cached(sql).map_err(failed)?;
    statement.exists([name]).map_err(failed)
}

/// Creates the index, unless the file has it. The caller has the write lock.
pub(super) fn create(database: &Connection, name: &str) -> Result<(), LedgerError> {
    if exists(database, name)? {
        return Ok(());
    }
    let mut indices = on_demand().into_iter();
    let Some((_, sql)) = indices.find(|(known, _)| *known == name) else {
        return Ok(());
    };
    database.execute_batch(&sql).map_err(failed)
}
