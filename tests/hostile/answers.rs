//! Answers that deny, lie about, or beg for a payment.

use bursar::policy::Rule;
use bursar::{Address, ErrorKind, Url};
use bursar_testing::{FalseTerms, Fault, Forgery};

use crate::terms::STRANGER;
use crate::trial::{
    PRICE, Trial, claimed, denied_again, elsewhere, paid, paid_without_delivery, rejected, run,
    uncertain, unpaid,
};

/// What sellers and the proxies before them answer when something is wrong.
const FAILURES: [u16; 12] = [400, 401, 403, 404, 409, 410, 422, 429, 500, 502, 503, 504];
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// What is strange about the first answer, besides its terms.
pub(crate) fn first(elsewhere: &Url) -> Vec<Trial> {
    let mut trials = vec![
        paid(Fault::LongRetryAfter, PRICE).in_all_versions(),
        paid(Fault::TrackingCookie, PRICE).in_all_versions(),
        paid(Fault::StaleTerms(0), PRICE).in_all_versions(),
    ];
    // Only a 402 asks for money.
    for status in [200, 401, 403, 404, 407, 429, 500] {
        trials.push(unpaid(Fault::TermsWithStatus(status), status).in_all_versions());
    }
    for status in REDIRECTS {
        trials.push(
            unpaid(
                Fault::RedirectBeforeTerms {
                    status,
                    to: elsewhere.clone(),
                },
                status,
            )
            .in_all_versions(),
        );
        let plain: Url = "http://seller.example/report".parse().unwrap();
        trials.push(unpaid(
            Fault::RedirectBeforeTerms { status, to: plain },
            status,
        ));
    }
    trials
}

/// Statuses and redirects that say nothing certain of the money.
pub(crate) fn statuses(elsewhere: &Url) -> Vec<Trial> {
    let mut trials = vec![
        uncertain(Fault::ServerErrorAfterSettle, 502)
            .settled(1)
            .in_all_versions(),
        uncertain(Fault::RedirectAfterPayment(elsewhere.clone()), 307).in_all_versions(),
    ];
    for status in FAILURES {
        trials.push(uncertain(Fault::StatusBeforeSettle(status), status).in_all_versions());
        trials.push(
            uncertain(Fault::StatusAfterSettle(status), status)
                .settled(1)
                .in_all_versions(),
        );
    }
    for status in REDIRECTS {
        let fault = Fault::RedirectAfterSettle {
            status,
            to: elsewhere.clone(),
        };
        trials.push(uncertain(fault, status).settled(1).in_all_versions());
    }
    trials
}

pub(crate) fn receipts() -> Vec<Trial> {
    let forged = Fault::ForgedReceipt;
    let unproven = |fault| {
        uncertain(fault, 200)
            .settled(1)
            .delivered()
            .in_all_versions()
    };
    vec![
        unproven(Fault::NoReceipt),
        unproven(Fault::MalformedReceipt),
        unproven(Fault::ForeignReceipt),
        unproven(forged(Forgery::Payer)),
        unproven(forged(Forgery::Network)),
        unproven(forged(Forgery::NoTransaction)),
        unproven(forged(Forgery::FailureDelivered)),
        unproven(forged(Forgery::Huge)),
        unproven(forged(Forgery::Contradiction)),
        // Only the chain could tell that these are wrong. They release nothing.
        claimed(forged(Forgery::Transaction), 200)
            .delivered()
            .in_all_versions(),
        claimed(forged(Forgery::OtherPurchase), 200)
            .delivered()
            .in_all_versions(),
        claimed(forged(Forgery::Amount), 200)
            .delivered()
            .in_all_versions(),
        claimed(forged(Forgery::AboveCeiling), 200)
            .delivered()
            .in_all_versions(),
        claimed(Fault::ReceiptAmount("\"12.5\"".to_owned()), 200).delivered(),
        // An honest receipt of `exact` names no amount.
        paid(forged(Forgery::NoAmount), PRICE).in_all_versions(),
        paid(Fault::ChargeCeiling, PRICE).in_all_versions(),
        paid(Fault::SettleTwice, PRICE).in_all_versions(),
        uncertain(Fault::ApproveUnsettled, 502),
        claimed(Fault::ChargeAboveCeiling, 200)
            .settled(0)
            .delivered()
            .in_all_versions(),
        claimed(Fault::InventedReceipt, 200)
            .settled(0)
            .delivered()
            .in_all_versions(),
        uncertain(Fault::DeliverUnsettled, 200)
            .delivered()
            .in_all_versions(),
        paid(Fault::ShortReceipt { empty: true }, PRICE).in_all_versions(),
        paid(Fault::ShortReceipt { empty: false }, PRICE).in_all_versions(),
        claimed(Fault::StatusWithReceipt(503), 503).in_all_versions(),
        claimed(Fault::StatusWithReceipt(404), 404).in_all_versions(),
        paid(Fault::EmptyAfterSettle, PRICE)
            .undelivered()
            .in_all_versions(),
    ]
}

/// A 402 that answers a payment: never paid again unless the caller said so, and never beside the
/// first.
pub(crate) fn second_402() -> Vec<Trial> {
    let same = || FalseTerms::Text("Payment required".to_owned());
    vec![
        rejected(Fault::SettlementFailure, ErrorKind::SettlementFailed),
        // Version 1 states its terms with every failure.
        rejected(Fault::SettlementFailure, ErrorKind::SettlementFailed).v1(),
        rejected(
            Fault::ForgedReceipt(Forgery::Failure),
            ErrorKind::SettlementFailed,
        )
        .settled(1),
        rejected(Fault::SettlementPending, ErrorKind::SettlementPending)
            .settled(1)
            .in_all_versions(),
        rejected(Fault::PendingUnsettled, ErrorKind::SettlementPending).in_all_versions(),
        // A 402 that states no terms, such as a proxy's.
        rejected(Fault::StatusBeforeSettle(402), ErrorKind::Rejected).in_all_versions(),
        rejected(
            Fault::Foreign402(r#"{"error":{"message":"Insufficient Balance"}}"#.to_owned()),
            ErrorKind::Rejected,
        )
        .in_all_versions(),
        rejected(
            Fault::FailureReason("insufficient_funds".to_owned()),
            ErrorKind::SettlementFailed,
        )
        .in_all_versions(),
        rejected(
            Fault::FailureReason("settle_exact_node_failure".to_owned()),
            ErrorKind::SettlementPending,
        )
        .in_all_versions(),
        rejected(
            Fault::RefusalInTerms("unsupported_scheme".to_owned()),
            ErrorKind::Rejected,
        )
        .in_all_versions(),
        rejected(Fault::StatusAfterSettle(402), ErrorKind::Rejected)
            .settled(1)
            .in_all_versions(),
        rejected(Fault::DoublePrice, ErrorKind::Rejected).in_all_versions(),
        rejected(Fault::QuotePayment, ErrorKind::SettlementFailed).in_all_versions(),
        rejected(Fault::Requote(same()), ErrorKind::Rejected).in_all_versions(),
        rejected(
            Fault::Requote(FalseTerms::Text("\u{1b}[2J\u{202e}pay again".to_owned())),
            ErrorKind::Rejected,
        )
        .in_all_versions(),
        rejected(Fault::Requote(FalseTerms::Price(2)), ErrorKind::Rejected).in_all_versions(),
        rejected(Fault::RequoteAfterSettle(same()), ErrorKind::Rejected)
            .settled(1)
            .in_all_versions(),
        rejected(
            Fault::RequoteAfterSettle(FalseTerms::Price(2)),
            ErrorKind::Rejected,
        )
        .settled(1)
        .in_all_versions(),
    ]
}

/// As [`second_402`], where the caller accepts new terms.
pub(crate) fn accepted_terms() -> Vec<Trial> {
    let same = || FalseTerms::Text("Payment required".to_owned());
    let accepting = |trial: Trial| {
        trial
            .request(|request| request.accept_new_terms())
            .in_all_versions()
    };
    let refused = |lie| rejected(Fault::Requote(lie), ErrorKind::NotPayable);
    let denied = |lie, rule| denied_again(Fault::Requote(lie), rule);
    [
        // Signed once more, and once only, with the same nonce.
        rejected(Fault::Requote(same()), ErrorKind::Rejected).signatures(2),
        rejected(Fault::Requote(FalseTerms::Price(2)), ErrorKind::Rejected).signatures(2),
        rejected(
            Fault::RequoteAfterSettle(FalseTerms::Price(2)),
            ErrorKind::Rejected,
        )
        .signatures(2)
        .settled(1),
        denied(FalseTerms::Price(1_000), Rule::PerPayment),
        denied(FalseTerms::PayTo(STRANGER), Rule::PayeeChanged),
        denied(FalseTerms::PayTo(Address::ZERO), Rule::PayeeImpossible),
        refused(FalseTerms::Token(STRANGER)),
        refused(FalseTerms::Network("base".to_owned())),
        refused(FalseTerms::Amount("\"01000\"".to_owned())),
        refused(FalseTerms::NoOffers),
        denied_again(
            Fault::RequoteAfterSettle(FalseTerms::PayTo(STRANGER)),
            Rule::PayeeChanged,
        )
        .settled(1),
    ]
    .map(accepting)
    .to_vec()
}

/// A receipt that is true, under a 402 with the terms again.
pub(crate) fn paid_402() -> Vec<Trial> {
    let fault = Fault::ForgedReceipt(Forgery::WithTerms);
    vec![
        paid_without_delivery(fault, ErrorKind::Rejected).in_all_versions(),
        paid_without_delivery(Fault::StatusWithReceipt(402), ErrorKind::Rejected).in_all_versions(),
    ]
}

pub(crate) fn all(elsewhere: &Url) -> Vec<Trial> {
    [
        first(elsewhere),
        statuses(elsewhere),
        receipts(),
        second_402(),
        accepted_terms(),
        paid_402(),
    ]
    .concat()
}

#[tokio::test]
async fn instead_of_terms() {
    let elsewhere = elsewhere().await;
    run(first(&elsewhere.url("/report")), &elsewhere).await;
}

#[tokio::test]
async fn with_a_status_that_proves_nothing() {
    let elsewhere = elsewhere().await;
    run(statuses(&elsewhere.url("/report")), &elsewhere).await;
}

#[tokio::test]
async fn with_receipts_that_lie() {
    run(receipts(), &elsewhere().await).await;
}

#[tokio::test]
async fn with_a_second_402() {
    run(second_402(), &elsewhere().await).await;
}

#[tokio::test]
async fn with_new_terms_that_the_caller_accepts() {
    run(accepted_terms(), &elsewhere().await).await;
}

#[tokio::test]
async fn with_a_402_and_a_receipt() {
    run(paid_402(), &elsewhere().await).await;
}
