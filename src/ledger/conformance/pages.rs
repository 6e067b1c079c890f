//! Long lists: pages, ids of any payer, and calls that are counted.

use super::windows::by_key;
use super::*;
use crate::ledger::Calls;
use crate::ledger::filter::PAGE;

const MANY: usize = PAGE * 3 + 2;

async fn ids(ledger: &Ledger, filter: &Filter) -> Vec<String> {
    let mut pages = ledger.pages(filter);
    let mut ids = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        assert!((1..=PAGE).contains(&page.len()), "{}", page.len());
        ids.extend(page.into_iter().map(|purchase| purchase.id.to_string()));
    }
    ids
}

pub(super) async fn pages_name_each_purchase_once_and_in_order(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let name = |number: usize| format!("order-{number}");
    for number in 0..MANY {
        let purchase = at_place(number % 2, order(&name(number), 10));
        hold(&ledger, purchase, NOW).await;
    }
    let expected = |numbers: &mut dyn Iterator<Item = usize>| numbers.map(name).collect::<Vec<_>>();
    let all = expected(&mut (0..MANY));
    assert_eq!(ids(&ledger, &Filter::all()).await, all);
    let purchases = ledger.purchases(&Filter::all()).await.unwrap();
    assert_eq!(purchases.len(), MANY);
    for last in [1, PAGE - 1, PAGE, PAGE + 1, MANY - 1, MANY, MANY + 1] {
        let filter = Filter {
            last: Some(last),
            ..Filter::all()
        };
        let newest = expected(&mut (MANY.saturating_sub(last)..MANY));
        assert_eq!(ids(&ledger, &filter).await, newest, "{last}");
    }
    let tagged = Filter {
        tag: Some("u".to_owned()),
        last: Some(PAGE + 1),
        ..Filter::all()
    };
    let odd = (0..MANY).filter(|number| number % 2 == 1);
    let odd: Vec<usize> = odd.collect();
    let newest = &odd[odd.len() - (PAGE + 1)..];
    assert_eq!(
        ids(&ledger, &tagged).await,
        expected(&mut newest.iter().copied())
    );

    let mut pages = ledger.pages(&Filter::all());
    let first = pages.next().await.unwrap().unwrap();
    hold(&ledger, order("late", 10), NOW).await;
    let mut found = first.len();
    let mut last = None;
    while let Some(page) = pages.next().await.unwrap() {
        found += page.len();
        last = page.last().map(|purchase| purchase.id.to_string());
    }
    assert_eq!((found, last.as_deref()), (MANY + 1, Some("late")));
    assert!(pages.next().await.unwrap().is_none());
}

pub(super) async fn a_host_or_a_pattern_selects_purchases(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for place in 0..PLACES.len() {
        let purchase = at_place(place, order(&place.to_string(), 10));
        hold(&ledger, purchase, NOW).await;
    }
    for (host, expected) in [
        ("api.example.com", &["0", "1"][..]),
        ("*.example.com", &["0", "1", "2"]),
        ("*.api.example.com", &["2"]),
        ("example.com", &["3"]),
        ("other.example", &[]),
    ] {
        let filter = Filter {
            host: Some(host.parse().unwrap()),
            ..Filter::all()
        };
        assert_eq!(ids(&ledger, &filter).await, expected, "{host}");
    }
}

pub(super) async fn an_id_is_found_under_each_payer(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let by = |payer: u8, id: &str| NewPurchase {
        payer: Address::repeat_byte(payer),
        ..order(id, 10)
    };
    for (payer, id) in [(3, "a"), (1, "b"), (2, "c"), (3, "order-1")] {
        hold(&ledger, by(payer, id), NOW).await;
    }
    let found = async |id: &str| {
        let found = ledger.purchase_by_id(&id.parse().unwrap()).await;
        found.map(|found| found.map(|purchase| purchase.payer))
    };
    for (id, payer) in [("a", 3), ("b", 1), ("c", 2), ("order-1", 3)] {
        let expected = Some(Address::repeat_byte(payer));
        assert_eq!(found(id).await.unwrap(), expected, "{id}");
    }
    assert!(found("order").await.unwrap().is_none());
    let empty = ledgers.open().await;
    let missing = empty.purchase_by_id(&"a".parse().unwrap()).await;
    assert!(missing.unwrap().is_none());
}

pub(super) async fn calls_of_a_key_are_counted_without_the_refused_ones(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    for number in 0..6_u64 {
        let name = if number == 2 { "other" } else { "key" };
        let call = by_key(order(&format!("call-{number}"), 10), name);
        hold(&ledger, call, NOW + number).await;
    }
    hold(&ledger, order("payment", 10), NOW).await;
    let count = async |since: u64, before: u64, most: u64| {
        let calls = Calls {
            credential: "key",
            since: at(since),
            before,
            most,
        };
        ledger.calls(&calls).await.unwrap()
    };
    assert_eq!(count(NOW, u64::MAX, u64::MAX).await, 5);
    assert_eq!(count(NOW + 1, u64::MAX, u64::MAX).await, 4);
    assert_eq!(count(NOW, 4, u64::MAX).await, 2);
    assert_eq!(count(NOW, u64::MAX, 3).await, 3);
    assert_eq!(count(NOW, u64::MAX, 0).await, 0);
    assert_eq!(count(NOW + 6, u64::MAX, u64::MAX).await, 0);
    let refused = order("call-1", 10).key();
    let lease = state(&ledger, &refused).await.lease_until;
    ledger
        .record(&refused, &Transition::Voided { lease }, at(NOW + 1))
        .await
        .unwrap();
    assert_eq!(count(NOW, u64::MAX, u64::MAX).await, 4);
    assert_eq!(count(NOW, 4, u64::MAX).await, 1);
}
