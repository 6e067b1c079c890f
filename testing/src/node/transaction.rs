//! The one transaction that the simulated chain takes: `approve` of Permit2, signed by its sender.

use alloy::primitives::{Address, B256, U256, keccak256};

use crate::chain::{Chain, Token};
use crate::permit::PERMIT2;
use crate::typed_data::recover;
use bursar::Network;

/// The type of an EIP-1559 transaction.
const TYPE: u8 = 2;

/// Runs a signed transaction, and returns its hash. The error is the message of a node.
pub(super) fn run(chain: &mut Chain, network: Network, raw: &[u8]) -> Result<B256, &'static str> {
    let hash = keccak256(raw);
    if chain.approvals.contains_key(&hash) {
        return Err("already known");
    }
    let (kind, list) = raw.split_first().ok_or("empty transaction")?;
    let items = list_of(list).ok_or("rlp: not a transaction")?;
    let [
        id,
        nonce,
        _tip,
        _fee,
        gas,
        to,
        value,
        data,
        access,
        odd,
        r,
        s,
    ] = items.as_slice()
    else {
        return Err("rlp: wrong number of fields");
    };
    if *kind != TYPE || number(id) != U256::from(network.chain_id()) {
        return Err("invalid chain id for signer");
    }
    // The transaction without its signature, with a header of its own.
    let signature = [odd, r, s].map(|item| item.encoded).concat();
    let unsigned: Vec<u8> = items
        .iter()
        .take(9)
        .flat_map(|item| item.encoded)
        .copied()
        .collect();
    let message = [&[TYPE][..], &header(unsigned.len()), &unsigned].concat();
    debug_assert!(list.ends_with(&signature));
    let mut bytes = [0; 65];
    let parts = [number(r).to_be_bytes::<32>(), number(s).to_be_bytes::<32>()].concat();
    bytes
        .iter_mut()
        .zip(parts)
        .for_each(|(to, from)| *to = from);
    bytes[64] = if number(odd).is_zero() { 27 } else { 28 };
    let sender = recover(keccak256(message), &bytes).ok_or("invalid sender")?;
    let sent = chain.sent.entry((network, sender)).or_default();
    if number(nonce) != U256::from(*sent) {
        return Err("nonce too low");
    }
    let amount = amount(data.content).ok_or("execution reverted")?;
    let contract = Address::try_from(to.content).map_err(|_| "invalid recipient")?;
    if !number(value).is_zero() || !access.content.is_empty() || number(gas) < U256::from(50_000) {
        return Err("intrinsic gas too low");
    }
    *sent = sent.saturating_add(1);
    let token = Token { network, contract };
    chain.token_allowances.insert((token, sender), amount);
    chain.approvals.insert(hash, network);
    Ok(hash)
}

/// Returns the amount of a call `approve(PERMIT2, amount)`.
fn amount(data: &[u8]) -> Option<U256> {
    let (selector, rest) = data.split_first_chunk::<4>()?;
    let (spender, amount) = rest.split_first_chunk::<32>()?;
    let approves = keccak256("approve(address,uint256)").starts_with(selector)
        && *spender == PERMIT2.into_word().0;
    approves.then_some(U256::from_be_bytes(<[u8; 32]>::try_from(amount).ok()?))
}

/// An item of a list in RLP.
struct Item<'a> {
    content: &'a [u8],
    /// With its header.
    encoded: &'a [u8],
}

fn number(item: &Item<'_>) -> U256 {
    U256::try_from_be_slice(item.content).unwrap_or(U256::MAX)
}

/// Returns the items of a list that fills the bytes.
fn list_of(bytes: &[u8]) -> Option<Vec<Item<'_>>> {
    let (mut rest, after) = take(bytes, 0xc0)?;
    let mut items = Vec::new();
    while !rest.is_empty() {
        let kind = if *rest.first()? >= 0xc0 { 0xc0 } else { 0x80 };
        let (content, next) = take(rest, kind)?;
        let length = rest.len().checked_sub(next.len())?;
        items.push(Item {
            content,
            encoded: rest.get(..length)?,
        });
        rest = next;
    }
    after.is_empty().then_some(items)
}

/// Returns the content of the first item, and the bytes after it.
fn take(bytes: &[u8], kind: u8) -> Option<(&[u8], &[u8])> {
    let first = *bytes.first()?;
    if first < 0x80 {
        return bytes.split_at_checked(1);
    }
    let short = first.checked_sub(kind)?;
    let (start, length) = match short {
        0..=55 => (1, usize::from(short)),
        _ => {
            let digits = usize::from(short.checked_sub(55)?);
            let start = digits.checked_add(1)?;
            let length = U256::try_from_be_slice(bytes.get(1..start)?)?;
            (start, usize::try_from(length).ok()?)
        }
    };
    bytes.get(start..)?.split_at_checked(length)
}

/// Returns the header of a list.
fn header(length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(length @ ..=55) => vec![length.saturating_add(0xc0)],
        Ok(length) => vec![0xf8, length],
        Err(_) => [
            &[0xf9][..],
            &u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes(),
        ]
        .concat(),
    }
}
