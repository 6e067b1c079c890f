//! One purchase from a seller with a fault, and its expected outcome.

use std::time::Duration;

use bursar::ledger::State;
use bursar::money::TransferMethod;
use bursar::policy::Rule;
use bursar::x402::Scheme;
use bursar::{
    Client, ClientBuilder, ErrorKind, Ledger, PaymentStatus, Policy, RequestBuilder, usd,
};
use bursar_testing::{Fault, Paywall, Route};
use bursar_tests::paywall::{http, open, policy, report};
use bursar_tests::signatures::SignatureLog;

use crate::inspect::versions;

/// The price of the report at an honest seller, in atomic units.
pub(crate) const PRICE: u64 = 10_000;
/// The time that an impatient client waits for the head of an answer.
const HEAD_TIME: Duration = Duration::from_millis(500);
/// The time that an impatient client waits for a whole purchase.
pub(crate) const CALL_TIME: Duration = Duration::from_secs(2);
/// The number of trials that run at once. With few trials, no trial waits for the processor until its time is over.
const AT_ONCE: usize = 8;

/// Returns the report of a seller that answers the same payment with the same answer.
pub(crate) fn idempotent_report() -> Route {
    report().idempotent()
}

/// Returns a client that logs its signatures. It waits before it presents a payment again, as by default.
pub(crate) fn client(signatures: &SignatureLog, policy: Policy) -> ClientBuilder {
    Client::builder()
        .http(http())
        .signer(signatures.signer())
        .policy(policy)
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
}

/// The result that the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Response(u16, PaymentStatus),
    Error(ErrorKind, PaymentStatus),
    Denied(Rule, PaymentStatus),
    /// A response or an error with this status, which does not prove whether the seller settled.
    Uncertain(u16),
}

/// A fault of the seller, a purchase, and its expected outcome.
#[derive(Clone)]
pub(crate) struct Trial {
    pub(crate) fault: Fault,
    versions: Vec<fn(Route) -> Route>,
    policy: fn(Policy) -> Policy,
    pub(crate) request: fn(RequestBuilder) -> RequestBuilder,
    pub(crate) answer: Answer,
    /// The number of calls of the signer.
    pub(crate) signatures: usize,
    /// The number of transfers that the seller makes, and their sum in atomic units.
    pub(crate) settled: (usize, u64),
    /// The possible states of the purchase in the ledger. If this is empty, the ledger has no purchase.
    pub(crate) states: &'static [State],
    /// Whether the content arrives completely.
    pub(crate) delivered: bool,
    /// The most bytes that the seller can send.
    pub(crate) bytes: u64,
    /// Whether the client has short time limits, for sellers that hang.
    pub(crate) impatient: bool,
    /// Whether the policy allows every scheme and transfer method.
    any_method: bool,
}

/// Returns a trial in version 2 that ends with this error before anything is signed.
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
        impatient: kind == ErrorKind::Timeout,
        any_method: false,
    }
}

/// Returns a trial in which the policy denies the purchase, and nothing is signed.
pub(crate) fn denied(fault: Fault, rule: Rule) -> Trial {
    Trial {
        answer: Answer::Denied(rule, PaymentStatus::NotPaid),
        ..trial(fault, ErrorKind::Denied)
    }
}

/// Returns a trial in which the caller gets the seller's answer, and nothing is signed.
pub(crate) fn unpaid(fault: Fault, status: u16) -> Trial {
    Trial {
        answer: Answer::Response(status, PaymentStatus::NotPaid),
        ..trial(fault, ErrorKind::Denied)
    }
}

/// Returns a trial in which the report is bought at this price, with a receipt.
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

/// Returns a trial in which the receipt claims that the seller settled, with this status.
pub(crate) fn claimed(fault: Fault, status: u16) -> Trial {
    Trial {
        answer: Answer::Response(status, PaymentStatus::Paid),
        delivered: false,
        ..paid(fault, PRICE)
    }
    .settled(1)
}

/// Returns a trial in which the seller answers with this status and proves nothing.
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

/// Returns a trial in which the answer to the payment is lost.
pub(crate) fn lost(fault: Fault, kind: ErrorKind) -> Trial {
    let impatient = kind == ErrorKind::Timeout;
    Trial {
        answer: Answer::Error(kind, PaymentStatus::MaybePaid),
        impatient,
        ..uncertain(fault, 0)
    }
}

/// Returns a trial in which the policy denies new terms after a payment was sent.
pub(crate) fn denied_again(fault: Fault, rule: Rule) -> Trial {
    Trial {
        answer: Answer::Denied(rule, PaymentStatus::MaybePaid),
        ..rejected(fault, ErrorKind::Denied)
    }
}

/// Returns a trial in which the seller proves that it settled, and does not deliver.
pub(crate) fn paid_without_delivery(fault: Fault, kind: ErrorKind) -> Trial {
    Trial {
        answer: Answer::Error(kind, PaymentStatus::Paid),
        ..paid(fault, PRICE)
    }
    .undelivered()
}

/// Returns a trial in which the seller says that it did not settle.
pub(crate) fn rejected(fault: Fault, kind: ErrorKind) -> Trial {
    Trial {
        states: &[State::Rejected, State::Unresolved],
        ..lost(fault, kind)
    }
}

impl Trial {
    /// Runs the trial in version 1.
    pub(crate) fn v1(self) -> Self {
        Self {
            versions: vec![Route::v1],
            ..self
        }
    }

    /// Runs the trial in version 2, in version 1, and in both at once.
    pub(crate) fn in_all_versions(self) -> Self {
        Self {
            versions: vec![|route| route, Route::v1, Route::v1_and_v2],
            ..self
        }
    }

    /// Returns the trial of version 2 with sellers by `exact` with Permit2 and by `upto`, if there is one.
    pub(crate) fn through_permit2(self) -> Option<Self> {
        let is_v2 = |version: &fn(Route) -> Route| versions(&version(report())) == "version 2";
        self.versions.iter().any(is_v2).then_some(Self {
            versions: vec![Route::permit2, Route::upto],
            any_method: true,
            ..self
        })
    }

    /// Runs the trial with sellers by this method, in version 2, and a policy that allows every method.
    pub(crate) fn by(self, method: fn(Route) -> Route) -> Self {
        Self {
            versions: vec![method],
            any_method: true,
            ..self
        }
    }

    pub(crate) fn policy(self, policy: fn(Policy) -> Policy) -> Self {
        Self { policy, ..self }
    }

    pub(crate) fn request(self, request: fn(RequestBuilder) -> RequestBuilder) -> Self {
        Self { request, ..self }
    }

    /// Expects this number of transfers of the report's price.
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

    /// Gives the client short time limits.
    pub(crate) fn impatient(self) -> Self {
        Self {
            impatient: true,
            ..self
        }
    }

    /// Expects that the seller can send at most this many bytes.
    pub(crate) fn bytes(self, bytes: u64) -> Self {
        Self { bytes, ..self }
    }

    async fn prepare(&self, version: fn(Route) -> Route) -> Prepared {
        let signatures = SignatureLog::default();
        let mut policy = (self.policy)(policy());
        if self.any_method {
            policy = policy
                .schemes(Scheme::ALL)
                .transfer_methods(TransferMethod::ALL);
        }
        let client = client(&signatures, policy);
        let client = if self.impatient {
            client.answer_timeout(HEAD_TIME).timeout(CALL_TIME)
        } else {
            client
        };
        let client = client.build().unwrap();
        let seller = open(version(idempotent_report().fault(self.fault.clone()))).await;
        Prepared {
            trial: self.clone(),
            version: version(idempotent_report()),
            client,
            signatures,
            seller,
        }
    }
}

/// A trial whose seller is started.
pub(crate) struct Prepared {
    pub(crate) trial: Trial,
    pub(crate) version: Route,
    pub(crate) client: Client,
    pub(crate) signatures: SignatureLog,
    pub(crate) seller: Paywall,
}

/// Runs the trials. Panics with the complaints of all of them.
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
        "the other origin got requests: {:?}",
        elsewhere.requests()
    );
}

/// Starts a seller at another origin, which would accept a payment.
pub(crate) async fn elsewhere() -> Paywall {
    open(Route::any("/*").price(usd!("0.01"))).await
}
