//! A private key and its signatures: by k256, or with the feature `secp256k1` by libsecp256k1. Both are
//! deterministic (RFC 6979) and give the same bytes.

use alloy::primitives::{Address, B256, keccak256};
use k256::ecdsa::VerifyingKey;
use k256::elliptic_curve::sec1::ToSec1Point;

use super::Signature;

/// The address of a public key: the end of the hash of its point.
pub(super) fn address_of(key: &VerifyingKey) -> Address {
    address_of_point(key.as_affine().to_sec1_point(false).as_bytes())
}

/// `point` is uncompressed: 0x04, then both coordinates.
fn address_of_point(point: &[u8]) -> Address {
    let coordinates = point.get(1..).unwrap_or_default();
    Address::from_word(keccak256(coordinates))
}

/// `r ‖ s ‖ v` with `v` 27 or 28. `s` must be low.
pub(super) fn signature(scalars: &[u8], y_is_odd: bool) -> Signature {
    let v = if y_is_odd { 28 } else { 27 };
    Signature::new([scalars, &[v]].concat())
}

#[cfg(not(feature = "secp256k1"))]
mod implementation {
    use k256::ecdsa::SigningKey;

    use super::{Address, B256, Signature, address_of, signature};

    /// Wiped when dropped.
    pub(in super::super) struct PrivateKey(SigningKey);

    impl PrivateKey {
        /// `None` for zero and what is not below the order of the curve.
        pub(in super::super) fn new(bytes: &[u8; 32]) -> Option<Self> {
            SigningKey::from_slice(bytes).ok().map(Self)
        }

        pub(in super::super) fn address(&self) -> Address {
            address_of(self.0.verifying_key())
        }

        pub(in super::super) fn sign(&self, digest: B256) -> Signature {
            let (ecdsa, recovery) = self.0.sign_prehash_recoverable(digest.as_slice());
            signature(&ecdsa.to_bytes(), recovery.is_y_odd())
        }
    }
}

#[cfg(feature = "secp256k1")]
mod implementation {
    use secp256k1::{Message, PublicKey, Secp256k1, SecretKey, SignOnly};

    use super::{Address, B256, Signature, address_of_point, signature};

    /// Wiped when dropped.
    pub(in super::super) struct PrivateKey {
        key: SecretKey,
        context: Secp256k1<SignOnly>,
    }

    impl PrivateKey {
        /// `None` for zero and what is not below the order of the curve.
        pub(in super::super) fn new(bytes: &[u8; 32]) -> Option<Self> {
            let mut context = Secp256k1::signing_only();
            let mut seed = [0; 32];
            // Blinding hardens against side channels. Without randomness signatures are the same.
            if getrandom::fill(&mut seed).is_ok() {
                context.seeded_randomize(&seed);
            }
            Some(Self {
                key: SecretKey::from_byte_array(*bytes).ok()?,
                context,
            })
        }

        pub(in super::super) fn address(&self) -> Address {
            address_of_point(
                &PublicKey::from_secret_key(&self.context, &self.key).serialize_uncompressed(),
            )
        }

        pub(in super::super) fn sign(&self, digest: B256) -> Signature {
            let ecdsa = self
                .context
                .sign_ecdsa_recoverable(Message::from_digest(digest.0), &self.key);
            let (recovery, scalars) = ecdsa.serialize_compact();
            signature(&scalars, i32::from(recovery) & 1 == 1)
        }
    }

    impl Drop for PrivateKey {
        fn drop(&mut self) {
            self.key.non_secure_erase();
        }
    }
}

pub(super) use implementation::PrivateKey;

#[cfg(test)]
mod tests {
    use k256::ecdsa::SigningKey;

    use super::*;

    /// Whatever library signs, the bytes are those of RFC 6979 as k256 makes them.
    #[test]
    fn every_library_signs_alike() {
        for number in 1..=64_u8 {
            let (bytes, digest) = (keccak256([number]), keccak256([number, number]));
            let (ours, theirs) = (
                PrivateKey::new(&bytes).unwrap(),
                SigningKey::from_slice(bytes.as_slice()).unwrap(),
            );
            let (ecdsa, recovery) = theirs.sign_prehash_recoverable(digest.as_slice());
            assert_eq!(
                ours.sign(digest),
                signature(&ecdsa.to_bytes(), recovery.is_y_odd())
            );
            assert_eq!(ours.address(), address_of(theirs.verifying_key()));
        }
    }
}
