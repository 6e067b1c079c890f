//! A seller's receipt: only a success that names our payer, our network and a transaction settles.

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
    let claim = SettlementResponse::from_header(header);
    let Some(transaction) = fuzzing::settles(paid, header) else {
        return;
    };
    let claim = claim.expect("what settles can be read");
    assert!(claim.success && !claim.is_pending());
    assert_eq!(claim.network.parse().ok(), Some(paid.network()));
    assert_eq!(
        claim.payer.and_then(|payer| payer.parse().ok()),
        Some(paid.payer)
    );
    assert!(
        claim
            .transaction
            .eq_ignore_ascii_case(&transaction.to_string())
    );
}
