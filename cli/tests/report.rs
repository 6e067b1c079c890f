//! Reports as tables and as pages.
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

#[path = "../src/render/mod.rs"]
mod render;

use std::time::Duration;

use bursar::ledger::{Refund, State};
use bursar::primitives::{B256, U256};
use bursar::report::{Report, Selection, Zone};
use bursar::{Address, Client, Ledger, LocalSigner, Policy, Purchase, Timestamp, Usd, usd};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall::bought;

/// The place of the limits.
const POLICY: &str = "agent.toml";
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// Returns a changed purchase.
fn with(mut purchase: Purchase, change: impl FnOnce(&mut Purchase)) -> Purchase {
    change(&mut purchase);
    purchase
}

fn of(purchases: &[Purchase], selection: &Selection) -> Report {
    Report::of(purchases, selection, NOW)
}

fn everything(purchases: &[Purchase]) -> Report {
    of(purchases, &Selection::new())
}

/// Returns the table in colours.
fn coloured(report: &Report, columns: Option<u16>) -> String {
    let style = |color: anstyle::AnsiColor| color.on_default();
    let colours = render::Colours {
        good: style(anstyle::AnsiColor::Green),
        open: style(anstyle::AnsiColor::Yellow),
        bad: style(anstyle::AnsiColor::Red),
    };
    render::coloured_table(report, POLICY, columns, Some(&colours))
}

#[test]
fn an_empty_ledger_gives_an_empty_report() {
    let report = everything(&[]);
    assert!(
        render::table(&report, POLICY, None).contains("spent"),
        "{}",
        render::table(&report, POLICY, None)
    );
    assert_eq!(report.to_csv().lines().count(), 2);
    let page = render::html(&report, POLICY);
    assert!(
        page.contains("Nothing was spent") && !page.contains("<svg"),
        "{page}"
    );
}

#[test]
fn one_purchase_makes_a_table_and_a_chart() {
    let report = everything(&[bought()]);
    let table = render::table(&report, POLICY, None);
    assert!(
        table.contains("127.0.0.1") && table.contains("0.01"),
        "{table}"
    );
    let page = render::html(&report, POLICY);
    assert!(
        page.contains("data-figure=\"host/127.0.0.1/spent.usd\">0.01<"),
        "{page}"
    );
    assert_eq!(
        page.matches("<svg").count(),
        2,
        "a chart of days, wide and narrow; a ranking needs two names"
    );
}

#[test]
fn a_table_keeps_to_the_width_of_its_terminal() {
    let long = with(bought(), |purchase| {
        purchase.tag = Some("a tag of many words ".repeat(6));
    });
    let report = everything(&[long]);
    let table = render::table(&report, POLICY, Some(80));
    let widest = table
        .lines()
        .skip(1)
        .map(|line| line.chars().count())
        .max()
        .unwrap();
    assert!(widest <= 80, "{widest}: {table}");
    assert!(!table.contains('\u{1b}'), "no colours");
}

#[test]
fn colours_change_nothing_but_the_colour_of_a_table() {
    let open = with(bought(), |purchase| {
        purchase.tag = Some("\u{2063}a tag\u{2064} with marks \u{1b}[31m".repeat(3));
        (purchase.state, purchase.expires_at) =
            (State::Unresolved, NOW.after(Duration::from_secs(9)));
    });
    let rejected = with(bought(), |purchase| purchase.state = State::Rejected);
    let report = everything(&[bought(), open, rejected]);
    for columns in [None, Some(200), Some(80), Some(50), Some(20), Some(1)] {
        let plain = render::table(&report, POLICY, columns);
        assert!(!plain.contains(['\u{1b}', '\u{2061}', '\u{2063}', '\u{2064}']));
        let coloured = coloured(&report, columns);
        let stripped = anstream::adapter::strip_str(&coloured).to_string();
        assert_eq!(stripped, plain, "{columns:?}");
    }
    let coloured = coloured(&report, Some(200));
    for cell in [
        "\u{1b}[32mpaid\u{1b}[0m",
        "\u{1b}[33munresolved\u{1b}[0m",
        "\u{1b}[31m1\u{1b}[0m",
    ] {
        assert!(coloured.contains(cell), "{cell} in {coloured:?}");
    }
}

#[test]
fn a_name_from_a_stranger_is_only_text() {
    let evil = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>\u{1b}[31m\u{202e}";
    let mut purchase = with(bought(), |purchase| {
        purchase.tag = Some(evil.to_owned());
        purchase.symbol = evil.to_owned();
    });
    purchase.agent = Some("</title></style><script>".to_owned());
    (purchase.state, purchase.expires_at) = (State::Unresolved, NOW.after(Duration::from_secs(9)));
    let report = of(&[purchase], &Selection::new().tag(evil));
    let page = render::html(&report, POLICY);
    let lower = page.to_lowercase();
    assert!(
        !lower.contains("<script") && !lower.contains("<img"),
        "{page}"
    );
    assert_eq!(
        lower.matches("</title>").count(),
        1 + lower.matches("<svg").count()
    );
    assert_eq!(lower.matches("</style>").count(), 1);
    assert!(page.contains("&lt;script&gt;"));
    let table = render::table(&report, POLICY, None);
    assert!(
        !table.contains('\u{1b}') && !table.contains('\u{202e}'),
        "{table:?}"
    );
    assert!(page.contains("default-src 'none'"));
    assert!(
        !lower.contains("http://")
            || lower
                .replace("http://www.w3.org/2000/svg", "")
                .matches("http://")
                .count()
                <= 1
    );
}

#[test]
fn charts_can_show_any_amount() {
    for (value, usd) in [
        (U256::MAX, Usd::MAX),
        (U256::from(1), Usd::from_micros(1)),
        (U256::ZERO, Usd::ZERO),
    ] {
        let report = everything(&[with(bought(), |purchase| {
            purchase.value = value;
            purchase.usd = Some(usd);
        })]);
        let page = render::html(&report, POLICY);
        assert_eq!(page.contains("<svg"), usd > Usd::ZERO);
        assert!(page.contains(&format!(">{usd}<")), "{usd}");
    }
    let day = |seq: u64| {
        with(model_of(seq), |purchase| {
            purchase.seq = seq;
            purchase.reserved_at = NOW.after(Duration::from_secs(86_400 * seq));
        })
    };
    let many: Vec<Purchase> = (0..400).map(day).collect();
    let report = everything(&many);
    let page = render::html(&report, POLICY);
    assert!(
        page.contains("the last 92 of 400") && page.contains("the first 10 of 40"),
        "the captions state the number of bars that are left out"
    );
}

#[test]
fn a_served_page_loads_itself_again_unless_it_is_paused() {
    use render::Refresh;
    let report = everything(&[bought()]);
    let every = render::live(&report, POLICY, Refresh::Every { seconds: 9 });
    assert!(
        every.contains("http-equiv=\"refresh\" content=\"9;url=/\""),
        "{every}"
    );
    let paused = render::live(&report, POLICY, Refresh::Paused { seconds: 9 });
    assert!(!paused.contains("http-equiv=\"refresh\""), "{paused}");
    let failed = render::failed("<script>no ledger</script>\u{202e}", 9);
    assert!(failed.contains("http-equiv=\"refresh\"") && failed.contains("&lt;script&gt;"));
    assert!(!failed.contains('\u{202e}'), "{failed}");
    assert!(!render::html(&report, POLICY).contains("http-equiv=\"refresh\""));
}

/// Writes the pages that `.ci/run report` checks in a browser, each with the figures that it must show.
#[test]
fn pages_are_written_for_the_browser() {
    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    drop(std::fs::remove_dir_all(&directory));
    std::fs::create_dir_all(&directory).unwrap();
    let huge = with(bought(), |purchase| {
        (purchase.value, purchase.usd) = (U256::MAX, Some(Usd::MAX))
    });
    let twice = with(huge.clone(), |purchase| purchase.seq = 2);
    let pages = [
        ("empty", everything(&[])),
        ("one", everything(&[bought()])),
        ("huge", everything(&[huge, twice])),
        (
            "busy",
            Report::of(
                &busy(),
                &Selection::new().zone(Zone::named("Europe/Berlin").unwrap()),
                NOW,
            )
            .with_budget(limits()),
        ),
    ];
    for (name, mut report) in pages {
        if name == "busy" {
            report.denials = denials();
        }
        std::fs::write(
            directory.join(format!("{name}.html")),
            render::html(&report, POLICY),
        )
        .unwrap();
        std::fs::write(
            directory.join(format!("{name}.json")),
            serde_json::to_string(&report).unwrap(),
        )
        .unwrap();
    }
}

/// Returns the status of limits of which a quarter, a half and everything is used.
fn limits() -> Vec<bursar::policy::LimitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let seller = Paywall::builder()
            .route(Route::get("/a").price(usd!("0.05")))
            .start()
            .await
            .unwrap();
        let policy = Policy::new()
            .allow_network("base-sepolia")
            .per_payment(usd!("0.05"))
            .lifetime(usd!("0.05"));
        let policy = policy
            .rolling(Duration::from_secs(86_400), usd!("0.20"))
            .tag_limits("research", |tag| tag.lifetime(usd!("0.10")));
        let client = Client::builder()
            .http(
                reqwest::Client::builder()
                    .tls_backend_rustls()
                    .tls_certs_only([]),
            )
            .signer(LocalSigner::random().unwrap())
            .policy(policy)
            .ledger(Ledger::memory())
            .allow_http_loopback(true)
            .build()
            .unwrap();
        client
            .get(seller.url("/a"))
            .tag("research")
            .send()
            .await
            .unwrap();
        client.budget().await.unwrap()
    })
}

/// Returns the counts of denials by two rules.
fn denials() -> Vec<bursar::ledger::DenialCount> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let route = Route::get("/a").price(usd!("0.05"));
        let seller = Paywall::builder().route(route).start().await.unwrap();
        let client = Client::builder()
            .http(
                reqwest::Client::builder()
                    .tls_backend_rustls()
                    .tls_certs_only([]),
            )
            .signer(LocalSigner::random().unwrap())
            .policy(Policy::new().allow_network("base-sepolia"))
            .ledger(Ledger::memory())
            .allow_http_loopback(true)
            .build()
            .unwrap();
        for max in ["0.01", "0.02"] {
            let max: Usd = max.parse().unwrap();
            let denied = client.get(seller.url("/a")).max_price(max).send().await;
            denied.unwrap_err();
        }
        let ledger = client.ledger().unwrap();
        ledger
            .freeze("a reason of many words ".repeat(9))
            .await
            .unwrap();
        client.get(seller.url("/a")).send().await.unwrap_err();
        let denials = ledger.denials().await.unwrap();
        assert_eq!(denials.len(), 2, "{denials:?}");
        denials
    })
}

/// Returns the purchases of four months, with all outcomes and with names of every kind.
fn busy() -> Vec<Purchase> {
    let hosts = [
        "api.weather.example",
        "maps.example",
        "a-host-with-a-long-name.of-many-parts.and-more.example",
        "xn--bcher-kva.example",
    ];
    let tags = [
        Some("daily"),
        Some("<script>alert(1)</script>"),
        None,
        Some("averyveryverylongtagwithoutanyspaceinitwhichmustnotwidenthepage"),
    ];
    let states = [
        State::Settled,
        State::Settled,
        State::Unresolved,
        State::ApiCall,
        State::Rejected,
        State::Settled,
        State::ReleasedByProof,
    ];
    let at = |seq: u64| {
        NOW.before(Duration::from_secs(86_400 * 120))
            .after(Duration::from_secs(seq * 31_000))
    };
    let purchase = |seq: u64| {
        with(model_of(seq), |purchase| {
            purchase.seq = seq;
            purchase.state = states[seq as usize % states.len()];
            purchase.origin = format!("https://{}", hosts[seq as usize % hosts.len()])
                .parse()
                .unwrap();
            purchase.tag = tags[seq as usize % tags.len()].map(ToOwned::to_owned);
            purchase.usd = (!seq.is_multiple_of(11))
                .then(|| Usd::from_micros(1_000 + seq * seq * 37 % 90_000));
            purchase.value = U256::from(purchase.usd.map_or(5, Usd::micros));
            purchase.symbol = if purchase.usd.is_none() {
                "EURC".to_owned()
            } else {
                purchase.symbol.clone()
            };
            purchase.asset = if purchase.usd.is_none() {
                Address::repeat_byte(9)
            } else {
                purchase.asset
            };
            purchase.credential = (purchase.state == State::ApiCall).then(|| "weather".to_owned());
            purchase.reserved_at = at(seq);
            purchase.expires_at = if seq > 320 {
                NOW.after(Duration::from_secs(60))
            } else {
                at(seq + 1)
            };
            purchase.status = Some(if seq.is_multiple_of(13) { 500 } else { 200 });
            purchase.refunds = if seq.is_multiple_of(17) {
                vec![Refund::new(B256::ZERO, U256::from(700), NOW, true)]
            } else {
                vec![]
            };
        })
    };
    (1..334).map(purchase).collect()
}

fn model_of(seq: u64) -> Purchase {
    use std::sync::OnceLock;
    static MODEL: OnceLock<Purchase> = OnceLock::new();
    let mut purchase = MODEL.get_or_init(bought).clone();
    purchase.origin = format!("https://h{}.example", seq % 40).parse().unwrap();
    purchase
}
