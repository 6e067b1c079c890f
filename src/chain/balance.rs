//! The balance of a wallet, and its allowance.

use std::time::Duration;

use alloy::primitives::{Address, U256};
use serde_json::json;
use tokio::task::JoinSet;

use super::abi::{allowance, balance_of, nonces};
use super::wire::{Bytes, Quantity};
use super::{ChainReader, Reason, RpcClient, RpcError};
use crate::money::{Asset, Network, TokenAmount};
use crate::permit2::PERMIT2;

impl ChainReader {
    /// Reads the amount of a token that an address has in the latest block.
    ///
    /// All endpoints of the token's network are asked at the same time, and the highest balance is returned. The balance
    /// is a hint and no proof: an endpoint can lag behind or lie.
    ///
    /// ```no_run
    /// use bursar::chain::{ChainReader, Reason};
    /// use bursar::money::AssetRegistry;
    /// use bursar::{Address, Network};
    ///
    /// # async fn example(wallet: Address) -> Result<(), Box<dyn std::error::Error>> {
    /// let network: Network = "base-sepolia".parse()?;
    /// let chain = ChainReader::new().endpoint(network, "https://sepolia.base.org")?;
    /// let usdc = AssetRegistry::stablecoins().find_symbol(network, "USDC").ok_or("no USDC")?;
    /// println!("{wallet} has {}", chain.balance(usdc, wallet).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the reason if no endpoint of the network gives a usable answer within the
    /// [time limit](Self::timeout) of a call.
    pub async fn balance(&self, asset: &Asset, owner: Address) -> Result<TokenAmount, Reason> {
        let units = self.balance_up_to(asset, owner, U256::MAX).await?;
        Ok(TokenAmount::from_units(asset.clone(), units))
    }

    /// Reads the balance, and returns as soon as an endpoint reports at least `enough`. So one endpoint that lies cannot
    /// make a wallet look empty.
    pub(crate) async fn balance_up_to(
        &self,
        asset: &Asset,
        owner: Address,
        enough: U256,
    ) -> Result<U256, Reason> {
        self.highest(asset.network(), asset.address(), balance_of(owner), enough)
            .await
    }

    /// Reads how much of a token Permit2 may move for an address in the latest block.
    ///
    /// All endpoints of the token's network are asked at the same time, and the highest allowance is returned. It is a
    /// hint and no proof, as the [balance](Self::balance) is.
    ///
    /// ```no_run
    /// # async fn example(
    /// #     chain: bursar::ChainReader, usdc: &bursar::Asset, wallet: bursar::Address,
    /// # ) -> Result<(), bursar::chain::Reason> {
    /// println!("Permit2 may move {}", chain.permit2_allowance(usdc, wallet).await?);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`balance`](Self::balance).
    pub async fn permit2_allowance(
        &self,
        asset: &Asset,
        owner: Address,
    ) -> Result<TokenAmount, Reason> {
        let units = self
            .permit2_allowance_up_to(asset, owner, U256::MAX)
            .await?;
        Ok(TokenAmount::from_units(asset.clone(), units))
    }

    /// Reads the allowance, and returns as soon as an endpoint reports at least `enough`.
    pub(crate) async fn permit2_allowance_up_to(
        &self,
        asset: &Asset,
        owner: Address,
        enough: U256,
    ) -> Result<U256, Reason> {
        let data = allowance(owner, PERMIT2);
        self.highest(asset.network(), asset.address(), data, enough)
            .await
    }

    /// Reads the next nonce of EIP-2612 of an address: the highest one that an endpoint reports.
    pub(crate) async fn permit_nonce(&self, asset: &Asset, owner: Address) -> Result<U256, Reason> {
        self.highest(asset.network(), asset.address(), nonces(owner), U256::MAX)
            .await
    }

    /// Asks the token at all endpoints, and returns the highest number.
    async fn highest(
        &self,
        network: Network,
        token: Address,
        data: String,
        enough: U256,
    ) -> Result<U256, Reason> {
        let mut asked = JoinSet::new();
        for endpoint in self.of(network) {
            let (limit, data) = (self.timeout, data.clone());
            asked.spawn(async move {
                let read = async {
                    endpoint.check_chain(network, limit).await?;
                    let call = json!({ "to": token.to_string(), "data": data });
                    let word = endpoint
                        .call("eth_call", json!([call, "latest"]), limit)
                        .await?;
                    units(&word).ok_or(Reason::Endpoint(RpcError::Malformed("eth_call")))
                };
                let read = tokio::time::timeout(limit, read).await;
                read.unwrap_or(Err(Reason::Endpoint(RpcError::Timeout)))
            });
        }
        let mut best: Result<U256, Reason> = Err(Reason::NoEndpoint);
        while let Some(read) = asked.join_next().await {
            best = match (best, read) {
                (Ok(best), Ok(Ok(balance))) => Ok(best.max(balance)),
                (Err(_), Ok(Ok(balance))) => Ok(balance),
                (Err(Reason::NoEndpoint), Ok(Err(reason))) => Err(reason),
                (best, _) => best,
            };
            if best.as_ref().is_ok_and(|best| *best >= enough) {
                break;
            }
        }
        best
    }
}

impl RpcClient {
    /// Checks once that the endpoint belongs to the chain.
    pub(super) async fn check_chain(
        &self,
        network: Network,
        limit: Duration,
    ) -> Result<(), Reason> {
        let id = match self.chain_id.get() {
            Some(id) => *id,
            None => {
                let Quantity(id) = self.call("eth_chainId", json!([]), limit).await?;
                // A node that was set up incorrectly is asked again, because its owner corrects it.
                if id == network.chain_id() {
                    *self.chain_id.get_or_init(|| id)
                } else {
                    id
                }
            }
        };
        if id == network.chain_id() {
            Ok(())
        } else {
            Err(Reason::WrongChain(id))
        }
    }
}

/// Reads a Solidity `uint256`: exactly one word. An address without a contract returns nothing.
fn units(Bytes(bytes): &Bytes) -> Option<U256> {
    let word: [u8; 32] = bytes.as_slice().try_into().ok()?;
    Some(U256::from_be_bytes(word))
}
