//! The same sellers, paid through Permit2, and sellers that lie about a ceiling or ask for another method.

use bursar::clock::{Clock, SystemClock};
use bursar::money::TransferMethod;
use bursar::policy::Rule;
use bursar::x402::Scheme;
use bursar::{ErrorKind, Policy, Url, usd};
use bursar_testing::{FalseTerms, Fault, Forgery, PaymentMethod, Route};
use bursar_tests::paywall::{open, policy, purchases};
use bursar_tests::signatures::SignatureLog;

use crate::inspect::complaints;
use crate::trial::{
    PRICE, Trial, client, denied_again, elsewhere, idempotent_report, paid, rejected, run,
    uncertain,
};
use crate::{answers, breakages};

/// A way to sell a route.
type Sold = fn(Route) -> Route;

/// Returns whether the result depends on the method: an `upto` payment is charged by the receipt, and a switch of the
/// method is another one.
fn depends_on_the_method(trial: &Trial) -> bool {
    matches!(
        trial.fault,
        Fault::ForgedReceipt(Forgery::AboveCeiling)
            | Fault::ReceiptAmount(_)
            | Fault::ChargeAboveCeiling
            | Fault::Requote(FalseTerms::Method(_))
    )
}

fn all(elsewhere: &Url) -> Vec<Trial> {
    [
        answers::all(elsewhere),
        breakages::before_settling(),
        breakages::after_settling(),
    ]
    .concat()
    .into_iter()
    .filter(|trial| !depends_on_the_method(trial))
    .filter_map(Trial::through_permit2)
    .collect()
}

/// A seller that charges less than half of the ceiling.
fn cheap(route: Route) -> Route {
    route.upto().charge(usd!("0.004"))
}

/// Claims about a ceiling.
fn of_ceilings() -> Vec<Trial> {
    let unmatched = |fault| uncertain(fault, 200).settled(1).delivered().by(Route::upto);
    let amount = |json: &str| unmatched(Fault::ReceiptAmount(json.to_owned()));
    let above = || Fault::ForgedReceipt(Forgery::AboveCeiling);
    vec![
        unmatched(above()),
        amount("\"12.5\""),
        amount("\"-1\""),
        amount("\"0x10\""),
        unmatched(Fault::ChargeAboveCeiling).settled(0),
        // The buyer believes neither, and the ledger counts the ceiling.
        paid(Fault::ForgedReceipt(Forgery::NoAmount), 4_000).by(cheap),
        paid(Fault::SettleTwice, 4_000).by(cheap),
        paid(Fault::ChargeCeiling, PRICE).by(cheap),
        // The receipt of `exact` needs no amount, and a wrong one says nothing.
        paid(above(), PRICE).by(Route::permit2),
    ]
}

/// A second 402 for another method.
fn other_methods() -> Vec<Trial> {
    use PaymentMethod::{Eip3009, Permit2, Upto};
    let methods: [(Sold, PaymentMethod); 3] = [
        (|route| route, Eip3009),
        (Route::permit2, Permit2),
        (Route::upto, Upto),
    ];
    let mut trials = Vec::new();
    for (route, first) in methods {
        for (_, second) in methods {
            let fault = || Fault::Requote(FalseTerms::Method(second));
            trials.push(rejected(fault(), ErrorKind::Rejected).by(route));
            let accepted = if (first == Eip3009) == (second == Eip3009) {
                rejected(fault(), ErrorKind::Rejected).signatures(2)
            } else {
                denied_again(fault(), Rule::OtherMethod)
            };
            let accepted = accepted.request(|request| request.accept_new_terms());
            trials.push(accepted.by(route));
        }
    }
    trials
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_seller_that_misbehaves_gets_no_more_through_permit2() {
    let elsewhere = elsewhere().await;
    let trials = all(&elsewhere.url("/report"));
    assert!(trials.len() > 60, "{} trials", trials.len());
    run(trials, &elsewhere).await;
}

#[tokio::test]
async fn a_seller_that_lies_about_a_ceiling_gets_no_more() {
    run(of_ceilings(), &elsewhere().await).await;
}

#[tokio::test]
async fn a_seller_that_asks_for_every_method_gets_one_kind_of_signature() {
    run(other_methods(), &elsewhere().await).await;
}

/// A buyer with two ledgers, which know nothing of each other, is a broken one: the suite has to see that.
#[tokio::test]
async fn the_suite_catches_a_buyer_that_signs_both_kinds() {
    let (signatures, now) = (SignatureLog::default(), SystemClock.now().secs());
    let methods = [PaymentMethod::Eip3009, PaymentMethod::Permit2];
    let route = idempotent_report().paid_by(methods);
    let seller = open(route.fault(Fault::StatusBeforeSettle(503))).await;
    let permits = policy().transfer_methods([TransferMethod::Permit2]);
    let permits: Policy = permits.schemes(Scheme::ALL);
    let mut counted = Vec::new();
    for policy in [policy(), permits] {
        let forgetful = client(&signatures, policy).build().unwrap();
        drop(forgetful.get(seller.url("/report")).send().await);
        counted.extend(purchases(&forgetful).await);
    }
    let complaints = complaints(&seller, &signatures, &counted, now);
    for complaint in ["signatures of both kinds", "2 transfers could be made"] {
        assert!(complaints.contains(complaint), "{complaints}");
    }
    // A ledger that has one of both counts too little.
    let complaints = crate::inspect::complaints(&seller, &signatures, &counted[..1], now);
    assert!(complaints.contains("20000 could be taken"), "{complaints}");
}
