//! A private key, with signatures by k256 or, with the feature `secp256k1`, by libsecp256k1. Both are
//! deterministic (RFC 6979) and make the same bytes.

#[cfg(not(feature = "secp256k1"))]
mod implementation {
    use k256::ecdsa::SigningKey;

    use alloy::primitives::{Address, B256};

    use crate::eip3009::{Signature, address_of};

    /// A private key, which is wiped when it is dropped.
    pub(in super::super) struct PrivateKey(SigningKey);

    impl PrivateKey {
        /// Returns `None` for zero and for a number that is not below the order of the curve.
        pub(in super::super) fn new(bytes: &[u8; 32]) -> Option<Self> {
            SigningKey::from_slice(bytes).ok().map(Self)
        }

        pub(in super::super) fn address(&self) -> Address {
            address_of(self.0.verifying_key())
        }

        pub(in super::super) fn sign(&self, digest: B256) -> Signature {
            let (ecdsa, recovery) = self.0.sign_prehash_recoverable(digest.as_slice());
            Signature::from_scalars(&ecdsa.to_bytes(), recovery.is_y_odd())
        }
    }
}

#[cfg(feature = "secp256k1")]
mod implementation {
    use secp256k1::{Message, PublicKey, Secp256k1, SecretKey, SignOnly};

    use alloy::primitives::{Address, B256};

    use crate::eip3009::{Signature, address_of_point};

    /// A private key, which is wiped when it is dropped.
    pub(in super::super) struct PrivateKey {
        key: SecretKey,
        context: Secp256k1<SignOnly>,
    }

    impl PrivateKey {
        /// Returns `None` for zero and for a number that is not below the order of the curve.
        pub(in super::super) fn new(bytes: &[u8; 32]) -> Option<Self> {
            let mut context = Secp256k1::signing_only();
            let mut seed = [0; 32];
            // Blinding hardens against side channels. The signatures are the same without it.
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
            Signature::from_scalars(&scalars, i32::from(recovery) & 1 == 1)
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
    use alloy::primitives::keccak256;
    use k256::ecdsa::SigningKey;

    use super::*;
    use crate::eip3009::{Signature, address_of};

    /// Either library makes the bytes of RFC 6979 that k256 makes.
    #[test]
    fn both_libraries_make_the_same_signature() {
        for number in 1..=64_u8 {
            let (bytes, digest) = (keccak256([number]), keccak256([number, number]));
            let (ours, theirs) = (
                PrivateKey::new(&bytes).unwrap(),
                SigningKey::from_slice(bytes.as_slice()).unwrap(),
            );
            let (ecdsa, recovery) = theirs.sign_prehash_recoverable(digest.as_slice());
            assert_eq!(
                ours.sign(digest),
                Signature::from_scalars(&ecdsa.to_bytes(), recovery.is_y_odd())
            );
            assert_eq!(ours.address(), address_of(theirs.verifying_key()));
        }
    }
}
