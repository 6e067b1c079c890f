//! Approvals of Permit2 at endpoints that lie.

use alloy::primitives::{B256, U256, hex, keccak256};
use bursar::chain::ChainReader;
use bursar::{Network, Signer};
use bursar_tests::signatures::wallet;
use bursar_tests::stub_node::StubNode;
use bursar_tests::tokens::usdc;
use serde_json::{Value, json};

const BASE: Network = Network::from_chain_id(8453);

/// Starts a node for approvals. `sent` makes its answer to a signed transaction.
async fn node(sent: impl Fn(&[u8]) -> Value + Send + Sync + 'static) -> StubNode {
    StubNode::start(BASE, move |method, params| {
        Some(Ok(match method {
            "eth_getTransactionCount" => json!("0x0"),
            "eth_estimateGas" => json!("0xd6d8"),
            "eth_maxPriorityFeePerGas" => json!("0x1"),
            "eth_getBlockByNumber" => json!({ "baseFeePerGas": "0x5" }),
            "eth_sendRawTransaction" => {
                let raw = hex::decode(params[0].as_str().unwrap()).unwrap();
                sent(&raw)
            }
            _ => return Some(Err(format!("unexpected call of {method}"))),
        }))
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_names_the_transaction_of_somebody_else_did_not_send_the_approval() {
    let (wallet, token) = (wallet(), usdc("base"));
    let honest = node(|raw| json!(keccak256(raw).to_string())).await;
    for other in [
        json!(B256::repeat_byte(9).to_string()),
        json!("0x"),
        json!("0x01"),
        json!(null),
    ] {
        let answer = other.clone();
        let liar = node(move |_| answer.clone()).await;
        let chain = liar.reader(BASE);
        let approval = chain.prepare_approval(&token, wallet.address(), U256::from(5));
        let approval = approval.await.unwrap();
        let signature = wallet.sign_approval(&approval).await.unwrap();
        let error = chain
            .send_approval(&approval, &signature)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("eth_sendRawTransaction"),
            "{other}: {error}"
        );
        // Another endpoint takes it, and names its own hash.
        let both = ChainReader::new().endpoint(BASE, liar.url()).unwrap();
        let both = both.endpoint(BASE, honest.url()).unwrap();
        let hash = both.send_approval(&approval, &signature).await.unwrap();
        let raw = approval.signed(&signature).unwrap();
        assert_eq!(hash, keccak256(raw));
    }
}
