//! Proofs from the chain about payments by Permit2.

use std::time::Duration;

use bursar::chain::{Answer, ChainReader, ProofKind, Question, Reason};
use bursar::clock::Clock;
use bursar::ledger::State;
use bursar::money::TransferMethod;
use bursar::primitives::{B256, U256};
use bursar::{Client, Ledger, Network, Timestamp, usd};
use bursar_testing::{Fault, Node, NodeFault, Paywall, Route};
use bursar_tests::clock::TestClock;
use bursar_tests::paywall;
use bursar_tests::signatures::wallet;

use super::{builder, only_purchase, policy, upto};

const NETWORK: Network = Network::from_chain_id(84_532);

struct World {
    clock: TestClock,
    seller: Paywall,
    nodes: [Node; 2],
    chain: ChainReader,
    client: Client,
}

impl World {
    async fn new(route: Route) -> Self {
        Self::on(route, Ledger::memory()).await
    }

    async fn on(route: Route, ledger: Ledger) -> Self {
        let clock = TestClock::default();
        let seller = Paywall::builder()
            .route(route)
            .allowance(wallet().address(), 10_000_000)
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let nodes = [
            seller.node(NETWORK).await.unwrap(),
            seller.node(NETWORK).await.unwrap(),
        ];
        let mut chain = ChainReader::new().timeout(Duration::from_secs(5));
        for (node, operator) in nodes.iter().zip(["one", "another"]) {
            let url = node.url().as_str();
            chain = chain.endpoint_operated_by(NETWORK, url, operator).unwrap();
        }
        let client = builder()
            .policy(policy())
            .ledger(ledger)
            .clock(clock.clone())
            .build()
            .unwrap();
        Self {
            clock,
            seller,
            nodes,
            chain,
            client,
        }
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn buy(&self) {
        let report = self.client.get(self.seller.url("/report"));
        report.allow_duplicate().send().await.unwrap();
    }

    /// Asks about the settlement at this place, as the ledger would.
    fn question(&self, index: usize) -> Question {
        let settled = self.seller.settlements().remove(index);
        let permit = settled.permit.unwrap();
        Question {
            network: NETWORK,
            method: TransferMethod::Permit2,
            token: settled.asset,
            payer: permit.from,
            nonce: permit.nonce.into(),
            payee: permit.to,
            value: permit.amount,
            valid_before: permit.deadline.saturating_add(1),
            claimed: Some(settled.transaction),
            signed_at: settled.at,
        }
    }

    async fn ask(&self, question: &Question) -> Answer {
        self.chain.ask(question, self.clock.now()).await
    }

    /// Returns the claimed transaction and the charge in the answer.
    async fn charge(&self, question: &Question) -> (Option<B256>, u64) {
        match self.ask(question).await {
            Answer::Settled(settled) => (settled.transaction, settled.value.to()),
            other => unreachable!("{other}"),
        }
    }

    async fn reconcile(&self) -> Answer {
        let ledger = self.client.ledger().unwrap();
        let mut answers = ledger.reconcile(&self.chain).await.unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0).answer
    }
}

fn cheap() -> Route {
    upto().charge(usd!("0.004"))
}

#[tokio::test]
async fn two_endpoints_lower_a_permit_to_its_charge_in_every_store() {
    let directory = tempfile::tempdir().unwrap();
    let file = Ledger::open(directory.path().join("ledger.db")).unwrap();
    for ledger in [Ledger::memory(), file] {
        let world = World::on(cheap(), ledger).await;
        world.buy().await;
        let before = only_purchase(&world.client).await;
        assert_eq!(before.counted(), U256::from(10_000));
        assert!(before.is_unproven());
        world.advance(10);
        let transaction = world.seller.settlements()[0].transaction;
        let answer = world.reconcile().await;
        assert_eq!(answer.to_string(), format!("settled in {transaction}"));
        let after = only_purchase(&world.client).await;
        assert_eq!(after.state, State::Settled);
        assert_eq!(after.verified_charge, Some(U256::from(4_000)));
        assert_eq!(after.counted(), U256::from(4_000));
        assert_eq!(after.verified_transaction, Some(transaction));
        assert!(!after.is_unproven());
        let ledger = world.client.ledger().unwrap();
        assert!(ledger.reconcile(&world.chain).await.unwrap().is_empty());
        assert!(ledger.verify(None).await.is_ok());
    }
}

#[tokio::test]
async fn one_endpoint_settles_a_permit_and_frees_nothing() {
    let world = World::new(cheap()).await;
    world.buy().await;
    world.advance(10);
    let question = world.question(0);
    let url = world.nodes[0].url().as_str();
    let alone = ChainReader::new().endpoint(NETWORK, url).unwrap();
    match alone.ask(&question, world.clock.now()).await {
        Answer::Settled(settled) => {
            assert_eq!((settled.transaction, settled.value), (None, question.value));
        }
        other => unreachable!("{other}"),
    }
    let trusted = alone.trust_single_endpoint();
    match trusted.ask(&question, world.clock.now()).await {
        Answer::Settled(settled) => assert_eq!(settled.value, U256::from(4_000)),
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
async fn a_claim_of_another_purchase_does_not_lower_the_count() {
    let world = World::new(cheap()).await;
    world.buy().await;
    world.advance(5);
    world.buy().await;
    world.advance(5);
    let [first, second] = [world.question(0), world.question(1)];
    for (question, claimed) in [
        (first, second.claimed),
        (second, first.claimed),
        (first, Some(B256::repeat_byte(0xfe))),
        (first, None),
    ] {
        let question = Question {
            claimed,
            ..question
        };
        assert_eq!(world.charge(&question).await, (None, 10_000));
    }
    assert_eq!(world.charge(&first).await, (first.claimed, 4_000));
}

#[tokio::test]
async fn a_claim_in_the_same_block_counts_all_that_the_block_moved() {
    let world = World::new(cheap()).await;
    world.buy().await;
    world.buy().await;
    world.advance(5);
    let [first, second] = [world.question(0), world.question(1)];
    assert_eq!(first.signed_at, second.signed_at, "one block");
    for claimed in [first.claimed, second.claimed] {
        let question = Question { claimed, ..first };
        assert_eq!(world.charge(&question).await, (claimed, 8_000));
    }
    world.buy().await;
    world.buy().await;
    world.buy().await;
    world.advance(5);
    let crowded = world.question(4);
    assert_eq!(
        world.charge(&crowded).await.1,
        10_000,
        "never above the ceiling"
    );
}

#[tokio::test]
async fn nodes_that_lie_about_a_permit_release_nothing_and_lower_nothing() {
    for (fault, expected) in [
        // The claim holds at one party only, and its charge is the ceiling then.
        (NodeFault::NoHistory, Ok((None, 10_000))),
        (NodeFault::NoLogs, Ok((None, 10_000))),
        (NodeFault::NoReceipts, Ok((None, 10_000))),
        (NodeFault::Reorged, Ok((None, 10_000))),
        // The larger of two charges counts.
        (NodeFault::SmallTransfers, Ok((Some(()), 4_000))),
        (NodeFault::SaysUsed, Err("charge")),
        (NodeFault::Unavailable, Err("charge")),
        (NodeFault::StaleBlock, Err("charge")),
        (NodeFault::SaysUnused, Err("contradict")),
    ] {
        let world = World::new(cheap()).await;
        world.buy().await;
        world.advance(10);
        for node in &world.nodes {
            world.nodes.iter().for_each(Node::clear_faults);
            node.fault(fault);
            let question = world.question(0);
            match (world.ask(&question).await, expected) {
                (Answer::Settled(settled), Ok((transaction, value))) => {
                    assert_eq!(settled.transaction.map(|_| ()), transaction, "{fault:?}");
                    assert_eq!(settled.value, U256::from(value), "{fault:?}");
                }
                (Answer::CannotTell { reason }, Err(text)) => {
                    assert!(reason.to_string().contains(text), "{fault:?}: {reason}");
                }
                (other, _) => unreachable!("{fault:?}: {other}"),
            }
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_stays_silent_ends_the_wait_for_a_charge_at_the_ceiling() {
    let world = World::new(cheap()).await;
    world.buy().await;
    world.nodes[1].fault(NodeFault::Unavailable);
    world.advance(600);
    let answer = world.reconcile().await;
    let reason = Reason::ChargeUnknown {
        found: 1,
        required: 2,
    };
    assert_eq!(answer, Answer::CannotTell { reason });
    assert_eq!(
        only_purchase(&world.client).await.counted(),
        U256::from(10_000)
    );
    world.advance(7200);
    let answer = world.reconcile().await;
    assert!(answer.to_string().contains("Permit2 is used"), "{answer}");
    let purchase = only_purchase(&world.client).await;
    assert_eq!(purchase.state, State::Settled);
    assert_eq!(
        (purchase.verified_charge, purchase.verified_transaction),
        (None, None)
    );
    assert_eq!(purchase.counted(), U256::from(10_000));
}

#[tokio::test]
async fn an_unused_permit_is_released_only_after_its_last_second_and_the_margin() {
    let world = World::new(upto().fault(Fault::DeliverUnsettled)).await;
    world.buy().await;
    let purchase = only_purchase(&world.client).await;
    assert_eq!(purchase.state, State::Unresolved);
    let deadline = purchase.valid_before.unwrap() - 1;
    let until = |world: &World, seconds: u64| {
        let now = world.clock.now().secs();
        world.advance(deadline + seconds - now);
    };
    until(&world, 61);
    let reason = Reason::NotExpired;
    assert_eq!(world.reconcile().await, Answer::CannotTell { reason });
    until(&world, 62);
    match world.reconcile().await {
        Answer::NotSettled(proof) => {
            assert_eq!((proof.kind, proof.endpoints.len()), (ProofKind::Expired, 2));
            for endpoint in &proof.endpoints {
                assert!(endpoint.head.timestamp > deadline + 60);
            }
        }
        other => unreachable!("{other}"),
    }
    let released = only_purchase(&world.client).await;
    assert_eq!(released.state, State::ReleasedByProof);
    assert!(!released.counts(world.clock.now()));
}

#[tokio::test]
async fn a_nonce_of_the_token_says_nothing_about_a_permit() {
    let world = World::new(cheap()).await;
    world.buy().await;
    world.advance(100_000);
    let permit = world.question(0);
    let transfer = Question {
        method: TransferMethod::Eip3009,
        ..permit
    };
    // The token reports the nonce as unused. A permit is never asked about there.
    assert!(matches!(world.ask(&transfer).await, Answer::NotSettled(_)));
    assert!(matches!(world.ask(&permit).await, Answer::Settled(_)));
}

#[tokio::test]
async fn a_permit_that_its_owner_invalidated_counts_as_its_ceiling() {
    let world = World::new(upto().fault(Fault::DeliverUnsettled)).await;
    world.buy().await;
    let purchase = only_purchase(&world.client).await;
    let (owner, nonce) = (wallet().address(), purchase.nonce.into());
    world.seller.invalidate_permit(NETWORK, owner, nonce);
    world.advance(3600);
    assert!(matches!(world.reconcile().await, Answer::Settled(_)));
    let settled = only_purchase(&world.client).await;
    assert_eq!(settled.counted(), U256::from(10_000));
}

#[tokio::test]
async fn exact_by_permit2_is_proved_at_its_price() {
    let world = World::new(paywall::report().permit2()).await;
    world.buy().await;
    world.advance(10);
    let question = world.question(0);
    assert_eq!(world.charge(&question).await, (question.claimed, 10_000));
    assert_ne!(question.signed_at, Timestamp::from_secs(0));
}
