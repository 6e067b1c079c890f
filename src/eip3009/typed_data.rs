//! EIP-712 encoding of the messages of EIP-3009.

use alloy::primitives::{B256, keccak256};
use serde_json::{Value, json};

use crate::money::Asset;

/// Returns `keccak256("\x19\x01" ‖ domainSeparator ‖ hashStruct(message))`.
pub(super) fn digest(asset: &Asset, struct_hash: B256) -> B256 {
    typed_digest(asset.domain_separator(), struct_hash)
}

/// Returns the digest of a message in any domain.
pub(crate) fn typed_digest(domain_separator: B256, struct_hash: B256) -> B256 {
    let mut message = [0_u8; 66];
    let (prefix, rest) = message.split_at_mut(2);
    let (domain, content) = rest.split_at_mut(32);
    prefix.copy_from_slice(&[0x19, 0x01]);
    domain.copy_from_slice(domain_separator.as_slice());
    content.copy_from_slice(struct_hash.as_slice());
    keccak256(message)
}

/// Returns the JSON parameter of `eth_signTypedData_v4`. `members` are the names and types of the
/// message, in the order of its type.
pub(crate) fn json(
    asset: &Asset,
    primary: &str,
    members: &[(&str, &str)],
    message: &Value,
) -> String {
    let fields = |members: &[(&str, &str)]| -> Vec<Value> {
        members
            .iter()
            .map(|(name, kind)| json!({ "name": name, "type": kind }))
            .collect()
    };
    let domain = [
        ("name", "string"),
        ("version", "string"),
        ("chainId", "uint256"),
        ("verifyingContract", "address"),
    ];
    json!({
        "types": { "EIP712Domain": fields(&domain), primary: fields(members) },
        "primaryType": primary,
        "domain": {
            "name": asset.eip712_name(),
            "version": asset.eip712_version(),
            "chainId": asset.network().chain_id(),
            "verifyingContract": asset.address().to_checksum(None),
        },
        "message": message,
    })
    .to_string()
}
