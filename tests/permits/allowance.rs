//! A wallet that has not approved Permit2.

use bursar::primitives::{U256, address};
use bursar::{ErrorKind, PaymentStatus, ResponseExt};
use bursar_testing::Paywall;
use bursar_tests::paywall::{distinct_payments, report};
use bursar_tests::signatures::wallet;
use bursar_tests::tokens::usdc;

use super::{client, only_purchase, upto};

#[tokio::test]
async fn a_missing_allowance_says_what_to_approve_and_the_same_payment_is_presented_after_it() {
    for route in [report().permit2(), upto()] {
        let seller = Paywall::builder()
            .route(route)
            .allowance(wallet().address(), 9_999)
            .start()
            .await
            .unwrap();
        let client = client();
        let buy = || client.get(seller.url("/report")).send();
        let error = buy().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid);
        assert_eq!(error.status().unwrap().as_u16(), 412);
        assert_eq!(error.reason(), Some("permit2_allowance_required"));
        let missing = error.missing_allowance().unwrap();
        let permit2 = address!("000000000022D473030F116dDEE9F6B43aC78BA3");
        assert_eq!(
            (missing.owner, missing.spender),
            (wallet().address(), permit2)
        );
        assert_eq!(missing.token, usdc("base-sepolia"));
        assert_eq!(missing.amount.units(), U256::from(10_000));
        let text = error.to_string();
        for part in [
            &wallet().address().to_string(),
            &permit2.to_string(),
            &usdc("base-sepolia").address().to_string(),
            "10000 units",
            "`bursar wallet approve`",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let approved = usdc("base-sepolia");
        seller.set_allowance(&approved, wallet().address(), U256::from(10_000));
        let response = buy().await.unwrap();
        assert!(response.receipt().is_some());
        assert_eq!(distinct_payments(&seller), 1, "the same bytes");
        assert_eq!(only_purchase(&client).await.status, Some(200));
    }
}
