//! Text from strangers: short, without long hexadecimal, nothing that moves a cursor.

#![no_main]

use bursar::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let shown = fuzzing::excerpt(text);
    assert!(
        shown.chars().count() <= 161,
        "{} characters",
        shown.chars().count()
    );
    assert!(!fuzzing::has_long_hex(&shown), "{shown}");
    assert!(
        !shown
            .chars()
            .any(|character| character.is_control()
                || ('\u{200b}'..='\u{200f}').contains(&character))
    );
    if !text
        .chars()
        .any(|character| !matches!(character, ' '..='~'))
        && text.len() <= 64
    {
        assert_eq!(shown, text);
    }
});
