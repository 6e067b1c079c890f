//! The guide: what to do, task by task.
//!
//! | to | read |
//! |---|---|
//! | buy over HTTP, and know what became of the money | [`paying`] |
//! | say what may be bought, and by whom | [`permissions`] |
//! | use API keys beside payments, and find out which is cheaper | [`api_keys`] |
//! | pay for the tools of MCP servers | `mcp_tools` (feature `mcp`) |
//! | let an agent in any language pay, without the key | [`serving_agents`] |
//! | find services, and use one the same minute | [`finding_services`] |
//! | see where the money went | [`reports`] |
//!
//! One policy file serves all of it; every key of it, with comments:
//!
//! ```toml
#![doc = include_str!("../examples/policy.toml")]
//! ```

#[doc = include_str!("guide/api_keys.md")]
pub mod api_keys {}

#[doc = include_str!("guide/finding_services.md")]
pub mod finding_services {}

#[cfg(feature = "mcp")]
#[doc = include_str!("guide/mcp_tools.md")]
pub mod mcp_tools {}

#[doc = include_str!("guide/paying.md")]
pub mod paying {}

#[doc = include_str!("guide/permissions.md")]
pub mod permissions {}

#[doc = include_str!("guide/reports.md")]
pub mod reports {}

#[doc = include_str!("guide/serving_agents.md")]
pub mod serving_agents {}
