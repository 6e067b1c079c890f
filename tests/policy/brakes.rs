//! The brakes against loops and failing sellers, and policies that limit nothing.

use std::time::Duration;

use bursar::policy::{PolicyError, Rule};
use bursar::{Ledger, Policy, usd};
use bursar_tests::clock::{DAY, MINUTE};
use bursar_tests::imagined_payment::ImaginedPayment;
use bursar_tests::test_offer::offer;
use bursar_tests::tokens::{euro, euros, usdc};
use bursar_tests::wallet_harness::WalletHarness;

fn undefaulted() -> Policy {
    Policy::new().allow_network("base").without_default_limits()
}

/// Returns the policies that take away as many limits as they can.
fn loosest() -> [Policy; 4] {
    [
        undefaulted()
            .per_payment(usd!("1000"))
            .lifetime(usd!("100000")),
        undefaulted().unlimited(),
        Policy::new().allow_network("base").unlimited(),
        Policy::new()
            .allow_network("base")
            .per_payment(usd!("1000"))
            .per_day(usd!("100000"))
            .exposure(usd!("100000"))
            .payments(MINUTE, u32::MAX),
    ]
}

#[tokio::test]
async fn no_limit_on_amounts_removes_the_brake_against_loops() {
    for policy in loosest() {
        let wallet = WalletHarness::new(policy);
        for _ in 0..30 {
            wallet.buy(&offer("1")).await;
        }
        assert_eq!(wallet.deny(&offer("1")).await.rule, Rule::LoopGuard);
        wallet.buy(&offer("1").url("https://other.example/")).await;
    }
}

#[tokio::test]
async fn no_limit_on_amounts_removes_the_brake_against_failing_sellers() {
    for policy in loosest() {
        let wallet = WalletHarness::new(policy);
        for _ in 0..3 {
            wallet.hold(&offer("1")).await;
        }
        assert_eq!(wallet.deny(&offer("1")).await.rule, Rule::CircuitBreaker);
        wallet.buy(&offer("1").url("https://other.example/")).await;
    }
}

#[tokio::test]
async fn each_brake_has_a_setting_of_its_own() {
    let wallet = WalletHarness::new(
        undefaulted()
            .unlimited()
            .loop_guard(MINUTE, 40)
            .circuit_breaker(MINUTE, 5),
    );
    for _ in 0..40 {
        wallet.buy(&offer("1")).await;
    }
    assert_eq!(wallet.deny(&offer("1")).await.rule, Rule::LoopGuard);

    let elsewhere = offer("1").url("https://other.example/");
    for _ in 0..5 {
        wallet.hold(&elsewhere).await;
    }
    assert_eq!(wallet.deny(&elsewhere).await.rule, Rule::CircuitBreaker);

    // A host's own setting leaves the other hosts with the default.
    let host = undefaulted()
        .unlimited()
        .host_limits("other.example", |host| host.loop_guard(MINUTE, 2));
    let wallet = WalletHarness::new(host);
    for _ in 0..2 {
        wallet.buy(&elsewhere).await;
    }
    assert_eq!(wallet.deny(&elsewhere).await.rule, Rule::LoopGuard);
    for _ in 0..30 {
        wallet.buy(&offer("1")).await;
    }
    assert_eq!(wallet.deny(&offer("1")).await.rule, Rule::LoopGuard);
}

#[test]
fn a_brake_over_no_time_is_a_mistake() {
    let policy = || Policy::new().allow_network("base");
    for policy in [
        policy().loop_guard(Duration::ZERO, 30),
        policy().circuit_breaker(Duration::ZERO, 3),
        policy().host_limits("a.example", |host| host.loop_guard(Duration::ZERO, 1)),
        policy().origin_limits("https://a.example", |origin| {
            origin.circuit_breaker(Duration::ZERO, 1)
        }),
    ] {
        assert_eq!(policy.check(), Err(PolicyError::EmptyWindow));
    }
}

#[test]
fn a_policy_that_limits_nothing_must_state_that_it_is_unlimited() {
    for policy in [
        undefaulted(),
        undefaulted().payments(MINUTE, 1),
        undefaulted().per_payment(usd!("1")),
        undefaulted().per_payment(usd!("1")).exposure(usd!("1")),
        undefaulted().per_payment(usd!("1")).payments(DAY, 1),
        undefaulted().per_payment(usd!("1")).ask_above(usd!("0.01")),
        undefaulted().per_day(usd!("1")),
        undefaulted().lifetime(usd!("1")),
        undefaulted()
            .loop_guard(MINUTE, 1)
            .circuit_breaker(MINUTE, 1),
        undefaulted().each_origin(|origin| origin.per_payment(usd!("1"))),
    ] {
        assert_eq!(policy.check(), Err(PolicyError::Unlimited), "{policy:?}");
        let built = bursar::Payer::builder()
            .signer(bursar_tests::signatures::wallet())
            .policy(policy.clone())
            .ledger(Ledger::memory())
            .build();
        let text = built.unwrap_err().to_string();
        for word in ["per_payment", "per_day", "unlimited"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(policy.unlimited().check(), Ok(()));
    }
    for policy in [
        undefaulted().per_payment(usd!("1")).per_day(usd!("1")),
        undefaulted().per_payment(usd!("1")).lifetime(usd!("1")),
        undefaulted().per_payment(usd!("1")).calendar(
            bursar::policy::Period::Day,
            "UTC",
            usd!("1"),
        ),
        Policy::new().allow_network("base").payments(MINUTE, 1),
    ] {
        assert_eq!(policy.check(), Ok(()));
    }
}

#[tokio::test]
async fn a_payment_that_no_limit_holds_is_denied() {
    let tagged = undefaulted().tag_limits("research", |tag| {
        tag.per_payment(usd!("5")).lifetime(usd!("20"))
    });
    let wallet = WalletHarness::new(tagged.clone());
    let denial = wallet.deny(&offer("0.01")).await;
    assert_eq!(denial.rule, Rule::Unlimited);
    assert!(denial.message.contains("`unlimited`"), "{denial}");

    for policy in [
        undefaulted().each_tag(|tag| tag.per_payment(usd!("5")).per_day(usd!("20"))),
        undefaulted().each_agent(|agent| agent.per_payment(usd!("5")).per_day(usd!("20"))),
        undefaulted().host_limits("*.other.example", |host| {
            host.per_payment(usd!("5")).per_day(usd!("20"))
        }),
        undefaulted()
            .per_payment(usd!("5"))
            .network_limits("polygon", |network| network.per_day(usd!("20"))),
        undefaulted()
            .register_asset(euro())
            .per_payment(euros("5"))
            .per_day(euros("20")),
    ] {
        assert_eq!(policy.check(), Ok(()));
        let denial = WalletHarness::new(policy).deny(&offer("0.01")).await;
        assert_eq!(denial.rule, Rule::Unlimited);
    }
    for policy in [
        undefaulted().each_origin(|origin| origin.per_payment(usd!("5")).per_day(usd!("20"))),
        undefaulted()
            .per_payment(usd!("5"))
            .network_limits("base", |network| network.per_day(usd!("20"))),
        undefaulted().asset_limits(&usdc("base"), |asset| {
            let units = |text| bursar::TokenAmount::parse(text, usdc("base")).unwrap();
            asset.per_payment(units("5")).lifetime(units("20"))
        }),
        tagged.unlimited(),
    ] {
        WalletHarness::new(policy).buy(&offer("0.01")).await;
    }
}

#[test]
fn explain_shows_a_policy_that_is_unlimited() {
    let payment = ImaginedPayment::new("https://a.example", usd!("1000"));
    let now = bursar_tests::clock::at("2025-01-01T00:00:00Z");
    let text = |policy: &Policy| payment.explain(policy, now).unwrap().to_string();
    let unlimited = text(&undefaulted().unlimited());
    assert!(
        unlimited.contains("unlimited") && unlimited.contains("the policy is unlimited"),
        "{unlimited}"
    );
    let tagged = undefaulted().tag_limits("research", |tag| {
        tag.per_payment(usd!("5")).lifetime(usd!("20"))
    });
    let denied = text(&tagged);
    assert!(denied.contains("deny  unlimited"), "{denied}");
    assert!(!text(&Policy::new().allow_network("base")).contains("unlimited"));
}

#[test]
fn the_path_of_a_freeze_file_does_not_depend_on_the_working_directory_later() {
    let policy = Policy::new().allow_network("base").freeze_file("run/STOP");
    let directory = std::env::current_dir().unwrap().join("run");
    assert_eq!(policy.freeze_directory(), Some(directory.as_path()));
    let empty = Policy::new().allow_network("base").freeze_file("");
    assert!(matches!(empty.check(), Err(PolicyError::FreezeFile { .. })));
}
