//! Several handles, threads and processes on one file.

use super::*;

#[tokio::test]
async fn a_begun_change_is_finished_without_its_caller() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
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
async fn a_panic_stops_the_ledger() {
    let ledger = Ledger::sqlite(":memory:").unwrap();
    let answer: Result<(), _> = thread_of(&ledger).read(|_| panic!("on purpose")).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    let answer = ledger.purchases(&Filter::all()).await;
    assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handles_on_one_file_hold_exactly_as_many_as_fit() {
    let (_directory, path) = new_path();
    let ledgers = [
        Ledger::sqlite(&path).unwrap(),
        Ledger::sqlite(&path).unwrap(),
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
    let (_directory, path) = new_path();
    let child = || {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--exact",
            "ledger::sqlite::tests::sharing::one_process_of_the_race",
            "--ignored",
        ]);
        command
            .env(RACE, &path)
            .stdout(process::Stdio::null())
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
    let ledger = Ledger::sqlite(path).unwrap();
    for number in 0..40 {
        let id = format!("{}-{number}", process::id());
        ledger
            .reserve(&wish(order(&id, 10), at(NOW), lifetime(500)))
            .await
            .unwrap();
    }
}

#[test]
fn every_question_is_a_range_of_an_index() {
    let (_directory, path) = new_path();
    drop(Ledger::sqlite(&path).unwrap());
    let database = Connection::open(&path).unwrap();
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
    for (name, _) in indices::on_demand() {
        indices::create(&database, name).unwrap();
    }
    let known = RefCell::default();
    let view = View::new(
        File {
            database: &database,
            known: &known,
        },
        at(NOW),
        None,
    )
    .unwrap();
    let plans = |scope: &Scope, moment, after| {
        let since = Since { moment, after };
        let plan = |Query { sql, values }| {
            let mut statement = database
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap();
            statement
                .query_row(params_from_iter(values), |row| {
                    row.get::<_, String>("detail")
                })
                .unwrap()
        };
        view.queries(scope, since).map(plan).collect::<Vec<_>>()
    };
    for (scope, index, range) in scopes {
        let [ever, held] = plans(&scope, Moment::CountsAt, BEGINNING)
            .try_into()
            .unwrap();
        assert!(
            ever.contains(&format!("INDEX {index}")) && ever.contains(range),
            "{ever}"
        );
        assert!(held.contains("INDEX held"), "{held}");
        let [spent, held] = plans(&scope, Moment::CountsAt, at(NOW)).try_into().unwrap();
        // The purchases of many hosts are not in the order of time.
        let range = if range.contains('<') { "" } else { range };
        assert!(
            spent.starts_with("SEARCH") && spent.contains(range) && spent.contains("counts_at>?"),
            "{spent}"
        );
        assert!(held.contains("INDEX held"), "{held}");
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
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiting_writes_each_take_effect_completely_or_not_at_all() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let (busy, wait) = channel::<()>();
    let blocker = ledger.clone();
    let blocker = tokio::spawn(async move {
        thread_of(&blocker)
            .read(move |_| wait.recv().map_err(LedgerError::store))
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
    // The writes arrive while the thread is busy, in any order, and share one transaction.
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
    let again = Ledger::sqlite(&path).unwrap();
    assert_eq!(again.purchases(&Filter::all()).await.unwrap().len(), 2);
    assert!(again.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn writes_of_another_connection_are_seen_at_once() {
    let (_directory, path) = new_path();
    let ledgers = [
        Ledger::sqlite(&path).unwrap(),
        Ledger::sqlite(&path).unwrap(),
    ];
    for number in 0..6 {
        let [mine, other] = [&ledgers[number % 2], &ledgers[(number + 1) % 2]];
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
        for ledger in [other, mine] {
            let denied = ledger
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
    assert!(ledgers[0].verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_rolled_back_change_is_not_cached() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    hold(&ledger, order("first", 10), NOW).await;
    // The event of the next purchase is refused, after its totals and its row were written.
    let trigger = "CREATE TRIGGER full BEFORE INSERT ON events WHEN NEW.purchase = 'lost'
        BEGIN SELECT RAISE(ABORT, 'disk full'); END";
    meddle(&path, trigger);
    let wished = |id: &str, value| wish(order(id, value), at(NOW), lifetime(100));
    ledger.reserve(&wished("known", 1)).await.unwrap();
    ledger.reserve(&wished("lost", 20)).await.unwrap_err();
    ledger.reserve(&wished("first", 10)).await.unwrap();
    let held = ledger.reserve(&wished("second", 89)).await.unwrap();
    assert!(matches!(held, Reserved::Held(purchase) if purchase.seq == 3));
    assert!(
        ledger
            .purchase(&order("lost", 20).key())
            .await
            .unwrap()
            .is_none()
    );
    assert!(ledger.verify(None).await.unwrap().is_sound());
}
