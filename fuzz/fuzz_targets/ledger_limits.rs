//! Reserve, record, prove and wait in any order: a lifetime limit is never exceeded, by a counter that
//! knows nothing of the ledger's states, and a denial is never without cause. A purchase that was signed by EIP-3009 is never
//! signed for Permit2, nor the other way round.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use bursar::fuzzing::{self, Answer, Change, LEASE, Wish};
use bursar::ledger::Filter;
use bursar::policy::Scope;
use bursar::x402::PaymentMethod;
use bursar::{Ledger, PurchaseId, Timestamp};
use libfuzzer_sys::fuzz_target;

const LIMIT: u64 = 1000;

#[derive(Arbitrary, Debug)]
enum Step {
    Reserve {
        id: u8,
        micros: u16,
        changed: bool,
        method: u8,
    },
    Sign {
        id: u8,
        valid_for: u16,
    },
    Settle {
        id: u8,
        charged: Option<u16>,
    },
    Prove {
        id: u8,
        charged: Option<u16>,
    },
    Reject {
        id: u8,
    },
    Lose {
        id: u8,
    },
    Doubt {
        id: u8,
        valid_for: u16,
    },
    Free {
        id: u8,
    },
    Wait {
        secs: u8,
    },
}

/// What a purchase costs at most: until its lease lapses, or for ever.
#[derive(Clone, Copy)]
struct Cost {
    micros: u64,
    until: Timestamp,
    signed: u64,
    method: PaymentMethod,
    /// The charge that the chain proved.
    proved: Option<u64>,
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
            method,
        } = *step
        {
            let method = PaymentMethod::ALL[usize::from(method % 3)];
            let wish = (id % 16, micros.into(), changed, method);
            reserve(ledger, &mut costs, wish, now).await;
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
    (id, micros, changed, method): (u8, u64, bool, PaymentMethod),
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
        method,
        scope: Scope::Global,
        lifetime: LIMIT,
        changed,
        now,
    };
    let by_permit2 = |method| method != PaymentMethod::Eip3009;
    let is_of_other_kind = costs
        .get(&id)
        .is_some_and(|cost| cost.signed > 0 && by_permit2(cost.method) != by_permit2(method));
    match fuzzing::reserve(ledger, wish).await.expect("a ledger") {
        Answer::Held(_) => {
            assert!(!is_of_other_kind, "both kinds could settle");
            // New terms of what was signed: the books hold the larger from now on.
            let signed = costs.get(&id).map_or(0, |cost| cost.signed);
            let signed = if signed > 0 { signed.max(micros) } else { 0 };
            costs.insert(
                id,
                Cost {
                    micros,
                    until: now.after(LEASE),
                    signed,
                    method,
                    proved: None,
                },
            );
        }
        Answer::Denied(denial) => assert!(others + micros > LIMIT, "{denial}"),
        Answer::Known => assert!(
            costs[&id].signed > 0 || costs[&id].micros == 0,
            "nothing was signed"
        ),
        Answer::InFlight => assert!(costs[&id].until > now, "the lease has lapsed"),
        Answer::OtherMethod => assert!(is_of_other_kind || costs[&id].micros == 0),
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
        Step::Settle { id, charged } => {
            let (transaction, charged) = ([7; 32], charged.map(u64::from));
            (
                id,
                Change::Settled {
                    transaction,
                    charged,
                },
            )
        }
        Step::Prove { id, charged } => {
            // The chain does not contradict itself.
            let earlier = costs.get(&(id % 16)).and_then(|cost| cost.proved);
            let charged = earlier.or(charged.map(u64::from));
            (id, Change::Proved { charged })
        }
        Step::Reject { id } => (id, Change::Rejected),
        Step::Lose { id } => (id, Change::Unresolved),
        Step::Doubt { id, valid_for } => {
            let valid_before = now.secs() + u64::from(valid_for);
            let cost = costs.get(&(id % 16));
            let method = cost.map_or(PaymentMethod::Eip3009, |cost| cost.method);
            (
                id,
                Change::SignerTimedOut {
                    method,
                    valid_before,
                },
            )
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
        // A proof of the charge is all that lowers a cost. It says nothing above the ceiling.
        Change::Proved {
            charged: Some(charged),
        } => {
            let charged = charged.min(cost.signed);
            (cost.micros, cost.signed) = (charged, charged);
            cost.proved = Some(charged);
        }
        _ => {}
    }
    if matches!(change, Change::Voided { .. }) {
        cost.until = now;
    }
}
