//! Each kind of limit in each scope: payments inside the scope count together, payments outside do not count.

use bursar::clock::CLOCK_BOUND;
use bursar::policy::{HostRules, Limits, Period, Rule};
use bursar::{Policy, usd};
use bursar_tests::clock::{HOUR, MINUTE, at};
use bursar_tests::test_offer::{TestOffer, offer, offer_in};
use bursar_tests::tokens::{payee, usdc};
use bursar_tests::wallet_harness::WalletHarness;

use crate::bare;

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
        let wallet = WalletHarness::new(policy);
        let start = wallet.now();
        for offer in within {
            wallet.hold(offer).await;
        }
        let mut third = within[0].clone();
        if matches!(self, Self::PerPayment) {
            third.accepts[0].units = "50001".parse().unwrap();
        }
        let denial = wallet.deny(&third).await;
        assert_eq!(
            (denial.rule, denial.scope.unwrap().to_string()),
            (self.rule(), scope.to_owned()),
            "{what}"
        );
        for _ in 0..2 {
            wallet.hold(without).await;
        }
        let room = match self {
            Self::PerPayment | Self::Lifetime => None,
            Self::Rolling => Some(start.after(HOUR + MINUTE)), // valid for a minute
            Self::Calendar => Some(at("2025-03-11T00:00:00Z")),
            Self::Exposure => Some(start.after(MINUTE + CLOCK_BOUND)),
            Self::Payments => Some(start.after(HOUR)),
        };
        assert_eq!(denial.room_returns, room, "{what}");
        if let Some(room) = room {
            wallet.set_clock(room);
            wallet.hold(&third).await;
        }
    }
}

fn five_cents() -> TestOffer {
    offer("0.05")
}

#[tokio::test]
async fn global() {
    for kind in KINDS {
        let wallet = WalletHarness::new(limit!(kind, bare()));
        let elsewhere = [
            five_cents().url("https://a.example/1").tag("x"),
            five_cents().url("https://b.example"),
        ];
        for offer in &elsewhere {
            wallet.hold(&offer.clone().agent("y").payee(payee(7))).await;
        }
        let mut third = five_cents();
        third.accepts[0].units = "50001".parse().unwrap();
        let denial = wallet.deny(&third).await;
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
            let policy = bare().origin_limits("https://api.example.com", |host| kind.on_host(host));
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
        offer_in(found.unwrap().clone(), "0.05")
    };
    // On Arc and its test network, USDC has one address.
    for (of, without) in [
        (token("celo", "USDC"), token("celo", "USDT")),
        (token("arc", "USDC"), token("arc-testnet", "USDC")),
    ] {
        let asset = of.accepts[0].asset.clone();
        let within = [of.clone(), of.url("https://b.example")];
        let scope = format!("asset {} on {}", asset.address(), asset.network());
        for kind in KINDS {
            let open = bare()
                .allow_network(asset.network())
                .allow_network(without.accepts[0].asset.network())
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
    let without = offer_in(usdc("polygon"), "0.05");
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
    let wallet = WalletHarness::new(bare().each_origin(|limits| limits.lifetime(usd!("0.10"))));
    for url in ["https://a.example", "https://b.example"] {
        wallet.buy(&offer("0.10").url(url)).await;
        let denial = wallet.deny(&offer("0.01").url(url)).await;
        assert_eq!(denial.scope.unwrap().to_string(), format!("origin {url}"));
    }
}
