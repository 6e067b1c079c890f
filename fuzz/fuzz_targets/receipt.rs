//! A seller's receipt: only a success that names a transaction, and no other payer or network, settles.

#![no_main]

use bursar::fuzzing;
use bursar::x402::SettlementResponse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let paid = fuzzing::signed_payment();
    check(&paid, data);
    check(&paid, fuzzing::header(data).as_bytes());
});

fn check(paid: &bursar::SignedPayment, header: &[u8]) {
    if let Some(shown) = fuzzing::receipt_signature(paid, header) {
        assert!(!fuzzing::has_long_hex(&shown), "{shown}");
        assert!(
            shown.len() < 2_000 && !shown.contains(char::is_control),
            "{shown:?}"
        );
    }
    let claim = SettlementResponse::from_header(header);
    let Some(transaction) = fuzzing::settles(paid, header) else {
        return;
    };
    let claim = claim.expect("what settles can be read");
    assert!(claim.success && !claim.is_pending());
    // Sellers leave out the network and the payer, and some the prefix of the transaction.
    assert!(claim.network.is_empty() || claim.network.parse().ok() == Some(paid.network()));
    let payer = claim.payer.unwrap_or_default();
    assert!(payer.is_empty() || payer.parse().ok() == Some(paid.payer));
    let hash = claim.transaction.trim_start_matches("0x");
    assert!(format!("0x{hash}").eq_ignore_ascii_case(&transaction.to_string()));
}
