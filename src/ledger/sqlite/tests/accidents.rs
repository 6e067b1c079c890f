//! Accidents with the files of a ledger. None of them makes room under a limit without an error.

use super::*;
use crate::ledger::conformance::proved::released;

/// The limit of the tests, in micro-dollars. [`spend`] uses all of it.
const LIMIT: u64 = 30;

/// Signs three purchases of 10 micro-dollars each, and settles the first.
async fn spend(ledger: &Ledger) {
    for id in ["one", "two", "three"] {
        sign(ledger, id).await.unwrap();
    }
    let first = order("one", 10).key();
    ledger.record(&first, &settled(), at(NOW)).await.unwrap();
}

/// Holds and signs a purchase under the limit.
async fn sign(ledger: &Ledger, id: &str) -> Result<(), LedgerError> {
    let wish = wish(order(id, 10), at(NOW), lifetime(LIMIT));
    match ledger.reserve(&wish).await? {
        Reserved::Held(held) => {
            let signed = signed(NOW + 300);
            ledger.record(&held.key(), &signed, at(NOW)).await
        }
        denied => panic!("{denied:?}"),
    }
}

/// Whether one more purchase is denied, as the limit demands.
async fn is_denied(ledger: &Ledger) -> bool {
    let wish = wish(order("more", 1), at(NOW), lifetime(LIMIT));
    matches!(ledger.reserve(&wish).await.unwrap(), Reserved::Denied(_))
}

/// Asserts that the ledger refuses to pay, to record and to report.
async fn is_stopped(ledger: &Ledger, about: &str) {
    let damaged = |error: LedgerError| {
        assert!(
            matches!(
                error,
                LedgerError::Damaged(_) | LedgerError::SecondName { .. }
            ),
            "{about}: {error:?}"
        );
    };
    damaged(sign(ledger, "more").await.unwrap_err());
    let key = order("two", 10).key();
    damaged(ledger.record(&key, &settled(), at(NOW)).await.unwrap_err());
    damaged(ledger.purchases(&Filter::all()).await.unwrap_err());
    damaged(ledger.verify(None).await.unwrap_err());
}

/// Writes a full ledger and closes it.
async fn full(path: &Path) {
    spend(&Ledger::sqlite(path).unwrap()).await;
}

/// Copies what a crash of this moment would leave.
fn crash(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let (directory, copy) = new_path();
    for of in [Path::to_owned, log_of, witness_of] {
        if let Ok(bytes) = fs::read(of(path)) {
            put(&of(&copy), &bytes);
        }
    }
    (directory, copy)
}

fn cut(path: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

#[tokio::test]
async fn a_crash_leaves_a_ledger_with_all_that_was_signed() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let (_empty, empty) = crash(&path);
    assert!(Ledger::sqlite(&empty).is_ok());
    spend(&ledger).await;
    let (_copy, copy) = crash(&path);
    assert!(length(&log_of(&copy)) > 0);
    let after = Ledger::sqlite(&copy).unwrap();
    assert!(is_denied(&after).await);
    assert!(after.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_ledger_that_lost_its_end_in_a_crash_is_damaged() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let fresh = fs::read(witness_of(&path)).unwrap();
    spend(&ledger).await;
    type Accident = (&'static str, fn(&Path));
    let accidents: [Accident; 9] = [
        ("no log", |path| fs::remove_file(log_of(path)).unwrap()),
        ("an empty log", |path| cut(&log_of(path), 0)),
        ("a log without its header", |path| cut(&log_of(path), 31)),
        ("half of the log", |path| {
            cut(&log_of(path), length(&log_of(path)) / 2)
        }),
        ("no end of the log", |path| {
            cut(&log_of(path), length(&log_of(path)) - 1)
        }),
        ("an empty file", |path| cut(path, 0)),
        ("no file", |path| fs::remove_file(path).unwrap()),
        ("no witness", |path| {
            fs::remove_file(witness_of(path)).unwrap()
        }),
        ("neither log nor witness", |path| {
            fs::remove_file(log_of(path)).unwrap();
            fs::remove_file(witness_of(path)).unwrap();
        }),
    ];
    for (about, accident) in accidents {
        let (_copy, copy) = crash(&path);
        accident(&copy);
        let before = names(copy.parent().unwrap());
        for open in [
            |path| Ledger::sqlite(path),
            |path: &PathBuf| Ledger::open_existing(path),
        ] {
            let error = open(&copy).expect_err(about);
            assert!(
                matches!(error, LedgerError::Damaged(_)),
                "{about}: {error:?}"
            );
        }
        let mut after = names(copy.parent().unwrap());
        after.retain(|name| {
            !name.ends_with("-shm") && (before.contains(name) || !name.ends_with("-wal"))
        });
        assert_eq!(after, before, "{about}: the files stay as they were found");
    }
    // A witness that is behind, as a power cut leaves it, is right.
    let (_copy, copy) = crash(&path);
    put(&witness_of(&copy), &fresh);
    assert!(is_denied(&Ledger::sqlite(&copy).unwrap()).await);
}

#[tokio::test]
async fn a_closed_ledger_that_was_cut_or_lost_is_damaged() {
    let (_directory, path) = new_path();
    full(&path).await;
    let (whole, witness) = (
        fs::read(&path).unwrap(),
        fs::read(witness_of(&path)).unwrap(),
    );
    let (_other_directory, other) = new_path();
    full(&other).await;
    let (_empty_directory, empty) = new_path();
    drop(Ledger::sqlite(&empty).unwrap());
    let foreign = [&other, &empty].map(|path| fs::read(witness_of(path)).unwrap());
    let mut flipped = witness.clone();
    let last = flipped.len() - 30;
    flipped[last] ^= 1;
    let nothing = &[][..];
    let cases: [(&str, Option<&[u8]>, Option<&[u8]>); 11] = [
        ("an empty file", Some(nothing), Some(&witness)),
        ("one page", Some(&whole[..4096]), Some(&witness)),
        (
            "half of a page",
            Some(&whole[..whole.len() - 2048]),
            Some(&witness),
        ),
        (
            "no last page",
            Some(&whole[..whole.len() - 4096]),
            Some(&witness),
        ),
        ("no file", None, Some(&witness)),
        ("no witness", Some(&whole), None),
        ("an empty witness", Some(&whole), Some(nothing)),
        (
            "half of a witness",
            Some(&whole),
            Some(&witness[..witness.len() / 2]),
        ),
        ("another witness", Some(&whole), Some(&foreign[0])),
        (
            "the witness of an empty ledger",
            Some(&whole),
            Some(&foreign[1]),
        ),
        ("a changed witness", Some(&whole), Some(&flipped)),
    ];
    for (about, file, witness) in cases {
        let (_copy, copy) = new_path();
        for (path, bytes) in [(copy.clone(), file), (witness_of(&copy), witness)] {
            if let Some(bytes) = bytes {
                put(&path, bytes);
            }
        }
        let error = Ledger::sqlite(&copy).expect_err(about);
        assert!(
            matches!(error, LedgerError::Damaged(_)),
            "{about}: {error:?}"
        );
    }
    let (_copy, copy) = new_path();
    put(&copy, &whole);
    put(&witness_of(&copy), &witness);
    assert!(is_denied(&Ledger::sqlite(&copy).unwrap()).await);
}

#[tokio::test]
async fn an_older_copy_that_was_put_back_is_damaged() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "one").await.unwrap();
    drop(ledger);
    let older = fs::read(&path).unwrap();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "two").await.unwrap();
    drop(ledger);
    put(&path, &older);
    let error = refused(&path).to_string();
    assert!(
        error.contains("has 2 events, but lacks event 4")
            && error.contains("bursar ledger restore"),
        "{error}"
    );
    // Not even an unsigned hold is forgotten when programs end normally.
    let (_directory, path) = new_path();
    drop(Ledger::sqlite(&path).unwrap());
    let older = fs::read(&path).unwrap();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold(&ledger, order("held", 10), NOW).await;
    drop(ledger);
    put(&path, &older);
    assert!(matches!(refused(&path), LedgerError::Damaged(_)));
}

/// Generation 0 of the purchase would be signed again next to the paid generation 1.
#[tokio::test]
async fn a_purchase_that_was_released_and_bought_again_is_not_signed_by_an_older_ledger() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "order").await.unwrap();
    drop(ledger);
    let older = fs::read(&path).unwrap();
    let ledger = Ledger::sqlite(&path).unwrap();
    let key = order("order", 10).key();
    let proof = released(&ledger, &key, NOW + 300, true).await;
    ledger.record(&key, &proof, at(NOW + 400)).await.unwrap();
    let again = wish(order("order", 10), at(NOW), lifetime(LIMIT));
    let Reserved::Held(again) = ledger.reserve(&again).await.unwrap() else {
        panic!("it can be bought again")
    };
    assert_eq!(again.generation, 1);
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    drop(ledger);
    put(&path, &older);
    assert!(matches!(refused(&path), LedgerError::Damaged(_)));
}

#[cfg(unix)]
#[tokio::test]
async fn a_ledger_with_a_hard_link_is_refused() {
    let (directory, path) = new_path();
    full(&path).await;
    let link = directory.path().join("link");
    for of in [Path::to_owned, witness_of] {
        fs::hard_link(of(&path), &link).unwrap();
        for name in [&path, &link] {
            assert!(matches!(
                Ledger::sqlite(name),
                Err(LedgerError::SecondName { .. } | LedgerError::Damaged(_))
            ));
        }
        let error = refused(&path).to_string();
        assert!(
            error.contains("share the directory, never the file"),
            "{error}"
        );
        fs::remove_file(&link).unwrap();
    }
    // While it is open, the next payment is refused.
    let ledger = Ledger::sqlite(&path).unwrap();
    for of in [Path::to_owned, log_of, witness_of] {
        fs::hard_link(of(&path), &link).unwrap();
        is_stopped(&ledger, "linked").await;
        fs::remove_file(&link).unwrap();
    }
    assert!(is_denied(&ledger).await);
}

#[cfg(target_os = "linux")]
#[test]
fn a_ledger_that_is_mounted_as_a_single_file_is_refused() {
    let (directory, path) = new_path();
    drop(Ledger::sqlite(&path).unwrap());
    let mounted = directory.path().join("my mounted.db");
    fs::write(&mounted, "").unwrap();
    let child = in_another_process("accidents::a_mounted_file", &mounted);
    let arguments = child.get_args().map(|argument| argument.to_str().unwrap());
    let script = format!(
        "mount --bind '{}' '{}' || exit 77; '{}' {}",
        path.display(),
        mounted.display(),
        child.get_program().to_str().unwrap(),
        arguments.collect::<Vec<_>>().join(" ")
    );
    let status = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("BURSAR_TEST_PATH", &mounted)
        .stdout(process::Stdio::null())
        .status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => {}
        Ok(Some(101)) => panic!("the mounted file was not refused"),
        other => eprintln!("SKIPPED: this machine allows no mounts ({other:?})"),
    }
}

#[test]
#[ignore = "a part of a_ledger_that_is_mounted_as_a_single_file_is_refused"]
fn a_mounted_file() {
    let Some(path) = std::env::var_os("BURSAR_TEST_PATH") else {
        return;
    };
    let error = refused(Path::new(&path));
    assert!(matches!(error, LedgerError::SecondName { .. }), "{error:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_ledger_is_opened_through_a_symbolic_link_as_the_same_ledger() {
    let (directory, path) = new_path();
    let (link, dangling) = (
        directory.path().join("link.db"),
        directory.path().join("no.db"),
    );
    std::os::unix::fs::symlink(&path, &link).unwrap();
    std::os::unix::fs::symlink("nowhere/at.db", &dangling).unwrap();
    full(&path).await;
    assert!(is_denied(&Ledger::sqlite(&link).unwrap()).await);
    assert!(matches!(refused(&dangling), LedgerError::Store(_)));
    assert_eq!(
        names(directory.path()),
        ["ledger.db", "ledger.db-head", "link.db", "no.db"]
    );
}

#[cfg(unix)]
#[tokio::test]
async fn an_open_ledger_whose_files_went_away_stops_until_it_is_opened_again() {
    type Of = fn(&Path) -> PathBuf;
    let files: [(&str, Of); 3] = [
        ("file", Path::to_owned),
        ("log", log_of),
        ("witness", witness_of),
    ];
    for (name, of) in files {
        for accident in ["renamed", "deleted", "replaced", "replaced by a link to it"] {
            let about = format!("the {name} was {accident}");
            let (directory, path) = new_path();
            let ledger = Ledger::sqlite(&path).unwrap();
            spend(&ledger).await;
            let (file, aside) = (of(&path), directory.path().join("aside"));
            let (kept_file, kept_log) =
                (fs::read(&path).unwrap(), fs::read(log_of(&path)).unwrap());
            fs::rename(&file, &aside).unwrap();
            match accident {
                "replaced" => drop(fs::copy(&aside, &file).unwrap()),
                "replaced by a link to it" => std::os::unix::fs::symlink(&aside, &file).unwrap(),
                _ => {}
            }
            is_stopped(&ledger, &about).await;
            let is_lost = accident == "deleted";
            if !is_lost {
                fs::rename(&aside, &file).unwrap();
                is_stopped(&ledger, &format!("{about}, and put back")).await;
            }
            drop(ledger);
            if is_lost {
                assert!(Ledger::sqlite(&path).is_err(), "{about}");
            } else {
                // Closing has neither written to files of others nor removed them.
                assert_eq!(fs::read(&path).unwrap(), kept_file, "{about}");
                assert_eq!(fs::read(log_of(&path)).unwrap(), kept_log, "{about}");
                let again = Ledger::sqlite(&path).unwrap();
                assert!(is_denied(&again).await, "{about}");
                assert!(again.verify(None).await.unwrap().is_sound(), "{about}");
            }
        }
    }
}

#[tokio::test]
async fn an_open_ledger_whose_files_were_cut_stops() {
    for (about, of, left) in [
        ("no file", Path::to_owned as fn(&Path) -> PathBuf, 0),
        ("one page of the file", Path::to_owned, 4096),
        ("no log", log_of, 0),
        ("a page of the log", log_of, 4128),
        ("no witness", witness_of, 0),
    ] {
        let (_directory, path) = new_path();
        let ledger = Ledger::sqlite(&path).unwrap();
        spend(&ledger).await;
        cut(&of(&path), left);
        if about == "no witness" {
            // It is read when another program wrote.
            meddle(&path, "CREATE INDEX mine ON purchases (method)");
        }
        let error = sign(&ledger, "more").await.unwrap_err();
        assert!(
            matches!(error, LedgerError::Damaged(_)),
            "{about}: {error:?}"
        );
        is_stopped(&ledger, about).await;
    }
}

/// `cp` writes into the file that is there. SQLite does not notice it.
#[tokio::test]
async fn an_older_copy_that_is_written_over_an_open_ledger_stops_it() {
    for with_witness in [false, true] {
        let (_directory, path) = new_path();
        sign(&Ledger::sqlite(&path).unwrap(), "one").await.unwrap();
        let older = [&path, &witness_of(&path)].map(|path| fs::read(path).unwrap());
        sign(&Ledger::sqlite(&path).unwrap(), "two").await.unwrap();
        assert_eq!(length(&path), older[0].len() as u64);
        let ledger = Ledger::sqlite(&path).unwrap();
        sign(&ledger, "three").await.unwrap();
        let write_back = |connection: &mut Connection| schema::write_back(connection);
        assert!(thread_of(&ledger).read(write_back).await.unwrap());
        drop(ledger);
        // One has it in its cache, the other has not.
        for warm in [false, true] {
            let ledger = Ledger::sqlite(&path).unwrap();
            if warm {
                assert!(is_denied(&ledger).await);
                assert_eq!(ledger.purchases(&Filter::all()).await.unwrap().len(), 3);
            }
            let newest = [&path, &witness_of(&path)].map(|path| fs::read(path).unwrap());
            put(&path, &older[0]);
            if with_witness {
                put(&witness_of(&path), &older[1]);
            }
            let error = sign(&ledger, "more").await.unwrap_err();
            assert!(
                matches!(error, LedgerError::Damaged(_)),
                "{warm}: {error:?}"
            );
            is_stopped(&ledger, "set back").await;
            drop(ledger);
            put(&path, &newest[0]);
            put(&witness_of(&path), &newest[1]);
        }
        assert!(is_denied(&Ledger::sqlite(&path).unwrap()).await);
    }
}

#[tokio::test]
async fn an_open_ledger_whose_database_was_set_back_by_another_program_stops() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    spend(&ledger).await;
    let undo = "DROP TRIGGER keep_purchases; DROP TRIGGER keep_events; DELETE FROM totals;
        DELETE FROM purchases WHERE seq = 3; DELETE FROM events WHERE seq > 4";
    meddle(&path, undo);
    let error = sign(&ledger, "more").await.unwrap_err();
    assert!(matches!(error, LedgerError::Damaged(_)), "{error:?}");
}

/// A program that reads its own ledger drops the locks of SQLite. SQLite before 3.51 then removes the log that this
/// program writes to, when another program closes the ledger.
#[cfg(unix)]
#[tokio::test]
async fn a_ledger_whose_locks_were_dropped_loses_no_payment() {
    const PYTHON: &str = "import os, sqlite3; ledger = sqlite3.connect(os.environ['BURSAR_TEST_PATH']); \
        ledger.execute('CREATE INDEX mine ON purchases (method)'); ledger.commit(); ledger.close()";
    let (_directory, path) = new_path();
    let mut python = Command::new("python3");
    python.args(["-c", PYTHON]).env("BURSAR_TEST_PATH", &path);
    let bursar = in_another_process("accidents::another_program", &path);
    for (mut program, its_purchases) in [(bursar, 1), (python, 0)] {
        let (_lost, lost) = new_path();
        for of in [Path::to_owned, log_of, witness_of] {
            drop(fs::rename(of(&path), of(&lost)));
        }
        let ledger = Ledger::sqlite(&path).unwrap();
        sign(&ledger, "one").await.unwrap();
        drop(fs::read(&path).unwrap());
        if !program.status().is_ok_and(|status| status.success()) {
            eprintln!("SKIPPED: this machine has no {program:?}");
            continue;
        }
        let is_removed = !log_of(&path).exists();
        let next = sign(&ledger, "three").await;
        let is_damaged = matches!(next, Err(LedgerError::Damaged(_)));
        assert!(
            is_damaged == is_removed && (is_damaged || next.is_ok()),
            "{next:?}"
        );
        drop(ledger);
        let again = Ledger::sqlite(&path).unwrap();
        let purchases = again.purchases(&Filter::all()).await.unwrap().len();
        assert_eq!(purchases, 1 + its_purchases + usize::from(!is_damaged));
        assert!(again.verify(None).await.unwrap().is_sound());
        drop(again);
    }
}

#[tokio::test]
#[ignore = "a part of other tests"]
async fn another_program() {
    let Some(path) = std::env::var_os("BURSAR_TEST_PATH") else {
        return;
    };
    let ledger = Ledger::open_existing(path).unwrap();
    sign(&ledger, "two").await.unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn files_that_other_users_can_read_are_refused() {
    let (_directory, path) = new_path();
    full(&path).await;
    for of in [Path::to_owned, witness_of] {
        for mode in [0o640, 0o604, 0o620, 0o602, 0o666] {
            set_mode(&of(&path), mode);
            let error = refused(&path);
            let run = format!("chmod 600 {}", of(&path).canonicalize().unwrap().display());
            assert!(
                matches!(&error, LedgerError::Exposed { mode: found, .. } if *found == mode)
                    && error.to_string().contains(&run),
                "{error:?}"
            );
        }
        set_mode(&of(&path), 0o600);
    }
    assert!(is_denied(&Ledger::sqlite(&path).unwrap()).await);
    let (_directory, empty) = new_path();
    fs::write(&empty, "").unwrap();
    set_mode(&empty, 0o644);
    assert!(matches!(refused(&empty), LedgerError::Exposed { .. }));
    assert_eq!(length(&empty), 0);
}

/// Creating a ledger writes the witness first, then the tables, then that the ledger has begun.
#[tokio::test]
async fn a_ledger_whose_creation_was_interrupted_is_created_by_the_next_program() {
    let (_directory, path) = new_path();
    let note = witness::Note::new("5".repeat(32));
    for is_there in [false, true] {
        note.create(&witness_of(&path)).unwrap();
        if is_there {
            put(&path, b"");
        }
        full(&path).await;
        let (_copy, copy) = crash(&path);
        assert!(is_denied(&Ledger::sqlite(&path).unwrap()).await);
        fs::remove_file(&path).unwrap();
        // The tables were there, and the program ended before it noted that.
        note.create(&witness_of(&copy)).unwrap();
        assert!(is_denied(&Ledger::sqlite(&copy).unwrap()).await);
        fs::remove_file(witness_of(&path)).unwrap();
    }
}

#[tokio::test]
async fn a_copy_of_the_file_and_its_witness_after_the_end_is_complete() {
    let (_directory, path) = new_path();
    full(&path).await;
    assert_eq!(
        names(path.parent().unwrap()),
        ["ledger.db", "ledger.db-head"]
    );
    let (_copy, copy) = crash(&path);
    let copied = Ledger::open_existing(&copy).unwrap();
    assert_eq!(copied.purchases(&Filter::all()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn the_last_handle_can_be_dropped_on_the_thread_of_the_ledger() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let sqlite = thread_of(&ledger).clone();
    let guard = sqlite.thread.guard.clone().unwrap();
    let (busy, wait) = channel::<()>();
    let work = move |_: &mut Connection| {
        wait.recv().map_err(LedgerError::store)?;
        drop(ledger);
        Ok(())
    };
    let mut read = Box::pin(async move { sqlite.read(work).await });
    std::future::poll_fn(|context| {
        assert!(read.as_mut().poll(context).is_pending());
        std::task::Poll::Ready(())
    })
    .await;
    drop(read);
    busy.send(()).unwrap();
    while Arc::strong_count(&guard) > 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_forked_process_gets_an_error_and_does_not_wait() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "one").await.unwrap();
    // A fork has the memory of its parent, and another number.
    let forked = Ledger::new(Backend::Sqlite(Sqlite {
        thread: Arc::new(Thread {
            jobs: thread_of(&ledger).thread.jobs.clone(),
            handle: None,
            process: process::id() + 1,
            guard: thread_of(&ledger).thread.guard.clone(),
        }),
    }));
    for error in [
        sign(&forked, "two").await.unwrap_err(),
        forked.purchases(&Filter::all()).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("forked"), "{error}");
    }
    drop(forked);
    sign(&ledger, "two").await.unwrap();
}
