//! The challenge of a seller: a text that is signed has the lines of EIP-4361 and no others, for the origin that asked.

#![no_main]

use bursar::{Url, fuzzing};
use libfuzzer_sys::fuzz_target;

/// The labels of the lines after the statement, in their order. The first four are in every text.
const LABELS: [&str; 9] = [
    "URI: ",
    "Version: 1",
    "Chain ID: ",
    "Nonce: ",
    "Issued At: ",
    "Expiration Time: ",
    "Not Before: ",
    "Request ID: ",
    "Resources:",
];

fuzz_target!(|declared: &str| {
    let url: Url = "https://api.example.com/premium-data?day=1"
        .parse()
        .expect("a URL");
    let Some(message) = fuzzing::sign_in(declared, &url) else {
        return;
    };
    assert_eq!(message.domain(), "api.example.com");
    let uri: Url = message.uri().parse().expect("the URL of a challenge");
    assert_eq!(uri.origin(), url.origin());
    let text = message.text();
    assert!(
        text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)),
        "{text:?}"
    );
    let mut lines = text.split('\n');
    let mut next = || lines.next().expect("a line");
    assert_eq!(
        next(),
        "api.example.com wants you to sign in with your Ethereum account:"
    );
    assert_eq!(next(), message.address().to_checksum(None));
    assert_eq!(next(), "");
    if let Some(statement) = message.statement() {
        assert_eq!(next(), statement);
    }
    assert_eq!(next(), "");
    let mut labels = LABELS.iter();
    let mut count = 0;
    for line in lines.by_ref() {
        let label = labels.find(|label| line.starts_with(**label));
        let label = label.unwrap_or_else(|| panic!("{line:?} is out of place in {text:?}"));
        count += 1;
        assert!(count > 5 || *label == LABELS[count - 1], "{text:?}");
        if *label == "Resources:" {
            break;
        }
    }
    assert!(count >= 5, "{text:?}");
    assert!(lines.all(|line| line.starts_with("- ")), "{text:?}");
});
