//! The local chain and the official sellers that `tests/interop/run` starts.

use std::collections::BTreeMap;

use bursar::chain::{ChainReader, Question};
use bursar::money::TransferMethod;
use bursar::primitives::{B256, U256, address};
use bursar::{Address, Network, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

/// `keccak256("Transfer(address,address,uint256)")`.
const TRANSFER: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

#[derive(Deserialize)]
pub(crate) struct World {
    pub(crate) rpc: String,
    #[serde(deserialize_with = "parse_address")]
    pub(crate) usdc: Address,
    pub(crate) facilitator: String,
    pub(crate) sellers: BTreeMap<String, Seller>,
    #[serde(rename = "signIn")]
    pub(crate) sign_in: Seller,
    /// By the format of the signatures.
    #[serde(rename = "signedOffers")]
    pub(crate) signed_offers: BTreeMap<String, Seller>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Seller {
    pub(crate) url: String,
    #[serde(deserialize_with = "parse_address")]
    pub(crate) pay_to: Address,
}

fn parse_address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    String::deserialize(deserializer)?
        .parse()
        .map_err(serde::de::Error::custom)
}

impl World {
    pub(crate) fn load() -> Self {
        let path =
            std::env::var("BURSAR_INTEROP_WORLD").expect("run these tests with tests/interop/run");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    pub(crate) async fn rpc(&self, method: &str, params: Value) -> Value {
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

    pub(crate) async fn balance(&self, of: Address) -> U256 {
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

    /// Returns the `Transfer` events of USDC in a transaction: from, to, value.
    pub(crate) async fn transfers(&self, transaction: B256) -> Vec<(Address, Address, U256)> {
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

    /// Sends a transaction of an account that the chain signs for, and waits until it is in a block.
    pub(crate) async fn send(&self, call: Value) {
        let hash = self.rpc("eth_sendTransaction", json!([call])).await;
        for _ in 0..100 {
            let receipt = self.rpc("eth_getTransactionReceipt", json!([&hash])).await;
            if !receipt.is_null() {
                assert_eq!(receipt["status"], "0x1", "{receipt}");
                return;
            }
            self.rpc("evm_mine", json!([])).await;
        }
        unreachable!("{hash} is in no block");
    }

    /// Mines blocks until every earlier block is finalized.
    pub(crate) async fn finalize(&self) {
        for _ in 0..4 {
            self.rpc("evm_mine", json!([])).await;
        }
    }

    pub(crate) async fn time(&self) -> u64 {
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

    /// Returns a question about an authorization of this payer that is never settled and expires at `valid_before`.
    pub(crate) fn unused(&self, payer: Address, valid_before: u64) -> Question {
        Question {
            network: Network::from_chain_id(84_532),
            method: TransferMethod::Eip3009,
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

/// Anvil's account 5, from which everyone can send transactions on this chain. Tests must not send from the account of the
/// facilitator, because it counts its own transactions.
pub(crate) const SENDER: Address = address!("9965507D1a55bcC2695C58ba16FB37d819B0A4dc");

/// Returns a reader that asks the chain's node twice, as if two parties operated it.
pub(crate) fn reader(world: &World) -> ChainReader {
    let network = Network::from_chain_id(84_532);
    ["one", "another"]
        .iter()
        .fold(ChainReader::new(), |reader, operator| {
            reader
                .endpoint_operated_by(network, &world.rpc, operator)
                .unwrap()
        })
}
