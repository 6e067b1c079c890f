//! The books against the chain: only proof releases, and a receipt is a claim until it is confirmed.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::time::Duration;

use bursar::chain::Answer;
use bursar::ledger::{PurchaseKey, Reconciled, State};
use bursar::policy::Rule;
use bursar::primitives::U256;
use bursar::{
    ChainReader, Client, ErrorKind, Network, PaymentStatus, Policy, Purchase, ResponseExt,
    RetryPolicy, usd,
};
use bursar_testing::{Fault, Forgery, Node, NodeFault, Paywall, Route};
use bursar_tests::clock::TestClock;
use bursar_tests::paywall::{self, open, payment_status, purchases, report};
use bursar_tests::tokens::usdc;

const NETWORK: Network = Network::from_chain_id(84_532);

/// By viem.
const KECCAK_OF_SORRY: &str = "0x58659805d54e98311fda2476b10bf657d0f51150ebebe706ba02923188b00dc2";

/// A seller, its chain with two nodes, a wallet with room for one payment, and one clock for all.
struct World {
    clock: TestClock,
    seller: Paywall,
    nodes: [Node; 2],
    client: Client,
    chain: ChainReader,
}

impl World {
    async fn new(fault: Option<Fault>) -> Self {
        Self::with_endpoints(fault, 2).await
    }

    async fn with_endpoints(fault: Option<Fault>, endpoints: usize) -> Self {
        let clock = TestClock::default();
        let route = fault.into_iter().fold(report().idempotent(), Route::fault);
        let seller = Paywall::builder()
            .route(route)
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let nodes = [
            seller.node(NETWORK).await.unwrap(),
            seller.node(NETWORK).await.unwrap(),
        ];
        let mut chain = ChainReader::new();
        for (node, operator) in nodes[..endpoints].iter().zip(["one", "another"]) {
            let url = node.url().as_str();
            chain = chain.endpoint_operated_by(NETWORK, url, operator).unwrap();
        }
        let client = paywall::client()
            .policy(
                Policy::new()
                    .allow_network("base-sepolia")
                    .unlimited()
                    .lifetime(usd!("0.01")),
            )
            .clock(clock.clone())
            .retry_policy(RetryPolicy::once())
            .allow_http_loopback(true)
            .build()
            .unwrap();
        Self {
            clock,
            seller,
            nodes,
            client,
            chain,
        }
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn buy(&self) -> PaymentStatus {
        let answer = self
            .client
            .get(self.seller.url("/report"))
            .purchase_id("order")
            .send()
            .await;
        payment_status(answer)
    }

    async fn reconcile(&self) -> Reconciled {
        let mut done = self.reconcile_all().await;
        assert_eq!(done.len(), 1);
        done.remove(0)
    }

    async fn reconcile_all(&self) -> Vec<Reconciled> {
        let ledger = self.client.ledger().unwrap();
        ledger.reconcile(&self.chain).await.unwrap()
    }

    async fn purchase(&self) -> Purchase {
        purchases(&self.client).await.remove(0)
    }

    async fn has_room(&self) -> bool {
        let finding = self.client.budget().await.unwrap().remove(0);
        finding.left.unwrap().to_string() == "0.01 USD"
    }
}

#[tokio::test]
async fn a_lost_payment_is_confirmed_by_the_chain() {
    for fault in [
        Fault::DropAfterSettle,
        Fault::ForgedReceipt(Forgery::Failure),
        Fault::ForgedReceipt(Forgery::Payer),
    ] {
        let world = World::new(Some(fault.clone())).await;
        assert_eq!(world.buy().await, PaymentStatus::MaybePaid, "{fault:?}");
        let done = world.reconcile().await;
        assert!(
            matches!(done.answer, Answer::Settled(_)),
            "{fault:?}: {}",
            done.answer
        );
        let purchase = world.purchase().await;
        let transaction = world.seller.settlements()[0].transaction;
        assert_eq!(
            (purchase.state, purchase.verified_transaction),
            (State::Settled, Some(transaction)),
            "{fault:?}"
        );
        assert!(purchase.proof.unwrap().contains(&transaction.to_string()));
        assert!(!world.has_room().await);
        assert!(
            world.reconcile_all().await.is_empty(),
            "there is nothing left to ask"
        );
    }
}

#[tokio::test]
async fn a_receipt_is_a_claim_until_the_chain_confirms_it() {
    let world = World::new(None).await;
    assert_eq!(world.buy().await, PaymentStatus::Paid);
    let purchase = world.purchase().await;
    assert_eq!(
        (purchase.verified_transaction, purchase.proof.is_none()),
        (None, true)
    );
    assert_eq!(world.reconcile().await.after, State::Settled);
    let purchase = world.purchase().await;
    assert_eq!(purchase.verified_transaction, purchase.transaction);
}

#[tokio::test]
async fn what_expired_unused_is_released_and_its_room_returns() {
    for fault in [
        Fault::SettlementFailure,
        Fault::PendingUnsettled,
        Fault::InventedReceipt,
    ] {
        let world = World::new(Some(fault.clone())).await;
        world.buy().await;
        let signed = world.purchase().await;
        assert_eq!(world.seller.settlements().len(), 0);
        assert!(
            matches!(world.reconcile().await.answer, Answer::CannotTell { .. }),
            "{fault:?}: it can be cashed yet"
        );
        assert!(!world.has_room().await, "{fault:?}");
        world.advance(400);
        let done = world.reconcile().await;
        assert_eq!(
            (done.before, done.after),
            (signed.state, State::ReleasedByProof),
            "{fault:?}: {}",
            done.answer
        );
        assert!(world.has_room().await, "{fault:?}");
        let proof = world.purchase().await.proof.unwrap();
        let hosts = world
            .nodes
            .iter()
            .map(|node| node.url().port().unwrap().to_string());
        assert!(
            hosts.into_iter().all(|port| proof.contains(&port)),
            "the proof names its endpoints: {proof}"
        );

        // Under its id it is bought again with the same nonce, which the chain still accepts once. An older copy of
        // the ledger would sign that nonce too.
        world.seller.clear_faults();
        assert_eq!(world.buy().await, PaymentStatus::Paid, "{fault:?}");
        let again = world.purchase().await;
        assert_eq!((again.generation, again.nonce == signed.nonce), (0, true));
        assert_eq!(world.seller.settlements().len(), 1);
    }
}

#[tokio::test]
async fn one_endpoint_confirms_and_does_not_release() {
    let world = World::with_endpoints(Some(Fault::SettlementFailure), 1).await;
    world.buy().await;
    world.advance(400);
    let done = world.reconcile().await;
    assert_eq!(
        (done.after, world.has_room().await),
        (State::Rejected, false),
        "{}",
        done.answer
    );
    let world = World::with_endpoints(Some(Fault::DropAfterSettle), 1).await;
    world.buy().await;
    assert_eq!(world.reconcile().await.after, State::Settled);
}

#[tokio::test]
async fn no_broken_or_lying_node_releases_what_was_paid() {
    for fault in [
        NodeFault::SaysUnused,
        NodeFault::Unavailable,
        NodeFault::WrongChain,
        NodeFault::NoCode,
    ] {
        let world = World::new(Some(Fault::DropAfterSettle)).await;
        assert_eq!(world.buy().await, PaymentStatus::MaybePaid);
        world.advance(400);
        world.nodes[0].fault(fault);
        let done = world.reconcile().await;
        assert_ne!(done.after, State::ReleasedByProof, "{fault:?}");
        assert!(!world.has_room().await, "{fault:?}");
        // Both of them, and nothing can be told at all.
        let world = World::new(Some(Fault::SettlementFailure)).await;
        world.buy().await;
        world.advance(400);
        world.nodes[1].fault(NodeFault::Unavailable);
        assert!(matches!(
            world.reconcile().await.answer,
            Answer::CannotTell { .. }
        ));
        assert!(!world.has_room().await);
    }
}

#[tokio::test]
async fn a_cancelled_authorization_is_released_before_it_expires() {
    let world = World::new(Some(Fault::SettlementFailure)).await;
    assert_eq!(world.buy().await, PaymentStatus::MaybePaid);
    let id = world.purchase().await.id;
    let cancellation = world.client.cancel(&id).await.unwrap();
    let purchase = world.purchase().await;
    assert_eq!(
        (cancellation.nonce(), cancellation.contract()),
        (purchase.nonce, purchase.asset)
    );
    assert!(!world.has_room().await, "a signature is no proof");
    world
        .seller
        .cancel(&usdc("base-sepolia"), &cancellation)
        .unwrap();
    let done = world.reconcile().await;
    assert_eq!(
        (done.after, world.has_room().await),
        (State::ReleasedByProof, true),
        "{}",
        done.answer
    );
    // What was signed before cannot be cashed any more.
    assert_eq!(
        (
            world.seller.settle_presented(),
            world.seller.settlements().len()
        ),
        (0, 0)
    );
    let error = world.client.cancel(&id).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Purchase, PaymentStatus::NotPaid)
    );
    let unknown = world
        .client
        .cancel(&"never".parse().unwrap())
        .await
        .unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::Purchase);
}

#[tokio::test]
async fn a_network_without_an_endpoint_leaves_the_purchase_as_it_is() {
    let world = World::new(Some(Fault::DropAfterSettle)).await;
    assert_eq!(world.buy().await, PaymentStatus::MaybePaid);
    let ledger = world.client.ledger().unwrap();
    let done = ledger.reconcile(&ChainReader::new()).await.unwrap();
    assert!(matches!(done[0].answer, Answer::CannotTell { .. }));
    assert_eq!(done[0].after, State::Unresolved);
    assert!(!world.has_room().await);
}

#[tokio::test]
async fn the_evidence_of_a_failed_purchase_is_whole_and_holds_no_signature() {
    let route = Route::get("/report")
        .price(usd!("0.01"))
        .upfront()
        .status(500)
        .body("sorry");
    let route = route.header(
        "link",
        "<https://seller.example/refunds>; rel=\"refund-request\"",
    );
    let seller = open(route).await;
    let client = paywall::client()
        .policy(
            Policy::new()
                .allow_network("base-sepolia")
                .unlimited()
                .lifetime(usd!("0.01")),
        )
        .build()
        .unwrap();
    let response = client
        .get(seller.url("/report?secret=1"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), response.payment_status()),
        (500, PaymentStatus::Paid)
    );
    let payment = response.payment().unwrap();
    let key = PurchaseKey::new(payment.payer, payment.purchase.clone());
    assert_eq!(
        response.text().await.unwrap(),
        "sorry",
        "hashing the body does not take it"
    );

    let ledger = client.ledger().unwrap();
    let evidence = ledger.evidence(&key).await.unwrap();
    assert_eq!(
        evidence.refund_request.as_deref(),
        Some("https://seller.example/refunds")
    );
    let text = serde_json::to_string(&evidence).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let settled = &seller.settlements()[0];
    assert_eq!(json["answer"]["status"], 500);
    assert_eq!(
        json["answer"]["receipt"]["transaction"],
        settled.transaction.to_string()
    );
    assert_eq!(json["answer"]["body"]["keccak256"], KECCAK_OF_SORRY);
    assert_eq!(
        (
            &json["answer"]["body"]["bytes"],
            &json["answer"]["body"]["complete"]
        ),
        (&5.into(), &true.into())
    );
    assert_eq!(
        json["authorization"]["nonce"],
        settled.authorization.nonce.to_string()
    );
    assert_eq!(json["authorization"]["value"], "10000");
    assert_eq!(json["terms"]["offer"]["amount"], "10000");
    assert_eq!(json["request"]["path"], "/report");
    let payment = seller.requests().pop().unwrap().payment.unwrap();
    let signature = payment.json.unwrap()["payload"]["signature"]
        .as_str()
        .unwrap()
        .to_owned();
    for secret in [&signature, &payment.header, "secret=1"] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }

    // A refund is a purchase of its own, and makes no room unless the policy says so.
    let transaction = bursar::primitives::B256::repeat_byte(5);
    for _ in 0..2 {
        ledger
            .record_refund(&key, transaction, U256::from(10_000))
            .await
            .unwrap();
    }
    let purchase = purchases(&client).await.remove(0);
    assert_eq!(
        (purchase.refunds.len(), purchase.refunded(), purchase.value),
        (1, U256::from(10_000), U256::from(10_000))
    );
    let error = client.get(seller.url("/report")).send().await.unwrap_err();
    assert_eq!(error.denial().unwrap().rule, Rule::Lifetime);
}
