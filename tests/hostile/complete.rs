//! No fault without a trial.

use std::collections::HashSet;

use bursar::Url;
use bursar_testing::{Breakage, FalseTerms, Fault, Forgery};

use crate::{answers, breakages, terms};

#[test]
fn every_fault_has_a_trial() {
    let elsewhere: Url = "http://127.0.0.1:9/".parse().unwrap();
    let trials = [
        terms::all(&elsewhere),
        breakages::all(),
        answers::all(&elsewhere),
    ]
    .concat();
    let mut tried: HashSet<(&str, &str)> = HashSet::new();
    for fault in trials.iter().map(|trial| &trial.fault) {
        tried.insert(("Fault", fault.name()));
        match fault {
            Fault::Terms(lie) | Fault::Requote(lie) | Fault::RequoteAfterSettle(lie) => {
                tried.insert(("FalseTerms", lie.name()));
            }
            Fault::BreakTerms(breakage) => {
                tried.insert(("Breakage of terms", breakage.name()));
            }
            Fault::BreakBeforeSettle(breakage) => {
                tried.insert(("Breakage before settling", breakage.name()));
            }
            Fault::BreakAfterSettle(breakage) => {
                tried.insert(("Breakage after settling", breakage.name()));
            }
            Fault::ForgedReceipt(forgery) => {
                tried.insert(("Forgery", forgery.name()));
            }
            _ => {}
        }
    }
    for (kind, names) in [
        ("Fault", Fault::NAMES),
        ("FalseTerms", FalseTerms::NAMES),
        ("Forgery", Forgery::NAMES),
        ("Breakage of terms", Breakage::NAMES),
        ("Breakage before settling", Breakage::NAMES),
        ("Breakage after settling", Breakage::NAMES),
    ] {
        let missing: Vec<_> = names
            .iter()
            .filter(|name| !tried.contains(&(kind, **name)))
            .collect();
        assert!(missing.is_empty(), "{kind} without a trial: {missing:?}");
    }
}
