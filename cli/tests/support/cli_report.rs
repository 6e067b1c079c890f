//! `bursar report`.

use super::bench::{CliHarness, Ended, report};
use bursar::usd;
use bursar_testing::{Fault, Route};

/// A bench whose books hold two reports that were paid for, one with a tag.
async fn bought() -> CliHarness {
    let bench = CliHarness::new(report()).await;
    assert_eq!(bench.buy(&["--tag", "daily"]).await.code, 0);
    assert_eq!(bench.buy(&["--agent", "forecaster"]).await.code, 0);
    bench
}

async fn reported(bench: &CliHarness, args: &[&str]) -> Ended {
    let ledger = bench.path("ledger.db");
    bench
        .run(&[&["report", "--ledger", ledger.to_str().unwrap()][..], args].concat())
        .await
}

#[tokio::test]
async fn the_table_says_where_the_money_went() {
    let bench = bought().await;
    let ended = reported(&bench, &[]).await;
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
        "what is left of the limits: {}",
        ended.text()
    );
    assert!(
        !ended.text().contains('\u{1b}'),
        "no colours where there is no terminal"
    );
}

#[tokio::test]
async fn every_format_and_filter_is_there() {
    let bench = bought().await;
    let json = reported(
        &bench,
        &["--format", "json", "--tag", "daily", "--days", "2"],
    )
    .await
    .json();
    assert_eq!(json["total"]["spent"]["usd"], "0.01");
    assert_eq!(json["selection"]["tag"], "daily");
    let json = reported(&bench, &["--format", "json", "--until", "2020-01-01"])
        .await
        .json();
    assert_eq!(json["total"]["spent"]["count"], 0);
    let json = reported(
        &bench,
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
    let csv = reported(&bench, &["--format", "csv"]).await;
    assert!(
        csv.text().starts_with("by,name,spent,spent_usd,"),
        "{csv:?}"
    );
    assert!(
        csv.text().contains("\r\nagent,forecaster,1,0.01,"),
        "{csv:?}"
    );

    let page = bench.path("spending.html");
    let ended = reported(
        &bench,
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
async fn the_zone_is_the_policy_s_unless_said() {
    let bench = bought().await;
    let policy = bench.file(
        "policy.toml",
        "version = 1\nnetworks = [\"base-sepolia\"]\n[global]\ncalendar = { period = \"day\", zone = \"Europe/Berlin\", max = \"5 USD\" }\n",
    );
    let checked = bench.run(&["policy", "check", &policy]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let zone = |json: serde_json::Value| json["selection"]["zone"].as_str().unwrap().to_owned();
    assert_eq!(
        zone(
            reported(&bench, &["--format", "json", "--policy", &policy])
                .await
                .json()
        ),
        "Europe/Berlin"
    );
    assert_eq!(
        zone(
            reported(&bench, &["--format", "json", "--zone", "Asia/Tokyo"])
                .await
                .json()
        ),
        "Asia/Tokyo"
    );
    assert_eq!(
        zone(reported(&bench, &["--format", "json"]).await.json()),
        "UTC"
    );
}

#[tokio::test]
async fn what_cannot_be_done_is_said() {
    let bench = bought().await;
    for args in [
        &["--since", "yesterday"][..],
        &["--zone", "Europe/Atlantis"],
        &["--host", "https://example.com"],
        &["--days", "0"],
        &["--days", "3", "--since", "2026-01-01"],
    ] {
        let ended = reported(&bench, args).await;
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(!ended.stderr.is_empty());
    }
    let ended = reported(&bench, &["--out", "no/such/directory/page.html"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    let ended = bench.run(&["report", "--ledger", "nothing.db"]).await;
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(
        !bench.path("nothing.db").exists(),
        "a report makes no books"
    );
}

#[tokio::test]
async fn what_may_be_paid_is_not_said_to_be() {
    let bench = CliHarness::new(
        Route::get("/report")
            .price(usd!("0.01"))
            .fault(Fault::ServerErrorAfterSettle),
    )
    .await;
    assert_eq!(bench.buy(&[]).await.code, 4);
    let json = reported(&bench, &["--format", "json"]).await.json();
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
    assert_eq!(json["unresolved"][0]["state"], "unknown");
}
