//! Queries and rows of PostgreSQL.

use std::error::Error;
use std::future::poll_fn;
use std::pin::pin;

use bytes::BytesMut;
use deadpool_postgres::Transaction;
use futures_core::Stream;
use tokio_postgres::Row;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use super::pool::Failure;
use super::view::View;
use crate::ledger::LedgerError;
use crate::ledger::sql::query::Query;
use crate::ledger::sql::{self, Cell, Value};

/// Answers a question from the view, and reads the rows that the view lacks. A denial needs single
/// charges where an answer needs only their sum.
pub(super) async fn answer<T>(
    transaction: &Transaction<'_>,
    mut view: View,
    question: impl Fn(&View) -> Result<T, LedgerError> + Send,
) -> Result<T, Failure> {
    loop {
        let error = match question(&view) {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some((asked, query)) = view.missing() else {
            return Err(error.into());
        };
        each(transaction, &query, |row| asked.take(&row)).await?;
    }
}

/// Returns the rows of a query.
pub(super) async fn fetch(
    transaction: &Transaction<'_>,
    query: &Query,
) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    each(transaction, query, |row| {
        rows.push(row);
        Ok(())
    })
    .await?;
    Ok(rows)
}

/// Passes the rows of a query to `take`, one by one, so that memory does not grow with them.
pub(super) async fn each(
    transaction: &Transaction<'_>,
    query: &Query,
    mut take: impl FnMut(Row) -> Result<(), LedgerError> + Send,
) -> Result<(), Failure> {
    let statement = transaction.prepare_cached(&numbered(&query.sql)).await?;
    let mut rows = pin!(transaction.query_raw(&statement, &query.values).await?);
    while let Some(row) = poll_fn(|context| rows.as_mut().poll_next(context)).await {
        take(row?)?;
    }
    Ok(())
}

/// Replaces the first `?` by `$1`, and so on. The queries contain no other `?`.
pub(super) fn numbered(sql: &str) -> String {
    let mut parts = sql.split('?');
    let first = parts.next().unwrap_or_default().to_owned();
    parts
        .zip(1_usize..)
        .fold(first, |sql, (part, number)| format!("{sql}${number}{part}"))
}

impl sql::Row for Row {
    fn cell(&self, column: &str) -> Option<Cell<'_>> {
        let found = self
            .columns()
            .iter()
            .position(|known| known.name() == column)?;
        match *self.columns().get(found)?.type_() {
            Type::INT8 => Some(
                self.try_get::<_, Option<i64>>(found)
                    .ok()?
                    .map_or(Cell::Null, Cell::Integer),
            ),
            Type::TEXT => Some(
                self.try_get::<_, Option<&str>>(found)
                    .ok()?
                    .map_or(Cell::Null, Cell::Text),
            ),
            _ => None,
        }
    }
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) => number.to_sql_checked(kind, out),
            Self::Text(text) => text.to_sql_checked(kind, out),
        }
    }

    fn accepts(kind: &Type) -> bool {
        [Type::INT8, Type::TEXT].contains(kind)
    }

    to_sql_checked!();
}
