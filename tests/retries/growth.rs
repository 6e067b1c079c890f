//! The size of the ledger: a seller cannot fill the disk.

use bursar::ledger::PurchaseKey;
use bursar::{Ledger, PaymentStatus, ResponseExt};
use bursar_testing::Route;
use bursar_tests::paywall::{open, purchases, report};
use bursar_tests::signatures::SignatureLog;
use serde_json::json;

use crate::{client, policy};

/// The most bytes of a file that a purchase takes, whatever the seller writes.
const MOST_BYTES: u64 = 32 * 1024;

#[tokio::test]
async fn the_ledger_grows_by_a_bounded_size_for_each_purchase_whatever_the_seller_writes() {
    const COUNT: u64 = 20;
    let long = |length| json!({ "info": { "pad": "a".repeat(length) } });
    let long_offer = json!({
        "scheme": "exact", "network": "eip155:84532", "amount": "1000", "maxTimeoutSeconds": 60,
        "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        "payTo": "0x209693Bc6afc0C5328bA36FaF03C514EF312287C",
        "extra": { "name": "USDC", "version": "2", "pad": "a".repeat(9_000) },
    });
    for route in [
        report().extension("x", long(40_000)),
        report()
            .extension("x", long(8_000))
            .description("d".repeat(8_000)),
        report()
            .extension("x", long(4_000))
            .description("d".repeat(4_000)),
        Route::get("/report").offers([long_offer.to_string()]),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger.db");
        let ledger = Ledger::sqlite(&path).unwrap();
        let seller = open(route).await;
        let client = client(&SignatureLog::default())
            .policy(policy())
            .ledger(ledger.clone())
            .build()
            .unwrap();
        let pages = || std::fs::metadata(&path).unwrap().len();
        let before = pages();
        for _ in 0..COUNT {
            let paid = client.get(seller.url("/report")).send().await.unwrap();
            assert_eq!(paid.payment_status(), PaymentStatus::Paid);
        }
        for purchase in purchases(&client).await {
            let key = PurchaseKey::new(purchase.payer, purchase.id.clone());
            let evidence = ledger.evidence(&key).await.unwrap();
            let terms = evidence.terms.unwrap();
            assert!(terms.get().len() <= 4 * 1024, "{}", terms.get().len());
        }
        drop((client, ledger));
        while std::fs::metadata(directory.path().join("ledger.db-wal")).is_ok() {
            tokio::task::yield_now().await;
        }
        let grown = (pages() - before) / COUNT;
        assert!(grown <= MOST_BYTES, "{grown} bytes for each purchase");
    }
}
