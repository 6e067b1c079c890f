//! What endpoints say, weighed: pure.

use alloy::primitives::{B256, U256};
use serde::Serialize;

use crate::Timestamp;

/// What the chain tells of an authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reading {
    /// A final block holds the transaction that used the nonce and moved the money.
    Settled {
        /// The payment.
        payment: Payment,
        /// Who says so.
        witnesses: Vec<Witness>,
    },
    /// It was not cashed, and cannot be any more.
    NotSettled {
        /// Whether the nonce was cancelled; otherwise the authorization has expired unused.
        cancelled: bool,
        /// Who says so.
        witnesses: Vec<Witness>,
    },
    /// Everything else. The money stays counted.
    CannotTell {
        /// Why, by endpoint.
        reason: String,
    },
}

/// A payment as the chain has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Payment {
    /// The transaction that used the nonce.
    pub transaction: B256,
    /// The block that it is in.
    pub block: u64,
    /// The time of that block.
    pub at: Timestamp,
    /// What was moved, in atomic units.
    #[serde(serialize_with = "decimal")]
    pub value: U256,
}

fn decimal<S: serde::Serializer>(value: &U256, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// An endpoint, and the final block that it spoke of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Witness {
    /// Host and port.
    pub endpoint: String,
    /// Number of the block.
    pub block: u64,
    /// Its hash.
    pub hash: B256,
    /// Its time, in Unix seconds.
    pub timestamp: u64,
}

/// One endpoint's word.
#[derive(Clone, Debug)]
pub(super) enum Word {
    Paid(Payment, Witness),
    Cancelled(Witness),
    /// Expired, and unused at a final block.
    Unused(Witness),
    /// Nothing certain, with the endpoint's name.
    Silent(String, String),
}

/// Paid is believed of one, if none that could know contradicts: it releases nothing. That nothing
/// was paid is believed of as many as are required, on different hosts, if none says otherwise.
pub(super) fn reach(words: &[Word], required: usize) -> Reading {
    let mut paid: Option<Payment> = None;
    let (mut payers, mut deniers): (Vec<Witness>, Vec<Witness>) = (Vec::new(), Vec::new());
    let mut reasons = Vec::new();
    let (mut cancelled, mut differ) = (false, false);
    for word in words {
        match word {
            Word::Paid(payment, witness) => {
                differ |= paid.is_some_and(|other| other.transaction != payment.transaction);
                paid = Some(*payment);
                payers.push(witness.clone());
            }
            Word::Cancelled(witness) => {
                cancelled = true;
                deniers.push(witness.clone());
            }
            Word::Unused(witness) => deniers.push(witness.clone()),
            Word::Silent(endpoint, why) => reasons.push(format!("{endpoint}: {why}")),
        }
    }
    if differ || (paid.is_some() && !deniers.is_empty()) {
        let all: Vec<String> = payers.iter().chain(&deniers).map(|witness| witness.endpoint.clone()).collect();
        return Reading::CannotTell { reason: format!("{} contradict each other", all.join(" and ")) };
    }
    if let Some(payment) = paid {
        return Reading::Settled { payment, witnesses: payers };
    }
    let mut hosts: Vec<&str> = deniers.iter().map(|witness| witness.endpoint.as_str()).collect();
    hosts.sort_unstable();
    hosts.dedup();
    if !hosts.is_empty() && hosts.len() >= required {
        return Reading::NotSettled { cancelled, witnesses: deniers };
    }
    if !hosts.is_empty() {
        reasons.push(format!("only {} says that it is unpaid, and {required} must", hosts.join(" and ")));
    }
    if words.is_empty() {
        reasons.push("no endpoint for the network is configured".to_owned());
    }
    Reading::CannotTell { reason: reasons.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn witness(endpoint: &str) -> Witness {
        Witness { endpoint: endpoint.to_owned(), block: 9, hash: B256::ZERO, timestamp: 90 }
    }

    fn paid(endpoint: &str, transaction: u8) -> Word {
        let at = Timestamp::from_secs(80);
        let transaction = B256::repeat_byte(transaction);
        Word::Paid(Payment { transaction, block: 8, at, value: U256::ONE }, witness(endpoint))
    }

    fn silent(endpoint: &str) -> Word {
        Word::Silent(endpoint.to_owned(), "status 503".to_owned())
    }

    fn kind(words: &[Word], required: usize) -> &'static str {
        match reach(words, required) {
            Reading::Settled { .. } => "settled",
            Reading::NotSettled { cancelled: true, .. } => "cancelled",
            Reading::NotSettled { .. } => "not settled",
            Reading::CannotTell { .. } => "cannot tell",
        }
    }

    #[test]
    fn one_is_enough_to_confirm_and_two_must_agree_to_release() {
        let unused = |endpoint: &str| Word::Unused(witness(endpoint));
        let cancelled = |endpoint: &str| Word::Cancelled(witness(endpoint));
        let cases: [(&[Word], usize, &str); 13] = [
            (&[], 1, "cannot tell"),
            (&[paid("a", 1)], 2, "settled"),
            (&[paid("a", 1), silent("b")], 2, "settled"),
            (&[paid("a", 1), paid("b", 1)], 2, "settled"),
            (&[paid("a", 1), paid("b", 2)], 2, "cannot tell"),
            (&[paid("a", 1), unused("b"), unused("c")], 2, "cannot tell"),
            (&[paid("a", 1), cancelled("b")], 1, "cannot tell"),
            (&[unused("a")], 2, "cannot tell"),
            (&[unused("a"), unused("a")], 2, "cannot tell"),
            (&[unused("a"), silent("b")], 2, "cannot tell"),
            (&[unused("a"), unused("b")], 2, "not settled"),
            (&[cancelled("a"), cancelled("b")], 2, "cancelled"),
            (&[unused("a")], 1, "not settled"),
        ];
        for (words, required, expected) in cases {
            assert_eq!(kind(words, required), expected, "{words:?}");
        }
    }
}
