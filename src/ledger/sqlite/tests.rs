//! What only books in a file must do.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params_from_iter};

use super::*;
use crate::Usd;
use crate::ledger::Fault;
use crate::ledger::State;
use crate::ledger::conformance::{
    HOUR, NOW, PAYLOAD, at, given_up, hold, lifetime, meter, order, settled, signed, unknown, wish,
};
use crate::ledger::sql::tables::VERSION;
use crate::limit::{BEGINNING, LimitKind, Moment, Scope, Since};

fn shelf() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("books.db");
    (directory, path)
}

fn refused(path: &Path) -> LedgerError {
    SqliteLedger::open(path).expect_err("the file is refused")
}

/// Where SQLite writes first.
fn log_of(path: &Path) -> PathBuf {
    path.with_file_name(format!(
        "{}-wal",
        path.file_name().unwrap().to_str().unwrap()
    ))
}

/// So many purchases that are held.
async fn hold_many(ledger: &SqliteLedger, count: usize) {
    for number in 0..count {
        hold(ledger, order(&format!("order-{number}"), 10), NOW).await;
    }
}

/// The bytes of books with so many purchases at `path`, of which nobody has a handle any more.
async fn closed(path: &Path, purchases: usize) -> Vec<u8> {
    let ledger = SqliteLedger::open(path).unwrap();
    hold_many(&ledger, purchases).await;
    drop(ledger);
    meddle(path, "PRAGMA wal_checkpoint(TRUNCATE)");
    fs::read(path).unwrap()
}

/// Another program at the same file.
fn meddle(path: &Path, sql: &str) {
    Connection::open(path).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn books_are_kept_when_they_are_opened_again() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let before = format!("{:?}", ledger.purchase(&key).await.unwrap());
    drop(ledger);
    let ledger = SqliteLedger::open(&path).unwrap();
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
async fn the_last_handle_closes_the_file() {
    let (directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let other = ledger.clone();
    hold(&ledger, order("order", 10), NOW).await;
    drop(ledger);
    hold(&other, order("other", 10), NOW).await;
    drop(other);
    let start = Instant::now();
    let files = || fs::read_dir(directory.path()).unwrap().count();
    while files() > 1 {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "the log is still there"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_was_begun_is_finished_without_its_caller() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    {
        let transition = signed(NOW + 300);
        let mut record = Box::pin(ledger.record(&key, &transition, at(NOW)));
        let begun =
            std::future::poll_fn(|context| std::task::Poll::Ready(record.as_mut().poll(context)))
                .await;
        assert!(begun.is_pending() || begun.is_ready());
    }
    assert_eq!(
        ledger.purchase(&key).await.unwrap().unwrap().state,
        State::Signed
    );
}

#[tokio::test]
async fn a_panic_stops_the_books() {
    let ledger = SqliteLedger::open(":memory:").unwrap();
    let answer: Result<(), _> = ledger.run(|_| panic!("on purpose")).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    let answer = ledger.purchases(&Filter::all()).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
}

#[test]
fn a_newer_schema_is_refused() {
    let (_directory, path) = shelf();
    drop(SqliteLedger::open(&path).unwrap());
    meddle(&path, &format!("PRAGMA user_version = {}", VERSION + 1));
    assert!(
        matches!(refused(&path), LedgerError::Newer { found, known: VERSION } if found == VERSION + 1)
    );
    for never in 0..VERSION {
        meddle(&path, &format!("PRAGMA user_version = {never}"));
        assert!(matches!(refused(&path), LedgerError::Damaged(_)));
    }
}

#[test]
fn files_of_others_are_refused_and_untouched() {
    let (_directory, path) = shelf();
    for sql in [
        "CREATE TABLE notes (text)",
        "PRAGMA application_id = 7",
        "PRAGMA user_version = 7",
    ] {
        meddle(&path, sql);
        let before = fs::read(&path).unwrap();
        assert!(matches!(refused(&path), LedgerError::Damaged(_)), "{sql}");
        assert_eq!(fs::read(&path).unwrap(), before, "{sql}");
        fs::remove_file(&path).unwrap();
    }
    for garbage in [&b"{\"spent\": 12}"[..], &[0xA5; 8192], b"SQLite format 3\0"] {
        fs::write(&path, garbage).unwrap();
        let error = refused(&path);
        assert!(matches!(error, LedgerError::Damaged(_)), "{error:?}");
        assert_eq!(fs::read(&path).unwrap(), garbage);
    }
}

#[test]
fn a_place_that_cannot_be_written_is_refused() {
    let (directory, path) = shelf();
    let store = |error: LedgerError| assert!(matches!(error, LedgerError::Store(_)), "{error:?}");
    store(refused(&directory.path().join("missing").join("books.db")));
    store(refused(Path::new("")));
    store(refused(directory.path()));
    drop(SqliteLedger::open(&path).unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    store(refused(&path));
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = shelf();
    drop(SqliteLedger::open(&path).unwrap());
    let mode =
        |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    let unstopped = fs::write(directory.path().join("probe"), "").is_ok();
    let (existing, new) = (
        SqliteLedger::open(&path),
        SqliteLedger::open(directory.path().join("new.db")),
    );
    mode(0o700);
    // Root writes everywhere.
    assert!(
        unstopped
            || matches!(
                (existing, new),
                (Err(LedgerError::Store(_)), Err(LedgerError::Store(_)))
            )
    );
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_reads_the_file_and_its_log() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    hold(&ledger, order("order", 10), NOW).await;
    let files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(
            file.metadata().unwrap().permissions().mode() & 0o777,
            0o600,
            "{file:?}"
        );
    }
}

#[test]
fn many_may_open_a_new_file_at_once() {
    // The collision is rare: a hundred rounds meet it nearly always.
    for _ in 0..100 {
        let (_directory, path) = shelf();
        let start = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            let open = || {
                start.wait();
                SqliteLedger::open(&path).map(drop)
            };
            let opened: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            for opened in opened {
                opened.join().unwrap().unwrap();
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_on_one_file_hold_exactly_as_many_as_fit() {
    let (_directory, path) = shelf();
    let ledgers = [
        SqliteLedger::open(&path).unwrap(),
        SqliteLedger::open(&path).unwrap(),
    ];
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
    assert_eq!(held, 37);
}

const RACE: &str = "BURSAR_TEST_RACE";

#[test]
fn processes_hold_exactly_as_many_as_fit() {
    let (_directory, path) = shelf();
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "ledger::sqlite::tests::one_process_of_the_race",
            "--ignored",
        ]);
        command
            .env(RACE, &path)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap()
    };
    let children: Vec<_> = (0..4).map(|_| child()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let held: i64 = Connection::open(&path)
        .unwrap()
        .query_row("SELECT count(*) FROM purchases", [], |row| row.get(0))
        .unwrap();
    assert_eq!(held, 50);
}

#[tokio::test]
#[ignore = "a part of processes_hold_exactly_as_many_as_fit"]
async fn one_process_of_the_race() {
    let Ok(path) = std::env::var(RACE) else {
        return;
    };
    let ledger = SqliteLedger::open(path).unwrap();
    for number in 0..40 {
        let id = format!("{}-{number}", std::process::id());
        ledger
            .reserve(&wish(order(&id, 10), at(NOW), lifetime(500)))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn damage_is_named_and_stops_the_books() {
    let cases = [
        ("value", "'1e3'"),
        ("value", "'007'"),
        ("usd_micros", "NULL, asset = '0xE0'"),
        ("payee", "'nobody'"),
        ("payee", "upper(payee)"),
        ("network", "'base'"),
        ("origin", "'https://api.example.com:443'"),
        ("host_reversed", "'com.example'"),
        ("nonce", "'0x00'"),
        ("purchase", "''"),
        ("version", "1000"),
        ("valid_before", "-1"),
        ("status", "-1"),
        ("payload", "CAST(x'ff' AS TEXT)"),
    ];
    for (column, value) in cases {
        let (_directory, path) = shelf();
        let ledger = SqliteLedger::open(&path).unwrap();
        let key = hold(&ledger, order("order", 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        meddle(&path, &format!("UPDATE purchases SET {column} = {value}"));
        let named = if value.contains("asset") {
            "asset"
        } else {
            column
        };
        let expected = format!("the ledger is damaged: purchases, row 1, column {named}");
        assert_eq!(
            ledger
                .purchases(&Filter::all())
                .await
                .unwrap_err()
                .to_string(),
            expected,
            "{value}"
        );
        if matches!(named, "value" | "network" | "asset") {
            let answer = ledger
                .reserve(&wish(order("next", 10), at(NOW), lifetime(100)))
                .await;
            assert_eq!(answer.unwrap_err().to_string(), expected, "{value}");
        }
    }
}

#[tokio::test]
async fn a_damaged_page_stops_the_books() {
    let (_directory, path) = shelf();
    let mut bytes = closed(&path, 50).await;
    bytes[4096..].fill(0xA5);
    fs::write(&path, &bytes).unwrap();
    let answer = match SqliteLedger::open(&path) {
        Ok(ledger) => ledger
            .reserve(&wish(order("next", 1), at(NOW), lifetime(1000)))
            .await
            .map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(LedgerError::Damaged(_))), "{answer:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// By another program, or by a bit: each change leaves a schema that SQLite reads.
#[tokio::test]
async fn tables_and_indices_that_were_changed_stop_the_books() {
    let changes = [
        (
            "by_counts_at",
            "UPDATE sqlite_schema SET sql = replace(sql, 'live = 1', 'live = 2') WHERE name = 'by_counts_at'",
        ),
        (
            "purchases",
            "UPDATE sqlite_schema SET sql = CAST(replace(sql, 'foreign_resource', x'FF') AS TEXT)",
        ),
        (
            "totals",
            "UPDATE sqlite_schema SET sql = replace(sql, 'used_at', 'unused')",
        ),
        ("by_payee", "DROP INDEX by_payee"),
    ];
    for (name, change) in changes {
        let (_directory, path) = shelf();
        closed(&path, 1).await;
        meddle(
            &path,
            &format!("PRAGMA writable_schema = ON; {change}; PRAGMA wal_checkpoint(TRUNCATE)"),
        );
        let expected =
            format!("the ledger is damaged: `{name}` is not as schema version {VERSION} has it");
        assert_eq!(refused(&path).to_string(), expected);
    }
    let (_directory, path) = shelf();
    drop(SqliteLedger::open(&path).unwrap());
    meddle(
        &path,
        "CREATE INDEX mine ON purchases (method); CREATE VIEW paid AS SELECT value FROM purchases",
    );
    SqliteLedger::open(&path).unwrap();
}

#[tokio::test]
async fn a_file_that_was_cut_off_anywhere_stops_the_books() {
    let (_directory, path) = shelf();
    let whole = closed(&path, 10).await;
    // An empty file is how books begin.
    for cut in (1..whole.len()).step_by(127).chain([whole.len() - 1]) {
        let (_copy, copy) = shelf();
        fs::write(&copy, &whole[..cut]).unwrap();
        let error =
            SqliteLedger::open(&copy).expect_err(&format!("cut at {cut} of {}", whole.len()));
        assert!(
            matches!(error, LedgerError::Damaged(_)),
            "cut at {cut} of {}: {error}",
            whole.len()
        );
        assert_eq!(fs::read(&copy).unwrap(), whole[..cut], "as it was found");
    }
}

/// A crash while the log is written back leaves what a cut does, and the log.
#[tokio::test]
async fn a_page_that_was_half_written_back_is_in_the_log() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let laid_out = fs::metadata(&path).unwrap().len();
    hold_many(&ledger, 20).await;
    let checkpoint = |connection: &mut Connection| {
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(failed)
    };
    ledger.run(checkpoint).await.unwrap();
    let (file, log) = (fs::read(&path).unwrap(), fs::read(log_of(&path)).unwrap());
    let laid_out = usize::try_from(laid_out).unwrap();
    assert!(laid_out + 4096 < file.len());
    for written in (laid_out..file.len()).step_by(1000) {
        let (_copy, copy) = shelf();
        fs::write(&copy, &file[..written]).unwrap();
        fs::write(log_of(&copy), &log).unwrap();
        let books = SqliteLedger::open(&copy).unwrap();
        assert_eq!(
            books.purchases(&Filter::all()).await.unwrap().len(),
            20,
            "{written} of {}",
            file.len()
        );
        assert!(books.verify(None).await.unwrap().is_sound());
    }
}

#[tokio::test]
async fn a_full_disk_holds_nothing() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let full = |connection: &mut Connection| {
        connection
            .query_row("PRAGMA max_page_count = 1", [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    ledger.run(full).await.unwrap();
    let mut held = 0;
    let error = loop {
        match ledger
            .reserve(&wish(
                order(&format!("order-{held}"), 1),
                at(NOW),
                Vec::new(),
            ))
            .await
        {
            Ok(_) => held += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LedgerError::Store(_)), "{error:?}");
    assert_eq!(ledger.purchases(&Filter::all()).await.unwrap().len(), held);
}

#[tokio::test]
async fn every_transition_is_an_event_and_stays() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    for (number, transition) in [signed(NOW + 300), settled()].iter().enumerate() {
        ledger
            .record(
                &key,
                transition,
                at(NOW + 1 + u64::try_from(number).unwrap()),
            )
            .await
            .unwrap();
    }
    assert!(ledger.record(&key, &given_up(), at(NOW + 9)).await.is_err());
    let books = Connection::open(&path).unwrap();
    let events = "SELECT group_concat(concat_ws(' ', seq, at - 1000 * ?, payer, purchase, from_state, to_state, detail ->> 'value'), '; ') FROM events";
    let events: String = books
        .query_row(events, [NOW.cast_signed()], |row| row.get(0))
        .unwrap();
    let who = "0xabababababababababababababababababababab order";
    assert_eq!(
        events,
        format!(
            "1 0 {who} reserved 10; 2 1000 {who} reserved signed 10; 3 2000 {who} signed settled 10"
        )
    );
    for sql in [
        "UPDATE events SET at = 0",
        "DELETE FROM events",
        "DELETE FROM purchases",
    ] {
        assert!(books.execute_batch(sql).is_err(), "{sql}");
    }
}

#[tokio::test]
async fn the_payload_is_in_its_column_alone() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let shown = format!("{ledger:?} {:?}", ledger.purchase(&key).await.unwrap());
    assert!(!shown.contains(PAYLOAD), "{shown}");
    let books = Connection::open(&path).unwrap();
    let count = |sql: &str| {
        books
            .query_row(sql, [PAYLOAD], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    assert_eq!(count("SELECT count(*) FROM purchases WHERE payload = ?"), 1);
    assert_eq!(
        count("SELECT count(*) FROM events WHERE instr(detail, ?)"),
        0
    );
    // Not even in the error of a write that fails because of it.
    books
        .execute_batch(
            "CREATE TRIGGER refuse BEFORE UPDATE ON purchases BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .unwrap();
    let again = signed(NOW + 300);
    let error = ledger.record(&key, &again, at(NOW)).await.unwrap_err();
    assert!(!format!("{error:?} {error}").contains(PAYLOAD), "{error:?}");
}

#[test]
fn every_question_is_a_range_of_an_index() {
    let (_directory, path) = shelf();
    drop(SqliteLedger::open(&path).unwrap());
    let books = Connection::open(&path).unwrap();
    let asset = order("order", 1).asset;
    let scopes = [
        (Scope::Global, "by_counts_at", ""),
        (
            Scope::Origin("https://a.example".parse().unwrap()),
            "by_origin",
            "origin=?",
        ),
        (
            Scope::Host("a.example".parse().unwrap()),
            "by_host",
            "host_reversed=?",
        ),
        (
            Scope::Host("*.example".parse().unwrap()),
            "by_host",
            "host_reversed>? AND host_reversed<?",
        ),
        (
            Scope::Domain("a.example".to_owned()),
            "by_host",
            "host_reversed>? AND host_reversed<?",
        ),
        (Scope::Payee(asset.address()), "by_payee", "payee=?"),
        (
            Scope::Asset(asset.network(), asset.address()),
            "by_asset",
            "network=? AND asset=?",
        ),
        (Scope::Network(asset.network()), "by_network", "network=?"),
        (Scope::Tag("t".to_owned()), "by_tag", "tag=?"),
        (Scope::Agent("a".to_owned()), "by_agent", "agent=?"),
    ];
    let known = RefCell::default();
    let view = View::new(
        File {
            books: &books,
            known: &known,
        },
        at(NOW),
        None,
    )
    .unwrap();
    let plans = |scope: &Scope, moment, after| {
        let since = Since { moment, after };
        let plan = |Query { sql, values }| {
            let mut statement = books.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            statement
                .query_row(params_from_iter(values), |row| {
                    row.get::<_, String>("detail")
                })
                .unwrap()
        };
        view.queries(scope, since).map(plan).collect::<Vec<_>>()
    };
    for (scope, index, range) in scopes {
        let [ever, under_way] = plans(&scope, Moment::CountsAt, BEGINNING)
            .try_into()
            .unwrap();
        assert!(
            ever.contains(&format!("INDEX {index}")) && ever.contains(range),
            "{ever}"
        );
        assert!(under_way.contains("INDEX under_way"), "{under_way}");
        let [spent, under_way] = plans(&scope, Moment::CountsAt, at(NOW)).try_into().unwrap();
        let within_range = range.contains('<') || spent.contains("counts_at>?");
        assert!(
            spent.starts_with("SEARCH") && spent.contains(range) && within_range,
            "{spent}"
        );
        assert!(under_way.contains("INDEX under_way"), "{under_way}");
        let [reserved] = plans(&scope, Moment::ReservedAt, at(NOW))
            .try_into()
            .unwrap();
        assert!(
            reserved.ends_with("INDEX by_reserved_at (reserved_at>?)"),
            "{reserved}"
        );
        let [outstanding] = plans(&scope, Moment::ExpiresAt, at(NOW))
            .try_into()
            .unwrap();
        assert!(
            outstanding.ends_with("INDEX by_expires_at (expires_at>?)"),
            "{outstanding}"
        );
    }
}

/// `cargo nextest run --run-ignored only --no-capture measure`
#[tokio::test]
#[ignore = "a measurement"]
async fn measure() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let limits = || {
        [
            lifetime(Usd::MAX.micros()),
            vec![meter(
                Scope::Global,
                LimitKind::Rolling(HOUR, Usd::MAX.into()),
            )],
        ]
        .concat()
    };
    for round in 0..5 {
        let start = Instant::now();
        for number in 0..200 {
            let id = format!("{round}-{number}");
            let key = order(&id, 10).key();
            ledger
                .reserve(&wish(order(&id, 10), at(NOW), limits()))
                .await
                .unwrap();
            ledger
                .record(&key, &signed(NOW + 300), at(NOW))
                .await
                .unwrap();
            ledger.record(&key, &settled(), at(NOW)).await.unwrap();
        }
        println!(
            "{} purchases: {:?} each",
            (round + 1) * 200,
            start.elapsed() / 200
        );
    }
    let start = Instant::now();
    let report = ledger.verify(None).await.unwrap();
    println!("{} events verified in {:?}", report.events, start.elapsed());
}

/// Three purchases with seven events.
async fn told(ledger: &SqliteLedger) {
    for id in ["one", "two", "three"] {
        let key = hold(ledger, order(id, 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
    }
    ledger
        .record(&order("two", 10).key(), &settled(), at(NOW + 1))
        .await
        .unwrap();
}

#[tokio::test]
async fn every_tampering_is_found() {
    use Fault::{EventChanged, EventsMissing, PurchaseChanged, PurchaseMissing};

    let copy = "INSERT INTO events SELECT 8, at, payer, purchase, from_state, to_state, detail, purchase_hash, hash FROM events";
    let swap = "UPDATE events SET seq = -1 WHERE seq = 3; UPDATE events SET seq = 3 WHERE seq = 5; \
                UPDATE events SET seq = 5 WHERE seq = -1";
    let cases = [
        ("", vec![]),
        (
            "UPDATE events SET at = at + 1 WHERE seq = 2",
            vec![EventChanged { row: 2 }],
        ),
        (
            "UPDATE events SET from_state = NULL WHERE seq = 2",
            vec![EventChanged { row: 2 }],
        ),
        (
            "UPDATE events SET to_state = 'settled' WHERE seq = 6",
            vec![EventChanged { row: 6 }],
        ),
        (
            "UPDATE events SET detail = replace(detail, '10', '11') WHERE seq = 3",
            vec![EventChanged { row: 3 }],
        ),
        (
            "UPDATE events SET hash = purchase_hash WHERE seq = 3",
            vec![EventChanged { row: 3 }, EventChanged { row: 4 }],
        ),
        (
            "UPDATE events SET hash = upper(hash) WHERE seq = 7",
            vec![EventChanged { row: 7 }],
        ),
        (
            "DELETE FROM events WHERE seq = 1",
            vec![EventsMissing { from: 1, to: 1 }, EventChanged { row: 2 }],
        ),
        (
            "DELETE FROM events WHERE seq IN (3, 4)",
            vec![EventsMissing { from: 3, to: 4 }, EventChanged { row: 5 }],
        ),
        (
            "DELETE FROM events WHERE seq = 7",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "DELETE FROM events WHERE seq = 3; UPDATE events SET seq = seq - 1 WHERE seq > 3",
            (3..=6)
                .map(|row| EventChanged { row })
                .chain([2, 3].map(|row| PurchaseChanged { row }))
                .collect(),
        ),
        (
            swap,
            vec![3, 4, 5, 6]
                .into_iter()
                .map(|row| EventChanged { row })
                .collect(),
        ),
        (
            &format!("{copy} WHERE seq = 7"),
            vec![EventChanged { row: 8 }, PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET value = '9' WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET state = 'voided', live = 0 WHERE seq = 1",
            vec![PurchaseChanged { row: 1 }],
        ),
        (
            "UPDATE purchases SET value = 'x' WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET last_event = 3 WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET last_event = 6 WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET last_event = 9 WHERE seq = 2",
            vec![PurchaseChanged { row: 2 }],
        ),
        (
            "UPDATE purchases SET seq = 9 WHERE seq = 2",
            vec![PurchaseChanged { row: 9 }],
        ),
        (
            "DELETE FROM purchases WHERE seq = 2",
            [3, 4, 7].map(|event| PurchaseMissing { event }).to_vec(),
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
        let (_directory, path) = shelf();
        let ledger = SqliteLedger::open(&path).unwrap();
        told(&ledger).await;
        meddle(
            &path,
            "DROP TRIGGER purchases_stay; DROP TRIGGER events_stay; DROP TRIGGER events_stand;",
        );
        meddle(&path, sql);
        let report = ledger.verify(None).await.unwrap();
        assert_eq!(report.faults, faults, "{sql}");
        assert_eq!(report.is_sound(), sql.is_empty(), "{sql}");
    }
}

#[tokio::test]
async fn a_purchase_that_was_set_back_is_found() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let key = hold(&ledger, order("one", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    meddle(
        &path,
        "CREATE TABLE earlier AS SELECT * FROM purchases; DROP TRIGGER purchases_stay;",
    );
    ledger.record(&key, &unknown(), at(NOW)).await.unwrap();
    ledger.record(&key, &settled(), at(NOW + 1)).await.unwrap();
    meddle(
        &path,
        "DELETE FROM purchases; INSERT INTO purchases SELECT * FROM earlier;",
    );
    let report = ledger.verify(None).await.unwrap();
    let purchase: Vec<_> = report
        .faults
        .iter()
        .filter(|fault| !matches!(fault, Fault::TotalChanged { .. }))
        .collect();
    assert_eq!(
        purchase,
        [&Fault::PurchaseChanged { row: 1 }],
        "once, though two events came after"
    );
}

#[tokio::test]
async fn every_column_of_a_purchase_is_sealed() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    told(&ledger).await;
    let books = Connection::open(&path).unwrap();
    let mut names = books
        .prepare("SELECT name, type FROM pragma_table_info('purchases')")
        .unwrap();
    let names: Vec<(String, String)> = names
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert!(names.len() >= 34);
    for (name, kind) in names {
        let other = if kind == "TEXT" {
            format!("coalesce({name}, '') || 'x'")
        } else {
            format!("coalesce({name}, 0) + 1")
        };
        let change = format!(
            "BEGIN; PRAGMA ignore_check_constraints = ON; UPDATE purchases SET {name} = {other} WHERE seq = 3; COMMIT"
        );
        books
            .execute_batch(&format!(
                "CREATE TEMP TABLE kept AS SELECT * FROM purchases WHERE seq = 3; {change}"
            ))
            .unwrap();
        let report = ledger.verify(None).await.unwrap();
        assert!(!report.is_sound(), "{name}");
        books.execute_batch("DROP TRIGGER IF EXISTS purchases_stay; DELETE FROM purchases WHERE seq IN (3, 4); INSERT INTO purchases SELECT * FROM kept; DROP TABLE kept;").unwrap();
        assert!(ledger.verify(None).await.unwrap().is_sound(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn books_are_verified_while_they_are_written() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
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
async fn a_noted_head_shows_what_the_chain_alone_does_not() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let empty = ledger.verify(Some(B256::ZERO)).await.unwrap();
    assert_eq!(
        (empty.events, empty.purchases, empty.head, empty.is_sound()),
        (0, 0, B256::ZERO, true)
    );
    told(&ledger).await;
    let noted = ledger.verify(Some(empty.head)).await.unwrap();
    assert_eq!(
        (noted.events, noted.purchases, noted.is_sound()),
        (7, 3, true)
    );
    hold(&ledger, order("four", 10), NOW).await;
    let later = ledger.verify(Some(noted.head)).await.unwrap();
    assert!(later.is_sound() && later.head != noted.head, "{later:?}");
    // The newest purchase vanishes with its event, and the rest is whole.
    meddle(
        &path,
        "DROP TRIGGER purchases_stay; DROP TRIGGER events_stay;",
    );
    meddle(
        &path,
        "DELETE FROM events WHERE seq = 8; DELETE FROM purchases WHERE seq = 4;",
    );
    assert!(ledger.verify(Some(noted.head)).await.unwrap().is_sound());
    let report = ledger.verify(Some(later.head)).await.unwrap();
    assert_eq!(report.faults, [Fault::HeadMissing(later.head)]);
}

/// As on a disk that is full: SQLite is told that the file may not grow.
#[tokio::test]
async fn a_full_disk_stops_the_books_and_loses_nothing() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let pages = async |most: &'static str| {
        let sql = format!("PRAGMA max_page_count = {most}");
        ledger
            .run(move |books| books.query_row(&sql, [], |_| Ok(())).map_err(failed))
            .await
            .unwrap();
    };
    let first = hold(&ledger, order("first", 10), NOW).await;
    pages("1").await;
    let mut held = 0_usize;
    let refused = loop {
        match ledger
            .reserve(&wish(
                order(&format!("order-{held}"), 1),
                at(NOW),
                Vec::new(),
            ))
            .await
        {
            Ok(Reserved::Held(_)) => held = held.saturating_add(1),
            other => break other,
        }
        assert!(held < 10_000, "the file does not grow for ever");
    };
    assert!(matches!(refused, Err(LedgerError::Store(_))), "{refused:?}");
    // What is to leave needs its record first, and does not get it.
    let mut recorded = 0_usize;
    let unsigned = loop {
        match ledger.record(&first, &signed(NOW + 300), at(NOW)).await {
            Ok(()) => recorded = recorded.saturating_add(1),
            other => break other,
        }
        assert!(recorded < 10_000, "the file does not grow for ever");
    };
    assert!(
        matches!(unsigned, Err(LedgerError::Store(_))),
        "{unsigned:?}"
    );
    assert_eq!(
        ledger.purchases(&Filter::all()).await.unwrap().len(),
        held.saturating_add(1)
    );
    pages("1000000").await;
    ledger
        .record(&first, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    assert!(matches!(
        ledger
            .reserve(&wish(order("last", 1), at(NOW), Vec::new()))
            .await,
        Ok(Reserved::Held(_))
    ));
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

/// A crash may leave any beginning of what was being written: everything before it stays.
#[tokio::test]
async fn a_log_that_was_cut_anywhere_keeps_what_was_acknowledged_before() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    hold(&ledger, order("first", 10), NOW).await;
    let log = log_of(&path);
    let acknowledged = fs::metadata(&log).unwrap().len();
    hold(&ledger, order("second", 10), NOW).await;
    let (file, whole) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    let acknowledged = usize::try_from(acknowledged).unwrap();
    assert!(whole.len() > acknowledged);
    for cut in (acknowledged..=whole.len())
        .step_by(97)
        .chain([whole.len()])
    {
        let (_copy, copy) = shelf();
        fs::write(&copy, &file).unwrap();
        fs::write(log_of(&copy), &whole[..cut]).unwrap();
        let books = SqliteLedger::open(&copy).unwrap();
        let purchases = books.purchases(&Filter::all()).await.unwrap();
        let expected = if cut == whole.len() { 2 } else { 1 };
        assert_eq!(purchases.len(), expected, "cut at {cut} of {}", whole.len());
        assert!(books.verify(None).await.unwrap().is_sound());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_wait_for_each_other_are_each_whole_or_not_there() {
    let (_directory, path) = shelf();
    let ledger = SqliteLedger::open(&path).unwrap();
    let (busy, wait) = channel::<()>();
    let blocker = ledger.clone();
    let blocker = tokio::spawn(async move {
        blocker
            .run(move |_| wait.recv().map_err(LedgerError::store))
            .await
    });
    let reserve = |id: &str, micros: u64| {
        let (ledger, wish) = (
            ledger.clone(),
            wish(order(id, micros), at(NOW), lifetime(25)),
        );
        tokio::spawn(async move { ledger.reserve(&wish).await })
    };
    let stray = |transition: Transition| {
        let (ledger, key) = (ledger.clone(), order("nobody", 1).key());
        tokio::spawn(async move { ledger.record(&key, &transition, at(NOW)).await })
    };
    // They come while the thread is busy, in no order, and share what follows.
    let (first, second, lost, third) = (
        reserve("a", 10),
        reserve("b", 10),
        stray(settled()),
        reserve("c", 10),
    );
    busy.send(()).unwrap();
    blocker.await.unwrap().unwrap();
    let mut held = 0;
    for answer in [first, second, third] {
        held += u32::from(matches!(answer.await.unwrap().unwrap(), Reserved::Held(_)));
    }
    assert_eq!(
        held, 2,
        "the third sees the two before it, committed or not"
    );
    assert!(matches!(
        lost.await.unwrap().unwrap_err(),
        LedgerError::UnknownPurchase(_)
    ));
    drop(ledger);
    let again = SqliteLedger::open(&path).unwrap();
    assert_eq!(again.purchases(&Filter::all()).await.unwrap().len(), 2);
    assert!(again.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn what_another_connection_writes_is_seen_at_once() {
    let (_directory, path) = shelf();
    let books = [
        SqliteLedger::open(&path).unwrap(),
        SqliteLedger::open(&path).unwrap(),
    ];
    for number in 0..6 {
        let [mine, other] = [&books[number % 2], &books[(number + 1) % 2]];
        let key = hold(mine, order(&format!("order-{number}"), 10), NOW).await;
        other
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        mine.record(&key, &settled(), at(NOW)).await.unwrap();
        assert_eq!(
            other.purchase(&key).await.unwrap().unwrap().state,
            State::Settled
        );
        for books in [other, mine] {
            let denied = books
                .reserve(&wish(
                    order("more", 50),
                    at(NOW),
                    lifetime(59 + 10 * number as u64),
                ))
                .await;
            assert!(
                matches!(denied, Ok(Reserved::Denied(_))),
                "{number}: {denied:?}"
            );
        }
    }
    assert!(books[0].verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn what_was_taken_back_is_not_remembered() {
    let (_directory, path) = shelf();
    let books = SqliteLedger::open(&path).unwrap();
    hold(&books, order("first", 10), NOW).await;
    // The event of the next purchase is refused, after its totals and its row were written.
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.purchase = 'lost'
        BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    meddle(&path, trigger);
    let wished = |id: &str, value| wish(order(id, value), at(NOW), lifetime(100));
    books.reserve(&wished("known", 1)).await.unwrap();
    books.reserve(&wished("lost", 20)).await.unwrap_err();
    books.reserve(&wished("first", 10)).await.unwrap();
    let held = books.reserve(&wished("second", 89)).await.unwrap();
    assert!(matches!(held, Reserved::Held(entry) if entry.seq == 3));
    assert!(
        books
            .purchase(&order("lost", 20).key())
            .await
            .unwrap()
            .is_none()
    );
    assert!(books.verify(None).await.unwrap().is_sound());
}
