//! bursar against official sellers, settling real USDC bytecode on a local chain.
//!
//! `tests/interop/run` stands the world up and runs these; alone they have nobody to buy from, and
//! are ignored.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests"
)]
#![expect(clippy::arithmetic_side_effects, reason = "tests")]

use std::collections::BTreeMap;

use bursar::chain::{Answer, ChainReader, ProofKind, Question, Reason};
use bursar::ledger::{Filter, State};
use bursar::money::AssetRegistry;
use bursar::policy::Rule;
use bursar::primitives::{B256, U256, address};
use bursar::signer::{CancelAuthorization, SignedCancellation};
use bursar::{
    Address, Client, ErrorKind, Ledger, LocalSigner, Network, PaymentStatus, Policy, ResponseExt,
    Signer, Timestamp, usd,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Anvil's accounts 1 to 5 and 12, by its published mnemonic. One each, so that balances do not mix.
const KEYS: [&str; 6] = [
    "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
    "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
    "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
    "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
    "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
    "0xa267530f49f8280200edf313ee7af6b827f2a8bce2897751d06a843f644967b1",
];

/// `keccak256("Transfer(address,address,uint256)")`.
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

#[derive(Deserialize)]
struct World {
    rpc: String,
    #[serde(deserialize_with = "parse_address")]
    usdc: Address,
    facilitator: String,
    sellers: BTreeMap<String, Seller>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Seller {
    url: String,
    #[serde(deserialize_with = "parse_address")]
    pay_to: Address,
}

fn parse_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(serde::de::Error::custom)
}

impl World {
    fn load() -> Self {
        let path = std::env::var("BURSAR_INTEROP_WORLD")
            .expect("run these by tests/interop/run, which stands the world up");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    async fn rpc(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer: Value = reqwest::Client::new()
            .post(&self.rpc)
            .json(&request)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    async fn balance(&self, of: Address) -> U256 {
        let data = format!(
            "0x70a08231{}",
            of.into_word().to_string().trim_start_matches("0x")
        );
        let result = self
            .rpc(
                "eth_call",
                json!([{ "to": self.usdc.to_string(), "data": data }, "latest"]),
            )
            .await;
        result.as_str().unwrap().parse().unwrap()
    }

    /// The `Transfer` events of USDC in a transaction: from, to, value.
    async fn transfers(&self, transaction: B256) -> Vec<(Address, Address, U256)> {
        let receipt = self
            .rpc(
                "eth_getTransactionReceipt",
                json!([transaction.to_string()]),
            )
            .await;
        assert_eq!(receipt["status"], "0x1", "{receipt}");
        let ours = |log: &&Value| {
            log["topics"][0] == TRANSFER
                && log["address"].as_str().unwrap().parse::<Address>().unwrap() == self.usdc
        };
        let word = |value: &Value| Address::from_word(value.as_str().unwrap().parse().unwrap());
        let logs = receipt["logs"].as_array().unwrap().iter().filter(ours);
        logs.map(|log| {
            (
                word(&log["topics"][1]),
                word(&log["topics"][2]),
                log["data"].as_str().unwrap().parse().unwrap(),
            )
        })
        .collect()
    }
}

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

/// A buyer's money before, to be compared with after. Sellers serve several tests at once: what they
/// were paid is seen in the transactions.
struct WalletHarness<'a> {
    world: &'a World,
    buyer: Address,
    before: U256,
}

impl<'a> WalletHarness<'a> {
    async fn open(world: &'a World, buyer: Address) -> Self {
        Self {
            world,
            buyer,
            before: world.balance(buyer).await,
        }
    }

    async fn moved(&self, units: u64) {
        assert_eq!(
            self.world.balance(self.buyer).await,
            self.before - U256::from(units),
            "the buyer's balance"
        );
    }
}

/// Checks the receipt against the chain: the transaction exists and moved exactly what was signed.
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
#[ignore = "needs the world that tests/interop/run stands up"]
async fn gets_posts_and_streams_from_every_seller() {
    let world = World::load();
    let Buyer { client, address } = buyer(0);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let purse = WalletHarness::open(&world, address).await;

        let response = client
            .get(format!("{}/free", seller.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (200, PaymentStatus::NotPaid)
        );
        purse.moved(0).await;

        let response = client
            .get(format!("{}/report", seller.url))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        confirm(&world, &response, address, seller, 10_000).await;
        assert_eq!(response.json::<Value>().await.unwrap()["report"], "ok");
        purse.moved(10_000).await;

        let body: Vec<u8> = (0..=255).collect();
        let request = client
            .post(format!("{}/echo", seller.url))
            .header("content-type", "application/x-bytes")
            .body(body.clone());
        let response = request.send().await.unwrap();
        confirm(&world, &response, address, seller, 20_000).await;
        assert_eq!(response.bytes().await.unwrap(), body);
        purse.moved(30_000).await;

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
        purse.moved(40_000).await;
    }
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert!(!purchases.is_empty() && purchases.iter().all(|entry| entry.state == State::Settled));
}

#[cfg(feature = "mcp")]
#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
async fn tools_of_the_official_python_server_are_paid() {
    use bursar::PriceOutcome;
    use bursar::mcp::{self, PaidTools, Server};
    use rmcp::ServiceExt;

    let world = World::load();
    let Buyer { client, address } = buyer(5);
    let seller = &world.sellers["mcp"];
    let purse = WalletHarness::open(&world, address).await;
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
    purse.moved(0).await;
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
    purse.moved(10_000).await;
}

#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
async fn a_failing_handler_costs_nothing_on_the_chain_and_counts_until_proved() {
    let world = World::load();
    let Buyer { client, address } = buyer(1);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let purse = WalletHarness::open(&world, address).await;
        let response = client
            .get(format!("{}/fail", seller.url))
            .send()
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.payment_status()),
            (500, PaymentStatus::MaybePaid)
        );
        purse.moved(0).await;
    }
    let purchases = client
        .ledger()
        .unwrap()
        .purchases(&Filter::all())
        .await
        .unwrap();
    assert!(
        purchases
            .iter()
            .all(|entry| entry.state == State::Unresolved),
        "{purchases:?}"
    );
}

#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
async fn a_refusal_by_the_policy_moves_nothing() {
    let world = World::load();
    let Buyer { client, address } = buyer(2);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let purse = WalletHarness::open(&world, address).await;
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
        purse.moved(0).await;
    }
    assert!(
        client
            .ledger()
            .unwrap()
            .purchases(&Filter::all())
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
async fn of_several_offers_the_cheapest_allowed_is_paid() {
    let world = World::load();
    let Buyer { client, address } = buyer(3);
    for (name, seller) in world
        .sellers
        .iter()
        .filter(|(name, _)| !["mcp", "express-v1"].contains(&name.as_str()))
    {
        println!("{name}");
        let purse = WalletHarness::open(&world, address).await;
        let price_check = client
            .get(format!("{}/several", seller.url))
            .quote()
            .await
            .unwrap()
            .priced()
            .unwrap();
        assert!(price_check.offers.len() > 1);
        assert_eq!(price_check.best().unwrap().dollars(), Some(usd!("0.01")));
        purse.moved(0).await;

        let response = client
            .get(format!("{}/several", seller.url))
            .send()
            .await
            .unwrap();
        confirm(&world, &response, address, seller, 10_000).await;
        purse.moved(10_000).await;
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
#[ignore = "needs the world that tests/interop/run stands up"]
async fn a_purchase_presented_twice_is_paid_once() {
    let world = World::load();
    let Buyer { client, address } = buyer(4);
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let purse = WalletHarness::open(&world, address).await;
        let url = format!("{}/report", seller.url);
        let first = client
            .get(&url)
            .purchase_id(format!("order-{name}"))
            .send()
            .await
            .unwrap();
        assert_eq!(first.payment_status(), PaymentStatus::Paid);
        purse.moved(10_000).await;

        // Official sellers refuse a nonce that was used. That is the chain protecting the money.
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
        purse.moved(10_000).await;
    }
}

#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
async fn a_wallet_without_funds_is_told_so() {
    let world = World::load();
    let signer = LocalSigner::random().unwrap();
    let client = Client::builder()
        .signer(signer)
        .policy(Policy::new().allow_network("base-sepolia"))
        .ledger(Ledger::memory())
        .allow_http_loopback(true)
        .build()
        .unwrap();
    for (name, seller) in world.sellers.iter().filter(|(name, _)| *name != "mcp") {
        println!("{name}");
        let error = client
            .get(format!("{}/report", seller.url))
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.payment_status()),
            (ErrorKind::Rejected, PaymentStatus::MaybePaid),
            "{error}"
        );
        assert!(error.reason().unwrap().contains("insufficient"), "{error}");
    }
}

/// Anvil's account 5, which the chain lets anybody send from: the facilitator's own account
/// keeps count of its transactions, and must not be sent from behind its back.
const SENDER: Address = address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc");

/// The chain by two names of one host, which the reader counts as two endpoints.
fn reader(world: &World) -> ChainReader {
    let network = Network::from_chain_id(84_532);
    let other = world.rpc.replace("127.0.0.1", "localhost");
    ChainReader::new()
        .endpoint(network, &world.rpc)
        .unwrap()
        .endpoint(network, &other)
        .unwrap()
}

impl World {
    /// Mines until what was mined before is finalized.
    async fn finalize(&self) {
        for _ in 0..4 {
            self.rpc("evm_mine", json!([])).await;
        }
    }

    async fn time(&self) -> u64 {
        let block = self
            .rpc("eth_getBlockByNumber", json!(["finalized", false]))
            .await;
        u64::from_str_radix(
            block["timestamp"]
                .as_str()
                .unwrap()
                .trim_start_matches("0x"),
            16,
        )
        .unwrap()
    }

    /// An authorization of this payer that nobody cashed, which expires at `valid_before`.
    fn unused(&self, payer: Address, valid_before: u64) -> Question {
        Question {
            network: Network::from_chain_id(84_532),
            token: self.usdc,
            payer,
            nonce: B256::repeat_byte(0xc4),
            payee: SENDER,
            value: U256::from(10_000),
            valid_before,
            claimed: None,
            signed_at: Timestamp::from_secs(valid_before - 60),
        }
    }
}

#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
async fn the_chain_tells_settled_from_unused_and_canceled() {
    let world = World::load();
    let reader = reader(&world);
    let signer = LocalSigner::from_hex(&KEYS[0].to_owned().into()).unwrap();
    let payer = signer.address();

    // Paid, and what became of it.
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
                    (transaction, U256::from(10_000))
                );
            }
            other => unreachable!("{other}"),
        }
    }

    // Never cashed, and expired or not.
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

    // Cancelled before it expired, by calldata that Circle's contract takes.
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
    world.rpc("eth_sendTransaction", json!([call])).await;
    world.finalize().await;
    let now = Timestamp::from_secs(world.time().await);
    match reader.ask(&pending, now).await {
        Answer::NotSettled(proof) => assert_eq!(proof.kind, ProofKind::Canceled),
        other => unreachable!("{other}"),
    }
}

#[tokio::test]
#[ignore = "needs the world that tests/interop/run stands up"]
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
    // A purchase is what lists a service.
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
