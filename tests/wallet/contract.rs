//! A contract wallet checks its own signature before it leaves.

use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bursar::chain::{ContractSignature, Reason};
use bursar::ledger::State;
use bursar::policy::SignIn;
use bursar::primitives::{Address, B256};
use bursar::signer::{AccountKind, SignInMessage, Signature, SignerError, TransferAuthorization};
use bursar::telemetry::Event;
use bursar::{Client, ErrorKind, Network, PaymentStatus, Policy, Signer};
use bursar_testing::{Paywall, Route};
use bursar_tests::paywall::{self, purchases, report};
use bursar_tests::stub_node::{Answer, StubNode, word};
use bursar_tests::tokens::usdc;
use serde_json::{Value, json};

const SEPOLIA: Network = Network::from_chain_id(84_532);
const WALLET: Address = Address::repeat_byte(0xc0);
const ACCEPTED: &str = "0x1626ba7e00000000000000000000000000000000000000000000000000000000";

/// A wallet whose owner signs with these bytes.
struct Wallet(Vec<u8>);

impl Signer for Wallet {
    fn address(&self) -> Address {
        WALLET
    }
    fn account(&self) -> AccountKind {
        AccountKind::Contract
    }
    async fn sign(&self, _: &TransferAuthorization) -> Result<Signature, SignerError> {
        Ok(Signature::new(self.0.clone()))
    }
    async fn sign_in(&self, _: &SignInMessage) -> Result<Signature, SignerError> {
        Ok(Signature::new(self.0.clone()))
    }
}

/// Answers balances with plenty, and questions to the wallet with `answer`.
async fn node(
    code: &'static str,
    answer: impl Fn(&Value) -> Answer + Send + Sync + 'static,
) -> StubNode {
    StubNode::start(SEPOLIA, move |method, params| match method {
        "eth_getCode" => Some(Ok(json!(code))),
        "eth_call"
            if params[0]["data"]
                .as_str()
                .unwrap()
                .starts_with("0x70a08231") =>
        {
            Some(Ok(json!(word(1_000_000))))
        }
        "eth_call" => answer(params),
        _ => panic!("{method}"),
    })
    .await
}

fn client(node: &StubNode, signature: Vec<u8>) -> Client {
    paywall::client()
        .signer(Wallet(signature))
        .policy(Policy::new().allow_network("base-sepolia"))
        .chain(node.reader(SEPOLIA))
        .build()
        .unwrap()
}

async fn sell() -> Paywall {
    paywall::open(report()).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Encodes a signature of ERC-6492.
fn wrapped(factory: Address, deployment: &[u8], signature: &[u8]) -> Vec<u8> {
    let number = |number: usize| B256::left_padding_from(&number.to_be_bytes()).to_vec();
    let padded = |bytes: &[u8]| {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().div_ceil(32) * 32, 0);
        [number(bytes.len()), padded].concat()
    };
    let deployment = padded(deployment);
    [
        factory.into_word().to_vec(),
        number(96),
        number(96 + deployment.len()),
        deployment,
        padded(signature),
        [0x64, 0x92].repeat(16),
    ]
    .concat()
}

#[tokio::test]
async fn a_signature_that_its_contract_accepts_leaves() {
    let node = node("0xfe", |_| Some(Ok(json!(ACCEPTED)))).await;
    let seller = sell().await;
    let client = client(&node, vec![7; 70]);
    let sent = client.get(seller.url("/report")).send().await;
    // The simulated seller knows key pairs only. The signature reached it.
    drop(sent);
    assert_eq!(paywall::payments_sent(&seller), 1);
    let asked = node.params("eth_call");
    let question = &asked[1][0];
    assert_eq!(question["to"], WALLET.to_string());
    assert_eq!(question["from"], usdc("base-sepolia").address().to_string());
    let data = question["data"].as_str().unwrap();
    assert!(data.starts_with("0x1626ba7e"), "{data}");
    // Hash, offset 64, length 70, and the bytes in three words.
    assert_eq!(data.len(), 2 + 8 + 64 * (3 + 3));
    assert!(data.contains(&"07".repeat(70)), "{data}");
}

#[tokio::test]
async fn a_signature_that_its_contract_refuses_does_not_leave_and_costs_nothing() {
    let refusals: [fn(&Value) -> Answer; 6] = [
        |_| {
            Some(Ok(json!(
                "0xffffffff00000000000000000000000000000000000000000000000000000000"
            )))
        },
        |_| Some(Ok(json!("0x"))),
        |_| Some(Ok(json!("0x1626ba7e"))),
        |_| Some(Ok(json!(format!("{ACCEPTED}00")))),
        |_| {
            Some(Ok(json!(
                "0x1626ba7e00000000000000000000000000000000000000000000000000000001"
            )))
        },
        |_| Some(Err("execution reverted".to_owned())),
    ];
    for (number, refusal) in refusals.into_iter().enumerate() {
        let node = node("0xfe", refusal).await;
        let seller = sell().await;
        let client = client(&node, vec![7; 65]);
        let error = client.get(seller.url("/report")).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Signer, PaymentStatus::NotPaid),
            "{number}: {error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&WALLET.to_string()) && text.contains("was not sent"),
            "{text}"
        );
        assert_eq!(paywall::payments_sent(&seller), 0, "{number}");
        let purchase = purchases(&client).await.remove(0);
        assert_eq!(purchase.state, State::Voided, "{number}");
        assert!(!text.contains("07070707"), "{text}");
    }
}

#[tokio::test]
async fn a_wallet_that_is_not_deployed_needs_a_signature_that_says_how() {
    let seller = sell().await;
    let bare = node("0x", |_| panic!("there is nobody to ask")).await;
    let error = client(&bare, vec![7; 65])
        .get(seller.url("/report"))
        .send()
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is not deployed"), "{error}");
    assert_eq!(paywall::payments_sent(&seller), 0);

    // With ERC-6492 the node simulates the deployment and the question in one call.
    let factory = Address::repeat_byte(0xfa);
    let node = node("0x", |_| Some(Ok(json!(ACCEPTED)))).await;
    let signature = wrapped(factory, &[0xde; 40], &[0x51; 65]);
    drop(
        client(&node, signature)
            .get(seller.url("/report"))
            .send()
            .await,
    );
    assert_eq!(paywall::payments_sent(&seller), 1);
    let call = &node.params("eth_call")[1][0];
    assert!(call.get("to").is_none(), "{call}");
    let data = call["data"].as_str().unwrap();
    for part in [
        hex(factory.as_slice()),
        hex(WALLET.as_slice()),
        "de".repeat(40),
        "51".repeat(65),
    ] {
        assert!(data.contains(&part), "{part} is not in {data}");
    }
    assert!(
        !data.contains("64926492"),
        "the wallet gets the inner signature"
    );
}

#[tokio::test]
async fn a_wrapped_signature_of_a_deployed_wallet_is_unwrapped() {
    let seller = sell().await;
    let node = node("0xfe", |_| Some(Ok(json!(ACCEPTED)))).await;
    let signature = wrapped(Address::repeat_byte(0xfa), &[0xde; 40], &[0x51; 65]);
    drop(
        client(&node, signature)
            .get(seller.url("/report"))
            .send()
            .await,
    );
    let data = node.params("eth_call")[1][0]["data"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        data.contains(&"51".repeat(65)) && !data.contains("dededede"),
        "{data}"
    );
}

#[tokio::test]
async fn broken_wrappings_are_refused_and_never_panic() {
    let node = node("0x", |_| Some(Ok(json!(ACCEPTED)))).await;
    let reader = node.reader(SEPOLIA);
    let whole = wrapped(Address::repeat_byte(0xfa), &[0xde; 40], &[0x51; 65]);
    let mark = [0x64, 0x92].repeat(16);
    let mut far = whole.clone();
    far[32..64].fill(0xff);
    let mut long = whole.clone();
    long[96..128].fill(0xff);
    let huge = wrapped(Address::ZERO, &vec![1; 64 * 1024], &[2; 65]);
    let short = [&whole[..90], &mark].concat();
    for broken in [mark, short, far, long, huge, Vec::new(), vec![1]] {
        let answer = reader
            .check_signature(SEPOLIA, WALLET, Address::ZERO, B256::ZERO, &broken)
            .await
            .unwrap();
        assert_ne!(
            answer,
            ContractSignature::Accepted,
            "{} bytes",
            broken.len()
        );
    }
}

#[tokio::test]
async fn a_contract_that_cannot_be_asked_stops_no_payment_and_is_told() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&events);
    let node = node("0xfe", |_| Some(Err("the database is gone".to_owned()))).await;
    let seller = sell().await;
    let client = paywall::client()
        .signer(Wallet(vec![7; 65]))
        .policy(Policy::new().allow_network("base-sepolia"))
        .chain(node.reader(SEPOLIA))
        .observer(move |event: &Event<'_>| kept.lock().unwrap().push(event.name()))
        .build()
        .unwrap();
    drop(client.get(seller.url("/report")).send().await);
    assert_eq!(paywall::payments_sent(&seller), 1);
    assert!(events.lock().unwrap().contains(&"signature_unchecked"));
}

#[tokio::test]
async fn one_honest_node_overrules_one_that_refuses_a_signature() {
    let honest = node("0xfe", |_| Some(Ok(json!(ACCEPTED)))).await;
    let liar = node("0x", |_| Some(Ok(json!("0x")))).await;
    let elsewhere = StubNode::start(Network::from_chain_id(1), |_, _| None).await;
    let ask = async |nodes: &[&StubNode]| {
        let reader = nodes
            .iter()
            .fold(bursar::ChainReader::new(), |reader, node| {
                reader.endpoint(SEPOLIA, node.url()).unwrap()
            });
        reader
            .check_signature(SEPOLIA, WALLET, Address::ZERO, B256::ZERO, &[1; 65])
            .await
    };
    assert_eq!(
        ask(&[&liar, &honest]).await,
        Ok(ContractSignature::Accepted)
    );
    assert_eq!(
        ask(&[&liar, &elsewhere]).await,
        Ok(ContractSignature::NotDeployed)
    );
    assert_eq!(ask(&[&elsewhere]).await, Err(Reason::WrongChain(1)));
    assert_eq!(ask(&[]).await, Err(Reason::NoEndpoint));
}

#[tokio::test]
async fn a_contract_wallet_checks_its_sign_in_before_it_leaves() {
    let seller = paywall::open(Route::get("/me").sign_in_only()).await;
    let scheme = async |node: &StubNode, signature: Vec<u8>| {
        let always = Policy::new()
            .allow_network("base-sepolia")
            .sign_in(SignIn::Always);
        let client = client(node, signature).with_policy(always).unwrap();
        let error = client.get(seller.url("/me")).send().await.unwrap_err();
        let sign_in = seller.sign_ins().last().cloned();
        let json: Option<Value> = sign_in.map(|sign_in| {
            let json = STANDARD.decode(sign_in.header).unwrap();
            serde_json::from_slice(&json).unwrap()
        });
        let scheme = json.and_then(|json| Some(json["signatureScheme"].as_str()?.to_owned()));
        (error.kind(), seller.sign_ins().len(), scheme)
    };
    let refusing = node("0xfe", |_| Some(Err("execution reverted".to_owned()))).await;
    assert_eq!(
        scheme(&refusing, vec![7; 70]).await,
        (ErrorKind::Signer, 0, None)
    );
    // The simulated seller knows key pairs only. The sign-in reached it.
    let accepting = node("0xfe", |_| Some(Ok(json!(ACCEPTED)))).await;
    assert_eq!(
        scheme(&accepting, vec![7; 70]).await,
        (ErrorKind::NotPayable, 1, Some("eip1271".to_owned()))
    );
    let question = &accepting.params("eth_call")[0][0];
    assert_eq!(question["to"], WALLET.to_string());
    assert_eq!(question["from"], Address::ZERO.to_string());
    let wrapped = wrapped(Address::repeat_byte(0xfa), b"deploy", &[7; 65]);
    let undeployed = node("0x", |_| Some(Ok(json!(ACCEPTED)))).await;
    assert_eq!(
        scheme(&undeployed, wrapped).await,
        (ErrorKind::NotPayable, 2, Some("eip6492".to_owned()))
    );
}
