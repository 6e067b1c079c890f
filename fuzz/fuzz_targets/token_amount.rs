//! Amounts of tokens of any number of decimals: read, shown and read again the same.

#![no_main]

use bursar::primitives::U256;
use bursar::{Address, Asset, Network, TokenAmount, Usd};
use libfuzzer_sys::fuzz_target;

// A number of decimals and an amount, with a space between.
fuzz_target!(|input: &str| {
    let Some((decimals, text)) = input.split_once(' ') else {
        return;
    };
    let Ok(decimals) = decimals.parse() else {
        return;
    };
    let token = Asset::new(
        Network::from_chain_id(1),
        Address::ZERO,
        "T",
        decimals,
        "T",
        "1",
    )
    .pegged_to_dollar();
    let Some(amount) = TokenAmount::parse(text, token.clone()) else {
        return;
    };
    let shown = token.format_units(amount.units());
    assert_eq!(
        TokenAmount::parse(&shown, token.clone()).as_ref(),
        Some(&amount),
        "{text} {shown}"
    );
    assert!(
        shown.trim_start_matches('0').len() <= text.trim_start_matches('0').len() + 1,
        "{text} {shown}"
    );
    assert!(amount.to_string().ends_with(" T"));
    if let Some(dollars) = amount.dollars() {
        check_rounding(decimals, amount.units(), dollars);
    }
});

/// Dollars are never less than the tokens' worth, and by less than a micro-dollar more.
fn check_rounding(decimals: u8, units: U256, dollars: Usd) {
    let micros = U256::from(dollars.micros());
    let ten = U256::from(10);
    if decimals <= 6 {
        assert_eq!(micros, units * ten.pow(U256::from(6 - decimals)));
    } else if let Some(unit) = ten.checked_pow(U256::from(decimals - 6)) {
        let worth = micros
            .checked_mul(unit)
            .expect("a micro-dollar's units fit where these do");
        assert!(worth >= units && worth - units < unit);
    }
}
