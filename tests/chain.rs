//! What the chain's reader makes of honest, broken and lying nodes.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bursar::chain::{
    Answer, ChainReader, EndpointError, Proof, ProofKind, Question, Reason, RpcError,
};
use bursar::clock::Clock;
use bursar::money::TransferMethod;
use bursar::primitives::{B256, U256};
use bursar::signer::{CancelAuthorization, SignedCancellation};
use bursar::{LocalSigner, Network, Signer, Timestamp};
use bursar_testing::{CancelError, Node, NodeFault, Paywall};
use bursar_tests::clock::TestClock;
use bursar_tests::paywall::{self, report};
use bursar_tests::tokens::usdc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        // Both are on loopback, and stand for the nodes of two parties.
        for (node, operator) in nodes.iter().zip(["one", "another"]) {
            let url = node.url().as_str();
            reader = reader.endpoint_operated_by(NETWORK, url, operator).unwrap();
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
            method: TransferMethod::Eip3009,
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
            method: TransferMethod::Eip3009,
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
                assert_eq!(settlement.transaction, question.claimed);
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
    let other = world.nodes[1].url();
    let port = other.port().unwrap();
    for same in [
        other.to_string(),
        format!("http://localhost:{port}/"),
        format!("http://one.localhost:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
    ] {
        let two = alone.clone().endpoint(NETWORK, &same).unwrap();
        let answer = two.ask(&question, world.now()).await;
        assert_eq!(answer, few, "{same}: one machine is one party");
    }
    let named = |operator| {
        let reader = ChainReader::new().endpoint_operated_by(NETWORK, url, "one");
        reader
            .and_then(|reader| reader.endpoint_operated_by(NETWORK, other.as_str(), operator))
            .unwrap()
    };
    let answer = named("one").ask(&question, world.now()).await;
    assert_eq!(answer, few, "one operator is one party");
    let proof = proof(named("another").ask(&question, world.now()).await);
    assert_eq!(proof.endpoints.len(), 2);
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

#[test]
fn plain_http_to_a_node_elsewhere_is_refused() {
    for url in [
        "http://mainnet.base.example",
        "http://10.0.0.7:8545/",
        "http://192.0.2.1",
        "http://[2001:db8::1]",
        "http://0.0.0.0:8545",
        "http://node:8545",
        "HTTP://localhost.example",
    ] {
        let error = ChainReader::new().endpoint(NETWORK, url).unwrap_err();
        assert_eq!(error, EndpointError::Insecure, "{url}");
        let error = ChainReader::new().endpoint_operated_by(NETWORK, url, "us");
        assert_eq!(error.unwrap_err(), EndpointError::Insecure, "{url}");
    }
}

const PROXIED: &str = "BURSAR_TEST_PROXIED";

/// The environment belongs to the process, so a child asks.
#[test]
fn a_node_on_loopback_is_asked_without_the_proxy_of_the_environment() {
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "the_child_that_asks_a_node", "--ignored"]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        child.env(name, &url);
    }
    child
        .env(PROXIED, "1")
        .env_remove("no_proxy")
        .env_remove("NO_PROXY");
    let ended = child.output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert!(
        String::from_utf8_lossy(&ended.stdout).contains("1 passed"),
        "{ended:?}"
    );
    proxy.set_nonblocking(true).unwrap();
    assert!(proxy.accept().is_err(), "the proxy saw a connection");
}

#[tokio::test]
#[ignore = "a part of a_node_on_loopback_is_asked_without_the_proxy_of_the_environment"]
async fn the_child_that_asks_a_node() {
    if std::env::var(PROXIED).is_err() {
        return;
    }
    let world = World::new().await;
    world.advance(200);
    let question = world.unused();
    world.advance(200);
    for node in &world.nodes {
        for host in ["127.0.0.1", "localhost"] {
            let url = node.url().to_string().replace("127.0.0.1", host);
            let reader = ChainReader::new().endpoint(NETWORK, &url).unwrap();
            let answer = reader
                .trust_single_endpoint()
                .ask(&question, world.now())
                .await;
            assert!(matches!(answer, Answer::NotSettled(_)), "{answer}");
        }
    }
}

/// Returns a node that answers every request with these bytes, and the last of them again and again.
async fn endless(start: &'static [u8], again: &'static [u8]) -> String {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 4096];
                assert!(stream.read(&mut request).await.unwrap() > 0);
                let mut sent = stream.write_all(start).await;
                while sent.is_ok() && !again.is_empty() {
                    sent = stream.write_all(again).await;
                }
                // Silence, until the client goes.
                drop(stream.read(&mut request).await);
            });
        }
    });
    url
}

#[tokio::test]
async fn a_node_that_never_ends_its_answer_is_left_in_time() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let world = World::new().await;
    let question = world.unused();
    for (start, again) in [
        (HEAD, &b"x-more: header\r\n"[..]),
        (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        (CHUNKED, b"1\r\n[\r\n"),
        (CHUNKED, b"1;extension\r\n[\r\n"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{", b""),
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            b"[[[[[[[[",
        ),
        (b"HTTP/1.1 503 No\r\n\r\n", b"["),
    ] {
        let url = endless(start, again).await;
        let reader = ChainReader::new()
            .endpoint(NETWORK, &url)
            .unwrap()
            .timeout(Duration::from_millis(300));
        let answer = reader.ask(&question, world.now()).await;
        let Answer::CannotTell {
            reason: Reason::Endpoint(error),
        } = answer
        else {
            unreachable!("{answer}")
        };
        assert!(
            matches!(
                error,
                RpcError::Unreachable | RpcError::Timeout | RpcError::TooLong
            ),
            "{error}"
        );
    }
    // It is not waited for longer than it is asked again.
    let later = b"HTTP/1.1 429 No\r\nretry-after: 99999999999\r\ncontent-length: 0\r\n\r\n";
    let url = endless(later, b"").await;
    let reader = ChainReader::new().endpoint(NETWORK, &url).unwrap();
    let limited = RpcError::RateLimited(Duration::from_secs(99_999_999_999));
    let answer = reader.ask(&question, world.now()).await;
    assert_eq!(answer, cannot_tell(Reason::Endpoint(limited)));
}
