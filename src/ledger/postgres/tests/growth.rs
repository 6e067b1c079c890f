//! A purchase reads as few rows of a large ledger on a server as of a small one.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

use super::*;
use crate::ledger::conformance::{HOUR, meter, scopes};
use crate::ledger::{LedgerFault, NewPurchase, Reservation, Reserved};
use crate::limit::{Amount, Chargeable, Limit, LimitKind};
use crate::money::Usd;

fn limits(purchase: &NewPurchase) -> Vec<Limit> {
    let held = purchase.open(0, at(NOW), at(NOW));
    let max = || Amount::from(Usd::MAX);
    let scopes = scopes().into_iter().map(|(scope, _)| scope);
    scopes
        .filter(|scope| scope.covers(&held.payment()))
        .flat_map(|scope| {
            let kinds = [
                LimitKind::Rolling(HOUR, max()),
                LimitKind::Lifetime(max()),
                LimitKind::Exposure(max()),
                LimitKind::Payments(HOUR, u32::MAX),
                LimitKind::CircuitBreaker(HOUR, u32::MAX),
            ];
            kinds.map(|kind| meter(scope.clone(), kind))
        })
        // Resources have no totals on a server.
        .filter(|limit| !matches!(limit.scope, crate::limit::Scope::Resource(..)))
        .collect()
}

fn reservation(number: u64, net: bool) -> Reservation {
    let purchase = NewPurchase {
        tag: Some("t".to_owned()),
        agent: Some("a".to_owned()),
        fingerprint: B256::repeat_byte(9),
        ..order(&format!("next-{number}"), 10)
    };
    let limits = limits(&purchase);
    let mut wish = wish(purchase, at(NOW + number * 60), limits);
    wish.checks.refunds_make_room = net;
    wish
}

/// Copies the first purchase until there are `count`, settled, one a minute, the last one now.
async fn fill(schema: &str, count: u64) {
    let columns = "SELECT string_agg(CASE column_name WHEN 'seq' THEN 'n' WHEN 'purchase' THEN '''bulk-'' || n' \
        WHEN 'nonce' THEN '''0x'' || lpad(n::text, 64, ''0'')' WHEN 'fingerprint' THEN '''0x'' || lpad(n::text, 64, ''0'')' \
        WHEN 'state' THEN '''settled''' WHEN 'refunded' THEN '''3''' \
        WHEN 'host_reversed' THEN 'CASE WHEN n % 3 = 0 THEN ''com.example.b'' ELSE host_reversed END' \
        WHEN 'origin' THEN 'CASE WHEN n % 3 = 0 THEN ''https://b.example.com'' ELSE origin END' \
        WHEN 'reserved_at' THEN '$now - ($count - n) * 60000' WHEN 'counts_at' THEN '$now - ($count - n) * 60000' \
        WHEN 'expires_at' THEN '$now' ELSE quote_ident(column_name) END, ', ' ORDER BY ordinal_position) \
        FROM information_schema.columns WHERE table_name = 'purchases' AND table_schema = current_schema()";
    let client = other(schema).await;
    let columns: String = client.query_one(columns, &[]).await.unwrap().get(0);
    let columns = columns
        .replace("$now", &(NOW * 1000).to_string())
        .replace("$count", &count.to_string());
    client
        .batch_execute(&format!(
            "INSERT INTO purchases SELECT {columns} FROM purchases, generate_series(2, {count}) AS n WHERE seq = 1; \
             UPDATE chain_head SET purchases = {count}; ANALYZE purchases; ANALYZE totals;"
        ))
        .await
        .unwrap();
}

/// Returns the rows of purchases that the checks of the third purchase read. The first one begins the totals.
async fn rows_read(count: u64, net: bool) -> i64 {
    let (schema, ledger) = new_schema().await;
    let held = ledger.reserve(&reservation(0, net)).await.unwrap();
    assert!(matches!(held, Reserved::Held(_)), "{held:?}");
    fill(&schema, count).await;
    for number in 1..=2 {
        let held = ledger.reserve(&reservation(number, net)).await.unwrap();
        assert!(matches!(held, Reserved::Held(_)), "{held:?}");
    }
    let faults = ledger.verify(None).await.unwrap().faults;
    let is_total = |fault: &LedgerFault| matches!(fault, LedgerFault::TotalChanged { .. });
    assert!(!faults.iter().any(is_total), "{faults:?}");

    let third = reservation(3, net);
    let checks = &third.checks;
    let mut answers = Answers::new([checks], checks.now(), None, true).unwrap();
    // A new connection, which has counted nothing.
    let ledger = Ledger::postgres_in(&url(), &schema).await.unwrap();
    let database = database_of(&ledger);
    let settings = database.write_settings().await.unwrap();
    let mut lease = database.pool.get().await.unwrap();
    let link = lease.link().unwrap();
    link.begin(settings).await.unwrap();
    link.ask(answers.asks().unwrap()).await.unwrap();
    let read = "SELECT (seq_tup_read + idx_tup_fetch)::bigint FROM pg_stat_xact_user_tables \
                WHERE relname = 'purchases' AND schemaname = current_schema()";
    let read = link.client().query_one(read, &[]).await;
    read.unwrap().get(0)
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_purchase_reads_as_few_rows_of_a_large_ledger_on_a_server_as_of_a_small_one() {
    for net in [false, true] {
        let (small, large) = (rows_read(1000, net).await, rows_read(10_000, net).await);
        assert!(
            large <= small + small / 4,
            "net {net}: {small} rows of few, {large} of many"
        );
    }
}

#[tokio::test]
#[ignore = "needs a PostgreSQL: tests/postgres/run"]
async fn a_total_that_was_changed_on_a_server_is_found() {
    let (schema, ledger) = new_schema().await;
    ledger
        .reserve(&wish(order("one", 10), at(NOW), lifetime(100)))
        .await
        .unwrap();
    hold(&ledger, order("two", 30), NOW).await;
    assert!(ledger.verify(None).await.unwrap().is_sound());
    meddle(&schema, "UPDATE totals SET sum = 39").await;
    let wrong = LedgerFault::TotalChanged {
        total: "global, counts_at ever, usd".to_owned(),
    };
    assert_eq!(ledger.verify(None).await.unwrap().faults, [wrong]);
}
