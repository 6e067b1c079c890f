//! Backups, restored copies, and ledgers that must exist.

use std::fmt::Debug;
use std::sync::Mutex;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::*;

async fn count(ledger: &Ledger) -> usize {
    ledger.purchases(&Filter::all()).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_that_is_made_while_others_pay_is_sound() {
    let (directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold_many(&ledger, 20).await;
    let writer = tokio::spawn({
        let ledger = ledger.clone();
        async move {
            for number in 0..200 {
                let key = hold(&ledger, order(&format!("while-{number}"), 1), NOW).await;
                let signed = signed(NOW + 300);
                ledger.record(&key, &signed, at(NOW)).await.unwrap();
            }
        }
    });
    let mut number = 0;
    loop {
        let is_last = writer.is_finished();
        let before = count(&ledger).await;
        let copy = directory.path().join(format!("copy-{number}.db"));
        ledger.backup(&copy).await.unwrap();
        let after = count(&ledger).await;
        let copy = Ledger::open_existing(&copy).unwrap();
        let copied = count(&copy).await;
        assert!(
            before <= copied && copied <= after,
            "{before} {copied} {after}"
        );
        assert!(copy.verify(None).await.unwrap().is_sound());
        number += 1;
        if is_last {
            break;
        }
    }
    writer.await.unwrap();
    let files = names(directory.path());
    let of_copies = files.iter().filter(|name| name.starts_with("copy-"));
    assert_eq!(of_copies.count(), 2 * number, "{files:?}");
    #[cfg(unix)]
    for name in files {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(directory.path().join(&name))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let (directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold_many(&ledger, 2).await;
    let copy = directory.path().join("copy.db");
    for taken in [copy.clone(), log_of(&copy), witness_of(&copy)] {
        fs::write(&taken, "mine").unwrap();
        ledger.backup(&copy).await.unwrap_err();
        assert_eq!(fs::read(&taken).unwrap(), b"mine");
        fs::remove_file(&taken).unwrap();
        assert!(!copy.exists());
    }
    ledger.backup(&path).await.unwrap_err();
    ledger
        .backup(directory.path().join("missing").join("copy.db"))
        .await
        .unwrap_err();
    Ledger::memory().backup(&copy).await.unwrap_err();
    Ledger::sqlite(":memory:")
        .unwrap()
        .backup(&copy)
        .await
        .unwrap_err();
    ledger.backup(&copy).await.unwrap();
    assert_eq!(count(&Ledger::open_existing(&copy).unwrap()).await, 2);
    assert_eq!(count(&ledger).await, 2);
}

#[tokio::test]
async fn a_backup_is_restored_on_purpose_and_tells_how_much_is_lost() {
    let (directory, path) = new_path();
    let copy = directory.path().join("copy.db");
    let ledger = Ledger::sqlite(&path).unwrap();
    hold_many(&ledger, 2).await;
    ledger.backup(&copy).await.unwrap();
    for id in ["third", "fourth"] {
        let key = hold(&ledger, order(id, 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
    }
    fs::remove_file(&path).unwrap();
    let stopped = ledger.purchases(&Filter::all()).await.unwrap_err();
    assert!(matches!(stopped, LedgerError::Damaged(_)), "{stopped:?}");
    drop(ledger);
    assert!(matches!(refused(&path), LedgerError::Damaged(_)));
    let restored = Ledger::restore(&copy, &path).unwrap();
    assert_eq!(
        (
            restored.purchases,
            restored.events,
            restored.lost_purchases,
            restored.lost_events
        ),
        (2, 2, Some(2), Some(4))
    );
    let again = Ledger::sqlite(&path).unwrap();
    assert_eq!(count(&again).await, 2);
    assert!(again.verify(None).await.unwrap().is_sound());
    assert!(names(directory.path()).contains(&"ledger.db-head.replaced".to_owned()));
    drop(again);
    // A second time, the files of the first time are in the way, and nothing is lost.
    Ledger::restore(&copy, &path).unwrap_err();
    assert_eq!(count(&Ledger::sqlite(&path).unwrap()).await, 2);
}

#[tokio::test]
async fn a_copy_without_a_witness_is_accepted_where_it_is_on_purpose_only() {
    let (_directory, path) = new_path();
    closed(&path, 3).await;
    fs::remove_file(witness_of(&path)).unwrap();
    meddle(&path, "DROP TABLE identity");
    assert!(matches!(refused(&path), LedgerError::Damaged(_)));
    let restored = Ledger::restore(&path, &path).unwrap();
    assert_eq!((restored.purchases, restored.lost_purchases), (3, None));
    let ledger = Ledger::sqlite(&path).unwrap();
    hold(&ledger, order("fourth", 10), NOW).await;
    drop(ledger);
    assert_eq!(count(&Ledger::sqlite(&path).unwrap()).await, 4);
    for (garbage, what) in [("", "empty"), ("no database at all, but a text", "text")] {
        let (_other, other) = new_path();
        put(&other, garbage.as_bytes());
        Ledger::restore(&other, &path).expect_err(what);
    }
    Ledger::restore(path.with_file_name("missing.db"), &path).unwrap_err();
    assert_eq!(count(&Ledger::sqlite(&path).unwrap()).await, 4);
}

#[tokio::test]
async fn a_ledger_that_must_exist_is_not_created() {
    let (directory, path) = new_path();
    let missing = |path: &Path| {
        let error = Ledger::open_existing(path).unwrap_err();
        assert!(matches!(error, LedgerError::Missing(_)), "{error:?}");
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    };
    missing(&path);
    missing(Path::new(":memory:"));
    put(&path, b"");
    missing(&path);
    assert_eq!(names(directory.path()), ["ledger.db"]);
    drop(Ledger::sqlite(&path).unwrap());
    Ledger::open_existing(&path).unwrap();
    missing(&directory.path().join("no such directory").join("ledger.db"));
}

/// Collects the warnings of a thread.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::WARN
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
                self.0.push_str(&format!("{value:?}"));
            }
        }
        let mut text = Text(String::new());
        event.record(&mut text);
        self.0.lock().unwrap().push(text.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[test]
fn a_new_ledger_is_told_with_its_absolute_path() {
    let (directory, path) = new_path();
    let warnings = Warnings::default();
    tracing::subscriber::with_default(warnings.clone(), || {
        drop(Ledger::open(&path).unwrap());
        drop(Ledger::open(&path).unwrap());
        drop(Ledger::open(":memory:").unwrap());
    });
    let warnings = warnings.0.lock().unwrap().clone();
    let absolute = directory.path().canonicalize().unwrap().join("ledger.db");
    assert_eq!(
        warnings,
        [format!("begins a new ledger at {}", absolute.display())]
    );
}
