//! Holding, signing and recording in one step.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::*;
use crate::ledger::{Flight, InStep, Obtained, Signature, SignsInStep};

/// A signer that does as it is told, and counts.
pub(in crate::ledger) struct Pen {
    pub(in crate::ledger) asked: AtomicUsize,
    pub(in crate::ledger) does: fn() -> Does,
    pub(in crate::ledger) seen: Mutex<Vec<Purchase>>,
}

pub(in crate::ledger) enum Does {
    Sign,
    Fail,
    Leave,
}

impl Pen {
    pub(in crate::ledger) fn new(does: fn() -> Does) -> Arc<Self> {
        Arc::new(Self {
            asked: AtomicUsize::new(0),
            does,
            seen: Mutex::default(),
        })
    }

    pub(in crate::ledger) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl SignsInStep for Pen {
    fn sign(&self, held: &Purchase) -> InStep {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.seen.lock().unwrap().push(held.clone());
        match (self.does)() {
            Does::Sign => InStep::Signed(Signature {
                at: held.updated_at,
                valid_before: NOW + 300,
                payload: SecretString::from(PAYLOAD),
                presenter_lease_until: held.updated_at.after(LEASE),
            }),
            Does::Fail => InStep::Failed,
            Does::Leave => InStep::Abandoned,
        }
    }
}

pub(in crate::ledger) async fn buy(
    ledger: &Ledger,
    pen: &Arc<Pen>,
    wish: Reservation,
) -> Result<Obtained, LedgerError> {
    let pen = Arc::clone(pen) as Arc<dyn SignsInStep>;
    ledger.buy(&Arc::new(wish), &pen).await
}

pub(super) async fn a_purchase_is_held_signed_and_recorded_in_one_step(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let pen = Pen::new(|| Does::Sign);
    let wished = wish(order("order", 10), at(NOW), lifetime(10));
    let key = wished.key();
    let obtained = buy(&ledger, &pen, wished.clone()).await.unwrap();
    let Obtained::Signed(signed) = obtained else {
        panic!("{obtained:?}");
    };
    assert_eq!(signed.signature.payload.expose_secret(), PAYLOAD);
    let stored = state(&ledger, &key).await;
    assert_eq!(format!("{stored:?}"), format!("{:?}", signed.purchase));
    assert_eq!(stored.state, State::Signed);
    assert_eq!(stored.valid_before, Some(NOW + 300));
    assert_eq!(stored.nonce, pen.seen.lock().unwrap()[0].nonce);
    assert_eq!((stored.seq, pen.asked()), (1, 1));
    // It counts, and is presented again and never signed again.
    let next = wish(order("next", 1), at(NOW), lifetime(10));
    let denied = buy(&ledger, &pen, next).await.unwrap();
    assert!(
        matches!(&denied, Obtained::NotHeld(Reserved::Denied(_))),
        "{denied:?}"
    );
    let known = buy(&ledger, &pen, wished).await.unwrap();
    assert!(
        matches!(&known, Obtained::NotHeld(Reserved::Known(_))),
        "{known:?}"
    );
    assert_eq!(pen.asked(), 1, "a denied or known purchase is not signed");
    ledger.record(&key, &settled(), at(NOW)).await.unwrap();
    assert_eq!(state(&ledger, &key).await.state, State::Settled);
}

pub(super) async fn a_key_that_fails_leaves_the_hold_and_a_caller_that_left_leaves_nothing(
    ledgers: &Ledgers,
) {
    let ledger = ledgers.open().await;
    let ask = |id| wish(order(id, 10), at(NOW), lifetime(10));
    if !matches!(ledgers.kind, Kind::Memory) && ledger.buys_in_one_step() {
        let gone = buy(&ledger, &Pen::new(|| Does::Leave), ask("gone")).await;
        assert!(matches!(gone, Ok(Obtained::Abandoned)), "{gone:?}");
        assert!(ledger.purchases(&Filter::all()).await.unwrap().is_empty());
    }
    let failed = buy(&ledger, &Pen::new(|| Does::Fail), ask("failed")).await;
    assert!(matches!(failed, Ok(Obtained::Unsigned(_))), "{failed:?}");
    let key = order("failed", 10).key();
    assert_eq!(state(&ledger, &key).await.state, State::Reserved);
    assert!(
        denied(&ledger, order("next", 1), NOW, lifetime(10))
            .await
            .is_some()
    );
    // The caller records that nothing was signed, and the room returns.
    ledger.record(&key, &given_up(), at(NOW)).await.unwrap();
    assert!(
        denied(&ledger, order("next", 1), NOW, lifetime(10))
            .await
            .is_none()
    );
}

pub(super) async fn calls_at_once_sign_exactly_as_many_as_fit(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let pen = Pen::new(|| Does::Sign);
    let calls = (0..20).map(|number| {
        let (ledger, pen) = (ledger.clone(), Arc::clone(&pen));
        let id = format!("order-{number}");
        tokio::spawn(async move {
            let wish = wish(order(&id, 10), at(NOW), lifetime(70));
            matches!(buy(&ledger, &pen, wish).await.unwrap(), Obtained::Signed(_))
        })
    });
    let mut signed = 0;
    for call in calls.collect::<Vec<_>>() {
        signed += usize::from(call.await.unwrap());
    }
    assert_eq!(signed, 7);
    let purchases = ledger.purchases(&Filter::all()).await.unwrap();
    assert_eq!(purchases.len(), 7);
    assert!(purchases.iter().all(|known| known.state == State::Signed));
}

pub(super) async fn changed_terms_are_signed_in_one_step_under_the_same_nonce(ledgers: &Ledgers) {
    let ledger = ledgers.open().await;
    let pen = Pen::new(|| Does::Sign);
    let first = wish(order("order", 10), at(NOW), lifetime(30));
    let key = first.key();
    buy(&ledger, &pen, first).await.unwrap();
    ledger.record(&key, &rejected(), at(NOW)).await.unwrap();
    let mut more = wish(order("order", 20), at(NOW + 61), lifetime(30));
    more.terms = Terms::Changed;
    let flight: Arc<Flight> = ledger.flight();
    more.flight = Some(Arc::clone(&flight));
    let obtained = buy(&ledger, &pen, more).await.unwrap();
    assert!(matches!(obtained, Obtained::Signed(_)), "{obtained:?}");
    assert!(ledger.is_presented_here(&key));
    let stored = state(&ledger, &key).await;
    assert_eq!(
        (stored.state, stored.value),
        (State::Signed, U256::from(20))
    );
    let seen = pen.seen.lock().unwrap();
    assert_eq!(seen[0].nonce, seen[1].nonce);
}
