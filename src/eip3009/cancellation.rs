//! The message that cancels an authorization: `CancelAuthorization` of EIP-3009.

use alloy::primitives::{Address, B256, U256, b256, hex, keccak256};
use serde_json::json;

use super::{Signature, typed_data};
use crate::money::{Asset, Network, concat_words};

/// `keccak256("CancelAuthorization(address authorizer,bytes32 nonce)")`.
const TYPEHASH: B256 = b256!("158b0a9edf7a828aad02f63cd515c68ef2f50ba807396f6d12842833a1597429");

const MEMBERS: &[(&str, &str)] = &[("authorizer", "address"), ("nonce", "bytes32")];

/// `cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)`.
const CANCEL_VRS: [u8; 4] = hex!("5a049a70");
/// `cancelAuthorization(address,bytes32,bytes)`.
const CANCEL_BYTES: [u8; 4] = hex!("b7b72899");

/// The cancellation of one nonce, which a [`Signer`](crate::Signer) is asked to sign.
///
/// After the token accepts the cancellation, no authorization with this nonce can be used. Before
/// that, the cancellation has no effect: the seller can still use the authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelAuthorization {
    asset: Asset,
    authorizer: Address,
    nonce: B256,
}

impl CancelAuthorization {
    /// Creates the cancellation of a nonce of `authorizer`.
    ///
    /// A cancellation moves no money, so any program may create one.
    #[must_use]
    pub const fn new(asset: Asset, authorizer: Address, nonce: B256) -> Self {
        Self {
            asset,
            authorizer,
            nonce,
        }
    }

    /// Returns the token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Returns the address that signed, or may have signed, an authorization with the nonce.
    #[must_use]
    pub const fn authorizer(&self) -> Address {
        self.authorizer
    }

    /// Returns the nonce to cancel.
    #[must_use]
    pub const fn nonce(&self) -> B256 {
        self.nonce
    }

    /// Returns the EIP-712 digest, for a signer that signs 32 bytes and cannot read typed data.
    #[must_use]
    pub fn digest(&self) -> B256 {
        let words = [TYPEHASH, self.authorizer.into_word(), self.nonce];
        typed_data::digest(&self.asset, keccak256(concat_words(words)))
    }

    /// Returns the JSON parameter of `eth_signTypedData_v4`.
    ///
    /// Pass it to a remote or hardware signer that shows or checks the message before it signs.
    #[must_use]
    pub fn typed_data_json(&self) -> String {
        let message = json!({ "authorizer": self.authorizer.to_checksum(None), "nonce": self.nonce.to_string() });
        typed_data::json(&self.asset, "CancelAuthorization", MEMBERS, &message)
    }
}

/// A cancellation with its signature, ready to be sent to the chain.
///
/// Send a transaction with [`calldata`](Self::calldata) to [`contract`](Self::contract) on
/// [`network`](Self::network). Any account may send it and pay its gas. The signature can only
/// cancel the nonce.
///
/// ```no_run
/// # async fn example(client: bursar::Client, id: bursar::PurchaseId) -> Result<(), bursar::Error> {
/// let cancellation = client.cancel(&id).await?;
/// println!("send 0x{} to {} on {}",
///     cancellation.calldata().iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
///     cancellation.contract(),
///     cancellation.network(),
/// );
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCancellation {
    cancellation: CancelAuthorization,
    signature: Signature,
}

impl SignedCancellation {
    /// Joins a cancellation and its signature, which the token's contract checks.
    #[must_use]
    pub const fn new(cancellation: CancelAuthorization, signature: Signature) -> Self {
        Self {
            cancellation,
            signature,
        }
    }

    /// Returns the chain.
    #[must_use]
    pub fn network(&self) -> Network {
        self.cancellation.asset.network()
    }

    /// Returns the token's contract, to which the transaction goes.
    #[must_use]
    pub fn contract(&self) -> Address {
        self.cancellation.asset.address()
    }

    /// Returns the address whose nonce is canceled.
    #[must_use]
    pub const fn authorizer(&self) -> Address {
        self.cancellation.authorizer
    }

    /// Returns the nonce to cancel.
    #[must_use]
    pub const fn nonce(&self) -> B256 {
        self.cancellation.nonce
    }

    /// Returns the signature.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Returns the input of the transaction.
    ///
    /// For a signature of 65 bytes it calls the function of EIP-3009 with `v`, `r` and `s`. For the
    /// signature of a contract account it calls the function with `bytes` of Circle's version 2.2.
    #[must_use]
    pub fn calldata(&self) -> Vec<u8> {
        let head = concat_words([self.authorizer().into_word(), self.nonce()]);
        match self.signature.as_bytes() {
            [scalars @ .., v] if scalars.len() == 64 => {
                let v = B256::from(U256::from(*v));
                [&CANCEL_VRS, head.as_slice(), v.as_slice(), scalars].concat()
            }
            signature => {
                let length = B256::from(U256::from(signature.len()));
                let padding = vec![0_u8; signature.len().wrapping_neg() % 32];
                // The bytes follow the three words of the head.
                let offset = B256::from(U256::from(96));
                let parts: [&[u8]; 6] = [
                    &CANCEL_BYTES,
                    &head,
                    offset.as_slice(),
                    length.as_slice(),
                    signature,
                    &padding,
                ];
                parts.concat()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::address;

    use super::*;
    use crate::money::AssetRegistry;
    use crate::signer::{AnySigner, LocalSigner};

    /// Anvil's account 1, cancelling on Base Sepolia.
    fn cancellation() -> CancelAuthorization {
        let usdc = AssetRegistry::stablecoins()
            .find_symbol(Network::from_chain_id(84_532), "USDC")
            .unwrap();
        let authorizer = address!("70997970C51812dc3A010C7d01b50e0d17dc79C8");
        CancelAuthorization::new(usdc.clone(), authorizer, B256::repeat_byte(9))
    }

    fn anvil() -> LocalSigner {
        let key = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d".to_owned();
        LocalSigner::from_hex(&key.into()).unwrap()
    }

    #[test]
    fn the_constants_are_the_hashes_of_their_signatures() {
        assert_eq!(
            keccak256("CancelAuthorization(address authorizer,bytes32 nonce)"),
            TYPEHASH
        );
        let selector = |text: &str| keccak256(text)[..4].to_vec();
        assert_eq!(
            selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)"),
            CANCEL_VRS
        );
        assert_eq!(
            selector("cancelAuthorization(address,bytes32,bytes)"),
            CANCEL_BYTES
        );
    }

    /// viem computes the same digest, signature and calldata.
    #[tokio::test]
    async fn viem_computes_the_same() {
        assert_eq!(
            cancellation().digest(),
            b256!("563f52e4c2769b840822a0bc5aaa21369aa703a4dbb28f024ee30e42998441b8")
        );
        let signature = AnySigner::new(anvil())
            .cancel(&cancellation())
            .await
            .unwrap();
        let signed = SignedCancellation::new(cancellation(), signature);
        assert_eq!(
            hex::encode(signed.calldata()),
            concat!(
                "5a049a70",
                "00000000000000000000000070997970c51812dc3a010c7d01b50e0d17dc79c8",
                "0909090909090909090909090909090909090909090909090909090909090909",
                "000000000000000000000000000000000000000000000000000000000000001b",
                "61bf6407ae6052dd5d9260879203aa0aa0d9eda2549ac28053af9340c0f2c5b2",
                "545e7b2ec3bcb769e511372e945a0293eb4c13a60aa72b4d2a78206ffe9e06f8",
            )
        );
        let by_contract = SignedCancellation::new(cancellation(), Signature::new([0xab; 3]));
        assert_eq!(
            hex::encode(by_contract.calldata()),
            concat!(
                "b7b72899",
                "00000000000000000000000070997970c51812dc3a010c7d01b50e0d17dc79c8",
                "0909090909090909090909090909090909090909090909090909090909090909",
                "0000000000000000000000000000000000000000000000000000000000000060",
                "0000000000000000000000000000000000000000000000000000000000000003",
                "ababab0000000000000000000000000000000000000000000000000000000000",
            )
        );
    }
}
