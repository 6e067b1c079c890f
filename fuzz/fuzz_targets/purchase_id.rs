//! Purchase ids: 1 to 128 printable characters, kept as they are.

#![no_main]

use bursar::PurchaseId;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let good =
        (1..=128).contains(&text.len()) && text.bytes().all(|byte| (b'!'..=b'~').contains(&byte));
    let id = text.parse::<PurchaseId>();
    assert_eq!(id.is_ok(), good, "{text}");
    if let Ok(id) = id {
        assert_eq!((id.as_str(), id.to_string().as_str()), (text, text));
    }
});
