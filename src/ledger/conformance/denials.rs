//! Counts of denials, and warnings before a limit has no room.

use super::*;
use crate::ledger::DenialCount;
use crate::ledger::denials::MOST;
use crate::limit::{Share, Watch};

fn denial(message: &str) -> Denial {
    Denial::new(Rule::Rolling, message)
}

fn at_clock(ledger: &Ledger, now: u64) -> Ledger {
    ledger
        .clone()
        .with_clock(std::sync::Arc::new(move || at(now)))
}

/// Returns rule, host, count, first and last time, and the last message.
async fn counted(ledger: &Ledger) -> Vec<(Rule, Option<String>, u64, u64, u64, String)> {
    let denials = ledger.denials().await.unwrap().into_iter();
    let rows = denials.map(|denials| {
        let DenialCount {
            rule,
            host,
            count,
            first_at,
            last_at,
            message,
        } = denials;
        (
            rule,
            host,
            count,
            first_at.secs() - NOW,
            last_at.secs() - NOW,
            message,
        )
    });
    rows.collect()
}

pub(super) async fn denials_are_counted_by_rule_and_host(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    assert!(counted(&ledger).await.is_empty());
    at_clock(&ledger, NOW + 1).note_denial(&denial("the first"), "a.example");
    at_clock(&ledger, NOW + 2).note_denial(&denial("at b"), "b.example");
    at_clock(&ledger, NOW + 3).note_denial(&Denial::new(Rule::Host, "no"), "a.example");
    ledger.record_denials().await.unwrap();
    at_clock(&ledger, NOW + 9).note_denial(&denial("the last"), "a.example");
    // A clock that is behind.
    at_clock(&ledger, NOW).note_denial(&denial("earlier"), "a.example");
    let host = |name: &str| Some(name.to_owned());
    let expected = vec![
        (
            Rule::Rolling,
            host("a.example"),
            3,
            0,
            9,
            "the last".to_owned(),
        ),
        (Rule::Host, host("a.example"), 1, 3, 3, "no".to_owned()),
        (Rule::Rolling, host("b.example"), 1, 2, 2, "at b".to_owned()),
    ];
    assert_eq!(counted(&ledger).await, expected);
    // Counting them again changes nothing, and neither does a purchase.
    hold(&ledger, order("next", 10), NOW).await;
    assert_eq!(counted(&ledger).await, expected);
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

pub(super) async fn the_counts_of_denials_are_bounded_and_lose_no_denial(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for number in 0..MOST * 3 {
        ledger.note_denial(&denial("too much"), &format!("host-{number}.example"));
        ledger.record_denials().await.unwrap();
    }
    // A known host is still counted apart.
    ledger.note_denial(&denial("too much"), "host-0.example");
    let denials = ledger.denials().await.unwrap();
    assert_eq!(denials.len(), MOST + 1);
    let count = |host: Option<&str>| {
        let mut found = denials
            .iter()
            .filter(|denials| denials.host.as_deref() == host);
        found.next().map(|denials| denials.count)
    };
    assert_eq!(count(Some("host-0.example")), Some(2));
    assert_eq!(count(None), Some(u64::try_from(MOST * 2).unwrap()));
}

/// A wish that warns at four fifths of a lifetime limit of 100.
fn watched(id: &str, value: u64) -> Reservation {
    let mut wish = wish(order(id, value), at(NOW), lifetime(100));
    let share = Share::try_from(0.8).unwrap();
    wish.checks.watch = Watch::new(vec![(lifetime(100)[0].clone(), share)]);
    wish
}

async fn warnings(ledger: &Ledger, wish: &Reservation) -> Vec<String> {
    let reserved = ledger.reserve(wish).await.unwrap();
    let warnings = ledger.warnings(wish).into_iter();
    let texts = warnings
        .map(|(share, status)| format!("{share} {}: {}", status.name, status.used.unwrap()));
    let texts: Vec<String> = texts.collect();
    assert!(
        texts.is_empty() || matches!(reserved, Reserved::Held(_)),
        "{reserved:?}"
    );
    texts
}

pub(super) async fn the_payment_that_passes_a_share_of_a_limit_warns_once(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    assert!(warnings(&ledger, &watched("1", 79)).await.is_empty());
    // A denied payment passes nothing.
    assert!(warnings(&ledger, &watched("2", 22)).await.is_empty());
    assert_eq!(
        warnings(&ledger, &watched("3", 1)).await,
        ["80% global lifetime: 0.00008 USD"]
    );
    assert!(warnings(&ledger, &watched("4", 1)).await.is_empty());
    // Below the share and past it again, in the same window.
    for id in ["3", "4"] {
        let freed = Transition::Voided {
            lease: at(NOW).after(LEASE),
        };
        let key = order(id, 1).key();
        ledger.record(&key, &freed, at(NOW)).await.unwrap();
    }
    assert!(warnings(&ledger, &watched("5", 2)).await.is_empty());
}

pub(super) async fn of_many_tasks_one_warns_of_a_limit(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let tasks = (0..12).map(|number| {
        let ledger = ledger.clone();
        let wish = watched(&format!("task-{number}"), 10);
        tokio::spawn(async move { warnings(&ledger, &wish).await.len() })
    });
    let mut warned = 0;
    for task in tasks.collect::<Vec<_>>() {
        warned += task.await.unwrap();
    }
    assert_eq!(warned, 1);
}
