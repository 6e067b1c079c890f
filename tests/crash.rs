//! A buyer that is killed with `SIGKILL`, at every step of a purchase and at random, and another that
//! comes after it on the same books: no limit is exceeded by what the chain settled, nothing is paid
//! twice, nothing that reached the wire is unknown to the books, and nothing is stuck.
//!
//! Some hundreds of kills in a normal run; thousands by
//! `BURSAR_CRASH_RUNS=5000 cargo nextest run --test crash`.

#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests"
)]

use std::collections::BTreeSet;
use std::env;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::{
    B256, Checks, Clock, Filter, Finding, Freeze, Ledger, LedgerError, Policy, Purchase,
    PurchaseKey, Reservation, Reserved, Resumption, Signer, SqliteLedger, State, SystemClock,
    Timestamp, Transition, signer_fn,
};
use bursar_testing::{Fault, Paywall};
use bursar_tests::paywall::{self, open, report};
use bursar_tests::signatures::wallet;

/// What the child says when it has come to where it is to be killed.
const THERE: &str = "the step is reached";
/// How many purchases the limit has room for, of how many that are wanted.
const ROOM: usize = 3;
const WANTED: usize = 5;

/// Says so, and waits to be killed.
async fn wait_to_be_killed() {
    println!("{THERE}");
    std::future::pending::<()>().await;
}

/// Books that stop the process before or after the call of this number.
struct Stopping {
    ledger: SqliteLedger,
    calls: AtomicUsize,
    at: Option<(usize, bool)>,
}

impl Stopping {
    async fn around<T>(&self, call: impl Future<Output = T>) -> T {
        let number = self.calls.fetch_add(1, Ordering::SeqCst);
        if self.at == Some((number, true)) {
            wait_to_be_killed().await;
        }
        let answer = call.await;
        if self.at == Some((number, false)) {
            wait_to_be_killed().await;
        }
        answer
    }
}

impl Ledger for Stopping {
    async fn reserve(&self, reservation: &Reservation) -> Result<Reserved, LedgerError> {
        self.around(self.ledger.reserve(reservation)).await
    }

    async fn record(
        &self,
        purchase: &PurchaseKey,
        transition: &Transition,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        self.around(self.ledger.record(purchase, transition, now))
            .await
    }

    async fn resume(&self, wanted: &Resumption) -> Result<Option<Purchase>, LedgerError> {
        self.ledger.resume(wanted).await
    }

    async fn stop(&self, order: Option<&Freeze>) -> Result<(), LedgerError> {
        self.ledger.stop(order).await
    }

    async fn stopped(&self) -> Result<Option<Freeze>, LedgerError> {
        self.ledger.stopped().await
    }

    async fn examine(&self, checks: &Checks) -> Result<Vec<Finding>, LedgerError> {
        self.ledger.examine(checks).await
    }

    async fn purchase(&self, purchase: &PurchaseKey) -> Result<Option<Purchase>, LedgerError> {
        self.ledger.purchase(purchase).await
    }

    async fn purchases(&self, filter: &Filter) -> Result<Vec<Purchase>, LedgerError> {
        self.ledger.purchases(filter).await
    }
}

/// What a child is to do, by its environment.
#[derive(Clone, Debug)]
struct ChildTask {
    url: String,
    ledger: String,
    /// The purchases that are wanted, in this order.
    ids: std::ops::Range<usize>,
    room: usize,
    /// Where to wait to be killed: `reserve and record, by number`, before or after; or the signer.
    at: Option<(usize, bool)>,
    at_signer: bool,
    /// How far the child's clock is ahead, in seconds: past the leases of those that were killed.
    ahead: u64,
}

impl ChildTask {
    fn spawn(&self) -> Child {
        let at = self
            .at
            .map_or_else(String::new, |(number, before)| format!("{number} {before}"));
        Command::new(env::current_exe().unwrap())
            .args([
                "--exact",
                "child",
                "--ignored",
                "--nocapture",
                "--test-threads",
                "1",
            ])
            .env("CRASH_URL", &self.url)
            .env("CRASH_LEDGER", &self.ledger)
            .env("CRASH_IDS", format!("{} {}", self.ids.start, self.ids.end))
            .env("CRASH_ROOM", self.room.to_string())
            .env("CRASH_AT", at)
            .env("CRASH_SIGNER", self.at_signer.to_string())
            .env("CRASH_AHEAD", self.ahead.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs until the child waits to be killed, and kills it; or to its end, if it never comes there.
    fn run(&self) {
        let mut child = self.spawn();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        if said.any(|line| line.unwrap().ends_with(THERE)) {
            child.kill().unwrap();
        }
        child.wait().unwrap();
    }
}

#[test]
#[ignore = "child process of the tests below"]
fn child() {
    let Ok(url) = env::var("CRASH_URL") else {
        return;
    };
    let numbers = |name: &str| -> Vec<usize> {
        env::var(name)
            .unwrap()
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    };
    let at = env::var("CRASH_AT").unwrap();
    let at = at
        .split_once(' ')
        .map(|(number, before)| (number.parse().unwrap(), before == "true"));
    let at_signer = env::var("CRASH_SIGNER").unwrap() == "true";
    let ahead = Duration::from_secs(u64::try_from(numbers("CRASH_AHEAD").remove(0)).unwrap());
    let room = u64::try_from(numbers("CRASH_ROOM").remove(0)).unwrap();
    let ids = numbers("CRASH_IDS");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ledger = SqliteLedger::open(env::var("CRASH_LEDGER").unwrap()).unwrap();
        let wallet = std::sync::Arc::new(wallet());
        let signer = signer_fn(wallet.address(), move |authorization| {
            let wallet = std::sync::Arc::clone(&wallet);
            async move {
                if at_signer {
                    wait_to_be_killed().await;
                }
                wallet.sign(&authorization).await
            }
        });
        let limit = bursar::Usd::from_micros(room * 10_000);
        let client = paywall::client()
            .signer(signer)
            .policy(
                Policy::new()
                    .allow_network("base-sepolia")
                    .without_default_limits()
                    .lifetime(limit),
            )
            .ledger(Stopping {
                ledger,
                calls: AtomicUsize::new(0),
                at,
            })
            .clock(move || SystemClock.now().after(ahead))
            .presentations(1)
            .build()
            .unwrap();
        for id in ids[0]..ids[1] {
            // What becomes of it is in the books and on the chain.
            drop(
                client
                    .get(&url)
                    .purchase_id(&format!("order-{id}"))
                    .send()
                    .await,
            );
        }
    });
}

/// What must hold at every moment, whoever was killed.
async fn check(seller: &Paywall, ledger: &Path, room: usize, about: &str) -> Vec<Purchase> {
    let settlements = seller.settlements();
    assert!(
        settlements.len() <= room,
        "{about}: {} settled, room for {room}",
        settlements.len()
    );
    let ledger = SqliteLedger::open(ledger).unwrap();
    let purchases = ledger.purchases(&Filter::all()).await.unwrap();
    let booked: BTreeSet<B256> = purchases
        .iter()
        .filter(|purchase| purchase.state != State::Voided)
        .map(|purchase| purchase.nonce)
        .collect();
    let paid: BTreeSet<B256> = settlements
        .iter()
        .map(|settlement| settlement.authorization.nonce)
        .collect();
    assert_eq!(
        paid.len(),
        settlements.len(),
        "{about}: the chain takes a nonce once"
    );
    for request in seller.requests() {
        let Some(json) = request.payment.and_then(|payment| payment.json) else {
            continue;
        };
        let nonce: B256 = json["payload"]["authorization"]["nonce"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(
            booked.contains(&nonce),
            "{about}: what reached the wire is in the books"
        );
    }
    let counted = purchases
        .iter()
        .filter(|purchase| purchase.counts(SystemClock.now()))
        .count();
    assert!(counted <= room, "{about}: {counted} count");
    assert!(ledger.verify(None).await.unwrap().is_sound(), "{about}");
    purchases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step() {
    // A purchase reserves, records its signature and its outcome: three calls, on both sides of each.
    let mut places: Vec<(Option<(usize, bool)>, bool)> = (0..6)
        .flat_map(|call| [(Some((call, true)), false), (Some((call, false)), false)])
        .collect();
    places.push((None, true));
    for (at, at_signer) in places {
        let about = format!("{at:?}, signer {at_signer}");
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("ledger.db");
        let seller = open(report().idempotent()).await;
        let task = ChildTask {
            url: seller.url("/report").to_string(),
            ledger: ledger.to_str().unwrap().to_owned(),
            ids: 0..WANTED,
            room: ROOM,
            at,
            at_signer,
            ahead: 0,
        };
        run(&task).await;
        check(&seller, &ledger, ROOM, &about).await;
        // Whoever comes next presents what was signed; what was only held is bought once its lease is
        // over.
        for ahead in [0, 90] {
            run(&ChildTask {
                at: None,
                at_signer: false,
                ahead,
                ..task.clone()
            })
            .await;
        }
        let purchases = check(&seller, &ledger, ROOM, &about).await;
        assert_eq!(
            seller.settlements().len(),
            ROOM,
            "{about}: nothing is stuck"
        );
        assert!(
            purchases
                .iter()
                .all(|purchase| matches!(purchase.state, State::Settled | State::Voided)),
            "{about}: {purchases:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_seller_answers() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger.db");
    let seller = open(report().idempotent().fault(Fault::HangAfterSettle)).await;
    let task = ChildTask {
        url: seller.url("/report").to_string(),
        ledger: ledger.to_str().unwrap().to_owned(),
        ids: 0..1,
        room: ROOM,
        at: None,
        at_signer: false,
        ahead: 0,
    };
    let mut child = task.spawn();
    seller.wait_for_settlements(1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let purchases = check(&seller, &ledger, ROOM, "hanging").await;
    assert_eq!(purchases.first().unwrap().state, State::Signed);
    seller.clear_faults();
    run(&task).await;
    assert_eq!(
        check(&seller, &ledger, ROOM, "hanging")
            .await
            .first()
            .unwrap()
            .state,
        State::Settled
    );
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random() {
    let runs: usize = env::var("BURSAR_CRASH_RUNS").map_or(200, |runs| runs.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("ledger.db");
    let seller = open(report().idempotent()).await;
    let room = runs;
    // Some more than there is room for: what is refused is refused fast, and none may be out of recovery's reach.
    let wanted = 0..room + 50;
    let mut task = ChildTask {
        url: seller.url("/report").to_string(),
        ledger: ledger.to_str().unwrap().to_owned(),
        ids: wanted.clone(),
        room,
        at: None,
        at_signer: false,
        ahead: 0,
    };
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    for number in 0..runs {
        // xorshift: the same kills in every run.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let before = seller.settlements().len();
        let mut child = task.spawn();
        if number % 2 == 0 {
            // As soon as it pays, and a little later.
            let paid = seller.wait_for_settlements((before + 1).min(room));
            drop(tokio::time::timeout(Duration::from_secs(5), paid).await);
            std::thread::sleep(Duration::from_micros(dice % 4000));
        } else {
            std::thread::sleep(Duration::from_millis(15 + dice % 40));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // The next wants what this one had begun, and more.
        task.ids.start = seller.settlements().len().saturating_sub(3);
        if number % 20 == 0 {
            check(&seller, &ledger, room, &format!("run {number}")).await;
        }
        if seller.settlements().len() >= room {
            break;
        }
    }
    check(&seller, &ledger, room, "before recovery").await;
    for ahead in [0, 90] {
        run(&ChildTask {
            ids: wanted.clone(),
            ahead,
            ..task.clone()
        })
        .await;
    }
    let purchases = check(&seller, &ledger, room, "after recovery").await;
    let stuck: Vec<_> = purchases
        .iter()
        .filter(|purchase| !matches!(purchase.state, State::Settled | State::Voided))
        .collect();
    assert!(
        stuck.is_empty(),
        "{} of {} are stuck: {:?}",
        stuck.len(),
        purchases.len(),
        stuck.first()
    );
    let settled = purchases
        .iter()
        .filter(|purchase| purchase.state == State::Settled)
        .count();
    assert_eq!(settled, seller.settlements().len());
}

async fn run(task: &ChildTask) {
    let task = task.clone();
    tokio::task::spawn_blocking(move || task.run())
        .await
        .unwrap();
}
