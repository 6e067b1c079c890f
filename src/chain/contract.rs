//! The check of a signature by the contract of its wallet: ERC-1271, and ERC-6492 for a wallet that is not deployed yet.

use std::time::Duration;

use alloy::primitives::{Address, B256, U256, hex};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::wire::Bytes;
use super::{ChainReader, Reason, RpcClient, RpcError};
use crate::money::Network;

/// The selector of `isValidSignature(bytes32,bytes)`, which is also the answer that accepts a signature.
const IS_VALID: [u8; 4] = hex!("1626ba7e");
/// The end of a signature of ERC-6492.
const UNDEPLOYED: [u8; 32] =
    hex!("6492649264926492649264926492649264926492649264926492649264926492");
/// The longest signature and deployment that bursar checks, in bytes. A node refuses longer code in one call.
const LONGEST: usize = 48 * 1024;

/// The judgement of a wallet's contract about a signature.
///
/// ```
/// use bursar::chain::ContractSignature;
///
/// fn may_leave(answer: ContractSignature) -> bool {
///     answer == ContractSignature::Accepted
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContractSignature {
    /// The contract accepts the signature.
    Accepted,
    /// The contract refuses the signature.
    Refused,
    /// The address has no contract, and the signature does not describe how to deploy one.
    NotDeployed,
}

/// A signature as the contract checks it, and the call that deploys the contract first.
struct Wrapped<'a> {
    factory: Address,
    deployment: &'a [u8],
    signature: &'a [u8],
}

impl ChainReader {
    /// Asks the contract at `wallet` whether it accepts `signature` for `hash`, in the latest block.
    ///
    /// If the wallet is not deployed and the signature has the form of ERC-6492, the node simulates the deployment first.
    /// `caller` is the contract that would ask the wallet: the token. All endpoints are asked at the same time. One that
    /// accepts the signature decides, so that an endpoint that lies cannot refuse it.
    ///
    /// A client with a [chain reader](crate::ClientBuilder::chain) asks this for each payment of a contract wallet. You
    /// need it only for signatures of your own.
    ///
    /// ```no_run
    /// use bursar::chain::{ChainReader, ContractSignature};
    /// use bursar::primitives::B256;
    /// use bursar::{Address, Network};
    ///
    /// # async fn example(
    /// #     chain: ChainReader, network: Network, wallet: Address, usdc: Address, hash: B256, signature: Vec<u8>,
    /// # ) -> Result<(), bursar::chain::Reason> {
    /// let answer = chain.check_signature(network, wallet, usdc, hash, &signature).await?;
    /// assert_eq!(answer, ContractSignature::Accepted);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Returns the reason if no endpoint of the network gives a usable answer.
    pub async fn check_signature(
        &self,
        network: Network,
        wallet: Address,
        caller: Address,
        hash: B256,
        signature: &[u8],
    ) -> Result<ContractSignature, Reason> {
        let mut asked = JoinSet::new();
        for endpoint in self.of(network) {
            let (limit, signature) = (self.timeout, signature.to_vec());
            asked.spawn(async move {
                endpoint.check_chain(network, limit).await?;
                let at = json!([wallet.to_string(), "latest"]);
                let Bytes(code) = endpoint.call("eth_getCode", at, limit).await?;
                let wrapped = unwrap(&signature);
                let call = match (code.is_empty(), wrapped) {
                    (false, wrapped) => {
                        let signature = wrapped.map_or(signature.as_slice(), |wrapped| wrapped.signature);
                        let data = hex::encode_prefixed(is_valid_signature(hash, signature));
                        json!({ "from": caller.to_string(), "to": wallet.to_string(), "data": data })
                    }
                    (true, Some(wrapped)) => match deploy_and_ask(wallet, hash, &wrapped) {
                        Some(code) => json!({ "data": hex::encode_prefixed(code) }),
                        None => return Ok(ContractSignature::Refused),
                    },
                    (true, None) => return Ok(ContractSignature::NotDeployed),
                };
                endpoint.accepts(call, limit).await
            });
        }
        let mut answer = Err(Reason::NoEndpoint);
        while let Some(read) = asked.join_next().await {
            answer = match (answer, read) {
                (_, Ok(Ok(ContractSignature::Accepted))) => {
                    return Ok(ContractSignature::Accepted);
                }
                (Err(_), Ok(Ok(read))) => Ok(read),
                (Err(Reason::NoEndpoint), Ok(Err(reason))) => Err(reason),
                (answer, _) => answer,
            };
        }
        answer
    }
}

impl RpcClient {
    async fn accepts(&self, call: Value, limit: Duration) -> Result<ContractSignature, Reason> {
        match self.call("eth_call", json!([call, "latest"]), limit).await {
            Ok(Bytes(word)) if is_acceptance(&word) => Ok(ContractSignature::Accepted),
            Ok(_) => Ok(ContractSignature::Refused),
            // 3 is the code of geth for a call that reverted. Other nodes say it in words.
            Err(RpcError::Node { code, message })
                if code == 3 || message.to_ascii_lowercase().contains("revert") =>
            {
                Ok(ContractSignature::Refused)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether the answer is one word that begins with the selector and is zero otherwise.
fn is_acceptance(word: &[u8]) -> bool {
    word.len() == 32
        && word
            .strip_prefix(&IS_VALID)
            .is_some_and(|rest| rest.iter().all(|byte| *byte == 0))
}

/// Returns the parts of a signature of ERC-6492: the ABI encoding of `(address, bytes, bytes)`, and a mark at the end.
fn unwrap(signature: &[u8]) -> Option<Wrapped<'_>> {
    let encoded = signature.strip_suffix(&UNDEPLOYED)?;
    let word = |place: usize| -> Option<[u8; 32]> {
        let end = place.checked_add(32)?;
        encoded.get(place..end)?.try_into().ok()
    };
    let number = |place: usize| usize::try_from(U256::from_be_bytes(word(place)?)).ok();
    let bytes = |place: usize| {
        let start = number(place)?;
        let content = start.checked_add(32)?;
        encoded.get(content..content.checked_add(number(start)?)?)
    };
    Some(Wrapped {
        factory: Address::from_word(word(0)?.into()),
        deployment: bytes(32)?,
        signature: bytes(64)?,
    })
}

/// Returns the input of the call `isValidSignature(bytes32,bytes)`.
fn is_valid_signature(hash: B256, signature: &[u8]) -> Vec<u8> {
    let words = signature.len().div_ceil(32);
    let mut padded = signature.to_vec();
    padded.resize(words.saturating_mul(32), 0);
    [
        &IS_VALID[..],
        hash.as_slice(),
        &U256::from(64).to_be_bytes::<32>(),
        &U256::from(signature.len()).to_be_bytes::<32>(),
        &padded,
    ]
    .concat()
}

/// Returns code that deploys the wallet, asks it, and returns its answer, or nothing if the call fails.
///
/// A node runs it in `eth_call` without a destination. Nothing is written to the chain.
fn deploy_and_ask(wallet: Address, hash: B256, wrapped: &Wrapped<'_>) -> Option<Vec<u8>> {
    /// The length of the code before its two inputs.
    const CODE: usize = 117;
    let question = is_valid_signature(hash, wrapped.signature);
    let deployment = wrapped.deployment;
    if deployment.len().checked_add(question.len())? > LONGEST {
        return None;
    }
    let push =
        |number: usize| -> Option<[u8; 4]> { Some(u32::try_from(number).ok()?.to_be_bytes()) };
    let first = push(deployment.len())?;
    let second = push(question.len())?;
    let second_place = push(CODE.checked_add(deployment.len())?)?;
    let code = [
        // Copy the deployment to memory: CODECOPY(0, CODE, length).
        &[0x63][..],
        &first,
        &[0x63],
        &push(CODE)?,
        &[0x60, 0, 0x39],
        // CALL(gas, factory, 0, 0, length, 0, 0), and POP its result: the wallet may exist already.
        &[0x60, 0, 0x60, 0, 0x63],
        &first,
        &[0x60, 0, 0x60, 0, 0x73],
        wrapped.factory.as_slice(),
        &[0x5a, 0xf1, 0x50],
        // Copy the question to memory: CODECOPY(0, place, length).
        &[0x63],
        &second,
        &[0x63],
        &second_place,
        &[0x60, 0, 0x39],
        // STATICCALL(gas, wallet, 0, length, 0, 0).
        &[0x60, 0, 0x60, 0, 0x63],
        &second,
        &[0x60, 0, 0x73],
        wallet.as_slice(),
        &[0x5a, 0xfa],
        // ISZERO, and JUMPI to the end.
        &[0x15, 0x60, 0x6f, 0x57],
        // RETURNDATACOPY(0, 0, size), RETURN(0, size).
        &[0x3d, 0x60, 0, 0x60, 0, 0x3e, 0x3d, 0x60, 0, 0xf3],
        // JUMPDEST, RETURN(0, 0).
        &[0x5b, 0x60, 0, 0x60, 0, 0xf3],
    ]
    .concat();
    (code.len() == CODE).then(|| [&code[..], deployment, &question].concat())
}
