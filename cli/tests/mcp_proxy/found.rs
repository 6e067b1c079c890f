//! Servers that are found and added while the proxy runs.

use bursar_testing::{Bazaar, Route};
use serde_json::{Value, json};

use super::{call, expensive, harness, list, names, payment, proxy, proxy_as, session, text};
use crate::agent::{Session, User};
use crate::shop::Shop;
use crate::support::{CliHarness, policy, report};

/// A bazaar that advertises the tool `report` of a shop for one cent.
async fn bazaar(shop: &Shop) -> Bazaar {
    let mut item = shop
        .paywall
        .advertisement("/report", "reports of all kinds");
    item["resource"] = json!(shop.url);
    item["type"] = json!("mcp");
    let input = json!({ "type": "mcp", "toolName": "report", "inputSchema": {} });
    item["extensions"] = json!({ "bazaar": { "info": { "input": input } } });
    Bazaar::builder().item(item).start().await.unwrap()
}

async fn open(harness: &CliHarness, bazaar: &Bazaar, add: bool, user: User) -> Session {
    let policy = policy(
        harness,
        &format!(
            "[discovery]\nbazaar = \"{}\"\nadd_servers = {add}",
            bazaar.url("/")
        ),
    );
    let args = ["--policy", &policy, "--allow-http-loopback"];
    proxy_as(harness, &[], &args, user, session()).await
}

async fn find(session: &Session) -> Value {
    let found = call(
        session,
        "bursar_find_servers",
        json!({ "query": "reports" }),
    )
    .await;
    found.structured_content.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_is_found_added_and_paid_in_one_session() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    let bazaar = bazaar(&shop).await;
    let user = User::default();
    let session = open(&harness, &bazaar, true, user.clone()).await;
    assert!(names(&list(&session).await).is_empty());

    let found = find(&session).await;
    let service = &found["services"][0];
    assert_eq!(
        (&found["payment"], &service["untrusted"]["url"]),
        (&json!("not_paid"), &json!(shop.url)),
        "{found}"
    );
    let add = json!({ "url": service["untrusted"]["url"], "name": "reports" });
    let added = call(&session, "bursar_add_server", add.clone())
        .await
        .structured_content
        .unwrap();
    assert_eq!(
        added["tools"],
        json!(["reports__report", "reports__free"]),
        "{added}"
    );
    user.list_changed.notified().await;
    assert_eq!(
        names(&list(&session).await),
        ["reports__report", "reports__free"]
    );
    let result = call(&session, "reports__report", json!({})).await;
    assert_eq!(
        (text(&result, 0), &payment(&result)["payment"]),
        ("the report", &json!("paid"))
    );
    let again = call(&session, "bursar_add_server", add)
        .await
        .structured_content
        .unwrap();
    assert_eq!(again["tools"], added["tools"], "a server is added once");
    session.close(&harness).await;
    assert_eq!(shop.settled(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_no_list_has_is_not_connected_to() {
    let harness = harness().await;
    let (shop, other) = (Shop::open(report()).await, Shop::open(report()).await);
    let bazaar = bazaar(&shop).await;
    let session = open(&harness, &bazaar, true, User::default()).await;
    for url in [
        &shop.url,
        &other.url,
        "http://169.254.169.254/mcp",
        "nothing",
    ] {
        let refused = call(&session, "bursar_add_server", json!({ "url": url })).await;
        assert_eq!(refused.is_error, Some(true), "{url} was not found yet");
    }
    find(&session).await;
    let refused = call(&session, "bursar_add_server", json!({ "url": other.url })).await;
    assert_eq!(refused.is_error, Some(true), "{refused:?}");
    assert!(names(&list(&session).await).is_empty());
    session.close(&harness).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_server_is_paid_no_more_than_it_advertised() {
    let harness = harness().await;
    let (cheap, shop) = (Shop::open(report()).await, Shop::open(expensive()).await);
    let mut item = cheap
        .paywall
        .advertisement("/report", "reports of all kinds");
    item["resource"] = json!(shop.url);
    item["type"] = json!("mcp");
    let bazaar = Bazaar::builder().item(item).start().await.unwrap();
    let session = open(&harness, &bazaar, true, User::default()).await;
    find(&session).await;
    let added = call(
        &session,
        "bursar_add_server",
        json!({ "url": shop.url, "name": "x" }),
    )
    .await;
    assert_eq!(added.is_error, Some(false), "{added:?}");
    let denied = payment(&call(&session, "x__report", json!({})).await);
    assert_eq!(
        (&denied["payment"], &denied["error"]["denial"]["rule"]),
        (&json!("not_paid"), &json!("max_price")),
        "{denied}"
    );
    session.close(&harness).await;
    assert_eq!((cheap.settled(), shop.settled()), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_found_tool_without_a_price_costs_no_more_than_the_most_expensive_one_with_a_price() {
    let harness = harness().await;
    let shop = Shop::open(expensive()).await;
    let cheap = Shop::open(report()).await;
    // The list has the price of another tool of the server.
    let item = |price: &Shop, tool: &str| {
        let mut item = price
            .paywall
            .advertisement("/report", "reports of all kinds");
        item["resource"] = json!(shop.url);
        item["type"] = json!("mcp");
        let input = json!({ "type": "mcp", "toolName": tool, "inputSchema": {} });
        item["extensions"] = json!({ "bazaar": { "info": { "input": input } } });
        item
    };
    for (items, rule) in [
        (vec![item(&cheap, "other")], json!("max_price")),
        (
            vec![item(&cheap, "other"), item(&shop, "another")],
            Value::Null,
        ),
    ] {
        let bazaar = Bazaar::builder();
        let bazaar = items
            .into_iter()
            .fold(bazaar, |bazaar, item| bazaar.item(item));
        let bazaar = bazaar.start().await.unwrap();
        let session = open(&harness, &bazaar, true, User::default()).await;
        find(&session).await;
        let add = json!({ "url": shop.url, "name": "x" });
        let added = call(&session, "bursar_add_server", add).await;
        assert_eq!(added.is_error, Some(false), "{added:?}");
        assert_eq!(shop.settled(), 0);
        let called = payment(&call(&session, "x__report", json!({})).await);
        assert_eq!(called["error"]["denial"]["rule"], rule, "{called}");
        session.close(&harness).await;
    }
    assert_eq!((cheap.settled(), shop.settled()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_of_the_operator_keeps_its_settings_under_another_url_of_a_list() {
    let harness = harness().await;
    let shop = Shop::open(report()).await;
    for spelling in ["?again", "#again", "/", "/;again", "/%6dcp"] {
        let url = match spelling {
            "/%6dcp" => shop.url.replace("/mcp", "/%6dcp"),
            spelling => format!("{}{spelling}", shop.url),
        };
        let mut item = shop
            .paywall
            .advertisement("/report", "reports of all kinds");
        item["resource"] = json!(url);
        item["type"] = json!("mcp");
        let bazaar = Bazaar::builder().item(item).start().await.unwrap();
        let rules = format!(
            "[discovery]\nbazaar = \"{}\"\nadd_servers = true\n[[mcp_server]]\nname = \"own\"\nurl = \"{}\"\n\
             max_price = \"0.001 USD\"\ntools = \"report\"\n",
            bazaar.url("/"),
            shop.url
        );
        let policy = policy(&harness, &rules);
        let args = ["--policy", &policy, "--allow-http-loopback"];
        let session = proxy(&harness, &[], &args).await;
        let found = find(&session).await;
        let add = json!({ "url": found["services"][0]["untrusted"]["url"], "name": "x" });
        let added = call(&session, "bursar_add_server", add).await;
        let added = added.structured_content.unwrap();
        assert_eq!(added["server"], "own", "{spelling}: {added}");
        assert_eq!(names(&list(&session).await), ["own__report"], "{spelling}");
        let denied = payment(&call(&session, "own__report", json!({})).await);
        assert_eq!(denied["error"]["denial"]["rule"], "max_price", "{denied}");
        session.close(&harness).await;
    }
    assert_eq!(shop.settled(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_permission_of_the_policy_no_server_can_be_added() {
    let harness = harness().await;
    let shop = Shop::open(Route::get("/report").body("free")).await;
    let bazaar = bazaar(&Shop::open(report()).await).await;
    let policy = policy(
        &harness,
        &format!("[discovery]\nbazaar = \"{}\"", bazaar.url("/")),
    );
    let session = proxy(&harness, &[&shop.url], &["--policy", &policy]).await;
    let tools = list(&session).await;
    assert!(!tools.iter().any(|tool| tool.name == "bursar_add_server"));
    let refused = session
        .client
        .call_tool(super::params(
            "bursar_add_server",
            json!({ "url": shop.url }),
        ))
        .await;
    assert!(refused.is_err());
    session.close(&harness).await;
    assert!(bazaar.requests().is_empty());
}
