//! Reserve, record and wait in any order: a lifetime limit is never exceeded, by a counter that
//! knows nothing of the ledger's states, and a denial is never without cause.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use bursar::fuzzing::{LEASE, Wish, reservation, settled_by};
use bursar::secrecy::SecretString;
use bursar::{
    Filter, Ledger, MemoryLedger, PurchaseKey, Reservation, Reserved, Scope, SellerAnswer,
    SqliteLedger, Timestamp, Transition,
};
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1000;

#[derive(Arbitrary, Debug)]
enum Step {
    Reserve { id: u8, micros: u16, changed: bool },
    Sign { id: u8, valid_for: u16 },
    Settle { id: u8 },
    Reject { id: u8 },
    Lose { id: u8 },
    Doubt { id: u8, valid_for: u16 },
    Free { id: u8 },
    Wait { secs: u8 },
}

/// What a purchase costs at most: until its lease lapses, or for ever.
#[derive(Clone, Copy)]
struct Cost {
    micros: u64,
    until: Timestamp,
    signed: u64,
}

impl Cost {
    fn at(self, now: Timestamp) -> u64 {
        if self.until > now {
            self.micros.max(self.signed)
        } else {
            self.signed
        }
    }
}

fuzz_target!(|steps: Vec<Step>| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        drive(&MemoryLedger::new(), &steps).await;
        if steps.len() < 16 {
            drive(&SqliteLedger::open(":memory:").expect("books"), &steps).await;
        }
    });
});

async fn drive(ledger: &impl Ledger, steps: &[Step]) {
    let mut costs: BTreeMap<u8, Cost> = BTreeMap::new();
    let mut now = Timestamp::from_secs(1_800_000_000);
    for step in steps.iter().take(200) {
        if let Step::Wait { secs } = step {
            now = now.after(Duration::from_secs((*secs).into()));
        } else if let Step::Reserve {
            id,
            micros,
            changed,
        } = *step
        {
            reserve(ledger, &mut costs, (id % 16, micros.into(), changed), now).await;
        } else {
            record(ledger, &mut costs, step, now).await;
        }
        let spent: u64 = costs.values().map(|cost| cost.at(now)).sum();
        assert!(spent <= LIMIT, "{spent} after {step:?}");
    }
    assert!(ledger.purchases(&Filter::all()).await.expect("books").len() <= costs.len());
}

fn wish(id: u8, micros: u64, changed: bool, now: Timestamp) -> Reservation {
    let id = format!("order-{id}").parse().expect("a purchase id");
    reservation(Wish {
        id,
        micros,
        scope: Scope::Global,
        lifetime: LIMIT,
        changed,
        now,
    })
}

async fn reserve(
    ledger: &impl Ledger,
    costs: &mut BTreeMap<u8, Cost>,
    (id, micros, changed): (u8, u64, bool),
    now: Timestamp,
) {
    let others: u64 = costs
        .iter()
        .filter(|(other, _)| **other != id)
        .map(|(_, cost)| cost.at(now))
        .sum();
    match ledger
        .reserve(&wish(id, micros, changed, now))
        .await
        .expect("books")
    {
        Reserved::Held(_) => {
            // New terms of what was signed: the books hold the larger from now on.
            let signed = costs.get(&id).map_or(0, |cost| cost.signed);
            let signed = if signed > 0 { signed.max(micros) } else { 0 };
            costs.insert(
                id,
                Cost {
                    micros,
                    until: now.after(LEASE),
                    signed,
                },
            );
        }
        Reserved::Denied(denial) => assert!(others + micros > LIMIT, "{denial}"),
        Reserved::Known(_) => assert!(
            costs[&id].signed > 0 || costs[&id].micros == 0,
            "nothing was signed"
        ),
        Reserved::InFlight => assert!(costs[&id].until > now, "the lease has lapsed"),
        other => panic!("{other:?}"),
    }
}

async fn record(ledger: &impl Ledger, costs: &mut BTreeMap<u8, Cost>, step: &Step, now: Timestamp) {
    let (id, transition) = match *step {
        Step::Sign { id, valid_for } => {
            let lease = costs.get(&(id % 16)).map_or(now, |cost| cost.until);
            let valid_before = now.secs() + u64::from(valid_for);
            (
                id,
                Transition::Signed {
                    lease,
                    valid_before,
                    payload: SecretString::from("eA=="),
                    presenter_lease_until: now,
                },
            )
        }
        Step::Settle { id } => (id, settled_by([7; 32])),
        Step::Reject { id } => (
            id,
            Transition::Rejected {
                reason: "no".to_owned(),
                answer: SellerAnswer::of(402),
            },
        ),
        Step::Lose { id } => (
            id,
            Transition::Unresolved {
                reason: "lost".to_owned(),
                answer: None,
            },
        ),
        Step::Doubt { id, valid_for } => (
            id,
            Transition::SignerTimedOut {
                valid_before: now.secs() + u64::from(valid_for),
                reason: "odd".to_owned(),
            },
        ),
        Step::Free { id } => {
            let lease = costs.get(&(id % 16)).map_or(now, |cost| cost.until);
            (id, Transition::Voided { lease })
        }
        Step::Reserve { .. } | Step::Wait { .. } => return,
    };
    let id = id % 16;
    let key: PurchaseKey = wish(id, 0, false, now).key();
    if ledger.record(&key, &transition, now).await.is_err() {
        return;
    }
    let cost = costs.get_mut(&id).expect("what is recorded was reserved");
    match transition {
        Transition::Signed { .. } | Transition::SignerTimedOut { .. } => {
            cost.signed = cost.signed.max(cost.micros)
        }
        Transition::Voided { .. } => assert_eq!(cost.signed, 0, "what was signed cannot be freed"),
        _ => {}
    }
    if matches!(transition, Transition::Voided { .. }) {
        cost.until = now;
    }
}
