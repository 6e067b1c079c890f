//! The message that approves Permit2 without a transaction of the wallet: `Permit` of EIP-2612.

use alloy::primitives::{Address, B256, U256, b256, keccak256};
use serde_json::json;

use super::PERMIT2;
use crate::eip3009::{typed_digest, typed_json};
use crate::money::{Asset, TokenAmount, concat_words};

/// `keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)")`.
const TYPEHASH: B256 = b256!("6e71edae12b1b97f4d1f60370fef10105fa2faae0126114a169c64845d6126c9");

const MEMBERS: &[(&str, &str)] = &[
    ("owner", "address"),
    ("spender", "address"),
    ("value", "uint256"),
    ("nonce", "uint256"),
    ("deadline", "uint256"),
];

/// An approval of Permit2 that the seller's facilitator sends and pays for: `Permit` of EIP-2612.
///
/// Only bursar creates one, for a payment by Permit2 whose seller offers gas sponsoring, if the [policy] allows it. It
/// approves Permit2 alone, for exactly the amount of the payment, until the deadline of the payment. It replaces an earlier
/// approval.
///
/// [policy]: crate::Policy::gas_sponsoring
///
/// ```
/// use bursar::signer::{SignerError, TokenPermit};
///
/// fn check(permit: &TokenPermit) -> Result<(), SignerError> {
///     println!("Permit2 may move {} until {}", permit.amount(), permit.deadline());
///     Ok(())
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPermit {
    asset: Asset,
    owner: Address,
    value: U256,
    nonce: U256,
    deadline: u64,
}

impl TokenPermit {
    pub(crate) const fn new(
        asset: Asset,
        owner: Address,
        value: U256,
        nonce: U256,
        deadline: u64,
    ) -> Self {
        Self {
            asset,
            owner,
            value,
            nonce,
            deadline,
        }
    }

    /// Returns the token.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Returns the address that approves.
    #[must_use]
    pub const fn owner(&self) -> Address {
        self.owner
    }

    /// Returns the contract that is approved: Permit2.
    #[must_use]
    pub const fn spender(&self) -> Address {
        PERMIT2
    }

    /// Returns the approved amount in atomic units.
    #[must_use]
    pub const fn value(&self) -> U256 {
        self.value
    }

    /// Returns the approved amount with its token, for display.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.value)
    }

    /// Returns the number of permits of this token that the wallet has used.
    #[must_use]
    pub const fn nonce(&self) -> U256 {
        self.nonce
    }

    /// Returns the last second in which the token accepts the permit, in Unix seconds. The approval itself does not end.
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.deadline
    }

    pub(crate) fn struct_hash(&self) -> B256 {
        let words = [
            TYPEHASH,
            self.owner.into_word(),
            PERMIT2.into_word(),
            self.value.into(),
            self.nonce.into(),
            U256::from(self.deadline).into(),
        ];
        keccak256(concat_words(words))
    }

    /// Returns the EIP-712 digest, for a signer that signs 32 bytes and cannot read typed data.
    #[must_use]
    pub fn digest(&self) -> B256 {
        typed_digest(self.asset.domain_separator(), self.struct_hash())
    }

    /// Returns the JSON parameter of `eth_signTypedData_v4`.
    #[must_use]
    pub fn typed_data_json(&self) -> String {
        let message = json!({
            "owner": self.owner.to_checksum(None),
            "spender": PERMIT2.to_checksum(None),
            "value": self.value.to_string(),
            "nonce": self.nonce.to_string(),
            "deadline": self.deadline.to_string(),
        });
        typed_json(&self.asset, "Permit", MEMBERS, &message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_eip_2612_is_that_of_its_text() {
        let members: Vec<String> = MEMBERS
            .iter()
            .map(|(name, kind)| format!("{kind} {name}"))
            .collect();
        assert_eq!(
            keccak256(format!("Permit({})", members.join(","))),
            TYPEHASH
        );
    }
}
