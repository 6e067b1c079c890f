//! The answer about an authorization, and its proof.

use std::fmt;

use alloy::primitives::{B256, U256};
use serde::{Deserialize, Serialize};

use super::rpc::RpcError;
use crate::json_text::{hash, optional_hash, units};

/// The outcome of an authorization, according to the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// The token accepted the authorization in a transaction.
    Settled(Settlement),
    /// The token did not accept the authorization and never will.
    NotSettled(Proof),
    /// The endpoints do not show the outcome. The money stays counted.
    CannotTell {
        /// The reason of the endpoint that came nearest to an answer.
        reason: Reason,
    },
}

/// A transfer in a final block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settlement {
    /// The hash of the transaction. `None` if only the used nonce of Permit2 shows the transfer.
    #[serde(with = "optional_hash")]
    pub transaction: Option<B256>,
    /// The number of the block. Without a transaction, the number of a block in which the nonce was used.
    pub block: u64,
    /// The transferred value in atomic units: by Permit2, an upper bound. Without a transaction, the signed value.
    #[serde(with = "units")]
    pub value: U256,
    /// The host and port of the endpoint that showed the transfer.
    pub host: String,
}

/// The proof that an authorization moved no money and cannot move any.
///
/// The ledger stores it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Proof {
    /// The reason why a settlement is impossible.
    pub kind: ProofKind,
    /// The endpoints that confirm it, one of each party.
    pub endpoints: Vec<Endpoint>,
}

/// The reason why a settlement is impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProofKind {
    /// The nonce was unused at a final block after `validBefore`.
    Expired,
    /// A final block has the event `AuthorizationCanceled`.
    Canceled,
}

/// An endpoint that confirms a proof, and the final block that it used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// The host and port.
    pub host: String,
    /// The final block.
    #[serde(flatten)]
    pub head: Head,
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Head {
    /// The number of the block.
    #[serde(rename = "block_number")]
    pub number: u64,
    /// The hash of the block.
    #[serde(rename = "block_hash", with = "hash")]
    pub hash: B256,
    /// The time of the block, in Unix seconds.
    #[serde(rename = "block_timestamp")]
    pub timestamp: u64,
}

/// The reason why the endpoints do not show the outcome.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No endpoint is configured for the chain. Add one with
    /// [`ChainReader::endpoint`](super::ChainReader::endpoint).
    #[error("no endpoint is configured for this chain")]
    NoEndpoint,
    /// An endpoint gave no usable answer.
    #[error(transparent)]
    Endpoint(#[from] RpcError),
    /// The endpoint belongs to another chain.
    #[error("the endpoint belongs to chain {0}")]
    WrongChain(u64),
    /// The node knows no final block. Set [`ChainReader::confirmations`](super::ChainReader::confirmations).
    #[error("the node knows no finalized block, and no number of confirmations is set")]
    NoFinality,
    /// The endpoint has no contract at the address of the token, or of Permit2 for a payment by Permit2.
    #[error("the endpoint has no contract at the address of the token or of Permit2")]
    NoCode,
    /// The endpoint reports that a nonce is used for which no signature exists.
    #[error("the endpoint reports a nonce as used that was never signed")]
    ControlFailed,
    /// The authorization can still be used.
    #[error("the nonce is unused, and the authorization has not expired")]
    NotExpired,
    /// The authorization has expired by the local clock, but not at the endpoint's latest final block.
    #[error("the nonce is unused, but the endpoint's final block is older than the expiry")]
    BlockTooOld,
    /// The time of the endpoint's final block is far ahead of the local clock.
    #[error("the endpoint's final block is in the future")]
    BlockOfTheFuture,
    /// The transaction's block is not final, or no longer on the chain.
    #[error("the transaction's block is not final on this chain")]
    Reorged,
    /// The nonce is used and no log shows by which event.
    ///
    /// A transfer and a cancellation both use the nonce. Another endpoint may still have the logs.
    #[error(
        "the nonce is used, but no log shows by which event; ask another endpoint, which keeps the logs"
    )]
    UsedUnexplained,
    /// The nonce is used, and the endpoint searches so few blocks at once that the search for the event was given up.
    #[error(
        "the nonce is used, and the endpoint searches only {0} blocks at once for the event; \
         ask an endpoint that searches more"
    )]
    NarrowLogs(u64),
    /// The transaction that used the nonce does not contain the signed transfer.
    #[error("the transaction that used the nonce does not contain the signed transfer")]
    OtherTransfer,
    /// The nonce of Permit2 is used, and too few endpoints show the charge yet. bursar asks again for an hour.
    #[error("the nonce is used, and {found} of {required} required endpoints show the charge")]
    ChargeUnknown {
        /// The number of different parties that show it.
        found: usize,
        /// The number of parties that are required.
        required: usize,
    },
    /// Endpoints of fewer parties confirm the proof than
    /// [required](super::ChainReader::required_endpoints).
    #[error(
        "{found} of {required} required endpoints of different parties confirm that the payment was not settled"
    )]
    TooFewEndpoints {
        /// The number of different parties that confirm it.
        found: usize,
        /// The number of parties that are required.
        required: usize,
    },
    /// The signature of a transaction is not one of a key pair.
    #[error("only a key pair can sign a transaction")]
    NotSendable,
    /// Two endpoints contradict each other. At least one of them is wrong.
    #[error("endpoints contradict each other: {0} and {1}")]
    Disagreement(String, String),
}

/// Writes one line for people.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled(settlement) => match settlement.transaction {
                Some(transaction) => write!(f, "settled in {transaction}"),
                None => write!(f, "settled: the nonce of Permit2 is used"),
            },
            Self::NotSettled(Proof {
                kind: ProofKind::Expired,
                ..
            }) => f.write_str("not settled: the authorization expired unused"),
            Self::NotSettled(Proof {
                kind: ProofKind::Canceled,
                ..
            }) => f.write_str("not settled: the authorization was canceled"),
            Self::CannotTell { reason } => write!(f, "cannot tell: {reason}"),
        }
    }
}
