//! Accidents with the files of an open ledger. The next payment is refused.

use super::*;

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

/// After a crash, the newer log is applied to the older file. Pages are then missing or old.
#[tokio::test]
async fn an_older_copy_under_a_newer_log_makes_no_room() {
    for (older, newer, in_log) in [(1, 1, 1), (3, 1, 1), (20, 20, 1), (20, 60, 10)] {
        let (_directory, path) = new_path();
        let all = (older + newer + in_log) * 10;
        let mut number = 0;
        let mut fill = async |count: u64| {
            let ledger = Ledger::sqlite(&path).unwrap();
            for _ in 0..count {
                number += 1;
                let wish = wish(
                    order(&format!("order-{number}"), 10),
                    at(NOW),
                    lifetime(all),
                );
                let Reserved::Held(held) = ledger.reserve(&wish).await.unwrap() else {
                    panic!("there is room")
                };
                let key = held.key();
                ledger
                    .record(&key, &signed(NOW + 300), at(NOW))
                    .await
                    .unwrap();
                ledger.record(&key, &settled(), at(NOW)).await.unwrap();
            }
            ledger
        };
        drop(fill(older).await);
        let file = fs::read(&path).unwrap();
        drop(fill(newer).await);
        let ledger = fill(in_log).await;
        let (_copy, copy) = crash(&path);
        drop(ledger);
        put(&copy, &file);
        let more = wish(order("more", 1), at(NOW), lifetime(all));
        let answer = match Ledger::sqlite(&copy) {
            Ok(mixed) => mixed.reserve(&more).await,
            Err(error) => Err(error),
        };
        assert!(
            matches!(
                answer,
                Err(LedgerError::Damaged(_)) | Ok(Reserved::Denied(_))
            ),
            "{older} {newer} {in_log}: {answer:?}"
        );
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
    let bursar = in_another_process("open_files::another_program", &path);
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
#[ignore = "a part of a_ledger_whose_locks_were_dropped_loses_no_payment"]
async fn another_program() {
    let Some(path) = std::env::var_os("BURSAR_TEST_PATH") else {
        return;
    };
    let ledger = Ledger::open_existing(path).unwrap();
    sign(&ledger, "two").await.unwrap();
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
        siblings: None,
        reader: thread_of(&ledger).reader.clone(),
        thread: Arc::new(Thread {
            later: Arc::default(),
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
