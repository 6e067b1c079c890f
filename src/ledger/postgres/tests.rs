//! What only books on a server must do.

mod proxy;

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio_postgres::NoTls;

use self::proxy::{Mishap, Proxy};
use super::*;
use crate::ledger::conformance::{NOW, PAYLOAD, at, hold, lifetime, order, settled, signed, wish};
use crate::ledger::random_hex;
use crate::ledger::sql::tables::VERSION;

/// For tests in which nobody answers.
const SHORT: Duration = Duration::from_millis(300);

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
async fn other(schema: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
        .batch_execute(&format!("SET search_path = {schema}"))
        .await
        .unwrap();
    client
}

async fn meddle(schema: &str, sql: &str) {
    other(schema).await.batch_execute(sql).await.unwrap();
}

async fn number(schema: &str, sql: &str) -> i64 {
    other(schema)
        .await
        .query_one(sql, &[])
        .await
        .unwrap()
        .get(0)
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
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let before = format!("{:?}", ledger.purchase(&key).await.unwrap());
    drop(ledger);
    let ledger = PostgresLedger::connect_in(&url(), &schema).await.unwrap();
    assert_eq!(
        format!("{:?}", ledger.purchase(&key).await.unwrap()),
        before
    );
    let next = ledger
        .reserve(&wish(order("next", 1), at(NOW), lifetime(10)))
        .await
        .unwrap();
    assert!(matches!(next, Reserved::Denied(_)), "{next:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn schemas_of_others_are_refused_and_untouched() {
    let refused = async |schema: &str| {
        PostgresLedger::connect_in(&url(), schema)
            .await
            .expect_err("it is refused")
    };
    let (taken, ledger) = shelf().await;
    drop(ledger);
    meddle(&taken, "UPDATE bursar_schema SET version = version + 1").await;
    assert!(matches!(
        refused(&taken).await,
        LedgerError::Newer { known: VERSION, .. }
    ));
    meddle(&taken, "UPDATE bursar_schema SET version = 1").await;
    assert!(matches!(refused(&taken).await, LedgerError::Damaged(_)));
    let foreign = schema();
    meddle(
        "public",
        &format!("CREATE SCHEMA {foreign}; CREATE VIEW {foreign}.notes AS SELECT 1"),
    )
    .await;
    assert!(matches!(refused(&foreign).await, LedgerError::Damaged(_)));
    let relations =
        format!("SELECT count(*) FROM pg_class WHERE relnamespace = '{foreign}'::regnamespace");
    assert_eq!(number("public", &relations).await, 1);
    for name in ["", "Books", "a\"; DROP", "pg_books", &"x".repeat(64)] {
        assert!(
            matches!(refused(name).await, LedgerError::Store(_)),
            "{name}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn many_may_lay_out_a_schema_at_once() {
    for _ in 0..5 {
        let schema = schema();
        let open = || {
            let schema = schema.clone();
            tokio::spawn(async move { PostgresLedger::connect_in(&url(), &schema).await.map(drop) })
        };
        let opened: Vec<_> = (0..8).map(|_| open()).collect();
        for opened in opened {
            opened.await.unwrap().unwrap();
        }
        assert_eq!(number(&schema, "SELECT count(*) FROM head").await, 1);
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_server_that_cannot_be_written_to_is_refused() {
    let url = format!("{} options='-c default_transaction_read_only=on'", url());
    let answer = PostgresLedger::connect_in(&url, &schema()).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_server_that_becomes_read_only_holds_nothing_until_it_is_not() {
    let (schema, ledger) = shelf().await;
    meddle(&schema, &format!("CREATE ROLE {schema} LOGIN SUPERUSER")).await;
    let url = format!("{} user={schema}", url());
    let as_role = PostgresLedger::connect_in(&url, &schema).await.unwrap();
    let admin = other("public").await;
    let reconnect = async |setting: &str| {
        admin
            .batch_execute(&format!(
                "ALTER ROLE {schema} SET default_transaction_read_only = {setting}"
            ))
            .await
            .unwrap();
        let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1";
        admin.query(kill, &[&schema]).await.unwrap();
    };
    reconnect("on").await;
    let wish = wish(order("order", 10), at(NOW), lifetime(10));
    let answer = as_role.reserve(&wish).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    reconnect("off").await;
    assert!(matches!(
        as_role.reserve(&wish).await.unwrap(),
        Reserved::Held(_)
    ));
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_role_that_cannot_forget_is_enough() {
    let (schema, _) = shelf().await;
    meddle(
        &schema,
        &format!(
            "CREATE ROLE {schema} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {schema}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {schema}; \
             GRANT INSERT ON purchases, events TO {schema}; GRANT UPDATE ON purchases, head TO {schema}"
        ),
    )
    .await;
    let url = format!("{} user={schema}", url());
    let ledger = PostgresLedger::connect_in(&url, &schema).await.unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    assert!(ledger.verify(None).await.unwrap().is_sound());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    for sql in [
        "UPDATE events SET at = 0",
        "DELETE FROM events",
        "DELETE FROM purchases",
        "DELETE FROM head",
    ] {
        let error = client
            .batch_execute(&format!("SET search_path = {schema}; {sql}"))
            .await
            .unwrap_err();
        assert_eq!(
            error.code(),
            Some(&SqlState::INSUFFICIENT_PRIVILEGE),
            "{sql}"
        );
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn commits_are_on_disk_whatever_the_server_says() {
    let (_, ledger) = shelf().await;
    let url = format!(
        "{} options='-c synchronous_commit=off -c search_path=public'",
        url()
    );
    let careless = PostgresLedger::connect_in(&url, &schema()).await.unwrap();
    for ledger in [ledger, careless] {
        let mut client = ledger.store.pool.get().await.unwrap();
        let books = ledger
            .store
            .begin(&mut client, IsolationLevel::Serializable, false)
            .await
            .unwrap();
        let show = async |name: &str| {
            books
                .query_one(&format!("SHOW {name}"), &[])
                .await
                .unwrap()
                .get::<_, String>(0)
        };
        assert_eq!(show("synchronous_commit").await, "on");
        assert_eq!(show("transaction_isolation").await, "serializable");
        assert_eq!(show("statement_timeout").await, "10s");
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn what_is_secret_is_in_no_error() {
    let (schema, ledger) = shelf().await;
    let key = hold(&ledger, order("order", 10), NOW).await;
    meddle(
        &schema,
        "ALTER TABLE purchases ADD CONSTRAINT refuse CHECK (payload IS NULL)",
    )
    .await;
    // The server's own details quote the whole row.
    let error = ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap_err();
    assert!(!format!("{error:?} {error}").contains(PAYLOAD), "{error:?}");
    assert!(error.to_string().contains("23514"), "{error}");
    for url in [
        "postgresql://agent:geheim@127.0.0.1:1/books?sslmode=disable",
        "postgresql://agent:geheim@127.0.0.1:1/books?geheim=1",
        "host=127.0.0.1 password=geheim gehe im",
        "postgresql://agent:geheim@/%zz",
    ] {
        let error = PostgresLedger::connect(url).await.unwrap_err();
        assert!(!format!("{error:?} {error}").contains("gehe"), "{error:?}");
    }
    assert_eq!(format!("{ledger:?}"), "PostgresLedger { .. }");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_text_that_cannot_be_kept_holds_nothing() {
    let ledger = books().await;
    let mut entry = order("order", 10);
    entry.tag = Some("a\0b".to_owned());
    let answer = ledger.reserve(&wish(entry, at(NOW), Vec::new())).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    hold(&ledger, order("order", 10), NOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn clients_on_one_server_hold_exactly_as_many_as_fit() {
    let (schema, one) = shelf().await;
    let two = PostgresLedger::connect_in(&url(), &schema).await.unwrap();
    let ledgers = [one, two];
    let tasks: Vec<_> = (0..200)
        .map(|number| {
            let ledger = ledgers[number % 2].clone();
            tokio::spawn(async move {
                ledger
                    .reserve(&wish(
                        order(&format!("order-{number}"), 10),
                        at(NOW),
                        lifetime(370),
                    ))
                    .await
                    .unwrap()
            })
        })
        .collect();
    let mut held = 0;
    for task in tasks {
        held += usize::from(matches!(task.await.unwrap(), Reserved::Held(_)));
    }
    assert_eq!(
        (
            held,
            number(&schema, "SELECT count(*) FROM purchases").await
        ),
        (37, 37)
    );
    assert!(ledgers[0].verify(None).await.unwrap().is_sound());
}

const RACE: &str = "BURSAR_TEST_RACE";

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn processes_hold_exactly_as_many_as_fit() {
    let (schema, ledger) = shelf().await;
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "ledger::postgres::tests::one_process_of_the_race",
            "--ignored",
        ]);
        command
            .env(RACE, &schema)
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| child()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(number(&schema, "SELECT count(*) FROM purchases").await, 50);
    assert_eq!(ledger.verify(None).await.unwrap().events, 50);
}

#[tokio::test]
#[ignore = "a part of processes_hold_exactly_as_many_as_fit"]
async fn one_process_of_the_race() {
    let Ok(schema) = std::env::var(RACE) else {
        return;
    };
    let ledger = PostgresLedger::connect_in(&url(), &schema).await.unwrap();
    for number in 0..40 {
        let id = format!("{}-{number}", std::process::id());
        ledger
            .reserve(&wish(order(&id, 10), at(NOW), lifetime(500)))
            .await
            .unwrap();
    }
}

/// A COMMIT whose answer is lost, on its way there, on its way back, or overtaken by the next.
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_lost_commit_neither_holds_twice_nor_loses() {
    for mishap in [Mishap::CutBefore, Mishap::CutAfter, Mishap::Overtaken] {
        let schema = schema();
        let proxy = Proxy::new(&url()).await;
        let ledger = PostgresLedger::connect_in(&proxy.url(), &schema)
            .await
            .unwrap();
        let sound = async |events: i64| {
            assert_eq!(
                number(&schema, "SELECT count(*) FROM purchases").await,
                1,
                "{mishap:?}"
            );
            assert_eq!(
                number(&schema, "SELECT count(*) FROM events").await,
                events,
                "{mishap:?}"
            );
            assert!(ledger.verify(None).await.unwrap().is_sound(), "{mishap:?}");
        };
        proxy.arm(mishap);
        let answer = ledger
            .reserve(&wish(order("order", 10), at(NOW), lifetime(10)))
            .await
            .unwrap();
        assert!(
            matches!(&answer, Reserved::Held(entry) if entry.seq == 1),
            "{mishap:?}: {answer:?}"
        );
        assert_eq!(proxy.mishaps(), 1);
        sound(1).await;
        for (number, transition) in [signed(NOW + 300), settled()].iter().enumerate() {
            proxy.arm(mishap);
            ledger
                .record(&order("order", 10).key(), transition, at(NOW))
                .await
                .unwrap();
            assert_eq!(proxy.mishaps(), number + 2);
        }
        sound(3).await;
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_lost_commit_that_cannot_be_asked_about_is_an_error() {
    for mishap in [Mishap::Down, Mishap::Silence] {
        let schema = schema();
        let proxy = Proxy::new(&url()).await;
        let ledger = PostgresLedger::connect_with(&proxy.url(), &schema, SHORT)
            .await
            .unwrap();
        proxy.arm(mishap);
        let wish = wish(order("order", 10), at(NOW), lifetime(10));
        let answer = ledger.reserve(&wish).await;
        assert!(
            matches!(answer, Err(LedgerError::Store(_))),
            "{mishap:?}: {answer:?}"
        );
        let answer = ledger.purchase(&wish.key()).await;
        assert!(
            matches!(answer, Err(LedgerError::Store(_))),
            "{mishap:?}: {answer:?}"
        );
        // It had been committed. When the server is back, it is found, and held once.
        proxy.arm(Mishap::None);
        assert!(
            matches!(ledger.reserve(&wish).await.unwrap(), Reserved::InFlight),
            "{mishap:?}"
        );
        assert_eq!(number(&schema, "SELECT count(*) FROM events").await, 1);
    }
}

/// Tasks that reserve while `disturb` is called again and again. Of what was said to be held all is
/// in the books, and the limit stands.
async fn reserve_through(schema: &str, url: &str, mut disturb: impl AsyncFnMut()) {
    let done = Arc::new(AtomicUsize::new(0));
    let ledger = PostgresLedger::connect_in(url, schema).await.unwrap();
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let (ledger, done) = (ledger.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let id = format!("order-{number}");
                let answer = ledger
                    .reserve(&wish(order(&id, 10), at(NOW), lifetime(370)))
                    .await;
                done.fetch_add(1, Ordering::SeqCst);
                (id, answer)
            })
        })
        .collect();
    for answers in [5, 10, 15, 20] {
        while done.load(Ordering::SeqCst) < answers {
            tokio::task::yield_now().await;
        }
        disturb().await;
    }
    let mut held = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            (id, Ok(Reserved::Held(_))) => held.push(id),
            (_, Ok(Reserved::Denied(_)) | Err(LedgerError::Store(_))) => {}
            (id, other) => panic!("{id}: {other:?}"),
        }
    }
    let purchases = loop {
        if let Ok(purchases) = ledger.purchases(&Filter::all()).await {
            break purchases;
        }
    };
    let kept: Vec<_> = purchases
        .iter()
        .map(|entry| entry.purchase.to_string())
        .collect();
    assert!(held.iter().all(|id| kept.contains(id)), "{held:?} {kept:?}");
    assert!(!held.is_empty() && kept.len() <= 37, "{held:?} {kept:?}");
    let report = ledger.verify(None).await.unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(
        (report.events, report.purchases),
        (kept.len() as u64, kept.len() as u64)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn terminated_connections_neither_hold_twice_nor_lose() {
    let schema = schema();
    let url = format!("{} application_name={schema}", url());
    let admin = other("public").await;
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = $1";
    reserve_through(&schema, &url, async || {
        drop(admin.query(kill, &[&schema]).await.unwrap())
    })
    .await;
}

/// A server that loses a process so goes through its recovery, all its connections lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_killed_server_neither_holds_twice_nor_loses() {
    let schema = schema();
    let url = format!("{} application_name={schema}", url());
    let find = "SELECT pid FROM pg_stat_activity WHERE application_name = $1 LIMIT 1";
    let kill = async || {
        // The server may still be recovering from the last time.
        let Ok((client, connection)) = tokio_postgres::connect(&self::url(), NoTls).await else {
            return;
        };
        tokio::spawn(connection);
        if let Ok(Some(row)) = client.query_opt(find, &[&schema]).await {
            let pid: i32 = row.get(0);
            assert!(
                Command::new("kill")
                    .args(["-KILL", &pid.to_string()])
                    .status()
                    .unwrap()
                    .success()
            );
        }
    };
    reserve_through(&schema, &url, kill).await;
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn every_tampering_is_found() {
    use Fault::{EventChanged, EventsMissing, PurchaseChanged, PurchaseMissing};

    let cases = [
        ("", vec![]),
        (
            "UPDATE events SET at = at + 1 WHERE seq = 2",
            vec![EventChanged { row: 2 }],
        ),
        (
            "DELETE FROM events WHERE seq IN (3, 4)",
            vec![EventsMissing { from: 3, to: 4 }, EventChanged { row: 5 }],
        ),
        (
            "DELETE FROM events WHERE seq = 5",
            vec![PurchaseChanged { row: 2 }, Fault::HeadChanged],
        ),
        (
            "INSERT INTO events SELECT 6, at, payer, purchase, from_state, to_state, detail, purchase_hash, hash \
             FROM events WHERE seq = 5",
            vec![
                EventChanged { row: 6 },
                PurchaseChanged { row: 2 },
                Fault::HeadChanged,
            ],
        ),
        (
            "UPDATE head SET hash = (SELECT hash FROM events WHERE seq = 1)",
            vec![Fault::HeadChanged],
        ),
        ("UPDATE head SET seq = 4", vec![Fault::HeadChanged]),
        ("DELETE FROM head", vec![Fault::HeadChanged]),
        (
            "UPDATE purchases SET value = '9' WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET payload = NULL WHERE seq = 1",
            vec![PurchaseChanged { row: 1 }],
        ),
        (
            "DELETE FROM purchases WHERE seq = 1",
            vec![PurchaseMissing { event: 1 }, PurchaseMissing { event: 2 }],
        ),
        (
            "UPDATE purchases SET purchase = 'four' WHERE seq = 1",
            vec![
                PurchaseMissing { event: 1 },
                PurchaseMissing { event: 2 },
                PurchaseChanged { row: 1 },
            ],
        ),
    ];
    for (sql, faults) in cases {
        let (schema, ledger) = shelf().await;
        for id in ["one", "two"] {
            let key = hold(&ledger, order(id, 10), NOW).await;
            ledger
                .record(&key, &signed(NOW + 300), at(NOW))
                .await
                .unwrap();
        }
        ledger
            .record(&order("two", 10).key(), &settled(), at(NOW + 1))
            .await
            .unwrap();
        let noted = ledger.verify(None).await.unwrap();
        meddle(&schema, sql).await;
        let report = ledger.verify(None).await.unwrap();
        assert_eq!(report.faults, faults, "{sql}");
        assert_eq!(
            ledger
                .verify(Some(B256::repeat_byte(1)))
                .await
                .unwrap()
                .found,
            report.found + 1,
            "{sql}"
        );
        if report.head == noted.head {
            assert_eq!(
                ledger.verify(Some(noted.head)).await.unwrap(),
                report,
                "{sql}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn books_are_verified_while_they_are_written() {
    let ledger = books().await;
    let writer = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            for number in 0..100 {
                let key = hold(&ledger, order(&format!("order-{number}"), 10), NOW).await;
                ledger
                    .record(&key, &signed(NOW + 300), at(NOW))
                    .await
                    .unwrap();
            }
        }
    });
    let mut head = None;
    while !writer.is_finished() {
        let report = ledger.verify(head).await.unwrap();
        assert!(report.is_sound(), "{report:?}");
        head = Some(report.head);
    }
    writer.await.unwrap();
    assert_eq!(ledger.verify(head).await.unwrap().events, 200);
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn damage_is_named_and_stops_the_books() {
    for (column, value) in [
        ("value", "'1e3'"),
        ("payee", "upper(payee)"),
        ("status", "-1"),
        ("host_reversed", "'x'"),
    ] {
        let (schema, ledger) = shelf().await;
        let key = hold(&ledger, order("order", 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        meddle(&schema, &format!("UPDATE purchases SET {column} = {value}")).await;
        let expected = format!("the ledger is damaged: purchases, row 1, column {column}");
        assert_eq!(
            ledger
                .purchases(&Filter::all())
                .await
                .unwrap_err()
                .to_string(),
            expected
        );
    }
    let (schema, ledger) = shelf().await;
    meddle(&schema, "DELETE FROM head").await;
    let answer = ledger
        .reserve(&wish(order("order", 10), at(NOW), Vec::new()))
        .await;
    assert!(matches!(answer, Err(LedgerError::Damaged(_))), "{answer:?}");
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_server_over_tls_is_the_one_it_says_it_is() {
    let url = std::env::var("BURSAR_TEST_POSTGRES_TLS").expect("run by tests/postgres/run");
    let ledger = PostgresLedger::connect_in(&format!("{url} host=localhost"), &schema())
        .await
        .unwrap();
    hold(&ledger, order("order", 10), NOW).await;
    let client = ledger.store.pool.get().await.unwrap();
    let tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    assert!(client.query_one(tls, &[]).await.unwrap().get::<_, bool>(0));
    // The certificate is of localhost alone.
    let answer = PostgresLedger::connect_in(&format!("{url} host=127.0.0.1"), &schema()).await;
    assert!(
        matches!(&answer, Err(LedgerError::Store(error)) if error.to_string().contains("TLS")),
        "{answer:?}"
    );
}

#[test]
fn servers_elsewhere_are_spoken_to_over_tls() {
    use tokio_postgres::config::SslMode;

    for (url, mode) in [
        ("postgresql://h/books", SslMode::Require),
        ("postgresql://10.0.0.1/books", SslMode::Require),
        ("postgresql://localhost,h/books", SslMode::Require),
        ("postgresql://h/books?sslmode=disable", SslMode::Disable),
        ("postgresql://localhost/books", SslMode::Prefer),
        ("postgresql://127.0.0.1/books", SslMode::Prefer),
        ("host=/run/postgresql dbname=books", SslMode::Prefer),
    ] {
        assert_eq!(
            link::with_care(url.parse().unwrap(), PATIENCE).get_ssl_mode(),
            mode,
            "{url}"
        );
    }
}

/// `tests/postgres/run cargo nextest run --all-features --run-ignored only --no-capture postgres::tests::measure`
#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    let ledger = books().await;
    let limits = || [lifetime(1_000_000_000), lifetime(2_000_000_000)].concat();
    for round in 0..5 {
        let start = std::time::Instant::now();
        for number in 0..200 {
            let id = format!("{round}-{number}");
            ledger
                .reserve(&wish(order(&id, 10), at(NOW), limits()))
                .await
                .unwrap();
            ledger
                .record(&order(&id, 10).key(), &signed(NOW + 300), at(NOW))
                .await
                .unwrap();
            ledger
                .record(&order(&id, 10).key(), &settled(), at(NOW))
                .await
                .unwrap();
        }
        println!(
            "{} purchases: {:?} each",
            (round + 1) * 200,
            start.elapsed() / 200
        );
    }
    let start = std::time::Instant::now();
    let report = ledger.verify(None).await.unwrap();
    println!("{} events verified in {:?}", report.events, start.elapsed());
}
