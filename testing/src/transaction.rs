//! Signed transactions, as a node takes them: EIP-1559 alone, and of these the approvals of Permit2.

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::typed_data::recover;

/// The selector of `approve(address,uint256)`.
const APPROVE: [u8; 4] = [0x09, 0x5e, 0xa7, 0xb3];
/// The number of fields of a signed transaction, and of the fields that are signed.
const FIELDS: (usize, usize) = (12, 9);

/// A signed transaction of EIP-1559.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transaction {
    pub(crate) hash: B256,
    pub(crate) from: Address,
    pub(crate) chain_id: u64,
    pub(crate) nonce: u64,
    pub(crate) to: Address,
    pub(crate) data: Vec<u8>,
}

impl Transaction {
    /// Reads a transaction and recovers its sender.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let (2, list) = bytes.split_first()? else {
            return None;
        };
        let (list, []) = Item::read(list)? else {
            return None;
        };
        let fields = list.items()?;
        let (count, signed) = FIELDS;
        if fields.len() != count {
            return None;
        }
        let number = |index: usize| fields.get(index)?.number();
        let bytes_of = |index: usize| fields.get(index).map(|field| field.content);
        let mut signature = Vec::new();
        for index in [10, 11] {
            signature.extend(number(index)?.to_be_bytes::<32>());
        }
        signature.push(27_u8.checked_add(u8::try_from(number(9)?).ok()?)?);
        // The signed bytes are the same fields in a list of their own.
        let whole: usize = fields.iter().map(|field| field.whole.len()).sum();
        let unsigned: usize = fields
            .iter()
            .take(signed)
            .map(|field| field.whole.len())
            .sum();
        debug_assert_eq!(whole, list.content.len());
        let digest = keccak256([&[2][..], &list_of(list.content.get(..unsigned)?)].concat());
        Some(Self {
            hash: keccak256(bytes),
            from: recover(digest, signature.as_slice().try_into().ok()?)?,
            chain_id: number(0)?.try_into().ok()?,
            nonce: number(1)?.try_into().ok()?,
            to: Address::try_from(bytes_of(5)?).ok()?,
            data: bytes_of(7)?.to_vec(),
        })
    }

    /// Returns the spender and the amount, if it is an approval of a token.
    pub(crate) fn approval(&self) -> Option<(Address, U256)> {
        let (selector, words) = self.data.split_first_chunk::<4>()?;
        let (spender, amount) = words.split_first_chunk::<32>()?;
        let amount: [u8; 32] = amount.try_into().ok()?;
        (*selector == APPROVE).then(|| {
            let spender = Address::from_word(B256::from(spender));
            (spender, U256::from_be_bytes(amount))
        })
    }
}

/// An item of RLP: a string or a list.
#[derive(Clone, Copy)]
struct Item<'a> {
    is_list: bool,
    content: &'a [u8],
    /// The content with its prefix.
    whole: &'a [u8],
}

impl<'a> Item<'a> {
    /// Reads one item. Returns it and the bytes after it.
    fn read(input: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let (&first, after) = input.split_first()?;
        let (is_list, header, length) = match first {
            0..0x80 => (false, 0, 1),
            0x80..0xb8 => (false, 1, usize::from(first.checked_sub(0x80)?)),
            0xc0..0xf8 => (true, 1, usize::from(first.checked_sub(0xc0)?)),
            long => {
                let is_list = long >= 0xf8;
                let digits = long.checked_sub(if is_list { 0xf7 } else { 0xb7 })?;
                let digits = after.get(..usize::from(digits))?;
                let length = usize::try_from(number(digits)?).ok()?;
                (is_list, digits.len().checked_add(1)?, length)
            }
        };
        let (whole, rest) = input.split_at_checked(header.checked_add(length)?)?;
        let content = whole.get(header..)?;
        let item = Self {
            is_list,
            content,
            whole,
        };
        Some((item, rest))
    }

    /// Returns the items of a list.
    fn items(self) -> Option<Vec<Self>> {
        let mut items = Vec::new();
        let mut rest = self.is_list.then_some(self.content)?;
        while !rest.is_empty() {
            let (item, after) = Self::read(rest)?;
            items.push(item);
            rest = after;
        }
        Some(items)
    }

    fn number(self) -> Option<U256> {
        (!self.is_list).then(|| number(self.content))?
    }
}

fn number(digits: &[u8]) -> Option<U256> {
    (digits.len() <= 32).then(|| U256::from_be_slice(digits))
}

/// Returns a list with this content.
fn list_of(content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut list = match u8::try_from(length) {
        Ok(short @ 0..56) => vec![0xc0_u8.saturating_add(short)],
        _ => {
            let digits = length.to_be_bytes();
            let zeros = digits.iter().take_while(|digit| **digit == 0).count();
            let digits = digits.get(zeros..).unwrap_or_default();
            let count = u8::try_from(digits.len()).unwrap_or_default();
            [&[0xf7_u8.saturating_add(count)], digits].concat()
        }
    };
    list.extend(content);
    list
}
