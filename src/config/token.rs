//! Networks, tokens and amounts in a file.

use super::scalar::dollars;
use crate::limit::Amount;
use crate::money::{Asset, AssetRegistry, Network, ParseNetworkError, TokenAmount, parse_address};
use crate::text::{closest, excerpt};

/// Reads a name such as `base` or an identifier such as `eip155:8453`.
pub(super) fn network(name: &str) -> Result<Network, String> {
    name.parse()
        .map_err(|error: ParseNetworkError| error.to_string())
}

/// Reads `USDC@base` or `0x…@base`.
pub(super) fn asset(text: &str, assets: &AssetRegistry) -> Result<Asset, String> {
    let shown = excerpt(text);
    let Some((token, name)) = text.rsplit_once('@') else {
        return Err(format!(
            "`{shown}` is not a token; write one such as `USDC@base` or `0x…@base`"
        ));
    };
    let network = network(name)?;
    let found = match parse_address(token) {
        Some(address) => assets.find(network, address),
        None => assets.find_symbol(network, token),
    };
    found.cloned().ok_or_else(|| {
        let here = assets.iter().filter(|asset| asset.network() == network);
        let advice = match closest(token, here.map(Asset::symbol)) {
            Some(symbol) => format!("did you mean `{symbol}@{name}`?"),
            None => "add one with a [[token]] table".to_owned(),
        };
        format!("no token of the registry is `{shown}`; {advice}")
    })
}

/// Reads `0.10 USD`, `$0.10` or `2.5 EURC@base`.
pub(super) fn amount(text: &str, assets: &AssetRegistry) -> Result<Amount, String> {
    if let Some(dollars) = dollars(text) {
        return dollars.map(Amount::Usd);
    }
    let shown = excerpt(text);
    let Some((decimal, token)) = text.split_once(' ') else {
        return Err(format!(
            "`{shown}` has no currency; write it like `0.10 USD` or `2.5 EURC@base`"
        ));
    };
    let asset = asset(token, assets)?;
    let decimals = asset.decimals();
    let amount = TokenAmount::parse(decimal, asset);
    amount
        .map(Amount::Token)
        .ok_or_else(|| format!("`{shown}` is not an amount of a token with {decimals} decimals"))
}
