//! Damaged files and full disks.

use super::*;

#[tokio::test]
async fn damage_is_named_and_stops_the_ledger() {
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
        let (_directory, path) = new_path();
        let ledger = Ledger::sqlite(&path).unwrap();
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
async fn a_damaged_page_stops_the_ledger() {
    let (_directory, path) = new_path();
    let mut bytes = closed(&path, 50).await;
    bytes[4096..].fill(0xA5);
    fs::write(&path, &bytes).unwrap();
    let answer = match Ledger::sqlite(&path) {
        Ok(ledger) => ledger
            .reserve(&wish(order("next", 1), at(NOW), lifetime(1000)))
            .await
            .map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(answer, Err(LedgerError::Damaged(_))), "{answer:?}");
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

/// Another program or a broken disk can change the schema. SQLite can read each of these schemas.
#[tokio::test]
async fn changed_tables_and_indices_stop_the_ledger() {
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
        ("unproven", "DROP INDEX unproven"),
    ];
    for (name, change) in changes {
        let (_directory, path) = new_path();
        closed(&path, 1).await;
        // A limit used it.
        indices::create(&Connection::open(&path).unwrap(), "by_counts_at").unwrap();
        meddle(
            &path,
            &format!("PRAGMA writable_schema = ON; {change}; PRAGMA wal_checkpoint(TRUNCATE)"),
        );
        let expected =
            format!("the ledger is damaged: `{name}` is not as schema version {VERSION} has it");
        assert_eq!(refused(&path).to_string(), expected);
    }
    let (_directory, path) = new_path();
    drop(Ledger::sqlite(&path).unwrap());
    meddle(
        &path,
        "CREATE INDEX mine ON purchases (method); CREATE VIEW paid AS SELECT value FROM purchases",
    );
    Ledger::sqlite(&path).unwrap();
}

#[tokio::test]
async fn a_file_that_was_cut_off_anywhere_stops_the_ledger() {
    let (_directory, path) = new_path();
    let whole = closed(&path, 10).await;
    // An empty file is how a new ledger begins.
    for cut in (1..whole.len()).step_by(127).chain([whole.len() - 1]) {
        let (_copy, copy) = new_path();
        fs::write(&copy, &whole[..cut]).unwrap();
        let error = Ledger::sqlite(&copy).expect_err(&format!("cut at {cut} of {}", whole.len()));
        assert!(
            matches!(error, LedgerError::Damaged(_)),
            "cut at {cut} of {}: {error}",
            whole.len()
        );
        assert_eq!(fs::read(&copy).unwrap(), whole[..cut], "as it was found");
    }
}

/// A crash while the log is written back leaves a file that ends inside a page, and the log.
#[tokio::test]
async fn a_page_that_was_half_written_back_is_in_the_log() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let laid_out = fs::metadata(&path).unwrap().len();
    hold_many(&ledger, 20).await;
    let checkpoint = |connection: &mut Connection| {
        connection
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
            .map_err(failed)
    };
    thread_of(&ledger).read(checkpoint).await.unwrap();
    let (file, log) = (fs::read(&path).unwrap(), fs::read(log_of(&path)).unwrap());
    let witness = fs::read(witness_of(&path)).unwrap();
    let laid_out = usize::try_from(laid_out).unwrap();
    assert!(laid_out + 4096 < file.len());
    for written in (laid_out..file.len()).step_by(1000) {
        let (_copy, copy) = new_path();
        put(&copy, &file[..written]);
        put(&log_of(&copy), &log);
        put(&witness_of(&copy), &witness);
        let ledger = Ledger::sqlite(&copy).unwrap();
        assert_eq!(
            ledger.purchases(&Filter::all()).await.unwrap().len(),
            20,
            "{written} of {}",
            file.len()
        );
        assert!(ledger.verify(None).await.unwrap().is_sound());
    }
}

#[tokio::test]
async fn a_full_disk_holds_nothing() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let full = |connection: &mut Connection| {
        connection
            .query_row("PRAGMA max_page_count = 1", [], |row| row.get::<_, i64>(0))
            .map_err(failed)
    };
    thread_of(&ledger).read(full).await.unwrap();
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

/// Limits the size of the file, as a full disk does.
#[tokio::test]
async fn a_full_disk_stops_the_books_and_loses_nothing() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let pages = async |most: &'static str| {
        let sql = format!("PRAGMA max_page_count = {most}");
        thread_of(&ledger)
            .read(move |connection| connection.query_row(&sql, [], |_| Ok(())).map_err(failed))
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
    // A payment leaves only after its record, and the record fails.
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

/// A crash can leave any part of the last write. Everything before it must stay.
#[tokio::test]
async fn a_log_that_was_cut_anywhere_keeps_what_was_acknowledged_before() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold(&ledger, order("first", 10), NOW).await;
    let log = log_of(&path);
    let acknowledged = fs::metadata(&log).unwrap().len();
    hold(&ledger, order("second", 10), NOW).await;
    let (file, whole) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    let witness = fs::read(witness_of(&path)).unwrap();
    let acknowledged = usize::try_from(acknowledged).unwrap();
    assert!(whole.len() > acknowledged);
    for cut in (acknowledged..=whole.len())
        .step_by(97)
        .chain([whole.len()])
    {
        let (_copy, copy) = new_path();
        put(&copy, &file);
        put(&log_of(&copy), &whole[..cut]);
        put(&witness_of(&copy), &witness);
        let ledger = Ledger::sqlite(&copy).unwrap();
        let purchases = ledger.purchases(&Filter::all()).await.unwrap();
        let expected = if cut == whole.len() { 2 } else { 1 };
        assert_eq!(purchases.len(), expected, "cut at {cut} of {}", whole.len());
        assert!(ledger.verify(None).await.unwrap().is_sound());
    }
}
