//! The message that pays: `PermitWitnessTransferFrom` of Permit2, with the witness of an x402 proxy.

use alloy::primitives::{Address, B256, U256, b256, keccak256};
use serde_json::{Value, json};

use super::{EXACT_PROXY, PERMIT2, UPTO_PROXY};
use crate::eip3009::typed_digest;
use crate::money::{Asset, Network, TokenAmount, concat_words};

/// `keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)")`. Permit2 has no version.
const DOMAIN_TYPEHASH: B256 =
    b256!("8cad95687ba82c2ce50e74f7b754645e5117c3a5bec8151c0726d5857980a866");
/// `keccak256("Permit2")`.
const DOMAIN_NAME: B256 = b256!("9ac997416e8ff9d2ff6bebeb7149f65cdae5e32e2b90440b566bb3044041d36a");
/// `keccak256("TokenPermissions(address token,uint256 amount)")`.
const PERMISSIONS_TYPEHASH: B256 =
    b256!("618358ac3db8dc274f0cd8829da7e234bd48cd73c4a740aede1adec9846d06a1");
/// The hash of [`Form::permit_type`] of the scheme `exact`.
const EXACT_TYPEHASH: B256 =
    b256!("ebc156cd23678a74c94df13d772ef5478420637f0c94bd10d509e1dc98f521c7");
/// The hash of [`Form::permit_type`] of the scheme `upto`.
const UPTO_TYPEHASH: B256 =
    b256!("51dff6974ad4388c499e7fcfe838d2bd767162553a144098ce20ea661d70c2ee");
/// `keccak256("Witness(address to,uint256 validAfter)")`.
const EXACT_WITNESS_TYPEHASH: B256 =
    b256!("d97b3239a7f32295517bd14cb074edfdd188dfe5eb42f802bb26d4fd1eb12c37");
/// `keccak256("Witness(address to,address facilitator,uint256 validAfter)")`.
const UPTO_WITNESS_TYPEHASH: B256 =
    b256!("d4171c445a74218b01d4fd8af34ff1106580ea1e36ff837e64484bfaa2253b75");

const PERMIT_MEMBERS: [(&str, &str); 5] = [
    ("permitted", "TokenPermissions"),
    ("spender", "address"),
    ("nonce", "uint256"),
    ("deadline", "uint256"),
    ("witness", "Witness"),
];
const PERMISSIONS_MEMBERS: [(&str, &str); 2] = [("token", "address"), ("amount", "uint256")];
const EXACT_MEMBERS: [(&str, &str); 2] = [("to", "address"), ("validAfter", "uint256")];
const UPTO_MEMBERS: [(&str, &str); 3] = [
    ("to", "address"),
    ("facilitator", "address"),
    ("validAfter", "uint256"),
];
const DOMAIN_MEMBERS: [(&str, &str); 3] = [
    ("name", "string"),
    ("chainId", "uint256"),
    ("verifyingContract", "address"),
];

/// A transfer by Permit2 that a [`Signer`](crate::Signer) is asked to sign: `PermitWitnessTransferFrom`.
///
/// Only bursar creates one. It does so after the policy has allowed the payment and the ledger has reserved the money.
/// The token comes from the [`AssetRegistry`], never from the seller. The spender is one of the two x402 proxies, which
/// can pay nobody but [`to`](Self::to).
///
/// For the scheme `exact` the proxy moves the whole [`amount`](Self::amount). For `upto` the amount is a ceiling: the
/// [`facilitator`](Self::facilitator) chooses how much of it the proxy moves, once.
///
/// [`AssetRegistry`]: crate::money::AssetRegistry
///
/// ```
/// use bursar::usd;
/// use bursar::signer::{PermitTransfer, Signature, SignerError};
///
/// /// Refuses to sign for more than ten cents.
/// fn check(permit: &PermitTransfer) -> Result<(), SignerError> {
///     match permit.amount().dollars() {
///         Some(dollars) if dollars <= usd!("0.10") => Ok(()),
///         _ => Err(SignerError::rejected(format!("{} is too much", permit.amount()))),
///     }
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitTransfer {
    asset: Asset,
    from: Address,
    to: Address,
    value: U256,
    facilitator: Option<Address>,
    valid_after: u64,
    deadline: u64,
    nonce: U256,
}

impl PermitTransfer {
    /// `facilitator` makes it a permit of the scheme `upto`.
    pub(crate) const fn new(
        asset: Asset,
        (from, to): (Address, Address),
        value: U256,
        facilitator: Option<Address>,
        (valid_after, deadline): (u64, u64),
        nonce: U256,
    ) -> Self {
        Self {
            asset,
            from,
            to,
            value,
            facilitator,
            valid_after,
            deadline,
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

    /// Returns the permitted amount in atomic units of the token: for `upto` the ceiling.
    #[must_use]
    pub const fn value(&self) -> U256 {
        self.value
    }

    /// Returns the permitted amount with its token, for display: for `upto` the ceiling.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.value)
    }

    /// Returns the contract that Permit2 lets move the token: the x402 proxy of the scheme.
    #[must_use]
    pub const fn spender(&self) -> Address {
        match self.facilitator {
            None => EXACT_PROXY,
            Some(_) => UPTO_PROXY,
        }
    }

    /// Returns the only account that can settle a permit of the scheme `upto`, or `None` for `exact`, which anybody can
    /// settle.
    #[must_use]
    pub const fn facilitator(&self) -> Option<Address> {
        self.facilitator
    }

    /// Returns the nonce. Permit2 accepts each nonce of a payer once, for all tokens and both schemes.
    #[must_use]
    pub const fn nonce(&self) -> U256 {
        self.nonce
    }

    /// Returns the time from which the proxy accepts the permit, in Unix seconds.
    #[must_use]
    pub const fn valid_after(&self) -> u64 {
        self.valid_after
    }

    /// Returns the last second in which Permit2 accepts the permit, in Unix seconds.
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.deadline
    }

    /// Returns the time before which Permit2 accepts the permit: the second after its deadline.
    pub(crate) const fn valid_before(&self) -> u64 {
        self.deadline.saturating_add(1)
    }

    const fn form(&self) -> Form {
        match self.facilitator {
            None => Form::Exact,
            Some(_) => Form::Upto,
        }
    }

    /// Returns the EIP-712 digest, for a signer that signs 32 bytes and cannot read typed data.
    #[must_use]
    pub fn digest(&self) -> B256 {
        typed_digest(domain_separator(self.asset.network()), self.struct_hash())
    }

    pub(crate) fn struct_hash(&self) -> B256 {
        let permissions = [
            PERMISSIONS_TYPEHASH,
            self.asset.address().into_word(),
            self.value.into(),
        ];
        let valid_after = U256::from(self.valid_after).into();
        let witness = match self.facilitator {
            None => keccak256(concat_words([
                EXACT_WITNESS_TYPEHASH,
                self.to.into_word(),
                valid_after,
            ])),
            Some(facilitator) => keccak256(concat_words([
                UPTO_WITNESS_TYPEHASH,
                self.to.into_word(),
                facilitator.into_word(),
                valid_after,
            ])),
        };
        let words = [
            self.form().typehash(),
            keccak256(concat_words(permissions)),
            self.spender().into_word(),
            self.nonce.into(),
            U256::from(self.deadline).into(),
            witness,
        ];
        keccak256(concat_words(words))
    }

    /// Returns the JSON parameter of `eth_signTypedData_v4`.
    ///
    /// Pass it to a remote or hardware signer that shows or checks the message before it signs.
    #[must_use]
    pub fn typed_data_json(&self) -> String {
        let mut witness = json!({ "to": self.to.to_checksum(None) });
        if let Some(facilitator) = self.facilitator {
            witness["facilitator"] = facilitator.to_checksum(None).into();
        }
        witness["validAfter"] = self.valid_after.to_string().into();
        json!({
            "types": {
                "EIP712Domain": fields(&DOMAIN_MEMBERS),
                "PermitWitnessTransferFrom": fields(&PERMIT_MEMBERS),
                "TokenPermissions": fields(&PERMISSIONS_MEMBERS),
                "Witness": fields(self.form().members()),
            },
            "primaryType": "PermitWitnessTransferFrom",
            "domain": {
                "name": "Permit2",
                "chainId": self.asset.network().chain_id(),
                "verifyingContract": PERMIT2.to_checksum(None),
            },
            "message": {
                "permitted": {
                    "token": self.asset.address().to_checksum(None),
                    "amount": self.value.to_string(),
                },
                "spender": self.spender().to_checksum(None),
                "nonce": self.nonce.to_string(),
                "deadline": self.deadline.to_string(),
                "witness": witness,
            },
        })
        .to_string()
    }
}

/// The two forms of the witness.
#[derive(Clone, Copy)]
enum Form {
    Exact,
    Upto,
}

impl Form {
    const fn typehash(self) -> B256 {
        match self {
            Self::Exact => EXACT_TYPEHASH,
            Self::Upto => UPTO_TYPEHASH,
        }
    }

    const fn members(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Exact => &EXACT_MEMBERS,
            Self::Upto => &UPTO_MEMBERS,
        }
    }
}

fn fields(members: &[(&str, &str)]) -> Vec<Value> {
    let fields = members.iter();
    fields
        .map(|(name, kind)| json!({ "name": name, "type": kind }))
        .collect()
}

/// Returns the EIP-712 domain separator of Permit2 on a chain.
pub(crate) fn domain_separator(network: Network) -> B256 {
    let words = [
        DOMAIN_TYPEHASH,
        DOMAIN_NAME,
        U256::from(network.chain_id()).into(),
        PERMIT2.into_word(),
    ];
    keccak256(concat_words(words))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::AssetRegistry;

    /// Returns the type of a struct, as EIP-712 writes it.
    fn type_of(name: &str, members: &[(&str, &str)]) -> String {
        let members: Vec<String> = members
            .iter()
            .map(|(name, kind)| format!("{kind} {name}"))
            .collect();
        format!("{name}({})", members.join(","))
    }

    #[test]
    fn the_hashes_of_permit2_are_those_of_their_texts() {
        let domain = type_of("EIP712Domain", &DOMAIN_MEMBERS);
        assert_eq!(keccak256(domain), DOMAIN_TYPEHASH);
        assert_eq!(keccak256("Permit2"), DOMAIN_NAME);
        let permissions = type_of("TokenPermissions", &PERMISSIONS_MEMBERS);
        assert_eq!(keccak256(&permissions), PERMISSIONS_TYPEHASH);
        let permit = type_of("PermitWitnessTransferFrom", &PERMIT_MEMBERS);
        for (form, text, typehash) in [
            (
                Form::Exact,
                "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,\
                 Witness witness)TokenPermissions(address token,uint256 amount)Witness(address to,uint256 validAfter)",
                EXACT_WITNESS_TYPEHASH,
            ),
            (
                Form::Upto,
                "PermitWitnessTransferFrom(TokenPermissions permitted,address spender,uint256 nonce,uint256 deadline,\
                 Witness witness)TokenPermissions(address token,uint256 amount)\
                 Witness(address to,address facilitator,uint256 validAfter)",
                UPTO_WITNESS_TYPEHASH,
            ),
        ] {
            let witness = type_of("Witness", form.members());
            assert_eq!(keccak256(&witness), typehash);
            assert_eq!(format!("{permit}{permissions}{witness}"), text);
            assert_eq!(keccak256(text), form.typehash());
        }
    }

    #[test]
    fn the_deadline_of_a_permit_is_its_last_second() {
        let base = Network::from_chain_id(8453);
        let usdc = AssetRegistry::stablecoins().find_symbol(base, "USDC");
        let parties = (Address::repeat_byte(1), Address::repeat_byte(2));
        let permit = PermitTransfer::new(
            usdc.unwrap().clone(),
            parties,
            U256::from(5),
            None,
            (0, 1000),
            U256::from(7),
        );
        assert_eq!((permit.deadline(), permit.valid_before()), (1000, 1001));
        assert_eq!(permit.spender(), EXACT_PROXY);
    }
}
