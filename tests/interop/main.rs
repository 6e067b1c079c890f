//! bursar buys from official sellers, which settle with the bytecode of USDC on a local chain.
//!
//! `tests/interop/run` starts the chain and the sellers, and runs these tests. They are ignored otherwise.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![expect(clippy::arithmetic_side_effects, reason = "tests")]

mod permits;
mod sign_in;
mod signed_offers;
mod world;

use bursar::chain::{Answer, ContractSignature, ProofKind, Question, Reason};
use bursar::ledger::State;
use bursar::money::AssetRegistry;
use bursar::policy::Rule;
use bursar::primitives::{B256, U256, address};
use bursar::signer::{
    AccountKind, CancelAuthorization, SignInMessage, Signature, SignedCancellation, SignerError,
    TransferAuthorization,
};
use bursar::{
    Address, Client, ErrorKind, Ledger, LocalSigner, Network, PaymentStatus, Policy, ResponseExt,
    Signer, Timestamp, usd,
};
use bursar_tests::paywall::purchases;
use serde_json::{Value, json};
use world::{SENDER, Seller, World, reader};

/// The keys of Anvil's accounts 1 to 5 and 12, which are published. Each test has its own account and balance.
const KEYS: [&str; 6] = [
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "0xa267530f49f8280200edf313ee7af6b827f2a8bce2897751d06a843f644967b1",
];

struct Buyer {
    client: Client,
    address: Address,
}

fn buyer(key: usize) -> Buyer {
    let signer = LocalSigner::from_hex(&KEYS[key].to_owned().into()).unwrap();
    let address = signer.address();
    let client = Client::builder()
        .signer(signer)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()
        .unwrap();
    Buyer { client, address }
}

/// The balance of a buyer before a purchase.
///
/// The balances of sellers are not compared, because sellers serve several tests at once.
struct BalanceBefore<'a> {
    world: &'a World,
    buyer: Address,
    before: U256,
}

impl<'a> BalanceBefore<'a> {
    async fn of(world: &'a World, buyer: Address) -> Self {
        Self {
            world,
            buyer,
            before: world.balance(buyer).await,
        }
    }

    /// Checks that the balance is now lower by this amount.
    async fn decreased_by(&self, units: u64) {
        assert_eq!(
            self.world.balance(self.buyer).await,
            self.before - U256::from(units),
            "the buyer's balance"
        );
    }
}

/// Checks that the transaction of the receipt exists and moved exactly the signed amount.
async fn confirm(
    world: &World,
    response: &reqwest::Response,
    buyer: Address,
    seller: &Seller,
    units: u64,
) {
    assert_eq!(response.payment_status(), PaymentStatus::Paid);
    let receipt = response.receipt().unwrap();
    assert_eq!(receipt.amount().units(), U256::from(units));
    assert_eq!(
        world.transfers(receipt.transaction()).await,
        [(buyer, seller.pay_to, U256::from(units))]
    );
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn gets_posts_and_streams_from_every_seller() {
    let world = World::load();
    let Buyer { client, address } = buyer(0);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let balance = BalanceBefore::of(&world, address).await;

        let response = client
            .get(format!("{}/free", seller.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (200, PaymentStatus::NotPaid)
        );
        balance.decreased_by(0).await;

        let response = client
            .get(format!("{}/report", seller.url))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        confirm(&world, &response, address, seller, 10_000).await;
        assert_eq!(response.json::<Value>().await.unwrap()["report"], "ok");
        balance.decreased_by(10_000).await;

        let body: Vec<u8> = (0..=255).collect();
        let request = client
            .post(format!("{}/echo", seller.url))
            .header("content-type", "application/x-bytes")
            .body(body.clone());
        let response = request.send().await.unwrap();
        confirm(&world, &response, address, seller, 20_000).await;
        assert_eq!(response.bytes().await.unwrap(), body);
        balance.decreased_by(30_000).await;

        let response = client
            .get(format!("{}/stream", seller.url))
            .send()
            .await
            .unwrap();
        confirm(&world, &response, address, seller, 10_000).await;
        assert_eq!(
            response.text().await.unwrap(),
            "data: 1\n\ndata: 2\n\ndata: 3\n\n"
        );
        balance.decreased_by(40_000).await;
    }
    let purchases = purchases(&client).await;
    assert!(
        !purchases.is_empty()
            && purchases
                .iter()
                .all(|purchase| purchase.state == State::Settled)
    );
}

#[cfg(feature = "mcp")]
#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn tools_of_the_official_python_server_are_paid() {
    use bursar::PriceOutcome;
    use bursar::mcp::{self, PaidTools, Server};
    use rmcp::ServiceExt;

    let world = World::load();
    let Buyer { client, address } = buyer(5);
    let seller = &world.sellers["mcp"];
    let balance = BalanceBefore::of(&world, address).await;
    let service = ().serve(mcp::connect(&client, &seller.url).unwrap()).await.unwrap();
    let listed = service.list_all_tools().await.unwrap();
    assert_eq!(
        listed
            .iter()
            .map(|tool| tool.name.as_ref())
            .collect::<Vec<_>>(),
        ["free", "report"]
    );
    let payer = client.payer().unwrap().clone();
    let tools = PaidTools::new(
        service.peer().clone(),
        payer,
        Server::at(&seller.url).unwrap(),
    );
    let free = tools.call("free").send().await.unwrap();
    assert_eq!(free.payment_status(), PaymentStatus::NotPaid);
    assert!(matches!(
        tools.call("report").quote().await.unwrap(),
        PriceOutcome::Priced(_)
    ));
    balance.decreased_by(0).await;
    let answer = tools
        .call("report")
        .arguments(json!({ "topic": "x" }))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.payment_status(), PaymentStatus::Paid);
    assert!(
        answer.result().content[0]
            .as_text()
            .unwrap()
            .text
            .contains("\"topic\"")
    );
    let receipt = answer.receipt().unwrap();
    assert_eq!(
        world.transfers(receipt.transaction()).await,
        [(address, seller.pay_to, U256::from(10_000))]
    );
    balance.decreased_by(10_000).await;
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_failing_handler_costs_nothing_on_the_chain_and_counts_until_proved() {
    let world = World::load();
    let Buyer { client, address } = buyer(1);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let balance = BalanceBefore::of(&world, address).await;
        let response = client
            .get(format!("{}/fail", seller.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (500, PaymentStatus::MaybePaid)
        );
        balance.decreased_by(0).await;
    }
    let purchases = purchases(&client).await;
    assert!(
        purchases
            .iter()
            .all(|purchase| purchase.state == State::Unresolved),
        "{purchases:?}"
    );
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_refusal_by_the_policy_moves_nothing() {
    let world = World::load();
    let Buyer { client, address } = buyer(2);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let balance = BalanceBefore::of(&world, address).await;
        let error = client
            .get(format!("{}/dear", seller.url))
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            (error.payment_status(), error.denial().unwrap().rule),
            (PaymentStatus::NotPaid, Rule::PerPayment),
            "{error}"
        );
        balance.decreased_by(0).await;
    }
    assert!(purchases(&client).await.is_empty());
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn of_several_offers_the_cheapest_allowed_is_paid() {
    let world = World::load();
    let Buyer { client, address } = buyer(3);
    for (name, seller) in world
        .sellers
        .iter()
        .filter(|(name, _)| !["mcp", "express-v1"].contains(&name.as_str()))
    {
        println!("{name}");
        let balance = BalanceBefore::of(&world, address).await;
        let price_check = client
            .get(format!("{}/several", seller.url))
            .quote()
            .await
            .unwrap()
            .priced()
            .unwrap();
        assert!(price_check.offers.len() > 1);
        assert_eq!(price_check.best().unwrap().dollars(), Some(usd!("0.01")));
        balance.decreased_by(0).await;

        let response = client
            .get(format!("{}/several", seller.url))
            .send()
            .await
            .unwrap();
        confirm(&world, &response, address, seller, 10_000).await;
        balance.decreased_by(10_000).await;
    }

    // A seller that requires a payment-identifier gets one.
    let seller = &world.sellers["express-v2"];
    let response = client
        .get(format!("{}/identified", seller.url))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    confirm(&world, &response, address, seller, 10_000).await;
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_purchase_presented_twice_is_paid_once() {
    let world = World::load();
    let Buyer { client, address } = buyer(4);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let balance = BalanceBefore::of(&world, address).await;
        let url = format!("{}/report", seller.url);
        let first = client
            .get(&url)
            .purchase_id(format!("order-{name}"))
            .send()
            .await
            .unwrap();
        assert_eq!(first.payment_status(), PaymentStatus::Paid);
        balance.decreased_by(10_000).await;

        // Official sellers refuse a used nonce, because the chain would.
        let error = client
            .get(&url)
            .purchase_id(format!("order-{name}"))
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Rejected, PaymentStatus::Paid),
            "{error}"
        );
        balance.decreased_by(10_000).await;
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_wallet_without_funds_is_told_so() {
    let world = World::load();
    let client = || {
        Client::builder()
            .signer(LocalSigner::random().unwrap())
            .policy(Policy::new().allow_network("base-sepolia"))
            .ledger(Ledger::memory())
            .allow_http_loopback(true)
            .build()
            .unwrap()
    };
    let same = client();
    let mut denial = None;
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let url = format!("{}/report", seller.url);
        let error = client().get(&url).send().await.unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Rejected, PaymentStatus::MaybePaid),
            "{error}"
        );
        assert!(error.reason().unwrap().contains("insufficient"), "{error}");
        // One wallet is refused by three sellers, and then signs nothing more.
        let error = same.get(&url).send().await.unwrap_err();
        denial = error.denial().cloned();
    }
    assert_eq!(denial.unwrap().rule, Rule::WalletEmpty);
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn the_chain_tells_settled_from_unused_and_canceled() {
    let world = World::load();
    let reader = reader(&world);
    let signer = LocalSigner::from_hex(&KEYS[0].to_owned().into()).unwrap();
    let payer = signer.address();

    // Settled.
    let seller = &world.sellers["express-v2"];
    let response = buyer(0)
        .client
        .get(format!("{}/report", seller.url))
        .send()
        .await
        .unwrap();
    let receipt = response.receipt().unwrap();
    let transaction = receipt.transaction();
    let logs = world
        .rpc(
            "eth_getTransactionReceipt",
            json!([transaction.to_string()]),
        )
        .await["logs"]
        .clone();
    let used = logs
        .as_array()
        .unwrap()
        .iter()
        .find(|log| log["topics"][1] == payer.into_word().to_string());
    let nonce = used.unwrap()["topics"][2]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    world.finalize().await;
    let now = world.time().await;
    let settled = Question {
        nonce,
        payee: seller.pay_to,
        signed_at: Timestamp::from_secs(now),
        ..world.unused(payer, now)
    };
    for claimed in [Some(transaction), None] {
        match reader
            .ask(&Question { claimed, ..settled }, Timestamp::from_secs(now))
            .await
        {
            Answer::Settled(settlement) => {
                assert_eq!(
                    (settlement.transaction, settlement.value),
                    (Some(transaction), U256::from(10_000))
                );
            }
            other => unreachable!("{other}"),
        }
    }

    // Never settled: before and after its expiry.
    let pending = world.unused(payer, now + 3600);
    let answer = reader.ask(&pending, Timestamp::from_secs(now)).await;
    assert_eq!(
        answer,
        Answer::CannotTell {
            reason: Reason::NotExpired
        }
    );
    let expired = Question {
        valid_before: now - 100,
        ..pending
    };
    match reader.ask(&expired, Timestamp::from_secs(now)).await {
        Answer::NotSettled(proof) => {
            assert_eq!((proof.kind, proof.endpoints.len()), (ProofKind::Expired, 2))
        }
        other => unreachable!("{other}"),
    }

    // Canceled before its expiry, with calldata for Circle's contract.
    let usdc = AssetRegistry::stablecoins()
        .find_symbol(pending.network, "USDC")
        .unwrap()
        .clone();
    let cancellation = CancelAuthorization::new(usdc, payer, pending.nonce);
    let signature = signer.cancel(&cancellation).await.unwrap();
    let signed = SignedCancellation::new(cancellation, signature);
    let data: String = signed
        .calldata()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let call = json!({ "from": SENDER.to_string(), "to": world.usdc.to_string(), "data": format!("0x{data}") });
    world.send(call).await;
    world.finalize().await;
    let now = Timestamp::from_secs(world.time().await);
    match reader.ask(&pending, now).await {
        Answer::NotSettled(proof) => assert_eq!(proof.kind, ProofKind::Canceled),
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn what_a_bazaar_lists_is_found_and_bought() {
    let world = World::load();
    let signer = LocalSigner::random().unwrap();
    let address = signer.address();
    let cent = json!([address.to_string(), world.usdc.to_string(), "0x186a0"]);
    world.rpc("anvil_dealERC20", cent).await;
    let client = Client::builder()
        .signer(signer)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()
        .unwrap();
    let sellers = [("express-v2", "/listed"), ("express-v1", "/report")];
    let sellers = sellers.map(|(name, path)| {
        (
            &world.sellers[name],
            format!("{}{path}", world.sellers[name].url),
        )
    });
    // The bazaar lists a service after its first sale.
    for (seller, url) in &sellers {
        let response = client.get(url).send().await.unwrap();
        confirm(&world, &response, address, seller, 10_000).await;
    }

    for words in ["report", ""] {
        let findings = client
            .discover()
            .bazaar(&world.facilitator)
            .find(words)
            .run()
            .await
            .unwrap();
        let source = &findings.sources[0];
        assert!(
            source.error.is_none() && source.skipped.count == 0,
            "{source:?}"
        );
        for (seller, url) in &sellers {
            let found = findings
                .services
                .iter()
                .find(|service| service.url.as_str() == url);
            let found = found.unwrap_or_else(|| unreachable!("{url}: {findings:?}"));
            let quote = found.quote.as_ref().unwrap();
            assert_eq!(
                (found.standing.name(), found.price.dollars()),
                ("payable", Some(usd!("0.01"))),
                "{found:?}"
            );
            assert_eq!(
                (quote.pay_to(), found.method.as_str()),
                (seller.pay_to, "GET")
            );
            let response = found.request(&client).send().await.unwrap();
            confirm(&world, &response, address, seller, 10_000).await;
        }
    }
    let listed = client
        .discover()
        .bazaar(&world.facilitator)
        .find("bazaar")
        .network("base-sepolia")
        .run()
        .await
        .unwrap();
    let best = listed.best().unwrap();
    assert_eq!(best.url.as_str(), sellers[0].1);
    assert!(
        best.untrusted
            .input
            .as_ref()
            .unwrap()
            .contains("\"day\":\"monday\""),
        "{best:?}"
    );
}

/// Returns the code of a contract wallet that accepts the signatures of one key.
///
/// It recovers the signer of `isValidSignature(hash, r ‖ s ‖ v)` with the precompiled contract at 1.
fn wallet_code(owner: Address) -> Vec<u8> {
    let before = "60043560005260a43560f81c6020526064356040526084356060526020608060806000\
                  60015afa5060805173";
    let after = "1460495760006000fd5b631626ba7e60e01b60005260206000f3";
    let bytes = |digits: &str| -> Vec<u8> {
        let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
        let pairs = digits
            .chunks(2)
            .map(|pair| std::str::from_utf8(pair).unwrap());
        pairs
            .map(|pair| u8::from_str_radix(pair, 16).unwrap())
            .collect()
    };
    [bytes(before), owner.to_vec(), bytes(after)].concat()
}

/// Returns code that deploys `code`.
fn deploying(code: &[u8]) -> Vec<u8> {
    let length = u8::try_from(code.len()).unwrap();
    let head = [0x60, length, 0x80, 0x60, 0x0b, 0x60, 0, 0x39, 0x60, 0, 0xf3];
    [&head, code].concat()
}

fn digits(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("0x{digits}")
}

/// A contract wallet, and the key that signs for it.
struct ContractWallet {
    address: Address,
    owner: LocalSigner,
}

impl Signer for ContractWallet {
    fn address(&self) -> Address {
        self.address
    }

    fn account(&self) -> AccountKind {
        AccountKind::Contract
    }

    async fn sign(&self, authorization: &TransferAuthorization) -> Result<Signature, SignerError> {
        self.owner.sign(authorization).await
    }

    async fn sign_in(&self, message: &SignInMessage) -> Result<Signature, SignerError> {
        self.owner.sign_in(message).await
    }
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_contract_wallet_checks_its_signature_and_pays() {
    let world = World::load();
    let owner = || LocalSigner::from_hex(&KEYS[4].to_owned().into()).unwrap();
    let address = Address::repeat_byte(0xc7);
    let code = digits(&wallet_code(owner().address()));
    world
        .rpc("anvil_setCode", json!([address.to_string(), code]))
        .await;
    let money = json!([address.to_string(), world.usdc.to_string(), "0x186a0"]);
    world.rpc("anvil_dealERC20", money).await;
    let client = |owner| {
        Client::builder()
            .signer(ContractWallet { address, owner })
            .policy(Policy::new().allow_network("base-sepolia"))
            .ledger(Ledger::memory())
            .chain(reader(&world))
            .allow_http_loopback(true)
            .build()
            .unwrap()
    };
    let seller = &world.sellers["express-v2"];
    let url = format!("{}/report", seller.url);
    let response = client(owner()).get(&url).send().await.unwrap();
    confirm(&world, &response, address, seller, 10_000).await;

    // Another key signs. The contract refuses, and the seller receives nothing.
    let balance = BalanceBefore::of(&world, address).await;
    let stranger = client(LocalSigner::random().unwrap());
    let error = stranger.get(&url).send().await.unwrap_err();
    assert_eq!(
        (error.kind(), error.payment_status()),
        (ErrorKind::Signer, PaymentStatus::NotPaid),
        "{error}"
    );
    assert_eq!(purchases(&stranger).await[0].state, State::Voided);
    balance.decreased_by(0).await;
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn a_wallet_that_is_not_deployed_is_asked_by_a_simulated_deployment() {
    /// The deployer of CREATE2 that is on every public chain.
    const FACTORY: Address = address!("4e59b44847b379578588920cA78FbF26c0B4956C");
    let world = World::load();
    /// Returns the signature of a hash by a key of 32 equal bytes.
    fn sign(byte: u8, hash: B256) -> Vec<u8> {
        let key = k256::ecdsa::SigningKey::from_slice(&[byte; 32]).unwrap();
        let (signature, recovery) = key.sign_prehash_recoverable(hash.as_slice());
        [
            &signature.to_bytes()[..],
            &[27 + u8::from(recovery.is_y_odd())],
        ]
        .concat()
    }
    let owner = LocalSigner::from_bytes(&vec![9; 32].into()).unwrap();
    let code = deploying(&wallet_code(owner.address()));
    let salt = B256::repeat_byte(0x17);
    let wallet = FACTORY.create2_from_code(salt, &code);
    let deployment = [salt.as_slice(), &code].concat();
    let wrapped = |signature: &[u8]| {
        let word = |number: usize| U256::from(number).to_be_bytes::<32>().to_vec();
        let padded = |bytes: &[u8]| {
            let mut padded = bytes.to_vec();
            padded.resize(bytes.len().div_ceil(32) * 32, 0);
            [word(bytes.len()), padded].concat()
        };
        let call = padded(&deployment);
        let parts = [
            FACTORY.into_word().to_vec(),
            word(96),
            word(96 + call.len()),
            call,
            padded(signature),
            [0x64, 0x92].repeat(16),
        ];
        parts.concat()
    };
    let reader = reader(&world);
    let (network, hash) = (Network::from_chain_id(84_532), B256::repeat_byte(0x5a));
    let ask = async |signature: &[u8]| {
        let answer = reader.check_signature(network, wallet, world.usdc, hash, signature);
        answer.await.unwrap()
    };
    let (good, bad) = (sign(9, hash), sign(8, hash));
    assert_eq!(ask(&wrapped(&good)).await, ContractSignature::Accepted);
    assert_eq!(ask(&wrapped(&bad)).await, ContractSignature::Refused);
    assert_eq!(ask(&good).await, ContractSignature::NotDeployed);

    // Nothing of this is on the chain. After the deployment, both forms are accepted.
    let at = json!([wallet.to_string(), "latest"]);
    assert_eq!(world.rpc("eth_getCode", at).await, "0x");
    let call = json!({ "from": SENDER.to_string(), "to": FACTORY.to_string(), "data": digits(&deployment) });
    world.send(call).await;
    assert_eq!(ask(&good).await, ContractSignature::Accepted);
    assert_eq!(ask(&wrapped(&good)).await, ContractSignature::Accepted);
    assert_eq!(ask(&bad).await, ContractSignature::Refused);
}

#[tokio::test]
#[ignore = "run it with tests/interop/run"]
async fn an_empty_wallet_on_a_real_chain_signs_nothing() {
    let world = World::load();
    let signer = LocalSigner::random().unwrap();
    let address = signer.address();
    let client = Client::builder()
        .signer(signer)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .chain(reader(&world))
        .allow_http_loopback(true)
        .build()
        .unwrap();
    let seller = &world.sellers["express-v2"];
    let url = format!("{}/report", seller.url);
    let error = client.get(&url).send().await.unwrap_err();
    let shortfall = error.denial().unwrap().shortfall.as_deref().unwrap();
    assert_eq!(shortfall.missing().to_string(), "0.01 USDC");
    let money = json!([address.to_string(), world.usdc.to_string(), "0x2710"]);
    world.rpc("anvil_dealERC20", money).await;
    let response = client.get(&url).send().await.unwrap();
    confirm(&world, &response, address, seller, 10_000).await;
}
