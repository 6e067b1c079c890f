//! Reading and writing the tables inside a transaction.

use std::cell::RefCell;

use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, params_from_iter};

use super::known::Known;
use super::{failed, totals};
use crate::ledger::seal::Head;
use crate::ledger::sql::query::{self, Query};
use crate::ledger::sql::row::Columns;
use crate::ledger::sql::{Cell, Row, Value, row};
use crate::ledger::{LedgerError, Purchase, PurchaseKey};

/// The file under the write lock, and the cache of its rows.
#[derive(Clone, Copy)]
pub(super) struct File<'a> {
    pub(super) books: &'a Connection,
    pub(super) known: &'a RefCell<Known>,
}

impl File<'_> {
    pub(super) fn find(self, key: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        let known = self.known.borrow().entry(key).cloned();
        debug_assert!(
            match &known {
                Some(known) => {
                    let stored = find(self.books, key)?;
                    stored.as_ref().map(row::columns).transpose()? == Some(row::columns(known)?)
                }
                None => true,
            },
            "the file has the row that is known"
        );
        known.map_or_else(|| find(self.books, key), |known| Ok(Some(known)))
    }

    /// Writes a purchase over its earlier state, and the event that led to the new state.
    pub(super) fn write(
        self,
        entry: &Purchase,
        before: Option<&Purchase>,
    ) -> Result<(), LedgerError> {
        totals::change(self, before, entry)?;
        let columns = row::columns(entry)?;
        let event = row::event(
            self.head()?,
            entry,
            &columns,
            before.map(|before| before.state),
        )?;
        let head = event.head;
        let change = match before {
            None => query::write(columns.clone(), &event),
            Some(before) => query::rewrite(&self.columns(before)?, &columns, &event),
        };
        execute(self.books, change)?;
        execute(self.books, query::append(event))?;
        let mut known = self.known.borrow_mut();
        known.head = Some(head);
        if before.is_none() {
            known.last_seq = Some(entry.seq);
        }
        known.put(entry, columns);
        Ok(())
    }

    /// Returns the row of a purchase.
    fn columns(self, entry: &Purchase) -> Result<Columns, LedgerError> {
        let known = self.known.borrow_mut().take_columns(&entry.key());
        debug_assert!(
            match &known {
                Some(known) => *known == row::columns(entry)?,
                None => true,
            },
            "the file has the row that is known"
        );
        known.map_or_else(|| row::columns(entry), Ok)
    }

    pub(super) fn next_seq(self) -> Result<u64, LedgerError> {
        let known = self.known.borrow().last_seq;
        debug_assert!(
            known.is_none() || known == Some(last_seq(self.books)?),
            "the file has the last number that is known"
        );
        let last = known.map_or_else(|| last_seq(self.books), Ok)?;
        Ok(last.saturating_add(1))
    }

    fn head(self) -> Result<Head, LedgerError> {
        let known = self.known.borrow().head;
        debug_assert!(
            known.is_none() || known == Some(head(self.books)?),
            "the file has the end of the chain that is known"
        );
        known.map_or_else(|| head(self.books), Ok)
    }
}

/// Returns the number of the last purchase.
fn last_seq(books: &Connection) -> Result<u64, LedgerError> {
    let sql = "SELECT coalesce(max(seq), 0) FROM purchases";
    let mut statement = books.prepare_cached(sql).map_err(failed)?;
    let last: i64 = statement.query_row([], |row| row.get(0)).map_err(failed)?;
    u64::try_from(last).map_err(|_| LedgerError::Damaged("purchases, column seq".to_owned()))
}

fn head(books: &Connection) -> Result<Head, LedgerError> {
    let sql = "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1".into();
    let last = first(
        books,
        Query {
            sql,
            values: Vec::new(),
        },
        |line| Head::read(line),
    )?;
    Ok(last.unwrap_or(Head::EMPTY))
}

pub(super) fn find(books: &Connection, key: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
    first(books, query::purchase(key), |line| row::entry(line))
}

pub(super) fn read(books: &Connection, query: Query) -> Result<Vec<Purchase>, LedgerError> {
    let mut purchases = Vec::new();
    each(books, query, |line| {
        purchases.push(row::entry(line)?);
        Ok(())
    })?;
    Ok(purchases)
}

/// Reads the first row of a query.
pub(super) fn first<T>(
    books: &Connection,
    Query { sql, values }: Query,
    read: impl FnOnce(&Line<'_>) -> Result<T, LedgerError>,
) -> Result<Option<T>, LedgerError> {
    let mut statement = books.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
    rows.next()
        .map_err(failed)?
        .map(|row| read(&Line::of(row)))
        .transpose()
}

/// Calls `take` with every row of a query. The rows do not stay in memory.
pub(super) fn each(
    books: &Connection,
    Query { sql, values }: Query,
    mut take: impl FnMut(&Line<'_>) -> Result<(), LedgerError>,
) -> Result<(), LedgerError> {
    let mut statement = books.prepare_cached(&sql).map_err(failed)?;
    let mut rows = statement.query(params_from_iter(values)).map_err(failed)?;
    while let Some(row) = rows.next().map_err(failed)? {
        take(&Line::of(row))?;
    }
    Ok(())
}

pub(super) fn execute(books: &Connection, Query { sql, values }: Query) -> Result<(), LedgerError> {
    let mut statement = books.prepare_cached(&sql).map_err(failed)?;
    statement
        .execute(params_from_iter(values))
        .map(drop)
        .map_err(failed)
}

/// A row of SQLite. Ask for the columns in about their order: each search begins where the last one ended.
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
