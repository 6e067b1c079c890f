//! What is signed to pay: `TransferWithAuthorization` of EIP-3009.

use alloy::primitives::{Address, B256, U256, b256, keccak256};
use serde_json::json;

use super::typed_data;
use crate::asset::{Asset, TokenAmount, Words};

/// `keccak256("TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)")`.
const TYPEHASH: B256 = b256!("7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");

const MEMBERS: &[(&str, &str)] = &[
    ("from", "address"),
    ("to", "address"),
    ("value", "uint256"),
    ("validAfter", "uint256"),
    ("validBefore", "uint256"),
    ("nonce", "bytes32"),
];

/// One transfer of a token, fully typed: what a [`Signer`](crate::Signer) is asked to sign.
///
/// Only bursar makes these, after the policy allowed the payment and the ledger reserved its amount. The
/// token and its EIP-712 domain come from the asset registry, never from the seller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferAuthorization {
    asset: Asset,
    from: Address,
    to: Address,
    value: U256,
    valid_after: u64,
    valid_before: u64,
    nonce: B256,
}

impl TransferAuthorization {
    pub(crate) const fn new(
        asset: Asset,
        (from, to): (Address, Address),
        value: U256,
        (valid_after, valid_before): (u64, u64),
        nonce: B256,
    ) -> Self {
        Self {
            asset,
            from,
            to,
            value,
            valid_after,
            valid_before,
            nonce,
        }
    }

    /// The token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// The payer.
    #[must_use]
    pub const fn from(&self) -> Address {
        self.from
    }

    /// The payee.
    #[must_use]
    pub const fn to(&self) -> Address {
        self.to
    }

    /// Atomic units of the token.
    #[must_use]
    pub const fn value(&self) -> U256 {
        self.value
    }

    /// The amount, for people.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.value)
    }

    /// Unix seconds after which the chain accepts it.
    #[must_use]
    pub const fn valid_after(&self) -> u64 {
        self.valid_after
    }

    /// Unix seconds before which the chain accepts it.
    #[must_use]
    pub const fn valid_before(&self) -> u64 {
        self.valid_before
    }

    /// The nonce, which the token accepts once for this payer.
    #[must_use]
    pub const fn nonce(&self) -> B256 {
        self.nonce
    }

    /// The EIP-712 digest, for signers that sign 32 bytes without looking.
    #[must_use]
    pub fn digest(&self) -> B256 {
        typed_data::digest(&self.asset, self.struct_hash())
    }

    pub(crate) fn struct_hash(&self) -> B256 {
        let words = [
            TYPEHASH,
            self.from.into_word(),
            self.to.into_word(),
            self.value.into(),
            U256::from(self.valid_after).into(),
            U256::from(self.valid_before).into(),
            self.nonce,
        ];
        keccak256(words.as_flattened_bytes())
    }

    /// The parameter of `eth_signTypedData_v4`, for remote and hardware signers that show or check
    /// what they sign.
    #[must_use]
    pub fn typed_data_json(&self) -> String {
        let message = json!({
            "from": self.from.to_checksum(None),
            "to": self.to.to_checksum(None),
            "value": self.value.to_string(),
            "validAfter": self.valid_after.to_string(),
            "validBefore": self.valid_before.to_string(),
            "nonce": self.nonce.to_string(),
        });
        typed_data::json(&self.asset, "TransferWithAuthorization", MEMBERS, &message)
    }
}
