//! `bursar discover`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use bursar_testing::{Bazaar, BazaarBuilder, BazaarFault, Route};
use serde_json::{Value, json};
use support::{CliHarness, Ended, PAYEE, report};

/// A list with the report of the harness and with services that cannot be bought.
fn listed(harness: &CliHarness) -> BazaarBuilder {
    let honest = harness.paywall.advertisement("/report", "a daily report");
    let mut expensive = honest.clone();
    expensive["resource"] = json!("https://expensive.example/report");
    expensive["accepts"][0]["amount"] = json!("5000000");
    let mut odd = honest.clone();
    odd["resource"] = json!("https://odd.example/report';reboot;'?a=1&b=2");
    odd["extensions"]["bazaar"]["info"]["input"]["method"] = json!("POST");
    odd["accepts"][0]["amount"] = json!("20000");
    Bazaar::builder()
        .item(expensive)
        .item(odd)
        .item(honest)
        .item(json!(7))
}

async fn discover(harness: &CliHarness, bazaar: &Bazaar, args: &[&str]) -> Ended {
    let url = bazaar.url("/").to_string();
    harness
        .run(
            &[
                &["discover", "--allow-http-loopback", "--bazaar", &url][..],
                args,
            ]
            .concat(),
        )
        .await
}

#[tokio::test]
async fn a_found_service_can_be_passed_to_pay() {
    let harness = CliHarness::new(report()).await;
    let bazaar = listed(&harness).start().await.unwrap();
    let ended = discover(
        &harness,
        &bazaar,
        &["daily", "report", "--network", "base-sepolia"],
    )
    .await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<_> = ended.text().lines().collect();
    let columns: Vec<_> = lines[1].split_whitespace().collect();
    let url = harness.url();
    assert_eq!(
        columns,
        [
            "0.01",
            "USDC",
            "base-sepolia",
            "payable",
            "GET",
            url.as_str()
        ],
        "{ended:?}"
    );
    assert_eq!(lines[2], "    \"a daily report\"");
    assert!(
        lines[3].ends_with(r"POST    -X POST 'https://odd.example/report'\'';reboot;'\''?a=1&b=2'"),
        "{}",
        lines[3]
    );
    assert!(lines[5].contains("denied") && lines[5].ends_with("https://expensive.example/report"));
    assert!(
        lines[6].contains("5.00 USD is above the limit of 0.10 USD"),
        "{}",
        lines[6]
    );
    assert!(harness.paywall.requests().is_empty() && !harness.path("state").exists());

    let bought = harness.pay(&[columns[5]]).await;
    assert_eq!((bought.code, bought.text()), (0, "the report"));
}

#[tokio::test]
async fn the_json_of_found_services_has_these_keys() {
    let harness = CliHarness::new(report()).await;
    let bazaar = listed(&harness).without_search().start().await.unwrap();
    let policy = harness.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n",
    );
    let ended = discover(
        &harness,
        &bazaar,
        &["daily", "--policy", &policy, "--limit", "1", "--json"],
    )
    .await;
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{ended:?}");
    let input = json!({ "method": "GET", "type": "http" });
    let mut found = ended.json();
    let described = found["services"][0]["untrusted"]["input"].take();
    assert_eq!(
        serde_json::from_str::<Value>(described.as_str().unwrap()).unwrap(),
        input
    );
    let expected = json!({
        "services": [{
            "standing": "payable", "rule": null, "kind": "http", "method": "GET",
            "price": "0.01 USDC", "usd": "0.01", "network": "eip155:84532", "payTo": PAYEE,
            "untrusted": {
                "url": harness.url(), "tool": null, "reason": null, "name": null, "description": "a daily report",
                "tags": [], "mimeType": null, "input": null,
            },
            "sources": [0],
        }],
        "sources": [{
            "kind": "bazaar", "url": bazaar.url("/").as_str(), "pages": 1, "items": 4, "skipped": 1,
            "more": false, "error": null, "untrusted": { "reasons": ["an item names no URL"], "error": null },
        }],
        "leftOut": 2,
    });
    assert_eq!(found, expected);
}

#[tokio::test]
async fn services_are_listed_without_a_policy() {
    let harness = CliHarness::new(Route::get("/report").price(usd!("0.01"))).await;
    let bazaar = listed(&harness).start().await.unwrap();
    let ended = discover(&harness, &bazaar, &["--max-price", "0.02", "report"]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended.text().contains("no wallet") && ended.text().contains("denied"),
        "{}",
        ended.text()
    );
    assert_eq!(
        discover(&harness, &bazaar, &["--budget", "1"]).await.code,
        2
    );
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_named() {
    let harness = CliHarness::new(report()).await;
    let broken = Bazaar::builder()
        .fault(BazaarFault::Status(500))
        .start()
        .await
        .unwrap();
    let alone = discover(&harness, &broken, &["report"]).await;
    assert_eq!((alone.code, alone.text()), (1, ""));
    let place = broken.url("/").to_string();
    let place = place.trim_end_matches('/');
    let expected = format!(
        "bazaar {place}: the list answers 500 Internal Server Error [{place}/discovery/search]"
    );
    assert_eq!(alone.stderr, format!("{expected}\nno service was found\n"));
    let good = listed(&harness).start().await.unwrap();
    let both = discover(
        &harness,
        &broken,
        &["report", "--bazaar", good.url("/").as_str()],
    )
    .await;
    assert!(
        both.code == 0 && both.stderr.starts_with(&expected),
        "{both:?}"
    );
    let nowhere = harness.run(&["discover", "report"]).await;
    assert!(
        nowhere.code == 2 && nowhere.stderr.contains("nowhere to look"),
        "{nowhere:?}"
    );
    let plain = harness
        .run(&["discover", "--bazaar", good.url("/").as_str(), "--json"])
        .await;
    assert_eq!(
        (plain.code, &plain.json()["sources"][0]["error"]["kind"]),
        (1, &json!("insecure"))
    );
}

#[tokio::test]
async fn a_policy_file_can_name_the_lists() {
    let harness = CliHarness::new(report()).await;
    let (own, other) = (
        listed(&harness).start().await.unwrap(),
        listed(&harness).start().await.unwrap(),
    );
    let file =
        |rest: String| format!("version = 1\nnetworks = [\"base-sepolia\"]\n[discovery]\n{rest}\n");
    let policy = harness.file(
        "policy.toml",
        file(format!("bazaar = [\"{}\"]", own.url("/"))),
    );
    let ended = harness
        .run(&[
            "discover",
            "--allow-http-loopback",
            "--policy",
            &policy,
            "report",
        ])
        .await;
    assert!(
        ended.code == 0 && ended.text().contains("payable"),
        "{ended:?}"
    );
    let asked = own.requests().len();
    assert_eq!(
        discover(&harness, &other, &["--policy", &policy])
            .await
            .code,
        0
    );
    assert_eq!(
        (own.requests().len(), other.requests().len()),
        (asked, 1),
        "the named list replaces the lists of the file"
    );

    for (wrong, expected) in [
        ("bazar = []".to_owned(), "bazar"),
        ("bazaar = \"nowhere\"".to_owned(), "line 4, column 10"),
        (
            "registry = \"https://me:secret@example.com\"".to_owned(),
            "user name or password",
        ),
    ] {
        let policy = harness.file("wrong.toml", file(wrong));
        let ended = harness.run(&["policy", "check", &policy]).await;
        assert!(
            ended.code == 2 && ended.stderr.contains(expected),
            "{ended:?}"
        );
    }
}
