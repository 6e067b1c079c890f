//! The statements that write a batch: one for all purchases, one for all events, and one for the end of the chain.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::book::{Book, Write};
use super::pool::Failure;
use super::rows::{Parameter, Statement};
use crate::ledger::hash_chain::Head;
use crate::ledger::sql::Value;
use crate::ledger::sql::query::{LAST_EVENT, Query};
use crate::ledger::sql::row::{self, Stored, integer};
use crate::ledger::sql::tables::TABLES;
use crate::ledger::{LedgerError, PurchaseKey};

/// The columns of one row, with their names.
type Row = Vec<(&'static str, Value)>;

/// Selects the purchases with these ids, of every payer.
pub(super) fn purchases(ids: Vec<String>) -> Statement {
    Statement {
        text: "SELECT * FROM purchases WHERE purchase = ANY($1)".into(),
        values: vec![Parameter::Texts(ids.into_iter().map(Some).collect())],
    }
}

/// Returns the statements that write the changes after `head`, and the end of the chain after them.
pub(super) fn statements(head: Head, book: Book) -> Result<(Vec<Statement>, Head), Failure> {
    let purchases = integer(book.purchases(), "purchases")?;
    let mut head = head;
    let mut events: Vec<Row> = Vec::new();
    let mut rows: Vec<Row> = Vec::new();
    let mut places: HashMap<PurchaseKey, usize> = HashMap::new();
    for Write { purchase, before } in book.into_writes() {
        let columns = row::columns(&purchase)?;
        let event = row::event(head, &purchase, &columns, before)?;
        head = event.head;
        events.push(event.columns);
        let last_event = (LAST_EVENT, event.seq.into());
        let written = columns.into_iter().chain([last_event]).collect();
        let place = *places.entry(purchase.key()).or_insert(rows.len());
        match rows.get_mut(place) {
            Some(earlier) => *earlier = written,
            None => rows.push(written),
        }
    }
    static WRITE: OnceLock<String> = OnceLock::new();
    static APPEND: OnceLock<String> = OnceLock::new();
    let write = WRITE.get_or_init(|| {
        let insert = insert("purchases", &rows);
        let names = rows.iter().take(1).flatten();
        let updates: Vec<_> = names
            .map(|(name, _)| format!("{name} = excluded.{name}"))
            .collect();
        let updates = updates.join(", ");
        format!("{insert} ON CONFLICT (payer, purchase) DO UPDATE SET {updates}")
    });
    let append = APPEND.get_or_init(|| insert("events", &events));
    let statements = vec![
        Statement {
            text: write.as_str().into(),
            values: columns_of(rows)?,
        },
        Statement {
            text: append.as_str().into(),
            values: columns_of(events)?,
        },
        advance(head, purchases)?.into(),
    ];
    Ok((statements, head))
}

/// Moves the end of the chain.
fn advance(head: Head, purchases: i64) -> Result<Query, LedgerError> {
    Ok(Query {
        sql: "UPDATE chain_head SET seq = ?, purchases = ?, hash = ?".into(),
        values: vec![
            integer(head.events, "seq")?.into(),
            purchases.into(),
            head.hash.written().into(),
        ],
    })
}

/// Inserts one row for each element of the parameters.
fn insert(table: &str, rows: &[Row]) -> String {
    let columns = rows.iter().take(1).flatten();
    let names: Vec<&str> = columns.map(|(name, _)| *name).collect();
    let arrays: Vec<String> = names
        .iter()
        .zip(1_usize..)
        .map(|(name, number)| {
            let kind = if is_integer(name) { "BIGINT" } else { "TEXT" };
            format!("${number}::{kind}[]")
        })
        .collect();
    let (names, arrays) = (names.join(", "), arrays.join(", "));
    format!("INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})")
}

/// A column of this name has the same type in each table.
fn is_integer(name: &str) -> bool {
    TABLES.contains(&format!("\n    {name} INTEGER"))
}

/// Returns the values of each column.
fn columns_of(rows: Vec<Row>) -> Result<Vec<Parameter>, LedgerError> {
    let names = rows.first().into_iter().flatten();
    let mut columns: Vec<Parameter> = names
        .map(|(name, _)| {
            if is_integer(name) {
                Parameter::Integers(Vec::with_capacity(rows.len()))
            } else {
                Parameter::Texts(Vec::with_capacity(rows.len()))
            }
        })
        .collect();
    for row in rows {
        for ((name, value), column) in row.into_iter().zip(&mut columns) {
            match (column, value) {
                (Parameter::Integers(column), Value::Integer(number)) => column.push(Some(number)),
                (Parameter::Integers(column), Value::Null) => column.push(None),
                (Parameter::Texts(column), Value::Text(text)) => column.push(Some(text)),
                (Parameter::Texts(column), Value::Null) => column.push(None),
                _ => return Err(LedgerError::store(format!("the type of column {name}"))),
            }
        }
    }
    Ok(columns)
}
