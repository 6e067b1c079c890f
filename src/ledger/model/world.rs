//! The ledger, the chain and the seller, and the effect of each step on them.

mod one_step;

use std::collections::{BTreeMap, BTreeSet};

use alloy::primitives::{B256, U256};

use super::*;
use crate::clock::Timestamp;
use crate::ledger::backend::Backend;
use crate::ledger::conformance::resumed::wanted;
use crate::ledger::conformance::{NOW, at, given_up, order, settled, wish};
use crate::ledger::{
    Bought, Purchase, PurchaseKey, Reservation, Reserved, SellerAnswer, State, Terms, Transition,
};
use crate::limit::{Limit, Scope};
use crate::x402::PaymentMethod;

/// A signed authorization.
#[derive(Debug)]
pub(super) struct Signed {
    id: u8,
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

pub(super) struct World {
    pub(super) ledger: Ledger,
    bug: Bug,
    kind: LimitKind,
    now: u64,
    held: BTreeMap<u8, Held>,
    pub(super) signed: Vec<Signed>,
    nonces: u8,
    /// The purchases whose outcome is not on disk, as the disk has them. The log is written in order, so a later hold or
    /// signature takes the outcome along.
    unsynced: BTreeMap<u8, Purchase>,
}

impl World {
    pub(super) fn new(bug: Bug, kind: LimitKind) -> Self {
        let ledger = Ledger::memory();
        Self {
            ledger,
            bug,
            kind,
            now: NOW,
            held: BTreeMap::new(),
            signed: Vec::new(),
            nonces: 0,
            unsynced: BTreeMap::new(),
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
        let mut wish = wish(purchase, at(self.now + ahead), meters);
        wish.terms = if changed {
            Terms::Changed
        } else {
            Terms::First
        };
        wish
    }

    async fn reserve(&mut self, id: u8, value: u64, wish: &Reservation) {
        let (both, hung) = (self.bug == Bug::BothKinds, self.bug == Bug::HangForgetsKind);
        if both || hung {
            self.corrupt(|purchase| {
                if purchase.key() == wish.key() && (both || purchase.payload.is_none()) {
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

    /// Returns the time of a process whose clock is behind.
    fn clock_behind(&self, behind: u64) -> u64 {
        let behind = match self.kind {
            LimitKind::Rolling(..) => behind.min(LITTLE),
            _ => behind,
        };
        self.now - behind
    }

    async fn sign(&mut self, id: u8, validity: u64, behind: u64) {
        let Some((lease, nonce, value, method)) = self.held.get(&id).copied() else {
            return;
        };
        let now = self.clock_behind(behind);
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
            self.note_signed(id, nonce, (value, method), valid_before);
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

    fn note_signed(
        &mut self,
        id: u8,
        nonce: B256,
        (value, method): (u64, PaymentMethod),
        valid_before: u64,
    ) {
        self.signed.push(Signed {
            id,
            nonce: nonce_of(nonce, method),
            method,
            value,
            valid_before,
            settled_at: None,
            charged: 0,
        });
    }

    /// The signer of a hold does not answer in time. The worst signer has signed, and somebody else has the signature.
    async fn doubt(&mut self, id: u8, validity: u64, behind: u64) {
        let held = self.held.get(&id).copied();
        let now = self.clock_behind(behind);
        if held.is_some_and(|(lease, ..)| lease <= at(now)) && self.bug != Bug::AsksLate {
            return;
        }
        let valid_before = now + validity;
        // A signer that is asked under an older lease is another process's: that process throws its signature away.
        let stored = self.ledger.purchase(&Self::key(id)).await.unwrap();
        let current =
            held.filter(|(lease, ..)| stored.is_some_and(|stored| stored.lease_until == *lease));
        let method = held.map_or(PaymentMethod::Eip3009, |(.., method)| method);
        let timed_out = Transition::SignerTimedOut {
            method,
            valid_before,
            reason: "the signer hung".to_owned(),
        };
        let recorded = self
            .ledger
            .record(&Self::key(id), &timed_out, at(now))
            .await;
        if recorded.is_err() {
            return;
        }
        self.unsynced.remove(&id);
        if let Some((_, nonce, value, method)) = current {
            self.note_signed(id, nonce, (value, method), valid_before);
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

    /// Returns whether the ledger took it.
    async fn record(&mut self, id: u8, transition: Transition) -> bool {
        let before = self.ledger.purchase(&Self::key(id)).await.unwrap();
        let done = self
            .ledger
            .record(&Self::key(id), &transition, at(self.now))
            .await;
        if done.is_err() {
            return false;
        }
        match before.filter(|_| transition.is_outcome()) {
            Some(before) => drop(self.unsynced.entry(id).or_insert(before)),
            None => drop(self.unsynced.remove(&id)),
        }
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
            (Bug::ProofBelievesClaim, Transition::Confirmed { .. }) => self.corrupt(|purchase| {
                if purchase.key() == Self::key(id) {
                    purchase.verified_charge = purchase.claimed_charge;
                }
            }),
            (Bug::CountAtReceipt, Transition::Settled { .. }) => self.corrupt(|purchase| {
                if purchase.key() == Self::key(id) {
                    purchase.counts_at = at(self.now);
                }
            }),
            _ => {}
        }
        true
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

    /// Records the settlement of the chain, with a reading of its charge if it tells one.
    async fn prove(&mut self, id: u8, tells: bool, more: u64) {
        let Some(purchase) = self.ledger.purchase(&Self::key(id)).await.unwrap() else {
            return;
        };
        let nonce = nonce_of(purchase.nonce, purchase.payment_method.unwrap());
        let settled = self
            .signed
            .iter()
            .find(|signed| signed.nonce == nonce && signed.settled_at.is_some());
        if let Some(settled) = settled {
            // A reading counts all that the payer moved in the block.
            let reading = settled.charged + (settled.value - settled.charged) * more / 100;
            let confirmed = Transition::Confirmed {
                nonce: purchase.nonce,
                transaction: None,
                charged: tells.then(|| U256::from(reading)),
                proof: "{}".to_owned(),
            };
            self.record(id, confirmed).await;
        }
    }

    /// A sign-in changes nothing in the ledger. Returns whether the seller is taken for one that knows the wallet.
    async fn enter(&self) -> bool {
        let like = order("0", 0);
        let bought = Bought {
            payer: like.payer,
            origin: &like.origin,
            path: Some(&like.path),
        };
        if self.bug == Bug::KnownByHold {
            let purchases = self.ledger.purchases(&Filter::all()).await.unwrap();
            return purchases.iter().any(|known| known.state != State::Voided);
        }
        self.ledger.has_bought(&bought).await.unwrap()
    }

    /// Returns the ids of purchases with two authorizations that settled or can settle, and do not exclude each other.
    pub(super) fn doubled(&self) -> Vec<u8> {
        let used = self.used();
        let mut nonces: BTreeMap<u8, BTreeSet<Nonce>> = BTreeMap::new();
        for signed in &self.signed {
            let is_open = signed.valid_before > self.now && !used.contains(&signed.nonce);
            if is_open || signed.settled_at.is_some() {
                nonces.entry(signed.id).or_default().insert(signed.nonce);
            }
        }
        nonces.retain(|_, nonces| nonces.len() > 1);
        nonces.into_keys().collect()
    }

    pub(super) async fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
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
                self.buy((id, value), wish, validity, commit_is_lost).await;
            }
            Step::LoseOutcome { id } => self.lose_outcome(id),
            Step::Sign {
                id,
                validity,
                behind,
            } => self.sign(id, validity, behind).await,
            Step::Doubt {
                id,
                validity,
                behind,
            } => self.doubt(id, validity, behind).await,
            Step::Lose { id } => {
                let lost = Transition::Unresolved {
                    reason: "lost".to_owned(),
                    answer: None,
                };
                self.record(id, lost).await;
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
            Step::Free { id } => drop(self.record(id, given_up()).await),
            Step::Resume => {
                let wanted = wanted(&order("0", 0), self.now);
                self.ledger.resume(&wanted).await.unwrap();
            }
            Step::Cash { number, percent } => self.cash(number, percent),
            Step::Prove { id, tells, more } => self.prove(id, tells, more).await,
            Step::Release { id } => self.release(id).await,
            Step::Enter => {
                let is_known = self.enter().await;
                prop_assert!(
                    !is_known || !self.signed.is_empty(),
                    "a seller without a signature is told who comes"
                );
            }
            Step::Wait { seconds } => self.now += seconds,
        }
        Ok(())
    }

    /// Returns the amount that the chain settled in the window, and the most that it can still settle.
    /// For a limit on exposure: the most that it can still settle of payments without a receipt.
    pub(super) async fn spent(&self) -> u64 {
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
