//! Code that the tests of bursar share: sellers, clients, wallets, clocks and tokens.
//!
//! * [`paywall`]: a seller with one report for sale, and a client that buys it.
//! * [`wallet_harness`]: a wallet under a policy, without a seller and without HTTP.
//! * [`scripted`]: a seller whose answers a test writes byte by byte.
//! * [`tool_server`]: an MCP server with paid tools.
//! * [`endless_tools`]: an MCP server whose lists have no end.

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

pub mod clock;
#[cfg(feature = "mcp")]
#[expect(clippy::exhaustive_enums, reason = "only tests use it")]
pub mod endless_tools;
pub mod imagined_payment;
pub mod paywall;
pub mod recorder;
pub mod scripted;
pub mod signatures;
pub mod stub_node;
pub mod test_offer;
pub mod tokens;
#[cfg(feature = "mcp")]
#[expect(clippy::exhaustive_enums, reason = "only tests use it")]
pub mod tool_server;
pub mod wallet_harness;
