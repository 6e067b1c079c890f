//! Each kind of limit, on all payments.

use std::time::Duration;

use bursar::clock::CLOCK_BOUND;
use bursar::policy::{Period, Rule};
use bursar::usd;
use bursar_tests::clock::{DAY, HOUR, MINUTE, SECOND, at};
use bursar_tests::test_offer::offer;
use bursar_tests::wallet_harness::WalletHarness;

use crate::{bare, refused};

#[tokio::test]
async fn per_payment() {
    let wallet = WalletHarness::new(bare().per_payment(usd!("0.05")));
    wallet.buy(&offer("0.05")).await;
    let denial = wallet.deny(&offer("0.050001")).await;
    refused(
        &denial,
        Rule::PerPayment,
        "global",
        ["0.05 USD", "0.00 USD", "0.050001 USD"],
        None,
    );
    assert_eq!(
        denial.to_string(),
        "0.050001 USD is above the limit of 0.05 USD (global per payment)"
    );
    wallet.buy(&offer("0.05")).await;
}

#[tokio::test]
async fn rolling() {
    let wallet = WalletHarness::new(bare().rolling(HOUR, usd!("0.10")));
    let start = wallet.now();
    wallet.buy(&offer("0.06")).await;
    wallet.advance(10 * MINUTE);
    wallet.buy(&offer("0.04")).await;

    let denial = wallet.deny(&offer("0.01")).await;
    refused(
        &denial,
        Rule::Rolling,
        "global",
        ["0.10 USD", "0.10 USD", "0.01 USD"],
        Some(start.after(HOUR + MINUTE)),
    );
    assert_eq!(
        denial.to_string(),
        "0.01 USD does not fit: 0.10 USD of 0.10 USD used (global rolling 1h); \
         room returns at 2025-03-10T13:01:00Z"
    );
    let denial = wallet.deny(&offer("0.07")).await;
    assert_eq!(
        denial.room_returns,
        Some(start.after(HOUR + 11 * MINUTE)),
        "both must leave the window"
    );
    assert_eq!(
        wallet.deny(&offer("0.11")).await.room_returns,
        None,
        "it will never fit"
    );

    wallet.advance(51 * MINUTE - Duration::from_millis(1));
    wallet.deny(&offer("0.01")).await;
    wallet.advance(Duration::from_millis(1));
    wallet.buy(&offer("0.06")).await;
    wallet.deny(&offer("0.000001")).await;
}

#[tokio::test]
async fn rolling_counts_what_is_uncertain_until_it_can_no_longer_be_cashed() {
    let wallet = WalletHarness::new(bare().rolling(HOUR, usd!("0.10")));
    let start = wallet.now();
    wallet.hold(&offer("0.10").max_timeout_seconds(60)).await;
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(denial.room_returns, Some(start.after(HOUR + MINUTE)));
    wallet.advance(HOUR + 59 * SECOND);
    wallet.deny(&offer("0.01")).await;
    wallet.advance(SECOND);
    wallet.buy(&offer("0.01")).await;
}

#[tokio::test]
async fn calendar() {
    let wallet = WalletHarness::new(bare().calendar(Period::Day, "Europe/Berlin", usd!("0.10")));
    wallet.set_clock(at("2025-03-30T21:30:00Z")); // half past eleven in the evening, summer time
    wallet.buy(&offer("0.10")).await;
    let denial = wallet.deny(&offer("0.01")).await;
    let midnight = at("2025-03-30T22:00:00Z");
    refused(
        &denial,
        Rule::Calendar,
        "global",
        ["0.10 USD", "0.10 USD", "0.01 USD"],
        Some(midnight),
    );
    assert!(
        denial
            .to_string()
            .contains("(global calendar day (Europe/Berlin))"),
        "{denial}"
    );
    wallet.set_clock(midnight.before(Duration::from_millis(1)));
    wallet.deny(&offer("0.01")).await;
    wallet.set_clock(midnight);
    wallet.buy(&offer("0.10")).await;
    wallet.deny(&offer("0.01")).await;
}

#[tokio::test]
async fn calendar_periods() {
    for (period, next) in [
        (Period::Day, "2025-03-11T00:00:00Z"),
        (Period::Week, "2025-03-17T00:00:00Z"),
        (Period::Month, "2025-04-01T00:00:00Z"),
        (Period::Year, "2026-01-01T00:00:00Z"),
    ] {
        let wallet = WalletHarness::new(bare().calendar(period, "UTC", usd!("0.10")));
        wallet.buy(&offer("0.10")).await;
        assert_eq!(
            wallet.deny(&offer("0.10")).await.room_returns,
            Some(at(next)),
            "{period:?}"
        );
        wallet.set_clock(at(next));
        wallet.buy(&offer("0.10")).await;
    }
}

#[tokio::test]
async fn lifetime() {
    let wallet = WalletHarness::new(bare().lifetime(usd!("0.10")));
    wallet.buy(&offer("0.06")).await;
    wallet.advance(3650 * DAY);
    let denial = wallet.deny(&offer("0.05")).await;
    refused(
        &denial,
        Rule::Lifetime,
        "global",
        ["0.10 USD", "0.06 USD", "0.05 USD"],
        None,
    );
    assert_eq!(
        denial.to_string(),
        "0.05 USD does not fit: 0.06 USD of 0.10 USD used (global lifetime)"
    );
    wallet.buy(&offer("0.04")).await;
    wallet.deny(&offer("0.000001")).await;
}

#[tokio::test]
async fn exposure() {
    let wallet = WalletHarness::new(bare().exposure(usd!("0.10")));
    let start = wallet.now();
    for _ in 0..3 {
        wallet.buy(&offer("0.10")).await; // settled is not exposed
    }
    let open = wallet
        .authorize(&offer("0.06").max_timeout_seconds(60))
        .await
        .unwrap();
    wallet.hold(&offer("0.04").max_timeout_seconds(120)).await;

    // The call of the first payment has not ended, and can give its room back at any moment.
    let amounts = ["0.10 USD", "0.10 USD", "0.01 USD"];
    let denial = wallet.deny(&offer("0.01")).await;
    refused(&denial, Rule::Exposure, "global", amounts, Some(start));
    open.lost("still nothing").await;
    let denial = wallet.deny(&offer("0.01")).await;
    // A minute of validity, and the bound of clocks.
    let expires = start.after(MINUTE + CLOCK_BOUND);
    refused(&denial, Rule::Exposure, "global", amounts, Some(expires));
    wallet.set_clock(expires.before(Duration::from_millis(1)));
    wallet.deny(&offer("0.01")).await;
    wallet.set_clock(expires);
    wallet.hold(&offer("0.06")).await;
    wallet.deny(&offer("0.01")).await;
}

#[tokio::test]
async fn payments() {
    let wallet = WalletHarness::new(bare().payments(MINUTE, 2));
    let start = wallet.now();
    wallet.buy(&offer("0.01")).await;
    wallet.advance(10 * SECOND);
    wallet.hold(&offer("0.01")).await;
    let denial = wallet.deny(&offer("0.01")).await;
    let room = Some(start.after(MINUTE));
    refused(
        &denial,
        Rule::Payments,
        "global",
        ["2 payments", "2 payments", "1 payment"],
        room,
    );
    wallet.advance(50 * SECOND - Duration::from_millis(1));
    wallet.deny(&offer("0.01")).await;
    wallet.advance(Duration::from_millis(1));
    wallet.buy(&offer("0.01")).await;
    wallet.deny(&offer("0.01")).await;
}
