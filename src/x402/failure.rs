//! The words with which facilitators and sellers say why a payment did not settle.

/// The consequence of a seller's reason.
///
/// The words are those of the official facilitators (x402 `errors.go` and `errors.ts`, Coinbase's
/// `X402SettleErrorReason`) and of the specification. An unknown word is a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The payment may have settled, or the facilitator could not look. The same payment may succeed.
    Uncertain,
    /// The payer has too few tokens.
    WalletEmpty,
    /// The payer has not approved Permit2 to move its tokens.
    NoAllowance,
    /// The seller refuses every payment that is made like this one.
    Permanent,
    /// The seller refuses this payment.
    Refused,
}

/// A transaction may be on its way, or a node did not answer.
const UNCERTAIN: [&str; 28] = [
    "settlement_pending",
    "transaction_pending",
    "payment_pending",
    "settlement_in_progress",
    "duplicate_settlement",
    "already_processing",
    "timed_out",
    "confirmation_timeout",
    "settlement_timeout",
    "transaction_timeout",
    "facilitator_timeout",
    "gateway_timeout",
    "deadline_exceeded",
    "did_not_confirm",
    "not_confirmed",
    "unconfirmed",
    "node_failure",
    "failed_to_get_receipt",
    "failed_to_execute_transfer",
    "failed_to_get_balance",
    "failed_to_get_network_config",
    "failed_to_check_nonce",
    "failed_to_check_deployment",
    "block_height_exceeded",
    "unexpected_settle_error",
    "unexpected_verify_error",
    "unknown_error",
    "service_unavailable",
];

const WALLET_EMPTY: [&str; 8] = [
    "insufficient_funds",
    "insufficient_balance",
    "insufficient_token_balance",
    "insufficient_usdc",
    "amount_exceeds_balance",
    "balance_too_low",
    "not_enough_balance",
    "not_enough_funds",
];

/// The payer has to approve Permit2, and can then present the same payment again.
const NO_ALLOWANCE: [&str; 2] = ["permit2_allowance_required", "insufficient_allowance"];

/// Another signature of the same wallet for the same offer would meet the same refusal.
const PERMANENT: [&str; 31] = [
    "unsupported_scheme",
    "invalid_scheme",
    "exact_evm_scheme",
    "upto_evm_scheme",
    "invalid_network",
    "network_mismatch",
    "unsupported_network",
    "invalid_x402_version",
    "unsupported_payload_type",
    "missing_eip712_domain",
    "token_name_mismatch",
    "token_version_mismatch",
    "eip3009_not_supported",
    "asset_not_deployed",
    "invalid_payment_requirements",
    "invalid_exact_evm_signature",
    "invalid_exact_evm_payload_signature",
    "invalid_permit2_signature",
    "invalid_permit2_spender",
    "permit2_token_mismatch",
    "permit2_amount_mismatch",
    "permit2_invalid_owner",
    "permit2_invalid_destination",
    "permit2_proxy_not_deployed",
    "undeployed_smart_wallet",
    "recipient_mismatch",
    "blacklisted",
    "blocklisted",
    "sanction",
    "kyt_",
    "address_blocked",
];

impl Failure {
    /// Sorts a reason that a receipt or the terms of a 402 give. Case, spaces and hyphens do not matter.
    pub(crate) fn of(reason: &str) -> Self {
        let word: String = reason
            .trim()
            .chars()
            .map(|c| match c {
                ' ' | '-' => '_',
                c => c.to_ascii_lowercase(),
            })
            .collect();
        let has = |words: &[&str]| words.iter().any(|known| word.contains(known));
        // A facilitator without gas speaks of its own wallet.
        if has(&WALLET_EMPTY) && !word.contains("gas") {
            Self::WalletEmpty
        } else if has(&NO_ALLOWANCE) {
            Self::NoAllowance
        } else if has(&UNCERTAIN) {
            Self::Uncertain
        } else if has(&PERMANENT) {
            Self::Permanent
        } else {
            Self::Refused
        }
    }

    /// Sorts the text of a body that is not x402. Its words may be about something else, such as the
    /// seller's own account, so only the codes of facilitators count.
    pub(crate) fn of_foreign(text: &str) -> Self {
        let is_code = |known: &&str| known.contains('_') && text.contains(*known);
        if UNCERTAIN.iter().any(is_code) {
            Self::Uncertain
        } else {
            Self::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_of_facilitators_are_sorted() {
        let words = [
            ("settlement_pending", Failure::Uncertain),
            (
                "settle_exact_evm_transaction_confirmation_timed_out",
                Failure::Uncertain,
            ),
            (
                "settle_exact_svm_transaction_confirmation_timed_out",
                Failure::Uncertain,
            ),
            ("settle_exact_node_failure", Failure::Uncertain),
            (
                "invalid_exact_evm_failed_to_get_receipt",
                Failure::Uncertain,
            ),
            ("unexpected_settle_error", Failure::Uncertain),
            ("Transaction timed out", Failure::Uncertain),
            ("Facilitator timeout", Failure::Uncertain),
            ("maxTimeoutSeconds is too small", Failure::Refused),
            ("insufficient_funds", Failure::WalletEmpty),
            (
                "invalid_exact_evm_insufficient_balance",
                Failure::WalletEmpty,
            ),
            ("Insufficient funds", Failure::WalletEmpty),
            (
                "ERC20: transfer amount exceeds balance",
                Failure::WalletEmpty,
            ),
            (
                "insufficient funds for gas * price + value",
                Failure::Refused,
            ),
            ("invalid_exact_evm_insufficient_amount", Failure::Refused),
            ("permit2_allowance_required", Failure::NoAllowance),
            ("unsupported_scheme", Failure::Permanent),
            ("invalid_exact_evm_signature", Failure::Permanent),
            ("invalid_exact_evm_nonce_already_used", Failure::Refused),
            ("invalid_exact_evm_transaction_failed", Failure::Refused),
            (
                "invalid_exact_evm_payload_authorization_valid_before",
                Failure::Refused,
            ),
            ("some_new_code_42", Failure::Refused),
            ("", Failure::Refused),
        ];
        for (word, failure) in words {
            assert_eq!(Failure::of(word), failure, "{word}");
        }
    }

    /// The words of `@x402/evm` 2.27.0 for `exact` by Permit2 and for `upto`.
    #[test]
    fn reasons_of_facilitators_about_permits_are_sorted() {
        let words = [
            (Failure::WalletEmpty, "permit2_insufficient_balance"),
            (Failure::NoAllowance, "permit2_allowance_required"),
            (Failure::Permanent, "invalid_permit2_recipient_mismatch"),
            (Failure::Permanent, "invalid_permit2_signature"),
            (Failure::Permanent, "invalid_permit2_spender"),
            (Failure::Permanent, "invalid_upto_evm_network_mismatch"),
            (Failure::Permanent, "invalid_upto_evm_scheme"),
            (Failure::Permanent, "permit2_amount_mismatch"),
            (Failure::Permanent, "permit2_invalid_destination"),
            (Failure::Permanent, "permit2_invalid_owner"),
            (Failure::Permanent, "permit2_proxy_not_deployed"),
            (Failure::Permanent, "permit2_token_mismatch"),
            (
                Failure::Refused,
                "invalid_upto_evm_payload_settlement_exceeds_amount",
            ),
            (Failure::Refused, "invalid_upto_evm_transaction_failed"),
            (Failure::Refused, "permit2_2612_amount_mismatch"),
            (Failure::Refused, "permit2_deadline_expired"),
            (Failure::Refused, "permit2_invalid_amount"),
            (Failure::Refused, "permit2_invalid_nonce"),
            (Failure::Refused, "permit2_not_yet_valid"),
            (Failure::Refused, "permit2_payment_too_early"),
            (Failure::Refused, "permit2_simulation_failed"),
        ];
        for (failure, word) in words {
            assert_eq!(Failure::of(word), failure, "{word}");
        }
    }

    #[test]
    fn a_foreign_body_is_uncertain_by_a_code_alone() {
        let details = r#"settle failed (500): {"errorReason":"settle_exact_node_failure"}"#;
        assert_eq!(Failure::of_foreign(details), Failure::Uncertain);
        assert_eq!(Failure::of_foreign("upstream timeout"), Failure::Refused);
        assert_eq!(
            Failure::of_foreign("Insufficient Balance"),
            Failure::Refused
        );
    }
}
