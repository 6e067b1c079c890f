//! Spellings of one path and of one host: limits, permissions and lists hold for all of them.

use bursar::policy::{Permission, Rule};
use bursar::{Policy, usd};
use bursar_tests::test_offer::offer;
use bursar_tests::wallet_harness::WalletHarness;

use crate::bare;

const HOST: &str = "https://api.example.com";

/// Spellings that many servers take for `/report`.
const REPORT: [&str; 20] = [
    "/report",
    "/%72eport",
    "/repor%74",
    "/%72%65%70%6f%72%74",
    "/report/",
    "/report//",
    "/report;v=1",
    "/report;v=1/",
    "/report%3Bv=1",
    "/%2Freport",
    "/%5Creport",
    "//report",
    "/./report",
    "/%2e/report",
    "/a/../report",
    "/a/%2E%2e/report",
    "/REPORT",
    "/%52eport",
    "/%2572eport",
    "\\report",
];

fn at(path: &str) -> String {
    format!("{HOST}{path}")
}

#[tokio::test]
async fn a_limit_on_a_resource_holds_for_every_spelling_of_its_path() {
    let limited = || bare().resource_limits(&at("/report"), |report| report.lifetime(usd!("0.01")));
    for first in ["/report", "/REPORT;v=1/"] {
        for path in REPORT.into_iter().chain(["/report/2026", "/report/2026;x"]) {
            let wallet = WalletHarness::new(limited());
            wallet.buy(&offer("0.01").url(&at(first)).id("first")).await;
            let denial = wallet
                .deny(&offer("0.01").url(&at(path)).id("second"))
                .await;
            assert_eq!(denial.rule, Rule::Lifetime, "{first} {path}");
        }
    }
    for path in [
        "/",
        "/reports",
        "/repor",
        "/a/report",
        "/report%00",
        "/x%20report",
    ] {
        let wallet = WalletHarness::new(limited());
        wallet.buy(&offer("0.01").url(&at("/report"))).await;
        if path.contains("%00") {
            let denial = wallet.deny(&offer("0.01").url(&at(path))).await;
            assert_eq!(denial.rule, Rule::Permission, "{path}");
        } else {
            wallet.buy(&offer("0.01").url(&at(path))).await;
        }
    }
}

#[tokio::test]
async fn the_spelling_of_a_limited_resource_in_the_policy_does_not_matter() {
    for spelling in REPORT {
        let limited = bare().resource_limits(&at(spelling), |report| report.lifetime(usd!("0.01")));
        let wallet = WalletHarness::new(limited);
        wallet
            .buy(&offer("0.01").url(&at("/report")).id("first"))
            .await;
        let denial = wallet
            .deny(&offer("0.01").url(&at("/Report")).id("second"))
            .await;
        assert_eq!(denial.rule, Rule::Lifetime, "{spelling}");
    }
}

#[tokio::test]
async fn a_limit_on_a_path_with_escapes_holds_for_every_spelling_of_them() {
    for (limit, spelling) in [
        ("/caf%C3%A9", "/caf%c3%a9"),
        ("/café", "/CAF%c3%A9"),
        ("/a%20b", "/a b"),
        ("/a!b", "/a%21b"),
        ("/a%7eb", "/a~b"),
        ("/a%2Fb", "/a/b"),
        ("/a:b@c", "/a%3ab%40c"),
    ] {
        let limited = bare().resource_limits(&at(limit), |part| part.lifetime(usd!("0.01")));
        let wallet = WalletHarness::new(limited);
        wallet
            .buy(&offer("0.01").url(&at(spelling)).id("first"))
            .await;
        let denial = wallet
            .deny(&offer("0.01").url(&at(limit)).id("second"))
            .await;
        assert_eq!(denial.rule, Rule::Lifetime, "{limit} {spelling}");
    }
}

#[tokio::test]
async fn the_rise_of_a_price_is_seen_under_every_spelling() {
    for path in REPORT {
        let wallet = WalletHarness::new(bare().max_price_rise(20));
        wallet.buy(&offer("0.01").url(&at("/report"))).await;
        let denial = wallet.deny(&offer("0.05").url(&at(path))).await;
        assert_eq!(denial.rule, Rule::PriceRise, "{path}");
    }
}

#[tokio::test]
async fn a_path_that_hides_a_step_upwards_is_not_paid() {
    let wallet = WalletHarness::new(bare());
    for path in [
        "/report/..%2Fother",
        "/report/..%2f..%2Fother",
        "/report%2F..%2Fother",
        "/report/..;/other",
        "/report/%2e%2e;x/other",
        "/report/..%5Cother",
        "/report/%252e%252e/other",
        "/report/%252e%252e%252fother",
        "/report%00",
        "/report%0d%0a",
        "/report%7F",
    ] {
        let denial = wallet.deny(&offer("0.01").url(&at(path))).await;
        assert_eq!(denial.rule, Rule::Permission, "{path}");
    }
    for path in ["/a..b", "/...", "/a;v=1", "/v1/%E2%82%AC"] {
        wallet.buy(&offer("0.01").url(&at(path))).await;
    }
}

#[tokio::test]
async fn a_permission_covers_equal_spellings_and_nothing_more() {
    let permitted = |pattern: &str| {
        let permission = Permission::new().host("api.example.com").path(pattern);
        WalletHarness::new(bare().permit(permission))
    };
    for (pattern, path, is_covered) in [
        ("/report", "/%72eport", true),
        ("/%72eport", "/report", true),
        ("/caf%c3%a9", "/caf%C3%A9", true),
        ("/report", "/REPORT", false),
        ("/report", "/report/", false),
        ("/report", "/report;v=1", false),
        ("/report", "//report", false),
        ("/v1/*", "/v1/a%2Fb", false),
        ("/v1/*", "/v1/a%252Fb", false),
        ("/v1/*", "/v1/a%5Cb", false),
        ("/v1/**", "/v1/..;/admin", false),
        ("/v1/**", "/v1/%2e%2e/admin", false),
        ("/v1/**", "/v1/%252e%252e/admin", false),
        ("/v1/**", "/v1/a%00", false),
    ] {
        let wallet = permitted(pattern);
        let offer = offer("0.01").url(&at(path));
        if is_covered {
            wallet.buy(&offer).await;
        } else {
            let denial = wallet.deny(&offer).await;
            assert_eq!(denial.rule, Rule::Permission, "{pattern} {path}");
        }
    }
}

#[tokio::test]
async fn a_denied_host_is_denied_in_every_spelling() {
    for (pattern, url) in [
        ("[::ffff:127.0.0.1]", "https://127.0.0.1/report"),
        ("127.0.0.1", "https://[::ffff:127.0.0.1]/report"),
        ("0x7f.1", "https://2130706433/report"),
        ("[::1]", "https://[0:0:0:0:0:0:0:1]:8443/report"),
        ("Evil.Example.", "https://evil.example/report"),
        ("bücher.example", "https://xn--bcher-kva.example/report"),
        (
            "*.xn--bcher-kva.example",
            "https://a.BÜCHER.example./report",
        ),
    ] {
        let wallet = WalletHarness::new(bare().deny_host(pattern));
        let denial = wallet.deny(&offer("0.01").url(url)).await;
        assert_eq!(denial.rule, Rule::Host, "{pattern} {url}");
        let permission = Permission::new().host(pattern);
        WalletHarness::new(bare().permit(permission))
            .buy(&offer("0.01").url(url))
            .await;
        let limited = bare().host_limits(pattern, |host| host.per_payment(usd!("0.001")));
        let denial = WalletHarness::new(limited)
            .deny(&offer("0.01").url(url))
            .await;
        assert_eq!(denial.rule, Rule::PerPayment, "{pattern} {url}");
    }
}

#[tokio::test]
async fn a_pattern_that_matches_no_host_is_an_error_of_the_policy() {
    for mistake in [
        "*.127.0.0.1",
        "*.[::1]",
        "::1",
        "[::1]:443",
        "127.0.0.1:80",
        "https://*.example.com",
        "https://api.example.com/v1",
        "a*.example.com",
    ] {
        let permission = || Permission::new().host(mistake);
        assert!(bare().permit(permission()).check().is_err(), "{mistake}");
        let limited = bare().host_limits(mistake, |host| host.per_payment(usd!("1")));
        assert!(limited.check().is_err(), "{mistake}");
        let denied: Policy = bare().deny_host(mistake);
        assert!(denied.check().is_err(), "{mistake}");
    }
    assert!(
        bare()
            .resource_limits(&at("/a/..%2Fb"), |it| it)
            .check()
            .is_err()
    );
}
