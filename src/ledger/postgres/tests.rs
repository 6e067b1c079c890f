//! What only books on a server must do.

#![expect(clippy::arithmetic_side_effects, reason = "an overflow fails the test, as it should")]

use tokio_postgres::NoTls;

use super::*;
use crate::ledger::conformance::{NOW, PAYLOAD, at, hold, lifetime, order, settled, signed, wish};
use crate::ledger::random_hex;

pub(in crate::ledger) fn url() -> String {
    std::env::var("BURSAR_TEST_POSTGRES").expect("run by tests/postgres/run")
}

fn schema() -> String {
    format!("t_{}", random_hex().unwrap())
}

/// New books in a schema of their own.
pub(in crate::ledger) async fn books() -> PostgresLedger {
    PostgresLedger::connect_in(&url(), &schema()).await.unwrap()
}

/// Another program at the same database.
async fn meddle(schema: &str, sql: &str) {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("SET search_path = {schema}; {sql}")).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
}

async fn shelf() -> (String, PostgresLedger) {
    let schema = schema();
    let ledger = PostgresLedger::connect_in(&url(), &schema).await.unwrap();
    (schema, ledger)
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn books_are_kept_when_they_are_connected_to_again() {
    let (schema, ledger) = shelf().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger.record(&key, &signed(NOW + 300), at(NOW)).await.unwrap();
    let before = format!("{:?}", ledger.purchase(&key).await.unwrap());
    drop(ledger);
    let ledger = PostgresLedger::connect_in(&url(), &schema).await.unwrap();
    assert_eq!(format!("{:?}", ledger.purchase(&key).await.unwrap()), before);
    let next = ledger.reserve(&wish(order("next", 1), at(NOW), lifetime(10))).await.unwrap();
    assert!(matches!(next, Reserved::Denied(_)), "{next:?}");
}
