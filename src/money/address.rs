//! Addresses as text, with the mixed-case checksum of EIP-55.
//!
//! A checksum takes a hash. A client writes the same few addresses again and again, so each thread
//! keeps the last ones that it wrote.

use std::cell::RefCell;

use alloy::primitives::Address;

const SLOTS: usize = 16;

thread_local! {
    static RECENT: RefCell<[Option<(Address, String)>; SLOTS]> = const { RefCell::new([const { None }; SLOTS]) };
}

/// Returns the address with its checksum.
pub(crate) fn checksummed(address: Address) -> String {
    let place = address
        .as_slice()
        .last()
        .map_or(0, |byte| usize::from(*byte) % SLOTS);
    RECENT.with_borrow_mut(|recent| match recent.get_mut(place) {
        Some(Some((known, text))) if *known == address => text.clone(),
        place => {
            let text = address.to_checksum(None);
            if let Some(place) = place {
                *place = Some((address, text.clone()));
            }
            text
        }
    })
}

/// Reads an address in one case, or in mixed case with a correct checksum (EIP-55).
pub(crate) fn parse_address(written: &str) -> Option<Address> {
    let digits = written.strip_prefix("0x")?;
    let address: Address = written.parse().ok()?;
    let one_case = !digits.bytes().any(|byte| byte.is_ascii_uppercase())
        || !digits.bytes().any(|byte| byte.is_ascii_lowercase());
    (one_case || checksummed(address) == written).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_with_the_same_slot_are_not_confused() {
        let in_one_slot = |first: u8| {
            let mut bytes = [first; 20];
            bytes[19] = 7;
            Address::from(bytes)
        };
        let addresses = [0xa0, 0xb1, 0xc2].map(in_one_slot);
        for address in addresses
            .iter()
            .chain(&addresses)
            .flat_map(|address| [address, address])
        {
            assert_eq!(checksummed(*address), address.to_checksum(None));
        }
    }
}
