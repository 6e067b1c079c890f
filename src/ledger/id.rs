//! The id of a purchase, and the nonce that follows from it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use alloy::primitives::{Address, B256, hex, keccak256};
use serde::{Serialize, Serializer};

use crate::asset::Asset;

/// The id of one purchase: your own text, or 128 random bits that bursar chooses.
///
/// All authorizations for a purchase share one nonce, so at most one of them can settle. Give a
/// request an id of your own to make sure that it is paid at most once, even after a crash.
///
/// ```
/// use bursar::PurchaseId;
///
/// let id: PurchaseId = "order-1".parse()?;
/// assert_eq!(id.as_str(), "order-1");
/// assert!("order 1".parse::<PurchaseId>().is_err()); // no spaces
/// # Ok::<(), bursar::PurchaseIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PurchaseId(Arc<str>);

impl PurchaseId {
    const MAX_LENGTH: usize = 128;

    /// Returns a new id of 128 random bits.
    ///
    /// # Errors
    /// Returns an error if the operating system provides no randomness.
    pub(crate) fn random() -> Result<Self, getrandom::Error> {
        random_hex().map(|text| Self(text.into()))
    }

    /// Returns the id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Returns 128 random bits as 32 hexadecimal digits.
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

/// An error that says that a text is not a purchase id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a purchase id is 1 to 128 printable ASCII characters without spaces")]
#[non_exhaustive]
pub struct PurchaseIdError;

/// The full name of a purchase in a ledger: the payer and the id.
///
/// Two payers that share a ledger can use the same id for different purchases.
///
/// ```
/// use bursar::{Address, PurchaseKey};
///
/// let payer = Address::repeat_byte(0xAB);
/// let key = PurchaseKey::new(payer, "order-1".parse()?);
/// assert_eq!((key.payer, key.id.as_str()), (payer, "order-1"));
/// # Ok::<(), bursar::PurchaseIdError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PurchaseKey {
    /// The address that pays.
    pub payer: Address,
    /// The id, which is unique among the payer's purchases.
    pub id: PurchaseId,
}

impl PurchaseKey {
    /// Returns the key of the purchase `id` of `payer`.
    #[must_use]
    pub const fn new(payer: Address, id: PurchaseId) -> Self {
        Self { payer, id }
    }
}

/// Returns the EIP-3009 nonce of a purchase:
/// `keccak256(tag, payer, chain, asset, purchase id, generation)`.
///
/// The nonce does not depend on amount, payee and expiry. All authorizations for one purchase
/// therefore have the same nonce, and the token accepts at most one of them. Every part except the
/// id has a fixed length, so two purchases never hash the same bytes.
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
    use crate::Network;
    use crate::asset::AssetRegistry;

    #[test]
    fn the_nonce_depends_on_payer_id_and_generation() {
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
