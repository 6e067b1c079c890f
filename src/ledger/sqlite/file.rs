//! Reading and writing the tables inside a transaction.

use std::cell::RefCell;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::known::Known;
use super::{failed, indices, totals};
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::query::{self, Query};
use crate::ledger::sql::row::Columns;
use crate::ledger::sql::{Cell, Row, Value, row};
use crate::ledger::{LedgerError, Purchase, PurchaseKey};

/// The file under the write lock, with the cached part of its content.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) database: &'a Connection,
    pub(super) known: &'a RefCell<Known>,
}

impl File<'_> {
    pub(super) fn find(self, key: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        let known = self.known.borrow().purchase(key).cloned();
        debug_assert!(
            known
                .as_ref()
                .is_none_or(|known| is_stored(self.database, known)),
            "the file has the known purchase"
        );
        known.map_or_else(|| find(self.database, key), |known| Ok(Some(known)))
    }

    /// Creates the index, unless the file has it.
    pub(super) fn ensure_index(self, name: &'static str) -> Result<(), LedgerError> {
        if !self.known.borrow().has_index(name) {
            indices::create(self.database, name)?;
            self.known.borrow_mut().put_index(name);
        }
        Ok(())
    }

    /// Writes the purchase over its stored form `before`, and the event of the change.
    pub(super) fn write(
        self,
        purchase: &Purchase,
        before: Option<&Purchase>,
    ) -> Result<(), LedgerError> {
        totals::change(self, before, purchase)?;
        let columns = row::columns(purchase)?;
        let state_before = before.map(|before| before.state);
        let event = row::event(self.head()?, purchase, &columns, state_before)?;
        let head = event.head;
        let change = match before {
            None => query::write(columns.clone(), &event),
            Some(before) => query::rewrite(&self.columns(before)?, &columns, &event),
        };
        execute(self.database, change)?;
        execute(self.database, query::append(event))?;
        let mut known = self.known.borrow_mut();
        known.head = Some(head);
        if before.is_none() {
            known.last_seq = Some(purchase.seq);
        }
        known.put(purchase, columns);
        Ok(())
    }

    /// Returns the stored row of this purchase.
    fn columns(self, purchase: &Purchase) -> Result<Columns, LedgerError> {
        let known = self.known.borrow_mut().take_columns(&purchase.key());
        debug_assert!(
            known
                .as_ref()
                .is_none_or(|known| row::columns(purchase).is_ok_and(|columns| columns == *known)),
            "the known row is the row of the purchase"
        );
        known.map_or_else(|| row::columns(purchase), Ok)
    }

    pub(super) fn last_seq(self) -> Result<u64, LedgerError> {
        let known = self.known.borrow().last_seq;
        debug_assert!(
            known.is_none_or(|known| last_seq(self.database).is_ok_and(|last| last == known)),
            "the file has the known number of purchases"
        );
        known.map_or_else(|| last_seq(self.database), Ok)
    }

    pub(super) fn next_seq(self) -> Result<u64, LedgerError> {
        Ok(self.last_seq()?.saturating_add(1))
    }

    pub(super) fn head(self) -> Result<Head, LedgerError> {
        let known = self.known.borrow().head;
        debug_assert!(
            known.is_none_or(|known| head(self.database).is_ok_and(|head| head == known)),
            "the file has the known head"
        );
        known.map_or_else(|| head(self.database), Ok)
    }
}

/// Returns whether the file has this purchase, for self-checks.
fn is_stored(connection: &Connection, purchase: &Purchase) -> bool {
    let stored = find(connection, &purchase.key()).ok().flatten();
    stored.is_some_and(|stored| row::columns(&stored).ok() == row::columns(purchase).ok())
}

/// Returns the number of the last purchase.
pub(super) fn last_seq(connection: &Connection) -> Result<u64, LedgerError> {
    let sql = "SELECT coalesce(max(seq), 0) FROM purchases";
    let mut statement = connection.prepare_cached(sql).map_err(failed)?;
    let last: i64 = statement.query_row([], |row| row.get(0)).map_err(failed)?;
    u64::try_from(last).map_err(|_| LedgerError::Damaged("purchases, column seq".to_owned()))
}

/// Returns the end of the chain of hashes.
pub(super) fn head(connection: &Connection) -> Result<Head, LedgerError> {
    let newest = Query {
        sql: "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1".into(),
        values: Vec::new(),
    };
    let head = first(connection, newest, |line| Head::read(line))?;
    Ok(head.unwrap_or(Head::EMPTY))
}

pub(super) fn find(
    connection: &Connection,
    key: &PurchaseKey,
) -> Result<Option<Purchase>, LedgerError> {
    first(connection, query::purchase(key), |line| row::purchase(line))
}

pub(super) fn read(connection: &Connection, query: Query) -> Result<Vec<Purchase>, LedgerError> {
    let mut purchases = Vec::new();
    each(connection, query, |line| {
        purchases.push(row::purchase(line)?);
        Ok(())
    })?;
    Ok(purchases)
}

/// Reads the first row of a query.
pub(super) fn first<T>(
    connection: &Connection,
    Query { sql, values }: Query,
    read: impl FnOnce(&Line<'_>) -> Result<T, LedgerError>,
) -> Result<Option<T>, LedgerError> {
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
    let found = rows.next().map_err(failed)?;
    let found = found.map(|row| read(&Line::of(row))).transpose();
    drop(rows);
    count_steps(&statement);
    found
}

/// Passes the rows of a query to `take`, one by one, so that memory does not grow with them.
pub(super) fn each(
    connection: &Connection,
    query: Query,
    mut take: impl FnMut(&Line<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    until(connection, query, |line| take(line).map(|()| false))
}

/// As [`each`], until `take` returns `true`. Reads no further rows.
pub(super) fn until(
    connection: &Connection,
    Query { sql, values }: Query,
    mut take: impl FnMut(&Line<'_>) -> Result<bool, LedgerError>,
) -> Result<(), LedgerError> {
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        if take(&Line::of(row))? {
            break;
        }
    }
    drop(rows);
    count_steps(&statement);
    Ok(())
}

pub(super) fn execute(
    connection: &Connection,
    Query { sql, values }: Query,
) -> Result<(), LedgerError> {
    let mut statement = connection.prepare_cached(&sql).map_err(failed)?;
    let done = statement.execute(params_from_iter(values));
    count_steps(&statement);
    done.map(drop).map_err(failed)
}

#[cfg(test)]
thread_local! {
    /// The steps of SQLite's machine in this thread, without those of self-checks.
    pub(super) static STEPS: std::cell::Cell<i64> = const { std::cell::Cell::new(0) };
}

/// Adds the steps of a statement since its last call, in tests.
pub(super) fn count_steps(statement: &rusqlite::Statement<'_>) {
    #[cfg(test)]
    STEPS.set(STEPS.get().saturating_add(i64::from(
        statement.reset_status(rusqlite::StatementStatus::VmStep),
    )));
    #[cfg(not(test))]
    let _ = statement;
}

/// A row whose columns are read roughly in their order. SQLite compares all names to find a column
/// by its name, so the search begins after the last column that was read.
pub(super) struct Line<'a> {
    row: &'a rusqlite::Row<'a>,
    next: std::cell::Cell<usize>,
}

impl<'a> Line<'a> {
    pub(super) fn of(row: &'a rusqlite::Row<'a>) -> Self {
        Self {
            row,
            next: std::cell::Cell::new(0),
        }
    }
}

impl Row for Line<'_> {
    fn cell(&self, column: &str) -> Option<Cell<'_>> {
        let (statement, next) = (self.row.as_ref(), self.next.get());
        let is_named = |place: &usize| {
            statement
                .column_name(*place)
                .is_ok_and(|name| name == column)
        };
        let place = (next..statement.column_count())
            .chain(0..next)
            .find(is_named)?;
        self.next.set(place.saturating_add(1));
        match self.row.get_ref(place).ok()? {
            ValueRef::Null => Some(Cell::Null),
            ValueRef::Integer(number) => Some(Cell::Integer(number)),
            ValueRef::Text(text) => std::str::from_utf8(text).ok().map(Cell::Text),
            ValueRef::Real(_) | ValueRef::Blob(_) => None,
        }
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}
