//! What the chain's readers answer.

use std::fmt;

use alloy::primitives::{B256, U256};
use serde::{Deserialize, Serialize};

use super::rpc::RpcError;
use crate::json_text::{hash, units};

/// What became of an authorization.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// It was used, by this transaction.
    Settled(Settlement),
    /// It was not used and can never be.
    NotSettled(Proof),
    /// Neither is known. The money stays counted.
    CannotTell {
        /// Why, of the endpoint that came nearest to an answer.
        reason: Reason,
    },
}

/// A transfer that the chain shows in a block that is final.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settlement {
    /// Hash of the transaction.
    #[serde(with = "hash")]
    pub transaction: B256,
    /// Number of its block.
    pub block: u64,
    /// What it moved, in atomic units.
    #[serde(with = "units")]
    pub value: U256,
    /// Host and port of the endpoint that showed it.
    pub host: String,
}

/// That money was not spent and cannot be. The books keep it as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Proof {
    /// What makes it impossible.
    pub kind: ProofKind,
    /// Who says so, each of another host.
    pub endpoints: Vec<Endpoint>,
}

/// What makes a settlement impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProofKind {
    /// The nonce was unused at a final block past `validBefore`.
    Expired,
    /// `AuthorizationCanceled` is in a final block.
    Canceled,
}

/// An endpoint, and the final block that it looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Endpoint {
    /// Host and port.
    pub host: String,
    /// The block.
    #[serde(flatten)]
    pub head: Head,
}

/// A block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Head {
    /// Its number.
    #[serde(rename = "block_number")]
    pub number: u64,
    /// Its hash.
    #[serde(rename = "block_hash", with = "hash")]
    pub hash: B256,
    /// Its time, in Unix seconds.
    #[serde(rename = "block_timestamp")]
    pub timestamp: u64,
}

/// Why the chain's readers cannot tell.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No endpoint is configured for the chain.
    #[error("no endpoint is configured for this chain")]
    NoEndpoint,
    /// An endpoint gave no usable answer.
    #[error(transparent)]
    Endpoint(#[from] RpcError),
    /// The endpoint is of another chain.
    #[error("the endpoint is of chain {0}")]
    WrongChain(u64),
    /// The node knows no final block.
    #[error("the node knows no finalized block, and no number of confirmations is set")]
    NoFinality,
    /// There is no contract at the token's address, as far as the endpoint knows.
    #[error("the endpoint shows no contract at the token's address")]
    NoCode,
    /// A nonce that nobody can have signed is used: the endpoint says so of all.
    #[error("the endpoint calls a nonce used that nobody signed")]
    ControlFailed,
    /// The authorization can still be used.
    #[error("unused, and not expired yet")]
    NotExpired,
    /// It has expired by our clock, but not at the latest final block that the endpoint knows.
    #[error("unused, but the endpoint's final block is from before the expiry")]
    BlockTooOld,
    /// The block's time is far ahead of our clock.
    #[error("the endpoint's final block is of the future")]
    BlockOfTheFuture,
    /// The block that the transaction was in is not on the chain any more, or not final.
    #[error("the transaction's block is not final on this chain")]
    Reorged,
    /// The nonce is used, and no log tells how. A cancellation uses it too, so that either answer
    /// would be a guess; another endpoint may still have the logs.
    #[error("the nonce is used, but no log tells for what")]
    UsedUnexplained,
    /// The transaction that used the nonce is not the transfer that was signed.
    #[error("the transaction that used the nonce does not show the transfer that was signed")]
    OtherTransfer,
    /// Fewer endpoints say so than are required.
    #[error("{found} of {required} witnesses say that it was not settled")]
    TooFewEndpoints {
        /// How many different hosts.
        found: usize,
        /// How many must.
        required: usize,
    },
    /// Endpoints contradict each other: somebody lies, or is broken.
    #[error("endpoints contradict each other: {0} and {1}")]
    Disagreement(String, String),
}

/// One line for people.
impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Settled(settlement) => write!(f, "settled in {}", settlement.transaction),
            Self::NotSettled(Proof {
                kind: ProofKind::Expired,
                ..
            }) => f.write_str("not settled: expired unused"),
            Self::NotSettled(Proof {
                kind: ProofKind::Canceled,
                ..
            }) => f.write_str("not settled: canceled"),
            Self::CannotTell { reason } => write!(f, "cannot tell: {reason}"),
        }
    }
}
