//! Dollars: what is read is shown the same, to the micro-dollar.

#![no_main]

use bursar::Usd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(amount) = text.parse::<Usd>() else {
        return;
    };
    assert!(amount <= Usd::MAX);
    assert_eq!(amount.to_string().parse(), Ok(amount));
    assert_eq!(reckon(text), Some(u128::from(amount.micros())), "{text}");
});

/// The same by hand: digits and a fraction of at most six places.
fn reckon(text: &str) -> Option<u128> {
    let text = text.trim();
    let text = text.strip_prefix('$').unwrap_or(text);
    let text = text.strip_suffix(" USD").unwrap_or(text);
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    format!("{whole}{fraction:0<6}").parse().ok()
}
