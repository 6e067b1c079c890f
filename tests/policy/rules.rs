//! Rules that are not limits: hosts, payees, tokens, networks, prices and validity.

use bursar::policy::Rule;
use bursar::{Address, Policy, usd};
use bursar_tests::clock::{DAY, SECOND};
use bursar_tests::test_offer::{Accept, offer, offer_in};
use bursar_tests::tokens::{base, payee, usdc};
use bursar_tests::wallet_harness::WalletHarness;

use crate::bare;

#[tokio::test]
async fn hosts_that_are_allowed_and_denied() {
    let policy = bare()
        .allow_host("api.example.com")
        .allow_host("*.shop.example")
        .deny_host("bad.shop.example");
    let wallet = WalletHarness::new(policy);
    for url in ["https://api.example.com:8443/x", "https://a.b.shop.example"] {
        wallet.buy(&offer("0.01").url(url)).await;
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
        let denial = wallet.deny(&offer("0.01").url(url)).await;
        assert_eq!(
            (denial.rule, denial.message.as_str()),
            (Rule::Host, message)
        );
    }
    let wallet = WalletHarness::new(bare().deny_host("*.example.com"));
    assert_eq!(
        wallet.deny(&offer("0.01")).await.message,
        "host api.example.com is denied by *.example.com"
    );
    wallet.buy(&offer("0.01").url("https://example.com")).await;
}

#[tokio::test]
async fn payees_that_are_allowed_and_denied() {
    let wallet = WalletHarness::new(
        bare()
            .allow_payee(payee(1))
            .allow_payee(payee(2))
            .deny_payee(payee(2)),
    );
    wallet.buy(&offer("0.01").payee(payee(1))).await;
    for byte in [2, 3] {
        assert_eq!(
            wallet.deny(&offer("0.01").payee(payee(byte))).await.rule,
            Rule::Payee
        );
    }
    let wallet = WalletHarness::new(bare().deny_payee(payee(2)));
    wallet.buy(&offer("0.01").payee(payee(1))).await;
    assert_eq!(
        wallet.deny(&offer("0.01").payee(payee(2))).await.rule,
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
            WalletHarness::new(policy).deny(&offer("0.01")).await.rule,
            Rule::Asset
        );
    }
    WalletHarness::new(bare().allow_asset(base(), usdc.address()))
        .buy(&offer("0.01"))
        .await;
}

#[tokio::test]
async fn networks_must_be_named() {
    let wallet = WalletHarness::new(bare());
    let denial = wallet.deny(&offer_in(usdc("polygon"), "0.01")).await;
    assert_eq!(
        denial.to_string(),
        "network eip155:137 (polygon) is not allowed"
    );
    assert_eq!(denial.rule, Rule::Network);
    assert_eq!(
        WalletHarness::new(bare().deny_network("base"))
            .deny(&offer("0.01"))
            .await
            .rule,
        Rule::Network
    );
    let wallet = WalletHarness::new(bare().allow_network("eip155:137"));
    wallet.buy(&offer_in(usdc("polygon"), "0.01")).await;
}

#[tokio::test]
async fn a_payee_may_change_unless_it_is_pinned() {
    let of = |byte: u8| offer("0.01").payee(payee(byte));
    let wallet = WalletHarness::new(bare());
    for byte in [1, 2, 3] {
        wallet.buy(&of(byte)).await;
    }

    let wallet = WalletHarness::new(bare().payee_pinned());
    wallet.buy(&of(1)).await;
    let denial = wallet.deny(&of(2)).await;
    assert_eq!(denial.rule, Rule::PayeeChanged);
    let words = format!(
        "https://api.example.com was first paid at {} and now names {}",
        payee(1),
        payee(2)
    );
    assert_eq!(denial.to_string(), words);
    wallet.buy(&of(1)).await;
    wallet.buy(&of(2).url("https://other.example")).await; // pinned there on its own
    assert_eq!(
        wallet.deny(&of(1).url("https://other.example")).await.rule,
        Rule::PayeeChanged
    );
}

#[tokio::test]
async fn only_what_was_signed_pins_a_payee() {
    let policy = bare().payee_pinned().per_payment(usd!("0.05"));
    let wallet = WalletHarness::new(policy);
    wallet.deny(&offer("1").payee(payee(6))).await;
    wallet.hold(&offer("0.01").payee(payee(1))).await;
    wallet.buy(&offer("0.01").payee(payee(1))).await;
    assert_eq!(
        wallet.deny(&offer("0.01").payee(payee(6))).await.rule,
        Rule::PayeeChanged
    );
}

#[tokio::test]
async fn the_most_specific_setting_decides() {
    let of = |url: &str, byte: u8| offer("0.01").url(url).payee(payee(byte));
    let policy = bare()
        .payees([payee(1)])
        .origin_limits("https://api.example.com:8443", |origin| origin.payee_free())
        .host_limits("api.example.com", |host| host.payees([payee(4), payee(5)]))
        .host_limits("*.example.com", |host| host.payees([payee(3)]))
        .host_limits("*.com", |host| host.payees([payee(2)]))
        .host_limits("*.b.example.com", |host| host.max_validity(10 * SECOND));
    let wallet = WalletHarness::new(policy);
    for (url, allowed) in [
        ("https://elsewhere.net", &[1][..]),
        ("https://example.com", &[2]),
        ("https://x.example.com", &[3]),
        ("https://a.b.example.com", &[3]), // an purchase that does not set it leaves it to the next
        ("https://api.example.com", &[4, 5]),
        ("https://api.example.com:8443", &[1, 2, 3, 4, 5, 6]),
    ] {
        for byte in 1..=6 {
            if allowed.contains(&byte) {
                wallet.buy(&of(url, byte)).await;
            } else {
                let denial = wallet.deny(&of(url, byte)).await;
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
    let wallet = WalletHarness::new(bare().max_price_rise(20));
    wallet.buy(&offer("0.05")).await;
    let denial = wallet.deny(&offer("0.060001")).await;
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
    wallet.buy(&offer("0.06")).await;
    wallet.buy(&offer("0.072")).await;
    wallet.buy(&offer("0.01")).await;
    assert_eq!(wallet.deny(&offer("0.02")).await.rule, Rule::PriceRise);
    // Another path, method or host is another product; another query is not.
    wallet
        .buy(&offer("1").url("https://api.example.com/other"))
        .await;
    wallet.buy(&offer("1").method("POST")).await;
    wallet
        .buy(&offer("1").url("https://other.example/report"))
        .await;
    assert_eq!(
        wallet
            .deny(&offer("1").url("https://api.example.com/report?q=2"))
            .await
            .rule,
        Rule::PriceRise
    );

    let wallet =
        WalletHarness::new(bare().host_limits("other.example", |host| host.max_price_rise(0)));
    wallet.buy(&offer("0.01")).await;
    wallet.buy(&offer("1")).await;
}

#[tokio::test]
async fn a_resource_of_another_origin_is_recorded_or_refused() {
    let foreign = offer("0.01").resource("https://other.example/report", "a report");
    let own = offer("0.01").resource("https://api.example.com/elsewhere", "a report");
    let wallet = WalletHarness::new(bare());
    wallet.buy(&foreign).await;
    wallet.buy(&own).await;
    let recorded: Vec<_> = wallet
        .purchases()
        .await
        .into_iter()
        .map(|purchase| purchase.foreign_resource)
        .collect();
    assert_eq!(
        recorded,
        [Some("https://other.example/report".to_owned()), None]
    );

    let policy = bare().refuse_foreign_resource();
    let wallet = WalletHarness::new(
        policy
            .clone()
            .host_limits("lax.example", |host| host.record_foreign_resource()),
    );
    let denial = wallet.deny(&foreign).await;
    assert_eq!(denial.rule, Rule::ResourceOrigin);
    let words =
        "the seller at https://api.example.com says it sells `https://other.example/report`";
    assert_eq!(denial.to_string(), words);
    wallet.deny(&offer("0.01").resource("not a URL", "")).await;
    wallet.buy(&own).await;
    wallet.buy(&offer("0.01")).await;
    wallet.buy(&foreign.url("https://lax.example")).await;
}

#[tokio::test]
async fn urls_with_userinfo_are_refused() {
    let wallet = WalletHarness::new(bare());
    for url in [
        "https://user@api.example.com/",
        "https://:secret@api.example.com/",
        "https://a:b@api.example.com",
    ] {
        let denial = wallet.deny(&offer("0.01").url(url)).await;
        assert_eq!(denial.rule, Rule::Userinfo);
        assert_eq!(
            denial.to_string(),
            "the URL carries a user name or password"
        );
    }
}

#[tokio::test]
async fn impossible_payees_are_refused() {
    let wallet = WalletHarness::new(bare());
    let own = wallet.payer(None).address();
    let token = usdc("base").address();
    let contract = |digits: &str| digits.parse::<Address>().unwrap();
    let keeps = "a contract of Permit2, which keeps the money for ever";
    for (payee, what) in [
        (Address::ZERO, "the zero address or a precompiled contract"),
        (
            Address::with_last_byte(1),
            "the zero address or a precompiled contract",
        ),
        (own, "the payer itself"),
        (token, "the token's own contract"),
        (contract("000000000022D473030F116dDEE9F6B43aC78BA3"), keeps),
        (contract("402085c248EeA27D92E8b30b2C58ed07f9E20001"), keeps),
        (contract("4020A4f3b7b90ccA423B9fabCc0CE57C6C240002"), keeps),
    ] {
        let denial = wallet.deny(&offer("0.01").payee(payee)).await;
        assert_eq!(
            (denial.rule, denial.message),
            (Rule::PayeeImpossible, format!("payee {payee} is {what}"))
        );
    }
}

#[tokio::test]
async fn nothing_is_signed_for_a_price_of_zero() {
    assert_eq!(
        WalletHarness::new(bare()).deny(&offer("0")).await.rule,
        Rule::ZeroAmount
    );
}

#[tokio::test]
async fn validity_has_a_ceiling() {
    let validity = async |policy: Policy, window: u64| {
        let wallet = WalletHarness::new(policy);
        let paid = wallet
            .hold(&offer("0.01").max_timeout_seconds(window))
            .await;
        paid.valid_before - wallet.now().secs()
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
        let wallet = WalletHarness::new(policy);
        wallet
            .buy(&offer("0.01").url("https://api.example.com/report?q=secret"))
            .await;
        assert_eq!(wallet.purchases().await[0].path, path);
    }
}

#[tokio::test]
async fn the_cheapest_offer_that_is_allowed_is_signed() {
    let wallet = WalletHarness::new(
        bare()
            .allow_network("polygon")
            .per_payment(usd!("0.10"))
            .deny_network("polygon"),
    );
    let many = offer("5000")
        .or(Accept::new(usdc("polygon"), "0.01"))
        .or(Accept::new(usdc("base"), "0.07"))
        .or(Accept::new(usdc("base"), "0.06"));
    assert_eq!(wallet.buy(&many).await.amount.to_string(), "0.06 USDC");
    let dear = offer("5000").or(Accept::new(usdc("base"), "0.11"));
    assert_eq!(
        wallet.deny(&dear).await.asked.unwrap().to_string(),
        "0.11 USD",
        "the denial is the cheapest's"
    );
}
