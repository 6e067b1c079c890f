//! What a seller charges and claims, and what counts.

use bursar::ledger::{Filter, State};
use bursar::policy::Rule;
use bursar::primitives::{B256, U256};
use bursar::x402::{PaymentMethod, Verification};
use bursar::{Ledger, PaymentStatus, ResponseExt, usd};
use bursar_testing::{Fault, Forgery, OfferSigner, Route, SigningFault};
use bursar_tests::paywall::{payments_sent, report};

use super::{builder, client, only_purchase, open, tight, upto};

#[tokio::test]
async fn exact_by_permit2_is_bought_with_one_nonce_of_the_purchase() {
    let seller = open(report().permit2()).await;
    let client = client();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.amount().to_string(), "0.01 USDC");
    assert_eq!(receipt.charged().unwrap().to_string(), "0.01 USDC");
    assert!(!receipt.payment().is_ceiling());
    let purchase = only_purchase(&client).await;
    assert_eq!(purchase.payment_method, Some(PaymentMethod::Permit2));
    let presented = seller.requests().remove(1).payment.unwrap().json.unwrap();
    let permit = &presented["payload"]["permit2Authorization"];
    let nonce: U256 = permit["nonce"].as_str().unwrap().parse().unwrap();
    assert_eq!(B256::from(nonce), purchase.nonce);
    let deadline: u64 = permit["deadline"].as_str().unwrap().parse().unwrap();
    // Permit2 accepts the permit in the second of its deadline too.
    assert_eq!(purchase.valid_before, Some(deadline + 1));
    assert_eq!(receipt.payment().valid_before, deadline + 1);
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_receipt_below_the_ceiling_is_kept_beside_it_and_frees_no_room() {
    let seller = open(upto().charge(usd!("0.004"))).await;
    let ledger = Ledger::memory();
    let client = tight(&ledger);
    let buy = async || {
        client
            .get(seller.url("/report"))
            .allow_duplicate()
            .send()
            .await
    };
    let response = buy().await.unwrap();
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.amount().to_string(), "0.01 USDC");
    assert_eq!(receipt.charged().unwrap().to_string(), "0.004 USDC");
    assert!(response.payment().unwrap().is_ceiling());
    let purchase = only_purchase(&client).await;
    assert_eq!(purchase.state, State::Settled);
    assert_eq!(purchase.payment_method, Some(PaymentMethod::Upto));
    assert_eq!(purchase.value, U256::from(10_000));
    assert_eq!(purchase.claimed_charge, Some(U256::from(4_000)));
    assert_eq!(
        (purchase.verified_charge, purchase.counted()),
        (None, purchase.value)
    );
    let evidence = ledger.evidence(&purchase.key()).await.unwrap();
    let evidence = serde_json::to_value(&evidence).unwrap();
    assert_eq!(evidence["claimed_charge"], "4000");
    assert_eq!(evidence["answer"]["receipt"]["amount"], "4000");
    assert_eq!(evidence["authorization"]["method"], "upto");
    assert_eq!(evidence["authorization"]["value"], "10000");
    // Two ceilings are all that the day has room for, though the seller says that it charged less.
    buy().await.unwrap();
    let denied = buy().await.unwrap_err();
    assert_eq!(denied.denial().unwrap().rule, Rule::Rolling);
    let moved: U256 = seller
        .settlements()
        .iter()
        .map(|settled| settled.authorization.value)
        .sum();
    assert!(moved <= U256::from(20_000), "{moved}");
}

#[tokio::test]
async fn a_receipt_above_the_ceiling_or_without_an_integer_is_no_match_and_is_kept() {
    for (fault, amount) in [
        (Fault::ForgedReceipt(Forgery::AboveCeiling), None),
        (Fault::ReceiptAmount("\"12.5\"".to_owned()), Some("12.5")),
        (Fault::ReceiptAmount("\"-1\"".to_owned()), Some("-1")),
        (Fault::ReceiptAmount("\"0x10\"".to_owned()), Some("0x10")),
    ] {
        let seller = open(upto().fault(fault.clone())).await;
        let client = client();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        assert!(response.receipt().is_none(), "{fault:?}");
        assert_eq!(response.payment_status(), PaymentStatus::MaybePaid);
        let purchase = only_purchase(&client).await;
        assert_eq!(purchase.state, State::Unresolved, "{fault:?}");
        assert_eq!(purchase.claimed_charge, None);
        let reason = purchase.reason.clone().unwrap();
        assert!(reason.contains("of at most 10000"), "{reason}");
        let claimed = purchase.answer.unwrap().receipt.unwrap().amount.unwrap();
        match amount {
            Some(amount) => assert_eq!(claimed, amount),
            None => assert!(claimed.parse::<u64>().unwrap() > 10_000, "{claimed}"),
        }
    }
}

#[tokio::test]
async fn a_receipt_that_names_no_charge_matches_and_tells_nothing() {
    let fault = Fault::ForgedReceipt(Forgery::NoAmount);
    let seller = open(upto().fault(fault)).await;
    let client = client();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.charged(), None);
    assert_eq!(receipt.amount().to_string(), "0.01 USDC");
    assert_eq!(only_purchase(&client).await.claimed_charge, None);
}

#[tokio::test]
async fn a_seller_that_charges_more_than_it_says_takes_at_most_the_ceiling() {
    let seller = open(upto().charge(usd!("0.001")).fault(Fault::ChargeCeiling)).await;
    let ledger = Ledger::memory();
    let client = tight(&ledger);
    for _ in 0..2 {
        let bought = client.get(seller.url("/report")).allow_duplicate().send();
        let receipt = bought.await.unwrap().receipt().unwrap().clone();
        assert_eq!(receipt.charged().unwrap().to_string(), "0.001 USDC");
    }
    let third = client.get(seller.url("/report")).allow_duplicate().send();
    assert!(third.await.is_err(), "the limit counted the ceilings");
    assert_eq!(
        seller.paid_by(client.payer().unwrap().address()),
        U256::from(20_000)
    );
}

#[tokio::test]
async fn a_charge_of_nothing_is_no_receipt_and_the_permit_still_counts() {
    let seller = open(upto().charge(usd!("0"))).await;
    let client = client();
    let response = client.get(seller.url("/report")).send().await.unwrap();
    assert!(response.receipt().is_none());
    assert_eq!(response.text().await.unwrap(), "the report");
    let purchase = only_purchase(&client).await;
    assert_eq!(purchase.state, State::Unresolved);
    let reason = purchase.reason.clone().unwrap();
    assert!(reason.contains("charges nothing"), "{reason}");
    assert!(purchase.counts(purchase.updated_at));
}

#[tokio::test]
async fn a_payment_that_settles_twice_moves_money_once() {
    for route in [upto(), report().permit2()] {
        let seller = open(route.fault(Fault::SettleTwice)).await;
        let client = client();
        client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(seller.settlements().len(), 1);
    }
}

#[tokio::test]
async fn a_permit_whose_answer_was_lost_is_presented_again_with_the_same_bytes() {
    let route = upto()
        .idempotent()
        .charge(usd!("0.002"))
        .fault_once(Fault::DropAfterSettle);
    let seller = open(route).await;
    let client = client();
    let response = client.get(seller.url("/report")).send().await;
    let response = match response {
        Ok(response) => response,
        Err(_) => client.get(seller.url("/report")).send().await.unwrap(),
    };
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.charged().unwrap().to_string(), "0.002 USDC");
    assert_eq!(bursar_tests::paywall::distinct_payments(&seller), 1);
    assert_eq!(seller.settlements().len(), 1);
}

#[tokio::test]
async fn a_stored_permit_is_presented_again_by_its_id() {
    let seller = open(
        upto()
            .idempotent()
            .charge(usd!("0.003"))
            .fault_once(Fault::NoReceipt),
    )
    .await;
    let ledger = Ledger::memory();
    let client = tight(&ledger);
    let buy = || {
        client
            .get(seller.url("/report"))
            .purchase_id("order-1")
            .send()
    };
    let first = buy().await.unwrap();
    assert!(first.receipt().is_none());
    let again = buy().await.unwrap();
    assert_eq!(
        again.receipt().unwrap().charged().unwrap().to_string(),
        "0.003 USDC"
    );
    let stored = ledger.purchases(&Filter::all()).await.unwrap().remove(0);
    assert_eq!(stored.claimed_charge, Some(U256::from(3_000)));
    assert_eq!(bursar_tests::paywall::distinct_payments(&seller), 1);
    // A third time, the ledger recreates the receipt.
    let third = buy().await.unwrap();
    assert_eq!(third.payment().unwrap().method, PaymentMethod::Upto);
}

#[tokio::test]
async fn a_permit_cannot_be_cancelled_by_a_signature() {
    let seller = open(upto().fault(Fault::NoReceipt)).await;
    let client = client();
    client.get(seller.url("/report")).send().await.unwrap();
    let purchase = only_purchase(&client).await;
    let error = client
        .payer()
        .unwrap()
        .cancel(&purchase.id)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), bursar::ErrorKind::Purchase);
    assert!(error.to_string().contains("Permit2"), "{error}");
    assert!(error.to_string().contains("gas"), "{error}");
}

/// Sellers that sell a report by several methods.
pub(super) fn by_all() -> Route {
    use bursar_testing::PaymentMethod::{Eip3009, Permit2, Upto};
    report().paid_by([Upto, Permit2, Eip3009])
}

#[tokio::test]
async fn a_signed_offer_by_permit2_is_verified_and_so_is_its_receipt() {
    for route in [report().permit2(), upto().charge(usd!("0.004"))] {
        let signer = OfferSigner::eip712([0x42; 32]);
        let by = signer.address();
        let seller = open(route.sign_offers(signer)).await;
        let strict = super::policy().require_signed_offers();
        let client = builder().policy(strict).build().unwrap();
        let response = client.get(seller.url("/report")).send().await.unwrap();
        let receipt = response.receipt().unwrap();
        assert_eq!(receipt.signature(), &Verification::Verified { by });
        let purchase = only_purchase(&client).await;
        assert_eq!(purchase.offer_signature(), Verification::Verified { by });
        assert_eq!(seller.settlements().len(), 1);
    }
    // A signature over another ceiling is none over this one.
    let forged = OfferSigner::eip712([0x42; 32]).fault(SigningFault::OtherAmount);
    let seller = open(upto().sign_offers(forged)).await;
    let strict = super::policy().require_signed_offers();
    let client = builder().policy(strict).build().unwrap();
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::SignedOffer, "{error}");
    assert_eq!(payments_sent(&seller), 0);
}
