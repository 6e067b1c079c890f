//! Accidents with the files of a ledger. None of them makes room under a limit without an error.

use super::*;
use crate::ledger::conformance::proved::released;

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
    adopt(&copy);
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
    type Bytes<'a> = Option<&'a [u8]>;
    let cases: [(&str, Bytes<'_>, Bytes<'_>); 11] = [
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
    adopt(&copy);
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

/// Asserts that nothing is paid from a copy, and that it can be read.
async fn is_only_read(path: &Path, purchases: usize) {
    let ledger = Ledger::open(path).unwrap();
    let copied = |error: LedgerError| {
        let LedgerError::Copied { path: of } = &error else {
            panic!("{error:?}")
        };
        let place = of.display().to_string();
        let run = format!("bursar ledger restore {place} --ledger {place}");
        assert!(error.to_string().contains(&run), "{error}");
    };
    let stored = ledger.purchases(&Filter::all()).await.unwrap();
    assert_eq!(stored.len(), purchases);
    assert!(ledger.verify(None).await.unwrap().is_sound());
    copied(sign(&ledger, "more").await.unwrap_err());
    let one = stored[0].key();
    let again = Transition::Presented {
        until: at(NOW + 20),
    };
    copied(ledger.record(&one, &again, at(NOW)).await.unwrap_err());
    copied(ledger.freeze("a copy").await.unwrap_err());
    drop(ledger);
    let again = Ledger::open_existing(path).unwrap();
    assert_eq!(
        again.purchases(&Filter::all()).await.unwrap().len(),
        purchases
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_was_copied_with_its_ledger_pays_nothing_until_it_is_accepted() {
    let (directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "one").await.unwrap();
    drop(ledger);
    let (_other, copy) = new_path();
    for of in [Path::to_owned, witness_of] {
        fs::copy(of(&path), of(&copy)).unwrap();
    }
    is_only_read(&copy, 1).await;
    // The ledger itself goes on, also under another name and in another directory.
    sign(&Ledger::sqlite(&path).unwrap(), "two").await.unwrap();
    let elsewhere = directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let moved = elsewhere.join("agent.db");
    for of in [Path::to_owned, witness_of] {
        fs::rename(of(&path), of(&moved)).unwrap();
    }
    sign(&Ledger::sqlite(&moved).unwrap(), "three")
        .await
        .unwrap();
    assert!(is_denied(&Ledger::sqlite(&moved).unwrap()).await);
    // A directory that was renamed, too.
    let renamed = directory.path().join("renamed");
    fs::rename(&elsewhere, &renamed).unwrap();
    assert!(is_denied(&Ledger::sqlite(renamed.join("agent.db")).unwrap()).await);
    // Accepted on purpose.
    let restored = Ledger::restore(&copy, &copy).unwrap();
    assert_eq!(restored.lost_purchases, Some(0));
    sign(&Ledger::sqlite(&copy).unwrap(), "two").await.unwrap();
    // A copy of a ledger that is open, with its log.
    let open = Ledger::sqlite(&copy).unwrap();
    sign(&open, "three").await.unwrap();
    let (_third, third) = new_path();
    for of in [Path::to_owned, log_of, witness_of] {
        fs::copy(of(&copy), of(&third)).unwrap();
    }
    is_only_read(&third, 3).await;
    assert!(is_denied(&open).await);
}

#[tokio::test]
async fn a_backup_is_read_and_pays_nothing_until_it_is_restored() {
    let (directory, path) = new_path();
    let copy = directory.path().join("copy.db");
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "one").await.unwrap();
    ledger.backup(&copy).await.unwrap();
    is_only_read(&copy, 1).await;
    // Also in the place of the ledger, and also a backup of a backup.
    let second = directory.path().join("second.db");
    let backup = Ledger::open_existing(&copy).unwrap();
    backup.backup(&second).await.unwrap();
    drop((ledger, backup));
    is_only_read(&second, 1).await;
    for of in [Path::to_owned, witness_of] {
        fs::rename(of(&copy), of(&path)).unwrap();
    }
    is_only_read(&path, 1).await;
    fs::remove_file(&path).unwrap();
    Ledger::restore(&second, &path).unwrap();
    sign(&Ledger::sqlite(&path).unwrap(), "two").await.unwrap();
    is_only_read(&second, 1).await;
}

#[test]
fn a_file_is_known_by_its_number_and_the_time_of_its_creation() {
    let mark = |number, created| guard::Mark { number, created };
    let file = mark(12, 1_790_000_000_000_000_000);
    for (other, is_same) in [
        (file, true),
        // A kernel that does not tell the time.
        (mark(12, 0), true),
        // A file that got the number of a deleted one, or that of another new disk.
        (mark(12, 1_790_000_000_000_000_001), false),
        (mark(13, 1_790_000_000_000_000_000), false),
        (guard::Mark::BACKUP, false),
    ] {
        assert_eq!(file.is_same_file(other), is_same, "{other:?}");
        assert_eq!(other.is_same_file(file), is_same, "{other:?}");
    }
}

/// Opens with another table of mounts, which says that the directory has this kind of file system.
fn open_on(kind: &str, path: &Path, options: &OpenOptions) -> Result<Ledger, LedgerError> {
    let point = path.parent().unwrap().canonicalize().unwrap();
    let table = format!(
        "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n2 1 0:9 / {} rw - {kind} source rw\n",
        point.display()
    );
    mounts::tests::TABLE.set(Some(table));
    let opened = options.open(path);
    mounts::tests::TABLE.set(None);
    opened
}

#[tokio::test]
async fn a_ledger_on_a_file_system_that_machines_share_is_refused() {
    let (create, shared) = (
        OpenOptions::new(),
        OpenOptions::new().allow_shared_file_system(),
    );
    for kind in ["nfs4", "cifs", "9p", "virtiofs", "fuse.sshfs"] {
        let (directory, path) = new_path();
        for options in [create.clone(), create.clone().must_exist()] {
            let error = open_on(kind, &path, &options).unwrap_err();
            assert!(
                matches!(&error, LedgerError::SharedFileSystem { kind: found, .. } if found == kind),
                "{error:?}"
            );
            assert!(error.to_string().contains("local disk"), "{error}");
            assert!(names(directory.path()).is_empty(), "nothing is created");
        }
        let ledger = open_on(kind, &path, &shared).unwrap();
        spend(&ledger).await;
        drop(ledger);
        assert!(is_denied(&open_on(kind, &path, &shared).unwrap()).await);
        open_on(kind, &path, &create).unwrap_err();
    }
    for kind in ["ext4", "overlay", "tmpfs", "fuse.fuse-overlayfs", "vfat"] {
        let (_directory, path) = new_path();
        sign(&open_on(kind, &path, &create).unwrap(), "one")
            .await
            .unwrap();
        sign(&open_on(kind, &path, &create).unwrap(), "two")
            .await
            .unwrap();
    }
}
