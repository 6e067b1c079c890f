//! `bursar report`.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part")]
mod support;

use bursar::usd;
use bursar_testing::{Fault, Route};
use support::{CliHarness, Ended, report};

/// Returns a harness with two paid reports, one of them with a tag.
async fn bought() -> CliHarness {
    let harness = CliHarness::new(report()).await;
    assert_eq!(harness.buy(&["--tag", "daily"]).await.code, 0);
    assert_eq!(harness.buy(&["--agent", "forecaster"]).await.code, 0);
    harness
}

async fn reported(harness: &CliHarness, args: &[&str]) -> Ended {
    let ledger = harness.path("ledger.db");
    harness
        .run(&[&["report", "--ledger", ledger.to_str().unwrap()][..], args].concat())
        .await
}

#[tokio::test]
async fn the_table_shows_sums_by_host_tag_and_agent() {
    let harness = bought().await;
    let ended = reported(&harness, &[]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<Vec<&str>> = ended
        .text()
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    for line in [
        vec!["127.0.0.1", "2", "0.02"],
        vec!["daily", "1", "0.01"],
        vec!["forecaster", "1", "0.01"],
    ] {
        assert!(lines.contains(&line), "{line:?} in {}", ended.text());
    }
    assert!(
        ended.text().contains("global rolling 1d"),
        "the limits are missing: {}",
        ended.text()
    );
    assert!(
        !ended.text().contains('\u{1b}'),
        "a report without a terminal has no colours"
    );
}

#[tokio::test]
async fn a_report_without_a_policy_notes_that_its_limits_are_the_defaults() {
    let harness = bought().await;
    let note = "limits: the defaults (no --policy)\n";
    assert_eq!(reported(&harness, &[]).await.stderr, note);
    let policy = harness.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n",
    );
    for args in [["--policy", &policy], ["--format", "json"]] {
        let ended = reported(&harness, &args).await;
        assert!(ended.code == 0 && ended.stderr.is_empty(), "{ended:?}");
    }
}

#[tokio::test]
async fn every_format_and_filter_works() {
    let harness = bought().await;
    let json = reported(
        &harness,
        &["--format", "json", "--tag", "daily", "--days", "2"],
    )
    .await
    .json();
    assert_eq!(json["total"]["spent"]["usd"], "0.01");
    assert_eq!(json["selection"]["tag"], "daily");
    let json = reported(&harness, &["--format", "json", "--until", "2020-01-01"])
        .await
        .json();
    assert_eq!(json["total"]["spent"]["count"], 0);
    let json = reported(
        &harness,
        &[
            "--format",
            "json",
            "--host",
            "*.example.com",
            "--since",
            "2020-01-01T00:00:00Z",
        ],
    )
    .await;
    assert_eq!(json.json()["total"]["spent"]["count"], 0);
    let csv = reported(&harness, &["--format", "csv"]).await;
    assert!(
        csv.text().starts_with("by,name,spent,spent_usd,"),
        "{csv:?}"
    );
    assert!(
        csv.text().contains("\r\nagent,forecaster,1,0.01,"),
        "{csv:?}"
    );

    let page = harness.path("spending.html");
    let ended = reported(
        &harness,
        &["--format", "html", "--out", page.to_str().unwrap()],
    )
    .await;
    assert_eq!((ended.code, ended.text()), (0, ""), "{ended:?}");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(
        page.starts_with("<!DOCTYPE html>")
            && page.contains("data-figure=\"card.spent.usd\">0.02<"),
        "{page}"
    );
}

#[tokio::test]
async fn the_zone_comes_from_the_option_or_else_from_the_policy() {
    let harness = bought().await;
    let policy = harness.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[global]\ncalendar = { period = \"day\", zone = \"Europe/Berlin\", max = \"5 USD\" }\n",
    );
    let checked = harness.run(&["policy", "check", &policy]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let zone = |json: serde_json::Value| json["selection"]["zone"].as_str().unwrap().to_owned();
    assert_eq!(
        zone(
            reported(&harness, &["--format", "json", "--policy", &policy])
                .await
                .json()
        ),
        "Europe/Berlin"
    );
    assert_eq!(
        zone(
            reported(&harness, &["--format", "json", "--zone", "Asia/Tokyo"])
                .await
                .json()
        ),
        "Asia/Tokyo"
    );
    assert_eq!(
        zone(reported(&harness, &["--format", "json"]).await.json()),
        "UTC"
    );
}

#[tokio::test]
async fn a_wrong_option_is_reported() {
    let harness = bought().await;
    for args in [
        &["--since", "yesterday"][..],
        &["--zone", "Europe/Atlantis"],
        &["--host", "https://example.com"],
        &["--days", "0"],
        &["--days", "3", "--since", "2026-01-01"],
    ] {
        let ended = reported(&harness, args).await;
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty());
    }
    let ended = reported(&harness, &["--out", "no/such/directory/page.html"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let ended = harness.run(&["report", "--ledger", "nothing.db"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        !harness.path("nothing.db").exists(),
        "a report creates no ledger"
    );
}

#[tokio::test]
async fn an_unresolved_payment_is_not_reported_as_paid() {
    let harness = CliHarness::new(
        Route::get("/report")
            .price(usd!("0.01"))
            .fault(Fault::ServerErrorAfterSettle),
    )
    .await;
    assert_eq!(harness.buy(&[]).await.code, 4);
    let json = reported(&harness, &["--format", "json"]).await.json();
    let count = |part: &str| json["total"][part]["count"].as_u64().unwrap();
    assert_eq!(
        (
            count("spent"),
            count("paid"),
            count("outstanding"),
            count("failed")
        ),
        (1, 0, 1, 1)
    );
    assert_eq!(json["unresolved"][0]["state"], "unresolved");
}
