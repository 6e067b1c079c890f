//! The tokens and addresses of the tests.

use bursar::money::AssetRegistry;
use bursar::{Address, Asset, Network, TokenAmount};

pub fn base() -> Network {
    "base".parse().unwrap()
}

/// Returns USDC on a network.
pub fn usdc(network: &str) -> Asset {
    AssetRegistry::stablecoins()
        .find_symbol(network.parse().unwrap(), "USDC")
        .unwrap()
        .clone()
}

/// Returns a token on Base that has no dollar value.
pub fn euro() -> Asset {
    let address = "0x60a3E35Cc302bFA44Cb288Bc5a4F316Fdb1adb42";
    Asset::new(base(), address.parse().unwrap(), "EURC", 6, "EURC", "2")
}

/// Returns an amount of [`euro`].
pub fn euros(decimal: &str) -> TokenAmount {
    TokenAmount::parse(decimal, euro()).unwrap()
}

/// Returns an address of 20 equal bytes.
pub fn payee(byte: u8) -> Address {
    Address::repeat_byte(byte)
}
