//! Limits that hold together, and the default limits.

use bursar::clock::CLOCK_BOUND;
use bursar::policy::Rule;
use bursar::{ErrorKind, Policy, usd};
use bursar_tests::clock::{DAY, HOUR, MINUTE, MONDAY_NOON};
use bursar_tests::test_offer::{offer, offer_in};
use bursar_tests::tokens::{euro, euros};
use bursar_tests::wallet_harness::WalletHarness;

use crate::{bare, refused};

#[tokio::test]
async fn a_narrow_limit_never_replaces_a_wide_one() {
    let policy = bare()
        .rolling(DAY, usd!("0.20"))
        .host_limits("api.example.com", |host| {
            host.rolling(DAY, usd!("1")).per_payment(usd!("5"))
        })
        .host_limits("cheap.example", |host| host.rolling(DAY, usd!("0.05")))
        .per_payment(usd!("0.15"));
    let wallet = WalletHarness::new(policy);
    assert_eq!(
        wallet.deny(&offer("0.16")).await.scope.unwrap().to_string(),
        "global"
    );
    let cheap = |price: &str| offer(price).url("https://cheap.example");
    wallet.buy(&cheap("0.05")).await;
    assert_eq!(
        wallet.deny(&cheap("0.01")).await.scope.unwrap().to_string(),
        "host cheap.example"
    );
    wallet.buy(&offer("0.15")).await;
    let denial = wallet.deny(&offer("0.01")).await;
    refused(
        &denial,
        Rule::Rolling,
        "global",
        ["0.20 USD", "0.20 USD", "0.01 USD"],
        Some(MONDAY_NOON.after(DAY + MINUTE)),
    );
}

#[tokio::test]
async fn several_limits_of_one_kind_all_hold() {
    let wallet = WalletHarness::new(
        bare()
            .rolling(HOUR, usd!("0.10"))
            .rolling(DAY, usd!("0.15")),
    );
    wallet.buy(&offer("0.10")).await;
    wallet.advance(HOUR + MINUTE);
    let denial = wallet.deny(&offer("0.10")).await;
    assert!(denial.to_string().contains("global rolling 1d"), "{denial}");
    wallet.buy(&offer("0.05")).await;
}

#[tokio::test]
async fn the_defaults() {
    let wallet = WalletHarness::new(Policy::new().allow_network("base"));
    let denial = wallet.deny(&offer("0.100001")).await;
    refused(
        &denial,
        Rule::PerPayment,
        "global",
        ["0.10 USD", "0.00 USD", "0.100001 USD"],
        None,
    );
    for number in 0..10 {
        wallet
            .hold(&offer("0.10").url(&format!("https://h{number}.example/")))
            .await;
    }
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(
        (denial.rule, denial.limit.unwrap().to_string()),
        (Rule::Exposure, "1.00 USD".to_owned())
    );
    wallet.advance(MINUTE + CLOCK_BOUND);
    for number in 0..40 {
        wallet
            .buy(&offer("0.10").url(&format!("https://h.example/{number}")))
            .await;
    }
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(
        (denial.rule, denial.limit.unwrap().to_string()),
        (Rule::Rolling, "5.00 USD".to_owned())
    );

    let wallet = WalletHarness::new(Policy::new().allow_network("base"));
    for number in 0..60 {
        wallet
            .buy(&offer("0.01").url(&format!("https://h.example/{number}")))
            .await;
    }
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(
        (denial.rule, denial.limit.unwrap().to_string()),
        (Rule::Payments, "60 payments".to_owned())
    );
    assert_eq!(denial.room_returns, Some(wallet.now().after(MINUTE)));

    let wallet = WalletHarness::new(Policy::new().allow_network("base"));
    for _ in 0..30 {
        wallet.buy(&offer("0.01")).await;
    }
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(
        (denial.rule, denial.room_returns),
        (Rule::LoopGuard, Some(wallet.now().after(MINUTE)))
    );
    assert!(
        denial
            .to_string()
            .starts_with("the same request was bought 30 times within 1m"),
        "{denial}"
    );

    let wallet = WalletHarness::new(Policy::new().allow_network("base"));
    for _ in 0..3 {
        wallet.hold(&offer("0.01")).await;
    }
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(
        (denial.rule, denial.room_returns),
        (Rule::CircuitBreaker, Some(wallet.now().after(10 * MINUTE)))
    );
    wallet
        .buy(&offer("0.01").url("https://other.example/"))
        .await;
}

#[tokio::test]
async fn a_default_is_replaced_by_its_kind_on_everything_in_dollars_alone() {
    let wallet = WalletHarness::new(
        Policy::new()
            .allow_network("base")
            .per_payment(usd!("0.50")),
    );
    wallet.buy(&offer("0.50")).await;
    assert_eq!(wallet.deny(&offer("0.51")).await.rule, Rule::PerPayment);
    wallet.hold(&offer("0.50")).await;
    wallet.hold(&offer("0.50")).await;
    assert_eq!(wallet.deny(&offer("0.01")).await.rule, Rule::Exposure);

    let narrow = Policy::new()
        .allow_network("base")
        .register_asset(euro())
        .per_payment(euros("5"))
        .host_limits("api.example.com", |host| host.per_payment(usd!("5")));
    let wallet = WalletHarness::new(narrow);
    assert_eq!(
        wallet.deny(&offer("0.11")).await.limit.unwrap().to_string(),
        "0.10 USD"
    );

    let wallet = WalletHarness::new(Policy::new().allow_network("base").unlimited());
    wallet.hold(&offer("1000000")).await;
}

#[tokio::test]
async fn a_token_without_a_dollar_value_is_limited_in_its_own_units() {
    let euro_offer = |price: &str| offer_in(euro(), price);
    let unmeasured = "EURC@eip155:8453 has no dollar value; the policy must limit it in its own units, \
                      per payment and over time";
    for policy in [
        bare().per_payment(usd!("1")).rolling(DAY, usd!("1")),
        bare().per_payment(euros("1")),
        bare().rolling(DAY, euros("1")),
        bare().per_payment(euros("1")).exposure(euros("1")),
        bare().per_payment(euros("1")).payments(DAY, 1),
        bare()
            .per_payment(euros("1"))
            .host_limits("other.example", |host| host.rolling(DAY, euros("1"))),
    ] {
        let denial = WalletHarness::new(policy.register_asset(euro()))
            .deny(&euro_offer("0.01"))
            .await;
        assert_eq!(
            (denial.rule, denial.message.as_str()),
            (Rule::UnpricedAsset, unmeasured)
        );
    }

    let policy = bare()
        .register_asset(euro())
        .per_payment(euros("1.5"))
        .rolling(DAY, euros("2"))
        .lifetime(usd!("1"));
    let wallet = WalletHarness::new(policy);
    wallet.buy(&offer("1")).await; // dollars and euros do not add up
    let denial = wallet.deny(&euro_offer("1.500001")).await;
    refused(
        &denial,
        Rule::PerPayment,
        "global",
        ["1.5 EURC", "0 EURC", "1.500001 EURC"],
        None,
    );
    wallet.buy(&euro_offer("1.5")).await;
    let denial = wallet.deny(&euro_offer("1")).await;
    let room = Some(wallet.now().after(DAY + MINUTE));
    refused(
        &denial,
        Rule::Rolling,
        "global",
        ["2 EURC", "1.5 EURC", "1 EURC"],
        room,
    );
    wallet.buy(&euro_offer("0.5")).await;
}

#[tokio::test]
async fn a_token_that_nobody_registered_is_never_paid() {
    let wallet = WalletHarness::new(bare());
    let error = wallet
        .authorize(&offer_in(euro(), "0.01"))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), wallet.signatures()),
        (ErrorKind::NotPayable, 0)
    );
}

#[tokio::test]
async fn the_price_limit_of_a_request() {
    let wallet = WalletHarness::new(bare());
    wallet.buy(&offer("0.05").max_price(usd!("0.05"))).await;
    let denial = wallet
        .deny(&offer("0.05").max_price(usd!("0.049999")))
        .await;
    refused(
        &denial,
        Rule::MaxPrice,
        "",
        ["0.049999 USD", "", "0.05 USD"],
        None,
    );
    assert_eq!(
        denial.to_string(),
        "0.05 USDC is above this request's max_price of 0.049999 USD"
    );

    let policy = bare()
        .register_asset(euro())
        .per_payment(euros("1"))
        .lifetime(euros("1"));
    let denial = WalletHarness::new(policy)
        .deny(&offer_in(euro(), "0.01").max_price(usd!("100")))
        .await;
    assert_eq!(
        denial.rule,
        Rule::MaxPrice,
        "what dollars do not measure is not below a price in dollars"
    );
}

#[tokio::test]
async fn amounts_beyond_counting_are_refused() {
    let mut offer = offer("1");
    offer.accepts[0].units = bursar::primitives::U256::MAX;
    assert_eq!(
        WalletHarness::new(bare()).deny(&offer).await.rule,
        Rule::PerPayment
    );
}
