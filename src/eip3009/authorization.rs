//! The message that pays: `TransferWithAuthorization` of EIP-3009.

use alloy::primitives::{Address, B256, U256, b256, keccak256};
use serde_json::json;

use super::typed_data;
use crate::money::{Asset, TokenAmount, concat_words};

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

/// A transfer of a token that a [`Signer`](crate::Signer) is asked to sign.
///
/// Only bursar creates one. It does so after the policy has allowed the payment and the ledger has
/// reserved the money. The token and its EIP-712 domain come from the [`AssetRegistry`], never from
/// the seller.
///
/// [`AssetRegistry`]: crate::money::AssetRegistry
///
/// ```
/// use bursar::usd;
/// use bursar::signer::{Signature, SignerError, TransferAuthorization};
///
/// /// Refuses to sign for more than ten cents.
/// fn check(authorization: &TransferAuthorization) -> Result<(), SignerError> {
///     match authorization.amount().dollars() {
///         Some(dollars) if dollars <= usd!("0.10") => Ok(()),
///         _ => Err(SignerError::rejected(format!("{} is too much", authorization.amount()))),
///     }
/// }
/// ```
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

    /// Returns the token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Returns the address that pays.
    #[must_use]
    pub const fn from(&self) -> Address {
        self.from
    }

    /// Returns the address that is paid.
    #[must_use]
    pub const fn to(&self) -> Address {
        self.to
    }

    /// Returns the amount in atomic units of the token.
    #[must_use]
    pub const fn value(&self) -> U256 {
        self.value
    }

    /// Returns the amount with its token, for display.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.value)
    }

    /// Returns the time after which the token accepts the authorization, in Unix seconds.
    #[must_use]
    pub const fn valid_after(&self) -> u64 {
        self.valid_after
    }

    /// Returns the time before which the token accepts the authorization, in Unix seconds.
    #[must_use]
    pub const fn valid_before(&self) -> u64 {
        self.valid_before
    }

    /// Returns the nonce. The token accepts each nonce of a payer once.
    #[must_use]
    pub const fn nonce(&self) -> B256 {
        self.nonce
    }

    /// Returns the EIP-712 digest, for a signer that signs 32 bytes and cannot read typed data.
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
        keccak256(concat_words(words))
    }

    /// Returns the JSON parameter of `eth_signTypedData_v4`.
    ///
    /// Pass it to a remote or hardware signer that shows or checks the message before it signs.
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
