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

pub(super) async fn a_wallet_is_known_to_a_seller_by_what_it_bought(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let (payer, origin) = (order("any", 1).payer, order("any", 1).origin);
    let path = |path: &str| NewPurchase {
        path: path.to_owned(),
        ..order(path.trim_start_matches('/').split('?').next().unwrap(), 1)
    };
    let delivered = |status| Transition::Unresolved {
        reason: "no receipt".to_owned(),
        answer: Some(SellerAnswer::of(status)),
    };
    for (purchase, end) in [
        (path("/settled"), Some(settled())),
        (path("/delivered"), Some(delivered(200))),
        (path("/failed"), Some(delivered(500))),
        (path("/rejected"), Some(rejected())),
        (path("/lost"), Some(unknown())),
        (path("/signed"), None),
        (path("/queried?day=1"), Some(settled())),
    ] {
        let key = sign(&ledger, purchase, NOW, NOW + 300).await;
        if let Some(end) = end {
            ledger.record(&key, &end, at(NOW)).await.unwrap();
        }
    }
    let held = hold(&ledger, path("/held"), NOW).await;
    ledger.record(&held, &given_up(), at(NOW)).await.unwrap();
    let is_known = async |payer, origin: &str, path| {
        let origin = origin.parse().unwrap();
        let bought = Bought {
            payer,
            origin: &origin,
            path,
        };
        ledger.has_bought(&bought).await.unwrap()
    };
    let here = origin.to_string();
    for (path, known) in [
        ("/settled", true),
        ("/settled?day=2", true),
        ("/delivered", true),
        ("/queried", true),
        ("/queried?day=2", true),
        ("/failed", false),
        ("/rejected", false),
        ("/lost", false),
        ("/signed", false),
        ("/held", false),
        ("/settle", false),
        ("/settled/more", false),
        ("/SETTLED", false),
    ] {
        assert_eq!(is_known(payer, &here, Some(path)).await, known, "{path}");
    }
    assert!(is_known(payer, &here, None).await);
    let stranger = Address::repeat_byte(0xCD);
    for path in [None, Some("/settled")] {
        assert!(!is_known(stranger, &here, path).await);
        assert!(!is_known(payer, "https://other.example", path).await);
    }
}
