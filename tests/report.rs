//! Reports against the books of a real ledger, and against sums made the simple way.
#![expect(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::BTreeMap;
use std::time::Duration;

use bursar::ledger::{Refund, State};
use bursar::primitives::{B256, U256};
use bursar::report::{Dimension, Group, Report, Selection, Sum, Zone};
use bursar::{
    Address, Client, Ledger, LocalSigner, Network, Policy, Purchase, RetryPolicy, Timestamp, Usd,
    usd,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{self, bought, purchases};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

fn client(ledger: Ledger) -> Client {
    paywall::client()
        .policy(paywall::policy().lifetime(usd!("1")))
        .ledger(ledger)
        .agent("forecaster")
        .retry_policy(RetryPolicy::once())
        .build()
        .unwrap()
}

/// A purchase, changed.
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

fn group<'a>(report: &'a Report, by: Dimension, name: &str) -> &'a Group {
    report
        .by(by)
        .iter()
        .find(|group| group.name.as_deref() == Some(name))
        .unwrap()
}

#[tokio::test]
async fn what_was_bought_is_what_the_report_says() {
    let seller = Paywall::builder()
        .route(Route::get("/weather").price(usd!("0.01")))
        .route(
            Route::get("/map")
                .price(usd!("0.03"))
                .fault(Fault::DropAfterSettle),
        )
        .route(
            Route::get("/refused")
                .price(usd!("0.02"))
                .fault(Fault::DoublePrice),
        )
        .route(Route::get("/broken").price(usd!("0.04")).status(500))
        .start()
        .await
        .unwrap();
    let files = tempfile::tempdir().unwrap();
    let client = client(Ledger::sqlite(files.path().join("ledger.db")).unwrap());
    for (path, tag) in [
        ("/weather", "daily"),
        ("/weather", "daily"),
        ("/map", "maps"),
        ("/refused", "maps"),
    ] {
        drop(client.get(seller.url(path)).tag(tag).send().await);
    }
    drop(client.get(seller.url("/broken")).send().await);
    let report = client
        .ledger()
        .unwrap()
        .report(&Selection::new())
        .await
        .unwrap()
        .with_budget(client.budget().await.unwrap());
    let total = &report.total;
    let counted = |sum: &Sum| (sum.count, sum.usd);
    let failed: Vec<Purchase> = purchases(&client).await;
    let naive = failed
        .iter()
        .filter(|purchase| purchase.failed())
        .map(|purchase| purchase.usd.unwrap().micros())
        .sum();
    assert_eq!(counted(&total.spent), (5, usd!("0.11")));
    assert_eq!(counted(&total.refused), (1, usd!("0.02")));
    assert_eq!(total.failed.usd, Usd::from_micros(naive));
    assert_eq!(
        total.paid.usd.checked_add(total.outstanding.usd),
        Some(usd!("0.11")),
        "nothing has expired yet"
    );
    assert_eq!(
        total.held.count + total.freed.count + total.released.count + total.expired.count,
        0
    );
    assert_eq!(
        counted(&group(&report, Dimension::Tag, "daily").tally.paid),
        (2, usd!("0.02"))
    );
    assert_eq!(
        counted(&group(&report, Dimension::Tag, "maps").tally.outstanding),
        (2, usd!("0.05"))
    );
    assert_eq!(group(&report, Dimension::Host, "127.0.0.1").tally, *total);
    assert_eq!(group(&report, Dimension::Agent, "forecaster").tally, *total);
    assert_eq!(group(&report, Dimension::Means, "payment").tally, *total);
    let token = total.spent.tokens.values().next().unwrap();
    assert_eq!(token.to_string(), "0.11 USDC on base-sepolia");
    let lifetime = report
        .budget
        .iter()
        .find(|finding| finding.name == "global lifetime")
        .unwrap();
    assert_eq!(lifetime.left.as_ref().unwrap().to_string(), "0.89 USD");
    let open: Vec<State> = report.unresolved.iter().map(|open| open.state).collect();
    assert!(
        open.contains(&State::Unresolved) && open.contains(&State::Rejected),
        "{open:?}"
    );
}

/// What a random purchase is made of.
#[derive(Clone, Debug)]
struct Draw {
    state: State,
    value: u64,
    coin: u8,
    host: u8,
    tag: Option<u8>,
    day: i64,
    expired: bool,
    back: u64,
    status: Option<u16>,
}

fn draws() -> impl Strategy<Value = Vec<Draw>> {
    use State::{
        ApiCall, Rejected, ReleasedByProof, Reserved, Settled, Signed, Unresolved, Voided,
    };
    const STATES: [State; 8] = [
        ApiCall,
        Voided,
        Rejected,
        ReleasedByProof,
        Reserved,
        Settled,
        Signed,
        Unresolved,
    ];
    let draw = (
        prop::sample::select(&STATES[..]),
        prop_oneof![0..5_u64, any::<u64>()],
        0..3_u8,
        0..4_u8,
        prop::option::of(0..3_u8),
        -40..40_i64,
        any::<bool>(),
        prop_oneof![Just(0), any::<u64>()],
        prop::option::of(prop::sample::select(&[200_u16, 402, 500][..])),
    );
    let draw = draw.prop_map(
        |(state, value, coin, host, tag, day, expired, back, status)| Draw {
            state,
            value,
            coin,
            host,
            tag,
            day,
            expired,
            back,
            status,
        },
    );
    prop::collection::vec(draw, 0..40)
}

fn purchase(model: &Purchase, seq: usize, draw: &Draw) -> Purchase {
    let mut purchase = model.clone();
    purchase.seq = seq as u64;
    purchase.state = draw.state;
    purchase.value = U256::from(draw.value);
    // Two tokens with a dollar value, and one without.
    purchase.asset = Address::repeat_byte(draw.coin);
    purchase.usd = (draw.coin < 2).then(|| Usd::from_micros(draw.value));
    purchase.origin = format!("https://host{}.example", draw.host)
        .parse()
        .unwrap();
    purchase.tag = draw.tag.map(|tag| format!("tag{tag}"));
    purchase.credential = (draw.state == State::ApiCall).then(|| "key".to_owned());
    purchase.reserved_at = Timestamp::from_millis(NOW.millis() + draw.day * 86_400_000);
    let edge = if draw.expired {
        NOW.before(Duration::from_millis(1))
    } else {
        NOW.after(Duration::from_millis(1))
    };
    (purchase.expires_at, purchase.lease_until) = (edge, edge);
    purchase.status = draw.status;
    purchase.refunds = if draw.back == 0 {
        vec![]
    } else {
        vec![Refund::new(B256::ZERO, U256::from(draw.back), NOW, false)]
    };
    purchase
}

/// Count, micro-dollars and atomic units of those that a condition holds for.
fn naive(draws: &[Draw], holds: impl Fn(&Draw) -> bool) -> (u64, u128, u128) {
    let of = |draw: &&Draw| holds(draw);
    let dollars = |draw: &Draw| {
        if draw.coin < 2 {
            u128::from(draw.value.min(i64::MAX as u64))
        } else {
            0
        }
    };
    (
        draws.iter().filter(of).count() as u64,
        draws.iter().filter(of).map(dollars).sum(),
        draws
            .iter()
            .filter(of)
            .map(|draw| u128::from(draw.value))
            .sum(),
    )
}

fn summed(sum: &Sum) -> (u64, u128, u128) {
    let units: U256 = sum.tokens.values().map(|token| token.units).sum();
    (
        sum.count,
        u128::from(sum.usd.micros()),
        units.try_into().unwrap(),
    )
}

/// Sums in dollars are held at the largest amount, and say so.
fn agrees(sum: &Sum, (count, usd, units): (u64, u128, u128)) -> Result<(), TestCaseError> {
    let most = u128::from(Usd::MAX.micros());
    prop_assert_eq!(summed(sum), (count, usd.min(most), units));
    prop_assert_eq!(sum.exact, usd <= most);
    Ok(())
}

fn is_open(draw: &Draw) -> bool {
    matches!(
        draw.state,
        State::Signed | State::Rejected | State::Unresolved
    )
}

fn is_spent(draw: &Draw) -> bool {
    is_open(draw) || matches!(draw.state, State::Settled | State::ApiCall)
}

#[test]
fn sums_are_those_made_the_simple_way() {
    let model = bought();
    proptest!(ProptestConfig::with_cases(256), |(draws in draws())| {
        let purchases: Vec<Purchase> = draws.iter().enumerate().map(|(seq, draw)| purchase(&model, seq, draw)).collect();
        let report = everything(&purchases);
        let total = &report.total;
        agrees(&total.spent, naive(&draws, is_spent))?;
        agrees(&total.paid, naive(&draws, |draw| draw.state == State::Settled))?;
        agrees(&total.called, naive(&draws, |draw| draw.state == State::ApiCall))?;
        agrees(&total.outstanding, naive(&draws, |draw| is_open(draw) && !draw.expired))?;
        agrees(&total.expired, naive(&draws, |draw| is_open(draw) && draw.expired))?;
        agrees(&total.held, naive(&draws, |draw| draw.state == State::Reserved && !draw.expired))?;
        agrees(&total.released, naive(&draws, |draw| draw.state == State::ReleasedByProof))?;
        let freed = |draw: &Draw| draw.state == State::Voided || (draw.state == State::Reserved && draw.expired);
        agrees(&total.freed, naive(&draws, freed))?;
        agrees(&total.refused, naive(&draws, |draw| draw.state == State::Rejected))?;
        let failed = |draw: &Draw| match draw.state {
            State::Unresolved => draw.status != Some(200),
            State::Settled => draw.status.is_some_and(|status| status != 200),
            _ => false,
        };
        agrees(&total.failed, naive(&draws, failed))?;
        // What came back is at most what was paid, in units and in dollars.
        let back: u128 = draws.iter().map(|draw| u128::from(draw.back.min(draw.value))).sum();
        prop_assert_eq!(summed(&total.refunded).2, back);

        // Every dimension cuts the same whole into parts that do not overlap.
        for by in [Dimension::Day, Dimension::Host, Dimension::Payee, Dimension::Tag, Dimension::Agent, Dimension::Means] {
            let groups = report.by(by);
            let sum = |of: fn(&Group) -> &Sum| groups.iter().map(|group| summed(of(group)).2).sum::<u128>();
            prop_assert_eq!(sum(|group| &group.tally.spent), summed(&total.spent).2, "{}", by);
            prop_assert_eq!(sum(|group| &group.tally.freed), summed(&total.freed).2, "{}", by);
            let names: Vec<_> = groups.iter().map(|group| &group.name).collect();
            prop_assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), names.len());
        }
        // The same books, in whatever order, make the same report.
        let mut shuffled = purchases.clone();
        shuffled.reverse();
        prop_assert_eq!(serde_json::to_string(&report).unwrap(), serde_json::to_string(&everything(&shuffled)).unwrap());
    });
}

#[test]
fn a_selection_takes_what_meets_all_of_its_conditions() {
    let model = bought();
    let mut purchases = Vec::new();
    for (seq, (host, tag, agent, at)) in [
        ("a.example", Some("x"), Some("one"), "2026-03-28T23:30:00Z"),
        (
            "b.a.example",
            Some("x"),
            Some("two"),
            "2026-03-29T21:59:59Z",
        ),
        ("a.example", None, Some("one"), "2026-03-29T22:00:00Z"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut purchase = with(model.clone(), |purchase| {
            purchase.seq = seq as u64;
        });
        purchase.origin = format!("https://{host}").parse().unwrap();
        (purchase.tag, purchase.agent) = (tag.map(str::to_owned), agent.map(str::to_owned));
        purchase.reserved_at = Zone::default().moment(at).unwrap();
        purchases.push(purchase);
    }
    let count = |selection: &Selection| of(&purchases, selection).total.spent.count;
    let berlin = Zone::named("Europe/Berlin").unwrap();
    assert_eq!(count(&Selection::new()), 3);
    assert_eq!(
        count(&Selection::new().host("a.example".parse().unwrap())),
        2
    );
    assert_eq!(
        count(
            &Selection::new()
                .host("*.a.example".parse().unwrap())
                .tag("x")
        ),
        1
    );
    assert_eq!(count(&Selection::new().tag("x").agent("one")), 1);
    // The day that Berlin goes to summer time has 23 hours, and begins an hour before UTC's.
    let day = (
        berlin.moment("2026-03-29").unwrap(),
        berlin.moment("2026-03-30").unwrap(),
    );
    assert_eq!(day.1.millis() - day.0.millis(), 23 * 3_600_000);
    assert_eq!(count(&Selection::new().since(day.0).until(day.1)), 2);
    let days = |zone: Zone| {
        let report = of(&purchases, &Selection::new().zone(zone));
        report
            .by(Dimension::Day)
            .iter()
            .map(|day| (day.name.clone().unwrap(), day.tally.spent.count))
            .collect::<Vec<_>>()
    };
    let named = |days: &[(&str, u64)]| {
        days.iter()
            .map(|(day, n)| ((*day).to_owned(), *n))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        days(Zone::default()),
        named(&[("2026-03-28", 1), ("2026-03-29", 2)])
    );
    assert_eq!(
        days(berlin.clone()),
        named(&[("2026-03-29", 2), ("2026-03-30", 1)])
    );
    assert_eq!(berlin.last_days(2, purchases[2].reserved_at), Some(day.0));
    assert!(Zone::named("Europe/Atlantis").is_err());
    assert_eq!(Zone::default().moment("yesterday"), None);
}

/// A reader of RFC 4180, as small as it can be.
fn read_csv(text: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => field.push(chars.next().unwrap()),
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut field)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut field));
                rows.push(std::mem::take(&mut row));
            }
            c => field.push(c),
        }
    }
    rows
}

#[test]
fn csv_has_every_group_and_no_formula() {
    let model = bought();
    let evil = [
        "=cmd|' /C calc'!A0",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "a,\"b\"\r\nc",
    ];
    let tagged = |(seq, tag): (usize, &&str)| {
        with(model.clone(), |purchase| {
            purchase.seq = seq as u64;
            purchase.tag = Some((*tag).to_owned());
        })
    };
    let purchases: Vec<Purchase> = evil.iter().enumerate().map(tagged).collect();
    let rows = read_csv(&everything(&purchases).to_csv());
    assert!(
        rows.iter().all(|row| row.len() == rows[0].len()),
        "{rows:?}"
    );
    assert_eq!(rows[1][..4], ["total", "", "6", "0.06"]);
    let column = |name: &str| rows[0].iter().position(|head| head == name).unwrap();
    let tags: Vec<&String> = rows
        .iter()
        .filter(|row| row[0] == "tag")
        .map(|row| &row[column("name")])
        .collect();
    assert_eq!(tags.len(), 6);
    assert!(
        tags.contains(&&r#"a,"b"\u{d}\u{a}c"#.to_owned())
            && tags.contains(&&"'=cmd|' /C calc'!A0".to_owned()),
        "{tags:?}"
    );
    assert!(
        !rows
            .iter()
            .flatten()
            .any(|field| field.starts_with(['=', '+', '-', '@', '\t'])),
        "{rows:?}"
    );
    assert!(
        rows.iter()
            .any(|row| row[0] == "tag" && row[column("tokens")] == "0.01 USDC on base-sepolia")
    );
}

#[test]
fn json_has_exact_text_for_all_money() {
    let report = everything(&[with(bought(), |purchase| {
        purchase.value = U256::MAX;
        purchase.usd = Some(Usd::MAX);
    })]);
    let json = serde_json::to_value(&report).unwrap();
    let spent = &json["total"]["spent"];
    assert_eq!(spent["usd"], "9223372036854.775807");
    assert_eq!(spent["tokens"][0]["units"], U256::MAX.to_string());
    assert_eq!(json["selection"]["zone"], "UTC");
    assert_eq!(json["sections"][0]["by"], "day");
}

#[test]
fn values_of_any_size_are_reported() {
    let huge = with(bought(), |purchase| {
        purchase.value = U256::MAX;
        purchase.usd = Some(Usd::MAX);
        purchase.refunds = vec![];
    });
    let refund = Refund::new(B256::ZERO, U256::MAX, NOW, false);
    let back = with(huge.clone(), |purchase| {
        purchase.seq = 2;
        purchase.refunds = vec![refund];
    });
    let report = everything(&[huge, back]);
    let (spent, refunded) = (&report.total.spent, &report.total.refunded);
    assert_eq!((spent.usd, spent.exact, spent.count), (Usd::MAX, false, 2));
    assert_eq!(refunded.tokens.values().next().unwrap().units, U256::MAX);
    assert!(
        refunded.usd <= Usd::MAX && refunded.usd.micros() > Usd::MAX.micros() / 2,
        "{refunded:?}"
    );
    let far = with(bought(), |purchase| {
        purchase.reserved_at = Timestamp::from_millis(i64::MAX);
    });
    assert_eq!(everything(&[far]).by(Dimension::Day)[0].name, None);
}

#[test]
fn any_ledger_can_be_reported() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let client = Client::builder()
        .signer(LocalSigner::random().unwrap())
        .policy(Policy::new().allow_network(Network::from_chain_id(84_532)))
        .ledger(Ledger::memory())
        .build()
        .unwrap();
    let report = runtime
        .block_on(client.ledger().unwrap().report(&Selection::new()))
        .unwrap();
    assert_eq!((report.total.spent.count, report.unresolved.len()), (0, 0));
    let names: BTreeMap<&str, usize> = report
        .sections
        .iter()
        .map(|section| (section.by.name(), section.groups.len()))
        .collect();
    assert_eq!(names.len(), 6);
}

#[tokio::test]
async fn a_report_sums_up_the_groups_that_it_does_not_list() {
    const MANY: u64 = 2100;
    let seller = paywall::open(paywall::report()).await;
    let client = client(Ledger::memory());
    client.get(seller.url("/report")).send().await.unwrap();
    let purchase = purchases(&client).await.remove(0);
    let cent = Usd::from_micros(10_000);
    let many: Vec<Purchase> = (1..=MANY)
        .map(|seq| {
            with(purchase.clone(), |purchase| {
                purchase.seq = seq;
                purchase.tag = Some(format!("tag-{seq}"));
                purchase.state = State::Unresolved;
            })
        })
        .collect();
    let again = with(many[0].clone(), |purchase| purchase.seq = MANY + 1);
    let report = everything(&[many, vec![again]].concat());
    let tags = report
        .sections
        .iter()
        .find(|section| section.by == Dimension::Tag)
        .unwrap();
    assert_eq!(tags.groups.len(), 2000);
    // A group that is listed has all of its purchases, also those after the last new group.
    let first = group(&report, Dimension::Tag, "tag-1");
    assert_eq!(first.tally.spent.count, 2);
    let others = &tags.others.as_ref().unwrap().spent;
    assert_eq!(
        (others.count, others.usd),
        (100, Usd::from_micros(100 * cent.micros()))
    );
    assert_eq!(report.total.spent.count, MANY + 1);
    assert_eq!(
        (report.unresolved.len(), report.more_unresolved),
        (1000, MANY + 1 - 1000)
    );
    let host = report
        .sections
        .iter()
        .find(|section| section.by == Dimension::Host);
    assert!(host.unwrap().others.is_none());
    let csv = report.to_csv();
    let lines: Vec<&str> = csv
        .lines()
        .filter(|line| line.starts_with("others,"))
        .collect();
    assert!(
        matches!(lines.as_slice(), [line] if line.starts_with("others,tag,100,1.00,")),
        "{lines:?}"
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["more_unresolved"], MANY + 1 - 1000);
}
