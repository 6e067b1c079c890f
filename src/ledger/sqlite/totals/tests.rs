//! Tests of the totals in the file.

use std::time::Duration;

use alloy::primitives::Address;

use super::super::tests::thread_of;
use super::super::{Sync, reserve};
use super::*;
use crate::ledger::conformance::{
    HOUR, LEASE, NOW, PLACES, at, at_place, hold, lifetime, meter, order, scopes, settled, signed,
    usdc, wish,
};
use crate::ledger::{Ledger, LedgerFault, NewPurchase, Reserved};
use crate::limit::{Limit, LimitKind};
use crate::money::{Network, Usd};

#[test]
fn a_purchase_is_in_the_totals_of_the_scopes_that_cover_it() {
    let scopes = scopes()
        .into_iter()
        .map(|(scope, _)| scope)
        .filter(Scope::is_stable);
    for scope in scopes {
        for place in 0..PLACES.len() {
            let purchase = at_place(place, order("order", 1)).open(0, at(NOW), at(NOW));
            let payment = purchase.payment();
            let is_in = Scope::all_of(&payment).contains(&scope);
            assert_eq!(is_in, scope.covers(&payment), "{scope:?} {purchase:?}");
        }
    }
}

fn open() -> (tempfile::TempDir, Ledger, Connection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let ledger = Ledger::sqlite(&path).unwrap();
    let other = Connection::open(&path).unwrap();
    (directory, ledger, other)
}

fn rows(database: &Connection) -> Vec<(String, String)> {
    let mut statement = database
        .prepare("SELECT window, sum FROM totals ORDER BY window")
        .unwrap();
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap();
    rows.map(Result::unwrap).collect()
}

fn rolling(window: Duration) -> Vec<Limit> {
    vec![meter(
        Scope::Global,
        LimitKind::Rolling(window, Usd::MAX.into()),
    )]
}

#[tokio::test]
async fn a_total_that_was_changed_is_found() {
    let (_directory, ledger, other) = open();
    ledger
        .reserve(&wish(order("one", 10), at(NOW), lifetime(100)))
        .await
        .unwrap();
    hold(&ledger, order("two", 30), NOW).await;
    assert_eq!(
        rows(&other),
        [("counts_at ever".to_owned(), "40".to_owned())]
    );
    assert!(ledger.verify(None).await.unwrap().is_sound());
    other.execute_batch("UPDATE totals SET sum = '39'").unwrap();
    let wrong = LedgerFault::TotalChanged {
        total: "global, counts_at ever, usd".to_owned(),
    };
    assert_eq!(ledger.verify(None).await.unwrap().faults, [wrong]);
}

fn tagged(tag: &str) -> Vec<Limit> {
    vec![meter(
        Scope::Tag(tag.to_owned()),
        LimitKind::Lifetime(Usd::MAX.into()),
    )]
}

/// Asks for a total, and for others so much later that the first is forgotten at the moment returned.
async fn leave_one_unused(ledger: &Ledger, others: Vec<Limit>) -> Timestamp {
    const ONE_DAY: u64 = 86_400;
    ledger
        .reserve(&wish(order("one", 10), at(NOW), tagged("unused")))
        .await
        .unwrap();
    ledger
        .reserve(&wish(order("two", 10), at(NOW + 29 * ONE_DAY), others))
        .await
        .unwrap();
    at(NOW + 31 * ONE_DAY)
}

#[tokio::test]
async fn what_changed_is_written_before_totals_are_forgotten() {
    let (_directory, ledger, other) = open();
    let now = leave_one_unused(&ledger, lifetime(100)).await;
    let (three, four) = (
        wish(order("three", 30), now, lifetime(100)),
        wish(order("four", 10), now, tagged("new")),
    );
    let both = move |file: File<'_>| reserve(file, &three).and_then(|_| reserve(file, &four));
    thread_of(&ledger).write(Sync::Now, both).await.unwrap();
    let scopes = |database: &Connection| -> String {
        database
            .query_row("SELECT group_concat(scope) FROM totals", [], |row| {
                row.get(0)
            })
            .unwrap()
    };
    assert_eq!(scopes(&other), "global,tag new", "the unused one is gone");
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn totals_that_were_forgotten_are_read_again_with_all_others_of_their_scope() {
    let (_directory, ledger, _other) = open();
    let now = leave_one_unused(&ledger, [lifetime(100), rolling(HOUR)].concat()).await;
    let new_first = [tagged("new"), lifetime(100)].concat();
    ledger
        .reserve(&wish(order("three", 30), now, new_first))
        .await
        .unwrap();
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_total_that_would_not_let_go_is_found() {
    let (_directory, ledger, other) = open();
    let key = order("one", 10).key();
    ledger
        .reserve(&wish(order("one", 10), at(NOW), rolling(HOUR)))
        .await
        .unwrap();
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    ledger.record(&key, &settled(), at(NOW)).await.unwrap();
    let next: i64 = other
        .query_row("SELECT next FROM totals", [], |row| row.get(0))
        .unwrap();
    let bought = ledger.purchase(&key).await.unwrap().unwrap();
    assert_eq!(next, bought.counts_at.millis());
    assert!(ledger.verify(None).await.unwrap().is_sound());
    other
        .execute_batch("UPDATE totals SET next = next + 1")
        .unwrap();
    let wrong = LedgerFault::TotalChanged {
        total: "global, counts_at 3600000ms, usd".to_owned(),
    };
    assert_eq!(ledger.verify(None).await.unwrap().faults, [wrong]);
}

#[tokio::test]
async fn a_total_that_cannot_be_read_stops_paying() {
    let (_directory, ledger, other) = open();
    ledger
        .reserve(&wish(order("one", 10), at(NOW), lifetime(100)))
        .await
        .unwrap();
    for damage in [
        "sum = '-1'",
        "sum = ''",
        "unit = 'euro'",
        "unit = 'usd', window = 'decade'",
    ] {
        other
            .execute_batch(&format!("UPDATE totals SET {damage}"))
            .unwrap();
        let refused = ledger
            .reserve(&wish(order("two", 10), at(NOW), lifetime(100)))
            .await;
        assert!(
            matches!(refused, Err(LedgerError::Damaged(_))),
            "{damage}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_hold_that_lapsed_leaves_the_totals_that_it_is_not_taken_into_again() {
    let first = || NewPurchase {
        tag: Some("t".to_owned()),
        agent: Some("a".to_owned()),
        ..order("order", 10)
    };
    let changes: [fn(&mut NewPurchase); 6] = [
        |entry| entry.origin = "https://b.example.com".parse().unwrap(),
        |entry| entry.path = "/other".to_owned(),
        |entry| entry.payee = Address::repeat_byte(9),
        |entry| entry.asset = usdc(Network::from_chain_id(84_532)),
        |entry| entry.tag = None,
        |entry| entry.agent = Some("b".to_owned()),
    ];
    for (number, change) in changes.iter().enumerate() {
        let (_directory, ledger, other) = open();
        let mut next = first();
        change(&mut next);
        let scopes = |entry: &NewPurchase| {
            let tag = entry.tag.clone().map(Scope::Tag);
            let asset = Scope::Asset(entry.asset.network(), entry.asset.address());
            let resource = Scope::Resource(entry.origin.clone(), entry.path.clone());
            [
                Scope::Payee(entry.payee),
                asset,
                resource,
                Scope::Agent(entry.agent.clone().unwrap()),
            ]
            .into_iter()
            .chain(tag)
        };
        let limit = |scope| meter(scope, LimitKind::Lifetime(Usd::MAX.into()));
        for (entry, now) in [
            (first(), at(NOW)),
            (next.clone(), at(NOW).after(LEASE).after(HOUR)),
        ] {
            let meters = scopes(&first()).chain(scopes(&next)).map(limit).collect();
            let held = ledger.reserve(&wish(entry, now, meters)).await.unwrap();
            assert!(matches!(held, Reserved::Held(_)), "{number}: {held:?}");
        }
        let verified = ledger.verify(None).await.unwrap();
        assert!(verified.is_sound(), "{number}: {verified:?}");
        assert!(
            rows(&other).iter().any(|(_, sum)| sum == "0"),
            "{number}: the totals that it left are kept"
        );
    }
}

#[tokio::test]
async fn a_total_that_no_limit_asks_for_is_dropped_after_a_month() {
    let (_directory, ledger, other) = open();
    let day = 86_400;
    ledger
        .reserve(&wish(
            order("one", 10),
            at(NOW),
            [lifetime(100), rolling(HOUR)].concat(),
        ))
        .await
        .unwrap();
    for number in 1..20 {
        let wish = wish(
            order(&format!("then-{number}"), 1),
            at(NOW + 2 * number * day),
            lifetime(100),
        );
        ledger.reserve(&wish).await.unwrap();
    }
    let kept = |database: &Connection| {
        rows(database)
            .into_iter()
            .map(|(window, _)| window)
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&other), ["counts_at 3600000ms", "counts_at ever"]);
    let other_window = wish(order("last", 1), at(NOW + 39 * day), rolling(2 * HOUR));
    ledger.reserve(&other_window).await.unwrap();
    assert_eq!(kept(&other), ["counts_at 7200000ms", "counts_at ever"]);
    let denied = ledger
        .reserve(&wish(order("more", 81), at(NOW + 39 * day), lifetime(100)))
        .await
        .unwrap();
    assert!(
        matches!(denied, Reserved::Held(_)),
        "the holds of others have lapsed: {denied:?}"
    );
}
