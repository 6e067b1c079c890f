//! The payment header that the books keep and read back.

#![no_main]

use bursar::fuzzing;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = str::from_utf8(data) {
        let _ = fuzzing::payment(text);
    }
    let Some((to, _, valid_before)) = fuzzing::payment(&fuzzing::header(data)) else {
        return;
    };
    // What nests deeper than `Value` reads has only unknown fields so deep.
    let Ok(json) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let text = |field: &str| {
        json.pointer(&format!("/payload/authorization/{field}"))
            .and_then(Value::as_str)
            .expect("a string")
    };
    assert_eq!(text("to").parse().ok(), Some(to));
    assert_eq!(text("validBefore").parse().ok(), Some(valid_before));
});
