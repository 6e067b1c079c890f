//! Reserve, record and wait in any order: a lifetime limit is never exceeded, by a counter that
//! knows nothing of the ledger's states, and a denial is never without cause.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use bursar::fuzzing::{self, Answer, Change, LEASE, Wish};
use bursar::ledger::Filter;
use bursar::policy::Scope;
use bursar::{Ledger, PurchaseId, Timestamp};
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
        drive(&Ledger::memory(), &steps).await;
        if steps.len() < 16 {
            drive(&Ledger::sqlite(":memory:").expect("a ledger"), &steps).await;
        }
    });
});

async fn drive(ledger: &Ledger, steps: &[Step]) {
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
    assert!(
        ledger
            .purchases(&Filter::all())
            .await
            .expect("a ledger")
            .len()
            <= costs.len()
    );
}

fn id_of(id: u8) -> PurchaseId {
    format!("order-{id}").parse().expect("a purchase id")
}

async fn reserve(
    ledger: &Ledger,
    costs: &mut BTreeMap<u8, Cost>,
    (id, micros, changed): (u8, u64, bool),
    now: Timestamp,
) {
    let others: u64 = costs
        .iter()
        .filter(|(other, _)| **other != id)
        .map(|(_, cost)| cost.at(now))
        .sum();
    let wish = Wish {
        id: id_of(id),
        micros,
        scope: Scope::Global,
        lifetime: LIMIT,
        changed,
        now,
    };
    match fuzzing::reserve(ledger, wish).await.expect("a ledger") {
        Answer::Held(_) => {
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
        Answer::Denied(denial) => assert!(others + micros > LIMIT, "{denial}"),
        Answer::Known => assert!(
            costs[&id].signed > 0 || costs[&id].micros == 0,
            "nothing was signed"
        ),
        Answer::InFlight => assert!(costs[&id].until > now, "the lease has lapsed"),
        Answer::Mismatch => panic!("the id belongs to the request"),
    }
}

async fn record(ledger: &Ledger, costs: &mut BTreeMap<u8, Cost>, step: &Step, now: Timestamp) {
    let lease = |id: u8| costs.get(&(id % 16)).map_or(now, |cost| cost.until);
    let (id, change) = match *step {
        Step::Sign { id, valid_for } => {
            let valid_before = now.secs() + u64::from(valid_for);
            let lease = lease(id);
            (
                id,
                Change::Signed {
                    lease,
                    valid_before,
                },
            )
        }
        Step::Settle { id } => (id, Change::Settled([7; 32])),
        Step::Reject { id } => (id, Change::Rejected),
        Step::Lose { id } => (id, Change::Unresolved),
        Step::Doubt { id, valid_for } => {
            let valid_before = now.secs() + u64::from(valid_for);
            (id, Change::SignerTimedOut { valid_before })
        }
        Step::Free { id } => (id, Change::Voided { lease: lease(id) }),
        Step::Reserve { .. } | Step::Wait { .. } => return,
    };
    let id = id % 16;
    if fuzzing::record(ledger, &id_of(id), change, now)
        .await
        .is_err()
    {
        return;
    }
    let cost = costs.get_mut(&id).expect("what is recorded was reserved");
    match change {
        Change::Signed { .. } | Change::SignerTimedOut { .. } => {
            cost.signed = cost.signed.max(cost.micros)
        }
        Change::Voided { .. } => assert_eq!(cost.signed, 0, "what was signed cannot be freed"),
        _ => {}
    }
    if matches!(change, Change::Voided { .. }) {
        cost.until = now;
    }
}
