//! Signatures, and the addresses of public keys.

use std::fmt;

use alloy::primitives::{Address, hex, keccak256};
use k256::ecdsa::VerifyingKey;
use k256::elliptic_curve::sec1::ToSec1Point;

/// A signature over an authorization: 65 bytes for a key pair, any length for a contract wallet.
///
/// Until it expires it is as good as the money, so `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature(Vec<u8>);

impl Signature {
    /// Wraps the bytes: `r ‖ s ‖ v` with `v` 27 or 28 for a key pair.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// `r ‖ s ‖ v` with `v` 27 or 28. `s` must be low.
    pub(crate) fn from_scalars(scalars: &[u8], y_is_odd: bool) -> Self {
        let v = if y_is_odd { 28 } else { 27 };
        Self::new([scalars, &[v]].concat())
    }

    /// The bytes.
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

/// The address of a public key: the end of the hash of its point.
pub(crate) fn address_of(key: &VerifyingKey) -> Address {
    address_of_point(key.as_affine().to_sec1_point(false).as_bytes())
}

/// `point` is uncompressed: 0x04, then both coordinates.
pub(crate) fn address_of_point(point: &[u8]) -> Address {
    let coordinates = point.get(1..).unwrap_or_default();
    Address::from_word(keccak256(coordinates))
}
