//! Finished purchases whose large parts move to an archive.

use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::*;
use crate::ledger::prune::WORTHWHILE;

/// Signs a purchase with a payment and terms of a usual length.
async fn sign_whole(ledger: &Ledger, id: &str, now: u64) -> PurchaseKey {
    let mut purchase = order(id, 10);
    purchase.terms = Some(format!("{{\"offer\":\"{}\"}}", "o".repeat(700)));
    let key = hold(ledger, purchase, now).await;
    let signed = Transition::Signed {
        lease: at(now).after(LEASE),
        valid_before: now + 300,
        payload: SecretString::from("s1gnature".repeat(WORTHWHILE)),
        presenter_lease_until: at(0),
    };
    ledger.record(&key, &signed, at(now)).await.unwrap();
    key
}

async fn settle(ledger: &Ledger, id: &str, now: u64) -> PurchaseKey {
    let key = sign_whole(ledger, id, now).await;
    ledger.record(&key, &settled(), at(now)).await.unwrap();
    key
}

pub(super) async fn finished_purchases_are_archived_and_still_count(ledgers: &Ledgers) {
    let later = NOW + 10_000;
    let ledger = ledgers.open().await.with_clock(Arc::new(move || at(later)));
    let done = [
        settle(&ledger, "first", NOW).await,
        settle(&ledger, "second", NOW + 1).await,
    ];
    let open = [
        sign_whole(&ledger, "unresolved", NOW).await,
        // It can settle for some seconds.
        settle(&ledger, "not-expired", later - 5).await,
        settle(&ledger, "too-new", NOW + 100).await,
        sign(&ledger, order("small", 10), NOW, NOW + 300).await,
    ];
    ledger.record(&open[3], &settled(), at(NOW)).await.unwrap();
    let meters = [
        meter(Scope::Global, LimitKind::Lifetime(micros(1000))),
        meter(Scope::Global, LimitKind::Rolling(24 * HOUR, micros(1000))),
    ];
    let mut counted = Vec::new();
    for meter in &meters {
        counted.push(used(&ledger, later, meter.clone()).await);
    }
    let noted = ledger.verify(None).await.unwrap();
    let whole = state(&ledger, &done[0]).await;

    let files = TempDir::new().unwrap();
    let archive = files.path().join("archive.jsonl");
    let pruned = ledger.prune(at(NOW + 100), &archive).await.unwrap();
    assert_eq!((pruned.archived, pruned.pruned), (2, 2));
    let text = std::fs::read_to_string(&archive).unwrap();
    assert_eq!(u64::try_from(text.len()).unwrap(), pruned.bytes);
    assert!(!text.contains("s1gnature"), "an archive has no signature");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    for (line, key) in lines.iter().zip(&done) {
        let archived: Value = serde_json::from_str(line).unwrap();
        assert_eq!(archived["purchase"], key.id.as_str());
        assert!(
            archived["terms"].as_str().unwrap().contains("ooo"),
            "{line}"
        );
        assert_eq!(archived["answer"]["status"], 200);
        let row = state(&ledger, key).await;
        assert_eq!(row.archived(), Some(B256::new(Sha256::digest(line).into())));
        assert!(row.payload.is_none() && row.answer.is_none());
        assert_eq!((row.state, row.status), (State::Settled, Some(200)));
    }
    let row = state(&ledger, &done[0]).await;
    assert_eq!(
        (
            row.value,
            row.nonce,
            row.transaction,
            row.counts_at,
            row.expires_at
        ),
        (
            whole.value,
            whole.nonce,
            whole.transaction,
            whole.counts_at,
            whole.expires_at
        )
    );
    for key in &open {
        let row = state(&ledger, key).await;
        assert!(
            row.payload.is_some() && row.archived().is_none(),
            "{}",
            key.id
        );
    }

    for (meter, counted) in meters.iter().zip(counted) {
        assert_eq!(used(&ledger, later, meter.clone()).await, counted);
    }
    // The chain of hashes goes on, and has the head from before.
    let verified = ledger.verify(Some(noted.head)).await.unwrap();
    assert!(verified.is_sound(), "{:?}", verified.faults);
    // The id is not bought again.
    let again = ledger
        .reserve(&wish(order("first", 10), at(later), Vec::new()))
        .await;
    assert!(matches!(again, Ok(Reserved::Known(_))), "{again:?}");

    let nothing = files.path().join("nothing.jsonl");
    let pruned = ledger.prune(at(NOW + 100), &nothing).await.unwrap();
    assert_eq!((pruned.archived, nothing.exists()), (0, false));
}

pub(super) async fn a_pruned_purchase_takes_proofs_and_refunds(ledgers: &Ledgers) {
    let later = NOW + 10_000;
    let ledger = ledgers.open().await.with_clock(Arc::new(move || at(later)));
    let key = settle(&ledger, "first", NOW).await;
    let files = TempDir::new().unwrap();
    let archive = files.path().join("archive.jsonl");
    ledger.prune(at(later), &archive).await.unwrap();
    let refund = B256::repeat_byte(3);
    ledger
        .record_refund(&key, refund, U256::from(4))
        .await
        .unwrap();
    let confirmed = confirmed(&ledger, &key, "{\"settled\":{}}").await;
    ledger.record(&key, &confirmed, at(later)).await.unwrap();
    let row = state(&ledger, &key).await;
    assert!(row.was_refunded_by(refund) && row.proof.is_some() && row.archived().is_some());
    assert!(ledger.verify(None).await.unwrap().is_sound());
}

pub(super) async fn nothing_is_pruned_without_its_archive(ledgers: &Ledgers) {
    let later = NOW + 10_000;
    let ledger = ledgers.open().await.with_clock(Arc::new(move || at(later)));
    let key = settle(&ledger, "first", NOW).await;
    let files = TempDir::new().unwrap();
    let archive = files.path().join("archive.jsonl");
    std::fs::write(&archive, "older").unwrap();
    for place in [archive.clone(), files.path().join("missing/archive.jsonl")] {
        let error = ledger.prune(at(later), &place).await.unwrap_err();
        assert!(matches!(error, LedgerError::Archive { .. }), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&archive).unwrap(), "older");
    assert!(state(&ledger, &key).await.payload.is_some());
    // A purchase that changed after it was archived stays whole.
    let row = state(&ledger, &key).await;
    let pruned = Transition::Pruned {
        as_of: row.updated_at,
        line: B256::ZERO,
    };
    let lost = Transition::BodyLost {
        reason: "broke".to_owned(),
    };
    ledger.record(&key, &lost, at(later - 1)).await.unwrap();
    let refused = ledger.record(&key, &pruned, at(later)).await;
    assert!(
        matches!(refused, Err(LedgerError::Transition { .. })),
        "{refused:?}"
    );
    assert!(state(&ledger, &key).await.payload.is_some());
}
