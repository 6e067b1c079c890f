//! What names a purchase, and the nonce that follows from it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use alloy::primitives::{Address, B256, hex, keccak256};
use serde::{Serialize, Serializer};

use crate::money::Asset;

/// Names one purchase of a payer: the caller's own id, or a fresh random one.
///
/// One purchase has one nonce on the chain, so everything that is ever signed under one id can be
/// paid at most once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseId(Arc<str>);

impl PurchaseId {
    const MAX_LENGTH: usize = 128;

    /// A fresh id of 128 random bits.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        random_hex().map(|text| Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

impl FromStr for PurchaseId {
    type Err = PurchaseIdError;

    fn from_str(text: &str) -> Result<Self, PurchaseIdError> {
        let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
        let length = (1..=Self::MAX_LENGTH).contains(&text.len());
        if printable && length {
            Ok(Self(text.into()))
        } else {
            Err(PurchaseIdError)
        }
    }
}

impl fmt::Display for PurchaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for PurchaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// The text is not a purchase id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a purchase id is 1 to 128 printable ASCII characters without spaces")]
#[non_exhaustive]
pub struct PurchaseIdError;

/// The EIP-3009 nonce of a purchase: `keccak256(tag, payer, chain, asset, purchase id, generation)`.
///
/// Amount, payee and expiry stay out, so that all that is signed for one purchase excludes itself
/// on the chain. Every part but the last has a fixed length.
pub(crate) fn nonce(payer: Address, asset: &Asset, id: &PurchaseId, generation: u32) -> B256 {
    let mut preimage = b"bursar purchase v1".to_vec();
    preimage.extend_from_slice(payer.as_slice());
    preimage.extend_from_slice(&asset.network().chain_id().to_be_bytes());
    preimage.extend_from_slice(asset.address().as_slice());
    preimage.extend_from_slice(&generation.to_be_bytes());
    preimage.extend_from_slice(id.as_str().as_bytes());
    keccak256(preimage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{AssetRegistry, Network};

    #[test]
    fn the_nonce_is_of_the_purchase_alone() {
        let base = Network::from_chain_id(8453);
        let asset = AssetRegistry::stablecoins()
            .find_symbol(base, "USDC")
            .unwrap();
        let id: PurchaseId = "order-1".parse().unwrap();
        let one = nonce(Address::repeat_byte(1), asset, &id, 0);
        assert_eq!(one, nonce(Address::repeat_byte(1), asset, &id, 0));
        assert_ne!(one, nonce(Address::repeat_byte(2), asset, &id, 0));
        assert_ne!(one, nonce(Address::repeat_byte(1), asset, &id, 1));
        assert_ne!(
            one,
            nonce(
                Address::repeat_byte(1),
                asset,
                &"order-2".parse().unwrap(),
                0
            )
        );
    }
}
