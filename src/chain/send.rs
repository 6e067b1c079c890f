//! Sending an approval of Permit2. Nothing else of bursar sends a transaction.

use alloy::primitives::{Address, B256, U256, hex, keccak256};
use serde::Deserialize;
use serde_json::json;

use super::wire::{Bytes, Quantity, Receipt};
use super::{ChainReader, Reason, RpcClient, RpcError};
use crate::eip3009::Signature;
use crate::money::{Asset, Network};
use crate::permit2::{Approval, TransactionTerms};

/// The priority fee on a node that names none: 0.1 gwei.
const PRIORITY: u128 = 100_000_000;

/// A block, of which only the price of gas counts.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Priced {
    base_fee_per_gas: Option<Quantity>,
}

impl ChainReader {
    /// Prepares the transaction with which `owner` approves Permit2 for an amount in atomic units: it reads the nonce, the
    /// gas and the fees. Nothing is signed or sent.
    ///
    /// The fees are those that the endpoint names, so look at [`TransactionTerms::cost`] before you sign.
    ///
    /// ```no_run
    /// use bursar::primitives::U256;
    /// use bursar::{Asset, ChainReader, LocalSigner, Signer};
    ///
    /// # async fn example(chain: ChainReader, usdc: Asset, wallet: LocalSigner) -> Result<(), Box<dyn std::error::Error>> {
    /// let approval = chain.prepare_approval(&usdc, wallet.address(), U256::from(5_000_000)).await?;
    /// assert!(approval.terms().cost() < 1_000_000_000_000_000); // 0.001 ether
    /// let signature = wallet.sign_approval(&approval).await?;
    /// println!("sent {}", chain.send_approval(&approval, &signature).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the reason if no endpoint of the network gives usable answers. An error of the node about gas means that the
    /// token refuses the approval, or that the wallet has no native coin for the fee.
    pub async fn prepare_approval(
        &self,
        asset: &Asset,
        owner: Address,
        amount: U256,
    ) -> Result<Approval, Reason> {
        let mut first = Reason::NoEndpoint;
        for endpoint in self.of(asset.network()) {
            match self.terms(&endpoint, asset, owner, amount).await {
                Ok(terms) => return Ok(Approval::new(asset.clone(), amount, terms)),
                Err(reason) if first == Reason::NoEndpoint => first = reason,
                Err(_) => {}
            }
        }
        Err(first)
    }

    async fn terms(
        &self,
        endpoint: &RpcClient,
        asset: &Asset,
        owner: Address,
        amount: U256,
    ) -> Result<TransactionTerms, Reason> {
        let limit = self.timeout;
        endpoint.check_chain(asset.network(), limit).await?;
        let from = owner.to_string();
        let Quantity(nonce) = endpoint
            .call("eth_getTransactionCount", json!([from, "pending"]), limit)
            .await?;
        let data = hex::encode_prefixed(Approval::calldata_of(amount));
        let call = json!({ "from": from, "to": asset.address().to_string(), "data": data });
        let Quantity(gas) = endpoint
            .call("eth_estimateGas", json!([call]), limit)
            .await?;
        let latest: Priced = endpoint
            .call("eth_getBlockByNumber", json!(["latest", false]), limit)
            .await?;
        let Quantity(base) = latest
            .base_fee_per_gas
            .ok_or(RpcError::Malformed("eth_getBlockByNumber"))?;
        let priority = endpoint
            .call("eth_maxPriorityFeePerGas", json!([]), limit)
            .await;
        let max_priority_fee = match priority {
            Ok(Quantity(fee)) => u128::from(fee),
            Err(RpcError::Node { .. }) => PRIORITY,
            Err(error) => return Err(error.into()),
        };
        Ok(TransactionTerms {
            nonce,
            // A fifth more than the estimate, as wallets do.
            gas: gas.saturating_add(gas / 5),
            max_fee: u128::from(base)
                .saturating_mul(2)
                .saturating_add(max_priority_fee),
            max_priority_fee,
        })
    }

    /// Sends a signed approval to the chain, and returns the hash of the transaction. It is not in a block yet: ask
    /// [`has_succeeded`](Self::has_succeeded).
    ///
    /// # Errors
    /// Returns the reason if the signature is not one of a key pair, or if no endpoint takes the transaction. An endpoint that
    /// names the hash of another transaction did not take it. After a broken connection the transaction can be on its way all
    /// the same. Sending the same one again does no harm.
    pub async fn send_approval(
        &self,
        approval: &Approval,
        signature: &Signature,
    ) -> Result<B256, Reason> {
        let network = approval.asset().network();
        let raw = approval.signed(signature).ok_or(Reason::NotSendable)?;
        let own = keccak256(&raw);
        let raw = hex::encode_prefixed(raw);
        let mut first = Reason::NoEndpoint;
        for endpoint in self.of(network) {
            let sent = async {
                endpoint.check_chain(network, self.timeout).await?;
                let Bytes(hash) = endpoint
                    .call("eth_sendRawTransaction", json!([raw]), self.timeout)
                    .await?;
                // An endpoint could name the transaction of somebody else, which succeeds.
                match hash == own.as_slice() {
                    true => Ok(()),
                    false => Err(Reason::from(RpcError::Malformed("eth_sendRawTransaction"))),
                }
            };
            match sent.await {
                Ok(()) => return Ok(own),
                Err(reason) if first == Reason::NoEndpoint => first = reason,
                Err(_) => {}
            }
        }
        Err(first)
    }

    /// Returns whether a transaction succeeded, or `None` if it is in no block yet. The block need not be final.
    ///
    /// # Errors
    /// Returns the reason if no endpoint of the network gives a usable answer.
    pub async fn has_succeeded(
        &self,
        network: Network,
        transaction: B256,
    ) -> Result<Option<bool>, Reason> {
        let mut answer = Err(Reason::NoEndpoint);
        for endpoint in self.of(network) {
            let hash = transaction.to_string();
            let receipt: Result<Option<Receipt>, RpcError> = endpoint
                .call("eth_getTransactionReceipt", json!([hash]), self.timeout)
                .await;
            answer = match (answer, receipt) {
                (_, Ok(Some(receipt))) if receipt.transaction_hash == transaction => {
                    return Ok(Some(receipt.status.0 == 1));
                }
                (_, Ok(_)) => Ok(None),
                (Err(Reason::NoEndpoint), Err(error)) => Err(error.into()),
                (answer, Err(_)) => answer,
            };
        }
        answer
    }
}
