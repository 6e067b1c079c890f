//! Tests of the handle: opening, reading and the outcomes that are pending.

use std::sync::Arc;

use alloy::primitives::{Address, B256, U256};

use super::conformance::{NOW, at, given_up, hold, order, settled, signed};
use super::*;

fn memory() -> Ledger {
    Ledger::memory().with_clock(Arc::new(|| at(NOW)))
}

#[test]
fn a_place_is_opened_by_its_form() {
    assert_eq!(
        format!("{:?}", Ledger::open(":memory:").unwrap()),
        "Ledger(\"memory\")"
    );
    #[cfg(feature = "sqlite")]
    {
        let directory = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(directory.path().join("ledger.db")).unwrap();
        assert_eq!(format!("{ledger:?}"), "Ledger(\"sqlite\")");
    }
    #[cfg(not(feature = "sqlite"))]
    assert!(matches!(
        Ledger::open("ledger.db"),
        Err(LedgerError::MissingFeature { feature: "sqlite" })
    ));
    #[cfg(not(feature = "postgres"))]
    for url in ["postgres://localhost/x", "postgresql://localhost/x"] {
        assert!(matches!(
            Ledger::open(url),
            Err(LedgerError::MissingFeature {
                feature: "postgres"
            })
        ));
    }
}

#[cfg(feature = "postgres")]
#[tokio::test]
async fn a_url_is_used_when_the_ledger_is_first_read() {
    for url in [
        "postgres://127.0.0.1:1/x?sslmode=disable",
        "postgresql://127.0.0.1:1/x?sslmode=disable",
    ] {
        let ledger = Ledger::open(url).unwrap();
        let answer = ledger.purchases(&Filter::all()).await;
        assert!(matches!(answer, Err(LedgerError::Store(_))), "{answer:?}");
    }
    let wrong = Ledger::open("postgres://h/x?port=secret").unwrap_err();
    assert!(!wrong.to_string().contains("secret"), "{wrong}");
}

#[tokio::test]
async fn an_id_of_two_payers_who_bought_nothing_is_ambiguous() {
    let ledger = memory();
    let mine = hold(&ledger, order("order", 10), NOW).await;
    let found = ledger.purchase_by_id(&mine.id).await.unwrap();
    assert_eq!(found.unwrap().key(), mine);
    let other = NewPurchase {
        payer: Address::repeat_byte(0xEE),
        ..order("order", 10)
    };
    let free = |key: PurchaseKey| {
        let ledger = ledger.clone();
        async move { ledger.record(&key, &given_up(), at(NOW)).await.unwrap() }
    };
    free(mine.clone()).await;
    let other = hold(&ledger, other, NOW).await;
    let found = ledger.purchase_by_id(&mine.id).await.unwrap();
    assert_eq!(found.unwrap().key(), other, "the one that counts");
    free(other).await;
    let answer = ledger.purchase_by_id(&mine.id).await;
    assert!(
        matches!(&answer, Err(LedgerError::AmbiguousPurchase(id)) if *id == mine.id),
        "{answer:?}"
    );
    let unknown = ledger.purchase_by_id(&"never".parse().unwrap()).await;
    assert!(unknown.unwrap().is_none());
}

#[tokio::test]
async fn a_pending_outcome_is_recorded_before_the_ledger_is_read() {
    let ledger = memory();
    let key = hold(&ledger, order("order", 10), NOW).await;
    ledger
        .record(&key, &signed(NOW + 300), at(NOW))
        .await
        .unwrap();
    ledger.add_pending(key.clone(), settled());
    let clone = ledger.clone();
    let found = clone.purchases(&Filter::all()).await.unwrap().remove(0);
    assert_eq!(found.state, State::Settled);
    // An outcome that comes too late is dropped.
    ledger.add_pending(
        key.clone(),
        Transition::Voided {
            lease: found.lease_until,
        },
    );
    let found = clone.purchase(&key).await.unwrap().unwrap();
    assert_eq!(found.state, State::Settled);
}

#[tokio::test]
async fn a_transaction_is_a_refund_of_one_purchase() {
    let ledger = memory();
    let transaction = B256::repeat_byte(7);
    let mut keys = Vec::new();
    for id in ["first", "second"] {
        let key = hold(&ledger, order(id, 10), NOW).await;
        ledger
            .record(&key, &signed(NOW + 300), at(NOW))
            .await
            .unwrap();
        keys.push(key);
    }
    let refund = |key: &PurchaseKey, value| {
        let (ledger, key) = (ledger.clone(), key.clone());
        async move {
            ledger
                .record_refund(&key, transaction, U256::from(value))
                .await
        }
    };
    refund(&keys[0], 4).await.unwrap();
    refund(&keys[0], 4).await.unwrap();
    let refused = refund(&keys[1], 4).await.unwrap_err();
    assert!(
        matches!(&refused, LedgerError::RefundedElsewhere { purchase, .. } if *purchase == keys[0].id),
        "{refused}"
    );
    let found = ledger.purchase(&keys[0]).await.unwrap().unwrap();
    assert_eq!((found.refunds.len(), found.refunded()), (1, U256::from(4)));
    assert_eq!(found.refunds[0].at(), at(NOW));
}

#[tokio::test]
async fn a_memory_ledger_has_no_events() {
    let ledger = memory();
    hold(&ledger, order("order", 10), NOW).await;
    let verification = ledger.verify(None).await.unwrap();
    assert!(verification.is_sound());
    assert_eq!((verification.events, verification.purchases), (0, 1));
    let head = B256::repeat_byte(1);
    let verification = ledger.verify(Some(head)).await.unwrap();
    assert_eq!(verification.faults, [LedgerFault::HeadMissing(head)]);
}

/// A URL of another program holds the same password, and an error about a missing file would show it.
#[test]
fn a_url_that_is_not_of_postgres_is_refused_and_not_repeated() {
    for url in [
        "POSTGRES://me:s3cret@h/db",
        " postgres://me:s3cret@h/db",
        "postgre://me:s3cret@h/db",
        "postgresql+asyncpg://me:s3cret@h/db",
        "mysql://me:s3cret@h/db",
        "sqlite://agent-s3cret.db",
    ] {
        for error in [Ledger::open(url), Ledger::open_existing(url)].map(Result::unwrap_err) {
            let text = format!("{error} {error:?}");
            assert!(
                matches!(error, LedgerError::Store(_)) && !text.contains("s3cret"),
                "{text}"
            );
            assert!(text.contains("postgres://"), "{text}");
        }
    }
}
