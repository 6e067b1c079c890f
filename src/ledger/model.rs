//! A model of the ledger and of the worst possible chain. The chain settles every signed authorization
//! at any time at which it is valid, once for each nonce, and ignores the seller's answers.
//!
//! At every time, the payments that the chain settled and those that it can still settle must be
//! within the limit. The same tests must fail for ledgers that are broken on purpose: otherwise they
//! would prove nothing.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

mod found;
mod one_step;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use alloy::primitives::{B256, U256};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use self::step::{Bug, Step, step};
use super::backend::Backend;
use super::conformance::{NOW, at, given_up, order, settled};
use super::{
    Filter, Ledger, Purchase, PurchaseKey, Reservation, Reserved, Resumption, SellerAnswer, State,
    Terms, Transition,
};
use crate::clock::Timestamp;
use crate::limit::{Limit, LimitKind, Scope};
use crate::money::Usd;
use crate::x402::PaymentMethod;

/// The limit in micro-dollars.
const LIMIT: u64 = 100;
const WINDOW: u64 = 120;
/// A difference of clocks that is smaller than the window.
const LITTLE: u64 = 90;

/// A signed authorization.
#[derive(Debug)]
struct Signed {
    nonce: Nonce,
    method: PaymentMethod,
    value: u64,
    valid_before: u64,
    settled_at: Option<u64>,
    /// The settled amount.
    charged: u64,
}

/// A nonce of the token, or the same number as a nonce of Permit2.
type Nonce = (B256, bool);

const fn nonce_of(nonce: B256, method: PaymentMethod) -> Nonce {
    (nonce, matches!(method, PaymentMethod::Eip3009))
}

/// A hold: its lease, its nonce, its price and its method.
type Held = (Timestamp, B256, u64, PaymentMethod);

struct World {
    ledger: Ledger,
    bug: Bug,
    kind: LimitKind,
    now: u64,
    held: BTreeMap<u8, Held>,
    signed: Vec<Signed>,
    nonces: u8,
    /// Purchases whose outcome is not on disk. The log is written in order, so a later hold or signature takes it along.
    unsynced: BTreeSet<u8>,
}

impl World {
    fn new(bug: Bug, kind: LimitKind) -> Self {
        let ledger = Ledger::memory();
        Self {
            ledger,
            bug,
            kind,
            now: NOW,
            held: BTreeMap::new(),
            signed: Vec::new(),
            nonces: 0,
            unsynced: BTreeSet::new(),
        }
    }

    fn corrupt(&self, change: impl Fn(&mut Purchase)) {
        if let Backend::Memory(memory) = &self.ledger.backend {
            memory.corrupt(change);
        }
    }

    fn key(id: u8) -> PurchaseKey {
        order(&id.to_string(), 0).key()
    }

    fn wish(&self, id: u8, value: u64, changed: bool, ahead: u64, by: usize) -> Reservation {
        let ahead = match self.kind {
            LimitKind::Rolling(..) => 0,
            _ => ahead,
        };
        let meters = vec![Limit {
            scope: Scope::Global,
            kind: self.kind.clone(),
        }];
        let mut purchase = order(&id.to_string(), value);
        purchase.payment_method = Some(PaymentMethod::ALL[by]);
        let mut wish = super::conformance::wish(purchase, at(self.now + ahead), meters);
        wish.terms = if changed {
            Terms::Changed
        } else {
            Terms::First
        };
        wish
    }

    async fn reserve(&mut self, id: u8, value: u64, wish: &Reservation) {
        if self.bug == Bug::BothKinds {
            self.corrupt(|purchase| {
                if purchase.key() == wish.key() {
                    purchase.payment_method = wish.purchase.payment_method;
                }
            });
        }
        if let Reserved::Held(purchase) = self.ledger.reserve(wish).await.unwrap() {
            self.unsynced.clear();
            let method = purchase.payment_method.unwrap();
            let mut nonce = purchase.nonce;
            if self.bug == Bug::FreshNonce {
                self.nonces = self.nonces.wrapping_add(1);
                nonce = B256::repeat_byte(self.nonces);
            }
            if self.bug == Bug::HoldLatest {
                self.corrupt(|purchase| {
                    if purchase.key() == wish.key() {
                        (purchase.value, purchase.usd) =
                            (U256::from(value), Some(Usd::from_micros(value)));
                    }
                });
            }
            self.held
                .insert(id, (purchase.lease_until, nonce, value, method));
        }
    }

    async fn sign(&mut self, id: u8, validity: u64, behind: u64) {
        let Some((lease, nonce, value, method)) = self.held.get(&id).copied() else {
            return;
        };
        let behind = match self.kind {
            LimitKind::Rolling(..) => behind.min(LITTLE),
            _ => behind,
        };
        let now = self.now - behind;
        if self.bug == Bug::LapseUnfenced {
            self.corrupt(|purchase| {
                if purchase.key() == Self::key(id)
                    && purchase.state == State::Voided
                    && purchase.lease_until == lease
                {
                    purchase.state = State::Reserved;
                }
            });
        }
        let valid_before = now + validity;
        let payload = secrecy::SecretString::from("x");
        let signed = Transition::Signed {
            lease,
            valid_before,
            payload,
            presenter_lease_until: at(now),
        };
        // No authorization leaves before it is recorded.
        if self
            .ledger
            .record(&Self::key(id), &signed, at(now))
            .await
            .is_ok()
        {
            self.unsynced.clear();
            self.signed.push(Signed {
                nonce: nonce_of(nonce, method),
                method,
                value,
                valid_before,
                settled_at: None,
                charged: 0,
            });
            if self.bug == Bug::CountAcknowledged {
                self.give_back(id);
            }
            if self.bug == Bug::BelieveClock {
                self.corrupt(|purchase| {
                    if let Some(valid_before) = purchase.valid_before {
                        purchase.expires_at = at(valid_before + 60);
                    }
                });
            }
        }
    }

    fn give_back(&self, id: u8) {
        self.corrupt(|purchase| {
            if purchase.key() == Self::key(id) {
                purchase.state = State::Voided;
            }
        });
    }

    fn cash(&mut self, number: usize, percent: u64) {
        let used = self.used();
        let now = self.now;
        if let Some(signed) = self
            .signed
            .get_mut(number)
            .filter(|signed| signed.valid_before > now && !used.contains(&signed.nonce))
        {
            signed.settled_at = Some(now);
            signed.charged = match signed.method {
                PaymentMethod::Upto => signed.value * percent / 100,
                _ => signed.value,
            };
        }
    }

    fn used(&self) -> BTreeSet<Nonce> {
        self.signed
            .iter()
            .filter(|signed| signed.settled_at.is_some())
            .map(|signed| signed.nonce)
            .collect()
    }

    async fn record(&mut self, id: u8, transition: Transition) {
        let done = self
            .ledger
            .record(&Self::key(id), &transition, at(self.now))
            .await;
        if done.is_err() {
            return;
        }
        match transition.is_outcome() {
            true => self.unsynced.insert(id),
            false => self.unsynced.remove(&id),
        };
        match (self.bug, transition) {
            (Bug::ReleaseOnTimeout, Transition::Unresolved { .. })
            | (Bug::ForgetRejected, Transition::Rejected { .. }) => {
                self.give_back(id);
            }
            (Bug::ClaimFreesRoom, Transition::Settled { charged, .. }) => {
                self.corrupt(|purchase| {
                    if purchase.key() == Self::key(id) && purchase.proof.is_none() {
                        purchase.verified_charge = charged;
                    }
                });
            }
            (Bug::ProofFreesTooMuch, Transition::Confirmed { .. }) => self.corrupt(|purchase| {
                if purchase.key() == Self::key(id) {
                    purchase.verified_charge = purchase.verified_charge.map(|_| U256::ZERO);
                }
            }),
            (Bug::CountAtReceipt, Transition::Settled { .. }) => self.corrupt(|purchase| {
                if purchase.key() == Self::key(id) {
                    purchase.counts_at = at(self.now);
                }
            }),
            _ => {}
        }
    }

    async fn release(&mut self, id: u8) {
        let Some(purchase) = self.ledger.purchase(&Self::key(id)).await.unwrap() else {
            return;
        };
        let (Some(valid_before), nonce) = (purchase.valid_before, purchase.nonce) else {
            return;
        };
        let unused = nonce_of(nonce, purchase.payment_method.unwrap());
        let proved = valid_before <= self.now && !self.used().contains(&unused);
        if proved || self.bug == Bug::ReleaseByClock {
            let cancelled = self.bug == Bug::ReleaseByClock;
            // Bought again under the same nonce.
            let proof = r#"{"not_settled":{"kind":"expired"}}"#;
            let (valid_before, proof) = (Some(valid_before), proof.to_owned());
            let released = Transition::ReleasedByProof {
                nonce,
                valid_before,
                cancelled,
                proof,
            };
            self.record(id, released).await;
        }
    }

    /// Records the settlement of the chain with its charge.
    async fn prove(&mut self, id: u8) {
        let Some(purchase) = self.ledger.purchase(&Self::key(id)).await.unwrap() else {
            return;
        };
        let nonce = nonce_of(purchase.nonce, purchase.payment_method.unwrap());
        let settled = self
            .signed
            .iter()
            .find(|signed| signed.nonce == nonce && signed.settled_at.is_some());
        if let Some(settled) = settled {
            let confirmed = Transition::Confirmed {
                nonce: purchase.nonce,
                transaction: None,
                charged: Some(U256::from(settled.charged)),
                proof: "{}".to_owned(),
            };
            self.record(id, confirmed).await;
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Reserve {
                id,
                value,
                changed,
                ahead,
                by,
            } => {
                let wish = self.wish(id, value, changed, ahead, by);
                self.reserve(id, value, &wish).await;
            }
            Step::ReserveBoth { ids, value } => {
                let mut wishes = [
                    self.wish(ids.0, value, false, 0, 0),
                    self.wish(ids.1, value, false, 0, 0),
                ];
                if self.bug == Bug::CheckThenAct {
                    for wish in &mut wishes {
                        let findings = self.ledger.examine(&wish.checks).await.unwrap();
                        if findings.iter().all(|finding| finding.denial.is_none()) {
                            wish.checks.limits.clear();
                        }
                    }
                }
                self.reserve(ids.0, value, &wishes[0]).await;
                self.reserve(ids.1, value, &wishes[1]).await;
            }
            Step::Buy {
                id,
                value,
                changed,
                validity,
                by,
                commit_is_lost,
            } => {
                let wish = self.wish(id, value, changed, 0, by);
                self.buy(value, wish, validity, commit_is_lost).await;
            }
            Step::LoseOutcome { id } => self.lose_outcome(id),
            Step::Sign {
                id,
                validity,
                behind,
            } => self.sign(id, validity, behind).await,
            Step::Doubt { id, validity } => {
                let reason = "the signer hung".to_owned();
                self.record(
                    id,
                    Transition::SignerTimedOut {
                        method: PaymentMethod::Eip3009,
                        valid_before: self.now + validity,
                        reason,
                    },
                )
                .await;
            }
            Step::Lose { id } => {
                self.record(
                    id,
                    Transition::Unresolved {
                        reason: "lost".to_owned(),
                        answer: None,
                    },
                )
                .await
            }
            Step::Reject { id } => {
                self.record(
                    id,
                    Transition::Rejected {
                        reason: "no".to_owned(),
                        answer: SellerAnswer::of(402),
                    },
                )
                .await;
            }
            Step::Settle {
                id,
                settled_on_chain,
                claim,
            } => {
                let held = self.held.get(&id).copied();
                if settled_on_chain {
                    let nonce = held.map(|(_, nonce, _, method)| nonce_of(nonce, method));
                    let number = self
                        .signed
                        .iter()
                        .rposition(|signed| Some(signed.nonce) == nonce);
                    number.into_iter().for_each(|number| self.cash(number, 100));
                }
                let mut receipt = settled();
                if let Transition::Settled { charged, .. } = &mut receipt {
                    let upto = held.filter(|(.., method)| *method == PaymentMethod::Upto);
                    *charged = upto.map(|(_, _, value, _)| U256::from(value * claim / 100));
                }
                self.record(id, receipt).await;
            }
            Step::Free { id } => self.record(id, given_up()).await,
            Step::Resume => {
                let like = order("0", 0);
                let (payer, fingerprint, origin) = (like.payer, like.fingerprint, like.origin);
                let (now, until) = (at(self.now), at(self.now + 20));
                let wanted = Resumption {
                    payer,
                    fingerprint,
                    origin,
                    now,
                    until,
                    ended: Vec::new(),
                };
                self.ledger.resume(&wanted).await.unwrap();
            }
            Step::Cash { number, percent } => self.cash(number, percent),
            Step::Prove { id } => self.prove(id).await,
            Step::Release { id } => self.release(id).await,
            Step::Wait { seconds } => self.now += seconds,
        }
    }

    /// Returns the amount that the chain settled in the window, and the most that it can still settle.
    /// For a limit on exposure: the most that it can still settle of payments without a receipt.
    async fn spent(&self) -> u64 {
        let since = match self.kind {
            LimitKind::Rolling(..) => self.now - WINDOW,
            _ => 0,
        };
        let moved: u64 = self
            .signed
            .iter()
            .filter(|signed| signed.settled_at.is_some_and(|at| at > since))
            .map(|signed| signed.charged)
            .sum();
        let used = self.used();
        let mut open: BTreeMap<Nonce, u64> = BTreeMap::new();
        for signed in &self.signed {
            if signed.valid_before > self.now && !used.contains(&signed.nonce) {
                let largest = open.entry(signed.nonce).or_default();
                *largest = signed.value.max(*largest);
            }
        }
        if matches!(self.kind, LimitKind::Exposure(_)) {
            let purchases = self.ledger.purchases(&Filter::all()).await.unwrap();
            let with_receipt = purchases
                .iter()
                .filter(|known| known.state == State::Settled);
            for known in with_receipt {
                open.retain(|(nonce, _), _| *nonce != known.nonce);
            }
            return open.values().sum();
        }
        moved + open.values().sum::<u64>()
    }
}

fn live_through(bug: Bug, kind: &LimitKind, steps: &[Step]) -> Result<(), TestCaseError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::new(bug, kind.clone());
        for step in steps {
            world.take(*step).await;
            let spent = world.spent().await;
            prop_assert!(
                spent <= LIMIT,
                "{spent} of {LIMIT} after {step:?}: {:?}",
                world.signed
            );
        }
        // One transfer for each purchase and generation, at most.
        let purchases = world.ledger.purchases(&Filter::all()).await.unwrap();
        prop_assert!(purchases.len() <= 6);
        Ok(())
    })
}

fn kinds() -> [LimitKind; 3] {
    let limit = Usd::from_micros(LIMIT);
    [
        LimitKind::Lifetime(limit.into()),
        LimitKind::Rolling(Duration::from_secs(WINDOW), limit.into()),
        LimitKind::Exposure(limit.into()),
    ]
}

/// Some hundred thousand steps; a million and more by `BURSAR_MODEL_CASES=20000`.
fn cases() -> u32 {
    std::env::var("BURSAR_MODEL_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(2000)
}

/// Random steps for the correct ledger, and the same steps in every run for the broken ones.
fn hunt(bug: Bug, kind: &LimitKind, cases: u32) -> Result<(), TestError<Vec<Step>>> {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    };
    let mut runner = match bug {
        Bug::None => TestRunner::new(config),
        _ => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    runner.run(&prop::collection::vec(step(), 1..80), |steps| {
        live_through(bug, kind, &steps)
    })
}

#[test]
fn no_chain_and_no_seller_exceeds_a_limit() {
    for kind in kinds() {
        hunt(Bug::None, &kind, cases()).unwrap();
    }
}

macro_rules! bugs {
    ($($name:ident: $bug:ident;)*) => {$(
        #[test]
        fn $name() {
            let caught = kinds().iter().any(|kind| hunt(Bug::$bug, kind, 20_000).is_err());
            assert!(caught, "a ledger with the bug {:?} passed", Bug::$bug);
        }
    )*};
}

bugs! {
    the_suite_catches_release_on_timeout: ReleaseOnTimeout;
    the_suite_catches_check_then_act: CheckThenAct;
    the_suite_catches_a_fresh_nonce: FreshNonce;
    the_suite_catches_counting_the_acknowledged_alone: CountAcknowledged;
    the_suite_catches_forgetting_the_rejected: ForgetRejected;
    the_suite_catches_an_unfenced_lapse: LapseUnfenced;
    the_suite_catches_counting_at_the_receipt: CountAtReceipt;
    the_suite_catches_holding_the_latest: HoldLatest;
    the_suite_catches_release_by_the_clock: ReleaseByClock;
    the_suite_catches_a_claim_that_frees_room: ClaimFreesRoom;
    the_suite_catches_a_proof_that_frees_too_much: ProofFreesTooMuch;
    the_suite_catches_both_kinds_of_signatures: BothKinds;
    the_suite_catches_belief_in_every_clock: BelieveClock;
    the_suite_catches_a_signature_that_leaves_before_the_commit: LeavesBeforeCommit;
    the_suite_catches_a_signature_for_a_denied_purchase: SignsDenied;
    the_suite_catches_a_lost_outcome_that_releases_room: LostOutcomeReleases;
}
