//! Names of EIP-3009, ERC-20, EIP-2612 and Permit2 on the chain.

use alloy::primitives::{Address, B256, b256, hex, keccak256};

/// `keccak256("AuthorizationUsed(address,bytes32)")`.
pub(super) const AUTHORIZATION_USED: B256 =
    b256!("98de503528ee59b575ef0c0a2576a82497bfc029a5685b209e9ec333479b10a5");
/// `keccak256("AuthorizationCanceled(address,bytes32)")`.
pub(super) const AUTHORIZATION_CANCELED: B256 =
    b256!("1cdd46ff242716cdaa72d159d339a485b3438398348d68f09d7c8c0a59353d81");
/// `keccak256("Transfer(address,address,uint256)")`.
pub(super) const TRANSFER: B256 =
    b256!("ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef");

/// Returns the input of the call `authorizationState(address,bytes32)` in hexadecimal.
pub(super) fn authorization_state(authorizer: Address, nonce: B256) -> String {
    const SELECTOR: [u8; 4] = hex!("e94a0102");
    hex::encode_prefixed(
        [
            &SELECTOR[..],
            authorizer.into_word().as_slice(),
            nonce.as_slice(),
        ]
        .concat(),
    )
}

/// Returns the input of the call `balanceOf(address)` in hexadecimal.
pub(super) fn balance_of(owner: Address) -> String {
    const SELECTOR: [u8; 4] = hex!("70a08231");
    hex::encode_prefixed([&SELECTOR[..], owner.into_word().as_slice()].concat())
}

/// Returns the input of the call `allowance(address,address)` in hexadecimal.
pub(super) fn allowance(owner: Address, spender: Address) -> String {
    const SELECTOR: [u8; 4] = hex!("dd62ed3e");
    let [owner, spender] = [owner, spender].map(|address| address.into_word());
    hex::encode_prefixed([&SELECTOR[..], owner.as_slice(), spender.as_slice()].concat())
}

/// Returns the input of the call `nonces(address)` in hexadecimal.
pub(super) fn nonces(owner: Address) -> String {
    const SELECTOR: [u8; 4] = hex!("7ecebe00");
    hex::encode_prefixed([&SELECTOR[..], owner.into_word().as_slice()].concat())
}

/// Returns the input of the call `nonceBitmap(address,uint256)` in hexadecimal: the word that has the bit of this nonce.
pub(super) fn nonce_bitmap(owner: Address, nonce: B256) -> String {
    const SELECTOR: [u8; 4] = hex!("4fe02b44");
    let [word @ .., _] = nonce.0;
    hex::encode_prefixed(
        [
            &SELECTOR[..],
            owner.into_word().as_slice(),
            &[0],
            word.as_slice(),
        ]
        .concat(),
    )
}

/// Returns a control nonce, for which no signature of the payer can exist.
pub(super) fn control(nonce: B256) -> B256 {
    keccak256([b"bursar control".as_slice(), nonce.as_slice()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_constants_are_the_hashes_of_their_texts() {
        assert_eq!(
            keccak256("AuthorizationUsed(address,bytes32)"),
            AUTHORIZATION_USED
        );
        assert_eq!(
            keccak256("AuthorizationCanceled(address,bytes32)"),
            AUTHORIZATION_CANCELED
        );
        assert_eq!(keccak256("Transfer(address,address,uint256)"), TRANSFER);
        let selector = hex::encode_prefixed(&keccak256("authorizationState(address,bytes32)")[..4]);
        assert!(authorization_state(Address::ZERO, B256::ZERO).starts_with(&selector));
        let selector = hex::encode_prefixed(&keccak256("allowance(address,address)")[..4]);
        let call = allowance(Address::repeat_byte(1), Address::repeat_byte(2));
        assert!(call.starts_with(&selector) && call.ends_with(&"02".repeat(20)));
        let selector = hex::encode_prefixed(&keccak256("nonces(address)")[..4]);
        assert!(nonces(Address::ZERO).starts_with(&selector));
        let selector = hex::encode_prefixed(&keccak256("nonceBitmap(address,uint256)")[..4]);
        let call = nonce_bitmap(Address::ZERO, B256::repeat_byte(0xab));
        assert!(call.starts_with(&selector));
        assert!(call.ends_with(&format!("00{}", "ab".repeat(31))));
        let selector = hex::encode_prefixed(&keccak256("balanceOf(address)")[..4]);
        assert!(balance_of(Address::ZERO).starts_with(&selector));
    }
}
