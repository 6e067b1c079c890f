//! Connections and servers that are lost during a change.

use super::*;

/// A COMMIT whose answer is lost, on its way there, on its way back, or overtaken by the next.
#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_lost_commit_neither_holds_twice_nor_loses() {
    for mishap in [Mishap::CutBefore, Mishap::CutAfter, Mishap::Overtaken] {
        let schema = schema();
        let proxy = Proxy::new(&url()).await;
        let ledger = Ledger::postgres_in(&proxy.url(), &schema).await.unwrap();
        index(&schema, &ledger).await;
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
            matches!(&answer, Reserved::Held(purchase) if purchase.seq == 1),
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
        let ledger = short_of_time(&proxy.url(), &schema).await;
        index(&schema, &ledger).await;
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

/// Reserves from many tasks while `disturb` is called again and again. The ledger must have every
/// purchase that a task holds, and the limit must not be exceeded.
async fn reserve_through(schema: &str, url: &str, mut disturb: impl AsyncFnMut()) {
    let done = Arc::new(AtomicUsize::new(0));
    let ledger = Ledger::postgres_in(url, schema).await.unwrap();
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
        .map(|purchase| purchase.id.to_string())
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
