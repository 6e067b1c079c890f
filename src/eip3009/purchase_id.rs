//! Purchase ids, and the nonce that each purchase has on the chain.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use alloy::primitives::{Address, B256, hex, keccak256};
use serde::{Serialize, Serializer};

use crate::money::Asset;

/// The id of one purchase of a payer: an id of your choice, or a random one.
///
/// The id determines the nonce on the chain. The token accepts a nonce once, so it accepts at most
/// one of the authorizations that are signed under one id.
///
/// ```
/// use bursar::PurchaseId;
///
/// let id: PurchaseId = "invoice-2026-11-25".parse()?;
/// assert_eq!(id.as_str(), "invoice-2026-11-25");
/// assert!("no spaces".parse::<PurchaseId>().is_err());
/// # Ok::<(), bursar::ledger::PurchaseIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseId(Arc<str>);

impl PurchaseId {
    const MAX_LENGTH: usize = 128;

    /// Creates a random id of 128 bits.
    ///
    /// # Errors
    /// Returns an error if the operating system has no randomness.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        random_hex().map(Self::of_hex)
    }

    /// Returns the id of random digits.
    pub(crate) fn of_hex(digits: String) -> Self {
        Self(digits.into())
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns 128 random bits as hexadecimal digits.
pub(crate) fn random_hex() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes)?;
    Ok(hex::encode(bytes))
}

/// Returns two independent texts as [`random_hex`] does, by one system call.
pub(crate) fn two_random_hex() -> Result<(String, String), getrandom::Error> {
    let mut bytes = [[0_u8; 16]; 2];
    getrandom::fill(bytes.as_flattened_mut())?;
    let [first, second] = bytes.map(hex::encode);
    Ok((first, second))
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

/// The error of parsing a [`PurchaseId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a purchase id is 1 to 128 printable ASCII characters without spaces")]
#[non_exhaustive]
pub struct PurchaseIdError;

/// Returns the EIP-3009 nonce of a purchase: the hash of a tag, payer, chain, asset, generation and
/// purchase id.
///
/// The nonce does not depend on amount, payee and expiry. Therefore the token accepts at most one of
/// all authorizations of a purchase. Every part but the last has a fixed length.
pub(crate) fn nonce(payer: Address, asset: &Asset, id: &PurchaseId, generation: u32) -> B256 {
    const TAG: &[u8] = b"bursar purchase v1";
    // The tag, two addresses and two numbers have 70 bytes.
    let mut preimage = Vec::with_capacity(id.as_str().len().saturating_add(70));
    preimage.extend_from_slice(TAG);
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
    fn the_nonce_depends_on_the_purchase_alone() {
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
