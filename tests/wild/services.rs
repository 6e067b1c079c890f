//! Networks, tokens, and lists of services.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use bursar::discovery::{Findings, Kind, Standing};
use bursar::money::AssetRegistry;
use bursar::{Network, PaymentStatus, Policy, ResponseExt, Url, usd};
use bursar_testing::{Bazaar, BazaarBuilder, Paywall, Route};
use bursar_tests::paywall::{client, open_all};
use serde_json::{Value, json};

/// Looks for the weather in one bazaar.
async fn weather(bazaar: &Bazaar) -> Findings {
    let client = client().build().unwrap();
    let search = client.discover().bazaar(bazaar.url("/")).find("weather");
    search.run().await.unwrap()
}

#[tokio::test]
async fn usdc_of_the_networks_that_facilitators_list_is_payable() {
    for name in [
        "world",
        "world-chain",
        "world-sepolia",
        "optimism",
        "optimism-sepolia",
        "unichain",
        "unichain-sepolia",
        "linea",
        "sonic",
        "ink",
        "hyperevm",
        "sepolia",
    ] {
        let network: Network = name.parse().unwrap();
        let usdc = AssetRegistry::stablecoins().find_symbol(network, "USDC");
        let usdc = usdc.unwrap().clone();
        let seller = Paywall::builder().asset(usdc.clone());
        let route = Route::get("/report")
            .price(usd!("0.01"))
            .asset(usdc.clone());
        let seller = seller
            .route(route.body("the report"))
            .start()
            .await
            .unwrap();
        let policy = Policy::new().allow_network(name);
        let client = client().policy(policy).build().unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(response.payment_status(), PaymentStatus::Paid, "{name}");
        let payment = response.payment().unwrap();
        assert_eq!(
            (payment.network(), payment.amount.asset()),
            (network, &usdc)
        );
    }
}

#[test]
fn a_mistyped_network_gets_a_suggestion() {
    for (written, meant) in [
        ("bsae", "base"),
        ("wrold", "world"),
        ("optimisim", "optimism"),
        ("base_sepolia", "base-sepolia"),
        ("8453", "eip155:8453"),
    ] {
        let built = client()
            .policy(Policy::new().allow_network(written))
            .build();
        let text = built.unwrap_err().to_string();
        assert!(text.contains(&format!("did you mean `{meant}`?")), "{text}");
    }
}

fn item(url: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut item = json!({
        "resource": url, "type": "http", "x402Version": 2, "description": "a weather forecast",
        "accepts": [{ "scheme": "exact", "network": "eip155:84532", "amount": "10000",
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x2222222222222222222222222222222222222222", "maxTimeoutSeconds": 60,
            "extra": { "name": "USDC", "version": "2" } }],
    });
    change(&mut item);
    item
}

/// CDP's bazaar with one service that fits, after more services than bursar reads.
fn cdp() -> BazaarBuilder {
    let other = |number: usize| {
        let url = format!("https://other.example/{number}");
        item(&url, |item| item["description"] = json!("other"))
    };
    let many = (0..1500)
        .map(other)
        .fold(Bazaar::builder(), BazaarBuilder::item);
    many.like_cdp()
        .item(item("https://weather.example/today", |_| {}))
}

/// The path and the parameters of each request.
fn asked(bazaar: &Bazaar) -> Vec<(String, HashMap<String, String>)> {
    let requests = bazaar.requests().into_iter();
    requests
        .map(|request| {
            let url = Url::parse("http://x/")
                .unwrap()
                .join(&request.target)
                .unwrap();
            (
                url.path().to_owned(),
                url.query_pairs().into_owned().collect(),
            )
        })
        .collect()
}

#[tokio::test]
async fn the_largest_bazaar_is_searched_within_its_limits() {
    let bazaar = cdp().start().await.unwrap();
    let client = client().build().unwrap();
    let look = || client.discover().bazaar(bazaar.url("/"));
    let findings = look().find("weather").only(Kind::Http).run().await.unwrap();
    assert_eq!(
        findings.services[0].url.as_str(),
        "https://weather.example/today"
    );
    assert!(findings.sources[0].error.is_none());
    let [(path, query)] = &asked(&bazaar)[..] else {
        panic!("{:?}", asked(&bazaar));
    };
    assert_eq!(path, "/discovery/search");
    assert_eq!(
        (query["query"].as_str(), query["limit"].as_str()),
        ("weather", "20")
    );

    let long = format!("weather {}", "wörter ".repeat(80));
    for words in [
        long.as_str(),
        &"é".repeat(401),
        &format!("weather{}", " ".repeat(500)),
    ] {
        let findings = look().find(words).run().await.unwrap();
        assert!(findings.sources[0].error.is_none(), "{findings:?}");
    }
    for (_, query) in &asked(&bazaar) {
        assert!(query["query"].chars().count() <= 400);
    }
    let cut = &asked(&bazaar)[1].1["query"];
    assert!(cut.ends_with(" wörter"), "{cut}");

    let findings = look()
        .find("weather")
        .network("base-sepolia")
        .run()
        .await
        .unwrap();
    assert_eq!(findings.services.len(), 1);
    let listed = look()
        .pages(1)
        .find("")
        .network("base-sepolia")
        .run()
        .await
        .unwrap();
    assert!(listed.sources[0].error.is_none() && listed.sources[0].items == 100);
}

#[tokio::test]
async fn a_bazaar_that_takes_fewer_items_is_asked_for_fewer() {
    let bazaar = Bazaar::builder()
        .item(item("https://weather.example/today", |_| {}))
        .search_limit(7)
        .start()
        .await
        .unwrap();
    let findings = weather(&bazaar).await;
    assert_eq!(findings.services.len(), 1);
    let limits: Vec<_> = asked(&bazaar)
        .into_iter()
        .map(|(path, query)| (path, query["limit"].clone()))
        .collect();
    let search = "/discovery/search".to_owned();
    assert_eq!(
        limits,
        [(search.clone(), "20".into()), (search, "7".into())]
    );
}

#[tokio::test]
async fn a_refused_search_is_reported_and_the_list_is_read() {
    let seller = open_all([
        Route::get("/discovery/search")
            .status(400)
            .body("the words are too rude"),
        Route::get("/discovery/resources").json(json!({
            "x402Version": 2, "items": [item("https://weather.example/today", |_| {})],
            "pagination": { "limit": 100, "offset": 0, "total": 1 } })),
    ])
    .await;
    let client = client().build().unwrap();
    let findings = client
        .discover()
        .bazaar(seller.url("/"))
        .find("weather")
        .run();
    let findings = findings.await.unwrap();
    assert_eq!(findings.services.len(), 1);
    let error = findings.sources[0].error.as_ref().unwrap().to_string();
    assert!(
        error.contains("400") && error.contains("too rude"),
        "{error}"
    );
}

#[tokio::test]
async fn use_orders_services_and_widens_no_limit() {
    let used = |path: &str, amount: &str, quality: Value, curated: bool| {
        item(&format!("https://weather.example/{path}"), |item| {
            item["accepts"][0]["amount"] = json!(amount);
            item["quality"] = quality;
            item["curated"] = json!(curated);
        })
    };
    let quality = |calls: u64, payers: u64| json!({ "l30DaysTotalCalls": calls, "l30DaysUniquePayers": payers, "lastCalledAt": "2026-11-01T00:00:00Z" });
    let bazaar = Bazaar::builder()
        .item(used("dead", "1000", quality(0, 0), false))
        .item(used("unknown", "2000", Value::Null, false))
        .item(used("few", "10000", quality(9, 1), false))
        .item(used("many", "10000", quality(5, 3), false))
        .item(used("curated", "20000", quality(0, 0), true))
        .item(used(
            "expensive",
            "5000000",
            quality(1_000_000, 100_000),
            true,
        ))
        .start()
        .await
        .unwrap();
    let findings = weather(&bazaar).await;
    let paths: Vec<_> = findings
        .services
        .iter()
        .map(|service| service.url.path())
        .collect();
    assert_eq!(
        paths,
        [
            "/many",
            "/few",
            "/curated",
            "/unknown",
            "/dead",
            "/expensive"
        ]
    );
    assert!(matches!(findings.services[5].standing, Standing::Denied(_)));
    let usage = &findings.services[0].usage;
    assert_eq!(
        (usage.calls, usage.payers, usage.curated),
        (Some(5), Some(3), false)
    );
    assert_eq!(usage.last_called.as_deref(), Some("2026-11-01T00:00:00Z"));
}
