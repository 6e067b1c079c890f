//! EIP-712 and EIP-3009, written from their specifications.
//!
//! This does not use the hashing of bursar. A mistake there makes a signature that the paywall refuses.

use alloy::primitives::{Address, B256, U256, keccak256};
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use k256::elliptic_curve::sec1::ToSec1Point;

use crate::payment::Authorization;

const DOMAIN_TYPE: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";
const CANCEL_TYPE: &str = "CancelAuthorization(address authorizer,bytes32 nonce)";
const TRANSFER_TYPE: &str = "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)";

/// The EIP-712 domain of a token.
pub(crate) struct Domain<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: &'a str,
    pub(crate) chain_id: u64,
    pub(crate) contract: Address,
}

impl Domain<'_> {
    pub(crate) fn separator(&self) -> B256 {
        hash_struct(
            DOMAIN_TYPE,
            [
                keccak256(self.name),
                keccak256(self.version),
                number(U256::from(self.chain_id)),
                self.contract.into_word(),
            ],
        )
    }

    /// Returns the digest of a transfer.
    pub(crate) fn digest(&self, message: &Authorization) -> B256 {
        let content = hash_struct(
            TRANSFER_TYPE,
            [
                message.from.into_word(),
                message.to.into_word(),
                number(message.value),
                number(U256::from(message.valid_after)),
                number(U256::from(message.valid_before)),
                message.nonce,
            ],
        );
        self.bind(content)
    }

    /// Returns the digest of a cancellation.
    pub(crate) fn cancellation(&self, authorizer: Address, nonce: B256) -> B256 {
        self.bind(hash_struct(CANCEL_TYPE, [authorizer.into_word(), nonce]))
    }

    fn bind(&self, content: B256) -> B256 {
        bind(self.separator(), content)
    }
}

/// Returns `keccak256("\x19\x01" ‖ domainSeparator ‖ hashStruct(message))`.
pub(crate) fn bind(separator: B256, content: B256) -> B256 {
    keccak256([&[0x19, 0x01][..], separator.as_slice(), content.as_slice()].concat())
}

/// Returns `keccak256(typeHash ‖ encodeData(s))` for members of one word each.
pub(crate) fn hash_struct<const N: usize>(encoded_type: &str, members: [B256; N]) -> B256 {
    let mut encoded = keccak256(encoded_type).to_vec();
    for member in members {
        encoded.extend_from_slice(member.as_slice());
    }
    keccak256(encoded)
}

pub(crate) fn number(value: U256) -> B256 {
    B256::from(value.to_be_bytes::<32>())
}

/// Returns the signer, as USDC's `ECRecover` does: `v` must be 27 or 28, and `s` must be in the lower half.
pub(crate) fn recover(digest: B256, signature: &[u8; 65]) -> Option<Address> {
    let (scalars, v) = signature.split_last_chunk::<1>()?;
    let odd = match v {
        [27] => false,
        [28] => true,
        _ => return None,
    };
    let signature = Signature::from_slice(scalars).ok()?;
    if signature.normalize_s() != signature {
        return None;
    }
    let key = VerifyingKey::recover_from_prehash(
        digest.as_slice(),
        &signature,
        RecoveryId::new(odd, false),
    )
    .ok()?;
    // An address is the last 20 bytes of the hash of both coordinates.
    let point = key.as_affine().to_sec1_point(false);
    Some(Address::from_word(keccak256(point.as_bytes().get(1..)?)))
}

#[cfg(test)]
mod tests {
    use alloy::primitives::{address, b256, hex};

    use super::*;

    /// From the worked example of `@x402/evm` 2.27.0.
    #[test]
    fn digest_and_signer_equal_the_official_example() {
        let domain = Domain {
            name: "USDC",
            version: "2",
            chain_id: 84_532,
            contract: address!("036CbD53842c5426634e7929541eC2318f3dCF7e"),
        };
        let message = Authorization {
            from: address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266"),
            to: address!("209693Bc6afc0C5328bA36FaF03C514EF312287C"),
            value: U256::from(10_000),
            valid_after: 0,
            valid_before: 1_740_672_154,
            nonce: b256!("f3746613c2d920b5fdabc0856f2aeb2d4f88ee6037b8cc5d04a71a4462f13480"),
        };
        let digest = domain.digest(&message);
        assert_eq!(
            digest,
            b256!("4f4985a0c4a7592c738a9d385dac72ed9932049a3a642b4923659213c54fa8c6")
        );
        let mut signature = hex!(
            "887688bfda2adc60488cb21d8355641dc7e6cae2acf979a4e510569110fbeb6912bfec8521359ee79ecbd2c6f8ba9ada97d499a910f5c0d4e274d0da99b8f3561c"
        );
        assert_eq!(recover(digest, &signature), Some(message.from));
        signature[64] = 1;
        assert_eq!(
            recover(digest, &signature),
            None,
            "the contract accepts only 27 and 28"
        );
    }
}
