//! What the tests of bursar share. There are no tests here.

#![expect(
    missing_docs,
    missing_debug_implementations,
    clippy::exhaustive_structs,
    clippy::indexing_slicing,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::panic,
    clippy::return_self_not_must_use,
    clippy::unwrap_used,
    reason = "only tests use it"
)]

pub mod purse;
pub mod shop;
#[cfg(feature = "mcp")]
#[expect(clippy::exhaustive_enums, reason = "only tests use it")]
pub mod tools;
