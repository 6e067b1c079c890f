//! A large ledger in a file: reading it takes little memory, and no payment waits for it.
//!
//! 20,000 purchases in a normal run; a million by
//! `BURSAR_LEDGER_PURCHASES=1000000 cargo test --release -p bursar-tests --test large_ledger -- --nocapture`.

#![cfg(target_os = "linux")]
#![expect(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    clippy::print_stdout,
    reason = "tests"
)]

use std::path::Path;
use std::time::{Duration, Instant};

use bursar::credential::CallPlan;
use bursar::ledger::{Filter, State, write_jsonl};
use bursar::report::Selection;
use bursar::{Client, Ledger, usd};
use bursar_tests::paywall::{client, open, policy, report};
use rusqlite::Connection;

/// The memory that reading may take, in KiB. All of 20,000 purchases take 140,000.
const MEMORY: u64 = 40_000;
/// Bytes of terms and payload of each purchase.
const LONG: u64 = 2000;

fn count() -> u64 {
    let count = std::env::var("BURSAR_LEDGER_PURCHASES");
    count.map_or(20_000, |count| count.parse().unwrap())
}

/// Copies the first purchase until there are `purchases`, settled, over the last thirty days. Every tenth is a call
/// with an API key.
fn fill(path: &Path, purchases: u64) {
    let file = Connection::open(path).unwrap();
    let columns: Vec<String> = {
        let mut columns = file
            .prepare("SELECT name FROM pragma_table_info('purchases')")
            .unwrap();
        let names = columns.query_map([], |row| row.get(0)).unwrap();
        names.collect::<Result<_, _>>().unwrap()
    };
    let month = 86_400_000_u64 * 30;
    let at = format!(
        "p.reserved_at - {month} + (n * {}) % {month}",
        month / purchases
    );
    let if_call = |call: &str, otherwise: &str| {
        format!("CASE WHEN n % 10 = 0 THEN {call} ELSE {otherwise} END")
    };
    let zeros = "0".repeat(64);
    let long = format!("hex(zeroblob({}))", LONG / 2);
    let values = columns.iter().map(|column| match column.as_str() {
        "seq" => "n".to_owned(),
        "purchase" => "'bulk-' || n".to_owned(),
        "nonce" | "fingerprint" => format!("'0x' || substr('{zeros}' || n, -64)"),
        "state" => if_call("'api_call'", "'settled'"),
        "credential" => if_call("'key'", "NULL"),
        "tag" => "'tag-' || n".to_owned(),
        "live" | "usd_micros" => "1".to_owned(),
        "terms" => if_call("NULL", &format!("'\"' || {long} || '\"'")),
        "payload" => if_call("NULL", &long),
        "reserved_at" | "counts_at" | "updated_at" => at.clone(),
        "expires_at" => format!("{at} + 360000"),
        other => other.to_owned(),
    });
    file.execute_batch(&format!(
        "PRAGMA synchronous = OFF; BEGIN; DELETE FROM totals;
         INSERT INTO purchases ({}) SELECT {} FROM purchases p, (WITH RECURSIVE numbers (n) AS
            (SELECT (SELECT max(seq) + 1 FROM purchases) UNION ALL SELECT n + 1 FROM numbers WHERE n < {purchases})
            SELECT n FROM numbers) WHERE p.seq = 1;
         COMMIT; PRAGMA wal_checkpoint(TRUNCATE)",
        columns.join(", "),
        values.collect::<Vec<_>>().join(", "),
    ))
    .unwrap();
}

/// Returns a figure of this process, in KiB.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .unwrap();
    line.trim_matches([':', ' ', '\t', 'k', 'B'])
        .parse()
        .unwrap()
}

/// Does some reading, and returns the most memory that it took, in KiB.
async fn measured<T>(name: &str, work: impl Future<Output = T>) -> T {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let (before, began) = (memory("VmRSS"), Instant::now());
    let done = work.await;
    let taken = memory("VmHWM").saturating_sub(before);
    println!("{name}: {:?}, {taken} KiB", began.elapsed());
    assert!(taken < MEMORY, "{name} took {taken} KiB");
    done
}

async fn buy(client: &Client, url: &str, number: usize) {
    let mut url: bursar::Url = url.parse().unwrap();
    url.set_query(Some(&number.to_string()));
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_ledger_is_read_in_little_memory_while_payments_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let seller = open(report()).await;
    let url = seller.url("/report").to_string();
    let open_client = || {
        let ledger = Ledger::sqlite(&path).unwrap();
        client().ledger(ledger).build().unwrap()
    };
    buy(&open_client(), &url, 0).await;
    let purchases = count();
    fill(&path, purchases);

    let client = open_client();
    let ledger = client.payer().unwrap().ledger().clone();
    // The totals of the limits begin.
    buy(&client, &url, 1).await;
    let all = purchases + 1;
    let report = measured("report", ledger.report(&Selection::new()))
        .await
        .unwrap();
    assert_eq!(report.total.spent.count, all);
    let tags = report
        .sections
        .iter()
        .find(|section| section.by.name() == "tag")
        .unwrap();
    let others = tags.others.as_ref().map_or(0, |others| others.spent.count);
    assert_eq!((tags.groups.len(), others), (2000, all - 2000 - 1));

    let now = report.at;
    let today = Selection::new().since(bursar::Timestamp::from_millis(now.millis() - 86_400_000));
    let today = measured("report of a day", ledger.report(&today))
        .await
        .unwrap();
    assert!(today.total.spent.count < all / 20);

    let plan: CallPlan = "monthly=1,included=10".parse().unwrap();
    let host = url::host(&url);
    let compared = measured("compare", ledger.compare(&host, &plan))
        .await
        .unwrap();
    assert_eq!(compared.payments + compared.calls, all);

    let id = format!("bulk-{}", purchases / 2).parse().unwrap();
    let found = measured("purchase by id", ledger.purchase_by_id(&id))
        .await
        .unwrap();
    assert_eq!(found.unwrap().id, id);

    let mut exported = Filter::all();
    exported.state = Some(State::Settled);
    let listed = measured("export", async {
        let (mut pages, mut count) = (ledger.pages(&exported), 0);
        while let Some(page) = pages.next().await.unwrap() {
            write_jsonl(&page, std::io::sink()).unwrap();
            count += page.len();
        }
        count
    })
    .await;
    assert_eq!(u64::try_from(listed).unwrap(), all - purchases / 10);

    let mut newest = Filter::all();
    newest.last = Some(20);
    let listed = measured("the last ones", ledger.purchases(&newest))
        .await
        .unwrap();
    assert_eq!(listed.len(), 20);
    assert_eq!(listed[19].seq, all);

    let budget = measured("budget", client.payer().unwrap().budget())
        .await
        .unwrap();
    assert!(!budget.is_empty());

    let mut steps = Vec::new();
    let verified = measured(
        "verify",
        ledger.verify_with_progress(None, |rows| steps.push(u64::try_from(rows).unwrap())),
    )
    .await
    .unwrap();
    assert_eq!(verified.purchases, all);
    // The copies have no events, and not every fault is listed.
    assert_eq!(verified.fault_count, purchases - 1);
    assert_eq!(verified.faults.len(), 1000);
    // A program can show how far the check is.
    assert_eq!(steps.iter().sum::<u64>(), all + verified.events);
    assert!(steps.iter().all(|rows| *rows <= all / 10));

    // Payments while a report runs. On a busy machine, a report can end before the first payment.
    let mut number = 2;
    let mut paid = 0;
    for _ in 0..3 {
        let (reading, selection) = (ledger.clone(), Selection::new());
        let running = tokio::spawn(async move { reading.report(&selection).await });
        let mut longest = Duration::ZERO;
        while !running.is_finished() && paid < 20 {
            let began = Instant::now();
            buy(&client, &url, number).await;
            number += 1;
            if running.is_finished() {
                break;
            }
            longest = longest.max(began.elapsed());
            paid += 1;
        }
        println!("{paid} payments during a report, the longest took {longest:?}");
        running.await.unwrap().unwrap();
        if paid > 0 {
            break;
        }
    }
    assert!(paid > 0, "the payment waited for the report");
}

/// Sums that are kept then differ from the rows.
#[tokio::test]
async fn a_row_that_another_program_changed_ends_no_payment_by_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ledger.db");
    let seller = open(report()).await;
    let url = seller.url("/report").to_string();
    let ledger = Ledger::sqlite(&path).unwrap();
    let client = client()
        .policy(policy().lifetime(usd!("100")))
        .ledger(ledger.clone())
        .build()
        .unwrap();
    buy(&client, &url, 0).await;
    Connection::open(&path)
        .unwrap()
        .execute("UPDATE purchases SET usd_micros = usd_micros * 2", [])
        .unwrap();
    buy(&client, &url, 1).await;
    assert!(!ledger.verify(None).await.unwrap().is_sound());
}

mod url {
    pub(super) fn host(url: &str) -> String {
        let url: bursar::Url = url.parse().unwrap();
        url.host_str().unwrap().to_owned()
    }
}
