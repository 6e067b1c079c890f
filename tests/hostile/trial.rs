//! One seller, one purchase, and everything that can be seen of it.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bursar::clock::{Clock, SystemClock};
use bursar::ledger::{Filter, State};
use bursar::policy::Rule;
use bursar::primitives::U256;
use bursar::signer::TransferAuthorization;
use bursar::{
    Address, Client, ClientBuilder, Error, ErrorKind, Ledger, LocalSigner, PaymentStatus, Policy,
    Purchase, RequestBuilder, ResponseExt, Signer, signer_fn, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use reqwest::Response;

/// Anvil's account 0, published with it.
const KEY: &str = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80";
/// What the report costs at an honest seller, in atomic units.
pub(crate) const PRICE: u64 = 10_000;
/// The most that the policy allows for one payment, in atomic units.
const LIMIT: u64 = 50_000;
/// How long the policy lets an authorization be valid, and some for the clock to go on, in seconds.
const VALIDITY: u64 = 300 + 60;
/// How long a hasty client waits for the head of an answer.
const ANSWER: Duration = Duration::from_millis(500);
/// How long a hasty client waits for everything.
const WHOLE: Duration = Duration::from_secs(2);
/// No trial takes longer, on the slowest machine.
const AT_MOST: Duration = Duration::from_secs(20);
/// How many trials run at once: few, so that none waits for the processor until its time is up.
const AT_ONCE: usize = 8;

pub(crate) fn wallet() -> LocalSigner {
    LocalSigner::from_hex(&KEY.to_owned().into()).unwrap()
}

pub(crate) fn policy() -> Policy {
    Policy::new()
        .allow_network("base-sepolia")
        .per_payment(usd!("0.05"))
}

pub(crate) fn report() -> Route {
    Route::get("/report")
        .price(usd!("0.01"))
        .body("the report")
        .idempotent()
}

/// What a wallet was asked to sign.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signed(Arc<Mutex<Vec<TransferAuthorization>>>);

impl Signed {
    pub(crate) fn all(&self) -> Vec<TransferAuthorization> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn signer(&self) -> impl Signer + use<> {
        let (signed, wallet) = (self.clone(), Arc::new(wallet()));
        signer_fn(wallet.address(), move |authorization| {
            signed.0.lock().unwrap().push(authorization.clone());
            let wallet = Arc::clone(&wallet);
            async move { wallet.sign(&authorization).await }
        })
    }

    /// A client that signs with it, with books in memory.
    pub(crate) fn client(&self, policy: Policy) -> ClientBuilder {
        let builder = Client::builder()
            .signer(self.signer())
            .policy(policy)
            .ledger(Ledger::memory());
        // No trial speaks TLS, and loading the system's roots takes longer than a purchase.
        let builder = builder.http(
            reqwest::Client::builder()
                .tls_backend_rustls()
                .tls_certs_only([]),
        );
        builder.allow_http_loopback(true)
    }
}

pub(crate) async fn open(route: Route) -> Paywall {
    Paywall::builder().route(route).start().await.unwrap()
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Response(u16, PaymentStatus),
    Error(ErrorKind, PaymentStatus),
    Denied(Rule, PaymentStatus),
    /// The seller answered with this status, and nothing proves what it did. A response or an error.
    Uncertain(u16),
}

/// A seller that misbehaves, a purchase, and its safe outcome.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) fault: Fault,
    versions: Vec<fn(Route) -> Route>,
    policy: fn(Policy) -> Policy,
    request: fn(RequestBuilder) -> RequestBuilder,
    answer: Answer,
    /// How often the signer is called.
    signatures: usize,
    /// Transfers that the seller makes, and their sum in atomic units.
    settled: (usize, u64),
    /// What the books say, any of these; nothing at all if there are none.
    states: &'static [State],
    /// Whether the content arrives whole.
    delivered: bool,
    /// The seller can send this much, in bytes.
    bytes: u64,
    /// Whether the client waits no longer than it must: for sellers that hang.
    hasty: bool,
}

/// A purchase of the report from a seller with this fault, over version 2, that is to be refused
/// before anything is signed.
pub(crate) fn trial(fault: Fault, kind: ErrorKind) -> Trial {
    Trial {
        fault,
        versions: vec![|route| route],
        policy: |policy| policy,
        request: |request| request,
        answer: Answer::Error(kind, PaymentStatus::NotPaid),
        signatures: 0,
        settled: (0, 0),
        states: &[],
        delivered: false,
        bytes: 1 << 20,
        hasty: kind == ErrorKind::Timeout,
    }
}

/// The policy refuses, before anything is signed.
pub(crate) fn denied(fault: Fault, rule: Rule) -> Trial {
    Trial {
        answer: Answer::Denied(rule, PaymentStatus::NotPaid),
        ..trial(fault, ErrorKind::Denied)
    }
}

/// The caller gets what the seller answers, and nothing is signed.
pub(crate) fn unpaid(fault: Fault, status: u16) -> Trial {
    Trial {
        answer: Answer::Response(status, PaymentStatus::NotPaid),
        ..trial(fault, ErrorKind::Denied)
    }
}

/// The report is bought at this price, and comes with a receipt.
pub(crate) fn paid(fault: Fault, price: u64) -> Trial {
    let answer = Answer::Response(200, PaymentStatus::Paid);
    let (settled, delivered) = ((1, price), true);
    Trial {
        answer,
        signatures: 1,
        settled,
        states: &[State::Settled],
        delivered,
        ..trial(fault, ErrorKind::Denied)
    }
}

/// The seller says with this status that it has settled, and nothing more is known.
pub(crate) fn claimed(fault: Fault, status: u16) -> Trial {
    Trial {
        answer: Answer::Response(status, PaymentStatus::Paid),
        delivered: false,
        ..paid(fault, PRICE)
    }
    .settled(1)
}

/// The seller answers with this status, which proves nothing.
pub(crate) fn uncertain(fault: Fault, status: u16) -> Trial {
    let states = &[State::Unresolved];
    Trial {
        answer: Answer::Uncertain(status),
        states,
        ..paid(fault, PRICE)
    }
    .settled(0)
    .undelivered()
}

/// The seller's answer to the payment is lost.
pub(crate) fn lost(fault: Fault, kind: ErrorKind) -> Trial {
    let hasty = kind == ErrorKind::Timeout;
    Trial {
        answer: Answer::Error(kind, PaymentStatus::MaybePaid),
        hasty,
        ..uncertain(fault, 0)
    }
}

/// The policy refuses new terms, once a payment has left.
pub(crate) fn denied_again(fault: Fault, rule: Rule) -> Trial {
    Trial {
        answer: Answer::Denied(rule, PaymentStatus::MaybePaid),
        ..rejected(fault, ErrorKind::Denied)
    }
}

/// The seller proves that it has settled, and does not deliver.
pub(crate) fn paid_in_vain(fault: Fault, kind: ErrorKind) -> Trial {
    Trial {
        answer: Answer::Error(kind, PaymentStatus::Paid),
        ..paid(fault, PRICE)
    }
    .undelivered()
}

/// The seller says that it has not settled.
pub(crate) fn rejected(fault: Fault, kind: ErrorKind) -> Trial {
    Trial {
        states: &[State::Rejected, State::Unresolved],
        ..lost(fault, kind)
    }
}

impl Trial {
    /// In version 1.
    pub(crate) fn v1(self) -> Self {
        Self {
            versions: vec![Route::v1],
            ..self
        }
    }

    /// In version 2, in version 1, and in both at once.
    pub(crate) fn everywhere(self) -> Self {
        Self {
            versions: vec![|route| route, Route::v1, Route::v1_and_v2],
            ..self
        }
    }

    pub(crate) fn policy(self, policy: fn(Policy) -> Policy) -> Self {
        Self { policy, ..self }
    }

    pub(crate) fn request(self, request: fn(RequestBuilder) -> RequestBuilder) -> Self {
        Self { request, ..self }
    }

    /// The seller makes so many transfers of the report's price.
    pub(crate) fn settled(self, transfers: usize) -> Self {
        Self {
            settled: (transfers, transfers as u64 * PRICE),
            ..self
        }
    }

    pub(crate) fn signatures(self, signatures: usize) -> Self {
        Self { signatures, ..self }
    }

    pub(crate) fn delivered(self) -> Self {
        Self {
            delivered: true,
            ..self
        }
    }

    pub(crate) fn undelivered(self) -> Self {
        Self {
            delivered: false,
            ..self
        }
    }

    /// With a client that does not wait.
    pub(crate) fn hasty(self) -> Self {
        Self {
            hasty: true,
            ..self
        }
    }

    /// The seller can send this much before it is cut off, in bytes.
    pub(crate) fn bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    async fn prepare(&self, version: fn(Route) -> Route) -> Prepared {
        let signed = Signed::default();
        let client = signed.client((self.policy)(policy()));
        let client = if self.hasty {
            client.answer_timeout(ANSWER).timeout(WHOLE)
        } else {
            client
        };
        let client = client.build().unwrap();
        let seller = open(version(report().fault(self.fault.clone()))).await;
        Prepared {
            trial: self.clone(),
            version: version(report()),
            client,
            signed,
            seller,
        }
    }
}

struct Prepared {
    trial: Trial,
    version: Route,
    client: Client,
    signed: Signed,
    seller: Paywall,
}

/// Runs the trials, and panics with all that went wrong in any of them.
pub(crate) async fn run(trials: impl IntoIterator<Item = Trial>, elsewhere: &Paywall) {
    let mut prepared = Vec::new();
    for trial in trials {
        for version in &trial.versions {
            prepared.push(trial.prepare(*version).await);
        }
    }
    let mut complaints = String::new();
    let mut running = tokio::task::JoinSet::<String>::new();
    for prepared in prepared {
        if running.len() == AT_ONCE {
            complaints.push_str(&running.join_next().await.unwrap().unwrap());
        }
        running.spawn(prepared.run());
    }
    while let Some(finished) = running.join_next().await {
        complaints.push_str(&finished.unwrap());
    }
    assert!(complaints.is_empty(), "{complaints}");
    assert!(
        elsewhere.requests().is_empty(),
        "the other origin heard of it: {:?}",
        elsewhere.requests()
    );
}

/// Another origin, which would take a payment.
pub(crate) async fn elsewhere() -> Paywall {
    open(Route::any("/*").price(usd!("0.01"))).await
}

/// What a response or an error is, and what it says.
struct Got {
    answer: Result<(u16, PaymentStatus), (Error, Option<u16>)>,
    delivered: bool,
}

impl Got {
    async fn of(result: Result<Response, Error>) -> Self {
        match result {
            Ok(response) => {
                let answer = Ok((response.status().as_u16(), response.payment_status()));
                Self {
                    answer,
                    delivered: response.text().await.is_ok_and(|text| text == "the report"),
                }
            }
            Err(error) => {
                let status = error.status().map(|status| status.as_u16());
                Self {
                    answer: Err((error, status)),
                    delivered: false,
                }
            }
        }
    }

    fn is(&self, expected: Answer) -> bool {
        match (expected, &self.answer) {
            (Answer::Response(status, spend), Ok(got)) => *got == (status, spend),
            (Answer::Error(kind, spend), Err((error, _))) => {
                (error.kind(), error.payment_status()) == (kind, spend)
            }
            (Answer::Denied(rule, spend), Err((error, _))) => {
                error.payment_status() == spend
                    && error.denial().is_some_and(|denial| denial.rule == rule)
            }
            (Answer::Uncertain(status), Ok(got)) => *got == (status, PaymentStatus::MaybePaid),
            (Answer::Uncertain(status), Err((error, got))) => {
                error.payment_status() == PaymentStatus::MaybePaid && *got == Some(status)
            }
            _ => false,
        }
    }

    fn shown(&self) -> String {
        match &self.answer {
            Ok(got) => format!("{got:?}"),
            Err((error, status)) => format!(
                "{:?}, {:?}, {status:?}: {error}",
                error.kind(),
                error.payment_status()
            ),
        }
    }
}

/// Complaints of one trial.
struct Complaints {
    about: String,
    list: String,
}

impl Complaints {
    fn unless(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            writeln!(self.list, "{}: {}", self.about, complaint()).unwrap();
        }
    }
}

impl Prepared {
    async fn run(self) -> String {
        let Self {
            trial,
            version,
            client,
            signed,
            seller,
        } = self;
        let about = format!("{:?} [{}]", trial.fault, versions(&version));
        let mut complaints = Complaints {
            about: about.chars().take(200).collect(),
            list: String::new(),
        };
        let begun = Instant::now();
        let now = SystemClock.now().secs();
        let request = (trial.request)(client.get(seller.url("/report")));
        let Ok(got) =
            tokio::time::timeout(AT_MOST, async { Got::of(request.send().await).await }).await
        else {
            return format!("{about}: never ends\n");
        };
        let took = begun.elapsed();
        // What settles late, settles once the seller sees that the buyer has gone.
        let settling =
            tokio::time::timeout(AT_MOST, seller.wait_for_settlements(trial.settled.0)).await;
        complaints.unless(settling.is_ok(), || "never settles".to_owned());

        complaints.unless(got.is(trial.answer), || {
            format!("expected {:?}, got {}", trial.answer, got.shown())
        });
        complaints.unless(got.delivered == trial.delivered, || {
            format!("delivered: {}", got.delivered)
        });
        // A seller that hangs before it is paid costs the time for one answer.
        let limit = if trial.hasty && trial.signatures == 0 {
            WHOLE
        } else {
            AT_MOST / 2
        };
        complaints.unless(took < limit, || format!("took {took:?}"));
        let sent = seller.bytes_sent();
        complaints.unless(sent <= trial.bytes, || format!("{sent} bytes were taken"));

        let signatures = signed.all();
        complaints.unless(signatures.len() == trial.signatures, || {
            format!("{} signatures", signatures.len())
        });
        let settled = seller.settlements();
        let sum = seller.spent_by(wallet().address());
        let expected = (trial.settled.0, U256::from(trial.settled.1));
        complaints.unless((settled.len(), sum) == expected, || {
            format!("{} settlements of {sum}", settled.len())
        });

        let purchases = client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap();
        let states: Vec<State> = purchases.iter().map(|entry| entry.state).collect();
        let booked = match (trial.states, states.as_slice()) {
            ([], []) => true,
            (expected, [state]) => expected.contains(state),
            _ => false,
        };
        complaints.unless(booked, || format!("the books say {states:?}"));

        never(&mut complaints, &seller, &signatures, &purchases, now);
        leaks(&mut complaints, &seller, &got, &purchases);
        complaints.list
    }
}

fn versions(route: &Route) -> &'static str {
    let shown = format!("{route:?}");
    match (shown.contains("V2"), shown.contains("V1")) {
        (true, true) => "both versions",
        (true, false) => "version 2",
        _ => "version 1",
    }
}

/// What may never happen, whatever the seller does.
fn never(
    complaints: &mut Complaints,
    seller: &Paywall,
    signed: &[TransferAuthorization],
    purchases: &[Purchase],
    now: u64,
) {
    let usdc = crate::purchases::usdc();
    let forbidden = [Address::ZERO, wallet().address(), usdc.address()];
    for authorization in signed {
        complaints.unless(authorization.value() <= U256::from(LIMIT), || {
            format!("signed {}", authorization.value())
        });
        let validity = authorization.valid_before().saturating_sub(now);
        complaints.unless(validity <= VALIDITY, || format!("signed for {validity} s"));
        complaints.unless(!forbidden.contains(&authorization.to()), || {
            format!("signed for {}", authorization.to())
        });
        complaints.unless(*authorization.asset() == usdc, || {
            format!("signed {}", authorization.asset())
        });
    }
    let nonces: HashSet<_> = signed.iter().map(TransferAuthorization::nonce).collect();
    complaints.unless(nonces.len() <= 1, || {
        "one purchase has one nonce".to_owned()
    });

    let requests = seller.requests();
    let presented: HashSet<_> = requests
        .iter()
        .filter_map(|request| request.payment.as_ref())
        .map(|payment| payment.header.as_str())
        .collect();
    // Signed again within the second, the same terms are the same bytes.
    complaints.unless(
        presented.len() <= signed.len() && presented.is_empty() == signed.is_empty(),
        || {
            format!(
                "{} payments on the wire, {} signatures",
                presented.len(),
                signed.len()
            )
        },
    );
    let tracked = requests
        .iter()
        .any(|request| request.headers.contains_key("cookie"));
    complaints.unless(!tracked, || "the seller's cookie came back".to_owned());
    complaints.unless(requests.len() <= 20, || {
        format!("{} requests", requests.len())
    });

    // A seller that kept every payment can take no more than the books hold.
    let _more = seller.cash_in();
    let settled = seller.settlements();
    complaints.unless(settled.len() <= 1, || {
        format!("{} transfers could be made", settled.len())
    });
    let held = purchases
        .iter()
        .filter(|entry| entry.counts(SystemClock.now()))
        .map(|entry| entry.value);
    let held = held.fold(U256::ZERO, U256::saturating_add);
    let taken = seller.spent_by(wallet().address());
    complaints.unless(taken <= held, || {
        format!("{taken} could be taken, and the books hold {held}")
    });
}

/// No payment and no signature in what may be logged, and nothing that repaints a terminal.
fn leaks(complaints: &mut Complaints, seller: &Paywall, got: &Got, purchases: &[Purchase]) {
    let mut said = format!(
        "{purchases:?} {}",
        serde_json::to_string(purchases).unwrap()
    );
    if let Err((error, _)) = &got.answer {
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(error) = source {
            write!(said, "{error} {error:?}").unwrap();
            source = error.source();
        }
        let shown = error.to_string();
        let paints = |c: char| {
            c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}')
        };
        complaints.unless(!shown.contains(paints), || {
            format!("the error paints: {shown:?}")
        });
        complaints.unless(shown.len() < 4_000, || {
            format!("the error has {} bytes", shown.len())
        });
    }
    for payment in seller
        .requests()
        .into_iter()
        .filter_map(|request| request.payment)
    {
        // Offers that are nested deeply are echoed so, and not taken apart.
        let signature = payment
            .json
            .as_ref()
            .map(|json| json["payload"]["signature"].as_str().unwrap());
        let hex = signature.map(|signature| signature.trim_start_matches("0x"));
        complaints.unless(!hex.is_some_and(|hex| said.contains(hex)), || {
            format!("a signature is told: {said}")
        });
        complaints.unless(!said.contains(&payment.header), || {
            format!("a payment is told: {said}")
        });
    }
}
