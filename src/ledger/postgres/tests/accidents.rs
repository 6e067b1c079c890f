//! Databases that lost committed events: restored backups, failovers, and other databases behind the same URL.

use std::path::{Path, PathBuf};

use super::*;

/// The last one is changed by writes to the first one.
const TABLES: [&str; 6] = [
    "purchases",
    "events",
    "chain_head",
    "frozen",
    "bursar_schema",
    "totals",
];

/// Copies the database, as a backup or a replica does.
pub(in crate::ledger) async fn copy(schema: &str) -> String {
    let copy = self::schema();
    let tables = TABLES.map(|table| format!("CREATE TABLE {copy}.{table} AS TABLE {table}"));
    let sql = format!("CREATE SCHEMA {copy}; {}", tables.join("; "));
    meddle(schema, &sql).await;
    copy
}

/// Puts a copy in the place of the database.
pub(in crate::ledger) async fn restore(schema: &str, copy: &str) {
    let tables = TABLES
        .map(|table| format!("TRUNCATE {table}; INSERT INTO {table} SELECT * FROM {copy}.{table}"));
    meddle(schema, &format!("BEGIN; {}; COMMIT", tables.join("; "))).await;
}

async fn buy(ledger: &Ledger, id: &str) -> Result<Reserved, LedgerError> {
    let answer = ledger
        .reserve(&wish(order(id, 10), at(NOW), lifetime(1000)))
        .await?;
    if matches!(answer, Reserved::Held(_)) {
        let key = order(id, 10).key();
        ledger.record(&key, &signed(NOW + 300), at(NOW)).await?;
    }
    Ok(answer)
}

#[track_caller]
fn assert_damaged<T: std::fmt::Debug>(answer: Result<T, LedgerError>) -> String {
    match answer {
        Err(LedgerError::Damaged(text)) => text,
        other => panic!("{other:?}"),
    }
}

fn directory() -> PathBuf {
    let path = std::env::temp_dir().join(format!("bursar-{}", random_hex().unwrap()));
    std::fs::create_dir(&path).unwrap();
    path
}

pub(in crate::ledger) fn url_with(file: &Path) -> String {
    format!("{} bursar_witness={}", url(), file.display())
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn an_older_backup_that_is_restored_in_postgres_is_damaged() {
    let (schema, ledger) = new_schema().await;
    let reader = Ledger::postgres_in(&url(), &schema).await.unwrap();
    buy(&ledger, "one").await.unwrap();
    let older = copy(&schema).await;
    buy(&ledger, "two").await.unwrap();
    let newest = copy(&schema).await;
    let head = ledger.verify(None).await.unwrap().head;
    restore(&schema, &older).await;

    let text = assert_damaged(buy(&ledger, "three").await);
    assert!(text.contains("does not contain event 4"), "{text}");
    let two = order("two", 10).key();
    assert_damaged(ledger.record(&two, &settled(), at(NOW)).await);
    assert_eq!(events(&schema).await, 2, "nothing was written");
    let faults = ledger.verify(None).await.unwrap().faults;
    assert_eq!(faults, [LedgerFault::HeadMissing(head)]);
    // This process did not see the lost events, and continues. Now the number exists again, with another hash.
    buy(&reader, "four").await.unwrap();
    assert_eq!(events(&schema).await, 4);
    assert_damaged(buy(&ledger, "three").await);
    assert_eq!(events(&schema).await, 4);

    restore(&schema, &newest).await;
    buy(&ledger, "three").await.unwrap();
    assert!(ledger.verify(Some(head)).await.unwrap().is_sound());
    // The other process saw another history.
    assert_damaged(buy(&reader, "five").await);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_process_that_saw_an_event_of_another_one_notices_its_loss() {
    let (schema, writer) = new_schema().await;
    let older = copy(&schema).await;
    buy(&writer, "one").await.unwrap();
    // One connects later, and one only had a purchase denied.
    let late = Ledger::postgres_in(&url(), &schema).await.unwrap();
    late.purchases(&Filter::all()).await.unwrap();
    restore(&schema, &older).await;
    assert_damaged(buy(&late, "two").await);

    buy(&writer, "one").await.unwrap_err();
    let (schema, writer) = new_schema().await;
    let denied = Ledger::postgres_in(&url(), &schema).await.unwrap();
    let older = copy(&schema).await;
    buy(&writer, "one").await.unwrap();
    let answer = denied
        .reserve(&wish(order("two", 10), at(NOW), lifetime(10)))
        .await;
    assert!(matches!(answer, Ok(Reserved::Denied(_))), "{answer:?}");
    restore(&schema, &older).await;
    assert_damaged(buy(&denied, "two").await);
    assert_eq!(events(&schema).await, 0);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_failover_that_lost_a_payment_does_not_sign_it_again() {
    let (schema, ledger) = new_schema().await;
    buy(&ledger, "one").await.unwrap();
    let replica = copy(&schema).await;
    buy(&ledger, "two").await.unwrap();
    restore(&schema, &replica).await;
    // The payment was lost with its nonce. Neither the same purchase nor another one goes on.
    assert_damaged(buy(&ledger, "two").await);
    assert_damaged(buy(&ledger, "three").await);
    assert_eq!(number(&schema, "SELECT count(*) FROM purchases").await, 1);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_database_that_becomes_empty_is_damaged() {
    let empty = |schema: &str| {
        [
            format!("TRUNCATE {}", TABLES.join(", ")),
            format!("DROP SCHEMA {schema} CASCADE"),
            format!("ALTER SCHEMA {schema} RENAME TO {schema}_"),
            "DROP TABLE chain_head".to_owned(),
            "DROP TABLE purchases".to_owned(),
            "TRUNCATE purchases, events; UPDATE chain_head SET seq = 0, purchases = 0, hash = repeat('0', 64)"
                .to_owned(),
        ]
    };
    for number in 0..empty("").len() {
        let (schema, ledger) = new_schema().await;
        buy(&ledger, "one").await.unwrap();
        let sql = &empty(&schema)[number];
        meddle(&schema, sql).await;
        let answer = buy(&ledger, "two").await;
        assert!(
            matches!(answer, Err(LedgerError::Damaged(_))),
            "{sql}: {answer:?}"
        );
    }
    // Another program begins a new ledger in its place.
    let (schema, ledger) = new_schema().await;
    buy(&ledger, "one").await.unwrap();
    meddle(&schema, &format!("DROP SCHEMA {schema} CASCADE")).await;
    let new = Ledger::postgres_in(&url(), &schema).await.unwrap();
    assert_damaged(buy(&ledger, "two").await);
    buy(&new, "two").await.unwrap();
    buy(&new, "three").await.unwrap();
    assert_damaged(buy(&ledger, "four").await);
    assert_eq!(number(&schema, "SELECT count(*) FROM purchases").await, 2);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_witness_file_remembers_the_newest_event_across_restarts() {
    let directory = directory();
    let file = directory.join("head");
    let schema = schema();
    let open = async || Ledger::postgres_in(&url_with(&file), &schema).await;
    let ledger = open().await.unwrap();
    buy(&ledger, "one").await.unwrap();
    let older = copy(&schema).await;
    buy(&ledger, "two").await.unwrap();
    let newest = copy(&schema).await;
    drop(ledger);
    buy(&open().await.unwrap(), "three").await.unwrap();
    let after = copy(&schema).await;

    for older in [&older, &newest] {
        restore(&schema, older).await;
        let text = assert_damaged(open().await);
        assert!(text.contains(file.to_str().unwrap()), "{text}");
    }
    // A database without a ledger does not become a new one.
    meddle(
        "public",
        &format!("ALTER SCHEMA {schema} RENAME TO {schema}_"),
    )
    .await;
    assert_damaged(open().await);
    let exists = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
    assert_eq!(number("public", &exists).await, 0);
    meddle(
        "public",
        &format!("ALTER SCHEMA {schema}_ RENAME TO {schema}"),
    )
    .await;
    // The ledger of another database is not this one, however long it is.
    let (other, long) = new_schema().await;
    for number in 0..5 {
        buy(&long, &number.to_string()).await.unwrap();
    }
    assert_damaged(Ledger::postgres_in(&url_with(&file), &other).await);

    restore(&schema, &after).await;
    buy(&open().await.unwrap(), "four").await.unwrap();
    // The operator accepts an older database by deleting the file.
    restore(&schema, &older).await;
    assert_damaged(open().await);
    std::fs::remove_file(&file).unwrap();
    buy(&open().await.unwrap(), "five").await.unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn processes_that_share_a_witness_file_know_the_events_of_each_other() {
    let directory = directory();
    let file = directory.join("head");
    let schema = schema();
    let open = async || Ledger::postgres_in(&url_with(&file), &schema).await;
    let (idle, busy) = (open().await.unwrap(), open().await.unwrap());
    let older = copy(&schema).await;
    buy(&busy, "one").await.unwrap();
    restore(&schema, &older).await;
    assert_damaged(buy(&idle, "two").await);
    assert_eq!(events(&schema).await, 0);

    // Many tasks of both leave the newest event in the file.
    std::fs::remove_file(&file).unwrap();
    let (one, two) = (open().await.unwrap(), open().await.unwrap());
    let tasks: Vec<_> = (0..40)
        .map(|number| {
            let ledger = if number % 2 == 0 { &one } else { &two }.clone();
            tokio::spawn(async move { buy(&ledger, &number.to_string()).await.map(drop) })
        })
        .collect();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    let report = one.verify(None).await.unwrap();
    let line = format!("bursar-ledger-head-1 {:020} {:#x}\n", 80, report.head);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), line);
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_witness_file_that_cannot_be_used_stops_the_ledger() {
    let directory = directory();
    let file = directory.join("head");
    let schema = schema();
    let open = async |file: &Path| Ledger::postgres_in(&url_with(file), &schema).await;
    let ledger = open(&file).await.unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    buy(&ledger, "one").await.unwrap();
    let sound = std::fs::read_to_string(&file).unwrap();
    for content in [
        &sound[1..],
        &sound[..40],
        "a file of another program",
        &sound.replace('0', "x"),
    ] {
        std::fs::write(&file, content).unwrap();
        assert_damaged(buy(&ledger, "two").await);
        assert_damaged(open(&file).await);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content);
    }
    std::fs::write(&file, sound).unwrap();
    buy(&ledger, "two").await.unwrap();
    let missing = directory.join("no/such/directory");
    for file in [missing.as_path(), &directory] {
        let answer = open(file).await;
        assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_ledger_that_must_exist_is_not_begun_in_postgres() {
    let schema = schema();
    let existing = || Postgres::open_existing(&url(), &schema).unwrap();
    let exists = format!("SELECT count(*) FROM pg_namespace WHERE nspname = '{schema}'");
    let answer = existing().connect().await;
    assert!(
        matches!(&answer, Err(LedgerError::Missing(place)) if place.to_str().unwrap().contains(&schema)),
        "{answer:?}"
    );
    assert_eq!(number("public", &exists).await, 0);
    meddle("public", &format!("CREATE SCHEMA {schema}")).await;
    existing().connect().await.unwrap_err();
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    buy(&ledger, "one").await.unwrap();
    let ledger = Ledger::new(Backend::Postgres(existing()));
    buy(&ledger, "two").await.unwrap();
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_postgres_url_that_must_lead_to_a_ledger_begins_none() {
    let database = schema();
    meddle("public", &format!("CREATE DATABASE {database}")).await;
    let options = url().replace(' ', "&").replace("dbname=postgres", "");
    let url = format!("postgres:///{database}?{options}");
    let ledger = Ledger::open_existing(&url).unwrap();
    let missing = |answer: Result<_, LedgerError>| {
        let error = answer.unwrap_err();
        assert!(matches!(error, LedgerError::Missing(_)), "{error:?}");
    };
    missing(ledger.frozen().await.map(drop));
    missing(ledger.purchases(&Filter::all()).await.map(drop));
    missing(buy(&ledger, "one").await.map(drop));
    missing(ledger.freeze("no ledger").await);
    // Nothing was created, so it is still missing for the next program.
    missing(
        Ledger::open_existing(&url)
            .unwrap()
            .verify(None)
            .await
            .map(drop),
    );
    let created = Ledger::open(&url).unwrap();
    buy(&created, "one").await.unwrap();
    buy(&ledger, "two").await.unwrap();
    assert_eq!(created.purchases(&Filter::all()).await.unwrap().len(), 2);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_database_that_lost_events_is_neither_frozen_nor_unfrozen() {
    let (schema, ledger) = new_schema().await;
    buy(&ledger, "one").await.unwrap();
    let older = copy(&schema).await;
    let frozen = "SELECT count(*) FROM frozen";
    buy(&ledger, "two").await.unwrap();
    let newest = copy(&schema).await;
    restore(&schema, &older).await;
    // "All payments are stopped" would be false for the programs of the database that has the events.
    assert_damaged(ledger.freeze("stop").await);
    assert_eq!(number(&schema, frozen).await, 0);
    restore(&schema, &newest).await;
    ledger.freeze("stop").await.unwrap();
    assert_eq!(number(&schema, frozen).await, 1);
    let frozen_newest = copy(&schema).await;
    restore(&schema, &older).await;
    meddle(
        &schema,
        "INSERT INTO frozen (id, reason, since) VALUES (1, 'x', 0)",
    )
    .await;
    assert_damaged(ledger.unfreeze().await);
    assert_eq!(number(&schema, frozen).await, 1);
    restore(&schema, &frozen_newest).await;
    ledger.unfreeze().await.unwrap();
    assert_eq!(number(&schema, frozen).await, 0);
}

/// The next write would note the event, but the program can end before it.
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_commit_whose_answer_was_lost_is_in_the_witness_file_before_its_caller_goes_on() {
    let (schema, directory) = (schema(), directory());
    let file = directory.join("head");
    let proxy = Proxy::new(&url()).await;
    let url = format!("{} bursar_witness={}", proxy.url(), file.display());
    let ledger = Ledger::postgres_in(&url, &schema).await.unwrap();
    index(&schema, &ledger).await;
    let early = copy(&schema).await;
    proxy.arm(Mishap::CutAfter);
    let answer = ledger
        .reserve(&wish(order("one", 10), at(NOW), lifetime(1000)))
        .await;
    assert!(matches!(answer, Ok(Reserved::Held(_))), "{answer:?}");
    assert_eq!(proxy.mishaps(), 1);
    drop(ledger);
    restore(&schema, &early).await;
    let again = Ledger::postgres_in(&url_with(&file), &schema).await;
    let answer = match again {
        Ok(again) => buy(&again, "one").await,
        Err(error) => Err(error),
    };
    assert_damaged(answer);
    std::fs::remove_dir_all(directory).unwrap();
}
