//! The same sellers, paid through Permit2.

use bursar::Url;
use bursar_testing::{FalseTerms, Fault, Forgery};

use crate::trial::{Trial, elsewhere, run};
use crate::{answers, breakages};

/// Returns whether the result depends on the method: an `upto` payment is charged by the receipt, and a switch of the
/// method is another one.
fn depends_on_the_method(trial: &Trial) -> bool {
    matches!(
        trial.fault,
        Fault::ForgedReceipt(Forgery::AboveCeiling)
            | Fault::ReceiptAmount(_)
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_seller_that_misbehaves_gets_no_more_through_permit2() {
    let elsewhere = elsewhere().await;
    let trials = all(&elsewhere.url("/report"));
    assert!(trials.len() > 60, "{} trials", trials.len());
    run(trials, &elsewhere).await;
}
