//! What the policy allows and refuses, seen from outside: terms in, payment or denial out.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::future::pending;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar::approval::{ApprovalRequest, ChannelApprover, TerminalApprover, Verdict, approve_fn};
use bursar::policy::{Amount, HostRules, Limits, Period, PolicyError, Rule};
use bursar::secrecy::ExposeSecret;
use bursar::{Address, Denial, Error, ErrorKind, Ledger, Payer, Policy, Timestamp, Usd, usd};
use bursar_tests::purse::{
    DAY, HOUR, ImaginedPayment, MINUTE, Offer, SECOND, START, TestOffer, WalletHarness, at, base,
    euro, euros, payee, sale, sale_in, settle, signer, usdc,
};
use proptest::prelude::*;

/// Base, and no limit but those added.
fn bare() -> Policy {
    Policy::new().allow_network("base").without_default_limits()
}

/// All that a denial by a limit says.
fn facts(denial: &Denial) -> (Rule, String, String, String, String, Option<Timestamp>) {
    let text = |value: Option<&bursar::policy::Quantity>| {
        value.map(ToString::to_string).unwrap_or_default()
    };
    let scope = denial
        .scope
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let (limit, used, asked) = (
        denial.limit.as_ref(),
        denial.used.as_ref(),
        denial.asked.as_ref(),
    );
    (
        denial.rule,
        scope,
        text(limit),
        text(used),
        text(asked),
        denial.room_returns,
    )
}

#[track_caller]
fn refused(
    denial: &Denial,
    rule: Rule,
    scope: &str,
    amounts: [&str; 3],
    room_returns: Option<Timestamp>,
) {
    let [limit, used, asked] = amounts.map(ToOwned::to_owned);
    assert_eq!(
        facts(denial),
        (rule, scope.to_owned(), limit, used, asked, room_returns),
        "{denial}"
    );
}

mod kinds {
    use super::*;

    #[tokio::test]
    async fn per_payment() {
        let purse = WalletHarness::new(bare().per_payment(usd!("0.05")));
        purse.buy(&sale("0.05")).await;
        let denial = purse.deny(&sale("0.050001")).await;
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
        purse.buy(&sale("0.05")).await;
    }

    #[tokio::test]
    async fn rolling() {
        let purse = WalletHarness::new(bare().rolling(HOUR, usd!("0.10")));
        let start = purse.now();
        purse.buy(&sale("0.06")).await;
        purse.advance(10 * MINUTE);
        purse.buy(&sale("0.04")).await;

        let denial = purse.deny(&sale("0.01")).await;
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
        let denial = purse.deny(&sale("0.07")).await;
        assert_eq!(
            denial.room_returns,
            Some(start.after(HOUR + 11 * MINUTE)),
            "both must leave the window"
        );
        assert_eq!(
            purse.deny(&sale("0.11")).await.room_returns,
            None,
            "it will never fit"
        );

        purse.advance(51 * MINUTE - Duration::from_millis(1));
        purse.deny(&sale("0.01")).await;
        purse.advance(Duration::from_millis(1));
        purse.buy(&sale("0.06")).await;
        purse.deny(&sale("0.000001")).await;
    }

    #[tokio::test]
    async fn rolling_counts_what_is_uncertain_until_it_can_no_longer_be_cashed() {
        let purse = WalletHarness::new(bare().rolling(HOUR, usd!("0.10")));
        let start = purse.now();
        purse.hold(&sale("0.10").window(60)).await;
        let denial = purse.deny(&sale("0.01")).await;
        assert_eq!(denial.room_returns, Some(start.after(HOUR + MINUTE)));
        purse.advance(HOUR + 59 * SECOND);
        purse.deny(&sale("0.01")).await;
        purse.advance(SECOND);
        purse.buy(&sale("0.01")).await;
    }

    #[tokio::test]
    async fn calendar() {
        let purse = WalletHarness::new(bare().calendar(Period::Day, "Europe/Berlin", usd!("0.10")));
        purse.set_clock(at("2025-03-30T21:30:00Z")); // half past eleven in the evening, summer time
        purse.buy(&sale("0.10")).await;
        let denial = purse.deny(&sale("0.01")).await;
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
        purse.set_clock(midnight.before(Duration::from_millis(1)));
        purse.deny(&sale("0.01")).await;
        purse.set_clock(midnight);
        purse.buy(&sale("0.10")).await;
        purse.deny(&sale("0.01")).await;
    }

    #[tokio::test]
    async fn calendar_periods() {
        for (period, next) in [
            (Period::Day, "2025-03-11T00:00:00Z"),
            (Period::Week, "2025-03-17T00:00:00Z"),
            (Period::Month, "2025-04-01T00:00:00Z"),
            (Period::Year, "2026-01-01T00:00:00Z"),
        ] {
            let purse = WalletHarness::new(bare().calendar(period, "UTC", usd!("0.10")));
            purse.buy(&sale("0.10")).await;
            assert_eq!(
                purse.deny(&sale("0.10")).await.room_returns,
                Some(at(next)),
                "{period:?}"
            );
            purse.set_clock(at(next));
            purse.buy(&sale("0.10")).await;
        }
    }

    #[tokio::test]
    async fn lifetime() {
        let purse = WalletHarness::new(bare().lifetime(usd!("0.10")));
        purse.buy(&sale("0.06")).await;
        purse.advance(3650 * DAY);
        let denial = purse.deny(&sale("0.05")).await;
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
        purse.buy(&sale("0.04")).await;
        purse.deny(&sale("0.000001")).await;
    }

    #[tokio::test]
    async fn exposure() {
        let purse = WalletHarness::new(bare().exposure(usd!("0.10")));
        let start = purse.now();
        for _ in 0..3 {
            purse.buy(&sale("0.10")).await; // settled is not exposed
        }
        let open = purse.authorize(&sale("0.06").window(60)).await.unwrap();
        purse.hold(&sale("0.04").window(120)).await;

        let denial = purse.deny(&sale("0.01")).await;
        // A minute of validity, and one more for the chain's clock.
        let expires = start.after(2 * MINUTE);
        refused(
            &denial,
            Rule::Exposure,
            "global",
            ["0.10 USD", "0.10 USD", "0.01 USD"],
            Some(expires),
        );
        open.lost("still nothing").await;
        purse.deny(&sale("0.01")).await;
        purse.set_clock(expires.before(Duration::from_millis(1)));
        purse.deny(&sale("0.01")).await;
        purse.set_clock(expires);
        purse.hold(&sale("0.06")).await;
        purse.deny(&sale("0.01")).await;
    }

    #[tokio::test]
    async fn payments() {
        let purse = WalletHarness::new(bare().payments(MINUTE, 2));
        let start = purse.now();
        purse.buy(&sale("0.01")).await;
        purse.advance(10 * SECOND);
        purse.hold(&sale("0.01")).await;
        let denial = purse.deny(&sale("0.01")).await;
        let room = Some(start.after(MINUTE));
        refused(
            &denial,
            Rule::Payments,
            "global",
            ["2 payments", "2 payments", "1 payment"],
            room,
        );
        purse.advance(50 * SECOND - Duration::from_millis(1));
        purse.deny(&sale("0.01")).await;
        purse.advance(Duration::from_millis(1));
        purse.buy(&sale("0.01")).await;
        purse.deny(&sale("0.01")).await;
    }
}

/// Every kind of limit in every scope: what lies within adds up, what lies without does not.
mod scopes {
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Kind {
        PerPayment,
        Rolling,
        Calendar,
        Lifetime,
        Exposure,
        Payments,
    }

    const KINDS: [Kind; 6] = [
        Kind::PerPayment,
        Kind::Rolling,
        Kind::Calendar,
        Kind::Lifetime,
        Kind::Exposure,
        Kind::Payments,
    ];

    /// Room for two payments of five cents.
    macro_rules! limit {
        ($kind:expr, $on:expr) => {
            match $kind {
                Kind::PerPayment => $on.per_payment(usd!("0.05")),
                Kind::Rolling => $on.rolling(HOUR, usd!("0.10")),
                Kind::Calendar => $on.calendar(Period::Day, "UTC", usd!("0.10")),
                Kind::Lifetime => $on.lifetime(usd!("0.10")),
                Kind::Exposure => $on.exposure(usd!("0.10")),
                Kind::Payments => $on.payments(HOUR, 2),
            }
        };
    }

    impl Kind {
        const fn rule(self) -> Rule {
            match self {
                Self::PerPayment => Rule::PerPayment,
                Self::Rolling => Rule::Rolling,
                Self::Calendar => Rule::Calendar,
                Self::Lifetime => Rule::Lifetime,
                Self::Exposure => Rule::Exposure,
                Self::Payments => Rule::Payments,
            }
        }

        fn on(self, limits: Limits) -> Limits {
            limit!(self, limits)
        }

        fn on_host(self, rules: HostRules) -> HostRules {
            limit!(self, rules)
        }

        /// Two payments that fill the limit, one that is too much, and none too much without.
        async fn try_out(
            self,
            policy: Policy,
            within: [&TestOffer; 2],
            without: &TestOffer,
            scope: &str,
        ) {
            let what = format!("{scope} {self:?}");
            let purse = WalletHarness::new(policy);
            let start = purse.now();
            for sale in within {
                purse.hold(sale).await;
            }
            let mut third = within[0].clone();
            if matches!(self, Self::PerPayment) {
                third.offers[0].units = "50001".parse().unwrap();
            }
            let denial = purse.deny(&third).await;
            assert_eq!(
                (denial.rule, denial.scope.unwrap().to_string()),
                (self.rule(), scope.to_owned()),
                "{what}"
            );
            for _ in 0..2 {
                purse.hold(without).await;
            }
            let room = match self {
                Self::PerPayment | Self::Lifetime => None,
                Self::Rolling => Some(start.after(HOUR + MINUTE)), // valid for a minute
                Self::Calendar => Some(at("2025-03-11T00:00:00Z")),
                Self::Exposure => Some(start.after(2 * MINUTE)),
                Self::Payments => Some(start.after(HOUR)),
            };
            assert_eq!(denial.room_returns, room, "{what}");
            if let Some(room) = room {
                purse.set_clock(room);
                purse.hold(&third).await;
            }
        }
    }

    fn five_cents() -> TestOffer {
        sale("0.05")
    }

    #[tokio::test]
    async fn global() {
        for kind in KINDS {
            let purse = WalletHarness::new(limit!(kind, bare()));
            let elsewhere = [
                five_cents().url("https://a.example/1").tag("x"),
                five_cents().url("https://b.example"),
            ];
            for sale in &elsewhere {
                purse.hold(&sale.clone().agent("y").payee(payee(7))).await;
            }
            let mut third = five_cents();
            third.offers[0].units = "50001".parse().unwrap();
            let denial = purse.deny(&third).await;
            assert_eq!(
                (denial.rule, denial.scope.unwrap().to_string()),
                (kind.rule(), "global".to_owned())
            );
        }
    }

    #[tokio::test]
    async fn origin() {
        let within = [
            five_cents(),
            five_cents().url("https://API.example.com.:443/other?x=1"),
        ];
        for outside in [
            "https://api.example.com:8443/report",
            "http://api.example.com/report",
            "https://example.com",
        ] {
            for kind in KINDS {
                let policy =
                    bare().origin_limits("https://api.example.com", |host| kind.on_host(host));
                let scope = "origin https://api.example.com";
                kind.try_out(policy, within.each_ref(), &five_cents().url(outside), scope)
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn host() {
        let within = [
            five_cents(),
            five_cents().url("http://api.example.com:8080/other"),
        ];
        let without = five_cents().url("https://x.api.example.com/report");
        for kind in KINDS {
            let policy = bare().host_limits("api.example.com", |host| kind.on_host(host));
            kind.try_out(policy, within.each_ref(), &without, "host api.example.com")
                .await;
        }
    }

    #[tokio::test]
    async fn host_pattern() {
        let within = [five_cents(), five_cents().url("https://a.b.example.com:1")];
        for outside in [
            "https://example.com",
            "https://evilexample.com",
            "https://api.example.com.evil.net",
        ] {
            for kind in KINDS {
                let policy = bare().host_limits("*.example.com", |host| kind.on_host(host));
                let without = five_cents().url(outside);
                kind.try_out(policy, within.each_ref(), &without, "host *.example.com")
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn domain() {
        let within = [
            five_cents().url("https://a.example.co.uk"),
            five_cents().url("https://example.co.uk:1"),
        ];
        let without = five_cents().url("https://a.other.co.uk");
        for kind in KINDS {
            let policy = bare().domain_limits("example.co.uk", |limits| kind.on(limits));
            kind.try_out(policy, within.each_ref(), &without, "domain example.co.uk")
                .await;
            let each = bare().each_domain(|limits| kind.on(limits));
            kind.try_out(each, within.each_ref(), &without, "domain example.co.uk")
                .await;
        }
    }

    #[tokio::test]
    async fn payee_() {
        let within = [five_cents(), five_cents().url("https://b.example")];
        let without = five_cents().payee(payee(9));
        let scope = format!("payee {}", payee(0x5e));
        for kind in KINDS {
            let policy = bare().payee_limits(payee(0x5e), |limits| kind.on(limits));
            kind.try_out(policy, within.each_ref(), &without, &scope)
                .await;
            let each = bare().each_payee(|limits| kind.on(limits));
            kind.try_out(each, within.each_ref(), &without, &scope)
                .await;
        }
    }

    #[tokio::test]
    async fn asset() {
        let token = |network: &str, symbol: &str| {
            let found = bursar::money::AssetRegistry::stablecoins()
                .find_symbol(network.parse().unwrap(), symbol);
            sale_in(found.unwrap().clone(), "0.05")
        };
        // On Arc and its test network, USDC has one address.
        for (of, without) in [
            (token("celo", "USDC"), token("celo", "USDT")),
            (token("arc", "USDC"), token("arc-testnet", "USDC")),
        ] {
            let asset = of.offers[0].asset.clone();
            let within = [of.clone(), of.url("https://b.example")];
            let scope = format!("asset {} on {}", asset.address(), asset.network());
            for kind in KINDS {
                let open = bare()
                    .allow_network(asset.network())
                    .allow_network(without.offers[0].asset.network())
                    .mix_testnets();
                let policy = open.clone().asset_limits(&asset, |limits| kind.on(limits));
                kind.try_out(policy, within.each_ref(), &without, &scope)
                    .await;
                let each = open.each_asset(|limits| kind.on(limits));
                kind.try_out(each, within.each_ref(), &without, &scope)
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn network() {
        let within = [five_cents(), five_cents().url("https://b.example")];
        let without = sale_in(usdc("polygon"), "0.05");
        for kind in KINDS {
            let policy = bare()
                .allow_network("polygon")
                .network_limits("base", |limits| kind.on(limits));
            kind.try_out(policy, within.each_ref(), &without, "network eip155:8453")
                .await;
            let each = bare()
                .allow_network("polygon")
                .each_network(|limits| kind.on(limits));
            kind.try_out(each, within.each_ref(), &without, "network eip155:8453")
                .await;
        }
    }

    #[tokio::test]
    async fn tag() {
        let within = [
            five_cents().tag("research"),
            five_cents().tag("research").url("https://b.example"),
        ];
        for without in [five_cents(), five_cents().tag("Research")] {
            for kind in KINDS {
                let policy = bare().tag_limits("research", |limits| kind.on(limits));
                kind.try_out(policy, within.each_ref(), &without, "tag research")
                    .await;
                let each = bare().each_tag(|limits| kind.on(limits));
                kind.try_out(each, within.each_ref(), &without, "tag research")
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn agent() {
        let within = [
            five_cents().agent("scout"),
            five_cents().agent("scout").url("https://b.example"),
        ];
        for without in [five_cents(), five_cents().agent("writer")] {
            for kind in KINDS {
                let policy = bare().agent_limits("scout", |limits| kind.on(limits));
                kind.try_out(policy, within.each_ref(), &without, "agent scout")
                    .await;
                let each = bare().each_agent(|limits| kind.on(limits));
                kind.try_out(each, within.each_ref(), &without, "agent scout")
                    .await;
            }
        }
    }

    #[tokio::test]
    async fn each_origin() {
        let within = [
            five_cents(),
            five_cents().url("https://api.example.com/other"),
        ];
        let without = five_cents().url("https://api.example.com:8443");
        for kind in KINDS {
            let policy = bare().each_origin(|limits| kind.on(limits));
            kind.try_out(
                policy,
                within.each_ref(),
                &without,
                "origin https://api.example.com",
            )
            .await;
        }
    }

    #[tokio::test]
    async fn each_of_a_kind_has_room_of_its_own_and_no_more() {
        let purse = WalletHarness::new(bare().each_origin(|limits| limits.lifetime(usd!("0.10"))));
        for url in ["https://a.example", "https://b.example"] {
            purse.buy(&sale("0.10").url(url)).await;
            let denial = purse.deny(&sale("0.01").url(url)).await;
            assert_eq!(denial.scope.unwrap().to_string(), format!("origin {url}"));
        }
    }
}

mod limits_together {
    use super::*;

    #[tokio::test]
    async fn a_narrow_limit_never_replaces_a_wide_one() {
        let policy = bare()
            .rolling(DAY, usd!("0.20"))
            .host_limits("api.example.com", |host| {
                host.rolling(DAY, usd!("1")).per_payment(usd!("5"))
            })
            .host_limits("cheap.example", |host| host.rolling(DAY, usd!("0.05")))
            .per_payment(usd!("0.15"));
        let purse = WalletHarness::new(policy);
        assert_eq!(
            purse.deny(&sale("0.16")).await.scope.unwrap().to_string(),
            "global"
        );
        let cheap = |price: &str| sale(price).url("https://cheap.example");
        purse.buy(&cheap("0.05")).await;
        assert_eq!(
            purse.deny(&cheap("0.01")).await.scope.unwrap().to_string(),
            "host cheap.example"
        );
        purse.buy(&sale("0.15")).await;
        let denial = purse.deny(&sale("0.01")).await;
        refused(
            &denial,
            Rule::Rolling,
            "global",
            ["0.20 USD", "0.20 USD", "0.01 USD"],
            Some(Timestamp::from_millis(START).after(DAY + MINUTE)),
        );
    }

    #[tokio::test]
    async fn several_limits_of_one_kind_all_hold() {
        let purse = WalletHarness::new(
            bare()
                .rolling(HOUR, usd!("0.10"))
                .rolling(DAY, usd!("0.15")),
        );
        purse.buy(&sale("0.10")).await;
        purse.advance(HOUR + MINUTE);
        let denial = purse.deny(&sale("0.10")).await;
        assert!(denial.to_string().contains("global rolling 1d"), "{denial}");
        purse.buy(&sale("0.05")).await;
    }

    #[tokio::test]
    async fn the_defaults() {
        let purse = WalletHarness::new(Policy::new().allow_network("base"));
        let denial = purse.deny(&sale("0.100001")).await;
        refused(
            &denial,
            Rule::PerPayment,
            "global",
            ["0.10 USD", "0.00 USD", "0.100001 USD"],
            None,
        );
        for number in 0..10 {
            purse
                .hold(&sale("0.10").url(&format!("https://h{number}.example/")))
                .await;
        }
        let denial = purse.deny(&sale("0.01")).await;
        assert_eq!(
            (denial.rule, denial.limit.unwrap().to_string()),
            (Rule::Exposure, "1.00 USD".to_owned())
        );
        purse.advance(2 * MINUTE);
        for number in 0..40 {
            purse
                .buy(&sale("0.10").url(&format!("https://h.example/{number}")))
                .await;
        }
        let denial = purse.deny(&sale("0.01")).await;
        assert_eq!(
            (denial.rule, denial.limit.unwrap().to_string()),
            (Rule::Rolling, "5.00 USD".to_owned())
        );

        let purse = WalletHarness::new(Policy::new().allow_network("base"));
        for number in 0..60 {
            purse
                .buy(&sale("0.01").url(&format!("https://h.example/{number}")))
                .await;
        }
        let denial = purse.deny(&sale("0.01")).await;
        assert_eq!(
            (denial.rule, denial.limit.unwrap().to_string()),
            (Rule::Payments, "60 payments".to_owned())
        );
        assert_eq!(denial.room_returns, Some(purse.now().after(MINUTE)));

        let purse = WalletHarness::new(Policy::new().allow_network("base"));
        for _ in 0..30 {
            purse.buy(&sale("0.01")).await;
        }
        let denial = purse.deny(&sale("0.01")).await;
        assert_eq!(
            (denial.rule, denial.room_returns),
            (Rule::LoopGuard, Some(purse.now().after(MINUTE)))
        );
        assert!(
            denial
                .to_string()
                .starts_with("the same request was bought 30 times within 1m"),
            "{denial}"
        );

        let purse = WalletHarness::new(Policy::new().allow_network("base"));
        for _ in 0..3 {
            purse.hold(&sale("0.01")).await;
        }
        let denial = purse.deny(&sale("0.01")).await;
        assert_eq!(
            (denial.rule, denial.room_returns),
            (Rule::CircuitBreaker, Some(purse.now().after(10 * MINUTE)))
        );
        purse.buy(&sale("0.01").url("https://other.example/")).await;
    }

    #[tokio::test]
    async fn a_default_is_replaced_by_its_kind_on_everything_in_dollars_alone() {
        let purse = WalletHarness::new(
            Policy::new()
                .allow_network("base")
                .per_payment(usd!("0.50")),
        );
        purse.buy(&sale("0.50")).await;
        assert_eq!(purse.deny(&sale("0.51")).await.rule, Rule::PerPayment);
        purse.hold(&sale("0.50")).await;
        purse.hold(&sale("0.50")).await;
        assert_eq!(purse.deny(&sale("0.01")).await.rule, Rule::Exposure);

        let narrow = Policy::new()
            .allow_network("base")
            .register_asset(euro())
            .per_payment(euros("5"))
            .host_limits("api.example.com", |host| host.per_payment(usd!("5")));
        let purse = WalletHarness::new(narrow);
        assert_eq!(
            purse.deny(&sale("0.11")).await.limit.unwrap().to_string(),
            "0.10 USD"
        );

        let purse =
            WalletHarness::new(Policy::new().allow_network("base").without_default_limits());
        purse.hold(&sale("1000000")).await;
    }

    #[tokio::test]
    async fn a_token_without_a_dollar_value_is_limited_in_its_own_units() {
        let euro_sale = |price: &str| sale_in(euro(), price);
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
                .deny(&euro_sale("0.01"))
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
        let purse = WalletHarness::new(policy);
        purse.buy(&sale("1")).await; // dollars and euros do not add up
        let denial = purse.deny(&euro_sale("1.500001")).await;
        refused(
            &denial,
            Rule::PerPayment,
            "global",
            ["1.5 EURC", "0 EURC", "1.500001 EURC"],
            None,
        );
        purse.buy(&euro_sale("1.5")).await;
        let denial = purse.deny(&euro_sale("1")).await;
        let room = Some(purse.now().after(DAY + MINUTE));
        refused(
            &denial,
            Rule::Rolling,
            "global",
            ["2 EURC", "1.5 EURC", "1 EURC"],
            room,
        );
        purse.buy(&euro_sale("0.5")).await;
    }

    #[tokio::test]
    async fn a_token_that_nobody_registered_is_never_paid() {
        let purse = WalletHarness::new(bare());
        let error = purse.authorize(&sale_in(euro(), "0.01")).await.unwrap_err();
        assert_eq!(
            (error.kind(), purse.signatures()),
            (ErrorKind::NotPayable, 0)
        );
    }

    #[tokio::test]
    async fn the_price_limit_of_a_request() {
        let purse = WalletHarness::new(bare());
        purse.buy(&sale("0.05").max_price(usd!("0.05"))).await;
        let denial = purse.deny(&sale("0.05").max_price(usd!("0.049999"))).await;
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
            .deny(&sale_in(euro(), "0.01").max_price(usd!("100")))
            .await;
        assert_eq!(
            denial.rule,
            Rule::MaxPrice,
            "what dollars do not measure is not below a price in dollars"
        );
    }

    #[tokio::test]
    async fn amounts_beyond_counting_are_refused() {
        let mut sale = sale("1");
        sale.offers[0].units = bursar::primitives::U256::MAX;
        assert_eq!(
            WalletHarness::new(bare()).deny(&sale).await.rule,
            Rule::PerPayment
        );
    }
}

mod rules {
    use super::*;

    #[tokio::test]
    async fn hosts_that_are_allowed_and_denied() {
        let policy = bare()
            .allow_host("api.example.com")
            .allow_host("*.shop.example")
            .deny_host("bad.shop.example");
        let purse = WalletHarness::new(policy);
        for url in ["https://api.example.com:8443/x", "https://a.b.shop.example"] {
            purse.buy(&sale("0.01").url(url)).await;
        }
        for (url, message) in [
            (
                "https://example.com",
                "host example.com is not on the list of allowed hosts",
            ),
            (
                "https://shop.example",
                "host shop.example is not on the list of allowed hosts",
            ),
            (
                "https://bad.shop.example",
                "host bad.shop.example is denied by bad.shop.example",
            ),
        ] {
            let denial = purse.deny(&sale("0.01").url(url)).await;
            assert_eq!(
                (denial.rule, denial.message.as_str()),
                (Rule::Host, message)
            );
        }
        let purse = WalletHarness::new(bare().deny_host("*.example.com"));
        assert_eq!(
            purse.deny(&sale("0.01")).await.message,
            "host api.example.com is denied by *.example.com"
        );
        purse.buy(&sale("0.01").url("https://example.com")).await;
    }

    #[tokio::test]
    async fn payees_that_are_allowed_and_denied() {
        let purse = WalletHarness::new(
            bare()
                .allow_payee(payee(1))
                .allow_payee(payee(2))
                .deny_payee(payee(2)),
        );
        purse.buy(&sale("0.01").payee(payee(1))).await;
        for byte in [2, 3] {
            assert_eq!(
                purse.deny(&sale("0.01").payee(payee(byte))).await.rule,
                Rule::Payee
            );
        }
        let purse = WalletHarness::new(bare().deny_payee(payee(2)));
        purse.buy(&sale("0.01").payee(payee(1))).await;
        assert_eq!(
            purse.deny(&sale("0.01").payee(payee(2))).await.rule,
            Rule::Payee
        );
    }

    #[tokio::test]
    async fn assets_that_are_allowed_and_denied() {
        let usdc = usdc("base");
        let allow_other = bare().allow_asset(base(), payee(1));
        let denied = bare()
            .allow_asset(base(), usdc.address())
            .deny_asset(base(), usdc.address());
        for policy in [
            allow_other,
            denied,
            bare().deny_asset(base(), usdc.address()),
        ] {
            assert_eq!(
                WalletHarness::new(policy).deny(&sale("0.01")).await.rule,
                Rule::Asset
            );
        }
        WalletHarness::new(bare().allow_asset(base(), usdc.address()))
            .buy(&sale("0.01"))
            .await;
    }

    #[tokio::test]
    async fn networks_must_be_named() {
        let purse = WalletHarness::new(bare());
        let denial = purse.deny(&sale_in(usdc("polygon"), "0.01")).await;
        assert_eq!(
            denial.to_string(),
            "network eip155:137 (polygon) is not allowed"
        );
        assert_eq!(denial.rule, Rule::Network);
        assert_eq!(
            WalletHarness::new(bare().deny_network("base"))
                .deny(&sale("0.01"))
                .await
                .rule,
            Rule::Network
        );
        let purse = WalletHarness::new(bare().allow_network("eip155:137"));
        purse.buy(&sale_in(usdc("polygon"), "0.01")).await;
    }

    #[tokio::test]
    async fn a_payee_may_change_unless_it_is_pinned() {
        let of = |byte: u8| sale("0.01").payee(payee(byte));
        let purse = WalletHarness::new(bare());
        for byte in [1, 2, 3] {
            purse.buy(&of(byte)).await;
        }

        let purse = WalletHarness::new(bare().payee_pinned());
        purse.buy(&of(1)).await;
        let denial = purse.deny(&of(2)).await;
        assert_eq!(denial.rule, Rule::PayeeChanged);
        let words = format!(
            "https://api.example.com was first paid at {} and now names {}",
            payee(1),
            payee(2)
        );
        assert_eq!(denial.to_string(), words);
        purse.buy(&of(1)).await;
        purse.buy(&of(2).url("https://other.example")).await; // pinned there on its own
        assert_eq!(
            purse.deny(&of(1).url("https://other.example")).await.rule,
            Rule::PayeeChanged
        );
    }

    #[tokio::test]
    async fn only_what_was_signed_pins_a_payee() {
        let policy = bare().payee_pinned().per_payment(usd!("0.05"));
        let purse = WalletHarness::new(policy);
        purse.deny(&sale("1").payee(payee(6))).await;
        purse.hold(&sale("0.01").payee(payee(1))).await;
        purse.buy(&sale("0.01").payee(payee(1))).await;
        assert_eq!(
            purse.deny(&sale("0.01").payee(payee(6))).await.rule,
            Rule::PayeeChanged
        );
    }

    #[tokio::test]
    async fn the_most_specific_setting_decides() {
        let of = |url: &str, byte: u8| sale("0.01").url(url).payee(payee(byte));
        let policy = bare()
            .payees([payee(1)])
            .origin_limits("https://api.example.com:8443", |origin| origin.payee_free())
            .host_limits("api.example.com", |host| host.payees([payee(4), payee(5)]))
            .host_limits("*.example.com", |host| host.payees([payee(3)]))
            .host_limits("*.com", |host| host.payees([payee(2)]))
            .host_limits("*.b.example.com", |host| host.max_validity(10 * SECOND));
        let purse = WalletHarness::new(policy);
        for (url, allowed) in [
            ("https://elsewhere.net", &[1][..]),
            ("https://example.com", &[2]),
            ("https://x.example.com", &[3]),
            ("https://a.b.example.com", &[3]), // an entry that does not set it leaves it to the next
            ("https://api.example.com", &[4, 5]),
            ("https://api.example.com:8443", &[1, 2, 3, 4, 5, 6]),
        ] {
            for byte in 1..=6 {
                if allowed.contains(&byte) {
                    purse.buy(&of(url, byte)).await;
                } else {
                    let denial = purse.deny(&of(url, byte)).await;
                    assert_eq!(
                        denial.message,
                        format!("payee {} is not allowed for {url}", payee(byte))
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn a_price_may_rise_by_so_much_since_the_last_purchase() {
        let purse = WalletHarness::new(bare().max_price_rise(20));
        purse.buy(&sale("0.05")).await;
        let denial = purse.deny(&sale("0.060001")).await;
        assert_eq!(denial.rule, Rule::PriceRise);
        assert_eq!(
            denial.to_string(),
            "the price rose from 0.05 to 0.060001 USDC; at most 20 % more is allowed"
        );
        let shown =
            |quantity: &Option<bursar::policy::Quantity>| quantity.as_ref().unwrap().to_string();
        assert_eq!(
            (shown(&denial.limit), shown(&denial.asked)),
            ("0.06 USDC".to_owned(), "0.060001 USDC".to_owned())
        );
        purse.buy(&sale("0.06")).await;
        purse.buy(&sale("0.072")).await;
        purse.buy(&sale("0.01")).await;
        assert_eq!(purse.deny(&sale("0.02")).await.rule, Rule::PriceRise);
        // Another path, method or host is another product; another query is not.
        purse
            .buy(&sale("1").url("https://api.example.com/other"))
            .await;
        purse.buy(&sale("1").method("POST")).await;
        purse
            .buy(&sale("1").url("https://other.example/report"))
            .await;
        assert_eq!(
            purse
                .deny(&sale("1").url("https://api.example.com/report?q=2"))
                .await
                .rule,
            Rule::PriceRise
        );

        let purse =
            WalletHarness::new(bare().host_limits("other.example", |host| host.max_price_rise(0)));
        purse.buy(&sale("0.01")).await;
        purse.buy(&sale("1")).await;
    }

    #[tokio::test]
    async fn a_resource_of_another_origin_is_recorded_or_refused() {
        let foreign = sale("0.01").resource("https://other.example/report", "a report");
        let own = sale("0.01").resource("https://api.example.com/elsewhere", "a report");
        let purse = WalletHarness::new(bare());
        purse.buy(&foreign).await;
        purse.buy(&own).await;
        let recorded: Vec<_> = purse
            .purchases()
            .await
            .into_iter()
            .map(|entry| entry.foreign_resource)
            .collect();
        assert_eq!(
            recorded,
            [Some("https://other.example/report".to_owned()), None]
        );

        let policy = bare().refuse_foreign_resource();
        let purse = WalletHarness::new(
            policy
                .clone()
                .host_limits("lax.example", |host| host.record_foreign_resource()),
        );
        let denial = purse.deny(&foreign).await;
        assert_eq!(denial.rule, Rule::ResourceOrigin);
        let words =
            "the seller at https://api.example.com says it sells `https://other.example/report`";
        assert_eq!(denial.to_string(), words);
        purse.deny(&sale("0.01").resource("not a URL", "")).await;
        purse.buy(&own).await;
        purse.buy(&sale("0.01")).await;
        purse.buy(&foreign.url("https://lax.example")).await;
    }

    #[tokio::test]
    async fn urls_with_userinfo_are_refused() {
        let purse = WalletHarness::new(bare());
        for url in [
            "https://user@api.example.com/",
            "https://:secret@api.example.com/",
            "https://a:b@api.example.com",
        ] {
            let denial = purse.deny(&sale("0.01").url(url)).await;
            assert_eq!(denial.rule, Rule::Userinfo);
            assert_eq!(
                denial.to_string(),
                "the URL carries a user name or password"
            );
        }
    }

    #[tokio::test]
    async fn impossible_payees_are_refused() {
        let purse = WalletHarness::new(bare());
        let own = purse.payer(None).address();
        let token = usdc("base").address();
        for (payee, what) in [
            (Address::ZERO, "the zero address or a precompiled contract"),
            (
                Address::with_last_byte(1),
                "the zero address or a precompiled contract",
            ),
            (own, "the payer itself"),
            (token, "the token's own contract"),
        ] {
            let denial = purse.deny(&sale("0.01").payee(payee)).await;
            assert_eq!(
                (denial.rule, denial.message),
                (Rule::PayeeImpossible, format!("payee {payee} is {what}"))
            );
        }
    }

    #[tokio::test]
    async fn nothing_is_signed_for_a_price_of_zero() {
        assert_eq!(
            WalletHarness::new(bare()).deny(&sale("0")).await.rule,
            Rule::ZeroAmount
        );
    }

    #[tokio::test]
    async fn validity_has_a_ceiling() {
        let validity = async |policy: Policy, window: u64| {
            let purse = WalletHarness::new(policy);
            let paid = purse.hold(&sale("0.01").window(window)).await;
            paid.valid_before - purse.now().secs()
        };
        assert_eq!(validity(bare(), 60).await, 60);
        assert_eq!(validity(bare(), 1_576_800_000).await, 300);
        assert_eq!(
            validity(bare().max_validity(DAY), 1_576_800_000).await,
            86_400
        );
        let here = bare().host_limits("api.example.com", |host| host.max_validity(10 * SECOND));
        assert_eq!(validity(here.max_validity(DAY), 60).await, 10);
    }

    #[tokio::test]
    async fn queries_stay_out_of_the_books_unless_asked_for() {
        for (policy, path) in [
            (bare(), "/report"),
            (bare().store_queries(), "/report?q=secret"),
        ] {
            let purse = WalletHarness::new(policy);
            purse
                .buy(&sale("0.01").url("https://api.example.com/report?q=secret"))
                .await;
            assert_eq!(purse.purchases().await[0].path, path);
        }
    }

    #[tokio::test]
    async fn the_cheapest_offer_that_is_allowed_is_signed() {
        let purse = WalletHarness::new(
            bare()
                .allow_network("polygon")
                .per_payment(usd!("0.10"))
                .deny_network("polygon"),
        );
        let many = sale("5000")
            .or(Offer::new(usdc("polygon"), "0.01"))
            .or(Offer::new(usdc("base"), "0.07"))
            .or(Offer::new(usdc("base"), "0.06"));
        assert_eq!(purse.buy(&many).await.amount.to_string(), "0.06 USDC");
        let dear = sale("5000").or(Offer::new(usdc("base"), "0.11"));
        assert_eq!(
            purse.deny(&dear).await.asked.unwrap().to_string(),
            "0.11 USD",
            "the denial is the cheapest's"
        );
    }
}

mod policies {
    use super::*;

    fn build(policy: Policy) -> Result<Payer, Error> {
        Payer::builder()
            .signer(signer())
            .policy(policy)
            .ledger(Ledger::memory())
            .build()
    }

    #[test]
    fn a_wallet_without_a_policy_does_not_build() {
        let error = Payer::builder()
            .signer(signer())
            .ledger(Ledger::memory())
            .build()
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Builder);
        assert!(
            error.to_string().contains("a wallet needs a policy"),
            "{error}"
        );
    }

    #[test]
    fn mistakes_in_code_come_out_when_the_wallet_is_built() {
        let policy = || Policy::new().allow_network("base");
        for (policy, words) in [
            (Policy::new(), "names no network"),
            (
                Policy::new().allow_network("bas"),
                "`bas` is not an EVM network",
            ),
            (
                policy().allow_network("base-sepolia"),
                "if that is meant, say mix_testnets",
            ),
            (
                policy().deny_network("eip155:0"),
                "`eip155:0` is not an EVM network",
            ),
            (
                policy().network_limits("nowhere", |limits| limits),
                "`nowhere` is not an EVM network",
            ),
            (
                policy().host_limits("https://a.example", |host| host),
                "`https://a.example` is not a host",
            ),
            (
                policy().origin_limits("a.example", |origin| origin),
                "`a.example` is not an origin",
            ),
            (
                policy().domain_limits("api.example.com", |limits| limits),
                "write `example.com`",
            ),
            (
                policy().domain_limits("*.example.com", |limits| limits),
                "write `example.com`",
            ),
            (
                policy().allow_host("a*.example"),
                "`a*.example` is not a host",
            ),
            (
                policy().deny_host("a.example:443"),
                "`a.example:443` is not a host",
            ),
            (
                policy().rolling(Duration::ZERO, usd!("1")),
                "a window must be longer than zero",
            ),
            (
                policy().tag_limits("x", |tag| tag.payments(Duration::ZERO, 1)),
                "a window must be longer than zero",
            ),
            (
                policy().calendar(Period::Day, "Mars/Base", usd!("1")),
                "time zone `Mars/Base` is not known here",
            ),
            (
                policy().host_limits("a.example", |host| {
                    host.calendar(Period::Day, "", usd!("1"))
                }),
                "time zone `` is not known here",
            ),
            (
                policy().max_validity(5 * SECOND),
                "max_validity must be at least 6 s",
            ),
            (
                policy().host_limits("a.example", |host| host.max_validity(SECOND)),
                "max_validity must be at least 6 s",
            ),
            (
                policy().per_payment(euros("1")),
                "the policy has an amount of EURC@eip155:8453",
            ),
            (
                policy().tag_limits("x", |tag| tag.ask_above(euros("1"))),
                "the policy has an amount of EURC@eip155:8453",
            ),
            (
                policy()
                    .register_asset(euro().pegged_to_dollar())
                    .per_payment(euros("1")),
                "the policy has an amount of EURC@eip155:8453",
            ),
        ] {
            let error = build(policy).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Builder);
            assert!(error.to_string().contains(words), "{error}");
        }
        assert_eq!(Policy::new().check(), Err(PolicyError::NoNetwork));
        assert!(build(policy().allow_network("base-sepolia").mix_testnets()).is_ok());
        assert!(build(policy().domain_limits("Example.CO.UK.", |limits| limits)).is_ok());
    }

    #[tokio::test]
    async fn budget_tells_what_is_left_of_every_standing_limit() {
        let policy = Policy::new()
            .allow_network("base")
            .host_limits("*.example.com", |host| host.lifetime(usd!("2")))
            .each_origin(|origin| origin.lifetime(usd!("1")));
        let purse = WalletHarness::new(policy);
        purse.hold(&sale("0.07")).await;
        purse.buy(&sale("0.03").url("https://b.example")).await;
        let budget = purse.payer(None).budget().await.unwrap();
        let lines: Vec<String> = budget
            .iter()
            .map(|finding| format!("{}: {} left", finding.name, finding.left.as_ref().unwrap()))
            .collect();
        assert_eq!(
            lines,
            [
                "global per payment: 0.10 USD left",
                "global rolling 1d: 4.90 USD left",
                "global exposure: 0.93 USD left",
                "global payments per 1m: 58 payments left",
                "host *.example.com lifetime: 1.93 USD left",
            ]
        );
    }

    #[tokio::test]
    async fn explain_says_what_each_rule_answers() {
        let policy = Policy::new()
            .allow_network("base")
            .host_limits("*.example.com", |host| {
                host.rolling(HOUR, usd!("0.08"))
                    .payee_pinned()
                    .max_price_rise(10)
            })
            .ask_above(usd!("0.05"))
            .agent_limits("scout", |agent| agent.lifetime(usd!("3")));
        let purse = WalletHarness::new(policy.clone());
        let buyer = purse.payer(Some("scout"));
        let report = |price: Usd| ImaginedPayment::new("https://api.example.com/report", price);
        let passed = "\
pass  permission
pass  userinfo
pass  host
pass  network
pass  asset
pass  zero_amount
pass  max_price
pass  unpriced_asset
pass  payee_impossible
pass  payee
pass  resource_origin
";
        let said = explained(&buyer, &report(usd!("0.06"))).await.unwrap();
        assert_eq!(
            said.to_string(),
            format!(
                "{passed}\
pass  global per payment                               0.10 USD of 0.10 USD left
pass  global rolling 1d                                5.00 USD of 5.00 USD left
pass  global exposure                                  1.00 USD of 1.00 USD left
pass  global payments per 1m                           60 payments of 60 payments left
pass  host *.example.com rolling 1h                    0.08 USD of 0.08 USD left
pass  agent scout lifetime                             3.00 USD of 3.00 USD left
pass  origin https://api.example.com failures per 10m  3 payments of 3 payments left
pass  same request repeats per 1m                      30 payments of 30 payments left
pass  payee_changed
pass  price_rise
=> asks for approval: above 0.05 USD (global)
"
            )
        );

        purse
            .hold(&sale("0.05").payee(payee(3)).agent("scout"))
            .await;
        let said = explained(&buyer, &report(usd!("0.04")).payee(payee(4)).tag("x"))
            .await
            .unwrap();
        let refusals: Vec<_> = said
            .answers
            .iter()
            .filter_map(|answer| answer.denial.as_ref())
            .collect();
        let rules: Vec<Rule> = refusals.iter().map(|denial| denial.rule).collect();
        assert_eq!(rules, [Rule::Rolling, Rule::PayeeChanged]);
        assert_eq!(said.denial(), Some(refusals[0]));
        let last = said.to_string().lines().last().unwrap().to_owned();
        assert_eq!(
            last,
            "=> denied: 0.04 USD does not fit: 0.05 USD of 0.08 USD used (host *.example.com rolling 1h); \
             room returns at 2025-03-10T13:01:00Z"
        );
        assert_eq!(purse.signatures(), 1, "explaining signs nothing");

        let price = |price: Usd| report(price).explain(&policy, purse.now()).unwrap();
        assert!(price(usd!("0.05")).to_string().ends_with("=> allowed\n"));
        assert_eq!(price(usd!("0.20")).denial().unwrap().rule, Rule::PerPayment);
        let polygon = report(usd!("0.01")).network("polygon".parse().unwrap());
        assert_eq!(
            polygon
                .explain(&policy, purse.now())
                .unwrap()
                .denial()
                .unwrap()
                .rule,
            Rule::Network
        );
        let in_euros = ImaginedPayment::new("https://a.example", euros("1"));
        assert_eq!(
            in_euros.explain(&policy, purse.now()),
            None,
            "a token that is not registered"
        );
        let policy = policy.register_asset(euro());
        assert_eq!(
            in_euros
                .explain(&policy, purse.now())
                .unwrap()
                .denial()
                .unwrap()
                .rule,
            Rule::UnpricedAsset
        );
    }

    async fn explained(
        payer: &Payer,
        payment: &ImaginedPayment,
    ) -> Result<bursar::policy::Explanation, Error> {
        payer.explain(&payment.request, payment.price.clone()).await
    }

    #[tokio::test]
    async fn explain_pays_with_a_token_that_is_allowed() {
        let celo = "celo".parse().unwrap();
        let usdt = bursar::money::AssetRegistry::stablecoins()
            .find_symbol(celo, "USDT")
            .unwrap();
        let policy = Policy::new()
            .allow_network("celo")
            .allow_asset(celo, usdt.address());
        let said = ImaginedPayment::new("https://a.example", usd!("0.01"))
            .explain(&policy, at("2025-01-01T00:00:00Z"));
        assert_eq!(said.unwrap().denial(), None);
    }

    #[tokio::test]
    async fn a_quotation_explains_every_offer() {
        let purse = WalletHarness::new(bare().per_payment(usd!("0.10")));
        let price_check = purse
            .quote(&sale("5").or(Offer::new(usdc("base"), "0.02")))
            .await;
        let denials: Vec<_> = price_check
            .offers
            .iter()
            .map(|offer| {
                offer
                    .explanation
                    .as_ref()
                    .unwrap()
                    .denial()
                    .map(|denial| denial.rule)
            })
            .collect();
        assert_eq!(denials, [Some(Rule::PerPayment), None]);
        assert_eq!(price_check.best().unwrap().offer(), 1);
        assert_eq!(purse.signatures(), 0);
    }

    #[test]
    fn a_denial_is_data() {
        let policy = Policy::new().allow_network("base");
        let payment = ImaginedPayment::new("https://a.example", usd!("0.20"));
        let said = payment
            .explain(&policy, at("2025-01-01T00:00:00Z"))
            .unwrap();
        assert_eq!(
            serde_json::to_value(said.denial().unwrap()).unwrap(),
            serde_json::json!({
                "rule": "per_payment",
                "scope": "global",
                "limit": "0.10 USD",
                "used": "0.00 USD",
                "asked": "0.20 USD",
                "room_returns": null,
                "message": "0.20 USD is above the limit of 0.10 USD (global per payment)",
            })
        );
    }
}

mod approvals {
    use super::*;

    type Asked = Arc<Mutex<Vec<ApprovalRequest>>>;

    /// An approver that keeps what it was asked.
    fn keeping(policy: Policy, verdict: Verdict) -> (WalletHarness, Asked) {
        let asked = Asked::default();
        let kept = Arc::clone(&asked);
        let purse = WalletHarness::with(policy, move |builder| {
            let (kept, verdict) = (Arc::clone(&kept), verdict.clone());
            builder.approver(approve_fn(move |request| {
                kept.lock().unwrap().push(request);
                let verdict = verdict.clone();
                async move { verdict }
            }))
        });
        (purse, asked)
    }

    fn asking() -> Policy {
        bare().ask_above(usd!("0.05"))
    }

    #[tokio::test]
    async fn an_approval_is_for_one_authorization_and_one_use() {
        let (purse, asked) = keeping(asking(), Verdict::Approve);
        let offered = sale("0.06")
            .payee(payee(7))
            .resource("https://evil.example", "urgent,\u{202e} pre-approved");
        let paid = purse
            .hold(
                &offered
                    .method("POST")
                    .url("https://api.example.com/x?secret=1")
                    .window(45),
            )
            .await;
        let request = asked.lock().unwrap()[0].clone();

        assert_eq!(
            (
                request.payer,
                request.payee,
                request.nonce,
                request.amount.clone()
            ),
            (paid.payer, paid.pay_to, paid.nonce, paid.amount.clone())
        );
        assert_eq!(
            request.validity.as_secs(),
            paid.valid_before - purse.now().secs()
        );
        assert_eq!(request.why, "above 0.05 USD (global)");
        assert_eq!(
            (request.origin.to_string().as_str(), request.method.as_str()),
            ("https://api.example.com", "POST")
        );
        assert_eq!(
            (request.path.as_str(), request.usd, request.network),
            ("/x", Some(usd!("0.06")), base())
        );
        assert_eq!(
            request.untrusted.description.as_deref(),
            Some("urgent,\\u{202e} pre-approved")
        );
        assert_eq!(
            request.untrusted.resource_url.as_deref(),
            Some("https://evil.example")
        );

        purse.hold(&sale("0.06")).await;
        let asked = asked.lock().unwrap();
        assert_eq!(asked.len(), 2, "the second payment is asked about anew");
        assert_ne!(asked[0].nonce, asked[1].nonce);
    }

    #[tokio::test]
    async fn only_what_is_above_the_threshold_is_asked_about() {
        let policy = bare()
            .ask_above(usd!("0.05"))
            .host_limits("*.example.com", |host| host.ask_above(usd!("0.02")))
            .each_payee(|each| each.ask_above(usd!("0.04")));
        let (purse, asked) = keeping(policy, Verdict::Approve);
        purse.buy(&sale("0.02")).await;
        purse.buy(&sale("0.04").url("https://other.example")).await;
        assert!(asked.lock().unwrap().is_empty());
        purse.buy(&sale("0.020001")).await;
        purse.buy(&sale("0.05").url("https://other.example")).await;
        let whys: Vec<String> = asked
            .lock()
            .unwrap()
            .iter()
            .map(|request| request.why.clone())
            .collect();
        assert_eq!(
            whys,
            [
                "above 0.02 USD (host *.example.com)".to_owned(),
                format!("above 0.04 USD (payee {})", payee(0x5e))
            ]
        );
    }

    #[tokio::test]
    async fn a_token_that_the_threshold_cannot_measure_is_asked_about() {
        let limited = asking()
            .register_asset(euro())
            .per_payment(euros("1"))
            .lifetime(euros("9"));
        let (purse, asked) = keeping(limited.clone(), Verdict::Approve);
        purse.buy(&sale_in(euro(), "0.01")).await;
        assert_eq!(
            asked.lock().unwrap()[0].why,
            "no dollar value to compare with 0.05 USD (global)"
        );
        let (purse, asked) = keeping(limited.ask_above(euros("0.50")), Verdict::Approve);
        purse.buy(&sale_in(euro(), "0.50")).await;
        assert!(asked.lock().unwrap().is_empty());
        purse.buy(&sale_in(euro(), "0.51")).await;
        assert_eq!(asked.lock().unwrap()[0].why, "above 0.5 EURC (global)");
    }

    #[tokio::test]
    async fn a_refusal_ends_it_whatever_else_is_offered() {
        let (purse, asked) = keeping(asking(), Verdict::deny("not today"));
        let denial = purse
            .deny(&sale("0.06").or(Offer::new(usdc("base"), "0.07")))
            .await;
        assert_eq!(
            (denial.rule, denial.message.as_str()),
            (Rule::Approval, "not approved: not today")
        );
        assert_eq!(asked.lock().unwrap().len(), 1);
        assert!(purse.purchases().await.is_empty(), "nothing is held for it");
        purse.buy(&sale("0.05")).await;
    }

    #[tokio::test]
    async fn nobody_is_asked_about_what_is_refused_anyway() {
        let (purse, asked) = keeping(
            asking().per_payment(usd!("0.10")).lifetime(usd!("0.15")),
            Verdict::Approve,
        );
        assert_eq!(purse.deny(&sale("0.11")).await.rule, Rule::PerPayment);
        assert_eq!(
            purse.deny(&sale("0.06").payee(Address::ZERO)).await.rule,
            Rule::PayeeImpossible
        );
        assert!(asked.lock().unwrap().is_empty());
        purse.buy(&sale("0.10")).await;
        assert_eq!(purse.deny(&sale("0.06")).await.rule, Rule::Lifetime);
        assert_eq!(asked.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn limits_are_checked_again_after_the_approval() {
        // Somebody else spends while the approver thinks.
        let policy = asking().lifetime(usd!("0.10"));
        let (approver, mut requests) = ChannelApprover::new(2);
        let purse = Arc::new(WalletHarness::with(policy, move |builder| {
            builder.approver(approver.clone())
        }));
        let first = tokio::spawn({
            let purse = Arc::clone(&purse);
            async move { purse.authorize(&sale("0.06")).await.map(|_| ()) }
        });
        let pending = requests.recv().await.unwrap();
        purse.buy(&sale("0.05")).await;
        pending.answer(Verdict::Approve);
        let error = first.await.unwrap().unwrap_err();
        assert_eq!(error.denial().unwrap().rule, Rule::Lifetime);
    }

    #[tokio::test]
    async fn what_was_signed_is_presented_again_without_asking() {
        let (purse, asked) = keeping(asking().lifetime(usd!("0.06")), Verdict::Approve);
        let order = sale("0.06").id("order-1");
        let first = purse.authorize(&order).await.unwrap();
        first.lost("the connection was reset").await;
        let again = purse.authorize(&order).await.unwrap();
        assert!(again.is_again());
        assert_eq!(first.header().unwrap().1, again.header().unwrap().1);
        assert_eq!((asked.lock().unwrap().len(), purse.signatures()), (1, 1));
    }

    #[tokio::test]
    async fn without_an_approver_the_answer_is_no() {
        let denial = WalletHarness::new(asking()).deny(&sale("0.06")).await;
        assert_eq!(denial.rule, Rule::Approval);
        assert_eq!(
            denial.message,
            "needs approval (above 0.05 USD (global)), and the client has no approver"
        );
    }

    #[tokio::test]
    async fn silence_denies() {
        let policy = asking().approval_timeout(Duration::from_millis(20));
        let purse = WalletHarness::with(policy, |builder| {
            builder.approver(approve_fn(|_| pending()))
        });
        let denial = purse.deny(&sale("0.06")).await;
        assert_eq!(
            (denial.rule, denial.message.as_str()),
            (Rule::Approval, "not approved: no answer within 20ms")
        );
        assert!(purse.purchases().await.is_empty());
    }

    #[tokio::test]
    async fn by_channel() {
        let (approver, mut requests) = ChannelApprover::new(1);
        let policy = asking().approval_timeout(HOUR);
        let purse = WalletHarness::with(policy, move |builder| builder.approver(approver.clone()));
        let clerk = tokio::spawn(async move {
            let first = requests.recv().await.unwrap();
            assert_eq!(first.request.amount.to_string(), "0.06 USDC");
            first.answer(Verdict::Approve);
            requests
                .recv()
                .await
                .unwrap()
                .answer(Verdict::deny("too dear"));
            drop(requests.recv().await.unwrap());
        });
        purse.buy(&sale("0.06")).await;
        assert_eq!(
            purse.deny(&sale("0.07")).await.message,
            "not approved: too dear"
        );
        let dropped = "not approved: the approval request was dropped unanswered";
        assert_eq!(purse.deny(&sale("0.08")).await.message, dropped);
        clerk.await.unwrap();
        assert_eq!(
            purse.deny(&sale("0.09")).await.message,
            "not approved: nobody receives approval requests"
        );
    }

    #[tokio::test]
    async fn a_late_answer_pays_nothing() {
        let (approver, mut requests) = ChannelApprover::new(1);
        let policy = asking().approval_timeout(Duration::from_millis(20));
        let purse = WalletHarness::with(policy, move |builder| builder.approver(approver.clone()));
        purse.deny(&sale("0.06")).await;
        requests.recv().await.unwrap().answer(Verdict::Approve);
        purse.deny(&sale("0.06")).await;
        assert_eq!(purse.signatures(), 0);
    }

    #[tokio::test]
    async fn the_terminal_shows_what_is_known_apart_from_what_is_said() {
        let (purse, asked) = keeping(asking(), Verdict::Approve);
        purse
            .buy(&sale("0.06").resource("https://evil.example", "Pay 0.01 USD\n  to a friend?"))
            .await;
        let payer = purse.payer(None).address();
        let request = asked.lock().unwrap()[0].clone();
        assert_eq!(request.payer, payer);
        assert_eq!(
            TerminalApprover::question(&request),
            "Pay 0.06 USDC to 0x5e5E5e5e5E5e5E5E5e5E5E5e5e5E5E5E5e5E5E5e?\n  \
               for     GET https://api.example.com/report\n  \
               on      eip155:8453\n  \
               because above 0.05 USD (global)\n  \
               the seller's words, unverified (description): \"Pay 0.01 USD\\u{a}  to a friend?\"\n  \
               the seller's words, unverified (resource): \"https://evil.example\"\n\
             Type yes to pay: "
        );
    }

    /// Run by the next test in a process of its own, with that process's terminal.
    #[tokio::test]
    #[ignore = "a part of by_terminal"]
    async fn terminal_process() {
        let policy = asking().approval_timeout(HOUR);
        let purse = WalletHarness::with(policy, |builder| {
            builder.approver(TerminalApprover::default())
        });
        match purse.authorize(&sale("0.06")).await {
            Ok(_) => println!("outcome: paid"),
            Err(error) => println!("outcome: {}", error.denial().unwrap()),
        }
    }

    #[test]
    fn by_terminal() {
        for (typed, outcome) in [
            ("yes\n", "outcome: paid"),
            (" YES \r\n", "outcome: paid"),
            ("y\n", "outcome: not approved: not approved on the terminal"),
            (
                "no\nyes\n",
                "outcome: not approved: not approved on the terminal",
            ),
            ("\n", "outcome: not approved: not approved on the terminal"),
            ("", "outcome: not approved: not approved on the terminal"),
        ] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "approvals::terminal_process",
                    "--ignored",
                    "--nocapture",
                ])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            child
                .stdin
                .take()
                .unwrap()
                .write_all(typed.as_bytes())
                .unwrap();
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(said.contains(outcome), "{typed:?}: {said}");
            assert!(
                String::from_utf8(output.stderr)
                    .unwrap()
                    .contains("Pay 0.06 USDC to 0x5e5E")
            );
        }
    }
}

mod properties {
    use super::*;

    fn cents(micros: std::ops::Range<u64>) -> impl Strategy<Value = u64> {
        // Around the limits, and far from them.
        prop_oneof![4 => micros, 1 => Just(0_u64), 1 => any::<u64>()]
    }

    fn offers() -> impl Strategy<Value = Vec<(u64, bool)>> {
        prop::collection::vec((cents(1..200_000), any::<bool>()), 1..8)
    }

    fn of_offers(offers: &[(u64, bool)]) -> TestOffer {
        let mut many = sale("1");
        many.offers = offers
            .iter()
            .zip(0_u8..)
            .map(|(&(units, on_base), index)| {
                let network = if on_base { "base" } else { "polygon" };
                let offer = Offer::new(usdc(network), "1");
                Offer {
                    units: units.try_into().unwrap(),
                    payee: payee(0x20 + index),
                    ..offer
                }
            })
            .collect();
        many
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap()
            .block_on(future)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn what_is_signed_is_within_every_limit_and_in_the_books(
            offers in offers(),
            global in 1_u64..200_000,
            host in 1_u64..200_000,
            polygon in 1_u64..200_000,
        ) {
            let usd = Usd::from_micros;
            let policy = bare()
                .allow_network("polygon")
                .per_payment(usd(global))
                .host_limits("*.example.com", |limits| limits.per_payment(usd(host)))
                .network_limits("polygon", |limits| limits.per_payment(usd(polygon)));
            let purse = WalletHarness::new(policy);
            let allowed = |&(units, on_base): &(u64, bool)| {
                units > 0 && units <= global.min(host) && (on_base || units <= polygon)
            };
            let cheapest = offers.iter().filter(|offer| allowed(offer)).map(|offer| offer.0).min();
            run(async {
                match (purse.authorize(&of_offers(&offers)).await, cheapest) {
                    (Ok(payment), Some(cheapest)) => {
                        let purchases = purse.purchases().await;
                        let json: serde_json::Value =
                            serde_json::from_str(payment.json().unwrap().expose_secret()).unwrap();
                        let signed = &json["payload"]["authorization"];
                        let entry = &purchases[0];
                        prop_assert_eq!(signed["value"].as_str().unwrap(), cheapest.to_string());
                        prop_assert_eq!(entry.value.to_string(), cheapest.to_string());
                        prop_assert_eq!(payment.payment().amount.units(), entry.value);
                        prop_assert_eq!(signed["to"].as_str().unwrap().parse(), Ok(entry.payee));
                        prop_assert_eq!(signed["nonce"].as_str().unwrap().parse(), Ok(entry.nonce));
                        prop_assert_eq!(json["accepted"]["network"].as_str().unwrap(), entry.network.to_string());
                        prop_assert_eq!((purchases.len(), purse.signatures()), (1, 1));
                    }
                    (Err(error), None) => {
                        prop_assert!(error.is_denied(), "{error}");
                        prop_assert_eq!((purse.purchases().await.len(), purse.signatures()), (0, 0));
                    }
                    (outcome, cheapest) => prop_assert!(false, "{outcome:?} where {cheapest:?} was to be paid"),
                }
                Ok(())
            })?;
        }

        #[test]
        fn no_window_ever_holds_more_than_its_limit(
            steps in prop::collection::vec((1_u64..60_000, 0_u64..1500, any::<bool>(), 0_u8..3), 1..40),
        ) {
            let policy = bare()
                .rolling(HOUR, usd!("0.10"))
                .each_origin(|origin| origin.rolling(HOUR, usd!("0.06")))
                .exposure(usd!("0.05"))
                .payments(10 * MINUTE, 3);
            let purse = WalletHarness::new(policy);
            run(async {
                for (units, seconds, settles, seller) in steps {
                    let mut next = sale("1").url(&format!("https://s{seller}.example"));
                    next.offers[0].units = units.try_into().unwrap();
                    if let Ok(payment) = purse.authorize(&next).await {
                        payment.lost("who knows").await;
                        if settles {
                            settle(&payment).await;
                        }
                    }
                    let (now, purchases) = (purse.now(), purse.purchases().await);
                    let sum = |passes: &dyn Fn(&bursar::Purchase) -> bool| -> u64 {
                        purchases.iter().filter(|entry| passes(entry)).map(|entry| entry.usd.unwrap().micros()).sum()
                    };
                    prop_assert!(sum(&|entry| entry.counts_at > now.before(HOUR)) <= 100_000);
                    prop_assert!(sum(&|entry| entry.is_outstanding(now)) <= 50_000);
                    let origins: BTreeSet<_> = purchases.iter().map(|entry| &entry.origin).collect();
                    for origin in origins {
                        prop_assert!(sum(&|entry| entry.origin == *origin && entry.counts_at > now.before(HOUR)) <= 60_000);
                    }
                    let recent = purchases.iter().filter(|entry| entry.reserved_at > now.before(10 * MINUTE)).count();
                    prop_assert!(recent <= 3, "{recent} payments in ten minutes");
                    purse.advance(Duration::from_secs(seconds));
                }
                Ok(())
            })?;
        }

        #[test]
        fn a_denial_is_true_and_room_returns_when_it_says(
            steps in prop::collection::vec((1_u64..50_000, 0_u64..900, any::<bool>()), 1..30),
        ) {
            let purse = WalletHarness::new(bare().rolling(HOUR, usd!("0.10")));
            run(async {
                for (units, seconds, settles) in steps {
                    let mut next = sale("1");
                    next.offers[0].units = units.try_into().unwrap();
                    match purse.authorize(&next).await {
                        Ok(payment) if settles => settle(&payment).await,
                        Ok(_) => {}
                        Err(error) => {
                            let denial = error.denial().unwrap();
                            let amount = |value: &Option<bursar::policy::Quantity>| match value {
                                Some(bursar::policy::Quantity::Amount(Amount::Usd(usd))) => usd.micros(),
                                other => panic!("{other:?}"),
                            };
                            prop_assert_eq!(amount(&denial.asked), units);
                            prop_assert!(amount(&denial.used) + units > amount(&denial.limit));
                            let room = denial.room_returns.unwrap();
                            prop_assert!(room > purse.now());
                            purse.set_clock(room.before(Duration::from_millis(1)));
                            purse.deny(&next).await;
                            purse.set_clock(room);
                            purse.hold(&next).await;
                        }
                    }
                    purse.advance(Duration::from_secs(seconds));
                }
                Ok(())
            })?;
        }
    }
}
