//! The payee and the last price of a seller.

use super::*;

pub(super) async fn the_first_payee_is_remembered(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let pinned = |payee: u8, network| {
        let payee = Address::repeat_byte(payee);
        let purchase = NewPurchase {
            payee,
            asset: usdc(network),
            ..order("next", 1)
        };
        let pin = PayeePin {
            origin: purchase.origin.clone(),
            payee,
        };
        LimitCheck {
            payee: Some(pin),
            ..checks(&purchase, at(NOW), Vec::new())
        }
    };
    let freed = hold(
        &ledger,
        NewPurchase {
            payee: Address::repeat_byte(9),
            ..order("freed", 1)
        },
        NOW,
    )
    .await;
    ledger.record(&freed, &given_up(), at(NOW)).await.unwrap();
    assert_eq!(
        refusal(ledger.examine(&pinned(2, BASE)).await),
        None,
        "nobody was paid yet"
    );
    for (number, payee) in [1, 2, 2].into_iter().enumerate() {
        let purchase = NewPurchase {
            payee: Address::repeat_byte(payee),
            ..order(&format!("order-{number}"), 1)
        };
        sign(&ledger, purchase, NOW, NOW + 300).await;
    }
    assert_eq!(refusal(ledger.examine(&pinned(1, BASE)).await), None);
    assert_eq!(
        refusal(ledger.examine(&pinned(2, BASE)).await),
        Some(Rule::PayeeChanged)
    );
    assert_eq!(
        refusal(ledger.examine(&pinned(2, SEPOLIA)).await),
        None,
        "another token has a payee of its own"
    );
    let wish = Reservation {
        checks: pinned(2, BASE),
        ..wish(order("next", 1), at(NOW), Vec::new())
    };
    assert!(matches!(
        ledger.reserve(&wish).await.unwrap(),
        Reserved::Denied(_)
    ));
}

pub(super) fn refusal(findings: Result<Vec<LimitStatus>, LedgerError>) -> Option<Rule> {
    findings
        .unwrap()
        .into_iter()
        .find_map(|finding| finding.denial)
        .map(|denial| denial.rule)
}

pub(super) async fn the_last_price_is_remembered(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let priced = |value: u64, method: &str, path: &str| {
        let purchase = order("next", value);
        let ceiling = PriceCeiling {
            origin: purchase.origin.clone(),
            method: method.to_owned(),
            path: path.to_owned(),
            max_rise_percent: 50,
        };
        LimitCheck {
            price: Some(ceiling),
            ..checks(&purchase, at(NOW), Vec::new())
        }
    };
    assert_eq!(
        refusal(ledger.examine(&priced(1_000_000, "GET", "/report")).await),
        None,
        "there is no last price"
    );
    for (number, value) in [1000, 10].into_iter().enumerate() {
        sign(
            &ledger,
            order(&format!("order-{number}"), value),
            NOW,
            NOW + 300,
        )
        .await;
    }
    sign(
        &ledger,
        NewPurchase {
            path: "/other".to_owned(),
            ..order("other", 5000)
        },
        NOW,
        NOW + 300,
    )
    .await;
    sign(
        &ledger,
        NewPurchase {
            origin: "https://b.example".parse().unwrap(),
            ..order("elsewhere", 5000)
        },
        NOW,
        NOW + 300,
    )
    .await;
    let freed = hold(&ledger, order("freed", 5000), NOW).await;
    ledger.record(&freed, &given_up(), at(NOW)).await.unwrap();
    assert_eq!(
        refusal(ledger.examine(&priced(15, "GET", "/report")).await),
        None
    );
    assert_eq!(
        refusal(ledger.examine(&priced(16, "GET", "/report")).await),
        Some(Rule::PriceRise)
    );
    assert_eq!(
        refusal(ledger.examine(&priced(16, "POST", "/report")).await),
        None
    );
    assert_eq!(
        refusal(ledger.examine(&priced(7500, "GET", "/other")).await),
        None
    );
}
