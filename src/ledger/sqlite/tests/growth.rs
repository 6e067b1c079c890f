//! A purchase costs the same in a small and in a large ledger, in steps of SQLite's machine.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

use super::*;
use crate::ledger::conformance::resumed::wanted;
use crate::ledger::conformance::scopes;
use crate::ledger::{NewPurchase, Reservation};
use crate::limit::{Amount, Calendar, Limit, Period, Quantity};

/// The purchases of a small ledger, and of a large one.
const SMALL: u64 = 60;
const LARGE: u64 = 900;

/// Copies the first purchase until there are `count`, one a minute, the last one now.
///
/// Those that are not settled expire after the present. The hosts and the other parts of every tenth are others.
fn fill(path: &Path, count: u64, state: State) {
    let file = Connection::open(path).unwrap();
    let columns: Vec<String> = {
        let sql = "SELECT name FROM pragma_table_info('purchases')";
        let mut columns = file.prepare(sql).unwrap();
        let names = columns.query_map([], |row| row.get(0)).unwrap();
        names.map(Result::unwrap).collect()
    };
    let now = NOW * 1000;
    let counted = if state == State::Settled {
        format!("{now} - ({count} - n) * 60000")
    } else {
        format!("{now} + 86400000 + n")
    };
    let other =
        |other: &str, same: &str| format!("CASE WHEN n % 10 = 0 THEN {other} ELSE {same} END");
    let values = columns.iter().map(|column| match column.as_str() {
        "seq" => "n".to_owned(),
        "purchase" => "'bulk-' || n".to_owned(),
        "nonce" | "fingerprint" => "'0x' || substr('".to_owned() + &"0".repeat(64) + "' || n, -64)",
        "state" => format!("'{state}'"),
        "origin" => other("'https://b.example.com'", column),
        "host_reversed" => other("'com.example.b'", column),
        "refunded" if state == State::Settled => "'3'".to_owned(),
        "reserved_at" | "lease_until" | "updated_at" => format!("{now} - ({count} - n) * 60000"),
        "counts_at" => counted.clone(),
        "expires_at" => format!("{counted} + 360000"),
        other => other.to_owned(),
    });
    file.execute_batch(&format!(
        "BEGIN; DELETE FROM totals; INSERT INTO purchases ({}) SELECT {} FROM purchases p,
            (WITH RECURSIVE numbers (n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM numbers WHERE n < {count})
             SELECT n FROM numbers) WHERE p.seq = 1; COMMIT",
        columns.join(", "),
        values.collect::<Vec<_>>().join(", "),
    ))
    .unwrap();
}

/// Limits of every kind on every scope that the purchase lies in, none of which is reached.
fn limits(purchase: &NewPurchase) -> Vec<Limit> {
    let max = || Amount::from(Usd::MAX);
    let held = purchase.open(0, at(NOW), at(NOW));
    let scopes = scopes().into_iter().map(|(scope, _)| scope);
    let scopes = scopes.filter(|scope| scope.covers(&crate::limit::Chargeable::payment(&held)));
    let kinds = || {
        [
            LimitKind::Rolling(HOUR, max()),
            LimitKind::Calendar(Calendar::new(Period::Day, "UTC").unwrap(), max()),
            LimitKind::Lifetime(max()),
            LimitKind::Exposure(max()),
            LimitKind::Payments(HOUR, u32::MAX),
            LimitKind::Payments(HOUR / 2, 64),
            LimitKind::CircuitBreaker(HOUR, u32::MAX),
        ]
    };
    scopes
        .flat_map(|scope| kinds().map(|kind| meter(scope.clone(), kind)))
        .collect()
}

/// The purchase with the number, of a place in many scopes.
fn purchase(number: u64) -> NewPurchase {
    NewPurchase {
        tag: Some("t".to_owned()),
        agent: Some("a".to_owned()),
        ..order(&format!("next-{number}"), 10)
    }
}

/// Returns the answer of a reservation with the steps that it took.
async fn reserved(ledger: &Ledger, wish: Reservation) -> (Reserved, i64) {
    let work = move |file: File<'_>| {
        file::STEPS.set(0);
        let answer = reserve(file, &wish)?;
        totals::write(file)?;
        Ok((answer, file::STEPS.get()))
    };
    thread_of(ledger).write(Sync::Now, work).await.unwrap()
}

/// Returns a closed ledger with `count` purchases in this state.
async fn filled(count: u64, state: State) -> (tempfile::TempDir, PathBuf) {
    let (directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let key = hold(&ledger, purchase(0), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    ledger.record(&key, &settled(), at(NOW)).await.unwrap();
    drop(ledger);
    fill(&path, count, state);
    (directory, path)
}

/// Returns the steps of the third purchase in a ledger that was opened with `count` purchases: the first one begins
/// the totals. Between two of them, a minute passes.
async fn steps(count: u64, state: State, net: bool) -> i64 {
    let (_directory, path) = filled(count, state).await;
    let ledger = Ledger::sqlite(&path).unwrap();
    let mut last = 0;
    for number in 1..=3 {
        let purchase = purchase(number);
        let limits = limits(&purchase);
        let mut wish = wish(purchase, at(NOW + number * 60), limits);
        wish.checks.refunds_make_room = net;
        let (answer, steps) = reserved(&ledger, wish).await;
        assert!(matches!(answer, Reserved::Held(_)), "{answer:?}");
        last = steps;
    }
    last
}

#[tokio::test]
async fn a_purchase_takes_the_same_steps_in_a_large_ledger() {
    let cases = [
        (State::Settled, false),
        (State::Settled, true),
        (State::Unresolved, false),
        (State::Signed, true),
    ];
    for (state, net) in cases {
        let (small, large) = (
            steps(SMALL, state, net).await,
            steps(LARGE, state, net).await,
        );
        assert!(
            large <= small + small / 20,
            "{state}, net {net}: {large} steps in a large ledger, {small} in a small one"
        );
    }
}

#[tokio::test]
async fn a_denial_takes_the_same_steps_in_a_large_ledger() {
    async fn denied(count: u64) -> i64 {
        let (_directory, path) = filled(count, State::Settled).await;
        let ledger = Ledger::sqlite(&path).unwrap();
        let all = limits(&purchase(1));
        let rolling = |limit: &Limit| matches!(limit.kind, LimitKind::Rolling(..));
        let mut most = 0;
        for limit in all.into_iter().filter(rolling) {
            let limited = |max: u64| {
                let max = Amount::from(Usd::from_micros(max));
                let limit = meter(limit.scope.clone(), LimitKind::Rolling(1000 * HOUR, max));
                let purchase = NewPurchase {
                    tag: None,
                    ..purchase(1)
                };
                wish(purchase, at(NOW + 60), vec![limit])
            };
            let asked = limited(u64::MAX).checks;
            let status = ledger.examine(&asked).await.unwrap().remove(0);
            let Some(Quantity::Amount(used)) = status.used else {
                panic!("{limit} is in dollars");
            };
            let used: u64 = used.units().try_into().unwrap();
            // Only the first purchase must leave. The first denial begins the total.
            for number in 1..=2 {
                let (answer, steps) = reserved(&ledger, limited(used + 5)).await;
                let Reserved::Denied(denial) = answer else {
                    panic!("{limit}: {answer:?}");
                };
                assert!(denial.room_returns.is_some());
                if number == 2 {
                    most = most.max(steps);
                }
            }
        }
        most
    }
    let (small, large) = (denied(SMALL).await, denied(LARGE).await);
    assert!(large <= small + small / 20, "{small} {large}");
}

#[tokio::test]
async fn a_look_for_an_open_payment_takes_the_same_steps_after_many_that_expired() {
    async fn look(count: u64) -> i64 {
        let (_directory, path) = filled(count, State::Rejected).await;
        let file = Connection::open(&path).unwrap();
        let one_request = format!(
            "UPDATE purchases SET fingerprint = '{:#x}', status = 402, expires_at = {NOW} - seq",
            order("one", 1).fingerprint
        );
        file.execute_batch(&one_request).unwrap();
        drop(file);
        let ledger = Ledger::sqlite(&path).unwrap();
        let look = wanted(&order("one", 1), NOW);
        let read = move |connection: &mut Connection| {
            file::STEPS.set(0);
            resumable(connection, &look)?;
            Ok(file::STEPS.get())
        };
        thread_of(&ledger).read(read).await.unwrap()
    }
    assert_eq!(look(SMALL).await, look(LARGE).await);
}

#[tokio::test]
async fn totals_that_nobody_uses_are_forgotten_step_by_step() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let tagged = |number: u64| {
        let tag = format!("tag-{number:04}");
        let limit = meter(
            Scope::Tag(tag.clone()),
            LimitKind::Lifetime(Usd::MAX.into()),
        );
        let tagged = NewPurchase {
            tag: Some(tag),
            ..purchase(number)
        };
        (tagged, vec![limit])
    };
    let month = 31 * 86_400;
    let mut most = 0;
    for number in 0..400 {
        let (purchase, limits) = tagged(number);
        // The first half is not used for a month. Each hold lapses before the next one.
        let now = NOW + number * 61 + if number < 200 { 0 } else { month };
        let (_, steps) = reserved(&ledger, wish(purchase, at(now), limits)).await;
        if number < 50 {
            most = steps + steps / 2;
        } else {
            assert!(steps <= most, "{number}: {steps} steps");
        }
    }
    let file = Connection::open(&path).unwrap();
    let sql = "SELECT count(*) FROM totals WHERE scope < 'tag tag-0200'";
    let left: i64 = file.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(left, 0);
}

#[tokio::test]
async fn a_limit_on_a_domain_counts_its_hosts_and_none_of_a_suffix_below_it() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let other = Ledger::sqlite(&path).unwrap();
    let domain = |domain: &str| {
        vec![meter(
            Scope::Domain(domain.to_owned()),
            LimitKind::Lifetime(Usd::MAX.into()),
        )]
    };
    let buy = async |ledger: &Ledger, id: &str, origin: &str, of: &str| {
        let purchase = NewPurchase {
            origin: origin.parse().unwrap(),
            ..order(id, 10)
        };
        ledger
            .reserve(&wish(purchase, at(NOW), domain(of)))
            .await
            .unwrap();
        let file = move |file: File<'_>| {
            let limits = domain("amazonaws.com");
            let checks = wish(order("x", 1), at(NOW), limits).checks;
            let view = View::new(file, at(NOW), None)?;
            Ok(checks.evaluate(&view)?.remove(0).used)
        };
        thread_of(ledger).write(Sync::Now, file).await.unwrap()
    };
    // Each look is by another connection, and self-checks compare it with the sum of all purchases.
    for (number, (host, used)) in [
        ("amazonaws.com", 10),
        ("api.amazonaws.com", 20),
        ("shop.s3.amazonaws.com", 20),
        ("a.b.amazonaws.com", 30),
        ("x.shop.s3.amazonaws.com", 30),
        ("s3.amazonaws.com", 30),
        ("other.s3.amazonaws.com", 30),
        ("notamazonaws.com", 30),
    ]
    .into_iter()
    .enumerate()
    {
        let origin = format!("https://{host}");
        let ledger = if number % 2 == 0 { &ledger } else { &other };
        let of = origin.parse::<crate::origin::Origin>().unwrap();
        let found = buy(
            ledger,
            &number.to_string(),
            &origin,
            of.registrable_domain(),
        )
        .await;
        let expected = Quantity::Amount(Usd::from_micros(used).into());
        assert_eq!(found, Some(expected), "{host}");
    }
    assert!(ledger.verify(None).await.unwrap().is_sound());
}
