//! The transaction that approves Permit2: `approve` of ERC-20, in an EIP-1559 transaction.

use alloy::primitives::{Address, B256, U256, hex, keccak256};

use super::PERMIT2;
use crate::eip3009::Signature;
use crate::money::{Asset, TokenAmount};

/// The type of an EIP-1559 transaction.
const TYPE: u8 = 2;

/// The fees and the place of a transaction, in the units of the chain.
///
/// ```
/// use bursar::chain::TransactionTerms;
///
/// let terms = TransactionTerms { nonce: 3, gas: 70_000, max_fee: 2_000_000_000, max_priority_fee: 100_000_000 };
/// assert_eq!(terms.cost(), 140_000_000_000_000); // wei, at most
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "a caller fills in every field")]
pub struct TransactionTerms {
    /// The number of transactions that the account has sent.
    pub nonce: u64,
    /// The largest amount of gas.
    pub gas: u64,
    /// The highest price of a unit of gas, in wei.
    pub max_fee: u128,
    /// The part of the price for the producer of the block, in wei.
    pub max_priority_fee: u128,
}

impl TransactionTerms {
    /// Returns the highest cost of the transaction, in wei.
    #[must_use]
    pub fn cost(&self) -> u128 {
        self.max_fee.saturating_mul(u128::from(self.gas))
    }
}

/// A transaction that lets Permit2 move a token of the account that signs it, up to an amount.
///
/// A [`Signer`](crate::Signer) signs it in [`sign_approval`](crate::Signer::sign_approval). It replaces an earlier approval.
/// An amount of zero revokes it. It has no deadline: it can be sent until the account sends another transaction with its nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    asset: Asset,
    amount: U256,
    terms: TransactionTerms,
}

impl Approval {
    /// Creates the approval of `amount` atomic units.
    #[must_use]
    pub const fn new(asset: Asset, amount: U256, terms: TransactionTerms) -> Self {
        Self {
            asset,
            amount,
            terms,
        }
    }

    /// Returns the token, to whose contract the transaction goes.
    #[must_use]
    pub const fn asset(&self) -> &Asset {
        &self.asset
    }

    /// Returns the contract that is approved: Permit2.
    #[must_use]
    pub const fn spender(&self) -> Address {
        PERMIT2
    }

    /// Returns the approved amount with its token.
    #[must_use]
    pub fn amount(&self) -> TokenAmount {
        TokenAmount::from_units(self.asset.clone(), self.amount)
    }

    /// Returns the nonce and the fees.
    #[must_use]
    pub const fn terms(&self) -> TransactionTerms {
        self.terms
    }

    /// Returns the input of the transaction.
    #[must_use]
    pub fn calldata(&self) -> Vec<u8> {
        Self::calldata_of(self.amount)
    }

    /// Returns the input of a transaction that approves this many atomic units of any token.
    #[must_use]
    pub fn calldata_of(amount: U256) -> Vec<u8> {
        const SELECTOR: [u8; 4] = hex!("095ea7b3");
        let spender = PERMIT2.into_word();
        [
            &SELECTOR[..],
            spender.as_slice(),
            &amount.to_be_bytes::<32>(),
        ]
        .concat()
    }

    /// Returns the hash that the account signs.
    #[must_use]
    pub fn digest(&self) -> B256 {
        keccak256(self.encode(None))
    }

    /// Returns the signed transaction, as `eth_sendRawTransaction` takes it, or `None` if the signature is not one of a key
    /// pair: 65 bytes, of which the last one is 27 or 28.
    #[must_use]
    pub fn signed(&self, signature: &Signature) -> Option<Vec<u8>> {
        let bytes: &[u8; 65] = signature.as_bytes().try_into().ok()?;
        let (scalars, [v]) = bytes.split_last_chunk::<1>()?;
        let odd = match v {
            27 => 0,
            28 => 1,
            _ => return None,
        };
        let (r, s) = scalars.split_at_checked(32)?;
        Some(self.encode(Some((odd, r, s))))
    }

    fn encode(&self, signature: Option<(u8, &[u8], &[u8])>) -> Vec<u8> {
        let terms = self.terms;
        let mut items = Vec::new();
        item(
            &mut items,
            &self.asset.network().chain_id().to_be_bytes(),
            true,
        );
        item(&mut items, &terms.nonce.to_be_bytes(), true);
        item(&mut items, &terms.max_priority_fee.to_be_bytes(), true);
        item(&mut items, &terms.max_fee.to_be_bytes(), true);
        item(&mut items, &terms.gas.to_be_bytes(), true);
        item(&mut items, self.asset.address().as_slice(), false);
        // No ether.
        item(&mut items, &[], true);
        item(&mut items, &self.calldata(), false);
        // An empty access list.
        prefix(&mut items, 0xc0, 0);
        if let Some((odd, r, s)) = signature {
            item(&mut items, &[odd], true);
            item(&mut items, r, true);
            item(&mut items, s, true);
        }
        let mut transaction = vec![TYPE];
        prefix(&mut transaction, 0xc0, items.len());
        transaction.extend(items);
        transaction
    }
}

/// Appends bytes in RLP. A number has no zeros in front.
fn item(to: &mut Vec<u8>, bytes: &[u8], is_number: bool) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bytes = match is_number {
        true => bytes.get(zeros..).unwrap_or_default(),
        false => bytes,
    };
    match bytes {
        [single @ ..=0x7f] => to.push(*single),
        bytes => {
            prefix(to, 0x80, bytes.len());
            to.extend(bytes);
        }
    }
}

/// Appends the kind and the length of an item or a list in RLP.
fn prefix(to: &mut Vec<u8>, kind: u8, length: usize) {
    let bytes = length.to_be_bytes();
    match u8::try_from(length) {
        Ok(length @ ..=55) => to.push(kind.saturating_add(length)),
        _ => {
            let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
            let digits = bytes.get(zeros..).unwrap_or_default();
            let count = u8::try_from(digits.len()).unwrap_or(u8::MAX);
            to.push(kind.saturating_add(55).saturating_add(count));
            to.extend(digits);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::{AssetRegistry, Network};

    #[test]
    fn an_approval_names_permit2_and_the_function_of_erc20() {
        let call = Approval::calldata_of(U256::from(5));
        assert_eq!(call[..4], keccak256("approve(address,uint256)")[..4]);
        assert_eq!(call[16..36], *PERMIT2.as_slice());
        assert_eq!((call.len(), call[67]), (68, 5));
    }

    #[test]
    fn only_a_signature_of_a_key_pair_makes_a_transaction() {
        let base = Network::from_chain_id(8453);
        let usdc = AssetRegistry::stablecoins().find_symbol(base, "USDC");
        let terms = TransactionTerms {
            nonce: 0,
            gas: 1,
            max_fee: 1,
            max_priority_fee: 0,
        };
        let approval = Approval::new(usdc.unwrap().clone(), U256::ZERO, terms);
        for (last, length, made) in [
            (27, 65, true),
            (28, 65, true),
            (0, 65, false),
            (27, 64, false),
        ] {
            let mut bytes = vec![1; length];
            bytes[length - 1] = last;
            assert_eq!(approval.signed(&Signature::new(bytes)).is_some(), made);
        }
    }
}
