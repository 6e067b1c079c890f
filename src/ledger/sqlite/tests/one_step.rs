//! Signatures and outcomes at the edge of a transaction.

use super::*;
use crate::ledger::conformance::proved::released;
use crate::ledger::{InStep, Signature, SignsInStep};

/// The file is lost while the purchase is signed, so the commit cannot be trusted.
#[tokio::test]
async fn a_signature_whose_commit_is_not_certain_does_not_leave() {
    struct Saboteur(PathBuf);

    impl SignsInStep for Saboteur {
        fn sign(&self, held: &Purchase) -> InStep {
            fs::rename(witness_of(&self.0), self.0.with_extension("gone")).unwrap();
            InStep::Signed(Signature {
                at: held.updated_at,
                valid_before: NOW + 300,
                payload: secrecy::SecretString::from(PAYLOAD),
                presenter_lease_until: held.updated_at,
            })
        }
    }

    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    spend(&ledger).await;
    let wished = Arc::new(wish(order("four", 10), at(NOW), lifetime(100)));
    let signer: Arc<dyn SignsInStep> = Arc::new(Saboteur(path.clone()));
    let error = ledger.buy(&wished, &signer).await.unwrap_err();
    assert!(matches!(error, LedgerError::Damaged(_)), "{error:?}");
    drop(ledger);
    fs::rename(path.with_extension("gone"), witness_of(&path)).unwrap();
    // The ledger may hold the signed purchase, and then it counts.
    let again = Ledger::sqlite(&path).unwrap();
    assert!(again.verify(None).await.unwrap().is_sound());
}

/// An outcome that a power cut takes leaves the payment signed, and its amount counts.
#[tokio::test]
async fn an_outcome_that_is_lost_at_a_power_cut_frees_no_room() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    for id in ["one", "two", "three"] {
        sign(&ledger, id).await.unwrap();
    }
    let synced = length(&log_of(&path));
    let key = order("three", 10).key();
    ledger.record_or_keep(&key, settled()).await;
    // A later call sees it at once.
    let purchase = ledger.purchase(&key).await.unwrap().unwrap();
    assert_eq!(purchase.state, State::Settled);
    assert!(length(&log_of(&path)) > synced);
    let (_copy, copy) = crash(&path);
    cut(&log_of(&copy), synced);
    let after = Ledger::sqlite(&copy).unwrap();
    let purchase = after.purchase(&key).await.unwrap().unwrap();
    assert_eq!(purchase.state, State::Signed);
    assert!(is_denied(&after).await);
    assert!(after.verify(None).await.unwrap().is_sound());
}

/// A receipt for a payment that was released takes its room again, which a power cut must not undo.
#[tokio::test]
async fn an_outcome_that_takes_room_again_is_on_disk_at_once() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "one").await.unwrap();
    let key = order("one", 10).key();
    let syncs = || {
        thread_of(&ledger)
            .thread
            .guard
            .as_ref()
            .unwrap()
            .costs
            .all()[1]
    };
    let proof = released(&ledger, &key, NOW + 300, false).await;
    ledger.record(&key, &proof, at(NOW + 361)).await.unwrap();
    let before = syncs();
    ledger
        .record(&key, &settled(), at(NOW + 362))
        .await
        .unwrap();
    assert_eq!(syncs(), before + 1);
    ledger
        .record(&key, &settled(), at(NOW + 363))
        .await
        .unwrap();
    assert_eq!(syncs(), before + 1);
}

#[tokio::test]
async fn an_outcome_is_in_the_file_when_the_ledger_is_closed() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    sign(&ledger, "one").await.unwrap();
    let key = order("one", 10).key();
    ledger.record_or_keep(&key, settled()).await;
    drop(ledger);
    let again = Ledger::sqlite(&path).unwrap();
    let purchase = again.purchase(&key).await.unwrap().unwrap();
    assert_eq!(purchase.state, State::Settled);
}

/// Without a pause: the other handle does not wait until the outcome is written of itself.
#[tokio::test]
async fn a_program_sees_what_it_recorded_through_any_of_its_handles() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    let other = Ledger::sqlite(&path).unwrap();
    for id in ["one", "two", "three"] {
        sign(&ledger, id).await.unwrap();
        let key = order(id, 10).key();
        assert!(other.purchase(&key).await.unwrap().is_some());
        ledger.record_or_keep(&key, settled()).await;
        let seen = other.purchase(&key).await.unwrap().unwrap();
        assert_eq!(seen.state, State::Settled, "{id}");
    }
}

#[tokio::test]
async fn a_backup_has_the_outcomes_that_were_recorded_before_it() {
    let (_directory, path) = new_path();
    let ledger = Ledger::sqlite(&path).unwrap();
    for number in 0..3 {
        let id = format!("order-{number}");
        sign(&ledger, &id).await.unwrap();
        let key = order(&id, 10).key();
        ledger.record_or_keep(&key, settled()).await;
        let copy = path.with_extension(format!("copy-{number}"));
        ledger.backup(&copy).await.unwrap();
        let (copied, restored) = (copy, path.with_extension(format!("restored-{number}")));
        Ledger::restore(&copied, &restored).unwrap();
        let restored = Ledger::open_existing(&restored).unwrap();
        let purchase = restored.purchase(&key).await.unwrap().unwrap();
        assert_eq!(purchase.state, State::Settled, "{number}");
    }
}
