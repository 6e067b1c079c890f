//! The values of Ethereum's JSON-RPC: numbers and bytes in hexadecimal.

use alloy::primitives::{Address, B256, U256, hex};
use serde::{Deserialize, Deserializer, de};

/// A number: `0x` and up to 16 digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Quantity(pub(super) u64);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text
            .strip_prefix("0x")
            .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number
            .map(Self)
            .ok_or_else(|| de::Error::custom("not a number"))
    }
}

/// Bytes of any length.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = text
            .strip_prefix("0x")
            .and_then(|digits| hex::decode(digits).ok());
        bytes
            .map(Self)
            .ok_or_else(|| de::Error::custom("not bytes"))
    }
}

impl Bytes {
    /// Reads the bit of a nonce in the word of Permit2's bitmap that has it: exactly one word.
    pub(super) fn as_bit(&self, nonce: B256) -> Option<bool> {
        let word: [u8; 32] = self.0.as_slice().try_into().ok()?;
        let [.., bit] = nonce.0;
        Some(U256::from_be_bytes(word).bit(usize::from(bit)))
    }

    /// Reads a Solidity `bool`: exactly one word, zero or one.
    pub(super) fn as_bool(&self) -> Option<bool> {
        let word: [u8; 32] = self.0.as_slice().try_into().ok()?;
        let (last, zeros) = word.split_last()?;
        (*last <= 1 && zeros.iter().all(|byte| *byte == 0)).then_some(*last == 1)
    }
}

fn hash<'de, D: Deserializer<'de>>(deserializer: D) -> Result<B256, D::Error> {
    let Bytes(bytes) = Bytes::deserialize(deserializer)?;
    B256::try_from(bytes.as_slice()).map_err(|_| de::Error::custom("not 32 bytes"))
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    let Bytes(bytes) = Bytes::deserialize(deserializer)?;
    Address::try_from(bytes.as_slice()).map_err(|_| de::Error::custom("not 20 bytes"))
}

fn hashes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<B256>, D::Error> {
    let topics = Vec::<Bytes>::deserialize(deserializer)?;
    let topic = |Bytes(bytes): Bytes| B256::try_from(bytes.as_slice());
    topics
        .into_iter()
        .map(topic)
        .collect::<Result<_, _>>()
        .map_err(|_| de::Error::custom("not 32 bytes"))
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Block {
    pub(super) number: Quantity,
    #[serde(deserialize_with = "hash")]
    pub(super) hash: B256,
    pub(super) timestamp: Quantity,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receipt {
    #[serde(deserialize_with = "hash")]
    pub(super) transaction_hash: B256,
    #[serde(deserialize_with = "hash")]
    pub(super) block_hash: B256,
    pub(super) block_number: Quantity,
    pub(super) status: Quantity,
    pub(super) logs: Vec<Log>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Log {
    #[serde(deserialize_with = "address")]
    pub(super) address: Address,
    #[serde(deserialize_with = "hashes")]
    pub(super) topics: Vec<B256>,
    pub(super) data: Bytes,
    #[serde(deserialize_with = "hash")]
    pub(super) transaction_hash: B256,
    #[serde(deserialize_with = "hash")]
    pub(super) block_hash: B256,
    pub(super) block_number: Quantity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_word_of_zero_or_one_is_a_bool() {
        let word = |last: u8| {
            let mut word = vec![0; 32];
            word[31] = last;
            Bytes(word)
        };
        assert_eq!(
            (word(0).as_bool(), word(1).as_bool(), word(2).as_bool()),
            (Some(false), Some(true), None)
        );
        let mut high = word(1);
        high.0[0] = 1;
        for wrong in [
            high,
            Bytes(Vec::new()),
            Bytes(vec![0; 31]),
            Bytes(vec![0; 64]),
        ] {
            assert_eq!(wrong.as_bool(), None, "{wrong:?}");
        }
    }

    #[test]
    fn the_lowest_byte_of_a_nonce_is_its_bit() {
        let mut word = [0; 32];
        word[31] = 0b10;
        word[0] = 0x80;
        let word = Bytes(word.to_vec());
        for (last, set) in [(0, false), (1, true), (2, false), (254, false), (255, true)] {
            let mut nonce = B256::repeat_byte(9);
            nonce.0[31] = last;
            assert_eq!(word.as_bit(nonce), Some(set), "{last}");
        }
        assert_eq!(Bytes(vec![1; 31]).as_bit(B256::ZERO), None);
        assert_eq!(Bytes(Vec::new()).as_bit(B256::ZERO), None);
    }

    #[test]
    fn only_hexadecimal_text_is_a_number() {
        let read = |json: &str| {
            serde_json::from_str::<Quantity>(json)
                .ok()
                .map(|Quantity(number)| number)
        };
        assert_eq!(read("\"0x10\""), Some(16));
        for wrong in [
            "\"0x\"",
            "\"0x+1\"",
            "\"10\"",
            "16",
            "null",
            "\"0x10000000000000000\"",
            "\"0xg\"",
        ] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
