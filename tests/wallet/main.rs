//! A wallet that asks the chain: its balance before a signature, its contract about a signature, and the outcome of
//! payments that expired.

#![expect(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

mod approval;
mod balance;
mod contract;
mod upkeep;
