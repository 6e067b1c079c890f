//! Keystore files: refused or opened, and no error repeats what is in them.

#![no_main]

use bursar::fuzzing;
use bursar::secrecy::SecretString;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Some(opened) = fuzzing::keystore(text, &SecretString::from("testpassword")) else {
        return;
    };
    match opened {
        Ok(signer) => assert!(!fuzzing::has_long_hex(&format!("{signer:?}"))),
        Err(error) => assert!(!fuzzing::has_hex_of(60, &error.to_string()), "{error}"),
    }
});
