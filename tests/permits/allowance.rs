//! A wallet that has not approved Permit2.

use bursar::policy::Rule;
use bursar::primitives::{U256, address};
use bursar::{ChainReader, Client, ErrorKind, Network, PaymentStatus, ResponseExt};
use bursar_testing::{Node, NodeFault, Paywall, Route};
use bursar_tests::paywall::{distinct_payments, purchases, report};
use bursar_tests::signatures::wallet;
use bursar_tests::tokens::usdc;

use super::{builder, client, only_purchase, upto};

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
            "`bursar wallet approve --network base-sepolia --token USDC --amount 0.01 --send`",
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

/// Each refused permit counts as spent, and each can still settle once the wallet approves.
#[tokio::test]
async fn a_wallet_without_an_approval_signs_no_fourth_permit() {
    let seller = Paywall::builder()
        .route(upto())
        .allowance(wallet().address(), 0)
        .start()
        .await
        .unwrap();
    let client = client();
    let buy = |number: usize| {
        let url = seller.url(&format!("/report?n={number}"));
        client.get(url).send()
    };
    for number in 0..3 {
        let error = buy(number).await.unwrap_err();
        assert_eq!(error.payment_status(), PaymentStatus::MaybePaid, "{error}");
    }
    for number in 3..10 {
        let error = buy(number).await.unwrap_err();
        let denial = error.denial().unwrap();
        assert_eq!(denial.rule, Rule::Allowance, "{error}");
        assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
        assert!(denial.room_returns.is_some());
        let missing = error.missing_allowance().unwrap();
        assert_eq!(missing.amount.units(), U256::from(10_000));
        assert!(error.to_string().contains("the last 3 payments"), "{error}");
    }
    assert_eq!(distinct_payments(&seller), 3);
    // Another seller is not stopped by the words of one, and neither is a payment by the token itself.
    let ordinary = super::open(report()).await;
    client.get(ordinary.url("/report")).send().await.unwrap();
    let other = super::open(upto()).await;
    client.get(other.url("/report")).send().await.unwrap();
    // After the approval, a settled payment ends the pause.
    let approved = usdc("base-sepolia");
    seller.set_allowance(&approved, wallet().address(), U256::from(1_000_000));
    assert!(buy(0).await.unwrap().receipt().is_some());
    assert!(buy(9).await.unwrap().receipt().is_some());
    assert_eq!(distinct_payments(&seller), 4);
}

const NETWORK: Network = Network::from_chain_id(84_532);

/// A seller, and a client that reads its chain before it signs.
async fn with_chain(route: Route, allowance: u64) -> (Paywall, Node, Client) {
    let seller = Paywall::builder()
        .route(route)
        .allowance(wallet().address(), allowance)
        .start()
        .await
        .unwrap();
    let node = seller.node(NETWORK).await.unwrap();
    let chain = ChainReader::new().endpoint(NETWORK, node.url().as_str());
    let client = builder().chain(chain.unwrap()).build().unwrap();
    (seller, node, client)
}

#[tokio::test]
async fn a_missing_allowance_is_found_before_anything_is_signed() {
    for route in [report().permit2(), upto()] {
        let (seller, _node, client) = with_chain(route, 9_999).await;
        let buy = || client.get(seller.url("/report")).send();
        let error = buy().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert_eq!(error.payment_status(), PaymentStatus::NotPaid);
        assert_eq!(error.denial().unwrap().rule, Rule::Allowance);
        let missing = error.missing_allowance().unwrap();
        assert_eq!(missing.owner, wallet().address());
        assert_eq!(missing.amount.units(), U256::from(10_000));
        let text = error.to_string();
        assert!(text.contains("bursar wallet approve"), "{text}");
        assert!(text.contains("nothing was signed"), "{text}");
        assert!(purchases(&client).await.is_empty());
        assert_eq!(distinct_payments(&seller), 0);
        let json = serde_json::to_value(error.denial().unwrap()).unwrap();
        assert_eq!(json["missing_allowance"]["units"], "10000");
        // A denial always has a new reading, so an approval counts at once.
        let approved = usdc("base-sepolia");
        seller.set_allowance(&approved, wallet().address(), U256::from(10_000));
        buy().await.unwrap();
        assert_eq!(seller.settlements().len(), 1);
    }
}

#[tokio::test]
async fn an_allowance_that_cannot_be_read_denies_nothing() {
    for fault in [
        NodeFault::Unavailable,
        NodeFault::WrongChain,
        NodeFault::EmptyWord,
    ] {
        let (seller, node, client) = with_chain(upto(), 10_000).await;
        node.fault(fault);
        client.get(seller.url("/report")).send().await.unwrap();
        assert_eq!(seller.settlements().len(), 1, "{fault:?}");
    }
}
