//! The schema: its owner and its tables.

use tokio_postgres::Client;

use super::pool::Failure;
use super::{indices, totals};
use crate::ledger::LedgerError;
use crate::ledger::sql::tables::{NEW_COLUMNS, OLDEST, TABLES};

/// The version of the tables. Version 12 has totals, and version 13 creates some indices when a limit reads them.
pub(super) const VERSION: i64 = 13;
/// The version with all indices.
const WITH_ALL_INDICES: i64 = 12;
/// The version without totals.
const WITHOUT_TOTALS: i64 = 11;

/// `chain_head` has one row: the end of the chain of events, and the number of purchases. Every write
/// locks it first. Writers therefore wait for each other, and no number is left out.
///
/// `bursar_schema` identifies a schema of bursar.
const MORE_TABLES: &str = "
CREATE TABLE chain_head (
    seq BIGINT PRIMARY KEY,
    purchases BIGINT NOT NULL,
    hash TEXT NOT NULL
);
CREATE TABLE bursar_schema (version BIGINT PRIMARY KEY);
CREATE INDEX held ON purchases (lease_until) WHERE state = 'reserved';
";

/// Quotes the name of a schema. Refuses names that would need escapes.
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

/// Checks the schema, or creates it if it is empty or missing. Refuses a schema of another program
/// before it writes. Returns whether a new ledger begins, which `refusal` forbids.
pub(super) async fn claim(
    transaction: &Client,
    schema: &str,
    refusal: Option<LedgerError>,
) -> Result<bool, Failure> {
    let exists = "SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1";
    let tables = "SELECT c.relname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n \
                  ON n.oid = c.relnamespace WHERE n.nspname = $1";
    let found = transaction.query(tables, &[&schema]).await?;
    let names: Vec<&str> = found.iter().filter_map(|row| row.try_get(0).ok()).collect();
    if found.is_empty() {
        if let Some(refusal) = refusal {
            return Err(refusal.into());
        }
        if transaction.query_opt(exists, &[&schema]).await?.is_none() {
            transaction
                .batch_execute(&format!("CREATE SCHEMA {}", quoted(schema)?))
                .await?;
        }
        create_tables(transaction, &quoted(schema)?).await?;
        return Ok(true);
    }
    if !names.contains(&"bursar_schema") {
        return Err(
            LedgerError::Damaged("the schema belongs to another program".to_owned()).into(),
        );
    }
    let version: i64 = match transaction
        .query("SELECT version FROM bursar_schema", &[])
        .await?
        .as_slice()
    {
        [row] => row.try_get(0)?,
        _ => {
            return Err(
                LedgerError::Damaged("bursar_schema does not have one row".to_owned()).into(),
            );
        }
    };
    match version {
        VERSION => Ok(false),
        OLDEST => {
            add_columns(transaction).await?;
            add_totals(transaction, &quoted(schema)?, OLDEST).await?;
            Ok(false)
        }
        WITHOUT_TOTALS => {
            add_totals(transaction, &quoted(schema)?, WITHOUT_TOTALS).await?;
            Ok(false)
        }
        WITH_ALL_INDICES => {
            let schema = quoted(schema)?;
            // The version comes first: of two programs that migrate at once, one gets a conflict, and tries again.
            let statements = [
                set_version(),
                totals::renew(&schema),
                indices::create(&schema),
            ];
            transaction.batch_execute(&statements.join("\n")).await?;
            migrated(WITH_ALL_INDICES);
            Ok(false)
        }
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

/// Adds the columns of version 11. They have no default, so that a program of version 10 that still has the ledger open can
/// write nothing.
async fn add_columns(transaction: &Client) -> Result<(), Failure> {
    let columns = NEW_COLUMNS.map(|(name, value)| {
        let kind = match name {
            "payment_method" => "TEXT NOT NULL",
            "verified_usd_micros" => "BIGINT",
            _ => "TEXT",
        };
        // The server fills in the default without writing the rows.
        format!(
            "ALTER TABLE purchases ADD COLUMN {name} {kind} DEFAULT {value}; \
             ALTER TABLE purchases ALTER COLUMN {name} DROP DEFAULT;"
        )
    });
    let check = "ALTER TABLE purchases ADD CHECK \
        (payment_method = 'eip3009' OR payment_method = 'permit2' OR payment_method = 'upto');";
    transaction
        .batch_execute(&[&columns.join("\n"), check].join("\n"))
        .await?;
    Ok(())
}

/// Adds the totals of version 12, an index, and the functions of version 13. The indices stay. A program of version 11 that
/// still has the ledger open can write: the server itself keeps the totals.
async fn add_totals(transaction: &Client, schema: &str, from: i64) -> Result<(), Failure> {
    let undelivered: String = TABLES
        .split_inclusive(";\n")
        .filter(|statement| statement.contains("CREATE INDEX undelivered "))
        .collect();
    let index = format!("DROP INDEX IF EXISTS undelivered; {undelivered}");
    let statements = [
        &set_version(),
        &totals::create(schema),
        totals::GRANTS,
        &index,
        &indices::create(schema),
    ];
    transaction.batch_execute(&statements.join("\n")).await?;
    migrated(from);
    Ok(())
}

fn set_version() -> String {
    format!("UPDATE bursar_schema SET version = {VERSION};")
}

fn migrated(from: i64) {
    tracing::warn!("the ledger was migrated from schema version {from} to {VERSION}");
}

async fn create_tables(transaction: &Client, schema: &str) -> Result<(), Failure> {
    let zero = alloy::primitives::B256::ZERO;
    let rows = format!(
        "INSERT INTO chain_head VALUES (0, 0, '{zero:#x}'); INSERT INTO bursar_schema VALUES ({VERSION});"
    );
    transaction
        .batch_execute(
            &[
                &tables(),
                MORE_TABLES,
                &totals::create(schema),
                &indices::create(schema),
                &rows,
            ]
            .join("\n"),
        )
        .await?;
    Ok(())
}

/// Returns [`TABLES`] in the SQL of PostgreSQL, without the indices that only some limits read. `host_reversed` and `path` are
/// compared by bytes and not by the alphabet of a language.
fn tables() -> String {
    let statements = TABLES.split_inclusive(";\n");
    statements
        .filter(|statement| !indices::is_on_demand(statement))
        .collect::<String>()
        .replace("INTEGER", "BIGINT")
        .replace("host_reversed TEXT", "host_reversed TEXT COLLATE \"C\"")
        .replace(" path TEXT", " path TEXT COLLATE \"C\"")
        .replace(" CHECK (json_valid(detail))", "")
        .replace(") STRICT", ")")
}
