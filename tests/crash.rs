//! Buyers that are killed with `SIGKILL`, at every step of a purchase and at random, each followed by
//! another one on the same ledger. The chain never settles more than the limit, nothing is paid twice,
//! the ledger knows every payment that reached the wire, and no purchase is stuck. They pay by EIP-3009, by Permit2, up to a
//! ceiling, with a sponsored approval, and enter again with a sign-in.
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
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bursar::clock::{Clock, SystemClock};
use bursar::ledger::{Filter, State};
use bursar::money::TransferMethod;
use bursar::policy::SignIn;
use bursar::primitives::B256;
use bursar::primitives::U256;
use bursar::signer::{
    PermitTransfer, SignInMessage, Signature, SignerError, TokenPermit, TransferAuthorization,
};
use bursar::telemetry::Event;
use bursar::x402::{PaymentMethod, Scheme};
use bursar::{
    Address, ChainReader, Client, Ledger, LocalSigner, Network, Policy, Purchase, RetryPolicy,
    Signer, usd,
};
use bursar_testing::{Fault, Paywall, Route};

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
const SEPOLIA: Network = Network::from_chain_id(84_532);
/// What the child says when it has come to where it is to be killed.
const THERE: &str = "the step is reached";
/// How many purchases the limit has room for, of how many that are wanted.
const ROOM: usize = 3;
const WANTED: usize = 5;

/// Counts the steps of a child, and waits at one of them until the child is killed.
///
/// A step is a reading of the clock, an event of a purchase, or the begin or the end of a signature.
/// The client reads the clock before every write to the ledger and reports an event after it, so
/// there is a step on both sides of every write.
#[derive(Clone)]
struct Steps {
    count: Arc<AtomicUsize>,
    last: Option<usize>,
}

impl Steps {
    fn step(&self) {
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        if self.last == Some(number) {
            println!("{THERE}");
            loop {
                std::thread::park();
            }
        }
    }

    /// Takes a step before and after the work.
    async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        self.step();
        let done = work.await;
        self.step();
        done
    }
}

/// A wallet with a step before and after each signature.
struct Stepping {
    wallet: Arc<LocalSigner>,
    steps: Steps,
}

impl Signer for Stepping {
    fn address(&self) -> Address {
        self.wallet.address()
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.steps.around(self.wallet.sign(authorization)).await
    }

    async fn sign_permit(&self, permit: &PermitTransfer) -> Result<Signature, SignerError> {
        self.steps.around(self.wallet.sign_permit(permit)).await
    }

    async fn sign_token_permit(&self, permit: &TokenPermit) -> Result<Signature, SignerError> {
        self.steps
            .around(self.wallet.sign_token_permit(permit))
            .await
    }

    async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        self.steps.around(self.wallet.sign_in(message)).await
    }
}

/// What a child is to do, by its environment.
#[derive(Clone, Debug)]
struct Errand {
    url: String,
    ledger: String,
    /// The purchases that are wanted, in this order.
    ids: std::ops::Range<usize>,
    room: usize,
    /// The step at which to wait to be killed.
    at: Option<usize>,
    /// How far the child's clock is ahead, in seconds: past the leases of those that were killed.
    ahead: u64,
    /// How many seconds of the child's clock pass in one.
    pace: u64,
    /// Whether the purchases have ids.
    named: bool,
    /// A node of the chain. With it, the buyer takes sponsored approvals.
    rpc: Option<String>,
    /// Whether the key is in the process, so that the ledger has it sign within its transaction.
    in_step: bool,
}

impl Errand {
    fn spawn(&self) -> Child {
        let at = self
            .at
            .map_or_else(String::new, |number| number.to_string());
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
            .env("CRASH_AHEAD", self.ahead.to_string())
            .env("CRASH_PACE", self.pace.to_string())
            .env("CRASH_NAMED", u8::from(self.named).to_string())
            .env("CRASH_RPC", self.rpc.as_deref().unwrap_or_default())
            .env("CRASH_IN_STEP", u8::from(self.in_step).to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Runs until the child waits to be killed, and kills it; or to its end, if it never comes there.
    /// Returns whether the child was killed.
    fn run(&self) -> bool {
        let mut child = self.spawn();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        let is_there = said.any(|line| line.unwrap().ends_with(THERE));
        if is_there {
            child.kill().unwrap();
        }
        child.wait().unwrap();
        is_there
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
    let steps = Steps {
        count: Arc::default(),
        last: env::var("CRASH_AT").unwrap().parse().ok(),
    };
    let ahead = Duration::from_secs(u64::try_from(numbers("CRASH_AHEAD").remove(0)).unwrap());
    let room = u64::try_from(numbers("CRASH_ROOM").remove(0)).unwrap();
    let ids = numbers("CRASH_IDS");
    let pace = u32::try_from(numbers("CRASH_PACE").remove(0)).unwrap();
    let named = numbers("CRASH_NAMED") == [1];
    let start = SystemClock.now();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let ledger = Ledger::sqlite(env::var("CRASH_LEDGER").unwrap()).unwrap();
        let wallet = Arc::new(LocalSigner::from_hex(&KEY.to_owned().into()).unwrap());
        let [signing, observed] = [steps.clone(), steps.clone()];
        let signer = Stepping {
            wallet,
            steps: signing,
        };
        let limit = bursar::Usd::from_micros(room * 10_000);
        let rpc = env::var("CRASH_RPC").unwrap();
        let builder = match rpc.as_str() {
            "" => Client::builder(),
            rpc => {
                let chain = ChainReader::new().endpoint(SEPOLIA, rpc).unwrap();
                Client::builder().chain(chain)
            }
        };
        let builder = match numbers("CRASH_IN_STEP") == [1] {
            true => builder.signer(signer.wallet),
            false => builder.signer(signer),
        };
        let client = builder
            .policy(
                Policy::new()
                    .allow_network("base-sepolia")
                    .schemes(Scheme::ALL)
                    .transfer_methods(TransferMethod::ALL)
                    .gas_sponsoring(true)
                    .sign_in(SignIn::Known)
                    .unlimited()
                    .loop_guard(Duration::from_secs(60), u32::MAX)
                    .circuit_breaker(Duration::from_secs(60), u32::MAX)
                    .lifetime(limit),
            )
            .ledger(ledger)
            .observer(move |_: &Event<'_>| observed.step())
            .clock(move || {
                steps.step();
                let passed = start.until(SystemClock.now());
                start.after(ahead).after(passed * pace)
            })
            .retry_policy(RetryPolicy::once())
            .http(
                reqwest::Client::builder()
                    .tls_backend_rustls()
                    .tls_certs_only([]),
            )
            .allow_http_loopback(true)
            .build()
            .unwrap();
        for id in ids[0]..ids[1] {
            // What becomes of it is in the books and on the chain.
            let request = client.get(&url);
            let request = match named {
                true => request.purchase_id(format!("order-{id}")),
                false => request,
            };
            drop(request.send().await);
        }
    });
}

fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .idempotent()
}

/// What must hold at every moment, whoever was killed.
async fn check(seller: &Paywall, ledger: &Path, room: usize, about: &str) -> Vec<Purchase> {
    let settlements = seller.settlements();
    assert!(
        settlements.len() <= room,
        "{about}: {} settled, room for {room}",
        settlements.len()
    );
    let database = Ledger::sqlite(ledger).unwrap();
    let purchases = database.purchases(&Filter::all()).await.unwrap();
    let booked: BTreeSet<B256> = purchases
        .iter()
        .filter(|entry| entry.state != State::Voided)
        .map(|entry| entry.nonce)
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
        let payload = &json["payload"];
        let nonce: B256 = match payload["permit2Authorization"]["nonce"].as_str() {
            // A permit has the same number in decimal.
            Some(nonce) => nonce.parse::<U256>().unwrap().into(),
            None => {
                let nonce = &payload["authorization"]["nonce"];
                nonce.as_str().unwrap().parse().unwrap()
            }
        };
        assert!(
            booked.contains(&nonce),
            "{about}: what reached the wire is in the books"
        );
    }
    let counted = purchases
        .iter()
        .filter(|entry| entry.counts(SystemClock.now()))
        .count();
    assert!(counted <= room, "{about}: {counted} count");
    assert!(database.verify(None).await.unwrap().is_sound(), "{about}");
    purchases
}

/// A seller, and how much the wallet has approved before.
struct Shop {
    sells: fn() -> Route,
    allowance: u64,
    /// Whether the buyer reads the chain.
    reads_chain: bool,
    /// The number of settlements after all buyers.
    settles: usize,
    /// Whether the key is in the process.
    in_step: bool,
}

impl Shop {
    const fn new(sells: fn() -> Route) -> Self {
        Self {
            sells,
            allowance: 1_000_000,
            reads_chain: false,
            settles: ROOM,
            in_step: false,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step() {
    // Two purchases and the begin of a third have at least so many steps.
    kill_at_steps(0..48, &Shop::new(report), |_, _| {}).await;
}

/// A permit that was held and not signed lapses, and one that was signed is presented again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_permit() {
    // The first purchase and the begin of the second.
    kill_at_steps(0..24, &Shop::new(|| report().permit2()), |_, _| {}).await;
}

/// Also between the settlement of a charge below the ceiling and its record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_charge_below_the_ceiling() {
    let shop = Shop::new(|| report().upto().charge(usd!("0.004")));
    kill_at_steps(0..24, &shop, |seller, purchases| {
        for settlement in seller.settlements() {
            assert_eq!(settlement.authorization.value, U256::from(4_000));
        }
        let settled = purchases
            .iter()
            .filter(|entry| entry.state == State::Settled);
        for entry in settled {
            assert_eq!(entry.payment_method, Some(PaymentMethod::Upto));
            assert_eq!(entry.claimed_charge, Some(U256::from(4_000)));
            assert_eq!(entry.counted(), U256::from(10_000), "the ceiling counts");
        }
    })
    .await;
}

/// The clock is read within the transaction that holds, signs and records, before the signature and after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_while_the_ledger_has_the_key_sign() {
    for (steps, sells) in [(30, report as fn() -> Route), (10, || report().permit2())] {
        let shop = Shop {
            in_step: true,
            ..Shop::new(sells)
        };
        kill_at_steps(0..steps, &shop, |_, _| {}).await;
    }
}

/// Also between the signature of an approval, that of its payment, and their record. An approval that was signed and not
/// recorded has not left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_sponsored_approval() {
    let shop = Shop {
        allowance: 0,
        reads_chain: true,
        ..Shop::new(|| report().permit2().sponsors_permits())
    };
    kill_at_steps(0..28, &shop, |seller, _| {
        let approvals = seller.approvals();
        assert_eq!(approvals.len(), seller.settlements().len());
        for approval in approvals {
            assert_eq!(approval.amount, U256::from(10_000), "exactly one payment");
        }
    })
    .await;
}

/// The first purchase is paid, and every other one enters with a sign-in, whenever a buyer is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_every_step_of_a_sign_in() {
    let shop = Shop {
        settles: 1,
        ..Shop::new(|| report().sign_in())
    };
    // A purchase, and the sign-ins after it.
    kill_at_steps(0..28, &shop, |seller, purchases| {
        let settled = purchases
            .iter()
            .filter(|entry| entry.state == State::Settled);
        assert_eq!(settled.count(), 1);
        let mut nonces = BTreeSet::new();
        for sign_in in seller.sign_ins() {
            assert!(sign_in.accepted, "a sign-in before the purchase");
            assert!(nonces.insert(sign_in.nonce), "a challenge has one answer");
        }
        let both = |request: &bursar_testing::ReceivedRequest| {
            request.payment.is_some() && request.header("sign-in-with-x").is_some()
        };
        assert!(!seller.requests().iter().any(both));
    })
    .await;
}

async fn kill_at_steps(
    steps: std::ops::Range<usize>,
    shop: &Shop,
    inspect: fn(&Paywall, &[Purchase]),
) {
    let wanted = steps.len();
    let mut kills: usize = 0;
    for step in steps {
        let about = format!("step {step}");
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("books.db");
        let payer = LocalSigner::from_hex(&KEY.to_owned().into()).unwrap();
        let seller = Paywall::builder()
            .route((shop.sells)())
            .allowance(payer.address(), shop.allowance)
            .start()
            .await
            .unwrap();
        let node = seller.node(SEPOLIA).await.unwrap();
        let errand = Errand {
            url: seller.url("/report").to_string(),
            ledger: ledger.to_str().unwrap().to_owned(),
            ids: 0..WANTED,
            room: ROOM,
            at: Some(step),
            ahead: 0,
            pace: 1,
            named: true,
            rpc: shop.reads_chain.then(|| node.url().to_string()),
            in_step: shop.in_step,
        };
        kills = kills.saturating_add(usize::from(run(&errand).await));
        check(&seller, &ledger, ROOM, &about).await;
        // Whoever comes next presents what was signed; what was only held is bought once its lease is
        // over.
        for ahead in [0, 90] {
            run(&Errand {
                at: None,
                ahead,
                ..errand.clone()
            })
            .await;
        }
        let purchases = check(&seller, &ledger, ROOM, &about).await;
        assert_eq!(
            seller.settlements().len(),
            shop.settles,
            "{about}: nothing is stuck"
        );
        let later = SystemClock.now().after(Duration::from_secs(90));
        let is_done = |entry: &Purchase| match entry.state {
            State::Settled | State::Voided => true,
            // Where a sign-in replaces the purchase, nobody reserves again, and the hold lapses without a write.
            State::Reserved => shop.settles < ROOM && !entry.counts(later),
            _ => false,
        };
        assert!(purchases.iter().all(is_done), "{about}: {purchases:?}");
        inspect(&seller, &purchases);
    }
    assert_eq!(kills, wanted, "a child comes to every step");
}

/// A buyer that loses its ledger in the crash is a broken one: the check has to see that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_catches_a_buyer_that_loses_its_ledger() {
    let kinds: [fn() -> Route; 3] = [report, || report().permit2(), || report().upto()];
    for sells in kinds {
        let directory = tempfile::tempdir().unwrap();
        let ledger = directory.path().join("books.db");
        let payer = LocalSigner::from_hex(&KEY.to_owned().into()).unwrap();
        let seller = Paywall::builder()
            .route(sells().fault(Fault::HangAfterSettle))
            .allowance(payer.address(), 1_000_000)
            .start()
            .await
            .unwrap();
        let errand = Errand {
            url: seller.url("/report").to_string(),
            ledger: ledger.to_str().unwrap().to_owned(),
            ids: 0..1,
            room: 1,
            at: None,
            ahead: 0,
            pace: 1,
            named: false,
            rpc: None,
            in_step: false,
        };
        let mut child = errand.spawn();
        seller.wait_for_settlements(1).await;
        child.kill().unwrap();
        child.wait().unwrap();
        for file in std::fs::read_dir(directory.path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
        seller.clear_faults();
        run(&errand).await;
        let checked = tokio::spawn(async move {
            check(&seller, &ledger, 1, "a lost ledger").await;
        });
        let caught = checked.await.unwrap_err();
        assert!(caught.is_panic(), "2 settled, room for 1");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_while_the_seller_answers() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("books.db");
    let seller = Paywall::builder()
        .route(report().fault(Fault::HangAfterSettle))
        .start()
        .await
        .unwrap();
    let errand = Errand {
        url: seller.url("/report").to_string(),
        ledger: ledger.to_str().unwrap().to_owned(),
        ids: 0..1,
        room: ROOM,
        at: None,
        ahead: 0,
        pace: 1,
        named: true,
        rpc: None,
        in_step: true,
    };
    let mut child = errand.spawn();
    seller.wait_for_settlements(1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let purchases = check(&seller, &ledger, ROOM, "hanging").await;
    assert_eq!(purchases.first().unwrap().state, State::Signed);
    seller.clear_faults();
    run(&errand).await;
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
async fn killed_while_the_seller_answers_and_restarted_at_once_without_an_id() {
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("books.db");
    let seller = Paywall::builder()
        .route(report().fault(Fault::HangAfterSettle))
        .start()
        .await
        .unwrap();
    let errand = Errand {
        url: seller.url("/report").to_string(),
        ledger: ledger.to_str().unwrap().to_owned(),
        ids: 0..1,
        room: ROOM,
        at: None,
        ahead: 0,
        pace: 1,
        named: false,
        rpc: None,
        in_step: true,
    };
    let mut child = errand.spawn();
    seller.wait_for_settlements(1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    seller.clear_faults();
    // The clock of this one runs, so that the lease of the killed one does not last 20 seconds.
    run(&Errand {
        pace: 100,
        ..errand.clone()
    })
    .await;
    let purchases = check(&seller, &ledger, ROOM, "restarted").await;
    let states: Vec<State> = purchases.iter().map(|purchase| purchase.state).collect();
    assert_eq!(states, [State::Settled]);
    assert_eq!(seller.settlements().len(), 1);
    let payments = seller.requests().into_iter();
    let headers: Vec<String> = payments
        .filter_map(|request| Some(request.payment?.header))
        .collect();
    assert_eq!(headers.len(), 2, "the payment came twice");
    assert_eq!(headers[0], headers[1], "the same bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random() {
    let runs: usize = env::var("BURSAR_CRASH_RUNS").map_or(200, |runs| runs.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let ledger = directory.path().join("books.db");
    let seller = Paywall::builder().route(report()).start().await.unwrap();
    let room = runs;
    // Some more than there is room for: what is refused is refused fast, and none may be out of recovery's reach.
    let wanted = 0..room + 50;
    let mut errand = Errand {
        url: seller.url("/report").to_string(),
        ledger: ledger.to_str().unwrap().to_owned(),
        ids: wanted.clone(),
        room,
        at: None,
        ahead: 0,
        pace: 1,
        named: true,
        rpc: None,
        in_step: true,
    };
    let mut dice: u64 = 0x9e37_79b9_7f4a_7c15;
    for number in 0..runs {
        // xorshift: the same kills in every run.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let before = seller.settlements().len();
        let mut child = errand.spawn();
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
        errand.ids.start = seller.settlements().len().saturating_sub(3);
        if number % 20 == 0 {
            check(&seller, &ledger, room, &format!("run {number}")).await;
        }
        if seller.settlements().len() >= room {
            break;
        }
    }
    check(&seller, &ledger, room, "before recovery").await;
    for ahead in [0, 90] {
        run(&Errand {
            ids: wanted.clone(),
            ahead,
            ..errand.clone()
        })
        .await;
    }
    let purchases = check(&seller, &ledger, room, "after recovery").await;
    let stuck: Vec<_> = purchases
        .iter()
        .filter(|entry| !matches!(entry.state, State::Settled | State::Voided))
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
        .filter(|entry| entry.state == State::Settled)
        .count();
    assert_eq!(settled, seller.settlements().len());
}

async fn run(errand: &Errand) -> bool {
    let errand = errand.clone();
    tokio::task::spawn_blocking(move || errand.run())
        .await
        .unwrap()
}
