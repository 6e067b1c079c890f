//! Purchases that are held, signed and recorded in one step, and outcomes that a power cut takes.

use std::sync::{Arc, Mutex};

use super::*;
use crate::ledger::{InStep, Obtained, Signature, SignsInStep};

/// Signs at once, and remembers its signatures.
struct Pen {
    id: u8,
    now: u64,
    validity: u64,
    value: u64,
    made: Mutex<Vec<Signed>>,
}

impl SignsInStep for Pen {
    fn sign(&self, held: &Purchase) -> InStep {
        let method = held.payment_method.unwrap();
        let valid_before = self.now + self.validity;
        self.made.lock().unwrap().push(Signed {
            id: self.id,
            nonce: nonce_of(held.nonce, method),
            method,
            value: self.value,
            valid_before,
            settled_at: None,
            charged: 0,
        });
        InStep::Signed(Signature {
            at: at(self.now),
            valid_before,
            payload: secrecy::SecretString::from("x"),
            presenter_lease_until: at(self.now),
        })
    }
}

impl World {
    pub(super) async fn buy(
        &mut self,
        (id, value): (u8, u64),
        wish: Reservation,
        validity: u64,
        commit_is_lost: bool,
    ) {
        let (key, wish) = (wish.key(), Arc::new(wish));
        let before = self.ledger.purchase(&key).await.unwrap();
        let pen = Arc::new(Pen {
            id,
            now: self.now,
            validity,
            value,
            made: Mutex::default(),
        });
        let signer = Arc::clone(&pen) as Arc<dyn SignsInStep>;
        let obtained = self.ledger.buy(&wish, &signer).await.unwrap();
        match &obtained {
            Obtained::NotHeld(Reserved::Denied(_)) if self.bug == Bug::SignsDenied => {
                let now = wish.checks.now();
                let held = wish.purchase.open(0, now, now.after(wish.lease));
                signer.sign(&held);
            }
            _ => {}
        }
        if matches!(obtained, Obtained::Signed(_)) {
            self.unsynced.clear();
        }
        let leaves = !commit_is_lost || self.bug == Bug::LeavesBeforeCommit;
        if leaves {
            self.signed.append(&mut pen.made.lock().unwrap());
        }
        if commit_is_lost {
            // The transaction was not committed. A ledger that had no such purchase has none that counts.
            self.corrupt(|purchase| {
                if purchase.key() == key {
                    match &before {
                        Some(before) => *purchase = before.clone(),
                        None => purchase.state = State::Voided,
                    }
                }
            });
        }
    }

    /// The purchase is again as the disk has it.
    pub(super) fn lose_outcome(&mut self, id: u8) {
        let Some(before) = self.unsynced.remove(&id) else {
            return;
        };
        let is_bug = self.bug == Bug::LostOutcomeReleases;
        self.corrupt(|purchase| {
            if purchase.key() == Self::key(id) {
                *purchase = before.clone();
                if is_bug {
                    purchase.state = State::Voided;
                }
            }
        });
    }
}
