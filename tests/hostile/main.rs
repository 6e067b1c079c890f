//! Sellers that cheat, break and lie, each against the client: what was signed, what reached which
//! origin, what the chain moved, what the error and the books say, in how much time and how many
//! bytes.
//!
//! A row of a table is one [`Trial`](trial::Trial). What must hold for every seller, however it
//! misbehaves, is checked in every trial: see [`trial::Trial::run`].
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "tests"
)]

mod answers;
mod breakages;
mod complete;
mod inspect;
mod permits;
mod purchases;
mod terms;
mod trial;
