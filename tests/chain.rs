//! What the chain's reader makes of honest, broken and lying nodes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use bursar::chain::{Answer, ChainReader, Proof, ProofKind, Question, Reason, RpcError};
use bursar::clock::Clock;
use bursar::primitives::{B256, U256};
use bursar::signer::{CancelAuthorization, SignedCancellation};
use bursar::{LocalSigner, Network, Signer, Timestamp};
use bursar_testing::{CancelError, Node, NodeFault, Paywall};
use bursar_tests::clock::TestClock;
use bursar_tests::paywall::{self, report};
use bursar_tests::tokens::usdc;

const NETWORK: Network = Network::from_chain_id(84_532);

/// A paywall with two nodes, a wallet, and a clock that all of them go by.
struct World {
    clock: TestClock,
    paywall: Paywall,
    nodes: [Node; 2],
    signer: Arc<LocalSigner>,
    reader: ChainReader,
}

impl World {
    async fn new() -> Self {
        let clock = TestClock::default();
        let paywall = Paywall::builder()
            .route(report())
            .clock(clock.clone())
            .start()
            .await
            .unwrap();
        let nodes = [
            paywall.node(NETWORK).await.unwrap(),
            paywall.node(NETWORK).await.unwrap(),
        ];
        let mut reader = ChainReader::new().timeout(Duration::from_secs(5));
        for node in &nodes {
            reader = reader.endpoint(NETWORK, node.url().as_str()).unwrap();
        }
        Self {
            clock,
            paywall,
            nodes,
            signer: Arc::new(LocalSigner::random().unwrap()),
            reader,
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn ask(&self, question: &Question) -> Answer {
        self.reader.ask(question, self.now()).await
    }

    /// Buys, and asks of it as the books would.
    async fn purchase(&self) -> Question {
        let client = paywall::client()
            .signer(Arc::clone(&self.signer))
            .clock(self.clock.clone())
            .build()
            .unwrap();
        client
            .get(self.paywall.url("/report"))
            .send()
            .await
            .unwrap();
        let settled = &self.paywall.settlements()[0];
        let authorization = settled.authorization;
        Question {
            network: NETWORK,
            token: settled.asset,
            payer: authorization.from,
            nonce: authorization.nonce,
            payee: authorization.to,
            value: authorization.value,
            valid_before: authorization.valid_before,
            claimed: Some(settled.transaction),
            signed_at: settled.at,
        }
    }

    /// An authorization that was signed and never cashed.
    fn unused(&self) -> Question {
        Question {
            network: NETWORK,
            token: usdc("base-sepolia").address(),
            payer: self.signer.address(),
            nonce: B256::repeat_byte(7),
            payee: bursar::Address::repeat_byte(3),
            value: U256::from(10_000),
            valid_before: self.now().secs().saturating_add(60),
            claimed: None,
            signed_at: self.now(),
        }
    }

    async fn cancellation(&self, question: &Question) -> SignedCancellation {
        let cancellation =
            CancelAuthorization::new(usdc("base-sepolia"), self.signer.address(), question.nonce);
        let signature = self.signer.cancel(&cancellation).await.unwrap();
        SignedCancellation::new(cancellation, signature)
    }
}

const fn cannot_tell(reason: Reason) -> Answer {
    Answer::CannotTell { reason }
}

fn proof(answer: Answer) -> Proof {
    match answer {
        Answer::NotSettled(proof) => proof,
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
async fn a_settlement_is_found_by_claim_and_without_one() {
    let world = World::new().await;
    let question = world.purchase().await;
    let forged = Some(B256::repeat_byte(0xfe));
    world.advance(100_000);
    for claimed in [question.claimed, None, forged] {
        match world
            .ask(&Question {
                claimed,
                ..question
            })
            .await
        {
            Answer::Settled(settlement) => {
                assert_eq!(Some(settlement.transaction), question.claimed);
                assert_eq!(
                    (settlement.value, settlement.block),
                    (question.value, question.signed_at.secs())
                );
            }
            other => unreachable!("{claimed:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn a_narrow_search_is_found_too() {
    let world = World::new().await;
    let question = Question {
        claimed: None,
        ..world.purchase().await
    };
    world
        .nodes
        .iter()
        .for_each(|node| node.fault(NodeFault::NarrowLogs(1000)));
    assert!(matches!(world.ask(&question).await, Answer::Settled(_)));
    world
        .nodes
        .iter()
        .for_each(|node| node.fault(NodeFault::NarrowLogs(1)));
    assert!(matches!(world.ask(&question).await, Answer::Settled(_)));
    // An hour of blocks one by one is more calls than are made.
    let signed_at = Timestamp::from_secs(question.signed_at.secs() - 3600);
    let earlier = Question {
        signed_at,
        ..question
    };
    assert_eq!(
        world.ask(&earlier).await,
        cannot_tell(Reason::NarrowLogs(1))
    );
}

#[tokio::test]
async fn an_expired_unused_authorization_is_released_by_two() {
    let world = World::new().await;
    let question = world.unused();
    assert_eq!(world.ask(&question).await, cannot_tell(Reason::NotExpired));
    world.advance(120);
    assert_eq!(
        world.ask(&question).await,
        cannot_tell(Reason::NotExpired),
        "the margin is part of it"
    );
    world.advance(1);
    let proof = proof(world.ask(&question).await);
    assert_eq!((proof.kind, proof.endpoints.len()), (ProofKind::Expired, 2));
    assert!(proof.endpoints[0].head.timestamp > question.valid_before.saturating_add(60));
    let json = serde_json::to_string(&proof).unwrap();
    assert_eq!(
        serde_json::from_str::<Proof>(&json).unwrap(),
        proof,
        "{json}"
    );
}

#[tokio::test]
async fn one_endpoint_releases_nothing_unless_trusted() {
    let world = World::new().await;
    let question = world.unused();
    world.advance(200);
    let url = world.nodes[0].url().as_str();
    let alone = ChainReader::new().endpoint(NETWORK, url).unwrap();
    let few = cannot_tell(Reason::TooFewEndpoints {
        found: 1,
        required: 2,
    });
    assert_eq!(alone.ask(&question, world.now()).await, few);
    let twice = alone
        .clone()
        .endpoint(NETWORK, &format!("{url}other?key=1"))
        .unwrap();
    assert_eq!(
        twice.ask(&question, world.now()).await,
        few,
        "the same host counts once"
    );
    assert!(matches!(
        alone
            .trust_single_endpoint()
            .ask(&question, world.now())
            .await,
        Answer::NotSettled(_)
    ));
    let nobody = ChainReader::new().ask(&question, world.now()).await;
    assert_eq!(nobody, cannot_tell(Reason::NoEndpoint));
}

#[tokio::test]
async fn a_broken_node_cannot_tell_and_releases_nothing() {
    use NodeFault as F;
    let world = World::new().await;
    let question = world.unused();
    world.advance(200);
    let malformed = |method| Reason::Endpoint(RpcError::Malformed(method));
    let soft = RpcError::Node {
        code: -32603,
        message: "upstream is gone".to_owned(),
    };
    let faults = [
        (F::Unavailable, Reason::Endpoint(RpcError::Status(503))),
        (F::Redirects, Reason::Endpoint(RpcError::Status(307))),
        (F::SoftError, Reason::Endpoint(soft)),
        (F::Truncated, malformed("eth_chainId")),
        (F::Huge, Reason::Endpoint(RpcError::TooLong)),
        (F::WrongChain, Reason::WrongChain(84_533)),
        (F::EmptyWord, malformed("eth_call")),
        (F::NoTimestamp, malformed("eth_getBlockByNumber")),
        (F::NoFinality, Reason::NoFinality),
        (F::NoCode, Reason::NoCode),
        (F::SaysUsed, Reason::ControlFailed),
        (F::StaleBlock, Reason::BlockTooOld),
        (F::FutureBlock, Reason::BlockOfTheFuture),
    ];
    for (fault, reason) in faults {
        world.nodes.iter().for_each(|node| node.fault(fault));
        assert_eq!(
            world.ask(&question).await,
            cannot_tell(reason),
            "{fault:?} of both"
        );
        world.nodes[0].clear_faults();
        assert!(
            matches!(world.ask(&question).await, Answer::CannotTell { .. }),
            "{fault:?} of one"
        );
    }
    let hasty = world.reader.clone().timeout(Duration::from_millis(50));
    world.nodes.iter().for_each(|node| node.fault(F::Hangs));
    assert_eq!(
        hasty.ask(&question, world.now()).await,
        cannot_tell(Reason::Endpoint(RpcError::Timeout))
    );
}

#[tokio::test]
async fn confirmations_stand_in_for_finality_where_the_user_says_so() {
    let world = World::new().await;
    let question = world.unused();
    world
        .nodes
        .iter()
        .for_each(|node| node.fault(NodeFault::NoFinality));
    let reader = world.reader.clone().confirmations(100);
    world.advance(200);
    assert_eq!(
        reader.ask(&question, world.now()).await,
        cannot_tell(Reason::BlockTooOld)
    );
    world.advance(100);
    assert!(matches!(
        reader.ask(&question, world.now()).await,
        Answer::NotSettled(_)
    ));
}

#[tokio::test]
async fn a_lying_node_never_frees_money_that_was_spent() {
    use NodeFault as F;
    let world = World::new().await;
    let question = world.purchase().await;
    world.advance(1000);
    for fault in [
        F::SaysUnused,
        F::StaleBlock,
        F::Reorged,
        F::NoLogs,
        F::NoReceipts,
        F::NoCode,
        F::Unavailable,
    ] {
        for claimed in [question.claimed, None] {
            let question = Question {
                claimed,
                ..question
            };
            world.nodes[0].fault(fault);
            let answer = world.ask(&question).await;
            let contradicted = fault == F::SaysUnused;
            assert_eq!(
                matches!(
                    answer,
                    Answer::CannotTell {
                        reason: Reason::Disagreement(..)
                    }
                ),
                contradicted
            );
            assert_eq!(
                matches!(answer, Answer::Settled(_)),
                !contradicted,
                "{fault:?}: {answer}"
            );
        }
    }
}

#[tokio::test]
async fn a_used_nonce_without_its_transfer_is_not_explained_away() {
    use NodeFault as F;
    let world = World::new().await;
    let question = world.purchase().await;
    let both = |fault| world.nodes.iter().for_each(|node| node.fault(fault));
    both(F::Reorged);
    assert_eq!(world.ask(&question).await, cannot_tell(Reason::Reorged));
    both(F::NoReceipts);
    assert_eq!(
        world.ask(&question).await,
        cannot_tell(Reason::UsedUnexplained)
    );
    world.nodes.iter().for_each(Node::clear_faults);
    let dearer = Question {
        value: question.value.saturating_sub(U256::from(1)),
        ..question
    };
    assert_eq!(world.ask(&dearer).await, cannot_tell(Reason::OtherTransfer));
    let diverted = Question {
        payee: bursar::Address::ZERO,
        ..question
    };
    assert_eq!(
        world.ask(&diverted).await,
        cannot_tell(Reason::OtherTransfer)
    );
}

#[tokio::test]
async fn a_cancellation_releases_before_the_expiry() {
    let world = World::new().await;
    let question = world.unused();
    let cancellation = world.cancellation(&question).await;
    world
        .paywall
        .cancel(&usdc("base-sepolia"), &cancellation)
        .unwrap();
    assert_eq!(
        world.paywall.cancel(&usdc("base-sepolia"), &cancellation),
        Err(CancelError::UsedOrCanceled)
    );
    let proof = proof(world.ask(&question).await);
    assert_eq!(
        (proof.kind, proof.endpoints.len()),
        (ProofKind::Canceled, 2)
    );

    world.nodes[1].fault(NodeFault::NoLogs);
    assert_eq!(
        world.ask(&question).await,
        cannot_tell(Reason::UsedUnexplained)
    );
    world.nodes[1].fault(NodeFault::StaleBlock);
    assert!(matches!(
        world.ask(&question).await,
        Answer::CannotTell { .. }
    ));
}

#[tokio::test]
async fn the_chain_takes_a_cancellation_of_its_owner_alone() {
    let world = World::new().await;
    let question = world.purchase().await;
    let late = world.cancellation(&question).await;
    assert_eq!(
        world.paywall.cancel(&usdc("base-sepolia"), &late),
        Err(CancelError::UsedOrCanceled),
        "it was paid first"
    );
    let theirs = CancelAuthorization::new(usdc("base-sepolia"), world.signer.address(), B256::ZERO);
    let forged = SignedCancellation::new(theirs, late.signature().clone());
    assert_eq!(
        world.paywall.cancel(&usdc("base-sepolia"), &forged),
        Err(CancelError::InvalidSignature)
    );
}

#[tokio::test]
async fn nothing_shows_the_key_in_an_rpc_url() {
    let world = World::new().await;
    let reader = ChainReader::new()
        .endpoint(
            NETWORK,
            "http://user:hunter2@127.0.0.1:9/v2/hunter2?key=hunter2",
        )
        .unwrap();
    let answer = reader.ask(&world.unused(), world.now()).await;
    assert_eq!(answer, cannot_tell(Reason::Endpoint(RpcError::Unreachable)));
    assert!(!format!("{reader:?} {answer:?} {answer}").contains("hunter2"));
    let error = reader.endpoint(NETWORK, "ftp://hunter2").unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}
