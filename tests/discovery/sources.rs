//! OpenAPI documents and MCP registries.

use bursar::discovery::{Kind, Standing};
use bursar::policy::Rule;
use bursar::{Client, PaymentStatus, Policy, ResponseExt, usd};
use bursar_testing::{Bazaar, Paywall, Route};
use serde_json::json;

use crate::{client_with, denied_by, item, listed, paths, seller, sepolia};

#[tokio::test]
async fn an_openapi_document_has_prices_in_dollars() {
    let seller = seller().await;
    let bazaar = listed(&seller).start().await.unwrap();
    let look = |client: &Client| client.discover().openapi(bazaar.url("/")).find("weather");
    let client = sepolia();
    let findings = look(&client).run().await.unwrap();
    assert_eq!(
        paths(&findings),
        ["/weather/cheap", "/weather/fine", "/weather/dear"]
    );
    assert_eq!(findings.services[0].price.to_string(), "$0.01");
    assert_eq!(denied_by(&findings.services[2]), Rule::PerPayment);
    let response = findings
        .best()
        .unwrap()
        .request(&client)
        .send()
        .await
        .unwrap();
    assert_eq!(response.payment_status(), PaymentStatus::Paid);

    // Of a price without a payee the policy says nothing about payees.
    let strict = client_of_payee();
    assert_eq!(
        look(&strict).run().await.unwrap().services[0].standing,
        Standing::Payable
    );
    let elsewhere = client_with(
        Policy::new()
            .allow_network("base")
            .allow_host("api.example.com"),
    );
    assert_eq!(
        denied_by(&look(&elsewhere).run().await.unwrap().services[0]),
        Rule::Host
    );
    let dear = look(&client).max_price(usd!("0.02")).run().await.unwrap();
    assert_eq!(denied_by(&dear.services[1]), Rule::MaxPrice);
}

fn client_of_payee() -> Client {
    client_with(
        Policy::new().allow_network("base-sepolia").allow_payee(
            "0x209693Bc6afc0C5328bA36FaF03C514EF312287C"
                .parse()
                .unwrap(),
        ),
    )
}

#[tokio::test]
async fn mcp_servers_are_listed_by_their_endpoints() {
    let bazaar = Bazaar::builder()
        .mcp_server("io.example/weather", "Forecasts for sailors", "https://mcp.example.com/mcp")
        .mcp_server("io.example/tides", "Tides and weather", "https://tides.example.com/mcp")
        .server(json!({ "server": { "name": "io.example/local-weather", "packages": [{}] } }))
        .page_size(1)
        .item(item("https://mcp.example.com/mcp", |item| {
            item["type"] = json!("mcp");
            item["extensions"] =
                json!({ "bazaar": { "info": { "input": { "type": "mcp", "toolName": "forecast", "inputSchema": {} } } } });
        }))
        .start()
        .await
        .unwrap();
    let client = sepolia();
    let findings = client
        .discover()
        .registry(bazaar.url("/"))
        .find("weather")
        .run()
        .await
        .unwrap();
    let seen: Vec<_> = findings
        .services
        .iter()
        .map(|service| service.url.as_str())
        .collect();
    assert_eq!(
        seen,
        ["https://mcp.example.com/mcp"],
        "registries search in names"
    );
    let tides = client
        .discover()
        .registry(bazaar.url("/"))
        .find("sailors")
        .run()
        .await
        .unwrap();
    assert_eq!(
        tides.services.len(),
        1,
        "and where no name fits, the whole list is read"
    );
    let (report, server) = (&tides.sources[0], &tides.services[0]);
    assert_eq!((report.items, report.skipped.count), (3, 1));
    assert_eq!(
        (server.kind, server.standing.name(), server.method.as_str()),
        (Kind::Mcp, "unpriced", "POST")
    );

    let look = client
        .discover()
        .registry(bazaar.url("/"))
        .bazaar(bazaar.url("/"))
        .find("forecast");
    let both = look.only(Kind::Mcp).run().await.unwrap();
    let tools: Vec<_> = both
        .services
        .iter()
        .map(|service| (service.tool.as_deref(), service.standing.name()))
        .collect();
    assert_eq!(tools, [(Some("forecast"), "payable"), (None, "unpriced")]);
}

#[tokio::test]
async fn an_old_registry_is_asked_where_it_is() {
    let bare = json!({ "servers": [{ "name": "io.example/weather",
        "remotes": [{ "transport_type": "streamable", "url": "https://mcp.example.com/mcp" }] }],
        "metadata": { "count": 1 } });
    let old = Paywall::builder()
        .route(Route::get("/v0/servers").json(bare))
        .start()
        .await
        .unwrap();
    for place in ["/", "/v0/servers"] {
        let findings = sepolia()
            .discover()
            .registry(old.url(place))
            .find("weather")
            .run()
            .await
            .unwrap();
        assert_eq!(findings.services.len(), 1, "{place}: {findings:?}");
    }
    let nothing = Paywall::builder()
        .route(Route::get("/").body(""))
        .start()
        .await
        .unwrap();
    let findings = sepolia()
        .discover()
        .registry(nothing.url("/"))
        .find("")
        .run()
        .await
        .unwrap();
    assert_eq!(
        findings.sources[0]
            .error
            .as_ref()
            .unwrap()
            .status()
            .unwrap(),
        404
    );
}
