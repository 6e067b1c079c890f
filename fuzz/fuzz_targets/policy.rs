//! Policy files: a file that is accepted can be checked and explained.

#![no_main]

use bursar::{Policy, PurchaseRequest, Timestamp, usd};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let policy = match Policy::from_toml(text) {
        Ok(policy) => policy,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    drop(policy.check());
    drop(format!("{policy:?}"));
    let url = "https://api.example.com/report?x=1";
    let request = PurchaseRequest::new("GET", url, b"").expect("a request");
    for now in [0, 1_800_000_000, u64::MAX] {
        let Some(explanation) =
            policy.explain(&request, usd!("0.01"), None, Timestamp::from_secs(now))
        else {
            continue;
        };
        assert!(!explanation.answers.is_empty());
        drop(explanation.to_string());
    }
});
