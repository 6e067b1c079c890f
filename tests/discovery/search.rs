//! Words, prices, networks and the order of the services.

use bursar::discovery::{Kind, Standing};
use bursar::policy::Rule;
use bursar::reqwest::Method;
use bursar::x402::Unpayable;
use bursar::{ErrorKind, PaymentStatus, ResponseExt, Url, usd};
use bursar_testing::{Bazaar, Route};
use bursar_tests::paywall::{open, purchases};
use serde_json::json;

use crate::{denied_by, find, item, listed, paths, seller, sepolia};

#[tokio::test]
async fn what_is_found_can_be_bought_the_same_minute() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let client = sepolia();

    let findings = find(&bazaar, &client, "weather").await;
    assert_eq!(
        paths(&findings),
        ["/weather/cheap", "/weather/fine", "/weather/dear"]
    );
    assert_eq!(findings.services[0].standing, Standing::Payable);
    assert_eq!(denied_by(&findings.services[2]), Rule::PerPayment);
    assert_eq!(findings.payable().count(), 2);
    assert!(
        findings
            .services
            .iter()
            .all(|service| service.kind == Kind::Http && service.words == 1)
    );
    // Nobody was asked, and nothing was held.
    assert!(seller.requests().is_empty());
    assert!(purchases(&client).await.is_empty());

    let response = findings
        .best()
        .unwrap()
        .request(&client)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            response.payment_status(),
            response.text().await.unwrap().as_str()
        ),
        (PaymentStatus::Paid, "/weather/cheap")
    );
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn words_come_before_the_price_and_the_price_before_the_name() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let findings = find(&bazaar, &sepolia(), "fine forecasts, weather").await;
    assert_eq!(
        paths(&findings),
        ["/weather/fine", "/weather/cheap", "/weather/dear"]
    );
    let words: Vec<_> = findings
        .services
        .iter()
        .map(|service| service.words)
        .collect();
    assert_eq!(words, [3, 1, 2], "and what is denied comes last");

    let all = find(&bazaar, &sepolia(), "").await;
    assert_eq!(
        paths(&all),
        ["/news", "/weather/cheap", "/weather/fine", "/weather/dear"]
    );
    let few = sepolia()
        .discover()
        .bazaar(bazaar.url("/"))
        .find("")
        .limit(1)
        .run()
        .await
        .unwrap();
    assert_eq!((paths(&few), few.left_out), (vec!["/news"], 3));
}

#[tokio::test]
async fn the_query_narrows_and_says_why_not() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let client = sepolia();
    let findings = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("weather")
        .max_price(usd!("0.02"))
        .run()
        .await
        .unwrap();
    assert_eq!(paths(&findings)[0], "/weather/cheap");
    assert!(
        findings.services[1..]
            .iter()
            .all(|service| denied_by(service) == Rule::MaxPrice)
    );

    // This bazaar has only play money, and is not trusted to leave it out.
    let mainnet = item("https://a.example/main", |item| {
        item["accepts"][0]["network"] = json!("eip155:8453")
    });
    let mixed = Bazaar::builder()
        .item(item("https://a.example/both", |item| {
            let mut other = item["accepts"][0].clone();
            other["network"] = json!("eip155:8453");
            other["asset"] = json!("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
            other["extra"]["name"] = json!("USD Coin");
            other["amount"] = json!("20000");
            item["accepts"].as_array_mut().unwrap().push(other);
        }))
        .item(item("https://a.example/test", |_| {}))
        .item(mainnet)
        .start()
        .await
        .unwrap();
    let both = client
        .discover()
        .bazaar(mixed.url("/"))
        .find("")
        .run()
        .await
        .unwrap();
    let standing = |path: &str| {
        both.services
            .iter()
            .find(|service| service.url.path() == path)
            .unwrap()
            .standing
            .clone()
    };
    assert_eq!(
        (standing("/both"), standing("/test")),
        (Standing::Payable, Standing::Payable)
    );
    assert!(
        matches!(standing("/main"), Standing::Unpayable(reasons) if matches!(reasons[0], Unpayable::Asset { .. }))
    );

    // Version 1 writes the network in another way.
    let wanted = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("weather")
        .network("base-sepolia")
        .run()
        .await
        .unwrap();
    assert_eq!(
        paths(&wanted),
        ["/weather/cheap", "/weather/fine", "/weather/dear"]
    );
    let unwanted = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("")
        .network("base")
        .run()
        .await
        .unwrap();
    assert!(
        unwanted.services.is_empty(),
        "a bazaar that filters: {unwanted:?}"
    );
    let error = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("")
        .network("atlantis")
        .run()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);

    let posts = client
        .discover()
        .bazaar(bazaar.url("/"))
        .find("weather")
        .method(Method::POST)
        .run()
        .await
        .unwrap();
    assert!(posts.services.is_empty(), "they are known to be for GET");
}

#[tokio::test]
async fn offers_on_another_network_are_told_from_those_that_are_wanted() {
    // A registry of paths does not filter by network, so the query must.
    let seller = seller().await;
    let route = Route::get("/.well-known/x402")
        .json(json!({ "items": [seller.advertisement("/news", "news")] }));
    let origin = open(route).await;
    let findings = sepolia()
        .discover()
        .well_known(origin.url("/"))
        .find("")
        .network("base")
        .run()
        .await
        .unwrap();
    assert_eq!(findings.services[0].standing, Standing::OtherNetwork);
    assert!(findings.best().is_none());
}

#[tokio::test]
async fn the_same_from_several_sources_is_one_service_and_the_first_is_believed() {
    let seller = seller().await;
    let honest = Bazaar::builder()
        .item(seller.advertisement("/news", "news"))
        .start()
        .await
        .unwrap();
    let mut lie = seller.advertisement("/news", "the very best news");
    lie["accepts"][0]["amount"] = json!("1");
    let liar = Bazaar::builder()
        .item(lie.clone())
        .item(lie)
        .start()
        .await
        .unwrap();
    let look = sepolia()
        .discover()
        .well_known(honest.url("/"))
        .bazaar(honest.url("/"))
        .bazaar(liar.url("/"));
    let findings = look
        .openapi(honest.url("/"))
        .find("news")
        .run()
        .await
        .unwrap();
    assert_eq!(findings.services.len(), 1, "{findings:?}");
    let news = &findings.services[0];
    assert_eq!(
        (news.price.to_string().as_str(), &news.sources[..]),
        ("0.001 USDC", &[0, 1, 2, 3][..])
    );
    assert_eq!(
        news.untrusted.description.as_deref(),
        Some("news"),
        "what the first does not know is taken over"
    );
}

#[tokio::test]
async fn nowhere_to_look_is_a_mistake() {
    let error = sepolia()
        .discover()
        .find("weather")
        .run()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);
    let error = sepolia()
        .discover()
        .bazaar("not a url")
        .find("weather")
        .run()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Builder);
    let url: Url = "http://127.0.0.1:1/".parse().unwrap();
    let findings = sepolia()
        .discover()
        .bazaar(url)
        .find("")
        .run()
        .await
        .unwrap();
    assert_eq!(
        findings.sources[0].error.as_ref().unwrap().kind(),
        ErrorKind::Transport
    );
}
