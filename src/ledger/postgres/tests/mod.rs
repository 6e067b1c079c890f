//! Tests of ledgers on a server.

pub(in crate::ledger) mod accidents;
mod batches;
mod connecting;
mod events;
mod growth;
mod lost_connections;
mod proxy;
mod sharing;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_postgres::NoTls;

use self::proxy::{Mishap, Proxy};
use super::schema::VERSION;
use super::*;
use crate::ledger::backend::Backend;
use crate::ledger::conformance::{NOW, PAYLOAD, at, hold, lifetime, order, settled, signed, wish};
use crate::ledger::{Ledger, random_hex};

/// The timeout in tests without an answer.
const SHORT: Duration = Duration::from_millis(300);

pub(in crate::ledger) fn url() -> String {
    std::env::var("BURSAR_TEST_POSTGRES").expect("run by tests/postgres/run")
}

pub(in crate::ledger) fn schema() -> String {
    format!("t_{}", random_hex().unwrap())
}

/// Returns the database of a PostgreSQL ledger.
fn database_of(ledger: &Ledger) -> &Database {
    match &ledger.backend {
        Backend::Postgres(postgres) => &postgres.database,
        _ => panic!("not on a server"),
    }
}

/// Returns a ledger that waits only a short time for the server.
async fn short_of_time(url: &str, schema: &str) -> Ledger {
    let postgres = Postgres::with_settings(url, schema, SHORT, true).unwrap();
    postgres.connect().await.unwrap();
    Ledger::new(Backend::Postgres(postgres))
}

/// Returns a new ledger in a schema of its own.
pub(in crate::ledger) async fn new_ledger() -> Ledger {
    Ledger::postgres_in(&url(), &schema()).await.unwrap()
}

/// Connects as another program.
async fn other(schema: &str) -> tokio_postgres::Client {
    other_by(&url(), schema).await
}

/// Connects as another program, by this URL.
async fn other_by(url: &str, schema: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!("SET search_path = {schema}"))
        .await
        .unwrap();
    client
}

pub(in crate::ledger) async fn meddle(schema: &str, sql: &str) {
    other(schema).await.batch_execute(sql).await.unwrap();
}

/// Creates a role that reads the schema, and returns the URL for it.
async fn reading_role(schema: &str) -> String {
    let role = format!(
        "CREATE ROLE {schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {schema}; \
         GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {schema};"
    );
    meddle(schema, &role).await;
    format!("{} user={schema}", url())
}

/// Creates a role that pays and can forget nothing, and returns the URL for it.
async fn paying_role(schema: &str) -> String {
    let as_role = reading_role(schema).await;
    let writes = format!(
        "GRANT INSERT ON purchases, events TO {schema}; GRANT UPDATE ON purchases, chain_head TO {schema}"
    );
    meddle(schema, &writes).await;
    as_role
}

/// Runs the test of this name in four processes at once, with `variable` set to the schema.
fn in_four_processes(name: &str, variable: &str, schema: &str) {
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", name, "--ignored", "--nocapture"]);
        command
            .env(variable, schema)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| child()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
}

async fn number(schema: &str, sql: &str) -> i64 {
    other(schema)
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
}

async fn events(schema: &str) -> i64 {
    number(schema, "SELECT count(*) FROM events").await
}

async fn new_schema() -> (String, Ledger) {
    let schema = schema();
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    (schema, ledger)
}

/// Creates all indices, so that the next transaction of the ledger makes a change.
async fn index(schema: &str, ledger: &Ledger) {
    for name in indices::names() {
        meddle(schema, &format!("SELECT keep_index('{name}')")).await;
    }
    let mut known = database_of(ledger).indices.known();
    known.extend(indices::names());
}

/// Returns a new ledger with all indices.
async fn indexed_schema() -> (String, Ledger) {
    let (schema, ledger) = new_schema().await;
    index(&schema, &ledger).await;
    (schema, ledger)
}

/// Locks the ledger as another program, until it commits.
async fn locked(schema: &str) -> tokio_postgres::Client {
    let program = other(schema).await;
    let lock = "BEGIN; LOCK TABLE chain_head IN EXCLUSIVE MODE";
    program.batch_execute(lock).await.unwrap();
    program
}

/// Waits until someone waits for the lock.
async fn someone_waits(schema: &str) {
    let waits =
        "SELECT count(*) FROM pg_locks WHERE relation = 'chain_head'::regclass AND NOT granted";
    while number(schema, waits).await == 0 {}
}
