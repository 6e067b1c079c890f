//! The schema: whose it is, what is in it.

use tokio_postgres::Transaction;

use super::link::Failure;
use crate::ledger::LedgerError;
use crate::ledger::sql::scope::create_indices;
use crate::ledger::sql::tables::{TABLES, VERSION};

/// `head` is the end of the chain of events and the number of purchases. Every write locks its one
/// row first, so writers follow each other and no number is left out, without sequences.
///
/// The marker's name says that the schema is ours.
const MORE_TABLES: &str = "
CREATE TABLE head (
    seq BIGINT PRIMARY KEY,
    purchases BIGINT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE bursar_schema (version BIGINT PRIMARY KEY);
CREATE INDEX held ON purchases (lease_until) WHERE state = 'reserved';
";

/// A name of an own schema, quoted. Names that would need an escape are refused.
pub(super) fn quoted(schema: &str) -> Result<String, LedgerError> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let sound =
        (1..=63).contains(&schema.len()) && schema.bytes().all(plain) && !schema.starts_with("pg_");
    if sound {
        Ok(format!("\"{schema}\""))
    } else {
        Err(LedgerError::store(
            "a schema's name is 1 to 63 of a-z, 0-9 and _, and does not begin with pg_",
        ))
    }
}

/// Lays out an empty or missing schema, and refuses what is not ours before anything is written.
///
/// Whether the transaction is to be committed: two that find nothing cannot both lay it out.
pub(super) async fn claim(books: &Transaction<'_>, schema: &str) -> Result<(), Failure> {
    let exists = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
    let tables = "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                  ON n.oid = c.relnamespace WHERE n.nspname = $1";
    if books.query_opt(exists, &[&schema]).await?.is_none() {
        books
            .batch_execute(&format!("CREATE SCHEMA {}", quoted(schema)?))
            .await?;
    }
    let found = books.query(tables, &[&schema]).await?;
    let names: Vec<&str> = found.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if found.is_empty() {
        return lay_out(books).await;
    }
    if !names.contains(&"bursar_schema") {
        return Err(
            LedgerError::Damaged("the schema belongs to another program".to_owned()).into(),
        );
    }
    let version: i64 = match books
        .query("SELECT version FROM bursar_schema", &[])
        .await?
        .as_slice()
    {
        [row] => row.try_get(0)?,
        _ => return Err(LedgerError::Damaged("bursar_schema has not one row".to_owned()).into()),
    };
    match version {
        VERSION => Ok(()),
        newer if newer > VERSION => Err(LedgerError::Newer {
            found: newer,
            known: VERSION,
        }
        .into()),
        never => {
            Err(LedgerError::Damaged(format!("schema version {never} was never released")).into())
        }
    }
}

async fn lay_out(books: &Transaction<'_>) -> Result<(), Failure> {
    let zero = alloy::primitives::B256::ZERO;
    let rows = format!(
        "INSERT INTO head VALUES (0, 0, '{zero:#x}'); INSERT INTO bursar_schema VALUES ({VERSION});"
    );
    books
        .batch_execute(&[&tables(), &create_indices(""), MORE_TABLES, &rows].join("\n"))
        .await?;
    Ok(())
}

/// Ranges of `host_reversed` are ranges of bytes, not of some language's alphabet.
fn tables() -> String {
    TABLES
        .replace("INTEGER", "BIGINT")
        .replace("host_reversed TEXT", "host_reversed TEXT COLLATE \"C\"")
        .replace(" CHECK (json_valid(detail))", "")
        .replace(") STRICT", ")")
}
