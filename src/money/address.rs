//! Addresses in mixed case (EIP-55), kept for those met last: each takes a hash, and a seller's are the same
//! in every purchase.

use std::cell::RefCell;

use alloy::primitives::Address;

const KEPT: usize = 16;

thread_local! {
    static MET: RefCell<[Option<(Address, String)>; KEPT]> = const { RefCell::new([const { None }; KEPT]) };
}

/// The address with its checksum.
pub(crate) fn checksummed(address: Address) -> String {
    let place = address
        .as_slice()
        .last()
        .map_or(0, |byte| usize::from(*byte) % KEPT);
    MET.with_borrow_mut(|met| match met.get_mut(place) {
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

/// An address in one case, or in mixed case with a right checksum (EIP-55).
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
    fn addresses_do_not_take_each_others_place() {
        let in_one_place = |first: u8| {
            let mut bytes = [first; 20];
            bytes[19] = 7;
            Address::from(bytes)
        };
        let addresses = [0xa0, 0xb1, 0xc2].map(in_one_place);
        for address in addresses
            .iter()
            .chain(&addresses)
            .flat_map(|address| [address, address])
        {
            assert_eq!(checksummed(*address), address.to_checksum(None));
        }
    }
}
