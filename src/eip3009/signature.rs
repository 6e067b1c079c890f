//! Signatures, and the addresses of public keys.

use std::fmt;

use alloy::primitives::{Address, hex, keccak256};
use k256::ecdsa::VerifyingKey;
use k256::elliptic_curve::sec1::ToSec1Point;

/// The signature of an authorization: 65 bytes for a key pair, any length for a contract account.
///
/// Until it expires, anyone who has the signature can move the money. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// Wraps the bytes of a signature.
    ///
    /// For a key pair these are `r ‖ s ‖ v`, with `v` 27 or 28.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// Creates `r ‖ s ‖ v` with `v` 27 or 28. `s` must be low.
    pub(crate) fn from_scalars(scalars: &[u8], y_is_odd: bool) -> Self {
        let v = if y_is_odd { 28 } else { 27 };
        Self::new([scalars, &[v]].concat())
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn to_hex(&self) -> String {
        hex::encode_prefixed(&self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signature({} bytes)", self.0.len())
    }
}

/// Returns the address of a public key: the last 20 bytes of the hash of its point.
pub(crate) fn address_of(key: &VerifyingKey) -> Address {
    address_of_point(key.as_affine().to_sec1_point(false).as_bytes())
}

/// Returns the address of an uncompressed point: the byte 0x04 and both coordinates.
pub(crate) fn address_of_point(point: &[u8]) -> Address {
    let coordinates = point.get(1..).unwrap_or_default();
    Address::from_word(keccak256(coordinates))
}
