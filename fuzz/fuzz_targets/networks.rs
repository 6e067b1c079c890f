//! Networks by CAIP-2 and by the names of version 1: one chain has one identifier.

#![no_main]

use bursar::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(network) = text.parse::<Network>() else {
        return;
    };
    let shown = network.to_string();
    assert_eq!(shown.parse(), Ok(network));
    assert_eq!(shown, format!("eip155:{}", network.chain_id()));
    assert!(
        text == shown || network.name() == Some(text) || !text.contains(':'),
        "{text}"
    );
    assert_eq!(Network::from_chain_id(network.chain_id()), network);
});
