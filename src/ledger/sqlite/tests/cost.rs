//! The cost of a purchase, in pages, transactions and syncs. Counts do not depend on the speed of the machine.

#![expect(
    clippy::arithmetic_side_effects,
    reason = "an overflow fails the test, as it should"
)]

use std::sync::Arc;
use std::time::Duration;

use alloy::primitives::{U256, keccak256};
use secrecy::SecretString;

use super::*;
use crate::ledger::conformance::{at, order};
use crate::ledger::{InStep, NewPurchase, Obtained, Signature, SignsInStep};
use crate::limit::{Limit, LimitKind};

/// The size of a page in the log, with its header.
const FRAME: u64 = 4096 + 24;
const PURCHASES: u64 = 120;

/// Signs at once.
struct Key;

impl SignsInStep for Key {
    fn sign(&self, held: &Purchase) -> InStep {
        InStep::Signed(Signature {
            at: held.reserved_at,
            valid_before: held.reserved_at.secs() + 60,
            payload: SecretString::from("cGF5".repeat(350)),
            presenter_lease_until: held.reserved_at.after(Duration::from_secs(20)),
        })
    }
}

/// A purchase as a client makes it: the request, the id and the nonce differ, and the terms are kept.
fn usual(number: u64) -> NewPurchase {
    let random = keccak256(number.to_be_bytes());
    NewPurchase {
        fingerprint: random,
        identifier: format!("pay_{:x}", keccak256(random)),
        value: U256::from(100),
        terms: Some("t".repeat(700)),
        ..order(&format!("{:x}", keccak256(number.to_le_bytes()))[..32], 100)
    }
}

/// Limits as most policies have them: by day and by month, and on repetitions.
fn few(purchase: &NewPurchase) -> Vec<Limit> {
    let day = Duration::from_secs(86_400);
    let much = Usd::from_micros(u64::MAX / 4);
    let repeats = LimitKind::Payments(Duration::from_secs(3600), 1000);
    vec![
        meter(Scope::Global, LimitKind::Rolling(day, much.into())),
        meter(Scope::Global, LimitKind::Rolling(day * 30, much.into())),
        meter(Scope::Request(purchase.fingerprint), repeats),
    ]
}

/// Ten limits, which need five more indices.
fn many(purchase: &NewPurchase) -> Vec<Limit> {
    let much = Usd::from_micros(u64::MAX / 4);
    let hour = Duration::from_secs(3600);
    let scopes = [
        Scope::Origin(purchase.origin.clone()),
        Scope::Host(purchase.origin.host().parse().unwrap()),
        Scope::Payee(purchase.payee),
        Scope::of_asset(&purchase.asset),
        Scope::Network(purchase.asset.network()),
        Scope::Global,
    ];
    let each = scopes
        .into_iter()
        .map(|scope| meter(scope, LimitKind::Rolling(hour, much.into())));
    let exposure = meter(Scope::Global, LimitKind::Exposure(much.into()));
    few(purchase)
        .into_iter()
        .chain(each)
        .chain([exposure])
        .collect()
}

type Limits = fn(&NewPurchase) -> Vec<Limit>;

async fn buy(ledger: &Ledger, number: u64, limits: Limits) {
    let (now, purchase) = (NOW + number, usual(number));
    let limits = limits(&purchase);
    let wish = Arc::new(wish(purchase, at(now), limits));
    let key = wish.key();
    let signer: Arc<dyn SignsInStep> = Arc::new(Key);
    let obtained = ledger.buy(&wish, &signer).await.unwrap();
    assert!(matches!(obtained, Obtained::Signed(_)), "{obtained:?}");
    ledger.record_or_keep(&key, settled()).await;
}

/// Returns the pages, transactions, syncs and looks at the files of [`PURCHASES`] purchases.
async fn cost(ledger: &Ledger, path: &Path, limits: Limits) -> [u64; 4] {
    for number in 0..30 {
        buy(ledger, number, limits).await;
    }
    let log = || fs::metadata(log_of(path)).unwrap().len();
    let costs = || thread_of(ledger).thread.guard.as_ref().unwrap().costs.all();
    let (before, [transactions, syncs, looks]) = (log(), costs());
    for number in 30..30 + PURCHASES {
        buy(ledger, number, limits).await;
    }
    let pages = (log() - before) / FRAME;
    let after = costs();
    [
        pages,
        after[0] - transactions,
        after[1] - syncs,
        after[2] - looks,
    ]
}

/// File locks are taken by transaction: four for each.
#[tokio::test]
async fn a_purchase_writes_few_pages_in_one_transaction_with_one_sync() {
    for (limits, most) in [(few as Limits, 14), (many, 20)] {
        let (_directory, path) = new_path();
        let ledger = Ledger::sqlite(&path).unwrap();
        let [pages, transactions, syncs, looks] = cost(&ledger, &path, limits).await;
        assert!(pages <= most * PURCHASES, "{pages} pages");
        // An outcome waits for the next purchase. A slow machine may write some of them alone.
        assert!(transactions <= 2 * PURCHASES, "{transactions} transactions");
        assert_eq!(syncs, PURCHASES);
        assert!(looks <= 2 * transactions, "{looks} looks");
    }
}
