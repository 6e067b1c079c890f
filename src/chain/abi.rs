//! The few words of EIP-3009 and ERC-20 that are read, and the answers to them.

use alloy::primitives::{Address, B256, U256, b256, hex};
use serde_json::Value;

/// Selector of `authorizationState(address,bytes32)`.
const AUTHORIZATION_STATE: [u8; 4] = [0xe9, 0x4a, 0x01, 0x02];
/// `keccak256("AuthorizationUsed(address,bytes32)")`.
pub(super) const AUTHORIZATION_USED: B256 = b256!("98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");
/// `keccak256("AuthorizationCanceled(address,bytes32)")`.
pub(super) const AUTHORIZATION_CANCELED: B256 =
    b256!("1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81");
/// `keccak256("Transfer(address,address,uint256)")`.
const TRANSFER: B256 = b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Calldata of `authorizationState(payer, nonce)`.
pub(super) fn authorization_state(payer: Address, nonce: B256) -> String {
    let words = [payer.into_word(), nonce];
    let call: Vec<u8> = AUTHORIZATION_STATE.into_iter().chain(words.iter().flat_map(|word| word.0)).collect();
    hex::encode_prefixed(call)
}

/// A `bool` of 32 bytes, and nothing else: an answer of another contract, or of none, is no answer.
pub(super) fn flag(answer: &Value) -> Option<bool> {
    match word(answer)? {
        word if word == U256::ZERO => Some(false),
        word if word == U256::ONE => Some(true),
        _ => None,
    }
}

/// Exactly 32 bytes.
pub(super) fn word(answer: &Value) -> Option<U256> {
    let hash: B256 = hash(answer)?;
    Some(hash.into())
}

pub(super) fn hash(value: &Value) -> Option<B256> {
    let digits = value.as_str()?.strip_prefix("0x")?;
    if digits.len() == 64 { digits.parse().ok() } else { None }
}

/// A JSON-RPC quantity, such as `0x1b4`.
pub(super) fn quantity(value: &Value) -> Option<u64> {
    let digits = value.as_str()?.strip_prefix("0x")?;
    let canonical = !digits.starts_with('+') && digits.len() <= 16;
    if canonical { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// A log of a transaction.
pub(super) struct Log {
    contract: Address,
    topics: Vec<B256>,
    data: Value,
    /// The block and the transaction, where the log says so.
    pub(super) block: Option<u64>,
    pub(super) transaction: Option<B256>,
}

impl Log {
    pub(super) fn read(log: &Value) -> Option<Self> {
        if log.get("removed").and_then(Value::as_bool) == Some(true) {
            return None;
        }
        let topics = log.get("topics")?.as_array()?.iter().map(hash).collect::<Option<_>>()?;
        Some(Self {
            contract: log.get("address")?.as_str()?.parse().ok()?,
            topics,
            data: log.get("data")?.clone(),
            block: log.get("blockNumber").and_then(quantity),
            transaction: log.get("transactionHash").and_then(hash),
        })
    }

    pub(super) fn is_use(&self, asset: Address, payer: Address, nonce: B256) -> bool {
        self.is(asset, &[AUTHORIZATION_USED, payer.into_word(), nonce])
    }

    pub(super) fn is_cancellation(&self, asset: Address, payer: Address, nonce: B256) -> bool {
        self.is(asset, &[AUTHORIZATION_CANCELED, payer.into_word(), nonce])
    }

    /// What was moved from payer to payee, if this is such a transfer.
    pub(super) fn transfer(&self, asset: Address, payer: Address, payee: Address) -> Option<U256> {
        self.is(asset, &[TRANSFER, payer.into_word(), payee.into_word()]).then(|| word(&self.data)).flatten()
    }

    fn is(&self, asset: Address, topics: &[B256]) -> bool {
        self.contract == asset && self.topics == topics
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::keccak256;
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hashes_are_those_of_the_signatures() {
        assert_eq!(keccak256("AuthorizationUsed(address,bytes32)"), AUTHORIZATION_USED);
        assert_eq!(keccak256("AuthorizationCanceled(address,bytes32)"), AUTHORIZATION_CANCELED);
        assert_eq!(keccak256("Transfer(address,address,uint256)"), TRANSFER);
        assert_eq!(keccak256("authorizationState(address,bytes32)")[..4], AUTHORIZATION_STATE);
    }

    #[test]
    fn only_one_and_zero_are_flags() {
        let word = |last: &str| json!(format!("0x{}{last}", "0".repeat(62)));
        assert_eq!(flag(&word("00")), Some(false));
        assert_eq!(flag(&word("01")), Some(true));
        for other in [word("02"), json!("0x"), json!("0x00"), json!("0x01"), json!(true), json!(null)] {
            assert_eq!(flag(&other), None, "{other}");
        }
    }

    #[test]
    fn quantities_are_hexadecimal_and_fit() {
        assert_eq!(quantity(&json!("0x1b4")), Some(436));
        for other in [json!("1b4"), json!("0x"), json!("0x+1"), json!(436), json!("0x10000000000000000")] {
            assert_eq!(quantity(&other), None, "{other}");
        }
    }
}
