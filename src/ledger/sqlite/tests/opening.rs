//! Opening a file: its owner, its permissions and its schema.

use super::*;

#[tokio::test]
async fn purchases_are_kept_when_the_file_is_opened_again() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    let before = format!("{:?}", ledger.purchase(&key).await.unwrap());
    drop(ledger);
    let ledger = Ledger::sqlite(&path).unwrap();
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
    let (directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let other = ledger.clone();
    hold(&ledger, order("order", 10), NOW).await;
    drop(ledger);
    hold(&other, order("other", 10), NOW).await;
    assert_eq!(names(directory.path()).len(), 4);
    drop(other);
    assert_eq!(names(directory.path()), ["ledger.db", "ledger.db-head"]);
}

#[test]
fn a_newer_schema_is_refused() {
    let (_directory, path) = new_path();
    drop(Ledger::sqlite(&path).unwrap());
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
    let (_directory, path) = new_path();
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
    let (directory, path) = new_path();
    let store = |error: LedgerError| assert!(matches!(error, LedgerError::Store(_)), "{error:?}");
    store(refused(&directory.path().join("missing").join("ledger.db")));
    store(refused(Path::new("")));
    store(refused(directory.path()));
    drop(Ledger::sqlite(&path).unwrap());
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    store(refused(&path));
}

#[cfg(unix)]
#[test]
fn a_directory_that_cannot_be_written_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let (directory, path) = new_path();
    drop(Ledger::sqlite(&path).unwrap());
    let mode =
        |mode| fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    let unstopped = fs::write(directory.path().join("probe"), "").is_ok();
    let (existing, new) = (
        Ledger::sqlite(&path),
        Ledger::sqlite(directory.path().join("new.db")),
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

    let (directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold(&ledger, order("order", 10), NOW).await;
    let files: Vec<_> = fs::read_dir(directory.path())
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(files.len(), 4, "{files:?}");
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
        let (_directory, path) = new_path();
        let start = std::sync::Barrier::new(8);
        thread::scope(|scope| {
            let open = || {
                start.wait();
                Ledger::sqlite(&path).map(drop)
            };
            let opened: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            for opened in opened {
                opened.join().unwrap().unwrap();
            }
        });
    }
}
